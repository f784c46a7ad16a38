"""Tables and their notes as plain text, independent of the output format."""

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import msgspec

from edgecnn.processor import kind_of
from edgecnn.records import Environment
from edgecnn.report import units
from edgecnn.report.rows import MeasuredRow, Setting

Tone = Literal["", "good", "bad", "aside"]


Pairs = tuple[tuple[str, str], ...]


COMMAND = re.compile(r"(?<!`)`([\w .=-]+)`(?!`)")
"""A command in backticks, which contains no Markdown or HTML syntax."""


_NUMBER = re.compile(r"[-+−]?\d(?:[\d.,]*\d)?(?:\s?%)?")


class Cell(msgspec.Struct, frozen=True):
    """A cell: its short text, and in ``bracket`` an interval or a setting, which short views omit.

    ``value`` is the number to sort by. ``notes`` are sentences about the cell; ``of`` names their owner where cells
    share a note (see ``Notes.mark``). ``marks`` are the letters of the notes, set by ``laid_out``.
    """

    short: str
    bracket: str = ""
    notes: tuple[str, ...] = ()
    tone: Tone = ""
    value: float | None = None
    of: str | None = None
    marks: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The full text: ``98.71 [98.47, 98.91]``."""
        return f"{self.short} {self.bracket}" if self.bracket else self.short

    def noted(self, notes: tuple[str, ...], of: str | None = None) -> "Cell":
        """A copy of the cell with these notes."""
        return msgspec.structs.replace(self, notes=notes, of=of)


class Column(msgspec.Struct, frozen=True):
    """A column: its heading, the cell for an item, a key, and whether it contains numbers.

    An ``optional`` column is omitted if it would be empty.
    """

    title: str
    cell: Callable[[Any], Cell]
    key: str = ""
    numeric: bool = False
    optional: bool = False


class Grid(msgspec.Struct, frozen=True, kw_only=True):
    """A table: every row has one cell per column; ``notes`` are (mark, text).

    ``left_out`` are the omitted empty columns: (title, reason).
    """

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: Pairs = ()
    left_out: Pairs = ()


def laid_out(caption: str, columns: Sequence[Column], items: Sequence[Any]) -> Grid:
    """A table with one row per item, without the optional columns that are empty in all rows."""
    kept, left_out = [], []
    for column in columns:
        cells = [column.cell(item) for item in items]
        if column.optional and all(cell.text == units.ABSENT for cell in cells):
            if why := dict.fromkeys(note for cell in cells for note in cell.notes):
                left_out.append((column.title, "; ".join(why)))
        else:
            kept.append((column, cells))
    notes = Notes()
    rows = tuple(
        tuple(msgspec.structs.replace(cell, marks=notes.mark(*cell.notes, of=cell.of)) for cell in row)
        for row in zip(*(cells for _, cells in kept), strict=True)
    )
    return Grid(
        caption=caption,
        columns=tuple(column for column, _ in kept),
        rows=rows,
        notes=notes.all(),
        left_out=tuple(left_out),
    )


class Notes:
    """The notes of one table. Equal texts share a mark, and so do warnings that differ only in numbers."""

    def __init__(self) -> None:
        self._marks: dict[str, str] = {}
        self._texts: dict[str, dict[str, list[str]]] = {}

    def mark(self, *texts: str, of: str | None = None) -> tuple[str, ...]:
        """The marks of ``texts``: a, b, … z, aa, ab, …

        Texts ``of`` several rows that differ only in numbers share a mark; the note lists the number of each row.
        """
        marks = []
        for text in texts:
            kind = text if of is None else _NUMBER.sub("#", text)
            marks.append(self._marks.setdefault(kind, letters(len(self._marks))))
            self._texts.setdefault(kind, {}).setdefault(text, []).extend([] if of is None else [of])
        return tuple(sorted(set(marks), key=lambda mark: (len(mark), mark)))

    def all(self) -> Pairs:
        """Every note as (mark, text)."""
        return tuple((mark, _together(self._texts[kind])) for kind, mark in self._marks.items())


def _together(texts: dict[str, list[str]]) -> str:
    """One sentence for texts that differ only in numbers: each number that varies is followed by its owners."""
    first, *more = texts
    if not more:
        return first
    numbers = [_NUMBER.findall(text) for text in texts]
    parts = _NUMBER.split(first)
    for place, values in enumerate(zip(*numbers, strict=True)):
        owners: dict[str, list[str]] = {}
        for value, names in zip(values, texts.values(), strict=True):
            owners.setdefault(value, []).extend(names)
        shown = values[0]
        if len(owners) > 1:
            shown = ", ".join(f"{value} ({_joined(names)})" for value, names in owners.items())
        parts[place] += shown
    return "".join(parts)


def _joined(names: list[str]) -> str:
    """``row 1``; ``rows 1, 7``; other names unchanged."""
    if len(names) > 1 and all(name.startswith("row ") for name in names):
        return f"rows {', '.join(name.removeprefix('row ') for name in names)}"
    return ", ".join(names)


def letters(index: int) -> str:
    """0 is a, 25 is z, 26 is aa."""
    text = chr(ord("a") + index % 26)
    return text if index < 26 else letters(index // 26 - 1) + text


def marks_of(cell: Cell) -> str:
    """The marks of a cell's notes as a suffix: `` (a, c)``."""
    return f" ({', '.join(cell.marks)})" if cell.marks else ""


def label(row: MeasuredRow) -> str:
    """A row's artifact and runtime: ``int8.tflite on litert``."""
    return f"{row.name} on {row.runtime}"


def machine(environment: Environment) -> str:
    """A machine's processors, the instruction set of their int8 kernels, and its fingerprint."""
    kind = kind_of(environment.cpu_features)
    parts = [part for part in (environment.gpu, environment.cpu or "processor not known", kind) if part is not None]
    return f"{', '.join(parts)} ({environment.machine})"


def setting(value: Setting) -> str:
    """A setting in words: ``cpu, 1 thread, batch 1``."""
    # 0 means that the back end chooses
    threads = units.counted(value.threads, "thread") if value.threads else "default threads"
    return f"{value.device}, {threads}, batch {units.count(value.batch)}"


def listed(texts: Iterable[str]) -> str:
    """``a, b and c``."""
    *most, last = texts
    return f"{', '.join(most)} and {last}" if most else last
