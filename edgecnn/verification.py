"""Verification: compare an artifact with its source model on the same images."""

import logging
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgecnn import artifacts
from edgecnn.data import DataSet, as_data_set
from edgecnn.errors import ConfigError, EdgecnnError, SessionError
from edgecnn.files import read_bytes
from edgecnn.formats.source import Source
from edgecnn.inference import Task, infer, outputs_of, task_of
from edgecnn.models import as_file, as_list, given
from edgecnn.optional import require
from edgecnn.progress import progress
from edgecnn.quantization.engines import saved
from edgecnn.quantization.schemes import SCHEMES, is_static_int8
from edgecnn.records import Artifact, Difference, Parity, TensorSpec, Tolerance, wilson
from edgecnn.runtimes import RUNTIMES, Float, open_session, predict, runtime_for
from edgecnn.runtimes.quantized_io import noise, real
from edgecnn.runtimes.tflm import specs_of
from edgecnn.samples import Samples, joined, parts, unlike
from edgecnn.tasks import Scoring
from edgecnn.tflite.graph import macs, read_graph
from edgecnn.tflite.operators import without_float_ends

log = logging.getLogger("edgecnn")

# Names of the references in a Parity
FLOAT = "float Keras model"
FAKE_QUANTIZED = "fake-quantised Keras model"

# Against the artifact's Keras model; for int8-qat, the fake-quantised model. Ranges that were calibrated saturate on a
# few other images, so integer activations have no limit for the largest difference.
TOLERANCES: dict[str, Tolerance] = {
    "float32": Tolerance(max_abs=1e-3, mean_abs=1e-5, agreement=0.9995, accuracy_drop=0.0005),
    "float16": Tolerance(max_abs=0.05, mean_abs=0.002, agreement=0.998, accuracy_drop=0.002),
    "dynamic-int8": Tolerance(max_abs=None, mean_abs=0.02, agreement=0.97, accuracy_drop=0.01),
    "int8": Tolerance(max_abs=None, mean_abs=0.02, agreement=0.96, accuracy_drop=0.02),
    "int16x8": Tolerance(max_abs=None, mean_abs=0.005, agreement=0.98, accuracy_drop=0.005),
    "int8-qat": Tolerance(max_abs=None, mean_abs=0.01, agreement=0.98, accuracy_drop=0.005),
}
# An int8 .onnx against the .tflite with the same integers. Runtimes round differently, and more so with more
# layers: correct models of 20 layers differed by up to 0.8 LSB on average. Operators left in float do not round at all,
# so files with such operators have no limit in LSB.
SAME_INTEGERS = Tolerance(max_abs=None, mean_abs=0.01, agreement=0.98, accuracy_drop=0.0025, mean_lsb=1.5)
SAME_WEIGHTS = SAME_INTEGERS.replace(mean_lsb=None)
# Generated C against TensorFlow Lite for Microcontrollers on the same .tflite: every byte. LiteRT uses
# SAME_INTEGERS there, because it rounds differently by design.
SAME_BYTES = Tolerance(max_abs=0.0, mean_abs=0.0, agreement=1.0, accuracy_drop=0.0, mean_lsb=0.0)

# Samples of noise for files without data, and the most samples for files with state: so many run in one process, in
# order.
_NOISE, _SEED = 64, 0

# Budget of multiply-accumulates for TFLM's reference kernels: about 30 s of one core at 1.4 G/s. Models that need more
# for all test images are compared on the first images only; the Parity has the number.
_TFLM_MACS = 40_000_000_000

# Largest allowed difference in gain between outputs and reference. A wrong scale changes the gain long before it
# changes a class (2 % on the weights of one layer: 0.9 to 2.1 %), while rounding does not (exported files: below 0.1
# %). Not checked for int8 against the float model, because post-training ranges saturate (exported files: up to 1 %).
_GAIN = 0.005


def verify(
    files: Sequence[Path | str],
    data: DataSet | str | Path | Sequence[Any],
    *,
    model: Any,
    qat: Any = None,
    images: int | None = None,
) -> list[Parity]:
    """Compare exported ``files`` with the Keras model that they came from.

    An int8-qat file is compared with the fake-quantised model. An int8 .onnx or .c is also compared with the .tflite of
    the same scheme, if that is among ``files``. An int8 .tflite and its .c are also compared with TensorFlow Lite for
    Microcontrollers on the .tflite, if that is installed and supports the file; every byte of the .c must be equal.

    Args:
        files: paths of model files that edgecnn exported.
        data: what the model was trained on, as ``load_data`` takes it; its test samples are used.
        model: the Keras model, or the path of its file.
        qat: what ``quantize`` returned, or the path of the file that ``edgecnn quantize`` wrote; for int8-qat files.
        images: the number of test samples, the first ones; by default all.

    Returns:
        The comparisons; each has ``violations`` of its tolerance, none if it passes.

    Raises:
        ArtifactError: a file is missing, or its hash does not match its sidecar.
        ConfigError: an int8-qat file without ``qat``, or a file that edgecnn did not export.
        SessionError: a runtime refuses a file or fails while running.
    """
    with as_file(model) as model_file, saved(qat) as qat_file:
        return _verified([Path(file) for file in files], as_data_set(data), model_file, qat_file, images)


def _verified(
    paths: Sequence[Path], data: DataSet, model: Path, qat_weights: Path | None, images: int | None
) -> list[Parity]:
    found = [artifacts.load(path) for path in paths]
    data = data.shaped(*found[0].ends)
    inputs, scoring = data.test_inputs(images), data.scoring(images)
    references = references_of(found, data, inputs, model=model, qat_weights=qat_weights)
    # now, to fail before the long work if the model is missing or damaged
    expected = {name: references[name] for name in map(reference_for, found)}
    outputs: dict[str, Float] = {}
    micro: dict[str, Float] = {}
    with closing(answers(runs_of(zip(found, paths, strict=True)), inputs)) as outcomes:
        for run, answer, _ in outcomes:
            if isinstance(answer, EdgecnnError):
                raise answer
            (micro if run.in_tflm else outputs)[run.artifact.sha256] = answer
    return [parity for artifact in found for parity in judge(artifact, found, outputs, expected, scoring, micro)]


def verify_against(
    files: Sequence[Path | str],
    against: Path | str,
    data: DataSet | str | Path | Sequence[Any] | None = None,
    *,
    images: int | None = None,
) -> list[Parity]:
    """Compare each of ``files``, from any tool, with another runtime or another file; no Keras model is needed.

    Files that compute in the same way have the tolerance of their scheme, others that of the coarser one; a .c file and
    TensorFlow Lite for Microcontrollers must give the same bytes.

    Args:
        files: paths of .tflite, .onnx, .c or .keras files, each run in the first runtime for its format.
        against: the name of a runtime (``RUNTIMES``), which runs the same file, or the path of a file. A .c is compared
            with its .tflite in TensorFlow Lite for Microcontrollers.
        data: a data set as ``load_data`` takes it, whose test samples and labels are used; without it, noise over the
            range of the models' inputs, scored by how close the outputs are to the reference's, as a share of its span.
        images: the number of samples; by default all, or 64 of noise. A file with state gets at most 64, in order.

    Raises:
        ArtifactError: a file is missing, damaged or changed, or ``against`` cannot run it.
        ConfigError: the files have different inputs or outputs.
        SessionError: a runtime refuses a file or fails while running.
    """
    named = str(against) in RUNTIMES
    return [
        _against(Path(file), Path(file) if named else Path(against), str(against) if named else None, data, images)
        for file in files
    ]


def _against(path: Path, other: Path, runtime: str | None, data: Any, images: int | None) -> Parity:
    if path.suffix == ".c" and other.suffix == ".tflite":
        runtime = "tflm"
    runtime_for(other, runtime)  # fails before the work if it does not run such files
    ours, theirs = artifacts.load(path), artifacts.load(other, runtime=runtime)
    if _shapes(ours) != _shapes(theirs):
        raise ConfigError(
            f"{ours.file} has inputs and outputs {_shapes(ours)}, {theirs.file} has {_shapes(theirs)}; compare files "
            "of the same model"
        )
    stateful = any(_stateful(each) for each in (path, other))
    count = min(images or _NOISE, _NOISE) if stateful else images
    if data is None:
        samples, on = _noise((path, ours), (other, theirs), count or _NOISE), "noise"
    else:
        loaded = as_data_set(data).shaped(*ours.ends)
        samples, on = loaded.test_inputs(count), loaded.name
    task = tflm_task(other) if runtime == "tflm" else task_of(other, runtime)
    reference = outputs_of(task, samples)
    samples = samples[: len(reference)]
    outputs = outputs_of(task_of(path), samples)
    precisions = _precision(path, ours), _precision(other, theirs)
    tolerance = _tolerance(ours, theirs, *precisions)
    if path.suffix == ".c" and runtime == "tflm":
        tolerance = SAME_BYTES
    if data is None:  # without labels, what counts is the difference alone
        scoring = _by_reference(ours, reference)
        tolerance = tolerance.replace(accuracy_drop=tolerance.mean_abs)
    else:
        scoring = loaded.scoring(count).first(len(reference))
    return compare(
        ours,
        outputs,
        reference,
        scoring,
        against=f"{theirs.file} in {runtime_for(other, runtime).name}, on {len(samples)} samples of {on}",
        tolerance=tolerance,
        gain=data is not None and len({precision in ("float32", "float16") for precision in precisions}) == 1,
    )


def _shapes(artifact: Artifact) -> tuple[list[tuple[int | None, ...]], list[int]]:
    """The shape of each input's sample, and the size of each output's."""
    return [spec.sample_shape for spec in artifact.inputs], [spec.sample_size for spec in artifact.outputs]


def _stateful(path: Path) -> bool:
    return path.suffix == ".tflite" and read_graph(read_bytes(path), path.name).stateful


def _noise(ours: tuple[Path, Artifact], theirs: tuple[Path, Artifact], count: int) -> Samples:
    """Real inputs ``(count, …)`` over the range of the first file that quantises them, or from -1 to 1."""
    draw, arrays = np.random.default_rng(_SEED), {}
    names = [spec.name for spec in ours[1].inputs]
    for name, specs in zip(names, zip(_inputs(*ours), _inputs(*theirs), strict=True), strict=True):
        spec = next((spec for spec in specs if spec.quantization is not None), specs[0])
        one = spec.replace(shape=(count, *spec.sample_shape), layout="NC")
        arrays[name] = real(noise(draw, one), spec)
    return joined(arrays)


def _inputs(path: Path, artifact: Artifact) -> Sequence[TensorSpec]:
    """The inputs of a file; of a .tflite that quantises them at once, as quantised."""
    if path.suffix != ".tflite":
        return artifact.inputs
    return specs_of(without_float_ends(read_graph(read_bytes(path), path.name)))[0]


def _by_reference(artifact: Artifact, reference: Float) -> Scoring:
    """A scoring by the difference from ``reference`` alone."""
    if len(artifact.outputs) == 1:
        return Scoring("custom", reference, measure=closeness)
    names = unlike([spec.name for spec in artifact.outputs])
    layout = tuple((name, (spec.sample_size,)) for name, spec in zip(names, artifact.outputs, strict=True))
    apart = Scoring("several", reference, layout=layout).by_output(reference)
    scorings = {name: Scoring("custom", values, measure=closeness) for name, values in apart.items()}
    return Scoring("several", joined(apart), layout=layout, of_outputs=scorings)


def closeness(reference: Float, outputs: Float) -> NDArray[np.float64]:
    """1 minus the mean difference of each sample, as a share of the span of the reference ``(n, values)``."""
    span = float(np.ptp(reference)) or 1.0
    found: NDArray[np.float64] = 1 - np.abs(outputs.astype(np.float64) - reference).mean(axis=1) / span
    return found


def _precision(path: Path, artifact: Artifact) -> str:
    """The scheme that a file computes in: its own, or what its types show."""
    if artifact.scheme in SCHEMES:
        return artifact.scheme
    if path.suffix == ".onnx":
        return _precision_of_onnx(read_bytes(path))
    if path.suffix != ".tflite":
        return "int8" if path.suffix == ".c" else "float32"
    graph = read_graph(read_bytes(path), path.name)
    moved = [one for one in graph.operators if one.kind not in ("QUANTIZE", "DEQUANTIZE")]
    computed = {graph.tensors[index].dtype for operator in moved for index in operator.outputs}
    stored = {tensor.dtype for tensor in graph.tensors if tensor.data is not None}
    if computed & {"int8", "uint8", "int16"}:
        return "int16x8" if "int16" in computed else "int8"
    return "dynamic-int8" if "int8" in stored else "float16" if "float16" in stored else "float32"


def _precision_of_onnx(content: bytes) -> str:
    onnx = require("onnx")
    graph = onnx.load_model_from_string(content).graph
    kinds = {node.op_type for node in graph.node}
    if kinds & {"DynamicQuantizeLinear", "MatMulInteger", "ConvInteger"}:
        return "dynamic-int8"
    if any(kind.startswith("QLinear") or kind == "QuantizeLinear" for kind in kinds):
        return "int8"
    return "float16" if any(one.data_type == onnx.TensorProto.FLOAT16 for one in graph.initializer) else "float32"


def _tolerance(ours: Artifact, theirs: Artifact, own: str, other: str) -> Tolerance:
    """For the same integers, if scales and zero points are the same; else the larger of those of two schemes."""
    scales = [[spec.quantization for spec in (*each.inputs, *each.outputs)] for each in (ours, theirs)]
    if all(is_static_int8(SCHEMES[one]) for one in (own, other)) and scales[0] == scales[1]:
        return SAME_INTEGERS
    return max((TOLERANCES[own], TOLERANCES[other]), key=lambda tolerance: tolerance.mean_abs)


class References(dict[str, Float]):
    """Outputs of the reference models for ``images``, each computed on first access.

    ``FLOAT`` is the Keras model at ``model``; ``FAKE_QUANTIZED`` is the model after quantisation-aware training, from
    the ``Source`` loaded by ``source``.
    """

    def __init__(self, model: Path, images: Float, source: Callable[[], Source]) -> None:
        super().__init__()
        self._model = model
        self._images = images
        self._source = source

    def __missing__(self, name: str) -> Float:
        self[name] = reference_of(self._model, self._images) if name == FLOAT else self._fake_quantized()
        return self[name]

    def _fake_quantized(self) -> Float:
        """Outputs with quantisers simulated in float32."""
        outputs = as_list(self._source().quantized.predict(given(parts(self._images)), batch_size=256, verbose=0))
        found: Float = np.hstack([each.reshape(len(each), -1) for each in outputs])
        return found


def references_of(
    found: Sequence[Artifact], data: DataSet, images: Float, *, model: Path, qat_weights: Path | None
) -> References:
    """The reference outputs of ``found`` on ``images``: from ``model``, and from it with ``qat_weights``.

    Raises:
        ConfigError: an int8-qat file without ``qat_weights``.
    """
    for artifact in found:
        if is_from_qat(artifact) and qat_weights is None:
            raise ConfigError(
                f"{artifact.file} is compared with the model after quantisation-aware training; give the weights that "
                "edgecnn quantize wrote: --qat"
            )
    return References(model, images, partial(Source.load, model, data, qat_weights=qat_weights))


def is_from_qat(artifact: Artifact) -> bool:
    """Whether an artifact was exported from the model after quantisation-aware training."""
    return artifact.scheme in SCHEMES and SCHEMES[artifact.scheme].method == "qat"


def reference_for(artifact: Artifact) -> str:
    """The name of an artifact's reference.

    Raises:
        ConfigError: its scheme is unknown.
    """
    if artifact.scheme not in SCHEMES:
        raise ConfigError(
            f"{artifact.file} has an unknown scheme, so there is no tolerance for it; export it with edgecnn"
        )
    return FAKE_QUANTIZED if is_from_qat(artifact) else FLOAT


class Run(NamedTuple):
    """A file to run: in its usual runtime, or in TFLM as a reference."""

    artifact: Artifact
    task: Task
    in_tflm: bool = False


def runs_of(files: Iterable[tuple[Artifact, Path]]) -> list[Run]:
    """The runs of ``files``; a static int8 .tflite also runs in TFLM. If that is impossible, log a warning."""
    runs = []
    for artifact, path in files:
        runs.append(Run(artifact, task_of(path)))
        if runs_in_tflm(artifact):
            try:
                runs.append(Run(artifact, tflm_task(path), in_tflm=True))
            except EdgecnnError as error:
                _warn_without_tflm(artifact, error)
    return runs


def answers(runs: Iterable[Run], images: Float) -> Generator[tuple[Run, Float | EdgecnnError, float], None, None]:
    """Yield each of ``runs`` with its outputs for ``images`` or its error, and the seconds, as ``infer``.

    An error in TFLM is only logged as a warning.
    """
    of_task = {run.task: run for run in runs}
    total = sum(task.count(images) for task in of_task)
    with progress("verify", total) as advance, closing(infer([*of_task], images, advance)) as outcomes:
        for task, answer, seconds in outcomes:
            run = of_task[task]
            if run.in_tflm and isinstance(answer, EdgecnnError):
                _warn_without_tflm(run.artifact, answer)
            else:
                yield run, answer, seconds


def _warn_without_tflm(artifact: Artifact, error: EdgecnnError) -> None:
    log.warning("%s is not compared with TFLM: %s", artifact.file, error)


def judge(
    artifact: Artifact,
    exported: Sequence[Artifact],
    outputs: Mapping[str, Float],
    references: Mapping[str, Float],
    scoring: Scoring,
    micro: Mapping[str, Float] = MappingProxyType({}),
) -> Iterator[Parity]:
    """Compare one artifact with its reference and, if it is static int8, with its counterparts in ``exported``.

    ``outputs`` are keyed by the artifact's SHA-256, ``references`` by ``FLOAT`` and ``FAKE_QUANTIZED``. ``micro`` are
    TFLM's outputs for the first images or all, keyed by the SHA-256 of the .tflite.

    Raises:
        ConfigError: the artifact's scheme is unknown.
    """
    reference = reference_for(artifact)
    scheme = SCHEMES[artifact.scheme]
    yield compare(
        artifact,
        outputs[artifact.sha256],
        references[reference],
        scoring,
        against=reference,
        tolerance=TOLERANCES[scheme.name],
    )
    if is_static_int8(scheme) and artifact.format != "tflite":
        for counterpart in exported:
            if counterpart.format == "tflite" and counterpart.scheme == scheme.name and counterpart.sha256 in outputs:
                yield compare(
                    artifact,
                    outputs[artifact.sha256],
                    outputs[counterpart.sha256],
                    scoring,
                    against=counterpart.file,
                    tolerance=SAME_WEIGHTS if has_float_operators(artifact) else SAME_INTEGERS,
                )
    for counterpart in (artifact,) if artifact.format == "tflite" else exported if artifact.format == "c" else ():
        if runs_in_tflm(counterpart) and counterpart.scheme == scheme.name and counterpart.sha256 in micro:
            expected = micro[counterpart.sha256]
            yield compare(
                artifact,
                outputs[artifact.sha256][: len(expected)],
                expected,
                scoring.first(len(expected)),
                against=in_tflm(counterpart),
                tolerance=SAME_BYTES if artifact.format == "c" else SAME_INTEGERS,
            )


def runs_in_tflm(artifact: Artifact) -> bool:
    """Whether TFLM runs an artifact as a reference: a static int8 .tflite."""
    return artifact.format == "tflite" and artifact.scheme in SCHEMES and is_static_int8(SCHEMES[artifact.scheme])


def in_tflm(artifact: Artifact) -> str:
    """The reference name of a .tflite in TFLM."""
    return f"{artifact.file} in TFLM"


def tflm_task(path: Path) -> Task:
    """The task to run the .tflite at ``path`` in TFLM on as many of the first images as the budget allows.

    Raises:
        MissingExtraError: ``tflite-micro`` is not installed.
        ArtifactError: the file is damaged.
    """
    require("tflite_micro")
    graph = read_graph(read_bytes(path), path.name)
    affordable = _TFLM_MACS // max(1, sum(macs(graph, operator) for operator in graph.operators))
    return task_of(path, "tflm", images=max(1, affordable))


def reference_of(path: Path, images: Float) -> Float:
    """Outputs of the Keras model at ``path``, in large batches."""
    with closing(open_session(path, threads=0, batch=256)) as session:
        return predict(session, images)


def difference(outputs: Float, reference: Float, scoring: Scoring, steps: Sequence[float | None]) -> Difference:
    """Difference between ``outputs`` and ``reference``, both ``(n, values)``.

    ``steps`` are the scales of quantised outputs. Of several outputs, the differences are those of the output with the
    largest mean difference, relative to its span; decisions are those of all.

    Raises:
        SessionError: shapes differ, or ``outputs`` contain NaN.
    """
    if outputs.shape != reference.shape:
        raise SessionError(f"outputs have shape {outputs.shape}, the reference has {reference.shape}")
    if not np.isfinite(outputs).all():
        raise SessionError(f"outputs contain NaN or infinity, first on image {_first_not_finite(outputs)}")
    decisions, wanted = scoring.decisions(outputs), scoring.decisions(reference)
    agree = None if decisions is None else int((decisions == wanted).sum())
    decided = None if decisions is None or decisions.shape[1] == 1 else decisions.size
    if not scoring.layout:
        return _difference(outputs, reference, steps[0]).replace(agree=agree, decisions=decided)
    pairs = zip(_apart(outputs, reference, scoring), steps, strict=True)
    each = [_difference(ours, theirs, step).replace(output=name) for (name, ours, theirs), step in pairs]
    worst = max(each, key=lambda one: one.mean_abs / (one.span or 1.0))
    return worst.replace(agree=agree, decisions=decided)


def _apart(outputs: Float, reference: Float, scoring: Scoring) -> Iterator[tuple[str, Float, Float]]:
    """Name, values ``(n, values)`` and reference of each output; the name is empty if there is one."""
    if not scoring.layout:
        yield "", outputs, reference
        return
    theirs = scoring.by_output(reference)
    for name, ours in scoring.by_output(outputs).items():
        yield name, ours.reshape(len(ours), -1), theirs[name].reshape(len(ours), -1)


def _difference(outputs: Float, reference: Float, step: float | None) -> Difference:
    error = np.abs(outputs.astype(np.float64) - reference)
    steps = None if step is None else np.rint(error / step)
    return Difference(
        images=len(outputs),
        span=float(reference.max() - reference.min()),
        max_abs=float(error.max()),
        mean_abs=float(error.mean()),
        worst_image=int(error.max(axis=1).argmax()),
        max_lsb=None if steps is None else int(steps.max()),
        mean_lsb=None if steps is None else float(steps.mean()),
        within_one_lsb=None if steps is None else float((steps <= 1).mean()),
    )


def compare(
    artifact: Artifact,
    outputs: Float,
    reference: Float,
    scoring: Scoring,
    *,
    against: str,
    tolerance: Tolerance,
    gain: bool = True,
) -> Parity:
    """Compare ``outputs`` of ``artifact`` with those of a reference on the same images.

    ``gain`` says whether both should have the same gain; ranges that were calibrated for integers saturate, so not with
    a float reference.

    Raises:
        SessionError: shapes differ, or ``outputs`` contain NaN.
    """
    steps = [None if each.quantization is None else each.quantization.scale[0] for each in artifact.outputs]
    found = difference(outputs, reference, scoring, steps)
    violations = _violations(found, tolerance, scoring.credits(reference) - scoring.credits(outputs), scoring.metric)
    if gain and against != FLOAT and not has_float_operators(artifact):  # operators left in float do not saturate
        for name, ours, theirs in _apart(outputs, reference, scoring):
            violations += [f"{name}: {text}" if name else text for text in _gain_violations(ours, theirs)]
    return Parity(
        artifact=artifact.name,
        artifact_sha256=artifact.sha256,
        runtime=runtime_for(Path(artifact.file)).name,
        reference=against,
        accuracy=scoring.score(outputs),
        reference_accuracy=scoring.score(reference),
        difference=found,
        tolerance=tolerance,
        violations=tuple(violations),
    )


def has_float_operators(artifact: Artifact) -> bool:
    """Whether tuning left operators of an int8 file in float."""
    tuning = artifact.provenance.tuning if artifact.provenance else None
    return tuning is not None and bool(tuning.in_float)


def _violations(got: Difference, allowed: Tolerance, drops: NDArray[np.float64], metric: str) -> list[str]:
    """A message for each violated tolerance, with value, limit and image.

    ``drops`` ``(n,)`` are the reference's credits minus those of the outputs.
    """
    found: list[str] = []
    span = got.span or 1.0
    of = "" if got.output is None else f"output {got.output}: "
    if allowed.max_abs is not None and got.max_abs > allowed.max_abs * span:
        found.append(
            f"{of}largest difference {got.max_abs:.3g} on image {got.worst_image} (limit {allowed.max_abs * span:.3g})"
        )
    if got.mean_abs > allowed.mean_abs * span:
        found.append(
            f"{of}mean difference {got.mean_abs:.3g} (limit {allowed.mean_abs * span:.3g}); "
            f"largest on image {got.worst_image}"
        )
    if allowed.mean_lsb is not None and got.mean_lsb is not None and got.mean_lsb > allowed.mean_lsb:
        found.append(
            f"{of}mean difference {got.mean_lsb:.3g} LSB (limit {allowed.mean_lsb:g}); "
            f"largest on image {got.worst_image}"
        )
    if got.agree is not None and wilson(got.agree, got.decisions or got.images)[1] < allowed.agreement:
        what = "top class agrees on" if got.decisions is None else "decisions agree in"
        of = "the images" if got.decisions is None else f"{got.decisions:,}"
        found.append(
            f"{what} {got.agreement:.2%} of {of} (limit {allowed.agreement:.2%}); "
            f"largest difference on image {got.worst_image}"
        )
    drop, chance = float(drops.mean()), 1.96 * float((drops**2).sum()) ** 0.5 / len(drops)
    if drop - chance > allowed.accuracy_drop:
        found.append(f"{metric} is {100 * drop:.2f} points lower (limit {100 * allowed.accuracy_drop:.2f})")
    return found


def _gain_violations(outputs: Float, reference: Float) -> list[str]:
    """A message if the logits of ``outputs`` are those of ``reference`` times a factor too far from 1."""
    gain, deviation = gain_of(outputs, reference)
    if abs(gain) - 1.96 * deviation <= _GAIN:
        return []
    return [
        f"output gain is off by {100 * gain:+.2f} % (limit ±{100 * _GAIN:.2f} %); possible causes: layers that round "
        "coarsely, sums that saturate (for .onnx: edgecnn inspect --assert portable), or a changed quantisation scale"
    ]


def gain_of(outputs: Float, reference: Float) -> tuple[float, float]:
    """Relative difference in gain of ``outputs`` from ``reference``, both ``(n, values)``, and its standard deviation.

    Least squares along the change that results from multiplying all logits, or all values without their mean, by
    ``1 + gain``, so noise and saturated probabilities have no weight.
    """
    found, wanted = outputs.astype(np.float64), reference.astype(np.float64)
    if wanted.min() >= 0 and np.allclose(wanted.sum(axis=1), 1, atol=0.05):  # probabilities
        logits = np.log(np.maximum(wanted, 1e-12))
        direction = wanted * (logits - (wanted * logits).sum(axis=1, keepdims=True))
    elif wanted.min() >= 0 and wanted.max() <= 1:  # of sigmoids
        inside = np.clip(wanted, 1e-12, 1 - 1e-12)
        direction = inside * (1 - inside) * np.log(inside / (1 - inside))
    else:
        direction = wanted - (wanted.mean(axis=1, keepdims=True) if wanted.shape[1] > 1 else wanted.mean())
    total = float((direction**2).sum())
    if total == 0:
        return 0.0, 0.0
    gain = float(((found - wanted) * direction).sum() / total)
    left = ((found - wanted - gain * direction) * direction).sum(axis=1)
    return gain, float((left**2).sum()) ** 0.5 / total


def _first_not_finite(outputs: Float) -> int:
    return int((~np.isfinite(outputs)).any(axis=1).argmax())
