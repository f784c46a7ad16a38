"""Numbers computed from the samples of a measurement, and what is wrong with them."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from edgecnn.errors import BenchError
from edgecnn.records import Measurement, Record

P99_SAMPLES = 1000
"""Below this many samples the 99th percentile rests on fewer than ten of them and is not given."""

_RESAMPLES = 1000
_FEW_SAMPLES = 100
_FEW_BLOCKS = 10
_DRIFT = 0.05
_SPREAD = 1.3
# Two readings of the clock and the call between them cost about 0.1 µs, which is 1 % of this.
_SHORT_S = 1e-5

_Array = NDArray[np.float64]


class Estimate(Record, frozen=True):
    """A value and its 95 % bootstrap interval."""

    value: float
    low: float
    high: float


class Summary(Record, frozen=True):
    """Latency of one invocation in seconds; ``low`` and ``high`` bound 95 % interval of the median.

    ``p99`` is ``None`` below ``P99_SAMPLES`` samples. ``throughput`` is all images over all measured time, in
    images per second.
    """

    samples: int
    median: float
    low: float
    high: float
    p90: float
    p99: float | None
    throughput: float


def summary(measurement: Measurement) -> Summary:
    """Median with its interval, percentiles and throughput of all samples; the warm-up takes no part.

    The interval comes from drawing whole blocks, since samples of one block are not independent.
    """
    blocks = [np.array(block) for block in measurement.blocks]
    samples = np.concatenate(blocks)

    def median(drawn: NDArray[np.intp]) -> float:
        return float(np.median(np.concatenate([blocks[index] for index in drawn])))

    middle = _estimate(median, len(blocks))
    p90, p99 = np.percentile(samples, (90, 99))
    return Summary(
        samples=len(samples),
        median=middle.value,
        low=middle.low,
        high=middle.high,
        p90=float(p90),
        p99=float(p99) if len(samples) >= P99_SAMPLES else None,
        throughput=measurement.batch * len(samples) / float(samples.sum()),
    )


def ratio(measurement: Measurement, reference: Measurement) -> Estimate:
    """Time of ``measurement`` over time of ``reference``: 0.5 is twice as fast, 2 is half as fast.

    Both come from one call of ``bench``. Their blocks are paired by round, so what slows a whole round
    cancels out; the value is the median over the rounds of the ratio of the two block medians.

    Raises:
        BenchError: the two have different numbers of blocks.
    """
    if len(measurement.blocks) != len(reference.blocks):
        raise BenchError(
            f"cannot pair {len(measurement.blocks)} blocks of {measurement.artifact} with "
            f"{len(reference.blocks)} of {reference.artifact}; measure both in one run"
        )
    ratios = _block_medians(measurement) / _block_medians(reference)
    return _estimate(lambda drawn: float(np.median(ratios[drawn])), len(ratios))


def warnings(measurement: Measurement) -> tuple[str, ...]:
    """One sentence for each reason to distrust the measurement; empty when there is none."""
    found = []
    samples = np.array(measurement.samples)
    blocks = _block_medians(measurement)
    median, p90 = np.percentile(samples, (50, 90))
    if len(samples) < _FEW_SAMPLES:
        found.append(f"only {len(samples)} samples, fewer than {_FEW_SAMPLES}: measure for longer")
    if len(blocks) < _FEW_BLOCKS:
        found.append(f"only {len(blocks)} blocks, fewer than {_FEW_BLOCKS}: do not trust the interval")
    third = max(1, len(blocks) // 3)
    drift = float(np.median(blocks[-third:]) / np.median(blocks[:third])) - 1
    if abs(drift) > _DRIFT:
        found.append(f"the last third differs from the first by {drift:+.0%}: the machine was not steady")
    if p90 > _SPREAD * median:
        found.append(f"p90 is {p90 / median:.1f} times the median: the machine was not left alone")
    if median < _SHORT_S:
        found.append(f"the median is under {_SHORT_S * 1e6:.0f} µs: the timer's own cost shows; try a larger batch")
    return tuple(found)


def _block_medians(measurement: Measurement) -> _Array:
    return np.array([np.median(block) for block in measurement.blocks])


def _estimate(statistic: Callable[[NDArray[np.intp]], float], blocks: int) -> Estimate:
    """``statistic`` of all blocks, and its percentile interval over blocks drawn with replacement."""
    draws = np.random.default_rng(0).integers(0, blocks, (_RESAMPLES, blocks))
    low, high = np.percentile([statistic(drawn) for drawn in draws], (2.5, 97.5))
    return Estimate(value=statistic(np.arange(blocks)), low=float(low), high=float(high))
