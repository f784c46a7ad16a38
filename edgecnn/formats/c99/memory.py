"""The arena of a program, and which of its first layers must run in bands of rows for it to fit."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence

import msgspec

from edgecnn.errors import FitError, UnsupportedError
from edgecnn.formats.c99 import bands
from edgecnn.formats.c99 import plan as arena
from edgecnn.formats.c99.bands import Call, Cut, Stage
from edgecnn.formats.c99.lower import lower
from edgecnn.formats.c99.program import Program
from edgecnn.records import MemoryPlan
from edgecnn.tflite import operators as ops
from edgecnn.tflite.graph import Graph
from edgecnn.tflite.operators import Operation


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes of an arena, for which ``cut`` is made, if any, and an estimate of how many more instructions that takes.

    ``slower`` is a share of all instructions, for a Cortex-M4.
    """

    arena: int
    slower: float
    cut: Cut | None


def planned(program: Program) -> tuple[MemoryPlan, dict[int, int]]:
    """The arena plan, and offsets by value; the scratch memory of layer n is value -1 - n."""
    outside = _outside(program)
    uses: dict[int, arena.Use] = {}
    overlaps: dict[tuple[int, int], arena.Overlap] = {}
    last = {value: place for place, layer in enumerate(program.layers) for value in layer.inputs}
    lasting = frozenset() if program.stage is None else program.stage.lasting
    banded = sum(layer.banded for layer in program.layers)
    made = {end.value: 0 for end in program.inputs} | {layer.output: n for n, layer in enumerate(program.layers)}
    for value, place in made.items():
        if value not in outside:
            first, until = place, last.get(value, place)
            if value in lasting:
                first, until = 0, max(until, banded - 1)
            uses[value] = arena.Use(name=program.names[value], size=program.sizes[value], first=first, last=until)
    for place, layer in enumerate(program.layers):
        if layer.scratch:
            uses[-1 - place] = arena.Use(name=f"scratch of {layer.name}", size=layer.scratch, first=place, last=place)
        for value, overlap in zip(layer.inputs, layer.overlaps, strict=False):
            if overlap is not None:
                overlaps[layer.output, value] = overlap
    blocks = arena.plan(uses, overlaps)
    places = dict(zip(sorted(uses, key=lambda value: (uses[value].first, value)), blocks, strict=True))
    offsets = {value: block.offset for value, block in places.items()}
    plan = MemoryPlan(arena_bytes=arena.arena_of(offsets, uses), blocks=blocks, constant_bytes=program.constant_bytes)
    return plan, offsets


def _outside(program: Program) -> set[int]:
    """The values that are not in the arena: the caller's, and states."""
    reads = program.stage is not None and program.stage.cut.reads
    ends = program.outputs if reads else (*program.inputs, *program.outputs)
    return {*(end.value for end in ends), *(state.value for state in program.states)}


def cheapest(graph: Graph, ram: int, *, reads: bool = False) -> Cut | None:
    """The cut with the least work whose arena has at most ``ram`` bytes; None if no layer must run in bands.

    If ``reads``, the input is read row by row.

    Raises:
        FitError: no arena is so small; the message has the smallest.
        UnsupportedError: the input cannot be read row by row; or see ``lower``.
        ArtifactError: see ``lower``.
    """
    choice = None
    for choice in choices(graph, reads=reads):
        if choice.arena <= ram:
            return choice.cut
    if choice is None:
        raise UnsupportedError(
            "the input cannot be read row by row: that needs a single input with rows, and a first operator that can "
            "run in bands of them"
        )
    slower = f", with about {choice.slower:.1%} more instructions" if choice.cut else ""
    raise FitError(f"no arena of this model fits in {ram:,} bytes; the smallest has {choice.arena:,}{slower}")


def choices(graph: Graph, *, reads: bool = False) -> Iterator[Choice]:
    """Plans in the order of their work, each with a smaller arena than the one before; the first is without bands.

    If ``reads``, the input is read row by row in all of them, and all have bands.

    Raises:
        UnsupportedError, ArtifactError: see ``lower``.
    """
    program = lower(graph)
    smallest: float = math.inf
    if not reads:
        smallest = planned(program)[0].arena_bytes
        yield Choice(arena=smallest, slower=0.0, cut=None)
    ends = [end.tensor.index for end in program.inputs], [end.tensor.index for end in program.outputs]
    stages = [bands.stage(program.operations, *ends, cut) for cut in _cuts(program.operations, *ends, reads)]
    estimates = [_slower(program.operations, stage) for stage in stages]
    for slower, stage in sorted(zip(estimates, stages, strict=True), key=lambda one: one[0]):
        if _least(program, stage) < smallest:
            found = planned(lower(graph, cut=stage.cut))[0].arena_bytes
            if found < smallest:
                smallest = found
                yield Choice(arena=found, slower=slower, cut=stage.cut)


def _cuts(operations: Sequence[Operation], inputs: Sequence[int], outputs: Sequence[int], reads: bool) -> Iterator[Cut]:
    """Cuts where less has to be in memory whole than at any cut before, with powers of two as numbers of rows."""
    least = math.inf
    for count in range(1 if reads else 2, bands.longest(operations, inputs) + 1):
        beyond = {tensor.index for operation in operations[count:] for tensor in operation.inputs} - {*outputs}
        whole = sum(one.output.bytes for one in operations[:count] if one.output.index in beyond)
        if whole < least:
            least, source = whole, next(one for one in operations[0].inputs if one.index == inputs[0])
            for power in range(source.shape[1].bit_length() - 1):
                yield Cut(operators=count, rows=2**power, reads=reads)


def _least(program: Program, stage: Stage) -> int:
    """Bytes that every arena has at least: those of the stage, and of each layer after it, whose ends may overlap."""
    outside = _outside(program)
    passing = [size for value, size in stage.sizes.items() if value not in outside | stage.lasting]
    largest = sum(stage.sizes[value] for value in stage.lasting & stage.sizes.keys() - outside) + max(
        passing, default=0
    )
    last = {value: place for place, layer in enumerate(program.layers) for value in layer.inputs}
    live: set[int] = set()
    for place, layer in enumerate(program.layers):
        ends = {*layer.inputs, layer.output} - outside
        if layer.output not in stage.bands:
            beside = sum(program.sizes[value] for value in live - ends)
            largest = max(largest, beside + max((program.sizes[value] for value in ends), default=0))
        live = {value for value in live | ends if last.get(value, place) > place}
    return largest


def _slower(operations: Sequence[Operation], stage: Stage) -> float:
    """An estimate of the instructions that bands add on a Cortex-M4, as a share of all.

    They are for moved rows, for what a depthwise convolution copies again, for each of its channels and for each call;
    and a convolution computes two pixels at a time. Constants are fitted to counts of instructions.
    """
    calls = Counter((one.value, one.band) for step in stage.steps for one in step if isinstance(one, Call))
    more = stage.moved + 300.0 * calls.total()
    for operation in operations[: stage.cut.operators]:
        if isinstance(operation, ops.Convolution):
            _, height, width, channels = operation.inputs[0].shape
            made = operation.output.shape
            counted = [
                (band, calls[operation.output.index, n]) for n, band in enumerate(stage.bands[operation.output.index])
            ]
            if operation.depthwise:
                taken = sum(band.taken * times for band, times in counted)
                more += 4 * (taken - height) * width * channels + 200 * made[3] * sum(times for _, times in counted)
            else:
                odd = sum(times for band, times in counted if band.made * made[2] % 2)
                more += odd * _work(operation) / (made[1] * made[2])
    return more / sum(map(_work, operations))


def _work(operation: Operation) -> float:
    """An estimate of instructions: two for a multiply-accumulate, ten for an output."""
    size, taps = math.prod(operation.output.shape), 0
    if isinstance(operation, ops.Weighted):
        taps = operation.weights.values.size // operation.output.shape[-1]
    return size * (2 * taps + 10)
