"""The machine a number was measured on, without anything that names its owner."""

import hashlib
import os
import platform
import shutil
import subprocess
import time
import uuid
from importlib.metadata import PackageNotFoundError, version
from itertools import pairwise
from pathlib import Path
from statistics import median

from edgecnn.processor import this_processor
from edgecnn.records import Environment

# Version 1 says "no limit" with the largest multiple of a page that fits in 63 bits.
_NO_LIMIT = 2**62
_READINGS = 1001  # of the clock

_PACKAGES = (
    "edgecnn",
    "numpy",
    "ai-edge-litert",
    "tflite-micro",
    "onnxruntime",
    "tflite-micro",
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
    cpu, features = this_processor()
    cpu = cpu or platform.processor() or None
    cores = os.cpu_count() or 1
    return Environment(
        machine=_fingerprint(cpu, cores),
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        cpu=cpu,
        cpu_features=features,
        cores=cores,
        usable_cores=usable_cores(),
        memory_bytes=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        governor=_governor(),
        load_1min=os.getloadavg()[0],
        python=platform.python_version(),
        versions=_versions(),
        gpu=_gpu(),
        affinity=affinity(),
        cpu_quota=cpu_quota(),
        memory_limit_bytes=memory_limit(),
        frequency_hz=frequency_hz(),
        timer_s=timer_s(),
    )


def read(path: Path) -> str | None:
    """The text at ``path``, stripped, or ``None`` where there is none or it may not be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:  # not this system, or not allowed: unknown
        return None


def _fingerprint(cpu: str | None, cores: int) -> str:
    identity = read(Path("/etc/machine-id")) or read(Path("/var/lib/dbus/machine-id"))
    if not identity:
        address = uuid.getnode()
        # uuid makes up an address with the multicast bit set, another each time, where it finds no real one
        identity = "" if address >> 40 & 1 else f"{address:012x}"
    return hashlib.sha256(f"edgecnn|{identity}|{cpu}|{cores}".encode()).hexdigest()[:12]


def affinity() -> tuple[int, ...]:
    """The cores that this process may use, none where the system does not tell."""
    return tuple(sorted(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else ()


def usable_cores() -> int:
    """How many cores this process may use at once, by its affinity and a container's CPU quota."""
    allowed, quota = len(affinity()) or os.cpu_count() or 1, cpu_quota()
    return allowed if quota is None else max(1, min(allowed, int(quota)))


def cpu_quota(root: Path = Path("/")) -> float | None:
    """Cores' worth of time that this process's control groups (version 2 or 1) may take, ``None`` without a limit."""
    quotas = []
    for group in _groups(root, "cpu"):
        limit = (read(group / "cpu.max") or "").split()  # version 2: "quota period"
        limit = limit or [read(group / f"cpu.cfs_{what}_us") or "" for what in ("quota", "period")]
        if limit[0].isdigit() and limit[1].isdigit():  # "max" or "-1" is no limit
            quotas.append(int(limit[0]) / int(limit[1]))
    return min(quotas, default=None)


def memory_limit(root: Path = Path("/")) -> int | None:
    """Bytes of memory that this process's control groups (version 2 or 1) may take, ``None`` without a limit."""
    limits = []
    for group in _groups(root, "memory"):
        limit = read(group / "memory.max") or read(group / "memory.limit_in_bytes") or ""
        if limit.isdigit() and int(limit) < _NO_LIMIT:
            limits.append(int(limit))
    return min(limits, default=None)


def _groups(root: Path, controller: str) -> list[Path]:
    """Folders of the control groups this process is in, from its own up to the top: each may have a limit."""
    found = []
    for line in (read(root / "proc/self/cgroup") or "").split("\n"):
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and controller not in controllers.split(","):
            continue
        for mount in (controllers, controller) if controllers else ("", "unified"):
            top = root / "sys/fs/cgroup" / mount
            group = top / path.lstrip("/")
            found += [group, *(parent for parent in group.parents if parent == top or top in parent.parents)]
    return found


def _governor() -> str | None:
    """The frequency governor, or all of them where cores differ."""
    paths = Path("/sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq/scaling_governor")
    return ", ".join(sorted({name for path in paths if (name := read(path))})) or None


def frequency_hz(cpus: Path = Path("/sys/devices/system/cpu")) -> tuple[int, int] | None:
    """The lowest and highest frequency that a governor may choose for any core."""
    lowest, highest = (
        [int(text) * 1000 for path in cpus.glob(f"cpu[0-9]*/cpufreq/scaling_{end}_freq") if (text := read(path))]
        for end in ("min", "max")
    )
    return (min(lowest), max(highest)) if lowest and highest else None


def timer_s() -> float:
    """The shortest time in seconds that the clock tells from nothing.

    That is its resolution, the smallest step it was seen to make, or the median of two readings with nothing between
    them, whichever is more.
    """
    clock = time.perf_counter_ns
    readings = [clock() for _ in range(_READINGS)]
    steps = [after - before for before, after in pairwise(readings)]
    resolution = min((step for step in steps if step > 0), default=0)
    return max(resolution, median(steps), 1) / 1e9


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def nvidia(query: str) -> list[str]:
    """What nvidia-smi answers to ``query``, such as "name", for each GPU; nothing where it does not tell."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    command = [tool, f"--query-gpu={query}", "--format=csv,noheader"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):  # the tool is there and the driver is not
        return []
    return answer.stdout.split("\n")


def _gpu() -> str | None:
    return ", ".join(nvidia("name")).strip(", ") or None
