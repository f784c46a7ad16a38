"""What both engines of quantisation-aware training know of the layers of Keras 3."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecnn.models import given
from edgecnn.optional import require
from edgecnn.samples import Samples, parts

IDENTITY_AT_INFERENCE = {
    "ActivityRegularization", "AlphaDropout", "GaussianDropout", "GaussianNoise", "Identity", "RandomBrightness",
    "RandomContrast", "RandomCrop", "RandomFlip", "RandomRotation", "RandomTranslation", "RandomZoom",
}  # fmt: skip
_LEAST_BATCH, _MOST_BATCH, _VALUES = 32, 256, 2**19
AFFINE = {"BatchNormalization", "Normalization", "Rescaling"}


def in_batches(samples: Samples) -> Iterator[Any]:
    """``samples`` as a plain model takes them, 32 at a time, so that a large model does not fill the memory.

    More if they are small.
    """
    size = min(max(_LEAST_BATCH, 4 * _VALUES // max(1, samples[:1].nbytes)), _MOST_BATCH)
    for start in range(0, len(samples), size):
        yield given(parts(samples[start : start + size]))


def affine(layer: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Scale and offset of an affine layer at inference, each for one channel or for all: ``y = x * scale + offset``."""

    def array(value: Any) -> NDArray[np.float64]:
        return np.asarray(value, np.float64).reshape(-1)

    if type(layer).__name__ == "Rescaling":
        return array(layer.scale), array(layer.offset)
    if type(layer).__name__ == "Normalization":
        deviation = np.maximum(np.sqrt(array(layer.variance)), require("keras").config.epsilon())
        if layer.invert:
            return deviation, array(layer.mean)
        return 1 / deviation, -array(layer.mean) / deviation
    scale = 1 / np.sqrt(array(layer.moving_variance) + layer.epsilon)
    if layer.scale:
        scale = scale * array(layer.gamma)
    offset = -array(layer.moving_mean) * scale
    return scale, offset + array(layer.beta) if layer.center else offset


def separated(layer: Any, shape: tuple[int | None, ...]) -> tuple[Any, Any]:
    """A SeparableConv1D or SeparableConv2D for inputs of ``shape`` as its depthwise and its pointwise convolution.

    The second has the layer's name, bias and activation.
    """
    layers, kind = require("keras").layers, type(layer).__name__.removeprefix("SeparableConv")  # "1D" or "2D"
    settings = {"padding": layer.padding, "data_format": layer.data_format}
    depthwise = getattr(layers, f"DepthwiseConv{kind}")(
        layer.kernel_size, strides=layer.strides, dilation_rate=layer.dilation_rate,
        depth_multiplier=layer.depth_multiplier, use_bias=False, name=f"{layer.name}_depthwise", **settings,
    )  # fmt: skip
    pointwise = getattr(layers, f"Conv{kind}")(
        layer.filters, 1, use_bias=layer.use_bias, activation=layer.activation, name=layer.name, **settings
    )
    depthwise.build(shape)
    pointwise.build(depthwise.compute_output_shape(shape))
    depthwise.kernel.assign(layer.depthwise_kernel)
    pointwise.kernel.assign(layer.pointwise_kernel)
    if layer.use_bias:
        pointwise.bias.assign(layer.bias)
    return depthwise, pointwise
