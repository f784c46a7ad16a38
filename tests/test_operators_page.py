"""docs/operators.md says what the code supports."""

import importlib.util
import re
from pathlib import Path

import pytest
from generated import Model

from edgecnn.errors import UnsupportedError
from edgecnn.formats.c99.lower import problems
from edgecnn.formats.onnx.qdq import to_onnx
from edgecnn.tflite.graph import read_graph

DOCS = Path(__file__).parents[1] / "docs"


def test_the_page_is_made_from_the_code() -> None:
    specification = importlib.util.spec_from_file_location("operators_page", DOCS / "operators_page.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    assert (DOCS / "operators.md").read_text(encoding="utf-8") == module.page(), "run: python docs/operators_page.py"


UNARY = ("RELU", "ABS", "LOGISTIC", "EXP", "FLOOR", "SHAPE", "ZEROS_LIKE", "ADD_N")


@pytest.mark.parametrize("kind", UNARY)
def test_a_cell_is_true(kind: str) -> None:
    """Models of one operator with one input are refused exactly where the table has a dash, or a condition."""
    row = re.search(rf"^\| {kind} \| (.*) \| (.*) \| .* \|$", (DOCS / "operators.md").read_text(), re.MULTILINE)
    assert row is not None
    model = Model()
    scale, zero = (1 / 256, -128) if kind == "LOGISTIC" else (0.5, 0)
    first, second = model.tensor((1, 4), scale=0.5), model.tensor((1, 4), scale=scale, zero=zero)
    model.operator(kind, [first], second)
    graph = read_graph(model.file(first, second), "x")
    assert bool(problems(graph)) is (row[1] in ("–", "folded")), row[1]
    if row[2] in ("–", "folded"):
        with pytest.raises(UnsupportedError):
            to_onnx(graph, "m")
    else:
        assert to_onnx(graph, "m").graph.node
