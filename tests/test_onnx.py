"""Exported .onnx files: standard, checked, channels-first."""

from typing import Any

import numpy as np
import onnx
import pytest

from edgecnn.quantization.schemes import SCHEMES, is_static_int8
from edgecnn.records import TensorSpec, from_json

SCHEMES_IN_ONNX = [name for name in SCHEMES if name != "int16x8"]
# dynamic quantisation computes in integers that only ONNX Runtime's own pattern uses, still in the standard domain
STANDARD = ("", "ai.onnx")


@pytest.fixture(params=SCHEMES_IN_ONNX)
def scheme(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_file_passes_the_full_check_and_uses_standard_operators(scheme: str, workspace: Any) -> None:
    model = onnx.load(workspace.path("onnx", scheme))
    onnx.checker.check_model(model, full_check=True)
    assert {node.domain for node in model.graph.node} <= set(STANDARD)
    assert [entry.version for entry in model.opset_import if entry.domain in STANDARD] == [17]
    assert model.graph.name == workspace.model.name


def test_a_broken_file_would_not_pass_the_check(workspace: Any) -> None:
    model = onnx.load(workspace.path("onnx", "float32"))
    model.graph.node[0].op_type = "NoSuchOperator"
    with pytest.raises(onnx.checker.ValidationError):
        onnx.checker.check_model(model, full_check=True)


def test_input_is_channels_first_and_names_are_stable(scheme: str, workspace: Any) -> None:
    model = onnx.load(workspace.path("onnx", scheme))
    ((given,), (result,)) = model.graph.input, model.graph.output
    assert (given.name, result.name) == ("input", "output")
    assert [dim.dim_value for dim in given.type.tensor_type.shape.dim] == [1, 1, 28, 28]
    properties = {entry.key: entry.value for entry in model.metadata_props}
    for kind, value in (("input", given), ("output", result)):
        stored = from_json(properties[f"edgecnn.{kind}"].encode(), TensorSpec, kind)
        assert stored == getattr(workspace.artifacts["onnx", scheme], kind)
        assert onnx.helper.np_dtype_to_tensor_dtype(np.dtype(stored.dtype)) == value.type.tensor_type.elem_type
    assert "Transpose" not in {node.op_type for node in model.graph.node}, "layouts are changed at export"


def test_weights_are_stored_as_the_scheme_says(scheme: str, workspace: Any) -> None:
    model = onnx.load(workspace.path("onnx", scheme))
    large = {
        onnx.numpy_helper.to_array(weight).dtype.name
        for weight in model.graph.initializer
        if np.prod(weight.dims) > 250 and not weight.name.startswith("probe/")
    }
    wanted = {"float32": {"float32"}, "float16": {"float16"}, "int8": {"int8"}}[SCHEMES[scheme].weights]
    assert large == ({"uint8"} if scheme == "dynamic-int8" else wanted)


@pytest.mark.parametrize("scheme", [name for name in SCHEMES if is_static_int8(SCHEMES[name])])
def test_integers_are_those_of_the_tflite_file(scheme: str, workspace: Any) -> None:
    from edgecnn.tflite.graph import read_graph

    graph = read_graph(workspace.path("tflite", scheme).read_bytes(), scheme)
    model = onnx.load(workspace.path("onnx", scheme))
    stored = {weight.name: onnx.numpy_helper.to_array(weight) for weight in model.graph.initializer}
    compared = 0
    for operator in graph.operators:
        if operator.kind in ("CONV_2D", "FULLY_CONNECTED"):
            ours, theirs = stored[f"{operator.position}/weights"], graph.tensors[operator.inputs[1]]
            assert theirs.data is not None
            assert sorted(ours.ravel()) == sorted(theirs.data.ravel())
            np.testing.assert_array_equal(np.ravel(stored[f"{operator.position}/weights/scale"]), theirs.scale)
            compared += 1
    assert compared == 4
