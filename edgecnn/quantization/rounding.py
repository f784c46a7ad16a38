"""Rounding of weights up or down, whichever changes the outputs of their layer less."""

from functools import partial
from typing import Any

import numpy as np
from keras import ops
from numpy.typing import NDArray

from edgecnn.quantization.layers import SHARED_AXES, WEIGHT_STEPS, QuantizedWeights, observe

_KINDS = ("Conv2D", "Dense", "DepthwiseConv2D")
_MOST_ROWS = 2048  # of a kernel, since the time grows with their square
_MOST_VALUES = 2**23  # of the inputs of a layer in one batch
_SWEEPS, _BLOCK = 3, 64
_ON_GRID = 1e-4  # steps


def round_by_outputs(model: Any, inputs: Any) -> None:
    """Put kernels in ``model`` on their int8 grid so that the outputs of their layers change least for ``inputs``.

    Every weight goes up or down by less than a step. The error is that of Nagel et al., "Up or Down? Adaptive Rounding
    for Post-Training Quantization", ICML 2020, section 3.3: the mean square of what an output changes by, which is a
    quadratic form of the roundings. They start with the nearest and are visited in turn, and each is changed if that
    lowers the error. Kernels with more than 2048 rows stay as they are, and so do convolutions in one dimension,
    transposed, in groups, or dilated by one factor along the height and another along the width.
    """
    moments: dict[Any, list[Any]] = {
        layer: [0.0, 0] for layer in model.layers if isinstance(layer, QuantizedWeights) and _possible(layer.layer)
    }
    observe(model, inputs, {layer: partial(_add_moments, layer.layer, found) for layer, found in moments.items()})
    for layer, (products, count) in moments.items():
        kernel = np.asarray(layer.kernel, np.float64)
        largest = np.abs(kernel).max(axis=SHARED_AXES[type(layer.layer).__name__], keepdims=True)
        scale = np.where(largest == 0, 1.0, largest) / WEIGHT_STEPS
        order = (2, 0, 1, 3) if _depthwise(layer.layer) else tuple(range(kernel.ndim))
        steps = (kernel / scale).transpose(order)
        rows = steps.reshape(len(products), -1, steps.shape[-1])
        rounded = _rounded(rows, products / count).reshape(steps.shape).transpose(np.argsort(order))
        layer.kernel.assign(rounded * scale)


def _possible(layer: Any) -> bool:
    kernel = layer.kernel
    if type(layer).__name__ not in _KINDS or getattr(layer, "groups", 1) != 1:
        return False
    if len(set(getattr(layer, "dilation_rate", ()))) > 1:
        return False  # extract_patches takes one factor
    return bool(np.prod(kernel.shape[:-1]) <= _MOST_ROWS or _depthwise(layer))


def _depthwise(layer: Any) -> bool:
    return type(layer).__name__ == "DepthwiseConv2D"


def _add_moments(layer: Any, found: list[Any], inputs: Any) -> None:
    """Add the products of all pairs of values that an output is made of: ``(channels or 1, rows, rows)``."""
    if type(layer).__name__ == "Dense":
        rows = ops.convert_to_numpy(inputs).reshape(1, -1, inputs.shape[-1])
    else:
        size, channels = tuple(layer.kernel.shape[:2]), inputs.shape[-1]
        few = max(1, _MOST_VALUES // max(1, int(np.prod(inputs.shape[1:])) * size[0] * size[1]))
        seen = ops.image.extract_patches(
            inputs[:few], size, strides=layer.strides, dilation_rate=layer.dilation_rate[0], padding=layer.padding
        )
        rows = ops.convert_to_numpy(seen).reshape(-1, size[0] * size[1], channels)
        rows = rows.transpose(2, 0, 1) if _depthwise(layer) else rows.reshape(1, len(rows), -1)
    found[0] = found[0] + np.matmul(rows.transpose(0, 2, 1), rows)
    found[1] += rows.shape[1]


def _rounded(steps: NDArray[np.float64], moments: NDArray[np.float64]) -> NDArray[np.float64]:
    """``steps`` ``(channels or 1, rows, outputs)`` rounded; ``moments`` are the mean products of pairs of rows."""
    rounded = np.round(steps)
    error = rounded - steps
    other = np.where(np.abs(error) < _ON_GRID, 0.0, -np.sign(error))  # to the grid point on the other side
    slope = moments @ error
    for _ in range(_SWEEPS):
        for start in range(0, steps.shape[1], _BLOCK):
            block = slice(start, start + _BLOCK)  # the slope of other rows can wait
            within, near, moves = moments[:, block, block], slope[:, block].copy(), np.zeros_like(slope[:, block])
            for row in range(near.shape[1]):
                way = other[:, start + row]
                gain = way * (2 * near[:, row] + way * within[:, row, row, None])
                moves[:, row] = np.where(gain < 0, way, 0.0)
                near += within[:, :, row, None] * moves[:, row, None]
            rounded[:, block] += moves
            other[:, block] -= 2 * moves
            slope += moments[:, :, block] @ moves
    return rounded
