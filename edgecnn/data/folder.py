"""Data sets in a folder of images, one sub-folder per class."""

import logging
import os
import struct
import warnings
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgecnn.arrays import check_memory
from edgecnn.data.dataset import DataSet, make_dataset
from edgecnn.errors import DataError, one_line
from edgecnn.files import open_file
from edgecnn.optional import require
from edgecnn.progress import progress

_SUFFIXES = (".png", ".jpg", ".jpeg")
_FORMATS = ("PNG", "JPEG")
# Pillow's mode -> the mode it is read in; modes with more than 8 bits per channel are left out on purpose
_MODES = {"1": "L", "L": "L", "LA": "L", "P": "RGB", "PA": "RGB", "RGB": "RGB", "RGBA": "RGB", "CMYK": "RGB"}

# What Pillow raises for damaged files, by its plugins' code as it happens to meet the damage.
_DAMAGED = (OSError, EOFError, SyntaxError, ValueError, TypeError, LookupError, OverflowError, struct.error, zlib.error)

logger = logging.getLogger("edgecnn")


def load_folder(root: Path, input_range: tuple[float, float]) -> DataSet:
    """Load ``train/<class>/*.png`` and ``test/<class>/*.png``; ``.jpg`` and ``.jpeg`` too, in any case.

    Classes are the folders of ``train``, sorted by name (code points), as are the images of a class. Hidden
    files are passed over. Grey images become one channel, all others RGB; transparency is dropped, 16-bit
    RGB is cut to 8 bits, 16-bit grey is refused. EXIF orientation is not applied. All images must have
    one size.

    Raises:
        DataError: a folder is missing or empty, an image is damaged, unusable or of another size than the
            first, or a symbolic link leads out of the folder.
        MissingExtraError: Pillow is not installed.
    """
    root = root.resolve()
    try:
        train, test = _list(root, "train"), _list(root, "test")
    except OSError as error:
        raise DataError(f"cannot list {error.filename}: {error.strerror}; check its permissions") from error
    label_of = {name: label for label, name in enumerate(sorted({name for _, name in train}))}
    unseen = [name for _, name in test if name not in label_of]
    if unseen:
        raise DataError(
            f"{root}: class {unseen[0]!r} is in test but not in train; add images of it to train or remove it"
        )
    images = _read(root, [path for path, _ in (*train, *test)])
    labels = np.array([label_of[name] for _, name in (*train, *test)], np.int64)
    count = len(train)
    return make_dataset(
        root,
        root.name,
        (images[:count], labels[:count]),
        (images[count:], labels[count:]),
        tuple(label_of),
        input_range,
    )


def _list(root: Path, part: str) -> list[tuple[Path, str]]:
    """The images of a split with their class names, in order."""
    folder = root / part
    if not folder.is_dir():
        raise DataError(f"{root} has no folder {part!r}; wanted {part}/<class>/*.png, .jpg or .jpeg")
    classes = [path for path in _visible(root, folder) if path.is_dir()]
    if not classes:
        raise DataError(f"{folder} has no class folders; wanted {part}/<class>/*.png, .jpg or .jpeg")
    return [(image, path.name) for path in classes for image in _images(root, path)]


def _images(root: Path, folder: Path) -> list[Path]:
    files = _visible(root, folder)
    images = [path for path in files if path.suffix.lower() in _SUFFIXES]
    if not images:
        raise DataError(f"{folder} has no .png, .jpg or .jpeg images; add some or remove the folder")
    if len(images) < len(files):
        logger.warning("%s: passed over %d that are not .png, .jpg or .jpeg", folder, len(files) - len(images))
    return images


def _visible(root: Path, folder: Path) -> list[Path]:
    """What is in ``folder``, hidden names left out, sorted; nothing of it leads out of ``root``."""
    paths = sorted(path for path in (folder, *folder.iterdir()) if not path.name.startswith("."))
    for path in paths:
        if not Path(os.path.realpath(path)).is_relative_to(root):
            raise DataError(f"{path} is a symbolic link that leads out of {root}; copy its target there instead")
    return [path for path in paths if path != folder]


def _read(root: Path, paths: Sequence[Path]) -> npt.NDArray[np.uint8]:
    """All images, ``(n, h, w, c)``."""
    first = _decode(paths[0])
    check_memory(root, len(paths) * first.size)
    images = np.empty((len(paths), *first.shape), np.uint8)
    with progress(f"reading {root.name}", total=len(paths)) as advance:
        for index, path in enumerate(paths):
            image = _decode(path)
            if image.shape != first.shape:
                raise DataError(
                    f"all images must have one size; {paths[0]} is {_size(first)} and {path} is "
                    f"{_size(image)}; resize or convert them"
                )
            images[index] = image
            advance()
    return images


def _decode(path: Path) -> npt.NDArray[np.uint8]:
    """One image, ``(h, w, 1)`` if it is grey, else ``(h, w, 3)``."""
    pillow = require("PIL.Image")
    too_large = (pillow.DecompressionBombError, pillow.DecompressionBombWarning)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pillow.DecompressionBombWarning)
            with open_file(path) as file:
                with pillow.open(file, formats=_FORMATS) as image:
                    image.verify()  # checksums of a PNG, which loading alone does not look at; leaves it unusable
                with pillow.open(file, formats=_FORMATS) as image:
                    return _pixels(path, image)
    except (*_DAMAGED, *too_large) as error:
        raise DataError(f"cannot read the image {path}: {one_line(error)}; save it again or remove it") from error


def _pixels(path: Path, image: Any) -> npt.NDArray[np.uint8]:
    if image.mode not in _MODES:
        raise DataError(f"{path} has Pillow mode {image.mode!r}; save it as 8-bit grey or RGB")
    if image.mode in ("P", "PA"):
        image = image.convert("RGBA")  # keeps Pillow from warning about transparency in the palette
    pixels = np.asarray(image.convert(_MODES[image.mode]), np.uint8)
    return pixels.reshape(image.height, image.width, -1)


def _size(image: npt.NDArray[np.uint8]) -> str:
    height, width, channels = image.shape
    return f"{width}x{height} {'grey' if channels == 1 else 'RGB'}"
