"""The kit for Python: pip compiles it, and it gives TFLM's bytes in a fresh environment with numpy alone."""

import json
import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from generated import Model
from tools import need

from edgecnn.embed import embed
from edgecnn.errors import ArtifactError
from edgecnn.records import Kit, read_record
from edgecnn.runtimes import open_session, predict

pytestmark = pytest.mark.slow

PLATFORM = "--config-settings=--build-option=--plat-name=linux_aarch64"


def built(kit: Path, folder: Path, *options: str, **environment: str) -> Path:
    """The wheel that pip builds of ``kit`` into ``folder``, here without downloading its tools."""
    need("cc")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-build-isolation", "--no-deps", "--no-index"]
    done = subprocess.run(
        [*command, "--wheel-dir", folder, *options, kit], env=os.environ | environment, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (wheel,) = folder.glob("*.whl")
    return wheel


def unpacked(wheel: Path, folder: Path) -> Path:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def python(program: Path, *arguments: object, **given: Any) -> "subprocess.CompletedProcess[Any]":
    return subprocess.run([program, "-I", *map(str, arguments)], capture_output=True, check=False, **given)


@pytest.fixture(scope="module")
def kit(workspace: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel") / "kit"
    embed(workspace.path("tflite", "int8"), "wheel", folder, str(workspace.data_file))
    return folder


def test_the_readme_says_how_much_memory_the_model_has(kit: Path) -> None:
    arena = read_record(kit / "kit.json", Kit).arena_bytes
    assert f"a static arena of {arena:,} bytes" in (kit / "README.md").read_text()


@pytest.fixture(scope="module")
def wheel(kit: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(kit, tmp_path_factory.mktemp("wheels"))


@pytest.fixture(scope="module")
def fresh(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment of its own in which the kit is installed, and numpy."""
    folder = tmp_path_factory.mktemp("fresh")
    venv.create(folder, symlinks=True)
    program = folder / "bin" / "python"
    (site,) = folder.glob("lib/python*/site-packages")
    for part in Path(np.__file__).parents[1].glob("numpy*"):
        (site / part.name).symlink_to(part)
    pip = [sys.executable, "-m", "pip", "--python", program, "install", "--quiet", "--no-index", wheel]
    done = subprocess.run(pip, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return program


def test_a_fresh_environment_gives_the_bytes_of_tflite_micro(fresh: Path, kit: Path) -> None:
    """Also in the kit's own folder, whose sources are not the installed package."""
    for folder in (fresh.parent, kit):
        done = subprocess.run([fresh, "-m", "digits_int8"], cwd=folder, capture_output=True, text=True, check=False)
        assert done.stdout == "ok: 4 of 4 golden inputs, every output byte as in TensorFlow Lite Micro\n", done.stderr
        assert done.returncode == 0


def test_raw_pixels_give_the_outputs_of_tflite_micro_in_every_thread(
    fresh: Path, workspace: Any, tmp_path: Path
) -> None:
    images = workspace.data.test.images[:300]
    np.save(tmp_path / "images.npy", images)
    script = """
import sys
from concurrent.futures import ThreadPoolExecutor
import numpy as np, digits_int8
images = np.load(sys.argv[1])
with ThreadPoolExecutor(8) as pool:
    parts = list(pool.map(digits_int8.predict, np.array_split(images.astype(sys.argv[3]), 30)))
np.savez(sys.argv[2], outputs=np.concatenate(parts), labels=digits_int8.labels)
"""
    wanted = predict(open_session(workspace.path("tflite", "int8"), runtime="tflm"), workspace.data.inputs(images))
    for dtype in ("uint8", "float64"):
        done = python(fresh, "-c", script, tmp_path / "images.npy", tmp_path / "found.npz", dtype)
        assert done.returncode == 0, done.stderr.decode()
        with np.load(tmp_path / "found.npz") as found:
            assert found["outputs"].dtype == np.float32
            np.testing.assert_array_equal(found["outputs"], wanted)
            assert tuple(found["labels"]) == workspace.data.class_names


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("predict(np.zeros((28, 28, 1)))", "the input 'input' takes (n, 28, 28, 1), got (28, 28, 1)"),
        ("predict(np.full((1, 28, 28, 1), np.nan))", "the input 'input' has values that are not finite"),
        ("predict()", "the model takes 1 arrays, got 0"),
        ("run(np.zeros((1, 784)))", "the model takes int8 (n, 784), got float64 (1, 784)"),
    ],
)
def test_wrong_values_are_said(call: str, message: str, fresh: Path) -> None:
    done = python(fresh, "-c", f"import numpy as np; from digits_int8 import *; {call}", text=True)
    assert done.stderr.splitlines()[-1] == f"ValueError: {message}"


def test_no_images_are_no_error(fresh: Path) -> None:
    code = "import numpy as np; from digits_int8 import *; print(predict(np.zeros((0, 28, 28, 1))).shape)"
    assert python(fresh, "-c", code, text=True).stdout == "(0, 10)\n"


def test_a_changed_weight_is_noticed(wheel: Path, fresh: Path, tmp_path: Path) -> None:
    site = unpacked(wheel, tmp_path)
    library = site / "digits_int8" / "model.so"
    code = bytearray(library.read_bytes())
    inside = slice(len(code) // 4, len(code) // 2, 16)  # in the weights of the first dense layer, most of the file
    code[inside] = bytes(byte ^ 0x40 for byte in code[inside])
    library.write_bytes(code)
    done = subprocess.run([fresh, "-m", "digits_int8"], cwd=site, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "of 4 golden inputs give the bytes of TensorFlow Lite Micro; install the package again" in done.stderr


def test_several_ends_and_state(tmp_path: Path) -> None:
    """Outputs: the sum of the inputs, and what the first input was before."""
    model = Model()
    one, two, total, before, same = (model.tensor((1, 4), scale=0.5) for _ in range(5))
    handle = model.tensor((), "resource")
    model.operator("CALL_ONCE", [], (), "CallOnceOptions", initSubgraphIndex=1)
    model.operator("VAR_HANDLE", [], handle, "VarHandleOptions", container="", sharedName="state")
    model.operator("READ_VARIABLE", [handle], before)
    model.operator("RESHAPE", [before, model.tensor((2,), "int32", data=[1, 4])], same, "ReshapeOptions")
    model.operator("ADD", [one, two], total, "AddOptions")
    model.operator("ASSIGN_VARIABLE", [handle, one], ())
    with model.subgraph():
        handle, start = model.tensor((), "resource"), model.tensor((1, 4), scale=0.5, data=[10, 20, 30, 40])
        model.operator("VAR_HANDLE", [], handle, "VarHandleOptions", container="", sharedName="state")
        model.operator("ASSIGN_VARIABLE", [handle, start], ())
    (tmp_path / "both.tflite").write_bytes(model.file([one, two], [total, same]))
    embed(tmp_path / "both.tflite", "wheel", tmp_path / "kit")
    assert "`predict(*arrays)`. It returns a tuple of 2 arrays." in (tmp_path / "kit" / "README.md").read_text()
    site = unpacked(built(tmp_path / "kit", tmp_path / "wheels"), tmp_path / "site")
    code = """
import json, sys
import numpy as np
sys.path.insert(0, sys.argv[1])
import both
first, second = np.arange(8).reshape(2, 4), np.full((2, 4), 2.5)
found = []
for _ in range(2):
    found.append([part.tolist() for part in both.predict(first, second)])
    both.reset()
print(json.dumps(found))
"""
    done = python(Path(sys.executable), "-c", code, site, text=True)
    wanted = [[[2.5, 3.5, 4.5, 5.5], [6.5, 7.5, 8.5, 9.5]], [[5.0, 10.0, 15.0, 20.0], [0.0, 1.0, 2.0, 3.0]]]
    assert json.loads(done.stdout) == [wanted, wanted], done.stderr
    done = subprocess.run([sys.executable, "-m", "both"], cwd=site, capture_output=True, text=True, check=False)
    assert done.stdout.startswith("ok: 32 of 32 golden inputs"), done.stderr


@pytest.mark.usefixtures("wheel")
def test_a_wheel_for_another_platform_is_compiled_for_it(kit: Path, tmp_path: Path) -> None:
    """Also after one for this machine was built in the same folder; test_processors.py runs one."""
    need("aarch64-linux-gnu-gcc")
    wheel = built(kit, tmp_path, PLATFORM, CC="aarch64-linux-gnu-gcc")
    assert wheel.name.endswith("-py3-none-linux_aarch64.whl")
    library = unpacked(wheel, tmp_path) / "digits_int8" / "model.so"
    assert int.from_bytes(library.read_bytes()[18:20], "little") == 183  # EM_AARCH64


@pytest.mark.usefixtures("wheel")
def test_a_kit_that_was_built_can_be_replaced(kit: Path, workspace: Any) -> None:
    embed(workspace.path("tflite", "int8"), "wheel", kit, str(workspace.data_file))


@pytest.mark.parametrize("name", ["json", "numpy", "lambda"])
def test_a_name_that_python_uses_is_refused(name: str, workspace: Any, tmp_path: Path) -> None:
    model = tmp_path / f"{name}.tflite"
    model.write_bytes(workspace.path("tflite", "int8").read_bytes())
    with pytest.raises(ArtifactError, match=f"would become the package {name}, a name that Python uses; rename"):
        embed(model, "wheel", tmp_path / "kit")
