"""The section of report.html in which the int8 model answers: its script, with test samples and the float answers."""

import base64
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecnn import artifacts
from edgecnn.data import DataSet
from edgecnn.embed.web import Script, json_in_script, script
from edgecnn.errors import UnsupportedError
from edgecnn.records import Demo
from edgecnn.runtimes.quantized_io import to_inputs
from edgecnn.samples import flat

_MOST_MODEL_BYTES = 1024**2
_MOST_VALUES = 1000
_MOST_SAMPLES, _MOST_SAMPLE_BYTES = 12, 64 * 1024
_LOOKED_AT = 256


def demo(model: Path, data: DataSet, floats: NDArray[np.float32]) -> Demo:
    """The int8 .tflite at ``model`` with test samples of ``data``; ``floats`` ``(n, values)`` answers all of them.

    Raises:
        UnsupportedError: C does not have an operator, or the model or its output is too large for the page.
        EmulationError: clang or its linker for WebAssembly is missing, or refuses the code.
    """
    artifact = artifacts.load(model)
    if artifact.size_bytes > _MOST_MODEL_BYTES:
        raise UnsupportedError(
            f"{model.name} has {artifact.size_bytes / 1024**2:.1f} MiB, report.html takes up to "
            f"{_MOST_MODEL_BYTES // 1024**2}; edgecnn embed --target web makes a page of it"
        )
    sizes = [spec.size for spec in artifact.outputs]
    if len(sizes) > 1 or sizes[0] > _MOST_VALUES:
        raise UnsupportedError(
            f"report.html shows answers of one output with up to {_MOST_VALUES:,} values; "
            f"{model.name} has {' and '.join(f'{size:,}' for size in sizes)}"
        )
    made = script(model)
    content = {"draws": _is_drawn(data, made), "samples": _samples(data, made, floats)}
    text = f"{made.content.decode()}const tried = {json_in_script(content)};\n"
    return Demo(file=model.name, script=text)


def _samples(data: DataSet, made: Script, floats: NDArray[np.float32]) -> list[dict[str, Any]]:
    """Test samples as the model's integers, with the float model's answers, in base64."""
    data = data.shaped(*({spec.name: spec.sample_shape for spec in specs} for specs in (made.inputs, made.outputs)))
    most = _MOST_SAMPLE_BYTES // sum(spec.size for spec in made.inputs)
    places = data.different(max(1, min(_MOST_SAMPLES, most)))
    given = flat(to_inputs(data.inputs(data.test.images[places]), made.inputs))
    found = []
    for place, sample in zip(places, given, strict=True):
        name = f"Test sample {place}"
        if data.task == "classification":
            name += f", labelled {data.class_names[data.test.labels[place]]}"
        answer = floats[place].astype("<f4")
        found.append({"name": name, "input": _text(sample), "float": _text(answer)})
    return found


def _is_drawn(data: DataSet, made: Script) -> bool:
    """Whether the samples look like drawn digits or letters: grey, most of it black, each label one sign."""
    if not (made.pixels and made.inputs[0].shape[3:] == (1,)):
        return False
    black = (data.test.images[:_LOOKED_AT] == 0).mean()
    return bool(black > 0.5) and len(data.class_names) > 1 and all(len(name) == 1 for name in data.class_names)


def _text(values: NDArray[Any]) -> str:
    return base64.b64encode(values.tobytes()).decode()
