"""The command ``edgecnn``: each command calls one function of the library and prints the record it returns.

Results go to stdout (``--json``: the record itself; verify and export, which have one for each file, print an
array of them), progress and logs to stderr. Exit status 0: fine; 1: an ``EdgecnnError`` or a row that failed;
2: wrong usage; 130: interrupted.
"""

import errno
import io
import logging
import os
import signal
import sys
import threading
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

from edgecnn.errors import BenchError, ConfigError, EdgecnnError
from edgecnn.progress import working
from edgecnn.records import CORES
from edgecnn.temporary import own_temporary_folder
from edgecnn.text import shown

if TYPE_CHECKING:
    from edgecnn.data import DataSet
    from edgecnn.records import Baseline, Parity, ProcessorAnswers, Record, Report

F = TypeVar("F", bound=Callable[..., Any])

# Repeated here because the registries import numpy, and --help must not wait for it; a test compares them.
SCHEMES = ("float32", "float16", "dynamic-int8", "int8", "int16x8", "int8-qat")
FORMATS = ("tflite", "onnx", "c99")
MODELS = ("mnist_cnn", "resnet8", "ds_cnn", "mobilenet_v1_025", "mobilenet_v2")
EMBED_TARGETS = ("c99", "tflm", "arduino", "linux", *CORES)
PROCESSORS = ("nehalem", "haswell", "cortex-a53", "cortex-a72", "cortex-a76", "arm-max")
BENCH_TARGETS = (*CORES, "riscv32")

_FILE = click.Path(path_type=Path)


def _say(text: str, err: bool = False) -> None:
    """Print a line, whatever the names are that it tells."""
    click.echo(shown(text), err=err)


class _Lines(logging.Formatter):
    """Log messages as one line each; a traceback follows where there is one."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - its name in the base class
        return shown(super().formatMessage(record))


class _Numbers(click.ParamType[Any]):
    """Comma-separated numbers, such as 1,2, or names that the library checks."""

    def __init__(self, kind: type, name: str) -> None:
        self.kind = kind
        self.name = name

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return tuple(self.kind(part) for part in value.split(","))
        except ValueError:
            self.fail(f"{value!r} is not a list of numbers such as {self.name}", param, ctx)


class _Names(click.ParamType[Any]):
    """Comma-separated names out of a list of choices."""

    def __init__(self, choices: Sequence[str]) -> None:
        self.choices = choices
        self.name = "a,b"

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        names = tuple(value.split(",")) if isinstance(value, str) else value
        for name in names:
            if name not in self.choices:
                self.fail(f"{name!r} is not one of {', '.join(self.choices)}", param, ctx)
        return names


def _options(*options: Callable[[F], F]) -> Callable[[F], F]:
    def decorate(command: F) -> F:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


_json = click.option("--json", "as_json", is_flag=True, help="Print the record as JSON.")
_json_array = click.option("--json", "as_json", is_flag=True, help="Print the records, one per file, as a JSON array.")
_input_range = click.option(
    "--input-range",
    type=_Numbers(float, "0,1"),
    default="0,1",
    show_default=True,
    help="What 0 and 255 of 8-bit images become at the model's input.",
)
_data = _options(
    click.option(
        "--data",
        default="mnist",
        show_default=True,
        help="mnist, fashion-mnist, a .npz file, or a folder of images.",
    ),
    _input_range,
)
_MODEL = f"{', '.join(MODELS)}, or your own Keras 3 model as a .keras file."
_qat = click.option("--qat", type=_FILE, help="Weights that edgecnn quantize wrote; int8-qat needs them.")
_SEED = click.IntRange(0, 2**31 - 1)
_seed = click.option("--seed", type=_SEED, default=0, show_default=True, help="Seed of everything random.")
_threads = click.option(
    "--threads",
    type=_Numbers(int, "1,2"),
    default="1",
    show_default=True,
    help="Numbers of threads to measure with.",
)
_seconds = click.option(
    "--seconds", type=float, default=2.0, show_default=True, help="How long each candidate is measured."
)
_on = click.option(
    "--on",
    type=_Numbers(str, "haswell,cortex-a72"),
    default=(),
    help=f"Run files on emulated processors, comma-separated: {', '.join(PROCESSORS)}.",
)
_export = _options(
    click.option(
        "--schemes",
        type=_Names(SCHEMES),
        default=",".join(SCHEMES),
        show_default=True,
        help="What to export.",
    ),
    click.option("--formats", type=_Names(FORMATS), default=",".join(FORMATS), show_default=True, help="File formats."),
    click.option(
        "--io",
        type=click.Choice(["float32", "int8", "uint8"]),
        default="int8",
        show_default=True,
        help="Input and output type of int8 and int8-qat files; the others have float32.",
    ),
    click.option(
        "--batch",
        type=click.Choice(["1", "dynamic"]),
        default="1",
        show_default=True,
        help="Batch of the files.",
    ),
    click.option(
        "--calibration-images",
        type=click.IntRange(1),
        default=500,
        show_default=True,
        help="Training images that post-training quantisation looks at.",
    ),
    click.option(
        "--onnx-cpu",
        type=click.Choice(["any", "vnni"]),
        default="any",
        show_default=True,
        help="Where int8 .onnx is right; vnni: plain int8 weights, wrong on x86 without VNNI.",
    ),
)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="edgecnn")
@click.option("-v", "--verbose", is_flag=True, help="Say more on stderr.")
def cli(verbose: bool) -> None:
    """Train a CNN, quantise it, export it to TFLite and ONNX, verify and benchmark every file."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Lines("%(name)s: %(message)s"))
    logging.basicConfig(handlers=[handler])
    logging.getLogger("edgecnn").setLevel(logging.INFO if verbose else logging.WARNING)


@cli.command()
@click.argument("config", type=_FILE, required=False)
@click.option("--out", type=_FILE, help="Folder to write; default runs/<data>.")
@click.option("--model", help=f"{_MODEL}  [default: mnist_cnn]")
@click.option("--data", help="mnist, fashion-mnist, a .npz file, or a folder of images.  [default: mnist]")
@click.option("--input-range", type=_Numbers(float, "0,1"), help="What 0 and 255 of images become.  [default: 0,1]")
@click.option("--epochs", type=int, help="Of training; default 5, and 0 for a .keras file (taken as trained).")
@click.option("--qat-epochs", type=int, help="Of quantisation-aware training.  [default: 2]")
@click.option("--seed", type=_SEED, help="Seed of everything random.  [default: 0]")
@click.option("--schemes", type=_Names(SCHEMES), help="Comma-separated.  [default: all]")
@click.option("--formats", type=_Names(FORMATS), help="Comma-separated.  [default: all]")
@click.option("--io", type=click.Choice(["float32", "int8", "uint8"]), help="Of int8 files.  [default: int8]")
@click.option("--batch", type=click.Choice(["1", "dynamic"]), help="Of the files.  [default: 1]")
@click.option("--calibration-images", type=int, help="For post-training quantisation.  [default: 500]")
@click.option("--onnx-cpu", type=click.Choice(["any", "vnni"]), help="Where int8 .onnx is right.  [default: any]")
@click.option("--tune/--no-tune", default=None, help="Leave slow operators of int8 .onnx in float.  [default: tune]")
@click.option("--tune-seconds", type=float, help="Measuring that for each int8 .onnx may take.  [default: 20]")
@click.option("--threads", type=_Numbers(int, "1,2"), help="To measure with.  [default: 1]")
@click.option("--seconds", type=float, help="How long each candidate is measured.  [default: 2]")
@click.option("--cold", type=int, help="Fresh processes in which that is done: as many cold starts.  [default: 5]")
@click.option(
    "--baseline",
    "baselines",
    multiple=True,
    help="JSON from edgecnn baseline, may be repeated; or none.  [default: what comes with edgecnn]",
)
@_on
@_json
def run(config: Path | None, out: Path | None, as_json: bool, **given: Any) -> None:
    """Do everything, from the data to the report.

    Train, quantise, export, verify, bench and report, each stage only if something it depends on has changed.

    CONFIG is a TOML file with the options as keys (underscores for dashes, baselines for --baseline); options
    given here come first. It can also set batch_size, validation_split, learning_rate and qat_learning_rate.
    Interrupt it as you like: the same command goes on where it stopped.
    """
    from edgecnn.pipeline import RunConfig, read_config
    from edgecnn.pipeline import run as run_pipeline

    settings = read_config(config) if config else RunConfig()
    changes = {key: value for key, value in given.items() if value not in (None, ())}
    settings = settings.replace(**changes)
    out = out or Path("runs") / Path(settings.data).stem
    try:
        report = run_pipeline(settings, out)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("the same command goes on where this one stopped") from None
    _show_report(report, as_json)
    if not as_json:
        click.echo()
        _say(f"The whole report: {out / 'report.html'}")
    _status(report, as_json)


@cli.command()
@click.option("--model", default="mnist_cnn", show_default=True, help=_MODEL)
@_data
@click.option("--epochs", type=click.IntRange(1), default=5, show_default=True, help="Of training.")
@_seed
@click.option("--out", type=_FILE, required=True, help="The .keras file to write.")
@_json
def train(model: str, data: str, input_range: Any, epochs: int, seed: int, out: Path, as_json: bool) -> None:
    """Train a float model."""
    from edgecnn.models import MODELS, build_model, check_model, load_model, save_model
    from edgecnn.training import train as train_model

    _check_target(out, ".keras")
    loaded = _load(data, input_range)
    built_in = model in MODELS or Path(model).name == Path(model).stem == model  # no ending, no separator: a name
    untrained = build_model(model, loaded, seed) if built_in else load_model(Path(model))
    check_model(untrained, loaded)
    trained, history = train_model(untrained, loaded, epochs=epochs, seed=seed)
    save_model(trained, out)
    _print(history, as_json, f"wrote {out}: {_epoch(history)}")


@cli.command()
@click.argument("model", type=_FILE)
@_data
@click.option("--epochs", type=click.IntRange(1), default=2, show_default=True, help="Of fine-tuning.")
@_seed
@click.option("--out", type=_FILE, required=True, help="The .npz file to write.")
@_json
def quantize(model: Path, data: str, input_range: Any, epochs: int, seed: int, out: Path, as_json: bool) -> None:
    """Fine-tune MODEL with quantisation-aware training.

    MODEL is a trained .keras file; the weights written to --out serve export and verify as --qat.
    """
    from edgecnn.models import check_model, load_model
    from edgecnn.quantization import qat

    _check_target(out, ".npz")
    loaded, trained = _load(data, input_range), load_model(model)
    check_model(trained, loaded)
    quantized, history = qat.train_quantized(trained, loaded, epochs=epochs, seed=seed)
    qat.save_weights(quantized, out)
    _print(history, as_json, f"wrote {out}: {_epoch(history)}")


@cli.command()
@click.argument("model", type=_FILE)
@_data
@_export
@_qat
@click.option("--tune", is_flag=True, help="Measure which operators of int8 .onnx are faster in float.")
@click.option("--tuning", type=_FILE, help="A tuned .onnx whose choice of operators is taken over unmeasured.")
@click.option("--out", type=_FILE, required=True, help="The folder to write to.")
@_json_array
def export(
    model: Path,
    data: str,
    input_range: Any,
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

    MODEL is a trained .keras file. A scheme that makes no sense in a format is named with the reason, and is
    no error.
    """
    from edgecnn.files import make_folder, sha256_file
    from edgecnn.formats import export as export_artifact
    from edgecnn.formats import format_named, pairs, provenance_of
    from edgecnn.formats.source import Source
    from edgecnn.quantization.schemes import scheme_named

    make_folder(out)
    loaded = _load(data, input_range)
    source = Source.load(
        model,
        loaded,
        qat_weights=qat,
        io=io,
        batch=1 if batch == "1" else None,
        calibration_images=calibration_images,
        onnx_cpu=onnx_cpu,
    )
    if tune or tuning is not None:
        from edgecnn.tuning import tunings

        source.tunings = tunings(source, [scheme_named(name) for name in schemes], tuning)
    provenance = provenance_of(model.stem, sha256_file(model), loaded)
    written: list[Record] = []
    failed = False
    for format, scheme in pairs([*map(format_named, formats)], [*map(scheme_named, schemes)]):
        try:
            artifact = export_artifact(source, format=format, scheme=scheme, provenance=provenance, folder=out)
        except EdgecnnError as error:
            failed = failed or not _is_expected(error)
            _say(f"edgecnn: {scheme.name} .{format.ending}: {error}", err=True)
        else:
            written.append(artifact)
            if not as_json:
                _say(f"{out / artifact.file}  {artifact.size_bytes} bytes")
    if as_json:
        _print_array(written)
    sys.exit(1 if failed else 0)


@cli.command()
@click.argument("files", type=_FILE, nargs=-1, required=True)
@click.option("--model", type=_FILE, required=True, help="The .keras model the files came from.")
@_data
@_qat
@_on
@click.option("--images", type=click.IntRange(1), help="Test images to take there.  [default: 100]")
@click.option("--stages", is_flag=True, help="Count accuracy step by step, from float to each runtime (int8 FILES).")
@click.option("--layers", is_flag=True, help="Measure the error of every int8 tensor inside .tflite FILES.")
@_json_array
def verify(
    files: tuple[Path, ...],
    model: Path,
    data: str,
    input_range: Any,
    qat: Path | None,
    on: tuple[str, ...],
    images: int | None,
    stages: bool,
    layers: bool,
    as_json: bool,
) -> None:
    """Compare exported FILES with the model they came from.

    On all test images; the exit status is 1 if a file is out of tolerance. --stages tells which step changed the
    accuracy: quantisation-aware training, int8, or a runtime. --layers compares inside the file, on 200 training
    images, and has no tolerance. --on runs .tflite and .onnx FILES on processors that QEMU emulates here instead, and
    compares their answers with the model's and with this machine's; see edgecnn emulate.
    """
    from edgecnn.verify import verify as verify_files

    if stages + layers + bool(on) > 1:
        raise ConfigError("--stages, --layers and --on answer different questions; give one of them")
    if images is not None and not on:
        raise ConfigError("--images is for --on; without it, files are compared on all test images")
    if on:
        _show_on(files, on, model, _load(data, input_range), qat, images, as_json)
    if layers:
        _show_layers(files, model, _load(data, input_range), qat, as_json)
        return
    if stages:
        _show_violations(_show_stages(files, model, _load(data, input_range), qat, as_json))
    parities = verify_files(files, _load(data, input_range), model=model, qat_weights=qat)
    if as_json:
        _print_array(parities)
    else:
        for parity in parities:
            apart = parity.difference
            _say(
                f"{parity.artifact} against {parity.reference}: accuracy {parity.accuracy.value:.2%}, top class agrees "
                f"on {apart.agreement:.2%}, largest difference {apart.max_abs:.3g}"
            )
    _show_violations(parities)


@cli.command()
@click.argument("files", type=_FILE, nargs=-1, required=True)
@click.option("--data", help="Count accuracy on these test images too (as for edgecnn run).")
@_input_range
@_threads
@click.option("--batch", "batches", type=_Numbers(int, "1,8"), default="1", show_default=True, help="Batches to try.")
@click.option("--runtimes", default="", help="Comma-separated.  [default: the first that takes a file]")
@_seconds
@click.option(
    "--cold",
    "processes",
    type=click.IntRange(1),
    default=5,
    show_default=True,
    help="Fresh processes that each is measured in, one after the other: as many cold starts.",
)
@_seed
@click.option("--out", type=_FILE, help="JSON file to write, with every sample.")
@click.option("--baseline", "baselines", type=_FILE, multiple=True, help="JSON from edgecnn baseline.")
@click.option("--aa", is_flag=True, help="Measure one file against itself instead: a difference is a false alarm.")
@click.option("--ssh", "host", metavar="[USER@]HOST", help="Measure a bundle there, over the system's ssh.")
@click.option(
    "--adb",
    "serial",
    is_flag=False,
    flag_value="",
    metavar="[SERIAL]",
    help="Measure a bundle on a device with adb; put it last if there is only one device.",
)
@click.option(
    "--target",
    "targets",
    type=_Names(BENCH_TARGETS),
    default=(),
    help="Count instructions, flash and RAM on emulated processors too, such as cortex-m4,cortex-m55.",
)
@_json
def bench(
    files: tuple[Path, ...],
    data: str | None,
    input_range: Any,
    threads: tuple[int, ...],
    batches: tuple[int, ...],
    runtimes: str,
    seconds: float,
    processes: int,
    seed: int,
    out: Path | None,
    baselines: tuple[Path, ...],
    aa: bool,
    host: str | None,
    serial: str | None,
    targets: tuple[str, ...],
    as_json: bool,
) -> None:
    """Measure the latency of model FILES.

    FILES end in .tflite, .onnx, .c (edgecnn's own) or .keras. They are measured in turns, each in processes of its
    own; one that cannot be is named with the reason, and the exit status is 1. A batch that a file cannot have is
    named too, and is no error if it can have another of --batch. Interrupted with Ctrl-C, the command leaves what it
    has measured in --out, and the same command goes on.

    Instead of them, a bundle.zip brings the files of a run and its test images; with --ssh or --adb it is measured on
    a device, where edgecnn is installed for it.

    With --target, .c and int8 .tflite FILES are also built as C for processors that QEMU emulates here: cortex-m0, -m3,
    -m4, -m7, -m33, -m55 and riscv32. The instructions of one inference are counted, and flash, RAM and stack measured.
    Instructions are no times.
    """
    from edgecnn.bench.files import bench_files
    from edgecnn.files import write_atomic
    from edgecnn.records import to_json

    if out is not None:
        _check_target(out, ".json")
    names = tuple(runtimes.split(",")) if runtimes else ()
    if aa:
        if host is not None or serial is not None:
            raise ConfigError("--aa measures a file on this machine; leave out --ssh and --adb")
        if targets:
            raise ConfigError("--aa tells times apart, and instructions are no times; leave out --target")
        _show_itself(files, threads, batches, names, seconds, processes, seed, out, as_json)
        return
    with ExitStack() as stack:
        if host is not None or serial is not None:
            report = _bench_on_device(files, host, serial, baselines, targets)
        else:
            loaded = None if data is None else _load(data, input_range)
            if any(path.suffix == ".zip" for path in files):
                files, loaded = stack.enter_context(_bundle(files))
            report = bench_files(
                files,
                data=loaded,
                threads=threads,
                batches=batches,
                runtimes=names,
                seconds=seconds,
                processes=processes,
                seed=seed,
                baselines=baselines,
                targets=targets,
                keep=out,
            )
    try:
        if out is not None:
            write_atomic(out, to_json(report))
    finally:  # a full disk loses the file, not the rows
        _show_report(report, as_json)
    _status(report, as_json)


@cli.command()
@click.argument("run", type=_FILE)
@click.option("--data", help="Where the data of the run are, if they are your own.")
@click.option("--images", type=click.IntRange(1), default=1000, show_default=True, help="Test images to take along.")
@click.option("--out", type=_FILE, required=True, help="The .zip file to write.")
@_json
def bundle(run: Path, data: str | None, images: int, out: Path, as_json: bool) -> None:
    """Pack the files of a run for a device.

    RUN is the folder that edgecnn run wrote. The bundle holds its .tflite and .onnx files with what is known of them,
    test images, and a manifest with the SHA-256 of each; edgecnn bench measures it, there or from here.
    """
    from edgecnn.bundle import make_bundle

    _check_target(out, ".zip")
    made = make_bundle(run, out, data=data, images=images)
    models = sum(not file.name.endswith((".json", ".npz")) for file in made.files)
    _print(made, as_json, f"wrote {out}: {models} files, {made.test.images} of {made.test.of} test images")


@cli.command()
@click.argument("models", type=_FILE, nargs=-1, required=True)
@click.option(
    "--data",
    default="mnist",
    show_default=True,
    help="mnist, fashion-mnist, a .npz file, a folder of images, or none: times alone.",
)
@_input_range
@click.option(
    "--backend",
    type=click.Choice(["auto", "tensorflow", "jax", "torch"]),
    default="auto",
    show_default=True,
    help="Of Keras; auto takes $KERAS_BACKEND, else one that sees a GPU, else one that is installed.",
)
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "gpu"]),
    default="auto",
    show_default=True,
    help="Where to run the model; auto takes the GPU if there is one.",
)
@_seconds
@click.option("--out", type=_FILE, required=True, help="JSON file to write, or folder for one per model.")
@_json_array
def baseline(
    models: tuple[Path, ...],
    data: str,
    input_range: Any,
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
    from edgecnn.bench.baseline import check_is_keras, choose_backend, record_baseline
    from edgecnn.files import write_atomic
    from edgecnn.records import Failure, to_json

    targets = _baseline_files(models, out)
    for model in models:
        check_is_keras(model)
    loaded = None if data == "none" else _load(data, input_range)
    backend = choose_backend(backend, device)
    found: list[Record] = []
    for model, target in targets.items():
        try:
            record = record_baseline(model, loaded, device, backend=backend, seconds=seconds)
        except BenchError as error:
            found.append(Failure(subject=model.name, stage="baseline", error="BenchError", reason=str(error)))
            _say(f"edgecnn: {error}", err=True)
            continue
        write_atomic(target, to_json(record))
        found.append(record)
        if not as_json:
            _say(f"wrote {target}: {_recorded(record)}")
    if as_json:
        _print_array(found)
    sys.exit(1 if any(isinstance(one, Failure) for one in found) else 0)


def _baseline_files(models: "Sequence[Path]", out: Path) -> dict[Path, Path]:
    """The file to write for each of ``models``: ``out``, or one in it named after the model."""
    from edgecnn.files import make_folder

    if out.suffix == ".json":
        if len(models) > 1:
            raise ConfigError(f"--out {out} is one file for {len(models)} models; give a folder")
        make_folder(out.parent)
        return {models[0]: out}
    targets = {model: out / f"{model.stem}.json" for model in models}
    if len(set(targets.values())) < len(models):
        raise ConfigError("two models of one name would be written to one file; give each of them a name of its own")
    make_folder(out)
    return targets


@cli.command()
@click.argument("file", type=_FILE)
@click.option("--shape", type=_Numbers(int, "1,3,64,64"), help="Of the input, where FILE leaves it free.")
@click.option(
    "--assert",
    "wanted",
    type=click.Choice(["int8", "portable"]),
    help="Fail if a node computes in something else, or can saturate on other processors.",
)
@_json
def inspect(file: Path, shape: tuple[int, ...] | None, wanted: str | None, as_json: bool) -> None:
    """Show what runs in integers and what in float.

    FILE is a .onnx or .tflite file that any tool made. Shown are its operators with types, quantisation, sizes and
    multiply-accumulates, and what the runtime makes of them. With --assert int8 the exit status is 1 if a node
    computes in float or with float activations; conversions of type and layout do not count. With --assert portable
    it is 1 if sums of int8 products in a node of a .onnx file can saturate on x86 without VNNI.
    """
    from edgecnn.inspection import inspect as inspect_file
    from edgecnn.inspection.terminal import show

    found = inspect_file(file, shape)
    if as_json:
        _print(found, True, "")
    else:
        show(found)
    wrong = {"int8": found.not_int8, "portable": found.not_portable}.get(wanted or "", ())
    for node in wrong:
        kind = node.kernel if node.position is None else f"{node.kind} {node.position}"
        fault = f"computes in {node.precision}" if wanted == "int8" else "can saturate on x86 without VNNI"
        _say(f"edgecnn: {file}: {kind} ({node.name}) {fault}", err=True)
    if wanted == "portable" and wrong:
        _say(
            "edgecnn: export the model with edgecnn export --onnx-cpu any, or store these weights as uint8, "
            "or set the session option session.x64quantprecision to 1 in every program that loads the file",
            err=True,
        )
    sys.exit(1 if wrong else 0)


@cli.command()
@click.argument("model", type=_FILE)
@click.option("--target", required=True, help="tflm, c99, edgetpu, or a core: cortex-m4:flash=256k,ram=64k.")
@_json
def check(model: Path, target: str, as_json: bool) -> None:
    """Say whether MODEL fits a target and runs there.

    MODEL is a .tflite file that any tool made. Its operators, types, scales and sizes are held against what the target
    takes, by rules and, where they are here, by its own tools: TFLM itself, a cross compiler. The output says by which.
    The exit status is 1 if anything speaks against it; every reason is given at once. Cores are cortex-m0, -m0plus,
    -m3, -m4, -m7, -m33 and -m55; budgets of flash and RAM are in bytes, with k or m.
    """
    from edgecnn.check import check as check_file

    found = check_file(model, target)
    if as_json:
        _print(found, True, "")
    else:
        _say(f"{found.file} on {found.target}: {'fits' if found.fits else 'does not fit'}")
        for kind, size in (("arena", found.arena_bytes), ("flash", found.flash_bytes), ("RAM", found.ram_bytes)):
            if size is not None:
                _say(f"  {kind:5}  {size:,} bytes")
        for note in found.notes:
            _say(f"  {note}")
    for reason in found.reasons:
        _say(f"edgecnn: {model}: {reason}", err=True)
    sys.exit(0 if found.fits else 1)


@cli.command()
@click.argument("processors", metavar="[PROCESSOR]...", nargs=-1)
@click.option("--install", is_flag=True, help="Install the Python that they need into the cache folder.")
@click.option("--json", "as_json", is_flag=True, help="Print the records, one per processor, as a JSON array.")
def emulate(processors: tuple[str, ...], install: bool, as_json: bool) -> None:
    """Say which processors --on can run files on.

    PROCESSORS are all unless named: nehalem, haswell, cortex-a53, cortex-a72, cortex-a76, arm-max. The exit status is
    1 if something is missing for one of them. QEMU runs them; for another architecture than this machine's it needs a
    Python with the runtimes, which --install unpacks from Debian's or Ubuntu's packages and from wheels. Nothing of
    this system is changed.
    """
    from edgecnn.emulation.answers import state
    from edgecnn.emulation.install import install as install_for
    from edgecnn.emulation.processors import processor_named

    chosen = [processor_named(name) for name in processors or PROCESSORS]
    for processor in chosen if install else ():
        install_for(processor)
    states = [state(processor) for processor in chosen]
    if as_json:
        _print_array(states)
    else:
        for one in states:
            runtimes = ", ".join(f"{name} {version}" for name, version in one.versions.items())
            _say(f"{one.processor:10}  {one.stands_for}: {'missing' if one.missing else f'ready, {runtimes}'}")
    for one in states:
        for line in one.missing:
            _say(f"edgecnn: {one.processor}: {line}", err=True)
    sys.exit(1 if any(one.missing for one in states) else 0)


@cli.command()
@click.argument("model", type=_FILE)
@click.option("--target", type=click.Choice(EMBED_TARGETS), required=True, help="Where MODEL is to run.")
@click.option("--data", help="Take golden inputs from this data set; by default noise, for linux the data of MODEL.")
@click.option("--out", type=_FILE, required=True, help="The folder to write.")
@_json
def embed(model: Path, target: str, data: str | None, out: Path, as_json: bool) -> None:
    """Put MODEL into a folder that is ready to copy to a device.

    MODEL is a .tflite with int8 input and output; for linux any exported .tflite or .onnx. c99: C without a library.
    tflm: the model, the operators and the arena for TensorFlow Lite Micro. arduino: a library around the C. linux: a
    program that needs Python and one runtime. cortex-m4 and other cores: the C with a test on an emulated board. Each
    has golden answers, a test that compares with them, and a README. A former kit in the folder is replaced, anything
    else is not.
    """
    from edgecnn.embed import embed as embed_model

    kit = embed_model(model, target, out, data)
    arena = "" if kit.arena_bytes is None else f", arena {kit.arena_bytes:,} bytes"
    if kit.arena_measured_bytes is not None:
        arena += f" ({kit.arena_measured_bytes:,} measured here)"
    _print(kit, as_json, f"wrote {out}: {len(kit.files) + 1} files{arena}; read {out / 'README.md'}")


@cli.command()
@click.argument("files", type=_FILE, nargs=-1, required=True)
@click.option("--out", type=_FILE, help="Folder to write report.md, .html, .csv and .json to.")
@_json
def report(files: tuple[Path, ...], out: Path | None, as_json: bool) -> None:
    """Show the reports in FILES, and write them out as one.

    FILES are report.json of runs, or what bench wrote with --out, on one machine or several. Each report keeps its own
    verdict; nothing is ranked across them.
    """
    from edgecnn.report import merge, write

    found = merge(files)
    if out is not None:
        write(found, out)
    _show_report(found, as_json)


@cli.command()
@click.argument("old", type=_FILE)
@click.argument("new", type=_FILE)
@click.option("--max-accuracy-drop", type=float, default=0.1, show_default=True, help="In percentage points.")
@click.option("--max-latency-ratio", type=float, default=1.1, show_default=True, help="New median ÷ old median.")
@_json
def compare(old: Path, new: Path, max_accuracy_drop: float, max_latency_ratio: float, as_json: bool) -> None:
    """Find what got worse from the report OLD to NEW.

    Rows are matched by artifact name, runtime, device, threads and batch. The exit status is 1 if a limit is broken by
    the whole 95 % interval, or if a row of OLD is missing in NEW; where the interval straddles a limit, it cannot be
    told. Latency is compared on one machine alone, accuracy on the same test images alone.
    """
    from edgecnn.report import read, show_gate
    from edgecnn.report.compare import compare as compare_reports

    gate = compare_reports(
        read(old).replace(title=str(old)),
        read(new).replace(title=str(new)),
        max_accuracy_drop=max_accuracy_drop,
        max_latency_ratio=max_latency_ratio,
    )
    if as_json:
        _print(gate, True, "")
    else:
        show_gate(gate)
    _end(gate.regressions, "regression", as_json)


def _load(data: str, input_range: tuple[float, ...]) -> "DataSet":
    from edgecnn.data import load

    if len(input_range) != 2:
        raise ConfigError(f"--input-range takes two numbers such as 0,1; got {len(input_range)}")
    return load(data, (input_range[0], input_range[1]))


def _bundle(files: "Sequence[Path]") -> "AbstractContextManager[tuple[tuple[Path, ...], DataSet]]":
    """The model files and test images of the one bundle in ``files``, unpacked as long as it is open."""
    from edgecnn.bundle import opened

    if _is_given("data") or _is_given("input_range"):
        raise ConfigError("a bundle brings its own test images; leave out --data and --input-range")
    if len(files) > 1:
        raise ConfigError("a bundle is measured alone: give one .zip file and no other")
    return opened(files[0])


def _bench_on_device(
    files: "Sequence[Path]",
    host: str | None,
    serial: str | None,
    baselines: "Sequence[Path]",
    targets: "Sequence[str]",
) -> "Report":
    """Measure a bundle on a device with the options of this command line, beside the baselines that are here.

    Instructions are counted here: the device needs no compiler and no emulator.
    """
    from edgecnn import artifacts
    from edgecnn.bench.baseline import load_baseline
    from edgecnn.bench.comparison import check_fits
    from edgecnn.device import Adb, Ssh, bench_on
    from edgecnn.emulation import costs

    if host is not None and serial is not None:
        raise ConfigError("--ssh and --adb are two ways to a device; give one of them")
    if not any(path.suffix == ".zip" for path in files):
        raise ConfigError("a device measures a bundle: give a .zip file that edgecnn bundle made")
    recorded = tuple(load_baseline(path) for path in baselines)
    with _bundle(files) as (models, _):  # looked at here before it is copied there
        for path, baseline in zip(baselines, recorded, strict=True):
            check_fits(path, baseline, {model.name: artifacts.load(model).float_model for model in models})
        transport = Ssh(host) if host is not None else Adb(serial)
        report = bench_on(transport, files[0], _forwarded())
        emulated, uncounted = costs(models, targets) if targets else ((), ())
    return report.replace(baselines=recorded, rows=(*report.rows, *uncounted), emulated=emulated)


def _forwarded() -> list[str]:
    """The options given on the command line that concern measuring, for the same command on a device."""
    here = ("host", "serial", "out", "baselines", "targets", "as_json")
    context = click.get_current_context()
    options: list[str] = []
    for parameter in context.command.params:
        if isinstance(parameter, click.Option) and parameter.name not in here and _is_given(str(parameter.name)):
            value = context.params[str(parameter.name)]
            options.append(parameter.opts[0])
            if not parameter.is_flag:
                options.append(",".join(map(str, value)) if isinstance(value, tuple) else str(value))
    return options


def _is_given(parameter: str) -> bool:
    source = click.get_current_context().get_parameter_source(parameter)
    return source is click.core.ParameterSource.COMMANDLINE


def _check_target(path: Path, suffix: str) -> None:
    """Fail before the long work, not after it."""
    from edgecnn.files import make_folder

    if path.suffix != suffix:
        raise ConfigError(f"--out {path} must end in {suffix}")
    make_folder(path.parent)


def _print(record: "Record", as_json: bool, text: str) -> None:
    from edgecnn.records import to_json

    click.echo(to_json(record), nl=False) if as_json else _say(text)


def _print_array(records: "Sequence[Record]") -> None:
    import msgspec

    click.echo(msgspec.json.format(msgspec.json.encode(records), indent=1))


def _show_stages(
    files: "Sequence[Path]", model: Path, data: "DataSet", qat: Path | None, as_json: bool
) -> "list[Parity]":
    from edgecnn.diagnosis.stages import stages
    from edgecnn.diagnosis.terminal import show_path

    paths = stages(files, data, model=model, qat_weights=qat)
    if as_json:
        _print_array(paths)
    else:
        for path in paths:
            show_path(path)
    return [parity for path in paths for parity in path.parities]


def _show_layers(files: "Sequence[Path]", model: Path, data: "DataSet", qat: Path | None, as_json: bool) -> None:
    from edgecnn.diagnosis.layers import layers
    from edgecnn.diagnosis.terminal import show_layers

    found = layers(files, data, model=model, qat_weights=qat)
    if as_json:
        _print_array(found)
    else:
        for errors in found:
            show_layers(errors)


def _show_on(
    files: "Sequence[Path]",
    on: "Sequence[str]",
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
        _print_array(rows)
    else:
        show_answers(rows)
    broken = [line for row in rows if isinstance(row, ProcessorAnswers) for line in _wrong_on(row)]
    _end([*broken, *_failed(rows)], "problem", as_json)


def _wrong_on(answers: "ProcessorAnswers") -> list[str]:
    return [f"{answers.artifact} on {answers.processor} {violation}" for violation in answers.violations]


def _failed(rows: Iterable[object]) -> list[str]:
    """The rows that failed and should not have."""
    from edgecnn.records import Failure

    return [
        f"{row.subject} ({row.stage}): {row.reason}" for row in rows if isinstance(row, Failure) and not row.expected
    ]


def _show_violations(parities: "Sequence[Parity]") -> NoReturn:
    """Say what is out of tolerance on stderr, and end with the exit status that it asks for."""
    for parity in parities:
        for line in parity.violations:
            _say(f"edgecnn: {parity.artifact} against {parity.reference}: {line}", err=True)
    sys.exit(1 if any(parity.violations for parity in parities) else 0)


def _show_report(report: "Report", as_json: bool) -> None:
    from edgecnn.records import to_json
    from edgecnn.report import show

    if as_json:
        click.echo(to_json(report), nl=False)
    else:
        show(report)


def _show_itself(
    files: "Sequence[Path]",
    threads: "Sequence[int]",
    batches: "Sequence[int]",
    runtimes: "Sequence[str]",
    seconds: float,
    processes: int,
    seed: int,
    out: Path | None,
    as_json: bool,
) -> None:
    from edgecnn.bench.files import bench_against_itself
    from edgecnn.files import write_atomic
    from edgecnn.records import to_json
    from edgecnn.report.format import ratio_interval

    if max(len(files), len(threads), len(batches), len(runtimes)) > 1:
        raise ConfigError("--aa measures one file, on one runtime, with one number of threads and one batch")
    found = bench_against_itself(
        files[0],
        threads=threads[0],
        batch=batches[0],
        runtime=runtimes[0] if runtimes else None,
        seconds=seconds,
        processes=processes,
        seed=seed,
    )
    if out is not None:
        write_atomic(out, to_json(found))
    interval = ratio_interval(found.ratio.value, found.ratio.low, found.ratio.high)
    said = "no difference" if found.difference == "none" else f"{found.difference}, which is a false alarm"
    _print(found, as_json, f"{files[0].name} against itself: time ratio {interval}: {said}")


def _epoch(history: Any) -> str:
    last = history.epochs[-1]
    held_out = "" if last.val_accuracy is None else f", held-out accuracy {last.val_accuracy:.2%}"
    return f"{len(history.epochs)} epochs, loss {last.loss:.4f}, accuracy {last.accuracy:.2%}{held_out}"


def _recorded(baseline: "Baseline") -> str:
    """The figures of a baseline in one line."""
    from statistics import median

    from edgecnn.bench.comparison import best_batch, images_per_s
    from edgecnn.report import format

    measured, best = baseline.measurement, best_batch(baseline)
    with_copies = median(sample for block in measured.end_to_end for sample in block)
    accuracy = "" if baseline.accuracy is None else f", accuracy {format.percent(baseline.accuracy.value)}%"
    return (
        f"{baseline.backend} on {baseline.device}, compiled with {baseline.compiled_with}; one image "
        f"{format.duration(median(measured.samples))}, {format.duration(with_copies)} with copies; at best "
        f"{format.rate(images_per_s(best))} images/s, in batches of {best.batch}{accuracy}"
    )


def _is_expected(error: EdgecnnError) -> bool:
    from edgecnn.errors import UnsupportedError

    return isinstance(error, UnsupportedError)


def _status(report: "Report", as_json: bool) -> NoReturn:
    """End with 1 if an artifact is out of tolerance or a row failed that should not have."""
    broken = [f"{p.artifact} against {p.reference}: {line}" for p in report.parities for line in p.violations]
    broken += [line for answers in report.processors for line in _wrong_on(answers)]
    _end([*broken, *_failed(report.rows)], "problem", as_json)


def _end(reasons: Sequence[str], noun: str, as_json: bool) -> NoReturn:
    """End with 1 if there are reasons to. Where stdout has told them already, stderr tells their number alone."""
    if as_json:
        for reason in reasons:
            _say(f"edgecnn: {reason}", err=True)
    elif reasons:
        number = f"1 {noun}" if len(reasons) == 1 else f"{len(reasons)} {noun}s"
        _say(f"edgecnn: {number}, told above", err=True)
    sys.exit(1 if reasons else 0)


@contextmanager
def _interrupts_heard() -> Iterator[None]:
    """Raise a Ctrl-C again that came while Python was collecting garbage, where it cannot be raised and is lost."""
    before = sys.unraisablehook

    def again(lost: Any) -> None:
        if issubclass(lost.exc_type, KeyboardInterrupt):
            # A little later, when the collection is over; if it meets the next one, this is called again.
            threading.Timer(0.05, signal.pthread_kill, (threading.get_ident(), signal.SIGINT)).start()
        else:
            before(lost)

    sys.unraisablehook = again
    try:
        yield
    finally:
        sys.unraisablehook = before


def _open_streams() -> None:
    """Give a process that was started without stdin, stdout or stderr an empty one, and let no character stop it.

    The next file that is opened would else be taken for what was closed, and get what C++ libraries say.
    """
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # it gets the lowest number that is free
        if getattr(sys, name) is None:
            setattr(sys, name, open(descriptor, "w" if descriptor else "r", closefd=False))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _check_words(words: Sequence[str]) -> None:
    """Refuse what could neither be shown nor written down, as file names can be.

    Raises:
        ConfigError: a word is not UTF-8, or holds a control character.
    """
    for word in words:
        if any(unicodedata.category(character) in ("Cc", "Cs") for character in word):
            raise ConfigError(
                f"the argument {word[:80]!a} holds a control character or is not UTF-8; if it is the name of a "
                "file, rename it"
            )


def _refused(error: OSError) -> str:
    """What the system would not do with which file, and why."""
    doing = "write" if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS) else "use"
    place = error.filename or ("stdout or a temporary file" if doing == "write" else "a file, a pipe or a process")
    return f"cannot {doing} {os.fsdecode(place) if isinstance(place, bytes) else place}: {error.strerror}"


def main() -> NoReturn:
    """Entry point: turns an ``EdgecnnError`` or an ``OSError`` into one line on stderr and its exit status."""
    _open_streams()
    try:
        _check_words(sys.argv[1:])
        with _interrupts_heard(), own_temporary_folder(), working(" ".join(["edgecnn", *sys.argv[1:2]])):
            cli(standalone_mode=False)
    except click.ClickException as error:
        error.message = shown(error.message)  # type: ignore[misc]
        error.show()
        sys.exit(error.exit_code)
    except EdgecnnError as error:
        _say(f"edgecnn: {error}", err=True)
        sys.exit(error.exit_status)
    except (KeyboardInterrupt, click.Abort) as error:
        interrupt = error.__cause__ or error  # click's Abort comes from it
        _say("; ".join(["edgecnn: interrupted", *map(str, interrupt.args)]), err=True)
        sys.exit(130)
    except BrokenPipeError:  # whoever read the results has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(1)
    except OSError as error:
        if error.errno is None:  # not from the system
            raise
        logging.getLogger("edgecnn").info("", exc_info=True)
        _say(f"edgecnn: {_refused(error)}", err=True)
        sys.exit(1)
    sys.exit(0)
