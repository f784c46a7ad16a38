"""A folder full of files that a program might run or read by mistake, and that tell when it does."""

import sys
from importlib import metadata
from pathlib import Path

PROGRAMS = (
    "adb", "as", "awk", "cc", "cc1", "collect2", "cp", "env", "gcc", "head", "ld", "make", "mkdir", "nm",
    "nvidia-smi", "pip", "python", "python3", "qemu-aarch64", "qemu-system-arm", "qemu-x86_64", "sh", "size", "ssh",
)  # fmt: skip


def plant(folder: Path) -> Path:
    """Fill ``folder``, and return the file that gets a line for each of them that is run.

    There are a module for every one that Python or an installed package brings, and programs, and makefiles. Charts
    would need LaTeX if matplotlib heeded its settings.
    """
    folder.mkdir(parents=True, exist_ok=True)
    marker = folder / "run.txt"
    modules = {*sys.stdlib_module_names, *metadata.packages_distributions(), "sitecustomize", "usercustomize"}
    for name in filter(str.isidentifier, (*modules, "benchmarks", "export", "tests")):
        code = f"import sys\nwith open({str(marker)!r}, 'a') as file:\n    print({name!r}, sys.orig_argv, file=file)\n"
        (folder / f"{name}.py").write_text(code)
    for name in PROGRAMS:
        (folder / name).write_text(f"#!/bin/sh\necho program {name} >> '{marker}'\nexit 1\n")
        (folder / name).chmod(0o755)
    for name in ("GNUmakefile", "Makefile"):
        (folder / name).write_text(f"$(shell echo {name} >> '{marker}')\n")
    (folder / "matplotlibrc").write_text("text.usetex: True\n")
    return marker
