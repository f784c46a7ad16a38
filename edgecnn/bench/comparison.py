"""A row beside the float baseline: time ÷ time, images per second ÷ images per second, accuracy − accuracy.

A baseline is recorded in another run, mostly on another machine. Nothing of it shares a round with the rows, so
the intervals of ratios draw the blocks of the two sides apart. Accuracy was counted on images, and where these are
the same ones, the difference is paired: only images that one side gets right and the other wrong tell them apart.
"""

import base64
import binascii
import hashlib
import json
import math
from collections.abc import Callable, Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from edgecnn.bench.statistics import Estimate
from edgecnn.data.dataset import Split
from edgecnn.errors import RecordError
from edgecnn.records import Accuracy, Answers, Baseline, Environment, Measurement, Record, Result

_RESAMPLES = 1000

Blocks = Sequence[Sequence[float]]
"""Samples in seconds, block by block."""


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
    ``images_per_s`` are the row's, ``images_per_s_per_core`` divided by the threads it ran on (all usable cores, where
    the number was left to the runtime).
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


def compare(row: Result, baseline: Baseline, machine: Environment) -> Comparison:
    """Put ``row``, measured on ``machine``, beside ``baseline``, which must be of the same model.

    Raises:
        RecordError: the answers of one side do not fit their own number of images.
    """
    measured = row.measurement
    absent: dict[str, str] = {}
    recorded = (baseline.measurement, *baseline.throughput)
    best = _fastest(recorded, "blocks")
    latency = latency_with_copies = throughput_with_copies = accuracy = None

    same = next((one for one in recorded if one.batch == measured.batch), None)
    if same is None:
        absent["latency"] = absent["latency_with_copies"] = f"the baseline has no measurement of batch {measured.batch}"
    else:
        latency = time_ratio(measured.blocks, same.blocks)
        if measured.end_to_end and same.end_to_end:
            latency_with_copies = time_ratio(measured.end_to_end, same.end_to_end)
        else:
            absent["latency_with_copies"] = _no_copies(measured)

    with_copies = [one for one in recorded if one.end_to_end]
    if measured.end_to_end and with_copies:
        best_with_copies = _fastest(with_copies, "end_to_end")
        throughput_with_copies = throughput_ratio(
            measured.end_to_end, measured.batch, best_with_copies.end_to_end, best_with_copies.batch
        )
    else:
        absent["throughput_with_copies"] = _no_copies(measured)

    if row.accuracy is None or baseline.accuracy is None:
        who = "this row" if row.accuracy is None else "the baseline"
        absent["accuracy"] = f"the accuracy of {who} was not counted"
    else:
        accuracy = accuracy_difference(row.accuracy, row.answers, baseline.accuracy, baseline.answers)

    images_per_s = throughput(measured.blocks, measured.batch)
    return Comparison(
        baseline=baseline.model,
        device=baseline.device,
        machine=baseline.environment.machine,
        here=baseline.environment.machine == machine.machine,
        images_per_s=images_per_s,
        images_per_s_per_core=images_per_s / (measured.threads or machine.usable_cores),
        best_batch=best.batch,
        latency=latency,
        latency_with_copies=latency_with_copies,
        throughput=throughput_ratio(measured.blocks, measured.batch, best.blocks, best.batch),
        throughput_with_copies=throughput_with_copies,
        accuracy=accuracy,
        absent=absent,
    )


def _no_copies(measured: Measurement) -> str:
    return f"{'the baseline' if measured.end_to_end else 'this row'} was not timed end to end"


# Times


def time_ratio(blocks: Blocks, reference: Blocks) -> Estimate:
    """Median over median of two runs that share no rounds: below 1 is faster than ``reference``.

    The interval is the percentile interval of 1,000 bootstrap ratios, whole blocks drawn on each side by itself.
    """
    return _ratio([np.array(block) for block in blocks], [np.array(block) for block in reference], np.median)


def throughput_ratio(blocks: Blocks, batch: int, reference: Blocks, reference_batch: int) -> Estimate:
    """Images per second over images per second: above 1 is faster than ``reference``. Interval as ``time_ratio``."""
    # per image and inverted: mean time of the reference over mean time of the row
    own = [np.array(block) / batch for block in blocks]
    other = [np.array(block) / reference_batch for block in reference]
    return _ratio(other, own, np.mean)


def throughput(blocks: Blocks, batch: int) -> float:
    """All images over all time measured, in images per second."""
    samples = np.concatenate([np.array(block) for block in blocks])
    return batch * len(samples) / float(samples.sum())


def best_batch(baseline: Baseline) -> Measurement:
    """The measurement of ``baseline``, of all its batches, with the most images per second on the device."""
    return _fastest((baseline.measurement, *baseline.throughput), "blocks")


def _fastest(measurements: Sequence[Measurement], samples: str) -> Measurement:
    return max(measurements, key=lambda one: throughput(getattr(one, samples), one.batch))


def _ratio(
    own: Sequence[NDArray[np.float64]],
    other: Sequence[NDArray[np.float64]],
    statistic: Callable[[NDArray[np.float64]], float],
) -> Estimate:
    generator = np.random.default_rng(0)

    def drawn(blocks: Sequence[NDArray[np.float64]]) -> float:
        chosen = generator.integers(0, len(blocks), len(blocks))
        return float(statistic(np.concatenate([blocks[index] for index in chosen])))

    ratios = [drawn(own) / drawn(other) for _ in range(_RESAMPLES)]
    low, high = np.percentile(ratios, (2.5, 97.5))
    value = float(statistic(np.concatenate(own))) / float(statistic(np.concatenate(other)))
    return Estimate(value=value, low=float(low), high=float(high))


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
    """For each image ``(total,)`` whether it was classified right.

    Raises:
        RecordError: the answers are not base64, or not of as many images as they say.
    """
    try:
        packed = np.frombuffer(base64.b64decode(answers.right, validate=True), np.uint8)
    except binascii.Error as error:
        raise RecordError(f"answers are not base64: {error}") from error
    if len(packed) != math.ceil(answers.total / 8):
        raise RecordError(
            f"answers hold {len(packed)} bytes, {answers.total} images need {math.ceil(answers.total / 8)}"
        )
    return np.unpackbits(packed, count=answers.total).astype(bool)


def accuracy_difference(
    accuracy: Accuracy, answers: Answers | None, reference: Accuracy, reference_answers: Answers | None
) -> AccuracyDifference:
    """Accuracy minus the reference's in percentage points, paired where both answered the same images.

    Paired: adjusted Wald interval of Bonett and Price, Journal of Educational and Behavioral Statistics 37 (2012).
    Unpaired: hybrid score interval of Newcombe, Statistics in Medicine 17 (1998) 873, method 10.

    Raises:
        RecordError: see ``right``.
    """
    value = 100 * (accuracy.value - reference.value)
    if answers is None or reference_answers is None:
        who = "this row's file" if answers is None else "the baseline's file"
        note = f"not paired: {who} does not say which images were right"
    elif answers.images_sha256 != reference_answers.images_sha256:
        note = "not paired: the two were counted on different images"
    else:
        own, other = right(answers), right(reference_answers)
        gained, lost = int((own & ~other).sum()), int((other & ~own).sum())
        low, high = paired_interval(gained, lost, answers.total)
        value = 100 * (gained - lost) / answers.total
        return AccuracyDifference(value=value, low=100 * low, high=100 * high, paired=True, gained=gained, lost=lost)
    low, high = unpaired_interval(accuracy, reference)
    return AccuracyDifference(value=value, low=100 * low, high=100 * high, paired=False, note=note)


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
