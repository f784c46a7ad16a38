"""The float Keras 3 model on this machine's CPU or GPU, the baseline of all exported artifacts.

This module and its imports need only Keras and one back end: no TensorFlow, and no runtime of exported files.
"""

import importlib.util
import math
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar, get_args

import msgspec
import numpy as np

from edgecnn.data import DataSet, as_data_set
from edgecnn.environment import environment, nvidia
from edgecnn.errors import BenchError, ConfigError, DataError, MissingExtraError, ModelError, UnknownNameError
from edgecnn.files import sha256_file
from edgecnn.measure import Candidate, CandidateRun, Timeouts, statistics
from edgecnn.measure.comparison import answers_of, images_per_s
from edgecnn.measure.workbench import Opened, Workbench
from edgecnn.models import architecture_of, output_problem
from edgecnn.optional import require
from edgecnn.progress import progress
from edgecnn.records import (
    SCHEMA_VERSION,
    Artifact,
    Backend,
    Baseline,
    ColdStart,
    Device,
    Environment,
    Measurement,
    Record,
    Result,
    Summaries,
    TensorSpec,
    read_record,
)
from edgecnn.runtimes import Float, predict
from edgecnn.runtimes.keras import KerasSession
from edgecnn.runtimes.quantized_io import raw_of
from edgecnn.samples import Samples
from edgecnn.worker import Worker, WorkerError

T = TypeVar("T")

BACKENDS = get_args(Backend)
"""The back ends, in the order in which ``auto`` looks for a GPU."""

BATCHES = tuple(8**power for power in range(1, 8))
"""Batch sizes for throughput, until a larger one gains nothing or exceeds memory."""

_INSTALL = "pip install keras and one back end: 'jax[cuda12]', torch, or 'tensorflow[and-cuda]'"
_GPU_PACKAGES = ("jax", "nvidia-", "triton")  # name prefixes of the packages that run a model on a GPU
_CLASSIFIED_AT_ONCE = 256
# image height and width if the model leaves them open and there is no data set
_FREE_SIZE = 32
_SHIPPED = Path(__file__).parents[1] / "baselines"
_PROCESSES, _BLOCKS = 3, 50
# each larger batch is measured for 1/8 of the time of batch 1, in 10 blocks
_SWEEP_SHARE, _SWEEP_BLOCKS = 8, 10
_GAIN = 1.02  # minimum throughput gain of a batch over the smaller ones
_MOST_BYTES = 1 << 30  # of a batch's images; larger batches take minutes to compile and copy
_OPEN_S, _STEP_S = 300.0, 300.0


class _Model(Record, frozen=True):
    """The loaded model's properties, and the seconds that import and loading took in a fresh process."""

    gpu: str | None
    device: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    import_s: float
    load_s: float


class _Compiled(Record, frozen=True):
    """The model's properties after its first run; the fields are those of a ``Baseline``."""

    compiled_with: str
    tensor_float_32: bool | None
    peak_device_bytes: int | None


def record_baseline(
    path: Path | str,
    data: DataSet | str | Path | Sequence[Any] | None,
    device: str = "auto",
    *,
    backend: str = "auto",
    seconds: float = 2.0,
    batches: Sequence[int] = BATCHES,
) -> Baseline:
    """Measure the float Keras 3 model at ``path``: latency of one image, throughput of batches, accuracy.

    The back end compiles the model, and the clock stops when the device has finished. Times are measured with input and
    output on the device, and with copies from and to the host, in turns, as in ``bench``. The back end chooses the
    number of threads (``threads`` 0). Accuracy is counted on all test images of ``data``. Without ``data`` it is
    ``None``, and the input is noise. Needs only Keras and one back end. Latency is measured in three processes, one
    after the other; the first one also measures accuracy and throughput.

    Args:
        path: a ``.keras`` file.
        data: what the model was trained on, as ``load_data`` takes it, or ``None``.
        device: "cpu", "gpu", or "auto" for the GPU if the back end finds one.
        backend: "tensorflow", "jax" or "torch"; "auto" uses ``KERAS_BACKEND``, else the first installed back end that
            finds a GPU, else the first installed one.
        seconds: measuring time for the latency of one image, in three fresh processes; each larger batch is measured
            for an eighth of it, all in one process.
        batches: batch sizes for throughput, ascending. The sweep ends at a batch that gains less than 2 % over the best
            so far, exceeds memory, or has more than 1 GiB of images; the reason is stored.

    Raises:
        ConfigError: unknown device or back end, ``seconds`` not positive, or a file that does not end in ``.keras``.
        MissingExtraError: Keras or the back end is not installed; the message lists the installed ones.
        BenchError: the model cannot be opened or run, or has other image sizes; the message has the reason.
    """
    if device not in get_args(Device):
        raise UnknownNameError("device", device, get_args(Device))
    path = Path(path)
    check_is_keras(path)
    if not 0 < seconds < math.inf:
        raise ConfigError(f"seconds must be positive, got {seconds:g}")
    try:
        backend = choose_backend(backend, device)
        with _keras_on(backend):
            samples = None if data is None else as_data_set(data)
            return _recorded(path, samples, device, backend, seconds, batches)
    except WorkerError as error:
        raise BenchError(f"no baseline of {path.name}: {error.reason}") from error
    except (BenchError, ModelError) as error:
        raise BenchError(f"no baseline of {path.name}: {error}") from error


def check_is_keras(path: Path) -> None:
    """Check the suffix of a model file.

    Raises:
        ConfigError: it is not .keras.
    """
    if path.suffix != ".keras":
        raise ConfigError(
            f"the baseline needs a Keras 3 model, and {path} does not end in .keras; use model.save('name.keras')"
        )


def _recorded(
    path: Path, data: DataSet | None, device: str, backend: str, seconds: float, batches: Sequence[int]
) -> Baseline:
    architecture, sha256, machine = architecture_of(path), sha256_file(path), environment()
    accuracy = answers = None
    first, *others = (len(part) for part in np.array_split(range(_BLOCKS), _PROCESSES))
    with Worker(Workbench) as worker:
        model = worker.call("opening the model", _OPEN_S, _open, path, backend, device)
        if data is None:
            draw = np.random.default_rng(0)
            sizes = ([1, *(size or _FREE_SIZE for size in spec.shape[1:])] for spec in model.inputs)
            image = raw_of([draw.random(shape, np.float32) for shape in sizes], model.inputs)[0]
        else:
            data = _fitted(model, data)
            image = data.test_inputs(1)[0]
        artifact = Artifact(
            file=path.name,
            format="keras",
            scheme="float32",
            input=model.inputs[0],
            output=model.outputs[0],
            more_inputs=model.inputs[1:],
            more_outputs=model.outputs[1:],
            sha256=sha256,
            size_bytes=path.stat().st_size,
        )
        candidate = Candidate(path=path, artifact=artifact, threads=0, device=model.device)
        run = CandidateRun(candidate, image, seconds / _BLOCKS, Timeouts(), None)
        first_s = worker.call("running the model once", _OPEN_S, Workbench.use, image, 1)
        run.go_on(worker, Opened("keras", ColdStart(import_s=model.import_s, load_s=model.load_s, first_s=first_s)))
        _measure(run, first, f"one image, 1 of {_PROCESSES}")
        compiled = worker.call("reading the settings", _STEP_S, _compiled)
        if data is not None:
            outputs = _outputs(worker, data)
            accuracy, answers = data.scoring().score(outputs), answers_of(outputs, data)
        throughput, end, peak = _sweep(worker, candidate, image, seconds / _SWEEP_SHARE, batches)
        worker.stop(patience_s=0.0)
    for number, blocks in enumerate(others, start=2):
        with ExitStack() as stack:
            run.launch(stack)
            run.launched()
            run.start()
            _measure(run, blocks, f"one image, {number} of {_PROCESSES}")
            run.leave()
    row = run.row(_BLOCKS)
    assert isinstance(row, Result)  # failures are raised
    return Baseline(
        schema_version=SCHEMA_VERSION,
        model=path.name,
        model_sha256=sha256,
        backend=backend,
        device=f"gpu: {model.gpu}" if model.device == "gpu" else "cpu",
        environment=_with_gpu(machine, model),
        measurement=row.measurement,
        accuracy=accuracy,
        answers=answers,
        throughput=throughput,
        throughput_end=end,
        peak_device_bytes=peak or compiled.peak_device_bytes,
        compiled_with=compiled.compiled_with,
        tensor_float_32=compiled.tensor_float_32,
        architecture=architecture,
    )


def _measure(run: CandidateRun, blocks: int, doing: str) -> None:
    """Measure ``blocks`` blocks of ``run`` in its current process."""
    with progress(doing, blocks) as advance:
        for _ in range(blocks):
            run.block()
            advance()
    run.finish()


def _sweep(
    worker: Worker[Workbench], candidate: Candidate, image: Samples, seconds: float, batches: Sequence[int]
) -> tuple[tuple[Measurement, ...], str, int | None]:
    """Measure ascending batches in ``worker``, which has loaded the model.

    Returns the measurements, the reason why the sweep ended, and the peak device memory in bytes.
    """
    found: list[Measurement] = []
    best, peak = 0.0, None
    with progress("throughput", len(batches)) as advance:
        for batch in batches:
            if batch * image.nbytes > _MOST_BYTES:
                size = f"its images take {batch * image.nbytes / 1e9:.1f} GB, over the limit of 1 GiB"
                return tuple(found), f"batch {batch} was skipped: {size}", peak
            advance(note=f"batch {batch}")
            changed = msgspec.structs.replace(candidate, batch=batch)
            run = CandidateRun(changed, image, seconds / _SWEEP_BLOCKS, Timeouts(), None)
            try:
                first_s = worker.call("compiling", _OPEN_S, Workbench.use, image, batch)
                run.go_on(worker, Opened("keras", ColdStart(import_s=0.0, load_s=first_s, first_s=first_s)))
                for _ in range(_SWEEP_BLOCKS):
                    run.block()
                peak = worker.call("reading the GPU's memory", _STEP_S, _compiled).peak_device_bytes
            except WorkerError as error:
                return tuple(found), f"batch {batch} could not be measured: {error.error}: {error.reason}", peak
            row = run.row(_SWEEP_BLOCKS)
            assert isinstance(row, Result)
            found.append(row.measurement.replace(cold_starts=()))  # the process was not fresh
            reached = images_per_s(row.measurement)
            if reached < _GAIN * best:
                return tuple(found), f"batch {batch} gained less than 2 % over smaller ones", peak
            best = max(best, reached)
    return tuple(found), "all batch sizes were measured", peak


def _outputs(worker: Worker[Workbench], data: DataSet) -> Float:
    """Outputs ``(n, values)`` for all test images."""
    images, outputs = data.test.images, []
    with progress("accuracy", len(images)) as advance:
        for start in range(0, len(images), _CLASSIFIED_AT_ONCE):
            part = data.inputs(images[start : start + _CLASSIFIED_AT_ONCE])
            outputs.append(worker.call("classifying the test images", _STEP_S, _predicted, part))
            advance(len(part))
    return np.concatenate(outputs)


def _fitted(model: _Model, data: DataSet) -> DataSet:
    """``data`` with samples in the input shape of ``model``.

    Raises:
        BenchError: the input or output shape does not fit.
    """
    hint = "give the data set that the model was trained on"
    try:
        data = data.shaped(
            {spec.name: spec.sample_shape for spec in model.inputs},
            {spec.name: spec.sample_shape for spec in model.outputs},
        )
    except DataError as error:
        if len(model.inputs) > 1:
            raise BenchError(f"it does not fit: {error}; {hint}") from error
        raise BenchError(
            f"its input shape is {model.inputs[0].shape}, the images of {data.name} are {(None, *data.input_shape)}; "
            f"{hint}"
        ) from error
    problem = output_problem({spec.name: spec.sample_shape for spec in model.outputs}, data)
    if problem is not None:
        raise BenchError(f"it {problem}; {hint}")
    return data


def condensed(baseline: Baseline, note: str) -> Baseline:
    """``baseline`` with summaries instead of samples; ``note`` is prepended to its own note."""

    def summarised(measurement: Measurement) -> Measurement:
        return measurement.replace(
            warmup_ns=(),
            blocks_ns=(),
            end_to_end_ns=(),
            others_busy=(),
            blocks_per_process=(),
            cold_starts=(),
            summaries=Summaries(
                invoke=_rounded(statistics.summary(measurement)),
                end_to_end=_rounded(statistics.end_to_end(measurement)),
                warnings=statistics.warnings(measurement, baseline.environment),
            ),
        )

    return baseline.replace(
        measurement=summarised(baseline.measurement),
        throughput=tuple(map(summarised, baseline.throughput)),
        note=note if baseline.note is None else f"{note} {baseline.note}",
    )


def _rounded(summary: T) -> T:
    """``summary`` with nine digits of each number: the last digits of sums differ from processor to processor."""

    def rounded(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: rounded(one) for key, one in value.items()}
        return float(f"{value:.9g}") if isinstance(value, float) else value

    return msgspec.convert(rounded(msgspec.to_builtins(summary)), type(summary))


def shipped_baselines(architecture: str) -> tuple[Baseline, ...]:
    """The baselines shipped with edgecnn for models of this ``architecture`` (see ``models.architecture``).

    Raises:
        RecordError: a file of the package is damaged.
    """
    shipped = (load_baseline(path) for path in sorted(_SHIPPED.glob("*.json")))
    return tuple(baseline for baseline in shipped if baseline.architecture == architecture)


def load_baseline(path: Path | str) -> Baseline:
    """Read a baseline that ``edgecnn baseline`` recorded.

    Raises:
        RecordError: the file is missing, is not a baseline, or has another schema version.
    """
    return read_record(Path(path), Baseline)


# Choice of the back end


def choose_backend(wanted: str, device: str) -> str:
    """The back end to use: ``wanted``, or the best installed one for ``auto``; arguments as in ``record_baseline``.

    Raises:
        UnknownNameError, MissingExtraError: there is no such back end, or it is not installed.
        BenchError: ``KERAS_BACKEND`` names an unsupported one; the device is "gpu" and no back end finds a GPU; or a
            back end cannot be imported.
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
        raise BenchError(f"KERAS_BACKEND is {wanted!r}, which is not supported; set it to one of {', '.join(BACKENDS)}")
    if wanted not in installed:
        raise MissingExtraError(
            f"the back end {wanted!r} is not installed; installed: {', '.join(installed)}; "
            f"choose one with --backend, or {_INSTALL}"
        )
    return wanted


def _best(installed: Sequence[str], device: str) -> str:
    if device == "cpu" or (device == "auto" and len(installed) == 1):
        return installed[0]
    for backend in installed:
        try:
            with Worker(Workbench) as worker:
                if worker.call(f"looking for a GPU with {backend}", _OPEN_S, _sees_gpu, backend) is not None:
                    return backend
        except WorkerError as error:
            raise BenchError(
                f"looking for a GPU with {backend} failed: {error.reason}; choose another back end with --backend"
            ) from error
    if device == "gpu":
        raise BenchError(
            f"no GPU that Keras can use; none is found by the installed back ends ({', '.join(installed)}); check "
            f"that the driver works (nvidia-smi) and that a back end is built for CUDA: {_INSTALL}"
        )
    return installed[0]


@contextmanager
def _keras_on(backend: str) -> Iterator[None]:
    """Set Keras' back end for processes started in the block; Keras reads the variable when it is imported."""
    before = os.environ.get("KERAS_BACKEND")
    os.environ["KERAS_BACKEND"] = backend
    try:
        yield
    finally:
        if before is None:
            del os.environ["KERAS_BACKEND"]
        else:
            os.environ["KERAS_BACKEND"] = before


def _is_installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


# In the worker


def _sees_gpu(workbench: Workbench, backend: str) -> str | None:
    """Model of the first GPU that ``backend`` can use."""
    if backend == "tensorflow":
        config = require("tensorflow").config
        for gpu in config.list_physical_devices("GPU"):
            return str(config.experimental.get_device_details(gpu).get("device_name", "unknown"))
    if backend == "jax":
        try:
            return str(require("jax").devices("gpu")[0].device_kind)
        except RuntimeError:  # raised by JAX if there is none
            return None
    if backend == "torch":
        cuda = require("torch").cuda
        return str(cuda.get_device_name(0)) if cuda.is_available() else None
    return None


def _open(workbench: Workbench, path: Path, backend: str, device: str) -> _Model:
    start = time.perf_counter()
    require("keras")
    import_s = time.perf_counter() - start
    start = time.perf_counter()
    gpu = _sees_gpu(workbench, backend)
    if device == "auto":
        device = "gpu" if gpu else "cpu"
    # not open_session: the Session protocol has no compiler settings
    workbench.session = session = KerasSession(path, 0, 1, device)
    load_s = time.perf_counter() - start
    return _Model(
        gpu=gpu, device=device, inputs=session.inputs, outputs=session.outputs, import_s=import_s, load_s=load_s
    )


def _predicted(workbench: Workbench, images: Samples) -> Float:
    workbench.session.batch = _CLASSIFIED_AT_ONCE
    return predict(workbench.session, images)


def _compiled(workbench: Workbench) -> _Compiled:
    session = workbench.session
    assert isinstance(session, KerasSession)
    return _Compiled(
        compiled_with=session.compiled_with,
        tensor_float_32=session.tensor_float_32,
        peak_device_bytes=session.peak_device_bytes(),
    )


# The machine


def _with_gpu(machine: Environment, model: _Model) -> Environment:
    """``machine`` with the GPU, its driver and the CUDA packages, if the model ran on a GPU."""
    if model.device != "gpu":
        return machine
    found = {
        name: package.version
        for package in metadata.distributions()
        if (name := package.metadata["Name"].lower()).startswith(_GPU_PACKAGES)
    }
    driver = next(iter(nvidia("driver_version")), "").strip()  # one for all GPUs
    return machine.replace(
        gpu=machine.gpu or model.gpu,
        versions={**machine.versions, **dict(sorted(found.items())), **({"NVIDIA driver": driver} if driver else {})},
    )
