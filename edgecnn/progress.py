"""Progress bars on stderr, so that stdout carries results only."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Advance(Protocol):
    """Moves a bar on by ``steps`` and shows ``note`` beside it."""

    def __call__(self, steps: float = 1, note: str = "") -> None: ...


@contextmanager
def progress(description: str, total: float) -> Iterator[Advance]:
    """Show a bar with the time left while the block runs; the block calls what it is given to move it.

    Where stderr is not a terminal, one line says when the work is done.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description:<34}"),
        BarColumn(bar_width=24),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console, redirect_stdout=False, redirect_stderr=False) as bars:
        task = bars.add_task(description, total=total, note="")

        def advance(steps: float = 1, note: str = "") -> None:
            bars.update(task, advance=steps, note=note)

        yield advance
