"""Keras to ONNX: float schemes through tf2onnx, int8 schemes from the integers of the .tflite file."""

import contextlib
import io
import logging
import re
import tempfile
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgecnn.errors import ExportError, UnsupportedError, one_line
from edgecnn.formats import tflite
from edgecnn.formats.onnx import qdq
from edgecnn.formats.onnx.values import spec_for, spec_of, value_names
from edgecnn.formats.source import Source
from edgecnn.models import input_names, output_names
from edgecnn.optional import require
from edgecnn.quantization.schemes import is_static_int8
from edgecnn.quiet import quiet_stderr
from edgecnn.records import Provenance, Scheme, TensorSpec, Tuning, end_key, to_json
from edgecnn.tflite.graph import read_graph
from edgecnn.training import require_tensorflow

_OPSET = 17
_NO_INT16 = (
    "ONNX Runtime has no kernels with int16 activations on CPU: every operator would run in float32 between "
    "QuantizeLinear and DequantizeLinear, larger and slower than float32; use int8, or int16x8 as .tflite"
)


def convert(source: Source, scheme: Scheme, tuning: Tuning | None = None) -> bytes:
    """The model of ``source`` as an .onnx file, channels-first.

    float32 has the trained weights; float16 stores them in half precision and computes in float32; dynamic-int8
    quantises activations at run time; int8 and int8-qat have the integers and scales of the .tflite file.

    Raises:
        UnsupportedError: int16x8, with the reason.
        ExportError: an operator cannot be converted; the message names it.
    """
    if scheme.activations == "int16":
        raise UnsupportedError(_NO_INT16)
    if is_static_int8(scheme):
        return _quantized(source, scheme, tuning)
    model, onnx = _float(source), require("onnx")
    try:
        if scheme.weights == "float16":
            _store_half(model)
        elif scheme.weights == "int8":
            model = _dynamic(model)
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, RuntimeError, ValueError) as error:
        raise ExportError(
            f"{source.model.name} cannot be exported as {scheme.name} .onnx: {one_line(error)}"
        ) from error
    shapes = {
        "input": source.input_shapes,
        "output": [(source.batch, *each.shape[1:]) for each in source.model.outputs],
    }
    names = _names(source)
    specs = {
        kind: [spec_for(name, shape, "float32") for name, shape in zip(names[kind], each, strict=True)]
        for kind, each in shapes.items()
    }
    return _finished(model, specs)


def _names(source: Source) -> dict[str, list[str]]:
    """The names of inputs and outputs in the file."""
    model = source.model
    return {
        "input": input_names(model),
        "output": output_names(model) if len(model.outputs) > 1 else ["output"],
    }


def with_provenance(model: bytes, provenance: Provenance) -> bytes:
    """``model`` with its provenance in metadata_props under "edgecnn", and its summary for other programs."""
    onnx = require("onnx")
    proto = onnx.load_from_string(model)
    proto.doc_string = proto.graph.doc_string = provenance.summary
    _add_property(proto, "edgecnn", to_json(provenance))
    return bytes(proto.SerializeToString(deterministic=True))


def _quantized(source: Source, scheme: Scheme, tuning: Tuning | None) -> bytes:
    graph = read_graph(tflite.convert(source, scheme), f"the {scheme.name} .tflite file")
    names = value_names(graph)
    specs = {
        kind: [spec_of(graph.tensors[index], names[index]) for index in indices]
        for kind, indices in (("input", graph.inputs), ("output", graph.outputs))
    }
    placement: dict[str, Any] = {"cpu": source.onnx_cpu}
    if tuning is not None:
        found = tuple(operator.kind for operator in graph.operators)
        if found != tuning.operators:
            raise ExportError(
                f"the tuning is for a model with operators {', '.join(tuning.operators)}; this one has "
                f"{', '.join(found)}; tune it again, or export without tuning"
            )
        placement |= {"in_float": tuning.in_float, "unsigned": tuning.unsigned}
    try:
        model = qdq.to_onnx(graph, source.model.name, **placement)
    except UnsupportedError as error:
        layer = None
        if error.operator is not None:
            layer = tflite.layer_of(graph, graph.operators[error.operator], source.model)
        if layer is None:
            raise
        raise UnsupportedError(f"layer {layer}: {error}") from error
    return _finished(model, specs)


def _finished(model: Any, specs: dict[str, list[TensorSpec]]) -> bytes:
    """Add the specs of inputs and outputs to a checked model, and serialise it."""
    onnx = require("onnx")
    for kind, values in (("input", model.graph.input), ("output", model.graph.output)):
        for number, (value, spec) in enumerate(zip(values, specs[kind], strict=True)):
            _add_property(model, end_key(kind, number), to_json(spec))
            got = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type).name
            if got != spec.dtype:
                raise ExportError(f"the .onnx file has {kind} type {got}, but {spec.dtype} was requested")
    return bytes(model.SerializeToString(deterministic=True))


def _add_property(model: Any, key: str, value: bytes) -> None:
    model.metadata_props.add(key=key, value=value.decode())


def _float(source: Source) -> Any:
    """The float model from tf2onnx, with the names "input" and "output"; images are channels-first."""
    tf = require_tensorflow()
    tf2onnx = require("tf2onnx")
    function = tflite.frozen(tf, source.model, source)
    graph = tf.compat.v1.GraphDef.FromString(function.graph)
    names = {"input_names": list(function.inputs), "output_names": list(function.outputs)}

    def images(names: Sequence[str], tensors: Sequence[Any]) -> list[str] | None:
        return [name for name, each in zip(names, tensors, strict=True) if len(each.shape) == 4] or None

    logging.getLogger("tf2onnx").setLevel(logging.CRITICAL)
    try:
        with quiet_stderr(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model, _ = tf2onnx.convert.from_graph_def(
                graph,
                **names,
                opset=_OPSET,
                inputs_as_nchw=images(function.inputs, source.model.inputs),
                outputs_as_nchw=images(function.outputs, source.model.outputs),
                custom_op_handlers=_HANDLERS,
            )
    except Exception as error:
        raise ExportError(
            f"{source.model.name} cannot be exported as .onnx: {' '.join(str(error).split())[:300]}"
        ) from error
    known = require("onnx").defs.has
    unknown = sorted({node.op_type for node in model.graph.node if node.domain or not known(node.op_type)})
    if unknown:
        raise ExportError(
            f"{source.model.name} cannot be exported as .onnx: no standard operator for {', '.join(unknown)}"
        )
    model.graph.name = source.model.name
    _flatten_channels_first(model)
    _order(model.graph, _names(source), names)
    return model


def _erfc(graph: Any, node: Any, name: str, arguments: Any) -> None:
    """The complementary error function, as in GELU, which tf2onnx does not know: 1 - erf."""
    one = graph.make_const(f"{name}/one", np.float32(1))
    erf = graph.make_node("Erf", [node.input[0]])
    graph.remove_node(node.name)
    graph.make_node("Sub", [one.output[0], erf.output[0]], outputs=node.output, name=node.name)


_HANDLERS: dict[str, tuple[Any, list[Any]]] = {"Erfc": (_erfc, [])}


def _flatten_channels_first(model: Any) -> None:
    """Remove the Transpose before a Flatten, and reorder the weights of the following dense layer."""
    onnx = require("onnx")
    graph = model.graph
    shapes = {
        value.name: value.type.tensor_type.shape for value in onnx.shape_inference.infer_shapes(model).graph.value_info
    }
    weights = {weight.name: weight for weight in graph.initializer}
    readers: dict[str, list[Any]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)

    def only_reader(node: Any, *kinds: str) -> Any:
        found = readers.get(node.output[0], [])
        return (
            found[0] if len(found) == 1 and found[0].op_type in kinds and found[0].input[0] == node.output[0] else None
        )

    for transpose in graph.node:
        if transpose.op_type != "Transpose" or list(transpose.attribute[0].ints) != [0, 2, 3, 1]:
            continue
        reshape = only_reader(transpose, "Reshape")
        dense = None if reshape is None else only_reader(reshape, "Gemm", "MatMul")
        if dense is None or dense.input[1] not in weights or len(readers[dense.input[1]]) > 1:
            continue
        if any(attribute.name in ("transA", "transB") and attribute.i for attribute in dense.attribute):
            continue
        channels, height, width = (size.dim_value for size in shapes[transpose.input[0]].dim[1:])
        rows = onnx.numpy_helper.to_array(weights[dense.input[1]])
        if rows.ndim != 2 or len(rows) != channels * height * width:  # flattened together with the batch
            continue
        order = np.arange(len(rows)).reshape(height, width, channels).transpose(2, 0, 1).ravel()
        weights[dense.input[1]].CopyFrom(onnx.numpy_helper.from_array(rows[order], dense.input[1]))
        reshape.input[0] = transpose.input[0]


def _order(graph: Any, wanted: dict[str, list[str]], given: dict[str, list[str]]) -> None:
    """Sort nodes and weights topologically, and number their names in that order; ends get their ``wanted`` names.

    ``given`` are the names of inputs and outputs that tf2onnx was asked for, in order. It sorts by hashes of names with
    per-process numbers, but equal models must give equal bytes.
    """
    makers = {name: node for node in graph.node for name in node.output}
    nodes: dict[str, Any] = {}
    _sort(graph.input, given["input_names"])
    _sort(graph.output, given["output_names"])
    waiting = [makers[value.name] for value in reversed(graph.output)]
    while waiting:
        node = waiting[-1]
        missing = [makers[name] for name in node.input if name in makers and makers[name].output[0] not in nodes]
        if missing:
            waiting.append(missing[0])
            continue
        nodes.setdefault(node.output[0], waiting.pop())

    ends = [*zip(graph.input, wanted["input"], strict=True), *zip(graph.output, wanted["output"], strict=True)]
    names = {"": "", **{value.name: name for value, name in ends}}
    taken: Counter[str] = Counter(names.values())

    def renamed(name: str) -> str:
        if name not in names:
            base = re.sub(r"__\d+(?=:\d+$|$)", "", name)
            taken[base] += 1
            names[name] = base if taken[base] == 1 else f"{base}__{taken[base]}"
        return names[name]

    for node in nodes.values():
        node.input[:] = [renamed(name) for name in node.input]
        node.output[:] = [renamed(name) for name in node.output]
        node.name = f"{node.op_type}:{node.output[0]}"
        node.attribute.sort(key=lambda attribute: str(attribute.name))
    weights = {name: weight for weight in graph.initializer if (name := names.get(weight.name))}
    for name, weight in weights.items():
        weight.name = name
    ordered = {
        "node": list(nodes.values()),
        "initializer": [weights[name] for name in names.values() if name in weights],
    }
    for field, values in ordered.items():
        graph.ClearField(field)
        getattr(graph, field).extend(values)
    graph.ClearField("value_info")
    graph.ClearField("doc_string")  # it has a per-process number too
    for value, name in ends:
        value.name = name


def _sort(values: Any, names: Sequence[str]) -> None:
    """Bring inputs or outputs into the order of ``names``."""
    by_name = {value.name: value for value in values}
    ordered = [by_name[name] for name in names]
    copies = [type(value).FromString(value.SerializeToString()) for value in ordered]
    del values[:]
    values.extend(copies)


def _store_half(model: Any) -> None:
    """Store float32 weights as float16 followed by a Cast, which runtimes fold at load."""
    onnx = require("onnx")
    casts = []
    for weight in model.graph.initializer:
        if weight.data_type != onnx.TensorProto.FLOAT or len(onnx.numpy_helper.to_array(weight).shape) < 2:
            continue
        name = weight.name
        half = onnx.numpy_helper.to_array(weight).astype(np.float16)
        weight.CopyFrom(onnx.numpy_helper.from_array(half, f"{name}/half"))
        casts.append(
            onnx.helper.make_node("Cast", [f"{name}/half"], [name], name=f"Cast:{name}", to=onnx.TensorProto.FLOAT)
        )
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _dynamic(model: Any) -> Any:
    """Int8 weights and activations quantised at run time, by ONNX Runtime's own tool."""
    quantization = require("onnxruntime.quantization")
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        target = Path(folder) / "dynamic.onnx"
        root = logging.getLogger()
        level = root.level
        root.setLevel(logging.ERROR)  # it recommends pre-processing that tf2onnx has done
        try:
            quantization.quantize_dynamic(model, target, weight_type=quantization.QuantType.QUInt8)
        finally:
            root.setLevel(level)
        return require("onnx").load(target)
