"""Quantisation after training: the fake-quantised model whose outputs are nearest to the float model's."""

import logging
from typing import Any, NamedTuple

import numpy as np
from keras import ops, tree
from numpy.typing import NDArray

from edgecnn.models import without_gradients
from edgecnn.quantization.equalization import equalize
from edgecnn.quantization.graph import read, simplify
from edgecnn.quantization.keras3 import in_batches
from edgecnn.quantization.layers import calibrate, correct_biases
from edgecnn.quantization.simulation import assembled, read_checked, simplify_checked

log = logging.getLogger("edgecnn")

EXTREMES, EQUALIZED, LEAST_SQUARES, CORRECTED = "extremes", "equalised channels", "least squares", "corrected biases"

_GOOD_ENOUGH = 0.01
_CLEARLY_BETTER = 0.95


class Calibrated(NamedTuple):
    """A fake-quantised Keras 3 ``model``, and the ``methods`` that its weights and ranges come from."""

    model: Any
    methods: tuple[str, ...]


def calibrated(model: Any, images: NDArray[np.float32]) -> Calibrated:
    """Quantise a trained Keras 3 ``model`` with calibration images ``(n, …)``; ``model`` itself stays as it is.

    Ranges of activations are their extremes. Three more methods are tried after each other: cross-layer equalisation,
    ranges with the least squared error, and bias correction. Each calibrates with one half of the images; its error is
    the root mean square of what the outputs for the other half differ by, in standard deviations of the outputs of
    ``model``. A method that lowers the error by 5 % is kept; below 1 %, no more are tried. The result is calibrated
    with all images.

    Raises:
        QuantizationError: the layers of ``model`` cannot be told from outside, or its folded form gives other outputs.
    """
    fit, held_out = (images[::2], images[1::2]) if len(images) > 1 else (images, images)
    wanted = _outputs(model, held_out)
    simplify_checked(read_checked(model, images), images)

    def error_with(methods: tuple[str, ...]) -> float:
        pairs = zip(_outputs(_made(model, fit, methods), held_out), wanted, strict=True)
        return float(
            np.sqrt(np.mean([np.square(ours - theirs).mean() / (theirs.var() or 1) for ours, theirs in pairs]))
        )

    methods: tuple[str, ...] = (EXTREMES,)
    error = plain = error_with(methods)
    for method in (EQUALIZED, LEAST_SQUARES, CORRECTED):
        if error > _GOOD_ENOUGH:
            found = error_with((*methods, method))
            if found < error * _CLEARLY_BETTER:
                methods, error = (*methods, method), found
    log.info(
        "int8 of %s: %s; outputs differ by %.2g standard deviations, with extremes alone by %.2g",
        model.name, ", ".join(methods), error, plain,
    )  # fmt: skip
    return Calibrated(_made(model, images, methods), methods)


def _made(model: Any, images: NDArray[np.float32], methods: tuple[str, ...]) -> Any:
    """``model`` quantised with these methods."""
    graph = simplify(read(model))
    if EQUALIZED in methods:
        equalize(graph, images)
    quantized = assembled(graph)
    calibrate(quantized, images, least_squares=LEAST_SQUARES in methods)
    if CORRECTED in methods:
        correct_biases(quantized, images)
    return quantized


def _outputs(model: Any, images: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """Each output of ``model`` for all ``images``."""
    with without_gradients():
        batches = [
            [ops.convert_to_numpy(output) for output in tree.flatten(model(batch, training=False))]
            for batch in in_batches(images)
        ]
    return [np.concatenate(parts) for parts in zip(*batches, strict=True)]
