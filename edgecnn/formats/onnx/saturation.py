"""Decide which sums of int8 products can saturate on x86 without VNNI.

There, ONNX Runtime multiplies uint8 activations by int8 weights with VPMADDUBSW: it adds two neighbouring products into
16 bits, and a sum beyond -32,768...32,767 becomes that limit. (Intel 64 and IA-32 Architectures Software Developer's
Manual, volume 2, PMADDUBSW.) VPDPBUSD of VNNI adds four products into 32 bits; Arm's instructions, WebAssembly and the
kernels for uint8 weights widen first, so none of them saturates. Int8
activations do not help, because they are stored as uint8 on x86. OpenVINO has similar kernels.
"""

import numpy as np
from numpy.typing import NDArray

_HIGHEST_ACTIVATION = 255
_INT16 = np.iinfo(np.int16)


def possible(weights: NDArray[np.int8], groups: int = 1) -> bool:
    """Whether a sum of two products can overflow 16 bits, for some activations in 0...255.

    This worst case is realistic: calibration sets the scale so that the largest value is stored as 255. Which products
    are added first depends on the runtime, so any two products of an output count.

    Args:
        weights: int8 of shape ``(outputs, ...)``; the other axes are summed.
        groups: groups of a convolution. With as many groups as outputs it is depthwise, and ONNX Runtime's kernel adds
            single products in 32 bits.
    """
    flat = weights.reshape(len(weights), -1).astype(np.int32)
    if flat.shape[1] < 2 or 1 < groups == len(weights):
        return False
    ordered = np.partition(flat, (1, -2), axis=1) * _HIGHEST_ACTIVATION
    lowest = np.minimum(ordered[:, :2], 0).sum(axis=1)
    highest = np.maximum(ordered[:, -2:], 0).sum(axis=1)
    return bool((lowest < _INT16.min).any() or (highest > _INT16.max).any())


def probe() -> tuple[NDArray[np.uint8], NDArray[np.int8], int]:
    """A matrix product that only exact kernels compute correctly: both operands, and the value of every result."""
    size = 16  # selects the kernel for matrices, not for vectors
    activations = np.full((size, size), _HIGHEST_ACTIVATION, np.uint8)
    weights = np.full((size, size), 127, np.int8)
    return activations, weights, size * _HIGHEST_ACTIVATION * 127
