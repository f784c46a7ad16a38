"""Runs a model file on each sample of inputs-0.npy, …, and writes the raw outputs to outputs-0.npy, … atomically.

An emulated Python runs this script in a folder with these files: ``python -I runner.py model.onnx``. It needs numpy and
one runtime, which runs with default settings, but with one thread. The runtime's name and version are written to
runtime.txt.
"""

import contextlib
import os
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

MARK = 0x45434E4E  # as in marks.c
EMPTY = 3  # number of empty pairs of marks, before the pairs around each inference

Infer = Callable[[Any], Any]


def mark() -> None:
    """Make a system call that only fails; marks.c recognises it by its argument."""
    with contextlib.suppress(OSError):
        os.lseek(MARK, 0, os.SEEK_SET)


def onnxruntime(model: str) -> Infer:
    """A function that runs the .onnx file ``model`` on one input."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    names = [node.name for node in session.get_inputs()]

    def infer(arrays: Any) -> Any:
        feeds = dict(zip(names, arrays, strict=True))
        mark()
        outputs = session.run(None, feeds)
        mark()
        return outputs

    return infer


def litert(model: str) -> Infer:
    """A function that runs the .tflite file ``model`` on one input."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=model, num_threads=1)
    interpreter.allocate_tensors()
    sources, targets = interpreter.get_input_details(), interpreter.get_output_details()

    def infer(arrays: Any) -> Any:
        for source, array in zip(sources, arrays, strict=True):
            interpreter.set_tensor(source["index"], array)
        mark()
        interpreter.invoke()
        mark()
        return [interpreter.get_tensor(target["index"]) for target in targets]

    return infer


def main(model: str) -> None:
    """Run the model on all inputs, one at a time."""
    package, opened = {".onnx": ("onnxruntime", onnxruntime), ".tflite": ("ai-edge-litert", litert)}[Path(model).suffix]
    inputs = [np.load(f"inputs-{number}.npy") for number in range(len(list(Path().glob("inputs-*.npy"))))]
    infer = opened(model)
    for _ in range(2 * EMPTY):
        mark()
    outputs = [infer([array[place : place + 1] for array in inputs]) for place in range(len(inputs[0]))]
    Path("runtime.txt").write_text(f"{package} {metadata.version(package)}", encoding="utf-8")
    for number, each in enumerate(zip(*outputs, strict=True)):
        with Path("outputs.partial").open("wb") as file:
            np.save(file, np.concatenate(each))
        Path("outputs.partial").replace(f"outputs-{number}.npy")


if __name__ == "__main__":
    main(sys.argv[1])
