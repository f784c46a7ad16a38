"""Damaged .tflite files: reading them and writing them as ONNX gives an error of ours or a valid result.

Never another exception, a crash or a hang. ``EDGECNN_FUZZ=2000`` tries that many files instead of 200.
"""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import flatbuffers
import keras
import numpy as np
import onnx
import pytest
from ai_edge_litert import schema_py_generated as schema
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgecnn.errors import ArtifactError, EdgecnnError, UnsupportedError
from edgecnn.formats import tflite
from edgecnn.formats.onnx_qdq import to_onnx
from edgecnn.formats.source import Source
from edgecnn.formats.tflite_graph import Graph, read_graph
from edgecnn.quantization.schemes import SCHEMES

L = keras.layers
EXAMPLES = int(os.environ.get("EDGECNN_FUZZ", "200"))
LIMIT_S = 20.0


def plain(x: Any) -> Any:
    return L.MaxPooling2D()(L.Conv2D(4, 3, strides=2, padding="same", activation="relu")(x))


def branched(x: Any) -> Any:
    x = L.DepthwiseConv2D(3, padding="same", depth_multiplier=2, activation="relu6")(x)
    gate = L.Conv2D(4, 1, activation="sigmoid")(L.GlobalAveragePooling2D(keepdims=True)(x))
    y = L.Multiply()([L.Conv2D(4, 3, padding="same")(x), gate])
    y = L.Concatenate()([y, y - L.LeakyReLU(negative_slope=0.2)(y), L.Activation("tanh")(y)])
    return L.UpSampling2D(2)(L.ReLU()(y + L.Conv2D(12, 1)(x)))


def rearranged(x: Any) -> Any:
    x = L.Permute((2, 1, 3))(L.ZeroPadding2D(1)(x))
    x = L.AveragePooling2D(2)(L.UpSampling2D(2, interpolation="bilinear")(x))
    return L.Reshape((5, 8, 5))(L.Activation("hard_swish")(L.Conv2D(2, 1)(x)))


def source(body: Callable[[Any], Any], batch: Any = 1) -> Source:
    keras.utils.set_random_seed(1)
    images = keras.Input((8, 8, 2))
    model = keras.Model(images, L.Dense(3, activation="softmax")(L.Flatten()(body(images))), name="model")
    return Source(model, None, np.random.default_rng(0).random((8, 8, 8, 2), np.float32), "int8", batch)


@pytest.fixture(scope="module")
def files() -> tuple[bytes, ...]:
    """Int8 .tflite files that together have most of the operators that can be written."""
    sources = (source(plain), source(branched), source(rearranged), source(plain, None))
    return tuple(tflite.convert(one, SCHEMES["int8"]) for one in sources)


# Damage to bytes: ``place`` is where, as a share of the file.


def flipped(content: bytes, place: float, value: int) -> bytes:
    at = int(place * len(content))
    return content[:at] + bytes([content[at] ^ (value % 255 + 1)]) + content[at + 1 :]


def truncated(content: bytes, place: float, value: int) -> bytes:
    return content[: int(place * len(content))]


def zeroed(content: bytes, place: float, value: int) -> bytes:
    at = int(place * len(content))
    gone = min(value % 64, len(content) - at)
    return content[:at] + bytes(gone) + content[at + gone :]


def inserted(content: bytes, place: float, value: int) -> bytes:
    at = int(place * len(content))
    return content[:at] + value.to_bytes(8, "little", signed=True)[: value % 8 + 1] + content[at:]


def spliced(content: bytes, place: float, value: int) -> bytes:
    """A piece of the file stands a second time, over something else."""
    at, start = int(place * len(content)), value % len(content)
    piece = content[start : start + 4 * (1 + value % 8)]
    return content[:at] + piece + content[at + len(piece) :]


def word(content: bytes, place: float, value: int) -> bytes:
    """Another number or reference."""
    at = int(place * len(content)) // 4 * 4
    return content[:at] + (value % 2**32).to_bytes(4, "little") + content[at + 4 :]


# Damage to what the bytes mean: any number, list or part of the model.

INTEGERS = (0, 1, -1, 2, 3, 5, 127, -128, 255, 999, 65536, 2**31 - 1, -(2**31), 2**63 - 1)
REALS = (0.0, -1.0, 1.0, 1e-45, 1e-38, 1e38, float("nan"), float("inf"), float("-inf"))
Place = tuple[Any, str, int | None]


def places(part: Any, found: dict[str, list[Place]]) -> dict[str, list[Place]]:
    """Every attribute and list entry below ``part``, by the kind of place it is; contents of buffers are left out."""
    for name, value in vars(part).items():
        if isinstance(value, np.ndarray):
            value = value.tolist()
            setattr(part, name, value)
        kind = f"{type(part).__name__}.{name}"
        found.setdefault(kind, []).append((part, name, None))
        if name == "data":
            continue
        entries = value if isinstance(value, list) else [value]
        for index, entry in enumerate(entries):
            if isinstance(value, list):
                found.setdefault(f"{kind}[]", []).append((part, name, index))
            if hasattr(entry, "__dict__"):
                places(entry, found)
    return found


def changed(value: Any, number: int) -> Any:
    """Something else of the same type."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return INTEGERS[number % len(INTEGERS)]
    if isinstance(value, float):
        return REALS[number % len(REALS)]
    if isinstance(value, list) and value:
        shapes: tuple[Any, ...] = (value[:-1], value[1:], value + value[:1], value[::-1], [], None, value * 2)
        return shapes[number % len(shapes)]
    return None


def edited(content: bytes, place: float, value: int) -> bytes:
    """One place of the model's tree changed; the file as it was where that cannot be packed."""
    try:
        model = schema.ModelT.InitFromPackedBuf(content)
        kinds = places(model, {})
        rest = place * len(kinds)
        kind = sorted(kinds)[int(rest)]
        part, name, index = kinds[kind][int(rest % 1 * len(kinds[kind]))]
        if index is None:
            setattr(part, name, changed(getattr(part, name), value))
        else:
            getattr(part, name)[index] = changed(getattr(part, name)[index], value)
        builder = flatbuffers.Builder(len(content))
        builder.Finish(model.Pack(builder), b"TFL3")
        return bytes(builder.Output())
    except Exception:  # noqa: BLE001 - damaged before, or too large a number: whatever the packer says
        return content


DAMAGE = (flipped, truncated, zeroed, inserted, spliced, word, *[edited] * 10)
STEPS = st.lists(
    st.tuples(
        st.sampled_from(DAMAGE),
        st.floats(0, 1, exclude_max=True),
        st.one_of(st.integers(0, 300), st.sampled_from(INTEGERS)),
    ),
    min_size=1,
    max_size=3,
)


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Raise in whatever takes longer."""

    def ring(*_: Any) -> None:
        raise TimeoutError(f"still at it after {seconds:g} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def written(content: bytes, in_float: int = 0, unsigned: bool = False) -> Any:
    graph = read_graph(content, "x.tflite")
    assert isinstance(graph, Graph)
    return to_onnx(graph, "x", [position for position in range(60) if in_float >> position & 1], unsigned)


@given(which=st.integers(0, 3), steps=STEPS, in_float=st.integers(0, 2**24 - 1), unsigned=st.booleans())
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_damage_gives_an_error_of_ours_or_a_valid_model(
    files: tuple[bytes, ...], which: int, steps: Any, in_float: int, unsigned: bool
) -> None:
    content = files[which]
    for damage, place, value in steps:
        content = damage(content, place, value) if content else content
    with within(LIMIT_S):
        outcome = attempted(content, in_float, unsigned)
    if isinstance(outcome, EdgecnnError):
        assert str(outcome).startswith(("x.tflite", "operator", "the graph")), str(outcome)
        assert str(outcome).isprintable()
    else:
        onnx.checker.check_model(outcome, full_check=True)


def attempted(content: bytes, in_float: int, unsigned: bool) -> Any:
    """The .onnx model, or the error of ours; any other escapes."""
    try:
        return written(content, in_float, unsigned)
    except EdgecnnError as error:
        return error


def test_undamaged_files_are_written(files: tuple[bytes, ...]) -> None:
    for content in files:
        for in_float in (0, 2**60 - 1):
            onnx.checker.check_model(written(content, in_float), full_check=True)


def test_what_takes_too_long_is_seen() -> None:
    with pytest.raises(TimeoutError, match="still at it"), within(0.05):
        time.sleep(5)


# Damage of known kinds, and files that are fine but of another kind.


def repacked(content: bytes, change: Callable[[Any, Any], None]) -> bytes:
    """The model with ``change`` applied to it and its subgraph in object form."""
    model = schema.ModelT.InitFromPackedBuf(content)
    change(model, model.subgraphs[0])
    builder = flatbuffers.Builder(len(content))
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def tensor_of(graph: Any, operator: int, place: int) -> Any:
    return graph.tensors[graph.operators[operator].inputs[place]]


def option(position: int, **values: Any) -> Callable[[Any, Any], None]:
    def change(model: Any, graph: Any) -> None:
        for name, value in values.items():
            assert hasattr(graph.operators[position].builtinOptions, name)
            setattr(graph.operators[position].builtinOptions, name, value)

    return change


def scales(operator: int, place: int, values: Callable[[Any], Any]) -> Callable[[Any, Any], None]:
    def change(model: Any, graph: Any) -> None:
        quantization = tensor_of(graph, operator, place).quantization
        quantization.scale = values(list(quantization.scale))

    return change


def zero_point(model: Any, graph: Any) -> None:
    tensor_of(graph, 0, 0).quantization.zeroPoint = [300]


def shape(operator: int, place: int, *sizes: int) -> Callable[[Any, Any], None]:
    def change(model: Any, graph: Any) -> None:
        tensor = tensor_of(graph, operator, place)
        tensor.shape, tensor.shapeSignature = list(sizes), None

    return change


def inputs(operator: int, *indices: int) -> Callable[[Any, Any], None]:
    def change(model: Any, graph: Any) -> None:
        graph.operators[operator].inputs = list(indices)

    return change


def read_early(model: Any, graph: Any) -> None:
    graph.operators[1].inputs = [graph.operators[3].outputs[0]]


def made_twice(model: Any, graph: Any) -> None:
    graph.operators[1].outputs = graph.operators[0].outputs


def no_output(model: Any, graph: Any) -> None:
    graph.operators[1].outputs = []


def unmade_output(model: Any, graph: Any) -> None:
    graph.operators = graph.operators[:-1]


def dangling_output(model: Any, graph: Any) -> None:
    graph.outputs = [999]


def two_outputs(model: Any, graph: Any) -> None:
    graph.outputs = [graph.outputs[0], graph.operators[0].outputs[0]]


def unknown_code(model: Any, graph: Any) -> None:
    graph.operators[0].opcodeIndex = 77


def unknown_buffer(model: Any, graph: Any) -> None:
    tensor_of(graph, 0, 1).buffer = 4242


def control_flow(model: Any, graph: Any) -> None:
    code = model.operatorCodes[graph.operators[1].opcodeIndex]
    code.builtinCode, code.deprecatedBuiltinCode = schema.BuiltinOperator.WHILE, schema.BuiltinOperator.WHILE


def other_axis(model: Any, graph: Any) -> None:
    weights = tensor_of(graph, 0, 1)
    weights.quantization.quantizedDimension = 3
    weights.quantization.scale = weights.quantization.scale[:2]
    weights.quantization.zeroPoint = weights.quantization.zeroPoint[:2]


def short_bias(model: Any, graph: Any) -> None:
    bias = tensor_of(graph, 0, 2)
    bias.shape = [3]
    model.buffers[bias.buffer].data = model.buffers[bias.buffer].data[:12]
    bias.quantization = None


def huge_scales(model: Any, graph: Any) -> None:
    scales(0, 0, lambda _: [1e30])(model, graph)
    scales(0, 1, lambda found: [1e30] * len(found))(model, graph)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (scales(0, 1, lambda found: [0.0, *found[1:]]), r"tensor \d+ \(.*\) has a scale that is zero, negative"),
        (scales(0, 1, lambda found: [float("nan"), *found[1:]]), "zero, negative or not finite"),
        (scales(0, 1, lambda found: found[:-1]), "has 3 scales and 4 zero points"),
        (huge_scales, r"operator 0 \(CONV_2D\): the product of its input's and weights' scales is no float32"),
        (zero_point, r"tensor \d+ \(.*\) has a zero point that is no int8"),
        (other_axis, r"operator 0 \(CONV_2D\): its weights have scales along axis 3, not 0"),
        (short_bias, r"operator 0 \(CONV_2D\): its bias has 3 values for 4 channels"),
        (shape(0, 1, 4, 9, 2), r"operator 0 \(CONV_2D\): tensor '.*' has shape \(4, 9, 2\), not four dimensions"),
        (shape(0, 1, 4, 3, 2, 3), "has 4 scales|do not fit 2 channels"),
        (shape(0, 1, -4, -3, 3, 2), r"has shape \(-4, -3, 3, 2\); sizes are positive"),
        (shape(0, 1, 2**31 - 1, 2**31 - 1, 2**31 - 1, 2), r"holds 72 bytes, \d{29} are needed"),
        (shape(1, 0, 1, 9, 9, 4), "its parts do not fit together"),
        (option(0, strideW=0), r"operator 0 \(CONV_2D\): strideH, strideW are \[2, 0\]; each must be at least 1"),
        (option(0, dilationHFactor=-1), "dilationHFactor, dilationWFactor are"),
        (option(1, filterHeight=0), r"operator 1 \(MAX_POOL_2D\): filterHeight, filterWidth are \[0, 2\]"),
        (option(0, padding=7), r"operator 0 \(CONV_2D\): padding 7 is neither SAME nor VALID"),
        (option(4, beta=2.0), r"operator 4 \(SOFTMAX\): a softmax with a beta other than 1"),
        (inputs(0, 0), r"operator 0 \(CONV_2D\) has inputs \(0,\), 2 are needed"),
        (inputs(0, 0, -1), r"operator 0 \(CONV_2D\): its input 1 is absent"),
        (read_early, r"operator 1 \(MAX_POOL_2D\) reads tensor \d+ \(.*\), which nothing makes"),
        (made_twice, r"operator 1 \(MAX_POOL_2D\) makes tensor \d+, which is there already"),
        (no_output, r"operator 1 \(MAX_POOL_2D\) has no output"),
        (unmade_output, r"the graph's output '.*' is made by no operator"),
        (dangling_output, r"the model has no output, or one that is not there: tensors \(999,\)"),
        (two_outputs, "the graph has 2 outputs"),
        (unknown_code, "operator 0 is of a kind that is not there"),
        (unknown_buffer, r"tensor \d+ \(.*\) has its values in buffer 4242 of"),
        (control_flow, r"operator 1 \(WHILE\) has no ONNX counterpart"),
    ],
)
def test_damage_is_said_with_its_place(files: tuple[bytes, ...], change: Any, message: str) -> None:
    content = repacked(files[0], change)
    with pytest.raises((ArtifactError, UnsupportedError), match=message):
        written(content)


@pytest.mark.parametrize(
    ("scheme", "message"),
    [
        ("float32", r"operator 0 \(CONV_2D\): its weights are float32, int8 with a scale is needed"),
        ("float16", r"operator \d \(\w+\): .*float"),
        ("dynamic-int8", r"operator 0 \(CONV_2D\): .*float32"),
        ("int16x8", r"operator 1 \(CONV_2D\): tensor '.*' is int16 with 1 scales; only int8"),
    ],
)
def test_files_that_are_not_int8_are_refused(scheme: str, message: str) -> None:
    content = tflite.convert(source(plain), SCHEMES[scheme])
    with pytest.raises(UnsupportedError, match=message):
        written(content)


def test_a_real_loop_is_refused_for_its_subgraphs() -> None:
    import tensorflow as tf

    @tf.function(input_signature=[tf.TensorSpec((1, 4), tf.float32)])
    def looped(x: Any) -> Any:
        return tf.while_loop(lambda value: tf.reduce_sum(value) < 9.0, lambda value: [value * 2.0], [x])[0]

    converter = tf.lite.TFLiteConverter.from_concrete_functions([looped.get_concrete_function()])
    with pytest.raises(ArtifactError, match=r"x.tflite has \d subgraphs; edgecnn reads models with one"):
        written(converter.convert())


def test_every_truncation_is_an_error(files: tuple[bytes, ...]) -> None:
    for length in range(0, len(files[0]), 97):
        with pytest.raises(EdgecnnError, match=r"x\.tflite|operator|the graph"):
            written(files[0][:length])
