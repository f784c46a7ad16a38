"""Models for the suites.

They are trained where answers count: the top class of an untrained model is ambiguous and changes with any rounding.
"""

from typing import Any

import numpy as np

from edgecnn.data import DataSet, load
from edgecnn.data.dataset import Split, make_dataset
from edgecnn.formats import tflite
from edgecnn.formats.source import Source
from edgecnn.models import MODELS, build_model
from edgecnn.optional import require
from edgecnn.quantization.schemes import SCHEMES
from edgecnn.training import train

REFERENCE = "mnist_cnn"
UNTRAINED = "mobilenet_v2"
# margin of the first class of an untrained model, in logits
_CLEAR = 10.0
# images for the statistics of batch normalisation
_SETTLING = 100


def trained(name: str, seed: int, train_images: int, epochs: int, test_images: int) -> tuple[Any, DataSet]:
    """The trained model ``name`` and its data: MNIST, resized to the model's input.

    The reference CNN trains on all of MNIST for one epoch, the others on ``train_images`` for ``epochs``. Then the
    statistics of batch normalisation are set. MobileNetV2 stays untrained, with a bias that selects one class.
    """
    data = load("mnist")
    if name == UNTRAINED:  # images of its size are 600 KB each
        data = resized(data, MODELS[name](), _SETTLING, _SETTLING)
    elif name != REFERENCE:
        data = resized(data, MODELS[name](), train_images, test_images)
    model = build_model(name, data, seed)
    if name == UNTRAINED:
        _let_the_first_class_win(model)
    else:
        model, _ = train(model, data, epochs=1 if name == REFERENCE else epochs, seed=seed)
    settle(model, data.calibration(_SETTLING))
    return model, data


def resized(data: DataSet, model: Any, train_images: int, test_images: int) -> DataSet:
    """The first images of ``data``, resized for ``model``; labels are taken modulo its number of classes."""
    height, width, channels = model.input_shape[1:]
    classes = min(len(data.class_names), model.output_shape[-1])

    def brought(split: Split, count: int) -> tuple[Any, Any]:
        images = require("keras").ops.image.resize(split.images[:count].astype(np.float32), (height, width))
        images = np.round(np.repeat(np.asarray(images), channels, axis=-1)).astype(np.uint8)
        return images, split.labels[:count] % classes

    names = [str(number) for number in range(model.output_shape[-1])]
    parts = brought(data.train, train_images), brought(data.test, test_images)
    return make_dataset(f"mnist for {model.name}", "mnist", *parts, names, (0.0, 1.0))


def untrained_int8(name: str, seed: int, random: np.random.Generator, count: int) -> tuple[bytes, Any]:
    """The int8 .tflite of the built-in model ``name`` with random weights, and ``count`` images from ``random``.

    The images are for calibration and for the statistics of batch normalisation; ``seed`` is that of the weights.
    """
    require("keras").utils.set_random_seed(seed)
    model = MODELS[name]()
    images = random.random((count, *model.input_shape[1:]), np.float32)
    settle(model, images)
    return tflite.convert(Source(model, None, images, "int8", 1), SCHEMES["int8"]), images


def settle(model: Any, images: Any) -> None:
    """Set the statistics of batch normalisation from ``images``: without momentum, one training step adopts them.

    The running averages start at mean 0 and variance 1, and a short training does not bring them to the true values.
    """
    layers = [layer for layer in model.layers if type(layer).__name__ == "BatchNormalization"]
    before = [layer.momentum for layer in layers]
    for layer in layers:
        layer.momentum = 0.0
    model(images, training=True)
    for layer, momentum in zip(layers, before, strict=True):
        layer.momentum = momentum


def _let_the_first_class_win(model: Any) -> None:
    bias = model.layers[-1].bias
    bias.assign(_CLEAR * np.eye(bias.shape[0])[0])
