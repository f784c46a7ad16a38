"""Damaged .tflite files: reading them and writing them as ONNX gives an error of ours or a valid result.

Never another exception, a crash or a hang. ``EDGECNN_FUZZ=2000`` tries that many files instead of 200.
"""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import flatbuffers
import keras
import numpy as np
import onnx
import pytest
from ai_edge_litert import schema_py_generated as schema
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgecnn.errors import EdgecnnError
from edgecnn.formats import tflite
from edgecnn.formats.onnx_qdq import to_onnx
from edgecnn.formats.source import Source
from edgecnn.formats.tflite_graph import Graph, read_graph
from edgecnn.quantization.schemes import SCHEMES

L = keras.layers
EXAMPLES = int(os.environ.get("EDGECNN_FUZZ", "200"))
LIMIT_S = 20.0


def plain(x: Any) -> Any:
    return L.MaxPooling2D()(L.Conv2D(4, 3, strides=2, padding="same", activation="relu")(x))


def branched(x: Any) -> Any:
    x = L.DepthwiseConv2D(3, padding="same", depth_multiplier=2, activation="relu6")(x)
    gate = L.Conv2D(4, 1, activation="sigmoid")(L.GlobalAveragePooling2D(keepdims=True)(x))
    y = L.Multiply()([L.Conv2D(4, 3, padding="same")(x), gate])
    y = L.Concatenate()([y, y - L.LeakyReLU(negative_slope=0.2)(y), L.Activation("tanh")(y)])
    return L.UpSampling2D(2)(L.ReLU()(y + L.Conv2D(12, 1)(x)))


def rearranged(x: Any) -> Any:
    x = L.Permute((2, 1, 3))(L.ZeroPadding2D(1)(x))
    x = L.AveragePooling2D(2)(L.UpSampling2D(2, interpolation="bilinear")(x))
    return L.Reshape((5, 8, 2))(L.Activation("hard_swish")(L.Conv2D(2, 1)(x))[:, :8, :5])


def source(body: Callable[[Any], Any], batch: Any = 1) -> Source:
    keras.utils.set_random_seed(1)
    images = keras.Input((8, 8, 2))
    model = keras.Model(images, L.Dense(3, activation="softmax")(L.Flatten()(body(images))), name="model")
    return Source(model, None, np.random.default_rng(0).random((8, 8, 8, 2), np.float32), "int8", batch)


@pytest.fixture(scope="module")
def files() -> tuple[bytes, ...]:
    """Int8 .tflite files that together have most of the operators that can be written."""
    sources = (source(plain), source(branched), source(rearranged), source(branched, None))
    return tuple(tflite.convert(one, SCHEMES["int8"]) for one in sources)


# Damage to bytes: ``place`` is where, as a share of the file.


def flipped(content: bytes, place: float, value: int) -> bytes:
    at = int(place * len(content))
    return content[:at] + bytes([content[at] ^ (value % 255 + 1)]) + content[at + 1 :]


def truncated(content: bytes, place: float, value: int) -> bytes:
    return content[: int(place * len(content))]


def zeroed(content: bytes, place: float, value: int) -> bytes:
    at = int(place * len(content))
    gone = min(value % 64, len(content) - at)
    return content[:at] + bytes(gone) + content[at + gone :]


def inserted(content: bytes, place: float, value: int) -> bytes:
    at = int(place * len(content))
    return content[:at] + value.to_bytes(8, "little", signed=True)[: value % 8 + 1] + content[at:]


def spliced(content: bytes, place: float, value: int) -> bytes:
    """A piece of the file stands a second time, over something else."""
    at, start = int(place * len(content)), value % len(content)
    piece = content[start : start + 4 * (1 + value % 8)]
    return content[:at] + piece + content[at + len(piece) :]


def word(content: bytes, place: float, value: int) -> bytes:
    """Another number or reference."""
    at = int(place * len(content)) // 4 * 4
    return content[:at] + (value % 2**32).to_bytes(4, "little") + content[at + 4 :]


# Damage to what the bytes mean: any number, list or part of the model.

INTEGERS = (0, 1, -1, 2, 3, 5, 127, -128, 255, 999, 65536, 2**31 - 1, -(2**31), 2**63 - 1)
REALS = (0.0, -1.0, 1.0, 1e-45, 1e-38, 1e38, float("nan"), float("inf"), float("-inf"))
Place = tuple[Any, str, int | None]


def places(part: Any, found: dict[str, list[Place]]) -> dict[str, list[Place]]:
    """Every attribute and list entry below ``part``, by the kind of place it is; contents of buffers are left out."""
    for name, value in vars(part).items():
        if isinstance(value, np.ndarray):
            value = value.tolist()
            setattr(part, name, value)
        kind = f"{type(part).__name__}.{name}"
        found.setdefault(kind, []).append((part, name, None))
        if name == "data":
            continue
        entries = value if isinstance(value, list) else [value]
        for index, entry in enumerate(entries):
            if isinstance(value, list):
                found.setdefault(f"{kind}[]", []).append((part, name, index))
            if hasattr(entry, "__dict__"):
                places(entry, found)
    return found


def changed(value: Any, number: int) -> Any:
    """Something else of the same type."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return INTEGERS[number % len(INTEGERS)]
    if isinstance(value, float):
        return REALS[number % len(REALS)]
    if isinstance(value, list) and value:
        shapes: tuple[Any, ...] = (value[:-1], value[1:], value + value[:1], value[::-1], [], None, value * 2)
        return shapes[number % len(shapes)]
    return None


def edited(content: bytes, place: float, value: int) -> bytes:
    """One place of the model's tree changed; the file as it was where that cannot be packed."""
    try:
        model = schema.ModelT.InitFromPackedBuf(content)
        kinds = places(model, {})
        rest = place * len(kinds)
        kind = sorted(kinds)[int(rest)]
        part, name, index = kinds[kind][int(rest % 1 * len(kinds[kind]))]
        if index is None:
            setattr(part, name, changed(getattr(part, name), value))
        else:
            getattr(part, name)[index] = changed(getattr(part, name)[index], value)
        builder = flatbuffers.Builder(len(content))
        builder.Finish(model.Pack(builder), b"TFL3")
        return bytes(builder.Output())
    except Exception:  # noqa: BLE001 - damaged before, or too large a number: whatever the packer says
        return content


DAMAGE = (flipped, truncated, zeroed, inserted, spliced, word, *[edited] * 10)
STEPS = st.lists(
    st.tuples(
        st.sampled_from(DAMAGE),
        st.floats(0, 1, exclude_max=True),
        st.one_of(st.integers(0, 300), st.sampled_from(INTEGERS)),
    ),
    min_size=1,
    max_size=3,
)


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Raise in whatever takes longer."""

    def ring(*_: Any) -> None:
        raise TimeoutError(f"still at it after {seconds:g} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def written(content: bytes, in_float: int = 0, unsigned: bool = False) -> Any:
    graph = read_graph(content, "x.tflite")
    assert isinstance(graph, Graph)
    return to_onnx(graph, "x", [position for position in range(60) if in_float >> position & 1], unsigned)


@given(which=st.integers(0, 3), steps=STEPS, in_float=st.integers(0, 2**24 - 1), unsigned=st.booleans())
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_damage_gives_an_error_of_ours_or_a_valid_model(
    files: tuple[bytes, ...], which: int, steps: Any, in_float: int, unsigned: bool
) -> None:
    content = files[which]
    for damage, place, value in steps:
        content = damage(content, place, value) if content else content
    with within(LIMIT_S):
        try:
            model = written(content, in_float, unsigned)
        except EdgecnnError as error:
            assert str(error).startswith(("x.tflite", "operator", "tensor", "the graph")), str(error)
            assert "\n" not in str(error)
        else:
            onnx.checker.check_model(model, full_check=True)
