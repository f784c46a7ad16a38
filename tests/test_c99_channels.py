"""Channels that need no computing are left out of the generated C, and its outputs stay TFLite Micro's bytes."""

import math
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import msgspec
import numpy as np
import pytest
import tensorflow as tf
from emulated import need
from generated import Tflm, compiled, generate, needs_tflm, random_inputs, run, tflm_process
from test_c99_arena import LARGEST, Case, Maker, Shape, Value, apart, case, program, wrong

from edgecnn import emulation
from edgecnn.formats.c99 import channels, lower, scales, tflite
from edgecnn.formats.source import Source
from edgecnn.quantization.schemes import SCHEMES
from edgecnn.tflite import operators as ops
from edgecnn.tflite.graph import read_graph

pytestmark = [pytest.mark.slow, needs_tflm]

MODELS = 40
L = keras.layers


@pytest.fixture(scope="module")
def tflm() -> Iterator[Tflm]:
    with tflm_process() as process:
        yield process


class DeadMaker(Maker):
    """Makes models in which many outputs of layers with weights have only zeros, with any bias and any scale."""

    def weights(self, shape: Shape, taps: int, outputs: int, axis: int, x: Value, y: Value) -> list[int]:
        dead = self.random.random(outputs) < self.pick(0.2, 0.4, 0.4, 0.6)
        typical = y.scale / x.scale / math.sqrt(taps) / self.random.uniform(60, 150)
        scale = typical * self.random.uniform(0.5, 2, outputs)
        scale[dead] *= self.pick(1, 1e-6, 1e4)
        weights = self.random.integers(-127, 128, shape)
        np.moveaxis(weights, axis, 0)[dead] = 0
        if axis == 0:  # inputs that no output uses
            weights[..., self.random.random(shape[-1]) < self.pick(0, 0, 0.4)] = 0
        steps = self.random.integers(-40, 41, outputs)
        steps[dead & (self.random.random(outputs) < 0.3)] = self.pick(-300, 300)
        bias = np.clip(steps * y.scale / (scale * x.scale), -(2**31), 2**31 - 1)
        return [
            self.model.tensor(shape, scale=scale, axis=axis, data=weights),
            self.model.tensor((outputs,), "int32", scale=scale * x.scale, data=bias.astype(np.int32)),
        ]

    def transposed(self, x: Value) -> Value:
        kernel, stride = (self.number(1, 3), self.number(1, 3)), (self.number(1, 2), self.number(1, 2))
        outputs = self.number(1, 6)
        made = (1, *(size * step for size, step in zip(x.shape[1:3], stride, strict=True)), outputs)
        if math.prod(made) > LARGEST:
            return self.function(x)
        y = self.value(made)
        weights = self.weights((outputs, *kernel, x.shape[3]), math.prod(kernel) * x.shape[3], outputs, 0, x, y)
        inputs = [self.model.tensor((4,), "int32", data=made), weights[0], x.index, weights[1]]
        options = {"padding": 0, "strideH": stride[0], "strideW": stride[1]}
        self.model.operator("TRANSPOSE_CONV", inputs, y.index, "TransposeConvOptions", **options)
        return y

    def slice(self, x: Value) -> Value:
        starts = [0, *(self.number(0, size - 1) for size in x.shape[1:3]), self.pick(0, 0, x.shape[3] - 1)]
        sizes = [size - start for size, start in zip(x.shape, starts, strict=True)]
        y = self.value(sizes, x.scale, x.zero)
        numbers = [self.model.tensor((4,), "int32", data=data) for data in (starts, sizes)]
        self.model.operator("SLICE", [x.index, *numbers], y.index)
        return y

    def pad(self, x: Value) -> Value:
        """By rows and columns mostly; then a convolution."""
        pairs = [(0, 0), *[(self.number(0, 2), self.number(0, 2)) for _ in range(2)], self.pick((0, 0), (0, 0), (1, 2))]
        made = [before + size + after for (before, after), size in zip(pairs, x.shape, strict=True)]
        if math.prod(made) > LARGEST:
            return self.function(x)
        y = self.value(made, x.scale, x.zero)
        self.model.operator("PAD", [x.index, self.model.tensor((4, 2), "int32", data=pairs)], y.index)
        return self.conv(y)

    def concatenation(self, x: Value) -> Value:
        """With itself after a ReLU, along any axis."""
        axis = self.number(1, 3)
        made = [size * (2 if place == axis else 1) for place, size in enumerate(x.shape)]
        if math.prod(made) > LARGEST:
            return self.function(x)
        other, y = self.value(x.shape, x.scale, x.zero), self.value(made, x.scale, x.zero)
        self.model.operator("RELU", [x.index], other.index)
        inputs = self.pick([x.index, other.index], [other.index, x.index])
        self.model.operator("CONCATENATION", inputs, y.index, "ConcatenationOptions", axis=axis)
        return y

    def fork(self, x: Value) -> Value:
        """Two layers on one value, added or concatenated."""
        a, b = self.pick(self.conv, self.depthwise, self.pool)(x, keep=True), self.conv(x, keep=True)
        return self.joined("ADD", a, self.pick(b, self.depthwise(b, keep=True)))


def random_model(seed: int) -> bytes:
    maker = DeadMaker((3, seed))
    first = maker.source()
    now = maker.conv(first)
    for _ in range(maker.number(2, 6)):
        now = maker.pick(
            maker.conv, maker.conv, maker.conv, maker.depthwise, maker.depthwise, maker.depthwise, maker.pool,
            maker.binary, maker.function, maker.residual, maker.gate, maker.pad, maker.pad, maker.concatenation,
            maker.concatenation, maker.resize, maker.transpose, maker.transposed, maker.slice, maker.fork,
        )(now)  # fmt: skip
    now = maker.pick(maker.dense, maker.mean, lambda x: maker.dense(maker.mean(x)), maker.softmax, maker.conv)(now)
    return maker.model.file(first.index, now.index)


def between_convolutions(layer: str, seed: int) -> bytes:
    maker = DeadMaker((4, seed))
    first = maker.source()
    last = maker.conv(getattr(maker, layer)(maker.conv(first)))
    return maker.model.file(first.index, last.index)


@pytest.fixture(scope="module")
def ours(tflm: Tflm) -> list[Case]:
    return [case(random_model(seed), tflm) for seed in range(MODELS)]


@pytest.mark.parametrize("target", ["host", "cortex-m4", "cortex-m55"])
def test_random_models_with_dead_channels_answer_as_tflite_micro(target: str, ours: list[Case], tmp_path: Path) -> None:
    need(target)
    assert wrong(emulation.build(program(ours), target, tmp_path), ours, apart(ours)) == []


def test_the_random_models_are_worth_running(ours: list[Case], whole: Callable[[], None]) -> None:
    """In most of them channels are left out, and most of them still have an answer for each input."""
    lively = [one for one in ours if len({answer.tobytes() for answer in one.wanted}) > 2]
    narrow = [lower.lower(read_graph(one.model, "m")).constant_bytes for one in ours]
    whole()
    before = [lower.lower(read_graph(one.model, "m")).constant_bytes for one in ours]
    assert len(lively) > MODELS / 3
    assert sum(now < all for now, all in zip(narrow, before, strict=True)) > MODELS / 2


@pytest.fixture
def whole(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Turns the pass off."""
    return lambda: monkeypatch.setattr(channels, "narrowed", lambda operations, _: operations)


def test_a_layer_with_a_dead_channel_is_not_slow(tflm: Tflm, tmp_path: Path) -> None:
    """The wide path is not for a channel without weights, whatever its scale and its bias."""
    maker = DeadMaker((4, 0))
    x = maker.value((1, 5, 5, 3))
    y = maker.value((1, 5, 5, 4), 0.05, -7)
    data = maker.random.integers(-127, 128, (4, 3, 3, 3))
    data[:3] = 0
    scale = np.array([1e-15, 1e-9, 1e3, 1e-4], np.float32)
    weights = maker.model.tensor(data.shape, scale=scale, data=data)
    bias = maker.model.tensor((4,), "int32", scale=scale * x.scale, data=[2**31 - 1, -(2**31), 0, 50])
    maker.model.operator("CONV_2D", [x.index, weights, bias], y.index, "Conv2DOptions", strideH=1, strideW=1)
    content = maker.model.file(x.index, y.index)
    assert "requantize_wide" not in generate(content, tmp_path).source
    samples = random_inputs(content, 4)
    np.testing.assert_array_equal(run(compiled(tmp_path), content, samples), tflm(content, samples))


# Damage


def unpadded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A known channel that is not the zero point is added to the bias at the border too."""
    real = channels._sum
    monkeypatch.setattr(
        channels,
        "_sum",
        lambda operation, known: real(
            msgspec.structs.replace(operation, pads=(0, 0, 0, 0))
            if isinstance(operation, ops.Convolution)
            else operation,
            known,
        ),
    )


def padded_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """PAD is said to leave a known channel known, whatever it pads with."""
    real = channels._value
    monkeypatch.setattr(
        channels, "_value", lambda operation, value: value if isinstance(operation, ops.Pad) else real(operation, value)
    )


def bias_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The activation of an output without weights is forgotten."""
    real = scales.without_weights
    monkeypatch.setattr(
        scales,
        "without_weights",
        lambda operation, bias: real(msgspec.structs.replace(operation, limits=(None, None)), bias),
    )


def one_branch(monkeypatch: pytest.MonkeyPatch) -> None:
    """What two inputs of a concatenation share is known if the last one is."""
    real = channels._through

    def through(operation: Any, inputs: Any) -> Any:
        made = real(operation, inputs)
        if isinstance(operation, ops.Concatenation) and operation.axis < len(operation.output.shape) - 1:
            return inputs[-1].copy()
        return made

    monkeypatch.setattr(channels, "_through", through)


@pytest.mark.parametrize(
    ("layer", "damage"),
    [("depthwise", unpadded), ("depthwise", bias_alone), ("pad", padded_alike), ("concatenation", one_branch)],
)
def test_damage_is_found(
    layer: str,
    damage: Callable[[pytest.MonkeyPatch], None],
    tflm: Tflm,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    models = [between_convolutions(layer, seed) for seed in range(MODELS)]
    sound = [case(model, tflm) for model in models]
    damage(monkeypatch)
    damaged = [case(model, tflm) for model in models]
    for cases, found in ((sound, False), (damaged, True)):
        assert bool(wrong(emulation.build(program(cases), "host", tmp_path), cases, apart(cases))) == found


# A trained model, as the converter writes it


def keras_model(seed: int) -> Any:
    """Random sizes and strides; a third to all of the filters of each layer are zero, as pruning leaves them."""
    random = np.random.default_rng(seed)
    size = [int(random.integers(13, 25)), int(random.integers(9, 17)), int(random.integers(1, 4))]
    strides = [int(random.integers(1, 3)) for _ in range(3)]
    x = inputs = keras.Input(size)
    x = L.Conv2D(12, 3, strides=strides[0], padding="same", activation="relu")(x)
    x = L.DepthwiseConv2D((5, 3), strides=strides[1], padding="same", activation="relu")(x)
    x = L.Conv2D(16, 1, activation="relu")(x)
    y = L.DepthwiseConv2D(3, padding="same")(x)
    x = L.Add()([x, L.Conv2D(16, 1)(L.ReLU()(y))])
    x = L.Concatenate()([L.Conv2D(8, 3, padding="same", activation="relu")(x), L.MaxPooling2D(3, 1, padding="same")(x)])
    x = L.Conv2D(20, 3, strides=strides[2], padding="valid", activation="relu6")(x)
    x = L.Flatten()(x) if seed % 2 else L.GlobalAveragePooling2D()(x)
    x = L.Dense(24, activation="relu")(x)
    model = keras.Model(inputs, L.Dense(5)(x))
    for layer in model.layers[:-1]:
        if not layer.weights:
            continue
        kernel, bias = layer.get_weights()
        axis = 2 if isinstance(layer, L.DepthwiseConv2D) else -1
        kernel = random.normal(0, (2 / (kernel.size / len(bias))) ** 0.5, kernel.shape)
        np.moveaxis(kernel, axis, 0)[random.random(len(bias)) < random.uniform(0.3, 0.7)] = 0
        layer.set_weights([kernel, random.normal(0, 0.5, bias.shape)])
    return model, random.random((8, *size)).astype(np.float32)


@pytest.mark.parametrize("seed", [0, 1])
def test_a_pruned_model_keeps_every_byte_and_loses_weights(
    seed: int, tflm: Tflm, whole: Callable[[], None], tmp_path: Path
) -> None:
    keras.utils.set_random_seed(seed)
    model, images = keras_model(seed)
    content = tflite.convert(Source(model, None, images, "int8", 1), SCHEMES["int8"])
    samples = random_inputs(content, 20)
    wanted = tflm(content, samples)
    assert len({answer.tobytes() for answer in wanted}) > 15
    narrow = generate(content, tmp_path)
    np.testing.assert_array_equal(run(compiled(tmp_path), content, samples), wanted)
    whole()
    before = generate(content, tmp_path).plan
    assert narrow.plan.constant_bytes < 0.75 * before.constant_bytes
    assert narrow.plan.arena_bytes < before.arena_bytes


# Operators that move channels, as the converter writes them


def dead_convolution(random: np.random.Generator, inputs: int, outputs: int) -> Callable[..., Any]:
    """A convolution of 3 x 3 and a ReLU; a third of its filters are zero."""
    weights = random.normal(0, 0.3, (3, 3, inputs, outputs)).astype(np.float32)
    weights[..., random.permutation(outputs)[: outputs // 3]] = 0
    bias = random.normal(0, 0.3, outputs).astype(np.float32)

    def convolved(x: Any, padding: str = "SAME") -> Any:
        return tf.nn.relu(tf.nn.bias_add(tf.nn.conv2d(x, weights, 1, padding), bias))

    return convolved


def sliced_and_joined(x: Any, first: Any, conv: Any) -> Any:
    parts = [conv(4, 6)(first(x)[..., start : start + 4]) for start in (0, 4, 8)]
    return conv(6, 5)(tf.concat([parts[0][:, 1:, :, :3], parts[2][:, :-1, :, 3:]], -1), "VALID")


def stacked_as_channels(x: Any, first: Any, conv: Any) -> Any:
    made = tf.unstack(tf.stack([first(x), first(x) * 0.5], axis=-1), axis=-1)
    return tf.reduce_max(conv(12, 6)(made[0] + made[1]), [1, 2])


def flipped(x: Any, first: Any, conv: Any) -> Any:
    rows = tf.stack(tf.unstack(first(x), axis=1)[::-1], axis=1)
    return conv(12, 6)(tf.reverse(rows, [2])[:, ::2, 1:], "VALID")


def without_channels(x: Any, first: Any, conv: Any) -> Any:
    one, other = first(x)[:, 2], first(x)[..., 3]
    return tf.concat([tf.reduce_mean(one, 1), tf.reduce_max(other, 1)], -1)


def in_blocks(x: Any, first: Any, conv: Any) -> Any:
    return conv(4, 3)(tf.nn.depth_to_space(conv(12, 16)(first(x)), 2))


@pytest.mark.parametrize("body", [sliced_and_joined, stacked_as_channels, flipped, without_channels, in_blocks])
def test_moved_channels_stay_the_same(body: Callable[..., Any], tflm: Tflm, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    first, images = dead_convolution(random, 2, 12), random.random((20, 1, 8, 7, 2), np.float32)

    @tf.function(input_signature=[tf.TensorSpec(images.shape[1:])])  # type: ignore[untyped-decorator]
    def model(x: Any) -> Any:
        return body(x, first, lambda inputs, outputs: dead_convolution(random, inputs, outputs))

    converter = tf.lite.TFLiteConverter.from_concrete_functions([model.get_concrete_function()])
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([image] for image in images)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "Statistics for quantized inputs were expected": they are given
        content = converter.convert()
    samples = random_inputs(content, 30)
    wanted = tflm(content, samples)
    assert len({answer.tobytes() for answer in wanted}) > 20
    generate(content, tmp_path)
    np.testing.assert_array_equal(run(compiled(tmp_path), content, samples), wanted)
