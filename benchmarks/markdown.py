"""Markdown tables, and descriptions of where a result was measured."""

from collections.abc import Iterable, Sequence

from edgecnn.records import Environment
from edgecnn.report import units
from edgecnn.report.grid import machine


def grid(titles: Sequence[str], rows: Iterable[Sequence[str]], words: int = 1) -> str:
    """A Markdown table; the first ``words`` columns hold text, the others numbers."""
    rule = ["---"] * words + ["---:"] * (len(titles) - words)
    lines = [f"| {' | '.join(titles)} |", f"|{'|'.join(rule)}|"]
    for row in rows:
        assert len(row) == len(titles)
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines)


def measured_on(environment: Environment, how: str = "") -> str:
    """The machine, its number of cores, ``how`` it was used, in brackets, and the versions of all tools."""
    versions = ", ".join(f"{name} {version}" for name, version in sorted(environment.versions.items()))
    cores = units.counted(environment.usable_cores, "core")
    used = f" ({how})" if how else ""
    return f"{machine(environment)}, {cores}{used}, Python {environment.python}, {versions}"


def one_thread(environment: Environment) -> str:
    """How interleaved suites measure, and the load of the machine before."""
    load = "" if environment.load_1min is None else f", load average {environment.load_1min:.1f} before"
    return f"cpu, 1 thread, batch 1{load}"
