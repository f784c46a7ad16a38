"""Counters of the system: processor time of all processes, memory of this process, energy of the package.

A counter that is missing or not readable is ``None``, never an estimate.
"""

import os
import re
from pathlib import Path
from typing import NamedTuple

from edgecnn.environment import read

# Columns of /proc/stat that are work: user, nice, system, irq, softirq, and steal (time of other guests of the host).
# The time of guests of this machine is part of user (proc_stat(5)).
_WORK = (0, 1, 2, 5, 6, 7)
_POWERCAP = Path("/sys/class/powercap")
_PACKAGE = re.compile(r"intel-rapl:\d+")


def busy_s(stat: Path = Path("/proc/stat")) -> float | None:
    """Busy seconds of all cores since the machine started, of all processes; in steps of 10 ms."""
    line = (read(stat) or "").partition("\n")[0].split()
    if len(line) < 9 or line[0] != "cpu":
        return None
    return sum(int(line[1 + column]) for column in _WORK) / os.sysconf("SC_CLK_TCK")


def resident_bytes(peak: bool = False, status: Path = Path("/proc/self/status")) -> int | None:
    """Resident memory of this process in bytes: now, or its ``peak``."""
    found = re.search(rf"^{'VmHWM' if peak else 'VmRSS'}:\s+(\d+) kB$", read(status) or "", re.MULTILINE)
    return int(found[1]) * 1024 if found else None


class Joules(NamedTuple):
    """A reading of RAPL's energy counters, one per package: microjoules, and the value at which they wrap to 0."""

    readings: dict[str, tuple[int, int]]

    @property
    def counter(self) -> str:
        """The names of the counters."""
        return ", ".join(self.readings)

    def since(self, before: "Joules") -> float:
        """Joules between ``before`` and now; a counter may have wrapped once."""
        total = 0
        for name, (now, full) in self.readings.items():
            taken = now - before.readings[name][0]
            total += taken if taken >= 0 else taken + full
        return total / 1e6


def joules(powercap: Path = _POWERCAP) -> Joules | None:
    """A reading of RAPL's counters of all packages (Linux powercap); ``None`` if one is missing or unreadable."""
    readings = {}
    for zone in sorted(powercap.glob("intel-rapl:*")):
        if _PACKAGE.fullmatch(zone.name):
            now, full = read(zone / "energy_uj"), read(zone / "max_energy_range_uj")
            if not now or not full:  # since Linux 5.10 only root may read them
                return None
            readings[f"{zone.name} ({read(zone / 'name')})"] = (int(now), int(full))
    return Joules(readings) if readings else None
