"""Verifies that an .onnx file is complete and refers to no other file, before a runtime opens it.

Both onnx and ONNX Runtime read external data files named in a model. An untrusted model could name any file, so models
with external data are refused. Only the messages that can contain a tensor are parsed, by the field numbers of
onnx.proto and the encoding in https://protobuf.dev/programming-guides/encoding; all others are skipped by length. No
package is needed.
"""

from collections.abc import Iterator

from edgecnn.errors import ArtifactError

# message -> field number -> nested message
_MESSAGES: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse tensor"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse tensor", 23: "sparse tensor"},
    "sparse tensor": {1: "tensor", 2: "tensor"},
    "tensor": {},
}
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14
_FIXED = {1: 8, 5: 4}  # wire type -> bytes
# Nesting of graphs, as in the branches of an If; runtimes and readers walk them recursively.
_DEEPEST = 16


def verify(model: bytes, where: object) -> None:
    """Check the .onnx file ``model``; ``where`` names it in errors.

    Raises:
        ArtifactError: it is no complete protobuf, nests graphs too deeply, or has external data.
    """
    if not model:
        raise ArtifactError(f"{where} is empty; export it again")
    _Walk(model, where).message("model", 0, len(model), 0)


class _Walk:
    def __init__(self, model: bytes, where: object) -> None:
        self.model = model
        self.where = where

    def message(self, kind: str, start: int, end: int, depth: int) -> None:
        """Check the message in bytes ``start`` to ``end``; ``depth`` counts the enclosing graphs."""
        depth += kind == "graph"
        if depth > _DEEPEST:
            raise ArtifactError(
                f"{self.where} nests graphs more than {_DEEPEST} levels deep; models with so deep nesting are refused"
            )
        inner = _MESSAGES[kind]
        for number, value, begin in self.fields(start, end):
            external = number == _EXTERNAL_DATA or (number == _DATA_LOCATION and value)
            if kind == "tensor" and external:
                raise ArtifactError(
                    f"{self.where} has external data (values in other files), which is not read for safety; store the "
                    "model in one file, as with onnx.save(onnx.load(...), ...)"
                )
            if number in inner and begin is not None:
                self.message(inner[number], begin, begin + value, depth)

    def fields(self, start: int, end: int) -> Iterator[tuple[int, int, int | None]]:
        """For each field: its number, its value or length, and the start of its content (``None`` for a value)."""
        place = start
        while place < end:
            key, place = self.varint(place, end)
            number, wire = key >> 3, key & 7
            value, begin = 0, None
            if wire in _FIXED:
                place += _FIXED[wire]
            elif wire in (0, 2):
                value, place = self.varint(place, end)
                if wire == 2:
                    begin = place
                    place += value
            else:
                raise self.damaged(place)
            if place > end or not number:
                raise self.damaged(place)
            yield number, value, begin

    def varint(self, place: int, end: int) -> tuple[int, int]:
        """A variable-length integer, and the position after it."""
        value = 0
        for shift in range(0, 70, 7):
            if place >= end:
                break
            byte = self.model[place]
            place += 1
            value |= (byte & 127) << shift
            if byte < 128:
                return value, place
        raise self.damaged(place)

    def damaged(self, place: int) -> ArtifactError:
        return ArtifactError(f"{self.where} is damaged or not an ONNX file: its protobuf is invalid at byte {place}")
