"""Accuracy at every step from the float model to int8 in each runtime, on the same test images.

float Keras → fake-quantised (int8-qat only) → LiteRT's reference kernels → XNNPACK → ONNX Runtime

Quantisation changes the model once, in the step to the reference kernels; XNNPACK and ONNX Runtime compute the same
integers and differ by how they round. Right answers are whole numbers, so the steps' changes sum to the whole.
"""

from collections.abc import Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgecnn import artifacts
from edgecnn.data import DataSet
from edgecnn.diagnosis.kernels import KernelSession
from edgecnn.errors import ConfigError, EdgecnnError, SessionError
from edgecnn.formats.source import Source
from edgecnn.inference import Task, infer, outputs_of, task_of
from edgecnn.progress import progress
from edgecnn.quantization.schemes import SCHEMES, is_static_int8
from edgecnn.records import AccuracyPath, AccuracyStep, Artifact
from edgecnn.runtimes import Float
from edgecnn.runtimes.litert import Kernels
from edgecnn.verify import (
    FAKE_QUANTIZED,
    FLOAT,
    accuracy_of,
    fake_quantized_outputs,
    judge,
    reference_of,
)

REFERENCE, BUILT_IN, XNNPACK = "LiteRT, reference kernels", "LiteRT, built-in kernels", "LiteRT, XNNPACK"
ORT = "ONNX Runtime"


def stages(paths: Sequence[Path], data: DataSet, *, model: Path, qat_weights: Path | None = None) -> list[AccuracyPath]:
    """For each int8 .tflite among ``paths``: accuracy from the Keras model at ``model`` to it, step by step.

    An .onnx of the same scheme among ``paths`` is the last step; int8-qat needs ``qat_weights`` as in ``verify``.
    All test images of ``data`` are used.

    Raises:
        ArtifactError: a file is missing, or its hash does not match its sidecar.
        ConfigError: a file that is not int8 or int8-qat, an .onnx without its .tflite, or no ``qat_weights``.
        SessionError: a runtime refuses a file or fails while running.
    """
    found = [artifacts.load(path) for path in paths]
    _check(found)
    images, labels = data.inputs(data.test.images), data.test.labels
    wanted = [FLOAT, *([FAKE_QUANTIZED] if any(_is_qat(artifact) for artifact in found) else [])]
    if FAKE_QUANTIZED in wanted and qat_weights is None:
        raise ConfigError("the steps of an int8-qat file lead through quantisation-aware training: --qat")
    converted = [(artifact, path) for artifact, path in zip(found, paths, strict=True) if artifact.format == "tflite"]
    with progress("diagnose stages", len(wanted) + len(found) + len(converted)) as advance:
        advance(0, FLOAT)
        references = {FLOAT: reference_of(model, images)}
        advance()
        if FAKE_QUANTIZED in wanted:
            advance(0, FAKE_QUANTIZED)
            source = Source.load(model, data, qat_weights=qat_weights)
            references[FAKE_QUANTIZED] = fake_quantized_outputs(source, images)
            advance()
        tasks = {task_of(path): artifact for artifact, path in zip(found, paths, strict=True)}
        outputs = {}
        with closing(infer([*tasks], images)) as outcomes:
            for task, answer, _ in outcomes:
                if isinstance(answer, EdgecnnError):
                    raise answer
                outputs[tasks[task].sha256] = answer
                advance(note=task.name)
        result = []
        for artifact, path in converted:
            advance(0, f"{artifact.file}, reference kernels")
            twins = [other for other in found if other.format == "onnx" and other.scheme == artifact.scheme]
            steps: list[tuple[str, str | None, Float]] = [(FLOAT, None, references[FLOAT])]
            if _is_qat(artifact):
                steps.append((FAKE_QUANTIZED, None, references[FAKE_QUANTIZED]))
            steps.append(_reference_step(path, artifact, images))
            steps.append((XNNPACK, None, outputs[artifact.sha256]))
            steps += [(ORT, _in_float(twin), outputs[twin.sha256]) for twin in twins]
            judged = (artifact, *twins)
            result.append(
                AccuracyPath(
                    artifact=artifact.file,
                    artifact_sha256=artifact.sha256,
                    scheme=artifact.scheme,
                    steps=path_of(steps, labels),
                    parities=tuple(p for one in judged for p in judge(one, judged, outputs, references, labels)),
                )
            )
            advance()
    return result


def path_of(steps: Sequence[tuple[str, str | None, Float]], labels: NDArray[np.int64]) -> tuple[AccuracyStep, ...]:
    """Count each step's right answers and compare it with the one before, image by image.

    ``steps`` are name, note and outputs ``(n, classes)``; ``labels`` are ``(n,)``. The first of several equal top
    classes counts, as in ``verify``.
    """
    result: list[AccuracyStep] = []
    before: NDArray[np.int64] | None = None
    for name, note, outputs in steps:
        top = outputs.argmax(axis=1)
        right, right_before = top == labels, (top if before is None else before) == labels
        result.append(
            AccuracyStep(
                name=name,
                note=note,
                accuracy=accuracy_of(outputs, labels),
                gained=int((right & ~right_before).sum()),
                lost=int((~right & right_before).sum()),
                agree=None if before is None else int((top == before).sum()),
            )
        )
        before = top
    return tuple(result)


def _check(found: Sequence[Artifact]) -> None:
    for artifact in found:
        if artifact.scheme not in SCHEMES or not is_static_int8(SCHEMES[artifact.scheme]):
            raise ConfigError(
                f"{artifact.file} is of scheme {artifact.scheme}; diagnose stages takes files of int8 and int8-qat"
            )
    schemes = {kind: [a.scheme for a in found if a.format == kind] for kind in ("tflite", "onnx")}
    for kind, listed in schemes.items():
        if len(set(listed)) != len(listed):
            raise ConfigError(f"diagnose stages takes one .{kind} file of each scheme; got {', '.join(listed)}")
    for scheme in schemes["onnx"]:
        if scheme not in schemes["tflite"]:
            raise ConfigError(f"the steps to the {scheme} .onnx lead through its .tflite; give that file too")


def _is_qat(artifact: Artifact) -> bool:
    return SCHEMES[artifact.scheme].method == "qat"


def _in_float(artifact: Artifact) -> str | None:
    """What a tuned .onnx does not compute in integers: then its step is more than another rounding."""
    tuning = artifact.provenance.tuning if artifact.provenance else None
    if tuning is None or not tuning.in_float:
        return None
    return f"{len(tuning.in_float)} of {len(tuning.operators)} operators in float"


def _reference_step(path: Path, artifact: Artifact, images: Float) -> tuple[str, str | None, Float]:
    """Name, note and outputs of the step to LiteRT without XNNPACK.

    Some operators have no reference kernel (TILE version 3 is one); the built-in optimised kernels stand in then.
    """
    try:
        return REFERENCE, None, outputs_of(_with_kernels(path, artifact, "reference"), images)
    except SessionError as error:
        outputs = outputs_of(_with_kernels(path, artifact, "built-in"), images)
        return BUILT_IN, f"instead of the reference kernels: {error}", outputs


def _with_kernels(path: Path, artifact: Artifact, kernels: Kernels) -> Task:
    return Task(f"{path.name} with {kernels} kernels", partial(KernelSession, path, artifact, kernels))
