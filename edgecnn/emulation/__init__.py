"""Machines in QEMU that generated code is built for and run on: what it answers, and what it costs."""

from edgecnn.emulation.costs import costs
from edgecnn.emulation.machine import (
    BARE,
    LEVELS,
    TARGETS,
    Cost,
    Firmware,
    Sources,
    build,
    count,
    generate,
    kit_files,
    missing_tools,
    run,
    sources_of,
)

__all__ = [
    "BARE",
    "LEVELS",
    "TARGETS",
    "Cost",
    "Firmware",
    "Sources",
    "build",
    "costs",
    "count",
    "generate",
    "kit_files",
    "missing_tools",
    "run",
    "sources_of",
]
