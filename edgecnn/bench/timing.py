"""How a call is timed: the clock read before and after, the garbage collector off."""

import gc
import time
from collections.abc import Callable


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
