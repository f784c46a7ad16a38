"""How a call is timed: the clock read before and after, the garbage collector off."""

import gc
import time
from collections.abc import Callable
from itertools import pairwise
from statistics import median

_READINGS = 1001


def time_calls(call: Callable[[], object], count: int) -> list[float]:
    """Call ``count`` times and return the seconds of each; what is kept goes into a list made before.

    The time of a ``call`` that does nothing is what this adds to every sample: ``timer_s`` of the environment.
    """
    clock = time.perf_counter_ns
    nanoseconds = [0] * count
    collected = gc.isenabled()
    gc.disable()
    try:
        for index in range(count):
            start = clock()
            call()
            nanoseconds[index] = clock() - start
    finally:
        if collected:
            gc.enable()
    return [taken / 1e9 for taken in nanoseconds]


def timer_s() -> float:
    """The shortest time in seconds that the clock tells from nothing.

    That is its resolution, the smallest step it was seen to make, or the median of two readings with nothing between
    them, whichever is more.
    """
    clock = time.perf_counter_ns
    readings = [clock() for _ in range(_READINGS)]
    steps = [after - before for before, after in pairwise(readings)]
    resolution = min((step for step in steps if step > 0), default=0)
    return max(resolution, median(steps), 1) / 1e9
