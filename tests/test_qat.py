"""Quantisation-aware training: what it trains is what the int8 file computes."""

import contextlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from edgecnn.data import DataSet, Split
from edgecnn.errors import QuantizationError
from edgecnn.formats import FORMATS
from edgecnn.formats.source import Source
from edgecnn.quantization import qat
from edgecnn.quantization.schemes import SCHEMES
from edgecnn.runtimes import open_session, predict

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


def model_of(body: Any) -> Any:
    keras.utils.set_random_seed(2)
    images = keras.Input((28, 28, 1))
    x = L.Conv2D(8, 3, strides=2, padding="same", activation="relu")(L.Rescaling(2.0, offset=-1.0)(images))
    x = L.Dropout(0.1)(L.MaxPooling2D()(body(x)))
    return keras.Model(images, L.Dense(10, activation="softmax")(L.Flatten()(x)), name=body.__name__)


@pytest.fixture(scope="module")
def digits(mnist: DataSet) -> DataSet:
    return replace(
        mnist,
        train=Split(mnist.train.images[:1000], mnist.train.labels[:1000]),
        test=Split(mnist.test.images[:300], mnist.test.labels[:300]),
    )


@pytest.mark.parametrize("body", BODIES)
def test_int8_files_agree_with_the_fake_quantised_model(body: Any, digits: DataSet, tmp_path: Path) -> None:
    from edgecnn.training import train

    model, _ = train(model_of(body), digits, epochs=3, learning_rate=1e-2)
    quantized, history = qat.train_quantized(model, digits, epochs=1)
    assert np.isfinite(history.epochs[0].loss)
    images = digits.inputs(digits.test.images)
    expected = quantized.predict(images, verbose=0, batch_size=100)
    floats = np.asarray(model(images, training=False))
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


def test_the_float_model_stays_as_it_is(workspace: Any) -> None:
    data = replace(workspace.data, train=Split(workspace.data.train.images[:200], workspace.data.train.labels[:200]))
    before = [np.asarray(weight).copy() for weight in workspace.model.weights]
    first, history = qat.train_quantized(workspace.model, data, epochs=1)
    for old, new in zip(before, workspace.model.weights, strict=True):
        np.testing.assert_array_equal(old, np.asarray(new))
    again, same_history = qat.train_quantized(workspace.model, data, epochs=1)
    assert history == same_history
    for one, other in zip(first.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_saved_weights_make_the_same_model(workspace: Any) -> None:
    rebuilt = qat.fake_quantized(workspace.model, workspace.data)
    images = workspace.data.inputs(workspace.data.test.images[:50])
    expected = workspace.quantized.predict(images, verbose=0)
    assert not np.array_equal(rebuilt.predict(images, verbose=0), expected)
    qat.load_weights(rebuilt, workspace.qat_file)
    np.testing.assert_array_equal(rebuilt.predict(images, verbose=0), expected)


def damaged(content: bytes) -> bytes:
    return content[:1000]


def of_another_model(content: bytes) -> bytes:
    import io

    buffer = io.BytesIO()
    np.savez(buffer, **{"0000": np.zeros(3)})
    return buffer.getvalue()


@pytest.mark.parametrize("change", [damaged, of_another_model, lambda content: b"", None])
def test_weights_that_are_not_of_this_model_are_refused(change: Any, workspace: Any, tmp_path: Path) -> None:
    path = tmp_path / "qat.npz"
    if change:
        path.write_bytes(change(workspace.qat_file.read_bytes()))
    rebuilt = qat.fake_quantized(workspace.model, workspace.data)
    with pytest.raises(QuantizationError, match=r"qat\.npz does not hold the weights of this model") as caught:
        qat.load_weights(rebuilt, path)
    assert "\n" not in str(caught.value)


def test_pickled_weights_are_not_unpickled(workspace: Any, tmp_path: Path) -> None:
    path = tmp_path / "qat.npz"
    np.savez(path, **{"0000": np.array([{"code": 1}], dtype=object)})  # type: ignore[arg-type]
    with pytest.raises(QuantizationError, match=r"0000 holds Python objects \(pickle\), which are never loaded"):
        qat.load_weights(qat.fake_quantized(workspace.model, workspace.data), path)


def test_layers_that_tfmot_refuses_are_listed_together(digits: DataSet) -> None:
    def body(x: Any) -> Any:
        return L.PReLU(shared_axes=[1, 2], name="one")(L.PReLU(shared_axes=[1, 2], name="two")(x))

    with pytest.raises(QuantizationError, match=r"'two' \(PReLU\), 'one' \(PReLU\); use the scheme int8"):
        qat.fake_quantized(model_of(body), digits)
