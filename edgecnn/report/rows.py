"""A report's records as table rows: numbers, and the reason wherever a number is absent.

Ratios are times divided by times: below 1 is faster than the reference. Only rows measured on the report's
own machine are ranked; a baseline from another machine keeps that machine and takes part in no verdict.
"""

from collections.abc import Sequence
from typing import Literal

import msgspec

from edgecnn.bench import statistics
from edgecnn.bench.comparison import AccuracyDifference, Comparison, accuracy_difference, compare, fits, time_ratio
from edgecnn.records import (
    Accuracy,
    Answers,
    Baseline,
    ColdStart,
    Environment,
    Estimate,
    Failure,
    Measurement,
    Parity,
    Report,
    Result,
    Summary,
)

RECORD_A_BASELINE = (
    "no float baseline was measured here; record one with `edgecnn baseline` on a GPU machine, "
    "then pass its file with `--baseline FILE`"
)


class Setting(msgspec.Struct, frozen=True, order=True):
    """What has to be equal before two times are compared."""

    device: str
    threads: int
    batch: int


class FloatBaseline(msgspec.Struct, frozen=True):
    """A measurement of the float Keras model; ``paired`` when it shares its rounds with the report's rows."""

    record: Baseline
    paired: bool

    @property
    def model(self) -> str:
        """The model and its back end."""
        return f"{self.record.model} ({self.record.backend})"

    @property
    def name(self) -> str:
        """The model, its back end and the device it ran on."""
        where = self.record.environment.gpu if _is_gpu(self.record.device) else None
        return f"{self.model} on {where or self.record.device}"

    @property
    def elsewhere(self) -> str:
        """What is said of it where the rows beside it are of another machine."""
        return measured_elsewhere(self.record.environment, self.record.device)


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the table. ``absent`` gives, for each field that is ``None``, the reason.

    ``number`` counts from 1 and marks the row in tables and figures. ``accuracy_points`` is in percentage
    points, as is ``allowed_drop``, the loosest loss of accuracy that any verification of the report allows.
    ``accuracy_change`` is that difference with its paired interval, where both say which images were right.
    ``baseline`` is what ``time_to_baseline`` is divided by. ``parities`` are all verifications of this file
    on this runtime. ``timing`` is of ``invoke`` alone, ``end_to_end`` of encode, invoke and decode together.
    """

    number: int
    kind: Literal["result", "baseline", "no baseline"]
    name: str
    environment: Environment
    here: bool
    sha256: str | None = None
    format: str | None = None
    scheme: str | None = None
    runtime: str | None = None
    setting: Setting | None = None
    size_bytes: int | None = None
    size_ratio: float | None = None
    accuracy: Accuracy | None = None
    accuracy_points: float | None = None
    accuracy_change: AccuracyDifference | None = None
    measurement: Measurement | None = None
    timing: Summary | None = None
    end_to_end: Summary | None = None
    time_to_float32: Estimate | None = None
    time_to_baseline: Estimate | None = None
    baseline: FloatBaseline | None = None
    parities: tuple[Parity, ...] = ()
    allowed_drop: float | None = None
    warnings: tuple[str, ...] = ()
    absent: dict[str, str] = {}

    @property
    def within_tolerance(self) -> bool:
        """Whether every verification passed and no more accuracy is lost to float Keras than allowed."""
        if not self.parities or self.violations:
            return False
        if self.accuracy_points is None or self.allowed_drop is None:
            return True
        return self.accuracy_points >= -self.allowed_drop - 1e-9  # a loss of exactly what is allowed passes

    @property
    def elsewhere(self) -> str | None:
        """That a baseline was measured on another machine, and on which processor."""
        if self.kind != "baseline" or self.here or self.setting is None:
            return None
        return measured_elsewhere(self.environment, self.setting.device)

    @property
    def foreign_baseline(self) -> Environment | None:
        """The baseline's machine, when it is not this row's."""
        if self.baseline is None or same_machine(self.baseline.record.environment, self.environment):
            return None
        return self.baseline.record.environment

    @property
    def violations(self) -> tuple[str, ...]:
        """What broke a tolerance, in any verification."""
        return tuple(text for parity in self.parities for text in parity.violations)

    @property
    def cores(self) -> int:
        """The cores its threads can keep busy: all usable ones where the runtime chooses their number."""
        threads = 0 if self.setting is None else self.setting.threads
        return threads or self.environment.usable_cores

    @property
    def cold_start(self) -> ColdStart | None:
        """Medians of its starts in fresh processes, if that was measured."""
        return None if self.measurement is None else statistics.cold_start(self.measurement)

    @property
    def memory_bytes(self) -> int | None:
        """Peak resident memory above that of the process before it imported the runtime, if known."""
        memory = None if self.measurement is None else self.measurement.memory
        return None if memory is None else max(0, memory.peak_bytes - memory.empty_bytes)

    @property
    def joules(self) -> float | None:
        """Energy of one inference, if a counter was read."""
        energy = None if self.measurement is None else self.measurement.energy
        return None if energy is None else energy.joules / energy.inferences


class FloatAccuracy(msgspec.Struct, frozen=True):
    """Accuracy of the float Keras model, and where it was counted."""

    accuracy: Accuracy
    source: str
    answers: Answers | None = None


class BaselineComparison(msgspec.Struct, frozen=True):
    """A row beside a float baseline."""

    row: Row
    baseline: FloatBaseline
    found: Comparison


class RankedRow(msgspec.Struct, frozen=True):
    """A row, and its time divided by the fastest row's."""

    row: Row
    ratio: Estimate


class CodeComparison(msgspec.Struct, frozen=True):
    """A model on LiteRT and as C code in one setting; ``ratio`` is the time of the C code divided by LiteRT's."""

    litert: Row
    c99: Row
    ratio: Estimate


class Findings(msgspec.Struct, frozen=True, kw_only=True):
    """What the verdict is made of. All rows in it were measured on the report's machine.

    ``smallest`` holds every artifact of the smallest size; ``tied`` those whose time cannot be told from the
    fastest's; ``next`` the first that can. ``front`` is the Pareto front in the headline setting: no other row not
    outside tolerance is both as fast and as accurate, and better in one of them. ``outside`` are rows outside
    tolerance, ``unverified`` those that no verification covers. ``as_code`` are models that ran as C code too.
    """

    setting: Setting | None
    smallest: tuple[Row, ...]
    fastest: Row | None
    tied: tuple[RankedRow, ...]
    next: RankedRow | None
    front: tuple[Row, ...]
    outside: tuple[Row, ...]
    unverified: tuple[Row, ...]
    failed: tuple[Failure, ...]
    unsupported: tuple[Failure, ...]
    as_code: tuple[CodeComparison, ...] = ()


def measured_elsewhere(environment: Environment, device: str) -> str:
    """What is said of times from another machine: on which processor they were measured."""
    processor = environment.gpu if _is_gpu(device) else environment.cpu
    return f"measured elsewhere, on {processor or device}"


def same_machine(one: Environment, other: Environment) -> bool:
    """Whether two environments describe the same machine."""
    return one.machine == other.machine


def float_accuracy(report: Report) -> FloatAccuracy | None:
    """Accuracy of the float Keras model: its row's, else a baseline's, else the verification's reference.

    A baseline's only if it has the weights of the rows.
    """
    for result in _results(report):
        if _is_float_keras(result) and result.accuracy is not None:
            return FloatAccuracy(result.accuracy, result.artifact.name, result.answers)
    for baseline in report.baselines:
        if _of_these_weights(baseline, report) and baseline.accuracy is not None:
            source = f"{baseline.model}, recorded on {baseline.environment.machine}"
            return FloatAccuracy(baseline.accuracy, source, baseline.answers)
    references = {(parity.reference, parity.reference_accuracy) for parity in report.parities}
    if len(references) == 1:
        reference, accuracy = references.pop()
        return FloatAccuracy(accuracy, reference)
    return None


def table(report: Report) -> tuple[Row, ...]:
    """The rows of a report in its own order, then the baselines, or a row that says there is none."""
    rows = [_result_row(number, result, report) for number, result in enumerate(_results(report), start=1)]
    for baseline in report.baselines:
        rows.append(_baseline_row(len(rows) + 1, baseline, report))
    if not _baselines(report):
        rows.append(
            Row(
                number=len(rows) + 1,
                kind="no baseline",
                name="float baseline (Keras on a GPU)",
                environment=report.environment,
                here=False,
                absent={"measurement": RECORD_A_BASELINE},
            )
        )
    return tuple(rows)


def findings(report: Report, rows: tuple[Row, ...]) -> Findings:
    """What can be said about ``rows``, which ``table(report)`` made."""
    exported = [row for row in rows if row.kind == "result" and row.format != "keras"]
    good = [row for row in exported if row.within_tolerance]
    failures = [row for row in report.rows if isinstance(row, Failure)]
    setting = headline_setting(tuple(good)) or headline_setting(tuple(exported))
    size = min((row.size_bytes for row in good if row.size_bytes is not None), default=None)
    ranked = sorted((row for row in good if row.setting == setting), key=_median)
    compared = [RankedRow(row, _ratio(row, ranked[0])) for row in ranked[1:]]
    return Findings(
        setting=setting,
        smallest=tuple({row.sha256: row for row in good if row.size_bytes == size}.values()),
        fastest=ranked[0] if ranked else None,
        tied=tuple(one for one in compared if statistics.difference(one.ratio) == "none"),
        next=next((one for one in compared if statistics.difference(one.ratio) != "none"), None),
        front=pareto_front([row for row in rows if row.kind == "result" and row.setting == setting]),
        outside=tuple(row for row in exported if row.parities and not row.within_tolerance),
        unverified=tuple(row for row in exported if not row.parities),
        failed=tuple(failure for failure in failures if not failure.expected),
        unsupported=tuple(failure for failure in failures if failure.expected),
        as_code=_in_c(report, exported),
    )


def _in_c(report: Report, rows: Sequence[Row]) -> tuple[CodeComparison, ...]:
    """Each model that ran on LiteRT and, in the same setting, as C code: in the setting with the fewest threads."""
    results = _results(report)
    ran: dict[str, dict[tuple[Setting, tuple[str, ...]], Row]] = {"litert": {}, "c99": {}}
    for row in rows:
        if row.runtime in ran and row.setting is not None:
            ran[row.runtime].setdefault((row.setting, _model(results[row.number - 1])), row)
    found: dict[tuple[str, ...], CodeComparison] = {}
    for (where, model), litert in sorted(ran["litert"].items(), key=lambda one: one[0][0]):
        c99 = ran["c99"].get((where, model))
        if c99 is not None:
            found.setdefault(model, CodeComparison(litert, c99, _ratio(c99, litert)))
    return tuple(found.values())


def _model(result: Result) -> tuple[str, ...]:
    """What the .tflite and the .c of one model and scheme have in common: where they come from, or else their name."""
    said = result.artifact.provenance
    stem = result.artifact.file.rpartition(".")[0]
    return (stem,) if said is None else (said.model, said.model_sha256, said.scheme)


def pareto_front(rows: Sequence[Row]) -> tuple[Row, ...]:
    """Those of ``rows`` that no other beats in median time and accuracy, fastest first, by the values themselves.

    Rows without a count of right answers and rows that failed verification take no part.
    """
    able = [row for row in rows if row.accuracy is not None and (row.within_tolerance or not row.parities)]
    front: list[Row] = []
    for row in sorted(able, key=lambda row: (_median(row), -_share(row))):
        if not front or _share(row) > _share(front[-1]):
            front.append(row)
    return tuple(front)


def versus(report: Report, rows: Sequence[Row]) -> tuple[BaselineComparison, ...]:
    """Every result in ``rows``, which ``table(report)`` made, beside every float baseline; best baseline first."""
    results = _results(report)
    return tuple(
        BaselineComparison(row, baseline, _compare(results[row.number - 1], baseline, report))
        for baseline in _baselines(report)
        for row in rows
        if row.kind == "result"
        and row.measurement is not baseline.record.measurement
        and fits(baseline.record, *results[row.number - 1].artifact.float_model)
    )


def headline_setting(rows: tuple[Row, ...]) -> Setting | None:
    """The setting most rows were measured in; of equals the one with the fewest threads, then images."""
    settings = [row.setting for row in rows if row.setting is not None]
    return min(settings, key=lambda setting: (-settings.count(setting), setting), default=None)


def _result_row(number: int, result: Result, report: Report) -> Row:
    artifact, measurement = result.artifact, result.measurement
    absent: dict[str, str] = {}

    size_ratio = None
    sizes = {
        other.artifact.size_bytes
        for other in _results(report)
        if other.artifact.format == artifact.format and other.artifact.scheme == "float32" and other.artifact.size_bytes
    }
    if len(sizes) == 1:
        size_ratio = artifact.size_bytes / sizes.pop()
    else:
        many = "no" if not sizes else "more than one"
        absent["size_ratio"] = f"{many} float32 artifact in the format {artifact.format}"

    parities = tuple(
        one for one in report.parities if (one.artifact_sha256, one.runtime) == (artifact.sha256, measurement.runtime)
    )
    if not parities:
        absent["parity"] = (
            "the float Keras model is the reference"
            if _is_float_keras(result)
            else f"not verified on {measurement.runtime}"
        )

    accuracy = result.accuracy or (parities[0].accuracy if parities else None)
    reference = float_accuracy(report)
    points = _accuracy_points(accuracy, reference, absent)

    to_float32 = None
    float32 = [
        other
        for other in _results(report)
        if other.artifact.scheme == "float32"
        and other.artifact.format == artifact.format
        and other.measurement.runtime == measurement.runtime
        and _setting(other.measurement) == _setting(measurement)
    ]
    if len(float32) == 1:
        to_float32 = _divide(measurement, float32[0].measurement)
    else:
        many = "no" if not float32 else "more than one"
        absent["time_to_float32"] = f"{many} float32 row on the same runtime, device, threads and batch"

    to_baseline = None
    baselines = [one for one in _baselines(report) if fits(one.record, *artifact.float_model)]
    same_batch = [(one, _at_batch(one, measurement.batch)) for one in baselines]
    baseline, other = next(((one, other) for one, other in same_batch if other is not None), (None, None))
    if baseline is not None and other is not None:
        to_baseline = (
            _divide(measurement, other)
            if baseline.paired
            else time_ratio(statistics.summary(measurement), statistics.summary(other))
        )
    elif baselines:
        absent["time_to_baseline"] = f"no baseline with batch {measurement.batch}"
    else:
        absent["time_to_baseline"] = RECORD_A_BASELINE

    timing = statistics.summary(measurement)
    if timing.p99 is None:
        absent["p99"] = f"fewer than {statistics.P99_SAMPLES} samples"
    return Row(
        number=number,
        kind="result",
        name=artifact.name,
        environment=report.environment,
        here=True,
        sha256=artifact.sha256,
        format=artifact.format,
        scheme=artifact.scheme,
        runtime=measurement.runtime,
        setting=_setting(measurement),
        size_bytes=artifact.size_bytes,
        size_ratio=size_ratio,
        accuracy=accuracy,
        accuracy_points=points,
        accuracy_change=_accuracy_change(result, reference),
        measurement=measurement,
        timing=timing,
        end_to_end=statistics.end_to_end(measurement),
        time_to_float32=to_float32,
        time_to_baseline=to_baseline,
        baseline=baseline,
        parities=parities,
        allowed_drop=_allowed_drop(report),
        warnings=tuple(statistics.warnings(measurement, report.environment)),
        absent=absent,
    )


def _baseline_row(number: int, baseline: Baseline, report: Report) -> Row:
    measurement = baseline.measurement
    absent = dict.fromkeys(("size_bytes", "size_ratio"), "a baseline records times, not files")
    absent["parity"] = "the float Keras model is the reference"
    warnings = tuple(statistics.warnings(measurement, baseline.environment))
    if not _of_this_model(baseline, report):
        warnings += ("recorded with a model of other layers or shapes: no row is compared with it",)
    absent["time_to_float32"] = absent["time_to_baseline"] = "it is a baseline itself"
    points = None
    if _of_these_weights(baseline, report):
        points = _accuracy_points(baseline.accuracy, float_accuracy(report), absent)
    else:
        absent["accuracy_points"] = "it has other weights"
    timing = statistics.summary(measurement)
    if timing.p99 is None:
        absent["p99"] = f"fewer than {statistics.P99_SAMPLES} samples"
    return Row(
        number=number,
        kind="baseline",
        name=baseline.model,
        environment=baseline.environment,
        here=same_machine(baseline.environment, report.environment),
        sha256=baseline.model_sha256,
        format="keras",
        scheme="float32",
        runtime=f"keras ({baseline.backend})",
        setting=Setting(baseline.device, measurement.threads, measurement.batch),
        accuracy=baseline.accuracy,
        accuracy_points=points,
        measurement=measurement,
        timing=timing,
        end_to_end=statistics.end_to_end(measurement),
        warnings=warnings,
        absent=absent,
    )


def _accuracy_points(
    accuracy: Accuracy | None, reference: FloatAccuracy | None, absent: dict[str, str]
) -> float | None:
    if accuracy is None:
        absent["accuracy"] = absent["accuracy_points"] = "accuracy was not counted"
    elif reference is None:
        absent["accuracy_points"] = "the accuracy of the float Keras model is not known"
    elif accuracy.total != reference.accuracy.total:
        absent["accuracy_points"] = (
            f"counted on {accuracy.total} images, the float Keras model on {reference.accuracy.total}"
        )
    else:
        return 100 * (accuracy.correct - reference.accuracy.correct) / accuracy.total
    return None


def _accuracy_change(result: Result, reference: FloatAccuracy | None) -> AccuracyDifference | None:
    """The row's accuracy minus the float model's, where it is not that itself and both say which images were right."""
    if (
        _is_float_keras(result)
        or reference is None
        or result.accuracy is None
        or result.answers is None
        or reference.answers is None
    ):
        return None
    found = accuracy_difference(result.accuracy, result.answers, reference.accuracy, reference.answers)
    return found if found.paired else None


def _allowed_drop(report: Report) -> float | None:
    return max((100 * parity.tolerance.accuracy_drop for parity in report.parities), default=None)


def _results(report: Report) -> tuple[Result, ...]:
    return tuple(row for row in report.rows if isinstance(row, Result))


def _is_float_keras(result: Result) -> bool:
    return result.artifact.format == "keras" and result.artifact.scheme == "float32"


def _is_gpu(device: str) -> bool:
    return not device.lower().startswith("cpu")


def _of_this_model(baseline: Baseline, report: Report) -> bool:
    """Whether any row has the layers and shapes of a baseline's model; ``True`` where there is no row."""
    results = _results(report)
    return not results or any(fits(baseline, *result.artifact.float_model) for result in results)


def _of_these_weights(baseline: Baseline, report: Report) -> bool:
    """Whether any row has the weights of a baseline's model; ``True`` where no row says."""
    known = {result.artifact.float_model[0] for result in _results(report)} - {None}
    return not known or baseline.model_sha256 in known


def _baselines(report: Report) -> list[FloatBaseline]:
    """Float baselines, best first: GPUs before CPUs, this machine before others, measured before recorded."""
    found = [
        FloatBaseline(_as_baseline(result, report), paired=True)
        for result in _results(report)
        if _is_float_keras(result) and _is_gpu(result.measurement.device) and result.measurement.batch == 1
    ]
    found += [
        FloatBaseline(baseline, paired=False) for baseline in report.baselines if _of_this_model(baseline, report)
    ]
    found.sort(
        key=lambda one: (
            not _is_gpu(one.record.device),
            not same_machine(one.record.environment, report.environment),
        )
    )
    return found


def _as_baseline(result: Result, report: Report) -> Baseline:
    """The float Keras model on a GPU of the report's own machine, with the larger batches measured there."""
    measurement = result.measurement
    return Baseline(
        schema_version=report.schema_version,
        model=result.artifact.name,
        model_sha256=result.artifact.sha256,
        backend=measurement.runtime,
        device=measurement.device,
        environment=report.environment,
        measurement=measurement,
        accuracy=result.accuracy,
        answers=result.answers,
        architecture=result.artifact.architecture,
        throughput=tuple(
            other.measurement
            for other in _results(report)
            if _is_float_keras(other) and other.measurement.device == measurement.device and other.measurement.batch > 1
        ),
    )


def _setting(measurement: Measurement) -> Setting:
    return Setting(measurement.device, measurement.threads, measurement.batch)


def _median(row: Row) -> float:
    assert row.timing is not None  # every result row is timed
    return row.timing.median


def _share(row: Row) -> float:
    assert row.accuracy is not None
    return row.accuracy.value


def _ratio(row: Row, reference: Row) -> Estimate:
    assert row.measurement is not None
    assert reference.measurement is not None
    return _divide(row.measurement, reference.measurement)


def _compare(result: Result, baseline: FloatBaseline, report: Report) -> Comparison:
    found = compare(result, baseline.record, report.environment)
    at_batch = _at_batch(baseline, result.measurement.batch)
    if not baseline.paired or at_batch is None:
        return found
    return found.replace(latency=_divide(result.measurement, at_batch))


def _at_batch(baseline: FloatBaseline, batch: int) -> Measurement | None:
    """What the baseline measured with this batch, if it did."""
    measured = (baseline.record.measurement, *baseline.record.throughput)
    return next((one for one in measured if one.batch == batch), None)


def _divide(measurement: Measurement, reference: Measurement) -> Estimate:
    """Time divided by time, both from one run; exactly 1 for a measurement divided by itself."""
    if measurement == reference:
        return Estimate(value=1.0, low=1.0, high=1.0)
    if len(measurement.blocks) != len(reference.blocks) or measurement.processes != reference.processes:
        return time_ratio(statistics.summary(measurement), statistics.summary(reference))
    return statistics.ratio(measurement, reference)
