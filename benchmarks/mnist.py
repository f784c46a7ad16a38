"""The suite ``mnist``: ``edgecnn run`` on the reference CNN."""

from collections.abc import Callable
from pathlib import Path

from benchmarks.markdown import grid, measured_on
from edgecnn import pipeline
from edgecnn.config import read_config
from edgecnn.errors import RecordError
from edgecnn.records import Report
from edgecnn.report import rows, units
from edgecnn.report.grid import Cell, Column, laid_out, machine, marks_of, setting
from edgecnn.report.rows import BaselineRow, MeasuredRow, MissingBaseline, ResultRow, Row
from edgecnn.report.tables import estimate_text


def run(path: Path, out: Path) -> Report:
    """Run ``edgecnn run`` with the settings at ``path`` in the folder ``out``."""
    return pipeline.run(read_config(path), out)


def table(report: Report, source: str) -> str:
    """The results of ``report`` in one setting as a Markdown table; ``source`` names its file."""
    shown = rows.table(report)
    headline = _headline(shown)
    shown = tuple(row for row in shown if not isinstance(row, ResultRow) or row.setting == headline)
    unit = units.unit_for(row.timing.median for row in shown if isinstance(row, MeasuredRow))
    results = laid_out("", _columns(unit), shown)
    marked = "\n".join(f"- ({mark}) {text}" for mark, text in results.notes)
    cells = [[cell.text + marks_of(cell) for cell in row] for row in results.rows]
    table = grid([column.title for column in results.columns], cells, words=2)
    where = (
        f"{report.title}, {units.counted(report.test_images, 'test image')}, measured on "
        f"{measured_on(report.environment, setting(headline) if headline else '')}. A time ÷ below 1 is faster. Every "
        f"sample is in `{source}`."
    )
    return "\n\n".join(part for part in (table, marked, where) if part)


def short_table(report: Report, source: str) -> str:
    """The README's table: the float32 and int8-qat file of each format, and the float model on a GPU.

    Raises:
        RecordError: ``report``, read from ``source``, has no such files or no baseline.
    """
    found = rows.table(report)
    headline = _headline(found)
    measured = [row for row in found if isinstance(row, ResultRow) and row.setting == headline]
    shown = [
        (row, row.time_to_baseline)
        for row in measured
        if row.scheme in ("float32", "int8-qat") and row.format != "keras" and row.time_to_baseline is not None
    ]
    baseline = next((row for row in found if isinstance(row, BaselineRow)), None)
    if not shown or baseline is None:
        raise RecordError(f"{source} has no files with a float baseline; run: python -m benchmarks run mnist")
    unit = units.unit_for(row.timing.median for row, _ in shown)
    titles = "file", "runtime", "size, KiB", "accuracy, %", f"one image, {unit.name}", "time ÷ GPU"

    def line(row: MeasuredRow, name: str, size: str, ratio: str) -> tuple[str, ...]:
        accuracy = units.ABSENT if row.accuracy is None else units.percent(row.accuracy.value)
        return name, row.runtime, size, accuracy, units.time(row.timing.median, unit), ratio

    cells = [line(row, row.name, units.kib(row.size_bytes), units.ratio(ratio.value)) for row, ratio in shown]
    cells.append(line(baseline, f"{baseline.name} on {baseline.environment.gpu}", units.ABSENT, "1"))
    return (
        f"{grid(titles, cells, words=2)}\n\n{units.counted(report.test_images, 'test image')}, one thread on "
        f"{machine(report.environment)}; the GPU was measured elsewhere, one image at a time, without host copies."
    )


def _headline(found: tuple[Row, ...]) -> rows.Setting | None:
    return rows.headline_setting([row for row in found if isinstance(row, ResultRow)])


def _columns(unit: units.Unit) -> tuple[Column, ...]:
    def measured(cell: Callable[[MeasuredRow], Cell]) -> Callable[[Row], Cell]:
        return lambda row: Cell(units.ABSENT) if isinstance(row, MissingBaseline) else cell(row)

    def of_file(text: Callable[[ResultRow], str]) -> Callable[[Row], Cell]:
        return lambda row: Cell(text(row) if isinstance(row, ResultRow) else units.ABSENT)

    def name(row: Row) -> Cell:
        if isinstance(row, MissingBaseline):
            return Cell(row.name, notes=(row.reason,))
        return Cell(row.name if row.elsewhere is None else f"{row.name}, {row.elsewhere}")

    def accuracy(row: MeasuredRow) -> Cell:
        return Cell(units.ABSENT if row.accuracy is None else str(units.accuracy(row.accuracy)))

    def median(row: MeasuredRow) -> Cell:
        return Cell(units.time(row.timing.median, unit), notes=row.warnings, of=row.name)

    def ratio(row: ResultRow) -> str:
        return units.ABSENT if row.time_to_float32 is None else str(estimate_text(row.time_to_float32))

    return (
        Column("artifact", name),
        Column("runtime", measured(lambda row: Cell(row.runtime))),
        Column("size, KiB", of_file(lambda row: units.kib(row.size_bytes))),
        Column("accuracy, % [95 %]", measured(accuracy)),
        Column(f"median, {unit.name}", measured(median)),
        Column("time ÷ float32, same runtime [95 %]", of_file(ratio)),
    )
