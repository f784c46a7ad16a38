"""Model files on disk and what is known of them: ``<file>`` and its sidecar ``<file>.json``."""

import contextlib
from pathlib import Path

from edgecnn import onnx_verifier
from edgecnn.errors import ArtifactError, RecordError
from edgecnn.files import need_model, read_bytes, sha256_file
from edgecnn.models import architecture_of
from edgecnn.records import Artifact, Companion, Provenance, from_metadata, read_record
from edgecnn.runtimes import open_session
from edgecnn.runtimes.c99 import header_of, read_generated
from edgecnn.tflite.graph import read_graph
from edgecnn.worker import isolated


def sidecar(path: Path) -> Path:
    """Where the record of the model file at ``path`` stands."""
    return path.with_name(f"{path.name}.json")


def load(path: Path, *, runtime: str | None = None, batch: int = 1) -> Artifact:
    """What is known of the model file at ``path``: its sidecar, or the file itself where there is none (``describe``).

    Raises:
        ArtifactError: no such file, or its hash, or that of a companion, is not the one in its sidecar.
        RecordError: the sidecar is damaged.
        SessionError: there is no sidecar and the runtime refuses the file.
    """
    need_model(path)
    beside = sidecar(path)
    if not beside.is_file():
        return describe(path, runtime=runtime, batch=batch)
    try:
        artifact = read_record(beside, Artifact)
    except RecordError as error:
        raise RecordError(f"{error}; export {path.name} again, or remove the sidecar") from error
    _check_hash(path, artifact.sha256, beside)
    for companion in artifact.companions:
        if Path(companion.file).name != companion.file:
            raise ArtifactError(f"{beside} names {companion.file!r}, which is not beside it")
        _check_hash(path.with_name(companion.file), companion.sha256, beside)
    check_sound(path)  # whoever made the file may have made its sidecar too
    return artifact


def _check_hash(path: Path, wanted: str, beside: Path) -> None:
    if not path.is_file():
        raise ArtifactError(f"{path} is missing, which its sidecar {beside.name} names; export it again")
    found = sha256_file(path)
    if found != wanted:
        raise ArtifactError(
            f"{path} has changed since it was exported: its SHA-256 is {found[:12]}…, its sidecar {beside.name} says "
            f"{wanted[:12]}…; export it again, or remove the sidecar to take the file as it is"
        )


def check_sound(path: Path) -> None:
    """Check, before a runtime opens the file at ``path``, what can be told without one.

    Raises:
        ArtifactError: a .tflite that ``read_graph`` refuses, or an .onnx that ``onnx_verifier`` does.
    """
    if path.suffix == ".tflite" and path.is_file():
        read_graph(read_bytes(path), path.name)
    if path.suffix == ".onnx" and path.is_file():
        onnx_verifier.verify(read_bytes(path), path.name)


def check_said(path: Path, artifact: Artifact) -> None:
    """Check that the model at ``path`` takes and gives what its record says, which anyone can edit.

    Raises:
        ArtifactError: it does not.
        SessionError: as ``describe``.
    """
    own = describe(path)
    for kind, said, found in (("input", artifact.input, own.input), ("output", artifact.output, own.output)):
        if (said.shape[1:], said.dtype, said.quantization) != (found.shape[1:], found.dtype, found.quantization):
            raise ArtifactError(
                f"{path} has an {kind} {found.dtype} {found.shape}, its sidecar {sidecar(path).name} says {said.dtype} "
                f"{said.shape}, or other scales; export it again, or remove the sidecar to take the file as it is"
            )


def describe(path: Path, *, runtime: str | None = None, batch: int = 1) -> Artifact:
    """The record of a model file, read from the file itself through its runtime, or the one called ``runtime``.

    Anybody may have made the file: it is opened in a process of its own.

    Raises:
        ArtifactError: no such file, or of no known format.
        SessionError: the runtime refuses the file, crashes, or takes too long or too much memory.
    """
    return isolated(describe_here, path, runtime, batch, doing=f"opening {path.name}")


def describe_here(path: Path, runtime: str | None = None, batch: int = 1) -> Artifact:
    """As ``describe``, in this process: for files that were made in it, which saves the start of another.

    Raises:
        ArtifactError, SessionError: as ``describe``.
    """
    check_sound(path)
    with contextlib.closing(
        open_session(path, runtime=runtime, threads=0, batch=batch)
    ) as session:  # as the runtime likes
        stored = session.provenance()
        where = f"metadata 'edgecnn' in {path.name}"
        provenance = None if stored is None else from_metadata(stored, Provenance, where)
        generated = read_generated(path) if path.suffix == ".c" else None
        header = header_of(path)
        return Artifact(
            file=path.name,
            format=path.suffix[1:],
            scheme=provenance.scheme if provenance else "float32" if path.suffix == ".keras" else "unknown",
            input=session.input,
            output=session.output,
            sha256=sha256_file(path),
            size_bytes=path.stat().st_size,
            provenance=provenance,
            companions=(Companion(file=header.name, sha256=sha256_file(header)),) if generated else (),
            memory=generated.memory if generated else None,
            architecture=architecture_of(path) if path.suffix == ".keras" else None,
        )
