"""Data sets in one ``.npz`` file."""

from pathlib import Path
from typing import Any

from edgecnn.arrays import names_in, read_npz
from edgecnn.data.dataset import DataSet, make_dataset
from edgecnn.errors import DataError
from edgecnn.records import TaskName

_KEYS = ("x_train", "x_test")
_OPTIONAL = ("y_train", "y_test", "x_val", "y_val", "class_names")
_OF_ONE = tuple(f"{key}." for key in (*_KEYS, *_OPTIONAL[:-1]))


def load_npz(path: Path, input_range: tuple[float, float], task: TaskName | None) -> DataSet:
    """Load ``x_train``, ``y_train``, ``x_test``, ``y_test`` and, if present, ``x_val``, ``y_val``, ``class_names``.

    Samples and labels are as in ``edgecnn.data.load``; class names are a 1-D array of strings, one per class or output.
    Several inputs are called ``x_train.<input>``, several outputs ``y_train.<output>``.

    Raises:
        DataError: the file is damaged, contains Python objects, lacks a key or is not a usable data set.
    """
    several = [name for name in names_in(path) if name.startswith(_OF_ONE) and not name.endswith(".")]
    needed = [key for key in _KEYS if not any(name.startswith(f"{key}.") for name in several)]
    arrays = read_npz(path, needed, optional=[*_OPTIONAL, *several])
    names = arrays.get("class_names")
    if names is not None and (names.ndim != 1 or names.dtype.kind != "U"):
        raise DataError(
            f"{path}: class_names must be a 1-D array of strings; got {names.dtype} {names.shape}; "
            "save numpy.array(list_of_names)"
        )

    def found(key: str) -> Any:
        """An array, or those of several inputs or outputs by name; None if there is none."""
        each = {name.removeprefix(f"{key}."): arrays[name] for name in several if name.startswith(f"{key}.")}
        return each or arrays.get(key)

    return make_dataset(
        path,
        path.resolve().stem,
        (found("x_train"), found("y_train")),
        (found("x_test"), found("y_test")),
        None if names is None else names.tolist(),
        input_range,
        task,
        val=(found("x_val"), found("y_val")) if found("x_val") is not None else None,
    )
