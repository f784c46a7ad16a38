"""Quantisation after training: methods are tried, and kept where they help."""

import contextlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from small_models import bodied

from edgecnn.data import DataSet, Split
from edgecnn.formats import FORMATS, export_file, provenance_of
from edgecnn.formats.source import Source
from edgecnn.quantization import ptq
from edgecnn.quantization.equalization import equalize
from edgecnn.quantization.graph import read, simplify
from edgecnn.quantization.layers import (
    SHARED_AXES,
    FakeQuant,
    QuantizedWeights,
    calibrate,
    correct_biases,
    shrink_ranges,
)
from edgecnn.quantization.ptq import CORRECTED, EQUALIZED, EXTREMES, LEAST_SQUARES, ROUNDED, calibrated
from edgecnn.quantization.rounding import round_by_outputs
from edgecnn.quantization.schemes import SCHEMES
from edgecnn.quantization.simulation import assembled
from edgecnn.runtimes import open_session, predict
from edgecnn.training import train

pytestmark = pytest.mark.slow

L = keras.layers


@pytest.fixture(scope="module")
def digits(mnist: DataSet) -> DataSet:
    return replace(
        mnist,
        train=Split(mnist.train.images[:1500], mnist.train.labels[:1500]),
        test=Split(mnist.test.images[:300], mnist.test.labels[:300]),
    )


def uneven(data: DataSet) -> Any:
    """A trained classifier whose channels differ in range by several orders of magnitude, as batch normalisation
    can leave them: each is multiplied by a factor, and divided by it in the next layer."""
    inputs = keras.Input((28, 28, 1))
    x = L.Conv2D(16, 3, strides=2, activation="relu", name="first")(inputs)
    x = L.DepthwiseConv2D(3, activation="relu", name="second")(x)
    x = L.Conv2D(32, 3, strides=2, activation="relu", name="third")(x)
    outputs = L.Dense(10, activation="softmax", name="fourth")(L.Flatten()(x))
    keras.utils.set_random_seed(0)
    model, _ = train(keras.Model(inputs, outputs, name="uneven"), data, epochs=5, learning_rate=1e-2)
    draw = np.random.default_rng(0)
    first, second, third, fourth = (model.get_layer(name) for name in ("first", "second", "third", "fourth"))
    for before, behind, channels in ((first, second, 16), (third, fourth, 32)):
        factors = np.exp(draw.normal(0, 3, channels)).astype(np.float32)
        before.kernel.assign(before.kernel * factors)
        before.bias.assign(before.bias * factors)
        rows = np.asarray(behind.kernel)
        behind.kernel.assign(rows / np.tile(factors, rows.shape[-2] // channels)[:, None])
    return model


def test_channels_of_very_different_ranges_lose_nothing(digits: DataSet, tmp_path: Path) -> None:
    model = uneven(digits)
    images = digits.inputs(digits.test.images)

    def accuracy(outputs: Any) -> float:
        return float((np.asarray(outputs).argmax(axis=1) == digits.test.labels).mean())

    floats = accuracy(model(images, training=False))
    assert floats > 0.9
    plain = assembled(simplify(read(model)))
    calibrate(plain, digits.calibration(200))
    assert accuracy(plain(images)) < floats - 0.1, "the model is too easy to quantise"
    source = Source(model, None, digits.calibration(200), "int8", 1)
    artifact = export_file(
        source,
        format=FORMATS["tflite"],
        scheme=SCHEMES["int8"],
        provenance=provenance_of("uneven", "0" * 64, digits),
        folder=tmp_path,
    )
    assert artifact.provenance is not None
    assert artifact.provenance.calibration_methods[:2] == (EXTREMES, EQUALIZED)
    with contextlib.closing(open_session(tmp_path / artifact.file)) as session:
        assert accuracy(predict(session, images)) > floats - 0.01


def chained(x: Any) -> Any:
    y = L.ReLU()(L.Conv2D(6, 3, padding="same")(x))
    y = L.LeakyReLU(negative_slope=0.1)(L.DepthwiseConv2D(3, depth_multiplier=2)(L.ZeroPadding2D()(y)))
    return L.Conv2D(8, 3)(L.AveragePooling2D(2)(y))


def flattened(x: Any) -> Any:
    y = L.Dense(9, activation="relu")(L.Flatten()(L.Conv2D(4, 3, activation="relu")(x)))
    return L.Reshape((2, 2, 4))(L.Dense(16)(y))


def residual(x: Any) -> Any:
    y = L.ReLU(6.0)(L.Conv2D(8, 1)(x))
    z = L.Add()([y, L.Conv2D(8, 1)(L.ReLU(6.0)(L.DepthwiseConv2D(3, padding="same")(y)))])
    return L.Add()([z, L.Conv2D(8, 1)(z)])


def multiplied(x: Any) -> Any:
    y = L.ReLU()(L.Conv2D(8, 1)(x))
    return L.Multiply()([y, L.Conv2D(8, 1)(y)])


@pytest.mark.parametrize(("body", "scaled"), [(chained, 5), (flattened, 4), (residual, 6), (multiplied, 2)])
def test_equalisation_changes_no_output(body: Any, scaled: int, digits: DataSet) -> None:
    model = bodied(body)
    draw = np.random.default_rng(0)
    for weight in model.weights:
        if "kernel" in weight.path:
            weight.assign(np.asarray(weight) * np.exp(draw.normal(0, 1, weight.shape)))
    images = digits.calibration(30)
    wanted = np.asarray(model(images, training=False))
    graph = simplify(read(model))
    before = [np.asarray(weight).copy() for weight in graph.model().weights]
    equalize(graph, images)
    equalized = graph.model()
    np.testing.assert_allclose(equalized(images, training=False), wanted, atol=1e-5)
    changed = sum(
        not np.allclose(old, np.asarray(new))
        for old, new in zip(before, equalized.weights, strict=True)
        if new.name == "kernel"
    )
    assert changed == scaled


def test_relu6_limits_the_same_channels_when_equalised(digits: DataSet) -> None:
    inputs = keras.Input((28, 28, 1))
    first, second = L.Conv2D(4, 3), L.Conv2D(4, 1)
    model = keras.Model(inputs, second(L.ReLU(6.0)(first(inputs))))
    first.kernel.assign(np.ones(first.kernel.shape) * np.array([0.001, 0.1, 0.5, 5.0]))
    second.kernel.assign(second.kernel * np.array([5.0, 1.0, 1.0, 0.01])[:, None])
    images = digits.calibration(50)
    wanted = np.asarray(model(images, training=False))
    graph = simplify(read(model))
    (limited,) = (call.outputs[0] for call in graph.calls if call.kind == "ReLU")

    def largest() -> Any:
        return np.asarray(replace(graph, outputs=limited).model()(images)).max(axis=(0, 1, 2))

    before = largest()
    equalize(graph, images)
    np.testing.assert_allclose(graph.model()(images, training=False), wanted, atol=1e-5)
    assert before[3] == largest()[3] == 6
    assert before.min() < 0.01 < 0.1 < largest().min()


def test_least_squares_cuts_off_outliers() -> None:
    inputs = keras.Input((1000,))
    model = keras.Model(inputs, FakeQuant(name="range")(inputs))
    values = np.random.default_rng(0).normal(0, 1, (400, 1000)).astype(np.float32)
    values[0, 0] = 10.0
    errors = {}
    for shrunk in (False, True):
        calibrate(model, values)
        if shrunk:
            shrink_ranges(model, values)
        errors[shrunk] = float(np.square(np.asarray(model(values)) - values)[:, 1:].mean())
    assert float(model.get_layer("range").high) < 9
    assert errors[True] < errors[False] * 0.7


def test_biases_take_back_what_rounding_moves() -> None:
    inputs = keras.Input((4, 4, 3))
    layer = QuantizedWeights(L.Conv2D(2, 3, name="conv"), name="quantized_conv")
    model = keras.Model(inputs, layer(inputs))
    kernel = np.full((3, 3, 3, 2), 0.4 / 127, np.float32)  # rounds to 0 …
    kernel[0, 0, 0] = 1.0  # … next to this one
    layer.kernel.assign(kernel)
    values = np.random.default_rng(0).uniform(0, 1, (20, 4, 4, 3)).astype(np.float32)
    wanted = np.asarray(layer.layer(values))
    lost = np.asarray(model(values)) - wanted
    assert abs(lost.mean()) > 0.02
    correct_biases(model, values)
    assert abs((np.asarray(model(values)) - wanted).mean()) < 1e-5


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (L.Dense, {"units": 60}),
        (L.Conv2D, {"filters": 6, "kernel_size": (3, 2), "strides": 2, "padding": "same"}),
        (L.DepthwiseConv2D, {"kernel_size": 3, "depth_multiplier": 2}),
    ],
)
def test_rounding_by_outputs_keeps_them_for_other_inputs(kind: Any, settings: dict[str, Any]) -> None:
    keras.utils.set_random_seed(0)
    layer = kind(**settings)  # initialisers draw their seeds here
    inputs = keras.Input((8, 8, 5))
    model = keras.Model(inputs, QuantizedWeights(layer)(inputs))
    draw = np.random.default_rng(0)
    values = draw.uniform(0, 1, (200, 8, 8, 1)) + draw.uniform(0, 0.2, (200, 8, 8, 5))  # neighbours have much in common
    fit, held_out = np.split(values.astype(np.float32), 2)
    kernel, wanted = np.asarray(layer.kernel).copy(), np.asarray(layer(held_out))

    def error() -> float:
        return float(np.square(np.asarray(model(held_out)) - wanted).mean())

    nearest = error()
    round_by_outputs(model, fit)
    assert error() < 0.7 * nearest
    step = np.abs(kernel).max(axis=SHARED_AXES[type(layer).__name__], keepdims=True) / 127
    assert (np.abs(np.asarray(layer.kernel) - kernel) < step).all()
    steps = np.asarray(layer.kernel) / step
    np.testing.assert_allclose(steps, np.round(steps), atol=1e-3)


def test_a_method_that_makes_outputs_worse_is_taken_back(digits: DataSet, monkeypatch: pytest.MonkeyPatch) -> None:
    model, images = bodied(chained), digits.calibration(20)
    for weight in model.weights:
        if "kernel" in weight.path:
            weight.assign(np.asarray(weight) * np.exp(np.random.default_rng(0).normal(0, 1, weight.shape)))

    def harm(quantized: Any, images: Any) -> None:
        for layer in quantized.layers:
            if isinstance(layer, QuantizedWeights):
                layer.layer.bias.assign(layer.layer.bias + 1)

    monkeypatch.setattr(ptq, "_GOOD_ENOUGH", 0.0)  # every method is tried
    found = []
    for method in (harm, lambda quantized, images: None):
        monkeypatch.setattr(ptq, "shrink_ranges", method)
        found.append(calibrated(model, images))
        assert LEAST_SQUARES not in found[-1].methods
        assert ROUNDED in found[-1].methods
    for ours, theirs in zip(*(each.model.weights for each in found), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_method_that_does_not_help_is_not_kept(digits: DataSet) -> None:
    keras.utils.set_random_seed(0)
    inputs = keras.Input((28, 28, 1))
    model = keras.Model(inputs, L.Dense(10)(L.Flatten()(inputs)))
    images = digits.calibration(100)
    before = [np.asarray(weight).copy() for weight in model.weights]
    found = calibrated(model, images)
    assert EXTREMES in found.methods
    assert EQUALIZED not in found.methods, "there are no two layers"
    assert set(found.methods) <= {EXTREMES, LEAST_SQUARES, ROUNDED, CORRECTED}
    for old, new in zip(before, model.weights, strict=True):
        np.testing.assert_array_equal(old, np.asarray(new))
