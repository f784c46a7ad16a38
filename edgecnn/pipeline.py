"""The whole flow, from the data to the report: ``run`` has its stages in their order."""

import io
import logging
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from edgecnn import artifacts
from edgecnn.arrays import read_npy
from edgecnn.config import EPOCHS, RunConfig
from edgecnn.data import DataSet, load
from edgecnn.diagnosis.layers import layers
from edgecnn.emulation import costs
from edgecnn.emulation.answers import FORMATS as RUN_THERE
from edgecnn.emulation.answers import IMAGES, ready, run_on
from edgecnn.errors import (
    DataError,
    EdgecnnError,
    QuantizationError,
    RecordError,
    UnsupportedError,
)
from edgecnn.files import locked, make_folder, remove_leftovers, sha256_bytes, sha256_file, sha256_folder, write_atomic
from edgecnn.formats import FORMATS, TFMOT_TOOLS, TOOLS, Format, converter, export_file, file_name, pairs, provenance_of
from edgecnn.formats.source import Source
from edgecnn.inference import Task
from edgecnn.measure import Candidate, bench
from edgecnn.measure.baseline import load_baseline, shipped_baselines
from edgecnn.measure.comparison import answers_of, check_fits
from edgecnn.models import (
    MODELS,
    architecture,
    architecture_of,
    build_model,
    data_for,
    data_for_file,
    load_model,
    save_model,
    use_custom,
)
from edgecnn.optional import installed, missing, require
from edgecnn.progress import progress
from edgecnn.quantization.engines import ENDINGS, check_accuracy, engine_called
from edgecnn.quantization.schemes import SCHEMES, is_static_int8
from edgecnn.records import (
    SCHEMA_VERSION,
    Answers,
    Artifact,
    Baseline,
    BenchResults,
    Demo,
    Emulated,
    Failure,
    FileAnswers,
    FileCosts,
    History,
    LayerErrors,
    Parity,
    ProcessorAnswers,
    Report,
    Result,
    Scheme,
    StageTime,
    Tuning,
    read_record,
    to_json,
)
from edgecnn.report import write
from edgecnn.report.demo import demo
from edgecnn.runtimes import Float
from edgecnn.stamps import Stage, Stages
from edgecnn.tasks import Scoring
from edgecnn.training import train
from edgecnn.tuning import tune
from edgecnn.verification import (
    FAKE_QUANTIZED,
    FLOAT,
    References,
    answers,
    in_tflm,
    is_from_qat,
    judge,
    reference_for,
    runs_of,
)

log = logging.getLogger("edgecnn")

_TRIED = 8  # training images that calibrate an untrained model
_FEW = 300  # test images; and the share that two schemes typically decide differently
_DIFFERENT = 0.01
_TOOLS = (*TOOLS, "numpy", "onnxruntime", "ai-edge-litert")


def run(config: RunConfig, out: Path | str) -> Report:
    """Data, training, quantisation, export, verification, benchmark and report, into the folder ``out``.

    Safe to interrupt: a second call with the same arguments resumes, and repeats only what depends on something that
    changed.

    Raises:
        EdgecnnError: something that every row depends on failed (data, training, the output folder), or another run
            works in the folder. What concerns single artifacts becomes a ``Failure`` row.
    """
    out = Path(out)
    work = make_folder(make_folder(out) / "work")
    with locked(work, wait=False):
        flow = _Flow(config, out)  # loads the data
        flow.train()
        qat_weights = flow.quantize()
        source = cache(partial(flow.source, qat_weights))  # loaded by the first stage that needs it
        wanted = flow.wanted(qat_weights)
        tunings = flow.tune(wanted, source)
        exported = flow.export(wanted, source, tunings)
        converter.stop()
        references = flow.references(exported, source)
        outputs, in_micro = flow.outputs(exported)
        parities, right = flow.verify(exported, references, outputs, in_micro)
        processors = flow.emulate(exported, references, outputs)
        emulated = flow.costs(exported)
        layers = flow.layers(exported)
        measured = flow.bench(exported)
        tried = flow.demo(exported, references)
        report = Report(
            schema_version=SCHEMA_VERSION,
            title=f"{flow.name} on {flow.data.name}",
            data=flow.data.name,
            data_sha256=flow.data.sha256,
            test_images=len(flow.data.test.labels),
            environment=measured.environment,
            seed=config.seed,
            rows=(*_with_accuracy(measured.rows, parities, right), *flow.failures),
            parities=tuple(parities),
            baselines=flow.baselines,
            stages=tuple(flow.stages.times),
            layers=tuple(layers),
            emulated=tuple(emulated),
            processors=tuple(processors),
            guessing=flow.scoring.guessing(),
            task=flow.data.task,
        )
        write(report, out, tried)
        return report


class _Flow:
    """The stages of one run. Each takes the results of earlier ones; an error of a single artifact is kept as a row.

    Attributes:
        failures: the rows of what failed.
    """

    def __init__(self, config: RunConfig, out: Path) -> None:
        self.config = config
        self.out = out
        self.work = out / "work"
        self.artifacts = make_folder(out / "artifacts")
        self.model = out / "model.keras"
        self.qat_weights = out / f"qat{ENDINGS[config.qat_engine]}"
        self.name = re.sub(r"[^A-Za-z0-9_-]", "_", Path(config.model).stem)  # fit for a file name
        # a .keras file is not trained again unless asked
        self.epochs = config.epochs if config.epochs is not None else EPOCHS if config.model in MODELS else 0
        self.failures: list[Failure] = []
        # only a run writes to these two folders; the user may keep other files in the rest
        for own in (self.work, self.artifacts):
            remove_leftovers(own)  # of a run that was killed, maybe with other settings
        # report missing packages and unusable settings before the long work
        self.stages = Stages(out, _versions(_TOOLS))
        is_trained = any(SCHEMES[name].method == "qat" for name in config.schemes)
        self.qat_tools = _versions(TFMOT_TOOLS if is_trained and config.qat_engine == "tfmot" else ())
        self.processors = ready(config.on)
        custom = use_custom(config.custom) if config.custom else {}
        start = time.perf_counter()
        self.data = load(config.data, config.input_range, config.task, config.metric, resize=config.resize)
        few = len(self.data.test.labels)
        if self.data.scoring().counts and few < _FEW:
            log.warning(
                "%s has %d test images: schemes whose accuracy differs by less than %.1f points cannot be told apart",
                self.data.name, few, 100 * 1.96 * (_DIFFERENT / few) ** 0.5,
            )  # fmt: skip
        self.stages.times.append(StageTime(name="data", seconds=time.perf_counter() - start, reused=False))
        self.data_inputs = {
            "custom": custom,
            "data": self.data.sha256,
            "preprocessing": to_json(self.data.preprocessing).decode(),
        }
        self.baselines = self.chosen_baselines()

    def chosen_baselines(self) -> tuple[Baseline, ...]:
        """The float baselines of the model: those given, or else those that come with edgecnn."""
        config = self.config
        if config.baselines == ("none",):
            return ()
        files = tuple((Path(path), load_baseline(Path(path))) for path in config.baselines)
        if config.model in MODELS:
            shape = architecture(build_model(config.model, self.data, config.seed))
        else:
            shape = architecture_of(Path(config.model))
        for path, baseline in files:
            check_fits(path, baseline, {Path(config.model).name: (None, shape)})
        return tuple(baseline for _, baseline in files) or shipped_baselines(shape)

    @cached_property
    def scoring(self) -> Scoring:
        """How outputs for the test images are scored."""
        return self.data.scoring()

    @cached_property
    def test_images(self) -> Float:
        """All test images in the model's input range."""
        return self.data.test_inputs()

    def fitting(self, epochs: int, learning_rate: float) -> dict[str, Any]:
        """The settings of a training."""
        config = self.config
        return {
            "epochs": epochs,
            "seed": config.seed,
            "batch_size": config.batch_size,
            "validation_split": config.validation_split,
            "learning_rate": learning_rate,
        }

    def train(self) -> None:
        """model.keras: the built-in model trained, or the user's as it is or trained further."""
        config = self.config
        own = Path(config.model) if config.model not in MODELS else None
        settings = self.fitting(self.epochs, config.learning_rate)
        inputs = {**self.data_inputs, "model": config.model if own is None else _hash_or_name(own), **settings}
        history = self.out / "history.json"
        reads = partial(read_record, history, History)
        with Stage(self.stages, "train", inputs, [self.model, history], reads) as stage:
            if stage.due:
                model = load_model(own) if own else build_model(config.model, self.data, config.seed)
                data = data_for(model, self.data)
                if own and self.epochs:
                    self.foresee(model, data)
                # Checkpoints of other settings must not be taken up, so their folder is named after the settings.
                checkpoints = self.work / f"epochs-{sha256_bytes(msgspec.json.encode(inputs, order='sorted'))[:12]}"
                trained, epochs = train(model, data, **settings, checkpoints=make_folder(checkpoints))
                write_atomic(history, to_json(epochs))
                save_model(trained, self.model)
        self.data = data_for_file(self.model, self.data)

    def foresee(self, model: Any, data: DataSet) -> None:
        """Warn of each file that cannot be made of a user's model, before it is trained."""
        trial = Source(model, None, data.calibration(_TRIED), self.config.io, 1, self.config.onnx_cpu)
        provenance = provenance_of(self.name, "", data)
        wanted = [(format, scheme) for format, scheme in self.wanted(None) if scheme.activations != "int16"]
        with progress("try the exports", len(wanted) + 1) as advance:
            for format, scheme in wanted:
                try:
                    format.with_provenance(format.convert(trial, scheme), provenance.replace(scheme=scheme.name))
                except EdgecnnError as error:
                    log.warning("%s cannot be made: %s", file_name(self.name, scheme, format), error)
                advance()
            if any(SCHEMES[name].method == "qat" for name in self.config.schemes):
                try:
                    engine_called(self.config.qat_engine).fake_quantized(model, data)
                except EdgecnnError as error:
                    log.warning("int8-qat cannot be trained: %s", error)
        converter.stop()

    def quantize(self) -> Path | None:
        """qat.keras or qat.npz: the model after quantisation-aware training, which may end in a Failure."""
        if not any(SCHEMES[name].method == "qat" for name in self.config.schemes):
            return None  # a file that is there may be of a model before
        settings = self.fitting(self.config.qat_epochs, self.config.qat_learning_rate)
        inputs = {**self.data_inputs, "model": sha256_file(self.model), **settings, "tools": self.qat_tools}
        history = self.out / "qat-history.json"
        reads = partial(read_record, history, History)
        try:
            with Stage(self.stages, "quantize", inputs, [self.qat_weights, history], reads) as stage:
                if stage.due:
                    self.qat_weights.unlink(missing_ok=True)
                    trainer, model = engine_called(self.config.qat_engine), load_model(self.model)
                    quantized, epochs = trainer.train_quantized(model, self.data, **settings)
                    check_accuracy(model, quantized, self.data)
                    write_atomic(history, to_json(epochs))
                    trainer.save(quantized, self.qat_weights)
        except EdgecnnError as error:
            # a layer that cannot be trained quantised is a property of the model, as in the converters
            self.fail("quantize", "int8-qat", error, expected=isinstance(error, QuantizationError))
            return None
        return self.qat_weights

    def source(self, qat_weights: Path | None) -> Source:
        """The trained model, to convert."""
        config = self.config
        return Source.load(
            self.model,
            self.data,
            qat_weights=qat_weights,
            io=config.io,
            batch=1 if config.batch == "1" else None,
            calibration_images=config.calibration_images,
            onnx_cpu=config.onnx_cpu,
        )

    def wanted(self, qat_weights: Path | None) -> list[tuple[Format, Scheme]]:
        """Every scheme in every format, those of quantisation-aware training only if it gave weights."""
        every = pairs([FORMATS[name] for name in self.config.formats], [SCHEMES[name] for name in self.config.schemes])
        return [(format, scheme) for format, scheme in every if scheme.method != "qat" or qat_weights is not None]

    def export_inputs(self, scheme: Scheme) -> dict[str, object]:
        """What the exports of a scheme depend on."""
        return {
            **self.data_inputs,
            "model": sha256_file(self.model),
            "qat": sha256_file(self.qat_weights) if scheme.method == "qat" else None,
            "io": self.config.io,
            "batch": self.config.batch,
            "calibration": self.config.calibration_images,
            "onnx_cpu": self.config.onnx_cpu,
        }

    def tune(self, wanted: list[tuple[Format, Scheme]], source: Callable[[], Source]) -> dict[str, Tuning]:
        """work/tuning-….json, by scheme: which operators of the int8 .onnx files stay in float on this machine."""
        tunings: dict[str, Tuning] = {}
        for format, scheme in wanted if self.config.tune else ():
            if format.name != "onnx" or not is_static_int8(scheme):
                continue
            path = self.work / f"tuning-{scheme.name}.json"
            inputs = {**self.export_inputs(scheme), "seconds": self.config.tune_seconds}
            reads = partial(read_record, path, Tuning)
            try:
                with Stage(self.stages, f"tune-{scheme.name}", inputs, [path], reads) as stage:
                    if stage.due:
                        write_atomic(path, to_json(tune(source(), scheme, self.config.tune_seconds)))
                tunings[scheme.name] = stage.result()
            except EdgecnnError as error:
                log.info("no tuning of %s.onnx: %s", scheme.name, error)  # export gives the reason as a row
        return tunings

    def export(
        self, wanted: list[tuple[Format, Scheme]], source: Callable[[], Source], tunings: Mapping[str, Tuning]
    ) -> list[Artifact]:
        """Every file that is wanted; one that is unsupported, or fails, becomes a Failure."""
        exported: list[Artifact] = []
        provenance = provenance_of(self.name, sha256_file(self.model), self.data)
        with progress("export", len(wanted)) as advance:
            for format, scheme in wanted:
                advance(note=f"{scheme.name}.{format.ending}")
                path = self.artifacts / file_name(self.name, scheme, format)
                outputs = [path, artifacts.sidecar(path), *(path.with_suffix(f".{end}") for end in format.companions)]
                inputs = self.export_inputs(scheme)
                tuning = tunings.get(scheme.name) if format.name == "onnx" else None
                if tuning is not None:
                    inputs["tuning"] = to_json(tuning).decode()
                try:
                    reads = partial(artifacts.load, path)
                    with Stage(self.stages, f"export-{path.name}", inputs, outputs, reads) as stage:
                        if stage.due:
                            export_file(
                                source(),
                                format=format,
                                scheme=scheme,
                                tuning=tuning,
                                provenance=provenance,
                                folder=self.artifacts,
                            )
                    exported.append(stage.result())
                except EdgecnnError as error:
                    self.fail("export", path.name, error)
        return exported

    def outputs_stage(self, name: str, inputs: dict[str, object]) -> Stage[Float]:
        """The stage of what the model called ``name`` gives for the test images."""
        path = self.work / f"outputs-{name.replace(' ', '-')}.npy"
        return Stage(self.stages, path.stem, {**self.data_inputs, **inputs}, [path], partial(_load_outputs, path))

    def references(self, exported: list[Artifact], source: Callable[[], Source]) -> References:
        """Outputs of the Keras model, and of the fake-quantised one for what comes from it, for all test images."""
        references = References(self.model, self.test_images, source)
        depends: dict[str, dict[str, object]] = {FLOAT: {"model": sha256_file(self.model)}}
        if any(map(is_from_qat, exported)):
            depends[FAKE_QUANTIZED] = {**depends[FLOAT], "qat": sha256_file(self.qat_weights)}
        for name, inputs in depends.items():
            with self.outputs_stage(name, inputs) as stage:
                if stage.due:
                    _save(stage.outputs[0], references[name])
            references[name] = stage.result()
        self.warn_if_guessing(references[FLOAT])
        return references

    def warn_if_guessing(self, outputs: Float) -> None:
        """Say so if the float model is no better than the best constant outputs."""
        accuracy, guessing = self.scoring.score(outputs), self.scoring.guessing()
        if accuracy.interval[0] <= guessing:
            log.warning(
                "the %s of the float model is %.1f %%, no better than guessing (%.1f %%); %s",
                accuracy.metric,
                100 * accuracy.value,
                100 * guessing,
                "train it longer, with more epochs" if self.epochs else "it was not trained in this run: pass --epochs",
            )

    def outputs(self, exported: list[Artifact]) -> tuple[dict[str, Float], dict[str, Float]]:
        """Outputs of the artifacts for all test images, and those in TFLM for the first of them, by the file's hash.

        What is not kept from before is computed in one go. A file that cannot be run is a Failure.
        """
        outputs: dict[str, Float] = {}
        in_micro: dict[str, Float] = {}
        due: dict[Task, Stage[Float]] = {}
        runs = runs_of((artifact, self.artifacts / artifact.file) for artifact in exported)
        for run in runs:
            inputs: dict[str, object] = {"artifact": run.artifact.sha256}
            if run.in_tflm:
                inputs["tflm"] = require("tflite_micro").__version__
            stage = self.outputs_stage(in_tflm(run.artifact) if run.in_tflm else run.artifact.file, inputs)
            if stage.due:
                due[run.task] = stage
            else:
                (in_micro if run.in_tflm else outputs)[run.artifact.sha256] = stage.result()
        for run, answer, seconds in answers([run for run in runs if run.task in due], self.test_images):
            if isinstance(answer, EdgecnnError):
                self.fail("verify", run.artifact.file, answer)
            else:
                (in_micro if run.in_tflm else outputs)[run.artifact.sha256] = answer
                _save(due[run.task].outputs[0], answer)
                due[run.task].finish(seconds)
        return outputs, in_micro

    def verify(
        self,
        exported: list[Artifact],
        references: References,
        outputs: Mapping[str, Float],
        in_micro: Mapping[str, Float],
    ) -> tuple[list[Parity], dict[str, Answers]]:
        """Every artifact against the model it came from and against its twins; and which images they get right.

        The second is by the file's hash, and for the Keras model too.
        """
        right = {sha256_file(self.model): answers_of(references[FLOAT], self.data)}
        parities: list[Parity] = []
        with progress("score", len(exported)) as advance:
            for artifact in exported:
                advance(note=artifact.file)
                if artifact.sha256 in outputs:
                    try:
                        parities += judge(artifact, exported, outputs, references, self.scoring, in_micro)
                        right[artifact.sha256] = answers_of(outputs[artifact.sha256], self.data)
                    except EdgecnnError as error:
                        self.fail("verify", artifact.file, error)
        return parities, right

    def emulate(
        self, exported: list[Artifact], references: References, outputs: Mapping[str, Float]
    ) -> list[ProcessorAnswers]:
        """work/answers-….json: what every .tflite and .onnx answers on emulated processors; what failed is a row."""
        rows: list[ProcessorAnswers] = []
        first = slice(IMAGES)
        for artifact in exported if self.processors else ():
            if artifact.format not in RUN_THERE or artifact.sha256 not in outputs:
                continue
            path = self.work / f"answers-{artifact.file}.json"
            inputs = {
                **self.export_inputs(SCHEMES[artifact.scheme]),
                "artifact": artifact.sha256,
                "images": IMAGES,
                "processors": [each.key for each in self.processors],
            }
            with Stage(self.stages, path.stem, inputs, [path], partial(read_record, path, FileAnswers)) as stage:
                if stage.due:
                    found = run_on(
                        self.artifacts / artifact.file,
                        artifact,
                        self.processors,
                        self.test_images[first],
                        self.scoring.first(IMAGES),
                        references[reference_for(artifact)][first],
                        outputs[artifact.sha256][first],
                    )
                    write_atomic(path, to_json(FileAnswers(rows=tuple(found))))
            for row in stage.result().rows:
                if isinstance(row, ProcessorAnswers):
                    rows.append(row)
                else:
                    self.failures.append(row)
                    stage.forget()  # tried again next time
        return rows

    def costs(self, exported: list[Artifact]) -> list[Emulated]:
        """work/costs-….json: instructions, flash and RAM of the C files; what failed is a row."""
        found: list[Emulated] = []
        for artifact in exported if self.config.target else ():
            if artifact.format != "c":
                continue
            file, path = self.artifacts / artifact.file, self.work / f"costs-{artifact.file}.json"
            inputs = {"artifact": artifact.sha256, "targets": self.config.target}
            with Stage(self.stages, path.stem, inputs, [path], partial(read_record, path, FileCosts)) as stage:
                if stage.due:
                    emulated, failures = costs([file], self.config.target)
                    write_atomic(path, to_json(FileCosts(emulated=emulated, failures=failures)))
            counted = stage.result()
            found += counted.emulated
            self.failures += counted.failures
            if counted.failures:
                stage.forget()  # tried again next time
        return found

    def layers(self, exported: list[Artifact]) -> list[LayerErrors]:
        """work/layers-….json: the error of every int8 tensor inside the int8 .tflite files."""
        found: list[LayerErrors] = []
        for artifact in exported:
            scheme = SCHEMES[artifact.scheme]
            if artifact.format != "tflite" or not is_static_int8(scheme):
                continue
            file, path = self.artifacts / artifact.file, self.work / f"layers-{artifact.file}.json"
            inputs = {**self.export_inputs(scheme), "artifact": artifact.sha256}
            try:
                with Stage(self.stages, path.stem, inputs, [path], partial(read_record, path, LayerErrors)) as stage:
                    if stage.due:
                        weights = self.qat_weights if is_from_qat(artifact) else None
                        (errors,) = layers([file], self.data, model=self.model, qat_weights=weights)
                        write_atomic(path, to_json(errors))
                found.append(stage.result())
            except EdgecnnError as error:
                self.fail("layers", artifact.file, error)
        return found

    def bench(self, exported: list[Artifact]) -> BenchResults:
        """bench.json: the Keras model and every artifact, interleaved."""
        config = self.config
        keras = artifacts.describe_here(self.model)
        devices = ["cpu", *(["gpu"] if require("tensorflow").config.list_physical_devices("GPU") else [])]
        files = [(self.model, keras, device) for device in devices]
        files += [(self.artifacts / artifact.file, artifact, "cpu") for artifact in exported]
        candidates = [
            Candidate(path=path, artifact=artifact, threads=threads, device=device)
            for path, artifact, device in files
            for threads in config.threads
        ]
        path = self.out / "bench.json"
        inputs = {
            "artifacts": [artifact.sha256 for artifact in (keras, *exported)],
            "devices": devices,
            "threads": config.threads,
            "seconds": config.seconds,
            "cold": config.cold,
            "seed": config.seed,
        }
        with Stage(self.stages, "bench", inputs, [path], partial(read_record, path, BenchResults)) as stage:
            if stage.due:
                measured = bench(
                    candidates,
                    image=self.test_images[0],
                    seconds=config.seconds,
                    processes=config.cold,
                    seed=config.seed,
                )
                write_atomic(path, to_json(measured))
        results = stage.result()
        if any(isinstance(row, Failure) for row in results.rows):
            stage.forget()  # tried again next time
        return results

    def demo(self, exported: list[Artifact], references: References) -> Demo | str | None:
        """work/demo.json: the int8 model, to try in report.html; else the reason why there is none."""
        if not self.config.demo:
            return None
        found = [one for one in exported if one.format == "tflite" and is_static_int8(SCHEMES[one.scheme])]
        if not found:
            return "no int8 .tflite was exported."
        artifact = found[-1]  # trained for int8, if any is
        path = self.work / "demo.json"
        inputs = {**self.export_inputs(SCHEMES[artifact.scheme]), "artifact": artifact.sha256}
        try:
            with Stage(self.stages, "demo", inputs, [path], partial(read_record, path, Demo)) as stage:
                if stage.due:
                    made = demo(self.artifacts / artifact.file, self.data, references[FLOAT])
                    write_atomic(path, to_json(made))
            return stage.result()
        except EdgecnnError as error:
            return f"{error}."

    def fail(self, stage: str, subject: str, error: EdgecnnError, *, expected: bool = False) -> None:
        """Keep an error as a row."""
        expected = expected or isinstance(error, UnsupportedError)
        log.info("%s: %s", subject, error)
        self.failures.append(Failure.of(subject, stage, error, expected=expected))


def _with_accuracy(
    rows: tuple[Result | Failure, ...], parities: list[Parity], answers: dict[str, Answers]
) -> Iterator[Result | Failure]:
    """Rows with the accuracy counted in verification; the Keras model's is that of every float reference."""
    # against TFLM the images may be fewer
    whole = [parity for parity in parities if parity.reference in (FLOAT, FAKE_QUANTIZED)]
    counted = {parity.artifact_sha256: parity.accuracy for parity in whole}
    floats = [parity.reference_accuracy for parity in parities if parity.reference == FLOAT]
    for row in rows:
        if isinstance(row, Result):
            keras = floats[0] if floats and row.artifact.format == "keras" else None
            sha256 = row.artifact.sha256
            yield row.replace(accuracy=counted.get(sha256, keras), answers=answers.get(sha256))
        else:
            yield row


def _save(path: Path, outputs: Float) -> None:
    buffer = io.BytesIO()
    np.save(buffer, outputs)
    write_atomic(path, buffer.getvalue())


def _load_outputs(path: Path) -> Float:
    try:
        outputs: Float = read_npy(path)
    except DataError as error:
        raise RecordError(str(error)) from error
    if outputs.ndim != 2 or outputs.dtype != np.float32:
        raise RecordError(f"{path} contains {outputs.dtype} of shape {outputs.shape}, not float32 (images, values)")
    return outputs


def _versions(tools: Iterable[str]) -> dict[str, str]:
    """The version of each tool, all of which have to be installed."""
    found: dict[str, str] = {}
    for tool in tools:
        version = installed(tool)
        if version is None:
            raise missing(tool)
        found[tool] = version
    return found


def _hash_or_name(path: Path) -> str:
    if path.is_dir():
        return sha256_folder(path)
    return sha256_file(path) if path.is_file() else str(path)  # a missing file is an error when it is loaded
