"""A report as Markdown with tables, as GitHub shows it."""

import re

from edgecnn.report.grid import COMMAND, Cell, Grid, Pairs, machine, marks_of
from edgecnn.report.page import Page, heading, titled

# What Markdown obeys inside a line. Brackets mean nothing without a round or square one behind them, and an
# underscore nothing inside a word; an address becomes a link. At its start: headings, lists and rules.
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
        parts += ["\n".join(f"- Take care: {_escaped(sentence)}" for sentence in page.cautions)]
    parts += [f"{sub} Results", _grid(page.results)]
    for title, grids in (
        ("Start, memory and energy", (page.resources,)),
        ("Emulated processors", (page.emulated,)),
        ("Answers by processor", (page.processors,)),
        ("Float baselines", (page.baselines, page.against)),
        ("What the numbers are", ()),
        ("Verification", (page.verification,)),
        ("Layers", page.layers),
        ("Failures", (page.failed,)),
        ("Not tried", (page.unsupported,)),
    ):
        shown = [_grid(grid) for grid in grids if grid.rows]
        if title == "What the numbers are":
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
    """``text`` so that Markdown and HTML in it are shown, not obeyed."""
    parts = []
    for index, part in enumerate(COMMAND.split(text)):
        if index % 2:  # between the backticks
            parts.append(f"`{part}`")
        else:
            part = part.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
            parts.append(_SPECIAL.sub(r"\\\g<0>", part))
    return "".join(parts)
