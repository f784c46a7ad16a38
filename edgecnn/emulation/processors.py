"""Processors that QEMU emulates, so that a runtime chooses the kernels for them."""

import re
import shutil
import subprocess

import msgspec

from edgecnn.errors import EmulationError
from edgecnn.records import ProcessorName
from edgecnn.registry import Registry

_LIMIT_S = 60.0
_QEMU = (7, 2)  # the first version with AVX2: earlier ones would run the SSE kernels on "haswell"


class Processor(msgspec.Struct, frozen=True, kw_only=True):
    """A processor; ``name`` is edgecnn's name, ``cpu`` is QEMU's.

    ``machine`` is its architecture, as in Python's ``platform.machine()``. ``midr`` is the identification register of
    an Arm processor; libraries read it from /proc/cpuinfo to choose kernels.
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
        stands_for="Arm with i8mm and all other extensions of QEMU except SME",
        machine="aarch64",
        # with SME of QEMU 7.2, int8 convolutions of XNNPACK have wrong results
        cpu="max,sme=off",
        midr=0x000F0510,
    ),
)

PROCESSORS: Registry[ProcessorName, Processor] = Registry(
    "processor", {processor.name: processor for processor in _PROCESSORS}
)


class Emulator(msgspec.Struct, frozen=True):
    """A program that runs programs for another processor, and its version."""

    program: str
    version: str


def emulator_for(machine: str) -> Emulator:
    """QEMU's user-mode emulator for ``machine``.

    Raises:
        EmulationError: it is not installed, or is too old to emulate all processors.
    """
    names = (f"qemu-{machine}", f"qemu-{machine}-static")
    program = next(filter(None, map(shutil.which, names)), None)
    if program is None:
        raise EmulationError(f"{names[0]} is not installed (Debian: apt install qemu-user)")
    printed = version_of(program)
    version = re.search(r"version (\d+)\.(\d+)", printed)
    if version is None or (int(version[1]), int(version[2])) < _QEMU:
        raise EmulationError(
            f"{names[0]} must be QEMU {_QEMU[0]}.{_QEMU[1]} or later (with AVX2), got: {printed}; install a newer QEMU"
        )
    return Emulator(program, printed)


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
        raise EmulationError(f"{program} --version failed: {type(error).__name__}; reinstall {program}") from error
