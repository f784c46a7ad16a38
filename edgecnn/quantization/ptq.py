"""Quantisation after training: the fake-quantised model whose outputs are nearest to the float model's."""

import logging
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgecnn.quantization.equalization import equalize
from edgecnn.quantization.layers import calibrate, correct_biases, outputs_of, shrink_ranges
from edgecnn.quantization.rounding import round_by_outputs
from edgecnn.quantization.simulation import assembled, read_checked, simplify_checked

log = logging.getLogger("edgecnn")

EXTREMES, EQUALIZED, LEAST_SQUARES = "extremes", "equalised channels", "least squares"
ROUNDED, CORRECTED = "rounding by outputs", "corrected biases"

_GOOD_ENOUGH = 0.01
_CLEARLY_BETTER = 0.95


class Calibrated(NamedTuple):
    """A fake-quantised Keras 3 ``model``, and the ``methods`` that its weights and ranges come from."""

    model: Any
    methods: tuple[str, ...]


def calibrated(model: Any, images: NDArray[np.float32], *, trains: bool = False) -> Calibrated:
    """Quantise a trained Keras 3 ``model`` with calibration images ``(n, …)``; ``model`` itself stays as it is.

    Ranges of activations are their extremes. Four more methods are tried after each other: cross-layer equalisation,
    ranges with the least squared error, weights rounded by what becomes of outputs, and bias correction. Each
    calibrates with one half of the images; its error is the root mean square of what the outputs for the other half
    differ by, in standard deviations of the outputs of ``model``. A method that lowers the error by 5 % is kept; below
    1 %, no more are tried. The result is calibrated with all images. If it ``trains``, weights are rounded to the
    nearest: training finds better ones itself, and more easily from where they were.

    Raises:
        QuantizationError: the layers of ``model`` cannot be told from outside, or its folded form gives other outputs.
    """
    fit, held_out = (images[::2], images[1::2]) if len(images) > 1 else (images, images)
    wanted = outputs_of(model, held_out)
    graph = simplify_checked(read_checked(model, images), images)
    quantized = assembled(graph)
    trained = quantized.get_weights()

    def error() -> float:
        pairs = zip(outputs_of(quantized, held_out), wanted, strict=True)
        return float(
            np.sqrt(np.mean([np.square(ours - theirs).mean() / (theirs.var() or 1) for ours, theirs in pairs]))
        )

    def apply(method: str, images: NDArray[np.float32]) -> None:
        if method == EQUALIZED:
            equalize(graph, images)  # whose layers are those of the quantised model
        if method in (EXTREMES, EQUALIZED):
            calibrate(quantized, images)
        if method == LEAST_SQUARES:
            shrink_ranges(quantized, images)
        if method == ROUNDED:
            round_by_outputs(quantized, images)
        if method == CORRECTED:
            correct_biases(quantized, images)

    apply(EXTREMES, fit)
    methods: tuple[str, ...] = (EXTREMES,)
    least = plain = error()
    for method in (EQUALIZED, LEAST_SQUARES, *(() if trains else (ROUNDED,)), CORRECTED):
        if least > _GOOD_ENOUGH:
            before = quantized.get_weights()
            apply(method, fit)
            found = error()
            if found < least * _CLEARLY_BETTER:
                methods, least = (*methods, method), found
            else:
                quantized.set_weights(before)
    log.info(
        "int8 of %s: %s; outputs differ by %.2g standard deviations, with extremes alone by %.2g",
        model.name, ", ".join(methods), least, plain,
    )  # fmt: skip
    quantized.set_weights(trained)
    for method in methods:
        apply(method, images)
    return Calibrated(quantized, methods)
