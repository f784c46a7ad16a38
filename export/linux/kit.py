"""Makes the folder that goes to a Linux device: the program, the model, and answers to compare the device's with."""

import contextlib
import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgecnn import artifacts
from edgecnn.data import DataSet, Images, load
from edgecnn.errors import ArtifactError, OutputError
from edgecnn.files import make_folder, write_atomic
from edgecnn.quantization.schemes import SCHEMES
from edgecnn.records import Artifact, Provenance, to_json
from edgecnn.runtimes import open_session, predict

_HERE = Path(__file__).parent
_PROGRAM = "run.py"
_MOST_IMAGES = 16


def build(model: Path, data: str, out: Path) -> tuple[Path, ...]:
    """Write the kit for the model file at ``model`` into the folder ``out`` and return its files.

    ``data`` is the data set the model was made from (see ``edgecnn.data.load``). A kit of the same model is made
    anew; the same model and data give the same bytes.

    Raises:
        ArtifactError: the model is missing, changed, of no format of this kit, or not exported from this data set.
        OutputError: ``out`` cannot be written, or holds something else.
    """
    if model.suffix not in (".tflite", ".onnx"):
        raise ArtifactError(f"{model} is no exported model; give a file ending in .tflite or .onnx")
    artifact = artifacts.load(model)
    if artifact.provenance is None or artifact.scheme not in SCHEMES:
        raise ArtifactError(f"{model} does not say its labels and preprocessing; export it with: edgecnn export")
    content = {
        _PROGRAM: (_HERE / _PROGRAM).read_bytes(),
        model.name: model.read_bytes(),
        artifacts.sidecar(model).name: to_json(artifact),
        "golden.npz": _golden(model, artifact, _test_data(data, artifact.provenance, model)),
        "README.md": (_HERE / "README.md").read_bytes(),
    }
    _check_own(out, set(content))
    make_folder(out)
    for name, data_bytes in content.items():
        write_atomic(out / name, data_bytes)
    return tuple(out / name for name in content)


def _check_own(out: Path, names: set[str]) -> None:
    """Refuse a folder with anything in it that is not this kit; the program is written first, so it marks one."""
    found = {path.name for path in out.iterdir()} if out.is_dir() else set()
    if found and not {_PROGRAM} <= found <= names:
        other = min(found - names, default=min(found))
        raise OutputError(f"{out} is not a kit of this model: it holds {other}; name a new or empty folder")


def _test_data(data: str, provenance: Provenance, model: Path) -> DataSet:
    loaded = load(data, provenance.preprocessing.input_range)
    if loaded.sha256 != provenance.data_sha256:
        raise ArtifactError(f"{model} was made from {provenance.data}, not from {data}; give that with --data")
    return loaded


def _golden(model: Path, artifact: Artifact, data: DataSet) -> bytes:
    """Test images of different classes with the outputs the model gives for them here, as .npz.

    ``images`` are raw, ``(n, height, width, channels)``; ``outputs`` float32 ``(n, classes)``.
    """
    first_of_class = np.unique(data.test.labels, return_index=True)[1]
    images: Images = data.test.images[first_of_class[:_MOST_IMAGES]]
    with contextlib.closing(open_session(model)) as session:
        outputs = predict(session, data.inputs(images))
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
