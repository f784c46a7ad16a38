"""The report: rows from records, their numbers in every output, and the page in a real browser."""

import base64
import csv
import hashlib
import io
import json
import math
import os
import random
import re
import shutil
import subprocess
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from matplotlib import image as pixels
from rich.console import Console
from times import in_ns

import edgecnn.optional
from edgecnn.errors import MissingExtraError, OutputError, RecordError
from edgecnn.files import sha256_bytes
from edgecnn.measure import statistics
from edgecnn.measure.baseline import condensed
from edgecnn.records import (
    SCHEMA_VERSION,
    Accuracy,
    Answers,
    Artifact,
    Baseline,
    ColdStart,
    Difference,
    Emulated,
    Energy,
    Environment,
    Estimate,
    Failure,
    LayerError,
    LayerErrors,
    Measurement,
    Memory,
    Parity,
    Preprocessing,
    ProcessorAnswers,
    Provenance,
    Report,
    Result,
    StageTime,
    TensorSpec,
    Tolerance,
    to_json,
)
from edgecnn.report import csvfile, html, markdown, merge, read, show, show_answers, units, write
from edgecnn.report.grid import Notes
from edgecnn.report.page import Page, page
from edgecnn.report.rows import RECORD_A_BASELINE, BaselineRow, MissingBaseline, ResultRow, Setting, findings, table

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


RUNTIME = {"tflite": "litert", "onnx": "onnxruntime", "c": "c99", "keras": "keras"}


def blocks_of(seconds: float, blocks: int = 20, samples: int = 60, spread: float = 0.02, seed: int = 1):
    """Blocks of samples around ``seconds``; with ``spread`` 0 all of them equal it exactly."""
    generator = random.Random(f"{seconds}|{seed}")
    return in_ns([seconds * (1 + spread * abs(generator.gauss(0, 1))) for _ in range(samples)] for _ in range(blocks))


def a_measurement(
    artifact: Artifact, seconds: float, *, device: str = "cpu", threads: int = 1, batch: int = 1, **more
) -> Measurement:
    return Measurement(
        artifact=artifact.file,
        artifact_sha256=artifact.sha256,
        runtime=RUNTIME[artifact.format],
        device=device,
        threads=threads,
        batch=batch,
        load_s=0.0123,
        warmup_ns=(round(3e9 * seconds),) * 5,
        blocks_ns=blocks_of(seconds, **more),
    )


def a_parity(artifact: Artifact, correct: int, *, lsb: int | None = None, violations: tuple[str, ...] = ()) -> Parity:
    return Parity(
        artifact=artifact.file,
        artifact_sha256=artifact.sha256,
        runtime=RUNTIME[artifact.format],
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


HEADLINE = Setting("cpu", 1, 1)


def answers(wrong: set[int], total: int = 10000, images: str = "ef") -> Answers:
    """All images right but those in ``wrong``."""
    right = np.ones(total, bool)
    right[list(wrong)] = False
    return Answers(
        total=total, right=base64.b64encode(np.packbits(right).tobytes()).decode(), images_sha256=images * 32
    )


def in_full(result: Result, wrong: set[int]) -> Result:
    """``result`` with everything that bench can measure beside the time of invoke."""
    measured = result.measurement
    return result.replace(
        accuracy=Accuracy(correct=10000 - len(wrong), total=10000),
        answers=answers(wrong),
        measurement=measured.replace(
            end_to_end_ns=tuple(tuple(2 * sample for sample in block) for block in measured.blocks_ns),
            cold_starts=(ColdStart(import_s=0.1, load_s=0.004, first_s=0.001),) * 3,
            memory=Memory(empty_bytes=20 * 1024**2, peak_bytes=32 * 1024**2, arena_bytes=51_200),
            energy=Energy(counter="intel-rapl:0", joules=0.2, inferences=1000),
        ),
    )


def a_layer(position: int | None, operator: str, own: float | None, summed: float, lost: float) -> LayerError:
    return LayerError(
        tensor="t",
        position=position,
        operator=operator,
        scale=0.02,
        zero_point=-128,
        own_snr_db=own,
        own_max_abs=0.03,
        lost_db=lost,
        snr_db=summed,
        max_abs=0.05,
        at_low=0.3,
        at_high=0.001,
        clipped=0.0001,
    )


def a_cost(artifact: Artifact, target: str, instructions: int) -> Emulated:
    return Emulated(
        artifact=artifact.file,
        artifact_sha256=artifact.sha256,
        target=target,
        opt="-O2",
        compiler="a-gcc 12.2.1",
        emulator="QEMU 7.2",
        instructions=instructions,
        functions={"model_invoke": instructions},
        code_bytes=5_432,
        flash_bytes=31_032,
        ram_bytes=21_684,
        stack_bytes=296,
        arena_bytes=21_680,
    )


def a_rich_report() -> Report:
    """Everything a report can show: sweeps, starts, memory, energy, two baselines, layers, a failure."""
    float_wrong, int8_wrong = set(range(119)), {*range(10, 119), *range(500, 520)}
    baselines = tuple(
        a_baseline(seed=seed).replace(
            backend=backend,
            answers=answers(float_wrong),
            measurement=in_full(a_result(KERAS, time, device="gpu"), float_wrong).measurement,
            throughput=(a_measurement(KERAS, 4 * time, device="gpu", batch=64),),
            peak_device_bytes=300 * 1024**2,
        )
        for backend, time, seed in (("jax", 300e-6, 1), ("torch", 500e-6, 2))
    )
    rows: list[Result | Failure] = [in_full(a_result(KERAS, 2.1e-3), float_wrong)]
    for artifact, seconds, wrong in (
        (FLOAT, 132e-6, float_wrong),
        (INT8, 41.2e-6, int8_wrong),
        (ONNX_INT8, 58e-6, int8_wrong),
    ):
        rows.append(in_full(a_result(artifact, seconds), wrong))
        swept = [a_result(artifact, seconds / threads, threads=threads) for threads in (2, 4)]
        swept += [a_result(artifact, 0.8 * seconds * batch, batch=batch) for batch in (8, 64)]
        rows += [row.replace(accuracy=rows[-1].accuracy, answers=answers(wrong)) for row in swept]  # type: ignore[union-attr]
    return a_report(
        [*rows, FAILED, SENSELESS],
        [a_parity(FLOAT, 9881), a_parity(INT8, 9871, lsb=3), a_parity(ONNX_INT8, 9871, lsb=4)],
        baselines=baselines,
        emulated=(a_cost(INT8, "cortex-m4", 4_560_123), a_cost(INT8, "cortex-m55", 1_234_567)),
        layers=(
            LayerErrors(
                artifact="int8.tflite",
                artifact_sha256=INT8.sha256,
                images=200,
                images_from="training images",
                runtime="litert",
                reference="float Keras model",
                weights_snr_db=38.0,
                output_snr_db=None,
                layers=(
                    a_layer(2, "CONV_2D", 12.0, 11.0, 22.0),
                    a_layer(0, "CONV_2D", 45.0, 44.0, 0.1),
                    a_layer(1, HOSTILE, None, 44.0, 0.1),
                    a_layer(None, "input", 52.0, 52.0, 0.0),
                ),
            ),
        ),
    )


def merged() -> Report:
    """Two machines, and a second run on the first."""
    pi = a_full_report().replace(title="on the board", environment=an_environment("00aa11bb22cc"))
    again = a_report([a_result(INT8, 40e-6, 9871), FAILED], title="once more")
    return exact_report().replace(others=(pi, again))


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
        "98.71 [98.47, 98.91]",
        "25.0 [25.0, 25.0]",
        "25.0",
        "0.250",
        "litert [cpu, 1 thread, batch 1]",
        "int8",
        "−0.10",
        "0.250",
        "0.0833 (a)",
        "pass",
        "25.0 [25.0, 25.0]",
        "25.0 [25.0, 25.0]",
        "40,000",
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
    assert table(slow)[1].time_to_float32 == Estimate(value=2.0, low=2.0, high=2.0)


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
    assert row.absent["size_ratio"] == "no float32 artifact in format onnx"


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
    assert isinstance(last, MissingBaseline)
    assert last.reason == RECORD_A_BASELINE
    for text in (markdown_of(report), cells(report)[-1]["absent"], shown(report)):
        flat = " ".join(text.split())
        assert "no float baseline was measured" in flat
        assert "edgecnn baseline" in flat
        assert "--baseline FILE" in flat


def test_a_baseline_from_another_machine_is_labelled_and_never_ranked() -> None:
    report = exact_report(baselines=(a_baseline(machine="fedcba987654"),))
    rows = table(report)
    baseline = rows[-1]
    assert isinstance(baseline, BaselineRow)
    assert baseline.elsewhere == "measured elsewhere, on Example GPU 80GB"
    assert rows[2].foreign_baseline == baseline.environment
    found = findings(report, rows)
    ranked = [found.fastest, *(one.row for one in found.tied), found.next and found.next.row, *found.smallest]
    assert baseline not in ranked
    for text in (markdown_of(report), html.render(page(report)).decode(), shown(report)):
        flat = " ".join(text.split())
        assert "divided by mnist.keras (jax), measured elsewhere, on Example GPU 80GB (fedcba987654)" in flat
        assert "measured elsewhere, on Example GPU 80GB (fedcba987654): never ranked" in flat
    assert cells(report)[-1]["elsewhere"] == "measured elsewhere, on Example GPU 80GB"
    assert cells(report)[2]["elsewhere"] == ""
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
    assert any("a model of different layers or shapes" in warning for warning in rows[3].warnings)


def with_architecture(result: Result, architecture: str) -> Result:
    """``result``, made from a model of this architecture, with weights of its own."""
    said = result.artifact.provenance
    assert said is not None
    told = said.replace(model_sha256=architecture * 32, architecture=architecture)
    return result.replace(artifact=result.artifact.replace(provenance=told))


def test_each_row_is_put_beside_the_baselines_of_its_own_architecture() -> None:
    rows = [with_architecture(a_result(INT8, 30e-6, spread=0), "aa"), with_architecture(a_result(FLOAT, 60e-6), "bb")]
    recorded = (a_baseline(sha="00" * 32, spread=0).replace(architecture="aa"),)
    own, other, _ = table(a_report(rows, baselines=recorded))
    assert own.time_to_baseline is not None
    assert own.time_to_baseline.value == pytest.approx(0.1)
    assert other.time_to_baseline is None
    content = page(a_report(rows, baselines=recorded))
    assert [one.row.name for one in content.versus] == ["int8.tflite"]


def test_the_accuracy_of_other_weights_is_no_reference() -> None:
    """A baseline of the same architecture says how fast, and nothing of what quantisation has cost."""
    row = with_architecture(a_result(INT8, 30e-6, 9871), "aa")
    recorded = a_baseline(sha="00" * 32).replace(architecture="aa")
    own, last = table(a_report([row], baselines=(recorded,)))
    assert (own.accuracy_points, last.accuracy_points) == (None, None)
    assert last.absent["accuracy_points"] == "the baseline has different weights"
    same = recorded.replace(model_sha256="aa" * 32)
    assert table(a_report([row], baselines=(same,)))[0].accuracy_points == pytest.approx(-0.1)


def test_summaries_stand_for_the_samples_of_a_baseline() -> None:
    """Every number of a report is the same, whether the samples are there or what they come to."""
    whole = a_baseline(spread=0.2)
    small = condensed(whole, "from elsewhere")
    assert not small.measurement.samples_s
    one, other = (exact_report(baselines=(baseline,)) for baseline in (whole, small))
    note = "- **about this record**: from elsewhere\n"
    assert note in markdown_of(other)
    assert markdown_of(one) == markdown_of(other).replace(note, "")
    *_, line = cells(one)
    *_, stood_for = cells(other)
    differing = {name for name in line if not alike(line[name], stood_for[name])}
    assert differing == {"blocks"}  # there are none


def alike(one: str, other: str) -> bool:
    """Whether two cells are equal, but for the last digits of numbers."""
    try:
        return math.isclose(float(one), float(other), rel_tol=1e-8)
    except ValueError:
        return one == other


# The verdict


def said(report: Report, start: str) -> str:
    """The sentence of the verdict that starts so."""
    (sentence,) = (one for one in page(report).verdict if one.startswith(start))
    return sentence


def test_the_verdict_names_smallest_and_fastest_with_intervals() -> None:
    smallest, fastest = (said(exact_report(), start) for start in ("Smallest", "Fastest"))
    assert smallest.startswith("Smallest within tolerance: int8.tflite, 25.0 KiB, 0.250 times the size")
    assert "98.71 [98.47, 98.91] %, −0.10 points" in smallest
    assert "no measurable difference" in smallest
    assert fastest.startswith("Fastest within tolerance (cpu, 1 thread, batch 1): int8.tflite on litert")
    assert "float32.tflite on litert takes 4.000 times as long" in fastest


CODE = an_artifact("int8.c", "int8", 90_000)


def test_the_verdict_says_which_file_to_ship_where() -> None:
    report = a_report(
        [
            a_result(FLOAT, 100e-6, 9881, spread=0),
            a_result(INT8, 25e-6, 9871, spread=0),
            a_result(CODE, 300e-6, 9871, spread=0),
        ],
        [a_parity(FLOAT, 9881), a_parity(INT8, 9871), a_parity(CODE, 9871)],
        emulated=(a_cost(CODE, "cortex-m4", 4_000_000),),
    )
    phone, board, micro = page(report).verdict[:3]
    assert phone == (
        "For a phone: int8.tflite: accuracy 98.71 [98.47, 98.91] %, −0.10 points to the float Keras model, 25.0 KiB, "
        "median 25.0 µs on litert here."
    )
    assert board.startswith("For a Linux board: int8.tflite: ")
    assert micro == (
        "For a microcontroller: int8.c: accuracy 98.71 [98.47, 98.91] %, −0.10 points to the float Keras model, "
        "flash 30.3 KiB, RAM 21.2 KiB and 4.00 million instructions on cortex-m4."
    )


def test_a_faster_file_that_is_measurably_less_accurate_is_not_shipped() -> None:
    report = a_report(
        [a_result(FLOAT, 100e-6, 9881, spread=0), a_result(INT8, 25e-6, 9801, spread=0)],
        [a_parity(FLOAT, 9881), a_parity(INT8, 9801)],
    )
    assert said(report, "Fastest").startswith("Fastest within tolerance (cpu, 1 thread, batch 1): int8.tflite")
    assert said(report, "For a phone").startswith("For a phone: float32.tflite: accuracy 98.81")


def test_the_verdict_puts_the_fastest_beside_the_gpu() -> None:
    alone = said(exact_report(), "Fastest")
    beside = said(exact_report(baselines=(a_baseline(),)), "Fastest")
    assert "float baseline" not in alone
    told = re.search(
        r" Time ÷ float baseline \(mnist.keras \(jax\), (measured elsewhere, on .*?)\): ([\d.]+)[ .]", beside
    )
    assert told is not None, beside
    assert told[1].endswith("Example GPU 80GB")
    (row,) = (row for row in table(exact_report(baselines=(a_baseline(),))) if row.name == "int8.tflite")
    assert row.time_to_baseline is not None
    assert float(told[2]) == pytest.approx(row.time_to_baseline.value, rel=0.01)


def test_the_verdict_says_when_nothing_can_be_told_apart() -> None:
    alike = [a_result(INT8, 5e-5, 9871, spread=0.1), a_result(QAT, 5e-5, 9876, spread=0.1, seed=2)]
    report = a_report(alike, [a_parity(INT8, 9871), a_parity(QAT, 9876)])
    found = findings(report, table(report))
    assert len(found.tied) == 1
    assert found.next is None
    assert "No measurable difference in time to" in " ".join(page(report).verdict)


def of_a_poor_model(report: Report, correct: int) -> Report:
    """``report`` on files of a float model that is right on ``correct`` images."""
    accuracy = Accuracy(correct=correct, total=10_000)
    return report.replace(parities=tuple(one.replace(reference_accuracy=accuracy) for one in report.parities))


def test_a_file_no_better_than_guessing_is_not_recommended() -> None:
    results = [a_result(FLOAT, 1e-4, 1140), a_result(INT8, 5e-5, 1130)]
    report = of_a_poor_model(a_report(results, [a_parity(FLOAT, 1140), a_parity(INT8, 1130)]), 1140)
    assert findings(report, table(report)).fastest is not None
    report = report.replace(guessing=0.1135)
    found = findings(report, table(report))
    assert (found.fastest, found.smallest) == (None, ())
    said = " ".join(page(report).verdict)
    assert "No better than guessing, so not recommended: float32.tflite and int8.tflite." in said
    assert "so none is recommended" in said


def test_a_file_clearly_less_accurate_than_another_is_not_recommended() -> None:
    """As when quantisation-aware training made a poor model better."""
    results = [a_result(INT8, 5e-5, 3180), a_result(QAT, 1e-4, 5010)]
    report = of_a_poor_model(a_report(results, [a_parity(INT8, 3180), a_parity(QAT, 5010)]), 3190)
    found = findings(report, table(report))
    assert found.outside == (), "what is outside tolerance is not recommended anyway"
    assert [row.name for row in found.smallest] == ["int8-qat.tflite"]
    assert found.fastest is not None
    assert found.fastest.name == "int8-qat.tflite"
    said = " ".join(page(report).verdict)
    assert "Clearly less accurate than int8-qat.tflite, so not recommended: int8.tflite." in said


def test_what_breaks_the_tolerance_wins_nothing() -> None:
    report = a_report(
        [a_result(FLOAT, 1e-4, 9881), a_result(INT8, 5e-5, 9871)],
        [a_parity(FLOAT, 9881), a_parity(INT8, 9871, violations=("max difference 0.3 is above 0.1",))],
    )
    found = findings(report, table(report))
    assert [row.name for row in found.smallest] == ["float32.tflite"]
    assert found.fastest is not None
    assert found.fastest.name == "float32.tflite"
    reason = "Outside tolerance: int8.tflite on litert: max difference 0.3 is above 0.1, against mnist.keras."
    assert reason in page(report).verdict
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
    assert "Not verified, so not ranked: int8.tflite on litert." in verdict


def test_failures_are_told_apart_from_what_makes_no_sense() -> None:
    content = page(a_full_report())
    assert [row[0].text for row in content.failed.rows] == ["int16x8.onnx"]
    assert [row[0].text for row in content.unsupported.rows] == ["float16 on onnxruntime"]
    assert "1 failed: int16x8.onnx (export)." in content.verdict
    assert [line["row"] for line in cells(a_full_report())[-2:]] == ["failed", "unsupported"]


def test_no_rows_at_all(tmp_path: Path) -> None:
    assert page(a_report()).verdict == ("No exported file was measured.",)
    write(a_report(), tmp_path)
    assert "<svg" not in (tmp_path / "report.html").read_text()


def test_one_row_only(tmp_path: Path) -> None:
    report = a_report([a_result(INT8, 5e-5, 9871)], [a_parity(INT8, 9871)])
    assert "No other file within tolerance was measured in this setting." in said(report, "Fastest")
    write(report, tmp_path)
    assert (tmp_path / "report.html").read_text().count("<svg") == 3


# What else was measured


def column(content: Page, grid: str, title: str) -> list[str]:
    """The texts of a column of the grid called ``grid``."""
    found = getattr(content, grid)
    place = [one.title for one in found.columns].index(title)
    return [row[place].text for row in found.rows]


def test_end_to_end_starts_memory_and_energy_reach_every_output() -> None:
    report = a_rich_report()
    line = next(line for line in cells(report) if line["artifact"] == "int8.tflite")
    assert float(line["end_to_end_p50_s"]) == pytest.approx(2 * float(line["time_p50_s"]), rel=1e-6)
    assert line["cold_start_processes"] == "3"
    assert float(line["cold_start_import_s"]) == 0.1
    assert float(line["cold_start_total_s"]) == pytest.approx(0.105)
    assert line["memory_above_empty_bytes"] == str(12 * 1024**2)
    assert line["memory_arena_bytes"] == "51200"
    assert float(line["energy_per_inference_j"]) == pytest.approx(0.0002)
    assert line["energy_counter"] == "intel-rapl:0"
    content = page(report)
    assert column(content, "resources", "to the first answer, ms")[0] == "105"
    assert column(content, "resources", "memory, MiB")[0] == "12.0"
    assert column(content, "resources", "energy, mJ per inference")[0] == "0.200"
    text = markdown_of(report)
    assert "## Start, memory and energy" in text
    assert "medians of 3 fresh processes" in text
    assert " e2e" in shown(report)


def test_emulated_processors_reach_every_output_but_csv(rich_path: Path) -> None:
    report = a_rich_report()
    text = markdown_of(report)
    section = text[text.index("## Emulated processors") :]
    assert markdown_row(section, "int8.tflite") == [
        "int8.tflite", "cortex-m4 (a)", "4.56", "5,432", "31,032", "21,684", "21,680", "296"
    ]  # fmt: skip
    assert "- (a) a-gcc 12.2.1 -O2, QEMU 7.2" in section
    assert "instruction counts are not timings" in section
    html = rich_path.read_text()
    assert '<a href="#emulated">Emulated processors</a>' in html
    assert "<title>int8.tflite on cortex-m55: 1,234,567 instructions</title>" in html
    assert 'aria-label="Instructions of one inference"' in html
    assert "int8.tflite on cortex-m4: 4,560,123 instructions, flash 31,032 bytes" in shown(report)
    assert "cortex" not in csvfile.render(page(report)).decode()
    assert "Emulated" not in markdown_of(a_full_report())


def some_answers(artifact: Artifact, processor: str, *, violations: tuple[str, ...] = ()) -> ProcessorAnswers:
    return ProcessorAnswers(
        processor=processor,
        emulator="qemu version 7.2",
        runtime="litert 2.3.0",
        runtime_here="litert 2.4.0",
        against_reference=a_parity(artifact, 9871, lsb=9 if "int8" in artifact.file else None),
        against_here=a_parity(
            artifact, 9871, lsb=3 if "int8" in artifact.file else None, violations=violations
        ).replace(reference="this machine"),
        instructions=1_312_345,
    )


def test_answers_by_processor_reach_every_output_but_csv(tmp_path: Path) -> None:
    wrong = ("top class agrees on 50.00%", "mean difference 12 LSB, 1.5 allowed")
    report = a_report(
        processors=(
            some_answers(INT8, "haswell", violations=wrong),
            some_answers(INT8, "cortex-a72").replace(instructions=None),
            some_answers(FLOAT, "nehalem"),
        )
    )
    text = markdown_of(report)
    section = text[text.index("## Outputs by processor") :]
    same = ["98.71 [98.47, 98.91]", "3 LSB", "0.0310 LSB", "99.50", "9 LSB", "0.0310 LSB", "99.50"]
    assert markdown_row(section, "int8.tflite") == ["int8.tflite", "haswell (a)", *same, "1.31", "fail (b)"]
    assert "| int8.tflite | cortex-a72 (a) | " + " | ".join(same) + " | — | pass |" in section
    floats = ["98.71 [98.47, 98.91]", "0.0625", "0.000125", "99.50", "0.0625", "0.000125", "99.50"]
    assert markdown_row(section, "float32.tflite") == ["float32.tflite", "nehalem (a)", *floats, "1.31", "pass"]
    assert "- (a) litert 2.3.0 (this machine has litert 2.4.0), qemu version 7.2, 10,000 test images" in section
    assert "- (b) against this machine: top class agrees on 50.00%; against this machine: mean difference 12" in section
    caution = "outputs of int8.tflite differ on haswell, against this machine: top class agrees on 50.00%"
    assert f"Caution: {caution}" in text
    assert read(write(report, tmp_path)[0]) == report
    html = (tmp_path / "report.html").read_text()
    assert '<a href="#processors">Outputs by processor</a>' in html
    assert caution in html
    for printed in (shown(report), answers_shown([*report.processors, FAILED])):
        assert max(len(line) for line in printed.splitlines()) <= 100
        assert re.search(r"int8\.tflite +haswell \(a\) +98\.71 +3 LSB +0\.0310 LSB +99\.50 +1\.31 +fail \(b\)", printed)
    assert f"✗ {FAILED.subject}, {FAILED.stage}: " in answers_shown([FAILED])
    assert "haswell" not in csvfile.render(page(report)).decode()
    assert "by processor" not in markdown_of(a_full_report())


def answers_shown(rows: list[ProcessorAnswers | Failure]) -> str:
    out = io.StringIO()
    show_answers(rows, Console(file=out, highlight=False))
    return out.getvalue()


def test_costs_alone_make_a_report(tmp_path: Path) -> None:
    report = a_report(emulated=(a_cost(INT8, "cortex-m4", 12),))
    write(report, tmp_path)
    assert read(tmp_path / "report.json") == report
    assert "int8.tflite on cortex-m4: 12 instructions" in shown(report)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (3.2, r"LiteRT runs int8\.tflite 3\.\d+ \[3\.\d+, 3\.\d+\] times as fast as its C code; the C code is for dev"),
        (0.5, r"the C code of int8\.tflite runs [12]\.\d+ \[\d\.\d+, 2\.\d+\] times as fast as LiteRT\."),
        (1.0, r"no measurable difference between the C code of int8\.tflite and LiteRT \(time ratio "),
    ],
)
def test_the_verdict_says_whether_litert_or_c_is_faster(seconds: float, said: str) -> None:

    def in_c(threads: int) -> Result:
        result = a_result(CODE, 41e-6 * seconds, threads=threads, seed=2)
        return result.replace(measurement=result.measurement.replace(runtime="c99"))

    litert, others = a_result(INT8, 41e-6), (a_result(FLOAT, 80e-6), a_result(QAT, 20e-6))
    content = page(a_report([a_result(INT8, 20e-6, threads=2), in_c(2), litert, in_c(1), *others]))
    sentences = [line for line in content.verdict if line.startswith("On this machine")]
    assert len(sentences) == 1
    assert re.match(rf"On this machine \(cpu, 1 thread, batch 1\): {said}", sentences[0]), sentences
    apart = page(a_report([litert, in_c(2)]))
    assert not [line for line in apart.verdict if line.startswith("On this machine")]


def test_what_was_never_measured_has_no_column() -> None:
    content = page(exact_report())
    assert not [one for one in content.results.columns if one.title.startswith("end to end")]
    assert [one.title for one in content.resources.columns][3:] == ["load, ms"]


def test_a_column_that_would_be_empty_is_named_with_the_reason() -> None:
    results = page(a_report([a_result(INT8, 5e-5), a_result(ONNX_INT8, 5e-5, blocks=5)])).results
    assert [one.key for one in results.columns if one.key] == ["number", "artifact", "p50", "size", "runtime", "p99"]
    left_out = dict(results.left_out)
    assert left_out["accuracy, % [95 %]"] == "accuracy was not counted"
    assert left_out["parity"] == "not verified on litert; not verified on onnxruntime"
    marks = [mark for mark, _ in results.notes]
    assert marks == ["a", "b", "c"][: len(marks)], "letters without gaps"
    used = {mark for row in results.rows for cell in row for mark in cell.marks}
    assert used == set(marks)
    assert "- no column “parity”: not verified on litert" in markdown_of(a_report([a_result(INT8, 5e-5)]))


def test_a_row_beside_several_baselines() -> None:
    content = page(a_rich_report())
    names = ["mnist.keras (jax) on Example GPU 80GB", "mnist.keras (torch) on Example GPU 80GB"]
    assert column(content, "baselines", "baseline") == names
    assert column(content, "baselines", "at batch") == ["64", "64"]
    results = sum(isinstance(row, ResultRow) for row in content.rows)
    assert len(content.against.rows) == 2 * results
    int8 = [row.number for row in content.rows if row.name == "int8.tflite" and row.setting == HEADLINE]
    places = [index for index, row in enumerate(content.against.rows) if row[0].text == str(int8[0])]
    assert [column(content, "against", "baseline")[place] for place in places] == names
    changes = [column(content, "against", "accuracy − baseline, points [95 %]")[place] for place in places]
    assert changes == ["−0.10 [−0.22, +0.02]"] * 2, "10 gained, 20 lost: −0.2108 to 0.0108 by hand, rounded outwards"
    per_core = column(content, "against", "images/s per core")
    rate = column(content, "against", "images/s")
    four = next(row.number for row in content.rows if row.setting == Setting("cpu", 4, 1))
    place = column(content, "against", "#").index(str(four))
    assert float(rate[place].replace(",", "")) == pytest.approx(4 * float(per_core[place].replace(",", "")), rel=0.01)


def test_accuracy_against_float_is_paired_where_it_can_be() -> None:
    content = page(a_rich_report())
    (row,) = [row for row in content.rows if row.name == "int8.tflite" and row.setting == HEADLINE]
    assert row.accuracy_change is not None
    assert (row.accuracy_change.gained, row.accuracy_change.lost) == (10, 20)
    assert "−0.10 [−0.22, +0.02] points to the float Keras model (the interval contains 0" in said(
        a_rich_report(), "Smallest"
    )


def test_the_pareto_front() -> None:
    """Only what nothing beats in both; a row outside tolerance is not on it, however fast."""
    report = a_report(
        [
            a_result(FLOAT, 100e-6, 9881),
            a_result(INT8, 40e-6, 9871),
            a_result(QAT, 40.5e-6, 9860),  # slower and worse than int8
            a_result(WIDE, 10e-6, 9000),
            a_result(ONNX, 200e-6, 9881),  # slower and no better than float32.tflite
        ],
        [a_parity(FLOAT, 9881), a_parity(INT8, 9871), a_parity(QAT, 9860), a_parity(WIDE, 9000, violations=("bad",))],
    )
    found = findings(report, table(report))
    assert [row.name for row in found.front] == ["int8.tflite", "float32.tflite"]
    assert any(line.startswith("Pareto front (no other row is better") for line in page(report).verdict)


def test_layers_are_told_in_words_and_pictures(rich_path: Path) -> None:
    (grid,) = page(a_rich_report()).layers
    assert [row[1].text for row in grid.rows] == ["CONV_2D", "CONV_2D", HOSTILE, "input"]
    assert [row[-1].text for row in grid.rows] == ["off", "fits", "fits", "fits"]
    assert grid.rows[2][2].text == "exact"
    html = rich_path.read_text()
    assert 'aria-label="Errors inside int8.tflite"' in html
    assert "12.0 !" in html
    assert "## Layers" in markdown_of(a_rich_report())


def test_new_facts_of_the_machine_are_listed() -> None:
    where = an_environment().replace(
        affinity=(0, 2), cpu_quota=1.5, memory_limit_bytes=2 * 1024**3, frequency_hz=(800_000_000, 3_600_000_000)
    )
    ((_, pairs),) = page(a_report([a_result(INT8, 5e-5)]).replace(environment=where)).environments
    told = dict(pairs)
    assert told["cores allowed"] == "0, 2"
    assert told["container CPU limit, cores"] == "1.5"
    assert told["container memory limit"] == "2.0 GiB"
    assert told["frequency range"] == "0.80 to 3.60 GHz"


def test_what_spoils_the_whole_report_is_said() -> None:
    report = a_report([a_result(INT8, 5e-5)], unfinished="00").replace(
        environment=an_environment().replace(cpu_quota=0.5)
    )
    for text in (shown(report), markdown_of(report)):
        flat = " ".join(text.split())
        assert "the measurement was interrupted" in flat
        assert "the container is limited to 0.5 cores" in flat


def test_without_data_it_is_said_that_there_are_none() -> None:
    report = a_report([a_result(INT8, 5e-5)]).replace(data=None, data_sha256=None, test_images=0)
    assert "none: only latency was measured" in markdown_of(report)
    assert "None" not in markdown_of(report)


# Warnings


def test_warnings_of_one_kind_share_a_mark_and_tell_each_rows_number() -> None:
    notes = Notes()
    marks = [
        notes.mark("the last third differs from the first by -17%: unsteady", of="row 1"),
        notes.mark("the last third differs from the first by -7%: unsteady", "p90 is 1.3 times the median", of="row 2"),
        notes.mark("the last third differs from the first by -7%: unsteady", of="row 5"),
        notes.mark("something else"),
    ]
    assert marks == [("a",), ("a", "b"), ("a",), ("c",)]
    assert notes.all() == (
        ("a", "the last third differs from the first by -17% (row 1), -7% (rows 2, 5): unsteady"),
        ("b", "p90 is 1.3 times the median"),
        ("c", "something else"),
    )


def test_a_noisy_machine_does_not_fill_the_page_with_notes() -> None:
    """Twelve rows, each with a drift of its own, need one note about drift."""
    rows = []
    for number in range(12):
        row = a_result(an_artifact(f"{number}.tflite", "int8", 1000), 1e-4, spread=0)
        slower = tuple(
            tuple(round(sample * (1 + (0.1 + number / 100) * (place > 12))) for sample in block)
            for place, block in enumerate(row.measurement.blocks_ns)
        )
        rows.append(row.replace(measurement=row.measurement.replace(blocks_ns=slower)))
    notes = [text for _, text in page(a_report(rows)).results.notes if "the last third" in text]
    assert len(notes) == 1
    assert "+10% (row 1)" in notes[0]
    assert "+21% (row 12)" in notes[0]


# Several reports


def test_files_are_merged_in_their_order(tmp_path: Path) -> None:
    paths = []
    for number, report in enumerate((exact_report(), a_full_report(), merged())):
        path = tmp_path / str(number) / "report.json"
        path.parent.mkdir()
        path.write_bytes(to_json(report))
        paths.append(path)
    assert merge(paths[:1]) == exact_report()
    assert merge(paths[2:]) == merged()
    found = merge(paths)
    assert found.title == f"{exact_report().title} ({paths[0]})"
    assert [one.title for one in found.others] == [
        f"{a_full_report().title} ({paths[1]})",
        *(one.title for one in (merged(), *merged().others)),
    ]
    assert not any(one.others for one in found.others)


def test_each_report_keeps_its_own_verdict_and_nothing_is_ranked_across() -> None:
    content = page(merged())
    assert [part.letter for part in content.parts] == ["A", "B", "C"]
    for part, report in zip(content.parts, (exact_report(), *merged().others), strict=True):
        assert part.verdict == page(report).verdict
        assert [row[:9] for row in part.results.rows] == [row[:9] for row in page(report).results.rows]
    for text in (markdown_of(merged()), shown(merged())):
        flat = " ".join(text.split())
        assert "The columns come from different machines and are not ranked" in flat
        assert "A: mnist, six schemes" in flat
        assert "B: on the board" in flat
    assert [line["report"] for line in cells(merged())] == sorted(line["report"] for line in cells(merged()))


def test_times_of_one_file_stand_in_one_row() -> None:
    grid = page(merged()).side_by_side
    assert grid is not None
    rows = {row[0].text: [cell.text for cell in row[2:]] for row in grid.rows}
    assert rows["int8.tflite"][0].startswith("25.0")
    assert rows["int8.tflite"][2] != units.ABSENT
    assert rows["int8.onnx"][0] == rows["int8.onnx"][2] == units.ABSENT


def test_two_files_of_one_machine_are_told_apart(tmp_path: Path) -> None:
    for name in ("before", "after"):
        (tmp_path / f"{name}.json").write_bytes(to_json(exact_report()))
    report = merge([tmp_path / "before.json", tmp_path / "after.json"])
    text = " ".join(shown(report).split())
    assert "before.json" in text
    assert "after.json" in text
    assert "separate measurements on one machine and share no rounds" in text
    assert "test them with `edgecnn compare`" in text


def test_other_files_of_the_same_name_are_marked() -> None:
    other = exact_report()
    other = other.replace(
        rows=tuple(
            row.replace(artifact=row.artifact.replace(sha256="77" * 32)) if isinstance(row, Result) else row
            for row in other.rows
        )
    )
    grid = page(exact_report().replace(others=(other,))).side_by_side
    assert grid is not None
    assert grid.notes == (("a", "the files differ: their hashes are different"),)


def test_reports_with_failures_only_are_shown(tmp_path: Path) -> None:
    failures = a_report([FAILED, SENSELESS])
    html = write(failures.replace(others=(a_report(), failures)), tmp_path)[-1].read_text()
    assert html.count("the converter gave up") == 2
    assert "✗ int16x8.onnx" in shown(failures)


def with_blocks(result: Result, blocks_s: tuple[tuple[float, ...], ...]) -> Result:
    blocks = in_ns(blocks_s)
    whole = blocks if result.measurement.end_to_end_ns else ()
    return result.replace(measurement=result.measurement.replace(blocks_ns=blocks, end_to_end_ns=whole))


NO_TIME = with_blocks(in_full(a_result(INT8, 4e-5), set()), ((0.0,) * 5,) * 4)
ONE_SAMPLE = with_blocks(in_full(a_result(INT8, 4e-5), set()), ((4e-5,),))
LONG = with_blocks(in_full(a_result(INT8, 4e-5), set()), ((400.0, 500.0),) * 3)
BARE = a_baseline().replace(measurement=a_measurement(KERAS, 1e-3, blocks=1, samples=1), accuracy=None)


@pytest.mark.parametrize(
    "report",
    [
        a_report([NO_TIME, a_result(FLOAT, 1e-4)], baselines=(a_baseline(),)),
        a_report([NO_TIME], baselines=(BARE,)),
        a_report([ONE_SAMPLE], baselines=(BARE,)),
        a_report([LONG]),
        a_report([a_result(INT8, 4e-5, 0), a_result(FLOAT, 1e-4, 10000)]),
        a_report([a_result(INT8, 4e-5), a_result(INT8, 4e-5, threads=0), a_result(INT8, 4e-5, threads=2)]),
        a_report(layers=(a_rich_report().layers[0].replace(layers=()),)),
    ],
    ids=[
        "no time",
        "no time, bare baseline",
        "one sample",
        "minutes",
        "no image right",
        "default threads",
        "no layers",
    ],
)
def test_odd_numbers_are_shown_all_the_same(report: Report, tmp_path: Path) -> None:
    html = write(report, tmp_path)[-1].read_text()
    text = (
        shown(report) + markdown_of(report) + re.sub(r"<[^>]*>", "", html.partition("<main")[2].partition("<script")[0])
    )
    assert not re.search(r"\b(nan|inf|None)\b", text)


# Numbers as text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (units.time(41.23e-6, units.MICROSECONDS), "41.2"),
        (units.time(12_345e-6, units.MICROSECONDS), "12,345"),
        (units.duration(0.4), "400 ms"),
        (units.duration(0), "0 s"),
        (units.duration(125.2), "2 min 5 s"),
        (units.kib(25_600), "25.0"),
        (units.points(-0.001), "0.00"),
        (units.points(0.25), "+0.25"),
        (units.time_interval(41.23e-6, 40.97e-6, 41.52e-6, units.MICROSECONDS), "41.2 [40.9, 41.6]"),
        (units.time_interval(25e-6, 25e-6, 25e-6, units.MICROSECONDS), "25.0 [25.0, 25.0]"),
        (units.time_interval(1e-3, 0, math.inf, units.MICROSECONDS), "1,000 [not known]"),
        (units.ratio(1.0), "1.000"),
        (units.ratio(0.00134), "0.00134"),
        (units.ratio_interval(0.312, 0.298, 0.33), "0.312 [0.298, 0.330]"),
        (units.ratio_interval(0.39991, 0.39972, 0.40001), "0.400 [0.399, 0.401]"),
        (units.ratio_interval(1.0152, 1.0141, 1.0159), "1.015 [1.014, 1.016]"),
        (units.ratio_interval(1.002, 1.0002, 1.004), "1.002 [1.000, 1.004]"),
        (units.ratio_interval(33.41, 33.28, 33.66), "33.4 [33.2, 33.7]"),
        (units.ratio_interval(2.0, 2.0, 2.0), "2.000"),
        (units.ratio_interval(2.0, 0.0, math.inf), "2.000 [not known]"),
        (units.points_interval(-0.1, -0.2412, 0.0388), "−0.10 [−0.25, +0.04]"),
        (units.points_interval(0.0, 0.0, 0.0), "0.00"),
        (units.decibels(None), "exact"),
        (units.decibels(-3.21), "−3.2"),
        (units.gigahertz((800_000_000, 3_600_000_000)), "0.80 to 3.60 GHz"),
        (units.rate(24_272), "24,300"),
        (units.significant(1.25e-4), "0.000125"),
        (units.significant(2.5e-9), "2.50e-09"),
        (units.counted(1, "thread"), "1 thread"),
    ],
)
def test_formats(text: str, expected: str) -> None:
    assert str(text) == expected


def test_one_unit_for_a_column() -> None:
    assert units.unit_for([2e-3, 40e-6]) == units.MICROSECONDS
    assert units.unit_for([2e-3, 0.9]) == units.MILLISECONDS
    assert units.unit_for([2.0]) == units.SECONDS


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
    assert html.count("<script") == 1, "the page's own"
    assert "alert(1)</script>" not in html
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


@pytest.mark.parametrize("name", ["a\r=1+1", "a\r\n=1+1", "\t=1+1", "\n=1+1", "a\x0b\x0c\x85\u2028=1+1"])
def test_no_name_starts_another_cell_or_line(name: str, tmp_path: Path) -> None:
    artifact = an_artifact(f"{name}.tflite", "int8", 100)
    report = a_report([a_result(artifact, 5e-5, 9871), FAILED.replace(reason=name)], title=name)
    rows = len(cells(report))
    assert rows == 3, "two and the baseline that is not there"
    for path in write(report, tmp_path):
        text = path.read_bytes().decode()
        assert not [char for char in text if not char.isprintable() and char != "\n"], path.name
    assert not any(line.lstrip().startswith("=") for line in (tmp_path / "report.csv").read_text().splitlines())


@pytest.mark.parametrize(
    ("name", "escaped"),
    [
        ("https://x.example", r"https\://x.example"),
        ("www.x.example", r"www\.x.example"),
        ("# x", r"\# x"),
        ("## x", r"\## x"),
        ("- x", r"\- x"),
        ("+ x", r"\+ x"),
        ("---", r"\---"),
        ("1. x", r"1\. x"),
        ("1) x", r"1\) x"),
        ("a # b - c + 1. d", "a # b - c + 1. d"),
        ("+0.25", "+0.25"),
        ("a:b", "a:b"),
    ],
)
def test_markdown_makes_no_links_lists_or_headings_of_names(name: str, escaped: str) -> None:
    assert markdown._escaped(name) == escaped


@pytest.mark.parametrize("name", ["[red]a[/red]", "[link=https://x.example]a[/link]", ":smile:", "[/]", "$a^b$"])
def test_names_are_no_markup_and_no_formulas(name: str, tmp_path: Path) -> None:
    artifact = an_artifact(f"{name}.tflite", "int8", 100)
    report = a_report(
        [a_result(artifact, 5e-5, 9871), FAILED.replace(subject=name)], [a_parity(artifact, 9871)], title=name
    )
    content = "".join(shown(report).split())
    assert content.count(name) >= 3
    page_ = write(report, tmp_path)[-1].read_text()
    assert name in page_


# The terminal


def shown(report: Report) -> str:
    out = io.StringIO()
    show(report, Console(file=out, highlight=False))
    return out.getvalue()


def test_stages_are_listed_longest_first_and_summed_by_kind_in_the_terminal() -> None:
    times = {"data": 0.4, "train": 20.0, "outputs-a.tflite": 30.0, "outputs-a.onnx": 15.0, "export-a.tflite": 2.0}
    made = tuple(StageTime(name=name, seconds=seconds, reused=False) for name, seconds in times.items())
    report = a_full_report().replace(stages=(*made, StageTime(name="quantize", seconds=99.0, reused=True)))
    names = [row[0].text for row in page(report).parts[0].stages.rows]
    assert names == ["outputs-a.tflite", "train", "outputs-a.onnx", "export-a.tflite", "data", "quantize"]
    said = "Stages of the run, longest first: verify 45.0 s, train 20.0 s, export 2.00 s, data 400 ms, 1 reused"
    assert said in " ".join(shown(report).split())
    assert said in markdown_of(report)


def test_the_terminal_output_fits_in_100_columns_when_piped() -> None:
    for report in (a_rich_report(), merged(), hostile_report()):
        assert max(len(line) for line in shown(report).splitlines()) <= 100
    text = shown(a_full_report())
    assert max(len(line) for line in text.splitlines()) <= 100
    assert "Fastest within tolerance" in text
    assert "0.312" in text
    assert "✗ int16x8.onnx" in text


def test_the_terminal_keeps_other_machines_in_a_table_of_their_own() -> None:
    report = exact_report(baselines=(a_baseline(device="cpu"),))
    assert "cpu, 1 thread, batch 1, measured elsewhere, on Example CPU @ 2.00GHz (fedcba987654)." in shown(report)


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
        (
            to_json(a_report()).replace(b'"schema_version": 2', b'"schema_version": 99'),
            "has schema version 99, this edgecnn reads 2",
        ),
        (None, "cannot read"),
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
def rich_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(a_rich_report(), tmp_path_factory.mktemp("rich"))[-1]


@pytest.fixture(scope="module")
def page_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(a_full_report(), tmp_path_factory.mktemp("page"))[-1]


@pytest.mark.parametrize("make", [a_full_report, a_rich_report, merged, hostile_report, a_report])
def test_the_page_is_sound_and_needs_nothing_from_outside(make: Callable[[], Report], tmp_path: Path) -> None:
    html = write(make(), tmp_path)[-1].read_text()
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


def test_the_policy_admits_the_pages_own_script_alone(page_path: Path) -> None:
    html = page_path.read_text()
    (script,) = re.findall(r"<script>(.*?)</script>", html, flags=re.DOTALL)
    allowed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (policy,) = re.findall(r'<meta http-equiv="Content-Security-Policy" content="([^"]*)">', html)
    directives = dict(part.strip().split(" ", 1) for part in policy.split(";"))
    assert directives == {
        "default-src": "'none'",
        "script-src": f"'sha256-{allowed}'",
        "style-src": "'unsafe-inline'",
        "img-src": "data:",
    }


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


def asked(page: Path, script: str, folder: Path, *, width: int = 1280, height: int = 900) -> Any:
    """What ``script``, the body of a function of ``page``'s document and window, returns in a browser.

    The page runs untouched, under its own policy, in a frame of this size; the script comes from outside.
    """
    frame = folder / "frame.html"
    frame.write_text(
        f"""<!doctype html><meta charset="utf-8">
        <iframe style="width: {width}px; height: {height}px; border: 0" src="{page.as_uri()}"></iframe>
        <pre id="answer"></pre>
        <script>
        document.querySelector("iframe").onload = (event) => {{
          const ask = (document, window) => {{ {script} }};
          let answer;
          try {{ answer = ask(event.target.contentDocument, event.target.contentWindow); }}
          catch (error) {{ answer = {{ error: String(error) }}; }}
          document.getElementById("answer").textContent = btoa(
            String.fromCharCode(...new TextEncoder().encode(JSON.stringify(answer))));
        }};
        </script>""",
        encoding="utf-8",
    )
    dom = chromium(
        "--allow-file-access-from-files",
        f"--window-size={width + 40},{height + 100}",
        "--dump-dom",
        frame.as_uri(),
        profile=folder / "profile",
    )
    answer = re.search(r'id="answer">([^<]+)<', dom)
    assert answer is not None, dom[-2000:]
    return json.loads(base64.b64decode(answer[1]))


def width_on_a_phone(page: Path, folder: Path) -> int:
    """Width of the page's content in a frame of 360 px, since a headless window cannot be that narrow."""
    return int(asked(page, "return document.documentElement.scrollWidth", folder, width=360))


@pytest.mark.slow
@pytest.mark.parametrize(
    "make",
    [a_full_report, a_rich_report, hostile_report, a_report, merged],
)
def test_the_page_does_not_scroll_sideways_on_a_phone(make: Callable[[], Report], tmp_path: Path) -> None:
    assert width_on_a_phone(write(make(), tmp_path)[-1], tmp_path) <= 360


def test_a_page_that_is_too_wide_is_noticed(page_path: Path, tmp_path: Path) -> None:
    wide = tmp_path / "wide.html"
    wide.write_text(page_path.read_text().replace("</main>", '<div style="width: 900px">wide</div></main>'))
    assert width_on_a_phone(wide, tmp_path) > 360


def test_wide_tables_scroll_inside_their_boxes(rich_path: Path, tmp_path: Path) -> None:
    boxes = asked(
        rich_path,
        """return [...document.querySelectorAll(".scroll")].map((box) => [
             box.scrollWidth > box.clientWidth, getComputedStyle(box).overflowX, box.tabIndex])""",
        tmp_path,
        width=360,
    )
    assert any(wider for wider, _, _ in boxes)
    assert {(overflow, stop) for _, overflow, stop in boxes} == {("auto", 0)}, "scrolled by keyboard too"


SORT = """
  const table = document.getElementById("%s-table");
  const heads = [...table.tHead.rows[0].cells];
  const head = heads.find((cell) => cell.textContent.startsWith("%s"));
  const column = heads.indexOf(head);
  const answer = [];
  for (let click = 0; click < 3; click++) {
    head.querySelector("button").click();
    const numbers = [...table.tBodies[0].rows].map((row) => row.cells[0].textContent.trim());
    answer.push([head.getAttribute("aria-sort"), numbers,
      document.getElementById("announcement").textContent]);
  }
  answer.push(heads.map((cell) => cell.getAttribute("aria-sort")));
  return answer;
"""


def test_a_table_is_sorted_up_down_and_back(page_path: Path, tmp_path: Path) -> None:
    """The baseline of another machine is never sorted in among the rows."""
    *rows, baseline = table(a_full_report())
    up, down, back, states = asked(page_path, SORT % ("results", "p50"), tmp_path)
    by_median = [str(row.number) for row in sorted(rows, key=lambda row: row.timing.median)]  # type: ignore[union-attr]
    assert baseline.elsewhere is not None
    last = [str(baseline.number)]
    assert up == ["ascending", by_median + last, "Sorted by p50, µs [95 %], ascending."]
    assert down == ["descending", by_median[::-1] + last, "Sorted by p50, µs [95 %], descending."]
    assert back == ["none", [str(row.number) for row in rows] + last, "Rows are in their original order."]
    assert set(states) == {"none"}


def test_what_has_no_number_stays_at_the_end(page_path: Path, tmp_path: Path) -> None:
    rows = table(a_full_report())
    without = [str(row.number) for row in rows if not isinstance(row, ResultRow)]
    assert without
    up, down, _, _ = asked(page_path, SORT % ("results", "size, KiB"), tmp_path)
    assert up[1][-len(without) :] == down[1][-len(without) :] == without
    assert up[1] != down[1]


def test_words_are_sorted_too(page_path: Path, tmp_path: Path) -> None:
    up, _, _, _ = asked(page_path, SORT % ("results", "artifact"), tmp_path)
    names = [next(row.name for row in table(a_full_report()) if str(row.number) == number) for number in up[1]]
    assert names == [
        "dynamic-int8.tflite",
        "float16.tflite",
        "float32.onnx",
        "float32.tflite",
        "int8-qat.tflite",
        "int8.onnx",
        "int8.tflite",
        "int16x8.tflite",
        "mnist.keras",
        "mnist.keras",
    ], "numbers inside names count as numbers"


def test_a_layer_without_error_counts_as_best(rich_path: Path, tmp_path: Path) -> None:
    up, down, _, _ = asked(rich_path, SORT % ("layers1", "own SNR"), tmp_path)
    assert up[1] == ["2", "0", "—", "1"], "12 dB, 45 dB, 52 dB at the input, exact"
    assert down[1] == up[1][::-1]


def test_without_javascript_there_are_tables_and_no_dead_buttons(page_path: Path, tmp_path: Path) -> None:
    dead = tmp_path / "dead.html"
    dead.write_text(re.sub(r"<script>.*?</script>", "", page_path.read_text(), flags=re.DOTALL))
    buttons, heads, titles = asked(
        dead,
        """return [document.querySelectorAll("button").length, document.querySelectorAll("th").length,
             document.querySelectorAll(".mark > title").length]""",
        tmp_path,
    )
    assert buttons == 0
    assert heads > 20
    assert titles > 20, "browsers show titles without a script"


POINT = """
  const marks = [...document.querySelectorAll("figure svg .mark")];
  const tip = document.getElementById("tip");
  const answer = [];
  for (const mark of marks) {
    mark.scrollIntoView({ block: "center" });
    mark.dispatchEvent(new window.PointerEvent("pointerenter"));
    const box = tip.getBoundingClientRect();
    const shape = (mark.querySelector("use, path") || mark).getBoundingClientRect();
    const under = document.elementFromPoint(shape.left + shape.width / 2, shape.top + shape.height / 2);
    answer.push([tip.textContent, tip.hidden, box.left >= 0 && box.right <= window.innerWidth,
      under !== null && under.closest(".mark") !== null]);
    mark.dispatchEvent(new window.PointerEvent("pointerleave"));
    if (!tip.hidden) throw new Error("still there");
  }
  return answer;
"""


def test_pointing_at_a_mark_shows_its_numbers(rich_path: Path, tmp_path: Path) -> None:
    told = asked(rich_path, POINT, tmp_path)
    texts = [text for text, *_ in told]
    (row,) = [row for row in table(a_rich_report()) if row.name == "int8.tflite" and row.setting == HEADLINE]
    assert row.timing is not None
    median = units.time_interval(row.timing.median, row.timing.low, row.timing.high, units.MICROSECONDS)
    start = f"{row.number}: int8.tflite on litert [cpu, 1 thread, batch 1]: "
    assert f"{start}98.71 [98.47, 98.91] %, {median} µs, on the Pareto front" in texts
    for what in (
        "invoke alone",
        "end to end",
        "import 100 ms",
        "energy 0.200 mJ",
        "images/s",
        "above the empty process",
    ):
        assert any(what in text for text in texts), what
    assert any("CONV_2D: alone 12.0 dB, its scale is off" in text for text in texts)
    assert not any(hidden for _, hidden, *_ in told)
    assert all(inside for *_, inside, _ in told), "tips stay on the page"
    assert sum(seen for *_, seen in told) > 0.8 * len(told), "next to nothing covers the marks"


def test_marks_are_reached_by_keyboard(rich_path: Path, tmp_path: Path) -> None:
    stops, tips, names, stop = asked(
        rich_path,
        """
        const svg = document.querySelector("figure svg");
        const marks = [...svg.querySelectorAll(".mark")];
        const stops = [...document.querySelectorAll("figure svg")].map(
          (each) => each.querySelectorAll('.mark[tabindex="0"]').length);
        const tips = [];
        const press = (key) => document.activeElement.dispatchEvent(
          new window.KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
        window.focus();
        marks[0].focus();
        for (const key of ["ArrowRight", "ArrowDown", "ArrowLeft", "End", "Home"]) {
          press(key);
          tips.push([marks.indexOf(document.activeElement), document.activeElement.getAttribute("tabindex")]);
        }
        return [stops, tips, marks.map((mark) => mark.getAttribute("role") + mark.getAttribute("aria-label")),
          [svg.getAttribute("role"), svg.getAttribute("aria-label"), marks.length]];
        """,
        tmp_path,
    )
    assert set(stops) == {1}, "one stop of Tab for each figure"
    last = stop[2] - 1
    assert tips == [[1, "0"], [2, "0"], [1, "0"], [last, "0"], [0, "0"]]
    assert stop[:2] == ["group", "Accuracy against latency"]
    assert all(name.startswith("img") and len(name) > 10 for name in names)


@pytest.mark.slow
@pytest.mark.parametrize("make", [a_rich_report, merged, hostile_report])
def test_nothing_is_said_on_the_console_and_nothing_is_fetched(make: Callable[[], Report], tmp_path: Path) -> None:
    assert noise(write(make(), tmp_path)[-1], tmp_path / "own") == ([], [])


def test_a_page_that_fetches_and_complains_is_noticed(rich_path: Path, tmp_path: Path) -> None:
    html = rich_path.read_text()
    loud = tmp_path / "loud.html"
    loud.write_text(html.replace("</main>", "</main><script>console.error('planted')</script>"))
    console, _ = noise(loud, tmp_path / "loud")
    assert any("Content Security Policy" in line for line in console), "the policy holds"
    free = re.sub(r"<meta http-equiv[^>]*>", "", html)
    loud.write_text(free.replace("</main>", '</main><img alt="" src="http://127.0.0.1:9/planted.png">'))
    _, fetched = noise(loud, tmp_path / "free")
    assert fetched == ["http://127.0.0.1:9/planted.png"]


# Where Chromium itself looks for updates, the time and an account, whatever the page.
BROWSERS_OWN = {"clients2.google.com", "update.googleapis.com", "accounts.google.com"}


def noise(page: Path, folder: Path) -> tuple[list[str], list[str]]:
    """What the page says on the console, and the addresses it asks for beside itself."""
    folder.mkdir()
    log, net = folder / "console.log", folder / "net.json"
    chromium(
        "--enable-logging",
        f"--log-file={log}",
        f"--log-net-log={net}",
        "--dump-dom",
        page.as_uri(),
        profile=folder / "profile",
    )
    console = [line for line in log.read_text(errors="replace").splitlines() if "CONSOLE" in line]
    asked_for = set(re.findall(r'"url":"([^"]+)"', net.read_text(errors="replace")))
    return console, sorted(url for url in asked_for if urlsplit(url).hostname not in BROWSERS_OWN)
