"""What tests need of the system, and what they leave in it."""

import importlib.util
import os
import shutil
from pathlib import Path

import pytest

from edgecnn.worker import forker


def need(tool: str) -> None:
    """Skip the test where ``tool`` is not installed, by its name; fail it in CI, where everything is to be there."""
    if shutil.which(tool) is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"{tool} is not installed")


def need_package(name: str) -> None:
    """As ``need``, for a Python package."""
    if importlib.util.find_spec(name) is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"{name} is not installed")


def workers(parent: int) -> list[int]:
    """Worker processes below ``parent``, zombies included; without that whose copies open files, which stays."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            command = (folder / "cmdline").read_bytes()
        except OSError:  # gone in the meantime
            continue
        if int(fields[1]) == parent and (fields[0] == "Z" or b"spawn_main" in command):
            found.append(int(folder.name))
    return [process for process in found if process != forker.process_id]
