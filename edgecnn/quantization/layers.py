"""Keras 3 layers that compute as an int8 file will; they train, save and load on every back end of Keras."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import keras
import numpy as np
from keras import ops, tree
from numpy.typing import NDArray

from edgecnn.models import without_gradients
from edgecnn.quantization.keras3 import in_batches

STEPS = 255
"""Steps of an asymmetric 8-bit range, between its smallest and its largest integer."""
WEIGHT_STEPS = 127
"""Steps on each side of 0 of a symmetric 8-bit range."""

_EMPTY = 1e-6  # a range has a width, or nothing could be told apart in it
_constant = keras.initializers.Constant

_SHRUNK = [1.0 - step / 20 for step in range(15)]

# The axes of a kernel that share one scale: all but those of the output channel, as the TFLite quantisation
# specification has it. The rest of the axes are the output channels.
SHARED_AXES: dict[str, tuple[int, ...]] = {
    "Conv1D": (0, 1),
    "Conv2D": (0, 1, 2),
    "Conv2DTranspose": (0, 1, 3),
    "Dense": (0,),
    "DepthwiseConv1D": (0,),
    "DepthwiseConv2D": (0, 1),
}


@keras.saving.register_keras_serializable(package="edgecnn")
class FakeQuant(keras.layers.Layer):  # type: ignore[misc]
    """Rounds activations of any shape to the 256 values of an asymmetric 8-bit range; float32 in and out.

    The range ``[low, high]`` contains 0 and is shifted so that 0 is one of the values. Values outside are clipped and
    pass no gradient, values inside pass it on (Jacob et al., CVPR 2018, section 3). Training leaves the range as it is;
    ``calibrate`` measures it.

    Args:
        range: the ends of a range that is prescribed; without, it is measured.
    """

    def __init__(self, range: tuple[float, float] | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.range = range
        low, high = range or (0.0, _EMPTY)
        self.low = self.add_weight(shape=(), initializer=_constant(low), name="low", trainable=False)
        self.high = self.add_weight(shape=(), initializer=_constant(high), name="high", trainable=False)
        self.observe: Callable[[Any], None] | None = None

    def build(self, input_shape: Any) -> None:
        """Nothing depends on the shape."""

    def call(self, inputs: Any) -> Any:
        """``inputs`` rounded; while they are observed, as they are."""
        if self.observe is not None:
            self.observe(inputs)
            return inputs
        return _rounded(inputs, self.low, self.high)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """That of the input."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """What the class is made from; a measured range is in its weights."""
        return {**super().get_config(), "range": self.range}


def calibrate(model: Any, inputs: Any) -> None:
    """Set the range of every ``FakeQuant`` in ``model`` without a prescribed one to the extremes of what it gets.

    Activations are not rounded meanwhile; kernels are.
    """
    layers = _measured(model)
    for layer in layers:
        layer.low.assign(0.0)
        layer.high.assign(_EMPTY)
    observe(model, inputs, {layer: partial(_extend, layer) for layer in layers})


def shrink_ranges(model: Any, inputs: Any) -> None:
    """Shrink the ranges that ``calibrate`` set to where rounding and clipping have the least squared error."""
    errors = {layer: np.zeros(len(_SHRUNK)) for layer in _measured(model)}
    observe(model, inputs, {layer: partial(_add_errors, layer, errors[layer]) for layer in errors})
    for layer, found in errors.items():
        best = _SHRUNK[int(found.argmin())]
        layer.low.assign(layer.low * best)
        layer.high.assign(layer.high * best)


def _measured(model: Any) -> list[FakeQuant]:
    return [layer for layer in model.layers if isinstance(layer, FakeQuant) and layer.range is None]


def correct_biases(model: Any, inputs: Any) -> None:
    """Add to each bias in ``model`` what rounding the kernel takes from the mean of the output for ``inputs``.

    Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", ICCV 2019, section 4.2, with
    measured instead of estimated means.
    """
    layers = [layer for layer in _wrapped(model) if layer.layer.use_bias]
    lost: dict[Any, list[Any]] = {layer: [] for layer in layers}
    observe(model, inputs, {layer: partial(_add_lost, layer, lost[layer]) for layer in layers})
    for layer in layers:
        bias = layer.layer.bias
        bias.assign(np.asarray(bias) + np.mean(lost[layer], axis=0))


def _wrapped(model: Any) -> "list[QuantizedWeights]":
    return [layer for layer in model.layers if isinstance(layer, QuantizedWeights)]


def outputs_of(model: Any, inputs: Any) -> list[NDArray[np.float32]]:
    """Each output of ``model`` for all ``inputs``; kernels are rounded once."""
    with without_gradients(), _rounded_once(model):
        batches = [
            [ops.convert_to_numpy(output) for output in tree.flatten(model(batch, training=False))]
            for batch in in_batches(inputs)
        ]
    return [np.concatenate(parts) for parts in zip(*batches, strict=True)]


@contextmanager
def _rounded_once(model: Any) -> Iterator[None]:
    """Put rounded kernels in the place of those in ``model``, which costs more for each batch than many layers."""
    layers = _wrapped(model)
    try:
        for layer in layers:
            layer.exact = np.array(ops.convert_to_numpy(layer.kernel))  # a copy
            layer.kernel.assign(layer.quantized_kernel())
        yield
    finally:
        for layer in layers:
            if layer.exact is not None:
                layer.kernel.assign(layer.exact)
                layer.exact = None


def observe(model: Any, inputs: Any, observers: dict[Any, Callable[[Any], None]]) -> None:
    """Run ``model`` with a function that sees what each of these layers gets."""
    try:
        for layer, see in observers.items():
            layer.observe = see
        outputs_of(model, inputs)
    finally:
        for layer in observers:
            layer.observe = None


def _extend(layer: FakeQuant, inputs: Any) -> None:
    layer.low.assign(ops.minimum(layer.low, ops.min(inputs)))
    layer.high.assign(ops.maximum(layer.high, ops.max(inputs)))


def _add_errors(layer: FakeQuant, errors: Any, inputs: Any) -> None:
    for number, ratio in enumerate(_SHRUNK):
        rounded = _rounded(inputs, layer.low * ratio, layer.high * ratio)
        errors[number] += float(ops.convert_to_numpy(ops.sum(ops.square(rounded - inputs))))


def _add_lost(layer: "QuantizedWeights", lost: list[Any], inputs: Any) -> None:
    difference = ops.convert_to_numpy(
        layer.with_kernel(inputs, ops.convert_to_tensor(layer.exact)) - layer.layer(inputs)
    )
    lost.append(difference.reshape(-1, difference.shape[-1]).mean(axis=0))


def _rounded(inputs: Any, low: Any, high: Any) -> Any:
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        # one pass over the tensor instead of eight, and the operator that the converter reads ranges from
        return tf.quantization.fake_quant_with_min_max_vars(inputs, low, high)
    return fake_quant(inputs, low, high)


def fake_quant(inputs: Any, low: Any, high: Any) -> Any:
    """``tf.quantization.fake_quant_with_min_max_vars`` in operators of Keras, with its gradient for ``inputs``."""
    scale = (high - low) / STEPS
    place = -low / scale
    below = ops.floor(place)
    zero = ops.clip(below + ops.cast(place - below >= 0.5, "float32"), 0, STEPS)
    lowest = -zero * scale
    clipped = ops.clip(inputs, lowest, (STEPS - zero) * scale)
    rounded = ops.floor((clipped - lowest) / scale + 0.5) * scale + lowest
    return clipped + ops.stop_gradient(rounded - clipped)


def fake_quant_weights(kernel: Any, shared: tuple[int, ...]) -> Any:
    """``kernel`` on symmetric 8-bit grids, one for each output channel; gradients pass as they are.

    ``shared`` are the axes that share a scale, which is the largest absolute value divided by 127.
    """
    largest = ops.max(ops.abs(kernel), axis=shared, keepdims=True)
    scale = ops.where(largest == 0, 1.0, largest) / WEIGHT_STEPS
    return kernel + ops.stop_gradient(ops.round(kernel / scale) * scale - kernel)


@keras.saving.register_keras_serializable(package="edgecnn")
class QuantizedWeights(keras.layers.Wrapper):  # type: ignore[misc]
    """Calls a convolution or dense layer with its kernel fake-quantised; the kernel itself stays float32 and trains."""

    @property
    def kernel(self) -> Any:
        """The float32 kernel, as it is trained."""
        return self.layer.kernel

    def quantized_kernel(self) -> Any:
        """The kernel on the grid of the int8 file."""
        return fake_quant_weights(ops.convert_to_tensor(self.kernel), SHARED_AXES[type(self.layer).__name__])

    def __init__(self, layer: Any, **options: Any) -> None:
        super().__init__(layer, **options)
        self.observe: Callable[[Any], None] | None = None
        self.exact: Any = None  # the kernel itself, while the rounded one is in its place

    def call(self, inputs: Any) -> Any:
        """The output of the layer with the quantised kernel."""
        if self.observe is not None:
            self.observe(inputs)
        return self.with_kernel(inputs, self.quantized_kernel()) if self.exact is None else self.layer(inputs)

    def with_kernel(self, inputs: Any, kernel: Any) -> Any:
        """The output of the layer with another ``kernel``."""
        # All weights, since an inner scope hides what an outer one says of them.
        values = [
            (weight, kernel if weight is self.kernel else ops.convert_to_tensor(weight))
            for weight in self.layer.weights
        ]
        with keras.StatelessScope(state_mapping=values):
            return self.layer(inputs)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """That of the layer."""
        return self.layer.compute_output_shape(input_shape)
