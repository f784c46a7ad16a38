"""The operators of TensorFlow Lite for Microcontrollers, and the resolver's methods for them."""

from edgecnn.errors import UnsupportedError
from edgecnn.tflite.graph import Graph, Operator
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


def resolver_methods(graph: Graph) -> tuple[str, ...]:
    """The methods of ``MicroMutableOpResolver`` that add exactly the operators of ``graph``, each once, by name.

    Source: tensorflow/lite/micro/micro_mutable_op_resolver.h.

    Raises:
        UnsupportedError: TFLM has no kernel for some operators; the message lists all of them.
    """
    operators = [operator for subgraph in graph.subgraphs for operator in subgraph.operators]
    missing = [str(operator) for operator in operators if operator.kind not in OPERATORS]
    if missing:
        raise UnsupportedError(f"TFLM has no kernel for {', '.join(missing)}; replace the layers that use them")
    return tuple(sorted({_method(operator.kind) for operator in operators}))


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
