"""For tests of generated C: small .tflite files built by hand, compilers, and TFLite Micro in a process of its own."""

import contextlib
import ctypes
import importlib.util
import os
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from edgecnn.formats.c99 import Generated, to_c
from edgecnn.tflite.graph import read_graph

Bytes = NDArray[Any]
WARNINGS = ["-std=c99", "-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Werror"]

# in CI a tool that is missing fails its tests
needs_tflm = pytest.mark.skipif(
    importlib.util.find_spec("tflite_micro") is None and "CI" not in os.environ, reason="needs the package tflite-micro"
)


def need(*tools: str) -> None:
    """Skip the test where tools are missing, with their names; in CI, fail it."""
    missing = [tool for tool in tools if shutil.which(tool) is None]
    if missing:
        (pytest.fail if "CI" in os.environ else pytest.skip)(f"needs {', '.join(missing)}")


def packed(data: Any) -> bytes:
    """Integers of four bits, two in a byte, the first in its lower half."""
    halves = np.asarray(data, np.int8).reshape(-1).astype(np.uint8) & 15
    halves = np.append(halves, [0] * (len(halves) % 2)).astype(np.uint8)
    return bytes(halves[::2] | halves[1::2] << 4)


class Model:
    """A .tflite file in the making: one input, one output, operators in a row or as a graph."""

    def __init__(self) -> None:
        self.model = schema.ModelT()
        self.model.version = 3
        self.model.operatorCodes = []
        self.model.buffers = [schema.BufferT()]
        self.graph = schema.SubGraphT()
        self.graph.tensors, self.graph.operators = [], []
        self.model.subgraphs = [self.graph]

    def tensor(
        self,
        shape: Sequence[int],
        dtype: str = "int8",
        scale: Any = None,
        zero: Any = 0,
        axis: int = 0,
        data: Any = None,
        signature: Sequence[int] | None = None,
        variable: bool = False,
    ) -> int:
        tensor = schema.TensorT()
        tensor.name = f"t{len(self.graph.tensors)}"
        tensor.shape, tensor.type = list(shape), getattr(schema.TensorType, dtype.upper())
        tensor.shapeSignature = None if signature is None else list(signature)
        tensor.isVariable = variable
        tensor.buffer = 0
        if data is not None:
            buffer = schema.BufferT()
            buffer.data = list(packed(data) if dtype == "int4" else np.asarray(data, dtype).tobytes())
            tensor.buffer = len(self.model.buffers)
            self.model.buffers.append(buffer)
        if scale is not None:
            tensor.quantization = schema.QuantizationParametersT()
            tensor.quantization.scale = [float(value) for value in np.atleast_1d(scale)]
            zeros = np.broadcast_to(zero, (len(tensor.quantization.scale),))
            tensor.quantization.zeroPoint = [int(value) for value in zeros]
            tensor.quantization.quantizedDimension = axis
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    @contextlib.contextmanager
    def subgraph(self) -> Iterator[None]:
        """Tensors and operators made in this context are those of another subgraph, without inputs and outputs."""
        main, self.graph = self.graph, schema.SubGraphT()
        self.graph.tensors, self.graph.operators, self.graph.inputs, self.graph.outputs = [], [], [], []
        self.model.subgraphs.append(self.graph)
        yield
        self.graph = main

    def operator(
        self,
        kind: str,
        inputs: Sequence[int],
        outputs: int | Sequence[int],
        options: str = "",
        version: int = 1,
        **values: Any,
    ) -> None:
        code = schema.OperatorCodeT()
        code.builtinCode = getattr(schema.BuiltinOperator, kind)
        code.deprecatedBuiltinCode = min(code.builtinCode, 127)
        code.version = version
        self.model.operatorCodes.append(code)
        operator = schema.OperatorT()
        operator.opcodeIndex = len(self.model.operatorCodes) - 1
        operator.inputs = list(inputs)
        operator.outputs = [outputs] if isinstance(outputs, int) else list(outputs)
        if options:
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, options)
            operator.builtinOptions = getattr(schema, f"{options}T")()
            for name, value in values.items():
                assert hasattr(operator.builtinOptions, name)
                setattr(operator.builtinOptions, name, value)
        self.graph.operators.append(operator)

    def file(self, source: int | Sequence[int], target: int | Sequence[int]) -> bytes:
        self.graph.inputs, self.graph.outputs = (
            [end] if isinstance(end, int) else list(end) for end in (source, target)
        )
        builder = flatbuffers.Builder(1024)
        builder.Finish(self.model.Pack(builder), b"TFL3")
        return bytes(builder.Output())


def generate(model: bytes, folder: Path, name: str = "m", **options: Any) -> Generated:
    """Write the C code of a .tflite file into ``folder``."""
    generated = to_c(read_graph(model, "x.tflite"), name, **options)
    (folder / f"{name}.h").write_text(generated.header)
    (folder / f"{name}.c").write_text(generated.source)
    return generated


def ends(model: bytes) -> tuple[tuple[int, ...], tuple[int, ...], Any, Any]:
    """Shapes and types of a file's input and output."""
    graph = read_graph(model, "x.tflite")
    source, target = graph.tensors[graph.inputs[0]], graph.tensors[graph.outputs[0]]
    shapes = [tuple(max(size, 1) for size in tensor.shape) for tensor in (source, target)]
    return shapes[0], shapes[1], np.dtype(source.dtype), np.dtype(target.dtype)


def random_inputs(model: bytes, count: int, seed: int = 0) -> Bytes:
    """Images of all lowest, of all highest, and of random integers."""
    shape, _, dtype, _ = ends(model)
    info = np.iinfo(dtype)
    images = np.random.default_rng(seed).integers(info.min, info.max + 1, (count, *shape)).astype(dtype)
    images[0], images[1] = info.min, info.max
    return images


def compiled(folder: Path, name: str = "m", compiler: str = "cc", *flags: str) -> Any:
    """``<name>_invoke`` of the code in ``folder``, in this process."""
    library = Path(tempfile.mkdtemp(dir=folder)) / "m.so"
    command = [compiler, *WARNINGS, *(flags or ("-O1",)), "-shared", "-fPIC", "-o", str(library), f"{folder}/{name}.c"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return getattr(ctypes.CDLL(str(library)), f"{name}_invoke")


def run(invoke: Any, model: bytes, images: Bytes) -> Bytes:
    """Outputs of ``invoke`` for each image."""
    _, shape, _, dtype = ends(model)
    results = np.zeros((len(images), *shape), dtype)
    for image, result in zip(np.ascontiguousarray(images), results, strict=True):
        invoke(image.ctypes.data_as(ctypes.c_void_p), result.ctypes.data_as(ctypes.c_void_p))
    return results


_MAIN = """
#include "m.h"
#include <stdio.h>
#include <stdlib.h>
int main(void)
{
    /* exactly as large as needed, so that a sanitizer sees every step beyond */
    void *input = malloc(M_INPUT_SIZE), *output = malloc(M_OUTPUT_SIZE);
    while (fread(input, 1, M_INPUT_SIZE, stdin) == M_INPUT_SIZE) {
        m_invoke(input, output);
        fwrite(output, 1, M_OUTPUT_SIZE, stdout);
    }
    free(input);
    free(output);
    return 0;
}
"""


def run_program(folder: Path, model: bytes, images: Bytes, compile_with: Sequence[str], emulator: str = "") -> Bytes:
    """Outputs of the code of ``m`` in ``folder`` as a program of its own."""
    (folder / "main.c").write_text(_MAIN)
    program = folder / "program"
    sources = [str(folder / "m.c"), str(folder / "main.c")]
    done = subprocess.run([*compile_with, *WARNINGS, "-o", str(program), *sources], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    command = [*([emulator] if emulator else []), str(program)]
    ran = subprocess.run(command, input=np.ascontiguousarray(images).tobytes(), capture_output=True)
    assert ran.returncode == 0, ran.stderr.decode(errors="replace")[-2000:]
    _, shape, _, dtype = ends(model)
    return np.frombuffer(ran.stdout, dtype).reshape(len(images), *shape)


DUAL_MAC_TOOLS = ("arm-linux-gnueabihf-gcc", "qemu-arm")


def dual_mac_tools() -> bool:
    """Whether code for ARM's DSP instructions can be compiled and run here."""
    return all(map(shutil.which, DUAL_MAC_TOOLS))


DUAL_MAC = ["arm-linux-gnueabihf-gcc", "-static", "-O1", "-march=armv7-a", "-mfpu=neon-vfpv4", "-mthumb"]

_WORKER = """
import struct, sys
import numpy as np
from tflite_micro import runtime
source, sink = sys.stdin.buffer, sys.stdout.buffer
while (head := source.read(16)):
    size, count, bytes_each = struct.unpack("<IIQ", head)
    model, raw = source.read(size), source.read(count * bytes_each)
    interpreter = runtime.Interpreter.from_bytes(model, arena_size=8 << 20)
    details = interpreter.get_input_details(0)
    images = np.frombuffer(raw, details["dtype"]).reshape(count, *details["shape"])
    for image in images:
        interpreter.set_input(image, 0)
        interpreter.invoke()
        answer = interpreter.get_output(0).tobytes()
        sink.write(struct.pack("<I", len(answer)) + answer)
    sink.flush()
"""


class Tflm:
    """TFLite Micro, which ends its whole process where a check fails: then the next question starts another."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None

    def __call__(self, model: bytes, images: Bytes) -> Bytes:
        """Outputs for each image.

        Raises:
            RuntimeError: TFLite Micro refused the model.
        """
        if self.process is None or self.process.poll() is not None:
            self.process = subprocess.Popen(
                [sys.executable, "-c", _WORKER],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        raw = np.ascontiguousarray(images)
        answers = []
        try:
            self.process.stdin.write(struct.pack("<IIQ", len(model), len(raw), raw.nbytes // len(raw)))
            self.process.stdin.write(model + raw.tobytes())
            self.process.stdin.flush()
        except BrokenPipeError as error:
            self.close()
            raise RuntimeError("TFLite Micro refused the model") from error
        for _ in raw:
            head = self.process.stdout.read(4)
            if len(head) < 4:
                self.close()
                raise RuntimeError("TFLite Micro refused the model")
            answers.append(self.process.stdout.read(struct.unpack("<I", head)[0]))
        _, shape, _, dtype = ends(model)
        return np.frombuffer(b"".join(answers), dtype).reshape(len(raw), *shape)

    def close(self) -> None:
        if self.process is not None:
            for pipe in (self.process.stdin, self.process.stdout):
                with contextlib.suppress(BrokenPipeError):
                    if pipe is not None:
                        pipe.close()
            self.process.wait()
            self.process = None


@contextlib.contextmanager
def tflm_process() -> Iterator[Tflm]:
    tflm = Tflm()
    try:
        yield tflm
    finally:
        tflm.close()


def convolution_weights(draw_seed: int, shape: Sequence[int], channels: int, scales: int) -> tuple[Bytes, Bytes, Bytes]:
    """Random weights, scales and a bias, also extreme ones."""
    random = np.random.default_rng(draw_seed)
    weights = random.integers(-127, 128, shape).astype(np.int8)
    if random.random() < 0.2:
        weights[...] = random.choice([-128, 127])
    scale = np.exp(random.uniform(-9, -2, scales)).astype(np.float32)
    size = 2 ** random.integers(4, 31)
    bias = random.integers(-size, size, channels).astype(np.int32)
    return weights, scale, bias
