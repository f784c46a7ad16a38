"""ONNX Runtime on CPU, with bound input and output, so that ``invoke`` times the model alone."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgecnn.errors import RecordError, SessionError, one_line
from edgecnn.optional import require
from edgecnn.processor import sums_saturate, this_processor
from edgecnn.records import TensorSpec, end_key, from_metadata, warn_once
from edgecnn.runtimes import Float
from edgecnn.runtimes.quantized_io import from_outputs, raw_of, to_inputs
from edgecnn.samples import Samples, parts

# Converts int8 weights to uint8, so that sums of products cannot saturate. Used only on processors where they can: on
# others it takes up to twice the time. ONNX Runtime refuses some files with this option, for example if the weights of
# two operators share their zero-point tensor, as in files from tf2onnx.
_EXACT_SUMS = ("session.x64quantprecision", "1")
_DTYPES = {"tensor(float)": "float32", "tensor(int8)": "int8", "tensor(uint8)": "uint8"}


class OrtSession:
    """An .onnx file in ONNX Runtime's CPU execution provider."""

    def __init__(self, path: Path, threads: int, batch: int, device: str) -> None:
        if device != "cpu":
            raise SessionError(f"onnxruntime runs {path.name} on cpu only, not on {device!r}")
        ort = require("onnxruntime")
        try:
            self._session = open_model(str(path), threads)
        except Exception as error:
            raise SessionError(f"onnxruntime cannot load {path.name}: {one_line(error)}") from error
        self._metadata = _metadata(self._session, path)
        self.batch = batch
        self._names, (self.inputs, self.outputs) = _ends(self._session, self._metadata, path)
        for spec in self.inputs:
            if spec.shape[0] not in (None, batch):
                raise SessionError(
                    f"{path.name} was exported for a fixed batch of {spec.shape[0]}, got {batch}; "
                    "export it with --batch dynamic"
                )
        self._ortvalue = ort.OrtValue
        self._binding = self._session.io_binding()
        self._out = []
        for name, spec in zip(self._names[1], self.outputs, strict=True):
            shape = (batch, *(size or 1 for size in spec.shape[1:]))
            self._out.append(self._ortvalue.ortvalue_from_numpy(np.zeros(shape, spec.dtype)))
            self._binding.bind_ortvalue_output(name, self._out[-1])

    def encode(self, samples: Samples) -> None:
        """Quantise ``samples`` for the file's inputs and bind them."""
        self.put(to_inputs(samples, self.inputs))

    def put(self, values: Samples) -> None:
        """Bind a copy of ``values``."""
        self._in = [self._ortvalue.ortvalue_from_numpy(np.ascontiguousarray(part)) for part in parts(values)]
        for name, value in zip(self._names[0], self._in, strict=True):
            self._binding.bind_ortvalue_input(name, value)

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
        """The outputs as float32 ``(batch, values)``."""
        return from_outputs(self.take(), self.outputs)

    def take(self) -> Samples:
        """The bound outputs."""
        return raw_of([value.numpy() for value in self._out], self.outputs)

    def provenance(self) -> bytes | None:
        """The metadata property "edgecnn"."""
        stored = self._metadata.get("edgecnn")
        return None if stored is None else stored.encode()

    def close(self) -> None:
        """Free the session."""
        del self._binding, self._session


def open_model(model: str | bytes, threads: int, profile: Path | None = None) -> Any:
    """The ``InferenceSession`` of a file, or of its content, on the CPU; ``threads`` 0 uses all cores.

    ``profile`` is the file-name prefix of the profile, if one is wanted. Errors of ONNX Runtime are not translated. If
    sums of int8 products can saturate, and ONNX Runtime loads the model only without the option against it, a warning
    is logged.
    """
    if not sums_saturate(this_processor()[1]):
        return _opened(model, threads, profile)
    try:
        return _opened(model, threads, profile, _EXACT_SUMS)
    except Exception:  # noqa: BLE001 - an error of the model itself is raised again below
        session = _opened(model, threads, profile)
    warn_once(
        f"onnxruntime loads {Path(model).name if isinstance(model, str) else 'the model'} only without the option "
        f"{_EXACT_SUMS[0]}: sums of int8 products can saturate on this processor, and outputs can be wrong; "
        "see: edgecnn inspect --assert portable"
    )
    return session


def _opened(model: str | bytes, threads: int, profile: Path | None, *entries: tuple[str, str]) -> Any:
    ort = require("onnxruntime")
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    for entry in entries:
        options.add_session_config_entry(*entry)
    if profile is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile)
    # Without enable_fallback=0 some errors are printed to stdout, and loading is tried a second time.
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"], enable_fallback=0)


def _metadata(session: Any, path: Path) -> dict[str, str]:
    """The file's metadata properties; empty if one of them is not text."""
    try:
        properties: dict[str, str] = session.get_modelmeta().custom_metadata_map
    except UnicodeDecodeError:
        warn_once(f"the metadata in {path.name} are not UTF-8 and are ignored")
        return {}
    return properties


def _ends(session: Any, metadata: dict[str, str], path: Path) -> tuple[list[list[str]], list[tuple[TensorSpec, ...]]]:
    """The names of the inputs and outputs in the graph, and their specifications."""
    try:
        ends = {"input": session.get_inputs(), "output": session.get_outputs()}
        names = [[node.name for node in nodes] for nodes in ends.values()]
        return names, [_specs(nodes, kind, metadata, path) for kind, nodes in ends.items()]
    except UnicodeDecodeError as error:
        raise SessionError(f"{path.name} has names that are not UTF-8; export it again") from error
    except RecordError as error:
        raise SessionError(f"onnxruntime cannot run {path.name}: {error}") from error


def _specs(nodes: list[Any], kind: str, metadata: dict[str, str], path: Path) -> tuple[TensorSpec, ...]:
    if not nodes:
        raise SessionError(f"{path.name} has no {kind}; edgecnn runs models of batches of samples")
    return tuple(_spec(node, kind, end_key(kind, number), metadata, path) for number, node in enumerate(nodes))


def _spec(node: Any, kind: str, key: str, metadata: dict[str, str], path: Path) -> TensorSpec:
    if node.type not in _DTYPES:
        raise SessionError(f"{path.name} has an {kind} of {node.type}; supported are: {', '.join(_DTYPES)}")
    if not node.shape:
        raise SessionError(f"{path.name} has an {kind} without a shape; edgecnn runs models of batches of samples")
    shape = tuple(size if isinstance(size, int) and size > 0 else None for size in node.shape)
    return stored_spec((node.name,), shape, _DTYPES[node.type], kind, key, metadata, path)


def stored_spec(
    names: Collection[str],
    shape: tuple[int | None, ...],
    dtype: str,
    kind: str,
    key: str,
    metadata: Mapping[str, str],
    path: Path,
) -> TensorSpec:
    """What the ``metadata`` of an .onnx say of an input or output, if it is that of the graph; else without scale.

    ``names`` are those that a runtime has for it; ``kind`` is "input" or "output".
    """
    spec = TensorSpec(name=next(iter(names)), shape=shape, dtype=dtype, layout="NCHW" if len(shape) == 4 else "NC")
    stored, where = metadata.get(key), f"metadata {key!r} in {path.name}"
    found = None if stored is None else from_metadata(stored.encode(), TensorSpec, where)
    if found is None:
        return spec
    if found.name not in names or (found.shape, found.dtype) != (spec.shape, spec.dtype):
        warn_once(f"{where} does not match the {kind} of the graph and is ignored")
        return spec
    return found  # an ONNX file has no other place for the quantisation of an integer input
