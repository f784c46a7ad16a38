"""A report in the terminal: the verdict and the main numbers, in 100 columns."""

import textwrap
from collections.abc import Callable, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from edgecnn.records import Emulated, Failure, ProcessorAnswers, Report
from edgecnn.report.compare import Change, Gate, accuracy_text, latency_text
from edgecnn.report.grid import Cell, Column, Grid, machine, marks_of, setting
from edgecnn.report.page import Page, page, shared_model, titled
from edgecnn.report.rows import MeasuredRow, MissingBaseline, Setting
from edgecnn.report.tables import processors
from edgecnn.report.units import ABSENT, count

WIDTH = 100

# Columns of the results table that fit into the width, with short headings.
_COLUMNS = {
    "number": "#",
    "artifact": "artifact",
    "runtime": "runtime",
    "size": "KiB",
    "accuracy": "acc. %",
    "p50": "p50",
    "end_to_end": "e2e",
    "to_float32": "÷ float32 [95 %]",
    "to_baseline": "÷ base",
    "parity": "parity",
}
# Columns of the table of outputs by processor.
_ANSWERS = {
    "artifact": "artifact",
    "processor": "processor",
    "accuracy": "acc. %",
    "largest": "largest",
    "mean": "mean",
    "agreement": "agree %",
    "instructions": "M instr.",
    "parity": "parity",
}
_STYLES = {"good": "green", "bad": "bold red", "aside": "italic", "": ""}


def console_or(console: Console | None) -> Console:
    """``console``, or a new one that prints to stdout without markup; ``WIDTH`` columns wide if it is no terminal."""
    console = console or Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = WIDTH
    return console


def show(report: Report, console: Console | None = None) -> None:
    """Print the verdict and the tables of ``report`` to ``console`` (stdout by default).

    There is one table per setting and machine; times of different tables must not be compared. Several reports follow
    one another.
    """
    console = console_or(console)
    content = page(report)
    for part in content.parts:
        _show_part(part, console)
        if part is not content.parts[-1]:
            console.print()
    if content.side_by_side is not None:
        console.print()
        console.print(Text("Side by side", style="bold"))
        console.print(_item("•", content.side_by_side.caption))
        console.print(_side_by_side(content.side_by_side))
        for mark, text in content.side_by_side.notes:
            console.print(_item(f"({mark})", text))


def show_answers(rows: Sequence[ProcessorAnswers | Failure], console: Console | None = None) -> None:
    """Print the outputs of files on emulated processors to ``console`` (stdout by default)."""
    console = console_or(console)
    _show_answers(processors(tuple(row for row in rows if isinstance(row, ProcessorAnswers))), "", console)
    for row in rows:
        if isinstance(row, Failure):
            bullet = "–" if row.expected else "✗"
            console.print(_item(bullet, f"{row.subject}, {row.stage}: {row.error}: {row.reason}"))


def show_gate(gate: Gate, console: Console | None = None) -> None:
    """Print the change of every row, then each reason, to ``console`` (stdout by default)."""
    console = console_or(console)
    console.print(Text(f"{gate.new}, against {gate.old}", style="bold"))
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    for title in ("artifact", "runtime [setting]", "time ÷ old [95 %]", "points lost [95 %]"):
        table.add_column(title, justify="right" if "95" in title else "left", overflow="fold")
    for row in gate.rows:
        where = setting(Setting(row.device, row.threads, row.batch))
        table.add_row(
            Text(row.artifact),
            Text(f"{row.runtime} [{where}]"),
            _change(row.latency, latency_text),
            _change(row.accuracy, accuracy_text),
        )
    if gate.rows:
        console.print(table)
    for bullet, texts in (("✗", gate.regressions), ("?", gate.undecided), ("•", gate.notes)):
        for text in texts:
            console.print(_item(bullet, f"undecided: {text}" if bullet == "?" else text))
    if not gate.regressions:
        console.print(Text("✓ no regression", style="green"))


def _change(change: Change | None, text: Callable[[Change], str]) -> Text:
    styles = {"kept": "green", "broken": "bold red", "cannot tell": "yellow"}
    return Text(ABSENT) if change is None else Text(text(change), style=styles[change.verdict])


def _show_part(content: Page, console: Console) -> None:
    console.print(Text(titled(content), style="bold"))
    if content.letter:
        console.print(Text(machine(content.environment), style="italic"))
    for sentence in content.verdict:
        console.print(_item("•", sentence))
    marks: set[str] = set()
    for where, numbers in _groups(content).items():
        console.print()
        console.print(Text(f"{where}. Times in {content.unit.name}; {_legend(content)}.", style="italic"))
        console.print(_table(content, numbers, marks))
    console.print()
    if content.costs:
        console.print(_item("•", "As C on emulated processors. Instruction counts of one inference are not timings."))
    for cost in content.costs:
        console.print(_item(" ", _cost(cost)))
    _show_answers(content.processors, shared_model(content), console)
    for row in content.rows:
        if isinstance(row, MissingBaseline):
            console.print(Text(f"{row.name}: {row.reason}"))
    for mark, text in content.results.notes:
        if mark in marks:
            console.print(_item(f"({mark})", text))
    for caution in content.cautions:
        console.print(_item("!", caution))
    for failure in content.failed.rows:
        what, stage, error, reason = (cell.text for cell in failure)
        console.print(_item("✗", f"{what}, {stage}: {error}: {reason}"))
    for failure in content.unsupported.rows:
        what, stage, _, reason = (cell.text for cell in failure)
        console.print(_item("–", f"{what}, {stage}: {reason}"))
    if content.stages.rows:
        console.print(_item("•", content.stages.caption))


def _show_answers(grid: Grid, model: str, console: Console) -> None:
    """Print the table of outputs by processor, if it has rows; ``model`` is removed from the file names."""
    if not grid.rows:
        return
    console.print(_item("•", "On emulated processors. Differences are to the outputs of this machine."))
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    places = [place for place, column in enumerate(grid.columns) if column.key in _ANSWERS]
    for place in places:
        column = grid.columns[place]
        table.add_column(
            _heading(column, _ANSWERS),
            justify="right" if column.numeric else "left",
            no_wrap=column.key != "artifact",
            overflow="fold",
        )
    for cells in grid.rows:
        shown = [
            _text(cells[place], cells[place].short.removeprefix(model), marks_of(cells[place])) for place in places
        ]
        table.add_row(*shown)
    console.print(table)
    for mark, text in grid.notes:
        console.print(_item(f"({mark})", text))
    console.print()


def _cost(cost: Emulated) -> str:
    return (
        f"{cost.artifact} on {cost.target}: {count(cost.instructions)} instructions, flash {count(cost.flash_bytes)} "
        f"bytes (code {count(cost.code_bytes)}), RAM {count(cost.ram_bytes)} (arena {count(cost.arena_bytes)}), "
        f"stack {count(cost.stack_bytes)}"
    )


def _side_by_side(grid: Grid) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    for column in grid.columns:
        table.add_column(column.title, justify="right" if column.numeric else "left", overflow="fold")
    for row in grid.rows:
        table.add_row(*(Text(cell.text + marks_of(cell)) for cell in row))
    return table


def _legend(content: Page) -> str:
    whole = any(isinstance(row, MeasuredRow) and row.end_to_end for row in content.rows)
    return f"below 1 in a ÷ column is faster{'; e2e: encode, invoke and decode' if whole else ''}"


def _groups(content: Page) -> dict[str, list[int]]:
    """The row numbers of each setting, with a separate group for each other machine."""
    groups: dict[str, list[int]] = {}
    for row in content.rows:
        if isinstance(row, MeasuredRow):
            elsewhere = "" if row.elsewhere is None else f", {row.elsewhere} ({row.environment.machine})"
            where = setting(row.setting) + elsewhere
            groups.setdefault(where, []).append(row.number)
    return groups


def _table(content: Page, numbers: list[int], marks: set[str]) -> Table:
    """The rows with these numbers; adds the marks of their notes to ``marks``."""
    model = shared_model(content)
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=0, show_edge=False)
    shown_rows = [cells for row, cells in zip(content.rows, content.results.rows, strict=True) if row.number in numbers]
    places, shared = [], set()
    for place, column in enumerate(content.results.columns):
        if column.key not in _COLUMNS or all(cells[place].text == ABSENT for cells in shown_rows):
            continue
        places.append(place)
        heading = _heading(column, _COLUMNS)
        if column.key == "to_baseline" and len({cells[place].marks for cells in shown_rows}) == 1:
            shared.add(place)  # a mark shared by the whole column is shown once, in the heading
            heading += marks_of(shown_rows[0][place])
        table.add_column(
            heading,
            justify="right" if column.numeric else "left",
            no_wrap=column.numeric,
            overflow="fold",
        )
    for row, cells in zip(content.rows, content.results.rows, strict=True):
        if row.number in numbers:
            shown = []
            for place in places:
                cell, key = cells[place], content.results.columns[place].key
                # show the interval only where it matters most
                name = cell.text if key == "to_float32" else cell.short.removeprefix(model)
                shown.append(_text(cell, name, "" if place in shared else marks_of(cell)))
                marks.update(cell.marks)
            table.add_row(*shown)
    return table


def _heading(column: Column, short: dict[str, str]) -> str:
    """The short heading of a column; a score other than accuracy has its own name."""
    if column.key == "accuracy" and not column.title.startswith("accuracy"):
        return f"{column.title.partition(',')[0]} %"
    return short[column.key]


def _text(cell: Cell, text: str, marks: str) -> Text:
    return Text(text + marks, style=_STYLES[cell.tone])


def _item(bullet: str, text: str) -> Text:
    """A list item with hanging indent, and without the trailing blanks of a table."""
    lines = textwrap.wrap(text, WIDTH - 4) or [""]
    return Text(f"{bullet} " + ("\n" + " " * (len(bullet) + 1)).join(lines))
