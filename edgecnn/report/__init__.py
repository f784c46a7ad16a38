"""Reports as Markdown, HTML, JSON, CSV and terminal text; merging and comparing reports."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from edgecnn.files import make_folder, write_atomic
from edgecnn.records import Demo, Report, read_record, to_json
from edgecnn.report import csvfile, html, markdown
from edgecnn.report.page import page
from edgecnn.report.terminal import show, show_answers, show_gate

__all__ = ["merge", "read", "show", "show_answers", "show_gate", "write"]


def merge(paths: Sequence[Path]) -> Report:
    """The reports at ``paths`` as one: the first, with the others in ``others``; titles name the files.

    If a file contains several reports, all of them are merged.

    Raises:
        RecordError: see ``read``.
    """
    parts: list[Report] = []
    for path in paths:
        report = read(path)
        if len(paths) > 1 and not report.others:
            report = report.replace(title=f"{report.title} ({path})")
        parts += [report.replace(others=()), *report.others]
    return parts[0].replace(others=tuple(parts[1:]))


def write(report: Report, folder: Path | str, demo: Demo | str | None = None) -> tuple[Path, ...]:
    """Write ``report`` to ``folder`` as JSON, CSV, Markdown and HTML, in this order.

    The same report gives the same bytes. In the HTML, the model ``demo`` can be tried, or it says why not.

    Raises:
        OutputError: the folder or a file cannot be written.
        MissingExtraError: the HTML needs the extra "report"; the other files are written first.
    """
    folder = make_folder(Path(folder))
    path = folder / "report.json"
    write_atomic(path, to_json(report))
    written = [path]
    content = page(report)
    for ending, render in (
        ("csv", csvfile.render),
        ("md", markdown.render),
        ("html", partial(html.render, demo=demo)),
    ):
        path = folder / f"report.{ending}"
        write_atomic(path, render(content))
        written.append(path)
    return tuple(written)


def read(path: Path) -> Report:
    """The report in the JSON file at ``path``.

    Raises:
        RecordError: the file is missing, is not a report, or is of another schema version.
    """
    return read_record(path, Report)
