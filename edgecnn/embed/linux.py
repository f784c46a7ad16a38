"""The kit for Linux with Python and one runtime: a program, the model, and golden outputs."""

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgecnn import artifacts
from edgecnn.data import BUILT_IN, DataSet, load_as
from edgecnn.embed.content import Content, plain
from edgecnn.errors import ArtifactError
from edgecnn.files import read_bytes
from edgecnn.inference import outputs_of, task_of
from edgecnn.quantization.schemes import SCHEMES
from edgecnn.records import Artifact, Provenance, TensorSpec, to_json
from edgecnn.samples import parts

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

    ``images`` are raw, ``(n, …)``, or ``images.0``, … if there are several inputs; ``outputs`` float32 ``(n, values)``.
    ``tolerance`` is a number, or one for each value of several outputs.
    """
    artifacts.check_metadata(model, artifact)
    data = data.shaped(*artifact.ends)
    images = data.test.images[data.different(_MOST_IMAGES)]
    outputs = outputs_of(task_of(model), data.inputs(images))
    each = parts(images)
    named = {"images": each[0]} if len(each) == 1 else {f"images.{place}": part for place, part in enumerate(each)}
    sizes = [spec.sample_size for spec in artifact.outputs]
    values = zip(artifact.outputs, np.split(outputs, np.cumsum(sizes)[:-1], axis=1), strict=True)
    limits = [_tolerance(artifact, spec, part) for spec, part in values]
    tolerance = limits[0] if len(limits) == 1 else np.repeat(limits, sizes)
    buffer = io.BytesIO()
    np.savez(buffer, sha256=artifact.sha256, outputs=outputs, tolerance=tolerance, **named)  # type: ignore[arg-type]
    return buffer.getvalue()


def _tolerance(artifact: Artifact, spec: TensorSpec, outputs: NDArray[np.float32]) -> float:
    """Allowed difference of an output on another processor, whose kernels sum and round in another order."""
    if spec.quantization is not None:
        return 2.01 * spec.quantization.scale[0]  # two steps plus float32 rounding
    span = float(np.ptp(outputs))
    float_arithmetic = artifact.scheme in ("float32", "float16")
    return (1e-4 if float_arithmetic else 1e-2) * span  # an internal step is about 1/256 of its tensor's range
