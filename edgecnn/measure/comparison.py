"""Comparison of a row with a float baseline: time ratio, throughput ratio, accuracy difference.

A baseline is recorded in another run, usually on another machine. It shares no rounds with the rows, so the interval
of a ratio combines the intervals of both sides. Times depend only on the layers and their shapes, so weights may differ
in time comparisons. Accuracy depends on the weights: if these are the same too, and both sides used the same images,
the difference is paired, which uses only the images that exactly one side classifies correctly.
"""

import base64
import math
from collections.abc import Mapping
from pathlib import Path
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from edgecnn.data import DataSet
from edgecnn.errors import ConfigError
from edgecnn.measure.statistics import end_to_end, summary
from edgecnn.records import Accuracy, Answers, Baseline, Environment, Estimate, Measurement, Record, Result, Summary
from edgecnn.tasks import Float, interval

_CLOCK_S = 1e-9  # the clock's unit, the lower bound of all times


class AccuracyDifference(Record, frozen=True):
    """Accuracy minus the baseline's, in percentage points, with the ends of its 95 % interval.

    If ``paired``, both sides classified the same images: ``gained`` is the number that the row answers better (of a
    classifier: that only the row classified correctly), ``lost`` that of the baseline. If not, ``note`` is the reason.
    """

    value: float
    low: float
    high: float
    paired: bool
    gained: int | None = None
    lost: int | None = None
    note: str | None = None

    @property
    def is_difference(self) -> bool:
        """Whether the interval excludes 0."""
        return not self.low <= 0 <= self.high


class Comparison(Record, frozen=True):
    """A row compared with a baseline. ``absent`` has the reason for each field that is ``None``.

    ``latency`` is the row's time ÷ the baseline's for the same batch, the model alone: below 1 the row is faster.
    ``latency_with_copies`` is the same end to end: encode, invoke, decode against host to device, model, device to
    host. ``throughput`` is the row's images per second ÷ those of the baseline's fastest batch, ``best_batch``: above 1
    the row is faster. ``throughput_with_copies`` is the same end to end, with the fastest batch end to end. Images per
    second are at the median time. ``images_per_s`` is the row's; ``images_per_s_per_core`` is divided by its threads
    (by all usable cores if the runtime chose the threads).
    """

    baseline: str
    device: str
    machine: str
    here: bool
    images_per_s: float
    images_per_s_per_core: float
    best_batch: int
    absent: dict[str, str]
    latency: Estimate | None = None
    latency_with_copies: Estimate | None = None
    throughput: Estimate | None = None
    throughput_with_copies: Estimate | None = None
    accuracy: AccuracyDifference | None = None


def fits(baseline: Baseline, weights: str | None, architecture: str | None) -> bool:
    """Whether the baseline's model has the same layers and shapes as the model with these SHA-256 and architecture.

    An unknown model (both ``None``) fits any baseline.
    """
    if weights == baseline.model_sha256:
        return True
    if architecture is not None and baseline.architecture is not None:
        return architecture == baseline.architecture
    return weights is None


def check_fits(path: Path, baseline: Baseline, models: Mapping[str, tuple[str | None, str | None]]) -> None:
    """Check that the baseline read from ``path`` fits one of ``models``: name to SHA-256 and architecture.

    Raises:
        ConfigError: it fits none of them.
    """
    if not any(fits(baseline, *model) for model in models.values()):
        measured = ", ".join(_described(name, architecture) for name, (_, architecture) in models.items())
        raise ConfigError(
            f"{path} is a baseline of {_described(baseline.model, baseline.architecture)}, which is not the model of "
            f"{measured}: layers or shapes differ; record one of this model with `edgecnn baseline`"
        )


def _described(name: str, architecture: str | None) -> str:
    return f"{name} (architecture {architecture[:12] if architecture else 'unknown'})"


def compare(row: Result, baseline: Baseline, machine: Environment) -> Comparison:
    """Compare ``row``, measured on ``machine``, with ``baseline``, whose model ``fits`` the row's."""
    measured = row.measurement
    absent: dict[str, str] = {}
    latency = latency_with_copies = throughput_with_copies = accuracy = None
    own, own_with_copies = summary(measured), end_to_end(measured)
    best = best_batch(baseline)
    throughput = _throughput_ratio(own, measured.batch, summary(best), best.batch)

    recorded = (baseline.measurement, *baseline.throughput)
    same = next((one for one in recorded if one.batch == measured.batch), None)
    if same is None:
        absent["latency"] = absent["latency_with_copies"] = f"the baseline has no measurement of batch {measured.batch}"
    else:
        latency = time_ratio(own, summary(same))

    if own_with_copies is None or end_to_end(baseline.measurement) is None:
        who = "this row" if own_with_copies is None else "the baseline"
        absent["throughput_with_copies"] = f"{who} was not timed end to end"
        absent.setdefault("latency_with_copies", absent["throughput_with_copies"])
    else:
        best_whole = best_batch(baseline, with_copies=True)
        whole = end_to_end(best_whole)
        assert whole is not None
        throughput_with_copies = _throughput_ratio(own_with_copies, measured.batch, whole, best_whole.batch)
        same_whole = None if same is None else end_to_end(same)
        if same_whole is not None:
            latency_with_copies = time_ratio(own_with_copies, same_whole)
        else:
            absent.setdefault("latency_with_copies", f"the baseline's batch {measured.batch} was not timed end to end")

    if row.accuracy is None or baseline.accuracy is None:
        who = "this row" if row.accuracy is None else "the baseline"
        absent["accuracy"] = f"the accuracy of {who} was not counted"
    else:
        if row.artifact.float_model[0] in (None, baseline.model_sha256):
            accuracy = accuracy_difference(row.accuracy, row.answers, baseline.accuracy, baseline.answers)
        else:
            accuracy = unpaired_difference(row.accuracy, baseline.accuracy, "the baseline has different weights")

    rate = images_per_s(measured)
    return Comparison(
        baseline=baseline.model,
        device=baseline.device,
        machine=baseline.environment.machine,
        here=baseline.environment.machine == machine.machine,
        images_per_s=rate,
        images_per_s_per_core=rate / (measured.threads or machine.usable_cores),
        best_batch=best.batch,
        latency=latency,
        latency_with_copies=latency_with_copies,
        throughput=throughput,
        throughput_with_copies=throughput_with_copies,
        accuracy=accuracy,
        absent=absent,
    )


# Times


def time_ratio(time: Summary, reference: Summary) -> Estimate:
    """Median ÷ median of two runs that share no rounds: below 1 is faster than ``reference``.

    Both intervals are symmetric in the logarithm of the time; their half-widths there add in quadrature.
    """
    middle, other = (max(one.median, _CLOCK_S) for one in (time, reference))
    half = math.hypot(math.log(max(time.high, middle) / middle), math.log(max(reference.high, other) / other))
    value, wide = middle / other, math.exp(half)
    return Estimate(value=value, low=value / wide, high=value * wide)


def images_per_s(measurement: Measurement, *, with_copies: bool = False) -> float:
    """Images per second at the median time, of the model alone or end to end."""
    times = end_to_end(measurement) if with_copies else summary(measurement)
    assert times is not None  # with_copies requires a measurement that was timed end to end
    return measurement.batch / max(times.median, _CLOCK_S)


def best_batch(baseline: Baseline, *, with_copies: bool = False) -> Measurement:
    """The measurement of ``baseline`` with the most images per second, of all batches."""
    measured = [one for one in (baseline.measurement, *baseline.throughput) if end_to_end(one) or not with_copies]
    return max(measured, key=lambda one: images_per_s(one, with_copies=with_copies))


def _throughput_ratio(own: Summary, batch: int, other: Summary, other_batch: int) -> Estimate:
    """Images per second ÷ images per second: above 1 is faster."""
    time = time_ratio(other, own)
    scale = batch / other_batch
    return Estimate(value=time.value * scale, low=time.low * scale, high=time.high * scale)


# Accuracy


def answers_of(outputs: Float, data: DataSet) -> Answers:
    """How good ``outputs`` ``(n, values)`` for the test samples of ``data`` are, sample by sample."""
    scoring = data.scoring()
    credits = scoring.credits(outputs)
    if scoring.counts:
        stored = {"right": base64.b64encode(np.packbits(credits == 1).tobytes()).decode()}
    else:
        stored = {"credits": base64.b64encode(credits.astype("<f4").tobytes()).decode()}
    return Answers(total=len(data.test.labels), images_sha256=data.test_sha256, **stored)


def credits_of(answers: Answers) -> NDArray[np.float64]:
    """The credit of each sample, ``(total,)``: 0 or 1 if answers are right or wrong."""
    if answers.credits is not None:
        return np.frombuffer(base64.b64decode(answers.credits), "<f4").astype(np.float64)
    packed = np.frombuffer(base64.b64decode(answers.right or ""), np.uint8)
    return np.unpackbits(packed, count=answers.total).astype(np.float64)


def accuracy_difference(
    accuracy: Accuracy, answers: Answers | None, reference: Accuracy, reference_answers: Answers | None
) -> AccuracyDifference:
    """Accuracy minus the reference's in percentage points, paired if both classified the same images.

    Paired: adjusted Wald interval of Bonett and Price, Journal of Educational and Behavioral Statistics 37 (2012), for
    right and wrong answers; bootstrap interval of the mean difference for credits. Unpaired: hybrid score interval of
    Newcombe, Statistics in Medicine 17 (1998) 873, method 10.
    """
    if answers is None or reference_answers is None:
        who = "this row's file" if answers is None else "the baseline's file"
        return unpaired_difference(accuracy, reference, f"{who} does not store which images were right")
    if (answers.images_sha256, answers.total) != (reference_answers.images_sha256, reference_answers.total):
        return unpaired_difference(accuracy, reference, "the test images differ")
    change = credits_of(answers) - credits_of(reference_answers)
    gained, lost = int((change > 0).sum()), int((change < 0).sum())
    counted = answers.credits is None
    low, high = paired_interval(gained, lost, answers.total) if counted else interval(change)
    value = 100 * (gained - lost) / answers.total if counted else 100 * (accuracy.value - reference.value)
    return AccuracyDifference(value=value, low=100 * low, high=100 * high, paired=True, gained=gained, lost=lost)


def unpaired_difference(accuracy: Accuracy, reference: Accuracy, why: str) -> AccuracyDifference:
    """Accuracy minus the reference's in percentage points, unpaired; ``why`` is the reason."""
    low, high = unpaired_interval(accuracy, reference)
    value = 100 * (accuracy.value - reference.value)
    return AccuracyDifference(value=value, low=100 * low, high=100 * high, paired=False, note=f"not paired: {why}")


def paired_interval(gained: int, lost: int, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """Interval of ``(gained - lost) / total``, the difference of two shares of the same ``total`` images."""
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    up, down, images = (gained + 1) / (total + 2), (lost + 1) / (total + 2), total + 2
    middle, half = up - down, z * math.sqrt((up + down - (up - down) ** 2) / images)
    return max(-1.0, middle - half), min(1.0, middle + half)


def unpaired_interval(accuracy: Accuracy, reference: Accuracy) -> tuple[float, float]:
    """95 % interval of the difference of two shares of different images."""
    (low, high), (reference_low, reference_high) = accuracy.interval, reference.interval
    difference = accuracy.value - reference.value
    return (
        difference - math.hypot(accuracy.value - low, reference_high - reference.value),
        difference + math.hypot(high - accuracy.value, reference.value - reference_low),
    )
