"""File formats, one module each, by name in ``FORMATS``; ``export`` writes an artifact with its sidecar."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec

from edgecnn import artifacts
from edgecnn.data import DataSet
from edgecnn.files import make_folder, write_atomic
from edgecnn.formats import c99, onnx, tflite
from edgecnn.formats.source import Source, calibration_methods
from edgecnn.models import architecture, gives_probabilities
from edgecnn.optional import installed
from edgecnn.quantization.schemes import is_static_int8, needs_calibration
from edgecnn.records import Artifact, FormatName, Provenance, Scheme, Tuning, to_json
from edgecnn.registry import Registry

TOOLS = ("edgecnn", "tensorflow", "keras", "tf2onnx", "onnx")
"""Tools that a converted file depends on."""

TFMOT_TOOLS = ("tf-keras", "tensorflow-model-optimization")
"""Those that int8-qat of the engine tfmot depends on too."""


class Format(msgspec.Struct, frozen=True):
    """A file format. ``convert`` returns the converted model, ``with_provenance`` the finished file.

    ``companions`` make additional files, by extension. Formats with ``only_int8`` support only static int8 schemes.
    """

    name: FormatName
    convert: Callable[[Source, Scheme], bytes]
    with_provenance: Callable[[bytes, Provenance], bytes]
    ending: str
    companions: Mapping[str, Callable[[bytes, Provenance], bytes]] = {}
    only_int8: bool = False


_FORMATS = (
    Format("tflite", tflite.convert, tflite.with_provenance, "tflite"),
    Format("onnx", onnx.convert, onnx.with_provenance, "onnx"),
    Format("c99", c99.convert, c99.with_provenance, "c", {"h": c99.header}, only_int8=True),
)

FORMATS: Registry[FormatName, Format] = Registry("format", {format.name: format for format in _FORMATS})


def pairs(formats: Sequence[Format], schemes: Sequence[Scheme]) -> list[tuple[Format, Scheme]]:
    """The combinations to export: every scheme in every format.

    Other schemes in formats for int8 only are skipped silently, unless nothing else is requested.
    """
    every = [(format, scheme) for format in formats for scheme in schemes]
    return [pair for pair in every if is_static_int8(pair[1]) or not pair[0].only_int8] or every


def export_file(
    source: Source,
    *,
    format: Format,
    scheme: Scheme,
    provenance: Provenance,
    folder: Path,
    tuning: Tuning | None = None,
) -> Artifact:
    """Convert, add the provenance, write ``<model>-<scheme>.<ending>`` and its sidecar ``….json`` into ``folder``.

    ``tuning`` selects the operators of an int8 .onnx that stay in float; other formats ignore it. Companions, such as a
    header, are written to the same folder. The runtime loads the finished file once before it is written.

    Raises:
        UnsupportedError: the format does not support the scheme; the message has the reason.
        ExportError: the conversion failed, or its result is not as requested.
        SessionError: the runtime refuses the converted file.
    """
    images: int | None = None
    methods: tuple[str, ...] = ()
    if needs_calibration(scheme):
        images, methods = len(source.calibration), calibration_methods(source, scheme)
    if format.name != "onnx":
        tuning = None
    provenance = provenance.replace(
        scheme=scheme.name,
        calibration_images=images,
        calibration_methods=methods,
        tuning=tuning,
        architecture=architecture(source.model),
        threshold=0.5 if gives_probabilities(source.model) else 0.0,
    )
    converted = format.convert(source, scheme) if tuning is None else onnx.convert(source, scheme, tuning)
    path = make_folder(folder) / file_name(provenance.model, scheme, format)
    files = {path.with_suffix(f".{ending}"): make(converted, provenance) for ending, make in format.companions.items()}
    files[path] = format.with_provenance(converted, provenance)
    with tempfile.TemporaryDirectory() as trial:
        for file, content in files.items():
            (Path(trial) / file.name).write_bytes(content)
        artifact = artifacts.describe_here(Path(trial) / path.name)
    for file, content in files.items():
        write_atomic(file, content)
    write_atomic(artifacts.sidecar(path), to_json(artifact))
    return artifact


def file_name(model: str, scheme: Scheme, format: Format) -> str:
    """The file name used by ``export``."""
    return f"{model}-{scheme.name}.{format.ending}"


def provenance_of(model: str, model_sha256: str, data: DataSet) -> Provenance:
    """The provenance of ``model`` trained on ``data``; ``export`` fills in the rest."""
    return Provenance(
        model=model,
        model_sha256=model_sha256,
        scheme="",
        labels=data.class_names,
        task=data.task,
        outputs=data.outputs,
        preprocessing=data.preprocessing,
        data=data.name,
        data_sha256=data.sha256,
        calibration_images=None,
        versions={tool: found for tool in (*TOOLS, *TFMOT_TOOLS) if (found := installed(tool)) is not None},
    )
