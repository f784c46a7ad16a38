"""Worker processes for code that may crash, hang or exhaust memory.

The parent sends one step at a time, a function of the worker's state and of arguments, and waits for the answer with a
time limit. Between steps the worker sleeps. A crash, a hang or a lack of memory ends only the worker. When the parent
ends, the worker ends too.
"""

import atexit
import contextlib
import ctypes
import importlib
import logging
import os
import re
import resource
import signal
import sys
import tempfile
import threading
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
from typing import Any, Concatenate, Generic, Literal, NamedTuple, ParamSpec, Self, TypeVar, TypeVarTuple

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
    """A new process whose state is the result of ``make``; a context manager that ends the process.

    ``how``: "spawn" starts Python anew; "fork" copies this process. ``parent``: it may start processes itself, and is
    not ended at the exit of this process unless it is stopped.

    Raises:
        WorkerError: on entering, no process can be started.
    """

    def __init__(self, make: Callable[[], S], how: Literal["spawn", "fork"] = "spawn", *, parent: bool = False) -> None:
        self._make = make
        self._context: Any = get_context(how)
        self._parent = parent

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
            self.connection, inside = self._context.Pipe()
        except OSError:
            os.close(self._log)
            raise
        try:
            arguments = (inside, _Log(self._log), self._make)
            self._process = self._context.Process(target=_serve, args=arguments, daemon=not self._parent)
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
        limit_s: float | None,
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

    def answer(self, doing: str, limit_s: float | None) -> Any:
        """The answer to the last ``ask``, within ``limit_s`` seconds of it; raises as ``call``."""
        value, logged = self.received(doing, limit_s)
        for level, text in logged:
            if level == logging.WARNING:
                warn_once(text)  # another process may have logged the same warning
            else:
                log.log(level, "%s", text)
        if isinstance(value, WorkerError):
            raise value
        return value

    def received(self, doing: str, limit_s: float | None) -> _Answer:
        """As ``answer``, without logging or raising what the step did."""
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
        assert isinstance(message, _Answer)
        return message

    def _message(self, doing: str, limit_s: float | None, since: float) -> Any:
        if limit_s is not None and not self.connection.poll(max(0.0, since + limit_s - time.monotonic())):
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
        return not self.connection.closed and self._process.is_alive()

    @property
    def process_id(self) -> int | None:
        """The process's number; None if it has ended."""
        return self._process.pid if self.alive else None

    def stop(self, patience_s: float = _GOODBYE_S) -> None:
        """End the process: close the connection, and kill the process after ``patience_s`` seconds. Idempotent."""
        if self.connection.closed:
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


class Kept(Generic[S]):
    """A worker that is started by its first call, and stays for the next one.

    It is replaced if it has ended, or if its temporary folder went with the command that started it.
    """

    def __init__(self, make: Callable[[], S], *, parent: bool = False) -> None:
        self._make, self._parent = make, parent
        self._lock = threading.Lock()
        self._worker: Worker[S] | None = None
        self._temporary = Path()
        os.register_at_fork(after_in_child=self._forget)
        atexit.register(self.stop)

    def call(
        self,
        doing: str,
        limit_s: float | None,
        step: Callable[Concatenate[S, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """As ``Worker.call``. Calls of several threads wait for each other."""
        with self._lock:
            if self._worker is None or not self._worker.alive or not self._temporary.is_dir():
                self.stop()
                self._worker = Worker(self._make, parent=self._parent).__enter__()
                self._temporary = Path(tempfile.gettempdir())
            try:
                return self._worker.call(doing, limit_s, step, *args, **kwargs)
            except WorkerError:
                raise
            except BaseException:  # interrupted: its answer would be taken for that of the next call
                self._worker.stop(patience_s=0.0)
                raise

    @property
    def process_id(self) -> int | None:
        """The number of its process, if there is one."""
        return None if self._worker is None else self._worker.process_id

    def stop(self) -> None:
        """End the process, if there is one, to free its memory."""
        if self._worker is not None:
            self._worker.stop()
            self._forget()

    def _forget(self) -> None:
        self._worker = None


class _Call(NamedTuple):
    """A call of ``isolated``, and the surroundings of its caller."""

    function: Callable[..., Any]
    args: tuple[Any, ...]
    doing: str
    limit_s: float
    temporary: str
    folder: Path
    environment: dict[str, str]
    path: list[str]


def isolated(function: Callable[[*Ts], T], *args: *Ts, doing: str, limit_s: float = LIMIT_S) -> T:
    """Run ``function(*args)`` in a process of its own, so that an untrusted file cannot crash or block this one.

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
        with TemporaryDirectory(prefix="edgecnn-") as temporary:
            call = _Call(function, args, doing, limit_s, temporary, Path.cwd(), dict(os.environ), sys.path)
            result: T = forker.call(doing, None, _forked, call)
            return result
    except OSError as error:
        raise SessionError(f"no temporary folder can be made for {doing}: {error.strerror or error}") from error
    except WorkerError as error:
        if error.raised is None and error.error not in ("OSError", "BlockingIOError", "MemoryError"):
            raise
        raise error.translated() from error


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
    log.handlers = [logged]
    log.setLevel(logging.INFO)  # the parent filters by level
    log.propagate = False
    if _state.connection is not None:  # a copy of the process that forks
        _end_with_parent()
        _state.connection.close()
    _state.connection = connection
    state = make()
    while True:
        try:
            step, args, kwargs = connection.recv()
        except (EOFError, ConnectionError):
            return
        try:
            answer = step(state, *args, **kwargs)
        except WorkerError as error:  # of a process of this one
            answer = error
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


# In the process that forks

# onnxruntime is not among them: it starts a thread
_PREPARED = ("numpy", "ai_edge_litert.interpreter", "onnx", "tensorflow", "tflite_micro")


def _forking() -> set[str]:
    """The names of packages that calls have needed."""
    os.environ["OPENBLAS_NUM_THREADS"] = "1"  # its threads would not exist in a copy
    return set()


def _forked(needed: set[str], call: _Call) -> Any:
    """Run ``call`` in a copy of this process, which loads first what earlier copies had to load."""
    for name in needed:
        importlib.import_module(name)
    with Worker(_nothing, "fork") as worker:
        try:
            worker.ask(_alone, call)
            answer, logged = worker.received(call.doing, call.limit_s)
            for level, text in logged:
                log.log(level, "%s", text)
            if isinstance(answer, WorkerError):
                raise answer
        except WorkerError as error:
            raise _explained(error, call.doing, worker.memory_bytes) from error
        finally:
            worker.stop(patience_s=0.0)
    value, loaded = answer
    needed.update(loaded)
    return value


def _explained(error: WorkerError, doing: str, memory_bytes: int | None) -> WorkerError:
    """``error`` with a message that says what may be wrong with the file."""
    if error.error == "MemoryError" and memory_bytes is not None:
        text = (
            f"{doing} needs more than {memory_bytes / 1e9:.1f} GB of memory, {error.reason}: the file is damaged, or "
            "too large for edgecnn"
        )
    elif error.error == "TimeoutError":
        text = f"{error.reason}: the file is damaged, contains an endless loop, or is too slow for this machine"
    elif error.error == "ChildProcessError":
        text = (
            f"{error.reason}: the file is damaged, or the runtime has a bug; export the file again, or try another "
            "version of the runtime"
        )
    else:
        return error
    return WorkerError(error.error, text, SessionError)


# In its copies


def _nothing() -> None:
    """The state of a process for a single call."""


def _alone(_: None, call: _Call) -> Any:
    """The single call of a process. Its folder for temporary files is removed by the caller."""
    os.environ.clear()
    os.environ.update(call.environment)
    os.chdir(call.folder)
    sys.path[:] = call.path
    tempfile.tempdir = os.environ["TMPDIR"] = call.temporary
    _state.confinable = True
    _ring(call.limit_s)
    value = call.function(*call.args)
    return value, [name for name in _PREPARED if name in sys.modules]


def _end_with_parent() -> None:
    """Let the kernel end this process when its parent ends (prctl(2), PR_SET_PDEATHSIG)."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


forker: Kept[set[str]] = Kept(_forking, parent=True)
"""The process whose copies run the calls of ``isolated``."""


def _ring(seconds: float) -> None:
    """Set an alarm that ends this process shortly after the time limit, in case the parent has ended."""
    signal.alarm(int(seconds + _ORPHAN_S) + 1)


def _data_bytes() -> int:
    """Private writable memory of this process, which RLIMIT_DATA counts."""
    found = re.search(r"^VmData:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024
