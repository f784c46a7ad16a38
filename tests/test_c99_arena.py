"""Generated code in its arena: outputs laid over inputs as near as the plan allows, on every kind of processor.

Random models of one layer, called with the output over the input, and of several layers are put into one program, whose
answers are compared with TFLite Micro's. Around and between input, output and arena lie bytes that must stay as they
are, and other bytes on every call, on which no answer may depend. ``EDGECNN_FUZZ=2000`` tries ten times as many.
"""

import functools
import itertools
import math
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from emulated import need
from generated import Model, Tflm, needs_tflm, random_inputs, tflm_process

from edgecnn import emulation
from edgecnn.emulation import Firmware, Sources
from edgecnn.formats import c99_kernels, c99_lower
from edgecnn.formats.c99 import to_c
from edgecnn.formats.c99_lower import lower
from edgecnn.formats.c99_plan import Overlap
from edgecnn.formats.tflite_graph import read_graph
from edgecnn.records import MemoryPlan

pytestmark = needs_tflm

TARGETS = ("host", *emulation.BARE)
BATCHES = range(max(1, 3 * int(os.environ.get("EDGECNN_FUZZ", "200")) // 200))  # each with another -O
LAYERS, MODELS, IMAGES = 120, 40, 4
LARGEST = 700  # values of a tensor: sixteen of these and the code fit the smallest board
GUARD = 64
OVER_THEIR_INPUT = {"conv_2d", "depthwise_conv_2d", "max_pool_2d", "average_pool_2d", "add", "mul", "lookup"}
FILES = ("c99_kernels.c", "c99_kernels_mve.c")
Shape = tuple[int, ...]


# Random models


class Value(msgspec.Struct, frozen=True):
    """An activation of a model in the making."""

    index: int
    shape: Shape
    scale: float
    zero: int


class Maker:
    """Makes a random model. Its values neither vanish nor all saturate, so a wrong byte comes through to the end."""

    def __init__(self, seed: Sequence[int]) -> None:
        self.random = np.random.default_rng(seed)
        self.model = Model()

    def pick(self, *options: Any) -> Any:
        return options[self.random.integers(len(options))]

    def number(self, low: int, high: int) -> int:
        return int(self.random.integers(low, high + 1))

    def value(self, shape: Sequence[int], scale: float | None = None, zero: int | None = None) -> Value:
        scale = float(np.float32(self.random.uniform(0.02, 0.08) if scale is None else scale))
        usual = self.number(-30, 30)
        zero = self.pick(-128, 127, *[usual] * 18) if zero is None else zero
        return Value(self.model.tensor(shape, scale=scale, zero=zero), tuple(shape), scale, zero)

    def source(self) -> Value:
        shape = (1, self.number(1, 11), self.number(1, 11), self.number(1, 9))
        return self.value(shape) if math.prod(shape) <= LARGEST else self.source()

    def weights(self, shape: Shape, taps: int, outputs: int, axis: int, x: Value, y: Value) -> list[int]:
        """Weights and bias: sums of a few dozen steps of the output."""
        typical = y.scale / x.scale / math.sqrt(taps) / self.random.uniform(60, 150)
        scales = typical * self.random.uniform(0.5, 2, self.pick(1, outputs))
        weights = self.random.integers(-127, 128, shape)
        bias = self.random.integers(-40, 41, outputs) * y.scale / (scales * x.scale)
        return [
            self.model.tensor(shape, scale=scales, axis=axis, data=weights),
            self.model.tensor((outputs,), "int32", scale=scales * x.scale, data=bias.astype(np.int32)),
        ]

    def window(self, x: Value, dilated: bool, keep: bool) -> tuple[Shape, Shape, dict[str, Any]]:
        """Size of a kernel, of its output, and options; ``keep`` leaves the size as it is."""
        kernel = self.pick((3, 3), (3, 3), (1, 1), (2, 4), (5, 1), (1, 3), (2, 2))
        stride = (1, 1) if keep else self.pick((1, 1), (1, 1), (2, 2), (1, 2), (3, 2))
        dilation = self.pick((1, 1), (1, 1), (2, 1), (1, 3)) if dilated else (1, 1)
        extent = [(taps - 1) * apart + 1 for taps, apart in zip(kernel, dilation, strict=True)]
        sizes = list(zip(x.shape[1:3], extent, stride, strict=True))
        valid = not keep and self.pick(True, False) and all(size >= taps for size, taps, _ in sizes)
        out = tuple((size - taps) // step + 1 if valid else -(-size // step) for size, taps, step in sizes)
        options = {"padding": int(valid), "strideH": stride[0], "strideW": stride[1]}
        if dilated:
            options |= {"dilationHFactor": dilation[0], "dilationWFactor": dilation[1]}
        return kernel, out, {**options, "fusedActivationFunction": self.pick(0, 0, 0, 1)}

    # Layers

    def conv(self, x: Value, keep: bool = False) -> Value:
        kernel, out, options = self.window(x, True, keep)
        outputs = x.shape[3] if keep else min(self.number(1, 14), LARGEST // math.prod(out))
        y = self.value((1, *out, outputs))
        shape = (outputs, *kernel, x.shape[3])
        inputs = [x.index, *self.weights(shape, math.prod(shape[1:]), outputs, 0, x, y)]
        self.model.operator("CONV_2D", inputs, y.index, "Conv2DOptions", **options)
        return y

    def depthwise(self, x: Value, keep: bool = False) -> Value:
        kernel, out, options = self.window(x, True, keep)
        times = 1 if keep or math.prod((*out, x.shape[3], 2)) > LARGEST else self.pick(1, 1, 2)
        outputs = x.shape[3] * times
        y = self.value((1, *out, outputs))
        inputs = [x.index, *self.weights((1, *kernel, outputs), math.prod(kernel), outputs, 3, x, y)]
        options["depthMultiplier"] = times
        self.model.operator("DEPTHWISE_CONV_2D", inputs, y.index, "DepthwiseConv2DOptions", **options)
        return y

    def pool(self, x: Value, keep: bool = False) -> Value:
        kernel, out, options = self.window(x, False, keep)
        y = self.value((1, *out, x.shape[3]), x.scale, x.zero)
        options |= {"filterHeight": kernel[0], "filterWidth": kernel[1]}
        self.model.operator(self.pick("MAX_POOL_2D", "AVERAGE_POOL_2D"), [x.index], y.index, "Pool2DOptions", **options)
        return y

    def function(self, x: Value) -> Value:
        kind = self.pick("LOGISTIC", "HARD_SWISH", "RELU", "LEAKY_RELU", "QUANTIZE")
        y = self.value(x.shape, 1 / 256, -128) if kind == "LOGISTIC" else self.value(x.shape)
        leaky = {"options": "LeakyReluOptions", "alpha": 0.4} if kind == "LEAKY_RELU" else {}
        self.model.operator(kind, [x.index], y.index, **leaky)
        return y

    def joined(self, kind: str, a: Value, b: Value) -> Value:
        """ADD, SUB or MUL, in either order."""
        size = max(a.scale, b.scale) if kind != "MUL" else 50 * a.scale * b.scale
        shape = np.broadcast_shapes(a.shape, b.shape)
        y = self.value(shape, size * self.random.uniform(0.7, 1.5))
        operands = [a.index, b.index] if self.pick(True, False) else [b.index, a.index]
        self.model.operator(kind, operands, y.index, f"{kind.capitalize()}Options", fusedActivationFunction=0)
        return y

    def binary(self, x: Value) -> Value:
        """With itself or a constant, whole or of one dimension."""
        _, height, width, channels = x.shape
        shape = self.pick(x.shape, (1, 1, 1, channels), (1, height, width, 1), (1, 1, 1, 1), None)
        other = x
        if shape is not None:
            data, scale = self.random.integers(-128, 128, shape), x.scale * self.random.uniform(0.5, 2)
            other = Value(self.model.tensor(shape, scale=scale, zero=3, data=data), shape, scale, 3)
        return self.joined(self.pick("ADD", "SUB", "MUL"), x, other)

    def residual(self, x: Value) -> Value:
        y = self.pick(self.conv, self.depthwise, self.pool)(x, keep=True)
        return self.joined("ADD", x, self.pick(y, self.function(y)))

    def gate(self, x: Value) -> Value:
        return self.joined("MUL", x, self.function(self.mean(x)))

    def mean(self, x: Value) -> Value:
        y = self.value((1, 1, 1, x.shape[3]), x.scale / 4)
        axes = self.model.tensor((2,), "int32", data=[1, 2])
        self.model.operator("MEAN", [x.index, axes], y.index, "ReducerOptions", keepDims=True)
        return y

    def pad(self, x: Value) -> Value:
        pairs = [(0, 0), *[(self.number(0, 2), self.number(0, 2)) for _ in range(3)]]
        made = [before + size + after for (before, after), size in zip(pairs, x.shape, strict=True)]
        if math.prod(made) > LARGEST:
            return self.function(x)
        y = self.value(made, x.scale, x.zero)
        self.model.operator("PAD", [x.index, self.model.tensor((4, 2), "int32", data=pairs)], y.index)
        return y

    def concatenation(self, x: Value) -> Value:
        axis = self.number(1, 3)
        made = [size * (2 if place == axis else 1) for place, size in enumerate(x.shape)]
        if math.prod(made) > LARGEST:
            return self.function(x)
        inputs = [x.index, self.pool(x, keep=True).index]
        y = self.value(made, x.scale, x.zero)
        self.model.operator("CONCATENATION", inputs, y.index, "ConcatenationOptions", axis=axis)
        return y

    def resize(self, x: Value) -> Value:
        size = (self.number(1, 9), self.number(1, 9))
        if math.prod(size) * x.shape[3] > LARGEST:
            return self.function(x)
        y = self.value((1, *size, x.shape[3]), x.scale, x.zero)
        kind, options = self.pick(
            ("RESIZE_BILINEAR", "ResizeBilinearOptions"), ("RESIZE_NEAREST_NEIGHBOR", "ResizeNearestNeighborOptions")
        )
        self.model.operator(kind, [x.index, self.model.tensor((2,), "int32", data=size)], y.index, options)
        return y

    def transpose(self, x: Value) -> Value:
        order = [0, *(int(axis) for axis in self.random.permutation([1, 2, 3]))]
        y = self.value([x.shape[axis] for axis in order], x.scale, x.zero)
        self.model.operator("TRANSPOSE", [x.index, self.model.tensor((4,), "int32", data=order)], y.index)
        return y

    def dense(self, x: Value) -> Value:
        taps, outputs = math.prod(x.shape), self.number(1, 12)
        y = self.value((1, outputs))
        inputs = [x.index, *self.weights((outputs, taps), taps, outputs, 0, x, y)]
        self.model.operator("FULLY_CONNECTED", inputs, y.index, "FullyConnectedOptions")
        return y

    def softmax(self, x: Value) -> Value:
        y = self.value(x.shape, 1 / 256, -128)
        self.model.operator("SOFTMAX", [x.index], y.index, "SoftmaxOptions", beta=1.0)
        return y


def one_layer(seed: Sequence[int]) -> bytes:
    maker = Maker(seed)
    x = maker.source()
    windows = (maker.conv, maker.depthwise, maker.pool)
    others = (
        maker.binary, maker.function, maker.mean, maker.pad, maker.resize, maker.transpose, maker.dense, maker.softmax,
    )  # fmt: skip
    number = seed[-1] // 2
    if seed[-1] % 2:
        y = windows[number % len(windows)](x, keep=maker.pick(True, False))
    else:
        y = others[number % len(others)](x)
    return maker.model.file(x.index, y.index)


def several_layers(seed: Sequence[int]) -> bytes:
    maker = Maker(seed)
    now = first = maker.source()
    for _ in range(maker.number(3, 7)):
        often: tuple[Callable[[Value], Value], ...] = (maker.conv, maker.depthwise, maker.pool)
        now = maker.pick(
            *often, *often, maker.conv, maker.binary, maker.function, maker.residual, maker.gate, maker.pad,
            maker.concatenation, maker.resize, maker.transpose,
        )(now)  # fmt: skip
    if maker.pick(True, False, False):
        now = maker.pick(maker.dense, maker.softmax)(now)
    return maker.model.file(first.index, now.index)


# Many models in one program


class Case(msgspec.Struct, frozen=True):
    """A model, inputs and TFLite Micro's outputs ``(n, …)``, and how a single layer's output may lie over its input."""

    model: bytes
    images: Any
    wanted: Any
    kernel: str
    overlap: Overlap | None


def case(model: bytes, tflm: Tflm) -> Case:
    images = random_inputs(model, IMAGES)
    layers = lower(read_graph(model, "m")).layers
    single = len(layers) == 1
    return Case(
        model=model,
        images=images.reshape(IMAGES, -1),
        wanted=tflm(model, images).reshape(IMAGES, -1),
        kernel=layers[0].kernels[0] if single else "",
        overlap=layers[0].overlaps[0] if single and layers[0].overlaps else None,
    )


_DRIVER = """
static union {
    int32_t alignment;
    int8_t bytes[%(memory)d];
} memory;
static const struct {
    void (*invoke)(const int8_t *, int8_t *, void *);
    int32_t input, output, arena;
} cases[] = {%(cases)s};

static int8_t pattern(int32_t place, int32_t fill)
{
    return (int8_t)(((place * 89) ^ (fill * 31)) & 127);
}

/* Of a row: which case, how far the input begins behind the output, both in two bytes, where the first of them begins,
   what to fill memory with; then the input. The answer is the output and the number of bytes that changed elsewhere. */
void cases_invoke(const int8_t *row, int8_t *answer)
{
    const int32_t number = (uint8_t)row[0] + 256 * row[1], shift = (uint8_t)row[2] + 256 * row[3], fill = row[5];
    const int32_t inputs = cases[number].input, outputs = cases[number].output, size = (int32_t)sizeof memory.bytes;
    const int32_t output = %(guard)d + row[4] + (shift < 0 ? -shift : 0), input = output + shift;
    const int32_t arena = size - %(guard)d - cases[number].arena;
    int32_t i, changed = 0;
    for (i = 0; i < size; i++)
        memory.bytes[i] = pattern(i, fill);
    for (i = 0; i < inputs; i++)
        memory.bytes[input + i] = row[6 + i];
    cases[number].invoke(memory.bytes + input, memory.bytes + output, memory.bytes + arena);
    for (i = 0; i < size; i++) {
        const int8_t before = i >= input && i < input + inputs ? row[6 + i - input] : pattern(i, fill);
        if (i >= output && i < output + outputs)
            answer[i - output] = memory.bytes[i];
        else if ((i < arena || i >= arena + cases[number].arena) && memory.bytes[i] != before)
            changed++;
    }
    answer[%(outputs)d] = (int8_t)(changed < 127 ? changed : 127);
}
"""


def program(cases: Sequence[Case]) -> Sources:
    """One program of all models: their layers as generated, above one copy of the kernels."""
    bodies, rows, names = [], [], set()
    largest = [0, 0, 0]
    for number, one in enumerate(cases):
        generated = to_c(read_graph(one.model, "m"), f"m{number}", caller_arena=True)
        first = re.search(r"^/\* [A-Z_0-9]+ \S+: .* -> ", generated.source, re.MULTILINE)
        assert first is not None
        body = re.sub(r"\blayer_(?=\d)", f"m{number}_layer_", generated.source[first.start() :])
        names |= set(re.findall(r"\b(\w+)\(", body))
        bodies.append(body)
        sizes = (one.images[0].size, one.wanted[0].size, generated.plan.arena_bytes)
        rows.append(f"{{m{number}_invoke, {', '.join(map(str, sizes))}}}")
        largest = [max(pair) for pair in zip(largest, sizes, strict=True)]
    kernels = c99_kernels.code(names & c99_kernels.names(), {"requantize": "requantize_any"})
    memory = sum(largest) + 4 * GUARD & ~3
    driver = _DRIVER % {"memory": memory, "cases": ", ".join(rows), "guard": GUARD, "outputs": largest[1]}
    header = "#include <stdint.h>\nvoid cases_invoke(const int8_t *row, int8_t *answer);\n"
    code = "\n".join(['#include "cases.h"', kernels, *bodies, driver])
    files = {"cases.h": header.encode(), "cases.c": code.encode()}
    return Sources(name="cases", files=files, input_size=6 + largest[0], output_size=largest[1] + 1)


class Call(msgspec.Struct, frozen=True):
    """One call of a case: which image, how far the input begins behind the output."""

    case: int
    image: int
    shift: int


def wrong(firmware: Firmware, cases: Sequence[Case], calls: Sequence[Call]) -> list[Call]:
    """The calls that answered otherwise than TFLite Micro, or changed a byte outside output and arena."""
    rows = np.zeros((len(calls), firmware.sources.input_size), np.int8)
    for place, (row, call) in enumerate(zip(rows, calls, strict=True)):
        image = cases[call.case].images[call.image]
        row[:4] = np.array([call.case, call.shift], "<i2").view(np.int8)
        row[4:6] = place % 4, place * 7 % 127
        row[6 : 6 + image.size] = image
    answers = emulation.run(firmware, rows)
    found = []
    for call, answer in zip(calls, answers, strict=True):
        wanted = cases[call.case].wanted[call.image]
        if answer[-1] or (answer[: wanted.size] != wanted).any():
            found.append(call)
    return found


@functools.cache
def cases(batch: int) -> tuple[Case, ...]:
    """Models of a layer, then of several."""
    with tflm_process() as tflm:
        made = [one_layer((batch, 0, number)) for number in range(LAYERS)]
        made += [several_layers((batch, 1, number)) for number in range(MODELS)]
        return tuple(case(model, tflm) for model in made)


# What is asked of every processor


@pytest.fixture(scope="module")
def firmware(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str, int], Firmware]]:
    """The program of a batch for a target, built once."""

    @functools.cache
    def folder(batch: int) -> Path:
        return tmp_path_factory.mktemp(f"batch{batch}")

    @functools.cache
    def built(target: str, batch: int) -> Firmware:
        need(target)
        level = emulation.LEVELS[batch % len(emulation.LEVELS)]
        return emulation.build(program(cases(batch)), target, folder(batch), level)

    yield built
    cases.cache_clear()


def calls(ours: Sequence[Case], shifts: Callable[[Case], Sequence[int]]) -> list[Call]:
    return [
        Call(case=place, image=image, shift=shift)
        for place, one in enumerate(ours)
        for shift in shifts(one)
        for image in range(IMAGES)
    ]


def apart(one: Case) -> list[int]:
    return [one.wanted[0].size + GUARD]


def nearest(one: Case) -> list[int]:
    """As near as the layer is said to bear it, and somewhat farther."""
    if one.overlap is None:
        return []
    return [0] if one.overlap.exact else [one.overlap.distance + more for more in (0, 1, 2, 5)]


def too_near(one: Case) -> list[int]:
    if one.overlap is None:
        return []
    return [-1, 1] if one.overlap.exact else [one.overlap.distance - 1]


def wrong_kernels(ours: Sequence[Case], found: Sequence[Call]) -> set[str]:
    return {ours[call.case].kernel for call in found}


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("target", TARGETS)
def test_models_answer_as_tflite_micro_and_stay_in_their_memory(target: str, batch: int, firmware: Any) -> None:
    ours = cases(batch)
    assert wrong(firmware(target, batch), ours, calls(ours, apart)) == []


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("target", TARGETS)
def test_outputs_may_lie_as_near_as_is_said_but_no_nearer(target: str, batch: int, firmware: Any) -> None:
    ours = cases(batch)
    assert wrong(firmware(target, batch), ours, calls(ours, nearest)) == []
    assert wrong_kernels(ours, wrong(firmware(target, batch), ours, calls(ours, too_near))) == OVER_THEIR_INPUT


@pytest.mark.parametrize("batch", BATCHES)
def test_the_models_are_worth_running(batch: int) -> None:
    """Of most models the outputs differ, and in the arena of many an output lies over its input."""
    models = [one for one in cases(batch) if not one.kernel]
    lively = [one for one in models if len({output.tobytes() for output in one.wanted}) > 2]
    overlapping = [one for one in models if overlaps(to_c(read_graph(one.model, "m"), "m").plan)]
    assert len(models) == MODELS
    assert len(lively) > MODELS * 0.7
    assert len(overlapping) > MODELS * 0.4


def overlaps(plan: MemoryPlan) -> bool:
    return any(
        a.first <= b.last and b.first <= a.last and a.offset < b.offset + b.bytes and b.offset < a.offset + a.bytes
        for a, b in itertools.combinations(plan.blocks, 2)
    )


# Damage


def kernel_cases(kernel: str) -> list[Case]:
    """Single layers of a kernel, lowered anew."""
    with tflm_process() as tflm:
        return [case(one.model, tflm) for one in cases(0) if one.kernel == kernel]


@pytest.fixture
def edit(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Changes the text of the kernels' files, of all or of one."""
    text = c99_kernels._text
    c99_kernels._sections.cache_clear()

    def changed(old: str, new: str, where: str = "") -> None:
        edited = {file: text(file).replace(old, new) if file.endswith(where) else text(file) for file in FILES}
        assert any(edited[file] != text(file) for file in FILES)
        monkeypatch.setattr(c99_kernels, "_text", edited.__getitem__)

    yield changed
    c99_kernels._sections.cache_clear()


@pytest.mark.parametrize(
    ("kernel", "word", "weaker"),
    [
        ("conv_2d", "pixels", "values"),
        ("max_pool_2d", "pixels", "values"),
        ("average_pool_2d", "pixels", "values"),
        ("depthwise_conv_2d", "channels", "values"),
        ("depthwise_conv_2d", "channels", "pixels"),
    ],
)
def test_a_word_that_promises_more_than_the_kernel_keeps_is_found_out(
    kernel: str, word: str, weaker: str, edit: Callable[..., None], tmp_path: Path
) -> None:
    edit(f"//@ {kernel} ({word})", f"//@ {kernel} ({weaker})")
    ours = kernel_cases(kernel)
    firmware = emulation.build(program(ours), "host", tmp_path)
    assert wrong_kernels(ours, wrong(firmware, ours, calls(ours, nearest))) == {kernel}


@pytest.mark.parametrize("file", ["kernels.c", "mve.c"])
def test_without_its_word_or_with_two_a_kernel_writes_nowhere_near_its_input(
    file: str, edit: Callable[..., None]
) -> None:
    """Whichever processor's variant is silent: the plan is the same for all."""
    assert all(one.overlap for one in kernel_cases("conv_2d"))
    for other in ("", " (values)"):
        edit("//@ conv_2d (pixels)", f"//@ conv_2d{other}", file)
        c99_kernels._sections.cache_clear()
        assert not any(one.overlap for one in kernel_cases("conv_2d"))


def test_an_order_of_another_processor_is_found_there(edit: Callable[..., None], tmp_path: Path) -> None:
    """A Helium kernel that writes a pixel before it has read it all passes everywhere but on a Cortex-M55."""
    need("cortex-m55")
    edit(
        "            conv_2d_gather(s, x, row *",
        "            y[s->outputs - 1] = 0;\n            conv_2d_gather(s, x, row *",
    )
    ours = kernel_cases("conv_2d")
    for target, found in (("host", set()), ("cortex-m4", set()), ("cortex-m55", {"conv_2d"})):
        firmware = emulation.build(program(ours), target, tmp_path)
        assert wrong(firmware, ours, calls(ours, apart)) == []
        assert wrong_kernels(ours, wrong(firmware, ours, calls(ours, nearest))) == found


def test_a_byte_written_behind_the_output_is_found(edit: Callable[..., None], tmp_path: Path) -> None:
    edit("*y++ = (int8_t)table[(uint8_t)*x++];", "*y++ = (int8_t)table[(uint8_t)*x++];\n    *y = 0;")
    ours = kernel_cases("lookup")
    assert wrong_kernels(ours, wrong(emulation.build(program(ours), "host", tmp_path), ours, calls(ours, apart)))


@pytest.mark.parametrize("kernel", ["conv_2d", "depthwise_conv_2d"])
def test_scratch_memory_too_small_is_found(kernel: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    add = c99_lower._Lowering.add

    def less(self: Any, *arguments: Any, scratch: int = 0, **options: Any) -> None:
        add(self, *arguments, scratch=scratch * 3 // 4, **options)

    monkeypatch.setattr(c99_lower._Lowering, "add", less)
    ours = kernel_cases(kernel)
    assert wrong(emulation.build(program(ours), "host", tmp_path), ours, calls(ours, apart))
