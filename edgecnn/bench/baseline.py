"""The float Keras 3 model on this machine's CPU or GPU: what every exported artifact is compared with."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgecnn.bench import Candidate, bench
from edgecnn.bench.worker import Workbench, Worker, WorkerError
from edgecnn.data import DataSet
from edgecnn.errors import BenchError, ConfigError, RecordError
from edgecnn.files import sha256_file
from edgecnn.optional import require
from edgecnn.records import (
    SCHEMA_VERSION,
    Accuracy,
    Artifact,
    Baseline,
    Record,
    Result,
    TensorSpec,
    from_json,
)
from edgecnn.runtimes import Float, open_session, predict

_BATCH = 256
# height and width of the image where the model leaves them open and there are no data
_FREE_SIZE = 32
_OPEN_S = 300.0
_CLASSIFY_S = 1800.0


class _Model(Record, frozen=True):
    """What is known of the model once it is open."""

    backend: str
    device: str
    gpu: str | None
    input: TensorSpec
    output: TensorSpec


def record_baseline(path: Path, data: DataSet | None, device: str = "auto") -> Baseline:
    """Measure the float Keras 3 model at ``path`` with the back end Keras is set to (``KERAS_BACKEND``).

    Latency is that of one image, with as many threads as the back end likes (``threads`` 0); accuracy is
    counted on all test images of ``data``. Without ``data`` the accuracy is ``None`` and the image all zeros.
    Needs Keras and one back end, no other runtime. The work is done in processes of their own, one after the
    other, so that none finds the GPU's memory taken.

    Args:
        path: a ``.keras`` file.
        data: the data set the model was trained on, or ``None``.
        device: "cpu", "gpu", or "auto" for the GPU if the back end sees one.

    Raises:
        ConfigError: another device, or a file that does not end in ``.keras``.
        BenchError: the model cannot be opened or run there; the message has the reason.
    """
    if device not in ("auto", "cpu", "gpu"):
        raise ConfigError(f"unknown device {device!r}; choose from: auto, cpu, gpu")
    if path.suffix != ".keras":
        raise ConfigError(f"the baseline is measured with a Keras 3 model; {path} does not end in .keras")
    try:
        with Worker() as worker:
            model = worker.call("opening the model", _OPEN_S, _open, path, device)
            accuracy = None
            if data is not None:
                images = data.inputs(data.test.images)
                top = worker.call("classifying the test images", _CLASSIFY_S, _top_classes, images)
                accuracy = Accuracy(correct=int((top == data.test.labels).sum()), total=len(top))
    except WorkerError as error:
        raise BenchError(f"no baseline of {path.name}: {error.reason}") from error
    artifact = Artifact(
        file=path.name,
        format="keras",
        scheme="float32",
        input=model.input,
        output=model.output,
        sha256=sha256_file(path),
        size_bytes=path.stat().st_size,
    )
    if data is not None:
        image = images[0]
    else:
        image = np.zeros([size or _FREE_SIZE for size in model.input.shape[1:]], np.float32)
    candidate = Candidate(path=path, artifact=artifact, threads=0, device=model.device)
    results = bench([candidate], image=image)
    (row,) = results.rows
    if not isinstance(row, Result):
        raise BenchError(f"no baseline of {path.name}: {row.reason}")
    return Baseline(
        schema_version=SCHEMA_VERSION,
        model=path.name,
        model_sha256=artifact.sha256,
        backend=model.backend,
        device=f"gpu: {model.gpu}" if model.device == "gpu" else "cpu",
        environment=results.environment.replace(gpu=results.environment.gpu or model.gpu),
        measurement=row.measurement,
        accuracy=accuracy,
    )


def load_baseline(path: Path) -> Baseline:
    """Read a baseline that ``edgecnn baseline`` recorded.

    Raises:
        RecordError: no such file, not a baseline, or of another version of edgecnn's records.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise RecordError(f"cannot read the baseline {path}: {error.strerror}") from error
    baseline = from_json(data, Baseline, path)
    if baseline.schema_version != SCHEMA_VERSION:
        raise RecordError(
            f"{path} has schema version {baseline.schema_version}, this edgecnn reads {SCHEMA_VERSION}; "
            "record the baseline again"
        )
    return baseline


def _open(workbench: Workbench, path: Path, device: str) -> _Model:
    backend = require("keras").config.backend()
    gpu = _gpu(backend)
    if device == "auto":
        device = "gpu" if gpu else "cpu"
    workbench.session = session = open_session(path, threads=0, batch=_BATCH, device=device)
    return _Model(backend=backend, device=device, gpu=gpu, input=session.input, output=session.output)


def _gpu(backend: str) -> str | None:
    """Model of the first GPU that the back end can use."""
    if backend == "tensorflow":
        config = require("tensorflow").config
        for gpu in config.list_physical_devices("GPU"):
            return str(config.experimental.get_device_details(gpu).get("device_name", "unknown"))
    if backend == "jax":
        try:
            return str(require("jax").devices("gpu")[0].device_kind)
        except RuntimeError:  # how JAX says that there is none
            return None
    if backend == "torch":
        cuda = require("torch").cuda
        return str(cuda.get_device_name(0)) if cuda.is_available() else None
    return None


def _top_classes(workbench: Workbench, images: Float) -> NDArray[np.intp]:
    top: NDArray[np.intp] = predict(workbench.session, images).argmax(axis=1)
    return top
