"""The error of every int8 tensor in a .tflite file against the float value of the same tensor.

The file's graph is computed three times, image by image:

- int8, by LiteRT's built-in kernels (XNNPACK does not expose tensors between operators);
- float, with the file's integer weights and biases as real numbers and no quantised activations;
- each operator alone in float, on the actual int8 outputs of the operators before it.

The first minus the second is the *accumulated* error: the effect of all quantised activations so far. The first minus
the third is the layer's *own* error: rounding to the steps of its output, saturation, and its kernel. Neither includes
the effect of quantised weights; that is the float graph's output against the Keras model's.

SNR is the signal-to-noise ratio in decibels, ``10 * log10(sum(float²) / sum((int8 - float)²))`` over all values and
images (A. V. Oppenheim, R. W. Schafer, "Discrete-Time Signal Processing", 3rd ed., section 4.8.3). A step q too
coarse by a factor c costs 20 log10(c) dB, because rounding leaves q²/12 on average (W. R. Bennett, "Spectra of
Quantized Signals", Bell System Technical Journal 27, 1948). So a scale 1.5 times too large costs
only 3.5 dB, less than the spread of correct layers. ``lost_db`` finds it: it compares the own error with Bennett's
formula for 255 steps over the layer's range of values.
"""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgecnn import artifacts
from edgecnn.data import DataSet
from edgecnn.errors import ConfigError, SessionError, one_line
from edgecnn.files import read_bytes
from edgecnn.formats.onnx.qdq import to_onnx
from edgecnn.formats.onnx.values import value_names
from edgecnn.optional import require
from edgecnn.progress import progress
from edgecnn.records import LayerError, LayerErrors
from edgecnn.runtimes import Float
from edgecnn.runtimes.litert import LitertSession
from edgecnn.runtimes.ort import open_model
from edgecnn.samples import Samples, parts
from edgecnn.tflite.graph import Graph, Operator, Tensor, read_graph
from edgecnn.verification import FAKE_QUANTIZED, FLOAT, is_from_qat, references_of
from edgecnn.worker import isolated, more_time

IMAGES = 200
_INTEGER = ("int8", "uint8")
_OWN = "/own"
# Differences below this fraction of a step are float32 rounding: MAX_POOL_2D and RESHAPE do not change integers.
_NO_ERROR = 1e-3
# Time limit for all images after the first, in seconds.
_LIMIT_S = 3600.0

_Array = NDArray[Any]


def layers(paths: Sequence[Path], data: DataSet, *, model: Path, qat_weights: Path | None = None) -> list[LayerErrors]:
    """The errors inside each int8 .tflite of ``paths``, worst layer first.

    Uses the first ``IMAGES`` calibration images, which are the same for the same data. The float graph's output is
    compared with ``model``, the source Keras model, or with it after QAT, with ``qat_weights`` from ``edgecnn
    quantize``.

    Raises:
        ArtifactError: a file is missing or damaged, or its hash does not match its sidecar.
        ConfigError: not a .tflite file with int8 activations, or an int8-qat file without ``qat_weights``.
        UnsupportedError: edgecnn cannot compute an operator in float; the message has its name and position.
        SessionError: a runtime refuses a file or fails while running.
    """
    for path in paths:
        if path.suffix != ".tflite":
            raise ConfigError(f"diagnose layers reads .tflite files; {path.name} is not one")
    found = [artifacts.load(path) for path in paths]
    data = data.shaped(*found[0].ends)
    images = data.calibration(IMAGES)
    references = references_of(found, data, images, model=model, qat_weights=qat_weights)
    result = []
    for artifact, path in zip(found, paths, strict=True):
        with progress(f"layers of {path.name}", 1) as advance:
            inside = isolated(_inside, path, images, doing=f"running {path.name}", limit_s=_LIMIT_S)
            advance()
        reference = FAKE_QUANTIZED if is_from_qat(artifact) else FLOAT
        result.append(
            LayerErrors(
                artifact=artifact.file,
                artifact_sha256=artifact.sha256,
                images=len(images),
                images_from=f"training images of {data.name}",
                runtime="LiteRT, built-in kernels",
                reference=reference,
                weights_snr_db=snr_db(references[reference], inside.in_float - references[reference]),
                output_snr_db=snr_db(references[reference], inside.outputs - references[reference]),
                layers=inside.layers,
            )
        )
    return result


class _Inside(NamedTuple):
    """Errors of a file's layers, worst first, and its outputs ``(n, classes)``, in int8 and in float."""

    layers: tuple[LayerError, ...]
    outputs: Float
    in_float: Float


def _inside(path: Path, images: Samples) -> _Inside:
    graph = read_graph(read_bytes(path), path.name)
    layer_of = _layers_of(graph)
    if not any(layer_of.values()):
        raise ConfigError(f"{path.name} has no int8 activations, so its layers have no quantisation error")
    sums = {index: _Sums(graph.tensors[index]) for index in layer_of}
    with contextlib.closing(LitertSession(path, kernels="built-in", keep=True)) as session:
        outputs, in_float = _run(graph, session, images, sums)
    errors = [_layer_error(graph.tensors[index], layer_of[index], sums[index]) for index in layer_of]
    return _Inside(tuple(sorted(errors, key=_worst_first)), outputs, in_float)


def snr_db(signal: _Array, error: _Array) -> float | None:
    """``10 * log10(sum(signal²) / sum(error²))`` in dB, of arrays of equal shape; None if there is no error."""
    return _ratio_db(_power(signal), _power(error))


def float_models(graph: Graph) -> tuple[bytes, bytes]:
    """The int8 ``graph`` in float as two ONNX models that output every activation, channels-first.

    Weights are the file's integers times their scales; biases have the scale input scale times weight scale, as in the
    kernels. In the first model, operators are connected; its outputs have the names of ``to_onnx``. In the second, each
    operator reads graph inputs of these names, and its output name ends in "/own".

    Raises:
        UnsupportedError: an operator has no ONNX counterpart; the message has its name and position.
    """
    onnx = require("onnx")
    whole = to_onnx(_in_float(graph), "float", in_float=range(2 * len(graph.operators)))
    called = value_names(graph)
    names = {called[index] for index, operator in _layers_of(graph).items() if operator is not None}

    def value(name: str) -> Any:
        return onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)

    separate = onnx.ModelProto()
    separate.CopyFrom(whole)
    outputs = {value.name for value in whole.graph.output}
    whole.graph.output.extend(value(name) for name in sorted(names - outputs))
    for node in separate.graph.node:
        for position, name in enumerate(node.output):
            if name in names:
                node.output[position] = name + _OWN
    read = {name for node in separate.graph.node for name in node.input}
    separate.graph.input.extend(value(name) for name in sorted(names & read))
    del separate.graph.output[:]
    separate.graph.output.extend(value(name + _OWN) for name in sorted(names))
    return whole.SerializeToString(), separate.SerializeToString()


def _layers_of(graph: Graph) -> dict[int, Operator | None]:
    """Index of every computed int8 tensor, with its operator (None: the input)."""
    found: dict[int, Operator | None] = {
        index: None for index in graph.inputs if graph.tensors[index].dtype in _INTEGER
    }
    for operator in graph.operators:
        for index in operator.outputs:
            if graph.tensors[index].dtype in _INTEGER and len(graph.tensors[index].scale) == 1:
                found[index] = operator
    return found


def _in_float(graph: Graph) -> Graph:
    """``graph`` with float32 instead of int8 activations; their scales stay, because biases need them."""
    tensors = [
        msgspec.structs.replace(tensor, dtype="float32") if tensor.data is None and tensor.dtype in _INTEGER else tensor
        for tensor in graph.tensors
    ]
    operators = list(graph.operators)
    for operator in graph.operators:
        if operator.kind in ("RESHAPE", "SQUEEZE"):
            # A second consumer: values read only by dense layers would be written in another order.
            copy = msgspec.structs.replace(tensors[operator.outputs[0]], index=len(tensors))
            tensors.append(copy)
            operators.append(
                Operator(
                    position=len(operators),
                    kind="DEQUANTIZE",
                    inputs=operator.outputs,
                    outputs=(copy.index,),
                    options={},
                )
            )
    return msgspec.structs.replace(graph, tensors=tuple(tensors), operators=tuple(operators))


def _run(graph: Graph, session: LitertSession, images: Float, sums: dict[int, "_Sums"]) -> tuple[Float, Float]:
    """Add up the errors of every layer over ``images``; returns the outputs in int8 and in float, ``(n, classes)``."""
    whole, separate = (_ort_session(model) for model in float_models(graph))
    called = value_names(graph)
    names = {index: called[index] for index in sums}
    wanted = {node.name for node in separate.get_inputs()}
    outputs, float_outputs = [], []
    for number in range(len(images)):
        image = images[number : number + 1]
        session.encode(image)
        session.invoke()
        outputs.append(session.decode())
        real = {names[index]: _channels_first(sums[index].real(session.value(index))) for index in sums}
        given = {called[index]: _channels_first(part) for index, part in zip(graph.inputs, parts(image), strict=True)}
        in_float = _ort_run(whole, given)
        found = [in_float[called[index]] for index in graph.outputs]
        float_outputs.append(np.concatenate([_channels_last(each).reshape(1, -1) for each in found], axis=1))
        in_float |= given
        feeds = {**given, **real}
        own = _ort_run(separate, {name: feeds[name].astype(np.float32) for name in wanted})
        for index, name in names.items():
            # the input has no layer before it, only its own error
            sums[index].add(real[name], in_float[name], own.get(name + _OWN, in_float[name]))
        if len(outputs) == 1:
            more_time(_LIMIT_S)
    return np.concatenate(outputs), np.concatenate(float_outputs)


class _Sums:
    """Sums of one tensor over the images, so that no activation is kept."""

    def __init__(self, tensor: Tensor) -> None:
        self.scale, self.zero_point = float(tensor.scale[0]), int(tensor.zero_point[0])
        info = np.iinfo(tensor.dtype)
        self.ends = (info.min - self.zero_point) * self.scale, (info.max - self.zero_point) * self.scale
        self.count = self.nonzero = self.at_low = self.at_high = self.clipped = 0
        self.signal = self.error = self.own_signal = self.own_error = 0.0
        self.max_abs = self.own_max_abs = 0.0
        self.low = self.high = 0.0

    def real(self, integers: _Array) -> _Array:
        """Dequantised ``integers`` of any shape, float64."""
        return (integers.astype(np.int64) - self.zero_point) * self.scale

    def add(self, real: _Array, in_float: Float, own: Float) -> None:
        """Add the errors of the int8 values ``real`` of one image against the float graph and the layer alone."""
        in_float, own = in_float.reshape(real.shape), own.reshape(real.shape)
        error, own_error = self._error(real, in_float), self._error(real, own)
        self.signal += _power(in_float)
        self.error += _power(error)
        self.own_signal += _power(own)
        self.own_error += _power(own_error)
        self.max_abs = max(self.max_abs, float(np.abs(error).max()))
        self.own_max_abs = max(self.own_max_abs, float(np.abs(own_error).max()))
        low, high = (np.abs(real - end) < self.scale / 2 for end in self.ends)
        self.count += real.size
        self.nonzero += int(np.count_nonzero(own))
        self.at_low += int(low.sum())
        self.at_high += int(high.sum())
        beyond = (own < self.ends[0] - self.scale / 2) | (own > self.ends[1] + self.scale / 2)
        self.clipped += int((beyond & (low | high)).sum())
        self.low, self.high = min(self.low, float(own.min())), max(self.high, float(own.max()))

    def _error(self, real: _Array, expected: Float) -> _Array:
        error = real - expected
        error[np.abs(error) < _NO_ERROR * self.scale] = 0
        return error

    def lost_db(self) -> float | None:
        """The own error in dB above rounding to 255 steps over [low, high]; 0 is exact."""
        step = (self.high - self.low) / 255
        if not self.own_error or not step:
            return None
        return _ratio_db(self.own_error, self.nonzero * step**2 / 12)


def _layer_error(tensor: Tensor, operator: Operator | None, sums: _Sums) -> LayerError:
    return LayerError(
        tensor=tensor.name,
        position=None if operator is None else operator.position,
        operator="INPUT" if operator is None else operator.kind,
        scale=sums.scale,
        zero_point=sums.zero_point,
        own_snr_db=_ratio_db(sums.own_signal, sums.own_error),
        own_max_abs=sums.own_max_abs,
        lost_db=sums.lost_db(),
        snr_db=_ratio_db(sums.signal, sums.error),
        max_abs=sums.max_abs,
        at_low=sums.at_low / sums.count,
        at_high=sums.at_high / sums.count,
        clipped=sums.clipped / sums.count,
    )


def _worst_first(layer: LayerError) -> tuple[bool, float]:
    return not layer.scale_is_off, np.inf if layer.own_snr_db is None else layer.own_snr_db


def _power(values: _Array) -> float:
    return float(np.square(values, dtype=np.float64).sum())


def _ratio_db(signal: float, error: float) -> float | None:
    # a tiny value replaces a signal of only 0, because JSON cannot hold its ratio
    return float(10 * (np.log10(max(signal, 1e-300)) - np.log10(error))) if error else None


def _channels_first(values: _Array) -> _Array:
    return np.ascontiguousarray(values.transpose(0, 3, 1, 2)) if values.ndim == 4 else values


def _channels_last(values: _Array) -> _Array:
    return values.transpose(0, 2, 3, 1) if values.ndim == 4 else values


def _ort_session(model: bytes) -> Any:
    try:
        return open_model(model, threads=1)  # single images are too little work for several threads
    except Exception as error:
        raise SessionError(f"onnxruntime cannot load the graph in float: {one_line(error)}") from error


def _ort_run(session: Any, feeds: dict[str, _Array]) -> dict[str, _Array]:
    names = [node.name for node in session.get_outputs()]
    try:
        return dict(zip(names, session.run(names, feeds), strict=True))
    except Exception as error:
        raise SessionError(f"onnxruntime failed on the graph in float: {one_line(error)}") from error
