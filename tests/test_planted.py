"""No command runs what lies in the current folder: neither modules, nor programs, nor settings."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from planted import plant
from tools import need

from edgecnn.data import DataSet

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
EDGECNN = str(Path(sys.executable).with_name("edgecnn"))  # ``python -m edgecnn`` looks into the current folder itself
QUICK = ("--seconds", "0.02", "--cold", "1")
MODEL = "../run/artifacts/mnist_cnn-int8"
DATA = ("--data", "../digits.npz")


class Place:
    """A folder full of planted files, in which commands are run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "planted"
        self.marker = plant(self.folder)

    def run(self, *command: str) -> "subprocess.CompletedProcess[str]":
        """What ``command`` came to; it must have run nothing that is here."""
        safe = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        done = subprocess.run(command, cwd=self.folder, env=safe, capture_output=True, text=True, check=False)
        assert not self.marker.exists(), self.marker.read_text()
        return done


@pytest.fixture(scope="module")
def place(mnist: DataSet, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A run, made in a folder full of planted files."""
    folder = tmp_path_factory.mktemp("planted")
    place = Place(folder)
    train, test = mnist.train, mnist.test
    np.savez(
        folder / "digits.npz",
        x_train=train.images[:300], y_train=train.labels[:300], x_test=test.images[:50], y_test=test.labels[:50],
    )  # fmt: skip
    options = ["--epochs", "1", "--qat-epochs", "1", "--tune-seconds", "0.2", *DATA, *QUICK]
    done = place.run(EDGECNN, "run", "--schemes", "float32,int8,int8-qat", *options, "--out", "../run")
    assert (folder / "run" / "report.html").is_file(), done.stderr
    return place


@pytest.mark.parametrize("command", [(sys.executable, "-c", "import threading"), ("./cc",), ("make", "--silent")])
def test_what_is_planted_tells(command: tuple[str, ...], tmp_path: Path) -> None:
    place = Place(tmp_path)
    with pytest.raises(AssertionError, match=r"threading|program cc|GNUmakefile"):
        place.run(*command)


@pytest.mark.parametrize(
    "line",
    [
        f"train {' '.join(DATA)} --epochs 1 --out ../again.keras",
        f"quantize ../run/model.keras {' '.join(DATA)} --epochs 1 --out ../again.keras",
        f"export ../run/model.keras {' '.join(DATA)} --schemes int8 --tune --out ../exported",
        f"verify {MODEL}.tflite {MODEL}.onnx {MODEL}.c --model ../run/model.keras {' '.join(DATA)}",
        f"diagnose stages {MODEL}.tflite --model ../run/model.keras {' '.join(DATA)}",
        f"diagnose layers {MODEL}.tflite --model ../run/model.keras {' '.join(DATA)}",
        f"bench {MODEL}.tflite {MODEL}.onnx {MODEL}.c ../run/model.keras {' '.join((*DATA, *QUICK))}",
        f"bench {MODEL}.tflite --runtimes tflm {' '.join(QUICK)}",
        f"diagnose noise {MODEL}.tflite {' '.join(QUICK)}",
        f"check {MODEL}.tflite --target tflm",
        f"check {MODEL}.tflite --target edgetpu",
        f"check {MODEL}.tflite --target ethos-u55-128",
        f"inspect {MODEL}.tflite",
        f"inspect {MODEL}.onnx",
        f"embed {MODEL}.tflite --target c99 --out ../c99",
        f"embed {MODEL}.tflite --target tflm --out ../tflm",
        f"embed {MODEL}.tflite --target arduino --out ../arduino",
        f"embed {MODEL}.tflite --target cortex-m4 --out ../cortex-m4",
        f"embed {MODEL}.tflite --target linux --out ../linux {' '.join(DATA)}",
        f"bundle ../run {' '.join(DATA)} --out ../bundle.zip",
        "report ../run/report.json --out ../report",
        "compare ../run/report.json ../run/report.json",
    ],
)
def test_no_command_runs_it(line: str, place: Place) -> None:
    done = place.run(EDGECNN, *line.split())
    assert done.returncode in (0, 1), done.stderr
    assert "edgecnn: cannot" not in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("tool", "line"),
    [
        ("arm-none-eabi-gcc", f"check {MODEL}.tflite --target cortex-m4"),
        ("qemu-system-arm", f"bench {MODEL}.tflite {' '.join(QUICK)} --target cortex-m4"),
        ("qemu-x86_64", "emulate haswell"),
        ("qemu-x86_64", f"verify {MODEL}.tflite --model ../run/model.keras {' '.join(DATA)} --on haswell --images 2"),
    ],
)
def test_nor_with_a_compiler_or_an_emulator(tool: str, line: str, place: Place) -> None:
    need(tool)
    done = place.run(EDGECNN, *line.split())
    assert done.returncode in (0, 1), done.stderr
    assert "missing" not in done.stdout


def test_nor_do_kits(place: Place) -> None:
    for target in ("c99", "linux"):
        place.run(EDGECNN, "embed", f"{MODEL}.tflite", "--target", target, *DATA, "--out", f"../kit-{target}")
    assert place.run("make", "-C", "../kit-c99", "test").returncode == 0
    done = place.run(sys.executable, "../kit-linux/run.py", "../kit-linux/mnist_cnn-int8.tflite", "--check")
    assert done.returncode == 0, done.stderr


def test_settings_of_matplotlib_change_no_chart(place: Place, tmp_path: Path) -> None:
    run = place.folder.parent / "run"
    for folder in (place.folder, tmp_path):
        out = tmp_path / folder.name
        command = [EDGECNN, "report", str(run / "report.json"), "--out", str(out)]
        subprocess.run(command, cwd=folder, capture_output=True, check=True)
    pages = {(tmp_path / folder.name / "report.html").read_bytes() for folder in (place.folder, tmp_path)}
    assert len(pages) == 1


def test_every_python_that_is_started_keeps_the_current_folder_out() -> None:
    """Those that no test here starts, too."""
    started = re.compile(r"\[(?:sys\.executable|device\.python|python), (?!\"-[IP]\")(?!\[)[^\]]*")
    for folder in ("edgecnn", "benchmarks", "export"):
        for path in (ROOT / folder).rglob("*.py"):
            assert started.findall(path.read_text()) == [], path
