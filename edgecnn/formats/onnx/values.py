"""The tensors of an int8 .tflite graph in an ONNX graph: quantised, dequantised or left in float (see ``qdq``)."""

import re
from collections.abc import Collection
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edgecnn.errors import UnsupportedError
from edgecnn.formats.onnx import saturation
from edgecnn.optional import require
from edgecnn.records import OnnxCpu, Quantization, TensorSpec
from edgecnn.samples import unlike
from edgecnn.tflite import operators as ops
from edgecnn.tflite.graph import Graph, Operator, Tensor
from edgecnn.tflite.operators import Limits, Operation, not_int8

CHANNELS_FIRST = (0, 3, 1, 2)
INTEGER = ("int8", "uint8")
# largest move of a zero point, in steps
_MOVED = 3


class Values:
    """The nodes and constants written so far, and the names of values."""

    def __init__(self, graph: Graph, in_float: Collection[int], unsigned: bool, cpu: OnnxCpu) -> None:
        self.graph = graph
        self.in_float = frozenset(in_float)
        self.unsigned = unsigned
        self.cpu = cpu
        self.helper = require("onnx").helper
        self.numpy_helper = require("onnx").numpy_helper
        self.names = value_names(graph)
        self.nodes: list[Any] = []
        self.made: dict[str, tuple[str, ...]] = {}  # output of a node -> its kind and inputs
        self.initializers: dict[str, Any] = {}
        self.consumers: dict[int, list[Operator]] = {}
        for operator in graph.operators:
            for index in operator.inputs:
                self.consumers.setdefault(index, []).append(operator)
        self.operations = [_supported(one) for one in ops.read(graph)]
        self.zero_points = self._zero_points()
        self.floats: dict[int, str] = {}  # tensor index -> name of its dequantised value
        self.unquantised: dict[int, str] = {}  # tensor index -> name of its value before it is quantised
        self.quantised: set[int] = set()  # tensors left in float that some operator needed quantised
        self.relus: dict[int, Limits] = {}  # limits to apply after a pooling

    def tensor(self, index: int) -> Tensor:
        """A tensor as in the file; its batch may be dynamic."""
        return self.graph.tensors[index]

    def inner_values(self) -> list[Any]:
        """Type and shape in the .tflite of tensors that are written as node outputs under their own names."""
        ends = (*self.graph.inputs, *self.graph.outputs)
        written = {operation.output.index: operation.output.dtype for operation in self.operations}
        inner = [
            tensor
            for tensor in self.graph.tensors
            if tensor.index not in ends and written.get(tensor.index) == tensor.dtype
        ]
        return [self.value_info(tensor) for tensor in inner if self.name(tensor) in self.made]

    def _dtype(self, tensor: Tensor) -> str:
        """The storage type of a tensor."""
        inner = tensor.data is None and tensor.index not in (*self.graph.inputs, *self.graph.outputs)
        return "uint8" if self.unsigned and inner and tensor.dtype == "int8" else tensor.dtype

    def value_info(self, tensor: Tensor) -> Any:
        """The type and shape of a tensor, as an onnx ``ValueInfoProto``."""
        onnx_type = self.helper.np_dtype_to_tensor_dtype(np.dtype(self._dtype(tensor)))
        shape = [size if size > 0 else "batch" for size in channels_first(tensor.shape)]
        return self.helper.make_tensor_value_info(self.name(tensor), onnx_type, shape)

    def name(self, tensor: Tensor) -> str:
        """The name of a stored tensor."""
        return self.names[tensor.index]

    def constant(self, name: str, value: NDArray[Any] | np.generic) -> str:
        """Add an initializer, once; returns its name."""
        if name not in self.initializers:
            self.initializers[name] = self.numpy_helper.from_array(np.asarray(value, order="C"), name)
        return name

    def node(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        """Add a node, unless it is there; returns its output's name."""
        if self.made.get(output) != (kind, *inputs):
            self.nodes.append(self.helper.make_node(kind, inputs, [output], name=f"{kind}:{output}", **attributes))
            self.made[output] = (kind, *inputs)
        return output

    def quantization(self, tensor: Tensor) -> list[str]:
        """Names of a tensor's scale and zero point."""
        dtype = self._dtype(tensor)
        zero_point = np.array(self._zero_point(tensor) + (128 if dtype != tensor.dtype else 0), dtype)
        return [
            self.constant(f"{self.name(tensor)}/scale", tensor.scale[0]),
            self.constant(f"{self.name(tensor)}/zero_point", zero_point),
        ]

    def _as_unsigned(self, tensor: Tensor, real: str, operation: Operation) -> str:
        """An int8 input or output as uint8 at ``operation``: runtimes do not fuse operators with mixed types."""
        if not self.unsigned or operation.position in self.in_float or tensor.dtype != "int8":
            return real
        quantization = [
            self.constant(f"{self.name(tensor)}/scale", tensor.scale[0]),
            self.constant(f"{self.name(tensor)}/unsigned", np.array(int(tensor.zero_point[0]) + 128, np.uint8)),
        ]
        stored = self.node("QuantizeLinear", [real, *quantization], f"{self.name(tensor)}/uint8")
        return self.node("DequantizeLinear", [stored, *quantization], f"{stored}/real")

    def _zero_point(self, tensor: Tensor) -> int:
        return self.zero_points.get(tensor.index, int(tensor.zero_point[0]))

    def read(self, operation: Operation, tensor: Tensor | None = None) -> str:
        """Name of the float value of an input, by default the first; constants get the layout of activations.

        Between two float operators it is not quantised.
        """
        tensor = tensor or operation.inputs[0]
        index = tensor.index
        if tensor.data is not None:
            return self.constant_activation(tensor, max(len(one.shape) for one in operation.inputs))
        if index in self.unquantised and operation.position in self.in_float:
            return self.unquantised[index]
        if index in self.floats:
            return self.floats[index]
        self._quantise(tensor)
        if tensor.dtype not in INTEGER:
            name = self.name(tensor)
        else:
            name = f"{self.name(tensor)}/real"
            self.node("DequantizeLinear", [self.name(tensor), *self.quantization(tensor)], name)
            if index in self.graph.inputs:
                name = self._as_unsigned(tensor, name, operation)
        self.floats[index] = name
        return name

    def stored(self, tensor: Tensor) -> str:
        """Name of the stored value of a quantised activation."""
        self._quantise(tensor)
        return self.name(tensor)

    def _quantise(self, tensor: Tensor) -> None:
        """Quantise a value that was left in float, once."""
        real = self.unquantised.get(tensor.index)
        if real is not None and tensor.index not in self.quantised:
            self.node("QuantizeLinear", [real, *self.quantization(tensor)], self.name(tensor))
            self.quantised.add(tensor.index)

    def first_stored(self, tensor: Tensor) -> int:
        """The lowest stored value of a quantised activation: -128 or 0."""
        return int(np.iinfo(self._dtype(tensor)).min)

    def order_stored(self, tensor: Tensor) -> NDArray[np.int64]:
        """For each stored value from the lowest on: the place of the same real value in the .tflite's order."""
        moved = int(tensor.zero_point[0]) - self._zero_point(tensor)
        return np.clip(np.arange(256) + moved, 0, 255)

    def constant_activation(self, tensor: Tensor, rank: int) -> str:
        """Float value of a constant operand, with axes aligned to activations of ``rank``; 0: as in the .tflite."""
        assert tensor.data is not None
        data, name = tensor.data, f"{self.name(tensor)}/constant"
        if rank == 4 and data.ndim:
            data = data.reshape((1,) * (4 - data.ndim) + data.shape).transpose(CHANNELS_FIRST)
            name = f"{name}/channels_first"
        self.constant(name, data)
        if tensor.dtype not in INTEGER:
            return name
        return self.node("DequantizeLinear", [name, *self.quantization(tensor)], f"{name}/real")

    def write(self, operation: Operation, real: str) -> None:
        """Apply the operation's limits to the float value ``real`` and quantise it into the output."""
        tensor, (low, high) = operation.output, operation.limits
        index, integer = tensor.index, tensor.dtype in INTEGER
        if operation.position in self.in_float and integer and index not in self.graph.outputs:
            self.unquantised[index] = self._clipped_behind_pooling(operation, real)
            return
        if low is not None and not (integer and self._saturates(tensor, low, high)):
            real = self._clip(real, low, high)
        if index in self.graph.outputs:
            real = self._as_unsigned(tensor, real, operation)
        if integer:
            self.node("QuantizeLinear", [real, *self.quantization(tensor)], self.name(tensor))
        else:
            self.node("Identity", [real], self.name(tensor))

    def _clipped_behind_pooling(self, operation: Operation, real: str) -> str:
        """Apply limits to a value that stays float, after a following max pooling if that is also float.

        The two commute. A ReLU there keeps ONNX Runtime from moving the next QuantizeLinear in front of the
        pooling, which its integer kernel computes several times slower.
        """
        index, limits, is_pooling = operation.output.index, operation.limits, operation.kind == "MAX_POOL_2D"
        if is_pooling and limits[0] is None:
            limits = self.relus.get(operation.inputs[0].index, limits)
        low, high = limits
        users = self.consumers.get(index, [])
        if low is None:
            return real
        pooled = not is_pooling and len(users) == 1 and users[0].kind == "MAX_POOL_2D"
        if pooled and users[0].position in self.in_float:
            self.relus[index] = limits
            return real
        return self._clip(real, low, high)

    def _saturates(self, tensor: Tensor, low: float, high: float | None) -> bool:
        """Whether quantising ``tensor`` already clips to [low, high]."""
        info = np.iinfo(tensor.dtype)
        step, zero = float(tensor.scale[0]), self._zero_point(tensor)
        smallest, largest = (info.min - zero) * step, (info.max - zero) * step
        return smallest >= low - step / 2 and (high is None or largest <= high + (_MOVED + 0.5) * step)

    def _clip(self, real: str, low: float, high: float | None) -> str:
        output = f"{real}/clipped"
        if low == 0 and high is None:
            return self.node("Relu", [real], output)
        bounds = [self.constant(f"bound{low:g}", np.float32(low))]
        if high is not None:
            bounds.append(self.constant(f"bound{high:g}", np.float32(high)))
        return self.node("Clip", [real, *bounds], output)

    def weights(self, operation: ops.Weighted, data: NDArray[Any], groups: int = 1) -> str:
        """Float value of weights with the layout of ``data``, outputs first."""
        weights, name = operation.weights, f"{operation.position}/weights"
        if operation.computes_in_float:
            return self.constant(name, data)
        if operation.position in self.in_float:
            operation.check_symmetric()
            return self._folded(name, data, weights.scale)
        inputs, attributes = self._stored_weights(operation, data, 0)
        if self.cpu == "any" and data.dtype == np.int8 and saturation.possible(data, groups):
            return self._exact_or_unsigned(inputs, attributes, f"{name}/real", data.shape)
        return self.node("DequantizeLinear", inputs, f"{name}/real", **attributes)

    def weights_along(self, operation: ops.Weighted, data: NDArray[Any], axis: int) -> str:
        """Float value of weights whose outputs are along ``axis``, for operators that runtimes compute in float."""
        if operation.computes_in_float:
            return self.constant(f"{operation.position}/weights", data)
        inputs, attributes = self._stored_weights(operation, data, axis)
        return self.node("DequantizeLinear", inputs, f"{operation.position}/weights/real", **attributes)

    def _stored_weights(
        self, operation: ops.Weighted, data: NDArray[Any], axis: int
    ) -> tuple[list[str], dict[str, int]]:
        """Inputs and attributes of DequantizeLinear for weights with the layout of ``data``."""
        weights, name = operation.weights, f"{operation.position}/weights"
        per_axis = len(weights.scale) > 1
        scale = weights.scale if per_axis else weights.scale[0]
        zero = (weights.zero_point if per_axis else weights.zero_point[0]).astype(data.dtype)
        inputs = [
            self.constant(name, data),
            self.constant(f"{name}/scale", scale),
            self.constant(f"{name}/zero_point", zero),
        ]
        return inputs, {"axis": axis} if per_axis else {}

    def _exact_or_unsigned(
        self, inputs: list[str], attributes: dict[str, int], output: str, shape: tuple[int, ...]
    ) -> str:
        """Float value of int8 weights, used as uint8 if the probe shows that sums saturate."""
        make, kinds = self.helper.make_node, require("onnx").TensorProto
        weights, scale, zero = inputs
        name = weights.removesuffix("/weights")
        raised = self.constant(
            f"{zero}/uint8", self.numpy_helper.to_array(self.initializers[zero]).astype(np.uint8) + 128
        )
        nodes = {
            "then": [make("DequantizeLinear", inputs, [f"{name}/int8"], **attributes)],
            "else": [
                make("Cast", [weights], [f"{name}/int32"], to=kinds.INT32),
                make("Add", [f"{name}/int32", self.constant("128", np.int32(128))], [f"{name}/raised"]),
                make("Cast", [f"{name}/raised"], [f"{name}/stored"], to=kinds.UINT8),
                make("DequantizeLinear", [f"{name}/stored", scale, raised], [f"{name}/uint8"], **attributes),
            ],
        }
        branches = {
            f"{branch}_branch": self.helper.make_graph(
                made, branch, [], [self.helper.make_tensor_value_info(made[-1].output[0], kinds.FLOAT, shape)]
            )
            for branch, made in nodes.items()
        }
        return self.node("If", [self._probe()], output, **branches)

    def _probe(self) -> str:
        """Name of a constant bool: whether this processor adds products of uint8 and int8 exactly."""
        if "exact" not in self.made:
            activations, weights, total = saturation.probe()
            operands = [self.constant("probe/uint8", activations), self.constant("probe/int8", weights)]
            products = self.node("MatMulInteger", operands, "probe/products")
            least = self.node("ReduceMin", [products], "probe/least", keepdims=0)
            self.node("Equal", [least, self.constant("probe/exact", np.int32(total))], "exact")
        return "exact"

    def _folded(self, name: str, data: NDArray[Any], scale: NDArray[np.float32]) -> str:
        """Float value of integer weights, by standard operators that runtimes fold, unlike DequantizeLinear."""
        cast = self.node("Cast", [self.constant(name, data)], f"{name}/cast", to=int(require("onnx").TensorProto.FLOAT))
        shape = (-1, *(1,) * (data.ndim - 1))
        return self.node("Mul", [cast, self.constant(f"{name}/scale", scale.reshape(shape))], f"{name}/real")

    def bias(self, operation: ops.Weighted) -> list[str]:
        """Float value of an operator's int32 bias, in a list; empty if there is none."""
        if operation.bias is None or operation.computes_in_float:
            return []
        # By the specification the bias scale is the product; some converters do not store it.
        with np.errstate(under="ignore"):
            scale = operation.inputs[0].scale[0] * operation.weights.scale
        name = f"{operation.position}/bias"
        if operation.position in self.in_float:
            return [self.constant(name, (operation.bias * scale).astype(np.float32))]
        per_axis = len(scale) > 1
        inputs = [
            self.constant(name, operation.bias),
            self.constant(f"{name}/scale", scale if per_axis else scale[0]),
        ]
        return [self.node("DequantizeLinear", inputs, f"{name}/real", **({"axis": 0} if per_axis else {}))]

    def float_bias(self, operation: ops.Weighted, real: str, axes: int = 0) -> str:
        """Add a float32 bias to ``real``, whose channels are followed by ``axes`` axes.

        It is a Sub of the negative bias: ONNX Runtime makes a MatMul and an Add one Gemm, and between two quantised
        values it quantises the weights of a Gemm or Conv, with one scale for all channels.
        """
        if not operation.computes_in_float or operation.bias is None:
            return real
        negative = self.constant(f"{operation.position}/bias", -operation.bias.reshape(-1, *(1,) * axes))
        return self.node("Sub", [real, negative], f"{real}/biased")

    def _zero_points(self) -> dict[int, int]:
        """New zero points by tensor index, for outputs of a fused ReLU and operators that pass them on unchanged."""
        moved: dict[int, int] = {}
        for operation in self.operations:
            tensor = operation.output
            if tensor.dtype not in INTEGER or tensor.index in self.graph.outputs:
                continue
            lowest = int(np.iinfo(tensor.dtype).min)
            relu = operation.limits[0] == 0 and not isinstance(operation, ops.Rescale)
            passed_on = operation.kind in ("MAX_POOL_2D", "RESHAPE") and operation.inputs[0].index in moved
            if passed_on or (relu and 0 < int(tensor.zero_point[0]) - lowest <= _MOVED):
                moved[tensor.index] = lowest
        return moved


def value_names(graph: Graph) -> tuple[str, ...]:
    """The name in ONNX of each tensor of the graph: "input" and "output", or their own if there are several.

    Tensors that are neither are called "t" and their index.
    """
    found: dict[int, str] = {}
    for kind, indices in (("input", graph.inputs), ("output", graph.outputs)):
        own = [re.sub(r"^(t\d+)$", r"\1_", graph.tensors[index].name) for index in indices]
        found |= dict(zip(indices, [kind] if len(indices) == 1 else own, strict=True))
    ends = dict(zip(found, unlike([*found.values()]), strict=True))
    return tuple(ends.get(tensor.index, f"t{tensor.index}") for tensor in graph.tensors)


# What no writer of ONNX has: state between runs, and values in an order for which C has one kernel.
ONLY_C = (ops.ArgExtreme, ops.AssignVariable, ops.Blocks, ops.L2Norm, ops.Lstm, ops.Mirror, ops.ReadVariable, ops.Svdf)


def _supported(one: Operation | UnsupportedError) -> Operation:
    if isinstance(one, UnsupportedError):
        raise one
    if isinstance(one, ONLY_C):
        raise UnsupportedError(f"{one} is not supported in int8 .onnx; use the .tflite file, or C")
    for tensor in (*one.inputs, one.output):
        if tensor.dtype == "int16":
            raise not_int8(one.operator, tensor)
    return one


def channels_first(shape: tuple[Any, ...]) -> tuple[Any, ...]:
    """The shape of a channels-last tensor when it is stored channels-first."""
    return tuple(shape[axis] for axis in CHANNELS_FIRST) if len(shape) == 4 else shape


def spec_of(tensor: Tensor, name: str) -> TensorSpec:
    """The TensorSpec of the ONNX graph's input or output ``name`` for ``tensor``."""
    quantization = None
    if len(tensor.scale):
        quantization = Quantization(scale=(float(tensor.scale[0]),), zero_point=(int(tensor.zero_point[0]),))
    shape = tuple(size if size > 0 else None for size in tensor.shape)
    return spec_for(name, shape, tensor.dtype, quantization)


def spec_for(
    name: str, shape: tuple[int | None, ...], dtype: str, quantization: Quantization | None = None
) -> TensorSpec:
    """The TensorSpec of the ONNX graph's input or output ``name``, whose ``shape`` is given channels last."""
    layout: Literal["NCHW", "NC"] = "NCHW" if len(shape) == 4 else "NC"
    return TensorSpec(name=name, shape=channels_first(shape), dtype=dtype, layout=layout, quantization=quantization)
