"""The public surface: names, documentation, and what importing them costs."""

import ast
import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import edgecnn

HEAVY = ("tensorflow", "keras", "tf_keras", "onnx", "onnxruntime", "ai_edge_litert", "matplotlib", "jinja2")


def loaded_by(code: str) -> set[str]:
    """Top-level modules that are loaded after ``code`` ran in a fresh interpreter."""
    script = f"{code}\nimport sys\nprint('loaded:', *sorted({{name.partition('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    return set(done.stdout.split("loaded:")[1].split())


def test_formats_load_tensorflow_only_when_it_is_silenced() -> None:
    """``require_tensorflow`` silences it first; imported elsewhere, it prints a page."""
    assert loaded_by("import edgecnn.formats, edgecnn.exporting").isdisjoint({"tensorflow", "keras"})


def test_public_names() -> None:
    assert edgecnn.__all__ == [
        "FORMATS",
        "MODELS",
        "RUNTIMES",
        "SCHEMES",
        "DataSet",
        "EdgecnnError",
        "RunConfig",
        "bench",
        "build_model",
        "export",
        "inspect",
        "load_artifact",
        "load_baseline",
        "load_data",
        "load_model",
        "open_session",
        "predict",
        "quantize",
        "record_baseline",
        "run",
        "save_model",
        "train",
        "use_custom",
        "verify",
        "verify_against",
        "write_report",
    ]
    assert dir(edgecnn) == sorted(edgecnn.__all__)


@pytest.mark.parametrize("name", edgecnn.__all__)
def test_public_name_is_there_and_documented(name: str) -> None:
    value = getattr(edgecnn, name)
    module, _, attribute = edgecnn._PUBLIC[name].partition(":")
    assert value is getattr(importlib.import_module(module), attribute)
    if callable(value):
        assert (inspect.getdoc(value) or "").strip()
        assert value.__module__.partition(".")[0] == "edgecnn"


def test_type_checkers_see_the_same_names() -> None:
    tree = ast.parse(Path(edgecnn.__file__).read_text())
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    imported = {
        alias.asname or alias.name: f"{node.module}:{alias.name}"
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert imported == edgecnn._PUBLIC
    assert sorted(edgecnn._PUBLIC) == sorted(edgecnn.__all__)


def test_unknown_name() -> None:
    with pytest.raises(AttributeError, match="module 'edgecnn' has no attribute 'trian'"):
        edgecnn.trian  # noqa: B018


def test_import_loads_nothing_heavy() -> None:
    loaded = loaded_by("import edgecnn")
    assert "edgecnn" in loaded
    assert not loaded & {*HEAVY, "numpy", "rich", "click", "msgspec"}


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["export", "--help"], ["--version"]])
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    loaded = loaded_by(
        f"import sys\nfrom edgecnn.cli import main\nsys.argv = ['edgecnn', *{arguments}]\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code, end.code"
    )
    assert "click" in loaded
    assert not loaded & {*HEAVY, "numpy"}


def test_error_classes_are_all_in_the_tree_drawn_at_the_top() -> None:
    from edgecnn import errors

    classes = [value for value in vars(errors).values() if inspect.isclass(value)]
    assert len(classes) > 10
    for error in classes:
        assert issubclass(error, errors.EdgecnnError)
        assert error.__name__ in (errors.__doc__ or "")
        assert error.exit_status == (2 if issubclass(error, errors.ConfigError) else 1)
