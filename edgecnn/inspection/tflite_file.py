"""Inspect .tflite files: content from the flatbuffer, delegation from LiteRT's execution plan.

Multiply-accumulates of one run, with shapes as the runtime computed them:

===================  =========================================================================================
CONV_2D              out_n · out_h · out_w · out_c · kernel_h · kernel_w · in_c / groups
DEPTHWISE_CONV_2D    out_n · out_h · out_w · out_c · kernel_h · kernel_w
TRANSPOSE_CONV       in_n · in_h · in_w · in_c · kernel_h · kernel_w · out_c
FULLY_CONNECTED      rows · in_features · out_features
BATCH_MATMUL         output values · length of the summed axis
===================  =========================================================================================

Everything else counts 0: additions, pooling and activations have no multiply-accumulate pairs.
"""

from importlib.metadata import version
from math import prod
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from edgecnn.errors import SessionError, one_line
from edgecnn.files import read_bytes
from edgecnn.inspection.common import Found, input_shape, made_up, precision_of, timed
from edgecnn.quiet import quiet_stderr
from edgecnn.records import InspectedNode, InspectedTensor, Precision
from edgecnn.report import units
from edgecnn.runtimes.litert import Kernels, open_interpreter
from edgecnn.tflite.graph import Graph, Operator, Tensor, macs, read_graph

_CONVERSIONS = ("QUANTIZE", "DEQUANTIZE", "CAST", "TRANSPOSE")
_DATA = (
    "RESHAPE", "SQUEEZE", "EXPAND_DIMS", "CONCATENATION", "PAD", "PADV2", "MIRROR_PAD", "SLICE", "STRIDED_SLICE",
    "SPLIT", "SPLIT_V", "PACK", "UNPACK", "GATHER", "GATHER_ND", "SHAPE", "TILE", "FILL", "SPACE_TO_DEPTH",
    "DEPTH_TO_SPACE", "SPACE_TO_BATCH_ND", "BATCH_TO_SPACE_ND", "REVERSE_V2", "BROADCAST_TO", "DENSIFY",
)  # fmt: skip
# Inputs that are weights if they are constant.
_WEIGHTS = {
    "CONV_2D": (1, 2), "DEPTHWISE_CONV_2D": (1, 2), "FULLY_CONNECTED": (1, 2), "TRANSPOSE_CONV": (1, 3),
    "BATCH_MATMUL": (0, 1), "PRELU": (1,), "ADD": (0, 1), "SUB": (0, 1), "MUL": (0, 1), "DIV": (0, 1),
}  # fmt: skip


def read(path: Path, shape: tuple[int, ...] | None) -> Found:
    """The operators of the .tflite file at ``path`` in order, and the time of a run in LiteRT.

    Raises:
        ArtifactError: the file is damaged, or edgecnn cannot read it.
        ConfigError: see ``inspect``.
        SessionError: LiteRT refuses the file.
    """
    graph = read_graph(read_bytes(path), path.name)
    try:
        # Shapes come from the runtime without delegates: tensors inside a delegate keep the shapes of the file.
        plain = _interpreter(path, graph, shape, "built-in")
        shapes = {t["index"]: tuple(int(size) for size in t["shape"]) for t in plain.get_tensor_details()}
        del plain
        interpreter = _interpreter(path, graph, shape, "xnnpack")
        parts = _delegated(interpreter, graph)
        with quiet_stderr():
            run_seconds = timed(interpreter.invoke)
    except (ValueError, RuntimeError) as error:
        raise SessionError(f"litert cannot run {path.name}: {one_line(error)}") from error
    reader = _Reader(graph, shapes, frozenset().union(*parts))
    nodes = tuple(reader.node(operator) for operator in graph.operators)
    return Found(f"litert {version('ai-edge-litert')}", nodes, run_seconds, _notes(nodes, len(parts), run_seconds))


def _interpreter(path: Path, graph: Graph, shape: tuple[int, ...] | None, kernels: Kernels) -> Any:
    """An interpreter on one thread, with its inputs set."""
    with quiet_stderr():
        interpreter = open_interpreter(path, kernels=kernels)
        for details in interpreter.get_input_details():
            stored = [None if size < 0 else int(size) for size in details["shape_signature"]]
            wanted = input_shape(details["name"], stored, shape, len(graph.inputs))
            if wanted != tuple(details["shape"]):
                interpreter.resize_tensor_input(details["index"], wanted)
        interpreter.allocate_tensors()
        for details in interpreter.get_input_details():
            dtype = np.dtype(details["dtype"])
            interpreter.set_tensor(details["index"], made_up(details["shape"], dtype.name))
    return interpreter


def _delegated(interpreter: Any, graph: Graph) -> list[frozenset[int]]:
    """Positions of the operators inside each delegate of the execution plan.

    The plan lists only a delegate's inputs and outputs; all operators between them are inside.
    """
    producer = {index: operator for operator in graph.operators for index in operator.outputs}
    parts = []
    for entry in interpreter._get_ops_details():
        if entry["op_name"] != "DELEGATE":
            continue
        known, inside = set(map(int, entry["inputs"])), set()
        wanted = [int(index) for index in entry["outputs"]]
        while wanted:
            index = wanted.pop()
            if index not in known and index in producer:
                known.update(producer[index].outputs)
                inside.add(producer[index].position)
                wanted.extend(producer[index].inputs)
        parts.append(frozenset(inside))
    return parts


class _Reader:
    def __init__(self, graph: Graph, shapes: dict[int, tuple[int, ...]], delegated: frozenset[int]) -> None:
        self.graph = graph
        self.shapes = shapes
        self.delegated = delegated
        self.counted: set[int] = set()
        # Constants that an operator converts to float once, at load: float16 weights.
        self.unpacked = {
            operator.outputs[0]: operator.inputs[0]
            for operator in graph.operators
            if operator.kind == "DEQUANTIZE" and graph.tensors[operator.inputs[0]].data is not None
        }

    def node(self, operator: Operator) -> InspectedNode:
        folded = operator.outputs and operator.outputs[0] in self.unpacked
        inside = operator.position in self.delegated
        weights = [t for t in self._weights(operator) if t.index not in self.counted]
        self.counted.update(tensor.index for tensor in weights)  # a shared tensor is stored once
        return InspectedNode(
            position=operator.position,
            name=self.graph.tensors[operator.outputs[0]].name if operator.outputs else "",
            kind=operator.kind,
            kernel=None if folded else "XNNPACK" if inside else "builtin",
            fate="folded" if folded else "delegated" if inside else "runs",
            precision=None if folded else self._precision(operator),
            inputs=tuple(self._tensor(index) for index in operator.inputs if index >= 0),
            outputs=tuple(self._tensor(index) for index in operator.outputs),
            macs=macs(self.graph, operator, self.shapes),
            parameters=sum(prod(tensor.shape) for tensor in weights),
            weight_bytes=sum(tensor.data.nbytes for tensor in weights if tensor.data is not None),
        )

    def _stored(self, index: int) -> Tensor:
        return self.graph.tensors[self.unpacked.get(index, index)]

    def _weights(self, operator: Operator) -> list[Tensor]:
        places = [place for place in _WEIGHTS.get(operator.kind, ()) if place < len(operator.inputs)]
        tensors = [self._stored(operator.inputs[place]) for place in places if operator.inputs[place] >= 0]
        return [tensor for tensor in tensors if tensor.data is not None]

    def _precision(self, operator: Operator) -> Precision:
        if operator.kind in _CONVERSIONS:
            return "conversion"
        inputs = [self.graph.tensors[index] for index in operator.inputs if index >= 0]
        if operator.kind in _DATA or not inputs:
            return "data"
        computed = [tensor for tensor in inputs if tensor.data is None] or inputs
        # TRANSPOSE_CONV and others have a shape as first input: the activation is the first that is not an integer
        # index.
        activation = next((t for t in computed if t.dtype not in ("int32", "int64")), computed[0])
        return precision_of(activation.dtype, (tensor.dtype for tensor in self._weights(operator)))

    def _tensor(self, index: int) -> InspectedTensor:
        tensor = self.graph.tensors[index]
        many = len(tensor.scale) > 0
        return InspectedTensor(
            name=tensor.name,
            shape=self.shapes.get(index, tensor.shape),
            dtype=tensor.dtype,
            constant=tensor.data is not None,
            scales=len(tensor.scale),
            scale=(float(tensor.scale.min()), float(tensor.scale.max())) if many else None,
            zero_point=(int(tensor.zero_point.min()), int(tensor.zero_point.max())) if many else None,
        )


def _notes(nodes: tuple[InspectedNode, ...], parts: int, run_seconds: tuple[float, ...]) -> tuple[str, ...]:
    inside = sum(node.fate == "delegated" for node in nodes)
    running = sum(node.fate != "folded" for node in nodes)
    outside = list(dict.fromkeys(node.kind or "" for node in nodes if node.fate == "runs"))
    took = f"a run takes {units.duration(median(run_seconds))}"
    where = f"{inside} of {units.counted(running, 'operator')} are in {units.counted(parts, 'XNNPACK partition')}"
    if parts == 1 and not outside:
        time = f"{where}, the whole run: {took}"
    else:
        time = f"{where}; LiteRT's own kernels run {', '.join(outside) or 'nothing'}; {took}"
    return (
        f"{time}. LiteRT's Python interface has no profiler, so there is no time per operator.",
        "Delegation is read from LiteRT's execution plan. Precision is derived from the types of an operator's "
        "tensors, by which XNNPACK (QS8 and QU8 for int8 and uint8) and LiteRT choose a kernel; a kernel may use "
        "tables or floats internally, as LiteRT's SOFTMAX does. Hybrid: int8 weights, float activations "
        "quantised in each run.",
    )
