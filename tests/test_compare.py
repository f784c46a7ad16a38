"""The regression gate: what it breaks on, what it cannot tell, what it refuses, and the workflow that runs it."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
import yaml
from test_report import FAILED, FLOAT, INT8, ONNX, a_report, a_result, an_environment, answers, merged
from times import in_ns

from edgecnn import cli
from edgecnn.errors import ConfigError, RecordError
from edgecnn.records import Accuracy, Failure, Report, Result, from_json, to_json
from edgecnn.report.compare import Gate, compare

ROOT = Path(__file__).parents[1]
WORKFLOW = ROOT / "docs" / "ci.md"


def gate(old: Report, new: Report, drop: float = 0.1, ratio: float = 1.1) -> Gate:
    found = compare(old, new, max_accuracy_drop=drop, max_latency_ratio=ratio)
    assert from_json(to_json(found), Gate, "memory") == found
    return found


def timed(*rows: Result | Failure, **more: Any) -> Report:
    return a_report(rows).replace(**more)


def counted(seconds: float, wrong: set[int], *, sha: str = "11", total: int = 10000, **more: Any) -> Result:
    """A row with an answer for each image."""
    row = a_result(INT8, seconds, **more)
    return row.replace(
        artifact=row.artifact.replace(sha256=sha * 32),
        accuracy=Accuracy(correct=total - len(wrong), total=total),
        answers=answers(wrong, total),
    )


# Latency


@pytest.mark.parametrize(
    ("seconds", "spread", "verdict"),
    [
        (40e-6, 0.02, "kept"),
        (43e-6, 0.02, "kept"),
        (44e-6, 0.05, "cannot tell"),  # 1.10 itself
        (46e-6, 0.02, "broken"),
        (20e-6, 0.02, "kept"),
    ],
)
def test_latency_counts_where_the_interval_lies_beyond_the_limit(seconds: float, spread: float, verdict: str) -> None:
    old, new = timed(a_result(INT8, 40e-6, spread=spread)), timed(a_result(INT8, seconds, spread=spread, seed=2))
    found = gate(old, new)
    (row,) = found.rows
    assert row.latency is not None
    assert row.latency.verdict == verdict
    assert row.latency.change == pytest.approx(seconds / 40e-6, rel=0.02)
    assert row.latency.low is not None
    assert row.latency.high is not None
    assert row.latency.low < row.latency.change < row.latency.high
    told = {"kept": [], "cannot tell": list(found.undecided), "broken": list(found.regressions)}[verdict]
    assert [*found.undecided, *found.regressions] == told
    assert len(told) == (verdict != "kept")
    for text in told:
        assert text.startswith("int8.tflite on litert [cpu, 1 thread, batch 1]: latency ratio 1.1")
        assert "1.1 allowed" in text


def test_a_noisy_measurement_breaks_nothing() -> None:
    """Twice as slow, but from blocks that differ by more than that."""
    wild = a_result(INT8, 40e-6).replace(
        measurement=a_result(INT8, 40e-6).measurement.replace(
            blocks_ns=in_ns((40e-6 * factor,) * 20 for factor in (1, 8, 1, 9, 2.2))
        )
    )
    found = gate(timed(a_result(INT8, 40e-6)), timed(wild))
    assert found.regressions == ()
    assert len(found.undecided) == 1


def test_of_one_block_nothing_is_known() -> None:
    one = a_result(INT8, 400e-6, blocks=1)
    found = gate(timed(a_result(INT8, 40e-6)), timed(one))
    assert found.regressions == ()
    assert "latency ratio 10" in found.undecided[0]
    assert "[not known]" in found.undecided[0]


def test_equal_rows_are_seldom_called_slower() -> None:
    """Against a limit of exactly 1, noise breaks the gate in one of 40 comparisons by design."""
    broken = 0
    for seed in range(60):
        old = timed(a_result(INT8, 40e-6, spread=0.1, blocks=12, samples=30, seed=seed))
        new = timed(a_result(INT8, 40e-6, spread=0.1, blocks=12, samples=30, seed=1000 + seed))
        broken += len(gate(old, new, ratio=1.0).regressions)
    assert broken <= 6  # 1.5 are expected; more than 6 come by chance less than once in a thousand


def test_times_of_other_machines_are_not_compared() -> None:
    slow = timed(counted(400e-6, set())).replace(environment=an_environment("ffffffffffff"))
    found = gate(timed(counted(40e-6, set())), slow)
    assert found.rows[0].latency is None
    assert found.rows[0].accuracy is not None
    assert found.regressions == ()
    assert (
        "latency is not compared: the old report is from machine 0123456789ab, the new one from ffffffffffff"
        in (found.notes[0])
    )


def test_where_nothing_could_be_compared_the_gate_does_not_pass() -> None:
    elsewhere = timed(a_result(INT8, 40e-6)).replace(environment=an_environment("ffffffffffff"))
    for old, new, reason in (
        (timed(a_result(INT8, 40e-6)), elsewhere, "latency is not compared"),
        (timed(), timed(a_result(INT8, 40e-6)), "the old report has no measured row"),
        (timed(FAILED), timed(FAILED), "the old report has no measured row"),
        (timed(a_result(INT8, 40e-6)), timed(a_result(ONNX, 40e-6)), "no row of the old report is in the new one"),
    ):
        assert reason in gate(old, new).regressions[-1]
        assert gate(old, new).regressions[-1].startswith("nothing could be compared: ")


# Accuracy


@pytest.mark.parametrize(
    ("lost", "gained", "drop", "verdict"),
    [
        (0, 0, 0.0, "kept"),
        (10, 10, 0.0, "kept"),  # on 10,000 images: within ±0.09 points
        (30, 10, 0.2, "cannot tell"),  # 0.08 to 0.32
        (60, 10, 0.5, "broken"),  # 0.34 to 0.66
        (10, 60, -0.5, "kept"),
    ],
)
def test_accuracy_is_judged_by_pairs(lost: int, gained: int, drop: float, verdict: str) -> None:
    """Of the same 200 images that either gets wrong, ``gained`` were mended and ``lost`` more were spoilt."""
    before = set(range(200))
    after = {*range(gained, 200), *range(1000, 1000 + lost)}
    found = gate(timed(counted(40e-6, before)), timed(counted(40e-6, after, sha="22")))
    (row,) = found.rows
    assert row.accuracy is not None
    assert row.accuracy.change == pytest.approx(drop)
    assert row.accuracy.verdict == verdict
    assert bool(found.regressions) == (verdict == "broken")
    assert bool(found.undecided) == (verdict == "cannot tell")
    if verdict == "broken":
        assert found.regressions == (
            "int8.tflite on litert [cpu, 1 thread, batch 1]: accuracy drop +0.50 [+0.33, +0.67] points "
            "(98.00 % → 97.50 %), 0.1 allowed",
        )


def test_pairs_tell_what_two_counts_cannot() -> None:
    """The same drop without the answers is hidden in the two intervals."""
    pair = [counted(40e-6, set(range(200))), counted(40e-6, {*range(10, 200), *range(1000, 1060)}, sha="22")]
    assert gate(*map(timed, pair)).regressions
    unpaired = gate(*(timed(row.replace(answers=None)) for row in pair))
    assert unpaired.regressions == ()
    assert len(unpaired.undecided) == 1
    worse = counted(40e-6, set(range(300)), sha="22").replace(answers=None)
    assert gate(timed(pair[0].replace(answers=None)), timed(worse)).regressions


def test_the_same_file_with_the_same_count_has_lost_nothing() -> None:
    """Whatever the interval of so few images would be."""
    row = counted(40e-6, {1, 2}, total=100)
    for one in (row, row.replace(answers=None)):
        found = gate(timed(one, test_images=100), timed(one, test_images=100))
        assert found.rows[0].same_file
        assert found.rows[0].accuracy is not None
        assert (found.rows[0].accuracy.low, found.rows[0].accuracy.high) == (0, 0)
        assert (found.regressions, found.undecided) == ((), ())
    other = counted(40e-6, {1, 2}, total=100, sha="22")
    assert gate(timed(row, test_images=100), timed(other, test_images=100)).undecided


def test_accuracies_on_other_images_are_not_compared() -> None:
    bad = timed(counted(40e-6, set(range(5000)), sha="22")).replace(data_sha256="00" * 32)
    found = gate(timed(counted(40e-6, set())), bad)
    assert found.rows[0].accuracy is None
    assert "accuracy is not compared: the test images differ" in found.notes


def test_accuracy_that_is_no_longer_counted_is_a_regression() -> None:
    found = gate(timed(counted(40e-6, set())), timed(a_result(INT8, 40e-6)))
    assert "accuracy is in the old report, but missing in the new one" in found.regressions[0]


# Rows


def test_a_missing_row_is_a_regression_with_its_reason() -> None:
    crash = Failure(subject="int8.tflite", stage="bench", error="WorkerCrash", reason="killed by SIGSEGV")
    old = timed(a_result(INT8, 40e-6), a_result(FLOAT, 90e-6))
    assert gate(old, timed(a_result(FLOAT, 90e-6), crash)).regressions == (
        "int8.tflite on litert [cpu, 1 thread, batch 1]: missing in the new report "
        "(bench: WorkerCrash: killed by SIGSEGV)",
    )
    assert gate(old, timed(a_result(FLOAT, 90e-6))).regressions == (
        "int8.tflite on litert [cpu, 1 thread, batch 1]: missing in the new report",
    )


@pytest.mark.parametrize("changed", [{"threads": 2}, {"batch": 8}, {"device": "gpu"}])
def test_rows_of_other_settings_do_not_match(changed: dict[str, Any]) -> None:
    same = a_result(FLOAT, 90e-6)
    found = gate(timed(same, a_result(INT8, 40e-6)), timed(same, a_result(INT8, 40e-6, **changed)))
    assert len(found.rows) == 1
    assert "missing in the new report" in found.regressions[0]
    assert "new, with nothing to compare it to" in found.notes[0]


def test_a_new_row_is_told_and_breaks_nothing() -> None:
    found = gate(timed(a_result(INT8, 40e-6)), timed(a_result(INT8, 40e-6), a_result(ONNX, 90e-6)))
    assert found.regressions == ()
    assert found.notes == ("float32.onnx on onnxruntime [cpu, 1 thread, batch 1]: new, with nothing to compare it to",)


def test_other_versions_are_told() -> None:
    newer = an_environment().replace(versions={"numpy": "2.5.0", "edgecnn": "0.1.0", "onnxruntime": "1.32"})
    found = gate(timed(a_result(INT8, 40e-6)), timed(a_result(INT8, 40e-6)).replace(environment=newer))
    assert found.notes == ("changed versions: numpy 2.4.6 → 2.5.0",)


def test_what_cannot_be_matched_is_refused() -> None:
    one = timed(a_result(INT8, 40e-6))
    with pytest.raises(RecordError, match=r"the new report has two rows for int8\.tflite on litert"):
        gate(one, timed(a_result(INT8, 40e-6), a_result(INT8, 41e-6)))
    with pytest.raises(RecordError, match="the old file contains 3 reports"):
        gate(merged(), one)


@pytest.mark.parametrize("limit", [float("nan"), float("inf"), -0.1])
@pytest.mark.parametrize("which", ["drop", "ratio"])
def test_limits_that_nothing_can_break_are_refused(limit: float, which: str) -> None:
    one = timed(a_result(INT8, 40e-6))
    with pytest.raises(ConfigError, match="must be a finite number, 0 or more"):
        gate(one, one, **{which: limit})


# The command


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run the command in this process: exit status, stdout, stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["edgecnn", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        return int(end.value.code or 0), *capsys.readouterr()

    return run


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    reports = {
        "old": timed(a_result(INT8, 40e-6)),
        "same": timed(a_result(INT8, 40e-6, seed=3)),
        "slow": timed(a_result(INT8, 60e-6)),
        "unsure": timed(a_result(INT8, 44e-6, seed=3)),
    }
    paths = {name: tmp_path / f"{name}.json" for name in reports}
    for name, report in reports.items():
        paths[name].write_bytes(to_json(report))
    return paths


def test_exit_status_and_what_is_said(ended: Callable[..., tuple[int, str, str]], files: dict[str, Path]) -> None:
    status, out, err = ended("compare", files["old"], files["same"])
    assert (status, err) == (0, "")
    assert "✓ no regression" in out
    assert max(map(len, out.splitlines())) <= 100

    status, out, err = ended("compare", files["old"], files["slow"])
    assert (status, err) == (1, "edgecnn: 1 regression, see above\n")
    assert "✗ int8.tflite on litert [cpu, 1 thread, batch 1]: latency ratio 1.5" in out
    assert "no regression" not in out
    assert ended("compare", files["old"], files["slow"], "--max-latency-ratio", 2)[0] == 0

    status, out, err = ended("compare", files["old"], files["unsure"])
    assert (status, err) == (0, "")
    assert "? undecided: int8.tflite on litert" in out


def test_json_is_the_record(ended: Callable[..., tuple[int, str, str]], files: dict[str, Path]) -> None:
    status, out, err = ended("compare", files["old"], files["slow"], "--json")
    found = from_json(out.encode(), Gate, "stdout")
    assert status == 1
    assert found.regressions
    assert err == f"edgecnn: {found.regressions[0]}\n"
    assert (found.old, found.new) == (str(files["old"]), str(files["slow"]))


def test_wrong_usage_and_files_that_are_none(
    ended: Callable[..., tuple[int, str, str]], files: dict[str, Path], tmp_path: Path
) -> None:
    assert ended("compare", files["old"], files["same"], "--max-accuracy-drop", "nan")[0] == 2
    assert ended("compare", files["old"])[0] == 2
    status, _, err = ended("compare", files["old"], tmp_path / "absent.json")
    assert status == 1
    assert re.fullmatch(r"edgecnn: cannot read .*absent\.json: No such file or directory\n", err)


def test_a_failed_row_is_told_once(ended: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    """On stdout, where the report is; on stderr only where stdout holds the record."""
    damaged = tmp_path / "damaged.tflite"
    damaged.write_bytes(b"no model")
    status, out, err = ended("bench", damaged, "--seconds", "0.05")
    assert status == 1
    assert out.count("✗ damaged.tflite") == 1
    assert err.splitlines()[-1] == "edgecnn: 1 problem, see above"
    assert "damaged.tflite (bench)" not in err
    status, out, err = ended("bench", damaged, "--seconds", "0.05", "--json")
    assert status == 1
    assert err.splitlines()[-1].startswith("edgecnn: damaged.tflite (bench): ")


# The workflow


def workflow() -> dict[str, Any]:
    (text,) = re.findall(r"^```yaml\n(.*?)^```$", WORKFLOW.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    found: dict[str, Any] = yaml.safe_load(text)
    return found


def steps() -> list[dict[str, Any]]:
    (job,) = workflow()["jobs"].values()
    found: list[dict[str, Any]] = job["steps"]
    return found


def commands(text: str) -> list[list[str]]:
    """The edgecnn command lines in ``text``, as their words."""
    lines = re.findall(r"^\s*(edgecnn .*)$", text, re.MULTILINE)
    return [shlex.split(line) for line in lines]


def parsed(words: list[str]) -> None:
    """Let the real command line read a command, without running it."""
    command = cli.cli.commands[words[1]]
    command.make_context(words[1], words[2:])


def test_the_workflow_is_one() -> None:
    found = workflow()
    assert "pull_request" in found[True], "YAML 1.1 reads `on` as true"
    assert found["permissions"] == {"contents": "read"}
    for step in steps():
        assert ("uses" in step) != ("run" in step)
        if "uses" in step:
            assert re.fullmatch(r"actions/[a-z-]+@v\d+", step["uses"])


def test_every_command_of_the_page_is_one() -> None:
    found = commands(WORKFLOW.read_text(encoding="utf-8")) + [
        words for step in steps() for words in commands(f"\n{step.get('run', '')}")
    ]
    assert {words[1] for words in found} == {"bench", "compare", "report"}
    for words in found:
        parsed(words)
    with pytest.raises(click.UsageError, match="No such option"):
        parsed(["edgecnn", "compare", "a", "b", "--max-latency", "1"])


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What the workflow's job finds: the models of both branches and the test images."""
    for models in (tmp_path / "models", tmp_path / "base" / "models"):
        models.mkdir(parents=True)
        for file in (ROOT / "tests" / "files").glob("tiny-*"):
            shutil.copy(file, models)
    (tmp_path / "tests").mkdir()
    generator = np.random.default_rng(0)
    images = {name: generator.integers(0, 256, (200, 28, 28), np.uint8) for name in ("x_train", "x_test")}
    labels = {name: np.arange(200) % 10 for name in ("y_train", "y_test")}
    np.savez(tmp_path / "tests" / "digits.npz", **images, **labels)
    return tmp_path


@pytest.mark.slow
def test_the_workflow_runs(checkout: Path) -> None:
    """Its own lines, in its shell, with less time to measure and a limit that a busy machine keeps."""
    program = checkout / "bin" / "edgecnn"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m edgecnn "$@"\n')
    program.chmod(0o755)
    path = os.pathsep.join([str(program.parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}
    said = []
    for step in steps():
        script = step.get("run", "")
        if "edgecnn " not in script or "pip install" in script:
            continue
        script = script.replace("edgecnn bench", "edgecnn bench --seconds 0.05 --cold 1").replace(
            "ratio 1.10", "ratio 100"
        )
        done = subprocess.run(
            ["bash", "-e", "-c", script], cwd=checkout, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        said.append(done.stdout)
    assert "✓ no regression" in said[1]
    assert (checkout / "report" / "report.html").is_file()

    (checkout / "models" / "tiny-int8.onnx").write_bytes(b"damaged")
    models = "models/tiny-int8.tflite models/tiny-int8.onnx"
    measured = f"edgecnn bench {models} --data tests/digits.npz --seconds 0.05 --cold 1 --out new.json || true"
    compared = "edgecnn compare old.json new.json --max-latency-ratio 100"
    done = subprocess.run(
        ["bash", "-e", "-c", f"{measured}\n{compared}"], cwd=checkout, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "✗ tiny-int8.onnx on onnxruntime" in done.stdout
    assert "missing in the new report" in done.stdout
