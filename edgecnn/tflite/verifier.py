"""Verify that a .tflite file is a valid flatbuffer: all references stay within the file.

LiteRT does not check this, and crashes on a damaged file. Every field of every table in LiteRT's schema is checked, by
the layout in https://flatbuffers.dev/internals: a table's vtable, inline values, vectors, strings, referenced tables,
and unions by their type. References of tables point forward only, so there are no cycles.
"""

import functools
import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

from edgecnn.optional import require

# Limits of tables, and of bytes in vectors and strings: a file with more refers to the same part many times.
_MOST_TABLES = 200_000
_SHARED, _LEAST_BYTES = 4, 2**20

# Enumerations of union types; the others are named like their field.
_UNIONS = {"Details": "QuantizationDetails", "ArraySegments": "SparseIndexVector", "ArrayIndices": "SparseIndexVector"}


class FlatbufferError(ValueError):
    """The flatbuffer is invalid; the message says what and at which byte."""


class _Field(NamedTuple):
    """A field of a table: its number, name, and kind.

    ``kind`` is "value", "vector", "string", "strings", "table", "tables" or "union". ``width`` is the size in bytes of
    a value or vector element; ``table`` is the referenced table.
    """

    number: int
    name: str
    kind: str
    width: int = 4
    table: str = ""


def verify(model: bytes) -> None:
    """Check the flatbuffer ``model``, whose root is the schema's table Model.

    Raises:
        FlatbufferError: it is invalid.
    """
    _Walk(model).table("Model", 0)


class _Walk:
    def __init__(self, model: bytes) -> None:
        self.model = model
        self.tables = _MOST_TABLES
        self.bytes = _SHARED * len(model) + _LEAST_BYTES

    def table(self, name: str, slot: int) -> None:
        """Check the table referenced at ``slot``."""
        start = self.target(slot, name)
        self.tables -= 1
        if self.tables < 0:
            raise FlatbufferError(f"it has more than {_MOST_TABLES:,} tables")
        vtable = start - self.number("<i", start, name)
        vtable_size, size = self.number("<H", vtable, name), self.number("<H", vtable + 2, name)
        if vtable % 2 or vtable_size % 2 or vtable_size < 4 or vtable + vtable_size > len(self.model):
            raise FlatbufferError(f"the vtable of {name} at byte {start} is invalid")
        if size < 4 or start + size > len(self.model):
            raise FlatbufferError(f"table {name} at byte {start} is longer than the file")
        places = struct.unpack_from(f"<{vtable_size // 2}H", self.model, vtable)[2:]
        for field in _fields(name):
            place = places[field.number] if field.number < len(places) else 0
            if not place:
                continue
            width = field.width if field.kind == "value" else 4
            if place < 4 or place + width > size:
                raise FlatbufferError(f"{name}.{field.name} at byte {start} is outside its table")
            if field.kind == "union":
                kind = places[field.number - 1] and self.model[start + places[field.number - 1]]
                table = _union(field.table).get(kind)
                if table is not None:
                    self.table(table, start + place)
            elif field.kind != "value":
                self.reference(f"{name}.{field.name}", field, start + place)

    def reference(self, what: str, field: _Field, slot: int) -> None:
        if field.kind == "table":
            self.table(field.table, slot)
            return
        start = self.target(slot, what)
        count = self.number("<I", start, what)
        end = start + 4 + count * field.width
        self.bytes -= end - start
        if end + (field.kind == "string") > len(self.model):
            raise FlatbufferError(f"{what} at byte {start} is longer than the file")
        if self.bytes < 0:
            raise FlatbufferError("its vectors and strings overlap")
        if field.kind == "string" and self.model[end]:
            raise FlatbufferError(f"{what} at byte {start} is not terminated by 0")
        if field.kind == "tables":
            for each in range(start + 4, end, 4):
                self.table(field.table, each)
        if field.kind == "strings":
            for each in range(start + 4, end, 4):
                self.reference(what, _Field(0, what, "string", 1), each)

    def target(self, slot: int, what: str) -> int:
        """The target of the reference at ``slot``, checked for alignment."""
        distance = self.number("<I", slot, what)
        if not distance or (slot + distance) % 4:
            raise FlatbufferError(f"{what} has an invalid reference at byte {slot}")
        return slot + distance

    def number(self, kind: str, place: int, what: str) -> int:
        if not 0 <= place <= len(self.model) - struct.calcsize(kind):
            raise FlatbufferError(f"{what} is outside the file, at byte {place}")
        return int(struct.unpack_from(kind, self.model, place)[0])


# The schema, found by calling the generated accessors


class _Asked:
    """A stand-in for a table's memory that records the accesses of a field's accessor."""

    Pos, Bytes = 0, b""

    def __init__(self) -> None:
        self.steps: list[str] = []
        self.number = -1
        self.width = 4

    def Offset(self, place: int) -> int:  # noqa: N802
        self.number = (place - 4) // 2
        return 4

    def Get(self, flags: Any, place: int) -> int:  # noqa: N802
        self.width = flags.bytewidth
        return 0

    def Vector(self, place: int) -> int:  # noqa: N802
        self.steps.append("vector")
        return 0

    def Indirect(self, place: int) -> int:  # noqa: N802
        self.steps.append("table")
        return 0

    def String(self, place: int) -> bytes:  # noqa: N802
        self.steps.append("string")
        return b""

    def Union(self, table: Any, place: int) -> None:  # noqa: N802
        self.steps.append("union")


_KINDS = {
    (): "value",
    ("vector",): "vector",
    ("string",): "string",
    ("table",): "table",
    ("union",): "union",
    ("vector", "table"): "tables",
    ("vector", "string"): "strings",
}


@functools.cache
def _fields(table: str) -> tuple[_Field, ...]:
    return tuple(_asked(table))


def _asked(table: str) -> Iterator[_Field]:
    kind = getattr(require("ai_edge_litert.schema_py_generated"), table)
    for name, method in vars(kind).items():
        if name.startswith(("_", "GetRootAs")) or name.endswith(("Length", "AsNumpy", "IsNone", "HasIdentifier")):
            continue
        if name == "Init":
            continue
        asked, accessor = _Asked(), kind()
        accessor._tab = asked
        found = method(accessor, 0) if method.__code__.co_argcount == 2 else method(accessor)
        leads_to = _UNIONS.get(name, name) if asked.steps == ["union"] else type(found).__name__
        width = 1 if asked.steps == ["string"] else asked.width
        yield _Field(asked.number, name, _KINDS[tuple(asked.steps)], width, leads_to)


@functools.cache
def _union(enumeration: str) -> dict[int, str]:
    kinds = getattr(require("ai_edge_litert.schema_py_generated"), enumeration)
    return {number: name for name, number in vars(kinds).items() if isinstance(number, int) and number}
