"""The floors of edgecnn: imports point down only, so that there is no circle either."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "edgecnn"

# From the top down. A room is a module or a package at the top level of edgecnn; "edgecnn" is its __init__.py, whose
# names are loaded when they are first used. Rooms of one floor do not import each other.
FLOORS = (
    "edgecnn __main__",
    "cli",
    "pipeline",
    "bundle diagnosis inspection tuning",
    "report",
    "bench",
    "check embed",
    "emulation",
    "device verify",
    "formats inference",
    "artifacts",
    "runtimes",
    "quantization",
    "training",
    "models",
    "data",
    "tflite",
    "arrays environment onnx_verifier progress temporary worker",
    "config",
    "records",
    "files optional processor registry",
    "errors quiet",
    "text",
)
FLOOR_OF = {room: -number for number, rooms in enumerate(FLOORS) for room in rooms.split()}


def rooms(package: Path) -> dict[str, list[Path]]:
    """The files of each room. Kits are copied to devices and import nothing of edgecnn."""
    found: dict[str, list[Path]] = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package).with_suffix("").parts
        if "kits" not in parts:
            found.setdefault("edgecnn" if parts == ("__init__",) else parts[0], []).append(path)
    return found


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """Line and room of every import of edgecnn in a file, those in functions and under ``TYPE_CHECKING`` too."""
    for node in ast.walk(ast.parse(path.read_text())):
        modules: list[str] = []
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}:{node.lineno}: imports are absolute"
            # "from edgecnn import artifacts" names a room, "from edgecnn import __version__" none
            alone = node.module == "edgecnn"
            modules = [f"edgecnn.{alias.name}" if alone else node.module or "" for alias in node.names]
        for module in modules:
            first, _, rest = module.partition(".")
            room = rest.partition(".")[0]
            if first == "edgecnn":
                yield node.lineno, room if room in FLOOR_OF else "edgecnn"


def upward(package: Path) -> list[str]:
    """Imports that do not point down, each with its place."""
    return [
        f"{path.relative_to(package.parent)}:{line}: {room} imports {other}"
        for room, paths in rooms(package).items()
        for path in paths
        for line, other in imported(path)
        if other != room and FLOOR_OF[other] >= FLOOR_OF[room]
    ]


def test_every_room_has_a_floor() -> None:
    assert rooms(PACKAGE).keys() == FLOOR_OF.keys()


def test_imports_point_down() -> None:
    assert upward(PACKAGE) == []


@pytest.mark.parametrize(
    ("file", "code", "found"),
    [
        ("tflite/graph.py", "from edgecnn.formats.c99 import to_c", "2: tflite imports formats"),
        ("runtimes/ort.py", "def later():\n    import edgecnn.verify", "3: runtimes imports verify"),
        ("check.py", "from edgecnn import artifacts, embed", "2: check imports embed"),
        ("files.py", "from edgecnn import __version__", "2: files imports edgecnn"),
    ],
)
def test_an_import_upwards_is_found(tmp_path: Path, file: str, code: str, found: str) -> None:
    planted = tmp_path / "edgecnn" / file
    planted.parent.mkdir(parents=True)
    planted.write_text(f"import os\n{code}\n")
    assert upward(tmp_path / "edgecnn") == [f"edgecnn/{file}:{found}"]
