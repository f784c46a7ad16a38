"""A report as one self-contained HTML file: no network, no other files.

The page works without its scripts: one adds sorting and tooltips, one lets the model run. The content security policy
allows only these scripts, by their hashes.
"""

import base64
import hashlib
from pathlib import Path
from typing import Any

from edgecnn.files import kits_folder
from edgecnn.optional import require
from edgecnn.records import Demo
from edgecnn.report import charts
from edgecnn.report.grid import COMMAND, machine
from edgecnn.report.page import Page, heading, titled

_TEMPLATE = Path(__file__).with_name("template.html.j2")
_SCRIPT = Path(__file__).with_name("page.js")
_DEMO_SCRIPT = Path(__file__).with_name("demo.js")


def render(page: Page, demo: Demo | str | None = None) -> bytes:
    """``page`` as UTF-8 HTML, with a section to try the model ``demo``, or the reason why there is none.

    Raises:
        MissingExtraError: jinja2 or matplotlib is not installed.
    """
    jinja2 = require("jinja2")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["commands"] = _commands
    template = environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))
    scripts = [_SCRIPT.read_text(encoding="utf-8")]
    if isinstance(demo, Demo):
        draw = (kits_folder() / "web" / "draw.js").read_text(encoding="utf-8")
        scripts.append(f"{demo.script}{draw}{_DEMO_SCRIPT.read_text(encoding='utf-8')}")
    html: str = template.render(
        page=page,
        title=heading(page),
        drawn=[charts.draw(part) for part in page.parts],
        machine=machine,
        titled=titled,
        demo=demo,
        scripts=scripts,
        hashes=[base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts],
    )
    return html.encode()


def _commands(text: str) -> Any:
    """``text`` escaped, with the commands in backticks as code."""
    markup = require("markupsafe").Markup
    parts = COMMAND.split(text)
    return markup("").join(
        markup("<code>{}</code>").format(part) if index % 2 else part for index, part in enumerate(parts)
    )
