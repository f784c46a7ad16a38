"""The report: rows from records, their numbers in every output, and the page in a real browser."""

import csv
import io
import os
import random
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
from matplotlib import image as pixels
from rich.console import Console

import edgecnn.optional
from edgecnn.bench import statistics
from edgecnn.errors import MissingExtraError, OutputError, RecordError
from edgecnn.files import sha256_bytes
from edgecnn.records import (
    SCHEMA_VERSION,
    Accuracy,
    Artifact,
    Baseline,
    Difference,
    Environment,
    Failure,
    Measurement,
    Parity,
    Preprocessing,
    Provenance,
    Report,
    Result,
    StageTime,
    TensorSpec,
    Tolerance,
    to_json,
)
from edgecnn.report import csvfile, format, markdown, read, show, write
from edgecnn.report.page import page
from edgecnn.report.rows import findings, table

HOSTILE = "<script>alert(1)</script>|x"
MODEL_SHA = "ab" * 32


def an_environment(machine: str = "0123456789ab", gpu: str | None = None) -> Environment:
    return Environment(
        machine=machine,
        system="Linux 6.1.0 x86_64",
        cpu="Example CPU @ 2.00GHz",
        cpu_features=("avx2", "fma"),
        cores=4,
        usable_cores=2,
        memory_bytes=8 * 1024**3,
        governor=None,
        load_1min=0.25,
        python="3.12.1",
        versions={"numpy": "2.4.6", "edgecnn": "0.1.0"},
        gpu=gpu,
    )


def an_artifact(file: str, scheme: str, size: int) -> Artifact:
    return Artifact(
        file=file,
        format=file.rpartition(".")[2],
        scheme=scheme,
        input=TensorSpec(name="image", shape=(None, 28, 28, 1), dtype="float32", layout="NHWC"),
        output=TensorSpec(name="classes", shape=(None, 10), dtype="float32", layout="NC"),
        sha256=MODEL_SHA if file.endswith(".keras") else sha256_bytes(file.encode()),
        size_bytes=size,
        provenance=Provenance(
            model="mnist",
            model_sha256=MODEL_SHA,
            scheme=scheme,
            labels=("0", "1"),
            preprocessing=Preprocessing(scale=1 / 255, offset=0.0, input_range=(0.0, 1.0)),
            data="mnist",
            data_sha256="cd" * 32,
            calibration_images=None,
            versions={},
        ),
    )


def blocks_of(seconds: float, blocks: int = 20, samples: int = 60, spread: float = 0.02, seed: int = 1):
    """Blocks of samples around ``seconds``; with ``spread`` 0 all of them equal it exactly."""
    generator = random.Random(f"{seconds}|{seed}")
    return tuple(
        tuple(seconds * (1 + spread * abs(generator.gauss(0, 1))) for _ in range(samples)) for _ in range(blocks)
    )


def a_measurement(
    artifact: Artifact, seconds: float, *, device: str = "cpu", threads: int = 1, batch: int = 1, **more
) -> Measurement:
    runtime = {"tflite": "litert", "onnx": "onnxruntime"}.get(artifact.format, "keras")
    return Measurement(
        artifact=artifact.file,
        artifact_sha256=artifact.sha256,
        runtime=runtime,
        device=device,
        threads=threads,
        batch=batch,
        load_s=0.0123,
        warmup=(seconds * 3,) * 5,
        blocks=blocks_of(seconds, **more),
    )


def a_parity(artifact: Artifact, correct: int, *, lsb: int | None = None, violations: tuple[str, ...] = ()) -> Parity:
    return Parity(
        artifact=artifact.file,
        artifact_sha256=artifact.sha256,
        runtime={"tflite": "litert", "onnx": "onnxruntime"}[artifact.format],
        reference="mnist.keras",
        accuracy=Accuracy(correct=correct, total=10000),
        reference_accuracy=Accuracy(correct=9881, total=10000),
        difference=Difference(
            images=10000,
            span=2.0,
            max_abs=0.0625,
            mean_abs=1.25e-4,
            worst_image=1247,
            agree=9950,
            max_lsb=lsb,
            mean_lsb=None if lsb is None else 0.031,
            within_one_lsb=None if lsb is None else 0.9985,
        ),
        tolerance=Tolerance(max_abs=0.1, mean_abs=0.01, agreement=0.99, accuracy_drop=0.01),
        violations=violations,
    )


KERAS = an_artifact("mnist.keras", "float32", 190_000)
FLOAT = an_artifact("float32.tflite", "float32", 102_400)
HALF = an_artifact("float16.tflite", "float16", 52_224)
DYNAMIC = an_artifact("dynamic-int8.tflite", "dynamic-int8", 30_720)
INT8 = an_artifact("int8.tflite", "int8", 25_600)
QAT = an_artifact("int8-qat.tflite", "int8-qat", 25_616)
WIDE = an_artifact("int16x8.tflite", "int16x8", 27_000)
ONNX = an_artifact("float32.onnx", "float32", 104_000)
ONNX_INT8 = an_artifact("int8.onnx", "int8", 31_000)

FAILED = Failure(
    subject="int16x8.onnx", stage="export", error="ExportError", reason="the converter gave up: int16 Softmax"
)
SENSELESS = Failure(
    subject="float16 on onnxruntime",
    stage="export",
    error="UnsupportedError",
    reason="the CPU kernels compute in float32, so the file would be cast back",
    expected=True,
)


def a_report(rows=(), parities=(), **more) -> Report:
    return Report(
        schema_version=SCHEMA_VERSION,
        title=more.pop("title", "mnist, six schemes, two runtimes"),
        data="mnist",
        data_sha256="cd" * 32,
        test_images=10000,
        environment=an_environment(),
        seed=7,
        rows=tuple(rows),
        parities=tuple(parities),
        **more,
    )


def a_result(artifact: Artifact, seconds: float, correct: int | None = None, **more) -> Result:
    return Result(
        artifact=artifact,
        measurement=a_measurement(artifact, seconds, **more),
        accuracy=None if correct is None else Accuracy(correct=correct, total=10000),
    )


def a_baseline(machine: str = "fedcba987654", sha: str = MODEL_SHA, device: str = "gpu", **more) -> Baseline:
    return Baseline(
        schema_version=SCHEMA_VERSION,
        model="mnist.keras",
        model_sha256=sha,
        backend="jax",
        device=device,
        environment=an_environment(machine, gpu="Example GPU 80GB"),
        measurement=a_measurement(KERAS, 300e-6, device=device, **more),
        accuracy=Accuracy(correct=9881, total=10000),
    )


def a_full_report(**more) -> Report:
    """Every scheme, two runtimes, a violation, both kinds of failure, a baseline from another machine."""
    more.setdefault("baselines", (a_baseline(),))
    return a_report(
        [
            a_result(KERAS, 2.1e-3, 9881),
            a_result(FLOAT, 132e-6, 9881),
            a_result(HALF, 131e-6, 9881),
            a_result(DYNAMIC, 79e-6, 9879),
            a_result(INT8, 41.2e-6, 9871),
            a_result(QAT, 41.3e-6, 9876),
            a_result(WIDE, 210e-6, 9650),
            a_result(ONNX, 96e-6, 9881),
            a_result(ONNX_INT8, 58e-6, 9869, spread=0.5),
            FAILED,
            SENSELESS,
        ],
        [
            a_parity(FLOAT, 9881),
            a_parity(HALF, 9881),
            a_parity(DYNAMIC, 9879),
            a_parity(INT8, 9871, lsb=3),
            a_parity(QAT, 9876, lsb=2),
            a_parity(WIDE, 9650, violations=("same top class 0.9701 is below 0.99", "accuracy drop is 0.0231")),
            a_parity(ONNX, 9881),
            a_parity(ONNX_INT8, 9869, lsb=4),
        ],
        stages=(
            StageTime(name="data", seconds=0.4, reused=True),
            StageTime(name="train", seconds=125.2, reused=False),
        ),
        **more,
    )


def cells(report: Report) -> list[dict[str, str]]:
    """The lines of report.csv."""
    return list(csv.DictReader(io.StringIO(csvfile.render(page(report)).decode())))


def markdown_of(report: Report) -> str:
    return markdown.render(page(report)).decode()


def markdown_row(text: str, start: str) -> list[str]:
    """The cells of the first Markdown table row whose first cell is ``start``."""
    line = next(line for line in text.splitlines() if line.startswith(f"| {start} |"))
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


# Numbers, computed by hand


def exact_report(**more) -> Report:
    """Every sample of a row is the same, so all statistics can be said beforehand."""
    return a_report(
        [
            a_result(KERAS, 400e-6, 9881, spread=0),
            a_result(FLOAT, 100e-6, 9881, spread=0),
            a_result(INT8, 25e-6, 9871, spread=0),
        ],
        [a_parity(FLOAT, 9881), a_parity(INT8, 9871, lsb=3)],
        **more,
    )


def test_csv_holds_raw_numbers_with_units_in_the_names() -> None:
    line = cells(exact_report(baselines=(a_baseline(machine="0123456789ab", spread=0),)))[2]
    assert line["row"] == "result"
    assert line["artifact"] == "int8.tflite"
    assert (line["device"], line["threads"], line["batch"]) == ("cpu", "1", "1")
    assert line["size_bytes"] == "25600"
    assert float(line["size_to_float32_ratio"]) == 25600 / 102400
    assert (line["accuracy_correct_images"], line["accuracy_total_images"]) == ("9871", "10000")
    assert float(line["accuracy_share"]) == 0.9871
    # Wilson's interval for 9871 of 10000, worked out by hand
    assert float(line["accuracy_low_share"]) == pytest.approx(0.984694, abs=1e-6)
    assert float(line["accuracy_high_share"]) == pytest.approx(0.989132, abs=1e-6)
    assert float(line["accuracy_to_float_keras_points"]) == pytest.approx(-0.10)
    assert (line["samples"], line["blocks"]) == ("1200", "20")
    for name in ("time_p50_s", "time_p50_low_s", "time_p50_high_s", "time_p90_s", "time_p99_s"):
        assert float(line[name]) == pytest.approx(25e-6), name
    assert float(line["load_s"]) == 0.0123
    assert float(line["throughput_images_per_s"]) == pytest.approx(40_000)
    for name in ("time_to_float32_ratio", "time_to_float32_low_ratio", "time_to_float32_high_ratio"):
        assert float(line[name]) == pytest.approx(0.25), name
    assert float(line["time_to_baseline_ratio"]) == pytest.approx(25 / 300)
    assert line["baseline_machine"] == ""
    assert line["parity"] == "pass"


def test_markdown_holds_the_same_numbers_in_words() -> None:
    text = markdown_of(exact_report(baselines=(a_baseline(spread=0),)))
    assert markdown_row(text, "3") == [
        "3",
        "int8.tflite",
        "int8",
        "litert [cpu, 1 thread, batch 1]",
        "25.0",
        "0.250",
        "98.71 [98.47, 98.91]",
        "−0.10",
        "25.0 [25.0, 25.0]",
        "25.0",
        "25.0",
        "40,000",
        "12.3",
        "0.250",
        "0.0833 (a)",
        "pass",
    ]


def test_below_1_is_faster() -> None:
    """The directions once more, with numbers that cannot be mistaken: 25 µs against 100 µs is 0.25."""
    report = exact_report()
    _, float32, int8, _ = table(report)
    assert int8.time_to_float32 is not None
    assert int8.time_to_float32.value == pytest.approx(0.25)
    assert float32.time_to_float32 is not None
    assert float32.time_to_float32.value == 1
    assert int8.size_ratio == 0.25
    slow = a_report([a_result(FLOAT, 100e-6, spread=0), a_result(WIDE, 200e-6, spread=0)])
    assert table(slow)[1].time_to_float32 == statistics.Estimate(value=2.0, low=2.0, high=2.0)


def test_percentiles_need_samples() -> None:
    report = a_report([a_result(FLOAT, 1e-4, blocks=10, samples=60)])
    line = cells(report)[0]
    assert line["time_p99_s"] == ""
    assert "p99: fewer than 1000 samples" in line["absent"]
    assert "fewer than 1000 samples" in markdown_of(report)


def test_warnings_of_the_measurement_reach_the_report() -> None:
    report = a_report([a_result(FLOAT, 1e-4, blocks=3, samples=4)])
    (warning, *_) = statistics.warnings(report.rows[0].measurement)  # type: ignore[union-attr]
    assert warning in cells(report)[0]["warnings"]
    assert warning in markdown_of(report)


@pytest.mark.parametrize("changed", [{"threads": 4}, {"batch": 8}, {"device": "gpu"}])
def test_times_are_divided_only_in_the_same_setting(changed: dict[str, object]) -> None:
    report = a_report([a_result(FLOAT, 1e-4), a_result(INT8, 5e-5, **changed)])
    row = table(report)[1]
    assert row.time_to_float32 is None
    assert row.absent["time_to_float32"].startswith("no float32 row on the same runtime")


def test_sizes_are_divided_only_in_the_same_format() -> None:
    row = table(a_report([a_result(FLOAT, 1e-4), a_result(ONNX_INT8, 5e-5)]))[1]
    assert row.size_ratio is None
    assert row.absent["size_ratio"] == "no float32 artifact in the format onnx"


def test_rows_with_other_numbers_of_blocks_are_still_compared() -> None:
    row = table(a_report([a_result(FLOAT, 1e-4, spread=0), a_result(INT8, 5e-5, spread=0, blocks=10)]))[1]
    assert row.time_to_float32 is not None
    assert row.time_to_float32.value == pytest.approx(0.5)


def test_accuracies_on_other_images_are_not_subtracted() -> None:
    other = a_result(INT8, 5e-5).replace(accuracy=Accuracy(correct=99, total=100))
    row = table(a_report([a_result(KERAS, 1e-3, 9881), other]))[1]
    assert row.accuracy_points is None
    assert "counted on 100 images" in row.absent["accuracy_points"]


# Baselines


def test_a_missing_baseline_says_how_to_record_one() -> None:
    report = exact_report()
    *_, last = table(report)
    assert last.kind == "no baseline"
    assert last.measurement is None
    for text in (markdown_of(report), cells(report)[-1]["absent"], shown(report)):
        flat = " ".join(text.split())
        assert "no float baseline was measured here" in flat
        assert "edgecnn baseline" in flat
        assert "--baseline FILE" in flat


def test_a_baseline_from_another_machine_is_labelled_and_never_ranked() -> None:
    report = exact_report(baselines=(a_baseline(machine="fedcba987654"),))
    rows = table(report)
    baseline = rows[-1]
    assert not baseline.here
    assert rows[2].foreign_baseline == baseline.environment
    found = findings(report, rows)
    ranked = [found.fastest, *(one.row for one in found.tied), found.next and found.next.row, *found.smallest]
    assert baseline not in ranked
    assert "divided by mnist.keras on gpu of another machine, Example GPU 80GB" in markdown_of(report)
    assert "fedcba987654" in markdown_of(report)
    assert "never ranked" in markdown_of(report)
    assert cells(report)[2]["baseline_machine"] == "fedcba987654"
    assert cells(report)[-1]["same_machine"] == "no"


def test_a_gpu_on_this_machine_comes_before_all_other_baselines() -> None:
    gpu = a_result(KERAS, 200e-6, 9881, device="gpu", spread=0)
    report = a_report([gpu, a_result(INT8, 50e-6, spread=0)], baselines=(a_baseline(), a_baseline(device="cpu")))
    row = table(report)[1]
    assert row.foreign_baseline is None
    assert row.time_to_baseline is not None
    assert row.time_to_baseline.value == pytest.approx(0.25)


def test_a_baseline_needs_the_same_batch() -> None:
    row = table(a_report([a_result(INT8, 5e-5, batch=8)], baselines=(a_baseline(),)))[0]
    assert row.absent["time_to_baseline"] == "no baseline with batch 8"


def test_a_baseline_of_another_model_is_compared_with_nothing() -> None:
    rows = table(exact_report(baselines=(a_baseline(sha="00" * 32),)))
    assert rows[2].time_to_baseline is None
    assert any("another model" in warning for warning in rows[3].warnings)


# The verdict


def test_the_verdict_names_smallest_and_fastest_with_intervals() -> None:
    smallest, fastest = page(exact_report()).verdict
    assert smallest.startswith("Smallest within tolerance: int8.tflite, 25.0 KiB, 0.250 times the size")
    assert "98.71 [98.47, 98.91] %, −0.10 points" in smallest
    assert "no measurable difference" in smallest
    assert fastest.startswith("Fastest within tolerance (cpu, 1 thread, batch 1): int8.tflite on litert")
    assert "float32.tflite on litert takes 4.00 times as long" in fastest


def test_the_verdict_says_when_nothing_can_be_told_apart() -> None:
    alike = [a_result(INT8, 5e-5, 9871, spread=0.1), a_result(QAT, 5e-5, 9876, spread=0.1, seed=2)]
    report = a_report(alike, [a_parity(INT8, 9871), a_parity(QAT, 9876)])
    found = findings(report, table(report))
    assert len(found.tied) == 1
    assert found.next is None
    assert "No measurable difference in time between it and" in " ".join(page(report).verdict)


def test_what_breaks_the_tolerance_wins_nothing() -> None:
    report = a_report(
        [a_result(FLOAT, 1e-4, 9881), a_result(INT8, 5e-5, 9871)],
        [a_parity(FLOAT, 9881), a_parity(INT8, 9871, violations=("max difference 0.3 is above 0.1",))],
    )
    found = findings(report, table(report))
    assert [row.name for row in found.smallest] == ["float32.tflite"]
    assert found.fastest is not None
    assert found.fastest.name == "float32.tflite"
    assert "Outside tolerance: int8.tflite on litert (max difference 0.3 is above 0.1)." in page(report).verdict
    assert cells(report)[1]["parity"] == "fail"
    assert cells(report)[1]["violations"] == "max difference 0.3 is above 0.1"


def test_accuracy_lost_to_the_float_model_counts_even_if_parity_passes() -> None:
    """A verification against something worse than the float model must not hide the loss."""
    report = a_report([a_result(KERAS, 1e-3, 9881), a_result(INT8, 5e-5, 9700)], [a_parity(INT8, 9700)])
    assert findings(report, table(report)).fastest is None
    assert any(line.startswith("Outside tolerance: int8.tflite") for line in page(report).verdict)


def test_every_verification_of_a_row_counts() -> None:
    """An int8 ONNX file is also verified against the TFLite file with the same integers."""
    second = a_parity(ONNX_INT8, 9871).replace(reference="int8.tflite", violations=("mean difference 2 LSB",))
    report = a_report([a_result(ONNX_INT8, 5e-5, 9871)], [a_parity(ONNX_INT8, 9871), second])
    (row, _) = table(report)
    assert row.violations == ("mean difference 2 LSB",)
    assert not row.within_tolerance
    assert markdown_row(markdown_of(report), "int8.onnx")[2:4] == ["mnist.keras", "10,000"]
    assert "| int8.tflite | 10,000 |" in markdown_of(report)


def test_tolerances_are_shown_in_the_unit_of_the_output() -> None:
    """A share of 0.1 of outputs that span 2.0 is 0.2."""
    assert "max ≤ 0.200" in markdown_of(exact_report())
    assert "mean ≤ 0.0200" in markdown_of(exact_report())


def test_threads_left_to_the_back_end() -> None:
    assert "cpu, default threads, batch 1" in markdown_of(a_report([a_result(KERAS, 1e-3, threads=0)]))


def test_unverified_rows_win_nothing() -> None:
    verdict = page(a_report([a_result(INT8, 5e-5, 9871)])).verdict
    assert verdict[0].startswith("No measured artifact is verified")
    assert "Not verified, so not considered above: int8.tflite on litert." in verdict


def test_failures_are_told_apart_from_what_makes_no_sense() -> None:
    content = page(a_full_report())
    assert [row[0].text for row in content.failed.rows] == ["int16x8.onnx"]
    assert [row[0].text for row in content.senseless.rows] == ["float16 on onnxruntime"]
    assert "1 failed: int16x8.onnx (export)." in content.verdict
    assert [line["row"] for line in cells(a_full_report())[-2:]] == ["failed", "makes no sense"]


def test_no_rows_at_all(tmp_path: Path) -> None:
    assert page(a_report()).verdict == ("No exported file was measured.",)
    write(a_report(), tmp_path)
    assert "<svg" not in (tmp_path / "report.html").read_text()


def test_one_row_only(tmp_path: Path) -> None:
    report = a_report([a_result(INT8, 5e-5, 9871)], [a_parity(INT8, 9871)])
    assert "Nothing else within tolerance was measured in this setting." in page(report).verdict[1]
    write(report, tmp_path)
    assert (tmp_path / "report.html").read_text().count("<svg") == 3


# Numbers as text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (format.time(41.23e-6, format.MICROSECONDS), "41.2"),
        (format.time(12_345e-6, format.MICROSECONDS), "12,345"),
        (format.duration(0.4), "400 ms"),
        (format.duration(0), "0 s"),
        (format.duration(125.2), "2 min 5 s"),
        (format.kib(25_600), "25.0"),
        (format.points(-0.001), "0.00"),
        (format.points(0.25), "+0.25"),
        (format.ratio_interval(0.312, 0.298, 0.33), "0.312 [0.298, 0.330]"),
        (format.ratio_interval(1.002, 1.001, 1.004), "1.002 [1.001, 1.004]"),
        (format.ratio_interval(1.002, 1.0002, 1.004), "1.0020 [1.0002, 1.0040]"),
        (format.rate(24_272), "24,300"),
        (format.significant(1.25e-4), "0.000125"),
        (format.significant(2.5e-9), "2.50e-09"),
        (format.counted(1, "thread"), "1 thread"),
        (format.plain("a\x1b[31m\nb"), "a�[31m�b"),
    ],
)
def test_formats(text: str, expected: str) -> None:
    assert text == expected


def test_one_unit_for_a_column() -> None:
    assert format.unit_for([2e-3, 40e-6]) == format.MICROSECONDS
    assert format.unit_for([2e-3, 0.9]) == format.MILLISECONDS
    assert format.unit_for([2.0]) == format.SECONDS


# Hostile names


def hostile_report() -> Report:
    bad = an_artifact(f"{HOSTILE}.tflite", "int8", 100)
    formula = an_artifact("=1+1.tflite", "float32", 200)
    return a_report(
        [
            a_result(bad, 5e-5, 9871),
            a_result(formula, 1e-4, 9881),
            Failure(subject="[x](javascript:alert(1))\n# y", stage="@s", error="`<b>```", reason="\x1b]0;a\x07*b*"),
        ],
        [a_parity(bad, 9871, violations=(HOSTILE,))],
        title=HOSTILE,
    )


def test_names_are_escaped_in_html(tmp_path: Path) -> None:
    write(hostile_report(), tmp_path)
    html = (tmp_path / "report.html").read_text()
    assert "<script" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;|x" in html
    assert "<b>`" not in html


def test_names_are_escaped_in_markdown() -> None:
    text = markdown_of(hostile_report())
    assert "<" not in text
    assert "](" not in text.replace(r"\](", "")
    assert "\n# y" not in text
    lines = text.splitlines()
    head = next(line for line in lines if line.startswith("| # |"))
    row = next(line for line in lines if line.startswith("| 1 |"))
    bars = re.compile(r"(?<!\\)\|")
    assert len(bars.findall(row)) == len(bars.findall(head))


def test_formulas_are_disarmed_in_csv() -> None:
    lines = cells(hostile_report())
    assert lines[1]["artifact"] == "'=1+1.tflite"
    assert lines[-1]["stage"] == "'@s"
    assert float(lines[0]["accuracy_to_float_keras_points"]) < 0  # a negative number stays a number


def test_names_are_shown_in_the_terminal_not_obeyed() -> None:
    text = shown(hostile_report())
    assert "\x1b" not in text
    assert "\x07" not in text


# The terminal


def shown(report: Report) -> str:
    out = io.StringIO()
    show(report, Console(file=out, highlight=False))
    return out.getvalue()


def test_the_terminal_output_fits_in_100_columns_when_piped() -> None:
    text = shown(a_full_report())
    assert max(len(line) for line in text.splitlines()) <= 100
    assert "Fastest within tolerance" in text
    assert "0.312" in text
    assert "✗ int16x8.onnx" in text


def test_the_terminal_keeps_other_machines_in_a_table_of_their_own() -> None:
    report = exact_report(baselines=(a_baseline(device="cpu"),))
    assert "cpu, 1 thread, batch 1, on Example GPU 80GB, Example CPU @ 2.00GHz (fedcba987654)." in shown(report)


def test_the_terminal_output_goes_to_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    show(a_report())
    out, err = capsys.readouterr()
    assert "No exported file was measured." in out
    assert err == ""


# Files


def test_the_same_report_gives_the_same_bytes(tmp_path: Path) -> None:
    first = write(a_full_report(), tmp_path / "a")
    second = write(a_full_report(), tmp_path / "b")
    assert [path.name for path in first] == ["report.json", "report.csv", "report.md", "report.html"]
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes(), one.name


def test_a_report_is_read_back_equal(tmp_path: Path) -> None:
    path, *_ = write(a_full_report(), tmp_path)
    assert read(path) == a_full_report()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"no json", "not a valid Report file"),
        (b"{}", "missing required field"),
        (to_json(a_report().replace(schema_version=99)), "has schema version 99, this edgecnn reads 1"),
        (None, "cannot read report"),
    ],
)
def test_bad_files_are_refused(tmp_path: Path, data: bytes | None, message: str) -> None:
    path = tmp_path / "report.json"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(RecordError, match=message):
        read(path)


def test_a_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x").touch()
    with pytest.raises(OutputError, match="is a file"):
        write(a_report(), tmp_path / "x")


def test_without_the_extra_only_the_html_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> object:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(edgecnn.optional.importlib, "import_module", absent)
    with pytest.raises(MissingExtraError, match=r"edgecnn\[report\]"):
        write(a_report(), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.csv", "report.json", "report.md"]


# The page


class Checker(HTMLParser):
    """Collects what matters of a page and refuses tags that do not close in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.references: list[str] = []
        self.headings: list[str] = []
        self.unnamed: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag not in ("meta", "link", "br"):
            self.open.append(tag)
        if re.fullmatch(r"h\d", tag):
            self.headings.append(tag)
        if tag == "svg" and not (given.get("role") == "img" and given.get("aria-label")):
            self.unnamed.append(tag)
        self.ids += [value for name, value in attrs if name == "id" and value]
        self.references += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href", "srcset")]
        assert not [name for name, _ in attrs if name.startswith("on")], "no scripts in attributes"

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes something else"


@pytest.fixture(scope="module")
def page_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(a_full_report(), tmp_path_factory.mktemp("page"))[-1]


def test_the_page_is_sound_and_needs_nothing_from_outside(page_path: Path) -> None:
    html = page_path.read_text()
    checker = Checker()
    checker.feed(html)
    assert checker.open == []
    assert len(checker.ids) == len(set(checker.ids))
    assert checker.unnamed == []
    assert checker.headings[:2] == ["h1", "h2"]
    assert checker.headings.count("h1") == 1
    for reference in checker.references:
        assert reference == "data:," or (reference[0] == "#" and reference[1:] in checker.ids), reference
    for url in re.findall(r"url\(([^)]*)\)", html):
        assert url.strip("'\"").startswith("#"), url
    assert "@import" not in html
    assert "<script" not in html


def chromium(*arguments: str, profile: Path) -> str:
    """Run headless Chromium and return what it prints."""
    program = shutil.which("chromium")
    if program is None:
        message = "chromium is not installed: the page was not tried in a browser (Debian package: chromium)"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    done = subprocess.run(
        [
            program,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--hide-scrollbars",
            f"--user-data-dir={profile}",
            *arguments,
        ],
        capture_output=True,
        text=True,
        timeout=50,
        check=True,
    )
    return done.stdout


@pytest.mark.parametrize("dark", [False, True])
def test_a_browser_draws_the_page(page_path: Path, tmp_path: Path, dark: bool) -> None:
    picture = tmp_path / "page.png"
    chromium(
        *(["--blink-settings=preferredColorScheme=0"] if dark else []),
        "--window-size=1280,1600",
        f"--screenshot={picture}",
        page_path.as_uri(),
        profile=tmp_path / "profile",
    )
    image = pixels.imread(picture)
    corner = image[2, 2, :3]
    assert (corner.mean() < 0.3) == dark
    assert image[..., :3].std() > 0.03, "the page is blank"


def width_on_a_phone(html: str, folder: Path) -> int:
    """Width of the page's content in a frame of 360 px, since a headless window cannot be that narrow."""
    measure = "<script>document.title = 'width ' + document.documentElement.scrollWidth</script>"
    policy = re.search(r"<meta http-equiv[^>]*>", html)
    assert policy is not None
    html = html.replace(policy[0], "").replace("</body>", f"{measure}</body>")
    (folder / "copy.html").write_text(html)
    (folder / "phone.html").write_text(
        "<!doctype html>"
        '<iframe id="phone" style="width: 360px; height: 700px; border: 0" src="copy.html"></iframe>'
        "<script>document.getElementById('phone').onload = e => "
        "document.body.append(e.target.contentDocument.title)</script>"
    )
    dom = chromium(
        "--allow-file-access-from-files",
        "--dump-dom",
        (folder / "phone.html").as_uri(),
        profile=folder / "profile",
    )
    width = re.search(r"width (\d+)<", dom)
    assert width is not None, dom
    return int(width[1])


@pytest.mark.parametrize("report", [a_full_report(), hostile_report(), a_report()], ids=["full", "hostile", "empty"])
def test_the_page_does_not_scroll_sideways_on_a_phone(report: Report, tmp_path: Path) -> None:
    assert width_on_a_phone(write(report, tmp_path)[-1].read_text(), tmp_path) <= 360


def test_a_page_that_is_too_wide_is_noticed(page_path: Path, tmp_path: Path) -> None:
    html = page_path.read_text().replace("</main>", '<div style="width: 900px">wide</div></main>')
    assert width_on_a_phone(html, tmp_path) > 360
