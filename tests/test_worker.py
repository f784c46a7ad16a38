"""Functions in processes of their own: what they return, raise and log, and how they end."""

import ctypes
import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from edgecnn.artifacts import describe_here
from edgecnn.errors import ArtifactError, ConfigError, SessionError, UnknownNameError
from edgecnn.runtimes import runtime_for
from edgecnn.worker import WorkerError, confine, forker, in_worker, isolated, more_time


def _adds(one: int, other: int) -> tuple[int, int, bool]:
    return os.getpid(), one + other, in_worker()


def test_a_function_answers_from_another_process() -> None:
    process, total, inside = isolated(_adds, 2, 3, doing="adding")
    assert (total, inside) == (5, True)
    assert process != os.getpid()
    assert not in_worker()


def _calls_another() -> bool:
    return isolated(os.getpid, doing="asking") == os.getpid()


def test_inside_a_worker_there_is_no_other() -> None:
    assert isolated(_calls_another, doing="asking")


def _raises(error: Exception) -> None:
    raise error


def test_errors_of_ours_arrive_as_they_are() -> None:
    for error in (ArtifactError("x.tflite is damaged"), ConfigError("a shape is needed")):
        with pytest.raises(type(error), match=f"^{error}$"):
            isolated(_raises, error, doing="reading")
    with pytest.raises(UnknownNameError, match="unknown runtime 'x'; choose from: c99"):
        isolated(runtime_for, Path(), "x", doing="looking")


def _threads() -> int:
    return len(list(Path("/proc/self/task").iterdir()))


def test_the_process_that_is_copied_has_no_threads() -> None:
    """Threads would be missing in a copy, which would wait for them for ever."""
    isolated(describe_here, Path(__file__).parent / "files" / "tiny-int8.tflite", None, 1, doing="opening")
    assert isolated(_threads, doing="counting") == 1
    status = Path(f"/proc/{forker.process_id}/status").read_text()
    assert "Threads:\t1\n" in status


def _place(name: str) -> tuple[str, str | None, str]:
    return str(Path.cwd()), os.environ.get(name), sys.path[-1]


def test_a_call_sees_the_surroundings_of_its_caller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for value in ("1", "2"):
        (tmp_path / value).mkdir()
        monkeypatch.chdir(tmp_path / value)
        monkeypatch.setenv("EDGECNN_TEST", value)
        monkeypatch.syspath_prepend(value)
        monkeypatch.setattr(sys, "path", [*sys.path, value])
        assert isolated(_place, "EDGECNN_TEST", doing="asking") == (str(tmp_path / value), value, value)


def test_another_process_takes_the_place_of_one_that_was_killed() -> None:
    first = isolated(os.getppid, doing="asking")
    assert first == isolated(os.getppid, doing="asking") == forker.process_id
    os.kill(first, signal.SIGKILL)
    _wait_until(lambda: forker.process_id is None)
    assert isolated(os.getppid, doing="asking") != first


def test_an_error_that_is_none_of_ours_stays_one() -> None:
    with pytest.raises(WorkerError) as caught:
        isolated(_raises, KeyError("gone"), doing="reading")
    assert (caught.value.error, caught.value.reason) == ("KeyError", "'gone'")
    assert "in _raises" in "".join(caught.value.__notes__), "where it was raised is told"


def _crashes() -> None:
    ctypes.string_at(0)


def _says_and_aborts() -> None:
    os.write(2, b"\x1b[31mcheck failed " + b"x" * 5000 + b"\n")
    os.abort()


def test_a_crash_is_an_error_in_one_printable_line() -> None:
    with pytest.raises(SessionError, match=r"^killed by SIGSEGV while opening x: the file is damaged, or"):
        isolated(_crashes, doing="opening x")
    with pytest.raises(SessionError, match=r"SIGABRT \(its last line: \\x1b\[31mcheck failed x+…x+\)") as caught:
        isolated(_says_and_aborts, doing="opening x")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1000


def _hangs(folder: Path) -> None:
    tempfile.mkdtemp()
    (folder / "id").write_text(str(os.getpid()))
    time.sleep(60)


def test_a_hang_is_ended_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    with pytest.raises(SessionError, match=r"no answer within 1 s while opening x; killed: .* an endless loop"):
        isolated(_hangs, tmp_path, doing="opening x", limit_s=1.0)
    assert not list(temporary.iterdir())
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "id").read_text()), 0)


def _confined(nap: float, more: float | None) -> str:
    confine(0)
    if more is not None:
        more_time(more)
    time.sleep(nap)
    return "done"


def test_a_confined_file_has_its_own_time_until_it_has_answered() -> None:
    with pytest.raises(SessionError, match=r"no answer within 0\.5 s while opening"):
        isolated(_confined, 60.0, 0.5, doing="opening")
    assert isolated(_confined, 3.5, 30.0, doing="opening", limit_s=3.0) == "done"


def _takes(count: int) -> int:
    confine(0)
    return len(bytearray(count))


def test_memory_has_an_end() -> None:
    with pytest.raises(SessionError, match=r"^opening x needs more than \d\.\d GB of memory, out of memory: the file"):
        isolated(_takes, 2**32, doing="opening x")
    assert isolated(_takes, 2**29, doing="opening x") == 2**29


def _logs(path: str) -> None:
    logger = logging.getLogger("edgecnn")
    logger.info("reading %s", path)
    logger.warning("%s has odd metadata", path)


def test_what_is_logged_inside_is_logged_here(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "edgecnn"):
        isolated(_logs, "100%.onnx", doing="reading")
    found = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert found == [("INFO", "reading 100%.onnx"), ("WARNING", "100%.onnx has odd metadata")]
    caplog.clear()
    with caplog.at_level(logging.WARNING, "edgecnn"):
        isolated(_logs, "x", doing="reading")
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def _wait_until(true: Callable[[], object]) -> None:
    end = time.monotonic() + 20
    while not true():
        assert time.monotonic() < end, "waited 20 s in vain"
        time.sleep(0.02)


def _started(script: str, folder: Path) -> tuple["subprocess.Popen[bytes]", int]:
    """A process that runs ``script`` with ``folder``, and its worker's id, once that hangs."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    process = subprocess.Popen([sys.executable, "-c", script, str(folder)], env=environment, stderr=subprocess.PIPE)
    told = folder / "id"
    _wait_until(lambda: told.is_file() and told.read_text())
    return process, int(told.read_text())


def test_ctrl_c_ends_it_at_once(tmp_path: Path) -> None:
    script = (
        "import sys\nfrom pathlib import Path\nfrom edgecnn.worker import isolated\nfrom test_worker import _hangs\n"
        "isolated(_hangs, Path(sys.argv[1]), doing='opening')"
    )
    process, worker = _started(script, tmp_path)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=20)
    assert b"KeyboardInterrupt" in said
    _wait_until(lambda: not Path(f"/proc/{worker}").exists())


def _outlives(folder: Path) -> None:
    confine(0)
    more_time(1.0)
    _hangs(folder)


def test_it_ends_without_its_parent_too(tmp_path: Path) -> None:
    """A killed parent ends nothing: the kernel ends the worker, whatever runs in it."""
    script = (
        "import sys\nfrom pathlib import Path\nfrom edgecnn.worker import isolated\nfrom test_worker import _outlives\n"
        "isolated(_outlives, Path(sys.argv[1]), doing='opening')"
    )
    process, worker = _started(script, tmp_path)
    process.kill()
    process.communicate(timeout=20)
    _wait_until(lambda: not Path(f"/proc/{worker}").exists())
