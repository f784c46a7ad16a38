"""A report's records as table rows: numbers, and the reason for each missing number.

Ratios are times divided by times: below 1 is faster than the reference. Only rows measured on the report's
own machine are ranked; a baseline from another machine is marked with it and takes part in no verdict.
"""

from collections.abc import Sequence

import msgspec

from edgecnn.measure import statistics
from edgecnn.measure.comparison import AccuracyDifference, Comparison, accuracy_difference, compare, fits, time_ratio
from edgecnn.records import (
    Accuracy,
    Answers,
    Artifact,
    Baseline,
    ColdStart,
    Emulated,
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
    "no float baseline was measured; record one with `edgecnn baseline` on a GPU machine, "
    "then pass its file with `--baseline FILE`"
)

# Kinds of devices, and the formats that their usual runtimes load.
_DEVICES = {"phone": ("tflite",), "Linux board": ("tflite", "onnx"), "microcontroller": ("c",)}
# Loss of accuracy, against the most accurate file, above which a file is not recommended.
_WEAK = 0.02


class Setting(msgspec.Struct, frozen=True, order=True):
    """The settings that must be equal for two times to be comparable."""

    device: str
    threads: int
    batch: int


class FloatBaseline(msgspec.Struct, frozen=True):
    """A measurement of the float Keras model; ``paired`` if it shares its rounds with the report's rows."""

    record: Baseline
    paired: bool

    @property
    def model(self) -> str:
        """The model and its back end."""
        return f"{self.record.model} ({self.record.backend})"

    @property
    def name(self) -> str:
        """The model, its back end and its device."""
        where = self.record.environment.gpu if _is_gpu(self.record.device) else None
        return f"{self.model} on {where or self.record.device}"

    @property
    def elsewhere(self) -> str:
        """The note for a baseline from another machine than the rows."""
        return measured_elsewhere(self.record.environment, self.record.device)


class MeasuredRow(msgspec.Struct, frozen=True, kw_only=True):
    """A table row with a measurement. ``absent`` has the reason for each field that is ``None``.

    ``number`` counts from 1 and identifies the row in tables and figures. ``accuracy_points`` is the accuracy minus
    that of the float Keras model, in percentage points. ``timing`` is of ``invoke`` alone, ``end_to_end`` of encode,
    invoke and decode together. ``elsewhere`` names the processor of a row from another machine.
    """

    number: int
    name: str
    environment: Environment
    sha256: str
    format: str
    scheme: str
    runtime: str
    setting: Setting
    accuracy: Accuracy | None
    accuracy_points: float | None
    measurement: Measurement
    timing: Summary
    end_to_end: Summary | None
    warnings: tuple[str, ...]
    absent: dict[str, str]
    elsewhere: str | None = None

    @property
    def cores(self) -> int:
        """The number of cores in use: one per thread, or all usable cores if the runtime chooses the threads."""
        return self.setting.threads or self.environment.usable_cores

    @property
    def cold_start(self) -> ColdStart | None:
        """Medians over its fresh processes, if cold starts were measured."""
        return statistics.cold_start(self.measurement)

    @property
    def memory_bytes(self) -> int | None:
        """Peak resident memory minus that of the process before it imported the runtime, if known."""
        memory = self.measurement.memory
        return None if memory is None else max(0, memory.peak_bytes - memory.empty_bytes)

    @property
    def joules(self) -> float | None:
        """Energy of one inference, if a counter was read."""
        energy = self.measurement.energy
        return None if energy is None else energy.joules / energy.inferences


class ResultRow(MeasuredRow, frozen=True, kw_only=True):
    """A model file on a runtime of the report's machine.

    ``accuracy_change`` is ``accuracy_points`` with its paired interval, if both sides store which images were
    classified correctly. ``allowed_drop`` is the largest accuracy drop that any tolerance of the report allows, in
    percentage points. ``time_to_baseline`` is the time divided by that of ``baseline``. ``parities`` are all
    verifications of this file on this runtime.
    """

    size_bytes: int
    size_ratio: float | None
    accuracy_change: AccuracyDifference | None
    time_to_float32: Estimate | None
    time_to_baseline: Estimate | None
    baseline: FloatBaseline | None
    parities: tuple[Parity, ...]
    allowed_drop: float | None

    @property
    def within_tolerance(self) -> bool:
        """Whether every verification passed and the accuracy drop to float Keras is within the limit."""
        if not self.parities or self.violations:
            return False
        if self.accuracy_points is None or self.allowed_drop is None:
            return True
        return self.accuracy_points >= -self.allowed_drop - 1e-9  # a drop of exactly the limit passes

    @property
    def foreign_baseline(self) -> Environment | None:
        """The baseline's machine, if it differs from the row's."""
        if self.baseline is None or same_machine(self.baseline.record.environment, self.environment):
            return None
        return self.baseline.record.environment

    @property
    def violations(self) -> tuple[str, ...]:
        """The violated tolerances of all verifications."""
        return tuple(text for parity in self.parities for text in parity.violations)


class BaselineRow(MeasuredRow, frozen=True):
    """A recorded float baseline, which is not ranked."""


class MissingBaseline(msgspec.Struct, frozen=True, kw_only=True):
    """The placeholder row for a missing float baseline, with advice on how to record one."""

    number: int
    name: str = "float baseline (Keras on a GPU)"
    reason: str = RECORD_A_BASELINE


Row = ResultRow | BaselineRow | MissingBaseline


class FloatAccuracy(msgspec.Struct, frozen=True):
    """Accuracy of the float Keras model, and its source."""

    accuracy: Accuracy
    source: str
    answers: Answers | None = None


class BaselineComparison(msgspec.Struct, frozen=True):
    """A row compared with a float baseline."""

    row: ResultRow
    baseline: FloatBaseline
    found: Comparison


class RankedRow(msgspec.Struct, frozen=True):
    """A row, and its time divided by that of the fastest row."""

    row: ResultRow
    ratio: Estimate


class CodeComparison(msgspec.Struct, frozen=True):
    """A model on LiteRT and as C code in one setting; ``ratio`` is C code time ÷ LiteRT time."""

    litert: ResultRow
    c99: ResultRow
    ratio: Estimate


class Recommendation(msgspec.Struct, frozen=True):
    """The file to ship to a kind of device: the fastest of those that are not measurably less accurate than the best.

    ``costs`` are those of a microcontroller, if they were counted.
    """

    device: str
    row: ResultRow
    costs: tuple[Emulated, ...] = ()


class Findings(msgspec.Struct, frozen=True, kw_only=True):
    """The data of the verdict. All rows were measured on the report's machine.

    ``recommended`` are the files to ship, one for each kind of device. ``smallest`` are all artifacts of the smallest
    size. ``tied`` are the rows without a measurable time difference to
    ``fastest``; ``next`` is the fastest of the others. ``front`` is the Pareto front in the headline setting (see
    ``pareto_front``). ``outside`` are the rows outside tolerance, ``unverified`` the rows without a verification.
    ``as_code`` are the models that also ran as C code. Not ranked: ``guesses``, the rows within tolerance of a float
    model that is no better than guessing, and ``weak``, those clearly less accurate than ``best``.
    """

    setting: Setting | None
    recommended: tuple[Recommendation, ...]
    smallest: tuple[ResultRow, ...]
    fastest: ResultRow | None
    tied: tuple[RankedRow, ...]
    next: RankedRow | None
    front: tuple[ResultRow, ...]
    outside: tuple[ResultRow, ...]
    unverified: tuple[ResultRow, ...]
    failed: tuple[Failure, ...]
    unsupported: tuple[Failure, ...]
    as_code: tuple[CodeComparison, ...] = ()
    guesses: tuple[ResultRow, ...] = ()
    weak: tuple[ResultRow, ...] = ()
    best: ResultRow | None = None


def measured_elsewhere(environment: Environment, device: str) -> str:
    """The note for times from another machine, with its processor."""
    processor = environment.gpu if _is_gpu(device) else environment.cpu
    return f"measured elsewhere, on {processor or device}"


def same_machine(one: Environment, other: Environment) -> bool:
    """Whether two environments describe the same machine."""
    return one.machine == other.machine


def float_accuracy(report: Report) -> FloatAccuracy | None:
    """Accuracy of the float Keras model: from its row, else from a baseline, else from the verification's reference.

    A baseline is used only if it has the same weights as the rows.
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
    """The rows of a report in their order, then the baselines, or a ``MissingBaseline``."""
    rows: list[Row] = []
    for result in _results(report):
        rows.append(_result_row(len(rows) + 1, result, report))
    for baseline in report.baselines:
        rows.append(_baseline_row(len(rows) + 1, baseline, report))
    if not _baselines(report):
        rows.append(MissingBaseline(number=len(rows) + 1))
    return tuple(rows)


def findings(report: Report, rows: tuple[Row, ...]) -> Findings:
    """The findings for ``rows``, which ``table(report)`` returned."""
    results = [row for row in rows if isinstance(row, ResultRow)]
    exported = [row for row in results if row.format != "keras"]
    within = [row for row in exported if row.within_tolerance]
    guesses = [row for row in within if _guesses(row, report.guessing)]
    best = max((row for row in exported if row.accuracy), key=lambda row: _share(row), default=None)
    weak = [row for row in within if best is not None and _clearly_below(row, best)]
    good = [row for row in within if row not in guesses and row not in weak]
    failures = [row for row in report.rows if isinstance(row, Failure)]
    setting = headline_setting(good) or headline_setting(exported)
    files = [row for row in good if row.format != "c"]  # a program's code counts too, and is not known here
    size = min((row.size_bytes for row in files), default=None)
    ranked = sorted((row for row in good if row.setting == setting), key=lambda row: row.timing.median)
    compared = [RankedRow(row, _divide(row.measurement, ranked[0].measurement)) for row in ranked[1:]]
    return Findings(
        setting=setting,
        recommended=_recommended(report, [row for row in good if row.setting == setting]),
        smallest=tuple({row.sha256: row for row in files if row.size_bytes == size}.values()),
        fastest=ranked[0] if ranked else None,
        tied=tuple(one for one in compared if statistics.difference(one.ratio) == "none"),
        next=next((one for one in compared if statistics.difference(one.ratio) != "none"), None),
        front=pareto_front([row for row in results if row.setting == setting]),
        outside=tuple(row for row in exported if row.parities and not row.within_tolerance),
        unverified=tuple(row for row in exported if not row.parities),
        failed=tuple(failure for failure in failures if not failure.expected),
        unsupported=tuple(failure for failure in failures if failure.expected),
        as_code=_in_c(report, exported),
        guesses=tuple(guesses),
        weak=tuple(row for row in weak if row not in guesses),
        best=best,
    )


def _recommended(report: Report, rows: Sequence[ResultRow]) -> tuple[Recommendation, ...]:
    """A recommendation for each kind of device that one of ``rows``, all accurate and in one setting, is for."""
    found = []
    for device, formats in _DEVICES.items():
        able = [row for row in rows if row.format in formats and row.runtime != "tflm"]
        best = max(map(_share, able), default=0.0)
        near = [row for row in able if row.accuracy is not None and row.accuracy.interval[1] >= best]
        if near:
            row = min(near, key=lambda one: one.timing.median)
            costs = tuple(cost for cost in report.emulated if cost.artifact_sha256 == row.sha256)
            found.append(Recommendation(device, row, costs))
    return tuple(found)


def _size(artifact: Artifact) -> int:
    """Bytes of a model file; of generated C, those of its weights, as its source is never on a device."""
    constants = None if artifact.memory is None else artifact.memory.constant_bytes
    return artifact.size_bytes if constants is None else constants


def _share(row: ResultRow) -> float:
    return row.accuracy.value if row.accuracy is not None else 0.0


def _guesses(row: ResultRow, guessing: float | None) -> bool:
    """Whether a row is not measurably better than the best constant outputs."""
    return guessing is not None and row.accuracy is not None and row.accuracy.interval[0] <= guessing


def _clearly_below(row: ResultRow, best: ResultRow) -> bool:
    """Whether a row's accuracy is more than ``_WEAK`` below the best one's, and the intervals do not overlap."""
    if row.accuracy is None or best.accuracy is None:
        return False
    return _share(best) - _share(row) > _WEAK and row.accuracy.interval[1] < best.accuracy.interval[0]


def _in_c(report: Report, rows: Sequence[ResultRow]) -> tuple[CodeComparison, ...]:
    """The models that ran both on LiteRT and as C code in one setting; each in that with the fewest threads."""
    results = _results(report)
    ran: dict[str, dict[tuple[Setting, tuple[str, ...]], ResultRow]] = {"litert": {}, "c99": {}}
    for row in rows:
        if row.runtime in ran:
            ran[row.runtime].setdefault((row.setting, _model(results[row.number - 1])), row)
    found: dict[tuple[str, ...], CodeComparison] = {}
    for (where, model), litert in sorted(ran["litert"].items(), key=lambda one: one[0][0]):
        c99 = ran["c99"].get((where, model))
        if c99 is not None:
            found.setdefault(model, CodeComparison(litert, c99, _divide(c99.measurement, litert.measurement)))
    return tuple(found.values())


def _model(result: Result) -> tuple[str, ...]:
    """A key shared by the .tflite and the .c of one model and scheme: their provenance, or else their file name."""
    provenance = result.artifact.provenance
    stem = result.artifact.file.rpartition(".")[0]
    return (stem,) if provenance is None else (provenance.model, provenance.model_sha256, provenance.scheme)


def pareto_front(rows: Sequence[ResultRow]) -> tuple[ResultRow, ...]:
    """The Pareto front of ``rows`` in median time and accuracy (point values), fastest first.

    Rows without an accuracy and rows outside tolerance are excluded.
    """
    able = [
        (row.timing.median, row.accuracy.value, row)
        for row in rows
        if row.accuracy is not None and (row.within_tolerance or not row.parities)
    ]
    front: list[ResultRow] = []
    best = -1.0
    for _, share, row in sorted(able, key=lambda one: (one[0], -one[1])):
        if share > best:
            front.append(row)
            best = share
    return tuple(front)


def versus(report: Report, rows: Sequence[Row]) -> tuple[BaselineComparison, ...]:
    """Every result in ``rows``, which ``table(report)`` returned, with every float baseline; best baseline first."""
    results = _results(report)
    return tuple(
        BaselineComparison(row, baseline, _compare(results[row.number - 1], baseline, report))
        for baseline in _baselines(report)
        for row in rows
        if isinstance(row, ResultRow)
        and row.measurement is not baseline.record.measurement
        and fits(baseline.record, *results[row.number - 1].artifact.float_model)
    )


def headline_setting(rows: Sequence[ResultRow]) -> Setting | None:
    """The most frequent setting of ``rows``; in a tie, the one with the fewest threads, then the smallest batch."""
    settings = [row.setting for row in rows]
    return min(settings, key=lambda setting: (-settings.count(setting), setting), default=None)


def _result_row(number: int, result: Result, report: Report) -> ResultRow:
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
        absent["size_ratio"] = f"{many} float32 artifact in format {artifact.format}"

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
    return ResultRow(
        number=number,
        name=artifact.name,
        environment=report.environment,
        sha256=artifact.sha256,
        format=artifact.format,
        scheme=artifact.scheme,
        runtime=measurement.runtime,
        setting=_setting(measurement),
        size_bytes=_size(artifact),
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
        warnings=statistics.warnings(measurement, report.environment),
        absent=absent,
    )


def _baseline_row(number: int, baseline: Baseline, report: Report) -> BaselineRow:
    measurement = baseline.measurement
    absent = dict.fromkeys(("size_bytes", "size_ratio"), "a baseline has times, but no exported file")
    absent["parity"] = "the float Keras model is the reference"
    warnings = statistics.warnings(measurement, baseline.environment)
    if not _of_this_model(baseline, report):
        warnings += ("recorded with a model of different layers or shapes: not compared with any row",)
    absent["time_to_float32"] = absent["time_to_baseline"] = "this row is a baseline"
    points = None
    if _of_these_weights(baseline, report):
        points = _accuracy_points(baseline.accuracy, float_accuracy(report), absent)
    else:
        absent["accuracy_points"] = "the baseline has different weights"
    timing = statistics.summary(measurement)
    if timing.p99 is None:
        absent["p99"] = f"fewer than {statistics.P99_SAMPLES} samples"
    here = same_machine(baseline.environment, report.environment)
    return BaselineRow(
        number=number,
        name=baseline.model,
        environment=baseline.environment,
        elsewhere=None if here else measured_elsewhere(baseline.environment, baseline.device),
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
        absent["accuracy_points"] = "the accuracy of the float Keras model is unknown"
    elif accuracy.total != reference.accuracy.total:
        absent["accuracy_points"] = (
            f"counted on {accuracy.total} images, the float Keras model on {reference.accuracy.total}"
        )
    else:
        return 100 * (accuracy.value - reference.accuracy.value)
    return None


def _accuracy_change(result: Result, reference: FloatAccuracy | None) -> AccuracyDifference | None:
    """The row's accuracy minus the float model's, if both store their answers; ``None`` for the float model itself."""
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
    """Whether any row has the layers and shapes of the baseline's model; ``True`` if there are no rows."""
    results = _results(report)
    return not results or any(fits(baseline, *result.artifact.float_model) for result in results)


def _of_these_weights(baseline: Baseline, report: Report) -> bool:
    """Whether any row has the weights of the baseline's model; ``True`` if no row's weights are known."""
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
    """The float Keras model on a GPU of the report's machine as a baseline, with its larger batches."""
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


def _compare(result: Result, baseline: FloatBaseline, report: Report) -> Comparison:
    found = compare(result, baseline.record, report.environment)
    at_batch = _at_batch(baseline, result.measurement.batch)
    if not baseline.paired or at_batch is None:
        return found
    return found.replace(latency=_divide(result.measurement, at_batch))


def _at_batch(baseline: FloatBaseline, batch: int) -> Measurement | None:
    """The baseline's measurement with this batch, if there is one."""
    measured = (baseline.record.measurement, *baseline.record.throughput)
    return next((one for one in measured if one.batch == batch), None)


def _divide(measurement: Measurement, reference: Measurement) -> Estimate:
    """Time ÷ time, both from one run; exactly 1 for a measurement divided by itself."""
    if measurement == reference:
        return Estimate(value=1.0, low=1.0, high=1.0)
    if not statistics.pairable(measurement, reference):
        return time_ratio(statistics.summary(measurement), statistics.summary(reference))
    return statistics.ratio(measurement, reference)
