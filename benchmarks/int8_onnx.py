"""The suite ``int8-onnx``: is an int8 .onnx file faster, and how do other tools compare?

Latency hardly depends on the weights, but outputs do, so the models are trained (``models.py``). Training MobileNetV2
would take hours; it stays untrained, and its outputs are not compared.
"""

import logging
import math
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.markdown import grid, measured_on, one_thread
from benchmarks.models import REFERENCE, UNTRAINED, trained
from benchmarks.suite import ModelSuite, read_suite
from edgecnn import artifacts
from edgecnn.data import DataSet
from edgecnn.errors import RecordError
from edgecnn.files import make_folder, sha256_file, write_atomic
from edgecnn.formats import FORMATS, onnx, provenance_of
from edgecnn.formats.onnx.values import spec_of
from edgecnn.formats.source import Source
from edgecnn.inference import outputs_of, task_of
from edgecnn.inspection.portable import without_vnni
from edgecnn.measure import Candidate, bench, statistics
from edgecnn.measure.statistics import Estimate
from edgecnn.models import MODELS, save_model
from edgecnn.optional import require
from edgecnn.processor import has_vnni
from edgecnn.quantization import tfmot
from edgecnn.quantization.schemes import SCHEMES
from edgecnn.quiet import quiet_stderr
from edgecnn.records import (
    SCHEMA_VERSION,
    Artifact,
    BenchResults,
    Failure,
    Measurement,
    Parity,
    Report,
    Result,
    to_json,
)
from edgecnn.report import units
from edgecnn.report.grid import Notes
from edgecnn.tflite.graph import read_graph
from edgecnn.tuning import tune
from edgecnn.verification import SAME_INTEGERS, SAME_WEIGHTS, compare

FLOAT = "-float32.onnx"
UNTUNED = "-int8-qat.onnx"
UINT8 = "-int8-qat-uint8.onnx"
TUNED = "-int8-qat-tuned.onnx"
TFLITE = "-int8-qat.tflite"
TF2ONNX = "-int8-qat-tf2onnx.onnx"
STATIC = "-quantize_static.onnx"
COLUMNS = {
    "-float32.tflite": "LiteRT: float32",
    TFLITE: "LiteRT: int8-qat",
    FLOAT: "ORT: float32",
    UNTUNED: "ORT: int8-qat",
    UINT8: "ORT: int8-qat, uint8 weights",
    TUNED: "ORT: int8-qat, tuned",
    TF2ONNX: "ORT: tf2onnx",
    STATIC: "ORT: quantize_static",
}
"""Measured files of each model: end of the file name, and column title."""

WORST_LIMIT = 1.0
"""Largest allowed time of each tuned file ÷ time of the float file."""

LIMITS_WITH_VNNI, LIMITS_WITHOUT = (0.62, 0.72), (WORST_LIMIT, 0.9)
"""The same for the reference CNN and for the geometric mean. Without VNNI, sums without saturation take longer."""

UNTUNED_SIZE_LIMIT, TUNED_SIZE_LIMIT = 1.08, 0.5
"""Largest allowed size: untuned file ÷ .tflite file, tuned file ÷ float .onnx file."""

AGREEMENT_LIMIT, ONE_LSB_LIMIT, ACCURACY_LIMIT = 0.999, 0.999, 0.0005
"""The reference CNN's .onnx against its .tflite, as fractions: smallest allowed share of equal top classes and of
outputs within one step, both without tuning; largest allowed difference in accuracy with tuning."""


class Settings(ModelSuite, frozen=True):
    """Settings of the suite; times in seconds. ``images`` calibrate the ranges.

    The reference CNN trains on all of MNIST for one epoch, the others on ``train_images`` for ``epochs``. The outputs
    of the others are compared on ``test_images``.
    """

    train_images: int
    epochs: int
    test_images: int
    tune_seconds: float
    seconds: float
    blocks: int


def run(path: Path, out: Path) -> Report:
    """Write every file of the suite at ``path`` into the folder ``out`` and measure them, interleaved per model."""
    suite = read_suite(path, Settings)
    make_folder(out)
    made, parities = {}, []
    for name in suite.models:
        source, data = _source(name, suite)
        made[name] = _prepared(name, source, data, suite, out)
        if name != UNTRAINED:
            parities += _compared(name, data, out)
    measured = [_measured(name, files, suite, out) for name, files in made.items()]
    return Report(
        schema_version=SCHEMA_VERSION,
        title="Int8 .onnx in ONNX Runtime",
        data="mnist, brought to each model's size",
        data_sha256=None,
        test_images=suite.test_images,
        environment=measured[0].environment,
        seed=suite.seed,
        rows=tuple(row for results in measured for row in results.rows),
        parities=tuple(parities),
    )


def _measured(name: str, files: list[Artifact | Failure], suite: Settings, out: Path) -> BenchResults:
    """Measure the files of a model: one row per file. Files that could not be made are rows already."""
    candidates = [Candidate(path=out / made.file, artifact=made) for made in files if isinstance(made, Artifact)]
    _, height, width, channels = MODELS[name]().input_shape
    image = np.random.default_rng(suite.seed).random((height, width, channels), np.float32)
    results = bench(candidates, image=image, seconds=suite.seconds, blocks=suite.blocks, seed=suite.seed)
    rows = iter(results.rows)
    return results.replace(rows=tuple(next(rows) if isinstance(made, Artifact) else made for made in files))


# The files


def _prepared(name: str, source: Source, data: DataSet, suite: Settings, out: Path) -> list[Artifact | Failure]:
    """Write every file of the model ``name`` into ``out``; a Failure gives the reason if one could not be made."""
    model_file = out / f"{name}.keras"
    save_model(source.model, model_file)
    provenance = provenance_of(name, sha256_file(model_file), data)

    def ours(file_format: str, scheme: str) -> bytes:
        chosen = FORMATS[file_format]
        return chosen.with_provenance(chosen.convert(source, SCHEMES[scheme]), provenance.replace(scheme=scheme))

    def tuned() -> bytes:
        scheme = SCHEMES["int8-qat"]
        tuning = tune(source, scheme, suite.tune_seconds)
        content = onnx.convert(source, scheme, tuning)
        return onnx.with_provenance(content, provenance.replace(scheme=scheme.name, tuning=tuning))

    makers: dict[str, Callable[[], bytes]] = {
        "-float32.tflite": lambda: ours("tflite", "float32"),
        TFLITE: lambda: ours("tflite", "int8-qat"),
        FLOAT: lambda: ours("onnx", "float32"),
        UNTUNED: lambda: ours("onnx", "int8-qat"),
        UINT8: lambda: _as_without_vnni(out / f"{name}{UNTUNED}"),
        TUNED: tuned,
        TF2ONNX: lambda: _by_tf2onnx(out / f"{name}{TFLITE}"),
        STATIC: lambda: _by_quantize_static(out / f"{name}{FLOAT}", source),
    }
    return [_made(out / f"{name}{ending}", makers[ending]) for ending in COLUMNS]


def _made(path: Path, maker: Callable[[], bytes]) -> Artifact | Failure:
    try:
        write_atomic(path, maker())
        return artifacts.describe(path)
    except Exception as error:  # noqa: BLE001 - any failure of a tool is a result
        reason = " ".join(str(error).split())[:300] or "no reason given"
        return Failure(subject=path.name, stage="convert", error=type(error).__name__, reason=reason)


def _compared(name: str, data: DataSet, out: Path) -> list[Parity]:
    """Compare the int8-qat .onnx files of the model ``name`` with their .tflite on the test images."""
    images, scoring = data.test_inputs(), data.scoring()
    expected = outputs_of(task_of(out / f"{name}{TFLITE}"), images)
    return [
        compare(
            artifacts.describe(path),
            outputs_of(task_of(path), images),
            expected,
            scoring,
            against=f"{name}{TFLITE}",
            tolerance=SAME_WEIGHTS if ending == TUNED else SAME_INTEGERS,
        )
        for ending in (UNTUNED, UINT8, TUNED)
        if (path := out / f"{name}{ending}").is_file()
    ]


def _source(name: str, suite: Settings) -> tuple[Source, DataSet]:
    """The model, its fake-quantised copy and its data."""
    model, data = trained(name, suite.seed, suite.train_images, suite.epochs, suite.test_images)
    images = data.calibration(suite.images)
    if name == UNTRAINED:
        quantized = tfmot.fake_quantized(model, data)
        quantized(images[:1], training=True)  # sets the ranges of weights, as a training step does
        tfmot.calibrate_ranges(quantized, images)
    else:
        quantized, _ = tfmot.train_quantized(model, data, epochs=1, seed=suite.seed)
    return Source(model, quantized, images, "int8", 1), data


def _as_without_vnni(path: Path) -> bytes:
    """The .onnx file with the weights it uses on a processor without VNNI, where sums of int8 products saturate."""
    return bytes(without_vnni(require("onnx").load(path)).SerializeToString(deterministic=True))


def _by_tf2onnx(path: Path) -> bytes:
    """The int8 .tflite file converted by tf2onnx, with channels-first input like the other .onnx files."""
    tf2onnx = require("tf2onnx")
    logging.getLogger("tf2onnx").setLevel(logging.CRITICAL)
    graph = read_graph(path.read_bytes(), path.name)
    source = graph.tensors[graph.inputs[0]]
    with quiet_stderr(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model, _ = tf2onnx.convert.from_tflite(str(path), opset=17, inputs_as_nchw=[source.name])
    # an .onnx file does not contain the scale of an integer input, which a session needs to encode an image
    spec = spec_of(source, model.graph.input[0].name)
    model.metadata_props.add(key="edgecnn.input", value=to_json(spec).decode())
    return bytes(model.SerializeToString(deterministic=True))


def _by_quantize_static(path: Path, source: Source) -> bytes:
    """The float .onnx file quantised by ONNX Runtime's own tool, as its documentation recommends for x86: QDQ, U8S8."""
    quantization = require("onnxruntime.quantization")

    class Images(quantization.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left: Iterator[Any] = iter(source.calibration.transpose(0, 3, 1, 2))

        def get_next(self) -> dict[str, Any] | None:
            image = next(self.left, None)
            return None if image is None else {"input": np.ascontiguousarray(image[np.newaxis])}

    with tempfile.TemporaryDirectory() as folder, quiet_stderr():
        prepared, target = Path(folder) / "prepared.onnx", Path(folder) / "target.onnx"
        # symbolic shapes are for dynamic dimensions, and there are none
        quantization.shape_inference.quant_pre_process(path, prepared, skip_symbolic_shape=True)
        quantization.quantize_static(
            prepared,
            target,
            Images(),
            quant_format=quantization.QuantFormat.QDQ,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            per_channel=True,
        )
        return target.read_bytes()


# The table


def models_of(report: Report) -> tuple[str, ...]:
    """The models of ``report``, in order."""
    names = (_file(row) for row in report.rows)
    return tuple(name.removesuffix(FLOAT) for name in names if name.endswith(FLOAT))


def row_of(report: Report, model: str, ending: str) -> Result | Failure:
    """The row of the file ``<model><ending>``.

    Raises:
        RecordError: ``report`` has none.
    """
    for row in report.rows:
        if _file(row) == f"{model}{ending}":
            return row
    raise RecordError(f"the result has no row for {model}{ending}; run: python -m benchmarks run int8-onnx")


def _file(row: Result | Failure) -> str:
    return row.artifact.file if isinstance(row, Result) else row.subject.partition(",")[0]


def measurement_of(report: Report, model: str, ending: str) -> Measurement:
    """The measurement of a file that edgecnn makes.

    Raises:
        RecordError: the file could not be made or measured, or ``report`` does not have it.
    """
    row = row_of(report, model, ending)
    if isinstance(row, Failure):
        raise RecordError(f"the result has no measurement of {row.subject}: {row.reason}")
    return row.measurement


def to_float(report: Report, model: str, ending: str) -> Estimate:
    """Time of a file ÷ time of the float .onnx file of the same model."""
    return statistics.ratio(measurement_of(report, model, ending), measurement_of(report, model, FLOAT))


def geometric_mean(report: Report) -> float:
    """Geometric mean of tuned ÷ float over all models."""
    models = models_of(report)
    return math.exp(sum(math.log(to_float(report, model, TUNED).value) for model in models) / len(models))


def to_size(report: Report, model: str, ending: str, reference: str) -> float:
    """Size of a file ÷ size of another file of the same model."""
    sizes = []
    for one in (ending, reference):
        row = row_of(report, model, one)
        if isinstance(row, Failure):
            raise RecordError(f"the result has no size of {row.subject}: {row.reason}")
        sizes.append(row.artifact.size_bytes)
    return sizes[0] / sizes[1]


def time_limits(report: Report) -> tuple[float, float]:
    """The limits of the reference CNN and of the geometric mean on the processor of ``report``."""
    return LIMITS_WITH_VNNI if has_vnni(report.environment.cpu_features) else LIMITS_WITHOUT


def missed(report: Report) -> tuple[str, ...]:
    """A message for each limit that ``report`` misses."""
    found = []

    def check(what: str, value: float, limit: float) -> None:
        if value > limit:
            found.append(f"{what} is {units.ratio(value)}, limit {limit:g}")

    reference_limit, mean_limit = time_limits(report)
    for model in models_of(report):
        limit = reference_limit if model == REFERENCE else WORST_LIMIT
        check(f"{model}: time of tuned ÷ float32", to_float(report, model, TUNED).value, limit)
        check(f"{model}: size of untuned ÷ .tflite", to_size(report, model, UNTUNED, TFLITE), UNTUNED_SIZE_LIMIT)
        check(f"{model}: size of tuned ÷ float32", to_size(report, model, TUNED, FLOAT), TUNED_SIZE_LIMIT)
    check("geometric mean of the time of tuned ÷ float32", geometric_mean(report), mean_limit)
    for parity in report.parities:
        difference = parity.difference
        if parity.artifact == f"{REFERENCE}{UNTUNED}":
            assert difference.within_one_lsb is not None
            check("untuned: share of images with another top class", 1 - difference.agreement, 1 - AGREEMENT_LIMIT)
            check("untuned: share of outputs further than 1 LSB", 1 - difference.within_one_lsb, 1 - ONE_LSB_LIMIT)
        elif parity.artifact == f"{REFERENCE}{TUNED}":
            accuracy_change = abs(parity.accuracy.value - parity.reference_accuracy.value)
            check("tuned: difference in accuracy", accuracy_change, ACCURACY_LIMIT)
    return tuple(found)


def table(report: Report, source: str) -> str:
    """Times, ratios and sizes as Markdown tables, one row per model; ``source`` names the file of ``report``."""
    models, notes = models_of(report), Notes()
    unit = units.unit_for(statistics.summary(measurement_of(report, model, TUNED)).median for model in models)

    def marked(text: str, *about: str) -> str:
        marks = notes.mark(*about)
        return f"{text} ({', '.join(marks)})" if marks else text

    def time(model: str, ending: str) -> str:
        row = row_of(report, model, ending)
        if isinstance(row, Failure):
            return marked(units.ABSENT, f"{row.stage}: {row.error}: {row.reason}")
        timing = statistics.summary(row.measurement)
        text = str(units.time_interval(timing.median, timing.low, timing.high, unit))
        # what it means is enough here, or nearly every cell would have a note with its own numbers
        return marked(text, *(warning.rpartition(": ")[2] for warning in statistics.warnings(row.measurement)))

    def size(model: str, ending: str) -> str:
        row = row_of(report, model, ending)
        return units.ABSENT if isinstance(row, Failure) else units.count(row.artifact.size_bytes)

    how = one_thread(report.environment)
    parts = [
        f"Median time, {unit.name} [95 %]:",
        _by_file(models, time),
        *_ratios(report),
        "Size, bytes:",
        _by_file(models, size),
        "Size of int8-qat .onnx ÷ int8-qat .tflite, and of tuned ÷ float32 .onnx:",
        grid(
            ("model", "int8-qat ÷ .tflite", "tuned ÷ float32"),
            [
                (model, *(units.ratio(to_size(report, model, *pair)) for pair in ((UNTUNED, TFLITE), (TUNED, FLOAT))))
                for model in models
            ],
        ),
        "Outputs compared with those of its own int8-qat .tflite, on the same test images:",
        _answers(report),
        _limits(report),
        "\n".join(f"- ({mark}) {text}" for mark, text in notes.all()),
        f"Measured on {measured_on(report.environment, how)}. Every sample is in `{source}`.",
    ]
    return "\n\n".join(part for part in parts if part)


def _ratios(report: Report) -> tuple[str, ...]:
    models = models_of(report)

    def ratio(model: str, ending: str) -> str:
        if isinstance(row_of(report, model, ending), Failure):
            return units.ABSENT
        estimate = to_float(report, model, ending)
        return str(units.ratio_interval(estimate.value, estimate.low, estimate.high))

    return (
        "Time ÷ time of the float32 file in ONNX Runtime, block by block [95 %]; below 1 is faster:",
        _by_file(models, ratio),
        f"Geometric mean of tuned ÷ float32 in ONNX Runtime over {units.counted(len(models), 'model')}: "
        f"**{units.ratio(geometric_mean(report))}**.",
    )


def _answers(report: Report) -> str:
    rows = []
    for parity in report.parities:
        difference = parity.difference
        assert difference.within_one_lsb is not None
        assert difference.max_lsb is not None
        cells = (
            parity.artifact,
            units.count(difference.images),
            units.percent(difference.agreement),
            units.percent(difference.within_one_lsb),
            units.count(difference.max_lsb),
            units.percent(parity.accuracy.value),
            units.percent(parity.reference_accuracy.value),
        )
        rows.append(cells)
    titles = "file", "test images", "same top class, %", "within 1 LSB, %", "largest, LSB", "accuracy, %", ".tflite, %"
    return grid(titles, rows)


def _limits(report: Report) -> str:
    reference_limit, mean_limit = time_limits(report)
    limits = (
        f"Limits: time of tuned ÷ float32 at most {reference_limit:g} for {REFERENCE}, {mean_limit:g} in the geometric "
        f"mean, {WORST_LIMIT:g} for every model; size of int8-qat .onnx at most {UNTUNED_SIZE_LIMIT:g} of the .tflite "
        f"file's, of the tuned one at most {TUNED_SIZE_LIMIT:g} of the float32 .onnx file's; for {REFERENCE} without "
        f"tuning, the same top class on at least {units.percent(AGREEMENT_LIMIT)} % of the images and at least "
        f"{units.percent(ONE_LSB_LIMIT)} % of the outputs within 1 LSB; with tuning, an accuracy that differs by at "
        f"most {units.percent(ACCURACY_LIMIT)} points. "
    )
    return limits + ("Missed: " + "; ".join(found) + "." if (found := missed(report)) else "All are met.")


def _by_file(models: tuple[str, ...], cell: Callable[[str, str], str]) -> str:
    return grid(
        ("model", *COLUMNS.values()), [(model, *(cell(model, ending) for ending in COLUMNS)) for model in models]
    )
