"""Registries: what they hold, and what the schemes say."""

from typing import Any, get_args

import pytest

from edgecnn.embed import TARGETS
from edgecnn.emulation.processors import PROCESSORS
from edgecnn.errors import UnknownNameError
from edgecnn.formats import FORMATS
from edgecnn.models import MODELS
from edgecnn.quantization.schemes import SCHEMES, is_static_int8, needs_calibration
from edgecnn.records import FormatName, KitTarget, ModelName, ProcessorName, RuntimeName, SchemeName
from edgecnn.registry import Registry
from edgecnn.runtimes import RUNTIMES


def test_schemes_are_found_by_their_own_name() -> None:
    assert all(SCHEMES[name] is scheme and scheme.name == name for name, scheme in SCHEMES.items())


@pytest.mark.parametrize(
    ("registry", "names"),
    [
        (SCHEMES, SchemeName),
        (FORMATS, FormatName),
        (RUNTIMES, RuntimeName),
        (MODELS, ModelName),
        (PROCESSORS, ProcessorName),
        (TARGETS, KitTarget),
    ],
    ids=lambda value: getattr(value, "kind", ""),
)
def test_registries_hold_what_their_names_promise(registry: Registry[str, Any], names: Any) -> None:
    assert tuple(registry) == get_args(names)


def test_an_unknown_scheme_lists_the_known() -> None:
    with pytest.raises(
        UnknownNameError, match="unknown scheme 'int4'; choose from: dynamic-int8, float16, float32, int"
    ):
        SCHEMES["int4"]


def test_integer_input_and_calibration_follow_from_the_types() -> None:
    assert {name for name, scheme in SCHEMES.items() if is_static_int8(scheme)} == {"int8", "int8-qat"}
    assert {name for name, scheme in SCHEMES.items() if needs_calibration(scheme)} == {"int8", "int16x8"}
