"""The tables of a report; each column is a function from a row or record to a cell."""

from collections.abc import Callable, Iterable
from typing import Any

from edgecnn.measure.comparison import best_batch
from edgecnn.measure.statistics import end_to_end, summary
from edgecnn.records import (
    Accuracy,
    ColdStart,
    Difference,
    Emulated,
    Estimate,
    Failure,
    LayerError,
    LayerErrors,
    Measurement,
    Parity,
    ProcessorAnswers,
    Report,
    StageTime,
    Summary,
)
from edgecnn.report import units
from edgecnn.report.grid import Cell, Column, Grid, Tone, laid_out, machine, setting
from edgecnn.report.rows import BaselineComparison, FloatBaseline, MeasuredRow, MissingBaseline, ResultRow, Row
from edgecnn.report.units import Unit
from edgecnn.tasks import is_share


def results(rows: tuple[Row, ...], unit: Unit) -> Grid:
    """The main table: identity, accuracy and latency of every row."""

    def shown(field: str, cell: Callable[[MeasuredRow], Cell]) -> Callable[[Row], Cell]:
        """``cell`` of a row, with the reason as a note if ``field`` is absent."""

        def of(row: Row) -> Cell:
            if isinstance(row, MissingBaseline):
                return Cell(units.ABSENT)
            found = cell(row)
            if found.text == units.ABSENT and field in row.absent:
                return found.noted((row.absent[field],))
            return found

        return of

    def compared(field: str, cell: Callable[[ResultRow], Cell]) -> Callable[[Row], Cell]:
        """As ``shown``, for fields that only result rows have."""
        return shown(field, lambda row: cell(row) if isinstance(row, ResultRow) else Cell(units.ABSENT))

    def p50(row: MeasuredRow) -> Cell:
        return median_cell(row.timing, unit).noted(row.warnings, of=f"row {row.number}")

    def p99(row: MeasuredRow) -> Cell:
        return Cell(units.ABSENT) if row.timing.p99 is None else _time(row.timing.p99, unit)

    def whole(row: MeasuredRow) -> Cell:
        return Cell(units.ABSENT) if row.end_to_end is None else median_cell(row.end_to_end, unit)

    def parity(row: ResultRow) -> Cell:
        return _parity(row.violations) if row.parities else Cell(units.ABSENT)

    columns = (
        Column("#", _row_number, "number", numeric=True),
        Column("artifact", _name, "artifact"),
        Column(
            _score(row.accuracy for row in rows if isinstance(row, MeasuredRow)),
            shown("accuracy", lambda row: _accuracy(row.accuracy)),
            "accuracy",
            numeric=True,
            optional=True,
        ),
        Column(f"p50, {unit.name} [95 %]", shown("p50", p50), "p50", numeric=True),
        Column(
            "size, KiB", compared("size_bytes", lambda row: _number(row.size_bytes, units.kib)), "size", numeric=True
        ),
        Column(
            "size ÷ float32 (same format)",
            compared("size_ratio", lambda row: _number(row.size_ratio, units.ratio)),
            "size_ratio",
            numeric=True,
            optional=True,
        ),
        Column("runtime [setting]", runtime_cell, "runtime"),
        Column("scheme", shown("scheme", lambda row: Cell(row.scheme))),
        *_further(rows),
        Column("points to float Keras", shown("accuracy_points", _points), "points", numeric=True, optional=True),
        Column(
            "time ÷ float32 (same runtime)",
            compared("time_to_float32", lambda row: _estimate(row.time_to_float32)),
            "to_float32",
            numeric=True,
            optional=True,
        ),
        Column(
            "time ÷ float baseline",
            compared("time_to_baseline", _to_baseline),
            "to_baseline",
            numeric=True,
            optional=True,
        ),
        Column("parity", compared("parity", parity), "parity", optional=True),
        Column(f"p90, {unit.name} [95 %]", shown("p90", lambda row: _time(row.timing.p90, unit)), numeric=True),
        Column(f"p99, {unit.name} [95 %]", shown("p99", p99), "p99", numeric=True, optional=True),
        Column(
            f"end to end, {unit.name} [95 %]",
            shown("end_to_end", whole),
            "end_to_end",
            numeric=True,
            optional=True,
        ),
        Column("images/s", shown("images_per_s", lambda row: _number(row.timing.throughput, units.rate)), numeric=True),
    )
    return laid_out("In the “time ÷” columns, below 1 is faster than the reference, above 1 slower.", columns, rows)


def _score(found: Iterable[Accuracy | None]) -> str:
    """The title of a column of scores."""
    return f"{units.metric(found)} [95 %]"


def _further(rows: tuple[Row, ...]) -> tuple[Column, ...]:
    """A column for each further metric."""
    scores = {row.number: dict(row.accuracy.more) for row in rows if isinstance(row, MeasuredRow) and row.accuracy}

    def column(name: str) -> Column:
        text = units.percent if is_share(name) else units.significant
        title = f"{name}, %" if is_share(name) else name
        return Column(title, lambda row: _number(scores.get(row.number, {}).get(name), text), name, numeric=True)

    return tuple(map(column, dict.fromkeys(name for found in scores.values() for name in found)))


def _tone(row: Row) -> Tone:
    return "" if isinstance(row, ResultRow) else "aside"


def _row_number(row: Row) -> Cell:
    return Cell(units.count(row.number), tone=_tone(row), value=row.number)


def _name(row: Row) -> Cell:
    notes: tuple[str, ...] = ()
    if isinstance(row, MissingBaseline):
        notes = (row.reason,)
    elif row.elsewhere is not None:
        notes = (f"{row.elsewhere} ({row.environment.machine}): never ranked",)
    return Cell(row.name, notes=notes, tone=_tone(row))


def runtime_cell(row: Row) -> Cell:
    """A row's runtime, with the setting in brackets."""
    return Cell(units.ABSENT) if isinstance(row, MissingBaseline) else Cell(row.runtime, f"[{setting(row.setting)}]")


def _points(row: MeasuredRow) -> Cell:
    text = points_text(row)
    return Cell(units.ABSENT) if text is None else _interval(text, row.accuracy_points)


def _to_baseline(row: ResultRow) -> Cell:
    if row.time_to_baseline is None or row.baseline is None:
        return Cell(units.ABSENT)
    text = f"divided by {row.baseline.name}"
    if row.foreign_baseline is not None:
        text = f"divided by {row.baseline.model}, {row.baseline.elsewhere} ({row.foreign_baseline.machine})"
    return _estimate(row.time_to_baseline).noted((text,))


def measurement(found: Measurement, unit: Unit) -> Grid:
    """One measurement without its report."""
    timing, whole = summary(found), end_to_end(found)
    columns = (
        Column("artifact", lambda one: Cell(one.artifact)),
        Column("runtime [setting]", lambda one: Cell(one.runtime, f"[{setting(one)}]")),
        Column(f"p50, {unit.name} [95 %]", lambda _: median_cell(timing, unit), numeric=True),
        Column(f"p90, {unit.name} [95 %]", lambda _: _time(timing.p90, unit), numeric=True),
        Column(
            f"p99, {unit.name} [95 %]",
            lambda _: Cell(units.ABSENT) if timing.p99 is None else _time(timing.p99, unit),
            numeric=True,
            optional=True,
        ),
        Column(
            f"end to end, {unit.name} [95 %]",
            lambda _: Cell(units.ABSENT) if whole is None else median_cell(whole, unit),
            numeric=True,
            optional=True,
        ),
        Column("images/s", lambda _: _number(timing.throughput, units.rate), numeric=True),
        Column("samples", lambda _: _number(timing.samples, units.count), numeric=True),
    )
    return laid_out("Latency of one file on one runtime.", columns, [found])


def resources(rows: tuple[Row, ...]) -> Grid:
    """Cold start, memory and energy of every row; columns without any values are omitted."""

    def cold(part: Callable[[ColdStart], float]) -> Callable[[ResultRow], Cell]:
        def cell(row: ResultRow) -> Cell:
            return _number(None if row.cold_start is None else part(row.cold_start), _milliseconds)

        return cell

    def optional(title: str, cell: Callable[[ResultRow], Cell], key: str) -> Column:
        return Column(title, cell, key, numeric=True, optional=True)

    columns = (
        Column("#", lambda row: _number(row.number, units.count), "number", numeric=True),
        Column("artifact", lambda row: Cell(row.name), "artifact"),
        Column("runtime [setting]", runtime_cell, "runtime"),
        optional("import, ms", cold(lambda start: start.import_s), "import"),
        optional("load, ms", _load, "load"),
        optional("first inference, ms", cold(lambda start: start.first_s), "first"),
        optional("to the first answer, ms", _first_answer, "cold"),
        optional("memory, MiB", lambda row: _number(row.memory_bytes, units.mib), "memory"),
        optional("runtime's arena, KiB", _arena, "arena"),
        optional("energy, mJ per inference", _energy, "energy"),
    )
    return laid_out(
        "Start of a fresh process (medians), its peak memory above the empty process, and the energy per inference if "
        "a hardware counter could be read.",
        columns,
        [row for row in rows if isinstance(row, ResultRow)],
    )


def _load(row: ResultRow) -> Cell:
    return _number(row.measurement.load_s if row.cold_start is None else row.cold_start.load_s, _milliseconds)


def _first_answer(row: ResultRow) -> Cell:
    if row.cold_start is None:
        return Cell(units.ABSENT)
    fresh = f"medians of {units.count(len(row.measurement.cold_starts))} fresh processes"
    return _number(cold_total(row.cold_start), _milliseconds).noted((fresh,))


def _arena(row: ResultRow) -> Cell:
    memory = row.measurement.memory
    return _number(None if memory is None else memory.arena_bytes, units.kib)


def _energy(row: ResultRow) -> Cell:
    energy = row.measurement.energy
    if energy is None:
        return Cell(units.ABSENT)
    counter = (
        f"{energy.counter}, which covers everything that runs on the processor package, over "
        f"{units.counted(energy.inferences, 'inference')}"
    )
    return _number(row.joules, units.millijoules).noted((counter,), of=f"row {row.number}")


def cold_total(cold: ColdStart) -> float:
    """Seconds to the first output."""
    return cold.import_s + cold.load_s + cold.first_s


def emulated(costs: tuple[Emulated, ...]) -> Grid:
    """Cost of artifacts as C on emulated processors."""

    def target(cost: Emulated) -> Cell:
        return Cell(cost.target, notes=(f"{cost.compiler} {cost.opt}, {cost.emulator}",))

    def counted(title: str, number: Callable[[Emulated], int | None], key: str) -> Column:
        return Column(title, lambda cost: _number(number(cost), units.count), key, numeric=True)

    columns = (
        Column("artifact", lambda cost: Cell(cost.artifact), "artifact"),
        Column("processor", target),
        Column(
            "instructions, millions",
            lambda cost: _number(cost.instructions, units.millions),
            "instructions",
            numeric=True,
        ),
        counted("code, bytes", lambda cost: cost.code_bytes, "code"),
        counted("flash, bytes", lambda cost: cost.flash_bytes, "flash"),
        counted("RAM, bytes", lambda cost: cost.ram_bytes, "ram"),
        counted("of it arena, bytes", lambda cost: cost.arena_bytes, "arena"),
        counted("stack, bytes", lambda cost: cost.stack_bytes, "stack"),
    )
    return laid_out(
        "Each int8 file as C: the instructions of one inference of random bytes, executed by QEMU. QEMU models no "
        "pipeline, memory or cache, so instruction counts are not timings. Code excludes weights, flash includes them. "
        "RAM is that of the model, without stack, input and output.",
        columns,
        costs,
    )


def processors(answers: tuple[ProcessorAnswers, ...]) -> Grid:
    """Outputs of model files on emulated processors."""

    def parity(one: ProcessorAnswers) -> Cell:
        return _parity(("; ".join(one.violations),) if one.violations else ())

    columns = (
        Column("artifact", lambda one: Cell(one.artifact), "artifact"),
        Column("processor", lambda one: Cell(one.processor, notes=(_emulated_by(one),)), "processor"),
        Column(
            _score(one.against_here.accuracy for one in answers),
            lambda one: _accuracy(one.against_here.accuracy),
            "accuracy",
            numeric=True,
        ),
        *_differences("here", lambda one: one.against_here.difference, ("largest", "mean", "agreement")),
        *_differences("Keras", lambda one: one.against_reference.difference, ("", "", "")),
        Column(
            "instructions, millions",
            lambda one: _number(one.instructions, units.millions),
            "instructions",
            numeric=True,
        ),
        Column("parity", parity, "parity"),
    )
    return laid_out(
        "Each file in the runtime's build for that processor, emulated by QEMU: differences to the same file "
        "on this machine (“here”) and to its Keras model, and the executed instructions of one inference, which are "
        "not a timing. LSB are quantisation steps of the output; differences of float outputs are in the output's "
        "unit.",
        columns,
        answers,
    )


def _differences(
    to: str, of: Callable[[ProcessorAnswers], Difference], keys: tuple[str, str, str]
) -> tuple[Column, Column, Column]:
    """Columns for the largest and the mean difference, and for the share of images with the same top class."""
    same = f"same top class as {to}, %"
    return (
        Column(f"largest difference to {to}", lambda one: _largest(of(one)), keys[0], numeric=True),
        Column(f"mean difference to {to}", lambda one: _mean(of(one)), keys[1], numeric=True),
        Column(same, lambda one: _number(of(one).agreement, units.percent), keys[2], numeric=True),
    )


def _largest(difference: Difference) -> Cell:
    if difference.max_lsb is None:
        return _number(difference.max_abs, units.significant)
    return Cell(f"{units.count(difference.max_lsb)} LSB", value=difference.max_lsb)


def _mean(difference: Difference) -> Cell:
    if difference.mean_lsb is None:
        return _number(difference.mean_abs, units.significant)
    return Cell(f"{units.significant(difference.mean_lsb)} LSB", value=difference.mean_lsb)


def _emulated_by(answers: ProcessorAnswers) -> str:
    other = "" if answers.runtime == answers.runtime_here else f" (this machine has {answers.runtime_here})"
    images = units.counted(answers.against_here.difference.images, "test image")
    return f"{answers.runtime}{other}, {answers.emulator}, {images}"


def baselines(beside: tuple[BaselineComparison, ...], unit: Unit) -> Grid:
    """The float baselines that rows are compared with, each once."""
    listed: list[FloatBaseline] = []
    for one in beside:
        if one.baseline not in listed:
            listed.append(one.baseline)

    def copies(one: FloatBaseline) -> Cell:
        timing = end_to_end(one.record.measurement)
        return Cell(units.ABSENT) if timing is None else median_cell(timing, unit)

    def tensor_float_32(one: FloatBaseline) -> Cell:
        return Cell({None: units.ABSENT, True: "allowed", False: "not allowed"}[one.record.tensor_float_32])

    columns = (
        Column("baseline", lambda one: Cell(one.name), "artifact"),
        Column("machine", lambda one: Cell(machine(one.record.environment)), "machine"),
        Column(
            f"batch 1, on the device, {unit.name} [95 %]",
            lambda one: median_cell(summary(one.record.measurement), unit),
            numeric=True,
        ),
        Column(f"with copies from and to the host, {unit.name} [95 %]", copies, "copies", numeric=True, optional=True),
        Column(
            "most images/s",
            lambda one: _number(summary(best_batch(one.record)).throughput, units.rate),
            numeric=True,
        ),
        Column("at batch", lambda one: _number(best_batch(one.record).batch, units.count), numeric=True),
        Column(_score(one.record.accuracy for one in listed), lambda one: _accuracy(one.record.accuracy), numeric=True),
        Column(
            "peak device memory, MiB",
            lambda one: _number(one.record.peak_device_bytes, units.mib),
            "device_memory",
            numeric=True,
            optional=True,
        ),
        Column("compiled with", lambda one: Cell(one.record.compiled_with or units.ABSENT), "compiled", optional=True),
        Column("TensorFloat-32", tensor_float_32, "tf32", optional=True),
    )
    caption = "The float Keras model that the rows are compared with. These rows are not ranked."
    return laid_out(caption, columns, listed)


def against(beside: tuple[BaselineComparison, ...]) -> Grid:
    """Every row compared with every float baseline."""

    def quotient(field: str) -> Callable[[BaselineComparison], Cell]:
        def of(one: BaselineComparison) -> Cell:
            estimate = getattr(one.found, field)
            return Cell(units.ABSENT, notes=(one.found.absent[field],)) if estimate is None else _estimate(estimate)

        return of

    def accuracy(one: BaselineComparison) -> Cell:
        change = one.found.accuracy
        if change is None:
            return Cell(units.ABSENT, notes=(one.found.absent["accuracy"],))
        text = units.points_interval(change.value, change.low, change.high)
        return _interval(text, change.value).noted(() if change.note is None else (change.note,))

    def baseline(one: BaselineComparison) -> Cell:
        return Cell(one.baseline.name, notes=() if one.found.here else (one.baseline.elsewhere,))

    columns = (
        Column("#", lambda one: _number(one.row.number, units.count), "number", numeric=True),
        Column("artifact", lambda one: Cell(one.row.name), "artifact"),
        Column("runtime [setting]", lambda one: runtime_cell(one.row), "runtime"),
        Column("baseline", baseline, "baseline"),
        Column("time ÷ baseline [95 %]", quotient("latency"), numeric=True),
        Column(
            "end to end ÷ baseline with copies [95 %]",
            quotient("latency_with_copies"),
            "copies",
            numeric=True,
            optional=True,
        ),
        Column("images/s ÷ baseline's most [95 %]", quotient("throughput"), numeric=True),
        Column(
            "end to end, images/s ÷ baseline's most with copies [95 %]",
            quotient("throughput_with_copies"),
            "copied",
            numeric=True,
            optional=True,
        ),
        Column("accuracy − baseline, points [95 %]", accuracy, numeric=True),
        Column("images/s", lambda one: _number(one.found.images_per_s, units.rate), numeric=True),
        Column(
            "images/s per core",
            lambda one: _number(one.found.images_per_s_per_core, units.rate),
            numeric=True,
        ),
    )
    return laid_out(
        "Each row compared with each float baseline. A row faster than the baseline is below 1 in a “time ÷” column "
        "and above 1 in “images/s ÷”.",
        columns,
        beside,
    )


def layers(errors: LayerErrors) -> Grid:
    """The errors inside one int8 file, the worst layer first."""

    def noise(title: str, of: Callable[[LayerError], float | None]) -> Column:
        def cell(layer: LayerError) -> Cell:
            value = of(layer)
            return Cell(units.decibels(value), value=float("inf") if value is None else value)

        return Column(title, cell, numeric=True)

    def number(title: str, of: Callable[[LayerError], float | None], text: Callable[[float], str]) -> Column:
        return Column(title, lambda layer: _number(of(layer), text), numeric=True)

    def scale(layer: LayerError) -> Cell:
        return Cell("off", tone="bad") if layer.scale_is_off else Cell("fits", tone="good")

    columns = (
        Column("#", lambda layer: _number(layer.position, str), "number", numeric=True),
        Column("operator", lambda layer: Cell(layer.operator), "artifact"),
        noise("own SNR, dB", lambda layer: layer.own_snr_db),
        number("lost to its scale, dB", lambda layer: layer.lost_db, units.decibels),
        number("own error, LSB", lambda layer: layer.own_max_lsb, units.significant),
        noise("SNR up to here, dB", lambda layer: layer.snr_db),
        number("error up to here, LSB", lambda layer: layer.max_lsb, units.significant),
        number("at the low end, %", lambda layer: layer.at_low, units.percent),
        number("at the high end, %", lambda layer: layer.at_high, units.percent),
        number("clipped, %", lambda layer: layer.clipped, units.percent),
        Column("scale", scale, "scale"),
    )
    return laid_out(
        f"{errors.artifact} on {errors.runtime}, {units.counted(errors.images, 'image')} "
        f"({errors.images_from}), worst layer first. Own: error of the layer alone, against float computed on its "
        "actual int8 inputs. Up to here: error of all layers up to this one. "
        f"Output against the {errors.reference}: {units.decibels(errors.weights_snr_db)} dB "
        f"in float with the file's weights, {units.decibels(errors.output_snr_db)} dB in int8.",
        columns,
        errors.layers,
    )


def verification(parities: tuple[Parity, ...]) -> Grid:
    """Every artifact against its references."""

    def number(title: str, of: Callable[[Difference], float | None], text: Callable[[Any], str]) -> Column:
        return Column(title, lambda parity: _number(of(parity.difference), text), numeric=True)

    def steps(title: str, of: Callable[[Difference], float | None], text: Callable[[Any], str]) -> Column:
        def cell(parity: Parity) -> Cell:
            value = of(parity.difference)
            if value is None:
                return Cell(units.ABSENT, notes=("float output: no quantisation steps",))
            return _number(value, text)

        return Column(title, cell, numeric=True)

    score = _score(parity.accuracy for parity in parities)
    columns = (
        Column("artifact", lambda parity: Cell(parity.artifact)),
        Column("runtime", lambda parity: Cell(parity.runtime), "runtime"),
        Column("reference", lambda parity: Cell(parity.reference)),
        number("images", lambda found: found.images, units.count),
        number("max |difference|", lambda found: found.max_abs, units.significant),
        number("mean |difference|", lambda found: found.mean_abs, units.significant),
        steps("max LSB", lambda found: found.max_lsb, units.count),
        steps("mean LSB", lambda found: found.mean_lsb, units.significant),
        steps("within 1 LSB, %", lambda found: found.within_one_lsb, units.percent),
        number("same top class, %", lambda found: found.agreement, units.percent),
        Column(score, lambda parity: _accuracy(parity.accuracy), numeric=True),
        Column(f"reference {score}", lambda parity: _accuracy(parity.reference_accuracy), numeric=True),
        number("worst image, index", lambda found: found.worst_image, str),
        Column("allowed", lambda parity: Cell(_tolerance(parity)), "allowed"),
        Column("parity", lambda parity: _parity(parity.violations)),
    )
    caption = "Each artifact against its reference on the same images. LSB: a step of a quantised output."
    return laid_out(caption, columns, parities)


def _tolerance(parity: Parity) -> str:
    tolerance, found = parity.tolerance, parity.difference
    span = found.span or 1.0  # as in verification, if all reference outputs are equal
    same = "same top class" if found.decisions is None else "same decisions"
    parts = [] if found.agree is None else [f"{same} ≥ {units.percent(tolerance.agreement)} %"]
    parts += [
        f"{parity.accuracy.metric} drop ≤ {units.percent(tolerance.accuracy_drop)} points",
        f"mean ≤ {units.significant(tolerance.mean_abs * span)}",
    ]
    if tolerance.max_abs is not None:
        parts.append(f"max ≤ {units.significant(tolerance.max_abs * span)}")
    if tolerance.mean_lsb is not None:
        parts.append(f"mean ≤ {units.significant(tolerance.mean_lsb)} LSB")
    return ", ".join(parts)


def failures(caption: str, found: tuple[Failure, ...]) -> Grid:
    """Failures and their reasons."""
    columns = (
        Column("what", lambda failure: Cell(failure.subject)),
        Column("stage", lambda failure: Cell(failure.stage)),
        Column("error", lambda failure: Cell(failure.error)),
        Column("reason", lambda failure: Cell(failure.reason), "reason"),
    )
    return laid_out(caption, columns, found)


def stages(report: Report) -> Grid:
    """The stages of a run and their times, longest first, reused stages last."""
    ordered = sorted(report.stages, key=lambda stage: (stage.reused, -stage.seconds))
    kinds: dict[str, float] = {}
    for stage in report.stages:
        if not stage.reused:
            kind = stage.name.partition("-")[0].replace("outputs", "verify")
            kinds[kind] = kinds.get(kind, 0.0) + stage.seconds
    longest = sorted(kinds, key=lambda kind: -kinds[kind])
    taken = [f"{kind} {units.duration(kinds[kind])}" for kind in longest]
    again = sum(stage.reused for stage in report.stages)

    def outputs(stage: StageTime) -> Cell:
        return Cell("reused from an earlier run" if stage.reused else "made in this run")

    columns = (
        Column("stage", lambda stage: Cell(stage.name)),
        Column("time", lambda stage: Cell(units.duration(stage.seconds), value=stage.seconds), numeric=True),
        Column("outputs", outputs),
    )
    caption = "Stages of the run, longest first: " + ", ".join([*taken, *([f"{again} reused"] if again else [])])
    return laid_out(caption, columns, ordered)


def files(rows: tuple[Row, ...]) -> Grid:
    """The model files of the rows, each once, with its hash."""
    hashes: dict[tuple[str, str], MeasuredRow] = {}
    for row in rows:
        if isinstance(row, MeasuredRow):
            hashes.setdefault((row.name, row.sha256), row)

    def size(row: MeasuredRow) -> Cell:
        return _number(row.size_bytes if isinstance(row, ResultRow) else None, units.count)

    columns = (
        Column("file", lambda row: Cell(row.name)),
        Column("bytes", size, numeric=True),
        Column("SHA-256", lambda row: Cell(row.sha256)),
    )
    return laid_out("Model files of the rows", columns, [*hashes.values()])


def _parity(violations: tuple[str, ...]) -> Cell:
    return Cell("fail", notes=violations, tone="bad") if violations else Cell("pass", tone="good")


def _number(value: float | None, text: Callable[[Any], str]) -> Cell:
    """A cell for a number, or an empty one for ``None``."""
    return Cell(units.ABSENT) if value is None else Cell(text(value), value=float(value))


def _interval(text: units.Interval, value: float | None) -> Cell:
    return Cell(text.value, text.bracket, value=value)


def _accuracy(accuracy: Accuracy | None) -> Cell:
    return Cell(units.ABSENT) if accuracy is None else _interval(units.accuracy(accuracy), accuracy.value)


def _time(time: Estimate, unit: Unit) -> Cell:
    return _interval(units.time_interval(time.value, time.low, time.high, unit), time.value)


def median_cell(timing: Summary, unit: Unit) -> Cell:
    """A median with its interval, without the unit."""
    return _interval(median_text(timing, unit), timing.median)


def _estimate(estimate: Estimate | None) -> Cell:
    return Cell(units.ABSENT) if estimate is None else _interval(estimate_text(estimate), estimate.value)


def points_text(row: MeasuredRow) -> units.Interval | None:
    """A row's accuracy minus that of float Keras, with its interval if the two are paired."""
    change = row.accuracy_change if isinstance(row, ResultRow) else None
    if change is not None:
        return units.points_interval(change.value, change.low, change.high)
    return None if row.accuracy_points is None else units.Interval(units.points(row.accuracy_points))


def median_text(timing: Summary, unit: Unit) -> units.Interval:
    """A median with its interval, without the unit."""
    return units.time_interval(timing.median, timing.low, timing.high, unit)


def estimate_text(estimate: Estimate) -> units.Interval:
    """A ratio with its interval."""
    return units.ratio_interval(estimate.value, estimate.low, estimate.high)


def _milliseconds(seconds: float) -> str:
    return units.time(seconds, units.MILLISECONDS)
