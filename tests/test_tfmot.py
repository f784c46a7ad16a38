"""Quantisation-aware training with TFMOT; that its files agree with it is tested with the engine keras in test_qat."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from conftest import save_part
from small_models import bodied

from edgecnn import formats, pipeline
from edgecnn.config import RunConfig
from edgecnn.data import DataSet, Split
from edgecnn.errors import DataError, MissingExtraError, QuantizationError
from edgecnn.formats import TFMOT_TOOLS, TOOLS
from edgecnn.models import save_model
from edgecnn.quantization import tfmot

L = keras.layers


def test_the_float_model_stays_as_it_is(workspace: Any) -> None:
    data = replace(workspace.data, train=Split(workspace.data.train.images[:200], workspace.data.train.labels[:200]))
    before = [np.asarray(weight).copy() for weight in workspace.model.weights]
    first, history = tfmot.train_quantized(workspace.model, data, epochs=1)
    for old, new in zip(before, workspace.model.weights, strict=True):
        np.testing.assert_array_equal(old, np.asarray(new))
    again, same_history = tfmot.train_quantized(workspace.model, data, epochs=1)
    assert history == same_history
    for one, other in zip(first.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_saved_weights_make_the_same_model(workspace: Any, tmp_path: Path) -> None:
    data = replace(workspace.data, train=Split(workspace.data.train.images[:200], workspace.data.train.labels[:200]))
    images = workspace.data.inputs(workspace.data.test.images[:50])
    trained, _ = tfmot.train_quantized(workspace.model, data, epochs=1)
    tfmot.save(trained, tmp_path / "qat.npz")
    expected = trained.predict(images, verbose=0)
    untrained = tfmot.fake_quantized(workspace.model, data)
    assert not np.array_equal(untrained.predict(images, verbose=0), expected)
    again = tfmot.load(tmp_path / "qat.npz", workspace.model, data)
    np.testing.assert_array_equal(again.predict(images, verbose=0), expected)


def with_dropout(x: Any) -> Any:
    return x


WITH_DROPOUT = """
import sys
from pathlib import Path
from edgecnn.data import load
from edgecnn.models import load_model
from edgecnn.quantization import tfmot

quantized, history = tfmot.train_quantized(load_model(Path(sys.argv[1])), load(sys.argv[2]), epochs=1)
print(history.epochs[0].loss)
"""


def test_dropout_in_a_model_that_was_trained_elsewhere(workspace: Any, tmp_path: Path) -> None:
    """In a process of its own, in which nothing has set a seed."""
    data = tmp_path / "few.npz"
    save_part(workspace.data, data, 200, 50)
    save_model(bodied(with_dropout), tmp_path / "own.keras")
    done = subprocess.run(
        [sys.executable, "-c", WITH_DROPOUT, tmp_path / "own.keras", data], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert float(done.stdout) > 0


def damaged(content: bytes) -> bytes:
    return content[:1000]


def of_another_model(content: bytes) -> bytes:
    import io

    buffer = io.BytesIO()
    np.savez(buffer, **{"0000": np.zeros(3)})
    return buffer.getvalue()


@pytest.mark.parametrize("change", [damaged, of_another_model, lambda content: b"", None])
def test_weights_that_are_not_of_this_model_are_refused(change: Any, workspace: Any, tmp_path: Path) -> None:
    path = tmp_path / "qat.npz"
    if change:
        path.write_bytes(change(workspace.qat_file.read_bytes()))
    with pytest.raises(QuantizationError, match=r"qat\.npz does not hold the weights of this model") as caught:
        tfmot.load(path, workspace.model, workspace.data)
    assert "\n" not in str(caught.value)


def test_pickled_weights_are_not_unpickled(workspace: Any, tmp_path: Path) -> None:
    path = tmp_path / "qat.npz"
    np.savez(path, **{"0000": np.array([{"code": 1}], dtype=object)})  # type: ignore[arg-type]
    with pytest.raises(QuantizationError, match=r"0000 contains Python objects \(pickle\), which are never loaded"):
        tfmot.load(path, workspace.model, workspace.data)


def test_layers_that_tfmot_refuses_are_listed_together(mnist: DataSet) -> None:
    def body(x: Any) -> Any:
        return L.PReLU(shared_axes=[1, 2], name="one")(L.PReLU(shared_axes=[1, 2], name="two")(x))

    with pytest.raises(QuantizationError, match=r"'two' \(PReLU\), 'one' \(PReLU\); use the scheme int8"):
        tfmot.fake_quantized(bodied(body), mnist)


def test_without_the_extra_a_run_says_so_before_it_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "installed", lambda tool: None if tool in TFMOT_TOOLS else "1.0")
    data = str(tmp_path / "none.npz")
    with pytest.raises(MissingExtraError, match=r"run: pip install 'edgecnn\[tfmot\]'"):
        pipeline.run(RunConfig(data=data, qat_engine="tfmot"), tmp_path / "run")
    for other in (RunConfig(data=data), RunConfig(data=data, qat_engine="tfmot", schemes=("int8",))):
        with pytest.raises(DataError):  # it got as far as the data
            pipeline.run(other, tmp_path / "run")


def test_files_name_the_tools_that_are_there(mnist: DataSet, monkeypatch: pytest.MonkeyPatch) -> None:
    assert {*TFMOT_TOOLS} < {*formats.provenance_of("model", "", mnist).versions}
    monkeypatch.setattr(formats, "installed", lambda tool: None if tool in TFMOT_TOOLS else "1.0")
    assert {*formats.provenance_of("model", "", mnist).versions} == {*TOOLS}
