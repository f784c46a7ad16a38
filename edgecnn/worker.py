"""Worker processes for code that may crash, hang or exhaust memory.

The parent sends one step at a time, a function of the worker's state and of arguments, and waits for the answer with a
time limit. Between steps the worker sleeps. A crash, a hang or a lack of memory ends only the worker. When the parent
ends, the worker ends too.
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
"""Default time limit of a call in ``isolated``, in seconds."""

# Limits for an untrusted file, see ``confine``. A CNN for small devices opens and runs once in well under a second, in
# some megabytes; a model of 100 MB gets 35 s and 3 GB.
_FIRST_S, _BYTES_PER_S = 15.0, 5_000_000
_MEMORY_BYTES, _PER_BYTE = 750_000_000, 20
_STACK_BYTES = 8 * 2**20  # of a thread; runtimes may start one for each core

_GOODBYE_S = 5.0
_ORPHAN_S = 2.0
_LOG_TAIL = 65536
# Out-of-memory messages of C++, LiteRT, ONNX Runtime, TensorFlow and the system.
_OUT_OF_MEMORY = re.compile(
    # "failed to allocate tensors" means that an arena is too small, not that memory is exhausted
    r"bad_alloc|bad allocation|(?:failed|unable|cannot) to? ?allocate(?! tensors)|out of memory|resource_exhausted",
    re.IGNORECASE,
)


class WorkerError(Exception):
    """A failed step: the type of the error, and the reason in one line.

    ``raised`` is the class of the ``EdgecnnError`` that the step raised, if it did.
    """

    def __init__(self, error: str, reason: str, raised: type[EdgecnnError] | None = None) -> None:
        super().__init__(error, reason, raised)
        self.error = error
        self.reason = reason
        self.raised = raised

    def translated(self) -> EdgecnnError:
        """The ``EdgecnnError`` that the step raised; a ``SessionError`` for any other failure."""
        if self.raised is None:
            return SessionError(self.reason)
        return self.raised.__new__(self.raised, self.reason)  # some constructors take other arguments than the message


class _Limits(NamedTuple):
    """New limits of the running step: seconds from now, and bytes of memory if limited."""

    seconds: float
    memory_bytes: int | None


class _Answer(NamedTuple):
    """The return value of a step, or its error, and its log messages with their levels."""

    value: Any
    logged: list[tuple[int, str]]


class Worker(Generic[S]):
    """A fresh process whose state is the result of ``make``; a context manager that ends the process.

    Raises:
        WorkerError: on entering, no process can be started.
    """

    def __init__(self, make: Callable[[], S]) -> None:
        self._make = make

    def __enter__(self) -> Self:
        try:
            return self._started()
        except OSError as error:  # too many processes, or too many open files
            raise WorkerError(type(error).__name__, f"no process can be started for it: {error.strerror}") from error

    def _started(self) -> Self:
        self._log = os.memfd_create("edgecnn-worker")  # in memory, so that a full disk does not matter
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
        """Run ``step`` in the worker and return its result; ``doing`` describes the step in errors.

        Raises:
            WorkerError: the step raised, exceeded ``limit_s`` seconds, or ended the process. In the last two cases the
                process has ended (see ``alive``).
        """
        self.ask(step, *args, **kwargs)
        answer: T = self.answer(doing, limit_s)
        return answer

    def ask(self, step: Callable[Concatenate[S, P], Any], *args: P.args, **kwargs: P.kwargs) -> None:
        """Send ``step`` to the worker, which starts it; ``connection`` becomes readable with the answer."""
        self.asked = time.monotonic()
        with contextlib.suppress(ConnectionError):  # ``answer`` reports a process that has ended
            self.connection.send((step, args, kwargs))

    def answer(self, doing: str, limit_s: float) -> Any:
        """The answer to the last ``ask``, within ``limit_s`` seconds of it; raises as ``call``."""
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
                warn_once(text)  # another process may have logged the same warning
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
        """The memory limit in bytes, if there is one."""
        return None if self._limits is None else self._limits.memory_bytes

    @property
    def alive(self) -> bool:
        """Whether the process accepts steps: it has not ended and was not stopped."""
        return not self.connection.closed

    def stop(self, patience_s: float = _GOODBYE_S) -> None:
        """End the process: close the connection, and kill the process after ``patience_s`` seconds. Idempotent."""
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
        """The error type for the end of the process, and how it ended, with the last line that it printed."""
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
                how += ", possibly because memory ran out,"
        tail = _tail(self._log)
        last = next((one_line(line) for line in reversed(tail.split("\n")) if line.strip()), "")
        if _OUT_OF_MEMORY.search(tail):
            kind = "MemoryError"
            how += ", out of memory"
        return kind, f"{how} (its last line: {last})" if last else how


def isolated(function: Callable[[*Ts], T], *args: *Ts, doing: str, limit_s: float = LIMIT_S) -> T:
    """Run ``function(*args)`` in a fresh process, so that an untrusted file cannot crash or block this one.

    ``doing`` describes the call in errors, such as "opening x.onnx". Messages of the logger "edgecnn" are logged in
    this process. If this process is a worker already, the function runs in it.

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
                worker.stop(patience_s=0.0)
    except OSError as error:
        raise SessionError(f"no temporary folder can be made for {doing}: {error.strerror or error}") from error
    except WorkerError as error:
        if error.error in ("OSError", "BlockingIOError"):
            raise SessionError(error.reason) from error
        raise


def _explained(error: WorkerError, doing: str, memory_bytes: int | None) -> Exception:
    """The error that ``isolated`` raises."""
    if error.error == "MemoryError" and memory_bytes is not None:
        return SessionError(
            f"{doing} needs more than {memory_bytes / 1e9:.1f} GB of memory, {error.reason}: the file is damaged, or "
            "too large for edgecnn"
        )
    if error.error == "TimeoutError":
        return SessionError(
            f"{error.reason}: the file is damaged, contains an endless loop, or is too slow for this machine"
        )
    if error.error == "ChildProcessError":
        return SessionError(
            f"{error.reason}: the file is damaged, or the runtime has a bug; export the file again, or try another "
            "version of the runtime"
        )
    return error if error.raised is None and error.error != "MemoryError" else error.translated()


def confine(size: int) -> None:
    """Limit memory and time of this process, which now works on an untrusted file of ``size`` bytes.

    The memory limit is the current use plus 750 MB, a stack per core and 20 times the file size. The time limit is 15 s
    plus 1 s per 5 MB, until ``more_time`` is called. Has an effect only in a process of ``isolated``, and only once.
    """
    if _state.confinable and _state.memory_bytes is None:
        beyond = _MEMORY_BYTES + _PER_BYTE * size + _STACK_BYTES * (os.cpu_count() or 1)
        _state.memory_bytes = beyond
        resource.setrlimit(resource.RLIMIT_DATA, (_data_bytes() + beyond, resource.RLIM_INFINITY))
        more_time(_FIRST_S + size / _BYTES_PER_S)


def more_time(seconds: float) -> None:
    """In a process of ``isolated``, set the time limit to ``seconds`` from now; elsewhere, do nothing."""
    if _state.confinable:
        assert _state.connection is not None
        _ring(seconds)
        _state.connection.send(_Limits(seconds, _state.memory_bytes))


def in_worker() -> bool:
    """Whether this process is a worker, which may crash without harm."""
    return _state.connection is not None


def printed(since: int = 0) -> str:
    """In a worker: everything printed so far, also by C++ libraries, from byte ``since`` on."""
    return _tail(2, since)


def printed_bytes() -> int:
    """In a worker: the number of bytes printed so far."""
    return os.fstat(2).st_size


def out_of_memory_kills(vmstat: Path = Path("/proc/vmstat")) -> int:
    """How many processes the kernel has killed because the machine or a container was out of memory."""
    try:
        found = re.search(r"^oom_kill (\d+)$", vmstat.read_text(), re.MULTILINE)
    except OSError:  # another system, or no permission: unknown
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
    """Make processes started in the block ignore Ctrl-C, which the parent handles, and run only trusted code.

    Ctrl-C is blocked by the inherited signal mask. Without protection, a new process would import the parent's main
    module, which runs a script without a main guard, and would search the current folder for modules first.
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
    """A file descriptor that can be sent to a new process."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def __getstate__(self) -> Any:
        return DupFd(self.descriptor)

    def __setstate__(self, passed: Any) -> None:
        self.descriptor = passed.detach()


# In the worker


class _State:
    """The state of this process: in a worker, the connection to its parent and its limits."""

    connection: "Connection[Any, Any] | None" = None
    confinable = False
    memory_bytes: int | None = None


_state = _State()


class _Logged(logging.Handler):
    """Keeps log messages until they are sent with an answer."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[tuple[int, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.kept.append((record.levelno, record.getMessage()))

    def taken(self) -> list[tuple[int, str]]:
        kept, self.kept = self.kept, []
        return kept


def _serve(connection: "Connection[Any, Any]", log_file: _Log, make: Callable[[], Any]) -> None:
    """Run steps until the parent closes the connection. Everything printed goes to ``log_file``."""
    os.dup2(log_file.descriptor, 1)
    os.dup2(log_file.descriptor, 2)
    os.close(log_file.descriptor)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # crashes are expected: no core files
    with contextlib.suppress(OSError):  # if memory runs out, the kernel kills this process first
        Path("/proc/self/oom_score_adj").write_text("1000")
    # so that several workers can share a GPU: by default TensorFlow and JAX reserve all of its memory
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    logged = _Logged()
    log.addHandler(logged)
    log.setLevel(logging.INFO)  # the parent filters by level
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
        except Exception as error:  # noqa: BLE001 - any error of a runtime becomes the reason of its row
            answer = _reason(error)
        connection.send(_Answer(answer, logged.taken()))


def _reason(error: Exception) -> WorkerError:
    text = " ".join(str(error).split())
    raised = type(error) if isinstance(error, EdgecnnError) else None
    if isinstance(error, MemoryError) or _OUT_OF_MEMORY.search(text):
        return WorkerError("MemoryError", f"out of memory: {text}" if text else "out of memory", raised)
    found = WorkerError(type(error).__name__, text or "no reason given", raised)
    if raised is None:
        found.add_note("".join(traceback.format_exception(error)))
    return found


def _nothing() -> None:
    """The state of a process for a single call."""


def _alone(_: None, folder: str, limit_s: float, function: Callable[..., T], args: tuple[Any, ...]) -> T:
    """The single call of a process of ``isolated``; ``folder`` is for temporary files, and removed by the parent."""
    tempfile.tempdir = os.environ["TMPDIR"] = folder
    _state.confinable = True
    _ring(limit_s)
    return function(*args)


def _ring(seconds: float) -> None:
    """Set an alarm that ends this process shortly after the time limit, in case the parent has ended."""
    signal.alarm(int(seconds + _ORPHAN_S) + 1)


def _data_bytes() -> int:
    """Private writable memory of this process, which RLIMIT_DATA counts."""
    found = re.search(r"^VmData:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024
