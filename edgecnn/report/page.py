"""What a report says, as plain text in tables, ready for any output format to escape and lay out."""

import re
from collections.abc import Iterable, Sequence
from typing import Literal

import msgspec

from edgecnn.bench.statistics import P99_SAMPLES, Estimate, Summary
from edgecnn.records import Environment, Failure, Parity, Report, Tolerance
from edgecnn.report import format
from edgecnn.report.format import Unit, plain
from edgecnn.report.rows import Findings, FloatAccuracy, Row, Setting, findings, float_accuracy, table

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
    """A cell's text, the marks of the notes that belong to it, and how it is to be taken."""

    text: str
    marks: tuple[str, ...] = ()
    tone: Tone = ""


class Grid(msgspec.Struct, frozen=True, kw_only=True):
    """A table: every row has one cell for each column; ``notes`` are (mark, text)."""

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: Pairs = ()


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """A whole report in words. ``rows`` and ``unit`` are for figures, which draw the numbers themselves."""

    title: str
    facts: Pairs
    verdict: tuple[str, ...]
    results: Grid
    verification: Grid
    failed: Grid
    senseless: Grid
    method: Pairs
    environments: tuple[tuple[str, Pairs], ...]
    stages: Grid
    files: Grid
    reproduce: tuple[str, ...]
    rows: tuple[Row, ...]
    findings: Findings
    unit: Unit


class Notes:
    """The notes of one table; the same text gets the same mark."""

    def __init__(self) -> None:
        self._marks: dict[str, str] = {}

    def mark(self, *texts: str) -> tuple[str, ...]:
        """The marks of ``texts``: a, b, … z, aa, ab, …"""
        return tuple(self._marks.setdefault(plain(text), _letters(len(self._marks))) for text in texts)

    def all(self) -> Pairs:
        """Every note as (mark, text)."""
        return tuple((mark, text) for text, mark in self._marks.items())


def page(report: Report) -> Page:
    """Put ``report`` into words."""
    rows = table(report)
    found = findings(report, rows)
    reference = float_accuracy(report)
    unit = format.unit_for(row.timing.median for row in rows if row.timing is not None)
    return Page(
        title=plain(report.title),
        facts=_facts(report),
        verdict=verdict(found, reference, unit),
        results=_results(rows, unit),
        verification=_verification(report.parities),
        failed=_failures("What failed, and why", found.failed),
        senseless=_failures("Combinations that make no sense and were not tried", found.senseless),
        method=_method(report, rows, reference),
        environments=_environments(report),
        stages=_stages(report),
        files=_files(rows),
        reproduce=_reproduce(report),
        rows=rows,
        findings=found,
        unit=unit,
    )


def label(row: Row) -> str:
    """A row's artifact and where it ran: ``int8.tflite on litert``."""
    return plain(row.name if row.runtime is None else f"{row.name} on {row.runtime}")


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
    text += f", {format.points(row.accuracy_points)} points to the float Keras model"
    (low, high), (float_low, float_high) = row.accuracy.interval, reference.accuracy.interval
    if low <= float_high and float_low <= high:
        text += " (the intervals overlap: no measurable difference)"
    return f"{text}."


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
        if ratio.low <= 1 <= ratio.high:
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
        Column(f"p90, {unit.name}", numeric=True),
        Column(f"p99, {unit.name}", numeric=True),
        Column("images/s", numeric=True),
        Column("load, ms", numeric=True),
        Column("time ÷ float32 (same runtime)", numeric=True, key="to_float32"),
        Column("time ÷ float baseline", numeric=True, key="to_baseline"),
        Column("parity", key="parity"),
    )
    return Grid(
        caption="Below 1 in a “time ÷” column is faster than what it is divided by, above 1 slower.",
        columns=columns,
        rows=tuple(_result(row, unit, notes) for row in rows),
        notes=notes.all(),
    )


def _result(row: Row, unit: Unit, notes: Notes) -> tuple[Cell, ...]:
    def cell(field: str, text: str | None, marks: tuple[str, ...] = (), tone: Tone = "") -> Cell:
        if text is not None:
            return Cell(plain(text), marks, tone)
        reason = row.absent.get(field)
        return Cell(format.ABSENT, notes.mark(reason) if reason else ())

    about_name: tuple[str, ...] = ()
    if row.kind == "no baseline":
        about_name = notes.mark(row.absent["measurement"])
    if row.kind == "baseline" and not row.here:
        about_name = notes.mark(f"measured on another machine, {machine(row.environment)}: never ranked")
    about_baseline: tuple[str, ...] = ()
    if row.baseline is not None:
        text = f"divided by {row.baseline.name} on {row.baseline.device}"
        if row.foreign_baseline is not None:
            text += f" of another machine, {machine(row.foreign_baseline)}"
        about_baseline = notes.mark(text)

    timing = row.timing
    tone: Tone = "" if row.kind == "result" else "aside"
    return (
        Cell(format.count(row.number), tone=tone),
        cell("name", row.name, about_name, tone),
        cell("scheme", row.scheme),
        cell("runtime", None if row.setting is None else f"{row.runtime} [{setting(row.setting)}]"),
        cell("size_bytes", None if row.size_bytes is None else format.kib(row.size_bytes)),
        cell("size_ratio", None if row.size_ratio is None else format.ratio(row.size_ratio)),
        cell("accuracy", None if row.accuracy is None else format.accuracy(row.accuracy)),
        cell("accuracy_points", None if row.accuracy_points is None else format.points(row.accuracy_points)),
        cell("p50", None if timing is None else _median(timing, unit), notes.mark(*row.warnings)),
        cell("p90", None if timing is None else format.time(timing.p90.value, unit)),
        cell("p99", None if timing is None or timing.p99 is None else format.time(timing.p99.value, unit)),
        cell("images_per_s", None if timing is None else format.rate(timing.throughput)),
        cell("load", None if row.measurement is None else _milliseconds(row.measurement.load_s)),
        cell("time_to_float32", None if row.time_to_float32 is None else _estimate(row.time_to_float32)),
        cell(
            "time_to_baseline",
            None if row.time_to_baseline is None else _estimate(row.time_to_baseline),
            about_baseline,
        ),
        _parity_cell(row.violations, notes) if row.parities else cell("parity", None),
    )


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

    def steps(text: str | None) -> Cell:
        return Cell(format.ABSENT, notes.mark("float output: no quantisation steps")) if text is None else Cell(text)

    rows = []
    for parity in parities:
        apart = parity.difference
        rows.append(
            (
                Cell(plain(parity.artifact)),
                Cell(plain(parity.runtime)),
                Cell(plain(parity.reference)),
                Cell(format.count(apart.images)),
                Cell(format.significant(apart.max_abs)),
                Cell(format.significant(apart.mean_abs)),
                steps(None if apart.max_lsb is None else format.count(apart.max_lsb)),
                steps(None if apart.mean_lsb is None else format.significant(apart.mean_lsb)),
                steps(None if apart.within_one_lsb is None else format.percent(apart.within_one_lsb)),
                Cell(format.percent(apart.agreement)),
                Cell(format.accuracy(parity.accuracy)),
                Cell(format.accuracy(parity.reference_accuracy)),
                Cell(str(apart.worst_image)),
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
                Cell(format.duration(stage.seconds)),
                Cell("already there, used again" if stage.reused else "made in this run"),
            )
            for stage in report.stages
        ),
    )


def _files(rows: tuple[Row, ...]) -> Grid:
    hashes: dict[tuple[str, str], str] = {}
    for row in rows:
        if row.sha256 is not None:
            size = format.ABSENT if row.size_bytes is None else format.count(row.size_bytes)
            hashes.setdefault((row.name, row.sha256), size)
    return Grid(
        caption="The files behind the rows",
        columns=(Column("file"), Column("bytes", numeric=True), Column("SHA-256")),
        rows=tuple((Cell(plain(name)), Cell(size), Cell(plain(sha))) for (name, sha), size in hashes.items()),
    )


def _facts(report: Report) -> Pairs:
    return (
        ("data", plain(f"{report.data}, {format.counted(report.test_images, 'test image')}")),
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
            "a call handles the whole batch. In brackets the 95 % interval of the median, from drawing whole "
            f"blocks with replacement. p99 needs {format.count(P99_SAMPLES)} samples. {samples}"
        ),
        "images/s": "All images over all measured time.",
        "load": "From the file on disk to a session that is ready, in a fresh process; one sample per row.",
        "time ÷ float32": (
            "Time divided by the time of the float32 file of the same format on the same runtime, device, "
            "threads and batch: the median over the rounds of the ratio of the two blocks' medians, with its "
            "95 % bootstrap interval. Below 1 is faster; an interval that contains 1 is no measurable "
            "difference."
        ),
        "time ÷ float baseline": (
            "Time divided by the time of the float Keras model, on a GPU where one was measured, at the same "
            "batch. A recorded baseline shares no rounds with these rows: the ends of its interval are one "
            "median's lower end ÷ the other's upper end, and the reverse. One from another machine is marked "
            "with that machine and takes part in no ranking."
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
    versions = ", ".join(f"{name} {version}" for name, version in sorted(environment.versions.items()))
    pairs = (
        ("machine", environment.machine),
        ("system", environment.system),
        ("processor", environment.cpu or unknown),
        ("processor features", ", ".join(environment.cpu_features) or unknown),
        ("cores", f"{environment.cores}, of which {environment.usable_cores} usable"),
        ("memory", unknown if memory is None else format.gib(memory)),
        ("graphics processor", environment.gpu or "none found"),
        ("frequency governor", environment.governor or unknown),
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
        f"Data: {report.data}, SHA-256 {report.data_sha256}.",
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
