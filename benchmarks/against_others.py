"""The suite ``against-others``: does edgecnn measure what the runtimes' own tools measure?

The same file, one thread, batch 1. Each method runs in a fresh process, in random order in every round:

- a .tflite by edgecnn, by ``ai_edge_litert.tools.benchmark_litert_model``, and by edgecnn's loop around CompiledModel,
  the interface of that tool. edgecnn itself uses Interpreter; this separates the interface from the timing method;
- an .onnx by edgecnn and by a plain C loop over ONNX Runtime's C API (``ort_loop.c``), because the wheel has no timing
  tool that reports a median. Also a model that copies one number: its difference between Python and C is the overhead
  of the call from Python;
- an empty call, by edgecnn: the overhead of its loop.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import msgspec
import numpy as np

from benchmarks.markdown import grid, measured_on, one_thread
from benchmarks.models import trained
from benchmarks.suite import ModelSuite, read_suite
from edgecnn import artifacts, environment
from edgecnn.errors import BenchError, RecordError
from edgecnn.files import make_folder, sha256_file, write_atomic
from edgecnn.formats import FORMATS, provenance_of
from edgecnn.formats.source import Source
from edgecnn.measure import Candidate, statistics
from edgecnn.measure.schedule import rounds
from edgecnn.measure.statistics import Estimate
from edgecnn.measure.timing import time_calls
from edgecnn.measure.workbench import Workbench
from edgecnn.models import MODELS, save_model
from edgecnn.optional import require
from edgecnn.progress import progress
from edgecnn.quantization.schemes import SCHEMES
from edgecnn.records import SCHEMA_VERSION, Artifact, Measurement, Record, Report, Result, TensorSpec
from edgecnn.report import units
from edgecnn.runtimes import Float
from edgecnn.runtimes.quantized_io import to_input
from edgecnn.worker import Worker

OURS = ("litert", "onnxruntime")
TOOL = "benchmark_litert_model"
COMPILED = "CompiledModel in edgecnn's loop"
C_LOOP = "C API"
IDENTITY = "identity.onnx"
EMPTY, EMPTY_LOOP = "empty runtime, sample", "empty runtime, whole loop"

LIMIT = 0.03
"""Allowed relative difference between edgecnn's median and the other tool's, adjusted for the interface."""

OVERHEAD_LIMIT_S = 1e-6
"""Allowed overhead of edgecnn's loop per sample, in seconds."""

_SCHEMES = ("float32", "int8")
_LIMIT_S = 600.0
_SOURCE = Path(__file__).with_name("ort_loop.c")
_FLAGS = ("-std=c99", "-O2", "-Wall", "-Wextra", "-Werror", "-D_POSIX_C_SOURCE=200809L")
_ONNX_TYPES = {"float32": 1, "uint8": 2, "int8": 3}
# The tool rounds its median to 10 µs, too coarse for a small model; this disables the rounding.
_RUN_TOOL = f"""
from ai_edge_litert.tools import {TOOL} as tool
tool.round = lambda value, digits: value
tool.run_benchmark(tool.parse_args())
"""


class Settings(ModelSuite, frozen=True):
    """Settings of the suite; see the TOML file."""

    rounds: int
    warmup: int
    runs: int


def run(path: Path, out: Path) -> Report:
    """Write the files of the suite at ``path`` into the folder ``out`` and measure each with every method, interleaved.

    Raises:
        BenchError: there is no C compiler, or a measurement fails.
    """
    suite = read_suite(path, Settings)
    make_folder(out)
    machine_before = environment.environment()
    with tempfile.TemporaryDirectory() as folder:
        ways = [*_empty(suite)]
        program = _compiled(Path(folder))
        ways += _ways(_identity(out), np.zeros((1, 1, 1), np.float32), suite, program)
        for name in suite.models:
            image = np.random.default_rng(suite.seed).random(MODELS[name]().input_shape[1:], np.float32)
            for artifact in _made(name, suite, out):
                ways += _ways(Candidate(path=out / artifact.file, artifact=artifact), image, suite, program)
        blocks: list[list[tuple[int, ...]]] = [[] for _ in ways]
        with progress("measuring", suite.rounds * len(ways)) as advance:
            for order in rounds(len(ways), suite.rounds, suite.seed):
                for index in order:
                    advance(note=f"{ways[index].artifact.name}: {ways[index].name}")
                    blocks[index].append(tuple(ways[index].measure()))
    return Report(
        schema_version=SCHEMA_VERSION,
        title="edgecnn against the runtimes' own tools",
        data=None,
        data_sha256=None,
        test_images=0,
        environment=machine_before,
        seed=suite.seed,
        rows=tuple(way.row(taken) for way, taken in zip(ways, blocks, strict=True)),
        parities=(),
    )


def _made(name: str, suite: Settings, out: Path) -> list[Artifact]:
    """The files of a model, written into ``out``."""
    model, data = trained(name, suite.seed, suite.images, 1, suite.images)
    source = Source(model, None, data.calibration(suite.images), "int8", 1)
    save_model(model, out / f"{name}.keras")
    provenance = provenance_of(name, sha256_file(out / f"{name}.keras"), data)
    found = []
    for file_format in FORMATS.values():
        if file_format.name not in ("tflite", "onnx"):
            continue
        for scheme in _SCHEMES:
            content = file_format.convert(source, SCHEMES[scheme])
            path = out / f"{name}-{scheme}.{file_format.name}"
            write_atomic(path, file_format.with_provenance(content, provenance.replace(scheme=scheme)))
            found.append(artifacts.describe(path))
    return found


def _identity(out: Path) -> Candidate:
    """A model that copies one number, written into ``out``."""
    onnx = require("onnx")
    shape = [1, 1, 1, 1]
    source, target = (
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name in ("input", "output")
    )
    node = onnx.helper.make_node("Identity", ["input"], ["output"])
    model = onnx.helper.make_model(
        onnx.helper.make_graph([node], "identity", [source], [target]),
        opset_imports=[onnx.helper.make_opsetid("", 17)],
        ir_version=9,
    )
    write_atomic(out / IDENTITY, model.SerializeToString())
    return Candidate(path=out / IDENTITY, artifact=artifacts.describe(out / IDENTITY))


# Ways to measure


class Way(msgspec.Struct, frozen=True):
    """A method to measure a file: its name, and a function that returns samples of a fresh process, in nanoseconds."""

    name: str
    artifact: Artifact
    measure: Callable[[], Sequence[int]]

    def row(self, blocks: Sequence[tuple[int, ...]]) -> Result:
        """The report row; each block comes from its own process."""
        measurement = Measurement(
            artifact=self.artifact.name,
            artifact_sha256=self.artifact.sha256,
            runtime=self.name,
            device="cpu",
            threads=1,
            batch=1,
            load_s=0.0,
            warmup_ns=(),
            blocks_ns=tuple(blocks),
            blocks_per_process=(1,) * len(blocks),
        )
        return Result(artifact=self.artifact, measurement=measurement)


def _ways(candidate: Candidate, image: Float, suite: Settings, program: Path) -> list[Way]:
    artifact = candidate.artifact
    ours = OURS[artifact.format == "onnx"]
    found = [Way(ours, artifact, partial(_by_edgecnn, candidate, image, suite))]
    if artifact.format == "onnx":
        return [*found, Way(C_LOOP, artifact, partial(_by_c_loop, candidate, image, suite, program))]
    return [
        *found,
        Way(TOOL, artifact, partial(_by_tool, candidate.path, suite)),
        Way(COMPILED, artifact, partial(_in_worker, _time_compiled_model, candidate.path, suite)),
    ]


def _empty(suite: Settings) -> list[Way]:
    spec = TensorSpec(name="nothing", shape=(None, 0), dtype="float32", layout="NC")
    nothing = Artifact(
        file="nothing", format="none", scheme="none", input=spec, output=spec, sha256="0" * 64, size_bytes=0
    )
    return [
        Way(EMPTY, nothing, partial(_in_worker, _time_nothing, Path(), suite)),
        Way(EMPTY_LOOP, nothing, partial(_in_worker, _time_loop_over_nothing, Path(), suite)),
    ]


def _by_edgecnn(candidate: Candidate, image: Float, suite: Settings) -> list[int]:
    with Worker(Workbench) as worker:
        worker.call("opening the file", _LIMIT_S, Workbench.open, candidate, image)
        return worker.call("running", _LIMIT_S, Workbench.block, suite.warmup, suite.runs, 0).samples_ns


def _in_worker(step: Callable[[Workbench, Path, Settings], list[int]], path: Path, suite: Settings) -> list[int]:
    with Worker(Workbench) as worker:
        return worker.call("running", _LIMIT_S, step, path, suite)


def _by_tool(path: Path, suite: Settings) -> list[int]:
    """The tool's median, its only result, as one sample in nanoseconds."""
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.json"
        options = {"model": path, "num_threads": 1, "warmup_runs": suite.warmup, "num_runs": suite.runs}
        options["result_json"] = result
        arguments = [f"--{name}={value}" for name, value in options.items()]
        _checked([sys.executable, "-P", "-c", _RUN_TOOL, *arguments], b"")
        return [round(json.loads(result.read_bytes())["latency"]["median_ms"] * 1e6)]


def _by_c_loop(candidate: Candidate, image: Float, suite: Settings, program: Path) -> list[int]:
    """The C loop's samples in nanoseconds.

    Raises:
        BenchError: the output differs from that of edgecnn's session, so the program uses the API wrongly.
    """
    library = next(Path(require("onnxruntime").__file__).parent.glob("capi/libonnxruntime.so.*"))
    source, target = candidate.artifact.input, candidate.artifact.output
    images = to_input(image[np.newaxis], source)
    tensors: list[object] = []
    for spec in (source, target):
        shape = [size or 1 for size in spec.shape]
        size = int(np.prod(shape)) * np.dtype(spec.dtype).itemsize
        tensors += [_ONNX_TYPES[spec.dtype], size, len(shape), *shape]
    command = [program, library, candidate.path, 1, suite.warmup, suite.runs, source.name, target.name, *tensors]
    version, times, output = _checked([str(part) for part in command], images.tobytes()).split(b"\n", 2)
    wanted = require("onnxruntime").InferenceSession(str(candidate.path)).run(None, {source.name: images})[0]
    got = np.frombuffer(output, target.dtype).reshape(wanted.shape)
    if version.decode() != require("onnxruntime").__version__ or not np.allclose(got, wanted, atol=1e-5):
        raise BenchError(f"{_SOURCE.name} returns other outputs for {candidate.path.name} than ONNX Runtime in Python")
    return [int(time) for time in times.split()]


def _compiled(folder: Path) -> Path:
    """Compile ``ort_loop.c`` into ``folder``."""
    compiler = shutil.which("cc")
    if compiler is None:
        raise BenchError("this suite compares with a C loop and needs a C compiler; install gcc or clang")
    program = folder / "ort_loop"
    _checked([compiler, *_FLAGS, str(_SOURCE), "-o", str(program), "-ldl"], b"")
    return program


def _checked(command: Sequence[str], stdin: bytes) -> bytes:
    ended = subprocess.run(command, input=stdin, capture_output=True, timeout=_LIMIT_S, check=False)
    if ended.returncode:
        last = (ended.stderr.decode(errors="replace").strip().splitlines() or ["no message"])[-1]
        raise BenchError(f"{Path(command[0]).name} ended with exit status {ended.returncode}: {last}")
    return ended.stdout


# In the worker


def _time_compiled_model(workbench: Workbench, path: Path, suite: Settings) -> list[int]:
    """Time CompiledModel, set up as the tool does, in edgecnn's loop."""
    compiled_model = require("ai_edge_litert.compiled_model").CompiledModel
    accelerators = require("ai_edge_litert.hardware_accelerator").HardwareAccelerator
    options = require("ai_edge_litert.options")
    model = compiled_model.from_file(
        str(path),
        options=options.Options(hardware_accelerators=accelerators.CPU, cpu_options=options.CpuOptions(num_threads=1)),
    )
    (signature,) = model.get_signature_list()
    inputs = {
        name: model.create_input_buffer_by_name(signature, name) for name in model.get_input_tensor_details(signature)
    }
    outputs = {
        name: model.create_output_buffer_by_name(signature, name) for name in model.get_output_tensor_details(signature)
    }
    for name, details in model.get_input_tensor_details(signature).items():
        inputs[name].write(np.zeros(details["shape"], details["dtype"]))
    call = partial(model.run_by_name, signature, inputs, outputs)
    time_calls(call, suite.warmup)
    return time_calls(call, suite.runs)


class _Empty:
    """A session that does nothing."""

    def invoke(self) -> None:
        """Do nothing."""


def _time_nothing(workbench: Workbench, path: Path, suite: Settings) -> list[int]:
    time_calls(_Empty().invoke, suite.warmup)
    return time_calls(_Empty().invoke, suite.runs)


def _time_loop_over_nothing(workbench: Workbench, path: Path, suite: Settings) -> list[int]:
    """The time of one loop iteration, measured around the whole loop: one sample."""
    invoke = _Empty().invoke
    time_calls(invoke, suite.warmup)
    return [round(whole / suite.runs) for whole in time_calls(partial(time_calls, invoke, suite.runs), 1)]


# The table


class Agreement(Record, frozen=True):
    """Ratio of edgecnn's median time of a file to the other tool's, and the same ratio with the same interface.

    ``like`` uses edgecnn's loop around the tool's interface (.tflite), or edgecnn's time without the overhead of the
    call from Python (.onnx).
    """

    file: str
    other: str
    ours: Measurement
    theirs: Measurement
    ratio: Estimate
    like: Estimate

    @property
    def agrees(self) -> bool:
        """Whether either ratio is within the limit."""
        return min(abs(self.ratio.value - 1), abs(self.like.value - 1)) <= LIMIT


def measurement_of(report: Report, file: str, way: str) -> Measurement:
    """The measurement of ``file`` with the method ``way``.

    Raises:
        RecordError: ``report`` has none.
    """
    for row in report.rows:
        if isinstance(row, Result) and (row.artifact.file, row.measurement.runtime) == (file, way):
            return row.measurement
    raise RecordError(f"the result has no {way} of {file}; run: python -m benchmarks run against-others")


def agreements(report: Report) -> tuple[Agreement, ...]:
    """The comparison of every file."""
    files = dict.fromkeys(row.artifact.file for row in report.rows if isinstance(row, Result))
    found = []
    for file in files:
        if file.endswith(".tflite"):
            ours, theirs = measurement_of(report, file, OURS[0]), measurement_of(report, file, TOOL)
            alike = measurement_of(report, file, COMPILED)
        elif file.endswith(".onnx") and file != IDENTITY:
            ours, theirs = measurement_of(report, file, OURS[1]), measurement_of(report, file, C_LOOP)
            cost_ns = round(1e9 * call_s(report))
            blocks_ns = tuple(tuple(sample - cost_ns for sample in block) for block in ours.blocks_ns)
            alike = ours.replace(blocks_ns=blocks_ns)
        else:
            continue
        ratio, like = statistics.ratio(ours, theirs), statistics.ratio(alike, theirs)
        other = theirs.runtime
        found.append(Agreement(file=file, other=other, ours=ours, theirs=theirs, ratio=ratio, like=like))
    return tuple(found)


def call_s(report: Report) -> float:
    """Overhead of calling ONNX Runtime from Python instead of C, in seconds: difference of medians."""
    ours, theirs = (measurement_of(report, IDENTITY, way) for way in (OURS[1], C_LOOP))
    return float(np.median(ours.samples_s) - np.median(theirs.samples_s))


def overhead_s(report: Report) -> tuple[float, float]:
    """Median overhead of edgecnn's loop in seconds: per sample, and of a whole iteration."""
    per_sample, per_turn = (measurement_of(report, "nothing", way) for way in (EMPTY, EMPTY_LOOP))
    return float(np.median(per_sample.samples_s)), float(np.median(per_turn.samples_s))


def missed(report: Report) -> tuple[str, ...]:
    """A message for each missed limit."""
    found = [
        f"{one.file}: edgecnn's median is {units.ratio(one.ratio.value)} of {one.other}'s"
        for one in agreements(report)
        if not one.agrees
    ]
    for what, cost in zip(("a sample", "a loop iteration"), overhead_s(report), strict=True):
        if cost > OVERHEAD_LIMIT_S:
            found.append(f"overhead of {what} is {units.duration(cost)}")
    return tuple(found)


def table(report: Report, source: str) -> str:
    """The result as Markdown; ``source`` names its file."""
    found = agreements(report)
    unit = units.unit_for(float(np.median(one.ours.samples_s)) for one in found)
    rows = []
    for one in found:
        times = (units.time(float(np.median(way.samples_s)), unit) for way in (one.ours, one.theirs))
        rows.append((one.file, one.other, *times, _text(one.ratio), _text(one.like)))
    titles = (
        "file", "compared with", f"edgecnn, {unit.name}", f"the other, {unit.name}", "edgecnn ÷ the other [95 %]",
        "like for like [95 %]",
    )  # fmt: skip
    per_sample, per_turn = overhead_s(report)
    limits = missed(report)
    verdict = f"Missed: {'; '.join(limits)}." if limits else "All are met."
    measured = next(one.ours for one in found)
    how = (
        f"{one_thread(report.environment)}, {len(measured.blocks_ns)} rounds of {len(measured.blocks_ns[0])} inferences"
    )
    notes = (
        f"Like for like: edgecnn runs a .tflite in LiteRT's Interpreter, {TOOL} in CompiledModel, which matters for a "
        "small model; this column uses edgecnn's loop around CompiledModel. A call of ONNX Runtime takes "
        f"{units.duration(call_s(report))} longer from Python than from C, measured with a model that copies one "
        "number; this column subtracts it.",
        f"With a runtime that does nothing, a sample is {units.duration(per_sample)} and a loop iteration takes "
        f"{units.duration(per_turn)}.",
        f"Limits: edgecnn's median, in either column, within {LIMIT:.0%} of the other's; a sample and a loop iteration "
        f"at most {units.duration(OVERHEAD_LIMIT_S)}. {verdict}",
        f"Measured on {measured_on(report.environment, how)}. Every sample is in `{source}`.",
    )
    return "\n\n".join((grid(titles, rows, words=2), *notes))


def _text(ratio: Estimate) -> str:
    return str(units.ratio_interval(ratio.value, ratio.low, ratio.high))
