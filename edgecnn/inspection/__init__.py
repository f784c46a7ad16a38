"""The content of a model file, and how a runtime executes it: which nodes run in integers, which in float.

``onnx_file`` and ``tflite_file`` read the nodes of their format; ``common`` has the shared code.
"""

from pathlib import Path

from edgecnn.environment import environment
from edgecnn.errors import ArtifactError
from edgecnn.files import need_model, sha256_file
from edgecnn.inspection.common import shares
from edgecnn.inspection.onnx_file import read as read_onnx
from edgecnn.inspection.tflite_file import read as read_tflite
from edgecnn.records import SCHEMA_VERSION, Inspection
from edgecnn.runtimes import runtime_for
from edgecnn.worker import isolated

_READERS = {"onnx": read_onnx, "tflite": read_tflite}


def inspect(path: Path, shape: tuple[int, ...] | None = None) -> Inspection:
    """Read the .onnx or .tflite file at ``path``, from any tool, and run it on one thread with random input.

    ``shape`` sets dynamic dimensions of the only input; without it, a dynamic batch is 1.

    Raises:
        ArtifactError: the file is missing, damaged or of another format.
        ConfigError: an input has dynamic dimensions other than the batch, or ``shape`` does not fit.
        SessionError: the runtime refuses the file, crashes, or takes too long or too much memory.
        MissingExtraError: an .onnx file, and the package onnx is not installed.
    """
    format = runtime_for(path).format
    if format not in _READERS:
        raise ArtifactError(f"{path} cannot be inspected; give a file ending in .onnx or .tflite")
    need_model(path)
    return isolated(_inspected, path, format, shape, doing=f"running {path.name}")


def _inspected(path: Path, format: str, shape: tuple[int, ...] | None) -> Inspection:
    found = _READERS[format](path, shape)
    nodes = found.nodes
    return Inspection(
        schema_version=SCHEMA_VERSION,
        file=path.name,
        format=format,
        size_bytes=path.stat().st_size,
        sha256=sha256_file(path),
        runtime=found.runtime,
        environment=environment(),
        nodes=nodes,
        macs=sum(node.macs for node in nodes),
        parameters=sum(node.parameters for node in nodes),
        weight_bytes=sum(node.weight_bytes for node in nodes),
        run_seconds=found.run_seconds,
        time_shares=shares(nodes, lambda node: node.time_share or 0.0),
        mac_shares=shares(nodes, lambda node: float(node.macs)),
        notes=found.notes,
    )
