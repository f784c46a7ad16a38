"""The kit for Python: a package that pip compiles from the generated C; it needs only numpy."""

import io
import json
import keyword
import sys
from pathlib import Path
from typing import Any

import numpy as np

from edgecnn.embed import c99
from edgecnn.embed.content import Content, plain, template
from edgecnn.errors import ArtifactError
from edgecnn.files import sha256_bytes

_PACKAGE = ("__init__.py", "__main__.py")


def make(model: Path, data: str | None) -> Content:
    """The kit of the .tflite at ``model``; raises as ``c99.generate`` does.

    Raises:
        ArtifactError: also if Python has a module of the model's name.
    """
    made = c99.generate(model, data)
    name = made.name
    if name in sys.stdlib_module_names or name == "numpy" or keyword.iskeyword(name):
        raise ArtifactError(f"{model.name} would become the package {name}, a name that Python uses; rename the file")
    values = made.names | {
        "project": name.strip("_").replace("_", "-"),
        "digest": sha256_bytes(made.model.content)[:12],
        "arena_bytes": f"{made.code.plan.arena_bytes:,}",
        **_usage(name, made.about),
    }
    files = {file: template(f"wheel/{file}", values) for file in ("README.md", "pyproject.toml", "setup.py")}
    files |= {f"src/{name}/{file}": plain(f"wheel/package/{file}") for file in _PACKAGE}
    files |= {
        f"{name}.h": made.code.header.encode(),
        f"{name}.c": made.code.source.encode(),
        f"src/{name}/about.json": json.dumps(made.about, indent=1).encode(),
        f"src/{name}/golden.npz": _golden(made),
    }
    return Content(name=name, files=files, arena_bytes=made.code.plan.arena_bytes)


def _golden(made: c99.Generation) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, inputs=made.inputs, outputs=made.outputs)
    return buffer.getvalue()


def _usage(name: str, about: dict[str, Any]) -> dict[str, str]:
    """What the README says of the arguments and of the result."""
    inputs, outputs = about["inputs"], about["outputs"]
    several = f" The model takes {len(inputs)} of them: `predict(*arrays)`." if len(inputs) > 1 else ""
    if len(outputs) > 1:
        several += f" It returns a tuple of {len(outputs)} arrays."
    meaning = ""
    if about["ranked"] and len(outputs) == 1:
        meaning = f"The class is `{name}.labels[outputs[0].argmax()]`.\n"
        if outputs[0]["size"] == 1:
            meaning = f"The class is `{name}.labels[int(outputs[0, 0] > {about['threshold']:g})]`.\n"
    return {
        "shape": ", ".join(map(str, inputs[0]["shape"])),
        "several": several,
        "meaning": meaning,
        "state": f" The model remembers earlier inputs; `{name}.reset()` begins again." if about["stateful"] else "",
    }
