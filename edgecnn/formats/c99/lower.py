"""Lower the operators of an int8 .tflite to layers of C: kernel call, constants, memory."""

import math
import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgecnn.errors import UnsupportedError
from edgecnn.formats.c99 import bands, channels, numerics, plan, scales
from edgecnn.formats.c99.plan import Overlap
from edgecnn.formats.c99.program import Constant, End, Layer, Program, State, at, printable, struct_of, times
from edgecnn.tflite import operators as ops
from edgecnn.tflite.graph import Graph, Tensor
from edgecnn.tflite.operators import Operation, Shape

_MAX_RANK = 4
_IN_FOURS = (0, 2, 1, 3)
_HELIUM_BYTES = 16  # of a vector
_INT8 = (-128, 127)
_ENDS = ("int8", "uint8", "int16", "int32")  # types of inputs and outputs
_NEAR = 1e-3  # how far TFLite Micro lets the scale of a softmax in int16 be from what it writes
# in calls, the first input and the output as int16
_X16, _Y16 = "(const int16_t *)(const void *)@0", "(int16_t *)(void *)y"
_COMPARISONS = ("EQUAL", "GREATER", "GREATER_EQUAL", "LESS", "LESS_EQUAL", "NOT_EQUAL")
_LEFT = {"SQUARED_DIFFERENCE": 7, **dict.fromkeys(_COMPARISONS, 8)}  # places by which operands are shifted, if not 20
# kinds with a kernel; all kinds of the other records have one
_KINDS: dict[type[Operation], tuple[str, ...]] = {
    ops.Binary: ("ADD", "MAXIMUM", "MINIMUM", "MUL", "PRELU", "SQUARED_DIFFERENCE", "SUB", *_COMPARISONS),
    ops.Reduction: ("MEAN", "REDUCE_MAX", "REDUCE_MIN", "SUM"),
    ops.Softmax: ("SOFTMAX",),
    ops.Unary: ("HARD_SWISH", "LOGISTIC", "TANH"),
}


def lower(graph: Graph, prefix: str = "", cut: bands.Cut | None = None) -> Program:
    """The layers of an int8 graph; the first ones in bands, as ``cut`` says.

    ``prefix`` begins the names of static functions and arrays.

    A QUANTIZE from float32 at its input and a DEQUANTIZE to float32 at its output are removed: the C code uses the
    integers.

    Raises:
        UnsupportedError: an operator, type or option that is not written as C, named with its place.
        ArtifactError: the graph is damaged: an operator whose tensors are missing or do not fit together.
    """
    return _Lowering(ops.without_float_ends(graph), prefix).program(cut)


def problems(graph: Graph) -> tuple[str, ...]:
    """Every reason why an int8 graph cannot be written as C, with position; empty if it can.

    Raises:
        ArtifactError: see ``lower``.
    """
    try:
        lower(graph)
    except UnsupportedError as error:
        return error.reasons
    return ()


def has_kernel(record: type[Operation], kind: str) -> bool:
    """Whether an operator ``kind`` that is read as ``record`` can be written as C."""
    return record in _WRITERS and kind in _KINDS.get(record, (kind,))


class _Lowering:
    def __init__(self, graph: Graph, prefix: str = "") -> None:
        self.graph = graph
        self.prefix = prefix
        self.layers: list[Layer] = []
        self.problems: list[str] = []
        self.reshaped: dict[int, int] = {}  # tensor -> value that it is an alias of
        self.shapes: dict[int, Shape] = {}
        self.states: dict[int, State] = {}  # by value
        self.operations: list[Operation] = []

    def program(self, cut: bands.Cut | None = None) -> Program:
        graph, operations = self.graph, ops.read(self.graph)
        self.problems += graph.unsupported
        sources, targets = ([graph.tensors[index] for index in indices] for indices in (graph.inputs, graph.outputs))
        for kind, tensors in (("input", sources), ("output", targets)):
            for tensor in tensors:
                places = kind == "output" and tensor.dtype == "int32" and not len(tensor.scale)  # of ARG_MAX
                if not places and (tensor.dtype not in _ENDS or len(tensor.scale) != 1):
                    self.problems.append(
                        f"the graph's {kind} {tensor.layer!r} is {tensor.form}; C code supports only int8 or int16 "
                        "with one scale; convert the model with full int8 quantisation"
                    )
            if len(types := sorted({tensor.dtype for tensor in tensors})) > 1:
                self.problems.append(f"the graph's {kind}s are {' and '.join(types)}; C code needs one type")
        self.shapes |= {source.index: ops.for_one_image(source.shape) for source in sources}
        supported = [operation for operation in operations if isinstance(operation, Operation)]
        if len(supported) == len(operations):
            operations = channels.narrowed(supported, graph.outputs)
        self.operations = [operation for operation in operations if isinstance(operation, Operation)]
        stage = None if cut is None else bands.stage(self.operations, graph.inputs, graph.outputs, cut)
        for operation in operations:
            if isinstance(operation, UnsupportedError):
                self.problems.append(str(operation))
            elif stage is not None and operation.output.index in stage.bands:
                self._write_bands(operation, stage)
            else:
                self._write(operation)
        if self.problems:
            raise UnsupportedError(*self.problems)
        taken = {*graph.inputs, *self.states}
        for target in targets:
            if self.value(target.index) in taken:  # only reshaped
                self._copy(target)
            taken.add(self.value(target.index))
        layers = self._needed({*self.states, *(self.value(target.index) for target in targets)})
        used = {*graph.inputs, *(layer.output for layer in layers)} - self.states.keys()
        return Program(
            operations=tuple(self.operations),
            layers=layers,
            stage=stage,
            states=tuple(self.states.values()),
            inputs=self._ends(sources),
            outputs=self._ends(targets),
            sizes={value: math.prod(self.shapes[value]) * _width(graph.tensors[value]) for value in used}
            | ({} if stage is None else stage.sizes),
            names={value: printable(graph.tensors[value].name) for value in used},
        )

    def _write(self, operation: Operation) -> None:
        """Add the operation's layer. If it is unsupported, record a problem and continue with the next."""
        self.shapes[operation.output.index] = operation.output.shape
        try:
            with ops.damage_of(operation.operator):
                _check_types(operation)
                if not has_kernel(type(operation), operation.kind):
                    raise ops.unsupported(operation.operator, "C", ".tflite or .onnx")
                _WRITERS[type(operation)](self, operation)
        except UnsupportedError as error:
            self.problems.append(str(error))

    def _write_bands(self, operation: Operation, stage: bands.Stage) -> None:
        """Add the operation's layer, with a case for each of its bands."""
        written = []
        for one in (*(bands.banded(operation, band) for band in stage.bands[operation.output.index]), operation):
            self._write(one)
            written.append(self.layers.pop())
        *cases, whole = written
        body = "".join(
            f"    case {place}: {{\n{textwrap.indent(case.body, '    ')}        break;\n    }}\n"
            for place, case in enumerate(cases)
        )
        overlaps = tuple(
            None if stage.lasting & {whole.output, value} else plan.farthest([case.overlaps[place] for case in cases])
            for place, value in enumerate(whole.inputs[: len(whole.overlaps)])
        )
        changed = {
            "comment": f"{whole.comment}, in bands of rows",
            "body": f"    switch (band) {{\n{body}    default:\n        break;\n    }}\n",
            "scratch": max(case.scratch for case in cases), "overlaps": overlaps, "banded": True,
        }  # fmt: skip
        self.layers.append(msgspec.structs.replace(whole, **changed))

    def value(self, index: int) -> int:
        """The number of the value that stores a tensor."""
        return self.reshaped.get(index, index)

    def _ends(self, tensors: Sequence[Tensor]) -> tuple[End, ...]:
        found, offset = [], 0
        for tensor in tensors:
            shape = self.shapes[tensor.index]
            if not len(tensor.scale):  # integers that mean themselves
                tensor = msgspec.structs.replace(tensor, scale=np.ones(1, np.float32), zero_point=np.zeros(1, np.int64))
            found.append(End(tensor=tensor, shape=shape, value=self.value(tensor.index), offset=offset))
            offset += math.prod(shape)
        return tuple(found)

    def _needed(self, outputs: set[int]) -> tuple[Layer, ...]:
        """The layers that the outputs depend on."""
        needed, layers = outputs, []
        for layer in reversed(self.layers):
            if layer.output in needed:
                needed.update(layer.inputs)
                layers.append(layer)
        return tuple(reversed(layers))

    def add(
        self,
        operation: Operation,
        call: str,
        kernel: str,
        *,
        fields: dict[str, Any] | None = None,
        struct: str | None = None,
        constants: Mapping[str, NDArray[Any]] = MappingProxyType({}),
        scratch: int = 0,
        overlaps: Sequence[Overlap | None] | None = None,
        wide: bool = False,
    ) -> None:
        """Add a layer with the statement ``call``, in which @0, @1, … are the inputs of ``operation`` or constants.

        ``s`` is a struct of type ``struct``, by default named like the kernel, with ``fields`` and pointers to all
        ``constants``, which are also available as @name_weights and so on.
        """
        name = f"{self.prefix}layer_{len(self.layers)}_{operation.kind.lower()}"
        arrays = [Constant(name=f"{name}_{key}", values=values) for key, values in constants.items()]
        values: list[int] = []
        parameters: list[str] = []
        free: list[Overlap | None] = []
        names: list[str] = []
        for place, tensor in enumerate(operation.inputs):
            if tensor.data is not None:
                arrays.append(Constant(name=f"{name}_constant_{place}", values=tensor.data.reshape(-1)))
                names.append(f"(const int8_t *){arrays[-1].name}" if tensor.dtype == "int16" else arrays[-1].name)
                continue
            value = self.value(tensor.index)
            if value not in values:
                values.append(value)
                parameters.append("x" if len(operation.inputs) == 1 else f"x{place}")
                free.append(overlaps[place] if overlaps else None)
            names.append(parameters[values.index(value)])
        call = re.sub(r"@(\d+)", lambda found: names[int(found[1])], call)
        body = f"    {call};\n"
        if fields is not None:
            body = f"    static const struct {struct_of(struct or kernel, constants, fields)}\n{body}"
        shapes = f"{' and '.join(times(one.shape) for one in operation.inputs)} -> {times(operation.output.shape)}"
        limits = (fields or {}).get("low", _INT8[0]), (fields or {}).get("high", _INT8[1])
        self.layers.append(
            Layer(
                name=name,
                comment=f"{operation.kind} {printable(operation.output.name)}: {shapes}",
                inputs=tuple(values),
                parameters=tuple(parameters),
                output=operation.output.index,
                body=body.replace("@name", name),
                constants=tuple(arrays),
                kernels=(kernel,),
                scratch=scratch,
                overlaps=tuple(free),
                wide=wide,
                full=limits == _INT8,
            )
        )

    def _copy(self, target: Tensor) -> None:
        source = self.value(target.index)
        size = math.prod(self.shapes[source]) * _width(target)
        self.reshaped[target.index] = target.index
        self.layers.append(
            Layer(
                name=f"{self.prefix}layer_{len(self.layers)}_copy",
                comment=f"{times(self.shapes[source])} -> {times(self.shapes[target.index])}",
                inputs=(source,),
                parameters=("x",),
                output=target.index,
                body=f"    copy_rows(x, y, 1, {size}, {size});\n",
                constants=(),
                kernels=("copy_rows",),
                overlaps=(None,),
            )
        )

    # State

    def _state(self, tensor: Tensor, initial: NDArray[Any]) -> State:
        """The state that stores a variable."""
        if tensor.index not in self.states:
            offset = sum(-(-state.initial.nbytes // plan.ALIGNMENT) * plan.ALIGNMENT for state in self.states.values())
            self.states[tensor.index] = State(value=tensor.index, offset=offset, initial=initial.reshape(-1))
            self.shapes[tensor.index] = tensor.shape
        return self.states[tensor.index]

    def read_variable(self, operation: ops.ReadVariable) -> None:
        """The state itself, if everything that reads it comes before it is assigned; else a copy."""
        variable, output = operation.inputs[0], operation.output
        self._state(variable, operation.initial)
        users = [one for one in self.operations if any(tensor.index == output.index for tensor in one.inputs)]
        later = [
            one.position
            for one in self.operations
            if one.output.index == variable.index and one.position > operation.position
        ]
        in_time = all(one.position <= min(later, default=one.position) for one in users)
        if (
            in_time
            and output.index not in self.graph.outputs
            and not any(isinstance(one, ops.Reshape) for one in users)
        ):
            self.reshaped[output.index] = variable.index
            return
        size = math.prod(output.shape)
        self.add(operation, f"copy_rows(@0, y, 1, {size}, {size})", "copy_rows")

    def assign_variable(self, operation: ops.AssignVariable) -> None:
        self._state(operation.output, operation.initial)
        size = math.prod(operation.output.shape)
        self.add(operation, f"copy_rows(@0, y, 1, {size}, {size})", "copy_rows")

    def svdf(self, operation: ops.Svdf) -> None:
        source, state, output = operation.inputs[0], operation.state, operation.output
        filters, steps = operation.time.shape
        own = self._state(state, np.full(filters * steps, scales.zero(state), np.int8))
        # the kernel multiplies scales in float32
        scale = [tensor.scale[0] for tensor in (source, operation.features, state, operation.time, output)]
        with np.errstate(all="ignore"):
            factors = scale[0] * scale[1] / scale[2], scale[2] * scale[3] / scale[4]
        if not np.isfinite(factors).all():
            raise UnsupportedError(f"{operation}: its scales are too far apart")
        pairs = [numerics.quantize_multiplier(float(factor)) for factor in factors]
        largest = int(np.abs(operation.bias.astype(np.int64)).max()) + operation.rank * steps * 128 * 255
        bounds = source.shape[1] * 128 * 255, largest
        shifts = [_shift(operation, shift, bound) for (_, shift), bound in zip(pairs, bounds, strict=True)]
        features, time = operation.features.data, operation.time.data
        assert features is not None
        assert time is not None
        fields = {
            "inputs": source.shape[1], "outputs": filters // operation.rank, "rank": operation.rank, "steps": steps,
            "in_zero": scales.zero(source), "state_zero": scales.zero(state), "out_zero": scales.zero(output),
            "multiplier": [pair[0] for pair in pairs], "shift": shifts,
        }  # fmt: skip
        self.add(
            operation, f"svdf(&s, @0, {at(f'{self.prefix}state', own.offset)}, y)", "svdf", fields=fields,
            constants={"features": features.reshape(-1), "time": time.reshape(-1), "bias": operation.bias.reshape(-1)},
            wide=min(shifts) < 0,
        )  # fmt: skip

    def lstm(self, operation: ops.Lstm) -> None:
        source, hidden, cell = operation.inputs[0], operation.hidden, operation.cell
        power = round(math.log2(scales.scale(cell)))
        if 2.0**power != scales.scale(cell) or not -31 <= power <= 0:
            raise UnsupportedError(
                f"{operation}: the scale of its cell is {scales.scale(cell):g}; a power of two up to 1 is needed"
            )
        units, inputs = hidden.shape[-1], source.shape[-1]
        before = self._state(hidden, np.full(units, scales.zero(hidden), np.int8))
        memory = self._state(cell, np.zeros(units, np.int16))
        weights: list[NDArray[Any]] = []
        recurrent: list[NDArray[Any]] = []
        bias, pairs, bounds = [], [], []
        for gate in operation.gates:
            for tensor, from_, own in ((gate.weights, source, weights), (gate.recurrent, hidden, recurrent)):
                assert tensor.data is not None
                first = gate.bias.astype(np.int64) if tensor is gate.weights else np.zeros(units, np.int64)
                bias.append(first - scales.zero(from_) * tensor.data.sum(axis=1, dtype=np.int64))
                bounds.append(int(np.abs(first).max()) + tensor.shape[1] * 128 * 255)
                pairs.append(numerics.quantize_multiplier(scales.scale(from_) * float(tensor.scale[0]) * 2**12))
                own.append(tensor.data)
        unit = 2.0**-15  # the scale of gates
        factors = unit, unit * unit / scales.scale(cell), unit * unit / scales.scale(hidden)
        pairs += [numerics.quantize_multiplier(factor) for factor in factors]
        bounds += [32767 * 32768] * len(factors)
        shifts = [_shift(operation, shift, bound) for (_, shift), bound in zip(pairs, bounds, strict=True)]
        clip = min(operation.clip / scales.scale(cell), 32767) if operation.clip > 0 else 32768
        fields = {
            "steps": math.prod(source.shape) // inputs, "inputs": inputs, "units": units,
            "multiplier": [pair[0] for pair in pairs], "shift": shifts,
            "tanh_shift": 12 + power, "clip": int(clip), "out_zero": scales.zero(hidden),
        }  # fmt: skip
        state = f"{self.prefix}state"
        cells = f"(int16_t *)(void *)({at(state, memory.offset)})"
        self.add(
            operation, f"lstm(&s, @0, {at(state, before.offset)}, {cells}, y, scratch)", "lstm",
            fields=fields, wide=min(shifts) < 0, scratch=2 * 4 * units,
            constants={
                "weights": np.concatenate(weights).reshape(-1), "recurrent": np.concatenate(recurrent).reshape(-1),
                "bias": _wrapped(np.concatenate(bias)),
            },
        )  # fmt: skip

    # Convolutions and dense layers

    def convolution(self, operation: ops.Convolution) -> None:
        _one_image(operation)
        source, output = operation.inputs[0], operation.output
        kernel, stride, dilation = operation.kernel, operation.stride, operation.dilation
        outputs, values = output.shape[3], operation.weights.values
        fields = {
            **_sizes(operation), "outputs": outputs,
            "kernel_height": kernel[0], "kernel_width": kernel[1],
            "stride_height": stride[0], "stride_width": stride[1],
            "dilation_height": dilation[0], "dilation_width": dilation[1],
            "pad_top": operation.pads[0], "pad_left": operation.pads[1],
        }  # fmt: skip
        if source.dtype == "int16":
            rows = _rows(operation)
            values = rows.T if operation.depthwise else rows
            self.weighted_16(operation, fields, rows, values)
            return
        if operation.depthwise and (source.shape[3] > 1 or math.prod(kernel) <= 9):
            kind = "depthwise_conv_2d"
            rows = values[0].reshape(-1, outputs).T
            plane = [(size - 1) * step + (taps - 1) * gap + 1 for size, step, taps, gap in
                     zip(output.shape[1:3], stride, kernel, dilation, strict=True)]  # fmt: skip
            ring = ((kernel[0] - 1) * dilation[0] + 1) * plane[1] * _HELIUM_BYTES * (2 if kernel[1] == 1 else 1)
            plane = [size + size % 2 for size in plane]
            fields |= {"plane_height": plane[0], "plane_width": plane[1]}
            words = 2 * max(kernel[0] * (kernel[1] // 2 + 1), kernel[1] * (kernel[0] // 2 + 1))
            scratch = max(2 * plane[0] * plane[1] + 4 * words, ring)
            packed = _padded(values)
        else:  # a depthwise convolution of one channel is a convolution, and faster as such if its kernel is large
            kind = "conv_2d"
            if operation.depthwise:
                values = values.transpose(3, 1, 2, 0)
            rows = _for_all_channels(values, operation.groups).reshape(outputs, -1)
            fours = in_fours(rows)
            scratch = 2 * 2 * fours.shape[1]
            packed = _padded(fours)
        each, wide = _channels(operation, rows)
        self.add(
            operation, f"{kind}(&s, @0, y, scratch)", kind,
            fields=fields | {"in_zero": scales.zero(source), **_output(operation)},
            constants={"weights": packed, **each}, scratch=scratch, wide=wide,
            overlaps=[plan.overlap(kind, source.shape, output.shape, stride, operation.pads)],
        )  # fmt: skip

    def transposed_convolution(self, operation: ops.TransposedConvolution) -> None:
        _one_image(operation)
        output, kernel, stride = operation.output, operation.kernel, operation.stride
        rows = operation.weights.values.reshape(output.shape[3], -1)
        fields = {
            **_sizes(operation), "outputs": output.shape[3],
            "kernel_height": kernel[0], "kernel_width": kernel[1],
            "stride_height": stride[0], "stride_width": stride[1],
            "pad_top": operation.pads[0], "pad_left": operation.pads[1],
        }  # fmt: skip
        if operation.inputs[0].dtype == "int16":
            self.weighted_16(operation, fields, rows, rows)
            return
        each, wide = _channels(operation, rows)
        fields |= {"in_zero": scales.zero(operation.inputs[0]), **_output(operation)}
        self.add(
            operation, "transpose_conv(&s, @0, y)", "transpose_conv", fields=fields,
            constants={"weights": rows.reshape(-1), **each}, wide=wide,
        )  # fmt: skip

    def dense(self, operation: ops.Dense) -> None:
        values, output = operation.weights.values, operation.output
        outputs, taps = values.shape
        rows = math.prod(output.shape) // outputs
        if output.dtype == "int16":
            self.weighted_16(operation, {"out_height": rows, "channels": taps, "outputs": outputs}, values, values)
            return
        each, wide = _channels(operation, values)
        fields = {"rows": rows, "taps": taps, "outputs": outputs, **_output(operation)}
        self.add(
            operation, "fully_connected(&s, @0, y)", "fully_connected", fields=fields,
            constants={"weights": _padded(_filled_to_four(values)), **each}, wide=wide,
        )  # fmt: skip

    def weighted_16(
        self, operation: ops.Weighted, fields: dict[str, int], rows: NDArray[np.int8], stored: NDArray[np.int8]
    ) -> None:
        """A layer of int16 activations: ``rows`` are the weights of each output, ``stored`` the same for the kernel."""
        each, narrow, wide = _channels_16(operation, rows)
        low, high = scales.limits(operation.output, operation.limits)
        kind = f"{operation.kind.lower()}_16"
        self.add(
            operation, f"{kind}(&s, {_X16}, {_Y16})", kind, struct="weighted_16", wide=wide,
            fields=fields | {"narrow": int(narrow), "low": low, "high": high},
            constants={"weights": stored.reshape(-1), **each},
        )  # fmt: skip

    # Pooling and means

    def pool(self, operation: ops.Pool) -> None:
        _same_quantization(operation, *operation.inputs)
        _one_image(operation)
        source, output = operation.inputs[0], operation.output
        low, high = scales.limits(output, operation.limits)
        fields = {
            **_sizes(operation),
            "kernel_height": operation.kernel[0], "kernel_width": operation.kernel[1],
            "stride_height": operation.stride[0], "stride_width": operation.stride[1],
            "pad_top": operation.pads[0], "pad_left": operation.pads[1], "low": low, "high": high,
        }  # fmt: skip
        kind = operation.kind.lower()
        if source.dtype == "int16":
            call = f"pool_16(&s, {_X16}, {_Y16}, {int(kind == 'max_pool_2d')})"
            self.add(operation, call, "pool_16", fields=fields, struct="pool")
            return
        self.add(
            operation, f"{kind}(&s, @0, y)", kind, fields=fields, struct="pool",
            overlaps=[plan.overlap(kind, source.shape, output.shape, operation.stride, operation.pads)],
        )  # fmt: skip

    def reduction(self, operation: ops.Reduction) -> None:
        source, output = operation.inputs[0], operation.output
        fields = _levels(operation)
        count = fields["reduced"] * fields["again"]
        if operation.kind in ("REDUCE_MAX", "REDUCE_MIN"):
            _same_quantization(operation, source)
            sign = 1 if operation.kind == "REDUCE_MAX" else -1
            self.add(operation, f"extreme(&s, @0, y, {sign})", "extreme", fields=fields, struct="mean")
            return
        if count > 2**22:
            raise UnsupportedError(f"{operation}: a sum of {count} values may overflow")
        multiplier, shift = scales.mean(operation, count)
        large = source.dtype == "int16"
        shift = _shift(operation, shift, count * (2**15 if large else 255))
        fields |= {
            "in_zeros": scales.zero(source) * count, "multiplier": multiplier, "shift": shift,
            "out_zero": scales.zero(output),
        }  # fmt: skip
        call, kernel = (f"mean_16(&s, {_X16}, {_Y16})", "mean_16") if large else ("mean(&s, @0, y)", "mean")
        self.add(operation, call, kernel, fields=fields, struct="mean", wide=shift < 0)

    def arg_extreme(self, operation: ops.ArgExtreme) -> None:
        shape, axis = operation.inputs[0].shape, operation.axis
        sizes = f"{math.prod(shape[:axis])}, {shape[axis]}, {math.prod(shape[axis + 1 :])}"
        sign = 1 if operation.kind == "ARG_MAX" else -1
        self.add(operation, f"arg_extreme(@0, (int32_t *)(void *)y, {sizes}, {sign})", "arg_extreme")

    # Elementwise

    def binary(self, operation: ops.Binary) -> None:
        (first, second), output = operation.inputs, operation.output
        shapes = [first.shape, second.shape]
        sizes, strides = _collapsed(operation, output.shape, shapes)
        reals = [scales.scale(tensor) if len(tensor.scale) else 1.0 for tensor in (first, second, output)]
        large = output.dtype == "int16"
        most, left = (2**15, 15) if large else (255, _LEFT.get(operation.kind, 20))
        fields: dict[str, Any] = {
            "size": sizes, "stride_a": strides[0], "stride_b": strides[1],
            "zero_a": scales.zero(first), "zero_b": scales.zero(second),
            **({} if output.dtype == "bool" else _output(operation)),
        }  # fmt: skip
        if operation.kind in ("MAXIMUM", "MINIMUM"):
            _same_quantization(operation, first, second)
            multiplier, shift = 0, 0
            kernel = "larger" if operation.kind == "MAXIMUM" else "smaller"
            call = f"pairs(&s, @0, @1, y, {kernel})"
        elif operation.kind in ("MUL", "PRELU"):
            multiplier, shift = numerics.quantize_multiplier(reals[0] * reals[1] / reals[2])
            shift = _shift(operation, shift, most * most)
            call, kernel = "mul(&s, @0, @1, y)", "mul"
            if operation.kind == "PRELU":
                call, kernel = "pairs(&s, @0, @1, y, prelu)", "prelu"
                above, up = numerics.quantize_multiplier(reals[0] / reals[2])
                fields |= {"multiplier_a": above, "shift_a": _shift(operation, up, 255)}
        else:
            largest = 1.0 if operation.kind in _COMPARISONS else 2 * max(reals[:2])
            for key, scale in (("a", reals[0]), ("b", reals[1])):
                multiplier, shift = numerics.quantize_multiplier(scale / largest)
                if shift > 0:
                    raise UnsupportedError(f"{operation}: a scale of {scale:g} is too large to compare")
                more = 0
                if (multiplier, shift) == (2**30, 0) and not large:  # exactly ½: equivalent, but on the fast path
                    more, shift = 1, -1
                fields |= {
                    f"left_{key}": left + more, f"multiplier_{key}": multiplier,
                    f"shift_{key}": _shift(operation, shift, (most << left + more) - large),
                }  # fmt: skip
            if operation.kind in ("ADD", "SUB"):
                multiplier, shift = numerics.quantize_multiplier(largest / (2**left * reals[2]))
                if shift > 0:
                    raise UnsupportedError(f"{operation}: its output's scale is too small for those of its inputs")
                shift = _shift(operation, shift, most << left)
                call, kernel = f"add(&s, @0, @1, y, {-1 if operation.kind == 'SUB' else 1})", "add"
            else:
                multiplier, shift, kernel = 0, 1, operation.kind.lower()
                call = f"pairs(&s, @0, @1, y, {kernel})"
            if operation.kind == "SQUARED_DIFFERENCE":
                multiplier, shift = numerics.quantize_multiplier(largest * largest / (2 ** (2 * left) * reals[2]))
                shift = _shift(operation, shift, (most << left) ** 2)
        fields |= {"multiplier": multiplier, "shift": shift}
        wide = min(shift, fields.get("shift_a", 1), fields.get("shift_b", 1)) < 0
        if large:
            kernel = f"{operation.kind.lower() if kernel == 'add' else kernel}_16"
            call = f"pairs_16(&s, {_X16}, {_X16.replace('0', '1')}, {_Y16}, {kernel})"
        self.add(
            operation, call, kernel, fields=fields, struct="binary", wide=wide,
            overlaps=[plan.overlap(kernel, shape, output.shape) for shape in shapes],
        )  # fmt: skip

    def select(self, operation: ops.Select) -> None:
        _same_quantization(operation, *operation.inputs[1:])
        shapes = [tensor.shape for tensor in operation.inputs]
        size, strides = _collapsed(operation, operation.output.shape, shapes)
        fields = {"size": size, "stride_which": strides[0], "stride_a": strides[1], "stride_b": strides[2]}
        self.add(operation, "choose(&s, @0, @1, @2, y)", "choose", fields=fields)

    def matmul(self, operation: ops.MatMul) -> None:
        (first, second), output = operation.inputs, operation.output
        batches = output.shape[:-2]
        if len(batches) > 3:
            raise UnsupportedError(f"{operation}: more than five dimensions are not supported in C")
        distances, strides = [], []
        for tensor, swapped in zip(operation.inputs, operation.transposed, strict=True):
            *before, row, column = _strides(tensor.shape)
            distances.append((column, row) if swapped else (row, column))
            kept = [0 if size == 1 else stride for size, stride in zip(tensor.shape[:-2], before, strict=True)]
            strides.append(_extended(kept, 3, 0))
        taps = first.shape[-2 if operation.transposed[0] else -1]
        factor = scales.scale(first) * scales.scale(second) / scales.scale(output)
        multiplier, shift = numerics.quantize_multiplier(factor)
        shift = _shift(operation, shift, taps * 255 * 255)
        fields = {
            "size": _extended(batches, 3, 1), "stride_a": strides[0], "stride_b": strides[1],
            "rows": output.shape[-2], "taps": taps, "columns": output.shape[-1],
            "row_a": distances[0][0], "tap_a": distances[0][1], "tap_b": distances[1][0], "column_b": distances[1][1],
            "zero_a": scales.zero(first), "zero_b": scales.zero(second), "out_zero": scales.zero(output),
            "multiplier": multiplier, "shift": shift,
        }  # fmt: skip
        self.add(operation, "batch_matmul(&s, @0, @1, y)", "batch_matmul", fields=fields, wide=shift < 0)

    def elementwise(self, operation: scales.Elementwise) -> None:
        """A function of single values, as a table of its 256 results."""
        shape = operation.output.shape
        if _width(operation.inputs[0]) > 1 or _width(operation.output) > 1:
            self._elementwise_16(operation)
            return
        self.add(
            operation, f"lookup(@name_table, @0, y, {math.prod(shape)})", "lookup",
            constants={"table": numerics.table(scales.function(operation), operation.inputs[0].dtype)},
            overlaps=[plan.overlap("lookup", shape, shape)],
        )  # fmt: skip

    def _elementwise_16(self, operation: scales.Elementwise) -> None:
        source, output, count = operation.inputs[0], operation.output, math.prod(operation.output.shape)
        if isinstance(operation, ops.Unary):
            scales.wanted_output(operation, 2.0**-15, 0)
            factor, shift = numerics.sigmoid_factor(scales.scale(source))
            kernel = {"LOGISTIC": "logistic_16", "TANH": "hyperbolic_16"}[operation.kind]
            self.add(operation, f"{kernel}({_X16}, {_Y16}, {count}, {factor}, {shift})", kernel)
            return
        assert isinstance(operation, ops.LeakyRelu | ops.Rescale)
        pairs = scales.factors(operation)
        low, high = scales.limits(output, operation.limits)
        most = 255 if source.dtype == "int8" else 2**16
        shifts = [_shift(operation, shift, most) for _, shift in pairs]
        fields = {
            "in_width": _width(source), "out_width": _width(output),
            "in_zero": scales.zero(source), "out_zero": scales.zero(output),
            "multiplier": [pair[0] for pair in pairs], "shift": shifts, "low": low, "high": high,
        }  # fmt: skip
        self.add(operation, f"rescale_16(&s, @0, y, {count})", "rescale_16", fields=fields, wide=min(shifts) < 0)

    def softmax(self, operation: ops.Softmax) -> None:
        if operation.inputs[0].dtype == "int16":
            self._softmax_16(operation)
            return
        large = operation.output.dtype == "int16"
        scales.wanted_output(operation, *((2.0**-16, -(2**15), _NEAR) if large else (1 / 256, -128)))
        scale, beta, shape = scales.scale(operation.inputs[0]), operation.beta, operation.output.shape
        if not 0 < beta < math.inf or beta * scale * 2**26 <= 1:
            raise UnsupportedError(
                f"{operation}: a softmax with beta {beta:g} and an input scale of {scale:g} is not supported in C"
            )
        if shape[-1] > 4095:
            raise UnsupportedError(
                f"{operation}: a softmax over {shape[-1]} values may overflow; at most 4095 are supported"
            )
        values = numerics.softmax_table(scale, beta)
        sizes, kernel = f"{math.prod(shape[:-1])}, {shape[-1]}", "softmax_to_16" if large else "softmax"
        self.add(
            operation, f"{kernel}(@name_table, {len(values)}, @0, {_Y16 if large else 'y'}, {sizes})", kernel,
            constants={"table": values},
        )  # fmt: skip

    def _softmax_16(self, operation: ops.Softmax) -> None:
        scales.wanted_output(operation, 2.0**-15, 0, _NEAR)
        shape, scale = operation.output.shape, scales.scale(operation.inputs[0])
        if not 0 < operation.beta < math.inf or shape[-1] > 2**16:
            raise UnsupportedError(
                f"{operation}: a beta of {operation.beta:g}, or so many values, are not supported in C"
            )
        multiplier, shift = numerics.quantize_multiplier(scale * operation.beta / (10.0 / 65535.0))
        shift = _shift(operation, shift, 2**16)
        sizes = f"{math.prod(shape[:-1])}, {shape[-1]}, {multiplier}, {shift}"
        self.add(
            operation, f"softmax_16(@name_tables, {_X16}, {_Y16}, {sizes})", "softmax_16",
            constants={"tables": numerics.softmax_tables_16()}, wide=shift < 0,
        )  # fmt: skip

    def l2_norm(self, operation: ops.L2Norm) -> None:
        scales.wanted_output(operation, 1 / 128, 0)
        shape, zero = operation.output.shape, scales.zero(operation.inputs[0])
        if shape[-1] > 2**15:
            raise UnsupportedError(
                f"{operation}: a norm of {shape[-1]} values may overflow; at most 32768 are supported"
            )
        call = f"l2_normalization(@0, y, {math.prod(shape[:-1])}, {shape[-1]}, {zero})"
        self.add(operation, call, "l2_normalization", wide=True)

    # Values moved

    def reshape(self, operation: ops.Reshape) -> None:
        source, output = operation.inputs[0], operation.output
        if source.data is not None:
            raise UnsupportedError(f"{operation}: a reshaped constant is not supported in C")
        self.reshaped[output.index] = self.value(source.index)

    def concatenation(self, operation: ops.Concatenation) -> None:
        if operation.limits != (None, None):
            raise UnsupportedError(f"{operation}: a fused activation is not supported here in C")
        _same_quantization(operation, *operation.inputs)
        made, axis, width = operation.output.shape, operation.axis, _width(operation.output)
        stride, start, calls = math.prod(made[axis:]) * width, 0, []
        for place, tensor in enumerate(operation.inputs):
            count = math.prod(tensor.shape[axis:]) * width  # also if only the output has the axis
            calls.append(f"copy_rows(@{place}, {at('y', start)}, {math.prod(made[:axis])}, {count}, {stride})")
            start += count
        self.add(operation, ";\n    ".join(calls), "copy_rows")

    def pad(self, operation: ops.Pad) -> None:
        source, output, value = operation.inputs[0], operation.output, operation.value
        _same_quantization(operation, source, *([] if value is None else [value]))
        if len(output.shape) > _MAX_RANK:
            raise UnsupportedError(
                f"{operation}: {len(output.shape)} dimensions are more than the {_MAX_RANK} supported in C"
            )
        sizes, strides, width = source.shape, _strides(output.shape), _width(output)
        start = sum(before * stride for (before, _), stride in zip(operation.pads, strides, strict=True)) * width
        if width > 1:  # the bytes of a value are neighbours too
            if value is not None and value.data is not None and value.data.any():
                raise UnsupportedError(f"{operation}: padding of int16 with anything but zeros is not supported in C")
            if len(sizes) == _MAX_RANK:
                batch, sizes, strides = sizes[0], sizes[1:], strides[1:]
                if batch != 1:
                    raise UnsupportedError(f"{operation}: a batch of {batch} in int16 is not supported in C")
            sizes, strides = (*sizes, width), [*(stride * width for stride in strides), 1]
        fields = {
            "size": _extended(sizes, _MAX_RANK, 1), "stride": _extended(strides, _MAX_RANK, 0),
            "start": start, "total": math.prod(output.shape) * width,
            "value": scales.zero(output) if value is None or value.data is None else int(value.data.reshape(-1)[0]),
        }  # fmt: skip
        self.add(operation, "pad(&s, @0, y)", "pad", fields=fields)

    def transpose(self, operation: ops.Transpose) -> None:
        strides = _strides(operation.inputs[0].shape)
        self._rearrange(operation, operation.output.shape, [strides[axis] for axis in operation.order])

    def slice(self, operation: ops.Slice) -> None:
        strides = _strides(operation.inputs[0].shape)
        first = sum(start * stride for start, stride in zip(operation.starts, strides, strict=True))
        steps = [step * stride for step, stride in zip(operation.steps, strides, strict=True)]
        self._rearrange(operation, operation.sizes, steps, first)

    def blocks(self, operation: ops.Blocks) -> None:
        self._rearrange(operation, operation.sizes, operation.strides)

    def mirror(self, operation: ops.Mirror) -> None:
        strides = _strides(operation.inputs[0].shape)
        self._pick(
            operation, [np.array(places) * stride for places, stride in zip(operation.places, strides, strict=True)]
        )

    def gather(self, operation: ops.Gather) -> None:
        source, places = operation.inputs
        if places.data is None:
            raise UnsupportedError(f"{operation}: its places are computed, which C code does not support")
        shape, axis = source.shape, operation.axis
        inner = math.prod(shape[axis + 1 :])
        along = np.asarray(places.data).reshape(-1) * inner
        self._pick(operation, [np.arange(math.prod(shape[:axis])) * shape[axis] * inner, along, np.arange(inner)])

    def _pick(self, operation: Operation, distances: Sequence[NDArray[Any]]) -> None:
        source = operation.inputs[0]
        _same_quantization(operation, source)
        if len(distances) > _MAX_RANK:
            raise UnsupportedError(f"{operation}: {len(distances)} dimensions are more than the 4 supported in C")
        alone = msgspec.structs.replace(operation, inputs=(source,))
        whole = [*[np.zeros(1)] * (_MAX_RANK - len(distances)), *distances]
        self.add(
            alone, "pick(&s, @0, y)", "pick",
            fields={"size": [len(each) for each in whole]},
            constants={"distances": np.concatenate(whole).astype(np.int32)},
        )  # fmt: skip

    def tile(self, operation: ops.Tile) -> None:
        shape = operation.inputs[0].shape
        sizes = [size for pair in zip(operation.repeats, shape, strict=True) for size in pair]
        strides = [stride for own in _strides(shape) for stride in (0, own)]
        kept = [place for place, size in enumerate(sizes) if size != 1]
        self._rearrange(operation, [sizes[place] for place in kept], [strides[place] for place in kept])

    def _rearrange(self, operation: Operation, sizes: Sequence[int], strides: Sequence[int], first: int = 0) -> None:
        _same_quantization(operation, *operation.inputs)
        width = _width(operation.output)
        if width > 1:  # the bytes of a value are neighbours too
            sizes, strides, first = [*sizes, width], [*(stride * width for stride in strides), 1], first * width
        if len(sizes) > 8:
            raise UnsupportedError(f"{operation}: {len(sizes)} dimensions are more than the 8 supported in C")
        fields = {"size": _extended(sizes, 8, 1), "stride": _extended(strides, 8, 0)}
        self.add(operation, f"rearrange(&s, {at('@0', first)}, y)", "rearrange", fields=fields)

    def resize(self, operation: ops.Resize) -> None:
        _same_quantization(operation, *operation.inputs)
        _one_image(operation)
        sizes, target = operation.inputs[0].shape[1:3], operation.output.shape[1:3]
        if max(*sizes, *target) >= 2**15:
            raise UnsupportedError(f"{operation}: sizes of 32768 or more are not supported in C")
        kind, fields, constants = operation.kind.lower(), _sizes(operation), {}
        del fields["in_height"]
        for key, size, new in zip(("rows", "columns"), sizes, target, strict=True):
            how = (size, new, operation.align_corners, operation.half_pixel_centers)
            if operation.kind == "RESIZE_NEAREST_NEIGHBOR":
                constants[key] = np.array(numerics.nearest(*how), np.int16)
                continue
            places = numerics.between(*how)
            if places[-1][0] >= size:
                raise UnsupportedError(f"{operation}: sizes {size} and {new} make the kernel read beyond its input")
            constants[key] = np.array(places, np.int16)
        self.add(operation, f"{kind}(&s, @0, y)", kind, fields=fields, constants=constants)


# Checks


def in_int16(record: type[Operation], kind: str) -> bool:
    """Whether an operator ``kind`` that is read as ``record`` can have activations of int16 in C."""
    return record in _IN_INT16 and kind not in _NOT_IN_INT16


def _check_types(operation: Operation) -> None:
    """Raise for activations that no kernel has; int16 has a zero point of 0."""
    tensors = [*operation.inputs, operation.output]
    if isinstance(operation, ops.Pad) and operation.value is not None:
        tensors.append(operation.value)
    converts = operation.kind == "QUANTIZE" or (operation.kind == "SOFTMAX" and tensors[0].dtype == "int8")
    allowed = ["int8"]
    if operation.kind == "QUANTIZE" or isinstance(operation, ops.Reshape):
        allowed.append("uint8")
    if in_int16(type(operation), operation.kind):
        allowed.append("int16")
    if operation.kind in _COMPARISONS or isinstance(operation, ops.ArgExtreme):
        tensors = tensors[:-1]
    elif isinstance(operation, ops.Select):
        tensors = tensors[1:]
    elif isinstance(operation, ops.Gather):
        tensors = [tensors[0], tensors[-1]]
    for tensor in tensors:
        to_32 = operation.kind == "QUANTIZE" and (tensor.dtype, len(tensor.scale)) == ("int32", 1)
        if (tensor.dtype not in allowed and not to_32) or (tensor.dtype != tensors[0].dtype and not converts):
            raise ops.not_int8(operation.operator, tensor)
        if tensor.dtype == "int16" and tensor.zero_point[0] and not converts:
            raise UnsupportedError(
                f"{operation}: {tensor.layer!r} is int16 with a zero point, which no kernel supports"
            )
    if "uint8" in (types := {tensor.dtype for tensor in tensors}) and types & {"int16", "int32"}:
        raise UnsupportedError(
            f"{operation}: from {' to '.join(tensor.dtype for tensor in tensors)}, which no kernel does"
        )
    if tensors[0].dtype == "int32":
        raise ops.not_int8(operation.operator, tensors[0])


def _levels(operation: ops.Reduction) -> dict[str, int]:
    """The numbers of neighbouring values that remain and are reduced, in turn."""
    sizes = [1]
    for axis, size in enumerate(operation.inputs[0].shape):
        reduced = axis in operation.axes
        if size == 1 or reduced == (len(sizes) % 2 == 0):
            sizes[-1] *= size
        else:
            sizes.append(size)
    if len(sizes) > 5:
        raise UnsupportedError(f"{operation}: a reduction over axes {list(operation.axes)} is not supported in C")
    if len(sizes) <= 3:  # in the innermost loop
        sizes[1:1] = [1, 1]
    return dict(zip(("outer", "reduced", "middle", "again", "inner"), [*sizes, *[1] * (5 - len(sizes))], strict=True))


def _same_quantization(operation: Operation, *tensors: Tensor) -> None:
    output = operation.output
    for tensor in tensors:
        if tensor.scale[0] != output.scale[0] or tensor.zero_point[0] != output.zero_point[0]:
            raise UnsupportedError(
                f"{operation}: {tensor.name!r} and {output.name!r} differ in scale or zero point, which no C kernel "
                "supports"
            )


def _one_image(operation: Operation) -> None:
    batch = operation.inputs[0].shape[0]
    if batch != 1:
        raise UnsupportedError(f"{operation}: a batch of {batch}; the C code processes one image at a time")


# Helpers


def _width(tensor: Tensor) -> int:
    """Bytes of a value."""
    return np.dtype(tensor.dtype).itemsize


def _for_all_channels(weights: NDArray[Any], groups: int) -> NDArray[Any]:
    """Weights of a grouped convolution as those of a plain one: zeros for the channels of other groups."""
    outputs, *kernel, each = weights.shape
    whole = np.zeros((outputs, *kernel, each * groups), weights.dtype)
    for group, own in enumerate(np.split(np.arange(outputs), groups)):
        whole[own, ..., group * each : (group + 1) * each] = weights[own]
    return whole


def in_fours(rows: NDArray[np.int8]) -> NDArray[np.int8]:
    """Rows padded with zeros to a multiple of four, each group of four in the order 0 2 1 3.

    So the even bytes of a word are its first two weights, the odd bytes the other two: SXTB16 extracts each pair for
    SMLAD with two neighbouring inputs.
    """
    filled = _filled_to_four(rows)
    return filled.reshape(len(rows), -1, 4)[:, :, _IN_FOURS].reshape(filled.shape)


def _filled_to_four(rows: NDArray[np.int8]) -> NDArray[np.int8]:
    filled = np.zeros((len(rows), -(-rows.shape[1] // 4) * 4), np.int8)
    filled[:, : rows.shape[1]] = rows
    return filled


def _padded(rows: NDArray[np.int8]) -> NDArray[np.int8]:
    return np.concatenate([rows.reshape(-1), np.zeros(_HELIUM_BYTES - 1, np.int8)])


def _sizes(operation: Operation) -> dict[str, int]:
    """The size fields of a kernel with a sliding window."""
    _, height, width, channels = operation.inputs[0].shape
    made = operation.output.shape
    return {
        "in_height": height, "in_width": width, "channels": channels, "out_height": made[1], "out_width": made[2],
    }  # fmt: skip


def _channels(operation: ops.Weighted, rows: NDArray[np.int8]) -> tuple[dict[str, NDArray[Any]], bool]:
    """Bias, multiplier and shift of each output (its weights are a row of ``rows``), and whether any shift is wide.

    The bias includes the input's zero point, which only the kernel of transposed convolutions subtracts itself. A
    channel whose sum may exceed ±2³⁰, or whose factor is ½ or more, gets the shift of the kernel's wide path.
    """
    if rows.dtype != np.int8:
        raise UnsupportedError(f"{operation}: its weights are {rows.dtype}; C code supports only int8 weights")
    operation.check_symmetric()
    zero = scales.zero(operation.inputs[0])
    bias = np.zeros(len(rows), np.int64) if operation.bias is None else operation.bias.astype(np.int64)
    pairs = scales.weighted(operation, len(rows))
    empty = np.logical_not(rows.any(axis=1))
    if empty.any():  # constants: a quarter of the bias makes them without the wide path, whatever their scale
        constants = np.array(scales.without_weights(operation, bias)) - scales.zero(operation.output)
        bias = np.where(empty, 4 * constants, bias)
        pairs = [(2**30, -1) if alone else pair for alone, pair in zip(empty, pairs, strict=True)]
    wide_rows = rows.astype(np.int64)
    ends = wide_rows[:, :, None] * np.array([-128 - zero, 127 - zero])
    largest = np.maximum(np.abs(bias + ends.max(axis=2).sum(axis=1)), np.abs(bias + ends.min(axis=2).sum(axis=1)))
    shifts = [_shift(operation, shift, int(bound)) for (_, shift), bound in zip(pairs, largest, strict=True)]
    if not isinstance(operation, ops.TransposedConvolution):
        bias = bias - zero * wide_rows.sum(axis=1)
    return {
        "bias": _wrapped(bias),
        "multiplier": np.array([multiplier for multiplier, _ in pairs], np.int32),
        "shift": np.array(shifts, np.int8),
    }, min(shifts) < 0


def _rows(operation: ops.Convolution) -> NDArray[np.int8]:
    """The weights of each output."""
    values, outputs = operation.weights.values, operation.output.shape[3]
    if operation.depthwise:
        values = values[0].reshape(-1, outputs).T
        return np.ascontiguousarray(values)
    return _for_all_channels(values, operation.groups).reshape(outputs, -1)


def _channels_16(operation: ops.Weighted, rows: NDArray[np.int8]) -> tuple[dict[str, NDArray[Any]], bool, bool]:
    """As ``_channels`` for int16 activations; whether sums have 32 bits, and whether any shift is wide."""
    if rows.dtype != np.int8:
        raise UnsupportedError(f"{operation}: its weights are {rows.dtype}; C code supports only int8 weights")
    operation.check_symmetric()
    given = operation.bias
    narrow = operation.kind in ("CONV_2D", "FULLY_CONNECTED") and given is not None and given.dtype == np.int32
    bias = np.zeros(len(rows), np.int64) if given is None else given.astype(np.int64)
    pairs = scales.weighted(operation, len(rows))
    if narrow:
        largest = np.abs(bias) + np.abs(rows.astype(np.int64)).sum(axis=1) * 2**15
        shifts = [_shift(operation, shift, int(bound)) for (_, shift), bound in zip(pairs, largest, strict=True)]
    else:  # TFLite Micro asserts these limits
        if any(shift > 7 for _, shift in pairs) or int(np.abs(bias).max()) >= 2**47:
            raise UnsupportedError(f"{operation}: its scales or biases are too large for a sum of 64 bits")
        pairs = [(min((multiplier + 2**15) >> 16, 2**15 - 1), shift) for multiplier, shift in pairs]
        shifts = [15 - shift for _, shift in pairs]
    return (
        {
            "bias": bias,
            "multiplier": np.array([multiplier for multiplier, _ in pairs], np.int32),
            "shift": np.array(shifts, np.int8),
        },
        narrow,
        narrow and min(shifts) < 0,
    )


def _wrapped(values: NDArray[np.int64]) -> NDArray[np.int32]:
    """The lowest 32 bits."""
    return (values & 0xFFFFFFFF).astype(np.uint32).view(np.int32)


def _shift(operation: Operation, shift: int, bound: int) -> int:
    """The encoding of a shift: places to the right, or -64 - places to the left for the kernel's wide path."""
    if shift > 30:
        raise UnsupportedError(f"{operation}: its scales are too far apart")
    return -shift if -22 <= shift <= -1 and bound < 2**30 else -64 - shift


def _output(operation: Operation) -> dict[str, int]:
    """The fields of the output's zero point, lowest and highest integer."""
    low, high = scales.limits(operation.output, operation.limits)
    return {"out_zero": scales.zero(operation.output), "low": low, "high": high}


def _strides(shape: Sequence[int]) -> list[int]:
    return [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]


def _extended(values: Sequence[int], rank: int, fill: int) -> list[int]:
    return [fill] * (rank - len(values)) + list(values)


def _collapsed(operation: Operation, made: Shape, shapes: Sequence[Shape]) -> tuple[list[int], list[list[int]]]:
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
        raise UnsupportedError(f"{operation}: a broadcast in {len(axes)} dimensions is not written as C")
    axes = [[1, *[0] * len(shapes)]] * (_MAX_RANK - len(axes)) + axes
    return [axis[0] for axis in axes], [[axis[1 + place] for axis in axes] for place in range(len(shapes))]


_IN_INT16 = frozenset(
    {
        ops.Binary, ops.Blocks, ops.Concatenation, ops.Convolution, ops.Dense, ops.LeakyRelu, ops.Pad, ops.Pool,
        ops.Reduction, ops.Rescale, ops.Reshape, ops.Slice, ops.Softmax, ops.Tile, ops.TransposedConvolution,
        ops.Transpose, ops.Unary,
    }
)  # fmt: skip
_NOT_IN_INT16 = frozenset(
    {"HARD_SWISH", "PRELU", "REDUCE_MAX", "REDUCE_MIN", "RELU_N1_TO_1", "SQUARED_DIFFERENCE", "SUM", *_COMPARISONS}
)
_WRITERS: dict[type[Operation], Callable[[_Lowering, Any], None]] = {
    ops.ArgExtreme: _Lowering.arg_extreme,
    ops.AssignVariable: _Lowering.assign_variable,
    ops.Binary: _Lowering.binary,
    ops.Blocks: _Lowering.blocks,
    ops.Concatenation: _Lowering.concatenation,
    ops.Convolution: _Lowering.convolution,
    ops.Dense: _Lowering.dense,
    ops.L2Norm: _Lowering.l2_norm,
    ops.LeakyRelu: _Lowering.elementwise,
    ops.Lstm: _Lowering.lstm,
    ops.MatMul: _Lowering.matmul,
    ops.Mirror: _Lowering.mirror,
    ops.Gather: _Lowering.gather,
    ops.Pad: _Lowering.pad,
    ops.Pool: _Lowering.pool,
    ops.ReadVariable: _Lowering.read_variable,
    ops.Reduction: _Lowering.reduction,
    ops.Rescale: _Lowering.elementwise,
    ops.Reshape: _Lowering.reshape,
    ops.Resize: _Lowering.resize,
    ops.Select: _Lowering.select,
    ops.Slice: _Lowering.slice,
    ops.Softmax: _Lowering.softmax,
    ops.Svdf: _Lowering.svdf,
    ops.Table: _Lowering.elementwise,
    ops.Tile: _Lowering.tile,
    ops.TransposedConvolution: _Lowering.transposed_convolution,
    ops.Transpose: _Lowering.transpose,
    ops.Unary: _Lowering.elementwise,
}
