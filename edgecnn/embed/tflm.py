"""The kit for TensorFlow Lite for Microcontrollers: the model, its operators, its arena, and a self-test."""

from pathlib import Path

from edgecnn.embed.content import (
    Content,
    IntegerModel,
    golden,
    golden_header,
    load_integer_model,
    names_of,
    numbers,
    template,
)
from edgecnn.files import read_bytes
from edgecnn.formats.c99 import identifier, macro_names
from edgecnn.runtimes.tflm import aligned, arena_bytes
from edgecnn.tflite.graph import read_graph
from edgecnn.tflite.micro import resolver_methods

# Margin added to the arena measured on the host. A device's pointers are smaller, but optimised kernels may need
# scratch memory that portable kernels do not: at most 12.5 % so far (DS-CNN on a Cortex-M55 with CMSIS-NN). The margin
# is twice that, and at least a kilobyte.
MARGIN = 0.25
_LEAST_MARGIN = 1024


def arena_with_margin(measured: int) -> int:
    """Bytes to reserve on a device for an arena of ``measured`` bytes on the host; a multiple of 16."""
    return aligned(measured + max(round(MARGIN * measured), _LEAST_MARGIN))


def make(model: Path, data: str | None) -> Content:
    """The kit of the .tflite at ``model``; golden inputs come from ``data``, or are noise if it is None.

    Raises:
        ArtifactError: the model is damaged or changed, or its input or output is not an 8-bit integer.
        UnsupportedError: TFLM has no kernel for an operator.
        MissingExtraError: ``tflite-micro`` is not installed.
        SessionError: TFLM refuses the model.
    """
    loaded = load_integer_model(model)
    content = read_bytes(model)
    methods = resolver_methods(read_graph(content, model.name))
    found = golden(loaded, data)
    measured = arena_bytes(content)
    arena = arena_with_margin(measured)
    name = identifier(model.stem)
    names = {
        **names_of(loaded, name, found),
        "size": len(content),
        "bytes": numbers(content, 4),
        "count": len(methods),
        "calls": " &&\n        ".join(f"resolver.{method}() == kTfLiteOk" for method in methods),
        "operators": ", ".join(f"`{method}`" for method in methods),
        "measured": measured,
        "measured_text": f"{measured:,}",
        "arena": arena,
        "arena_text": f"{arena:,}",
        "margin": f"{100 * MARGIN:.0f} %",
        **_ends(loaded, name),
    }
    own = {"model.h", "model.cc", "tflm.h", "tflm.cc"}
    files = {f"{name}_{file}": template(f"tflm/{file}", names) for file in own}
    files |= {file: template(f"tflm/{file}", names) for file in ("self_test.cc", "Makefile", "README.md")}
    files |= {"golden.h": golden_header(name, found), model.name: content}
    return Content(name=name, files=files, arena_bytes=arena, arena_measured_bytes=measured)


def _ends(model: IntegerModel, name: str) -> dict[str, object]:
    """Template values for the functions and macros of each input and output."""
    found: dict[str, list[str]] = {key: [] for key in ("macros", "declared", "defined", "fill", "collect")}
    for kind, const, specs in (("input", "", model.artifact.inputs), ("output", "const ", model.artifact.outputs)):
        names = [kind] if len(specs) == 1 else [f"{kind}_{one}" for one in macro_names([spec.name for spec in specs])]
        place = 0
        for number, (one, spec) in enumerate(zip(names, specs, strict=True)):
            assert spec.quantization is not None  # see load_integer_model
            function, macro, size = f"{name}_{one.lower()}", f"{name.upper()}_{one.upper()}", spec.size
            pointer = f"{const}{spec.dtype}_t *"
            found["macros"] += [
                f"#define {macro}_SIZE {size}",
                f"#define {macro}_SCALE {spec.quantization.scale[0]:.9e}f",
                f"#define {macro}_ZERO_POINT {spec.quantization.zero_point[0]}",
            ]
            what = f"Buffer for {macro}_SIZE integers; fill it before every {name}_invoke, which may overwrite it."
            about = what if kind == "input" else f"{macro}_SIZE integers."
            found["declared"].append(f"/* {about} */\n{pointer}{function}(void);\n")
            found["defined"].append(
                f"{pointer}{function}(void)\n{{\n"
                f"    return reinterpret_cast<{pointer}>(interpreter->{kind}({number})->data.data);\n}}\n"
            )
            if kind == "input":
                found["fill"].append(f"memcpy({function}(), golden_inputs[i] + {place}, {size});")
            else:
                found["collect"].append(f"memcpy(outputs + {place}, {function}(), {size});")
            place += size
    joints = {"declared": "\n", "defined": "\n", "macros": "\n"}
    return {key: joints.get(key, "\n        ").join(lines) for key, lines in found.items()}
