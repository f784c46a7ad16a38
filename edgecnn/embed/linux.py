"""The kit for Linux with Python and one runtime: a program, the model, and answers to compare the device's with."""

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgecnn import artifacts
from edgecnn.data import DATASETS, DataSet, Images, load
from edgecnn.embed.content import Content, plain
from edgecnn.errors import ArtifactError
from edgecnn.files import read_bytes
from edgecnn.inference import outputs_of, task_of
from edgecnn.quantization.schemes import SCHEMES
from edgecnn.records import Artifact, Provenance, to_json

_PROGRAM = "run.py"
_MOST_IMAGES = 16


def make(model: Path, data: str | None) -> Content:
    """The program, the model with its sidecar, and answers; ``data`` is the data set the model was made from.

    Raises:
        ArtifactError: the model is changed, or not exported from this data set.
    """
    artifact = artifacts.load(model)
    if artifact.provenance is None or artifact.scheme not in SCHEMES:
        raise ArtifactError(f"{model} does not say its labels and preprocessing; export it with: edgecnn export")
    files = {
        _PROGRAM: plain(f"linux/{_PROGRAM}"),
        model.name: read_bytes(model),
        artifacts.sidecar(model).name: to_json(artifact),
        "golden.npz": _golden(model, artifact, _test_data(data, artifact.provenance, model)),
        "README.md": plain("linux/README.md"),
    }
    return Content(name=model.stem, files=files)


def _test_data(data: str | None, provenance: Provenance, model: Path) -> DataSet:
    if data is None and provenance.data not in DATASETS:
        raise ArtifactError(f"{model} was made from {provenance.data}, a data set of your own; give it with --data")
    loaded = load(data or provenance.data, provenance.preprocessing.input_range)
    if loaded.sha256 != provenance.data_sha256:
        raise ArtifactError(f"{model} was made from {provenance.data}, not from {data}; give that with --data")
    return loaded


def _golden(model: Path, artifact: Artifact, data: DataSet) -> bytes:
    """Test images of different classes with the outputs the model gives for them here, as .npz.

    ``images`` are raw, ``(n, height, width, channels)``; ``outputs`` float32 ``(n, classes)``.
    """
    first_of_class = np.unique(data.test.labels, return_index=True)[1]
    images: Images = data.test.images[first_of_class[:_MOST_IMAGES]]
    artifacts.check_said(model, artifact)
    outputs = outputs_of(task_of(model), data.inputs(images))
    buffer = io.BytesIO()
    np.savez(buffer, sha256=artifact.sha256, images=images, outputs=outputs, tolerance=_tolerance(artifact, outputs))
    return buffer.getvalue()


def _tolerance(artifact: Artifact, outputs: NDArray[np.float32]) -> float:
    """How far another processor's outputs may be apart: its kernels add up and round in another order."""
    if artifact.output.quantization is not None:
        return 2.01 * artifact.output.quantization.scale[0]  # two steps, and the rounding of float32
    span = float(np.ptp(outputs))
    float_arithmetic = artifact.scheme in ("float32", "float16")
    return (1e-4 if float_arithmetic else 1e-2) * span  # a step inside is about 1/256 of its tensor
