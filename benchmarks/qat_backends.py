"""The result ``qat-backends``: quantisation-aware training on any back end of Keras, with a GPU or without.

Training and export are separate commands, since a machine with a GPU needs neither TensorFlow nor the exporters:

    python -m benchmarks.qat_backends prepare FOLDER                  # anywhere: float models and their data
    KERAS_BACKEND=jax python -m benchmarks.qat_backends train FOLDER  # once for each back end
    python -m benchmarks.qat_backends export FOLDER                   # where TensorFlow is
"""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import click
import numpy as np

from benchmarks import qat_engines
from benchmarks.markdown import grid, measured_on
from benchmarks.models import trained
from benchmarks.qat_engines import FLOAT, Training, slowdown
from edgecnn.data import DataSet, load
from edgecnn.environment import environment
from edgecnn.files import make_folder, write_atomic
from edgecnn.measure.comparison import accuracy_difference, answers_of, credits_of
from edgecnn.models import load_model, save_model
from edgecnn.optional import require
from edgecnn.quantization.engines import engine_called
from edgecnn.records import Accuracy, Answers, Artifact, Environment, Parity, Record, read_record, to_json
from edgecnn.report.grid import machine

MODELS = ("mnist_cnn", "resnet8", "ds_cnn")
SEED, TRAIN_IMAGES, EPOCHS, TEST_IMAGES = 0, 4000, 3, 2000
BATCH, STEPS, BLOCKS, SETTLED = 64, 6, 8, 2
RESULT = Path(__file__).parent / "results" / "qat-backends.json"


class Trained(Record, frozen=True):
    """A model trained on one back end: which test images it gets right, and seconds of each block of steps.

    ``float_answers`` and ``float_seconds`` are those of the float model that the training starts from.
    """

    model: str
    backend: Literal["jax", "torch", "tensorflow"]
    environment: Environment
    float_answers: Answers
    answers: Answers
    float_seconds: tuple[float, ...]
    seconds: tuple[float, ...]


class Row(Record, frozen=True):
    """What was trained, and its int8 .tflite against the fake-quantised model, on the machine of the export."""

    trained: Trained
    exported: Parity


class OnBackends(Record, frozen=True):
    """The result; ``environment`` is that of the export."""

    environment: Environment
    steps: int
    batch: int
    rows: tuple[Row, ...]


@click.group()
def cli() -> None:
    """Train quantised on one machine, and export on another."""


def _command(function: Callable[[Path], None]) -> Any:
    return cli.command()(click.argument("folder", type=click.Path(path_type=Path))(function))


@_command
def prepare(folder: Path) -> None:
    """Train the float models, and write them and their data to FOLDER."""
    make_folder(folder)
    for name in MODELS:
        model, data = trained(name, SEED, TRAIN_IMAGES, EPOCHS, TEST_IMAGES)
        save_model(model, folder / f"{name}.keras")
        train, test = data.train, data.test
        np.savez_compressed(
            folder / f"{name}.npz",
            x_train=train.images[:TRAIN_IMAGES], y_train=train.labels[:TRAIN_IMAGES],
            x_test=test.images[:TEST_IMAGES], y_test=test.labels[:TEST_IMAGES], class_names=data.class_names,
        )  # fmt: skip
        click.echo(name)


@_command
def train(folder: Path) -> None:
    """Train what is in FOLDER for one epoch on the back end of Keras; the GPU is used if there is one."""
    backend, engine = require("keras").backend.backend(), engine_called("keras")
    for name in MODELS:
        model, data = load_model(folder / f"{name}.keras"), _data(folder, name)
        quantized, _ = engine.train_quantized(model, data, epochs=1, seed=SEED, batch_size=BATCH)
        engine.save(quantized, folder / f"{name}-{backend}.keras")
        outputs = [one.predict(data.test_inputs(), batch_size=500, verbose=0) for one in (model, quantized)]
        answers = [answers_of(each, data) for each in outputs]
        seconds = _timed(folder / f"{name}.keras", data)
        found = Trained(
            model=name, backend=backend, environment=environment(), float_answers=answers[0], answers=answers[1],
            float_seconds=seconds[FLOAT], seconds=seconds["keras"],
        )  # fmt: skip
        write_atomic(folder / f"{name}-{backend}.json", to_json(found))
        click.echo(f"{name}: accuracy {_accuracy(answers[1]).value:.2%}, step ÷ float {_ratio(found)[0]:.2f}")


def _data(folder: Path, name: str) -> DataSet:
    return load(str(folder / f"{name}.npz"))


def _timed(file: Path, data: DataSet) -> dict[str, tuple[float, ...]]:
    """Seconds of each block of training steps, in float and quantised; the blocks take turns."""
    found: dict[str, list[float]] = {FLOAT: [], "keras": []}
    few = qat_engines.first(data, STEPS * BATCH)
    trainings = {kind: Training() for kind in found}
    for kind, training in trainings.items():
        training.prepare(kind, file, few, BATCH)
    for block in range(BLOCKS + SETTLED):
        for kind, training in trainings.items():
            taken = training.block()
            if block >= SETTLED:
                found[kind].append(taken)
    return {kind: tuple(seconds) for kind, seconds in found.items()}


@_command
def export(folder: Path) -> None:
    """Make an int8 .tflite of every model that was trained in FOLDER, and write the result."""
    from edgecnn.exporting import export as export_files
    from edgecnn.verification import FAKE_QUANTIZED, verify

    rows = []
    for file in sorted(folder.glob("*-*.json")):
        found = read_record(file, Trained)
        model, data = folder / f"{found.model}.keras", _data(folder, found.model)
        with tempfile.TemporaryDirectory() as place:
            options: Any = {"qat": file.with_suffix(".keras"), "schemes": ["int8-qat"], "formats": ["tflite"]}
            (made,) = export_files(model, data, Path(place), **options)
            assert isinstance(made, Artifact), made
            parities = verify([Path(place) / made.file], data, model=model, qat=options["qat"])
        (parity,) = (one for one in parities if one.reference == FAKE_QUANTIZED)
        rows.append(Row(trained=found, exported=parity))
    result = OnBackends(environment=environment(), steps=STEPS, batch=BATCH, rows=tuple(rows))
    write_atomic(RESULT, to_json(result))
    click.echo(table(result, str(RESULT)))


def _accuracy(answers: Answers) -> Accuracy:
    return Accuracy(correct=int(credits_of(answers).sum()), total=answers.total)


def _ratio(found: Trained) -> tuple[float, float, float]:
    return slowdown(found.seconds, found.float_seconds)


def table(result: OnBackends, source: str) -> str:
    """Accuracy, time per step, and what the exported file answers, as Markdown; ``source`` names the result's file."""
    titles = (
        "model", "back end", "float, %", "int8-qat, %", "difference, points [95 %]", "step ÷ float [95 %]",
        "exported .tflite, %", "same class, %",
    )  # fmt: skip
    rows = []
    for row in result.rows:
        one, accuracies = row.trained, [_accuracy(each) for each in (row.trained.float_answers, row.trained.answers)]
        change = accuracy_difference(accuracies[1], one.answers, accuracies[0], one.float_answers)
        middle, low, high = _ratio(one)
        rows.append(
            (
                one.model,
                one.backend,
                *(f"{100 * accuracy.value:.2f}" for accuracy in accuracies),
                f"{change.value:+.2f} [{change.low:+.2f}, {change.high:+.2f}]",
                f"{middle:.2f} [{low:.2f}, {high:.2f}]",
                f"{100 * row.exported.accuracy.value:.2f}",
                f"{100 * (row.exported.difference.agreement or 0):.2f}",
            )
        )
    places = {one.trained.backend: one.trained.environment for one in result.rows}
    on = dict.fromkeys(machine(place) for place in places.values())
    where = ", ".join(f"{place} ({' and '.join(_of(places, place))})" for place in on)
    return (
        f"{grid(titles, rows, words=2)}\n\nTrained on {where}, {result.steps} steps of {result.batch} images in each "
        f"block; exported on {measured_on(result.environment)}. Every block is in `{source}`."
    )


def _of(places: dict[str, Environment], place: str) -> list[str]:
    """The back ends that were used on a machine, with their versions."""
    return [f"{name} {found.versions[name]}" for name, found in places.items() if machine(found) == place]


if __name__ == "__main__":
    cli()
