"""Terminal output of an inspection: one line per node, in 100 columns."""

import textwrap
from statistics import median

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from edgecnn.inspection.table import table
from edgecnn.records import Inspection
from edgecnn.report import units
from edgecnn.report.terminal import WIDTH, console_or

_STYLES = {"int8": "green", "int16": "yellow", "hybrid": "yellow", "float": "bold red", "conversion": "italic"}


def show(inspection: Inspection, console: Console | None = None) -> None:
    """Print the nodes of ``inspection`` and the totals to ``console``, by default stdout.

    If the output is not a terminal, it is ``WIDTH`` columns wide.
    """
    console = console_or(console)
    cpu = inspection.environment.cpu or "an unknown CPU"
    console.print(Text(inspection.file, style="bold"), end="")
    console.print(Text(f" on {inspection.runtime}, 1 thread, {cpu}"))
    console.print(_table(inspection))
    console.print()
    for line in totals(inspection):
        console.print(Text(line, style="bold"))
    for note in inspection.notes:
        console.print(Text("\n  ".join(textwrap.wrap(f"• {note}", WIDTH - 3))))


def totals(inspection: Inspection) -> tuple[str, ...]:
    """Three lines: ``2,528,000 MACs: 100 % int8``, the parameters and sizes, the time of a run."""
    return (
        f"{units.count(inspection.macs)} MACs{_shares(inspection.mac_shares)}",
        f"{units.count(inspection.parameters)} parameters in {units.kib(inspection.weight_bytes)} KiB; "
        f"the file has {units.kib(inspection.size_bytes)} KiB",
        f"{units.duration(median(inspection.run_seconds))} a run{_shares(inspection.time_shares)}",
    )


def _shares(shares: dict[str, float]) -> str:
    ordered = sorted(shares.items(), key=lambda item: -item[1])
    listed = ", ".join(f"{units.significant(share * 100)} % {precision}" for precision, share in ordered)
    return f": {listed}" if listed else ""


def _table(inspection: Inspection) -> Table:
    grid = table(inspection)
    shown = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    for column in grid.columns:
        shown.add_column(
            column.title,
            justify="right" if column.numeric else "left",
            no_wrap=bool(column.key),
            overflow="ellipsis" if column.key else "fold",
        )
    for row in grid.rows:
        pairs = zip(grid.columns, row, strict=True)
        styles = [_STYLES.get(cell.short, "") if column.key == "precision" else "" for column, cell in pairs]
        shown.add_row(*(Text(cell.short, style=style) for cell, style in zip(row, styles, strict=True)))
    return shown
