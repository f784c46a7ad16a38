"""The kit for Arduino: a library with the generated C and a sketch that prints the class."""

from pathlib import Path

from edgecnn.embed.c99 import STATIC, Arena, generate
from edgecnn.embed.content import Content, template

_SKETCH = "examples/classify"


def make(model: Path, data: str | None, arena: Arena = STATIC) -> Content:
    """The kit of the .tflite at ``model``; golden inputs come from ``data``, or are noise if it is None.

    Raises:
        ArtifactError, UnsupportedError, MissingExtraError, SessionError, FitError: as ``edgecnn.embed.c99.generate``.
    """
    made = generate(model, data, arena)
    files = {
        f"src/{made.name}.h": made.code.header.encode(),
        f"src/{made.name}.c": made.code.source.encode(),
        f"{_SKETCH}/golden.h": made.header,
    }
    for file in ("library.properties", f"{_SKETCH}/classify.ino", "README.md"):
        files[file] = template(f"arduino/{file}", made.names)
    return Content(name=made.name, files=files, arena_bytes=made.code.plan.arena_bytes)
