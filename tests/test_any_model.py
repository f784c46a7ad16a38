"""Models as people have them: each is loaded from its file, and every format is made of it, or says why not."""

import contextlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from edgecnn.data import DataSet, Split, load
from edgecnn.errors import ExportError, UnsupportedError
from edgecnn.formats import FORMATS, converter, tflite
from edgecnn.formats.source import Source
from edgecnn.models import load_model
from edgecnn.quantization.qat import fake_quantized
from edgecnn.quantization.schemes import SCHEMES
from edgecnn.runtimes import open_session, predict
from edgecnn.temporary import own_temporary_folder
from edgecnn.training import train
from edgecnn.verification import SAME_INTEGERS

pytestmark = pytest.mark.slow

L = keras.layers
Maker = Callable[[], Any]


def classified(x: Any) -> Any:
    return L.Dense(10, activation="softmax", name="classes")(L.Flatten()(x))


def dense_layers_only() -> Any:
    inputs = keras.Input((28, 28, 1))
    return keras.Model(inputs, classified(L.Dense(32, activation="relu")(L.Flatten()(inputs))))


def chain_of_preprocessing() -> Any:
    inputs = keras.Input((28, 28, 1))
    x = L.Normalization(mean=[1.0], variance=[4.0])(L.Rescaling(2.0)(inputs))
    return keras.Model(inputs, classified(L.Conv2D(8, 3, strides=2)(L.Rescaling(0.5, offset=0.1)(x))))


def augmentation_and_dropout() -> Any:
    inputs = keras.Input((28, 28, 1))
    x = L.RandomTranslation(0.1, 0.1)(L.RandomRotation(0.1)(inputs))
    return keras.Model(inputs, classified(L.Dropout(0.5)(L.Conv2D(8, 3, strides=2, activation="relu")(x))))


def fixed_batch() -> Any:
    inputs = keras.Input(batch_shape=(1, 28, 28, 1))
    return keras.Model(inputs, classified(L.Conv2D(8, 3, strides=2, activation="relu")(inputs)))


def dictionary_of_one_output() -> Any:
    inputs = keras.Input((28, 28, 1))
    return keras.Model([inputs], {"digit": classified(L.Conv2D(8, 3, strides=2, activation="relu")(inputs))})


def half_precision() -> Any:
    inputs = keras.Input((28, 28, 1))
    x = L.Conv2D(8, 3, strides=2, dtype="mixed_float16")(inputs)
    x = L.ReLU(dtype="mixed_float16")(L.BatchNormalization(dtype="mixed_float16")(x))
    return keras.Model(inputs, classified(L.Conv2D(4, 3, dtype="mixed_bfloat16")(x)))


def shared_layer() -> Any:
    inputs = keras.Input((28, 28, 1))
    twice = L.Conv2D(4, 3, padding="same", activation="relu")
    return keras.Model(inputs, classified(twice(twice(L.Conv2D(4, 3, strides=2)(inputs)))))


def names_with_umlauts() -> Any:
    inputs = keras.Input((28, 28, 1), name="Bild")
    return keras.Model(inputs, classified(L.Conv2D(4, 3, strides=2, name="Größe der Ähre")(inputs)), name="Prüfung")


def backbone_as_a_layer() -> Any:
    inner = keras.Sequential([keras.Input((28, 28, 1)), L.Conv2D(4, 3, strides=2), L.BatchNormalization(), L.ReLU()])
    inputs = keras.Input((28, 28, 1))
    return keras.Model(inputs, classified(inner(inputs)))


def series() -> Any:
    inputs = keras.Input((28, 28, 1))
    x = L.MaxPooling1D()(L.Conv1D(16, 3, activation="relu")(L.Reshape((28, 28))(inputs)))
    return keras.Model(inputs, classified(L.SeparableConv1D(8, 3, activation="relu")(x)))


def lstm() -> Any:
    inputs = keras.Input((28, 28, 1))
    return keras.Model(inputs, classified(L.LSTM(8)(L.AveragePooling1D(4)(L.Reshape((28, 28))(inputs)))))


def gru() -> Any:
    inputs = keras.Input((28, 28, 1))
    return keras.Model(inputs, classified(L.GRU(8)(L.AveragePooling1D(4)(L.Reshape((28, 28))(inputs)))))


def both_ways() -> Any:
    inputs = keras.Input((28, 28, 1))
    x = L.AveragePooling1D(4)(L.Reshape((28, 28))(inputs))
    return keras.Model(inputs, classified(L.Bidirectional(L.LSTM(4))(x)))


def each_step_alike() -> Any:
    inputs = keras.Input((28, 28, 1))
    x = L.AveragePooling1D(4)(L.Reshape((28, 28))(inputs))
    return keras.Model(inputs, classified(L.TimeDistributed(L.Dense(4, activation="relu"))(x)))


def grouped() -> Any:
    inputs = keras.Input((28, 28, 1))
    return keras.Model(inputs, classified(L.Conv2D(8, 3, groups=4, strides=2)(L.Conv2D(8, 3)(inputs))))


def attention() -> Any:
    inputs = keras.Input((28, 28, 1))
    x = L.Dense(8)(L.AveragePooling1D(4)(L.Reshape((28, 28))(inputs)))
    return keras.Model(inputs, classified(L.LayerNormalization()(x + L.MultiHeadAttention(2, 4)(x, x))))


def open_sizes() -> Any:
    """The data say how large its images are."""
    inputs = keras.Input((None, None, 1))
    x = L.Conv2D(8, 3, strides=2, activation="relu")(inputs)
    return keras.Model(inputs, L.Dense(10)(L.GlobalAveragePooling2D()(x)))


FORMS: tuple[Maker, ...] = (
    dense_layers_only, chain_of_preprocessing, augmentation_and_dropout, fixed_batch, dictionary_of_one_output,
    half_precision, shared_layer, names_with_umlauts, backbone_as_a_layer, series, lstm, gru, both_ways,
    each_step_alike, grouped, attention, open_sizes,
)  # fmt: skip


@pytest.mark.parametrize("make", FORMS)
def test_files_of_any_form_answer_as_the_model(make: Maker, mnist: DataSet, tmp_path: Path) -> None:
    keras.utils.set_random_seed(0)
    model = make()
    model.save(tmp_path / "own.keras")
    source = Source.load(tmp_path / "own.keras", mnist, qat_weights=None, calibration_images=100)
    images = source.calibration
    given = images[:1] if make is fixed_batch else images
    outputs = model([given] if make is dictionary_of_one_output else given, training=False)
    wanted = np.asarray(outputs["digit"] if isinstance(outputs, dict) else outputs, np.float32)
    for scheme in ("float32", "dynamic-int8", "int8"):
        for format in ("tflite", "onnx"):
            path = tmp_path / f"{scheme}.{format}"
            path.write_bytes(FORMATS[format].convert(source, SCHEMES[scheme]))
            with contextlib.closing(open_session(path)) as session:
                found = predict(session, images[: len(wanted)])
            exact = scheme == "float32" and make is not half_precision
            np.testing.assert_allclose(found, wanted, atol=1e-4 if exact else 0.03, err_msg=path.name)


def normalizations() -> Any:
    images = keras.Input((12, 10, 3))
    x = L.Conv2D(8, 3, padding="same")(images)
    layers = (L.LayerNormalization(), L.LayerNormalization(axis=[1, 3]), L.GroupNormalization(4), L.RMSNormalization(),
              L.UnitNormalization(), L.UnitNormalization(axis=2))  # fmt: skip
    return keras.Model(images, L.Dense(7)(L.Flatten()(L.Concatenate()([layer(x) for layer in layers]))))


def attentions() -> Any:
    steps = keras.Input((9, 6))
    x, y = L.Dense(8)(steps), L.Dense(10)(L.MaxPooling1D(3)(steps))
    found = [
        L.MultiHeadAttention(2, 5)(x, y),
        L.MultiHeadAttention(2, 5)(x, x, use_causal_mask=True),
        L.GroupQueryAttention(4, 4, 2)(x, x),
        L.AdditiveAttention()([x, x]),
        L.Attention()([x, x]),
    ]
    return keras.Model(steps, L.Dense(7)(L.Flatten()(L.Concatenate()(found))))


def blocks_of_vision() -> Any:
    """Patches, ConvNeXt's block, attention within windows, and that between patches, of which the first is used."""
    images = keras.Input((24, 20, 3))
    x = L.Dense(8)(keras.ops.image.extract_patches(images, (2, 2)))
    y = L.LayerNormalization()(L.DepthwiseConv2D(7, padding="same")(x))
    x = x + L.Dense(8)(L.Dense(16, activation="gelu")(y)) * np.full(8, 0.5, np.float32)
    rows = L.Reshape((-1, 20, 8))(L.Permute((1, 3, 2, 4, 5))(L.Reshape((3, 4, 2, 5, 8))(x)))
    rows = rows + L.MultiHeadAttention(2, 4, attention_axes=2)(rows, rows)
    x = L.Reshape((12, 10, 8))(L.Permute((1, 3, 2, 4, 5))(L.Reshape((3, 2, 4, 5, 8))(rows)))
    tokens = L.Reshape((30, 8))(L.Conv2D(8, 2, strides=2)(x))
    tokens = L.LayerNormalization()(tokens + L.MultiHeadAttention(2, 4)(tokens, tokens))
    return keras.Model(images, L.Dense(7)(L.Concatenate()([tokens[:, 0], L.GlobalAveragePooling1D()(tokens)])))


def unrolled() -> Any:
    steps = keras.Input((5, 6))
    x = L.SimpleRNN(7, return_sequences=True)(steps)
    x = L.Bidirectional(L.GRU(4, return_sequences=True))(x)
    return keras.Model(steps, L.Dense(7)(L.LSTM(5)(x)))


@pytest.mark.parametrize(
    ("make", "steps"), [(normalizations, 0.01), (attentions, 1), (blocks_of_vision, 1), (unrolled, 1)]
)
def test_int8_files_of_layers_in_float_agree(make: Maker, steps: float, tmp_path: Path) -> None:
    """With each other, with the model, and with its simulation, in which nothing inside of these layers is rounded."""
    keras.utils.set_random_seed(1)
    model = make()
    samples = np.random.default_rng(0).random((60, *model.input_shape[1:]), np.float32)
    source, found = Source(model, None, samples, "int8", 1), {}
    assert tflite.layers_in_float(tflite.convert(source, SCHEMES["int8"]), source)
    for format in ("tflite", "onnx"):
        path = tmp_path / f"m.{format}"
        path.write_bytes(FORMATS[format].convert(source, SCHEMES["int8"]))
        with contextlib.closing(open_session(path)) as session:
            found[format], step = predict(session, samples), session.outputs[0].quantization.scale[0]
    wanted = np.asarray(model(samples, training=False))
    assert source.calibrated is not None
    simulated = np.asarray(source.calibrated.model(samples, training=False))
    assert np.ptp(wanted) > 40 * step
    assert np.abs(found["tflite"] - wanted).mean() < 0.03 * np.ptp(wanted)
    assert np.abs(found["tflite"] - simulated).mean() < steps * step
    apart = np.abs(found["onnx"] - found["tflite"]).mean()
    assert apart < min(SAME_INTEGERS.mean_lsb * step, SAME_INTEGERS.mean_abs * np.ptp(wanted))


def test_a_model_with_names_that_tensorflow_refuses_trains(mnist: DataSet, tmp_path: Path) -> None:
    few = replace(mnist, train=Split(mnist.train.images[:200], mnist.train.labels[:200]))
    images = mnist.calibration(5)
    inputs = keras.Input((28, 28, 1))
    inner = keras.Model(inputs, L.Conv2D(4, 3, strides=4, name="Größe der Ähre")(inputs), name="mein Netz")
    model = keras.Model(inputs, classified(inner(inputs)), name="Prüfung 1")
    model.save(tmp_path / "m.keras")
    wanted = np.asarray(model(images))
    loaded = load_model(tmp_path / "m.keras")
    np.testing.assert_allclose(loaded.predict(images, verbose=0), wanted, atol=1e-6)
    trained, _ = train(loaded, few, epochs=1)
    assert not np.allclose(trained.predict(images, verbose=0), wanted, atol=1e-3)


def test_a_model_that_takes_bytes_gets_the_same_numbers(
    mnist: DataSet, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    inputs = keras.Input((28, 28, 1), dtype="uint8")
    x = L.Conv2D(8, 3, strides=2, activation="relu")(L.Rescaling(1 / 255)(inputs))
    model = keras.Model(inputs, classified(x), name="bytes")
    model.save(tmp_path / "bytes.keras")
    source = Source.load(tmp_path / "bytes.keras", load("mnist", (0.0, 255.0)), qat_weights=None, calibration_images=50)
    assert "model bytes takes uint8; edgecnn gives it the same numbers as float32" in caplog.text
    wanted = np.asarray(model(source.calibration.astype(np.uint8), training=False))
    for scheme in ("float32", "int8"):
        path = tmp_path / f"{scheme}.tflite"
        path.write_bytes(tflite.convert(source, SCHEMES[scheme]))
        with contextlib.closing(open_session(path)) as session:
            found = predict(session, source.calibration)
        np.testing.assert_allclose(found, wanted, atol=1e-4 if scheme == "float32" else 0.03)


def test_layers_without_kernels_are_named_with_what_to_use_instead(mnist: DataSet) -> None:
    inputs = keras.Input((28, 28, 1))
    x = L.Conv2D(8, 3, strides=4, activation="hard_swish")(inputs)
    model = keras.Model(inputs, classified(L.GroupNormalization(4, name="groups")(x)))
    source = Source(model, None, mnist.calibration(20), "int8", 1)
    with pytest.raises(UnsupportedError, match=r"no kernels with int16 activations for HARD_SWISH, .*; use int8, or"):
        FORMATS["tflite"].convert(source, SCHEMES["int16x8"])
    with pytest.raises(
        UnsupportedError, match=r"generated C computes in int8 only, .*layer groups \(.*\); replace the"
    ):
        FORMATS["c99"].convert(source, SCHEMES["int8"])


@pytest.mark.parametrize("dtype", ["int32", "float32"])
def test_indices_are_not_rounded(dtype: str, mnist: DataSet, tmp_path: Path) -> None:
    """An int8 input has 256 values; the schemes with a float input give every row of the table."""
    inputs = keras.Input((28, 28, 1), dtype=dtype)
    x = L.Embedding(1000, 3, name="table")(L.Reshape((784,))(inputs))
    model = keras.Model(inputs, classified(L.Conv1D(4, 3, strides=8)(x)))
    images = (mnist.calibration(20) * 999).round()
    source = Source(model, None, images, "int8", 1)
    for scheme in ("int8", "int16x8"):
        with pytest.raises(UnsupportedError, match="layer table takes whole numbers as indices"):
            FORMATS["tflite"].convert(source, SCHEMES[scheme])
    with pytest.raises(UnsupportedError, match="layer table takes whole numbers as indices"):
        fake_quantized(model, mnist)
    (tmp_path / "m.tflite").write_bytes(FORMATS["tflite"].convert(source, SCHEMES["float32"]))
    with contextlib.closing(open_session(tmp_path / "m.tflite")) as session:
        np.testing.assert_allclose(predict(session, images), np.asarray(model(images)), atol=1e-5)


def test_a_conversion_after_a_command_has_ended_works(mnist: DataSet) -> None:
    converter.stop()
    for _ in range(2):
        with own_temporary_folder():
            source = Source(dense_layers_only(), None, mnist.calibration(10), "int8", 1)
            assert tflite.convert(source, SCHEMES["float32"])[4:8] == b"TFL3"
    converter.stop()


def crash(_: None, conversion: converter.Conversion) -> bytes:
    """In the place of a conversion."""
    import os

    os.abort()


def test_a_crash_of_the_converter_is_an_error_and_the_next_conversion_works(
    mnist: DataSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Source(dense_layers_only(), None, mnist.calibration(10), "int8", 1)
    with monkeypatch.context() as patch:
        patch.setattr(converter, "_converted", crash)
        with pytest.raises(ExportError, match=r"cannot be exported as float32 \.tflite: killed by SIGABRT"):
            tflite.convert(source, SCHEMES["float32"])
    assert tflite.convert(source, SCHEMES["float32"])[4:8] == b"TFL3"
