"""Reading .tflite files, also damaged ones."""

import re
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecnn.errors import ArtifactError
from edgecnn.tflite.graph import Graph, read_anyway, read_graph


def repacked(content: bytes, change: Any) -> bytes:
    """The model with ``change`` applied to its object form."""
    model = schema.ModelT.InitFromPackedBuf(content)
    change(model)
    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


@pytest.fixture(scope="module")
def int8_file(workspace: Any) -> bytes:
    path: Path = workspace.path("tflite", "int8")
    return path.read_bytes()


def test_the_reference_cnn_is_read_as_it_was_built(workspace: Any, int8_file: bytes) -> None:
    graph = read_graph(int8_file, "x")
    assert [operator.kind for operator in graph.operators] == [
        "CONV_2D", "MAX_POOL_2D", "CONV_2D", "MAX_POOL_2D", "RESHAPE", "FULLY_CONNECTED", "FULLY_CONNECTED", "SOFTMAX",
    ]  # fmt: skip
    (first, *_) = graph.operators
    assert (first.options["strideH"], first.options["padding"]) == (1, 1)
    assert re.fullmatch(r"operator 0 \(CONV_2D '[^;]+'\)", str(first))
    weights = graph.tensors[first.inputs[1]]
    assert (weights.dtype, weights.shape, weights.axis, len(weights.scale)) == ("int8", (32, 3, 3, 1), 0, 32)
    assert weights.data is not None
    kernel = np.asarray(workspace.model.layers[0].kernel)  # (h, w, in, out)
    real = weights.data * weights.scale.reshape(-1, 1, 1, 1)
    np.testing.assert_allclose(real, kernel.transpose(3, 0, 1, 2), atol=float(weights.scale.max()) / 2 + 1e-7)
    assert (graph.tensors[graph.inputs[0]].shape, graph.tensors[graph.outputs[0]].shape) == ((1, 28, 28, 1), (1, 10))


def no_subgraph(model: Any) -> None:
    model.subgraphs = []


def calling(number: int) -> Any:
    """Damage: the first operator runs subgraph ``number``."""

    def call(model: Any) -> None:
        operator = model.subgraphs[0].operators[0]
        operator.builtinOptionsType = schema.BuiltinOptions.CallOnceOptions
        operator.builtinOptions = schema.CallOnceOptionsT()
        operator.builtinOptions.initSubgraphIndex = number
        code = model.operatorCodes[operator.opcodeIndex]
        code.builtinCode, code.deprecatedBuiltinCode = schema.BuiltinOperator.CALL_ONCE, 127
        model.subgraphs = model.subgraphs * 2

    call.__name__ = f"calling_{number}"
    return call


def constant_resource(model: Any) -> None:
    model.subgraphs[0].tensors[model.subgraphs[0].operators[0].inputs[1]].type = schema.TensorType.RESOURCE


def custom_operator(model: Any) -> None:
    code = model.operatorCodes[model.subgraphs[0].operators[0].opcodeIndex]
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.CUSTOM
    code.customCode = "FlexErf"


def dangling_tensor(model: Any) -> None:
    model.subgraphs[0].operators[0].inputs = [0, 999, 1]


def short_buffer(model: Any) -> None:
    weights = model.subgraphs[0].operators[0].inputs[1]
    buffer = model.buffers[model.subgraphs[0].tensors[weights].buffer]
    buffer.data = buffer.data[:-1]


def negative_scale(model: Any) -> None:
    model.subgraphs[0].tensors[0].quantization.scale = [-1.0]


def infinite_scale(model: Any) -> None:
    model.subgraphs[0].tensors[0].quantization.scale = [float("inf")]


def missing_zero_points(model: Any) -> None:
    model.subgraphs[0].tensors[model.subgraphs[0].inputs[0]].quantization.zeroPoint = [0, 0]


def too_few_scales(model: Any) -> None:
    weights = model.subgraphs[0].tensors[model.subgraphs[0].operators[0].inputs[1]]
    weights.quantization.scale = weights.quantization.scale[:5]
    weights.quantization.zeroPoint = weights.quantization.zeroPoint[:5]


def unknown_type(model: Any) -> None:
    model.subgraphs[0].tensors[0].type = schema.TensorType.COMPLEX64


def sparse_weights(model: Any) -> None:
    sparsity = schema.SparsityParametersT()
    sparsity.traversalOrder, sparsity.dimMetadata = [0], []
    model.subgraphs[0].tensors[0].sparsity = sparsity


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (no_subgraph, "x.tflite has no subgraph"),
        (calling(0), r"x.tflite: operator 0 \(CALL_ONCE.*\) runs subgraph 0, which it cannot"),
        (calling(2), r"x.tflite: operator 0 \(CALL_ONCE.*\) runs subgraph 2, which it cannot"),
        (calling(1), r"x.tflite, subgraph 1: operator 0 \(CALL_ONCE.*\) runs subgraph 1, which it cannot"),
        (constant_resource, "is constant, but dynamic or a resource"),
        (custom_operator, r"operator 0 '.*' is custom \(FlexErf\)"),
        (dangling_tensor, r"operator 0 \(CONV_2D\) refers to a tensor that does not exist"),
        (short_buffer, r"of shape \(32, 3, 3, 1\) has 287 bytes, expected 288"),
        (negative_scale, r"tensor 0 \(.*\) has a scale that is zero, negative or not finite"),
        (infinite_scale, "zero, negative or not finite"),
        (missing_zero_points, "has 1 scales and 2 zero points"),
        (too_few_scales, "has 5 scales along axis 0"),
        (unknown_type, "has type COMPLEX64; edgecnn supports"),
        (sparse_weights, "is sparse"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_cannot_be_read_is_said_with_its_place(int8_file: bytes, change: Any, message: str) -> None:
    with pytest.raises(ArtifactError, match=message):
        read_graph(repacked(int8_file, change), "x.tflite")


def test_everything_unsupported_is_listed(int8_file: bytes) -> None:
    def all_of_it(model: Any) -> None:
        custom_operator(model)
        unknown_type(model)
        sparse_weights(model)

    graph = read_anyway(repacked(int8_file, all_of_it), "x.tflite")
    assert [re.sub(r" \(\S+\)| '.*'", "", reason)[:40] for reason in graph.unsupported] == [
        "tensor 0 has type COMPLEX64; edgecnn sup",
        "tensor 0 is sparse, which edgecnn does n",
        "operator 0 is custom, which edgecnn does",
        "operator 2 is custom, which edgecnn does",
    ]
    with pytest.raises(ArtifactError, match=r"COMPLEX64.*; tensor 0 .* is sparse.*; operator 0 '.*' is cus"):
        read_graph(repacked(int8_file, all_of_it), "x.tflite")
    assert not read_anyway(int8_file, "x.tflite").unsupported


def test_what_is_no_tflite_file() -> None:
    for content in (b"", b"TFL3", b"\x08\0\0\0ONNXsomething"):
        with pytest.raises(ArtifactError, match="does not have the identifier"):
            read_graph(content, "x.tflite")


@given(place=st.floats(0, 1, exclude_max=True), value=st.integers(1, 255))
@settings(max_examples=150, deadline=None)
def test_a_changed_byte_gives_a_graph_or_an_error_of_ours(int8_file: bytes, place: float, value: int) -> None:
    structure = 20_000  # weights come behind; the tables are what can go wrong
    content = bytearray(int8_file)
    content[8 + int(place * structure)] ^= value
    try:
        graph: Graph | None = read_graph(bytes(content), "x")
    except ArtifactError:
        return
    assert isinstance(graph, Graph)


@given(st.floats(0, 1, exclude_max=True))
@settings(max_examples=60, deadline=None)
def test_a_truncated_file_is_damaged(int8_file: bytes, share: float) -> None:
    model = int8_file[: int8_file.rindex(b"PK\3\4")]  # without the file of labels behind it
    with pytest.raises(ArtifactError):
        read_graph(model[: int(share * len(model))], "x")
