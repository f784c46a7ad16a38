"""Training: the same loop for float Keras 3 models and for fake-quantised legacy Keras models."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from edgecnn.data import DataSet
from edgecnn.errors import ModelError, RecordError
from edgecnn.files import write_atomic
from edgecnn.models import gives_probabilities, load_model, save_model
from edgecnn.optional import require
from edgecnn.progress import progress
from edgecnn.records import Epoch, History, read_record, to_json

log = logging.getLogger("edgecnn")

# Steps run inside TensorFlow between two visits to Python; changes no result, only the overhead per step.
_STEPS_PER_CALL = 16


def train(
    model: Any,
    data: DataSet,
    *,
    epochs: int = 5,
    seed: int = 0,
    batch_size: int = 64,
    validation_split: float = 0.1,
    learning_rate: float = 1e-3,
    checkpoints: Path | None = None,
) -> tuple[Any, History]:
    """Train a Keras 3 classifier with Adam on categorical cross-entropy.

    A random ``validation_split`` of the training images is held out. The same seed on the same machine gives
    the same weights. With a ``checkpoints`` folder, every finished epoch is kept there and a second call goes
    on after the last one, with the same end result.

    Returns the trained model (another object than ``model`` where training was resumed) and its history.

    Raises:
        ModelError: TensorFlow is not the back end of Keras, or the training diverged.
        MissingExtraError: TensorFlow is not installed.
    """
    keras = require("keras")
    require_tensorflow()
    kept = None if checkpoints is None else _last_checkpoint(checkpoints, epochs)
    if kept is not None:
        model, history = kept
        log.info("training goes on after epoch %d of %d", len(history.epochs), epochs)
    else:
        compile_model(model, keras, learning_rate, gives_probabilities(model))
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
        callback=keras.callbacks.LambdaCallback,
        history=history,
        after_epoch=after_epoch,
    )
    return model, history


def require_tensorflow() -> Any:
    """TensorFlow, as the back end that Keras runs on, with deterministic operations.

    Raises:
        ModelError: Keras runs on another back end.
        MissingExtraError: TensorFlow is not installed.
    """
    tf = require("tensorflow")
    backend = require("keras").backend.backend()
    if backend != "tensorflow":
        raise ModelError(f"training and export need Keras on TensorFlow, it runs on {backend!r}; unset KERAS_BACKEND")
    tf.config.experimental.enable_op_determinism()
    logging.getLogger("absl").setLevel(logging.ERROR)  # TensorFlow's advice to its own developers
    return tf


def compile_model(model: Any, library: Any, learning_rate: float, probabilities: bool) -> None:
    """Compile ``model`` for training with ``library``, which is keras or tf_keras; its outputs may be logits."""
    model.compile(
        optimizer=library.optimizers.Adam(learning_rate),
        loss=library.losses.CategoricalCrossentropy(from_logits=not probabilities),
        metrics=["accuracy"],
        steps_per_execution=_STEPS_PER_CALL,
        jit_compile=False,
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
    callback: Callable[..., Any],
    history: History,
    after_epoch: Callable[[int, History], None],
) -> History:
    """Fit a compiled model, epoch by epoch, each with its own seed so that a later one can be run alone."""
    tf = require("tensorflow")
    # Drawn, not cut off the end: image folders come sorted by class.
    drawn = np.random.default_rng(seed).permutation(len(data.train.labels))
    held_out = int(len(drawn) * validation_split)
    used, kept = drawn[: len(drawn) - held_out], drawn[len(drawn) - held_out :]
    if not len(used):
        raise ModelError(f"no training images are left after a validation split of {validation_split}")
    classes = len(data.class_names)

    def batches(order: Any) -> Any:
        def prepared(images: Any, labels: Any) -> Any:
            scaled = tf.cast(images, tf.float32) * data.preprocessing.scale + data.preprocessing.offset
            return scaled, tf.one_hot(labels, classes)

        split = data.train.images[order], data.train.labels[order]
        return tf.data.Dataset.from_tensor_slices(split).batch(batch_size).map(prepared).prefetch(2)

    validation = batches(kept) if held_out else None
    steps = -(-len(used) // batch_size)
    with progress(description, steps * epochs) as advance:
        advance(steps * len(history.epochs))
        for epoch in range(len(history.epochs), epochs):
            require("keras").utils.set_random_seed(seed + epoch)
            _reseed(model, seed, epoch)
            order = np.random.default_rng((seed, epoch)).permutation(used)
            seen = 0

            def on_batch(batch: int, logs: dict[str, float], epoch: int = epoch) -> None:
                nonlocal seen
                loss, accuracy = float(logs["loss"]), float(logs["accuracy"])
                advance(batch + 1 - seen, f"epoch {epoch + 1}/{epochs} loss {loss:.4f} accuracy {accuracy:.4f}")
                seen = batch + 1

            logs = model.fit(
                batches(order),
                validation_data=validation,
                initial_epoch=epoch,
                epochs=epoch + 1,
                shuffle=False,
                verbose=0,
                callbacks=[callback(on_train_batch_end=on_batch)],
            ).history
            if not np.isfinite(logs["loss"][0]):
                raise ModelError(f"training diverged in epoch {epoch + 1}: the loss is {logs['loss'][0]}")
            values = {key: float(value[0]) for key, value in logs.items()}
            history = History(epochs=(*history.epochs, Epoch(**values)))
            after_epoch(epoch + 1, history)
    return history


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
            log.warning("epoch %d is done again: %s", number, error)
    return None


def _read_history(path: Path, epochs: int) -> History:
    history = read_record(path, History)
    if len(history.epochs) != epochs:
        raise RecordError(f"{path} has {len(history.epochs)} epochs, not {epochs}")
    return history
