"""Damaged .tflite files of known kinds: each is an error of ours that names the place."""

from collections.abc import Callable
from typing import Any

import flatbuffers
import onnx
import pytest
from ai_edge_litert import schema_py_generated as schema
from fuzzing.models import BODIES, int8_files, source_of

from edgecnn.errors import ArtifactError, EdgecnnError, UnsupportedError
from edgecnn.formats import tflite
from edgecnn.formats.onnx.qdq import to_onnx
from edgecnn.quantization.schemes import SCHEMES
from edgecnn.tflite.graph import read_graph

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def files() -> tuple[bytes, ...]:
    """Int8 .tflite files that together have most of the operators that can be written."""
    return int8_files()


def written(content: bytes, in_float: int = 0) -> Any:
    graph = read_graph(content, "x.tflite")
    return to_onnx(graph, "x", [position for position in range(60) if in_float >> position & 1])


def test_undamaged_files_are_written(files: tuple[bytes, ...]) -> None:
    for content in files:
        for in_float in (0, 2**60 - 1):
            onnx.checker.check_model(written(content, in_float), full_check=True)


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


def twice_an_output(model: Any, graph: Any) -> None:
    graph.outputs = [graph.outputs[0], graph.outputs[0]]


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


def constant_input(model: Any, graph: Any) -> None:
    graph.inputs = [graph.operators[0].inputs[1]]


def variable_output(model: Any, graph: Any) -> None:
    graph.tensors[graph.operators[0].outputs[0]].isVariable = True


def without_options(model: Any, graph: Any) -> None:
    graph.operators[0].builtinOptions, graph.operators[0].builtinOptionsType = None, 0


def nothing_in(model: Any, graph: Any) -> None:
    graph.operators[1].inputs = [-1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (scales(0, 1, lambda found: [0.0, *found[1:]]), r"tensor \d+ \(.*\) has a scale that is zero, negative"),
        (scales(0, 1, lambda found: [float("nan"), *found[1:]]), "zero, negative or not finite"),
        (scales(0, 1, lambda found: found[:-1]), "has 3 scales and 4 zero points"),
        (
            huge_scales,
            r"operator 0 \(CONV_2D '.*'\): the product of its input's and weights' scales is not a finite float32",
        ),
        (zero_point, r"tensor \d+ \(.*\) has a zero point out of range of int8"),
        (other_axis, r"operator 0 \(CONV_2D '.*'\): its weights have scales along axis 3, not 0"),
        (short_bias, r"operator 0 \(CONV_2D '.*'\): its bias has 3 values for 4 channels"),
        (
            shape(0, 1, 4, 9, 2),
            r"operator 0 \(CONV_2D '.*'\): tensor '.*' has shape \(4, 9, 2\); four dimensions are needed",
        ),
        (shape(0, 1, 4, 3, 2, 3), "has 4 scales|do not fit 2 channels"),
        (shape(0, 1, -4, -3, 3, 2), r"has shape \(-4, -3, 3, 2\); sizes must be positive"),
        (shape(0, 1, 2**31 - 1, 2**31 - 1, 2**31 - 1, 2), r"has 72 bytes, expected \d{29}"),
        (shape(1, 0, 1, 9, 9, 4), "has output shape .*, but the file says"),
        (option(0, strideW=0), r"x\.tflite: operator 0 \(CONV_2D '.*'\): strideW is 0; it must be at least 1"),
        (option(0, dilationHFactor=-1), "dilationHFactor is -1; it must be at least 1"),
        (option(1, filterHeight=0), r"operator 1 \(MAX_POOL_2D '.*'\): filterHeight is 0"),
        (option(0, padding=7), r"operator 0 \(CONV_2D '.*'\): padding 7 is neither SAME nor VALID"),
        (option(4, beta=2.0), r"operator 4 \(SOFTMAX '.*'\): a softmax with a beta other than 1"),
        (inputs(0, 0), r"operator 0 \(CONV_2D '.*'\) has inputs \(0,\), but needs 2"),
        (inputs(0, 0, -1), r"operator 0 \(CONV_2D '.*'\): its input 1 is absent"),
        (read_early, r"operator 1 \(MAX_POOL_2D '.*'\) reads tensor \d+ \(.*\) before any operator writes it"),
        (made_twice, r"operator 1 \(MAX_POOL_2D '.*'\) writes tensor \d+, which already has a value"),
        (no_output, r"operator 2 \(RESHAPE '.*'\) reads tensor \d+ \(.*\) before any operator writes it"),
        (unmade_output, r"no operator writes the graph's output '.*'"),
        (dangling_output, r"the model has no output, or one that does not exist: tensors \(999,\)"),
        (twice_an_output, "the graph has the same tensor as two outputs"),
        (unknown_code, "operator 0 has an operator code that does not exist"),
        (unknown_buffer, r"tensor \d+ \(.*\) has its values in buffer 4242 of"),
        (constant_input, r"the input, tensor \d+ \(.*\), is a constant"),
        (variable_output, r"operator 0 \(CONV_2D '.*'\) writes tensor \d+, which already has a value"),
        (without_options, r"operator 0 \(CONV_2D '.*'\) lacks required options: strideH"),
        (nothing_in, r"operator 1 \(MAX_POOL_2D '.*'\): its input 0 is absent"),
        (control_flow, r"operator 1 \(WHILE '.*'\) is not supported in int8 .onnx and C"),
    ],
)
def test_damage_is_said_with_its_place(files: tuple[bytes, ...], change: Any, message: str) -> None:
    content = repacked(files[0], change)
    with pytest.raises((ArtifactError, UnsupportedError), match=message):
        written(content)


@pytest.mark.parametrize(
    ("scheme", "message"),
    [
        ("float16", r"operator \d \(.*\): .*float"),
        ("int16x8", r"operator 0 \(QUANTIZE '.*'\): tensor '.*' is int16; only int8"),
    ],
)
def test_files_that_are_not_int8_are_refused(scheme: str, message: str) -> None:
    content = tflite.convert(source_of(BODIES[0]), SCHEMES[scheme])
    with pytest.raises(UnsupportedError, match=message):
        written(content)


def test_a_real_loop_is_read_and_refused_by_writers() -> None:
    import tensorflow as tf

    @tf.function(input_signature=[tf.TensorSpec((1, 4), tf.float32)])
    def looped(x: Any) -> Any:
        return tf.while_loop(lambda value: tf.reduce_sum(value) < 9.0, lambda value: [value * 2.0], [x])[0]

    converter = tf.lite.TFLiteConverter.from_concrete_functions([looped.get_concrete_function()])
    content = converter.convert()
    main, condition, body = read_graph(content, "x").subgraphs
    assert [operator.kind for operator in main.operators] == ["WHILE"]
    assert "LESS" in [operator.kind for operator in condition.operators]
    assert "MUL" in [operator.kind for operator in body.operators]
    with pytest.raises(UnsupportedError, match=r"operator 0 \(WHILE '.*'\) is not supported"):
        written(content)


def test_every_truncation_is_an_error(files: tuple[bytes, ...]) -> None:
    for length in range(0, len(files[0]), 97):
        with pytest.raises(EdgecnnError, match=r"x\.tflite|operator|the graph"):
            written(files[0][:length])
