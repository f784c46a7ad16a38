"""A report as GitHub-flavoured Markdown."""

import re

from edgecnn.report.grid import COMMAND, Cell, Grid, Pairs, machine, marks_of
from edgecnn.report.page import Page, heading, titled

# Markdown syntax inside a line: brackets only before another bracket, underscores only at the edge of a word, and
# URLs, which become links. At the start of a line: headings, lists and rules.
_SPECIAL = re.compile(
    r"[\\`*|~$]|(?<!\w)_|_(?!\w)|\](?=[(\[:])|:(?=//)|(?<=www)\.|^#(?=[# ])|^[-+](?=[- ])|(?<=^\d)[.)](?= )"
)


def render(page: Page) -> bytes:
    """``page`` as UTF-8 Markdown."""
    if not page.others:
        return ("\n\n".join(_part(page, 1)) + "\n").encode()
    parts = [f"# {heading(page)}"]
    parts += [
        f"- **{part.letter}**: {_escaped(part.title)}, {_escaped(machine(part.environment))}" for part in page.parts
    ]
    if page.side_by_side is not None:
        parts += ["## Side by side", _grid(page.side_by_side)]
    for part in page.parts:
        parts += _part(part, 2)
    return ("\n\n".join(parts) + "\n").encode()


def _part(page: Page, level: int) -> list[str]:
    """The sections of one report, its title a heading of this level."""
    head, sub = "#" * level, "#" * (level + 1)
    parts = [f"{head} {_escaped(titled(page))}", _pairs(page.facts)]
    parts += [f"{sub} Verdict", "\n".join(f"- {_escaped(sentence)}" for sentence in page.verdict)]
    if page.cautions:
        parts += ["\n".join(f"- Caution: {_escaped(sentence)}" for sentence in page.cautions)]
    parts += [f"{sub} Results", _grid(page.results)]
    for title, grids in (
        ("Start, memory and energy", (page.resources,)),
        ("Emulated processors", (page.emulated,)),
        ("Outputs by processor", (page.processors,)),
        ("Float baselines", (page.baselines, page.against)),
        ("Definitions", ()),
        ("Verification", (page.verification,)),
        ("Layers", page.layers),
        ("Failures", (page.failed,)),
        ("Skipped", (page.unsupported,)),
    ):
        shown = [_grid(grid) for grid in grids if grid.rows]
        if title == "Definitions":
            shown = [_pairs(page.method)]
        if shown:
            parts += [f"{sub} {title}", *shown]
    parts += [f"{sub} Environment"]
    for title, pairs in page.environments:
        parts += [f"{sub}# {_escaped(title)}", _pairs(pairs)]
    if page.stages.rows:
        parts += [f"{sub} Stages", _grid(page.stages)]
    if page.files.rows:
        parts += [f"{sub} Files", _grid(page.files)]
    return [*parts, f"{sub} Reproduce", "\n".join(f"- {_escaped(text)}" for text in page.reproduce)]


def _grid(grid: Grid) -> str:
    head = "| " + " | ".join(_escaped(column.title) for column in grid.columns) + " |"
    rule = "|" + "|".join("---:" if column.numeric else "---" for column in grid.columns) + "|"
    rows = ["| " + " | ".join(_cell(cell) for cell in row) + " |" for row in grid.rows]
    notes = [f"- ({mark}) {_escaped(text)}" for mark, text in grid.notes]
    notes += [f"- no column “{_escaped(title)}”: {_escaped(why)}" for title, why in grid.left_out]
    text = "\n".join([_escaped(grid.caption), "", head, rule, *rows])
    return "\n".join([text, "", *notes]) if notes else text


def _cell(cell: Cell) -> str:
    return _escaped(cell.text) + marks_of(cell)


def _pairs(pairs: Pairs) -> str:
    return "\n".join(f"- **{_escaped(term)}**: {_escaped(text)}" for term, text in pairs)


def _escaped(text: str) -> str:
    """``text`` with its Markdown and HTML syntax escaped."""
    parts = []
    for index, part in enumerate(COMMAND.split(text)):
        if index % 2:  # between backticks
            parts.append(f"`{part}`")
        else:
            part = part.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
            parts.append(_SPECIAL.sub(r"\\\g<0>", part))
    return "".join(parts)
