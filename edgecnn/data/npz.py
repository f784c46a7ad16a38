"""Data sets in one ``.npz`` file."""

from pathlib import Path

from edgecnn.arrays import read_npz
from edgecnn.data.dataset import DataSet, make_dataset
from edgecnn.errors import DataError

_KEYS = ("x_train", "y_train", "x_test", "y_test")


def load_npz(path: Path, input_range: tuple[float, float]) -> DataSet:
    """Load ``x_train``, ``y_train``, ``x_test``, ``y_test`` and, where there, ``class_names``.

    Images are ``(n, h, w)`` or ``(n, h, w, c)``, uint8 or float; labels are integers ``(n,)`` or ``(n, 1)``;
    class names are a 1-D array of strings, one per label.

    Raises:
        DataError: the file is damaged, holds Python objects, lacks a key or is no usable data set.
    """
    arrays = read_npz(path, _KEYS, optional=("class_names",))
    names = arrays.get("class_names")
    if names is not None and (names.ndim != 1 or names.dtype.kind != "U"):
        raise DataError(
            f"{path}: class_names must be a 1-D array of strings; got {names.dtype} {names.shape}; "
            "save numpy.array(list_of_names)"
        )
    return make_dataset(
        path,
        path.resolve().stem,
        (arrays["x_train"], arrays["y_train"]),
        (arrays["x_test"], arrays["y_test"]),
        None if names is None else names.tolist(),
        input_range,
    )
