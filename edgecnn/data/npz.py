"""Data sets in one ``.npz`` file."""

import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.lib.npyio import NpzFile

from edgecnn.data.dataset import DataSet, RawArray, make_dataset
from edgecnn.errors import DataError

_KEYS = ("x_train", "y_train", "x_test", "y_test")


def load_npz(path: Path, input_range: tuple[float, float]) -> DataSet:
    """Load ``x_train``, ``y_train``, ``x_test``, ``y_test`` and, where there, ``class_names``.

    Images are ``(n, h, w)`` or ``(n, h, w, c)``, uint8 or float; labels are integers ``(n,)`` or ``(n, 1)``;
    class names are a 1-D array of strings, one per label.

    Raises:
        DataError: the file is damaged, holds Python objects, lacks a key or is no usable data set.
    """
    arrays = read_arrays(path, _KEYS, optional=("class_names",))
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


def read_arrays(path: Path, keys: Sequence[str], optional: Sequence[str] = ()) -> dict[str, RawArray]:
    """The arrays called ``keys``, and those of ``optional`` that are there, of the ``.npz`` file at ``path``.

    Raises:
        DataError: the file is damaged, holds Python objects or lacks a key.
    """
    try:
        with path.open("rb") as file:  # numpy leaves a file that it opened itself open if the zip is damaged
            is_zip = zipfile.is_zipfile(file)
            file.seek(0)
            archive = np.load(file, allow_pickle=False) if is_zip else None
            if not isinstance(archive, NpzFile):  # an array with a zip behind it counts as a zip, too
                raise DataError(
                    f"{path} is not a .npz file (a zip of arrays) or is cut short; save it with numpy.savez"
                )
            return _arrays(path, archive, keys, optional)
    except ValueError as error:
        if "allow_pickle" in str(error):
            raise DataError(
                f"{path} holds Python objects (pickle), which are never loaded; save plain arrays"
            ) from error
        raise _damaged(path, error) from error
    except (OSError, EOFError, MemoryError, RuntimeError, zlib.error, zipfile.BadZipFile) as error:
        raise _damaged(path, error) from error


def _arrays(path: Path, archive: NpzFile, keys: Sequence[str], optional: Sequence[str]) -> dict[str, RawArray]:
    missing = [key for key in keys if key not in archive]
    if missing:
        raise DataError(
            f"{path} lacks {', '.join(missing)}; it has {', '.join(archive.files) or 'nothing'}; "
            f"save the arrays as {', '.join(keys)}"
        )
    arrays = {key: archive[key] for key in (*keys, *optional) if key in archive}
    for key, value in arrays.items():
        if not isinstance(value, np.ndarray):  # numpy hands out as bytes what does not start like an array
            raise DataError(f"{path}: {key} is not a numpy array; save the arrays with numpy.savez")
    return arrays


def _damaged(path: Path, error: Exception) -> DataError:
    reason = " ".join(str(error).split()) or type(error).__name__
    return DataError(f"cannot read {path}, it is damaged or too large: {reason}; save or copy it again")
