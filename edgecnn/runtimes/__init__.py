"""Runtimes: one module per runtime, listed in ``RUNTIMES``, opened with ``open_session``."""

import importlib
from pathlib import Path
from typing import Protocol

import msgspec
import numpy as np

from edgecnn.errors import ArtifactError, SessionError
from edgecnn.files import need_model
from edgecnn.models import LEGACY
from edgecnn.optional import require
from edgecnn.records import RuntimeName, TensorSpec
from edgecnn.registry import Registry
from edgecnn.runtimes.quantized_io import Float as Float
from edgecnn.runtimes.quantized_io import from_outputs, to_inputs
from edgecnn.samples import Samples
from edgecnn.worker import confine


class Session(Protocol):
    """An artifact loaded into a runtime.

    The three steps are separate, so that benchmarks can time ``invoke`` alone, while verification uses all of them.
    ``encode(samples)`` is ``put(to_inputs(samples, inputs))``; ``decode()`` is ``from_outputs(take(), outputs)``. A
    session whose runtime reports the size of its activations in bytes has the attribute ``arena_bytes``. Samples of
    several inputs or outputs are as in ``edgecnn.samples``.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    batch: int

    def encode(self, samples: Samples) -> None:
        """Put ``samples``, float32 ``(batch, …)``, channels last, in the model's input range, into the inputs.

        Converts to the types, quantisation and layout of the artifact's inputs.
        """

    def put(self, values: Samples) -> None:
        """Put ``values``, with the types, shapes and layout of the artifact's inputs, into the inputs."""

    def invoke(self) -> None:
        """Run the model once; return when the outputs are complete."""

    def take(self) -> Samples:
        """The raw outputs, ``(batch, …)``; valid until the next ``invoke``."""

    def decode(self) -> Float:
        """The outputs as float32 ``(batch, values)``, one after the other; integers are dequantised."""

    def provenance(self) -> bytes | None:
        """The JSON that ``export`` stored inside the file; ``None`` in files from other tools."""

    def close(self) -> None:
        """Free the resources of the session."""


class Runtime(msgspec.Struct, frozen=True, kw_only=True):
    """A runtime: the file format it runs, the package it needs, and the class in its module that opens a session.

    ``others`` are endings of files that it runs too. The arguments of the class are the file, the number of threads,
    the batch and the device ("cpu" or "gpu").
    """

    name: RuntimeName
    format: str
    package: str
    module: str
    session: str
    others: tuple[str, ...] = ()

    @property
    def suffixes(self) -> tuple[str, ...]:
        """The endings of its files."""
        return (f".{self.format}", *self.others)


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
        name="openvino",
        format="onnx",
        package="openvino",
        module="edgecnn.runtimes.openvino",
        session="OpenvinoSession",
        others=(".tflite",),
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
        others=LEGACY,
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
    """The runtime called ``name``, or by default the first one that supports the suffix of ``path``.

    Raises:
        UnknownNameError: there is no runtime of that name.
        ArtifactError: no runtime supports the file, or the one called ``name`` does not.
    """
    if name is not None:
        named = RUNTIMES[name]
        if path.suffix not in named.suffixes:
            endings = " and ".join(named.suffixes)
            raise ArtifactError(f"{name} runs {endings} files, not {path.name}; choose another runtime")
        return named
    for runtime in RUNTIMES.values():
        if path.suffix in runtime.suffixes:
            return runtime
    formats = dict.fromkeys(runtime.format for runtime in RUNTIMES.values() if runtime.name != "fake")
    endings = ", ".join(f".{format}" for format in formats)
    raise ArtifactError(f"{path} has an unknown suffix; give a file ending in {endings}")


def open_session(
    path: Path | str, *, runtime: str | None = None, threads: int = 1, batch: int = 1, device: str = "cpu"
) -> Session:
    """Load the model file at ``path`` into the runtime called ``runtime``, by default the first for its format.

    The file is loaded in this process, and a damaged file can crash or block it. Use ``edgecnn.inference`` or
    ``edgecnn.worker.isolated`` for untrusted files.

    Raises:
        UnknownNameError: there is no such runtime.
        ArtifactError: the file is missing, or its format is unknown or not supported by the runtime.
        SessionError: the runtime refuses the file, or the device is missing.
        MissingExtraError: the runtime is not installed.
    """
    path = Path(path)
    chosen = runtime_for(path, runtime)
    need_model(path)
    session_class = getattr(importlib.import_module(chosen.module), chosen.session)
    require(chosen.package)
    confine(path.stat().st_size)  # after the trusted imports
    session: Session = session_class(path, threads, batch, device)
    return session


def predict(session: Session, samples: Samples) -> Float:
    """Outputs for ``samples`` ``(n, …)``, channels last, as float32 ``(n, values)``.

    Runs in batches of the session's size; the last batch is padded, and the surplus outputs are dropped.

    Raises:
        SessionError: the outputs are not one for each sample.
    """
    batch, count = session.batch, len(samples)
    inputs = to_inputs(samples, session.inputs)
    filler = np.repeat(inputs[-1:], -count % batch, axis=0)
    outputs = None
    for start in range(0, count, batch):
        part = inputs[start : start + batch]
        session.put(part if len(part) == batch else np.concatenate([part, filler]))
        session.invoke()
        output = session.take()
        if len(output) != batch:
            raise SessionError(
                f"its output has shape {output.shape} for a batch of {batch}; edgecnn compares models whose outputs "
                "have the batch as first dimension"
            )
        if outputs is None:
            outputs = np.empty((count, *output.shape[1:]), output.dtype)
        outputs[start : start + batch] = output[: len(part)]
    assert outputs is not None, "no samples"
    return from_outputs(outputs, session.outputs)
