"""The suite ``clients``: exported files in the programs that people load them with, each in its own environment."""

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from benchmarks import client_programs
from benchmarks.client_programs import CLIENTS
from benchmarks.markdown import grid
from benchmarks.models import trained
from benchmarks.suite import ModelSuite, read_suite
from edgecnn import artifacts
from edgecnn.data import DataSet
from edgecnn.environment import environment
from edgecnn.errors import ArtifactError, MissingExtraError
from edgecnn.files import cache_folder, locked, make_cache_folder, make_folder, sha256_bytes
from edgecnn.formats import FORMATS, export_file, provenance_of
from edgecnn.formats.source import Source
from edgecnn.inference import outputs_of, task_of
from edgecnn.models import save_model
from edgecnn.progress import progress
from edgecnn.quantization.engines import engine_called
from edgecnn.quantization.schemes import SCHEMES
from edgecnn.records import Environment, Io, OnnxCpu, Record
from edgecnn.report import units
from edgecnn.report.grid import machine
from edgecnn.runtimes.quantized_io import to_inputs

_LIMIT_S = 300
_WRONG = 0.9  # of the images with LiteRT's class: fewer are wrong answers, not rounding
_REASON = 120  # characters
# scheme, type of input and output, and processors that the .onnx is for
_FILES: tuple[tuple[str, Io, OnnxCpu], ...] = (
    ("float32", "float32", "any"), ("int8", "int8", "any"), ("int8", "uint8", "any"), ("int8", "float32", "any"),
    ("int8-qat", "int8", "any"), ("int8", "int8", "vnni"), ("int8", "float32", "vnni"),
)  # fmt: skip


class _Client(msgspec.Struct, frozen=True):
    """How a client is installed and what it reads: packages of PyPI or, for a browser, of npm; formats."""

    title: str
    packages: tuple[str, ...]
    formats: tuple[str, ...]
    web: bool = False


# An empty list of packages: the client is in this environment.
_CLIENTS = {
    "litert-signature": _Client("LiteRT, signature runner", (), ("tflite",)),
    "litert-compiled": _Client("LiteRT, CompiledModel", (), ("tflite",)),
    "mediapipe": _Client("MediaPipe Tasks, ImageClassifier", ("mediapipe==1.2.3",), ("tflite",)),
    "litert-js": _Client("LiteRT.js in Chromium", ("@litertjs/core@2.5.3",), ("tflite",), web=True),
    "onnxruntime": _Client("ONNX Runtime", (), ("onnx",)),
    "onnxruntime-web": _Client("onnxruntime-web in Chromium", ("onnxruntime-web@1.30.0",), ("onnx",), web=True),
    "openvino": _Client("OpenVINO", ("openvino==2026.4.1",), ("tflite", "onnx")),
    "opencv": _Client("OpenCV dnn", ("opencv-python-headless==5.0.0.93",), ("tflite", "onnx")),
    "opencv-classic": _Client("OpenCV dnn, classic engine", ("opencv-python-headless==5.0.0.93",), ("tflite", "onnx")),
    "ncnn": _Client("ncnn, through pnnx", ("ncnn==1.0.20261020", "pnnx==20261020"), ("onnx",)),
    "mnn": _Client("MNN", ("MNN==3.6.1",), ("tflite", "onnx")),
    "tract": _Client("tract", ("tract==0.23.9",), ("onnx",)),
}
assert _CLIENTS.keys() == CLIENTS.keys()


class Settings(ModelSuite, frozen=True):
    """Settings of the suite; the models are trained as in ``int8-onnx``."""

    train_images: int
    epochs: int
    qat_epochs: int
    test_images: int


class Row(Record, frozen=True):
    """A client and a file: on how many images the client has LiteRT's top class, or the ``reason`` why it has none.

    LiteRT ran the .tflite file of the same model, scheme and types of input and output.
    """

    client: str
    packages: tuple[str, ...]
    model: str
    scheme: str
    io: Io
    onnx_cpu: OnnxCpu
    format: str
    agree: int | None
    reason: str = ""


class Clients(Record, frozen=True):
    """The result of the suite."""

    environment: Environment
    images: int
    rows: tuple[Row, ...]


def run(path: Path, out: Path) -> Clients:
    """Export the models of the suite at ``path`` to ``out``, and run every file in the clients of its format."""
    suite = read_suite(path, Settings)
    pythons = {}
    with progress("installing clients", len(_CLIENTS)) as advance:
        for name in _CLIENTS:
            pythons[name] = installed(name)
            advance(1)
    rows: list[Row] = []
    for name in suite.models:
        model, data = trained(name, suite.seed, suite.train_images, suite.epochs, suite.test_images)
        quantized, _ = engine_called("keras").train_quantized(model, data, epochs=suite.qat_epochs, seed=suite.seed)
        for scheme, io, cpu in _FILES:
            source = Source(model, quantized, data.calibration(suite.images), io, 1, cpu)
            files = _exported(source, scheme, data, make_folder(out / f"{name}-{scheme}-{io}-{cpu}"))
            rows += _tried(files, data, suite.test_images, pythons, (name, scheme, io, cpu))
    return Clients(environment=environment(), images=suite.test_images, rows=tuple(rows))


def _exported(source: Source, scheme: str, data: DataSet, folder: Path) -> dict[str, Path]:
    """The files of ``source`` in ``folder``, by format."""
    file = folder / "model.keras"
    save_model(source.model, file)
    about = provenance_of(source.model.name, sha256_bytes(file.read_bytes()), data)
    made = {
        name: export_file(source, format=FORMATS[name], scheme=SCHEMES[scheme], provenance=about, folder=folder)
        for name in ("tflite", "onnx")
    }
    return {name: folder / artifact.file for name, artifact in made.items()}


def _tried(
    files: dict[str, Path], data: DataSet, count: int, pythons: dict[str, str], key: tuple[str, str, Io, OnnxCpu]
) -> list[Row]:
    images = data.test.images[:count]
    samples = data.inputs(images)
    wanted = outputs_of(task_of(files["tflite"]), samples).argmax(axis=1)
    model, scheme, io, cpu = key
    rows = []
    every = [
        (name, format)
        for name, client in _CLIENTS.items()
        for format in client.formats
        if format == "onnx" or cpu == "any"
    ]
    with progress(f"{model}, {scheme}, {io}, {cpu}", len(every)) as advance:
        for name, format in every:
            own = to_inputs(samples, artifacts.load(files[format]).inputs)
            outcome = _outputs(name, pythons[name], files[format], _pictures(images) if name == "mediapipe" else own)
            failed = isinstance(outcome, str)
            rows.append(
                Row(
                    client=name, packages=_CLIENTS[name].packages, model=model, scheme=scheme, io=io, onnx_cpu=cpu,
                    format=format,
                    agree=None if failed else int((outcome.argmax(axis=1) == wanted).sum()),
                    reason=outcome if failed else "",
                )
            )  # fmt: skip
            advance(1)
    return rows


def _pictures(images: Any) -> Any:
    """The images as MediaPipe takes them: RGB, uint8."""
    return np.repeat(images, 3 // images.shape[-1], axis=-1)


def _outputs(client: str, python: str, model: Path, samples: Any) -> Any:
    """The outputs ``(n, values)`` of ``client``, or the reason why there are none."""
    with tempfile.TemporaryDirectory() as folder:
        given, got = Path(folder) / "samples.npy", Path(folder) / "outputs.npy"
        np.save(given, samples)
        command = [python, "-P", client_programs.__file__, client, str(model.absolute()), str(given), str(got)]
        try:
            done = subprocess.run(
                command, cwd=folder, capture_output=True, text=True, errors="replace", timeout=_LIMIT_S, check=False
            )
        except subprocess.TimeoutExpired:
            return f"no answer within {_LIMIT_S} s"
        if done.returncode == 0:
            return np.load(got)
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        return lines[-1] if done.returncode > 0 and lines else f"ended with status {done.returncode}"


def packages_of(client: str) -> tuple[str, ...]:
    """What is installed for a client, with versions."""
    return _CLIENTS[client].packages


def installed(name: str) -> str:
    """The Python of the environment of the client ``name`` in the cache folder, made if it is not there.

    The packages of a browser are in ``node_modules`` beside the environment.
    """
    client = _CLIENTS[name]
    if not client.packages:
        return sys.executable
    folder_name = "-".join(
        package.rpartition("@" if client.web else "==")[0].strip("@").replace("/", "-") for package in client.packages
    )
    folder = make_cache_folder(cache_folder() / "clients" / folder_name)
    ready, python = folder / "ready", folder / "venv" / "bin" / "python"
    wanted = "\n".join(client.packages)
    with locked(folder):
        if not (ready.is_file() and ready.read_text() == wanted):
            install = [str(python), "-P", "-m", "pip", "install", "--quiet", "numpy"]
            _done([sys.executable, "-P", "-m", "venv", "--clear", str(folder / "venv")])
            _done(install if client.web else [*install, *client.packages])
            if client.web:
                _done(["npm", "install", "--no-audit", "--no-fund", "--prefix", str(folder), *client.packages])
            ready.write_text(wanted)
    return str(python)


def _done(command: Sequence[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise MissingExtraError(f"{command[0]} is needed to install a client") from error
    if done.returncode:
        raise ArtifactError(f"{' '.join(command)} failed: {done.stderr.strip().splitlines()[-1:]}")


def table(result: Clients, source: str) -> str:
    """Clients by files as a Markdown table, and the reasons; ``source`` names the file of ``result``."""
    notes: dict[str, str] = {}
    lines = []
    for name, client in _CLIENTS.items():
        for format in client.formats:
            own = [row for row in result.rows if (row.client, row.format) == (name, format)]
            cells = [
                _cell([row for row in own if (row.scheme, row.io, row.onnx_cpu) == file], result.images, notes)
                for file in _FILES
            ]
            lines.append((client.title, f".{format}", *cells))
    models = " and ".join(dict.fromkeys(row.model for row in result.rows))
    packages = sorted({package for row in result.rows for package in row.packages})
    about = (
        f"Percent of {result.images} images that get LiteRT's class: {models}, one number if both have the same. On "
        f"{machine(result.environment)}, {', '.join(packages)}. Every result is in `{source}`."
    )
    marked = "\n".join(f"- ({mark}) {text}" for text, mark in notes.items())
    return f"{grid(('client', 'file', *map(_title, _FILES)), lines, words=2)}\n\n{marked}\n\n{about}"


def _title(file: tuple[str, Io, OnnxCpu]) -> str:
    scheme, io, cpu = file
    return scheme if scheme == "float32" else f"{scheme}, `--io {io}{'' if cpu == 'any' else f' --onnx-cpu {cpu}'}`"


def _cell(rows: Sequence[Row], images: int, notes: dict[str, str]) -> str:
    """The results for the models, and marks of the reasons."""
    found = []
    for row in rows:
        if row.agree is None:
            mark = notes.setdefault(row.reason[:_REASON], chr(ord("a") + len(notes)))
            found.append(f"– ({mark})")
        else:
            share = units.percent(row.agree / images)
            found.append(share if row.agree > _WRONG * images else f"**wrong**: {share}")
    return " · ".join(dict.fromkeys(found))
