"""Keras 3 models: the ones that come with edgecnn, and a user's own from a .keras file."""

import hashlib
import io
import json
import re
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgecnn.arrays import BAD_ZIP
from edgecnn.data import DataSet
from edgecnn.errors import ModelError, OutputError, one_line
from edgecnn.files import need_model, open_file, write_atomic
from edgecnn.optional import require
from edgecnn.records import ModelName
from edgecnn.registry import Registry

# What is in a .keras file, and how many times its size it may unpack to; Keras does not compress.
_MEMBERS = ("config.json", "metadata.json", "model.weights.h5")
_MOST_UNPACKED = 20


def mnist_cnn(input_shape: tuple[int, int, int] = (28, 28, 1), classes: int = 10) -> Any:
    """The reference CNN, untrained: two Conv2D/MaxPooling2D blocks, Dense 64, Dense ``classes`` softmax.

    Input float32 ``(batch, height, width, channels)``, output class probabilities ``(batch, classes)``.
    """
    keras = require("keras")
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input(input_shape),
            layers.Conv2D(32, 3, activation="relu"),
            layers.MaxPooling2D(2),
            layers.Conv2D(64, 3, activation="relu"),
            layers.MaxPooling2D(2),
            layers.Flatten(),
            layers.Dense(64, activation="relu"),
            layers.Dense(classes, activation="softmax"),
        ],
        name="mnist_cnn",
    )


def resnet8(input_shape: tuple[int, int, int] = (32, 32, 3), classes: int = 10) -> Any:
    """ResNet-8, the image classification model of MLPerf Tiny (Banbury et al., NeurIPS 2021), untrained.

    Three residual stacks of 16, 32 and 64 channels; about 78,000 parameters.
    """
    keras = require("keras")
    layers = keras.layers

    def convolved(x: Any, filters: int, size: int, strides: int) -> Any:
        return layers.Conv2D(filters, size, strides=strides, padding="same", kernel_initializer="he_normal")(x)

    inputs = keras.Input(input_shape)
    x = layers.ReLU()(layers.BatchNormalization()(convolved(inputs, 16, 3, 1)))
    for filters, strides in ((16, 1), (32, 2), (64, 2)):
        shortcut = x if strides == 1 else convolved(x, filters, 1, strides)
        x = layers.ReLU()(layers.BatchNormalization()(convolved(x, filters, 3, strides)))
        x = layers.BatchNormalization()(convolved(x, filters, 3, 1))
        x = layers.ReLU()(layers.Add()([shortcut, x]))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(classes, activation="softmax")(x), name="resnet8")


def ds_cnn(input_shape: tuple[int, int, int] = (49, 10, 1), classes: int = 12) -> Any:
    """DS-CNN, the keyword spotting model of MLPerf Tiny (Zhang et al., "Hello Edge", 2017), untrained.

    One convolution and four depthwise separable blocks of 64 channels; about 25,000 parameters.
    """
    keras = require("keras")
    layers = keras.layers
    inputs = keras.Input(input_shape)
    x = layers.Conv2D(64, (10, 4), strides=2, padding="same")(inputs)
    x = layers.Dropout(0.2)(layers.ReLU()(layers.BatchNormalization()(x)))
    for _ in range(4):
        x = layers.ReLU()(layers.BatchNormalization()(layers.DepthwiseConv2D(3, padding="same")(x)))
        x = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(64, 1)(x)))
    x = layers.GlobalAveragePooling2D()(layers.Dropout(0.4)(x))
    return keras.Model(inputs, layers.Dense(classes, activation="softmax")(x), name="ds_cnn")


def mobilenet_v1_025(input_shape: tuple[int, int, int] = (96, 96, 3), classes: int = 2) -> Any:
    """MobileNetV1 with width 0.25 (Howard et al., 2017), the visual wake words model of MLPerf Tiny, untrained.

    Thirteen depthwise separable blocks; about 220,000 parameters.
    """
    keras = require("keras")
    layers = keras.layers
    inputs = keras.Input(input_shape)
    x = layers.Conv2D(8, 3, strides=2, padding="same", use_bias=False)(inputs)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    blocks = ((16, 1), (32, 2), (32, 1), (64, 2), (64, 1), (128, 2), *[(128, 1)] * 5, (256, 2), (256, 1))
    for filters, strides in blocks:
        x = layers.DepthwiseConv2D(3, strides=strides, padding="same", use_bias=False)(x)
        x = layers.ReLU()(layers.BatchNormalization()(x))
        x = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(filters, 1, use_bias=False)(x)))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(classes, activation="softmax")(x), name="mobilenet_v1_025")


def mobilenet_v2(input_shape: tuple[int, int, int] = (224, 224, 3), classes: int = 1000) -> Any:
    """MobileNetV2 with width 1.0 (Sandler et al., CVPR 2018) as Keras builds it, untrained."""
    return require("keras").applications.MobileNetV2(
        input_shape=input_shape, classes=classes, alpha=1.0, weights=None, name="mobilenet_v2"
    )


MODELS: Registry[ModelName, Callable[..., Any]] = Registry(
    "model",
    {
        "mnist_cnn": mnist_cnn,
        "resnet8": resnet8,
        "ds_cnn": ds_cnn,
        "mobilenet_v1_025": mobilenet_v1_025,
        "mobilenet_v2": mobilenet_v2,
    },
)


def build_model(name: str, data: DataSet, seed: int) -> Any:
    """The model called ``name`` for the shape and classes of ``data``, with first weights drawn from ``seed``.

    Raises:
        UnknownNameError: there is none; the message lists the choices.
        ModelError: the images are too small for the model.
    """
    build = MODELS[name]
    keras = require("keras")
    # Keras numbers unnamed layers on from every model built before in this process; the file would tell.
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(seed)
    try:
        return build(data.input_shape, len(data.class_names))
    except ValueError as error:
        raise ModelError(f"model {name} cannot take images of {data.input_shape}: {error}") from error


def load_model(path: Path, *, with_optimizer: bool = False) -> Any:
    """Load a Keras 3 model, by default without its optimizer. Keras' safe mode stays on: no code in the file is run.

    Raises:
        ModelError: the file is missing, damaged, no .keras file, or holds a Lambda layer with code.
    """
    keras = require("keras")
    _check_file(path)
    try:
        return keras.saving.load_model(path, compile=with_optimizer, safe_mode=True)
    except Exception as error:
        text, whole = one_line(error), str(error).lower()
        if "unsafe" in whole or "safe_mode" in whole or "lambda" in whole:  # how to allow it is no advice
            what = "a Lambda layer with Python code" if "lambda" in whole else "a layer that brings code or reads files"
            raise ModelError(
                f"{path} holds {what}, which is not run for safety; "
                "replace it with a built-in Keras layer and save again"
            ) from error
        raise ModelError(f"{path} cannot be loaded as a Keras 3 model: {text}") from error


def _check_file(path: Path) -> None:
    if path.suffix != ".keras":
        raise ModelError(f"{path} does not end in .keras; save the model with model.save('name.keras') in Keras 3")
    need_model(path, ModelError)
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except BAD_ZIP as error:
        raise _unreadable(path, error) from error
    for member in members:
        if member.filename not in _MEMBERS:
            raise ModelError(f"{path} holds {member.filename[:100]!a}, which no model of images needs; save it again")
    unpacked, size = sum(member.file_size for member in members), path.stat().st_size
    if unpacked > _MOST_UNPACKED * size:
        raise ModelError(f"{path} has {size:,} bytes and unpacks to {unpacked:,}, which no weights do; save it again")


def _unreadable(path: Path, error: Exception) -> ModelError:
    return ModelError(f"{path} cannot be loaded as a Keras 3 model: {one_line(error)}; save the model again")


def save_model(model: Any, path: Path, *, with_optimizer: bool = False) -> None:
    """Write ``model`` to ``path`` (ending in .keras), whole or not at all; equal models give equal bytes.

    The optimizer's state, twice the size of the weights, is left out unless training is to go on from the file.

    Raises:
        OutputError: the disk is full, or the place does not allow writing.
    """
    if model.compiled and not with_optimizer:
        weights = model.get_weights()
        model = type(model).from_config(model.get_config())  # clone_model would compile it again
        model.set_weights(weights)
    with tempfile.TemporaryDirectory() as folder:
        saved = Path(folder) / path.name  # Keras insists on the ending
        try:
            model.save(saved)
        except OSError as error:
            raise OutputError(f"cannot write {path}: {error.strerror}") from error
        write_atomic(path, _without_dates(saved.read_bytes()))


def _without_dates(archive: bytes) -> bytes:
    """The .keras archive without the time it was made, so that the file's hash tells whether models differ."""
    undated = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as source, zipfile.ZipFile(undated, "w") as target:
        for name in sorted(source.namelist()):
            content = source.read(name)
            if name == "metadata.json":
                content = json.dumps({"keras_version": json.loads(content)["keras_version"]}).encode()
            elif name == "config.json":
                content = _numbered(content)
            target.writestr(zipfile.ZipInfo(name), content)
    return undated.getvalue()


def _numbered(config: bytes) -> bytes:
    """The config with its objects, which Keras calls by their address in memory, numbered as they come."""
    numbers: dict[bytes, int] = {}

    def number(found: re.Match[bytes]) -> bytes:
        return found[1] + str(numbers.setdefault(found[2], len(numbers) + 1)).encode()

    return re.sub(rb'("shared_object_id": )(\d+)', number, config)


# Parts of a config that change neither a model's layers nor their shapes: names, and what only training uses.
_NO_ARCHITECTURE = re.compile(
    r"name|registered_name|module|trainable|seed|momentum|shape|shared_object_id|"
    r"build_config|build_input_shape|compile_config|\w+_(?:initializer|regularizer|constraint)"
)
_REFERENCES = ("keras_history", "input_layers", "output_layers")


def architecture(model: Any) -> str:
    """SHA-256 of a Keras model's layers, their settings and shapes, and how they are connected.

    Weights, names of layers, and what only training uses take no part, so models with equal hashes compute the same
    operations on the same shapes.
    """
    return _architecture(model.to_json())


def architecture_of(path: Path) -> str:
    """``architecture`` of the .keras file at ``path``, read without Keras.

    Raises:
        ModelError: the file is missing, damaged, or no .keras file.
    """
    _check_file(path)
    try:
        with open_file(path) as file, zipfile.ZipFile(file) as archive:
            return _architecture(archive.read("config.json"))
    except (*BAD_ZIP, LookupError, TypeError, AttributeError) as error:
        raise _unreadable(path, error) from error


def _architecture(config: str | bytes) -> str:
    canonical = json.dumps(_canonical(json.loads(config), {}), sort_keys=True)
    return hashlib.sha256(canonical.encode()).hexdigest()


def _canonical(value: Any, places: dict[str, int]) -> Any:
    """A part of a config without names; ``places`` are those of the layers by their names."""
    if isinstance(value, list):
        return [_canonical(one, places) for one in value]
    if not isinstance(value, dict):
        return value
    if value.get("class_name") == "DTypePolicy":  # written as its name alone by some versions of Keras
        return value["config"]["name"]
    if isinstance(layers := value.get("layers"), list):
        places = {layer["config"]["name"]: place for place, layer in enumerate(layers)}
    found = {}
    for key, part in value.items():
        if key in _REFERENCES:
            found[key] = _placed(part, places)
        elif key == "batch_shape":
            found[key] = part[1:]
        # versions of Keras differ in which settings they write that are off
        elif _NO_ARCHITECTURE.fullmatch(key) is None and part is not None and part is not False:
            found[key] = _canonical(part, places)
    return found


def _placed(reference: Any, places: dict[str, int]) -> Any:
    if isinstance(reference, list):
        return [_placed(one, places) for one in reference]
    return places.get(reference, reference)


def check_model(model: Any, data: DataSet) -> None:
    """Check that ``model`` classifies the images of ``data``.

    Raises:
        ModelError: not one input and one output, another input shape, or another number of classes.
    """
    wanted_input, wanted_output = (None, *data.input_shape), (None, len(data.class_names))
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise ModelError(
            f"model {model.name} has {len(model.inputs)} inputs and {len(model.outputs)} outputs; "
            "edgecnn takes classifiers with one of each"
        )
    shape = tuple(model.input_shape)
    fits = len(shape) == 4 and all(got in (want, None) for got, want in zip(shape[1:], wanted_input[1:], strict=True))
    if not fits:
        raise ModelError(
            f"model {model.name} takes input {shape}, the images of {data.name} give {wanted_input}; "
            "use images of the model's size, or a model of the images' size"
        )
    if tuple(model.output_shape) != wanted_output:
        raise ModelError(
            f"model {model.name} gives output {tuple(model.output_shape)}, {data.name} has "
            f"{len(data.class_names)} classes and needs {wanted_output}"
        )


def gives_probabilities(model: Any) -> bool:
    """Whether the model ends in a softmax; if not, its outputs are taken as logits."""
    keras = require("keras")
    last = model.layers[-1]
    if isinstance(last, keras.layers.Softmax):
        return True
    return getattr(getattr(last, "activation", None), "__name__", "") == "softmax"
