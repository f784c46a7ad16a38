"""The whole flow, in stages that are written whole or not at all and redone only when their inputs change."""

import io
import logging
import re
import shutil
import time
from collections.abc import Callable, Iterator
from functools import cached_property, partial
from importlib import metadata
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from edgecnn import artifacts
from edgecnn.arrays import read_npy
from edgecnn.bench import Candidate, bench
from edgecnn.bench.baseline import load_baseline, shipped_baselines
from edgecnn.bench.comparison import answers_of, check_fits
from edgecnn.config import EPOCHS, RunConfig
from edgecnn.data import DataSet, load
from edgecnn.diagnosis.layers import layers
from edgecnn.emulation.answers import FORMATS as RUN_THERE
from edgecnn.emulation.answers import IMAGES, ready, run_on
from edgecnn.errors import (
    DataError,
    EdgecnnError,
    MissingExtraError,
    RecordError,
    UnsupportedError,
)
from edgecnn.files import locked, make_folder, remove_leftovers, sha256_bytes, sha256_file, write_atomic
from edgecnn.formats import FORMATS, TOOLS, Format, export, file_name, pairs, provenance_of
from edgecnn.formats.source import Source
from edgecnn.inference import Task, infer, task_of
from edgecnn.models import MODELS, architecture, architecture_of, build_model, check_model, load_model, save_model
from edgecnn.optional import require
from edgecnn.progress import progress, working
from edgecnn.quantization import qat
from edgecnn.quantization.schemes import SCHEMES, is_static_int8
from edgecnn.records import (
    SCHEMA_VERSION,
    Answers,
    Artifact,
    Baseline,
    BenchResults,
    Failure,
    FileAnswers,
    LayerErrors,
    Parity,
    ProcessorAnswers,
    Record,
    Report,
    Result,
    Scheme,
    Seconds,
    StageTime,
    Tuning,
    read_record,
    to_json,
)
from edgecnn.report import write
from edgecnn.runtimes import Float
from edgecnn.training import train
from edgecnn.tuning import tune
from edgecnn.verify import (
    FAKE_QUANTIZED,
    FLOAT,
    accuracy_of,
    fake_quantized_outputs,
    in_tflm,
    judge,
    reference_for,
    reference_of,
    runs_in_tflm,
    tflm_task,
)

log = logging.getLogger("edgecnn")

_TOOLS = (*TOOLS, "numpy", "onnxruntime", "ai-edge-litert")


def run(config: RunConfig, out: Path) -> Report:
    """Data, training, quantisation, export, verification, benchmark and report, into the folder ``out``.

    Safe to interrupt: a second call with the same arguments goes on where the first one stopped, and redoes
    only what depends on something that changed.

    Raises:
        EdgecnnError: something that every row depends on failed (data, training, the output folder), or another run
            works in the folder. What concerns single artifacts becomes a ``Failure`` row.
    """
    work = make_folder(make_folder(out) / "work")
    with locked(work, wait=False):
        return _Flow(config, out).report()


class Stamp(Record, frozen=True):
    """What a finished stage was made from (a hash), its outputs' hashes, and how long it took."""

    key: str
    outputs: dict[str, str]
    seconds: Seconds


class _Flow:
    """One run: its folder, its stages, and what they share."""

    def __init__(self, config: RunConfig, out: Path) -> None:
        self.config = config
        self.out = out
        self.work = out / "work"
        self.artifacts = make_folder(out / "artifacts")
        self.times: list[StageTime] = []
        self.failures: list[Failure] = []
        self.tunings: dict[str, Tuning] = {}
        self.answers: dict[str, Answers] = {}  # by the file's hash
        self.found: dict[str, Float] = {}  # outputs, by the file's hash
        self.references: dict[str, Float] = {}  # outputs, by the name of the model
        # all that is in these two is a run's; the rest of the folder may be anyone's
        for own in (self.work, self.artifacts):
            remove_leftovers(own)  # of a run that was killed, maybe with other settings
        self.tools = {tool: _version(tool) for tool in _TOOLS}
        self.processors = ready(config.on)  # what is missing is told before the long work
        self.model = self.out / "model.keras"
        self.qat_weights = self.out / "qat.npz"

    def stamp(self, name: str) -> Path:
        """The file that says that a stage is finished."""
        return self.work / f"{name}.stage.json"

    def stage(
        self,
        name: str,
        inputs: dict[str, object],
        outputs: list[Path],
        make: Callable[[], None],
        read: Callable[[], Any] = lambda: True,
    ) -> Any:
        """What ``read`` gives, after ``make`` has written ``outputs``, unless they are there from the same ``inputs``.

        What is there and cannot be read is made again.
        """
        kept = self.reuse(name, inputs, outputs, read)
        if kept is not None:
            return kept
        start = time.perf_counter()
        with working(name):
            make()
        self.finish(name, inputs, outputs, time.perf_counter() - start)
        return read()

    def reuse(self, name: str, inputs: dict[str, object], outputs: list[Path], read: Callable[[], Any]) -> Any:
        """What ``read`` gives of a stage that is done already; after None, it is to end in ``finish``."""
        stamp = self.read_stamp(name)
        if stamp is not None and stamp.key == self.key(inputs) and stamp.outputs == _hashes(outputs, self.out):
            try:
                kept = read()
            except RecordError as error:
                log.warning("%s is done again: %s", name, error)
            else:
                self.times.append(StageTime(name=name, seconds=stamp.seconds, reused=True))
                return kept
        for path in (self.stamp(name), *(path for path in outputs if path.is_dir())):
            if path.is_relative_to(self.work) or path.is_relative_to(self.artifacts):
                _discard(path)
        return None

    def read_stamp(self, name: str) -> Stamp | None:
        """What a stage has kept of itself when it ended, if it did."""
        path = self.stamp(name)
        if not path.exists():
            return None
        try:
            return read_record(path, Stamp)
        except RecordError as error:
            log.warning("%s is done again: %s", name, error)
            return None

    def finish(self, name: str, inputs: dict[str, object], outputs: list[Path], seconds: float) -> None:
        """Keep that ``outputs`` were made from ``inputs`` in so many seconds."""
        stamp = Stamp(key=self.key(inputs), outputs=_hashes(outputs, self.out), seconds=seconds)
        write_atomic(self.stamp(name), to_json(stamp))
        self.times.append(StageTime(name=name, seconds=seconds, reused=False))

    def key(self, inputs: dict[str, object]) -> str:
        """A hash of what a stage is made from."""
        return sha256_bytes(msgspec.json.encode([inputs, self.tools], order="sorted"))

    def report(self) -> Report:
        """Run all stages in order."""
        self.data  # noqa: B018 - nothing works without data, so it fails first
        self.baselines  # noqa: B018 - one that is of no use is told before the long work
        self.train()
        if self.wants_qat:
            self.quantize()
        self.tune()
        exported = list(self.export())
        parities = self.verify(exported)
        answers = self.emulate(exported)
        layers = tuple(self.layers(exported))
        measured = self.bench(exported)
        report = Report(
            schema_version=SCHEMA_VERSION,
            title=f"{self.name} on {self.data.name}",
            data=self.data.name,
            data_sha256=self.data.sha256,
            test_images=len(self.data.test.labels),
            environment=measured.environment,
            seed=self.config.seed,
            rows=(*_with_accuracy(measured.rows, parities, self.answers), *self.failures),
            parities=tuple(parities),
            baselines=self.baselines,
            stages=tuple(self.times),
            layers=layers,
            processors=answers,
        )
        write(report, self.out)
        return report

    # What stages share, loaded when the first one needs it

    @cached_property
    def data(self) -> DataSet:
        start = time.perf_counter()
        data = load(self.config.data, self.config.input_range)
        self.times.append(StageTime(name="data", seconds=time.perf_counter() - start, reused=False))
        return data

    @cached_property
    def baselines(self) -> tuple[Baseline, ...]:
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
    def name(self) -> str:
        """The model's name, fit for a file name."""
        return re.sub(r"[^A-Za-z0-9_-]", "_", Path(self.config.model).stem)

    @property
    def epochs(self) -> int:
        """Of float training; a .keras file is taken as trained unless told otherwise."""
        if self.config.epochs is None:
            return EPOCHS if self.config.model in MODELS else 0
        return self.config.epochs

    @property
    def wants_qat(self) -> bool:
        return any(SCHEMES[name].method == "qat" for name in self.config.schemes)

    @cached_property
    def test_images(self) -> Float:
        return self.data.inputs(self.data.test.images)

    @cached_property
    def source(self) -> Source:
        config = self.config
        return Source.load(
            self.model,
            self.data,
            # Where qat is not asked for, the file may be of a model before.
            qat_weights=self.qat_weights if self.wants_qat and self.qat_weights.is_file() else None,
            io=config.io,
            batch=1 if config.batch == "1" else None,
            calibration_images=config.calibration_images,
            onnx_cpu=config.onnx_cpu,
        )

    @cached_property
    def data_inputs(self) -> dict[str, object]:
        return {"data": self.data.sha256, "preprocessing": to_json(self.data.preprocessing).decode()}

    # Stages

    def train(self) -> None:
        """model.keras: the built-in model trained, or the user's as it is or trained further."""
        config, epochs = self.config, self.epochs
        own = Path(config.model) if config.model not in MODELS else None
        inputs = {
            **self.data_inputs,
            "model": config.model if own is None else _hash_or_name(own),
            "epochs": epochs,
            "seed": config.seed,
            "batch_size": config.batch_size,
            "validation_split": config.validation_split,
            "learning_rate": config.learning_rate,
        }
        # Checkpoints of other settings must not be taken up, so their folder is named after the settings.
        checkpoints = self.work / f"epochs-{sha256_bytes(msgspec.json.encode(inputs, order='sorted'))[:12]}"
        history = self.out / "history.json"

        def make() -> None:
            model = load_model(own) if own else build_model(config.model, self.data, config.seed)
            check_model(model, self.data)
            trained, epochs_done = train(
                model,
                self.data,
                epochs=epochs,
                seed=config.seed,
                batch_size=config.batch_size,
                validation_split=config.validation_split,
                learning_rate=config.learning_rate,
                checkpoints=make_folder(checkpoints),
            )
            write_atomic(history, to_json(epochs_done))
            save_model(trained, self.model)

        self.stage("train", inputs, [self.model, history], make)

    def quantize(self) -> None:
        """qat.npz: weights and ranges after quantisation-aware training; a model that cannot be is a Failure."""
        config = self.config
        inputs = {
            **self.data_inputs,
            "model": sha256_file(self.model),
            "epochs": config.qat_epochs,
            "seed": config.seed,
            "batch_size": config.batch_size,
            "validation_split": config.validation_split,
            "learning_rate": config.qat_learning_rate,
        }
        history = self.out / "qat-history.json"

        def make() -> None:
            self.qat_weights.unlink(missing_ok=True)
            quantized, epochs_done = qat.train_quantized(
                load_model(self.model),
                self.data,
                epochs=config.qat_epochs,
                seed=config.seed,
                batch_size=config.batch_size,
                validation_split=config.validation_split,
                learning_rate=config.qat_learning_rate,
            )
            write_atomic(history, to_json(epochs_done))
            qat.save_weights(quantized, self.qat_weights)

        try:
            self.stage("quantize", inputs, [self.qat_weights, history], make)
        except EdgecnnError as error:
            self.fail("quantize", "int8-qat", error)

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

    def tune(self) -> None:
        """work/tuning-….json: which operators of the int8 .onnx files stay in float on this machine."""
        for scheme in (SCHEMES[name] for name in (self.config.schemes if self.config.tune else ())):
            missing = scheme.method == "qat" and not self.qat_weights.is_file()
            if not is_static_int8(scheme) or "onnx" not in self.config.formats or missing:
                continue
            path = self.work / f"tuning-{scheme.name}.json"

            def make(scheme: Scheme = scheme, path: Path = path) -> None:
                write_atomic(path, to_json(tune(self.source, scheme, self.config.tune_seconds)))

            inputs = {**self.export_inputs(scheme), "seconds": self.config.tune_seconds}
            try:
                self.tunings[scheme.name] = self.stage(
                    f"tune-{scheme.name}", inputs, [path], make, partial(read_record, path, Tuning)
                )
            except EdgecnnError as error:
                log.info("no tuning of %s.onnx: %s", scheme.name, error)  # export gives the reason as a row

    def export(self) -> Iterator[Artifact]:
        """Every scheme in every format; one that is unsupported, or fails, becomes a Failure."""
        config = self.config
        model_sha256 = sha256_file(self.model)
        wanted = pairs([FORMATS[name] for name in config.formats], [SCHEMES[name] for name in config.schemes])
        with progress("export", len(wanted)) as advance:
            for format, scheme in wanted:
                advance(note=f"{scheme.name}.{format.ending}")
                if scheme.method == "qat" and not self.qat_weights.is_file():
                    continue  # its failure is a row already
                path = self.artifacts / file_name(self.name, scheme, format)
                inputs = self.export_inputs(scheme)
                if format.name == "onnx" and scheme.name in self.tunings:
                    inputs["tuning"] = to_json(self.tunings[scheme.name]).decode()

                def make(format: Format = format, scheme: Scheme = scheme) -> None:
                    self.source.tunings = self.tunings
                    export(
                        self.source,
                        format=format,
                        scheme=scheme,
                        provenance=provenance_of(self.name, model_sha256, self.data),
                        folder=self.artifacts,
                    )

                try:
                    outputs = [path.with_suffix(f".{ending}") for ending in format.companions]
                    self.stage(f"export-{path.name}", inputs, [path, artifacts.sidecar(path), *outputs], make)
                    yield artifacts.load(path)
                except EdgecnnError as error:
                    self.fail("export", path.name, error)

    def verify(self, exported: list[Artifact]) -> list[Parity]:
        """Every artifact against the model it came from, and int8 .onnx against its .tflite."""
        references = self.references
        references[FLOAT] = self.reference(FLOAT)
        self.warn_if_guessing(references[FLOAT])
        self.answers[sha256_file(self.model)] = answers_of(references[FLOAT].argmax(axis=1), self.data.test)
        if any(SCHEMES[artifact.scheme].method == "qat" for artifact in exported):
            references[FAKE_QUANTIZED] = self.reference(FAKE_QUANTIZED)
        outputs, micro = self.outputs(exported)
        parities: list[Parity] = []
        self.found = outputs
        for artifact in exported:
            if artifact.sha256 in outputs:
                try:
                    parities += judge(artifact, exported, outputs, references, self.data.test.labels, micro)
                    self.answers[artifact.sha256] = answers_of(outputs[artifact.sha256].argmax(axis=1), self.data.test)
                except EdgecnnError as error:
                    self.fail("verify", artifact.file, error)
        return parities

    def warn_if_guessing(self, outputs: Float) -> None:
        """Say so if the float model is no better than naming the most frequent class every time."""
        accuracy = accuracy_of(outputs, self.data.test.labels)
        guessing = float(np.bincount(self.data.test.labels).max()) / accuracy.total
        if accuracy.interval[0] <= guessing:
            log.warning(
                "the float model is right on %.1f %% of the test images, no better than guessing (%.1f %%); %s",
                100 * accuracy.value,
                100 * guessing,
                "train it longer, with more epochs" if self.epochs else "it was taken as trained: pass --epochs",
            )

    def reference(self, kind: str) -> Float:
        """Outputs of the Keras model, or of the fake-quantised one, for all test images."""
        inputs = {**self.data_inputs, "model": sha256_file(self.model)}
        if kind == FAKE_QUANTIZED:
            inputs["qat"] = sha256_file(self.qat_weights)

        def make() -> None:
            if kind == FAKE_QUANTIZED:
                _save(self.kept(kind), fake_quantized_outputs(self.source, self.test_images))
            else:
                _save(self.kept(kind), reference_of(self.model, self.test_images))

        outputs: Float = self.stage(f"outputs-{_dashed(kind)}", inputs, [self.kept(kind)], make, self.reads(kind))
        return outputs

    def outputs(self, exported: list[Artifact]) -> tuple[dict[str, Float], dict[str, Float]]:
        """Outputs of the artifacts for all test images, and those in TFLM for the first of them, by the file's hash.

        What is not kept from before is computed in one go. A file that cannot be run is a Failure, and one that TFLM
        does not run a warning.
        """
        outputs: dict[str, Float] = {}
        micro: dict[str, Float] = {}
        asked: dict[Task, tuple[Artifact, dict[str, Float], str, dict[str, object]]] = {}
        for artifact in exported:
            path = self.artifacts / artifact.file
            inputs = {**self.data_inputs, "artifact": artifact.sha256}
            asked[task_of(path)] = artifact, outputs, artifact.file, inputs
            if runs_in_tflm(artifact):
                try:
                    version = require("tflite_micro").__version__
                    asked[tflm_task(path)] = artifact, micro, in_tflm(artifact), {**inputs, "tflm": version}
                except EdgecnnError as error:
                    _warn_without_tflm(artifact, error)
        missing = []
        for task, (artifact, known, name, inputs) in asked.items():
            before = self.reuse(f"outputs-{_dashed(name)}", inputs, [self.kept(name)], self.reads(name))
            if before is None:
                missing.append(task)
            else:
                known[artifact.sha256] = before
        with progress("verify", sum(task.count(self.test_images) for task in missing)) as advance:
            for task, answer, seconds in infer(missing, self.test_images, advance):
                artifact, known, name, inputs = asked[task]
                if not isinstance(answer, EdgecnnError):
                    known[artifact.sha256] = answer
                    _save(self.kept(name), answer)
                    self.finish(f"outputs-{_dashed(name)}", inputs, [self.kept(name)], seconds)
                elif known is outputs:
                    self.fail("verify", artifact.file, answer)
                else:
                    _warn_without_tflm(artifact, answer)
        return outputs, micro

    def kept(self, name: str) -> Path:
        """Where outputs ``(images, classes)`` are kept."""
        return self.work / f"outputs-{_dashed(name)}.npy"

    def reads(self, name: str) -> Callable[[], Float]:
        """Reads the outputs that are kept."""
        return lambda: _load_outputs(self.kept(name))

    def emulate(self, exported: list[Artifact]) -> tuple[ProcessorAnswers, ...]:
        """work/answers-….json: what every .tflite and .onnx answers on emulated processors; what failed is a row."""
        answers: list[ProcessorAnswers] = []
        for artifact in exported if self.processors else ():
            if artifact.format not in RUN_THERE or artifact.sha256 not in self.found:
                continue
            name = f"answers-{artifact.file}"
            path = self.work / f"{name}.json"

            def make(artifact: Artifact = artifact, path: Path = path) -> None:
                first = slice(IMAGES)
                found = run_on(
                    self.artifacts / artifact.file,
                    artifact,
                    self.processors,
                    self.test_images[first],
                    self.data.test.labels[first],
                    self.references[reference_for(artifact)][first],
                    self.found[artifact.sha256][first],
                )
                write_atomic(path, to_json(FileAnswers(rows=tuple(found))))

            inputs = {
                **self.export_inputs(SCHEMES[artifact.scheme]),
                "artifact": artifact.sha256,
                "images": IMAGES,
                "processors": [each.key for each in self.processors],
            }
            for row in self.stage(name, inputs, [path], make, partial(read_record, path, FileAnswers)).rows:
                if isinstance(row, ProcessorAnswers):
                    answers.append(row)
                else:
                    self.failures.append(row)
                    self.stamp(name).unlink(missing_ok=True)  # tried again next time
        return tuple(answers)

    def layers(self, exported: list[Artifact]) -> Iterator[LayerErrors]:
        """work/layers-….json: the error of every int8 tensor inside the int8 .tflite files."""
        for artifact in exported:
            scheme = SCHEMES[artifact.scheme]
            if artifact.format != "tflite" or not is_static_int8(scheme):
                continue
            file, path = self.artifacts / artifact.file, self.work / f"layers-{artifact.file}.json"
            weights = self.qat_weights if scheme.method == "qat" else None

            def make(file: Path = file, path: Path = path, weights: Path | None = weights) -> None:
                (errors,) = layers([file], self.data, model=self.model, qat_weights=weights)
                write_atomic(path, to_json(errors))

            inputs = {**self.export_inputs(scheme), "artifact": artifact.sha256}
            try:
                yield self.stage(
                    f"layers-{artifact.file}", inputs, [path], make, partial(read_record, path, LayerErrors)
                )
            except EdgecnnError as error:
                self.fail("layers", artifact.file, error)

    def bench(self, exported: list[Artifact]) -> BenchResults:
        """bench.json: the Keras model and every artifact, interleaved."""
        config = self.config
        keras = artifacts.describe_here(self.model)
        devices = ["cpu", *(["gpu"] if require("tensorflow").config.list_physical_devices("GPU") else [])]
        candidates = [
            Candidate(path=self.model, artifact=keras, threads=threads, device=device)
            for device in devices
            for threads in config.threads
        ] + [
            Candidate(path=self.artifacts / artifact.file, artifact=artifact, threads=threads)
            for artifact in exported
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

        def make() -> None:
            results = bench(
                candidates,
                image=self.test_images[0],
                seconds=config.seconds,
                processes=config.cold,
                seed=config.seed,
            )
            write_atomic(path, to_json(results))

        results: BenchResults = self.stage("bench", inputs, [path], make, partial(read_record, path, BenchResults))
        if any(isinstance(row, Failure) for row in results.rows):  # tried again next time
            self.stamp("bench").unlink()
        return results

    def fail(self, stage: str, subject: str, error: EdgecnnError) -> None:
        """Keep an error as a row."""
        expected = isinstance(error, UnsupportedError)
        log.info("%s: %s", subject, error)
        self.failures.append(
            Failure(subject=subject, stage=stage, error=type(error).__name__, reason=str(error), expected=expected)
        )


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


def _dashed(name: str) -> str:
    return name.replace(" ", "-")


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
        raise RecordError(f"{path} holds {outputs.dtype} of shape {outputs.shape}, not float32 (images, classes)")
    return outputs


def _warn_without_tflm(artifact: Artifact, error: EdgecnnError) -> None:
    log.warning("%s is not compared with TFLM: %s", artifact.file, error)


def _version(tool: str) -> str:
    try:
        return metadata.version(tool)
    except metadata.PackageNotFoundError as error:
        raise MissingExtraError(
            f"this needs the package {tool!r}, which is not installed; run: pip install 'edgecnn[train]'"
        ) from error


def _discard(path: Path) -> None:
    """Remove what stands where a file of ours does."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _hashes(outputs: list[Path], base: Path) -> dict[str, str]:
    """Hashes of the outputs that are there."""
    return {str(path.relative_to(base)): sha256_file(path) for path in outputs if path.is_file()}


def _hash_or_name(path: Path) -> str:
    return sha256_file(path) if path.is_file() else str(path)  # a missing file is an error when it is loaded
