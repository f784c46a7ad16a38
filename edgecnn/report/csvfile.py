"""A report as CSV: raw numbers, full precision, with the unit in the column's name."""

import csv
import io

from edgecnn.records import Failure
from edgecnn.report.page import Page
from edgecnn.report.rows import Row

COLUMNS = (
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
    "size_bytes",
    "size_to_float32_ratio",
    "accuracy_correct_images",
    "accuracy_total_images",
    "accuracy_share",
    "accuracy_low_share",
    "accuracy_high_share",
    "accuracy_to_float_keras_points",
    "samples",
    "blocks",
    "time_p50_s",
    "time_p50_low_s",
    "time_p50_high_s",
    "time_p90_s",
    "time_p99_s",
    "throughput_images_per_s",
    "load_s",
    "time_to_float32_ratio",
    "time_to_float32_low_ratio",
    "time_to_float32_high_ratio",
    "time_to_baseline_ratio",
    "time_to_baseline_low_ratio",
    "time_to_baseline_high_ratio",
    "baseline_machine",
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
    """The rows of ``page``, then its failures, as UTF-8 CSV with a header.

    A text that a spreadsheet would run as a formula (``=``, ``+``, ``-``, ``@`` or a tab first) gets an
    apostrophe in front.
    """
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    lines = [_row(row) for row in page.rows]
    lines += [_failure(failure) for failure in (*page.findings.failed, *page.findings.senseless)]
    for line in lines:
        writer.writerow({name: _guarded(value) for name, value in line.items()})
    return text.getvalue().encode()


def _row(row: Row) -> dict[str, Value]:
    line: dict[str, Value] = {
        "row": row.kind,
        "artifact": row.name,
        "sha256": row.sha256,
        "format": row.format,
        "scheme": row.scheme,
        "runtime": row.runtime,
        "machine": row.environment.machine if row.setting else None,
        "same_machine": ("yes" if row.here else "no") if row.setting else None,
        "size_bytes": row.size_bytes,
        "size_to_float32_ratio": row.size_ratio,
        "accuracy_to_float_keras_points": row.accuracy_points,
        "baseline_machine": row.foreign_baseline.machine if row.foreign_baseline else None,
        "parity": ("fail" if row.violations else "pass") if row.parities else None,
        "violations": "; ".join(row.violations),
        "warnings": "; ".join(row.warnings),
        "absent": "; ".join(f"{field}: {reason}" for field, reason in row.absent.items()),
    }
    if row.setting is not None:
        line |= {"device": row.setting.device, "threads": row.setting.threads, "batch": row.setting.batch}
    if row.accuracy is not None:
        low, high = row.accuracy.interval
        line |= {
            "accuracy_correct_images": row.accuracy.correct,
            "accuracy_total_images": row.accuracy.total,
            "accuracy_share": row.accuracy.value,
            "accuracy_low_share": low,
            "accuracy_high_share": high,
        }
    if row.measurement is not None and row.timing is not None:
        line |= {
            "samples": row.timing.samples,
            "blocks": len(row.measurement.blocks),
            "time_p50_s": row.timing.median,
            "time_p50_low_s": row.timing.low,
            "time_p50_high_s": row.timing.high,
            "time_p90_s": row.timing.p90.value,
            "time_p99_s": row.timing.p99.value if row.timing.p99 else None,
            "throughput_images_per_s": row.timing.throughput,
            "load_s": row.measurement.load_s,
        }
    for field, ratio in (
        ("time_to_float32", row.time_to_float32),
        ("time_to_baseline", row.time_to_baseline),
    ):
        if ratio is not None:
            line |= {
                f"{field}_ratio": ratio.value,
                f"{field}_low_ratio": ratio.low,
                f"{field}_high_ratio": ratio.high,
            }
    return line


def _failure(failure: Failure) -> dict[str, Value]:
    return {
        "row": "makes no sense" if failure.expected else "failed",
        "artifact": failure.subject,
        "stage": failure.stage,
        "error": failure.error,
        "reason": failure.reason,
    }


def _guarded(value: Value) -> Value:
    if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r", "\n")):
        return f"'{value}"
    return value
