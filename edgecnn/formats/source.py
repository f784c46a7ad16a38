"""The input of every converter."""

import logging
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from edgecnn.data import DataSet
from edgecnn.errors import QuantizationError
from edgecnn.models import data_for, load_model, plain
from edgecnn.quantization.engines import engine_of
from edgecnn.quantization.schemes import is_static_int8
from edgecnn.records import Io, OnnxCpu, Scheme
from edgecnn.samples import Samples, shapes

if TYPE_CHECKING:
    from edgecnn.quantization.ptq import Calibrated

log = logging.getLogger("edgecnn")


class Source:
    """A trained model, its fake-quantised twin, and how to export them.

    Attributes:
        model: the float Keras 3 model.
        quantized: the fake-quantised model (Keras 3, or tf_keras from TFMOT); None without quantisation-aware training.
        calibration: float32 training samples ``(n, …)`` in the model's input range.
        io: type of input and output of int8 files.
        batch: 1, or None for a dynamic batch dimension.
        onnx_cpu: processors on which int8 .onnx files give the right answers: "any", or "vnni" for those with VNNI or
            of other kinds than x86.
        converted: what was converted to .tflite already, by scheme; int8 .onnx is made from it.
    """

    def __init__(
        self,
        model: Any,
        quantized: Any,
        calibration: Samples,
        io: Io,
        batch: Literal[1] | None,
        onnx_cpu: OnnxCpu = "any",
    ) -> None:
        self.model = plain(model)
        self.quantized = quantized
        self.calibration = calibration
        self.io = io
        self.batch = batch
        self.onnx_cpu = onnx_cpu
        self.converted: dict[str, bytes] = {}

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
        data = data_for(keras_model, data)
        quantized = None
        if qat_weights is not None:
            quantized = engine_of(qat_weights).load(qat_weights, keras_model, data)
        return cls(keras_model, quantized, data.calibration(calibration_images), io, batch, onnx_cpu)

    @property
    def input_shapes(self) -> list[tuple[int | None, ...]]:
        """The shape of each input of the files, with the batch."""
        return [(self.batch, *shape) for shape in shapes(self.calibration)]

    @cached_property
    def calibrated(self) -> "Calibrated | None":
        """The model quantised with the calibration images.

        None if its layers cannot be told from outside, as those of a subclass: then the converter calibrates.
        """
        from edgecnn.quantization.ptq import calibrated

        try:
            return calibrated(self.model, self.calibration)
        except QuantizationError as error:
            log.info("TensorFlow's converter calibrates int8 of %s: %s", self.model.name, error)
            return None


def calibration_methods(source: Source, scheme: Scheme) -> tuple[str, ...]:
    """Where the ranges of a scheme that needs calibration come from."""
    if is_static_int8(scheme) and source.calibrated is not None:
        return source.calibrated.methods
    return ("TensorFlow Lite's converter",)
