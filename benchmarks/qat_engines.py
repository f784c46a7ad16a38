"""The suite ``qat-engines``: quantisation-aware training on Keras 3 itself, and with TFMOT.

Both engines start from the same float model and train on the same images for as many epochs. Accuracy is that of the
fake-quantised models, whose outputs an int8 file gives. Training steps of the float model and of both engines take
turns, each in a process of its own.
"""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from benchmarks.markdown import grid, measured_on
from benchmarks.models import UNTRAINED, resized, trained
from benchmarks.suite import ModelSuite, read_suite
from edgecnn.data import DataSet, load
from edgecnn.data.dataset import Split
from edgecnn.environment import environment
from edgecnn.files import make_folder
from edgecnn.measure import counters
from edgecnn.measure.comparison import accuracy_difference, answers_of, credits_of
from edgecnn.models import MODELS, load_model, losses_for, save_model
from edgecnn.optional import require
from edgecnn.progress import progress
from edgecnn.quantization.engines import engine_called
from edgecnn.records import Accuracy, Answers, Environment, QatEngine, Record
from edgecnn.training import compile_model, require_tensorflow, train
from edgecnn.worker import Worker

FLOAT: Literal["float"] = "float"
ENGINES: tuple[QatEngine, QatEngine] = ("keras", "tfmot")
SCHEMA_VERSION = 1

_LIMIT_S = 900.0
_SMALL = (48, 48, 3)
_SETTLED = 2  # blocks before the times are kept: tracing, and caches


class Settings(ModelSuite, frozen=True):
    """Settings of the suite. ``images`` calibrate the ranges; the models are trained as in ``int8-onnx``.

    ``steps`` of training, with ``batch`` images each, are a block; each process measures ``blocks``.
    """

    train_images: int
    epochs: int
    qat_epochs: int
    test_images: int
    batch: int
    steps: int
    blocks: int


class Row(Record, frozen=True):
    """A model trained in float or by an engine: which test images it gets right, and seconds by block.

    ``peak_bytes`` is the most memory that the process of the training steps had, with TensorFlow.
    """

    model: str
    engine: Literal["float", "keras", "tfmot"]
    answers: Answers
    seconds: tuple[float, ...]
    peak_bytes: int


class Engines(Record, frozen=True):
    """The result of the suite."""

    schema_version: int
    seed: int
    steps: int
    batch: int
    environment: Environment
    rows: tuple[Row, ...]


def run(path: Path, out: Path) -> Engines:
    """Train the models of the suite at ``path`` in float and by both engines; the float models are kept in ``out``."""
    suite = read_suite(path, Settings)
    make_folder(out)
    rows: list[Row] = []
    for name in suite.models:
        model, data = _float(name, suite)
        file = out / f"{name}.keras"
        save_model(model, file)
        answers: dict[str, Answers] = {FLOAT: _answers(model, data)}
        for each in ENGINES:
            quantized, _ = engine_called(each).train_quantized(
                load_model(file), data, epochs=suite.qat_epochs, seed=suite.seed
            )
            answers[each] = _answers(quantized, data)
        seconds, peaks = _measured(file, data, suite)
        rows += [
            Row(
                model=name,
                engine=each,
                answers=answers[each],
                seconds=tuple(seconds[each]),
                peak_bytes=peaks[each],
            )
            for each in (FLOAT, *ENGINES)
        ]
    return Engines(
        schema_version=SCHEMA_VERSION,
        seed=suite.seed,
        steps=suite.steps,
        batch=suite.batch,
        environment=environment(),
        rows=tuple(rows),
    )


def _float(name: str, suite: Settings) -> tuple[Any, DataSet]:
    """The trained float model and its data; images for MobileNetV2 are small, or training would take hours."""
    if name != UNTRAINED:
        return trained(name, suite.seed, suite.train_images, suite.epochs, suite.test_images)
    require("keras").utils.set_random_seed(suite.seed)
    model = MODELS[name](input_shape=_SMALL, classes=10)
    data = resized(load("mnist"), model, suite.train_images, suite.test_images)
    return train(model, data, epochs=suite.epochs, seed=suite.seed)[0], data


def _answers(model: Any, data: DataSet) -> Answers:
    return answers_of(model.predict(data.test_inputs(), batch_size=100, verbose=0), data)


def _measured(file: Path, data: DataSet, suite: Settings) -> tuple[dict[str, list[float]], dict[str, int]]:
    """Seconds of each block and peak memory in bytes, in float and by engine; their blocks take turns."""
    count = suite.steps * suite.batch
    seconds: dict[str, list[float]] = {each: [] for each in (FLOAT, *ENGINES)}
    few = first(data, count)
    with progress(f"steps of {file.stem}", suite.blocks * len(seconds)) as advance:
        workers = {each: Worker(Training).__enter__() for each in seconds}
        try:
            for each, worker in workers.items():
                worker.call("preparing", _LIMIT_S, Training.prepare, each, file, few, suite.batch)
            for block in range(suite.blocks + _SETTLED):
                for each, worker in workers.items():
                    taken = worker.call("training", _LIMIT_S, Training.block)
                    if block >= _SETTLED:
                        seconds[each].append(taken)
                        advance(note=each)
            peaks = {each: worker.call("looking", _LIMIT_S, Training.peak) for each, worker in workers.items()}
        finally:
            for worker in workers.values():
                worker.stop()
    return seconds, peaks


def first(data: DataSet, count: int) -> DataSet:
    """``data`` with the first ``count`` training samples."""
    return replace(data, train=Split(data.train.images[:count], data.train.labels[:count]))


class Training:
    """A compiled model, and the images of a block of training steps."""

    def prepare(self, kind: str, file: Path, data: DataSet, batch: int) -> None:
        """Compile the float model in ``file``, or what an engine makes of it."""
        if require("keras").backend.backend() == "tensorflow":
            require_tensorflow()
        require("keras").utils.set_random_seed(0)  # without one, Dropout refuses to run deterministically
        model, library = load_model(file), require("keras")
        float_model = model
        if kind == "keras":
            model = engine_called("keras").fake_quantized(model, data).model
        elif kind == "tfmot":
            model, library = engine_called("tfmot").fake_quantized(model, data), require("tf_keras")
        compile_model(model, library, 1e-4, losses_for(float_model, data, library))
        self.model, self.batch = model, batch
        self.images = data.inputs(data.train.images)
        self.labels = data.targets(data.train.labels, data.train.images, one_hot=True)

    def block(self) -> float:
        """Train on every image once; returns the seconds."""
        start = time.perf_counter()
        self.model.fit(self.images, self.labels, batch_size=self.batch, epochs=1, shuffle=False, verbose=0)
        return time.perf_counter() - start

    def peak(self) -> int:
        """The peak memory of this process in bytes."""
        return counters.resident_bytes(peak=True) or 0


# The table


def row_of(engines: Engines, model: str, engine: str) -> Row:
    """The row of a model in float or by an engine."""
    return next(row for row in engines.rows if (row.model, row.engine) == (model, engine))


def models_of(engines: Engines) -> tuple[str, ...]:
    """The models of ``engines``, in order."""
    return tuple(dict.fromkeys(row.model for row in engines.rows))


def slowdown(seconds: tuple[float, ...], reference: tuple[float, ...]) -> tuple[float, float, float]:
    """``seconds`` ÷ those of ``reference``, block by block: geometric mean and its 95 % interval (normal)."""
    logs = np.log(np.array(seconds) / np.array(reference))
    half = 1.96 * logs.std(ddof=1) / np.sqrt(len(logs))
    low, middle, high = np.exp([logs.mean() - half, logs.mean(), logs.mean() + half])
    return float(middle), float(low), float(high)


def table(engines: Engines, source: str) -> str:
    """Accuracy and time per step as Markdown; ``source`` names the file of ``engines``."""
    titles = (
        "model", "float, %", "keras, %", "tfmot, %", "keras - tfmot, points [95 %]", "step ÷ float: keras [95 %]",
        "step ÷ float: tfmot [95 %]", "memory, MiB: float", "keras", "tfmot",
    )  # fmt: skip
    rows = []
    for name in models_of(engines):
        every = [row_of(engines, name, each) for each in (FLOAT, *ENGINES)]
        accuracies = [Accuracy(correct=int(credits_of(row.answers).sum()), total=row.answers.total) for row in every]
        difference = accuracy_difference(accuracies[1], every[1].answers, accuracies[2], every[2].answers)
        rows.append(
            (
                name,
                *(f"{100 * accuracy.value:.2f}" for accuracy in accuracies),
                f"{difference.value:+.2f} [{difference.low:+.2f}, {difference.high:+.2f}]",
                *(_interval(slowdown(row.seconds, every[0].seconds)) for row in every[1:]),
                *(f"{row.peak_bytes / 2**20:,.0f}" for row in every),
            )
        )
    how = f"{engines.steps} steps of {engines.batch} images in each of {len(engines.rows[0].seconds)} blocks"
    return f"{grid(titles, rows)}\n\nMeasured on {measured_on(engines.environment, how)}. Every block is in `{source}`."


def _interval(values: tuple[float, float, float]) -> str:
    middle, low, high = values
    return f"{middle:.2f} [{low:.2f}, {high:.2f}]"
