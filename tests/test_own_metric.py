"""Scores of the user's own: any task, a number for each sample or one for all, and the page that shows it."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from numpy.typing import NDArray

from edgecnn.data import load
from edgecnn.data.dataset import make_dataset
from edgecnn.errors import ConfigError, DataError
from edgecnn.records import Failure, Report, Result, read_record
from edgecnn.tasks import Scoring, interval
from edgecnn.training import taught

PAGE = Path(__file__).parents[1] / "docs" / "detection.md"


def share_right(labels: NDArray[Any], outputs: NDArray[Any]) -> Any:
    return (outputs.argmax(axis=1) == labels).mean()


def each_right(labels: NDArray[Any], outputs: NDArray[Any]) -> Any:
    return (outputs.argmax(axis=1) == labels).astype(float)


def answered(count: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Labels of three classes, and outputs of which about 70 % are right."""
    draw = np.random.default_rng(1)
    labels = draw.integers(3, size=count)
    outputs = draw.random((count, 3)).astype(np.float32)
    outputs[np.arange(count), labels] += 0.6
    return labels, outputs


def test_one_number_is_shared_out_among_few_samples_as_a_mean_is() -> None:
    labels, outputs = answered(20)
    whole, each = (Scoring("classification", labels, 3, measure=one) for one in (share_right, each_right))
    np.testing.assert_allclose(whole.credits(outputs), each.credits(outputs), atol=1e-12)


@pytest.mark.parametrize("count", [400, 997])
def test_the_interval_of_one_number_is_about_that_of_a_mean(count: int) -> None:
    labels, outputs = answered(count)
    whole, each = (Scoring("classification", labels, 3, measure=one) for one in (share_right, each_right))
    assert whole.credits(outputs).mean() == pytest.approx(each.credits(outputs).mean())
    (low, high), (wanted_low, wanted_high) = interval(whole.credits(outputs)), interval(each.credits(outputs))
    assert 0.5 < (high - low) / (wanted_high - wanted_low) < 2
    score = whole.score(outputs)
    assert (score.metric, score.total, score.correct) == ("share_right", count, None)
    assert not whole.counts
    assert whole.guessing() == 0.0


def test_one_sample_has_no_interval() -> None:
    scoring = Scoring("custom", np.zeros((1, 2)), measure=lambda labels, outputs: 0.25)
    assert scoring.credits(np.zeros((1, 2), np.float32)).tolist() == [0.25]


@pytest.mark.parametrize(
    ("measure", "expected"),
    [
        (lambda labels, outputs: 1 / 0, r"failed on labels \(4,\) and outputs \(4, 3\): ZeroDivisionError"),
        (
            lambda labels, outputs: outputs,
            r"must return one number, or one for each of the 4 samples; got shape",
        ),
        (lambda labels, outputs: 2.5, r"must be at most 1, and higher is better; got 2\.5"),
        (lambda labels, outputs: float("nan"), "must be at most 1, and higher is better; got nan"),
        (lambda labels, outputs: "good", "failed on .* ValueError: could not convert string to float"),
    ],
)
def test_what_a_metric_must_not_give_is_said(measure: Any, expected: str) -> None:
    scoring = Scoring("classification", np.arange(4) % 3, 3, measure=measure)
    with pytest.raises(ConfigError, match=expected):
        scoring.credits(np.eye(4, 3, dtype=np.float32))


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ("nothing", "--metric must be module:function, such as my_metrics:mean_precision; got 'nothing'"),
        ("absent_module:f", "there is no Python module absent_module"),
        ("math:f", "the module math has no function f; check --metric math:f"),
        ("math:pi", "the module math has no function pi"),
    ],
)
def test_a_metric_that_is_not_there_is_named(place: str, expected: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(expected)):
        load("mnist", metric=place)


def custom(labels: Any) -> Any:
    images = np.random.default_rng(0).random((6, 4)).astype(np.float32)
    return make_dataset("here", "own", (images, labels), (images, labels), None, (0.0, 1.0), "custom")


def test_labels_of_a_custom_task_may_be_any_numbers_or_none() -> None:
    boxes = np.full((6, 3, 5), 0.5)
    assert custom(boxes).test.labels.dtype == np.float32
    assert custom(np.arange(6)).test.labels.dtype == np.int64
    assert custom(None).test.labels.shape == (6, 0)
    for wrong in (boxes[:5], np.array(list("abcdef")), np.float32(1)):
        with pytest.raises(DataError, match="labels of a custom task are numbers, with one row for each of the 6"):
            custom(wrong)


def test_a_custom_task_needs_a_metric_and_teaches_the_outputs_of_the_model() -> None:
    data = custom(None)
    with pytest.raises(ConfigError, match="a custom task needs a function that scores outputs: --metric"):
        data.scoring()
    assert data.scored_by(share_right).scoring().metric == "share_right"

    given = keras.Input(data.input_shape)
    lessons = taught(data, keras.Model(given, 2 * given))
    assert lessons.task == "regression"
    np.testing.assert_array_equal(lessons.train.labels, 2 * data.train.images)


@pytest.mark.slow
def test_the_page_on_detection_works_as_it_says(tmp_path: Path) -> None:
    text = PAGE.read_text(encoding="utf-8")
    names = re.findall(r"`(\w+\.py)`", text)
    files = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert names == ["shapes.py", "detector.py", "precision.py"]
    for name, code in zip(names, files, strict=False):
        (tmp_path / name).write_text(code.replace("drawn(1000, 0)", "drawn(600, 0)").replace("epochs=15", "epochs=8"))
    commands = re.findall(r"^    ((?:python|edgecnn) .*)$", text, re.MULTILINE)
    assert len(commands) == 3
    quick = ["--formats", "tflite", "--schemes", "float32,int8,int8-qat", "--seconds", "0.1", "--cold", "1"]
    for command in commands:
        program, *arguments = command.split()
        start = [sys.executable] if program == "python" else [sys.executable, "-m", "edgecnn"]
        more = quick if "run" in arguments else []
        subprocess.run([*start, *arguments, *more], cwd=tmp_path, check=True, capture_output=True)
    report = read_record(tmp_path / "runs" / "detector" / "report.json", Report)
    assert not [row for row in report.rows if isinstance(row, Failure)]
    scores = [row.accuracy for row in report.rows if isinstance(row, Result)]
    assert len(scores) == 4
    assert all(score is not None and score.metric == "mAP50" and 0.2 < score.value < 1 for score in scores)
    assert not any(parity.violations for parity in report.parities)
