"""A model that edgecnn exported, compiled: ``predict`` runs it, ``labels`` has the names of its classes.

Every function may be called from several threads. The model has one memory, so calls wait for each other; use
processes to run it on several cores.
"""

import ctypes
import json
import threading
from pathlib import Path

import numpy as np

__all__ = ["about", "labels", "predict", "reset", "run"]

_FOLDER = Path(__file__).parent

about = json.loads((_FOLDER / "about.json").read_text(encoding="utf-8"))
"""Inputs and outputs with their shapes, scales and raw values, and what the labels mean."""

labels = tuple(about["labels"])
"""The names of the classes, in the order of the outputs; empty if the model has none."""

_LIBRARY = ctypes.CDLL(str(_FOLDER / "model.so"))
_INVOKE = _LIBRARY[f"{about['name']}_invoke"]
_INVOKE.argtypes, _INVOKE.restype = [ctypes.c_void_p, ctypes.c_void_p], None
_LOCK = threading.Lock()


def predict(*images):
    """Run the model on an array ``(n, …)`` for each of its inputs.

    Values are raw, in any numeric type: pixels of 0 to 255 if ``about["pixels"]``, else real numbers. The result is
    float32 ``(n, …)``; a tuple of such arrays if the model has several outputs.

    Raises:
        ValueError: an array has another shape than the input in ``about``, or values that are not finite.
    """
    if len(images) != len(about["inputs"]):
        raise ValueError(f"the model takes {len(about['inputs'])} arrays, got {len(images)}")
    given = [_quantized(np.asarray(part), spec) for part, spec in zip(images, about["inputs"])]
    if len({len(part) for part in given}) > 1:
        raise ValueError(f"every input needs as many samples, got {[len(part) for part in given]}")
    values = run(np.concatenate(given, axis=1))
    ends = np.cumsum([spec["size"] for spec in about["outputs"]])[:-1]
    found = [_real(part, spec) for part, spec in zip(np.split(values, ends, axis=1), about["outputs"])]
    return found[0] if len(found) == 1 else tuple(found)


def run(values):
    """Run the model on its integers ``(n, inputs)``; returns its integers ``(n, outputs)``.

    Several inputs or outputs are one after the other in a row.

    Raises:
        ValueError: ``values`` has another type or shape.
    """
    (size_in, dtype_in), (size_out, dtype_out) = (
        (sum(spec["size"] for spec in about[end]), about[end][0]["dtype"]) for end in ("inputs", "outputs")
    )
    values = np.ascontiguousarray(values)
    if values.dtype != dtype_in or values.ndim != 2 or values.shape[1] != size_in:
        raise ValueError(f"the model takes {dtype_in} (n, {size_in}), got {values.dtype} {values.shape}")
    found = np.empty((len(values), size_out), dtype_out)
    with _LOCK:
        for one, result in zip(values, found):
            _INVOKE(one.ctypes.data, result.ctypes.data)
    return found


def reset():
    """Forget the inputs before, if the model remembers any."""
    if about["stateful"]:
        with _LOCK:
            _LIBRARY[f"{about['name']}_reset"]()


def _quantized(raw, spec):
    if list(raw.shape[1:]) != spec["shape"]:
        raise ValueError(f"the input {spec['name']!r} takes (n, {', '.join(map(str, spec['shape']))}), got {raw.shape}")
    real = raw.astype(np.float32) * np.float32(spec["raw"]["scale"]) + np.float32(spec["raw"]["offset"])
    if not np.isfinite(real).all():
        raise ValueError(f"the input {spec['name']!r} has values that are not finite")
    limits = np.iinfo(spec["dtype"])
    steps = np.round(real / np.float32(spec["scale"])) + spec["zero_point"]
    return np.clip(steps, limits.min, limits.max).astype(spec["dtype"]).reshape(len(raw), spec["size"])


def _real(values, spec):
    real = (values.astype(np.int32) - spec["zero_point"]) * np.float32(spec["scale"])
    return real.astype(np.float32).reshape(len(values), *spec["shape"])
