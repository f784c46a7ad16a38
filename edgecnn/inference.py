"""Run model files on many images, with one worker process per usable core.

A worker continues with its open file while that has images left. Then it takes a file that is not started yet, or else
helps with the file with the most images left. So all cores are busy until the end, whichever file is slow.
"""

import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack
from functools import partial
from multiprocessing.connection import wait
from pathlib import Path
from typing import NamedTuple

import numpy as np

from edgecnn.environment import usable_cores
from edgecnn.errors import EdgecnnError, SessionError
from edgecnn.progress import Advance
from edgecnn.runtimes import Float, Session, open_session, predict
from edgecnn.worker import Worker, WorkerError

# Number of shares that the images of a file are split into, and the minimum images per share.
_SHARES, _LEAST = 32, 64
# Time limit of a share in seconds.
_LIMIT_S = 600.0


class Task(NamedTuple):
    """A file to run: its name in errors, the function that opens it, and the number of images (None: all)."""

    name: str
    open: Callable[[], Session]
    images: int | None = None

    def count(self, images: Float) -> int:
        """The number of ``images`` it runs on."""
        return len(images[: self.images])


class Outcome(NamedTuple):
    """The result of a task: outputs float32 ``(n, values)``, or an error.

    ``seconds`` is the time that workers spent on it, divided by the number of workers.
    """

    task: Task
    outputs: Float | EdgecnnError
    seconds: float


def task_of(path: Path, runtime: str | None = None, *, batch: int = 1, images: int | None = None) -> Task:
    """The task to run the model file at ``path`` on one thread, in ``runtime`` or in the first that supports it."""
    name = path.name if runtime is None else f"{path.name} in {runtime}"
    return Task(name, partial(open_session, path, runtime=runtime, batch=batch), images)


def infer(tasks: Sequence[Task], images: Float, advance: Advance | None = None) -> Generator[Outcome, None, None]:
    """Run every task on ``images`` ``(n, …)``, channels last,; yield each outcome as soon as it is complete.

    An exception from a task's ``open`` (which is pickled), a crash, or 10 minutes without a result fails only that
    task. If a process that ran other tasks before dies, the images are tried again in a fresh process. ``advance`` is
    called with the number of finished images. To stop early, close the generator, which ends the processes.

    Raises:
        SessionError: the system cannot start processes.
    """
    jobs = [_Job(number, task, images) for number, task in enumerate(tasks)]
    waiting, begun = deque(jobs), list[_Job]()
    with ExitStack() as stack:
        crew = [_Hand(stack) for _ in range(min(usable_cores(), sum(len(job.todo) for job in jobs)))]
        while True:
            for hand in crew:
                if hand.share is None and (job := _next(hand, waiting, begun)):
                    hand.begin(job)
            busy = [hand for hand in crew if hand.share is not None]
            if not busy:
                return
            deadline = min(hand.worker.asked for hand in busy) + _LIMIT_S
            ready = wait([hand.worker.connection for hand in busy], max(0.0, deadline - time.monotonic()))
            for hand in busy:
                if hand.worker.connection in ready or time.monotonic() >= hand.worker.asked + _LIMIT_S:
                    job, done = hand.finish()
                    if advance is not None:
                        advance(done, job.task.name)
                    if job in begun and not job.left:
                        begun.remove(job)
                        yield Outcome(job.task, job.outputs, job.seconds / len(crew))


def outputs_of(task: Task, images: Float) -> Float:
    """Outputs float32 ``(n, values)`` of a single task, as from ``infer``.

    Raises:
        EdgecnnError: the task failed.
    """
    (outcome,) = infer([task], images)
    if isinstance(outcome.outputs, EdgecnnError):
        raise outcome.outputs
    return outcome.outputs


class _Job:
    """A task, the open shares of its images, the number of images without outputs, and the outputs."""

    def __init__(self, number: int, task: Task, images: Float) -> None:
        self.number = number
        self.task = task
        self.images = images[: task.images]
        self.left = len(self.images)
        size = max(_LEAST, -(-self.left // _SHARES))
        self.todo = deque(slice(start, start + size) for start in range(0, self.left, size))
        self.outputs: Float | EdgecnnError = np.empty((self.left, 0), np.float32)
        self.seconds = 0.0

    def keep(self, share: slice, outputs: Float, seconds: float) -> int:
        """Store the outputs of a share, unless the task has failed; return the number of images stored."""
        self.seconds += seconds
        if isinstance(self.outputs, EdgecnnError):
            return 0
        if not self.outputs.size:
            self.outputs = np.empty((len(self.images), outputs.shape[1]), np.float32)
        self.outputs[share] = outputs
        self.left -= len(outputs)
        return len(outputs)

    def fail(self, error: WorkerError) -> int:
        """Fail the task; return the number of images given up."""
        self.outputs = error.translated()
        self.todo.clear()
        given_up, self.left = self.left, 0
        return given_up


class _Hand:
    """A worker process, ended by ``stack``, and its current job."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self.job: _Job | None = None
        self.share: slice | None = None
        self._start()

    def _start(self) -> None:
        try:
            self.worker = self._stack.enter_context(Worker(_Open))
        except WorkerError as error:
            raise SessionError(error.reason) from error
        self._met: list[_Job] = []

    def begin(self, job: _Job) -> None:
        """Give the next share of a job to the worker."""
        self.job, self.share = job, job.todo.popleft()
        if job not in self._met:
            self._met.append(job)
        self.worker.ask(_answer, job.number, job.task.open, job.images[self.share])

    def finish(self) -> tuple[_Job, int]:
        """Receive the result; return the job and the number of its images that are done. Replace a dead process."""
        job, share, self.share = self.job, self.share, None
        assert job is not None
        assert share is not None
        try:
            return job, job.keep(share, *self.worker.answer(f"running {job.task.name}", _LIMIT_S))
        except WorkerError as error:
            suspect = not self.worker.alive and error.error != "TimeoutError" and self._met != [job]
            if not self.worker.alive:
                self._start()
            if suspect and job.left:
                job.todo.appendleft(share)
                return job, 0
            return job, job.fail(error)


def _next(hand: _Hand, waiting: deque[_Job], begun: list[_Job]) -> _Job | None:
    """The next job of an idle hand; ``None`` if there is nothing left to start."""
    if hand.job is not None and hand.job.todo:
        return hand.job
    if waiting:
        begun.append(waiting.popleft())
        return begun[-1]
    return max((job for job in begun if job.todo), key=lambda job: len(job.todo), default=None)


class _Open:
    """The open file of a worker: its session and job number (``None`` at first)."""

    session: Session
    job: int | None = None


def _answer(file: _Open, number: int, opened: Callable[[], Session], images: Float) -> tuple[Float, float]:
    """In the worker: outputs for a share of the images of job ``number``, and the time in seconds."""
    start = time.perf_counter()
    if file.job != number:
        if file.job is not None:
            file.job = None
            file.session.close()
        file.session = opened()
        file.job = number
    return predict(file.session, images), time.perf_counter() - start
