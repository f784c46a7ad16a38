"""The data set returned by every loader, and the checks of its data."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from edgecnn.data.labels import RawArray, described, labelled
from edgecnn.errors import ConfigError, DataError
from edgecnn.own_code import function_of
from edgecnn.records import Preprocessing, TaskName
from edgecnn.tasks import Metric, Scoring

_CHECKED = 256

Images: TypeAlias = npt.NDArray[np.uint8 | np.float32]


@dataclass(frozen=True, eq=False)
class Split:
    """Samples such as images ``(n, h, w, c)``, uint8 or float32, and their labels; read-only arrays.

    The labels are int64 or float32, ``(n, …)``, as the task has them (see ``edgecnn.tasks.Scoring``). Those of
    reconstruction are int64 ``(n,)``: 1 for an anomaly, else 0.
    """

    images: Images
    labels: npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class DataSet:
    """Splits of labelled samples, and the preprocessing from raw values to model input.

    Without ``val``, training holds out a part of ``train``.

    ``class_names[i]`` names class ``i``, or output ``i`` if the task has no classes. ``sha256`` covers both splits
    (values, shapes, dtypes, labels) and the class names, but not the preprocessing. ``metric``, a function of the
    user's, replaces the score of the task (see ``edgecnn.tasks.Scoring``).
    """

    name: str
    train: Split
    test: Split
    class_names: tuple[str, ...]
    preprocessing: Preprocessing
    sha256: str
    task: TaskName = "classification"
    metric: Metric | None = None
    val: Split | None = None

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one sample, such as height, width and channels of an image."""
        return self.test.images.shape[1:]

    def shaped(self, shape: Sequence[int | None]) -> "DataSet":
        """The same samples in the input ``shape`` of a model; sizes of 1 are added or left out.

        Raises:
            DataError: the samples have other sizes.
        """
        own = self.input_shape
        if _fits(own, shape):
            return self
        if not _fits([size for size in own if size != 1], [size for size in shape if size != 1]):
            raise DataError(f"the samples of {self.name} are {own}, not {tuple(shape)}")
        sizes = iter(size for size in own if size != 1)
        target = [1 if size == 1 else next(sizes) for size in shape]

        def reshaped(split: Split) -> Split:
            return Split(split.images.reshape(-1, *target), split.labels)

        val = None if self.val is None else reshaped(self.val)
        return replace(self, train=reshaped(self.train), test=reshaped(self.test), val=val)

    def scored_by(self, metric: Metric | str | None) -> "DataSet":
        """The same with this ``metric``, a function or its place such as "my_metrics:mean_precision".

        Raises:
            ConfigError: there is no such function.
        """
        return replace(self, metric=function_of(metric, "--metric") if isinstance(metric, str) else metric)

    @property
    def scorable(self) -> bool:
        """Whether there is a score: the task has one, or the user."""
        return self.task != "custom" or self.metric is not None

    def scoring(self, count: int | None = None) -> Scoring:
        """How outputs for the test samples, or for the first ``count`` of them, are scored; the same object each time.

        Raises:
            ConfigError: the task is custom and there is no ``metric``.
        """
        if not self.scorable:
            raise ConfigError(
                "a custom task needs a function that scores outputs: --metric my_metrics:score, with "
                "def score(labels, outputs) that returns a number of at most 1, for all samples or for each"
            )
        if count not in self._scorings:
            labels = self.test.labels[:count]
            if self.task == "reconstruction":
                anomalies = labels if labels.any() else None
                made = Scoring(self.task, self.test_inputs(count), anomalies=anomalies, measure=self.metric)
            else:
                made = Scoring(self.task, labels, len(self.class_names), measure=self.metric)
            self._scorings[count] = made
        return self._scorings[count]

    @cached_property
    def _scorings(self) -> dict[int | None, Scoring]:
        return {}

    @cached_property
    def test_sha256(self) -> str:
        """A hash of the test samples and their labels, in order."""
        images, labels = self.test.images, self.test.labels
        digest = hashlib.sha256(json.dumps([images.dtype.name, images.shape]).encode())
        for array in (images, labels):
            digest.update(np.ascontiguousarray(array, array.dtype.newbyteorder("<")).data)
        return digest.hexdigest()

    def test_inputs(self, count: int | None = None) -> npt.NDArray[np.float32]:
        """Model input for the test samples, or for the first ``count`` of them."""
        return self.inputs(self.test.images[:count])

    def different(self, most: int) -> npt.NDArray[np.int64]:
        """Indices of up to ``most`` test samples: the first one of each class, or just the first ones."""
        if self.task == "classification":
            return np.unique(self.test.labels, return_index=True)[1][:most]
        return np.arange(min(most, len(self.test.labels)))

    def targets(self, labels: npt.NDArray[Any], images: Images, *, one_hot: bool) -> npt.NDArray[np.float32]:
        """What a model is trained to give for samples with these ``labels``.

        Classes are ``one_hot``, or the probability of the second of two classes.
        """
        if self.task == "reconstruction":
            return self.inputs(images)
        if self.task in ("classification", "segmentation"):
            if one_hot:
                rows: npt.NDArray[np.float32] = np.eye(len(self.class_names), dtype=np.float32)[labels]
                return rows
            return labels[..., np.newaxis].astype(np.float32)
        return labels.astype(np.float32)

    def inputs(self, images: Images) -> npt.NDArray[np.float32]:
        """Model input for raw samples of this data set: ``raw * scale + offset``.

        Args:
            images: ``(n, …)`` as in the splits, of the same dtype.

        Returns:
            float32 ``(n, …)``.

        Raises:
            DataError: shape or dtype differs from the splits.
        """
        dtype = self.test.images.dtype
        if images.shape[1:] != self.input_shape or images.dtype != dtype:
            wanted = ", ".join(map(str, self.input_shape))
            raise DataError(f"inputs() expects {dtype} images (n, {wanted}) of {self.name}; got {described(images)}")
        scale, offset = np.float32(self.preprocessing.scale), np.float32(self.preprocessing.offset)
        return images.astype(np.float32) * scale + offset

    def calibration(self, count: int) -> npt.NDArray[np.float32]:
        """Model input, float32 ``(n, …)``, of ``count`` training samples (or all), the same for the same data.

        They are drawn at random, because folders of images are sorted by class.
        """
        drawn = np.random.default_rng(0).permutation(len(self.train.images))[:count]
        return self.inputs(self.train.images[np.sort(drawn)])


def make_dataset(
    where: object,
    name: str,
    train: tuple[RawArray, RawArray | None],
    test: tuple[RawArray, RawArray | None],
    class_names: Sequence[str] | None,
    input_range: tuple[float, float],
    task: TaskName | None = None,
    *,
    val: tuple[RawArray, RawArray | None] | None = None,
    resize: tuple[int, int] | None = None,
) -> DataSet:
    """Check raw arrays and make a data set from them.

    Args:
        where: source of the arrays, named in every error.
        name: name of the data set.
        train: samples ``(n, …)``, uint8 or any float, of which ``(n, h, w)`` are grey images; labels as in ``load``.
        test: as ``train``.
        class_names: one name per class; with ``None``, class ``i`` is named ``str(i)``.
        input_range: see ``load``.
        task: what the labels mean; ``None`` for a guess.
        val: as ``train``, to watch the training with.
        resize: height and width that the images were resized to.

    Raises:
        DataError: the arrays are not a usable data set.
    """
    given = {"train": train, "test": test, **({} if val is None else {"val": val})}
    try:
        images = {part: _images(part, samples) for part, (samples, _) in given.items()}
        for part in images:
            _check_alike(images["train"], part, images[part])
        task, labels, names = labelled({part: each for part, (_, each) in given.items()}, images, class_names, task)
        splits = {part: _split(images[part], labels[part]) for part in given}
        preprocessing = _preprocessing(images["train"], input_range).replace(resize=resize)
    except DataError as error:
        raise DataError(f"{where}: {error}") from None
    digest = _content_hash([*splits.values()], names)
    return DataSet(name, splits["train"], splits["test"], names, preprocessing, digest, task, val=splits.get("val"))


def make_test_set(
    where: object,
    name: str,
    test: tuple[RawArray, RawArray],
    class_names: tuple[str, ...],
    preprocessing: Preprocessing,
    task: TaskName,
) -> DataSet:
    """Check raw test samples and their labels, as for ``make_dataset``, and make a data set without training samples.

    Raises:
        DataError: the arrays are not usable.
    """
    try:
        images = _images("test", test[0])
        _, labels, _ = labelled({"test": test[1]}, {"test": images}, class_names, task)
        split = _split(images, labels["test"])
    except DataError as error:
        raise DataError(f"{where}: {error}") from None
    none = _split(images[:0], split.labels[:0])
    return DataSet(name, none, split, class_names, preprocessing, _content_hash([none, split], class_names), task)


def _images(part: str, images: RawArray) -> Images:
    if images.ndim == 3:
        images = images[..., np.newaxis]
    if images.ndim < 2:
        raise DataError(
            f"{part} images must have shape (n, h, w) or (n, h, w, c), other samples (n, …); got {described(images)}; "
            "reshape them"
        )
    if 0 in images.shape:
        raise DataError(f"{part} images are empty: shape {images.shape}; at least one image of one pixel is needed")
    if images.dtype == np.uint8:
        return np.ascontiguousarray(images)
    if images.dtype.kind != "f":
        raise DataError(f"{part} images must be uint8 or float; got {images.dtype}; convert them with astype()")
    with np.errstate(over="ignore", invalid="ignore"):  # values beyond float32 become infinite, which is checked below
        images = np.ascontiguousarray(images, dtype=np.float32)
    for start in range(0, len(images), _CHECKED):  # not all at once: they may be larger than the memory
        finite = np.isfinite(images[start : start + _CHECKED]).all(axis=tuple(range(1, images.ndim)))
        if not finite.all():
            raise DataError(
                f"{part} images must be finite float32 values; image {start + int(finite.argmin())} contains NaN, "
                "infinity or a value beyond float32 (|x| > 3.4e38); remove or repair it"
            )
    return images


def _check_alike(train: Images, part: str, images: Images) -> None:
    if train.shape[1:] != images.shape[1:]:
        raise DataError(
            f"train and {part} images must have one shape (h, w, c); got {train.shape[1:]} and "
            f"{images.shape[1:]}; resize them"
        )
    if train.dtype != images.dtype:
        raise DataError(
            f"train and {part} images must both be uint8 or both float; got {train.dtype} and {images.dtype}; convert "
            "one"
        )


def _preprocessing(train_images: Images, input_range: tuple[float, float]) -> Preprocessing:
    if train_images.dtype == np.uint8:
        low, high = map(float, input_range)
        return Preprocessing(scale=(high - low) / 255, offset=low, input_range=(low, high))
    low, high = float(train_images.min()), float(train_images.max())
    if low == high:
        raise DataError(
            f"train images contain only the value {low}; there is nothing to learn; check how they were saved"
        )
    return Preprocessing(scale=1.0, offset=0.0, input_range=(low, high))


def _split(images: Images, labels: npt.NDArray[np.int64]) -> Split:
    images = images.view()  # the caller's own array keeps its flags
    images.flags.writeable = False
    labels.flags.writeable = False
    return Split(images, labels)


def _content_hash(splits: Sequence[Split], class_names: tuple[str, ...]) -> str:
    arrays = [array for split in splits for array in (split.images, split.labels)]
    head = [[array.dtype.name, array.shape] for array in arrays]
    digest = hashlib.sha256(json.dumps([head, class_names]).encode())
    for array in arrays:
        digest.update(array.astype(array.dtype.newbyteorder("<"), copy=False).data)
    return digest.hexdigest()


def _fits(own: Sequence[int], shape: Sequence[int | None]) -> bool:
    return len(own) == len(shape) and all(want in (None, got) for got, want in zip(own, shape, strict=True))
