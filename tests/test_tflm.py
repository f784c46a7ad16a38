"""TensorFlow Lite for Microcontrollers as a runtime: the same answers, and no failed check that ends the caller."""

import contextlib
import ctypes
import re
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_models import source_of, write_tflite

from edgecnn import artifacts
from edgecnn.errors import SessionError
from edgecnn.inference import Task, outputs_of
from edgecnn.measure.workbench import Candidate, Workbench
from edgecnn.models import MODELS
from edgecnn.runtimes import open_session, predict, runtime_for, tflm
from edgecnn.runtimes.tflm import allocates, arena_bytes
from edgecnn.tflite.graph import read_graph
from edgecnn.tflite.micro import OPERATORS, resolver_methods
from edgecnn.verification import SAME_BYTES, SAME_INTEGERS, compare, tflm_task, verify
from edgecnn.worker import Worker, WorkerError, isolated

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("references_once")]


@pytest.fixture(scope="module")
def aborting(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real file at which a check of TFLM's fails: its softmax has an input scale of 8e-9."""
    folder = tmp_path_factory.mktemp("aborting")
    return write_tflite(source_of("mobilenet_v1_025", settled=False), folder / "vanishing.tflite")


def test_litert_stays_the_default(workspace: Any) -> None:
    path = workspace.path("tflite", "int8")
    assert runtime_for(path).name == "litert"
    assert runtime_for(path, "tflm").name == "tflm"


def test_session_describes_the_file_as_litert_does(workspace: Any) -> None:
    for scheme in ("float32", "int8", "int16x8", "int8-qat"):
        path = workspace.path("tflite", scheme)
        with contextlib.closing(open_session(path, runtime="tflm")) as session:
            artifact = workspace.artifacts["tflite", scheme]
            assert (session.inputs[0], session.outputs[0]) == (artifact.input, artifact.output)
            assert session.provenance() is not None
            assert session.batch == 1


@pytest.mark.parametrize("scheme", ["float32", "int8", "int16x8", "int8-qat"])
def test_answers_are_near_those_of_litert(workspace: Any, scheme: str) -> None:
    images = workspace.data.inputs(workspace.data.test.images[:100])
    path = workspace.path("tflite", scheme)
    with contextlib.closing(open_session(path, runtime="tflm")) as session:
        found = predict(session, images)
    with contextlib.closing(open_session(path)) as session:
        expected = predict(session, images)
    np.testing.assert_allclose(found, expected, atol=0.06)
    assert (found.argmax(axis=1) == expected.argmax(axis=1)).mean() > 0.97


def test_integers_go_in_and_come_out_as_stored(workspace: Any) -> None:
    path = workspace.path("tflite", "int8")
    images = workspace.data.inputs(workspace.data.test.images[:1])
    with contextlib.closing(tflm.TflmSession(path, 1, 1, "cpu")) as session:
        session.encode(images)
        session.invoke()
        decoded = session.decode()
        scale, zero = session.outputs[0].quantization.scale[0], session.outputs[0].quantization.zero_point[0]
        steps = (
            np.round(images / session.inputs[0].quantization.scale[0]) + session.inputs[0].quantization.zero_point[0]
        )
        session.put(steps.astype(np.int8))
        session.invoke()
        raw = session.take()
    assert raw.dtype == np.int8
    np.testing.assert_allclose((raw.astype(int) - zero) * scale, decoded, rtol=1e-6)


def test_a_failed_check_is_an_error_and_the_caller_lives(aborting: Path) -> None:
    with pytest.raises(SessionError, match=r"tflm cannot run vanishing\.tflite: killed by SIGABRT"):
        open_session(aborting, runtime="tflm")


def test_without_the_probe_the_process_would_be_gone(aborting: Path) -> None:
    """The same file, opened in a process that does not try it elsewhere first."""
    script = (
        "import sys\nfrom pathlib import Path\nfrom edgecnn.runtimes import open_session, tflm\n"
        "tflm.in_worker = lambda: True\nopen_session(Path(sys.argv[1]), runtime='tflm')"
    )
    done = subprocess.run([sys.executable, "-c", script, str(aborting)], capture_output=True, check=False)
    assert done.returncode == -6


def test_a_worker_is_lost_instead_of_probing(aborting: Path, workspace: Any) -> None:
    for path in (aborting, workspace.path("tflite", "int8")):
        artifact = artifacts.describe(path)
        candidate = Candidate(path=path, artifact=artifact, runtime="tflm")
        image = np.zeros(artifact.input.shape[1:], np.float32)
        with Worker(Workbench) as worker:
            if path == aborting:
                with pytest.raises(WorkerError, match="killed by SIGABRT while opening"):
                    worker.call("opening", 60, Workbench.open, candidate, image)
            else:
                assert worker.call("opening", 60, Workbench.open, candidate, image).runtime == "tflm"
                assert len(worker.call("running", 60, Workbench.block, 0, 3, 0).samples_ns) == 3
                memory = worker.call("looking", 60, Workbench.memory)
                assert memory is not None
                assert memory.arena_bytes == arena_bytes(path.read_bytes())


def test_what_tflm_says_is_in_the_error(workspace: Any) -> None:
    expected = r"it refuses the model: .*CONV_2D \(number 2\) failed to prepare.* \(TFLM failed to allocate tensors\)"
    with pytest.raises(SessionError, match=expected):
        open_session(workspace.path("tflite", "dynamic-int8"), runtime="tflm")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"threads": 2}, "tflm runs on one thread, got 2"),
        ({"batch": 4}, "has a batch of 1, and tflm cannot resize it; got 4"),
        ({"device": "gpu"}, "on cpu only, not on 'gpu'"),
    ],
)
def test_what_tflm_cannot_do_is_refused(arguments: dict[str, Any], message: str, workspace: Any) -> None:
    with pytest.raises(SessionError, match=message):
        open_session(workspace.path("tflite", "int8"), runtime="tflm", **arguments)


def test_damaged_files_are_refused(workspace: Any, tmp_path: Path) -> None:
    model = workspace.path("tflite", "int8").read_bytes()
    for name, content in {"cut": model[: len(model) // 2], "other": b"nonsense" * 100, "empty": b""}.items():
        path = tmp_path / f"{name}.tflite"
        path.write_bytes(content)
        with pytest.raises(SessionError, match=f"tflm cannot load {name}.tflite"):
            open_session(path, runtime="tflm")


# The arena


@pytest.mark.parametrize("name", MODELS)
def test_the_arena_is_the_least_that_suffices(name: str, untrained_models: dict[str, Path]) -> None:
    model = untrained_models[name].read_bytes()
    least = arena_bytes(model)
    assert isolated(allocates, model, least, doing="allocating")
    assert not isolated(allocates, model, least - 16, doing="allocating")


# Operators


def test_operators_are_those_that_the_resolver_finds() -> None:
    """Ask the package's own resolver, through the symbols of its shared library."""
    from tflite_micro.python.tflite_micro import _runtime
    from tflite_micro.tensorflow.lite.micro.python import schema_py_generated as schema

    library = ctypes.CDLL(_runtime.__file__)
    storage = ctypes.create_string_buffer(1 << 18)
    make = library._ZN6tflite17PythonOpsResolverC1Ev
    make.argtypes = [ctypes.c_void_p]
    make(ctypes.addressof(storage))
    find = library._ZNK6tflite5micro22MicroMutableOpResolverILj200EE6FindOpENS_15BuiltinOperatorE
    find.argtypes, find.restype = [ctypes.c_void_p, ctypes.c_int], ctypes.c_void_p
    kinds = {name: number for name, number in vars(schema.BuiltinOperator).items() if isinstance(number, int)}
    found = {name for name, number in kinds.items() if find(ctypes.addressof(storage), number)}
    assert found == OPERATORS


def test_resolver_methods_are_named_as_in_tflm(workspace: Any) -> None:
    graph = read_graph(workspace.path("tflite", "int8").read_bytes(), "x")
    assert resolver_methods(graph) == ("AddConv2D", "AddFullyConnected", "AddMaxPool2D", "AddReshape", "AddSoftmax")


# Verification


def test_litert_is_compared_with_tflm(workspace: Any) -> None:
    paths = [workspace.path("tflite", scheme) for scheme in ("int8", "int8-qat", "float32")]
    parities = verify(paths, workspace.data, model=workspace.model_file, qat=workspace.qat_file)
    found = [parity for parity in parities if parity.reference.endswith("in TFLM")]
    assert [parity.artifact for parity in found] == ["digits-int8.tflite", "digits-int8-qat.tflite"]
    for parity in found:
        assert parity.tolerance == SAME_INTEGERS
        assert parity.violations == ()
        assert parity.difference.images == len(workspace.data.test.labels)


@pytest.mark.parametrize("scheme", ["int8", "int8-qat"])
def test_generated_c_gives_the_same_bytes_and_one_weight_off_does_not(
    workspace: Any, scheme: str, tmp_path: Path
) -> None:
    tflite, code = workspace.path("tflite", scheme), workspace.path("c99", scheme)
    qat = workspace.qat_file

    def bytes_of(path: Path) -> Any:
        found = verify([tflite, path], workspace.data, model=workspace.model_file, qat=qat)
        (parity,) = [one for one in found if one.artifact == path.name and one.reference.endswith("in TFLM")]
        assert parity.tolerance == SAME_BYTES
        assert parity.difference.images == len(workspace.data.test.labels)
        return parity

    assert bytes_of(code).violations == ()
    damaged = tmp_path / code.name
    text = code.read_text()
    found = re.search(r"_weights\[\d+\] = \{\s*(-?\d+)", text)
    assert found is not None
    value = int(found[1])
    damaged.write_text(text[: found.start(1)] + str(value + (1 if value < 0 else -1)) + text[found.end(1) :])
    shutil.copy(code.with_suffix(".h"), tmp_path)
    parity = bytes_of(damaged)
    assert any("largest difference" in violation for violation in parity.violations)


def test_images_are_as_many_as_tflm_can_do(workspace: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    images = workspace.data.inputs(workspace.data.test.images[:50])
    path = workspace.path("tflite", "int8")
    assert tflm_task(path).count(images) == 50
    monkeypatch.setattr("edgecnn.verification._TFLM_MACS", 20_000_000)  # the reference CNN has 2.5 million
    assert len(outputs_of(tflm_task(path), images)) == 7


def test_one_step_in_one_output_breaks_the_comparison_of_bytes(workspace: Any) -> None:
    artifact = workspace.artifacts["tflite", "int8"]
    images, scoring = workspace.data.test_inputs(100), workspace.data.scoring(100)
    outputs = outputs_of(tflm_task(workspace.path("tflite", "int8")), images)
    same = compare(artifact, outputs, outputs, scoring, against="TFLM", tolerance=SAME_BYTES)
    assert same.violations == ()
    changed = outputs.copy()
    changed[40, 3] += artifact.output.quantization.scale[0]
    broken = compare(artifact, changed, outputs, scoring, against="TFLM", tolerance=SAME_BYTES)
    assert any("on image 40" in violation for violation in broken.violations)


def test_a_file_that_tflm_refuses_is_compared_without_it(
    workspace: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> Task:
        return Task(path.name, partial(open_session, path, runtime="tflm", batch=4))

    monkeypatch.setattr("edgecnn.verification.tflm_task", refuse)
    (parity,) = verify([workspace.path("tflite", "int8")], workspace.data, model=workspace.model_file)
    assert parity.reference == "float Keras model"
    assert (
        "digits-int8.tflite is not compared with TFLM: digits-int8.tflite has a batch of 1, and tflm cannot resize"
        in caplog.text
    )
