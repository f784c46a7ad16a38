"""Conversion between float arrays and the integer types and layouts of artifacts."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecnn.errors import SessionError
from edgecnn.records import TensorSpec
from edgecnn.samples import Samples, joined, parts, unlike

Float = NDArray[np.float32]


def to_inputs(samples: Samples, specs: Sequence[TensorSpec]) -> Samples:
    """Convert float32 samples to an artifact's inputs, which they have in this order (see ``to_input``)."""
    pairs = zip(parts(samples), specs, strict=True)
    return raw_of([to_input(part, spec) for part, spec in pairs], specs)


def from_outputs(raw: Samples, specs: Sequence[TensorSpec]) -> Float:
    """Convert an artifact's outputs to float32 ``(batch, values)``: those of all outputs, one after the other."""
    found = [from_output(part, spec) for part, spec in zip(parts(raw), specs, strict=True)]
    return found[0] if len(found) == 1 else np.concatenate(found, axis=1)


def raw_of(arrays: Sequence[NDArray[Any]], specs: Sequence[TensorSpec]) -> Samples:
    """The tensors of an artifact, which are ``specs``, as samples.

    Raises:
        SessionError: their first dimensions differ, so they are not tensors of one batch.
    """
    if len({len(array) for array in arrays}) > 1:
        each = ", ".join(f"{spec.name} {array.shape}" for spec, array in zip(specs, arrays, strict=True))
        raise SessionError(f"its tensors have no batch in common as first dimension: {each}")
    return joined(dict(zip(unlike([spec.name for spec in specs]), arrays, strict=True)))


def to_input(images: Float, spec: TensorSpec) -> NDArray[Any]:
    """Convert float32 samples, channels last, to an artifact's input: layout, quantised, half to even, saturated."""
    if spec.layout == "NCHW":
        images = images.transpose(0, 3, 1, 2)
    if spec.quantization is None:
        return np.ascontiguousarray(images, dtype=spec.dtype)
    info = np.iinfo(spec.dtype)
    steps = np.round(images / np.float32(spec.quantization.scale[0])) + spec.quantization.zero_point[0]
    return np.ascontiguousarray(np.clip(steps, info.min, info.max).astype(spec.dtype))


def from_output(raw: NDArray[Any], spec: TensorSpec) -> Float:
    """Convert an artifact's output to float32 ``(batch, values)``; the values are channels last."""
    if spec.layout == "NCHW":
        raw = raw.transpose(0, 2, 3, 1)
    return real(raw.reshape(len(raw), -1), spec)


def real(raw: NDArray[Any], spec: TensorSpec) -> Float:
    """Stored values of an artifact's input or output as float32, in the same shape."""
    if spec.quantization is None:
        return raw.astype(np.float32)
    centred = raw.astype(np.int64) - spec.quantization.zero_point[0]
    return (centred * np.float32(spec.quantization.scale[0])).astype(np.float32)


def stored_range(spec: TensorSpec) -> tuple[Any, Any]:
    """The lowest and highest stored value of noise for an input: all of a quantised one, -1 to 1 in float, else 0 to 1.

    Integers without a scale are often sizes or positions, of which others may not exist.
    """
    if spec.dtype.startswith("float"):
        return -1.0, 1.0
    if spec.quantization is None:
        return 0, 1
    info = np.iinfo(spec.dtype)
    return int(info.min), int(info.max)


def noise(draw: np.random.Generator, spec: TensorSpec, ends: tuple[Any, Any] | None = None) -> NDArray[Any]:
    """A random input of an artifact as stored, with values between ``ends``, by default those of ``stored_range``.

    A dynamic size is 1.
    """
    low, high = stored_range(spec) if ends is None else ends
    shape = tuple(size or 1 for size in spec.shape)
    if spec.dtype.startswith("float"):
        return draw.uniform(low, high, shape).astype(spec.dtype)
    return draw.integers(low, high, shape, endpoint=True).astype(spec.dtype)
