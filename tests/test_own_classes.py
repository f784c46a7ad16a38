"""Models with a user's own classes, models that are a class of their own, and files of earlier versions of Keras."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from conftest import save_part

from edgecnn.data import DataSet
from edgecnn.errors import ConfigError, ModelError
from edgecnn.formats import FORMATS
from edgecnn.formats.source import Source
from edgecnn.models import architecture_of, data_for, gives_probabilities, load_model, plain, use_custom
from edgecnn.quantization.schemes import SCHEMES
from edgecnn.records import Report, Result, read_record
from edgecnn.runtimes import open_session, predict

pytestmark = pytest.mark.slow

L = keras.layers

CLASSES = """
import keras
from keras import layers


class Scale(layers.Layer):
    def build(self, shape):
        self.factor = self.add_weight(shape=(shape[-1],), initializer="ones")

    def call(self, x):
        return 0.5 * x * self.factor


@keras.saving.register_keras_serializable(package="mine")
class Net(keras.Model):
    def __init__(self, last="softmax", **options):
        super().__init__(**options)
        self.last = last
        self.answer = layers.Dense(10, activation=last)
        self.convolved = layers.Conv2D(8, 3, strides=2, activation="relu")
        self.drop = layers.Dropout(0.2)
        self.pool = layers.MaxPooling2D(4)
        self.flat = layers.Flatten()

    def call(self, x, training=False):
        return self.answer(self.drop(self.flat(self.pool(self.convolved(x))), training=training))

    def get_config(self):
        return {**super().get_config(), "last": self.last}
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of a module with own classes in the current folder; Keras forgets them afterwards."""
    name = f"own_{tmp_path.name}".replace("-", "_")
    (tmp_path / f"{name}.py").write_text(CLASSES)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv("EDGECNN_CUSTOM", "")
    with keras.saving.custom_object_scope({}):
        registered = keras.saving.get_custom_objects()
        before = dict(registered)
        yield name
        registered.clear()
        registered.update(before)


def scaled(module: Any) -> Any:
    layers = [L.Conv2D(4, 3, strides=2), module.Scale(), L.ReLU(), L.Flatten(), L.Dense(10, activation="softmax")]
    return keras.Sequential([keras.Input((28, 28, 1)), *layers])


def imported(name: str) -> Any:
    use_custom([name])
    return sys.modules[name]


def test_own_layers_and_models_work_in_every_process_of_a_run(module: str, mnist: DataSet, tmp_path: Path) -> None:
    keras.utils.set_random_seed(0)
    own = imported(module)
    net = own.Net()
    net(np.zeros((1, 28, 28, 1), np.float32))
    net.save("net.keras")
    scaled(own).save("scaled.keras")
    save_part(mnist, "digits.npz", 500, 200)
    for model, schemes, made in (("scaled", "float32,int8,int8-qat", 3), ("net", "float32,int8", 2)):
        command = [sys.executable, "-m", "edgecnn", "run", "--model", f"{model}.keras", "--custom", module]
        command += ["--data", "digits.npz", "--schemes", schemes, "--formats", "tflite", "--qat-epochs", "1"]
        command += ["--baseline", "none", "--seconds", "0.1", "--cold", "1", "--out", model]
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env={**os.environ, "EDGECNN_CUSTOM": ""}
        )
        assert done.returncode in (0, 1), done.stderr  # untrained, so small differences change classes
        report = read_record(tmp_path / model / "report.json", Report)
        assert sum(isinstance(row, Result) for row in report.rows) == 1 + made
        assert len(report.parities) >= made
        assert all(parity.difference.mean_abs < 0.01 for parity in report.parities)


@pytest.mark.parametrize("last", ["softmax", "sigmoid", None])
def test_what_the_outputs_of_a_class_of_its_own_are_is_seen(last: str | None, module: str, mnist: DataSet) -> None:
    net = imported(module).Net(last=last)
    with pytest.raises(ModelError, match="whose input is unknown; call it on one batch of images before it is saved"):
        plain(net)
    net(np.zeros((1, 28, 28, 1), np.float32))
    whole = plain(net)
    assert data_for(whole, mnist).input_shape == (28, 28, 1)
    assert gives_probabilities(whole) == (last is not None)


def test_a_class_that_is_not_known_is_named_with_its_module(module: str) -> None:
    scaled(imported(module)).save("scaled.keras")
    keras.saving.get_custom_objects().clear()
    use_custom([])
    del sys.modules[module]
    (Path(f"{module}.py")).rename("elsewhere.py")
    with pytest.raises(ModelError, match=rf"needs Scale, which is not part of Keras; .*: --custom {module}$"):
        load_model(Path("scaled.keras"))


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("absent", None, "there is no Python module absent, neither in the current folder nor installed"),
        ("present.py", "", r"there is no Python module present\.py, .* such as my_layers for my_layers\.py"),
        ("broken", "1 / 0", "--custom broken cannot be imported: ZeroDivisionError: division by zero"),
        ("needy", "import absent", "--custom needy cannot be imported: ModuleNotFoundError: No module named 'absent'"),
    ],
)
def test_modules_that_cannot_be_imported_are_named(name: str, content: str | None, expected: str, module: str) -> None:
    if content is not None:
        Path(f"{name.removesuffix('.py')}.py").write_text(content)
    with pytest.raises(ConfigError, match=expected):
        use_custom([name])


def test_files_of_earlier_versions_of_keras_are_converted(mnist: DataSet, tmp_path: Path) -> None:
    keras.utils.set_random_seed(0)
    layers = [L.Conv2D(4, 3, strides=2), L.BatchNormalization(), L.ReLU(), L.Flatten(), L.Dropout(0.1)]
    model = keras.Sequential([keras.Input((28, 28, 1)), *layers, L.Dense(10, activation="softmax")])
    model.save(tmp_path / "own.keras")
    path = tmp_path / "old.h5"
    model.save(path)
    assert architecture_of(path) == architecture_of(tmp_path / "own.keras")
    source = Source.load(path, mnist, qat_weights=None, calibration_images=50)
    wanted = np.asarray(model(source.calibration, training=False))
    converted = tmp_path / "old.tflite"
    converted.write_bytes(FORMATS["tflite"].convert(source, SCHEMES["float32"]))
    for file in (path, converted):
        with contextlib.closing(open_session(file, threads=0)) as session:
            np.testing.assert_allclose(predict(session, source.calibration), wanted, atol=1e-5)


def test_legacy_files_are_not_trusted_either(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((4,)), L.Lambda(lambda x: x + 1), L.Dense(2)])
    path = tmp_path / "old.h5"
    model.save(path)
    with pytest.raises(ModelError, match="contains a Lambda layer with Python code, which is not run for safety"):
        load_model(path)
    weights = tmp_path / "some.weights.h5"
    model.save_weights(weights)
    with pytest.raises(ModelError, match=r"has weights only; save the whole model with model\.save"):
        load_model(weights)
    for content in (b"", b"\x89HDF\r\n\x1a\n", path.read_bytes()[:2000]):
        path.write_bytes(content)
        with pytest.raises(ModelError, match="cannot be loaded as a Keras 3 model"):
            load_model(path)
