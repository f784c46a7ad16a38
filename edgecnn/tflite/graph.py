"""Read a .tflite file into plain records: tensors with constants and quantisation, operators with options."""

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgecnn.errors import ArtifactError
from edgecnn.optional import require
from edgecnn.text import NAME, shown
from edgecnn.tflite.verifier import FlatbufferError, verify

_DTYPES = {
    "FLOAT32": "float32", "FLOAT16": "float16", "INT4": "int4", "INT8": "int8", "UINT8": "uint8", "INT16": "int16",
    "INT32": "int32", "INT64": "int64", "UINT16": "uint16", "UINT32": "uint32", "BOOL": "bool", "RESOURCE": "resource",
}  # fmt: skip

# Largest length of a name in bytes; converters join the names of fused layers.
_LONGEST_NAME = 400
# Limit of tensors, operators and metadata buffers; the largest CNNs have some thousands.
_MOST_PARTS = 20_000
# Required number of inputs of an operator, if not one.
_INPUTS = {
    **dict.fromkeys(("PADV2", "TRANSPOSE_CONV"), 3),
    **dict.fromkeys(("ADD", "CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "MAXIMUM", "MEAN"), 2),
    "REDUCE_MAX": 2,
    "SLICE": 3,
    "SPLIT": 2,
    "SPLIT_V": 3,
    "SVDF": 3,
    "ASSIGN_VARIABLE": 2,
    "READ_VARIABLE": 1,
    "STRIDED_SLICE": 4,
    **dict.fromkeys(("MINIMUM", "MUL", "PAD", "SUB"), 2),
    **dict.fromkeys(("BATCH_MATMUL", "PRELU", "RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR", "TILE", "TRANSPOSE"), 2),
}
# Options with the number of another subgraph that the operator runs.
_CALLED = (
    "initSubgraphIndex", "thenSubgraphIndex", "elseSubgraphIndex", "condSubgraphIndex", "bodySubgraphIndex",
)  # fmt: skip
# Options of an operator that must be at least 1.
_WINDOW = ("filterHeight", "filterWidth", "strideH", "strideW")
_COUNTED = {
    "CONV_2D": ("strideH", "strideW", "dilationHFactor", "dilationWFactor"),
    "DEPTHWISE_CONV_2D": ("strideH", "strideW", "dilationHFactor", "dilationWFactor"),
    "TRANSPOSE_CONV": ("strideH", "strideW"),
    **dict.fromkeys(("AVERAGE_POOL_2D", "L2_POOL_2D", "MAX_POOL_2D"), _WINDOW),
}


class Tensor(msgspec.Struct, frozen=True, kw_only=True):
    """A tensor of the graph. ``data`` is its constant value, or None if it is computed.

    ``scale`` and ``zero_point`` are empty if the tensor is not quantised; ``axis`` applies to several scales. ``shape``
    has -1 for a dynamic batch. A ``variable`` keeps its value between runs. Values of type int4 are unpacked to int8.
    """

    index: int
    name: str
    shape: tuple[int, ...]
    dtype: str
    scale: NDArray[np.float32]
    zero_point: NDArray[np.int64]
    axis: int
    data: NDArray[Any] | None
    variable: bool = False

    @property
    def layer(self) -> str:
        """Its name; the first of those that a converter joined for fused layers."""
        return self.name.split(";")[0]

    @property
    def form(self) -> str:
        """Its type, for messages; with the number of scales where one is expected."""
        scales = len(self.scale)
        return f"{self.dtype} with {scales} scales" if self.dtype in ("int8", "uint8") and scales != 1 else self.dtype

    @property
    def bytes(self) -> int:
        """The bytes of its values; an unknown size counts as 1. A resource is a number of 32 bits."""
        width = {"resource": 4, "int4": 1}.get(self.dtype) or np.dtype(self.dtype).itemsize
        return math.prod(abs(size) for size in self.shape) * width


class Operator(msgspec.Struct, frozen=True, kw_only=True):
    """An operator, such as CONV_2D, with the indices of its tensors (-1: absent) and its options by name.

    ``name`` is that of its first output, by which users know their layers.
    """

    position: int
    kind: str
    name: str = ""
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: dict[str, Any]

    def __str__(self) -> str:
        return f"operator {self.position} ({self.kind}{self.name and f' {self.name!r}'})"

    def counts(self, *names: str) -> list[int]:
        """Values of options such as strides; each is at least 1."""
        return [int(self.options[name]) for name in names]


class Graph(msgspec.Struct, frozen=True, kw_only=True):
    """The main subgraph of a model; operators are in execution order.

    ``others`` are the other subgraphs, which operators such as CALL_ONCE run, each without ``others``. ``unsupported``
    says what edgecnn does not read in the file; it is empty after ``read_graph``.
    """

    tensors: tuple[Tensor, ...]
    operators: tuple[Operator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    metadata: dict[str, bytes]
    others: tuple["Graph", ...] = ()
    unsupported: tuple[str, ...] = ()

    @property
    def subgraphs(self) -> tuple["Graph", ...]:
        """All subgraphs, this one first."""
        return (self, *self.others)

    @property
    def stateful(self) -> bool:
        """Whether an output depends on earlier inputs: the model has variables."""
        return any(
            any(tensor.variable or tensor.dtype == "resource" for tensor in subgraph.tensors)
            for subgraph in self.subgraphs
        )


def read_graph(model: bytes, where: object) -> Graph:
    """Parse the flatbuffer ``model``; ``where`` names it in errors.

    Raises:
        ArtifactError: not a .tflite file, truncated, damaged, or with custom operators, sparse or unknown tensors; the
            message says what and where.
    """
    graph = read_anyway(model, where)
    if graph.unsupported:
        raise ArtifactError(f"{where}: {'; '.join(graph.unsupported)}")
    return graph


def read_anyway(model: bytes, where: object) -> Graph:
    """As ``read_graph``, but what edgecnn does not support is listed in the graph instead of an error.

    An unsupported operator has the kind CUSTOM; values of an unsupported tensor are bytes, or empty.

    Raises:
        ArtifactError: not a .tflite file, truncated or damaged.
    """
    schema = require("ai_edge_litert.schema_py_generated")
    if model[4:8] != b"TFL3":
        raise ArtifactError(f"{where} is not a TFLite file: it does not have the identifier 'TFL3'")
    try:
        verify(model)
    except FlatbufferError as error:
        raise ArtifactError(f"{where} is damaged: its flatbuffer cannot be read ({error}); convert it again") from error
    root = schema.Model.GetRootAs(model, 0)
    main, *others = _subgraphs(schema, root, where)
    return msgspec.structs.replace(
        main,
        metadata=_metadata(root),
        others=tuple(others),
        unsupported=tuple(reason for subgraph in (main, *others) for reason in subgraph.unsupported),
    )


def macs(graph: Graph, operator: Operator, shapes: Mapping[int, tuple[int, ...]] = MappingProxyType({})) -> int:
    """Multiply-accumulates of one run of ``operator``; ``shapes``, by tensor index, override those stored.

    An unknown size counts as 1.
    """

    def sizes(index: int) -> tuple[int, ...]:
        return tuple(max(size, 1) for size in shapes.get(index, graph.tensors[index].shape))

    if operator.kind not in ("CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV", "FULLY_CONNECTED", "BATCH_MATMUL"):
        return 0
    out = math.prod(sizes(operator.outputs[0]))
    weights = sizes(operator.inputs[1])
    if operator.kind == "CONV_2D":  # weights (out_c, h, w, in_c / groups)
        return out * math.prod(weights[1:])
    if operator.kind == "DEPTHWISE_CONV_2D":  # weights (1, h, w, out_c)
        return out * math.prod(weights[1:3])
    if operator.kind == "TRANSPOSE_CONV":  # weights (out_c, h, w, in_c); each value is multiplied with the whole kernel
        return math.prod(sizes(operator.inputs[2])) * math.prod(weights[:3])
    if operator.kind == "FULLY_CONNECTED":  # weights (out_features, in_features)
        return out * weights[-1]
    summed = -2 if operator.options.get("adjX") else -1
    return out * sizes(operator.inputs[0])[summed]


def float_operators(graph: Graph) -> tuple[Operator, ...]:
    """The operators that compute in float: all with a float input or output but QUANTIZE and DEQUANTIZE."""

    def in_float(operator: Operator) -> bool:
        used = [graph.tensors[index] for index in (*operator.inputs, *operator.outputs) if index >= 0]
        return any(tensor.dtype in ("float16", "float32") for tensor in used)

    conversions = ("DEQUANTIZE", "QUANTIZE")
    return tuple(operator for operator in graph.operators if operator.kind not in conversions and in_float(operator))


def _subgraphs(schema: Any, root: Any, where: object) -> list[Graph]:
    """All subgraphs of a model, without metadata."""
    found = [root.Subgraphs(number) for number in range(root.SubgraphsLength())]
    if not found:
        raise ArtifactError(f"{where} has no subgraph")
    for name, count in (
        ("tensors", sum(subgraph.TensorsLength() for subgraph in found)),
        ("operators", sum(subgraph.OperatorsLength() for subgraph in found)),
        ("metadata buffers", root.MetadataLength()),
    ):
        if count > _MOST_PARTS:
            raise ArtifactError(f"{where} has {count:,} {name}; edgecnn reads at most {_MOST_PARTS:,}")
    return [
        _graph(schema, root, number, where if number == 0 else f"{where}, subgraph {number}")
        for number in range(len(found))
    ]


def _graph(schema: Any, root: Any, number: int, where: object) -> Graph:
    subgraph, unsupported = root.Subgraphs(number), list[str]()
    tensors = tuple(
        _tensor(schema, root, subgraph.Tensors(index), index, where, unsupported)
        for index in range(subgraph.TensorsLength())
    )
    kinds = _names(schema.BuiltinOperator)
    operators = []
    for position in range(subgraph.OperatorsLength()):
        operator = subgraph.Operators(position)
        if operator.OpcodeIndex() >= root.OperatorCodesLength():
            raise ArtifactError(f"{where}: operator {position} has an operator code that does not exist")
        code = root.OperatorCodes(operator.OpcodeIndex())
        kind = kinds.get(max(code.BuiltinCode(), code.DeprecatedBuiltinCode()), "an unknown operator")
        inputs = tuple(int(operator.Inputs(i)) for i in range(operator.InputsLength()))
        outputs = tuple(int(operator.Outputs(i)) for i in range(operator.OutputsLength()))
        if not all(-1 <= index < len(tensors) for index in (*inputs, *outputs)):
            raise ArtifactError(f"{where}: operator {position} ({kind}) refers to a tensor that does not exist")
        name = tensors[outputs[0]].layer if outputs and outputs[0] >= 0 else ""
        if kind == "CUSTOM":
            custom = _text(code.CustomCode() or b"without a name")
            unsupported.append(f"operator {position} {name!r} is custom ({custom}), which edgecnn does not support")
        options = _options(schema, operator)
        read = Operator(position=position, kind=kind, name=name, inputs=inputs, outputs=outputs, options=options)
        _check_operator(read, tensors, where)
        _check_called(read, number, root.SubgraphsLength(), where)
        operators.append(read)
    ends = {
        "input": tuple(int(subgraph.Inputs(i)) for i in range(subgraph.InputsLength())),
        "output": tuple(int(subgraph.Outputs(i)) for i in range(subgraph.OutputsLength())),
    }
    for kind, indices in ends.items():
        if not (indices or number) or not all(0 <= index < len(tensors) for index in indices):
            raise ArtifactError(f"{where}: the model has no {kind}, or one that does not exist: tensors {indices}")
    _check_wiring(tensors, operators, ends, where)
    return Graph(
        tensors=tensors,
        operators=tuple(operators),
        inputs=ends["input"],
        outputs=ends["output"],
        metadata={},
        unsupported=tuple(unsupported),
    )


def _check_called(operator: Operator, own: int, count: int, where: object) -> None:
    """Check that the subgraphs that an operator runs exist, and are neither the main one nor its own."""
    for name in _CALLED:
        called = operator.options.get(name)
        if called is not None and not (0 < called < count and called != own):
            raise ArtifactError(f"{where}: {operator} runs subgraph {called}, which it cannot")


def _check_operator(operator: Operator, tensors: tuple[Tensor, ...], where: object) -> None:
    """Check that required inputs exist, and values that kernels divide by without a check."""
    wanted = _INPUTS.get(operator.kind, min(1, len(operator.inputs)))
    if len(operator.inputs) < wanted:
        raise ArtifactError(f"{where}: {operator} has inputs {operator.inputs}, but needs {wanted}")
    if -1 in operator.inputs[:wanted]:
        raise ArtifactError(f"{where}: {operator}: its input {operator.inputs.index(-1)} is absent")
    counted = _COUNTED.get(operator.kind)
    if counted is None:
        return
    if not operator.options.keys() >= {*counted}:
        raise ArtifactError(f"{where}: {operator} lacks required options: {', '.join(counted)}")
    for name, value in zip(counted, operator.counts(*counted), strict=True):
        if value < 1:
            raise ArtifactError(f"{where}: {operator}: {name} is {value}; it must be at least 1")
    for index in operator.inputs:
        if index >= 0 and 0 in tensors[index].shape:
            raise ArtifactError(
                f"{where}: {operator} reads tensor {index} ({tensors[index].name}) of shape {tensors[index].shape}, "
                "which is empty"
            )


def _check_wiring(
    tensors: tuple[Tensor, ...],
    operators: list[Operator],
    ends: dict[str, tuple[int, ...]],
    where: object,
) -> None:
    """Check that each operator reads only existing tensors and writes only new ones: no other memory is allocated."""
    inputs, outputs = ends["input"], ends["output"]
    for index in inputs:
        if tensors[index].data is not None:
            raise ArtifactError(f"{where}: the input, tensor {index} ({tensors[index].name}), is a constant")
    there = {tensor.index for tensor in tensors if tensor.data is not None or 0 in tensor.shape}
    there.update(inputs, (tensor.index for tensor in tensors if tensor.variable))
    for operator in operators:
        for index in operator.inputs:
            if index >= 0 and index not in there:
                name = tensors[index].name
                raise ArtifactError(f"{where}: {operator} reads tensor {index} ({name}) before any operator writes it")
        for index in operator.outputs:
            if index in there or index < 0:
                raise ArtifactError(
                    f"{where}: {operator} writes tensor {index}, which already has a value or does not exist"
                )
            there.add(index)
    for index in outputs:
        if index not in there:
            raise ArtifactError(f"{where}: no operator writes the graph's output {tensors[index].name!r}")


def _tensor(schema: Any, root: Any, tensor: Any, index: int, where: object, unsupported: list[str]) -> Tensor:
    """A tensor; reasons why edgecnn does not support it are added to ``unsupported``."""
    name = _text(tensor.Name() or b"")
    place = f"{where}: tensor {index} ({name})"
    code = _names(schema.TensorType).get(tensor.Type(), "unknown")
    reasons = []
    if code not in _DTYPES:
        reasons.append(f"has type {code}; edgecnn supports {', '.join(_DTYPES)}")
    if tensor.Sparsity() is not None:
        reasons.append("is sparse, which edgecnn does not support; convert the model without sparsity")
    dtype = _DTYPES.get(code, "uint8")
    has_free = tensor.ShapeSignatureLength() == tensor.ShapeLength() and tensor.ShapeLength() > 0
    dims = tensor.ShapeSignatureAsNumpy() if has_free else (tensor.ShapeAsNumpy() if tensor.ShapeLength() else ())
    shape = tuple(int(size) for size in dims)
    if any(size < -1 for size in shape):
        raise ArtifactError(f"{place} has shape {shape}; sizes must be positive, or -1 if dynamic")
    if tensor.Buffer() >= root.BuffersLength():
        raise ArtifactError(f"{place} has its values in buffer {tensor.Buffer()} of {root.BuffersLength()}")
    stored = root.Buffers(tensor.Buffer())
    raw = stored.DataAsNumpy().tobytes() if stored is not None and stored.DataLength() else b""
    outside = stored is not None and stored.Offset() > 1
    if outside:
        reasons.append("has its values after the flatbuffer, which edgecnn does not support")
    unsupported += [f"tensor {index} ({name}) {reason}" for reason in reasons]
    data: NDArray[Any] | None = None
    if reasons:
        data = np.frombuffer(raw, np.uint8) if raw or outside else None
    elif raw:
        if -1 in shape or dtype == "resource":
            raise ArtifactError(f"{place} of shape {shape} is constant, but dynamic or a resource")
        count = math.prod(shape)
        wanted = (count + 1) // 2 if dtype == "int4" else count * np.dtype(dtype).itemsize
        if len(raw) != wanted:
            raise ArtifactError(f"{place} of shape {shape} has {len(raw)} bytes, expected {wanted}")
        data = (_unpacked(raw)[:count] if dtype == "int4" else np.frombuffer(raw, dtype)).reshape(shape)
    scale, zero_point, axis = np.empty(0, np.float32), np.empty(0, np.int64), 0
    quantization = tensor.Quantization()
    if quantization is not None and quantization.ScaleLength():
        scale = np.asarray(quantization.ScaleAsNumpy(), np.float32)
        zero_point = np.zeros(len(scale), np.int64)
        if quantization.ZeroPointLength():
            zero_point = np.asarray(quantization.ZeroPointAsNumpy(), np.int64)
        axis = int(quantization.QuantizedDimension()) if len(shape) > 1 else 0  # a bias may have the weights' axis
        _check_quantization(scale, zero_point, axis, shape, place)
        if not _holds(dtype, zero_point):
            raise ArtifactError(f"{place} has a zero point out of range of {dtype}")
    return Tensor(
        index=index, name=name, shape=shape, dtype=dtype, scale=scale, zero_point=zero_point, axis=axis, data=data,
        variable=bool(tensor.IsVariable()),
    )  # fmt: skip


def _check_quantization(
    scale: NDArray[np.float32], zero_point: NDArray[np.int64], axis: int, shape: tuple[int, ...], place: str
) -> None:
    if not (np.isfinite(scale).all() and (scale > 0).all()):
        raise ArtifactError(f"{place} has a scale that is zero, negative or not finite")
    if len(scale) != len(zero_point):
        raise ArtifactError(f"{place} has {len(scale)} scales and {len(zero_point)} zero points")
    if len(scale) > 1 and not (0 <= axis < len(shape) and shape[axis] == len(scale)):
        raise ArtifactError(f"{place} of shape {shape} has {len(scale)} scales along axis {axis}")


def _unpacked(raw: bytes) -> NDArray[np.int8]:
    """Integers of four bits, two in a byte, the first in its lower half."""
    packed = np.frombuffer(raw, np.int8)
    return np.stack([(packed << 4) >> 4, packed >> 4], axis=1).reshape(-1)


def _holds(dtype: str, values: NDArray[np.int64]) -> bool:
    if dtype == "int4":
        return bool(((values >= -8) & (values <= 7)).all())
    if dtype == "resource" or np.dtype(dtype).kind not in "iu":
        return True
    info = np.iinfo(dtype)
    return bool(((info.min <= values) & (values <= info.max)).all())


def _options(schema: Any, operator: Any) -> dict[str, Any]:
    """The operator's options, with the names of the schema's object API (strideW, padding, …)."""
    table = operator.BuiltinOptions()
    type_name = _names(schema.BuiltinOptions).get(operator.BuiltinOptionsType(), "NONE")
    if table is None or type_name == "NONE":
        return {}
    options = getattr(schema, type_name)()
    options.Init(table.Bytes, table.Pos)
    return dict(vars(getattr(schema, f"{type_name}T").InitFromObj(options)))


def _metadata(root: Any) -> dict[str, bytes]:
    found = {}
    for index in range(root.MetadataLength()):
        entry = root.Metadata(index)
        buffer = root.Buffers(entry.Buffer()) if entry.Buffer() < root.BuffersLength() else None
        if buffer is not None and buffer.DataLength():
            found[_text(entry.Name() or b"")] = buffer.DataAsNumpy().tobytes()
    return found


def _text(stored: bytes) -> str:
    """A name from the file, sanitised for display."""
    return shown(stored[:_LONGEST_NAME].decode(errors="replace"), NAME)


def _names(enum: Any) -> dict[int, str]:
    return {value: name for name, value in vars(enum).items() if isinstance(value, int)}
