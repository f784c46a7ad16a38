"""Inspecting files: what is in them, what runs in int8, and that --assert int8 fails when something does not."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
import pytest
from conftest import Workspace
from onnx import TensorProto, helper, numpy_helper

from edgecnn import cli
from edgecnn.errors import ArtifactError, ConfigError, EdgecnnError, SessionError
from edgecnn.formats import onnx as onnx_format
from edgecnn.formats import tflite
from edgecnn.formats.onnx import qdq
from edgecnn.formats.source import Source
from edgecnn.inspection import inspect
from edgecnn.models import build_model
from edgecnn.quantization.schemes import SCHEMES
from edgecnn.records import InspectedNode, Inspection, from_json, to_json
from edgecnn.tflite.graph import read_graph

# The reference CNN, counted by hand: kernel × input channels × output values.
CONV_1, CONV_2, DENSE_1, DENSE_2 = 26 * 26 * 32 * 9, 11 * 11 * 64 * 288, 1600 * 64, 640
WEIGHTS, BIASES = 288 + 18_432 + 102_400 + 640, 32 + 64 + 64 + 10

Ended = tuple[int, str, str]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    """Run ``edgecnn inspect`` in this process: exit status, stdout, stderr."""

    def run(*arguments: object) -> Ended:
        monkeypatch.setattr(sys, "argv", ["edgecnn", "inspect", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as end:
            cli.main()
        out, err = capfd.readouterr()
        return int(end.value.code or 0), out, err

    return run


@pytest.fixture(scope="module")
def untrained(workspace: Workspace) -> Source:
    """The depthwise-separable DS-CNN, with input and output in uint8 where it is quantised."""
    model = build_model("ds_cnn", workspace.data, seed=0)
    return Source(model, None, workspace.data.inputs(workspace.data.train.images[:20]), "uint8", 1)


def heavy(inspection: Inspection) -> list[InspectedNode]:
    return sorted((node for node in inspection.nodes if node.macs), key=lambda node: node.position or 0)


def keras_macs(model: Any) -> list[int]:
    """Multiply-accumulates of each layer, from the Keras model's own kernels and output shapes."""
    counts = []
    for layer in model.layers:
        if isinstance(layer, keras.layers.DepthwiseConv2D | keras.layers.Conv2D):
            out_h, out_w, out_c = layer.output.shape[1:]
            kernel_h, kernel_w, in_c, _ = layer.kernel.shape
            each = 1 if isinstance(layer, keras.layers.DepthwiseConv2D) else in_c
            counts.append(out_h * out_w * out_c * kernel_h * kernel_w * each)
        elif isinstance(layer, keras.layers.Dense):
            counts.append(int(np.prod(layer.kernel.shape)))
    return counts


# ------------------------------------------------------------------------------------------ counting by hand


@pytest.mark.parametrize(
    ("format", "scheme"),
    [(f, s) for f in ("tflite", "onnx") for s in SCHEMES if (f, s) != ("onnx", "int16x8")],
)
def test_the_reference_cnn_counts_as_by_hand(workspace: Workspace, format: str, scheme: str) -> None:
    found = inspect(workspace.path(format, scheme))
    assert [node.macs for node in heavy(found)] == [CONV_1, CONV_2, DENSE_1, DENSE_2]
    assert found.macs == CONV_1 + CONV_2 + DENSE_1 + DENSE_2
    assert found.parameters == WEIGHTS + BIASES
    assert sum(found.mac_shares.values()) == pytest.approx(1)
    assert found.size_bytes == workspace.path(format, scheme).stat().st_size
    assert from_json(to_json(found), Inspection, "x") == found
    if scheme in ("int8", "int8-qat"):
        assert found.weight_bytes == WEIGHTS + 4 * BIASES
    elif scheme == "float32":
        assert found.weight_bytes == 4 * (WEIGHTS + BIASES)
    elif scheme == "float16":  # .onnx files keep biases in float32
        assert found.weight_bytes == 2 * WEIGHTS + (4 if format == "onnx" else 2) * BIASES
    if format == "onnx":
        assert sum(node.time_share or 0 for node in found.nodes) == pytest.approx(1)
        assert sum(found.time_shares.values()) == pytest.approx(1)
    else:
        assert found.time_shares == {}


@pytest.mark.parametrize("scheme", ["float32", "int8"])
def test_a_depthwise_model_counts_as_in_keras(untrained: Source, tmp_path: Path, scheme: str) -> None:
    expected = keras_macs(untrained.model)
    assert len(expected) == 10
    for format in (tflite, onnx_format):
        path = tmp_path / f"ds_cnn.{format.__name__.rpartition('.')[2]}"
        path.write_bytes(format.convert(untrained, SCHEMES[scheme]))
        found = inspect(path)
        assert [node.macs for node in heavy(found)] == expected
        assert all(node.precision is not None for node in heavy(found))


# --------------------------------------------------------------------------------------------- what runs how


def test_int8_tflite_runs_in_int8_and_says_where(workspace: Workspace) -> None:
    found = inspect(workspace.path("tflite", "int8"))
    assert found.not_int8 == ()
    assert found.mac_shares == {"int8": 1.0}
    assert [(node.kind, node.fate, node.precision) for node in found.nodes] == [
        ("CONV_2D", "delegated", "int8"),
        ("MAX_POOL_2D", "delegated", "int8"),
        ("CONV_2D", "delegated", "int8"),
        ("MAX_POOL_2D", "delegated", "int8"),
        ("RESHAPE", "delegated", "data"),
        ("FULLY_CONNECTED", "delegated", "int8"),
        ("FULLY_CONNECTED", "delegated", "int8"),
        ("SOFTMAX", "runs", "int8"),
    ]
    weights = found.nodes[0].inputs[1]
    assert (weights.dtype, weights.shape, weights.scales, weights.zero_point) == ("int8", (32, 3, 3, 1), 32, (0, 0))
    assert found.nodes[0].outputs[0].scales == 1
    assert "7 of 8 operators are in 1 XNNPACK partition; LiteRT's own kernels run SOFTMAX" in found.notes[0]


@pytest.mark.parametrize(
    ("scheme", "precisions"),
    [
        ("float32", {"float", "data"}),
        ("float16", {"float", "data", None}),
        ("int16x8", {"int16", "data", "conversion"}),
    ],
)
def test_other_tflite_schemes(workspace: Workspace, scheme: str, precisions: set[str | None]) -> None:
    found = inspect(workspace.path("tflite", scheme))
    assert {node.precision for node in found.nodes} == precisions
    assert {node.kind for node in found.nodes if node.fate == "folded"} == (
        {"DEQUANTIZE"} if None in precisions else set()
    )


def test_dynamic_int8_is_hybrid(workspace: Workspace) -> None:
    found = inspect(workspace.path("tflite", "dynamic-int8"))
    assert "hybrid" in {node.precision for node in heavy(found)}
    assert len(found.not_int8) == 7


def test_nodes_of_an_int8_onnx_are_those_of_the_profiler(workspace: Workspace) -> None:
    graph = read_graph(workspace.path("tflite", "int8").read_bytes(), "x")
    content = qdq.to_onnx(graph, "x", in_float=(0, 1), cpu="vnni").SerializeToString()
    path = workspace.folder / "tuned.onnx"
    path.write_bytes(content)
    found = inspect(path)
    first, second, *_ = heavy(found)
    assert (first.kind, first.kernel, first.precision) == ("Conv", "Conv", "float")
    assert (second.kind, second.kernel, second.precision) == ("Conv", "QLinearConv", "int8")
    assert second.outputs[0].dtype == "uint8"
    assert (second.inputs[1].dtype, second.inputs[1].scales) == ("int8", 64)
    positions = [node.position for node in found.nodes if node.position is not None]
    assert sorted(positions) == list(range(len(onnx.load_from_string(content).graph.node)))
    assert all((node.seconds is None) == (node.fate in ("fused", "folded")) for node in found.nodes)
    assert {node.kind for node in found.nodes if node.fate == "folded"} == {"Cast", "Mul", "DequantizeLinear"}
    assert all(node.precision == "conversion" for node in found.nodes if node.fate == "inserted")
    assert {"int8", "float", "conversion"} <= set(found.time_shares)


def test_weights_that_the_runtime_quantises_itself_are_told(workspace: Workspace) -> None:
    graph = read_graph(workspace.path("tflite", "int8").read_bytes(), "x")
    path = workspace.folder / "lone.onnx"
    told = []
    for in_float in ((), (2,)):
        path.write_bytes(qdq.to_onnx(graph, "x", in_float).SerializeToString())
        told.append([note for note in inspect(path).notes if note.startswith("Float weights")])
    name = f"Conv:t{graph.operators[2].outputs[0]}/conv"
    assert told == [[], [f"Float weights that ONNX Runtime quantised to int8 itself: {name}."]]


# ------------------------------------------------------------------------------------------------ the command


def test_assert_int8(workspace: Workspace, command: Callable[..., Ended]) -> None:
    assert command(workspace.path("tflite", "int8-qat"), "--assert", "int8")[::2] == (0, "")
    graph = read_graph(workspace.path("tflite", "int8").read_bytes(), "x")
    whole, planted = workspace.folder / "whole.onnx", workspace.folder / "planted.onnx"
    whole.write_bytes(qdq.to_onnx(graph, "x").SerializeToString())
    second = f"(Conv:t{graph.operators[2].outputs[0]}/conv) computes in float"
    assert command(whole, "--assert", "int8")[::2] == (0, "")
    # With its pooling: ONNX Runtime quantises a lone convolution between quantised values itself.
    planted.write_bytes(qdq.to_onnx(graph, "x", in_float=(2, 3)).SerializeToString())
    status, out, err = command(planted, "--assert", "int8")
    assert status == 1
    assert "QGemm" in out
    lines = err.splitlines()
    assert any(line.endswith(second) for line in lines)
    assert all(line.startswith(f"edgecnn: {planted}: ") for line in lines)
    status, _, err = command(workspace.path("tflite", "dynamic-int8"), "--assert", "int8")
    assert status == 1
    assert "MAX_POOL_2D 1 (" in err
    assert "computes in hybrid" in err


def test_an_integer_graph_passes_and_one_float_node_fails(tmp_path: Path, command: Callable[..., Ended]) -> None:
    good, bad = tmp_path / "good.onnx", tmp_path / "bad.onnx"
    onnx.save(qoperator(), good)
    assert command(good, "--assert", "int8")[::2] == (0, "")
    onnx.save(qoperator(sigmoid=True), bad)
    status, _, err = command(bad, "--assert", "int8")
    assert status == 1
    (line,) = err.splitlines()
    assert line.endswith("Sigmoid 3 (Sigmoid#3) computes in float")


def test_table_and_json(workspace: Workspace, command: Callable[..., Ended]) -> None:
    for format in ("onnx", "tflite"):
        path = workspace.path(format, "int8")
        status, out, err = command(path)
        assert (status, err) == (0, "")
        assert max(map(len, out.splitlines())) <= 100
        assert "2,528,000 MACs: " in out
        assert "121,930 parameters in 119.6 KiB" in out
        assert ("time %" in out) == (format == "onnx")
        status, out, err = command(path, "--json")
        assert (status, err) == (0, "")
        assert json.loads(out)["macs"] == 2_528_000
        assert from_json(out.encode(), Inspection, "x").runtime.startswith(
            {"onnx": "onnxruntime ", "tflite": "litert "}[format]
        )


# ---------------------------------------------------------------------------------------- files of other tools


def model(nodes: list[Any], inputs: list[Any], outputs: list[Any], constants: dict[str, Any]) -> Any:
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "other", inputs, outputs, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def value(name: str, kind: int, *shape: int | str) -> Any:
    return helper.make_tensor_value_info(name, kind, list(shape))


def qoperator(sigmoid: bool = False) -> Any:
    """QuantizeLinear, QLinearConv with two groups, DequantizeLinear: no names, no metadata, a free batch."""
    constants = {
        "s": np.float32(0.02), "z": np.uint8(128), "ws": np.full(8, 0.01, np.float32), "wz": np.zeros(8, np.int8),
        "w": np.ones((8, 2, 3, 3), np.int8), "b": np.zeros(8, np.int32),
    }  # fmt: skip
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("QLinearConv", ["q", "s", "z", "w", "ws", "wz", "s", "z", "b"], ["c"], group=2),
        helper.make_node("DequantizeLinear", ["c", "s", "z"], ["d" if sigmoid else "y"]),
    ]
    if sigmoid:
        nodes.append(helper.make_node("Sigmoid", ["d"], ["y"]))
    x, y = value("x", TensorProto.FLOAT, "n", 4, 8, 8), value("y", TensorProto.FLOAT, "n", 8, 6, 6)
    return model(nodes, [x], [y], constants)


def test_operators_in_integers_from_the_start(tmp_path: Path) -> None:
    path = tmp_path / "other.onnx"
    onnx.save(qoperator(), path)
    (conv,) = heavy(found := inspect(path))
    assert conv.macs == found.macs == 8 * 6 * 6 * 3 * 3 * 4 // 2
    assert (conv.parameters, conv.weight_bytes) == (8 * 18 + 8, 8 * 18 + 4 * 8)
    assert (conv.kernel, conv.precision) == ("QLinearConv", "int8")
    assert (conv.outputs[0].dtype, conv.outputs[0].zero_point) == ("uint8", (128, 128))
    assert not any(note.startswith("Float weights") for note in found.notes)


def test_half_floats_several_inputs_and_outputs_and_shared_names(tmp_path: Path) -> None:
    weights = np.ones((5, 3), np.float16)
    nodes = [
        helper.make_node("MatMul", ["a", "w"], ["first"], name="same"),
        helper.make_node("MatMul", ["b", "w"], ["second"], name="same"),
    ]
    half = TensorProto.FLOAT16
    inputs = [value("a", half, 2, 5), value("b", half, 4, 5)]
    outputs = [value("first", half, 2, 3), value("second", half, 4, 3)]
    path = tmp_path / "half.onnx"
    onnx.save(model(nodes, inputs, outputs, {"w": weights}), path)
    found = inspect(path)
    assert [node.macs for node in heavy(found)] == [2 * 5 * 3, 4 * 5 * 3]
    assert (found.parameters, found.weight_bytes) == (15, 30)  # one tensor, used twice
    assert found.mac_shares == {"float": 1.0}
    with pytest.raises(ConfigError, match="a model with one input; this one has 2"):
        inspect(path, (1, 5))


def test_free_dimensions_take_a_shape(tmp_path: Path, command: Callable[..., Ended]) -> None:
    nodes = [helper.make_node("ConvTranspose", ["x", "w"], ["y"], strides=[2, 2])]
    x, y = value("x", TensorProto.FLOAT, "n", 3, "h", "w_"), value("y", TensorProto.FLOAT, "n", 4, "p", "q")
    path = tmp_path / "free.onnx"
    onnx.save(model(nodes, [x], [y], {"w": np.ones((3, 4, 2, 2), np.float32)}), path)
    with pytest.raises(ConfigError, match=r"dynamic dimensions \(\?,3,\?,\?\); set them, as in"):
        inspect(path)
    with pytest.raises(ConfigError, match="1,4,5,5 does not fit"):
        inspect(path, (1, 4, 5, 5))
    assert inspect(path, (2, 3, 5, 6)).macs == 2 * 3 * 5 * 6 * 4 * 2 * 2
    assert command(path, "--shape", "1,3,5,5")[0] == 0
    assert command(path)[0] == 2


def test_a_free_batch_in_a_tflite_file(untrained: Source, tmp_path: Path) -> None:
    free = Source(untrained.model, None, untrained.calibration, "int8", None)
    path = tmp_path / "free.tflite"
    path.write_bytes(tflite.convert(free, SCHEMES["float32"]))
    once, twice = inspect(path), inspect(path, (2, *untrained.calibration.shape[1:]))
    assert once.macs * 2 == twice.macs == 2 * sum(keras_macs(untrained.model))


# ---------------------------------------------------------------------------------------------- damaged files


@pytest.mark.parametrize("format", ["onnx", "tflite"])
@pytest.mark.parametrize("damage", ["empty", "text", "cut", "swapped", "missing", "folder"])
def test_damaged_files_give_one_line(
    workspace: Workspace, tmp_path: Path, command: Callable[..., Ended], format: str, damage: str
) -> None:
    path = tmp_path / f"bad.{format}"
    other = {"onnx": "tflite", "tflite": "onnx"}[format]
    content = workspace.path(format, "int8").read_bytes()
    if damage == "folder":
        path.mkdir()
    elif damage != "missing":
        swapped = workspace.path(other, "int8").read_bytes()
        path.write_bytes({"empty": b"", "text": b"hello", "cut": content[:3000], "swapped": swapped}[damage])
    status, out, err = command(path)
    assert (status, out) == (1, "")
    assert err.startswith("edgecnn: ")
    assert err.count("\n") == 1


def test_a_graph_the_runtime_refuses(tmp_path: Path) -> None:
    path = tmp_path / "unknown.onnx"
    x, y = value("x", TensorProto.FLOAT, 1), value("y", TensorProto.FLOAT, 1)
    onnx.save(model([helper.make_node("Frobnicate", ["x"], ["y"])], [x], [y], {}), path)
    with pytest.raises(SessionError, match=r"onnxruntime cannot run unknown\.onnx: .*Frobnicate"):
        inspect(path)


def test_a_name_that_is_no_text(workspace: Workspace, tmp_path: Path) -> None:
    path = tmp_path / "name.tflite"
    content = workspace.path("tflite", "int8").read_bytes()
    name = read_graph(content, "x").tensors[0].name.encode()
    path.write_bytes(content.replace(name, b"\xff" * len(name)))
    with pytest.raises(SessionError, match=r"litert cannot run name\.tflite: 'utf-8' codec"):
        inspect(path)


@pytest.mark.parametrize(
    ("name", "says"), [("a.keras", "cannot be inspected; give a file ending in .onnx or .tflite"), ("a.bin", "ending")]
)
def test_other_endings(tmp_path: Path, name: str, says: str) -> None:
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(ArtifactError, match=says) as caught:
        inspect(tmp_path / name)
    assert isinstance(caught.value, EdgecnnError)
