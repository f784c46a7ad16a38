"""Progress bars on stderr; stdout is for results only."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread
from typing import TYPE_CHECKING, Protocol

from edgecnn.text import shown

if TYPE_CHECKING:
    from rich.console import Console

_REDRAW_S = 0.1
# Seconds between two lines where stderr is not a terminal.
_BEAT_S = 25.0
# Minimum terminal widths for the bar, and for the elapsed time too, beside the longest note.
_BAR_FITS, _TIMES_FIT = 98, 112


class Advance(Protocol):
    """Advances a bar by ``steps`` and shows ``note`` beside it."""

    def __call__(self, steps: float = 1, note: str = "") -> None:
        """Advance the bar."""


@contextmanager
def progress(description: str, total: float) -> Iterator[Advance]:
    """Show a progress bar with the remaining time while the block runs; yields the function that advances it.

    On a narrow terminal parts are omitted. If stderr is not a terminal, plain lines report the progress, as in
    ``working``, and a last line the total time, or where the work stopped.
    """
    from rich.console import Console

    console = Console(stderr=True)
    if console.is_terminal and not console.is_dumb_terminal:
        with _bar(console, description, total) as advance:
            yield advance
    else:
        with _line(description, total) as advance:
            yield advance


@contextmanager
def working(description: str, far: Callable[[], str] = str) -> Iterator[None]:
    """While the block runs and stderr is not a terminal, print the description and the result of ``far`` every 25 s.

    In nested blocks, only the innermost prints.
    """
    start = time.monotonic()

    def line() -> str:
        return f"{description}: {time.monotonic() - start:.0f} s so far{far()}\n"

    stopped = None if _work or sys.stderr.isatty() else Event()
    _work.append(line)
    if stopped is not None:
        Thread(target=_beat, args=(stopped,), daemon=True).start()
    try:
        yield
    finally:
        _work.remove(line)
        if stopped is not None:
            stopped.set()


_work: list[Callable[[], str]] = []


def _beat(stopped: Event) -> None:
    while not stopped.wait(_BEAT_S):
        for line in _work[-1:]:
            sys.stderr.write(line())


@contextmanager
def _bar(console: "Console", description: str, total: float) -> Iterator[Advance]:
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.table import Column

    width = console.width
    columns = (
        TextColumn("{task.description:<14}", markup=False),
        *([BarColumn(bar_width=24)] if width >= _BAR_FITS else []),
        TextColumn("{task.percentage:>3.0f}%"),
        *([TimeElapsedColumn()] if width >= _TIMES_FIT else []),
        TimeRemainingColumn(elapsed_when_finished=True),
        TextColumn(
            "{task.fields[note]}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1)
        ),
    )
    # Redraw only on progress: a thread that redraws ten times a second would disturb measurements.
    with Progress(
        *columns, console=console, auto_refresh=False, expand=True, redirect_stdout=False, redirect_stderr=False
    ) as bars:
        task = bars.add_task(description, total=total, note="")
        drawn = 0.0

        def advance(steps: float = 1, note: str = "") -> None:
            nonlocal drawn
            bars.update(task, advance=steps, note=shown(note))
            if time.monotonic() - drawn > _REDRAW_S:
                bars.refresh()
                drawn = time.monotonic()

        yield advance


@contextmanager
def _line(description: str, total: float) -> Iterator[Advance]:
    start, last, done = time.monotonic(), "", 0.0

    def advance(steps: float = 1, note: str = "") -> None:
        nonlocal last, done
        last, done = shown(note), done + steps

    def far() -> str:
        return f", {min(1.0, done / total if total else 1.0):.0%}" + (f", at {last}" if last else "")

    how = "stopped after"
    try:
        with working(description, far):
            yield advance
        how, last = "done in", ""
    finally:
        at = f", at {last}" if last else ""
        sys.stderr.write(f"{description}: {how} {time.monotonic() - start:.1f} s{at}\n")
