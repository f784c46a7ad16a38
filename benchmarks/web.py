"""The suite ``web``: what does the generated C cost in a browser?

The same int8 model, one thread, batch 1, as C compiled for this processor, as the same C in WebAssembly, and in two
runtimes for browsers. In every round, each way has a fresh process, in random order: for a browser, a fresh Chromium.
Its pages are cross-origin isolated, because the timer of other pages is twenty times coarser.
"""

import os
import subprocess
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from benchmarks.client_programs import OPEN, in_chromium
from benchmarks.clients import installed, packages_of
from benchmarks.markdown import grid, measured_on, one_thread
from benchmarks.models import trained
from benchmarks.suite import ModelSuite, read_suite
from edgecnn import environment
from edgecnn.embed.web import script
from edgecnn.errors import BenchError, RecordError
from edgecnn.files import make_folder, sha256_file
from edgecnn.formats import FORMATS, export_file, provenance_of
from edgecnn.formats.source import Source
from edgecnn.measure import Candidate, statistics
from edgecnn.measure.schedule import rounds
from edgecnn.measure.statistics import Estimate
from edgecnn.measure.workbench import Workbench
from edgecnn.models import save_model
from edgecnn.progress import progress
from edgecnn.quantization.schemes import SCHEMES
from edgecnn.records import Amount, Artifact, Count, Environment, Measurement, Name, Record
from edgecnn.report import units
from edgecnn.runtimes import Float, open_session
from edgecnn.runtimes.quantized_io import to_inputs
from edgecnn.worker import Worker

NATIVE, WASM = "C, clang -O3", "C, WebAssembly"
# by client: the format of its file, and what it is told to use one thread
OTHERS = {"onnxruntime-web": ("onnx", "\nort.env.wasm.numThreads = 1;\n"), "litert-js": ("tflite", "")}

LIMIT = 3.0
"""Allowed time in WebAssembly ÷ time of the same C compiled for the processor."""

_LIMIT_S = 300.0
_MOST_STEPS = 8  # of an output of 256 steps, by which the kernels of other runtimes may round differently
_ISOLATED = {"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp"}
_OPEN_C = """
async function open(model) {
  (0, eval)(new TextDecoder().decode(model));
  const loaded = await edgecnn.load();
  return (sample) => loaded.run(sample);
}
"""
# A promise that is ready takes far less than the timer's resolution.
_TIME = """
if (!crossOriginIsolated) throw new Error("the page is not cross-origin isolated");
const sample = all.slice(0, size);
let output;
for (let turn = 0; turn < %d; turn++) output = await run(sample);
const times = [];
for (let turn = 0; turn < %d; turn++) {
  const start = performance.now();
  output = await run(sample);
  times.push(performance.now() - start);
}
let resolution = Infinity;
for (let turn = 0, last = performance.now(); turn < 1e5; turn++) {
  const now = performance.now();
  if (now > last) resolution = Math.min(resolution, now - last);
  last = now;
}
const loaded = performance.getEntriesByType("resource").reduce((sum, one) => sum + one.decodedBodySize, 0);
return {times, resolution, loaded, output: Array.from(output)};
"""


class Settings(ModelSuite, frozen=True):
    """Settings of the suite; see the TOML file."""

    rounds: int
    warmup: int
    runs: int


class Row(Record, frozen=True):
    """A model and a way to run it; ``loaded_bytes`` is what a page loads for it, uncompressed, 0 without a page."""

    model: Name
    way: Name
    measurement: Measurement
    loaded_bytes: Count


class Browser(Record, frozen=True):
    """The result of the suite: ``programs`` with their versions, and the resolution of the timer in the pages."""

    environment: Environment
    programs: tuple[Name, ...]
    resolution_s: Amount
    rows: tuple[Row, ...]


class Taken(msgspec.Struct):
    """What a process gave: samples in nanoseconds, the resolution of the timer in a page, and what the page loaded."""

    samples_ns: list[int]
    resolution_s: float = 0.0
    loaded_bytes: int = 0


class Way(msgspec.Struct):
    """A way to run a model: its file, and a function that measures it in a fresh process."""

    model: str
    name: str
    artifact: Artifact
    measure: Callable[[], Taken]


def run(path: Path, out: Path) -> Browser:
    """Write the files of the suite at ``path`` into the folder ``out`` and measure each in every way, interleaved.

    Raises:
        BenchError: a page fails, or another answer than that of the C code comes from it.
    """
    suite = read_suite(path, Settings)
    os.environ["CC"] = "clang"  # as for WebAssembly
    before = environment.environment()
    ways = [way for name in suite.models for way in _ways(name, suite, make_folder(out))]
    taken: list[list[Taken]] = [[] for _ in ways]
    with progress("measuring", suite.rounds * len(ways)) as advance:
        for order in rounds(len(ways), suite.rounds, suite.seed):
            for index in order:
                advance(note=f"{ways[index].model}: {ways[index].name}")
                taken[index].append(ways[index].measure())
    programs = [*map(_version, ("chromium", "clang")), *(one for name in OTHERS for one in packages_of(name))]
    return Browser(
        environment=before,
        programs=tuple(programs),
        resolution_s=max(one.resolution_s for blocks in taken for one in blocks),
        rows=tuple(_row(way, blocks) for way, blocks in zip(ways, taken, strict=True)),
    )


def _version(program: str) -> str:
    """The first line of what ``program`` says of its version."""
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    return said.stdout.splitlines()[0].strip()


def _row(way: Way, blocks: Sequence[Taken]) -> Row:
    """The row of a way; each block comes from its own process."""
    measurement = Measurement(
        artifact=way.artifact.name,
        artifact_sha256=way.artifact.sha256,
        runtime=way.name,
        device="cpu",
        threads=1,
        batch=1,
        load_s=0.0,
        warmup_ns=(),
        blocks_ns=tuple(tuple(one.samples_ns) for one in blocks),
        blocks_per_process=(1,) * len(blocks),
    )
    return Row(model=way.model, way=way.name, measurement=measurement, loaded_bytes=blocks[0].loaded_bytes)


def _ways(name: str, suite: Settings, out: Path) -> list[Way]:
    """Every way to run a model, whose files are written into ``out``."""
    model, data = trained(name, suite.seed, suite.images, 1, suite.images)
    source = Source(model, None, data.calibration(suite.images), "uint8", 1)  # LiteRT.js takes no int8
    save_model(model, out / f"{name}.keras")
    about = provenance_of(name, sha256_file(out / f"{name}.keras"), data)
    made = {
        kind: export_file(source, format=file_format, scheme=SCHEMES["int8"], provenance=about, folder=out)
        for kind, file_format in FORMATS.items()
    }
    files = {kind: out / artifact.file for kind, artifact in made.items()}
    image = data.inputs(data.test.images[:1])
    with closing(open_session(files["c99"])) as session:
        session.encode(image)
        session.invoke()
        wanted = session.take().ravel().astype(np.int64)

    def way(name_of_way: str, kind: str, opening: str, content: bytes, packages: Path, most: int) -> Way:
        samples = to_inputs(image, made[kind].inputs)

        def measure() -> Taken:
            found = _in_page(opening, suite, content, samples, packages)
            if np.abs(np.array(found["output"], np.int64) - wanted).max() > most:
                raise BenchError(f"{name_of_way} answers {found['output']} for {name}, the C code {wanted.tolist()}")
            return Taken([round(1e6 * each) for each in found["times"]], found["resolution"] / 1e3, found["loaded"])

        return Way(name, name_of_way, made[kind], measure)

    native = partial(_native, Candidate(path=files["c99"], artifact=made["c99"]), image[0], suite)
    ways = [
        Way(name, NATIVE, made["c99"], native),
        way(WASM, "tflite", _OPEN_C, script(files["tflite"]).content, out, 0),
    ]
    for client, (kind, more) in OTHERS.items():
        packages = Path(installed(client)).parents[2]
        ways.append(way(client, kind, OPEN[client] + more, files[kind].read_bytes(), packages, _MOST_STEPS))
    return ways


def _native(candidate: Candidate, image: Float, suite: Settings) -> Taken:
    with Worker(Workbench) as worker:
        worker.call("opening the file", _LIMIT_S, Workbench.open, candidate, image)
        return Taken(worker.call("running", _LIMIT_S, Workbench.block, suite.warmup, suite.runs, 0).samples_ns)


def _in_page(opening: str, suite: Settings, content: bytes, samples: Any, packages: Path) -> Any:
    """What ``_TIME`` returns in a page of a fresh Chromium; times are in milliseconds."""
    try:
        return in_chromium(opening, _TIME % (suite.warmup, suite.runs), content, samples, packages, _ISOLATED)
    except (ValueError, TimeoutError) as error:
        raise BenchError(f"a page failed: {error}") from error


def row_of(result: Browser, model: str, way: str) -> Measurement:
    """The measurement of a model run in one way.

    Raises:
        RecordError: there is none.
    """
    for row in result.rows:
        if (row.model, row.way) == (model, way):
            return row.measurement
    raise RecordError(f"the result has no {way} of {model}; run: python -m benchmarks run web")


def slowdown(result: Browser, model: str) -> Estimate:
    """Time in WebAssembly ÷ time of the same C compiled for the processor."""
    return statistics.ratio(row_of(result, model, WASM), row_of(result, model, NATIVE))


def table(result: Browser, source: str) -> str:
    """The result as Markdown; ``source`` names its file."""
    models = tuple(dict.fromkeys(row.model for row in result.rows))
    medians = {(row.model, row.way): float(np.median(row.measurement.samples_s)) for row in result.rows}
    unit = units.unit_for(medians.values())
    rows = []
    for row in result.rows:
        ratios = (
            statistics.ratio(row.measurement, row_of(result, row.model, reference)) for reference in (NATIVE, WASM)
        )
        shown = (str(units.ratio_interval(one.value, one.low, one.high)) for one in ratios)
        loaded = f"{row.loaded_bytes / 1e6:.2f}" if row.loaded_bytes else "—"
        rows.append((row.model, row.way, units.time(medians[row.model, row.way], unit), *shown, loaded))
    titles = (
        "model, int8", "run as", f"median, {unit.name}", "time ÷ C [95 %]", "time ÷ C in WebAssembly [95 %]",
        "page loads, MB",
    )  # fmt: skip
    slow = [f"{model} {units.ratio(slowdown(result, model).value)}" for model in models]
    missed = [model for model in models if slowdown(result, model).value > LIMIT]
    measured = result.rows[0].measurement
    how = (
        f"{one_thread(result.environment)}, {len(measured.blocks_ns)} rounds of {len(measured.blocks_ns[0])} inferences"
    )
    notes = (
        f"Limit: WebAssembly takes at most {LIMIT:g} times as long as the same C: {', '.join(slow)}. "
        f"{f'Missed: {chr(44).join(missed)}.' if missed else 'It is met.'}",
        f"The timer of the pages has a resolution of {units.duration(result.resolution_s)}. "
        f"{', '.join(result.programs)}. Measured on {measured_on(result.environment, how)}. Every sample is in "
        f"`{source}`.",
    )
    return "\n\n".join((grid(titles, rows, words=2), *notes))
