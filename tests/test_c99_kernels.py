"""Every kernel of the generated C gives TFLite Micro's bytes, on random shapes, strides, scales and zero points.

``EDGECNN_FUZZ=2000`` tries ten times as many.
"""

import functools
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from generated import (
    DUAL_MAC,
    DUAL_MAC_TOOLS,
    Model,
    Tflm,
    compiled,
    convolution_weights,
    dual_mac_tools,
    generate,
    need,
    needs_tflm,
    random_inputs,
    run,
    run_program,
    tflm_process,
)
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from edgecnn import emulation
from edgecnn.tflite.graph import read_graph

pytestmark = [pytest.mark.slow, needs_tflm]

SEEDS = st.integers(0, 2**32 - 1)
SCALES = st.floats(-7, 0).map(lambda exponent: float(np.float32(math.exp(exponent))))
ZEROS = st.one_of(st.sampled_from([-128, 127, 0]), st.integers(-128, 127))
ACTIVATIONS = st.sampled_from([0, 1, 2, 3])
SMALL = st.integers(1, 5)


@pytest.fixture(scope="module")
def tflm() -> Iterator[Tflm]:
    with tflm_process() as process:
        yield process


def examples(count: int) -> Any:
    count = count * int(os.environ.get("EDGECNN_FUZZ", "100")) // 200
    suppressed = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.filter_too_much]
    return settings(max_examples=count, deadline=None, suppress_health_check=suppressed)


helium_lacks = functools.cache(lambda: emulation.missing_tools("cortex-m55"))


class Folders:
    """A new folder for each example."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.count = 0

    def new(self) -> Path:
        self.count += 1
        folder = self.base / str(self.count)
        folder.mkdir()
        return folder


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    return Folders(tmp_path)


def agree(model: bytes, folders: Folders, tflm: Tflm, dual_mac: bool = False) -> None:
    """The generated code gives TFLite Micro's bytes: on this machine, with Arm's dual MAC, and with Helium."""
    folder = folders.new()
    images = random_inputs(model, 4)
    wanted = tflm(model, images)
    generate(model, folder)
    np.testing.assert_array_equal(run(compiled(folder, "m", "cc", "-O0"), model, images), wanted)
    if dual_mac and dual_mac_tools():
        np.testing.assert_array_equal(run_program(folder, model, images, DUAL_MAC, "qemu-arm"), wanted)
    if dual_mac and not helium_lacks():
        firmware = emulation.build(emulation.generate(read_graph(model, "m"), "m"), "cortex-m55", folder / "helium")
        outputs = emulation.run(firmware, images.reshape(len(images), -1).view(np.int8))
        np.testing.assert_array_equal(outputs.view(wanted.dtype).reshape(wanted.shape), wanted)


def test_the_tools_for_the_dual_mac_are_here() -> None:
    """Without them the tests below say nothing of ARM's DSP instructions."""
    need(*DUAL_MAC_TOOLS)


def out_size(size: int, kernel: int, stride: int, dilation: int, padding: int) -> int:
    extent = (kernel - 1) * dilation + 1
    return -(-size // stride) if padding == 0 else (size - extent) // stride + 1


@st.composite
def convolutions(draw: Any, depthwise: bool) -> bytes:
    size = [draw(st.integers(1, 9)), draw(st.integers(1, 9))]
    kernel = draw(st.sampled_from([(3, 3), (1, 1), (3, 3), (2, 4), (5, 1), (1, 3), (4, 5), (1, 8), (9, 1)]))
    stride = [draw(st.integers(1, 3)), draw(st.integers(1, 3))]
    dilation = [draw(st.sampled_from([1, 1, 1, 2, 3])), draw(st.sampled_from([1, 1, 1, 2, 3]))]
    padding = draw(st.integers(0, 1))
    out = [out_size(*sizes, padding) for sizes in zip(size, kernel, stride, dilation, strict=True)]
    assume(min(out) > 0)
    groups = 1 if depthwise else draw(st.sampled_from([1, 1, 1, 2, 3]))
    channels = groups * draw(st.integers(1, 9 // groups))
    outputs = channels * draw(st.integers(1, 3)) if depthwise else groups * draw(st.integers(1, 9 // groups))
    seed, per_channel = draw(SEEDS), draw(st.booleans())
    shape = (1, *kernel, outputs) if depthwise else (outputs, *kernel, channels // groups)
    weights, scale, bias = convolution_weights(seed, shape, outputs, outputs if per_channel else 1)
    model = Model()
    source_scale, source_zero = draw(SCALES), draw(ZEROS)
    source = model.tensor((1, *size, channels), scale=source_scale, zero=source_zero)
    inputs = [source, model.tensor(shape, scale=scale, axis=3 if depthwise else 0, data=weights)]
    if draw(st.booleans()):
        inputs.append(model.tensor((outputs,), "int32", scale=scale * np.float32(source_scale), data=bias))
    target = model.tensor((1, *out, outputs), scale=draw(SCALES), zero=draw(ZEROS))
    options: dict[str, Any] = {
        "padding": padding, "strideH": stride[0], "strideW": stride[1],
        "dilationHFactor": dilation[0], "dilationWFactor": dilation[1], "fusedActivationFunction": draw(ACTIVATIONS),
    }  # fmt: skip
    if depthwise:
        options["depthMultiplier"] = outputs // channels
    kind = "DepthwiseConv2D" if depthwise else "Conv2D"
    model.operator("DEPTHWISE_CONV_2D" if depthwise else "CONV_2D", inputs, target, f"{kind}Options", **options)
    return model.file(source, target)


@given(model=convolutions(depthwise=False))
@examples(30)
def test_conv_2d(model: bytes, folders: Folders, tflm: Tflm) -> None:
    agree(model, folders, tflm, dual_mac=True)


@st.composite
def transposed_convolutions(draw: Any) -> bytes:
    size = [draw(st.integers(1, 6)), draw(st.integers(1, 6))]
    kernel, stride = [draw(st.integers(1, 4)) for _ in range(2)], [draw(st.integers(1, 3)) for _ in range(2)]
    padding, channels, outputs = draw(st.integers(0, 1)), draw(st.integers(1, 5)), draw(st.integers(1, 4))
    out = [
        length * step if padding == 0 else (length - 1) * step + taps
        for length, step, taps in zip(size, stride, kernel, strict=True)
    ]
    per_channel = draw(st.booleans())
    shape = (outputs, *kernel, channels)
    weights, scale, bias = convolution_weights(draw(SEEDS), shape, outputs, outputs if per_channel else 1)
    model = Model()
    source_scale = draw(SCALES)
    source = model.tensor((1, *size, channels), scale=source_scale, zero=draw(ZEROS))
    made = (1, *out, outputs)
    inputs = [model.tensor((4,), "int32", data=made), model.tensor(shape, scale=scale, data=weights), source]
    if draw(st.booleans()):
        inputs.append(model.tensor((outputs,), "int32", scale=scale * np.float32(source_scale), data=bias))
    target = model.tensor(made, scale=draw(SCALES), zero=draw(ZEROS))
    options = {"padding": padding, "strideH": stride[0], "strideW": stride[1]}
    model.operator("TRANSPOSE_CONV", inputs, target, "TransposeConvOptions", **options)
    return model.file(source, target)


@given(model=transposed_convolutions())
@examples(40)
def test_transpose_conv(model: bytes, folders: Folders, tflm: Tflm) -> None:
    agree(model, folders, tflm)


@given(model=convolutions(depthwise=True))
@examples(30)
def test_depthwise_conv_2d(model: bytes, folders: Folders, tflm: Tflm) -> None:
    agree(model, folders, tflm, dual_mac=True)


@st.composite
def dense_layers(draw: Any) -> bytes:
    taps, outputs, rows = draw(st.integers(1, 40)), draw(st.integers(1, 7)), draw(st.integers(1, 3))
    per_channel = draw(st.booleans()) and outputs > 1
    weights, scale, bias = convolution_weights(draw(SEEDS), (outputs, taps), outputs, outputs if per_channel else 1)
    model = Model()
    source_scale = draw(SCALES)
    source = model.tensor((rows, taps), scale=source_scale, zero=draw(ZEROS))
    inputs = [source, model.tensor((outputs, taps), scale=scale, data=weights)]
    if draw(st.booleans()):
        inputs.append(model.tensor((outputs,), "int32", scale=scale * np.float32(source_scale), data=bias))
    else:
        inputs.append(-1)
    target = model.tensor((rows, outputs), scale=draw(SCALES), zero=draw(ZEROS))
    activation = draw(ACTIVATIONS)
    model.operator("FULLY_CONNECTED", inputs, target, "FullyConnectedOptions", fusedActivationFunction=activation)
    return model.file(source, target)


@given(model=dense_layers())
@examples(25)
def test_fully_connected(model: bytes, folders: Folders, tflm: Tflm) -> None:
    agree(model, folders, tflm, dual_mac=True)


@st.composite
def pools(draw: Any) -> bytes:
    size = [draw(st.integers(1, 9)), draw(st.integers(1, 9))]
    kernel, stride = [draw(SMALL), draw(SMALL)], [draw(st.integers(1, 3)), draw(st.integers(1, 3))]
    padding, channels = draw(st.integers(0, 1)), draw(st.integers(1, 9))
    out = [out_size(*sizes, 1, padding) for sizes in zip(size, kernel, stride, strict=True)]
    assume(min(out) > 0)
    model = Model()
    quantization: dict[str, Any] = {"scale": draw(SCALES), "zero": draw(ZEROS)}
    source = model.tensor((1, *size, channels), **quantization)
    target = model.tensor((1, *out, channels), **quantization)
    model.operator(
        draw(st.sampled_from(["MAX_POOL_2D", "AVERAGE_POOL_2D"])), [source], target, "Pool2DOptions",
        padding=padding, strideH=stride[0], strideW=stride[1], filterHeight=kernel[0], filterWidth=kernel[1],
        fusedActivationFunction=draw(ACTIVATIONS),
    )  # fmt: skip
    return model.file(source, target)


@given(model=pools())
@examples(25)
def test_pooling(model: bytes, folders: Folders, tflm: Tflm) -> None:
    agree(model, folders, tflm, dual_mac=True)


@st.composite
def reductions(draw: Any) -> bytes:
    shape = (1, draw(SMALL), draw(SMALL), draw(SMALL))
    axes = draw(st.sampled_from([(1, 2), (2, 1), (1,), (3,), (-1,), (2, 3)]))
    keep = draw(st.booleans())
    model = Model()
    scale, zero = draw(SCALES), draw(ZEROS)
    source = model.tensor(shape, scale=scale, zero=zero)
    reduced = {axis % 4 for axis in axes}
    made = [1 if axis in reduced else size for axis, size in enumerate(shape) if keep or axis not in reduced]
    kind = draw(st.sampled_from(["MEAN", "MEAN", "REDUCE_MAX"]))
    if kind == "MEAN" and draw(st.booleans()):
        scale, zero = draw(SCALES), draw(ZEROS)
    target = model.tensor(made, scale=scale, zero=zero)
    inputs = [source, model.tensor((len(axes),), "int32", data=axes)]
    model.operator(kind, inputs, target, "ReducerOptions", keepDims=keep)
    return model.file(source, target)


@given(model=reductions())
@examples(45)
def test_mean_and_max(model: bytes, folders: Folders, tflm: Tflm) -> None:
    agree(model, folders, tflm)


@st.composite
def binaries(draw: Any) -> bytes:
    kind = draw(st.sampled_from(["ADD", "SUB", "MUL", "PRELU", "MAXIMUM", "MINIMUM"]))
    shape = [1, draw(SMALL), draw(SMALL), draw(SMALL)]
    other = draw(st.sampled_from([shape, [1, 1, 1, shape[3]], [1, shape[1], shape[2], 1], [1, 1, 1, 1], None]))
    model = Model()
    scales = [draw(SCALES) for _ in range(3)]
    zeros = [draw(ZEROS) for _ in range(3)]
    if kind in ("MAXIMUM", "MINIMUM"):
        scales, zeros = scales[:1] * 3, zeros[:1] * 3
    if kind in ("ADD", "SUB"):
        assume(2 * max(scales[:2]) / (2**20 * scales[2]) < 1)
    source = model.tensor(shape, scale=scales[0], zero=zeros[0])
    if other is None:
        operands = [source, source]
    else:
        data = np.random.default_rng(draw(SEEDS)).integers(-128, 128, other)
        operands = [source, model.tensor(other, scale=scales[1], zero=zeros[1], data=data)]
        if kind != "PRELU" and draw(st.booleans()):
            operands = operands[::-1]
    target = model.tensor(shape, scale=scales[2], zero=zeros[2])
    options = {"ADD": "AddOptions", "SUB": "SubOptions", "MUL": "MulOptions"}.get(kind)
    if options:
        model.operator(kind, operands, target, options, fusedActivationFunction=draw(ACTIVATIONS))
    else:
        model.operator(kind, operands, target)
    return model.file(source, target)


@given(model=binaries())
@examples(60)
def test_two_operands(model: bytes, folders: Folders, tflm: Tflm) -> None:
    agree(model, folders, tflm, dual_mac=True)


@st.composite
def functions(draw: Any) -> bytes:
    """Operators on single values, on all 256 of them."""
    kind = draw(st.sampled_from(["LOGISTIC", "TANH", "HARD_SWISH", "LEAKY_RELU", "RELU", "RELU6", "QUANTIZE"]))
    model = Model()
    scale, zero = draw(SCALES), draw(ZEROS)
    target_scale, target_zero = draw(SCALES), draw(ZEROS)
    dtypes = draw(st.sampled_from([("int8", "int8"), ("uint8", "int8"), ("int8", "uint8")]))
    options: dict[str, Any] = {}
    if kind == "LOGISTIC":
        target_scale, target_zero = 1 / 256, -128
    elif kind == "TANH":
        target_scale, target_zero = 1 / 128, 0
    elif kind == "HARD_SWISH":
        assume(2**-15 < scale / 128 / target_scale < 1)
    elif kind == "LEAKY_RELU":
        options = {"options": "LeakyReluOptions", "alpha": draw(st.floats(-2, 2, width=32))}
    elif kind == "RELU6":
        target_scale, target_zero = scale, zero
    if kind != "QUANTIZE":
        dtypes = ("int8", "int8")
    moved = [value + (128 if dtype == "uint8" else 0) for value, dtype in zip((zero, target_zero), dtypes, strict=True)]
    source = model.tensor((1, 256), dtypes[0], scale=scale, zero=moved[0])
    target = model.tensor((1, 256), dtypes[1], scale=target_scale, zero=moved[1])
    model.operator(kind, [source], target, **options)
    return model.file(source, target)


@given(model=functions())
@examples(100)
def test_functions_of_single_values(model: bytes, folders: Folders, tflm: Tflm) -> None:
    folder = folders.new()
    images = random_inputs(model, 3)
    images[2] = np.arange(256, dtype=np.uint8).view(images.dtype)
    wanted = tflm(model, images)
    generate(model, folder)
    np.testing.assert_array_equal(run(compiled(folder, "m", "cc", "-O0"), model, images), wanted)


@st.composite
def softmaxes(draw: Any) -> bytes:
    model = Model()
    shape = draw(st.sampled_from([(1, 10), (1, 2), (1, 300), (1, 1), (1, 3, 2, 5)]))
    source = model.tensor(shape, scale=draw(SCALES), zero=draw(ZEROS))
    target = model.tensor(shape, scale=1 / 256, zero=-128)
    model.operator("SOFTMAX", [source], target, "SoftmaxOptions", beta=draw(st.sampled_from([1.0, 1.0, 0.5, 2.0])))
    return model.file(source, target)


@given(model=softmaxes())
@examples(30)
def test_softmax(model: bytes, folders: Folders, tflm: Tflm) -> None:
    agree(model, folders, tflm)


@st.composite
def moves(draw: Any) -> bytes:
    """Operators that only move values."""
    kind = draw(
        st.sampled_from(["PAD", "PADV2", "TRANSPOSE", "CONCATENATION", "RESIZE_NEAREST_NEIGHBOR", "STRIDED_SLICE"])
    )
    kind = draw(st.sampled_from([kind, "RESIZE_BILINEAR"]))
    model = Model()
    quantization: dict[str, Any] = {"scale": draw(SCALES), "zero": draw(ZEROS)}
    shape = [1, draw(SMALL), draw(SMALL), draw(SMALL)]
    source = model.tensor(shape, **quantization)
    made, options, values, inputs = shape, "", {}, [source]
    if kind.startswith("PAD"):
        pairs = [(0, 0), *[(draw(st.integers(0, 2)), draw(st.integers(0, 2))) for _ in range(3)]]
        made = [before + size + after for (before, after), size in zip(pairs, shape, strict=True)]
        inputs.append(model.tensor((4, 2), "int32", data=pairs))
        if kind == "PADV2":
            inputs.append(model.tensor((1,), data=[draw(ZEROS)], **quantization))
    elif kind == "TRANSPOSE":
        order = [0, *draw(st.permutations([1, 2, 3]))]
        made = [shape[axis] for axis in order]
        inputs.append(model.tensor((4,), "int32", data=order))
    elif kind == "STRIDED_SLICE":
        starts = [0, *[draw(st.integers(-size, size - 1)) for size in shape[1:]]]
        steps = [1, *[draw(st.integers(1, 2)) for _ in range(3)]]
        made = [len(range(start % size, size, step)) for start, size, step in zip(starts, shape, steps, strict=True)]
        inputs += [model.tensor((4,), "int32", data=values) for values in (starts, shape, steps)]
        options, values = "StridedSliceOptions", {"endMask": draw(st.integers(0, 15))}
    elif kind == "CONCATENATION":
        axis = draw(st.integers(1, 3))
        other = list(shape)
        other[axis] = draw(SMALL)
        made = list(shape)
        made[axis] = 2 * shape[axis] + other[axis]
        data = np.random.default_rng(draw(SEEDS)).integers(-128, 128, other)
        inputs = [source, model.tensor(other, data=data, **quantization), source]
        options, values = "ConcatenationOptions", {"axis": draw(st.sampled_from([axis, axis - 4]))}
    else:
        target_size = [draw(st.integers(1, 9)), draw(st.integers(1, 9))]
        made = [1, *target_size, shape[3]]
        inputs.append(model.tensor((2,), "int32", data=target_size))
        aligned = draw(st.booleans())
        values = {"alignCorners": aligned, "halfPixelCenters": not aligned and draw(st.booleans())}
        bilinear = kind == "RESIZE_BILINEAR"
        options = "ResizeBilinearOptions" if bilinear else "ResizeNearestNeighborOptions"
    target = model.tensor(made, **quantization)
    model.operator(kind, inputs, target, options, **values)
    return model.file(source, target)


@given(model=moves())
@examples(60)
def test_moved_values(model: bytes, folders: Folders, tflm: Tflm) -> None:
    agree(model, folders, tflm)


def test_tiles_repeat_values(tmp_path: Path) -> None:
    """TFLite Micro has no TILE; what it means needs no arithmetic."""
    model = Model()
    first = model.tensor((1, 2, 3, 4), scale=0.5, zero=1)
    second = model.tensor((1, 4, 9, 8), scale=0.5, zero=1)
    model.operator("TILE", [first, model.tensor((4,), "int32", data=[1, 2, 3, 2])], second)
    content = model.file(first, second)
    images = random_inputs(content, 3)
    generate(content, tmp_path)
    got = run(compiled(tmp_path), content, images)
    np.testing.assert_array_equal(got, np.tile(images, (1, 1, 2, 3, 2)))


def test_channels_at_the_ends_of_32_bits(folders: Folders, tflm: Tflm) -> None:
    """Biases that a converter clamped: the short rounding would overflow, so these channels take the wide path."""
    model = Model()
    source = model.tensor((1, 8), scale=0.02, zero=-128)
    bias = [2**30 - 1, -(2**30), 2**30 + 2**20, 5, 2**31 - 2**18, -(2**31) + 2**18]
    scale = np.array([1e-9, 1e-9, 2e-9, 0.05, 1e-10, 1e-10], np.float32)
    random = np.random.default_rng(0)
    weights = model.tensor((6, 8), scale=scale, data=random.integers(-127, 128, (6, 8)))
    target = model.tensor((1, 6), scale=0.3, zero=3)
    values = model.tensor((6,), "int32", scale=scale * np.float32(0.02), data=bias)
    model.operator("FULLY_CONNECTED", [source, weights, values], target, "FullyConnectedOptions")
    content = model.file(source, target)
    agree(content, folders, tflm, dual_mac=True)
    code = generate(content, folders.new()).source
    assert "requantize_wide" in code
