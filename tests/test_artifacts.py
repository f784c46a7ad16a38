"""Model files and their sidecars."""

import json
from pathlib import Path
from typing import Any

import pytest

from edgecnn import artifacts
from edgecnn.errors import ArtifactError, RecordError
from edgecnn.files import sha256_file
from edgecnn.formats import FORMATS
from edgecnn.records import Artifact, from_json
from edgecnn.runtimes import RUNTIMES


def test_sidecar_stands_beside_the_file() -> None:
    assert artifacts.sidecar(Path("a/m-int8.tflite")) == Path("a/m-int8.tflite.json")


def test_without_a_sidecar_the_file_itself_tells_the_same(workspace: Any, tmp_path: Path) -> None:
    for key, artifact in workspace.artifacts.items():
        path = tmp_path / artifact.file
        path.write_bytes(workspace.path(*key).read_bytes())
        for companion in artifact.companions:
            (tmp_path / companion.file).write_bytes((workspace.folder / companion.file).read_bytes())
        assert artifacts.load(path) == artifact
        assert artifacts.load(workspace.path(*key)) == artifact


def test_what_a_sidecar_says_of_its_file_is_true(workspace: Any) -> None:
    for key, artifact in workspace.artifacts.items():
        path = workspace.path(*key)
        stored = from_json(artifacts.sidecar(path).read_bytes(), Artifact, path)
        assert stored == artifact
        assert stored.sha256 == sha256_file(path)
        assert stored.size_bytes == path.stat().st_size
        assert (stored.format, stored.scheme) == (FORMATS[key[0]].ending, key[1])
        assert stored.name == path.name


def test_a_keras_file_is_float32(workspace: Any) -> None:
    artifact = artifacts.load(workspace.model_file)
    assert (artifact.format, artifact.scheme, artifact.provenance) == ("keras", "float32", None)
    assert artifact.input.shape == (None, 28, 28, 1)


def test_a_damaged_sidecar_is_named(workspace: Any, tmp_path: Path) -> None:
    path = tmp_path / "m.tflite"
    path.write_bytes(workspace.path("tflite", "int8").read_bytes())
    sidecar = artifacts.sidecar(path)
    sidecar.write_text("{")
    with pytest.raises(RecordError, match=r"m\.tflite\.json is not a valid Artifact file"):
        artifacts.load(path)
    fields = json.loads(artifacts.sidecar(workspace.path("tflite", "int8")).read_bytes()) | {"extra": 1}
    sidecar.write_text(json.dumps(fields))
    with pytest.raises(RecordError, match="unknown field `extra`"):
        artifacts.load(path)


@pytest.mark.parametrize("ending", [runtime.format for runtime in RUNTIMES.values()])
def test_a_missing_file_is_named(ending: str, tmp_path: Path) -> None:
    for read in (artifacts.load, artifacts.describe):
        with pytest.raises(ArtifactError, match=f"no model file at .*gone.{ending}"):
            read(tmp_path / f"gone.{ending}")


def test_a_file_of_unknown_ending_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.pb"
    path.write_bytes(b"x")
    with pytest.raises(ArtifactError, match=r"an unknown suffix; give a file ending in .*\.tflite"):
        artifacts.load(path)


@pytest.mark.parametrize("ending", ["tflite", "onnx"])
@pytest.mark.parametrize("content", [b"", b"\x1c\0\0\0TFL3", b"nonsense" * 100])
def test_a_file_that_is_none_of_its_format_is_refused_in_one_line(ending: str, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / f"broken.{ending}"
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=rf"^broken\.{ending} is ") as caught:
        artifacts.load(path)
    assert "\n" not in str(caught.value)


def test_a_changed_file_says_what_to_do(workspace: Any, tmp_path: Path) -> None:
    path = tmp_path / "m.tflite"
    path.write_bytes(workspace.path("tflite", "int8").read_bytes() + b"\0")
    artifacts.sidecar(path).write_bytes(artifacts.sidecar(workspace.path("tflite", "int8")).read_bytes())
    with pytest.raises(ArtifactError, match="export it again, or remove the sidecar"):
        artifacts.load(path)
