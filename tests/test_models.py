"""Keras models: built-in ones, and users' own files."""

import json
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from edgecnn.data import DataSet, Split
from edgecnn.data.demo import DEMOS
from edgecnn.errors import ModelError, OutputError, UnknownNameError
from edgecnn.models import (
    MODELS,
    architecture,
    architecture_of,
    build_model,
    called,
    data_for,
    gives_probabilities,
    load_model,
    mnist_cnn,
    save_model,
)

L = keras.layers


def images_of(mnist: DataSet, shape: tuple[int, int, int], classes: int = 10) -> DataSet:
    """A few images of another shape."""
    images = np.zeros((classes, *shape), np.uint8)
    split = Split(images, np.arange(classes))
    return replace(mnist, train=split, test=split, class_names=tuple(map(str, range(classes))))


def test_the_reference_cnn_is_the_one_described() -> None:
    model = mnist_cnn()
    assert [type(layer).__name__ for layer in model.layers] == [
        "Conv2D", "MaxPooling2D", "Conv2D", "MaxPooling2D", "Flatten", "Dense", "Dense",
    ]  # fmt: skip
    assert model.count_params() == 121_930
    assert (model.input_shape, model.output_shape) == ((None, 28, 28, 1), (None, 10))


IMAGE_CLASSIFIERS = [name for name in MODELS if name not in DEMOS]


@pytest.mark.parametrize("name", IMAGE_CLASSIFIERS)
def test_built_in_models_fit_images_and_classes(name: str, mnist: DataSet) -> None:
    data = images_of(mnist, (64, 48, 3), classes=7)
    model = build_model(name, data, seed=0)
    data_for(model, data)
    assert model.output_shape == (None, 7)
    assert gives_probabilities(model)


def test_the_seed_draws_the_weights(mnist: DataSet) -> None:
    def weights(seed: int) -> bytes:
        return b"".join(np.asarray(weight).tobytes() for weight in build_model("mnist_cnn", mnist, seed).weights)

    assert weights(0) == weights(0)
    assert weights(0) != weights(1)


def test_an_unknown_model_and_images_too_small_are_refused(mnist: DataSet) -> None:
    with pytest.raises(UnknownNameError, match=r"unknown model.*'vgg'; choose from: .*mnist_cnn"):
        build_model("vgg", mnist, 0)
    with pytest.raises(ModelError, match=r"model mnist_cnn cannot take images of \(4, 4, 1\)"):
        build_model("mnist_cnn", images_of(mnist, (4, 4, 1)), 0)


# Files


def test_a_saved_model_comes_back_equal_and_equal_models_give_equal_bytes(mnist: DataSet, tmp_path: Path) -> None:
    first, second = tmp_path / "a" / "m.keras", tmp_path / "b" / "m.keras"
    for path in (first, second):
        path.parent.mkdir()
        keras.backend.clear_session()
        save_model(build_model("mnist_cnn", mnist, seed=3), path)
    assert first.read_bytes() == second.read_bytes()
    images = mnist.inputs(mnist.test.images[:4])
    loaded = load_model(first)
    np.testing.assert_array_equal(loaded(images), build_model("mnist_cnn", mnist, seed=3)(images))
    save_model(build_model("mnist_cnn", mnist, seed=4), second)
    assert first.read_bytes() != second.read_bytes()


def test_saving_where_nothing_can_be_written(mnist: DataSet, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"cannot write .*nowhere.m\.keras: No such file"):
        save_model(mnist_cnn(), tmp_path / "nowhere" / "m.keras")


def test_a_lambda_with_code_is_refused_and_its_code_does_not_run(tmp_path: Path) -> None:
    trace = tmp_path / "trace"

    def spy(values: Any, path: str = str(trace)) -> Any:
        Path(path).touch()
        return values

    model = keras.Sequential([keras.Input((4, 4, 1)), L.Lambda(spy), L.Flatten(), L.Dense(2)])
    path = tmp_path / "spy.keras"
    model.save(path)
    assert trace.exists(), "the spy leaves no trace, so its absence would say nothing"
    trace.unlink()
    with pytest.raises(ModelError, match="contains a Lambda layer with Python code, which is not run for safety"):
        load_model(path)
    assert not trace.exists()


def test_weights_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.keras"
    model = keras.Sequential([keras.Input((4, 4, 1)), L.Conv2D(2, 3, name="first"), L.Flatten(), L.Dense(2)])
    for value in (np.nan, np.inf):
        model.layers[0].bias.assign([0.0, value])
        model.save(path)
        with pytest.raises(ModelError, match="has weights that are NaN or infinite, in first/bias: it diverged"):
            load_model(path)
    keras.Sequential([keras.Input((4, 4, 1)), L.Flatten()]).save(path)
    with pytest.raises(ModelError, match="has no weights, so there is nothing to train or to quantise"):
        load_model(path)


def truncated(content: bytes) -> bytes:
    return content[: len(content) // 2]


def without_weights(content: bytes) -> bytes:
    return rezipped(content, lambda name, data: None if name == "model.weights.h5" else data)


def with_another_config(content: bytes) -> bytes:
    return rezipped(content, lambda name, data: b"{}" if name == "config.json" else data)


def with_an_unknown_layer(content: bytes) -> bytes:
    def change(name: str, data: bytes) -> bytes:
        return data.replace(b'"MaxPooling2D"', b'"NoSuchLayer"') if name == "config.json" else data

    return rezipped(content, change)


def rezipped(content: bytes, change: Any) -> bytes:
    import io

    target = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            data = change(name, old.read(name))
            if data is not None:
                new.writestr(name, data)
    return target.getvalue()


@pytest.mark.parametrize(
    "damage",
    [truncated, without_weights, with_another_config, with_an_unknown_layer, lambda content: b"", lambda content: b"x"],
)
def test_a_damaged_file_is_one_line(damage: Any, tmp_path: Path) -> None:
    path = tmp_path / "m.keras"
    save_model(mnist_cnn(), path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ModelError) as caught:
        load_model(path)
    assert str(caught.value).startswith(f"{path} cannot be loaded as a Keras 3 model: ")
    assert "\n" not in str(caught.value)


def test_missing_files_and_other_endings(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no model file at"):
        load_model(tmp_path / "gone.keras")
    with pytest.raises(ModelError, match=r"ends neither in \.keras nor in \.h5; save the model with model\.save"):
        load_model(tmp_path / "old.pb")


def test_the_archive_carries_no_date(tmp_path: Path) -> None:
    path = tmp_path / "m.keras"
    save_model(mnist_cnn(), path)
    with zipfile.ZipFile(path) as archive:
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert json.loads(archive.read("metadata.json")) == {"keras_version": keras.__version__}


# Models that do not fit


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: two_heads(),
            "gives the outputs .* and .*, mnist has labels for one; save the labels of each",
        ),
        (lambda: classifier((32, 32, 1)), r"takes input \(None, 32, 32, 1\), the images of mnist give"),
        (lambda: classifier((28, 28, 3)), "use images of the model's size"),
        (lambda: classifier((28, 28, 1), classes=3), r"gives output \(None, 3\), mnist has 10 classes"),
        (lambda: keras.Sequential([keras.Input((784,)), L.Dense(10)]), r"takes input \(None, 784\)"),
    ],
)
def test_a_model_that_does_not_fit_the_data_is_refused(make: Any, message: str, mnist: DataSet) -> None:
    with pytest.raises(ModelError, match=message):
        data_for(make(), mnist)


def test_a_model_of_any_size_fits(mnist: DataSet) -> None:
    images = keras.Input((None, None, 1))
    data_for(keras.Model(images, L.Dense(10)(L.GlobalMaxPooling2D()(L.Conv2D(4, 3)(images)))), mnist)


def classifier(shape: tuple[int, int, int], classes: int = 10) -> Any:
    return keras.Sequential([keras.Input(shape), L.Flatten(), L.Dense(classes)])


def two_heads() -> Any:
    images = keras.Input((28, 28, 1))
    flat = L.Flatten()(images)
    return keras.Model(images, [L.Dense(10)(flat), L.Dense(10)(flat)])


@pytest.mark.parametrize(
    ("last", "probabilities"),
    [
        ([L.Dense(3)], False),
        ([L.Dense(3, activation="softmax")], True),
        ([L.Dense(3), L.Softmax()], True),
        ([L.Dense(3), L.Activation("softmax")], True),
        ([L.Dense(3, activation="sigmoid")], True),
    ],
)
def test_logits_and_probabilities_are_told_apart(last: list[Any], probabilities: bool) -> None:
    assert gives_probabilities(keras.Sequential([keras.Input((4,)), *last])) is probabilities


# The hash of the architecture


def block(names: list[str | None], **changes: Any) -> Any:
    """A residual block with layers of these names."""
    given = {
        "width": 4, "kernel": 3, "strides": 1, "padding": "same", "activation": "relu", "bias": True, "channels": 1,
        "added": "both", "dtype": None, "seed": 0, "batch": None,
    } | changes  # fmt: skip
    first, second, add, dense = names
    settings = {"dtype": given["dtype"], "kernel_initializer": keras.initializers.GlorotUniform(given["seed"])}
    inputs = keras.Input((8, 8, given["channels"]), batch_size=given["batch"])
    x = L.Conv2D(
        given["width"],
        given["kernel"],
        strides=given["strides"],
        padding=given["padding"],
        use_bias=given["bias"],
        name=first,
        **settings,
    )(inputs)
    y = L.Conv2D(x.shape[-1], 3, padding="same", activation=given["activation"], name=second, **settings)(x)
    x = L.Add(name=add)([y, y] if given["added"] == "twice" else [x, y])
    return keras.Model(inputs, L.Dense(3, name=dense)(L.GlobalAveragePooling2D()(x)))


UNNAMED: list[str | None] = [None] * 4
NAMED: list[str | None] = ["relu", "conv2d", "same", "z"]  # one of them as another layer is called by default


@pytest.mark.parametrize("name", IMAGE_CLASSIFIERS)
def test_every_model_has_a_hash_of_its_own_that_its_file_has_too(name: str, mnist: DataSet, tmp_path: Path) -> None:
    data = images_of(mnist, (64, 48, 3), classes=7)
    hashes = {other: architecture(build_model(other, data, 0)) for other in IMAGE_CLASSIFIERS}
    assert len(set(hashes.values())) == len(IMAGE_CLASSIFIERS)
    save_model(build_model(name, data, 1), tmp_path / "m.keras")  # other weights
    assert architecture_of(tmp_path / "m.keras") == hashes[name]
    assert architecture(MODELS[name]((64, 48, 3), 8)) != hashes[name]  # one more class


def test_neither_weights_nor_names_nor_training_change_the_hash(mnist: DataSet, tmp_path: Path) -> None:
    plain = architecture(block(UNNAMED))
    assert architecture(block(NAMED, seed=7)) == plain
    assert architecture(block(UNNAMED, batch=5)) == plain  # nor a fixed batch
    assert architecture(block(UNNAMED, dtype="float32")) == plain
    trained = block(UNNAMED)
    trained.compile("adam", "mse")
    trained.layers[1].trainable = False
    trained.save(tmp_path / "trained.keras")  # with its optimiser
    assert architecture_of(tmp_path / "trained.keras") == plain
    nested = [
        keras.Sequential([keras.Input((8, 8, 1)), block(names)], name=str(names[0])) for names in (UNNAMED, NAMED)
    ]
    assert architecture(nested[0]) == architecture(nested[1]) != plain


def test_what_versions_of_keras_write_differently_does_not_change_the_hash(tmp_path: Path) -> None:
    def older(part: Any) -> Any:
        """Without settings that are off, and the precision by its name alone."""
        if isinstance(part, dict):
            kept = {key: older(value) for key, value in part.items() if value is not None and value is not False}
            return part["config"]["name"] if part.get("class_name") == "DTypePolicy" else kept
        return [older(one) for one in part] if isinstance(part, list) else part

    written = block(UNNAMED).to_json()
    config = json.dumps(older(json.loads(written)))
    assert len(config) < len(written)
    with zipfile.ZipFile(tmp_path / "older.keras", "w") as archive:
        archive.writestr("config.json", config)
    assert architecture_of(tmp_path / "older.keras") == architecture(block(UNNAMED))


@pytest.mark.parametrize(
    "changes",
    [
        {"width": 5}, {"kernel": 5}, {"strides": 2}, {"padding": "valid"}, {"activation": "tanh"},
        {"activation": None}, {"bias": False}, {"channels": 3}, {"added": "twice"}, {"dtype": "mixed_float16"},
    ],
)  # fmt: skip
def test_layers_and_shapes_and_connections_change_the_hash(changes: dict[str, Any]) -> None:
    assert architecture(block(UNNAMED, **changes)) != architecture(block(UNNAMED))


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "cannot be loaded as a Keras 3 model"), (b"PK\x05\x06" + bytes(18), "config.json"), (None, "no model file")],
)
def test_a_hash_needs_a_file_that_is_a_model(content: bytes | None, message: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "m.keras").write_bytes(content)
    with pytest.raises(ModelError, match=message):
        architecture_of(tmp_path / "m.keras")


def test_layer_names_that_tensorflow_refuses_are_replaced(tmp_path: Path) -> None:
    layers = keras.layers
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(3, name="größe")], name="my base")
    names = ["a b", "a_b", "_first", "ä b"]
    model = keras.Sequential([keras.Input((4,)), inner, *(layers.Dense(3, name=name) for name in names)])
    values = np.ones((2, 4), np.float32)
    model.save(tmp_path / "m.keras")
    loaded = load_model(tmp_path / "m.keras")
    assert [layer.name for layer in loaded.layers] == ["layermy_base", "layera_b", "a_b", "layer_first", "layer__b"]
    assert loaded.layers[0].layers[0].name == "layergr__e"
    wanted = values
    for layer in (inner.layers[0], *model.layers[1:]):
        wanted = wanted @ np.asarray(layer.kernel) + np.asarray(layer.bias)
    np.testing.assert_allclose(loaded.predict(values, verbose=0), wanted, atol=1e-5)


# Channels first


def first(flatten: str = "channels_first") -> Any:
    """Every kind of layer that has an order of axes, with channels first."""
    options = {"data_format": "channels_first"}
    images = keras.Input((3, 12, 12))
    x = L.Conv2D(8, 3, strides=2, padding="same", use_bias=False, **options)(L.ZeroPadding2D(1, **options)(images))
    x = L.ReLU()(L.BatchNormalization(axis=1)(x))
    x = L.Concatenate(axis=1)([x, L.DepthwiseConv2D(3, padding="same", **options)(x)])
    maps = L.Conv2D(2, 1, activation="sigmoid", name="maps", **options)(x)
    x = L.MaxPooling2D(**options)(x)
    x = L.Concatenate()([L.GlobalAveragePooling2D(**options)(x), L.Flatten(data_format=flatten)(x)])
    return keras.Model(images, [maps, L.Dense(4, activation="softmax", name="kind")(x)])


def test_a_model_with_channels_first_takes_them_last(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    keras.utils.set_random_seed(0)
    model, images = first(), np.random.default_rng(0).random((5, 3, 12, 12), np.float32)
    model.save(tmp_path / "first.keras")
    loaded = load_model(tmp_path / "first.keras")
    assert "has channels first; edgecnn gives it the same samples with channels last" in caplog.text
    assert [each.shape[1:] for each in (*loaded.inputs, *loaded.outputs)] == [(12, 12, 3), (7, 7, 2), (4,)]
    maps, kinds = (np.asarray(each) for each in model(images))
    ours = called(loaded, [images.transpose(0, 2, 3, 1)])
    np.testing.assert_allclose(np.asarray(ours[0]), maps.transpose(0, 2, 3, 1), atol=1e-5)
    np.testing.assert_allclose(np.asarray(ours[1]), kinds, atol=1e-5)
    assert not any(getattr(layer, "data_format", "") == "channels_first" for layer in loaded.layers)


def test_a_model_that_would_change_is_refused(tmp_path: Path) -> None:
    """Flatten puts the values in another order, for which the dense layer behind it has no weights."""
    keras.utils.set_random_seed(0)
    first("channels_last").save(tmp_path / "first.keras")
    with pytest.raises(ModelError, match=r"cannot be turned to channels last: the outputs would differ by 0\.\d+"):
        load_model(tmp_path / "first.keras")
