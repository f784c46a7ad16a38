"""A process of its own for what may crash, hang or take all memory: how it runs, and how the parent steers it.

The parent sends one step at a time, a function of the worker's state and of its arguments, and waits for the answer
with a time limit. Between steps the worker sleeps. A crash, a hang or a lack of memory ends this one process only, and
the end of the parent ends the worker.
"""

import contextlib
import logging
import os
import re
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import get_context, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.reduction import DupFd
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType, TracebackType
from typing import Any, Concatenate, Generic, NamedTuple, ParamSpec, Self, TypeVar, TypeVarTuple

from edgecnn.errors import EdgecnnError, SessionError, one_line
from edgecnn.records import warn_once

P = ParamSpec("P")
S = TypeVar("S")
T = TypeVar("T")
Ts = TypeVarTuple("Ts")

log = logging.getLogger("edgecnn")

LIMIT_S = 300.0
"""Seconds that a call in ``isolated`` may take, unless it says otherwise."""

# What an untrusted file may take, see ``confine``. A CNN for small devices is open and has answered once in well under
# a second, in some megabytes; a large one of 100 MB gets 35 s and 3 GB.
_FIRST_S, _BYTES_PER_S = 15.0, 5_000_000
_MEMORY_BYTES, _PER_BYTE = 750_000_000, 20
_STACK_BYTES = 8 * 2**20  # of a thread; runtimes may start one for each core

_GOODBYE_S = 5.0
_ORPHAN_S = 2.0
_LOG_TAIL = 65536
# How C++, LiteRT, ONNX Runtime, TensorFlow and the system say that there is no memory left.
_OUT_OF_MEMORY = re.compile(
    # an arena that is too small is no lack of memory: "failed to allocate tensors"
    r"bad_alloc|bad allocation|(?:failed|unable|cannot) to? ?allocate(?! tensors)|out of memory|resource_exhausted",
    re.IGNORECASE,
)


class WorkerError(Exception):
    """A step that brought no answer: the type of the error, and the reason in one line.

    ``raised`` is the class of an ``EdgecnnError`` that the step raised.
    """

    def __init__(self, error: str, reason: str, raised: type[EdgecnnError] | None = None) -> None:
        super().__init__(error, reason, raised)
        self.error = error
        self.reason = reason
        self.raised = raised

    def translated(self) -> EdgecnnError:
        """The ``EdgecnnError`` that the step raised; whatever else ended it is a ``SessionError``."""
        if self.raised is None:
            return SessionError(self.reason)
        return self.raised.__new__(self.raised, self.reason)  # some are made of other arguments than their message


class _Limits(NamedTuple):
    """What a step may take from now on: seconds, and bytes of memory if they are limited."""

    seconds: float
    memory_bytes: int | None


class _Answer(NamedTuple):
    """What a step returned, or why nothing, and what it logged: levels and messages."""

    value: Any
    logged: list[tuple[int, str]]


class Worker(Generic[S]):
    """A fresh process with a state that ``make`` makes there, for use in a ``with`` statement, which ends it.

    Raises:
        WorkerError: on entering, the system starts no more processes.
    """

    def __init__(self, make: Callable[[], S]) -> None:
        self._make = make

    def __enter__(self) -> Self:
        try:
            return self._started()
        except OSError as error:  # too many processes, or too many open files
            raise WorkerError(type(error).__name__, f"no process can be started for it: {error.strerror}") from error

    def _started(self) -> Self:
        self._log = os.memfd_create("edgecnn-worker")  # in memory: a full disk stops no worker
        self._kills = out_of_memory_kills()
        self._limits: _Limits | None = None
        try:
            self.connection, inside = get_context("spawn").Pipe()
        except OSError:
            os.close(self._log)
            raise
        try:
            arguments = (inside, _Log(self._log), self._make)
            self._process = get_context("spawn").Process(target=_serve, args=arguments, daemon=True)
            with _sheltered():
                self._process.start()
        except BaseException:
            os.close(self._log)
            self.connection.close()
            raise
        finally:
            inside.close()  # so that the pipe ends when the worker does
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop(patience_s=0.0 if kind else _GOODBYE_S)

    def call(
        self,
        doing: str,
        limit_s: float,
        step: Callable[Concatenate[S, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Run ``step`` in the worker and return its answer; ``doing`` says in errors what it was about.

        Raises:
            WorkerError: the step raised, gave no answer within ``limit_s`` seconds, or ended the process. In the last
                two cases the process is gone afterwards (see ``alive``).
        """
        self.ask(step, *args, **kwargs)
        answer: T = self.answer(doing, limit_s)
        return answer

    def ask(self, step: Callable[Concatenate[S, P], Any], *args: P.args, **kwargs: P.kwargs) -> None:
        """Send ``step`` to the worker, which begins it; ``connection`` is ready to be read once there is an answer."""
        self.asked = time.monotonic()
        with contextlib.suppress(ConnectionError):  # a process that has ended is noticed at its answer
            self.connection.send((step, args, kwargs))

    def answer(self, doing: str, limit_s: float) -> Any:
        """The answer to what was asked last, within ``limit_s`` seconds of then; errors as those of ``call``."""
        try:
            message = self._message(doing, limit_s, self.asked)
            while isinstance(message, _Limits):
                self._limits = message
                message = self._message(doing, message.seconds, time.monotonic())
        except (EOFError, ConnectionError) as error:
            self._process.join(_GOODBYE_S)
            kind, death = self._death()
            self.stop()
            raise WorkerError(kind, f"{death} while {doing}") from error
        for level, text in message.logged:
            if level == logging.WARNING:
                warn_once(text)  # another process may have said so
            else:
                log.log(level, "%s", text)
        if isinstance(message.value, WorkerError):
            raise message.value
        return message.value

    def _message(self, doing: str, limit_s: float, since: float) -> Any:
        if not self.connection.poll(max(0.0, since + limit_s - time.monotonic())):
            self.stop(patience_s=0.0)
            raise WorkerError("TimeoutError", f"no answer within {limit_s:.3g} s while {doing}; killed")
        return self.connection.recv()

    @property
    def memory_bytes(self) -> int | None:
        """What it may take of memory, where that is limited."""
        return None if self._limits is None else self._limits.memory_bytes

    @property
    def alive(self) -> bool:
        """Whether it answers steps; once it was ended, for whatever reason, it does not."""
        return not self.connection.closed

    def stop(self, patience_s: float = _GOODBYE_S) -> None:
        """End the process: hang up, which it understands, and kill it after ``patience_s`` seconds.

        May be called again.
        """
        if not self.alive:
            return
        try:
            self.connection.close()
            self._process.join(patience_s)
        finally:
            self._process.kill()
            self._process.join()
            self._process.close()
            os.close(self._log)

    def _death(self) -> tuple[str, str]:
        """The type of error that the end of the process is, and how it ended, with the last line it wrote."""
        code = self._process.exitcode
        kind = "ChildProcessError"
        if code is None:
            how = "stopped answering"
        elif code < 0:
            how = f"killed by {_signal_name(-code)}"
        else:
            how = f"ended with exit status {code}"
        if code == -signal.SIGKILL:
            if out_of_memory_kills() > self._kills:
                kind = "MemoryError"
                how += ": the kernel had no memory left,"
            else:
                how += ", as happens when memory runs out,"
        tail = _tail(self._log)
        last = next((one_line(line) for line in reversed(tail.split("\n")) if line.strip()), "")
        if _OUT_OF_MEMORY.search(tail):
            kind = "MemoryError"
            how += ", out of memory"
        return kind, f"{how} (its last line: {last})" if last else how


def isolated(function: Callable[[*Ts], T], *args: *Ts, doing: str, limit_s: float = LIMIT_S) -> T:
    """``function(*args)`` in a fresh process, which a file that others made may crash, hang or fill; not this one.

    ``doing`` says in errors what it is about, such as "opening x.onnx". What the function logs with the logger
    "edgecnn" is logged here. In a worker already, the function runs there.

    Raises:
        EdgecnnError: the function raised it.
        SessionError: the process crashed, took longer than ``limit_s`` seconds or needed more memory than ``confine``
            allows.
        WorkerError: the function raised something else.
    """
    if in_worker():
        return function(*args)
    try:
        with TemporaryDirectory(prefix="edgecnn-") as folder, Worker(_nothing) as worker:
            try:
                return worker.call(doing, limit_s, _alone, folder, limit_s, function, args)
            except WorkerError as error:
                raise _explained(error, doing, worker.memory_bytes) from error
            finally:
                worker.stop(patience_s=0.0)  # it has nothing left to do
    except OSError as error:
        raise SessionError(f"no temporary folder can be made for {doing}: {error.strerror or error}") from error
    except WorkerError as error:
        if error.error in ("OSError", "BlockingIOError"):
            raise SessionError(error.reason) from error
        raise


def _explained(error: WorkerError, doing: str, memory_bytes: int | None) -> Exception:
    """What ``isolated`` raises."""
    if error.error == "MemoryError" and memory_bytes is not None:
        return SessionError(
            f"{doing} needs more than {memory_bytes / 1e9:.1f} GB of memory, {error.reason}: the file is damaged, or "
            "made for larger machines"
        )
    if error.error == "TimeoutError":
        return SessionError(
            f"{error.reason}: the file is damaged, has a loop without an end, or is too slow for this machine"
        )
    if error.error == "ChildProcessError":
        return SessionError(
            f"{error.reason}: the file is damaged, or the runtime has a fault; make the file again, or try another "
            "version of the runtime"
        )
    return error if error.raised is None and error.error != "MemoryError" else error.translated()


def confine(size: int) -> None:
    """From here on, this process works on a file of ``size`` bytes that others made: limit its memory and its time.

    Memory is what is taken now, 750 MB, a stack for each core and 20 times the size; time, until ``more_time`` is
    called, 15 s and 1 s for every 5 MB. Only in a process of ``isolated`` and only once; elsewhere nothing happens.
    """
    if _state.confinable and _state.memory_bytes is None:
        beyond = _MEMORY_BYTES + _PER_BYTE * size + _STACK_BYTES * (os.cpu_count() or 1)
        _state.memory_bytes = beyond
        resource.setrlimit(resource.RLIMIT_DATA, (_data_bytes() + beyond, resource.RLIM_INFINITY))
        more_time(_FIRST_S + size / _BYTES_PER_S)


def more_time(seconds: float) -> None:
    """In a process of ``isolated``, give it ``seconds`` from now on; elsewhere nothing happens."""
    if _state.confinable:
        assert _state.connection is not None
        _ring(seconds)
        _state.connection.send(_Limits(seconds, _state.memory_bytes))


def in_worker() -> bool:
    """Whether this process is a worker, which is there to be lost."""
    return _state.connection is not None


def said(since: int = 0) -> str:
    """In a worker, what has been printed there, its libraries' messages included, from byte ``since`` on."""
    return _tail(2, since)


def said_bytes() -> int:
    """In a worker, how many bytes have been printed there."""
    return os.fstat(2).st_size


def out_of_memory_kills(vmstat: Path = Path("/proc/vmstat")) -> int:
    """How many processes the kernel has killed because memory, the machine's or a container's, had run out."""
    try:
        found = re.search(r"^oom_kill (\d+)$", vmstat.read_text(), re.MULTILINE)
    except OSError:  # not this system, or not allowed: unknown
        return 0
    return int(found[1]) if found else 0


def _signal_name(number: int) -> str:
    known = {int(one): one.name for one in signal.Signals}
    return known.get(number, f"signal {number}")  # real-time signals have no names


def _tail(descriptor: int, since: int = 0) -> str:
    size = os.fstat(descriptor).st_size
    return os.pread(descriptor, _LOG_TAIL, max(since, size - _LOG_TAIL)).decode(errors="replace")


@contextmanager
def _sheltered() -> Iterator[None]:
    """Processes started here neither hear Ctrl-C, which the parent handles, nor run what they should not.

    The first is inherited with the signal mask. A new process imports the main module of its parent, and so does all
    that a script without a main guard does; and it looks for modules in the current folder first, whoever filled that.
    """
    safe_path = os.environ.get("PYTHONSAFEPATH")
    os.environ["PYTHONSAFEPATH"] = "1"
    resource_tracker.ensure_running()  # starting it later would lift the mask
    main = sys.modules["__main__"]
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if safe_path is None:
            del os.environ["PYTHONSAFEPATH"]
        else:
            os.environ["PYTHONSAFEPATH"] = safe_path


class _Log:
    """A file descriptor that finds its way into a new process."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def __getstate__(self) -> Any:
        return DupFd(self.descriptor)

    def __setstate__(self, passed: Any) -> None:
        self.descriptor = passed.detach()


# In the worker


class _State:
    """What this process knows of itself: in a worker, the connection to its parent and its limits."""

    connection: "Connection[Any, Any] | None" = None
    confinable = False
    memory_bytes: int | None = None


_state = _State()


class _Logged(logging.Handler):
    """Keeps what is logged until it is sent with an answer."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[tuple[int, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.kept.append((record.levelno, record.getMessage()))

    def taken(self) -> list[tuple[int, str]]:
        kept, self.kept = self.kept, []
        return kept


def _serve(connection: "Connection[Any, Any]", log_file: _Log, make: Callable[[], Any]) -> None:
    """Answer steps until the parent hangs up. Everything printed goes to ``log_file``."""
    os.dup2(log_file.descriptor, 1)
    os.dup2(log_file.descriptor, 2)
    os.close(log_file.descriptor)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a crash is an answer here: leave no core file
    with contextlib.suppress(OSError):  # where memory runs out, the kernel shall end this process and no other
        Path("/proc/self/oom_score_adj").write_text("1000")
    # so that several workers share a GPU, where TensorFlow and JAX would each take it all
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    logged = _Logged()
    log.addHandler(logged)
    log.setLevel(logging.INFO)  # the parent drops what is not wanted
    log.propagate = False
    _state.connection = connection
    state = make()
    while True:
        try:
            step, args, kwargs = connection.recv()
        except (EOFError, ConnectionError):
            return
        try:
            answer = step(state, *args, **kwargs)
        except Exception as error:  # noqa: BLE001 - whatever a runtime raises is the reason of its row
            answer = _reason(error)
        connection.send(_Answer(answer, logged.taken()))


def _reason(error: Exception) -> WorkerError:
    text = " ".join(str(error).split())
    raised = type(error) if isinstance(error, EdgecnnError) else None
    if isinstance(error, MemoryError) or _OUT_OF_MEMORY.search(text):
        return WorkerError("MemoryError", f"out of memory: {text}" if text else "out of memory", raised)
    found = WorkerError(type(error).__name__, text or "it gave no reason", raised)
    if raised is None:
        found.add_note("".join(traceback.format_exception(error)))
    return found


def _nothing() -> None:
    """The state of a process that makes one call."""


def _alone(_: None, folder: str, limit_s: float, function: Callable[..., T], args: tuple[Any, ...]) -> T:
    """The one call of a process of ``isolated``; ``folder`` is for temporary files, which the parent removes."""
    tempfile.tempdir = os.environ["TMPDIR"] = folder
    _state.confinable = True
    _ring(limit_s)
    return function(*args)


def _ring(seconds: float) -> None:
    """Have the kernel end this process a little after its parent should have: whatever runs, if that is gone."""
    signal.alarm(int(seconds + _ORPHAN_S) + 1)


def _data_bytes() -> int:
    """Private writable memory of this process, which RLIMIT_DATA counts."""
    found = re.search(r"^VmData:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024
