"""Finish a .tflite file, and add metadata to it without changing a byte of the model.

A flatbuffer's references point forward only, so a new root table before the old file can refer to everything in it, and
weights keep their 16-byte alignment.
Format: https://flatbuffers.dev/internals; tables: tensorflow/compiler/mlir/lite/schema/schema.fbs.
"""

import struct
from collections.abc import Mapping
from typing import Any

from edgecnn.errors import ArtifactError
from edgecnn.optional import require

_MODEL_FIELDS = 8
_BUFFERS, _METADATA = 4, 6
_ALIGNMENT = 16


def finished(model: bytes, inputs: Mapping[str, str], outputs: Mapping[str, str]) -> bytes:
    """Repack the .tflite ``model`` from TensorFlow's converter with a signature, and its weights aligned to 16 bytes.

    ``inputs`` and ``outputs`` are their names in the signature "serving_default", in order, with those of their tensors
    (empty: as the converter has set it). The schema requires the alignment, but the converter's last steps pack the
    file in Python and lose it. Kernels that read the weights in place, in flash or mapped memory, rely on it.

    Two faults of the converter in layers that stay in float are mended. A dense layer in float behind one in int8, or
    behind a reshape, lacks the DEQUANTIZE of its input, so that no runtime loads the file. And means of values that are
    dequantised anyway, as in LayerNormalization, are rounded to int8 before they are dequantised too.
    """
    base: Any = require("flatbuffers").Builder
    schema = require("tensorflow.lite.python.schema_py_generated")

    class Builder(base):  # type: ignore[misc]
        def StartVector(self, size: int, count: int, alignment: int) -> Any:  # noqa: N802
            return super().StartVector(size, count, _ALIGNMENT if size == 1 else alignment)

    unpacked = schema.ModelT.InitFromPackedBuf(model)
    graph = unpacked.subgraphs[0]
    signature = schema.SignatureDefT()
    signature.signatureKey, signature.subgraphIndex = b"serving_default", 0
    signature.inputs, signature.outputs = [], []
    for ends, indices, names in ((signature.inputs, graph.inputs, inputs), (signature.outputs, graph.outputs, outputs)):
        for index, (name, tensor) in zip(indices, names.items(), strict=False):
            graph.tensors[index].name = tensor.encode() or graph.tensors[index].name
            end = schema.TensorMapT()
            end.name, end.tensorIndex = name.encode(), index
            ends.append(end)
    unpacked.signatureDefs = [signature]
    _complete_floats(schema, unpacked)
    builder = Builder(len(model))
    builder.Finish(unpacked.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _complete_floats(schema: Any, model: Any) -> None:
    """Mend the ends of layers in float, see ``align``."""
    graph, kinds, int8 = model.subgraphs[0], schema.BuiltinOperator, schema.TensorType.INT8
    codes = [code.builtinCode for code in model.operatorCodes]
    readers: dict[int, list[Any]] = {}
    for operator in graph.operators:
        for index in operator.inputs:
            readers.setdefault(int(index), []).append(operator)
    dequantizers = {
        int(each.inputs[0]): each for each in graph.operators if codes[each.opcodeIndex] == kinds.DEQUANTIZE
    }
    operators: list[Any] = []
    dropped: list[Any] = []

    def real(index: int) -> int:
        """The float value of an int8 tensor."""
        if index not in dequantizers:
            dequantizers[index] = _dequantizer(schema, model, index)
        if dequantizers[index] not in operators:
            operators.append(dequantizers[index])
        return int(dequantizers[index].outputs[0])

    for operator in graph.operators:
        ends = [int(operator.inputs[0]), int(operator.outputs[0])] if len(operator.inputs) else []
        types = [graph.tensors[index].type for index in (*ends, *operator.inputs[1:2]) if index >= 0]
        if types[:1] == [int8] and types[2:] == [schema.TensorType.FLOAT32]:
            operator.inputs = [real(ends[0]), *operator.inputs[1:]]
        elif types[:2] == [int8, int8] and codes[operator.opcodeIndex] == kinds.MEAN and ends[0] in dequantizers:
            after = readers.get(ends[1], [])
            scales = [list(graph.tensors[index].quantization.scale) for index in ends]
            # a mean with a scale of its own is a layer of its own, such as GlobalAveragePooling2D
            if after == [dequantizers.get(ends[1])] and ends[1] not in graph.outputs and scales[0] == scales[1]:
                operator.inputs, operator.outputs = [real(ends[0]), *operator.inputs[1:]], after[0].outputs
                dropped.append(after[0])
        if operator not in (*operators, *dropped):
            operators.append(operator)
    graph.operators = operators


def _dequantizer(schema: Any, model: Any, index: int) -> Any:
    """A DEQUANTIZE of an int8 tensor, into a new one."""
    graph, kind = model.subgraphs[0], schema.BuiltinOperator.DEQUANTIZE
    tensor, before = schema.TensorT(), graph.tensors[index]
    tensor.name, tensor.type, tensor.buffer = before.name + b"/dequantized", schema.TensorType.FLOAT32, 0
    tensor.shape, tensor.shapeSignature = before.shape, before.shapeSignature
    graph.tensors.append(tensor)
    codes = [code.builtinCode for code in model.operatorCodes]
    if kind not in codes:
        code = schema.OperatorCodeT()
        code.builtinCode, code.deprecatedBuiltinCode, code.version = kind, kind, 2  # the first that takes int8
        model.operatorCodes.append(code)
        codes.append(kind)
    operator = schema.OperatorT()
    operator.opcodeIndex, operator.inputs, operator.outputs = codes.index(kind), [index], [len(graph.tensors) - 1]
    return operator


def add_metadata(model: bytes, name: str, content: bytes) -> bytes:
    """The .tflite ``model`` with ``content`` as an additional metadata buffer ``name``.

    Raises:
        ArtifactError: ``model`` is not a TFLite flatbuffer.
    """
    try:
        return _with_new_root(model, name.encode(), content)
    except struct.error as error:
        raise ArtifactError("the model is not a complete TFLite flatbuffer; convert it again") from error


def _with_new_root(model: bytes, name: bytes, content: bytes) -> bytes:
    if model[4:8] != b"TFL3":
        raise ArtifactError("the model is not a TFLite flatbuffer: its identifier is not 'TFL3'")
    old_root = _u32(model, 0)
    old = [_field(model, old_root, field) for field in range(_MODEL_FIELDS)]
    old_buffers, old_metadata = _vector(model, old[_BUFFERS]), _vector(model, old[_METADATA])

    # Positions in the new front part; each block is 4-byte aligned.
    root = 28
    buffers = root + 4 + 4 * _MODEL_FIELDS
    metadata = buffers + 4 + 4 * (len(old_buffers) + 1)
    entry = metadata + 4 + 4 * (len(old_metadata) + 1) + 8
    name_at = entry + 12
    buffer = _aligned(name_at + 4 + len(name) + 1, 4) + 8
    data = _aligned(buffer + 8 + 4, _ALIGNMENT) - 4
    size = _aligned(data + 4 + len(content), _ALIGNMENT)

    front = bytearray(size)
    struct.pack_into("<I4s", front, 0, root, b"TFL3")
    struct.pack_into("<2H", front, 8, 4 + 2 * _MODEL_FIELDS, 4 + 4 * _MODEL_FIELDS)
    struct.pack_into("<i", front, root, root - 8)
    new = {_BUFFERS: buffers, _METADATA: metadata}
    for field, position in enumerate(old):
        slot = root + 4 + 4 * field
        target = new.get(field, position and size + position)
        if target is None:
            continue
        struct.pack_into("<H", front, 8 + 4 + 2 * field, slot - root)
        struct.pack_into("<I", front, slot, _u32(model, position) if field == 0 else target - slot)  # type: ignore[arg-type]
    _pack_vector(front, buffers, [size + position for position in old_buffers] + [buffer])
    _pack_vector(front, metadata, [size + position for position in old_metadata] + [entry])
    struct.pack_into("<4H", front, entry - 8, 8, 12, 4, 8)
    struct.pack_into("<iII", front, entry, 8, name_at - (entry + 4), len(old_buffers))
    struct.pack_into(f"<I{len(name)}s", front, name_at, len(name), name)
    struct.pack_into("<4H", front, buffer - 8, 6, 8, 4, 0)
    struct.pack_into("<iI", front, buffer, 8, data - (buffer + 4))
    struct.pack_into(f"<I{len(content)}s", front, data, len(content), content)
    return bytes(front) + model


def _aligned(position: int, to: int) -> int:
    return -(-position // to) * to


def _u32(model: bytes, position: int) -> int:
    return int(struct.unpack_from("<I", model, position)[0])


def _field(model: bytes, table: int, field: int) -> int | None:
    """Position of a table's field, or of its target (all fields of Model but field 0 are offsets), or None."""
    vtable = table - struct.unpack_from("<i", model, table)[0]
    if 4 + 2 * field >= struct.unpack_from("<H", model, vtable)[0]:
        return None
    offset = struct.unpack_from("<H", model, vtable + 4 + 2 * field)[0]
    if not offset:
        return None
    slot = int(table + offset)
    return slot if field == 0 else slot + _u32(model, slot)


def _vector(model: bytes, position: int | None) -> list[int]:
    """Positions of the tables in a vector of offsets."""
    if position is None:
        return []
    slots = range(position + 4, position + 4 + 4 * _u32(model, position), 4)
    return [slot + _u32(model, slot) for slot in slots]


def _pack_vector(front: bytearray, position: int, targets: list[int]) -> None:
    struct.pack_into("<I", front, position, len(targets))
    for index, target in enumerate(targets):
        slot = position + 4 + 4 * index
        struct.pack_into("<I", front, slot, target - slot)
