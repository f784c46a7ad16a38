"""Elementwise functions of one quantised tensor, such as the operators of ELU, GELU or Mish, as a table of 256 values.

An int8 tensor has 256 values, and so has every function of it, whether operators compute it in float or in integers.
Definitions of the operators: https://www.tensorflow.org/mlir/tfl_ops
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgecnn.tflite.graph import Graph, Operator, Tensor

Values = NDArray[np.float64]

_UNARY: dict[str, Callable[[Values], Any]] = {
    "ABS": np.abs,
    "CEIL": np.ceil,
    "COS": np.cos,
    "DEQUANTIZE": lambda x: x,
    "ELU": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
    "EXP": np.exp,
    "FLOOR": np.floor,
    "HARD_SWISH": lambda x: x * np.clip(x + 3, 0, 6) / 6,
    "LOG": np.log,
    "LOGICAL_NOT": np.logical_not,
    "LOGISTIC": lambda x: 1 / (1 + np.exp(-x)),
    "NEG": np.negative,
    "QUANTIZE": lambda x: x,
    "RELU": lambda x: np.maximum(x, 0),
    "RELU6": lambda x: np.clip(x, 0, 6),
    "RELU_0_TO_1": lambda x: np.clip(x, 0, 1),
    "RELU_N1_TO_1": lambda x: np.clip(x, -1, 1),
    "ROUND": np.rint,
    "RSQRT": lambda x: 1 / np.sqrt(x),
    "SIGN": np.sign,
    "SIN": np.sin,
    "SQRT": np.sqrt,
    "SQUARE": np.square,
    "TANH": np.tanh,
}
_SEVERAL: dict[str, Callable[..., Any]] = {
    "ADD": np.add,
    "DIV": np.divide,
    "EQUAL": np.equal,
    "FLOOR_DIV": np.floor_divide,
    "GREATER": np.greater,
    "GREATER_EQUAL": np.greater_equal,
    "LESS": np.less,
    "LESS_EQUAL": np.less_equal,
    "LOGICAL_AND": np.logical_and,
    "LOGICAL_OR": np.logical_or,
    "MAXIMUM": np.maximum,
    "MINIMUM": np.minimum,
    "MUL": np.multiply,
    "NOT_EQUAL": np.not_equal,
    "POW": np.power,
    "SELECT": np.where,
    "SELECT_V2": np.where,
    "SQUARED_DIFFERENCE": lambda x, y: np.square(x - y),
    "SUB": np.subtract,
}
_FUSED: dict[int, Callable[[Values], Any]] = {
    0: lambda x: x, 1: _UNARY["RELU"], 2: _UNARY["RELU_N1_TO_1"], 3: _UNARY["RELU6"],
}  # fmt: skip


class Function(msgspec.Struct, frozen=True):
    """What a tensor is as a function of the quantised tensor ``source``: its real value for each stored value.

    ``values`` are in the order of the stored values, from -128 or 0 on.
    """

    source: Tensor
    values: NDArray[Any]


def functions(graph: Graph) -> Mapping[int, Function]:
    """The tensors of ``graph`` that are functions of one quantised tensor, by index.

    Each is traced back as far as possible: to what no elementwise operator computes. It may have another shape.
    """
    found: dict[int, Function] = {}
    for operator in graph.operators:
        operands = [_operand(graph, found, index) for index in operator.inputs]
        if operator.kind in ("RESHAPE", "SQUEEZE"):  # in float: functions of single values and these commute
            operands = [each for each in operands[:1] if graph.tensors[operator.inputs[0]].dtype == "float32"]
        sources = {each.source.index: each.source for each in operands if isinstance(each, Function)}
        if len(sources) != 1 or any(each is None for each in operands) or len(operator.outputs) != 1:
            continue
        (source,), output = sources.values(), graph.tensors[operator.outputs[0]]
        with np.errstate(all="ignore"):  # such as the logarithm of values that do not occur
            values = _result(operator, [each.values if isinstance(each, Function) else each for each in operands])
        if values is not None and (not output.scale.size or _one_scale(output)):
            found[output.index] = Function(source, _on_grid(output, values) if output.scale.size else values)
    return found


def stored(tensor: Tensor, values: NDArray[Any]) -> NDArray[np.int64]:
    """Real ``values`` as the integers of a quantised ``tensor``; NaN becomes 0."""
    info = np.iinfo(tensor.dtype)
    scale, zero = float(tensor.scale[0]), int(tensor.zero_point[0])
    with np.errstate(all="ignore"):
        steps = np.nan_to_num(np.asarray(values, np.float64) / scale, posinf=1e9, neginf=-1e9)
    rounded = np.trunc(steps + np.copysign(0.5, steps))  # halves away from zero, as TFLite rounds
    clipped: NDArray[np.int64] = np.clip(rounded + zero, info.min, info.max).astype(np.int64)
    return clipped


def _one_scale(tensor: Tensor) -> bool:
    return tensor.dtype in ("int8", "uint8") and len(tensor.scale) == 1 and float(tensor.scale[0]) > 0


def _on_grid(tensor: Tensor, values: NDArray[Any]) -> Values:
    return np.asarray((stored(tensor, values) - int(tensor.zero_point[0])) * float(tensor.scale[0]), np.float64)


def _operand(graph: Graph, found: Mapping[int, Function], index: int) -> Any:
    """A function, a constant number, or None for anything else."""
    if index < 0:
        return None
    tensor = graph.tensors[index]
    if tensor.data is not None:
        if math.prod(tensor.data.shape) != 1:
            return None
        value = np.asarray(tensor.data.reshape(-1)[0], None if tensor.dtype == "bool" else np.float64)
        if tensor.scale.size:
            value = (value - int(tensor.zero_point[0])) * float(tensor.scale[0])
        return value
    if index in found:
        return found[index]
    if not _one_scale(tensor):
        return None
    info = np.iinfo(tensor.dtype)
    real = (np.arange(info.min, info.max + 1) - int(tensor.zero_point[0])) * float(tensor.scale[0])
    return Function(tensor, real)


def _result(operator: Operator, operands: list[Any]) -> NDArray[Any] | None:
    """The values of an elementwise operator; None for another."""
    kind, options = operator.kind, operator.options
    if kind in ("RESHAPE", "SQUEEZE"):
        return np.asarray(operands[0])
    if kind == "LEAKY_RELU":
        values = np.where(operands[0] > 0, operands[0], operands[0] * float(options.get("alpha", math.nan)))
    elif kind == "GELU":
        values = _gelu(operands[0], bool(options.get("approximate", False)))
    elif kind in _UNARY and len(operands) == 1:
        values = _UNARY[kind](operands[0])
    elif kind in _SEVERAL and len(operands) == (3 if kind.startswith("SELECT") else 2):
        values = _SEVERAL[kind](*operands)
    else:
        return None
    fused = _FUSED.get(options.get("fusedActivationFunction", 0))
    return None if fused is None else np.broadcast_to(fused(np.asarray(values)), (256,))


def _gelu(x: Values, approximate: bool) -> Values:
    if approximate:
        share = np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))
    else:
        share = np.array([math.erf(value / math.sqrt(2)) for value in x])
    return np.asarray(0.5 * x * (1 + share), np.float64)
