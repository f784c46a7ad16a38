"""Every error edgecnn raises on purpose.

EdgecnnError                 exit status 1: one clear line, no traceback
├── ConfigError              a configuration or argument that cannot be used        (exit status 2)
│   └── UnknownNameError     a scheme, format, runtime or data set that is not one  (exit status 2)
├── MissingExtraError        a package of an extra that is not installed
├── OutputError              an output folder or file that cannot be written
├── RecordError              a JSON file that is not the record it should be, or values that make no record
├── DataError                a data set that is missing, damaged or not usable
├── ModelError               a Keras model that cannot be loaded, trained or rebuilt
├── QuantizationError        a model or layer that cannot be quantised
├── ExportError              a conversion that failed or gave something else than asked for
│   └── UnsupportedError     an unsupported combination, with the reason
├── ArtifactError            an exported file that is missing, damaged or not what its sidecar says
├── BundleError              a bundle that cannot be made, or that is damaged or not what its manifest says
├── DeviceError              a device that cannot be reached, or cannot do what was asked of it
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

    It may quote names and messages of others: here they become one line that prints, of at most 1,000 characters.
    """

    exit_status = 1

    def __init__(self, message: str) -> None:
        super().__init__(shown(message))


class ConfigError(EdgecnnError):
    """A configuration or argument that cannot be used."""

    exit_status = 2


_OTHERS = {
    "model": "or give a .keras file",
    "processor": "QEMU has no AVX-512 and no VNNI, so no processor with them can be emulated",
}


class UnknownNameError(ConfigError):
    """A name that is none of the choices; the message lists them, and says what else there is or why there is not."""

    def __init__(self, kind: str, name: object, choices: "Iterable[str]") -> None:
        others = f"; {_OTHERS[kind]}" if kind in _OTHERS else ""
        super().__init__(f"unknown {kind} {name!r}; choose from: {', '.join(sorted(choices))}{others}")


class MissingExtraError(EdgecnnError):
    """A package of an optional extra that is not installed; the message names the extra."""


class OutputError(EdgecnnError):
    """An output folder or file that cannot be written."""


class RecordError(EdgecnnError, ValueError):
    """A JSON file that is not the record it should be, or values that make no record.

    A ``ValueError`` as well, to which msgspec adds the field's path when it decodes.
    """


class DataError(EdgecnnError):
    """A data set that is missing, damaged or not usable."""


class ModelError(EdgecnnError):
    """A Keras model that cannot be loaded, trained or rebuilt."""


class QuantizationError(EdgecnnError):
    """A model or layer that cannot be quantised; names the layer."""


class ExportError(EdgecnnError):
    """A conversion that failed or gave something else than was asked for."""


class UnsupportedError(ExportError):
    """An unsupported combination of scheme, format and options, with the reason."""


class ArtifactError(EdgecnnError):
    """An exported file that is missing, damaged or not what its sidecar says."""


class BundleError(EdgecnnError):
    """A bundle that cannot be made, or one that is damaged or not what its manifest says."""


class DeviceError(EdgecnnError):
    """A device that cannot be reached, or cannot do what was asked of it."""


class SessionError(EdgecnnError):
    """A runtime that cannot load or run an artifact."""


class EmulationError(EdgecnnError):
    """Generated code or a model file that cannot be built for, or run on, an emulated machine."""


class FitError(EmulationError):
    """A board with too little flash or RAM for the program; says by how much."""


class BenchError(EdgecnnError):
    """A measurement that cannot be made."""


_LONGEST = 500


def one_line(said: object) -> str:
    """What another library says, fit to stand in an error of ours: one printable line of at most 500 characters."""
    return shown(" ".join(str(said).split()) or type(said).__name__, _LONGEST)
