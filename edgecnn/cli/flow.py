"""The commands that a run is made of, and the run itself."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, get_args

import click

from edgecnn.cli import options
from edgecnn.cli.options import check_target, setting
from edgecnn.cli.output import (
    end,
    failed,
    print_array,
    print_record,
    say,
    show_report,
    show_violations,
    status,
    wrong_on,
)
from edgecnn.config import EPOCHS, RunConfig, read_config
from edgecnn.errors import BenchError, ConfigError
from edgecnn.records import Backend, Device, ProcessorName, QatEngine

if TYPE_CHECKING:
    from edgecnn.data import DataSet
    from edgecnn.records import Baseline, Parity, Record


@click.command()
@click.argument("config", type=options.FILE, required=False)
@click.option("--out", type=options.FILE, help="Folder to write; default runs/<data>.")
@options.options(*(setting(name, default=None) for name in RunConfig.__struct_fields__))
@click.option("--strict", is_flag=True, help="Exit with 1 also if a file or scheme is not supported.")
@options.json
def run(config: Path | None, out: Path | None, strict: bool, as_json: bool, **given: Any) -> None:
    """Do everything, from the data to the report.

    Train, quantise, export, verify, bench and report, each stage only if something it depends on has changed.

    CONFIG is a TOML file with the options as keys (underscores for dashes, baselines for --baseline); options
    given here come first. Safe to interrupt: run the same command again to resume.
    """
    from edgecnn.models import MODELS
    from edgecnn.pipeline import run as run_pipeline

    settings = read_config(config) if config else RunConfig()
    changes = {key: value for key, value in given.items() if value not in (None, ())}
    settings = settings.replace(**changes)
    if config is None and "data" not in changes and settings.model not in MODELS:
        raise ConfigError("--data is needed for a model of your own: the images that it was trained on, or will be")
    out = out or Path("runs") / Path(settings.data).stem
    try:
        report = run_pipeline(settings, out)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("run the same command again to resume") from None
    show_report(report, as_json)
    if not as_json:
        click.echo()
        say(f"The whole report: {out / 'report.html'}")
    status(report, as_json, strict=strict)


@click.command()
@setting("model")
@options.data
@options.custom
@click.option("--epochs", type=click.IntRange(1), default=EPOCHS, show_default=True, help="Of training.")
@setting("seed")
@click.option("--out", type=options.FILE, required=True, help="The .keras file to write.")
@options.json
def train(
    model: str,
    data: options.Data,
    epochs: int,
    seed: int,
    out: Path,
    as_json: bool,
) -> None:
    """Train a float model."""
    from edgecnn.models import MODELS, build_model, load_model, save_model
    from edgecnn.training import train as train_model

    check_target(out, ".keras")
    loaded = data.of(model).load()
    untrained = build_model(model, loaded, seed) if model in MODELS else load_model(Path(model))
    trained, history = train_model(untrained, loaded, epochs=epochs, seed=seed)
    save_model(trained, out)
    print_record(history, as_json, f"wrote {out}: {_epoch(history)}")


@click.command()
@click.argument("model", type=options.FILE)
@options.data_of_model
@options.custom
@setting("qat_engine", "--engine")
@setting("qat_epochs", "--epochs")
@setting("seed")
@click.option("--out", type=options.FILE, required=True, help="The file to write: .keras, or .npz for tfmot.")
@options.json
def quantize(
    model: Path,
    data: options.Data,
    engine: QatEngine,
    epochs: int,
    seed: int,
    out: Path,
    as_json: bool,
) -> None:
    """Fine-tune MODEL with quantisation-aware training.

    MODEL is a trained .keras file; export and verify take the file written to --out as --qat. With the engine keras it
    is a Keras 3 model that can be loaded and trained further, on any back end.
    """
    from edgecnn.quantization import engines

    check_target(out, engines.ENDINGS[engine])
    quantized, history = engines.quantize(model, data.load(), engine=engine, epochs=epochs, seed=seed)
    engines.engine_called(engine).save(quantized, out)
    print_record(history, as_json, f"wrote {out}: {_epoch(history)}")


def _epoch(history: Any) -> str:
    from edgecnn.report import units

    last = history.epochs[-1]
    metrics = [
        f"{held_out}{name} {value:.2%}" if name == "accuracy" else f"{held_out}mean absolute error {value:.4g}"
        for held_out, name, value in (
            ("", "accuracy", last.accuracy), ("held-out ", "accuracy", last.val_accuracy),
            ("", "mae", last.mae), ("held-out ", "mae", last.val_mae),
        )
        if value is not None
    ]  # fmt: skip
    return ", ".join([units.counted(len(history.epochs), "epoch"), f"loss {last.loss:.4f}", *metrics])


@click.command()
@click.argument("model", type=options.FILE)
@options.data_of_model
@options.custom
@options.options(*map(setting, ("schemes", "formats", "io", "batch", "calibration_images", "onnx_cpu")))
@options.qat
@click.option("--tune", is_flag=True, help="Measure which operators of int8 .onnx are faster in float.")
@click.option("--tuning", type=options.FILE, help="A tuned .onnx whose choice of operators is taken over unmeasured.")
@click.option("--out", type=options.FILE, required=True, help="The folder to write to.")
@options.json_array
def export(
    model: Path,
    data: options.Data,
    schemes: tuple[str, ...],
    formats: tuple[str, ...],
    io: Any,
    batch: str,
    calibration_images: int,
    onnx_cpu: Any,
    qat: Path | None,
    tune: bool,
    tuning: Path | None,
    out: Path,
    as_json: bool,
) -> None:
    """Export MODEL in every scheme and format asked for.

    MODEL is a trained .keras file, or the folder of a SavedModel. A scheme that makes no sense in a format is named
    with the reason, and is no error.
    """
    from edgecnn.exporting import export as export_all
    from edgecnn.records import Artifact, Failure

    if tune and tuning is not None:
        raise ConfigError("--tune measures what --tuning takes over from a file; give one of them")
    rows = export_all(
        model,
        data.load(),
        out,
        qat=qat,
        schemes=schemes,
        formats=formats,
        io=io,
        batch=1 if batch == "1" else None,
        calibration_images=calibration_images,
        onnx_cpu=onnx_cpu,
        tune=tune,
        tuning=tuning,
    )
    written = [row for row in rows if isinstance(row, Artifact)]
    failures = [row for row in rows if isinstance(row, Failure)]
    if as_json:
        print_array(written)
    else:
        for artifact in written:
            say(f"{out / artifact.file}  {artifact.size_bytes} bytes")
    for failure in failures:
        say(f"edgecnn: {failure.subject}: {failure.reason}", err=True)
    sys.exit(1 if any(not failure.expected for failure in failures) else 0)


@click.command()
@options.files
@click.option("--model", type=options.FILE, help="The model that the files were exported from.")
@options.data_of_files
@options.custom
@options.qat
@click.option(
    "--against",
    metavar="RUNTIME|FILE",
    help="Compare with another runtime (litert, tflm, …) or another file instead; no --model is needed.",
)
@setting("on", help=f"Run files on emulated processors instead, comma-separated: {','.join(get_args(ProcessorName))}.")
@click.option("--images", type=click.IntRange(1), help="Test images to take.  [default: all; 100 with --on]")
@options.json_array
def verify(
    files: tuple[Path, ...],
    model: Path | None,
    data: options.Data,
    qat: Path | None,
    against: str | None,
    on: tuple[str, ...],
    images: int | None,
    as_json: bool,
) -> None:
    """Compare exported FILES with the model they came from.

    The exit status is 1 if a file is out of tolerance; edgecnn diagnose finds out why. --on runs
    .tflite and .onnx FILES on processors that QEMU emulates here instead, and compares their answers with the model's
    and with this machine's; see edgecnn emulate.

    --against compares FILES of any origin with another runtime or file: model.tflite --against tflm, or model.onnx
    --against model.tflite. Without --data, the inputs are noise over the range of the model's inputs.
    """
    from edgecnn.verification import verify as verify_files
    from edgecnn.verification import verify_against

    if against is not None:
        if model or qat or on:
            raise click.UsageError("--against compares without the model: omit --model, --qat and --on")
        parities = verify_against(files, against, None if data.source is None else data.load(), images=images)
    else:
        if model is None or data.source is None:
            missing = "--model" if model is None else "--data"
            raise click.UsageError(f"Missing option '{missing}'; or compare with --against RUNTIME or FILE.")
        if on:
            _show_on(files, on, model, data.load(), qat, images, as_json)
        parities = verify_files(files, data.load(), model=model, qat=qat, images=images)
    if as_json:
        print_array(parities)
    else:
        for parity in parities:
            say(
                f"{parity.artifact} against {parity.reference}: {parity.accuracy.metric} {parity.accuracy.value:.2%}, "
                f"{_agreement(parity)}largest difference {parity.difference.max_abs:.3g}"
            )
    show_violations(parities)


def _agreement(parity: "Parity") -> str:
    agreement = parity.difference.agreement
    if agreement is None:
        return ""
    return f"{'top class agrees' if parity.difference.decisions is None else 'decisions agree'} on {agreement:.2%}, "


def _show_on(
    files: Sequence[Path],
    on: Sequence[str],
    model: Path,
    data: "DataSet",
    qat: Path | None,
    images: int | None,
    as_json: bool,
) -> NoReturn:
    """Run files on emulated processors and end with the exit status that their answers ask for."""
    from edgecnn.emulation.answers import IMAGES, verify_on
    from edgecnn.records import ProcessorAnswers
    from edgecnn.report import show_answers

    rows = verify_on(files, on, data, model=model, qat_weights=qat, images=images or IMAGES)
    if as_json:
        print_array(rows)
    else:
        show_answers(rows)
    broken = [line for row in rows if isinstance(row, ProcessorAnswers) for line in wrong_on(row)]
    end([*broken, *failed(rows)], "problem", as_json)


@click.command()
@click.argument("models", type=options.FILE, nargs=-1, required=True)
@options.data_or_none
@click.option(
    "--backend",
    type=click.Choice(["auto", *get_args(Backend)]),
    default="auto",
    show_default=True,
    help="Of Keras; auto takes $KERAS_BACKEND, else one that sees a GPU, else one that is installed.",
)
@click.option(
    "--device",
    type=click.Choice(get_args(Device)),
    default="auto",
    show_default=True,
    help="Where to run the model; auto takes the GPU if there is one.",
)
@setting("seconds")
@click.option("--out", type=options.FILE, required=True, help="JSON file to write, or folder for one per model.")
@options.custom
@options.json_array
def baseline(
    models: tuple[Path, ...],
    data: options.Data,
    backend: str,
    device: str,
    seconds: float,
    out: Path,
    as_json: bool,
) -> None:
    """Measure the float MODELS on this machine, best on a GPU.

    MODELS are .keras files; the records serve run and bench as --baseline, there or elsewhere. Measured are the latency
    of one image and the throughput of rising batches, on the device and with the copies to and from it, and the
    accuracy on all test images. Each record is written as soon as it is made; a model that cannot be measured is named
    with the reason, and the exit status is 1. Needs Keras and one back end, nothing else.
    """
    from edgecnn.files import write_atomic
    from edgecnn.measure.baseline import check_is_keras, choose_backend, record_baseline
    from edgecnn.records import Failure, to_json

    targets = _baseline_files(models, out)
    for model in models:
        check_is_keras(model)
    loaded = None if data.source == "none" else data.load()
    backend = choose_backend(backend, device)
    found: list[Record] = []
    for model, target in targets.items():
        try:
            record = record_baseline(model, loaded, device, backend=backend, seconds=seconds)
        except BenchError as error:
            found.append(Failure.of(model.name, "baseline", error))
            say(f"edgecnn: {error}", err=True)
            continue
        write_atomic(target, to_json(record))
        found.append(record)
        if not as_json:
            say(f"wrote {target}: {_recorded(record)}")
    if as_json:
        print_array(found)
    sys.exit(1 if any(isinstance(one, Failure) for one in found) else 0)


def _baseline_files(models: Sequence[Path], out: Path) -> dict[Path, Path]:
    """The file to write for each of ``models``: ``out``, or one in it named after the model."""
    from edgecnn.files import make_folder

    if out.suffix == ".json":
        if len(models) > 1:
            raise ConfigError(f"--out {out} is one file for {len(models)} models; give a folder")
        make_folder(out.parent)
        return {models[0]: out}
    targets = {model: out / f"{model.stem}.json" for model in models}
    if len(set(targets.values())) < len(models):
        raise ConfigError("two models with the same name would be written to the same file; give each a different name")
    make_folder(out)
    return targets


def _recorded(baseline: "Baseline") -> str:
    """The figures of a baseline in one line."""
    from statistics import median

    from edgecnn.measure.comparison import best_batch, images_per_s
    from edgecnn.report import units

    measured, best = baseline.measurement, best_batch(baseline)
    with_copies = median(sample for block in measured.end_to_end_ns for sample in block) / 1e9
    score = baseline.accuracy
    accuracy = "" if score is None else f", {score.metric} {units.percent(score.value)}%"
    return (
        f"{baseline.backend} on {baseline.device}, compiled with {baseline.compiled_with}; one image "
        f"{units.duration(median(measured.samples_s))}, {units.duration(with_copies)} with copies; at best "
        f"{units.rate(images_per_s(best))} images/s, in batches of {best.batch}{accuracy}"
    )
