"""The exceptions: one tree, one line each, and the exit status of the command."""

import re

import pytest

from edgecnn import errors
from edgecnn.errors import ConfigError, EdgecnnError, ExportError, UnknownNameError, UnsupportedError


def every_error() -> list[type[EdgecnnError]]:
    return [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, EdgecnnError)]


def test_the_tree_drawn_in_the_module_is_the_tree() -> None:
    drawn: dict[str, str] = {}
    stack: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"([│├└─ ]*)(\w+Error)\b", line)
        if not found:
            continue
        depth, name = len(found[1]), found[2]
        while stack and stack[-1][0] >= depth:
            stack.pop()
        drawn[name] = stack[-1][1] if stack else "Exception"
        stack.append((depth, name))
    assert drawn == {kind.__name__: kind.__bases__[0].__name__ for kind in every_error()}


@pytest.mark.parametrize("kind", every_error())
def test_exit_status_is_2_for_wrong_usage_and_1_for_the_rest(kind: type[EdgecnnError]) -> None:
    assert kind.exit_status == (2 if issubclass(kind, ConfigError) else 1)


def test_an_unknown_name_lists_the_choices_in_order() -> None:
    error = UnknownNameError("scheme", "int4", {"int8": 1, "float32": 2})
    assert str(error) == "unknown scheme 'int4'; choose from: float32, int8"


def test_a_combination_without_sense_is_a_failed_export() -> None:
    assert issubclass(UnsupportedError, ExportError)
