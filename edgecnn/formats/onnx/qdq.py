"""Writes an int8 .tflite graph as ONNX: the same integers and scales, standard operators, QDQ form.

Every activation stands between QuantizeLinear and DequantizeLinear, weights and biases are integer initializers
behind DequantizeLinear, so that a runtime can fuse each group into an integer kernel
(https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html, "QDQ format").

A fused relu must not stand between an operator and its QuantizeLinear, or runtimes cannot fuse the two. Where the
lowest integer does not stand for 0 already, the zero point is moved there by the step or two that quantisation-aware
training leaves below 0; only values that the .tflite saturates at the top can then differ, by those steps.

Operators may be left in float, where a runtime's integer kernel is slower. Their weights stay the same integers, behind
a Cast and a Mul that runtimes fold when they load the file; values between two float operators are not quantised.

On x86 without VNNI, ONNX Runtime's sums of uint8 x int8 products can saturate (``saturation.py``). Weights with which
they can are read in one of two forms: int8 where a small product of constants, the probe, comes out exact, else the
same integers as uint8 with zero point 128, whose kernels are exact everywhere but take up to twice the time with VNNI.
ONNX Runtime computes the probe and takes that branch when it loads the file: nothing of it is left to run.

TFLite is channels-last, ONNX channels-first: four-dimensional activations change their layout, and so do the
weights, at export. Flatten then yields another order, which is folded into the weights of the dense layer behind
it. TFLite operators: https://ai.google.dev/edge/litert/conversion/tensorflow/quantization/quantization_spec
"""

import math
from collections.abc import Callable, Collection
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edgecnn.errors import ArtifactError, UnsupportedError, one_line
from edgecnn.formats.onnx import saturation
from edgecnn.optional import require
from edgecnn.records import OnnxCpu, Quantization, TensorSpec
from edgecnn.tflite.graph import Graph, Operator, Tensor
from edgecnn.tflite.operators import axis_of, check, four_dimensions, shape_computations

_OPSET = 17
_IR_VERSION = 8
_CHANNELS_FIRST = (0, 3, 1, 2)
_CHANNELS_LAST = (0, 2, 3, 1)
# position of each channels-last axis in the channels-first layout
_AXIS = {0: 0, 1: 2, 2: 3, 3: 1}
_RANGE = {"RELU": (0.0, None), "RELU6": (0.0, 6.0), "RELU_N1_TO_1": (-1.0, 1.0)}
_INTEGER = ("int8", "uint8")
# steps that a zero point may be moved by
_MOVED = 3


def to_onnx(
    graph: Graph, name: str, in_float: Collection[int] = (), unsigned: bool = True, cpu: OnnxCpu = "any"
) -> Any:
    """The int8 ``graph`` as an onnx ``ModelProto``; ``name`` becomes the graph's name.

    ``in_float`` are the positions of operators to compute in float. ``unsigned`` stores int8 activations as uint8,
    128 higher like their zero points; input and output keep their type. On x86 ONNX Runtime has no integer kernels for
    int8 activations and computes most operators in float; on Arm it has both. ``cpu`` "any" gives a file that is right
    on every processor; "vnni" stores int8 weights alone, whose sums can saturate on x86 without VNNI.

    Raises:
        UnsupportedError: an operator or tensor type without counterpart, named with its place.
        ArtifactError: the graph is damaged: an operator whose tensors are missing or do not fit together.
    """
    check(graph, _WRITERS, "written to ONNX")
    return _Writer(graph, in_float, unsigned, cpu).model(name)


class _Writer:
    def __init__(self, graph: Graph, in_float: Collection[int], unsigned: bool, cpu: OnnxCpu) -> None:
        self.graph = graph
        self.in_float = frozenset(in_float)
        self.unsigned = unsigned
        self.cpu = cpu
        self.helper = require("onnx").helper
        self.numpy_helper = require("onnx").numpy_helper
        self.nodes: list[Any] = []
        self.initializers: dict[str, Any] = {}
        self.consumers: dict[int, list[Operator]] = {}
        for operator in graph.operators:
            for index in operator.inputs:
                self.consumers.setdefault(index, []).append(operator)
        self.zero_points = _zero_points(graph)
        self.floats: dict[int, str] = {}  # tensor index -> name of its dequantised value
        self.unquantised: dict[int, str] = {}  # tensor index -> name of its value before it is quantised
        self.relus: dict[int, tuple[float, float | None]] = {}  # limits still to be applied, behind a pooling
        self.flattened: dict[int, tuple[int, ...]] = {}  # flat tensor -> its (h, w, c), stored channels-first

    def model(self, name: str) -> Any:
        shape_only = shape_computations(self.graph)
        for operator in self.graph.operators:
            if operator.position in shape_only:
                continue
            write = _WRITERS.get(operator.kind)
            if write is None:
                raise UnsupportedError(
                    f"{operator} has no ONNX counterpart in edgecnn; known are: {', '.join(sorted(_WRITERS))}"
                )
            try:
                write(self, operator)
            except KeyError as error:
                raise ArtifactError(f"{operator} is damaged: its option {error} is missing") from error
            except (ArithmeticError, IndexError, TypeError, ValueError) as error:
                raise ArtifactError(f"{operator} is damaged: {one_line(error)}") from error
        helper, onnx = self.helper, require("onnx")
        graph = helper.make_graph(
            self.nodes,
            name,
            [self._value(self.tensor(index)) for index in self.graph.inputs],
            [self._value(self.tensor(index)) for index in self.graph.outputs],
            list(self.initializers.values()),
        )
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", _OPSET)],
            ir_version=_IR_VERSION,
            producer_name="edgecnn",
        )
        # only for the check, which then compares the shapes in the .tflite with those the operators give
        model.graph.value_info.extend(self._inner_values())
        try:
            onnx.checker.check_model(model, full_check=True)
        except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, ValueError) as error:
            raise ArtifactError(f"the graph is damaged, its parts do not fit together: {one_line(error)}") from error
        del model.graph.value_info[:]
        return model

    # Tensors

    def tensor(self, index: int) -> Tensor:
        return self.graph.tensors[index]

    def _inner_values(self) -> list[Any]:
        """What the .tflite says of the tensors that are written as nodes' outputs under their own names."""
        made = {node.output[0] for node in self.nodes}
        ends = (*self.graph.inputs, *self.graph.outputs)
        inner = [tensor for tensor in self.graph.tensors if tensor.index not in ends]
        return [self._value(tensor) for tensor in inner if self.name(tensor) in made]

    def _dtype(self, tensor: Tensor) -> str:
        """The type a tensor is stored as."""
        inner = tensor.data is None and tensor.index not in (*self.graph.inputs, *self.graph.outputs)
        return "uint8" if self.unsigned and inner and tensor.dtype == "int8" else tensor.dtype

    def _value(self, tensor: Tensor) -> Any:
        onnx_type = self.helper.np_dtype_to_tensor_dtype(np.dtype(self._dtype(tensor)))
        shape = [size if size > 0 else "batch" for size in channels_first(tensor.shape)]
        return self.helper.make_tensor_value_info(self.name(tensor), onnx_type, shape)

    def name(self, tensor: Tensor) -> str:
        if tensor.index in self.graph.inputs:
            return "input"
        if tensor.index in self.graph.outputs:
            return "output"
        return f"t{tensor.index}"

    def constant(self, name: str, value: NDArray[Any] | np.generic) -> str:
        if name not in self.initializers:
            self.initializers[name] = self.numpy_helper.from_array(np.asarray(value, order="C"), name)
        return name

    def node(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(self.helper.make_node(kind, inputs, [output], name=f"{kind}:{output}", **attributes))
        return output

    def _quantization(self, tensor: Tensor, operator: Operator) -> list[str]:
        if tensor.dtype not in _INTEGER or len(tensor.scale) != 1:
            raise UnsupportedError(
                f"{operator}: tensor {tensor.name!r} is {tensor.dtype} with {len(tensor.scale)} scales; only int8 "
                "activations with one scale can be written, convert the model with full int8 quantisation"
            )
        dtype = self._dtype(tensor)
        zero_point = np.array(self._zero_point(tensor) + (128 if dtype != tensor.dtype else 0), dtype)
        return [
            self.constant(f"{self.name(tensor)}/scale", tensor.scale[0]),
            self.constant(f"{self.name(tensor)}/zero_point", zero_point),
        ]

    def _as_unsigned(self, tensor: Tensor, real: str, operator: Operator) -> str:
        """An int8 input or output as uint8 where ``operator`` is, because runtimes fuse none between the two types."""
        if not self.unsigned or operator.position in self.in_float or tensor.dtype != "int8":
            return real
        quantization = [
            self.constant(f"{self.name(tensor)}/scale", tensor.scale[0]),
            self.constant(f"{self.name(tensor)}/unsigned", np.array(int(tensor.zero_point[0]) + 128, np.uint8)),
        ]
        stored = self.node("QuantizeLinear", [real, *quantization], f"{self.name(tensor)}/uint8")
        return self.node("DequantizeLinear", [stored, *quantization], f"{stored}/real")

    def _zero_point(self, tensor: Tensor) -> int:
        return self.zero_points.get(tensor.index, int(tensor.zero_point[0]))

    def read(self, index: int, operator: Operator) -> str:
        """Name of the float value of an activation or of a constant in the layout of activations.

        Between two operators in float it is not quantised on the way.
        """
        tensor = self.tensor(index)
        if index in self.unquantised and operator.position in self.in_float:
            return self.unquantised[index]
        if index in self.floats:
            return self.floats[index]
        if index in self.unquantised:
            self.node(
                "QuantizeLinear", [self.unquantised[index], *self._quantization(tensor, operator)], self.name(tensor)
            )
        if tensor.data is not None:
            name = self._constant_activation(tensor, operator)
        elif tensor.dtype == "float32":
            name = self.name(tensor)
        else:
            name = f"{self.name(tensor)}/real"
            self.node("DequantizeLinear", [self.name(tensor), *self._quantization(tensor, operator)], name)
            if index in self.graph.inputs:
                name = self._as_unsigned(tensor, name, operator)
        self.floats[index] = name
        return name

    def _constant_activation(self, tensor: Tensor, operator: Operator) -> str:
        """A constant operand of an elementwise operator, with its axes where the activations have theirs."""
        assert tensor.data is not None
        data = tensor.data
        rank = max(len(self.tensor(index).shape) for index in operator.inputs)
        if rank == 4 and data.ndim:
            data = data.reshape((1,) * (4 - data.ndim) + data.shape).transpose(_CHANNELS_FIRST)
        name = f"{self.name(tensor)}/constant"
        if tensor.dtype == "float32":
            return self.constant(name, data)
        real = f"{self.name(tensor)}/real"
        self.constant(name, data)
        return self.node("DequantizeLinear", [name, *self._quantization(tensor, operator)], real)

    def write(self, index: int, real: str, operator: Operator, activation: int = 0) -> None:
        """Apply the fused ``activation`` to the float value ``real`` and quantise it into tensor ``index``."""
        tensor = self.tensor(index)
        low, high = _limits(activation, operator)
        integer = tensor.dtype in _INTEGER
        if operator.position in self.in_float and integer and index not in self.graph.outputs:
            self.unquantised[index] = self._clipped_behind_pooling(index, real, low, high, operator)
            return
        if low is not None and not (integer and self._saturates(tensor, low, high)):
            real = self._clip(real, low, high)
        if index in self.graph.outputs:
            real = self._as_unsigned(tensor, real, operator)
        if integer:
            self.node("QuantizeLinear", [real, *self._quantization(tensor, operator)], self.name(tensor))
        else:
            self.node("Identity", [real], self.name(tensor))

    def _clipped_behind_pooling(
        self, index: int, real: str, low: float | None, high: float | None, operator: Operator
    ) -> str:
        """Apply limits to a value that stays float, behind the max pooling that follows if that is float as well.

        The two commute. A relu there keeps ONNX Runtime from moving the next QuantizeLinear in front of the
        pooling, which its integer kernel computes several times slower.
        """
        if operator.kind == "MAX_POOL_2D" and low is None:
            low, high = self.relus.get(operator.inputs[0], (None, None))
        users = self.consumers.get(index, [])
        if low is None:
            return real
        pooled = operator.kind != "MAX_POOL_2D" and len(users) == 1 and users[0].kind == "MAX_POOL_2D"
        if pooled and users[0].position in self.in_float:
            self.relus[index] = (low, high)
            return real
        return self._clip(real, low, high)

    def _saturates(self, tensor: Tensor, low: float, high: float | None) -> bool:
        """Whether the integers of ``tensor`` cannot leave [low, high], so that quantising already clips."""
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

    def weights(self, index: int, data: NDArray[Any], axis: int, operator: Operator) -> str:
        """Float value of an int8 weight whose layout was changed to ``data`` with its scales along ``axis``."""
        tensor = self.tensor(index)
        name = f"{operator.position}/weights"
        if tensor.dtype not in _INTEGER or not len(tensor.scale):
            raise UnsupportedError(f"{operator}: its weights are {tensor.dtype}, int8 with a scale is needed")
        per_axis = len(tensor.scale) > 1
        wanted = 3 if operator.kind == "DEPTHWISE_CONV_2D" else 0
        if per_axis and tensor.axis != wanted:
            raise ArtifactError(f"{operator}: its weights have scales along axis {tensor.axis}, not {wanted}")
        if operator.position in self.in_float:
            return self._folded(name, data, tensor, axis, operator)
        scale = tensor.scale if per_axis else tensor.scale[0]
        zero = (tensor.zero_point if per_axis else tensor.zero_point[0]).astype(tensor.dtype)
        inputs = [
            self.constant(name, data),
            self.constant(f"{name}/scale", scale),
            self.constant(f"{name}/zero_point", zero),
        ]
        attributes = {"axis": axis} if per_axis else {}
        if self.cpu == "any" and tensor.dtype == "int8" and saturation.possible(data, self._groups(operator)):
            return self._exact_or_unsigned(inputs, attributes, f"{name}/real", data.shape)
        return self.node("DequantizeLinear", inputs, f"{name}/real", **attributes)

    def _groups(self, operator: Operator) -> int:
        return self.tensor(operator.inputs[0]).shape[3] if operator.kind == "DEPTHWISE_CONV_2D" else 1

    def _exact_or_unsigned(
        self, inputs: list[str], attributes: dict[str, int], output: str, shape: tuple[int, ...]
    ) -> str:
        """Float value of int8 weights, read as uint8 where the probe says that sums saturate."""
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
        if "exact" not in {node.output[0] for node in self.nodes}:
            activations, weights, total = saturation.probe()
            operands = [self.constant("probe/uint8", activations), self.constant("probe/int8", weights)]
            products = self.node("MatMulInteger", operands, "probe/products")
            least = self.node("ReduceMin", [products], "probe/least", keepdims=0)
            self.node("Equal", [least, self.constant("probe/exact", np.int32(total))], "exact")
        return "exact"

    def _folded(self, name: str, data: NDArray[Any], tensor: Tensor, axis: int, operator: Operator) -> str:
        """Float value of an integer weight by standard operators that runtimes fold, unlike DequantizeLinear."""
        if tensor.zero_point.any():
            raise UnsupportedError(f"{operator}: its weights have a zero point, which int8 weights must not have")
        shape = [-1 if position == axis else 1 for position in range(data.ndim)]
        cast = self.node("Cast", [self.constant(name, data)], f"{name}/cast", to=int(require("onnx").TensorProto.FLOAT))
        scale = self.constant(f"{name}/scale", tensor.scale.reshape(shape))
        return self.node("Mul", [cast, scale], f"{name}/real")

    def bias(self, operator: Operator, channels: int) -> list[str]:
        """Float value of an operator's int32 bias, in a list that is empty where there is none."""
        if len(operator.inputs) < 3 or operator.inputs[2] < 0:
            return []
        tensor = self.tensor(operator.inputs[2])
        if tensor.data is None or tensor.dtype != "int32":
            raise UnsupportedError(f"{operator}: its bias is {tensor.dtype}, a constant int32 is needed")
        if tensor.data.size != channels:
            raise ArtifactError(f"{operator}: its bias has {tensor.data.size} values for {channels} channels")
        source, weights = self.tensor(operator.inputs[0]), self.tensor(operator.inputs[1])
        if len(source.scale) != 1:
            raise UnsupportedError(f"{operator}: its bias is int32, and its input {source.name!r} not quantised")
        # By the specification the bias scale is the product; some converters do not store it.
        with np.errstate(over="ignore", under="ignore"):
            scale = source.scale[0] * weights.scale
        if not np.isfinite(scale).all():  # down to 0 it may go: what it scales then is below any float
            raise ArtifactError(f"{operator}: the product of its input's and weights' scales is no float32")
        name = f"{operator.position}/bias"
        if operator.position in self.in_float:
            return [self.constant(name, (tensor.data.reshape(channels) * scale).astype(np.float32))]
        per_axis = len(scale) > 1
        inputs = [
            self.constant(name, tensor.data.reshape(channels)),
            self.constant(f"{name}/scale", scale if per_axis else scale[0]),
        ]
        return [self.node("DequantizeLinear", inputs, f"{name}/real", **({"axis": 0} if per_axis else {}))]

    # Operators

    def convolution(self, operator: Operator) -> None:
        options = operator.options
        source, weights = (self.tensor(index) for index in operator.inputs[:2])
        if weights.data is None:
            raise UnsupportedError(f"{operator}: its weights are not constant")
        four_dimensions(operator, source, weights)
        if operator.kind == "CONV_2D":
            data = weights.data.transpose(_CHANNELS_FIRST)  # (out, h, w, in) -> (out, in, h, w)
        else:
            data = weights.data.transpose(3, 0, 1, 2)  # (1, h, w, out) -> (out, 1, h, w)
        channels = source.shape[3]
        groups = channels // data.shape[1] if data.size else 0
        if groups < 1 or channels % groups or len(data) % groups or data.shape[1] * groups != channels:
            raise ArtifactError(f"{operator}: weights of shape {weights.shape} do not fit {channels} channels")
        kernel = data.shape[2:]
        strides = operator.counts("strideH", "strideW")
        dilations = operator.counts("dilationHFactor", "dilationWFactor")
        inputs = [
            self.read(operator.inputs[0], operator),
            self.weights(operator.inputs[1], data, 0, operator),
            *self.bias(operator, len(data)),
        ]
        real = self.node(
            "Conv",
            inputs,
            f"{self.name(self.tensor(operator.outputs[0]))}/conv",
            kernel_shape=list(kernel),
            strides=strides,
            dilations=dilations,
            group=groups,
            pads=_pads(operator, source, kernel, strides, dilations),
        )
        self.write(operator.outputs[0], real, operator, options["fusedActivationFunction"])

    def dense(self, operator: Operator) -> None:
        source, weights = (self.tensor(index) for index in operator.inputs[:2])
        output = self.tensor(operator.outputs[0])
        if weights.data is None:
            raise UnsupportedError(f"{operator}: its weights are not constant")
        data = weights.data  # (out, in)
        if operator.options["weightsFormat"] != 0:
            raise UnsupportedError(f"{operator}: weights in shuffled order are not written to ONNX")
        if data.ndim != 2 or not data.size or math.prod(source.shape[1:]) % data.shape[1]:
            raise ArtifactError(f"{operator}: weights of shape {data.shape} do not fit its input {source.shape}")
        if operator.inputs[0] in self.flattened:
            height, width, channels = self.flattened[operator.inputs[0]]
            data = data.reshape(-1, height, width, channels).transpose(_CHANNELS_FIRST).reshape(data.shape)
        real = self.read(operator.inputs[0], operator)
        if len(source.shape) != 2:
            real = self._reshape(self._as_channels_last(real, source), (-1, data.shape[1]))
        real = self.node(
            "Gemm",
            [real, self.weights(operator.inputs[1], data, 0, operator), *self.bias(operator, len(data))],
            f"{self.name(output)}/dense",
            transB=1,
        )
        if len(output.shape) != 2:
            raise UnsupportedError(f"{operator}: a dense layer on more than two dimensions is not written to ONNX")
        self.write(operator.outputs[0], real, operator, operator.options["fusedActivationFunction"])

    def pool(self, operator: Operator) -> None:
        options = operator.options
        source = self.tensor(operator.inputs[0])
        four_dimensions(operator, source)
        kernel = operator.counts("filterHeight", "filterWidth")
        strides = operator.counts("strideH", "strideW")
        attributes = {
            "kernel_shape": kernel,
            "strides": strides,
            "pads": _pads(operator, source, kernel, strides, [1, 1]),
        }
        kind = "MaxPool" if operator.kind == "MAX_POOL_2D" else "AveragePool"  # neither counts the padding
        real = self.node(kind, [self.read(operator.inputs[0], operator)], self._real(operator), **attributes)
        self.write(operator.outputs[0], real, operator, options["fusedActivationFunction"])

    def mean(self, operator: Operator) -> None:
        source = self.tensor(operator.inputs[0])
        axes = self._integers(operator, 1)
        keep = bool(operator.options["keepDims"])
        axes = sorted({axis_of(operator, axis, source) for axis in axes})
        four = len(source.shape) == 4
        if four and not keep and axes != [1, 2]:
            raise UnsupportedError(f"{operator}: a mean over axes {axes} without keeping them is not written to ONNX")
        if four and axes == [1, 2]:
            self._global_average(operator, keep)
            return
        real = self.node(
            "ReduceMean",
            [self.read(operator.inputs[0], operator)],
            self._real(operator),
            axes=[_AXIS[axis] if four else axis for axis in axes],
            keepdims=int(keep),
        )
        self.write(operator.outputs[0], real, operator)

    def _global_average(self, operator: Operator, keep: bool) -> None:
        """A mean over height and width, quantised before it loses these axes: so runtimes have an integer kernel."""
        output = self.tensor(operator.outputs[0])
        real = self.node("GlobalAveragePool", [self.read(operator.inputs[0], operator)], self._real(operator))
        if not keep:
            if operator.position not in self.in_float and output.dtype in _INTEGER:
                quantization = self._quantization(output, operator)
                stored = self.node("QuantizeLinear", [real, *quantization], f"{real}/quantised")
                real = self.node("DequantizeLinear", [stored, *quantization], f"{stored}/real")
            real = self.node("Flatten", [real], f"{real}/flat", axis=1)
        self.write(operator.outputs[0], real, operator)

    def binary(self, operator: Operator) -> None:
        for index in operator.inputs:
            tensor = self.tensor(index)
            if tensor.data is None and len(tensor.shape) != len(self.tensor(operator.outputs[0]).shape):
                raise UnsupportedError(f"{operator}: operands of different rank are not written to ONNX")
        kind = {"ADD": "Add", "MUL": "Mul", "SUB": "Sub"}[operator.kind]
        inputs = [self.read(index, operator) for index in operator.inputs]
        real = self.node(kind, inputs, self._real(operator))
        self.write(operator.outputs[0], real, operator, operator.options["fusedActivationFunction"])

    def unary(self, operator: Operator) -> None:
        kind, attributes = _UNARY[operator.kind]
        tensor = self.tensor(operator.inputs[0])
        if operator.kind == "SOFTMAX":
            if operator.options["beta"] != 1:
                raise UnsupportedError(f"{operator}: a softmax with a beta other than 1 is not written to ONNX")
            if len(tensor.shape) == 4:
                attributes = {"axis": 1}
        real = self.node(kind, [self.read(operator.inputs[0], operator)], self._real(operator), **attributes)
        self.write(operator.outputs[0], real, operator)

    def leaky_relu(self, operator: Operator) -> None:
        source, alpha = self.read(operator.inputs[0], operator), float(operator.options["alpha"])
        if not math.isfinite(alpha):
            raise ArtifactError(f"{operator}: its alpha is {alpha}")
        real = self.node("LeakyRelu", [source], self._real(operator), alpha=alpha)
        self.write(operator.outputs[0], real, operator)

    def clip(self, operator: Operator) -> None:
        code = {"RELU": 1, "RELU_N1_TO_1": 2, "RELU6": 3}[operator.kind]
        self.write(operator.outputs[0], self.read(operator.inputs[0], operator), operator, code)

    def convert(self, operator: Operator) -> None:
        """QUANTIZE and DEQUANTIZE: read gives the float value, write takes it."""
        self.write(operator.outputs[0], self.read(operator.inputs[0], operator), operator)

    def pad(self, operator: Operator) -> None:
        pairs = np.asarray(self._integers(operator, 1)).reshape(-1, 2)
        rank = len(self.tensor(operator.inputs[0]).shape)
        if len(pairs) != rank or (pairs < 0).any():
            raise ArtifactError(f"{operator}: paddings {pairs.tolist()} do not fit {rank} dimensions")
        if len(pairs) == 4:
            pairs = pairs[list(_CHANNELS_FIRST)]
        pads = self.constant(f"{operator.position}/pads", pairs.T.reshape(-1).astype(np.int64))
        inputs = [self.read(operator.inputs[0], operator), pads]
        if len(operator.inputs) > 2:
            inputs.append(self.read(operator.inputs[2], operator))
        self.write(operator.outputs[0], self.node("Pad", inputs, self._real(operator)), operator)

    def tile(self, operator: Operator) -> None:
        repeats = np.array(self._integers(operator, 1), np.int64)
        rank = len(self.tensor(operator.inputs[0]).shape)
        if len(repeats) != rank or (repeats < 1).any():
            raise ArtifactError(f"{operator}: repeats {repeats.tolist()} do not fit {rank} dimensions")
        if len(repeats) == 4:
            repeats = repeats[list(_CHANNELS_FIRST)]
        times = self.constant(f"{operator.position}/repeats", repeats)
        real = self.node("Tile", [self.read(operator.inputs[0], operator), times], self._real(operator))
        self.write(operator.outputs[0], real, operator)

    def concatenation(self, operator: Operator) -> None:
        output = self.tensor(operator.outputs[0])
        axis = axis_of(operator, operator.options["axis"], output)
        if any(len(self.tensor(index).shape) != len(output.shape) for index in operator.inputs):
            raise ArtifactError(f"{operator}: its inputs have not all {len(output.shape)} dimensions")
        inputs = [self.read(index, operator) for index in operator.inputs]
        real = self.node("Concat", inputs, self._real(operator), axis=_AXIS[axis] if len(output.shape) == 4 else axis)
        self.write(operator.outputs[0], real, operator, operator.options["fusedActivationFunction"])

    def resize(self, operator: Operator) -> None:
        source, target = self.tensor(operator.inputs[0]), self._integers(operator, 1)
        four_dimensions(operator, source)
        if len(target) != 2 or min(target) < 1:
            raise ArtifactError(f"{operator}: it resizes to {target}, a height and a width are needed")
        height, width = target
        sizes = np.array([source.shape[0], source.shape[3], height, width], np.int64)
        if source.shape[0] < 1:
            raise UnsupportedError(f"{operator}: resizing is written to ONNX for a fixed batch only")
        aligned, half = operator.options["alignCorners"], operator.options["halfPixelCenters"]
        mode = "align_corners" if aligned else "half_pixel" if half else "asymmetric"
        attributes = {"mode": "linear", "coordinate_transformation_mode": mode}
        if operator.kind == "RESIZE_NEAREST_NEIGHBOR":
            # TFLite takes floor((x + 0.5) * scale), floor(x * scale), or rounds where corners are aligned
            nearest = "round_prefer_ceil" if aligned or half else "floor"
            attributes |= {"mode": "nearest", "nearest_mode": nearest}
        inputs = [
            self.read(operator.inputs[0], operator),
            "",
            "",
            self.constant(f"{operator.position}/sizes", sizes),
        ]
        self.write(operator.outputs[0], self.node("Resize", inputs, self._real(operator), **attributes), operator)

    def reshape(self, operator: Operator) -> None:
        source, output = self.tensor(operator.inputs[0]), self.tensor(operator.outputs[0])
        sizes = (*source.shape, *output.shape)
        if min(sizes, default=1) > 0 and math.prod(source.shape) != math.prod(output.shape):
            raise ArtifactError(f"{operator}: {source.shape} cannot become {output.shape}")
        real = self.read(operator.inputs[0], operator)
        if not _same_order(source.shape):
            users = self.consumers.get(output.index, [])
            if len(output.shape) == 2 and users and all(user.kind == "FULLY_CONNECTED" for user in users):
                self.flattened[output.index] = source.shape[1:]
            else:
                real = self._as_channels_last(real, source)
        shape = _with_free_batch(output.shape, source.shape, operator)
        if _same_order(output.shape):
            self.write(output.index, self._reshape(real, channels_first(shape), self._real(operator)), operator)
            return
        flat = self._reshape(real, shape)
        real = self.node("Transpose", [flat], self._real(operator), perm=list(_CHANNELS_FIRST))
        self.write(output.index, real, operator)

    def transpose(self, operator: Operator) -> None:
        order = list(self._integers(operator, 1))
        source = self.tensor(operator.inputs[0])
        if sorted(order) != list(range(len(source.shape))):
            raise ArtifactError(f"{operator}: {order} is no order of {len(source.shape)} dimensions")
        if len(source.shape) == 4:  # conjugate the permutation with the change of layout
            order = [_AXIS[order[_CHANNELS_FIRST[position]]] for position in range(4)]
        real = self.node("Transpose", [self.read(operator.inputs[0], operator)], self._real(operator), perm=order)
        self.write(operator.outputs[0], real, operator)

    # Helpers

    def _real(self, operator: Operator) -> str:
        return f"{self.name(self.tensor(operator.outputs[0]))}/{operator.kind.lower()}"

    def _reshape(self, real: str, shape: tuple[int, ...], output: str | None = None) -> str:
        output = output or f"{real}/reshaped"
        return self.node("Reshape", [real, self.constant(f"{output}/shape", np.array(shape, np.int64))], output)

    def _as_channels_last(self, real: str, tensor: Tensor) -> str:
        if len(tensor.shape) != 4:
            return real
        return self.node("Transpose", [real], f"{real}/channels_last", perm=list(_CHANNELS_LAST))

    def _integers(self, operator: Operator, position: int) -> list[int]:
        tensor = self.tensor(operator.inputs[position])
        data = tensor.data
        if data is None or tensor.dtype not in ("int32", "int64"):
            raise UnsupportedError(f"{operator}: tensor {tensor.name!r} is no constant of int32 or int64")
        return [int(value) for value in np.atleast_1d(data).reshape(-1)]


def channels_first(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of a channels-last tensor when it is stored channels-first."""
    return tuple(shape[axis] for axis in _CHANNELS_FIRST) if len(shape) == 4 else shape


def spec_of(tensor: Tensor, name: str) -> TensorSpec:
    """What the ONNX graph's input or output called ``name`` is that stands for ``tensor``."""
    shape = tuple(size if size > 0 else None for size in channels_first(tensor.shape))
    quantization = None
    if len(tensor.scale):
        quantization = Quantization(scale=(float(tensor.scale[0]),), zero_point=(int(tensor.zero_point[0]),))
    layout: Literal["NCHW", "NC"] = "NCHW" if len(shape) == 4 else "NC"
    return TensorSpec(name=name, shape=shape, dtype=tensor.dtype, layout=layout, quantization=quantization)


def _same_order(shape: tuple[int, ...]) -> bool:
    """Whether a tensor of this channels-last shape has its values in the same order channels-first."""
    return len(shape) != 4 or shape[3] == 1 or shape[1] * shape[2] == 1


def _with_free_batch(shape: tuple[int, ...], source: tuple[int, ...], operator: Operator) -> tuple[int, ...]:
    """Target of a Reshape with -1 for the free batch and every other size known."""
    unknown = [position for position, size in enumerate(shape) if size < 1]
    if unknown in ([], [0]):
        return tuple(-1 if size < 1 else size for size in shape)
    if len(shape) == 2 and min(source[1:]) > 0:
        return (-1, int(np.prod(source[1:])))
    raise UnsupportedError(f"{operator}: its target shape {shape} is not known; export with a fixed batch")


def _pads(operator: Operator, source: Tensor, kernel: Any, strides: list[int], dilations: list[int]) -> list[int]:
    """Explicit ONNX pads [top, left, bottom, right] of TFLite's SAME (0, the odd one behind) or VALID (1)."""
    padding = operator.options["padding"]
    if padding == 1:
        return [0, 0, 0, 0]
    if padding != 0:
        raise ArtifactError(f"{operator}: padding {padding} is neither SAME nor VALID")
    if min(source.shape[1:3]) < 1:
        raise UnsupportedError(f"{operator}: padding SAME is written to ONNX for a fixed height and width only")
    before, after = [], []
    for size, width, stride, dilation in zip(source.shape[1:3], kernel, strides, dilations, strict=True):
        total = max((-(-size // stride) - 1) * stride + (width - 1) * dilation + 1 - size, 0)
        before.append(total // 2)
        after.append(total - total // 2)
    return [*before, *after]


def _limits(activation: int, operator: Operator) -> tuple[float | None, float | None]:
    names = {1: "RELU", 2: "RELU_N1_TO_1", 3: "RELU6"}
    if activation == 0:
        return None, None
    if activation not in names:
        raise UnsupportedError(f"{operator}: fused activation {activation} is not written to ONNX")
    return _RANGE[names[activation]]


def _zero_points(graph: Graph) -> dict[int, int]:
    """New zero points for outputs of a fused relu, and for what passes them on unchanged, by tensor index."""
    moved: dict[int, int] = {}
    for operator in graph.operators:
        tensor = graph.tensors[operator.outputs[0]]
        if tensor.dtype not in _INTEGER or len(tensor.scale) != 1 or tensor.index in graph.outputs:
            continue
        lowest = int(np.iinfo(tensor.dtype).min)
        relu = operator.options.get("fusedActivationFunction", 0) in (1, 3)
        passed_on = operator.kind in ("MAX_POOL_2D", "RESHAPE") and operator.inputs[0] in moved
        if passed_on or (relu and 0 < int(tensor.zero_point[0]) - lowest <= _MOVED):
            moved[tensor.index] = lowest
    return moved


_UNARY: dict[str, tuple[str, dict[str, Any]]] = {
    "SOFTMAX": ("Softmax", {"axis": -1}),
    "LOGISTIC": ("Sigmoid", {}),
    "HARD_SWISH": ("HardSwish", {}),
    "TANH": ("Tanh", {}),
}

_WRITERS: dict[str, Callable[[_Writer, Operator], None]] = {
    "ADD": _Writer.binary,
    "AVERAGE_POOL_2D": _Writer.pool,
    "CONCATENATION": _Writer.concatenation,
    "CONV_2D": _Writer.convolution,
    "DEPTHWISE_CONV_2D": _Writer.convolution,
    "DEQUANTIZE": _Writer.convert,
    "FULLY_CONNECTED": _Writer.dense,
    "HARD_SWISH": _Writer.unary,
    "LEAKY_RELU": _Writer.leaky_relu,
    "LOGISTIC": _Writer.unary,
    "MAX_POOL_2D": _Writer.pool,
    "MEAN": _Writer.mean,
    "MUL": _Writer.binary,
    "PAD": _Writer.pad,
    "PADV2": _Writer.pad,
    "QUANTIZE": _Writer.convert,
    "RELU": _Writer.clip,
    "RELU6": _Writer.clip,
    "RELU_N1_TO_1": _Writer.clip,
    "RESHAPE": _Writer.reshape,
    "RESIZE_BILINEAR": _Writer.resize,
    "RESIZE_NEAREST_NEIGHBOR": _Writer.resize,
    "SOFTMAX": _Writer.unary,
    "SQUEEZE": _Writer.reshape,
    "SUB": _Writer.binary,
    "TANH": _Writer.unary,
    "TILE": _Writer.tile,
    "TRANSPOSE": _Writer.transpose,
}
