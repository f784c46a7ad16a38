"""``edgecnn verify --against``: files of any origin, compared with another runtime or file."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from generated import Model, needs_tflm
from test_verification import rescaled, weights_of

from edgecnn.errors import ArtifactError, ConfigError
from edgecnn.records import Parity
from edgecnn.verification import SAME_BYTES, SAME_INTEGERS, TOLERANCES, closeness, verify_against

pytestmark = [pytest.mark.slow, needs_tflm]


@pytest.fixture
def foreign(workspace: Any, tmp_path: Path) -> dict[str, Path]:
    """Exported files without their sidecars, under other names."""
    keys = {"int8": ("tflite", "int8"), "float": ("tflite", "float32"), "onnx": ("onnx", "int8"), "c": ("c99", "int8")}
    found = {}
    for name, (format, scheme) in keys.items():
        original = workspace.path(format, scheme)
        found[name] = tmp_path / f"{name}{original.suffix}"
        found[name].write_bytes(original.read_bytes())
        if format == "c99":
            (tmp_path / "c.h").write_bytes(original.with_suffix(".h").read_bytes())
            text = found[name].read_text().replace(f'"{original.stem}.h"', '"c.h"')
            found[name].write_text(text)
    return found


def only(file: Path, against: Any, data: Any = None, images: int = 100) -> Parity:
    (parity,) = verify_against([file], against, data, images=images)
    return parity


def test_files_of_one_model_agree(foreign: dict[str, Path], workspace: Any) -> None:
    for name, against, tolerance in (
        ("int8", "tflm", SAME_INTEGERS),
        ("onnx", foreign["int8"], SAME_INTEGERS),
        ("c", foreign["int8"], SAME_BYTES),
        ("float", "tflm", TOLERANCES["float32"]),
        ("float", foreign["int8"], TOLERANCES["int8"]),
    ):
        parity = only(foreign[name], against, workspace.data)
        assert parity.violations == (), (name, against)
        assert parity.tolerance == tolerance
        assert parity.accuracy.metric == "accuracy"
        runtime = "tflm" if against == "tflm" or name == "c" else "litert"
        file = foreign[name] if against == "tflm" else against
        assert parity.reference == f"{file.name} in {runtime}, on 100 samples of digits"
        assert parity.difference.agree is not None


def test_noise_is_enough_where_there_are_no_samples(foreign: dict[str, Path]) -> None:
    parity = only(foreign["c"], foreign["int8"])
    assert parity.difference.max_lsb == 0
    assert parity.reference == "int8.tflite in tflm, on 100 samples of noise"
    assert (parity.accuracy.metric, parity.accuracy.value) == ("closeness", 1.0)
    assert only(foreign["float"], foreign["int8"], images=20).violations == ()


@pytest.mark.parametrize("with_data", [True, False])
def test_a_changed_file_is_caught(with_data: bool, foreign: dict[str, Path], workspace: Any) -> None:
    content = foreign["int8"].read_bytes()
    foreign["int8"].write_bytes(rescaled(content, weights_of(content)[1], 1.3))
    parity = only(foreign["onnx"], foreign["int8"], workspace.data if with_data else None)
    assert parity.violations


def test_files_with_state_run_in_order(tmp_path: Path) -> None:
    """Each output depends on the input before, so an order of its own in one runtime would show."""
    model = Model()
    source, before, target = (model.tensor((1, 8), scale=0.1) for _ in range(3))
    handle = model.tensor((), "resource")
    model.operator("CALL_ONCE", [], (), "CallOnceOptions", initSubgraphIndex=1)
    model.operator("VAR_HANDLE", [], handle, "VarHandleOptions", container="", sharedName="state")
    model.operator("READ_VARIABLE", [handle], before)
    model.operator("ADD", [before, source], target, "AddOptions")
    model.operator("ASSIGN_VARIABLE", [handle, source], ())
    with model.subgraph():
        handle, start = model.tensor((), "resource"), model.tensor((1, 8), scale=0.1, data=np.arange(8))
        model.operator("VAR_HANDLE", [], handle, "VarHandleOptions", container="", sharedName="state")
        model.operator("ASSIGN_VARIABLE", [handle, start], ())
    file = tmp_path / "state.tflite"
    file.write_bytes(model.file(source, target))
    parity = only(file, "tflm", images=1000)
    assert parity.difference.images == 64
    assert parity.difference.max_lsb is not None
    assert parity.difference.max_lsb <= 1
    assert parity.violations == ()


def test_closeness_is_a_share_of_the_span() -> None:
    reference = np.float32([[0, 10], [5, 5]])
    np.testing.assert_allclose(closeness(reference, reference + np.float32([[1], [0]])), [0.9, 1.0])


def test_what_cannot_be_compared_is_refused(foreign: dict[str, Path], tmp_path: Path) -> None:
    model = Model()
    first, second = model.tensor((1, 3), scale=0.5), model.tensor((1, 3), scale=0.5)
    model.operator("RELU", [first], second)
    (tmp_path / "other.tflite").write_bytes(model.file(first, second))
    with pytest.raises(
        ConfigError, match=r"int8\.tflite has inputs and outputs .*, other\.tflite has .*; compare files"
    ):
        only(foreign["int8"], tmp_path / "other.tflite")
    with pytest.raises(ArtifactError, match=r"tflm runs \.tflite files, not onnx\.onnx"):
        only(foreign["onnx"], "tflm")
    with pytest.raises(ArtifactError, match="no model file at"):
        only(foreign["int8"], tmp_path / "none.tflite")


def test_command(foreign: dict[str, Path], workspace: Any) -> None:
    def run(*arguments: object) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "edgecnn", "verify", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    fine = run(foreign["int8"], "--against", "tflm")
    assert fine.returncode == 0, fine.stderr
    assert fine.stdout.startswith("int8.tflite against int8.tflite in tflm, on 64 samples of noise: closeness ")
    content = foreign["int8"].read_bytes()
    foreign["int8"].write_bytes(rescaled(content, weights_of(content)[1], 1.3))
    wrong = run(foreign["onnx"], "--against", foreign["int8"])
    assert wrong.returncode == 1
    assert "onnx.onnx against int8.tflite in litert, on 64 samples of noise: mean difference" in wrong.stderr
    usage = run(foreign["int8"], "--against", "tflm", "--model", workspace.model_file)
    assert usage.returncode == 2
    assert "--against compares without the model: omit --model, --qat and --on" in usage.stderr
    assert run(foreign["int8"]).returncode == 2
