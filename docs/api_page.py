"""Writes docs/api.md from the docstrings of the public names: python docs/api_page.py"""

import inspect
import re
from pathlib import Path
from typing import Any

import edgecnn
from edgecnn.config import description_of

_WIDTH = 120
PAGE = Path(__file__).with_name("api.md")
_SECTIONS = {
    "Everything at once": ("run", "RunConfig"),
    "Data and models": ("load_data", "DataSet", "build_model", "load_model", "save_model", "use_custom"),
    "Steps": ("train", "quantize", "export", "verify", "bench", "record_baseline", "load_baseline", "write_report"),
    "Files": ("load_artifact", "open_session", "predict", "inspect", "verify_against"),
    "Names": ("MODELS", "SCHEMES", "FORMATS", "RUNTIMES"),
    "Errors": ("EdgecnnError",),
}
_START = """# Python functions

Made from the docstrings by `docs/api_page.py`. Functions take a Keras model or the path of its file, and data as a
name, a path, or four arrays:

```python
import edgecnn

data = (x_train, y_train, x_test, y_test)
quantized, history = edgecnn.quantize(model, data)
rows = edgecnn.export(model, data, "files", qat=quantized, schemes=("float32", "int8-qat"))
files = [f"files/{row.file}" for row in rows]
for parity in edgecnn.verify(files, data, model=model, qat=quantized):
    print(parity.artifact, parity.accuracy.value, parity.violations)
report = edgecnn.bench(files, data)
edgecnn.write_report(report, "report")
```

In a notebook, a `Report`, `Measurement`, `Parity` or `Inspection` is shown as a table and a picture.

Functions raise `EdgecnnError`; a file that cannot be made or measured is a `Failure` among the rows instead.
"""


def page() -> str:
    """The whole page."""
    named = [name for names in _SECTIONS.values() for name in names]
    assert sorted(named) == sorted(edgecnn.__all__)
    parts = [_START]
    for title, names in _SECTIONS.items():
        parts.append(f"\n## {title}\n")
        parts += [_entry(name, getattr(edgecnn, name)) for name in names]
    return "".join(parts)


def _entry(name: str, value: Any) -> str:
    if not callable(value):
        return f"\n### {name}\n\nA mapping of {', '.join(f'`{key}`' for key in value)}.\n"
    code = f"\n```python\n{_signature(name, value)}\n```\n" if inspect.isfunction(value) else ""
    fields = "" if value is not edgecnn.RunConfig else _fields(value)
    return f"\n### {name}\n{code}\n{_text(inspect.getdoc(value) or '')}\n{fields}"


def _fields(config: Any) -> str:
    """The settings of a run as a table."""
    rows = [
        f"| `{name}` | `{getattr(config(), name)!r}` | {description_of(name).strip()} |\n"
        for name in config.__struct_fields__
    ]
    return "\n| field | default | |\n|---|---|---|\n" + "".join(rows)


def _signature(name: str, function: Any) -> str:
    """The call, with one argument a line if it is long."""
    lines, starred = [], False
    for argument in inspect.signature(function).parameters.values():
        if argument.kind is argument.KEYWORD_ONLY and not starred:
            lines.append("*")
            starred = True
        default = "" if argument.default is argument.empty else f"={argument.default!r}".replace("'", '"')
        lines.append(f"{argument.name}{default}")
    whole = f"edgecnn.{name}({', '.join(lines)})"
    if len(whole) <= _WIDTH:
        return whole
    return "\n".join([f"edgecnn.{name}(", *(f"    {line}," for line in lines), ")"])


def _text(doc: str) -> str:
    """A docstring in Markdown: sections as bold words, their entries as lists, code in single backquotes."""
    doc = re.sub(r"``([^`]+)``", r"`\1`", doc)
    lines: list[str] = []
    inside = False
    for line in doc.splitlines():
        if re.fullmatch(r"(Args|Returns|Raises|Attributes):", line):
            inside = line != "Returns:"
            lines += [f"**{line[:-1]}**", ""]
        elif inside and re.match(r"    \w[\w, ]*: ", line):
            name, _, rest = line.strip().partition(": ")
            lines.append(f"- `{name}`: {rest}")
        elif line.startswith("    "):
            lines.append(f"  {line.strip()}" if inside else line.strip())
        else:
            inside = inside and not line
            lines.append(line)
    return "\n".join(lines)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
