"""Every task: how outputs are scored, and a small model of it through every file."""

import contextlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecnn.artifacts import load as load_artifact
from edgecnn.config import RunConfig
from edgecnn.data import DataSet, load
from edgecnn.data.dataset import make_dataset
from edgecnn.data.demo import DEMOS
from edgecnn.errors import DataError, ModelError
from edgecnn.formats import FORMATS, export_file, pairs, provenance_of
from edgecnn.formats.source import Source
from edgecnn.models import build_model, data_for, losses_for, save_model
from edgecnn.pipeline import run
from edgecnn.quantization import qat
from edgecnn.quantization.engines import check_accuracy
from edgecnn.quantization.schemes import SCHEMES
from edgecnn.records import Accuracy, TaskName
from edgecnn.runtimes import open_session, predict
from edgecnn.tasks import Scoring, interval
from edgecnn.training import train
from edgecnn.verification import verify

pytestmark = pytest.mark.slow

L = keras.layers
DRAW = np.random.default_rng


# Scores


def test_one_output_is_decided_at_a_half_or_at_zero() -> None:
    scoring = Scoring("classification", np.array([0, 1, 1, 0]), 2)
    probabilities, logits = np.float32([[0.2], [0.8], [0.4], [0.6]]), np.float32([[-3], [0.3], [-0.1], [4]])
    for outputs in (probabilities, logits):
        assert scoring.score(outputs).correct == 2
        assert np.array_equal(scoring.decisions(outputs), [[0], [1], [0], [1]])


def test_the_first_of_equal_classes_counts() -> None:
    scoring = Scoring("classification", np.array([0, 1]), 2)
    assert scoring.score(np.ones((2, 2), np.float32)) == Accuracy(correct=1, total=2)


def test_top_5_is_counted_from_20_classes() -> None:
    outputs = np.tile(np.arange(20, dtype=np.float32), (4, 1))
    found = Scoring("classification", np.array([19, 15, 14, 0]), 20).score(outputs)
    assert (found.correct, dict(found.more)) == (1, {"top-5 accuracy": 0.5})
    assert Scoring("classification", np.array([18]), 19).score(outputs[:1, :19]).more == ()


def test_labels_count_one_by_one() -> None:
    scoring = Scoring("multilabel", np.array([[0, 1, 1], [1, 0, 0]]))
    found = scoring.score(np.float32([[0.1, 0.9, 0.2], [0.7, 0.1, 0.4]]))
    assert (found.metric, found.value, found.total) == ("label accuracy", pytest.approx(5 / 6), 2)
    assert dict(found.more) == {"AUC": pytest.approx(1 / 3 + 1 / 3)}  # the third label is ranked the wrong way
    low, high = found.interval
    assert low <= found.value <= high


@given(st.integers(1, 6), st.integers(2, 4), st.integers(0, 2**32 - 1))
def test_miou_is_that_of_all_pixels(images: int, classes: int, seed: int) -> None:
    draw = DRAW(seed)
    labels, found = (draw.integers(0, classes, (images, 5, 4)) for _ in range(2))
    scoring = Scoring("segmentation", labels, classes)
    outputs = np.eye(classes, dtype=np.float32)[found].reshape(images, -1)
    overlaps = [
        ((labels == one) & (found == one)).sum() / ((labels == one) | (found == one)).sum()
        for one in range(classes)
        if ((labels == one) | (found == one)).any()
    ]
    score = scoring.score(outputs)
    assert score.value == pytest.approx(np.mean(overlaps))
    assert dict(score.more) == {"pixel accuracy": pytest.approx((labels == found).mean())}


@given(st.integers(2, 30), st.integers(0, 2**32 - 1))
def test_auc_is_the_share_of_pairs_in_order(samples: int, seed: int) -> None:
    draw = DRAW(seed)
    inputs = draw.integers(0, 3, (samples, 2)).astype(np.float32)  # few values, so that there are ties
    outputs = draw.integers(0, 3, (samples, 2)).astype(np.float32)
    anomalies = np.arange(samples) % 2
    errors = ((outputs - inputs) ** 2).mean(axis=1)
    ahead = errors[anomalies == 1][:, None] - errors[anomalies == 0][None]
    score = Scoring("reconstruction", inputs, anomalies=anomalies).score(outputs)
    assert score.metric == "AUC"
    assert score.value == pytest.approx(((ahead > 0) + (ahead == 0) / 2).mean())


def test_r2_is_the_mean_over_the_outputs() -> None:
    draw = DRAW(0)
    labels = draw.normal(size=(50, 3)) * (1, 10, 0)  # the last output has nothing to explain
    outputs = labels + draw.normal(size=(50, 3)) * (0.1, 5, 0)
    residual = ((outputs - labels) ** 2).sum(axis=0)[:2] / ((labels - labels.mean(axis=0)) ** 2).sum(axis=0)[:2]
    found = Scoring("regression", labels.astype(np.float32)).score(outputs.astype(np.float32))
    assert (found.metric, found.value) == ("R²", pytest.approx(1 - residual.mean(), rel=1e-5))
    assert dict(found.more) == {
        "MAE": pytest.approx(np.abs(outputs - labels).mean(), rel=1e-5),
        "RMSE": pytest.approx(((outputs - labels) ** 2).mean() ** 0.5, rel=1e-5),
    }


def test_a_score_that_is_not_defined_is_an_error() -> None:
    zeros = np.zeros((4, 2), np.float32)
    for scoring in (
        Scoring("regression", zeros),
        Scoring("reconstruction", zeros),
        Scoring("reconstruction", zeros, anomalies=np.ones(4, np.int64)),
    ):
        with pytest.raises(DataError, match="not defined; use"):
            scoring.score(zeros)


@pytest.mark.parametrize("task", ["multilabel", "segmentation", "regression", "reconstruction"])
def test_guessing_is_what_the_best_constant_reaches(task: TaskName) -> None:
    draw = DRAW(0)
    if task == "segmentation":
        labels: Any = (draw.random((30, 4, 4)) < 0.2).astype(np.int64)
        outputs = np.tile(np.float32([1, 0]), (30, 16))
    elif task == "multilabel":
        labels = (draw.random((30, 2)) < (0.3, 0.8)).astype(np.int64)
        outputs = np.tile(np.float32([0, 1]), (30, 1))
    else:
        labels = draw.normal(size=(30, 2)).astype(np.float32)
        outputs = np.tile(labels.mean(axis=0), (30, 1))
    scoring = Scoring(task, labels, 2)
    assert scoring.guessing() == pytest.approx(scoring.score(outputs).value, abs=1e-6)


@pytest.mark.parametrize("kind", ["mIoU", "AUC"])
def test_credits_spread_as_the_metric_itself_does(kind: str) -> None:
    """The interval from credits against a bootstrap that computes the metric anew from each resample."""
    draw, images = DRAW(1), 150
    if kind == "mIoU":
        labels = (draw.random((images, 6, 6)) < draw.random((images, 1, 1))).astype(np.int64)
        found = np.where(draw.random(labels.shape) < 0.2 * draw.random((images, 1, 1)), 1 - labels, labels)
        scoring, outputs = Scoring("segmentation", labels, 2), np.eye(2, dtype=np.float32)[found].reshape(images, -1)
    else:
        anomalies = draw.integers(0, 2, images)
        inputs = np.zeros((images, 1), np.float32)
        outputs = (draw.normal(size=(images, 1)) + anomalies[:, None]).astype(np.float32)
        outputs -= outputs.min()
        scoring = Scoring("reconstruction", inputs, anomalies=anomalies)
    anew = []
    for _ in range(500):
        drawn = draw.integers(images, size=images)
        anomalies_drawn = None if scoring.anomalies is None else scoring.anomalies[drawn]
        resampled = Scoring(scoring.task, scoring.labels[drawn], 2, anomalies_drawn)
        anew.append(resampled.credits(outputs[drawn]).mean())
    low, high = interval(scoring.credits(outputs))
    assert high - low == pytest.approx(np.subtract(*np.percentile(anew, (97.5, 2.5))), rel=0.15)


# Labels


def made(labels: Any, *, images: Any = None, task: TaskName | None = None, test: Any = None) -> DataSet:
    images = np.arange(8 * 4 * 4, dtype=np.uint8).reshape(8, 4, 4) if images is None else images
    test = labels if test is None else test
    return make_dataset("here", "made", (images, labels), (images, test), None, (0.0, 1.0), task)


MASKS = np.arange(8 * 4 * 4).reshape(8, 4, 4) % 3
SEVERAL = np.array([[0, 0], [1, 1]] * 4)


@pytest.mark.parametrize(
    ("labels", "task", "shape"),
    [
        (np.arange(8) % 3, "classification", (8,)),
        (np.eye(4)[np.arange(8) % 4], "classification", (8,)),
        (SEVERAL, "multilabel", (8, 2)),
        (MASKS, "segmentation", (8, 4, 4)),
        (MASKS[..., np.newaxis], "segmentation", (8, 4, 4)),
        (MASKS > 0, "segmentation", (8, 4, 4)),
        (np.linspace(0, 1, 8), "regression", (8, 1)),
        (np.linspace(0, 1, 32).reshape(8, 2, 2), "regression", (8, 2, 2)),
        (None, "reconstruction", (8,)),
    ],
)
def test_the_task_is_guessed_from_the_labels(labels: Any, task: TaskName, shape: tuple[int, ...]) -> None:
    data = made(labels)
    assert (data.task, data.test.labels.shape) == (task, shape)


def test_the_task_can_be_said() -> None:
    assert made(np.arange(8), task="regression").test.labels.dtype == np.float32
    anomalies = made(np.arange(8) % 2, task="reconstruction")
    assert anomalies.scoring().metric == "AUC"
    assert made(None).scoring().metric == "R²"


@pytest.mark.parametrize(
    ("labels", "task", "message"),
    [
        (SEVERAL * 2, "multilabel", r"must be 0 or 1, of shape \(n, labels\); got int64 \(8, 2\)"),
        (MASKS[:, :2], "segmentation", r"masks must be integers of shape \(8, 4, 4\), the class of each pixel"),
        (MASKS * 127, "segmentation", "train labels must be 0 to 2, for 3 classes"),
        (np.full(8, np.nan), "regression", "labels contain NaN"),
        (np.ones(8), "regression", "all train labels are equal; there is nothing to learn"),
        (None, "regression", r"there are no train labels \(y_train\); the task regression needs them"),
        (np.arange(8), "reconstruction", "1 for an anomaly, else 0"),
    ],
)
def test_labels_of_another_task_are_refused(labels: Any, task: TaskName, message: str) -> None:
    with pytest.raises(DataError, match=message):
        made(labels, task=task)


def test_masks_in_folders(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    for part in ("train", "val"):
        for kind in ("images", "masks"):
            (tmp_path / part / kind).mkdir(parents=True)
        for number in range(4):
            shade = image.fromarray(np.full((6, 5, 3), 40 * number, np.uint8))
            shade.save(tmp_path / part / "images" / f"{number}.jpg")
            image.fromarray((np.arange(30).reshape(6, 5) % 2).astype(np.uint8)).save(
                tmp_path / part / "masks" / f"{number}.png"
            )
    data = load(str(tmp_path))
    assert (data.task, data.train.images.shape, data.test.labels.shape) == ("segmentation", (4, 6, 5, 3), (4, 6, 5))
    (tmp_path / "val" / "masks" / "2.png").unlink()
    with pytest.raises(DataError, match=r"2\.jpg has no mask val/masks/2\.png; add it or remove the image"):
        load(str(tmp_path))
    with pytest.raises(DataError, match="has masks for segmentation, not labels for regression"):
        load(str(tmp_path), task="regression")


def test_samples_take_the_shape_of_the_model() -> None:
    data = made(np.arange(8) % 3)
    assert data.input_shape == (4, 4, 1)
    assert data.shaped({"x": (4, 4)}, {}).test_inputs().shape == (8, 4, 4)
    assert data.shaped({"x": (None, 4, 1)}, {"y": (3,)}) is data
    assert data.shaped({"x": (1, 4, 4, 1)}, {}).test_inputs(2).shape == (2, 1, 4, 4, 1)
    with pytest.raises(DataError, match=r"samples of made are \(4, 4, 1\), not \(16,\)"):
        data.shaped({"x": (16,)}, {})


# Models


@pytest.mark.parametrize(
    ("labels", "outputs"),
    [
        (np.arange(8) % 3, (2,)),
        (np.arange(8) % 3, (1,)),
        (SEVERAL, (3,)),
        (np.linspace(0, 1, 8), (10,)),
        (MASKS, (4, 4, 2)),
        (MASKS, (3,)),
        (None, (4, 4, 2)),
    ],
)
def test_outputs_of_another_task_are_refused(labels: Any, outputs: tuple[int, ...]) -> None:
    model = keras.Sequential([keras.Input((4, 4, 1)), L.Flatten(), L.Dense(math.prod(outputs)), L.Reshape(outputs)])
    with pytest.raises(ModelError, match=r"gives output \(None, .*\), made has .* and needs .*; check the data"):
        data_for(model, made(labels))


def test_a_softmax_of_one_output_is_refused() -> None:
    model = keras.Sequential([keras.Input((4,)), L.Dense(1, activation="softmax")])
    with pytest.raises(ModelError, match="outputs sum to 1, but each output stands for itself; use a sigmoid"):
        losses_for(model, made(np.arange(8) % 2), keras)


def cut(data: DataSet, samples: int = 400) -> DataSet:
    """The first samples, as a data set of its own."""
    parts = [(split.images[:samples], split.labels[:samples]) for split in (data.train, data.test)]
    return make_dataset("cut", "cut", *parts, data.class_names or None, (0.0, 1.0), data.task)


def of_digits(mnist: DataSet, label: Callable[[Any], Any], task: TaskName) -> DataSet:
    parts = [(split.images[:1500], label(split)[:1500]) for split in (mnist.train, mnist.test)]
    return make_dataset("digits", "digits", *parts, None, (0.0, 1.0), task)


def ink(split: Any) -> Any:
    """How dark the upper and the lower half of a digit are."""
    images = split.images[..., 0] / 255
    return np.stack([images[:, :14].mean(axis=(1, 2)), images[:, 14:].mean(axis=(1, 2))], axis=1)


def of_image(*last: Any) -> Any:
    keras.utils.set_random_seed(1)
    conv = L.Conv2D(8, 3, strides=2, activation="relu"), L.Conv2D(16, 3, strides=2, activation="relu")
    return keras.Sequential([keras.Input((28, 28, 1)), *conv, L.Flatten(), *last], name="small")


def demo(name: Any) -> Callable[[DataSet], tuple[Any, DataSet]]:
    def make(mnist: DataSet) -> tuple[Any, DataSet]:
        data = cut(load(f"demo-{name}"))
        return build_model(name, data, 0), data

    return make


TASKS: dict[str, Callable[[DataSet], tuple[Any, DataSet]]] = {
    "binary logit": lambda mnist: (
        of_image(L.Dense(1)),
        of_digits(mnist, lambda split: split.labels % 2, "classification"),
    ),
    "multilabel": lambda mnist: (
        of_image(L.Dense(2, activation="sigmoid")),
        of_digits(
            mnist, lambda split: np.stack([split.labels % 2, split.labels > 4], axis=1).astype(int), "multilabel"
        ),
    ),
    "regression": lambda mnist: (of_image(L.Dense(2)), of_digits(mnist, ink, "regression")),
    **{name: demo(name) for name in DEMOS},
}


EPOCHS = {"autoencoder": 15, "person_cnn": 12}


@pytest.mark.parametrize("name", TASKS)
def test_every_int8_file_of_every_task_keeps_the_score(
    name: str, mnist: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgecnn.verification._TFLM_MACS", 100_000_000)  # the slowest runtime sees some samples
    model, data = TASKS[name](mnist)
    data = data_for(model, data)
    model, history = train(model, data, epochs=EPOCHS.get(name, 4), learning_rate=3e-3)
    assert history.epochs[-1].loss < history.epochs[0].loss
    quantized, _ = qat.train_quantized(model, data, epochs=1)
    check_accuracy(model, quantized, data)
    save_model(model, tmp_path / "m.keras")
    qat.save(quantized, tmp_path / "qat.keras")
    source = Source.load(tmp_path / "m.keras", data, qat_weights=tmp_path / "qat.keras")
    provenance = provenance_of("m", "00", data)
    wanted = pairs([*FORMATS.values()], [SCHEMES[scheme] for scheme in ("float32", "int8", "int8-qat")])
    for format, scheme in wanted:
        export_file(source, format=format, scheme=scheme, provenance=provenance, folder=tmp_path / "files")
    files = sorted(path for path in (tmp_path / "files").iterdir() if path.suffix in (".tflite", ".onnx", ".c"))
    assert len(files) == 8
    parities = verify(files, data, model=tmp_path / "m.keras", qat=tmp_path / "qat.keras")
    assert [(one.artifact, one.violations) for one in parities if one.violations] == []
    guessing = data.scoring().guessing()
    for one in parities:
        assert one.accuracy.metric == data.scoring().metric
        assert one.accuracy.value > guessing + 0.1, "the model has learnt nothing, so agreement says nothing"
        assert one.accuracy.value == pytest.approx(one.reference_accuracy.value, abs=0.02)


def test_a_run_on_segmentation_reports_miou(tmp_path: Path) -> None:
    data = cut(load("demo-unet"), 100)
    np.savez(
        tmp_path / "masks.npz",
        x_train=data.train.images, y_train=data.train.labels, x_test=data.test.images, y_test=data.test.labels,
        class_names=np.array(data.class_names),
    )  # fmt: skip
    config = RunConfig(
        model="unet", data=str(tmp_path / "masks.npz"), epochs=1, schemes=("float32", "int8"), tune=False, seconds=0.02,
        cold=1,
    )  # fmt: skip
    report = run(config, tmp_path / "run")
    assert report.task == "segmentation"
    assert {row.accuracy.metric for row in report.rows} == {"mIoU"}  # type: ignore[union-attr]
    page = (tmp_path / "run" / "report.html").read_text()
    assert "mIoU, % [95 %]" in page
    assert "pixel accuracy, %" in page
    with contextlib.closing(open_session(tmp_path / "run" / "artifacts" / "unet-float32.onnx")) as session:
        assert session.outputs[0].layout == "NCHW"
        outputs = predict(session, data.test_inputs(3))
    with contextlib.closing(open_session(tmp_path / "run" / "model.keras", threads=0)) as session:
        np.testing.assert_allclose(predict(session, data.test_inputs(3)), outputs, atol=1e-5)
    artifact = load_artifact(tmp_path / "run" / "artifacts" / "unet-int8.tflite")
    assert artifact.provenance is not None
    assert (artifact.provenance.task, artifact.provenance.labels) == ("segmentation", data.class_names)


@pytest.mark.parametrize("name", DEMOS)
def test_demo_data_are_the_same_each_time(name: Any) -> None:
    data = load(f"demo-{name}")
    assert data.sha256 == load(f"demo-{name}").sha256
    assert data.task == DEMOS[name][0]
    data_for(build_model(name, data, 0), data)
