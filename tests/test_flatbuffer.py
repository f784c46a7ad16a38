"""Metadata in front of a .tflite file."""

import struct
from pathlib import Path
from typing import Any

import pytest
from ai_edge_litert import schema_py_generated as schema
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecnn.errors import ArtifactError
from edgecnn.quantization.schemes import SCHEMES
from edgecnn.tflite.flatbuffer import add_metadata
from edgecnn.tflite.graph import read_graph


def small_model(metadata: dict[str, bytes] | None = None, description: str | None = None) -> bytes:
    """A one-operator model packed by the flatbuffers library, with or without tables of its own."""
    import flatbuffers

    weights = schema.BufferT()
    weights.data = list(struct.pack("<4f", 1, 2, 3, 4))
    model = schema.ModelT()
    model.version, model.buffers = 3, [schema.BufferT(), weights]
    model.description = description
    tensors = [schema.TensorT(), schema.TensorT()]
    for index, (tensor, name) in enumerate(zip(tensors, "xw", strict=True)):
        tensor.name, tensor.shape, tensor.type, tensor.buffer = name, [4], schema.TensorType.FLOAT32, index
    graph = schema.SubGraphT()
    graph.tensors, graph.inputs, graph.outputs, graph.operators = tensors, [0], [0], []
    model.subgraphs, model.operatorCodes = [graph], []
    if metadata is not None:
        model.metadata = []
        for name, content in metadata.items():
            entry, buffer = schema.MetadataT(), schema.BufferT()
            entry.name, entry.buffer, buffer.data = name, len(model.buffers), list(content)
            model.metadata.append(entry)
            model.buffers.append(buffer)
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def weights_of(model: bytes) -> dict[int, tuple[int, bytes]]:
    """Position in the file and content of every buffer."""
    root = schema.Model.GetRootAs(model, 0)
    found = {}
    for index in range(root.BuffersLength()):
        buffer = root.Buffers(index)
        if buffer.DataLength():
            start = buffer._tab.Vector(buffer._tab.Offset(4))
            found[index] = (start, buffer.DataAsNumpy().tobytes())
    return found


MODELS: dict[str, bytes] = {
    "plain": small_model(),
    "described": small_model(description="a model"),
    "with metadata": small_model({"min_runtime_version": b"1.5.0"}, "a model"),
    "with no metadata entries": small_model({}),
}


@pytest.mark.parametrize("name", MODELS)
@given(
    label=st.text(st.characters(codec="utf-8").filter(str.isprintable), min_size=1, max_size=40),
    content=st.binary(min_size=1, max_size=300),
)
@settings(max_examples=40, deadline=None)
def test_any_content_comes_back_and_all_else_stays(name: str, label: str, content: bytes) -> None:
    model = MODELS[name]
    before = read_graph(model, "before")
    changed = add_metadata(model, label, content)
    after = read_graph(changed, "after")

    assert after.metadata == {**before.metadata, label: content}
    assert changed.endswith(model), "a byte of the model has changed"
    assert (len(changed) - len(model)) % 16 == 0
    assert str(after.tensors) == str(before.tensors)
    old, new = schema.Model.GetRootAs(model, 0), schema.Model.GetRootAs(changed, 0)
    assert (new.Version(), new.Description()) == (old.Version(), old.Description())
    stored = weights_of(changed)
    assert {index: data for index, (_, data) in stored.items() if index in weights_of(model)} == {
        index: data for index, (_, data) in weights_of(model).items()
    }
    assert stored[max(stored)][0] % 16 == 0


def test_metadata_can_be_added_twice() -> None:
    model = add_metadata(add_metadata(MODELS["plain"], "a", b"1"), "b", b"2")
    assert read_graph(model, "x").metadata == {"a": b"1", "b": b"2"}


@pytest.mark.parametrize("scheme", SCHEMES)
def test_weights_of_a_real_model_stay_aligned_to_16_bytes(workspace: Any, scheme: str) -> None:
    path: Path = workspace.path("tflite", scheme)
    positions = [start for start, _ in weights_of(path.read_bytes()).values()]
    assert len(positions) > 8
    assert [start % 16 for start in positions] == [0] * len(positions)


def test_what_is_no_model_is_refused() -> None:
    with pytest.raises(ArtifactError, match="its identifier is not 'TFL3'"):
        add_metadata(b"PK\x03\x04 not a model", "edgecnn", b"x")
    with pytest.raises(ArtifactError, match="identifier is not"):
        add_metadata(b"", "edgecnn", b"x")


def test_a_truncated_model_is_refused() -> None:
    model = MODELS["with metadata"]
    for length in (9, 20, 40):
        with pytest.raises(ArtifactError, match="not a complete TFLite flatbuffer"):
            add_metadata(model[:length], "edgecnn", b"x")
