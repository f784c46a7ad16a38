"""Wheels for a device: edgecnn's own, and what it needs where the device cannot get that itself."""

import base64
import hashlib
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from edgecnn.errors import DeviceError
from edgecnn.files import kits_folder

_DATE = (1980, 1, 1, 0, 0, 0)  # the same code gives the same bytes
# What is written when a wheel is installed and is no part of it.
_INSTALLED = ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json")


def own_wheel(folder: Path) -> Path:
    """Write the edgecnn that is running, installed or in a checkout, as a wheel into ``folder``.

    edgecnn is Python alone, so its files and the metadata it is installed with make up its wheel; the format is that
    of the binary distribution format in the Python Packaging User Guide.

    Raises:
        DeviceError: edgecnn is not installed, so that there is no metadata.
    """
    try:
        installed = metadata.distribution("edgecnn")
    except metadata.PackageNotFoundError as error:
        raise DeviceError(
            "edgecnn is not installed here, so no wheel can be made of it; run: pip install -e ."
        ) from error
    package, info = Path(__file__).parent.parent, f"edgecnn-{installed.version}.dist-info"
    content = {
        f"{place}/{path.relative_to(root).as_posix()}": path.read_bytes()
        for place, root in (("edgecnn", package), ("edgecnn/kits", kits_folder()))
        for path in sorted(root.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }
    for file in installed.files or ():
        if file.parts[0] == info and file.name not in _INSTALLED:
            content[file.as_posix()] = file.read_binary()
    lines = [f"{name},sha256={_digest(data)},{len(data)}\n" for name, data in content.items()]
    content[f"{info}/RECORD"] = "".join([*lines, f"{info}/RECORD,,\n"]).encode()
    wheel = folder / f"edgecnn-{installed.version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in content.items():
            member = zipfile.ZipInfo(name, _DATE)
            member.compress_type = zipfile.ZIP_DEFLATED
            member.external_attr = 0o100644 << 16
            archive.writestr(member, data)
    return wheel


def _digest(data: bytes) -> str:
    """As a RECORD has it: URL-safe base64 without padding."""
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


def download(
    wanted: Sequence[str | Path], folder: Path, *, python: tuple[int, int], machine: str, glibc: tuple[int, int]
) -> list[Path]:
    """Download what ``wanted`` needs on a device with this CPython and glibc into ``folder``; its wheels, all of them.

    ``wanted`` are requirements, or wheels that are here. ``machine`` is the device's, such as ``aarch64``. pip's own
    settings hold: an index, or a folder of wheels.

    Raises:
        DeviceError: pip is not there, or finds no wheels for such a device.
    """
    # A device runs wheels for its glibc and any before (PEP 600); pip wants each of them named.
    platforms = [f"manylinux_2_{minor}_{machine}" for minor in range(glibc[1], 16, -1)]
    command = [sys.executable, "-P", "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input"]
    command += ["--only-binary=:all:", "--implementation", "cp", "--python-version", f"{python[0]}.{python[1]}"]
    for platform in (*platforms, f"manylinux2014_{machine}", f"linux_{machine}"):
        command += ["--platform", platform]
    done = subprocess.run([*command, "--dest", str(folder), *map(str, wanted)], capture_output=True, text=True)
    if done.returncode != 0:
        raise DeviceError(
            f"pip finds no wheels here for Python {python[0]}.{python[1]} on {machine} with glibc "
            f"{glibc[0]}.{glibc[1]}: {_reason(done.stderr.splitlines())}"
        )
    return sorted(folder.glob("*.whl"))


def _reason(lines: Sequence[str]) -> str:
    """The last error among the lines that pip wrote."""
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    return (errors or [*lines, "pip gave no reason"])[-1]
