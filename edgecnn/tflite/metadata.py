"""The metadata of a .tflite that other programs read: MediaPipe, Android Studio, Netron.

Its flatbuffer says what each input and output is, and how raw values become inputs. Label files are in a zip archive
behind the model, which these programs open as if the .tflite were the archive.
Schema: tensorflow_lite_support/metadata/metadata_schema.fbs; slots are the positions of the fields there.
"""

import io
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from edgecnn.optional import require
from edgecnn.records import Preprocessing, Provenance
from edgecnn.tflite.graph import Tensor, read_graph

NAME = "TFLITE_METADATA"
"""The name of the metadata buffer."""

_IDENTIFIER = b"M001"
_PARSER = "1.0.0"  # the oldest version of the schema that has all fields used here
_FEATURE, _IMAGE = 1, 2  # ContentProperties
_COLOURS = {1: 2, 3: 1}  # ColorSpaceType, by the number of channels: grey, RGB
_NORMALISATION = 1  # ProcessUnitOptions
_AXIS_LABELS = 2  # AssociatedFileType

_Value: TypeAlias = "int | str | Sequence[float] | Sequence[_Table] | _Table"
_Table: TypeAlias = Mapping[int, _Value]
"""A table by slot; an integer is an enumeration of one byte."""


def described(model: bytes, about: Provenance) -> tuple[bytes, dict[str, str]]:
    """The metadata buffer of the .tflite ``model``, and its label files by name.

    An output has a label file if there is one label for each value of its last axis. Only a single input has
    normalisation: which of several inputs are raw values is not recorded.
    """
    graph = read_graph(model, f"the {about.scheme} .tflite file")
    inputs, outputs = _named(model, graph.inputs), _named(model, graph.outputs)
    single = about.preprocessing if len(inputs) == 1 else None
    labels = {each.name: each.labels for each in about.outputs} or dict.fromkeys(outputs, about.labels)
    files: dict[str, str] = {}
    results: list[_Table] = []
    for name, index in outputs.items():
        result: dict[int, _Value] = {0: name, 3: {0: _FEATURE, 1: {}}}
        found = labels.get(name, ())
        if len(found) == graph.tensors[index].shape[-1]:
            file = f"labels_{len(files) + 1}.txt" if about.outputs else "labels.txt"
            files[file] = "".join(f"{label}\n" for label in found)
            result[6] = [{0: file, 2: _AXIS_LABELS}]
        results.append(result)
    subgraph: _Table = {
        0: about.model,
        2: [_input(name, graph.tensors[index], single) for name, index in inputs.items()],
        3: results,
    }
    root: _Table = {
        0: about.model,
        1: about.summary,
        3: [subgraph],
        7: _PARSER,
    }
    builder = require("flatbuffers").Builder(1024)
    builder.Finish(_written(builder, root), _IDENTIFIER)
    return bytes(builder.Output()), files


def with_files(model: bytes, files: Mapping[str, str]) -> bytes:
    """``model`` with ``files`` in a zip archive behind it, without dates and not compressed."""
    if not files:
        return model
    made = io.BytesIO(model)
    with zipfile.ZipFile(made, "a", zipfile.ZIP_STORED) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    return made.getvalue()


def _named(model: bytes, tensors: Sequence[int]) -> dict[str, int]:
    """The inputs, or outputs, ``tensors`` in order by their names in the file's signature."""
    signature = require("ai_edge_litert.schema_py_generated").Model.GetRootAs(model, 0).SignatureDefs(0)
    ends = [signature.Inputs(place) for place in range(signature.InputsLength())]
    ends += [signature.Outputs(place) for place in range(signature.OutputsLength())]
    names = {end.TensorIndex(): end.Name().decode() for end in ends}
    return {names[index]: index for index in tensors}


def _input(name: str, tensor: Tensor, preprocessing: Preprocessing | None) -> _Table:
    """The table TensorMetadata of an input; ``preprocessing`` says how raw values become its values."""
    channels = tensor.shape[-1]
    image = len(tensor.shape) == 4 and channels in _COLOURS
    properties: _Table = {0: _COLOURS[channels]} if image else {}
    table: dict[int, _Value] = {0: name, 3: {0: _IMAGE if image else _FEATURE, 1: properties}}
    if preprocessing is not None:
        lowest, highest = preprocessing.input_range
        if preprocessing.scale > 0:
            # input = raw * scale + offset = (raw - mean) / std
            mean, std = -preprocessing.offset / preprocessing.scale, 1 / preprocessing.scale
            table[4] = [{0: _NORMALISATION, 1: {0: (mean,), 1: (std,)}}]
        table[5] = {0: (highest,), 1: (lowest,)}
    return table


def _written(builder: Any, table: _Table) -> int:
    """Write ``table`` behind what it refers to; return its place."""
    places = {slot: _placed(builder, value) for slot, value in table.items() if not isinstance(value, int)}
    builder.StartObject(max(table, default=-1) + 1)
    for slot, value in table.items():
        if isinstance(value, int):
            builder.PrependInt8Slot(slot, value, 0)
        else:
            builder.PrependUOffsetTRelativeSlot(slot, places[slot], 0)
    return int(builder.EndObject())


def _placed(builder: Any, value: str | Sequence[float] | Sequence[_Table] | _Table) -> int:
    if isinstance(value, str):
        return int(builder.CreateString(value))
    if isinstance(value, Mapping):
        return _written(builder, value)
    tables = [_written(builder, each) for each in value if isinstance(each, Mapping)]
    if not tables:
        return int(builder.CreateNumpyVector(np.array(value, np.float32)))
    builder.StartVector(4, len(tables), 4)
    for place in reversed(tables):
        builder.PrependUOffsetTRelative(place)
    return int(builder.EndVector())
