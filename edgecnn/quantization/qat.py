"""Quantisation-aware training on Keras 3 itself: the user's model with fake quantisers, on any back end of Keras."""

import logging
from pathlib import Path
from typing import Any

import keras

from edgecnn.data import DataSet
from edgecnn.errors import ModelError, QuantizationError
from edgecnn.models import data_for, load_model, plain, save_model
from edgecnn.quantization.graph import functional
from edgecnn.quantization.layers import FakeQuant, calibrate, shrink_ranges
from edgecnn.quantization.ptq import LEAST_SQUARES, Calibrated, calibrated
from edgecnn.records import History
from edgecnn.training import fine_tune, settle, taught

log = logging.getLogger("edgecnn")

_CALIBRATION_IMAGES = 256


def train_quantized(
    model: Any,
    data: DataSet,
    *,
    epochs: int = 2,
    seed: int = 0,
    batch_size: int = 64,
    validation_split: float = 0.1,
    learning_rate: float = 1e-4,
) -> tuple[Any, History]:
    """Fine-tune a trained Keras 3 ``model`` with fake quantisers; ``model`` itself stays as it is.

    Runs on any back end of Keras. The ranges of activations are measured before every epoch and stay during it.

    Returns the fake-quantised Keras 3 model and the history.

    Raises:
        QuantizationError: the layers of ``model`` cannot be told from outside, or its folded form gives other outputs.
        ModelError: the training diverged.
    """
    data = taught(data, model)
    quantized, methods = fake_quantized(model, data)

    def after_epoch(number: int, history: History) -> None:
        if number < epochs:
            images = data.calibration(_CALIBRATION_IMAGES)
            calibrate(quantized, images)
            if LEAST_SQUARES in methods:
                shrink_ranges(quantized, images)

    history = fine_tune(
        quantized,
        model,
        data,
        keras,
        epochs=epochs,
        seed=seed,
        batch_size=batch_size,
        validation_split=validation_split,
        learning_rate=learning_rate,
        after_epoch=after_epoch,
    )
    return quantized, history


def save(quantized: Any, path: Path) -> None:
    """Write a fake-quantised model as a .keras file, whole or not at all."""
    save_model(quantized, path)


def load(path: Path, model: Any, data: DataSet) -> Any:
    """Read what ``save`` wrote of ``model``.

    Raises:
        QuantizationError: no such file, damaged, not fake-quantised, or of another model.
    """
    try:
        quantized = load_model(path)
        if len(model.inputs) == len(model.outputs) == 1:
            data_for(quantized, data)
    except ModelError as error:
        raise QuantizationError(str(error)) from error
    ends, wanted = ([each.shape for each in (*one.inputs, *one.outputs)] for one in (quantized, model))
    if ends != wanted:
        raise QuantizationError(f"{path} has inputs and outputs {ends}, the model has {wanted}; train it again")
    if not any(isinstance(layer, FakeQuant) for layer in quantized.layers):
        raise QuantizationError(f"{path} has no fake quantisers; make it with: edgecnn quantize")
    return quantized


def fake_quantized(model: Any, data: DataSet) -> Calibrated:
    """A Keras 3 model with the outputs of ``model`` as an int8 file would give them; it trains, saves and loads.

    Batch normalisation and other affine layers are folded into linear neighbours. Kernels are fake-quantised
    symmetrically, one scale for each output channel, activations asymmetrically (Jacob et al., "Quantization and
    Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference", CVPR 2018), as ``calibrated`` chooses.
    Statistics of batch normalisation that had not settled are measured again first.

    Raises:
        QuantizationError: the layers of ``model`` cannot be told from outside, or its folded form gives other outputs.
    """
    copied = keras.models.clone_model(plain(functional(model)))
    copied.set_weights(model.get_weights())
    if data.task != "custom" and settle(copied, data):
        log.warning("int8-qat of %s starts from these statistics, the other schemes do not", model.name)
    return calibrated(copied, data.calibration(_CALIBRATION_IMAGES), trains=True)
