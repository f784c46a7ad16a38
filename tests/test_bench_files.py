"""``bench_files``: a row for every model file, whatever state it is in."""

import os
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from conftest import Workspace
from tools import workers

from edgecnn import artifacts, runtimes
from edgecnn.data import load
from edgecnn.errors import ArtifactError, ConfigError, RecordError, UnknownNameError
from edgecnn.measure import files
from edgecnn.measure.baseline import shipped_baselines
from edgecnn.measure.files import bench_files
from edgecnn.measure.workbench import Workbench
from edgecnn.models import architecture, architecture_of, mnist_cnn
from edgecnn.records import Artifact, Failure, Report, Result, to_json
from edgecnn.runtimes.fake import FakeModel
from edgecnn.worker import WorkerError

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("without_converter")]

QUICK: dict[str, Any] = {"seconds": 0.05, "processes": 1}


def results(report: Report) -> list[Result]:
    return [row for row in report.rows if isinstance(row, Result)]


def failures(report: Report) -> list[Failure]:
    return [row for row in report.rows if isinstance(row, Failure)]


def fake(path: Path, size: int = 4) -> Path:
    path.write_bytes(to_json(FakeModel(input_shape=(size, size, 1), classes=3, delay_s=0.001)))
    return path


def test_threads_and_accuracy(workspace: Workspace) -> None:
    paths = [workspace.path("tflite", "int8"), workspace.path("onnx", "int8")]
    report = bench_files(paths, data=workspace.data, threads=(1, 2), **QUICK)
    rows = results(report)
    assert [(row.artifact.file, row.measurement.threads) for row in rows] == [
        ("digits-int8.tflite", 1),
        ("digits-int8.tflite", 2),
        ("digits-int8.onnx", 1),
        ("digits-int8.onnx", 2),
    ]
    for row in rows:
        assert row.accuracy is not None
        assert row.accuracy.total == report.test_images == 1000
        assert row.accuracy.value > 0.8
        assert len(row.measurement.samples_s) >= 50
    assert (report.data, report.data_sha256) == (workspace.data.name, workspace.data.sha256)


def _half(content: bytes) -> bytes:
    return content[: len(content) // 2]


def _noise(content: bytes) -> bytes:
    return np.random.default_rng(0).bytes(len(content))


def _empty(content: bytes) -> bytes:
    return b""


def _noise_inside(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[: middle - 2000] + np.random.default_rng(0).bytes(4000) + content[middle + 2000 :]


@pytest.mark.parametrize("damage", [_half, _noise, _empty])
def test_damaged_files_become_rows_and_the_others_are_measured(
    workspace: Workspace, tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    whole = workspace.path("tflite", "float32")
    damaged = []
    for format in ("tflite", "onnx", *(["keras"] if damage is _half else [])):
        source = workspace.model_file if format == "keras" else workspace.path(format, "float32")
        damaged.append(tmp_path / f"damaged.{format}")
        damaged[-1].write_bytes(damage(source.read_bytes()))
    report = bench_files([damaged[0], whole, *damaged[1:]], **QUICK)
    assert [row.artifact.file for row in results(report)] == [whole.name]
    assert [failure.subject for failure in failures(report)] == [path.name for path in damaged]
    for failure in failures(report):
        assert failure.stage == "bench"
        assert not failure.expected
        assert failure.error in ("ArtifactError", "SessionError", "ModelError"), failure
        assert len(failure.reason) > 10
        assert "\n" not in failure.reason


@pytest.mark.parametrize("format", ["tflite", "onnx"])
def test_damage_in_the_middle_never_ends_the_tool(workspace: Workspace, tmp_path: Path, format: str) -> None:
    path = tmp_path / f"damaged.{format}"
    path.write_bytes(_noise_inside(workspace.path(format, "int8").read_bytes()))
    report = bench_files([path], data=workspace.data, **QUICK)
    assert len(report.rows) == 1  # weights hold any bytes, so it may even run


def _damage(content: bytes, generator: np.random.Generator) -> bytes:
    """Cut off, shifted, or with wrong bytes: anywhere, all in one place, or near the front, where the structure is."""
    kind, place = generator.integers(5), int(generator.integers(len(content)))
    changed = bytearray(content)
    if kind == 0:
        del changed[place:]
    elif kind == 1:
        del changed[place : place + 4]
    elif kind == 2:
        changed[place : place + 200] = generator.bytes(len(changed[place : place + 200]))
    else:
        for place in generator.integers(0, len(changed) if kind == 3 else 2000, 30):
            changed[place] = generator.integers(256)
    return bytes(changed)


def test_many_damaged_files_in_one_call_are_as_many_rows_and_leave_nothing(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """200 by hand: EDGECNN_FUZZ=200."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    generator = np.random.default_rng(0)
    contents = {format: workspace.path(format, "int8").read_bytes() for format in ("tflite", "onnx")}
    paths = []
    for number in range(int(os.environ.get("EDGECNN_FUZZ", "30"))):
        format = ("tflite", "onnx")[number % 2]
        paths.append(tmp_path / f"damaged-{number:03}.{format}")
        paths[-1].write_bytes(_damage(contents[format], generator))
    before = sorted(tmp_path.iterdir())
    report = bench_files(paths, seconds=0.01, processes=1)
    assert len(report.rows) == len(paths)
    subjects = Counter(
        row.artifact.file if isinstance(row, Result) else row.subject.partition(",")[0] for row in report.rows
    )
    assert subjects == Counter(path.name for path in paths)
    assert len(failures(report)) >= len(paths) / 2
    assert all(failure.reason and not failure.expected for failure in failures(report))
    assert workers(os.getpid()) == []
    assert sorted(tmp_path.iterdir()) == before
    assert list(temporary.iterdir()) == []


def _load_or_crash(workbench: Workbench, path: Path, runtime: str | None, batches: Sequence[int]) -> Artifact:
    """Aborts at a file that is called so, and at the next one too, once."""
    if getattr(workbench, "broken", False) or "crash" in path.name:
        os.abort()
    workbench.broken = "breaks" in path.name  # type: ignore[attr-defined]
    return artifacts.load(path)


def test_a_file_that_ends_the_loading_process_is_a_row_and_no_other_pays_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_load", _load_or_crash)
    names = ("a", "crash", "b", "breaks-the-process", "c", "crash-too")
    report = bench_files([fake(tmp_path / f"{name}.fake") for name in names], **QUICK)
    assert [row.artifact.file for row in results(report)] == [
        "a.fake",
        "b.fake",
        "breaks-the-process.fake",
        "c.fake",
    ]
    assert [(failure.subject, failure.error) for failure in failures(report)] == [
        ("crash.fake", "ChildProcessError"),
        ("crash-too.fake", "ChildProcessError"),
    ]
    assert all(failure.reason == "killed by SIGABRT while loading the file" for failure in failures(report))
    assert workers(os.getpid()) == []


def test_one_process_loads_all_files_that_leave_it_alone(tmp_path: Path) -> None:
    good, bad = fake(tmp_path / "a.fake"), tmp_path / "bad.fake"
    bad.write_text("{}")
    with files._Loader() as loader:
        loader.load(good, None, (1,))
        process = loader._worker
        for _ in range(3):
            with pytest.raises(WorkerError):
                loader.load(bad, None, (1,))
        assert loader.load(good, None, (1,)).file == "a.fake"
        assert loader._worker is process
    assert workers(os.getpid()) == []


def test_every_registered_runtime_for_a_format_can_be_chosen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    other = runtimes.Runtime(name="other", format="fake", package="none", module="none", session="None")
    monkeypatch.setitem(runtimes.RUNTIMES, "other", other)
    path = tmp_path / "a.fake"
    assert files._suitable(path, ()) == (None,)
    assert files._suitable(path, ("litert", "other", "fake")) == ["other", "fake"]
    with pytest.raises(ArtifactError, match=r"litert cannot run \.fake files"):
        files._suitable(path, ("litert",))
    with pytest.raises(UnknownNameError, match="unknown runtime 'abacus'"):
        bench_files([path], runtimes=("abacus",))


def test_file_that_is_not_the_one_in_its_sidecar(workspace: Workspace, tmp_path: Path) -> None:
    source = workspace.path("tflite", "float32")
    changed, sidecar = tmp_path / source.name, tmp_path / f"{source.name}.json"
    changed.write_bytes(source.read_bytes() + b"\0")
    sidecar.write_bytes(source.with_name(sidecar.name).read_bytes())
    report = bench_files([changed, source], **QUICK)
    (failure,) = failures(report)
    assert (failure.subject, failure.error) == (changed.name, "ArtifactError")
    assert "has changed since it was exported" in failure.reason
    assert len(results(report)) == 1

    sidecar.write_text("{}")
    (failure,) = failures(bench_files([changed], **QUICK))
    assert failure.error == "RecordError"
    assert sidecar.name in failure.reason


def test_files_that_are_no_models(tmp_path: Path) -> None:
    (tmp_path / "folder.onnx").mkdir()
    (tmp_path / "notes.txt").write_text("no model")
    paths = [tmp_path / name for name in ("folder.onnx", "notes.txt", "nothere.tflite")]
    report = bench_files(paths, **QUICK)
    assert [failure.error for failure in failures(report)] == ["ModelError", "ArtifactError", "ArtifactError"]
    assert "is a folder without saved_model.pb" in failures(report)[0].reason
    assert "give a file ending in .tflite, .onnx, .c, .keras" in failures(report)[1].reason
    assert report.rows == tuple(failures(report))


def test_a_model_of_vectors_is_measured_too(tmp_path: Path) -> None:
    helper = onnx.helper
    spec = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 8]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", spec[:1], spec[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = tmp_path / "vector.onnx"
    path.write_bytes(model.SerializeToString())
    report = bench_files([path], **QUICK)
    assert failures(report) == []
    assert len(results(report)) == 1


def test_data_that_do_not_fit_the_model(workspace: Workspace, tmp_path: Path) -> None:
    model = workspace.path("tflite", "float32")

    def reason(**changes: object) -> str:
        arrays = {
            "x_train": np.zeros((20, 28, 28), np.uint8),
            "y_train": np.arange(20) % 10,
            "x_test": np.zeros((10, 28, 28), np.uint8),
            "y_test": np.arange(10),
        }
        np.savez(tmp_path / "other.npz", **(arrays | changes))
        (failure,) = failures(bench_files([model], data=load(str(tmp_path / "other.npz")), **QUICK))
        assert failure.error == "ArtifactError"
        return failure.reason

    large = {name: np.zeros((count, 32, 32, 3), np.uint8) for name, count in (("x_train", 20), ("x_test", 10))}
    assert reason(**large) == "its input images are (28, 28, 1), the images of other are (32, 32, 3)"
    few = {"y_train": np.arange(20) % 5, "y_test": np.arange(10) % 5}
    assert reason(**few) == (
        "it gives output (None, 10), other has 5 classes and needs (None, 5); check the data, or choose --task"
    )
    other_range = load(str(workspace.data_file), (-1.0, 1.0))
    (failure,) = failures(bench_files([model], data=other_range, **QUICK))
    assert failure.reason.startswith("its input range is [0.0, 1.0], but digits is scaled to [-1.0, 1.0]")


def test_noise_fits_all_models_or_none(tmp_path: Path) -> None:
    small, large = fake(tmp_path / "small.fake"), fake(tmp_path / "large.fake", 8)
    with pytest.raises(ConfigError, match=r"different input sizes, \(4, 4, 1\) and \(8, 8, 1\)"):
        bench_files([small, large], **QUICK)
    report = bench_files([small], **QUICK)
    (row,) = results(report)
    assert row.accuracy is None
    assert (report.data, report.test_images) == (None, 0)


@pytest.mark.parametrize("threads", [(), (0,), (1, -2)])
def test_senseless_threads(tmp_path: Path, threads: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match="threads must be one or more positive numbers"):
        bench_files([fake(tmp_path / "m.fake")], threads=threads)


def test_senseless_batches(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="batches must be one or more positive numbers"):
        bench_files([fake(tmp_path / "m.fake")], batches=(0,))


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf")])
def test_senseless_seconds(tmp_path: Path, seconds: float) -> None:
    with pytest.raises(ConfigError, match="seconds"):
        bench_files([fake(tmp_path / "m.fake")], seconds=seconds)


def test_baseline_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="cannot read"):
        bench_files([fake(tmp_path / "m.fake")], **QUICK, baselines=[tmp_path / "none.json"])


def test_a_baseline_of_another_architecture_is_refused_before_anything_is_measured(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = workspace.path("tflite", "int8")
    said = artifacts.load(file).provenance
    assert said is not None
    assert said.architecture == architecture_of(workspace.model_file)
    shipped, *_ = shipped_baselines(architecture(mnist_cnn()))
    path = tmp_path / "gpu.json"
    path.write_bytes(to_json(shipped.replace(model="other.keras", architecture="0" * 64)))
    monkeypatch.setattr(files, "bench", None)
    with pytest.raises(ConfigError, match=r"gpu\.json is a baseline of other\.keras .* digits-int8\.tflite"):
        bench_files([file], **QUICK, baselines=[path])
    monkeypatch.undo()
    path.write_bytes(to_json(shipped))  # of other weights
    report = bench_files([file], **QUICK, baselines=[path])
    assert [len(report.rows), len(report.baselines)] == [1, 1]
