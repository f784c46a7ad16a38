"""Data sets from batches that come one after the other and may be larger than the memory."""

import tempfile
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from edgecnn.data.labels import RawArray, described
from edgecnn.errors import DataError
from edgecnn.progress import working
from edgecnn.samples import joined


def spooled(part: str, batches: Iterable[Any]) -> tuple[RawArray, RawArray]:
    """Samples and labels of all ``batches``, such as those of a tf.data.Dataset or a keras.utils.PyDataset.

    Each batch is a pair of samples ``(n, …)`` and labels ``(n, …)``; several inputs or outputs are dictionaries by
    name, and are returned as fields (see ``edgecnn.samples``). The samples are written to a temporary file and read
    from there when they are needed; the system deletes the file when the process ends.

    Raises:
        DataError: a batch is no such pair, differs from the first one in shape or type, or the disk is full.
    """
    labels: list[RawArray] = []
    with tempfile.TemporaryFile(prefix="edgecnn-") as file, working(f"reading {part} batches"):
        first: RawArray | None = None
        for number, batch in enumerate(_each(batches)):
            if not isinstance(batch, tuple | list) or len(batch) != 2:
                raise DataError(f"{part} batch {number} is not a pair of samples and labels")
            samples, given = (_array(part, number, each) for each in batch)
            first = samples if first is None else first
            if samples.ndim == 0 or (samples.shape[1:], samples.dtype) != (first.shape[1:], first.dtype):
                raise DataError(
                    f"{part} batch {number} has samples {described(samples)}, the first one {described(first)}; all "
                    "batches need one type, and one shape but for their length"
                )
            if labels and labels[0].dtype.names != given.dtype.names:
                raise DataError(f"{part} batch {number} has labels for other outputs than the first one")
            if given.ndim == 0 or len(given) != len(samples):
                raise DataError(f"{part} batch {number} has {len(samples)} samples and labels {described(given)}")
            labels.append(given)
            try:
                file.write(np.ascontiguousarray(samples).data)
            except OSError as error:
                raise DataError(f"cannot keep the {part} samples on disk: {error.strerror}; free some space") from error
        file.flush()
        if first is None or not sum(map(len, labels)):
            raise DataError(f"there are no {part} batches")
        kept = np.memmap(file, first.dtype, mode="r", shape=(sum(map(len, labels)), *first.shape[1:]))
    return kept, np.concatenate(labels)


def _array(part: str, number: int, given: Any) -> RawArray:
    """An array of a batch, or those of several inputs or outputs, which are dictionaries, with a field for each."""
    arrays = {name: np.asarray(each) for name, each in (given if isinstance(given, Mapping) else {"": given}).items()}
    if isinstance(given, Mapping) and len({each.shape[:1] for each in arrays.values()}) != 1:
        raise DataError(f"{part} batch {number} has tensors that differ in their numbers of samples")
    return joined(
        {name: each.astype(np.float32, copy=False) if each.dtype.kind == "f" else each for name, each in arrays.items()}
    )


def _each(batches: Any) -> Iterator[Any]:
    """Each batch once; a PyDataset may be endless for Python."""
    if hasattr(batches, "as_numpy_iterator"):
        yield from batches.as_numpy_iterator()
    elif hasattr(batches, "__getitem__") and hasattr(batches, "__len__"):
        for number in range(len(batches)):
            yield batches[number]
    else:
        yield from batches
