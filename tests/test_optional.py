"""Optional packages are named with their extra."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import tools

from edgecnn import optional
from edgecnn.errors import MissingExtraError
from edgecnn.optional import require


def test_what_is_installed_is_imported() -> None:
    assert require("json.decoder") is sys.modules["json.decoder"]


@pytest.mark.parametrize("module", ["tensorflow", "tf_keras.layers", "matplotlib.pyplot", "PIL.Image", "ethosu.vela"])
def test_a_missing_package_names_its_extra(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    top = module.partition(".")[0]
    for loaded in [name for name in sys.modules if name == top or name.startswith(f"{top}.")]:
        monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.setattr(sys, "meta_path", [Absent(top)])
    extra = {"matplotlib": "report", "tf_keras": "tfmot", "ethosu": "vela"}.get(top, "train")
    with pytest.raises(MissingExtraError) as caught:
        require(module)
    assert str(caught.value) == (
        f"this needs the package {top!r}, which is not installed; run: pip install 'edgecnn[{extra}]'"
    )


def test_a_package_of_no_extra_is_named_alone() -> None:
    with pytest.raises(MissingExtraError, match=r"run: pip install no_such_package$"):
        require("no_such_package.part")


def test_a_broken_package_is_not_called_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_package.py").write_text("import something_it_needs")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="something_it_needs") as caught:
        require("broken_package")
    assert not isinstance(caught.value, MissingExtraError)


def test_every_named_extra_brings_its_package() -> None:
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    for module, extra in optional._EXTRAS.items():
        wanted = {"PIL": "pillow", "ethosu": "ethos-u-vela"}.get(module, module.replace("_", "-"))
        names = [re.split("[=>]", requirement)[0] for requirement in project["optional-dependencies"][extra]]
        assert wanted in names, f"{module} is not in the extra {extra}"


@pytest.mark.parametrize(("setting", "quiet"), [({}, True), ({"ORT_DISABLE_TELEMETRY": "0"}, False)])
def test_onnxruntime_does_not_report_on_its_user_unless_told_to(
    tmp_path: Path, setting: dict[str, str], quiet: bool
) -> None:
    model = Path(__file__).parent / "files" / "tiny-int8.onnx"
    code = f"from pathlib import Path; from edgecnn.runtimes import open_session; open_session(Path({str(model)!r}))"
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path), "HOME": str(tmp_path)}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment | setting)
    assert (list(tmp_path.rglob("deviceid")) == []) == quiet


def test_openvino_does_not_report_on_its_user(tmp_path: Path) -> None:
    tools.need_package("openvino")
    code = "import sys; from edgecnn.optional import require; require('openvino'); print(*sys.modules, sep='\\n')"
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path), "HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], check=True, env=environment, capture_output=True, text=True)
    loaded = done.stdout.splitlines()
    assert "openvino" in loaded
    assert not [name for name in loaded if name.startswith("openvino_telemetry.")]
    assert list(tmp_path.iterdir()) == []


class Absent:
    """A finder that knows nothing, as if ``top`` were not installed."""

    def __init__(self, top: str) -> None:
        self.top = top

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        return None
