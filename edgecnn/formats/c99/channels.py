"""Leave out channels that need no computing, before operators become layers. No byte of the outputs changes.

A channel, one index of a tensor's last axis, is *known* if it is the same number everywhere, whatever the input: its
weights are zero, as training often leaves them, or it is computed from known channels only. An operator with weights
adds to its bias what a known channel contributes. The channel is then left out, with the weights that compute it, where
nothing else needs it. So is a channel that meets only weights of zero.

The padding of a convolution is the zero point. So a channel known to be something else is added to the bias only where
nothing is padded.
"""

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgecnn.errors import UnsupportedError
from edgecnn.formats.c99 import numerics, scales
from edgecnn.tflite import operators as ops
from edgecnn.tflite.graph import Tensor
from edgecnn.tflite.operators import Operation

_Mask = NDArray[np.bool_]
_Values = NDArray[np.float64]  # by channel: its integer, or NaN if it is not known


class _Sum(msgspec.Struct, frozen=True):
    """Weights ``(outputs, taps, channels)`` without those of known channels, and the bias with what these add.

    In a depthwise convolution, each output has one channel.
    """

    rows: NDArray[np.int8]
    bias: NDArray[np.int64]


class _Link(msgspec.Struct, frozen=True):
    """Channels ``there`` of the input at ``place`` become channels ``here`` of the output, one by one.

    Neither is left out without the other.
    """

    place: int
    there: NDArray[np.intp]
    here: NDArray[np.intp]


def narrowed(operations: Sequence[Operation], outputs: Sequence[int]) -> tuple[Operation, ...]:
    """``operations`` with only the channels that are needed; those of the graph's ``outputs`` all are."""
    sums = _sums(operations)
    needed = _needed(operations, outputs, sums)
    return tuple(_narrowed(operation, sums.get(operation.output.index), needed) for operation in operations)


def _links(operation: Operation) -> Iterator[_Link]:
    """The channels that run through an operator; inputs and outputs without a link stay whole."""
    if not _is_int8(operation):
        return
    source, output = operation.inputs[0], operation.output
    here = np.arange(_count(output))
    match operation:
        case ops.Convolution(depthwise=True) if _adds(operation):
            yield _Link(0, here // (len(here) // _count(source)), here)
        case ops.Binary():
            for place, operand in enumerate(operation.inputs):
                if operand.data is None and _count(operand) == len(here):
                    yield _Link(place, here, here)
        case ops.Concatenation() if len(source.shape) < len(output.shape) and operation.axis == len(source.shape):
            return  # PACK of values to channels
        case ops.Concatenation():
            start = 0
            for place, operand in enumerate(operation.inputs):
                there = np.arange(_count(operand))
                yield _Link(place, there, start + there)
                start += len(there) if operation.axis == len(output.shape) - 1 else 0
        case ops.Reshape() if len(here) % _count(source) == 0:
            yield _Link(0, here % _count(source), here)
        case ops.Reduction() if len(source.shape) - 1 in operation.axes:
            return
        case ops.Pad() if operation.pads[-1] != (0, 0):
            return
        case ops.Slice() if operation.steps[-1] != 1 or operation.sizes[-1] != _count(source):
            return
        case ops.Slice() if len(source.shape) - 1 in operation.removed:
            return
        case ops.Tile() if operation.repeats[-1] != 1:
            return
        case ops.Transpose() if operation.order[-1] != len(operation.order) - 1:
            return
        case (
            ops.LeakyRelu() | ops.Pad() | ops.Pool() | ops.Reduction() | ops.Rescale() | ops.Resize() | ops.Slice()
            | ops.Table() | ops.Tile() | ops.Transpose() | ops.Unary()
        ):  # fmt: skip
            yield _Link(0, here, here)


def _adds(operation: Operation) -> bool:
    """Whether an operator's outputs are sums of weights times channels."""
    if not isinstance(operation, ops.Weighted) or not _is_int8(operation):
        return False
    if operation.weights.values.dtype != np.int8 or operation.weights.zero_point.any():
        return False
    if isinstance(operation, ops.Convolution):
        return operation.depthwise or operation.groups == 1
    return bool(operation.weights.values.shape[-1] % _count(operation.inputs[0]) == 0)


def _is_int8(operation: Operation) -> bool:
    return all(tensor.dtype == "int8" and tensor.shape for tensor in (*operation.inputs, operation.output))


def _count(tensor: Tensor) -> int:
    return tensor.shape[-1]


# Which channels are known


def _sums(operations: Sequence[Operation]) -> dict[int, _Sum]:
    """The sums of all operators with weights, by the tensors they compute."""
    sums: dict[int, _Sum] = {}
    known: dict[int, _Values] = {}
    for operation in operations:
        output = operation.output
        inputs = [known.get(tensor.index, np.full(tensor.shape[-1:], np.nan)) for tensor in operation.inputs]
        made = np.full(output.shape[-1:], np.nan)
        # an operator that is refused is named when its layer is written
        with ops.damage_of(operation.operator), contextlib.suppress(UnsupportedError):
            if isinstance(operation, ops.Weighted):
                if _adds(operation):
                    sums[output.index] = _sum(operation, inputs[0])
                    made = _constants(operation, sums[output.index])
            else:
                made = _through(operation, inputs)
        known[output.index] = made
    return sums


def _sum(operation: ops.Weighted, known: _Values) -> _Sum:
    outputs, padded = _count(operation.output), isinstance(operation, ops.TransposedConvolution)
    offset = known - scales.zero(operation.inputs[0])
    if isinstance(operation, ops.Convolution) and operation.depthwise:
        rows = operation.weights.values.reshape(-1, outputs, 1).swapaxes(0, 1)
        offset = offset.repeat(outputs // len(offset))[:, None]
    else:
        rows = operation.weights.values.reshape(outputs, -1, len(offset))
        offset = offset[None]
    if isinstance(operation, ops.Convolution):
        padded = any(operation.pads)
    fixed = offset == 0 if padded else ~np.isnan(offset)
    added = rows.sum(axis=1, dtype=np.int64) * np.where(fixed, offset, 0).astype(np.int64)
    bias = 0 if operation.bias is None else operation.bias.astype(np.int64)
    return _Sum(np.where(fixed[:, None], 0, rows).astype(np.int8), bias + added.sum(axis=1))


def _constants(operation: ops.Weighted, found: _Sum) -> _Values:
    empty = np.logical_not(found.rows.any(axis=(1, 2)))
    made = np.full(len(empty), np.nan)
    if empty.any():
        made[empty] = np.array(scales.without_weights(operation, found.bias))[empty]
    return made


def _through(operation: Operation, inputs: Sequence[_Values]) -> _Values:
    """The known channels of the output of an operator without weights."""
    made = np.full(operation.output.shape[-1:], np.nan)
    if isinstance(operation, ops.Binary):
        return made
    if isinstance(operation, ops.Concatenation) and operation.axis < len(operation.output.shape) - 1:
        return np.where((np.array(inputs) == inputs[0]).all(axis=0), inputs[0], np.nan)
    for link in _links(operation):
        values = inputs[link.place][link.there]
        made[link.here] = [value if np.isnan(value) else _value(operation, int(value)) for value in values]
    return made


def _value(operation: Operation, value: int) -> float:
    """What an operator without weights makes of a channel that has the same ``value`` everywhere."""
    output = operation.output
    match operation:
        case ops.LeakyRelu() | ops.Rescale() | ops.Table() | ops.Unary():
            return scales.function(operation)(value)
        case ops.Pool():
            return scales.clamped(value, output, operation.limits)
        case ops.Pad():
            beside = scales.zero(output)
            if operation.value is not None and operation.value.data is not None:
                beside = int(operation.value.data.reshape(-1)[0])
            return value if value == beside else math.nan
        case ops.Reduction() if operation.kind in ("MEAN", "SUM"):
            count = math.prod(operation.inputs[0].shape[axis] for axis in operation.axes)
            total = numerics.rescale((value - scales.zero(operation.inputs[0])) * count, *scales.mean(operation, count))
            return scales.clamped(total + scales.zero(output), output, (None, None))
    return value


# Which channels are needed


def _needed(operations: Sequence[Operation], outputs: Sequence[int], sums: Mapping[int, _Sum]) -> dict[int, _Mask]:
    """The needed channels of each tensor, at least one."""
    written = {operation.output.index for operation in operations} - {*outputs}
    needed: dict[int, _Mask] = {}
    for operation in operations:
        for tensor in (*operation.inputs, operation.output):
            needed.setdefault(tensor.index, np.full(tensor.shape[-1:], tensor.index not in written))
    links = {operation.output.index: list(_links(operation)) for operation in operations}
    for operation in operations:
        output, linked = operation.output.index, links[operation.output.index]
        if output not in sums:
            whole = np.ones_like(needed[output])
            for link in linked:
                whole[link.here] = False
            needed[output] |= whole
            for place in {*range(len(operation.inputs))} - {link.place for link in linked}:
                needed[operation.inputs[place].index][...] = True
    before = -1
    while (now := sum(int(mask.sum()) for mask in needed.values())) != before:
        before = now
        for operation in reversed(operations):
            output = operation.output.index
            if not needed[output].any():
                needed[output][0] = True
            for link in links[output]:
                there = needed[operation.inputs[link.place].index]
                both = there[link.there] | needed[output][link.here]
                there[link.there[both]] = True
                needed[output][link.here[both]] = True
            if output in sums and not links[output]:
                needed[operation.inputs[0].index] |= sums[output].rows[needed[output]].any(axis=(0, 1))
    return needed


def _narrowed(operation: Operation, found: _Sum | None, needed: Mapping[int, _Mask]) -> Operation:
    """``operation`` with the needed channels."""
    kept = needed[operation.output.index]
    inputs = []
    for tensor in operation.inputs:
        beside = isinstance(operation, ops.Binary) and tensor.data is not None and tensor.shape[-1:] == kept.shape
        inputs.append(_part(tensor, kept if beside else needed[tensor.index]))
    changes: dict[str, object] = {"inputs": tuple(inputs), "output": _part(operation.output, kept)}
    if isinstance(operation, ops.Slice) and not kept.all():
        changes["sizes"] = (*operation.sizes[:-1], int(kept.sum()))
    if found is not None:
        assert isinstance(operation, ops.Weighted)
        weights, rows = operation.weights, found.rows[kept]
        shape = weights.values.shape
        if isinstance(operation, ops.Convolution) and operation.depthwise:
            values = rows.swapaxes(0, 1).reshape(*shape[:3], -1)
            changes["groups"] = _count(inputs[0])
        else:
            rows = rows[:, :, needed[operation.inputs[0].index]]
            values = rows.reshape(len(rows), *shape[1:-1], -1)
        each = kept if len(weights.scale) > 1 else np.ones(1, bool)
        changes["weights"] = ops.Weights(values=values, scale=weights.scale[each], zero_point=weights.zero_point[each])
        changes["bias"] = (found.bias[kept] & 0xFFFFFFFF).astype(np.uint32).view(np.int32)
    return msgspec.structs.replace(operation, **changes)


def _part(tensor: Tensor, kept: _Mask) -> Tensor:
    if kept.all():
        return tensor
    data = None if tensor.data is None else tensor.data[..., kept]
    return msgspec.structs.replace(tensor, shape=(*tensor.shape[:-1], int(kept.sum())), data=data)
