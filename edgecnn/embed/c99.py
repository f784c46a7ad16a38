"""The kit of the generated C: ``<name>.h``, ``<name>.c``, and a self-test with TFLM's outputs."""

from pathlib import Path

import msgspec

from edgecnn.embed.content import Content, Golden, golden, golden_header, load_integer_model, names_of, template
from edgecnn.files import read_bytes
from edgecnn.formats.c99 import Generated, identifier, to_c
from edgecnn.tflite.graph import read_graph


class Generation(msgspec.Struct, frozen=True):
    """Generated code, golden inputs and outputs, and the values for templates."""

    name: str
    code: Generated
    golden: Golden
    names: dict[str, object]


def generate(model: Path, data: str | None) -> Generation:
    """Generate C from the .tflite at ``model``; golden inputs come from ``data``, or are noise if it is None.

    Raises:
        ArtifactError: it is damaged or changed, or its input or output is not an 8-bit integer.
        UnsupportedError: the C generator does not support an operator.
        MissingExtraError, SessionError: TFLM, which computes the golden outputs, is not installed or refuses the model.
    """
    loaded = load_integer_model(model)
    name, provenance = identifier(model.stem), loaded.artifact.provenance
    labels = provenance.labels if provenance else ()
    code = to_c(read_graph(read_bytes(model), model.name), name, labels=labels, provenance=provenance)
    found = golden(loaded, data)
    names = {**names_of(loaded, name, found), "arena": f"{code.plan.arena_bytes:,}"}
    return Generation(name, code, found, names)


def make(model: Path, data: str | None) -> Content:
    """The kit of the .tflite at ``model``; raises as ``generate`` does."""
    made = generate(model, data)
    files = {
        f"{made.name}.h": made.code.header.encode(),
        f"{made.name}.c": made.code.source.encode(),
        "golden.h": golden_header(made.name, made.golden),
    }
    files |= {file: template(f"c99/{file}", made.names) for file in ("self_test.c", "Makefile", "README.md")}
    return Content(name=made.name, files=files, arena_bytes=made.code.plan.arena_bytes)
