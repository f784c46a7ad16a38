"""Keras to TFLite, for every scheme, without Select (Flex) operators."""

import re
import warnings
from collections.abc import Iterator
from typing import Any

from edgecnn.errors import ExportError, QuantizationError
from edgecnn.formats.source import Source
from edgecnn.optional import require
from edgecnn.quantization.schemes import is_static_int8, needs_calibration
from edgecnn.quiet import quiet_stderr
from edgecnn.records import Provenance, Scheme, to_json
from edgecnn.tflite.flatbuffer import add_metadata, align
from edgecnn.tflite.graph import read_graph
from edgecnn.training import require_tensorflow

METADATA_NAME = "edgecnn"


def convert(source: Source, scheme: Scheme) -> bytes:
    """The model of ``source`` as a .tflite file.

    Static int8 schemes contain integer operators only and have input and output of type ``source.io``; the others
    have float32 input and output.

    Raises:
        ExportError: an operator has no built-in TFLite kernel (named), or the file is not what was asked for.
        QuantizationError: an int8-qat file without a fake-quantised model.
    """
    if scheme.name not in source.converted:
        source.converted[scheme.name] = _convert(source, scheme)
    return source.converted[scheme.name]


def _convert(source: Source, scheme: Scheme) -> bytes:
    tf = require_tensorflow()
    model = source.model
    if scheme.method == "qat":
        if source.quantized is None:
            raise QuantizationError(f"{scheme.name} needs quantisation-aware training first: edgecnn quantize")
        model = source.quantized
    converter = tf.lite.TFLiteConverter.from_concrete_functions([_frozen(tf, model, source)])
    operators = tf.lite.OpsSet.TFLITE_BUILTINS
    if scheme.method != "none":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if scheme.weights == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if needs_calibration(scheme):
        converter.representative_dataset = lambda: _one_by_one(source.calibration)
    if is_static_int8(scheme):
        if needs_calibration(scheme):  # fake quantisers bring their ranges, and the converter checks nothing then
            operators = tf.lite.OpsSet.TFLITE_BUILTINS_INT8
        converter.inference_input_type = converter.inference_output_type = tf.dtypes.as_dtype(source.io)
    elif scheme.activations == "int16":
        operators = tf.lite.OpsSet.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8
    converter.target_spec.supported_ops = [operators]
    try:
        with quiet_stderr(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "Statistics for quantized inputs were expected": we give them
            model_bytes = align(bytes(converter.convert()))
    except Exception as error:
        raise ExportError(_reason(model.name, scheme, str(error))) from error
    _check(model_bytes, source, scheme)
    return model_bytes


def with_provenance(model: bytes, provenance: Provenance) -> bytes:
    """``model`` with its provenance in a metadata buffer called "edgecnn"."""
    return add_metadata(model, METADATA_NAME, to_json(provenance))


def _frozen(tf: Any, model: Any, source: Source) -> Any:
    """The model's inference as a concrete function with its weights as constants.

    Keras 3 models keep their variables where the converter does not look for them, so they are frozen first.
    """
    freeze = require("tensorflow.python.framework.convert_to_constants").convert_variables_to_constants_v2
    shape = (source.batch, *source.calibration.shape[1:])
    call = tf.function(lambda images: model(images, training=False))
    with quiet_stderr():
        return freeze(call.get_concrete_function(tf.TensorSpec(shape, tf.float32, name="input")))


def _one_by_one(images: Any) -> Iterator[list[Any]]:
    for index in range(len(images)):
        yield [images[index : index + 1]]


def _reason(model: str, scheme: Scheme, text: str) -> str:
    flex = sorted(set(re.findall(r"Flex(\w+)", text)) | set(re.findall(r"\btf\.([A-Z]\w+)", text)))
    if flex:
        return (
            f"{model} cannot be exported as {scheme.name} .tflite: no built-in kernel for {', '.join(flex)}; Select "
            "(Flex) operators do not run on devices, replace the layer that uses them"
        )
    return f"{model} cannot be exported as {scheme.name} .tflite: {' '.join(text.split())[:300]}"


def _check(model: bytes, source: Source, scheme: Scheme) -> None:
    """Assert on the finished file what was asked for: types of input and output, and no float in an int8 file."""
    graph = read_graph(model, f"the {scheme.name} .tflite file")
    wanted = source.io if is_static_int8(scheme) else "float32"
    for kind, indices in (("input", graph.inputs), ("output", graph.outputs)):
        got = graph.tensors[indices[0]].dtype
        if len(indices) != 1 or got != wanted:
            raise ExportError(f"the {scheme.name} .tflite file has an {kind} of {got}, {wanted} was asked for")
    if not is_static_int8(scheme):
        return
    for operator in graph.operators:
        floats = [index for index in operator.inputs if index >= 0 and graph.tensors[index].dtype == "float32"]
        if floats and operator.kind != "QUANTIZE":
            reason = (
                "quantisation-aware training left that layer without ranges"
                if scheme.method == "qat"
                else "it has no int8 kernel; replace the layer that uses it"
            )
            raise ExportError(f"the {scheme.name} .tflite file computes in float at {operator}; {reason}")
