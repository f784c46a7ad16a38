"""Numbers as text. Nothing else in edgecnn turns a measured number into words.

Sizes are in KiB (1,024 bytes). Intervals stand in brackets behind their value and have its decimals.
"""

import math
from collections.abc import Iterable

import msgspec

from edgecnn.records import Accuracy

ABSENT = "—"


class Unit(msgspec.Struct, frozen=True):
    """A unit of time and how many of it make a second."""

    name: str
    per_second: float


MICROSECONDS = Unit("µs", 1e6)
MILLISECONDS = Unit("ms", 1e3)
SECONDS = Unit("s", 1.0)


def plain(text: str) -> str:
    """``text`` on one line, with what does not print (control, escape, direction marks) replaced."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


def unit_for(seconds: Iterable[float]) -> Unit:
    """The one unit for a whole column of times: the smallest decides."""
    smallest = min(seconds, default=0.0)
    if smallest < 1e-3:
        return MICROSECONDS
    return MILLISECONDS if smallest < 1 else SECONDS


def time(seconds: float, unit: Unit) -> str:
    """A time in ``unit``, three significant digits, without the unit's name: ``41.2``."""
    return significant(seconds * unit.per_second)


def time_interval(value: float, low: float, high: float, unit: Unit) -> str:
    """A time with its interval: ``41.2 [40.9, 41.6]``."""
    return _interval(*(number * unit.per_second for number in (value, low, high)))


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
    """Something per second, three significant digits: ``24,300``."""
    return significant(per_second) if per_second < 1000 else f"{float(f'{per_second:.3g}'):,.0f}"


def gib(size_bytes: int) -> str:
    """A memory size: ``15.6 GiB``."""
    return f"{size_bytes / 1024**3:,.1f} GiB"


def count(number: int) -> str:
    """A count with thousands separated: ``10,000``."""
    return f"{number:,}"


def counted(number: int, noun: str) -> str:
    """A count with its noun: ``1 thread``, ``4 threads``."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def percent(share: float) -> str:
    """A share in percent, without the sign: ``98.71``."""
    return f"{share * 100:.2f}"


def accuracy(value: Accuracy) -> str:
    """Accuracy in percent with its 95 % interval, without the sign: ``98.71 [98.47, 98.91]``."""
    low, high = value.interval
    return f"{percent(value.value)} [{percent(low)}, {percent(high)}]"


def points(difference: float) -> str:
    """A difference in percentage points, signed: ``−0.10``, ``0.00``, ``+0.25``."""
    text = f"{difference:+.2f}".replace("-", "−")
    return text.lstrip("+−") if text in ("+0.00", "−0.00") else text


def ratio(value: float) -> str:
    """A ratio, three significant digits: ``0.312``."""
    return significant(value)


def ratio_interval(value: float, low: float, high: float) -> str:
    """A ratio with its interval: ``0.312 [0.298, 0.330]``; only the ratio where nothing is uncertain."""
    return ratio(value) if value == low == high else _interval(value, low, high, apart_from=1)


def tick(value: float) -> str:
    """A number beside an axis, without needless digits: ``0.5``, ``20``, ``1,000``."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.6g}"


def significant(value: float, digits: int = 3) -> str:
    """A number with ``digits`` significant digits and no exponent, unless it is below a millionth."""
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else str(value)
    if abs(value) < 1e-6:
        return f"{value:.{digits - 1}e}"
    return f"{value:,.{_decimals(value, digits)}f}"


def _decimals(value: float, digits: int) -> int:
    return max(0, digits - 1 - math.floor(math.log10(abs(value))))


def _interval(value: float, low: float, high: float, apart_from: float | None = None) -> str:
    """Decimals for three significant digits, and up to three more until the ends look different.

    An end that is not ``apart_from`` must not look like it either.
    """
    decimals = _decimals(value, 3) if value else 2
    most = decimals + 3
    while decimals < most and any(
        one != other and f"{one:.{decimals}f}" == f"{other:.{decimals}f}"
        for one, other in ((low, high), (low, apart_from), (high, apart_from))
        if other is not None
    ):
        decimals += 1
    return f"{value:,.{decimals}f} [{low:,.{decimals}f}, {high:,.{decimals}f}]"
