"""The steps as Python functions of models and arrays, and the page that describes them."""

import importlib.util
import re
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import edgecnn
from edgecnn.data import DataSet
from edgecnn.errors import ConfigError, DataError
from edgecnn.models import save_model
from edgecnn.records import Artifact, Failure, Parity, Result

DOCS = Path(__file__).parents[1] / "docs"
L = keras.layers


def test_the_page_is_made_from_the_docstrings() -> None:
    specification = importlib.util.spec_from_file_location("api_page", DOCS / "api_page.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    assert (DOCS / "api.md").read_text(encoding="utf-8") == module.page(), "run: python docs/api_page.py"


@pytest.fixture
def arrays(mnist: DataSet) -> tuple[Any, ...]:
    parts = ((part.images[:count], part.labels[:count]) for part, count in ((mnist.train, 600), (mnist.test, 200)))
    return tuple(array for part in parts for array in part)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ((1, 2, 3), r"data are four arrays, x_train, y_train, x_test and y_test, or two streams; got 3"),
        ((None, None, np.zeros((3, 4)), None), "x_train and x_test are needed; only labels may be None"),
        ((np.zeros((3, 4)), [0, 1], np.zeros((3, 4)), [0, 1]), "the arrays: train split has 3 images but 2 labels"),
    ],
)
def test_arrays_that_are_no_data_are_refused(data: Any, expected: str) -> None:
    with pytest.raises(DataError, match=expected):
        edgecnn.load_data(data)


def test_arrays_are_a_data_set_as_a_file_is(arrays: tuple[Any, ...], tmp_path: Path) -> None:
    names = [f"digit {number}" for number in range(10)]
    x_train, y_train, x_test, y_test = arrays
    np.savez(tmp_path / "a.npz", x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test, class_names=names)
    found, wanted = edgecnn.load_data(arrays, class_names=names), edgecnn.load_data(tmp_path / "a.npz")
    assert (found.sha256, found.class_names, found.name) == (wanted.sha256, tuple(names), "arrays")


@pytest.mark.slow
def test_the_example_of_the_page_runs(arrays: tuple[Any, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    keras.utils.set_random_seed(0)
    first = [L.Conv2D(4, 3, strides=2), L.BatchNormalization(), L.ReLU(), L.Flatten()]
    untrained = keras.Sequential([keras.Input((28, 28, 1)), *first, L.Dense(10, activation="softmax")], name="my net")
    model, history = edgecnn.train(untrained, arrays, epochs=3, learning_rate=1e-2)
    assert history.epochs[-1].loss < history.epochs[0].loss
    (example,) = re.findall(r"```python\n(import edgecnn\n.*?)```", (DOCS / "api.md").read_text(), re.DOTALL)
    example = example.replace("edgecnn.bench(files, data)", "edgecnn.bench(files, data, seconds=0.05, processes=1)")
    names: dict[str, Any] = dict(zip(("x_train", "y_train", "x_test", "y_test"), arrays, strict=True), model=model)
    exec(compile(example, "api.md", "exec"), names)
    assert [row.file for row in names["rows"]] == [
        "my_net-float32.tflite", "my_net-int8-qat.tflite", "my_net-float32.onnx", "my_net-int8-qat.onnx",
        "my_net-int8-qat.c",
    ]  # fmt: skip
    assert isinstance(names["parity"], Parity)
    assert not names["parity"].violations
    assert [row.accuracy.total for row in names["report"].rows if isinstance(row, Result)] == [200] * 5
    assert (tmp_path / "report" / "report.html").is_file()


@pytest.mark.slow
def test_models_and_paths_give_the_same_files(arrays: tuple[Any, ...], tmp_path: Path) -> None:
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((28, 28, 1)), L.Flatten(), L.Dense(10, activation="softmax")], name="m")
    save_model(model, tmp_path / "m.keras")
    wanted: dict[str, Any] = {"schemes": ("int8", "int8-qat"), "formats": ("tflite",), "calibration_images": 20}
    found, refused = edgecnn.export(model, arrays, tmp_path / "one", **wanted)
    again, _ = edgecnn.export(str(tmp_path / "m.keras"), arrays, str(tmp_path / "two"), **wanted)
    assert isinstance(found, Artifact)
    assert isinstance(again, Artifact)
    assert found.sha256 == again.sha256
    assert isinstance(refused, Failure)
    assert refused.subject == "m-int8-qat.tflite"
    assert "needs quantisation-aware training first" in refused.reason
    for given in (model, tmp_path / "m.keras"):
        parities = edgecnn.verify([tmp_path / "one" / found.file], arrays, model=given, images=50)
        assert {parity.difference.images for parity in parities} == {50}
    with pytest.raises(ConfigError, match="unknown scheme 'int4'"):
        edgecnn.export(model, arrays, tmp_path, schemes=("int4",))
