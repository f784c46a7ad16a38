"""What a report says, as plain text in tables, ready for any output format to escape and lay out."""

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import msgspec

from edgecnn.bench.comparison import best_batch
from edgecnn.bench.statistics import P99_SAMPLES, Estimate, Summary, difference, end_to_end, machine_warnings, summary
from edgecnn.records import ColdStart, Environment, Failure, LayerErrors, Parity, Report, Tolerance
from edgecnn.report import format
from edgecnn.report.format import Unit, plain
from edgecnn.report.rows import (
    Findings,
    FloatAccuracy,
    FloatBaseline,
    Row,
    Setting,
    Versus,
    findings,
    float_accuracy,
    table,
    versus,
)

Tone = Literal["", "good", "bad", "aside"]
Pairs = tuple[tuple[str, str], ...]

COMMAND = re.compile(r"(?<!`)`([\w .=-]+)`(?!`)")
"""A command to type, in backticks; nothing in it means anything to Markdown or HTML."""


class Column(msgspec.Struct, frozen=True):
    """A column's heading, whether it holds numbers, and a name to find it by."""

    title: str
    numeric: bool = False
    key: str = ""


class Cell(msgspec.Struct, frozen=True):
    """A cell's text, the marks of the notes that belong to it, and how it is to be taken.

    ``value`` is the number behind the text, to sort by.
    """

    text: str
    marks: tuple[str, ...] = ()
    tone: Tone = ""
    value: float | None = None


class Grid(msgspec.Struct, frozen=True, kw_only=True):
    """A table: every row has one cell for each column; ``notes`` are (mark, text)."""

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: Pairs = ()


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """A whole report in words. ``rows``, ``versus``, ``unit`` and ``layer_errors`` are for figures, which draw numbers.

    ``letter`` names the report where several stand in one page; ``others`` are the further ones, and
    ``side_by_side`` their times beside those of this one.
    """

    title: str
    letter: str
    environment: Environment
    facts: Pairs
    cautions: tuple[str, ...]
    verdict: tuple[str, ...]
    results: Grid
    resources: Grid
    baselines: Grid
    against: Grid
    verification: Grid
    layers: tuple[Grid, ...]
    failed: Grid
    senseless: Grid
    method: Pairs
    environments: tuple[tuple[str, Pairs], ...]
    stages: Grid
    files: Grid
    reproduce: tuple[str, ...]
    rows: tuple[Row, ...]
    versus: tuple[Versus, ...]
    findings: Findings
    unit: Unit
    layer_errors: tuple[LayerErrors, ...]
    others: "tuple[Page, ...]" = ()
    side_by_side: Grid | None = None

    @property
    def parts(self) -> "tuple[Page, ...]":
        """This report and the others."""
        return (self, *self.others)


_NUMBER = re.compile(r"[-+−]?\d(?:[\d.,]*\d)?(?:\s?%)?")


class Notes:
    """The notes of one table. The same text gets the same mark, and so do warnings that differ in numbers alone."""

    def __init__(self) -> None:
        self._marks: dict[str, str] = {}
        self._texts: dict[str, dict[str, list[str]]] = {}

    def mark(self, *texts: str, of: str | None = None) -> tuple[str, ...]:
        """The marks of ``texts``: a, b, … z, aa, ab, …

        Texts ``of`` several rows that differ only in numbers share one; the note then tells each row's number.
        """
        marks = []
        for text in map(plain, texts):
            kind = text if of is None else _NUMBER.sub("#", text)
            marks.append(self._marks.setdefault(kind, _letters(len(self._marks))))
            self._texts.setdefault(kind, {}).setdefault(text, []).extend([] if of is None else [of])
        return tuple(marks)

    def all(self) -> Pairs:
        """Every note as (mark, text)."""
        return tuple((mark, _together(self._texts[kind])) for kind, mark in self._marks.items())


def _together(texts: dict[str, list[str]]) -> str:
    """One sentence for texts that are equal but for numbers: a number that varies is followed by whose it is."""
    first, *more = texts
    if not more:
        return first
    numbers = [_NUMBER.findall(text) for text in texts]
    parts = _NUMBER.split(first)
    for place, values in enumerate(zip(*numbers, strict=True)):
        owners: dict[str, list[str]] = {}
        for value, whose in zip(values, texts.values(), strict=True):
            owners.setdefault(value, []).extend(whose)
        told = values[0]
        if len(owners) > 1:
            told = ", ".join(f"{value} ({_owners(whose)})" for value, whose in owners.items())
        parts[place] += told
    return "".join(parts)


def _owners(whose: list[str]) -> str:
    """``row 1``; ``rows 1, 7``; names as they are."""
    if len(whose) > 1 and all(one.startswith("row ") for one in whose):
        return f"rows {', '.join(one.removeprefix('row ') for one in whose)}"
    return ", ".join(whose)


def page(report: Report) -> Page:
    """Put ``report`` and those beside it into words."""
    if not report.others:
        return _page(report, "")
    first, *others = (
        _page(one, _letters(number).upper()) for number, one in enumerate((report.replace(others=()), *report.others))
    )
    return msgspec.structs.replace(first, others=tuple(others), side_by_side=_side_by_side((first, *others)))


def _page(report: Report, letter: str) -> Page:
    rows = table(report)
    found = findings(report, rows)
    beside = versus(report, rows)
    reference = float_accuracy(report)
    unit = format.unit_for(row.timing.median for row in rows if row.timing is not None)
    return Page(
        title=plain(report.title),
        letter=letter,
        environment=report.environment,
        facts=_facts(report),
        cautions=_cautions(report),
        verdict=verdict(found, reference, unit),
        results=_results(rows, unit),
        resources=_resources(rows),
        baselines=_baselines(beside, unit),
        against=_against(beside),
        verification=_verification(report.parities),
        layers=tuple(map(_layers, report.layers)),
        failed=_failures("What failed, and why", found.failed),
        senseless=_failures("Combinations that make no sense and were not tried", found.senseless),
        method=_method(report, rows, reference),
        environments=_environments(report),
        stages=_stages(report),
        files=_files(rows),
        reproduce=_reproduce(report),
        rows=rows,
        versus=beside,
        findings=found,
        unit=unit,
        layer_errors=report.layers,
    )


def label(row: Row) -> str:
    """A row's artifact and where it ran: ``int8.tflite on litert``."""
    return plain(row.name if row.runtime is None else f"{row.name} on {row.runtime}")


def shared_model(page: Page) -> str:
    """The name of the model that all exported files begin with, and the dash; empty if there are several."""
    models = {
        row.name.removesuffix(f"{row.scheme}.{row.format}")
        for row in page.rows
        if row.kind == "result" and row.format != "keras"
    }
    return models.pop() if len(models) == 1 else ""


def heading(page: Page) -> str:
    """What the whole document is called."""
    return f"{len(page.parts)} reports side by side" if page.others else page.title


def titled(page: Page) -> str:
    """A report's title, with its letter in front where there are several."""
    return f"{page.letter}: {page.title}" if page.letter else page.title


def marks_of(cell: Cell) -> str:
    """The marks of a cell's notes as text to put behind it: `` (a, c)``."""
    return f" ({', '.join(cell.marks)})" if cell.marks else ""


def machine(environment: Environment) -> str:
    """A machine's processors and its fingerprint."""
    parts = [part for part in (environment.gpu, environment.cpu) if part is not None]
    return plain(f"{', '.join(parts) or 'processor not known'} ({environment.machine})")


def setting(value: Setting) -> str:
    """A setting in words: ``cpu, 1 thread, batch 1``."""
    # 0 leaves the number to the back end
    threads = format.counted(value.threads, "thread") if value.threads else "default threads"
    return plain(f"{value.device}, {threads}, batch {format.count(value.batch)}")


def verdict(found: Findings, reference: FloatAccuracy | None, unit: Unit) -> tuple[str, ...]:
    """The verdict in plain sentences, one string for each point."""
    sentences = []
    if found.setting is None:
        sentences.append("No exported file was measured.")
    elif found.fastest is None:
        sentences.append("No measured artifact is verified to lie within tolerance, so none is recommended.")
    if found.smallest:
        sentences.append(_smallest(found.smallest, reference))
    if found.fastest is not None:
        sentences.append(_fastest(found, unit))
        if found.fastest.sha256 not in {row.sha256 for row in found.smallest}:
            sentences[-1] += f" {_accuracy_sentence(found.fastest, reference)}"
    if len(found.front) > 1:
        names = _listed(label(row) for row in found.front)
        sentences.append(f"Pareto front (nothing measured beats these in both time and accuracy): {names}.")
    if found.outside:
        sentences.append(f"Outside tolerance: {_listed(_outside(row) for row in found.outside)}.")
    if found.unverified:
        names = _listed(label(row) for row in found.unverified)
        sentences.append(f"Not verified, so not considered above: {names}.")
    if found.failed:
        names = _listed(f"{failure.subject} ({failure.stage})" for failure in found.failed)
        sentences.append(f"{format.count(len(found.failed))} failed: {plain(names)}.")
    if found.senseless:
        number = format.counted(len(found.senseless), "combination")
        sentences.append(f"Not tried: {number} that cannot work, listed below with the reason.")
    return tuple(sentences)


def _smallest(rows: tuple[Row, ...], reference: FloatAccuracy | None) -> str:
    first = rows[0]
    names = _listed(plain(row.name) for row in rows)
    assert first.size_bytes is not None
    text = f"Smallest within tolerance: {names}, {format.kib(first.size_bytes)} KiB"
    if len(rows) > 1:
        text += " each"
    if first.size_ratio is not None and first.size_ratio != 1:
        text += f", {format.ratio(first.size_ratio)} times the size of float32 in the same format"
    return f"{text}. {_accuracy_sentence(first, reference)}"


def _accuracy_sentence(row: Row, reference: FloatAccuracy | None) -> str:
    assert row.accuracy is not None  # within tolerance means verified, and verification counts right answers
    text = f"Accuracy of {plain(row.name)}: {format.accuracy(row.accuracy)} %"
    if reference is None or row.accuracy_points is None:
        return f"{text}."
    text += f", {_points(row)} points to the float Keras model"
    change = row.accuracy_change
    (low, high), (float_low, float_high) = row.accuracy.interval, reference.accuracy.interval
    if change is not None and change.low <= 0 <= change.high:
        text += " (the interval contains 0: no measurable difference)"
    if change is None and low <= float_high and float_low <= high:
        text += " (the intervals overlap: no measurable difference)"
    return f"{text}."


def _points(row: Row) -> str | None:
    if row.accuracy_change is not None:
        change = row.accuracy_change
        return format.points_interval(change.value, change.low, change.high)
    return None if row.accuracy_points is None else format.points(row.accuracy_points)


def _fastest(found: Findings, unit: Unit) -> str:
    row = found.fastest
    assert row is not None
    assert row.timing is not None
    assert row.setting is not None
    text = (
        f"Fastest within tolerance ({setting(row.setting)}): {label(row)}, "
        f"median {_median(row.timing, unit)} {unit.name}"
    )
    ratio = row.time_to_float32
    if ratio is not None and row.scheme != "float32":
        text += f"; time ÷ float32 on the same runtime {_estimate(ratio)}"
        if difference(ratio) == "none":
            text += " (the interval contains 1: no measurable difference)"
    text += "."
    if found.tied:
        names = _listed(f"{label(one.row)} (time ratio {_estimate(one.ratio)})" for one in found.tied)
        text += f" No measurable difference in time between it and {names}."
    if found.next is not None:
        text += f" {label(found.next.row)} takes {_estimate(found.next.ratio)} times as long."
    if not found.tied and found.next is None:
        text += " Nothing else within tolerance was measured in this setting."
    return text


def _outside(row: Row) -> str:
    reasons = "; ".join(row.violations) or "loses more accuracy to float Keras than is allowed"
    return plain(f"{label(row)} ({reasons})")


def _results(rows: tuple[Row, ...], unit: Unit) -> Grid:
    notes = Notes()
    columns = (
        Column("#", numeric=True, key="number"),
        Column("artifact", key="artifact"),
        Column("scheme"),
        Column("runtime [setting]", key="runtime"),
        Column("size, KiB", numeric=True, key="size"),
        Column("size ÷ float32 (same format)", numeric=True),
        Column("accuracy, % [95 %]", numeric=True, key="accuracy"),
        Column("points to float Keras", numeric=True),
        Column(f"p50, {unit.name} [95 %]", numeric=True, key="p50"),
        Column("time ÷ float32 (same runtime)", numeric=True, key="to_float32"),
        Column("time ÷ float baseline", numeric=True, key="to_baseline"),
        Column("parity", key="parity"),
        Column(f"p90, {unit.name} [95 %]", numeric=True),
        Column(f"p99, {unit.name} [95 %]", numeric=True),
        Column(f"end to end, {unit.name} [95 %]", numeric=True, key="end_to_end"),
        Column("images/s", numeric=True),
    )
    grid = Grid(
        caption="Below 1 in a “time ÷” column is faster than what it is divided by, above 1 slower.",
        columns=columns,
        rows=tuple(_result(row, unit, notes) for row in rows),
        notes=notes.all(),
    )
    return _without_empty(grid, "end_to_end")


def _without_empty(grid: Grid, *keys: str) -> Grid:
    """``grid`` without those of the columns called ``keys`` that say nothing in any row."""
    kept = [
        place
        for place, column in enumerate(grid.columns)
        if column.key not in keys or any(row[place].text != format.ABSENT for row in grid.rows)
    ]
    return msgspec.structs.replace(
        grid,
        columns=tuple(grid.columns[place] for place in kept),
        rows=tuple(tuple(row[place] for place in kept) for row in grid.rows),
    )


def _number(value: float | None, text: Callable[[Any], str], marks: tuple[str, ...] = ()) -> Cell:
    """A cell for a number, or for its absence."""
    return Cell(format.ABSENT, marks) if value is None else Cell(text(value), marks, value=float(value))


def _result(row: Row, unit: Unit, notes: Notes) -> tuple[Cell, ...]:
    def cell(
        field: str, text: str | None, value: float | None = None, marks: tuple[str, ...] = (), tone: Tone = ""
    ) -> Cell:
        if text is not None:
            return Cell(plain(text), marks, tone, value)
        reason = row.absent.get(field)
        return Cell(format.ABSENT, notes.mark(reason) if reason else ())

    def quotient(field: str, estimate: Estimate | None, marks: tuple[str, ...] = ()) -> Cell:
        return cell(field, None, marks=marks) if estimate is None else _estimate_cell(estimate, marks)

    about_name: tuple[str, ...] = ()
    if row.kind == "no baseline":
        about_name = notes.mark(row.absent["measurement"])
    if row.kind == "baseline" and not row.here:
        about_name = notes.mark(f"measured on another machine, {machine(row.environment)}: never ranked")
    about_baseline: tuple[str, ...] = ()
    if row.baseline is not None:
        text = f"divided by {row.baseline.name}"
        if row.foreign_baseline is not None:
            text += f" of another machine, {machine(row.foreign_baseline)}"
        about_baseline = notes.mark(text)

    timing, whole = row.timing, row.end_to_end
    tone: Tone = "" if row.kind == "result" else "aside"
    warned = notes.mark(*row.warnings, of=f"row {row.number}")
    p99 = None if timing is None else timing.p99
    return (
        Cell(format.count(row.number), tone=tone, value=row.number),
        cell("name", row.name, None, about_name, tone),
        cell("scheme", row.scheme),
        cell("runtime", None if row.setting is None else f"{row.runtime} [{setting(row.setting)}]"),
        cell("size_bytes", None if row.size_bytes is None else format.kib(row.size_bytes), row.size_bytes),
        cell("size_ratio", None if row.size_ratio is None else format.ratio(row.size_ratio), row.size_ratio),
        cell(
            "accuracy",
            None if row.accuracy is None else format.accuracy(row.accuracy),
            None if row.accuracy is None else row.accuracy.value,
        ),
        cell("accuracy_points", _points(row), row.accuracy_points),
        cell("p50", None, None) if timing is None else Cell(_median(timing, unit), warned, value=timing.median),
        quotient("time_to_float32", row.time_to_float32),
        quotient("time_to_baseline", row.time_to_baseline, about_baseline),
        _parity_cell(row.violations, notes) if row.parities else cell("parity", None),
        cell("p90", None) if timing is None else _time_cell(timing.p90, unit),
        cell("p99", None) if p99 is None else _time_cell(p99, unit),
        cell("end_to_end", None) if whole is None else Cell(_median(whole, unit), value=whole.median),
        cell("images_per_s", None) if timing is None else _number(timing.throughput, format.rate),
    )


def _time_cell(time: Estimate, unit: Unit) -> Cell:
    return Cell(format.time_interval(time.value, time.low, time.high, unit), value=time.value)


def _estimate_cell(estimate: Estimate, marks: tuple[str, ...] = ()) -> Cell:
    return Cell(_estimate(estimate), marks, value=estimate.value)


def _resources(rows: tuple[Row, ...]) -> Grid:
    notes = Notes()
    columns = (
        Column("#", numeric=True, key="number"),
        Column("artifact", key="artifact"),
        Column("runtime [setting]", key="runtime"),
        Column("import, ms", numeric=True, key="import"),
        Column("load, ms", numeric=True, key="load"),
        Column("first inference, ms", numeric=True, key="first"),
        Column("to the first answer, ms", numeric=True, key="cold"),
        Column("memory, MiB", numeric=True, key="memory"),
        Column("runtime's arena, KiB", numeric=True, key="arena"),
        Column("energy, mJ per inference", numeric=True, key="energy"),
    )
    grid = Grid(
        caption=(
            "How a fresh process starts (medians), how much memory it takes above the empty process at its peak, and "
            "the energy of an inference where a counter of the machine could be read."
        ),
        columns=columns,
        rows=tuple(_resource(row, notes) for row in rows if row.kind == "result"),
        notes=notes.all(),
    )
    return _without_empty(grid, *(column.key for column in columns[3:]))


def _resource(row: Row, notes: Notes) -> tuple[Cell, ...]:
    measurement, cold = row.measurement, row.cold_start
    assert measurement is not None
    fresh = f"medians of {format.count(len(measurement.cold_starts))} fresh processes"
    processes = () if cold is None else notes.mark(fresh)
    energy = measurement.energy
    counter: tuple[str, ...] = ()
    if energy is not None:
        counter = notes.mark(
            f"{energy.counter}, which covers all that runs on the package, over "
            f"{format.counted(energy.inferences, 'inference')}",
            of=f"row {row.number}",
        )
    arena = None if measurement.memory is None else measurement.memory.arena_bytes
    return (
        Cell(format.count(row.number), value=row.number),
        Cell(plain(row.name)),
        Cell(format.ABSENT if row.setting is None else f"{plain(row.runtime or '')} [{setting(row.setting)}]"),
        _number(None if cold is None else cold.import_s, _milliseconds),
        _number(measurement.load_s if cold is None else cold.load_s, _milliseconds),
        _number(None if cold is None else cold.first_s, _milliseconds),
        _number(None if cold is None else cold_total(cold), _milliseconds, processes),
        _number(row.memory_bytes, format.mib),
        _number(arena, format.kib),
        _number(row.joules, format.millijoules, counter),
    )


def cold_total(cold: ColdStart) -> float:
    """Seconds to the first answer."""
    return cold.import_s + cold.load_s + cold.first_s


def _baselines(beside: tuple[Versus, ...], unit: Unit) -> Grid:
    """The float baselines that rows are compared with, once each."""
    listed: list[FloatBaseline] = []
    for one in beside:
        if one.baseline not in listed:
            listed.append(one.baseline)
    columns = (
        Column("baseline", key="artifact"),
        Column("machine", key="machine"),
        Column(f"batch 1, on the device, {unit.name} [95 %]", numeric=True),
        Column(f"with copies from and to the host, {unit.name} [95 %]", numeric=True, key="copies"),
        Column("most images/s", numeric=True),
        Column("at batch", numeric=True),
        Column("accuracy, % [95 %]", numeric=True),
        Column("peak device memory, MiB", numeric=True, key="device_memory"),
        Column("compiled with", key="compiled"),
        Column("TensorFloat-32", key="tf32"),
    )
    grid = Grid(
        caption="The float Keras model that the rows are compared with. These rows take part in no ranking.",
        columns=columns,
        rows=tuple(_baseline(one, unit) for one in listed),
    )
    return _without_empty(grid, "copies", "device_memory", "compiled", "tf32")


def _baseline(baseline: FloatBaseline, unit: Unit) -> tuple[Cell, ...]:
    record = baseline.record
    timing, best, copies = summary(record.measurement), best_batch(record), end_to_end(record.measurement)
    allowed = {None: format.ABSENT, True: "allowed", False: "not allowed"}[record.tensor_float_32]
    return (
        Cell(plain(baseline.name)),
        Cell(machine(record.environment)),
        Cell(_median(timing, unit), value=timing.median),
        Cell(format.ABSENT) if copies is None else Cell(_median(copies, unit), value=copies.median),
        _number(summary(best).throughput, format.rate),
        _number(best.batch, format.count),
        Cell(format.ABSENT)
        if record.accuracy is None
        else Cell(format.accuracy(record.accuracy), value=record.accuracy.value),
        _number(record.peak_device_bytes, format.mib),
        Cell(format.ABSENT if record.compiled_with is None else plain(record.compiled_with)),
        Cell(allowed),
    )


def _against(beside: tuple[Versus, ...]) -> Grid:
    notes = Notes()
    columns = (
        Column("#", numeric=True, key="number"),
        Column("artifact", key="artifact"),
        Column("runtime [setting]", key="runtime"),
        Column("baseline", key="baseline"),
        Column("time ÷ baseline [95 %]", numeric=True),
        Column("end to end ÷ baseline with copies [95 %]", numeric=True, key="copies"),
        Column("images/s ÷ baseline's most [95 %]", numeric=True),
        Column("end to end, images/s ÷ baseline's most with copies [95 %]", numeric=True, key="copied"),
        Column("accuracy − baseline, points [95 %]", numeric=True),
        Column("images/s", numeric=True),
        Column("images/s per core", numeric=True),
    )
    grid = Grid(
        caption=(
            "Each row beside each float baseline. Faster than the baseline is below 1 in a “time ÷” column and above 1 "
            "in “images/s ÷”."
        ),
        columns=columns,
        rows=tuple(_beside(one, notes) for one in beside),
        notes=notes.all(),
    )
    return _without_empty(grid, "copies", "copied")


def _beside(one: Versus, notes: Notes) -> tuple[Cell, ...]:
    row, found = one.row, one.found
    assert row.setting is not None

    def quotient(field: str, estimate: Estimate | None) -> Cell:
        return Cell(format.ABSENT, notes.mark(found.absent[field])) if estimate is None else _estimate_cell(estimate)

    if found.accuracy is None:
        change = Cell(format.ABSENT, notes.mark(found.absent["accuracy"]))
    else:
        change = Cell(
            format.points_interval(found.accuracy.value, found.accuracy.low, found.accuracy.high),
            () if found.accuracy.note is None else notes.mark(found.accuracy.note),
            value=found.accuracy.value,
        )
    return (
        Cell(format.count(row.number), value=row.number),
        Cell(plain(row.name)),
        Cell(f"{plain(row.runtime or '')} [{setting(row.setting)}]"),
        Cell(plain(one.baseline.name), () if found.here else notes.mark("on another machine")),
        quotient("latency", found.latency),
        quotient("latency_with_copies", found.latency_with_copies),
        quotient("throughput", found.throughput),
        quotient("throughput_with_copies", found.throughput_with_copies),
        change,
        _number(found.images_per_s, format.rate),
        _number(found.images_per_s_per_core, format.rate),
    )


def _side_by_side(parts: tuple[Page, ...]) -> Grid:
    """The medians of all reports, one column each: what has the same name and setting stands in one row."""
    notes = Notes()
    unit = format.unit_for(row.timing.median for part in parts for row in part.rows if row.timing is not None)
    found: dict[tuple[str, str, Setting], dict[str, Row]] = {}
    for part in parts:
        for row in part.rows:
            if row.kind == "result" and row.setting is not None:
                found.setdefault((row.name, row.runtime or "", row.setting), {}).setdefault(part.letter, row)
    rows = []
    for (name, runtime, where), shown in found.items():
        differing = len({row.sha256 for row in shown.values()}) > 1
        other = notes.mark("the files differ: their hashes are not equal") if differing else ()
        cells = [Cell(plain(name), other), Cell(f"{plain(runtime)} [{setting(where)}]")]
        for part in parts:
            timing = shown[part.letter].timing if part.letter in shown else None
            cells.append(Cell(format.ABSENT) if timing is None else Cell(_median(timing, unit), value=timing.median))
        rows.append(tuple(cells))
    machines = {part.environment.machine for part in parts}
    caption = (
        "Median time of one call. The columns come from different machines: they are shown side by side and not ranked."
        if len(machines) > 1
        else "Median time of one call. The columns are separate measurements on one machine and share no rounds, so "
        "small differences between them mean nothing; `edgecnn compare` judges them."
    )
    return Grid(
        caption=caption,
        columns=(
            Column("artifact", key="artifact"),
            Column("runtime [setting]", key="runtime"),
            *(Column(f"{part.letter}, {unit.name} [95 %]", numeric=True) for part in parts),
        ),
        rows=tuple(rows),
        notes=notes.all(),
    )


def _layers(errors: LayerErrors) -> Grid:
    columns = (
        Column("#", numeric=True, key="number"),
        Column("operator", key="artifact"),
        Column("own SNR, dB", numeric=True),
        Column("lost to its scale, dB", numeric=True),
        Column("own error, LSB", numeric=True),
        Column("SNR up to here, dB", numeric=True),
        Column("error up to here, LSB", numeric=True),
        Column("at the low end, %", numeric=True),
        Column("at the high end, %", numeric=True),
        Column("clipped, %", numeric=True),
        Column("scale", key="scale"),
    )
    rows = tuple(
        (
            _number(layer.position, str),
            Cell(plain(layer.operator)),
            Cell(format.decibels(layer.own_snr_db), value=_or_infinite(layer.own_snr_db)),
            _number(layer.lost_db, format.decibels),
            _number(layer.own_max_lsb, format.significant),
            Cell(format.decibels(layer.snr_db), value=_or_infinite(layer.snr_db)),
            _number(layer.max_lsb, format.significant),
            _number(layer.at_low, format.percent),
            _number(layer.at_high, format.percent),
            _number(layer.clipped, format.percent),
            Cell("off", tone="bad") if layer.scale_is_off else Cell("fits", tone="good"),
        )
        for layer in errors.layers
    )
    return Grid(
        caption=plain(
            f"{errors.artifact} on {errors.runtime}, {format.counted(errors.images, 'image')} ({errors.images_from}), "
            "worst layer first. Own: the layer alone, computed in float on its actual int8 inputs. Up to here: all "
            f"layers to this one. Output against the {errors.reference}: {format.decibels(errors.weights_snr_db)} dB "
            f"in float with the file's weights, {format.decibels(errors.output_snr_db)} dB in int8."
        ),
        columns=columns,
        rows=rows,
    )


def _or_infinite(decibels: float | None) -> float:
    return float("inf") if decibels is None else decibels


def _parity_cell(violations: tuple[str, ...], notes: Notes) -> Cell:
    if not violations:
        return Cell("pass", tone="good")
    return Cell("fail", notes.mark(*violations), "bad")


def _verification(parities: tuple[Parity, ...]) -> Grid:
    notes = Notes()
    columns = (
        Column("artifact"),
        Column("runtime", key="runtime"),
        Column("reference"),
        Column("images", numeric=True),
        Column("max |difference|", numeric=True),
        Column("mean |difference|", numeric=True),
        Column("max LSB", numeric=True),
        Column("mean LSB", numeric=True),
        Column("within 1 LSB, %", numeric=True),
        Column("same top class, %", numeric=True),
        Column("accuracy, % [95 %]", numeric=True),
        Column("reference accuracy, % [95 %]", numeric=True),
        Column("worst image, index", numeric=True),
        Column("allowed", key="allowed"),
        Column("parity"),
    )

    def steps(value: float | None, text: Callable[[Any], str]) -> Cell:
        return _number(value, text, notes.mark("float output: no quantisation steps") if value is None else ())

    rows = []
    for parity in parities:
        apart = parity.difference
        rows.append(
            (
                Cell(plain(parity.artifact)),
                Cell(plain(parity.runtime)),
                Cell(plain(parity.reference)),
                _number(apart.images, format.count),
                _number(apart.max_abs, format.significant),
                _number(apart.mean_abs, format.significant),
                steps(apart.max_lsb, format.count),
                steps(apart.mean_lsb, format.significant),
                steps(apart.within_one_lsb, format.percent),
                _number(apart.agreement, format.percent),
                Cell(format.accuracy(parity.accuracy), value=parity.accuracy.value),
                Cell(format.accuracy(parity.reference_accuracy), value=parity.reference_accuracy.value),
                _number(apart.worst_image, str),
                Cell(_tolerance(parity.tolerance, apart.span)),
                _parity_cell(parity.violations, notes),
            )
        )
    return Grid(
        caption="Each artifact against its reference on the same images. LSB: a step of a quantised output.",
        columns=columns,
        rows=tuple(rows),
        notes=notes.all(),
    )


def _tolerance(tolerance: Tolerance, span: float) -> str:
    span = span or 1.0  # as verification does where all reference outputs are equal
    parts = [
        f"same top class ≥ {format.percent(tolerance.agreement)} %",
        f"accuracy drop ≤ {format.percent(tolerance.accuracy_drop)} points",
        f"mean ≤ {format.significant(tolerance.mean_abs * span)}",
    ]
    if tolerance.max_abs is not None:
        parts.append(f"max ≤ {format.significant(tolerance.max_abs * span)}")
    if tolerance.mean_lsb is not None:
        parts.append(f"mean ≤ {format.significant(tolerance.mean_lsb)} LSB")
    return ", ".join(parts)


def _failures(caption: str, failures: tuple[Failure, ...]) -> Grid:
    return Grid(
        caption=caption,
        columns=(Column("what"), Column("stage"), Column("error"), Column("reason", key="reason")),
        rows=tuple(
            tuple(Cell(plain(text)) for text in (failure.subject, failure.stage, failure.error, failure.reason))
            for failure in failures
        ),
    )


def _stages(report: Report) -> Grid:
    return Grid(
        caption="How long each stage of the run took",
        columns=(Column("stage"), Column("time", numeric=True), Column("outputs")),
        rows=tuple(
            (
                Cell(plain(stage.name)),
                Cell(format.duration(stage.seconds), value=stage.seconds),
                Cell("already there, used again" if stage.reused else "made in this run"),
            )
            for stage in report.stages
        ),
    )


def _files(rows: tuple[Row, ...]) -> Grid:
    hashes: dict[tuple[str, str], Cell] = {}
    for row in rows:
        if row.sha256 is not None:
            hashes.setdefault((row.name, row.sha256), _number(row.size_bytes, format.count))
    return Grid(
        caption="The files behind the rows",
        columns=(Column("file"), Column("bytes", numeric=True), Column("SHA-256")),
        rows=tuple((Cell(plain(name)), size, Cell(plain(sha))) for (name, sha), size in hashes.items()),
    )


def _cautions(report: Report) -> tuple[str, ...]:
    """What makes the whole report less than it should be."""
    interrupted = ("the measurement was interrupted: rows are missing or short",) if report.unfinished else ()
    return (*interrupted, *(machine_warnings(report.environment) if report.rows else ()))


def _facts(report: Report) -> Pairs:
    return (
        (
            "data",
            "none: only latency was measured"
            if report.data is None
            else plain(f"{report.data}, {format.counted(report.test_images, 'test image')}"),
        ),
        ("machine", machine(report.environment)),
        ("seed", str(report.seed)),
    )


def _method(report: Report, rows: tuple[Row, ...], reference: FloatAccuracy | None) -> Pairs:
    measured = [row.measurement for row in rows if row.kind == "result" and row.measurement is not None]
    if reference is None:
        float_text = "The accuracy of the float Keras model is not known here."
    else:
        float_text = (
            "“Points” are percentage points to the float Keras model: "
            f"{format.accuracy(reference.accuracy)} % ({reference.source})."
        )
    samples = "No row was measured."
    if measured:
        samples = (
            f"Each row has {_span([len(one.samples) for one in measured], 'sample')} "
            f"in {_span([len(one.blocks) for one in measured], 'block')}. No statistic uses the "
            f"{_span([len(one.warmup) for one in measured], 'warm-up call')} before the first block and at the "
            "start of each. "
            "The blocks of the rows take turns in random order, one of each in every round, so a machine "
            "that slows down slows all of them."
        )
    terms = {
        "size": "The model file's bytes ÷ 1,024. Size ÷ float32 below 1 is smaller.",
        "accuracy": (
            "Right top classes of the exported file itself on the row's runtime; in brackets the 95 % Wilson "
            f"interval. {float_text}"
        ),
        "p50, p90, p99": (
            "Median and percentiles of the time of one call of the runtime with the input already in place; "
            "a call handles the whole batch. In brackets the 95 % interval, from drawing worker processes and whole "
            "blocks of them with replacement; its ends are rounded outwards. "
            f"p99 needs {format.count(P99_SAMPLES)} samples. {samples}"
        ),
        "end to end": (
            "Median time of encode, invoke and decode together: from float images to float answers, measured in the "
            "same rounds as p50."
        ),
        "images/s": (
            "All images over all measured time of invoke. Beside a baseline they are those at the median time, whole "
            "and divided by the threads, or by the usable cores where the runtime chooses their number."
        ),
        "start": (
            "In fresh processes: import of the runtime, load of the file until the session is ready, first inference. "
            "Files are in the system's cache."
        ),
        "memory, energy": (
            "Memory is the peak of resident memory above that of the process before it imported the runtime. Energy "
            "is what a counter of the machine read, divided by the inferences; where there is no counter there is no "
            "number."
        ),
        "time ÷ float32": (
            "Time divided by the time of the float32 file of the same format on the same runtime, device, "
            "threads and batch: the median over the rounds of the ratio of the two blocks' medians, with its "
            "95 % bootstrap interval. Below 1 is faster; an interval that contains 1 is no measurable "
            "difference."
        ),
        "time ÷ float baseline": (
            "Time divided by the time of the float Keras model, on a GPU where one was measured, at the same "
            "batch. A recorded baseline shares no rounds with these rows: what is uncertain about either median adds "
            "up in the interval. One from another machine is marked with that machine and takes part in no ranking."
        ),
        "accuracy − baseline": (
            "Paired where both say which images they got right (Bonett and Price's interval): models stumble over the "
            "same images, so the pairs tell differences that the two intervals alone cannot."
        ),
        "Pareto front": (
            "Among the rows of one setting, by their medians and counts: no other is at least as fast and as accurate "
            "and better in one. Rows outside tolerance take no part."
        ),
        "parity": (
            "Whether the exported file answers like its reference on the same images, within the tolerance "
            "of the verification table. Same top class and accuracy drop count as broken only where chance "
            "does not explain them (95 %)."
        ),
        "within tolerance": (
            "Every verification of the file on that runtime passes, and it loses no more accuracy to the "
            f"float Keras model than {_allowed(rows)}."
        ),
    }
    return tuple((term, plain(text)) for term, text in terms.items())


def _allowed(rows: tuple[Row, ...]) -> str:
    allowed = next((row.allowed_drop for row in rows if row.allowed_drop is not None), None)
    return (
        "the verification allows"
        if allowed is None
        else f"{format.percent(allowed / 100)} points, the most any tolerance allows"
    )


def _environments(report: Report) -> tuple[tuple[str, Pairs], ...]:
    listed = [("This machine", _environment(report.environment))]
    for baseline in report.baselines:
        title = plain(f"Baseline {baseline.model}, {baseline.backend} on {baseline.device}")
        listed.append((title, _environment(baseline.environment)))
    return tuple(listed)


def _environment(environment: Environment) -> Pairs:
    unknown = "not known"
    memory, load = environment.memory_bytes, environment.load_1min
    quota, limit, frequency = environment.cpu_quota, environment.memory_limit_bytes, environment.frequency_hz
    versions = ", ".join(f"{name} {version}" for name, version in sorted(environment.versions.items()))
    pairs = (
        ("machine", environment.machine),
        ("system", environment.system),
        ("processor", environment.cpu or unknown),
        ("processor features", ", ".join(environment.cpu_features) or unknown),
        ("cores", f"{environment.cores}, of which {environment.usable_cores} usable"),
        ("cores allowed", ", ".join(map(str, environment.affinity)) or unknown),
        ("container's limit of cores", "none known" if quota is None else format.tick(quota)),
        ("memory", unknown if memory is None else format.gib(memory)),
        ("container's limit of memory", "none known" if limit is None else format.gib(limit)),
        ("graphics processor", environment.gpu or "none found"),
        ("frequency governor", environment.governor or unknown),
        ("frequency range", unknown if frequency is None else format.gigahertz(frequency)),
        ("load before measuring", unknown if load is None else f"{load:.2f} (1 minute)"),
        ("Python", environment.python),
        ("packages", versions or unknown),
    )
    return tuple((term, plain(text)) for term, text in pairs)


def _reproduce(report: Report) -> tuple[str, ...]:
    texts = (
        "Every sample behind these numbers is in report.json beside this file. "
        "`edgecnn report report.json --out DIR` computes all tables from it again.",
        f"`edgecnn run CONFIG.toml --out DIR` with the same configuration and seed {report.seed} measures "
        "again. Times differ between machines and a little between runs; sizes and hashes belong to the "
        "versions listed under “Environment”.",
        "Data: none, only latency was measured."
        if report.data is None
        else f"Data: {report.data}, SHA-256 {report.data_sha256}.",
    )
    return tuple(plain(text) for text in texts)


def _estimate(estimate: Estimate) -> str:
    return format.ratio_interval(estimate.value, estimate.low, estimate.high)


def _median(timing: Summary, unit: Unit) -> str:
    return format.time_interval(timing.median, timing.low, timing.high, unit)


def _milliseconds(seconds: float) -> str:
    return format.time(seconds, format.MILLISECONDS)


def _span(numbers: Sequence[int], noun: str) -> str:
    low, high = min(numbers), max(numbers)
    return format.counted(low, noun) if low == high else f"{format.count(low)} to {format.counted(high, noun)}"


def _listed(texts: Iterable[str]) -> str:
    *most, last = texts
    return f"{', '.join(most)} and {last}" if most else last


def _letters(index: int) -> str:
    text = chr(ord("a") + index % 26)
    return text if index < 26 else _letters(index // 26 - 1) + text
