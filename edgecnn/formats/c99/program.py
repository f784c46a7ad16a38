"""The intermediate form between graph and C text: layers with constants and memory needs."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from numpy.typing import NDArray

from edgecnn.formats.c99.bands import Stage
from edgecnn.formats.c99.numerics import INT32_MIN
from edgecnn.formats.c99.plan import Overlap
from edgecnn.tflite.graph import Tensor
from edgecnn.tflite.operators import Operation, Shape


class Constant(msgspec.Struct, frozen=True, kw_only=True):
    """A constant array of a layer; if 2-D, each row is written in braces."""

    name: str
    values: NDArray[Any]

    @property
    def type(self) -> str:
        """The type of the elements in C, such as int8_t."""
        return f"{self.values.dtype}_t"


class Layer(msgspec.Struct, frozen=True, kw_only=True):
    """One function of the generated code.

    ``inputs`` and ``output`` are numbers of values (see ``Program``). In ``body``, the inputs have the names
    ``parameters``, the output is ``y``, and the scratch memory of ``scratch`` bytes is ``scratch``. ``overlaps`` says
    for each input how the output may overlap it; None: not at all. If ``banded``, the function's last parameter is the
    number of a band.
    """

    name: str
    comment: str
    inputs: tuple[int, ...]
    parameters: tuple[str, ...]
    output: int
    body: str
    constants: tuple[Constant, ...]
    kernels: tuple[str, ...]
    scratch: int = 0
    overlaps: tuple[Overlap | None, ...] = ()
    wide: bool = False
    full: bool = True
    banded: bool = False


class End(msgspec.Struct, frozen=True, kw_only=True):
    """An input or output: its tensor, its shape for one sample, and its value.

    ``offset`` is its place in the caller's buffer, where all inputs, or all outputs, are one after the other.
    """

    tensor: Tensor
    shape: Shape
    value: int
    offset: int


class State(msgspec.Struct, frozen=True, kw_only=True):
    """A value that is kept between calls, ``offset`` bytes into the state, and the values that it begins with."""

    value: int
    offset: int
    initial: NDArray[Any]


class Program(msgspec.Struct, frozen=True, kw_only=True):
    """The layers in order. Values are numbered by their tensor's index; ``sizes`` are in bytes.

    The ``banded`` layers are the first and run as ``stage`` says. ``operations`` are what the layers were made of.
    """

    operations: tuple[Operation, ...]
    layers: tuple[Layer, ...]
    stage: Stage | None
    states: tuple[State, ...]
    inputs: tuple[End, ...]
    outputs: tuple[End, ...]
    sizes: dict[int, int]
    names: dict[int, str]

    @property
    def in_type(self) -> str:
        """The type of all inputs: int8, uint8, int16 or int32."""
        return self.inputs[0].tensor.dtype

    @property
    def out_type(self) -> str:
        """The type of all outputs, as ``in_type``."""
        return self.outputs[0].tensor.dtype

    @property
    def state_bytes(self) -> int:
        """Bytes that are kept between calls."""
        return max((state.offset + state.initial.nbytes for state in self.states), default=0)

    @property
    def constant_bytes(self) -> int:
        """Bytes of all weights and tables."""
        return sum(constant.values.nbytes for layer in self.layers for constant in layer.constants)


def printable(text: str) -> str:
    """A name from a file, made safe for a C comment."""
    return re.sub(r"[^A-Za-z0-9_./:;,()\[\] -]", "_", text)[:80]


def times(shape: Shape) -> str:
    """A shape such as 1x28x28x1, for a comment in C."""
    return "x".join(map(str, shape)) or "1"


def at(buffer: str, offset: int) -> str:
    """The expression in C for the place ``offset`` bytes into a buffer."""
    return f"{buffer} + {offset}" if offset else buffer


def struct_of(kind: str, arrays: Iterable[str], fields: Mapping[str, Any]) -> str:
    """A definition of ``s`` with designated initialisers; ``arrays`` are named after the layer."""
    items = [f".{array} = @name_{array}" for array in arrays]
    for key, value in fields.items():
        text = f"{{{', '.join(map(str, value))}}}" if isinstance(value, list) else _number(value)
        items.append(f".{key} = {text}")
    lines, line = [], ""
    for item in items:
        if len(line) + len(item) > 100:
            lines.append(line)
            line = ""
        line += f"{item}, "
    lines.append(line)
    inner = "\n".join(f"        {line.strip()}" for line in lines)
    return f"{kind} s = {{\n{inner}\n    }};"


def _number(value: int) -> str:
    return "(-2147483647 - 1)" if value == INT32_MIN else str(value)
