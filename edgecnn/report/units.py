"""Measured numbers as text; all formatting of numbers is here.

Sizes are in KiB (1,024 bytes). Intervals follow their value in brackets, with the same decimals; their ends are
rounded outwards, so that none looks narrower than it is. Times have three significant digits. Ratios from 0.1 to 10
have three decimals, so that they are easy to compare with each other and with 1; other ratios have three significant
digits.
"""

import math
from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from edgecnn.records import Accuracy

ABSENT = "—"
_MOST_DECIMALS = 12


class Interval(NamedTuple):
    """A number as text, and its interval in brackets; empty if the number is exact."""

    value: str
    bracket: str = ""

    def __str__(self) -> str:
        return f"{self.value} {self.bracket}" if self.bracket else self.value


class Unit(msgspec.Struct, frozen=True):
    """A unit of time, and how many of them make a second."""

    name: str
    per_second: float


MICROSECONDS = Unit("µs", 1e6)
MILLISECONDS = Unit("ms", 1e3)
SECONDS = Unit("s", 1.0)


def unit_for(seconds: Iterable[float]) -> Unit:
    """The unit for a column of times, chosen by the smallest."""
    smallest = min(seconds, default=0.0)
    if smallest < 1e-3:
        return MICROSECONDS
    return MILLISECONDS if smallest < 1 else SECONDS


def time(seconds: float, unit: Unit) -> str:
    """A time in ``unit``, three significant digits, without the unit's name: ``41.2``."""
    return significant(seconds * unit.per_second)


def time_interval(value: float, low: float, high: float, unit: Unit) -> Interval:
    """A time with its interval: ``41.2 [40.9, 41.6]``."""
    value, low, high = (number * unit.per_second for number in (value, low, high))
    return Interval(significant(value), _bracket(low, high, _decimals(value, 3)))


def duration(seconds: float) -> str:
    """A single time with its own unit: ``41.2 µs``, ``3.50 s``, ``2 min 5 s``."""
    if seconds >= 60:
        minutes, rest = divmod(round(seconds), 60)
        return f"{minutes:,} min {rest} s"
    unit = unit_for([seconds]) if seconds > 0 else SECONDS
    return f"{time(seconds, unit)} {unit.name}"


def kib(size_bytes: int) -> str:
    """A size in KiB without the unit's name: ``24.1``."""
    return f"{size_bytes / 1024:,.1f}"


def rate(per_second: float) -> str:
    """A rate per second, three significant digits: ``24,300``."""
    return (
        significant(per_second) if per_second < 1000 or math.isinf(per_second) else f"{float(f'{per_second:.3g}'):,.0f}"
    )


def mib(size_bytes: int) -> str:
    """A size in MiB without the unit's name: ``24.1``."""
    return f"{size_bytes / 1024**2:,.1f}"


def gib(size_bytes: int) -> str:
    """A memory size: ``15.6 GiB``."""
    return f"{size_bytes / 1024**3:,.1f} GiB"


def gigahertz(range_hz: tuple[int, int]) -> str:
    """A range of frequencies: ``0.80 to 3.60 GHz``."""
    low, high = range_hz
    return f"{low / 1e9:.2f} to {high / 1e9:.2f} GHz"


def millijoules(joules: float) -> str:
    """An energy in mJ, three significant digits, without the unit's name."""
    return significant(1000 * joules)


def decibels(value: float | None) -> str:
    """A signal-to-noise ratio in dB without the unit's name; ``None`` (no noise) is ``exact``."""
    return "exact" if value is None else f"{value:.1f}".replace("-", "−")


def count(number: int) -> str:
    """A count with thousands separated: ``10,000``."""
    return f"{number:,}"


def millions(number: int) -> str:
    """A large count in millions, three significant digits, without the word: ``4.23``."""
    return significant(number / 1e6)


def counted(number: int, noun: str) -> str:
    """A count with its noun: ``1 thread``, ``4 threads``."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def percent(share: float) -> str:
    """A share in percent, without the sign: ``98.71``."""
    return f"{share * 100:.2f}"


def accuracy(value: Accuracy) -> Interval:
    """Accuracy in percent with its 95 % interval, without the sign: ``98.71 [98.47, 98.91]``."""
    low, high = value.interval
    return Interval(percent(value.value), f"[{percent(low)}, {percent(high)}]")


def metric(scores: Iterable[Accuracy | None]) -> str:
    """The title of an axis or a column of scores, with the unit: ``accuracy, %``."""
    return f"{next((one.metric for one in scores if one is not None), 'accuracy')}, %"


def points(difference: float) -> str:
    """A difference in percentage points, signed: ``−0.10``, ``0.00``, ``+0.25``."""
    text = f"{difference:+.2f}".replace("-", "−")
    return text.lstrip("+−") if text in ("+0.00", "−0.00") else text


def points_interval(value: float, low: float, high: float) -> Interval:
    """A difference in percentage points with its interval: ``−0.10 [−0.24, +0.04]``; no interval if it is exact."""
    if value == low == high:
        return Interval(points(value))
    low, high = math.floor(round(low * 100, 6)) / 100, math.ceil(round(high * 100, 6)) / 100
    return Interval(points(value), f"[{points(low)}, {points(high)}]")


def ratio(value: float) -> str:
    """A ratio: ``0.312``, ``1.013``, ``33.4``."""
    return f"{value:,.{_ratio_decimals(value)}f}"


def ratio_interval(value: float, low: float, high: float) -> Interval:
    """A ratio with its interval: ``0.312 [0.298, 0.330]``; no interval if it is exact."""
    if value == low == high:
        return Interval(ratio(value))
    return Interval(ratio(value), _bracket(low, high, _ratio_decimals(value)))


def tick(value: float) -> str:
    """An axis label without trailing zeros: ``0.5``, ``20``, ``1,000``."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.6g}"


def significant(value: float, digits: int = 3) -> str:
    """A number with ``digits`` significant digits; with an exponent only below 1e-6."""
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else "∞"
    if abs(value) < 1e-6:
        return f"{value:.{digits - 1}e}"
    return f"{value:,.{_decimals(value, digits)}f}"


def _decimals(value: float, digits: int) -> int:
    if not value or not math.isfinite(value):
        return digits - 1
    return min(max(0, digits - 1 - math.floor(math.log10(abs(value)))), _MOST_DECIMALS)


def _ratio_decimals(value: float) -> int:
    return 3 if 0.1 <= abs(value) < 10 else _decimals(value, 3)


def _bracket(low: float, high: float, decimals: int) -> str:
    """An interval with its ends rounded outwards; floating-point noise is rounded off first."""
    if not math.isfinite(high):
        return "[not known]"
    scale = 10.0**decimals
    low, high = math.floor(round(low * scale, 6)) / scale, math.ceil(round(high * scale, 6)) / scale
    return f"[{low:,.{decimals}f}, {high:,.{decimals}f}]"
