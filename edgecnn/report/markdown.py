"""A report as Markdown with tables, as GitHub shows it."""

import re

from edgecnn.report.page import COMMAND, Cell, Grid, Page, Pairs, marks_of

# What Markdown obeys inside a line. Brackets mean nothing without a round or square one behind them, and an
# underscore nothing inside a word.
_SPECIAL = re.compile(r"[\\`*|~$]|(?<!\w)_|_(?!\w)|\](?=[(\[:])")


def render(page: Page) -> bytes:
    """``page`` as UTF-8 Markdown."""
    parts = [f"# {_escaped(page.title)}", _pairs(page.facts)]
    parts += ["## Verdict", "\n".join(f"- {_escaped(sentence)}" for sentence in page.verdict)]
    parts += ["## Results", _grid(page.results)]
    parts += ["## What the numbers are", _pairs(page.method)]
    if page.verification.rows:
        parts += ["## Verification", _grid(page.verification)]
    if page.failed.rows:
        parts += ["## Failures", _grid(page.failed)]
    if page.senseless.rows:
        parts += ["## Not tried", _grid(page.senseless)]
    parts += ["## Environment"]
    for title, pairs in page.environments:
        parts += [f"### {_escaped(title)}", _pairs(pairs)]
    if page.stages.rows:
        parts += ["## Stages", _grid(page.stages)]
    if page.files.rows:
        parts += ["## Files", _grid(page.files)]
    parts += ["## Reproduce", "\n".join(f"- {_escaped(text)}" for text in page.reproduce)]
    return ("\n\n".join(parts) + "\n").encode()


def _grid(grid: Grid) -> str:
    head = "| " + " | ".join(_escaped(column.title) for column in grid.columns) + " |"
    rule = "|" + "|".join("---:" if column.numeric else "---" for column in grid.columns) + "|"
    rows = ["| " + " | ".join(_cell(cell) for cell in row) + " |" for row in grid.rows]
    notes = [f"- ({mark}) {_escaped(text)}" for mark, text in grid.notes]
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
