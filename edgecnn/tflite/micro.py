"""The operators of TensorFlow Lite for Microcontrollers, and the resolver's methods for them."""

from collections.abc import Iterator

from edgecnn.tflite.graph import Graph, Operator, Tensor
from edgecnn.tflite.state import handles

# Operators in the resolver of tflite-micro 0.dev20261023182759, by their names in the TFLite schema.
_LISTED = """
ABS ADD ADD_N ARG_MAX ARG_MIN ASSIGN_VARIABLE AVERAGE_POOL_2D BATCH_MATMUL BATCH_TO_SPACE_ND BROADCAST_ARGS
BROADCAST_TO CALL_ONCE CAST CEIL CONCATENATION CONV_2D COS CUMSUM DEPTHWISE_CONV_2D DEPTH_TO_SPACE DEQUANTIZE DIV
DYNAMIC_UPDATE_SLICE ELU EMBEDDING_LOOKUP EQUAL EXP EXPAND_DIMS FILL FLOOR FLOOR_DIV FLOOR_MOD FULLY_CONNECTED
GATHER GATHER_ND GREATER GREATER_EQUAL HARD_SWISH IF L2_NORMALIZATION L2_POOL_2D LEAKY_RELU LESS LESS_EQUAL LOG
LOGICAL_AND LOGICAL_NOT LOGICAL_OR LOGISTIC LOG_SOFTMAX MAXIMUM MAX_POOL_2D MEAN MINIMUM MIRROR_PAD MUL NEG
NOT_EQUAL PACK PAD PADV2 PRELU QUANTIZE READ_VARIABLE REDUCE_ALL REDUCE_MAX REDUCE_MIN RELU RELU6 RESHAPE
RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR REVERSE_V2 ROUND RSQRT SELECT_V2 SHAPE SIN SLICE SOFTMAX
SPACE_TO_BATCH_ND SPACE_TO_DEPTH SPLIT SPLIT_V SQRT SQUARE SQUARED_DIFFERENCE SQUEEZE STRIDED_SLICE SUB SUM SVDF
TANH TRANSPOSE TRANSPOSE_CONV UNIDIRECTIONAL_SEQUENCE_LSTM UNPACK VAR_HANDLE WHILE ZEROS_LIKE
"""
OPERATORS = frozenset(_LISTED.split())

_IRREGULAR = {
    "BATCH_MATMUL": "AddBatchMatMul",
    "CUMSUM": "AddCumSum",
    "PADV2": "AddPadV2",
    "UNIDIRECTIONAL_SEQUENCE_LSTM": "AddUnidirectionalSequenceLSTM",
}


_NO_UINT8 = frozenset(
    {
        "ADD", "AVERAGE_POOL_2D", "CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "HARD_SWISH", "LEAKY_RELU",
        "LOGISTIC", "MAX_POOL_2D", "MEAN", "MUL", "PRELU", "RELU", "RELU6", "SOFTMAX", "SUB", "TANH", "TRANSPOSE_CONV",
    }
)  # fmt: skip
_WEIGHTED = frozenset({"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV"})
_SOFTMAX_INTEGER_BITS = 5


def problems(graph: Graph) -> tuple[str, ...]:
    """Every reason, by rules, why TFLM refuses ``graph``: operators, types and scales that its kernels lack.

    Sources, below tensorflow/lite/micro: micro_mutable_op_resolver.h (operators); kernels/conv_common.cc and
    fully_connected.cc ("Hybrid models are not supported"); the type switches of the kernels, which lost uint8 when TFLM
    moved to int8; kernel_util of softmax, whose scaled input must exceed 1 (QuantizeMultiplierGreaterThanOne).
    """
    return tuple(reason for subgraph in graph.subgraphs for reason in _problems(subgraph))


def _problems(graph: Graph) -> Iterator[str]:
    for operator in graph.operators:
        if operator.kind == "CUSTOM":  # among the graph's unsupported parts
            continue
        if operator.kind not in OPERATORS:
            yield f"{operator} has no kernel in TFLM; replace the layer that uses it"
            continue
        if not any(index >= 0 for index in operator.inputs):
            continue
        source = activation(graph, operator)
        kernel = weights(graph, operator).dtype if operator.kind in _WEIGHTED else ""
        if source.dtype == "float32" and kernel in ("int4", "int8"):
            yield f"{operator} has {kernel} weights and float32 activations, which TFLM does not support together"
        if operator.kind in _NO_UINT8 and source.dtype == "uint8":
            yield f"{operator} computes in uint8, which TFLM's kernels no longer support; convert to int8"
        if operator.kind == "SOFTMAX" and source.dtype == "int8" and len(source.scale):
            beta = operator.options.get("beta", 1.0)
            if float(source.scale[0]) * beta * 2.0 ** (31 - _SOFTMAX_INTEGER_BITS) <= 1:
                yield (
                    f"{operator} has an input scale of {source.scale[0]:.3g}, at which a check in TFLM aborts: are "
                    "all activations before it close to zero?"
                )


def activation(graph: Graph, operator: Operator) -> Tensor:
    """The first computed input, or the last input if none is computed."""
    tensors = [graph.tensors[index] for index in operator.inputs if index >= 0]
    return next((tensor for tensor in tensors if tensor.data is None and tensor.dtype != "int32"), tensors[-1])


def weights(graph: Graph, operator: Operator) -> Tensor:
    """The second input."""
    return graph.tensors[operator.inputs[1]]


def resolver_methods(graph: Graph) -> tuple[str, ...]:
    """The methods of ``MicroMutableOpResolver`` that add exactly the operators of ``graph``, each once, by name.

    Source: tensorflow/lite/micro/micro_mutable_op_resolver.h.
    """
    return tuple(sorted({_method(one.kind) for subgraph in graph.subgraphs for one in subgraph.operators}))


def _method(kind: str) -> str:
    """``AddConv2D`` for ``CONV_2D``."""
    words = (word if word[0].isdigit() else word.capitalize() for word in kind.split("_"))
    return _IRREGULAR.get(kind) or f"Add{''.join(words)}"


def count_variables(graph: Graph) -> int:
    """The number of variables that VAR_HANDLE refers to; TFLM reserves room for so many."""
    return len({key for subgraph in graph.subgraphs for key in handles(subgraph).values()})


def scratch_bytes(graph: Graph) -> int:
    """Bytes of arena that CMSIS-NN's kernels ask for and the portable ones do not, at most.

    Sums over weights, of which each dense layer and SVDF keeps its own, and the largest buffer of a layer, because
    buffers of different layers share memory. Each is the largest of CMSIS-NN's variants (plain C, DSP, Helium).

    Source: the functions ``arm_…_get_buffer_size`` of CMSIS-NN 4 to 7, and their callers in
    tensorflow/lite/micro/kernels/cmsis_nn.
    """
    operators = [(subgraph, operator) for subgraph in graph.subgraphs for operator in subgraph.operators]
    kept = sum(_kept(*one) for one in operators)
    return kept + max((_buffer(*one) for one in operators), default=0)


_HELIUM_CHANNELS = 124  # channels that a depthwise convolution processes at a time


def _kept(graph: Graph, operator: Operator) -> int:
    if operator.kind in ("FULLY_CONNECTED", "SVDF") and graph.tensors[operator.inputs[0]].dtype == "int8":
        return 4 * graph.tensors[operator.inputs[1]].shape[0]
    return 0


def _buffer(graph: Graph, operator: Operator) -> int:
    shapes = [graph.tensors[index].shape if index >= 0 else () for index in operator.inputs]
    if operator.kind == "AVERAGE_POOL_2D":
        return 4 * shapes[0][-1]
    if operator.kind not in ("CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV") or len(shapes[1]) != 4:
        return 0
    outputs, height, width, channels = shapes[1]
    if operator.kind == "DEPTHWISE_CONV_2D":
        return 4 * max(channels, _HELIUM_CHANNELS) * height * width
    columns = 8 * (-(-height * width * channels // 16) * 16)
    if operator.kind == "CONV_2D":
        return columns
    steps = operator.counts("strideH", "strideW")
    reached = (max(shapes[2][2], 1) - 1) * steps[1] + max(width, steps[1])
    return columns + 4 * reached * outputs * max(height, steps[0])
