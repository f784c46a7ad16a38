"""Find the operators of an int8 ONNX graph that run faster in float, by measuring in ONNX Runtime on this machine.

With slow integer kernels (a convolution over one channel, pooling outside the channels-last path), an int8 graph can be
slower than the float one. Which operators are slow depends on the CPU and on the neighbouring operators, so it is
measured: a candidate alternates with the best placement so far and replaces it only if it is faster block by block. The
weights are the same integers in every placement.
"""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median, quantiles

import numpy as np
from numpy.typing import NDArray

from edgecnn import artifacts
from edgecnn.environment import environment
from edgecnn.errors import ConfigError
from edgecnn.formats import onnx, tflite
from edgecnn.formats.onnx.qdq import to_onnx
from edgecnn.formats.onnx.values import spec_of, value_names
from edgecnn.formats.source import Source
from edgecnn.optional import require
from edgecnn.progress import progress
from edgecnn.quantization.schemes import SCHEMES, is_static_int8
from edgecnn.records import OnnxCpu, Scheme, Tuning
from edgecnn.runtimes.ort import open_model
from edgecnn.runtimes.quantized_io import to_inputs
from edgecnn.samples import Samples, parts
from edgecnn.tflite.graph import Graph, float_operators, read_graph
from edgecnn.verification import SAME_INTEGERS

_BLOCK_S = 0.004
_SCREENING, _CONFIRMING, _FINAL = 5, 15, 31
# A new placement must have at most this time ratio to the best one.
_GAIN = 0.99
_LONGEST_WINDOW = 3
_COMPARED_IMAGES = 200


def tune(source: Source, scheme: Scheme, seconds: float) -> Tuning:
    """Search for about ``seconds`` for the fastest placement of an int8 ``scheme`` whose outputs agree with all int8.

    Outputs are compared on the calibration images of ``source``. If no placement is faster than the float32 .onnx file,
    every operator is computed in float.

    Raises:
        UnsupportedError: an operator has no ONNX counterpart.
        ExportError: the model cannot be converted.
    """
    graph = read_graph(tflite.convert(source, scheme), f"the {scheme.name} .tflite file")
    float_model = onnx.convert(source, SCHEMES["float32"])
    return search(graph, float_model, source.calibration, seconds, source.onnx_cpu)


def tunings(source: Source, schemes: Sequence[Scheme], taken_from: Path | None, seconds: float) -> dict[str, Tuning]:
    """The tuning of each int8 scheme among ``schemes``: measured for ``seconds``, or that of the .onnx ``taken_from``.

    Raises:
        ArtifactError: the file is missing, or has changed since it was exported.
        ConfigError: the file was not tuned.
    """
    possible = [s for s in schemes if is_static_int8(s) and (s.method != "qat" or source.quantized is not None)]
    if taken_from is None:
        return {scheme.name: tune(source, scheme, seconds) for scheme in possible}
    provenance = artifacts.load(taken_from).provenance
    if provenance is None or provenance.tuning is None:
        raise ConfigError(f"{taken_from} was not tuned, so there is no choice of operators to reuse")
    return {scheme.name: provenance.tuning for scheme in possible}


def search(graph: Graph, float_model: bytes, images: Samples, seconds: float, cpu: OnnxCpu = "any") -> Tuning:
    """Like ``tune``, for an int8 ``graph`` and the float32 .onnx of the same model."""
    found = _Search(graph, float_model, images, cpu)
    end = time.monotonic() + seconds
    with progress("tune int8 .onnx", seconds) as advance:
        before = time.monotonic()
        for candidate in found.candidates():
            found.consider(candidate)
            now = time.monotonic()
            advance(min(now, end) - min(before, end), found.state)
            before = now
            if now > end:
                break
        advance(max(0.0, end - before), found.state)
    return found.result()


class _Search:
    """The best placement so far, and the placements tried."""

    def __init__(self, graph: Graph, float_model: bytes, images: Samples, cpu: OnnxCpu = "any") -> None:
        self.graph = graph
        self.cpu = cpu
        self.float = _BoundModel(float_model, frozenset())
        self.unsigned = True
        in_float = float_operators(graph)
        self.choices = [operator for operator in graph.operators if operator not in in_float]
        self.untuned = self.best = self.run(frozenset())
        self.seen = {self.best.in_float}
        self.images = _encoded(graph, images[:_COMPARED_IMAGES])
        # With every operator in float nothing is rounded: the reference for the effect of rounding.
        whole = self.run(frozenset(range(len(graph.operators))))
        self.expected = whole.outputs(self.images)
        self.untuned_right, self.untuned_error = self.compared(self.untuned)
        self.state = ""

    def run(self, in_float: frozenset[int]) -> "_BoundModel":
        """A session with the operators at the positions ``in_float`` in float."""
        model = to_onnx(self.graph, "candidate", in_float, self.unsigned, self.cpu)
        return _BoundModel(model.SerializeToString(), in_float)

    def candidates(self) -> Iterator[frozenset[int]]:
        """Yield placements one change away from the best: windows from both ends inwards, all of a kind; repeat.

        Operators that are in float in any case are left out.
        """
        positions = [operator.position for operator in self.choices]
        count, kinds = len(positions), sorted({operator.kind for operator in self.choices})
        while True:
            before = self.best
            for start in sorted(range(count), key=lambda place: min(place, count - 1 - place)):
                for length in range(1, _LONGEST_WINDOW + 1):
                    yield self.best.in_float ^ frozenset(positions[start : start + length])
            for kind in kinds:
                of_kind = {operator.position for operator in self.choices if operator.kind == kind}
                yield self.best.in_float ^ of_kind
            if self.best is before:
                return

    def consider(self, in_float: frozenset[int]) -> None:
        """Measure a placement against the best one, and replace it if the new one is faster and its outputs agree."""
        if in_float in self.seen or any(self.is_alone(position, in_float) for position in in_float):
            return
        self.seen.add(in_float)
        candidate = self.run(in_float)
        if median(_ratios(candidate, self.best, _SCREENING)) > _GAIN:
            return
        if median(_ratios(candidate, self.best, _CONFIRMING)) > _GAIN or not self.agrees(candidate):
            return
        self.best = candidate
        ratio = median(_ratios(candidate, self.float, _SCREENING))
        self.state = f"{ratio:.2f} of the float file's time, {len(in_float)} of {len(self.choices)} in float"

    def is_alone(self, position: int, in_float: frozenset[int]) -> bool:
        """Whether an operator with weights has no neighbour in float: ONNX Runtime would quantise it again.

        It does so when it loads the file, with one scale for all channels: no longer the same weights.
        """
        operator = self.graph.operators[position]
        if operator.kind not in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"):
            return False
        return not any(
            set(operator.inputs) & set(self.graph.operators[other].outputs)
            or set(operator.outputs) & set(self.graph.operators[other].inputs)
            for other in in_float - {position}
        )

    def compared(self, candidate: "_BoundModel") -> tuple[NDArray[np.bool_], float]:
        """Outputs compared with those of the same weights without rounding.

        Whether the top value of each output is the same, for each image, and the mean absolute difference as a share of
        the span.
        """
        same, errors = np.ones(len(self.images), bool), []
        for found, expected in zip(candidate.outputs(self.images), self.expected, strict=True):
            same &= found.argmax(1) == expected.argmax(1)
            errors.append(float(np.abs(found - expected).mean()) / (float(np.ptp(expected)) or 1.0))
        return same, float(np.mean(errors))

    def agrees(self, candidate: "_BoundModel") -> bool:
        """Whether the candidate agrees with the unrounded outputs as well as the int8 graph does, within tolerance.

        As in verification, differences within chance (95 %) do not count; only images that exactly one gets right
        matter.
        """
        right, error = self.compared(candidate)
        lost, gained = (self.untuned_right & ~right).sum(), (right & ~self.untuned_right).sum()
        worse = lost - gained - 1.96 * (lost + gained) ** 0.5
        near = error - self.untuned_error <= SAME_INTEGERS.mean_abs
        return near and bool(worse <= (1 - SAME_INTEGERS.agreement) * len(right))

    def result(self) -> Tuning:
        """The best placement, or all in float if that is not faster than the float file."""
        self.unsigned = False  # last, because on x86 a graph with int8 activations runs in float
        signed = self.run(self.best.in_float)
        if median(_ratios(signed, self.best, _CONFIRMING)) < _GAIN and self.agrees(signed):
            self.best = signed
        else:
            self.unsigned = True
        ratios = _ratios(self.best, self.float, _FINAL)
        if median(ratios) > 1:
            everything = self.run(frozenset(operator.position for operator in self.choices))
            if median(_ratios(everything, self.best, _FINAL)) < 1:
                self.best = everything
                ratios = _ratios(self.best, self.float, _FINAL)
        low, _, high = quantiles(ratios, n=4)
        return Tuning(
            operators=tuple(operator.kind for operator in self.graph.operators),
            in_float=tuple(sorted(self.best.in_float)),
            unsigned=self.unsigned,
            cpu=environment().cpu,
            runtime=f"onnxruntime {require('onnxruntime').__version__}",
            ratio=median(ratios),
            ratio_low=low,
            ratio_high=high,
            untuned_ratio=median(_ratios(self.untuned, self.float, _CONFIRMING)),
            tried=len(self.seen),
        )


class _BoundModel:
    """A model in a session of one thread, with bound input and output."""

    def __init__(self, model: bytes, in_float: frozenset[int]) -> None:
        self.in_float = in_float
        ort = require("onnxruntime")
        self._ort = ort
        self._session = open_model(model, threads=1)
        self._binding = self._session.io_binding()
        self._values = []
        for given in self._session.get_inputs():
            shape = [size if isinstance(size, int) else 1 for size in given.shape]
            dtype = {"tensor(float)": np.float32, "tensor(int8)": np.int8, "tensor(uint8)": np.uint8}[given.type]
            noise = np.random.default_rng(0).random(shape) if dtype is np.float32 else np.ones(shape)
            self._values.append(ort.OrtValue.ortvalue_from_numpy(noise.astype(dtype)))
            self._binding.bind_ortvalue_input(given.name, self._values[-1])
        for output in self._session.get_outputs():
            self._binding.bind_output(output.name)
        self._count = 1
        fastest = min(self.block())
        self._count = max(1, int(_BLOCK_S / fastest))

    def block(self) -> list[float]:
        """Seconds of each of a few invocations in a row, after one that refills the caches."""
        run, clock = self._session.run_with_iobinding, time.perf_counter
        run(self._binding)
        samples = []
        for _ in range(self._count):
            start = clock()
            run(self._binding)
            samples.append(clock() - start)
        return samples

    def outputs(self, images: Samples) -> list[NDArray[np.float32]]:
        """Each raw output ``(n, values)`` for encoded images ``(n, …)``, as float32."""
        names = [given.name for given in self._session.get_inputs()]
        runs = []
        for start in range(len(images)):
            arrays = map(np.ascontiguousarray, parts(images[start : start + 1]))
            runs.append(self._session.run(None, dict(zip(names, arrays, strict=True))))
        return [np.stack([one.ravel() for one in each]).astype(np.float32) for each in zip(*runs, strict=True)]


def _ratios(candidate: _BoundModel, reference: _BoundModel, blocks: int) -> list[float]:
    """Time of ``candidate`` ÷ time of ``reference`` for each block, alternating."""
    ratios = []
    for number in range(blocks):
        first, second = (candidate, reference) if number % 2 else (reference, candidate)
        times = {first: median(first.block()), second: median(second.block())}
        ratios.append(times[candidate] / times[reference])
    return ratios


def _encoded(graph: Graph, images: Samples) -> Samples:
    """Images converted to the graph's inputs."""
    names = value_names(graph)
    return to_inputs(images, [spec_of(graph.tensors[index], names[index]) for index in graph.inputs])
