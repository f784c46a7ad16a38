"""Labels: which task they are for, and the checks of that task."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from edgecnn.errors import DataError
from edgecnn.records import TaskName

RawArray: TypeAlias = npt.NDArray[Any]

_MOST_CLASSES, _LONGEST_NAME = 100_000, 200


def labelled(
    labels: Mapping[str, RawArray | None],
    images: Mapping[str, RawArray],
    names: Sequence[str] | None,
    task: TaskName | None,
) -> tuple[TaskName, dict[str, RawArray], tuple[str, ...]]:
    """The task, its labels and the names of its classes or outputs, for the parts "train" and "test", or "test" alone.

    The labels are int64 or float32 as in ``edgecnn.data.Split``. If ``task`` is ``None``, it is guessed from the first
    part: no labels are reconstruction; integers ``(n, h, w)`` segmentation; 0 and 1 in ``(n, labels)``, unless one-hot,
    multilabel; broken numbers regression; all others classification.

    Raises:
        DataError: they are not labels of the task.
    """
    first = next(iter(labels.values()))
    if task is None and first is None and any(one is not None and not _is_binary(one) for one in labels.values()):
        raise DataError("there are test labels, but no train labels (y_train); add them")
    task = task or ("reconstruction" if first is None else _guessed(first))
    if task == "custom":
        return task, {part: _any(part, found, len(images[part])) for part, found in labels.items()}, tuple(names or ())
    if task == "reconstruction":
        return task, {part: _anomalies(part, found, len(images[part])) for part, found in labels.items()}, ()
    found: dict[str, RawArray] = {}
    for part, given in labels.items():
        if given is None:
            raise DataError(f"there are no {part} labels (y_{part}); the task {task} needs them")
        found[part] = _of_task(part, given, images[part], task)
    shapes = {one.shape[1:] for one in found.values()}
    if len(shapes) > 1:
        raise DataError(
            f"{' and '.join(found)} labels must have one shape; got {' and '.join(map(str, sorted(shapes)))}"
        )
    if task in ("multilabel", "regression"):
        (shape,) = shapes
        return task, found, _names_of_outputs(found, shape, names)
    classes = _class_names(found, names)
    found = {part: _in_range(part, one, len(classes)) for part, one in found.items()}
    for part in found if "train" in found else ():
        _check_seen(found["train"], part, found[part])
    return task, found, classes


def described(array: RawArray) -> str:
    """Type and shape, for errors."""
    return f"{array.dtype} {array.shape}"


def _guessed(labels: RawArray) -> TaskName:
    if labels.ndim >= 3 and labels.dtype.kind in "iub":
        return "segmentation"
    if labels.ndim == 2 and labels.shape[1] > 1 and labels.size and not _is_one_hot(labels) and _is_binary(labels):
        return "multilabel"
    if labels.dtype.kind == "f" and labels.ndim and labels.size and not _is_one_hot(labels) and not _is_whole(labels):
        return "regression"
    return "classification"


def _of_task(part: str, labels: RawArray, images: RawArray, task: TaskName) -> RawArray:
    if labels.ndim == 0 or 0 in labels.shape[1:]:
        raise DataError(f"{part} labels of shape {labels.shape} have no values; each image needs a label")
    if task == "classification":
        labels = _classes(part, labels)
    elif task == "segmentation":
        labels = _masks(part, labels, images)
    elif task == "multilabel":
        labels = _several(part, labels)
    else:
        labels = _values(part, labels)
    if len(labels) != len(images):
        raise DataError(f"{part} split has {len(images)} images but {len(labels)} labels; each image needs one label")
    return labels


def _classes(part: str, labels: RawArray) -> RawArray:
    if labels.ndim == 2 and labels.shape[1] != 1:
        if not (labels.size and _is_one_hot(labels)):
            raise DataError(
                f"{part} labels of shape {labels.shape} are not one-hot: each row needs a single 1 among zeros; labels "
                "with one number per image have shape (n,)"
            )
        labels = np.asarray(labels.argmax(axis=1))
    if labels.dtype.kind not in "iu":
        raise DataError(
            f"{part} labels must be integers; got {labels.dtype}; convert them with astype(numpy.int64), or choose "
            "--task regression"
        )
    if labels.ndim == 2:
        labels = labels[:, 0]
    if labels.ndim != 1:
        raise DataError(
            f"{part} labels must have shape (n,), (n, 1), or (n, classes) if one-hot; got {described(labels)}"
        )
    return labels


def _masks(part: str, labels: RawArray, images: RawArray) -> RawArray:
    if labels.ndim == 4 and labels.shape[3] == 1:
        labels = labels[..., 0]
    if labels.dtype.kind not in "iub" or labels.ndim != 3 or labels.shape[1:] != images.shape[1:3]:
        raise DataError(
            f"{part} masks must be integers of shape {(len(images), *images.shape[1:3])}, the class of each pixel; got "
            f"{described(labels)}"
        )
    return labels.astype(np.uint8) if labels.dtype.kind == "b" else labels


def _several(part: str, labels: RawArray) -> RawArray:
    if labels.ndim != 2 or not _is_binary(labels):
        raise DataError(
            f"{part} labels of the task multilabel must be 0 or 1, of shape (n, labels); got {described(labels)}"
        )
    return labels.astype(np.int64)


def _values(part: str, labels: RawArray) -> RawArray:
    if labels.dtype.kind not in "iuf":
        raise DataError(f"{part} labels of the task regression must be numbers; got {labels.dtype}")
    with np.errstate(over="ignore", invalid="ignore"):
        values = labels.astype(np.float32)
    if not np.isfinite(values).all():
        raise DataError(f"{part} labels contain NaN, infinity or a value beyond float32; remove or repair them")
    return values[:, np.newaxis] if values.ndim == 1 else values


def _anomalies(part: str, labels: RawArray | None, images: int) -> RawArray:
    if labels is None:
        return np.zeros(images, np.int64)
    if labels.ndim != 1 or not _is_binary(labels):
        raise DataError(
            f"{part} labels of the task reconstruction are 1 for an anomaly, else 0, of shape (n,), or none at all; "
            f"got {described(labels)}"
        )
    if len(labels) != images:
        raise DataError(f"{part} split has {images} samples but {len(labels)} labels")
    return labels.astype(np.int64)


def _any(part: str, labels: RawArray | None, images: int) -> RawArray:
    """Labels that only a metric of the user's knows; none are of shape ``(n, 0)``."""
    if labels is None:
        return np.zeros((images, 0), np.float32)
    if labels.dtype.kind not in "iufb" or labels.ndim == 0 or len(labels) != images:
        raise DataError(
            f"{part} labels of a custom task are numbers, with one row for each of the {images} samples; got "
            f"{described(labels)}"
        )
    return labels.astype(np.float32 if labels.dtype.kind == "f" else np.int64)


def _is_binary(labels: RawArray) -> bool:
    return labels.dtype.kind in "iufb" and bool(((labels == 0) | (labels == 1)).all())


def _is_one_hot(labels: RawArray) -> bool:
    return labels.ndim == 2 and labels.shape[1] > 1 and _is_binary(labels) and bool((labels.sum(axis=1) == 1).all())


def _is_whole(labels: RawArray) -> bool:
    with np.errstate(invalid="ignore"):
        return bool((labels == np.round(labels)).all())


def _class_names(labels: Mapping[str, RawArray], names: Sequence[str] | None) -> tuple[str, ...]:
    first = next(iter(labels.values()))
    distinct = len(np.unique(first))
    if "train" in labels and distinct == 1:
        raise DataError(f"train labels are all {first.flat[0]}; a classifier needs at least two classes")
    classes = distinct if names is None else len(names)
    if classes > _MOST_CLASSES:
        raise DataError(f"there are {classes:,} classes, more than {_MOST_CLASSES:,}; check the labels")
    return tuple(map(str, range(distinct))) if names is None else _checked(names)


def _names_of_outputs(
    labels: Mapping[str, RawArray], shape: tuple[int, ...], names: Sequence[str] | None
) -> tuple[str, ...]:
    first = labels.get("train")
    if first is not None and first.size and (first == first[0]).all():
        raise DataError("all train labels are equal; there is nothing to learn; check how they were saved")
    if names is None or not names:
        return tuple(map(str, range(shape[0]))) if len(shape) == 1 else ()
    if (len(names),) != shape:
        raise DataError(
            f"{len(names)} class names for labels of shape (n, {', '.join(map(str, shape))}); give one each"
        )
    return _checked(names)


def _checked(names: Sequence[str]) -> tuple[str, ...]:
    if not names:
        raise DataError("class names are empty; give one name per label or leave them out")
    for name in names:
        if not (name.strip() and name.isprintable() and len(name) <= _LONGEST_NAME):
            raise DataError(
                f"class names must be printable, not blank, and of at most {_LONGEST_NAME} characters; got "
                f"{name[:40]!r}{'…' if len(name) > 40 else ''}; rename it"
            )
    twice = next((name for name, times in Counter(names).items() if times > 1), None)
    if twice is not None:
        raise DataError(f"class names must differ; {twice!r} occurs more than once; rename one")
    return tuple(names)


def _in_range(part: str, labels: RawArray, classes: int) -> npt.NDArray[np.int64]:
    for value in (int(labels.min()), int(labels.max())):
        if not 0 <= value < classes:
            raise DataError(
                f"{part} labels must be 0 to {classes - 1}, for {classes} classes (the number of class names "
                f"or, without these, of distinct train labels); got {value}; renumber the labels"
            )
    return labels.astype(np.int64)


def _check_seen(train: npt.NDArray[np.int64], part: str, labels: npt.NDArray[np.int64]) -> None:
    unseen = np.setdiff1d(labels, train)
    if unseen.size:
        raise DataError(
            f"{part} labels must occur among the train labels; got {_few(unseen.tolist())}, which do not; "
            f"add train images of these classes or remove the {part} images"
        )


def _few(values: Sequence[object], limit: int = 5) -> str:
    return ", ".join(map(str, values[:limit])) + (", …" if len(values) > limit else "")
