"""The suite ``mnist``: the main job, ``edgecnn run`` on the reference CNN."""

from pathlib import Path

from benchmarks.markdown import grid, measured_on
from edgecnn import pipeline
from edgecnn.config import read_config
from edgecnn.errors import RecordError
from edgecnn.records import Report
from edgecnn.report import rows, units
from edgecnn.report.grid import Cell, Column, laid_out, machine, marks_of, setting
from edgecnn.report.rows import Row
from edgecnn.report.tables import estimate_text


def run(path: Path, out: Path) -> Report:
    """Run the settings at ``path``, which are those of ``edgecnn run``, in the folder ``out``."""
    return pipeline.run(read_config(path), out)


def table(report: Report, source: str) -> str:
    """The results of ``report`` in one setting as a Markdown table, and what they were measured on.

    ``source`` names the file the report is from.
    """
    shown = rows.table(report)
    headline = _headline(shown)
    shown = tuple(row for row in shown if row.kind != "result" or row.setting == headline)
    unit = units.unit_for(row.timing.median for row in shown if row.timing is not None)
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
    """What a reader decides by: the float32 and the int8-qat file of each format, and the float model on a GPU.

    Raises:
        RecordError: ``report``, which is from ``source``, has no such files or no baseline beside it.
    """
    found = rows.table(report)
    headline = _headline(found)
    shown = [row for row in found if row.setting == headline and row.scheme in ("float32", "int8-qat")]
    shown = [row for row in shown if row.format != "keras" and row.timing is not None and row.baseline is not None]
    baseline = next((row for row in found if row.kind == "baseline" and row.timing is not None), None)
    if not shown or baseline is None:
        raise RecordError(f"{source} has no files beside a float baseline; run: python -m benchmarks run mnist")
    unit = units.unit_for(row.timing.median for row in shown)
    titles = "file", "runtime", "size, KiB", "accuracy, %", f"one image, {unit.name}", "time ÷ GPU"
    cells = [
        (
            row.name if row is not baseline else f"{row.name} on {row.environment.gpu}",
            row.runtime or units.ABSENT,
            units.ABSENT if row.size_bytes is None else units.kib(row.size_bytes),
            units.ABSENT if row.accuracy is None else units.percent(row.accuracy.value),
            units.time(row.timing.median, unit),
            "1" if row is baseline else units.ratio(row.time_to_baseline.value),
        )
        for row in (*shown, baseline)
    ]
    return (
        f"{grid(titles, cells, words=2)}\n\n{units.counted(report.test_images, 'test image')}, one thread on "
        f"{machine(report.environment)}; the GPU was measured elsewhere, one image at a time, without copies to it."
    )


def _headline(found: tuple[Row, ...]) -> rows.Setting | None:
    return rows.headline_setting(tuple(row for row in found if row.kind == "result"))


def _columns(unit: units.Unit) -> tuple[Column, ...]:
    def name(row: Row) -> Cell:
        notes = (row.absent["measurement"],) if row.kind == "no baseline" else ()
        return Cell(row.name if row.elsewhere is None else f"{row.name}, {row.elsewhere}", notes=notes)

    def accuracy(row: Row) -> Cell:
        return Cell(units.ABSENT if row.accuracy is None else str(units.accuracy(row.accuracy)))

    def median(row: Row) -> Cell:
        text = units.ABSENT if row.timing is None else units.time(row.timing.median, unit)
        return Cell(text, notes=row.warnings, of=row.name)

    def ratio(row: Row) -> Cell:
        return Cell(units.ABSENT if row.time_to_float32 is None else str(estimate_text(row.time_to_float32)))

    return (
        Column("artifact", name),
        Column("runtime", lambda row: Cell(row.runtime or units.ABSENT)),
        Column("size, KiB", lambda row: Cell(units.ABSENT if row.size_bytes is None else units.kib(row.size_bytes))),
        Column("accuracy, % [95 %]", accuracy),
        Column(f"median, {unit.name}", median),
        Column("time ÷ float32, same runtime [95 %]", ratio),
    )
