"""The error of every int8 tensor inside a .tflite file, against the float value of the same tensor.

The file's graph is computed three times, image by image:

- int8, by LiteRT's built-in kernels (XNNPACK does not show what is between operators);
- in float, with the file's own integer weights and biases as real numbers and no activation quantised;
- each operator alone in float, on the int8 values that the file's operators in front of it really gave.

The second against the first is the *accumulated* error: all that quantising activations did up to there. The third
against the first is the layer's *own* error: rounding to the steps of its output, saturation, and its kernel. What
quantised weights cost is in neither; it is the float graph's output against the Keras model's.

SNR is the signal-to-noise ratio in decibels, ``10 * log10(sum(float²) / sum((int8 - float)²))`` over all values and
images (A. V. Oppenheim, R. W. Schafer, "Discrete-Time Signal Processing", 3rd ed., section 4.8.3). A step q too
coarse by a factor c costs 20 log10(c) dB, because rounding leaves q²/12 on average (W. R. Bennett, "Spectra of
Quantized Signals", Bell System Technical Journal 27, 1948). So a scale 1.5 times too large costs 3.5 dB only, less
than honest layers differ by; ``lost_db`` finds it, which compares the own error with what Bennett's formula gives for
255 steps over the values that the layer has.
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
from edgecnn.diagnosis.kernels import KernelSession
from edgecnn.errors import ConfigError, SessionError, one_line
from edgecnn.files import read_bytes
from edgecnn.formats.onnx.qdq import to_onnx
from edgecnn.formats.source import Source
from edgecnn.optional import require
from edgecnn.progress import progress
from edgecnn.quantization.schemes import SCHEMES
from edgecnn.records import Artifact, LayerError, LayerErrors
from edgecnn.runtimes import Float
from edgecnn.runtimes.ort import open_model
from edgecnn.tflite.graph import Graph, Operator, Tensor, read_graph
from edgecnn.verify import FAKE_QUANTIZED, FLOAT, fake_quantized_outputs, reference_of
from edgecnn.worker import isolated, more_time

IMAGES = 200
_INTEGER = ("int8", "uint8")
_OWN = "/own"
# A step's share below which a difference is float32 rounding: MAX_POOL_2D and RESHAPE pass integers on unchanged.
_NO_ERROR = 1e-3
# Seconds for all images, once the first has been answered.
_LIMIT_S = 3600.0

_Array = NDArray[Any]


def layers(paths: Sequence[Path], data: DataSet, *, model: Path, qat_weights: Path | None = None) -> list[LayerErrors]:
    """The errors inside each int8 .tflite of ``paths``, worst layer first.

    Uses the first ``IMAGES`` of the training images that calibration draws, which are the same for the same data.
    ``model`` is the Keras model the files came from, and ``qat_weights`` what ``edgecnn quantize`` made of it: the
    float graph's output is compared with theirs.

    Raises:
        ArtifactError: a file is missing or damaged, or its hash does not match its sidecar.
        ConfigError: not a .tflite file with int8 activations, or an int8-qat file without ``qat_weights``.
        UnsupportedError: an operator that edgecnn cannot compute in float, named with its place.
        SessionError: a runtime refuses a file or fails while running.
    """
    for path in paths:
        if path.suffix != ".tflite":
            raise ConfigError(f"diagnose layers reads .tflite files; {path.name} is none")
    found = [artifacts.load(path) for path in paths]
    images = data.calibration(IMAGES)
    references = {FLOAT: reference_of(model, images)}
    if any(_reference_for(artifact.scheme) == FAKE_QUANTIZED for artifact in found):
        if qat_weights is None:
            raise ConfigError("an int8-qat file is compared with the model after quantisation-aware training: --qat")
        references[FAKE_QUANTIZED] = fake_quantized_outputs(Source.load(model, data, qat_weights=qat_weights), images)
    result = []
    for artifact, path in zip(found, paths, strict=True):
        with progress(f"layers of {path.name}", 1) as advance:
            inside = isolated(_inside, path, artifact, images, doing=f"running {path.name}", limit_s=_LIMIT_S)
            advance()
        reference = _reference_for(artifact.scheme)
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


def _inside(path: Path, artifact: Artifact, images: Float) -> _Inside:
    graph = read_graph(read_bytes(path), path.name)
    layer_of = _layers_of(graph)
    if not any(layer_of.values()):
        raise ConfigError(f"{path.name} has no int8 activations, so there is no error of a layer to look at")
    sums = {index: _Sums(graph.tensors[index]) for index in layer_of}
    with contextlib.closing(KernelSession(path, artifact, "built-in", keep=True)) as session:
        outputs, in_float = _run(graph, session, images, sums)
    errors = [_layer_error(graph.tensors[index], layer_of[index], sums[index]) for index in layer_of]
    return _Inside(tuple(sorted(errors, key=_worst_first)), outputs, in_float)


def snr_db(signal: _Array, error: _Array) -> float | None:
    """``10 * log10(sum(signal²) / sum(error²))`` in dB, of arrays of any equal shape; None without any error."""
    return _ratio_db(_power(signal), _power(error))


def float_models(graph: Graph) -> tuple[bytes, bytes]:
    """The int8 ``graph`` in float as two ONNX models that show every activation, channels-first.

    Weights are the file's integers times their scales; biases count at input scale times weight scale, as kernels
    take them. In the first model each operator reads what the one before gives; its outputs are called as in
    ``value_name``. In the second, each reads a graph input of that name, and gives an output that ends in "/own".

    Raises:
        UnsupportedError: an operator without counterpart, named with its place.
    """
    onnx = require("onnx")
    whole = to_onnx(_in_float(graph), "float", in_float=range(2 * len(graph.operators)))
    names = {value_name(graph, index) for index, operator in _layers_of(graph).items() if operator is not None}

    def value(name: str) -> Any:
        return onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)

    apart = onnx.ModelProto()
    apart.CopyFrom(whole)
    (output,) = (value.name for value in whole.graph.output)
    whole.graph.output.extend(value(name) for name in sorted(names - {output}))
    for node in apart.graph.node:
        for position, name in enumerate(node.output):
            if name in names:
                node.output[position] = name + _OWN
    read = {name for node in apart.graph.node for name in node.input}
    apart.graph.input.extend(value(name) for name in sorted(names & read))
    del apart.graph.output[:]
    apart.graph.output.extend(value(name + _OWN) for name in sorted(names))
    return whole.SerializeToString(), apart.SerializeToString()


def value_name(graph: Graph, index: int) -> str:
    """The name of tensor ``index`` in what ``to_onnx`` writes."""
    return "input" if index in graph.inputs else "output" if index in graph.outputs else f"t{index}"


def _reference_for(scheme: str) -> str:
    return FAKE_QUANTIZED if scheme in SCHEMES and SCHEMES[scheme].method == "qat" else FLOAT


def _layers_of(graph: Graph) -> dict[int, Operator | None]:
    """Index of every int8 tensor that is computed, and the operator that does it (None: the input)."""
    found: dict[int, Operator | None] = {
        index: None for index in graph.inputs if graph.tensors[index].dtype in _INTEGER
    }
    for operator in graph.operators:
        for index in operator.outputs:
            if graph.tensors[index].dtype in _INTEGER and len(graph.tensors[index].scale) == 1:
                found[index] = operator
    return found


def _in_float(graph: Graph) -> Graph:
    """``graph`` with float32 in place of int8 activations; their scales stay, which biases are counted in."""
    tensors = [
        msgspec.structs.replace(tensor, dtype="float32") if tensor.data is None and tensor.dtype in _INTEGER else tensor
        for tensor in graph.tensors
    ]
    operators = list(graph.operators)
    for operator in graph.operators:
        if operator.kind in ("RESHAPE", "SQUEEZE"):
            # A second reader: what only dense layers read is written in another order, with their weights.
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


def _run(graph: Graph, session: KernelSession, images: Float, sums: dict[int, "_Sums"]) -> tuple[Float, Float]:
    """Add up the errors of every layer over ``images``; returns the outputs in int8 and in float, ``(n, classes)``."""
    whole, apart = (_ort_session(model) for model in float_models(graph))
    names = {index: value_name(graph, index) for index in sums}
    wanted = {node.name for node in apart.get_inputs()}
    outputs, float_outputs = [], []
    for image in images:
        session.encode(image[None])
        session.invoke()
        outputs.append(session.decode())
        real = {names[index]: _channels_first(sums[index].real(session.value(index))) for index in sums}
        in_float = _ort_run(whole, {"input": _channels_first(image[None])})
        float_outputs.append(in_float["output"].reshape(1, -1))
        in_float["input"] = _channels_first(image[None])
        feeds = {"input": in_float["input"], **real}
        own = _ort_run(apart, {name: feeds[name].astype(np.float32) for name in wanted})
        for index, name in names.items():
            # the input has no layer in front: its own error is all there is
            sums[index].add(real[name], in_float[name], own.get(name + _OWN, in_float[name]))
        if len(outputs) == 1:
            more_time(_LIMIT_S)
    return np.concatenate(outputs), np.concatenate(float_outputs)


class _Sums:
    """What is added up for one tensor, image by image, so that no activation is kept."""

    def __init__(self, tensor: Tensor) -> None:
        self.scale, self.zero_point = float(tensor.scale[0]), int(tensor.zero_point[0])
        info = np.iinfo(tensor.dtype)
        self.ends = (info.min - self.zero_point) * self.scale, (info.max - self.zero_point) * self.scale
        self.count = self.nonzero = self.at_low = self.at_high = self.clipped = 0
        self.signal = self.error = self.own_signal = self.own_error = 0.0
        self.max_abs = self.own_max_abs = 0.0
        self.low = self.high = 0.0

    def real(self, integers: _Array) -> _Array:
        """The real numbers, float64, that ``integers`` of any shape stand for."""
        return (integers.astype(np.int64) - self.zero_point) * self.scale

    def add(self, real: _Array, in_float: Float, own: Float) -> None:
        """Count the int8 values ``real`` of one image against the float graph's and the layer's own, all alike."""
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
        """How far the own error lies above the rounding to 255 steps over [low, high], which hold 0 exactly."""
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
    # the smallest float stands in for a signal of nothing but 0, whose ratio JSON could not hold
    return float(10 * (np.log10(max(signal, 1e-300)) - np.log10(error))) if error else None


def _channels_first(values: _Array) -> _Array:
    return np.ascontiguousarray(values.transpose(0, 3, 1, 2)) if values.ndim == 4 else values


def _ort_session(model: bytes) -> Any:
    try:
        return open_model(model, threads=1)  # single images are too little work to share
    except Exception as error:
        raise SessionError(f"onnxruntime cannot load the graph in float: {one_line(error)}") from error


def _ort_run(session: Any, feeds: dict[str, _Array]) -> dict[str, _Array]:
    names = [node.name for node in session.get_outputs()]
    try:
        return dict(zip(names, session.run(names, feeds), strict=True))
    except Exception as error:
        raise SessionError(f"onnxruntime failed on the graph in float: {one_line(error)}") from error
