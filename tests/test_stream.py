"""Data that come in batches: a tf.data.Dataset, a PyDataset, any iterable; also more than fits into the memory."""

import mmap
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from edgecnn.data import load
from edgecnn.data.stream import spooled
from edgecnn.errors import DataError

IMAGES = (np.arange(10 * 6 * 5).reshape(10, 6, 5, 1) % 250).astype(np.uint8)
LABELS = np.arange(10) % 2


class Batches(keras.utils.PyDataset):  # type: ignore[misc]
    def __len__(self) -> int:
        return 4

    def __getitem__(self, number: int) -> Any:
        return IMAGES[3 * number :][:3], LABELS[3 * number :][:3]


def one_by_one() -> Iterator[Any]:
    for number in range(0, 10, 3):
        yield IMAGES[number : number + 3], LABELS[number : number + 3]


@pytest.mark.parametrize(
    "made", [Batches, one_by_one, lambda: tf.data.Dataset.from_tensor_slices((IMAGES, LABELS)).batch(3)]
)
def test_streams_are_the_data_that_arrays_are(made: Callable[[], Any]) -> None:
    data = load((made(), made()))
    assert data.sha256 == load((IMAGES, LABELS, IMAGES, LABELS)).sha256
    owner: Any = data.train.images
    while isinstance(owner, np.ndarray):
        owner = owner.base
    assert isinstance(owner, mmap.mmap), "the samples are not in the file"
    assert not data.train.images.flags.writeable


@pytest.mark.parametrize(
    ("batches", "expected"),
    [
        ([], "there are no train batches"),
        ([IMAGES[:0], LABELS[:0]], "train batch 0 is not a pair of samples and labels"),
        ([(IMAGES[:0], LABELS[:0])], "there are no train batches"),
        (
            [(IMAGES[:2], LABELS[:2]), (IMAGES[:2, :3], LABELS[:2])],
            r"train batch 1 has samples uint8 \(2, 3, 5, 1\), the",
        ),
        ([(IMAGES[:2], LABELS[:2]), (IMAGES[:2] / 2, LABELS[:2])], r"train batch 1 has samples float32 \(2, 6, 5, 1\)"),
        ([(IMAGES[:2], LABELS[:3])], r"train batch 0 has 2 samples and labels int64 \(3,\)"),
        ([(IMAGES[0, 0, 0, 0], LABELS[0])], "train batch 0 has samples uint8"),
    ],
)
def test_batches_that_do_not_fit_are_named(batches: Any, expected: str) -> None:
    with pytest.raises(DataError, match=expected):
        spooled("train", batches)


LARGE = '''
import re, resource, sys
from pathlib import Path
import keras, numpy as np
import edgecnn

SIDE, BATCH = 192, 64

class Large(keras.utils.PyDataset):
    """Bright or dark images, with noise."""
    def __init__(self, batches):
        super().__init__()
        self.batches = batches
    def __len__(self):
        return self.batches
    def __getitem__(self, number):
        draw = np.random.default_rng(number)
        labels = draw.integers(2, size=BATCH)
        images = draw.random((BATCH, SIDE, SIDE, 1), np.float32) / 2
        return images + labels[:, None, None, None] / np.float32(2), labels

def everything(batches, folder):
    data = edgecnn.load_data((Large(batches), Large(2)))
    layers = [keras.layers.Conv2D(4, 8, strides=8, activation="relu"), keras.layers.GlobalAveragePooling2D()]
    model = keras.Sequential([keras.Input((SIDE, SIDE, 1)), *layers, keras.layers.Dense(2, activation="softmax")])
    model, _ = edgecnn.train(model, data, epochs=1, learning_rate=1e-2)
    (row,) = edgecnn.export(model, data, folder, schemes=("int8",), formats=("tflite",), calibration_images=50)
    (parity, *_) = edgecnn.verify([Path(folder) / row.file], data, model=model)
    return data, parity

keras.utils.set_random_seed(0)
everything(2, sys.argv[1])  # what TensorFlow itself takes
taken = 1024 * int(re.search(r"VmData:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
limit = 250_000_000
resource.setrlimit(resource.RLIMIT_DATA, (taken + limit, -1))
data, parity = everything(60, sys.argv[1])
assert data.train.images.nbytes > 2 * limit
try:
    np.concatenate([images for images, _ in (Large(60)[number] for number in range(60))])
except MemoryError:
    print("no room", parity.accuracy.correct, parity.accuracy.total, len(parity.violations))
'''


@pytest.mark.slow
def test_training_data_may_be_larger_than_the_memory(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", LARGE, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    *words, correct, total, violations = done.stdout.split()
    assert words == ["no", "room"], "the limit is no limit"
    assert int(total) == 128
    assert int(correct) > 120
    assert violations == "0"
