"""Formats: one file each, found by name in ``FORMATS``; ``export`` writes an artifact with its sidecar."""

import tempfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import msgspec

from edgecnn import artifacts
from edgecnn.data import DataSet
from edgecnn.errors import UnknownNameError
from edgecnn.files import make_folder, write_atomic
from edgecnn.formats import onnx, tflite
from edgecnn.formats.source import Source
from edgecnn.quantization.schemes import needs_calibration
from edgecnn.records import Artifact, Provenance, Scheme, to_json

TOOLS = ("edgecnn", "tensorflow", "keras", "tf-keras", "tensorflow-model-optimization", "tf2onnx", "onnx")
"""What a converted file depends on."""


class Format(msgspec.Struct, frozen=True):
    """A file format: its name is the ending; ``convert`` gives the bytes, ``embed`` adds the provenance to them."""

    name: str
    convert: Callable[[Source, Scheme], bytes]
    embed: Callable[[bytes, Provenance], bytes]


FORMATS: dict[str, Format] = {
    format.name: format
    for format in (
        Format("tflite", tflite.convert, tflite.embed),
        Format("onnx", onnx.convert, onnx.embed),
    )
}


def format_named(name: str) -> Format:
    """The format called ``name``.

    Raises:
        UnknownNameError: there is none; the message lists the choices.
    """
    if name not in FORMATS:
        raise UnknownNameError("format", name, FORMATS)
    return FORMATS[name]


def export(
    source: Source,
    *,
    format: Format,
    scheme: Scheme,
    provenance: Provenance,
    folder: Path,
) -> Artifact:
    """Convert, embed the provenance, write ``<model>-<scheme>.<format>`` and its sidecar ``….json`` into ``folder``.

    The finished file is loaded by its runtime once before it is written.

    Raises:
        UnsupportedError: the scheme makes no sense in this format, with the reason.
        ExportError: the conversion failed, or gave something else than was asked for.
        SessionError: the runtime refuses the converted file.
    """
    calibrated = len(source.calibration) if needs_calibration(scheme) else None
    tuning = source.tunings.get(scheme.name) if format.name == "onnx" else None
    provenance = provenance.replace(scheme=scheme.name, calibration_images=calibrated, tuning=tuning)
    content = format.embed(format.convert(source, scheme), provenance)
    path = make_folder(folder) / f"{provenance.model}-{scheme.name}.{format.name}"
    with tempfile.TemporaryDirectory() as trial:
        tried = Path(trial) / path.name
        tried.write_bytes(content)
        artifact = artifacts.describe(tried)
    write_atomic(path, content)
    write_atomic(artifacts.sidecar(path), to_json(artifact))
    return artifact


def provenance_of(model: str, model_sha256: str, data: DataSet) -> Provenance:
    """What an artifact of ``model`` trained on ``data`` carries; ``export`` fills in scheme and calibration."""
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
