"""Data sets in a folder of images, one sub-folder per class."""

import logging
import os
import struct
import warnings
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgecnn.arrays import check_memory
from edgecnn.data.dataset import DataSet, make_dataset
from edgecnn.data.labels import RawArray
from edgecnn.errors import DataError, one_line
from edgecnn.files import open_file
from edgecnn.optional import require
from edgecnn.progress import progress
from edgecnn.records import TaskName

_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
_FORMATS = ("PNG", "JPEG", "WEBP")
_KINDS = ".png, .jpg, .jpeg or .webp"
_TEST_NAMES = ("test", "val", "valid", "validation")
_TEST_SHARE = 0.2
# Pillow's mode -> mode to convert to; modes with more than 8 bits per channel are refused
_MODES = {"1": "L", "L": "L", "LA": "L", "P": "RGB", "PA": "RGB", "RGB": "RGB", "RGBA": "RGB", "CMYK": "RGB"}

# Exceptions that Pillow's plugins raise for damaged files.
_DAMAGED = (OSError, EOFError, SyntaxError, ValueError, TypeError, LookupError, OverflowError, struct.error, zlib.error)

logger = logging.getLogger("edgecnn")


def load_folder(
    root: Path,
    input_range: tuple[float, float],
    task: TaskName | None = None,
    resize: tuple[int, int] | None = None,
) -> DataSet:
    """Load ``train/<class>/*.png`` and ``test/<class>/*.png``; ``.jpg``, ``.jpeg`` and ``.webp`` too, in any case.

    In a folder with ``train/images`` and ``train/masks``, the grey mask with the name of an image, without the ending,
    has the class of each of its pixels: 0, 1, …; the task is segmentation.

    Instead of ``test``, the folder may be called ``val``, ``valid`` or ``validation``; beside ``test``, that folder has
    the images to watch the training with. In a folder ``<class>/*.png``
    without ``train``, every fifth image of a class, drawn at random but always the same, is a test image.

    Classes are the folders of ``train``, sorted by name (code points), as are the images of a class. Hidden files are
    ignored. Grey images become one channel, all others RGB; transparency is dropped, 16-bit RGB is reduced to 8 bits,
    16-bit grey is refused. EXIF orientation is not applied. If some images are grey and others are not, all become RGB.
    All are resized to ``resize``, height and width, with Pillow's bilinear filter, masks with the nearest pixel;
    without it, they must have the same size.

    Raises:
        DataError: a folder is missing or empty, an image is damaged, unusable or of another size than the
            first, or a symbolic link points outside of the folder.
        MissingExtraError: Pillow is not installed.
    """
    root = root.resolve()
    masked = (root / "train" / "masks").is_dir()
    if task not in (None, "segmentation" if masked else "classification"):
        has = "masks for segmentation" if masked else "classes for classification"
        raise DataError(f"{root} has {has}, not labels for {task}; save the arrays as a .npz file")
    if masked:
        return _load_masked(root, input_range, resize)
    try:
        parts = _splits(root)
    except OSError as error:
        raise DataError(f"cannot list {error.filename}: {error.strerror}; check its permissions") from error
    label_of = {name: label for label, name in enumerate(sorted({name for _, name in parts["train"]}))}
    for part, found in parts.items():
        unseen = [name for _, name in found if name not in label_of]
        if unseen:
            raise DataError(
                f"{root}: class {unseen[0]!r} is in {part} but not in train; add images of it to train or remove it"
            )
    images = _read(root, [path for found in parts.values() for path, _ in found], resize)
    labels = np.array([label_of[name] for found in parts.values() for _, name in found], np.int64)
    split = _cut(parts, images, labels)
    return make_dataset(
        root, root.name, split["train"], split["test"], tuple(label_of), input_range, val=split.get("val"),
        resize=resize,
    )  # fmt: skip


def _load_masked(root: Path, input_range: tuple[float, float], resize: tuple[int, int] | None) -> DataSet:
    """Load images and masks for segmentation."""
    try:
        parts = {part: _pairs(root, folder) for part, folder in _folders(root).items()}
    except OSError as error:
        raise DataError(f"cannot list {error.filename}: {error.strerror}; check its permissions") from error
    both = [pair for found in parts.values() for pair in found]
    images = _read(root, [image for image, _ in both], resize)
    masks = _read(root, [mask for _, mask in both], resize, nearest=True)
    if masks.shape[3] != 1:
        raise DataError(f"{both[0][1]} is a colour image; masks are grey images, with a class per pixel: 0, 1, …")
    split = _cut(parts, images, masks)
    return make_dataset(
        root, root.name, split["train"], split["test"], None, input_range, "segmentation", val=split.get("val"),
        resize=resize,
    )  # fmt: skip


def _cut(
    parts: Mapping[str, Sequence[Any]], images: RawArray, labels: RawArray
) -> dict[str, tuple[RawArray, RawArray]]:
    """Images and labels of each part, from those of all parts after each other."""
    found, start = {}, 0
    for part, files in parts.items():
        end = start + len(files)
        found[part] = images[start:end], labels[start:end]
        start = end
    return found


def _folders(root: Path) -> dict[str, Path]:
    """The folders of "train", "test" and, if there are two more, "val"; the error says which one is missing."""
    found = [root / name for name in _TEST_NAMES if (root / name).is_dir()]
    if found[2:]:
        logger.warning("%s: %s is not used", root, " and ".join(path.name for path in found[2:]))
    test, *others = found or [root / "test"]
    return {"train": root / "train", "test": test, **({"val": others[0]} if others else {})}


def _pairs(root: Path, part: Path) -> list[tuple[Path, Path]]:
    """The images of a split with their masks."""
    for kind in ("images", "masks"):
        if not (part / kind).is_dir():
            raise DataError(f"{part} has no folder {kind!r}; expected {part.name}/images and {part.name}/masks")
    masks = {path.stem: path for path in _images(root, part / "masks")}
    images = _images(root, part / "images")
    without = [path for path in images if path.stem not in masks]
    if without:
        raise DataError(f"{without[0]} has no mask {part.name}/masks/{without[0].stem}.png; add it or remove the image")
    return [(path, masks[path.stem]) for path in images]


def _splits(root: Path) -> dict[str, list[tuple[Path, str]]]:
    """The images of "train", "test" and perhaps "val", with their class names."""
    if (root / "train").is_dir():
        return {part: _list(root, folder.name) for part, folder in _folders(root).items()}
    classes = _classes(root, root)
    if (root / "test").is_dir() or not classes:
        return {"train": _list(root, "train")}  # the error says what is missing
    draw = np.random.default_rng(0)
    train: list[tuple[Path, str]] = []
    test: list[tuple[Path, str]] = []
    for folder in classes:
        images = _images(root, folder)
        count = min(max(1, round(_TEST_SHARE * len(images))), len(images) - 1)
        drawn = set(draw.permutation(len(images))[:count].tolist())
        for number, image in enumerate(images):
            (test if number in drawn else train).append((image, folder.name))
    logger.warning(
        "%s has no folder 'train': %d of its %d images, drawn at random from each class, are the test images",
        root, len(test), len(train) + len(test),
    )  # fmt: skip
    return {"train": train, "test": test}


def _list(root: Path, part: str) -> list[tuple[Path, str]]:
    """The images of a split with their class names, in order."""
    folder = root / part
    if not folder.is_dir():
        raise DataError(f"{root} has no folder {part!r}; expected {part}/<class>/*{_KINDS}")
    classes = _classes(root, folder)
    if not classes:
        raise DataError(f"{folder} has no class folders; expected {part}/<class>/*{_KINDS}")
    return [(image, path.name) for path in classes for image in _images(root, path)]


def _classes(root: Path, folder: Path) -> list[Path]:
    return [path for path in _visible(root, folder) if path.is_dir()]


def _images(root: Path, folder: Path) -> list[Path]:
    files = _visible(root, folder)
    images = [path for path in files if path.suffix.lower() in _SUFFIXES]
    if not images:
        raise DataError(f"{folder} has no {_KINDS} images; add some or remove the folder")
    if len(images) < len(files):
        logger.warning("%s: ignored %d files that are not %s", folder, len(files) - len(images), _KINDS)
    return images


def _visible(root: Path, folder: Path) -> list[Path]:
    """The sorted content of ``folder`` without hidden names; DataError if a link points outside of ``root``."""
    paths = sorted(path for path in (folder, *folder.iterdir()) if not path.name.startswith("."))
    for path in paths:
        if not Path(os.path.realpath(path)).is_relative_to(root):
            raise DataError(f"{path} is a symbolic link that points outside of {root}; copy its target there instead")
    return [path for path in paths if path != folder]


def _read(
    root: Path, paths: Sequence[Path], resize: tuple[int, int] | None, *, nearest: bool = False
) -> npt.NDArray[np.uint8]:
    """All images, ``(n, h, w, c)``."""
    first = _sized(_decode(paths[0]), resize, nearest)
    check_memory(root, len(paths) * first.size)
    images = np.empty((len(paths), *first.shape), np.uint8)
    with progress(f"reading {root.name}", total=len(paths)) as advance:
        for index, path in enumerate(paths):
            image = _sized(_decode(path), resize, nearest)
            if image.shape[:2] != first.shape[:2]:
                raise DataError(
                    f"all images must have the same size; {paths[0]} is {_size(first)} and {path} is "
                    f"{_size(image)}; resize them, for instance all to 96 x 96 with --resize 96,96"
                )
            if image.shape[2] > images.shape[3]:  # the first in colour
                check_memory(root, 3 * images.size)
                images = np.repeat(images, 3, axis=3)
            images[index] = image
            advance()
    return images


def _sized(image: npt.NDArray[np.uint8], resize: tuple[int, int] | None, nearest: bool) -> npt.NDArray[np.uint8]:
    """``image`` with the height and width ``resize``."""
    if resize is None or image.shape[:2] == resize:
        return image
    pillow = require("PIL.Image")
    whole = pillow.fromarray(image[..., 0] if image.shape[2] == 1 else image)
    kind = pillow.Resampling.NEAREST if nearest else pillow.Resampling.BILINEAR
    return np.asarray(whole.resize(resize[::-1], kind), np.uint8).reshape(*resize, -1)


def _decode(path: Path) -> npt.NDArray[np.uint8]:
    """One image, ``(h, w, 1)`` if it is grey, else ``(h, w, 3)``."""
    pillow = require("PIL.Image")
    too_large = (pillow.DecompressionBombError, pillow.DecompressionBombWarning)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pillow.DecompressionBombWarning)
            with open_file(path) as file:
                with pillow.open(file, formats=_FORMATS) as image:
                    image.verify()  # checks PNG checksums, which loading does not; the image must be reopened
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
