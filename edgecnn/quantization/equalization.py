"""Cross-layer equalisation: channels of one tensor get ranges of the same size, and no output changes."""

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from keras import ops, tree
from numpy.typing import NDArray

from edgecnn.quantization.graph import LINEAR, Call, Graph, by_input, by_output, foldable
from edgecnn.quantization.keras3 import IDENTITY_AT_INFERENCE, in_batches
from edgecnn.quantization.simulation import activation

# Layers that do the same to every channel, so that a positive factor can pass through them.
_PASSES = IDENTITY_AT_INFERENCE | {
    "AveragePooling1D", "AveragePooling2D", "Cropping1D", "Cropping2D", "Dropout", "Flatten", "GlobalAveragePooling1D",
    "GlobalAveragePooling2D", "GlobalMaxPooling1D", "GlobalMaxPooling2D", "LeakyReLU", "MaxPooling1D", "MaxPooling2D",
    "SpatialDropout1D", "SpatialDropout2D", "UpSampling1D", "UpSampling2D", "ZeroPadding1D", "ZeroPadding2D",
}  # fmt: skip
_ROUNDS = 3
_LARGEST = 1e3  # factor, either way
_LIMIT = 6.0  # of a ReLU6
_ALMOST = 1 - 1e-6


class _Group(NamedTuple):
    """Layers and tensors whose channels can only be scaled together.

    ``firsts`` are the linear layers that give the channels, ``seconds`` those that take them. ``tensors`` are stored
    between them in an int8 file; ``limited`` tells which of these a ReLU6 gives.
    """

    firsts: list[Call]
    seconds: list[Call]
    tensors: list[Any]
    limited: list[bool]


def equalize(graph: Graph, images: NDArray[np.float32]) -> None:
    """Divide output channels of linear layers by factors that the next linear layers multiply with; in place.

    The factors make channels use the range of their tensor alike, as far as the weights of the next layers allow (Nagel
    et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", ICCV 2019, section 4.1, with the
    measured ranges of activations in the place of the first layer's weights, which have a scale for each channel).
    Tensors that are added to each other get the same factors, so residuals are no obstacle. Nor is a ReLU6: channels
    that reach its limit for ``images`` keep their factor, and the others stay below it.
    """
    groups = _groups(graph)
    largest = _largest(graph, groups, images)
    stay = [
        (values[group.limited] >= _ALMOST * _LIMIT).any(axis=0) for group, values in zip(groups, largest, strict=True)
    ]
    for _ in range(_ROUNDS):
        for number, group in enumerate(groups):
            factors = np.where(stay[number], 1.0, _factors(group, largest[number]))
            for call in group.firsts:
                layer = call.operation
                layer.kernel.assign(layer.kernel / by_output(call.kind, factors, layer.kernel.shape))
                if layer.use_bias:
                    layer.bias.assign(layer.bias / factors)
            for call in group.seconds:
                kernel = call.operation.kernel
                repeated = np.tile(factors, int(kernel.shape[-2]) // len(factors))  # more than once behind a Flatten
                kernel.assign(kernel * by_input(repeated, len(kernel.shape)))
            largest[number] = largest[number] / factors


def _groups(graph: Graph) -> list[_Group]:
    found: list[_Group] = []
    for call in graph.calls:
        if foldable(graph, call) and not any(call in group.firsts for group in found):
            group = _group(graph, call)
            if group is not None:
                found.append(group)
    return found


def _group(graph: Graph, first: Call) -> _Group | None:
    """The group that ``first`` gives channels to; None if something in it cannot be scaled."""
    group, seen, todo = _Group([], [], [], []), set(), [first.outputs[0]]
    while todo:
        tensor = todo.pop()
        if id(tensor) in seen:
            continue
        seen.add(id(tensor))
        maker, users = graph.maker(tensor), graph.users(tensor)
        if maker is None or not users or any(tensor is output for output in tree.flatten(graph.outputs)):
            return None
        if _passes(maker):
            todo += maker.inputs
        elif foldable(graph, maker):
            group.firsts.append(maker)
        else:
            return None
        for user in users:
            if _passes(user):
                todo += user.outputs
            elif _takes_factors(graph, user):
                group.seconds.append(user)
            else:
                return None
        if maker.kind in (*LINEAR, "Add"):
            behind = graph.only_user(tensor)
            kind = activation(behind)
            group.tensors.append(behind.outputs[0] if behind and kind in ("relu", "relu6") else tensor)
            group.limited.append(kind == "relu6")
    return group if len({call.outputs[0].shape[-1] for call in group.firsts}) == 1 else None


def _passes(call: Call) -> bool:
    """Whether a positive factor for a channel of all inputs becomes one of the output."""
    if call.kind == "Add":
        return len({tuple(tensor.shape) for tensor in call.inputs}) == 1
    return len(call.inputs) == 1 and (call.kind in _PASSES or activation(call) in ("relu", "relu6"))


def _takes_factors(graph: Graph, call: Call) -> bool:
    """Whether the rows of a kernel can be multiplied by factors of the input channels."""
    return foldable(graph, call) and call.kind != "Conv2DTranspose" and getattr(call.operation, "groups", 1) == 1


def _largest(graph: Graph, groups: list[_Group], images: NDArray[np.float32]) -> list[NDArray[np.float64]]:
    """By group: the largest absolute value of each channel in each of its tensors, ``(tensors, channels)``."""
    if not groups:
        return []
    model = replace(graph, outputs=[tensor for group in groups for tensor in group.tensors]).model()
    channels = [group.firsts[0].outputs[0].shape[-1] for group in groups for _ in group.tensors]
    found: list[Any] = [0.0] * len(channels)
    for batch in in_batches(images):
        outputs = tree.flatten(model(batch, training=False))  # the tensor itself if it is one
        for number, values in enumerate(outputs):
            values = np.abs(ops.convert_to_numpy(values)).reshape(-1, channels[number])
            found[number] = np.maximum(found[number], values.max(axis=0))
    every = iter(found)
    return [np.array([next(every) for _ in group.tensors], np.float64) for group in groups]


def _factors(group: _Group, largest: NDArray[np.float64]) -> NDArray[np.float64]:
    """What to divide each channel of a group by."""
    wanted = largest.max(axis=0)
    weights = np.zeros(len(wanted))
    for call in group.seconds:
        if not call.kind.startswith("DepthwiseConv"):  # whose weights have a scale for each input channel
            kernel = np.abs(np.asarray(call.operation.kernel, np.float64))
            rows = kernel.max(axis=tuple(axis for axis in range(kernel.ndim) if axis != kernel.ndim - 2))
            weights = np.maximum(weights, rows.reshape(-1, len(wanted)).max(axis=0))
    if weights.any():
        wanted = np.sqrt(np.divide(wanted, weights, out=np.zeros(len(wanted)), where=weights > 0))
    used = wanted > 0
    if not used.any():
        return np.ones(len(wanted))
    size = np.exp(np.log(wanted[used]).mean())
    if any(group.limited):
        size = _LIMIT / (largest[group.limited][:, used] / wanted[used]).max()
    return np.clip(np.where(used, wanted / size, 1.0), 1 / _LARGEST, _LARGEST)
