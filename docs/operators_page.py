"""Writes docs/operators.md from the readers, writers and lists of operators: python docs/operators_page.py"""

from pathlib import Path
from typing import get_args, get_type_hints

from edgecnn.formats.c99 import lower
from edgecnn.formats.onnx import qdq
from edgecnn.tflite import functions, micro, operators

PAGE = Path(__file__).with_name("operators.md")
_START = """# Operators

Made from the code by `docs/operators_page.py`: the operators of a `.tflite` that generated C, int8 `.onnx` files and
TFLM kits support. `edgecnn check` says which of them a file needs, and every reason if it does not fit.

- **int8**: activations of int8 with one scale; weights of int8 or int4.
- **int16**: also activations of int16, with weights of int8.
- **float32**: also in float, between layers in int8.
- **table**: between two int8 tensors with one input that is no constant, also in float there; a table of 256 values.
- **folded**: only where it computes the shape of a RESHAPE.
- **ends**: removed at the ends of a model; inside, only as a part of a table.
- **state**: kept between runs; state of int8.
- **TFLM kit**: whether the pinned TensorFlow Lite Micro has a kernel. Its types, mostly int8, int16 and float32, differ
  by kernel: `edgecnn check --target tflm` runs the file.

| operator | C | int8 .onnx | TFLM kit |
|---|---|---|---|
"""
_FOLDED = frozenset({"SHAPE", "PACK"})  # in .onnx; C has PACK
_STATE = frozenset(
    {"ASSIGN_VARIABLE", "CALL_ONCE", "READ_VARIABLE", "SVDF", "UNIDIRECTIONAL_SEQUENCE_LSTM", "VAR_HANDLE"}
)


def page() -> str:
    """The whole page."""
    kinds = sorted({*operators._READERS, *_tables(), *_FOLDED, *_STATE, *micro.OPERATORS})
    return _START + "".join(
        f"| {kind} | {_cell(kind, in_c=True)} | {_cell(kind, in_c=False)} | "
        f"{'yes' if kind in micro.OPERATORS else '–'} |\n"
        for kind in kinds
    )


def _tables() -> set[str]:
    """Operators that can be a part of a table."""
    return {*functions._UNARY, *functions._SEVERAL, "LEAKY_RELU", "GELU"}


def _cell(kind: str, *, in_c: bool) -> str:
    if kind == "DEQUANTIZE":
        return "ends, table" if in_c else "int8"
    if kind == "QUANTIZE":
        return "int8, uint8, int16, ends, table" if in_c else "int8"
    if kind in _STATE:
        return "state" if in_c else "–"
    if kind in operators._READERS:
        written = [lower.has_kernel(one, kind) if in_c else one in qdq._WRITERS for one in _records(kind)]
        if all(written):
            if not in_c:
                return "int8, float32"
            moved = ", uint8" if kind in ("EXPAND_DIMS", "RESHAPE", "SQUEEZE") else ""
            return f"int8{moved}{', int16' if all(lower.in_int16(one, kind) for one in _records(kind)) else ''}"
    return "table" if kind in _tables() else "folded" if kind in _FOLDED else "–"


def _records(kind: str) -> tuple[type[operators.Operation], ...]:
    """What the reader of an operator returns, by its annotation."""
    found = get_type_hints(operators._READERS[kind])["return"]
    return tuple(one for one in (get_args(found) or (found,)) if one is not Ellipsis)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
