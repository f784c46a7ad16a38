"""The built-in models, untrained, as int8 .tflite files for tests."""

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
