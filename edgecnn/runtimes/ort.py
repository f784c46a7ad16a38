"""ONNX Runtime on CPU, with inputs and outputs bound once so that ``invoke`` times the model alone."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecnn.errors import SessionError, one_line
from edgecnn.optional import require
from edgecnn.processor import sums_saturate, this_processor
from edgecnn.records import TensorSpec, from_json
from edgecnn.runtimes import Float, stored_batch
from edgecnn.runtimes.quantized_io import from_output, to_input

# Makes int8 weights uint8, so that sums of their products cannot saturate. Only for processors where they can: on
# others it takes up to twice the time, and ONNX Runtime refuses some files with it.
_EXACT_SUMS = ("session.x64quantprecision", "1")
_DTYPES = {"tensor(float)": "float32", "tensor(int8)": "int8", "tensor(uint8)": "uint8"}


class OrtSession:
    """An .onnx file in ONNX Runtime's CPU execution provider."""

    def __init__(self, path: Path, threads: int, batch: int, device: str) -> None:
        if device != "cpu":
            raise SessionError(f"onnxruntime runs {path.name} on cpu only here, not on {device!r}")
        ort = require("onnxruntime")
        try:
            self._session = open_model(str(path), threads)
        except Exception as error:
            raise SessionError(f"onnxruntime cannot load {path.name}: {one_line(error)}") from error
        self._metadata = self._session.get_modelmeta().custom_metadata_map
        self.batch = batch
        self.input = _spec(self._session.get_inputs(), "input", self._metadata, path)
        self.output = _spec(self._session.get_outputs(), "output", self._metadata, path)
        if stored_batch(path, self.input.shape) not in (None, batch):
            raise SessionError(
                f"{path.name} was exported for a fixed batch of {self.input.shape[0]}, {batch} was asked for; "
                "export it with --batch dynamic"
            )
        self._ortvalue = ort.OrtValue
        self._binding = self._session.io_binding()
        shape = (batch, *(size or 1 for size in self.output.shape[1:]))
        self._out = self._ortvalue.ortvalue_from_numpy(np.zeros(shape, self.output.dtype))
        self._binding.bind_ortvalue_output(self.output.name, self._out)

    def encode(self, images: Float) -> None:
        """Quantise ``images`` as the file's input asks and bind them."""
        self.put(to_input(images, self.input))

    def put(self, values: NDArray[Any]) -> None:
        """Bind a copy of ``values``."""
        self._in = self._ortvalue.ortvalue_from_numpy(values)
        self._binding.bind_ortvalue_input(self.input.name, self._in)

    def invoke(self) -> None:
        """Run the model once.

        Raises:
            SessionError: a kernel failed; the message says which.
        """
        try:
            self._session.run_with_iobinding(self._binding)
        except Exception as error:
            raise SessionError(f"onnxruntime failed while running: {one_line(error)}") from error

    def decode(self) -> Float:
        """The output as float32 ``(batch, classes)``."""
        return from_output(self.take(), self.output)

    def take(self) -> NDArray[Any]:
        """The output that is bound."""
        output: NDArray[Any] = self._out.numpy()
        return output

    def provenance(self) -> bytes | None:
        """The metadata property "edgecnn"."""
        stored = self._metadata.get("edgecnn")
        return None if stored is None else stored.encode()

    def close(self) -> None:
        """Free the session."""
        del self._binding, self._session


def open_model(model: str | bytes, threads: int, profile: Path | None = None) -> Any:
    """The ``InferenceSession`` of a file, or of its content, on the CPU; 0 ``threads`` are as many as there are cores.

    ``profile`` is how the name of a profile starts, if one is wanted. What ONNX Runtime raises comes through.
    """
    ort = require("onnxruntime")
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    if sums_saturate(this_processor()[1]):
        options.add_session_config_entry(*_EXACT_SUMS)
    if profile is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile)
    # Without enable_fallback=0 some errors are printed to stdout, and the same is tried again.
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"], enable_fallback=0)


def _spec(nodes: list[Any], kind: str, specs: dict[str, str], path: Path) -> TensorSpec:
    if len(nodes) != 1:
        raise SessionError(f"{path.name} has {len(nodes)} {kind}s; edgecnn runs models with one input and one output")
    (node,) = nodes
    if node.type not in _DTYPES:
        raise SessionError(f"{path.name} has an {kind} of {node.type}; known are: {', '.join(_DTYPES)}")
    stored = specs.get(f"edgecnn.{kind}")
    if stored is not None:  # quantisation of an integer input is nowhere else in an ONNX file
        return from_json(stored.encode(), TensorSpec, f"metadata 'edgecnn.{kind}' in {path.name}")
    shape = tuple(size if isinstance(size, int) else None for size in node.shape)
    return TensorSpec(name=node.name, shape=shape, dtype=_DTYPES[node.type], layout="NCHW" if len(shape) == 4 else "NC")
