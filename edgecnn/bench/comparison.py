"""A row beside the float baseline: time ÷ time, images per second ÷ images per second, accuracy − accuracy.

A baseline is recorded in another run, mostly on another machine. Nothing of it shares a round with the rows, so
the interval of a ratio is made of those of the two sides. Times depend on the layers and their shapes, so they are
compared where these are the same, whatever the weights. Accuracy depends on the weights: where these are the same too,
and it was counted on the same images, the difference is paired: only images that one side gets right and the other
wrong tell them apart.
"""

import base64
import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from edgecnn.bench.statistics import end_to_end, summary
from edgecnn.data.dataset import Split
from edgecnn.errors import ConfigError
from edgecnn.records import Accuracy, Answers, Baseline, Environment, Estimate, Measurement, Record, Result, Summary

_CLOCK_S = 1e-9  # the clock's unit, where nothing was measured to take less


class AccuracyDifference(Record, frozen=True):
    """Accuracy minus the baseline's, in percentage points, with the ends of its 95 % interval.

    ``paired`` where both sides answered the same images: ``gained`` of them only the row got right, ``lost`` only the
    baseline. Where not, ``note`` says why.
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
    """A row beside a baseline. ``absent`` gives, for each field that is ``None``, the reason.

    ``latency`` is the row's time divided by the baseline's for the same batch, the model alone: below 1 the row is
    faster. ``latency_with_copies`` is the same end to end: encode, invoke, decode against host to device, model,
    device to host. ``throughput`` is the row's images per second divided by those of the baseline's best batch,
    ``best_batch``: above 1 the row is faster; ``throughput_with_copies`` end to end, against the best batch of those.
    Images per second are those at the median time; ``images_per_s`` are the row's, ``images_per_s_per_core`` divided
    by the threads it ran on (all usable cores, where the number was left to the runtime).
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
    """Whether the model of ``baseline`` has the same layers and shapes as that with this SHA-256 and architecture.

    Where nothing is known of the other model it counts as the same.
    """
    if weights == baseline.model_sha256:
        return True
    if architecture is not None and baseline.architecture is not None:
        return architecture == baseline.architecture
    return weights is None


def check_fits(path: Path, baseline: Baseline, models: Mapping[str, tuple[str | None, str | None]]) -> None:
    """Check that the baseline read from ``path`` fits one of ``models``, by name SHA-256 and architecture.

    Raises:
        ConfigError: it does not.
    """
    if not any(fits(baseline, *model) for model in models.values()):
        theirs = ", ".join(_said(name, architecture) for name, (_, architecture) in models.items())
        raise ConfigError(
            f"{path} is a baseline of {_said(baseline.model, baseline.architecture)}, which is not the model of "
            f"{theirs}: layers or shapes differ; record one of this model with `edgecnn baseline`"
        )


def _said(name: str, architecture: str | None) -> str:
    return f"{name} (architecture {architecture[:12] if architecture else 'not known'})"


def compare(row: Result, baseline: Baseline, machine: Environment) -> Comparison:
    """Put ``row``, measured on ``machine``, beside ``baseline``, whose model ``fits`` the row's."""
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
            accuracy = unpaired_difference(row.accuracy, baseline.accuracy, "the baseline has other weights")

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
    """Median over median of two runs that share no rounds: below 1 is faster than ``reference``.

    Both intervals are symmetric on the logarithm of the time, where the two sides' half-widths add as squares.
    """
    middle, other = (max(one.median, _CLOCK_S) for one in (time, reference))
    half = math.hypot(math.log(max(time.high, middle) / middle), math.log(max(reference.high, other) / other))
    value, wide = middle / other, math.exp(half)
    return Estimate(value=value, low=value / wide, high=value * wide)


def images_per_s(measurement: Measurement, *, with_copies: bool = False) -> float:
    """Images per second at the median time, of the model alone or end to end."""
    times = end_to_end(measurement) if with_copies else summary(measurement)
    assert times is not None  # with copies is asked of what was timed with them
    return measurement.batch / max(times.median, _CLOCK_S)


def best_batch(baseline: Baseline, *, with_copies: bool = False) -> Measurement:
    """The measurement of ``baseline`` with the most images per second, whatever its batch."""
    measured = [one for one in (baseline.measurement, *baseline.throughput) if end_to_end(one) or not with_copies]
    return max(measured, key=lambda one: images_per_s(one, with_copies=with_copies))


def _throughput_ratio(own: Summary, batch: int, other: Summary, other_batch: int) -> Estimate:
    """Images per second over images per second: above 1 is faster."""
    time = time_ratio(other, own)
    scale = batch / other_batch
    return Estimate(value=time.value * scale, low=time.low * scale, high=time.high * scale)


# Accuracy


def answers_of(top: NDArray[np.intp], split: Split) -> Answers:
    """Which of the images of ``split`` have their label as top class; ``top`` ``(n,)`` are the classes found."""
    images, labels = split.images, split.labels
    digest = hashlib.sha256(json.dumps([images.dtype.name, images.shape]).encode())
    for array in (images, labels):
        digest.update(np.ascontiguousarray(array, array.dtype.newbyteorder("<")).data)
    return Answers(
        total=len(labels),
        right=base64.b64encode(np.packbits(top == labels).tobytes()).decode(),
        images_sha256=digest.hexdigest(),
    )


def right(answers: Answers) -> NDArray[np.bool_]:
    """For each image ``(total,)`` whether it was classified right."""
    packed = np.frombuffer(base64.b64decode(answers.right), np.uint8)
    return np.unpackbits(packed, count=answers.total).astype(bool)


def accuracy_difference(
    accuracy: Accuracy, answers: Answers | None, reference: Accuracy, reference_answers: Answers | None
) -> AccuracyDifference:
    """Accuracy minus the reference's in percentage points, paired where both answered the same images.

    Paired: adjusted Wald interval of Bonett and Price, Journal of Educational and Behavioral Statistics 37 (2012).
    Unpaired: hybrid score interval of Newcombe, Statistics in Medicine 17 (1998) 873, method 10.
    """
    if answers is None or reference_answers is None:
        who = "this row's file" if answers is None else "the baseline's file"
        return unpaired_difference(accuracy, reference, f"{who} does not say which images were right")
    if (answers.images_sha256, answers.total) != (reference_answers.images_sha256, reference_answers.total):
        return unpaired_difference(accuracy, reference, "the two were counted on different images")
    own, other = right(answers), right(reference_answers)
    gained, lost = int((own & ~other).sum()), int((other & ~own).sum())
    low, high = paired_interval(gained, lost, answers.total)
    value = 100 * (gained - lost) / answers.total
    return AccuracyDifference(value=value, low=100 * low, high=100 * high, paired=True, gained=gained, lost=lost)


def unpaired_difference(accuracy: Accuracy, reference: Accuracy, why: str) -> AccuracyDifference:
    """Accuracy minus the reference's in percentage points, as of different images; ``why`` they are not paired."""
    low, high = unpaired_interval(accuracy, reference)
    value = 100 * (accuracy.value - reference.value)
    return AccuracyDifference(value=value, low=100 * low, high=100 * high, paired=False, note=f"not paired: {why}")


def paired_interval(gained: int, lost: int, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """Interval of ``(gained - lost) / total``, a difference of two shares of the same ``total`` images."""
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    up, down, images = (gained + 1) / (total + 2), (lost + 1) / (total + 2), total + 2
    middle, half = up - down, z * math.sqrt((up + down - (up - down) ** 2) / images)
    return max(-1.0, middle - half), min(1.0, middle + half)


def unpaired_interval(accuracy: Accuracy, reference: Accuracy) -> tuple[float, float]:
    """95 % interval of a difference of two shares of different images."""
    (low, high), (reference_low, reference_high) = accuracy.interval, reference.interval
    apart = accuracy.value - reference.value
    return (
        apart - math.hypot(accuracy.value - low, reference_high - reference.value),
        apart + math.hypot(high - accuracy.value, reference.value - reference_low),
    )
