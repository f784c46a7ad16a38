"""Training: the same seed gives the same weights, also when it was interrupted."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from edgecnn.data import DataSet, Split
from edgecnn.errors import ModelError
from edgecnn.files import sha256_file
from edgecnn.training import require_tensorflow, train

pytestmark = pytest.mark.slow

L = keras.layers

# Trains the model of this file in a fresh process, as a user does; the fourth argument kills it after that epoch.
SCRIPT = """
import os, signal, sys
from pathlib import Path
import numpy as np
sys.path.insert(0, sys.argv[1])
import test_training as t
from edgecnn import training
from edgecnn.data import load
from edgecnn.models import save_model
data, checkpoints, target, last = load(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4]), int(sys.argv[5])
save = training.save_model
def save_and_die(model, path, **options):
    save(model, path, **options)
    if path.name == f"epoch-{last}.keras":
        os.kill(os.getpid(), signal.SIGKILL)
training.save_model = save_and_die
model, history = training.train(t.small_model(), data, epochs=3, seed=5, checkpoints=checkpoints)
assert len(history.epochs) == 3
save_model(model, target)
"""


def small_model() -> Any:
    """A model with everything that is random in training: dropout, augmentation, and batch statistics."""
    keras.utils.set_random_seed(7)
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            L.RandomTranslation(0.1, 0.1),
            L.Conv2D(4, 5, strides=3),
            L.BatchNormalization(),
            L.ReLU(),
            L.Dropout(0.25),
            L.Flatten(),
            L.Dense(10, activation="softmax"),
        ]
    )


@pytest.fixture(scope="module")
def digits(mnist: DataSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("training") / "digits.npz"
    train_split, test_split = mnist.train, mnist.test
    np.savez(
        path,
        x_train=train_split.images[:500],
        y_train=train_split.labels[:500],
        x_test=test_split.images[:100],
        y_test=test_split.labels[:100],
    )
    return path


@pytest.fixture(scope="module")
def few(mnist: DataSet) -> DataSet:
    return replace(mnist, train=Split(mnist.train.images[:500], mnist.train.labels[:500]))


def in_fresh_process(digits: Path, checkpoints: Path, target: Path, die_after: int = 0) -> int:
    checkpoints.mkdir(exist_ok=True)
    here = Path(__file__).parent
    arguments = [sys.executable, "-c", SCRIPT, str(here), str(digits), str(checkpoints), str(target), str(die_after)]
    return subprocess.run(arguments, env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}, check=False).returncode


def test_killed_after_an_epoch_and_resumed_gives_the_bytes_of_an_undisturbed_training(
    digits: Path, tmp_path: Path
) -> None:
    whole, resumed = tmp_path / "whole" / "m.keras", tmp_path / "resumed" / "m.keras"
    whole.parent.mkdir()
    resumed.parent.mkdir()
    assert in_fresh_process(digits, tmp_path / "a", whole) == 0
    assert in_fresh_process(digits, tmp_path / "b", resumed, die_after=1) == -signal.SIGKILL
    assert not resumed.exists()
    assert sorted(path.name for path in (tmp_path / "b").iterdir()) == ["epoch-1.json", "epoch-1.keras"]
    assert in_fresh_process(digits, tmp_path / "b", resumed) == 0
    assert sha256_file(resumed) == sha256_file(whole)


Trained = tuple[Any, Any, Path]


@pytest.fixture(scope="module")
def two_epochs(few: DataSet, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A model after two epochs, its history, and the folder of its checkpoints; copy that before changing it."""
    folder = tmp_path_factory.mktemp("checkpoints")
    return *train(small_model(), few, epochs=2, checkpoints=folder), folder


def weights_after(data: DataSet, **options: Any) -> bytes:
    model, _ = train(small_model(), data, **{"epochs": 1, "seed": 1, **options})
    return b"".join(np.asarray(weight).tobytes() for weight in model.weights if "seed" not in weight.path)


def test_weights_follow_from_the_seed(few: DataSet) -> None:
    first = weights_after(few)
    assert first == weights_after(few)
    assert first != weights_after(few, seed=2)


def test_training_learns_and_counts_epochs(few: DataSet) -> None:
    _, history = train(small_model(), few, epochs=4, learning_rate=5e-3, validation_split=0.2)
    losses = [epoch.loss for epoch in history.epochs]
    assert len(losses) == 4
    assert losses[-1] < 0.8 * losses[0]
    assert all(0 <= epoch.accuracy <= 1 and epoch.val_accuracy is not None for epoch in history.epochs)


def test_logits_are_trained_as_logits(few: DataSet) -> None:
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((28, 28, 1)), L.Flatten(), L.Dense(10)])
    _, history = train(model, few, epochs=5, learning_rate=5e-3)
    assert history.epochs[-1].accuracy > 0.8


def test_validation_images_are_drawn_not_cut_off(few: DataSet) -> None:
    order = np.argsort(few.train.labels, kind="stable")  # sorted by class: the last tenth would be nines only
    data = replace(few, train=Split(few.train.images[order], few.train.labels[order]))
    _, history = train(small_model(), data, epochs=4, learning_rate=5e-3, validation_split=0.1)
    assert history.epochs[-1].val_accuracy is not None
    assert history.epochs[-1].val_accuracy > 0.4


def test_without_validation_all_images_train(few: DataSet) -> None:
    _, history = train(small_model(), few, epochs=1, validation_split=0)
    assert history.epochs[0].val_loss is None
    with pytest.raises(ModelError, match="no training images are left after a validation split of 1"):
        train(small_model(), few, epochs=1, validation_split=1)


def test_epochs_that_are_done_are_not_done_again(few: DataSet, two_epochs: Trained, tmp_path: Path) -> None:
    first, history, done = two_epochs
    shutil.copytree(done, tmp_path, dirs_exist_ok=True)
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    second, again = train(small_model(), few, epochs=2, checkpoints=tmp_path)
    assert again == history
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before
    for one, other in zip(first.weights, second.weights, strict=True):
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))


def _cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _gone(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        ("epoch-2.keras", _cut_short),
        ("epoch-2.json", _cut_short),
        ("epoch-2.json", _gone),
        ("epoch-2.json", lambda path: path.write_bytes((path.parent / "epoch-1.json").read_bytes())),
    ],
)
def test_an_epoch_whose_checkpoint_cannot_be_read_is_done_again(
    few: DataSet,
    two_epochs: Trained,
    tmp_path: Path,
    file: str,
    damage: Callable[[Path], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    first, history, done = two_epochs
    shutil.copytree(done, tmp_path, dirs_exist_ok=True)
    damage(tmp_path / file)
    second, again = train(small_model(), few, epochs=2, checkpoints=tmp_path)
    (said,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert said.startswith("repeating epoch 2: ")
    assert file in said
    assert again == history
    for one, other in zip(first.weights, second.weights, strict=True):
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))


def test_a_diverging_training_is_an_error(few: DataSet) -> None:
    with pytest.raises(ModelError, match=r"training diverged in epoch 1: the loss is (nan|inf)"):
        train(small_model(), few, epochs=2, learning_rate=1e38)


def test_export_needs_tensorflow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(ModelError, match="export needs Keras on TensorFlow, it runs on 'jax'; unset KERAS_BACKEND"):
        require_tensorflow()
