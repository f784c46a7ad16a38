"""Data sets as numpy arrays: MNIST and Fashion-MNIST, generated ones, .npz files, folders of images."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from edgecnn.data.dataset import DataSet, Images, Split, make_dataset
from edgecnn.data.demo import DEMOS, load_demo
from edgecnn.data.folder import load_folder
from edgecnn.data.idx import FASHION_MNIST, MNIST, IdxSet, load_idx
from edgecnn.data.npz import load_npz
from edgecnn.data.stream import spooled
from edgecnn.errors import ConfigError, DataError, UnknownNameError
from edgecnn.records import ModelName, Preprocessing, TaskName
from edgecnn.tasks import Metric

__all__ = ["BUILT_IN", "DATASETS", "DataSet", "Images", "Split", "as_data_set", "load", "load_as"]

DATASETS: dict[str, IdxSet] = {"mnist": MNIST, "fashion-mnist": FASHION_MNIST}
_DEMOS: dict[str, ModelName] = {f"demo-{model}": model for model in DEMOS}
BUILT_IN = (*DATASETS, *_DEMOS)
"""The names of all data sets that need no path."""


def as_data_set(data: DataSet | str | Path | Sequence[Any]) -> DataSet:
    """``data`` itself, or what ``load`` makes of it."""
    return data if isinstance(data, DataSet) else load(data)


def load_as(source: str, preprocessing: Preprocessing, task: TaskName) -> DataSet:
    """Load a data set with the preprocessing that a file has it from."""
    return load(source, preprocessing.input_range, task, resize=preprocessing.resize)


def load(
    source: str | Path | Sequence[Any],
    input_range: tuple[float, float] = (0.0, 1.0),
    task: Literal["auto", TaskName] = "auto",
    metric: Metric | str | None = None,
    class_names: Sequence[str] | None = None,
    resize: tuple[int, int] | None = None,
) -> DataSet:
    """Load a data set.

    Args:
        source: ``"mnist"``, ``"fashion-mnist"`` or ``"demo-<model>"`` (see ``load_demo``); the path of a ``.npz`` file
            with ``x_train``, ``y_train``, ``x_test``, ``y_test``, perhaps ``x_val``, ``y_val``, ``class_names``; the
            path of a folder with ``train/<class>/*.png`` and ``test/<class>/*.png``, with ``<class>/*.png``, or with
            ``train/images/*.png`` and ``train/masks/*.png`` (see ``load_folder``); or four arrays: ``x_train``,
            ``y_train``, ``x_test`` and ``y_test``, where labels may be ``None``; or two streams of batches, of training
            and of test samples, such as a tf.data.Dataset or a keras.utils.PyDataset: training data may be larger than
            the memory (see ``edgecnn.data.stream``). Several inputs or outputs are dictionaries of arrays, by the names
            that the model has for them; in a ``.npz`` file the keys are ``x_train.<input>`` and ``y_train.<output>``.
        task: what the labels mean; "auto" guesses it from them.
        metric: replaces the score of the task: a function of labels ``(n, …)`` and outputs, float32 ``(n, values)``, or
            its place such as "my_metrics:mean_precision". See ``edgecnn.tasks.Scoring``; several outputs are passed as
            a dictionary.
        class_names: of arrays, one per class or output.
        resize: height and width that the images of a folder are resized to; by default all must have one size.
        input_range: the model input for 0 and 255 of uint8 images. Float images are not scaled: their input range
            is that of the train images, whatever is given here.

    Samples are ``(n, …)``, uint8 or float; ``(n, h, w)`` are grey images. Labels by task:

    - classification: integers ``(n,)`` or ``(n, 1)``, or one-hot ``(n, classes)``.
    - multilabel: 0 or 1, ``(n, labels)``.
    - segmentation: integers ``(n, h, w)``, the class of each pixel.
    - regression: numbers ``(n,)`` or ``(n, …)``.
    - reconstruction: none (leave ``y_train`` and ``y_test`` out), or ``(n,)``: 1 for an anomaly, else 0.
    - custom: any numbers ``(n, …)``, or none, as ``metric`` takes them.
    - several: a dictionary by output, each as one of the above; the task of each output is guessed.

    Order of the classes: in a folder by name (code points); in a ``.npz`` file as in ``class_names``, without which
    label ``i`` is named ``str(i)``; in the built-in sets as published.

    Raises:
        UnknownNameError: neither a built-in data set nor a path.
        ConfigError: ``input_range`` is not two finite numbers, the lower one first, or ``metric`` is no function.
        DataError: the path does not exist, or the data cannot be downloaded, read or used; the message says what to do.
        MissingExtraError: the data is a folder and Pillow is not installed.
    """
    low, high = input_range
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ConfigError(
            f"input_range must be two finite numbers, lower one first, e.g. (0.0, 1.0); got {input_range}"
        )
    wanted = None if task == "auto" else task
    if isinstance(source, str | Path):
        return _load(str(source), input_range, wanted, resize).scored_by(metric)
    if len(source) == 2:
        source = [*spooled("train", source[0]), *spooled("test", source[1])]
    if len(source) != 4:
        raise DataError(f"data are four arrays, x_train, y_train, x_test and y_test, or two streams; got {len(source)}")
    x_train, y_train, x_test, y_test = map(_arrays, source)
    if x_train is None or x_test is None:
        raise DataError("x_train and x_test are needed; only labels may be None")
    data = make_dataset("the arrays", "arrays", (x_train, y_train), (x_test, y_test), class_names, input_range, wanted)
    return data.scored_by(metric)


def _arrays(given: Any) -> Any:
    """An array, or those of several inputs or outputs by name; None if there is none."""
    if isinstance(given, Mapping):
        return {str(name): np.asarray(array) for name, array in given.items()}
    return None if given is None else np.asarray(given)


def _load(
    source: str, input_range: tuple[float, float], wanted: TaskName | None, resize: tuple[int, int] | None
) -> DataSet:
    if resize is not None and source in BUILT_IN:
        raise ConfigError(f"--resize is for folders of images; {source} is none")
    if source in _DEMOS:
        return load_demo(_DEMOS[source], input_range)
    if source in DATASETS:
        if wanted not in (None, "classification"):
            raise ConfigError(f"{source} has labels for classification, not for {wanted}")
        return load_idx(DATASETS[source], input_range)
    path = Path(source)
    try:
        is_file, is_folder = path.is_file(), bool(source) and path.is_dir()
    except OSError as error:
        raise DataError(f"cannot access {source!r}: {error.strerror}; check the path and its permissions") from error
    if is_folder:
        return load_folder(path, input_range, wanted, resize)
    if resize is not None:
        raise ConfigError(f"--resize is for folders of images; {source} is none")
    if not is_file and (path.suffix or path.name != source):  # an extension or a separator means a path
        raise DataError(f"no data at {source}; check the path: a .npz file, or a folder of images")
    if not is_file:
        raise UnknownNameError("data set", source, [*BUILT_IN, "an existing .npz file", "an existing folder of images"])
    if path.suffix.lower() != ".npz":
        raise DataError(f"{path} is neither a .npz file nor a folder; save the arrays with numpy.savez")
    return load_npz(path, input_range, wanted)
