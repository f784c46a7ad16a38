"""Formats: one file each, found by name in ``FORMATS``; ``export`` writes an artifact with its sidecar."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path

import msgspec

from edgecnn import artifacts
from edgecnn.data import DataSet
from edgecnn.files import make_folder, write_atomic
from edgecnn.formats import c99, onnx, tflite
from edgecnn.formats.source import Source
from edgecnn.models import architecture
from edgecnn.quantization.schemes import is_static_int8, needs_calibration
from edgecnn.records import Artifact, FormatName, Provenance, Scheme, to_json
from edgecnn.registry import Registry

TOOLS = ("edgecnn", "tensorflow", "keras", "tf-keras", "tensorflow-model-optimization", "tf2onnx", "onnx")
"""What a converted file depends on."""


class Format(msgspec.Struct, frozen=True):
    """A file format. ``convert`` gives bytes, ``with_provenance`` the finished file.

    ``companions`` make the files that belong beside it, by their ending. ``only_int8`` formats hold static int8 schemes
    and nothing else.
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
    """What to export: every scheme in every format.

    Formats for int8 only are left out of other schemes without a word, unless nothing else is asked for.
    """
    every = [(format, scheme) for format in formats for scheme in schemes]
    return [pair for pair in every if is_static_int8(pair[1]) or not pair[0].only_int8] or every


def export(
    source: Source,
    *,
    format: Format,
    scheme: Scheme,
    provenance: Provenance,
    folder: Path,
) -> Artifact:
    """Convert, add the provenance, write ``<model>-<scheme>.<ending>`` and its sidecar ``….json`` into ``folder``.

    Companions, such as a header, are written beside it. The finished file is loaded by its runtime once before it is
    written.

    Raises:
        UnsupportedError: the scheme makes no sense in this format, with the reason.
        ExportError: the conversion failed, or gave something else than was asked for.
        SessionError: the runtime refuses the converted file.
    """
    calibrated = len(source.calibration) if needs_calibration(scheme) else None
    tuning = source.tunings.get(scheme.name) if format.name == "onnx" else None
    provenance = provenance.replace(
        scheme=scheme.name,
        calibration_images=calibrated,
        tuning=tuning,
        architecture=architecture(source.model),
    )
    converted = format.convert(source, scheme)
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
    """What ``export`` calls a file."""
    return f"{model}-{scheme.name}.{format.ending}"


def provenance_of(model: str, model_sha256: str, data: DataSet) -> Provenance:
    """What an artifact of ``model`` trained on ``data`` carries; ``export`` fills in the rest."""
    return Provenance(
        model=model,
        model_sha256=model_sha256,
        scheme="",
        labels=data.class_names,
        preprocessing=data.preprocessing,
        data=data.name,
        data_sha256=data.sha256,
        calibration_images=None,
        versions={tool: metadata.version(tool) for tool in TOOLS},
    )
