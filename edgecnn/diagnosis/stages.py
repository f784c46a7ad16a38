"""Accuracy at every step from the float model to int8 in each runtime, on the same test images.

float Keras → fake-quantised (int8-qat only) → LiteRT's reference kernels → XNNPACK → ONNX Runtime

Quantisation changes the model once, in the step to the reference kernels. XNNPACK and ONNX Runtime use the same
integers and differ only in rounding. Correct images are counted, so the changes of all steps add up to the total
change.
"""

from collections.abc import Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

from edgecnn import artifacts
from edgecnn.data import DataSet
from edgecnn.errors import ConfigError, EdgecnnError, SessionError
from edgecnn.inference import Task, infer, outputs_of, task_of
from edgecnn.progress import progress
from edgecnn.quantization.schemes import SCHEMES, is_static_int8
from edgecnn.records import AccuracyPath, AccuracyStep, Artifact, Failure
from edgecnn.runtimes import Float
from edgecnn.runtimes.litert import Kernels, LitertSession
from edgecnn.tasks import Scoring
from edgecnn.verification import (
    FAKE_QUANTIZED,
    FLOAT,
    is_from_qat,
    judge,
    references_of,
)

REFERENCE, BUILT_IN, XNNPACK = "LiteRT, reference kernels", "LiteRT, built-in kernels", "LiteRT, XNNPACK"
ORT = "ONNX Runtime"


def stages(
    paths: Sequence[Path], data: DataSet, *, model: Path, qat_weights: Path | None = None
) -> list[AccuracyPath | Failure]:
    """For each int8 .tflite among ``paths``: accuracy from the Keras model at ``model`` to it, step by step.

    An .onnx of the same scheme among ``paths`` is the last step; int8-qat needs ``qat_weights`` as in ``verify``. All
    test images of ``data`` are used. A file of another scheme has no steps: it becomes an expected Failure, first in
    the list.

    Raises:
        ArtifactError: a file is missing, or its hash does not match its sidecar.
        ConfigError: no file is int8 or int8-qat, an .onnx without its .tflite, or no ``qat_weights``.
        SessionError: a runtime refuses a file or fails while running.
    """
    files = [(artifacts.load(path), path) for path in paths]
    without = [_without_steps(artifact) for artifact, _ in files if not _has_steps(artifact)]
    files = [(artifact, path) for artifact, path in files if _has_steps(artifact)]
    if not files:
        raise ConfigError("; ".join(failure.reason for failure in without))
    found = [artifact for artifact, _ in files]
    _check(found)
    data = data.shaped(*found[0].ends)
    images, scoring = data.test_inputs(), data.scoring()
    references = references_of(found, data, images, model=model, qat_weights=qat_weights)
    in_keras = [FLOAT, *([FAKE_QUANTIZED] if any(map(is_from_qat, found)) else [])]
    converted = [(artifact, path) for artifact, path in files if artifact.format == "tflite"]
    with progress("diagnose stages", len(in_keras) + len(found) + len(converted)) as advance:
        before: list[tuple[str, str | None, Float]] = []
        for name in in_keras:
            advance(0, name)
            before.append((name, None, references[name]))
            advance()
        tasks = {task_of(path): artifact for artifact, path in files}
        outputs = {}
        with closing(infer([*tasks], images)) as outcomes:
            for task, output, _ in outcomes:
                if isinstance(output, EdgecnnError):
                    raise output
                outputs[tasks[task].sha256] = output
                advance(note=task.name)
        result: list[AccuracyPath | Failure] = [*without]
        for artifact, path in converted:
            advance(0, f"{artifact.file}, reference kernels")
            twins = [other for other in found if other.format == "onnx" and other.scheme == artifact.scheme]
            steps = before[:2] if is_from_qat(artifact) else before[:1]
            steps.append(_reference_step(path, images))
            steps.append((XNNPACK, None, outputs[artifact.sha256]))
            steps += [(ORT, _in_float(twin), outputs[twin.sha256]) for twin in twins]
            judged = (artifact, *twins)
            result.append(
                AccuracyPath(
                    artifact=artifact.file,
                    artifact_sha256=artifact.sha256,
                    scheme=artifact.scheme,
                    steps=path_of(steps, scoring),
                    parities=tuple(p for one in judged for p in judge(one, judged, outputs, references, scoring)),
                )
            )
            advance()
    return result


def path_of(steps: Sequence[tuple[str, str | None, Float]], scoring: Scoring) -> tuple[AccuracyStep, ...]:
    """Score each step and compare it with the previous step, image by image.

    ``steps`` are name, note and outputs ``(n, values)``.
    """
    result: list[AccuracyStep] = []
    before = steps[0][2]
    for name, note, outputs in steps:
        gains = scoring.credits(outputs) - scoring.credits(before)
        decisions, decided = scoring.decisions(outputs), scoring.decisions(before)
        result.append(
            AccuracyStep(
                name=name,
                note=note,
                accuracy=scoring.score(outputs),
                gained=int((gains > 0).sum()),
                lost=int((gains < 0).sum()),
                change=100 * float(gains.mean()),
                agreement=None if decisions is None or not result else float((decisions == decided).mean()),
            )
        )
        before = outputs
    return tuple(result)


def _has_steps(artifact: Artifact) -> bool:
    return artifact.scheme in SCHEMES and is_static_int8(SCHEMES[artifact.scheme])


def _without_steps(artifact: Artifact) -> Failure:
    reason = f"{artifact.file} has scheme {artifact.scheme}; diagnose stages needs int8 or int8-qat files"
    return Failure(subject=artifact.file, stage="stages", error="UnsupportedError", reason=reason, expected=True)


def _check(found: Sequence[Artifact]) -> None:
    schemes = {kind: [a.scheme for a in found if a.format == kind] for kind in ("tflite", "onnx")}
    for kind, listed in schemes.items():
        if len(set(listed)) != len(listed):
            raise ConfigError(f"diagnose stages accepts one .{kind} file per scheme; got {', '.join(listed)}")
    for scheme in schemes["onnx"]:
        if scheme not in schemes["tflite"]:
            raise ConfigError(f"the steps to the {scheme} .onnx include its .tflite; give that file too")


def _in_float(artifact: Artifact) -> str | None:
    """A note on operators in float in a tuned .onnx: its step is then more than a difference in rounding."""
    tuning = artifact.provenance.tuning if artifact.provenance else None
    if tuning is None or not tuning.in_float:
        return None
    return f"{len(tuning.in_float)} of {len(tuning.operators)} operators in float"


def _reference_step(path: Path, images: Float) -> tuple[str, str | None, Float]:
    """Name, note and outputs of the step to LiteRT without XNNPACK.

    Some operators, such as TILE version 3, have no reference kernel; then the built-in optimised kernels are used.
    """
    try:
        return REFERENCE, None, outputs_of(_with_kernels(path, "reference"), images)
    except SessionError as error:
        outputs = outputs_of(_with_kernels(path, "built-in"), images)
        return BUILT_IN, f"instead of the reference kernels: {error}", outputs


def _with_kernels(path: Path, kernels: Kernels) -> Task:
    return Task(f"{path.name} with {kernels} kernels", partial(LitertSession, path, kernels=kernels))
