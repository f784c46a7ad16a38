"""Files run in worker processes: the same bytes as in this process, all cores, and a crash is one file's own."""

import contextlib
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tools import workers

from edgecnn import artifacts, inference
from edgecnn.errors import ArtifactError, EdgecnnError, MissingExtraError, SessionError
from edgecnn.files import sha256_file
from edgecnn.inference import Task, infer, outputs_of, task_of
from edgecnn.records import TensorSpec, to_json
from edgecnn.runtimes import open_session, predict
from edgecnn.runtimes.fake import FakeModel
from edgecnn.verification import verify

pytestmark = pytest.mark.usefixtures("without_converter")

IMAGES = np.random.default_rng(0).random((400, 2, 2, 1), np.float32)


class TellTale:
    """A session that gives the number of its process and the image's first value; ``fault`` comes at its first one."""

    opened = 0  # in this process
    batch = 1
    inputs = (TensorSpec(name="input", shape=(1, 2, 2, 1), dtype="float32", layout="NHWC"),)
    outputs = (TensorSpec(name="output", shape=(1, 2), dtype="float32", layout="NC"),)

    def __init__(self, fault: str = "") -> None:
        TellTale.opened += 1
        if fault == "second" and TellTale.opened > 1:
            os.kill(os.getpid(), signal.SIGSEGV)
        if fault == "missing":
            raise MissingExtraError("this needs the package 'x'")
        if fault == "bug":
            raise ZeroDivisionError("a bug in a runtime")
        self.fault = fault

    def put(self, images: Any) -> None:
        self.first = images[0, 0, 0, 0]

    def invoke(self) -> None:
        if self.fault == "crash":
            os.write(2, b"check failed: x == y\n")
            os.kill(os.getpid(), signal.SIGABRT)
        if self.fault == "hang":
            signal.pause()

    def take(self) -> Any:
        return np.array([[os.getpid(), self.first]], np.float32)

    def close(self) -> None:
        pass


def told(name: str, fault: str = "", images: int | None = None) -> Task:
    return Task(name, partial(TellTale, fault), images)


def outcomes(*tasks: Task) -> dict[str, Any]:
    return {outcome.task.name: outcome.outputs for outcome in infer(tasks, IMAGES)}


@pytest.fixture
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference, "usable_cores", lambda: 2)


def test_outputs_are_the_bytes_that_this_process_computes(workspace: Any, two_cores: None) -> None:
    images = workspace.data.inputs(workspace.data.test.images[:130])
    int8 = [workspace.path("tflite", scheme) for scheme in ("int8", "int8-qat")]
    asked = [(workspace.path(*key), None) for key in workspace.artifacts] + [(path, "tflm") for path in int8]
    tasks = {task_of(path, runtime): (path, runtime) for path, runtime in asked}
    found = {outcome.task: outcome.outputs for outcome in infer([*tasks], images)}
    assert len(found) == len(asked) == 15
    for task, (path, runtime) in tasks.items():
        with contextlib.closing(open_session(path, runtime=runtime)) as session:
            expected = predict(session, images)
        outputs = found[task]
        assert isinstance(outputs, np.ndarray)
        assert (outputs.dtype, outputs.tobytes()) == (expected.dtype, expected.tobytes()), task.name


def test_a_single_file_keeps_all_cores_busy_and_images_stay_in_order(two_cores: None) -> None:
    outputs = outcomes(told("one"))["one"]
    assert len(set(outputs[:, 0])) == 2, "two processes"
    assert np.float32(os.getpid()) not in outputs[:, 0]
    np.testing.assert_array_equal(outputs[:, 1], IMAGES[:, 0, 0, 0])


def test_a_task_may_have_fewer_images(two_cores: None) -> None:
    found = outcomes(told("few", images=3), told("all"))
    assert (len(found["few"]), len(found["all"])) == (3, len(IMAGES))


@pytest.mark.parametrize(
    ("fault", "kind", "message"),
    [
        ("crash", SessionError, r"killed by SIGABRT \(its last line: check failed: x == y\) while running bad"),
        ("hang", SessionError, "no answer within 2 s while running bad; killed"),
        ("missing", MissingExtraError, "this needs the package 'x'"),
        ("bug", SessionError, "a bug in a runtime"),
    ],
)
def test_a_fault_is_that_of_one_task(
    fault: str, kind: type[EdgecnnError], message: str, two_cores: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inference, "_LIMIT_S", 2.0 if fault == "hang" else 60.0)
    found = outcomes(told("before"), told("bad", fault), told("after"))
    for name in ("before", "after"):
        np.testing.assert_array_equal(found[name][:, 1], IMAGES[:, 0, 0, 0])
    assert type(found["bad"]) is kind
    with pytest.raises(kind, match=message):
        raise found["bad"]


def test_a_process_that_others_may_have_damaged_gives_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference, "usable_cores", lambda: 1)
    found = outcomes(told("first"), told("second", "second"))
    np.testing.assert_array_equal(found["second"][:, 1], IMAGES[:, 0, 0, 0])
    assert set(found["first"][:, 0]) != set(found["second"][:, 0])


def test_progress_counts_images_of_failed_tasks_too(two_cores: None) -> None:
    steps: list[float] = []

    def advance(done: float = 1, note: str = "") -> None:
        steps.append(done)

    tasks = [told("good"), told("bad", "crash")]
    list(infer(tasks, IMAGES, advance))
    assert sum(steps) == sum(task.count(IMAGES) for task in tasks) == 2 * len(IMAGES)


def test_a_missing_file_is_an_artifact_error_and_outputs_of_raises_it(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"no model file at .*gone\.tflite"):
        outputs_of(task_of(tmp_path / "gone.tflite"), IMAGES)


def test_workers_import_nothing_from_the_current_folder(tmp_path: Path) -> None:
    """Not even where the caller's own Python does not look there: a worker is started as ``python -c``."""
    for module in ("multiprocessing", "edgecnn", "numpy", "msgspec"):
        (tmp_path / f"{module}.py").write_text("raise SystemExit('this is not the module you want')")
    (tmp_path / "model.fake").write_bytes(to_json(FakeModel(input_shape=(2, 2, 1), classes=3)))
    script = tmp_path / "scripts" / "script.py"
    script.parent.mkdir()
    script.write_text(
        "from pathlib import Path\nimport numpy as np\nfrom edgecnn.inference import outputs_of, task_of\n"
        "print(outputs_of(task_of(Path('model.fake')), np.ones((5, 2, 2, 1), np.float32)).argmax(1))\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}
    done = subprocess.run(
        [sys.executable, script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "[1 1 1 1 1]\n"), done.stderr


@pytest.mark.usefixtures("two_cores")
def test_whoever_stops_early_leaves_no_process(workspace: Any, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes(b"\x08\x09")  # a protobuf, but no model
    sidecar = workspace.artifacts["onnx", "int8"].replace(file=damaged.name, sha256=sha256_file(damaged))
    artifacts.sidecar(damaged).write_bytes(to_json(sidecar))
    with pytest.raises(SessionError, match=r"onnxruntime cannot load damaged\.onnx") as failed:
        verify([damaged, workspace.path("tflite", "int8")], workspace.data, model=workspace.model_file)
    assert failed.tb is not None  # which keeps everything that was running alive
    assert workers(os.getpid()) == []
