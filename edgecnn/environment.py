"""The measuring machine, without anything that identifies its owner."""

import hashlib
import os
import platform
import shutil
import subprocess
import time
import uuid
from itertools import pairwise
from pathlib import Path
from statistics import median

from edgecnn.optional import installed
from edgecnn.processor import this_processor
from edgecnn.records import Environment

# cgroup version 1 represents "no limit" by the largest multiple of the page size below 2**63.
_NO_LIMIT = 2**62
_READINGS = 1001  # clock readings

_PACKAGES = (
    "edgecnn",
    "numpy",
    "ai-edge-litert",
    "tflite-micro",
    "onnxruntime",
    "openvino",
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
    """The current state of this machine and its software. No large package is imported.

    ``machine`` is a hash that is stable on one machine and reveals neither its name nor its user. Unknown values are
    ``None``. ``usable_cores`` respects the affinity of this process and the container's CPU quota.
    """
    cpu, features = this_processor()
    cpu = cpu or platform.processor() or None
    cores = os.cpu_count() or 1
    return Environment(
        machine=_fingerprint(cpu, cores, features),
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
    """The text at ``path``, stripped, or ``None`` if it is missing or unreadable."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:  # another system, or no permission: unknown
        return None


def _fingerprint(cpu: str | None, cores: int, features: tuple[str, ...]) -> str:
    """A hash of the machine and of what its processor can do: images of one system run on different processors."""
    identity = read(Path("/etc/machine-id")) or read(Path("/var/lib/dbus/machine-id"))
    if not identity:
        address = uuid.getnode()
        # without a real address, uuid returns a random one with the multicast bit set
        identity = "" if address >> 40 & 1 else f"{address:012x}"
    return hashlib.sha256(f"edgecnn|{identity}|{cpu}|{cores}|{features}".encode()).hexdigest()[:12]


def affinity() -> tuple[int, ...]:
    """The cores that this process may use; empty if unknown."""
    return tuple(sorted(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else ()


def usable_cores() -> int:
    """How many cores this process may use at once, by its affinity and the container's CPU quota."""
    allowed, quota = len(affinity()) or os.cpu_count() or 1, cpu_quota()
    return allowed if quota is None else max(1, min(allowed, int(quota)))


def cpu_quota(root: Path = Path("/")) -> float | None:
    """The CPU quota of this process's control groups (version 2 or 1) in cores; ``None`` without a limit."""
    quotas = []
    for group in _groups(root, "cpu"):
        limit = (read(group / "cpu.max") or "").split()  # version 2: "quota period"
        limit = limit or [read(group / f"cpu.cfs_{what}_us") or "" for what in ("quota", "period")]
        if limit[0].isdigit() and limit[1].isdigit():  # "max" or "-1" is no limit
            quotas.append(int(limit[0]) / int(limit[1]))
    return min(quotas, default=None)


def memory_limit(root: Path = Path("/")) -> int | None:
    """The memory limit of this process's control groups (version 2 or 1) in bytes; ``None`` without a limit."""
    limits = []
    for group in _groups(root, "memory"):
        limit = read(group / "memory.max") or read(group / "memory.limit_in_bytes") or ""
        if limit.isdigit() and int(limit) < _NO_LIMIT:
            limits.append(int(limit))
    return min(limits, default=None)


def _groups(root: Path, controller: str) -> list[Path]:
    """Folders of this process's control group and all its parents; each may have a limit."""
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
    """The frequency governor; all of them if cores differ."""
    paths = Path("/sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq/scaling_governor")
    return ", ".join(sorted({name for path in paths if (name := read(path))})) or None


def frequency_hz(cpus: Path = Path("/sys/devices/system/cpu")) -> tuple[int, int] | None:
    """The lowest and highest frequency in Hz that the governor may choose for any core; ``None`` if unknown."""
    lowest, highest = (
        [int(text) * 1000 for path in cpus.glob(f"cpu[0-9]*/cpufreq/scaling_{end}_freq") if (text := read(path))]
        for end in ("min", "max")
    )
    return (min(lowest), max(highest)) if lowest and highest else None


def timer_s() -> float:
    """The shortest measurable time in seconds.

    This is the smallest observed step of the clock, or the median time between two consecutive readings, whichever is
    larger.
    """
    clock = time.perf_counter_ns
    readings = [clock() for _ in range(_READINGS)]
    steps = [after - before for before, after in pairwise(readings)]
    resolution = min((step for step in steps if step > 0), default=0)
    return max(resolution, median(steps), 1) / 1e9


def _versions() -> dict[str, str]:
    return {package: found for package in _PACKAGES if (found := installed(package)) is not None}


def nvidia(query: str) -> list[str]:
    """The answers of nvidia-smi to ``query``, such as "name", one per GPU; empty if it fails or is missing."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    command = [tool, f"--query-gpu={query}", "--format=csv,noheader"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):  # the tool without a working driver
        return []
    return answer.stdout.split("\n")


def _gpu() -> str | None:
    return ", ".join(nvidia("name")).strip(", ") or None
