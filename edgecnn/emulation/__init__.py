"""Generated code on targets emulated by QEMU: its outputs and its costs."""

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
