"""The kit for browsers: the generated C as WebAssembly, a page to try it, and a self-test with TFLM's outputs."""

import base64
import json
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from edgecnn.embed import c99
from edgecnn.embed.content import Content, plain, template
from edgecnn.emulation.machine import first_error
from edgecnn.errors import EmulationError
from edgecnn.records import Provenance, TensorSpec
from edgecnn.runtimes.tflm import specs_of
from edgecnn.tflite.operators import without_float_ends

_FLAGS = (
    "--target=wasm32", "-std=c99", "-O3", "-msimd128", "-mbulk-memory", "-ffreestanding", "-nostdlib",
    "-fvisibility=hidden", "-Wl,--no-entry", "-Wl,--strip-all", "-Wl,-z,stack-size=65536",
)  # fmt: skip
_LIMIT_S = 300


def make(model: Path, data: str | None) -> Content:
    """The kit of the .tflite at ``model``; raises as ``c99.generate`` does.

    Raises:
        EmulationError: clang or its linker for WebAssembly is missing, or refuses the code.
    """
    made = c99.generate(model, data)
    about = _about(*specs_of(without_float_ends(made.model.graph)), made.model.provenance)
    about["reference"] = made.names["reference"]
    values = made.names | {
        "about": json.dumps(about),
        "wasm": _text(_compiled(made)),
        "pairs": json.dumps(
            [[_text(one.tobytes()) for one in pair] for pair in zip(made.inputs, made.outputs, strict=True)]
        ),
        "raw": "pixels of 0 to 255" if about["pixels"] else "real numbers",
    }
    names = ("README.md", "index.html", "model.js", "golden.js")
    files = {name: template(f"web/{name}", values) for name in names}
    files |= {name: plain(f"web/{name}") for name in ("page.js", "self_test.js")}
    return Content(name=made.name, files=files, arena_bytes=made.code.plan.arena_bytes)


def _compiled(made: c99.Generation) -> bytes:
    """The model as a WebAssembly module that exports its buffers, ``invoke`` and its memory."""
    missing = [tool for tool in ("clang", "wasm-ld") if shutil.which(tool) is None]
    if missing:
        raise EmulationError(f"the kit for browsers needs {' and '.join(missing)} (Debian packages: clang, lld)")
    with tempfile.TemporaryDirectory() as folder:
        for name, content in ((f"{made.name}.h", made.code.header), (f"{made.name}.c", made.code.source)):
            (Path(folder) / name).write_text(content, encoding="utf-8")
        (Path(folder) / "web.c").write_bytes(template("web/web.c", made.names | {"begin": _begin(made)}))
        command = ["clang", *_FLAGS, "-o", "model.wasm", f"{made.name}.c", "web.c"]
        try:
            done = subprocess.run(
                command, cwd=folder, capture_output=True, text=True, errors="replace", timeout=_LIMIT_S, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise EmulationError(f"clang was still compiling {made.name} after {_LIMIT_S} s") from error
        if done.returncode != 0:
            raise EmulationError(f"clang cannot compile {made.name} to WebAssembly: {first_error(done.stderr)}")
        return (Path(folder) / "model.wasm").read_bytes()


def _begin(made: c99.Generation) -> str:
    """What forgets the inputs before, in C."""
    return f"{made.name}_reset();" if made.names["reset"] else "/* the model remembers nothing */"


def _about(
    inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...], provenance: Provenance | None
) -> dict[str, Any]:
    """What model.js says of the model. ``pixels``: raw values are 0 to 255; ``ranked``: the labels compete.

    Of several inputs, it is not recorded which are raw: they are real values.
    """
    scale, offset, pixels = 1.0, 0.0, False
    if provenance is not None and len(inputs) == 1 and provenance.preprocessing.scale > 0:
        given = provenance.preprocessing
        pixels = bool(np.allclose((np.array(given.input_range) - given.offset) / given.scale, (0, 255)))
        if pixels:
            scale, offset = given.scale, given.offset
    return {
        "inputs": [_end(spec) | {"raw": {"scale": scale, "offset": offset}} for spec in inputs],
        "outputs": [_end(spec) for spec in outputs],
        "labels": provenance.labels if provenance else (),
        "ranked": provenance is not None and provenance.task == "classification",
        "threshold": provenance.threshold if provenance else 0.5,
        "pixels": pixels,
    }


def _end(spec: TensorSpec) -> dict[str, Any]:
    scale, zero = (
        (1.0, 0) if spec.quantization is None else (spec.quantization.scale[0], spec.quantization.zero_point[0])
    )
    return {
        "name": spec.name,
        "shape": spec.shape[1:],
        "size": spec.size,
        "dtype": spec.dtype,
        "scale": scale,
        "zero_point": zero,
    }


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode()
