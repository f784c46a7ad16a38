"""An int8 .tflite as stand-alone C99: ``<name>.h`` and ``<name>.c``, without a library, malloc or an interpreter.

The generated code has the same output bytes as TFLite Micro; docs/c99.md describes how, and how this is tested. A
comment in the .c file has its provenance, input, output and memory plan as JSON after ``edgecnn:``.
"""

import math
import re
from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from edgecnn.errors import ConfigError, UnsupportedError
from edgecnn.formats import tflite
from edgecnn.formats.c99 import kernels, lower, memory
from edgecnn.formats.c99.bands import Call, Cut, Move, Read, Stage
from edgecnn.formats.c99.program import Constant, End, Layer, Program, State, at
from edgecnn.formats.source import Source
from edgecnn.quantization.schemes import SCHEMES, is_static_int8
from edgecnn.records import GeneratedC, MemoryPlan, Provenance, Quantization, Record, Scheme, TensorSpec
from edgecnn.samples import unlike
from edgecnn.tflite.graph import Graph, read_graph

_ONLY_INT8 = (
    f"C is exported with the schemes {' and '.join(one.name for one in SCHEMES.values() if is_static_int8(one))} only; "
    "edgecnn embed writes C of an int16x8 .tflite too"
)
# C99, later standards, and C++, because the header is for both
_RESERVED_WORDS = """
auto break case char const continue default do double else enum extern float for goto if inline int long register
restrict return short signed sizeof static struct switch typedef union unsigned void volatile while alignas alignof
bool constexpr false nullptr static_assert thread_local true typeof typeof_unqual asm and and_eq bitand bitor catch
char8_t char16_t char32_t class co_await co_return co_yield compl concept const_cast consteval constinit decltype
delete dynamic_cast explicit export friend mutable namespace new noexcept not not_eq operator or or_eq private
protected public reinterpret_cast requires static_cast template this throw try typeid typename using virtual wchar_t
xor xor_eq main
"""
_RESERVED = frozenset(_RESERVED_WORDS.split())
_LONGEST = 48
_FILE = "edgecnn: "
_BRACES = str.maketrans("[]", "{}")


class Generated(Record, frozen=True):
    """The two files, the plan of the arena, and whether the caller gives the arena."""

    header: str
    source: str
    plan: MemoryPlan
    caller_arena: bool


class Named(msgspec.Struct, frozen=True, kw_only=True):
    """A graph to generate, with its name, labels, provenance and cut as in :func:`to_c`."""

    graph: Graph
    name: str
    labels: tuple[str, ...] = ()
    provenance: Provenance | None = None
    cut: Cut | None = None


class Several(Record, frozen=True):
    """Several models in one source, and the header ``<name>.h`` of each; ``arena_bytes`` is what the largest needs."""

    headers: tuple[str, ...]
    source: str
    arena_bytes: int


class _Part(msgspec.Struct, frozen=True, kw_only=True):
    """A model in a source; ``places`` are offsets in the arena, ``prefix`` begins the names of static functions."""

    program: Program
    places: dict[int, int]
    metadata: GeneratedC
    labels: tuple[str, ...]
    header_name: str
    prefix: str


def to_c(
    graph: Graph,
    name: str,
    *,
    labels: Sequence[str] = (),
    caller_arena: bool = False,
    header_name: str | None = None,
    provenance: Provenance | None = None,
    cut: Cut | None = None,
) -> Generated:
    """Generate C99 code that computes the int8 ``graph``.

    Args:
        graph: as read from a .tflite file, with integer input and output (or float32 that is quantised at once:
            then the C code uses the integers). A dynamic batch becomes 1.
        name: prefix of all public names, such as "mnist_cnn" for ``mnist_cnn_invoke``.
        labels: names of the classes, written as ``<name>_labels``.
        caller_arena: whether ``<name>_invoke`` accepts the arena as a third argument; by default it is static.
        header_name: name of the included header, by default ``<name>.h``.
        provenance: written to a comment of the source.
        cut: which layers run in bands of rows, as ``memory.cheapest`` finds it for a size of the arena.

    Raises:
        ConfigError: ``name`` is not an identifier, or reserved in C or C++.
        UnsupportedError: an operator, type or option is not supported in C; the message has its position.
        ArtifactError: the graph is damaged.
    """
    named = Named(graph=graph, name=name, labels=tuple(labels), provenance=provenance, cut=cut)
    part = _part(named, header_name or f"{name}.h", "", caller_arena)
    return Generated(
        header=_header(part, ()), source=_source([part]), plan=part.metadata.memory, caller_arena=caller_arena
    )


def several_to_c(models: Sequence[Named], *, caller_arena: bool = False) -> Several:
    """Generate one C99 source with all ``models``, which share the kernels and a static arena.

    ``caller_arena`` and the errors are as in :func:`to_c`; a ConfigError is also raised for names that differ only in
    case, because their macros are equal.
    """
    names = [model.name for model in models]
    for name in names:
        if [other.upper() for other in names].count(name.upper()) > 1:
            raise ConfigError(f"two models would be called {name!r} in C; rename one of the files")
    parts = [_part(model, f"{model.name}.h", f"{model.name}_", caller_arena) for model in models]
    return Several(
        headers=tuple(_header(part, [name for name in names if name != part.metadata.name]) for part in parts),
        source=_source(parts),
        arena_bytes=_arena_bytes(parts),
    )


def _part(model: Named, header_name: str, prefix: str, caller_arena: bool) -> _Part:
    _check_name(model.name)
    if not header_name.isprintable() or set(header_name) & set('"\\') or "??" in header_name:
        raise ConfigError(f"{header_name!r} cannot be included in C; give the model a file name of letters and digits")
    program = lower.lower(model.graph, prefix, model.cut)
    plan, places = memory.planned(program)
    inputs, outputs = _specs(program.inputs, "input"), _specs(program.outputs, "output")
    metadata = GeneratedC(
        name=model.name,
        input=inputs[0],
        output=outputs[0],
        more_inputs=inputs[1:],
        more_outputs=outputs[1:],
        memory=plan,
        caller_arena=caller_arena,
        provenance=model.provenance,
    )
    return _Part(
        program=program, places=places, metadata=metadata, labels=model.labels, header_name=header_name, prefix=prefix
    )


def _arena_bytes(parts: Sequence[_Part]) -> int:
    return max(part.metadata.memory.arena_bytes for part in parts)


def convert(source: Source, scheme: Scheme) -> bytes:
    """The int8 .tflite file to generate the C code from.

    Raises:
        UnsupportedError: the scheme is not static int8, or layers of the model compute in float.
    """
    if not is_static_int8(scheme):
        raise UnsupportedError(_ONLY_INT8)
    model = tflite.convert(source, scheme)
    if floats := tflite.layers_in_float(model, source):
        raise UnsupportedError(
            f"generated C computes in int8 only, and these have no int8 kernel: {', '.join(floats)}; replace the "
            "layers, or use the .tflite file"
        )
    return model


def with_provenance(model: bytes, provenance: Provenance) -> bytes:
    """The .c file of an int8 .tflite ``model``."""
    return _generated(model, provenance).source.encode()


def header(model: bytes, provenance: Provenance) -> bytes:
    """The .h file of an int8 .tflite ``model``."""
    return _generated(model, provenance).header.encode()


def identifier(name: str) -> str:
    """``name`` as a C identifier: letters, digits and underscores, not reserved."""
    made = re.sub(r"[^A-Za-z0-9_]", "_", name)[:_LONGEST]
    return made if _problem(made) is None else f"model_{made}"[:_LONGEST]


def macro_names(tensors: Sequence[str]) -> list[str]:
    """The names of several inputs or outputs as parts of the names of macros."""
    return unlike([re.sub(r"[^A-Z0-9]+", "_", name.upper()).strip("_")[:_LONGEST] or "TENSOR" for name in tensors])


def _generated(model: bytes, provenance: Provenance) -> Generated:
    stem = f"{provenance.model}-{provenance.scheme}"
    graph = read_graph(model, f"the {provenance.scheme} .tflite file")
    return to_c(graph, identifier(stem), labels=provenance.labels, header_name=f"{stem}.h", provenance=provenance)


def _problem(name: str) -> str | None:
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name):
        return "it must begin with a letter and contain only letters, digits and underscores"
    if name in _RESERVED:
        return "it is reserved in C or C++"
    if len(name) > _LONGEST:
        return f"it is longer than {_LONGEST} characters"
    return None


def _check_name(name: str) -> None:
    problem = _problem(name)
    if problem is not None:
        raise ConfigError(f"{name!r} cannot be a name in C: {problem}; try {identifier(name)!r}")


def _specs(ends: Sequence[End], kind: str) -> tuple[TensorSpec, ...]:
    names = [kind] if len(ends) == 1 else unlike([end.tensor.name for end in ends])
    return tuple(_spec(end, name) for end, name in zip(ends, names, strict=True))


def _spec(end: End, name: str) -> TensorSpec:
    tensor = end.tensor
    return TensorSpec(
        name=name,
        shape=end.shape,
        dtype=tensor.dtype,
        layout="NHWC" if len(end.shape) == 4 else "NC",
        quantization=Quantization(scale=(float(tensor.scale[0]),), zero_point=(int(tensor.zero_point[0]),)),
    )


# The text of the files


def _header(part: _Part, others: Sequence[str]) -> str:
    """The header of a model whose source also has the models ``others``."""
    program, name, plan, labels = part.program, part.metadata.name, part.metadata.memory, part.labels
    upper, caller_arena = name.upper(), part.metadata.caller_arena
    shared = f", shared with {', '.join(others)}" if others else ""
    lines = [
        f"/* {name}: generated by edgecnn, do not edit.",
        "",
        *_plan_lines(plan),
        "*/",
        f"#ifndef {upper}_H",
        f"#define {upper}_H",
        "",
        "#include <stdint.h>",
        "",
        "#ifdef __cplusplus",
        'extern "C" {',
        "#endif",
        "",
        "/* real = (integer - ZERO_POINT) * SCALE */",
    ]
    for kind, ends in (("INPUT", program.inputs), ("OUTPUT", program.outputs)):
        if len(ends) == 1:
            lines += _end_lines(f"{upper}_{kind}", ends[0])
            continue
        each = macro_names([end.tensor.name for end in ends])
        total = sum(math.prod(end.shape) for end in ends)
        lines += [
            f"/* {', '.join(each)}: one after the other, each at its OFFSET. */",
            f"#define {upper}_{kind}_SIZE {total}",
        ]
        for name_of_end, end in zip(each, ends, strict=True):
            prefix = f"{upper}_{kind}_{name_of_end}"
            lines += [f"#define {prefix}_OFFSET {end.offset}", *_end_lines(prefix, end)]
    lines += [f"#define {upper}_ARENA_SIZE {plan.arena_bytes}", ""]
    if labels:
        lines += [
            f"#define {upper}_LABELS {len(labels)}",
            f"extern const char *const {name}_labels[{len(labels)}];",
            "",
        ]
    lines += [
        "/* Runs the model once: reads INPUT_SIZE integers, writes OUTPUT_SIZE. The two must not overlap.",
        "   The arena is ARENA_SIZE bytes, aligned to 4, and holds nothing between calls. */"
        if caller_arena
        else f"   Its arena is static{shared}: one call at a time. */",
        f"{_signature(program, name, caller_arena)};",
        "",
        *_rows_lines(program, name, caller_arena),
        *_state_lines(program, name),
        *_conversions(program, name),
        "#ifdef __cplusplus",
        "}",
        "#endif",
        "",
        "#endif",
    ]
    return "\n".join(lines) + "\n"


def _reads(program: Program) -> bool:
    """Whether the input is read row by row."""
    return program.stage is not None and program.stage.cut.reads


def _rows_lines(program: Program, name: str, caller_arena: bool) -> list[str]:
    if not _reads(program):
        return []
    return [
        f"/* As {name}_invoke, but the input need not be in memory: when its rows are needed, `read` is called to",
        "   store `rows` of them, from number `row` on. Each is read once, in order. `context` is passed on. */",
        f"typedef void {name}_read(void *context, int32_t row, int32_t rows, {program.in_type}_t *to);",
        f"{_rows_signature(program, name, caller_arena)};",
        "",
    ]


def _state_lines(program: Program, name: str) -> list[str]:
    if not program.states:
        return []
    return [
        "/* Makes the next call begin with the model's initial state, as the first one does. The model keeps",
        f"   {program.state_bytes} bytes of state between calls. */",
        f"void {name}_reset(void);",
        "",
    ]


def _conversions(program: Program, name: str) -> list[str]:
    """Inline functions that make inputs from real numbers, and real numbers of outputs, as TFLite Micro does."""
    low, high = np.iinfo(program.in_type).min, np.iinfo(program.in_type).max
    return [
        "/* steps of the input's scale from zero, rounded to nearest, halves away from zero, and clipped */",
        f"static inline {program.in_type}_t {name}_clipped(float steps, int32_t zero)",
        "{",
        f"    const int32_t low = {low} - zero, high = {high} - zero;",
        "    int32_t whole = low; /* also of NaN */",
        "    if (steps > (float)low) {",
        "        steps = (steps < (float)high) ? steps : (float)high;",
        "        whole = (int32_t)steps;",
        "        steps -= (float)whole;",
        "        if (steps >= 0.5f) {",
        "            whole++;",
        "        }",
        "        if (steps <= -0.5f) {",
        "            whole--;",
        "        }",
        "    }",
        "    whole += zero;",
        f"    return ({program.in_type}_t)whole;",
        "}",
        "",
        "/* Makes the input from INPUT_SIZE real numbers. */",
        f"static inline void {name}_quantize(const float *real, {program.in_type}_t *input)",
        "{",
        "    int32_t i;",
        *_each(program.inputs, f"{name.upper()}_INPUT", f"input[@] = {name}_clipped(real[@] / #_SCALE, #_ZERO_POINT);"),
        "}",
        "",
        "/* Makes OUTPUT_SIZE real numbers of the output. */",
        f"static inline void {name}_dequantize(const {program.out_type}_t *output, float *real)",
        "{",
        "    int32_t i;",
        *_each(
            program.outputs,
            f"{name.upper()}_OUTPUT",
            "const int32_t steps = output[@] - #_ZERO_POINT;",
            "real[@] = (float)steps * #_SCALE;",
        ),
        "}",
        "",
    ]


def _each(ends: Sequence[End], prefix: str, *statements: str) -> list[str]:
    """Loops over the values of all ends; @ in ``statements`` is a value's place, # the prefix of the end's macros."""
    if len(ends) == 1:
        pairs = [(prefix, "i")]
    else:
        each = [f"{prefix}_{name}" for name in macro_names([end.tensor.name for end in ends])]
        pairs = [(own, f"{own}_OFFSET + i") for own in each]
    return [
        line
        for own, place in pairs
        for line in (
            f"    for (i = 0; i < {own}_SIZE; i++) {{",
            *(f"        {statement.replace('@', place).replace('#', own)}" for statement in statements),
            "    }",
        )
    ]


def _end_lines(prefix: str, end: End) -> list[str]:
    return [
        f"#define {prefix}_SIZE {math.prod(end.shape)} /* {' x '.join(map(str, end.shape))} */",
        *(f"#define {prefix}_DIM_{axis} {size}" for axis, size in enumerate(end.shape)),
        f"#define {prefix}_SCALE {_float(end.tensor.scale[0])}",
        f"#define {prefix}_ZERO_POINT {int(end.tensor.zero_point[0])}",
        "",
    ]


def _plan_lines(plan: MemoryPlan) -> list[str]:
    lines = [f"   Memory: an arena of {plan.arena_bytes} bytes; input and output are the caller's."]
    if plan.blocks:
        lines += ["", "     offset    bytes  layers   value"]
    for block in plan.blocks:
        layers = f"{block.first}-{block.last}" if block.last > block.first else f"{block.first}"
        lines.append(f"   {block.offset:8} {block.bytes:8}  {layers:8} {block.name}")
    return lines


def _source(parts: Sequence[_Part]) -> str:
    layers = [layer for part in parts for layer in part.program.layers]
    states = [state for part in parts for state in part.program.states]
    wanted = {kernel for layer in layers for kernel in layer.kernels}
    wanted |= {_begin(state, "")[0] for state in states}
    stages = [part.program.stage for part in parts if part.program.stage is not None]
    if any(stage.moved or stage.cut.reads for stage in stages):
        wanted.add("copy_rows")
    arena_bytes = _arena_bytes(parts)
    texts = [
        f"/* {part.metadata.name}: generated by edgecnn, do not edit.\n\n   {_FILE}{_ascii_json(part.metadata)}\n*/\n"
        for part in parts
    ]
    texts.append("".join(f'#include "{part.header_name}"\n' for part in parts))
    texts.append(kernels.code(wanted, _variants(layers)))
    if arena_bytes and not parts[0].metadata.caller_arena:
        members = f"    int32_t alignment;\n    int8_t bytes[{arena_bytes}];\n"
        texts.append(f"EDGECNN_ARENA static union {{\n{members}}} arena;\n")
    for part in parts:
        program, name = part.program, part.metadata.name
        if program.states:
            texts.append(_state(program, name, part.prefix))
        texts += [_layer(layer) for layer in program.layers]
        if part.labels:
            items = ", ".join(f'"{_escaped(label)}"' for label in part.labels)
            texts.append(f"const char *const {name}_labels[{len(part.labels)}] = {{{items}}};\n")
        texts.append(_invoke(part))
    return "\n".join(texts)


def _state(program: Program, name: str, prefix: str) -> str:
    """The bytes that are kept between calls, and the functions that set them."""
    initial = [
        _constant(Constant(name=f"{prefix}initial_{state.offset}", values=state.initial))
        for state in program.states
        if len(set(state.initial.tolist())) > 1
    ]
    calls = "".join(f"    {_begin(state, prefix)[1]};\n" for state in program.states)
    return (
        f"static int8_t ALIGNED {prefix}state[{program.state_bytes}], {prefix}begun;\n{''.join(initial)}"
        f"static void {prefix}begin(void)\n{{\n{calls}    {prefix}begun = 1;\n}}\n\n"
        f"void {name}_reset(void)\n{{\n    {prefix}begun = 0;\n}}\n"
    )


def _begin(state: State, prefix: str) -> tuple[str, str]:
    """The kernel that sets a state's initial values, and its call."""
    size, place = state.initial.nbytes, at(f"{prefix}state", state.offset)
    if len(set(state.initial.tolist())) > 1:
        return "copy_rows", f"copy_rows({prefix}initial_{state.offset}, {place}, 1, {size}, {size})"
    return "fill_8", f"fill_8({state.initial[0]}, {place}, {size})"


def _invoke(part: _Part) -> str:
    program, prefix, places = part.program, part.prefix, part.places
    caller_arena = part.metadata.caller_arena
    reads = _reads(program)
    signature = _rows_signature if reads else _signature
    lines = [signature(program, part.metadata.name, caller_arena), "{"]
    if part.metadata.memory.arena_bytes:
        lines.append(f"    int8_t *const a = {'(int8_t *)arena' if caller_arena else 'arena.bytes'};")
    elif caller_arena:
        lines.append("    (void)arena;")
    if program.states:
        lines += [f"    if ({prefix}begun == 0) {{", f"        {prefix}begin();", "    }"]
    named = {end.value: _buffer("output", "int8_t *", program.out_type, end) for end in program.outputs}
    if not reads:
        named |= {end.value: _buffer("input", "const int8_t *", program.in_type, end) for end in program.inputs}
    named |= {state.value: at(f"{prefix}state", state.offset) for state in program.states}
    named |= {value: at("a", offset) for value, offset in places.items() if value >= 0}
    scratch = {
        layer.output: [f"(int16_t *)(void *)({at('a', places[-1 - place])})"] if layer.scratch else []
        for place, layer in enumerate(program.layers)
    }
    if program.stage is not None:
        lines += _steps(program, program.stage, named, scratch)
    for layer in program.layers:
        if not layer.banded:
            arguments = [*(named[value] for value in (*layer.inputs, layer.output)), *scratch[layer.output]]
            lines.append(f"    {layer.name}({', '.join(arguments)});")
    return "\n".join([*lines, "}", *(_from_memory(part) if reads else ())]) + "\n"


def _from_memory(part: _Part) -> list[str]:
    """The function for an input in memory, if it is otherwise read row by row."""
    program, name, caller_arena = part.program, part.metadata.name, part.metadata.caller_arena
    row = math.prod(program.inputs[0].shape[2:])
    arena = ", arena" if caller_arena else ""
    return [
        "",
        f"static void {part.prefix}from_memory(void *context, int32_t row, int32_t rows, {program.in_type}_t *to)",
        "{",
        f"    copy_rows(*(const int8_t **)context + row * {row}, (int8_t *)to, 1, rows * {row}, 0);",
        "}",
        "",
        _signature(program, name, caller_arena),
        "{",
        "    const int8_t *from = (const int8_t *)input;",
        f"    {name}_invoke_rows({part.prefix}from_memory, &from, output{arena});",
        "}",
    ]


class _Step(msgspec.Struct, frozen=True):
    """Calls of one step, in which @ stands for a distance in bytes, and these distances."""

    calls: tuple[str, ...]
    distances: tuple[int, ...]


def _steps(program: Program, stage: Stage, named: Mapping[int, str], scratch: Mapping[int, Sequence[str]]) -> list[str]:
    """The calls of all steps; steps that differ only in distances that grow evenly are a loop."""
    layers = {layer.output: layer for layer in program.layers if layer.banded}
    steps = [_step(step, layers, named, scratch, program.in_type) for step in stage.steps]
    lines: list[str] = []
    first = 0
    while first < len(steps):
        growth, last = None, first
        while last + 1 < len(steps) and (by := _growth(*steps[last : last + 2])) is not None and growth in (None, by):
            growth, last = by, last + 1
        if growth is None:
            lines += [f"    {call};" for call in _calls(steps[first], (0,) * len(steps[first].distances))]
        else:
            lines.append(f"    for (int32_t n = 0; n < {last - first + 1}; n++) {{")
            lines += [f"        {call};" for call in _calls(steps[first], growth)]
            lines.append("    }")
        first = last + 1
    return lines


def _step(
    parts: Sequence[Read | Call | Move], layers: Mapping[int, Layer], named: Mapping[int, str],
    scratch: Mapping[int, Sequence[str]], in_type: str,
) -> _Step:  # fmt: skip
    calls: list[str] = []
    distances: list[int] = []
    for part in parts:
        if part.value not in named:  # no output depends on it
            continue
        made = named[part.value]
        if isinstance(part, Read):
            calls.append(f"read(context, 0@, {part.rows}, ({in_type}_t *)({made}@))")
            distances += [part.row, part.at]
        elif isinstance(part, Move):
            calls.append(f"copy_rows({made}@, {made}, 1, {part.size}, {part.size})")
            distances.append(part.start)
        else:
            layer = layers[part.value]
            pointers = [f"{named[value]}@" for value in layer.inputs] + [f"{made}@"]
            calls.append(f"{layer.name}({', '.join([*pointers, *scratch[part.value], str(part.band)])})")
            distances += [*(part.inputs[value] for value in layer.inputs), part.at]
    return _Step(tuple(calls), tuple(distances))


def _growth(step: _Step, following: _Step) -> tuple[int, ...] | None:
    """How much the distances grow from a step to one with the same calls."""
    if step.calls != following.calls:
        return None
    return tuple(after - before for before, after in zip(step.distances, following.distances, strict=True))


def _calls(step: _Step, growth: Sequence[int]) -> list[str]:
    """The calls of a step; distances grow with the loop's counter n."""
    distances = iter(
        (f" + {start}" if start else "") + (f" + n * {by}" if by else "")
        for start, by in zip(step.distances, growth, strict=True)
    )
    return [re.sub("@", lambda _: next(distances), call) for call in step.calls]


def _buffer(name: str, kind: str, dtype: str, end: End) -> str:
    """The expression for an input or output in the caller's buffer ``name``."""
    buffer = name if dtype == "int8" else f"({kind}){name}"
    return at(buffer, end.offset * np.dtype(dtype).itemsize)


def _signature(program: Program, name: str, caller_arena: bool) -> str:
    arena = ", void *arena" if caller_arena else ""
    return f"void {name}_invoke(const {program.in_type}_t *input, {program.out_type}_t *output{arena})"


def _rows_signature(program: Program, name: str, caller_arena: bool) -> str:
    arena = ", void *arena" if caller_arena else ""
    return f"void {name}_invoke_rows({name}_read *read, void *context, {program.out_type}_t *output{arena})"


def _layer(layer: Layer) -> str:
    parameters = [f"const int8_t *{parameter}" for parameter in layer.parameters] + ["int8_t *y"]
    if layer.scratch:
        parameters.append("int16_t *scratch")
    if layer.banded:
        parameters.append("int32_t band")
    constants = "".join(_constant(constant) for constant in layer.constants)
    return f"/* {layer.comment} */\n{constants}LAYER void {layer.name}({', '.join(parameters)})\n{{\n{layer.body}}}\n"


def _constant(constant: Constant) -> str:
    values = constant.values
    size = "".join(f"[{length}]" for length in values.shape)
    # the text of a list, which Python makes faster than that of each number; C has no literal for the lowest int32
    text = str(values.tolist())[1:-1].translate(_BRACES).replace("-2147483648", "-2147483647 - 1")
    lines, start = [], 0
    while len(text) - start > 116:  # lines of at most 120, broken between numbers
        end = text.rindex(" ", start, start + 116)
        lines.append(text[start:end])
        start = end + 1
    lines.append(text[start:])
    alignment = "ALIGNED " if constant.type == "int8_t" else ""
    head = f"EDGECNN_WEIGHTS static const {constant.type} {alignment}{constant.name}{size}"
    return f"{head} = {{\n    " + "\n    ".join(lines) + "\n};\n"


def _float(value: np.float32) -> str:
    """A float literal that reads back to the same float32."""
    text = np.format_float_scientific(value, unique=True, trim="0")
    return f"{text}f"


def _variants(layers: Sequence[Layer]) -> dict[str, str]:
    """Sections of the kernels' file that replace others."""
    variants = {}
    if any(layer.wide for layer in layers):
        variants["requantize"] = "requantize_any"
    if all(layer.full for layer in layers):
        variants["clamp"] = "clamp_full"
    return variants


def _ascii_json(record: Record) -> str:
    """One line of JSON that is safe inside a C comment, for any strings."""
    text = msgspec.json.encode(record).decode()
    return "".join(
        char if char.isascii() and char not in "*?" else "".join(f"\\u{unit:04x}" for unit in _utf16(char))
        for char in text
    )


def _utf16(char: str) -> list[int]:
    encoded = char.encode("utf-16-be")
    return [int.from_bytes(encoded[place : place + 2]) for place in range(0, len(encoded), 2)]


def _escaped(text: str) -> str:
    """Text inside a C string literal: UTF-8, with octal escapes for anything but plain ASCII."""
    return "".join(
        chr(byte) if byte < 128 and (chr(byte).isalnum() or byte in b" .,:;-_+()/") else f"\\{byte:03o}"
        for byte in text.encode()
    )
