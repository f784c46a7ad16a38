"""From the operators of an int8 .tflite to layers of C: the call of a kernel, its constants, the memory it needs."""

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgecnn.errors import ArtifactError, UnsupportedError, one_line
from edgecnn.formats.c99 import kernels, numerics
from edgecnn.formats.c99.plan import Overlap
from edgecnn.tflite.graph import Graph, Operator, Tensor
from edgecnn.tflite.operators import axis_of, check, four_dimensions, shape_computations

Shape = tuple[int, ...]
_PURPOSE = "written as C"
_MAX_RANK = 4
_MAX_ELEMENTS = 2**31 - 1
_IN_FOURS = (0, 2, 1, 3)
# the Helium kernels load vectors of 16 bytes or 4 inputs, and so up to these beyond the last
_HELIUM_BYTES, _HELIUM_LANES = 12, 3
_INT8 = (-128, 127)


class Constant(msgspec.Struct, frozen=True, kw_only=True):
    """An array of the layer's: ``values`` of C type ``type``, the last axis short enough to stand in braces if 2-D."""

    name: str
    type: str
    values: NDArray[Any]


class Layer(msgspec.Struct, frozen=True, kw_only=True):
    """One function of the generated code.

    ``inputs`` and ``output`` are numbers of values (see ``Program``), ``parameters`` the names of the former in
    ``body``, which calls them so, the output ``y`` and the scratch memory, ``scratch`` bytes, ``scratch``.
    ``overlaps`` says for each input how the output may lie over it, None where it must not.
    """

    name: str
    comment: str
    inputs: tuple[int, ...]
    parameters: tuple[str, ...]
    output: int
    body: str
    constants: tuple[Constant, ...]
    kernels: tuple[str, ...]
    scratch: int = 0
    overlaps: tuple[Overlap | None, ...] = ()
    wide: bool = False
    full: bool = True


class Program(msgspec.Struct, frozen=True, kw_only=True):
    """The layers in order. Values are numbered by the tensor that names them; ``sizes`` are in bytes."""

    layers: tuple[Layer, ...]
    input: Tensor
    output: Tensor
    input_shape: Shape
    output_shape: Shape
    input_value: int
    output_value: int
    sizes: dict[int, int]
    names: dict[int, str]


def lower(graph: Graph) -> Program:
    """The layers of an int8 graph.

    A QUANTIZE from float32 at its input and a DEQUANTIZE to float32 at its output are cut off: the C code takes and
    gives the integers.

    Raises:
        UnsupportedError: an operator, type or option that is not written as C, named with its place.
        ArtifactError: the graph is damaged: an operator whose tensors are missing or do not fit together.
    """
    check(graph, _WRITERS, _PURPOSE)
    return _Lowering(_without_float_ends(graph)).program()


def problems(graph: Graph) -> tuple[str, ...]:
    """Everything that keeps an int8 graph from being written as C, each with its place; nothing if it can be.

    Raises:
        ArtifactError: as ``lower`` does.
    """
    try:
        check(graph, _WRITERS, _PURPOSE)
    except UnsupportedError as error:
        return (str(error),)
    lowering = _Lowering(_without_float_ends(graph))
    try:
        lowering.program()
    except UnsupportedError as error:
        return tuple(lowering.problems) or (str(error),)
    return ()


def _without_float_ends(graph: Graph) -> Graph:
    first, last = graph.operators[:1], graph.operators[-1:]
    operators, inputs, outputs = graph.operators, graph.inputs, graph.outputs
    if first and first[0].kind == "QUANTIZE" and graph.tensors[inputs[0]].dtype == "float32":
        users = [operator for operator in operators if inputs[0] in operator.inputs]
        if users == list(first) and first[0].inputs == inputs:
            operators, inputs = operators[1:], first[0].outputs[:1]
    ends_in_float = operators and last[0].kind == "DEQUANTIZE" and graph.tensors[outputs[0]].dtype == "float32"
    if ends_in_float and last[0].outputs == outputs and last[0].inputs != inputs:
        operators, outputs = operators[:-1], last[0].inputs[:1]
    return msgspec.structs.replace(graph, operators=operators, inputs=inputs, outputs=outputs)


class _Lowering:
    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.layers: list[Layer] = []
        self.problems: list[str] = []
        self.values: dict[int, int] = {graph.inputs[0]: graph.inputs[0]}  # tensor -> the value it is stored as
        source = graph.tensors[graph.inputs[0]]
        self.shapes: dict[int, Shape] = {source.index: tuple(max(size, 1) for size in source.shape)}

    def program(self) -> Program:
        graph = self.graph
        source, target = (graph.tensors[indices[0]] for indices in (graph.inputs, graph.outputs))
        for kind, tensor in (("input", source), ("output", target)):
            if tensor.dtype not in ("int8", "uint8") or len(tensor.scale) != 1:
                self.problems.append(
                    f"the graph's {kind} {tensor.name!r} is {tensor.dtype} with {len(tensor.scale)} scales; C code "
                    "holds int8 only, convert the model with full int8 quantisation"
                )
        skipped = shape_computations(graph)
        for operator in graph.operators:
            if operator.position not in skipped:
                self._write(operator)
        if self.problems:
            raise UnsupportedError(self.problems[0])
        if target.index not in self.values:
            raise ArtifactError(f"the graph's output {target.name!r} is made by no operator")
        if self.values[target.index] == source.index:  # only reshaped
            self._copy(target)
        layers = self._needed(self.values[target.index])
        used = {source.index, *(layer.output for layer in layers)}
        return Program(
            layers=layers,
            input=source,
            output=target,
            input_shape=self.shapes[source.index],
            output_shape=self.shapes[target.index],
            input_value=source.index,
            output_value=self.values[target.index],
            sizes={value: math.prod(self.shapes[value]) for value in used},
            names={value: printable(graph.tensors[value].name) for value in used},
        )

    def _write(self, operator: Operator) -> None:
        """Add the operator's layers. One that is not written as C is a problem; the next are looked at all the same."""
        try:
            write = _WRITERS.get(operator.kind)
            if write is None:
                raise UnsupportedError(
                    f"{operator} is not written as C by edgecnn; known are: {', '.join(sorted(_WRITERS))}"
                )
            try:
                write(self, operator)
            except KeyError as error:
                raise ArtifactError(f"{operator} is damaged: its option {error} is missing") from error
            except (ArithmeticError, IndexError, TypeError, ValueError) as error:
                raise ArtifactError(f"{operator} is damaged: {one_line(error)}") from error
        except UnsupportedError as error:
            self.problems.append(str(error))
        except ArtifactError:
            if not self.problems:  # what follows one need not fit together
                raise
        else:
            return
        for index in operator.outputs:
            self.values[index] = index
            self.shapes[index] = tuple(max(size, 1) for size in self.graph.tensors[index].shape)

    def _needed(self, value: int) -> tuple[Layer, ...]:
        """The layers that the output depends on."""
        needed, layers = {value}, []
        for layer in reversed(self.layers):
            if layer.output in needed:
                needed.update(layer.inputs)
                layers.append(layer)
        return tuple(reversed(layers))

    # Tensors

    def tensor(self, index: int) -> Tensor:
        return self.graph.tensors[index]

    def shape(self, operator: Operator, place: int = 0) -> Shape:
        """Shape of an input, which an operator before made, or which is constant."""
        index = operator.inputs[place]
        tensor = self.tensor(index)
        if tensor.data is not None:
            return tensor.shape
        if index not in self.shapes:
            raise UnsupportedError(f"{operator}: its input {tensor.name!r} is not known when the code is written")
        return self.shapes[index]

    def quantized(self, operator: Operator, index: int, allowed: Sequence[str] = ("int8",)) -> Tensor:
        """An activation, with its scale and zero point."""
        tensor = self.tensor(index)
        if tensor.dtype not in allowed or len(tensor.scale) != 1:
            raise UnsupportedError(
                f"{operator}: tensor {tensor.name!r} is {tensor.dtype} with {len(tensor.scale)} scales; only int8 "
                "activations with one scale can be written as C, convert the model with full int8 quantisation"
            )
        return tensor

    def make(self, operator: Operator, shape: Shape) -> Tensor:
        """Note the shape that the operator's output has, and check that the file says the same."""
        tensor = self.tensor(operator.outputs[0])
        said = tensor.shape
        fits = len(said) == len(shape) and all(a in (b, -1) for a, b in zip(said, shape, strict=True))
        if not fits:
            raise ArtifactError(f"{operator} gives {shape}, the file says {said}: its parts do not fit together")
        if not 0 < math.prod(shape) <= _MAX_ELEMENTS:
            raise UnsupportedError(f"{operator} gives {shape}, which is nothing or too large")
        self.shapes[tensor.index] = shape
        self.values[tensor.index] = tensor.index
        return tensor

    def name(self, operator: Operator) -> str:
        """What the layer to be added is called."""
        return f"layer_{len(self.layers)}_{operator.kind.lower()}"

    def integers(self, operator: Operator, position: int) -> list[int]:
        tensor = self.tensor(operator.inputs[position])
        if tensor.data is None or tensor.dtype not in ("int32", "int64"):
            raise UnsupportedError(f"{operator}: tensor {tensor.name!r} is no constant of int32 or int64")
        return [int(value) for value in np.atleast_1d(tensor.data).reshape(-1)]

    def add(
        self,
        operator: Operator,
        sources: Sequence[int],
        call: str,
        kernels: Sequence[str],
        *,
        constants: Sequence[Constant] = (),
        struct: str = "",
        scratch: int = 0,
        overlaps: Sequence[Overlap | None] | None = None,
        wide: bool = False,
        full: bool = True,
    ) -> None:
        """A layer that calls ``call``; in it @0, @1, … are the inputs ``sources``, which may be constants."""
        output = operator.outputs[0]
        name = self.name(operator)
        values: list[int] = []
        parameters: list[str] = []
        arrays = list(constants)
        free: list[Overlap | None] = []
        names: list[str] = []
        for place, index in enumerate(sources):
            data = self.tensor(index).data
            if data is not None:
                arrays.append(Constant(name=f"{name}_constant_{place}", type="int8_t", values=data.reshape(-1)))
                names.append(arrays[-1].name)
                continue
            value = self.values[index]
            if value not in values:
                values.append(value)
                parameters.append("x" if len(sources) == 1 else f"x{place}")
                free.append(overlaps[place] if overlaps else None)
            names.append(parameters[values.index(value)])
        call = re.sub(r"@(\d+)", lambda found: names[int(found[1])], call)
        body = (f"    static const struct {struct}\n" if struct else "") + f"    {call};\n"
        shapes = [self.shape(operator, operator.inputs.index(index)) for index in sources]
        said = f"{' and '.join(map(_times, shapes))} -> {_times(self.shapes[output])}"
        self.layers.append(
            Layer(
                name=name,
                comment=f"{operator.kind} {printable(self.tensor(output).name)}: {said}",
                inputs=tuple(values),
                parameters=tuple(parameters),
                output=output,
                body=body.replace("@name", name),
                constants=tuple(arrays),
                kernels=tuple(kernels),
                scratch=scratch,
                overlaps=tuple(free),
                wide=wide,
                full=full,
            )
        )

    def _copy(self, target: Tensor) -> None:
        source = self.graph.inputs[0]
        size = math.prod(self.shapes[source])
        self.values[target.index] = target.index
        self.layers = [
            Layer(
                name="layer_copy",
                comment=f"{_times(self.shapes[source])} -> {_times(self.shapes[target.index])}",
                inputs=(source,),
                parameters=("x",),
                output=target.index,
                body=f"    copy_rows(x, y, 1, {size}, {size});\n",
                constants=(),
                kernels=("copy_rows",),
                overlaps=(None,),
            )
        ]

    # Convolutions and dense layers

    def weights(self, operator: Operator, axis: int) -> Tensor:
        tensor = self.tensor(operator.inputs[1])
        if tensor.data is None:
            raise UnsupportedError(f"{operator}: its weights are not constant")
        if tensor.dtype != "int8" or not len(tensor.scale):
            raise UnsupportedError(f"{operator}: its weights are {tensor.dtype}, int8 with a scale is needed")
        if len(tensor.scale) > 1 and tensor.axis != axis:
            raise ArtifactError(f"{operator}: its weights have scales along axis {tensor.axis}, not {axis}")
        if tensor.zero_point.any():
            raise UnsupportedError(f"{operator}: its weights have a zero point, which int8 weights must not have")
        return tensor

    def bias(self, operator: Operator, outputs: int) -> NDArray[np.int64]:
        if len(operator.inputs) < 3 or operator.inputs[2] < 0:
            return np.zeros(outputs, np.int64)
        tensor = self.tensor(operator.inputs[2])
        if tensor.data is None or tensor.dtype != "int32":
            raise UnsupportedError(f"{operator}: its bias is {tensor.dtype}, a constant int32 is needed")
        if tensor.data.size != outputs:
            raise ArtifactError(f"{operator}: its bias has {tensor.data.size} values for {outputs} channels")
        return tensor.data.reshape(-1).astype(np.int64)

    def channels(
        self, operator: Operator, rows: NDArray[np.int8], factors: NDArray[np.float64]
    ) -> tuple[list[Constant], bool]:
        """Bias, multiplier and shift of each output, whose weights are a row of ``rows``; ``factors`` scale its sum.

        The bias takes the input's zero point in. A channel whose sum may leave ±2³⁰, or whose factor is not below 1,
        gets the shift of the kernel's wide path.
        """
        name = self.name(operator)
        zero = int(self.tensor(operator.inputs[0]).zero_point[0])
        bias = self.bias(operator, len(rows))
        wide_rows = rows.astype(np.int64)
        ends = wide_rows[:, :, None] * np.array([-128 - zero, 127 - zero])
        largest = np.maximum(np.abs(bias + ends.max(axis=2).sum(axis=1)), np.abs(bias + ends.min(axis=2).sum(axis=1)))
        pairs = [numerics.quantize_multiplier(float(factor)) for factor in factors]
        shifts = [_shift(operator, shift, int(bound)) for (_, shift), bound in zip(pairs, largest, strict=True)]
        folded = bias - zero * wide_rows.sum(axis=1)
        wrapped = (folded & 0xFFFFFFFF).astype(np.uint32).view(np.int32)
        constants = [
            Constant(name=f"{name}_bias", type="int32_t", values=wrapped),
            Constant(name=f"{name}_multiplier", type="int32_t", values=np.array([m for m, _ in pairs], np.int32)),
            Constant(name=f"{name}_shift", type="int8_t", values=np.array(shifts, np.int8)),
        ]
        return constants, min(shifts, default=0) < 0

    def factors(self, operator: Operator, outputs: int) -> NDArray[np.float64]:
        """Real factor between the sums of products and the output, for each output."""
        source, weights, output = (self.tensor(index) for index in (*operator.inputs[:2], operator.outputs[0]))
        if operator.kind == "FULLY_CONNECTED" and len(weights.scale) == 1:
            # the kernel multiplies in float32 here
            with np.errstate(over="ignore", under="ignore"):
                product = source.scale[0] * weights.scale[0]
            factors = np.full(outputs, float(product) / float(output.scale[0]))
        else:
            scales = np.broadcast_to(weights.scale.astype(np.float64), (outputs,))
            factors = float(source.scale[0]) * scales / float(output.scale[0])
        if not np.isfinite(factors).all():
            raise ArtifactError(f"{operator}: the product of its input's and weights' scales is no float32")
        return factors

    def convolution(self, operator: Operator) -> None:
        depthwise = operator.kind == "DEPTHWISE_CONV_2D"
        source = self.quantized(operator, operator.inputs[0])
        output = self.quantized(operator, operator.outputs[0])
        weights = self.weights(operator, 3 if depthwise else 0)
        four_dimensions(operator, source, weights, output)
        assert weights.data is not None
        if not weights.data.size:
            raise ArtifactError(f"{operator}: its weights of shape {weights.shape} are empty")
        _, height, width, channels = shape = _one_image(operator, self.shape(operator))
        kernel = weights.shape[1:3]
        outputs = weights.shape[3] if depthwise else weights.shape[0]
        if len(weights.scale) not in (1, outputs):
            raise ArtifactError(f"{operator}: its weights have {len(weights.scale)} scales for {outputs} channels")
        fits = weights.shape[0] == 1 and outputs % channels == 0 if depthwise else weights.shape[3] == channels
        if (
            not depthwise
            and not fits
            and channels % weights.shape[3] == 0
            and outputs * weights.shape[3] % channels == 0
        ):
            raise UnsupportedError(f"{operator}: a convolution in groups is not written as C")
        if not fits:
            raise ArtifactError(f"{operator}: weights of shape {weights.shape} do not fit {channels} channels")
        stride = operator.counts("strideH", "strideW")
        dilation = operator.counts("dilationHFactor", "dilationWFactor")
        out, pad = _window(operator, (height, width), kernel, stride, dilation)
        self.make(operator, (1, *out, outputs))
        rows = weights.data[0].reshape(-1, outputs).T if depthwise else weights.data.reshape(outputs, -1)
        constants, wide = self.channels(operator, rows, self.factors(operator, outputs))
        low, high = _range(operator, output)
        fields = {
            "in_height": height, "in_width": width, "channels": channels,
            "out_height": out[0], "out_width": out[1], "outputs": outputs,
            "kernel_height": kernel[0], "kernel_width": kernel[1],
            "stride_height": stride[0], "stride_width": stride[1],
            "dilation_height": dilation[0], "dilation_width": dilation[1],
            "pad_top": pad[0], "pad_left": pad[1],
        }  # fmt: skip
        if depthwise:
            plane = [(size - 1) * step + (taps - 1) * apart + 1 for size, step, taps, apart in
                     zip(out, stride, kernel, dilation, strict=True)]  # fmt: skip
            plane[1] += plane[1] % 2
            fields |= {"plane_height": plane[0], "plane_width": plane[1]}
            scratch = 2 * (plane[0] * plane[1] + _HELIUM_LANES * max(stride))
            packed = rows
        else:
            packed = in_fours(rows)
            scratch = 2 * 2 * packed.shape[1]
        fields |= {
            "in_zero": int(source.zero_point[0]),
            "out_zero": int(output.zero_point[0]),
            "low": low,
            "high": high,
        }
        constants.insert(
            0,
            Constant(
                name=f"{self.name(operator)}_weights",
                type="int8_t",
                values=packed.reshape(-1) if depthwise else _padded(packed),
            ),
        )
        kind = operator.kind.lower()
        self.add(
            operator,
            operator.inputs[:1],
            f"{kind}(&s, @0, y, scratch)",
            [kind],
            constants=constants,
            struct=_struct(kind, ("weights", "bias", "multiplier", "shift"), fields),
            scratch=scratch,
            overlaps=[_overlap(kind, shape, (1, *out, outputs), stride, pad)],
            wide=wide,
            full=(low, high) == _INT8,
        )

    def dense(self, operator: Operator) -> None:
        self.quantized(operator, operator.inputs[0])
        output = self.quantized(operator, operator.outputs[0])
        weights = self.weights(operator, 0)
        assert weights.data is not None
        if operator.options["weightsFormat"] != 0:
            raise UnsupportedError(f"{operator}: weights in shuffled order are not written as C")
        shape = self.shape(operator)
        if weights.data.ndim != 2 or not weights.data.size or math.prod(shape) % weights.shape[1]:
            raise ArtifactError(f"{operator}: weights of shape {weights.shape} do not fit its input {shape}")
        outputs, taps = weights.shape
        rows = math.prod(shape) // taps
        keeps = bool(operator.options["keepNumDims"])
        if keeps and shape[-1] != taps:
            raise ArtifactError(f"{operator}: weights of shape {weights.shape} do not fit its input {shape}")
        made = (*shape[:-1], outputs) if keeps else (rows, outputs)
        self.make(operator, made)
        data = np.zeros((outputs, -(-taps // 4) * 4), np.int8)
        data[:, :taps] = weights.data
        constants, wide = self.channels(operator, weights.data, self.factors(operator, outputs))
        low, high = _range(operator, output)
        name = self.name(operator)
        constants.insert(0, Constant(name=f"{name}_weights", type="int8_t", values=_padded(data)))
        fields = {
            "rows": rows, "taps": taps, "outputs": outputs,
            "out_zero": int(output.zero_point[0]), "low": low, "high": high,
        }  # fmt: skip
        self.add(
            operator,
            operator.inputs[:1],
            "fully_connected(&s, @0, y)",
            ["fully_connected"],
            constants=constants,
            struct=_struct("fully_connected", ("weights", "bias", "multiplier", "shift"), fields),
            wide=wide,
            full=(low, high) == _INT8,
        )

    # Pooling and means

    def pool(self, operator: Operator) -> None:
        source, output = (self.quantized(operator, index) for index in (operator.inputs[0], operator.outputs[0]))
        _same_quantization(operator, source, output)
        four_dimensions(operator, source, output)
        _, height, width, channels = shape = _one_image(operator, self.shape(operator))
        kernel = operator.counts("filterHeight", "filterWidth")
        stride = operator.counts("strideH", "strideW")
        out, pad = _window(operator, (height, width), kernel, stride, [1, 1])
        self.make(operator, (1, *out, channels))
        low, high = _range(operator, output)
        fields = {
            "in_height": height, "in_width": width, "channels": channels, "out_height": out[0], "out_width": out[1],
            "kernel_height": kernel[0], "kernel_width": kernel[1],
            "stride_height": stride[0], "stride_width": stride[1],
            "pad_top": pad[0], "pad_left": pad[1], "low": low, "high": high,
        }  # fmt: skip
        kind = operator.kind.lower()
        self.add(
            operator, operator.inputs[:1], f"{kind}(&s, @0, y)", [kind], struct=_struct("pool", (), fields),
            overlaps=[_overlap(kind, shape, (1, *out, channels), stride, pad)], full=(low, high) == _INT8,
        )  # fmt: skip

    def mean(self, operator: Operator) -> None:
        source, output = (self.quantized(operator, index) for index in (operator.inputs[0], operator.outputs[0]))
        shape = self.shape(operator)
        keep = bool(operator.options["keepDims"])
        axes = sorted({axis_of(operator, axis, source) for axis in self.integers(operator, 1)})
        if not axes:
            raise UnsupportedError(f"{operator}: a mean over no axis is not written as C")
        inside = [axis for axis in range(axes[0], axes[-1] + 1) if axis not in axes and shape[axis] != 1]
        if inside:
            raise UnsupportedError(
                f"{operator}: a mean over axes {axes}, which are not neighbours, is not written as C"
            )
        made = tuple(1 if axis in axes else size for axis, size in enumerate(shape) if keep or axis not in axes)
        self.make(operator, made)
        count = math.prod(shape[axis] for axis in axes)
        fields = {
            "outer": math.prod(shape[: axes[0]]), "reduced": count, "inner": math.prod(shape[axes[-1] + 1 :]),
        }  # fmt: skip
        multiplier, shift = numerics.quantize_multiplier(float(source.scale[0]) / float(output.scale[0]))
        down = min(count.bit_length() - 1, 32, 31 + shift)
        multiplier = (multiplier << down) // count
        zero = int(source.zero_point[0])
        if count > 2**22:
            raise UnsupportedError(f"{operator}: a mean of {count} values may overflow")
        shift = _shift(operator, shift - down, count * 255)
        fields |= {
            "in_zeros": zero * count, "multiplier": multiplier, "shift": shift, "out_zero": int(output.zero_point[0]),
        }  # fmt: skip
        self.add(operator, operator.inputs[:1], "mean(&s, @0, y)", ["mean"], struct=_struct("mean", (), fields),
                 wide=shift < 0)  # fmt: skip

    # Elementwise

    def binary(self, operator: Operator) -> None:
        first, second = (self.quantized(operator, index) for index in operator.inputs[:2])
        output = self.quantized(operator, operator.outputs[0])
        shapes = [self.shape(operator, place) for place in range(2)]
        try:
            made = np.broadcast_shapes(*shapes)
        except ValueError as error:
            raise ArtifactError(f"{operator}: {shapes[0]} and {shapes[1]} do not fit together") from error
        self.make(operator, made)
        sizes, strides = _collapsed(operator, made, shapes)
        low, high = _range(operator, output)
        scales = [float(tensor.scale[0]) for tensor in (first, second, output)]
        fields: dict[str, Any] = {
            "size": sizes, "stride_a": strides[0], "stride_b": strides[1],
            "zero_a": int(first.zero_point[0]), "zero_b": int(second.zero_point[0]),
            "out_zero": int(output.zero_point[0]), "low": low, "high": high,
        }  # fmt: skip
        if operator.kind == "MUL":
            multiplier, shift = numerics.quantize_multiplier(scales[0] * scales[1] / scales[2])
            shift = _shift(operator, shift, 255 * 255)
            call, kernel = "mul(&s, @0, @1, y)", "mul"
        else:
            largest = 2 * max(scales[:2])
            for key, scale in (("a", scales[0]), ("b", scales[1])):
                multiplier, shift = numerics.quantize_multiplier(scale / largest)
                left = 20
                if (multiplier, shift) == (2**30, 0):  # exactly a half: the same, in the range of the fast path
                    left, shift = 21, -1
                fields |= {
                    f"left_{key}": left, f"multiplier_{key}": multiplier,
                    f"shift_{key}": _shift(operator, shift, 255 << left),
                }  # fmt: skip
            multiplier, shift = numerics.quantize_multiplier(largest / (2**20 * scales[2]))
            if shift > 0:
                raise UnsupportedError(f"{operator}: its output's scale is too small for those of its inputs")
            shift = _shift(operator, shift, 255 << 20)
            call, kernel = f"add(&s, @0, @1, y, {-1 if operator.kind == 'SUB' else 1})", "add"
        fields |= {"multiplier": multiplier, "shift": shift}
        wide = min(shift, fields.get("shift_a", 1), fields.get("shift_b", 1)) < 0
        self.add(
            operator, operator.inputs[:2], call, [kernel], struct=_struct("binary", (), fields),
            overlaps=[_overlap(kernel, shape, made) for shape in shapes], wide=wide, full=(low, high) == _INT8,
        )  # fmt: skip

    def unary(self, operator: Operator) -> None:
        """A function of single values: all its 256 results stand in a table."""
        allowed = ("int8", "uint8") if operator.kind == "QUANTIZE" else ("int8",)
        source, output = (
            self.quantized(operator, index, allowed) for index in (operator.inputs[0], operator.outputs[0])
        )
        shape = self.shape(operator)
        self.make(operator, shape)
        name = self.name(operator)
        values = numerics.table(_FUNCTIONS[operator.kind](operator, source, output), source.dtype)
        self.add(
            operator, operator.inputs[:1], f"lookup({name}_table, @0, y, {math.prod(shape)})", ["lookup"],
            constants=[Constant(name=f"{name}_table", type="uint8_t", values=values)],
            overlaps=[_overlap("lookup", shape, shape)],
        )  # fmt: skip

    def softmax(self, operator: Operator) -> None:
        source, output = (self.quantized(operator, index) for index in (operator.inputs[0], operator.outputs[0]))
        _wanted_output(operator, output, 1 / 256, -128)
        beta = float(operator.options["beta"])
        if not 0 < beta < math.inf or beta * float(source.scale[0]) * 2**26 <= 1:
            raise UnsupportedError(f"{operator}: a softmax with beta {beta:g} and an input scale of "
                                   f"{float(source.scale[0]):g} is not written as C")  # fmt: skip
        shape = self.shape(operator)
        self.make(operator, shape)
        if shape[-1] > 4095:
            raise UnsupportedError(
                f"{operator}: a softmax over {shape[-1]} values may overflow; at most 4095 are written"
            )
        values = numerics.softmax_table(float(source.scale[0]), beta)
        name = self.name(operator)
        self.add(
            operator, operator.inputs[:1],
            f"softmax({name}_table, {len(values)}, @0, y, {math.prod(shape[:-1])}, {shape[-1]})", ["softmax"],
            constants=[Constant(name=f"{name}_table", type="int32_t", values=values)],
        )  # fmt: skip

    # Values moved

    def reshape(self, operator: Operator) -> None:
        source, output = self.shape(operator), self.tensor(operator.outputs[0])
        first = self.quantized(operator, operator.inputs[0], ("int8", "uint8"))
        self.quantized(operator, output.index, (first.dtype,))
        if first.data is not None:
            raise UnsupportedError(f"{operator}: a constant reshaped is not written as C")
        made = _filled(operator, output.shape, source)
        self.make(operator, made)
        self.values[output.index] = self.values[operator.inputs[0]]

    def concatenation(self, operator: Operator) -> None:
        output = self.quantized(operator, operator.outputs[0])
        sources = [self.quantized(operator, index) for index in operator.inputs]
        if operator.options["fusedActivationFunction"] != 0:
            raise UnsupportedError(f"{operator}: a fused activation is not written as C here")
        for source in sources:
            _same_quantization(operator, source, output)
        shapes = [self.shape(operator, place) for place in range(len(sources))]
        axis = axis_of(operator, operator.options["axis"], output)
        others = {(len(shape), shape[:axis], shape[axis + 1 :]) for shape in shapes}
        if len(others) != 1:
            raise ArtifactError(f"{operator}: inputs of shapes {', '.join(map(str, shapes))} do not fit together")
        made = (*shapes[0][:axis], sum(shape[axis] for shape in shapes), *shapes[0][axis + 1 :])
        self.make(operator, made)
        stride, start, calls = math.prod(made[axis:]), 0, []
        for place, shape in enumerate(shapes):
            count = math.prod(shape[axis:])
            calls.append(f"copy_rows(@{place}, y + {start}, {math.prod(made[:axis])}, {count}, {stride})")
            start += count
        self.add(operator, operator.inputs, ";\n    ".join(calls), ["copy_rows"])

    def pad(self, operator: Operator) -> None:
        source, output = (self.quantized(operator, index) for index in (operator.inputs[0], operator.outputs[0]))
        _same_quantization(operator, source, output)
        shape = self.shape(operator)
        pairs = np.asarray(self.integers(operator, 1)).reshape(-1, 2)
        if len(pairs) != len(shape) or (pairs < 0).any():
            raise ArtifactError(f"{operator}: paddings {pairs.tolist()} do not fit {len(shape)} dimensions")
        value = int(output.zero_point[0])
        if operator.kind == "PADV2":
            constant = self.quantized(operator, operator.inputs[2])
            if constant.data is None or constant.data.size != 1:
                raise UnsupportedError(f"{operator}: what it pads with is not one constant value")
            _same_quantization(operator, constant, output)
            value = int(constant.data.reshape(-1)[0])
        made = tuple(int(before + size + after) for (before, after), size in zip(pairs, shape, strict=True))
        self.make(operator, made)
        if len(shape) > _MAX_RANK:
            raise UnsupportedError(f"{operator}: {len(shape)} dimensions are more than the {_MAX_RANK} written as C")
        strides = _strides(made)
        start = sum(int(before) * stride for (before, _), stride in zip(pairs, strides, strict=True))
        fields = {
            "size": _extended(shape, _MAX_RANK, 1), "stride": _extended(strides, _MAX_RANK, 0), "start": start,
            "total": math.prod(made), "value": value,
        }  # fmt: skip
        self.add(operator, operator.inputs[:1], "pad(&s, @0, y)", ["pad"], struct=_struct("pad", (), fields))

    def transpose(self, operator: Operator) -> None:
        source, output = (self.quantized(operator, index) for index in (operator.inputs[0], operator.outputs[0]))
        _same_quantization(operator, source, output)
        shape, order = self.shape(operator), self.integers(operator, 1)
        if sorted(order) != list(range(len(shape))):
            raise ArtifactError(f"{operator}: {order} is no order of {len(shape)} dimensions")
        self.make(operator, tuple(shape[axis] for axis in order))
        strides = _strides(shape)
        self._rearrange(operator, [shape[axis] for axis in order], [strides[axis] for axis in order])

    def tile(self, operator: Operator) -> None:
        source, output = (self.quantized(operator, index) for index in (operator.inputs[0], operator.outputs[0]))
        _same_quantization(operator, source, output)
        shape, repeats = self.shape(operator), self.integers(operator, 1)
        if len(repeats) != len(shape) or min(repeats) < 1:
            raise ArtifactError(f"{operator}: repeats {repeats} do not fit {len(shape)} dimensions")
        self.make(operator, tuple(size * times for size, times in zip(shape, repeats, strict=True)))
        sizes = [size for pair in zip(repeats, shape, strict=True) for size in pair]
        strides = [stride for own in _strides(shape) for stride in (0, own)]
        kept = [place for place, size in enumerate(sizes) if size != 1]
        self._rearrange(operator, [sizes[place] for place in kept], [strides[place] for place in kept])

    def _rearrange(self, operator: Operator, sizes: Sequence[int], strides: Sequence[int]) -> None:
        if len(sizes) > 8:
            raise UnsupportedError(f"{operator}: {len(sizes)} dimensions are more than the 8 written as C")
        fields = {"size": _extended(sizes, 8, 1), "stride": _extended(strides, 8, 0)}
        self.add(operator, operator.inputs[:1], "rearrange(&s, @0, y)", ["rearrange"],
                 struct=_struct("rearrange", (), fields))  # fmt: skip

    def resize(self, operator: Operator) -> None:
        source, output = (self.quantized(operator, index) for index in (operator.inputs[0], operator.outputs[0]))
        _same_quantization(operator, source, output)
        four_dimensions(operator, source, output)
        _, height, width, channels = _one_image(operator, self.shape(operator))
        target = self.integers(operator, 1)
        if len(target) != 2 or min(target) < 1:
            raise ArtifactError(f"{operator}: it resizes to {target}, a height and a width are needed")
        self.make(operator, (1, *target, channels))
        aligned, half = bool(operator.options["alignCorners"]), bool(operator.options["halfPixelCenters"])
        if max(height, width, *target) >= 2**15:
            raise UnsupportedError(f"{operator}: sizes from 32768 on are not written as C")
        places = _nearest if operator.kind == "RESIZE_NEAREST_NEIGHBOR" else _between
        rows, columns = (
            np.array([places(operator, at, size, new, aligned, half) for at in range(new)], np.int16)
            for size, new in zip((height, width), target, strict=True)
        )
        kind = operator.kind.lower()
        name = self.name(operator)
        fields = {"in_width": width, "channels": channels, "out_height": target[0], "out_width": target[1]}
        self.add(
            operator, operator.inputs[:1], f"{kind}(&s, @0, y)", [kind],
            constants=[
                Constant(name=f"{name}_rows", type="int16_t", values=rows),
                Constant(name=f"{name}_columns", type="int16_t", values=columns),
            ],
            struct=_struct(kind, ("rows", "columns"), fields),
        )  # fmt: skip


# Functions of single values


def _requantized(operator: Operator, source: Tensor, output: Tensor) -> Callable[[int], int]:
    multiplier, shift = numerics.quantize_multiplier(float(source.scale[0]) / float(output.scale[0]))
    zero, out_zero = int(source.zero_point[0]), int(output.zero_point[0])
    activation = {"RELU": 1, "RELU_N1_TO_1": 2, "RELU6": 3}.get(operator.kind, 0)
    low, high = _range(operator, output, activation)
    return lambda value: min(max(numerics.rescale(value - zero, multiplier, shift) + out_zero, low), high)


def _leaky(operator: Operator, source: Tensor, output: Tensor) -> Callable[[int], int]:
    alpha = np.float32(operator.options["alpha"])
    if not np.isfinite(alpha):
        raise ArtifactError(f"{operator}: its alpha is {alpha}")
    above = numerics.quantize_multiplier(float(source.scale[0] / output.scale[0]))
    below = numerics.quantize_multiplier(float(source.scale[0] * alpha / output.scale[0]))
    zero, out_zero = int(source.zero_point[0]), int(output.zero_point[0])

    def function(value: int) -> int:
        factor = above if value >= zero else below
        return min(max(numerics.rescale(value - zero, *factor) + out_zero, -128), 127)

    return function


def _logistic(operator: Operator, source: Tensor, output: Tensor) -> Callable[[int], int]:
    _wanted_output(operator, output, 1 / 256, -128)
    return numerics.logistic(float(source.scale[0]), int(source.zero_point[0]))


def _tanh(operator: Operator, source: Tensor, output: Tensor) -> Callable[[int], int]:
    _wanted_output(operator, output, 1 / 128, 0)
    return numerics.tanh(float(source.scale[0]), int(source.zero_point[0]))


def _hard_swish(operator: Operator, source: Tensor, output: Tensor) -> Callable[[int], int]:
    finest = float(source.scale[0]) / 128
    if finest >= float(output.scale[0]):
        raise UnsupportedError(f"{operator}: its output's scale is too small for that of its input")
    if min(finest / float(output.scale[0]), finest / (3 / 32768)) < 2**-15:  # the kernel shifts 16 bits
        raise UnsupportedError(f"{operator}: its input's scale is too small")
    return numerics.hard_swish(source.scale[0], int(source.zero_point[0]), output.scale[0], int(output.zero_point[0]))


_FUNCTIONS: dict[str, Callable[[Operator, Tensor, Tensor], Callable[[int], int]]] = {
    "HARD_SWISH": _hard_swish,
    "LEAKY_RELU": _leaky,
    "LOGISTIC": _logistic,
    "QUANTIZE": _requantized,
    "RELU": _requantized,
    "RELU6": _requantized,
    "RELU_N1_TO_1": _requantized,
    "TANH": _tanh,
}

# Helpers


def in_fours(rows: NDArray[np.int8]) -> NDArray[np.int8]:
    """Rows filled up with zeros to a multiple of four, each four in the order 0 2 1 3.

    So the even bytes of a word are the first two of its weights, the odd ones the other two: SXTB16 makes of each
    pair what SMLAD takes together with two neighbouring inputs.
    """
    padded = np.zeros((len(rows), -(-rows.shape[1] // 4) * 4), np.int8)
    padded[:, : rows.shape[1]] = rows
    return padded.reshape(len(rows), -1, 4)[:, :, _IN_FOURS].reshape(padded.shape)


def _padded(rows: NDArray[np.int8]) -> NDArray[np.int8]:
    return np.concatenate([rows.reshape(-1), np.zeros(_HELIUM_BYTES, np.int8)])


def printable(text: str) -> str:
    """A name from a file, fit for a comment in C."""
    return re.sub(r"[^A-Za-z0-9_./:;,()\[\] -]", "_", text)[:80]


def _times(shape: Shape) -> str:
    return "x".join(map(str, shape)) or "1"


def _struct(kind: str, arrays: Sequence[str], fields: dict[str, Any]) -> str:
    """A definition of ``s`` with designated initialisers; ``arrays`` are named after the layer."""
    items = [f".{array} = @name_{array}" for array in arrays]
    for key, value in fields.items():
        text = f"{{{', '.join(map(str, value))}}}" if isinstance(value, list) else _number(value)
        items.append(f".{key} = {text}")
    lines, line = [], ""
    for item in items:
        if len(line) + len(item) > 100:
            lines.append(line)
            line = ""
        line += f"{item}, "
    lines.append(line)
    inner = "\n".join(f"        {line.strip()}" for line in lines)
    return f"{kind} s = {{\n{inner}\n    }};"


def _number(value: int) -> str:
    return "(-2147483647 - 1)" if value == numerics.INT32_MIN else str(value)


def _shift(operator: Operator, shift: int, bound: int) -> int:
    """How a shift stands in the code: places to the right, or -64 - places to the left for the kernel's wide path."""
    if shift > 30:
        raise UnsupportedError(f"{operator}: its scales are too far apart")
    return -shift if -22 <= shift <= -1 and bound < 2**30 else -64 - shift


def _range(operator: Operator, output: Tensor, activation: int | None = None) -> tuple[int, int]:
    """Lowest and highest integer after the fused activation."""
    if activation is None:
        activation = int(operator.options["fusedActivationFunction"])
    info = np.iinfo(output.dtype)
    ends: dict[int, tuple[float | None, float | None]] = {
        0: (None, None), 1: (0.0, None), 2: (-1.0, 1.0), 3: (0.0, 6.0),
    }  # fmt: skip
    if activation not in ends:
        raise UnsupportedError(f"{operator}: fused activation {activation} is not written as C")

    def quantized(real: float) -> int:
        steps = numerics.round_half_away(float(np.float32(real) / output.scale[0]))
        return int(output.zero_point[0]) + steps

    low, high = ends[activation]
    lowest = info.min if low is None else max(info.min, quantized(low))
    highest = info.max if high is None else min(info.max, quantized(high))
    return int(lowest), int(highest)


def _equally_quantized(a: Tensor, b: Tensor) -> bool:
    return bool(a.scale[0] == b.scale[0] and a.zero_point[0] == b.zero_point[0])


def _same_quantization(operator: Operator, a: Tensor, b: Tensor) -> None:
    if not _equally_quantized(a, b):
        raise UnsupportedError(
            f"{operator}: {a.name!r} and {b.name!r} differ in scale or zero point, which it cannot change"
        )


def _wanted_output(operator: Operator, output: Tensor, scale: float, zero_point: int) -> None:
    if float(output.scale[0]) != scale or int(output.zero_point[0]) != zero_point:
        raise UnsupportedError(
            f"{operator}: its output has scale {float(output.scale[0]):g} and zero point {int(output.zero_point[0])}; "
            f"the kernel gives {scale:g} and {zero_point} only"
        )


def _one_image(operator: Operator, shape: Shape) -> Shape:
    if len(shape) != 4:
        raise ArtifactError(f"{operator}: its input has shape {shape}, not four dimensions")
    if shape[0] != 1:
        raise UnsupportedError(f"{operator}: a batch of {shape[0]}; the C code takes one image at a time")
    return shape


def _window(
    operator: Operator, size: Sequence[int], kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
) -> tuple[list[int], list[int]]:
    """Height and width of the output, and padding before, of TFLite's SAME (0) or VALID (1)."""
    padding = operator.options["padding"]
    if padding not in (0, 1):
        raise ArtifactError(f"{operator}: padding {padding} is neither SAME nor VALID")
    out, before = [], []
    for length, taps, step, apart in zip(size, kernel, stride, dilation, strict=True):
        extent = (taps - 1) * apart + 1
        made = -(-length // step) if padding == 0 else (length - extent) // step + 1
        if made < 1:
            raise ArtifactError(f"{operator}: a kernel of {extent} does not fit an input of {length}")
        out.append(made)
        before.append(max((made - 1) * step + extent - length, 0) // 2 if padding == 0 else 0)
    return out, before


def _overlap(
    kernel: str, shape: Shape, made: Shape, stride: Sequence[int] = (1, 1), pad: Sequence[int] = (0, 0)
) -> Overlap | None:
    """How an output of shape ``made`` may lie over an input, by the order that the kernel's code says it keeps."""
    order = kernels.order(kernel)
    if order == "values" and math.prod(made) == math.prod(shape):  # not one repeated
        return Overlap(distance=0, exact=False)
    if order == "pixels":
        return Overlap(distance=_distance(shape, made, stride, pad), exact=False)
    if order == "channels" and made[3] == shape[3] and math.prod(made) <= math.prod(shape):
        return Overlap(distance=0, exact=True)
    return None


def _distance(shape: Shape, made: Shape, stride: Sequence[int], pad: Sequence[int]) -> int:
    """How many bytes the output must begin before the input so that no value is overwritten before its last use."""
    _, height, width, channels = shape
    rows = np.maximum(np.arange(made[1]) * stride[0] - pad[0], 0) * width * channels
    columns = np.maximum(np.arange(made[2]) * stride[1] - pad[1], 0) * channels
    first = rows[:, None] + columns  # what each pixel reads first, or before
    later = np.append(rows[1:], height * width * channels)  # no later row reads what is before this
    first = np.minimum(first, later[:, None]).reshape(-1)
    written = np.arange(len(first)) * made[3]  # when a pixel is read, those before are written
    return int(max(0, (written - first).max()))


def _strides(shape: Sequence[int]) -> list[int]:
    return [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]


def _extended(values: Sequence[int], rank: int, fill: int) -> list[int]:
    return [fill] * (rank - len(values)) + list(values)


def _collapsed(operator: Operator, made: Shape, shapes: Sequence[Shape]) -> tuple[list[int], list[list[int]]]:
    """Sizes and strides of a broadcast in four dimensions; neighbours that run through are made one."""
    padded = [_extended(shape, len(made), 1) for shape in shapes]
    strides = [
        [0 if size == 1 else stride for size, stride in zip(shape, _strides(shape), strict=True)] for shape in padded
    ]
    axes: list[list[int]] = []  # size and the strides of each operand
    for axis in range(len(made)):
        now = [made[axis], *(stride[axis] for stride in strides)]
        if made[axis] == 1:
            continue
        if axes and all(before == own * now[0] for before, own in zip(axes[-1][1:], now[1:], strict=True)):
            axes[-1] = [axes[-1][0] * now[0], *now[1:]]
        else:
            axes.append(now)
    if len(axes) > _MAX_RANK:
        raise UnsupportedError(f"{operator}: a broadcast in {len(axes)} dimensions is not written as C")
    axes = [[1, *[0] * len(shapes)]] * (_MAX_RANK - len(axes)) + axes
    return [axis[0] for axis in axes], [[axis[1 + place] for axis in axes] for place in range(len(shapes))]


def _filled(operator: Operator, shape: Shape, source: Shape) -> Shape:
    """The target of a reshape, sizes that the file leaves free filled in."""
    total = math.prod(source)
    free = [place for place, size in enumerate(shape) if size < 0]
    known = math.prod(size for size in shape if size >= 0)
    if len(free) > 1 and shape[0] < 0:  # the batch and one size more
        shape = (source[0], *shape[1:])
        free, known = free[1:], known * source[0]
    if len(free) > 1 or known == 0 or total % known or (not free and total != known):
        raise ArtifactError(f"{operator}: {source} cannot become {shape}")
    return tuple(total // known if size < 0 else size for size in shape)


def _nearest(operator: Operator, at: int, size: int, new: int, aligned: bool, half: bool) -> int:
    """Which of the input a place is; in float32 like the kernel."""
    corners = aligned and new > 1
    scale = np.float32(size - 1 if corners else size) / np.float32(new - 1 if corners else new)
    real = float((np.float32(at) + np.float32(0.5 if half else 0.0)) * scale)
    found = numerics.round_half_away(real) if aligned else math.floor(real)
    return max(min(found, size - 1), 0)


def _between(operator: Operator, at: int, size: int, new: int, aligned: bool, half: bool) -> tuple[int, int, int]:
    """The two of the input between which a place lies, and how far behind the first, in 1024ths."""
    length, made = (size - 1, new - 1) if aligned and new > 1 else (size, new)
    scale = (1024 * length + made // 2) // made
    real = at * scale + (scale // 2 - 512 if half else 0)
    lower = max(int(real / 1024), 0)
    upper = min(int((real + 1023) / 1024), size - 1)
    if lower >= size:
        raise UnsupportedError(f"{operator}: sizes {size} and {new} make the kernel read behind its input")
    return lower, upper, real - 1024 * lower


_WRITERS: dict[str, Callable[[_Lowering, Operator], None]] = {
    "ADD": _Lowering.binary,
    "AVERAGE_POOL_2D": _Lowering.pool,
    "CONCATENATION": _Lowering.concatenation,
    "CONV_2D": _Lowering.convolution,
    "DEPTHWISE_CONV_2D": _Lowering.convolution,
    "FULLY_CONNECTED": _Lowering.dense,
    "MAX_POOL_2D": _Lowering.pool,
    "MEAN": _Lowering.mean,
    "MUL": _Lowering.binary,
    "PAD": _Lowering.pad,
    "PADV2": _Lowering.pad,
    "RESHAPE": _Lowering.reshape,
    "RESIZE_BILINEAR": _Lowering.resize,
    "RESIZE_NEAREST_NEIGHBOR": _Lowering.resize,
    "SOFTMAX": _Lowering.softmax,
    "SQUEEZE": _Lowering.reshape,
    "SUB": _Lowering.binary,
    "TILE": _Lowering.tile,
    "TRANSPOSE": _Lowering.transpose,
    **dict.fromkeys(_FUNCTIONS, _Lowering.unary),
}
