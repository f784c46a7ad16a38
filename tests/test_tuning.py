"""The search for float operators keeps the answers, and what it finds is what it measured."""

from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from test_onnx_float import Case

from edgecnn import tuning as module
from edgecnn.formats.onnx import qdq
from edgecnn.tflite.graph import Graph, read_graph


@pytest.fixture(scope="module")
def graph(workspace: Any) -> Graph:
    return read_graph(workspace.path("tflite", "int8").read_bytes(), "x")


@pytest.fixture(scope="module")
def found(graph: Graph, workspace: Any) -> module._Search:
    return module._Search(graph, workspace.path("onnx", "float32").read_bytes(), workspace.data.calibration(200))


def negated(graph: Graph, position: int) -> Graph:
    """``graph`` with the weights of an operator turned round."""
    tensors = list(graph.tensors)
    index = graph.operators[position].inputs[1]
    data = tensors[index].data
    assert data is not None
    tensors[index] = msgspec.structs.replace(tensors[index], data=np.negative(np.maximum(data, -127)))
    return msgspec.structs.replace(graph, tensors=tuple(tensors))


def test_a_placement_comes_with_its_measurement(graph: Graph, workspace: Any) -> None:
    images = workspace.data.calibration(50)
    tuning = module.search(graph, workspace.path("onnx", "float32").read_bytes(), images, 0.5)
    assert tuning.operators == tuple(operator.kind for operator in graph.operators)
    assert set(tuning.in_float) <= set(range(len(graph.operators)))
    assert 0 < tuning.ratio_low <= tuning.ratio <= tuning.ratio_high
    assert tuning.tried >= 1
    assert tuning.runtime.startswith("onnxruntime ")
    model = qdq.to_onnx(graph, "again", tuning.in_float, tuning.unsigned)
    folded = [node for node in model.graph.node if node.op_type == "Cast"]
    weighted = [p for p in tuning.in_float if graph.operators[p].kind in ("CONV_2D", "FULLY_CONNECTED")]
    assert len(folded) >= len(weighted)


@pytest.mark.parametrize("kind", ["CONV_2D", "FULLY_CONNECTED"])
def test_wrong_weights_do_not_agree(kind: str, graph: Graph, found: module._Search) -> None:
    assert found.agrees(found.untuned)
    position = next(operator.position for operator in graph.operators if operator.kind == kind)
    damaged = qdq.to_onnx(negated(graph, position), "damaged").SerializeToString()
    assert not found.agrees(module._BoundModel(damaged, frozenset()))


def test_a_slower_placement_is_not_taken(found: module._Search, monkeypatch: pytest.MonkeyPatch) -> None:
    before = found.best
    monkeypatch.setattr(module, "_ratios", lambda candidate, reference, blocks: [1.0] * blocks)
    found.consider(frozenset({0, 1}))
    assert found.best is before
    monkeypatch.setattr(module, "_ratios", lambda candidate, reference, blocks: [0.9] * blocks)
    found.consider(frozenset({0, 1, 2, 3}))
    assert found.best.in_float == frozenset({0, 1, 2, 3})
    found.best = before


def test_an_operator_with_weights_is_never_alone_in_float(
    found: module._Search, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = found.best
    monkeypatch.setattr(module, "_ratios", lambda candidate, reference, blocks: [0.5] * blocks)
    found.consider(frozenset({2}))
    assert found.best is before


def test_where_nothing_is_faster_everything_is_float(
    found: module._Search, graph: Graph, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ratios(candidate: Any, reference: Any, blocks: int) -> list[float]:
        if reference is found.float:
            return [1.2] * blocks
        return [0.8 if len(candidate.in_float) == len(graph.operators) else 1.1] * blocks

    monkeypatch.setattr(module, "_ratios", ratios)
    tuning = found.result()
    assert tuning.in_float == tuple(range(len(graph.operators)))
    model = qdq.to_onnx(graph, "float", tuning.in_float)
    assert "Cast" in {node.op_type for node in model.graph.node}
    onnx.checker.check_model(model, full_check=True)


def test_operators_that_are_in_float_in_any_case_are_not_tried() -> None:
    case = Case((1, 4, 6, 5))
    negative = case.op("NEG", [case.x], case.shape)
    rounded = case.model.tensor(case.shape, scale=0.03, zero=4)
    case.model.operator("QUANTIZE", [negative], rounded)
    target = case.model.tensor(case.shape, scale=0.06)
    case.model.operator("ADD", [rounded, case.source], target, "AddOptions")
    graph = read_graph(case.model.file(case.source, target), "x")
    whole = qdq.to_onnx(graph, "float", range(4)).SerializeToString()
    images = np.random.default_rng(0).random((20, 4, 6, 5), np.float32)
    found = module._Search(graph, whole, images)
    assert set().union(*found.candidates()) == {0, 2, 3}
    assert {1}.isdisjoint(found.result().in_float)
