"""The machine a number was measured on, without anything that names its owner."""

import hashlib
import os
import platform
import re
import shutil
import subprocess
import uuid
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from edgecnn.records import Environment

# CPU features that change which int8 and float kernels a runtime picks: x86 first, then Arm.
_FEATURES = (
    "sse4_1",
    "avx",
    "f16c",
    "fma",
    "avx2",
    "avx_vnni",
    "avx512f",
    "avx512_vnni",
    "avx512_bf16",
    "avx512_fp16",
    "amx_int8",
    "amx_bf16",
    "neon",
    "asimd",
    "asimdhp",
    "asimddp",
    "i8mm",
    "bf16",
    "sve",
    "sve2",
    "sme",
)

_PACKAGES = (
    "edgecnn",
    "numpy",
    "ai-edge-litert",
    "tflite-micro",
    "onnxruntime",
    "keras",
    "tensorflow",
    "jax",
    "torch",
    "tf_keras",
    "tensorflow-model-optimization",
    "onnx",
    "tf2onnx",
)


def environment() -> Environment:
    """This machine and the software on it, as they are now. Nothing heavy is imported to find out.

    ``machine`` is a hash that stays the same on one machine and tells neither its name nor its user. Unknown
    values are ``None``. ``usable_cores`` heeds the affinity of this process and a container's CPU quota.
    """
    cpu, features = parse_cpuinfo(_read(Path("/proc/cpuinfo")) or "")
    cpu = cpu or platform.processor() or None
    cores = os.cpu_count() or 1
    return Environment(
        machine=_fingerprint(cpu, cores),
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        cpu=cpu,
        cpu_features=features,
        cores=cores,
        usable_cores=_usable_cores(cores),
        memory_bytes=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        governor=_governor(),
        load_1min=os.getloadavg()[0],
        python=platform.python_version(),
        versions=_versions(),
        gpu=_gpu(),
    )


def parse_cpuinfo(text: str) -> tuple[str | None, tuple[str, ...]]:
    """Model, where given, and known features from the text of ``/proc/cpuinfo`` on x86 or Arm."""
    model = re.search(r"^(?:model name|Model|Hardware)\s*:\s*(.+?)\s*$", text, re.MULTILINE)
    part = re.search(r"^CPU part\s*:\s*(\S+)", text, re.MULTILINE)
    implementer = re.search(r"^CPU implementer\s*:\s*(\S+)", text, re.MULTILINE)
    flags = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", text, re.MULTILINE)
    present = set(flags[1].split()) if flags else set()
    if model:
        name = model[1]
    elif part and implementer:
        name = f"Arm implementer {implementer[1]} part {part[1]}"
    else:
        name = None
    return name, tuple(feature for feature in _FEATURES if feature in present)


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:  # not this system, or not allowed: unknown
        return None


def _fingerprint(cpu: str | None, cores: int) -> str:
    identity = _read(Path("/etc/machine-id")) or _read(Path("/var/lib/dbus/machine-id"))
    if not identity:
        address = uuid.getnode()
        # uuid makes up an address with the multicast bit set, another each time, where it finds no real one
        identity = "" if address >> 40 & 1 else f"{address:012x}"
    return hashlib.sha256(f"edgecnn|{identity}|{cpu}|{cores}".encode()).hexdigest()[:12]


def _usable_cores(cores: int) -> int:
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else cores
    quota, _, period = (_read(Path("/sys/fs/cgroup/cpu.max")) or "max 1").partition(" ")
    return allowed if quota == "max" else max(1, min(allowed, int(quota) // int(period)))


def _governor() -> str | None:
    """The frequency governor, or all of them where cores differ."""
    paths = Path("/sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq/scaling_governor")
    return ", ".join(sorted({name for path in paths if (name := _read(path))})) or None


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _gpu() -> str | None:
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return None
    command = [tool, "--query-gpu=name", "--format=csv,noheader"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):  # the tool is there and the driver is not
        return None
    return ", ".join(answer.stdout.split("\n")).strip(", ") or None
