"""A report as one self-contained HTML file: no network, no other files.

The page works without its scripts: one adds sorting and tooltips, one lets the model run. The content security policy
allows only these scripts, by their hashes.
"""

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgecnn.files import kits_folder
from edgecnn.optional import require
from edgecnn.records import Demo
from edgecnn.report import charts
from edgecnn.report.grid import COMMAND, Grid, machine
from edgecnn.report.page import Page, heading, titled

_SCRIPT = Path(__file__).with_name("page.js")
_DEMO_SCRIPT = Path(__file__).with_name("demo.js")


def render(page: Page, demo: Demo | str | None = None) -> bytes:
    """``page`` as UTF-8 HTML, with a section to try the model ``demo``, or the reason why there is none.

    Raises:
        MissingExtraError: jinja2 or matplotlib is not installed.
    """
    scripts = [_SCRIPT.read_text(encoding="utf-8")]
    if isinstance(demo, Demo):
        draw = (kits_folder() / "web" / "draw.js").read_text(encoding="utf-8")
        scripts.append(f"{demo.script}{draw}{_DEMO_SCRIPT.read_text(encoding='utf-8')}")
    return _filled(
        "template.html.j2",
        page=page,
        title=heading(page),
        drawn=[charts.draw(part) for part in page.parts],
        machine=machine,
        titled=titled,
        demo=demo,
        scripts=scripts,
        hashes=[base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts],
    ).encode()


def fragment(name: str, title: str, lines: Sequence[str], grid: Grid, figures: Sequence[charts.Figure]) -> str:
    """A table and figures, to be shown inside another page; ids begin with ``name``.

    Raises:
        MissingExtraError: jinja2 is not installed.
    """
    return _filled("fragment.html.j2", name=name, title=title, lines=lines, grid=grid, figures=figures)


def _filled(template: str, **values: Any) -> str:
    jinja2 = require("jinja2")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["commands"] = _commands
    filled: str = environment.get_template(template).render(values)
    return filled


def _commands(text: str) -> Any:
    """``text`` escaped, with the commands in backticks as code."""
    markup = require("markupsafe").Markup
    parts = COMMAND.split(text)
    return markup("").join(
        markup("<code>{}</code>").format(part) if index % 2 else part for index, part in enumerate(parts)
    )
