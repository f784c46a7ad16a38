"""Processors that QEMU stands in for, instruction by instruction, so that a runtime chooses its kernels for them."""

import re
import shutil
import subprocess

import msgspec

from edgecnn.errors import EmulationError
from edgecnn.records import ProcessorName
from edgecnn.registry import Registry

_LIMIT_S = 60.0
_QEMU = (7, 2)  # the first that has AVX2: one before it would run the SSE kernels as "haswell"


class Processor(msgspec.Struct, frozen=True, kw_only=True):
    """A processor by the name that edgecnn gives it; ``cpu`` is QEMU's.

    ``machine`` is its architecture, as Python's ``platform.machine()`` says it. ``midr`` is the number that an Arm
    processor identifies itself with: libraries read it from /proc/cpuinfo and choose kernels by it.
    """

    name: ProcessorName
    stands_for: str
    machine: str
    cpu: str
    midr: int | None = None


_PROCESSORS = (
    Processor(name="nehalem", stands_for="x86 with SSE4.2, from 2008", machine="x86_64", cpu="Nehalem"),
    Processor(name="haswell", stands_for="x86 with AVX2, from 2013", machine="x86_64", cpu="Haswell"),
    Processor(name="cortex-a53", stands_for="Raspberry Pi 3", machine="aarch64", cpu="cortex-a53", midr=0x410FD034),
    Processor(name="cortex-a72", stands_for="Raspberry Pi 4", machine="aarch64", cpu="cortex-a72", midr=0x410FD083),
    Processor(
        name="cortex-a76",
        stands_for="Raspberry Pi 5, with dot products",
        machine="aarch64",
        cpu="cortex-a76",
        midr=0x414FD0B1,
    ),
    Processor(
        name="arm-max",
        stands_for="Arm with i8mm and all other extensions that QEMU has, but for SME",
        machine="aarch64",
        # with QEMU 7.2's SME the int8 convolutions of XNNPACK answer nonsense; without, they are right
        cpu="max,sme=off",
        midr=0x000F0510,
    ),
)

PROCESSORS: Registry[ProcessorName, Processor] = Registry(
    "processor", {processor.name: processor for processor in _PROCESSORS}
)


class Emulator(msgspec.Struct, frozen=True):
    """A program that runs programs for another processor, and what it says of itself."""

    program: str
    version: str


def emulator_for(machine: str) -> Emulator:
    """QEMU's user emulation of ``machine``.

    Raises:
        EmulationError: it is not installed, or is too old to emulate every processor.
    """
    names = (f"qemu-{machine}", f"qemu-{machine}-static")
    program = next(filter(None, map(shutil.which, names)), None)
    if program is None:
        raise EmulationError(f"{names[0]} is not installed (Debian: apt install qemu-user)")
    said = version_of(program)
    version = re.search(r"version (\d+)\.(\d+)", said)
    if version is None or (int(version[1]), int(version[2])) < _QEMU:
        raise EmulationError(f"{names[0]} must be of QEMU {_QEMU[0]}.{_QEMU[1]} or later, with AVX2; it is: {said}")
    return Emulator(program, said)


def version_of(program: str) -> str:
    """The first line that ``program --version`` prints.

    Raises:
        EmulationError: it prints none.
    """
    try:
        done = subprocess.run(
            [program, "--version"], capture_output=True, text=True, errors="replace", timeout=_LIMIT_S, check=True
        )
        return done.stdout.splitlines()[0]
    except (OSError, subprocess.SubprocessError, IndexError) as error:
        raise EmulationError(f"{program} does not tell its version: {type(error).__name__}; install it anew") from error
