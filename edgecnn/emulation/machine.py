"""Builds generated C for a target, runs it in QEMU, and counts its instructions.

The build and emulation commands of all targets are in one Makefile, in ``export/cortex_m``, which users of a kit run
without edgecnn. This module calls it and parses its output.
"""

import os
import re
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import get_args

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgecnn.emulation.processors import version_of
from edgecnn.errors import EmulationError, FitError, UnknownNameError
from edgecnn.files import kits_folder
from edgecnn.formats import c99
from edgecnn.records import BareTarget
from edgecnn.tflite.graph import Graph

Int8 = NDArray[np.int8]

BARE = get_args(BareTarget)
"""Bare-metal targets, on which instructions are counted."""

TARGETS = (*BARE, "aarch64", "armhf", "powerpc", "host")
"""All targets of the kit's Makefile: ``BARE``, then Linux programs (powerpc is big-endian), then this machine."""

LEVELS = ("-O2", "-Os", "-O3")

_ROOMY = "MEMORY=0x11000000 0xf000000 0x20000000 0x60000000"
"""Origin and length of flash and of RAM, larger than those of any board."""

_BUILD_LIMIT_S = 120.0


class Sources(msgspec.Struct, frozen=True, kw_only=True):
    """Generated code: ``files`` are ``<name>.h`` and ``<name>.c``, with ``<name>_invoke(input, output)``.

    ``input_size`` and ``output_size`` are the bytes of one inference. ``caller_arena``: the bytes of the arena that
    ``<name>_invoke`` expects as third argument; None if it expects none.
    """

    name: str
    files: Mapping[str, bytes]
    input_size: int
    output_size: int
    caller_arena: int | None = None


class Firmware(msgspec.Struct, frozen=True, kw_only=True):
    """A program built for a target, in ``folder``. Sizes are bytes of the model alone, without the test program.

    ``code`` is machine code, including the needed functions of the compiler's libraries; ``constants`` are weights and
    other read-only data; ``ram`` is static RAM, without the stack (see :class:`Cost`).
    """

    sources: Sources
    target: str
    opt: str
    folder: Path
    code: int
    constants: int
    data: int
    ram: int

    @property
    def elf(self) -> Path:
        """The program."""
        return self.folder / "build" / f"{self.target}{self.opt}" / f"{self.sources.name}.elf"

    @property
    def flash(self) -> int:
        """Code, constants, and initial values of variables."""
        return self.code + self.constants + self.data


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """Cost of one inference: executed instructions, in total and by function; peak ``stack`` in bytes.

    Instruction counts are not timings: QEMU models no pipelines, memories or caches.
    """

    instructions: int
    functions: dict[str, int]
    stack: int


def missing_tools(target: str, goal: str = "tools") -> tuple[str, ...]:
    """The programs that ``target`` needs and this machine lacks; the goal "build-tools" omits the emulator."""
    if shutil.which("make") is None:
        return ("make",)
    return tuple(tool for tool in _tools(target, goal) if shutil.which(tool) is None)


def _tools(target: str, goal: str = "tools") -> tuple[str, ...]:
    with tempfile.TemporaryDirectory() as folder:
        _write(Path(folder), {**_kit(), "model.mk": b"MODEL := none\n"})
        return tuple(dict.fromkeys(_make(Path(folder), _known(target), LEVELS[0], goal).split()))


def tool_versions(target: str) -> dict[str, str]:
    """The versions of the compiler and the emulator of ``target``.

    Raises:
        UnknownNameError: no such target.
        EmulationError: a tool is missing.
    """
    _need_tools(target)
    found = {}
    for tool in _tools(target):
        if tool.endswith("gcc") or tool.startswith("qemu"):
            found[tool] = version_of(tool)
    return found


def generate(graph: Graph, name: str) -> Sources:
    """Generate C99 code called ``name`` from the int8 ``graph``.

    Raises:
        ConfigError, UnsupportedError, ArtifactError: as :func:`edgecnn.formats.c99.to_c`.
    """
    return sources_of(c99.to_c(graph, name), name)


def sources_of(generated: c99.Generated, name: str) -> Sources:
    """The generated C99 code called ``name`` as ``Sources``."""
    sizes = dict(re.findall(rf"^#define {name.upper()}_(INPUT|OUTPUT)_SIZE (\d+)", generated.header, re.MULTILINE))
    declared = re.search(
        rf"^void {name}_invoke\(const (\w+)_t \*input, (\w+)_t \*output", generated.header, re.MULTILINE
    )
    assert declared is not None
    widths = [np.dtype(kind).itemsize for kind in declared.groups()]
    return Sources(
        name=name,
        files={f"{name}.h": generated.header.encode(), f"{name}.c": generated.source.encode()},
        input_size=int(sizes["INPUT"]) * widths[0],
        output_size=int(sizes["OUTPUT"]) * widths[1],
        caller_arena=generated.plan.arena_bytes if generated.caller_arena else None,
    )


def kit_files(sources: Sources, inputs: Int8, outputs: Int8, target: str = "cortex-m4") -> dict[str, bytes]:
    """The files that ``make check`` needs, by path: generated code, test program, golden inputs and outputs.

    ``inputs`` is ``(n, input_size)``, ``outputs`` ``(n, output_size)``; ``target`` is make's default target.
    """
    names = {"MODEL": sources.name, "INPUT_SIZE": sources.input_size, "OUTPUT_SIZE": sources.output_size}
    if sources.caller_arena is not None:
        names["ARENA_SIZE"] = sources.caller_arena
    settings = "".join(f"{name} := {value}\n" for name, value in names.items())
    return {
        **sources.files,
        **_kit(),
        "model.mk": f"{settings}TARGET ?= {target}\n".encode(),
        "golden/inputs.bin": inputs.astype(np.int8, casting="safe").tobytes(),
        "golden/outputs.bin": outputs.astype(np.int8, casting="safe").tobytes(),
    }


def build(sources: Sources, target: str, folder: Path, opt: str = LEVELS[0], *, roomy: bool = False) -> Firmware:
    """Compile and link ``sources`` for ``target`` with optimisation ``opt``, in ``folder``.

    The same folder may be used for other targets and levels, but not for other sources. ``roomy`` links a bare-metal
    program for a board with memory for any model; it gives the sizes, but cannot be emulated.

    Raises:
        UnknownNameError: no such target or level.
        FitError: the board has too little flash or RAM.
        EmulationError: a tool is missing, or the code does not compile; the message has the compiler's first error.
    """
    if opt not in LEVELS:
        raise UnknownNameError("optimisation", opt, LEVELS)
    _need_tools(target, "build-tools" if roomy else "tools")
    memory = (_ROOMY,) if roomy else ()
    empty = np.zeros((0, 0), np.int8)
    _write(folder, kit_files(sources, empty, empty))
    _make(folder, target, opt, "all", *memory)
    size = Counter[str]()
    printed = _make(folder, target, opt, "size", *memory)
    for section, length in re.findall(r"^\.(\w+)\S* +(\d+)", printed, re.MULTILINE):
        size[section] += int(length)
    return Firmware(
        sources=sources,
        target=target,
        opt=opt,
        folder=folder,
        code=size["text"],
        constants=size["rodata"],
        data=size["data"],
        ram=size["data"] + size["bss"],
    )


def run(firmware: Firmware, inputs: Int8, limit_s: float = 300.0) -> Int8:
    """The outputs ``(n, output_size)`` of the emulated machine for ``inputs`` ``(n, input_size)``.

    Raises:
        EmulationError: the machine faulted, exceeded ``limit_s`` seconds, or returned too few bytes.
    """
    return _emulate(firmware, inputs, [], limit_s)[0]


def count(firmware: Firmware, image: Int8, limit_s: float = 300.0) -> Cost:
    """The cost of one inference of ``image`` ``(input_size,)`` on a bare-metal target.

    The program runs once with one inference and once with two. The difference excludes the start-up; functions of the
    test program are excluded too. The result is deterministic.

    Raises:
        EmulationError: as :func:`run`; the target is a Linux program, or QEMU has no plugins.
    """
    if firmware.target not in BARE:
        raise EmulationError(
            f"instructions are counted on bare-metal targets only, not on {firmware.target}; "
            f"choose from: {', '.join(BARE)}"
        )
    plugin = firmware.elf.parent / "count.so"
    _make(firmware.folder, firmware.target, firmware.opt, str(plugin.relative_to(firmware.folder)))
    symbols = firmware.elf.parent / "symbols.txt"
    _make(firmware.folder, firmware.target, firmware.opt, str(symbols.relative_to(firmware.folder)))
    counts, stack = [], 0
    for inferences in (1, 2):
        with tempfile.NamedTemporaryFile() as out:
            options = ["-plugin", f"{plugin.resolve()},symbols={symbols.resolve()},out={out.name}"]
            _, text = _emulate(firmware, np.repeat(image[np.newaxis], inferences, axis=0), options, limit_s)
            counted = Counter[str]()
            for line in Path(out.name).read_text(encoding="utf-8").splitlines():
                number, name = line.split()
                counted[name] += int(number)  # static functions may share a name
        counts.append(counted)
        stack = int(text.split("stack ")[1].split()[0])
    if not counts[0]:
        raise EmulationError(f"{_emulator(firmware)[0]} did not run the counting plugin; it needs QEMU with plugins")
    one, two = counts
    differences = {name: two[name] - one[name] for name in two if not _is_harness(name)}
    functions = {name: difference for name, difference in differences.items() if difference}
    return Cost(instructions=sum(functions.values()), functions=functions, stack=stack)


def _is_harness(function: str) -> bool:
    return function == "main" or function.startswith("harness_")


def _emulate(firmware: Firmware, inputs: Int8, options: list[str], limit_s: float) -> tuple[Int8, str]:
    """The outputs for ``inputs``, and the printed text of the program. ``options`` are extra arguments for QEMU."""
    sources = firmware.sources
    if inputs.dtype != np.int8 or inputs.ndim != 2 or inputs.shape[1] != sources.input_size:
        raise EmulationError(
            f"the input of {sources.name} must be int8 (n, {sources.input_size}), got {inputs.dtype} {inputs.shape}"
        )
    emulator, *arguments = _emulator(firmware)
    where = f"{sources.name} on {firmware.target}"
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "inputs.bin").write_bytes(inputs.tobytes())
        Path(folder, "outputs.bin").touch()
        command = [emulator, *options, *arguments, str(firmware.elf.resolve())]
        try:
            ended = subprocess.run(
                command, cwd=folder, capture_output=True, text=True, errors="replace", timeout=limit_s,
                stdin=subprocess.DEVNULL, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise EmulationError(f"{where} did not end within {limit_s:g} s; killed") from error
        printed = ended.stdout + ended.stderr
        if ended.returncode:
            raise EmulationError(f"{where} ended with exit status {ended.returncode}: {first_error(printed)}")
        outputs = np.frombuffer(Path(folder, "outputs.bin").read_bytes(), np.int8)
    if outputs.size != len(inputs) * sources.output_size:
        wanted = len(inputs) * sources.output_size
        raise EmulationError(f"{where} returned {outputs.size} bytes, not {wanted}: {first_error(printed)}")
    return outputs.reshape(len(inputs), sources.output_size), printed


def _emulator(firmware: Firmware) -> list[str]:
    return _make(firmware.folder, firmware.target, firmware.opt, "emulator").split()


def _make(folder: Path, target: str, opt: str, goal: str, *settings: str) -> str:
    """Run ``make goal`` with ``settings`` such as "MEMORY=…", and return its output.

    Raises:
        FitError: the linker reports that the board is too small; the message has the missing bytes.
        EmulationError: make failed for another reason.
    """
    command = ["make", "--silent", "--no-print-directory", f"TARGET={target}", f"OPT={opt}", *settings, goal]
    try:
        ended = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, errors="replace", timeout=_BUILD_LIMIT_S, check=False,
            env=_build_environment(),
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise EmulationError(f"building for {target} did not end within {_BUILD_LIMIT_S:g} s; killed") from error
    if ended.returncode:
        if over := dict(re.findall(r"region [`'](\w+)' overflowed by (\d+) bytes", ended.stderr)):
            lacking = " and ".join(f"{int(size):,} bytes of {region}" for region, size in over.items())
            raise FitError(f"the board of {target} lacks {lacking}; choose a larger board or a smaller model")
        raise EmulationError(f"the code does not build for {target} with {opt}: {first_error(ended.stderr)}")
    return ended.stdout


def _build_environment() -> dict[str, str]:
    """The only environment variables for make: others may be settings of the Makefile; messages must be in English."""
    kept = {name: os.environ[name] for name in ("PATH", "TMPDIR") if name in os.environ}
    return {**kept, "LC_ALL": "C"}


def first_error(text: str) -> str:
    """The first line that mentions an error, or else the first line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if re.search(r"error|undefined|fault|fatal", line)]
    return (errors or lines or ["no message"])[0][:300]


def _known(target: str) -> str:
    if target not in TARGETS:
        raise UnknownNameError("target", target, TARGETS)
    return target


def _need_tools(target: str, goal: str = "tools") -> None:
    if missing := missing_tools(target, goal):
        packages = " ".join(dict.fromkeys(_package(tool) for tool in missing))
        raise EmulationError(
            f"{target} needs {', '.join(missing)}, which this machine lacks (Debian: apt install {packages})"
        )


_PACKAGES = {
    "cc": "gcc",
    "make": "make",
    "arm-none-eabi-gcc": "gcc-arm-none-eabi libnewlib-arm-none-eabi",
    "riscv64-unknown-elf-gcc": "gcc-riscv64-unknown-elf picolibc-riscv64-unknown-elf",
    "aarch64-linux-gnu-gcc": "gcc-aarch64-linux-gnu libc6-dev-arm64-cross",
    "arm-linux-gnueabihf-gcc": "gcc-arm-linux-gnueabihf libc6-dev-armhf-cross",
    "powerpc-linux-gnu-gcc": "gcc-powerpc-linux-gnu libc6-dev-powerpc-cross",
    "qemu-system-arm": "qemu-system-arm",
    "qemu-system-riscv32": "qemu-system-misc",
}


def _package(tool: str) -> str:
    """The Debian package, or packages, of ``tool`` and its dependencies."""
    prefix, _, name = tool.rpartition("-")
    beside = f"binutils-{prefix}" if name in ("size", "nm") and prefix else "qemu-user"
    return _PACKAGES.get(tool, "binutils" if tool in ("size", "nm") else beside)


def _kit() -> dict[str, bytes]:
    folder = kits_folder() / "cortex_m"
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.name != "README.md"}


def _write(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write only the files that differ, so that make does not rebuild the others."""
    for name, content in files.items():
        path = folder / name
        if not path.is_file() or path.read_bytes() != content:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
