"""The models that suites measure, trained: answers of an untrained model hang on a hair, which any rounding turns."""

from typing import Any

import numpy as np

from edgecnn.data import DataSet, load
from edgecnn.data.dataset import Split, make_dataset
from edgecnn.models import MODELS, build_model
from edgecnn.optional import require
from edgecnn.training import train

REFERENCE = "mnist_cnn"
UNTRAINED = "mobilenet_v2"
# logits by which the first class of an untrained model is ahead
_CLEAR = 10.0
# images that the statistics of batch normalisation are taken from
_SETTLING = 100


def trained(name: str, seed: int, train_images: int, epochs: int, test_images: int) -> tuple[Any, DataSet]:
    """The model called ``name``, trained and its data: MNIST, its images brought to the model's size.

    The reference CNN has all of MNIST, for one epoch; of the others, ``train_images`` train each for ``epochs``. Batch
    normalisation is given its statistics afterwards. MobileNetV2 stays untrained, with a bias that makes one class win.
    """
    data = load("mnist")
    if name == UNTRAINED:  # images of its size are 600 KB each
        data = _resized(data, MODELS[name](), _SETTLING, _SETTLING)
    elif name != REFERENCE:
        data = _resized(data, MODELS[name](), train_images, test_images)
    model = build_model(name, data, seed)
    if name == UNTRAINED:
        _let_the_first_class_win(model)
    else:
        model, _ = train(model, data, epochs=1 if name == REFERENCE else epochs, seed=seed)
    settle(model, data.calibration(_SETTLING))
    return model, data


def _resized(data: DataSet, model: Any, train_images: int, test_images: int) -> DataSet:
    """The first images of ``data`` at the size of ``model``; more digits than it has classes are folded onto them."""
    height, width, channels = model.input_shape[1:]
    classes = min(len(data.class_names), model.output_shape[-1])

    def brought(split: Split, count: int) -> tuple[Any, Any]:
        images = require("keras").ops.image.resize(split.images[:count].astype(np.float32), (height, width))
        images = np.round(np.repeat(np.asarray(images), channels, axis=-1)).astype(np.uint8)
        return images, split.labels[:count] % classes

    names = [str(number) for number in range(model.output_shape[-1])]
    parts = brought(data.train, train_images), brought(data.test, test_images)
    return make_dataset(f"mnist for {model.name}", "mnist", *parts, names, (0.0, 1.0))


def settle(model: Any, images: Any) -> None:
    """Give batch normalisation the statistics of ``images``: without momentum, one step of training takes them over.

    At first it divides by one instead, and a short training does not bring its running averages to where they belong.
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
