"""Latency of model files: every candidate in a process of its own, measured in turns, every sample kept.

    results = bench([Candidate(path=path, artifact=artifact)], image=image)
    for row in results.rows: ...        # Result or Failure, in the order of the candidates

Only one candidate runs at a time. Each is warmed up, then measured in short blocks; every round visits all
candidates in a random order, so that heat, frequency and other load fall on all of them alike.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from statistics import median

from edgecnn.bench import environment
from edgecnn.bench.schedule import rounds
from edgecnn.bench.worker import Candidate, Workbench, Worker, WorkerError
from edgecnn.errors import ConfigError
from edgecnn.progress import progress
from edgecnn.records import SCHEMA_VERSION, BenchResults, Failure, Measurement, Record, Result
from edgecnn.runtimes import Float

__all__ = ["Candidate", "Timeouts", "bench"]

_WARM_UP_S = 2.0
# More say little about a block, and every sample is stored.
_MOST_PER_BLOCK = 200


class Timeouts(Record, frozen=True):
    """Seconds after which a worker is killed: while it starts and opens its file, warms up, runs a block."""

    open_s: float = 180.0
    warm_up_s: float = 120.0
    block_s: float = 60.0


def bench(
    candidates: Sequence[Candidate],
    *,
    image: Float,
    seconds: float = 2.0,
    blocks: int = 50,
    seed: int = 0,
    timeouts: Timeouts | None = None,
) -> BenchResults:
    """Measure the latency of ``candidates``: one row for each, in their order, a failed one with its reason.

    Args:
        candidates: what to measure.
        image: float32 ``(height, width, channels)`` in the model's input range, fed to all of them.
        seconds: how long to measure each, split evenly over its blocks. A block has as many invocations as
            fit, at least 1 and at most 200, so a slow model takes longer and a very quick one less.
        blocks: how many blocks of each.
        seed: of the order of the blocks.
        timeouts: when to give up on a worker.

    Each is first warmed up until its times are steady, at most 2 s (see ``Workbench.warm_up``). Before the
    counted invocations of a block come a tenth as many, at least one, to refill the caches after another
    candidate ran. Both are kept in ``warmup``.

    Raises:
        ConfigError: no candidates, not one image, or ``seconds`` or ``blocks`` not positive.
    """
    if not candidates:
        raise ConfigError("there is nothing to measure; give at least one model file")
    if image.ndim != 3:
        raise ConfigError(f"image must be one image (height, width, channels), got shape {image.shape}")
    if not 0 < seconds < math.inf or blocks < 1:
        raise ConfigError(f"seconds and blocks must be positive, got {seconds:g} and {blocks}")
    before = environment.environment()  # its load average must not be ours
    timeouts = timeouts or Timeouts()
    steps = len(candidates) * (1 + blocks)
    with ExitStack() as stack, progress("measuring", steps) as advance:
        runs = []
        for candidate in candidates:
            run = _Run(candidate, stack.enter_context(Worker()), image, seconds / blocks, timeouts)
            run.attempt(run.open)
            runs.append(run)
            advance(note=candidate.artifact.name)
        for order in rounds(len(runs), blocks, seed):
            for index in order:
                runs[index].attempt(runs[index].block)
                advance(note=runs[index].candidate.artifact.name)
    rows = tuple(run.row() for run in runs)
    return BenchResults(schema_version=SCHEMA_VERSION, environment=before, seed=seed, rows=rows)


class _Run:
    """A candidate on its way to a row."""

    def __init__(self, candidate: Candidate, worker: Worker, image: Float, block_s: float, timeouts: Timeouts) -> None:
        self.candidate = candidate
        self._worker = worker
        self._image = image
        self._block_s = block_s
        self._timeouts = timeouts
        self._blocks: list[tuple[float, ...]] = []
        self._failure: Failure | None = None

    def attempt(self, step: Callable[[], None]) -> None:
        """Do ``step`` and keep its failure; after one, do nothing."""
        if self._failure is None:
            try:
                step()
            except WorkerError as error:
                self._failure = Failure(
                    subject=self.candidate.subject, stage="bench", error=error.error, reason=error.reason
                )

    def open(self) -> None:
        """Open the file, warm up, and settle how many invocations fit in a block."""
        call, timeouts = self._worker.call, self._timeouts
        self._opened = call("opening the file", timeouts.open_s, Workbench.open, self.candidate, self._image)
        self._warmup = call("warming up", timeouts.warm_up_s, Workbench.warm_up, _WARM_UP_S)
        fitting = int(self._block_s / max(median(self._warmup[-10:]), 1e-9))
        self._count = min(max(1, fitting), _MOST_PER_BLOCK)

    def block(self) -> None:
        """Measure one block."""
        lead = max(1, self._count // 10)
        samples = self._worker.call("running a block", self._timeouts.block_s, Workbench.run, lead + self._count)
        self._warmup += samples[:lead]
        self._blocks.append(tuple(samples[lead:]))

    def row(self) -> Result | Failure:
        """What became of it."""
        if self._failure is not None:
            return self._failure
        candidate = self.candidate
        measurement = Measurement(
            artifact=candidate.artifact.name,
            artifact_sha256=candidate.artifact.sha256,
            runtime=self._opened.runtime,
            device=candidate.device,
            threads=candidate.threads,
            batch=candidate.batch,
            load_s=self._opened.load_s,
            warmup=tuple(self._warmup),
            blocks=tuple(self._blocks),
        )
        return Result(artifact=candidate.artifact, measurement=measurement)
