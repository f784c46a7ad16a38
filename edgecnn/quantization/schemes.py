"""The one list of quantisation schemes."""

from edgecnn.records import Scheme, SchemeName
from edgecnn.registry import Registry

_SCHEMES = (
    Scheme(name="float32", weights="float32", activations="float32", method="none"),
    Scheme(name="float16", weights="float16", activations="float32", method="ptq"),
    Scheme(name="dynamic-int8", weights="int8", activations="float32", method="ptq"),
    Scheme(name="int8", weights="int8", activations="int8", method="ptq"),
    Scheme(name="int16x8", weights="int8", activations="int16", method="ptq"),
    Scheme(name="int8-qat", weights="int8", activations="int8", method="qat"),
)

SCHEMES: Registry[SchemeName, Scheme] = Registry("scheme", {scheme.name: scheme for scheme in _SCHEMES})


def is_static_int8(scheme: Scheme) -> bool:
    """Whether weights and activations are both int8, so that inputs and outputs can be integers too."""
    return scheme.weights == "int8" and scheme.activations == "int8"


def needs_calibration(scheme: Scheme) -> bool:
    """Whether activation ranges come from training images after training."""
    return scheme.method == "ptq" and scheme.activations != "float32"
