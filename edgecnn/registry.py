"""Registries: objects by name."""

from collections.abc import Mapping
from typing import TypeVar, cast

from edgecnn.errors import UnknownNameError

N = TypeVar("N", bound=str)
T = TypeVar("T")


class Registry(dict[N, T]):
    """The objects of a ``kind``, by name."""

    def __init__(self, kind: str, members: Mapping[N, T]) -> None:
        super().__init__(members)
        self.kind = kind

    def __getitem__(self, name: str) -> T:
        """The object called ``name``.

        Raises:
            UnknownNameError: there is none; the message lists the choices.
        """
        if name not in self:
            raise UnknownNameError(self.kind, name, self)
        return super().__getitem__(cast(N, name))
