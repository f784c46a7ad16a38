"""Shared by the kits: templates, golden inputs and outputs, and C arrays."""

import contextlib
import logging
import re
import string
import textwrap
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgecnn import artifacts
from edgecnn.data import load, load_as
from edgecnn.errors import ArtifactError, DataError, SessionError
from edgecnn.files import kits_folder
from edgecnn.records import Artifact, TensorSpec
from edgecnn.runtimes.quantized_io import raw_of, to_inputs
from edgecnn.runtimes.tflm import TflmSession
from edgecnn.samples import Samples, flat
from edgecnn.text import NAME, shown
from edgecnn.worker import confine, isolated

log = logging.getLogger("edgecnn")

Integers = NDArray[np.int8] | NDArray[np.uint8]

_SEED = 0
_MOST_GOLDEN, _CANDIDATES = 4, 16
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


class Golden(msgspec.Struct, frozen=True, kw_only=True):
    """Quantised inputs ``(n, size)`` and TFLM's outputs ``(n, size)``; ``kind`` describes the inputs.

    The values of several inputs or outputs are one after the other, as in generated C.
    """

    inputs: Integers
    outputs: Integers
    kind: str


class IntegerModel(msgspec.Struct, frozen=True, kw_only=True):
    """A .tflite whose inputs and outputs are quantised to 8-bit integers."""

    path: Path
    artifact: Artifact


class _Template(string.Template):
    """Text with placeholders ``@@name`` and ``@@{name}``: C, Make and Markdown do not use ``@@``."""

    delimiter = "@@"


def template(place: str, values: Mapping[str, object]) -> bytes:
    """The kit source at ``place``, such as "c99/Makefile", with its placeholders filled in."""
    return _Template(plain(place).decode()).substitute(values).encode()


def plain(place: str) -> bytes:
    """The kit source at ``place``, unchanged."""
    return (kits_folder() / place).read_bytes()


def load_integer_model(path: Path) -> IntegerModel:
    """Load the description of a .tflite with 8-bit integer input and output.

    Raises:
        ArtifactError: its input or output has another type, or the file was changed.
        SessionError: LiteRT and TFLM refuse it.
    """
    try:
        artifact = artifacts.load(path)
    except SessionError as error:  # LiteRT refuses some files that TFLM and the C code run
        log.info("%s is read with TFLM: %s", path.name, error)
        artifact = artifacts.load(path, runtime="tflm")
    each = [*(("input", spec) for spec in artifact.inputs), *(("output", spec) for spec in artifact.outputs)]
    for kind, spec in each:
        if spec.dtype not in ("int8", "uint8") or spec.quantization is None:
            raise ArtifactError(
                f"{path} has {kind} type {spec.dtype}, but the kit's self-test compares 8-bit integers; convert the "
                "model with int8 input and output, as in edgecnn export --schemes int8 --io int8"
            )
    return IntegerModel(path=path, artifact=artifact)


def names_of(model: IntegerModel, name: str, found: "Golden") -> dict[str, object]:
    """Template values: the model's ``name`` in code, its types and output size, the golden inputs, the conversion."""
    artifact = model.artifact
    return {
        "name": name,
        "NAME": name.upper(),
        "model": _quoted(model.path.name),
        "golden": _quoted(found.kind),
        "in_type": f"{artifact.input.dtype}_t",
        "out_type": f"{artifact.output.dtype}_t",
        "output_size": found.outputs.shape[1],
        "conversion": _conversion(artifact, name.upper()),
    }


def _conversion(artifact: Artifact, upper: str) -> str:
    """How a README says to quantise inputs and to dequantise outputs."""
    several = len(artifact.inputs) > 1 or len(artifact.outputs) > 1
    text = (
        f"To quantise an input, compute `real / {upper}_INPUT_SCALE + {upper}_INPUT_ZERO_POINT`, round and clip. To "
        f"dequantise an output, compute `(integer - {upper}_OUTPUT_ZERO_POINT) * {upper}_OUTPUT_SCALE`."
    )
    if several:
        text += (
            f" Of several inputs or outputs, each has macros of its own, such as `{upper}_INPUT_<NAME>_SCALE`; see the "
            "header."
        )
    return textwrap.fill(text, 120)


def golden(model: IntegerModel, data: str | None) -> Golden:
    """Up to four inputs (at most 64 KiB, but at least one) and TFLM's outputs for them.

    Inputs are test images of ``data``, of different classes if it has classes; without it, noise, all lowest, all
    highest, and more noise. Of the candidates, those are taken whose outputs differ most: equal outputs test less.

    Raises:
        ArtifactError: the images of ``data`` do not fit the model, or the sidecar does not match the file.
        SessionError, MissingExtraError: as ``open_session``.
    """
    artifact = model.artifact
    for specs in (artifact.inputs, artifact.outputs):
        if len({spec.dtype for spec in specs}) > 1:
            raise ArtifactError(f"{model.path} has int8 and uint8 tensors side by side; convert it with one type")
    if data is None:
        draw = np.random.default_rng(_SEED)
        inputs = raw_of([_noise(draw, spec) for spec in artifact.inputs], artifact.inputs)
        names, of, first = [*_NOISE], "", [0, 1, 2]
    else:
        about = artifact.provenance
        loaded = load(data) if about is None else load_as(data, about.preprocessing, about.task)
        try:
            loaded = loaded.shaped(*artifact.ends)
        except DataError as error:
            shape = " and ".join(str(spec.sample_shape) for spec in artifact.inputs)
            raise ArtifactError(
                f"{model.path} expects {shape}, but the images of {data} are {loaded.input_shape}; see --data"
            ) from error
        places = loaded.different(_CANDIDATES)
        inputs = to_inputs(loaded.inputs(loaded.test.images[places]), artifact.inputs)
        names, of, first = [f"test image {place}" for place in places], f" of {loaded.name}", [0]
    if artifacts.sidecar(model.path).is_file():
        artifacts.check_metadata(model.path, artifact)
    outputs = isolated(_answers, model.path, inputs, doing=f"running {model.path.name} in tflm")
    chosen = _most_different(outputs, first, min(_MOST_GOLDEN, max(1, _GOLDEN_BYTES // inputs[0].nbytes)))
    return Golden(
        inputs=flat(inputs[chosen]).reshape(len(chosen), -1),
        outputs=outputs[chosen],
        kind=f"{', '.join(names[place] for place in chosen)}{of}",
    )


def _most_different(outputs: Integers, first: list[int], count: int) -> list[int]:
    """Places of up to ``count`` outputs ``(n, size)``: ``first``, then each as far from those before it as possible."""
    values = outputs.astype(np.int64)
    chosen = first[:count]
    while len(chosen) < min(count, len(values)):
        distance = np.abs(values[:, np.newaxis] - values[chosen]).sum(axis=2).min(axis=1)
        distance[chosen] = -1
        chosen = [*chosen, int(distance.argmax())]
    return chosen


def _noise(draw: np.random.Generator, spec: TensorSpec) -> Integers:
    """The inputs of ``_NOISE``: samples of noise over all or half of the range, and constants."""
    shape, dtype = tuple(size or 1 for size in spec.shape[1:]), np.dtype(spec.dtype)
    low, high = int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)
    middle = (low + high + 1) // 2
    ranges = [(low, high), (low, low), (high, high), *[(low, high)] * 3, *[(low, middle)] * 2, *[(middle, high)] * 2]
    return np.stack([draw.integers(start, end, shape, dtype=dtype, endpoint=True) for start, end in ranges])


def _answers(path: Path, inputs: Samples) -> Integers:
    """TFLM's outputs ``(n, size)`` for ``inputs`` ``(n, …)``."""
    confine(path.stat().st_size)
    with contextlib.closing(TflmSession(path, 1, 1, "cpu")) as session:
        found = [flat(session.integers(inputs[place : place + 1])).ravel() for place in range(len(inputs))]
        return np.stack(found)


def golden_header(name: str, found: Golden) -> bytes:
    """The file golden.h: arrays ``golden_inputs`` and ``golden_outputs``, static and constant."""
    inputs, outputs = _array("golden_inputs", found.inputs), _array("golden_outputs", found.outputs)
    about = f"golden inputs ({_quoted(found.kind)}) and TensorFlow Lite Micro's outputs for them"
    distinct = f"{len(np.unique(found.outputs, axis=0))} /* different outputs among them */"
    text = (
        f"/* {name}: {about}; generated, do not edit. */\n#ifndef GOLDEN_H\n#define GOLDEN_H\n\n#include <stdint.h>\n\n"
        f"#define GOLDEN_COUNT {len(found.inputs)}\n#define GOLDEN_DISTINCT {distinct}\n\n{inputs}\n{outputs}\n#endif\n"
    )
    return text.encode()


def _quoted(text: str) -> str:
    """A name made safe for C comments and Markdown."""
    return re.sub(r"[*?\\`|<>$@]", "_", shown(text, NAME))


def _array(name: str, values: Integers) -> str:
    ctype = f"{values.dtype.name}_t"
    rows = ",\n".join("    {\n" + numbers(row, 8) + "\n    }" for row in values)
    return f"static const {ctype} {name}[{values.shape[0]}][{values.shape[1]}] = {{\n{rows}\n}};\n"


def numbers(values: Iterable[int], indent: int) -> str:
    """Integers separated by commas, in lines of at most 120 characters."""
    lines, line = [], " " * indent
    for value in values:
        text = f"{int(value)},"
        if len(line) + len(text) + 1 > 120:
            lines.append(line.rstrip())
            line = " " * indent
        line += f"{text} "
    lines.append(line.rstrip().rstrip(","))
    return "\n".join(lines)
