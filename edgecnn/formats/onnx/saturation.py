"""Where sums of int8 products can saturate on x86 without VNNI.

There, ONNX Runtime multiplies uint8 activations by int8 weights with VPMADDUBSW: it adds two neighbouring products into
16 bits, and a sum beyond -32,768...32,767 becomes that limit. (Intel 64 and IA-32 Architectures Software Developer's
Manual, volume 2, PMADDUBSW.) VPDPBUSD of VNNI adds four products into 32 bits; Arm's instructions, WebAssembly and the
kernels for uint8 weights widen first: none of them saturates. Activations of int8 are stored as uint8 on x86, so they
are no way out. OpenVINO has kernels of the same kind.
"""

import numpy as np
from numpy.typing import NDArray

_HIGHEST_ACTIVATION = 255
_INT16 = np.iinfo(np.int16)


def possible(weights: NDArray[np.int8], groups: int = 1) -> bool:
    """Whether a sum of two products can leave 16 bits, for some activations in 0...255.

    That is the worst case, and what calibration saw as well: it sets the scale so that the largest value seen is stored
    as 255. Which two products are neighbours is each runtime's own choice, so any two of an output count.

    Args:
        weights: int8 of shape ``(outputs, ...)``, all that an output is summed from behind the first axis.
        groups: of a convolution. With as many groups as outputs it is depthwise, and ONNX Runtime's kernel for these
            adds products one by one, in 32 bits.
    """
    flat = weights.reshape(len(weights), -1).astype(np.int32)
    if flat.shape[1] < 2 or 1 < groups == len(weights):
        return False
    ordered = np.partition(flat, (1, -2), axis=1) * _HIGHEST_ACTIVATION
    lowest = np.minimum(ordered[:, :2], 0).sum(axis=1)
    highest = np.maximum(ordered[:, -2:], 0).sum(axis=1)
    return bool((lowest < _INT16.min).any() or (highest > _INT16.max).any())


def probe() -> tuple[NDArray[np.uint8], NDArray[np.int8], int]:
    """A product of matrices that only exact kernels compute rightly: both operands, and each value of the result."""
    size = 16  # so that the kernel for matrices is tried, not one for a vector
    activations = np.full((size, size), _HIGHEST_ACTIVATION, np.uint8)
    weights = np.full((size, size), 127, np.int8)
    return activations, weights, size * _HIGHEST_ACTIVATION * 127
