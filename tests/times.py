"""Times written in seconds, as measurements hold them."""

from collections.abc import Iterable


def in_ns(blocks_s: Iterable[Iterable[float]]) -> tuple[tuple[int, ...], ...]:
    """Blocks of seconds in whole nanoseconds."""
    return tuple(tuple(round(1e9 * seconds) for seconds in block) for block in blocks_s)
