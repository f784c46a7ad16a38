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
# position of each channels-last axis in the channels-first layout
_AXIS = {0: 0, 1: 2, 2: 3, 3: 1}


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
        # only for the check, which then compares the shapes that the nodes give with those of the tensors
        model.graph.value_info.extend(self.inner_values())
        try:
            onnx.checker.check_model(model, full_check=True)
        except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, ValueError) as error:
            raise ArtifactError(f"the graph is damaged, its parts do not fit together: {one_line(error)}") from error
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

    def dense(self, operation: ops.Dense) -> None:
        source, data = operation.inputs[0], operation.weights.values
        if len(operation.output.shape) != 2:
            raise UnsupportedError(f"{operation}: a dense layer on more than two dimensions is not written to ONNX")
        if source.index in self.flattened:
            height, width, channels = self.flattened[source.index]
            data = data.reshape(-1, height, width, channels).transpose(CHANNELS_FIRST).reshape(data.shape)
        real = self.read(operation)
        if len(source.shape) != 2:
            real = self._reshape(self._as_channels_last(real, source), (-1, data.shape[1]))
        inputs = [real, self.weights(operation, data), *self.bias(operation)]
        real = self.node("Gemm", inputs, f"{self.name(operation.output)}/dense", transB=1)
        self.write(operation, real)

    def pool(self, operation: ops.Pool) -> None:
        kind = "MaxPool" if operation.kind == "MAX_POOL_2D" else "AveragePool"  # neither counts the padding
        attributes = {"kernel_shape": operation.kernel, "strides": operation.stride, "pads": operation.pads}
        real = self.node(kind, [self.read(operation)], self._real(operation), **attributes)
        self.write(operation, real)

    def mean(self, operation: ops.Mean) -> None:
        four, axes = len(operation.inputs[0].shape) == 4, list(operation.axes)
        if four and not operation.keep and axes != [1, 2]:
            raise UnsupportedError(f"{operation}: a mean over axes {axes} without keeping them is not written to ONNX")
        if four and axes == [1, 2]:
            self._global_average(operation)
            return
        axes = [_AXIS[axis] if four else axis for axis in axes]
        source, keep = self.read(operation), int(operation.keep)
        self.write(operation, self.node("ReduceMean", [source], self._real(operation), axes=axes, keepdims=keep))

    def _global_average(self, operation: ops.Mean) -> None:
        """A mean over height and width, quantised before it loses these axes: so runtimes have an integer kernel."""
        real = self.node("GlobalAveragePool", [self.read(operation)], self._real(operation))
        if not operation.keep:
            if operation.position not in self.in_float and operation.output.dtype in INTEGER:
                quantization = self.quantization(operation.output)
                stored = self.node("QuantizeLinear", [real, *quantization], f"{real}/quantised")
                real = self.node("DequantizeLinear", [stored, *quantization], f"{stored}/real")
            real = self.node("Flatten", [real], f"{real}/flat", axis=1)
        self.write(operation, real)

    def binary(self, operation: ops.Binary) -> None:
        rank = len(operation.output.shape)
        if any(tensor.data is None and len(tensor.shape) != rank for tensor in operation.inputs):
            raise UnsupportedError(f"{operation}: operands of different rank are not written to ONNX")
        kind = {"ADD": "Add", "MUL": "Mul", "SUB": "Sub"}[operation.kind]
        real = self.node(kind, [self.read(operation, tensor) for tensor in operation.inputs], self._real(operation))
        self.write(operation, real)

    def unary(self, operation: ops.Unary) -> None:
        kind = {"HARD_SWISH": "HardSwish", "LOGISTIC": "Sigmoid", "TANH": "Tanh"}[operation.kind]
        self.write(operation, self.node(kind, [self.read(operation)], self._real(operation)))

    def softmax(self, operation: ops.Softmax) -> None:
        if operation.beta != 1:
            raise UnsupportedError(f"{operation}: a softmax with a beta other than 1 is not written to ONNX")
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

    def resize(self, operation: ops.Resize) -> None:
        if self.tensor(operation.inputs[0].index).shape[0] < 1:
            raise UnsupportedError(f"{operation}: resizing is written to ONNX for a fixed batch only")
        aligned, half = operation.align_corners, operation.half_pixel_centers
        mode = "align_corners" if aligned else "half_pixel" if half else "asymmetric"
        attributes = {"mode": "linear", "coordinate_transformation_mode": mode}
        if operation.kind == "RESIZE_NEAREST_NEIGHBOR":
            # TFLite takes floor((x + 0.5) * scale), floor(x * scale), or rounds where corners are aligned
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
            if len(output.shape) == 2 and users and all(user.kind == "FULLY_CONNECTED" for user in users):
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
        """Target of a Reshape, with -1 where its batch is free."""
        stored = self.tensor(operation.output.index).shape
        if len(stored) != 2 and any(size < 1 for size in stored[1:]):
            raise UnsupportedError(f"{operation}: its target shape {stored} is not known; export with a fixed batch")
        return (-1, *operation.output.shape[1:]) if any(size < 1 for size in stored) else operation.output.shape


def _same_order(shape: tuple[int, ...]) -> bool:
    """Whether a tensor of this channels-last shape has its values in the same order channels-first."""
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
    ops.Rescale: _Writer.rescale,
    ops.Reshape: _Writer.reshape,
    ops.Resize: _Writer.resize,
    ops.Softmax: _Writer.softmax,
    ops.Tile: _Writer.tile,
    ops.Transpose: _Writer.transpose,
    ops.Unary: _Writer.unary,
}
