"""Run the first operators in bands of rows: of a value, only the rows that are still needed are in memory.

A step takes some rows of the input, and each operator then makes all rows of its output that it can. A band is the
operator itself with other heights and padding, so kernels and weights are the same, and so is every byte. No row is
computed twice. The patches of J. Lin et al., "MCUNetV2: Memory-Efficient Patch-based Inference for Tiny Deep Learning",
2021, need no memory for rows that are kept, but compute what overlaps again.
"""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence

import msgspec

from edgecnn.tflite import operators as ops
from edgecnn.tflite.graph import Tensor
from edgecnn.tflite.operators import Operation

_BYTES = ("int8", "uint8")


class Cut(msgspec.Struct, frozen=True, kw_only=True):
    """How many of the first operators run in bands, and how many rows of the input each step takes.

    If ``reads``, the input is read row by row into the arena; otherwise the caller has it in memory.
    """

    operators: int
    rows: int
    reads: bool = False


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """Row ``r`` of an output is made of the ``extent`` rows from ``r * stride - above`` on of each input."""

    extent: int
    stride: int
    above: int


class Band(msgspec.Struct, frozen=True, kw_only=True):
    """The heights of one call of an operator: padding above its input, rows of the input, rows of the output."""

    above: int
    taken: int
    made: int


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """A call of the operator that makes ``value``: which of its bands, its first byte there and in each input."""

    value: int
    band: int
    inputs: Mapping[int, int]
    at: int


class Read(msgspec.Struct, frozen=True, kw_only=True):
    """``rows`` rows of the input ``value``, from ``row`` on, are read; ``at`` is their first byte in memory."""

    value: int
    row: int
    rows: int
    at: int


class Move(msgspec.Struct, frozen=True, kw_only=True):
    """Rows of a value that are still needed: ``size`` bytes from ``start`` on become its first."""

    value: int
    start: int
    size: int


class Stage(msgspec.Struct, frozen=True, kw_only=True):
    """What is done in each step. By value: all ``bands`` of the operator that makes it, and its ``sizes`` in bytes.

    Of the ``lasting`` values, rows are kept from one step to the next.
    """

    cut: Cut
    steps: tuple[tuple[Read | Call | Move, ...], ...]
    bands: dict[int, tuple[Band, ...]]
    sizes: dict[int, int]
    lasting: frozenset[int]

    @property
    def moved(self) -> int:
        """Bytes that are moved in one inference."""
        return sum(one.size for step in self.steps for one in step if isinstance(one, Move))


def window(operation: Operation) -> Window | None:
    """The rows that an operator needs; None if it cannot run in bands."""
    output = operation.output
    computed = [tensor for tensor in operation.inputs if tensor.data is None]
    constants = [tensor for tensor in operation.inputs if tensor.data is not None]
    ends = (*computed, output)
    if not computed or any(len(one.shape) != 4 or one.shape[0] != 1 or one.dtype not in _BYTES for one in ends):
        return None
    if isinstance(operation, ops.Convolution | ops.Pool):
        apart = operation.dilation[0] if isinstance(operation, ops.Convolution) else 1
        extent = (operation.kernel[0] - 1) * apart + 1
        return Window(extent=extent, stride=operation.stride[0], above=operation.pads[0])
    plain = Window(extent=1, stride=1, above=0)
    match operation:
        case ops.Pad() if operation.pads[0] == (0, 0):
            return Window(extent=1, stride=1, above=operation.pads[1][0])
        case ops.Binary() if all(tensor.shape == output.shape for tensor in computed):
            flat = all(math.prod(tensor.shape[:-3]) == 1 and tensor.shape[-3:-2] in ((), (1,)) for tensor in constants)
            return plain if flat else None
        case ops.Concatenation() if operation.axis > 1 and not constants:
            return plain
        case ops.LeakyRelu() | ops.Rescale() | ops.Table() | ops.Unary():
            return plain
    return None


def longest(operations: Sequence[Operation], inputs: Sequence[int]) -> int:
    """How many of the first operators can run in bands."""
    if len(inputs) != 1:
        return 0
    strides = {inputs[0]: 1}
    for place, operation in enumerate(operations):
        need = window(operation)
        computed = [tensor for tensor in operation.inputs if tensor.data is None]
        before = {strides.get(tensor.index) for tensor in computed}
        stride = before.pop() if len(before) == 1 else None
        if need is None or stride is None or operation.output.index in strides:
            return place
        strides[operation.output.index] = stride * need.stride
    return len(operations)


def banded(operation: Operation, band: Band) -> Operation:
    """``operation`` with the heights of a band."""
    changes: dict[str, object] = {
        "inputs": tuple(
            tensor if tensor.data is not None else _of_height(tensor, band.taken) for tensor in operation.inputs
        ),
        "output": _of_height(operation.output, band.made),
    }
    match operation:
        case ops.Convolution() | ops.Pool():
            changes["pads"] = (band.above, *operation.pads[1:])
        case ops.Pad():
            below = band.made - band.taken - band.above
            changes["pads"] = (operation.pads[0], (band.above, below), *operation.pads[2:])
    return msgspec.structs.replace(operation, **changes)


def _of_height(tensor: Tensor, height: int) -> Tensor:
    return msgspec.structs.replace(tensor, shape=(tensor.shape[0], height, *tensor.shape[2:]))


class _Rows(msgspec.Struct):
    """A value while the steps are planned: after ``n`` rows of the input, ``(n + lag) // stride`` rows of it are made.

    ``made`` and ``first`` are, for each number of steps, rows made until then, and the first that is still needed.
    """

    height: int
    row: int
    lag: int
    stride: int
    whole: bool
    users: list[tuple[int, Window]]
    made: list[int]
    first: list[int]


def stage(operations: Sequence[Operation], inputs: Sequence[int], outputs: Sequence[int], cut: Cut) -> Stage:
    """The steps of ``cut``; ``operations`` are all operators, ``inputs`` and ``outputs`` the graph's.

    Values that other operators or the caller need are in memory whole.
    """
    ours, later = operations[: cut.operators], operations[cut.operators :]
    beyond = {*outputs, *(tensor.index for operation in later for tensor in operation.inputs)}
    source = next(tensor for tensor in ours[0].inputs if tensor.index == inputs[0])
    values = {source.index: _value(source, 0, 1, not cut.reads or source.index in beyond)}
    windows = []
    for operation in ours:
        need, before = window(operation), [values[index] for index in _computed(operation)]
        assert need is not None
        windows.append(need)
        stride = before[0].stride
        lag = min(value.lag for value in before) + stride * (need.above - need.extent + need.stride)
        output = operation.output
        values[output.index] = _value(output, lag, stride * need.stride, output.index in beyond)
        for index in _computed(operation):
            values[index].users.append((output.index, need))
    steps = max(-(-(value.height * value.stride - value.lag) // cut.rows) for value in values.values())
    for value in values.values():
        ends = range(0, (steps + 1) * cut.rows, cut.rows)  # in the end beyond the input, where its padding is
        value.made = [min(max(0, (end + value.lag) // value.stride), value.height) if end else 0 for end in ends]
    for value in values.values():
        for step, made in enumerate(value.made):
            needed = [max(0, values[user].made[step] * need.stride - need.above) for user, need in value.users]
            value.first.append(0 if value.whole else min(made, *needed) if needed else made)
    bands: dict[int, list[Band]] = {operation.output.index: [] for operation in ours}
    done: list[tuple[Read | Call | Move, ...]] = []
    for step in range(steps):
        calls = [_call(*pair, values, step, bands[pair[0].output.index]) for pair in zip(ours, windows, strict=True)]
        moves = _moves(values, step) if step + 1 < steps else ()
        reads = _reads(source.index, values[source.index], step) if cut.reads else ()
        done.append((*reads, *(call for call in calls if call is not None), *moves))
    stride = max(value.stride for value in values.values())
    period = stride // math.gcd(stride, cut.rows)  # steps until the calls are the same again
    return Stage(
        cut=cut,
        steps=tuple(tuple(itertools.chain(*done[start : start + period])) for start in range(0, steps, period)),
        bands={index: tuple(found) for index, found in bands.items()},
        sizes={
            index: value.row * max(made - first for made, first in zip(value.made[1:], value.first, strict=False))
            for index, value in values.items()
            if cut.reads or index != source.index
        },
        lasting=frozenset(
            index
            for index, value in values.items()
            if value.whole or any(made > first for made, first in zip(value.made[:-1], value.first, strict=False))
        ),
    )


def _value(tensor: Tensor, lag: int, stride: int, whole: bool) -> _Rows:
    height = tensor.shape[1]
    return _Rows(height, math.prod(tensor.shape) // height, lag, stride, whole, users=[], made=[], first=[])


def _computed(operation: Operation) -> list[int]:
    return [tensor.index for tensor in operation.inputs if tensor.data is None]


def _call(operation: Operation, need: Window, values: Mapping[int, _Rows], step: int, bands: list[Band]) -> Call | None:
    """The call of an operator in a step, if it can make a row; its band is added to ``bands``."""
    output = values[operation.output.index]
    start, end = output.made[step : step + 2]
    if start == end:
        return None
    inputs = {index: values[index] for index in _computed(operation)}
    first = start * need.stride - need.above
    height = next(iter(inputs.values())).height
    top, below = max(0, min(first, height)), (end - 1) * need.stride - need.above + need.extent
    band = Band(above=max(0, -first), taken=max(0, min(height, below) - top), made=end - start)
    if band not in bands:
        bands.append(band)
    return Call(
        value=operation.output.index,
        band=bands.index(band),
        inputs={index: (top - value.first[step]) * value.row for index, value in inputs.items()},
        at=(start - output.first[step]) * output.row,
    )


def _reads(index: int, value: _Rows, step: int) -> Iterator[Read]:
    """The rows of the input that are read before a step."""
    start, end = value.made[step : step + 2]
    if start < end:
        yield Read(value=index, row=start, rows=end - start, at=(start - value.first[step]) * value.row)


def _moves(values: Mapping[int, _Rows], step: int) -> Iterator[Move]:
    """The rows that are moved after a step."""
    for index, value in values.items():
        shift, kept = value.first[step + 1] - value.first[step], value.made[step + 1] - value.first[step + 1]
        if shift and kept:
            yield Move(value=index, start=shift * value.row, size=kept * value.row)
