"""OpenVINO on CPU, for .onnx and .tflite files."""

from pathlib import Path
from typing import Any

import numpy as np

from edgecnn.errors import ArtifactError, RecordError, SessionError, one_line
from edgecnn.files import read_bytes
from edgecnn.optional import require
from edgecnn.processor import sums_saturate, this_processor
from edgecnn.records import TensorSpec, end_key, warn_once
from edgecnn.runtimes import Float
from edgecnn.runtimes.ort import stored_spec
from edgecnn.runtimes.quantized_io import from_outputs, raw_of, to_inputs
from edgecnn.runtimes.tflm import specs_of
from edgecnn.samples import Samples, parts
from edgecnn.tflite.graph import read_graph

# By default, float operators run in bfloat16 or float16 where the processor has them.
_OPTIONS = {"INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": 1}


class OpenvinoSession:
    """An .onnx or .tflite file in OpenVINO's CPU device, with float operators in float32.

    With 0 threads, OpenVINO chooses the number. On x86 without VNNI, its sums of int8 products can saturate, and it has
    no option against that.
    """

    def __init__(self, path: Path, threads: int, batch: int, device: str) -> None:
        if device != "cpu":
            raise SessionError(f"openvino runs {path.name} on cpu only, not on {device!r}")
        openvino = require("openvino")
        self._tensor, core = openvino.Tensor, openvino.Core()
        try:
            model = core.read_model(path)
        except Exception as error:
            raise SessionError(f"openvino cannot load {path.name}: {one_line(error)}") from error
        if sums_saturate(this_processor()[1]) and _has_int8(model):
            warn_once(
                f"sums of int8 products can saturate in openvino on this processor, so outputs of {path.name} can be "
                "wrong; compare them: edgecnn verify --against openvino"
            )
        ends, self._provenance = _in_tflite(path) if path.suffix == ".tflite" else _in_onnx(path, model)
        self.inputs, self.outputs = ends
        self.batch = batch
        for spec in self.inputs:
            if spec.shape[0] not in (None, batch):
                raise SessionError(
                    f"{path.name} was exported for a fixed batch of {spec.shape[0]}, got {batch}; "
                    "export it with --batch dynamic"
                )
        try:
            model.reshape({port: [batch, *list(port.partial_shape)[1:]] for port in model.inputs})
            options = {**_OPTIONS, "INFERENCE_NUM_THREADS": threads}
            self._request = core.compile_model(model, "CPU", options).create_infer_request()
            ports = [*self._request.model_inputs, *self._request.model_outputs]
            types = [np.dtype(port.element_type.to_dtype()).name for port in ports]
        except Exception as error:
            raise SessionError(f"openvino cannot run {path.name}: {one_line(error)}") from error
        wanted = [spec.dtype for spec in (*self.inputs, *self.outputs)]
        if types != wanted:
            raise SessionError(
                f"openvino reads inputs and outputs of {path.name} as {', '.join(types)}, not {', '.join(wanted)}"
            )

    def encode(self, samples: Samples) -> None:
        """Quantise ``samples`` for the file's inputs."""
        self.put(to_inputs(samples, self.inputs))

    def put(self, values: Samples) -> None:
        """Use ``values`` as the inputs, without a copy."""
        self._in = [np.ascontiguousarray(part) for part in parts(values)]
        for place, value in enumerate(self._in):
            self._request.set_input_tensor(place, self._tensor(value, shared_memory=True))

    def invoke(self) -> None:
        """Run the model once.

        Raises:
            SessionError: a kernel failed; the message says which.
        """
        try:
            self._request.infer()
        except Exception as error:
            raise SessionError(f"openvino failed while running: {one_line(error)}") from error

    def decode(self) -> Float:
        """The outputs as float32 ``(batch, values)``."""
        return from_outputs(self.take(), self.outputs)

    def take(self) -> Samples:
        """The outputs of the request."""
        tensors = (self._request.get_output_tensor(place) for place in range(len(self.outputs)))
        return raw_of([tensor.data for tensor in tensors], self.outputs)

    def provenance(self) -> bytes | None:
        """What edgecnn stored in the file."""
        return self._provenance

    def close(self) -> None:
        """Free the request and its model."""
        del self._request


def _has_int8(model: Any) -> bool:
    """Whether the graph has 8-bit integers anywhere."""
    types = {output.element_type.get_type_name() for node in model.get_ops() for output in node.outputs()}
    return not types.isdisjoint(("i8", "u8"))


Ends = tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]


def _in_tflite(path: Path) -> tuple[Ends, bytes | None]:
    """The inputs and outputs of a .tflite, and what edgecnn stored in it. OpenVINO does not keep them."""
    try:
        graph = read_graph(read_bytes(path), path.name)
    except ArtifactError as error:
        raise SessionError(f"openvino cannot load {path.name}: {error}") from error
    return specs_of(graph), graph.metadata.get("edgecnn")


def _in_onnx(path: Path, model: Any) -> tuple[Ends, bytes | None]:
    """The same for an .onnx, whose metadata OpenVINO keeps."""
    stored = dict(model.rt_info.items()).get("framework", {})
    metadata = {name: str(value.value) for name, value in stored.items()}
    kinds = {"input": model.inputs, "output": model.outputs}
    try:
        inputs, outputs = (
            tuple(_spec(port, kind, end_key(kind, number), metadata, path) for number, port in enumerate(ports))
            for kind, ports in kinds.items()
        )
    except RecordError as error:
        raise SessionError(f"openvino cannot run {path.name}: {error}") from error
    provenance = metadata.get("edgecnn")
    return (inputs, outputs), None if provenance is None else provenance.encode()


def _spec(port: Any, kind: str, key: str, metadata: dict[str, str], path: Path) -> TensorSpec:
    shape = tuple(size.get_length() if size.is_static else None for size in port.partial_shape)
    dtype = np.dtype(port.element_type.to_dtype()).name
    return stored_spec(sorted(port.names), shape, dtype, kind, key, metadata, path)
