"""The steps of a worker process: open a candidate, warm it up, and time blocks of invocations."""

import importlib
import math
import os
import time
from pathlib import Path
from statistics import median
from typing import NamedTuple

import msgspec
import numpy as np

from edgecnn.errors import ArtifactError
from edgecnn.files import sha256_file
from edgecnn.measure import counters
from edgecnn.measure.timing import time_calls
from edgecnn.optional import require
from edgecnn.records import Artifact, ColdStart, Energy, Memory
from edgecnn.runtimes import Session, open_session, runtime_for
from edgecnn.samples import Samples

_WINDOW = 3
_WINDOW_S = 0.02
_STEADY = 0.05


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """A model file to measure, and how to run it.

    ``runtime`` is a name, or ``None`` for the first runtime of the file's format; ``device`` is "cpu" or "gpu".
    """

    path: Path
    artifact: Artifact
    runtime: str | None = None
    threads: int = 1
    batch: int = 1
    device: str = "cpu"

    @property
    def subject(self) -> str:
        """Its name in failures."""
        on = "" if self.runtime is None else f" on {self.runtime}"
        return f"{self.artifact.name}{on}, threads {self.threads}, batch {self.batch}, {self.device}"


class Opened(NamedTuple):
    """The name of the runtime, and the time of the process to its first output."""

    runtime: str
    cold_start: ColdStart


class Warmth(NamedTuple):
    """The times of a warm-up, and whether they were steady at its end."""

    samples_ns: list[int]
    steady: bool


class Block(NamedTuple):
    """One block: times of the invocations that refill the caches, of the counted invocations, and end to end.

    ``others_busy`` is the share of all cores used by other processes, as in ``Measurement``; ``energy`` is that of the
    packages during ``lead_ns`` and ``samples_ns``; ``None`` if unknown.
    """

    lead_ns: list[int]
    samples_ns: list[int]
    end_to_end_ns: list[int]
    others_busy: float | None
    energy: Energy | None


class Workbench:
    """The state of a worker, and its steps."""

    def __init__(self) -> None:
        self.session: Session
        self._images: Samples
        self._empty_bytes: int | None = None

    def ready(self) -> None:
        """Do nothing; the answer shows that Python has started and the worker's imports are done."""

    def open(self, candidate: Candidate, image: Samples) -> Opened:
        """Open the candidate's file and run it on ``image``, a sample, once per batch entry.

        The file is hashed first, so loading times are for a file in the page cache. The first inference is timed end
        to end.

        Raises:
            ArtifactError: the file is missing, or is not the one that the artifact describes.
            SessionError: the runtime refuses the file.
            MissingExtraError: the runtime is not installed.
        """
        path, artifact = candidate.path, candidate.artifact
        runtime = runtime_for(path, candidate.runtime)
        self._empty_bytes = counters.resident_bytes()
        start = time.perf_counter()
        require(runtime.package)
        import_s = time.perf_counter() - start
        importlib.import_module(runtime.module)  # edgecnn's own module, so not part of load_s
        if path.is_file() and sha256_file(path) != artifact.sha256:
            raise ArtifactError(f"{path} is not the file that its artifact record describes; export it again")
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

    def use(self, image: Samples, batch: int) -> float:
        """Set the input to a batch of ``batch`` copies of ``image``, a sample, and run once.

        Returns the end-to-end time of this run in seconds.
        """
        self._images = np.repeat(np.asarray(image)[np.newaxis], batch, axis=0)
        (first_ns,) = time_calls(self._end_to_end, 1)
        return first_ns / 1e9

    def warm_up(self, limit_s: float) -> Warmth:
        """Invoke until the times are steady, or ``limit_s`` seconds have passed.

        A window is 3 invocations or 20 ms, whichever is longer. Times are steady if the medians of two consecutive
        windows differ by at most 5 %. There are at least two windows, whatever time they take.
        """
        samples: list[int] = []
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
        """Invoke ``lead`` and then ``count`` times, then run ``end_to_end`` times from encode to decode.

        The end-to-end runs are preceded by a tenth as many that are not kept.
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
        """The memory of the process so far; ``None`` if unknown."""
        peak = counters.resident_bytes(peak=True)
        if peak is None or self._empty_bytes is None:
            return None
        arena = getattr(self.session, "arena_bytes", None)
        return Memory(empty_bytes=self._empty_bytes, peak_bytes=peak, arena_bytes=arena)

    def _end_to_end(self) -> None:
        self.session.encode(self._images)
        self.session.invoke()
        self.session.decode()
