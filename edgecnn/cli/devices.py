"""The commands for where a model is to run: check, embed, bundle, emulate."""

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
@click.option("--target", required=True, help="tflm, c99, edgetpu, or a core: cortex-m4:flash=256k,ram=64k.")
@options.json
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
        print_json(found)
    else:
        say(f"{found.file} on {found.target}: {'fits' if found.fits else 'does not fit'}")
        for kind, size in (("arena", found.arena_bytes), ("flash", found.flash_bytes), ("RAM", found.ram_bytes)):
            if size is not None:
                say(f"  {kind:5}  {size:,} bytes")
        for note in found.notes:
            say(f"  {note}")
    for reason in found.reasons:
        say(f"edgecnn: {model}: {reason}", err=True)
    sys.exit(0 if found.fits else 1)


@click.command()
@click.argument("model", type=options.FILE)
@click.option("--target", type=click.Choice(get_args(KitTarget)), required=True, help="Where MODEL is to run.")
@click.option("--data", help="Take golden inputs from this data set; by default noise, for linux the data of MODEL.")
@click.option("--out", type=options.FILE, required=True, help="The folder to write.")
@options.json
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
    print_record(kit, as_json, f"wrote {out}: {len(kit.files) + 1} files{arena}; read {out / 'README.md'}")


@click.command()
@click.argument("run", type=options.FILE)
@click.option("--data", help="Where the data of the run are, if they are your own.")
@click.option("--images", type=click.IntRange(1), default=1000, show_default=True, help="Test images to take along.")
@click.option("--out", type=options.FILE, required=True, help="The .zip file to write.")
@options.json
def bundle(run: Path, data: str | None, images: int, out: Path, as_json: bool) -> None:
    """Pack the files of a run for a device.

    RUN is the folder that edgecnn run wrote. The bundle holds its .tflite and .onnx files with what is known of them,
    test images, and a manifest with the SHA-256 of each; edgecnn bench measures it, there or from here.
    """
    from edgecnn.bundle import make_bundle

    check_target(out, ".zip")
    made = make_bundle(run, out, data=data, images=images)
    models = sum(not file.name.endswith((".json", ".npz")) for file in made.files)
    print_record(made, as_json, f"wrote {out}: {models} files, {made.test.images} of {made.test.of} test images")


@click.command()
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
