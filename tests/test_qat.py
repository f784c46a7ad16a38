"""Quantisation-aware training: what it trains is what the int8 file computes."""

import contextlib
import logging
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
import tools
from small_models import bodied

from edgecnn.data import DataSet, Split
from edgecnn.errors import AccuracyLossError, QuantizationError
from edgecnn.formats import FORMATS
from edgecnn.formats.source import Source
from edgecnn.models import mnist_cnn, save_model
from edgecnn.quantization import qat, tfmot
from edgecnn.quantization.engines import check_accuracy
from edgecnn.quantization.graph import called, read, simplify
from edgecnn.quantization.layers import FakeQuant, QuantizedWeights, fake_quant, fake_quant_weights
from edgecnn.quantization.schemes import SCHEMES
from edgecnn.runtimes import open_session, predict
from edgecnn.tflite.graph import float_operators, read_graph
from edgecnn.training import train

pytestmark = pytest.mark.slow

L = keras.layers


def residual(x: Any) -> Any:
    y = L.ReLU()(L.BatchNormalization()(L.Conv2D(8, 3, padding="same", use_bias=False)(x)))
    y = L.BatchNormalization()(L.Conv2D(8, 3, padding="same", use_bias=False)(y))
    return L.ReLU()(x + y)


def inverted_residual(x: Any) -> Any:
    y = L.ReLU(6.0)(L.BatchNormalization()(L.Conv2D(16, 1, use_bias=False)(x)))
    y = L.ReLU(6.0)(L.BatchNormalization()(L.DepthwiseConv2D(3, padding="same", use_bias=False)(y)))
    return L.Add()([x, L.BatchNormalization()(L.Conv2D(8, 1, use_bias=False)(y))])


def separable(x: Any) -> Any:
    return L.SeparableConv2D(8, 3, strides=2, padding="same", activation="relu")(x)


def pre_activation(x: Any) -> Any:
    return L.Add()([x, L.Conv2D(8, 3, padding="same")(L.ReLU()(L.BatchNormalization()(x)))])


def squeeze_and_excite(x: Any) -> Any:
    gate = L.Conv2D(8, 1, activation="sigmoid")(L.GlobalAveragePooling2D(keepdims=True)(x))
    return L.Multiply()([x, gate])


def concatenated(x: Any) -> Any:
    return L.Concatenate()([L.Conv2D(4, 1, activation="relu")(x), L.Conv2D(4, 3, padding="same")(x), x])


BODIES = (residual, inverted_residual, separable, pre_activation, squeeze_and_excite, concatenated)


BODIES = (residual, inverted_residual, separable, pre_activation, squeeze_and_excite, concatenated)


@pytest.fixture(scope="module")
def digits(mnist: DataSet) -> DataSet:
    return replace(
        mnist,
        train=Split(mnist.train.images[:1000], mnist.train.labels[:1000]),
        test=Split(mnist.test.images[:300], mnist.test.labels[:300]),
    )


@pytest.mark.parametrize("body", BODIES)
def test_int8_files_agree_with_the_fake_quantised_model(body: Any, digits: DataSet, tmp_path: Path) -> None:
    model, _ = train(bodied(body), digits, epochs=3, learning_rate=1e-2)
    images = digits.inputs(digits.test.images)
    floats = np.asarray(model(images, training=False))
    for engine in (qat, tfmot):
        quantized, history = engine.train_quantized(model, digits, epochs=1)
        assert np.isfinite(history.epochs[0].loss)
        expected = quantized.predict(images, verbose=0, batch_size=100)
        assert not np.array_equal(expected, floats)
        assert expected.std() > 0.05, "the outputs hardly differ, so agreement says nothing"
        for format in (FORMATS["tflite"], FORMATS["onnx"]):
            path = tmp_path / f"m.{format.name}"
            source = Source(model, quantized, images[:10], "int8", 1)
            path.write_bytes(format.convert(source, SCHEMES["int8-qat"]))
            with contextlib.closing(open_session(path)) as session:
                outputs = predict(session, images)
            assert (outputs.argmax(axis=1) == expected.argmax(axis=1)).mean() > 0.97
            assert np.abs(outputs - expected).mean() < 0.004, "more than a step of 1/256 apart on average"


# Quantisers


def test_fake_quantisers_are_tensorflows_on_every_back_end() -> None:
    """In value and in gradient, at the ends of the range and beyond."""
    draw = np.random.default_rng(0)
    for low, high in ((-1.0, 1.0), (0.0, 6.0), (-3.7, 0.2), (-1e-3, 5e-4), (-250.0, 0.0)):
        values = tf.constant(draw.uniform(2 * low - high, 2 * high - low, 2000).astype(np.float32))
        ends = tf.constant(low), tf.constant(high)  # float32, as the weights of the layer
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(values)
            wanted = tf.quantization.fake_quant_with_min_max_vars(values, *ends)
            found = fake_quant(values, *ends)
        np.testing.assert_allclose(found, wanted, atol=1e-6 * (high - low))
        scale = (high - low) / 255  # where the ends are shifted by a step, the two may differ on values at the end
        inside = np.abs(values - low) > scale
        inside &= np.abs(values - high) > scale
        np.testing.assert_array_equal(tape.gradient(found, values)[inside], tape.gradient(wanted, values)[inside])


def test_weights_take_all_of_their_grid() -> None:
    kernel = np.random.default_rng(0).normal(size=(3, 3, 4, 5)).astype(np.float32) * np.geomspace(1e-4, 10, 5)
    kernel[..., 2] = 0
    found = np.asarray(fake_quant_weights(keras.ops.convert_to_tensor(kernel, "float32"), (0, 1, 2)))
    scales = np.abs(kernel).max(axis=(0, 1, 2)) / 127
    scales[2] = 1
    steps = found / scales
    np.testing.assert_allclose(steps, np.rint(steps), atol=1e-3)
    np.testing.assert_array_equal(np.abs(np.rint(steps)).max(axis=(0, 1, 2)), [127, 127, 0, 127, 127])
    assert np.abs(found - kernel).max(axis=(0, 1, 2)) == pytest.approx(scales / 2, rel=0.1, abs=1)


def test_the_file_holds_the_integers_and_ranges_that_were_trained(digits: DataSet) -> None:
    keras.utils.set_random_seed(0)
    model = mnist_cnn()
    quantized, _ = qat.train_quantized(model, digits, epochs=1)
    source = Source(model, quantized, digits.calibration(10), "int8", 1)
    graph = read_graph(FORMATS["tflite"].convert(source, SCHEMES["int8-qat"]), "q.tflite")
    wanted = [layer for layer in quantized.layers if isinstance(layer, QuantizedWeights)]
    kernels = [operator.inputs[1] for operator in graph.operators if operator.kind in ("CONV_2D", "FULLY_CONNECTED")]
    assert len(kernels) == len(wanted) == 4
    for layer, index in zip(wanted, kernels, strict=True):
        kernel = np.asarray(layer.kernel)
        shared = (0, 1, 2)[: kernel.ndim - 1]
        steps = np.rint(kernel * (127 / np.abs(kernel).max(axis=shared)))
        stored = np.asarray(graph.tensors[index].data, np.float64)
        stored = stored.transpose(1, 2, 3, 0) if kernel.ndim == 4 else stored.T
        # rounding in float32 may put a value in the middle of two steps on either of them
        assert (stored == steps).mean() > 0.999
        assert np.abs(stored - steps).max() <= 1
    quantizer = next(layer for layer in quantized.layers if isinstance(layer, FakeQuant))
    assert graph.tensors[graph.inputs[0]].scale[0] == pytest.approx(
        (float(quantizer.high) - float(quantizer.low)) / 255
    )


# Folding


def normalized_before(x: Any) -> Any:
    return L.Conv2D(4, 3)(L.BatchNormalization()(x))


def normalized_before_a_border(x: Any) -> Any:
    return L.Conv2D(4, 3, padding="same")(L.BatchNormalization()(x))


def normalized_dense(x: Any) -> Any:
    y = L.BatchNormalization()(L.Dense(16, activation="relu")(L.Flatten()(x)))
    return L.Reshape((2, 2, 4))(L.Dense(16)(y))


def normalized_twice(x: Any) -> Any:
    return L.BatchNormalization()(L.BatchNormalization(scale=False)(L.Conv2D(4, 3)(x)))


def depthwise_twofold(x: Any) -> Any:
    return L.BatchNormalization(center=False)(L.DepthwiseConv2D(3, depth_multiplier=2, use_bias=False)(x))


def transposed(x: Any) -> Any:
    return L.BatchNormalization()(L.Conv2DTranspose(4, 2, strides=2)(x))


def grouped(x: Any) -> Any:
    return L.Conv2D(8, 3, groups=2)(L.BatchNormalization()(L.Conv2D(8, 3, groups=4)(x)))


def standardized(x: Any) -> Any:
    return L.Normalization(mean=np.arange(8) / 8, variance=np.arange(1, 9))(x)


def nested(x: Any) -> Any:
    inner = keras.Sequential([keras.Input(x.shape[1:]), L.Conv2D(4, 3), L.BatchNormalization(), L.ReLU()])
    return keras.Model(inner.inputs, inner(inner.inputs[0]) + 1.0, name="outer")(x)


def shared(x: Any) -> Any:
    twice = L.Conv2D(8, 3, padding="same", activation="relu", name="twice")
    return L.BatchNormalization()(twice(L.BatchNormalization()(twice(x))))


def siamese(x: Any) -> Any:
    """Two views of the input through one encoder, whose every layer is shared."""
    encoder = keras.Sequential(
        [
            keras.Input(x.shape[1:]),
            L.Rescaling(0.5, offset=0.1),
            L.Conv2D(8, 3, use_bias=False),
            L.BatchNormalization(),
            L.SeparableConv2D(6, 3, activation="swish"),
            L.BatchNormalization(),
            L.TimeDistributed(L.Dense(5, activation="sigmoid")),
        ]
    )
    return L.Average()([encoder(x), encoder(1.0 - x)])


def pyramid(x: Any) -> Any:
    """A shared convolution on maps of two sizes, each with a batch normalisation of its own."""
    head = L.Conv2D(8, 3, padding="same", name="head")
    large, small = L.BatchNormalization()(head(x)), L.BatchNormalization()(head(L.MaxPooling2D(2)(x)))
    return L.Concatenate()([large, L.UpSampling2D(2)(small)])


def used_elsewhere(x: Any) -> Any:
    y = L.Conv2D(8, 1)(x)
    return L.Add()([y, L.BatchNormalization()(y)])


def series(x: Any) -> Any:
    y = L.Reshape((-1, 8))(x)
    y = L.BatchNormalization()(L.SeparableConv1D(6, 3, activation="relu")(y))
    return L.Reshape((-1, 2, 3))(L.BatchNormalization()(L.ReLU()(y)))


FOLDED = (
    normalized_before, normalized_before_a_border, normalized_dense, normalized_twice, depthwise_twofold, transposed,
    grouped, standardized, nested, shared, siamese, pyramid, used_elsewhere, series, *BODIES,
)  # fmt: skip


@pytest.mark.parametrize("body", FOLDED)
def test_folding_changes_no_output(body: Any, digits: DataSet) -> None:
    model = bodied(body)
    draw = np.random.default_rng(0)
    for weight in model.weights:
        if weight.name in ("gamma", "beta", "moving_mean"):  # of both signs: a negative factor turns the grid around
            weight.assign(draw.uniform(0.5, 2, weight.shape) * draw.choice([-1, 1], weight.shape))
        elif weight.name == "moving_variance":
            weight.assign(draw.uniform(0.5, 2, weight.shape))
    images = digits.calibration(20)
    graph = simplify(read(model))
    folded = graph.model()
    wanted = np.asarray(model(images, training=False))
    assert wanted.std() > 0.01
    np.testing.assert_allclose(folded(images, training=False), wanted, atol=2e-5)
    assert [layer.name for layer in folded.layers if isinstance(layer, L.BatchNormalization)] == []
    assert len({layer.name for layer in folded.layers}) == len(folded.layers)
    kept = [call.operation.name for call in called(graph.calls, "DepthwiseConv2D") if call.operation.use_bias]
    # What nothing can take in becomes a kernel with a scale for each channel: always the rescaling here.
    alone = {normalized_before_a_border: 1, standardized: 1, pre_activation: 1, shared: 2, used_elsewhere: 1, series: 2}
    alone |= {siamese: 1, pyramid: 2}  # the factor of the average; two normalisations behind one convolution
    folded_back = {depthwise_twofold: 1, inverted_residual: 1}
    assert len(kept) == 1 + alone.get(body, 0) + folded_back.get(body, 0), kept


def test_shared_layers_compute_in_int8(digits: DataSet) -> None:
    """With an activation that a convolution cannot compute itself, and batch normalisation."""
    model = bodied(siamese)
    quantized = qat.fake_quantized(model, digits).model
    source = Source(model, quantized, digits.calibration(10), "int8", 1)
    graph = read_graph(FORMATS["tflite"].convert(source, SCHEMES["int8-qat"]), "siamese")
    assert [operator.kind for operator in float_operators(graph)] == []


def test_a_subclass_is_refused(digits: DataSet) -> None:
    class Own(keras.Model):  # type: ignore[misc]
        def call(self, inputs: Any) -> Any:
            return inputs

    with pytest.raises(QuantizationError, match=r"is a subclass of keras\.Model"):
        qat.fake_quantized(Own(), digits)


# Batch normalisation that has not settled


def test_statistics_that_have_not_settled_are_measured_again(digits: DataSet, caplog: pytest.LogCaptureFixture) -> None:
    model = bodied(residual)
    images = digits.inputs(digits.test.images)

    def accuracy(outputs: Any) -> float:
        return float((np.asarray(outputs).argmax(axis=1) == digits.test.labels).mean())

    with caplog.at_level(logging.WARNING, "edgecnn"):
        train(model, digits, epochs=1, learning_rate=1e-2)
        assert "batch normalisation of residual had not settled" in caplog.text
        settled = accuracy(model(images, training=False))
        assert settled > 0.5
        caplog.clear()
        for layer in model.layers:  # as Keras' own training leaves them after few steps
            if isinstance(layer, L.BatchNormalization):
                layer.moving_mean.assign(0.9 * layer.moving_mean)
                layer.moving_variance.assign(0.1 * layer.moving_variance + 0.9)
        lagging = accuracy(model(images, training=False))
        quantized, _ = qat.fake_quantized(model, digits)
        assert "int8-qat of residual starts from these statistics" in caplog.text
        assert accuracy(quantized(images)) > max(lagging + 0.1, settled - 0.05)
        assert accuracy(model(images, training=False)) == lagging, "the model given was changed"
        caplog.clear()
        for layer in model.layers:
            if isinstance(layer, L.BatchNormalization):
                layer.trainable = False  # statistics of other data, which are to stay
        qat.fake_quantized(model, digits)
        assert caplog.text == ""


# What is kept


def test_what_was_trained_is_a_model_that_trains_on(digits: DataSet, tmp_path: Path) -> None:
    few = replace(digits, train=Split(digits.train.images[:200], digits.train.labels[:200]))
    model = bodied(inverted_residual)
    before = [np.asarray(weight).copy() for weight in model.weights]
    quantized, history = qat.train_quantized(model, few, epochs=2)
    for old, new in zip(before, model.weights, strict=True):
        np.testing.assert_array_equal(old, np.asarray(new))
    qat.save(quantized, tmp_path / "q.keras")
    again = qat.load(tmp_path / "q.keras", model, few)
    images = digits.inputs(digits.test.images[:50])
    np.testing.assert_array_equal(again.predict(images, verbose=0), quantized.predict(images, verbose=0))
    same, same_history = qat.train_quantized(model, few, epochs=2)
    assert same_history == history
    qat.save(same, tmp_path / "same.keras")
    assert (tmp_path / "same.keras").read_bytes() == (tmp_path / "q.keras").read_bytes()
    again.compile(optimizer=keras.optimizers.SGD(0.1), loss="sparse_categorical_crossentropy")
    kernel = next(layer.kernel for layer in again.layers if isinstance(layer, QuantizedWeights))
    old = np.asarray(kernel).copy()
    again.fit(images, digits.test.labels[:50], verbose=0)
    assert not np.array_equal(old, np.asarray(kernel))


def test_files_that_are_not_of_this_model_are_refused(digits: DataSet, tmp_path: Path) -> None:
    model = mnist_cnn()
    save_model(model, tmp_path / "plain.keras")
    save_model(qat.fake_quantized(mnist_cnn(classes=7), digits_of(digits, 7)).model, tmp_path / "other.keras")
    (tmp_path / "cut.keras").write_bytes((tmp_path / "plain.keras").read_bytes()[:1000])
    reasons = {
        "plain": "has no fake quantisers",
        "other": r"gives output \(None, 7\), mnist has 10 classes",
        "cut": "cannot be loaded as a Keras 3 model",
        "none": "no model file at",
    }
    for name, reason in reasons.items():
        with pytest.raises(QuantizationError, match=reason):
            qat.load(tmp_path / f"{name}.keras", model, digits)


def digits_of(digits: DataSet, classes: int) -> DataSet:
    kept = digits.train.labels < classes
    return replace(
        digits,
        class_names=digits.class_names[:classes],
        train=Split(digits.train.images[kept], digits.train.labels[kept]),
    )


ELSEWHERE = """
import sys
from pathlib import Path
import keras, numpy as np
from edgecnn.data import load
from edgecnn.models import load_model
from edgecnn.quantization import qat

folder = Path(sys.argv[1])
data, model = load(str(folder / "digits.npz")), load_model(folder / "model.keras")
quantized, history = qat.train_quantized(model, data, epochs=1, learning_rate=1e-3)
qat.save(quantized, folder / "qat.keras")
np.save(folder / "answers.npy", quantized.predict(data.inputs(data.test.images), verbose=0))
print(keras.backend.backend(), history.epochs[0].loss)
"""


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_training_elsewhere_and_exporting_on_tensorflow(backend: str, digits: DataSet, tmp_path: Path) -> None:
    tools.need_package(backend)
    keras.utils.set_random_seed(0)
    model = mnist_cnn()
    save_model(model, tmp_path / "model.keras")
    np.savez(
        tmp_path / "digits.npz",
        x_train=digits.train.images, y_train=digits.train.labels,
        x_test=digits.test.images, y_test=digits.test.labels,
    )  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, tmp_path],
        env={**os.environ, "KERAS_BACKEND": backend}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    ran, loss = done.stdout.split()
    assert ran == backend
    assert float(loss) < 2.2
    quantized = qat.load(tmp_path / "qat.keras", model, digits)
    images, answers = digits.inputs(digits.test.images), np.load(tmp_path / "answers.npy")
    np.testing.assert_allclose(quantized.predict(images, verbose=0), answers, atol=1 / 256)
    path = tmp_path / "m.tflite"
    path.write_bytes(FORMATS["tflite"].convert(Source(model, quantized, images[:10], "int8", 1), SCHEMES["int8-qat"]))
    with contextlib.closing(open_session(path)) as session:
        outputs = predict(session, images)
    assert (outputs.argmax(axis=1) == answers.argmax(axis=1)).mean() > 0.97
    assert np.abs(outputs - answers).mean() < 0.004


# What training may lose


def test_a_loss_of_accuracy_is_an_error_that_names_the_layer(digits: DataSet) -> None:
    model, _ = train(bodied(separable), digits, epochs=3, learning_rate=1e-2)
    quantized, _ = qat.train_quantized(model, digits, epochs=1)
    check_accuracy(model, quantized, digits)
    name = model.layers[-1].name
    broken = next(layer for layer in quantized.layers if layer.name == f"{name}_range")
    broken.low.assign(-1e-3)
    broken.high.assign(1e-3)
    with pytest.raises(
        AccuracyLossError, match=rf"the accuracy of int8-qat is .*; rounding the output of layer '{name}' costs"
    ):
        check_accuracy(model, quantized, digits)
    assert all(layer.observe is None for layer in quantized.layers if isinstance(layer, FakeQuant))
