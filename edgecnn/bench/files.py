"""``edgecnn bench``: model files, with or without a sidecar, as one report."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgecnn import artifacts
from edgecnn.bench import Candidate, bench
from edgecnn.bench.baseline import load_baseline
from edgecnn.bench.comparison import answers_of
from edgecnn.bench.environment import environment
from edgecnn.bench.worker import Workbench, Worker, WorkerError
from edgecnn.data import DataSet
from edgecnn.errors import ArtifactError, ConfigError
from edgecnn.records import SCHEMA_VERSION, Accuracy, Answers, Artifact, Failure, Report, Result
from edgecnn.runtimes import Float
from edgecnn.verify import accuracy_of, outputs_of

_LOAD_S = 180.0
_CLASSIFY_S = 3600.0


def bench_files(
    paths: Sequence[Path],
    *,
    data: DataSet | None = None,
    threads: Sequence[int] = (1,),
    seconds: float = 2.0,
    seed: int = 0,
    baselines: Sequence[Path] = (),
) -> Report:
    """Measure the model files at ``paths``; one that cannot be loaded or run becomes a ``Failure`` row.

    With ``data``, the accuracy is counted on all its test images and the first of them is what the models are
    fed while their latency is taken; without, that is noise from ``seed``.

    Raises:
        ConfigError: the files take images of different sizes and there are no data, or senseless arguments.
        RecordError: a baseline cannot be read.
    """
    if not threads or min(threads) < 1:
        raise ConfigError(f"threads must be one or more positive numbers, got {list(threads)}")
    recorded = tuple(load_baseline(path) for path in baselines)
    images = None if data is None else data.inputs(data.test.images)
    candidates: list[Candidate] = []
    failures: list[Failure] = []
    counted: dict[str, tuple[Accuracy, Answers]] = {}
    for path in paths:
        try:
            with Worker() as worker:
                artifact = worker.call("loading the file", _LOAD_S, _load, path)
                _check(artifact, data)
                if images is not None and data is not None:
                    outputs = worker.call("classifying the test images", _CLASSIFY_S, _outputs, path, images)
                    answers = answers_of(outputs.argmax(axis=1), data.test)
                    counted[artifact.sha256] = accuracy_of(outputs, data.test.labels), answers
        except WorkerError as error:
            failures.append(Failure(subject=path.name, stage="bench", error=error.error, reason=error.reason))
        except ArtifactError as error:
            failures.append(Failure(subject=path.name, stage="bench", error="ArtifactError", reason=str(error)))
        else:
            candidates += [Candidate(path=path, artifact=artifact, threads=number) for number in threads]
    if not candidates:
        rows: tuple[Result | Failure, ...] = ()
        machine = environment()
    else:
        image = _noise([candidate.artifact for candidate in candidates], seed) if images is None else images[0]
        results = bench(candidates, image=image, seconds=seconds, seed=seed)
        rows, machine = results.rows, results.environment
    return Report(
        schema_version=SCHEMA_VERSION,
        title="Benchmark of model files",
        data=None if data is None else data.name,
        data_sha256=None if data is None else data.sha256,
        test_images=0 if data is None else len(data.test.labels),
        environment=machine,
        seed=seed,
        rows=(
            *(_with_accuracy(row, counted) for row in rows),
            *failures,
        ),
        parities=(),
        baselines=recorded,
    )


def _with_accuracy(row: Result | Failure, counted: dict[str, tuple[Accuracy, Answers]]) -> Result | Failure:
    if isinstance(row, Failure) or row.artifact.sha256 not in counted:
        return row
    accuracy, answers = counted[row.artifact.sha256]
    return row.replace(accuracy=accuracy, answers=answers)


def _check(artifact: Artifact, data: DataSet | None) -> None:
    """Check that the model classifies images and, where there are data, those of ``data`` as they are prepared.

    Raises:
        ArtifactError: it does not.
    """
    shape = artifact.input.shape
    if len(shape) != 4 or None in shape[1:] or len(artifact.output.shape) != 2:
        raise ArtifactError(
            f"it takes {shape} and gives {artifact.output.shape}; edgecnn measures classifiers of images of fixed size"
        )
    if data is None:
        return
    if _image_shape(artifact) != data.input_shape:
        raise ArtifactError(f"it takes images {_image_shape(artifact)}, those of {data.name} are {data.input_shape}")
    if artifact.output.shape[1] != len(data.class_names):
        raise ArtifactError(f"it has {artifact.output.shape[1]} classes, {data.name} has {len(data.class_names)}")
    prepared = None if artifact.provenance is None else artifact.provenance.preprocessing
    if prepared is not None and (prepared.scale, prepared.offset) != (
        data.preprocessing.scale,
        data.preprocessing.offset,
    ):
        raise ArtifactError(
            f"it was made for images in {list(prepared.input_range)}, {data.name} is prepared in "
            f"{list(data.preprocessing.input_range)}; give the right input range"
        )


def _load(workbench: Workbench, path: Path) -> Artifact:
    return artifacts.load(path)


def _outputs(workbench: Workbench, path: Path, images: Float) -> Float:
    return outputs_of(path, images)


def _noise(models: Sequence[Artifact], seed: int) -> Float:
    """One image ``(height, width, channels)`` that fits all ``models``, uniform in 0…1."""
    shapes = {_image_shape(model) for model in models}
    if len(shapes) > 1:
        raise ConfigError(
            f"the files take images of different sizes, {' and '.join(map(str, sorted(shapes)))}; "
            "measure models of one size at a time"
        )
    return np.random.default_rng(seed).random(shapes.pop(), np.float32)


def _image_shape(model: Artifact) -> tuple[int, int, int]:
    first, second, third = (int(size or 0) for size in model.input.shape[1:])
    return (second, third, first) if model.input.layout == "NCHW" else (first, second, third)
