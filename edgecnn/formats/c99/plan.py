"""Plan the arena: offsets of values with as few bytes as liveness and overlapping allow."""

import math
import random
from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from edgecnn.formats.c99 import kernels
from edgecnn.records import MemoryBlock

ALIGNMENT = 4
_ORDERS = 100


class Overlap(msgspec.Struct, frozen=True, kw_only=True):
    """How an output may overlap an input at the input's last use.

    The output starts at least ``distance`` bytes before the input; if ``exact``, at the same offset.
    """

    distance: int
    exact: bool


def overlap(
    kernel: str,
    shape: Sequence[int],
    made: Sequence[int],
    stride: Sequence[int] = (1, 1),
    pads: Sequence[int] = (0, 0),
) -> Overlap | None:
    """How an output of shape ``made`` may overlap an input, by the kernel's declared order; None: not at all.

    ``pads`` begin with top and left.
    """
    order = kernels.order(kernel)
    if order == "values" and math.prod(made) == math.prod(shape):  # not broadcast
        return Overlap(distance=0, exact=False)
    if order == "pixels":
        return Overlap(distance=_distance(shape, made, stride, pads), exact=False)
    if order == "channels" and made[3] == shape[3] and math.prod(made) <= math.prod(shape):
        return Overlap(distance=0, exact=True)
    return None


def farthest(overlaps: Sequence[Overlap | None]) -> Overlap | None:
    """What all of ``overlaps`` allow."""
    distances = [one.distance for one in overlaps if one is not None]
    if len(distances) < len(overlaps):
        return None
    return Overlap(distance=max(distances), exact=any(one.exact for one in overlaps if one is not None))


def _distance(shape: Sequence[int], made: Sequence[int], stride: Sequence[int], pads: Sequence[int]) -> int:
    """Bytes that the output must start before the input so that no value is overwritten before its last use."""
    _, height, width, channels = shape
    rows = np.maximum(np.arange(made[1]) * stride[0] - pads[0], 0) * width * channels
    columns = np.maximum(np.arange(made[2]) * stride[1] - pads[1], 0) * channels
    first = rows[:, None] + columns  # lower bound of the first byte read for each pixel
    later = np.append(rows[1:], height * width * channels)  # no later row reads bytes before this
    first = np.minimum(first, later[:, None]).reshape(-1)
    written = np.arange(len(first)) * made[3]  # bytes written before a pixel is read
    return int(max(0, (written - first).max()))


class Use(msgspec.Struct, frozen=True, kw_only=True):
    """A value in the arena (or scratch memory): its size in bytes, first and last layer that use it."""

    name: str
    size: int
    first: int
    last: int


def plan(uses: Mapping[int, Use], overlaps: Mapping[tuple[int, int], Overlap]) -> tuple[MemoryBlock, ...]:
    """Place all ``uses``; ``overlaps``, by (output, input), apply if the input is not used later.

    Greedy first fit in several orders (largest first, in order of time, and random with a fixed seed); the best is
    used. Y. Pisarchyk and J. Lee, "Efficient Memory Management for Deep Neural Net Inference", 2020.
    """
    usable = {
        pair: overlap
        for pair, overlap in overlaps.items()
        if pair[0] in uses and pair[1] in uses and uses[pair[1]].last == uses[pair[0]].first
    }
    by_size = sorted(uses, key=lambda value: (-uses[value].size, value))
    in_order = sorted(uses, key=lambda value: (uses[value].first, value))
    orders = [by_size, in_order, in_order[::-1]]
    shuffler = random.Random(0)
    for _ in range(_ORDERS if len(uses) > 2 else 0):
        # by size or by time, with some randomness
        base, spread = (by_size, 3) if shuffler.random() < 0.5 else (in_order, 4)
        keys = {value: place + shuffler.random() * spread for place, value in enumerate(base)}
        orders.append(sorted(base, key=lambda value: keys[value]))
    rivals = {
        value: [other for other in uses if uses[other].first <= use.last and use.first <= uses[other].last]
        for value, use in uses.items()
    }
    best = min((_placed(order, rivals, uses, usable) for order in orders), key=lambda offsets: arena_of(offsets, uses))
    return tuple(
        MemoryBlock(name=uses[v].name, offset=best[v], bytes=uses[v].size, first=uses[v].first, last=uses[v].last)
        for v in in_order
    )


def arena_of(offsets: Mapping[int, int], uses: Mapping[int, Use]) -> int:
    """Size of the arena in bytes."""
    return max((_aligned(offset + uses[value].size) for value, offset in offsets.items()), default=0)


def _placed(
    order: Sequence[int],
    rivals: Mapping[int, Sequence[int]],
    uses: Mapping[int, Use],
    overlaps: Mapping[tuple[int, int], Overlap],
) -> dict[int, int]:
    placed: dict[int, int] = {}
    for value in order:
        own = uses[value]
        there = [other for other in rivals[value] if other in placed]
        candidates = {0}
        for other in there:
            candidates.add(_aligned(placed[other] + uses[other].size))
            candidates.add((placed[other] - own.size) // ALIGNMENT * ALIGNMENT)
            for pair in ((value, other), (other, value)):
                overlap = overlaps.get(pair)
                if overlap is not None:
                    distance = _aligned(overlap.distance)
                    candidates.add(placed[other] - distance if pair[0] == value else placed[other] + distance)
        placed[value] = next(
            offset
            for offset in sorted(candidates)
            if offset >= 0 and all(_fit(value, offset, other, placed[other], uses, overlaps) for other in there)
        )
    return placed


def _fit(
    a: int, at: int, b: int, there: int, uses: Mapping[int, Use], overlaps: Mapping[tuple[int, int], Overlap]
) -> bool:
    """Whether two values that are live at the same time may have these offsets."""
    if at + uses[a].size <= there or there + uses[b].size <= at:
        return True
    for output, out_at, source, in_at in ((a, at, b, there), (b, there, a, at)):
        overlap = overlaps.get((output, source))
        if overlap is not None:
            return out_at == in_at if overlap.exact else out_at + overlap.distance <= in_at
    return False


def _aligned(offset: int) -> int:
    return -(-offset // ALIGNMENT) * ALIGNMENT
