"""Model files on disk and what is known of them: ``<file>`` and its sidecar ``<file>.json``."""

import contextlib
from pathlib import Path

from edgecnn.errors import ArtifactError, RecordError
from edgecnn.files import sha256_file
from edgecnn.models import architecture_of
from edgecnn.records import Artifact, Companion, Provenance, from_metadata, read_record
from edgecnn.runtimes import Session, open_session
from edgecnn.runtimes.c99 import header_of, read_generated


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
    if not path.is_file():
        raise ArtifactError(f"no model file at {path}; check the path, or export one with: edgecnn export")
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


def check_said(path: Path, artifact: Artifact, session: Session) -> None:
    """Check that the model at ``path`` takes and gives in ``session`` what its record says, which anyone can edit.

    Raises:
        ArtifactError: it does not.
    """
    for kind, said, found in (
        ("input", artifact.input, session.input),
        ("output", artifact.output, session.output),
    ):
        if (said.shape[1:], said.dtype, said.quantization) != (found.shape[1:], found.dtype, found.quantization):
            raise ArtifactError(
                f"{path} has an {kind} {found.dtype} {found.shape}, its sidecar {sidecar(path).name} says {said.dtype} "
                f"{said.shape}, or other scales; export it again, or remove the sidecar to take the file as it is"
            )


def describe(path: Path, *, runtime: str | None = None, batch: int = 1) -> Artifact:
    """The record of a model file, read from the file itself through its runtime, or the one called ``runtime``.

    Raises:
        ArtifactError: no such file, or of no known format.
        SessionError: the runtime refuses the file.
    """
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
