"""The commands for target devices: check, embed, bundle, emulate."""

import sys
from pathlib import Path
from typing import get_args

import click

from edgecnn.cli import options
from edgecnn.cli.options import check_target
from edgecnn.cli.output import print_array, print_json, print_record, say
from edgecnn.records import KitTarget


@click.command()
@click.argument("model", type=options.FILE)
@click.option("--target", required=True, help="c99, tflm, edgetpu, …; or a core: cortex-m4:flash=256k,ram=64k.")
@options.json
def check(model: Path, target: str, as_json: bool) -> None:
    """Check whether MODEL fits a target and runs on it.

    MODEL is a .tflite file from any tool. Its operators, types, scales and sizes are checked against the limits of the
    target: by rules and, if they are installed, by the target's tools (TFLM, a cross compiler). The output names the
    method. The exit status is 1 if the model does not fit; all reasons are printed. Targets are tflm, edgetpu, the kits
    of C code (c99, arduino, web, wheel, android, ios), the cores cortex-m0, -m0plus, -m3, -m4, -m7, -m33, -m55 and
    -m85, and Ethos-U processors such as ethos-u55-128, with estimates of Arm's compiler Vela (extra vela). Flash and
    RAM limits of cores and Ethos-U are in bytes, with the suffix k or m.
    """
    from edgecnn.check import check as check_file

    found = check_file(model, target)
    if as_json:
        print_json(found)
    else:
        say(f"{found.file} on {found.target}: {'fits' if found.fits else 'does not fit'}")
        for kind, size in (("arena", found.arena_bytes), ("flash", found.flash_bytes), ("RAM", found.ram_bytes)):
            if size is not None:
                say(f"  {kind:5}  {size:,} bytes")
        if found.cycles is not None:
            say(f"  cycles {found.cycles:,}, estimated")
        for note in found.notes:
            say(f"  {note}")
    for reason in found.reasons:
        say(f"edgecnn: {model}: {reason}", err=True)
    sys.exit(0 if found.fits else 1)


@click.command()
@click.argument("models", metavar="MODEL...", type=options.FILE, nargs=-1, required=True)
@click.option("--target", type=click.Choice(get_args(KitTarget)), required=True, help="Target of MODEL.")
@click.option("--data", help="Data set of the golden inputs.  [default: random noise; for linux the data set of MODEL]")
@click.option("--caller-arena", is_flag=True, help="C code that expects its working memory as an argument.")
@click.option("--ram", type=options.Bytes(), help="Largest arena of generated C, such as 32k.  [default: no limit]")
@click.option("--read-rows", is_flag=True, help="Add a function that reads the input row by row; needs --ram.")
@click.option("--out", type=options.FILE, required=True, help="Folder to write.")
@options.json
def embed(
    models: tuple[Path, ...],
    target: str,
    data: str | None,
    caller_arena: bool,
    ram: int | None,
    read_rows: bool,
    out: Path,
    as_json: bool,
) -> None:
    """Write a folder with MODEL that is ready to copy to a device.

    MODEL is a .tflite that edgecnn check accepts; for linux, any exported .tflite or .onnx. c99: C without libraries,
    of several models in one source if they are given.
    tflm: the model, operator list and arena size for TensorFlow Lite Micro. arduino: a library that contains the C
    code. linux: a program that needs Python and one runtime. wheel: a Python package that pip compiles from the C code;
    it needs only numpy. web: the C code as WebAssembly, with a page to try it. android: a Gradle module with the C code
    and LiteRT. ios: a Swift package with the C code.
    cortex-m4 and other cores: the C code with a test on an emulated board. Each folder contains golden outputs, a test
    that compares with them, and a README. An earlier kit in the folder is replaced; other content is never overwritten.

    With --ram, the first layers of generated C run in bands of rows if the arena, the memory for activations, does not
    fit otherwise; input and output come on top. Of the plans that fit, the one with the fewest instructions is used.
    With --read-rows, the input need not be in memory whole: a callback provides its rows when they are needed.
    """
    from edgecnn.embed import embed as embed_model

    kit = embed_model(models, target, out, data, caller_arena=caller_arena, ram=ram, reads=read_rows)
    arena = "" if kit.arena_bytes is None else f", arena {kit.arena_bytes:,} bytes"
    if kit.arena_measured_bytes is not None:
        arena += f" ({kit.arena_measured_bytes:,} measured here)"
    print_record(kit, as_json, f"wrote {out}: {len(kit.files) + 1} files{arena}; read {out / 'README.md'}")


@click.command()
@click.argument("run", type=options.FILE)
@click.option("--data", help="Path of the run's data set; needed unless it is built in.")
@click.option("--images", type=click.IntRange(1), default=1000, show_default=True, help="Number of test images.")
@click.option("--out", type=options.FILE, required=True, help="The .zip file to write.")
@options.json
def bundle(run: Path, data: str | None, images: int, out: Path, as_json: bool) -> None:
    """Pack the files of a run for a device.

    RUN is the folder that edgecnn run wrote. The bundle contains its .tflite and .onnx files with their metadata, test
    images, and a manifest with the SHA-256 of each file. Measure it with edgecnn bench, on the device or from here.
    """
    from edgecnn.bundle import make_bundle

    check_target(out, ".zip")
    made = make_bundle(run, out, data=data, images=images)
    models = sum(not file.name.endswith((".json", ".npz")) for file in made.files)
    print_record(made, as_json, f"wrote {out}: {models} files, {made.test.images} of {made.test.of} test images")


@click.command()
@click.argument("processors", metavar="[PROCESSOR]...", nargs=-1)
@click.option("--install", is_flag=True, help="Install the required Python into the cache folder.")
@click.option("--json", "as_json", is_flag=True, help="Print the records, one per processor, as a JSON array.")
def emulate(processors: tuple[str, ...], install: bool, as_json: bool) -> None:
    """Show which processors the option --on can emulate.

    PROCESSORS: nehalem, haswell, cortex-a53, cortex-a72, cortex-a76, arm-max; by default all of them. The exit status
    is 1 if a requirement of one is missing. QEMU emulates them. For another architecture than this machine's it
    needs a Python with the runtimes; --install unpacks it from Debian or Ubuntu packages and wheels. The system itself
    is not changed.
    """
    from edgecnn.emulation.answers import state
    from edgecnn.emulation.install import install as install_for
    from edgecnn.emulation.processors import PROCESSORS

    chosen = [PROCESSORS[name] for name in processors or PROCESSORS]
    for processor in chosen if install else ():
        install_for(processor)
    states = [state(processor) for processor in chosen]
    if as_json:
        print_array(states)
    else:
        for one in states:
            runtimes = ", ".join(f"{name} {version}" for name, version in one.versions.items())
            say(f"{one.processor:10}  {one.stands_for}: {'missing' if one.missing else f'ready, {runtimes}'}")
    for one in states:
        for line in one.missing:
            say(f"edgecnn: {one.processor}: {line}", err=True)
    sys.exit(1 if any(one.missing for one in states) else 0)
