"""Timing of calls: the clock is read before and after, with the garbage collector off."""

import gc
import time
from collections.abc import Callable


def time_calls(call: Callable[[], object], count: int) -> list[int]:
    """Call ``count`` times and return the nanoseconds of each call, in a preallocated list.

    Every sample includes the timing overhead, about ``timer_s`` of the environment.
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
    return nanoseconds
