"""Keras to TFLite, for every scheme, without Select (Flex) operators."""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from edgecnn.errors import ExportError, QuantizationError, UnsupportedError, one_line
from edgecnn.formats import converter
from edgecnn.formats.converter import Conversion, Frozen
from edgecnn.formats.source import Source
from edgecnn.models import called, input_names, output_names
from edgecnn.optional import require
from edgecnn.quantization.schemes import is_static_int8, needs_calibration
from edgecnn.quiet import quiet_stderr
from edgecnn.records import Provenance, Scheme, to_json
from edgecnn.tflite import metadata
from edgecnn.tflite.flatbuffer import add_metadata, finished
from edgecnn.tflite.graph import Graph, Operator, float_operators, read_graph
from edgecnn.training import require_tensorflow
from edgecnn.worker import WorkerError

log = logging.getLogger("edgecnn")

METADATA_NAME = "edgecnn"


def convert(source: Source, scheme: Scheme) -> bytes:
    """The model of ``source`` as a .tflite file.

    Static int8 schemes have input and output of type ``source.io``; operators without an int8 kernel stay in float
    between DEQUANTIZE and QUANTIZE, which is logged. The other schemes have float32 input and output.

    Raises:
        ExportError: an operator has no built-in TFLite kernel (named), the converter failed or crashed, or the file is
            not as requested.
        UnsupportedError: an input is whole numbers that a layer takes as indices, which rounding would change.
        QuantizationError: an int8-qat file without a fake-quantised model.
    """
    if scheme.name not in source.converted:
        source.converted[scheme.name] = _convert(source, scheme)
    return source.converted[scheme.name]


def _convert(source: Source, scheme: Scheme) -> bytes:
    tf = require_tensorflow()
    model, calibration = source.model, None
    if needs_calibration(scheme):
        from edgecnn.quantization.graph import check_inputs_can_be_rounded

        check_inputs_can_be_rounded(model)
        calibration = source.calibration
    if scheme.method == "qat":
        if source.quantized is None:
            raise QuantizationError(f"{scheme.name} needs quantisation-aware training first: edgecnn quantize")
        model = source.quantized
    elif is_static_int8(scheme) and source.calibrated is not None:
        model, calibration = source.calibrated.model, None
    conversion = Conversion(frozen(tf, model, source), scheme, calibration, source.io)
    try:
        converted = converter.convert(conversion, f"converting {source.model.name} to {scheme.name} .tflite")
    except WorkerError as error:
        raise _refusal(source.model.name, scheme, error) from error
    model_bytes = finished(converted, *_signature(source.model))
    _check(model_bytes, source, scheme)
    return model_bytes


def with_provenance(model: bytes, provenance: Provenance) -> bytes:
    """``model`` with its provenance in a metadata buffer called "edgecnn", and with metadata for other programs."""
    content, files = metadata.described(model, provenance)
    model = add_metadata(model, metadata.NAME, content)
    return metadata.with_files(add_metadata(model, METADATA_NAME, to_json(provenance)), files)


def _signature(model: Any) -> tuple[dict[str, str], dict[str, str]]:
    """The inputs and outputs of ``model``: their names in the signature, with those of their tensors.

    A single input is called as in Keras if a user has named it; a single output's tensor keeps the name that tells its
    layer.
    """
    tensors = input_names(model)
    inputs = [each.name for each in model.inputs] if len(tensors) == 1 else tensors
    if re.fullmatch(r"(keras_tensor|input_layer)(_\d+)?", inputs[0]):
        inputs[0] = tensors[0]
    if len(model.outputs) == 1:
        layer = model.output_names[0] if hasattr(model, "output_names") else model.layers[-1].name  # Sequential
        return dict(zip(inputs, tensors, strict=True)), {layer: ""}
    outputs = output_names(model)
    return dict(zip(inputs, tensors, strict=True)), dict(zip(outputs, outputs, strict=True))


def frozen(tf: Any, model: Any, source: Source) -> Frozen:
    """The inference of ``model`` with its weights as constants, and the batch and image size of ``source``.

    Keras 3 models keep their variables where converters do not look for them. Functions that Keras compiles with XLA,
    such as grouped convolutions, become operators. LSTM and GRU are unrolled if the number of steps is known.
    """
    freeze = require("tensorflow.python.framework.convert_to_constants").convert_variables_to_constants_v2
    specs = [tf.TensorSpec(shape, tf.float32, f"input_{place}") for place, shape in enumerate(source.input_shapes)]
    call = tf.function(lambda *tensors: called(model, tensors))
    with quiet_stderr(), _inlined(tf), _unrolled(model):
        function = freeze(call.get_concrete_function(*specs))
    return Frozen(
        function.graph.as_graph_def().SerializeToString(),
        tuple(tensor.name for tensor in function.inputs),
        tuple(tensor.name for tensor in function.outputs),
    )


@contextmanager
def _unrolled(model: Any) -> Iterator[None]:
    """Trace recurrent layers as their steps: loops are neither read by edgecnn nor quantised by the converter."""
    loops = [layer for layer in _recurrent(model) if not layer.unroll]
    try:
        for layer in loops:
            layer.unroll = True
        yield
    finally:
        for layer in loops:
            layer.unroll = False


def _recurrent(model: Any) -> Iterator[Any]:
    """The recurrent layers that get a known number of steps."""
    for layer in model._flatten_layers():
        both = type(layer).__name__ == "Bidirectional"
        found = (layer.forward_layer, layer.backward_layer) if both else (layer,)
        if all(hasattr(each, "unroll") for each in found):
            try:
                steps = layer.input.shape[1]
            except AttributeError:  # inside a wrapper or a subclass, or with several inputs
                continue
            if steps is not None:
                yield from found


@contextmanager
def _inlined(tf: Any) -> Iterator[None]:
    """Trace the inside of functions of TensorFlow instead of calls."""
    before = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(before)


def _refusal(model: str, scheme: Scheme, error: WorkerError) -> ExportError:
    what = f"{model} cannot be exported as {scheme.name} .tflite"
    if error.error in ("ChildProcessError", "MemoryError", "TimeoutError"):
        return ExportError(
            f"{what}: {error.reason}; TensorFlow's converter does not support this model, other formats may"
        )
    if no_int16 := re.findall(r"16x8-bit not yet supported for op: '(\w+)'", error.reason):
        return UnsupportedError(
            f"TensorFlow Lite has no kernels with int16 activations for {', '.join(dict.fromkeys(no_int16))}; use "
            "int8, or replace the layers"
        )
    flex = sorted(set(re.findall(r"Flex(\w+)", error.reason)) | set(re.findall(r"\btf\.([A-Z]\w+)", error.reason)))
    if flex:
        return ExportError(
            f"{what}: no built-in kernel for {', '.join(flex)}; Select (Flex) operators do not run on devices, replace "
            "the layer that uses them"
        )
    return ExportError(f"{what}: {one_line(error.reason)[:300]}")


def _check(model: bytes, source: Source, scheme: Scheme) -> None:
    """Check on the finished file what was requested: types of input and output, and int8 where there are kernels."""
    graph = read_graph(model, f"the {scheme.name} .tflite file")
    wanted = source.io if is_static_int8(scheme) else "float32"
    ends = (("input", graph.inputs, source.model.inputs), ("output", graph.outputs, source.model.outputs))
    for kind, indices, asked in ends:
        if len(indices) != len(asked):
            raise ExportError(
                f"the {scheme.name} .tflite file has {len(indices)} {kind}s, the model has {len(asked)}; one of "
                "them is not used, or is another one unchanged"
            )
        for got in (graph.tensors[index].dtype for index in indices):
            if got != wanted:
                raise ExportError(f"the {scheme.name} .tflite file has an {kind} of {got}, {wanted} was asked for")
    if not is_static_int8(scheme):
        return
    floats = float_operators(graph)
    if len(floats) == len(graph.operators) - sum(each.kind in ("DEQUANTIZE", "QUANTIZE") for each in graph.operators):
        raise ExportError(f"the {scheme.name} .tflite file computes everything in float; use float32 or dynamic-int8")
    if floats:
        log.warning(
            "%s: the %s .tflite file computes what has no int8 kernel in float: %s",
            source.model.name, scheme.name, ", ".join(_by_layer(graph, floats, source.model)),
        )  # fmt: skip


def layers_in_float(model: bytes, source: Source) -> list[str]:
    """The layers of an int8 .tflite ``model`` that compute in float, each with its operators."""
    graph = read_graph(model, "the int8 .tflite file")
    return _by_layer(graph, float_operators(graph), source.model)


def _layers(model: Any) -> Iterator[Any]:
    """The layers that a user has named: not those inside of a layer, such as the cell of an LSTM."""
    for layer in model.layers:
        yield layer
        if hasattr(layer, "layers"):
            yield from _layers(layer)


def _by_layer(graph: Graph, operators: tuple[Operator, ...], model: Any) -> list[str]:
    """``operators`` by layer of ``model``, such as "bend (EXP, MUL)", as far as names of tensors tell it."""
    kinds: dict[str | None, dict[str, None]] = {}
    for operator in operators:
        kinds.setdefault(layer_of(graph, operator, model), {})[operator.kind] = None
    unknown = kinds.pop(None, {})
    return [*(f"layer {layer} ({', '.join(found)})" for layer, found in kinds.items()), *unknown]


def layer_of(graph: Graph, operator: Operator, model: Any) -> str | None:
    """The name of the layer of ``model`` that ``operator`` belongs to, as far as names of tensors tell it."""
    layers = {layer.name for layer in _layers(model)}
    name = graph.tensors[operator.outputs[0]].name.split(";")[0]
    scopes = [name] if name in layers else name.split("/")[:-1]
    plain = [re.sub(r"(_activation)?(_\d+)?$", "", scope) for scope in scopes]
    named = [name for pair in zip(scopes, plain, strict=True) for name in pair if name in layers]
    return named[-1] if named else None
