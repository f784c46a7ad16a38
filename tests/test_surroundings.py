"""The command where files, streams or the environment are not as they should be: one line, and nothing is lost."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tools
from small_models import source_of, write_tflite

from edgecnn import emulation
from edgecnn.models import save_model
from edgecnn.tflite.graph import read_graph

pytestmark = pytest.mark.slow

EDGECNN = str(Path(sys.executable).with_name("edgecnn"))
QUICK = ("--seconds", "0.01", "--cold", "1")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model in three formats, and data."""
    folder = tmp_path_factory.mktemp("place")
    source = source_of("mnist_cnn")
    save_model(source.model, folder / "m.keras")
    model = write_tflite(source, folder / "m.tflite")
    for name, content in emulation.generate(read_graph(model.read_bytes(), "m"), "m").files.items():
        (folder / name).write_bytes(content)
    images, labels = np.arange(20 * 28 * 28).reshape(20, 28, 28) % 251, np.arange(20) % 10
    images = images.astype(np.uint8)
    np.savez(folder / "d.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    return folder


def run(place: Path, line: str | bytes, **environment: str) -> "subprocess.CompletedProcess[str]":
    """What the shell makes of ``line``, where $E is edgecnn; a hang is an error."""
    wanted = {**os.environ, "E": EDGECNN, **environment}
    return subprocess.run(
        ["sh", "-c", line], cwd=place, env=wanted, capture_output=True, text=True, errors="replace", timeout=100
    )


def refused(done: "subprocess.CompletedProcess[str]", message: str, status: int = 1) -> None:
    assert done.returncode == status, done.stderr
    *_, last = done.stderr.splitlines()
    assert last.startswith("edgecnn: ")
    told = done.stdout if last == "edgecnn: 1 problem, see above" else last  # of files that are measured, a table
    assert message in " ".join(told.split())
    assert "Traceback" not in done.stderr


# Streams


def test_without_stderr_the_results_are_the_same(place: Path) -> None:
    line = "$E check m.tflite --target tflm --json"
    done = run(place, f"{line} 2>&-")
    assert (done.returncode, done.stdout) == (0, run(place, line).stdout)


def test_without_any_stream_files_are_written_and_nothing_else_gets_into_them(place: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    assert run(place, f"$E bench m.tflite {' '.join(QUICK)} --out {out} <&- >&- 2>&-").returncode == 0
    assert json.loads(out.read_bytes())["rows"][0]["artifact"]["file"] == "m.tflite"


def test_a_reader_that_has_enough_is_no_fault(place: Path) -> None:
    done = run(place, "$E inspect m.tflite | head -1")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_full_disk_behind_stdout_is_told(place: Path) -> None:
    done = run(place, "$E check m.tflite --target tflm > /dev/full")
    refused(done, "cannot write stdout or a temporary file: No space left on device")


def test_an_encoding_that_lacks_characters_stops_nothing(place: Path) -> None:
    done = run(place, f"$E bench m.tflite {' '.join(QUICK)}", PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert "? No measured artifact is verified" in done.stdout
    found = run(place, "$E inspect m.tflite --json", PYTHONIOENCODING="ascii")
    assert json.loads(found.stdout)["file"] == "m.tflite"


# Paths


@pytest.mark.parametrize("name", ["\\377.tflite", "a\\nb.tflite", "\\033[31m.tflite"])
def test_names_that_cannot_be_shown_are_refused(name: str, place: Path) -> None:
    done = run(place, f"""$E inspect "$(printf '{name}')" """)
    refused(done, "contains a control character or is not UTF-8; if it is a file name, rename the file", 2)


PATHS = {
    "run {}.toml --out o": "cannot read the configuration",
    "run --data {}.npz --out o": "no data at",
    "run --data d.npz --baseline {}.json --out o": "pipe.json: it is a pipe or a device, not a file",
    "report {}.json": "pipe.json: it is a pipe or a device, not a file",
    "compare {0}.json {0}.json": "pipe.json: it is a pipe or a device, not a file",
    "bench {}.tflite": "no model file at",
    "bench {}.zip": "cannot read the bundle",
    "bench m.tflite --baseline {}.json": "pipe.json: it is a pipe or a device, not a file",
    "inspect {}.onnx": "no model file at",
    "train --data d.npz --out {}.keras --model none.keras": "no model file at",
}


@pytest.mark.parametrize("line", PATHS)
def test_a_pipe_in_the_place_of_a_file_does_not_hang(line: str, place: Path, tmp_path: Path) -> None:
    for ending in ("toml", "npz", "json", "tflite", "zip", "onnx", "keras"):
        os.mkfifo(tmp_path / f"pipe.{ending}")
    done = run(place, f"$E {line.format(tmp_path / 'pipe')}")
    refused(done, PATHS[line], 2 if "toml" in line else 1)


@pytest.mark.parametrize("line", [line for line in PATHS if not line.startswith("train")])
def test_a_file_that_may_not_be_read_is_told(line: str, place: Path, tmp_path: Path) -> None:
    folder = tmp_path / "closed"
    folder.mkdir()
    folder.chmod(0)
    as_user = ""
    if os.getuid() == 0:  # root may read everything
        tools.need("setpriv")
        as_user = "setpriv --bounding-set=-dac_override,-dac_read_search"
    done = run(place, f"{as_user} $E {line.format(folder / 'x')}")
    folder.chmod(0o700)
    refused(done, "Permission denied", 2 if "toml" in line else 1)


def test_a_name_that_is_too_long_is_told(place: Path) -> None:
    refused(run(place, f"$E inspect {'x' * 300}.tflite"), "File name too long")
    refused(run(place, f"$E report {'x/' * 3000}r.json"), "File name too long")


def test_names_of_full_length_can_be_written(place: Path, tmp_path: Path) -> None:
    out = tmp_path / f"{'x' * 250}.json"
    assert run(place, f"$E bench m.tflite {' '.join(QUICK)} --out {out}").returncode == 0
    assert [*tmp_path.iterdir()] == [out]
    kit = tmp_path / ("k" * 255)
    assert run(place, f"$E embed m.tflite --target c99 --out {kit}").returncode == 0
    assert (kit / "kit.json").is_file()


# Environment


@pytest.mark.parametrize("backend", ["garbage", "os.path"])
@pytest.mark.parametrize("line", ["train --data d.npz --out o.keras", "quantize m.keras --data d.npz --out o.keras"])
def test_a_back_end_that_is_none(backend: str, line: str, place: Path) -> None:
    done = run(place, f"$E {line}", KERAS_BACKEND=backend)
    refused(done, f"KERAS_BACKEND is {backend!r}, a back end that Keras cannot import here; unset it, or set it to one")


COMPILERS = {
    "gcc -O0 -DX='a b'": None,
    "": None,
    " ": None,
    "'": 'the variable CC is "\'", which is not a valid command: No closing quotation',
    "no-such-cc -O2": "'no-such-cc' is not installed; install one (Debian: apt install gcc), or set the variable CC",
}


@pytest.mark.parametrize("compiler", COMPILERS)
def test_a_compiler_with_arguments(compiler: str, place: Path) -> None:
    tools.need("gcc")
    done = run(place, f"$E bench m.c {' '.join(QUICK)} --json", CC=compiler)
    if (message := COMPILERS[compiler]) is None:
        assert done.returncode == 0, done.stderr
    else:
        refused(done, message)


@pytest.mark.parametrize("cache", ["/dev/null", "d.npz", "/proc/none"])
def test_a_cache_that_is_no_folder(cache: str, place: Path) -> None:
    done = run(place, "$E train --out o.keras", EDGECNN_CACHE=cache)
    refused(done, "it is in the cache folder, set EDGECNN_CACHE to use another folder for the cache")


def test_variables_of_make_do_not_reach_our_makefile(place: Path) -> None:
    for tool in emulation.missing_tools("cortex-m4"):
        tools.need(tool)
    names = {"BUILD": "x", "OPT": "-O9", "TARGET": "y", "MAKEFLAGS": "-n", "LC_ALL": "de_DE.UTF-8", "MODEL": "z"}
    done = run(place, f"$E bench m.tflite {' '.join(QUICK)} --target cortex-m4 --json", **names)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["emulated"]


ODD = (
    {"TMPDIR": "/none"}, {"HOME": ""}, {"HOME": "/none"}, {"PYTHONPATH": "/dev/null:/none:"}, {"LC_ALL": "xx_YY.none"},
    {"COLUMNS": "0"}, {"COLUMNS": "-5"}, {"COLUMNS": "none"}, {"NO_COLOR": "1"}, {"TERM": "dumb"}, {"TERM": ""},
    {"OMP_NUM_THREADS": "none"}, {"CUDA_VISIBLE_DEVICES": "none"}, {"PYTHONSTARTUP": "/none"},
)  # fmt: skip


@pytest.mark.parametrize("odd", ODD, ids=str)
def test_an_odd_environment_changes_nothing(odd: dict[str, str], place: Path) -> None:
    done = run(place, f"$E bench m.tflite m.c {' '.join(QUICK)} && $E check m.tflite --target tflm", **odd)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


def test_no_place_for_temporary_files_is_told(place: Path) -> None:
    tools.need("arm-none-eabi-gcc")
    code = (
        "import sys, tempfile\ntempfile._candidate_tempdir_list = lambda: ['/none']\n"
        "from edgecnn.cli import main\nsys.argv[0] = 'edgecnn'\nmain()"
    )
    done = run(place, f"{shlex.quote(sys.executable)} -c {shlex.quote(code)} check m.tflite --target cortex-m4")
    refused(done, "No usable temporary directory found in ['/none']")
