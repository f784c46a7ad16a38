"""The built-in models, untrained, as int8 .tflite files for tests; and a small model around any layers."""

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.models import settle
from edgecnn.formats import tflite
from edgecnn.formats.source import Source
from edgecnn.models import MODELS
from edgecnn.optional import require
from edgecnn.quantization.schemes import SCHEMES

SMALLER = {"mobilenet_v2": {"input_shape": (64, 64, 3), "classes": 10}}


def source_of(name: str, *, settled: bool = True, io: Any = "int8") -> Source:
    """The model called ``name`` with random weights; ``settled`` gives batch normalisation the images' statistics.

    Without them the values of a deep model vanish on their way to the output.
    """
    require("keras").utils.set_random_seed(0)
    model = MODELS[name](**SMALLER.get(name, {}))
    images = np.random.default_rng(0).random((8, *model.input_shape[1:]), np.float32)
    if settled:
        settle(model, images)
    return Source(model, None, images, io, 1)


def write_tflite(source: Source, path: Path, scheme: str = "int8") -> Path:
    path.write_bytes(tflite.convert(source, SCHEMES[scheme]))
    return path


def bodied(body: Any) -> Any:
    """A classifier of digits, untrained, with ``body`` called on a tensor ``(n, 14, 14, 8)`` in its middle."""
    keras = require("keras")
    layers = keras.layers
    keras.utils.set_random_seed(2)
    images = keras.Input((28, 28, 1))
    x = layers.Conv2D(8, 3, strides=2, padding="same", activation="relu")(layers.Rescaling(2.0, offset=-1.0)(images))
    x = layers.Flatten()(layers.Dropout(0.1)(layers.MaxPooling2D()(body(x))))
    return keras.Model(images, layers.Dense(10, activation="softmax")(x), name=body.__name__)
