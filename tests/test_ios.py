"""The kit for iOS: clang imports its module and runs its C on 64-bit Arm; there is no Swift compiler here."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from tools import need

from edgecnn.embed import embed

pytestmark = pytest.mark.slow

PROGRAM = """
@import digits_int8_c;
int printf(const char *format, ...);
int scanf(const char *format, ...);
int main(void) {
    static int8_t given[DIGITS_INT8_INPUT_SIZE], found[DIGITS_INT8_OUTPUT_SIZE];
    int value;
    for (int count = 0; scanf("%d", &value) == 1;) {
        given[count++] = (int8_t)value;
        if (count < DIGITS_INT8_INPUT_SIZE) continue;
        count = 0;
        digits_int8_invoke(given, found);
        for (int i = 0; i < DIGITS_INT8_OUTPUT_SIZE; ++i) printf("%s%d", i ? " " : "", found[i]);
        printf("\\n");
    }
}
"""


@pytest.fixture(scope="module")
def kit(workspace: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ios") / "kit"
    embed(workspace.path("tflite", "int8"), "ios", folder, str(workspace.data_file))
    return folder


def test_its_module_gives_the_bytes_of_tflite_micro_on_arm(kit: Path, tmp_path: Path) -> None:
    for tool in ("clang", "aarch64-linux-gnu-gcc", "qemu-aarch64"):
        need(tool)
    (tmp_path / "main.m").write_text(PROGRAM)
    sources = kit / "Sources" / "digits_int8_c"
    clang = [
        "clang", "--target=aarch64-linux-gnu", "-O2", "-Wall", "-Werror", "-fmodules",
        f"-fmodules-cache-path={tmp_path}", "-isystem", "/usr/aarch64-linux-gnu/include", f"-I{sources / 'include'}",
    ]  # fmt: skip
    for command in (
        [*clang, "-c", "main.m", "-o", "main.o"],
        [*clang, "-std=c99", "-c", sources / "digits_int8.c", "-o", "model.o"],
        ["aarch64-linux-gnu-gcc", "-static", "main.o", "model.o", "-o", "program"],
    ):
        done = subprocess.run([*map(str, command)], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    lines = (kit / "Tests" / "digits_int8_tests" / "digits_int8.golden").read_text().splitlines()
    assert len(lines) == 8
    done = subprocess.run(
        ["qemu-aarch64", tmp_path / "program"], input="\n".join(lines[::2]), capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == lines[1::2]


def test_what_swift_is_told_of_the_model(kit: Path, workspace: Any) -> None:
    """By pattern only: the file is not compiled."""
    text = (kit / "Sources" / "digits_int8_kit" / "Model.swift").read_text()
    quantization = workspace.artifacts["tflite", "int8"].input.quantization
    found = re.search(r'inputs = \[End\(name: "[^"]+", size: 784, scale: ([^,]+), zeroPoint: (-?\d+)\)\]', text)
    assert found is not None
    assert (float(found[1]), int(found[2])) == (quantization.scale[0], quantization.zero_point[0])
    assert ", ".join(f'"{name}"' for name in workspace.data.class_names) in text
    assert text.count("{") == text.count("}")


def test_types_of_other_widths(tmp_path: Path) -> None:
    from generated import Model

    model = Model()
    first, second = model.tensor((1, 6), "int16", scale=0.001), model.tensor((1, 6), "int32", scale=0.002)
    model.operator("QUANTIZE", [first], second)
    (tmp_path / "wide.tflite").write_bytes(model.file(first, second))
    embed(tmp_path / "wide.tflite", "ios", tmp_path / "kit")
    text = (tmp_path / "kit" / "Sources" / "wide_kit" / "Model.swift").read_text()
    assert "Input = Int16" in text
    assert "Output = Int32" in text
