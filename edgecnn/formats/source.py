"""What a converter starts from."""

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edgecnn.records import Io


class Source:
    """A trained model, its fake-quantised twin, and how to export them.

    Attributes:
        model: the float Keras 3 model.
        quantized: the fake-quantised tf_keras model, or None without quantisation-aware training.
        calibration: float32 training images ``(n, height, width, channels)`` in the model's input range.
        io: type of input and output of int8 files.
        batch: 1, or None for a free batch dimension.
        converted: what was converted to .tflite already, by scheme; int8 .onnx is made from it.
    """

    def __init__(
        self, model: Any, quantized: Any, calibration: NDArray[np.float32], io: Io, batch: Literal[1] | None
    ) -> None:
        self.model = model
        self.quantized = quantized
        self.calibration = calibration
        self.io = io
        self.batch = batch
        self.converted: dict[str, bytes] = {}
