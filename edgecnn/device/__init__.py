"""Measuring on a remote device: edgecnn is installed there once, a bundle is copied there, results are copied back.

On the device everything is in one folder, ``edgecnn/device`` in ``~/.cache`` (in ``/data/local/tmp`` in an Android
shell): ``venv``, which is used again as long as edgecnn and the device's Python stay the same, and a folder for each
measurement, which is removed after it.
"""

import hashlib
import os
import re
import shlex
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from edgecnn.device.adb import Adb
from edgecnn.device.ssh import Ssh
from edgecnn.device.transport import Transport, attended
from edgecnn.device.wheels import download, own_wheel
from edgecnn.errors import DeviceError
from edgecnn.files import sha256_file
from edgecnn.progress import progress
from edgecnn.records import Record, Report, from_json

__all__ = ["Adb", "Ssh", "bench_on"]

PYTHONS = ((3, 11), (3, 12), (3, 13))

_MARK = "edgecnn-device "
# No single quotes and no backslashes: shells differ in how they quote these.
_PROBE = """
import importlib.util, json, os, platform, sys
shared = "/data/local/tmp"
cache = shared if os.access(shared, os.W_OK) else os.path.expanduser("~/.cache")
libc = platform.libc_ver()
print("edgecnn-device " + json.dumps({
    "python": sys.executable, "version": sys.version_info[:2], "wide": sys.maxsize > 2**32,
    "machine": platform.machine(), "libc": libc[0], "libc_version": libc[1],
    "venv": importlib.util.find_spec("ensurepip") is not None, "folder": os.path.join(cache, "edgecnn", "device"),
}))
"""


class _Python(Record, frozen=True):
    """A Python on the device, and what is around it; ``wide``: of 64 bits, ``folder``: where edgecnn may write."""

    python: str
    version: tuple[int, int]
    wide: bool
    machine: str
    libc: str
    libc_version: str
    venv: bool
    folder: str


def bench_on(transport: Transport, bundle: Path, options: Sequence[str] = ()) -> Report:
    """Measure the bundle at ``bundle`` on a device and return the report that ``edgecnn bench`` wrote there.

    The first time, edgecnn is installed on the device, which needs nothing but Python; without an index there, all
    wheels are brought from here. ``options`` are those of ``edgecnn bench``. What it says on the device is shown on
    stderr. Interrupted, it ends the measurement on the device, too.

    Raises:
        DeviceError: the device cannot be reached or has no Python that serves, or edgecnn cannot be installed or gave
            no results there.
        RecordError: what came back is no report.
    """
    with progress("preparing", 4) as advance:
        advance(0, f"looking for Python on {transport.name}")
        device = _find_python(transport)
        advance(1, f"installing edgecnn on {transport.name}")
        python = _install(transport, device)
        advance(2, f"copying to {transport.name}")
        folder = transport.ask(_new_folder(device.folder)).decode().strip()
        advance(1)
    try:
        transport.put({"bundle.zip": bundle}, folder)
        command = [python, "-P", "-m", "edgecnn", "bench", f"{folder}/bundle.zip", "--out", f"{folder}/results.json"]
        answer = transport.run(attended(device.python, [*_terminal(), *command, *options]), show=True)
        if answer.status not in (0, 1):  # 1 if a row failed, which is a result
            raise DeviceError(f"edgecnn bench ended on {transport.name} with exit status {answer.status}; see above")
        results = transport.get(f"{folder}/results.json")
    finally:
        transport.run(f"rm -rf {shlex.quote(folder)}")
    return from_json(results, Report, f"the result of {transport.name}")


def _find_python(transport: Transport) -> _Python:
    """The first Python there that edgecnn runs on."""
    names = " ".join(["python3", *(f"python{major}.{minor}" for major, minor in reversed(PYTHONS))])
    probe = f'command -v "$python" >/dev/null 2>&1 && "$python" -I -c {shlex.quote(_PROBE)}'
    out = transport.ask(f"for python in {names}; do {probe}; done; true").decode(errors="replace")
    found = [
        from_json(line.removeprefix(_MARK).encode(), _Python, f"the answer of {transport.name}")
        for line in out.splitlines()
        if line.startswith(_MARK)
    ]
    wanted = f"edgecnn needs Python {_dotted(PYTHONS[0])} to {_dotted(PYTHONS[-1])}"
    if not found:
        raise DeviceError(f"{transport.name} has no python3 in its shell's reach; {wanted}; {transport.without_python}")
    fitting = [one for one in found if one.version in PYTHONS]
    if not fitting:
        versions = " and ".join(sorted({_dotted(one.version) for one in found}))
        raise DeviceError(f"{transport.name} has Python {versions}; {wanted}; install one of these beside it")
    device = fitting[0]
    if device.libc != "glibc" or not device.wide:
        what = "32 bits" if not device.wide else f"the C library {device.libc or 'musl or bionic'}"
        raise DeviceError(
            f"the Python of {transport.name} has {what}; LiteRT and ONNX Runtime come as wheels for 64-bit Linux with "
            "glibc; use a 64-bit system, or a glibc Linux inside Android (docs/device.md)"
        )
    if not re.match(r"2\.\d{1,3}(\.|$)", device.libc_version):
        raise DeviceError(
            f"the Python of {transport.name} says that its glibc is {device.libc_version!r}; a version such as 2.36 is "
            "needed to choose wheels; use the Python of the system"
        )
    if not device.venv:
        raise DeviceError(f"the Python of {transport.name} cannot make a venv; on Debian: apt install python3-venv")
    return device


def _install(transport: Transport, device: _Python) -> str:
    """Install edgecnn in the venv on the device, unless this one is there already; the path of its Python."""
    venv, wheels = f"{device.folder}/venv", f"{device.folder}/wheels"
    python = f"{venv}/bin/python"
    with tempfile.TemporaryDirectory() as here:
        wheel = own_wheel(Path(here))
        key = hashlib.sha256(f"{sha256_file(wheel)} {device.python} {device.version}".encode()).hexdigest()[:16]
        mark = f"{venv}/edgecnn-{key}"  # written last, and gone with the venv when that is made anew
        if transport.run(f"test -f {shlex.quote(mark)}").status == 0:
            return python
        transport.ask(f"rm -rf {shlex.quote(wheels)} && mkdir -p {shlex.quote(wheels)}")
        transport.put({wheel.name: wheel}, wheels)
        made = transport.run(attended(device.python, [device.python, "-P", "-m", "venv", "--clear", venv]))
        if made.status != 0:
            raise DeviceError(f"cannot make a venv on {transport.name}: {made.reason}")
        pip = [python, "-P", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"]
        target = f"{wheels}/{wheel.name}"
        if transport.run(attended(device.python, [*pip, "--retries=1", "--timeout=15", target])).status != 0:
            glibc = (2, int(device.libc_version.split(".")[1]))
            found = download([wheel], Path(here), python=device.version, machine=device.machine, glibc=glibc)
            transport.put({path.name: path for path in found}, wheels)
            line = [*pip, "--no-index", "--find-links", wheels, target]
            answer = transport.run(attended(device.python, line))
            if answer.status != 0:
                raise DeviceError(f"cannot install edgecnn on {transport.name}: {answer.reason}")
        transport.ask(f"touch {shlex.quote(mark)} && rm -rf {shlex.quote(wheels)}")
    return python


def _new_folder(parent: str) -> str:
    """A line that makes a folder and prints its path, after removing those that lost connections left days ago."""
    quoted = shlex.quote(parent)
    lost = f'find {quoted} -maxdepth 1 -name "run-*" -mtime +1 -exec rm -rf {{}} +'
    return f"{lost}; mktemp -d {quoted}/run-XXXXXX"


def _terminal() -> list[str]:
    """Before a command on the device: shows its progress as if it had the terminal that is here, if there is one."""
    if not sys.stderr.isatty() or os.environ.get("TERM", "dumb") == "dumb":
        return []
    columns = shutil.get_terminal_size().columns
    return ["env", "FORCE_COLOR=1", f"TERM={os.environ['TERM']}", f"COLUMNS={columns}"]


def _dotted(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))
