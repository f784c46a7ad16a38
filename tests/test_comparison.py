"""A row beside the float baseline: ratios, paired and unpaired accuracy, and what happens where something is absent."""

from pathlib import Path

import numpy as np
import pytest
from times import in_ns

from edgecnn.data import DataSet, Split
from edgecnn.errors import ConfigError, RecordError
from edgecnn.measure.comparison import (
    accuracy_difference,
    answers_of,
    best_batch,
    check_fits,
    compare,
    credits_of,
    fits,
    images_per_s,
    paired_interval,
    time_ratio,
    unpaired_interval,
)
from edgecnn.measure.statistics import summary
from edgecnn.records import (
    SCHEMA_VERSION,
    Accuracy,
    Answers,
    Artifact,
    Baseline,
    Environment,
    Measurement,
    Preprocessing,
    Result,
    TensorSpec,
    from_json,
    to_json,
)

SPEC = TensorSpec(name="x", shape=(None, 4), dtype="float32", layout="NC")


def split(images: int, seed: int = 0) -> Split:
    generator = np.random.default_rng(seed)
    raw = generator.integers(0, 256, (images, 4, 4, 1)).astype(np.uint8)
    return Split(raw, generator.integers(0, 10, images).astype(np.int64))


def answers(pattern: np.ndarray, where: Split) -> Answers:
    """Right where ``pattern`` is true."""
    names, preprocessing = tuple("abcdefghijkl"), Preprocessing(scale=1, offset=0, input_range=(0, 255))
    outputs = np.eye(len(names), dtype=np.float32)[np.where(pattern, where.labels, where.labels + 1)]
    return answers_of(outputs, DataSet("random", where, where, names, preprocessing, ""))


def machine(name: str, cores: int = 4) -> Environment:
    return Environment(
        machine=name,
        system="Linux",
        cpu=None,
        cpu_features=(),
        cores=cores,
        usable_cores=cores,
        memory_bytes=None,
        governor=None,
        load_1min=None,
        python="3.12",
        versions={},
    )


def measurement(time_s: float, batch: int = 1, *, copies_s: float | None = None, threads: int = 1) -> Measurement:
    return Measurement(
        artifact="m",
        artifact_sha256="00",
        runtime="r",
        device="cpu",
        threads=threads,
        batch=batch,
        load_s=0.1,
        warmup_ns=(),
        blocks_ns=in_ns([[time_s] * 5] * 12),
        end_to_end_ns=() if copies_s is None else in_ns([[copies_s] * 5] * 12),
    )


def row(measured: Measurement, accuracy: Accuracy | None = None, found: Answers | None = None) -> Result:
    artifact = Artifact(
        file="m.tflite", format="tflite", scheme="int8", input=SPEC, output=SPEC, sha256="00", size_bytes=1
    )
    return Result(artifact=artifact, measurement=measured, accuracy=accuracy, answers=found)


def baseline(measured: Measurement, *throughput: Measurement, **more: object) -> Baseline:
    fields = {"accuracy": None, "environment": machine("gpu machine"), **more}
    return Baseline(
        schema_version=SCHEMA_VERSION,
        model="m.keras",
        model_sha256="11",
        backend="jax",
        device="gpu: A",
        measurement=measured,
        throughput=throughput,
        **fields,  # type: ignore[arg-type]
    )


# ---- the same model


@pytest.mark.parametrize(
    ("weights", "architecture", "of_baseline", "fitting"),
    [
        ("11", None, None, True),
        ("11", "aa", "bb", True),  # the very file
        ("22", "aa", "aa", True),  # trained anew
        ("22", "aa", "bb", False),
        ("22", None, "aa", False),
        ("22", "aa", None, False),
        (None, "aa", "bb", False),
        (None, "aa", None, True),  # nothing speaks against it
        (None, None, "aa", True),
    ],
)
def test_a_baseline_fits_models_of_its_layers_and_shapes(
    weights: str | None, architecture: str | None, of_baseline: str | None, fitting: bool
) -> None:
    recorded = baseline(measurement(1e-4), architecture=of_baseline)
    assert fits(recorded, weights, architecture) == fitting
    if fitting:
        check_fits(Path("b.json"), recorded, {"x.tflite": ("22", "cc"), "m.tflite": (weights, architecture)})
    else:
        with pytest.raises(ConfigError, match=r"^b\.json is a baseline of m\.keras .* not the model of m\.tflite"):
            check_fits(Path("b.json"), recorded, {"m.tflite": (weights, architecture)})


def test_a_baseline_that_does_not_fit_names_both_models() -> None:
    with pytest.raises(ConfigError) as refused:
        check_fits(Path("b.json"), baseline(measurement(1e-4), architecture="a" * 64), {"x.keras": ("22", "b" * 64)})
    assert "m.keras (architecture aaaaaaaaaaaa)" in str(refused.value)
    assert "x.keras (architecture bbbbbbbbbbbb)" in str(refused.value)


def test_accuracy_is_paired_with_the_same_weights_only() -> None:
    where, pattern = split(100), np.arange(100) >= 10
    counted, found = Accuracy(correct=90, total=100), answers(pattern, where)
    recorded = baseline(measurement(1e-4), accuracy=counted, answers=found, architecture="aa")
    own = row(measurement(1e-4), counted, found)
    for weights, paired in (("11", True), ("22", False)):
        artifact = own.artifact.replace(format="keras", sha256=weights, architecture="aa")
        difference = compare(own.replace(artifact=artifact), recorded, machine("here")).accuracy
        assert difference is not None
        assert (difference.paired, difference.value) == (paired, 0)
        assert difference.note == (None if paired else "not paired: the baseline has different weights")


# ---- answers


@pytest.mark.parametrize("images", [1, 7, 8, 9, 1000])
def test_answers_come_back_image_by_image(images: int) -> None:
    where = split(images)
    pattern = np.random.default_rng(1).random(images) < 0.5
    found = answers(pattern, where)
    assert (credits_of(from_json(to_json(found), Answers, "memory")) == pattern).all()
    assert found.total == images


def test_answers_to_ten_thousand_images_are_small() -> None:
    assert len(answers(np.ones(10_000, bool), split(10_000)).right) == 1668  # 1,250 bytes in base64


def test_answers_know_their_images() -> None:
    where = split(20)
    same = answers(np.ones(20, bool), where).images_sha256
    assert answers(np.zeros(20, bool), split(20)).images_sha256 == same
    pixel, label = where.images.copy(), where.labels.copy()
    pixel[19, 3, 3, 0] ^= 1
    label[0] += 1
    for other in (Split(pixel, where.labels), Split(where.images, label), split(20, seed=1)):
        assert answers(np.ones(20, bool), other).images_sha256 != same
    assert answers(np.ones(20, bool), Split(where.images[::-1], where.labels[::-1])).images_sha256 != same


@pytest.mark.parametrize(
    ("damaged", "message"),
    [("####", "answers are not base64"), ("AAAA", "answers have 3 bytes, 30 images need 4")],
)
def test_damaged_answers_are_refused(damaged: str, message: str) -> None:
    with pytest.raises(RecordError, match=message):
        credits_of(Answers(total=30, right=damaged, images_sha256="00"))


# ---- intervals


def test_paired_interval_by_hand() -> None:
    """1 gained, 5 lost of 20 is (2 - 6) / 22 ± 1.96 * sqrt((8 / 22 - (4 / 22)²) / 22)."""
    low, high = paired_interval(1, 5, 20)
    half = 1.959964 * ((8 / 22 - (4 / 22) ** 2) / 22) ** 0.5
    assert (low, high) == (pytest.approx(-4 / 22 - half, abs=1e-6), pytest.approx(-4 / 22 + half, abs=1e-6))


def test_unpaired_interval_of_published_data() -> None:
    """Newcombe (1998), table II, method 10: 56/70 against 48/80 is 0.2, from 0.0524 to 0.3339."""
    low, high = unpaired_interval(Accuracy(correct=56, total=70), Accuracy(correct=48, total=80))
    assert (low, high) == (pytest.approx(0.0524, abs=5e-5), pytest.approx(0.3339, abs=5e-5))


@pytest.mark.parametrize(("gain", "loss"), [(0.002, 0.002), (0.001, 0.006), (0.0, 0.0), (0.05, 0.01)])
def test_paired_interval_holds_the_truth(gain: float, loss: float) -> None:
    """In 2,000 samples of 2,000 images the 95 % interval has the true difference in at least 93.5 %."""
    drawn = np.random.default_rng(0).multinomial(2000, [gain, loss, 1 - gain - loss], 2000)
    held = [low <= gain - loss <= high for low, high in (paired_interval(int(g), int(x), 2000) for g, x, _ in drawn)]
    assert np.mean(held) >= 0.935


def test_pairing_tells_apart_what_counts_alone_cannot() -> None:
    where, pattern = split(10_000), np.ones(10_000, bool)
    pattern[:100] = False  # 99 %
    better = pattern.copy()
    better[:20] = True  # 20 gained, none lost
    own, other = Accuracy(correct=9920, total=10_000), Accuracy(correct=9900, total=10_000)
    paired = accuracy_difference(own, answers(better, where), other, answers(pattern, where))
    assert (paired.paired, paired.gained, paired.lost, paired.value) == (True, 20, 0, pytest.approx(0.2))
    assert paired.is_difference
    assert paired.low <= paired.value <= paired.high

    elsewhere = answers(pattern, split(10_000, seed=1))
    unpaired = accuracy_difference(own, answers(better, where), other, elsewhere)
    assert not unpaired.paired
    assert not unpaired.is_difference
    assert unpaired.note == "not paired: the test images differ"
    assert (unpaired.gained, unpaired.lost) == (None, None)
    assert unpaired.high - unpaired.low > 2 * (paired.high - paired.low)
    for found, reference, who in ((None, elsewhere, "this row's file"), (elsewhere, None, "the baseline's file")):
        note = accuracy_difference(own, found, other, reference).note
        assert note == f"not paired: {who} does not store which images were right"


def test_equal_answers_are_no_difference() -> None:
    where, pattern = split(1000), np.arange(1000) % 10 > 0
    found, counted = answers(pattern, where), Accuracy(correct=900, total=1000)
    same = accuracy_difference(counted, found, counted, found)
    assert (same.value, same.gained, same.lost, same.is_difference) == (0.0, 0, 0, False)
    assert same.low < 0 < same.high


# ---- ratios


def noisy(middle: float, seed: int) -> Measurement:
    """Five processes of ten blocks, each process and each block with a luck of its own."""
    generator = np.random.default_rng(seed)
    processes = np.repeat(generator.lognormal(0, 0.02, 5), 10)
    blocks = tuple(
        tuple(middle * process * generator.lognormal(0, 0.01) * generator.lognormal(0, 0.02, 30))
        for process in processes
    )
    return measurement(1.0).replace(blocks_ns=in_ns(blocks), blocks_per_process=(10,) * 5)


def test_ratio_intervals_hold_the_truth() -> None:
    held = 0
    for seed in range(40):
        found = time_ratio(summary(noisy(3e-5, 2 * seed)), summary(noisy(1e-5, 2 * seed + 1)))
        assert found.low < found.value < found.high
        assert found.high / found.low < 1.2
        held += found.low <= 3 <= found.high
    assert held >= 34  # 38 are expected


def test_images_per_second_are_those_at_the_median() -> None:
    measured = measurement(0.5, 8, copies_s=2.0).replace(blocks_ns=in_ns([[0.5, 0.5, 100.0]] * 12))
    assert images_per_s(measured) == 16
    assert images_per_s(measured, with_copies=True) == 4


# ---- a row beside a baseline


def test_a_row_beside_a_baseline() -> None:
    where, pattern = split(100), np.arange(100) >= 10
    counted = Accuracy(correct=90, total=100)
    recorded = baseline(
        measurement(1e-4, copies_s=2e-4),
        measurement(1e-3, 64, copies_s=4e-3),
        measurement(1e-3, 256, copies_s=32e-3),
        accuracy=counted,
        answers=answers(pattern, where),
    )
    measured = measurement(3e-4, copies_s=8e-4, threads=2)
    found = compare(row(measured, counted, answers(pattern[::-1], where)), recorded, machine("here"))
    assert found.latency is not None
    assert found.latency.value == pytest.approx(3)
    assert found.latency_with_copies is not None
    assert found.latency_with_copies.value == pytest.approx(4)
    assert (found.best_batch, best_batch(recorded).batch) == (256, 256)
    assert found.throughput is not None
    assert found.throughput.value == pytest.approx((1 / 3e-4) / 256e3)
    assert found.throughput_with_copies is not None  # with copies, 64 is the best batch
    assert found.throughput_with_copies.value == pytest.approx((1 / 8e-4) / 16e3)
    assert found.images_per_s == pytest.approx(1 / 3e-4)
    assert found.images_per_s_per_core == pytest.approx(1 / 3e-4 / 2)
    assert found.accuracy is not None
    assert (found.accuracy.gained, found.accuracy.lost, found.accuracy.paired) == (10, 10, True)
    assert (found.here, found.machine, found.device, found.absent) == (False, "gpu machine", "gpu: A", {})
    assert compare(row(measured), recorded, machine("gpu machine")).here


def test_the_same_batch_is_compared_or_none() -> None:
    recorded = baseline(measurement(1e-4), measurement(1e-3, 64))
    assert compare(row(measurement(5e-3, 64)), recorded, machine("here")).latency.value == pytest.approx(5)  # type: ignore[union-attr]
    found = compare(row(measurement(5e-3, 8)), recorded, machine("here"))
    assert found.latency is None
    assert found.absent["latency"] == "the baseline has no measurement of batch 8"
    assert found.throughput is not None


def test_what_is_absent_has_a_reason() -> None:
    found = compare(row(measurement(1e-3)), baseline(measurement(1e-4, copies_s=1e-3)), machine("here"))
    assert found.absent == {
        "latency_with_copies": "this row was not timed end to end",
        "throughput_with_copies": "this row was not timed end to end",
        "accuracy": "the accuracy of this row was not counted",
    }
    counted = row(measurement(1e-3, copies_s=1e-3), Accuracy(correct=1, total=2))
    found = compare(counted, baseline(measurement(1e-4)), machine("here"))
    assert found.absent == {
        "latency_with_copies": "the baseline was not timed end to end",
        "throughput_with_copies": "the baseline was not timed end to end",
        "accuracy": "the accuracy of the baseline was not counted",
    }


def test_threads_left_to_the_runtime_count_all_usable_cores() -> None:
    found = compare(row(measurement(1e-3, threads=0)), baseline(measurement(1e-4)), machine("here", cores=8))
    assert found.images_per_s_per_core == pytest.approx(1000 / 8)
