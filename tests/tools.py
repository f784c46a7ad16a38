"""What tests need of the system, and what they leave in it."""

import importlib.util
import multiprocessing
import os
import shutil
from typing import Any

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


def workers() -> list[Any]:
    """The processes of this one, without that whose copies open files: it stays."""
    return [process for process in multiprocessing.active_children() if process.pid != forker.process_id]
