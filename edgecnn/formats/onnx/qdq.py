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
_CHANNELS_LAST = (0, 2, 3, 1)
_BINARY = {"ADD": "Add", "MAXIMUM": "Max", "MINIMUM": "Min", "MUL": "Mul", "PRELU": "PRelu", "SUB": "Sub"}
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
        self.write(operation, real)

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
        self.write(operation, node)

    def dense(self, operation: ops.Dense) -> None:
        source, output, data = operation.inputs[0], operation.output, operation.weights.values
        name = f"{self.name(output)}/dense"
        if len(output.shape) == 4:  # a dense layer over the channels of each pixel
            weights = self.weights(operation, data[:, :, np.newaxis, np.newaxis])
            inputs = [self.read(operation), weights, *self.bias(operation)]
            self.write(operation, self.node("Conv", inputs, name, kernel_shape=(1, 1)))
            return
        if source.index in self.flattened:
            height, width, channels = self.flattened[source.index]
            data = data.reshape(-1, height, width, channels).transpose(CHANNELS_FIRST).reshape(data.shape)
        real = self.read(operation)
        if len(source.shape) != 2:
            real = self._reshape(self._as_channels_last(real, source), (-1, data.shape[1]))
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

    def mean(self, operation: ops.Mean) -> None:
        four, axes = len(operation.inputs[0].shape) == 4, list(operation.axes)
        if four and not operation.keep and axes != [1, 2]:
            raise UnsupportedError(
                f"{operation}: a mean over axes {axes} without keeping them is not supported in ONNX"
            )
        if four and axes == [1, 2]:
            self._global_average(operation)
            return
        axes = [_AXIS[axis] if four else axis for axis in axes]
        source, keep = self.read(operation), int(operation.keep)
        self.write(operation, self.node("ReduceMean", [source], self._real(operation), axes=axes, keepdims=keep))

    def reduce_max(self, operation: ops.ReduceMax) -> None:
        four = len(operation.inputs[0].shape) == 4
        if four and not operation.keep and list(operation.axes) not in ([1, 2], [1, 2, 3]):
            raise UnsupportedError(
                f"{operation}: a maximum over axes {list(operation.axes)} without keeping them is not supported in ONNX"
            )
        axes = sorted(_AXIS[axis] for axis in operation.axes) if four else list(operation.axes)
        source, keep = self.read(operation), int(operation.keep)
        self.write(operation, self.node("ReduceMax", [source], self._real(operation), axes=axes, keepdims=keep))

    def _global_average(self, operation: ops.Mean) -> None:
        """A mean over height and width, quantised before these axes are removed: so runtimes have integer kernels."""
        real = self.node("GlobalAveragePool", [self.read(operation)], self._real(operation))
        if not operation.keep:
            if operation.position not in self.in_float and operation.output.dtype in INTEGER:
                quantization = self.quantization(operation.output)
                stored = self.node("QuantizeLinear", [real, *quantization], f"{real}/quantised")
                real = self.node("DequantizeLinear", [stored, *quantization], f"{stored}/real")
            real = self.node("Flatten", [real], f"{real}/flat", axis=1)
        self.write(operation, real)

    def binary(self, operation: ops.Binary) -> None:
        kind = _BINARY[operation.kind]
        operands = [self._aligned(operation, tensor) for tensor in operation.inputs]
        self.write(operation, self.node(kind, operands, self._real(operation)))

    def _aligned(self, operation: Operation, tensor: Tensor) -> str:
        """Float value of an operand; the axes of one with fewer dimensions are the last ones of the output's."""
        real, rank = self.read(operation, tensor), len(operation.output.shape)
        if tensor.data is not None or rank != 4 or len(tensor.shape) == rank:
            return real
        shape = (*(1,) * (rank - len(tensor.shape)), *tensor.shape)
        if _same_order(shape):
            return self._reshape(real, channels_first(shape), f"{self._real(operation)}/{tensor.index}")
        last = self._reshape(real, shape, f"{self._real(operation)}/{tensor.index}")
        return self.node("Transpose", [last], f"{last}/channels_first", perm=CHANNELS_FIRST)

    def unary(self, operation: ops.Unary) -> None:
        kind = {"HARD_SWISH": "HardSwish", "LOGISTIC": "Sigmoid", "TANH": "Tanh"}[operation.kind]
        self.write(operation, self.node(kind, [self.read(operation)], self._real(operation)))

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
        self.write(operation, self.node("Softmax", [self.read(operation)], self._real(operation), axis=axis))

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
        axis = _AXIS[operation.axis] if len(operation.output.shape) == 4 else operation.axis
        inputs = [self.read(operation, tensor) for tensor in operation.inputs]
        self.write(operation, self.node("Concat", inputs, self._real(operation), axis=axis))

    def slice(self, operation: ops.Slice) -> None:
        source, name = operation.inputs[0], self._real(operation)
        axes = [axis for axis, size in enumerate(source.shape) if operation.output.shape[axis] != size]
        if not axes:
            self.write(operation, self.read(operation))
            return
        starts = [operation.starts[axis] for axis in axes]
        steps = [operation.steps[axis] for axis in axes]
        lengths = [(operation.output.shape[axis] - 1) * step + 1 for axis, step in zip(axes, steps, strict=True)]
        values = {
            "starts": starts,
            "ends": [start + length for start, length in zip(starts, lengths, strict=True)],
            "axes": [_AXIS[axis] if len(source.shape) == 4 else axis for axis in axes],
            "steps": steps,
        }
        inputs = [self.constant(f"{name}/{key}", np.array(value, np.int64)) for key, value in values.items()]
        self.write(operation, self.node("Slice", [self.read(operation), *inputs], name))

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
        shape = self._with_free_batch(operation)
        if _same_order(output.shape):
            self.write(operation, self._reshape(real, channels_first(shape), self._real(operation)))
            return
        flat = self._reshape(real, shape)
        self.write(operation, self.node("Transpose", [flat], self._real(operation), perm=CHANNELS_FIRST))

    def transpose(self, operation: ops.Transpose) -> None:
        order = operation.order
        if len(order) == 4:  # conjugate the permutation with the change of layout
            order = tuple(_AXIS[order[axis]] for axis in CHANNELS_FIRST)
        self.write(operation, self.node("Transpose", [self.read(operation)], self._real(operation), perm=order))

    # Helpers

    def _real(self, operation: Operation) -> str:
        return f"{self.name(operation.output)}/{operation.kind.lower()}"

    def _reshape(self, real: str, shape: tuple[int, ...], output: str | None = None) -> str:
        output = output or f"{real}/reshaped"
        return self.node("Reshape", [real, self.constant(f"{output}/shape", np.array(shape, np.int64))], output)

    def _as_channels_last(self, real: str, tensor: Tensor) -> str:
        if len(tensor.shape) != 4:
            return real
        return self.node("Transpose", [real], f"{real}/channels_last", perm=_CHANNELS_LAST)

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
    ops.Dense: _Writer.dense,
    ops.LeakyRelu: _Writer.leaky_relu,
    ops.Mean: _Writer.mean,
    ops.Pad: _Writer.pad,
    ops.Pool: _Writer.pool,
    ops.ReduceMax: _Writer.reduce_max,
    ops.Rescale: _Writer.rescale,
    ops.Reshape: _Writer.reshape,
    ops.Resize: _Writer.resize,
    ops.Slice: _Writer.slice,
    ops.Softmax: _Writer.softmax,
    ops.Table: _Writer.table,
    ops.Tile: _Writer.tile,
    ops.TransposedConvolution: _Writer.transposed_convolution,
    ops.Transpose: _Writer.transpose,
    ops.Unary: _Writer.unary,
}
