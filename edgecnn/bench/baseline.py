"""The float Keras 3 model on this machine's CPU or GPU: what every exported artifact is compared with.

Nothing here, nor in what it imports, needs TensorFlow or a runtime of exported files: Keras and one back end will do.
"""

import importlib.util
import math
import os
import shutil
import subprocess
import time
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from statistics import median
from typing import cast

import numpy as np
from numpy.typing import NDArray

from edgecnn.bench import environment
from edgecnn.bench.comparison import answers_of
from edgecnn.bench.schedule import rounds
from edgecnn.bench.worker import Workbench, Worker, WorkerError
from edgecnn.data import DataSet
from edgecnn.errors import BenchError, ConfigError, MissingExtraError, RecordError, UnknownNameError
from edgecnn.files import sha256_file
from edgecnn.optional import require
from edgecnn.progress import Advance, progress
from edgecnn.records import (
    SCHEMA_VERSION,
    Accuracy,
    Answers,
    Baseline,
    Environment,
    Measurement,
    Record,
    TensorSpec,
    from_json,
)
from edgecnn.runtimes import Float, Session, predict
from edgecnn.runtimes.keras import KerasSession

BACKENDS = ("tensorflow", "jax", "torch")
"""In the order in which ``auto`` looks for a GPU."""

BATCHES = tuple(2**power for power in range(3, 15))
"""That throughput is measured with, until it gains no more."""

_INSTALL = "pip install keras and one back end: 'jax[cuda12]', torch, or 'tensorflow[and-cuda]'"
_GPU_PACKAGES = ("jax", "nvidia-", "triton")  # how the names of packages start that run a model on a GPU
_CLASSIFIED_AT_ONCE = 256
_DISTINCT = 16  # images that a batch is made of; larger batches repeat them
# height and width of the image where the model leaves them open and there are no data
_FREE_SIZE = 32
_BLOCKS, _SWEEP_BLOCKS = 50, 10
_MOST_PER_BLOCK = 100
_WARM_UP_S = 2.0
_GAIN = 1.02  # of throughput, below which a batch is no faster than a smaller one
_OPEN_S, _STEP_S = 300.0, 300.0


class _Opened(Record, frozen=True):
    """What is known of the model once it is open."""

    gpu: str | None
    device: str
    compiled_with: str
    tensor_float_32: bool | None
    input: TensorSpec
    output: TensorSpec
    load_s: float


def record_baseline(
    path: Path,
    data: DataSet | None,
    device: str = "auto",
    *,
    backend: str = "auto",
    seconds: float = 2.0,
    batches: Sequence[int] = BATCHES,
) -> Baseline:
    """Measure the float Keras 3 model at ``path``: latency of one image, throughput of batches, accuracy.

    The back end compiles the model, and the clock stops when the device has finished. Each is timed with input and
    output on the device and with the copies from and to the host, in blocks that take turns; with as many threads as
    the back end likes (``threads`` 0). Accuracy is counted on all test images of ``data``. Without ``data`` it is
    ``None`` and the model is fed noise. Needs Keras and one back end, no other runtime. The work is done in processes
    of their own, one after the other, so that none finds the GPU's memory taken.

    Args:
        path: a ``.keras`` file.
        data: the data set the model was trained on, or ``None``.
        device: "cpu", "gpu", or "auto" for the GPU if the back end sees one.
        backend: "tensorflow", "jax" or "torch"; "auto" takes what ``KERAS_BACKEND`` names, else the first one
            installed that sees a GPU, else the first one installed.
        seconds: how long the latency of one image is measured, and again with copies; each batch takes half of it.
        batches: to measure throughput with, rising. Two that gain less than 2 % on the best before, or one that does
            not fit into memory, end it; the reason is kept.

    Raises:
        ConfigError: an unknown device or back end, ``seconds`` not positive, a file that does not end in ``.keras``.
        MissingExtraError: Keras or the back end is not installed; the message says what is.
        BenchError: the model cannot be opened or run there, or takes other images; the message has the reason.
    """
    if device not in ("auto", "cpu", "gpu"):
        raise ConfigError(f"unknown device {device!r}; choose from: auto, cpu, gpu")
    if path.suffix != ".keras":
        raise ConfigError(f"the baseline is measured with a Keras 3 model; {path} does not end in .keras")
    if not 0 < seconds < math.inf:
        raise ConfigError(f"seconds must be positive, got {seconds:g}")
    machine = environment.environment()  # its load average must not be ours
    try:
        backend = _backend(backend, device)
        return _Recording(path, data, backend, device, seconds).record(batches, machine)
    except WorkerError as error:
        raise BenchError(f"no baseline of {path.name}: {error.reason}") from error
    except BenchError as error:
        raise BenchError(f"no baseline of {path.name}: {error}") from error


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


# Which back end


def _backend(wanted: str, device: str) -> str:
    """The back end to use: the one wanted, or for ``auto`` the best there is.

    Raises:
        UnknownNameError, MissingExtraError: there is no such back end, or it is not installed.
        BenchError: ``KERAS_BACKEND`` names none; or the device is "gpu" and no back end sees one.
        WorkerError: a back end cannot be imported.
    """
    installed = [name for name in BACKENDS if _is_installed(name)]
    if not _is_installed("keras") or not installed:
        missing = "none of its back ends is" if _is_installed("keras") else "Keras is not"
        raise MissingExtraError(f"a baseline needs Keras and one back end, and {missing} installed; {_INSTALL}")
    if wanted == "auto":
        wanted = os.environ.get("KERAS_BACKEND", "auto")
    elif wanted not in BACKENDS:
        raise UnknownNameError("back end", wanted, ("auto", *BACKENDS))
    if wanted == "auto":
        return _best(installed, device)
    if wanted not in BACKENDS:
        raise BenchError(f"KERAS_BACKEND is {wanted!r}, which runs no baseline; set it to one of {', '.join(BACKENDS)}")
    if wanted not in installed:
        raise MissingExtraError(
            f"the back end {wanted!r} is not installed; installed are: {', '.join(installed)}; "
            f"choose one with --backend, or {_INSTALL}"
        )
    return wanted


def _best(installed: Sequence[str], device: str) -> str:
    if device == "cpu":
        return installed[0]
    for backend in installed:
        with Worker() as worker:
            if worker.call(f"looking for a GPU with {backend}", _OPEN_S, _sees_gpu, backend) is not None:
                return backend
    if device == "gpu":
        raise BenchError(
            f"no GPU that Keras can use: none is seen by what is installed, {', '.join(installed)}; check that the "
            f"driver works (nvidia-smi) and that a back end is built for CUDA: {_INSTALL}"
        )
    return installed[0]


def _is_installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


# In the worker


def _sees_gpu(workbench: Workbench, backend: str) -> str | None:
    """Model of the first GPU that ``backend`` can use. Makes Keras use this back end, from now on, in this process."""
    os.environ["KERAS_BACKEND"] = backend  # read when Keras is imported
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


def _open(workbench: Workbench, path: Path, backend: str, device: str, batch: int) -> _Opened:
    """Open the model for ``batch`` images, in place of what was open before."""
    gpu = _sees_gpu(workbench, backend)
    if device == "auto":
        device = "gpu" if gpu else "cpu"
    require("keras")  # beforehand, so that it takes no part in load_s
    if hasattr(workbench, "session"):
        workbench.session.close()
        del workbench.session
    start = time.perf_counter()
    workbench.session = session = KerasSession(path, 0, batch, device)
    return _Opened(
        gpu=gpu,
        device=device,
        compiled_with=session.compiled_with,
        tensor_float_32=session.tensor_float_32,
        input=session.input,
        output=session.output,
        load_s=time.perf_counter() - start,
    )


def _feed(workbench: Workbench, images: Float) -> None:
    """Put a batch made of ``images`` ``(n, height, width, channels)`` on the device."""
    workbench.session.encode(_batch_of(images, workbench.session.batch))


def _with_copies(workbench: Workbench, images: Float, count: int) -> list[float]:
    """Seconds of copying a batch to the device, running the model and copying the output back, ``count`` times."""
    session, batch = workbench.session, _batch_of(images, workbench.session.batch)

    class EndToEnd:
        def invoke(self) -> None:
            session.encode(batch)
            session.invoke()
            session.decode()

    timed = Workbench()
    timed.session = cast(Session, EndToEnd())
    return timed.run(count)


def _batch_of(images: Float, batch: int) -> Float:
    return np.resize(images, (batch, *images.shape[1:]))


def _top_classes(workbench: Workbench, images: Float) -> NDArray[np.intp]:
    top: NDArray[np.intp] = predict(workbench.session, images).argmax(axis=1)
    return top


def _peak(workbench: Workbench) -> int | None:
    session = workbench.session
    return session.peak_device_bytes() if isinstance(session, KerasSession) else None


# The recording


class _Recording:
    """What one call of ``record_baseline`` needs, and the most device memory seen so far."""

    def __init__(self, path: Path, data: DataSet | None, backend: str, device: str, seconds: float) -> None:
        self.path = path
        self.data = data
        self.backend = backend
        self.device = device
        self.seconds = seconds
        self.sha256 = sha256_file(path) if path.is_file() else ""  # opening it says that there is none
        self.peak: int | None = None

    def record(self, batches: Sequence[int], machine: Environment) -> Baseline:
        """Measure everything.

        Raises:
            WorkerError: anything but the throughput of a batch could not be measured.
        """
        chunks = 0 if self.data is None else math.ceil(len(self.data.test.labels) / _CLASSIFIED_AT_ONCE)
        with progress("baseline", 2 + chunks + _BLOCKS + len(batches)) as advance:
            with Worker() as worker:
                opened, latency = self.measure(worker, 1, self.seconds, _BLOCKS, advance)
            with Worker() as worker:
                top = self.classify(worker, advance)
                sweep, end = self.sweep(worker, batches, advance)
        counted: tuple[Accuracy, Answers] | None = None
        if self.data is not None:
            right = int((top == self.data.test.labels).sum())
            counted = Accuracy(correct=right, total=len(top)), answers_of(top, self.data.test)
        return Baseline(
            schema_version=SCHEMA_VERSION,
            model=self.path.name,
            model_sha256=self.sha256,
            backend=self.backend,
            device=f"gpu: {opened.gpu}" if opened.device == "gpu" else "cpu",
            environment=_with_gpu(machine, opened),
            measurement=latency,
            accuracy=None if counted is None else counted[0],
            answers=None if counted is None else counted[1],
            throughput=sweep,
            throughput_end=end,
            peak_device_bytes=self.peak,
            compiled_with=opened.compiled_with,
            tensor_float_32=opened.tensor_float_32,
        )

    def open(self, worker: Worker, batch: int) -> _Opened:
        """Open the model for ``batch`` images.

        Raises:
            BenchError: it does not classify the images of the data.
        """
        opened = worker.call("opening the model", _OPEN_S, _open, self.path, self.backend, self.device, batch)
        if self.data is None:
            return opened
        wanted, classes = (None, *self.data.input_shape), len(self.data.class_names)
        pairs = zip(opened.input.shape, wanted, strict=False)
        if len(opened.input.shape) != 4 or any(size not in (None, one) for size, one in pairs):
            raise BenchError(
                f"it takes {opened.input.shape}, the images of {self.data.name} give "
                f"{wanted}; pass the data that the model was trained on"
            )
        if opened.output.shape != (None, classes):
            raise BenchError(
                f"it gives {opened.output.shape}, {self.data.name} has {classes} "
                "classes; pass the data that the model was trained on"
            )
        return opened

    def classify(self, worker: Worker, advance: Advance) -> NDArray[np.intp]:
        """Top classes ``(n,)`` of all test images."""
        if self.data is None:
            return np.zeros(0, np.intp)
        images, top = self.data.test.images, []
        self.open(worker, _CLASSIFIED_AT_ONCE)
        for start in range(0, len(images), _CLASSIFIED_AT_ONCE):
            part = self.data.inputs(images[start : start + _CLASSIFIED_AT_ONCE])
            top.append(worker.call("classifying the test images", _STEP_S, _top_classes, part))
            advance(note="accuracy")
        return np.concatenate(top)

    def sweep(self, worker: Worker, batches: Sequence[int], advance: Advance) -> tuple[tuple[Measurement, ...], str]:
        """Throughput of one batch after the other, and why it ended."""
        found: list[Measurement] = []
        best, slower = 0.0, list[int]()  # by medians, which a busy machine disturbs less
        for batch in batches:
            try:
                _, measured = self.measure(worker, batch, self.seconds / 2, _SWEEP_BLOCKS, lambda *_, **__: None)
            except WorkerError as error:
                return tuple(found), f"batch {batch} could not be measured: {error.error}: {error.reason}"
            advance(note=f"batch {batch}")
            found.append(measured)
            reached = batch / median(measured.samples)
            slower = [*slower, batch] if reached < _GAIN * best else []
            best = max(best, reached)
            if len(slower) == 2:
                return tuple(found), f"batches {slower[0]} and {slower[1]} gained less than 2 % on smaller ones"
        return tuple(found), "no larger batch was tried"

    def measure(
        self, worker: Worker, batch: int, seconds: float, blocks: int, advance: Advance
    ) -> tuple[_Opened, Measurement]:
        """Time the model with ``batch`` images, on the device and with copies, ``seconds`` each."""
        opened = self.open(worker, batch)
        images = self.images(opened.input)
        worker.call("copying to the device", _STEP_S, _feed, images)
        advance(note="warming up")
        warmup = worker.call("warming up", _STEP_S, Workbench.warm_up, _WARM_UP_S)
        warmup += worker.call("warming up", _STEP_S, _with_copies, images, 3)
        count = min(max(1, int(seconds / blocks / max(median(warmup[-10:]), 1e-9))), _MOST_PER_BLOCK)
        lead = max(1, count // 10)  # to refill the caches
        alone, whole = list[tuple[float, ...]](), list[tuple[float, ...]]()
        for order in rounds(2, blocks, seed=0):
            for with_copies in order:
                if with_copies:
                    samples = worker.call("running a block", _STEP_S, _with_copies, images, lead + count)
                else:
                    samples = worker.call("running a block", _STEP_S, Workbench.run, lead + count)
                warmup += samples[:lead]
                (whole if with_copies else alone).append(tuple(samples[lead:]))
            advance(note=f"batch {batch}")
        peak = worker.call("reading the device's memory", _STEP_S, _peak)
        self.peak = max(filter(None, (peak, self.peak)), default=None)
        return opened, Measurement(
            artifact=self.path.name,
            artifact_sha256=self.sha256,
            runtime="keras",
            device=opened.device,
            threads=0,
            batch=batch,
            load_s=opened.load_s,
            warmup=tuple(warmup),
            blocks=tuple(alone),
            end_to_end=tuple(whole),
        )

    def images(self, spec: TensorSpec) -> Float:
        """What batches are made of: the first test images, or noise."""
        if self.data is not None:
            return self.data.inputs(self.data.test.images[:_DISTINCT])
        shape = [size or _FREE_SIZE for size in spec.shape[1:]]
        return np.random.default_rng(0).random((_DISTINCT, *shape), np.float32)


def _with_gpu(machine: Environment, opened: _Opened) -> Environment:
    """``machine`` with the GPU, its driver, and the packages that bring CUDA, if the model ran there."""
    if opened.device != "gpu":
        return machine
    found = {
        name: package.version
        for package in metadata.distributions()
        if (name := package.metadata["Name"].lower()).startswith(_GPU_PACKAGES)
    }
    driver = _driver()
    return machine.replace(
        gpu=machine.gpu or opened.gpu,
        versions={**machine.versions, **dict(sorted(found.items())), **({"NVIDIA driver": driver} if driver else {})},
    )


def _driver() -> str | None:
    """Version of the NVIDIA driver, where its tool tells."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return None
    command = [tool, "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):  # the tool is there and the driver is not
        return None
    return answer.stdout.split("\n")[0].strip() or None
