"""Tables made from the results, put between the markers of Markdown files: no number in them is typed by hand.

<!-- table:mnist -->
…
<!-- /table:mnist -->
"""

import re
from functools import cache
from pathlib import Path

from benchmarks import against_others, fuzzing, int8_onnx, microcontroller
from edgecnn.bench.baseline import condensed, load_baseline
from edgecnn.bench.comparison import best_batch, images_per_s
from edgecnn.bench.statistics import summary
from edgecnn.errors import ConfigError, RecordError
from edgecnn.records import Report, from_json, to_json
from edgecnn.report import read, rows, units
from edgecnn.report.grid import Cell, Notes, machine, marks_of, setting
from edgecnn.report.rows import Row

BASELINES = Path(__file__).parent / "baselines"
_RESULTS = Path(__file__).parent / "results"
_BLOCK = re.compile(r"^(<!-- table:(\S+) -->\n).*?^(<!-- /table:\2 -->)$", re.DOTALL | re.MULTILINE)
_MARKER = re.compile(r"^<!-- /?table:\S+ -->$", re.MULTILINE)


def shipped_form(path: Path) -> bytes:
    """The recorded baseline at ``path`` as it comes with edgecnn."""
    baseline = load_baseline(path)
    note = (
        f"Comes with edgecnn, measured elsewhere, on {baseline.environment.gpu}; every sample is in "
        f"benchmarks/baselines/{path.name}."
    )
    return to_json(condensed(baseline, note))


def result_file(suite: str) -> Path:
    """Where the result of the suite called ``suite`` stands."""
    return _RESULTS / f"{suite}.json"


def up_to_date(text: str, where: object) -> str:
    """``text`` with every marked block made anew; ``where`` names it in errors.

    Raises:
        ConfigError: a marker without its counterpart, or of a suite without a result.
        RecordError: a result that is not a report.
    """
    whole = {marker for block in _BLOCK.finditer(text) for marker in _MARKER.findall(block[0])}
    for marker in _MARKER.findall(text):
        if marker not in whole:
            raise ConfigError(f"{where} has {marker} without its counterpart; write both, each on a line of its own")
    return _BLOCK.sub(lambda block: f"{block[1]}\n{_table(block[2], where)}\n\n{block[3]}", text)


def _table(name: str, where: object) -> str:
    suite = name.removesuffix("-short")
    if not result_file(suite).is_file():
        raise ConfigError(
            f"{where} wants a table of {suite}, which has no result; run: python -m benchmarks run {suite}"
        )
    return _rendered(name, suite)


@cache  # two pages have the same tables, and intervals take seconds to compute
def _rendered(name: str, suite: str) -> str:
    path = result_file(suite)
    source = f"benchmarks/results/{path.name}"
    if suite == "microcontroller":
        render_counts = {name: microcontroller.table, f"{suite}-short": microcontroller.short_table}[name]
        return render_counts(from_json(path.read_bytes(), microcontroller.Counts, path), source)
    if suite == "fuzzing":
        return fuzzing.table(from_json(path.read_bytes(), fuzzing.Fuzzed, path), source)
    render = {
        "int8-onnx": int8_onnx.table,
        "int8-onnx-short": int8_onnx.short_table,
        "against-others": against_others.table,
        "mnist-short": sentence,
    }.get(name, table)
    return render(read(path), source)


def table(report: Report, source: str) -> str:
    """The results of ``report`` in one setting as a Markdown table, and what they were measured on.

    ``source`` names the file the report is from.
    """
    shown = rows.table(report)
    headline = rows.headline_setting(tuple(row for row in shown if row.kind == "result"))
    shown = tuple(row for row in shown if row.kind != "result" or row.setting == headline)
    unit = units.unit_for(row.timing.median for row in shown if row.timing is not None)
    notes = Notes()
    lines = [
        f"| artifact | runtime | size, KiB | accuracy, % [95 %] | median, {unit.name} "
        "| time ÷ float32, same runtime [95 %] |",
        "|---|---|---:|---:|---:|---:|",
        *(f"| {' | '.join(cell.text + marks_of(cell) for cell in _cells(row, unit, notes))} |" for row in shown),
    ]
    marked = [f"- ({mark}) {text}" for mark, text in notes.all()]
    return "\n\n".join("\n".join(part) for part in (lines, marked, [_measured_on(report, source, headline)]) if part)


def sentence(report: Report, source: str) -> str:
    """How the fastest int8 .tflite file compares with the float model on a GPU, one image at a time.

    Raises:
        RecordError: ``report``, which is from ``source``, has no such file or no baseline beside it.
    """
    beside = [row for row in rows.table(report) if row.runtime == "litert" and row.timing and row.baseline]
    int8 = (row for row in beside if row.scheme in ("int8", "int8-qat"))
    fastest = min(int8, key=lambda row: row.timing.median, default=None)
    if fastest is None:
        raise RecordError(f"{source} has no int8 .tflite beside a float baseline; run: python -m benchmarks run mnist")
    record, ratio, own = fastest.baseline.record, fastest.time_to_baseline, fastest.timing.median
    gpu, many = summary(record.measurement).median, best_batch(record)
    return (
        f"**One image at a time, {fastest.name} on one CPU core answers {1 / ratio.value:.0f} "
        f"[{1 / ratio.high:.0f}, {1 / ratio.low:.0f}] times sooner than the float model on an "
        f"{record.environment.gpu}**: {units.duration(own)} against {units.duration(gpu)}, copies to the GPU not "
        f"counted. In batches of {units.count(many.batch)} the GPU does {images_per_s(many) * own:.0f} times as many "
        "images a second."
    )


def _cells(row: Row, unit: units.Unit, notes: Notes) -> tuple[Cell, ...]:
    about_name = [row.absent["measurement"]] if row.kind == "no baseline" else []
    ratio = row.time_to_float32
    return (
        Cell(row.name if row.elsewhere is None else f"{row.name}, {row.elsewhere}", notes.mark(*about_name)),
        Cell(row.runtime or units.ABSENT),
        Cell(units.ABSENT if row.size_bytes is None else units.kib(row.size_bytes)),
        Cell(units.ABSENT if row.accuracy is None else units.accuracy(row.accuracy)),
        Cell(
            units.ABSENT if row.timing is None else units.time(row.timing.median, unit),
            notes.mark(*row.warnings, of=row.name),
        ),
        Cell(units.ABSENT if ratio is None else units.ratio_interval(ratio.value, ratio.low, ratio.high)),
    )


def _measured_on(report: Report, source: str, headline: rows.Setting | None) -> str:
    where = report.environment
    versions = ", ".join(f"{name} {version}" for name, version in sorted(where.versions.items()))
    how = f" ({setting(headline)})" if headline else ""
    return (
        f"{report.title}, {units.counted(report.test_images, 'test image')}, measured on {machine(where)}, "
        f"{units.counted(where.usable_cores, 'core')}{how}, Python {where.python}, {versions}. "
        f"A time ÷ below 1 is faster. Every sample is in `{source}`."
    )
