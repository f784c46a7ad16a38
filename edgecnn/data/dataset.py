"""What every loader returns, and the checks that all data pass on the way."""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from edgecnn.errors import DataError
from edgecnn.records import Preprocessing

Images: TypeAlias = npt.NDArray[np.uint8 | np.float32]
RawArray: TypeAlias = npt.NDArray[Any]

_MOST_CLASSES, _LONGEST_NAME = 100_000, 200


@dataclass(frozen=True, eq=False)
class Split:
    """Images ``(n, h, w, c)``, uint8 or float32, and their labels ``(n,)``, int64; read-only arrays."""

    images: Images
    labels: npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class DataSet:
    """Two splits of labelled images and how their raw values become model input.

    ``class_names[i]`` names label ``i``. ``sha256`` covers both splits (values, shapes, dtypes, labels) and
    the class names, but not the preprocessing.
    """

    name: str
    train: Split
    test: Split
    class_names: tuple[str, ...]
    preprocessing: Preprocessing
    sha256: str

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of every image."""
        _, height, width, channels = self.train.images.shape
        return height, width, channels

    def inputs(self, images: Images) -> npt.NDArray[np.float32]:
        """Model input for raw images of this data set: ``raw * scale + offset``.

        Args:
            images: ``(n, h, w, c)`` as in the splits, of the same dtype.

        Returns:
            float32 ``(n, h, w, c)``.

        Raises:
            DataError: another shape or dtype than the splits have.
        """
        dtype = self.train.images.dtype
        if images.ndim != 4 or images.shape[1:] != self.input_shape or images.dtype != dtype:
            wanted = ", ".join(map(str, self.input_shape))
            raise DataError(f"inputs() wants {dtype} images (n, {wanted}) of {self.name}; got {_kind(images)}")
        scale, offset = np.float32(self.preprocessing.scale), np.float32(self.preprocessing.offset)
        return images.astype(np.float32) * scale + offset

    def calibration(self, count: int) -> npt.NDArray[np.float32]:
        """Model input of ``count`` training images (all, if there are fewer), the same for the same data.

        They are drawn at random, because folders of images come sorted by class.
        """
        drawn = np.random.default_rng(0).permutation(len(self.train.images))[:count]
        return self.inputs(self.train.images[np.sort(drawn)])


def make_dataset(
    where: object,
    name: str,
    train: tuple[RawArray, RawArray],
    test: tuple[RawArray, RawArray],
    class_names: Sequence[str] | None,
    input_range: tuple[float, float],
) -> DataSet:
    """Check raw arrays and make a data set of them.

    Args:
        where: where the arrays come from, named in every error.
        name: name of the data set.
        train: images ``(n, h, w)`` or ``(n, h, w, c)``, uint8 or any float; labels ``(n,)`` or ``(n, 1)``,
            any integer.
        test: as ``train``.
        class_names: one name per label; ``None`` calls label ``i`` ``str(i)``.
        input_range: see ``load``.

    Raises:
        DataError: the arrays are not a usable data set.
    """
    try:
        train_images, test_images = _images("train", train[0]), _images("test", test[0])
        _check_alike(train_images, test_images)
        train_labels = _labels("train", train[1], len(train_images))
        test_labels = _labels("test", test[1], len(test_images))
        names = _class_names(train_labels, class_names)
        splits = (
            _split(train_images, _in_range("train", train_labels, len(names))),
            _split(test_images, _in_range("test", test_labels, len(names))),
        )
        _check_seen(splits[0].labels, splits[1].labels)
        preprocessing = _preprocessing(train_images, input_range)
    except DataError as error:
        raise DataError(f"{where}: {error}") from None
    return DataSet(name, *splits, names, preprocessing, _content_hash(*splits, names))


def make_test_set(
    where: object,
    name: str,
    test: tuple[RawArray, RawArray],
    class_names: tuple[str, ...],
    preprocessing: Preprocessing,
) -> DataSet:
    """Check raw test images and their labels, as for ``make_dataset``, and make a data set without training images.

    Raises:
        DataError: the arrays are not usable.
    """
    try:
        images = _images("test", test[0])
        labels = _labels("test", test[1], len(images))
        split = _split(images, _in_range("test", labels, len(class_names)))
    except DataError as error:
        raise DataError(f"{where}: {error}") from None
    none = _split(images[:0], split.labels[:0])
    return DataSet(name, none, split, class_names, preprocessing, _content_hash(none, split, class_names))


def _images(part: str, images: RawArray) -> Images:
    if images.ndim == 3:
        images = images[..., np.newaxis]
    if images.ndim != 4:
        raise DataError(f"{part} images must have shape (n, h, w) or (n, h, w, c); got {_kind(images)}; reshape them")
    if 0 in images.shape:
        raise DataError(f"{part} images are empty: shape {images.shape}; at least one image of one pixel is needed")
    if images.dtype == np.uint8:
        return np.ascontiguousarray(images)
    if images.dtype.kind != "f":
        raise DataError(f"{part} images must be uint8 or float; got {images.dtype}; convert them with astype()")
    with np.errstate(over="ignore", invalid="ignore"):  # what float32 cannot hold becomes infinite: told below
        images = np.ascontiguousarray(images, dtype=np.float32)
    finite = np.isfinite(images).all(axis=(1, 2, 3))
    if not finite.all():
        raise DataError(
            f"{part} images must be finite float32 values; image {int(finite.argmin())} holds NaN, infinity "
            "or a value beyond float32 (|x| > 3.4e38); remove or repair it"
        )
    return images


def _check_alike(train: Images, test: Images) -> None:
    if train.shape[1:] != test.shape[1:]:
        raise DataError(
            f"train and test images must have one shape (h, w, c); got {train.shape[1:]} and "
            f"{test.shape[1:]}; resize them"
        )
    if train.dtype != test.dtype:
        raise DataError(
            f"train and test images must both be uint8 or both float; got {train.dtype} and {test.dtype}; convert one"
        )


def _labels(part: str, labels: RawArray, images: int) -> RawArray:
    if labels.dtype.kind not in "iu":
        raise DataError(f"{part} labels must be integers; got {labels.dtype}; convert them with astype(numpy.int64)")
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1:
        raise DataError(
            f"{part} labels must have shape (n,) or (n, 1); got {_kind(labels)}; turn one-hot labels into "
            "numbers with argmax(axis=1)"
        )
    if len(labels) != images:
        raise DataError(f"{part} split has {images} images but {len(labels)} labels; each image needs one label")
    return labels


def _class_names(train_labels: RawArray, class_names: Sequence[str] | None) -> tuple[str, ...]:
    distinct = len(np.unique(train_labels))
    if distinct == 1:
        raise DataError(f"train labels are all {train_labels[0]}; a classifier needs at least two classes")
    classes = distinct if class_names is None else len(class_names)
    if classes > _MOST_CLASSES:
        raise DataError(f"there are {classes:,} classes, more than {_MOST_CLASSES:,}; check the labels")
    if class_names is None:
        return tuple(map(str, range(distinct)))
    if not class_names:
        raise DataError("class names are empty; give one name per label or leave them out")
    for name in class_names:
        if not (name.strip() and name.isprintable() and len(name) <= _LONGEST_NAME):
            raise DataError(
                f"class names must be printable, not blank, and of at most {_LONGEST_NAME} characters; got "
                f"{name[:40]!r}{'…' if len(name) > 40 else ''}; rename it"
            )
    twice = next((name for name, times in Counter(class_names).items() if times > 1), None)
    if twice is not None:
        raise DataError(f"class names must differ; {twice!r} is there more than once; rename one")
    return tuple(class_names)


def _in_range(part: str, labels: RawArray, classes: int) -> npt.NDArray[np.int64]:
    for value in (int(labels.min()), int(labels.max())):
        if not 0 <= value < classes:
            raise DataError(
                f"{part} labels must be 0 to {classes - 1}, for {classes} classes (the number of class names "
                f"or, without these, of distinct train labels); got {value}; renumber the labels"
            )
    return labels.astype(np.int64)


def _check_seen(train: npt.NDArray[np.int64], test: npt.NDArray[np.int64]) -> None:
    unseen = np.setdiff1d(test, train)
    if unseen.size:
        raise DataError(
            f"test labels must occur among the train labels; got {_few(unseen.tolist())}, which do not; "
            "add train images of these classes or remove the test images"
        )


def _preprocessing(train_images: Images, input_range: tuple[float, float]) -> Preprocessing:
    if train_images.dtype == np.uint8:
        low, high = map(float, input_range)
        return Preprocessing(scale=(high - low) / 255, offset=low, input_range=(low, high))
    low, high = float(train_images.min()), float(train_images.max())
    if low == high:
        raise DataError(f"train images hold only the value {low}; there is nothing to learn; check how they were saved")
    return Preprocessing(scale=1.0, offset=0.0, input_range=(low, high))


def _split(images: Images, labels: npt.NDArray[np.int64]) -> Split:
    images = images.view()  # the caller's own array keeps its flags
    images.flags.writeable = False
    labels.flags.writeable = False
    return Split(images, labels)


def _content_hash(train: Split, test: Split, class_names: tuple[str, ...]) -> str:
    arrays = (train.images, train.labels, test.images, test.labels)
    head = [[array.dtype.name, array.shape] for array in arrays]
    digest = hashlib.sha256(json.dumps([head, class_names]).encode())
    for array in arrays:
        digest.update(array.astype(array.dtype.newbyteorder("<"), copy=False).data)
    return digest.hexdigest()


def _kind(array: RawArray) -> str:
    return f"{array.dtype} {array.shape}"


def _few(values: Sequence[object], limit: int = 5) -> str:
    return ", ".join(map(str, values[:limit])) + (", …" if len(values) > limit else "")
