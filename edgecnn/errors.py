"""All errors that edgecnn raises deliberately.

EdgecnnError                 exit status 1: one line, no traceback
├── ConfigError              a configuration or argument that cannot be used        (exit status 2)
│   └── UnknownNameError     an unknown scheme, format, runtime or data set         (exit status 2)
├── MissingExtraError        a package of an extra that is not installed
├── OutputError              an output folder or file that cannot be written
├── RecordError              a JSON file that is not a valid record, or inconsistent values
├── DataError                a data set that is missing, damaged or not usable
├── ModelError               a Keras model that cannot be loaded, trained or rebuilt
├── QuantizationError        a model or layer that cannot be quantised
├── AccuracyLossError        quantisation-aware training that lost too much accuracy
├── ExportError              a conversion that failed or has a wrong result
│   └── UnsupportedError     an unsupported combination, with the reason
├── ArtifactError            an exported file that is missing, damaged or does not match its sidecar
├── BundleError              a bundle that cannot be made, is damaged or does not match its manifest
├── DeviceError              a device that cannot be reached, or cannot do what is requested
├── SessionError             a runtime that cannot load or run an artifact
├── EmulationError           code or a model that cannot be built for, or run on, an emulated machine
│   └── FitError             a board with too little flash or RAM
└── BenchError               a measurement that cannot be made
"""

from typing import TYPE_CHECKING

from edgecnn.text import shown

if TYPE_CHECKING:
    from collections.abc import Iterable


class EdgecnnError(Exception):
    """Base class. The message is one line: what was wanted, what was got, what to do next.

    Quoted names and messages are escaped, and the message is limited to 1,000 characters.
    """

    exit_status = 1

    def __init__(self, message: str) -> None:
        super().__init__(shown(message))


class ConfigError(EdgecnnError):
    """A configuration or argument that cannot be used."""

    exit_status = 2


_OTHERS = {
    "model": "or give a .keras file or a SavedModel folder",
    "processor": "QEMU has no AVX-512 and no VNNI, so no processor with them can be emulated",
}


class UnknownNameError(ConfigError):
    """A name that is none of the choices; the message lists them, with a hint for some kinds."""

    def __init__(self, kind: str, name: object, choices: "Iterable[str]") -> None:
        others = f"; {_OTHERS[kind]}" if kind in _OTHERS else ""
        super().__init__(f"unknown {kind} {name!r}; choose from: {', '.join(sorted(choices))}{others}")


class MissingExtraError(EdgecnnError):
    """A package of an optional extra that is not installed; the message names the extra."""


class OutputError(EdgecnnError):
    """An output folder or file that cannot be written."""


class RecordError(EdgecnnError, ValueError):
    """A JSON file that is not a valid record, or inconsistent values.

    It is a ``ValueError`` too, so that msgspec adds the field's path when it decodes.
    """


class DataError(EdgecnnError):
    """A data set that is missing, damaged or not usable."""


class ModelError(EdgecnnError):
    """A Keras model that cannot be loaded, trained or rebuilt."""


class QuantizationError(EdgecnnError):
    """A model or layer that cannot be quantised; names the layer."""


class AccuracyLossError(EdgecnnError):
    """Quantisation-aware training that lost more accuracy than is allowed; names the layer that costs the most."""


class ExportError(EdgecnnError):
    """A conversion that failed or has a wrong result."""


class UnsupportedError(ExportError):
    """An unsupported combination of scheme, format and options, with the reason.

    ``reasons`` are all reasons; the message has the first. ``operator`` is the position in the .tflite of the operator
    that is not supported, if it is one.
    """

    operator: int | None = None

    def __init__(self, reason: str, *more: str) -> None:
        super().__init__(f"{reason} (and {len(more)} more; edgecnn check lists all)" if more else reason)
        self.reasons = tuple(shown(one) for one in (reason, *more))


class ArtifactError(EdgecnnError):
    """An exported file that is missing, damaged or does not match its sidecar."""


class BundleError(EdgecnnError):
    """A bundle that cannot be made, is damaged or does not match its manifest."""


class DeviceError(EdgecnnError):
    """A device that cannot be reached, or cannot do what is requested."""


class SessionError(EdgecnnError):
    """A runtime that cannot load or run an artifact."""


class EmulationError(EdgecnnError):
    """Generated code or a model file that cannot be built for, or run on, an emulated machine."""


class FitError(EmulationError):
    """A board with too little flash or RAM for the program; the message has the missing bytes."""


class BenchError(EdgecnnError):
    """A measurement that cannot be made."""


_LONGEST = 500


def one_line(error: object) -> str:
    """The message of another library's error as one printable line of at most 500 characters."""
    return shown(" ".join(str(error).split()) or type(error).__name__, _LONGEST)
