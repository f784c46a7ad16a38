"""The content of a report as plain text and tables, independent of the output format."""

from collections.abc import Sequence

import msgspec

from edgecnn.measure.statistics import P99_SAMPLES, difference, inverse, machine_warnings
from edgecnn.records import Emulated, Environment, LayerErrors, Report, TaskName
from edgecnn.report import tables, units
from edgecnn.report.grid import Cell, Column, Grid, Pairs, label, laid_out, letters, listed, machine, setting
from edgecnn.report.rows import (
    BaselineComparison,
    CodeComparison,
    Findings,
    FloatAccuracy,
    MeasuredRow,
    Recommendation,
    ResultRow,
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
    """A whole report as text and tables.

    ``rows``, ``versus``, ``unit``, ``layer_errors`` and ``costs`` are the numbers for the figures.

    If a page shows several reports, ``letter`` names this one, ``others`` are the others, and ``side_by_side`` compares
    the times of all of them.
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
    """The page of ``report`` and of its ``others``."""
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
    unit = units.unit_for(row.timing.median for row in rows if isinstance(row, MeasuredRow))
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
        failed=tables.failures("Failures and their reasons", found.failed),
        unsupported=tables.failures("Unsupported combinations, skipped", found.unsupported),
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
    """The prefix of all exported files: the model's name and a dash; empty if there are several models."""
    models = {
        row.name.removesuffix(f"{row.scheme}.{row.format}")
        for row in page.rows
        if isinstance(row, ResultRow) and row.format != "keras"
    }
    return models.pop() if len(models) == 1 else ""


def heading(page: Page) -> str:
    """The title of the whole document."""
    return f"{len(page.parts)} reports side by side" if page.others else page.title


def titled(page: Page) -> str:
    """A report's title, preceded by its letter if there are several reports."""
    return f"{page.letter}: {page.title}" if page.letter else page.title


def verdict(found: Findings, reference: FloatAccuracy | None, unit: Unit) -> tuple[str, ...]:
    """The verdict as sentences, one string per point."""
    sentences = []
    if found.setting is None:
        sentences.append("No exported file was measured.")
    elif found.fastest is None:
        sentences.append("No measured artifact is verified as within tolerance and accurate, so none is recommended.")
    sentences += [_recommended(one, unit) for one in found.recommended]
    if found.smallest:
        sentences.append(_smallest(found.smallest, reference))
    if found.fastest is not None:
        sentences.append(_fastest(found.fastest, found, unit))
        if found.fastest.sha256 not in {row.sha256 for row in found.smallest}:
            sentences[-1] += f" {_accuracy_sentence(found.fastest, reference)}"
    if len(found.front) > 1:
        names = listed(label(row) for row in found.front)
        sentences.append(f"Pareto front (no other row is better in both time and accuracy): {names}.")
    sentences += map(_against_c, found.as_code)
    if found.guesses:
        names = listed(dict.fromkeys(row.name for row in found.guesses))
        sentences.append(f"No better than guessing, so not recommended: {names}. Train the model longer.")
    if found.weak and found.best is not None:
        names = listed(dict.fromkeys(row.name for row in found.weak))
        sentences.append(f"Clearly less accurate than {found.best.name}, so not recommended: {names}.")
    if found.outside:
        reasons = dict.fromkeys(reason for row in found.outside for reason in _outside(row))
        sentences += [f"Outside tolerance: {reason}." for reason in reasons]
    if found.unverified:
        names = listed(dict.fromkeys(label(row) for row in found.unverified))
        sentences.append(f"Not verified, so not ranked: {names}.")
    if found.failed:
        names = listed(f"{failure.subject} ({failure.stage})" for failure in found.failed)
        sentences.append(f"{units.count(len(found.failed))} failed: {names}.")
    if found.unsupported:
        number = units.counted(len(found.unsupported), "combination")
        sentences.append(f"Skipped: {number}, not supported for the reasons below.")
    return tuple(sentences)


def _recommended(one: Recommendation, unit: Unit) -> str:
    row = one.row
    assert row.accuracy is not None  # only verified rows are recommended
    facts = [f"{row.accuracy.metric} {units.accuracy(row.accuracy)} %"]
    if (change := points_text(row)) is not None:
        facts.append(f"{change} points to the float Keras model")
    if one.device == "microcontroller":
        if not one.costs:
            facts.append(f"weights {units.kib(row.size_bytes)} KiB")
        facts += [
            f"flash {units.kib(cost.flash_bytes)} KiB, RAM {units.kib(cost.ram_bytes)} KiB and "
            f"{units.millions(cost.instructions)} million instructions on {cost.target}"
            for cost in one.costs
        ]
    else:
        facts += [
            f"{units.kib(row.size_bytes)} KiB",
            f"median {median_text(row.timing, unit).value} {unit.name} on {row.runtime} here",
        ]
    return f"For a {one.device}: {row.name}: {', '.join(facts)}."


def _smallest(rows: tuple[ResultRow, ...], reference: FloatAccuracy | None) -> str:
    first = rows[0]
    names = listed(row.name for row in rows)
    text = f"Smallest within tolerance: {names}, {units.kib(first.size_bytes)} KiB"
    if len(rows) > 1:
        text += " each"
    if first.size_ratio is not None and first.size_ratio != 1:
        text += f", {units.ratio(first.size_ratio)} times the size of float32 in the same format"
    return f"{text}. {_accuracy_sentence(first, reference)}"


def _accuracy_sentence(row: ResultRow, reference: FloatAccuracy | None) -> str:
    assert row.accuracy is not None  # within tolerance means verified, and verification counts accuracy
    metric = row.accuracy.metric
    text = f"{metric.capitalize() if metric.islower() else metric} of {row.name}: {units.accuracy(row.accuracy)} %"
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


def _fastest(row: ResultRow, found: Findings, unit: Unit) -> str:
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
        text += f" Time ÷ float baseline ({name}): {estimate_text(row.time_to_baseline)}."
    if found.tied:
        names = listed(f"{label(one.row)} (time ratio {estimate_text(one.ratio)})" for one in found.tied)
        text += f" No measurable difference in time to {names}."
    if found.next is not None:
        text += f" {label(found.next.row)} takes {estimate_text(found.next.ratio)} times as long."
    if not found.tied and found.next is None:
        text += " No other file within tolerance was measured in this setting."
    return text


def _against_c(one: CodeComparison) -> str:
    """Whether LiteRT or the C code is faster on this machine."""
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


def _outside(row: ResultRow) -> list[str]:
    """A clause for each violated tolerance, with the reference."""
    clauses = [
        f"{label(row)}: {violation}, against {parity.reference}"
        for parity in row.parities
        for violation in parity.violations
    ]
    return clauses or [f"{label(row)}: accuracy drop to float Keras exceeds the limit"]


def side_by_side(parts: tuple[Page, ...]) -> Grid:
    """The medians of all reports, one column per report and one row per name, runtime and setting."""
    unit = units.unit_for(row.timing.median for part in parts for row in part.rows if isinstance(row, MeasuredRow))
    found: dict[tuple[str, str, Setting], dict[str, ResultRow]] = {}
    for part in parts:
        for row in part.rows:
            if isinstance(row, ResultRow):
                found.setdefault((row.name, row.runtime, row.setting), {}).setdefault(part.letter, row)

    def name(rows: dict[str, ResultRow]) -> Cell:
        first, *others = rows.values()
        differing = any(row.sha256 != first.sha256 for row in others)
        return Cell(first.name, notes=("the files differ: their hashes are different",) if differing else ())

    def median(part: Page) -> Column:
        def cell(rows: dict[str, ResultRow]) -> Cell:
            row = rows.get(part.letter)
            return Cell(units.ABSENT) if row is None else tables.median_cell(row.timing, unit)

        return Column(f"{part.letter}, {unit.name} [95 %]", cell, numeric=True)

    machines = {part.environment.machine for part in parts}
    caption = (
        "Median time of one call. The columns come from different machines and are not ranked."
        if len(machines) > 1
        else "Median time of one call. The columns are separate measurements on one machine and share no rounds, so "
        "small differences may be chance; test them with `edgecnn compare`."
    )
    columns = (
        Column("artifact", name, "artifact"),
        Column("runtime [setting]", lambda rows: tables.runtime_cell(next(iter(rows.values()))), "runtime"),
        *map(median, parts),
    )
    return laid_out(caption, columns, [*found.values()])


def _cautions(report: Report) -> tuple[str, ...]:
    """Problems that affect the whole report."""
    interrupted = ("the measurement was interrupted: rows are missing or incomplete",) if report.unfinished else ()
    wrong = (
        f"outputs of {one.artifact} differ on {one.processor}, {one.violations[0]}"
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
    measured = [row.measurement for row in rows if isinstance(row, ResultRow)]
    if reference is None:
        float_text = "The accuracy of the float Keras model is unknown."
    else:
        float_text = (
            "“Points” are the difference in percentage points to the float Keras model: "
            f"{units.accuracy(reference.accuracy)} % ({reference.source})."
        )
    samples = "No row was measured."
    if measured:
        samples = (
            f"Each row has {_span([len(one.samples_s) for one in measured], 'sample')} "
            f"in {_span([len(one.blocks_ns) for one in measured], 'block')}. "
            f"{_span([len(one.warmup_ns) for one in measured], 'warm-up call')} before the first block and at the "
            "start of each block are not used. "
            "Every round measures one block of each row, in random order, so a slowdown of the machine affects all "
            "rows."
        )
    terms = {
        "size": "Size of the model file, bytes ÷ 1,024; of C, that of its weights. Size ÷ float32 below 1 is smaller.",
        "accuracy": (f"{_METRICS[report.task]} In brackets the 95 % interval. {float_text}"),
        "p50, p90, p99": (
            "Median and percentiles of the time of one call of the runtime, with the input already in place; "
            "a call processes the whole batch. In brackets the 95 % interval, from a bootstrap that draws worker "
            "processes and whole blocks of them with replacement; its ends are rounded outwards. "
            f"p99 needs {units.count(P99_SAMPLES)} samples. {samples}"
        ),
        "end to end": (
            "Median time of encode, invoke and decode together: from float images to float outputs, measured in the "
            "same rounds as p50."
        ),
        "images/s": (
            "Number of images ÷ total time of invoke. In the comparison with a baseline: images per second at the "
            "median time, in total and per core (÷ threads, or ÷ usable cores if the runtime chooses the number of "
            "threads)."
        ),
        "start": (
            "In fresh processes: import of the runtime, load of the file until the session is ready, first inference. "
            "Files are in the page cache."
        ),
        "memory, energy": (
            "Memory is peak resident memory minus that of the process before it imported the runtime. Energy is the "
            "reading of a hardware counter, divided by the number of inferences; it is missing if there is no counter."
        ),
        "time ÷ float32": (
            "Time divided by the time of the float32 file of the same format on the same runtime, device, "
            "threads and batch: the median over the rounds of the ratio of the two blocks' medians, with its "
            "95 % bootstrap interval. Below 1 is faster; if the interval contains 1, there is no measurable "
            "difference."
        ),
        "time ÷ float baseline": (
            "Time divided by the time of the float Keras model with the same layers, shapes and batch (weights may "
            "differ), on a GPU if one was measured. A recorded baseline shares no rounds with these rows, so the "
            "interval combines the uncertainties of both medians. A baseline from another machine is marked and not "
            "ranked."
        ),
        "accuracy − baseline": (
            "Paired (Bonett and Price's interval) if both have the same weights and store which images were classified "
            "correctly. Models fail on the same images, so pairs show differences that two separate intervals cannot."
        ),
        "Pareto front": (
            "The rows of one setting for which no other row is at least as fast and as accurate, and better in one of "
            "the two. Medians and counts are compared. Rows outside tolerance are excluded."
        ),
        "parity": (
            "Whether the outputs of the exported file match its reference on the same images, within the tolerance "
            "in the verification table. The limits of same top class and accuracy drop count as violated only if "
            "chance does not explain it (95 %)."
        ),
        "within tolerance": (
            "Every verification of the file on that runtime passes, and its accuracy drop to the float Keras model "
            f"is at most {_allowed(rows)}."
        ),
    }
    return tuple(terms.items())


_METRICS: dict[TaskName, str] = {
    "classification": "Top-1 accuracy of the exported file on the row's runtime.",
    "multilabel": "The share of right labels, decided at 0.5; AUC is the mean over the labels.",
    "segmentation": "mIoU: mean intersection over union of the classes, over all pixels of all test images.",
    "regression": "R²: 1 − squared error ÷ variance, the mean over the outputs. MAE and RMSE: in the labels' unit.",
    "reconstruction": (
        "AUC of the error if the labels have anomalies; else R²: 1 − squared error ÷ variance. MSE: mean squared error."
    ),
    "custom": "What your own metric gives.",
    "several": "The mean of the scores of the outputs, which are in columns of their own.",
}


def _allowed(rows: tuple[Row, ...]) -> str:
    allowed = next((row.allowed_drop for row in rows if isinstance(row, ResultRow)), None)
    return (
        "what the verification allows"
        if allowed is None
        else f"{units.percent(allowed / 100)} points, the loosest of all tolerances"
    )


def _environments(report: Report) -> tuple[tuple[str, Pairs], ...]:
    listed = [("This machine", _environment(report.environment))]
    for baseline in report.baselines:
        title = f"Baseline {baseline.model}, {baseline.backend} on {baseline.device}"
        note = () if baseline.note is None else (("about this record", baseline.note),)
        listed.append((title, (*_environment(baseline.environment), *note)))
    return tuple(listed)


def _environment(environment: Environment) -> Pairs:
    unknown = "unknown"
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
        ("container CPU limit, cores", "none known" if quota is None else units.tick(quota)),
        ("memory", unknown if memory is None else units.gib(memory)),
        ("container memory limit", "none known" if limit is None else units.gib(limit)),
        ("GPU", environment.gpu or "none found"),
        ("frequency governor", environment.governor or unknown),
        ("frequency range", unknown if frequency is None else units.gigahertz(frequency)),
        ("load before measuring", unknown if load is None else f"{load:.2f} (1 minute)"),
        ("Python", environment.python),
        ("packages", versions or unknown),
    )


def _reproduce(report: Report) -> tuple[str, ...]:
    return (
        "All samples are in report.json in the same folder. "
        "`edgecnn report report.json --out DIR` computes all tables from it.",
        f"`edgecnn run CONFIG.toml --out DIR` with the same configuration and seed {report.seed} repeats the "
        "measurement. Times differ between machines and slightly between runs; sizes and hashes depend on the "
        "versions listed under “Environment”.",
        "Data: none, only latency was measured."
        if report.data is None
        else f"Data: {report.data}, SHA-256 {report.data_sha256}.",
    )


def _span(numbers: Sequence[int], noun: str) -> str:
    low, high = min(numbers), max(numbers)
    return units.counted(low, noun) if low == high else f"{units.count(low)} to {units.counted(high, noun)}"
