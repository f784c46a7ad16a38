"""Shared by inspection of .onnx and .tflite files: timing, synthetic input, and shares."""

import math
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgecnn.errors import ConfigError
from edgecnn.records import InspectedNode, Precision
from edgecnn.worker import more_time

_WARM_UP, _FEWEST, _MOST = 3, 10, 200
_SECONDS = 0.5
# Time limit after the first runs: seconds, plus this many times a run.
_SETTLED_S, _RUNS = 120.0, 1000


class Found(msgspec.Struct, frozen=True):
    """The result of a reader: the runtime's name, the nodes, seconds of each run, and notes for the user."""

    runtime: str
    nodes: tuple[InspectedNode, ...]
    run_seconds: tuple[float, ...]
    notes: tuple[str, ...]


def timed(run: Callable[[], object]) -> tuple[float, ...]:
    """Seconds of each run, for about half a second, after a few warm-up runs."""
    start = time.perf_counter()
    for _ in range(_WARM_UP):
        run()
    more_time(_SETTLED_S + _RUNS * (time.perf_counter() - start) / _WARM_UP)
    samples: list[float] = []
    while len(samples) < _FEWEST or (len(samples) < _MOST and sum(samples) < _SECONDS):
        start = time.perf_counter()
        run()
        samples.append(time.perf_counter() - start)
    return tuple(samples)


def made_up(shape: Sequence[int], dtype: str) -> NDArray[Any]:
    """A synthetic input: noise in 0…1 for floats, ones for integers, which are also valid indices."""
    if np.issubdtype(np.dtype(dtype), np.floating):
        return np.random.default_rng(0).random(tuple(shape)).astype(dtype)
    return np.ones(tuple(shape), dtype)


def input_shape(name: str, stored: Sequence[int | None], shape: tuple[int, ...] | None, inputs: int) -> tuple[int, ...]:
    """The shape to run an input with; dynamic dimensions are ``None`` in ``stored``.

    Raises:
        ConfigError: ``shape`` does not fit, or is required.
    """
    shown = ",".join("?" if size is None else str(size) for size in stored)
    if shape is not None:
        if inputs != 1:
            raise ConfigError(f"--shape needs a model with one input; this one has {inputs}")
        fits = len(shape) == len(stored) and all(s in (None, n) for s, n in zip(stored, shape, strict=True))
        if not fits or min(shape, default=1) < 1:
            raise ConfigError(f"input {name!r} has the shape {shown}; {','.join(map(str, shape))} does not fit")
        return shape
    if None in stored[1:]:
        raise ConfigError(f"input {name!r} has dynamic dimensions ({shown}); set them, as in --shape 1,3,64,64")
    return tuple(1 if size is None else size for size in stored)


def product(sizes: Iterable[int | None] | None) -> int:
    """Number of values of a shape; 0 if a size is unknown."""
    return 0 if sizes is None else math.prod(size or 0 for size in sizes)


def shares(nodes: Iterable[InspectedNode], weight: Callable[[InspectedNode], float]) -> dict[str, float]:
    """The share (0…1) of each precision in the sum of ``weight``; empty if the sum is 0."""
    sums: dict[str, float] = {}
    for node in nodes:
        if node.precision is not None and weight(node):
            sums[node.precision] = sums.get(node.precision, 0.0) + weight(node)
    total = sum(sums.values())
    return {precision: part / total for precision, part in sums.items()}


def precision_of(activation: str, constants: Iterable[str]) -> Precision:
    """The precision of a kernel, from the types of its first input and of its constant inputs."""
    if activation in ("int8", "uint8"):
        return "int8"
    if activation == "int16":
        return "int16"
    if activation.startswith(("float", "bfloat", "double")):
        return "hybrid" if {"int8", "uint8", "int4"} & set(constants) else "float"
    return "data"  # int32, int64, bool: shapes, indices, conditions
