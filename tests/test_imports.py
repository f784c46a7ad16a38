"""The layers of edgecnn: imports point down only, so there is no import cycle."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "edgecnn"

# From the top down. A part is a module or a package at the top level of edgecnn; "edgecnn" is its __init__.py, which
# loads names at first use. Parts of the same layer do not import each other.
LAYERS = (
    "edgecnn __main__",
    "cli",
    "exporting notebook pipeline",
    "bundle diagnosis inspection tuning",
    "report",
    "measure",
    "check embed",
    "emulation",
    "device verification vela",
    "formats inference stamps",
    "artifacts",
    "runtimes",
    "quantization",
    "training",
    "models",
    "frozen",
    "saved_model",
    "data",
    "tflite",
    "arrays environment onnx_verifier progress temporary worker",
    "config tasks",
    "own_code records",
    "files optional processor registry",
    "errors quiet",
    "samples text",
)
LAYER_OF = {part: -number for number, parts in enumerate(LAYERS) for part in parts.split()}


def parts(package: Path) -> dict[str, list[Path]]:
    """The files of each part. Kits are copied to devices and import nothing of edgecnn."""
    found: dict[str, list[Path]] = {}
    for path in sorted(package.rglob("*.py")):
        names = path.relative_to(package).with_suffix("").parts
        if "kits" not in names:
            found.setdefault("edgecnn" if names == ("__init__",) else names[0], []).append(path)
    return found


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """Line and part of every import of edgecnn in a file, those in functions and under ``TYPE_CHECKING`` too."""
    for node in ast.walk(ast.parse(path.read_text())):
        modules: list[str] = []
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}:{node.lineno}: imports are absolute"
            # "from edgecnn import artifacts" names a part, "from edgecnn import __version__" none
            alone = node.module == "edgecnn"
            modules = [f"edgecnn.{alias.name}" if alone else node.module or "" for alias in node.names]
        for module in modules:
            first, _, rest = module.partition(".")
            part = rest.partition(".")[0]
            if first == "edgecnn":
                yield node.lineno, part if part in LAYER_OF else "edgecnn"


def upward(package: Path) -> list[str]:
    """Imports that do not point down, each with its place."""
    return [
        f"{path.relative_to(package.parent)}:{line}: {part} imports {other}"
        for part, paths in parts(package).items()
        for path in paths
        for line, other in imported(path)
        if other != part and LAYER_OF[other] >= LAYER_OF[part]
    ]


def test_every_part_has_a_layer() -> None:
    assert parts(PACKAGE).keys() == LAYER_OF.keys()


def test_imports_point_down() -> None:
    assert upward(PACKAGE) == []


@pytest.mark.parametrize(
    ("file", "code", "found"),
    [
        ("tflite/graph.py", "from edgecnn.formats.c99 import to_c", "2: tflite imports formats"),
        ("runtimes/ort.py", "def later():\n    import edgecnn.verification", "3: runtimes imports verification"),
        ("check.py", "from edgecnn import artifacts, embed", "2: check imports embed"),
        ("files.py", "from edgecnn import __version__", "2: files imports edgecnn"),
    ],
)
def test_an_import_upwards_is_found(tmp_path: Path, file: str, code: str, found: str) -> None:
    planted = tmp_path / "edgecnn" / file
    planted.parent.mkdir(parents=True)
    planted.write_text(f"import os\n{code}\n")
    assert upward(tmp_path / "edgecnn") == [f"edgecnn/{file}:{found}"]
