"""The kit of the generated C: ``<name>.h``, ``<name>.c``, and a self-test with TFLM's outputs."""

import logging
import tempfile
import textwrap
from collections.abc import Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from edgecnn.embed.content import (
    Content,
    Model,
    Values,
    description,
    flat,
    golden,
    golden_header,
    load_model,
    names_of,
    template,
)
from edgecnn.errors import SessionError
from edgecnn.formats.c99 import Generated, Named, identifier, several_to_c, to_c
from edgecnn.formats.c99.bands import Cut
from edgecnn.formats.c99.memory import cheapest
from edgecnn.runtimes import open_session
from edgecnn.runtimes.quantized_io import raw_of
from edgecnn.samples import parts
from edgecnn.tflite.operators import without_float_ends
from edgecnn.worker import isolated

log = logging.getLogger("edgecnn")

_ITSELF = "this code on the host, because TensorFlow Lite Micro refuses the model"


class Arena(msgspec.Struct, frozen=True):
    """What a kit's C code uses as working memory.

    If it is the ``caller``'s, the code expects it as an argument. If it would have more than ``ram`` bytes, the first
    layers run in bands of rows; if the code also ``reads``, the input is read row by row.
    """

    caller: bool = False
    ram: int | None = None
    reads: bool = False


STATIC = Arena()


class Generation(msgspec.Struct, frozen=True):
    """A model's code, its golden inputs and outputs ``(n, size)``, their file, and the values for templates.

    ``about`` describes the model for programs in other languages.
    """

    model: Model
    name: str
    code: Generated
    inputs: Values
    outputs: Values
    header: bytes
    names: dict[str, object]
    about: dict[str, Any]
    cut: Cut | None

    @property
    def named(self) -> Named:
        """The model as one of several in a source."""
        labels = self.model.provenance.labels if self.model.provenance else ()
        provenance = self.model.provenance
        return Named(graph=self.model.graph, name=self.name, labels=labels, provenance=provenance, cut=self.cut)


def generate(model: Path, data: str | None, arena: Arena = STATIC) -> Generation:
    """Generate C from the .tflite at ``model``; golden inputs come from ``data``, or are noise if it is None.

    TFLM computes the golden outputs; if it refuses the model, the generated code does, compiled on this machine.

    Raises:
        ArtifactError: it is damaged or changed.
        UnsupportedError: the C generator does not support it, for the reasons that ``check`` lists.
        MissingExtraError: TFLM is not installed.
        SessionError: TFLM refuses the model, and there is no C compiler.
        FitError: no arena is as small as ``ram``.
    """
    loaded, name, cut, code = code_of(model, arena)
    inner = without_float_ends(loaded.graph)
    try:
        found = golden(loaded, data, inner)
    except SessionError as error:
        log.warning("the golden outputs are those of the C code itself, because TFLM refuses %s: %s", model.name, error)
        found = msgspec.structs.replace(golden(loaded, data, inner, partial(_compiled, code, name)), reference=_ITSELF)
    inputs, outputs = flat(found.inputs), flat(found.outputs)
    about = description(loaded, inner) | {"name": name, "reference": found.reference}
    names = {
        **names_of(loaded, name, found),
        "in_type": f"{inputs.dtype}_t",
        "out_type": f"{outputs.dtype}_t",
        "memory": _memory(name, code),
        "arena": f"\n    static int32_t arena[{name.upper()}_ARENA_SIZE / 4 + 1];" if arena.caller else "",
        "with_arena": ", arena" if arena.caller else "",
        "raw": "pixels of 0 to 255" if about["pixels"] else "real numbers",
        "reset": f"    {name}_reset();\n" if loaded.graph.stateful else "",
        "conversion": _conversion(name, loaded.graph.stateful),
    }
    header = golden_header(name, found, {"golden_inputs": inputs, "golden_outputs": outputs})
    return Generation(loaded, name, code, inputs, outputs, header, names, about, cut)


def golden_lines(made: Generation) -> bytes:
    """The golden inputs and outputs in turn, a line of integers for each."""
    lines = [row for pair in zip(made.inputs, made.outputs, strict=True) for row in pair]
    return "".join(" ".join(map(str, row.tolist())) + "\n" for row in lines).encode()


def code_of(model: Path, arena: Arena = STATIC) -> tuple[Model, str, Cut | None, Generated]:
    """The .tflite at ``model``, its name in C, its layers in bands, and its code.

    Raises:
        ArtifactError, UnsupportedError, FitError: as ``generate``.
    """
    loaded = load_model(model)
    name, provenance = identifier(model.stem), loaded.provenance
    labels = provenance.labels if provenance else ()
    cut = None if arena.ram is None else cheapest(loaded.graph, arena.ram, reads=arena.reads)
    code = to_c(loaded.graph, name, labels=labels, caller_arena=arena.caller, provenance=provenance, cut=cut)
    return loaded, name, cut, code


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


def _memory(name: str, code: Generated) -> str:
    """What a README says about the arena."""
    size = f"{code.plan.arena_bytes:,} bytes"
    if code.caller_arena:
        text = f"The arena is yours: {size}, aligned to 4. It holds nothing between calls, so models can share it."
    else:
        text = f"The model has a static arena of {size}."
    return textwrap.fill(f"{text} The comment in `{name}.h` describes its layout.", 120)


def make_several(models: Sequence[Path], data: str | None, arena: Arena = STATIC) -> Content:
    """One kit of several .tflite files that share the kernels; raises as ``generate`` and ``several_to_c`` do."""
    made = [generate(model, data, arena) for model in models]
    code = several_to_c([one.named for one in made], caller_arena=arena.caller)
    files = {"models.c": code.source.encode()}
    rows = []
    for one, header in zip(made, code.headers, strict=True):
        test, golden_name = f"self_test_{one.name}", f"golden_{one.name}.h"
        files |= {f"{one.name}.h": header.encode(), golden_name: one.header}
        files[f"{test}.c"] = template("c99/self_test.c", one.names | {"golden_header": golden_name})
        rows.append(
            f"| `{one.names['model']}` | `{one.name}.h` | `{one.name}_invoke` | {one.code.plan.arena_bytes:,} "
            f"| `{test}.c` | `{golden_name}`: {one.names['golden']} |"
        )
    files["Makefile"] = template(
        "c99/Makefile", {"source": "models.c", "tests": " ".join(f"self_test_{one.name}" for one in made)}
    )
    files["README.md"] = template(
        "c99/several.md",
        {
            "names": " and ".join(one.name for one in made),
            "count": len(made),
            "rows": "\n".join(rows),
            "calls": "\n".join(f"    {one.name}_invoke(input, output{one.names['with_arena']});" for one in made),
            "memory": "Each arena is yours; calls one after the other can share one of the largest size."
            if arena.caller
            else f"They share a static arena of {code.arena_bytes:,} bytes: one call at a time.",
        },
    )
    return Content(name="models", files=files, arena_bytes=code.arena_bytes)


def make(model: Path, data: str | None, arena: Arena = STATIC) -> Content:
    """The kit of the .tflite at ``model``; raises as ``generate`` does."""
    made = generate(model, data, arena)
    files = {
        f"{made.name}.h": made.code.header.encode(),
        f"{made.name}.c": made.code.source.encode(),
        "golden.h": made.header,
    }
    values = made.names | {"source": f"{made.name}.c", "tests": "self_test", "golden_header": "golden.h"}
    files |= {file: template(f"c99/{file}", values) for file in ("self_test.c", "Makefile", "README.md")}
    return Content(name=made.name, files=files, arena_bytes=made.code.plan.arena_bytes)
