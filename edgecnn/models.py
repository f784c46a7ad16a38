"""Keras 3 models: the ones that come with edgecnn, and a user's own from a file."""

import hashlib
import inspect
import io
import itertools
import json
import logging
import math
import os
import re
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from edgecnn.arrays import BAD_ZIP
from edgecnn.data import DataSet
from edgecnn.errors import DataError, ModelError, OutputError, one_line
from edgecnn.files import need_model, open_file, sha256_file, write_atomic
from edgecnn.optional import require
from edgecnn.own_code import import_own
from edgecnn.records import ModelName, TaskName
from edgecnn.registry import Registry
from edgecnn.samples import flat, unlike
from edgecnn.saved_model import read

log = logging.getLogger("edgecnn")
T = TypeVar("T")

# What TensorFlow accepts as the name of a scope; each layer is one.
_SCOPE = re.compile(r"[A-Za-z0-9.][A-Za-z0-9_.-]*")
_NOT_IN_SCOPE = re.compile(r"[^A-Za-z0-9_.-]")
_NOT_IN_FILE = re.compile(r"[^A-Za-z0-9_-]")
# What is in a .keras file, and how many times its size it, or its weights, may unpack to; Keras does not compress.
_MEMBERS = ("config.json", "metadata.json", "model.weights.h5")
_MOST_UNPACKED = 20
_PROBABILITIES = ("softmax", "sigmoid")
# Axes of tensors with channels first, by rank, in tensors with channels last.
_MOVED = {4: {1: 3, 2: 1, 3: 2}, 3: {1: 2, 2: 1}}
_SAME = 1e-3
# Endings of model files of Keras before version 3.
LEGACY = (".h5", ".hdf5")
# The modules of use_custom, as an environment variable: processes that are started later import them too.
_CUSTOM = "EDGECNN_CUSTOM"
_NO_CLASS = re.compile(
    r"(?:Could not locate (?:class|function)|Unknown (?:layer|object|activation function):) '([^']+)'"
)
_ITS_MODULE = re.compile(r"Full object config: \{'module': '(?!__main__|builtins)([\w.]+)'")


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
    blocks = ((16, 1), (32, 2), (32, 1), (64, 2), (64, 1), (128, 2), *[(128, 1)] * 5, (256, 2), (256, 1))
    x = _depthwise_separable(layers, inputs, blocks)
    return keras.Model(inputs, layers.Dense(classes, activation="softmax")(x), name="mobilenet_v1_025")


def _depthwise_separable(layers: Any, x: Any, blocks: Sequence[tuple[int, int]]) -> Any:
    """A convolution of 8 channels, depthwise separable ``blocks`` of (channels, strides), and the global average."""
    x = layers.Conv2D(8, 3, strides=2, padding="same", use_bias=False)(x)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    for filters, strides in blocks:
        x = layers.DepthwiseConv2D(3, strides=strides, padding="same", use_bias=False)(x)
        x = layers.ReLU()(layers.BatchNormalization()(x))
        x = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(filters, 1, use_bias=False)(x)))
    return layers.GlobalAveragePooling2D()(x)


def mobilenet_v2(input_shape: tuple[int, int, int] = (224, 224, 3), classes: int = 1000) -> Any:
    """MobileNetV2 with width 1.0 (Sandler et al., CVPR 2018) as Keras builds it, untrained."""
    return require("keras").applications.MobileNetV2(
        input_shape=input_shape, classes=classes, alpha=1.0, weights=None, name="mobilenet_v2"
    )


def unet(input_shape: tuple[int, int, int] = (64, 64, 1), classes: int = 3) -> Any:
    """A small U-Net (Ronneberger et al., MICCAI 2015) for segmentation, untrained; height and width divide by 4.

    Two levels of 8 and 16 channels around 32; about 30,000 parameters. Output class probabilities of each pixel.
    """
    keras = require("keras")
    layers = keras.layers

    def convolved(x: Any, filters: int) -> Any:
        for _ in range(2):
            x = layers.Conv2D(filters, 3, padding="same", use_bias=False)(x)
            x = layers.ReLU()(layers.BatchNormalization()(x))
        return x

    inputs = keras.Input(input_shape)
    x, kept = inputs, []
    for filters in (8, 16):
        kept.append(convolved(x, filters))
        x = layers.MaxPooling2D()(kept[-1])
    x = convolved(x, 32)
    for filters in (16, 8):
        x = layers.Conv2DTranspose(filters, 2, strides=2)(x)
        x = convolved(layers.Concatenate()([x, kept.pop()]), filters)
    return keras.Model(inputs, layers.Conv2D(classes, 1, activation="softmax")(x), name="unet")


def autoencoder(input_shape: tuple[int, ...] = (640,), classes: int = 0) -> Any:
    """The anomaly detection model of MLPerf Tiny (Banbury et al., NeurIPS 2021), untrained; it has no classes.

    Dense layers of 128 around 8; about 270,000 parameters for 640 inputs. Output ``input_shape``.
    """
    keras = require("keras")
    layers = keras.layers
    (size,) = input_shape
    x = inputs = keras.Input(input_shape)
    for units in (128, 128, 128, 128, 8, 128, 128, 128, 128):
        x = layers.ReLU()(layers.BatchNormalization()(layers.Dense(units)(x)))
    return keras.Model(inputs, layers.Dense(size)(x), name="autoencoder")


def motion_cnn(input_shape: tuple[int, int] = (128, 6), classes: int = 6) -> Any:
    """A 1-D CNN for windows of sensor values ``(time, channels)``, such as activity recognition, untrained.

    Two blocks of Conv1D and MaxPooling1D, a third Conv1D, Dense ``classes`` softmax; about 7,000 parameters.
    """
    keras = require("keras")
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input(input_shape),
            layers.Conv1D(16, 5, activation="relu"),
            layers.MaxPooling1D(2),
            layers.Conv1D(32, 5, activation="relu"),
            layers.MaxPooling1D(2),
            layers.Conv1D(32, 3, activation="relu"),
            layers.GlobalAveragePooling1D(),
            layers.Dense(classes, activation="softmax"),
        ],
        name="motion_cnn",
    )


def person_cnn(input_shape: tuple[int, int, int] = (96, 96, 1), classes: int = 2) -> Any:
    """A small depthwise separable CNN with one sigmoid output, the probability of the second of two classes, untrained.

    For detectors such as "is a person in the image"; about 10,000 parameters.
    """
    keras = require("keras")
    layers = keras.layers
    if classes != 2:
        raise ValueError(f"it decides between 2 classes, the data have {classes}")
    inputs = keras.Input(input_shape)
    x = _depthwise_separable(layers, inputs, ((16, 1), (32, 2), (32, 1), (64, 2), (64, 1)))
    return keras.Model(inputs, layers.Dense(1, activation="sigmoid")(x), name="person_cnn")


MODELS: Registry[ModelName, Callable[..., Any]] = Registry(
    "model",
    {
        "mnist_cnn": mnist_cnn,
        "resnet8": resnet8,
        "ds_cnn": ds_cnn,
        "mobilenet_v1_025": mobilenet_v1_025,
        "mobilenet_v2": mobilenet_v2,
        "unet": unet,
        "autoencoder": autoencoder,
        "motion_cnn": motion_cnn,
        "person_cnn": person_cnn,
    },
)


def build_model(name: str, data: DataSet, seed: int) -> Any:
    """The model called ``name`` for the shape and classes of ``data``, with first weights drawn from ``seed``.

    Raises:
        UnknownNameError: there is none; the message lists the choices.
        ModelError: the images are too small for the model.
    """
    build = MODELS[name]
    wanted = inspect.signature(build).parameters["input_shape"].default
    shape = data.input_shape[: len(wanted)] if data.input_shape[len(wanted) :] == (1,) else data.input_shape
    if len(shape) != len(wanted):
        raise ModelError(f"model {name} takes samples such as {wanted}, those of {data.name} are {data.input_shape}")
    keras = require("keras")
    # Keras numbers unnamed layers on from every model built before in this process; the file would tell.
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(seed)
    try:
        return build(shape, len(data.class_names))
    except ValueError as error:
        raise ModelError(f"model {name} cannot take images of {data.input_shape}: {one_line(error)}") from error


@contextmanager
def as_file(model: Any) -> Iterator[Path]:
    """The path of the file of a Keras ``model``: itself if it is that of a file, else a temporary .keras file."""
    if isinstance(model, str | Path):
        if not Path(model).is_dir():
            yield Path(model)
            return
        model = load_model(model)
    with tempfile.TemporaryDirectory(prefix="edgecnn-") as folder:
        path = Path(folder) / f"{_NOT_IN_FILE.sub('_', model.name)}.keras"
        save_model(plain(model), path)
        yield path


def as_model(model: Any) -> Any:
    """The Keras ``model``, loaded if it is a path; names that TensorFlow refuses are changed."""
    if isinstance(model, str | Path):
        return load_model(Path(model))
    return plain(_renamed(model))


def use_custom(modules: Sequence[str]) -> dict[str, str]:
    """Import Python ``modules`` with the classes of a user's own layers, here and in every process that loads a model.

    The current folder is searched too. Returns the SHA-256 of each module's file.

    Raises:
        ConfigError: there is no such module, or importing it fails.
    """
    os.environ[_CUSTOM] = ",".join(modules)
    _import_custom()
    sources = {name: getattr(sys.modules[name], "__file__", None) for name in modules}
    return {name: sha256_file(Path(source)) for name, source in sources.items() if source is not None}


def _import_custom() -> None:
    for name in filter(None, os.environ.get(_CUSTOM, "").split(",")):
        require("keras")  # before the module imports it
        module = import_own(name, "--custom")
        own = {key: value for key, value in vars(module).items() if getattr(value, "__module__", "") == name}
        require("keras").saving.get_custom_objects().update(own)  # those that are not registered


def load_model(path: Path | str, *, with_optimizer: bool = False) -> Any:
    """Load a Keras model, by default without its optimizer: a .keras file, or a .h5 file of earlier versions.

    A subclass of keras.Model becomes the only layer of a functional model. Keras' safe mode stays on: no code in the
    file is run. The folder of a SavedModel is taken too: its signature becomes a layer that computes the same, on
    TensorFlow only, and cannot be trained.

    Raises:
        ModelError: the file is missing, damaged or no such file, needs a class that is not known, contains a Lambda
            layer with code, or has no weights or some that are not finite; or a SavedModel as ``saved_model.read``.
        SessionError: TensorFlow cannot read the SavedModel.
    """
    keras, path = require("keras"), Path(path)
    from edgecnn.frozen import model_of  # needs Keras; .keras files may have its layer

    if path.is_dir():
        model = model_of(read(path), path.resolve().name)
        _check_values(path, model)
        return plain(_renamed(model))
    _import_custom()
    _check_file(path)
    try:
        _check_weights(path)
        model = keras.saving.load_model(path, compile=with_optimizer, safe_mode=True)
    except Exception as error:
        text, message = one_line(error), str(error)
        whole = message.lower()
        if "unsafe" in whole or "safe_mode" in whole or "lambda" in whole:  # how to allow it is no advice
            what = "a Lambda layer with Python code" if "lambda" in whole else "a layer that brings code or reads files"
            raise ModelError(
                f"{path} contains {what}, which is not run for safety; "
                "replace it with a built-in Keras layer and save again"
            ) from error
        if found := _NO_CLASS.search(message):
            module = _ITS_MODULE.search(message)
            raise ModelError(
                f"{path} needs {found[1]}, which is not part of Keras; name the Python module that defines it: "
                f"--custom {module[1] if module else 'my_layers'}"
            ) from error
        if "no model config found" in whole:
            raise ModelError(f"{path} has weights only; save the whole model with model.save('name.keras')") from error
        raise ModelError(f"{path} cannot be loaded as a Keras 3 model: {text}") from error
    _check_values(path, model)
    return plain(_renamed(model))


def _check_values(path: Path, model: Any) -> None:
    if not model.weights:
        raise ModelError(f"{path} has no weights, so there is nothing to train or to quantise")
    for weight in model.weights:
        values = np.asarray(weight)
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise ModelError(
                f"{path} has weights that are NaN or infinite, in {weight.path}: it diverged; train it again, "
                "with a smaller learning rate"
            )


def plain(model: Any) -> Any:
    """``model`` as a Sequential or functional model that exporters and training expect.

    Layers compute in float32, and inputs have a dynamic batch. A single input or output is a tensor, several are lists,
    in the order of ``model.inputs`` and ``model.outputs``. A subclass of keras.Model becomes the only layer of a
    functional model.

    Raises:
        ModelError: it is such a subclass and was never called, or not on one tensor.
    """
    keras = require("keras")
    if not (_is_functional(model) or isinstance(model, keras.Sequential)):
        model = _as_layer(model)
    if not model.built:
        return model
    model = _channels_last(model)
    half = {layer.compute_dtype for layer in model._flatten_layers()} & {"float16", "bfloat16", "float64"}
    others = sorted({given.dtype for given in model.inputs} - {"float32"})
    if half:
        log.warning("model %s computes in %s; edgecnn uses float32 instead", model.name, " and ".join(sorted(half)))
    elif others:
        log.warning(
            "model %s takes %s; edgecnn gives it the same numbers as float32: 0…255 for 8-bit images needs "
            "--input-range 0,255",
            model.name, " and ".join(others),
        )  # fmt: skip
    elif all(given.shape[0] is None for given in model.inputs) and _is_flat(model):
        return model

    def as_float(layer: Any) -> Any:
        config = layer.get_config()
        if layer.compute_dtype in half:
            config["dtype"] = "float32"
        return type(layer).from_config(config)

    inputs = [keras.Input(tensor.shape[1:], dtype="float32", name=tensor.name) for tensor in model.inputs]
    cloned = keras.models.clone_model(
        keras.Model(given(model.inputs), model.outputs, name=model.name),
        given(inputs),
        clone_function=as_float,
        recursive=True,
    )
    plain = keras.Model(given(cloned.inputs), given(cloned.outputs), name=model.name)
    plain.set_weights(model.get_weights())
    return plain


def _channels_last(model: Any) -> Any:
    """``model`` for samples with channels last, if it is one with channels first; the weights are the same.

    Raises:
        ModelError: a layer means other axes then, so that the outputs would differ.
    """
    keras = require("keras")
    if not any(getattr(layer, "data_format", None) == "channels_first" for layer in model._flatten_layers()):
        return model

    def turned(layer: Any) -> Any:
        config, moved = layer.get_config(), _MOVED.get(_rank_of(layer), {})
        if config.get("data_format") == "channels_first":
            config["data_format"] = "channels_last"
        if isinstance(config.get("axis"), int):
            config["axis"] = moved.get(config["axis"], config["axis"])
        return type(layer).from_config(config)

    def last(array: Any) -> Any:
        return np.moveaxis(array, 1, -1)

    shapes = [tuple(tensor.shape) for tensor in model.inputs]
    inputs = [
        keras.Input((*shape[2:], shape[1]) if len(shape) > 2 else shape[1:], name=tensor.name)
        for tensor, shape in zip(model.inputs, shapes, strict=True)
    ]
    draw = np.random.default_rng(0)
    noise = [draw.random((2, *(size or 32 for size in shape[1:])), np.float32) for shape in shapes]
    try:
        found = keras.models.clone_model(model, given(inputs), clone_function=turned, recursive=True)
        found.set_weights(model.get_weights())
        pairs = zip(called(model, noise), called(found, [last(each) for each in noise]), strict=True)
        differ = [
            float(np.abs((last(wanted) if wanted.ndim > 2 else wanted) - got).max())
            for wanted, got in ((np.asarray(one), np.asarray(other)) for one, other in pairs)
        ]
    except (ValueError, TypeError, AttributeError) as error:
        raise _not_turned(model, one_line(error)) from error
    if max(differ) > _SAME:
        raise _not_turned(model, f"the outputs would differ by {max(differ):.3g}")
    log.warning("model %s has channels first; edgecnn gives it the same samples with channels last", model.name)
    return found


def _rank_of(layer: Any) -> int:
    given = layer.input
    return len((given[0] if isinstance(given, list) else given).shape)


def _not_turned(model: Any, why: str) -> ModelError:
    return ModelError(
        f"model {model.name} has channels first, and cannot be turned to channels last: {why}; build it with "
        "keras.config.set_image_data_format('channels_last'), and load its weights"
    )


def _is_flat(model: Any) -> bool:
    """Whether inputs and outputs are neither in dictionaries nor nested."""
    if not _is_functional(model):
        return True
    for ends, every in ((model.input, model.inputs), (model.output, model.outputs)):
        found = [ends] if len(every) == 1 else ends
        if not isinstance(found, list) or len(found) != len(every):
            return False
        if any(one is not other for one, other in zip(found, every, strict=True)):
            return False
    return True


def input_names(model: Any) -> list[str]:
    """The names of the inputs in exported files: "input", or those that Keras has for several."""
    return ["input"] if len(model.inputs) == 1 else [each.name for each in model.inputs]


def output_names(model: Any) -> list[str]:
    """The names of the outputs, which differ: those that Keras has for several."""
    if len(model.outputs) == 1:
        return [model.outputs[0].name]
    return unlike(list(model.output_names))


def given(tensors: Sequence[Any]) -> Any:
    """``tensors``, one for each input or output, as a plain model takes them."""
    return tensors[0] if len(tensors) == 1 else list(tensors)


def called(model: Any, tensors: Sequence[Any]) -> list[Any]:
    """All outputs of a plain ``model`` at inference, for ``tensors``, one for each input."""
    with without_gradients():
        return as_list(model(given(tensors), training=False))


def without_gradients() -> AbstractContextManager[Any]:
    """Calls of models in the block keep nothing for gradients, as PyTorch does by default."""
    return require("torch").no_grad() if require("keras").backend.backend() == "torch" else nullcontext()


def as_list(outputs: Any) -> list[Any]:
    """What a plain model returns, as a list."""
    return list(outputs) if isinstance(outputs, list | tuple) else [outputs]


def _is_functional(model: Any) -> bool:
    return hasattr(model, "_run_through_graph")


def _as_layer(model: Any) -> Any:
    """A functional model whose only layer is ``model``, a subclass of keras.Model."""
    keras = require("keras")
    shape = (model.get_build_config() or {}).get("input_shape")
    if not model.built or shape is None or not all(size is None or isinstance(size, int) for size in shape):
        raise ModelError(
            f"model {model.name} is a subclass of keras.Model whose input is unknown; call it on one batch of images "
            "before it is saved"
        )
    inputs = keras.Input(tuple(shape[1:]))
    return keras.Model(inputs, model(inputs), name=model.name)


def _renamed(model: Any) -> Any:
    """``model``, rebuilt if it or a layer has a name that TensorFlow refuses as a scope, such as one with spaces.

    Rebuilt, because variables keep the names that their layers had first.
    """
    if not _rename_layers(model):
        return model
    rebuilt = type(model).from_config(model.get_config())
    rebuilt.set_weights(model.get_weights())
    return rebuilt


def _rename_layers(model: Any) -> bool:
    """Rename a model and its layers where TensorFlow refuses their names; returns whether there was one."""
    found = not _SCOPE.fullmatch(model.name)
    if found:
        model.name = _NOT_IN_SCOPE.sub("_", model.name).lstrip("_-") or "model"
    taken = {layer.name for layer in model.layers}
    for layer in model.layers:
        if not _SCOPE.fullmatch(layer.name):
            found = True
            plain = _NOT_IN_SCOPE.sub("_", layer.name)
            names = (f"layer{plain}{number or ''}" for number in itertools.count())
            layer.name = next(name for name in names if name not in taken)
            taken.add(layer.name)
        if hasattr(layer, "layers"):
            found |= _rename_layers(layer)
    return found


def _check_file(path: Path) -> None:
    if path.suffix not in (".keras", *LEGACY):
        raise ModelError(
            f"{path} ends neither in .keras nor in .h5; save the model with model.save('name.keras') in Keras 3"
        )
    need_model(path, ModelError)
    if path.suffix in LEGACY:
        return
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except BAD_ZIP as error:
        raise _unreadable(path, error) from error
    for member in members:
        if member.filename not in _MEMBERS:
            raise ModelError(f"{path} contains {member.filename[:100]!a}, which no image model needs; save it again")
    unpacked, size = sum(member.file_size for member in members), path.stat().st_size
    if unpacked > _MOST_UNPACKED * size:
        raise ModelError(f"{path} has {size:,} bytes and unpacks to {unpacked:,}, which no weights do; save it again")


def _check_weights(path: Path) -> None:
    """Refuse arrays of which next to nothing is stored: HDF5 makes up the rest, in memory.

    Raises:
        ValueError: they are larger than weights in such a file can be.
        OSError, RuntimeError, KeyError: h5py cannot read the weights.
    """
    h5py = require("h5py")
    sizes: list[int] = []

    def count(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            sizes.append(math.prod(item.shape) * item.dtype.itemsize)

    stored: Any = path
    if path.suffix not in LEGACY:
        with zipfile.ZipFile(path) as archive:
            stored = io.BytesIO(archive.read("model.weights.h5"))
    with h5py.File(stored) as weights:
        weights.visititems(count)
    if sum(sizes) > _MOST_UNPACKED * path.stat().st_size:
        raise ValueError(f"its weights would take {sum(sizes):,} bytes, the file has {path.stat().st_size:,}")


def _unreadable(path: Path, error: Exception) -> ModelError:
    return ModelError(f"{path} cannot be loaded as a Keras 3 model: {one_line(error)}; save the model again")


def save_model(model: Any, path: Path | str, *, with_optimizer: bool = False) -> None:
    """Write ``model`` to ``path`` (ending in .keras), whole or not at all; equal models give equal bytes.

    The optimizer's state, twice the size of the weights, is left out unless training will resume from the file.

    Raises:
        OutputError: the disk is full, or the place does not allow writing.
    """
    path = Path(path)
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
    return _architecture(json.loads(model.to_json()))


def architecture_of(path: Path) -> str:
    """``architecture`` of the model at ``path``; a .keras file is read without Keras.

    Raises:
        ModelError: the file is missing, damaged, or no model file.
    """
    if path.suffix in LEGACY or path.is_dir():
        return architecture(load_model(path))
    return _read_config(path, _architecture)


def _read_config(path: Path, read: Callable[[Any], T]) -> T:
    """What ``read`` finds in the config of the .keras file at ``path``."""
    _check_file(path)
    try:
        with open_file(path) as file, zipfile.ZipFile(file) as archive:
            return read(json.loads(archive.read("config.json")))
    except (*BAD_ZIP, LookupError, TypeError, AttributeError) as error:
        raise _unreadable(path, error) from error


def _architecture(config: Any) -> str:
    canonical = json.dumps(_canonical(config, {}), sort_keys=True)
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
    if isinstance(reference, dict):
        return [_placed(reference[name], places) for name in sorted(reference)]
    if isinstance(reference, list):
        return [_placed(one, places) for one in reference]
    return places.get(reference, reference)


def data_for(model: Any, data: DataSet) -> DataSet:
    """``data`` with samples in the input shape of ``model``, whose outputs fit the task of ``data``.

    Raises:
        ModelError: other inputs or outputs, or other shapes than the samples or the labels have.
    """
    inputs = {each.name: tuple(each.shape[1:]) for each in model.inputs}
    outputs = dict(zip(output_names(model), (tuple(each.shape[1:]) for each in model.outputs), strict=True))
    try:
        data = data.shaped(inputs, outputs)
    except DataError as error:
        if len(inputs) > 1 or isinstance(data.input_shape, dict):
            raise ModelError(f"model {model.name} does not fit the data: {error}") from error
        raise ModelError(
            f"model {model.name} takes input {tuple(model.input_shape)}, the images of {data.name} give "
            f"{(None, *data.input_shape)}; use images of the model's size, or a model of the images' size"
        ) from error
    problem = output_problem(outputs, data)
    if problem is not None:
        raise ModelError(f"model {model.name} {problem}")
    return data


def data_for_file(path: Path, data: DataSet) -> DataSet:
    """As ``data_for``, for the .keras file at ``path``, which most often is read without Keras.

    Raises:
        ModelError: the file is missing, damaged or no .keras file, or does not fit the data.
    """
    shape = _read_config(path, _only_input)
    if shape is None or isinstance(data.input_shape, dict):
        return data_for(load_model(path), data)
    return data.shaped({"input": shape}, {})


def _only_input(config: Any) -> tuple[int | None, ...] | None:
    """The shape of a sample, if the model of this config has one input and one output."""
    layers = config["config"].get("layers", ())
    shapes = [layer["config"]["batch_shape"] for layer in layers if layer["class_name"] == "InputLayer"]
    ends = [config["config"].get(key, ()) for key in ("input_layers", "output_layers")]
    if len(shapes) > 1 or any(isinstance(end, dict) or (len(end) > 1 and isinstance(end[0], list)) for end in ends):
        return None
    shape = shapes[0] if shapes else config["build_config"]["input_shape"]
    return tuple(None if size is None else int(size) for size in shape[1:])


def output_problem(outputs: Mapping[str, tuple[int | None, ...]], data: DataSet) -> str | None:
    """Why outputs of these names and sample shapes do not fit the task of ``data``; ``None`` if they do."""
    if data.task == "custom":
        return None
    labels = [each.name for each in data.outputs]
    if sorted(labels) != sorted(outputs) and (labels or len(outputs) > 1):
        return (
            f"gives the outputs {' and '.join(outputs)}, {data.name} has labels for {' and '.join(labels) or 'one'}; "
            "save the labels of each output as y_train.<output> and y_test.<output>, or choose --task custom"
        )
    if labels:
        found = ((name, _shape_problem((None, *shape), data.of_output(name))) for name, shape in outputs.items())
        return next((f"at its output {name} {problem}" for name, problem in found if problem is not None), None)
    (shape,) = outputs.values()
    return _shape_problem((None, *shape), data)


def _shape_problem(shape: tuple[int | None, ...], data: DataSet) -> str | None:
    classes = len(data.class_names)
    one = (1,) if classes == 2 else ()
    fitting = {
        "classification": [(classes,), *([one] if one else [])],
        "segmentation": [(*data.test.labels.shape[1:], size) for size in (classes, *one)],
        "reconstruction": [flat(data.test.images[:1]).shape[1:]],
    }.get(data.task, [data.test.labels.shape[1:]])
    if any(len(shape) == len(each) + 1 and all(got in (want, None) for got, want in zip(shape[1:], each, strict=True))
           for each in fitting):  # fmt: skip
        return None
    has = f"{classes} classes" if data.task in ("classification", "segmentation") else f"labels for {data.task}"
    needs = " or ".join(str((None, *each)) for each in fitting)
    return f"gives output {shape}, {data.name} has {has} and needs {needs}; check the data, or choose --task"


def losses_for(model: Any, data: DataSet, library: Any) -> list[Any]:
    """The loss for each output of a Keras 3 ``model``, from ``library``, which is keras or tf_keras.

    Cross-entropy for classes, binary cross-entropy for single outputs and sigmoids, mean squared error for values and,
    to the outputs of the float model, for a custom task.

    Raises:
        ModelError: the model ends in a softmax, but each output stands for itself.
    """
    if not data.outputs:
        return [_loss_for(model, model.outputs[0], _last_activation(model), data.task, library)]
    tasks = {each.name: each.task for each in data.outputs}
    every = zip(output_names(model), model.outputs, strict=True)
    return [_loss_for(model, output, _activation_of(output), tasks[name], library) for name, output in every]


def _loss_for(model: Any, output: Any, last: str, task: TaskName, library: Any) -> Any:
    if task in ("regression", "reconstruction", "custom"):
        return library.losses.MeanSquaredError()
    binary = task == "multilabel" or last == "sigmoid" or output.shape[-1] == 1
    if binary and last == "softmax":
        raise ModelError(
            f"model {model.name} ends in a softmax, whose outputs sum to 1, but each output stands for itself; use a "
            "sigmoid"
        )
    kind = library.losses.BinaryCrossentropy if binary else library.losses.CategoricalCrossentropy
    return kind(from_logits=last not in _PROBABILITIES)


def gives_probabilities(model: Any) -> bool:
    """Whether the model ends in a softmax or a sigmoid; if not, outputs for classes are taken as logits."""
    return _last_activation(model) in _PROBABILITIES


def _activation_of(output: Any) -> str:
    """The name of the activation of the layer that gives ``output``, one of several, if it has one."""
    layer = output._keras_history.operation
    if isinstance(layer, require("keras").layers.Softmax):
        return "softmax"
    if hasattr(layer, "outputs"):  # a nested model
        return _activation_of(layer.outputs[output._keras_history.tensor_index])
    return str(getattr(getattr(layer, "activation", None), "__name__", ""))


def _last_activation(model: Any) -> str:
    """The name of the activation of the last layer, if it has one."""
    last = model.layers[-1]
    if isinstance(last, require("keras").layers.Softmax):
        return "softmax"
    if _is_functional(last) or isinstance(last, require("keras").Sequential):
        return _last_activation(last)
    if isinstance(last, require("keras").Model):
        return _activation_seen(model)
    return str(getattr(getattr(last, "activation", None), "__name__", ""))


def _activation_seen(model: Any) -> str:
    """What the outputs of a ``model`` whose layers cannot be told from outside look like: those of which activation."""
    shape = (16, *(size or 32 for size in model.input_shape[1:]))
    noise = np.random.default_rng(0).normal(0, 2, shape).astype(np.float32)
    outputs = np.asarray(model.predict(noise, verbose=0), dtype=np.float64)
    if outputs.min() < 0 or outputs.max() > 1:
        return ""
    return "softmax" if outputs.shape[-1] > 1 and np.allclose(outputs.sum(axis=-1), 1, atol=1e-3) else "sigmoid"
