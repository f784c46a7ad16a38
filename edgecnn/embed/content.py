"""Shared by the kits: templates, golden inputs and outputs, and C arrays."""

import json
import re
import string
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgecnn import artifacts
from edgecnn.data import load, load_as
from edgecnn.errors import ArtifactError, DataError, SessionError
from edgecnn.files import kits_folder, read_bytes
from edgecnn.records import Provenance, TensorSpec, from_metadata
from edgecnn.runtimes.quantized_io import noise, real, stored_range, to_input, to_inputs
from edgecnn.runtimes.tflm import outputs_of, specs_of
from edgecnn.samples import parts
from edgecnn.text import NAME, shown
from edgecnn.tflite.graph import Graph, read_anyway

Values = NDArray[Any]

_SEED = 0
_MOST_GOLDEN, _CANDIDATES = 4, 16
_STEPS = 32  # of a model with state
_NOISE = (
    "noise", "all lowest", "all highest", *["noise"] * 3, *["low noise"] * 2, *["high noise"] * 2,
)  # fmt: skip
_GOLDEN_BYTES = 64 * 1024


class Content(msgspec.Struct, frozen=True, kw_only=True):
    """The files of a kit by path, the model's name in its code, and its arena (see ``Kit``)."""

    name: str
    files: dict[str, bytes]
    arena_bytes: int | None = None
    arena_measured_bytes: int | None = None


Run = Callable[[list[list[Values]]], list[list[Values]]]


class Golden(msgspec.Struct, frozen=True, kw_only=True):
    """Golden inputs and the outputs for them, as stored: an array ``(n, …)`` for each input and each output.

    ``kind`` describes the inputs. They are run one after the other, from the model's initial state. ``reference`` says
    what computed the outputs.
    """

    inputs: tuple[Values, ...]
    outputs: tuple[Values, ...]
    kind: str
    reference: str = "TensorFlow Lite Micro"


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """A .tflite to embed, with the inputs and outputs of its ``graph`` and what edgecnn stored in it."""

    path: Path
    content: bytes
    graph: Graph
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    provenance: Provenance | None


class _Template(string.Template):
    """Text with placeholders ``@@name`` and ``@@{name}``: C, Make and Markdown do not use ``@@``."""

    delimiter = "@@"


def template(place: str, values: Mapping[str, object]) -> bytes:
    """The kit source at ``place``, such as "c99/Makefile", with its placeholders filled in."""
    return _Template(plain(place).decode()).substitute(values).encode()


def plain(place: str) -> bytes:
    """The kit source at ``place``, unchanged."""
    return (kits_folder() / place).read_bytes()


def load_model(path: Path) -> Model:
    """Load the .tflite at ``path``.

    Raises:
        ArtifactError: it is damaged or changed, or its sidecar does not match it.
        RecordError: its metadata or its sidecar are damaged.
    """
    content = read_bytes(path)
    graph = read_anyway(content, path.name)
    inputs, outputs = specs_of(graph)
    stored = graph.metadata.get("edgecnn")
    provenance = None if stored is None else from_metadata(stored, Provenance, f"metadata 'edgecnn' in {path.name}")
    if artifacts.sidecar(path).is_file():
        artifacts.check_metadata(path, artifacts.load(path))
    return Model(path=path, content=content, graph=graph, inputs=inputs, outputs=outputs, provenance=provenance)


def names_of(model: Model, name: str, found: Golden) -> dict[str, object]:
    """Template values: the model's ``name`` in code, the file, and the golden inputs."""
    return {
        "name": name,
        "NAME": name.upper(),
        "model": quoted(model.path.name),
        "golden": quoted(found.kind),
        "reference": found.reference,
        "fresh": " They run one after the other, because the model keeps state between runs."
        if model.graph.stateful
        else "",
    }


def reset_call(name: str, model: Model) -> str:
    """What forgets the inputs before, in C."""
    return f"{name}_reset();" if model.graph.stateful else "/* the model remembers nothing */"


def description(model: Model, inner: Graph) -> dict[str, Any]:
    """What a program needs to know of the generated C: JSON values.

    ``inputs`` and ``outputs`` have shapes and scales; ``pixels``: the raw values of the input are 0 to 255; ``ranked``:
    the labels compete. Of several inputs, it is not recorded which are raw: they are real values.
    """
    inputs, outputs = specs_of(inner)
    provenance = model.provenance
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
        "stateful": model.graph.stateful,
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


def golden(model: Model, data: str | None, inner: Graph, run: Run | None = None) -> Golden:
    """Up to four inputs (at most 64 KiB, but at least one) and the outputs for them, as stored in ``inner``.

    ``inner`` is the model's graph, or the same without QUANTIZE and DEQUANTIZE at its ends. ``run`` computes the
    outputs of inputs in a row, by default in TFLM.

    Inputs are test images of ``data``, of different classes if it has classes; without it, noise, all lowest, all
    highest, and more noise. Of the candidates, those are taken whose outputs differ most: equal outputs test less. A
    model with state gets all candidates in a row, because each output depends on the inputs before.

    Raises:
        ArtifactError: the images of ``data`` do not fit the model.
        SessionError, MissingExtraError: as ``edgecnn.runtimes.tflm.outputs_of``.
    """
    inputs, outputs = specs_of(inner)
    run = run or partial(_in_tflm, model, inputs, outputs)
    samples, names, of, first = _noise(inputs) if data is None else _images(model, data, inputs)
    most = max(1, _GOLDEN_BYTES // sum(value.nbytes for value in samples[0]))
    if model.graph.stateful:
        samples = [samples[place % len(samples)] for place in range(min(_STEPS, most))]
        found = run(samples)
        kind = f"{len(samples)} in a row: {', '.join(dict.fromkeys(names[: len(samples)]))}"
    else:
        found = run(samples)
        values = np.stack([np.concatenate([value.ravel() for value in each]) for each in found])
        chosen = _most_different(values, first, min(_MOST_GOLDEN, most))
        samples, found = [samples[place] for place in chosen], [found[place] for place in chosen]
        kind = ", ".join(names[place] for place in chosen)
    if not all(np.isfinite(value).all() for each in found for value in each):
        raise SessionError(f"{model.path.name} has outputs that are not finite for the golden inputs; give --data")
    return Golden(inputs=_stacked(samples), outputs=_stacked(found), kind=kind + of)


def _noise(inputs: Sequence[TensorSpec]) -> tuple[list[list[Values]], list[str], str, list[int]]:
    """Candidates from noise, their names, an empty origin, and the places of those to take in any case."""
    draw = np.random.default_rng(_SEED)
    samples = [[noise(draw, spec, _part(spec, kind)) for spec in inputs] for kind in _NOISE]
    return samples, [*_NOISE], "", [0, 1, 2]


def _part(spec: TensorSpec, kind: str) -> tuple[Any, Any]:
    """The range of a kind of noise."""
    low, high = stored_range(spec)
    middle = (low + high) / 2 if isinstance(low, float) else (low + high + 1) // 2
    return {
        "noise": (low, high), "all lowest": (low, low), "all highest": (high, high), "low noise": (low, middle),
        "high noise": (middle, high),
    }[kind]  # fmt: skip


def _images(
    model: Model, data: str, inputs: Sequence[TensorSpec]
) -> tuple[list[list[Values]], list[str], str, list[int]]:
    """Candidates from the test images of ``data``, as ``_noise``."""
    about = model.provenance
    loaded = load(data) if about is None else load_as(data, about.preprocessing, about.task)
    shapes = [{spec.name: spec.sample_shape for spec in specs} for specs in (model.inputs, model.outputs)]
    try:
        loaded = loaded.shaped(*shapes)
    except DataError as error:
        wanted = " and ".join(str(spec.sample_shape) for spec in inputs)
        raise ArtifactError(
            f"{model.path} expects {wanted}, but the images of {data} are {loaded.input_shape}; see --data"
        ) from error
    places = loaded.different(_CANDIDATES)
    values = parts(to_inputs(loaded.inputs(loaded.test.images[places]), inputs))
    samples = [[value[place : place + 1] for value in values] for place in range(len(places))]
    return samples, [f"test image {place}" for place in places], f" of {loaded.name}", [0]


def _in_tflm(
    model: Model, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], samples: Sequence[Sequence[Values]]
) -> list[list[Values]]:
    """TFLM's outputs for ``samples``, which are as stored in ``inputs`` and ``outputs``: in the file, or inside it."""
    given = [_converted(sample, inputs, model.inputs, real) for sample in samples]
    return [_converted(each, outputs, model.outputs, to_input) for each in outputs_of(model.content, given)]


def _converted(
    values: Sequence[Values],
    inside: Sequence[TensorSpec],
    file: Sequence[TensorSpec],
    conversion: Callable[[Values, TensorSpec], Values],
) -> list[Values]:
    """``values`` after ``conversion`` by ``inside``, where the file itself has another type."""
    triples = zip(values, inside, file, strict=True)
    return [value if ours.dtype == theirs.dtype else conversion(value, ours) for value, ours, theirs in triples]


def _stacked(samples: Sequence[Sequence[Values]]) -> tuple[Values, ...]:
    return tuple(np.stack(values) for values in zip(*samples, strict=True))


def flat(values: Sequence[Values]) -> Values:
    """Arrays ``(n, …)`` as one ``(n, size)``, the values of each sample one after the other, as in generated C."""
    return np.concatenate([value.reshape(len(value), -1) for value in values], axis=1)


def _most_different(outputs: Values, first: list[int], count: int) -> list[int]:
    """Places of up to ``count`` outputs ``(n, size)``: ``first``, then each as far from those before it as possible."""
    values = outputs.astype(np.float64)
    chosen = first[:count]
    while len(chosen) < min(count, len(values)):
        distance = np.abs(values[:, np.newaxis] - values[chosen]).sum(axis=2).min(axis=1)
        distance[chosen] = -1
        chosen = [*chosen, int(distance.argmax())]
    return chosen


def golden_header(name: str, found: Golden, arrays: Mapping[str, Values]) -> bytes:
    """The file golden.h with ``arrays`` ``(n, …)`` of golden values by name, static and constant."""
    about = f"golden inputs ({quoted(found.kind)}) and the outputs of {found.reference} for them"
    distinct = f"{len(np.unique(flat(found.outputs), axis=0))} /* different outputs among them */"
    defined = "\n".join(_array(array, values.reshape(len(values), -1)) for array, values in arrays.items())
    text = (
        f"/* {name}: {about}; generated, do not edit. */\n#ifndef GOLDEN_H\n#define GOLDEN_H\n\n#include <stdint.h>\n\n"
        f"#define GOLDEN_COUNT {len(found.inputs[0])}\n#define GOLDEN_DISTINCT {distinct}\n\n{defined}\n#endif\n"
    )
    return text.encode()


def literal(text: str) -> str:
    """A string in Kotlin or Swift, of text without control characters."""
    return json.dumps(text, ensure_ascii=False)


def quoted(text: str) -> str:
    """A name made safe for C comments and Markdown."""
    return re.sub(r"[*?\\`|<>$@]", "_", shown(text, NAME))


def _array(name: str, values: Values) -> str:
    rows = ",\n".join("    {\n" + numbers(row, 8) + "\n    }" for row in values)
    return f"static const {ctype(values.dtype.name)} {name}[{values.shape[0]}][{values.shape[1]}] = {{\n{rows}\n}};\n"


def ctype(dtype: str) -> str:
    """The type in C of values of ``dtype``."""
    return {"float32": "float", "bool": "bool"}.get(dtype, f"{dtype}_t")


def numbers(values: Iterable[Any], indent: int) -> str:
    """Numbers separated by commas, in lines of at most 120 characters."""
    lines, line = [], " " * indent
    for value in values:
        text = f"{value:.9e}f," if isinstance(value, np.floating) else f"{int(value)},"
        if len(line) + len(text) + 1 > 120:
            lines.append(line.rstrip())
            line = " " * indent
        line += f"{text} "
    lines.append(line.rstrip().rstrip(","))
    return "\n".join(lines)
