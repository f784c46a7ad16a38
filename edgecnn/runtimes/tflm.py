"""TensorFlow Lite for Microcontrollers (TFLM) through ``tflite_micro``: its portable reference kernels, on the host.

TFLM ends the whole process if one of its checks fails. A file is therefore allocated and run once in a separate process
before it is opened in this one, unless this process is a worker, which may crash.
"""

import functools
import os
from bisect import bisect_left
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecnn.errors import ArtifactError, SessionError, UnsupportedError
from edgecnn.files import read_bytes
from edgecnn.optional import require
from edgecnn.records import Quantization, TensorSpec
from edgecnn.runtimes import Float
from edgecnn.runtimes.quantized_io import from_outputs, raw_of, to_inputs
from edgecnn.samples import Samples, parts
from edgecnn.tflite.graph import Graph, Tensor, read_graph
from edgecnn.tflite.micro import problems
from edgecnn.worker import confine, in_worker, isolated, more_time, printed, printed_bytes

_MOST_BYTES = 2**62
_ALIGNMENT = 16
_ARENA_TOTAL = "Arena allocation total "
_SEARCH_S = 60.0


class TflmSession:
    """A .tflite file in TFLM's interpreter, on one thread.

    Raises:
        SessionError: TFLM refuses the file, or one of its checks fails; the message ends with TFLM's last output.
    """

    def __init__(self, path: Path, threads: int, batch: int, device: str) -> None:
        if device != "cpu":
            raise SessionError(f"tflm runs {path.name} on cpu only, not on {device!r}")
        if threads > 1:
            raise SessionError(f"tflm runs on one thread, got {threads}; use --threads 1")
        runtime = require("tflite_micro").runtime
        model = read_bytes(path)
        try:
            graph = read_graph(model, path.name)
        except ArtifactError as error:
            raise SessionError(f"tflm cannot load {path.name}: {error}") from error
        self.inputs, self.outputs = specs_of(graph)
        if not (self.inputs and self.outputs):
            raise SessionError(f"{path.name} has no input or no output; edgecnn runs models of batches of samples")
        for stored in (spec.shape[0] or 1 for spec in self.inputs):
            if stored != batch:
                raise SessionError(f"{path.name} has a batch of {stored}, and tflm cannot resize it; got {batch}")
        if not in_worker():
            try:
                arena_bytes(model)
            except SessionError as error:
                raise SessionError(f"tflm cannot run {path.name}: {error}") from error
        try:
            self._interpreter = runtime.Interpreter.from_bytes(model, arena_size=_ample(graph, model))
        except (RuntimeError, ValueError) as error:
            raise SessionError(f"tflm cannot load {path.name}: {error}") from error
        self.batch = batch
        self._model = model
        self._metadata = graph.metadata

    @property
    def arena_bytes(self) -> int:
        """Bytes of arena that TFLM uses, as measured by the function of the same name."""
        return arena_bytes(self._model)

    def encode(self, samples: Samples) -> None:
        """Quantise ``samples`` for the file's inputs and copy them into the arena."""
        self.put(to_inputs(samples, self.inputs))

    def put(self, values: Samples) -> None:
        """Copy ``values`` into the arena."""
        for number, part in enumerate(parts(values)):
            self._interpreter.set_input(np.ascontiguousarray(part), number)

    def invoke(self) -> None:
        """Run the model once.

        Raises:
            SessionError: a kernel failed.
        """
        try:
            self._interpreter.invoke()
        except RuntimeError as error:
            raise SessionError(f"tflm failed while running: {error}") from error

    def decode(self) -> Float:
        """The outputs as float32 ``(batch, values)``."""
        return from_outputs(self.take(), self.outputs)

    def take(self) -> Samples:
        """A copy of the outputs."""
        return raw_of([self._interpreter.get_output(number) for number in range(len(self.outputs))], self.outputs)

    def provenance(self) -> bytes | None:
        """The metadata buffer "edgecnn"."""
        return self._metadata.get("edgecnn")

    def close(self) -> None:
        """Free the interpreter and its arena."""
        del self._interpreter


def arena_of(graph: Graph, model: bytes) -> int:
    """The arena of the .tflite ``model``, whose ``graph`` ``read_anyway`` has read, as ``arena_bytes`` measures it.

    Raises:
        UnsupportedError: TFLM refuses it, with every reason: those known by rules, or what TFLM says.
        MissingExtraError: ``tflite-micro`` is not installed.
    """
    reasons = [*graph.unsupported, *problems(graph)]
    if graph.unsupported:
        raise UnsupportedError(*reasons)
    try:
        return arena_bytes(model)
    except SessionError as error:
        raise UnsupportedError(*reasons or [f"TFLM cannot run it: {error}"]) from error


@functools.lru_cache(maxsize=8)
def arena_bytes(model: bytes) -> int:
    """Bytes of the smallest arena in which TFLM runs the .tflite ``model`` on this machine; a multiple of 16.

    The model is allocated and run on zeros, in a separate process. The search starts at TFLM's own record ("Arena
    allocation total"), which leaves out temporary tensors of kernels being prepared, in a small autoencoder 10 %.

    Raises:
        ArtifactError: ``model`` is not a .tflite file that edgecnn can read.
        SessionError: TFLM refuses it, or one of its checks ended the process; the message has TFLM's last output.
        MissingExtraError: ``tflite-micro`` is not installed.
    """
    require("tflite_micro")
    graph = read_graph(model, "the model")
    ample = min(_ample(graph, model), _MOST_BYTES)
    return isolated(_least_arena, model, ample, len(graph.inputs), doing="running the model in tflm")


def outputs_of(model: bytes, samples: Sequence[Sequence[NDArray[Any]]]) -> list[list[NDArray[Any]]]:
    """The outputs of the .tflite ``model`` for each of ``samples``, which are its inputs as stored.

    They run one after the other, from the model's initial state, in a separate process.

    Raises:
        ArtifactError, SessionError, MissingExtraError: as ``arena_bytes``.
    """
    require("tflite_micro")
    ample = min(_ample(read_graph(model, "the model"), model), _MOST_BYTES)
    return isolated(_outputs, model, ample, samples, doing="running the model in tflm")


def _outputs(model: bytes, ample: int, samples: Sequence[Sequence[NDArray[Any]]]) -> list[list[NDArray[Any]]]:
    confine(len(model))
    before = printed_bytes()
    found = []
    try:
        interpreter = require("tflite_micro").runtime.Interpreter.from_bytes(model, arena_size=ample)
        outputs = range(len(read_graph(model, "the model").outputs))
        for inputs in samples:
            for number, value in enumerate(inputs):
                interpreter.set_input(np.ascontiguousarray(value), number)
            interpreter.invoke()
            found.append([np.array(interpreter.get_output(number)) for number in outputs])
    except (RuntimeError, ValueError) as error:
        last = " ".join(printed(before).splitlines()[-2:])
        raise SessionError(f"tflm refuses the model: {last} ({error})") from error
    return found


def _least_arena(model: bytes, ample: int, inputs: int) -> int:
    confine(len(model))
    before = printed_bytes()
    try:
        interpreter = require("tflite_micro").runtime.Interpreter.from_bytes(model, arena_size=ample)
        for number in range(inputs):
            details = interpreter.get_input_details(number)
            interpreter.set_input(np.zeros(details["shape"], details["dtype"]), number)
        interpreter.invoke()
    except (RuntimeError, ValueError) as error:
        last = " ".join(printed(before).splitlines()[-2:])
        raise SessionError(f"it refuses the model: {last} ({error})") from error
    interpreter.print_allocations()
    (total,) = [line for line in printed(before).splitlines() if _ARENA_TOTAL in line]
    recorded = int(total.split(_ARENA_TOTAL)[1].split()[0])
    more_time(_SEARCH_S)
    if allocates(model, aligned(recorded)):
        return aligned(recorded)
    sizes = range(aligned(recorded), aligned(ample) + 1, _ALIGNMENT)
    return sizes[bisect_left(sizes, True, key=functools.partial(allocates, model))]


def allocates(model: bytes, size: int) -> bool:
    """Whether TFLM can allocate ``model`` in an arena of ``size`` bytes; tried in a copy of this process.

    An arena that is a few bytes too small crashes TFLM.
    """
    runtime = require("tflite_micro").runtime
    child = os.fork()
    if child == 0:
        refused = 1
        try:
            runtime.Interpreter.from_bytes(model, arena_size=size)
            refused = 0
        finally:
            os._exit(refused)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def aligned(size: int) -> int:
    """``size`` bytes, rounded up to what TFLM aligns buffers to."""
    return -(-size // _ALIGNMENT) * _ALIGNMENT


def _ample(graph: Graph, model: bytes) -> int:
    """An arena size that is sufficient for all tensors at once, scratch buffers and persistent data of kernels."""
    tensors = [tensor for subgraph in graph.subgraphs for tensor in subgraph.tensors]
    computed = sum(tensor.bytes for tensor in tensors if tensor.data is None)
    return 4 * computed + len(model) + 2**20


def specs_of(graph: Graph) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """The inputs and outputs of ``graph``."""
    inputs, outputs = (tuple(_spec(graph.tensors[index]) for index in ends) for ends in (graph.inputs, graph.outputs))
    return inputs, outputs


def _spec(tensor: Tensor) -> TensorSpec:
    quantization = None
    if len(tensor.scale):
        quantization = Quantization(scale=(float(tensor.scale[0]),), zero_point=(int(tensor.zero_point[0]),))
    return TensorSpec(
        name=tensor.name,
        shape=tuple(None if size < 0 else size for size in tensor.shape),
        dtype=tensor.dtype,
        layout="NHWC" if len(tensor.shape) == 4 else "NC",
        quantization=quantization,
    )
