"""What a worker process does with a candidate: open it, warm it up, and time blocks of invocations."""

import importlib
import math
import os
import time
from pathlib import Path
from statistics import median
from typing import NamedTuple

import msgspec
import numpy as np

from edgecnn.bench import counters
from edgecnn.bench.timing import time_calls
from edgecnn.errors import ArtifactError
from edgecnn.files import sha256_file
from edgecnn.optional import require
from edgecnn.records import Artifact, ColdStart, Energy, Memory
from edgecnn.runtimes import Float, Session, open_session, runtime_for

_WINDOW = 3
_WINDOW_S = 0.02
_STEADY = 0.05


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


class Workbench:
    """What a worker does with its candidate. Times are in seconds."""

    def __init__(self) -> None:
        self.session: Session
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
