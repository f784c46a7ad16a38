"""From the scales and zero points of an operation to the integers of its kernel: factors, limits, functions."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from edgecnn.errors import UnsupportedError
from edgecnn.formats.c99 import numerics
from edgecnn.tflite import operators as ops
from edgecnn.tflite.graph import Tensor
from edgecnn.tflite.operators import Limits, Operation

Elementwise = ops.LeakyRelu | ops.Rescale | ops.Table | ops.Unary


def scale(tensor: Tensor) -> float:
    """The only scale of an activation."""
    return float(tensor.scale[0])


def zero(tensor: Tensor) -> int:
    """The only zero point of an activation."""
    return int(tensor.zero_point[0])


def limits(output: Tensor, reals: Limits) -> tuple[int, int]:
    """The lowest and highest integer after the fused activation."""
    info = np.iinfo(output.dtype)

    def quantized(real: float) -> int:
        return zero(output) + numerics.round_half_away(float(np.float32(real) / output.scale[0]))

    low, high = reals
    return (
        int(info.min) if low is None else max(int(info.min), quantized(low)),
        int(info.max) if high is None else min(int(info.max), quantized(high)),
    )


def clamped(value: int, output: Tensor, reals: Limits) -> int:
    """``value`` within the limits of the fused activation, as the kernels clamp it."""
    low, high = limits(output, reals)
    return min(max(value, low), high)


def weighted(operation: ops.Weighted, outputs: int) -> list[tuple[int, int]]:
    """Multiplier and shift, for each output, from its sum of products to its integer."""
    each = np.broadcast_to(operation.weights.scale.astype(np.float64), (outputs,))
    factors = scale(operation.inputs[0]) * each / scale(operation.output)
    return [numerics.quantize_multiplier(float(factor)) for factor in factors]


def without_weights(operation: ops.Weighted, bias: NDArray[np.int64]) -> list[int]:
    """The integer of each output whose weights are all zero: a constant, from its ``bias`` alone."""
    pairs, output = weighted(operation, len(bias)), operation.output
    sums = (numerics.rescale(numerics.wrapped(int(each)), *pair) for each, pair in zip(bias, pairs, strict=True))
    return [clamped(each + zero(output), output, operation.limits) for each in sums]


def mean(operation: ops.Reduction, count: int) -> tuple[int, int]:
    """Multiplier and shift from a sum of ``count`` values to their mean, or to their SUM."""
    multiplier, shift = numerics.quantize_multiplier(scale(operation.inputs[0]) / scale(operation.output))
    if operation.kind == "SUM":
        return multiplier, shift
    down = min(count.bit_length() - 1, 32, 31 + shift)
    return (multiplier << down) // count, shift - down


def function(operation: Elementwise) -> Callable[[int], int]:
    """What an elementwise operator makes of a stored value.

    Raises:
        UnsupportedError: no kernel of TFLite Micro computes it.
    """
    match operation:
        case ops.LeakyRelu() | ops.Rescale():
            return _rescale(operation)
        case ops.Table():
            return _table(operation)
        case ops.Unary():
            return _unary(operation)


def factors(operation: ops.LeakyRelu | ops.Rescale) -> tuple[tuple[int, int], tuple[int, int]]:
    """Multiplier and shift of values from zero up, and of those below."""
    source, output = operation.inputs[0], operation.output
    above = numerics.quantize_multiplier(scale(source) / scale(output))
    if isinstance(operation, ops.Rescale):
        return above, above
    return above, numerics.quantize_multiplier(scale(source) * float(np.float32(operation.alpha)) / scale(output))


def _rescale(operation: ops.LeakyRelu | ops.Rescale) -> Callable[[int], int]:
    above, below = factors(operation)
    output = operation.output
    return numerics.rescaled(zero(operation.inputs[0]), above, below, zero(output), *limits(output, operation.limits))


def _unary(operation: ops.Unary) -> Callable[[int], int]:
    source, output = operation.inputs[0], operation.output
    if operation.kind == "HARD_SWISH":
        finest = scale(source) / 128
        if finest >= scale(output):
            raise UnsupportedError(f"{operation}: its output's scale is too small for that of its input")
        if min(finest / scale(output), finest / (3 / 32768)) < 2**-15:  # the kernel shifts 16 bits
            raise UnsupportedError(f"{operation}: its input's scale is too small")
        return numerics.hard_swish(source.scale[0], zero(source), output.scale[0], zero(output))
    if operation.kind == "LOGISTIC":
        wanted_output(operation, 1 / 256, -128)
        return numerics.logistic(scale(source), zero(source))
    wanted_output(operation, 1 / 128, 0)
    return numerics.tanh(scale(source), zero(source))


def _table(operation: ops.Table) -> Callable[[int], int]:
    lowest = int(np.iinfo(operation.inputs[0].dtype).min)
    values = operation.values.tolist()
    return lambda stored: int(values[stored - lowest])


def wanted_output(operation: Operation, wanted: float, zero_point: int, tolerance: float = 0.0) -> None:
    """Check the only scale, up to a relative ``tolerance``, and zero point that the kernel writes."""
    off = abs(scale(operation.output) - wanted)
    if off > tolerance * wanted or zero(operation.output) != zero_point:
        raise UnsupportedError(
            f"{operation}: its output has scale {scale(operation.output):g} and zero point {zero(operation.output)}; "
            f"the kernel supports only {wanted:g} and {zero_point}"
        )
