"""The kit of the generated C: ``<name>.h``, ``<name>.c``, and a self-test with TFLM's outputs."""

import logging
import tempfile
import textwrap
from contextlib import closing
from functools import partial
from pathlib import Path

import msgspec

from edgecnn.embed.content import Content, Model, Values, flat, golden, golden_header, load_model, names_of, template
from edgecnn.errors import SessionError
from edgecnn.formats.c99 import Generated, identifier, to_c
from edgecnn.formats.c99.memory import cheapest
from edgecnn.runtimes import open_session
from edgecnn.runtimes.quantized_io import raw_of
from edgecnn.samples import parts
from edgecnn.tflite.operators import without_float_ends
from edgecnn.worker import isolated

log = logging.getLogger("edgecnn")

_ITSELF = "this code on the host, because TensorFlow Lite Micro refuses the model"


class Generation(msgspec.Struct, frozen=True):
    """A model's code, its golden inputs and outputs ``(n, size)``, their file, and the values for templates."""

    model: Model
    name: str
    code: Generated
    inputs: Values
    outputs: Values
    header: bytes
    names: dict[str, object]


def generate(model: Path, data: str | None, ram: int | None = None, reads: bool = False) -> Generation:
    """Generate C from the .tflite at ``model``; golden inputs come from ``data``, or are noise if it is None.

    TFLM computes the golden outputs; if it refuses the model, the generated code does, compiled on this machine. With
    ``ram``, the first layers run in bands of rows if the arena would otherwise have more bytes; with ``reads`` too, the
    input is read row by row.

    Raises:
        ArtifactError: it is damaged or changed.
        UnsupportedError: the C generator does not support it, for the reasons that ``check`` lists.
        MissingExtraError: TFLM is not installed.
        SessionError: TFLM refuses the model, and there is no C compiler.
        FitError: no arena is as small as ``ram``.
    """
    loaded = load_model(model)
    name, provenance = identifier(model.stem), loaded.provenance
    labels = provenance.labels if provenance else ()
    cut = None if ram is None else cheapest(loaded.graph, ram, reads=reads)
    code = to_c(loaded.graph, name, labels=labels, provenance=provenance, cut=cut)
    inner = without_float_ends(loaded.graph)
    try:
        found = golden(loaded, data, inner)
    except SessionError as error:
        log.warning("the golden outputs are those of the C code itself, because TFLM refuses %s: %s", model.name, error)
        found = msgspec.structs.replace(golden(loaded, data, inner, partial(_compiled, code, name)), reference=_ITSELF)
    inputs, outputs = flat(found.inputs), flat(found.outputs)
    names = {
        **names_of(loaded, name, found),
        "in_type": f"{inputs.dtype}_t",
        "out_type": f"{outputs.dtype}_t",
        "arena": f"{code.plan.arena_bytes:,}",
        "reset": f"    {name}_reset();\n" if loaded.graph.stateful else "",
        "conversion": _conversion(name, loaded.graph.stateful),
    }
    header = golden_header(name, found, {"golden_inputs": inputs, "golden_outputs": outputs})
    return Generation(loaded, name, code, inputs, outputs, header, names)


def _compiled(code: Generated, name: str, samples: list[list[Values]]) -> list[list[Values]]:
    """Outputs of the generated code on this machine."""
    return isolated(_outputs, code, name, samples, doing="running the generated C")


def _outputs(code: Generated, name: str, samples: list[list[Values]]) -> list[list[Values]]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{name}.c"
        path.with_suffix(".h").write_text(code.header, encoding="utf-8")
        path.write_text(code.source, encoding="utf-8")
        with closing(open_session(path)) as session:
            found = []
            for sample in samples:
                session.put(raw_of(sample, session.inputs))
                session.invoke()
                found.append([value.copy() for value in parts(session.take())])
            return found


def _conversion(name: str, stateful: bool) -> str:
    """How a README says to quantise inputs, to dequantise outputs, and to begin again."""
    text = (
        f"`{name}_quantize(real, input)` makes the input from real numbers, `{name}_dequantize(output, real)` makes "
        "real numbers of the output; both are in the header and cost nothing if they are not used."
    )
    if stateful:
        text += f" Each output depends on earlier inputs, which the model remembers; `{name}_reset()` begins again."
    return textwrap.fill(text, 120)


def make(model: Path, data: str | None, ram: int | None = None, reads: bool = False) -> Content:
    """The kit of the .tflite at ``model``; raises as ``generate`` does."""
    made = generate(model, data, ram, reads)
    files = {
        f"{made.name}.h": made.code.header.encode(),
        f"{made.name}.c": made.code.source.encode(),
        "golden.h": made.header,
    }
    files |= {file: template(f"c99/{file}", made.names) for file in ("self_test.c", "Makefile", "README.md")}
    return Content(name=made.name, files=files, arena_bytes=made.code.plan.arena_bytes)
