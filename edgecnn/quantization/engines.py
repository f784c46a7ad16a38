"""The engines of quantisation-aware training; the ending of a file tells which engine wrote it."""

import importlib
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from edgecnn.data import DataSet, as_data_set
from edgecnn.errors import AccuracyLossError, QuantizationError
from edgecnn.models import as_list, as_model, data_for, without_gradients
from edgecnn.optional import require
from edgecnn.quantization.keras3 import in_batches
from edgecnn.records import History, QatEngine
from edgecnn.registry import Registry

_MODULES: dict[QatEngine, str] = {"keras": "qat", "tfmot": "tfmot"}

ENDINGS: Registry[QatEngine, str] = Registry("engine", {"keras": ".keras", "tfmot": ".npz"})
"""Of the file that an engine writes."""

_DROP, _COMPARED = 0.02, 500


def engine_called(name: QatEngine) -> Any:
    """The module of an engine, with ``train_quantized``, ``save`` and ``load``.

    Raises:
        MissingExtraError: Keras is not installed.
    """
    require("keras")
    return importlib.import_module(f"edgecnn.quantization.{_MODULES[name]}")


def engine_of(path: Path) -> Any:
    """The module of the engine that wrote the file at ``path``.

    Raises:
        QuantizationError: no engine writes files with this ending.
        MissingExtraError: Keras is not installed.
    """
    for name, ending in ENDINGS.items():
        if path.suffix == ending:
            return engine_called(name)
    raise QuantizationError(f"{path} does not end in {' or '.join(ENDINGS.values())}; make it with: edgecnn quantize")


@contextmanager
def saved(quantized: Any) -> Iterator[Path | None]:
    """The path of the file of what ``quantize`` returned: itself if it is a path, else a temporary file."""
    if quantized is None or isinstance(quantized, str | Path):
        yield None if quantized is None else Path(quantized)
        return
    name: QatEngine = "keras" if isinstance(quantized, require("keras").Model) else "tfmot"
    with tempfile.TemporaryDirectory(prefix="edgecnn-") as folder:
        path = Path(folder) / f"qat{ENDINGS[name]}"
        engine_called(name).save(quantized, path)
        yield path


def quantize(
    model: Any,
    data: DataSet | str | Path | Sequence[Any],
    *,
    engine: QatEngine = "keras",
    epochs: int = 2,
    seed: int = 0,
) -> tuple[Any, History]:
    """Fine-tune a trained ``model`` with quantisation-aware training; ``model`` itself stays as it is.

    Args:
        model: a Keras model, or the path of its file.
        data: what it was trained on, as ``load_data`` takes it.
        engine: "keras" for the Keras 3 model itself, on any back end; "tfmot" for a copy in legacy Keras.
        epochs: of training.
        seed: of the order of the images.

    Returns:
        The fake-quantised model, for ``export`` and ``verify`` as ``qat``, and the history of the training.

    Raises:
        QuantizationError: the layers of the model cannot be quantised.
        AccuracyLossError: the model got worse by more than 2 points.
        ModelError: the model does not fit the data, or the training diverged.
    """
    trained = as_model(model)
    loaded = data_for(trained, as_data_set(data))
    quantized, history = engine_called(engine).train_quantized(trained, loaded, epochs=epochs, seed=seed)
    check_accuracy(trained, quantized, loaded)
    return quantized, history


def check_accuracy(model: Any, quantized: Any, data: DataSet) -> None:
    """Check that the score of the fake-quantised model is at most 2 points below that of the float ``model``.

    Raises:
        AccuracyLossError: it is lower by more than that, and chance does not explain it (95 %). With the engine keras,
            the message names the layer whose range costs the most.
    """
    images, scoring = data.test_inputs(), data.scoring()
    outputs, before = _outputs(quantized, images), _outputs(model, images)
    drops = scoring.credits(before) - scoring.credits(outputs)
    if drops.mean() - 1.96 * (drops**2).sum() ** 0.5 / len(drops) <= _DROP:
        return
    ranges = [layer for layer in quantized.layers if hasattr(layer, "observe") and hasattr(layer, "high")]
    cause = ""
    if ranges:
        gains, few = [], data.scoring(_COMPARED)
        for layer in ranges:
            layer.observe = lambda inputs: None  # what it gets passes as it is
            gains.append(few.credits(_outputs(quantized, images[:_COMPARED])).sum())
            layer.observe = None
        worst = ranges[int(np.argmax(gains))].name.removesuffix("_range")
        cause = f"; rounding the output of layer {worst!r} costs the most"
    found, wanted = (scoring.score(each) for each in (outputs, before))
    raise AccuracyLossError(
        f"the {found.metric} of int8-qat is {found.value:.1%}, that of the float model {wanted.value:.1%}"
        f"{cause}; train longer (--qat-epochs) or with a smaller --qat-learning-rate, or use the scheme int8"
    )


def _outputs(model: Any, images: Any) -> Any:
    """Outputs ``(n, values)``. Not ``predict``, which would compile a bypassed layer."""
    convert = require("keras").ops.convert_to_numpy
    with without_gradients():
        batches = [[convert(each) for each in as_list(model(batch, training=False))] for batch in in_batches(images)]
    return np.concatenate([np.hstack([each.reshape(len(each), -1) for each in batch]) for batch in batches])
