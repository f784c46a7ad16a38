"""``edgecnn bench``: measure model files, with or without a sidecar, into one report; or one file against itself."""

import logging
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import numpy as np

from edgecnn import artifacts
from edgecnn.bench import Candidate, Interrupted, bench, settings_of, statistics
from edgecnn.bench.baseline import load_baseline
from edgecnn.bench.comparison import answers_of, check_fits
from edgecnn.bench.workbench import Workbench
from edgecnn.data import DataSet
from edgecnn.emulation import costs
from edgecnn.environment import environment
from edgecnn.errors import ArtifactError, BenchError, ConfigError, DataError, RecordError, SessionError
from edgecnn.files import write_atomic
from edgecnn.inference import outputs_of, task_of
from edgecnn.models import output_problem
from edgecnn.records import (
    SCHEMA_VERSION,
    Accuracy,
    Answers,
    Artifact,
    BenchResults,
    Environment,
    Estimate,
    Failure,
    FileRecord,
    Report,
    Result,
    read_record,
    to_json,
)
from edgecnn.runtimes import RUNTIMES, Float, runtime_for
from edgecnn.verify import reference_of
from edgecnn.worker import Worker, WorkerError

log = logging.getLogger(__name__)

_LOAD_S = 180.0
_CLASSIFY_S = 3600.0
_BLOCKS = 50


class AgainstItself(FileRecord, frozen=True):
    """A file measured against itself, as two candidates: the true ratio of their times is 1."""

    environment: Environment
    seed: int
    rows: tuple[Result, Result]
    ratio: Estimate
    difference: Literal["faster", "slower", "none"]


def bench_files(
    paths: Sequence[Path],
    *,
    data: DataSet | None = None,
    threads: Sequence[int] = (1,),
    batches: Sequence[int] = (1,),
    runtimes: Sequence[str] = (),
    seconds: float = 2.0,
    processes: int = 5,
    seed: int = 0,
    baselines: Sequence[Path] = (),
    targets: Sequence[str] = (),
    keep: Path | None = None,
) -> Report:
    """Measure the model files at ``paths``; a file that cannot be loaded or run becomes a ``Failure`` row.

    Each file is measured for all combinations of ``threads``, ``batches`` and the ``runtimes`` that support its
    format. A batch that a file does not support is an expected ``Failure``, unless it supports none of ``batches``.

    With ``data``, accuracy is counted on all test images, and the first test image is the input while latency is
    measured; without, the input is noise. Files are loaded in another process, which is replaced if a file ends it.

    Args:
        paths: model files.
        data: the data set that the models were trained on, or ``None``.
        threads: numbers of threads.
        batches: batch sizes.
        runtimes: names of runtimes; by default the first for each file.
        seconds: as in ``bench``.
        processes: as in ``bench``.
        seed: seed of the order of the blocks, and of the noise.
        baselines: files from ``edgecnn baseline`` to compare with, of a model with the same layers and shapes.
        targets: emulated processors to count instructions, flash and RAM on (see ``edgecnn.emulation.costs``).
        keep: JSON file for the report of the finished rounds if the call is interrupted. The same call resumes from
            it. A call with other settings starts from the beginning and renames the file.

    Raises:
        ConfigError: without ``data``, the files have different input sizes; no file has the layers and shapes of a
            baseline; or an argument is out of range.
        RecordError: a baseline cannot be read.
        UnknownNameError: no such runtime or target.
    """
    for name, numbers in (("threads", threads), ("batches", batches)):
        if not numbers or min(numbers) < 1:
            raise ConfigError(f"{name} must be one or more positive numbers, got {list(numbers)}")
    recorded = tuple(load_baseline(path) for path in baselines)
    images: Float | None = None
    candidates: list[Candidate] = []
    failures: list[Failure] = []
    counted: dict[tuple[str, str | None], tuple[Accuracy, Answers]] = {}
    with _Loader() as loader:
        for path in paths:
            try:
                for runtime in _suitable(path, runtimes):
                    artifact = loader.load(path, runtime, batches)
                    _check(artifact)
                    if data is not None:
                        data = _fitted(artifact, data)
                        if images is None or images.shape[1:] != data.input_shape:
                            images = data.test_inputs()
                        if data.scorable:
                            outputs = _classified(path, runtime, artifact.input.shape[0] or 1, images)
                            answers = answers_of(outputs, data)
                            counted[artifact.sha256, runtime] = data.scoring().score(outputs), answers
                    of_file, impossible = _swept(path, artifact, runtime, threads, batches)
                    candidates += of_file
                    failures += impossible
            except WorkerError as error:
                failures.append(Failure(subject=path.name, stage="bench", error=error.error, reason=error.reason))
            except (ArtifactError, SessionError) as error:
                failures.append(
                    Failure(subject=path.name, stage="bench", error=type(error).__name__, reason=str(error))
                )
    models = {candidate.artifact.name: candidate.artifact.float_model for candidate in candidates}
    for path, baseline in zip(baselines, recorded, strict=True):
        if models:
            check_fits(path, baseline, models)
    machine = environment()
    emulated, uncounted = costs(paths, targets) if targets else ((), ())

    def report(rows: Sequence[Result | Failure], environment: Environment, unfinished: str | None) -> Report:
        measured = []
        for row, candidate in zip(rows, candidates, strict=True):
            key = candidate.artifact.sha256, candidate.runtime
            if isinstance(row, Result) and key in counted:
                accuracy, answers = counted[key]
                row = row.replace(accuracy=accuracy, answers=answers)
            measured.append(row)
        return Report(
            schema_version=SCHEMA_VERSION,
            title="Benchmark of model files",
            data=None if data is None else data.name,
            data_sha256=None if data is None else data.sha256,
            test_images=0 if data is None else len(data.test.labels),
            environment=environment,
            seed=seed,
            rows=(*measured, *failures, *uncounted),
            parities=(),
            baselines=recorded,
            emulated=emulated,
            unfinished=unfinished,
            task="classification" if data is None else data.task,
        )

    if not candidates:
        return report((), machine, None)
    image = _noise([candidate.artifact for candidate in candidates], seed) if images is None else images[0]
    settings = settings_of(
        candidates, image=image, seconds=seconds, blocks=_BLOCKS, processes=processes, seed=seed, machine=machine
    )
    earlier = None if keep is None else _earlier(keep, settings, candidates)
    try:
        results = bench(
            candidates,
            image=image,
            seconds=seconds,
            blocks=_BLOCKS,
            processes=processes,
            seed=seed,
            earlier=earlier,
        )
    except Interrupted as stopped:
        if keep is None:
            raise
        results = stopped.results
        write_atomic(keep, to_json(report(results.rows, results.environment, results.unfinished)))
        raise KeyboardInterrupt(f"{keep} has the finished rounds; run the same command again to resume") from None
    return report(results.rows, results.environment, None)


def bench_against_itself(
    path: Path,
    *,
    threads: int = 1,
    batch: int = 1,
    runtime: str | None = None,
    seconds: float = 2.0,
    processes: int = 5,
    seed: int = 0,
) -> AgainstItself:
    """Measure the model file at ``path`` as two candidates: a difference between them is a false alarm.

    Raises:
        BenchError: it cannot be loaded or run; the message has the reason.
        ConfigError: an argument is out of range.
    """
    try:
        with _Loader() as loader:
            artifact = loader.load(path, runtime, (batch,))
        _check(artifact)
    except WorkerError as error:
        raise BenchError(f"{path.name} cannot be loaded: {error.reason}") from error
    candidate = Candidate(path=path, artifact=artifact, runtime=runtime, threads=threads, batch=batch)
    results = bench(
        [candidate, candidate],
        image=_noise([artifact], seed),
        seconds=seconds,
        blocks=_BLOCKS,
        processes=processes,
        seed=seed,
    )
    one, other = results.rows
    for row in (one, other):
        if isinstance(row, Failure):
            raise BenchError(f"{row.subject}: {row.reason}")
    assert isinstance(one, Result)
    assert isinstance(other, Result)
    ratio = statistics.ratio(one.measurement, other.measurement)
    return AgainstItself(
        schema_version=SCHEMA_VERSION,
        environment=results.environment,
        seed=seed,
        rows=(one, other),
        ratio=ratio,
        difference=statistics.difference(ratio),
    )


class _Loader:
    """Reads model files in a process that is replaced if a file ends it; for use in a ``with`` statement."""

    def __init__(self) -> None:
        self._worker: Worker[Workbench] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._worker is not None:
            self._worker.stop(patience_s=0.0)

    def load(self, path: Path, runtime: str | None, batches: Sequence[int]) -> Artifact:
        """The record of the file at ``path``.

        Raises:
            WorkerError: the file cannot be loaded, or ends the process. If the process had loaded other files before,
                which may have damaged it, loading is tried again in a new process.
        """
        used = self._worker is not None and self._worker.alive
        try:
            return self._load(path, runtime, batches)
        except WorkerError as error:
            if not used or self._worker is None or self._worker.alive or error.error == "TimeoutError":
                raise
        return self._load(path, runtime, batches)

    def _load(self, path: Path, runtime: str | None, batches: Sequence[int]) -> Artifact:
        if self._worker is None or not self._worker.alive:
            self._worker = Worker(Workbench).__enter__()
        return self._worker.call("loading the file", _LOAD_S, _load, path, runtime, batches)


def _suitable(path: Path, runtimes: Sequence[str]) -> Sequence[str | None]:
    """The ``runtimes`` that support the file at ``path``; ``None``, for the default, if ``runtimes`` is empty.

    Raises:
        ArtifactError: none of the named runtimes supports it.
    """
    if not runtimes:
        return (None,)
    suitable = [name for name in runtimes if path.suffix == f".{RUNTIMES[name].format}"]
    if not suitable:
        raise ArtifactError(f"{', '.join(runtimes)} cannot run {path.suffix or 'such'} files; name another runtime")
    return suitable


def _swept(
    path: Path, artifact: Artifact, runtime: str | None, threads: Sequence[int], batches: Sequence[int]
) -> tuple[list[Candidate], list[Failure]]:
    """A candidate for each supported batch and number of threads, and a failure for each other batch."""
    candidates: list[Candidate] = []
    impossible = []
    fixed = artifact.input.shape[0]
    for batch in batches:
        if fixed in (None, batch):
            candidates += [
                Candidate(path=path, artifact=artifact, runtime=runtime, threads=number, batch=batch)
                for number in threads
            ]
        else:
            reason = f"{path.name} was exported for a fixed batch of {fixed}; export it with --batch dynamic"
            impossible.append(
                Failure(
                    subject=f"{path.name}, batch {batch}",
                    stage="bench",
                    error="SessionError",
                    reason=reason,
                    expected=fixed in batches,
                )
            )
    return candidates, impossible


def _classified(path: Path, runtime: str | None, batch: int, images: Float) -> Float:
    if runtime_for(path, runtime).name != "keras":
        return outputs_of(task_of(path, runtime, batch=batch), images)
    with Worker(Workbench) as worker:
        return worker.call("classifying the test images", _CLASSIFY_S, _reference, path, images)


def _earlier(keep: Path, settings: str, candidates: Sequence[Candidate]) -> BenchResults | None:
    """The results of an interrupted call with the same ``settings`` in ``keep``; with others, the file is renamed."""
    try:
        report = read_record(keep, Report)
    except RecordError:  # no report, or another file, which the finished report replaces
        return None
    if report.unfinished is None:
        return None
    rows = report.rows[: len(candidates)]
    if report.unfinished == settings and _are_rounds_of(rows, candidates):
        log.info("resuming from the finished rounds in %s", keep)
        return BenchResults(
            schema_version=report.schema_version,
            environment=report.environment,
            seed=report.seed,
            rows=rows,
            unfinished=settings,
        )
    aside = next(
        path
        for number in count(1)
        if not (path := keep.with_name(f"{keep.stem}.interrupted-{number}{keep.suffix}")).exists()
    )
    keep.rename(aside)
    log.warning(
        "%s contained an interrupted measurement of other files or settings; renamed it to %s, starting a new one",
        keep,
        aside,
    )
    return None


def _are_rounds_of(rows: Sequence[Result | Failure], candidates: Sequence[Candidate]) -> bool:
    """Whether ``rows`` are measurements of ``candidates``, all with the same number of rounds."""
    pairs = [(row, candidate) for row, candidate in zip(rows, candidates, strict=False) if isinstance(row, Result)]
    return (
        len(rows) == len(candidates)
        and all(row.artifact == candidate.artifact for row, candidate in pairs)
        and len({len(row.measurement.blocks_ns) for row, _ in pairs}) <= 1
    )


def _check(artifact: Artifact) -> None:
    """Check that the input and output have fixed sizes.

    Raises:
        ArtifactError: a size other than the batch is dynamic.
    """
    shapes = artifact.input.shape, artifact.output.shape
    if any(len(shape) < 2 or None in shape[1:] for shape in shapes):
        raise ArtifactError(
            f"its input is {shapes[0]} and its output {shapes[1]}; edgecnn measures models with a batch and fixed sizes"
        )


def _fitted(artifact: Artifact, data: DataSet) -> DataSet:
    """``data`` with samples in the model's input shape, whose task and preprocessing fit the model.

    Raises:
        ArtifactError: they do not fit.
    """
    try:
        data = data.shaped(artifact.input.sample_shape)
    except DataError as error:
        raise ArtifactError(
            f"its input images are {artifact.input.sample_shape}, the images of {data.name} are {data.input_shape}"
        ) from error
    problem = output_problem((None, *artifact.output.sample_shape), data)
    if problem is not None:
        raise ArtifactError(f"it {problem}")
    prepared = None if artifact.provenance is None else artifact.provenance.preprocessing
    if prepared is not None and (prepared.scale, prepared.offset) != (
        data.preprocessing.scale,
        data.preprocessing.offset,
    ):
        raise ArtifactError(
            f"its input range is {list(prepared.input_range)}, but {data.name} is scaled to "
            f"{list(data.preprocessing.input_range)}; give the model's range with --input-range"
        )
    return data


def _load(workbench: Workbench, path: Path, runtime: str | None, batches: Sequence[int]) -> Artifact:
    """The file's record; a file without a sidecar may support only one of ``batches``."""
    for batch in batches[:-1]:
        try:
            return artifacts.load(path, runtime=runtime, batch=batch)
        except SessionError:
            continue
    return artifacts.load(path, runtime=runtime, batch=batches[-1])


def _reference(workbench: Workbench, path: Path, images: Float) -> Float:
    return reference_of(path, images)


def _noise(models: Sequence[Artifact], seed: int) -> Float:
    """One random sample, channels last, for all ``models``, uniform in 0…1."""
    shapes = {tuple(size or 1 for size in model.input.sample_shape) for model in models}
    if len(shapes) > 1:
        raise ConfigError(
            f"the files have different input sizes, {' and '.join(map(str, sorted(shapes)))}; "
            "measure files of one size at a time"
        )
    return np.random.default_rng(seed).random(shapes.pop(), np.float32)
