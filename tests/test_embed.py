"""``edgecnn embed``: every kit does what its README says, and damage makes its self-test fail."""

import functools
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import emulated
import numpy as np
import pytest
from small_models import SMALLER, source_of, write_tflite
from tools import need

from edgecnn import cli
from edgecnn.check import check
from edgecnn.embed import KIT_FILE, TARGETS, embed
from edgecnn.embed.content import _most_different
from edgecnn.embed.tflm import arena_with_margin
from edgecnn.errors import (
    ArtifactError,
    ConfigError,
    FitError,
    OutputError,
    RecordError,
    SessionError,
    UnknownNameError,
    UnsupportedError,
)
from edgecnn.files import kits_folder, sha256_bytes, sha256_file, write_folder
from edgecnn.formats.c99 import to_c
from edgecnn.formats.c99.memory import choices
from edgecnn.models import MODELS
from edgecnn.records import CORES, Kit, Quantization, from_json, to_json
from edgecnn.runtimes import open_session
from edgecnn.tflite.graph import read_graph
from edgecnn.tflite.micro import scratch_bytes

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
FILES = ROOT / "tests" / "files"
MODEL = FILES / "tiny-int8.tflite"
C_FLAGS = "-O1 -Wconversion -Wshadow -Werror"
KINDS = [target for target in TARGETS if target not in CORES[1:]]  # the kits of the cores differ in one line


def run(*command: object, folder: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([str(part) for part in command], cwd=folder, capture_output=True, text=True, check=False)


def make_c99(kit: Path, *settings: str) -> "subprocess.CompletedProcess[str]":
    return run("make", "test", f"CFLAGS={C_FLAGS}", *settings, folder=kit)


def make_tflm(kit: Path, *flags: str) -> "subprocess.CompletedProcess[str]":
    """The kit's ``make test``, against TFLM as it is compiled inside the tflite-micro package."""
    return run(
        "make", "test", f"TFLM={FILES / 'tflm'}", "INCLUDES=", "LIB=", "LDFLAGS=-shared",
        f"CXXFLAGS=-O1 -fPIC -Werror {' '.join(flags)}", f"RUN={sys.executable} {FILES / 'tflm' / 'run.py'}",
        folder=kit,
    )  # fmt: skip


@pytest.fixture(scope="module")
def models(untrained_models: dict[str, Path]) -> dict[str, Path]:
    return untrained_models


@pytest.fixture(scope="module")
def kits(workspace: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A kit of the trained int8 model for every target; do not change them."""
    folder = tmp_path_factory.mktemp("kits")
    for target in TARGETS:
        embed(workspace.path("tflite", "int8"), target, folder / target, str(workspace.data_file))
    return {target: folder / target for target in TARGETS}


Embedded = Callable[[str, str], tuple[Kit, Path]]


@pytest.fixture(scope="module")
def embedded(models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Embedded:
    """The kit of a built-in model for a target and its folder, made once."""

    @functools.cache
    def made(name: str, target: str) -> tuple[Kit, Path]:
        folder = tmp_path_factory.mktemp(f"{name}-{target}") / "kit"
        return embed(models[name], target, folder), folder

    return made


@pytest.fixture
def own(kits: dict[str, Path], tmp_path: Path) -> dict[str, Path]:
    """Copies of the kits to change."""
    return {target: Path(shutil.copytree(kit, tmp_path / target)) for target, kit in kits.items()}


def replaced(path: Path, pattern: str, change: Any) -> None:
    """Put ``change`` of the first match of ``pattern`` in its place."""
    text = path.read_text()
    assert re.search(pattern, text)
    path.write_text(re.sub(pattern, change, text, count=1))


def off_by_one(found: re.Match[str]) -> str:
    """The first number of golden outputs, one step off."""
    value = int(found[2])
    return f"{found[1]}{value - 1 if value > 0 else value + 1}"


GOLDEN_OUTPUT = r"(golden_outputs\[\d+\]\[\d+\] = \{\s*\{\s*)(-?\d+)"


# What is in them


@pytest.mark.parametrize("target", TARGETS)
def test_kits_say_what_they_hold(target: str, kits: dict[str, Path], workspace: Any) -> None:
    kit = from_json((kits[target] / KIT_FILE).read_bytes(), Kit, KIT_FILE)
    held = {path.relative_to(kits[target]).as_posix() for path in kits[target].rglob("*") if path.is_file()}
    assert held == {*kit.files, KIT_FILE}
    assert all(sha256_file(kits[target] / name) == digest for name, digest in kit.files.items())
    assert kit.model_sha256 == workspace.artifacts["tflite", "int8"].sha256
    text = (kits[target] / "README.md").read_text()
    assert "@@" not in text
    for name in kit.files:
        if name != "README.md" and not name.startswith("digits") and "examples" not in name:
            assert name in text, f"{name} is not in the README"


@pytest.mark.parametrize("target", KINDS)
def test_equal_models_give_equal_kits(target: str, kits: dict[str, Path], own: dict[str, Path], workspace: Any) -> None:
    embed(workspace.path("tflite", "int8"), target, own[target], str(workspace.data_file))
    for path in kits[target].rglob("*"):
        if path.is_file():
            assert (own[target] / path.relative_to(kits[target])).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("target", ["c99", "tflm", "arduino"])
def test_golden_inputs_are_the_data_sets(target: str, kits: dict[str, Path], workspace: Any) -> None:
    text = next(kits[target].rglob("golden.h")).read_text()
    found = re.search(r"golden inputs \((test image .*) of digits\)", text)
    assert found is not None
    first = [int(one.removeprefix("test image ")) for one in found[1].split(", ")]
    assert {*first} <= {*np.unique(workspace.data.test.labels, return_index=True)[1]}, "one of each class"
    numbers = re.search(r"golden_inputs\[4\]\[784\] = \{(.*?)\};", text, re.DOTALL)
    assert numbers is not None
    values = np.asarray(re.findall(r"-?\d+", numbers[1]), int).reshape(4, 28, 28, 1)
    images = workspace.data.inputs(workspace.data.test.images[first])
    quantization = workspace.artifacts["tflite", "int8"].input.quantization
    expected = np.round(images / np.float32(quantization.scale[0])) + quantization.zero_point[0]
    np.testing.assert_array_equal(values, np.clip(expected, -128, 127))


# C99


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_c99_kit_passes_its_self_test(compiler: str, own: dict[str, Path]) -> None:
    need(compiler)
    done = make_c99(own["c99"], f"CC={compiler}", f"CFLAGS={C_FLAGS} -fsanitize=address,undefined")
    assert done.returncode == 0, done.stderr
    assert "ok: 4 golden inputs with 4 different outputs, every output byte as in TensorFlow" in done.stdout


def test_c99_kit_notices_damage(own: dict[str, Path], kits: dict[str, Path]) -> None:
    kit = own["c99"]
    replaced(kit / "golden.h", GOLDEN_OUTPUT, off_by_one)
    done = make_c99(kit)
    assert done.returncode != 0
    assert re.search(r"FAILED: golden input 0: output 0 is -?\d+, not -?\d+", done.stdout)
    shutil.copy(kits["c99"] / "golden.h", kit)
    (source,) = kit.glob("digits*.c")
    weights = r"(dense\w*|fully_connected)(_weights\[\d+\] = \{\s*)((?:-?\d+,\s*){64})"
    replaced(source, weights, lambda found: found[1] + found[2] + re.sub(r"-?\d+", "127", found[3]))
    done = make_c99(kit, "-B")
    assert done.returncode != 0
    assert "FAILED: golden input" in done.stdout


@pytest.mark.parametrize("name", MODELS)
def test_built_in_models_pass_as_c99(name: str, embedded: Embedded) -> None:
    kit, folder = embedded(name, "c99")
    assert kit.arena_bytes is not None
    done = make_c99(folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ok: " in done.stdout


@pytest.mark.parametrize("name", [name for name in MODELS if name not in SMALLER])
def test_the_page_tells_the_arenas(name: str, embedded: Embedded) -> None:
    page = (FILES.parents[1] / "docs" / "microcontroller.md").read_text(encoding="utf-8")
    found = re.search(rf"^\| {name}[^|]*\| ([\d,]+) \| ([\d,]+) \| ([\d,]+) \|$", page, re.MULTILINE)
    assert found is not None
    (tflm, _), (code, _) = (embedded(name, target) for target in ("tflm", "c99"))
    assert [int(text.replace(",", "")) for text in found.groups()] == [
        tflm.arena_measured_bytes,
        tflm.arena_bytes,
        code.arena_bytes,
    ]


# TFLM


@pytest.mark.parametrize("name", MODELS)
def test_built_in_models_pass_in_tflm(name: str, embedded: Embedded) -> None:
    kit, folder = embedded(name, "tflm")
    done = make_tflm(folder)
    assert done.returncode == 0, done.stdout + done.stderr
    said = done.stdout + done.stderr
    assert "every output byte as on the host" in said
    used = re.search(r"arena: (\d+) of (\d+) bytes used", said)
    assert used is not None
    assert kit.arena_bytes is not None
    assert kit.arena_measured_bytes is not None
    assert int(used[1]) <= kit.arena_measured_bytes < int(used[2]) == kit.arena_bytes
    # starting takes temporary tensors too, and the recording allocator some bytes of its own
    assert kit.arena_measured_bytes - int(used[1]) < max(512, 0.15 * int(used[1]))


def test_tflm_kit_notices_damage(own: dict[str, Path], kits: dict[str, Path], workspace: Any) -> None:
    kit = own["tflm"]
    replaced(kit / "golden.h", GOLDEN_OUTPUT, off_by_one)
    done = make_tflm(kit)
    assert done.returncode != 0
    assert "FAILED: golden input 0: output 0 is" in done.stdout + done.stderr
    shutil.copy(kits["tflm"] / "golden.h", kit)

    model = workspace.path("tflite", "int8").read_bytes()
    graph = read_graph(model, "x")
    *_, dense = [operator for operator in graph.operators if operator.kind == "FULLY_CONNECTED"]
    weights = graph.tensors[dense.inputs[1]].data.tobytes()
    damaged = model.replace(weights, b"\x7f" * len(weights))
    assert damaged != model
    text = ",".join(map(str, damaged))
    (source,) = kit.glob("*_model.cc")
    replaced(source, r"= \{[^}]*\}", lambda found: f"= {{{text}}}")
    done = make_tflm(kit)
    assert done.returncode != 0
    assert re.search(r"FAILED: golden input \d: output \d is", done.stdout + done.stderr)


def test_tflm_kit_says_that_the_arena_is_too_small(own: dict[str, Path]) -> None:
    (header,) = own["tflm"].glob("*_tflm.h")
    name = re.search(r"#define (\w+_ARENA_SIZE) \d+", header.read_text())[1]  # type: ignore[index]
    done = make_tflm(own["tflm"], f"-D{name}=20000")
    assert done.returncode != 0
    assert "FAILED: cannot create the interpreter; is the arena of 20000 bytes too small?" in done.stdout + done.stderr


@pytest.mark.parametrize("damage", ["one operator less", "one place less"])
def test_resolver_has_exactly_the_operators(damage: str, own: dict[str, Path]) -> None:
    (source,) = own["tflm"].glob("*_tflm.cc")
    if damage == "one operator less":
        replaced(source, r"resolver\.AddSoftmax\(\)", "kTfLiteOk")
    else:
        replaced(source, r"MicroMutableOpResolver<5>", "MicroMutableOpResolver<4>")
    done = make_tflm(own["tflm"])
    assert done.returncode != 0
    assert "FAILED: cannot create the interpreter" in done.stdout + done.stderr


def test_model_is_aligned_to_16_bytes(own: dict[str, Path]) -> None:
    (source,) = own["tflm"].glob("*_model.cc")
    test = own["tflm"] / "aligned.cc"
    name = re.search(r"unsigned char (\w+)\[", source.read_text())[1]  # type: ignore[index]
    test.write_text(
        f'#include "{source.with_suffix(".h").name}"\n#include <stdint.h>\n'
        f"int main() {{ return (int)((uintptr_t){name} % 16); }}\n"
    )
    done = run("g++", "-std=c++17", test, source, "-o", "aligned", folder=own["tflm"])
    assert done.returncode == 0, done.stderr
    assert run("./aligned", folder=own["tflm"]).returncode == 0


def test_kit_compiles_where_tflm_has_its_older_namespace(own: dict[str, Path], tmp_path: Path) -> None:
    headers = Path(shutil.copytree(FILES / "tflm", tmp_path / "headers"))
    for header in headers.rglob("*.h"):
        text = header.read_text()
        header.write_text(text.replace("namespace micro {\n", "").replace("}  // namespace micro\n", ""))
    (source,) = own["tflm"].glob("*_tflm.cc")
    done = run("g++", "-std=c++17", "-Wall", "-Wextra", "-Werror", f"-I{headers}", "-c", source, folder=own["tflm"])
    assert done.returncode == 0, done.stderr


def test_margin_covers_what_was_seen() -> None:
    for measured in (1, 1000, 24_216, 123_457):
        arena = arena_with_margin(measured, 0)
        assert arena % 16 == 0
        assert arena >= measured + max(1024, 0.125 * measured)
        assert arena <= 1.25 * measured + 1024 + 16
        assert 5000 <= arena_with_margin(measured, 5000) - measured < max(5016, 0.25 * measured + 16)


def test_margin_covers_the_scratch_memory_of_optimised_kernels(models: dict[str, Path]) -> None:
    """By hand, from the sizes that CMSIS-NN's functions return for these layers."""
    dense = scratch_bytes(read_graph(models["autoencoder"].read_bytes(), "x"))
    graph = read_graph(models["autoencoder"].read_bytes(), "x")
    assert dense == 4 * sum(graph.tensors[one.outputs[0]].shape[-1] for one in graph.operators if one.kind[0] == "F")
    reference = read_graph(models["mnist_cnn"].read_bytes(), "x")
    (*_, last) = (one for one in reference.operators if one.kind == "CONV_2D")
    _, height, width, channels = reference.tensors[last.inputs[1]].shape
    layers = [reference.tensors[one.inputs[1]].shape[0] for one in reference.operators if one.kind == "FULLY_CONNECTED"]
    assert scratch_bytes(reference) == 4 * sum(layers) + 8 * height * width * channels
    ds_cnn = read_graph(models["ds_cnn"].read_bytes(), "x")
    assert scratch_bytes(ds_cnn) >= 4 * 124 * 9  # more than the 3,028 bytes that it took on a Cortex-M55


# Arduino


def compile_sketch(kit: Path, compiler: str, *flags: str) -> "list[subprocess.CompletedProcess[str]]":
    prefix = compiler.removesuffix("g++")
    (source,) = (kit / "src").glob("*.c")
    sketch = kit / "examples" / "classify" / "classify.ino"
    include = (f"-I{kit / 'src'}", f"-I{FILES / 'arduino'}", "-Wall", "-Wextra", "-Werror", *flags)
    return [
        run(f"{prefix}gcc", "-std=c99", "-O2", *include, "-c", source, "-o", "model.o", folder=kit),
        run(
            compiler, "-x", "c++", "-O2", *include, "-include", "Arduino.h", "-c", sketch, "-o", "sketch.o", folder=kit
        ),
    ]


def test_arduino_library_compiles_for_a_board(own: dict[str, Path]) -> None:
    need("arm-none-eabi-g++")
    for done in compile_sketch(own["arduino"], "arm-none-eabi-g++", "-mcpu=cortex-m4", "-mthumb"):
        assert done.returncode == 0, done.stderr


def sketch_says(kit: Path) -> str:
    for done in compile_sketch(kit, "g++"):
        assert done.returncode == 0, done.stderr
    host = FILES / "arduino" / "host.cc"
    done = run("g++", f"-I{FILES / 'arduino'}", host, "sketch.o", "model.o", "-o", "sketch", folder=kit)
    assert done.returncode == 0, done.stderr
    return run("./sketch", folder=kit).stdout


def test_sketch_prints_the_class(own: dict[str, Path], workspace: Any) -> None:
    lines = sketch_says(own["arduino"]).splitlines()
    names = workspace.data.class_names
    for index, line in enumerate(lines):
        found = re.fullmatch(rf"golden input {index}: class (\S+), as expected, 0 us", line)
        assert found is not None, line
        assert found[1] in names
    assert [line.split()[4].rstrip(",") for line in lines].count(names[0]) >= 1
    assert len(lines) == 4


def test_sketch_notices_damage(own: dict[str, Path]) -> None:
    replaced(own["arduino"] / "examples" / "classify" / "golden.h", GOLDEN_OUTPUT, off_by_one)
    lines = sketch_says(own["arduino"]).splitlines()
    assert "WRONG BYTES" in lines[0]
    assert all("as expected" in line for line in lines[1:])


def test_library_properties_are_whole(kits: dict[str, Path]) -> None:
    lines = (kits["arduino"] / "library.properties").read_text().splitlines()
    fields = dict(line.split("=", 1) for line in lines)
    assert set(fields) == {
        "name", "version", "author", "maintainer", "sentence", "paragraph", "category", "url", "architectures",
        "includes",
    }  # fmt: skip
    assert (kits["arduino"] / "src" / fields["includes"]).is_file()
    assert "avr" not in fields["architectures"].split(",")


# Linux; its program is tested in test_export_kit.py


def test_linux_kit_passes_its_check(kits: dict[str, Path]) -> None:
    done = run(sys.executable, "run.py", "digits-int8.tflite", "--check", folder=kits["linux"])
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("ok: ")


def test_linux_asks_for_a_data_set_of_ones_own(workspace: Any, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"was made from digits, a data set of your own; give it with --data"):
        embed(workspace.path("tflite", "int8"), "linux", tmp_path / "kit")


# Cortex-M; the one of cortex-m7 is tested in test_cortex_m.py


@pytest.mark.parametrize("core", CORES)
def test_cortex_kit_holds_what_tflm_gives(core: str, kits: dict[str, Path]) -> None:
    """The inputs and outputs of the kit in C, and make takes the core by default."""
    header = (kits["c99"] / "golden.h").read_text()
    for name in ("inputs", "outputs"):
        numbers = re.search(rf"golden_{name}\[\d+\]\[\d+\] = \{{(.*?)\}};", header, re.DOTALL)
        assert numbers is not None
        golden = np.asarray(re.findall(r"-?\d+", numbers[1]), int)
        stored = np.frombuffer((kits[core] / "golden" / f"{name}.bin").read_bytes(), np.int8)
        np.testing.assert_array_equal(stored, golden)
    assert (kits[core] / "digits_int8.c").read_bytes() == (kits["c99"] / "digits_int8.c").read_bytes()
    assert f"TARGET ?= {core}\n" in (kits[core] / "model.mk").read_text()


# Where the sources of the kits are


def held_in(folder: Path) -> set[str]:
    files = [path for path in folder.rglob("*") if path.is_file() and path.parent.name != "__pycache__"]
    return {path.relative_to(folder).as_posix() for path in files}


def test_a_checkout_has_them_under_export() -> None:
    assert kits_folder() == ROOT / "export"
    assert {target if target not in CORES else "cortex_m" for target in TARGETS} == {
        folder.name for folder in kits_folder().iterdir() if folder.is_dir()
    }


def test_sdist_and_wheel_bring_them(tmp_path: Path) -> None:
    """The wheel is built of the sdist, so both do; and the installed package finds them."""
    done = run(sys.executable, "-P", "-m", "build", "--no-isolation", "--outdir", tmp_path / "dist", ".", folder=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "installed")
    package = tmp_path / "installed" / "edgecnn"
    assert held_in(package / "kits") == held_in(ROOT / "export")
    for target in ("c99", "cortex-m4"):
        code = "; ".join(
            (
                "import sys",
                f"sys.path.insert(0, {str(package.parent)!r})",
                "from pathlib import Path",
                "from edgecnn.embed import embed",
                "from edgecnn.files import kits_folder",
                f"embed(Path({str(MODEL)!r}), {target!r}, Path({target!r}))",
                "print(kits_folder())",
            )
        )
        done = run(sys.executable, "-P", "-c", code, folder=tmp_path)
        assert (done.returncode, done.stdout) == (0, f"{package / 'kits'}\n"), done.stderr
        embed(MODEL, target, tmp_path / "checkout" / target)
        for name in from_json((tmp_path / target / KIT_FILE).read_bytes(), Kit, KIT_FILE).files:
            assert (tmp_path / target / name).read_bytes() == (tmp_path / "checkout" / target / name).read_bytes()


# Refusals


@pytest.mark.parametrize("target", ["c99", "tflm", "arduino", "cortex-m4"])
@pytest.mark.parametrize("scheme", ["float32", "dynamic-int8", "int16x8"])
def test_a_kit_is_made_of_what_check_accepts(target: str, scheme: str, workspace: Any, tmp_path: Path) -> None:
    file = workspace.path("tflite", scheme)
    found = check(file, "c99" if target == "arduino" else target)
    assert found.fits is (scheme == "int16x8" or (target, scheme) == ("tflm", "float32")), found.reasons
    if found.fits:
        embed(file, target, tmp_path / "kit")
        ok = "ok: 4 golden inputs with 4 different outputs, every output"
        if target == "tflm":
            equal = "within 0.0001 of the largest of that" if scheme == "float32" else "byte as"
            assert f"{ok} {equal} on the host" in make_tflm(tmp_path / "kit").stderr
        elif target == "c99":
            assert f"{ok} byte as in TensorFlow Lite Micro" in make_c99(tmp_path / "kit").stdout
    else:
        with pytest.raises(UnsupportedError) as refused:
            embed(file, target, tmp_path / "kit")
        assert refused.value.reasons == found.reasons
        assert not list(tmp_path.iterdir())


def with_float_ends(folder: Path) -> Path:
    """A model with float input and output, as converters write it by default."""
    return write_tflite(source_of("mnist_cnn", io="float32"), folder / "ends.tflite")


@pytest.mark.parametrize("target", ["c99", "tflm", "arduino", "cortex-m4"])
def test_a_model_with_float_ends_gets_every_kit(target: str, tmp_path: Path) -> None:
    file, kit = with_float_ends(tmp_path), tmp_path / "kit"
    assert check(file, "c99" if target == "arduino" else target).fits
    embed(file, target, kit)
    if target == "c99":
        assert make_c99(kit).returncode == 0
    elif target == "tflm":
        assert "every output byte as on the host" in make_tflm(kit).stderr
        replaced(kit / "golden.h", r"(golden_outputs\[\d+\]\[\d+\] = \{\s*\{\s*)\S+", r"\g<1>2.0e+00f,")
        done = make_tflm(kit)
        assert done.returncode != 0
        assert "FAILED: golden input 0: output 0 is" in done.stderr
    elif target == "cortex-m4":
        emulated.need(target)
        assert run("make", "check", folder=kit).returncode == 0
    else:
        assert sketch_says(kit).count("as expected") == 4


def test_real_numbers_become_what_tflm_makes_of_them(tmp_path: Path) -> None:
    """The functions in the header against TFLM's QUANTIZE and DEQUANTIZE, also for halves, ends, and not a number."""
    import ctypes

    from generated import Model

    from edgecnn.runtimes.tflm import outputs_of

    count, scale = 4096, 0.0173
    draw = np.random.default_rng(0)
    halves = (np.arange(-200, 200) + 0.5).astype(np.float32) * np.float32(scale)
    near = np.nextafter(halves, np.float32(0))
    real = np.concatenate([halves, near, draw.uniform(-6, 6, count), [1e30, -1e30, np.inf, -np.inf]]).astype(np.float32)
    real = real[None, :count]
    for dtype, zero in (("int8", -7), ("int8", 100)):
        model = Model()
        first, second = model.tensor((1, count), "float32"), model.tensor((1, count), dtype, scale=scale, zero=zero)
        model.operator("QUANTIZE", [first], second)
        back = Model()
        third, fourth = back.tensor((1, count), dtype, scale=scale, zero=zero), back.tensor((1, count), "float32")
        back.operator("DEQUANTIZE", [third], fourth)
        (stored,) = outputs_of(model.file(first, second), [[real]])[0]
        ((wanted,),) = outputs_of(back.file(third, fourth), [[stored]])
        same = Model()
        source, target = (same.tensor((1, count), dtype, scale=scale, zero=zero) for _ in range(2))
        same.operator("RESHAPE", [source, same.tensor((2,), "int32", data=(1, count))], target)
        code = to_c(read_graph(same.file(source, target), "x"), "m")
        (tmp_path / "m.h").write_text(code.header)
        (tmp_path / "t.c").write_text(
            f'#include "m.h"\nvoid q(const float *x, {dtype}_t *y) {{ m_quantize(x, y); }}\n'
            f"void d(const {dtype}_t *x, float *y) {{ m_dequantize(x, y); }}\n"
        )
        flags = ["-std=c99", "-O2", "-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Werror", "-shared", "-fPIC"]
        done = run("cc", *flags, "t.c", "-o", f"{zero}.so", folder=tmp_path)
        assert done.returncode == 0, done.stderr
        library = ctypes.CDLL(str(tmp_path / f"{zero}.so"))
        made, numbers = np.zeros((1, count), dtype), np.zeros((1, count), np.float32)
        library.q(real.ctypes.data_as(ctypes.c_void_p), made.ctypes.data_as(ctypes.c_void_p))
        np.testing.assert_array_equal(made, stored)
        library.d(made.ctypes.data_as(ctypes.c_void_p), numbers.ctypes.data_as(ctypes.c_void_p))
        np.testing.assert_array_equal(numbers, wanted)


def test_code_that_tflm_refuses_is_its_own_reference_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from generated import Model

    model = Model()
    first, second = model.tensor((1, 2, 3, 4), scale=0.5, zero=1), model.tensor((1, 4, 3, 8), scale=0.5, zero=1)
    model.operator("TILE", [first, model.tensor((4,), "int32", data=[1, 2, 1, 2])], second)
    (tmp_path / "tile.tflite").write_bytes(model.file(first, second))
    assert check(tmp_path / "tile.tflite", "c99").fits
    embed(tmp_path / "tile.tflite", "c99", tmp_path / "kit")
    assert "because TFLM refuses tile.tflite" in caplog.text
    assert "every output byte as in this code on the host, because" in make_c99(tmp_path / "kit").stdout
    with pytest.raises(UnsupportedError, match=r"operator 0 \(TILE 't1'\) has no kernel in TFLM"):
        embed(tmp_path / "tile.tflite", "tflm", tmp_path / "tflm")


def streaming(folder: Path) -> Path:
    """A model that adds its input to the last one: state in a variable, which a second subgraph initialises."""
    from generated import Model

    model = Model()
    source, target = (model.tensor((1, 4), scale=0.5) for _ in range(2))
    before = model.tensor((1, 4), scale=0.5)
    handle = model.tensor((), "resource")
    model.operator("CALL_ONCE", [], (), "CallOnceOptions", initSubgraphIndex=1)
    model.operator("VAR_HANDLE", [], handle, "VarHandleOptions", container="", sharedName="state")
    model.operator("READ_VARIABLE", [handle], before)
    model.operator("ADD", [before, source], target, "AddOptions")
    model.operator("ASSIGN_VARIABLE", [handle, source], ())
    with model.subgraph():
        handle, start = model.tensor((), "resource"), model.tensor((1, 4), scale=0.5, data=[10, 20, 30, 40])
        model.operator("VAR_HANDLE", [], handle, "VarHandleOptions", container="", sharedName="state")
        model.operator("ASSIGN_VARIABLE", [handle, start], ())
    file = folder / "streaming.tflite"
    file.write_bytes(model.file(source, target))
    return file


def test_a_model_with_state_begins_fresh(tmp_path: Path) -> None:
    file = streaming(tmp_path)
    assert check(file, "tflm").fits
    embed(file, "tflm", tmp_path / "kit")
    done = make_tflm(tmp_path / "kit")
    assert re.search(r"ok: 32 golden inputs with \d+ different outputs, every output byte as on", done.stderr)
    assert "They run one after the other" in (tmp_path / "kit" / "README.md").read_text()
    header = (tmp_path / "kit" / "golden.h").read_text()
    values = [
        np.asarray(re.findall(r"-?\d+", found[1]), int).reshape(32, 4)
        for found in re.finditer(r"golden_\w+\[32\]\[4\] = \{(.*?)\};", header, re.DOTALL)
    ]
    before = np.vstack([[10, 20, 30, 40], values[0][:-1]])
    np.testing.assert_array_equal(values[1], np.clip(values[0] + before, -128, 127))
    (source,) = (tmp_path / "kit").glob("*_tflm.cc")
    replaced(source, r"Create\(allocator, 1\)", "Create(allocator, 0)")
    assert make_tflm(tmp_path / "kit").returncode != 0


def test_c_keeps_state_and_begins_again(tmp_path: Path) -> None:
    file = streaming(tmp_path)
    found = check(file, "c99")
    assert found.fits
    assert found.notes[0] == "it keeps 4 bytes of state between calls, beside the arena"
    embed(file, "c99", tmp_path / "c99")
    done = make_c99(tmp_path / "c99")
    assert re.search(r"ok: 32 golden inputs with \d+ different outputs, every output byte as in", done.stdout)
    embed(file, "arduino", tmp_path / "arduino")
    assert sketch_says(tmp_path / "arduino").count("as expected") == 32
    sketch = tmp_path / "arduino" / "examples" / "classify" / "classify.ino"
    replaced(
        sketch,
        r"    streaming_reset\(\);",
        "    for (int i = 0; i < 2; i++) streaming_invoke(golden_inputs[i], output);",
    )
    assert "WRONG BYTES" in sketch_says(tmp_path / "arduino").splitlines()[0]
    embed(file, "cortex-m55", tmp_path / "m55")
    emulated.need("cortex-m55")
    assert run("make", "check", folder=tmp_path / "m55").returncode == 0


def test_the_caller_may_give_the_arena(tmp_path: Path) -> None:
    for target in ("c99", "arduino", "cortex-m4"):
        embed(MODEL, target, tmp_path / target, caller_arena=True)
        text = (tmp_path / target / "README.md").read_text()
        assert re.search(
            r"static int32_t arena\[(\w+)_ARENA_SIZE / 4 \+ 1\];\n.*\n *\w+_invoke\(input, output, arena\)", text
        )
        assert "The arena is yours: " in text
    sanitized = f"CFLAGS={C_FLAGS} -fsanitize=address,undefined"
    assert "ok: " in make_c99(tmp_path / "c99", sanitized).stdout
    assert sketch_says(tmp_path / "arduino").count("as expected") == 4
    emulated.need("cortex-m4")
    assert "ok: " in run("make", "check", folder=tmp_path / "cortex-m4").stdout
    replaced(tmp_path / "c99" / "self_test.c", r"_SIZE / 4 \+ 1", "_SIZE / 8")
    assert "global-buffer-overflow" in make_c99(tmp_path / "c99", sanitized).stderr
    for target in ("tflm", "linux", "web"):
        with pytest.raises(
            ConfigError, match=f"the kit {target} has no options for the arena of C code; .* c99, arduino, cortex-m0,"
        ):
            embed(MODEL, target, tmp_path / target, caller_arena=True)


def test_several_models_in_a_kit_share_their_code(tmp_path: Path) -> None:
    kit = tmp_path / "kit"
    made = embed([MODEL, streaming(tmp_path)], "c99", kit)
    assert (made.model, list(made.more_models)) == ("tiny-int8.tflite", ["streaming.tflite"])
    done = make_c99(kit, f"CFLAGS={C_FLAGS} -fsanitize=address,undefined")
    assert done.returncode == 0, done.stderr
    assert re.findall(r"ok: (\d+) golden inputs", done.stdout) == ["4", "32"]
    text = (kit / "README.md").read_text()
    assert "@@" not in text
    assert all(name in text for name in made.files if name != "README.md"), text
    replaced(kit / "golden_streaming.h", GOLDEN_OUTPUT, off_by_one)
    assert make_c99(kit).returncode != 0
    with pytest.raises(ArtifactError, match=r"models\.c contains 2 models; give the C code"):
        open_session(kit / "models.c")


def test_several_models_that_fit_no_kit(tmp_path: Path) -> None:
    (tmp_path / "TINY_int8.tflite").write_bytes(MODEL.read_bytes())
    with pytest.raises(ConfigError, match=r"two models would be called 'tiny_int8' in C; rename one of the files"):
        embed([MODEL, tmp_path / "TINY_int8.tflite"], "c99", tmp_path / "kit")
    for models, count in (([MODEL, MODEL], 2), ([], 0)):
        with pytest.raises(ConfigError, match=f"a kit arduino holds one model, got {count}; several share the code in"):
            embed(models, "arduino", tmp_path / "kit")
    assert not (tmp_path / "kit").exists()


def test_inputs_and_outputs_of_any_type_are_compared(tmp_path: Path) -> None:
    """int16 in, int32 out, and two inputs of different types: each has its own array."""
    from generated import Model

    model = Model()
    first, second = model.tensor((1, 6), "int16", scale=0.001), model.tensor((1, 6), "int32", scale=0.002)
    model.operator("QUANTIZE", [first], second)
    (tmp_path / "wide.tflite").write_bytes(model.file(first, second))
    embed(tmp_path / "wide.tflite", "tflm", tmp_path / "kit")
    header = (tmp_path / "kit" / "golden.h").read_text()
    assert "static const int16_t golden_inputs[4][6]" in header
    assert "static const int32_t golden_outputs[4][6]" in header
    done = make_tflm(tmp_path / "kit")
    assert "every output byte as on the host" in done.stdout + done.stderr
    replaced(tmp_path / "kit" / "golden.h", GOLDEN_OUTPUT, off_by_one)
    assert re.search(r"FAILED: golden input 0: output 0 is -?\d+, not -?\d+", make_tflm(tmp_path / "kit").stderr)


@pytest.mark.parametrize("target", ["c99", "tflm", "arduino", "cortex-m4"])
def test_unsigned_input_and_output_work(target: str, tmp_path: Path) -> None:
    model = write_tflite(source_of("mnist_cnn", io="uint8"), tmp_path / "model.tflite")
    embed(model, target, tmp_path / "kit")
    if target == "c99":
        assert make_c99(tmp_path / "kit").returncode == 0
    elif target == "tflm":
        done = make_tflm(tmp_path / "kit")
        assert done.returncode == 0, done.stdout + done.stderr
    elif target == "cortex-m4":
        emulated.need(target)
        done = run("make", "check", folder=tmp_path / "kit")
        assert done.returncode == 0, done.stdout + done.stderr
    else:
        assert sketch_says(tmp_path / "kit").count("as expected") == 4


def test_a_model_tflm_refuses_leaves_nothing(tmp_path: Path) -> None:
    model = write_tflite(source_of("mobilenet_v1_025", settled=False), tmp_path / "model.tflite")
    for target in ("c99", "tflm"):
        with pytest.raises((SessionError, UnsupportedError)):
            embed(model, target, tmp_path / "kit")
    assert [path.name for path in tmp_path.iterdir()] == ["model.tflite"]


def test_models_of_other_kinds_are_refused(workspace: Any, tmp_path: Path) -> None:
    with pytest.raises(
        UnknownNameError, match=r"unknown target 'esp32'; choose from: android, arduino, c99, cortex-m0, .*linux, tflm"
    ):
        embed(workspace.path("tflite", "int8"), "esp32", tmp_path / "kit")
    with pytest.raises(ArtifactError, match=r"not a model file for tflm; give a file ending in \.tflite$"):
        embed(workspace.path("onnx", "int8"), "tflm", tmp_path / "kit")
    with pytest.raises(ArtifactError, match="no model file at"):
        embed(tmp_path / "none.tflite", "c99", tmp_path / "kit")
    changed = tmp_path / "changed.tflite"
    changed.write_bytes(workspace.path("tflite", "int8").read_bytes()[:-500])
    with pytest.raises((ArtifactError, SessionError)):
        embed(changed, "c99", tmp_path / "kit")


# The folder


@pytest.mark.parametrize("target", KINDS)
@pytest.mark.parametrize(
    "change",
    [
        {"shape": (1, 27, 28, 1)},
        {"dtype": "uint8"},
        {"quantization": Quantization(scale=(2.0,), zero_point=(0,))},
    ],
    ids=str,
)
def test_a_sidecar_that_is_not_true_is_told(target: str, change: Any, workspace: Any, tmp_path: Path) -> None:
    artifact = workspace.artifacts["tflite", "int8"]
    model = tmp_path / artifact.file
    shutil.copy(workspace.path("tflite", "int8"), model)
    artifact = artifact.replace(input=artifact.input.replace(**change))
    model.with_name(f"{model.name}.json").write_bytes(to_json(artifact))
    data = str(workspace.data_file) if target == "linux" else None
    with pytest.raises(
        ArtifactError, match=r"has an input .*, its sidecar .* has .*; export it again, or remove the sidecar"
    ):
        embed(model, target, tmp_path / "kit", data)
    assert not (tmp_path / "kit").exists()


@pytest.mark.parametrize("damage", [b"{", b"[" * 100_000, b'{"sha256": NaN}', b"\xff"], ids=range(4))
def test_a_damaged_sidecar_is_told_with_what_to_do(damage: bytes, workspace: Any, tmp_path: Path) -> None:
    model = tmp_path / "m.tflite"
    shutil.copy(workspace.path("tflite", "int8"), model)
    model.with_name("m.tflite.json").write_bytes(damage)
    with pytest.raises(
        RecordError, match=r"m\.tflite\.json is not a valid .*; export m\.tflite again, or remove the sid"
    ):
        embed(model, "c99", tmp_path / "kit")


def test_foreign_and_changed_folders_stay_as_they_are(own: dict[str, Path], workspace: Any, tmp_path: Path) -> None:
    model, kit = workspace.path("tflite", "int8"), own["c99"]
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.md").write_text("mine")
    with pytest.raises(OutputError, match=r"other is not a kit: it contains thesis\.md; name a new or empty folder"):
        embed(model, "c99", other)
    (kit / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"is a kit with another file in it: notes\.txt;"):
        embed(model, "c99", kit)
    (kit / "notes.txt").unlink()
    with (kit / "self_test.c").open("a") as file:
        file.write("/* mine */")
    with pytest.raises(OutputError, match=r"is a kit in which self_test\.c was changed;"):
        embed(model, "c99", kit)
    assert (other / "thesis.md").read_text() == "mine"
    assert (kit / "self_test.c").read_text().endswith("/* mine */")


def test_a_former_kit_is_replaced_and_so_is_what_was_built(own: dict[str, Path], workspace: Any) -> None:
    kit = own["c99"]
    assert make_c99(kit).returncode == 0
    embed(workspace.path("tflite", "int8-qat"), "tflm", kit)
    assert from_json((kit / KIT_FILE).read_bytes(), Kit, "kit").target == "tflm"
    assert not (kit / "build").exists()
    assert not (kit / "self_test.c").exists()
    assert not list(kit.parent.glob(".*"))


def test_a_full_disk_leaves_the_former_kit(
    own: dict[str, Path], workspace: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno
    import os

    before = {path: path.read_bytes() for path in own["c99"].rglob("*") if path.is_file()}

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("edgecnn.files.os.fsync", full)
    with pytest.raises(OutputError, match=r"cannot write .*: No space left on device"):
        embed(workspace.path("tflite", "int8"), "c99", own["c99"])
    assert {path: path.read_bytes() for path in own["c99"].rglob("*") if path.is_file()} == before
    assert not list(own["c99"].parent.glob(".*"))


def test_a_folder_moved_aside_by_a_killed_process_comes_back(tmp_path: Path) -> None:
    write_folder(tmp_path / "kit", {"a/b": b"old"})
    partial = tmp_path / f".edgecnn-{sha256_bytes(b'kit')[:12]}-0123456789ab.partial"
    partial.mkdir()
    (tmp_path / "kit").rename(partial / "old")

    class Stop(BaseException):
        pass

    class Files(dict[str, bytes]):
        def items(self) -> Any:
            raise Stop

    with pytest.raises(Stop):
        write_folder(tmp_path / "kit", Files())
    assert (tmp_path / "kit" / "a" / "b").read_bytes() == b"old"
    write_folder(tmp_path / "kit", {"c": b"new"})
    assert [path.name for path in tmp_path.rglob("*")] == ["kit", "c"]


# The command


def test_command(workspace: Any, tmp_path: Path) -> None:
    model, out = workspace.path("tflite", "int8"), tmp_path / "kit"

    def command(*arguments: object) -> "subprocess.CompletedProcess[str]":
        return run(sys.executable, "-m", "edgecnn", "embed", *arguments, folder=Path(cli.__file__).parents[2])

    done = command(model, "--target", "tflm", "--out", out)
    assert done.returncode == 0, done.stderr
    assert re.match(
        r"wrote .*kit: 10 files, arena [\d,]+ bytes \([\d,]+ measured here\); read .*README\.md", done.stdout
    )
    done = command(model, "--target", "c99", "--caller-arena", "--out", out, "--json")
    assert ", void *arena);" in next(out.glob("digits*.h")).read_text()
    assert from_json(done.stdout.encode(), Kit, "stdout") == from_json((out / KIT_FILE).read_bytes(), Kit, "kit")
    (out / "mine").write_text("")
    refused = command(model, "--target", "c99", "--out", out)
    assert refused.returncode == 1
    assert refused.stdout == ""
    assert "another file in it: mine" in refused.stderr
    float_file = workspace.path("tflite", "dynamic-int8")
    refused = command(float_file, "--target", "c99", "--out", tmp_path / "other")
    assert refused.stderr.splitlines() == [f"edgecnn: {reason}" for reason in check(float_file, "c99").reasons]
    assert command(model, "--target", "esp32", "--out", out).returncode == 2
    done = command(model, "--target", "c99", "--ram", "12k", "--out", tmp_path / "small")
    assert re.match(r"wrote .*small: 7 files, arena (9|1[0-2]),\d+ bytes; read", done.stdout)
    assert command(model, "--target", "c99", "--ram", "12q", "--out", tmp_path / "small").returncode == 2
    assert command(model, "--out", out).returncode == 2


# A limit of the arena


@pytest.mark.parametrize(("target", "goal"), [("c99", "test"), ("cortex-m55", "check")])
def test_layers_run_in_bands_if_the_arena_must_be_smaller(
    target: str, goal: str, models: dict[str, Path], embedded: Embedded, tmp_path: Path
) -> None:
    emulated.need(target if target in CORES else "host")
    whole, _ = embedded("resnet8", target)
    assert whole.arena_bytes is not None
    assert embed(models["resnet8"], target, tmp_path / "same", ram=whole.arena_bytes) == whole
    kit = embed(models["resnet8"], target, tmp_path / "kit", ram=20 * 1024)
    assert kit.arena_bytes is not None
    assert kit.arena_bytes <= 20 * 1024
    tested = run("make", goal, folder=tmp_path / "kit")
    assert tested.returncode == 0, tested.stderr


_READS_ROWS = """
#include "golden.h"
#include "resnet8.h"
static int32_t next;

static void camera(void *context, int32_t row, int32_t rows, int8_t *to)
{
    if (row != next)
        next = 1000;
    for (int32_t i = 0; i < rows * 96; i++)
        to[i] = ((const int8_t *)context)[row * 96 + i];
    next += rows;
}

int main(void)
{
    int8_t input[RESNET8_INPUT_SIZE], output[RESNET8_OUTPUT_SIZE];
    int32_t sample, i;
    for (sample = 0; sample < 2; sample++) {
        for (i = 0; i < RESNET8_INPUT_SIZE; i++)
            input[i] = golden_inputs[sample][i];
        next = 0;
        resnet8_invoke_rows(camera, input, output);
        if (next != 32)
            return 1;
        for (i = 0; i < RESNET8_OUTPUT_SIZE; i++) {
            if (output[i] != golden_outputs[sample][i])
                return 2;
        }
    }
    return 0;
}
"""


def test_the_input_can_be_read_row_by_row(models: dict[str, Path], tmp_path: Path) -> None:
    emulated.need("host")
    kit = tmp_path / "kit"
    made = embed(models["resnet8"], "c99", kit, ram=20 * 1024, reads=True)
    assert made.arena_bytes is not None
    assert made.arena_bytes <= 20 * 1024
    assert make_c99(kit).returncode == 0
    (tmp_path / "main.c").write_text(_READS_ROWS)
    flags = ("-std=c99", "-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Werror", f"-I{kit}")
    built = run("gcc", *flags, tmp_path / "main.c", kit / "resnet8.c", "-o", "main", folder=tmp_path)
    assert built.returncode == 0, built.stderr
    assert run(tmp_path / "main", folder=tmp_path).returncode == 0
    with pytest.raises(
        ConfigError, match="to read the input row by row, give a limit of the arena too, as in --ram 32k"
    ):
        embed(models["resnet8"], "c99", tmp_path / "none", reads=True)
    with pytest.raises(UnsupportedError, match="cannot be read row by row: that needs a single input with rows"):
        embed(models["autoencoder"], "c99", tmp_path / "none", ram=2**20, reads=True)


def test_models_in_bands_share_a_source(models: dict[str, Path], tmp_path: Path) -> None:
    """One that reads its input row by row has a callback of its own, also with an arena of the caller's."""
    emulated.need("host")
    other = tmp_path / "other.tflite"
    other.write_bytes(models["resnet8"].read_bytes())
    limits = {"ram": 20 * 1024, "reads": True, "caller_arena": True}
    made = embed([models["resnet8"], other], "c99", tmp_path / "kit", **limits)
    assert made.arena_bytes is not None
    assert made.arena_bytes <= 20 * 1024
    done = make_c99(tmp_path / "kit", f"CFLAGS={C_FLAGS} -fsanitize=address,undefined")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("ok: ") == 2


def test_a_limit_that_no_plan_meets_names_the_smallest(models: dict[str, Path], tmp_path: Path) -> None:
    *_, smallest = choices(read_graph(models["resnet8"].read_bytes(), "resnet8"))
    assert embed(models["resnet8"], "c99", tmp_path / "kit", ram=smallest.arena).arena_bytes == smallest.arena
    with pytest.raises(FitError, match=f"the smallest has {smallest.arena:,}, with about 0.[3-9]% more instructions"):
        embed(models["resnet8"], "c99", tmp_path / "none", ram=smallest.arena - 1)
    with pytest.raises(FitError, match=r"fits in 255 bytes; the smallest has 256$"):
        embed(models["autoencoder"], "c99", tmp_path / "none", ram=255)
    with pytest.raises(
        ConfigError, match="the kit tflm has no options for the arena of C code; choose from: c99, arduino, cort"
    ):
        embed(models["resnet8"], "tflm", tmp_path / "none", ram=2**20)
    assert not (tmp_path / "none").exists()


def test_a_file_that_only_tflm_runs_gets_its_kits(tmp_path: Path) -> None:
    """A bias with an axis that it does not have, as in TFLM's person_detect: LiteRT refuses it, TFLM does not."""
    from ai_edge_litert import schema_py_generated as schema
    from flatbuffers import Builder

    from edgecnn.errors import SessionError
    from edgecnn.runtimes import open_session

    model = schema.ModelT.InitFromPackedBuf(MODEL.read_bytes())
    biases = [tensor for tensor in model.subgraphs[0].tensors if tensor.type == schema.TensorType.INT32]
    for tensor in biases:
        if tensor.quantization is not None and tensor.quantization.scale is not None:
            tensor.quantization.quantizedDimension = 3
    builder = Builder()
    builder.Finish(model.Pack(builder), b"TFL3")
    file = tmp_path / "odd.tflite"
    file.write_bytes(bytes(builder.Output()))
    with pytest.raises(SessionError, match="quantized_dimension must be in range"):
        open_session(file)
    embed(file, "c99", tmp_path / "c99")
    assert "every output byte as in TensorFlow Lite Micro" in make_c99(tmp_path / "c99").stdout
    embed(file, "tflm", tmp_path / "tflm")
    done = make_tflm(tmp_path / "tflm")
    assert "every output byte as on the host" in done.stdout + done.stderr


def test_an_output_without_a_batch_is_written_whole(tmp_path: Path) -> None:
    """A model whose output is (3,) has three values in every kit; what compares samples refuses it in every runtime."""
    from generated import Model

    from edgecnn.runtimes import open_session, predict

    model = Model()
    first, second, third = (
        model.tensor((1, 6), scale=0.5),
        model.tensor((1, 3), scale=0.5),
        model.tensor((3,), scale=0.5),
    )
    weights = model.tensor((3, 6), scale=0.25, data=np.arange(-9, 9))
    bias = model.tensor((3,), "int32", scale=0.125, data=[1, 2, 3])
    model.operator("FULLY_CONNECTED", [first, weights, bias], second, "FullyConnectedOptions")
    shape = model.tensor((1,), "int32", data=[3])
    model.operator("RESHAPE", [second, shape], third, "ReshapeOptions", newShape=[3])
    file = tmp_path / "flat.tflite"
    file.write_bytes(model.file(first, third))
    embed(file, "c99", tmp_path / "c99")
    assert "every output byte as in TensorFlow Lite Micro" in make_c99(tmp_path / "c99").stdout
    embed(file, "tflm", tmp_path / "tflm")
    done = make_tflm(tmp_path / "tflm")
    assert "every output byte as on the host" in done.stdout + done.stderr
    samples = np.zeros((2, 6), np.float32)
    for path, runtime in ((file, "litert"), (file, "tflm"), (tmp_path / "c99" / "flat.c", "c99")):
        session = open_session(path, runtime=runtime)
        with pytest.raises(SessionError, match=r"its output has shape \(3,\) for a batch of 1"):
            predict(session, samples)


def test_golden_inputs_are_those_whose_outputs_differ_most() -> None:
    outputs = np.int8([[0, 0], [0, 0], [0, 1], [90, 0], [0, 0], [80, 0], [0, -100]])
    assert _most_different(outputs, [0], 4) == [0, 6, 3, 5]
    assert _most_different(outputs, [1, 4], 3) == [1, 4, 6]
    assert _most_different(outputs[:2], [0], 4) == [0, 1]
    assert _most_different(outputs, [0, 1, 2], 1) == [0]
