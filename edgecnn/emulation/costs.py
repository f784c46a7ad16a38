"""What .tflite files cost on an emulated processor, a row for each."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgecnn.emulation.machine import LEVELS, build, count, generate, tool_versions
from edgecnn.errors import ArtifactError, EdgecnnError
from edgecnn.files import sha256_bytes
from edgecnn.formats.c99 import identifier
from edgecnn.formats.tflite_graph import read_graph
from edgecnn.progress import progress
from edgecnn.records import SCHEMA_VERSION, Failure, TargetCost, TargetCosts


def costs(paths: Sequence[Path], target: str, opt: str = LEVELS[0]) -> TargetCosts:
    """Build each int8 .tflite of ``paths`` for ``target`` as C and count one inference of random bytes.

    A file that cannot be written as C, or does not fit the board, is a row with the reason.

    Raises:
        UnknownNameError: no such target or level.
        EmulationError: a tool is missing.
    """
    tools = tool_versions(target)
    rows: list[TargetCost | Failure] = []
    with progress(f"count on {target}", len(paths)) as advance:
        for path in paths:
            try:
                rows.append(_cost(path, target, opt))
            except EdgecnnError as error:
                rows.append(Failure(subject=path.name, stage="bench", error=type(error).__name__, reason=str(error)))
            advance(note=path.name)
    return TargetCosts(schema_version=SCHEMA_VERSION, target=target, opt=opt, tools=tools, rows=tuple(rows))


def _cost(path: Path, target: str, opt: str) -> TargetCost:
    if path.suffix != ".tflite" or not path.is_file():
        raise ArtifactError(f"{path} is no .tflite file; export an int8 one with: edgecnn export")
    content = path.read_bytes()
    sources = generate(read_graph(content, path.name), identifier(path.stem))
    image = np.random.default_rng(0).integers(-128, 128, sources.input_size, np.int8)
    with tempfile.TemporaryDirectory() as folder:
        firmware = build(sources, target, Path(folder), opt)
        cost = count(firmware, image)
    return TargetCost(
        file=path.name,
        sha256=sha256_bytes(content),
        instructions=cost.instructions,
        functions=cost.functions,
        code_bytes=firmware.code,
        flash_bytes=firmware.flash,
        ram_bytes=firmware.ram,
        stack_bytes=cost.stack,
    )
