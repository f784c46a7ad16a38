"""``python -m benchmarks``: run a suite, and generate the tables from the results. Requires a checkout."""

import sys
from pathlib import Path

import click

from benchmarks import figure, shipped, tables
from benchmarks.registry import SUITES
from edgecnn.errors import EdgecnnError, UnknownNameError
from edgecnn.files import make_folder, write_atomic
from edgecnn.records import to_json
from edgecnn.report import read

_HERE = Path(__file__).parent
_ROOT = _HERE.parent
_DOCS = _ROOT / "docs"
_PICTURE = _DOCS / "mnist.svg"
_PAGES = (_ROOT / "README.md", _ROOT / "SECURITY.md", _DOCS / "clients.md", _DOCS / "c99.md", _HERE / "README.md")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Run the suites, and generate the tables from their results."""


@cli.command()
@click.argument("suite")
@click.option("--out", type=click.Path(path_type=Path), help="Folder of the run; default runs/SUITE.")
def run(suite: str, out: Path | None) -> None:
    """Run SUITE and write its result, with every sample, to benchmarks/results/SUITE.json."""
    runs = {name: one.run for name, one in SUITES.items() if one.run is not None}
    if suite not in runs:
        raise UnknownNameError("suite", suite, runs)
    chosen = SUITES[suite]
    result = runs[suite](chosen.settings, out or Path("runs") / suite)
    make_folder(chosen.file.parent)
    write_atomic(chosen.file, to_json(result))
    click.echo(chosen.tables[suite](result, chosen.source))
    click.echo(f"\nwrote {chosen.file}; now: python -m benchmarks table")


@cli.command()
@click.option("--check", is_flag=True, help="Change nothing; exit status 1 if a table is out of date.")
def table(check: bool) -> None:
    """Regenerate the tables in the documents, and the picture in README.md, from the results."""
    stale = False
    if not check:
        write_atomic(_PICTURE, figure.latency(read(SUITES["mnist"].file)))
    for path in _PAGES:
        text = path.read_text(encoding="utf-8")
        wanted = tables.up_to_date(text, path)
        if wanted != text:
            stale = True
            click.echo(f"{path} {'is out of date; run: python -m benchmarks table' if check else 'written'}")
            if not check:
                write_atomic(path, wanted.encode())
    sys.exit(1 if check and stale else 0)


@cli.command()
def baselines() -> None:
    """Regenerate edgecnn/baselines/, which comes with edgecnn, from benchmarks/baselines/."""
    for path in sorted(shipped.RECORDED.glob("*.json")):
        target = make_folder(_ROOT / "edgecnn" / "baselines") / path.name
        write_atomic(target, shipped.shipped_form(path))
        click.echo(f"wrote {target}")


if __name__ == "__main__":
    try:
        cli(prog_name="python -m benchmarks")
    except EdgecnnError as error:
        click.echo(f"benchmarks: {error}", err=True)
        sys.exit(error.exit_status)
