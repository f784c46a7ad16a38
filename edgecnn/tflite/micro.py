"""The operators of TensorFlow Lite for Microcontrollers, and the resolver's methods for them."""

from edgecnn.errors import UnsupportedError
from edgecnn.tflite.graph import Graph

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
    missing = [str(operator) for operator in graph.operators if operator.kind not in OPERATORS]
    if missing:
        raise UnsupportedError(f"TFLM has no kernel for {', '.join(missing)}; replace the layers that use them")
    return tuple(sorted({_method(operator.kind) for operator in graph.operators}))


def _method(kind: str) -> str:
    """``AddConv2D`` for ``CONV_2D``."""
    words = (word if word[0].isdigit() else word.capitalize() for word in kind.split("_"))
    return _IRREGULAR.get(kind) or f"Add{''.join(words)}"
