"""The float Keras 3 model on this machine's CPU or GPU: what every exported artifact is compared with.

Nothing here, nor in what it imports, needs TensorFlow or a runtime of exported files: Keras and one back end will do.
"""

import importlib.util
import math
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib import metadata
from pathlib import Path
from typing import get_args

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgecnn.bench import Candidate, CandidateRun, Timeouts, statistics
from edgecnn.bench.comparison import answers_of, images_per_s
from edgecnn.bench.workbench import Opened, Workbench
from edgecnn.data import DataSet
from edgecnn.environment import environment, nvidia
from edgecnn.errors import BenchError, ConfigError, MissingExtraError, ModelError, UnknownNameError
from edgecnn.files import sha256_file
from edgecnn.models import architecture_of
from edgecnn.optional import require
from edgecnn.progress import progress
from edgecnn.records import (
    SCHEMA_VERSION,
    Accuracy,
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
from edgecnn.worker import Worker, WorkerError

BACKENDS = get_args(Backend)
"""In the order in which ``auto`` looks for a GPU."""

BATCHES = tuple(8**power for power in range(1, 8))
"""That throughput is measured with, until it gains no more or memory ends."""

_INSTALL = "pip install keras and one back end: 'jax[cuda12]', torch, or 'tensorflow[and-cuda]'"
_GPU_PACKAGES = ("jax", "nvidia-", "triton")  # how the names of packages start that run a model on a GPU
_CLASSIFIED_AT_ONCE = 256
# height and width of the image where the model leaves them open and there are no data
_FREE_SIZE = 32
_SHIPPED = Path(__file__).parents[1] / "baselines"
_PROCESSES, _BLOCKS = 3, 50
# of the time of one image, that each batch takes; and in how many blocks
_SWEEP_SHARE, _SWEEP_BLOCKS = 8, 10
_GAIN = 1.02  # of throughput, below which a batch is no faster than a smaller one
_MOST_BYTES = 1 << 30  # of a batch's images; larger ones take minutes to compile and to copy
_OPEN_S, _STEP_S = 300.0, 300.0


class _Model(Record, frozen=True):
    """What is known of the model once it is loaded, and the seconds that this took in a fresh process."""

    gpu: str | None
    device: str
    input: TensorSpec
    output: TensorSpec
    import_s: float
    load_s: float


class _Compiled(Record, frozen=True):
    """What is known of it once it has run; the fields are those of a ``Baseline``."""

    compiled_with: str
    tensor_float_32: bool | None
    peak_device_bytes: int | None


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
    output on the device and with the copies from and to the host, in turns, as ``bench`` does it; with as many threads
    as the back end likes (``threads`` 0). Accuracy is counted on all test images of ``data``. Without ``data`` it is
    ``None`` and the model is fed noise. Needs Keras and one back end, no other runtime. The work is done in three
    processes, one after the other; the first one goes on to accuracy and throughput.

    Args:
        path: a ``.keras`` file.
        data: the data set the model was trained on, or ``None``.
        device: "cpu", "gpu", or "auto" for the GPU if the back end sees one.
        backend: "tensorflow", "jax" or "torch"; "auto" takes what ``KERAS_BACKEND`` names, else the first one
            installed that sees a GPU, else the first one installed.
        seconds: how long the latency of one image is measured, in three fresh processes; each batch takes an eighth of
            it, all in one process.
        batches: to measure throughput with, rising. One that gains less than 2 % on the best before, does not fit into
            memory, or has more than 1 GiB of images ends it; the reason is kept.

    Raises:
        ConfigError: an unknown device or back end, ``seconds`` not positive, a file that does not end in ``.keras``.
        MissingExtraError: Keras or the back end is not installed; the message says what is.
        BenchError: the model cannot be opened or run there, or takes other images; the message has the reason.
    """
    if device not in get_args(Device):
        raise UnknownNameError("device", device, get_args(Device))
    check_is_keras(path)
    if not 0 < seconds < math.inf:
        raise ConfigError(f"seconds must be positive, got {seconds:g}")
    try:
        backend = choose_backend(backend, device)
        with _keras_on(backend):
            return _recorded(path, data, device, backend, seconds, batches)
    except WorkerError as error:
        raise BenchError(f"no baseline of {path.name}: {error.reason}") from error
    except (BenchError, ModelError) as error:
        raise BenchError(f"no baseline of {path.name}: {error}") from error


def check_is_keras(path: Path) -> None:
    """Check the ending of a model's file.

    Raises:
        ConfigError: it is not .keras.
    """
    if path.suffix != ".keras":
        raise ConfigError(f"the baseline is measured with a Keras 3 model; {path} does not end in .keras")


def _recorded(
    path: Path, data: DataSet | None, device: str, backend: str, seconds: float, batches: Sequence[int]
) -> Baseline:
    architecture, sha256, machine = architecture_of(path), sha256_file(path), environment()
    accuracy = answers = None
    first, *others = (len(part) for part in np.array_split(range(_BLOCKS), _PROCESSES))
    with Worker(Workbench) as worker:
        model = worker.call("opening the model", _OPEN_S, _open, path, backend, device)
        if data is None:
            image = np.random.default_rng(0).random([size or _FREE_SIZE for size in model.input.shape[1:]], np.float32)
        else:
            _check(model, data)
            image = data.inputs(data.test.images[:1])[0]
        artifact = Artifact(
            file=path.name,
            format="keras",
            scheme="float32",
            input=model.input,
            output=model.output,
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
            top = _classified(worker, data)
            accuracy = Accuracy(correct=int((top == data.test.labels).sum()), total=len(top))
            answers = answers_of(top, data.test)
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
    assert isinstance(row, Result)  # a failure would have been raised
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
    """Measure ``blocks`` of ``run`` in the process it has started in."""
    with progress(doing, blocks) as advance:
        for _ in range(blocks):
            run.block()
            advance()
    run.finish()


def _sweep(
    worker: Worker[Workbench], candidate: Candidate, image: Float, seconds: float, batches: Sequence[int]
) -> tuple[tuple[Measurement, ...], str, int | None]:
    """Measurements of one batch after the other, why they ended, and the most bytes in use by the last of them.

    All in ``worker``, which has the model loaded.
    """
    found: list[Measurement] = []
    best, peak = 0.0, None
    with progress("throughput", len(batches)) as advance:
        for batch in batches:
            if batch * image.nbytes > _MOST_BYTES:
                size = f"its images take {batch * image.nbytes / 1e9:.1f} GB, over the limit of 1 GiB"
                return tuple(found), f"batch {batch} was not tried: {size}", peak
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
            found.append(row.measurement.replace(cold_starts=()))  # no process was fresh
            reached = images_per_s(row.measurement)
            if reached < _GAIN * best:
                return tuple(found), f"batch {batch} gained less than 2 % on smaller ones", peak
            best = max(best, reached)
    return tuple(found), "no larger batch was tried", peak


def _classified(worker: Worker[Workbench], data: DataSet) -> NDArray[np.intp]:
    """Top classes ``(n,)`` of all test images."""
    images, top = data.test.images, []
    with progress("accuracy", len(images)) as advance:
        for start in range(0, len(images), _CLASSIFIED_AT_ONCE):
            part = data.inputs(images[start : start + _CLASSIFIED_AT_ONCE])
            top.append(worker.call("classifying the test images", _STEP_S, _top_classes, part))
            advance(len(part))
    return np.concatenate(top)


def _check(model: _Model, data: DataSet) -> None:
    """Check that ``model`` classifies the images of ``data``.

    Raises:
        BenchError: it does not.
    """
    wanted, classes = (None, *data.input_shape), len(data.class_names)
    pairs = zip(model.input.shape, wanted, strict=False)
    if len(model.input.shape) != 4 or any(size not in (None, one) for size, one in pairs):
        raise BenchError(
            f"it takes {model.input.shape}, the images of {data.name} give {wanted}; "
            "pass the data that the model was trained on"
        )
    if model.output.shape != (None, classes):
        raise BenchError(
            f"it gives {model.output.shape}, {data.name} has {classes} classes; "
            "pass the data that the model was trained on"
        )


def condensed(baseline: Baseline, note: str) -> Baseline:
    """``baseline`` with summaries in place of samples; ``note`` goes in front of its own."""

    def summarised(measurement: Measurement) -> Measurement:
        return measurement.replace(
            warmup=(),
            blocks=(),
            end_to_end=(),
            others_busy=(),
            processes=(),
            cold_starts=(),
            summaries=Summaries(
                invoke=statistics.summary(measurement),
                end_to_end=statistics.end_to_end(measurement),
                warnings=statistics.warnings(measurement, baseline.environment),
            ),
        )

    return baseline.replace(
        measurement=summarised(baseline.measurement),
        throughput=tuple(map(summarised, baseline.throughput)),
        note=note if baseline.note is None else f"{note} {baseline.note}",
    )


def shipped_baselines(architecture: str) -> tuple[Baseline, ...]:
    """The baselines that come with edgecnn for models of this ``architecture`` (see ``models.architecture``).

    Raises:
        RecordError: a file of the package is damaged.
    """
    shipped = (load_baseline(path) for path in sorted(_SHIPPED.glob("*.json")))
    return tuple(baseline for baseline in shipped if baseline.architecture == architecture)


def load_baseline(path: Path) -> Baseline:
    """Read a baseline that ``edgecnn baseline`` recorded.

    Raises:
        RecordError: no such file, not a baseline, or of another version of edgecnn's records.
    """
    return read_record(path, Baseline)


# Which back end


def choose_backend(wanted: str, device: str) -> str:
    """The back end to use: the one wanted, or for ``auto`` the best there is; arguments as in ``record_baseline``.

    Raises:
        UnknownNameError, MissingExtraError: there is no such back end, or it is not installed.
        BenchError: ``KERAS_BACKEND`` names none; or the device is "gpu" and no back end sees one; or one cannot be
            imported.
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
    if device == "cpu" or (device == "auto" and len(installed) == 1):
        return installed[0]
    for backend in installed:
        try:
            with Worker(Workbench) as worker:
                if worker.call(f"looking for a GPU with {backend}", _OPEN_S, _sees_gpu, backend) is not None:
                    return backend
        except WorkerError as error:
            raise BenchError(f"{backend} cannot be asked for a GPU: {error.reason}; choose a --backend") from error
    if device == "gpu":
        raise BenchError(
            f"no GPU that Keras can use: none is seen by what is installed, {', '.join(installed)}; check that the "
            f"driver works (nvidia-smi) and that a back end is built for CUDA: {_INSTALL}"
        )
    return installed[0]


@contextmanager
def _keras_on(backend: str) -> Iterator[None]:
    """Keras has this back end in every process that starts meanwhile; it reads the variable when it is imported."""
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
        except RuntimeError:  # how JAX says that there is none
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
    # not through open_session, whose Session knows nothing of compilers
    workbench.session = session = KerasSession(path, 0, 1, device)
    load_s = time.perf_counter() - start
    return _Model(gpu=gpu, device=device, input=session.input, output=session.output, import_s=import_s, load_s=load_s)


def _top_classes(workbench: Workbench, images: Float) -> NDArray[np.intp]:
    workbench.session.batch = _CLASSIFIED_AT_ONCE
    top: NDArray[np.intp] = predict(workbench.session, images).argmax(axis=1)
    return top


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
    """``machine`` with the GPU, its driver, and the packages that bring CUDA, if the model ran there."""
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
