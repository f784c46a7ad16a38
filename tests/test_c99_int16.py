"""Generated C with int16 activations and int8 weights gives TFLite Micro's bytes."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from emulated import need
from generated import Model, Tflm, compiled, generate, needs_tflm, random_inputs, run, tflm_process

from edgecnn import emulation
from edgecnn.errors import UnsupportedError
from edgecnn.formats.c99 import kernels
from edgecnn.formats.onnx.qdq import to_onnx
from edgecnn.tflite.graph import read_graph

pytestmark = [pytest.mark.slow, needs_tflm]

SEEDS = range(6)


@pytest.fixture(scope="module")
def tflm() -> Iterator[Tflm]:
    with tflm_process() as process:
        yield process


class Maker:
    """Makes random models of int16 activations; values neither vanish nor all saturate."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.model = Model()

    def pick(self, *options: Any) -> Any:
        return options[self.random.integers(len(options))]

    def number(self, low: int, high: int) -> int:
        return int(self.random.integers(low, high + 1))

    def scale(self, near: float = 2e-4) -> float:
        return float(np.float32(near * math.exp(self.random.uniform(-1, 1))))

    def value(self, shape: Any, scale: float | None = None, dtype: str = "int16", zero: int = 0) -> int:
        return self.model.tensor(shape, dtype, scale=self.scale() if scale is None else scale, zero=zero)

    def shape(self) -> tuple[int, ...]:
        return (1, self.number(1, 7), self.number(1, 7), self.number(1, 9))

    def file(self, *ends: int) -> bytes:
        return self.model.file(*ends)

    # Layers, each as a model

    def weighted(self, kind: str) -> bytes:
        shape, outputs = self.shape(), self.number(1, 6)
        kernel = (self.number(1, 4), self.number(1, 4))
        stride, dilation = self.pick((1, 1), (2, 1), (2, 3)), self.pick((1, 1), (1, 1), (2, 1), (1, 3))
        options: dict[str, Any] = {"fusedActivationFunction": self.pick(0, 0, 1)}
        made: tuple[int, ...]
        if kind == "FULLY_CONNECTED":
            taps = math.prod(shape[1:]) * self.pick(1, 1, 5)
            shape, made, sizes = (self.number(1, 2), taps), (0, outputs), (outputs, taps)
            made = (shape[0], outputs)
        elif kind == "TRANSPOSE_CONV":
            padding = self.pick(0, 1)
            out = [
                n * s if padding == 0 else (n - 1) * s + k for n, s, k in zip(shape[1:3], stride, kernel, strict=True)
            ]
            made, sizes = (1, *out, outputs), (outputs, *kernel, shape[3])
            options = {"padding": padding, "strideH": stride[0], "strideW": stride[1]}
        else:
            out = [-(-size // step) for size, step in zip(shape[1:3], stride, strict=True)]
            depthwise = kind == "DEPTHWISE_CONV_2D"
            outputs = shape[3] * self.pick(1, 2) if depthwise else outputs
            made, sizes = (1, *out, outputs), (1, *kernel, outputs) if depthwise else (outputs, *kernel, shape[3])
            options |= {"padding": 0, "strideH": stride[0], "strideW": stride[1]}
            options |= {"dilationHFactor": dilation[0], "dilationWFactor": dilation[1]}
            options |= {"depthMultiplier": outputs // shape[3]} if depthwise else {}
        taps = math.prod(sizes) // outputs
        x, y = self.scale(), self.scale(self.pick(2e-4, 2e-6, 1e-1))
        typical = y / x / math.sqrt(taps) / self.random.uniform(30, 150)
        scales = np.float32(typical * self.random.uniform(0.5, 2, self.pick(1, outputs)))
        weights = self.model.tensor(
            sizes,
            scale=scales,
            axis=3 if kind == "DEPTHWISE_CONV_2D" else 0,
            data=self.random.integers(-127, 128, sizes),
        )
        bias = -1
        wide = kind in ("DEPTHWISE_CONV_2D", "TRANSPOSE_CONV")
        if wide or self.pick(True, True, False):
            limit = self.pick(2**12, 2**16, 2**30, *([] if not wide else [2**36]))
            dtype = "int64" if wide else self.pick("int32", "int64")
            bias = self.model.tensor(
                (outputs,), dtype, scale=scales * np.float32(x), data=self.random.integers(-limit, limit, outputs)
            )
        source, target = self.value(shape, x), self.value(made, y)
        inputs = [source, weights, bias]
        if kind == "TRANSPOSE_CONV":
            inputs = [self.model.tensor((4,), "int32", data=made), weights, source, bias]
        names = {
            "CONV_2D": "Conv2D", "DEPTHWISE_CONV_2D": "DepthwiseConv2D", "FULLY_CONNECTED": "FullyConnected",
            "TRANSPOSE_CONV": "TransposeConv",
        }  # fmt: skip
        self.model.operator(kind, inputs, target, f"{names[kind]}Options", **options)
        return self.file(source, target)

    def pool(self) -> bytes:
        shape, kernel, stride = self.shape(), (self.number(1, 4), self.number(1, 4)), (self.number(1, 3), 1)
        made = (1, -(-shape[1] // stride[0]), shape[2], shape[3])
        scale = self.scale()
        source, target = self.value(shape, scale), self.value(made, scale)
        self.model.operator(
            self.pick("MAX_POOL_2D", "AVERAGE_POOL_2D"), [source], target, "Pool2DOptions", padding=0,
            strideH=stride[0], strideW=stride[1], filterHeight=kernel[0], filterWidth=kernel[1],
            fusedActivationFunction=self.pick(0, 1),
        )  # fmt: skip
        return self.file(source, target)

    def mean(self) -> bytes:
        shape = self.shape()
        axes = self.pick((1, 2), (1,), (3,), (2, 3))
        made = [1 if axis in axes else size for axis, size in enumerate(shape)]
        source, target = self.value(shape), self.value(made)
        inputs = [source, self.model.tensor((len(axes),), "int32", data=axes)]
        self.model.operator("MEAN", inputs, target, "ReducerOptions", keepDims=True)
        return self.file(source, target)

    def two(self, kind: str) -> bytes:
        shape, scale = self.shape(), self.scale()
        same = kind in ("MAXIMUM", "MINIMUM")
        other = self.pick(shape, (1, 1, 1, shape[3]), (1, shape[1], shape[2], 1))
        own = scale if same else self.pick(scale, self.scale())
        out = scale if same else self.scale(4e-4 if kind != "MUL" else 40 * scale * own)
        source = self.value(shape, scale)
        operands = [
            source,
            self.model.tensor(other, "int16", scale=own, data=self.random.integers(-32768, 32768, other)),
        ]
        target = self.value(shape, out)
        options = "" if same else f"{kind.capitalize()}Options"
        fused = {} if same else {"fusedActivationFunction": self.pick(0, 1)}
        self.model.operator(kind, self.pick(operands, operands[::-1]), target, options, **fused)
        return self.file(source, target)

    def function(self, kind: str) -> bytes:
        shape = (1, 600)
        scale = self.pick(2.0**-12, 2.0**-11, 2.0**-10, self.scale(), self.scale(1e-3))
        fixed = kind in ("LOGISTIC", "TANH", "SOFTMAX")
        leaky: dict[str, Any] = {"options": "LeakyReluOptions", "alpha": 0.3} if kind == "LEAKY_RELU" else {}
        soft: dict[str, Any] = {"options": "SoftmaxOptions", "beta": self.pick(1.0, 0.7)} if kind == "SOFTMAX" else {}
        shape = (1, 2, self.pick(1, 2, 10, 100)) if kind == "SOFTMAX" else shape
        source, target = (
            self.value(shape, scale),
            self.value(shape, 2.0**-15 if fixed else scale if kind == "RELU6" else None),
        )
        self.model.operator(kind, [source], target, **leaky, **soft)
        return self.file(source, target)

    def quantize(self) -> bytes:
        first, second = self.pick(
            ("int8", "int16"), ("int16", "int8"), ("int16", "int16"), ("int16", "int32"), ("int8", "int32")
        )
        source = self.value((1, 600), self.scale(2e-2 if first == "int8" else 2e-4), first, self.number(-9, 9))
        near = {"int8": 2e-2, "int16": 2e-4, "int32": self.pick(2e-4, 1e-8)}[second]
        target = self.value((1, 600), self.scale(near), second, self.number(-9, 9))
        self.model.operator("QUANTIZE", [source], target)
        return self.file(source, target)

    def softmax_of_int8(self) -> bytes:
        shape = (1, 2, self.pick(1, 2, 10, 100))
        source = self.value(shape, self.scale(2e-2), "int8", 3)
        target = self.value(shape, 2.0**-16, "int16", -32768)
        self.model.operator("SOFTMAX", [source], target, "SoftmaxOptions", beta=self.pick(1.0, 0.7))
        return self.file(source, target)

    def move(self, kind: str) -> bytes:
        shape, scale = self.shape(), self.scale()
        source, inputs, options, values = self.value(shape, scale), [], "", {}
        made: Any = shape
        if kind == "PAD":
            pairs = [(0, 0), *[(self.number(0, 2), self.number(0, 2)) for _ in range(3)]]
            made = [before + size + after for (before, after), size in zip(pairs, shape, strict=True)]
            inputs = [self.model.tensor((4, 2), "int32", data=pairs)]
        elif kind == "TRANSPOSE":
            order = [0, *(int(axis) for axis in self.random.permutation([1, 2, 3]))]
            made, inputs = [shape[axis] for axis in order], [self.model.tensor((4,), "int32", data=order)]
        elif kind == "STRIDED_SLICE":
            starts = [0, *[self.number(0, size - 1) for size in shape[1:]]]
            made = [size - start for start, size in zip(starts, shape, strict=True)]
            inputs = [self.model.tensor((4,), "int32", data=data) for data in (starts, shape, [1] * 4)]
            options = "StridedSliceOptions"
        elif kind == "CONCATENATION":
            other, axis = [*shape], self.number(1, 3)
            other[axis] = self.number(1, 4)
            made = [*shape]
            made[axis] += other[axis]
            data = self.random.integers(-32768, 32768, other)
            inputs = [self.model.tensor(other, "int16", scale=scale, data=data)]
            options, values = "ConcatenationOptions", {"axis": axis}
        elif kind == "RESHAPE":
            made = (1, math.prod(shape))
            inputs = [self.model.tensor((2,), "int32", data=made)]
        target = self.value(made, scale)
        self.model.operator(kind, [source, *inputs], target, options, **values)
        return self.file(source, target)


CASES: dict[str, Callable[[Maker], bytes]] = {
    **{kind: lambda maker, kind=kind: maker.weighted(kind) for kind in  # type: ignore[misc]
       ("CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV", "FULLY_CONNECTED")},
    "pool": Maker.pool,
    "mean": Maker.mean,
    **{kind: lambda maker, kind=kind: maker.two(kind) for kind in ("ADD", "SUB", "MUL", "MAXIMUM", "MINIMUM")},  # type: ignore[misc]
    **{kind: lambda maker, kind=kind: maker.function(kind) for kind in  # type: ignore[misc]
       ("LOGISTIC", "TANH", "SOFTMAX", "RELU", "RELU6", "LEAKY_RELU")},
    "quantize": Maker.quantize,
    "softmax of int8": Maker.softmax_of_int8,
    **{kind: lambda maker, kind=kind: maker.move(kind) for kind in  # type: ignore[misc]
       ("PAD", "TRANSPOSE", "STRIDED_SLICE", "CONCATENATION", "RESHAPE")},
}  # fmt: skip


def agree(case: str, seed: int, tflm: Tflm, folder: Path) -> bool:
    """Compare with TFLite Micro on four inputs; whether their outputs differ."""
    folder.mkdir()
    model = CASES[case](Maker(seed))
    images = random_inputs(model, 4, seed)
    wanted = tflm(model, images)
    generate(model, folder)
    np.testing.assert_array_equal(run(compiled(folder, "m", "cc", "-O1"), model, images), wanted)
    return len({output.tobytes() for output in wanted}) > 2


@pytest.mark.parametrize("case", CASES)
def test_int16_layers_have_the_bytes_of_tflite_micro(case: str, tflm: Tflm, tmp_path: Path) -> None:
    assert sum(agree(case, seed, tflm, tmp_path / str(seed)) for seed in SEEDS) > len(SEEDS) / 2


@pytest.mark.parametrize(
    ("case", "old", "new"),
    [
        ("LOGISTIC", "32768, 33451, ", "32768, 33452, "),
        ("CONV_2D", "(value * multiplier + ((int64_t)1 << (shift - 1))) >> shift", "(value * multiplier) >> shift"),
        ("mean", "j < line; j += s->inner", "j < line - s->inner; j += s->inner"),
    ],
)
def test_a_kernel_that_is_a_little_wrong_is_found(
    case: str, old: str, new: str, tflm: Tflm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = kernels._text
    assert old in text("kernels.c")
    monkeypatch.setattr(kernels, "_text", lambda file: text(file).replace(old, new))
    kernels._sections.cache_clear()
    try:
        with pytest.raises(AssertionError, match="Arrays are not equal"):
            sum(agree(case, seed, tflm, tmp_path / str(seed)) for seed in SEEDS)
    finally:
        kernels._sections.cache_clear()


def network() -> bytes:
    """A small network of int16 layers, as a converter writes it: input and output quantised from and to int8."""
    maker = Maker(1)
    model, random = maker.model, maker.random

    def weighted(kind: str, options: str, source: int, sizes: Any, made: Any, x: float, y: float, **values: int) -> int:
        outputs, target = made[-1], maker.value(made, y)
        scales = np.float32(y / x / math.sqrt(math.prod(sizes) / outputs) / random.uniform(60, 120, outputs))
        weights = model.tensor(sizes, scale=scales, axis=3 * (sizes[0] == 1), data=random.integers(-127, 128, sizes))
        bias = model.tensor((outputs,), "int64", scale=scales * x, data=random.integers(-(2**16), 2**16, outputs))
        model.operator(kind, [source, weights, bias], target, options, **values)
        return target

    window = {"padding": 0, "strideH": 1, "strideW": 1, "dilationHFactor": 1, "dilationWFactor": 1}
    first = maker.value((1, 6, 5, 7), 0.02, "int8", 4)
    x = maker.value((1, 6, 5, 7), 1e-4)
    model.operator("QUANTIZE", [first], x)
    a = weighted("CONV_2D", "Conv2DOptions", x, (8, 3, 3, 7), (1, 6, 5, 8), 1e-4, 2e-4, **window)
    b = weighted(
        "DEPTHWISE_CONV_2D",
        "DepthwiseConv2DOptions",
        a,
        (1, 3, 3, 8),
        (1, 6, 5, 8),
        2e-4,
        2e-4,
        depthMultiplier=1,
        **window,
    )
    c, d, e = maker.value((1, 6, 5, 8), 3e-4), maker.value((1, 1, 1, 8), 1e-4), maker.value((1, 8), 1e-4)
    model.operator("ADD", [a, b], c, "AddOptions", fusedActivationFunction=1)
    model.operator("MEAN", [c, model.tensor((2,), "int32", data=[1, 2])], d, "ReducerOptions", keepDims=True)
    model.operator("RESHAPE", [d, model.tensor((2,), "int32", data=[1, 8])], e)
    f = weighted("FULLY_CONNECTED", "FullyConnectedOptions", e, (5, 8), (1, 5), 1e-4, 2e-4)
    g, last = maker.value((1, 5), 2.0**-15), maker.value((1, 5), 1 / 256, "int8", -128)
    model.operator("SOFTMAX", [f], g, "SoftmaxOptions", beta=1.0)
    model.operator("QUANTIZE", [g], last)
    return maker.file(first, last)


@pytest.mark.parametrize("target", ["cortex-m0", "cortex-m55"])
def test_int16_networks_run_on_cores(target: str, tflm: Tflm, tmp_path: Path) -> None:
    """The Cortex-M0 faults at a value of int16 that is not aligned."""
    need(target)
    for model in (network(), CASES["CONV_2D"](Maker(0))):
        images = random_inputs(model, 8)
        wanted = tflm(model, images)
        assert len({output.tobytes() for output in wanted}) > 2
        firmware = emulation.build(emulation.generate(read_graph(model, "m"), "m"), target, tmp_path)
        outputs = emulation.run(firmware, images.reshape(len(images), -1).view(np.int8))
        np.testing.assert_array_equal(outputs, wanted.reshape(len(images), -1).view(np.int8))


def test_what_has_no_int16_kernel_is_refused() -> None:
    maker = Maker(0)
    source, target = maker.value((1, 4)), maker.value((1, 4))
    maker.model.operator("HARD_SWISH", [source], target)
    graph = read_graph(maker.file(source, target), "m")
    with pytest.raises(UnsupportedError, match=r"operator 0 \(HARD_SWISH 't1'\): tensor 't0' is int16"):
        emulation.generate(graph, "m")
    with pytest.raises(UnsupportedError, match="tensor 't0' is int16"):
        to_onnx(read_graph(CASES["ADD"](Maker(0)), "m"), "m")
