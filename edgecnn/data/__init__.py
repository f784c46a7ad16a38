"""Data sets as numpy arrays: MNIST and Fashion-MNIST, .npz files, folders of images."""

import math
from pathlib import Path

from edgecnn.data.dataset import DataSet, Images, Split
from edgecnn.data.folder import load_folder
from edgecnn.data.idx import FASHION_MNIST, MNIST, IdxSet, load_idx
from edgecnn.data.npz import load_npz
from edgecnn.errors import ConfigError, DataError, UnknownNameError

__all__ = ["DATASETS", "DataSet", "Images", "Split", "load"]

DATASETS: dict[str, IdxSet] = {"mnist": MNIST, "fashion-mnist": FASHION_MNIST}


def load(source: str, input_range: tuple[float, float] = (0.0, 1.0)) -> DataSet:
    """Load a data set.

    Args:
        source: ``"mnist"``, ``"fashion-mnist"``, the path of a ``.npz`` file (keys ``x_train``, ``y_train``,
            ``x_test``, ``y_test`` and optionally ``class_names``), or the path of a folder with
            ``train/<class>/*.png`` and ``test/<class>/*.png`` (also ``.jpg`` and ``.jpeg``).
        input_range: what 0 and 255 of uint8 images become at the model's input. Float images are taken as
            they are: their input range is that of the train images, whatever is given here.

    Order of the classes: in a folder by name (code points); in a ``.npz`` file that of ``class_names``,
    without which label ``i`` is called ``str(i)``; in the built-in sets that of their published labels.

    Raises:
        UnknownNameError: neither a built-in data set nor a path.
        ConfigError: ``input_range`` is not two finite numbers, the lower one first.
        DataError: there is nothing at the path, the data cannot be had or read, or are not usable; the message
            says what to do.
        MissingExtraError: a folder is read without Pillow.
    """
    low, high = input_range
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ConfigError(
            f"input_range must be two finite numbers, lower one first, e.g. (0.0, 1.0); got {input_range}"
        )
    if source in DATASETS:
        return load_idx(DATASETS[source], input_range)
    path = Path(source)
    try:
        is_file, is_folder = path.is_file(), bool(source) and path.is_dir()
    except OSError as error:
        raise DataError(f"cannot look at {source!r}: {error.strerror}; check the path and its permissions") from error
    if is_folder:
        return load_folder(path, input_range)
    if not is_file and (path.suffix or path.name != source):  # with an ending or a separator it means a path
        raise DataError(f"no data at {source}; check the path: a .npz file, or a folder of images")
    if not is_file:
        raise UnknownNameError("data set", source, [*DATASETS, "an existing .npz file", "an existing folder of images"])
    if path.suffix.lower() != ".npz":
        raise DataError(f"{path} is neither a .npz file nor a folder; save the arrays with numpy.savez")
    return load_npz(path, input_range)
