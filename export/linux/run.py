"""Run a model exported by edgecnn on an image, or another input, on any machine with Python 3.9 or newer.

Needs numpy and one runtime: ai-edge-litert (or tflite-runtime) for .tflite, onnxruntime for .onnx. Inputs and outputs
are described by the sidecar, MODEL.json; an .onnx file without a sidecar has the same data in its metadata.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import os
import re
import statistics
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

try:
    import numpy as np
except ImportError:
    sys.exit("run.py: numpy is not installed; run: pip install numpy")

WARM_UP = 50
FEW = 8  # outputs to print
MOST_BYTES = 16 * 1024**2

# Exceptions from invalid JSON, or from JSON that is not a valid record
NO_RECORD = (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError, OverflowError)


class KitError(Exception):
    """An error that the user can fix, in one line."""


class Litert:
    """A .tflite file in the LiteRT (TensorFlow Lite) interpreter, with one thread."""

    def __init__(self, path: Path) -> None:
        module = first_module("ai-edge-litert", "ai_edge_litert.interpreter", "tflite_runtime.interpreter")
        try:
            self.interpreter = module.Interpreter(model_path=str(path), num_threads=1)
            self.interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise KitError(f"the runtime cannot load {path}: {first_line(error)}") from error
        self.inputs = [details["index"] for details in self.interpreter.get_input_details()]
        self.outputs = [details["index"] for details in self.interpreter.get_output_details()]

    def record(self) -> dict[str, Any] | None:
        """None: the Python interpreter does not expose a .tflite file's metadata."""
        return None

    def put(self, arrays: list[np.ndarray]) -> None:
        """Set the inputs."""
        for index, array in zip(self.inputs, arrays):  # noqa: B905 - Python 3.9
            self.interpreter.set_tensor(index, array)

    def invoke(self) -> None:
        """Run the model once."""
        self.interpreter.invoke()

    def get(self) -> list[np.ndarray]:
        """Each output ``(1, …)``, as stored."""
        return [self.interpreter.get_tensor(index) for index in self.outputs]


def sums_saturate() -> bool:
    """Whether the runtime's sums of int8 products can saturate: on x86 with AVX2 and without VNNI.

    Files exported for any processor are correct there; those exported for VNNI need an option, which is slower
    elsewhere.
    """
    try:
        features = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").split()
    except OSError:
        return False
    return "avx2" in features and "avx512_vnni" not in features and "avx_vnni" not in features


class Onnxruntime:
    """An .onnx file in ONNX Runtime, on the CPU with one thread."""

    def __init__(self, path: Path) -> None:
        os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # since 1.29 it sends telemetry by default
        module = first_module("onnxruntime", "onnxruntime")
        options = module.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        if sums_saturate():
            options.add_session_config_entry("session.x64quantprecision", "1")
        try:
            self.session = module.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise KitError(f"the runtime cannot load {path}: {first_line(error)}") from error
        self.binding = self.session.io_binding()
        self.inputs = [given.name for given in self.session.get_inputs()]
        for output in self.session.get_outputs():
            self.binding.bind_output(output.name)

    def record(self) -> dict[str, Any] | None:
        """Inputs, outputs and provenance from the metadata in the file; None if missing or damaged."""
        keys = {"provenance": "edgecnn", "input": "edgecnn.input", "output": "edgecnn.output"}
        try:
            stored = self.session.get_modelmeta().custom_metadata_map
            record = {name: json.loads(stored[key]) for name, key in keys.items()}
            for kind, count in (("input", len(self.inputs)), ("output", len(self.session.get_outputs()))):
                record[f"more_{kind}s"] = [json.loads(stored[f"edgecnn.{kind}.{one}"]) for one in range(1, count)]
            check_record(record)
        except NO_RECORD:  # damaged metadata is ignored
            return None
        return record

    def put(self, arrays: list[np.ndarray]) -> None:
        """Set the inputs."""
        for name, array in zip(self.inputs, arrays):  # noqa: B905 - Python 3.9
            self.binding.bind_cpu_input(name, array)

    def invoke(self) -> None:
        """Run the model once."""
        self.session.run_with_iobinding(self.binding)

    def get(self) -> list[np.ndarray]:
        """Each output ``(1, …)``, as stored."""
        outputs: list[np.ndarray] = self.binding.copy_outputs_to_cpu()
        return outputs


RUNTIMES: dict[str, type[Litert] | type[Onnxruntime]] = {".tflite": Litert, ".onnx": Onnxruntime}


class Model:
    """A model file in its runtime, with inputs, outputs, labels and preprocessing from its record.

    A sample is an array, or a list of arrays, one for each of several inputs.
    """

    def __init__(self, path: Path) -> None:
        if path.suffix not in RUNTIMES:
            raise KitError(f"{path} is not a supported model; give a file ending in {' or '.join(RUNTIMES)}")
        self.sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        sidecar = path.with_name(path.name + ".json")
        record = None
        try:
            if sidecar.is_file():
                record = read_sidecar(sidecar)
                if record["sha256"] != self.sha256:
                    raise KitError(
                        f"{path} does not match its sidecar {sidecar.name} (SHA-256 differs); copy both again"
                    )
                check_record(record)
            self.runtime = RUNTIMES[path.suffix](path)
            record = record or self.runtime.record()
            if record is None:
                raise KitError(f"{path} needs its sidecar {sidecar.name} in the same folder; copy it too")
            self.inputs, self.outputs = ends(record, "input"), ends(record, "output")
            self.task = record["provenance"].get("task", "classification")
            self.threshold = float(record["provenance"].get("threshold", 0.5))
            self.labels = record["provenance"]["labels"]
            self.preprocessing = record["provenance"]["preprocessing"]
        except NO_RECORD as error:
            raise KitError(f"{sidecar} is not a record of an edgecnn model: {first_line(error)}") from error

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """The shape of a sample of each input, channels last, such as height, width and channels of an image."""
        return [sample_shape(spec) for spec in self.inputs]

    def put(self, sample: np.ndarray | list[np.ndarray]) -> None:
        """Set the inputs to ``sample``, of the model's shapes: uint8 raw values, or floats in the input range."""
        arrays = [sample] if isinstance(sample, np.ndarray) else sample
        if len(arrays) != len(self.inputs):
            raise ValueError(f"the model has {len(self.inputs)} inputs, the sample {len(arrays)}")
        pairs = zip(self.inputs, arrays)  # noqa: B905 - Python 3.9
        self.runtime.put([self.encoded(spec, array) for spec, array in pairs])

    def encoded(self, spec: dict[str, Any], array: np.ndarray) -> np.ndarray:
        """The values of one input as it stores them, with a batch of 1."""
        values = array[np.newaxis].astype(np.float32)
        if array.dtype == np.uint8:
            values = values * np.float32(self.preprocessing["scale"]) + np.float32(self.preprocessing["offset"])
        if spec["layout"] == "NCHW":
            values = values.transpose(0, 3, 1, 2)
        quantization = spec["quantization"]
        if quantization is not None:
            info = np.iinfo(spec["dtype"])
            steps = np.round(values / np.float32(quantization["scale"][0])) + quantization["zero_point"][0]
            values = np.clip(steps, info.min, info.max)
        return np.ascontiguousarray(values, dtype=spec["dtype"])

    def get(self) -> np.ndarray:
        """All outputs as float32 ``(values,)``, one after the other, channels last."""
        found = []
        for spec, values in zip(self.outputs, self.runtime.get()):  # noqa: B905 - Python 3.9
            flat = (values.transpose(0, 2, 3, 1) if spec["layout"] == "NCHW" else values).reshape(-1)
            quantization = spec["quantization"]
            if quantization is not None:
                flat = (flat.astype(np.int32) - quantization["zero_point"][0]) * np.float32(quantization["scale"][0])
            found.append(flat.astype(np.float32))
        return np.concatenate(found)

    def run(self, sample: np.ndarray | list[np.ndarray]) -> np.ndarray:
        """All outputs, float32 ``(values,)``, for one sample as for ``put``."""
        try:
            self.put(sample)
            self.runtime.invoke()
            output = self.get()
        except Exception as error:  # each runtime has its own errors
            raise KitError(f"the runtime cannot run the model: {first_line(error)}") from error
        fitting = (len(self.labels), 1) if len(self.labels) == 2 else (len(self.labels),)
        if self.task == "classification" and len(output) not in fitting:
            raise KitError(f"the model has {len(output)} classes, its record has {len(self.labels)}; copy both again")
        return output

    def label(self, output: np.ndarray) -> str | None:
        """The class that ``output`` decides; None if the model does not classify."""
        if self.task != "classification":
            return None
        if len(output) > 1:
            return str(self.labels[int(output.argmax())])
        return str(self.labels[int(output[0] > self.threshold)])


def ends(record: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    """The descriptions of all inputs or outputs in a record; ``kind`` is "input" or "output"."""
    return [record[kind], *record.get(f"more_{kind}s", [])]


def sample_shape(spec: dict[str, Any]) -> tuple[int, ...]:
    """The shape of one sample of an input or output, channels last."""
    sizes = spec["shape"][1:]
    return (*sizes[1:], sizes[0]) if spec["layout"] == "NCHW" else tuple(sizes)


def read_sidecar(path: Path) -> dict[str, Any]:
    """The JSON at ``path``."""
    if path.stat().st_size > MOST_BYTES:
        raise ValueError(f"it has more than {MOST_BYTES >> 20} MiB")
    record: dict[str, Any] = json.loads(path.read_bytes())
    return record


def check_record(record: dict[str, Any]) -> None:
    """Raise one of ``NO_RECORD`` if ``record`` does not describe an edgecnn model."""
    every = [("input", spec) for spec in ends(record, "input")]
    for kind, spec in every + [("output", spec) for spec in ends(record, "output")]:
        shape = spec["shape"]
        if spec["dtype"] not in ("float32", "int8", "uint8") or not all(size is None or whole(size) for size in shape):
            raise ValueError(f"the {kind} is {spec['dtype']} {shape}")
        layouts = ("NHWC", "NCHW") if len(shape) == 4 else ("NC",)
        if len(shape) < 2 or None in shape[1:] or spec["layout"] not in layouts:
            raise ValueError(f"the {kind} has no fixed size, or another layout: {spec['layout']} {shape}")
        quantization = spec["quantization"]
        if (quantization is None) != (spec["dtype"] == "float32"):
            raise ValueError(f"the {kind} is {spec['dtype']} with the quantization {quantization}")
        if quantization is not None:
            scale, zero_point = quantization["scale"][0], quantization["zero_point"][0]
            if not (1e-30 < scale < 1e30 and isinstance(zero_point, int) and abs(zero_point) < 2**31):
                raise ValueError(f"the {kind} has the scale {scale} and the zero point {zero_point}")
    labels, preprocessing = record["provenance"]["labels"], record["provenance"]["preprocessing"]
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise ValueError("the labels are no texts")
    if not all(abs(preprocessing[name]) < 1e30 for name in ("scale", "offset")):
        raise ValueError(f"the preprocessing is {preprocessing}")


def whole(size: Any) -> bool:
    """Whether ``size`` may be one of a tensor's."""
    return isinstance(size, int) and 0 < size < 2**31


def shown(text: object) -> str:
    """``text`` on one line that prints, cut in the middle where it is long."""
    line = str(text)
    line = line if len(line) < 1000 else f"{line[:600]}…{line[-300:]}"
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in line)


def first_module(package: str, *names: str) -> Any:
    """Import the first installed module; ``package`` is named in the error if none is installed."""
    for name in names:
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    raise KitError(f"no runtime for this file; run: pip install {package}")


def first_line(error: Exception) -> str:
    """The first line of an error message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def read_image(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """The image, or another input, at ``path``, uint8 or float32, of exactly ``shape``."""
    suffix = path.suffix.lower()
    if suffix == ".npy":
        image = read_npy(path)
    elif suffix == ".raw":
        image = np.frombuffer(path.read_bytes(), np.uint8)
        if image.size != np.prod(shape):
            raise KitError(f"{path} has {image.size} bytes; the model expects {sized(shape)}, one byte each")
        image = image.reshape(shape)
    elif len(shape) != 3:
        raise KitError(f"{path}: the model's input is {sized(shape)}, not an image; give a .npy or .raw file")
    elif suffix in (".pgm", ".ppm"):
        image = read_netpbm(path)
    else:
        image = read_with_pillow(path, "L" if shape[2] == 1 else "RGB")
    if image.ndim == 2 and len(shape) == 3:
        image = image[..., np.newaxis]
    if image.shape != shape:
        raise KitError(f"{path} is {sized(image.shape)}; the model expects {sized(shape)}")
    return image


def sized(shape: tuple[int, ...]) -> str:
    """A shape as text: ``28 × 28 × 1``."""
    return " × ".join(map(str, shape))


def read_npy(path: Path) -> np.ndarray:
    """The array in a .npy file: uint8, or any float as float32."""
    try:
        with path.open("rb") as file:
            image = np.lib.format.read_array(file, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise KitError(f"{path} is not a .npy file: {first_line(error)}") from error
    if image.dtype != np.uint8 and image.dtype.kind != "f":
        raise KitError(f"{path} has dtype {image.dtype}; save it as uint8 (raw values) or float32 (model input)")
    return image if image.dtype == np.uint8 else image.astype(np.float32)


def read_netpbm(path: Path) -> np.ndarray:
    """A binary PGM (P5) or PPM (P6) file with 8 bits per value."""
    data = path.read_bytes()
    gap = rb"(?:\s|#[^\n]*\n)+"
    head = re.match(rb"P([56])" + gap + rb"(\d+)" + gap + rb"(\d+)" + gap + rb"255\s", data)
    if head is None:
        raise KitError(f"{path} is not a binary PGM or PPM file (P5 or P6) with values up to 255")
    shape = (int(head[3]), int(head[2]), 1 if head[1] == b"5" else 3)
    pixels = np.frombuffer(data, np.uint8, offset=head.end())
    if pixels.size != np.prod(shape):
        raise KitError(f"{path} has {pixels.size} values; its header says {sized(shape)}")
    return pixels.reshape(shape)


def read_with_pillow(path: Path, mode: str) -> np.ndarray:
    """A .png or any other 8-bit image, as grey ("L") or colour ("RGB")."""
    try:
        pillow = importlib.import_module("PIL.Image")
    except ImportError as error:
        raise KitError(f"reading {path} needs Pillow; run: pip install pillow, or use .pgm, .ppm or .npy") from error
    data = path.open("rb")
    try:
        with data, pillow.open(data) as image:
            if image.mode[0] in "IF":
                raise KitError(f"{path} has more than 8 bits per value; save it with 8")
            return np.asarray(image.convert(mode), np.uint8)
    except (OSError, SyntaxError) as error:
        raise KitError(f"{path} is not an image Pillow can read: {first_line(error)}") from error


def show(model: Model, sample: list[np.ndarray], runs: int) -> None:
    """Print the class of ``sample`` and its score, or the first values of each output, and the runtime's latency."""
    output = model.run(sample)
    times = []
    for _ in range(WARM_UP + runs):
        start = time.perf_counter()
        model.runtime.invoke()
        times.append((time.perf_counter() - start) * 1e6)
    times = times[WARM_UP:]
    low, high = np.percentile(times, (5, 95))
    label = model.label(output)
    if label is not None:
        print(f"label  {shown(label)}")
        print(f"score  {output.max():.4f}")
    elif len(output) == len(model.labels):
        for name, value in zip(model.labels, output):  # noqa: B905 - Python 3.9
            print(f"{shown(name)}  {value:.4f}")
    else:
        sizes = [int(np.prod(sample_shape(spec))) for spec in model.outputs]
        for spec, values in zip(model.outputs, np.split(output, np.cumsum(sizes)[:-1])):  # noqa: B905 - Python 3.9
            name = shown(spec["name"]) if len(sizes) > 1 else "output"
            print(f"{name} {' '.join(f'{value:.4g}' for value in values[:FEW])}{' …' if len(values) > FEW else ''}")
    print(f"time   {statistics.median(times):.1f} µs (median of {runs} runs; 90 % within {low:.1f} to {high:.1f} µs)")


def check(model: Model, path: Path) -> None:
    """Compare the model's outputs on the samples in ``path`` with the host's."""
    images = [f"images.{place}" for place in range(len(model.inputs))] if len(model.inputs) > 1 else ["images"]
    try:
        with np.load(path, allow_pickle=False) as stored:
            golden = {name: stored[name] for name in ("sha256", *images, "outputs", "tolerance")}
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise KitError(f"{path} does not contain golden outputs: {first_line(error)}") from error
    if str(golden["sha256"]) != model.sha256:
        raise KitError(f"{path} belongs to another model; copy the kit again")
    limits = np.broadcast_to(golden["tolerance"], golden["outputs"].shape[1:])
    largest, allowed = 0.0, float(limits[0])
    for index, expected in enumerate(golden["outputs"]):
        output = model.run([golden[name][index] for name in images])
        label, wanted = model.label(output), model.label(expected)
        differences = np.abs(output - expected)
        worst = int((differences / limits).argmax())
        difference, limit = float(differences[worst]), float(limits[worst])
        if label != wanted or not difference <= limit:  # also catches NaN
            labels = "" if label is None else f"label {label}, on the host {wanted}; "
            outcome = f"{labels}largest output difference {difference:.3g}"
            raise KitError(f"golden image {index}: {outcome} (limit {limit:.3g})")
        if index == 0 or difference / limit > largest / allowed:
            largest, allowed = difference, limit
    count = len(golden["outputs"])
    print(f"ok: {count} images as on the host; largest output difference {largest:.3g} (limit {allowed:.3g})")


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description="Run a model exported by edgecnn on an image.")
    parser.add_argument("model", type=Path, help="the .tflite or .onnx file")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "image",
        type=Path,
        nargs="*",
        default=[],
        help=".npy, .pgm, .ppm, .raw, or .png with Pillow; one per input",
    )
    what.add_argument("--check", action="store_true", help="compare with the host's outputs in golden.npz")
    parser.add_argument("--runs", type=int, default=200, help="number of timed calls (default: 200)")
    given = parser.parse_args()
    if given.runs < 1:
        parser.error("--runs must be 1 or more")
    try:
        model = Model(given.model)
        if given.check:
            check(model, given.model.with_name("golden.npz"))
        elif len(given.image) != len(model.inputs):
            names = ", ".join(shown(spec["name"]) for spec in model.inputs)
            raise KitError(f"the model has {len(model.inputs)} inputs, {names}; give a file for each, in this order")
        else:
            sample = [read_image(*pair) for pair in zip(given.image, model.shapes)]  # noqa: B905 - Python 3.9
            show(model, sample, given.runs)
    except KitError as problem:
        sys.exit(f"run.py: {shown(problem)}")
    except OSError as error:
        sys.exit(f"run.py: cannot read {shown(error.filename)}: {error.strerror}")


if __name__ == "__main__":
    main()
