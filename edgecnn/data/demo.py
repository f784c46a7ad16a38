"""Generated data sets, each for a built-in model, so that a task can be tried without data of one's own."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecnn.data.dataset import DataSet, make_dataset
from edgecnn.records import ModelName, TaskName

Array = NDArray[Any]
_TRAIN, _TEST = 2000, 500


def load_demo(model: ModelName, input_range: tuple[float, float]) -> DataSet:
    """The generated data set for a built-in model: 2,000 training and 500 test samples, always the same.

    - unet: grey images of discs and squares on noise, 32 × 32, and their masks.
    - autoencoder: spectra of a machine, 640 values; test spectra with an additional tone are anomalies.
    - motion_cnn: windows of acceleration and rotation, 128 × 6, of six activities.
    - person_cnn: grey images with and without a figure, 48 × 48.
    """
    task, names, make = DEMOS[model]
    draw = np.random.default_rng(0)
    train, test = make(draw, _TRAIN, False), make(draw, _TEST, True)
    return make_dataset(f"demo-{model}", f"demo-{model}", train, test, names or None, input_range, task)


def _masks(draw: np.random.Generator, count: int, test: bool) -> tuple[Array, Array]:
    side = 32
    rows, columns = np.mgrid[:side, :side]
    images = draw.normal(70, 25, (count, side, side, 1))
    masks = np.zeros((count, side, side), np.int64)
    for image, mask in zip(images, masks, strict=True):
        for kind in draw.integers(1, 3, draw.integers(1, 4)):
            (y, x), size = draw.integers(4, side - 4, 2), draw.integers(3, 8)
            apart = np.hypot(rows - y, columns - x) if kind == 1 else np.maximum(abs(rows - y), abs(columns - x))
            mask[apart < size] = kind
            image[apart < size] += draw.uniform(60, 120)
    return images.clip(0, 255).astype(np.uint8), masks


def _spectra(draw: np.random.Generator, count: int, test: bool) -> tuple[Array, Array]:
    frames, bins = 5, 128
    places, speed = np.arange(bins), draw.uniform(14, 18, (count, 1, 1))
    hum = sum(np.exp(-(((places - speed * number) / 3) ** 2)) / number for number in range(1, 6))
    spectra = 0.6 * hum * draw.uniform(0.7, 1.3, (count, frames, 1)) + draw.normal(0, 0.05, (count, frames, bins))
    anomalies = draw.integers(0, 2, count) if test else np.zeros(count, np.int64)
    tone = np.exp(-(((places - draw.uniform(95, 120, (count, 1, 1))) / 2) ** 2))
    spectra += anomalies[:, np.newaxis, np.newaxis] * tone * draw.uniform(0.05, 0.4, (count, 1, 1))
    return spectra.reshape(count, frames * bins).astype(np.float32), anomalies


def _windows(draw: np.random.Generator, count: int, test: bool) -> tuple[Array, Array]:
    length, channels = 128, 6
    activities = draw.integers(0, len(DEMOS["motion_cnn"][1]), count)
    hertz = np.array([0, 0, 0, 1.8, 2.8, 1.8])[activities] * draw.uniform(0.85, 1.15, count)
    strength = np.array([0.02, 0.02, 0.02, 0.4, 0.9, 0.4])[activities]
    angle = np.array([90, 60, 0, 90, 90, 75])[activities] * np.pi / 180 + draw.normal(0, 0.12, count)
    times = np.arange(length) / 50  # 50 samples per second
    phase = draw.uniform(0, 2 * np.pi, (count, 1, channels))
    windows = strength[:, None, None] * np.sin(2 * np.pi * hertz[:, None, None] * times[:, None] + phase)
    windows[..., 0] += np.sin(angle)[:, None]
    windows[..., 2] += np.cos(angle)[:, None]
    return (windows + draw.normal(0, 0.15, windows.shape)).astype(np.float32), activities


def _figures(draw: np.random.Generator, count: int, test: bool) -> tuple[Array, Array]:
    side = 48
    rows, columns = np.mgrid[:side, :side]
    images = draw.normal(90, 20, (count, side, side, 1))
    persons = draw.integers(0, 2, count)
    for image, person in zip(images, persons, strict=True):
        for _ in range(draw.integers(3, 7)):  # clutter: boxes and discs, as in a figure
            (y, x), size = draw.integers(0, side, 2), draw.integers(2, 6)
            long = draw.uniform(0.5, 3)
            disc = np.hypot((rows - y) / long, columns - x) < size
            box = (abs(rows - y) < size * long) & (abs(columns - x) < size)
            image[disc if draw.integers(2) else box] += draw.uniform(-80, 80)
        if person:
            unit = draw.uniform(3, 5)
            top, left = draw.uniform(2 * unit, side - 6 * unit), draw.uniform(2 * unit, side - 2 * unit)
            head = np.hypot(rows - top, columns - left) < unit
            trunk = (abs(rows - top - 2.7 * unit) < 1.7 * unit) & (abs(columns - left) < 0.9 * unit)
            legs = (abs(rows - top - 5.6 * unit) < 1.3 * unit) & (abs(abs(columns - left) - 0.6 * unit) < 0.3 * unit)
            image[head | trunk | legs] = (
                draw.uniform(150, 230) + draw.normal(0, 10, (head | trunk | legs).sum())[:, None]
            )
    return images.clip(0, 255).astype(np.uint8), persons


DEMOS: dict[ModelName, tuple[TaskName, tuple[str, ...], Callable[[np.random.Generator, int, bool], Any]]] = {
    "unet": ("segmentation", ("background", "disc", "square"), _masks),
    "autoencoder": ("reconstruction", (), _spectra),
    "motion_cnn": ("classification", ("standing", "sitting", "lying", "walking", "running", "stairs"), _windows),
    "person_cnn": ("classification", ("no person", "person"), _figures),
}
"""By model: the task, the names of the classes, and the generator."""
