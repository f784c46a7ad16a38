"""Bundles: what is in them, that they are the same each time, and that no hostile one is unpacked."""

import io
import os
import random
import shutil
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path

import click
import msgspec
import numpy as np
import pytest
from conftest import FinishedRun

from edgecnn import bundle, cli
from edgecnn.bundle import make_bundle, opened, with_verification
from edgecnn.errors import ArtifactError, BundleError, ConfigError, OutputError, RecordError
from edgecnn.files import sha256_bytes
from edgecnn.measure.files import bench_files
from edgecnn.records import Bundle, BundledFile, Report, Result, from_json, read_record, to_json

pytestmark = pytest.mark.slow

MODELS = [f"artifacts/mnist_cnn-{scheme}.{format}" for format in ("tflite", "onnx") for scheme in ("float32", "int8")]
IMAGES = 100

Members = dict[str, bytes]


@pytest.fixture(scope="module")
def made(finished_run: FinishedRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundle") / "bundle.zip"
    make_bundle(finished_run.folder, path, data=str(finished_run.data_file), images=IMAGES)
    return path


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which temporary files and folders are made, empty."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


def members_of(path: Path) -> Members:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write(path: Path, members: Members) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name.replace("\0", "~")), data)  # a ZipInfo ends names at a NUL
    for name in members:
        if "\0" in name:
            path.write_bytes(path.read_bytes().replace(name.replace("\0", "~").encode(), name.encode()))
    return path


def declared(members: Members, **changes: object) -> Members:
    """The members with a manifest that is right about them, but for ``changes``."""
    manifest = from_json(members["manifest.json"], Bundle, "manifest.json")
    files = tuple(
        BundledFile(name=name, sha256=sha256_bytes(data), size_bytes=len(data))
        for name, data in members.items()
        if name != "manifest.json"
    )
    return {**members, "manifest.json": to_json(manifest.replace(**{"files": files, **changes}))}


def refuse(path: Path, temporary: Path, match: str) -> None:
    with pytest.raises(BundleError, match=match) as caught, opened(path):
        pass
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(str(path)) or f"cannot read the bundle {path}" in str(caught.value)
    assert list(temporary.iterdir()) == []


# ---------------------------------------------------------------------------------------------------------- making


def test_what_is_in_a_bundle(made: Path, finished_run: FinishedRun) -> None:
    members = members_of(made)
    sidecars = [f"{name}.json" for name in MODELS]
    assert sorted(members) == sorted(["manifest.json", "test.npz", *MODELS, *sidecars])
    manifest = from_json(members["manifest.json"], Bundle, "manifest.json")
    assert {file.name: (file.sha256, file.size_bytes) for file in manifest.files} == {
        name: (sha256_bytes(data), len(data)) for name, data in members.items() if name != "manifest.json"
    }
    for name in [*MODELS, *sidecars]:
        assert members[name] == (finished_run.folder / name).read_bytes()
    data = finished_run.data
    assert (manifest.model, manifest.test.data, manifest.test.data_sha256) == ("mnist_cnn", "digits", data.sha256)
    assert (manifest.test.images, manifest.test.of) == (IMAGES, 500)
    with np.load(io.BytesIO(members["test.npz"]), allow_pickle=False) as arrays:
        images, labels = arrays["images"], arrays["labels"]
    assert images.dtype == np.uint8
    known = {image.tobytes(): label for image, label in zip(data.test.images, data.test.labels, strict=True)}
    assert [known[image.tobytes()] for image in images] == labels.tolist()
    assert len({image.tobytes() for image in images}) == IMAGES


def test_the_same_run_gives_the_same_bytes(made: Path, finished_run: FinishedRun, tmp_path: Path) -> None:
    moved = shutil.copytree(finished_run.folder, tmp_path / "elsewhere")
    for path in moved.rglob("*"):
        os.utime(path, (0, 0))
    again = tmp_path / "again.zip"
    make_bundle(moved, again, data=str(finished_run.data_file), images=IMAGES)
    assert again.read_bytes() == made.read_bytes()
    with zipfile.ZipFile(again) as archive:
        assert {member.date_time for member in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_all_images_if_there_are_no_more(finished_run: FinishedRun, tmp_path: Path) -> None:
    out = tmp_path / "bundle.zip"
    assert make_bundle(finished_run.folder, out, data=str(finished_run.data_file)).test.images == 500
    with opened(out) as (_, data):
        assert np.array_equal(data.test.images, finished_run.data.test.images)
        assert np.array_equal(data.test.labels, finished_run.data.test.labels)


def test_float_images_stay_float(made: Path, tmp_path: Path) -> None:
    members, buffer = members_of(made), io.BytesIO()
    images = np.random.default_rng(0).random((3, 28, 28, 1), np.float32)
    np.savez(buffer, images=images, labels=np.arange(3))
    manifest = from_json(members["manifest.json"], Bundle, "manifest.json")
    test = manifest.test.replace(images=3, dtype="float32")
    with opened(write(tmp_path / "b.zip", declared({**members, "test.npz": buffer.getvalue()}, test=test))) as (
        _,
        data,
    ):
        assert data.test.images.dtype == np.float32
        assert np.array_equal(data.test.images, images)


def test_files_of_an_earlier_run_stay_at_home(finished_run: FinishedRun, tmp_path: Path) -> None:
    run = shutil.copytree(finished_run.folder, tmp_path / "run")
    for ending in ("", ".json"):
        shutil.copy(run / f"{MODELS[0]}{ending}", run / f"artifacts/mnist_cnn-float16.tflite{ending}")
    (run / "artifacts" / "notes.txt").write_text("not for others")
    manifest = make_bundle(run, tmp_path / "b.zip", data=str(finished_run.data_file), images=IMAGES)
    assert [file.name for file in manifest.files if file.name.endswith((".tflite", ".onnx"))] == MODELS


def test_a_run_that_cannot_be_bundled(finished_run: FinishedRun, tmp_path: Path, made: Path) -> None:
    out, data = tmp_path / "b.zip", str(finished_run.data_file)
    with pytest.raises(RecordError, match="cannot read"):
        make_bundle(tmp_path, out, data=data)
    with pytest.raises(ConfigError, match="your own data set, digits; give its path with --data"):
        make_bundle(finished_run.folder, out)
    with pytest.raises(BundleError, match="the run used digits, but mnist is another data set"):
        make_bundle(finished_run.folder, out, data="mnist")
    with pytest.raises(ConfigError, match="at least one test image"):
        make_bundle(finished_run.folder, out, data=data, images=0)
    run = shutil.copytree(finished_run.folder, tmp_path / "run")
    report = from_json((run / "report.json").read_bytes(), Report, "report.json")
    (run / "report.json").write_bytes(to_json(report.replace(parities=())))
    with pytest.raises(BundleError, match=r"made no \.tflite or \.onnx file"):
        make_bundle(run, out, data=data)
    parity = report.parities[0].replace(artifact="../../secret.onnx")
    (run / "report.json").write_bytes(to_json(report.replace(parities=(parity,))))
    with pytest.raises(BundleError, match="has an invalid artifact name"):
        make_bundle(run, out, data=data)
    parity = report.parities[0].replace(artifact_sha256="0" * 64)
    (run / "report.json").write_bytes(to_json(report.replace(parities=(parity,))))
    with pytest.raises(ArtifactError, match="has changed since the run"):
        make_bundle(run, out, data=data)
    (run / "report.json").write_bytes(to_json(report))
    (run / MODELS[1]).write_bytes(b"changed")
    with pytest.raises(ArtifactError, match="has changed since it was exported"):
        make_bundle(run, out, data=data)
    assert not out.exists()


# ------------------------------------------------------------------------------------------------------- measuring


def test_a_bundle_is_measured_with_its_own_images(made: Path, finished_run: FinishedRun, temporary: Path) -> None:
    with opened(made) as (paths, data):
        assert [f"artifacts/{path.name}" for path in paths] == MODELS
        report = bench_files(paths, data=data, seconds=0.05, processes=1)
    assert list(temporary.iterdir()) == []
    assert (report.data, report.test_images) == ("digits", IMAGES)
    assert report.data_sha256 != finished_run.data.sha256  # these images are not all of that
    rows = [row for row in report.rows if isinstance(row, Result)]
    assert len(rows) == len(MODELS)
    for row in rows:
        assert row.accuracy is not None
        assert row.accuracy.total == IMAGES
        assert row.accuracy.value > 0.5
    verified = with_verification(report, made)
    hashes = {row.artifact.sha256 for row in rows}
    assert verified.title.endswith("on digits, verified where the bundle was made")
    of_the_run = read_record(finished_run.folder / "report.json", Report).parities
    assert verified.parities == tuple(one for one in of_the_run if one.artifact_sha256 in hashes)
    assert hashes == {parity.artifact_sha256 for parity in verified.parities}
    changed = report.replace(rows=(rows[0].replace(artifact=rows[0].artifact.replace(sha256="0" * 64)),))
    assert with_verification(changed, made).parities == ()  # of another file it says nothing


def test_wrong_labels_show_in_the_accuracy(made: Path, tmp_path: Path) -> None:
    members, buffer = members_of(made), io.BytesIO()
    with np.load(io.BytesIO(members["test.npz"])) as arrays:
        np.savez(buffer, images=arrays["images"], labels=(arrays["labels"] + 1) % 10)
    path = write(tmp_path / "b.zip", declared({**members, "test.npz": buffer.getvalue()}))
    with opened(path) as (paths, data):
        (row,) = bench_files(paths[:1], data=data, seconds=0.05, processes=1).rows
    assert isinstance(row, Result)
    assert row.accuracy is not None
    assert row.accuracy.value < 0.3


def test_the_block_that_fails_leaves_nothing(made: Path, temporary: Path) -> None:
    def work() -> None:
        with opened(made):
            assert len(list(temporary.rglob("*.tflite"))) == 2
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work()
    assert list(temporary.iterdir()) == []


# ------------------------------------------------------------------------------------------------- hostile bundles

OUTSIDE = (
    "../evil.tflite",
    "artifacts/../../evil.tflite",
    "artifacts/..",
    "/etc/evil.tflite",
    "//host/evil.tflite",
    "C:/evil.tflite",
    "artifacts\\..\\evil.tflite",
    "artifacts/deeper/evil.tflite",
    "artifacts/.hidden.tflite",
    "artifacts/",
    "artifacts/evil.keras",
    "artifacts/evil.so",
    "artifacts/ü.tflite",
    "evil.tflite",
    "test.npz/evil.tflite",
    "artifacts/a.onnx\0",
)


@pytest.mark.parametrize("name", OUTSIDE)
@pytest.mark.parametrize("known", [True, False])
def test_no_path_out_of_the_folder(made: Path, tmp_path: Path, temporary: Path, name: str, known: bool) -> None:
    members = {**members_of(made), name: b"evil"}
    path = write(tmp_path / "b.zip", declared(members) if known else members)
    refuse(path, temporary, "is not allowed in a bundle|more than once")
    assert not list(tmp_path.rglob("evil*"))


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFDIR, stat.S_IFCHR])
def test_no_links_or_other_things(made: Path, tmp_path: Path, temporary: Path, kind: int) -> None:
    path = tmp_path / "b.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in declared({**members_of(made), MODELS[0]: b"/etc/passwd"}).items():
            member = zipfile.ZipInfo(name)
            member.external_attr = ((kind if name == MODELS[0] else stat.S_IFREG) | 0o644) << 16
            archive.writestr(member, data)
    refuse(path, temporary, "is a link or another special file")


@pytest.mark.parametrize("name", [MODELS[0], "manifest.json"])
def test_no_bombs(made: Path, tmp_path: Path, temporary: Path, name: str) -> None:
    path = tmp_path / "b.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for other, data in declared({**members_of(made), MODELS[0]: bytes(50_000_000)}).items():
            archive.writestr(other, data, zipfile.ZIP_DEFLATED if other == name else zipfile.ZIP_STORED)
    refuse(path, temporary, "is compressed; members of a bundle never are")


def resized(content: bytes, name: str, size: int) -> bytes:
    """A zip whose directory claims that the stored member ``name`` has ``size`` bytes."""
    encoded = name.encode()
    at = content.rindex(encoded) - 46
    assert content[at : at + 4] == b"PK\1\2"
    claim = size.to_bytes(4, "little")
    return content[: at + 20] + claim + claim + content[at + 28 :]


def test_no_claims_beyond_the_file(made: Path, tmp_path: Path, temporary: Path) -> None:
    path = tmp_path / "b.zip"
    content = made.read_bytes()
    path.write_bytes(resized(content, "test.npz", 2**31))
    refuse(path, temporary, "its members claim 2148.* bytes, the file has")
    path.write_bytes(resized(content, "test.npz", 10))
    refuse(path, temporary, "test.npz has 10 bytes, its manifest says")


def test_no_files_that_share_their_bytes(made: Path, tmp_path: Path, temporary: Path) -> None:
    """Many members over the same bytes would unpack to many times the size of the zip."""
    members = declared({**members_of(made), "test.npz": bytes(1_000_000)})
    path = write(tmp_path / "b.zip", members)
    with zipfile.ZipFile(path) as archive:
        (shared,) = [member for member in archive.infolist() if member.filename == "test.npz"]
    with zipfile.ZipFile(path, "a") as archive:
        for number in range(50):
            copy = zipfile.ZipInfo(f"artifacts/m{number}.onnx")
            copy.header_offset, copy.CRC = shared.header_offset, shared.CRC
            copy.file_size = copy.compress_size = shared.file_size
            archive.filelist.append(copy)
        archive._didModify = True  # type: ignore[attr-defined]
    refuse(path, temporary, "its members claim .* bytes, the file has|Overlapped")


@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
@pytest.mark.parametrize("twice", [MODELS[0], "manifest.json", MODELS[0].upper().replace("ARTIFACTS", "artifacts")])
def test_no_duplicate_names(made: Path, tmp_path: Path, temporary: Path, twice: str) -> None:
    path = tmp_path / "b.zip"
    path.write_bytes(made.read_bytes())
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(zipfile.ZipInfo(twice), b"another")
    refuse(path, temporary, "is in it more than once|is not allowed in a bundle")


def test_no_duplicate_names_in_other_case(made: Path, tmp_path: Path, temporary: Path) -> None:
    members = {**members_of(made), MODELS[0].replace("mnist", "MNIST"): b"another"}
    refuse(write(tmp_path / "b.zip", declared(members)), temporary, "is in it more than once")


def test_no_files_beside_the_manifest(made: Path, tmp_path: Path, temporary: Path) -> None:
    path = write(tmp_path / "b.zip", {**members_of(made), "artifacts/more.onnx": b"more"})
    refuse(path, temporary, r"'artifacts/more\.onnx' is not in its manifest")


@pytest.mark.parametrize("name", [MODELS[2], "test.npz"])
def test_no_missing_files(made: Path, tmp_path: Path, temporary: Path, name: str) -> None:
    members = members_of(made)
    del members[name]
    refuse(write(tmp_path / "b.zip", members), temporary, f"'{name}' is missing")
    refuse(write(tmp_path / "b.zip", {**members, "manifest.json": b""}), temporary, "not a valid Bundle")


def test_no_bundle_without_test_images(made: Path, tmp_path: Path, temporary: Path) -> None:
    members = members_of(made)
    del members["test.npz"]
    refuse(write(tmp_path / "b.zip", declared(members)), temporary, r"does not list test\.npz")


@pytest.mark.parametrize("name", [MODELS[0], f"{MODELS[0]}.json", "test.npz"])
def test_no_wrong_hashes(made: Path, tmp_path: Path, temporary: Path, name: str) -> None:
    members = members_of(made)
    members[name] = bytes([members[name][0] ^ 1]) + members[name][1:]
    refuse(write(tmp_path / "b.zip", members), temporary, f"the SHA-256 of {name} is not the one")


def test_no_encrypted_members(made: Path, tmp_path: Path, temporary: Path) -> None:
    path = tmp_path / "b.zip"
    content = bytearray(made.read_bytes())
    at = content.rindex(b"test.npz") - 46
    content[at + 8] |= 1
    path.write_bytes(content)
    refuse(path, temporary, "'test.npz' is encrypted")


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_no_truncated_zip(made: Path, tmp_path: Path, temporary: Path, share: float) -> None:
    path, content = tmp_path / "b.zip", made.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    refuse(path, temporary, "not a valid bundle: File is not a zip file")


@pytest.mark.parametrize("text", [b"", b"[]", b"{}", b"\xff\xfe", b'{"schema_version": 1}', b"[" * 100_000])
def test_no_manifest_that_is_none(made: Path, tmp_path: Path, temporary: Path, text: bytes) -> None:
    path = write(tmp_path / "b.zip", {**members_of(made), "manifest.json": text})
    refuse(path, temporary, r"manifest\.json is not a valid Bundle file")


def test_no_other_manifest(made: Path, tmp_path: Path, temporary: Path) -> None:
    members = members_of(made)
    path = tmp_path / "b.zip"
    newer = members["manifest.json"].replace(b'"schema_version": 2', b'"schema_version": 3')
    refuse(write(path, {**members, "manifest.json": newer}), temporary, "schema version 3, this edgecnn reads 2")
    files = from_json(members["manifest.json"], Bundle, "manifest.json").files
    refuse(write(path, declared(members, files=(*files, files[0]))), temporary, "lists a file more than once")
    without = {name: data for name, data in members.items() if name != "manifest.json"}
    refuse(write(path, without), temporary, r"it has no manifest\.json")
    extra = msgspec.json.decode(members["manifest.json"]) | {"run": "rm"}
    refuse(write(path, {**members, "manifest.json": msgspec.json.encode(extra)}), temporary, "unknown field")


def test_names_in_a_manifest_are_shown_escaped(made: Path, tmp_path: Path) -> None:
    members = members_of(made)
    described = from_json(members["manifest.json"], Bundle, "manifest.json").test
    raw = msgspec.json.decode(members["manifest.json"])
    raw["test"]["class_names"][0] = "a\x1b[2J"
    path = write(tmp_path / "b.zip", {**members, "manifest.json": msgspec.json.encode(raw)})
    with opened(path) as (_, data):
        assert data.class_names == (r"a\x1b[2J", *described.class_names[1:])


def _pickled(images: object, labels: object) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, images=np.array([{"a": 1}], dtype=object), labels=labels)
    return buffer.getvalue()


def _compressed(images: object, labels: object) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, images=np.zeros((100_000_000,), np.uint8), labels=labels)
    return buffer.getvalue()


def _huge_header(images: object, labels: object) -> bytes:
    buffer, array = io.BytesIO(), io.BytesIO()
    np.lib.format.write_array_header_1_0(array, {"descr": "|u1", "fortran_order": False, "shape": (1 << 46, 28, 28, 1)})
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("images.npy", array.getvalue())
        archive.writestr("labels.npy", b"")
    return buffer.getvalue()


def _other(**changes: object) -> Callable[[object, object], bytes]:
    def made_of(images: object, labels: object) -> bytes:
        buffer = io.BytesIO()
        np.savez(buffer, **{"images": images, "labels": labels, **changes})
        return buffer.getvalue()

    return made_of


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (_pickled, "Python objects"),
        (_compressed, "is compressed"),
        (_huge_header, r"is declared as uint8 \(70368744177664, 28, 28, 1\), but has 0 bytes"),
        (lambda images, labels: b"", "not a zip file"),
        (lambda images, labels: _other()(images, labels)[:-100], "not a zip file"),
        (_other(images=np.zeros((IMAGES, 28, 28), np.uint8)), "in its manifest uint8"),
        (_other(images=np.zeros((IMAGES, 28, 28, 1), np.float64)), "in its manifest uint8"),
        (_other(images=np.zeros((7, 28, 28, 1), np.uint8)), "in its manifest uint8"),
        (_other(labels=np.full(IMAGES, 10)), "test labels must be 0 to 9"),
        (_other(labels=np.full(IMAGES, -1)), "test labels must be 0 to 9"),
        (_other(labels=np.zeros(3, int)), "each image needs one label"),
    ],
)
def test_no_unsound_test_images(
    made: Path, tmp_path: Path, temporary: Path, content: Callable[[object, object], bytes], match: str
) -> None:
    members = members_of(made)
    with np.load(io.BytesIO(members["test.npz"])) as arrays:
        members["test.npz"] = content(arrays["images"], arrays["labels"])
    refuse(write(tmp_path / "b.zip", declared(members)), temporary, match)


def test_no_such_file(tmp_path: Path, temporary: Path) -> None:
    refuse(tmp_path / "none.zip", temporary, "No such file")
    refuse(tmp_path, temporary, "Is a directory")


def test_a_full_disk_is_not_the_bundles_fault(made: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, data: bytes) -> None:
        raise OutputError(f"cannot write {path}: No space left on device")

    monkeypatch.setattr(bundle, "write_atomic", full)
    with pytest.raises(OutputError, match="No space left"), opened(made):
        pass
    assert list(temporary.iterdir()) == []


def test_any_damage_is_either_harmless_or_refused(made: Path, tmp_path: Path, temporary: Path) -> None:
    chance, content, path = random.Random(0), made.read_bytes(), tmp_path / "b.zip"
    # Most bytes are weights, whose damage a hash shows: every second blow falls on the directory and the headers.
    directory = content.index(b"PK\1\2")
    reasons = []
    for blow in range(300):
        damaged = bytearray(content)
        for _ in range(chance.randint(1, 4)):
            at = chance.randrange(directory if blow % 2 else 0, len(content))
            damaged[at] = chance.randrange(256)
        if blow % 5 == 0:
            del damaged[chance.randrange(len(damaged)) :]
        path.write_bytes(damaged)
        try:
            with opened(path) as (paths, _):
                assert len(paths) == len(MODELS)
        except BundleError as error:
            reasons.append(str(error))
        assert list(temporary.iterdir()) == []
    assert len(reasons) > 200
    assert not any("\n" in reason for reason in reasons)


# ----------------------------------------------------------------------------------------------------- the command


def test_the_default_number_of_images_is_the_commands() -> None:
    (images,) = [option for option in cli.cli.commands["bundle"].params if option.name == "images"]
    assert isinstance(images, click.Option)
    assert images.default == bundle.DEFAULT_IMAGES
