"""The suite ``stack``: how much stack does the generated C take on each core?

The test program paints the stack before the first inference; what no longer holds the pattern afterwards was used. This
includes the calls of the test program. The models have random weights: the stack hardly depends on them.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from benchmarks.markdown import grid, measured_on
from benchmarks.models import untrained_int8
from benchmarks.suite import ModelSuite, check_names, read_suite
from edgecnn import emulation
from edgecnn.emulation.machine import BARE, tool_versions
from edgecnn.environment import environment
from edgecnn.errors import FitError
from edgecnn.progress import progress
from edgecnn.records import Environment, Record
from edgecnn.report import units
from edgecnn.tflite.graph import read_graph

SCHEMA_VERSION = 1


class Settings(ModelSuite, frozen=True):
    """Settings of the suite. ``images`` of noise calibrate the ranges."""

    targets: tuple[str, ...]
    level: str


class Row(Record, frozen=True):
    """Bytes of stack for one inference of a model on a target; None if its board in QEMU is too small for the model."""

    model: str
    target: str
    stack: int | None


class Stacks(Record, frozen=True):
    """The result of the suite. ``tools`` holds the versions of compilers and emulators."""

    schema_version: int
    seed: int
    level: str
    tools: dict[str, str]
    environment: Environment
    rows: tuple[Row, ...]


def run(path: Path, out: Path) -> Stacks:
    """Convert the models of the suite at ``path`` and measure each on every target; nothing is kept in ``out``."""
    suite = read_suite(path, Settings)
    check_names(path, "target", suite.targets, BARE)
    check_names(path, "level", (suite.level,), emulation.LEVELS)
    random = np.random.default_rng(suite.seed)
    rows = []
    with progress("stack", len(suite.models) * len(suite.targets)) as advance:
        for name in suite.models:
            content, _ = untrained_int8(name, suite.seed, random, suite.images)
            sources = emulation.generate(read_graph(content, name), name)
            for target in suite.targets:
                rows.append(Row(model=name, target=target, stack=_stack(sources, target, suite.level)))
                advance(note=f"{name} on {target}")
    return Stacks(
        schema_version=SCHEMA_VERSION,
        seed=suite.seed,
        level=suite.level,
        tools={tool: version for target in suite.targets for tool, version in tool_versions(target).items()},
        environment=environment(),
        rows=tuple(rows),
    )


def _stack(sources: emulation.Sources, target: str, level: str) -> int | None:
    image = np.random.default_rng(0).integers(-128, 128, sources.input_size, np.int8)
    with TemporaryDirectory() as folder:
        try:
            firmware = emulation.build(sources, target, Path(folder), level)
        except FitError:
            return None
        return emulation.count(firmware, image).stack


def table(stacks: Stacks, source: str) -> str:
    """Bytes of stack by model and target as a Markdown table; ``source`` names the file of ``stacks``."""
    targets = tuple(dict.fromkeys(row.target for row in stacks.rows))
    found = {(row.model, row.target): row.stack for row in stacks.rows}
    lines = []
    for model in dict.fromkeys(row.model for row in stacks.rows):
        sizes = [found[model, target] for target in targets]
        lines.append((model, *(units.ABSENT if size is None else units.count(size) for size in sizes)))
    return "\n\n".join(
        [
            f"Stack of one inference, bytes, {stacks.level}:",
            grid(("model", *targets), lines),
            f"{units.ABSENT}: the board that QEMU emulates is too small. Measured with "
            f"{'; '.join(stacks.tools.values())} on {measured_on(stacks.environment)}. Every figure is in `{source}`.",
        ]
    )
