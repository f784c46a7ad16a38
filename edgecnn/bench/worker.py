"""A process of its own for each candidate: what runs inside it, and how the parent steers it.

The parent sends one step at a time, a method of :class:`Workbench` with its arguments, and waits for the
answer with a time limit. Between steps the worker sleeps. A crash, a hang or a lack of memory ends this one candidate
only, and the end of the parent ends the worker.
"""

import contextlib
import importlib
import math
import os
import re
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import get_context, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.reduction import DupFd
from pathlib import Path
from statistics import median
from types import ModuleType, TracebackType
from typing import Any, Concatenate, NamedTuple, ParamSpec, Self, TypeVar

import msgspec
import numpy as np

from edgecnn.bench import counters
from edgecnn.bench.timing import time_calls
from edgecnn.errors import ArtifactError
from edgecnn.files import sha256_file
from edgecnn.optional import require
from edgecnn.records import Artifact, ColdStart, Energy, Memory
from edgecnn.runtimes import Float, Session, open_session, runtime_for, tflm

P = ParamSpec("P")
T = TypeVar("T")

_WINDOW = 3
_WINDOW_S = 0.02
_STEADY = 0.05
_GOODBYE_S = 5.0
_LOG_TAIL = 65536
# How C++, LiteRT, ONNX Runtime, TensorFlow and the system say that there is no memory left.
_OUT_OF_MEMORY = re.compile(
    r"bad_alloc|bad allocation|(?:failed|unable|cannot) to? ?allocate|out of memory|resource_exhausted", re.IGNORECASE
)


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """A model file to measure, and how to run it.

    ``runtime`` names one, ``None`` takes the first for the file's format; ``device`` is "cpu" or "gpu".
    """

    path: Path
    artifact: Artifact
    runtime: str | None = None
    threads: int = 1
    batch: int = 1
    device: str = "cpu"

    @property
    def subject(self) -> str:
        """What failures call it."""
        on = "" if self.runtime is None else f" on {self.runtime}"
        return f"{self.artifact.name}{on}, threads {self.threads}, batch {self.batch}, {self.device}"


class Opened(NamedTuple):
    """The name of the runtime, and what the process took until its first answer."""

    runtime: str
    cold_start: ColdStart


class Warmth(NamedTuple):
    """The times of a warm-up in seconds, and whether they had settled by its end."""

    samples: list[float]
    steady: bool


class Block(NamedTuple):
    """One block: seconds of each ``invoke`` and of each way from end to end, and those to refill the caches before.

    ``others_busy`` is the share of all cores that other processes took, as in ``Measurement``; ``energy`` what the
    packages spent on ``lead`` and ``samples``; ``None`` where the system does not tell.
    """

    lead: list[float]
    samples: list[float]
    end_to_end: list[float]
    others_busy: float | None
    energy: Energy | None


class WorkerError(Exception):
    """A step that brought no answer: the type of the error, and the reason in one line."""

    def __init__(self, error: str, reason: str) -> None:
        super().__init__(error, reason)
        self.error = error
        self.reason = reason


class Workbench:
    """What a worker does with its candidate. Times are in seconds."""

    def __init__(self) -> None:
        self.session: Session
        self.job: int | None = None  # of ``edgecnn.inference``, whose session this is
        self._images: Float
        self._empty_bytes: int | None = None

    def ready(self) -> None:
        """Nothing: its answer tells that Python has started and what a worker needs is imported."""

    def open(self, candidate: Candidate, image: Float) -> Opened:
        """Open the candidate's file and classify ``image`` ``(height, width, channels)``, once per batch entry.

        The file is read before, for its hash, so loading times hold for a file in the system's cache. The first
        inference is timed from end to end.

        Raises:
            ArtifactError: no such file, or another than the artifact describes.
            SessionError: the runtime refuses it.
            MissingExtraError: the runtime is not installed.
        """
        path, artifact = candidate.path, candidate.artifact
        runtime = runtime_for(path, candidate.runtime)
        self._empty_bytes = counters.resident_bytes()
        start = time.perf_counter()
        require(runtime.package)
        import_s = time.perf_counter() - start
        importlib.import_module(runtime.module)  # ours: it takes no part in load_s
        if path.is_file() and sha256_file(path) != artifact.sha256:
            raise ArtifactError(f"{path} is not the file its artifact record describes; export it again")
        start = time.perf_counter()
        self.session = open_session(
            path,
            runtime=runtime.name,
            threads=candidate.threads,
            batch=candidate.batch,
            device=candidate.device,
        )
        load_s = time.perf_counter() - start
        first_s = self.use(image, candidate.batch)
        return Opened(runtime.name, ColdStart(import_s=import_s, load_s=load_s, first_s=first_s))

    def use(self, image: Float, batch: int) -> float:
        """Have ``session`` classify ``image`` ``(height, width, channels)``, ``batch`` times at once, from now on.

        Returns the seconds of the first time, from end to end.
        """
        self._images = np.repeat(image[np.newaxis], batch, axis=0)
        (first_s,) = time_calls(self._end_to_end, 1)
        return first_s

    def warm_up(self, limit_s: float) -> Warmth:
        """Invoke until the times are steady, or ``limit_s`` have passed.

        The times are looked at in windows of 3 invocations and 20 ms, whichever is longer: two windows in a row whose
        medians differ by at most 5 % are steady. Two windows there are at least, however long they take.
        """
        samples: list[float] = []
        end = time.perf_counter() + limit_s
        before = math.inf
        while True:
            window_end = time.perf_counter() + _WINDOW_S
            window = time_calls(self.session.invoke, _WINDOW)
            while time.perf_counter() < window_end:
                window += time_calls(self.session.invoke, 1)
            samples += window
            now = median(window)
            if abs(now - before) <= _STEADY * before < math.inf:
                return Warmth(samples, True)
            if time.perf_counter() > end and before < math.inf:
                return Warmth(samples, False)
            before = now

    def block(self, lead: int, count: int, end_to_end: int) -> Block:
        """Invoke ``lead`` and then ``count`` times, then go ``end_to_end`` times from encode to decode.

        Before the latter, a tenth as many are done that are not kept.
        """
        start, busy, own = time.perf_counter(), counters.busy_s(), time.process_time()
        joules = counters.joules()
        leading = time_calls(self.session.invoke, lead)
        samples = time_calls(self.session.invoke, count)
        energy = None
        if joules is not None and (spent := counters.joules()) is not None:
            energy = Energy(counter=spent.counter, joules=spent.since(joules), inferences=lead + count)
        time_calls(self._end_to_end, end_to_end // 10)
        whole = time_calls(self._end_to_end, end_to_end)
        own, wall, busy_now = time.process_time() - own, time.perf_counter() - start, counters.busy_s()
        others = None
        if busy is not None and busy_now is not None:
            others = (busy_now - busy - own) / (wall * (os.cpu_count() or 1))
        return Block(leading, samples, whole, others, energy)

    def memory(self) -> Memory | None:
        """What the process has taken so far, ``None`` where the system does not tell."""
        peak = counters.resident_bytes(peak=True)
        if peak is None or self._empty_bytes is None:
            return None
        arena = getattr(self.session, "arena_bytes", None)
        return Memory(empty_bytes=self._empty_bytes, peak_bytes=peak, arena_bytes=arena)

    def _end_to_end(self) -> None:
        self.session.encode(self._images)
        self.session.invoke()
        self.session.decode()


class Worker:
    """A fresh process with a :class:`Workbench`, for use in a ``with`` statement, which ends it.

    Raises:
        WorkerError: on entering, the system starts no more processes.
    """

    def __enter__(self) -> Self:
        try:
            return self._started()
        except OSError as error:  # too many processes, or too many open files
            raise WorkerError(type(error).__name__, f"no process can be started for it: {error.strerror}") from error

    def _started(self) -> Self:
        self._log = os.memfd_create("edgecnn-worker")  # in memory: a full disk stops no worker
        self._kills = counters.out_of_memory_kills()
        try:
            self.connection, inside = get_context("spawn").Pipe()
        except OSError:
            os.close(self._log)
            raise
        try:
            self._process = get_context("spawn").Process(target=_serve, args=(inside, _Log(self._log)), daemon=True)
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
        step: Callable[Concatenate[Workbench, P], T],
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

    def ask(self, step: Callable[Concatenate[Workbench, P], Any], *args: P.args, **kwargs: P.kwargs) -> None:
        """Send ``step`` to the worker, which begins it; ``connection`` is ready to be read once there is an answer."""
        self.asked = time.monotonic()
        with contextlib.suppress(ConnectionError):  # a process that has ended is noticed at its answer
            self.connection.send((step, args, kwargs))

    def answer(self, doing: str, limit_s: float) -> Any:
        """The answer to what was asked last, within ``limit_s`` seconds of then; errors as those of ``call``."""
        try:
            if not self.connection.poll(max(0.0, self.asked + limit_s - time.monotonic())):
                self.stop(patience_s=0.0)
                raise WorkerError("TimeoutError", f"no answer within {limit_s:g} s while {doing}; killed")
            answer = self.connection.recv()
        except (EOFError, ConnectionError) as error:
            self._process.join(_GOODBYE_S)
            kind, death = self._death()
            self.stop()
            raise WorkerError(kind, f"{death} while {doing}") from error
        if isinstance(answer, WorkerError):
            raise answer
        return answer

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
            if counters.out_of_memory_kills() > self._kills:
                kind = "MemoryError"
                how += ": the kernel had no memory left,"
            else:
                how += ", as happens when memory runs out,"
        size = os.fstat(self._log).st_size
        tail = os.pread(self._log, _LOG_TAIL, max(0, size - _LOG_TAIL)).decode(errors="replace")
        last = next((line.strip() for line in reversed(tail.split("\n")) if line.strip()), "")
        if _OUT_OF_MEMORY.search(tail):
            kind = "MemoryError"
            how += ", out of memory"
        return kind, f"{how} (its last line: {last})" if last else how


def _signal_name(number: int) -> str:
    known = {int(one): one.name for one in signal.Signals}
    return known.get(number, f"signal {number}")  # real-time signals have no names


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


def _serve(connection: "Connection[Any, Any]", log: _Log) -> None:
    """Answer steps until the parent hangs up. Everything printed goes to ``log``."""
    os.dup2(log.descriptor, 1)
    os.dup2(log.descriptor, 2)
    os.close(log.descriptor)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a crash is an answer here: leave no core file
    with contextlib.suppress(OSError):  # where memory runs out, the kernel shall end this process and no other
        Path("/proc/self/oom_score_adj").write_text("1000")
    # so that several workers share a GPU, where TensorFlow and JAX would each take it all
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    tflm.probe_first = False  # this process may end at a failed check, and a probe would count as loading
    workbench = Workbench()
    while True:
        try:
            step, args, kwargs = connection.recv()
        except (EOFError, ConnectionError):
            return
        try:
            answer = step(workbench, *args, **kwargs)
        except Exception as error:  # noqa: BLE001 - whatever a runtime raises is the reason of its row
            answer = _reason(error)
        connection.send(answer)


def _reason(error: Exception) -> WorkerError:
    text = " ".join(str(error).split())
    if isinstance(error, MemoryError) or _OUT_OF_MEMORY.search(text):
        return WorkerError("MemoryError", f"out of memory: {text}" if text else "out of memory")
    return WorkerError(type(error).__name__, text or "it gave no reason")
