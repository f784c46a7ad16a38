"""The operators of a graph as typed records, checked against each other and the file, with shapes.

The result of ``read`` is valid: every input exists, every shape fits, every constant has its type. Each fault has one
message here, for all writers; a writer refuses only what its own target cannot do.
TFLite operators: https://ai.google.dev/edge/litert/conversion/tensorflow/quantization/quantization_spec
"""

import functools
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgecnn.errors import ArtifactError, UnsupportedError, one_line
from edgecnn.tflite.functions import Function, functions, stored
from edgecnn.tflite.graph import Graph, Operator, Tensor
from edgecnn.tflite.state import Variable, variables

Shape = tuple[int, ...]
Pair = tuple[int, int]
Limits = tuple[float | None, float | None]

_MAX_ELEMENTS = 2**31 - 1
_TANH = 4  # as a fused activation
# types of activations that are not quantised
_PLAIN = ("bool", "float32", "int32")
# value limits of fused activations, by number in the schema
_FUSED: dict[int, Limits] = {0: (None, None), 1: (0.0, None), 2: (-1.0, 1.0), 3: (0.0, 6.0)}
# value limits of separate activation operators
_LIMITS = {
    "DEQUANTIZE": _FUSED[0], "QUANTIZE": _FUSED[0], "RELU": _FUSED[1], "RELU_N1_TO_1": _FUSED[2], "RELU6": _FUSED[3],
}  # fmt: skip


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """An operator with the tensors it computes with.

    ``inputs`` are activations or constants. Their shapes and that of ``output`` have no dynamic size: a dynamic batch
    is 1. Each is float32, bool or int32, or int8, uint8 or int16 with one scale. ``limits`` are the limits of the
    output's real values. Operators with several outputs are several records.
    """

    operator: Operator
    inputs: tuple[Tensor, ...]
    output: Tensor
    limits: Limits = (None, None)

    def __str__(self) -> str:
        return str(self.operator)

    @property
    def kind(self) -> str:
        """The operator's name in the TFLite schema."""
        return self.operator.kind

    @property
    def position(self) -> int:
        """The operator's position in the graph."""
        return self.operator.position


class Weights(msgspec.Struct, frozen=True, kw_only=True):
    """Weights as stored: int8 (also of int4) or uint8, with one scale and zero point, or one per output; or float32."""

    values: NDArray[Any]
    scale: NDArray[np.float32]
    zero_point: NDArray[np.int64]


class Weighted(Operation, frozen=True, kw_only=True):
    """An operator with weights.

    ``bias`` has one value per output, or is None: int32, also int64 for an int16 input, or as float32 as the weights.
    """

    weights: Weights
    bias: NDArray[np.int32 | np.int64 | np.float32] | None

    @property
    def computes_in_float(self) -> bool:
        """Whether the weights are float32."""
        return self.weights.values.dtype == np.float32

    def check_symmetric(self) -> None:
        """Raise ``UnsupportedError`` if the weights have a zero point, like uint8 weights from old converters."""
        if self.weights.zero_point.any():
            raise UnsupportedError(f"{self}: its weights have a zero point; only symmetric int8 weights are supported")


class Convolution(Weighted, frozen=True, kw_only=True):
    """CONV_2D or DEPTHWISE_CONV_2D.

    Weights are ``(outputs, height, width, channels / groups)``, or ``(1, height, width, outputs)`` if each input
    channel is a group. ``pads`` are top, left, bottom, right.
    """

    kernel: Pair
    stride: Pair
    dilation: Pair
    pads: tuple[int, int, int, int]
    groups: int

    @property
    def depthwise(self) -> bool:
        """Whether each input channel is convolved separately."""
        return self.kind == "DEPTHWISE_CONV_2D"


class TransposedConvolution(Weighted, frozen=True, kw_only=True):
    """TRANSPOSE_CONV with weights ``(outputs, height, width, channels)``: each input value adds a scaled kernel.

    ``pads`` are top, left, bottom, right: rows and columns that the sum of kernels has beyond the output. ``extra`` are
    rows and columns of the output below and to the right of all kernels.
    """

    kernel: Pair
    stride: Pair
    pads: tuple[int, int, int, int]
    extra: Pair


class Dense(Weighted, frozen=True, kw_only=True):
    """FULLY_CONNECTED with weights ``(outputs, inputs)``, applied to each row of ``inputs`` values."""


class Pool(Operation, frozen=True, kw_only=True):
    """AVERAGE_POOL_2D, without the padding, or MAX_POOL_2D. ``pads`` are top, left, bottom, right."""

    kernel: Pair
    stride: Pair
    pads: tuple[int, int, int, int]


class Reduction(Operation, frozen=True, kw_only=True):
    """MEAN, SUM, REDUCE_ANY, REDUCE_MAX, REDUCE_MIN or REDUCE_PROD over ``axes``, at least one, in order.

    ``keep`` leaves them with size 1.
    """

    axes: tuple[int, ...]
    keep: bool


class ArgExtreme(Operation, frozen=True, kw_only=True):
    """ARG_MAX or ARG_MIN along ``axis``: places as int32."""

    axis: int


class CumulativeSum(Operation, frozen=True, kw_only=True):
    """CUMSUM along ``axis``; ``exclusive`` leaves a value out of its own sum, ``reverse`` starts at the end."""

    axis: int
    exclusive: bool
    reverse: bool


class MatMul(Operation, frozen=True, kw_only=True):
    """BATCH_MATMUL of two tensors that broadcast before their last two axes.

    ``transposed`` tells for each whether these are swapped first.
    """

    transposed: tuple[bool, bool]


class Binary(Operation, frozen=True, kw_only=True):
    """Arithmetic, a comparison or a logical operator of two tensors that broadcast, or PRELU with slopes as the second.

    Comparisons and logical operators have a bool output.
    """


class Select(Operation, frozen=True, kw_only=True):
    """SELECT or SELECT_V2 of tensors that broadcast: the second where the first, bool, is true, and else the third."""


class Rescale(Operation, frozen=True, kw_only=True):
    """QUANTIZE, DEQUANTIZE and RELU variants: the same values with another type, scale or range."""


class Unary(Operation, frozen=True, kw_only=True):
    """A function of each value, such as LOGISTIC, RSQRT or CAST to the output's type."""


class Gelu(Operation, frozen=True, kw_only=True):
    """GELU; ``approximate`` by tanh."""

    approximate: bool


class Table(Operation, frozen=True, kw_only=True):
    """One or more elementwise operators: the output is a function of one input, both int8 or uint8.

    ``values`` are the output's stored values for those of the input, from its lowest on.
    """

    values: NDArray[np.int64]


class LeakyRelu(Operation, frozen=True, kw_only=True):
    """LEAKY_RELU; ``alpha``, finite, is the slope below 0."""

    alpha: float


class L2Norm(Operation, frozen=True, kw_only=True):
    """L2_NORMALIZATION along the last axis."""


class Softmax(Operation, frozen=True, kw_only=True):
    """SOFTMAX over the last axis, of values times ``beta``; or LOG_SOFTMAX, its logarithm."""

    beta: float


class Reshape(Operation, frozen=True, kw_only=True):
    """RESHAPE, SQUEEZE or EXPAND_DIMS: the same values in another shape."""


class Concatenation(Operation, frozen=True, kw_only=True):
    """CONCATENATION of any number of inputs along ``axis``; or PACK, along an ``axis`` that only the output has."""

    axis: int


class Pad(Operation, frozen=True, kw_only=True):
    """PAD, or PADV2 with ``value``, a constant of one element. ``pads`` are before and after each axis."""

    pads: tuple[Pair, ...]
    value: Tensor | None


class Mirror(Operation, frozen=True, kw_only=True):
    """MIRROR_PAD: the values of each axis at ``places``, which go back at both ends."""

    places: tuple[tuple[int, ...], ...]


class Tile(Operation, frozen=True, kw_only=True):
    """TILE with ``repeats``, at least 1, per axis; or BROADCAST_TO, which repeats single values."""

    repeats: tuple[int, ...]


class Transpose(Operation, frozen=True, kw_only=True):
    """TRANSPOSE: axis n of the output is axis ``order[n]`` of the input."""

    order: tuple[int, ...]


class Slice(Operation, frozen=True, kw_only=True):
    """Every ``steps``-th value from ``starts`` on, ``sizes`` of them, by axis of the input; steps can be negative.

    SLICE, STRIDED_SLICE, REVERSE_V2, or one output of SPLIT, SPLIT_V or UNPACK. The output lacks the ``removed`` axes,
    whose size is 1.
    """

    starts: tuple[int, ...]
    steps: tuple[int, ...]
    sizes: tuple[int, ...]
    removed: tuple[int, ...] = ()


class Gather(Operation, frozen=True, kw_only=True):
    """GATHER: along ``axis`` of the first tensor, the values at the places in the second, int32."""

    axis: int


class Blocks(Operation, frozen=True, kw_only=True):
    """SPACE_TO_DEPTH or DEPTH_TO_SPACE: values of the input, row by row ``sizes``, with ``strides`` between them."""

    sizes: tuple[int, ...]
    strides: tuple[int, ...]


class Resize(Operation, frozen=True, kw_only=True):
    """RESIZE_BILINEAR or RESIZE_NEAREST_NEIGHBOR to the output's height and width."""

    align_corners: bool
    half_pixel_centers: bool


class ReadVariable(Operation, frozen=True, kw_only=True):
    """READ_VARIABLE of the input, a variable (see ``state.variables``) that begins with ``initial``."""

    initial: NDArray[Any]


class AssignVariable(Operation, frozen=True, kw_only=True):
    """ASSIGN_VARIABLE to the output, a variable (see ``state.variables``) that begins with ``initial``."""

    initial: NDArray[Any]


class Svdf(Operation, frozen=True, kw_only=True):
    """SVDF: a filter ``(filters, inputs)`` of features, then one ``(filters, steps)`` over time.

    Each filter has its last ``steps`` features in ``state``. ``rank`` neighbouring filters are added to one output.
    ``bias`` has a value for each output. Weights are int8 with one scale.
    """

    features: Tensor
    time: Tensor
    bias: NDArray[np.int32]
    state: Tensor
    rank: int


class Gate(msgspec.Struct, frozen=True, kw_only=True):
    """A gate of an LSTM: int8 weights with one scale of the input, ``(units, inputs)``, and of the last output."""

    weights: Tensor
    recurrent: Tensor
    bias: NDArray[np.int32]


class Lstm(Operation, frozen=True, kw_only=True):
    """UNIDIRECTIONAL_SEQUENCE_LSTM without peepholes, projection and normalisation.

    The input is ``(1, steps, inputs)``. ``gates`` are input, forget, cell and output. ``hidden``, int8, and ``cell``,
    int16 with zero point 0 and a scale that is a power of two, are kept between runs. ``clip`` limits the cell's real
    values if above 0.
    """

    gates: tuple[Gate, ...]
    hidden: Tensor
    cell: Tensor
    clip: float


def read(graph: Graph) -> tuple[Operation | UnsupportedError, ...]:
    """The operators of ``graph`` in order; for an unsupported one, the error with the reason.

    Elementwise operators of one quantised tensor that have no record of their own for int8, or compute in float between
    quantised tensors, are read together as one ``Table``. Operators that only compute a shape are omitted, because the
    records contain it. So are operators that do not fit together after an unsupported one.

    The first errors are those of the graph's inputs and outputs.

    Raises:
        ArtifactError: the graph is damaged: an operator whose tensors are missing or do not fit together.
    """
    found: list[Operation | UnsupportedError] = [*_check_graph(graph)]
    graph, constant = _folded(graph)
    reader = _Reader(graph)
    traced = functions(graph)
    tables = _tables(graph, traced)
    skipped = constant | _shape_computations(graph) | _absorbed(graph, traced, tables)
    for operator in graph.operators:
        if operator.position in skipped or operator.kind in ("CALL_ONCE", "VAR_HANDLE"):
            continue
        try:
            function = tables.get(operator.position)
            found += reader.read(operator) if function is None else reader.table(operator, function)
            continue
        except UnsupportedError as error:
            if operator.kind != "CUSTOM":  # the graph names it among its unsupported parts
                found.append(error)
        except ArtifactError:
            if not graph.unsupported and not any(isinstance(one, UnsupportedError) for one in found):
                raise
        for index in operator.outputs:
            reader.shapes[index] = for_one_image(graph.tensors[index].shape)
    return tuple(found)


def unsupported(operator: Operator, where: str, instead: str) -> UnsupportedError:
    """The error for an operator that a format cannot have."""
    return UnsupportedError(f"{operator} is not supported in {where}; use the {instead} file, or another layer")


def without_float_ends(graph: Graph) -> Graph:
    """``graph`` without QUANTIZE from float32 at its inputs and DEQUANTIZE to float32 at its outputs.

    Only if all inputs, or all outputs, can be without.
    """
    operators, inputs, outputs = graph.operators, graph.inputs, graph.outputs
    first = [one for index in inputs if (one := _converter(graph, index, "QUANTIZE")) is not None]
    if len(first) == len(inputs):
        operators = tuple(operator for operator in operators if operator not in first)
        inputs = tuple(operator.outputs[0] for operator in first)
    last = [one for index in outputs if (one := _converter(graph, index, "DEQUANTIZE")) is not None]
    if len(last) == len(outputs) and not any(operator.inputs[0] in inputs for operator in last):
        operators = tuple(operator for operator in operators if operator not in last)
        outputs = tuple(operator.inputs[0] for operator in last)
    return msgspec.structs.replace(graph, operators=operators, inputs=inputs, outputs=outputs)


def _converter(graph: Graph, index: int, kind: str) -> Operator | None:
    """The only operator at the float32 input or output ``index`` of a graph, if it is of this ``kind``."""
    near = [operator for operator in graph.operators if index in (*operator.inputs, *operator.outputs)]
    if graph.tensors[index].dtype != "float32" or len(near) != 1 or near[0].kind != kind:
        return None
    return near[0] if len(near[0].inputs) == len(near[0].outputs) == 1 else None


@contextmanager
def damage_of(operator: Operator) -> Iterator[None]:
    """Translate exceptions from invalid options and constants to an ``ArtifactError`` that names ``operator``.

    An ``UnsupportedError`` gets its position.
    """
    try:
        yield
    except UnsupportedError as error:
        error.operator = operator.position
        raise
    except KeyError as error:
        raise ArtifactError(f"{operator} is damaged: its option {error} is missing") from error
    except (ArithmeticError, IndexError, TypeError, ValueError) as error:
        raise ArtifactError(f"{operator} is damaged: {one_line(error)}") from error


def not_int8(operator: Operator, tensor: Tensor) -> UnsupportedError:
    """The error for an unsupported activation type."""
    return UnsupportedError(
        f"{operator}: tensor {tensor.layer!r} is {tensor.form}; only int8 activations with one scale are supported; "
        "convert the model with full int8 quantisation"
    )


class _Reader:
    """Reads one operator at a time; ``shapes`` are the shapes of computed activations, by tensor."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.shapes: dict[int, Shape] = {index: for_one_image(graph.tensors[index].shape) for index in graph.inputs}

    @functools.cached_property
    def variables(self) -> Mapping[int, Variable]:
        """The variables by handle."""
        return variables(self.graph)

    def read(self, operator: Operator) -> tuple[Operation, ...]:
        with damage_of(operator):
            reader = _READERS.get(operator.kind)
            if reader is None:
                raise unsupported(operator, "int8 .onnx and C", ".tflite")
            made = reader(self, operator)
            return made if isinstance(made, tuple) else (made,)

    # Tensors

    def input(self, operator: Operator, place: int = 0) -> Tensor:
        """An activation, or a constant instead of one."""
        tensor = self.graph.tensors[operator.inputs[place]]
        if tensor.data is None:
            if tensor.index not in self.shapes:
                raise UnsupportedError(f"{operator}: no earlier operator writes its input {tensor.name!r}")
            tensor = msgspec.structs.replace(tensor, shape=self.shapes[tensor.index])
        _check_quantization(operator, tensor)
        return tensor

    def output(self, operator: Operator, shape: Shape, place: int = 0) -> Tensor:
        """An output with ``shape``, which must match the file except for dynamic sizes."""
        tensor = self.graph.tensors[operator.outputs[place]]
        stored = tensor.shape
        if len(stored) != len(shape) or any(a not in (b, -1) for a, b in zip(stored, shape, strict=True)):
            raise ArtifactError(f"{operator} has output shape {shape}, but the file says {stored}")
        if not 0 < math.prod(shape) <= _MAX_ELEMENTS:
            raise UnsupportedError(f"{operator} has output shape {shape}, which is empty or too large")
        _check_quantization(operator, tensor)
        self.shapes[tensor.index] = shape
        return msgspec.structs.replace(tensor, shape=shape)

    def integers(self, operator: Operator, place: int = 1) -> tuple[int, ...]:
        """An input that is a constant, such as axes or sizes."""
        tensor = self.graph.tensors[operator.inputs[place]]
        if tensor.data is None or tensor.dtype not in ("int32", "int64"):
            raise UnsupportedError(f"{operator}: tensor {tensor.name!r} is not an int32 or int64 constant")
        return tuple(int(value) for value in tensor.data.reshape(-1))

    def weights(self, operator: Operator, source: Tensor, axis: int) -> Weights:
        """Weights with one scale, or with scales along ``axis``, the axis of the outputs."""
        tensor = self.graph.tensors[operator.inputs[1]]
        if tensor.data is None:
            raise UnsupportedError(f"{operator}: its weights are not constant")
        in_float = tensor.dtype == source.dtype == "float32"
        if not in_float and (tensor.dtype not in ("int4", "int8", "uint8") or not len(tensor.scale)):
            raise UnsupportedError(
                f"{operator}: its weights are {tensor.dtype} for {source.dtype} inputs; int8 with a scale is needed"
            )
        if operator.kind != "FULLY_CONNECTED":
            _four_dimensions(operator, source, tensor)
        if not tensor.data.size:
            raise ArtifactError(f"{operator}: its weights of shape {tensor.shape} are empty")
        if len(tensor.scale) > 1 and tensor.axis != axis:
            raise ArtifactError(f"{operator}: its weights have scales along axis {tensor.axis}, not {axis}")
        if len(source.scale) == 1:
            with np.errstate(over="ignore", under="ignore"):
                product = source.scale[0] * tensor.scale
            if not np.isfinite(product).all():  # 0 is allowed: such values are below float32
                raise ArtifactError(
                    f"{operator}: the product of its input's and weights' scales is not a finite float32"
                )
        return Weights(values=tensor.data, scale=tensor.scale, zero_point=tensor.zero_point)

    def bias(
        self, operator: Operator, source: Tensor, weights: Weights, outputs: int, place: int = 2
    ) -> NDArray[np.int32 | np.int64 | np.float32] | None:
        if len(operator.inputs) <= place or operator.inputs[place] < 0:
            return None
        tensor = self.graph.tensors[operator.inputs[place]]
        wanted = "float32" if weights.values.dtype == np.float32 else "int32"
        if source.dtype == tensor.dtype.replace("64", "16") == "int16":
            wanted = "int64"
        if tensor.data is None or tensor.dtype != wanted:
            raise UnsupportedError(f"{operator}: its bias is {tensor.dtype}; an {wanted} constant is needed")
        if tensor.data.size != outputs:
            raise ArtifactError(f"{operator}: its bias has {tensor.data.size} values for {outputs} channels")
        if wanted != "float32" and len(source.scale) != 1:
            raise UnsupportedError(f"{operator}: its bias is int32, but its input {source.name!r} is not quantised")
        return tensor.data.reshape(outputs)

    # Operators

    def convolution(self, operator: Operator) -> Convolution:
        source = self.input(operator)
        depthwise = operator.kind == "DEPTHWISE_CONV_2D"
        weights = self.weights(operator, source, 3 if depthwise else 0)
        batch, *size, channels = source.shape
        shape = weights.values.shape
        outputs, each = (shape[3], shape[0]) if depthwise else (shape[0], shape[3])
        groups = channels // each
        if (depthwise and each != 1) or groups < 1 or groups * each != channels or outputs % groups:
            raise ArtifactError(f"{operator}: weights of shape {shape} do not fit {channels} channels")
        kernel, stride = (shape[1], shape[2]), _pair(operator, "strideH", "strideW")
        dilation = _pair(operator, "dilationHFactor", "dilationWFactor")
        made, pads = _window(operator, size, kernel, stride, dilation)
        return Convolution(
            operator=operator, inputs=(source,), output=self.output(operator, (batch, *made, outputs)),
            weights=weights, bias=self.bias(operator, source, weights, outputs), limits=_limits(operator),
            kernel=kernel, stride=stride, dilation=dilation, pads=pads, groups=groups,
        )  # fmt: skip

    def transposed_convolution(self, operator: Operator) -> TransposedConvolution:
        source = self.input(operator, 2)
        weights = self.weights(operator, source, 0)
        outputs, *taps, channels = weights.values.shape
        if channels != source.shape[3]:
            raise ArtifactError(f"{operator}: weights of shape {weights.values.shape} do not fit {source.shape}")
        if operator.options["padding"] not in (0, 1):
            raise ArtifactError(f"{operator}: padding {operator.options['padding']} is neither SAME nor VALID")
        stored = for_one_image(self.graph.tensors[operator.outputs[0]].shape)
        output = self.output(operator, (source.shape[0], *stored[1:3], outputs))
        kernel, stride = (taps[0], taps[1]), _pair(operator, "strideH", "strideW")
        sizes = zip(source.shape[1:3], output.shape[1:3], kernel, stride, strict=True)
        over = [(size - 1) * step + length - made for size, made, length, step in sizes]
        beyond = [max(total, 0) for total in over]
        before = [total // 2 for total in beyond]
        return TransposedConvolution(
            operator=operator, inputs=(source,), output=output, weights=weights,
            bias=self.bias(operator, source, weights, outputs, 3), limits=_limits(operator),
            kernel=kernel, stride=stride,
            pads=(before[0], before[1], beyond[0] - before[0], beyond[1] - before[1]),
            extra=(max(-over[0], 0), max(-over[1], 0)),
        )  # fmt: skip

    def dense(self, operator: Operator) -> Dense:
        source = self.input(operator)
        weights = self.weights(operator, source, 0)
        if operator.options["weightsFormat"] != 0:
            raise UnsupportedError(f"{operator}: weights in shuffled order are not supported")
        keep = bool(operator.options["keepNumDims"])
        values = weights.values
        if values.ndim != 2 or (source.shape[-1] if keep else math.prod(source.shape)) % values.shape[1]:
            raise ArtifactError(f"{operator}: weights of shape {values.shape} do not fit its input {source.shape}")
        outputs, taps = values.shape
        if keep and source.shape[-1] != taps:
            raise ArtifactError(f"{operator}: weights of shape {values.shape} do not fit its input {source.shape}")
        made = (*source.shape[:-1], outputs) if keep else (math.prod(source.shape) // taps, outputs)
        return Dense(
            operator=operator, inputs=(source,), output=self.output(operator, made),
            weights=weights, bias=self.bias(operator, source, weights, outputs), limits=_limits(operator),
        )  # fmt: skip

    def pool(self, operator: Operator) -> Pool:
        source = self.input(operator)
        _four_dimensions(operator, source)
        batch, *size, channels = source.shape
        kernel, stride = _pair(operator, "filterHeight", "filterWidth"), _pair(operator, "strideH", "strideW")
        made, pads = _window(operator, size, kernel, stride, (1, 1))
        return Pool(
            operator=operator, inputs=(source,), output=self.output(operator, (batch, *made, channels)),
            kernel=kernel, stride=stride, pads=pads, limits=_limits(operator),
        )  # fmt: skip

    def reduction(self, operator: Operator) -> Reduction:
        source = self.input(operator)
        axes = tuple(sorted({_axis(operator, axis, source) for axis in self.integers(operator)}))
        if not axes:
            raise UnsupportedError(f"{operator}: a reduction over zero axes is not supported")
        keep = bool(operator.options["keepDims"])
        made = tuple(1 if axis in axes else size for axis, size in enumerate(source.shape) if keep or axis not in axes)
        return Reduction(operator=operator, inputs=(source,), output=self.output(operator, made), axes=axes, keep=keep)

    def arg_extreme(self, operator: Operator) -> ArgExtreme:
        source, places = self.input(operator), self.integers(operator)
        if len(places) != 1:
            raise ArtifactError(f"{operator} has {len(places)} axes, but needs one")
        axis = _axis(operator, places[0], source)
        if self.graph.tensors[operator.outputs[0]].dtype != "int32":
            raise UnsupportedError(f"{operator}: its places are not int32, which TensorFlow Lite Micro needs too")
        output = self.output(operator, (*source.shape[:axis], *source.shape[axis + 1 :]))
        return ArgExtreme(operator=operator, inputs=(source,), output=output, axis=axis)

    def cumulative_sum(self, operator: Operator) -> CumulativeSum:
        source, places = self.input(operator), self.integers(operator)
        if len(places) != 1:
            raise ArtifactError(f"{operator} has {len(places)} axes, but needs one")
        return CumulativeSum(
            operator=operator, inputs=(source,), output=self.output(operator, source.shape),
            axis=_axis(operator, places[0], source),
            exclusive=bool(operator.options["exclusive"]), reverse=bool(operator.options["reverse"]),
        )  # fmt: skip

    def matmul(self, operator: Operator) -> MatMul:
        operands = self._inputs(operator, 2)
        swapped = bool(operator.options["adjX"]), bool(operator.options["adjY"])
        if min(len(tensor.shape) for tensor in operands) < 2:
            raise UnsupportedError(f"{operator}: a product with fewer than two dimensions is not supported")
        (*first, rows, taps), (*second, taps_too, columns) = (
            (*tensor.shape[:-2], tensor.shape[-1], tensor.shape[-2]) if swap else tensor.shape
            for tensor, swap in zip(operands, swapped, strict=True)
        )
        if taps != taps_too:
            raise ArtifactError(f"{operator}: shapes {operands[0].shape} and {operands[1].shape} do not fit together")
        made = (*_broadcast(operator, tuple(first), tuple(second)), rows, columns)
        return MatMul(operator=operator, inputs=operands, output=self.output(operator, made), transposed=swapped)

    def binary(self, operator: Operator) -> Binary:
        operands = self._inputs(operator, 2)
        output = self.output(operator, _broadcast(operator, *(tensor.shape for tensor in operands)))
        limits = _limits(operator) if operator.kind in ("ADD", "DIV", "MUL", "SUB") else _FUSED[0]
        return Binary(operator=operator, inputs=operands, output=output, limits=limits)

    def select(self, operator: Operator) -> Select:
        operands = self._inputs(operator, 3)
        if operands[0].dtype != "bool":
            raise ArtifactError(f"{operator}: its condition is {operands[0].dtype}, not bool")
        if len(operands[0].shape) == 1 < len(operands[1].shape) and operator.kind == "SELECT":
            raise UnsupportedError(f"{operator}: a condition for whole rows is not supported")
        output = self.output(operator, _broadcast(operator, *(tensor.shape for tensor in operands)))
        return Select(operator=operator, inputs=operands, output=output)

    def _inputs(self, operator: Operator, count: int) -> tuple[Tensor, ...]:
        if len(operator.inputs) != count:
            raise ArtifactError(f"{operator} has {len(operator.inputs)} inputs, but needs {count}")
        return tuple(self.input(operator, place) for place in range(count))

    def rescale(self, operator: Operator) -> Rescale:
        source = self.input(operator)
        output = self.output(operator, source.shape)
        return Rescale(operator=operator, inputs=(source,), output=output, limits=_LIMITS[operator.kind])

    def unary(self, operator: Operator) -> Unary:
        source = self.input(operator)
        return Unary(operator=operator, inputs=(source,), output=self.output(operator, source.shape))

    def table(self, operator: Operator, function: Function) -> tuple[Operation, ...]:
        """A ``Table``, and a ``Reshape`` if one of the operators changes the shape."""
        source = function.source
        if source.index not in self.shapes:
            raise UnsupportedError(f"{operator}: no earlier operator writes its input {source.name!r}")
        source = msgspec.structs.replace(source, shape=self.shapes[source.index])
        made = _filled(operator, self.graph.tensors[operator.outputs[0]].shape, source.shape)
        output = self.output(operator, made)
        values = stored(output, function.values)
        if made == source.shape:
            return (Table(operator=operator, inputs=(source,), output=output, values=values),)
        index = operator.inputs[0]  # a float value that nothing else needs
        between = msgspec.structs.replace(output, index=index, name=self.graph.tensors[index].name, shape=source.shape)
        return (
            Table(operator=operator, inputs=(source,), output=between, values=values),
            Reshape(operator=operator, inputs=(between,), output=output),
        )

    def l2_norm(self, operator: Operator) -> L2Norm:
        source = self.input(operator)
        if operator.options["fusedActivationFunction"] != 0:
            raise UnsupportedError(f"{operator}: a fused activation is not supported")
        return L2Norm(operator=operator, inputs=(source,), output=self.output(operator, source.shape))

    def leaky_relu(self, operator: Operator) -> LeakyRelu:
        source, alpha = self.input(operator), float(operator.options["alpha"])
        if not math.isfinite(alpha):
            raise ArtifactError(f"{operator}: its alpha is {alpha}; it must be finite")
        return LeakyRelu(operator=operator, inputs=(source,), output=self.output(operator, source.shape), alpha=alpha)

    def gelu(self, operator: Operator) -> Gelu:
        source, approximate = self.input(operator), bool(operator.options["approximate"])
        output = self.output(operator, source.shape)
        return Gelu(operator=operator, inputs=(source,), output=output, approximate=approximate)

    def softmax(self, operator: Operator) -> Softmax:
        source = self.input(operator)
        beta = 1.0 if operator.kind == "LOG_SOFTMAX" else float(operator.options["beta"])
        return Softmax(operator=operator, inputs=(source,), output=self.output(operator, source.shape), beta=beta)

    def reshape(self, operator: Operator) -> Reshape:
        source = self.input(operator)
        made = _filled(operator, self.graph.tensors[operator.outputs[0]].shape, source.shape)
        return Reshape(operator=operator, inputs=(source,), output=self.output(operator, made))

    def concatenation(self, operator: Operator) -> Concatenation:
        inputs = tuple(self.input(operator, place) for place in range(len(operator.inputs)))
        axis = _axis(operator, operator.options["axis"], self.graph.tensors[operator.outputs[0]])
        shapes = [tensor.shape for tensor in inputs]
        if len({(len(shape), shape[:axis], shape[axis + 1 :]) for shape in shapes}) != 1:
            raise ArtifactError(f"{operator}: inputs of shapes {', '.join(map(str, shapes))} do not fit together")
        made = (*shapes[0][:axis], sum(shape[axis] for shape in shapes), *shapes[0][axis + 1 :])
        return Concatenation(
            operator=operator, inputs=inputs, output=self.output(operator, made), axis=axis, limits=_limits(operator)
        )

    def pack(self, operator: Operator) -> Concatenation:
        inputs = tuple(self.input(operator, place) for place in range(len(operator.inputs)))
        axis = _axis(operator, operator.options["axis"], self.graph.tensors[operator.outputs[0]])
        if len({tensor.shape for tensor in inputs}) != 1:
            raise ArtifactError(f"{operator}: inputs of different shapes")
        shape = inputs[0].shape
        made = (*shape[:axis], len(inputs), *shape[axis:])
        return Concatenation(operator=operator, inputs=inputs, output=self.output(operator, made), axis=axis)

    def pad(self, operator: Operator) -> Pad:
        source, value = self.input(operator), None
        pads = tuple((int(a), int(b)) for a, b in np.asarray(self.integers(operator)).reshape(-1, 2))
        if len(pads) != len(source.shape) or min(map(min, pads), default=0) < 0:
            raise ArtifactError(f"{operator}: paddings {pads} do not fit {len(source.shape)} dimensions")
        if operator.kind == "PADV2":
            value = self.input(operator, 2)
            if value.data is None or value.data.size != 1:
                raise UnsupportedError(f"{operator}: its padding value is not a single constant")
        made = tuple(before + size + after for (before, after), size in zip(pads, source.shape, strict=True))
        return Pad(operator=operator, inputs=(source,), output=self.output(operator, made), pads=pads, value=value)

    def mirror(self, operator: Operator) -> Mirror:
        source, mode = self.input(operator), operator.options["mode"]
        pads = [(int(a), int(b)) for a, b in np.asarray(self.integers(operator)).reshape(-1, 2)]
        if len(pads) != len(source.shape) or mode not in (0, 1):
            raise ArtifactError(f"{operator}: paddings {pads} do not fit {len(source.shape)} dimensions")
        places = []
        for (before, after), size in zip(pads, source.shape, strict=True):
            if not (min(before, after) >= 0 and max(before, after) <= size - (mode == 0)):
                raise ArtifactError(f"{operator}: {before} and {after} are more than {size} values can mirror")
            along = np.pad(np.arange(size), (before, after), mode=("reflect", "symmetric")[mode])
            places.append(tuple(along.tolist()))
        made = tuple(map(len, places))
        return Mirror(operator=operator, inputs=(source,), output=self.output(operator, made), places=tuple(places))

    def tile(self, operator: Operator) -> Tile:
        source, repeats = self.input(operator), self.integers(operator)
        if len(repeats) != len(source.shape) or min(repeats, default=1) < 1:
            raise ArtifactError(f"{operator}: repeats {repeats} do not fit {len(source.shape)} dimensions")
        made = tuple(size * times for size, times in zip(source.shape, repeats, strict=True))
        return Tile(operator=operator, inputs=(source,), output=self.output(operator, made), repeats=repeats)

    def broadcast_to(self, operator: Operator) -> Tile:
        source, made = self.input(operator), for_one_image(self.graph.tensors[operator.outputs[0]].shape)
        if len(made) != len(source.shape):
            raise UnsupportedError(f"{operator}: a broadcast to more dimensions is not supported")
        if any(size not in (1, whole) for size, whole in zip(source.shape, made, strict=True)):
            raise ArtifactError(f"{operator}: {source.shape} cannot become {made}")
        repeats = tuple(whole // size for size, whole in zip(source.shape, made, strict=True))
        return Tile(operator=operator, inputs=(source,), output=self.output(operator, made), repeats=repeats)

    def transpose(self, operator: Operator) -> Transpose:
        source, order = self.input(operator), self.integers(operator)
        if sorted(order) != list(range(len(source.shape))):
            raise ArtifactError(f"{operator}: {order} is not a permutation of {len(source.shape)} dimensions")
        made = tuple(source.shape[axis] for axis in order)
        return Transpose(operator=operator, inputs=(source,), output=self.output(operator, made), order=order)

    def slice(self, operator: Operator) -> Slice:
        source, starts = self.input(operator), self.integers(operator)
        rank = len(source.shape)
        if operator.kind == "SLICE":
            ends, steps = tuple(map(sum, zip(starts, self.integers(operator, 2), strict=True))), (1,) * rank
        else:
            ends, steps = self.integers(operator, 2), self.integers(operator, 3)
            for mask in ("ellipsisMask", "newAxisMask"):
                if operator.options[mask]:
                    raise UnsupportedError(f"{operator}: a slice that adds dimensions is not supported")
        if not len(starts) == len(ends) == len(steps) == rank or 0 in steps:
            raise UnsupportedError(f"{operator}: a slice needs a start, an end and a step for each dimension")
        begin, end, shrink = (operator.options.get(f"{mask}Mask", 0) for mask in ("begin", "end", "shrinkAxis"))
        places = []
        for axis, size in enumerate(source.shape):
            if shrink >> axis & 1:
                place = starts[axis] + (size if starts[axis] < 0 else 0)
                if not 0 <= place < size:
                    raise ArtifactError(f"{operator}: place {starts[axis]} is not among {size}")
                places.append(range(place, place + 1))
                continue
            last = ends[axis]
            no_end = end >> axis & 1 or (operator.kind == "SLICE" and last < starts[axis])
            part = slice(None if begin >> axis & 1 else starts[axis], None if no_end else last, steps[axis])
            places.append(range(size)[part])
        return self._slice(operator, source, places, tuple(axis for axis in range(rank) if shrink >> axis & 1))

    def _slice(
        self, operator: Operator, source: Tensor, places: Sequence[range], removed: Shape = (), output: int = 0
    ) -> Slice:
        """The values of ``source`` at ``places`` of each axis, as an output."""
        sizes = tuple(len(along) for along in places)
        made = tuple(size for axis, size in enumerate(sizes) if axis not in removed)
        return Slice(
            operator=operator, inputs=(source,), output=self.output(operator, made, output),
            starts=tuple(along.start for along in places), steps=tuple(along.step for along in places),
            sizes=sizes, removed=removed,
        )  # fmt: skip

    def reverse(self, operator: Operator) -> Slice:
        source = self.input(operator)
        axes = {_axis(operator, axis, source) for axis in self.integers(operator)}
        whole = [range(size) for size in source.shape]
        return self._slice(operator, source, [each[::-1] if axis in axes else each for axis, each in enumerate(whole)])

    def split(self, operator: Operator) -> tuple[Slice, ...]:
        """SPLIT, SPLIT_V or UNPACK: a slice for each output."""
        unpack = operator.kind == "UNPACK"
        place = {"SPLIT": 0, "SPLIT_V": 2}.get(operator.kind)
        source = self.input(operator, 1 if operator.kind == "SPLIT" else 0)
        (axis,) = (operator.options["axis"],) if place is None else self.integers(operator, place)
        axis = _axis(operator, axis, source)
        whole, start, found = [range(size) for size in source.shape], 0, []
        for number, index in enumerate(operator.outputs):
            size = 1 if unpack else for_one_image(self.graph.tensors[index].shape)[axis]
            places = [*whole[:axis], range(start, start + size), *whole[axis + 1 :]]
            found.append(self._slice(operator, source, places, (axis,) if unpack else (), number))
            start += size
        if start != source.shape[axis]:
            raise ArtifactError(f"{operator}: its outputs have {start} of {source.shape[axis]} values")
        return tuple(found)

    def gather(self, operator: Operator) -> Gather:
        source, places = self._inputs(operator, 2)
        axis = _axis(operator, operator.options["axis"], source)
        if operator.options["batchDims"]:
            raise UnsupportedError(f"{operator}: other places for each image are not supported")
        if places.dtype != "int32":
            raise UnsupportedError(f"{operator}: its places are {places.dtype}; int32 is needed")
        if places.data is not None and not (places.data.min() >= 0 and places.data.max() < source.shape[axis]):
            raise ArtifactError(f"{operator}: its places are not within 0…{source.shape[axis] - 1}")
        made = (*source.shape[:axis], *places.shape, *source.shape[axis + 1 :])
        return Gather(operator=operator, inputs=(source, places), output=self.output(operator, made), axis=axis)

    def blocks(self, operator: Operator) -> Blocks:
        """SPACE_TO_DEPTH or DEPTH_TO_SPACE of blocks ``size`` x ``size``."""
        source, size = self.input(operator), int(operator.options["blockSize"])
        _four_dimensions(operator, source)
        batch, height, width, channels = source.shape
        image, row, column, one = _strides(source.shape)
        divided = (height, width) if operator.kind == "SPACE_TO_DEPTH" else (channels,)
        if size < 1 or any(length % (size if len(divided) == 2 else size * size) for length in divided):
            raise ArtifactError(f"{operator}: blocks of {size} do not divide {source.shape}")
        if operator.kind == "SPACE_TO_DEPTH":
            made = (batch, height // size, width // size, size * size * channels)
            sizes = (batch, *made[1:3], size, size, channels)
            strides = (image, size * row, size * column, row, column, one)
        else:
            each = channels // (size * size)
            made = (batch, height * size, width * size, each)
            sizes = (batch, height, size, width, size, each)
            strides = (image, row, size * each, column, each, one)
        output = self.output(operator, made)
        return Blocks(operator=operator, inputs=(source,), output=output, sizes=sizes, strides=strides)

    def read_variable(self, operator: Operator) -> ReadVariable:
        variable = self.variable(operator)
        output = self.output(operator, for_one_image(self.graph.tensors[operator.outputs[0]].shape))
        _check_same(operator, variable.tensor, output)
        return ReadVariable(operator=operator, inputs=(variable.tensor,), output=output, initial=variable.initial)

    def assign_variable(self, operator: Operator) -> AssignVariable:
        source, variable = self.input(operator, 1), self.variable(operator)
        _check_same(operator, variable.tensor, source)
        return AssignVariable(operator=operator, inputs=(source,), output=variable.tensor, initial=variable.initial)

    def variable(self, operator: Operator) -> Variable:
        """The variable whose handle is the first input."""
        found = self.variables.get(operator.inputs[0])
        if found is None:
            raise UnsupportedError(f"{operator}: its variable has no VAR_HANDLE")
        if found.initial.dtype != found.tensor.dtype or found.initial.nbytes != found.tensor.bytes:
            raise UnsupportedError(f"{operator}: its variable begins with values of another size or type")
        return found

    def svdf(self, operator: Operator) -> Svdf:
        source, rank = self.input(operator), operator.options["rank"]
        if len(operator.inputs) < 5 or operator.inputs[3] < 0:
            raise UnsupportedError(f"{operator}: it has no bias or no state, which TensorFlow Lite Micro needs too")
        features, time, bias, state = (self.graph.tensors[index] for index in operator.inputs[1:5])
        for tensor in (features, time):
            if tensor.data is None or tensor.dtype != "int8" or len(tensor.scale) != 1 or tensor.zero_point[0]:
                raise UnsupportedError(f"{operator}: its weights {tensor.name!r} are not symmetric int8 constants")
        if bias.data is None or bias.dtype != "int32":
            raise UnsupportedError(f"{operator}: its bias is {bias.dtype}; an int32 constant is needed")
        if not state.variable or state.dtype != "int8" or len(state.scale) != 1:
            raise UnsupportedError(f"{operator}: its state {state.name!r} is not a variable of int8")
        if operator.options["fusedActivationFunction"] not in (0, 1):
            raise UnsupportedError(f"{operator}: its fused activation is not supported")
        filters, steps = time.shape
        shapes = (len(source.shape), features.shape, math.prod(state.shape), bias.data.size)
        if rank < 1 or filters % rank or shapes != (2, (filters, source.shape[-1]), filters * steps, filters // rank):
            raise ArtifactError(f"{operator}: its tensors do not fit together")
        if source.shape[0] != 1:
            raise UnsupportedError(f"{operator}: a batch of {source.shape[0]}; only 1 is supported")
        output = self.output(operator, (1, filters // rank))
        return Svdf(
            operator=operator, inputs=(source,), output=output, features=features, time=time, bias=bias.data,
            state=state, rank=rank,
        )  # fmt: skip

    def lstm(self, operator: Operator) -> Lstm:
        source, options = self.input(operator), operator.options
        tensors = [self.graph.tensors[index] if index >= 0 else None for index in operator.inputs]
        if len(tensors) != 24 or any(tensors[place] is None for place in (*range(1, 9), *range(12, 16), 18, 19)):
            raise UnsupportedError(f"{operator}: it lacks weights, biases or states that TensorFlow Lite Micro needs")
        if any(tensors[place] is not None for place in (*range(9, 12), 16, 17, *range(20, 24))):
            raise UnsupportedError(f"{operator}: peepholes, projections and normalisation are not supported")
        if options["fusedActivationFunction"] != _TANH:
            raise UnsupportedError(f"{operator}: an activation other than tanh is not supported")
        hidden, cell = (cast(Tensor, tensors[place]) for place in (18, 19))
        if not (hidden.variable and cell.variable) or (hidden.dtype, cell.dtype) != ("int8", "int16"):
            raise UnsupportedError(
                f"{operator}: its states are {hidden.form} and {cell.form}; int8 and int16 are needed"
            )
        if len(hidden.scale) != 1 or len(cell.scale) != 1 or cell.zero_point.any() or len(source.shape) != 3:
            raise ArtifactError(f"{operator}: its tensors do not fit together")
        batch = source.shape[1 if options["timeMajor"] else 0]
        if batch != 1:
            raise UnsupportedError(f"{operator}: a batch of {batch}; only 1 is supported")
        units = hidden.shape[-1]
        made = self.output(operator, (*source.shape[:2], units))
        gates = []
        for number in range(4):
            weights, recurrent, bias = (cast(Tensor, tensors[place + number]) for place in (1, 5, 12))
            for tensor in (weights, recurrent):
                if tensor.data is None or tensor.dtype != "int8" or len(tensor.scale) != 1 or tensor.zero_point[0]:
                    raise UnsupportedError(f"{operator}: its weights {tensor.layer!r} are not symmetric int8 constants")
            if bias.data is None or bias.dtype != "int32":
                raise UnsupportedError(f"{operator}: its bias is {bias.form}; an int32 constant is needed")
            if (weights.shape, recurrent.shape, bias.shape) != ((units, source.shape[2]), (units, units), (units,)):
                raise ArtifactError(f"{operator}: its tensors do not fit together")
            gates.append(Gate(weights=weights, recurrent=recurrent, bias=bias.data))
        return Lstm(
            operator=operator, inputs=(source,), output=made, gates=tuple(gates), hidden=hidden, cell=cell,
            clip=float(options["cellClip"]),
        )  # fmt: skip

    def resize(self, operator: Operator) -> Resize:
        source, target = self.input(operator), self.integers(operator)
        _four_dimensions(operator, source)
        if len(target) != 2 or min(target) < 1:
            raise ArtifactError(f"{operator}: it resizes to {target}; a height and a width are needed")
        made = (source.shape[0], *target, source.shape[3])
        return Resize(
            operator=operator, inputs=(source,), output=self.output(operator, made),
            align_corners=bool(operator.options["alignCorners"]),
            half_pixel_centers=bool(operator.options["halfPixelCenters"]),
        )  # fmt: skip


# Checks


def _check_graph(graph: Graph) -> Iterator[UnsupportedError]:
    """Check inputs and outputs, and for the required inputs of operators.

    Inputs of unknown operators are not checked, because these are refused anyway.
    """
    for kind, indices in (("input", graph.inputs), ("output", graph.outputs)):
        if not indices:
            yield UnsupportedError(f"the graph has no {kind}")
        if len(set(indices)) < len(indices):
            yield UnsupportedError(f"the graph has the same tensor as two {kind}s")
        for tensor in (graph.tensors[index] for index in indices):
            if not tensor.shape or tensor.shape[0] == 0 or min(tensor.shape[1:], default=1) < 1:
                yield UnsupportedError(
                    f"the graph's {kind} {tensor.name!r} has shape {tensor.shape}; only the batch may be dynamic"
                )
    if any(index in graph.inputs or graph.tensors[index].data is not None for index in graph.outputs):
        raise ArtifactError("the graph's output is a constant, or its input")
    for operator in graph.operators:
        if operator.kind in _READERS:
            if not operator.outputs and operator.kind != "ASSIGN_VARIABLE":
                raise ArtifactError(f"{operator} has no output")
            _check_inputs(operator)


def _check_inputs(operator: Operator) -> None:
    if not operator.inputs:
        raise ArtifactError(f"{operator} has no input")
    for position, index in enumerate(operator.inputs):
        if index < 0 and position not in _OPTIONAL.get(operator.kind, ()):
            raise ArtifactError(f"{operator}: its input {position} is absent")


def _check_quantization(operator: Operator, tensor: Tensor) -> None:
    if tensor.dtype not in _PLAIN and (tensor.dtype not in ("int8", "uint8", "int16") or len(tensor.scale) != 1):
        raise not_int8(operator, tensor)


def _check_same(operator: Operator, variable: Tensor, tensor: Tensor) -> None:
    """Raise if a variable is read or assigned as a tensor of another kind."""
    kinds = [(one.shape, one.dtype, *one.scale, *one.zero_point) for one in (variable, tensor)]
    if kinds[0] != kinds[1]:
        raise UnsupportedError(f"{operator}: {tensor.name!r} differs in shape, type or scale from its variable")


def _four_dimensions(operator: Operator, *tensors: Tensor) -> None:
    for tensor in tensors:
        if len(tensor.shape) != 4:
            raise ArtifactError(
                f"{operator}: tensor {tensor.name!r} has shape {tensor.shape}; four dimensions are needed"
            )


# Functions


def _folded(graph: Graph) -> tuple[Graph, set[int]]:
    """``graph`` with constants in the place of what operators compute from constants, and their positions.

    The kernel of ``keras.ops.image.extract_patches`` is computed so.
    """
    tensors, folded = list(graph.tensors), set[int]()
    for operator in graph.operators:
        data = [None if index < 0 else tensors[index].data for index in operator.inputs]
        if operator.kind not in _FOLDED or not data or any(each is None for each in data):
            continue
        output = tensors[operator.outputs[0]]
        with damage_of(operator):
            values = _FOLDED[operator.kind](output.shape, *data)
        if values.shape == output.shape and output.index not in graph.outputs:
            tensors[output.index] = msgspec.structs.replace(output, data=values)
            folded.add(operator.position)
    return msgspec.structs.replace(graph, tensors=tuple(tensors)), folded


def _tables(graph: Graph, traced: Mapping[int, Function]) -> dict[int, Function]:
    """By position: the operators whose quantised output is a function that no record but ``Table`` has."""
    tables: dict[int, Function] = {}
    for operator in graph.operators:
        function = traced.get(operator.outputs[0]) if operator.outputs else None
        quantised = [
            graph.tensors[index].scale.size > 0 for index in (*operator.inputs, *operator.outputs) if index >= 0
        ]
        own = operator.kind in _READERS and operator.kind not in _WITHOUT_KERNEL and all(quantised)
        if function is not None and quantised[-1] and not own:
            tables[operator.position] = function
    return tables


def _absorbed(graph: Graph, traced: Mapping[int, Function], tables: dict[int, Function]) -> set[int]:
    """Positions of the operators that are needed for nothing but what tables replace."""
    if not tables:
        return set()
    needed, absorbed = set(graph.outputs), set[int]()
    for operator in reversed(graph.operators):
        if operator.position in tables:
            needed.add(tables[operator.position].source.index)
        elif operator.outputs and needed.isdisjoint(operator.outputs) and operator.outputs[0] in traced:
            absorbed.add(operator.position)
        else:
            needed.update(operator.inputs)
    return absorbed


# Options and shapes


def _shape_computations(graph: Graph) -> set[int]:
    """Operators that only compute the target of a Reshape from the dynamic batch, which writers do not need."""
    consumers: dict[int, list[Operator]] = {}
    for operator in graph.operators:
        for index in operator.inputs:
            consumers.setdefault(index, []).append(operator)
    found: set[int] = set()
    for operator in reversed(graph.operators):
        users = [user for index in operator.outputs for user in consumers.get(index, [])]
        feeds_shape = users and all(
            user.position in found
            or (user.kind == "RESHAPE" and user.inputs[1:2] == operator.outputs)
            or (user.kind == "TRANSPOSE_CONV" and user.inputs[:1] == operator.outputs)
            for user in users
        )
        if operator.kind in ("SHAPE", "STRIDED_SLICE", "PACK") and feeds_shape:
            found.add(operator.position)
    return found


def for_one_image(shape: Shape) -> Shape:
    """``shape`` with 1 for the dynamic batch."""
    return tuple(max(size, 1) for size in shape)


def _pair(operator: Operator, *names: str) -> Pair:
    first, second = operator.counts(*names)
    return first, second


def _limits(operator: Operator) -> Limits:
    activation = operator.options["fusedActivationFunction"]
    if activation not in _FUSED:
        raise UnsupportedError(f"{operator}: fused activation {activation} is not supported")
    return _FUSED[activation]


def _broadcast(operator: Operator, *shapes: Shape) -> Shape:
    try:
        return tuple(np.broadcast_shapes(*shapes))
    except ValueError as error:
        raise ArtifactError(f"{operator}: shapes {' and '.join(map(str, shapes))} do not broadcast") from error


def _axis(operator: Operator, axis: int, tensor: Tensor) -> int:
    """A dimension of ``tensor``, as a non-negative axis."""
    rank = len(tensor.shape)
    if not -rank <= axis < rank:
        raise ArtifactError(f"{operator}: tensor {tensor.name!r} of shape {tensor.shape} has no axis {axis}")
    return axis % rank


def _strides(shape: Shape) -> tuple[int, ...]:
    """Distances of neighbouring values along each axis."""
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


def _window(
    operator: Operator, size: Sequence[int], kernel: Pair, stride: Pair, dilation: Pair
) -> tuple[Pair, tuple[int, int, int, int]]:
    """Height and width of the output, and the pads of TFLite's SAME (0, odd one at the end) or VALID (1)."""
    padding = operator.options["padding"]
    if padding not in (0, 1):
        raise ArtifactError(f"{operator}: padding {padding} is neither SAME nor VALID")
    made, before, after = [], [], []
    for length, taps, step, gap in zip(size, kernel, stride, dilation, strict=True):
        extent = (taps - 1) * gap + 1
        made.append(-(-length // step) if padding == 0 else (length - extent) // step + 1)
        if made[-1] < 1:
            raise ArtifactError(f"{operator}: a kernel of {extent} does not fit an input of {length}")
        total = max((made[-1] - 1) * step + extent - length, 0) if padding == 0 else 0
        before.append(total // 2)
        after.append(total - total // 2)
    return (made[0], made[1]), (before[0], before[1], after[0], after[1])


def _filled(operator: Operator, shape: Shape, source: Shape) -> Shape:
    """The target of a reshape with dynamic sizes filled in."""
    total = math.prod(source)
    free = [place for place, size in enumerate(shape) if size < 0]
    known = math.prod(size for size in shape if size >= 0)
    if len(free) > 1 and shape[0] < 0:  # the batch and one other size
        shape = (source[0], *shape[1:])
        free, known = free[1:], known * source[0]
    if len(free) > 1 or known == 0 or total % known or (not free and total != known):
        raise ArtifactError(f"{operator}: {source} cannot become {shape}")
    return tuple(total // known if size < 0 else size for size in shape)


# operators of constants, by their output's shape and inputs
_FOLDED: dict[str, Callable[..., NDArray[Any]]] = {
    "MATRIX_DIAG": lambda shape, values: values[..., np.newaxis] * np.eye(shape[-1], dtype=values.dtype),
    "RESHAPE": lambda shape, values, *_: values.reshape(shape),
    "TRANSPOSE": lambda shape, values, order: values.transpose(order),
}

# places of inputs that may be absent
_OPTIONAL: dict[str, Collection[int]] = {
    "CONV_2D": (2,), "DEPTHWISE_CONV_2D": (2,), "FULLY_CONNECTED": (2,), "SVDF": (3,), "TRANSPOSE_CONV": (3,),
    "UNIDIRECTIONAL_SEQUENCE_LSTM": range(1, 24),
}  # fmt: skip

# operators that are a ``Table`` if they have one input and output, both int8
_WITHOUT_KERNEL: dict[str, Callable[[_Reader, Operator], Operation | tuple[Operation, ...]]] = {
    **dict.fromkeys(
        ("ABS", "CAST", "CEIL", "COS", "ELU", "EXP", "FLOOR", "LOG", "LOGICAL_NOT", "NEG", "ROUND", "RSQRT", "SIGN",
         "SIN", "SQRT", "SQUARE"),
        _Reader.unary,
    ),
    **dict.fromkeys(
        ("DIV", "EQUAL", "GREATER", "GREATER_EQUAL", "LESS", "LESS_EQUAL", "LOGICAL_AND", "LOGICAL_OR", "NOT_EQUAL",
         "POW"),
        _Reader.binary,
    ),
    "GELU": _Reader.gelu,
    "SELECT": _Reader.select,
    "SELECT_V2": _Reader.select,
}  # fmt: skip

_READERS: dict[str, Callable[[_Reader, Operator], Operation | tuple[Operation, ...]]] = {
    "ADD": _Reader.binary,
    "ARG_MAX": _Reader.arg_extreme,
    "ARG_MIN": _Reader.arg_extreme,
    "ASSIGN_VARIABLE": _Reader.assign_variable,
    "AVERAGE_POOL_2D": _Reader.pool,
    "BATCH_MATMUL": _Reader.matmul,
    "BROADCAST_TO": _Reader.broadcast_to,
    "CONCATENATION": _Reader.concatenation,
    "CONV_2D": _Reader.convolution,
    "CUMSUM": _Reader.cumulative_sum,
    "DEPTH_TO_SPACE": _Reader.blocks,
    "DEPTHWISE_CONV_2D": _Reader.convolution,
    "EXPAND_DIMS": _Reader.reshape,
    "FULLY_CONNECTED": _Reader.dense,
    "GATHER": _Reader.gather,
    "HARD_SWISH": _Reader.unary,
    "L2_NORMALIZATION": _Reader.l2_norm,
    "LEAKY_RELU": _Reader.leaky_relu,
    "LOGISTIC": _Reader.unary,
    "LOG_SOFTMAX": _Reader.softmax,
    "MAX_POOL_2D": _Reader.pool,
    "MAXIMUM": _Reader.binary,
    "MEAN": _Reader.reduction,
    "MIRROR_PAD": _Reader.mirror,
    "MINIMUM": _Reader.binary,
    "MUL": _Reader.binary,
    "PACK": _Reader.pack,
    "PAD": _Reader.pad,
    "PADV2": _Reader.pad,
    "PRELU": _Reader.binary,
    "READ_VARIABLE": _Reader.read_variable,
    **dict.fromkeys(("REDUCE_ANY", "REDUCE_MAX", "REDUCE_MIN", "REDUCE_PROD"), _Reader.reduction),
    "RESHAPE": _Reader.reshape,
    "RESIZE_BILINEAR": _Reader.resize,
    "RESIZE_NEAREST_NEIGHBOR": _Reader.resize,
    "REVERSE_V2": _Reader.reverse,
    "SLICE": _Reader.slice,
    "SOFTMAX": _Reader.softmax,
    "SPACE_TO_DEPTH": _Reader.blocks,
    "SPLIT": _Reader.split,
    "SPLIT_V": _Reader.split,
    "SQUARED_DIFFERENCE": _Reader.binary,
    "SQUEEZE": _Reader.reshape,
    "STRIDED_SLICE": _Reader.slice,
    "SUB": _Reader.binary,
    "SUM": _Reader.reduction,
    "SVDF": _Reader.svdf,
    "TANH": _Reader.unary,
    "TILE": _Reader.tile,
    "TRANSPOSE": _Reader.transpose,
    "TRANSPOSE_CONV": _Reader.transposed_convolution,
    "UNIDIRECTIONAL_SEQUENCE_LSTM": _Reader.lstm,
    "UNPACK": _Reader.split,
    **dict.fromkeys(_LIMITS, _Reader.rescale),
    **_WITHOUT_KERNEL,
}
