"""``edgecnn check``: what fits passes, the rest is refused with every reason, by rules and by the tools themselves."""

import itertools
import json
import re
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_models import source_of, write_tflite
from tools import need

from edgecnn.check import COMPILER, CORES, check
from edgecnn.errors import ArtifactError, ConfigError, UnknownNameError
from edgecnn.formats.c99.memory import choices
from edgecnn.models import MODELS
from edgecnn.optional import require
from edgecnn.records import TargetCheck, from_json
from edgecnn.runtimes import tflm as tflm_module
from edgecnn.tflite.graph import read_graph

pytestmark = pytest.mark.slow


@pytest.fixture
def compiler() -> None:
    """The cross compiler is there."""
    need(COMPILER)


@pytest.fixture(scope="module")
def models(untrained_models: dict[str, Path]) -> dict[str, Path]:
    return untrained_models


@pytest.fixture(scope="module")
def schemes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("schemes")
    source = source_of("mnist_cnn")
    return {
        scheme: write_tflite(source, folder / f"{scheme}.tflite", scheme)
        for scheme in ("float32", "dynamic-int8", "int8", "int16x8")
    }


def rewritten(path: Path, change: Any, out: Path) -> Path:
    """The .tflite at ``path`` with ``change`` made to its objects."""
    import flatbuffers

    schema = require("ai_edge_litert.schema_py_generated")
    model = schema.ModelT.InitFromPackedBuf(path.read_bytes())
    change(model, schema)
    builder = flatbuffers.Builder(0)
    builder.Finish(model.Pack(builder), b"TFL3")
    out.write_bytes(builder.Output())
    return out


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("target", ["tflm", "c99", "cortex-m4"])
def test_built_in_models_pass(name: str, target: str, models: dict[str, Path]) -> None:
    found = check(models[name], target)
    assert found.reasons == ()
    assert found.fits
    assert found.notes
    assert found.arena_bytes is not None
    assert found.arena_bytes >= 256  # the autoencoder as C: two vectors of 128 values


# TFLM


def test_tflm_takes_what_it_takes(schemes: dict[str, Path]) -> None:
    for scheme, fits in {"float32": True, "int8": True, "int16x8": True, "dynamic-int8": False}.items():
        found = check(schemes[scheme], "tflm")
        assert found.fits is fits, found.reasons
        assert (found.arena_bytes is not None) is fits


def test_every_reason_comes_at_once_and_tflm_agrees(schemes: dict[str, Path]) -> None:
    found = check(schemes["dynamic-int8"], "tflm")
    assert len(found.reasons) == 2
    assert re.fullmatch(r"operator 2 \(CONV_2D '.*'\) has int8 weights and float32 activations.*", found.reasons[0])
    assert re.fullmatch(r"operator 5 \(FULLY_CONNECTED '.*'\) has int8 weights and float32 activ.*", found.reasons[1])
    assert any(note.startswith("TFLM reports: it refuses the model") for note in found.notes)


def test_a_softmax_at_which_tflm_aborts_is_named(tmp_path: Path) -> None:
    path = write_tflite(source_of("mobilenet_v1_025", settled=False), tmp_path / "m.tflite")
    (reason,) = check(path, "tflm").reasons
    assert re.match(
        r"operator 29 \(SOFTMAX '.*'\) has an input scale of \d\.\d\de-09, at which a check in TFLM aborts", reason
    )


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_the_limit_of_the_softmax_is_where_tflm_has_it(factor: float, schemes: dict[str, Path], tmp_path: Path) -> None:
    """Half and twice the least scale: TFLM itself dies of the one and runs the other."""

    def change(model: Any, schema: Any) -> None:
        (softmax,) = [one for one in model.subgraphs[0].operators if hasattr(one.builtinOptions, "beta")]
        model.subgraphs[0].tensors[softmax.inputs[0]].quantization.scale = [factor * 2.0**-26]

    found = check(rewritten(schemes["int8"], change, tmp_path / "m.tflite"), "tflm")
    assert found.fits is (factor > 1), found.reasons
    assert any("killed by SIGABRT" in note for note in found.notes) is (factor < 1)


def test_uint8_and_unknown_operators_are_refused_by_rule_and_by_tflm(schemes: dict[str, Path], tmp_path: Path) -> None:
    def to_uint8(model: Any, schema: Any) -> None:
        for tensor in model.subgraphs[0].tensors:
            if tensor.type == schema.TensorType.INT8:
                tensor.type = schema.TensorType.UINT8
                tensor.quantization.zeroPoint = np.asarray(tensor.quantization.zeroPoint) + 128

    found = check(rewritten(schemes["int8"], to_uint8, tmp_path / "u.tflite"), "tflm")
    kinds = ["CONV_2D", "MAX_POOL_2D", "CONV_2D", "MAX_POOL_2D", "FULLY_CONNECTED", "FULLY_CONNECTED", "SOFTMAX"]
    assert [re.search(r"\((\w+) '.*'\) computes in uint8", reason)[1] for reason in found.reasons] == kinds  # type: ignore[index]
    assert any(note.startswith("TFLM reports") for note in found.notes)

    def to_unknown(model: Any, schema: Any) -> None:
        codes = {code.builtinCode: code for code in model.operatorCodes}
        for kind, other in ((schema.BuiltinOperator.SOFTMAX, "RANK"), (schema.BuiltinOperator.MAX_POOL_2D, "LSTM")):
            codes[kind].builtinCode = getattr(schema.BuiltinOperator, other)
            codes[kind].deprecatedBuiltinCode = codes[kind].builtinCode

    found = check(rewritten(schemes["int8"], to_unknown, tmp_path / "o.tflite"), "tflm")
    assert [re.search(r"operator \d \((\w+) '.*'\) has no kernel", reason)[1] for reason in found.reasons] == [  # type: ignore[index]
        "LSTM", "LSTM", "RANK",
    ]  # fmt: skip
    assert not check(tmp_path / "o.tflite", "c99").fits


def test_per_channel_dense_layers_are_a_note_with_its_source(schemes: dict[str, Path]) -> None:
    assert any("2673" in note and "wrong results" in note for note in check(schemes["int8"], "tflm").notes)
    assert not any("2673" in note for note in check(schemes["float32"], "tflm").notes)


def test_without_tflm_the_rules_stand_alone(schemes: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    from edgecnn.errors import MissingExtraError

    def missing(model: bytes) -> int:
        raise MissingExtraError("this needs the package 'tflite_micro'")

    monkeypatch.setattr(tflm_module, "arena_bytes", missing)
    found = check(schemes["int8"], "tflm")
    assert found.fits
    assert found.arena_bytes is None
    assert any(note.startswith("rules only, TFLM was not run") for note in found.notes)


def test_tflm_knows_better_than_the_rules(schemes: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tflm_module, "arena_bytes", lambda model: 1234)
    found = check(schemes["dynamic-int8"], "tflm")
    assert found.fits
    assert found.arena_bytes == 1234
    assert sum(note.startswith("TFLM ran it anyway: operator") for note in found.notes) == 2


# Generated C and cores


def test_float_models_are_not_written_as_c(schemes: dict[str, Path]) -> None:
    for scheme in ("float32", "dynamic-int8"):
        reasons = check(schemes[scheme], "c99").reasons
        assert len(reasons) >= 8, "every operator, and both ends"
        assert check(schemes[scheme], "cortex-m4:flash=1m").reasons == reasons


@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize("core", CORES)
def test_every_core_is_compiled_for(core: str, schemes: dict[str, Path]) -> None:
    found = check(schemes["int8"], core)
    assert found.fits
    assert found.flash_bytes is not None
    assert found.ram_bytes is not None
    assert found.arena_bytes is not None
    weights = sum(t.data.nbytes for t in read_graph(schemes["int8"].read_bytes(), "x").tensors if t.data is not None)
    assert weights < found.flash_bytes < weights + 16_000
    assert found.ram_bytes == found.arena_bytes + 784 + 10
    assert any(note.startswith(f"flash and RAM of the model as compiled by {COMPILER}") for note in found.notes)


@pytest.mark.usefixtures("compiler")
def test_budgets_hold_to_the_byte(schemes: dict[str, Path]) -> None:
    free = check(schemes["int8"], "cortex-m4")
    flash, ram = free.flash_bytes, free.ram_bytes
    assert flash is not None
    assert ram is not None
    assert check(schemes["int8"], f"cortex-m4:flash={flash},ram={ram}").fits
    found = check(schemes["int8"], f"cortex-m4:ram={ram - 1},flash={flash - 1}")
    assert [reason.split(";")[0] for reason in found.reasons] == [
        f"it needs {flash:,} bytes of flash, {flash - 1:,} are available: 1 too many",
        f"it needs {ram:,} bytes of RAM, {ram - 1:,} are available: 1 too many",
    ]
    assert check(schemes["int8"], "cortex-m4:flash=126k").reasons == ()
    assert len(check(schemes["int8"], "cortex-m4:flash=125k").reasons) == (1 if flash > 125 * 1024 else 0)


@pytest.mark.parametrize(("name", "arena", "slower"), [("mobilenet_v1_025", 25, 0.15), ("resnet8", 20, 0.05)])
def test_smaller_arenas_are_named_with_what_they_cost(
    name: str, arena: int, slower: float, models: dict[str, Path]
) -> None:
    first, *smaller = choices(read_graph(models[name].read_bytes(), name))
    assert (first.cut, first.slower) == (None, 0)
    assert any(plan.arena <= arena * 1024 and plan.slower <= slower for plan in smaller)
    assert all(a.arena > b.arena and a.slower <= b.slower for a, b in itertools.pairwise([first, *smaller]))
    (note,) = (note for note in check(models[name], "c99").notes if "in bands of rows" in note)
    assert note.count(" bytes (about ") == len(smaller)
    assert f"{smaller[-1].arena:,} bytes (about {smaller[-1].slower:.1%} more instructions)" in note


def test_a_model_without_smaller_arenas_has_no_note_about_them(models: dict[str, Path]) -> None:
    assert not any("in bands of rows" in note for note in check(models["autoencoder"], "c99").notes)


def test_without_a_compiler_the_plan_counts_and_the_output_says_so(
    schemes: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgecnn.emulation.machine.shutil.which", lambda name: None)
    found = check(schemes["int8"], "cortex-m4:flash=64k,ram=16k")
    assert len(found.reasons) == 2
    assert any(note.startswith("flash counts only the weights and RAM only the arena plan") for note in found.notes)
    weights = sum(t.data.nbytes for t in read_graph(schemes["int8"].read_bytes(), "x").tensors if t.data is not None)
    assert found.flash_bytes is not None
    assert found.flash_bytes == pytest.approx(weights, rel=0.05)


# Edge TPU


def test_edgetpu_is_rules_only_and_says_so(models: dict[str, Path]) -> None:
    found = check(models["ds_cnn"], "edgetpu")
    assert found.notes[0].startswith("published rules only: the Edge TPU's compiler was not run")
    (reason,) = found.reasons
    assert re.match(r"operator \d+ \(FULLY_CONNECTED '.*'\) has a scale per channel", reason)
    assert re.search(r"leave operator 10 \(FULLY_CONNECTED '.*'\) and everything after it to the CPU", found.notes[1])


def test_edgetpu_takes_dense_layers_with_one_scale(models: dict[str, Path], tmp_path: Path) -> None:
    def one_scale(model: Any, schema: Any) -> None:
        for operator in model.subgraphs[0].operators:
            if type(operator.builtinOptions).__name__ == "FullyConnectedOptionsT":
                quantization = model.subgraphs[0].tensors[operator.inputs[1]].quantization
                quantization.scale, quantization.zeroPoint = quantization.scale[:1], quantization.zeroPoint[:1]

    assert check(rewritten(models["ds_cnn"], one_scale, tmp_path / "m.tflite"), "edgetpu").fits


def test_edgetpu_refuses_float_large_batches_and_other_operators(schemes: dict[str, Path], tmp_path: Path) -> None:
    assert any("computes in float32" in reason for reason in check(schemes["float32"], "edgetpu").reasons)
    assert any("computes in int16" in reason for reason in check(schemes["int16x8"], "edgetpu").reasons)

    def large(model: Any, schema: Any) -> None:
        for tensor in model.subgraphs[0].tensors:
            if tensor.shape is not None and len(tensor.shape) == 4 and tensor.shape[0] == 1:
                tensor.shape = np.asarray([2, *tensor.shape[1:]], np.int32)
        (softmax,) = [one for one in model.operatorCodes if one.builtinCode == schema.BuiltinOperator.SOFTMAX]
        softmax.builtinCode = softmax.deprecatedBuiltinCode = schema.BuiltinOperator.EXP

    reasons = check(rewritten(schemes["int8"], large, tmp_path / "m.tflite"), "edgetpu").reasons
    assert any("more than three dimensions above 1" in reason for reason in reasons)
    assert any(re.search(r"\(EXP '.*'\) is not in the table of supported operations", reason) for reason in reasons)


# Usage and damage


# Ethos-U


@pytest.mark.parametrize(
    ("target", "system"),
    [
        ("ethos-u55-128", "Ethos_U55_High_End_Embedded"),
        ("ethos-u65-256", "Ethos_U65_Embedded"),
        ("ethos-u85-512", "Ethos_U85_SYS_Flash_High"),
    ],
)
def test_estimates_are_those_that_vela_prints(
    target: str, system: str, schemes: dict[str, Path], tmp_path: Path
) -> None:
    command = [Path(sys.executable).with_name("vela"), "--accelerator-config", target, "--config", "Arm/vela.ini"]
    command += ["--system-config", system, "--memory-mode", "Shared_Sram", "--verbose-cycle-estimate"]
    done = subprocess.run([*command, schemes["int8"]], cwd=tmp_path, capture_output=True, text=True, check=True)

    def vela_says(what: str) -> float:
        found = re.search(rf"^{what} +([\d.]+)", done.stdout, re.MULTILINE)
        assert found is not None, done.stdout
        return float(found[1])

    found = check(schemes["int8"], target)
    assert found.fits
    assert found.cycles == vela_says("Total cycles")
    assert found.ram_bytes == pytest.approx(1024 * vela_says("Total SRAM used"), abs=6)  # printed with two digits
    assert found.flash_bytes == pytest.approx(1024 * vela_says("Total Off-chip Flash used"), abs=6)
    (note,) = found.notes
    assert note.startswith("cycles, flash and RAM are estimates of Vela 5.")
    assert f"{system}, Shared_Sram" in note


def test_larger_ethos_u_takes_fewer_cycles(schemes: dict[str, Path]) -> None:
    cycles = [check(schemes["int8"], f"ethos-u55-{macs}").cycles or 0 for macs in (32, 64, 256)]
    assert cycles == sorted(cycles, reverse=True)
    assert cycles[0] > cycles[2] > 0


def test_budgets_of_an_ethos_u_hold_to_the_byte(schemes: dict[str, Path]) -> None:
    free = check(schemes["int8"], "ethos-u55-64")
    flash, ram = free.flash_bytes, free.ram_bytes
    assert flash is not None
    assert ram is not None
    assert check(schemes["int8"], f"ethos-u55-64:flash={flash},ram={ram}").fits
    assert [
        reason.split(";")[0]
        for reason in check(schemes["int8"], f"ethos-u55-64:flash={flash - 1},ram={ram - 1}").reasons
    ] == [
        f"it needs {flash:,} bytes of flash, {flash - 1:,} are available: 1 too many",
        f"it needs {ram:,} bytes of RAM, {ram - 1:,} are available: 1 too many",
    ]


def test_operators_left_to_the_cpu_are_named_with_velas_reason(schemes: dict[str, Path]) -> None:
    found = check(schemes["int16x8"], "ethos-u55-128")
    assert found.fits
    assert found.cycles
    left = [note for note in found.notes if note.startswith("the CPU runs ")]
    assert [re.search(r"operator \d+ \((\w+) ", note)[1] for note in left] == ["QUANTIZE", "DEQUANTIZE"]  # type: ignore[index]
    assert re.search(r"\): Operation has tensor with unsupported DataType Float32", left[0])

    found = check(schemes["float32"], "ethos-u85-256")
    assert found.reasons == ("no operator runs on ethos-u85-256",)
    assert (found.cycles, found.flash_bytes, found.ram_bytes) == (None, None, None)
    kinds = [operator.kind for operator in read_graph(schemes["float32"].read_bytes(), "x").operators]
    assert len(found.notes) >= len(kinds) - 1  # a RESHAPE may go


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("SOFTMAX", "RESHAPE", r"Vela cannot compile it: Compilation failed: Error: RESHAPE '"),
        ("FULLY_CONNECTED", "MEAN", r"killed by SIGSEGV while compiling the model for ethos-u55-128 with Vela: "),
    ],
)
def test_what_vela_refuses_or_crashes_on_is_a_reason(
    old: str, new: str, reason: str, schemes: dict[str, Path], tmp_path: Path
) -> None:
    def change(model: Any, schema: Any) -> None:
        for code in model.operatorCodes:
            if code.builtinCode == getattr(schema.BuiltinOperator, old):
                code.builtinCode = code.deprecatedBuiltinCode = getattr(schema.BuiltinOperator, new)

    (found,) = check(rewritten(schemes["int8"], change, tmp_path / "w.tflite"), "ethos-u55-128").reasons
    assert found.startswith(reason)


# What can be asked


@pytest.mark.parametrize(
    "text", ["flash", "flash=", "flash=1g", "flash=1k,flash=2k", "rom=1k", "flash=-1", "flash=1.5m"]
)
def test_senseless_budgets_are_wrong_usage(text: str, schemes: dict[str, Path]) -> None:
    with pytest.raises(ConfigError, match=r"is not a budget; give flash and ram once each"):
        check(schemes["int8"], f"cortex-m4:{text}")


def test_targets_are_listed_and_budgets_belong_to_cores(schemes: dict[str, Path]) -> None:
    with pytest.raises(
        UnknownNameError,
        match=r"unknown target 'esp32'; choose from: android, arduino, c99, .*edgetpu, ethos-u55-128, .*ios, tflm, web",
    ):
        check(schemes["int8"], "esp32")
    with pytest.raises(ConfigError, match="tflm has no budgets"):
        check(schemes["int8"], "tflm:ram=64k")


def test_what_is_no_tflite_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"is not a \.tflite file; make one"):
        check(tmp_path / "model.keras", "c99")
    with pytest.raises(ArtifactError, match="no model file at"):
        check(tmp_path / "model.tflite", "c99")


@pytest.mark.parametrize("target", ["c99", "edgetpu", "cortex-m4", "ethos-u55-128"])
def test_damaged_files_end_in_one_line(target: str, schemes: dict[str, Path], tmp_path: Path) -> None:
    model = schemes["int8"].read_bytes()
    random = np.random.default_rng(0)
    path = tmp_path / "damaged.tflite"
    refused = 0
    for _ in range(40):
        damaged = bytearray(model)
        for position in random.integers(len(model) - 9000, len(model), 4):
            struct.pack_into("B", damaged, int(position), int(random.integers(256)))
        path.write_bytes(damaged)
        try:
            refused += not check(path, target).fits
        except (ArtifactError, ConfigError) as error:
            refused += 1
            assert "\n" not in str(error)  # noqa: PT017 - either way is right
    assert refused


def test_command(schemes: dict[str, Path]) -> None:
    def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "edgecnn", "check", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    fine = run(str(schemes["int8"]), "--target", "c99")
    assert (fine.returncode, fine.stderr) == (0, "")
    assert fine.stdout.startswith("int8.tflite on c99: fits\n  arena  21,")
    wrong = run(str(schemes["dynamic-int8"]), "--target", "tflm", "--json")
    assert wrong.returncode == 1
    record = from_json(wrong.stdout.encode(), TargetCheck, "stdout")
    assert [line.split(": ", 2)[2] for line in wrong.stderr.splitlines()] == list(record.reasons)
    assert json.loads(wrong.stdout)["target"] == "tflm"
    assert run(str(schemes["int8"]), "--target", "nothing").returncode == 2
    assert run(str(schemes["int8"])).returncode == 2
