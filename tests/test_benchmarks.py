"""Suites parse, committed results are reports, and no number in a table is typed by hand."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edgecnn.errors import ConfigError
from edgecnn.pipeline import read_config
from edgecnn.records import Result, to_json
from edgecnn.report import read

ROOT = Path(__file__).parents[1]
SUITES = sorted((ROOT / "benchmarks" / "suites").glob("*.toml"))
RESULTS = sorted((ROOT / "benchmarks" / "results").glob("*.json"))


def benchmarks(*arguments: str, cwd: Path = ROOT) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "benchmarks", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of what ``python -m benchmarks table`` reads and writes."""
    shutil.copytree(ROOT / "benchmarks", tmp_path / "benchmarks")
    shutil.copy(ROOT / "README.md", tmp_path)
    return tmp_path


def test_there_is_a_result_for_each_suite() -> None:
    assert "mnist" in [path.stem for path in SUITES]
    assert [path.stem for path in SUITES] == [path.stem for path in RESULTS]


@pytest.mark.parametrize("path", SUITES, ids=lambda path: path.stem)
def test_suites_parse(path: Path) -> None:
    read_config(path)


def test_unknown_key_in_a_suite_is_an_error(checkout: Path) -> None:
    suite = checkout / "benchmarks" / "suites" / "mnist.toml"
    suite.write_text(suite.read_text(encoding="utf-8") + "second = 3\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="unknown field `second`"):
        read_config(suite)
    ended = benchmarks("run", "mnist", cwd=checkout)
    assert ended.returncode == 2
    assert ended.stderr.startswith("benchmarks: ")
    assert "unknown field `second`" in ended.stderr


def test_unknown_suite_is_an_error() -> None:
    ended = benchmarks("run", "minst")
    assert ended.returncode == 2
    assert ended.stderr == "benchmarks: unknown suite 'minst'; choose from: mnist\n"


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_results_are_reports_of_their_suite(path: Path) -> None:
    report, suite = read(path), read_config(path.parents[1] / "suites" / f"{path.stem}.toml")
    assert report.title == f"{suite.model} on {suite.data}"
    assert report.seed == suite.seed
    measured = {
        (row.artifact.scheme, row.artifact.format, row.measurement.threads)
        for row in report.rows
        if isinstance(row, Result)
    }
    for threads in suite.threads:
        for scheme in suite.schemes:
            for format in suite.formats:
                if (scheme, format) != ("int16x8", "onnx"):  # ONNX Runtime has no such kernels
                    assert (scheme, format, threads) in measured
    assert all(parity.violations == () for parity in report.parities)


def test_committed_tables_are_up_to_date() -> None:
    checked = benchmarks("table", "--check")
    assert (checked.returncode, checked.stdout) == (0, ""), checked.stdout


@pytest.mark.parametrize("page", ["README.md", "benchmarks/README.md"])
def test_number_changed_by_hand_is_found_and_made_anew(page: str, checkout: Path) -> None:
    path = checkout / page
    if page == "README.md":
        path.write_text("Before\n\n<!-- table:mnist -->\n<!-- /table:mnist -->\n\nAfter\n", encoding="utf-8")
        assert benchmarks("table", cwd=checkout).returncode == 0
    right = path.read_text(encoding="utf-8")
    wrong, changes = re.subn(r"(?<=\| mnist_cnn-int8\.tflite \| litert \| )[\d.]+", "1.5", right)
    assert changes == 1
    path.write_text(wrong, encoding="utf-8")

    checked = benchmarks("table", "--check", cwd=checkout)
    assert (checked.returncode, checked.stdout) == (1, f"{path} is out of date; run: python -m benchmarks table\n")
    assert path.read_text(encoding="utf-8") == wrong

    assert benchmarks("table", cwd=checkout).returncode == 0
    assert path.read_text(encoding="utf-8") == right
    assert benchmarks("table", "--check", cwd=checkout).returncode == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<!-- table:mnist -->\n", "has <!-- table:mnist --> without its counterpart"),
        ("<!-- /table:mnist -->\n", "has <!-- /table:mnist --> without its counterpart"),
        ("<!-- table:mnist -->\n<!-- /table:cifar -->\n", "has <!-- table:mnist --> without its counterpart"),
        ("<!-- table:cifar -->\n<!-- /table:cifar -->\n", "wants a table of cifar, which has no result; run: "),
    ],
)
def test_markers_that_cannot_be_served(text: str, message: str, checkout: Path) -> None:
    page = checkout / "README.md"
    page.write_text(text, encoding="utf-8")
    ended = benchmarks("table", cwd=checkout)
    assert ended.returncode == 2
    assert ended.stderr.startswith(f"benchmarks: {page} {message}")
    assert page.read_text(encoding="utf-8") == text


def test_table_shows_doubts_beside_the_number(checkout: Path) -> None:
    """A row whose measurement has warnings carries the mark of a note that says so."""
    result = checkout / "benchmarks" / "results" / "mnist.json"
    report = read(result)
    few = tuple(
        row.replace(measurement=row.measurement.replace(blocks=row.measurement.blocks[:2]))
        if isinstance(row, Result)
        else row
        for row in report.rows
    )
    result.write_bytes(to_json(report.replace(rows=few)))
    assert benchmarks("table", cwd=checkout).returncode == 0
    text = (checkout / "benchmarks" / "README.md").read_text(encoding="utf-8")
    assert "only 2 blocks, fewer than 10: do not trust the interval" in text
