"""What a converter starts from."""

from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from edgecnn.data import DataSet
from edgecnn.models import check_model, load_model
from edgecnn.quantization import qat
from edgecnn.records import Io, OnnxCpu, Tuning


class Source:
    """A trained model, its fake-quantised twin, and how to export them.

    Attributes:
        model: the float Keras 3 model.
        quantized: the fake-quantised tf_keras model, or None without quantisation-aware training.
        calibration: float32 training images ``(n, height, width, channels)`` in the model's input range.
        io: type of input and output of int8 files.
        batch: 1, or None for a free batch dimension.
        onnx_cpu: processors on which int8 .onnx files give the right answers: "any", or "vnni" for those with VNNI or
            of other kinds than x86.
        converted: what was converted to .tflite already, by scheme; int8 .onnx is made from it.
        tunings: which operators of int8 .onnx files are left in float, by scheme; none where there is no entry.
    """

    def __init__(
        self,
        model: Any,
        quantized: Any,
        calibration: NDArray[np.float32],
        io: Io,
        batch: Literal[1] | None,
        onnx_cpu: OnnxCpu = "any",
    ) -> None:
        self.model = model
        self.quantized = quantized
        self.calibration = calibration
        self.io = io
        self.batch = batch
        self.onnx_cpu = onnx_cpu
        self.converted: dict[str, bytes] = {}
        self.tunings: dict[str, Tuning] = {}

    @classmethod
    def load(
        cls,
        model: Path,
        data: DataSet,
        *,
        qat_weights: Path | None,
        io: Io = "int8",
        batch: Literal[1] | None = 1,
        calibration_images: int = 500,
        onnx_cpu: OnnxCpu = "any",
    ) -> Self:
        """Load a trained .keras file and, for int8-qat, what ``edgecnn quantize`` wrote for it.

        The calibration images are drawn from the training images, the same for the same data.

        Raises:
            ModelError: the model cannot be loaded, or does not fit the data.
            QuantizationError: the weights after quantisation-aware training are not of this model.
        """
        keras_model = load_model(model)
        check_model(keras_model, data)
        quantized = None
        if qat_weights is not None:
            quantized = qat.fake_quantized(keras_model, data)
            qat.load_weights(quantized, qat_weights)
        return cls(keras_model, quantized, data.calibration(calibration_images), io, batch, onnx_cpu)
