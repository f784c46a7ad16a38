"""What the system counts: processor time of everybody, memory of this process, energy of the package.

Where a counter is not there or may not be read, the answer is ``None``, never an estimate.
"""

import os
import re
from pathlib import Path
from typing import NamedTuple

from edgecnn.environment import read

# Columns of /proc/stat that are work: user, nice, system, irq, softirq, and steal, which other guests took. Guests of
# this machine are in user already (proc_stat(5)).
_WORK = (0, 1, 2, 5, 6, 7)
_POWERCAP = Path("/sys/class/powercap")
_PACKAGE = re.compile(r"intel-rapl:\d+")


def busy_s(stat: Path = Path("/proc/stat")) -> float | None:
    """Seconds that all cores together have worked since the machine started, for whomever; steps of 10 ms."""
    line = (read(stat) or "").partition("\n")[0].split()
    if len(line) < 9 or line[0] != "cpu":
        return None
    return sum(int(line[1 + column]) for column in _WORK) / os.sysconf("SC_CLK_TCK")


def resident_bytes(peak: bool = False, status: Path = Path("/proc/self/status")) -> int | None:
    """Bytes of memory of this process that are in RAM now, or were at most."""
    found = re.search(rf"^{'VmHWM' if peak else 'VmRSS'}:\s+(\d+) kB$", read(status) or "", re.MULTILINE)
    return int(found[1]) * 1024 if found else None


class Joules(NamedTuple):
    """A reading of RAPL's energy counters, one for each package: microjoules, and where they start again at 0."""

    readings: dict[str, tuple[int, int]]

    @property
    def counter(self) -> str:
        """Their names."""
        return ", ".join(self.readings)

    def since(self, before: "Joules") -> float:
        """Joules between ``before`` and now; a counter that has started again since was full once."""
        total = 0
        for name, (now, full) in self.readings.items():
            taken = now - before.readings[name][0]
            total += taken if taken >= 0 else taken + full
        return total / 1e6


def joules(powercap: Path = _POWERCAP) -> Joules | None:
    """RAPL's counters of all processor packages now (Linux powercap), ``None`` where one cannot be read."""
    readings = {}
    for zone in sorted(powercap.glob("intel-rapl:*")):
        if _PACKAGE.fullmatch(zone.name):
            now, full = read(zone / "energy_uj"), read(zone / "max_energy_range_uj")
            if not now or not full:  # since Linux 5.10 only root may read them
                return None
            readings[f"{zone.name} ({read(zone / 'name')})"] = (int(now), int(full))
    return Joules(readings) if readings else None
