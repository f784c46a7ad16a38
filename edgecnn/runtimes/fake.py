"""The fake runtime: a model file that says how long it takes and how it fails, for tests and dry runs.

A ``.fake`` file is the JSON form of a :class:`FakeModel`.
"""

import os
import random
import signal
import time
from pathlib import Path

import numpy as np

from edgecnn.errors import SessionError
from edgecnn.records import Record, TensorSpec, from_json
from edgecnn.runtimes import Float


class FakeModel(Record, frozen=True):
    """What a ``.fake`` file holds.

    An invocation sleeps ``delay_s`` plus a random share of ``jitter_s``, both in seconds. The ``…_after``
    fields make the model misbehave once that many invocations have gone well (0: at the first one): die of
    SIGSEGV, never come back, or raise RuntimeError.
    """

    input_shape: tuple[int, int, int]
    classes: int
    delay_s: float = 0.0
    jitter_s: float = 0.0
    crash_after: int | None = None
    hang_after: int | None = None
    raise_after: int | None = None


class FakeSession:
    """A :class:`FakeModel` as a session; the top class is the rounded sum of an image, modulo classes.

    Raises:
        RecordError: the file is not a ``FakeModel``.
        SessionError: the device is not "cpu".
    """

    def __init__(self, path: Path, threads: int, batch: int, device: str) -> None:
        if device != "cpu":
            raise SessionError(f"the fake runtime has no device {device!r}; use cpu")
        self._model = from_json(path.read_bytes(), FakeModel, path)
        self._jitter = random.Random(0)
        self._invocations = 0
        self.batch = batch
        shape, classes = self._model.input_shape, self._model.classes
        self.input = TensorSpec(name="input", shape=(None, *shape), dtype="float32", layout="NHWC")
        self.output = TensorSpec(name="output", shape=(None, classes), dtype="float32", layout="NC")
        self._images: Float = np.zeros((batch, *shape), np.float32)
        self._output: Float = np.zeros((batch, classes), np.float32)

    def encode(self, images: Float) -> None:
        """Take float32 images ``(batch, height, width, channels)``.

        Raises:
            SessionError: they have another shape.
        """
        if images.shape != self._images.shape:
            raise SessionError(f"the model takes images of shape {self._images.shape}, got {images.shape}")
        self._images = images

    def invoke(self) -> None:
        """Wait as the model says, or misbehave."""
        if self._invocations == self._model.crash_after:
            os.kill(os.getpid(), signal.SIGSEGV)
        if self._invocations == self._model.hang_after:
            while True:
                time.sleep(60)
        if self._invocations == self._model.raise_after:
            raise RuntimeError(f"failed as asked after {self._invocations} invocations")
        self._invocations += 1
        wait_s = self._model.delay_s + self._model.jitter_s * self._jitter.random()
        if wait_s:
            time.sleep(wait_s)
        top = np.round(self._images.sum(axis=(1, 2, 3))).astype(int) % self._model.classes
        self._output = np.eye(self._model.classes, dtype=np.float32)[top]

    def decode(self) -> Float:
        """Float32 ``(batch, classes)``, 1 at the top class and 0 elsewhere."""
        return self._output

    def provenance(self) -> bytes | None:
        """Nothing: a fake is not exported."""
        return None

    def close(self) -> None:
        """Nothing to free."""
