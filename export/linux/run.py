"""Classify an image with a model that edgecnn exported, on any machine with Python 3.9 or newer.

Needs numpy and one runtime: ai-edge-litert (or tflite-runtime) for .tflite, onnxruntime for .onnx. What the model
takes and gives is read from its sidecar, MODEL.json; an .onnx file without one carries the same in its metadata.
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
MOST_BYTES = 16 * 1024**2

# What JSON, or a tree of it that is no record, raises
NO_RECORD = (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError, OverflowError)


class KitError(Exception):
    """Something the user can put right, in one line."""


class Litert:
    """A .tflite file in the LiteRT (TensorFlow Lite) interpreter, with one thread."""

    def __init__(self, path: Path) -> None:
        module = first_module("ai-edge-litert", "ai_edge_litert.interpreter", "tflite_runtime.interpreter")
        try:
            self.interpreter = module.Interpreter(model_path=str(path), num_threads=1)
            self.interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise KitError(f"the runtime cannot load {path}: {first_line(error)}") from error
        self.input = self.interpreter.get_input_details()[0]["index"]
        self.output = self.interpreter.get_output_details()[0]["index"]

    def record(self) -> dict[str, Any] | None:
        """Nothing: Python's interpreter does not show a .tflite file's metadata."""
        return None

    def put(self, array: np.ndarray) -> None:
        """Set the input."""
        self.interpreter.set_tensor(self.input, array)

    def invoke(self) -> None:
        """Run the model once."""
        self.interpreter.invoke()

    def get(self) -> np.ndarray:
        """The output ``(1, classes)``, as stored."""
        output: np.ndarray = self.interpreter.get_tensor(self.output)
        return output


def sums_saturate() -> bool:
    """Whether the runtime's sums of int8 products can saturate: on x86 with AVX2 and without VNNI.

    Files exported for any processor are right there as they are; those exported for VNNI need an option, which costs
    time elsewhere.
    """
    try:
        features = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").split()
    except OSError:
        return False
    return "avx2" in features and "avx512_vnni" not in features and "avx_vnni" not in features


class Onnxruntime:
    """An .onnx file in ONNX Runtime, on the CPU with one thread."""

    def __init__(self, path: Path) -> None:
        os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # since 1.29 it reports on its user otherwise
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
        self.binding.bind_output(self.session.get_outputs()[0].name)

    def record(self) -> dict[str, Any] | None:
        """What the sidecar says of input, output and provenance, from the metadata in the file."""
        keys = {"provenance": "edgecnn", "input": "edgecnn.input", "output": "edgecnn.output"}
        try:
            stored = self.session.get_modelmeta().custom_metadata_map
            record = {name: json.loads(stored[key]) for name, key in keys.items()}
            check_record(record)
        except NO_RECORD:  # damaged metadata are none
            return None
        return record

    def put(self, array: np.ndarray) -> None:
        """Set the input."""
        self.binding.bind_cpu_input(self.session.get_inputs()[0].name, array)

    def invoke(self) -> None:
        """Run the model once."""
        self.session.run_with_iobinding(self.binding)

    def get(self) -> np.ndarray:
        """The output ``(1, classes)``, as stored."""
        output: np.ndarray = self.binding.copy_outputs_to_cpu()[0]
        return output


RUNTIMES: dict[str, type[Litert] | type[Onnxruntime]] = {".tflite": Litert, ".onnx": Onnxruntime}


class Model:
    """A model file in its runtime, with what its record says of input, output, labels and preprocessing."""

    def __init__(self, path: Path) -> None:
        if path.suffix not in RUNTIMES:
            raise KitError(f"{path} is no model for this program; give a file ending in {' or '.join(RUNTIMES)}")
        self.sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        sidecar = path.with_name(path.name + ".json")
        record = None
        try:
            if sidecar.is_file():
                record = read_sidecar(sidecar)
                if record["sha256"] != self.sha256:
                    raise KitError(
                        f"{path} is not the file {sidecar.name} describes (SHA-256 differs); copy both again"
                    )
                check_record(record)
            self.runtime = RUNTIMES[path.suffix](path)
            record = record or self.runtime.record()
            if record is None:
                raise KitError(f"{path} needs its sidecar {sidecar.name} beside it; copy it too")
            self.input, self.output = record["input"], record["output"]
            self.labels = record["provenance"]["labels"]
            self.preprocessing = record["provenance"]["preprocessing"]
        except NO_RECORD as error:
            raise KitError(f"{sidecar} is not a record of an edgecnn model: {first_line(error)}") from error

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels of the image the model takes."""
        first, second, third = self.input["shape"][1:]
        return (second, third, first) if self.input["layout"] == "NCHW" else (first, second, third)

    def put(self, image: np.ndarray) -> None:
        """Set the input to ``image`` ``(height, width, channels)``: uint8 raw values, or floats in the input range."""
        values = image[np.newaxis].astype(np.float32)
        if image.dtype == np.uint8:
            values = values * np.float32(self.preprocessing["scale"]) + np.float32(self.preprocessing["offset"])
        if self.input["layout"] == "NCHW":
            values = values.transpose(0, 3, 1, 2)
        quantization = self.input["quantization"]
        if quantization is not None:
            info = np.iinfo(self.input["dtype"])
            steps = np.round(values / np.float32(quantization["scale"][0])) + quantization["zero_point"][0]
            values = np.clip(steps, info.min, info.max)
        self.runtime.put(np.ascontiguousarray(values, dtype=self.input["dtype"]))

    def get(self) -> np.ndarray:
        """The output as float32 ``(classes,)``."""
        values = self.runtime.get().reshape(-1)
        quantization = self.output["quantization"]
        if quantization is not None:
            values = (values.astype(np.int32) - quantization["zero_point"][0]) * np.float32(quantization["scale"][0])
        return values.astype(np.float32)

    def classify(self, image: np.ndarray) -> np.ndarray:
        """The output for one image, as ``put`` takes it and ``get`` gives it."""
        try:
            self.put(image)
            self.runtime.invoke()
            output = self.get()
        except Exception as error:  # each runtime has errors of its own
            raise KitError(f"the runtime cannot run the model: {first_line(error)}") from error
        if len(output) != len(self.labels):
            raise KitError(f"the model has {len(output)} classes, its record names {len(self.labels)}; copy both again")
        return output


def read_sidecar(path: Path) -> dict[str, Any]:
    """The JSON at ``path``."""
    if path.stat().st_size > MOST_BYTES:
        raise ValueError(f"it has more than {MOST_BYTES >> 20} MiB")
    record: dict[str, Any] = json.loads(path.read_bytes())
    return record


def check_record(record: dict[str, Any]) -> None:
    """Raise one of ``NO_RECORD`` where ``record`` is not what an edgecnn model says of itself."""
    for kind in ("input", "output"):
        spec, shape = record[kind], record[kind]["shape"]
        if spec["dtype"] not in ("float32", "int8", "uint8") or not all(size is None or whole(size) for size in shape):
            raise ValueError(f"the {kind} is {spec['dtype']} {shape}")
        if kind == "input" and (len(shape) != 4 or None in shape[1:] or spec["layout"] not in ("NHWC", "NCHW")):
            raise ValueError(f"the input is no image: {spec['layout']} {shape}")
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
    """The first of the modules that is installed; ``package`` is what to install where none is."""
    for name in names:
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    raise KitError(f"no runtime for this file; run: pip install {package}")


def first_line(error: Exception) -> str:
    """What an error says, in one line."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def read_image(path: Path, shape: tuple[int, int, int]) -> np.ndarray:
    """The image at ``path``, uint8 or float32, of exactly ``shape`` (height, width, channels)."""
    suffix = path.suffix.lower()
    if suffix == ".npy":
        image = read_npy(path)
    elif suffix == ".raw":
        image = np.frombuffer(path.read_bytes(), np.uint8)
        if image.size != np.prod(shape):
            raise KitError(f"{path} holds {image.size} bytes; the model takes {sized(shape)}, one byte each")
        image = image.reshape(shape)
    elif suffix in (".pgm", ".ppm"):
        image = read_netpbm(path)
    else:
        image = read_with_pillow(path, "L" if shape[2] == 1 else "RGB")
    if image.ndim == 2:
        image = image[..., np.newaxis]
    if image.shape != shape:
        raise KitError(f"{path} is {sized(image.shape)}; the model takes {sized(shape)}")
    return image


def sized(shape: tuple[int, ...]) -> str:
    """A shape for people: ``28 × 28 × 1``."""
    return " × ".join(map(str, shape))


def read_npy(path: Path) -> np.ndarray:
    """The array in a .npy file: uint8, or any float as float32."""
    try:
        with path.open("rb") as file:
            image = np.lib.format.read_array(file, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise KitError(f"{path} is not a .npy file: {first_line(error)}") from error
    if image.dtype != np.uint8 and image.dtype.kind != "f":
        raise KitError(f"{path} holds {image.dtype}; save it as uint8 (raw values) or float32 (model input)")
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
        raise KitError(f"{path} holds {pixels.size} values; its head says {sized(shape)}")
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


def show(model: Model, image: np.ndarray, runs: int) -> None:
    """Print the class of ``image``, its score, and how long the runtime takes for it."""
    scores = model.classify(image)
    times = []
    for _ in range(WARM_UP + runs):
        start = time.perf_counter()
        model.runtime.invoke()
        times.append((time.perf_counter() - start) * 1e6)
    times = times[WARM_UP:]
    low, high = np.percentile(times, (5, 95))
    top = int(scores.argmax())
    print(f"label  {shown(model.labels[top])}")
    print(f"score  {scores[top]:.4f}")
    print(f"time   {statistics.median(times):.1f} µs (median of {runs} runs; 90 % within {low:.1f} to {high:.1f} µs)")


def check(model: Model, path: Path) -> None:
    """Compare the model's answers on the images in ``path`` with the desk's."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            golden = {name: stored[name] for name in ("sha256", "images", "outputs", "tolerance")}
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise KitError(f"{path} does not hold golden answers: {first_line(error)}") from error
    if str(golden["sha256"]) != model.sha256:
        raise KitError(f"{path} belongs to another model; copy the kit again")
    allowed = float(golden["tolerance"])
    largest = 0.0
    for index, (image, expected) in enumerate(zip(golden["images"], golden["outputs"])):  # noqa: B905 - Python 3.9
        output = model.classify(image)
        label, wanted = (model.labels[int(one.argmax())] for one in (output, expected))
        apart = float(np.abs(output - expected).max())
        if label != wanted or not apart <= allowed:  # NaN is no answer either
            answers = f"label {label}, desk {wanted}; outputs {apart:.3g} apart, {allowed:.3g} allowed"
            raise KitError(f"golden image {index}: {answers}")
        largest = max(largest, apart)
    count = len(golden["images"])
    print(f"ok: {count} images as on the desk; outputs at most {largest:.3g} apart, {allowed:.3g} allowed")


def main() -> None:
    """Parse the command line and do what it says."""
    parser = argparse.ArgumentParser(description="Classify an image with a model that edgecnn exported.")
    parser.add_argument("model", type=Path, help="the .tflite or .onnx file")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("image", type=Path, nargs="?", help=".npy, .pgm, .ppm, .raw (8-bit), or .png with Pillow")
    what.add_argument("--check", action="store_true", help="compare with the desk's answers in golden.npz")
    parser.add_argument("--runs", type=int, default=200, help="how often to time the model (default: 200)")
    given = parser.parse_args()
    if given.runs < 1:
        parser.error("--runs must be 1 or more")
    try:
        model = Model(given.model)
        if given.check:
            check(model, given.model.with_name("golden.npz"))
        else:
            show(model, read_image(given.image, model.shape), given.runs)
    except KitError as problem:
        sys.exit(f"run.py: {shown(problem)}")
    except OSError as error:
        sys.exit(f"run.py: cannot read {shown(error.filename)}: {error.strerror}")


if __name__ == "__main__":
    main()
