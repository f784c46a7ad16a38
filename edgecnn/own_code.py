"""Python code of the user's: the modules that ``--custom`` and ``--metric`` name."""

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from edgecnn.errors import ConfigError, one_line


def import_own(name: str, option: str) -> ModuleType:
    """Import a Python module from the current folder, or an installed one, for a command-line ``option``.

    Raises:
        ConfigError: there is no such module, or importing it fails.
    """
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)
    try:
        return importlib.import_module(name)
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and f"{name}.".startswith(f"{error.name}."):
            raise ConfigError(
                f"there is no Python module {name}, neither in the current folder nor installed; {option} takes the "
                "name of a module, such as my_layers for my_layers.py"
            ) from error
        reason = f"{type(error).__name__}: {one_line(error)}"
        raise ConfigError(f"{option} {name} cannot be imported: {reason}") from error


def function_of(place: str, option: str) -> Callable[..., Any]:
    """The function that ``place``, such as "my_metrics:mean_precision", names.

    Raises:
        ConfigError: ``place`` has no colon, or there is no such module or function.
    """
    module, colon, name = place.partition(":")
    if not (module and colon and name):
        raise ConfigError(f"{option} must be module:function, such as my_metrics:mean_precision; got {place!r}")
    found = getattr(import_own(module, option), name, None)
    if not callable(found):
        raise ConfigError(f"the module {module} has no function {name}; check {option} {place}")
    function: Callable[..., Any] = found
    return function
