"""A process of its own for each candidate: what runs inside it, and how the parent steers it.

The parent sends one step at a time, a method of :class:`Workbench` with its arguments, and waits for the
answer with a time limit. Between steps the worker sleeps. A crash or a hang ends this one candidate only, and
the end of the parent ends the worker.
"""

import gc
import importlib
import math
import os
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import get_context, resource_tracker
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from types import ModuleType, TracebackType
from typing import Any, Concatenate, NamedTuple, ParamSpec, Self, TypeVar

import msgspec
import numpy as np

from edgecnn.errors import ArtifactError
from edgecnn.files import sha256_file
from edgecnn.optional import require
from edgecnn.records import Artifact
from edgecnn.runtimes import Float, Session, open_session, runtime_for, tflm

P = ParamSpec("P")
T = TypeVar("T")

_WINDOW = 10
_WINDOW_S = 0.02
_STEADY = 0.05
_GOODBYE_S = 5.0


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
        return f"{self.artifact.name}, threads {self.threads}, batch {self.batch}, {self.device}"


class Opened(NamedTuple):
    """The name of the runtime, and the seconds from model file to ready session."""

    runtime: str
    load_s: float


class WorkerError(Exception):
    """A step that brought no answer: the type of the error, and the reason in one line."""

    def __init__(self, error: str, reason: str) -> None:
        super().__init__(error, reason)
        self.error = error
        self.reason = reason


class Workbench:
    """What a worker does with its candidate. Times are in seconds, of ``session.invoke`` alone."""

    def __init__(self) -> None:
        self.session: Session

    def open(self, candidate: Candidate, image: Float) -> Opened:
        """Open the candidate's file and encode ``image`` ``(height, width, channels)``, once per batch entry.

        The file is read before, for its hash, so loading times hold for a file in the system's cache.

        Raises:
            ArtifactError: no such file, or another than the artifact describes.
            SessionError: the runtime refuses it.
            MissingExtraError: the runtime is not installed.
        """
        path, artifact = candidate.path, candidate.artifact
        runtime = runtime_for(path, candidate.runtime)
        importlib.import_module(runtime.module)
        require(runtime.package)  # beforehand, so that it takes no part in load_s
        if path.is_file() and sha256_file(path) != artifact.sha256:
            raise ArtifactError(f"{path} is not the file its artifact record describes; export it again")
        start = time.perf_counter_ns()
        self.session = open_session(
            path,
            runtime=runtime.name,
            threads=candidate.threads,
            batch=candidate.batch,
            device=candidate.device,
        )
        load_s = (time.perf_counter_ns() - start) / 1e9
        self.session.encode(np.repeat(image[np.newaxis], candidate.batch, axis=0))
        return Opened(runtime.name, load_s)

    def warm_up(self, limit_s: float) -> list[float]:
        """Invoke until the times are steady, or ``limit_s`` have passed, and return them all.

        The first invocation, which may compile, is not held against the limit. The others are looked at in
        windows of 10 invocations and 20 ms, whichever is longer: two windows in a row whose medians differ by
        at most 5 % are steady.
        """
        samples = self.run(1)
        end = time.perf_counter() + limit_s
        before = math.inf
        while time.perf_counter() < end:
            window_end = min(end, time.perf_counter() + _WINDOW_S)
            window = self.run(1)
            while time.perf_counter() < window_end or (len(window) < _WINDOW and time.perf_counter() < end):
                window += self.run(1)
            samples += window
            now = median(window)
            if abs(now - before) <= _STEADY * before < math.inf:
                break
            before = now
        return samples

    def run(self, count: int) -> list[float]:
        """Invoke ``count`` times with the garbage collector off, and return each time."""
        clock, invoke = time.perf_counter_ns, self.session.invoke
        samples = []
        gc.disable()
        try:
            for _ in range(count):
                start = clock()
                invoke()
                samples.append((clock() - start) / 1e9)
        finally:
            gc.enable()
        return samples


class Worker:
    """A fresh process with a :class:`Workbench`, for use in a ``with`` statement, which ends it."""

    def __enter__(self) -> Self:
        self._log = tempfile.NamedTemporaryFile()
        self._connection, inside = get_context("spawn").Pipe()
        self._process = get_context("spawn").Process(target=_serve, args=(inside, self._log.name), daemon=True)
        with _sheltered():
            self._process.start()
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
            WorkerError: the step raised, gave no answer within ``limit_s`` seconds, or ended the process. The
                process is gone afterwards in all three cases.
        """
        try:
            self._connection.send((step, args, kwargs))
            if not self._connection.poll(limit_s):
                self.stop(patience_s=0.0)
                raise WorkerError("TimeoutError", f"no answer within {limit_s:g} s while {doing}; killed")
            answer = self._connection.recv()
        except (EOFError, ConnectionError) as error:
            self._process.join(_GOODBYE_S)
            death = self._death()
            self.stop()
            raise WorkerError("ChildProcessError", f"{death} while {doing}") from error
        if isinstance(answer, WorkerError):
            self.stop()
            raise answer
        result: T = answer
        return result

    def stop(self, patience_s: float = _GOODBYE_S) -> None:
        """End the process: hang up, which it understands, and kill it after ``patience_s`` seconds.

        May be called again.
        """
        try:
            self._connection.close()
            self._process.join(patience_s)
        finally:
            self._process.kill()
            self._process.join()
            self._log.close()

    def _death(self) -> str:
        """How the process ended, with the last line it wrote."""
        code = self._process.exitcode
        if code is None:
            how = "stopped answering"
        elif code < 0:
            how = f"killed by {_signal_name(-code)}"
        else:
            how = f"ended with exit status {code}"
        if code == -signal.SIGKILL:
            how += ", as happens when memory runs out,"
        lines = self._log.read().decode(errors="replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "")
        return f"{how} (its last line: {last})" if last else how


def _signal_name(number: int) -> str:
    known = {int(one): one.name for one in signal.Signals}
    return known.get(number, f"signal {number}")  # real-time signals have no names


@contextmanager
def _sheltered() -> Iterator[None]:
    """Processes started here neither hear Ctrl-C, which the parent handles, nor run the caller's script.

    The first is inherited with the signal mask. Without the second, a new process imports the main module of
    its parent, and so does all that a script without a main guard does.
    """
    resource_tracker.ensure_running()  # starting it later would lift the mask
    main = sys.modules["__main__"]
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _serve(connection: "Connection[Any, Any]", log: str) -> None:
    """Answer steps until the parent hangs up. Everything printed goes to the file ``log``."""
    with Path(log).open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a crash is an answer here: leave no core file
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
            answer = WorkerError(type(error).__name__, " ".join(str(error).split()) or "it gave no reason")
        connection.send(answer)
