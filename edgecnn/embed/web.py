"""The kit for browsers: the generated C as WebAssembly, a page to try it, and a self-test with TFLM's outputs."""

import base64
import json
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import msgspec

from edgecnn.embed import c99
from edgecnn.embed.content import Content, Model, description, plain, quoted, reset_call, template
from edgecnn.emulation.machine import first_error
from edgecnn.errors import EmulationError
from edgecnn.formats.c99 import Generated
from edgecnn.records import TensorSpec
from edgecnn.runtimes.tflm import specs_of
from edgecnn.tflite.operators import without_float_ends

_FLAGS = (
    "--target=wasm32", "-std=c99", "-O3", "-msimd128", "-mbulk-memory", "-ffreestanding", "-nostdlib",
    "-fvisibility=hidden", "-Wl,--no-entry", "-Wl,--strip-all", "-Wl,-z,stack-size=65536",
)  # fmt: skip
_LIMIT_S = 300


class Script(msgspec.Struct, frozen=True):
    """The file model.js, which may stand between <script> and </script>, and the model's inputs and outputs in it.

    ``pixels``: its raw values are those of 8-bit images.
    """

    content: bytes
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    pixels: bool


def make(model: Path, data: str | None) -> Content:
    """The kit of the .tflite at ``model``; raises as ``c99.generate`` and ``script``."""
    made = c99.generate(model, data)
    found = _script(made.model, made.name, made.code)
    pairs = [[_text(one.tobytes()) for one in pair] for pair in zip(made.inputs, made.outputs, strict=True)]
    values = made.names | {
        "golden_js": json_in_script({"reference": made.names["reference"], "pairs": pairs}),
    }
    files = {name: template(f"web/{name}", values) for name in ("README.md", "index.html", "golden.js")}
    files |= {name: plain(f"web/{name}") for name in ("draw.js", "page.js", "self_test.js")}
    files["model.js"] = found.content
    return Content(name=made.name, files=files, arena_bytes=made.code.plan.arena_bytes)


def script(model: Path) -> Script:
    """The file model.js of the .tflite at ``model``.

    Raises:
        ArtifactError, UnsupportedError: as ``c99.code_of``.
        EmulationError: clang or its linker for WebAssembly is missing, or refuses the code.
    """
    loaded, name, _, code = c99.code_of(model)
    return _script(loaded, name, code)


def json_in_script(value: Any) -> str:
    """``value`` as JSON in a script, which no text in it can end."""
    return json.dumps(value).replace("<", "\\u003c")


def _script(model: Model, name: str, code: Generated) -> Script:
    inner = without_float_ends(model.graph)
    inputs, outputs = specs_of(inner)
    about = description(model, inner)
    types = {"in_type": f"{inputs[0].dtype}_t", "out_type": f"{outputs[0].dtype}_t"}
    ends = {"name": name, "NAME": name.upper(), "begin": reset_call(name, model), **types}
    wasm = _compiled(name, code, template("web/web.c", ends))
    values = {"model": quoted(model.path.name), "about": json_in_script(about), "wasm": _text(wasm)}
    return Script(template("web/model.js", values), inputs, outputs, about["pixels"])


def _compiled(name: str, code: Generated, ends: bytes) -> bytes:
    """The model as a WebAssembly module that exports what is in ``ends``, and its memory."""
    missing = [tool for tool in ("clang", "wasm-ld") if shutil.which(tool) is None]
    if missing:
        raise EmulationError(f"WebAssembly needs {' and '.join(missing)} (Debian packages: clang, lld)")
    with tempfile.TemporaryDirectory() as folder:
        for file, content in ((f"{name}.h", code.header), (f"{name}.c", code.source)):
            (Path(folder) / file).write_text(content, encoding="utf-8")
        (Path(folder) / "web.c").write_bytes(ends)
        command = ["clang", *_FLAGS, "-o", "model.wasm", f"{name}.c", "web.c"]
        try:
            done = subprocess.run(
                command, cwd=folder, capture_output=True, text=True, errors="replace", timeout=_LIMIT_S, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise EmulationError(f"clang was still compiling {name} after {_LIMIT_S} s") from error
        if done.returncode != 0:
            raise EmulationError(f"clang cannot compile {name} to WebAssembly: {first_error(done.stderr)}")
        return (Path(folder) / "model.wasm").read_bytes()


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode()
