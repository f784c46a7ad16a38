"""The reference CNN and others on emulated processors, byte for byte; and the kit that shows it without edgecnn."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tools
from conftest import Workspace
from emulated import need
from generated import WARNINGS

from edgecnn import emulation
from edgecnn.embed import KIT_FILE
from edgecnn.emulation import Firmware, Sources
from edgecnn.emulation.machine import Int8
from edgecnn.errors import FitError
from edgecnn.formats.c99 import Named, several_to_c, to_c
from edgecnn.optional import require
from edgecnn.records import Artifact, Kit, from_json
from edgecnn.runtimes.quantized_io import to_input
from edgecnn.tflite.graph import read_graph

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
IMAGES = 100
FAST = ["cortex-m4", "cortex-m55", "riscv32"]
SMALL = ["cortex-m0", "cortex-m0plus"]  # their board has too little RAM for the reference CNN


@pytest.fixture(scope="session")
def digits(workspace: Workspace) -> Sources:
    """The reference CNN, int8, as C."""
    return emulation.generate(read_graph(workspace.path("tflite", "int8").read_bytes(), "digits"), "digits")


@pytest.fixture(scope="session")
def inputs(workspace: Workspace) -> Int8:
    """Real test images as the model takes them, among them one that is all -128 and one that is all 127."""
    artifact: Artifact = workspace.artifacts["tflite", "int8"]
    images = workspace.data.inputs(workspace.data.test.images[: IMAGES + 2])
    quantized = to_input(images, artifact.input).reshape(len(images), -1)
    quantized[0], quantized[1] = -128, 127
    return quantized


@pytest.fixture(scope="session")
def answers(workspace: Workspace, inputs: Int8) -> Int8:
    """What TFLite Micro answers."""
    runtime = require("tflite_micro").runtime
    model = workspace.path("tflite", "int8").read_bytes()
    interpreter = runtime.Interpreter.from_bytes(model, arena_size=200_000)
    outputs = []
    for image in inputs:
        interpreter.set_input(image.reshape(1, 28, 28, 1), 0)
        interpreter.invoke()
        outputs.append(interpreter.get_output(0).reshape(-1).copy())
    return np.stack(outputs)


@pytest.fixture(scope="session")
def firmware(digits: Sources, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Firmware]:
    """The reference CNN for every target whose tools are there, built once; m4 and m55 with every level."""
    folder = tmp_path_factory.mktemp("firmware")
    return {
        (target, opt): emulation.build(digits, target, folder, opt)
        for target in emulation.TARGETS
        for opt in emulation.LEVELS
        if not emulation.missing_tools(target) and target not in SMALL and (opt == "-O2" or target in FAST)
    }


@pytest.mark.parametrize("target", [target for target in emulation.TARGETS if target not in SMALL])
def test_every_processor_answers_as_tflite_micro(
    target: str, firmware: dict[tuple[str, str], Firmware], inputs: Int8, answers: Int8
) -> None:
    need(target)
    np.testing.assert_array_equal(emulation.run(firmware[target, "-O2"], inputs), answers)


@pytest.mark.parametrize("opt", ["-Os", "-O3"])
@pytest.mark.parametrize("target", FAST)
def test_optimisation_changes_no_byte(
    target: str, opt: str, firmware: dict[tuple[str, str], Firmware], inputs: Int8, answers: Int8
) -> None:
    need(target)
    np.testing.assert_array_equal(emulation.run(firmware[target, opt], inputs[:20]), answers[:20])


@pytest.mark.parametrize("target", SMALL)
def test_the_smallest_board_says_what_it_lacks(target: str, digits: Sources, tmp_path: Path) -> None:
    need(target)
    with pytest.raises(FitError, match=rf"^the board of {target} lacks [\d,]+ bytes of RAM; choose a larger board"):
        emulation.build(digits, target, tmp_path)


@pytest.mark.parametrize("target", SMALL)
def test_a_small_model_fits_the_smallest_board(target: str, tmp_path: Path) -> None:
    """16 KiB of RAM are enough for the model of tests/files."""
    need(target)
    model = (ROOT / "tests" / "files" / "tiny-int8.tflite").read_bytes()
    sources = emulation.generate(read_graph(model, "tiny"), "tiny")
    images = np.random.default_rng(0).integers(-128, 128, (IMAGES, sources.input_size), np.int8)
    expected = emulation.run(emulation.build(sources, "host", tmp_path), images)
    assert len(np.unique(expected, axis=0)) > 20
    np.testing.assert_array_equal(emulation.run(emulation.build(sources, target, tmp_path), images), expected)


def test_weights_and_arena_are_placed_by_macros(tmp_path: Path) -> None:
    """Constants in an external flash, the arena in a memory of its own: the same bytes, from there."""
    need("cortex-m4")
    tools.need("arm-none-eabi-objdump")
    graph = read_graph((ROOT / "tests" / "files" / "tiny-int8.tflite").read_bytes(), "tiny")
    plan = to_c(graph, "tiny").plan
    assert make_kit(ROOT / "tests" / "files" / "tiny-int8.tflite", tmp_path / "kit", "cortex-m4").returncode == 0
    script = (tmp_path / "kit" / "board.ld").read_text()
    for before, added in (
        (
            "    RAM (",
            "    QSPI (r) : ORIGIN = 0x200000, LENGTH = 1M\n    DTCM (rw) : ORIGIN = 0x20200000, LENGTH = 64K\n",
        ),
        ("    .text :", "    .qspi : { *(.qspi) } > QSPI\n    .dtcm (NOLOAD) : { *(.dtcm) } > DTCM\n"),
    ):
        assert before in script
        script = script.replace(before, added + before)
    (tmp_path / "kit" / "board.ld").write_text(script)
    section = "-D{}='__attribute__((section(\".{}\")))'"
    placed = " ".join([section.format("EDGECNN_WEIGHTS", "qspi"), section.format("EDGECNN_ARENA", "dtcm")])
    made = make(tmp_path / "kit", "check", f"OPT=-O2 {placed}", "BUILD=build/placed")
    assert made.returncode == 0, made.stderr
    (elf,) = (tmp_path / "kit" / "build" / "placed").glob("*.elf")
    listed = subprocess.run(["arm-none-eabi-objdump", "-h", elf], capture_output=True, text=True, check=True).stdout
    sections = {
        name: (int(size, 16), int(start, 16))
        for name, size, start in re.findall(r"^ *\d+ (\S+) +(\w+) +(\w+)", listed, re.MULTILINE)
    }
    assert sections[".qspi"] == (pytest.approx(plan.constant_bytes, abs=64), 0x200000)  # with gaps for alignment
    assert sections[".dtcm"] == (-(-plan.arena_bytes // 4) * 4, 0x20200000)
    assert ".bss" not in sections or sections[".bss"][0] == 0


def test_code_runs_with_the_vector_extension_of_riscv(tmp_path: Path) -> None:
    """Vectorised by clang; on a processor without vectors it faults, which shows that they are used."""
    need("riscv32")
    tools.need("clang")
    kit = tmp_path / "kit"
    assert make_kit(ROOT / "tests" / "files" / "tiny-int8.tflite", kit, "cortex-m4").returncode == 0
    start, enabled = kit / "harness_start_riscv.c", r"csrw mtvec, t0\nli t0, 0x200\ncsrs mstatus, t0\n"
    start.write_text(start.read_text().replace(r"csrw mtvec, t0\n", enabled))
    assert enabled in start.read_text()
    assert make(kit, "TARGET=riscv32", "BUILD=build/v").returncode == 0
    (model,) = kit.glob("tiny*.c")
    command = ["clang", "--target=riscv32", "-march=rv32imac_zve32x", "-mabi=ilp32", "-std=c99", "-O3", "-mllvm"]
    command += ["-riscv-v-vector-bits-min=128", "-c", model.name, "-o", f"build/v/{model.stem}.o"]
    subprocess.run(command, cwd=kit, check=True)
    checked = []
    for cpu in ("rv32,v=true,vext_spec=v1.0", "rv32"):
        emulator = f"EMULATOR=qemu-system-riscv32 -cpu {cpu} -M virt -bios none $(SEMIHOSTING)"
        checked.append(make(kit, "check", "TARGET=riscv32", "BUILD=build/v", emulator))
    assert "ok: every output byte" in checked[0].stdout
    assert "the processor faulted" in checked[1].stderr


@pytest.mark.parametrize(("flags", "end"), [("", "faulted"), ("-DPLAIN_C -mno-unaligned-access", "ok: ")])
def test_code_runs_where_unaligned_accesses_trap(flags: str, end: str, tmp_path: Path) -> None:
    """With the flags that the documentation names; without them, the code with DSP instructions faults there."""
    need("cortex-m4")
    assert flags in (ROOT / "docs" / "c99.md").read_text()
    assert make_kit(ROOT / "tests" / "files" / "tiny-int8.tflite", tmp_path / "kit", "cortex-m4").returncode == 0
    start = tmp_path / "kit" / "harness_start_arm.c"
    trap = "    *(volatile uint32_t *)0xE000ED14u |= 8u; /* UNALIGN_TRP in CCR */\n"
    first = "    const volatile uint8_t *from = data_load;\n"
    assert first in start.read_text()
    start.write_text(start.read_text().replace(first, trap + first))
    checked = make(tmp_path / "kit", "check", f"OPT=-O2 {flags}", "BUILD=build/trap")
    assert end in checked.stdout + checked.stderr


@pytest.mark.parametrize("target", ["host", *FAST])
def test_models_in_one_source_answer_as_alone_and_share_kernels(
    target: str, digits: Sources, workspace: Workspace, inputs: Int8, answers: Int8, tmp_path: Path
) -> None:
    need(target)
    graphs = {
        "digits": read_graph(workspace.path("tflite", "int8").read_bytes(), "digits"),
        "tiny": read_graph((ROOT / "tests" / "files" / "tiny-int8.tflite").read_bytes(), "tiny"),
    }
    tiny = emulation.generate(graphs["tiny"], "tiny")
    made = several_to_c([Named(graph=graph, name=name) for name, graph in graphs.items()])
    noise = np.random.default_rng(0).integers(-128, 128, (10, tiny.input_size), np.int8)
    alone = [emulation.build(one, target, tmp_path / one.name) for one in (digits, tiny)]
    wanted = np.hstack([answers[:10], emulation.run(alone[1], noise)])
    headers = {f"{name}.h": header for name, header in zip(graphs, made.headers, strict=True)}
    calls = "digits_invoke(input, output); tiny_invoke(input + DIGITS_INPUT_SIZE, output + DIGITS_OUTPUT_SIZE);"
    code = f"{made.source}void both_invoke(const int8_t *input, int8_t *output)\n{{ {calls} {calls} }}\n"
    includes = '#include "digits.h"\n#include "tiny.h"\nvoid both_invoke(const int8_t *input, int8_t *output);\n'
    sources = Sources(
        name="both",
        files={file: text.encode() for file, text in {**headers, "both.h": includes,
                                                      "both.c": f'#include "both.h"\n{code}'}.items()},
        input_size=digits.input_size + tiny.input_size,
        output_size=digits.output_size + tiny.output_size,
    )  # fmt: skip
    firmware = emulation.build(sources, target, tmp_path / "both")
    np.testing.assert_array_equal(emulation.run(firmware, np.hstack([inputs[:10], noise])), wanted)
    assert firmware.constants >= alone[0].constants + alone[1].constants - 64
    assert firmware.code < 0.8 * (alone[0].code + alone[1].code)
    assert firmware.ram - firmware.data <= max(one.ram - one.data for one in alone) + 16


@pytest.mark.parametrize("target", [*FAST, "powerpc"])
def test_one_changed_weight_is_caught(
    target: str, digits: Sources, inputs: Int8, answers: Int8, tmp_path: Path
) -> None:
    need(target)
    code = digits.files["digits.c"].decode()
    start = code.index("{", code.index("_weights"))
    end = code.index(",", start)
    weight = int(code[start + 1 : end])
    changed = f"{code[: start + 1]}{weight - 60 if weight > 0 else weight + 60}{code[end:]}"
    sources = Sources(
        name="digits",
        files={**digits.files, "digits.c": changed.encode()},
        input_size=digits.input_size,
        output_size=digits.output_size,
    )
    outputs = emulation.run(emulation.build(sources, target, tmp_path), inputs)
    assert (outputs != answers).any()


@pytest.mark.parametrize("target", FAST)
def test_an_inference_always_costs_the_same(
    target: str, firmware: dict[tuple[str, str], Firmware], inputs: Int8
) -> None:
    need(target)
    first, again = (emulation.count(firmware[target, "-O2"], inputs[5]) for _ in range(2))
    assert first == again
    assert first.instructions == sum(first.functions.values()) > 100_000
    assert first.stack < 1024


def test_fast_kernels_are_used(firmware: dict[tuple[str, str], Firmware], inputs: Int8) -> None:
    """Two products in one instruction on a Cortex-M4, sixteen on a Cortex-M55."""
    for target in ("cortex-m3", "cortex-m4", "cortex-m55"):
        need(target)
    slow, dual, helium = (
        emulation.count(firmware[target, "-O2"], inputs[5]).instructions
        for target in ("cortex-m3", "cortex-m4", "cortex-m55")
    )
    assert dual < 0.75 * slow
    assert helium < 0.5 * dual


def test_an_m85_gets_the_code_of_an_m55(firmware: dict[tuple[str, str], Firmware], inputs: Int8) -> None:
    """GCC 12 has no rules of its own for it."""
    need("cortex-m85")
    (m55, ours), (m85, theirs) = (
        (firmware[core, "-O2"], emulation.count(firmware[core, "-O2"], inputs[5]).instructions)
        for core in ("cortex-m55", "cortex-m85")
    )
    assert ours == theirs
    assert (m55.code, m55.constants) == (m85.code, m85.constants)


@pytest.mark.parametrize("level", ["-O0", "-O3 -fno-omit-frame-pointer -fPIC"])
@pytest.mark.parametrize("core", ["cortex-m0", "cortex-m4", "cortex-m55"])
def test_compilers_take_the_code_at_every_level(core: str, level: str, digits: Sources, tmp_path: Path) -> None:
    """Inline assembler wants registers, of which some options leave fewer."""
    need(core)
    for name, content in digits.files.items():
        (tmp_path / name).write_bytes(content)
    compilers = [
        ["arm-none-eabi-gcc"],
        ["clang", "--target=arm-none-eabi", "-isystem", "/usr/lib/arm-none-eabi/include"],
    ]
    floats = [] if core == "cortex-m0" else ["-mfloat-abi=hard"]
    for compiler in compilers:
        tools.need(compiler[0])
        command = [*compiler, f"-mcpu={core}", "-mthumb", *floats, *WARNINGS, *level.split(), "-c", "digits.c"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}: {done.stderr}"


@pytest.mark.parametrize("level", ["-O0", "-O2", "-Os"])
def test_a_compiler_for_xtensa_takes_the_code(level: str, digits: Sources, tmp_path: Path) -> None:
    """Compiled only. Debian's compiler is that of the ESP8266 (LX106); it has none for the LX7 of an ESP32-S3."""
    tools.need("xtensa-lx106-elf-gcc")
    for name, content in digits.files.items():
        (tmp_path / name).write_bytes(content)
    library = ["-isystem", "/usr/lib/xtensa-lx106-elf/include"]
    command = ["xtensa-lx106-elf-gcc", *library, *WARNINGS, level, "-c", "digits.c"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "digits.o").read_bytes()[18] == 94  # e_machine: EM_XTENSA


# The kit


def make_kit(model: Path, out: Path, target: str, *options: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "edgecnn", "embed", str(model), "--target", target, "--out", str(out)]
    return subprocess.run([*command, *map(str, options)], capture_output=True, text=True, check=False)


def make(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["make", "--no-print-directory", *arguments], cwd=folder, capture_output=True, text=True, check=False
    )


def test_kit_proves_itself_and_finds_damage(workspace: Workspace, tmp_path: Path) -> None:
    need("cortex-m7")
    kit, model = tmp_path / "kit", workspace.path("tflite", "int8")
    made = make_kit(model, kit, "cortex-m7", "--data", workspace.data_file, "--json")
    assert made.returncode == 0, made.stderr
    names = {str(path.relative_to(kit)) for path in kit.rglob("*") if path.is_file()}
    assert {"digits_int8.c", "digits_int8.h", "Makefile", "README.md", "golden/inputs.bin"} <= names
    assert {*from_json(made.stdout.encode(), Kit, "stdout").files, KIT_FILE} == names

    checked = make(kit, "check")
    assert checked.returncode == 0, checked.stderr
    assert checked.stdout.endswith("ok: every output byte is as expected on cortex-m7\n")
    again = make_kit(model, kit, "cortex-m7", "--data", workspace.data_file)  # over what is built
    assert again.returncode == 0, again.stderr

    outputs = bytearray((kit / "golden" / "outputs.bin").read_bytes())
    outputs[-1] ^= 1
    (kit / "golden" / "outputs.bin").write_bytes(outputs)
    assert make(kit, "check").returncode == 2


def test_kit_without_data_has_extreme_inputs(tmp_path: Path) -> None:
    kit = tmp_path / "kit"
    assert make_kit(ROOT / "tests" / "files" / "tiny-int8.tflite", kit, "cortex-m4").returncode == 0
    inputs = np.frombuffer((kit / "golden" / "inputs.bin").read_bytes(), np.int8).reshape(4, -1)
    assert (inputs[1] == -128).all()
    assert (inputs[2] == 127).all()
    assert "TARGET ?= cortex-m4" in (kit / "model.mk").read_text(encoding="utf-8")


def test_kit_refuses(workspace: Workspace, tmp_path: Path) -> None:
    model = workspace.path("tflite", "int8")
    (tmp_path / "notes.txt").write_text("mine")
    held = make_kit(model, tmp_path, "cortex-m4")
    assert (held.returncode, held.stderr) == (
        1, f"edgecnn: {tmp_path} is not a kit: it contains notes.txt; name a new or empty folder\n"
    )  # fmt: skip
    float_model = make_kit(workspace.path("tflite", "float32"), tmp_path / "kit", "cortex-m4")
    assert float_model.returncode == 1
    assert "int8" in float_model.stderr
    assert make_kit(tmp_path / "none.tflite", tmp_path / "kit", "cortex-m4").returncode == 1
    assert make_kit(model, tmp_path / "kit", "cortex-m5").returncode == 2
    shapes = tmp_path / "shapes.npz"
    images, labels = np.zeros((20, 9, 9), np.uint8), np.arange(20) % 10
    np.savez(shapes, x_train=images, y_train=labels, x_test=images, y_test=labels)
    other = make_kit(model, tmp_path / "kit", "cortex-m4", "--data", shapes)
    assert other.returncode == 1
    assert f"{model} expects (28, 28, 1), but the images of {shapes} are (9, 9, 1); see --data" in other.stderr
    assert not (tmp_path / "kit").exists()
