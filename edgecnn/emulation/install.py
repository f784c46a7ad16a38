"""A Python with the runtimes for another architecture, in the cache folder; the system is not changed.

It is unpacked from packages of this system's distribution, whose signatures apt checks, and from wheels. With QEMU's
option -L, emulated programs find its files before those of this system.
"""

import os
import platform
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

import msgspec

from edgecnn.device.wheels import download
from edgecnn.emulation.processors import Processor, emulator_for
from edgecnn.errors import DeviceError, EmulationError, RecordError
from edgecnn.files import cache_folder, locked, make_cache_folder, make_folder, sha256_file, write_atomic
from edgecnn.progress import progress
from edgecnn.records import EmulatedPython, read_record, to_json

RUNTIMES = ("ai-edge-litert", "onnxruntime")
"""The packages that must have the same versions as in this environment."""

ENVIRONMENT = {"ORT_DISABLE_TELEMETRY": "1"}
"""The only environment variables of emulated processes: others may be settings for this machine's processor."""

_PACKAGES = ("python3-minimal", "libpython3-stdlib", "libstdc++6")
_ARCHITECTURES = {"aarch64": "arm64", "x86_64": "amd64"}  # Debian's names
_SITE = "usr/lib/python3/dist-packages"  # on the module path of Debian's Python
_HOOKS = ("Pre-Invoke", "Post-Invoke", "Post-Invoke-Success")
_LIMIT_S = 600.0


class Interpreter(msgspec.Struct, frozen=True):
    """A Python to emulate: its program, its system folder (``None``: this system), the versions of its runtimes."""

    program: Path
    system: Path | None
    versions: Mapping[str, str]


def versions_here() -> dict[str, str]:
    """The versions of the runtimes in this environment."""
    return {name: metadata.version(name) for name in RUNTIMES}


def interpreter_for(processor: Processor) -> Interpreter:
    """The Python for ``processor``: this one if the architecture is the same, else the installed one.

    Raises:
        EmulationError: none is installed; the message has the command to install it.
    """
    if processor.machine == platform.machine():
        return Interpreter(Path(sys.executable), None, versions_here())
    record = installed(processor.machine)
    if record is None:
        raise EmulationError(
            f"{processor.name} needs a Python for {processor.machine}, which is not installed; "
            f"run: edgecnn emulate --install {processor.name}"
        )
    system = _folder(processor.machine)
    return Interpreter(system / "usr" / "bin" / f"python{record.python}", system, record.versions)


def installed(machine: str) -> EmulatedPython | None:
    """The record of the Python installed for ``machine``, if there is one."""
    path = _folder(machine) / "python.json"
    try:
        return read_record(path, EmulatedPython)
    except RecordError:  # missing, or from another version of edgecnn, which requires a new installation
        return None


def install(processor: Processor) -> EmulatedPython | None:
    """Install the Python for ``processor``, unless it is installed with this environment's versions of the runtimes.

    Returns ``None`` if this Python is sufficient. After an interruption, existing downloads are reused.

    Raises:
        EmulationError: QEMU or apt is missing, packages or wheels are not available, or the Python does not work.
        OutputError: the cache folder is not writable.
    """
    emulator = emulator_for(processor.machine).program
    if processor.machine == platform.machine():
        return None
    folder = make_cache_folder(_folder(processor.machine).parent)
    with locked(folder), progress(f"install Python for {processor.machine}", 4) as advance:
        record = installed(processor.machine)
        if record is not None and record.versions == versions_here():
            return record
        downloads, partial = folder / f"{processor.machine}-downloads", folder / f".{processor.machine}.partial"
        advance(0, "packages")
        packages = _download_packages(processor.machine, downloads)
        shutil.rmtree(partial, ignore_errors=True)
        for package in packages:
            _run(["dpkg-deb", "--extract", str(package), str(partial)], f"cannot unpack {package.name}")
        advance(1, "wheels")
        python = (partial / "usr/bin/python3").readlink().name.removeprefix("python")
        wheels = _download_wheels(processor.machine, downloads / "wheels", python, packages)
        for wheel in wheels:
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(partial / _SITE)
        advance(1, "try it")
        _try(emulator, processor, Interpreter(partial / f"usr/bin/python{python}", partial, versions_here()))
        advance(1, "keep it")
        record = EmulatedPython(
            machine=processor.machine,
            python=python,
            versions=versions_here(),
            files={path.name: sha256_file(path) for path in (*packages, *wheels)},
        )
        write_atomic(partial / "python.json", to_json(record))
        shutil.rmtree(_folder(processor.machine), ignore_errors=True)
        partial.rename(_folder(processor.machine))
        shutil.rmtree(downloads)
        advance()
    return record


def system_for(processor: Processor, interpreter: Interpreter, folder: Path) -> Path:
    """Prepare ``folder`` for QEMU's option -L: files that emulated programs find before those of this system.

    These are the interpreter's system and, for an Arm processor, its description by Linux: with this machine's
    description, libraries would choose kernels for the wrong processor or crash.
    """
    make_folder(folder)
    if interpreter.system is not None:
        for name in ("etc", "lib", "lib64", "usr"):
            # packages do not contain /lib if it is a link to /usr/lib
            found = next((path for path in (name, f"usr/{name}") if (interpreter.system / path).is_dir()), None)
            if found is not None:
                (folder / name).symlink_to(interpreter.system / found)
    if processor.midr is not None:
        midr, cores = processor.midr, make_folder(folder / "sys/devices/system/cpu")
        (make_folder(folder / "proc") / "cpuinfo").write_text(
            f"processor\t: 0\nCPU implementer\t: 0x{midr >> 24:02x}\nCPU architecture: 8\n"
            f"CPU variant\t: 0x{midr >> 20 & 15:x}\nCPU part\t: 0x{midr >> 4 & 0xFFF:03x}\n"
            f"CPU revision\t: {midr & 15}\n\n"
        )
        for name in ("possible", "present"):
            (cores / name).write_text("0\n")
    return folder


def _folder(machine: str) -> Path:
    return cache_folder() / "emulated" / machine


def _download_packages(machine: str, folder: Path) -> list[Path]:
    """Download the Debian packages of Python and their dependencies, by this system's apt with separate lists."""
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        raise EmulationError(
            f"installing a Python for {machine} needs apt-get and dpkg-deb, which are missing; use Debian or Ubuntu"
        )
    archives = folder / "packages"
    for place in (folder / "lists" / "partial", archives / "partial"):
        make_folder(place)
    (folder / "status").touch()  # no packages are installed
    hooks = folder / "hooks.conf"  # disables this system's hooks, which would use its own lists
    hooks.write_text("".join(f"#clear APT::Update::{when};\n" for when in _HOOKS))
    settings = {
        "APT::Architecture": _ARCHITECTURES[machine],
        "APT::Architectures": _ARCHITECTURES[machine],
        "APT::Install-Recommends": "false",
        "APT::Sandbox::User": "",
        "Acquire::Languages": "none",
        "Dir::Cache": str(folder),
        "Dir::Cache::archives": str(archives),
        "Dir::State::lists": str(folder / "lists"),
        "Dir::State::status": str(folder / "status"),
    }
    options = [f"--option={key}={value}" for key, value in settings.items()]
    apt = ["apt-get", "--quiet", f"--config-file={hooks}", *options]
    reason = f"apt has no {' '.join(_PACKAGES)} for {_ARCHITECTURES[machine]} here"
    _run([*apt, "update"], reason)
    _run([*apt, "--yes", "--download-only", "install", *_PACKAGES], reason)
    _run([*apt, "autoclean"], reason)  # removes earlier versions
    return sorted(archives.glob("*.deb"))


def _download_wheels(machine: str, folder: Path, python: str, packages: list[Path]) -> list[Path]:
    """Download the wheels of numpy, the runtimes and their dependencies."""
    glibc = next(re.match(r"libc6_(\d+)\.(\d+)", path.name) for path in packages if path.name.startswith("libc6_"))
    assert glibc is not None  # packages are called name_version_architecture.deb
    major, minor = python.split(".")
    shutil.rmtree(folder, ignore_errors=True)
    try:
        return download(
            ["numpy", *(f"{name}=={version}" for name, version in versions_here().items())],
            make_folder(folder),
            python=(int(major), int(minor)),
            machine=machine,
            glibc=(int(glibc[1]), int(glibc[2])),
        )
    except DeviceError as error:
        raise EmulationError(str(error)) from error


def _try(emulator: str, processor: Processor, interpreter: Interpreter) -> None:
    """Import the runtimes, which also compiles their modules for later runs."""
    folder = interpreter.program.parents[2] / ".try"
    system = system_for(processor, interpreter, folder)
    code = "import ai_edge_litert.interpreter, onnxruntime"
    command = [emulator, "-cpu", processor.cpu, "-L", str(system), str(interpreter.program), "-I", "-c", code]
    _run(command, f"the Python for {processor.machine} does not work on {processor.name}", ENVIRONMENT)
    shutil.rmtree(folder)


def _run(command: list[str], what: str, environment: Mapping[str, str] = os.environ) -> None:
    """Run ``command``; error messages begin with ``what``."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL, timeout=_LIMIT_S,
            env={**environment, "LC_ALL": "C"}, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise EmulationError(f"{what}: {command[0]} did not end within {_LIMIT_S:g} s") from error
    if done.returncode:
        raise EmulationError(f"{what}: {gist(done.stderr) or f'{command[0]} ended with status {done.returncode}'}")


def gist(text: str) -> str:
    """The last line of a program's stderr that is not a warning, without URLs, which may name a private index."""
    lines = [line.strip() for line in text.splitlines() if line.strip() and "warning:" not in line and line[:2] != "W:"]
    return re.sub(r"\S*://\S+", "…", lines[-1])[:300] if lines else ""
