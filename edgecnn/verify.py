"""Verification: an artifact against the model it came from, on the same images."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from edgecnn import artifacts
from edgecnn.data import DataSet
from edgecnn.errors import ConfigError, EdgecnnError, SessionError
from edgecnn.files import read_bytes
from edgecnn.formats.source import Source
from edgecnn.inference import Task, infer, task_of
from edgecnn.progress import progress
from edgecnn.quantization.schemes import SCHEMES, is_static_int8
from edgecnn.records import Accuracy, Artifact, Difference, Parity, Tolerance, wilson
from edgecnn.runtimes import Float, open_session, predict, runtime_for
from edgecnn.tflite.graph import macs, read_graph

log = logging.getLogger("edgecnn")

# Names of the references in a Parity
FLOAT = "float Keras model"
FAKE_QUANTIZED = "fake-quantised Keras model"

# Against the Keras model an artifact came from; int8-qat comes from the fake-quantised model.
TOLERANCES: dict[str, Tolerance] = {
    "float32": Tolerance(max_abs=1e-3, mean_abs=1e-5, agreement=0.9995, accuracy_drop=0.0005),
    "float16": Tolerance(max_abs=0.05, mean_abs=0.002, agreement=0.998, accuracy_drop=0.002),
    "dynamic-int8": Tolerance(max_abs=None, mean_abs=0.02, agreement=0.97, accuracy_drop=0.01),
    "int8": Tolerance(max_abs=None, mean_abs=0.02, agreement=0.96, accuracy_drop=0.02),
    "int16x8": Tolerance(max_abs=0.2, mean_abs=0.005, agreement=0.98, accuracy_drop=0.005),
    "int8-qat": Tolerance(max_abs=None, mean_abs=0.01, agreement=0.98, accuracy_drop=0.005),
}
# An int8 .onnx against the .tflite with the same integers. Runtimes round differently, and the more so the more
# layers there are: healthy models of 20 layers were up to 0.8 LSB apart on average. Operators left in float do not
# round at all, so files that have some are not held to a number of steps.
SAME_INTEGERS = Tolerance(max_abs=None, mean_abs=0.01, agreement=0.98, accuracy_drop=0.0025, mean_lsb=1.5)
SAME_WEIGHTS = SAME_INTEGERS.replace(mean_lsb=None)
# Generated C against TensorFlow Lite for Microcontrollers on the same .tflite: every byte. LiteRT is held to
# SAME_INTEGERS there, since it rounds differently by design.
SAME_BYTES = Tolerance(max_abs=0.0, mean_abs=0.0, agreement=1.0, accuracy_drop=0.0, mean_lsb=0.0)

# Multiply-accumulates that TFLM's reference kernels are given: about 30 s of one core at 1.4 G/s. Models that need
# more for all test images are compared on the first of them; a Parity says on how many.
_TFLM_MACS = 40_000_000_000

# Largest difference in gain between the outputs and the reference: a wrong scale shows
# here long before it changes a class (2 % on the weights of one layer: 0.9 to 2.1 %), while rounding does not
# (files as exported: below 0.1 %). The ranges of post-training quantisation saturate, so int8 against the
# float model is not judged by it (up to 1 % as exported).
_GAIN = 0.005


def verify(paths: Sequence[Path], data: DataSet, *, model: Path, qat_weights: Path | None = None) -> list[Parity]:
    """Compare the model files at ``paths`` with the Keras model at ``model``, on all test images of ``data``.

    An int8-qat file is compared with the fake-quantised model that ``qat_weights`` (from ``edgecnn quantize``)
    make of it; an int8 .onnx or .c also with the .tflite of the same scheme, if that is among ``paths``. An int8
    .tflite and the .c of it are compared with what TensorFlow Lite for Microcontrollers makes of the .tflite too, where
    that is installed and takes the file; the .c in every byte.

    Raises:
        ArtifactError: a file is missing, or its hash does not match its sidecar.
        ConfigError: an int8-qat file without ``qat_weights``, or a file that edgecnn did not export.
        SessionError: a runtime refuses a file or fails while running.
    """
    images = data.inputs(data.test.images)
    found = [artifacts.load(path) for path in paths]
    references = references_of(found, data, images, model=model, qat_weights=qat_weights)
    outputs, micro = _outputs(found, paths, images)
    return [
        parity for artifact in found for parity in judge(artifact, found, outputs, references, data.test.labels, micro)
    ]


def references_of(
    found: Sequence[Artifact], data: DataSet, images: Float, *, model: Path, qat_weights: Path | None
) -> dict[str, Float]:
    """Outputs for ``images`` of the models that ``found`` are compared with, by ``FLOAT`` and ``FAKE_QUANTIZED``.

    Raises:
        ConfigError: an int8-qat file without ``qat_weights``.
    """
    references = {FLOAT: reference_of(model, images)}
    if any(artifact.scheme in SCHEMES and SCHEMES[artifact.scheme].method == "qat" for artifact in found):
        if qat_weights is None:
            raise ConfigError("an int8-qat file is compared with the model after quantisation-aware training: --qat")
        source = Source.load(model, data, qat_weights=qat_weights)
        references[FAKE_QUANTIZED] = fake_quantized_outputs(source, images)
    return references


def reference_for(artifact: Artifact) -> str:
    """Which reference an artifact is compared with.

    Raises:
        ConfigError: its scheme is not one of edgecnn's.
    """
    if artifact.scheme not in SCHEMES:
        raise ConfigError(
            f"{artifact.file} does not say how it was quantised, so no tolerance is known; export it with edgecnn"
        )
    return FAKE_QUANTIZED if SCHEMES[artifact.scheme].method == "qat" else FLOAT


def _outputs(
    found: Sequence[Artifact], paths: Sequence[Path], images: Float
) -> tuple[dict[str, Float], dict[str, Float]]:
    """Outputs of the files, and those of TFLM where it is installed and takes the file, by the file's SHA-256."""
    tasks = {task_of(path): artifact for artifact, path in zip(found, paths, strict=True)}
    in_micro = {
        tflm_task(path): artifact for artifact, path in zip(found, paths, strict=True) if runs_in_tflm(artifact)
    }
    outputs: dict[str, Float] = {}
    micro: dict[str, Float] = {}
    total = sum(task.count(images) for task in (*tasks, *in_micro))
    with progress("verify", total) as advance, closing(infer([*tasks, *in_micro], images, advance)) as outcomes:
        for task, answer, _ in outcomes:
            if not isinstance(answer, EdgecnnError):
                into, artifact = (outputs, tasks[task]) if task in tasks else (micro, in_micro[task])
                into[artifact.sha256] = answer
            elif task in tasks:
                raise answer
            else:
                log.warning("%s is not compared with TFLM: %s", in_micro[task].file, answer)
    return outputs, micro


def judge(
    artifact: Artifact,
    exported: Sequence[Artifact],
    outputs: Mapping[str, Float],
    references: Mapping[str, Float],
    labels: NDArray[np.int64],
    micro: Mapping[str, Float] = MappingProxyType({}),
) -> Iterator[Parity]:
    """Compare one artifact with its reference and, a static int8 one, with its twins among ``exported``.

    ``outputs`` are by the artifact's SHA-256, ``references`` by ``FLOAT`` and ``FAKE_QUANTIZED``; ``micro`` are those
    of TFLM by the SHA-256 of the .tflite, for the first images or all.

    Raises:
        ConfigError: the artifact's scheme is not one of edgecnn's.
    """
    reference = reference_for(artifact)
    scheme = SCHEMES[artifact.scheme]
    yield compare(
        artifact,
        outputs[artifact.sha256],
        references[reference],
        labels,
        against=reference,
        tolerance=TOLERANCES[scheme.name],
    )
    if is_static_int8(scheme) and artifact.format != "tflite":
        for twin in exported:
            if twin.format == "tflite" and twin.scheme == scheme.name and twin.sha256 in outputs:
                yield compare(
                    artifact,
                    outputs[artifact.sha256],
                    outputs[twin.sha256],
                    labels,
                    against=twin.file,
                    tolerance=SAME_WEIGHTS if has_float_operators(artifact) else SAME_INTEGERS,
                )
    for twin in (artifact,) if artifact.format == "tflite" else exported if artifact.format == "c" else ():
        if runs_in_tflm(twin) and twin.scheme == scheme.name and twin.sha256 in micro:
            expected = micro[twin.sha256]
            yield compare(
                artifact,
                outputs[artifact.sha256][: len(expected)],
                expected,
                labels[: len(expected)],
                against=in_tflm(twin),
                tolerance=SAME_BYTES if artifact.format == "c" else SAME_INTEGERS,
            )


def runs_in_tflm(artifact: Artifact) -> bool:
    """Whether an artifact is compared with what TFLM makes of it: a static int8 .tflite."""
    return artifact.format == "tflite" and artifact.scheme in SCHEMES and is_static_int8(SCHEMES[artifact.scheme])


def in_tflm(artifact: Artifact) -> str:
    """What a ``Parity`` calls a .tflite in TFLM as a reference."""
    return f"{artifact.file} in TFLM"


def tflm_task(path: Path) -> Task:
    """The task to run the .tflite at ``path`` in TFLM for the first images, as many as its kernels can do in time."""
    graph = read_graph(read_bytes(path), path.name)
    affordable = _TFLM_MACS // max(1, sum(macs(graph, operator) for operator in graph.operators))
    return task_of(path, "tflm", images=max(1, affordable))


def reference_of(path: Path, images: Float) -> Float:
    """Outputs of the Keras model at ``path``, in large batches."""
    with closing(open_session(path, threads=0, batch=256)) as session:
        return predict(session, images)


def fake_quantized_outputs(source: Source, images: Float) -> Float:
    """Outputs of the model after quantisation-aware training, its quantisers simulated in float32."""
    outputs: Float = source.quantized.predict(images, batch_size=256, verbose=0)
    return outputs


def accuracy_of(outputs: Float, labels: NDArray[np.int64]) -> Accuracy:
    """How many images have their label as top class (the first, where several are equal)."""
    return Accuracy(correct=int((outputs.argmax(axis=1) == labels).sum()), total=len(labels))


def difference(outputs: Float, reference: Float, step: float | None) -> Difference:
    """How far ``outputs`` are from ``reference``, both ``(n, classes)``; ``step`` is the output's scale, if quantised.

    Raises:
        SessionError: shapes differ, or ``outputs`` hold NaN.
    """
    if outputs.shape != reference.shape:
        raise SessionError(f"outputs have shape {outputs.shape}, the reference {reference.shape}")
    if not np.isfinite(outputs).all():
        raise SessionError(f"outputs hold NaN or infinity, first on image {_first_not_finite(outputs)}")
    apart = np.abs(outputs.astype(np.float64) - reference)
    steps = None if step is None else np.rint(apart / step)
    return Difference(
        images=len(outputs),
        span=float(reference.max() - reference.min()),
        max_abs=float(apart.max()),
        mean_abs=float(apart.mean()),
        worst_image=int(apart.max(axis=1).argmax()),
        agree=int((outputs.argmax(axis=1) == reference.argmax(axis=1)).sum()),
        max_lsb=None if steps is None else int(steps.max()),
        mean_lsb=None if steps is None else float(steps.mean()),
        within_one_lsb=None if steps is None else float((steps <= 1).mean()),
    )


def compare(
    artifact: Artifact,
    outputs: Float,
    reference: Float,
    labels: NDArray[np.int64],
    *,
    against: str,
    tolerance: Tolerance,
) -> Parity:
    """Judge ``outputs`` of ``artifact`` against those of a reference on the same images.

    Raises:
        SessionError: shapes differ, or ``outputs`` hold NaN.
    """
    quantization = artifact.output.quantization
    parity = Parity(
        artifact=artifact.name,
        artifact_sha256=artifact.sha256,
        runtime=runtime_for(Path(artifact.file)).name,
        reference=against,
        accuracy=accuracy_of(outputs, labels),
        reference_accuracy=accuracy_of(reference, labels),
        difference=difference(outputs, reference, quantization.scale[0] if quantization else None),
        tolerance=tolerance,
    )
    found = _violations(parity)
    if against != FLOAT and not has_float_operators(artifact):  # operators left in float do not saturate
        found += _gain_violations(outputs, reference)
    return parity.replace(violations=tuple(found))


def has_float_operators(artifact: Artifact) -> bool:
    """Whether tuning left operators of an int8 file in float."""
    tuning = artifact.provenance.tuning if artifact.provenance else None
    return tuning is not None and bool(tuning.in_float)


def _violations(parity: Parity) -> list[str]:
    """What is out of tolerance, by how much and on which image."""
    found, apart, allowed = [], parity.difference, parity.tolerance
    span = apart.span or 1.0
    if allowed.max_abs is not None and apart.max_abs > allowed.max_abs * span:
        found.append(
            f"largest difference {apart.max_abs:.3g} on image {apart.worst_image}, {allowed.max_abs * span:.3g} allowed"
        )
    if apart.mean_abs > allowed.mean_abs * span:
        found.append(
            f"mean difference {apart.mean_abs:.3g}, {allowed.mean_abs * span:.3g} allowed; "
            f"largest on image {apart.worst_image}"
        )
    if allowed.mean_lsb is not None and apart.mean_lsb is not None and apart.mean_lsb > allowed.mean_lsb:
        found.append(
            f"mean difference {apart.mean_lsb:.3g} LSB, {allowed.mean_lsb:g} allowed; "
            f"largest on image {apart.worst_image}"
        )
    if wilson(apart.agree, apart.images)[1] < allowed.agreement:
        found.append(
            f"top class agrees on {apart.agreement:.2%} of the images, {allowed.agreement:.2%} wanted; "
            f"largest difference on image {apart.worst_image}"
        )
    drop = parity.reference_accuracy.value - parity.accuracy.value
    # Only images with another top class can change the count; their sum of ±1 has at most this deviation.
    chance = 1.96 * (apart.images - apart.agree) ** 0.5 / apart.images
    if drop - chance > allowed.accuracy_drop:
        found.append(f"accuracy is {100 * drop:.2f} points lower, {100 * allowed.accuracy_drop:.2f} allowed")
    return found


def _gain_violations(outputs: Float, reference: Float) -> list[str]:
    """Whether the logits behind ``outputs`` are those of ``reference`` times a factor too far from 1."""
    gain, deviation = gain_of(outputs, reference)
    if abs(gain) - 1.96 * deviation <= _GAIN:
        return []
    return [
        f"output gain is off by {100 * gain:+.2f} % (limit ±{100 * _GAIN:.2f} %): a quantisation scale has changed, "
        "or sums saturate (for .onnx: edgecnn inspect --assert portable)"
    ]


def gain_of(outputs: Float, reference: Float) -> tuple[float, float]:
    """How much larger the gain of ``outputs`` is than that of ``reference``, as a share, and its standard deviation.

    Both have shape ``(n, classes)``.

    Least squares along the change that logits make when all are multiplied by ``1 + gain``, so that noise and
    saturated probabilities weigh nothing.
    """
    found, wanted = outputs.astype(np.float64), reference.astype(np.float64)
    if wanted.min() >= 0 and np.allclose(wanted.sum(axis=1), 1, atol=0.05):  # probabilities
        logits = np.log(np.maximum(wanted, 1e-12))
        direction = wanted * (logits - (wanted * logits).sum(axis=1, keepdims=True))
    else:
        direction = wanted - wanted.mean(axis=1, keepdims=True)
    total = float((direction**2).sum())
    if total == 0:
        return 0.0, 0.0
    gain = float(((found - wanted) * direction).sum() / total)
    left = ((found - wanted - gain * direction) * direction).sum(axis=1)
    return gain, float((left**2).sum()) ** 0.5 / total


def _first_not_finite(outputs: Float) -> int:
    return int((~np.isfinite(outputs)).any(axis=1).argmax())
