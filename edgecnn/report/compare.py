"""The regression gate: a report against an older one, row by row.

A limit is broken if the whole 95 % interval exceeds it, and kept if the whole interval is within it. Otherwise the
row is undecided; this is reported, but is no regression.

- Latency: new median ÷ old median. The two reports share no rounds, so the uncertainties of both medians add up.
  Variation between runs (another kernel, other load on the host) is in no interval: leave a margin in the limit.
  Times of different machines are not compared.
- Accuracy: old − new on the same test images, in percentage points. If both reports store which images were classified
  correctly, the interval is the paired one (Bonett and Price 2012), else the unpaired one (Newcombe 1998), which is
  wider. The same file with the same count has a drop of exactly 0.
- A row or an accuracy that is in the old report and missing in the new one is a regression.
"""

import math
from typing import Literal

from edgecnn.errors import ConfigError, RecordError
from edgecnn.measure.comparison import accuracy_difference, time_ratio
from edgecnn.measure.statistics import summary
from edgecnn.records import SCHEMA_VERSION, Estimate, Failure, FileRecord, Record, Report, Result
from edgecnn.report import units
from edgecnn.report.grid import setting
from edgecnn.report.rows import Setting, same_machine

Verdict = Literal["kept", "broken", "cannot tell"]
_Key = tuple[str, str, Setting]


class Change(Record, frozen=True):
    """Change of a number of a row, with the ends of its 95 % interval, against ``limit``.

    The ends are ``None`` if there are too few samples for an interval. For latency, ``old`` and ``new`` are medians in
    seconds and the change is new ÷ old; for accuracy, they are shares (0…1) and the change is old − new in percentage
    points.
    """

    old: float
    new: float
    change: float
    low: float | None
    high: float | None
    limit: float
    verdict: Verdict


class RowChange(Record, frozen=True):
    """A row that both reports contain; ``same_file`` if the artifact has the same hash in both."""

    artifact: str
    runtime: str
    device: str
    threads: int
    batch: int
    same_file: bool
    latency: Change | None = None
    accuracy: Change | None = None


class Gate(FileRecord, frozen=True):
    """A report against an older one. The gate passes if there are no ``regressions``.

    ``undecided`` lists the intervals that contain their limit, ``notes`` what was not compared and what is new.
    """

    old: str
    new: str
    rows: tuple[RowChange, ...]
    regressions: tuple[str, ...]
    undecided: tuple[str, ...]
    notes: tuple[str, ...]


def compare(old: Report, new: Report, *, max_accuracy_drop: float, max_latency_ratio: float) -> Gate:
    """Compare the rows of ``old`` and ``new`` with the same artifact name, runtime, device, threads and batch.

    ``max_accuracy_drop`` is in percentage points.

    Raises:
        ConfigError: a limit is not finite, or below 0.
        RecordError: a report contains several reports, or two rows with the same name and setting.
    """
    for name, limit in (("--max-accuracy-drop", max_accuracy_drop), ("--max-latency-ratio", max_latency_ratio)):
        if not 0 <= limit < math.inf:  # refuses NaN too, which no number would exceed
            raise ConfigError(f"{name} must be a finite number, 0 or more, got {limit:g}")
    before, after = _rows(old, "old"), _rows(new, "new")
    notes = _not_compared(old, new)
    timed, counted = same_machine(old.environment, new.environment), _same_data(old, new)
    rows: list[RowChange] = []
    regressions: list[str] = []
    undecided: list[str] = []
    for key, row in before.items():
        if key not in after:
            regressions.append(f"{_named(key)}: missing in the new report{_reason(key, new)}")
            continue
        change = RowChange(
            artifact=key[0],
            runtime=key[1],
            device=key[2].device,
            threads=key[2].threads,
            batch=key[2].batch,
            same_file=row.artifact.sha256 == after[key].artifact.sha256,
            latency=_latency(row, after[key], max_latency_ratio) if timed else None,
            accuracy=_accuracy(row, after[key], max_accuracy_drop) if counted else None,
        )
        rows.append(change)
        if row.accuracy is not None and after[key].accuracy is None:
            regressions.append(f"{_named(key)}: accuracy is in the old report, but missing in the new one")
        for text, verdict in _judged(change):
            if verdict != "kept":
                (regressions if verdict == "broken" else undecided).append(f"{_named(key)}: {text}")
    notes += [f"{_named(key)}: new, with nothing to compare it to" for key in after if key not in before]
    if not any(row.latency or row.accuracy for row in rows):
        regressions.append(f"nothing could be compared: {_why_nothing(before, rows, notes)}")
    return Gate(
        schema_version=SCHEMA_VERSION,
        old=old.title,
        new=new.title,
        rows=tuple(rows),
        regressions=tuple(regressions),
        undecided=tuple(undecided),
        notes=tuple(notes),
    )


def _rows(report: Report, which: str) -> dict[_Key, Result]:
    if report.others:
        raise RecordError(
            f"the {which} file contains {1 + len(report.others)} reports, but must contain one; compare single reports"
        )
    found: dict[_Key, Result] = {}
    for row in report.rows:
        if isinstance(row, Result):
            measured = row.measurement
            where = Setting(measured.device, measured.threads, measured.batch)
            key = (row.artifact.name, measured.runtime, where)
            if key in found:
                raise RecordError(
                    f"the {which} report has two rows for {_named(key)}, so rows cannot be matched; "
                    "give the files different names, or measure them in separate reports"
                )
            found[key] = row
    return found


def _not_compared(old: Report, new: Report) -> list[str]:
    """Notes on what cannot be compared between the two reports, and on changed package versions."""
    notes = []
    if not same_machine(old.environment, new.environment):
        notes.append(
            f"latency is not compared: the old report is from machine {old.environment.machine}, the new one from "
            f"{new.environment.machine}; measure both on the same machine"
        )
    if old.data is not None and new.data is not None and not _same_data(old, new):
        notes.append("accuracy is not compared: the test images differ")
    before, after = old.environment.versions, new.environment.versions
    changed = [
        f"{name} {before[name]} → {after[name]}"
        for name in sorted(before)
        if after.get(name) != before[name] and name in after
    ]
    if changed:
        notes.append(f"changed versions: {', '.join(changed)}")
    return notes


def _same_data(old: Report, new: Report) -> bool:
    return (old.data_sha256, old.test_images) == (new.data_sha256, new.test_images)


def _latency(old: Result, new: Result, limit: float) -> Change:
    before, after = summary(old.measurement), summary(new.measurement)
    ratio = time_ratio(after, before)
    return _change(before.median, after.median, ratio, limit)


def _accuracy(old: Result, new: Result, limit: float) -> Change | None:
    if old.accuracy is None or new.accuracy is None:
        return None
    gained = accuracy_difference(new.accuracy, new.answers, old.accuracy, old.answers)
    drop = Estimate(value=-gained.value + 0.0, low=-gained.high, high=-gained.low)
    if old.artifact.sha256 == new.artifact.sha256 and old.accuracy == new.accuracy and not gained.gained:
        drop = Estimate(value=0.0, low=0.0, high=0.0)
    return _change(old.accuracy.value, new.accuracy.value, drop, limit)


def _change(old: float, new: float, change: Estimate, limit: float) -> Change:
    verdict: Verdict = "cannot tell"
    if change.low > limit:
        verdict = "broken"
    elif change.high <= limit:
        verdict = "kept"
    return Change(
        old=old,
        new=new,
        change=change.value,
        low=change.low if math.isfinite(change.high) else None,
        high=change.high if math.isfinite(change.high) else None,
        limit=limit,
        verdict=verdict,
    )


def _judged(row: RowChange) -> list[tuple[str, Verdict]]:
    """Each change of a row as text, with its verdict."""
    judged: list[tuple[str, Verdict]] = []
    if row.latency is not None:
        change = row.latency
        times = f"{units.duration(change.old)} → {units.duration(change.new)}"
        judged.append((f"latency ratio {latency_text(change)} ({times}), {change.limit:g} allowed", change.verdict))
    if row.accuracy is not None:
        change = row.accuracy
        shares = f"{units.percent(change.old)} % → {units.percent(change.new)} %"
        judged.append(
            (f"accuracy drop {accuracy_text(change)} points ({shares}), {change.limit:g} allowed", change.verdict)
        )
    return judged


def latency_text(change: Change) -> str:
    """A time ratio with its interval."""
    low, high = (0.0, math.inf) if change.low is None or change.high is None else (change.low, change.high)
    return str(units.ratio_interval(change.change, low, high))


def accuracy_text(change: Change) -> str:
    """An accuracy drop in percentage points with its interval; a gain is negative."""
    assert change.low is not None  # counts always have an interval
    assert change.high is not None
    return str(units.points_interval(change.change, change.low, change.high))


def _named(key: _Key) -> str:
    return f"{key[0]} on {key[1]} [{setting(key[2])}]"


def _reason(key: _Key, new: Report) -> str:
    """Why a row is missing, if the new report has a failure for its file."""
    reasons = [
        f"{row.stage}: {row.error}: {row.reason}"
        for row in new.rows
        if isinstance(row, Failure) and row.subject.startswith(key[0])
    ]
    return f" ({'; '.join(reasons)})" if reasons else ""


def _why_nothing(before: dict[_Key, Result], rows: list[RowChange], notes: list[str]) -> str:
    if not before:
        return "the old report has no measured row"
    if not rows:
        return "no row of the old report is in the new one"
    return "; ".join(notes) or "no accuracy was counted"
