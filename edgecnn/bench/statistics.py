"""Numbers computed from the samples of a measurement, and what is wrong with them.

Samples of one block resemble each other, and so do blocks of one process: where a process's memory happens to lie
makes the same file up to 2 % faster or slower, for as long as the process lives (Mytkowicz et al., "Producing Wrong
Data Without Doing Anything Obviously Wrong!", ASPLOS 2009). Intervals that count samples, or blocks of one process,
are therefore several times too narrow. Here they come from a hierarchical bootstrap (Davison and Hinkley, *Bootstrap
Methods and their Application*, 1997, section 3.8): draw processes, then blocks of each, keep every sample of these. Its
standard error, on the logarithm of the time, is multiplied by Student's t for the number of processes, because
percentiles of so few of them are too narrow (Hesterberg, "What Teachers Should Know About the Bootstrap", 2015).
"""

import math
from functools import lru_cache
from statistics import median
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edgecnn.bench.modes import two_modes
from edgecnn.errors import BenchError
from edgecnn.records import ColdStart, Environment, Estimate, Measurement, Summary

P99_SAMPLES = 1000
"""Below this many samples the 99th percentile rests on fewer than ten of them and is not given."""

_RESAMPLES = 1000
_FEW_SAMPLES = 100
_FEW_BLOCKS = 10
_DRIFT = 0.05
_SPREAD = 1.3
_BUSY = 0.1
# Where the machine's is not known: two readings of the clock and the call between them cost about 0.1 µs.
_TIMER_S = 1e-7
_TIMER_SHARE = 0.01
# 97.5 % quantiles of Student's t for 1, 2, … degrees of freedom
_STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)

_Array = NDArray[np.float64]


@lru_cache(maxsize=512)  # a report divides by the same baselines again and again
def summary(measurement: Measurement) -> Summary:
    """Median and percentiles of ``invoke`` alone, with their intervals; the warm-up takes no part."""
    if measurement.summaries is not None:
        return measurement.summaries.invoke
    return _summary(measurement, measurement.blocks)


@lru_cache(maxsize=512)
def end_to_end(measurement: Measurement) -> Summary | None:
    """As ``summary``, of encode, invoke and decode together; ``None`` where that was not measured."""
    if measurement.summaries is not None:
        return measurement.summaries.end_to_end
    return _summary(measurement, measurement.end_to_end) if measurement.end_to_end else None


def cold_start(measurement: Measurement) -> ColdStart | None:
    """Median of each part over the fresh processes; ``None`` where none was measured."""
    starts = measurement.cold_starts
    if not starts:
        return None
    return ColdStart(
        import_s=median(start.import_s for start in starts),
        load_s=median(start.load_s for start in starts),
        first_s=median(start.first_s for start in starts),
    )


def ratio(measurement: Measurement, reference: Measurement) -> Estimate:
    """Time of ``measurement`` over time of ``reference``: 0.5 is twice as fast, 2 is half as fast.

    Both come from one call of ``bench``. Their blocks are paired by round, so what slows a whole round
    cancels out; the value is the median over the rounds of the ratio of the two block medians.

    Raises:
        BenchError: the two have different numbers of blocks, or other processes.
    """
    if len(measurement.blocks) != len(reference.blocks) or measurement.processes != reference.processes:
        raise BenchError(
            f"cannot pair {len(measurement.blocks)} blocks of {measurement.artifact} with "
            f"{len(reference.blocks)} of {reference.artifact}; measure both in one run"
        )
    ratios = _block_medians(measurement) / _block_medians(reference)
    (found,) = _estimates([ratios[[index]] for index in range(len(ratios))], measurement.processes, (50,))
    return found


def inverse(ratio: Estimate) -> Estimate:
    """The ratio of the two the other way round."""
    return Estimate(value=1 / ratio.value, low=1 / ratio.high, high=1 / ratio.low if ratio.low else math.inf)


def difference(ratio: Estimate) -> Literal["faster", "slower", "none"]:
    """What a ratio of times says: a difference is one only where the interval excludes 1."""
    if ratio.high < 1:
        return "faster"
    return "slower" if ratio.low > 1 else "none"


def warnings(measurement: Measurement, environment: Environment | None = None) -> tuple[str, ...]:
    """One sentence for each reason to distrust the measurement; empty when there is none.

    With ``environment``, that of the measurement, times are held against the timer of that machine.
    """
    if measurement.summaries is not None:
        return measurement.summaries.warnings
    found = []
    samples = np.array(measurement.samples)
    blocks = _block_medians(measurement)
    middle, p90 = np.maximum(np.percentile(samples, (50, 90)), 1e-9)  # the clock's unit
    if len(samples) < _FEW_SAMPLES:
        found.append(f"only {len(samples)} samples, fewer than {_FEW_SAMPLES}: measure for longer")
    if len(blocks) < _FEW_BLOCKS:
        found.append(f"only {len(blocks)} blocks, fewer than {_FEW_BLOCKS}: do not trust the interval")
    if not measurement.steady:
        found.append("the times had not settled when the warm-up ended: the first blocks may be too slow")
    third = max(1, len(blocks) // 3)
    drift = float(np.median(blocks[-third:]) / np.median(blocks[:third])) - 1
    modes = two_modes(samples)
    if abs(drift) > _DRIFT:
        found.append(f"the last third differs from the first by {drift:+.0%}: the machine was not steady")
    elif modes is not None:
        found.append(
            f"the times have two modes, {modes.share:.0%} of them around {modes.upper / modes.lower:.2f} times the "
            "others: the median speaks of one of them only"
        )
    elif p90 > _SPREAD * middle:
        found.append(f"p90 is {p90 / middle:.1f} times the median: the machine was not left alone")
    if measurement.others_busy and np.mean(measurement.others_busy) > _BUSY:
        found.append(f"other processes took {np.mean(measurement.others_busy):.0%} of the cores: measure again alone")
    timer_s = environment.timer_s if environment is not None and environment.timer_s is not None else _TIMER_S
    if middle * _TIMER_SHARE < timer_s:
        found.append(
            f"the median is under {timer_s / _TIMER_SHARE * 1e6:.0f} µs: the timer's own cost shows; try a larger batch"
        )
    return tuple(found)


def machine_warnings(environment: Environment) -> tuple[str, ...]:
    """One sentence for each reason why all times of the machine are to be taken with care."""
    found = []
    if environment.governor is not None and environment.governor != "performance":
        found.append(
            f"the cores' frequency follows the governor {environment.governor!r}: choose 'performance' for steady times"
        )
    if environment.load_1min is not None and environment.load_1min > _BUSY * environment.cores + 0.5:
        found.append(f"the load average was {environment.load_1min:.1f} before the measurement: the machine was in use")
    if environment.cpu_quota is not None and environment.cpu_quota < environment.usable_cores:
        found.append(f"a container may use {environment.cpu_quota:g} cores: it is stopped when they are used up")
    return tuple(found)


def _summary(measurement: Measurement, times: tuple[tuple[float, ...], ...]) -> Summary:
    blocks = [np.array(block) for block in times]
    count, total = sum(map(len, blocks)), float(sum(block.sum() for block in blocks))
    middle, p90, p99 = _estimates(blocks, measurement.processes, (50, 90, 99))
    return Summary(
        samples=count,
        median=middle.value,
        low=middle.low,
        high=middle.high,
        p90=p90,
        p99=p99 if count >= P99_SAMPLES else None,
        throughput=measurement.batch * count / total if total else math.inf,
    )


def _block_medians(measurement: Measurement) -> _Array:
    return np.maximum([np.median(block) for block in measurement.blocks], 1e-9)  # a nanosecond: the clock's unit


def _estimates(blocks: list[_Array], processes: tuple[int, ...], percents: tuple[int, ...]) -> list[Estimate]:
    """Percentiles of all values (positive) of ``blocks``, with intervals; ``processes`` counts the blocks of each."""
    values = np.concatenate(blocks)
    found = np.percentile(values, percents)
    processes = processes or (len(blocks),)
    units = len(processes) if len(processes) > 1 else len(blocks)  # one process: all that is left to draw are blocks
    if units == 1:
        return [Estimate(value=float(value), low=0.0, high=math.inf) for value in found]
    order = np.argsort(values)
    ordered = np.log(np.maximum(values[order], 1e-9))
    block_of = np.repeat(np.arange(len(blocks)), [len(block) for block in blocks])[order]
    drawn = np.empty((_RESAMPLES, len(percents)))
    for row, weights in zip(drawn, _draws(processes), strict=True):
        counts = np.cumsum(weights[block_of])
        row[:] = ordered[np.searchsorted(counts, np.array(percents) / 100 * counts[-1])]
    degrees = units - 1
    student = _STUDENT[degrees - 1] if degrees <= len(_STUDENT) else 1.96 + 2.4 / degrees
    drawn -= drawn[0]  # so that equal values have no spread left by rounding
    half = np.exp(student * drawn.std(axis=0))
    return [
        Estimate(value=float(value), low=float(value / wide), high=float(value * wide))
        for value, wide in zip(found, half, strict=True)
    ]


@lru_cache(maxsize=8)
def _draws(processes: tuple[int, ...]) -> NDArray[np.int64]:
    """How often each block is drawn: ``(resamples, blocks)``. Processes are drawn, then as many blocks of each."""
    generator = np.random.default_rng(0)
    starts = np.cumsum((0, *processes))
    counts = np.zeros((_RESAMPLES, starts[-1]), np.int64)
    for row in counts:
        for process in generator.integers(0, len(processes), len(processes)):
            np.add.at(row, starts[process] + generator.integers(0, processes[process], processes[process]), 1)
    return counts
