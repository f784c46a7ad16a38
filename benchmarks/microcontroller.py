"""The suite ``microcontroller``: what does the generated C cost on a Cortex-M, and does it match TFLite Micro?

Executed instructions are counted in QEMU and are deterministic. They are not timings: QEMU models neither pipelines nor
memories. TFLite Micro is not measured here; its figures are references (see ``REFERENCE``).
"""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from benchmarks.markdown import grid, measured_on
from benchmarks.models import trained
from benchmarks.suite import ModelSuite, check_names, read_suite
from edgecnn import emulation
from edgecnn.data import Images
from edgecnn.emulation.machine import Int8, tool_versions
from edgecnn.environment import environment
from edgecnn.errors import RecordError
from edgecnn.files import make_folder, write_atomic
from edgecnn.formats import c99, tflite
from edgecnn.formats.source import Source
from edgecnn.optional import require
from edgecnn.progress import progress
from edgecnn.quantization.schemes import SCHEMES
from edgecnn.records import Environment, Record
from edgecnn.report import units
from edgecnn.tflite.graph import read_graph

M4, M55, LEVEL = "cortex-m4", "cortex-m55", "-O2"


class Figures(Record, frozen=True):
    """For one model: instructions per inference on Cortex-M4F and M55, bytes of code without weights, bytes of arena.

    ``None`` means unknown or no limit.
    """

    m4: float | None = None
    m55: float | None = None
    code: int | None = None
    arena: int | None = None


LIMITS = {
    "mnist_cnn": Figures(m4=4.6e6, m55=1.26e6, code=6 * 1024, arena=27_100),
    "ds_cnn": Figures(m4=7.0e6, m55=1.81e6, code=8 * 1024, arena=16_300),
    "resnet8": Figures(m4=22e6, code=8 * 1024, arena=49_800),
    "mobilenet_v1_025": Figures(m4=22e6, code=8 * 1024, arena=64_600),
}
"""Limits with -O2."""

REFERENCE = {
    "mnist_cnn": Figures(m4=6.31e6, m55=1.26e6, arena=30_084),
    "ds_cnn": Figures(m4=7.70e6, m55=1.81e6, arena=22_820),
    "resnet8": Figures(m4=29.9e6, arena=54_996),
    "mobilenet_v1_025": Figures(m4=24.1e6, arena=100_708),
}
"""TFLite Micro with CMSIS-NN: the source of the limits. Counted elsewhere, not by this suite."""


class Settings(ModelSuite, frozen=True):
    """Settings of the suite. ``images`` calibrate the ranges; the models are trained as in ``int8-onnx``."""

    targets: tuple[str, ...]
    levels: tuple[str, ...]
    train_images: int
    epochs: int
    test_images: int


class Row(Record, frozen=True):
    """One model on one target with one optimisation level; sizes in bytes as in ``edgecnn.emulation.Firmware``.

    ``input`` and ``output`` are the sizes of the caller's two arrays, which are not in the arena. ``wrong_bytes`` is
    the number of output bytes for ``images`` images that differ from TFLite Micro's.
    """

    model: str
    target: str
    level: str
    instructions: int
    functions: dict[str, int]
    stack: int
    code: int
    constants: int
    ram: int
    arena: int
    input: int
    output: int
    images: int
    wrong_bytes: int


class Counts(Record, frozen=True):
    """The result of the suite. ``tools`` holds the versions of compiler and emulator."""

    schema_version: int
    seed: int
    tools: dict[str, str]
    environment: Environment
    rows: tuple[Row, ...]


SCHEMA_VERSION = 1


def run(path: Path, out: Path) -> Counts:
    """Train and convert the models of the suite at ``path``, keep the .tflite files in ``out``, and count."""
    suite = read_suite(path, Settings)
    check_names(path, "target", suite.targets, emulation.TARGETS)
    check_names(path, "level", suite.levels, emulation.LEVELS)
    make_folder(out)
    rows: list[Row] = []
    for name in suite.models:
        model, data = trained(name, suite.seed, suite.train_images, suite.epochs, suite.test_images)
        source = Source(model, None, data.calibration(suite.images), "int8", 1)
        content = tflite.convert(source, SCHEMES["int8"])
        write_atomic(out / f"{name}-int8.tflite", content)
        rows += _counted(name, content, data.inputs(data.test.images[: suite.test_images]), suite)
    return Counts(
        schema_version=SCHEMA_VERSION,
        seed=suite.seed,
        tools=tool_versions(M4),
        environment=environment(),
        rows=tuple(rows),
    )


def _counted(name: str, model: bytes, images: Images, suite: Settings) -> list[Row]:
    graph = read_graph(model, name)
    sources, arena = emulation.generate(graph, name), c99.to_c(graph, name).plan.arena_bytes
    inputs, answers = by_tflite_micro(model, images)
    rows = []
    with progress(f"count {name}", len(suite.targets) * len(suite.levels)) as advance, TemporaryDirectory() as folder:
        for target in suite.targets:
            for level in suite.levels:
                firmware = emulation.build(sources, target, Path(folder), level)
                outputs = emulation.run(firmware, inputs)
                cost = emulation.count(firmware, inputs[0])
                rows.append(
                    Row(
                        model=name,
                        target=target,
                        level=level,
                        instructions=cost.instructions,
                        functions=cost.functions,
                        stack=cost.stack,
                        code=firmware.code,
                        constants=firmware.constants,
                        ram=firmware.ram,
                        arena=arena,
                        input=sources.input_size,
                        output=sources.output_size,
                        images=len(inputs),
                        wrong_bytes=int(np.count_nonzero(outputs != answers)),
                    )
                )
                advance(note=f"{target} {level}")
    return rows


def by_tflite_micro(model: bytes, images: Images) -> tuple[Int8, Int8]:
    """The quantised ``images`` ``(n, height, width, channels)`` and TFLite Micro's outputs, one int8 row per image."""
    interpreter = require("tflite_micro").runtime.Interpreter.from_bytes(model, arena_size=1_000_000)
    details = interpreter.get_input_details(0)["quantization_parameters"]
    steps = np.round(images / details["scales"][0]) + details["zero_points"][0]
    inputs = np.clip(steps, -128, 127).astype(np.int8)
    outputs = []
    for image in inputs:
        interpreter.set_input(image[np.newaxis], 0)
        interpreter.invoke()
        outputs.append(interpreter.get_output(0).reshape(-1).copy())
    return inputs.reshape(len(inputs), -1), np.stack(outputs)


# The table


def row_of(counts: Counts, model: str, target: str, level: str = LEVEL) -> Row:
    """The row of a model on a target.

    Raises:
        RecordError: ``counts`` has none.
    """
    for row in counts.rows:
        if (row.model, row.target, row.level) == (model, target, level):
            return row
    raise RecordError(
        f"the result has no row for {model} on {target} with {level}; run: python -m benchmarks run microcontroller"
    )


def models_of(counts: Counts) -> tuple[str, ...]:
    """The models of ``counts``, in order."""
    return tuple(dict.fromkeys(row.model for row in counts.rows))


def missed(counts: Counts) -> tuple[str, ...]:
    """A message for each limit that ``counts`` misses."""
    found = []
    for model in models_of(counts):
        limits, m4, m55 = LIMITS[model], row_of(counts, model, M4), row_of(counts, model, M55)
        for what, value, limit in (
            (f"instructions on {M4}", m4.instructions, limits.m4),
            (f"instructions on {M55}", m55.instructions, limits.m55),
            (f"bytes of code on {M4}", m4.code, limits.code),
            ("bytes of arena", m4.arena, limits.arena),
        ):
            if limit is not None and value > limit:
                found.append(f"{model}: {units.count(value)} {what}, limit {units.count(int(limit))}")
    for row in counts.rows:
        if row.wrong_bytes:
            found.append(
                f"{row.model} on {row.target} with {row.level}: {units.count(row.wrong_bytes)} output bytes "
                "differ from TFLite Micro's, limit 0"
            )
    return tuple(found)


def table(counts: Counts, source: str) -> str:
    """Instructions, code and memory as Markdown tables; ``source`` names the file of ``counts``."""
    return "\n\n".join(
        [
            *_at_default_level(counts),
            "By optimisation level: instructions, M / code without weights, B / stack, B:",
            _by_level(counts),
            _verdict(counts),
            f"Counted with {'; '.join(counts.tools.values())} on {measured_on(counts.environment)}. Instruction counts "
            f"are the same on every machine, and are not timings. Counts by function are in `{source}`.",
        ]
    )


def _at_default_level(counts: Counts) -> tuple[str, ...]:
    models = models_of(counts)
    without_helium = [_m4_cells(counts, model) for model in models]
    helium = [
        (
            model,
            _millions(row_of(counts, model, M55).instructions),
            _millions(LIMITS[model].m55),
            _millions(REFERENCE[model].m55),
        )
        for model in models
    ]
    return (
        f"Cortex-M4F, {LEVEL}. Each figure is followed by its limit. TFLM is TFLite Micro with CMSIS-NN: reference "
        "figures, counted elsewhere and not by this suite; its arena includes input and output, which the caller "
        "allocates here.",
        grid(_M4_HEAD, without_helium),
        f"Cortex-M55 with Helium, {LEVEL}:",
        grid(("model", "instructions, M", "limit", "TFLM"), helium),
    )


_M4_HEAD = (
    "model", "instructions, M", "limit", "TFLM", "code without weights, B", "limit", "arena, B", "limit",
    "with input and output, B", "TFLM",
)  # fmt: skip


def _m4_cells(counts: Counts, model: str) -> tuple[str, ...]:
    row, limits, reference = row_of(counts, model, M4), LIMITS[model], REFERENCE[model]
    return (
        model,
        _millions(row.instructions),
        _millions(limits.m4),
        _millions(reference.m4),
        units.count(row.code),
        _bytes(limits.code),
        units.count(row.arena),
        _bytes(limits.arena),
        units.count(row.arena + row.input + row.output),
        _bytes(reference.arena),
    )


def _by_level(counts: Counts) -> str:
    levels = tuple(dict.fromkeys(row.level for row in counts.rows))
    places = tuple(dict.fromkeys((row.model, row.target) for row in counts.rows))
    lines = []
    for model, target in places:
        rows = [row_of(counts, model, target, level) for level in levels]
        cells = (f"{_millions(row.instructions)} / {units.count(row.code)} / {units.count(row.stack)}" for row in rows)
        lines.append((model, target, *cells))
    return grid(("model", "target", *levels), lines, words=2)


def _verdict(counts: Counts) -> str:
    images = min(row.images for row in counts.rows)
    same = f"Every output byte equals TFLite Micro's, on {images} images for each target and level. "
    found = missed(counts)
    return ("" if any(row.wrong_bytes for row in counts.rows) else same) + (
        f"Missed: {'; '.join(found)}." if found else "All limits are met."
    )


def _millions(number: float | None) -> str:
    return units.ABSENT if number is None else units.significant(number / 1e6)


def _bytes(number: int | None) -> str:
    return units.ABSENT if number is None else units.count(number)
