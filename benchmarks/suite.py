"""Common settings of the suites with their own file format, read from TOML."""

from collections.abc import Collection, Iterable
from pathlib import Path
from typing import TypeVar

import msgspec

from edgecnn.errors import ConfigError, UnknownNameError
from edgecnn.models import MODELS
from edgecnn.records import Record


class ModelSuite(Record, frozen=True):
    """A suite that measures models, with ranges calibrated on ``images`` training images."""

    models: tuple[str, ...]
    seed: int
    images: int


S = TypeVar("S", bound=ModelSuite)


def read_suite(path: Path, kind: type[S], known: Collection[str] = MODELS) -> S:
    """Read the suite in the TOML file at ``path``; its models are among ``known``.

    Raises:
        ConfigError: invalid TOML, an unknown or missing key, a value of the wrong type, or an unknown model.
    """
    try:
        suite = msgspec.toml.decode(path.read_bytes(), type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{path} is not a valid suite: {error}; the keys are: {', '.join(kind.__struct_fields__)}"
        ) from error
    check_names(path, "model", suite.models, known)
    return suite


def check_names(path: Path, kind: str, names: Iterable[str], known: Collection[str]) -> None:
    """Check that all ``names`` are in ``known``.

    Raises:
        ConfigError: a name is unknown.
    """
    for name in names:
        if name not in known:
            raise ConfigError(f"{path}: {UnknownNameError(kind, name, known)}")
