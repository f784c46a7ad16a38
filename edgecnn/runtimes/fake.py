"""The fake runtime: a model file that defines its run time and its failures, for tests and dry runs.

A ``.fake`` file is the JSON form of a :class:`FakeModel`.
"""

import os
import random
import signal
import time
from pathlib import Path

import numpy as np

from edgecnn.errors import SessionError
from edgecnn.records import Record, TensorSpec, read_record
from edgecnn.runtimes import Float
from edgecnn.samples import Samples


class FakeModel(Record, frozen=True):
    """The content of a ``.fake`` file.

    An invocation sleeps ``delay_s`` plus a random share of ``jitter_s``, both in seconds; without them it does
    nothing, so its measured time is the timing overhead. The ``…_after`` fields make the model fail after that many
    successful invocations (0: at the first one): die of SIGSEGV, hang, raise RuntimeError, or allocate memory until
    there is none left. ``fixed_batch`` is the only supported batch, if set.
    """

    input_shape: tuple[int, int, int]
    classes: int
    delay_s: float = 0.0
    jitter_s: float = 0.0
    crash_after: int | None = None
    hang_after: int | None = None
    raise_after: int | None = None
    gorge_after: int | None = None
    fixed_batch: int | None = None


class FakeSession:
    """A :class:`FakeModel` as a session; the top class is the rounded sum of an image, modulo classes.

    Raises:
        RecordError: the file is not a ``FakeModel``.
        SessionError: the device is not "cpu".
    """

    def __init__(self, path: Path, threads: int, batch: int, device: str) -> None:
        if device != "cpu":
            raise SessionError(f"the fake runtime has no device {device!r}; use cpu")
        self._model = model = read_record(path, FakeModel)
        if model.fixed_batch not in (None, batch):
            raise SessionError(f"{path.name} supports only a batch of {model.fixed_batch}, got {batch}")
        self._jitter = random.Random(0)
        self._invocations = 0
        faults = (model.crash_after, model.hang_after, model.raise_after, model.gorge_after)
        self._empty = not model.delay_s and not model.jitter_s and set(faults) == {None}
        self.batch = batch
        shape, classes = model.input_shape, model.classes
        self.inputs = (TensorSpec(name="input", shape=(model.fixed_batch, *shape), dtype="float32", layout="NHWC"),)
        self.outputs = (TensorSpec(name="output", shape=(model.fixed_batch, classes), dtype="float32", layout="NC"),)
        self._images: Float = np.zeros((batch, *shape), np.float32)

    def encode(self, samples: Samples) -> None:
        """Set the input to float32 images ``(batch, height, width, channels)``.

        Raises:
            SessionError: the shape is wrong.
        """
        if samples.shape != self._images.shape:
            raise SessionError(f"the images must have the shape {self._images.shape}, got {samples.shape}")
        self._images = samples

    def put(self, values: Samples) -> None:
        """As ``encode``: the input is float32."""
        self.encode(values)

    def invoke(self) -> None:
        """Sleep or fail as the model defines."""
        if self._empty:
            return
        if self._invocations == self._model.crash_after:
            os.kill(os.getpid(), signal.SIGSEGV)
        if self._invocations == self._model.hang_after:
            while True:
                time.sleep(60)
        if self._invocations == self._model.raise_after:
            raise RuntimeError(f"failed as asked after {self._invocations} invocations")
        if self._invocations == self._model.gorge_after:
            hoard = []
            while True:
                hoard.append(np.ones(2**24, np.uint8))
        self._invocations += 1
        time.sleep(self._model.delay_s + self._model.jitter_s * self._jitter.random())

    def decode(self) -> Float:
        """Float32 ``(batch, classes)``, 1 at the top class and 0 elsewhere."""
        top = np.round(self._images.sum(axis=(1, 2, 3))).astype(int) % self._model.classes
        output: Float = np.eye(self._model.classes, dtype=np.float32)[top]
        return output

    def take(self) -> Samples:
        """As ``decode``."""
        return self.decode()

    def provenance(self) -> bytes | None:
        """``None``: a fake model is not exported."""
        return None

    def close(self) -> None:
        """Nothing to free."""
