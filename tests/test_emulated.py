"""Generated code on emulated machines: every target answers as the host does, and every damage shows."""

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from emulated import CODE, need, tiny, tiny_answers

from edgecnn import emulation
from edgecnn.emulation import Firmware, machine
from edgecnn.errors import EmulationError, FitError, UnknownNameError

pytestmark = pytest.mark.slow

BARE = [target for target in emulation.TARGETS if target not in ("aarch64", "armhf", "powerpc", "host")]
INPUTS = np.random.default_rng(0).integers(-128, 128, (100, 40), dtype=np.int8)

Build = Callable[..., Firmware]


@pytest.fixture
def build(tmp_path: Path) -> Build:
    """Builds C code for a target, whose tools must be there."""

    def built(target: str, code: str = CODE, opt: str = "-O2") -> Firmware:
        need(target)
        return emulation.build(tiny(code), target, tmp_path, opt)

    return built


@pytest.mark.parametrize("target", emulation.TARGETS)
def test_every_target_answers_as_the_host(target: str, build: Build) -> None:
    firmware = build(target)
    np.testing.assert_array_equal(emulation.run(firmware, INPUTS), tiny_answers(INPUTS))
    assert emulation.run(firmware, INPUTS[:0]).shape == (0, 10)
    assert firmware.code > 0
    assert firmware.constants >= 20
    assert firmware.data >= 80
    assert firmware.ram >= 120
    assert firmware.flash == firmware.code + firmware.constants + firmware.data


@pytest.mark.parametrize("target", emulation.TARGETS)
def test_a_changed_weight_shows(target: str, build: Build) -> None:
    firmware = build(target, CODE.replace("9, -8", "9, 8"))
    wrong = emulation.run(firmware, INPUTS) != tiny_answers(INPUTS)
    assert wrong.any()
    assert set(np.nonzero(wrong)[1]) == {7}


@pytest.mark.parametrize("target", BARE)
def test_the_same_inference_always_costs_the_same(target: str, build: Build) -> None:
    firmware = build(target)
    first, again = (emulation.count(firmware, INPUTS[0]) for _ in range(2))
    assert first == again
    assert first.instructions == sum(first.functions.values())
    assert all(name in ("tiny_invoke", "halve") for name in first.functions)
    assert 0 < first.stack < 512


def test_instructions_are_counted_exactly(build: Build) -> None:
    """A loop of three instructions, and one more function called five times, as the assembler wrote them."""
    loop = """\
#include "tiny.h"
__attribute__((noinline, naked)) static void called(void) { __asm__("nop\\nbx lr"); }
void tiny_invoke(const int8_t *input, int8_t *output) {
    (void)input, (void)output;
    __asm__ volatile("mov r0, %0\\n0: nop\\nsubs r0, #1\\nbne 0b" :: "r"(1000) : "r0", "cc");
    for (int i = 0; i < 5; ++i) called();
}
"""
    costs = {}
    for rounds in ("1000", "3000"):
        costs[rounds] = emulation.count(build("cortex-m4", loop.replace("1000", rounds)), INPUTS[0])
    assert costs["1000"].functions["called"] == 10
    assert costs["3000"].functions["tiny_invoke"] - costs["1000"].functions["tiny_invoke"] == 3 * 2000


def test_stack_is_measured(build: Build) -> None:
    room = "volatile int8_t room[600];\n    for (int i = 0; i < 600; ++i) room[i] = 1;\n    if (room[5]) halve(input);"
    usual = emulation.count(build("cortex-m4"), INPUTS[0]).stack
    deep = emulation.count(build("cortex-m4", CODE.replace("halve(input);", room)), INPUTS[0]).stack
    assert 600 - 64 <= deep - usual <= 700


@pytest.mark.parametrize("opt", emulation.LEVELS)
def test_every_level_is_built_apart(opt: str, build: Build) -> None:
    build("cortex-m4", opt="-O2")
    firmware = build("cortex-m4", opt=opt)
    assert opt in str(firmware.elf)
    np.testing.assert_array_equal(emulation.run(firmware, INPUTS), tiny_answers(INPUTS))


def test_damaged_code_is_built_anew(build: Build) -> None:
    """make goes by dates, and a folder is used again."""
    for code, same in ((CODE, True), (CODE.replace("100", "99"), False), (CODE, True)):
        assert (emulation.run(build("cortex-m4", code), INPUTS) == tiny_answers(INPUTS)).all() == same


# What goes wrong is said


@pytest.mark.parametrize(("array", "region"), [("static volatile int8_t", "RAM"), ("static const int8_t", "FLASH")])
def test_boards_can_be_too_small(array: str, region: str, build: Build) -> None:
    size = 20_000 if region == "RAM" else 300_000
    code = CODE.replace("static int32_t", f"{array} big[{size}] = {{1}};\nstatic int32_t")
    code = code.replace("(sums[o] >> 8)", "((sums[o] >> 8) + big[input[0] + 200] - big[input[0] + 201])")
    with pytest.raises(
        FitError, match=rf"^the board of cortex-m0 lacks [\d,]+ bytes of {region}; choose a larger board"
    ):
        build("cortex-m0", code)
    assert build("cortex-m4", code).flash > size


def test_code_with_a_warning_is_refused(build: Build) -> None:
    with pytest.raises(EmulationError, match=r"^the code does not build for cortex-m4 with -O2: .*-Werror=conversion"):
        build("cortex-m4", CODE.replace("(int8_t)(sums", "(sums"))


@pytest.mark.parametrize("target", ["cortex-m0", "cortex-m4", "cortex-m55", "riscv32"])
def test_a_fault_ends_the_run(target: str, build: Build) -> None:
    trap = "udf #0" if target.startswith("cortex") else "unimp"
    firmware = build(target, CODE.replace("    halve(input);", f'    halve(input); __asm__("{trap}");'))
    with pytest.raises(EmulationError, match=f"^tiny on {target} ended with exit status .*: the processor faulted"):
        emulation.run(firmware, INPUTS)


def test_a_crash_of_a_linux_program_ends_the_run(build: Build) -> None:
    firmware = build("aarch64", CODE.replace("    halve(input);", "    halve(input); __builtin_trap();"))
    with pytest.raises(EmulationError, match=r"^tiny on aarch64 ended with exit status"):
        emulation.run(firmware, INPUTS)


def test_a_hang_ends(build: Build) -> None:
    firmware = build("cortex-m4", CODE.replace("    halve(input);", "    for (volatile int i = 1; i;) halve(input);"))
    with pytest.raises(EmulationError, match=r"^tiny on cortex-m4 did not end within 1 s; killed$"):
        emulation.run(firmware, INPUTS, limit_s=1.0)


def test_inputs_of_another_shape_or_type_are_refused(build: Build) -> None:
    firmware = build("cortex-m4")
    for inputs in (INPUTS[:, :39], INPUTS[0], INPUTS.astype(np.float32)):
        with pytest.raises(EmulationError, match=r"^the input of tiny must be int8 \(n, 40\), got "):
            emulation.run(firmware, inputs)  # type: ignore[arg-type]


def test_linux_programs_are_not_counted(build: Build) -> None:
    with pytest.raises(EmulationError, match=r"^instructions are counted on bare-metal targets only, not on aarch64"):
        emulation.count(build("aarch64"), INPUTS[0])


def test_an_emulator_that_answers_nothing_shows(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    firmware = build("cortex-m4")
    monkeypatch.setattr(machine, "_emulator", lambda _: ["true"])
    with pytest.raises(EmulationError, match=r"^tiny on cortex-m4 returned 0 bytes, not 1000: no message$"):
        emulation.run(firmware, INPUTS)
    with pytest.raises(EmulationError, match=r"returned 0 bytes, not 10:"):
        emulation.count(firmware, INPUTS[0])


@pytest.mark.parametrize(("target", "opt", "message"), [("cortex-m5", "-O2", "target"), ("cortex-m4", "-O9", "optim")])
def test_unknown_names(target: str, opt: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match=f"unknown {message}"):
        emulation.build(tiny(), target, tmp_path, opt)


def test_a_missing_tool_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("make", "sh"):
        (tools / name).symlink_to(str(shutil.which(name)))
    monkeypatch.setenv("PATH", str(tools))
    assert emulation.missing_tools("riscv32")[0] == "riscv64-unknown-elf-gcc"
    assert "qemu-system-riscv32" in emulation.missing_tools("riscv32")
    with pytest.raises(EmulationError, match=r"^powerpc needs powerpc-linux-gnu-gcc, .*, qemu-ppc, cc, which this"):
        emulation.build(tiny(), "powerpc", tmp_path / "out")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert emulation.missing_tools("cortex-m4") == ("make",)


@pytest.mark.parametrize("ci", ["true", ""])
def test_a_missing_tool_skips_here_and_fails_in_ci(ci: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CI", ci)
    outcome = pytest.fail.Exception if ci else pytest.skip.Exception
    with pytest.raises(outcome, match="make is not installed"):
        need("cortex-m4")


# The kit, by hand


def make(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["make", "--no-print-directory", *arguments], cwd=folder, capture_output=True, text=True, check=False
    )


@pytest.fixture
def kit(tmp_path: Path) -> Path:
    for name, content in emulation.kit_files(tiny(), INPUTS[:5], tiny_answers(INPUTS[:5])).items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    return tmp_path


@pytest.mark.parametrize("target", emulation.TARGETS)
def test_make_check(target: str, kit: Path) -> None:
    need(target)
    checked = make(kit, "check", f"TARGET={target}")
    assert checked.returncode == 0, checked.stderr
    assert f"ok: every output byte is as expected on {target}" in checked.stdout
    golden = kit / "golden" / "outputs.bin"
    golden.write_bytes(golden.read_bytes()[:-1] + b"\x55")
    assert make(kit, "check", f"TARGET={target}").returncode != 0


def test_make_count_says_what_count_says(kit: Path, build: Build) -> None:
    need("cortex-m4")
    counted = make(kit, "--silent", "count", "TARGET=cortex-m4", "OPT=-Os")
    assert counted.returncode == 0, counted.stderr
    numbers = {name: int(number) for number, name in re.findall(r"^(\d+) (\w+)$", counted.stdout, re.MULTILINE)}
    cost = emulation.count(build("cortex-m4", opt="-Os"), INPUTS[0])
    assert numbers == {**cost.functions, "all": cost.instructions}


def test_make_names_an_unknown_target(kit: Path) -> None:
    assert "unknown TARGET=cortex-m5" in make(kit, "TARGET=cortex-m5").stderr
