"""The kit for Android: its Kotlin compiles, and its C gives TFLM's bytes through JNI, on Java and on 64-bit Arm."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from generated import Model
from tools import need

from edgecnn.embed import embed
from edgecnn.embed.android import _text
from edgecnn.runtimes import open_session, predict

pytestmark = pytest.mark.slow

FILES = Path(__file__).parent / "files" / "android"
JARS = [Path("/usr/share/java") / name for name in ("junit4.jar", "hamcrest.jar", "kotlin-stdlib.jar")]
HOSTILE = '$name ${1 + 1} "quoted" \\n ` /* ö'
FLAGS = ("-std=c99", "-O2", "-Wall", "-Wextra", "-Werror")


def run(*command: object, **given: Any) -> str:
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False, **given)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def jni(kit: Path) -> list[Path]:
    """The files of the library, and where the headers of JNI are."""
    need("javac")
    java = Path(os.path.realpath(shutil.which("javac") or "")).parents[1] / "include"
    return [*(kit / "src/main/cpp").glob("*.c"), Path(f"-I{java}"), Path(f"-I{java / 'linux'}")]


@pytest.fixture(scope="module")
def kit(workspace: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("android") / "kit"
    embed(workspace.path("tflite", "int8"), "android", folder, str(workspace.data_file))
    return folder


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The kit of a model of two vectors."""
    folder = tmp_path_factory.mktemp("other")
    model = Model()
    one, two, total = (model.tensor((1, 4), scale=0.5) for _ in range(3))
    model.operator("ADD", [one, two], total, "AddOptions")
    (folder / "sum.tflite").write_bytes(model.file([one, two], total))
    embed(folder / "sum.tflite", "android", folder / "kit")
    return folder / "kit"


@pytest.fixture(scope="module")
def compiled(kit: Path, other: Path, tmp_path_factory: pytest.TempPathFactory) -> list[object]:
    """Java with the classes of the kit and of its tests, compiled against declarations of Android's."""
    for tool in ("kotlinc", "javac", "cc"):
        need(tool)
    folder = tmp_path_factory.mktemp("classes")
    (folder / "Raw.kt").write_text(
        "import digits_int8_kit.NativeModel\n"
        "fun main() = generateSequence(::readLine).forEach { line ->\n"
        '    println(NativeModel().predict(line.split(" ").map(String::toFloat).toFloatArray())[0].joinToString(" "))\n'
        "}\n"
    )
    (folder / "Label.kt").write_text(f"fun main() = println({_text(HOSTILE)})\n")
    run("javac", "-d", folder / "stubs", *FILES.rglob("*.java"))
    path = ":".join(map(str, [*JARS, folder / "stubs"]))
    run(
        "kotlinc",
        "-nowarn",
        "-cp",
        path,
        "-d",
        folder / "classes",
        *kit.rglob("*.kt"),
        *other.rglob("*.kt"),
        *folder.glob("*.kt"),
    )
    run("cc", *FLAGS, "-shared", "-fPIC", "-o", folder / "libdigits_int8.so", *jni(kit))
    classes = f"{folder / 'classes'}:{kit / 'src/androidTest/resources'}:{path}"
    return ["java", f"-Djava.library.path={folder}", "-Xcheck:jni", "-cp", classes]


def test_java_gives_the_bytes_of_tflite_micro(compiled: list[object]) -> None:
    assert "OK (1 test)" in run(*compiled, "org.junit.runner.JUnitCore", "digits_int8_kit.NativeGoldenTest")


def test_a_wrong_golden_output_is_noticed(compiled: list[object], kit: Path, tmp_path: Path) -> None:
    text = (kit / "src/androidTest/resources/digits_int8.golden").read_text()
    (tmp_path / "digits_int8.golden").write_text(text[:-2] + ("0\n" if text[-2] != "0" else "1\n"))
    *java, classes = compiled
    command = [*java, f"{tmp_path}:{classes}", "org.junit.runner.JUnitCore", "digits_int8_kit.NativeGoldenTest"]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "expected:<0> but was:<" in done.stdout


def test_raw_pixels_give_the_outputs_of_tflite_micro(compiled: list[object], workspace: Any) -> None:
    images = workspace.data.test.images[:20]
    lines = "".join(" ".join(map(str, image.ravel())) + "\n" for image in images)
    found = [line.split() for line in run(*compiled, "RawKt", input=lines).splitlines()]
    wanted = predict(open_session(workspace.path("tflite", "int8"), runtime="tflm"), workspace.data.inputs(images))
    np.testing.assert_array_equal(np.float32(found), wanted)


def test_arm_gives_the_bytes_of_tflite_micro(kit: Path, tmp_path: Path) -> None:
    for tool in ("aarch64-linux-gnu-gcc", "qemu-aarch64"):
        need(tool)
    lines = (kit / "src/androidTest/resources/digits_int8.golden").read_text().splitlines()
    sizes = [f"-D{end}={len(line.split())}" for end, line in zip(("IN", "OUT"), lines, strict=False)]
    invoke = "-DINVOKE=Java_digits_1int8_1kit_NativeModel_invoke"
    program = tmp_path / "program"
    run("aarch64-linux-gnu-gcc", *FLAGS, "-static", *sizes, invoke, "-o", program, FILES / "fake_jni.c", *jni(kit))
    assert run("qemu-aarch64", program, input="\n".join(lines[::2])).splitlines() == lines[1::2]
    assert len(lines) == 8


def test_labels_are_text(compiled: list[object]) -> None:
    java, *rest = compiled
    assert run(java, "-Dfile.encoding=UTF-8", "-Dstdout.encoding=UTF-8", *rest, "LabelKt") == HOSTILE + "\n"


def test_only_a_model_of_pictures_has_a_camera(kit: Path, other: Path) -> None:
    assert (kit / "examples" / "Camera.kt").is_file()
    assert not (other / "examples").exists()
    assert "Camera.kt" in (kit / "README.md").read_text()
    assert "Camera.kt" not in (other / "README.md").read_text()
