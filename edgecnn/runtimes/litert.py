"""LiteRT (TensorFlow Lite) through ``ai_edge_litert``, on CPU with its default XNNPACK delegate."""

import os
import warnings
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edgecnn.errors import SessionError, one_line
from edgecnn.files import read_bytes
from edgecnn.optional import require
from edgecnn.quiet import quiet_stderr
from edgecnn.records import Quantization, TensorSpec
from edgecnn.runtimes import Float
from edgecnn.runtimes.quantized_io import from_outputs, raw_of, to_inputs
from edgecnn.samples import Samples, parts
from edgecnn.tflite.graph import read_graph
from edgecnn.worker import confine

Kernels = Literal["xnnpack", "built-in", "reference"]
_RESOLVERS = {"xnnpack": "AUTO", "built-in": "BUILTIN_WITHOUT_DEFAULT_DELEGATES", "reference": "BUILTIN_REF"}


def open_interpreter(path: Path, threads: int = 1, kernels: Kernels = "xnnpack", *, keep: bool = False) -> Any:
    """LiteRT's interpreter of the .tflite file at ``path``; tensors are not allocated yet.

    ``threads`` 0 leaves the number to LiteRT. ``kernels`` "xnnpack" is LiteRT's default, "built-in" its optimised
    kernels without that delegate, "reference" its reference kernels. ``keep`` makes intermediate tensors readable.

    In a process of ``isolated``, the file's limits apply from here on; importing LiteRT does not count.

    Raises:
        ValueError, RuntimeError: LiteRT refuses the file.
    """
    module = require("ai_edge_litert.interpreter")
    confine(path.stat().st_size)
    return module.Interpreter(
        model_path=os.fsencode(path),
        num_threads=threads or None,
        experimental_op_resolver_type=getattr(module.OpResolverType, _RESOLVERS[kernels]),
        experimental_preserve_all_tensors=keep,
    )


class LitertSession:
    """A .tflite file in the LiteRT interpreter; ``kernels`` and ``keep`` are as in ``open_interpreter``."""

    def __init__(
        self,
        path: Path,
        threads: int = 1,
        batch: int = 1,
        device: str = "cpu",
        *,
        kernels: Kernels = "xnnpack",
        keep: bool = False,
    ) -> None:
        if device != "cpu":
            raise SessionError(f"litert runs {path.name} on cpu only, not on {device!r}")
        try:
            with quiet_stderr(), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about the memory of kept tensors
                self._interpreter = open_interpreter(path, threads, kernels, keep=keep)
                _resize(self._interpreter, path, batch)
                self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            how = "" if kernels == "xnnpack" else f" with its {kernels} kernels"
            raise SessionError(f"litert cannot load {path.name}{how}: {one_line(error)}") from error
        self._in, self._out = self._interpreter.get_input_details(), self._interpreter.get_output_details()
        self.batch = batch
        self._path = path
        self.inputs = tuple(map(_spec, self._in))
        self.outputs = tuple(map(_spec, self._out))

    def encode(self, samples: Samples) -> None:
        """Quantise ``samples`` for the file's inputs and copy them into the interpreter."""
        self.put(to_inputs(samples, self.inputs))

    def put(self, values: Samples) -> None:
        """Copy ``values`` into the interpreter."""
        for details, part in zip(self._in, parts(values), strict=True):
            self._interpreter.set_tensor(details["index"], part)

    def invoke(self) -> None:
        """Run the model once.

        Raises:
            SessionError: a kernel failed; the message says which.
        """
        try:
            self._interpreter.invoke()
        except (ValueError, RuntimeError) as error:
            raise SessionError(f"litert failed while running: {one_line(error)}") from error

    def decode(self) -> Float:
        """The outputs as float32 ``(batch, values)``."""
        return from_outputs(self.take(), self.outputs)

    def take(self) -> Samples:
        """A copy of the outputs."""
        return raw_of([self.value(details["index"]) for details in self._out], self.outputs)

    def value(self, index: int) -> NDArray[Any]:
        """A copy of tensor ``index`` after ``invoke``, in its own type, shape and layout; any tensor with ``keep``."""
        value: NDArray[Any] = self._interpreter.get_tensor(index)
        return value

    def provenance(self) -> bytes | None:
        """The metadata buffer "edgecnn"."""
        return read_graph(read_bytes(self._path), self._path.name).metadata.get("edgecnn")

    def close(self) -> None:
        """Free the interpreter."""
        del self._interpreter


def _resize(interpreter: Any, path: Path, batch: int) -> None:
    for kind, every in (("input", interpreter.get_input_details()), ("output", interpreter.get_output_details())):
        if not every or not all(len(details["shape"]) for details in every):
            raise SessionError(
                f"{path.name} has no {kind}, or one without a shape; edgecnn runs models of batches of samples"
            )
    for details in interpreter.get_input_details():
        if int(details["shape"][0]) == batch:
            continue
        if int(details["shape_signature"][0]) != -1:
            raise SessionError(
                f"{path.name} was exported for a fixed batch of {details['shape'][0]}, got {batch}; "
                "export it with --batch dynamic"
            )
        interpreter.resize_tensor_input(details["index"], [batch, *details["shape"][1:]])


def _spec(details: dict[str, Any]) -> TensorSpec:
    scales = details["quantization_parameters"]["scales"]
    quantization = None
    if len(scales):
        zero_points = details["quantization_parameters"]["zero_points"]
        quantization = Quantization(
            scale=tuple(float(scale) for scale in scales), zero_point=tuple(int(zero) for zero in zero_points)
        )
    shape = tuple(None if size < 0 else int(size) for size in details["shape_signature"])
    return TensorSpec(
        name=str(details["name"]),
        shape=shape,
        dtype=np.dtype(details["dtype"]).name,
        layout="NHWC" if len(shape) == 4 else "NC",
        quantization=quantization,
    )
