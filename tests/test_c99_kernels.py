"""Every kernel of the generated C gives TFLite Micro's bytes, on random shapes, strides, scales and zero points.

``EDGECNN_FUZZ=2000`` tries ten times as many.
"""

import ctypes
import functools
import math
import os
import subprocess
from collections.abc import Iterator, Sequence
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
from edgecnn.formats.c99 import Named, numerics, several_to_c
from edgecnn.formats.c99.lower import problems
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


def agree(model: bytes, folders: Folders, tflm: Tflm, dual_mac: bool = False, steps: int = 4) -> None:
    """The generated code gives TFLite Micro's bytes: on this machine, with Arm's dual MAC, and with Helium.

    ``steps`` inputs run one after the other, from the model's initial state.
    """
    folder = folders.new()
    images = random_inputs(model, steps)
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
    dtype = draw(st.sampled_from(["int8", "int8", "int4"]))
    model = Model()
    source_scale, source_zero = draw(SCALES), draw(ZEROS)
    source = model.tensor((1, *size, channels), scale=source_scale, zero=source_zero)
    weights = weights >> (4 if dtype == "int4" else 0)
    inputs = [source, model.tensor(shape, dtype, scale=scale, axis=3 if depthwise else 0, data=weights)]
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


def test_a_plane_is_written_before_it_is_read(folders: Folders, tflm: Tflm) -> None:
    """So small that GCC puts all into one block, where it moved Helium's gather loads before stores to the plane."""
    model = Model()
    source, target = (model.tensor((1, height, 1, 1), scale=1.0, zero=-128) for height in (5, 3))
    weights = model.tensor((1, 1, 1, 1), scale=1e-3, axis=3, data=[89])
    options = {"padding": 0, "strideH": 2, "strideW": 1, "dilationHFactor": 1, "dilationWFactor": 1}
    model.operator(
        "DEPTHWISE_CONV_2D", [source, weights], target, "DepthwiseConv2DOptions", depthMultiplier=1, **options
    )
    agree(model.file(source, target), folders, tflm, dual_mac=True)


@st.composite
def dense_layers(draw: Any) -> bytes:
    taps, outputs, rows = draw(st.integers(1, 40)), draw(st.integers(1, 7)), draw(st.integers(1, 3))
    per_channel = draw(st.booleans()) and outputs > 1
    weights, scale, bias = convolution_weights(draw(SEEDS), (outputs, taps), outputs, outputs if per_channel else 1)
    dtype = "int8" if per_channel else draw(st.sampled_from(["int8", "int4"]))  # as in TFLM
    model = Model()
    source_scale = draw(SCALES)
    source = model.tensor((rows, taps), scale=source_scale, zero=draw(ZEROS))
    weights = weights >> (4 if dtype == "int4" else 0)
    inputs = [source, model.tensor((outputs, taps), dtype, scale=scale, data=weights)]
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


def test_scales_are_multiplied_in_double(folders: Folders, tflm: Tflm) -> None:
    """Sums at which a dense layer with one scale differs by the precision of its multiplier.

    TFLM until the summer of 2026 multiplied the scales of input and weights in float32 there; the pinned one does not.
    """
    scale, weight, out = np.float32([0.009537845, 0.003806483, 52.57337])
    factors = [float(scale * weight) / float(out), float(scale) * float(weight) / float(out)]
    in_float, in_double = (numerics.quantize_multiplier(factor) for factor in factors)
    assert in_float != in_double
    near = [int((step + 0.5) / factors[1]) + offset for step in range(20, 90) for offset in range(-40, 40)]
    sums = [value for value in near if numerics.rescale(value, *in_float) != numerics.rescale(value, *in_double)]
    assert len(sums) > 100
    model = Model()
    source = model.tensor((1, 1), scale=scale)
    weights = model.tensor((len(sums), 1), scale=weight, data=np.ones((len(sums), 1)))
    bias = model.tensor((len(sums),), "int32", scale=scale * weight, data=sums)
    target = model.tensor((1, len(sums)), scale=out)
    model.operator("FULLY_CONNECTED", [source, weights, bias], target, "FullyConnectedOptions")
    content = model.file(source, target)
    zero = np.zeros((1, 1, 1), np.int8)
    wanted = [numerics.rescale(value, *in_double) for value in sums]
    np.testing.assert_array_equal(tflm(content, zero).ravel(), wanted)
    agree(content, folders, tflm, dual_mac=True)


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
    axes = draw(st.sampled_from([(1, 2), (2, 1), (1,), (3,), (-1,), (2, 3), (1, 3)]))
    keep = draw(st.booleans())
    model = Model()
    scale, zero = draw(SCALES), draw(ZEROS)
    source = model.tensor(shape, scale=scale, zero=zero)
    reduced = {axis % 4 for axis in axes}
    made = [1 if axis in reduced else size for axis, size in enumerate(shape) if keep or axis not in reduced]
    kind = draw(st.sampled_from(["MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN"]))
    if kind in ("MEAN", "SUM") and draw(st.booleans()):
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
def places(draw: Any) -> bytes:
    """ARG_MAX or ARG_MIN of few distinct values."""
    shape, axis = [1, draw(SMALL), draw(SMALL), draw(SMALL)], draw(st.integers(1, 3))
    model, scale = Model(), draw(SCALES)
    source, coarse = (model.tensor(shape, scale=one, zero=0) for one in (scale, 50 * scale))
    target = model.tensor([*shape[:axis], *shape[axis + 1 :]], "int32")
    model.operator("QUANTIZE", [source], coarse)
    kind = draw(st.sampled_from(["ARG_MAX", "ARG_MIN"]))
    options = "ArgMaxOptions" if kind == "ARG_MAX" else "ArgMinOptions"
    model.operator(kind, [coarse, model.tensor((1,), "int32", data=[axis])], target, options, outputType=2)
    return model.file(source, target)


@given(model=places())
@examples(10)
def test_places_of_extremes(model: bytes, folders: Folders, tflm: Tflm) -> None:
    agree(model, folders, tflm)


@st.composite
def binaries(draw: Any) -> bytes:
    kind = draw(st.sampled_from(["ADD", "SUB", "MUL", "PRELU", "MAXIMUM", "MINIMUM", "SQUARED_DIFFERENCE"]))
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
def choices(draw: Any) -> bytes:
    """One of two operands, by a comparison of both that may be equal often."""
    shape = [1, draw(SMALL), draw(SMALL), draw(SMALL)]
    other = draw(st.sampled_from([shape, [1, 1, 1, shape[3]], [1, shape[1], shape[2], 1]]))
    kind = draw(st.sampled_from(["EQUAL", "NOT_EQUAL", "GREATER", "GREATER_EQUAL", "LESS", "LESS_EQUAL"]))
    model, random = Model(), np.random.default_rng(draw(SEEDS))
    ours: dict[str, Any] = {"scale": draw(SCALES.filter(lambda scale: scale < 1)), "zero": draw(ZEROS)}
    compared = dict(ours)
    if draw(st.booleans()):
        compared = {"scale": draw(SCALES.filter(lambda scale: scale < 1)), "zero": draw(ZEROS)}
    source = model.tensor(shape, **ours)
    against = model.tensor(other, data=random.integers(-128, 128, other), **compared)
    instead = model.tensor(shape, data=random.integers(-128, 128, shape), **ours)
    which, target = model.tensor(shape, "bool"), model.tensor(shape, **ours)
    model.operator(kind, draw(st.sampled_from([[source, against], [against, source]])), which)
    model.operator("SELECT_V2", [which, source, instead], target)
    return model.file(source, target)


@given(model=choices())
@examples(16)
def test_choices(model: bytes, folders: Folders, tflm: Tflm) -> None:
    agree(model, folders, tflm)


@st.composite
def products(draw: Any) -> bytes:
    """A product of a tensor with itself or a constant."""
    rows, taps, columns, batch = draw(SMALL), draw(SMALL), draw(SMALL), draw(st.integers(1, 3))
    turned = draw(st.booleans()), draw(st.booleans())
    model = Model()
    scale, zero = draw(SCALES), draw(ZEROS)
    shape = [1, batch, taps, rows] if turned[0] else [1, batch, rows, taps]
    source = model.tensor(shape, scale=scale, zero=zero)
    if draw(st.booleans()):
        other, columns, turned = source, rows, (turned[0], not turned[0])
    else:
        sizes = [1, batch, columns, taps] if turned[1] else [1, batch, taps, columns]
        data = np.random.default_rng(draw(SEEDS)).integers(-128, 128, sizes)
        other = model.tensor(sizes, scale=draw(SCALES), zero=draw(ZEROS), data=data)
    target = model.tensor([1, batch, rows, columns], scale=draw(SCALES), zero=draw(ZEROS))
    options = {"adjX": turned[0], "adjY": turned[1]}
    model.operator("BATCH_MATMUL", [source, other], target, "BatchMatMulOptions", **options)
    return model.file(source, target)


@given(model=products())
@examples(16)
def test_batch_matmul(model: bytes, folders: Folders, tflm: Tflm) -> None:
    agree(model, folders, tflm)


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
def norms(draw: Any) -> bytes:
    model = Model()
    shape = draw(st.sampled_from([(1, 1), (1, 2), (1, 10), (1, 3000), (1, 3, 2, 5)]))
    source = model.tensor(shape, scale=draw(SCALES), zero=draw(ZEROS))
    target = model.tensor(shape, scale=1 / 128, zero=0)
    model.operator("L2_NORMALIZATION", [source], target, "L2NormOptions")
    return model.file(source, target)


@given(model=norms())
@examples(12)
def test_l2_normalization(model: bytes, folders: Folders, tflm: Tflm) -> None:
    agree(model, folders, tflm, steps=12)


@st.composite
def moves(draw: Any) -> bytes:
    """Operators that only move values."""
    kind = draw(
        st.sampled_from(
            ["PAD", "PADV2", "TRANSPOSE", "CONCATENATION", "RESIZE_NEAREST_NEIGHBOR", "STRIDED_SLICE", "REVERSE_V2",
             "PACK", "SPLIT", "UNPACK", "MIRROR_PAD", "GATHER"]
        )
    )  # fmt: skip
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
    elif kind == "MIRROR_PAD":
        mode = draw(st.integers(0, 1))
        pairs = [tuple(draw(st.integers(0, size - 1 + mode)) for _ in range(2)) for size in shape]
        made = [before + size + after for (before, after), size in zip(pairs, shape, strict=True)]
        inputs.append(model.tensor((4, 2), "int32", data=pairs))
        options, values = "MirrorPadOptions", {"mode": mode}
    elif kind == "GATHER":
        axis = draw(st.integers(1, 3))
        places = draw(st.lists(st.integers(0, shape[axis] - 1), min_size=1, max_size=6))
        made = [*shape[:axis], len(places), *shape[axis + 1 :]]
        inputs.append(model.tensor((len(places),), "int32", data=places))
        options, values = "GatherOptions", {"axis": axis}
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
        if draw(st.booleans()):
            values["shrinkAxisMask"] = 4
            del made[2]
    elif kind == "REVERSE_V2":
        inputs.append(model.tensor((1,), "int32", data=[draw(st.integers(1, 3))]))
    elif kind == "PACK":
        axis = draw(st.integers(1, 3))
        made = [*shape[:axis], 2, *shape[axis:]]
        inputs, options, values = [source, source], "PackOptions", {"valuesCount": 2, "axis": axis}
    elif kind in ("SPLIT", "UNPACK"):
        axis = draw(st.integers(1, 3))
        size = 1 if kind == "UNPACK" else draw(SMALL)
        parts = shape[axis] if kind == "UNPACK" else draw(st.integers(1, 3))
        shape[axis] = size * parts
        source, made = model.tensor(shape, **quantization), [*shape]
        made[axis : axis + 1] = [] if kind == "UNPACK" else [size]
        targets = [model.tensor(made, **quantization) for _ in range(parts)]
        if kind == "SPLIT":
            place = model.tensor((), "int32", data=axis)
            model.operator(kind, [place, source], targets, "SplitOptions", numSplits=parts)
        else:
            model.operator(kind, [source], targets, "UnpackOptions", num=parts, axis=axis)
        return model.file(source, targets[draw(st.integers(0, parts - 1))])
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


@st.composite
def splits(draw: Any) -> bytes:
    """Outputs of SPLIT or SPLIT_V, put together again in another order, and EXPAND_DIMS."""
    model = Model()
    quantization: dict[str, Any] = {"scale": draw(SCALES), "zero": draw(ZEROS)}
    kind, axis = draw(st.sampled_from(["SPLIT", "SPLIT_V"])), draw(st.integers(1, 3))
    sizes = [draw(SMALL) for _ in range(draw(st.integers(1, 4)))]
    sizes = sizes[:1] * len(sizes) if kind == "SPLIT" else sizes
    shape = [1, draw(SMALL), draw(SMALL), draw(SMALL)]
    shape[axis] = sum(sizes)
    source, where = model.tensor(shape, **quantization), draw(st.sampled_from([axis, axis - 4]))
    shapes = [[*shape[:axis], size, *shape[axis + 1 :]] for size in sizes]
    parts = [model.tensor(own, **quantization) for own in shapes]
    along = model.tensor((), "int32", data=where)
    if kind == "SPLIT":
        model.operator(kind, [along, source], parts, "SplitOptions", numSplits=len(parts))
    else:
        given_sizes = model.tensor((len(sizes),), "int32", data=[*sizes[:-1], draw(st.sampled_from([-1, sizes[-1]]))])
        model.operator(kind, [source, given_sizes, along], parts, "SplitVOptions", numSplits=len(parts))
    together, target = model.tensor(shape, **quantization), model.tensor([1, *shape], **quantization)
    model.operator("CONCATENATION", draw(st.permutations(parts)), together, "ConcatenationOptions", axis=axis)
    model.operator("EXPAND_DIMS", [together, model.tensor((1,), "int32", data=[0])], target, "ExpandDimsOptions")
    return model.file(source, target)


@given(model=splits())
@examples(30)
def test_split(model: bytes, folders: Folders, tflm: Tflm) -> None:
    agree(model, folders, tflm)


@st.composite
def reordered(draw: Any) -> bytes:
    """UNPACK and PACK along other axes, blocks, and slices that remove dimensions."""
    model = Model()
    quantization: dict[str, Any] = {"scale": draw(SCALES), "zero": draw(ZEROS)}
    kind = draw(st.sampled_from(["PACK", "SPACE_TO_DEPTH", "DEPTH_TO_SPACE", "STRIDED_SLICE"]))
    shape = [1, draw(SMALL), draw(SMALL), draw(SMALL)]
    if kind.endswith(("DEPTH", "SPACE")):
        size = draw(st.integers(1, 3))
        small = [1, draw(SMALL), draw(SMALL), draw(SMALL)]
        large = [1, small[1] * size, small[2] * size, small[3]]
        small[3] *= size * size
        shape, made = (large, small) if kind == "SPACE_TO_DEPTH" else (small, large)
        source, target = model.tensor(shape, **quantization), model.tensor(made, **quantization)
        options = "SpaceToDepthOptions" if kind == "SPACE_TO_DEPTH" else "DepthToSpaceOptions"
        model.operator(kind, [source], target, options, blockSize=size)
        return model.file(source, target)
    source = model.tensor(shape, **quantization)
    if kind == "STRIDED_SLICE":
        removed = draw(st.integers(1, 7)) << 1
        starts = [0, *[draw(st.integers(-size, size - 1)) for size in shape[1:]]]
        made = [len(range(shape[axis])[starts[axis] :]) for axis in range(4) if not removed >> axis & 1]
        ends = [start + 1 if removed >> axis & 1 else shape[axis] for axis, start in enumerate(starts)]
        inputs = [model.tensor((4,), "int32", data=data) for data in (starts, ends, [1] * 4)]
        target = model.tensor(made, **quantization)
        model.operator(kind, [source, *inputs], target, "StridedSliceOptions", shrinkAxisMask=removed)
        return model.file(source, target)
    axis, new = draw(st.integers(1, 3)), draw(st.integers(0, 3))
    rest = [*shape[:axis], *shape[axis + 1 :]]
    parts = [model.tensor(rest, **quantization) for _ in range(shape[axis])]
    model.operator("UNPACK", [source], parts, "UnpackOptions", axis=axis, num=len(parts))
    target = model.tensor([*rest[:new], len(parts), *rest[new:]], **quantization)
    model.operator("PACK", parts[::-1], target, "PackOptions", axis=new, valuesCount=len(parts))
    return model.file(source, target)


@given(model=reordered())
@examples(60)
def test_reordered_values(model: bytes, folders: Folders, tflm: Tflm) -> None:
    agree(model, folders, tflm)


@st.composite
def filters_with_memory(draw: Any) -> bytes:
    """SVDF of one rank or more, followed by one that reads its output."""
    model = Model()
    random = np.random.default_rng(draw(SEEDS))
    inputs = draw(st.integers(1, 20))
    scale, zero = draw(SCALES), draw(ZEROS)
    source = last = model.tensor((1, inputs), scale=scale, zero=zero)
    for _ in range(draw(st.integers(1, 2))):
        rank, outputs, steps = draw(st.integers(1, 3)), draw(SMALL), draw(st.integers(1, 6))
        filters = rank * outputs
        scales = [float(np.float32(np.exp(random.uniform(-7, -2)))) for _ in range(2)]
        state_scale = float(np.float32(scale * scales[0] * np.exp(random.uniform(2, 7))))
        bias_scale = float(np.float32(state_scale) * np.float32(scales[1]))
        tensors = [
            model.tensor((filters, inputs), scale=scales[0], data=random.integers(-128, 128, (filters, inputs))),
            model.tensor((filters, steps), scale=scales[1], data=random.integers(-128, 128, (filters, steps))),
            model.tensor((outputs,), "int32", scale=bias_scale, data=random.integers(-5000, 5000, outputs)),
            model.tensor((1, filters * steps), scale=state_scale, zero=draw(ZEROS), variable=True),
        ]
        scale = float(np.float32(bias_scale * np.exp(random.uniform(2, 8))))
        target = model.tensor((1, outputs), scale=scale, zero=draw(ZEROS))
        options = {"rank": rank, "fusedActivationFunction": draw(st.integers(0, 1))}
        model.operator("SVDF", [last, *tensors], target, "SVDFOptions", **options)
        last, inputs = target, outputs
    return model.file(source, last)


@given(model=filters_with_memory())
@examples(30)
def test_svdf(model: bytes, folders: Folders, tflm: Tflm) -> None:
    agree(model, folders, tflm, dual_mac=True, steps=12)


@st.composite
def lstms(draw: Any) -> bytes:
    """An LSTM whose gates are neither all open nor all shut, with any scale of its cell."""
    steps, inputs, units = draw(st.integers(1, 5)), draw(st.integers(1, 12)), draw(st.integers(1, 7))
    random, major = np.random.default_rng(draw(SEEDS)), draw(st.booleans())
    model = Model()
    scale, hidden_scale = draw(SCALES), draw(st.sampled_from([1 / 128, 0.003, 0.02]))
    source = model.tensor((steps, 1, inputs) if major else (1, steps, inputs), scale=scale, zero=draw(ZEROS))
    hidden: dict[str, Any] = {"scale": hidden_scale, "zero": draw(ZEROS)}
    tensors = [source]
    for count, of in ((inputs, scale), (units, hidden_scale)):
        for _ in range(4):
            spread = float(np.float32(random.uniform(0.3, 6) / (of * 127 * 100 * math.sqrt(count))))
            weights = random.integers(-127, 128, (units, count))
            tensors.append(model.tensor((units, count), scale=spread, data=weights))
    tensors += [-1] * 3
    for _ in range(4):
        size = 2 ** random.integers(4, 20)
        tensors.append(model.tensor((units,), "int32", scale=1e-5, data=random.integers(-size, size, units)))
    power = draw(st.sampled_from([-11, -11, -15, -13, -12, -9, -4]))
    tensors += [-1, -1, model.tensor((1, units), variable=True, **hidden)]
    tensors += [model.tensor((1, units), "int16", scale=2.0**power, variable=True), *[-1] * 4]
    target = model.tensor((steps, 1, units) if major else (1, steps, units), **hidden)
    model.operator(
        "UNIDIRECTIONAL_SEQUENCE_LSTM", tensors, target, "UnidirectionalSequenceLSTMOptions",
        fusedActivationFunction=4, timeMajor=major, cellClip=draw(st.sampled_from([0.0, 0.0, 0.7, 10.0])),
    )  # fmt: skip
    return model.file(source, target)


@given(model=lstms())
@examples(10)
def test_unidirectional_sequence_lstm(model: bytes, folders: Folders, tflm: Tflm) -> None:
    agree(model, folders, tflm, dual_mac=True, steps=8)


@given(first=lstms(), second=lstms())
@examples(2)
def test_models_with_state_in_one_source_have_a_state_each(first: bytes, second: bytes, folders: Folders) -> None:
    named = [Named(graph=read_graph(model, name), name=name) for name, model in (("one", first), ("two", second))]
    made, folder = several_to_c(named), folders.new()
    for one, header in zip(named, made.headers, strict=True):
        (folder / f"{one.name}.h").write_text(header)
    (folder / "both.c").write_text(made.source)
    done = subprocess.run(
        ["cc", "-std=c99", "-fsyntax-only", folder / "both.c"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@st.composite
def streams(draw: Any) -> bytes:
    """Models with state of all sizes."""
    sizes = [draw(SMALL) for _ in range(4)]
    scales, zeros = [draw(SCALES), draw(SCALES)], [draw(ZEROS), draw(ZEROS)]
    return stream(np.random.default_rng(draw(SEEDS)), sizes, scales, zeros, begins=draw(st.booleans()))


def stream(
    random: np.random.Generator, sizes: Sequence[int], scales: Sequence[float], zeros: Sequence[int], begins: bool
) -> bytes:
    """A convolution over the last inputs, kept in a variable, plus the last result, read before it is replaced.

    The first variable is read before it is assigned; the second one's old value is used after it was assigned.
    """
    model = Model()
    width, channels, kept, outputs = sizes
    ours, made = ({"scale": scale, "zero": zero} for scale, zero in zip(scales, zeros, strict=True))
    source = model.tensor((1, 1, width, channels), **ours)
    if begins:
        model.operator("CALL_ONCE", [], (), "CallOnceOptions", initSubgraphIndex=1)
        with model.subgraph():
            for name, shape in (("a", (1, kept, width, channels)), ("b", (1, 1, width, outputs))):
                handle = model.tensor((), "resource")
                model.operator("VAR_HANDLE", [], handle, "VarHandleOptions", container="", sharedName=name)
                values = model.tensor(shape, data=random.integers(-128, 128, shape), **(ours if name == "a" else made))
                model.operator("ASSIGN_VARIABLE", [handle, values], ())
    handles = {}
    for name in "ab":
        handles[name] = model.tensor((), "resource")
        model.operator("VAR_HANDLE", [], handles[name], "VarHandleOptions", container="", sharedName=name)
    before = model.tensor((1, kept, width, channels), **ours)
    model.operator("READ_VARIABLE", [handles["a"]], before)
    window = model.tensor((1, kept + 1, width, channels), **ours)
    model.operator("CONCATENATION", [before, source], window, "ConcatenationOptions", axis=1)
    after = model.tensor((1, kept, width, channels), **ours)
    ends = [model.tensor((4,), "int32", data=data) for data in ([0, 1, 0, 0], [0] * 4, [1] * 4)]
    model.operator("STRIDED_SLICE", [window, *ends], after, "StridedSliceOptions", beginMask=13, endMask=15)
    model.operator("ASSIGN_VARIABLE", [handles["a"], after], ())
    weights = model.tensor((outputs, kept + 1, 1, channels), scale=0.01, data=random.integers(
        -127, 128, (outputs, kept + 1, 1, channels)))  # fmt: skip
    result, old, target = (model.tensor((1, 1, width, outputs), **made) for _ in range(3))
    model.operator("CONV_2D", [window, weights], result, "Conv2DOptions", padding=1, strideH=1, strideW=1,
                   dilationHFactor=1, dilationWFactor=1)  # fmt: skip
    model.operator("READ_VARIABLE", [handles["b"]], old)
    model.operator("ASSIGN_VARIABLE", [handles["b"], result], ())
    model.operator("ADD", [old, result], target, "AddOptions")
    return model.file(source, target)


@given(model=streams())
@examples(30)
def test_variables(model: bytes, folders: Folders, tflm: Tflm) -> None:
    agree(model, folders, tflm, dual_mac=True, steps=8)


def test_bytes_are_written_before_vectors_read_them(folders: Folders, tflm: Tflm) -> None:
    """GCC 12 inlined the layers of this model for Helium and moved a store of its copied state behind the addition."""
    content = stream(np.random.default_rng(0), (3, 2, 5, 1), (1.0, 0.4693233), (-2, -128), begins=True)
    agree(content, folders, tflm, dual_mac=True, steps=8)


@given(content=streams())
@examples(2)
def test_reset_begins_again(content: bytes, folders: Folders, tflm: Tflm) -> None:
    folder = folders.new()
    images = random_inputs(content, 6)
    header = generate(content, folder).header
    assert "void m_reset(void);" in header
    invoke = compiled(folder)
    first = run(invoke, content, images)
    (library,) = folder.glob("*/m.so")
    ctypes.CDLL(str(library)).m_reset()
    np.testing.assert_array_equal(run(invoke, content, images), first)
    np.testing.assert_array_equal(tflm(content, images), first)


def test_state_that_c_does_not_have_is_refused() -> None:
    """A subgraph that computes an initial value."""
    model = Model()
    source, target, before = (model.tensor((1, 4), scale=0.5) for _ in range(3))
    handle = model.tensor((), "resource")
    model.operator("CALL_ONCE", [], (), "CallOnceOptions", initSubgraphIndex=1)
    model.operator("VAR_HANDLE", [], handle, "VarHandleOptions", container="", sharedName="a")
    model.operator("READ_VARIABLE", [handle], before)
    model.operator("ADD", [before, source], target, "AddOptions")
    with model.subgraph():
        other, second = model.tensor((), "resource"), model.tensor((1, 4), scale=0.5)
        constant = model.tensor((1, 4), scale=0.5, data=[1, 2, 3, 4])
        model.operator("VAR_HANDLE", [], other, "VarHandleOptions", container="", sharedName="a")
        model.operator("RELU", [constant], second)
        model.operator("ASSIGN_VARIABLE", [other, second], ())
    content = model.file(source, target)
    (reason,) = problems(read_graph(content, "x"))
    assert "operator 0 (CALL_ONCE): its subgraph has operator 1 (RELU 't1'); only constants" in reason


def test_a_filter_without_bias_is_refused() -> None:
    model = Model()
    first, second = model.tensor((1, 3), scale=0.5), model.tensor((1, 2), scale=0.5)
    weights = [model.tensor((2, size), scale=0.5, data=np.ones((2, size))) for size in (3, 4)]
    state = model.tensor((1, 8), scale=0.5, variable=True)
    model.operator("SVDF", [first, *weights, -1, state], second, "SVDFOptions", rank=1)
    (reason,) = problems(read_graph(model.file(first, second), "x"))
    assert reason.startswith("operator 0 (SVDF 't1'): it has no bias or no state")


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
