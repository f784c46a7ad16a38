"""A report as CSV: raw numbers in full precision, with the unit in the column name."""

import csv
import io

from edgecnn.measure.comparison import AccuracyDifference
from edgecnn.records import Estimate, Failure
from edgecnn.report.page import Page
from edgecnn.report.rows import BaselineComparison, MeasuredRow, MissingBaseline, ResultRow, Row
from edgecnn.report.tables import cold_total

COLUMNS = (
    "report",
    "row",
    "artifact",
    "sha256",
    "format",
    "scheme",
    "runtime",
    "device",
    "threads",
    "batch",
    "machine",
    "same_machine",
    "elsewhere",
    "size_bytes",
    "size_to_float32_ratio",
    "accuracy_correct_images",
    "accuracy_total_images",
    "accuracy_share",
    "accuracy_low_share",
    "accuracy_high_share",
    "accuracy_to_float_keras_points",
    "accuracy_to_float_keras_low_points",
    "accuracy_to_float_keras_high_points",
    "samples",
    "blocks",
    "time_p50_s",
    "time_p50_low_s",
    "time_p50_high_s",
    "time_p90_s",
    "time_p90_low_s",
    "time_p90_high_s",
    "time_p99_s",
    "time_p99_low_s",
    "time_p99_high_s",
    "end_to_end_p50_s",
    "end_to_end_p50_low_s",
    "end_to_end_p50_high_s",
    "throughput_images_per_s",
    "throughput_images_per_s_per_core",
    "load_s",
    "cold_start_processes",
    "cold_start_import_s",
    "cold_start_load_s",
    "cold_start_first_s",
    "cold_start_total_s",
    "memory_above_empty_bytes",
    "memory_peak_bytes",
    "memory_arena_bytes",
    "energy_per_inference_j",
    "energy_counter",
    "time_to_float32_ratio",
    "time_to_float32_low_ratio",
    "time_to_float32_high_ratio",
    "time_to_baseline_ratio",
    "time_to_baseline_low_ratio",
    "time_to_baseline_high_ratio",
    "baseline",
    "baseline_machine",
    "end_to_end_to_baseline_ratio",
    "end_to_end_to_baseline_low_ratio",
    "end_to_end_to_baseline_high_ratio",
    "throughput_to_baseline_ratio",
    "throughput_to_baseline_low_ratio",
    "throughput_to_baseline_high_ratio",
    "accuracy_to_baseline_points",
    "accuracy_to_baseline_low_points",
    "accuracy_to_baseline_high_points",
    "accuracy_to_baseline_paired",
    "parity",
    "violations",
    "warnings",
    "absent",
    "stage",
    "error",
    "reason",
)

Value = str | int | float | None


def render(page: Page) -> bytes:
    """The rows of ``page``, then its failures, as UTF-8 CSV with a header; several reports follow one another.

    Baseline columns compare with the best baseline only, a GPU before a CPU; the other formats list all baselines.
    Text that a spreadsheet would run as a formula (it starts with ``=``, ``+``, ``-`` or ``@``) is prefixed with an
    apostrophe.
    """
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    for part in page.parts:
        best: dict[int, BaselineComparison] = {}
        for one in part.versus:
            best.setdefault(one.row.number, one)
        lines = [_row(row, best.get(row.number)) for row in part.rows]
        lines += [_failure(failure) for failure in (*part.findings.failed, *part.findings.unsupported)]
        for line in lines:
            writer.writerow({name: _guarded(value) for name, value in ({"report": part.letter} | line).items()})
    return text.getvalue().encode()


def _row(row: Row, beside: BaselineComparison | None) -> dict[str, Value]:
    if isinstance(row, MissingBaseline):
        return {"row": "no baseline", "artifact": row.name, "absent": f"measurement: {row.reason}"}
    line: dict[str, Value] = {
        "row": "result" if isinstance(row, ResultRow) else "baseline",
        "artifact": row.name,
        "sha256": row.sha256,
        "format": row.format,
        "scheme": row.scheme,
        "runtime": row.runtime,
        "device": row.setting.device,
        "threads": row.setting.threads,
        "batch": row.setting.batch,
        "machine": row.environment.machine,
        "same_machine": "yes" if row.elsewhere is None else "no",
        "elsewhere": row.elsewhere,
        "accuracy_to_float_keras_points": row.accuracy_points,
        "warnings": "; ".join(row.warnings),
        "absent": "; ".join(f"{field}: {reason}" for field, reason in row.absent.items()),
    }
    if row.accuracy is not None:
        low, high = row.accuracy.interval
        line |= {
            "accuracy_correct_images": row.accuracy.correct,
            "accuracy_total_images": row.accuracy.total,
            "accuracy_share": row.accuracy.value,
            "accuracy_low_share": low,
            "accuracy_high_share": high,
        }
    line |= _measured(row)
    if isinstance(row, ResultRow):
        line |= _compared(row)
    if beside is not None:
        found = beside.found
        line["baseline"] = beside.baseline.name
        line |= _estimate("end_to_end_to_baseline", "ratio", found.latency_with_copies)
        line |= _estimate("throughput_to_baseline", "ratio", found.throughput)
        line |= _estimate("accuracy_to_baseline", "points", found.accuracy)
        if found.accuracy is not None:
            line["accuracy_to_baseline_paired"] = "yes" if found.accuracy.paired else "no"
    return line


def _compared(row: ResultRow) -> dict[str, Value]:
    """The columns that only result rows have."""
    line: dict[str, Value] = {
        "size_bytes": row.size_bytes,
        "size_to_float32_ratio": row.size_ratio,
        "parity": ("fail" if row.violations else "pass") if row.parities else None,
        "violations": "; ".join(row.violations),
        "baseline_machine": row.foreign_baseline.machine if row.foreign_baseline else None,
    }
    if row.accuracy_change is not None:
        line |= {
            "accuracy_to_float_keras_low_points": row.accuracy_change.low,
            "accuracy_to_float_keras_high_points": row.accuracy_change.high,
        }
    line |= _estimate("time_to_float32", "ratio", row.time_to_float32)
    line |= _estimate("time_to_baseline", "ratio", row.time_to_baseline)
    return line


def _measured(row: MeasuredRow) -> dict[str, Value]:
    measurement, timing, cold = row.measurement, row.timing, row.cold_start
    memory, energy = measurement.memory, measurement.energy
    line: dict[str, Value] = {
        "samples": timing.samples,
        "blocks": len(measurement.blocks_ns) or None,  # no blocks if only summaries are stored
        "time_p50_s": timing.median,
        "time_p50_low_s": timing.low,
        "time_p50_high_s": timing.high,
        "time_p90_s": timing.p90.value,
        "time_p90_low_s": timing.p90.low,
        "time_p90_high_s": timing.p90.high,
        "time_p99_s": None if timing.p99 is None else timing.p99.value,
        "time_p99_low_s": None if timing.p99 is None else timing.p99.low,
        "time_p99_high_s": None if timing.p99 is None else timing.p99.high,
        "throughput_images_per_s": timing.throughput,
        "throughput_images_per_s_per_core": timing.throughput / row.cores,
        "load_s": measurement.load_s,
        "energy_per_inference_j": row.joules,
        "energy_counter": None if energy is None else energy.counter,
    }
    if row.end_to_end is not None:
        line |= {
            "end_to_end_p50_s": row.end_to_end.median,
            "end_to_end_p50_low_s": row.end_to_end.low,
            "end_to_end_p50_high_s": row.end_to_end.high,
        }
    if cold is not None:
        line |= {
            "cold_start_processes": len(measurement.cold_starts),
            "cold_start_import_s": cold.import_s,
            "cold_start_load_s": cold.load_s,
            "cold_start_first_s": cold.first_s,
            "cold_start_total_s": cold_total(cold),
        }
    if memory is not None:
        line |= {
            "memory_above_empty_bytes": row.memory_bytes,
            "memory_peak_bytes": memory.peak_bytes,
            "memory_arena_bytes": memory.arena_bytes,
        }
    return line


def _estimate(name: str, unit: str, estimate: Estimate | AccuracyDifference | None) -> dict[str, Value]:
    if estimate is None:
        return {}
    return {
        f"{name}_{unit}": estimate.value,
        f"{name}_low_{unit}": estimate.low,
        f"{name}_high_{unit}": estimate.high,
    }


def _failure(failure: Failure) -> dict[str, Value]:
    return {
        "row": "unsupported" if failure.expected else "failed",
        "artifact": failure.subject,
        "stage": failure.stage,
        "error": failure.error,
        "reason": failure.reason,
    }


def _guarded(value: Value) -> Value:
    if isinstance(value, str) and value.startswith(("=", "+", "-", "@")):
        return f"'{value}"
    return value
