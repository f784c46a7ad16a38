"""The tables of a report: rows and records as cells of text."""

from collections.abc import Callable
from typing import Any

from edgecnn.bench.comparison import best_batch
from edgecnn.bench.statistics import end_to_end, summary
from edgecnn.records import (
    ColdStart,
    Difference,
    Emulated,
    Estimate,
    Failure,
    LayerErrors,
    Parity,
    ProcessorAnswers,
    Report,
    Summary,
    Tolerance,
)
from edgecnn.report import units
from edgecnn.report.grid import Cell, Column, Grid, Notes, Tone, machine, setting, without_empty
from edgecnn.report.rows import FloatBaseline, Row, Versus
from edgecnn.report.units import Unit


def results(rows: tuple[Row, ...], unit: Unit) -> Grid:
    """The main table: what every row is, how accurate and how fast."""
    notes = Notes()
    columns = (
        Column("#", numeric=True, key="number"),
        Column("artifact", key="artifact"),
        Column("scheme"),
        Column("runtime [setting]", key="runtime"),
        Column("size, KiB", numeric=True, key="size"),
        Column("size ÷ float32 (same format)", numeric=True, key="size_ratio"),
        Column("accuracy, % [95 %]", numeric=True, key="accuracy"),
        Column("points to float Keras", numeric=True, key="points"),
        Column(f"p50, {unit.name} [95 %]", numeric=True, key="p50"),
        Column("time ÷ float32 (same runtime)", numeric=True, key="to_float32"),
        Column("time ÷ float baseline", numeric=True, key="to_baseline"),
        Column("parity", key="parity"),
        Column(f"p90, {unit.name} [95 %]", numeric=True),
        Column(f"p99, {unit.name} [95 %]", numeric=True, key="p99"),
        Column(f"end to end, {unit.name} [95 %]", numeric=True, key="end_to_end"),
        Column("images/s", numeric=True),
    )
    grid = Grid(
        caption="Below 1 in a “time ÷” column is faster than what it is divided by, above 1 slower.",
        columns=columns,
        rows=tuple(_result(row, unit, notes) for row in rows),
        notes=notes.all(),
    )
    return without_empty(
        grid, "size_ratio", "accuracy", "points", "to_float32", "to_baseline", "parity", "p99", "end_to_end"
    )


def _result(row: Row, unit: Unit, notes: Notes) -> tuple[Cell, ...]:
    def cell(
        field: str, text: str | None, value: float | None = None, marks: tuple[str, ...] = (), tone: Tone = ""
    ) -> Cell:
        if text is not None:
            return Cell(text, marks, tone, value)
        reason = row.absent.get(field)
        return Cell(units.ABSENT, notes.mark(reason) if reason else ())

    def quotient(field: str, estimate: Estimate | None, marks: tuple[str, ...] = ()) -> Cell:
        return cell(field, None, marks=marks) if estimate is None else _estimate_cell(estimate, marks)

    about_name: tuple[str, ...] = ()
    if row.kind == "no baseline":
        about_name = notes.mark(row.absent["measurement"])
    if row.elsewhere is not None:
        about_name = notes.mark(f"{row.elsewhere} ({row.environment.machine}): never ranked")
    about_baseline: tuple[str, ...] = ()
    if row.baseline is not None:
        text = f"divided by {row.baseline.name}"
        if row.foreign_baseline is not None:
            text = f"divided by {row.baseline.model}, {row.baseline.elsewhere} ({row.foreign_baseline.machine})"
        about_baseline = notes.mark(text)

    timing, whole = row.timing, row.end_to_end
    tone: Tone = "" if row.kind == "result" else "aside"
    warned = notes.mark(*row.warnings, of=f"row {row.number}")
    p99 = None if timing is None else timing.p99
    return (
        Cell(units.count(row.number), tone=tone, value=row.number),
        cell("name", row.name, None, about_name, tone),
        cell("scheme", row.scheme),
        cell("runtime", None if row.setting is None else f"{row.runtime} [{setting(row.setting)}]"),
        cell("size_bytes", None if row.size_bytes is None else units.kib(row.size_bytes), row.size_bytes),
        cell("size_ratio", None if row.size_ratio is None else units.ratio(row.size_ratio), row.size_ratio),
        cell(
            "accuracy",
            None if row.accuracy is None else units.accuracy(row.accuracy),
            None if row.accuracy is None else row.accuracy.value,
        ),
        cell("accuracy_points", points_text(row), row.accuracy_points),
        cell("p50", None, None) if timing is None else Cell(median_text(timing, unit), warned, value=timing.median),
        quotient("time_to_float32", row.time_to_float32),
        quotient("time_to_baseline", row.time_to_baseline, about_baseline),
        _parity_cell(row.violations, notes) if row.parities else cell("parity", None),
        cell("p90", None) if timing is None else _time_cell(timing.p90, unit),
        cell("p99", None) if p99 is None else _time_cell(p99, unit),
        cell("end_to_end", None) if whole is None else Cell(median_text(whole, unit), value=whole.median),
        cell("images_per_s", None) if timing is None else _number(timing.throughput, units.rate),
    )


def resources(rows: tuple[Row, ...]) -> Grid:
    """How every row starts, and what memory and energy it takes; columns that nothing is known of are left out."""
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
    return without_empty(grid, *(column.key for column in columns[3:]))


def _resource(row: Row, notes: Notes) -> tuple[Cell, ...]:
    measurement, cold = row.measurement, row.cold_start
    assert measurement is not None
    fresh = f"medians of {units.count(len(measurement.cold_starts))} fresh processes"
    processes = () if cold is None else notes.mark(fresh)
    energy = measurement.energy
    counter: tuple[str, ...] = ()
    if energy is not None:
        counter = notes.mark(
            f"{energy.counter}, which covers all that runs on the package, over "
            f"{units.counted(energy.inferences, 'inference')}",
            of=f"row {row.number}",
        )
    arena = None if measurement.memory is None else measurement.memory.arena_bytes
    return (
        Cell(units.count(row.number), value=row.number),
        Cell(row.name),
        Cell(units.ABSENT if row.setting is None else f"{row.runtime or ''} [{setting(row.setting)}]"),
        _number(None if cold is None else cold.import_s, _milliseconds),
        _number(measurement.load_s if cold is None else cold.load_s, _milliseconds),
        _number(None if cold is None else cold.first_s, _milliseconds),
        _number(None if cold is None else cold_total(cold), _milliseconds, processes),
        _number(row.memory_bytes, units.mib),
        _number(arena, units.kib),
        _number(row.joules, units.millijoules, counter),
    )


def cold_total(cold: ColdStart) -> float:
    """Seconds to the first answer."""
    return cold.import_s + cold.load_s + cold.first_s


def emulated(costs: tuple[Emulated, ...]) -> Grid:
    """What artifacts cost as C on emulated processors."""
    notes = Notes()
    columns = (
        Column("artifact", key="artifact"),
        Column("processor"),
        Column("instructions, millions", numeric=True, key="instructions"),
        Column("code, bytes", numeric=True, key="code"),
        Column("flash, bytes", numeric=True, key="flash"),
        Column("RAM, bytes", numeric=True, key="ram"),
        Column("of it arena, bytes", numeric=True, key="arena"),
        Column("stack, bytes", numeric=True, key="stack"),
    )
    return Grid(
        caption=(
            "Each int8 file as C: the instructions of one inference of random bytes, executed by QEMU. It models no "
            "pipeline, memory or cache, so instructions are no time and cannot be turned into one. Code is without "
            "weights, flash with them; RAM is that of the model. Stack, input and output come on top of it."
        ),
        columns=columns,
        rows=tuple(
            (
                Cell(cost.artifact),
                Cell(cost.target, notes.mark(f"{cost.compiler} {cost.opt}, {cost.emulator}")),
                Cell(units.millions(cost.instructions), value=cost.instructions),
                _number(cost.code_bytes, units.count),
                _number(cost.flash_bytes, units.count),
                _number(cost.ram_bytes, units.count),
                _number(cost.arena_bytes, units.count),
                _number(cost.stack_bytes, units.count),
            )
            for cost in costs
        ),
        notes=notes.all(),
    )


def processors(answers: tuple[ProcessorAnswers, ...]) -> Grid:
    """What model files answer on emulated processors."""
    notes = Notes()
    columns = (
        Column("artifact", key="artifact"),
        Column("processor", key="processor"),
        Column("accuracy, % [95 %]", numeric=True, key="accuracy"),
        Column("largest difference to here", numeric=True, key="largest"),
        Column("mean difference to here", numeric=True, key="mean"),
        Column("same top class as here, %", numeric=True, key="agreement"),
        Column("largest difference to Keras", numeric=True),
        Column("mean difference to Keras", numeric=True),
        Column("same top class as Keras, %", numeric=True),
        Column("instructions, millions", numeric=True, key="instructions"),
        Column("parity", key="parity"),
    )
    return Grid(
        caption=(
            "Each file in the runtime's own build for that processor, which QEMU emulates: differences to the same "
            "file here, on this machine, and to the Keras model it came from, and the executed instructions of one "
            "inference, which are no time. LSB are steps of the output; float outputs have none, and differences "
            "without them are in the output's unit."
        ),
        columns=columns,
        rows=tuple(
            (
                Cell(one.artifact),
                Cell(one.processor, notes.mark(_emulated_by(one))),
                Cell(units.accuracy(one.against_here.accuracy), value=one.against_here.accuracy.value),
                *_apart(one.against_here.difference),
                *_apart(one.against_reference.difference),
                _number(one.instructions, units.millions),
                _parity_cell(("; ".join(one.violations),) if one.violations else (), notes),
            )
            for one in answers
        ),
        notes=notes.all(),
    )


def _emulated_by(answers: ProcessorAnswers) -> str:
    other = "" if answers.runtime == answers.runtime_here else f" (this machine has {answers.runtime_here})"
    images = units.counted(answers.against_here.difference.images, "test image")
    return f"{answers.runtime}{other}, {answers.emulator}, {images}"


def _apart(apart: Difference) -> tuple[Cell, Cell, Cell]:
    """The largest and the mean difference, and on how many images the top class is the same."""
    if apart.max_lsb is None or apart.mean_lsb is None:
        largest, mean = _number(apart.max_abs, units.significant), _number(apart.mean_abs, units.significant)
    else:
        largest = Cell(f"{units.count(apart.max_lsb)} LSB", value=apart.max_lsb)
        mean = Cell(f"{units.significant(apart.mean_lsb)} LSB", value=apart.mean_lsb)
    return largest, mean, _number(apart.agreement, units.percent)


def baselines(beside: tuple[Versus, ...], unit: Unit) -> Grid:
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
    return without_empty(grid, "copies", "device_memory", "compiled", "tf32")


def _baseline(baseline: FloatBaseline, unit: Unit) -> tuple[Cell, ...]:
    record = baseline.record
    timing, best, copies = summary(record.measurement), best_batch(record), end_to_end(record.measurement)
    allowed = {None: units.ABSENT, True: "allowed", False: "not allowed"}[record.tensor_float_32]
    return (
        Cell(baseline.name),
        Cell(machine(record.environment)),
        Cell(median_text(timing, unit), value=timing.median),
        Cell(units.ABSENT) if copies is None else Cell(median_text(copies, unit), value=copies.median),
        _number(summary(best).throughput, units.rate),
        _number(best.batch, units.count),
        Cell(units.ABSENT)
        if record.accuracy is None
        else Cell(units.accuracy(record.accuracy), value=record.accuracy.value),
        _number(record.peak_device_bytes, units.mib),
        Cell(units.ABSENT if record.compiled_with is None else record.compiled_with),
        Cell(allowed),
    )


def against(beside: tuple[Versus, ...]) -> Grid:
    """Every row beside every float baseline."""
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
    return without_empty(grid, "copies", "copied")


def _beside(one: Versus, notes: Notes) -> tuple[Cell, ...]:
    row, found = one.row, one.found
    assert row.setting is not None

    def quotient(field: str, estimate: Estimate | None) -> Cell:
        return Cell(units.ABSENT, notes.mark(found.absent[field])) if estimate is None else _estimate_cell(estimate)

    if found.accuracy is None:
        change = Cell(units.ABSENT, notes.mark(found.absent["accuracy"]))
    else:
        change = Cell(
            units.points_interval(found.accuracy.value, found.accuracy.low, found.accuracy.high),
            () if found.accuracy.note is None else notes.mark(found.accuracy.note),
            value=found.accuracy.value,
        )
    return (
        Cell(units.count(row.number), value=row.number),
        Cell(row.name),
        Cell(f"{row.runtime or ''} [{setting(row.setting)}]"),
        Cell(one.baseline.name, () if found.here else notes.mark(one.baseline.elsewhere)),
        quotient("latency", found.latency),
        quotient("latency_with_copies", found.latency_with_copies),
        quotient("throughput", found.throughput),
        quotient("throughput_with_copies", found.throughput_with_copies),
        change,
        _number(found.images_per_s, units.rate),
        _number(found.images_per_s_per_core, units.rate),
    )


def layers(errors: LayerErrors) -> Grid:
    """The errors inside one int8 file, the worst layer first."""
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
            Cell(layer.operator),
            Cell(units.decibels(layer.own_snr_db), value=_or_infinite(layer.own_snr_db)),
            _number(layer.lost_db, units.decibels),
            _number(layer.own_max_lsb, units.significant),
            Cell(units.decibels(layer.snr_db), value=_or_infinite(layer.snr_db)),
            _number(layer.max_lsb, units.significant),
            _number(layer.at_low, units.percent),
            _number(layer.at_high, units.percent),
            _number(layer.clipped, units.percent),
            Cell("off", tone="bad") if layer.scale_is_off else Cell("fits", tone="good"),
        )
        for layer in errors.layers
    )
    return Grid(
        caption=f"{errors.artifact} on {errors.runtime}, {units.counted(errors.images, 'image')} "
        f"({errors.images_from}), worst layer first. Own: the layer alone, computed in float on its actual int8 "
        "inputs. Up to here: all "
        f"layers to this one. Output against the {errors.reference}: {units.decibels(errors.weights_snr_db)} dB "
        f"in float with the file's weights, {units.decibels(errors.output_snr_db)} dB in int8.",
        columns=columns,
        rows=rows,
    )


def _or_infinite(decibels: float | None) -> float:
    return float("inf") if decibels is None else decibels


def verification(parities: tuple[Parity, ...]) -> Grid:
    """Every artifact against its references."""
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
                Cell(parity.artifact),
                Cell(parity.runtime),
                Cell(parity.reference),
                _number(apart.images, units.count),
                _number(apart.max_abs, units.significant),
                _number(apart.mean_abs, units.significant),
                steps(apart.max_lsb, units.count),
                steps(apart.mean_lsb, units.significant),
                steps(apart.within_one_lsb, units.percent),
                _number(apart.agreement, units.percent),
                Cell(units.accuracy(parity.accuracy), value=parity.accuracy.value),
                Cell(units.accuracy(parity.reference_accuracy), value=parity.reference_accuracy.value),
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
    return Grid(
        caption=caption,
        columns=(Column("what"), Column("stage"), Column("error"), Column("reason", key="reason")),
        rows=tuple(
            tuple(Cell(text) for text in (failure.subject, failure.stage, failure.error, failure.reason))
            for failure in found
        ),
    )


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
    return Grid(
        caption="Stages of the run, longest first: " + ", ".join([*taken, *([f"{again} used again"] if again else [])]),
        columns=(Column("stage"), Column("time", numeric=True), Column("outputs")),
        rows=tuple(
            (
                Cell(stage.name),
                Cell(units.duration(stage.seconds), value=stage.seconds),
                Cell("already there, used again" if stage.reused else "made in this run"),
            )
            for stage in ordered
        ),
    )


def files(rows: tuple[Row, ...]) -> Grid:
    """The files behind the rows, each once, with its hash."""
    hashes: dict[tuple[str, str], Cell] = {}
    for row in rows:
        if row.sha256 is not None:
            hashes.setdefault((row.name, row.sha256), _number(row.size_bytes, units.count))
    return Grid(
        caption="The files behind the rows",
        columns=(Column("file"), Column("bytes", numeric=True), Column("SHA-256")),
        rows=tuple((Cell(name), size, Cell(sha)) for (name, sha), size in hashes.items()),
    )


def _parity_cell(violations: tuple[str, ...], notes: Notes) -> Cell:
    if not violations:
        return Cell("pass", tone="good")
    return Cell("fail", notes.mark(*violations), "bad")


def _number(value: float | None, text: Callable[[Any], str], marks: tuple[str, ...] = ()) -> Cell:
    """A cell for a number, or for its absence."""
    return Cell(units.ABSENT, marks) if value is None else Cell(text(value), marks, value=float(value))


def _time_cell(time: Estimate, unit: Unit) -> Cell:
    return Cell(units.time_interval(time.value, time.low, time.high, unit), value=time.value)


def _estimate_cell(estimate: Estimate, marks: tuple[str, ...] = ()) -> Cell:
    return Cell(estimate_text(estimate), marks, value=estimate.value)


def points_text(row: Row) -> str | None:
    """A row's accuracy minus that of float Keras, with its interval where the two are paired."""
    if row.accuracy_change is not None:
        change = row.accuracy_change
        return units.points_interval(change.value, change.low, change.high)
    return None if row.accuracy_points is None else units.points(row.accuracy_points)


def median_text(timing: Summary, unit: Unit) -> str:
    """A median with its interval, without the unit."""
    return units.time_interval(timing.median, timing.low, timing.high, unit)


def estimate_text(estimate: Estimate) -> str:
    """A ratio with its interval."""
    return units.ratio_interval(estimate.value, estimate.low, estimate.high)


def _milliseconds(seconds: float) -> str:
    return units.time(seconds, units.MILLISECONDS)
