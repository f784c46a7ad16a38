"""Bundles: the artifacts of a run and some of its test images in one file, for measuring on a device.

A bundle is a zip of stored (not compressed) members: ``manifest.json``, a :class:`~edgecnn.records.Bundle` that lists
all others with their SHA-256; ``artifacts/``, the model files with their sidecars; and ``test.npz``, with ``images``
``(n, h, w, c)`` as in the data set and ``labels`` ``(n,)``, or ``images.<input>`` and ``labels.<output>`` if there are
several. Without compression, a bundle cannot unpack to more than its own size.
"""

import io
import os
import re
import stat
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np

from edgecnn import artifacts
from edgecnn.arrays import BAD_ZIP, read_npz
from edgecnn.data import BUILT_IN, DataSet, load_as
from edgecnn.data.dataset import make_test_set
from edgecnn.errors import ArtifactError, BundleError, ConfigError, DataError, RecordError, one_line
from edgecnn.files import make_folder, open_file, read_bytes, sha256_bytes, write_atomic
from edgecnn.records import (
    SCHEMA_VERSION,
    Artifact,
    Bundle,
    BundledFile,
    BundledImages,
    BundledInput,
    Report,
    Result,
    from_json,
    to_json,
)
from edgecnn.report import read as read_report
from edgecnn.samples import Samples, by_name, names, parts, shapes

DEFAULT_IMAGES = 1000

_MANIFEST = "manifest.json"
_TEST = "test.npz"
_MODELS = (".tflite", ".onnx")
# Names allowed beside the manifest: none of them can point outside the folder that a bundle is unpacked to.
_NAME = re.compile(r"test\.npz|artifacts/[A-Za-z0-9_][A-Za-z0-9_.-]*\.(?:tflite|onnx)(?:\.json)?")
_DATE = (1980, 1, 1, 0, 0, 0)  # the earliest date of a zip; a fixed date makes the bytes reproducible
# Exceptions for damaged input; an OSError has its own message.
_DAMAGED = (*(one for one in BAD_ZIP if one is not OSError), MemoryError)


def make_bundle(run: Path, out: Path, *, data: str | None = None, images: int = DEFAULT_IMAGES) -> Bundle:
    """Write the artifacts of the finished run in the folder ``run`` and ``images`` of its test images to ``out``.

    The same run gives the same bytes. The images are a random sample with a fixed seed, at most all test images.
    ``data`` is the source of the run's data set (see ``edgecnn.data.load``); it is needed unless the set is built in.

    Raises:
        ConfigError: ``images`` is not positive, or ``data`` is missing.
        RecordError: the report of ``run`` is missing or damaged.
        BundleError: the run has nothing to measure, or ``data`` is another data set.
        ArtifactError: an artifact is missing, or has changed since the run.
        DataError: the data set cannot be loaded.
        OutputError: ``out`` cannot be written.
    """
    if images < 1:
        raise ConfigError(f"a bundle needs at least one test image, got {images}")
    report = read_report(run / "report.json")
    content: dict[str, bytes] = {}
    found: list[Artifact] = []
    for parity in {parity.artifact: parity for parity in report.parities}.values():
        name = f"artifacts/{parity.artifact}"
        path = run / name
        if path.suffix not in _MODELS:
            continue
        if not _NAME.fullmatch(name):
            raise BundleError(
                f"{run / 'report.json'} has an invalid artifact name: {parity.artifact!r}; repeat the run"
            )
        artifact = artifacts.load(path)
        if artifact.sha256 != parity.artifact_sha256:
            raise ArtifactError(f"{path} has changed since the run: its SHA-256 is not that in the report; run again")
        found.append(artifact)
        content[name] = read_bytes(path)
        content[artifacts.sidecar(Path(name)).as_posix()] = to_json(artifact)
    if not found:
        raise BundleError(f"the run in {run} made no .tflite or .onnx file that could be verified; see its report")
    loaded = _data_of(run, report, found[0], data)
    test, content[_TEST] = _draw(loaded, images)
    provenance = found[0].provenance
    assert provenance is not None  # see _data_of
    bundle = Bundle(
        schema_version=SCHEMA_VERSION,
        model=provenance.model,
        model_sha256=provenance.model_sha256,
        test=test,
        files=tuple(
            BundledFile(name=name, sha256=sha256_bytes(whole), size_bytes=len(whole)) for name, whole in content.items()
        ),
        parities=tuple(one for one in report.parities if one.artifact_sha256 in {each.sha256 for each in found}),
    )
    make_folder(out.parent)
    write_atomic(out, _zipped({_MANIFEST: to_json(bundle), **content}))
    return bundle


@contextmanager
def opened(path: Path) -> Iterator[tuple[tuple[Path, ...], DataSet]]:
    """Unpack the bundle at ``path`` while the block runs; yields its model files and its test images.

    The files are in a temporary folder, with their sidecars. The data set has no training images, and its SHA-256 is
    that of these test images.

    Raises:
        BundleError: the file is missing, or not a valid bundle; nothing of it is left on disk.
        OutputError: the disk is full.
    """
    with TemporaryDirectory(prefix="edgecnn-bundle-") as folder:
        bundle = _unpack(path, Path(folder))
        models = [file.name for file in bundle.files if file.name.endswith(_MODELS)]
        yield tuple(Path(folder) / name for name in models), _test_set(path, Path(folder) / _TEST, bundle.test)


def with_verification(report: Report, path: Path) -> Report:
    """``report`` on the files of the bundle at ``path`` with the verifications of these files in the run.

    Raises:
        BundleError: the file is missing, or not a valid bundle.
    """
    with _archive(path) as archive:
        bundle, _ = _manifest(archive)
    measured = {row.artifact.sha256 for row in report.rows if isinstance(row, Result)}
    return report.replace(
        title=f"{bundle.model} on {bundle.test.data}, verified where the bundle was made",
        parities=tuple(one for one in bundle.parities if one.artifact_sha256 in measured),
    )


def _data_of(run: Path, report: Report, artifact: Artifact, source: str | None) -> DataSet:
    if artifact.provenance is None or report.data is None:
        raise BundleError(f"{run} is not the folder of a run: its artifacts have no record of their data set")
    if source is None and report.data not in BUILT_IN:
        raise ConfigError(f"the run used your own data set, {report.data}; give its path with --data")
    loaded = load_as(source or report.data, artifact.provenance.preprocessing, report.task)
    if loaded.sha256 != report.data_sha256:
        raise BundleError(
            f"the run used {report.data}, but {source or report.data} is another data set (its SHA-256 differs); "
            "check --data"
        )
    return loaded


def _draw(data: DataSet, count: int) -> tuple[BundledImages, bytes]:
    """A random sample of test images as a ``.npz`` file; random because image folders are sorted by class."""
    test = data.test
    drawn = np.sort(np.random.default_rng(0).permutation(len(test.labels))[:count])
    samples, inputs = test.images[drawn], names(test.images)
    buffer = io.BytesIO()
    np.savez(buffer, **_named("images", samples), **_named("labels", test.labels[drawn]))  # type: ignore[arg-type]
    dtypes: list[Literal["uint8", "float32"]] = [
        "uint8" if part.dtype == np.uint8 else "float32" for part in parts(samples)
    ]
    described = BundledImages(
        data=data.name,
        data_sha256=data.sha256,
        images=len(drawn),
        of=len(test.labels),
        shape=() if inputs else data.input_shape,
        dtype=dtypes[0],
        inputs=tuple(
            BundledInput(name=name, shape=shape, dtype=dtype)
            for name, shape, dtype in zip(inputs, shapes(samples), dtypes, strict=bool(inputs))
        ),
        outputs=data.outputs,
        class_names=data.class_names,
        preprocessing=data.preprocessing,
        task=data.task,
    )
    return described, buffer.getvalue()


def _named(key: str, samples: Samples) -> dict[str, Samples]:
    """Arrays for a .npz file: ``key``, or ``<key>.<name>`` for each of several inputs or outputs."""
    return {f"{key}.{name}": part for name, part in by_name(samples).items()} or {key: samples}


def _zipped(content: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in content.items():
            member = zipfile.ZipInfo(name, _DATE)
            member.create_system = 3  # always Unix, for reproducible bytes
            member.external_attr = (stat.S_IFREG | 0o644) << 16
            archive.writestr(member, data)
    return buffer.getvalue()


def _unpack(path: Path, folder: Path) -> Bundle:
    """Check the bundle at ``path`` and unpack it into the empty ``folder``."""
    with _archive(path) as archive:
        bundle, members = _manifest(archive)
        for file in bundle.files:
            _extract(archive, members[file.name], file, folder)
    return bundle


@contextmanager
def _archive(path: Path) -> Iterator[zipfile.ZipFile]:
    """The zip at ``path``; what is wrong with it in the block is a BundleError that names it."""
    try:
        with open_file(path) as stream, zipfile.ZipFile(stream) as archive:
            yield archive
    except (BundleError, RecordError, *_DAMAGED) as error:
        raise BundleError(f"{path} is not a valid bundle: {one_line(error)}; make it with: edgecnn bundle") from error
    except OSError as error:
        raise BundleError(f"cannot read the bundle {path}: {error.strerror or error}") from error


def _manifest(archive: zipfile.ZipFile) -> tuple[Bundle, dict[str, zipfile.ZipInfo]]:
    """The manifest of a bundle and its other members by name, checked against each other."""
    assert archive.fp is not None
    members = _checked(archive.infolist(), os.fstat(archive.fp.fileno()).st_size)
    manifest = members.pop(_MANIFEST, None)
    if manifest is None:
        raise BundleError(f"it has no {_MANIFEST}")
    bundle = from_json(archive.read(manifest), Bundle, _MANIFEST)
    _compare(bundle, members)
    return bundle, members


def _checked(members: Sequence[zipfile.ZipInfo], size: int) -> dict[str, zipfile.ZipInfo]:
    """The members by name; each must be a regular, stored file with an allowed and unique name."""
    found: dict[str, zipfile.ZipInfo] = {}
    for member in members:
        name, kind = member.filename, stat.S_IFMT(member.external_attr >> 16)
        shown = ascii(member.orig_filename)
        if member.orig_filename != name or not (name == _MANIFEST or _NAME.fullmatch(name)):
            raise BundleError(f"the name {shown} is not allowed in a bundle")
        if name.lower() in (other.lower() for other in found):
            raise BundleError(f"{shown} is in it more than once")
        if kind not in (0, stat.S_IFREG):
            raise BundleError(f"{shown} is a link or another special file")
        if member.flag_bits & 1:
            raise BundleError(f"{shown} is encrypted")
        if member.compress_type != zipfile.ZIP_STORED or member.compress_size != member.file_size:
            raise BundleError(f"{shown} is compressed; members of a bundle never are")
        found[name] = member
    total = sum(member.file_size for member in members)
    if total > size:
        raise BundleError(f"its members claim {total} bytes, the file has {size}")
    return found


def _compare(bundle: Bundle, members: dict[str, zipfile.ZipInfo]) -> None:
    """Check the manifest against the members."""
    names = [file.name for file in bundle.files]
    if len(set(names)) != len(names):
        raise BundleError("its manifest lists a file more than once")
    if _TEST not in names:
        raise BundleError(f"its manifest does not list {_TEST}")
    for name in sorted(set(names) ^ set(members)):
        raise BundleError(f"{name!a} is {'not in its manifest' if name in members else 'missing'}")
    for file in bundle.files:
        size = members[file.name].file_size
        if size != file.size_bytes:
            raise BundleError(f"{file.name} has {size} bytes, its manifest says {file.size_bytes}")


def _extract(archive: zipfile.ZipFile, member: zipfile.ZipInfo, file: BundledFile, folder: Path) -> None:
    data = archive.read(member)
    if sha256_bytes(data) != file.sha256:
        raise BundleError(f"the SHA-256 of {file.name} is not the one in its manifest")
    target = folder / file.name
    make_folder(target.parent)
    write_atomic(target, data)


def _test_set(path: Path, file: Path, described: BundledImages) -> DataSet:
    """The test images of the bundle at ``path``, unpacked to ``file``."""
    try:
        size = file.stat().st_size
        with zipfile.ZipFile(file) as archive:
            if any(member.compress_type or member.file_size > size for member in archive.infolist()):
                raise DataError(f"{_TEST} is compressed; that of a bundle never is")
        every = described.inputs or (BundledInput(name="", shape=described.shape, dtype=described.dtype),)
        inputs = {".".join(filter(None, ("images", each.name))): each for each in every}
        labels = [f"labels.{each.name}" for each in described.outputs] or ["labels"]
        arrays = read_npz(file, [*inputs, *labels])
        for key, each in inputs.items():
            images, wanted = arrays[key], ((described.images, *each.shape), each.dtype)
            if (images.shape, images.dtype.name) != wanted:
                raise DataError(f"the {key} are {images.dtype} {images.shape}, in its manifest {wanted[1]} {wanted[0]}")
        return make_test_set(
            _TEST,
            described.data,
            (_together(arrays, [*inputs]), _together(arrays, labels)),
            described.class_names,
            described.preprocessing,
            described.task,
            described.outputs,
        )
    except (DataError, *_DAMAGED) as error:
        reason = one_line(error).replace(str(file), _TEST)
        raise BundleError(f"{path} is not a valid bundle: {reason}; make it with: edgecnn bundle") from error


def _together(arrays: Mapping[str, Samples], keys: Sequence[str]) -> Any:
    """One array, or several by the name of their input or output."""
    found = {key.partition(".")[2]: arrays[key] for key in keys}
    return found[""] if [*found] == [""] else found
