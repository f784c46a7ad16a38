"""Samples of models with several inputs or outputs, as one array.

Samples ``(n, …)`` of one tensor are a plain array. Those of several tensors are a structured array ``(n,)`` with one
field for each, in order. So code that selects, joins, stores or hashes samples is the same for both.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Samples: TypeAlias = npt.NDArray[Any]


def joined(arrays: Mapping[str, npt.NDArray[Any]]) -> Samples:
    """The samples whose tensors are ``arrays``, each ``(n, …)``, by name."""
    if len(arrays) == 1:
        return next(iter(arrays.values()))
    fields = [(name, array.dtype, array.shape[1:]) for name, array in arrays.items()]
    samples = np.empty(len(next(iter(arrays.values()))), fields)
    for name, array in arrays.items():
        samples[name] = array
    return samples


def parts(samples: Samples) -> list[npt.NDArray[Any]]:
    """The tensors of ``samples``, each ``(n, …)``."""
    names = samples.dtype.names
    return [samples] if names is None else [samples[name] for name in names]


def names(samples: Samples) -> tuple[str, ...]:
    """The names of the tensors; empty if there is one."""
    return samples.dtype.names or ()


def by_name(samples: Samples) -> dict[str, npt.NDArray[Any]]:
    """The tensors ``(n, …)`` by name; empty if there is one."""
    return {name: samples[name] for name in names(samples)}


def shapes(samples: Samples) -> list[tuple[int, ...]]:
    """The shape of a sample in each tensor."""
    return [part.shape[1:] for part in parts(samples)]


def flat(samples: Samples) -> Samples:
    """All values of each sample, ``(n, values)``, those of all tensors one after the other; of one tensor as it is."""
    every = parts(samples)
    return samples if len(every) == 1 else np.concatenate([part.reshape(len(part), -1) for part in every], axis=1)


def unlike(labels: Sequence[str]) -> list[str]:
    """``labels``, made different from each other by a number."""
    found: list[str] = []
    for label in labels:
        others = (f"{label}_{number}" for number in itertools.count(2))
        found.append(label if label not in found else next(other for other in others if other not in found))
    return found
