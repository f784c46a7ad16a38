"""Instructions, flash and RAM of model files as C on emulated processors."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgecnn import artifacts
from edgecnn.emulation.machine import BARE, LEVELS, Sources, build, count, generate, tool_versions
from edgecnn.errors import ArtifactError, EdgecnnError, EmulationError, UnknownNameError, UnsupportedError
from edgecnn.files import need_model, read_bytes, sha256_file
from edgecnn.formats.c99 import identifier
from edgecnn.progress import progress
from edgecnn.records import Emulated, Failure
from edgecnn.runtimes.c99 import header_of, metadata_in, read_generated
from edgecnn.tflite.graph import Graph, read_graph

_NAME = "model"  # name of the generated C code; no file of the test program has this name


def costs(
    paths: Sequence[Path], targets: Sequence[str], opt: str = LEVELS[0]
) -> tuple[tuple[Emulated, ...], tuple[Failure, ...]]:
    """Build each int8 .tflite and each generated .c of ``paths`` for ``targets``; count one inference of random bytes.

    A .tflite is converted to C first. A file that cannot be counted is a ``Failure`` of the stage "target"; it is
    expected if the file does not compute in int8.

    Raises:
        UnknownNameError: a target is unknown, or does not support counting instructions.
    """
    for target in targets:
        if target not in BARE:
            raise UnknownNameError("target", target, BARE)
    failures: list[Failure] = []
    tools: dict[str, tuple[str, str]] = {}
    for target in targets:
        try:
            compiler, emulator = tool_versions(target).values()
            tools[target] = compiler, emulator
        except EmulationError as error:
            failures.append(Failure.of(target, "target", error))
    emulated: list[Emulated] = []
    with progress("count instructions", len(paths) * len(tools)) as advance:
        for path in paths if tools else ():
            try:
                sources, arena_bytes = _sources(path)
            except _NotInt8Error as error:
                failures.append(Failure.of(path.name, "target", UnsupportedError(str(error)), expected=True))
            except EdgecnnError as error:
                failures.append(Failure.of(path.name, "target", error))
            else:
                for target in tools:
                    try:
                        emulated.append(_cost(path, sources, arena_bytes, target, opt, *tools[target]))
                    except EmulationError as error:
                        failures.append(Failure.of(f"{path.name} on {target}", "target", error))
                    advance(note=f"{path.name} on {target}")
                continue
            advance(len(tools), path.name)
    return tuple(emulated), tuple(failures)


class _NotInt8Error(UnsupportedError):
    """A file that is not a static int8 model, or of a format that cannot be compiled."""


def _sources(path: Path) -> tuple[Sources, int]:
    """The C code of the file at ``path``, and the size of its arena in bytes.

    Raises:
        _NotInt8Error: the file does not compute in int8.
        EdgecnnError: there is no C code for another reason.
    """
    if path.suffix not in (".tflite", ".c"):
        raise _NotInt8Error(f"instructions are counted for .tflite and .c files only, not for {path.name}")
    need_model(path)
    if artifacts.sidecar(path).is_file():
        artifacts.load(path)  # checks the hashes
    return _own(path) if path.suffix == ".c" else _generated(path)


def _own(path: Path) -> tuple[Sources, int]:
    metadata = read_generated(path)
    name = metadata.name
    if identifier(name) != name:
        raise ArtifactError(f"{path.name} has the invalid function prefix {name!r}; export it again")
    header = read_bytes(header_of(path))
    sources = Sources(
        name=name,
        files={header_of(path).name: header, f"{name}.h": header, f"{name}.c": read_bytes(path)},
        input_size=sum(spec.size * np.dtype(spec.dtype).itemsize for spec in metadata.inputs),
        output_size=sum(spec.size * np.dtype(spec.dtype).itemsize for spec in metadata.outputs),
        caller_arena=metadata.memory.arena_bytes if metadata.caller_arena else None,
    )
    return sources, metadata.memory.arena_bytes


def _generated(path: Path) -> tuple[Sources, int]:
    graph = read_graph(read_bytes(path), path.name)
    try:
        sources = generate(graph, _NAME)
    except UnsupportedError as error:
        if _computes_in_int8(graph):
            raise
        raise _NotInt8Error(str(error)) from error
    return sources, metadata_in(sources.files[f"{_NAME}.c"], path.name).memory.arena_bytes


def _computes_in_int8(graph: Graph) -> bool:
    computed = {
        graph.tensors[index].dtype
        for operator in graph.operators
        if operator.kind not in ("QUANTIZE", "DEQUANTIZE")
        for index in operator.outputs
        if index >= 0
    }
    return computed <= {"int8", "uint8", "int32"}  # shapes are int32


def _cost(
    path: Path, sources: Sources, arena_bytes: int, target: str, opt: str, compiler: str, emulator: str
) -> Emulated:
    image = np.random.default_rng(0).integers(-128, 128, sources.input_size, np.int8)
    with tempfile.TemporaryDirectory() as folder:
        firmware = build(sources, target, Path(folder), opt)
        cost = count(firmware, image)
    return Emulated(
        artifact=path.name,
        artifact_sha256=sha256_file(path),
        target=target,
        opt=opt,
        compiler=compiler,
        emulator=emulator,
        instructions=cost.instructions,
        functions=cost.functions,
        code_bytes=firmware.code,
        flash_bytes=firmware.flash,
        ram_bytes=firmware.ram,
        stack_bytes=cost.stack,
        arena_bytes=arena_bytes,
    )
