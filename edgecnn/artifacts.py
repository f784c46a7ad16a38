"""Model files on disk and their metadata: ``<file>`` and its sidecar ``<file>.json``."""

import contextlib
from pathlib import Path

from edgecnn import onnx_verifier
from edgecnn.errors import ArtifactError, RecordError
from edgecnn.files import need_model, read_bytes, sha256_file
from edgecnn.models import architecture_of
from edgecnn.records import Artifact, Companion, Provenance, from_metadata, read_record
from edgecnn.runtimes import open_session, runtime_for
from edgecnn.runtimes.c99 import header_of, read_generated
from edgecnn.tflite.graph import read_graph
from edgecnn.worker import isolated


def sidecar(path: Path) -> Path:
    """The path of the sidecar, the metadata of the model file at ``path``."""
    return path.with_name(f"{path.name}.json")


def load(path: Path | str, *, runtime: str | None = None, batch: int = 1) -> Artifact:
    """The metadata of the model file at ``path``: from its sidecar, else from the file itself (``describe``).

    Raises:
        ArtifactError: the file or a companion is missing, or its hash is not the one in the sidecar.
        RecordError: the sidecar is damaged.
        SessionError: there is no sidecar and the runtime refuses the file.
    """
    path = Path(path)
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
            raise ArtifactError(
                f"{beside} names the companion {companion.file!r}, which must be a file name without a folder; "
                f"export {path.name} again"
            )
        _check_hash(path.with_name(companion.file), companion.sha256, beside)
    check_sound(path)  # the hash proves nothing: an attacker can write the sidecar too
    return artifact


def _check_hash(path: Path, wanted: str, beside: Path) -> None:
    if not path.is_file():
        raise ArtifactError(f"{path} is missing, but listed in the sidecar {beside.name}; export it again")
    found = sha256_file(path)
    if found != wanted:
        raise ArtifactError(
            f"{path} has changed since it was exported: its SHA-256 is {found[:12]}…, its sidecar {beside.name} has "
            f"{wanted[:12]}…; export it again, or remove the sidecar to use the file as it is"
        )


def check_sound(path: Path) -> None:
    """Check the structure of the file at ``path`` before a runtime opens it.

    Raises:
        ArtifactError: ``read_graph`` refuses the .tflite file, or ``onnx_verifier`` the .onnx file.
    """
    if path.suffix == ".tflite" and path.is_file():
        read_graph(read_bytes(path), path.name)
    if path.suffix == ".onnx" and path.is_file():
        onnx_verifier.verify(read_bytes(path), path.name)


def check_metadata(path: Path, artifact: Artifact) -> None:
    """Check that input and output of the model at ``path`` match its record, since a sidecar can be edited.

    Raises:
        ArtifactError: they do not.
        SessionError: as ``describe``.
    """
    own = describe(path)
    if (len(own.inputs), len(own.outputs)) != (len(artifact.inputs), len(artifact.outputs)):
        raise ArtifactError(
            f"{path} has {len(own.inputs)} inputs and {len(own.outputs)} outputs, its sidecar {sidecar(path).name} has "
            f"{len(artifact.inputs)} and {len(artifact.outputs)}; export it again, or remove the sidecar"
        )
    pairs = [("input", *pair) for pair in zip(artifact.inputs, own.inputs, strict=True)]
    pairs += [("output", *pair) for pair in zip(artifact.outputs, own.outputs, strict=True)]
    for kind, expected, actual in pairs:
        if (expected.shape[1:], expected.dtype, expected.quantization) != (
            actual.shape[1:],
            actual.dtype,
            actual.quantization,
        ):
            raise ArtifactError(
                f"{path} has an {kind} {actual.dtype} {actual.shape}, its sidecar {sidecar(path).name} has "
                f"{expected.dtype} {expected.shape}, or the scales differ; export it again, or remove the sidecar to "
                "use the file as it is"
            )


def describe(path: Path, *, runtime: str | None = None, batch: int = 1) -> Artifact:
    """The record of a model file, read from the file itself by its default runtime or the one called ``runtime``.

    The file may be untrusted, so it is opened in a separate process.

    Raises:
        ArtifactError: the file is missing, or its format is unknown.
        SessionError: the runtime refuses the file, crashes, or takes too long or too much memory.
    """
    return isolated(describe_here, path, runtime, batch, doing=f"opening {path.name}")


def describe_here(path: Path, runtime: str | None = None, batch: int = 1) -> Artifact:
    """As ``describe``, in this process: faster, for files that this process has written.

    Raises:
        ArtifactError, SessionError: as ``describe``.
    """
    check_sound(path)
    with contextlib.closing(open_session(path, runtime=runtime, threads=0, batch=batch)) as session:
        stored = session.provenance()
        where = f"metadata 'edgecnn' in {path.name}"
        provenance = None if stored is None else from_metadata(stored, Provenance, where)
        generated = read_generated(path) if path.suffix == ".c" else None
        header = header_of(path)
        format = runtime_for(path, runtime).format
        return Artifact(
            file=path.name,
            format=format,
            scheme=provenance.scheme if provenance else "float32" if format == "keras" else "unknown",
            input=session.inputs[0],
            output=session.outputs[0],
            more_inputs=session.inputs[1:],
            more_outputs=session.outputs[1:],
            sha256=sha256_file(path),
            size_bytes=path.stat().st_size,
            provenance=provenance,
            companions=(Companion(file=header.name, sha256=sha256_file(header)),) if generated else (),
            memory=generated.memory if generated else None,
            architecture=architecture_of(path) if format == "keras" else None,
        )
