"""``python tests/fuzz.py``: the long fuzzing run, and single examples of it.

python tests/fuzz.py run --examples 5000 --out benchmarks/results/fuzzing.json
python tests/fuzz.py example npz 1234
"""

import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import click
from fuzzing import readers
from fuzzing.harness import Reader, drawn_input, fuzz, serve

from benchmarks.fuzzing import Fuzzed, Outcome


@click.group()
def cli() -> None:
    """Read damaged input, and see that nothing but an answer or an error of ours comes of it."""


def _chosen(names: tuple[str, ...]) -> dict[str, Reader]:
    known = readers()
    for name in names:
        if name not in known:
            raise click.UsageError(f"no reader {name!r}; choose from: {', '.join(known)}")
    return {name: known[name] for name in names or known}


@cli.command()
@click.argument("names", metavar="[READER]...", nargs=-1)
@click.option("--examples", type=click.IntRange(1), default=5000, show_default=True, help="Of each reader.")
@click.option("--start", type=click.IntRange(0), default=0, show_default=True, help="Number of the first.")
@click.option("--jobs", type=click.IntRange(1), default=2, show_default=True, help="Readers at the same time.")
@click.option("--out", type=click.Path(path_type=Path), help="JSON file to write; readers in it are not run again.")
def run(names: tuple[str, ...], examples: int, start: int, jobs: int, out: Path | None) -> None:
    """Run the examples of all readers, or of those named; the exit status is 1 if one has a fault.

    What is found of a reader is told, and written, as soon as it is known.
    """
    from edgecnn.environment import environment
    from edgecnn.files import write_atomic
    from edgecnn.records import read_record, to_json

    outcomes = dict(read_record(out, Fuzzed).readers) if out is not None and out.exists() else {}
    where = environment()

    def one(name: str) -> Outcome:
        done = 0

        def advance(more: int) -> None:
            nonlocal done
            done += more
            click.echo(f"{name}: {done} of {examples}", err=True)

        return fuzz(name, range(start, start + examples), advance)

    with ThreadPoolExecutor(jobs) as pool:
        running = {pool.submit(one, name): name for name in _chosen(names) if name not in outcomes}
        for future in as_completed(running):
            name = running[future]
            outcomes[name] = future.result()
            _tell(name, outcomes[name])
            if out is not None:
                write_atomic(out, to_json(Fuzzed(environment=where, readers=dict(sorted(outcomes.items())))))
    sys.exit(1 if any(outcome.faults for outcome in outcomes.values()) else 0)


def _tell(name: str, outcome: Outcome) -> None:
    click.echo(
        f"{name}: {outcome.examples} examples, {outcome.read} read, {outcome.refused} refused, "
        f"{len(outcome.faults)} faults; slowest {outcome.slowest_s:.1f} s, most {outcome.most_bytes / 1e6:.0f} MB"
    )
    for fault in outcome.faults:
        click.echo(f"  {fault.number} {fault.kind}: {fault.detail}")


@cli.command(name="example")
@click.argument("name", metavar="READER")
@click.argument("number", type=int)
@click.option("--keep", type=click.Path(path_type=Path), help="Folder to leave the damaged input in; it is not read.")
def example_(name: str, number: int, keep: Path | None) -> None:
    """Run one example in this process, with its traceback."""
    (reader,) = _chosen((name,)).values()
    with tempfile.TemporaryDirectory(prefix="edgecnn-fuzz-") as folder:
        inputs = Path(folder) / "inputs"
        inputs.mkdir()
        reader.make(inputs)
        source, drawn = drawn_input(reader, number, inputs)
        if keep is not None:
            keep.mkdir(parents=True)
            place = source.rename(keep / source.name)
        else:
            place = source
        reader.damage(place, drawn)
        if keep is None:
            click.echo(repr(reader.read(place))[:2000])


@cli.command(hidden=True)
@click.argument("name")
@click.argument("start", type=int)
@click.argument("stop", type=int)
@click.argument("inputs", type=click.Path(path_type=Path))
def batch(name: str, start: int, stop: int, inputs: Path) -> None:
    """Serve a batch of examples; the run starts one."""
    serve(readers()[name], range(start, stop), inputs)


if __name__ == "__main__":
    cli()
