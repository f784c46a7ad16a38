"""``edgecnn bench --target``: what files cost on processors that QEMU emulates, in the report of their times."""

import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from conftest import FinishedRun, Workspace
from emulated import need
from generated import Model

from edgecnn import cli, device, emulation
from edgecnn.artifacts import sidecar
from edgecnn.bundle import make_bundle
from edgecnn.emulation import costs, machine
from edgecnn.errors import UnknownNameError
from edgecnn.formats.c99 import to_c
from edgecnn.measure.files import bench_files
from edgecnn.records import Failure, Report, Result, from_json
from edgecnn.report import read
from edgecnn.tflite.graph import read_graph

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
TINY = ROOT / "tests" / "files" / "tiny-int8.tflite"
QUICK = ("--seconds", "0.05", "--cold", "2")


def bench(*arguments: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "edgecnn", "bench", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def write_c(folder: Path, name: str = "tiny_int8", **options: bool) -> Path:
    """The tiny model as C, as a person has it who lost its sidecar."""
    generated = to_c(read_graph(TINY.read_bytes(), "tiny"), name, header_name="tiny.h", **options)
    (folder / "tiny.h").write_text(generated.header)
    (folder / "tiny.c").write_text(generated.source)
    return folder / "tiny.c"


def test_costs_stand_beside_times(tmp_path: Path) -> None:
    need("cortex-m4")
    out = tmp_path / "results.json"
    ended = bench(TINY, *QUICK, "--target", "cortex-m4,cortex-m55", "--out", out)
    assert ended.returncode == 0, ended.stderr
    report = read(out)
    (row,) = report.rows
    assert isinstance(row, Result)
    assert [cost.target for cost in report.emulated] == ["cortex-m4", "cortex-m55"]
    cost = report.emulated[0]
    assert (cost.artifact, cost.artifact_sha256) == (row.artifact.file, row.artifact.sha256)
    assert (cost.opt, cost.compiler[:17], cost.emulator[:4]) == ("-O2", "arm-none-eabi-gcc", "QEMU")
    assert (
        f"tiny-int8.tflite on cortex-m4: {cost.instructions:,} instructions, flash {cost.flash_bytes:,}" in ended.stdout
    )
    assert "Instruction counts of one inference are not timings" in ended.stdout

    sources = emulation.generate(read_graph(TINY.read_bytes(), "tiny"), "model")
    firmware = emulation.build(sources, "cortex-m4", tmp_path / "again")
    counted = emulation.count(firmware, np.random.default_rng(0).integers(-128, 128, sources.input_size, np.int8))
    assert cost.functions == counted.functions
    assert cost.instructions == sum(cost.functions.values()) > 1000
    assert (cost.code_bytes, cost.flash_bytes, cost.ram_bytes) == (firmware.code, firmware.flash, firmware.ram)
    assert cost.stack_bytes == counted.stack
    arena = to_c(read_graph(TINY.read_bytes(), "tiny"), "model").plan.arena_bytes
    assert cost.arena_bytes == arena <= cost.ram_bytes


def test_a_model_that_classifies_nothing_is_counted(tmp_path: Path) -> None:
    """A vector in, two outputs of different shapes, and state between runs."""
    need("cortex-m4")
    model = Model()
    source, before, target = (model.tensor((1, 5), scale=0.5) for _ in range(3))
    handle = model.tensor((), "resource")
    model.operator("VAR_HANDLE", [], handle, "VarHandleOptions", container="", sharedName="a")
    model.operator("READ_VARIABLE", [handle], before)
    model.operator("ADD", [before, source], target, "AddOptions")
    model.operator("ASSIGN_VARIABLE", [handle, source], ())
    wide = model.tensor((1, 10), scale=0.5)
    model.operator("CONCATENATION", [source, target], wide, "ConcatenationOptions", axis=1)
    content = model.file(source, [target, wide])
    (tmp_path / "stream.tflite").write_bytes(content)
    ended = bench(tmp_path / "stream.tflite", *QUICK, "--target", "cortex-m4")
    assert ended.returncode == 0, ended.stderr + ended.stdout
    assert re.search(r"stream\.tflite on cortex-m4: [\d,]+ instructions", ended.stdout)


def test_c_code_costs_what_its_tflite_costs(workspace: Workspace) -> None:
    need("cortex-m4")
    emulated, failures = costs([workspace.path("tflite", "int8"), workspace.path("c99", "int8")], ["cortex-m4"])
    assert not failures
    tflite, code = emulated
    assert tflite.artifact_sha256 == workspace.artifacts["tflite", "int8"].sha256
    assert code.artifact_sha256 == workspace.artifacts["c99", "int8"].sha256
    assert (tflite.instructions, tflite.ram_bytes) == (code.instructions, code.ram_bytes)
    assert tflite.arena_bytes == code.arena_bytes == workspace.artifacts["c99", "int8"].memory.arena_bytes  # type: ignore[union-attr]
    assert abs(tflite.code_bytes - code.code_bytes) <= 16


def test_the_own_source_of_a_c_file_is_counted(tmp_path: Path) -> None:
    need("cortex-m4")
    path = write_c(tmp_path)
    ((before,), _) = costs([path], ["cortex-m4"])
    path.write_text(path.read_text().replace("void tiny_int8_invoke", "volatile int waste;\nvoid tiny_int8_invoke"))
    head, body = path.read_text().rsplit("tiny_int8_invoke(", 1)
    path.write_text(head + "tiny_int8_invoke(" + body.replace("{", "{ for (int w = 0; w < 5000; ++w) waste = w;", 1))
    ((after,), failures) = costs([path], ["cortex-m4"])
    assert not failures
    assert after.instructions > before.instructions + 10_000
    assert after.artifact_sha256 != before.artifact_sha256


def test_code_that_expects_its_arena_is_counted(tmp_path: Path) -> None:
    need("cortex-m4")
    ((static,), _) = costs([write_c(tmp_path)], ["cortex-m4"])
    ((given,), failures) = costs([write_c(tmp_path, caller_arena=True)], ["cortex-m4"])
    assert not failures
    assert given.instructions == pytest.approx(static.instructions, abs=100)
    assert given.arena_bytes == static.arena_bytes <= static.ram_bytes - given.ram_bytes + 4


def test_what_has_no_cost_is_named_with_the_reason(workspace: Workspace) -> None:
    need("cortex-m0")
    large, floating = workspace.path("tflite", "int8"), workspace.path("tflite", "float32")
    others = [workspace.path("tflite", "dynamic-int8"), workspace.path("tflite", "int16x8"), workspace.model_file]
    ended = bench(TINY, large, floating, "--runtimes", "litert", *QUICK, "--target", "cortex-m0", "--json")
    assert ended.returncode == 1
    assert "digits-int8.tflite on cortex-m0 (target): the board of cortex-m0 lacks" in ended.stderr
    assert "float32" not in ended.stderr
    emulated, failures = costs([TINY, large, floating, *others], ["cortex-m0"])
    assert [cost.artifact for cost in emulated] == ["tiny-int8.tflite"]
    assert [(failure.subject, failure.error, failure.expected) for failure in failures] == [
        ("digits-int8.tflite on cortex-m0", "FitError", False),
        ("digits-float32.tflite", "UnsupportedError", True),
        ("digits-dynamic-int8.tflite", "UnsupportedError", True),
        ("digits-int16x8.tflite on cortex-m0", "FitError", False),
        (workspace.model_file.name, "UnsupportedError", True),
    ]
    assert {failure.stage for failure in failures} == {"target"}


def test_float_files_alone_are_no_error_and_the_reason_is_shown(workspace: Workspace) -> None:
    need("cortex-m4")
    ended = bench(workspace.path("tflite", "float32"), *QUICK, "--target", "cortex-m4")
    assert ended.returncode == 0, ended.stderr
    assert "– digits-float32.tflite, target: " in ended.stdout


def test_damaged_and_strange_files_are_failures(tmp_path: Path) -> None:
    need("cortex-m4")
    half, foreign, changed = tmp_path / "half.tflite", tmp_path / "main.c", tmp_path / TINY.name
    half.write_bytes(TINY.read_bytes()[:2000])
    foreign.write_text("int main(void) { return 0; }\n")
    shutil.copy(TINY, changed)
    shutil.copy(sidecar(TINY), sidecar(changed))
    changed.write_bytes(TINY.read_bytes() + b"\0")
    paths = [half, foreign, changed, tmp_path / "none.tflite"]
    emulated, failures = costs(paths, ["cortex-m4"])
    assert not emulated
    for failure, path, reason in zip(
        failures,
        paths,
        [
            "half.tflite is ",
            "main.c was not generated by edgecnn",
            "has changed since it was exported",
            "no model file at",
        ],
        strict=True,
    ):
        assert failure.subject == path.name
        assert reason in failure.reason
        assert not failure.expected


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ('"name":"tiny_int8"', '"name":"../../planted"', "has the invalid function prefix '../../planted'"),
        ('"caller_arena":false', '"caller_arena":true', "the code does not build for cortex-m4"),
    ],
)
def test_a_c_file_that_says_what_edgecnn_would_not(old: str, new: str, reason: str, tmp_path: Path) -> None:
    need("cortex-m4")
    path = write_c(tmp_path)
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    emulated, (failure,) = costs([path], ["cortex-m4"])
    assert not emulated
    assert reason in failure.reason


def test_code_that_does_not_build_is_a_failure(tmp_path: Path) -> None:
    need("cortex-m4")
    path = write_c(tmp_path)
    path.write_text(path.read_text() + "int broken(void) { return absent; }\n")
    emulated, (failure,) = costs([path], ["cortex-m4"])
    assert not emulated
    assert (failure.subject, failure.error, failure.expected) == ("tiny.c on cortex-m4", "EmulationError", False)
    assert "absent" in failure.reason


@pytest.mark.parametrize(
    ("tool", "target", "package"),
    [
        ("arm-none-eabi-gcc", "cortex-m4", "gcc-arm-none-eabi libnewlib-arm-none-eabi"),
        ("arm-none-eabi-size", "cortex-m4", "binutils-arm-none-eabi"),
        ("qemu-system-arm", "cortex-m4", "qemu-system-arm"),
        ("qemu-system-riscv32", "riscv32", "qemu-system-misc"),
        ("make", "cortex-m4", "make"),
    ],
)
def test_a_missing_tool_is_named_with_its_package(
    tool: str, target: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    need(target)
    which = shutil.which
    monkeypatch.setattr(machine.shutil, "which", lambda name: None if name == tool else which(name))
    emulated, (failure,) = costs([TINY], [target])
    assert not emulated
    assert (failure.subject, failure.stage, failure.expected) == (target, "target", False)
    assert failure.reason == f"{target} needs {tool}, which this machine lacks (Debian: apt install {package})"


def test_a_missing_tool_leaves_the_times_and_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    ended = bench(TINY, *QUICK, "--target", "cortex-m4", "--json")
    assert ended.returncode == 1
    assert "edgecnn: cortex-m4 (target): cortex-m4 needs make, which this machine lacks" in ended.stderr
    report = from_json(ended.stdout.encode(), Report, "stdout")
    assert [type(row) for row in report.rows] == [Result, Failure]


def test_beside_a_device_instructions_are_counted_here(
    finished_run: FinishedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need("cortex-m4")
    bundle, out = tmp_path / "bundle.zip", tmp_path / "results.json"
    make_bundle(finished_run.folder, bundle, data=str(finished_run.data_file), images=20)
    asked: list[str] = []

    def there(transport: object, bundle: Path, options: Sequence[str]) -> Report:
        asked.extend(options)
        return bench_files([TINY], seconds=0.05, processes=2)

    monkeypatch.setattr(device, "bench_on", there)
    arguments = [str(bundle), "--ssh", "device", "--seconds", "0.05", "--target", "cortex-m4", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["edgecnn", "bench", *arguments])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 0
    assert asked == ["--seconds", "0.05"]
    report = read(out)
    assert {cost.artifact.rpartition(".")[0] for cost in report.emulated} == {"mnist_cnn-int8"}
    assert all(row.expected for row in report.rows if isinstance(row, Failure))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--target", "cortex-m5"], "unknown target 'cortex-m5'; choose from: cortex-m0, cortex-m0plus, cortex-m3, "),
        (["--target", "cortex-m4,"], "unknown target ''; choose from: cortex-m0, "),
    ],
)
def test_wrong_usage(options: list[str], message: str) -> None:
    ended = bench(TINY, *options)
    assert ended.returncode == 2
    assert message in ended.stderr
    assert not ended.stdout


def test_targets_without_a_count_are_unknown() -> None:
    with pytest.raises(UnknownNameError, match="unknown target 'aarch64'; choose from: cortex-m0, "):
        costs([TINY], ["aarch64"])
