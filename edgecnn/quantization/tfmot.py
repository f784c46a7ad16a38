"""Quantisation-aware training with TFMOT, on a Keras 3 model that is rebuilt in legacy Keras."""

import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecnn.arrays import read_npz
from edgecnn.data import DataSet
from edgecnn.errors import DataError, QuantizationError, one_line
from edgecnn.files import write_atomic
from edgecnn.optional import require
from edgecnn.quantization.legacy_keras import rebuild, tf_keras, tfmot_quantization
from edgecnn.records import History
from edgecnn.training import fine_tune, require_tensorflow, taught

_COMPARED_IMAGES = 32
_CALIBRATION_IMAGES = 256
# of TFMOT's moving averages (MovingAverageQuantizer)
_EMA_DECAY = 0.999
_MOST_STEPS = 20
# Layers TFMOT does not list although the converter quantises them: their output gets a fake quantiser.
_OUTPUT_QUANTISED = ("Average", "Maximum", "Minimum", "Multiply", "Subtract")


def fake_quantized(model: Any, data: DataSet) -> Any:
    """The Keras 3 ``model`` as a tf_keras model with fake quantisers in front of weights and behind activations.

    8 bits: weights symmetric, per channel in convolutions; activations asymmetric with ranges learnt in training
    (Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference",
    CVPR 2018).

    Raises:
        QuantizationError: layers that cannot be rebuilt or quantised, each named with the reason.
    """
    require_tensorflow()
    inputs, outputs = (len(getattr(model, kind, ())) for kind in ("inputs", "outputs"))  # subclasses have none
    if inputs > 1 or outputs > 1:
        raise QuantizationError(
            f"TFMOT quantises models with one input and one output, {model.name} has {inputs} and {outputs}; use "
            "--qat-engine keras"
        )
    # Names of layers end up in the .tflite; without this they would count on from models built before.
    tf_keras().backend.reset_uids()
    legacy = rebuild(model, data.inputs(data.train.images[:_COMPARED_IMAGES]))
    keras, tfmot = tf_keras(), tfmot_quantization()
    configs = require(
        "tensorflow_model_optimization.python.core.quantization.keras.default_8bit.default_8bit_quantize_configs"
    )
    registry = tfmot.default_8bit.Default8BitQuantizeScheme().get_quantize_registry()
    refused = [
        f"{layer.name!r} ({kind})"
        for layer in legacy.layers
        if (kind := type(layer).__name__) not in ("InputLayer", "BatchNormalization", "SeparableConv2D")
        and kind not in _OUTPUT_QUANTISED
        and not registry.supports(layer)
    ]
    if refused:
        raise QuantizationError(
            f"layers that TFMOT cannot train quantised: {', '.join(refused)}; use the scheme int8 for this model, "
            "or replace the layers"
        )

    def annotate(layer: Any) -> Any:
        output_only = type(layer).__name__ in _OUTPUT_QUANTISED
        config = configs.Default8BitOutputQuantizeConfig() if output_only else None
        return tfmot.quantize_annotate_layer(layer, quantize_config=config)

    output_config = {"Default8BitOutputQuantizeConfig": configs.Default8BitOutputQuantizeConfig}
    try:
        with tfmot.quantize_scope(output_config):
            annotated = keras.models.clone_model(legacy, clone_function=annotate)
            annotated.set_weights(legacy.get_weights())
            return tfmot.quantize_apply(annotated)
    except (ValueError, RuntimeError, KeyError, AttributeError) as error:
        raise QuantizationError(f"TFMOT cannot quantise model {model.name}: {one_line(error)}") from error


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

    Returns the fake-quantised tf_keras model and the history.

    Raises:
        QuantizationError: layers that cannot be rebuilt or quantised, each named with the reason.
        ModelError: TensorFlow is not the back end of Keras, or the training diverged.
    """
    data = taught(data, model)
    quantized = fake_quantized(model, data)
    require("keras").utils.set_random_seed(seed)  # without one, Dropout refuses to run deterministically
    calibrate_ranges(quantized, data.calibration(_CALIBRATION_IMAGES))
    keras = tf_keras()
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
    )
    return quantized, history


def calibrate_ranges(quantized: Any, images: NDArray[np.float32]) -> None:
    """Set the activation ranges of a fake-quantised model to what ``images`` ``(n, height, width, channels)`` give.

    TFMOT starts every range at [-6, 6] and moves it by a thousandth per step towards the smallest and largest
    value of the batch. After a short training the ranges behind a relu would still reach below 0, which wastes
    integers, and others would clip. One step tells where it leads to, so the ranges can go there at once; they
    are settled when a further step, through layers that no longer clip, leads nowhere else.
    """
    ranges: list[Any] = []
    others: list[Any] = []
    for variable in quantized.weights:
        if variable.name.startswith("quantize_layer"):
            continue  # the input's range is not a moving average: one step settles it
        is_range = variable.name.endswith(("_min:0", "_max:0")) and "kernel" not in variable.name
        (ranges if is_range else others).append(variable)
    kept = [variable.numpy() for variable in others]
    for _ in range(_MOST_STEPS):
        before = [float(variable.numpy()) for variable in ranges]
        quantized(images, training=True)
        targets = [
            start + (float(variable.numpy()) - start) / (1 - _EMA_DECAY)
            for variable, start in zip(ranges, before, strict=True)
        ]
        for variable, value in zip(others, kept, strict=True):  # batch normalisation learns from a step too
            variable.assign(value)
        for variable, target in zip(ranges, targets, strict=True):
            variable.assign(min(target, 0.0) if variable.name.endswith("_min:0") else max(target, 0.0))
        if np.allclose(before, targets, rtol=0.01, atol=1e-3):
            return


def save(quantized: Any, path: Path) -> None:
    """Write the weights and ranges of a fake-quantised model to ``path`` (.npz); the model is rebuilt to load them."""
    buffer = io.BytesIO()
    np.savez(buffer, **{f"{index:04}": weight for index, weight in enumerate(quantized.get_weights())})
    write_atomic(path, buffer.getvalue())


def load(path: Path, model: Any, data: DataSet) -> Any:
    """Fake-quantise ``model`` again and read into it what ``save`` wrote.

    Raises:
        QuantizationError: no such file, damaged, or of another model; or layers that cannot be rebuilt or quantised.
    """
    quantized = fake_quantized(model, data)
    read_weights(quantized, path)
    return quantized


def read_weights(quantized: Any, path: Path) -> None:
    """Read what ``save`` wrote into a model of the same layers.

    Raises:
        QuantizationError: no such file, damaged, or of another model.
    """
    wanted = quantized.get_weights()
    try:
        stored = [*read_npz(path).values()]
        if len(stored) != len(wanted):
            raise DataError(f"it contains {len(stored)} arrays, this model has {len(wanted)}")
        for number, (weight, ours) in enumerate(zip(stored, wanted, strict=True)):
            if weight.shape != ours.shape or weight.dtype.kind not in "biuf" or not np.isfinite(weight).all():
                raise DataError(f"array {number} is not made of finite numbers in the shape {ours.shape}")
    except DataError as error:
        raise QuantizationError(
            f"{path} does not hold the weights of this model after quantisation-aware training: {error}; "
            "make them with: edgecnn quantize"
        ) from error
    quantized.set_weights(stored)
