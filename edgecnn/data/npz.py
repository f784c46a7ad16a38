"""Data sets in one ``.npz`` file."""

from pathlib import Path

from edgecnn.arrays import read_npz
from edgecnn.data.dataset import DataSet, make_dataset
from edgecnn.errors import DataError
from edgecnn.records import TaskName

_KEYS = ("x_train", "x_test")
_OPTIONAL = ("y_train", "y_test", "x_val", "y_val", "class_names")


def load_npz(path: Path, input_range: tuple[float, float], task: TaskName | None) -> DataSet:
    """Load ``x_train``, ``y_train``, ``x_test``, ``y_test`` and, if present, ``x_val``, ``y_val``, ``class_names``.

    Samples and labels are as in ``edgecnn.data.load``; class names are a 1-D array of strings, one per class or output.

    Raises:
        DataError: the file is damaged, contains Python objects, lacks a key or is not a usable data set.
    """
    arrays = read_npz(path, _KEYS, optional=_OPTIONAL)
    names = arrays.get("class_names")
    if names is not None and (names.ndim != 1 or names.dtype.kind != "U"):
        raise DataError(
            f"{path}: class_names must be a 1-D array of strings; got {names.dtype} {names.shape}; "
            "save numpy.array(list_of_names)"
        )
    return make_dataset(
        path,
        path.resolve().stem,
        (arrays["x_train"], arrays.get("y_train")),
        (arrays["x_test"], arrays.get("y_test")),
        None if names is None else names.tolist(),
        input_range,
        task,
        val=(arrays["x_val"], arrays.get("y_val")) if "x_val" in arrays else None,
    )
