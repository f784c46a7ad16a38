"""The suite ``ptq-methods``: how much of what plain int8 loses edgecnn's post-training quantisation saves.

Small MobileNets learn Fashion-MNIST in a few epochs. Trained so briefly, their channels have ranges of one size, and
int8 costs them nothing. Long training leaves ranges that differ by orders of magnitude (Nagel et al., "Data-Free
Quantization Through Weight Equalization and Bias Correction", ICCV 2019, figure 2). So the trained channels are
multiplied by log-normal factors that the next layers divide by. No output changes but for rounding: ReLU
passes positive factors, and ReLU6 those after which a channel stays below 6.

All accuracies are those of .tflite files in LiteRT, on the 10,000 test images.
"""

import contextlib
import tempfile
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.markdown import grid, measured_on
from benchmarks.suite import ModelSuite, read_suite
from edgecnn.data import DataSet, Split, load
from edgecnn.environment import environment
from edgecnn.files import make_folder
from edgecnn.formats import tflite
from edgecnn.formats.source import Source
from edgecnn.measure.comparison import answers_of, credits_of
from edgecnn.models import save_model
from edgecnn.optional import require
from edgecnn.quantization.schemes import SCHEMES
from edgecnn.records import Answers, Environment, Record
from edgecnn.runtimes import open_session, predict
from edgecnn.training import train

SCHEMA_VERSION = 1
LEAST_GAP, LEAST_SHARE = 0.01, 0.8
"""What plain int8 must lose for a net to count, and how much of it must be saved."""

_LEARNING_RATE = 3e-3
_BELOW_LIMIT = 1.2  # images that were not measured may exceed the largest value of the others
_DRAWS = 10_000
_CUT = 1e-4  # of the values at each end of a range


class Net(NamedTuple):
    """A kind of net.

    ``inverted``: MobileNetV2's inverted residuals instead of MobileNetV1's separable convolutions. ``limit`` of the
    ReLUs. ``start``: deviation of the logarithms of batch normalisation's first scales; 1.5 drives many channels into
    the limit. ``spread``: the same for the factors after training.
    """

    inverted: bool
    limit: float | None
    start: float
    spread: float


NETS = {
    "v1": Net(inverted=False, limit=None, start=0.0, spread=1.0),
    "v1-relu6": Net(inverted=False, limit=6.0, start=1.5, spread=1.5),
    "v2": Net(inverted=True, limit=6.0, start=0.0, spread=1.5),
}


class Settings(ModelSuite, frozen=True):
    """Settings of the suite."""

    train_images: int
    epochs: int
    batch: int


class Row(Record, frozen=True):
    """Which test images a net gets right: in float, in plain int8 and in edgecnn's.

    ``converter``: ranges by TensorFlow Lite's converter; ``extremes``: by edgecnn's simulation with no further method.
    ``methods`` are those that edgecnn chose. ``seconds`` are for the int8 file with them, ``converter_seconds`` for the
    converter's. ``errors``: what the simulation's outputs for test images differ by from the float net's, root mean
    square in standard deviations, with single methods; those after ``equalised channels`` are added to it one by one.
    """

    model: str
    float32: Answers
    converter: Answers
    extremes: Answers
    edgecnn: Answers
    methods: tuple[str, ...]
    seconds: float
    converter_seconds: float
    errors: dict[str, float]


class Methods(Record, frozen=True):
    """The result of the suite."""

    schema_version: int
    seed: int
    images: int
    environment: Environment
    rows: tuple[Row, ...]


def run(path: Path, out: Path) -> Methods:
    """Train the nets of the suite at ``path`` and quantise each in every way; the float nets are kept in ``out``."""
    suite = read_suite(path, Settings, NETS)
    make_folder(out)
    data = load("fashion-mnist")
    few = Split(data.train.images[: suite.train_images], data.train.labels[: suite.train_images])
    data = replace(data, train=few)
    rows = []
    for name in suite.models:
        model = trained(name, data, suite)
        save_model(model, out / f"{name}.keras")
        rows.append(_row(name, model, data, data.calibration(suite.images)))
    return Methods(
        schema_version=SCHEMA_VERSION,
        seed=suite.seed,
        images=suite.images,
        environment=environment(),
        rows=tuple(rows),
    )


# The nets


@dataclass
class Tensor:
    """A tensor of Keras: the batch normalisations whose channels it has, and the linear layers that take it.

    ``limit`` of the ReLU between the two, None if there is none.
    """

    value: Any
    norms: list[Any] = field(default_factory=list)
    limit: float | None = None
    users: list[Any] = field(default_factory=list)


def trained(name: str, data: DataSet, suite: Settings) -> Any:
    """The trained net ``name``, its channels multiplied by factors."""
    keras, kind = require("keras"), NETS[name]
    keras.utils.set_random_seed(suite.seed)
    draw = np.random.default_rng(suite.seed)
    model, tensors = _net(name, kind, data.input_shape, len(data.class_names), draw)
    model, _ = train(
        model, data, epochs=suite.epochs, seed=suite.seed, batch_size=suite.batch, learning_rate=_LEARNING_RATE
    )
    for tensor in tensors:
        _multiply(tensor, _factors(model, tensor, kind.spread, data.calibration(suite.images), draw))
    return model


def _net(
    name: str, kind: Net, shape: tuple[int, ...], classes: int, draw: np.random.Generator
) -> tuple[Any, list[Tensor]]:
    """An untrained net, and the tensors between its linear layers."""
    keras = require("keras")
    layers = keras.layers
    found: list[Tensor] = []

    def normalized(layer: Any, given: Tensor, activated: bool = True) -> Tensor:
        norm = layers.BatchNormalization(momentum=0.9)
        value = norm(layer(given.value))
        given.users.append(layer)
        norm.gamma.assign(np.exp(draw.normal(0, kind.start, norm.gamma.shape)))
        made = Tensor(layers.ReLU(kind.limit)(value), [norm], kind.limit) if activated else Tensor(value, [norm])
        found.append(made)
        return found[-1]

    def convolution(filters: int, size: int = 1, strides: int = 1) -> Any:
        return layers.Conv2D(filters, size, strides=strides, padding="same", use_bias=False)

    def depthwise(strides: int) -> Any:
        return layers.DepthwiseConv2D(3, strides=strides, padding="same", use_bias=False)

    inputs = keras.Input(shape)
    x, channels = normalized(convolution(8, 3, 2), Tensor(inputs)), 8
    if kind.inverted:
        for filters, strides in ((8, 1), (16, 2), (16, 1), (24, 2), (24, 1)):
            y = normalized(depthwise(strides), normalized(convolution(4 * channels), x))
            y = normalized(convolution(filters), y, activated=False)
            if filters == channels and strides == 1:
                x.value = layers.Add()([x.value, y.value])
                x.norms.extend(y.norms)  # one stream
                found.remove(y)
            else:
                x = y
            channels = filters
        x = normalized(convolution(96), x)
    else:
        for filters, strides in ((16, 1), (32, 2), (32, 1), (64, 2), (64, 1)):
            x = normalized(convolution(filters), normalized(depthwise(strides), x))
    dense = layers.Dense(classes, activation="softmax")
    x.users.append(dense)
    outputs = dense(layers.GlobalAveragePooling2D()(x.value))
    return keras.Model(inputs, outputs, name=name.replace("-", "_")), found


def _factors(model: Any, tensor: Tensor, spread: float, images: Any, draw: np.random.Generator) -> NDArray[np.float32]:
    """A factor for each channel of ``tensor``; none takes a channel beyond the limit of a ReLU."""
    keras = require("keras")
    norm = tensor.norms[0]
    factors = np.exp(draw.normal(0, spread, norm.gamma.shape))
    if tensor.limit is not None:
        values = keras.ops.convert_to_numpy(keras.Model(model.inputs, norm.output)(images, training=False))
        most = tensor.limit / np.maximum(_BELOW_LIMIT * values.max(axis=(0, 1, 2)), 1e-6)
        factors = np.where(most < 1, 1.0, np.minimum(factors, most))
    return factors.astype(np.float32)


def _multiply(tensor: Tensor, factors: NDArray[np.float32]) -> None:
    """Multiply each channel of ``tensor`` by a factor, and divide what is made of it by the same."""
    for norm in tensor.norms:
        norm.gamma.assign(norm.gamma * factors)
        norm.beta.assign(norm.beta * factors)
    for layer in tensor.users:
        layer.kernel.assign(layer.kernel / factors[:, None])


# The files


def _row(name: str, model: Any, data: DataSet, images: Any) -> Row:
    sources = {each: Source(model, None, images, "int8", 1) for each in ("extremes", "converter", "edgecnn")}
    sources["extremes"].calibrated = _plain(model, images)
    sources["converter"].calibrated = None
    answers, seconds = {}, {}
    for each, source in sources.items():
        start = time.perf_counter()
        converted = tflite.convert(source, SCHEMES["int8"])
        seconds[each] = time.perf_counter() - start
        answers[each] = _answers(converted, data)
    chosen = sources["edgecnn"].calibrated
    assert chosen is not None, f"{name} cannot be read"
    return Row(
        model=name,
        float32=_answers(tflite.convert(sources["edgecnn"], SCHEMES["float32"]), data),
        converter=answers["converter"],
        extremes=answers["extremes"],
        edgecnn=answers["edgecnn"],
        methods=chosen.methods,
        seconds=seconds["edgecnn"],
        converter_seconds=seconds["converter"],
        errors=_errors(model, images, data.test_inputs()),
    )


def _plain(model: Any, images: Any) -> Any:
    """``model`` with the extremes as ranges, and nothing else."""
    from edgecnn.quantization.layers import calibrate
    from edgecnn.quantization.ptq import EXTREMES, Calibrated
    from edgecnn.quantization.simulation import assembled, read_checked, simplify_checked

    quantized = assembled(simplify_checked(read_checked(model, images), images))
    calibrate(quantized, images)
    return Calibrated(quantized, (EXTREMES,))


def _errors(model: Any, images: Any, test_images: Any) -> dict[str, float]:
    """The error of each method, by its name."""
    from edgecnn.quantization import layers, ptq
    from edgecnn.quantization.equalization import equalize
    from edgecnn.quantization.rounding import round_by_outputs
    from edgecnn.quantization.simulation import assembled, read_checked, simplify_checked

    (wanted,) = layers.outputs_of(model, test_images)
    graph = simplify_checked(read_checked(model, images), images)
    quantized = assembled(graph)

    def error() -> float:
        (found,) = layers.outputs_of(quantized, test_images)
        return float(np.sqrt(np.square(found - wanted).mean() / wanted.var()))

    layers.calibrate(quantized, images)
    errors = {ptq.EXTREMES: error()}
    equalize(graph, images)
    layers.calibrate(quantized, images)
    errors[ptq.EQUALIZED] = error()
    equalized = quantized.get_weights()
    more = {
        ptq.LEAST_SQUARES: layers.shrink_ranges,
        "percentiles": _percentiles,
        ptq.ROUNDED: round_by_outputs,
        ptq.CORRECTED: layers.correct_biases,
    }
    for name, method in more.items():
        method(quantized, images)
        errors[name] = error()
        quantized.set_weights(equalized)
    return errors


def _percentiles(quantized: Any, images: Any) -> None:
    """Cut one of 10,000 values off each end of every range."""
    from edgecnn.quantization.layers import FakeQuant, observe

    seen: dict[Any, list[Any]] = {
        layer: [] for layer in quantized.layers if isinstance(layer, FakeQuant) and layer.range is None
    }
    observe(quantized, images, {layer: lambda values, kept=kept: kept.append(values) for layer, kept in seen.items()})
    for layer, kept in seen.items():
        low, high = np.quantile(np.concatenate([np.ravel(values) for values in kept]), (_CUT, 1 - _CUT))
        layer.low.assign(min(0.0, low))
        layer.high.assign(max(1e-6, high))


def _answers(converted: bytes, data: DataSet) -> Answers:
    """What a .tflite answers in LiteRT."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.tflite"
        path.write_bytes(converted)
        with contextlib.closing(open_session(path)) as session:
            return answers_of(predict(session, data.test_inputs()), data)


# The table


def share(row: Row, plain: Answers, seed: int) -> tuple[float, float, float]:
    """How much of what ``plain`` loses against float edgecnn's file saves, and the 95 % interval.

    The interval is a bootstrap over the images, each with its three answers.
    """
    right = [credits_of(each).astype(int) for each in (row.float32, plain, row.edgecnn)]
    kinds = np.bincount(4 * right[0] + 2 * right[1] + right[2], minlength=8)  # of images, by who is right
    lost = np.array([(kind >> 2 & 1) - (kind >> 1 & 1) for kind in range(8)])
    saved = np.array([(kind & 1) - (kind >> 1 & 1) for kind in range(8)])
    drawn = np.random.default_rng(seed).multinomial(kinds.sum(), kinds / kinds.sum(), _DRAWS)
    low, high = np.quantile((drawn @ saved) / (drawn @ lost), (0.025, 0.975))
    return float((kinds @ saved) / (kinds @ lost)), float(low), float(high)


def table(found: Methods, source: str) -> str:
    """Accuracies, shares and times as Markdown; ``source`` names the file of ``found``."""
    titles = (
        "net", "methods chosen", "float, %", "converter, %", "extremes, %", "edgecnn, %",
        "saved of the converter's loss, % [95 %]", "of the extremes', % [95 %]", "time, s", "÷ converter",
    )  # fmt: skip
    rows = [
        (
            row.model,
            ", ".join(row.methods),
            *(
                f"{100 * credits_of(each).mean():.2f}"
                for each in (row.float32, row.converter, row.extremes, row.edgecnn)
            ),
            *(_percent(share(row, plain, found.seed)) for plain in (row.converter, row.extremes)),
            f"{row.seconds:.1f}",
            f"{row.seconds / row.converter_seconds:.1f}",
        )
        for row in found.rows
    ]
    how = f"{found.images} images for calibration"
    return (
        f"{grid(titles, rows, words=2)}\n\nMeasured on {measured_on(found.environment, how)}. "
        f"Every answer is in `{source}`."
    )


def errors_table(found: Methods, source: str) -> str:
    """The error with each method as Markdown; ``source`` names the file of ``found``."""
    titles = ("net", *found.rows[0].errors)
    rows = [(row.model, *(f"{error:.4f}" for error in row.errors.values())) for row in found.rows]
    return f"{grid(titles, rows)}\n\nEvery error is in `{source}`."


def _percent(values: tuple[float, float, float]) -> str:
    middle, low, high = (f"{100 * value:.0f}" for value in values)
    return f"{middle} [{low}, {high}]"
