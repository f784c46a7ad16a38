"""``edgecnn diagnose``: where accuracy is lost, and how much timings vary by chance."""

from pathlib import Path
from typing import get_args

import click

from edgecnn.cli import options
from edgecnn.cli.options import check_target, setting
from edgecnn.cli.output import print_array, print_record, say, show_violations
from edgecnn.records import AccuracyPath, Failure, RuntimeName


@click.group()
def diagnose() -> None:
    """Find where accuracy is lost, or how noisy timings are."""


@diagnose.command()
@options.exported
@options.json_array
def stages(files: tuple[Path, ...], model: Path, data: options.Data, qat: Path | None, as_json: bool) -> None:
    """Count accuracy step by step, from float to each runtime.

    FILES are int8 and int8-qat files, .tflite or .onnx. Other files are skipped with the reason, which is no error.
    Accuracy is counted on all test images after each step: quantisation-aware training, int8, and each runtime. The
    exit status is 1 if a file is out of tolerance.
    """
    from edgecnn.diagnosis.stages import stages as find_stages
    from edgecnn.diagnosis.terminal import show_path

    rows = find_stages(files, data.load(), model=model, qat_weights=qat)
    paths = [row for row in rows if isinstance(row, AccuracyPath)]
    for row in rows:
        if isinstance(row, Failure):
            say(f"edgecnn: {row.reason}", err=True)
    if as_json:
        print_array(rows)
    else:
        for path in paths:
            show_path(path)
    show_violations([parity for path in paths for parity in path.parities])


@diagnose.command()
@options.exported
@options.json_array
def layers(files: tuple[Path, ...], model: Path, data: options.Data, qat: Path | None, as_json: bool) -> None:
    """Measure the error of every int8 tensor.

    FILES are int8 .tflite files. Each tensor is compared with its float value on 200 training images. No tolerance
    is applied.
    """
    from edgecnn.diagnosis.layers import layers as find_layers
    from edgecnn.diagnosis.terminal import show_layers

    found = find_layers(files, data.load(), model=model, qat_weights=qat)
    if as_json:
        print_array(found)
    else:
        for errors in found:
            show_layers(errors)


@diagnose.command()
@click.argument("file", type=options.FILE)
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True, help="Number of threads.")
@click.option("--batch", type=click.IntRange(1), default=1, show_default=True, help="Images per inference.")
@click.option(
    "--runtime",
    type=click.Choice(get_args(RuntimeName)),
    help="Runtime of FILE.  [default: the first that supports it]",
)
@setting("seconds")
@setting("cold")
@setting("seed")
@click.option("--out", type=options.FILE, help="JSON file to write, with all samples.")
@options.json
def noise(
    file: Path,
    threads: int,
    batch: int,
    runtime: str | None,
    seconds: float,
    cold: int,
    seed: int,
    out: Path | None,
    as_json: bool,
) -> None:
    """Measure the latency of FILE against itself.

    FILE is a model as for edgecnn bench. It is measured as two candidates. A difference between them is a false alarm:
    on this machine, or with these settings, chance alone causes differences of this size.
    """
    from edgecnn.files import write_atomic
    from edgecnn.measure.files import bench_against_itself
    from edgecnn.records import to_json
    from edgecnn.report.units import ratio_interval

    if out is not None:
        check_target(out, ".json")
    found = bench_against_itself(
        file, threads=threads, batch=batch, runtime=runtime, seconds=seconds, processes=cold, seed=seed
    )
    if out is not None:
        write_atomic(out, to_json(found))
    interval = ratio_interval(found.ratio.value, found.ratio.low, found.ratio.high)
    difference = "no difference" if found.difference == "none" else f"{found.difference}, which is a false alarm"
    print_record(found, as_json, f"{file.name} against itself: time ratio {interval}: {difference}")
