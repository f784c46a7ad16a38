"""Checks of a graph that every writer needs, whatever it writes, and errors that name the place."""

from collections.abc import Container

from edgecnn.errors import ArtifactError, UnsupportedError
from edgecnn.tflite.graph import Graph, Operator, Tensor


def axis_of(operator: Operator, axis: int, tensor: Tensor) -> int:
    """A dimension of ``tensor``, counted from the front."""
    rank = len(tensor.shape)
    if not -rank <= axis < rank:
        raise ArtifactError(f"{operator}: tensor {tensor.name!r} of shape {tensor.shape} has no axis {axis}")
    return axis % rank


def four_dimensions(operator: Operator, *tensors: Tensor) -> None:
    """Raise unless all ``tensors`` have four dimensions."""
    for tensor in tensors:
        if len(tensor.shape) != 4:
            raise ArtifactError(f"{operator}: tensor {tensor.name!r} has shape {tensor.shape}, not four dimensions")


def check(graph: Graph, kinds: Container[str], purpose: str) -> None:
    """Check what writers rely on: one input, one output, and operators that have the inputs of their kind.

    Inputs are checked of operators in ``kinds`` only, because the others are refused by their name. ``purpose`` says
    in errors what the graph is read for, such as "written to ONNX".
    """
    for kind, indices in (("input", graph.inputs), ("output", graph.outputs)):
        if len(indices) != 1:
            raise UnsupportedError(f"the graph has {len(indices)} {kind}s; it is {purpose} with one of each")
        tensor = graph.tensors[indices[0]]
        if not tensor.shape or tensor.shape[0] == 0 or min(tensor.shape[1:], default=1) < 1:
            raise UnsupportedError(
                f"the graph's {kind} {tensor.name!r} has shape {tensor.shape}; only the batch may be free"
            )
    if graph.inputs == graph.outputs or graph.tensors[graph.outputs[0]].data is not None:
        raise ArtifactError("the graph's output is a constant, or its input")
    for operator in graph.operators:
        if not operator.outputs:
            raise ArtifactError(f"{operator} has no output")
        if operator.kind in kinds:
            _check_inputs(graph, operator)


def _check_inputs(graph: Graph, operator: Operator) -> None:
    if not operator.inputs:
        raise ArtifactError(f"{operator} has no input")
    for position, index in enumerate(operator.inputs):
        if index < 0 and not (position == 2 and operator.kind in _WITH_BIAS):
            raise ArtifactError(f"{operator}: its input {position} is absent")
    source, output = (graph.tensors[index] for index in (operator.inputs[0], operator.outputs[0]))
    if operator.kind in _SAME_RANK and len(source.shape) != len(output.shape):
        raise ArtifactError(f"{operator} makes {output.shape} of {source.shape}, which have not as many dimensions")


def shape_computations(graph: Graph) -> set[int]:
    """Operators that only compute the target of a Reshape from the free batch, which writers do without."""
    consumers: dict[int, list[Operator]] = {}
    for operator in graph.operators:
        for index in operator.inputs:
            consumers.setdefault(index, []).append(operator)
    found: set[int] = set()
    for operator in reversed(graph.operators):
        users = consumers.get(operator.outputs[0], [])
        feeds_shape = users and all(
            user.position in found or (user.kind == "RESHAPE" and user.inputs[1:2] == operator.outputs)
            for user in users
        )
        if operator.kind in ("SHAPE", "STRIDED_SLICE", "PACK") and feeds_shape:
            found.add(operator.position)
    return found


_WITH_BIAS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")

# whose output has as many dimensions as their first input
_SAME_RANK = (
    "AVERAGE_POOL_2D", "CONV_2D", "DEPTHWISE_CONV_2D", "DEQUANTIZE", "HARD_SWISH", "LEAKY_RELU", "LOGISTIC",
    "MAX_POOL_2D", "PAD", "PADV2", "QUANTIZE", "RELU", "RELU6", "RELU_N1_TO_1", "RESIZE_BILINEAR",
    "RESIZE_NEAREST_NEIGHBOR", "SOFTMAX", "TANH", "TILE", "TRANSPOSE",
)  # fmt: skip
