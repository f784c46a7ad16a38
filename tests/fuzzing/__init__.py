"""Fuzzing of every reader: damaged input gives an answer or an error of ours, within limits, and never anything else.

``harness`` runs examples, ``damage`` has the kinds of damage that several readers share, and the other modules have
the readers. ``tests/fuzz.py`` is the long run, ``tests/test_fuzzing.py`` the first examples of the same.

An example is known by its reader and its number: the number seeds everything random about it, so a fault is seen again
with ``python tests/fuzz.py example READER NUMBER``.
"""

from fuzzing import data, models, records
from fuzzing.harness import Reader


def readers() -> dict[str, Reader]:
    """Every reader by name."""
    modules: tuple[tuple[Reader, ...], ...] = (data.READERS, models.READERS, records.READERS)
    return {reader.name: reader for module in modules for reader in module}
