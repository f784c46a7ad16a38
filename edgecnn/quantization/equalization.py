"""Cross-layer equalisation: channels of one tensor get ranges of the same size, and no output changes."""

from dataclasses import replace
from typing import Any, NamedTuple

import keras
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


class _Pair(NamedTuple):
    """Two linear layers, and the calls between them."""

    first: Call
    between: list[Call]
    second: Call


def equalize(graph: Graph, images: NDArray[np.float32]) -> None:
    """Divide output channels of linear layers by factors that the next linear layer multiplies with; in place.

    The factors make channels use the range of their tensor alike, as far as the weights of the next layer allow (Nagel
    et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", ICCV 2019, section 4.1, with the
    measured ranges of activations in the place of the first layer's weights, which have a scale for each channel). As
    there, ReLU6 between the two becomes ReLU, which may change outputs.
    """
    pairs = [pair for call in graph.calls if (pair := _pair(graph, call)) is not None]
    for pair in pairs:
        for call in pair.between:
            if activation(call) == "relu6":
                call.operation = keras.layers.ReLU(name=call.operation.name)
    largest = _largest(graph, pairs, images)
    for _ in range(_ROUNDS):
        for number, pair in enumerate(pairs):
            factors = _factors(pair, largest[number])
            layer = pair.first.operation
            layer.kernel.assign(layer.kernel / by_output(pair.first.kind, factors, layer.kernel.shape))
            if layer.use_bias:
                layer.bias.assign(layer.bias / factors)
            kernel = pair.second.operation.kernel
            kernel.assign(kernel * by_input(np.tile(factors, _repeats(pair, factors)), len(kernel.shape)))
            largest[number] = largest[number] / factors


def _pair(graph: Graph, first: Call) -> _Pair | None:
    """The pair that begins with ``first``, if there is one."""
    if not foldable(graph, first):
        return None
    between: list[Call] = []
    behind = graph.only_user(first.outputs[0])
    while behind is not None and (behind.kind in _PASSES or activation(behind) in ("relu", "relu6")):
        if graph.shared(behind) or len(behind.inputs) != 1:
            return None
        between.append(behind)
        behind = graph.only_user(behind.outputs[0])
    if behind is None or behind.kind not in LINEAR or behind.kind == "Conv2DTranspose" or not foldable(graph, behind):
        return None
    flattened = any(call.kind == "Flatten" for call in between)
    if getattr(behind.operation, "groups", 1) != 1 or (flattened and behind.kind != "Dense"):
        return None
    return _Pair(first, between, behind)


def _largest(graph: Graph, pairs: list[_Pair], images: NDArray[np.float32]) -> list[NDArray[np.float64]]:
    """By pair: the largest absolute value that each channel of the first layer has on its way to the second."""
    if not pairs:
        return []
    model = replace(graph, outputs=[(pair.between or [pair.first])[0].outputs[0] for pair in pairs]).model()
    found: list[Any] = [0.0] * len(pairs)
    for batch in in_batches(images):
        outputs = model(batch, training=False)  # the tensor itself if it is one
        for number, values in enumerate(tree.flatten(outputs)):
            values = np.abs(ops.convert_to_numpy(values))
            channels = int(pairs[number].first.outputs[0].shape[-1])
            found[number] = np.maximum(found[number], values.reshape(-1, channels).max(axis=0))
    return found


def _repeats(pair: _Pair, factors: NDArray[np.float64]) -> int:
    """How often the channels of the first layer stand in the input of the second: more than once behind a Flatten."""
    rows = pair.second.operation.kernel.shape[-2]
    return int(rows) // len(factors)


def _factors(pair: _Pair, largest: NDArray[np.float64]) -> NDArray[np.float64]:
    """What to divide each output channel of the first layer by."""
    channels, wanted = len(largest), largest
    if not pair.second.kind.startswith("DepthwiseConv"):  # whose weights have a scale for each input channel
        kernel = np.abs(np.asarray(pair.second.operation.kernel, np.float64))
        weights = kernel.max(axis=tuple(axis for axis in range(kernel.ndim) if axis != kernel.ndim - 2))
        weights = weights.reshape(-1, channels).max(axis=0)
        wanted = np.sqrt(np.divide(wanted, weights, out=np.zeros(channels), where=weights > 0))
    used = wanted > 0
    factors = np.ones(channels)
    factors[used] = wanted[used] / np.exp(np.log(wanted[used]).mean()) if used.any() else 1
    return np.clip(factors, 1 / _LARGEST, _LARGEST)
