"""Operators as typed records: read once, for every writer."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from fuzzing.models import int8_files
from generated import Model
from test_tflite_damage import huge_scales, inputs, option, other_axis, repacked, shape, short_bias, twice_an_output

from edgecnn.errors import EdgecnnError, UnsupportedError
from edgecnn.formats.c99 import lower, to_c
from edgecnn.formats.onnx import qdq, values
from edgecnn.tflite import operators as ops
from edgecnn.tflite.graph import read_graph

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def files() -> tuple[bytes, ...]:
    return int8_files()


def operations(content: bytes) -> list[Any]:
    return list(ops.read(read_graph(content, "x.tflite")))


def kinds(part: type[ops.Operation]) -> set[type[ops.Operation]]:
    below = part.__subclasses__()
    return set().union(*map(kinds, below)) if below else {part}


def test_writers_lack_only_what_their_target_cannot_do() -> None:
    every = kinds(ops.Operation)
    assert qdq._WRITERS.keys() == every - {*values.ONLY_C}
    assert lower._WRITERS.keys() >= {*values.ONLY_C, ops.Slice, ops.Concatenation}
    assert lower._WRITERS.keys() < every


def test_what_only_c_has_is_refused_in_onnx() -> None:
    model = Model()
    first, second = model.tensor((1, 2, 2, 4), scale=0.5), model.tensor((1, 4, 4, 1), scale=0.5)
    model.operator("DEPTH_TO_SPACE", [first], second, "DepthToSpaceOptions", blockSize=2)
    graph = read_graph(model.file(first, second), "x")
    assert not lower.problems(graph)
    with pytest.raises(
        UnsupportedError, match=r"operator 0 \(DEPTH_TO_SPACE '.*'\) is not supported in int8 \.onnx; use"
    ):
        qdq.to_onnx(graph, "m")


def test_an_operator_that_only_c_lacks_is_named_with_what_to_use() -> None:
    model = Model()
    ends = [model.tensor((1, 4, 4), scale=0.1) for _ in range(2)]
    model.operator("CUMSUM", [ends[0], model.tensor((), "int32", data=1)], ends[1], "CumsumOptions")
    graph = read_graph(model.file(*ends), "x.tflite")
    assert qdq.to_onnx(graph, "m").graph.node
    with pytest.raises(UnsupportedError, match=r"CUMSUM.* not supported in C; use the \.tflite or \.onnx file"):
        to_c(graph, "m")


def test_every_operator_of_the_files_has_a_record_with_its_shape(files: tuple[bytes, ...]) -> None:
    seen = set()
    for content in files:
        graph = read_graph(content, "x.tflite")
        for operation in ops.read(graph):
            assert isinstance(operation, ops.Operation)
            stored = graph.tensors[operation.output.index].shape
            assert operation.output.shape == tuple(max(size, 1) for size in stored)
            assert all(min(tensor.shape, default=1) > 0 for tensor in operation.inputs)
            seen.add(type(operation))
    assert len(seen) >= 10


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "dilation", "padding", "made", "pads"),
    [
        (7, 3, 1, 1, 0, 7, (1, 1)),
        (8, 3, 2, 1, 0, 4, (0, 1)),
        (8, 2, 1, 1, 0, 8, (0, 1)),
        (9, 3, 2, 1, 1, 4, (0, 0)),
        (9, 3, 1, 2, 0, 9, (2, 2)),
        (5, 1, 3, 1, 0, 2, (0, 0)),
    ],
)
@pytest.mark.parametrize("depthwise", [False, True])
def test_pads_are_explicit(
    size: int, kernel: int, stride: int, dilation: int, padding: int, made: int, pads: Any, depthwise: bool
) -> None:
    model = Model()
    source = model.tensor((1, size, 4, 2), scale=0.5, signature=(-1, size, 4, 2))
    weights_shape = (1, kernel, 1, 6) if depthwise else (6, kernel, 1, 2)
    weights = model.tensor(
        weights_shape, scale=[0.1] * 6, axis=3 if depthwise else 0, data=np.ones(weights_shape, np.int8)
    )
    target = model.tensor((1, made, -(-4 // stride), 6), scale=0.5, signature=(-1, made, -(-4 // stride), 6))
    options = "DepthwiseConv2DOptions" if depthwise else "Conv2DOptions"
    kind = "DEPTHWISE_CONV_2D" if depthwise else "CONV_2D"
    values = {"depthMultiplier": 3} if depthwise else {}
    model.operator(
        kind, [source, weights], target, options, padding=padding, strideH=stride, strideW=stride,
        dilationHFactor=dilation, dilationWFactor=1, fusedActivationFunction=3, **values,
    )  # fmt: skip
    (operation,) = operations(model.file(source, target))
    assert isinstance(operation, ops.Convolution)
    assert operation.pads[::2] == pads
    assert (operation.kernel, operation.stride, operation.dilation) == ((kernel, 1), (stride, stride), (dilation, 1))
    assert (operation.groups, operation.depthwise, operation.limits) == (2 if depthwise else 1, depthwise, (0.0, 6.0))
    assert (operation.inputs[0].shape[0], operation.output.shape[0]) == (1, 1), "a free batch is one image"
    assert operation.bias is None


def unknown_kind(model: Any, graph: Any) -> None:
    code = model.operatorCodes[graph.operators[1].opcodeIndex]
    code.builtinCode = code.deprecatedBuiltinCode = 12  # L2_POOL_2D


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(huge_scales, id="scales whose product is no float32"),
        pytest.param(other_axis, id="scales along another axis"),
        pytest.param(short_bias, id="too short a bias"),
        pytest.param(twice_an_output, id="a tensor as two outputs"),
        pytest.param(unknown_kind, id="an unknown operator"),
        pytest.param(shape(0, 1, 4, 9, 2), id="weights of three dimensions"),
        pytest.param(shape(1, 0, 1, 9, 9, 4), id="another shape than the operator gives"),
        pytest.param(option(0, padding=7), id="neither SAME nor VALID"),
        pytest.param(option(1, filterHeight=99, padding=1), id="a kernel larger than its input"),
        pytest.param(option(1, fusedActivationFunction=4), id="another fused activation"),
        pytest.param(option(3, weightsFormat=1), id="shuffled weights"),
        pytest.param(inputs(3, 0, 0), id="weights that are computed"),
    ],
)
def test_a_fault_has_one_message_whatever_is_written(
    change: Callable[[Any, Any], None], files: tuple[bytes, ...]
) -> None:
    graph = read_graph(repacked(files[0], change), "x.tflite")
    found = []
    for write in (to_c, qdq.to_onnx):
        with pytest.raises(EdgecnnError) as caught:
            write(graph, "m")
        found.append((type(caught.value), str(caught.value)))
    assert found[0] == found[1]


def test_what_is_not_supported_stands_in_its_place(files: tuple[bytes, ...]) -> None:
    found = operations(repacked(files[0], unknown_kind))
    whole = operations(files[0])
    assert len(found) == len(whole)
    assert [isinstance(one, UnsupportedError) for one in found] == [position == 1 for position in range(len(found))]
    assert str(found[1]).startswith("operator 1 (L2_POOL_2D '")


def test_float_ends_are_cut() -> None:
    model = Model()
    first, last = model.tensor((1, 4), "float32"), model.tensor((1, 4), "float32")
    inner = [model.tensor((1, 4), scale=0.1) for _ in range(2)]
    model.operator("QUANTIZE", [first], inner[0])
    model.operator("RELU", [inner[0]], inner[1])
    model.operator("DEQUANTIZE", [inner[1]], last)
    graph = read_graph(model.file(first, last), "x.tflite")
    assert [one.kind for one in ops.without_float_ends(graph).operators] == ["RELU"]
    assert [type(one) for one in ops.read(graph)] == [ops.Rescale] * 3


def test_a_graph_in_float_is_written_to_onnx_and_refused_in_c() -> None:
    model = Model()
    ends = [model.tensor((1, 4), "float32") for _ in range(2)]
    model.operator("RSQRT", [ends[0]], ends[1])
    graph = read_graph(model.file(*ends), "x.tflite")
    assert [node.op_type for node in qdq.to_onnx(graph, "m").graph.node] == ["Sqrt", "Reciprocal", "Identity"]
    with pytest.raises(UnsupportedError, match="is float32; C code supports only int8"):
        to_c(graph, "m")
