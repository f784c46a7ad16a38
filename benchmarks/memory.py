"""The suite ``memory``: how small can the arena of the generated C be, and how many more instructions does it cost?

The models are untrained, with statistics of batch normalisation from noise: weights hardly change instruction counts.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from benchmarks.markdown import grid, measured_on
from benchmarks.microcontroller import LEVEL, M4, by_tflite_micro
from benchmarks.models import untrained_int8
from benchmarks.suite import ModelSuite, check_names, read_suite
from edgecnn import emulation
from edgecnn.emulation.machine import tool_versions
from edgecnn.environment import environment
from edgecnn.files import make_folder, write_atomic
from edgecnn.formats import c99
from edgecnn.formats.c99.memory import choices
from edgecnn.progress import progress
from edgecnn.records import Environment, Record
from edgecnn.report import units
from edgecnn.tflite.graph import read_graph


class Limit(Record, frozen=True):
    """Bytes of the arena that a plan must reach with at most ``more`` of the instructions added on a Cortex-M4."""

    arena: int
    more: float


LIMITS = {"mobilenet_v1_025": Limit(arena=25 * 1024, more=0.15), "resnet8": Limit(arena=20 * 1024, more=0.15)}


class Settings(ModelSuite, frozen=True):
    """Settings of the suite."""

    targets: tuple[str, ...]
    test_images: int


class Row(Record, frozen=True):
    """A plan of a model, with the counts of each target: ``operators`` run in bands, each step takes ``rows``.

    Without bands, both are 0. ``slower`` is the planner's estimate of the share of instructions that the plan adds.
    """

    model: str
    operators: int
    rows: int
    arena: int
    slower: float
    instructions: dict[str, int]
    code: dict[str, int]
    wrong_bytes: dict[str, int]


class Plans(Record, frozen=True):
    """The result of the suite. ``tools`` holds the versions of compiler and emulator."""

    schema_version: int
    seed: int
    test_images: int
    tools: dict[str, str]
    environment: Environment
    rows: tuple[Row, ...]


SCHEMA_VERSION = 1


def run(path: Path, out: Path) -> Plans:
    """Convert the models of the suite at ``path``, keep the .tflite files in ``out``, and count every plan."""
    suite = read_suite(path, Settings)
    check_names(path, "target", suite.targets, emulation.TARGETS)
    make_folder(out)
    rows: list[Row] = []
    for name in suite.models:
        content, noise = untrained_int8(name, suite.seed, np.random.default_rng(suite.seed), suite.images)
        write_atomic(out / f"{name}-int8.tflite", content)
        rows += _counted(name, content, noise[: suite.test_images], suite)
    return Plans(
        schema_version=SCHEMA_VERSION,
        seed=suite.seed,
        test_images=suite.test_images,
        tools=tool_versions(M4),
        environment=environment(),
        rows=tuple(rows),
    )


def _counted(name: str, model: bytes, images: np.ndarray, suite: Settings) -> list[Row]:
    graph = read_graph(model, name)
    inputs, answers = by_tflite_micro(model, images)
    plans, rows = list(choices(graph)), []
    with progress(f"count {name}", len(plans) * len(suite.targets)) as advance, TemporaryDirectory() as folder:
        for plan in plans:
            sources = emulation.sources_of(c99.to_c(graph, name, cut=plan.cut), name)
            instructions, code, wrong = {}, {}, {}
            for target in suite.targets:
                firmware = emulation.build(sources, target, Path(folder), LEVEL)
                wrong[target] = int(np.count_nonzero(emulation.run(firmware, inputs) != answers))
                instructions[target] = emulation.count(firmware, inputs[0]).instructions
                code[target] = firmware.code
                advance(note=f"{plan.arena} bytes on {target}")
            rows.append(
                Row(
                    model=name,
                    operators=0 if plan.cut is None else plan.cut.operators,
                    rows=0 if plan.cut is None else plan.cut.rows,
                    arena=plan.arena,
                    slower=plan.slower,
                    instructions=instructions,
                    code=code,
                    wrong_bytes=wrong,
                )
            )
    return rows


# The table


def whole(plans: Plans, row: Row) -> Row:
    """The row of the same model without bands."""
    return next(one for one in plans.rows if one.model == row.model and not one.operators)


def more(plans: Plans, row: Row, target: str) -> float:
    """The share of instructions that a plan adds on a target."""
    return row.instructions[target] / whole(plans, row).instructions[target] - 1


def missed(plans: Plans) -> tuple[str, ...]:
    """A message for each limit that ``plans`` misses."""
    found = [
        f"{model}: no plan of {units.count(limit.arena)} bytes with at most {limit.more:.0%} more instructions"
        for model, limit in LIMITS.items()
        if not any(
            row.model == model and row.arena <= limit.arena and more(plans, row, M4) <= limit.more for row in plans.rows
        )
    ]
    return (*found, *(f"{row.model}: wrong bytes" for row in plans.rows if any(row.wrong_bytes.values())))


def table(plans: Plans, source: str) -> str:
    """Arena, instructions and code of every plan as a Markdown table; ``source`` names the file of ``plans``."""
    targets = list(plans.rows[0].instructions)
    head = ["model", "layers in bands", "rows per step", "arena, B", "estimate"]
    for target in targets:
        head += [f"{target}: instructions, M", "more", "code, B"]
    lines = []
    for row in plans.rows:
        cells = [row.model, *(units.count(one) if row.operators else units.ABSENT for one in (row.operators, row.rows))]
        cells += [units.count(row.arena), f"{row.slower:.1%}" if row.operators else units.ABSENT]
        for target in targets:
            added = f"{more(plans, row, target):.1%}" if row.operators else units.ABSENT
            cells += [units.significant(row.instructions[target] / 1e6), added, units.count(row.code[target])]
        lines.append(tuple(cells))
    found = missed(plans)
    verdict = f"Missed: {'; '.join(found)}." if found else "All limits are met."
    limits = "; ".join(
        f"{model}: {units.count(limit.arena)} bytes with at most {limit.more:.0%} more instructions on {M4}"
        for model, limit in LIMITS.items()
    )
    return "\n\n".join(
        [
            grid(tuple(head), lines),
            f"Limits: {limits}. {verdict} Every plan's outputs were compared with TFLite Micro's, on "
            f"{plans.test_images} images for each target.",
            f"Counted with {'; '.join(plans.tools.values())} on {measured_on(plans.environment)}, {LEVEL}. The counts "
            f"are in `{source}`.",
        ]
    )
