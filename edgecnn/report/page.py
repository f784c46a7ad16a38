"""What a report says, as plain text and tables, ready for any output format to escape and lay out."""

from collections.abc import Sequence

import msgspec

from edgecnn.bench.statistics import P99_SAMPLES, difference, inverse, machine_warnings
from edgecnn.records import Emulated, Environment, LayerErrors, Report
from edgecnn.report import tables, units
from edgecnn.report.grid import Cell, Column, Grid, Pairs, label, laid_out, letters, listed, machine, setting
from edgecnn.report.rows import (
    BaselineComparison,
    CodeComparison,
    Findings,
    FloatAccuracy,
    Row,
    Setting,
    findings,
    float_accuracy,
    table,
    versus,
)
from edgecnn.report.tables import estimate_text, median_text, points_text
from edgecnn.report.units import Unit


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """A whole report in words.

    ``rows``, ``versus``, ``unit``, ``layer_errors`` and ``costs`` are for figures, which draw numbers.

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
    emulated: Grid
    processors: Grid
    baselines: Grid
    against: Grid
    verification: Grid
    layers: tuple[Grid, ...]
    failed: Grid
    unsupported: Grid
    method: Pairs
    environments: tuple[tuple[str, Pairs], ...]
    stages: Grid
    files: Grid
    reproduce: tuple[str, ...]
    rows: tuple[Row, ...]
    versus: tuple[BaselineComparison, ...]
    findings: Findings
    unit: Unit
    layer_errors: tuple[LayerErrors, ...]
    costs: tuple[Emulated, ...]
    others: "tuple[Page, ...]" = ()
    side_by_side: Grid | None = None

    @property
    def parts(self) -> "tuple[Page, ...]":
        """This report and the others."""
        return (self, *self.others)


def page(report: Report) -> Page:
    """Put ``report`` and those beside it into words."""
    if not report.others:
        return _page(report, "")
    first, *others = (
        _page(one, letters(number).upper()) for number, one in enumerate((report.replace(others=()), *report.others))
    )
    return msgspec.structs.replace(first, others=tuple(others), side_by_side=side_by_side((first, *others)))


def _page(report: Report, letter: str) -> Page:
    rows = table(report)
    found = findings(report, rows)
    beside = versus(report, rows)
    reference = float_accuracy(report)
    unit = units.unit_for(row.timing.median for row in rows if row.timing is not None)
    return Page(
        title=report.title,
        letter=letter,
        environment=report.environment,
        facts=_facts(report),
        cautions=_cautions(report),
        verdict=verdict(found, reference, unit),
        results=tables.results(rows, unit),
        resources=tables.resources(rows),
        emulated=tables.emulated(report.emulated),
        processors=tables.processors(report.processors),
        baselines=tables.baselines(beside, unit),
        against=tables.against(beside),
        verification=tables.verification(report.parities),
        layers=tuple(map(tables.layers, report.layers)),
        failed=tables.failures("What failed, and why", found.failed),
        unsupported=tables.failures("Unsupported combinations, not tried", found.unsupported),
        method=_method(report, rows, reference),
        environments=_environments(report),
        stages=tables.stages(report),
        files=tables.files(rows),
        reproduce=_reproduce(report),
        rows=rows,
        versus=beside,
        findings=found,
        unit=unit,
        layer_errors=report.layers,
        costs=report.emulated,
    )


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
        names = listed(label(row) for row in found.front)
        sentences.append(f"Pareto front (nothing measured beats these in both time and accuracy): {names}.")
    sentences += map(_against_c, found.as_code)
    if found.outside:
        sentences.append(f"Outside tolerance: {listed(_outside(row) for row in found.outside)}.")
    if found.unverified:
        names = listed(dict.fromkeys(label(row) for row in found.unverified))
        sentences.append(f"Not verified, so not considered above: {names}.")
    if found.failed:
        names = listed(f"{failure.subject} ({failure.stage})" for failure in found.failed)
        sentences.append(f"{units.count(len(found.failed))} failed: {names}.")
    if found.unsupported:
        number = units.counted(len(found.unsupported), "combination")
        sentences.append(f"Not tried: {number} that cannot work, listed below with the reason.")
    return tuple(sentences)


def _smallest(rows: tuple[Row, ...], reference: FloatAccuracy | None) -> str:
    first = rows[0]
    names = listed(row.name for row in rows)
    assert first.size_bytes is not None
    text = f"Smallest within tolerance: {names}, {units.kib(first.size_bytes)} KiB"
    if len(rows) > 1:
        text += " each"
    if first.size_ratio is not None and first.size_ratio != 1:
        text += f", {units.ratio(first.size_ratio)} times the size of float32 in the same format"
    return f"{text}. {_accuracy_sentence(first, reference)}"


def _accuracy_sentence(row: Row, reference: FloatAccuracy | None) -> str:
    assert row.accuracy is not None  # within tolerance means verified, and verification counts right answers
    text = f"Accuracy of {row.name}: {units.accuracy(row.accuracy)} %"
    if reference is None or row.accuracy_points is None:
        return f"{text}."
    text += f", {points_text(row)} points to the float Keras model"
    change = row.accuracy_change
    (low, high), (float_low, float_high) = row.accuracy.interval, reference.accuracy.interval
    if change is not None and change.low <= 0 <= change.high:
        text += " (the interval contains 0: no measurable difference)"
    if change is None and low <= float_high and float_low <= high:
        text += " (the intervals overlap: no measurable difference)"
    return f"{text}."


def _fastest(found: Findings, unit: Unit) -> str:
    row = found.fastest
    assert row is not None
    assert row.timing is not None
    assert row.setting is not None
    text = (
        f"Fastest within tolerance ({setting(row.setting)}): {label(row)}, "
        f"median {median_text(row.timing, unit)} {unit.name}"
    )
    ratio = row.time_to_float32
    if ratio is not None and row.scheme != "float32":
        text += f"; time ÷ float32 on the same runtime {estimate_text(ratio)}"
        if difference(ratio) == "none":
            text += " (the interval contains 1: no measurable difference)"
    text += "."
    if row.baseline is not None and row.time_to_baseline is not None:
        elsewhere = f"{row.baseline.model}, {row.baseline.elsewhere}"
        name = row.baseline.name if row.foreign_baseline is None else elsewhere
        text += f" It takes {estimate_text(row.time_to_baseline)} of the time of {name}."
    if found.tied:
        names = listed(f"{label(one.row)} (time ratio {estimate_text(one.ratio)})" for one in found.tied)
        text += f" No measurable difference in time between it and {names}."
    if found.next is not None:
        text += f" {label(found.next.row)} takes {estimate_text(found.next.ratio)} times as long."
    if not found.tied and found.next is None:
        text += " Nothing else within tolerance was measured in this setting."
    return text


def _against_c(one: CodeComparison) -> str:
    """Which is faster on this machine, a runtime or the code that needs none."""
    assert one.litert.setting is not None
    where, name = f"On this machine ({setting(one.litert.setting)})", one.litert.name
    found = difference(one.ratio)
    if found == "slower":
        return (
            f"{where}: LiteRT runs {name} {estimate_text(one.ratio)} times as fast as its C code; the C code is for "
            "devices without an operating system."
        )
    if found == "faster":
        return f"{where}: the C code of {name} runs {estimate_text(inverse(one.ratio))} times as fast as LiteRT."
    return (
        f"{where}: no measurable difference between the C code of {name} and LiteRT "
        f"(time ratio {estimate_text(one.ratio)})."
    )


def _outside(row: Row) -> str:
    reasons = "; ".join(row.violations) or "loses more accuracy to float Keras than is allowed"
    return f"{label(row)} ({reasons})"


def side_by_side(parts: tuple[Page, ...]) -> Grid:
    """The medians of all reports, one column each: what has the same name and setting stands in one row."""
    unit = units.unit_for(row.timing.median for part in parts for row in part.rows if row.timing is not None)
    found: dict[tuple[str, str, Setting], dict[str, Row]] = {}
    for part in parts:
        for row in part.rows:
            if row.kind == "result" and row.setting is not None:
                found.setdefault((row.name, row.runtime or "", row.setting), {}).setdefault(part.letter, row)

    def name(rows: dict[str, Row]) -> Cell:
        first, *others = rows.values()
        differing = any(row.sha256 != first.sha256 for row in others)
        return Cell(first.name, notes=("the files differ: their hashes are not equal",) if differing else ())

    def median(part: Page) -> Column:
        def cell(rows: dict[str, Row]) -> Cell:
            row = rows.get(part.letter)
            return Cell(units.ABSENT) if row is None or row.timing is None else tables.median_cell(row.timing, unit)

        return Column(f"{part.letter}, {unit.name} [95 %]", cell, numeric=True)

    machines = {part.environment.machine for part in parts}
    caption = (
        "Median time of one call. The columns come from different machines: they are shown side by side and not ranked."
        if len(machines) > 1
        else "Median time of one call. The columns are separate measurements on one machine and share no rounds, so "
        "small differences between them mean nothing; `edgecnn compare` judges them."
    )
    columns = (
        Column("artifact", name, "artifact"),
        Column("runtime [setting]", lambda rows: tables.runtime_cell(next(iter(rows.values()))), "runtime"),
        *map(median, parts),
    )
    return laid_out(caption, columns, [*found.values()])


def _cautions(report: Report) -> tuple[str, ...]:
    """What makes the whole report less than it should be."""
    interrupted = ("the measurement was interrupted: rows are missing or short",) if report.unfinished else ()
    wrong = (
        f"{one.artifact} answers otherwise on {one.processor}, {one.violations[0]}"
        for one in report.processors
        if one.violations
    )
    return (*interrupted, *wrong, *(machine_warnings(report.environment) if report.rows else ()))


def _facts(report: Report) -> Pairs:
    return (
        (
            "data",
            "none: only latency was measured"
            if report.data is None
            else f"{report.data}, {units.counted(report.test_images, 'test image')}",
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
            f"{units.accuracy(reference.accuracy)} % ({reference.source})."
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
            f"p99 needs {units.count(P99_SAMPLES)} samples. {samples}"
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
            "Time divided by the time of the float Keras model, on a GPU where one was measured, with the same layers, "
            "shapes and batch, whatever its weights. A recorded baseline shares no rounds with these rows: what is "
            "uncertain about either median adds up in the interval. One from another machine is marked with it "
            "and takes part in no ranking."
        ),
        "accuracy − baseline": (
            "Paired where both have the same weights and say which images they got right (Bonett and Price's "
            "interval). Models stumble over the same images, so the pairs tell differences that the two intervals "
            "alone cannot."
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
    return tuple(terms.items())


def _allowed(rows: tuple[Row, ...]) -> str:
    allowed = next((row.allowed_drop for row in rows if row.allowed_drop is not None), None)
    return (
        "the verification allows"
        if allowed is None
        else f"{units.percent(allowed / 100)} points, the most any tolerance allows"
    )


def _environments(report: Report) -> tuple[tuple[str, Pairs], ...]:
    listed = [("This machine", _environment(report.environment))]
    for baseline in report.baselines:
        title = f"Baseline {baseline.model}, {baseline.backend} on {baseline.device}"
        note = () if baseline.note is None else (("about this record", baseline.note),)
        listed.append((title, (*_environment(baseline.environment), *note)))
    return tuple(listed)


def _environment(environment: Environment) -> Pairs:
    unknown = "not known"
    memory, load = environment.memory_bytes, environment.load_1min
    quota, limit, frequency = environment.cpu_quota, environment.memory_limit_bytes, environment.frequency_hz
    versions = ", ".join(f"{name} {version}" for name, version in sorted(environment.versions.items()))
    return (
        ("machine", environment.machine),
        ("system", environment.system),
        ("processor", environment.cpu or unknown),
        ("processor features", ", ".join(environment.cpu_features) or unknown),
        ("cores", f"{environment.cores}, of which {environment.usable_cores} usable"),
        ("cores allowed", ", ".join(map(str, environment.affinity)) or unknown),
        ("container's limit of cores", "none known" if quota is None else units.tick(quota)),
        ("memory", unknown if memory is None else units.gib(memory)),
        ("container's limit of memory", "none known" if limit is None else units.gib(limit)),
        ("graphics processor", environment.gpu or "none found"),
        ("frequency governor", environment.governor or unknown),
        ("frequency range", unknown if frequency is None else units.gigahertz(frequency)),
        ("load before measuring", unknown if load is None else f"{load:.2f} (1 minute)"),
        ("Python", environment.python),
        ("packages", versions or unknown),
    )


def _reproduce(report: Report) -> tuple[str, ...]:
    return (
        "Every sample behind these numbers is in report.json beside this file. "
        "`edgecnn report report.json --out DIR` computes all tables from it again.",
        f"`edgecnn run CONFIG.toml --out DIR` with the same configuration and seed {report.seed} measures "
        "again. Times differ between machines and a little between runs; sizes and hashes belong to the "
        "versions listed under “Environment”.",
        "Data: none, only latency was measured."
        if report.data is None
        else f"Data: {report.data}, SHA-256 {report.data_sha256}.",
    )


def _span(numbers: Sequence[int], noun: str) -> str:
    low, high = min(numbers), max(numbers)
    return units.counted(low, noun) if low == high else f"{units.count(low)} to {units.counted(high, noun)}"
