"""A report as one self-contained HTML file: no network, no other files.

The page works without its script, which adds sorting and tooltips. The content security policy allows only this
script, by its hash.
"""

import base64
import hashlib
from pathlib import Path
from typing import Any

from edgecnn.optional import require
from edgecnn.report import charts
from edgecnn.report.grid import COMMAND, machine
from edgecnn.report.page import Page, heading, titled

_TEMPLATE = Path(__file__).with_name("template.html.j2")
_SCRIPT = Path(__file__).with_name("page.js")


def render(page: Page) -> bytes:
    """``page`` as UTF-8 HTML.

    Raises:
        MissingExtraError: jinja2 or matplotlib is not installed.
    """
    jinja2 = require("jinja2")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["commands"] = _commands
    template = environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))
    script = _SCRIPT.read_text(encoding="utf-8")
    html: str = template.render(
        page=page,
        title=heading(page),
        drawn=[charts.draw(part) for part in page.parts],
        machine=machine,
        titled=titled,
        script=script,
        script_hash=f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}",
    )
    return html.encode()


def _commands(text: str) -> Any:
    """``text`` escaped, with the commands in backticks as code."""
    markup = require("markupsafe").Markup
    parts = COMMAND.split(text)
    return markup("").join(
        markup("<code>{}</code>").format(part) if index % 2 else part for index, part in enumerate(parts)
    )
