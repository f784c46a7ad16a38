"""``edgecnn bench``: latency of model files, here or on a device."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from edgecnn.cli import options
from edgecnn.cli.options import check_target, is_given, load_data, setting
from edgecnn.cli.output import show_report, status
from edgecnn.errors import ConfigError
from edgecnn.records import BareTarget, RuntimeName

if TYPE_CHECKING:
    from edgecnn.data import DataSet
    from edgecnn.records import Report


@click.command()
@options.files
@click.option("--data", help="Count accuracy on these test images too (as for edgecnn run).")
@setting("input_range")
@setting("threads")
@click.option(
    "--batch", "batches", type=options.Numbers(int, "1,8"), default="1", show_default=True, help="Batches to try."
)
@click.option(
    "--runtimes",
    type=options.Names("runtime", get_args(RuntimeName)),
    default=(),
    help="Comma-separated.  [default: the first that takes a file]",
)
@setting("seconds")
@setting("cold")
@setting("seed")
@click.option("--out", type=options.FILE, help="JSON file to write, with every sample.")
@click.option("--baseline", "baselines", type=options.FILE, multiple=True, help="JSON from edgecnn baseline.")
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
    type=options.Names("target", get_args(BareTarget)),
    default=(),
    help="Count instructions, flash and RAM on emulated processors too, such as cortex-m4,cortex-m55.",
)
@options.json
def bench(
    files: tuple[Path, ...],
    data: str | None,
    input_range: Any,
    threads: tuple[int, ...],
    batches: tuple[int, ...],
    runtimes: tuple[str, ...],
    seconds: float,
    cold: int,
    seed: int,
    out: Path | None,
    baselines: tuple[Path, ...],
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
    Instruction counts are not timings.
    """
    from edgecnn.bench.files import bench_files
    from edgecnn.files import write_atomic
    from edgecnn.records import to_json

    if out is not None:
        check_target(out, ".json")
    with ExitStack() as stack:
        if host is not None or serial is not None:
            report = _bench_on_device(files, host, serial, baselines, targets)
        else:
            loaded = None if data is None else load_data(data, input_range)
            if any(path.suffix == ".zip" for path in files):
                files, loaded = stack.enter_context(_bundle(files))
            report = bench_files(
                files,
                data=loaded,
                threads=threads,
                batches=batches,
                runtimes=runtimes,
                seconds=seconds,
                processes=cold,
                seed=seed,
                baselines=baselines,
                targets=targets,
                keep=out,
            )
    try:
        if out is not None:
            write_atomic(out, to_json(report))
    finally:  # a full disk loses the file, not the rows
        show_report(report, as_json)
    status(report, as_json)


def _bundle(files: Sequence[Path]) -> "AbstractContextManager[tuple[tuple[Path, ...], DataSet]]":
    """The model files and test images of the one bundle in ``files``, unpacked as long as it is open."""
    from edgecnn.bundle import opened

    if is_given("data") or is_given("input_range"):
        raise ConfigError("a bundle brings its own test images; leave out --data and --input-range")
    if len(files) > 1:
        raise ConfigError("a bundle is measured alone: give one .zip file and no other")
    return opened(files[0])


def _bench_on_device(
    files: Sequence[Path],
    host: str | None,
    serial: str | None,
    baselines: Sequence[Path],
    targets: Sequence[str],
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
        if isinstance(parameter, click.Option) and parameter.name not in here and is_given(str(parameter.name)):
            value = context.params[str(parameter.name)]
            options.append(parameter.opts[0])
            if not parameter.is_flag:
                options.append(",".join(map(str, value)) if isinstance(value, tuple) else str(value))
    return options
