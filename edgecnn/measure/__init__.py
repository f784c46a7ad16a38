"""Latency of model files: each candidate runs in its own processes, in turns with the others; all samples are kept.

    results = bench([Candidate(path=path, artifact=artifact)], image=image)
    for row in results.rows: ...        # Result or Failure, in the order of the candidates

Only one candidate runs at a time. Each is warmed up, then measured in short blocks. Every round measures all
candidates in random order, so that temperature, frequency and other load affect them equally. A run has several parts;
in each part every candidate has a fresh process. The process start is timed, and differences between processes (such
as memory placement) are included in the intervals.
"""

import hashlib
import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from itertools import pairwise
from statistics import median

import msgspec
import numpy as np

from edgecnn import environment
from edgecnn.errors import ConfigError
from edgecnn.measure.schedule import rounds
from edgecnn.measure.workbench import Candidate, Opened, Workbench
from edgecnn.progress import Advance, progress
from edgecnn.records import (
    SCHEMA_VERSION,
    BenchResults,
    ColdStart,
    Energy,
    Environment,
    Failure,
    Measurement,
    Memory,
    Record,
    Result,
)
from edgecnn.samples import Samples, shapes
from edgecnn.worker import Worker, WorkerError

__all__ = ["Candidate", "CandidateRun", "Interrupted", "Timeouts", "bench", "settings_of"]

_WARM_UP_S = 2.0
# More samples per block add little information, and all samples are stored.
_MOST_PER_BLOCK = 200
# Number of invoke samples per end-to-end sample.
_INVOKE_PER_END_TO_END = 4
# Estimated start time of a process, for the progress bar; about right for LiteRT.
_START_S = 0.6


class Timeouts(Record, frozen=True):
    """Seconds after which a worker is killed: to start and open its file, to warm up, and to run a block."""

    open_s: float = 180.0
    warm_up_s: float = 120.0
    block_s: float = 60.0


class Interrupted(KeyboardInterrupt):
    """Ctrl-C after at least one finished round; ``results`` has the finished rounds of every candidate."""

    def __init__(self, results: BenchResults) -> None:
        super().__init__("the finished rounds are kept")
        self.results = results


def bench(
    candidates: Sequence[Candidate],
    *,
    image: Samples,
    seconds: float = 2.0,
    blocks: int = 50,
    processes: int = 5,
    seed: int = 0,
    timeouts: Timeouts | None = None,
    earlier: BenchResults | None = None,
) -> BenchResults:
    """Measure the latency of ``candidates``; return one row for each, in their order, a ``Failure`` with its reason.

    Args:
        candidates: the model files and their settings.
        image: float32, one input of the models, channels last, in their input range, the input of all candidates.
        seconds: measuring time per candidate, split evenly over its blocks. A block has as many invocations as
            fit, 1 to 200, so a slow model takes longer and a very fast one less.
        blocks: number of blocks per candidate.
        processes: number of fresh processes per candidate, one after the other; each also gives one cold start.
        seed: seed of the order of the blocks.
        timeouts: time limits of a worker.
        earlier: results of an interrupted call with the same arguments (``Interrupted.results``), to resume.

    In each process a candidate is first warmed up until its times are steady (see ``Workbench.warm_up``), for about
    2 s at most. Each block starts with a tenth of its invocations, at least one, to refill the caches after another
    candidate. Both are kept in ``warmup_ns``. Each block ends with a quarter as many inferences timed end to end:
    encode, invoke and decode.

    Raises:
        ConfigError: no candidates, ``image`` is not one image, ``seconds``, ``blocks`` or ``processes`` not positive,
            or ``earlier`` is from a call with other arguments.
        Interrupted: Ctrl-C after at least one finished round.
    """
    if not candidates:
        raise ConfigError("nothing to measure; give at least one model file")
    wanted = [spec.sample_shape for spec in candidates[0].artifact.inputs]
    given = shapes(np.asarray(image)[np.newaxis])
    if [len(shape) for shape in given] != [len(shape) for shape in wanted]:
        raise ConfigError(
            f"image must be one input of the model, of shape {' and '.join(map(str, wanted))}, got shape "
            f"{' and '.join(map(str, given))}"
        )
    if not 0 < seconds < math.inf or blocks < 1 or processes < 1:
        raise ConfigError(f"seconds, blocks and processes must be positive, got {seconds:g}, {blocks} and {processes}")
    before = environment.environment()  # read before measuring, so that the load average excludes this benchmark
    settings = settings_of(
        candidates, image=image, seconds=seconds, blocks=blocks, processes=processes, seed=seed, machine=before
    )
    if earlier is not None and earlier.unfinished != settings:
        raise ConfigError("the earlier results are from a call with other candidates or settings; start a new call")
    timeouts = timeouts or Timeouts()
    runs = [
        CandidateRun(candidate, image, seconds / blocks, timeouts, None if earlier is None else earlier.rows[index])
        for index, candidate in enumerate(candidates)
    ]
    done = max((len(run.blocks_ns) for run in runs), default=0)

    def results(finished: int) -> BenchResults:
        return BenchResults(
            schema_version=SCHEMA_VERSION,
            environment=earlier.environment if earlier is not None else before,
            seed=seed,
            rows=tuple(run.row(finished) for run in runs),
            unfinished=settings if finished < blocks else None,
        )

    order = rounds(len(runs), blocks, seed)
    try:
        with progress("measuring", len(runs) * (processes * _START_S + seconds)) as advance:
            ends = [round(part * blocks / processes) for part in range(processes + 1)]
            for start, end in pairwise(ends):
                if done < end:
                    _part(runs, order[max(start, done) : end], advance)
                    done = end
                else:
                    advance(len(runs) * (_START_S + seconds * (end - start) / blocks))
    except KeyboardInterrupt as interrupt:
        living = [len(run.blocks_ns) for run in runs if run.failure is None]
        finished = min(living, default=0)
        if not finished:
            raise
        raise Interrupted(results(finished)) from interrupt
    return results(blocks)


def settings_of(
    candidates: Sequence[Candidate],
    *,
    image: Samples,
    seconds: float,
    blocks: int,
    processes: int,
    seed: int,
    machine: Environment,
) -> str:
    """A hash of the arguments of ``bench``, the machine and the package versions."""
    wanted = [
        *[(one.artifact.sha256, one.subject) for one in candidates],
        hashlib.sha256(np.ascontiguousarray(image).tobytes()).hexdigest(),
        [seconds, blocks, processes, seed],
        [machine.machine, machine.versions, machine.affinity],
    ]
    return hashlib.sha256(msgspec.json.encode(wanted)).hexdigest()


def _part(runs: "Sequence[CandidateRun]", order: Sequence[tuple[int, ...]], advance: Advance) -> None:
    """Measure the rounds in ``order``, with one fresh process for each of ``runs``."""
    with ExitStack() as stack:
        for run in runs:  # start all Python processes at once; this is not timed, and ends before any measurement
            run.attempt(partial(run.launch, stack))
        for run in runs:
            run.attempt(run.launched)
        for index in order[0]:
            run = runs[index]
            run.attempt(run.start)
            advance(_START_S, note=run.candidate.artifact.name)
        for visited in order:
            for index in visited:
                runs[index].attempt(runs[index].block)
                advance(runs[index].block_s, note=runs[index].candidate.artifact.name)
        for run in runs:
            run.attempt(run.finish)
            run.attempt(run.leave)


class CandidateRun:
    """The measurement of a candidate, in one worker process after the other.

    Call for each process: ``launch``, ``launched``, ``start``, ``block`` (repeatedly), ``finish``, ``leave``.
    """

    def __init__(
        self,
        candidate: Candidate,
        image: Samples,
        block_s: float,
        timeouts: Timeouts,
        earlier: Result | Failure | None,
    ) -> None:
        self.candidate = candidate
        self.block_s = block_s
        self.failure = earlier if isinstance(earlier, Failure) else None
        self._image = image
        self._worker: Worker[Workbench] | None = None
        self._timeouts = timeouts
        measured = earlier.measurement if isinstance(earlier, Result) else None
        self._runtime = measured.runtime if measured else ""
        self._load_s = measured.load_s if measured else 0.0
        self._steady = measured is None or measured.steady
        self._warmup_ns = list(measured.warmup_ns) if measured else []
        self.blocks_ns = list(measured.blocks_ns) if measured else []
        self._end_to_end_ns = list(measured.end_to_end_ns) if measured else []
        self._others_busy: list[float] = list(measured.others_busy) if measured else []
        self._cold_starts: list[ColdStart] = list(measured.cold_starts) if measured else []
        self._blocks_per_process = list(measured.blocks_per_process) if measured else []
        self._memory = measured.memory if measured else None
        self._energy = measured.energy if measured else None
        self._count = len(self.blocks_ns[0]) if self.blocks_ns else 0

    def attempt(self, step: Callable[[], None]) -> None:
        """Run ``step`` and keep its failure; do nothing after a failure."""
        if self.failure is None:
            try:
                step()
            except WorkerError as error:
                if self._worker is not None:
                    self._worker.stop()
                self.failure = Failure(
                    subject=self.candidate.subject, stage="bench", error=error.error, reason=error.reason
                )

    def launch(self, stack: ExitStack) -> None:
        """Start a fresh process; ``stack`` ends it."""
        self._worker = stack.enter_context(Worker(Workbench))
        self._worker.ask(Workbench.ready)

    def launched(self) -> None:
        """Wait until the process is idle."""
        assert self._worker is not None
        self._worker.answer("starting", self._timeouts.open_s)

    def start(self) -> None:
        """Open the file in the launched process, and ``go_on``."""
        assert self._worker is not None
        timeout_s = self._timeouts.open_s
        opened = self._worker.call("opening the file", timeout_s, Workbench.open, self.candidate, self._image)
        self.go_on(self._worker, opened)

    def go_on(self, worker: Worker[Workbench], opened: Opened) -> None:
        """Warm up the model that ``worker`` has ``opened``, and determine the number of invocations per block."""
        self._worker = worker
        self._runtime = opened.runtime
        self._cold_starts.append(opened.cold_start)
        warmth = worker.call("warming up", self._timeouts.warm_up_s, Workbench.warm_up, _WARM_UP_S)
        self._warmup_ns += warmth.samples_ns
        self._steady = self._steady and warmth.steady
        if not self._count:
            self._load_s = opened.cold_start.load_s
            fitting = int(self.block_s * 1e9 / max(median(warmth.samples_ns[-10:]), 1))
            self._count = min(max(1, fitting), _MOST_PER_BLOCK)
        self._blocks_per_process.append(0)

    def block(self) -> None:
        """Measure one block."""
        lead, whole = max(1, self._count // 10), max(1, self._count // _INVOKE_PER_END_TO_END)
        limit_s = self._timeouts.block_s
        assert self._worker is not None
        block = self._worker.call("running a block", limit_s, Workbench.block, lead, self._count, whole)
        self._warmup_ns += block.lead_ns
        self._end_to_end_ns.append(tuple(block.end_to_end_ns))
        self._blocks_per_process[-1] += 1
        if block.others_busy is not None:
            self._others_busy.append(block.others_busy)
        if block.energy is not None:
            self._energy = block.energy if self._energy is None else _sum(self._energy, block.energy)
        self.blocks_ns.append(tuple(block.samples_ns))  # last, so that an interrupted block does not count

    def finish(self) -> None:
        """Read the peak memory of the process."""
        assert self._worker is not None
        memory = self._worker.call("reading its peak memory", self._timeouts.block_s, Workbench.memory)
        if memory is not None and (self._memory is None or _grown(memory) > _grown(self._memory)):
            self._memory = memory

    def leave(self) -> None:
        """Kill the process, since a back end may take seconds to shut down."""
        assert self._worker is not None
        self._worker.stop(patience_s=0.0)

    def row(self, rounds: int) -> Result | Failure:
        """The row from the first ``rounds`` rounds."""
        if self.failure is not None:
            return self.failure
        candidate = self.candidate
        measurement = Measurement(
            artifact=candidate.artifact.name,
            artifact_sha256=candidate.artifact.sha256,
            runtime=self._runtime,
            device=candidate.device,
            threads=candidate.threads,
            batch=candidate.batch,
            load_s=self._load_s,
            warmup_ns=tuple(self._warmup_ns),
            blocks_ns=tuple(self.blocks_ns[:rounds]),
            end_to_end_ns=tuple(self._end_to_end_ns[:rounds]),
            steady=self._steady,
            others_busy=tuple(self._others_busy[:rounds]),
            cold_starts=tuple(self._cold_starts),
            memory=self._memory,
            energy=self._energy,
            blocks_per_process=_first(self._blocks_per_process, rounds),
        )
        return Result(artifact=candidate.artifact, measurement=measurement)


def _grown(memory: Memory) -> int:
    return memory.peak_bytes - memory.empty_bytes


def _sum(one: Energy, other: Energy) -> Energy:
    return one.replace(joules=one.joules + other.joules, inferences=one.inferences + other.inferences)


def _first(blocks_per_process: Sequence[int], rounds: int) -> tuple[int, ...]:
    """How many of the first ``rounds`` blocks each process measured; processes without blocks are omitted."""
    ends = np.minimum(np.cumsum((0, *blocks_per_process)), rounds)
    return tuple(int(count) for count in np.diff(ends) if count)
