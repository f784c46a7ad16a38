"""Write an int8 .tflite graph as ONNX: the same integers and scales, standard operators, QDQ form.

Every activation is between QuantizeLinear and DequantizeLinear. Weights and biases are integer initializers followed by
DequantizeLinear, so a runtime can fuse each group into an integer kernel
(https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html, "QDQ format").

A ReLU between an operator and its QuantizeLinear would prevent fusion. If the lowest integer does not represent 0, the
zero point is moved there, by the step or two that quantisation-aware training leaves below 0. Then only values that the
.tflite saturates at the top can differ, by these steps.

Operators may be left in float if a runtime's integer kernel is slower. Their weights stay the same integers, followed
by a Cast and a Mul that runtimes fold at load; values between two float operators are not quantised.

On x86 without VNNI, ONNX Runtime's sums of uint8 x int8 products can saturate (``saturation.py``). Weights
that allow this are used in one of two forms: int8 if a small product of constants, the probe, is exact, else the same
values as uint8 with zero point 128, whose kernels are exact everywhere but take up to twice the time with VNNI. ONNX
Runtime computes the probe and selects the branch at load, so neither remains at run time.

TFLite is channels-last, ONNX channels-first: export changes the layout of four-dimensional activations and of weights.
The different order after Flatten is folded into the weights of the following dense layer. TFLite operators:
https://ai.google.dev/edge/litert/conversion/tensorflow/quantization/quantization_spec
"""

import math
from collections.abc import Callable, Collection
from typing import Any

import numpy as np

from edgecnn.errors import ArtifactError, UnsupportedError, one_line
from edgecnn.formats.onnx.values import CHANNELS_FIRST, INTEGER, Values, channels_first
from edgecnn.optional import require
from edgecnn.records import OnnxCpu
from edgecnn.tflite import operators as ops
from edgecnn.tflite.graph import Graph, Tensor
from edgecnn.tflite.operators import Operation

_OPSET = 17
_IR_VERSION = 8
_SQRT_2_PI = math.sqrt(2 / math.pi)
_CHANNELS_LAST = (0, 2, 3, 1)
_BEFORE_FIRST = -(2**31)
_BINARY = {
    "ADD": "Add", "DIV": "Div", "EQUAL": "Equal", "GREATER": "Greater", "GREATER_EQUAL": "GreaterOrEqual",
    "LESS": "Less", "LESS_EQUAL": "LessOrEqual", "LOGICAL_AND": "And", "LOGICAL_OR": "Or", "MAXIMUM": "Max",
    "MINIMUM": "Min", "MUL": "Mul", "POW": "Pow", "PRELU": "PRelu", "SUB": "Sub",
}  # fmt: skip
_UNARY = {
    "ABS": "Abs", "CEIL": "Ceil", "COS": "Cos", "ELU": "Elu", "EXP": "Exp", "FLOOR": "Floor", "HARD_SWISH": "HardSwish",
    "LOG": "Log", "LOGICAL_NOT": "Not", "LOGISTIC": "Sigmoid", "NEG": "Neg", "ROUND": "Round", "SIGN": "Sign",
    "SIN": "Sin", "SQRT": "Sqrt", "TANH": "Tanh",
}  # fmt: skip
_REDUCTIONS = {
    "MEAN": "ReduceMean", "REDUCE_ANY": "ReduceMax", "REDUCE_MAX": "ReduceMax", "REDUCE_MIN": "ReduceMin",
    "REDUCE_PROD": "ReduceProd", "SUM": "ReduceSum",
}  # fmt: skip
# channels-last axis -> channels-first axis
_AXIS = {0: 0, 1: 2, 2: 3, 3: 1}


def to_onnx(
    graph: Graph, name: str, in_float: Collection[int] = (), unsigned: bool = True, cpu: OnnxCpu = "any"
) -> Any:
    """The int8 ``graph`` as an onnx ``ModelProto``; ``name`` becomes the graph's name.

    ``in_float`` are the positions of operators to compute in float. ``unsigned`` stores int8 activations as uint8, with
    values and zero points plus 128; input and output keep their type. On x86 ONNX Runtime has no integer kernels for
    int8 activations and computes most operators in float; on Arm it has both. With ``cpu`` "any" the file is correct on
    every processor; "vnni" stores only int8 weights, whose sums can saturate on x86 without VNNI.

    Raises:
        UnsupportedError: an operator or tensor type has no ONNX counterpart; the message has its position.
        ArtifactError: the graph is damaged: an operator whose tensors are missing or do not fit together.
    """
    return _Writer(graph, in_float, unsigned, cpu).model(name)


class _Writer(Values):
    def __init__(self, graph: Graph, in_float: Collection[int], unsigned: bool, cpu: OnnxCpu) -> None:
        super().__init__(graph, in_float, unsigned, cpu)
        self.flattened: dict[int, tuple[int, ...]] = {}  # flat tensor -> its (h, w, c), stored channels-first

    def model(self, name: str) -> Any:
        for operation in self.operations:
            with ops.damage_of(operation.operator):
                _WRITERS[type(operation)](self, operation)
        helper, onnx = self.helper, require("onnx")
        graph = helper.make_graph(
            self.nodes,
            name,
            [self.value_info(self.tensor(index)) for index in self.graph.inputs],
            [self.value_info(self.tensor(index)) for index in self.graph.outputs],
            list(self.initializers.values()),
        )
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", _OPSET)],
            ir_version=_IR_VERSION,
            producer_name="edgecnn",
        )
        # only for the check, which compares inferred shapes with those of the tensors
        model.graph.value_info.extend(self.inner_values())
        try:
            onnx.checker.check_model(model, full_check=True)
        except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, ValueError) as error:
            raise ArtifactError(f"the graph is damaged and cannot be written to ONNX: {one_line(error)}") from error
        del model.graph.value_info[:]
        return model

    # Operators

    def convolution(self, operation: ops.Convolution) -> None:
        # (out, h, w, in) -> (out, in, h, w); (1, h, w, out) -> (out, 1, h, w)
        order = (3, 0, 1, 2) if operation.depthwise else CHANNELS_FIRST
        groups = operation.groups if operation.depthwise else 1
        inputs = [
            self.read(operation),
            self.weights(operation, operation.weights.values.transpose(order), groups),
            *self.bias(operation),
        ]
        real = self.node(
            "Conv",
            inputs,
            f"{self.name(operation.output)}/conv",
            kernel_shape=operation.kernel,
            strides=operation.stride,
            dilations=operation.dilation,
            group=operation.groups,
            pads=operation.pads,
        )
        self.write(operation, self.float_bias(operation, real, axes=2))

    def transposed_convolution(self, operation: ops.TransposedConvolution) -> None:
        weights = operation.weights
        if operation.position not in self.in_float:  # ONNX's weights are inputs first, so scales are along axis 1
            real = self.weights_along(operation, weights.values.transpose(3, 0, 1, 2), axis=1)
        else:
            real = self.weights(operation, weights.values.transpose(CHANNELS_FIRST))
            real = self.node("Transpose", [real], f"{real}/inputs_first", perm=(1, 0, 2, 3))
        node = self.node(
            "ConvTranspose",
            [self.read(operation), real, *self.bias(operation)],
            f"{self.name(operation.output)}/conv",
            kernel_shape=operation.kernel,
            strides=operation.stride,
            pads=operation.pads,
            output_padding=operation.extra,
        )
        self.write(operation, self.float_bias(operation, node, axes=2))

    def dense(self, operation: ops.Dense) -> None:
        source, output, data = operation.inputs[0], operation.output, operation.weights.values
        name = f"{self.name(output)}/dense"
        if len(output.shape) == 4 and not operation.computes_in_float:  # over the channels of each pixel
            weights = self.weights(operation, data[:, :, np.newaxis, np.newaxis])
            inputs = [self.read(operation), weights, *self.bias(operation)]
            self.write(operation, self.node("Conv", inputs, name, kernel_shape=(1, 1)))
            return
        if source.index in self.flattened:
            height, width, channels = self.flattened[source.index]
            data = data.reshape(-1, height, width, channels).transpose(CHANNELS_FIRST).reshape(data.shape)
        real = self._in_order(operation, source)
        if operation.computes_in_float:
            if source.shape[:-1] != output.shape[:-1]:
                real = self._reshape(real, (-1, data.shape[1]))
            real = self.node("MatMul", [real, self.weights(operation, data.T)], name)
            self.write(operation, self._channels_first(self.float_bias(operation, real), output))
            return
        if len(source.shape) != 2:
            real = self._reshape(real, (-1, data.shape[1]))
        inputs = [real, self.weights(operation, data), *self.bias(operation)]
        real = self.node("Gemm", inputs, name, transB=1)
        if len(output.shape) != 2:
            real = self._reshape(real, (-1, *output.shape[1:]))
        self.write(operation, real)

    def pool(self, operation: ops.Pool) -> None:
        kind = "MaxPool" if operation.kind == "MAX_POOL_2D" else "AveragePool"  # neither counts the padding
        attributes = {"kernel_shape": operation.kernel, "strides": operation.stride, "pads": operation.pads}
        real = self.node(kind, [self.read(operation)], self._real(operation), **attributes)
        self.write(operation, real)

    def reduction(self, operation: ops.Reduction) -> None:
        source, axes = operation.inputs[0], list(operation.axes)
        if operation.kind == "MEAN" and len(source.shape) == 4 and axes == [1, 2]:
            self._global_average(operation)
            return
        kind, name = _REDUCTIONS[operation.kind], self._real(operation)
        left = [axis for axis in CHANNELS_FIRST if axis not in axes]
        in_place = len(source.shape) == 4 and (operation.keep or left == sorted(left))
        real = self.read(operation) if in_place else self._in_order(operation, source)
        if in_place:
            axes = sorted(_AXIS[axis] for axis in axes)
        of_bool, types = source.dtype == "bool", require("onnx").TensorProto
        if of_bool:  # ONNX has no reduction of them
            real = self.node("Cast", [real], f"{name}/numbers", to=int(types.INT32))
        if kind == "ReduceSum":  # the others have an attribute
            constant = self.constant(f"{name}/axes", np.array(axes, np.int64))
            real = self.node(kind, [real, constant], name, keepdims=int(operation.keep))
        else:
            real = self.node(kind, [real], name, axes=axes, keepdims=int(operation.keep))
        if of_bool:
            real = self.node("Cast", [real], f"{name}/bool", to=int(types.BOOL))
        self.write(operation, real if in_place else self._channels_first(real, operation.output))

    def _global_average(self, operation: ops.Reduction) -> None:
        """A mean over height and width, quantised before these axes are removed: so runtimes have integer kernels."""
        real = self.node("GlobalAveragePool", [self.read(operation)], self._real(operation))
        if not operation.keep:
            if operation.position not in self.in_float and operation.output.dtype in INTEGER:
                quantization = self.quantization(operation.output)
                stored = self.node("QuantizeLinear", [real, *quantization], f"{real}/quantised")
                real = self.node("DequantizeLinear", [stored, *quantization], f"{stored}/real")
            real = self.node("Flatten", [real], f"{real}/flat", axis=1)
        self.write(operation, real)

    def cumulative_sum(self, operation: ops.CumulativeSum) -> None:
        axis = _AXIS[operation.axis] if len(operation.output.shape) == 4 else operation.axis
        inputs = [self.read(operation), self.constant(f"{operation.position}/axis", np.int64(axis))]
        flags = {"exclusive": int(operation.exclusive), "reverse": int(operation.reverse)}
        self.write(operation, self.node("CumSum", inputs, self._real(operation), **flags))

    def matmul(self, operation: ops.MatMul) -> None:
        operands = []
        for tensor, swapped in zip(operation.inputs, operation.transposed, strict=True):
            rank = len(tensor.shape)
            if tensor.data is not None and tensor.dtype in INTEGER:  # in float: sums with int8 weights can saturate
                values = (tensor.data - tensor.zero_point[0]) * tensor.scale[0]
                real = self.constant(f"{self.name(tensor)}/real", values.astype(np.float32))
            else:
                real = self._in_order(operation, tensor)
            if swapped:
                order = (*range(rank - 2), rank - 1, rank - 2)
                real = self.node("Transpose", [real], f"{real}/transposed", perm=order)
            operands.append(real)
        real = self.node("MatMul", operands, self._real(operation))
        self.write(operation, self._channels_first(real, operation.output))

    def binary(self, operation: ops.Binary) -> None:
        operands, name = [self._aligned(operation, tensor) for tensor in operation.inputs], self._real(operation)
        if operation.output.dtype == "bool" and operation.inputs[0].dtype in INTEGER:
            operands = [self._compared(real) for real in operands]
        if operation.kind == "SQUARED_DIFFERENCE":
            apart = self.node("Sub", operands, f"{name}/difference")
            real = self.node("Mul", [apart, apart], name)
        elif operation.kind == "NOT_EQUAL":
            real = self.node("Not", [self.node("Equal", operands, f"{name}/equal")], name)
        else:
            real = self.node(_BINARY[operation.kind], operands, name)
        self.write(operation, real)

    def _compared(self, real: str) -> str:
        """A value as TFLite's integer kernels compare it: rounded to a 256th (``ComparisonWithScaling``)."""
        fine = self.node("Mul", [real, self.constant("256", np.float32(256))], f"{real}/256ths")
        return self.node("Round", [fine], f"{fine}/rounded")

    def select(self, operation: ops.Select) -> None:
        operands = [self._aligned(operation, tensor) for tensor in operation.inputs]
        self.write(operation, self.node("Where", operands, self._real(operation)))

    def _aligned(self, operation: Operation, tensor: Tensor) -> str:
        """Float value of an operand; the axes of one with fewer dimensions are the last ones of the output's."""
        rank = len(operation.output.shape)
        if tensor.data is not None:
            return self.constant_activation(tensor, rank)
        if rank != 4:
            return self._in_order(operation, tensor)
        real = self.read(operation, tensor)
        if len(tensor.shape) == rank:
            return real
        shape = (*(1,) * (rank - len(tensor.shape)), *tensor.shape)
        return self._from_order(real, shape, shape)

    def unary(self, operation: ops.Unary) -> None:
        real, name = self.read(operation), self._real(operation)
        if operation.kind == "RSQRT":
            real = self.node("Reciprocal", [self.node("Sqrt", [real], f"{name}/sqrt")], name)
        elif operation.kind == "SQUARE":
            real = self.node("Mul", [real, real], name)
        elif operation.kind == "CAST":
            to = self.helper.np_dtype_to_tensor_dtype(np.dtype(operation.output.dtype))
            real = self.node("Cast", [real], name, to=int(to))
        else:
            real = self.node(_UNARY[operation.kind], [real], name)
        self.write(operation, real)

    def gelu(self, operation: ops.Gelu) -> None:
        real, name = self.read(operation), self._real(operation)

        def made(kind: str, what: str, *operands: str | float) -> str:
            inputs = [
                self.constant(f"{one:.8g}", np.float32(one)) if isinstance(one, float) else one for one in operands
            ]
            return self.node(kind, inputs, f"{name}/{what}")

        if operation.approximate:
            cube = made("Mul", "cube", made("Mul", "square", real, real), real)
            scaled = made("Mul", "scaled", made("Add", "sum", real, made("Mul", "term", cube, 0.044715)), _SQRT_2_PI)
            share = made("Tanh", "share", scaled)
        else:
            share = made("Erf", "share", made("Div", "scaled", real, math.sqrt(2)))
        half = made("Mul", "half", real, 0.5)
        self.write(operation, made("Mul", "value", half, made("Add", "raised", share, 1.0)))

    def table(self, operation: ops.Table) -> None:
        source, output, name = operation.inputs[0], operation.output, self._real(operation)
        index = self.node("Cast", [self.stored(source)], f"{name}/index", to=int(require("onnx").TensorProto.INT32))
        first = self.first_stored(source)
        if first:
            index = self.node("Sub", [index, self.constant(f"{name}/first", np.int32(first))], f"{index}/from_0")
        values = (operation.values - int(output.zero_point[0])) * output.scale[0]
        table = self.constant(f"{name}/table", values[self.order_stored(source)].astype(np.float32))
        self.write(operation, self.node("Gather", [table, index], name))

    def softmax(self, operation: ops.Softmax) -> None:
        if operation.beta != 1:
            raise UnsupportedError(f"{operation}: a softmax with a beta other than 1 is not supported in ONNX")
        axis = 1 if len(operation.output.shape) == 4 else -1
        kind = "LogSoftmax" if operation.kind == "LOG_SOFTMAX" else "Softmax"
        self.write(operation, self.node(kind, [self.read(operation)], self._real(operation), axis=axis))

    def leaky_relu(self, operation: ops.LeakyRelu) -> None:
        source = self.read(operation)
        self.write(operation, self.node("LeakyRelu", [source], self._real(operation), alpha=operation.alpha))

    def rescale(self, operation: ops.Rescale) -> None:
        self.write(operation, self.read(operation))

    def pad(self, operation: ops.Pad) -> None:
        pairs = np.array(channels_first(operation.pads), np.int64)
        pads = self.constant(f"{operation.position}/pads", pairs.T.reshape(-1))
        inputs = [self.read(operation), pads]
        if operation.value is not None:
            inputs.append(self.read(operation, operation.value))
        self.write(operation, self.node("Pad", inputs, self._real(operation)))

    def tile(self, operation: ops.Tile) -> None:
        repeats = np.array(channels_first(operation.repeats), np.int64)
        times = self.constant(f"{operation.position}/repeats", repeats)
        self.write(operation, self.node("Tile", [self.read(operation), times], self._real(operation)))

    def concatenation(self, operation: ops.Concatenation) -> None:
        axis, output, name = operation.axis, operation.output, self._real(operation)
        if operation.kind == "PACK":
            new = self.constant(f"{name}/axis", np.array([axis], np.int64))
            inputs = [self._in_order(operation, tensor) for tensor in operation.inputs]
            inputs = [self.node("Unsqueeze", [real, new], f"{name}/{real}") for real in inputs]
            self.write(operation, self._channels_first(self.node("Concat", inputs, name, axis=axis), output))
            return
        axis = _AXIS[axis] if len(output.shape) == 4 else axis
        inputs = [self.read(operation, tensor) for tensor in operation.inputs]
        self.write(operation, self.node("Concat", inputs, name, axis=axis))

    def slice(self, operation: ops.Slice) -> None:
        source, name, real = operation.inputs[0], self._real(operation), self.read(operation)
        axes = [
            axis
            for axis, size in enumerate(source.shape)
            if (operation.sizes[axis], operation.steps[axis]) != (size, 1)
        ]
        if axes:
            starts, steps, sizes = (
                [each[axis] for axis in axes] for each in (operation.starts, operation.steps, operation.sizes)
            )
            ends = [start + size * step for start, size, step in zip(starts, sizes, steps, strict=True)]
            values = {
                "starts": starts,
                # below 0 would count from the end
                "ends": [end if end >= 0 else _BEFORE_FIRST for end in ends],
                "axes": [_AXIS[axis] if len(source.shape) == 4 else axis for axis in axes],
                "steps": steps,
            }
            inputs = [self.constant(f"{name}/{key}", np.array(value, np.int64)) for key, value in values.items()]
            real = self.node("Slice", [real, *inputs], name)
        if operation.removed:
            removed = self.constant(f"{name}/removed", np.array(operation.removed, np.int64))
            real = self.node("Squeeze", [self._as_channels_last(real, source), removed], f"{name}/squeezed")
            real = self._channels_first(real, operation.output)
        self.write(operation, real)

    def gather(self, operation: ops.Gather) -> None:
        source, places = operation.inputs
        inputs = [self._in_order(operation, tensor) for tensor in (source, places)]
        real = self.node("Gather", inputs, self._real(operation), axis=operation.axis)
        self.write(operation, self._channels_first(real, operation.output))

    def resize(self, operation: ops.Resize) -> None:
        if self.tensor(operation.inputs[0].index).shape[0] < 1:
            raise UnsupportedError(f"{operation}: resizing in ONNX needs a fixed batch")
        aligned, half = operation.align_corners, operation.half_pixel_centers
        mode = "align_corners" if aligned else "half_pixel" if half else "asymmetric"
        attributes = {"mode": "linear", "coordinate_transformation_mode": mode}
        if operation.kind == "RESIZE_NEAREST_NEIGHBOR":
            # TFLite uses floor((x + 0.5) * scale), floor(x * scale), or rounds if corners are aligned
            nearest = "round_prefer_ceil" if aligned or half else "floor"
            attributes |= {"mode": "nearest", "nearest_mode": nearest}
        source, sizes = self.read(operation), np.array(channels_first(operation.output.shape), np.int64)
        inputs = [source, "", "", self.constant(f"{operation.position}/sizes", sizes)]
        self.write(operation, self.node("Resize", inputs, self._real(operation), **attributes))

    def reshape(self, operation: ops.Reshape) -> None:
        source, output = operation.inputs[0], operation.output
        real = self.read(operation)
        if not _same_order(source.shape):
            users = self.consumers.get(output.index, [])
            whole = output.shape == (source.shape[0], math.prod(source.shape[1:]))
            if whole and users and all(user.kind == "FULLY_CONNECTED" for user in users):
                self.flattened[output.index] = source.shape[1:]
            else:
                real = self._as_channels_last(real, source)
        self.write(operation, self._from_order(real, self._with_free_batch(operation), output.shape))

    def transpose(self, operation: ops.Transpose) -> None:
        order = operation.order
        if len(order) == 4:  # conjugate the permutation with the change of layout
            order = tuple(_AXIS[order[axis]] for axis in CHANNELS_FIRST)
        self.write(operation, self.node("Transpose", [self.read(operation)], self._real(operation), perm=order))

    # Helpers

    def _real(self, operation: Operation) -> str:
        return f"{self.name(operation.output)}/{operation.kind.lower()}"

    def _reshape(self, real: str, shape: tuple[int, ...]) -> str:
        output = f"{real}/{'x'.join(map(str, shape))}"
        return self.node("Reshape", [real, self.constant(f"{output}/shape", np.array(shape, np.int64))], output)

    def _from_order(self, real: str, target: tuple[int, ...], shape: tuple[int, ...]) -> str:
        """A value in the .tflite's order as one of the shape ``target``, in which ``shape`` may have a free batch."""
        if _same_order(shape):
            return self._reshape(real, channels_first(target))
        flat = self._reshape(real, target)
        return self.node("Transpose", [flat], f"{flat}/channels_first", perm=CHANNELS_FIRST)

    def _in_order(self, operation: Operation, tensor: Tensor) -> str:
        """Float value of an operand in the .tflite's order of axes."""
        if tensor.data is not None:
            return self.constant_activation(tensor, 0)
        return self._as_channels_last(self.read(operation, tensor), tensor)

    def _as_channels_last(self, real: str, tensor: Tensor) -> str:
        if len(tensor.shape) != 4:
            return real
        return self.node("Transpose", [real], f"{real}/channels_last", perm=_CHANNELS_LAST)

    def _channels_first(self, real: str, tensor: Tensor) -> str:
        """A value in the .tflite's order of axes in that of activations."""
        if len(tensor.shape) != 4:
            return real
        return self.node("Transpose", [real], f"{real}/channels_first", perm=CHANNELS_FIRST)

    def _with_free_batch(self, operation: ops.Reshape) -> tuple[int, ...]:
        """Target of a Reshape, with -1 for a dynamic batch."""
        stored = self.tensor(operation.output.index).shape
        if len(stored) != 2 and any(size < 1 for size in stored[1:]):
            raise UnsupportedError(f"{operation}: its target shape {stored} is unknown; export with a fixed batch")
        return (-1, *operation.output.shape[1:]) if any(size < 1 for size in stored) else operation.output.shape


def _same_order(shape: tuple[int, ...]) -> bool:
    """Whether values of this channels-last shape have the same order channels-first."""
    return len(shape) != 4 or shape[3] == 1 or shape[1] * shape[2] == 1


_WRITERS: dict[type[Operation], Callable[[_Writer, Any], None]] = {
    ops.Binary: _Writer.binary,
    ops.Concatenation: _Writer.concatenation,
    ops.Convolution: _Writer.convolution,
    ops.CumulativeSum: _Writer.cumulative_sum,
    ops.Dense: _Writer.dense,
    ops.Gather: _Writer.gather,
    ops.Gelu: _Writer.gelu,
    ops.LeakyRelu: _Writer.leaky_relu,
    ops.MatMul: _Writer.matmul,
    ops.Pad: _Writer.pad,
    ops.Pool: _Writer.pool,
    ops.Reduction: _Writer.reduction,
    ops.Rescale: _Writer.rescale,
    ops.Reshape: _Writer.reshape,
    ops.Resize: _Writer.resize,
    ops.Select: _Writer.select,
    ops.Slice: _Writer.slice,
    ops.Softmax: _Writer.softmax,
    ops.Table: _Writer.table,
    ops.Tile: _Writer.tile,
    ops.TransposedConvolution: _Writer.transposed_convolution,
    ops.Transpose: _Writer.transpose,
    ops.Unary: _Writer.unary,
}
