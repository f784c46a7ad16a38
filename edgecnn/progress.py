"""Progress bars on stderr, so that stdout carries results only."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

_REDRAW_S = 0.1


class Advance(Protocol):
    """Moves a bar on by ``steps`` and shows ``note`` beside it."""

    def __call__(self, steps: float = 1, note: str = "") -> None:
        """Move the bar on."""


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
    # Drawn when it moves, not by a thread ten times a second: that would disturb what is being measured.
    with Progress(*columns, console=console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False) as bars:
        task = bars.add_task(description, total=total, note="")
        shown = 0.0

        def advance(steps: float = 1, note: str = "") -> None:
            nonlocal shown
            bars.update(task, advance=steps, note=note)
            if time.monotonic() - shown > _REDRAW_S:
                bars.refresh()
                shown = time.monotonic()

        yield advance
