"""Training: the same loop for float Keras 3 models and for fake-quantised models of either Keras."""

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecnn.data import DataSet, Split, as_data_set
from edgecnn.errors import ModelError, RecordError
from edgecnn.files import write_atomic
from edgecnn.models import (
    as_list,
    as_model,
    called,
    data_for,
    given,
    load_model,
    losses_for,
    output_names,
    save_model,
    without_gradients,
)
from edgecnn.optional import require
from edgecnn.progress import progress
from edgecnn.records import Epoch, History, OutputLabels, read_record, to_json
from edgecnn.samples import joined, parts

log = logging.getLogger("edgecnn")

# Steps run inside TensorFlow or JAX between two visits to Python; changes no result, only the overhead per step.
_STEPS_PER_CALL = 16
_METRICS = ("loss", "accuracy", "mae")
_SETTLING_IMAGES, _CLEARLY_BETTER = 1024, 0.95


def train(
    model: Any,
    data: DataSet | str | Path | Sequence[Any],
    *,
    epochs: int = 5,
    seed: int = 0,
    batch_size: int = 64,
    validation_split: float = 0.1,
    learning_rate: float = 1e-3,
    checkpoints: Path | None = None,
) -> tuple[Any, History]:
    """Train a Keras model, or that of a file, with Adam on the loss of its task (see ``models.loss_for``).

    ``data`` are as ``load_data`` takes them. A random ``validation_split`` of the training images is held out. The same
    seed on the same machine gives the same weights. With a ``checkpoints`` folder, every finished epoch is saved there,
    and a second call resumes after the last one with the same result.

    Moving averages of batch normalisation that lag behind are measured again, see ``settle``.

    Returns the trained model (another object than ``model`` where training was resumed) and its history.

    Raises:
        ModelError: the model does not fit the data, the training diverged, or the loss is not known (a custom task).
        MissingExtraError: Keras or its back end is not installed.
    """
    keras = require("keras")
    model = as_model(model)
    data = data_for(model, as_data_set(data))
    if epochs and not model.trainable_weights:
        raise ModelError(
            f"model {model.name} has no weights that training changes; leave out --epochs to take it as it is"
        )
    if epochs and data.task == "custom":
        raise ModelError("the loss of a custom task is not known; train the model yourself, then leave out --epochs")
    kept = None if checkpoints is None else _last_checkpoint(checkpoints, epochs)
    if kept is not None:
        model, history = kept
        log.info("resuming training after epoch %d of %d", len(history.epochs), epochs)
    else:
        compile_model(model, keras, learning_rate, losses_for(model, data, keras))
        history = History(epochs=())

    def after_epoch(number: int, history: History) -> None:
        if checkpoints is not None:
            write_atomic(checkpoints / f"epoch-{number}.json", to_json(history))
            save_model(model, checkpoints / f"epoch-{number}.keras", with_optimizer=True)

    history = fit(
        model,
        data,
        epochs=epochs,
        seed=seed,
        batch_size=batch_size,
        validation_split=validation_split,
        description="train float32",
        library=keras,
        history=history,
        after_epoch=after_epoch,
    )
    if epochs:
        settle(model, data, batch_size)
    return model, history


def fine_tune(
    quantized: Any,
    model: Any,
    data: DataSet,
    library: Any,
    *,
    epochs: int,
    seed: int,
    batch_size: int,
    validation_split: float,
    learning_rate: float,
    after_epoch: Callable[[int, History], None] = lambda number, history: None,
) -> History:
    """Train ``quantized``, the fake-quantised form of a Keras 3 ``model``, with its ``library``, keras or tf_keras.

    Raises:
        ModelError: the training diverged.
    """
    compile_model(quantized, library, learning_rate, losses_for(model, data, library))
    return fit(
        quantized,
        data,
        epochs=epochs,
        seed=seed,
        batch_size=batch_size,
        validation_split=validation_split,
        description="train int8-qat",
        library=library,
        history=History(epochs=()),
        after_epoch=after_epoch,
    )


def taught(data: DataSet, model: Any) -> DataSet:
    """``data`` for fine-tuning ``model``: those of a custom task get what it gives for the training samples as labels.

    So a quantised model learns the outputs of the float one (Hinton et al., "Distilling the Knowledge in a Neural
    Network", 2015).
    """
    if data.task != "custom":
        return data

    def answered(split: Split) -> Split:
        found = as_list(model.predict(given(parts(data.inputs(split.images))), verbose=0))
        return Split(split.images, joined({name: np.asarray(each) for name, each in zip(outputs, found, strict=True)}))

    outputs = output_names(model)
    labels = tuple(OutputLabels(name=name, task="regression", labels=()) for name in outputs)
    return replace(
        data,
        task="regression" if len(outputs) == 1 else "several",
        outputs=() if len(outputs) == 1 else labels,
        train=answered(data.train),
        val=None if data.val is None else answered(data.val),
    )


def settle(model: Any, data: DataSet, batch_size: int = 64) -> bool:
    """Measure the statistics of batch normalisation in a Keras 3 ``model`` again, in place.

    Its moving averages lag behind the weights, and after few steps of training they still have their first values. The
    new statistics are the means over 1,024 training images (Wu and Johnson, "Rethinking 'Batch' in BatchNorm", 2021,
    section 3). They are kept, and that is logged, if they lower the loss on these images by 5 %.

    Returns whether they are kept.
    """
    keras = require("keras")
    layers = [
        layer for layer in model._flatten_layers() if type(layer).__name__ == "BatchNormalization" and layer.trainable
    ]
    if not layers:
        return False
    order = np.random.default_rng(0).permutation(len(data.train.labels))[:_SETTLING_IMAGES]
    batches = _batches(keras, data, model, batch_size, order)
    losses = losses_for(model, data, keras)

    def loss() -> float:
        total = 0.0
        for tensors, targets in every:
            outputs = called(model, tensors)
            found = [loss(*pair) for loss, *pair in zip(losses, targets, outputs, strict=True)]
            total += len(targets[0]) * sum(float(keras.ops.convert_to_numpy(each)) for each in found)
        return total / len(order)

    batched = (batches[number] for number in range(len(batches)))
    every = [(as_list(tensors), as_list(targets)) for tensors, targets in batched]
    statistics = [weight for layer in layers for weight in (layer.moving_mean, layer.moving_variance)]
    before, kept = loss(), [np.asarray(weight) for weight in statistics]
    momenta = [layer.momentum for layer in layers]
    for number, (tensors, _) in enumerate(every):
        for layer in layers:
            layer.momentum = number / (number + 1)
        with without_gradients():
            model(given(tensors), training=True)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
    after = loss()
    if not after < before * _CLEARLY_BETTER:
        for weight, value in zip(statistics, kept, strict=True):
            weight.assign(value)
        return False
    log.warning(
        "batch normalisation of %s had not settled: with statistics measured on %d training images the loss is %.4g "
        "instead of %.4g",
        model.name, len(order), after, before,
    )  # fmt: skip
    return True


def require_tensorflow() -> Any:
    """TensorFlow, as the back end that Keras runs on, with deterministic operations.

    Raises:
        ModelError: Keras runs on another back end.
        MissingExtraError: TensorFlow is not installed.
    """
    tf = require("tensorflow")
    backend = require("keras").backend.backend()
    if backend != "tensorflow":
        raise ModelError(f"export needs Keras on TensorFlow, it runs on {backend!r}; unset KERAS_BACKEND")
    tf.config.experimental.enable_op_determinism()
    logging.getLogger("absl").setLevel(logging.ERROR)  # TensorFlow's advice to its own developers
    return tf


def compile_model(model: Any, library: Any, learning_rate: float, losses: Sequence[Any]) -> None:
    """Compile ``model`` for training on ``losses``, one per output, with ``library``, which is keras or tf_keras."""
    one, backend = len(losses) == 1, require("keras").backend.backend()
    model.compile(
        optimizer=library.optimizers.Adam(learning_rate),
        loss=losses[0] if one else list(losses),
        metrics=["mae" if losses[0].name == "mean_squared_error" else "accuracy"] if one else None,
        steps_per_execution=1 if backend == "torch" else _STEPS_PER_CALL,
        jit_compile=backend == "jax",  # XLA on TensorFlow refuses deterministic max pooling
    )


def fit(
    model: Any,
    data: DataSet,
    *,
    epochs: int,
    seed: int,
    batch_size: int,
    validation_split: float,
    description: str,
    library: Any,
    history: History,
    after_epoch: Callable[[int, History], None],
) -> History:
    """Fit a compiled model, epoch by epoch, each with its own seed so that a later one can be run alone.

    ``library`` is that of the model: keras or tf_keras. On TensorFlow, training is deterministic.
    """
    if require("keras").backend.backend() == "tensorflow":
        require_tensorflow()
    # Drawn, not cut off the end: image folders come sorted by class.
    drawn = np.random.default_rng(seed).permutation(len(data.train.labels))
    held_out = int(len(drawn) * validation_split) if data.val is None else 0
    used, kept = drawn[: len(drawn) - held_out], drawn[len(drawn) - held_out :]
    if not len(used):
        raise ModelError(f"no training images are left after a validation split of {validation_split}")
    batches = partial(_batches, library, data, model, batch_size)
    validation = batches(kept) if held_out else None
    if data.val is not None:
        validation = batches(np.arange(len(data.val.labels)), data.val)
    steps = len(batches(used))
    with progress(description, steps * epochs) as advance:
        advance(steps * len(history.epochs))
        for epoch in range(len(history.epochs), epochs):
            require("keras").utils.set_random_seed(seed + epoch)
            _reseed(model, seed, epoch)
            order = np.random.default_rng((seed, epoch)).permutation(used)
            seen = 0

            def on_batch(batch: int, logs: dict[str, float], epoch: int = epoch) -> None:
                nonlocal seen
                names = [name for name in ("loss", *_METRICS) if name in logs]
                shown = " ".join(f"{name} {float(logs[name]):.4f}" for name in names)
                advance(batch + 1 - seen, f"epoch {epoch + 1}/{epochs} {shown}")
                seen = batch + 1

            logs = model.fit(
                batches(order),
                validation_data=validation,
                initial_epoch=epoch,
                epochs=epoch + 1,
                shuffle=False,
                verbose=0,
                callbacks=[library.callbacks.LambdaCallback(on_train_batch_end=on_batch)],
            ).history
            if not np.isfinite(logs["loss"][0]):
                raise ModelError(f"training diverged in epoch {epoch + 1}: the loss is {logs['loss'][0]}")
            values = {key: float(value[0]) for key, value in logs.items() if key.removeprefix("val_") in _METRICS}
            history = History(epochs=(*history.epochs, Epoch(**values)))
            after_epoch(epoch + 1, history)
    return history


def _batches(
    library: Any,
    data: DataSet,
    model: Any,
    batch_size: int,
    order: NDArray[np.int64],
    split: Split | None = None,
) -> Any:
    """Inputs and targets of ``model`` for the samples in ``order``, batch by batch, on any back end.

    By default of training samples. Several inputs and targets are tuples.
    """
    samples = split or data.train
    one_hot = [output.shape[-1] != 1 for output in model.outputs]
    names = [name for name, _ in data.layout] if data.outputs else []
    each = [data.of_output(name) for name in names] or [data]
    utils = library.utils
    base = utils.PyDataset if hasattr(utils, "PyDataset") else utils.Sequence

    class Batches(base):  # type: ignore[misc, valid-type]
        def __len__(self) -> int:
            return math.ceil(len(order) / batch_size)

        def __getitem__(self, number: int) -> tuple[Any, Any]:
            drawn = order[batch_size * number :][:batch_size]
            images, labels = samples.images[drawn], samples.labels[drawn]
            of_each = [labels[name] for name in names] or [labels]
            targets = [
                one.targets(given, images, one_hot=hot) for one, given, hot in zip(each, of_each, one_hot, strict=True)
            ]
            inputs = parts(data.inputs(images))
            return _one_or_tuple(inputs), _one_or_tuple(targets)

    return Batches()


def _one_or_tuple(arrays: Sequence[Any]) -> Any:
    return arrays[0] if len(arrays) == 1 else tuple(arrays)


def _reseed(model: Any, seed: int, epoch: int) -> None:
    """Set what dropout and random augmentation draw from, which Keras keeps in the model but not in its file."""
    draw = np.random.default_rng((seed, epoch, 1))
    for variable in model.variables:
        if "seed_generator_state" in getattr(variable, "path", ""):
            variable.assign([int(draw.integers(2**31)), 0])


def _last_checkpoint(folder: Path, epochs: int) -> tuple[Any, History] | None:
    """The model and the history after the last epoch that can be read; the model is written after the history."""
    for number in range(epochs, 0, -1):
        model, history = folder / f"epoch-{number}.keras", folder / f"epoch-{number}.json"
        if not model.is_file():
            continue
        try:
            return load_model(model, with_optimizer=True), _read_history(history, number)
        except (ModelError, RecordError) as error:
            log.warning("repeating epoch %d: %s", number, error)
    return None


def _read_history(path: Path, epochs: int) -> History:
    history = read_record(path, History)
    if len(history.epochs) != epochs:
        raise RecordError(f"{path} has {len(history.epochs)} epochs, not {epochs}")
    return history
