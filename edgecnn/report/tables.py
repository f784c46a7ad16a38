"""The tables of a report: each column says what it shows of a row or a record."""

from collections.abc import Callable
from typing import Any

from edgecnn.bench.comparison import best_batch
from edgecnn.bench.statistics import end_to_end, summary
from edgecnn.records import (
    Accuracy,
    ColdStart,
    Difference,
    Emulated,
    Estimate,
    Failure,
    LayerError,
    LayerErrors,
    Parity,
    ProcessorAnswers,
    Report,
    StageTime,
    Summary,
    Tolerance,
)
from edgecnn.report import units
from edgecnn.report.grid import Cell, Column, Grid, Tone, laid_out, machine, setting
from edgecnn.report.rows import BaselineComparison, FloatBaseline, Row
from edgecnn.report.units import Unit


def results(rows: tuple[Row, ...], unit: Unit) -> Grid:
    """The main table: what every row is, how accurate and how fast."""

    def shown(field: str, cell: Callable[[Row], Cell | None]) -> Callable[[Row], Cell]:
        """What ``cell`` makes of a row, else the reason why its ``field`` is absent."""

        def of(row: Row) -> Cell:
            reason = row.absent.get(field)
            return cell(row) or Cell(units.ABSENT, notes=() if reason is None else (reason,))

        return of

    def text(field: str) -> Callable[[Row], Cell]:
        return shown(field, lambda row: None if getattr(row, field) is None else Cell(getattr(row, field)))

    def number(field: str, text: Callable[[Any], str]) -> Callable[[Row], Cell]:
        return shown(field, lambda row: None if getattr(row, field) is None else _number(getattr(row, field), text))

    def timed(field: str, of: Callable[[Summary], Estimate | None]) -> Callable[[Row], Cell]:
        def cell(row: Row) -> Cell | None:
            time = None if row.timing is None else of(row.timing)
            return None if time is None else _time(time, unit)

        return shown(field, cell)

    def p50(row: Row) -> Cell | None:
        if row.timing is None:
            return None
        return median_cell(row.timing, unit).noted(row.warnings, of=f"row {row.number}")

    def parity(row: Row) -> Cell | None:
        return _parity(row.violations) if row.parities else None

    columns = (
        Column("#", _row_number, "number", numeric=True),
        Column("artifact", _name, "artifact"),
        Column("scheme", text("scheme")),
        Column("runtime [setting]", runtime_cell, "runtime"),
        Column("size, KiB", number("size_bytes", units.kib), "size", numeric=True),
        Column(
            "size ÷ float32 (same format)",
            number("size_ratio", units.ratio),
            "size_ratio",
            numeric=True,
            optional=True,
        ),
        Column(
            "accuracy, % [95 %]",
            shown("accuracy", lambda row: None if row.accuracy is None else _accuracy(row.accuracy)),
            "accuracy",
            numeric=True,
            optional=True,
        ),
        Column("points to float Keras", shown("accuracy_points", _points), "points", numeric=True, optional=True),
        Column(f"p50, {unit.name} [95 %]", shown("p50", p50), "p50", numeric=True),
        Column(
            "time ÷ float32 (same runtime)",
            shown("time_to_float32", _to_float32),
            "to_float32",
            numeric=True,
            optional=True,
        ),
        Column(
            "time ÷ float baseline",
            shown("time_to_baseline", _to_baseline),
            "to_baseline",
            numeric=True,
            optional=True,
        ),
        Column("parity", shown("parity", parity), "parity", optional=True),
        Column(f"p90, {unit.name} [95 %]", timed("p90", lambda timing: timing.p90), numeric=True),
        Column(f"p99, {unit.name} [95 %]", timed("p99", lambda timing: timing.p99), "p99", numeric=True, optional=True),
        Column(
            f"end to end, {unit.name} [95 %]",
            shown("end_to_end", lambda row: None if row.end_to_end is None else median_cell(row.end_to_end, unit)),
            "end_to_end",
            numeric=True,
            optional=True,
        ),
        Column("images/s", shown("images_per_s", _throughput), numeric=True),
    )
    return laid_out("Below 1 in a “time ÷” column is faster than what it is divided by, above 1 slower.", columns, rows)


def _tone(row: Row) -> Tone:
    return "" if row.kind == "result" else "aside"


def _row_number(row: Row) -> Cell:
    return Cell(units.count(row.number), tone=_tone(row), value=row.number)


def _name(row: Row) -> Cell:
    notes = (row.absent["measurement"],) if row.kind == "no baseline" else ()
    if row.elsewhere is not None:
        notes = (f"{row.elsewhere} ({row.environment.machine}): never ranked",)
    return Cell(row.name, notes=notes, tone=_tone(row))


def runtime_cell(row: Row) -> Cell:
    """Where a row ran: its runtime, and the setting in brackets."""
    return Cell(units.ABSENT) if row.setting is None else Cell(row.runtime or "", f"[{setting(row.setting)}]")


def _points(row: Row) -> Cell | None:
    text = points_text(row)
    return None if text is None else _interval(text, row.accuracy_points)


def _to_float32(row: Row) -> Cell | None:
    return None if row.time_to_float32 is None else _estimate(row.time_to_float32)


def _throughput(row: Row) -> Cell | None:
    return None if row.timing is None else _number(row.timing.throughput, units.rate)


def _to_baseline(row: Row) -> Cell | None:
    if row.time_to_baseline is None or row.baseline is None:
        return None
    text = f"divided by {row.baseline.name}"
    if row.foreign_baseline is not None:
        text = f"divided by {row.baseline.model}, {row.baseline.elsewhere} ({row.foreign_baseline.machine})"
    return _estimate(row.time_to_baseline).noted((text,))


def resources(rows: tuple[Row, ...]) -> Grid:
    """How every row starts, and what memory and energy it takes; columns that nothing is known of are left out."""

    def cold(part: Callable[[ColdStart], float]) -> Callable[[Row], Cell]:
        def cell(row: Row) -> Cell:
            return _number(None if row.cold_start is None else part(row.cold_start), _milliseconds)

        return cell

    def optional(title: str, cell: Callable[[Row], Cell], key: str) -> Column:
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
        "How a fresh process starts (medians), how much memory it takes above the empty process at its peak, and the "
        "energy of an inference where a counter of the machine could be read.",
        columns,
        [row for row in rows if row.kind == "result"],
    )


def _load(row: Row) -> Cell:
    assert row.measurement is not None
    return _number(row.measurement.load_s if row.cold_start is None else row.cold_start.load_s, _milliseconds)


def _first_answer(row: Row) -> Cell:
    if row.cold_start is None or row.measurement is None:
        return Cell(units.ABSENT)
    fresh = f"medians of {units.count(len(row.measurement.cold_starts))} fresh processes"
    return _number(cold_total(row.cold_start), _milliseconds).noted((fresh,))


def _arena(row: Row) -> Cell:
    memory = None if row.measurement is None else row.measurement.memory
    return _number(None if memory is None else memory.arena_bytes, units.kib)


def _energy(row: Row) -> Cell:
    energy = None if row.measurement is None else row.measurement.energy
    if energy is None:
        return Cell(units.ABSENT)
    counter = (
        f"{energy.counter}, which covers all that runs on the package, over "
        f"{units.counted(energy.inferences, 'inference')}"
    )
    return _number(row.joules, units.millijoules).noted((counter,), of=f"row {row.number}")


def cold_total(cold: ColdStart) -> float:
    """Seconds to the first answer."""
    return cold.import_s + cold.load_s + cold.first_s


def emulated(costs: tuple[Emulated, ...]) -> Grid:
    """What artifacts cost as C on emulated processors."""

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
        "Each int8 file as C: the instructions of one inference of random bytes, executed by QEMU. It models no "
        "pipeline, memory or cache, so instruction counts are not timings. Code is without weights, flash with them; "
        "RAM is that of the model. Stack, input and output come on top of it.",
        columns,
        costs,
    )


def processors(answers: tuple[ProcessorAnswers, ...]) -> Grid:
    """What model files answer on emulated processors."""

    def parity(one: ProcessorAnswers) -> Cell:
        return _parity(("; ".join(one.violations),) if one.violations else ())

    columns = (
        Column("artifact", lambda one: Cell(one.artifact), "artifact"),
        Column("processor", lambda one: Cell(one.processor, notes=(_emulated_by(one),)), "processor"),
        Column("accuracy, % [95 %]", lambda one: _accuracy(one.against_here.accuracy), "accuracy", numeric=True),
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
        "Each file in the runtime's own build for that processor, which QEMU emulates: differences to the same file "
        "here, on this machine, and to the Keras model it came from, and the executed instructions of one inference, "
        "which is not a timing. LSB are steps of the output; float outputs have none, and differences without them are "
        "in the output's unit.",
        columns,
        answers,
    )


def _differences(
    to: str, of: Callable[[ProcessorAnswers], Difference], keys: tuple[str, str, str]
) -> tuple[Column, Column, Column]:
    """Columns for the largest and the mean difference, and on how many images the top class is the same."""
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
    """The float baselines that rows are compared with, once each."""
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
        Column("accuracy, % [95 %]", lambda one: _accuracy(one.record.accuracy), numeric=True),
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
    caption = "The float Keras model that the rows are compared with. These rows take part in no ranking."
    return laid_out(caption, columns, listed)


def against(beside: tuple[BaselineComparison, ...]) -> Grid:
    """Every row beside every float baseline."""

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
        "Each row beside each float baseline. Faster than the baseline is below 1 in a “time ÷” column and above 1 in "
        "“images/s ÷”.",
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
        f"({errors.images_from}), worst layer first. Own: the layer alone, computed in float on its actual int8 "
        "inputs. Up to here: all "
        f"layers to this one. Output against the {errors.reference}: {units.decibels(errors.weights_snr_db)} dB "
        f"in float with the file's weights, {units.decibels(errors.output_snr_db)} dB in int8.",
        columns,
        errors.layers,
    )


def verification(parities: tuple[Parity, ...]) -> Grid:
    """Every artifact against its references."""

    def number(title: str, of: Callable[[Difference], float], text: Callable[[Any], str]) -> Column:
        return Column(title, lambda parity: _number(of(parity.difference), text), numeric=True)

    def steps(title: str, of: Callable[[Difference], float | None], text: Callable[[Any], str]) -> Column:
        def cell(parity: Parity) -> Cell:
            value = of(parity.difference)
            if value is None:
                return Cell(units.ABSENT, notes=("float output: no quantisation steps",))
            return _number(value, text)

        return Column(title, cell, numeric=True)

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
        Column("accuracy, % [95 %]", lambda parity: _accuracy(parity.accuracy), numeric=True),
        Column("reference accuracy, % [95 %]", lambda parity: _accuracy(parity.reference_accuracy), numeric=True),
        number("worst image, index", lambda found: found.worst_image, str),
        Column("allowed", lambda parity: Cell(_tolerance(parity.tolerance, parity.difference.span)), "allowed"),
        Column("parity", lambda parity: _parity(parity.violations)),
    )
    caption = "Each artifact against its reference on the same images. LSB: a step of a quantised output."
    return laid_out(caption, columns, parities)


def _tolerance(tolerance: Tolerance, span: float) -> str:
    span = span or 1.0  # as verification does where all reference outputs are equal
    parts = [
        f"same top class ≥ {units.percent(tolerance.agreement)} %",
        f"accuracy drop ≤ {units.percent(tolerance.accuracy_drop)} points",
        f"mean ≤ {units.significant(tolerance.mean_abs * span)}",
    ]
    if tolerance.max_abs is not None:
        parts.append(f"max ≤ {units.significant(tolerance.max_abs * span)}")
    if tolerance.mean_lsb is not None:
        parts.append(f"mean ≤ {units.significant(tolerance.mean_lsb)} LSB")
    return ", ".join(parts)


def failures(caption: str, found: tuple[Failure, ...]) -> Grid:
    """What failed, and why."""
    columns = (
        Column("what", lambda failure: Cell(failure.subject)),
        Column("stage", lambda failure: Cell(failure.stage)),
        Column("error", lambda failure: Cell(failure.error)),
        Column("reason", lambda failure: Cell(failure.reason), "reason"),
    )
    return laid_out(caption, columns, found)


def stages(report: Report) -> Grid:
    """How long the stages of a run took, longest first, those that were used again last."""
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
        return Cell("already there, used again" if stage.reused else "made in this run")

    columns = (
        Column("stage", lambda stage: Cell(stage.name)),
        Column("time", lambda stage: Cell(units.duration(stage.seconds), value=stage.seconds), numeric=True),
        Column("outputs", outputs),
    )
    caption = "Stages of the run, longest first: " + ", ".join([*taken, *([f"{again} used again"] if again else [])])
    return laid_out(caption, columns, ordered)


def files(rows: tuple[Row, ...]) -> Grid:
    """The files behind the rows, each once, with its hash."""
    hashes: dict[tuple[str, str], Row] = {}
    for row in rows:
        if row.sha256 is not None:
            hashes.setdefault((row.name, row.sha256), row)
    columns = (
        Column("file", lambda row: Cell(row.name)),
        Column("bytes", lambda row: _number(row.size_bytes, units.count), numeric=True),
        Column("SHA-256", lambda row: Cell(row.sha256)),
    )
    return laid_out("The files behind the rows", columns, [*hashes.values()])


def _parity(violations: tuple[str, ...]) -> Cell:
    return Cell("fail", notes=violations, tone="bad") if violations else Cell("pass", tone="good")


def _number(value: float | None, text: Callable[[Any], str]) -> Cell:
    """A cell for a number, or for its absence."""
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


def _estimate(estimate: Estimate) -> Cell:
    return _interval(estimate_text(estimate), estimate.value)


def points_text(row: Row) -> units.Interval | None:
    """A row's accuracy minus that of float Keras, with its interval where the two are paired."""
    if row.accuracy_change is not None:
        change = row.accuracy_change
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
