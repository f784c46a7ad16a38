"""TensorFlow Lite's converter, in a process of its own, since some models crash it."""

import warnings
from collections.abc import Iterator
from typing import NamedTuple

from edgecnn.optional import require
from edgecnn.quantization.schemes import is_static_int8
from edgecnn.records import Io, Scheme
from edgecnn.samples import Samples, parts
from edgecnn.worker import Kept, in_worker

_LIMIT_S = 3600.0


class Frozen(NamedTuple):
    """A function of TensorFlow with its weights as constants: a serialised GraphDef, and the names of its tensors."""

    graph: bytes
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


class Conversion(NamedTuple):
    """What to convert, and to what.

    ``calibration``: float32 ``(n, …)``, or None if the function has fake quantisers or the scheme has no static ranges.
    """

    function: Frozen
    scheme: Scheme
    calibration: Samples | None
    io: Io


def convert(conversion: Conversion, doing: str) -> bytes:
    """The .tflite file of ``conversion``; ``doing`` describes it in errors.

    The process stays for the next conversion until ``stop``: loading TensorFlow takes longer than most conversions.

    Raises:
        WorkerError: the converter failed, crashed, or took longer than an hour.
    """
    if in_worker():
        return _converted(None, conversion)
    return _process.call(doing, _LIMIT_S, _converted, conversion)


def stop() -> None:
    """End the process, which takes memory, if there is one; the next conversion starts another."""
    _process.stop()


def _nothing() -> None:
    """The process has no state."""


_process: Kept[None] = Kept(_nothing)


def _converted(_: None, conversion: Conversion) -> bytes:
    tf = require("tensorflow")
    function, scheme, calibration, io = conversion
    graph = tf.compat.v1.GraphDef.FromString(function.graph)
    wrapped = tf.compat.v1.wrap_function(lambda: tf.graph_util.import_graph_def(graph, name=""), [])
    concrete = wrapped.prune(list(function.inputs), list(function.outputs))
    converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete])
    operators = [tf.lite.OpsSet.TFLITE_BUILTINS]
    if scheme.method != "none":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if scheme.weights == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if calibration is not None:
        converter.representative_dataset = lambda: _one_by_one(calibration)
    if is_static_int8(scheme):
        if calibration is not None:  # fake quantisers bring their ranges; operators without int8 kernel stay in float
            operators = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8, tf.lite.OpsSet.TFLITE_BUILTINS]
        converter.inference_input_type = converter.inference_output_type = tf.dtypes.as_dtype(io)
    elif scheme.activations == "int16":
        operators = [tf.lite.OpsSet.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8]
    converter.target_spec.supported_ops = operators
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "Statistics for quantized inputs were expected": we give them
        return bytes(converter.convert())


def _one_by_one(samples: Samples) -> Iterator[list[Samples]]:
    for index in range(len(samples)):
        yield parts(samples[index : index + 1])
