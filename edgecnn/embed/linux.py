"""The kit for Linux with Python and one runtime: a program, the model, and golden outputs."""

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgecnn import artifacts
from edgecnn.data import BUILT_IN, DataSet, Images, load_as
from edgecnn.embed.content import Content, plain
from edgecnn.errors import ArtifactError, UnsupportedError
from edgecnn.files import read_bytes
from edgecnn.inference import outputs_of, task_of
from edgecnn.quantization.schemes import SCHEMES
from edgecnn.records import Artifact, Provenance, to_json

_PROGRAM = "run.py"
_MOST_IMAGES = 16


def make(model: Path, data: str | None) -> Content:
    """The program, the model with its sidecar, and golden outputs; ``data`` is the model's data set.

    Raises:
        ArtifactError: the model is changed, or not exported from this data set.
    """
    artifact = artifacts.load(model)
    if artifact.provenance is None or artifact.scheme not in SCHEMES:
        raise ArtifactError(f"{model} has no labels and preprocessing; export it with: edgecnn export")
    if len(artifact.inputs) > 1 or len(artifact.outputs) > 1:
        raise UnsupportedError(
            f"the program of the kit for linux runs models with one input and one output, {model} has "
            f"{len(artifact.inputs)} and {len(artifact.outputs)}; load the file with ai-edge-litert or onnxruntime"
        )
    files = {
        _PROGRAM: plain(f"linux/{_PROGRAM}"),
        model.name: read_bytes(model),
        artifacts.sidecar(model).name: to_json(artifact),
        "golden.npz": _golden(model, artifact, _test_data(data, artifact.provenance, model)),
        "README.md": plain("linux/README.md"),
    }
    return Content(name=model.stem, files=files)


def _test_data(data: str | None, provenance: Provenance, model: Path) -> DataSet:
    if data is None and provenance.data not in BUILT_IN:
        raise ArtifactError(f"{model} was made from {provenance.data}, a data set of your own; give it with --data")
    loaded = load_as(data or provenance.data, provenance.preprocessing, provenance.task)
    if loaded.sha256 != provenance.data_sha256:
        raise ArtifactError(f"{model} was made from {provenance.data}, not from {data}; give that with --data")
    return loaded


def _golden(model: Path, artifact: Artifact, data: DataSet) -> bytes:
    """Test images, of different classes if there are classes, with the model's outputs on this machine, as .npz.

    ``images`` are raw, ``(n, …)``; ``outputs`` float32 ``(n, values)``.
    """
    artifacts.check_metadata(model, artifact)
    data = data.shaped(*artifact.ends)
    images: Images = data.test.images[data.different(_MOST_IMAGES)]
    outputs = outputs_of(task_of(model), data.inputs(images))
    buffer = io.BytesIO()
    np.savez(buffer, sha256=artifact.sha256, images=images, outputs=outputs, tolerance=_tolerance(artifact, outputs))
    return buffer.getvalue()


def _tolerance(artifact: Artifact, outputs: NDArray[np.float32]) -> float:
    """Allowed output difference on another processor, whose kernels sum and round in another order."""
    if artifact.output.quantization is not None:
        return 2.01 * artifact.output.quantization.scale[0]  # two steps plus float32 rounding
    span = float(np.ptp(outputs))
    float_arithmetic = artifact.scheme in ("float32", "float16")
    return (1e-4 if float_arithmetic else 1e-2) * span  # an internal step is about 1/256 of its tensor's range
