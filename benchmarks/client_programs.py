"""One function for each program that runs exported files; each runs in an environment that has only that program.

    python client_programs.py CLIENT MODEL SAMPLES OUTPUTS

SAMPLES are those of the file itself, ``(n, …)``: quantised, in its layout. OUTPUTS become ``(n, values)``, as the
client gives them. MediaPipe gets raw images ``(n, height, width, 3)`` of uint8 instead.
"""

import http.server
import json
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
_LIMIT_S = 120


def litert_signature(model: Path, samples: Array) -> Iterator[Array]:
    """LiteRT's interpreter, by the names of the signature."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(model))
    (name,) = interpreter.get_signature_list()["serving_default"]["inputs"]
    runner = interpreter.get_signature_runner("serving_default")
    for sample in samples:
        (output,) = runner(**{name: sample[None]}).values()
        yield output


def litert_compiled(model: Path, samples: Array) -> Iterator[Array]:
    """LiteRT's CompiledModel, the interface that follows the interpreter."""
    from ai_edge_litert.compiled_model import CompiledModel

    compiled = CompiledModel.from_file(str(model))
    (shape,) = (each["shape"] for each in compiled.get_output_tensor_details("serving_default").values())
    inputs, outputs = compiled.create_input_buffers(0), compiled.create_output_buffers(0)
    dtype = np.float32 if samples.dtype == np.float32 else samples.dtype
    for sample in samples:
        inputs[0].write(np.ascontiguousarray(sample[None]))
        compiled.run_by_index(0, inputs, outputs)
        yield outputs[0].read(int(np.prod(shape)), dtype)


def mediapipe(model: Path, samples: Array) -> Iterator[Array]:
    """MediaPipe Tasks: ImageClassifier, with labels and normalisation from the file; scores in the labels' order."""
    import mediapipe as mp
    from mediapipe.tasks.python import BaseOptions, vision

    options = vision.ImageClassifierOptions(base_options=BaseOptions(model_asset_path=str(model)))
    with vision.ImageClassifier.create_from_options(options) as classifier:
        for sample in samples:
            image = mp.Image(image_format=mp.ImageFormat.SRGB, data=np.ascontiguousarray(sample))
            categories = classifier.classify(image).classifications[0].categories
            if any(category.category_name is None for category in categories):
                raise ValueError("the categories have no labels")
            yield np.array([each.score for each in sorted(categories, key=lambda each: each.index)])


def onnxruntime(model: Path, samples: Array) -> Iterator[Array]:
    """ONNX Runtime in Python."""
    import onnxruntime as ort

    session = ort.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    for sample in samples:
        yield session.run(None, {session.get_inputs()[0].name: sample[None]})[0]


def openvino(model: Path, samples: Array) -> Iterator[Array]:
    """OpenVINO on the CPU, with its defaults."""
    import openvino as ov

    compiled = ov.Core().compile_model(str(model), "CPU")
    for sample in samples:
        yield compiled(sample[None])[0]


def opencv(model: Path, samples: Array) -> Iterator[Array]:
    """OpenCV's dnn module, with its default engine."""
    return _opencv(model, samples, "ENGINE_AUTO")


def opencv_classic(model: Path, samples: Array) -> Iterator[Array]:
    """OpenCV's dnn module, with its classic engine."""
    return _opencv(model, samples, "ENGINE_CLASSIC")


def _opencv(model: Path, samples: Array, engine: str) -> Iterator[Array]:
    import cv2

    net = cv2.dnn.readNet(str(model), engine=getattr(cv2.dnn, engine))
    if model.suffix == ".tflite" and samples.ndim == 4:  # OpenCV's images have channels first, whatever the file has
        samples = samples.transpose(0, 3, 1, 2)
    for sample in samples:
        net.setInput(np.ascontiguousarray(sample[None]))
        yield net.forward()


def ncnn(model: Path, samples: Array) -> Iterator[Array]:
    """Ncnn, converted by pnnx."""
    import ncnn as runtime

    with tempfile.TemporaryDirectory() as folder:
        copy = Path(shutil.copy(model, Path(folder) / "model.onnx"))
        shape = ",".join(map(str, (1, *samples.shape[1:])))
        kind = {"float32": "f32", "int8": "i8", "uint8": "u8"}[samples.dtype.name]
        pnnx = Path(sys.executable).with_name("pnnx")
        done = subprocess.run(
            [str(pnnx), str(copy), f"inputshape=[{shape}]{kind}"],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
        param = copy.with_suffix(".ncnn.param")
        said = (done.stderr + done.stdout).splitlines()
        if unknown := sorted({line.split()[1] for line in said if line.startswith("todo ")}):
            raise ValueError(f"pnnx converts no {', '.join(unknown)}")
        if not param.is_file():
            raise ValueError(f"pnnx: {said[-1] if said else f'exit status {done.returncode}'}")
        net = runtime.Net()
        net.load_param(str(param))
        net.load_model(str(copy.with_suffix(".ncnn.bin")))
        for sample in samples:
            extractor = net.create_extractor()
            extractor.input("in0", runtime.Mat(np.ascontiguousarray(sample)))
            _, output = extractor.extract("out0")
            yield np.array(output)


def mnn(model: Path, samples: Array) -> Iterator[Array]:
    """MNN, converted by mnnconvert."""
    import MNN

    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "model.mnn"
        source = {".tflite": "TFLITE", ".onnx": "ONNX"}[model.suffix]
        program = Path(sys.executable).with_name("mnnconvert")
        done = subprocess.run(
            [str(program), "-f", source, "--modelFile", str(model), "--MNNModel", str(made), "--bizCode", "x"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if not made.is_file():
            said = [line.strip() for line in (done.stdout + done.stderr).splitlines() if "what()" in line]
            raise ValueError(f"mnnconvert: {said[-1] if said else f'exit status {done.returncode}'}")
        net = MNN.nn.load_module_from_file(str(made), [], [])
        order = MNN.expr.NCHW if model.suffix == ".onnx" else MNN.expr.NHWC
        kind = {"float32": MNN.expr.float, "int8": MNN.expr.int8, "uint8": MNN.expr.uint8}[samples.dtype.name]
        for sample in samples:
            variable = MNN.expr.const(np.ascontiguousarray(sample[None]), list(sample[None].shape), order, kind)
            output = net.forward(variable)
            yield np.array(MNN.expr.convert(output, MNN.expr.NCHW).read())


def tract(model: Path, samples: Array) -> Iterator[Array]:
    """Tract, the ONNX runtime in Rust."""
    import tract as runtime

    runnable = runtime.onnx().load(str(model)).into_model().into_runnable()
    for sample in samples:
        yield runnable.run([np.ascontiguousarray(sample[None])])[0].to_numpy()


def onnxruntime_web(model: Path, samples: Array) -> Iterator[Array]:
    """onnxruntime-web with WebAssembly, in headless Chromium."""
    yield from _in_chromium("onnxruntime-web", model, samples)


def litert_js(model: Path, samples: Array) -> Iterator[Array]:
    """LiteRT.js with WebAssembly, in headless Chromium."""
    yield from _in_chromium("litert-js", model, samples)


CLIENTS: dict[str, Callable[[Path, Array], Iterator[Array]]] = {
    "litert-signature": litert_signature,
    "litert-compiled": litert_compiled,
    "mediapipe": mediapipe,
    "onnxruntime": onnxruntime,
    "onnxruntime-web": onnxruntime_web,
    "litert-js": litert_js,
    "openvino": openvino,
    "opencv": opencv,
    "opencv-classic": opencv_classic,
    "ncnn": ncnn,
    "mnn": mnn,
    "tract": tract,
}

# `model` is the file, `kind` the type of the samples, and `shape` that of one, with its batch of 1.
OPEN = {
    "onnxruntime-web": """
import * as ort from "/node_modules/onnxruntime-web/dist/ort.wasm.min.mjs";
ort.env.wasm.wasmPaths = "/node_modules/onnxruntime-web/dist/";
async function open(model, kind, shape) {
  const session = await ort.InferenceSession.create(model);
  return async (sample) => {
    const results = await session.run({[session.inputNames[0]]: new ort.Tensor(kind, sample, shape)});
    return results[session.outputNames[0]].data;
  };
}
""",
    "litert-js": """
import * as litert from "@litertjs/core";
async function open(model, kind, shape) {
  await litert.loadLiteRt("/node_modules/@litertjs/core/wasm/");
  const compiled = await litert.loadAndCompile(model, {accelerator: "wasm"});
  return async (sample) => {
    const [result] = await compiled.run(new litert.Tensor(sample, shape));
    return await result.data();
  };
}
""",
}
_ANSWERS = """
const outputs = [];
for (let start = 0; start < all.length; start += size)
  outputs.push(Array.from(await run(all.slice(start, start + size))));
return outputs;
"""
_PAGE = """<!doctype html><meta charset="utf-8"><script type="importmap">{"imports": {
"@litertjs/core": "/node_modules/@litertjs/core/dist/index.js",
"@litertjs/wasm-utils": "/node_modules/@litertjs/wasm-utils/dist/index.js"
}}</script><script type="module">
%s
const about = await (await fetch("/about.json")).json();
const types = {float32: Float32Array, int8: Int8Array, uint8: Uint8Array};
try {
  const bytes = async (path) => new Uint8Array(await (await fetch(path)).arrayBuffer());
  const all = new types[about.kind]((await bytes("/samples.bin")).buffer);
  const run = await open(await bytes("/model"), about.kind, about.shape);
  const size = about.shape.reduce((one, other) => one * other, 1);
  const answer = await (async () => {%s})();
  await fetch("/done", {method: "POST", body: JSON.stringify({answer})});
} catch (error) {
  await fetch("/done", {method: "POST", body: JSON.stringify({error: String(error)})});
}
</script>"""


def _in_chromium(client: str, model: Path, samples: Array) -> list[Array]:
    """The outputs from a page in headless Chromium; its packages are in ``node_modules`` beside this environment."""
    outputs = in_chromium(OPEN[client], _ANSWERS, model.read_bytes(), samples, Path(sys.prefix).parent)
    return [np.array(output) for output in outputs]


def in_chromium(
    opening: str, work: str, model: bytes, samples: Array, packages: Path, headers: Mapping[str, str] | None = None
) -> Any:
    """What ``work`` returns in a page of a fresh headless Chromium, from a server with these ``headers``.

    ``opening`` is as in ``OPEN``. ``work`` is the body of an asynchronous function: ``run`` gives the outputs of a
    sample, ``all`` are the values of the samples, and ``size`` is how many one has. ``packages`` has ``node_modules``.

    Raises:
        ValueError: the page failed; the message has its error.
        TimeoutError: it gave no answer in time.
    """
    about = {"kind": samples.dtype.name, "shape": [1, *samples.shape[1:]]}
    contents: dict[str, tuple[str, bytes]] = {
        "/": ("text/html", (_PAGE % (opening, work)).encode()),
        "/about.json": ("application/json", json.dumps(about).encode()),
        "/model": ("application/octet-stream", model),
        "/samples.bin": ("application/octet-stream", np.ascontiguousarray(samples).tobytes()),
    }
    received: list[bytes] = []
    ended = threading.Event()

    class Handler(http.server.SimpleHTTPRequestHandler):
        extensions_map: ClassVar = {".mjs": "text/javascript", ".js": "text/javascript", ".wasm": "application/wasm"}

        def do_GET(self) -> None:
            if self.path not in contents:
                super().do_GET()
                return
            kind, content = contents[self.path]
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def end_headers(self) -> None:
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            super().end_headers()

        def do_POST(self) -> None:
            received.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(204)
            self.end_headers()
            ended.set()

        def log_message(self, *arguments: object) -> None:
            pass

    def handler(*arguments: Any) -> Handler:
        return Handler(*arguments, directory=str(packages))

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server, tempfile.TemporaryDirectory() as profile:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        browser = subprocess.Popen(
            ["chromium", "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}",
             f"http://127.0.0.1:{server.server_port}/"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            ended.wait(_LIMIT_S)
        finally:
            browser.kill()
            browser.wait()
            server.shutdown()
    if not received:
        raise TimeoutError(f"the page gave no answer within {_LIMIT_S} s")
    answer = json.loads(received[0])
    if "error" in answer:
        raise ValueError(answer["error"])
    return answer["answer"]


def _say(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    print(f"{kind.__name__}: {' '.join(str(error).split())[:300]}", file=sys.stderr)


def main() -> None:
    """Run a client; what it raises is one line on stderr."""
    sys.excepthook = _say
    client, model, samples, outputs = sys.argv[1:]
    found = [np.asarray(output).reshape(-1) for output in CLIENTS[client](Path(model), np.load(samples))]
    np.save(outputs, np.stack(found))


if __name__ == "__main__":
    main()
