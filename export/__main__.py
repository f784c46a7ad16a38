"""``python -m export``: put a model into a kit for a device. Run it from a checkout, with edgecnn installed."""

import sys
from pathlib import Path

import click

from edgecnn.embed import KIT_FILE, embed
from edgecnn.errors import EdgecnnError
from edgecnn.text import shown
from export.cortex_m import kit as cortex_m_kit

_PATH = click.Path(path_type=Path)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Put an exported model into a kit for a device: one command per target."""


@cli.command()
@click.argument("model", type=_PATH)
@click.option("--data", help="The data set MODEL was made from; needed if it is your own.")
@click.option("--out", type=_PATH, required=True, help="The folder to write.")
def linux(model: Path, data: str | None, out: Path) -> None:
    """Linux with Python and one runtime.

    MODEL (.tflite or .onnx) comes with a program that runs it and answers to check it with.
    """
    for name in (*embed(model, "linux", out, data).files, KIT_FILE):
        click.echo(shown(str(out / name)))


@cli.command()
@click.argument("model", type=_PATH)
@click.option("--core", type=click.Choice(cortex_m_kit.CORES), default="m4", show_default=True, help="The core.")
@click.option("--data", help="A data set whose test images the kit is tried with; by default they are random.")
@click.option("--out", type=_PATH, required=True, help="The folder to write.")
def cortex_m(model: Path, core: str, data: str | None, out: Path) -> None:
    """Cortex-M without an operating system.

    MODEL (an int8 .tflite) becomes C99, with a Makefile that builds it, runs it on an emulated board and compares
    every byte it answers.
    """
    for path in cortex_m_kit.build(model, core, data, out):
        click.echo(shown(str(path)))


if __name__ == "__main__":
    try:
        cli(prog_name="python -m export")
    except EdgecnnError as error:
        click.echo(f"export: {error}", err=True)
        sys.exit(error.exit_status)
