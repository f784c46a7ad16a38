"""docs/tutorial.ipynb does what it says: every cell runs, and every kit passes its test."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tools import need

pytestmark = pytest.mark.slow

NOTEBOOK = Path(__file__).parents[1] / "docs" / "tutorial.ipynb"


def cells() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    return found


def as_python(source: str) -> str:
    """A cell as Jupyter runs it: lines with ! in a shell, and the value of a last line is shown."""
    lines = source.splitlines()
    if re.fullmatch(r"[a-z]\w*(\..*)?|next\(.*", lines[-1]):
        lines[-1] = f"print(({lines[-1]})._repr_html_())"
    return "\n".join(f"_shell({line[1:]!r})" if line.startswith("!") else line for line in lines)


def test_every_cell_runs(tmp_path: Path) -> None:
    for tool in ("cc", "make", "clang", "node"):
        need(tool)
    shell = "import subprocess\ndef _shell(line): print(subprocess.run(line, shell=True, check=True, text=True, "
    program = [f"{shell}stdout=subprocess.PIPE).stdout, flush=True)"]
    program += [as_python("".join(cell["source"])) for cell in cells() if cell["cell_type"] == "code"]
    (tmp_path / "tutorial.py").write_text("\n\n".join(program), encoding="utf-8")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        [sys.executable, "tutorial.py"], cwd=tmp_path, env=os.environ | {"PATH": path}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    accuracy = re.search(r"float accuracy (\S+)", done.stdout)
    assert accuracy is not None
    assert float(accuracy[1]) > 0.9
    assert done.stdout.count('<div class="edgecnn">') == 3
    assert "fits" in done.stdout
    assert re.search(r"ok: \d golden inputs .* every output byte as in TensorFlow Lite Micro", done.stdout)
    assert re.search(r"ok: (\d) of \1 golden inputs, every output byte as in TensorFlow Lite Micro", done.stdout)
    assert (tmp_path / "kits" / "android" / "examples" / "Camera.kt").is_file()


def test_no_outputs_are_kept() -> None:
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells())


def test_its_links_lead_somewhere() -> None:
    text = "".join(line for cell in cells() for line in cell["source"] if cell["cell_type"] == "markdown")
    links = re.findall(r"\]\(([^)#]+)", text)
    assert links
    assert all((NOTEBOOK.parent / link).is_file() for link in links)
