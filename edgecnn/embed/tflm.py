"""The kit for TensorFlow Lite for Microcontrollers: the model, its operators, its arena, and a self-test."""

import textwrap
from collections.abc import Sequence
from pathlib import Path

from edgecnn.embed.content import (
    Content,
    Golden,
    Values,
    ctype,
    golden,
    golden_header,
    load_model,
    names_of,
    numbers,
    template,
)
from edgecnn.formats.c99 import identifier, macro_names
from edgecnn.records import TensorSpec
from edgecnn.runtimes.tflm import aligned, arena_of
from edgecnn.tflite.graph import Graph, float_operators
from edgecnn.tflite.micro import count_variables, resolver_methods, scratch_bytes

# Margin added to the arena measured on the host: at least this share and this size.
MARGIN = 0.25
_LEAST_MARGIN = 1024
# Allowed difference of float outputs computed in float, as a share of their largest value: other processors and
# libraries sum and round in another order.
_FLOAT_TOLERANCE = 1e-4


def arena_with_margin(measured: int, scratch: int) -> int:
    """Bytes to reserve on a device for an arena of ``measured`` bytes on the host; a multiple of 16.

    ``scratch`` are the bytes that optimised kernels need and the host's do not.
    """
    return aligned(measured + max(round(MARGIN * measured), _LEAST_MARGIN, scratch))


def make(model: Path, data: str | None) -> Content:
    """The kit of the .tflite at ``model``; golden inputs come from ``data``, or are noise if it is None.

    Raises:
        ArtifactError: the model is damaged or changed.
        UnsupportedError: TFLM refuses the model, for the reasons that ``check`` lists.
        MissingExtraError: ``tflite-micro`` is not installed.
        SessionError: TFLM fails on a golden input.
    """
    loaded = load_model(model)
    measured, scratch = arena_of(loaded.graph, loaded.content), scratch_bytes(loaded.graph)
    methods = resolver_methods(loaded.graph)
    found = golden(loaded, data, loaded.graph)
    arena = arena_with_margin(measured, scratch)
    name = identifier(model.stem)
    inputs, outputs = _names("input", loaded.inputs), _names("output", loaded.outputs)
    names = {
        **names_of(loaded, name, found),
        "size": len(loaded.content),
        "bytes": numbers(loaded.content, 4),
        "count": len(methods),
        "calls": " &&\n        ".join(f"resolver.{method}() == kTfLiteOk" for method in methods),
        "operators": ", ".join(f"`{method}`" for method in methods),
        "measured": measured,
        "measured_text": f"{measured:,}",
        "arena": arena,
        "arena_text": f"{arena:,}",
        "margin_text": f"{arena - measured:,}",
        "scratch_text": f"{scratch:,}",
        **_interpreter(loaded.graph),
        **_ends(name, inputs, outputs),
        **_test(name, inputs, outputs, loaded.graph, found),
    }
    own = {"model.h", "model.cc", "tflm.h", "tflm.cc"}
    files = {f"{name}_{file}": template(f"tflm/{file}", names) for file in own}
    files |= {file: template(f"tflm/{file}", names) for file in ("self_test.cc", "Makefile", "README.md")}
    arrays = dict(zip((_golden(one) for one in (*inputs, *outputs)), (*found.inputs, *found.outputs), strict=True))
    files |= {"golden.h": golden_header(name, found, arrays), model.name: loaded.content}
    return Content(name=name, files=files, arena_bytes=arena, arena_measured_bytes=measured)


def _names(kind: str, specs: Sequence[TensorSpec]) -> dict[str, TensorSpec]:
    """Inputs or outputs by their names in functions and macros."""
    each = [kind] if len(specs) == 1 else [f"{kind}_{one}" for one in macro_names([spec.name for spec in specs])]
    return dict(zip(each, specs, strict=True))


def _golden(name: str) -> str:
    """The array of golden values of an input or output: golden_inputs, or golden_input_<name>."""
    return f"golden_{name.lower()}" if "_" in name else f"golden_{name}s"


def _interpreter(graph: Graph) -> dict[str, object]:
    """Template values for the interpreter: what it allocates from, which differs if the model has variables."""
    count = count_variables(graph)
    if not count:
        return {"includes": "", "allocator": "", "memory": "arena, sizeof(arena)"}
    return {
        "includes": '#include "tensorflow/lite/micro/micro_allocator.h"\n',
        "allocator": "    static MicroAllocator *const allocator = MicroAllocator::Create(arena, sizeof(arena));\n",
        "memory": f"allocator,\n{' ' * 37}MicroResourceVariables::Create(allocator, {count})",
    }


def _ends(name: str, inputs: dict[str, TensorSpec], outputs: dict[str, TensorSpec]) -> dict[str, object]:
    """Template values for the functions and macros of each input and output."""
    macros, declared, defined = [], [], []
    for kind, const, ends in (("input", "", inputs), ("output", "const ", outputs)):
        for number, (one, spec) in enumerate(ends.items()):
            function, macro = f"{name}_{one.lower()}", f"{name.upper()}_{one.upper()}"
            pointer = f"{const}{ctype(spec.dtype)} *"
            macros.append(f"#define {macro}_SIZE {spec.size}")
            if spec.quantization is not None:
                macros += [
                    f"#define {macro}_SCALE {spec.quantization.scale[0]:.9e}f",
                    f"#define {macro}_ZERO_POINT {spec.quantization.zero_point[0]}",
                ]
            about = f"{macro}_SIZE values."
            if kind == "input":
                about = f"Buffer for {about[:-1]}; fill it before every {name}_invoke, which may overwrite it."
            declared.append(f"/* {about} */\n{pointer}{function}(void);\n")
            defined.append(
                f"{pointer}{function}(void)\n{{\n"
                f"    return reinterpret_cast<{pointer}>(interpreter->{kind}({number})->data.data);\n}}\n"
            )
    scaled = any(spec.quantization is not None for spec in (*inputs.values(), *outputs.values()))
    return {
        "macros": "\n".join(macros),
        "declared": "\n".join(declared),
        "defined": "\n".join(defined),
        "conversion": _conversion(name.upper(), len(inputs) > 1 or len(outputs) > 1) if scaled else "",
        "about_macros": "/* real = (integer - ZERO_POINT) * SCALE */\n" if scaled else "",
    }


def _conversion(upper: str, several: bool) -> str:
    """How a README says to quantise inputs and to dequantise outputs."""
    text = (
        f"To quantise an input, compute `real / {upper}_INPUT_SCALE + {upper}_INPUT_ZERO_POINT`, round and clip. To "
        f"dequantise an output, compute `(integer - {upper}_OUTPUT_ZERO_POINT) * {upper}_OUTPUT_SCALE`."
    )
    if several:
        text += f" Each of several inputs or outputs has macros of its own, such as `{upper}_INPUT_<NAME>_SCALE`."
    return f"\n{textwrap.fill(text + ' Inputs and outputs in float have no scale.', 120)}\n"


def _test(
    name: str, inputs: dict[str, TensorSpec], outputs: dict[str, TensorSpec], graph: Graph, found: Golden
) -> dict[str, object]:
    """Template values of the self-test: how inputs are filled and outputs compared, and what equal means."""
    in_float = bool(float_operators(graph))
    fill = [f"memcpy({name}_{one.lower()}(), {_golden(one)}[i], sizeof({_golden(one)}[i]));" for one in inputs]
    tests = []
    for (one, spec), values in zip(outputs.items(), found.outputs, strict=True):
        limit = _limit(values) if in_float and spec.dtype == "float32" else "0"
        what = "output" if len(outputs) == 1 else one.replace("_", " ", 1)
        tests.append(
            f'right = same(i, "{what}", {name}_{one.lower()}(), {_golden(one)}[i], {spec.size}, {limit}) && right;'
        )
    rounding = in_float and any(spec.dtype == "float32" for spec in outputs.values())
    return {
        "fill": "\n        ".join(fill),
        "compare": "\n        ".join(tests),
        "equal": f"every output within {_FLOAT_TOLERANCE:g} of the largest" if rounding else "every output byte as",
        "as_on": "of that on the host" if rounding else "on the host",
    }


def _limit(values: Values) -> str:
    return f"{_FLOAT_TOLERANCE * float(abs(values).max()):.9e}f"
