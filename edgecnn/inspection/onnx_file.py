"""Inspect .onnx files: content from the graph, execution from ONNX Runtime's profiler.

Multiply-accumulates of one run, with dynamic batches as 1; quantised forms count the same:

================  ============================================================================================
Conv              out_n · out_c · out_h · out_w · kernel_h · kernel_w · in_c / groups
ConvTranspose     in_n · in_c · in_h · in_w · kernel_h · kernel_w · out_c / groups
Gemm, MatMul      output values · length of the summed axis
================  ============================================================================================

Everything else counts 0: additions, pooling and activations have no multiply-accumulate pairs.
"""

import re
import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from statistics import fmean, median
from typing import Any

import msgspec
import numpy as np

from edgecnn.errors import ArtifactError, EdgecnnError, SessionError, one_line
from edgecnn.files import read_bytes
from edgecnn.inspection.common import Found, input_shape, made_up, precision_of, product, timed
from edgecnn.inspection.portable import Wiring, saturating, without_constant_ifs
from edgecnn.onnx_verifier import verify
from edgecnn.optional import require
from edgecnn.records import InspectedNode, InspectedTensor, Precision
from edgecnn.report import units
from edgecnn.runtimes.ort import open_model
from edgecnn.worker import confine

_CONVERSIONS = (
    "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "Cast", "Transpose", "ReorderInput", "ReorderOutput",
)  # fmt: skip
_DATA = (
    "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Concat", "QLinearConcat", "Slice", "Split", "Gather", "Pad", "Shape",
    "Identity", "Expand", "Tile", "Constant", "ConstantOfShape", "Size", "SpaceToDepth", "DepthToSpace", "Dropout",
)  # fmt: skip
# Inputs that are weights if they are constant.
_WEIGHTS = {
    "Conv": (1, 2), "ConvTranspose": (1, 2), "ConvInteger": (1,), "QLinearConv": (3, 8), "Gemm": (1, 2),
    "QGemm": (3, 6), "MatMul": (0, 1), "MatMulInteger": (0, 1), "QLinearMatMul": (0, 3), "Add": (0, 1), "Sub": (0, 1),
    "Mul": (0, 1), "Div": (0, 1), "PRelu": (1,), "BatchNormalization": (1, 2, 3, 4), "LayerNormalization": (1, 2),
    "InstanceNormalization": (1, 2),
}  # fmt: skip
# Input positions of the output's scale and zero point, for operators that compute in integers.
_OUTPUT_STEPS = {"QLinearConv": (6, 7), "QLinearMatMul": (6, 7), "QGemm": (7, 8), "QLinearAdd": (6, 7)}
_TYPES = {
    "tensor(float)": "float32", "tensor(float16)": "float16", "tensor(double)": "float64", "tensor(int8)": "int8",
    "tensor(uint8)": "uint8", "tensor(int16)": "int16", "tensor(uint16)": "uint16", "tensor(int32)": "int32",
    "tensor(int64)": "int64", "tensor(bool)": "bool",
}  # fmt: skip
# Limit of profile events, because large profiles are slow to read.
_EVENTS = 20_000
_MOST_RUNS, _WARM_UP, _SECONDS = 100, 3, 2.0


class _Event(msgspec.Struct):
    """An event of the profile; ``dur`` in microseconds."""

    name: str
    cat: str
    dur: int
    args: dict[str, Any] = {}


class _Executed(msgspec.Struct):
    """An executed node: name, kernel, (type, shape) of inputs and outputs, seconds per run."""

    name: str
    kernel: str
    inputs: tuple[tuple[str, tuple[int, ...]], ...]
    outputs: tuple[tuple[str, tuple[int, ...]], ...]
    seconds: float


def read(path: Path, shape: tuple[int, ...] | None) -> Found:
    """The executed and removed nodes of the .onnx file at ``path`` in ONNX Runtime, with their times.

    Raises:
        ArtifactError: the file is damaged.
        ConfigError: see ``inspect``.
        SessionError: ONNX Runtime refuses the file.
        MissingExtraError: the package onnx is not installed.
    """
    onnx, ort = require("onnx"), require("onnxruntime")
    content = read_bytes(path)
    confine(len(content))
    verify(content, path.name)
    try:
        model = onnx.load_model_from_string(content)
        _name_nodes(model)
    except Exception as error:
        raise ArtifactError(f"{path} cannot be read as an ONNX file: {one_line(error)}") from error
    if not model.graph.node:
        raise ArtifactError(f"{path} is not an ONNX file, or has no operators")
    position = {node.name: number for number, node in enumerate(model.graph.node)}
    try:
        unsafe, whole = saturating(model), model
        model = without_constant_ifs(model, _computed)
        branches = _ifs(whole) - _ifs(model)
        content = model.SerializeToString()
        feeds, run_seconds = _run(path.name, content, shape)
        executed = _profile(content, feeds, len(model.graph.node), median(run_seconds))
    except EdgecnnError:
        raise
    except Exception as error:
        raise SessionError(f"onnxruntime cannot run {path.name}: {one_line(error)}") from error
    nodes = _Reader(onnx, model, {name: value.shape for name, value in feeds.items()}).inspected(executed)
    nodes = tuple(node.replace(position=position.get(node.name), saturates=node.name in unsafe) for node in nodes)
    return Found(f"onnxruntime {ort.__version__}", nodes, run_seconds, _notes(nodes, run_seconds, branches))


def _ifs(model: Any) -> int:
    return sum(node.op_type == "If" for node in model.graph.node)


def _computed(model: Any) -> bool:
    """The only output of a model without inputs, on this processor."""
    (value,) = open_model(model.SerializeToString(), threads=1).run(None, {})
    return bool(np.all(value))


def _name_nodes(model: Any) -> None:
    """Give each node a unique name, to identify it in the profile."""
    taken = Counter(node.name for node in model.graph.node)
    for number, node in enumerate(model.graph.node):
        if not node.name or taken[node.name] > 1:
            node.name = f"{node.name or node.op_type}#{number}"


def _run(name: str, content: bytes, shape: tuple[int, ...] | None) -> tuple[dict[str, Any], tuple[float, ...]]:
    """Synthetic inputs, and seconds of runs without the profiler."""
    session = open_model(content, threads=1)
    feeds = {}
    for entry in session.get_inputs():
        if entry.type not in _TYPES:
            raise SessionError(f"{name} has an input of {entry.type}; supported are: {', '.join(_TYPES)}")
        stored = [size if isinstance(size, int) else None for size in entry.shape]
        wanted = input_shape(entry.name, stored, shape, len(session.get_inputs()))
        feeds[entry.name] = made_up(wanted, _TYPES[entry.type])
    return feeds, timed(lambda: session.run(None, feeds))


def _profile(content: bytes, feeds: dict[str, Any], nodes: int, seconds: float) -> list[_Executed]:
    """The nodes in execution order, each with its mean time over the faster half of the runs.

    A run has about ``nodes`` nodes and takes about ``seconds``.
    """
    with tempfile.TemporaryDirectory(prefix="edgecnn-") as folder:
        session = open_model(content, threads=1, profile=Path(folder) / "profile")
        for _ in range(_WARM_UP + max(10, min(_MOST_RUNS, _EVENTS // nodes, int(_SECONDS / seconds)))):
            session.run(None, feeds)
        events = msgspec.json.decode(Path(session.end_profiling()).read_bytes(), type=list[_Event])
    of_node: dict[tuple[str, str], list[_Event]] = {}
    for event in events:
        if event.cat == "Node" and event.name.endswith("_kernel_time"):
            key = (event.args.get("node_index", ""), event.name.removesuffix("_kernel_time"))
            of_node.setdefault(key, []).append(event)
    return _executed(of_node)


def _executed(nodes: dict[tuple[str, str], list[_Event]]) -> list[_Executed]:
    samples = [np.array([event.dur for event in events[_WARM_UP:] or events], float) for events in nodes.values()]
    runs = min((len(times) for times in samples), default=0)
    totals = sum((times[:runs] for times in samples), np.zeros(runs))
    # Times are whole microseconds with occasional pauses: a mean keeps fractions, and slow runs are excluded.
    fast = np.argsort(totals, kind="stable")[: (runs + 1) // 2]
    return [
        _Executed(
            name,
            events[-1].args["op_name"],
            _tensors(events[-1].args["input_type_shape"]),
            _tensors(events[-1].args["output_type_shape"]),
            fmean(times[fast]) / 1e6,
        )
        for ((_, name), events), times in zip(nodes.items(), samples, strict=True)
    ]


def _tensors(listed: Iterable[dict[str, list[int]]]) -> tuple[tuple[str, tuple[int, ...]], ...]:
    return tuple(("float32" if t == "float" else t, tuple(shape)) for entry in listed for t, shape in entry.items())


class _Reader(Wiring):
    """The graph of a file, and the mapping from executed nodes to its nodes."""

    def __init__(self, onnx: Any, model: Any, inputs: dict[str, tuple[int, ...]]) -> None:
        super().__init__(model.graph.node, model.graph.initializer)
        self.onnx = onnx
        self.position = {node.name: number for number, node in enumerate(self.nodes)}
        self.roots = dict(self.constants)
        for node in self.nodes:  # in topological order
            names = [name for name in node.input if name]
            if names and all(name in self.roots for name in names):
                largest = max((self.roots[name] for name in names), key=lambda tensor: product(tensor.dims))
                self.roots.update(dict.fromkeys(node.output, largest))
        self.types = _types(onnx, model, inputs)
        self.counted: set[str] = set()

    def inspected(self, executed: list[_Executed]) -> tuple[InspectedNode, ...]:
        matched = self._match(executed)
        total = sum(entry.seconds for entry in executed) or 1.0
        found = [
            self._node(
                node,
                fate="runs" if node is not None else "inserted",
                kernel=entry.kernel,
                executed=entry,
                precision=self._precision(entry),
                seconds=entry.seconds,
                time_share=entry.seconds / total,
            )
            for entry, node in zip(executed, matched, strict=True)
        ]
        ran = {node.name for node in matched if node is not None}
        folded: set[str] = set(self.constants)
        for node in self.nodes:
            if node.name not in ran:
                constant = all(not name or name in folded for name in node.input)
                if constant:
                    folded.update(node.output)
                found.append(self._node(node, fate="folded" if constant else "fused"))
        return tuple(found)

    def _node(self, node: Any, *, executed: _Executed | None = None, **fields: Any) -> InspectedNode:
        """The record of a file's ``node``, or of one inserted by the runtime (None)."""
        if node is None:
            assert executed is not None
            return InspectedNode(
                position=None,
                name=executed.name,
                kind=None,
                inputs=tuple(InspectedTensor(name="", shape=s, dtype=t) for t, s in executed.inputs),
                outputs=tuple(InspectedTensor(name="", shape=s, dtype=t) for t, s in executed.outputs),
                macs=0,
                parameters=0,
                weight_bytes=0,
                **fields,
            )
        # A node folded to a constant has no weights of its own: they count where they are used.
        weights = [] if fields["fate"] == "folded" else self._weights(node)
        weights = [tensor for tensor in weights if tensor.name not in self.counted]
        self.counted.update(tensor.name for tensor in weights)
        out = executed.outputs[0][1] if executed and executed.outputs else None
        return InspectedNode(
            position=self.position[node.name],
            name=node.name,
            kind=node.op_type,
            inputs=tuple(self._tensor(name) for name in node.input if name),
            outputs=self._outputs(node, executed),
            macs=self._macs(node, out),
            parameters=sum(product(tensor.dims) for tensor in weights),
            weight_bytes=sum(self._bytes(tensor) for tensor in weights),
            **{"kernel": None, "precision": None, **fields},
        )

    def _outputs(self, node: Any, executed: _Executed | None) -> tuple[InspectedTensor, ...]:
        """Outputs as in the file, or as the kernel's if another node quantises them."""
        outputs = [self._tensor(name, steps_of=node) for name in node.output if name]
        if executed is not None:
            for place, (dtype, shape) in enumerate(executed.outputs[: len(outputs)]):
                meant = outputs[place]
                if (meant.dtype, dtype) == ("int8", "uint8") and meant.zero_point is not None:
                    # ONNX Runtime stores int8 activations 128 higher where its uint8 kernels are faster.
                    low, high = meant.zero_point
                    outputs[place] = meant.replace(dtype=dtype, zero_point=(low + 128, high + 128))
                elif meant.dtype != dtype:
                    outputs[place] = InspectedTensor(name=meant.name, shape=shape, dtype=dtype)
        return tuple(outputs)

    # Which node of the file ran

    def _match(self, executed: list[_Executed]) -> list[Any]:
        """The file's node for each executed node, or None if the runtime inserted it."""
        exact = {entry.name for entry in executed} & set(self.position)
        claimed: set[str] = set()
        matched = []
        for entry in executed:
            node = self._behind(entry, exact - {entry.name})
            if node is not None and node.name in claimed:
                node = None
            if node is not None:
                claimed.add(node.name)
            matched.append(node)
        return matched

    def _behind(self, entry: _Executed, others: set[str]) -> Any:
        """The node with the runtime's name, which is the node's, one derived from it, or that of its output tensor."""
        if entry.name in self.position:
            return self.nodes[self.position[entry.name]]
        if entry.kernel in _CONVERSIONS:
            return None
        base = re.sub(r"(_token_\d+|_nchwc)+$", "", entry.name.removeprefix("fused "))
        node = self.producer.get(base)
        if base in self.position:
            node = self.nodes[self.position[base]]
        if node is None:
            starts = [name for name in self.position if base.startswith(name) and not base[len(name) :][:1].isalnum()]
            if not starts:
                return None
            node = self.nodes[self.position[max(starts, key=len)]]
        # A tensor is named after the last fused node: go back to the computing node.
        wanted, candidate = _plain(entry.kernel), node
        for _ in range(4):
            if _plain(candidate.op_type) == wanted:
                return candidate
            back = next((self.producer[name] for name in candidate.input if name in self.producer), None)
            if back is None or back.name in others:
                break
            candidate = back
        return None if node.name in others else node

    def _precision(self, entry: _Executed) -> Precision:
        if entry.kernel in _CONVERSIONS:
            return "conversion"
        if entry.kernel in _DATA or not entry.inputs:
            return "data"
        types = [dtype for dtype, _ in entry.inputs]
        # Kernels with float inputs and integer weights quantise the activations themselves.
        return precision_of(types[0], types[1:2] if "MatMul" in entry.kernel or "Gemm" in entry.kernel else ())

    # What is in the file

    def _root(self, name: str) -> Any:
        """The largest stored tensor that ``name`` is computed from, or None if it depends on the input."""
        return self.roots.get(name)

    def _weights(self, node: Any) -> list[Any]:
        names = [node.input[i] for i in _WEIGHTS.get(node.op_type, ()) if i < len(node.input) and node.input[i]]
        roots = [root for root in map(self._root, names) if root is not None]
        single = node.op_type in ("Mul", "Div", "Add", "Sub")  # a scalar is part of the arithmetic, not a weight
        return [root for root in roots if not single or product(root.dims) > 1]

    def _bytes(self, tensor: Any) -> int:
        return product(tensor.dims) * int(self._dtype(tensor.data_type).itemsize)

    def _dtype(self, code: int) -> "np.dtype[Any]":
        found: np.dtype[Any] = np.dtype(self.onnx.helper.tensor_dtype_to_np_dtype(code))
        return found

    def _tensor(self, name: str, steps_of: Any = None) -> InspectedTensor:
        dtype, shape = self.types.get(name, (0, None))
        steps = self._written_steps(name, steps_of) if steps_of is not None else self._read_steps(name)
        if name in self.constants and steps is None:
            dtype, shape = self.constants[name].data_type, tuple(self.constants[name].dims)
        kind = steps[2] if steps else self._dtype(dtype).name if dtype else "unknown"
        scale, zero = steps[:2] if steps else (None, None)
        return InspectedTensor(
            name=name,
            shape=shape,
            dtype=kind,
            constant=self._root(name) is not None,
            scales=0 if scale is None else int(scale.size),
            scale=None if scale is None else (float(scale.min()), float(scale.max())),
            zero_point=None if zero is None or not zero.size else (int(zero.min()), int(zero.max())),
        )

    def _read_steps(self, name: str) -> Any:
        """Scale, zero point and type of a value that comes from a DequantizeLinear."""
        node = self.producer.get(name)
        if node is None or node.op_type != "DequantizeLinear":
            return None
        return self._steps(node.input[1], node.input[2] if len(node.input) > 2 else "", node.input[0])

    def _written_steps(self, name: str, node: Any) -> Any:
        """Scale, zero point and type of a value that is quantised next, after at most one fused activation."""
        if node.op_type in _OUTPUT_STEPS:
            places = _OUTPUT_STEPS[node.op_type]
            if len(node.input) <= places[1]:
                return None
            return self._steps(node.input[places[0]], node.input[places[1]], name)
        if node.op_type == "QuantizeLinear":
            return self._steps(node.input[1], node.input[2] if len(node.input) > 2 else "", name)
        after = self.consumers.get(name, [])
        if node.op_type == "DequantizeLinear" or len(after) != 1:
            return None
        if after[0].op_type in ("QuantizeLinear", "Relu", "Clip"):
            return self._written_steps(after[0].output[0], after[0])
        return None

    def _steps(self, scale: str, zero_point: str, stored: str) -> Any:
        if scale not in self.constants:
            return None
        array = self.onnx.numpy_helper.to_array
        zero = array(self.constants[zero_point]) if zero_point in self.constants else np.zeros(1, np.uint8)
        known = self.constants[stored].data_type if stored in self.constants else self.types.get(stored, (0, None))[0]
        kind = zero.dtype.name if zero_point in self.constants else self._dtype(known).name if known else "uint8"
        return array(self.constants[scale]), zero, kind

    def _macs(self, node: Any, out: tuple[int, ...] | None) -> int:
        plain = _plain(node.op_type)
        if plain not in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
            return 0
        stride = 3 if node.op_type.startswith("QLinear") or node.op_type == "QGemm" else 1
        first, second = self._shape(node.input[0]), self._shape(node.input[stride])
        if first is None or second is None:
            return 0
        written = self._shape(node.output[0])
        values = product(written) or product(out)
        if plain == "Conv":  # weights (out_c, in_c / groups, h, w)
            return values * product(second[1:])
        if (
            plain == "ConvTranspose"
        ):  # weights (in_c, out_c / groups, h, w); each value is multiplied with the whole kernel
            return product(first) * product(second[1:])
        across = plain == "Gemm" and any(a.name == "transA" and a.i for a in node.attribute)
        return values * (first[-2 if across else -1] or 0)

    def _shape(self, name: str) -> tuple[int | None, ...] | None:
        if name in self.constants:
            return tuple(self.constants[name].dims)
        return self.types.get(name, (0, None))[1]


def _types(
    onnx: Any, model: Any, inputs: dict[str, tuple[int, ...]]
) -> dict[str, tuple[int, tuple[int | None, ...] | None]]:
    """Type and shape of each tensor, inferred for the shapes of ``inputs``; shape None if unknown."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.value_info[:]
    for value in copy.graph.input:
        if value.name in inputs:
            for dim, size in zip(value.type.tensor_type.shape.dim, inputs[value.name], strict=True):
                dim.dim_value = size
    for value in copy.graph.output:
        value.type.tensor_type.ClearField("shape")
    try:
        copy = onnx.shape_inference.infer_shapes(copy, data_prop=True)
    except Exception:  # noqa: BLE001 - shapes are optional; the file itself has already run
        return {}
    found: dict[str, tuple[int, tuple[int | None, ...] | None]] = {}
    for value in (*copy.graph.value_info, *copy.graph.input, *copy.graph.output):
        kind = value.type.tensor_type
        known = kind.HasField("shape")
        shape = tuple(d.dim_value if d.HasField("dim_value") else None for d in kind.shape.dim) if known else None
        found[value.name] = (kind.elem_type, shape)
    for tensor in copy.graph.initializer:
        found[tensor.name] = (tensor.data_type, tuple(tensor.dims))
    return found


def _plain(kind: str) -> str:
    """The operator without its quantised, fused or channels-last prefix: ``Conv`` for ``QLinearConv``."""
    for form in ("QLinear", "Nhwc", "Fused", "DynamicQuantize", "Q"):
        kind = kind.removeprefix(form)
    return {"ConvInteger": "Conv", "MatMulInteger": "MatMul", "MatMulIntegerToFloat": "MatMul"}.get(kind, kind)


def _notes(nodes: tuple[InspectedNode, ...], run_seconds: tuple[float, ...], branches: int) -> tuple[str, ...]:
    gone = []
    if branches:
        gone.append(f"shown as the branch taken on this processor, chosen when the file is loaded: If ×{branches}")
    for fate, what in (("fused", "fused into neighbours"), ("folded", "computed once, when the file is loaded")):
        kinds = Counter(node.kind for node in nodes if node.fate == fate)
        if kinds:
            gone.append(f"{what}: {', '.join(f'{kind} ×{count}' for kind, count in kinds.items())}")
    inserted = Counter(node.kernel for node in nodes if node.fate == "inserted")
    if inserted:
        gone.append(f"inserted by ONNX Runtime: {', '.join(f'{kind} ×{count}' for kind, count in inserted.items())}")
    # ONNX Runtime requantises, with one scale for all channels, a single float node between quantised values.
    again = [node.name for node in nodes if node.precision == "int8" and node.macs and _float_weights(node)]
    if again:
        gone.append(f"float weights that ONNX Runtime quantised to int8 itself: {', '.join(again)}")
    unsafe = [node.name for node in nodes if node.saturates]
    if unsafe:
        gone.append(
            "int8 weights whose sums of products can saturate on x86 without VNNI, if the session option "
            f"session.x64quantprecision is not 1 there: {', '.join(unsafe)}"
        )
    profiled = sum(node.seconds or 0.0 for node in nodes)
    return (
        *(f"{part[0].upper()}{part[1:]}." for part in gone),
        f"A run takes {units.duration(median(run_seconds))}; its nodes take {units.duration(profiled)} in the "
        "profiler, which rounds to microseconds and adds overhead to each node, so shares of small nodes are too high.",
        "Precision is that of the kernel's input as reported by the profiler.",
    )


def _float_weights(node: InspectedNode) -> bool:
    in_float = any(tensor.constant and tensor.dtype.startswith("float") for tensor in node.inputs[1:2])
    return in_float and node.kind in ("Conv", "ConvTranspose", "Gemm", "MatMul")
