"""Runtimes: one file each, found by name in ``RUNTIMES``, opened with ``open_session``."""

import importlib
from pathlib import Path
from typing import Any, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgecnn.errors import ArtifactError
from edgecnn.files import need_model
from edgecnn.optional import require
from edgecnn.records import RuntimeName, TensorSpec
from edgecnn.registry import Registry
from edgecnn.runtimes.quantized_io import Float as Float
from edgecnn.runtimes.quantized_io import from_output, to_input
from edgecnn.worker import confine


class Session(Protocol):
    """An artifact loaded into a runtime.

    The three steps are apart so that latency can time ``invoke`` alone while verification uses all of them. ``encode``
    is ``put`` of the images as ``to_input`` makes them, ``decode`` is ``from_output`` of what ``take`` gives. A session
    whose runtime tells how many bytes activations take has that as ``arena_bytes``; the others have no such attribute.
    """

    input: TensorSpec
    output: TensorSpec
    batch: int

    def encode(self, images: Float) -> None:
        """Put ``images``, float32 ``(batch, height, width, channels)`` in the model's input range, into the input.

        Quantises and changes the layout as the artifact's input asks.
        """

    def put(self, values: NDArray[Any]) -> None:
        """Put ``values``, of the type, shape and layout that the artifact stores, into the input."""

    def invoke(self) -> None:
        """Run the model once and return when the output is there."""

    def take(self) -> NDArray[Any]:
        """The output as the artifact stores it, ``(batch, …)``; valid until the next ``invoke``."""

    def decode(self) -> Float:
        """The output as float32 ``(batch, classes)``; integers are dequantised with the output's scale."""

    def provenance(self) -> bytes | None:
        """The JSON that ``export`` stored inside the file, or None in a file that others made."""

    def close(self) -> None:
        """Free what the session holds."""


class Runtime(msgspec.Struct, frozen=True, kw_only=True):
    """A runtime: the file format it runs, the package it needs, and the class in its module that opens a session.

    The class takes the file, the number of threads, the batch and the device ("cpu" or "gpu").
    """

    name: RuntimeName
    format: str
    package: str
    module: str
    session: str


_RUNTIMES = (
    Runtime(
        name="litert",
        format="tflite",
        package="ai_edge_litert.interpreter",
        module="edgecnn.runtimes.litert",
        session="LitertSession",
    ),
    Runtime(
        name="tflm",
        format="tflite",
        package="tflite_micro",
        module="edgecnn.runtimes.tflm",
        session="TflmSession",
    ),
    Runtime(
        name="onnxruntime",
        format="onnx",
        package="onnxruntime",
        module="edgecnn.runtimes.ort",
        session="OrtSession",
    ),
    Runtime(
        name="c99",
        format="c",
        package="edgecnn",
        module="edgecnn.runtimes.c99",
        session="C99Session",
    ),
    Runtime(
        name="keras",
        format="keras",
        package="keras",
        module="edgecnn.runtimes.keras",
        session="KerasSession",
    ),
    Runtime(
        name="fake",
        format="fake",
        package="edgecnn",
        module="edgecnn.runtimes.fake",
        session="FakeSession",
    ),
)

RUNTIMES: Registry[RuntimeName, Runtime] = Registry("runtime", {runtime.name: runtime for runtime in _RUNTIMES})


def runtime_for(path: Path, name: str | None = None) -> Runtime:
    """The runtime called ``name``, or without a name the first that takes the file at ``path``, by its ending.

    Raises:
        UnknownNameError: there is no runtime of that name.
        ArtifactError: no runtime takes such files, or the one called ``name`` does not; the message lists the endings.
    """
    if name is not None:
        named = RUNTIMES[name]
        if path.suffix != f".{named.format}":
            raise ArtifactError(f"{name} runs .{named.format} files, {path.name} is none")
        return named
    for runtime in RUNTIMES.values():
        if path.suffix == f".{runtime.format}":
            return runtime
    formats = dict.fromkeys(runtime.format for runtime in RUNTIMES.values() if runtime.name != "fake")
    endings = ", ".join(f".{format}" for format in formats)
    raise ArtifactError(f"{path} has no known ending; give a file ending in {endings}")


def open_session(
    path: Path, *, runtime: str | None = None, threads: int = 1, batch: int = 1, device: str = "cpu"
) -> Session:
    """Load the model file at ``path`` into the runtime called ``runtime``, or into the first that takes its format.

    In this process, which a damaged file can crash, hang or fill: what comes from others is for ``edgecnn.inference``
    or ``edgecnn.worker.isolated``.

    Raises:
        UnknownNameError: there is no such runtime.
        ArtifactError: the file is missing or of no known format, or of another than the runtime takes.
        SessionError: the runtime refuses the file, or the device is not there.
        MissingExtraError: the runtime is not installed.
    """
    chosen = runtime_for(path, runtime)
    need_model(path)
    session_class = getattr(importlib.import_module(chosen.module), chosen.session)
    require(chosen.package)
    confine(path.stat().st_size)  # what is loaded until here is ours
    session: Session = session_class(path, threads, batch, device)
    return session


def predict(session: Session, images: Float) -> Float:
    """Outputs for ``images`` ``(n, height, width, channels)`` as float32 ``(n, classes)``.

    Feeds the session's own batch; the last batch is filled up and the surplus thrown away.
    """
    batch, count = session.batch, len(images)
    inputs = to_input(images, session.input)
    filler = np.repeat(inputs[-1:], -count % batch, axis=0)
    outputs = None
    for start in range(0, count, batch):
        part = inputs[start : start + batch]
        session.put(part if len(part) == batch else np.concatenate([part, filler]))
        session.invoke()
        output = session.take()
        if outputs is None:
            outputs = np.empty((count, *output.shape[1:]), output.dtype)
        outputs[start : start + batch] = output[: len(part)]
    assert outputs is not None, "no images"
    return from_output(outputs, session.output)
