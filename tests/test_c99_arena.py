"""Generated code in its arena: outputs laid over inputs as near as the plan allows, on every kind of processor.

Random models of one layer, called with the output over the input, of several layers, and of layers that run in bands of
rows are put into one program, whose answers are compared with TFLite Micro's. Around and between input, output and
arena lie bytes that must stay as they are, and other bytes on every call, on which no answer may depend. Their memory
ends where the machine's does: on this machine and the emulated Cortex-M0 (plain C), M33 (DSP) and M55 (Helium) a step
beyond is a fault.

``EDGECNN_FUZZ=2000`` tries ten times as many models.
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
from edgecnn.errors import EmulationError
from edgecnn.formats.c99 import bands, memory, to_c
from edgecnn.formats.c99 import kernels as c99_kernels
from edgecnn.formats.c99 import lower as c99_lower
from edgecnn.formats.c99.bands import Cut, Move, Stage
from edgecnn.formats.c99.lower import lower
from edgecnn.formats.c99.plan import Overlap
from edgecnn.records import MemoryPlan
from edgecnn.tflite.graph import read_graph

pytestmark = [pytest.mark.slow, needs_tflm]

TARGETS = ("host", *(core for core in emulation.BARE if core != "cortex-m85"))  # its code is that of the M55
BATCHES = range(max(1, 3 * int(os.environ.get("EDGECNN_FUZZ", "200")) // 200))  # each with another -O
LAYERS, MODELS, BANDED, IMAGES = 120, 40, 24, 4
LARGEST = 700  # values of a tensor, so that the smallest board has room
GUARD, MEMORY = 64, 6144
OVER_THEIR_INPUT = {"conv_2d", "depthwise_conv_2d", "max_pool_2d", "average_pool_2d", "add", "mul", "lookup"}
FILES = ("kernels.c", "kernels_mve.c")
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
        kernel = self.pick((3, 3), (3, 3), (1, 1), (2, 4), (5, 1), (1, 3), (2, 2), (7, 1), (5, 4))
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

    def mirrored(self, x: Value) -> Value:
        """MIRROR_PAD by a value at the end of each axis, where there is one."""
        pairs = [(0, min(size - 1, 1)) for size in x.shape]
        made = [size + after for (_, after), size in zip(pairs, x.shape, strict=True)]
        if math.prod(made) > LARGEST:
            return self.function(x)
        y = self.value(made, x.scale, x.zero)
        pads = self.model.tensor((4, 2), "int32", data=pairs)
        self.model.operator("MIRROR_PAD", [x.index, pads], y.index, "MirrorPadOptions", mode=0)
        return y

    def product(self, x: Value) -> Value:
        """With itself: of all its lines."""
        _, height, width, channels = x.shape
        if height * width * width > LARGEST:
            return self.function(x)
        y = self.value((1, height, width, width), 30 * x.scale * x.scale * math.sqrt(channels))
        self.model.operator("BATCH_MATMUL", [x.index, x.index], y.index, "BatchMatMulOptions", adjX=False, adjY=True)
        return y

    def reduced(self, x: Value) -> Value:
        kind = self.pick("SUM", "REDUCE_MIN", "REDUCE_MAX")
        same = kind != "SUM"
        y = self.value((1, x.shape[1], 1, x.shape[3]), x.scale * (1 if same else 4), x.zero if same else None)
        axes = self.model.tensor((1,), "int32", data=[2])
        self.model.operator(kind, [x.index, axes], y.index, "ReducerOptions", keepDims=True)
        return y

    def normalized(self, x: Value) -> Value:
        y = self.value(x.shape, 1 / 128, 0)
        self.model.operator("L2_NORMALIZATION", [x.index], y.index, "L2NormOptions")
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
        maker.mirrored, maker.product, maker.reduced, maker.normalized,
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
            maker.concatenation, maker.resize, maker.transpose, maker.mirrored, maker.product, maker.reduced,
        )(now)  # fmt: skip
    if maker.pick(True, False, False):
        now = maker.pick(maker.dense, maker.softmax)(now)
    return maker.model.file(first.index, now.index)


def layers_in_bands(seed: Sequence[int]) -> tuple[bytes, Cut]:
    """A model whose first layers can run in bands, and a cut of it."""
    maker = Maker(seed)
    shape = (1, maker.number(5, 24), maker.number(1, 6), maker.number(1, 4))
    now = first = maker.value(shape)
    for _ in range(maker.number(2, 7)):
        often: tuple[Callable[[Value], Value], ...] = (maker.conv, maker.depthwise, maker.pool)
        now = maker.pick(
            *often, *often, maker.binary, maker.function, maker.residual, maker.residual, maker.pad,
            maker.concatenation,
        )(now)  # fmt: skip
    if maker.pick(True, False):
        now = maker.pick(maker.dense, maker.gate, maker.transpose)(now)
    model = maker.model.file(first.index, now.index)
    longest = bands.longest(lower(read_graph(model, "m")).operations, [first.index])
    if longest == 0:
        return layers_in_bands((*seed, 0))
    operators, rows = maker.number(min(2, longest), longest), maker.number(1, shape[1] // 2)
    return model, Cut(operators=operators, rows=rows, reads=maker.pick(True, False))


# Many models in one program


class Case(msgspec.Struct, frozen=True):
    """A model, inputs and TFLite Micro's outputs ``(n, …)``, and how a single layer's output may lie over its input.

    ``source`` are its layers and ``m_invoke``, without the kernels; ``arena`` is in bytes.
    """

    model: bytes
    source: str
    arena: int
    images: Any
    wanted: Any
    kernel: str
    overlap: Overlap | None


def case(model: bytes, tflm: Tflm, cut: Cut | None = None) -> Case:
    images = random_inputs(model, IMAGES)
    graph = read_graph(model, "m")
    layers, generated = lower(graph).layers, to_c(graph, "m", caller_arena=True, cut=cut)
    first = re.search(r"^/\* [A-Z_0-9]+ \S+: .* -> ", generated.source, re.MULTILINE)
    assert first is not None
    types = "".join(re.findall(r"^typedef .*\n", generated.header, re.MULTILINE))
    single = len(layers) == 1 and cut is None
    return Case(
        model=model,
        source=types + generated.source[first.start() :],
        arena=generated.plan.arena_bytes,
        images=images.reshape(IMAGES, -1),
        wanted=tflm(model, images).reshape(IMAGES, -1),
        kernel=layers[0].kernels[0] if single else "",
        overlap=layers[0].overlaps[0] if single and layers[0].overlaps else None,
    )


_DRIVER = """
static const struct {
    void (*invoke)(const int8_t *, int8_t *, void *);
    int32_t input, output, arena;
} cases[] = {%(cases)s};

#ifdef __linux__
static int8_t *memory(void)
{
    static int8_t *end;
    if (end == NULL) {
        end = (int8_t *)mmap(NULL, 131072, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) + 65536;
        mprotect(end, 65536, PROT_NONE);
    }
    return end - %(memory)d;
}
#else
extern int8_t RAM_ORIGIN[], RAM_LENGTH[]; /* the linker's numbers */
static int8_t *memory(void)
{
    return (int8_t *)((uintptr_t)RAM_ORIGIN + (uintptr_t)RAM_LENGTH - %(memory)d);
}
#endif

static int8_t pattern(int32_t place, int32_t fill)
{
    return (int8_t)(((place * 89) ^ (fill * 31)) & 127);
}

/* A row: five numbers of two bytes, then the input. They are the case; where in the memory, which ends where the
   machine's does, input, output and arena begin; what else to fill it with. The answer: output, and whether a byte
   beside output and arena has changed. */
void cases_invoke(const int8_t *row, int8_t *answer)
{
    int32_t said[5], inputs, outputs, arena, i, changed = 0;
    int8_t *const bytes = memory();
    for (i = 0; i < 5; i++, row += 2)
        said[i] = (uint8_t)row[0] + 256 * row[1];
    inputs = cases[said[0]].input;
    outputs = cases[said[0]].output;
    arena = cases[said[0]].arena;
    for (i = 0; i < %(memory)d; i++)
        bytes[i] = pattern(i, said[4]);
    for (i = 0; i < inputs; i++)
        bytes[said[1] + i] = row[i];
    cases[said[0]].invoke(bytes + said[1], bytes + said[2], bytes + said[3]);
    for (i = 0; i < %(memory)d; i++) {
        const int8_t before = i >= said[1] && i < said[1] + inputs ? row[i - said[1]] : pattern(i, said[4]);
        if (i >= said[2] && i < said[2] + outputs)
            answer[i - said[2]] = bytes[i];
        else if ((i < said[3] || i >= said[3] + arena) && bytes[i] != before)
            changed = 1;
    }
    answer[%(outputs)d] = (int8_t)changed;
}
"""

_HEADER = """#ifdef __linux__
#define _DEFAULT_SOURCE
#include <stddef.h>
#include <sys/mman.h>
#endif
#include <stdint.h>
void cases_invoke(const int8_t *row, int8_t *answer);
"""


def program(cases: Sequence[Case]) -> Sources:
    """One program of all models: their layers as generated, under one copy of the kernels."""
    bodies = [
        re.sub(r"\b(layer|m|from)_(?=\d|invoke|read\b|memory\b)", rf"m{place}_\1_", one.source)
        for place, one in enumerate(cases)
    ]
    called = {name for body in bodies for name in re.findall(r"\b(\w+)\(", body)}
    kernels = c99_kernels.code(called & c99_kernels._sections("kernels.c").keys(), {"requantize": "requantize_any"})
    rows = [f"{{m{n}_m_invoke, {a.images[0].size}, {a.wanted[0].size}, {a.arena}}}" for n, a in enumerate(cases)]
    outputs = max(one.wanted[0].size for one in cases)
    driver = _DRIVER % {"memory": MEMORY, "cases": ", ".join(rows), "outputs": outputs}
    code = "\n".join(['#include "cases.h"', kernels, *bodies, driver])
    files = {"cases.h": _HEADER.encode(), "cases.c": code.encode()}
    inputs = max(one.images[0].size for one in cases)
    return Sources(name="cases", files=files, input_size=10 + inputs, output_size=outputs + 1)


class Call(msgspec.Struct, frozen=True):
    """One call of a case: which image, and where in memory input, output and arena begin."""

    case: int
    image: int
    input: int
    output: int
    arena: int


def wrong(firmware: Firmware, cases: Sequence[Case], calls: Sequence[Call]) -> list[Call]:
    """The calls that answered otherwise than TFLite Micro, or changed a byte outside output and arena."""
    rows = np.zeros((len(calls), firmware.sources.input_size), np.int8)
    for place, (row, call) in enumerate(zip(rows, calls, strict=True)):
        image = cases[call.case].images[call.image]
        row[:10] = np.array([call.case, call.input, call.output, call.arena, place], "<i2").view(np.int8)
        row[10 : 10 + image.size] = image
    answers = emulation.run(firmware, rows)
    found = []
    for call, answer in zip(calls, answers, strict=True):
        wanted = cases[call.case].wanted[call.image]
        if answer[-1] or (answer[: wanted.size] != wanted).any():
            found.append(call)
    return found


def apart(cases: Sequence[Case]) -> list[Call]:
    """Calls with input, output and arena apart; also with the input, and with the arena, at the very end of memory."""
    calls = []
    for number, one in enumerate(cases):
        output = GUARD + number % 4
        behind = output + one.wanted[0].size + GUARD
        last = MEMORY - one.images[0].size
        arena, last_arena = -(-behind // 4) * 4, MEMORY - one.arena
        assert max(arena + one.arena + GUARD, behind + GUARD) <= last
        assert behind + one.images[0].size + 2 * GUARD <= last_arena
        calls += [Call(number, image, behind, output, last_arena - GUARD) for image in range(IMAGES)]
        calls += [Call(number, 2, last, output, arena), Call(number, 3, behind, output, last_arena)]
    return calls


def over(cases: Sequence[Case], shifts: Callable[[Overlap], Sequence[int]]) -> list[Call]:
    """Calls with the output so many bytes before the input, where a layer allows any."""
    calls = []
    for number, one in enumerate(cases):
        for shift in shifts(one.overlap) if one.overlap else ():
            output = GUARD + number % 4 + max(-shift, 0)
            places = (output + shift, output, MEMORY - one.arena - GUARD)
            calls += [Call(number, image, *places) for image in range(IMAGES)]
    return calls


def near(overlap: Overlap) -> list[int]:
    """As near as is said, and somewhat farther."""
    return [0] if overlap.exact else [overlap.distance + more for more in (0, 1, 2, 5)]


def too_near(overlap: Overlap) -> list[int]:
    return [-1, 1] if overlap.exact else [overlap.distance - 1]


@functools.cache
def cases(batch: int) -> tuple[Case, ...]:
    """Models of a layer, then of several, then in bands."""
    with tflm_process() as tflm:
        made = [one_layer((batch, 0, number)) for number in range(LAYERS)]
        made += [several_layers((batch, 1, number)) for number in range(MODELS)]
        cut = [layers_in_bands((batch, 2, number)) for number in range(BANDED)]
        return (*(case(model, tflm) for model in made), *(case(model, tflm, own) for model, own in cut))


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


def wrong_kernels(ours: Sequence[Case], found: Sequence[Call]) -> set[str]:
    return {ours[call.case].kernel for call in found}


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("target", TARGETS)
def test_models_answer_as_tflite_micro_and_stay_in_their_memory(target: str, batch: int, firmware: Any) -> None:
    ours = cases(batch)
    assert wrong(firmware(target, batch), ours, apart(ours)) == []


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("target", TARGETS)
def test_outputs_may_lie_as_near_as_is_said_but_no_nearer(target: str, batch: int, firmware: Any) -> None:
    ours = cases(batch)
    assert wrong(firmware(target, batch), ours, over(ours, near)) == []
    found = wrong_kernels(ours, wrong(firmware(target, batch), ours, over(ours, too_near)))
    # with Helium, a depthwise convolution has mostly copied what it would overwrite
    assert found | ({"depthwise_conv_2d"} if target == "cortex-m55" else set()) == OVER_THEIR_INPUT


def test_which_kernels_may_write_over_their_input() -> None:
    assert {kernel for kernel in c99_kernels._sections("kernels.c") if c99_kernels.order(kernel)} == OVER_THEIR_INPUT


@pytest.mark.parametrize("batch", BATCHES)
def test_the_models_are_worth_running(batch: int) -> None:
    """Of most models the outputs differ, and in the arenas of most an output lies over its input."""
    models = cases(batch)[LAYERS : LAYERS + MODELS]
    lively = [one for one in models if len({output.tobytes() for output in one.wanted}) > 2]
    overlapping = [one for one in models if overlaps(to_c(read_graph(one.model, "m"), "m").plan)]
    assert len(lively) > MODELS / 2
    assert len(overlapping) > MODELS / 2


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
    assert wrong_kernels(ours, wrong(firmware, ours, over(ours, near))) == {kernel}


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
        assert wrong(firmware, ours, apart(ours)) == []
        assert wrong_kernels(ours, wrong(firmware, ours, over(ours, near))) == found


def test_a_byte_read_behind_the_input_is_found(edit: Callable[..., None], tmp_path: Path) -> None:
    """Even where it changes nothing: what lies behind memory faults."""
    need("cortex-m55")
    edit("vldrbq_z_s8(from, rest)", "vldrbq_s8(from)", "mve.c")
    ours = kernel_cases("max_pool_2d")
    firmware = emulation.build(program(ours), "cortex-m55", tmp_path)
    calls = apart(ours)
    assert wrong(firmware, ours, [call for call in calls if call.input < call.arena]) == []
    with pytest.raises(EmulationError, match="the processor faulted"):
        wrong(firmware, ours, calls)


def test_a_byte_written_behind_the_output_is_found(edit: Callable[..., None], tmp_path: Path) -> None:
    edit("*y++ = (int8_t)table[(uint8_t)*x++];", "*y++ = (int8_t)table[(uint8_t)*x++];\n    *y = 0;")
    ours = kernel_cases("lookup")
    assert wrong_kernels(ours, wrong(emulation.build(program(ours), "host", tmp_path), ours, apart(ours)))


@pytest.fixture
def less_scratch(monkeypatch: pytest.MonkeyPatch) -> None:
    add = c99_lower._Lowering.add

    def less(self: Any, *arguments: Any, scratch: int = 0, **options: Any) -> None:
        add(self, *arguments, scratch=max(scratch - 12, 0), **options)

    monkeypatch.setattr(c99_lower._Lowering, "add", less)


@pytest.mark.usefixtures("less_scratch")
def test_scratch_memory_too_small_is_found(tmp_path: Path) -> None:
    ours = kernel_cases("conv_2d")
    firmware = emulation.build(program(ours), "host", tmp_path)
    calls = apart(ours)
    assert wrong(firmware, ours, [call for call in calls if call.arena + ours[call.case].arena < MEMORY])
    with pytest.raises(EmulationError, match="exit status -11"):
        wrong(firmware, ours, calls)


@pytest.mark.usefixtures("less_scratch")
def test_scratch_memory_too_small_for_vectors_is_found(tmp_path: Path) -> None:
    need("cortex-m55")
    ours = kernel_cases("depthwise_conv_2d")
    with pytest.raises(EmulationError, match="the processor faulted"):
        wrong(emulation.build(program(ours), "cortex-m55", tmp_path), ours, apart(ours))


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda stage: {"steps": tuple(map(without_moves, stage.steps))}, id="rows are not kept"),
        pytest.param(lambda stage: {"sizes": {value: size - 4 for value, size in stage.sizes.items()}}, id="too small"),
        pytest.param(lambda stage: {"lasting": frozenset()}, id="overwritten"),
    ],
)
def test_damage_to_bands_is_found(
    damage: Callable[[Stage], dict[str, Any]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    intact = bands.stage
    monkeypatch.setattr(
        bands, "stage", lambda *given: msgspec.structs.replace(intact(*given), **damage(intact(*given)))
    )
    with tflm_process() as tflm:
        ours = [case(model, tflm, cut) for model, cut in (layers_in_bands((0, 2, number)) for number in range(12))]
    firmware = emulation.build(program(ours), "host", tmp_path)
    assert wrong(firmware, ours, [call for call in apart(ours) if call.arena + ours[call.case].arena < MEMORY])


def without_moves(step: Sequence[bands.Call | Move]) -> tuple[bands.Call | Move, ...]:
    return tuple(one for one in step if not isinstance(one, Move))


def test_no_arena_is_smaller_than_the_bound_that_saves_planning_it() -> None:
    for number in range(BANDED):
        model, cut = layers_in_bands((0, 2, number))
        whole, banded = lower(read_graph(model, "m")), lower(read_graph(model, "m"), cut=cut)
        assert banded.stage is not None
        assert memory._least(whole, banded.stage) <= memory.planned(banded)[0].arena_bytes


def test_a_first_operator_may_begin_with_a_constant() -> None:
    model = Model()
    x, y = (model.tensor((1, 16, 2, 3), scale=0.05) for _ in range(2))
    z = model.tensor((1, 8, 2, 3), scale=0.05)
    model.operator(
        "SUB", [model.tensor((3,), scale=0.05, data=[1, 2, 3]), x], y, "SubOptions", fusedActivationFunction=0
    )
    options = {"padding": 1, "strideH": 2, "strideW": 1, "filterHeight": 2, "filterWidth": 1}
    model.operator("MAX_POOL_2D", [y], z, "Pool2DOptions", fusedActivationFunction=0, **options)
    first, *_, last = memory.choices(read_graph(model.file(x, z), "m"))
    assert (first.cut, last.cut) == (None, Cut(operators=2, rows=2))
    assert last.arena < first.arena


def test_the_bands_are_worth_running() -> None:
    """In many, rows are kept between several steps, two inputs meet, and an output lies over its input."""
    programs = [
        lower(read_graph(model, "m"), cut=cut) for model, cut in (layers_in_bands((0, 2, n)) for n in range(BANDED))
    ]
    banded = [[layer for layer in one.layers if layer.banded] for one in programs]
    assert sum(one.stage is not None and one.stage.moved > 0 for one in programs) > BANDED / 3
    assert sum(any(len(layer.inputs) > 1 for layer in layers) for layers in banded) > BANDED / 5
    assert sum(any(one for layer in layers for one in layer.overlaps) for layers in banded) > BANDED / 10
