"""The kit for a Cortex-M: the generated C, and a test program for an emulated board, with TFLM's outputs."""

from pathlib import Path

from edgecnn.embed.c99 import STATIC, Arena, generate
from edgecnn.embed.content import Content, template
from edgecnn.emulation import kit_files, sources_of


def make(core: str, model: Path, data: str | None, arena: Arena = STATIC) -> Content:
    """The kit of the .tflite at ``model`` for ``core``; golden inputs come from ``data``, or are noise if it is None.

    Raises:
        ArtifactError, UnsupportedError, MissingExtraError, SessionError, FitError: as ``edgecnn.embed.c99.generate``.
    """
    made = generate(model, data, arena)
    inputs, outputs = made.inputs.view("int8"), made.outputs.view("int8")
    files = kit_files(sources_of(made.code, made.name), inputs, outputs, core)
    files["README.md"] = template("cortex_m/README.md", {**made.names, "core": core})
    return Content(name=made.name, files=files, arena_bytes=made.code.plan.arena_bytes)
