"""The commands that read model files or reports: inspect, report, compare."""

import sys
from pathlib import Path

import click

from edgecnn.cli import options
from edgecnn.cli.output import end, print_json, say, show_report


@click.command()
@click.argument("file", type=options.FILE)
@click.option("--shape", type=options.Numbers(int, "1,3,64,64"), help="Input shape, if FILE leaves it open.")
@click.option(
    "--assert",
    "wanted",
    type=click.Choice(["int8", "portable"]),
    help="Fail if a node does not compute in int8 (int8), or can saturate on other processors (portable).",
)
@options.json
def inspect(file: Path, shape: tuple[int, ...] | None, wanted: str | None, as_json: bool) -> None:
    """Show which operators run in integers and which in float.

    FILE is a .onnx or .tflite file from any tool. The output lists its operators with types, quantisation, sizes and
    multiply-accumulates, and the kernels that the runtime chooses. With --assert int8 the exit status is 1 if a node
    computes in float or with float activations, except conversions of type or layout. With --assert portable it is 1
    if int8 product sums of a node in a .onnx file can saturate on x86 without VNNI.
    """
    from edgecnn.inspection import inspect as inspect_file
    from edgecnn.inspection.terminal import show

    found = inspect_file(file, shape)
    if as_json:
        print_json(found)
    else:
        show(found)
    wrong = {"int8": found.not_int8, "portable": found.not_portable}.get(wanted or "", ())
    for node in wrong:
        kind = node.kernel if node.position is None else f"{node.kind} {node.position}"
        fault = f"computes in {node.precision}" if wanted == "int8" else "can saturate on x86 without VNNI"
        say(f"edgecnn: {file}: {kind} ({node.name}) {fault}", err=True)
    if wanted == "portable" and wrong:
        say(
            "edgecnn: export the model with edgecnn export --onnx-cpu any, or store these weights as uint8, "
            "or set the session option session.x64quantprecision to 1 in every program that loads the file",
            err=True,
        )
    sys.exit(1 if wrong else 0)


@click.command()
@options.files
@click.option("--out", type=options.FILE, help="Folder to write report.md, .html, .csv and .json to.")
@options.json
def report(files: tuple[Path, ...], out: Path | None, as_json: bool) -> None:
    """Show the reports in FILES, and write them as one report.

    FILES are report.json files of edgecnn run, or files that edgecnn bench wrote with --out, from one or more machines.
    Each report keeps its own verdict; rows of different reports are not ranked.
    """
    from edgecnn.report import merge, write

    found = merge(files)
    if out is not None:
        write(found, out)
    show_report(found, as_json)


@click.command()
@click.argument("old", type=options.FILE)
@click.argument("new", type=options.FILE)
@click.option("--max-accuracy-drop", type=float, default=0.1, show_default=True, help="In percentage points.")
@click.option("--max-latency-ratio", type=float, default=1.1, show_default=True, help="New median ÷ old median.")
@options.json
def compare(old: Path, new: Path, max_accuracy_drop: float, max_latency_ratio: float, as_json: bool) -> None:
    """Find regressions from the report OLD to the report NEW.

    Rows are matched by artifact name, runtime, device, threads and batch. The exit status is 1 if a whole 95 %
    interval exceeds its limit, or if a row of OLD is missing in NEW. An interval that contains the limit is reported
    as undecided. Latency is compared only on the same machine, accuracy only on the same test images.
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
        print_json(gate)
    else:
        show_gate(gate)
    end(gate.regressions, "regression", as_json)
