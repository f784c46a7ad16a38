"""The suite against-others: its measurements are correct; its committed result meets limits that can be missed."""

import re
import shutil
import subprocess
from pathlib import Path
from statistics import median

import numpy as np
import pytest

from benchmarks import against_others
from benchmarks.suite import read_suite
from edgecnn import artifacts
from edgecnn.errors import BenchError, ConfigError, RecordError
from edgecnn.measure import Candidate
from edgecnn.records import Report, Result
from edgecnn.report import read

ROOT = Path(__file__).parents[1]
SUITE = ROOT / "benchmarks" / "suites" / "against-others.toml"
TINY = ROOT / "tests" / "files" / "tiny-int8.onnx"
SMALL = against_others.Settings(models=("ds_cnn",), seed=0, images=200, rounds=2, warmup=3, runs=5)


@pytest.fixture(scope="module")
def report() -> Report:
    return read(ROOT / "benchmarks" / "results" / "against-others.json")


def changed(report: Report, file: str, way: str, factor: float) -> Report:
    """``report`` with ``factor`` times the samples of one measurement."""
    rows = []
    for row in report.rows:
        assert isinstance(row, Result)
        measured = row.measurement
        if (row.artifact.file, measured.runtime) == (file, way):
            blocks = tuple(tuple(round(factor * sample) for sample in block) for block in measured.blocks_ns)
            row = row.replace(measurement=measured.replace(blocks_ns=blocks))
        rows.append(row)
    assert tuple(rows) != report.rows
    return report.replace(rows=tuple(rows))


# ---- the committed result


def test_the_result_is_of_its_suite(report: Report) -> None:
    suite = read_suite(SUITE, against_others.Settings)
    assert suite.rounds >= 10
    ways = {
        (row.artifact.file, row.measurement.runtime): row.measurement for row in report.rows if isinstance(row, Result)
    }
    for model in suite.models:
        for scheme in ("float32", "int8"):
            for way in ("litert", against_others.TOOL, against_others.COMPILED):
                assert len(ways.pop((f"{model}-{scheme}.tflite", way)).blocks_ns) == suite.rounds
            for way in ("onnxruntime", against_others.C_LOOP):
                measured = ways.pop((f"{model}-{scheme}.onnx", way))
                assert [len(block) for block in measured.blocks_ns] == [suite.runs] * suite.rounds
    assert {file for file, _ in ways} == {"nothing", against_others.IDENTITY}


def test_the_loop_costs_at_most_a_microsecond(report: Report) -> None:
    """From the samples, without the code that makes the table."""
    cost = {
        row.measurement.runtime: median(row.measurement.samples_s) for row in report.rows if isinstance(row, Result)
    }
    assert 0 < cost[against_others.EMPTY] < cost[against_others.EMPTY_LOOP] <= 1e-6


def test_missed_bars_are_named(report: Report) -> None:
    before = against_others.missed(report)
    slow = changed(report, "resnet8-float32.onnx", "onnxruntime", 1.5)
    (added,) = set(against_others.missed(slow)) - {line for line in before if "resnet8-float32.onnx" not in line}
    assert re.fullmatch(r"resnet8-float32\.onnx: edgecnn's median is 1\.\d+ of C API's", added)
    assert f"Missed: {'; '.join(against_others.missed(slow))}." in against_others.table(slow, "x")

    both = changed(report, "resnet8-int8.tflite", "litert", 1.5)
    both = changed(both, "resnet8-int8.tflite", against_others.COMPILED, 1.5)
    assert any(line.startswith("resnet8-int8.tflite: ") for line in against_others.missed(both))

    costly = changed(report, "nothing", against_others.EMPTY_LOOP, 100)
    assert any(line.startswith("overhead of a loop iteration is ") for line in against_others.missed(costly))


def test_a_difference_of_the_interfaces_is_not_one_of_timing(report: Report) -> None:
    """Interpreter may be slower than CompiledModel; our loop around the latter must agree with the tool."""
    file = "resnet8-float32.tflite"
    same = against_others.measurement_of(report, file, against_others.TOOL)
    rows = tuple(
        row.replace(measurement=same.replace(runtime=against_others.COMPILED))
        if isinstance(row, Result) and (row.artifact.file, row.measurement.runtime) == (file, against_others.COMPILED)
        else row
        for row in report.rows
    )
    slower = changed(report.replace(rows=rows), file, "litert", 1.5)
    (found,) = (one for one in against_others.agreements(slower) if one.file == file)
    assert found.ratio.value > 1.2
    assert found.like.value == pytest.approx(1)
    assert found.agrees


def test_what_the_call_from_python_costs_is_taken_off(report: Report) -> None:
    """By hand: ours less what the model that does nothing takes longer in Python than in C."""
    ours, theirs = (against_others.measurement_of(report, "identity.onnx", way) for way in ("onnxruntime", "C API"))
    cost = median(ours.samples_s) - median(theirs.samples_s)
    assert against_others.call_s(report) == pytest.approx(cost)
    assert 0 < cost < 1e-5
    (found,) = (one for one in against_others.agreements(report) if one.file == "mnist_cnn-float32.onnx")
    blocks = zip(found.ours.blocks_ns, found.theirs.blocks_ns, strict=True)
    wanted = median((median(one) - 1e9 * cost) / median(other) for one, other in blocks)
    assert found.like.value == pytest.approx(wanted)
    assert found.like.value < found.ratio.value


def test_the_table_has_every_file(report: Report) -> None:
    text = against_others.table(report, "results.json")
    for one in against_others.agreements(report):
        assert f"| {one.file} | {one.other} | " in text
    assert "With a runtime that does nothing, a sample is " in text
    assert "`results.json`" in text


def test_a_row_that_is_missing_is_an_error(report: Report) -> None:
    kept = tuple(row for row in report.rows if isinstance(row, Result) and row.measurement.runtime != "litert")
    with pytest.raises(RecordError, match=r"has no litert of mnist_cnn-float32\.tflite; run: python -m benchmarks run"):
        against_others.table(report.replace(rows=kept), "x")


# ---- measuring


@pytest.mark.slow
def test_a_small_suite_runs(tmp_path: Path) -> None:
    suite = tmp_path / "suite.toml"
    keys = ('models = ["ds_cnn"]', "seed = 0", "images = 200", "rounds = 2", "warmup = 3", "runs = 5")
    suite.write_text("\n".join(keys), encoding="utf-8")
    found = against_others.run(suite, tmp_path / "out")
    ways = [(row.artifact.file, row.measurement.runtime) for row in found.rows if isinstance(row, Result)]
    assert len(ways) == len(set(ways)) == 2 + 2 + 2 * 3 + 2 * 2
    for row in found.rows:
        assert isinstance(row, Result)
        assert len(row.measurement.blocks_ns) == 2
        assert min(row.measurement.samples_s) >= 0
        assert row.measurement.blocks_per_process == (1, 1)
    assert against_others.table(found, "x").count("\n| ds_cnn-") == 4


def candidate() -> Candidate:
    return Candidate(path=TINY, artifact=artifacts.load(TINY))


def test_the_c_loop_gives_the_output_of_onnx_runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = against_others._compiled(tmp_path)
    model = candidate()
    _, channels, height, width = (int(size or 1) for size in model.artifact.input.shape)
    image = np.random.default_rng(0).random((height, width, channels), np.float32)
    assert len(against_others._by_c_loop(model, image, SMALL, program)) == SMALL.runs

    wrong = tmp_path / "wrong.c"  # the model gets another image
    text = (ROOT / "benchmarks" / "ort_loop.c").read_text(encoding="utf-8")
    before = "    int64_t *taken ="
    assert before in text
    damage = "    for (size_t one = 0; one < in_bytes; ++one) ((unsigned char *)in_data)[one] ^= 85;\n"
    wrong.write_text(text.replace(before, damage + before), encoding="utf-8")
    monkeypatch.setattr(against_others, "_SOURCE", wrong)
    with pytest.raises(BenchError, match=r"wrong\.c returns other outputs for tiny-int8\.onnx than ONNX Runtime"):
        against_others._by_c_loop(model, image, SMALL, against_others._compiled(tmp_path))


def test_the_c_loop_says_what_is_wrong(tmp_path: Path) -> None:
    program = against_others._compiled(tmp_path)
    shape = ["1", "4", "2", "1", "1"] * 2
    for library, model, message in (
        ("/nowhere.so", TINY, "/nowhere.so: cannot open shared object file"),
        (library_file(), tmp_path / "none.onnx", "none.onnx"),
    ):
        command = [program, library, model, "1", "1", "1", "input", "output", *shape]
        ended = subprocess.run(list(map(str, command)), input=b"0000", capture_output=True, check=False)
        assert ended.returncode == 1
        assert re.match(rf"ort_loop: .*{re.escape(message)}", ended.stderr.decode())
    assert subprocess.run([program], capture_output=True, check=False).stderr == b"ort_loop: too few arguments\n"


def library_file() -> Path:
    import onnxruntime

    return next(Path(onnxruntime.__file__).parent.glob("capi/libonnxruntime.so.*"))


def test_without_a_compiler_the_suite_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(BenchError, match="needs a C compiler; install gcc or clang"):
        against_others._compiled(tmp_path)


def test_a_tool_that_fails_gives_its_last_line(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=r"ended with exit status 1: .*Model file not found"):
        against_others._by_tool(tmp_path / "none.tflite", SMALL)


def test_the_tool_does_not_round() -> None:
    (found,) = against_others._by_tool(TINY.with_suffix(".tflite"), SMALL)
    assert found > 0  # 0.00 ms, as the tool writes it, were 0
    assert found % 10_000 != 0


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"resnet8"', '"vgg"', "unknown model 'vgg'; choose from: autoencoder, ds_cnn, mnist_cnn"),
        ("rounds =", "round =", "unknown field `round`; the keys are: models, seed"),
    ],
)
def test_suites_that_cannot_be_used(old: str, new: str, message: str, tmp_path: Path) -> None:
    text = SUITE.read_text(encoding="utf-8")
    assert old in text
    (tmp_path / "s.toml").write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(ConfigError, match=re.escape(message)):
        read_suite(tmp_path / "s.toml", against_others.Settings)
