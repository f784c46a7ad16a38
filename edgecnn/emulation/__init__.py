"""Machines in QEMU that generated code is built for and run on: what it answers, and what it costs."""

from edgecnn.emulation.machine import (
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
)

__all__ = [
    "LEVELS",
    "TARGETS",
    "Cost",
    "Firmware",
    "Sources",
    "build",
    "count",
    "generate",
    "kit_files",
    "missing_tools",
    "run",
]
