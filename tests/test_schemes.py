"""The one list of schemes."""

import pytest

from edgecnn.errors import UnknownNameError
from edgecnn.quantization.schemes import SCHEMES, is_static_int8, needs_calibration, scheme_named


def test_schemes_are_found_by_their_own_name() -> None:
    assert all(scheme_named(name) is scheme and scheme.name == name for name, scheme in SCHEMES.items())


def test_an_unknown_scheme_lists_the_known() -> None:
    with pytest.raises(
        UnknownNameError, match="unknown scheme 'int4'; choose from: dynamic-int8, float16, float32, int"
    ):
        scheme_named("int4")


def test_integer_input_and_calibration_follow_from_the_types() -> None:
    assert {name for name, scheme in SCHEMES.items() if is_static_int8(scheme)} == {"int8", "int8-qat"}
    assert {name for name, scheme in SCHEMES.items() if needs_calibration(scheme)} == {"int8", "int16x8"}
