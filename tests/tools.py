"""Compilers and the like that tests need."""

import os
import shutil

import pytest


def need(tool: str) -> None:
    """Skip the test where ``tool`` is not installed, by its name; fail it in CI, where everything is to be there."""
    if shutil.which(tool) is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"{tool} is not installed")
