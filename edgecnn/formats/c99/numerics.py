"""The integer arithmetic of TFLite Micro, evaluated during code generation: multipliers, function tables.

Sources: the TFLite 8-bit quantisation specification
(https://ai.google.dev/edge/litert/conversion/tensorflow/quantization/quantization_spec); gemmlowp's fixed-point
arithmetic (fixedpoint/fixedpoint.h); TFLite Micro's kernels (tensorflow/lite/micro/kernels and
tensorflow/lite/kernels/internal/reference). Python integers represent int32 values; fixed-point numbers are raw
integers, with the number of integer bits in the name or the docstring.
"""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

INT32_MAX = 2**31 - 1
INT32_MIN = -(2**31)


def round_half_away(value: float) -> int:
    """Round to the nearest integer, halves away from zero, as C's round()."""
    return math.floor(value + 0.5) if value >= 0 else math.ceil(value - 0.5)


def quantize_multiplier(real: float) -> tuple[int, int]:
    """``real`` ≥ 0 as ``multiplier * 2**(shift - 31)`` with a multiplier in [2³⁰, 2³¹), or 0 (QuantizeMultiplier)."""
    if real == 0:
        return 0, 0
    fraction, shift = math.frexp(real)
    multiplier = round_half_away(fraction * 2**31)
    if multiplier == 2**31:
        multiplier, shift = 2**30, shift + 1
    return (0, 0) if shift < -31 else (multiplier, shift)


def wrapped(value: int) -> int:
    """The int32 with the lowest 32 bits of ``value``."""
    return (value + 2**31) % 2**32 - 2**31


def high_mul(a: int, b: int) -> int:
    """gemmlowp's SaturatingRoundingDoublingHighMul: ``a * b / 2**31``, rounded to nearest, halves up."""
    return INT32_MAX if a == b == INT32_MIN else (a * b + 2**30) >> 31


def divide_by_power(value: int, exponent: int) -> int:
    """gemmlowp's RoundingDivideByPOT: ``value / 2**exponent``, rounded to nearest, halves away from zero."""
    if exponent == 0:
        return value
    return (value + (1 << (exponent - 1)) - (value < 0)) >> exponent


def rescale(value: int, multiplier: int, shift: int) -> int:
    """TFLite's MultiplyByQuantizedMultiplier with its two roundings."""
    return divide_by_power(high_mul(wrapped(value << max(shift, 0)), multiplier), max(-shift, 0))


def table(function: Callable[[int], int], input_dtype: str) -> NDArray[np.uint8]:
    """Results of ``function`` for the stored bytes 0 to 255, as bytes; its argument has type ``input_dtype``."""
    stored = np.arange(256, dtype=np.uint8)
    return np.array([function(int(value)) & 255 for value in stored.view(input_dtype)], np.uint8)


def softmax_table(scale: float, beta: float) -> NDArray[np.int32]:
    """exp of ``-difference * scale * beta`` as Q0.31, for differences 0, 1, … until it is 0."""
    real = min(beta * scale * 2**26, 2.0**31 - 1)
    multiplier, shift = quantize_multiplier(real)
    radius = math.floor(31.0 * 2**26 / 2**shift)
    values = []
    for difference in range(min(radius, 255) + 1):
        value = exp_on_negative_values(rescale(-difference, multiplier, shift), 5)
        if value == 0:
            break
        values.append(value)
    return np.array(values, np.int32)


def logistic(scale: float, zero_point: int) -> Callable[[int], int]:
    """The int8 LOGISTIC, whose output has scale 1/256 and zero point -128."""

    def positive(value: int) -> int:
        return _one_over_one_plus(exp_on_negative_values(-value, 4))

    def whole(value: int) -> int:
        if value == 0:
            return 2**30
        return positive(value) if value > 0 else INT32_MAX - positive(-value)

    return _limited(scale, zero_point, lambda value: divide_by_power(whole(value), 23) - 128)


def sigmoid_factor(scale: float) -> tuple[int, int]:
    """The factor and shift that make of an int16 one of scale 2⁻¹² / 3, for LOGISTIC and TANH."""
    left = math.frexp(scale)[1] + 11
    if scale == 2.0 ** (left - 12) and left in (0, 1):
        return 3 << left, 0
    multiplier, shift = scale * 4096.0 * 3.0, 0
    while multiplier <= 32767.0 / 2.0 and shift <= 30:
        multiplier, shift = multiplier * 2.0, shift + 1
    return int(multiplier), shift


def softmax_tables_16() -> NDArray[np.int16]:
    """exp from -10 to 0 and 1 / (1 + x) from 0 to 1, in Q0.15: 512 intervals, each moved by half the error in its
    middle, and the last value."""

    def made(function: Callable[[float], float], low: float, high: float) -> list[int]:
        step, found = (high - low) / 512, []
        for place in range(512):
            here, middle, after = (function(low + (place + part) * step) * 2**15 for part in (0, 0.5, 1))
            error = round_half_away((after + round_half_away(here)) / 2) - round_half_away(middle)
            found.append(round_half_away(here) - round_half_away(error / 2))
        return [min(value, 2**15 - 1) for value in (*found, round_half_away(function(high) * 2**15))]

    return np.array([made(math.exp, -10.0, 0.0), made(lambda x: 1 / (1 + x), 0.0, 1.0)], np.int16)


def tanh(scale: float, zero_point: int) -> Callable[[int], int]:
    """The int8 TANH, whose output has scale 1/128 and zero point 0."""

    def negated(value: int) -> int:  # of values up to 0
        newton = _newton(exp_on_negative_values(value, 5))
        return _shifted_left(newton - 2**29, 2)

    def whole(value: int) -> int:
        if value == 0:
            return 0
        return negated(-value) if value > 0 else -negated(value)

    return _limited(scale, zero_point, lambda value: divide_by_power(whole(value), 24))


def _limited(scale: float, zero_point: int, function: Callable[[int], int]) -> Callable[[int], int]:
    """``function`` of inputs in Q4.27, saturated beyond ±15."""
    fraction, shift = math.frexp(scale * 2**27)
    multiplier = round_half_away(fraction * 2**31)
    radius = math.floor(15.0 * 2**27 / 2**shift) if shift >= 0 else 2**31

    def clamped(value: int) -> int:
        centred = value - zero_point
        if centred <= -radius:
            return -128
        if centred >= radius:
            return 127
        return min(max(function(rescale(centred, multiplier, shift)), -128), 127)

    return clamped


def hard_swish(
    input_scale: np.float32, input_zero: int, output_scale: np.float32, output_zero: int
) -> Callable[[int], int]:
    """The int8 HARD_SWISH in its int16 arithmetic. Its factors are float32 quotients, as in the kernel."""
    fine = np.float32(1 / 128) * input_scale
    output_multiplier, output_shift = quantize_multiplier(float(fine / output_scale))
    relu_multiplier, relu_shift = quantize_multiplier(float(fine / np.float32(3.0 / 32768.0)))
    output_multiplier, relu_multiplier = _to_int16(output_multiplier), _to_int16(relu_multiplier)

    def function(value: int) -> int:
        shifted = (value - input_zero) * 128
        before = _high_mul16(shifted, output_multiplier)
        gate = shifted
        if relu_shift > 0:
            gate = _saturated16(gate << (relu_shift - 1))
        gate = _high_mul16(gate, relu_multiplier)
        if relu_shift > 0:
            gate = _saturated16(gate << 1)
        if relu_shift < 0:
            gate = divide_by_power(gate, -relu_shift)
        gate = (gate + 2**15) >> 1
        product = abs(gate * before) >> 15
        product = product if gate * before >= 0 else -product  # rounded towards zero
        return min(max(divide_by_power(product, -output_shift) + output_zero, -128), 127)

    return function


def _to_int16(multiplier: int) -> int:
    return 2**15 - 1 if multiplier >= INT32_MAX - 2**15 else (multiplier + 2**15) >> 16


def _saturated16(value: int) -> int:
    return min(max(value, -(2**15)), 2**15 - 1)


def _high_mul16(a: int, b: int) -> int:
    return 2**15 - 1 if a == b == -(2**15) else (a * b + 2**14) >> 15


def exp_on_negative_values(value: int, integer_bits: int) -> int:
    """gemmlowp's exp of a number ≤ 0 in Q``integer_bits``, as Q0.31."""
    if value == 0:
        return INT32_MAX
    fraction_bits = 31 - integer_bits
    quarter = 1 << (fraction_bits - 2)
    within = (value & (quarter - 1)) - quarter
    result = _exp_near_zero(_shifted_left(within, integer_bits))
    remainder = within - value
    # exp(-2**exponent) as Q0.31
    for exponent, factor in enumerate((1672461947, 1302514674, 790015084, 290630308, 39332535, 720401, 242), -2):
        if integer_bits > exponent and remainder >> (fraction_bits + exponent) & 1:
            result = high_mul(result, factor)
    return result


def _exp_near_zero(value: int) -> int:
    """exp on [-1/4, 0) in Q0.31, by its series around -1/8."""
    x = value + 2**28
    x2 = high_mul(x, x)
    x3, x4 = high_mul(x2, x), high_mul(x2, x2)
    rest = divide_by_power(high_mul(divide_by_power(x4, 2) + x3, 715827883) + x2, 1)
    return 1895147668 + high_mul(1895147668, x + rest)


def _newton(value: int) -> int:
    """``2 / (1 + value)`` for a Q0.31 in [0, 1], as Q2.29, by three steps of Newton's method."""
    half = (value + INT32_MAX + 1) >> 1
    x = 1515870810 + high_mul(half, -1010580540)
    for _ in range(3):
        x += _shifted_left(high_mul(x, 2**29 - high_mul(half, x)), 2)
    return x


def _one_over_one_plus(value: int) -> int:
    return _shifted_left(_newton(value), 1)


def _shifted_left(value: int, bits: int) -> int:
    return min(max(value << bits, INT32_MIN), INT32_MAX)


def rescaled(
    zero: int, above: tuple[int, int], below: tuple[int, int], out_zero: int, low: int, high: int
) -> Callable[[int], int]:
    """Values from ``zero`` up are scaled by ``above``, values below by ``below``; limited to [low, high]."""

    def function(value: int) -> int:
        factor = above if value >= zero else below
        return min(max(rescale(value - zero, *factor) + out_zero, low), high)

    return function


def nearest(size: int, new: int, aligned: bool, half: bool) -> list[int]:
    """Source index below ``size`` for each of ``new`` positions, resized to the nearest; in float32 like the kernel."""
    corners = aligned and new > 1
    scale = np.float32(size - 1 if corners else size) / np.float32(new - 1 if corners else new)
    reals = [float((np.float32(at) + np.float32(0.5 if half else 0.0)) * scale) for at in range(new)]
    return [max(min(round_half_away(real) if aligned else math.floor(real), size - 1), 0) for real in reals]


def between(size: int, new: int, aligned: bool, half: bool) -> list[tuple[int, int, int]]:
    """For each of ``new`` positions the two source indices around it, and the distance from the first, in 1024ths.

    The first index may be beyond the last position, which TFLite's kernel does not check.
    """
    length, made = (size - 1, new - 1) if aligned and new > 1 else (size, new)
    scale = (1024 * length + made // 2) // made
    found = []
    for at in range(new):
        real = at * scale + (scale // 2 - 512 if half else 0)
        lower = max(int(real / 1024), 0)
        found.append((lower, min(int((real + 1023) / 1024), size - 1), real - 1024 * lower))
    return found
