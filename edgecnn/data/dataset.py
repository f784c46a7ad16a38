"""The data set returned by every loader, and the checks of its data."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from edgecnn.data.labels import RawArray, described, labelled
from edgecnn.errors import ConfigError, DataError
from edgecnn.own_code import function_of
from edgecnn.records import OutputLabels, Preprocessing, TaskName
from edgecnn.samples import Samples, by_name, flat, joined, names, parts, shapes
from edgecnn.tasks import Metric, Scoring

_CHECKED = 256

Images: TypeAlias = npt.NDArray[np.uint8 | np.float32]
Given: TypeAlias = RawArray | Mapping[str, RawArray]
Shapes: TypeAlias = Mapping[str, Sequence[int | None]]


@dataclass(frozen=True, eq=False)
class Split:
    """Samples such as images ``(n, h, w, c)``, uint8 or float32, and their labels; read-only arrays.

    Samples of several inputs and labels of several outputs have a field for each (see ``edgecnn.samples``).

    The labels are int64 or float32, ``(n, …)``, as the task has them (see ``edgecnn.tasks.Scoring``). Those of
    reconstruction are int64 ``(n,)``: 1 for an anomaly, else 0.
    """

    images: Samples
    labels: Samples


@dataclass(frozen=True, eq=False)
class DataSet:
    """Splits of labelled samples, and the preprocessing from raw values to model input.

    Without ``val``, training holds out a part of ``train``. Samples of several inputs, and labels of several outputs,
    are structured arrays (see ``edgecnn.samples``).

    ``class_names[i]`` names class ``i``, or output ``i`` if the task has no classes. The task "several" has
    ``outputs``, in the order of the labels, and no class names of its own. ``sha256`` covers both splits (values,
    shapes, dtypes, labels) and the class names, but not the preprocessing. ``metric``, a function of the user's,
    replaces the score of the task (see ``edgecnn.tasks.Scoring``). ``layout`` has the names and shapes of the outputs
    of the model that the samples are for, if it has several.
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
    outputs: tuple[OutputLabels, ...] = ()
    layout: tuple[tuple[str, tuple[int, ...]], ...] = ()

    @property
    def input_shape(self) -> Any:
        """The shape of one sample, such as height, width and channels of an image; of several inputs, all by name."""
        images = self.test.images
        return {name: part.shape[1:] for name, part in by_name(images).items()} or images.shape[1:]

    def shaped(self, inputs: Shapes, outputs: Shapes) -> "DataSet":
        """The same samples for a model with these ``inputs`` and ``outputs``: names and sample shapes, in order.

        Sizes of 1 are added or left out. The names count if there are several.

        Raises:
            DataError: the samples have other inputs or sizes.
        """
        given = names(self.test.images)
        if sorted(given) != sorted(inputs) and (given or len(inputs) > 1):
            raise DataError(
                f"the model takes the inputs {' and '.join(inputs)}, {self.name} has {' and '.join(given) or 'one'}; "
                "save the samples of each input as x_train.<input> and x_test.<input>"
            )
        own = dict(zip(given or inputs, shapes(self.test.images), strict=True))
        targets = {name: self._target(own[name], shape) for name, shape in inputs.items()}
        layout = tuple((name, tuple(size or 1 for size in shape)) for name, shape in outputs.items())
        layout = layout if len(layout) > 1 else ()
        changed = self if layout == self.layout else replace(self, layout=layout)
        if [*own.items()] == [*targets.items()]:
            return changed

        def reshaped(split: Split) -> Split:
            arrays = dict(zip(own, parts(split.images), strict=True))
            samples = joined({name: arrays[name].reshape(-1, *target) for name, target in targets.items()})
            return Split(samples, split.labels)

        val = None if self.val is None else reshaped(self.val)
        return replace(changed, train=reshaped(self.train), test=reshaped(self.test), val=val)

    def _target(self, own: tuple[int, ...], shape: Sequence[int | None]) -> tuple[int, ...]:
        """``own``, the shape of a sample, as a model takes it in the input ``shape``."""
        if _fits(own, shape):
            return own
        if not _fits([size for size in own if size != 1], [size for size in shape if size != 1]):
            raise DataError(f"the samples of {self.name} are {own}, not {tuple(shape)}")
        sizes = iter(size for size in own if size != 1)
        return tuple(1 if size == 1 else next(sizes) for size in shape)

    def of_output(self, name: str) -> "DataSet":
        """The same samples with the labels of one of several outputs; a split without any keeps what it has."""
        (found,) = (each for each in self.outputs if each.name == name)

        def part(split: Split) -> Split:
            return Split(split.images, split.labels[name] if names(split.labels) else split.labels)

        return replace(
            self,
            train=part(self.train),
            test=part(self.test),
            val=None if self.val is None else part(self.val),
            task=found.task,
            class_names=found.labels,
            metric=None,
            outputs=(),
            layout=(),
        )

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
            made = Scoring(self.task, labels, len(self.class_names), measure=self.metric, layout=self.layout)
            if self.task == "reconstruction":
                anomalies = labels if labels.any() else None
                made = replace(made, labels=flat(self.test_inputs(count)), anomalies=anomalies)
            elif self.outputs:
                each = {output.name: self.of_output(output.name).scoring(count) for output in self.outputs}
                made = replace(made, of_outputs=each)
            self._scorings[count] = made
        return self._scorings[count]

    @cached_property
    def _scorings(self) -> dict[int | None, Scoring]:
        return {}

    @cached_property
    def test_sha256(self) -> str:
        """A hash of the test samples and their labels, in order."""
        images, labels = self.test.images, self.test.labels
        digest = hashlib.sha256(json.dumps([_type(images), images.shape]).encode())
        for array in (images, labels):
            digest.update(np.ascontiguousarray(array, array.dtype.newbyteorder("<")).data)
        return digest.hexdigest()

    def test_inputs(self, count: int | None = None) -> Samples:
        """Model input for the test samples, or for the first ``count`` of them."""
        return self.inputs(self.test.images[:count])

    def different(self, most: int) -> npt.NDArray[np.int64]:
        """Indices of up to ``most`` test samples: the first one of each class, or just the first ones."""
        if self.task == "classification":
            return np.unique(self.test.labels, return_index=True)[1][:most]
        return np.arange(min(most, len(self.test.labels)))

    def targets(self, labels: npt.NDArray[Any], images: Images, *, one_hot: bool) -> npt.NDArray[np.float32]:
        """What a model is trained to give at its one output for samples with these ``labels``.

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

    def inputs(self, images: Images) -> Samples:
        """Model input for raw samples of this data set: ``raw * scale + offset``; see ``Preprocessing``.

        Args:
            images: ``(n, …)`` as in the splits, of the same dtype.

        Returns:
            float32 ``(n, …)``; several inputs as fields.

        Raises:
            DataError: shape or dtype differs from the splits.
        """
        own = self.test.images
        if images.shape[1:] != own.shape[1:] or images.dtype != own.dtype:
            wanted = ", ".join(map(str, own.shape[1:]))
            raise DataError(
                f"inputs() expects {own.dtype} images (n, {wanted}) of {self.name}; got {described(images)}"
            )
        scale, offset = np.float32(self.preprocessing.scale), np.float32(self.preprocessing.offset)
        if not names(images):
            return images.astype(np.float32) * scale + offset
        return joined(
            {
                name: part.astype(np.float32) * scale + offset if part.dtype == np.uint8 else part
                for name, part in by_name(images).items()
            }
        )

    def calibration(self, count: int) -> Samples:
        """Model input, float32 ``(n, …)``, of ``count`` training samples (or all), the same for the same data.

        They are drawn at random, because folders of images are sorted by class.
        """
        drawn = np.random.default_rng(0).permutation(len(self.train.images))[:count]
        return self.inputs(self.train.images[np.sort(drawn)])


def make_dataset(
    where: object,
    name: str,
    train: tuple[Given, Given | None],
    test: tuple[Given, Given | None],
    class_names: Sequence[str] | None,
    input_range: tuple[float, float],
    task: TaskName | None = None,
    *,
    val: tuple[Given, Given | None] | None = None,
    resize: tuple[int, int] | None = None,
) -> DataSet:
    """Check raw arrays and make a data set from them.

    Args:
        where: source of the arrays, named in every error.
        name: name of the data set.
        train: samples ``(n, …)``, uint8 or any float, of which ``(n, h, w)`` are grey images; labels as in ``load``.
            Several inputs and several outputs are dictionaries by name.
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
        images = {part: _samples(part, samples) for part, (samples, _) in given.items()}
        for part in images:
            _check_alike(images["train"], part, images[part])
        found = _labelled({part: each for part, (_, each) in given.items()}, images, class_names, task)
        task, labels, class_names, outputs = found
        splits = {part: _split(images[part], labels[part]) for part in given}
        preprocessing = _preprocessing(images["train"], input_range).replace(resize=resize)
    except DataError as error:
        raise DataError(f"{where}: {error}") from None
    digest = _content_hash([*splits.values()], class_names)
    return DataSet(
        name, splits["train"], splits["test"], class_names, preprocessing, digest, task, val=splits.get("val"),
        outputs=outputs,
    )  # fmt: skip


def make_test_set(
    where: object,
    name: str,
    test: tuple[Given, Given],
    class_names: tuple[str, ...],
    preprocessing: Preprocessing,
    task: TaskName,
    outputs: tuple[OutputLabels, ...] = (),
) -> DataSet:
    """Check raw test samples and their labels, as for ``make_dataset``, and make a data set without training samples.

    Raises:
        DataError: the arrays are not usable.
    """
    try:
        images = _samples("test", test[0])
        _, labels, _, _ = _labelled({"test": test[1]}, {"test": images}, class_names, task, outputs)
        split = _split(images, labels["test"])
    except DataError as error:
        raise DataError(f"{where}: {error}") from None
    none = _split(images[:0], split.labels[:0])
    digest = _content_hash([none, split], class_names)
    return DataSet(name, none, split, class_names, preprocessing, digest, task, outputs=outputs)


def _samples(part: str, given: Given) -> Samples:
    if not isinstance(given, Mapping) and given.dtype.names is None:
        return _images(part, given)
    if not isinstance(given, Mapping):  # of a stream: may be larger than the memory
        for name in names(given):
            if given.dtype[name].base not in (np.uint8, np.float32):
                raise _wrong_type(f"{part} {name}", given.dtype[name].base)
            _check_finite(f"{part} {name}", given[name])
        return given
    found = {name: _images(f"{part} {name}", array) for name, array in given.items()}
    counts = {name: len(array) for name, array in found.items()}
    if len(set(counts.values())) > 1:
        raise DataError(f"the {part} samples differ in number: {counts}; each sample needs all inputs")
    return joined(found)


def _labelled(
    labels: Mapping[str, Given | None],
    images: Mapping[str, Samples],
    class_names: Sequence[str] | None,
    task: TaskName | None,
    known: Sequence[OutputLabels] = (),
) -> tuple[TaskName, dict[str, Samples], tuple[str, ...], tuple[OutputLabels, ...]]:
    """As ``labelled``, also for dictionaries of labels by output; ``known`` are the tasks of these, if known."""
    first = {part: parts(samples)[0] for part, samples in images.items()}
    several = {part: _by_output(each) for part, each in labels.items()}
    outputs = next(iter(several.values()))
    for part, each in several.items():
        if each.keys() != outputs.keys():
            raise DataError(
                f"{part} has labels for {' and '.join(each) or 'one output'}, train for "
                f"{' and '.join(outputs) or 'one output'}; each split needs the same ones"
            )
    if not outputs:
        if task == "several":
            raise DataError("the task several needs labels for each output: y_train.<output> and y_test.<output>")
        plain = {part: None if isinstance(each, Mapping) else each for part, each in labels.items()}
        return *labelled(plain, first, class_names, task), ()
    if task not in (None, "several", "custom"):
        raise DataError(f"there are labels for {' and '.join(outputs)}, so the task cannot be {task} alone")
    if class_names:
        raise DataError("class_names are for a single output; several have the numbers of their classes as names")
    found: dict[str, dict[str, RawArray]] = {part: {} for part in labels}
    described: list[OutputLabels] = []
    tasks = {each.name: each for each in known}
    for name in outputs:
        one = {part: each[name] for part, each in several.items()}
        about = tasks.get(name)
        wanted = "custom" if task == "custom" else None if about is None else about.task
        try:
            own, arrays, own_names = labelled(one, first, None if about is None else about.labels, wanted)
        except DataError as error:
            raise DataError(f"labels of {name}: {error}") from None
        described.append(OutputLabels(name=name, task=own, labels=own_names))
        for part, array in arrays.items():
            found[part][name] = array
    joint = {part: joined(arrays) for part, arrays in found.items()}
    if len(outputs) == 1:
        return described[0].task, joint, described[0].labels, ()
    return task or "several", joint, (), () if task == "custom" else tuple(described)


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
        raise _wrong_type(f"{part} images", images.dtype)
    with np.errstate(over="ignore", invalid="ignore"):  # values beyond float32 become infinite, which is checked below
        images = np.ascontiguousarray(images, dtype=np.float32)
    _check_finite(part, images)
    return images


def _wrong_type(what: str, dtype: Any) -> DataError:
    return DataError(
        f"{what} must be uint8 or float; got {dtype}; convert them: astype('uint8') for pixels of 0…255, which are "
        "scaled to the input range, astype('float32') for values that the model takes as they are"
    )


def _check_finite(part: str, images: Images) -> None:
    for start in range(0, len(images), _CHECKED):  # not all at once: they may be larger than the memory
        finite = np.isfinite(images[start : start + _CHECKED]).all(axis=tuple(range(1, images.ndim)))
        if not finite.all():
            raise DataError(
                f"{part} images must be finite float32 values; image {start + int(finite.argmin())} contains NaN, "
                "infinity or a value beyond float32 (|x| > 3.4e38); remove or repair it"
            )


def _by_output(labels: Given | None) -> Mapping[str, RawArray]:
    """Labels of several outputs by name; empty if there is one."""
    if labels is None or isinstance(labels, Mapping):
        return labels or {}
    return by_name(labels)


def _check_alike(train: Samples, part: str, images: Samples) -> None:
    if names(train) != names(images):
        raise DataError(
            f"train has the inputs {' and '.join(names(train)) or 'x_train'}, {part} has "
            f"{' and '.join(names(images)) or f'x_{part}'}; each split needs the same ones"
        )
    for one, other in zip(parts(train), parts(images), strict=True):
        _check_array_alike(one, part, other)


def _check_array_alike(train: Images, part: str, images: Images) -> None:
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


def _preprocessing(train_images: Samples, input_range: tuple[float, float]) -> Preprocessing:
    every = parts(train_images)
    if any(images.dtype == np.uint8 for images in every):
        low, high = map(float, input_range)
        return Preprocessing(scale=(high - low) / 255, offset=low, input_range=(low, high))
    low, high = min(float(images.min()) for images in every), max(float(images.max()) for images in every)
    if low == high:
        raise DataError(
            f"train images contain only the value {low}; there is nothing to learn; check how they were saved"
        )
    return Preprocessing(scale=1.0, offset=0.0, input_range=(low, high))


def _split(images: Samples, labels: Samples) -> Split:
    images = images.view()  # the caller's own array keeps its flags
    images.flags.writeable = False
    labels.flags.writeable = False
    return Split(images, labels)


def _content_hash(splits: Sequence[Split], class_names: tuple[str, ...]) -> str:
    arrays = [array for split in splits for array in (split.images, split.labels)]
    head = [[_type(array), array.shape] for array in arrays]
    digest = hashlib.sha256(json.dumps([head, class_names]).encode())
    for array in arrays:
        digest.update(array.astype(array.dtype.newbyteorder("<"), copy=False).data)
    return digest.hexdigest()


def _type(array: Samples) -> str:
    return array.dtype.name if array.dtype.names is None else str(array.dtype)


def _fits(own: Sequence[int], shape: Sequence[int | None]) -> bool:
    return len(own) == len(shape) and all(want in (None, got) for got, want in zip(own, shape, strict=True))
