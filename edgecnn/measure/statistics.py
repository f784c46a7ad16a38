"""Statistics of the samples of a measurement, and warnings about them.

Samples of one block are correlated, and so are blocks of one process: its memory layout makes the same file up to 2 %
faster or slower for the life of the process (Mytkowicz et al., "Producing Wrong Data Without Doing Anything Obviously
Wrong!", ASPLOS 2009). Intervals that treat samples, or blocks of one process, as independent are therefore several
times too narrow. The intervals here come from a hierarchical bootstrap (Davison and Hinkley, *Bootstrap Methods and
their Application*, 1997, section 3.8): draw processes, then blocks of each, and keep all samples of these. The
standard error of the log time is multiplied by Student's t for the number of processes, because bootstrap percentiles
of so few processes are too narrow (Hesterberg, "What Teachers Should Know About the Bootstrap", 2015).
"""

import math
from functools import lru_cache
from statistics import median
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edgecnn.errors import BenchError
from edgecnn.measure.modes import two_modes
from edgecnn.records import Blocks, ColdStart, Environment, Estimate, Measurement, Summary

P99_SAMPLES = 1000
"""Minimum number of samples for the 99th percentile, so that it rests on ten of them."""

_RESAMPLES = 1000
_FEW_SAMPLES = 100
_FEW_BLOCKS = 10
_DRIFT = 0.05
_SPREAD = 1.3
_BUSY = 0.1
# Default if the machine's is unknown: two clock readings and the call between them take about 0.1 µs.
_TIMER_S = 1e-7
_TIMER_SHARE = 0.01
# 97.5 % quantiles of Student's t for 1, 2, … degrees of freedom
_STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)

_Array = NDArray[np.float64]


@lru_cache(maxsize=512)  # a report divides by the same baselines again and again
def summary(measurement: Measurement) -> Summary:
    """Median and percentiles of ``invoke`` alone, with their intervals, without the warm-up."""
    if measurement.summaries is not None:
        return measurement.summaries.invoke
    return _summary(measurement, measurement.blocks_ns)


@lru_cache(maxsize=512)
def end_to_end(measurement: Measurement) -> Summary | None:
    """As ``summary``, for encode, invoke and decode together; ``None`` if not measured."""
    if measurement.summaries is not None:
        return measurement.summaries.end_to_end
    return _summary(measurement, measurement.end_to_end_ns) if measurement.end_to_end_ns else None


def cold_start(measurement: Measurement) -> ColdStart | None:
    """Median of each part over the fresh processes; ``None`` if not measured."""
    starts = measurement.cold_starts
    if not starts:
        return None
    return ColdStart(
        import_s=median(start.import_s for start in starts),
        load_s=median(start.load_s for start in starts),
        first_s=median(start.first_s for start in starts),
    )


def ratio(measurement: Measurement, reference: Measurement) -> Estimate:
    """Time of ``measurement`` ÷ time of ``reference``: 0.5 is twice as fast, 2 is half as fast.

    Both must come from one call of ``bench``. Their blocks are paired by round, so a slowdown of a whole round
    cancels out. The value is the median over the rounds of the ratio of the two block medians.

    Raises:
        BenchError: the two cannot be paired.
    """
    if not pairable(measurement, reference):
        raise BenchError(
            f"cannot pair {len(measurement.blocks_ns)} blocks of {measurement.artifact} with "
            f"{len(reference.blocks_ns)} of {reference.artifact}; measure both in one run"
        )
    ratios = _block_medians(measurement) / _block_medians(reference)
    (found,) = _estimates([ratios[[index]] for index in range(len(ratios))], measurement.blocks_per_process, (50,))
    return found


def pairable(one: Measurement, other: Measurement) -> bool:
    """Whether the blocks of the two can be paired by round: equal number of blocks, overall and per process."""
    return len(one.blocks_ns) == len(other.blocks_ns) and one.blocks_per_process == other.blocks_per_process


def inverse(ratio: Estimate) -> Estimate:
    """The reciprocal of a ratio, with its interval."""
    return Estimate(value=1 / ratio.value, low=1 / ratio.high, high=1 / ratio.low if ratio.low else math.inf)


def difference(ratio: Estimate) -> Literal["faster", "slower", "none"]:
    """The verdict on a time ratio: a difference only if the interval excludes 1."""
    if ratio.high < 1:
        return "faster"
    return "slower" if ratio.low > 1 else "none"


def warnings(measurement: Measurement, environment: Environment | None = None) -> tuple[str, ...]:
    """One sentence for each reason to distrust the measurement; empty if there is none.

    ``environment`` is that of the measurement; its timer resolution limits short times.
    """
    if measurement.summaries is not None:
        return measurement.summaries.warnings
    found = []
    samples = np.array(measurement.samples_s)
    blocks = _block_medians(measurement)
    middle, p90 = np.maximum(np.percentile(samples, (50, 90)), 1e-9)  # the clock's unit
    if len(samples) < _FEW_SAMPLES:
        found.append(f"only {len(samples)} samples, fewer than {_FEW_SAMPLES}: measure for longer")
    if len(blocks) < _FEW_BLOCKS:
        found.append(f"only {len(blocks)} blocks, fewer than {_FEW_BLOCKS}: do not trust the interval")
    if not measurement.steady:
        found.append("the times were not steady when the warm-up ended: the first blocks may be too slow")
    third = max(1, len(blocks) // 3)
    drift = float(np.median(blocks[-third:]) / np.median(blocks[:third])) - 1
    modes = two_modes(samples)
    if abs(drift) > _DRIFT:
        found.append(f"the last third differs from the first by {drift:+.0%}: the machine was not steady")
    elif modes is not None:
        found.append(
            f"the times have two modes, {modes.share:.0%} of them around {modes.upper / modes.lower:.2f} times the "
            "others: the median describes only one of them"
        )
    elif p90 > _SPREAD * middle:
        found.append(f"p90 is {p90 / middle:.1f} times the median: the machine was probably busy")
    if measurement.others_busy and np.mean(measurement.others_busy) > _BUSY:
        found.append(
            f"other processes used {np.mean(measurement.others_busy):.0%} of the cores: repeat on an idle machine"
        )
    timer_s = environment.timer_s if environment is not None and environment.timer_s is not None else _TIMER_S
    if middle * _TIMER_SHARE < timer_s:
        found.append(
            f"the median is below {timer_s / _TIMER_SHARE * 1e6:.0f} µs: timer overhead is significant; use a larger "
            "batch"
        )
    return tuple(found)


def machine_warnings(environment: Environment) -> tuple[str, ...]:
    """One sentence for each reason to distrust all times of the machine."""
    found = []
    if environment.governor is not None and environment.governor != "performance":
        found.append(f"the frequency governor is {environment.governor!r}: choose 'performance' for steady times")
    if environment.load_1min is not None and environment.load_1min > _BUSY * environment.cores + 0.5:
        found.append(f"the load average was {environment.load_1min:.1f} before the measurement: the machine was in use")
    if environment.cpu_quota is not None and environment.cpu_quota < environment.usable_cores:
        found.append(f"the container is limited to {environment.cpu_quota:g} cores: it is paused when it uses more")
    return tuple(found)


def _summary(measurement: Measurement, blocks_ns: Blocks) -> Summary:
    blocks = [np.array(block) / 1e9 for block in blocks_ns]
    count, total = sum(map(len, blocks)), float(sum(block.sum() for block in blocks))
    middle, p90, p99 = _estimates(blocks, measurement.blocks_per_process, (50, 90, 99))
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
    medians = [np.median(np.array(block) / 1e9) for block in measurement.blocks_ns]
    return np.maximum(medians, 1e-9)  # a nanosecond: the clock's unit


def _estimates(blocks: list[_Array], blocks_per_process: tuple[int, ...], percents: tuple[int, ...]) -> list[Estimate]:
    """Percentiles of all values (positive) of ``blocks``, with intervals."""
    values = np.concatenate(blocks)
    found = np.percentile(values, percents)
    blocks_per_process = blocks_per_process or (len(blocks),)
    processes = len(blocks_per_process)
    units = processes if processes > 1 else len(blocks)  # with one process, only blocks can be drawn
    if units == 1:
        return [Estimate(value=float(value), low=0.0, high=math.inf) for value in found]
    order = np.argsort(values)
    ordered = np.log(np.maximum(values[order], 1e-9))
    block_of = np.repeat(np.arange(len(blocks)), [len(block) for block in blocks])[order]
    drawn = np.empty((_RESAMPLES, len(percents)))
    for row, weights in zip(drawn, _draws(blocks_per_process), strict=True):
        counts = np.cumsum(weights[block_of])
        row[:] = ordered[np.searchsorted(counts, np.array(percents) / 100 * counts[-1])]
    degrees = units - 1
    student = _STUDENT[degrees - 1] if degrees <= len(_STUDENT) else 1.96 + 2.4 / degrees
    drawn -= drawn[0]  # so that rounding causes no spread between equal values
    half = np.exp(student * drawn.std(axis=0))
    return [
        Estimate(value=float(value), low=float(value / wide), high=float(value * wide))
        for value, wide in zip(found, half, strict=True)
    ]


@lru_cache(maxsize=8)
def _draws(blocks_per_process: tuple[int, ...]) -> NDArray[np.int64]:
    """How often each block is drawn, ``(resamples, blocks)``: draws processes, then as many blocks as each has."""
    generator = np.random.default_rng(0)
    processes = len(blocks_per_process)
    starts = np.cumsum((0, *blocks_per_process))
    counts = np.zeros((_RESAMPLES, starts[-1]), np.int64)
    for row in counts:
        for process in generator.integers(0, processes, processes):
            blocks = blocks_per_process[process]
            np.add.at(row, starts[process] + generator.integers(0, blocks, blocks), 1)
    return counts
