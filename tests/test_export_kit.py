"""The Linux kit, run as on a device: in an environment that holds numpy and one runtime, nothing else."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import msgspec
import numpy as np
import pytest
from conftest import Workspace

from edgecnn.embed import embed
from edgecnn.files import sha256_file
from edgecnn.formats import FORMATS, export_file, provenance_of
from edgecnn.formats.source import Source
from edgecnn.quantization.schemes import SCHEMES
from edgecnn.records import (
    Artifact,
    Companion,
    MemoryBlock,
    MemoryPlan,
    Preprocessing,
    Provenance,
    Quantization,
    Record,
    TensorSpec,
    Tuning,
    from_json,
    to_json,
)
from edgecnn.runtimes import open_session, predict

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
PACKAGES = {"tflite": "ai-edge-litert", "onnx": "onnxruntime"}
KINDS = [
    (format, scheme, io)
    for format in ("tflite", "onnx")
    for scheme, io in (
        ("float32", "int8"), ("float16", "int8"), ("dynamic-int8", "int8"), ("int16x8", "int8"),
        ("int8", "int8"), ("int8", "uint8"), ("int8", "float32"), ("int8-qat", "int8"),
    )
    if (format, scheme) != ("onnx", "int16x8")
]  # fmt: skip

MakeKit = Callable[[Path, Path], Path]


@pytest.fixture(scope="session")
def pythons(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """For each format, the interpreter of a fresh environment with numpy and the one runtime."""
    found = {}
    for format, package in PACKAGES.items():
        folder = tmp_path_factory.mktemp(package)
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
        found[format] = folder / "bin" / "python"
        pip = [sys.executable, "-m", "pip", "--python", str(found[format]), "install", "--quiet", "--no-compile"]
        subprocess.run([*pip, *(f"{name}=={version(name)}" for name in ("numpy", package))], check=True)
    return found


@pytest.fixture(scope="session")
def models(workspace: Workspace, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str, str], Path]:
    """Every artifact of the workspace, and int8 ones with other types of input and output."""
    found = {(format, scheme, "int8"): workspace.path(format, scheme) for format, scheme in workspace.artifacts}
    data = workspace.data
    provenance = provenance_of("digits", sha256_file(workspace.model_file), data)
    for io in ("uint8", "float32"):
        source = Source(workspace.model, workspace.quantized, data.inputs(data.train.images[:100]), io, 1)
        folder = tmp_path_factory.mktemp(io)
        for name in PACKAGES:
            format, scheme = FORMATS[name], SCHEMES["int8"]
            artifact = export_file(source, format=format, scheme=scheme, provenance=provenance, folder=folder)
            found[name, "int8", io] = folder / artifact.file
    return found


def make_kit(model: Path, out: Path, data: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "edgecnn", "embed", str(model), "--target", "linux"]
    command += ["--data", str(data), "--out", str(out)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def run_kit(python: Path, kit: Path, *arguments: object) -> "subprocess.CompletedProcess[str]":
    command = [str(python), "-I", str(kit / "run.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=kit)


@pytest.fixture(scope="session")
def kit(workspace: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A kit of the int8 .tflite; do not change it."""
    out = tmp_path_factory.mktemp("kit") / "kit"
    made = make_kit(workspace.path("tflite", "int8"), out, workspace.data_file)
    assert made.returncode == 0, made.stderr
    return out


@pytest.fixture
def own_kit(kit: Path, tmp_path: Path) -> Path:
    """A copy of the kit to change."""
    return Path(shutil.copytree(kit, tmp_path / "own"))


MODEL = "digits-int8.tflite"


@pytest.mark.parametrize(("format", "scheme", "io"), KINDS)
def test_device_answers_as_the_desk(
    format: str,
    scheme: str,
    io: str,
    models: dict[tuple[str, str, str], Path],
    pythons: dict[str, Path],
    workspace: Workspace,
    tmp_path: Path,
) -> None:
    model, data, out = models[format, scheme, io], workspace.data, tmp_path / "kit"
    embed(model, "linux", out, str(workspace.data_file))
    assert {path.name for path in out.iterdir()} == {
        "run.py", model.name, f"{model.name}.json", "golden.npz", "README.md", "kit.json",
    }  # fmt: skip

    checked = run_kit(pythons[format], out, model.name, "--check")
    assert checked.returncode == 0, checked.stderr
    assert checked.stdout.startswith("ok: 10 images as on the host; largest output difference 0 (limit")

    images = data.test.images[100:130]
    np.save(out / "images.npy", images)
    script = (
        "import numpy as np, run, pathlib; "
        f"model = run.Model(pathlib.Path({model.name!r})); "
        "np.save('outputs.npy', np.stack([model.run(image) for image in np.load('images.npy')]))"
    )
    subprocess.run([str(pythons[format]), "-c", script], cwd=out, check=True, capture_output=True)
    expected = predict(open_session(model), data.inputs(images))
    np.testing.assert_array_equal(np.load(out / "outputs.npy"), expected)

    np.save(out / "image.npy", images[0])
    shown = run_kit(pythons[format], out, model.name, "image.npy", "--runs", "5")
    assert shown.returncode == 0, shown.stderr
    top = int(expected[0].argmax())
    label, score, time = shown.stdout.splitlines()
    assert label == f"label  {data.class_names[top]}"
    assert score == f"score  {expected[0, top]:.4f}"
    assert re.fullmatch(r"time   [\d.]+ µs \(median of 5 runs; 90 % within [\d.]+ to [\d.]+ µs\)", time)


def test_onnx_needs_no_sidecar(workspace: Workspace, pythons: dict[str, Path], tmp_path: Path) -> None:
    model = workspace.path("onnx", "int8")
    make_kit(model, tmp_path / "kit", workspace.data_file)
    (tmp_path / "kit" / f"{model.name}.json").unlink()
    checked = run_kit(pythons["onnx"], tmp_path / "kit", model.name, "--check")
    assert checked.returncode == 0, checked.stderr


def test_every_way_to_give_an_image(
    own_kit: Path, workspace: Workspace, pythons: dict[str, Path], tmp_path: Path
) -> None:
    image = workspace.data.test.images[3]
    np.save(own_kit / "grey.npy", image[..., 0])
    np.save(own_kit / "float.npy", workspace.data.inputs(image[np.newaxis])[0].astype(np.float64))
    (own_kit / "image.raw").write_bytes(image.tobytes())
    (own_kit / "image.pgm").write_bytes(b"P5\n# by hand\n28 28\n255\n" + image.tobytes())
    scores = set()
    for name in ("grey.npy", "float.npy", "image.raw", "image.pgm"):
        shown = run_kit(pythons["tflite"], own_kit, MODEL, name, "--runs", "1")
        assert shown.returncode == 0, shown.stderr
        scores.add(tuple(shown.stdout.splitlines()[:2]))
    assert len(scores) == 1

    from PIL import Image  # here with Pillow, in this environment

    Image.fromarray(image[..., 0]).save(own_kit / "image.png")
    shown = run_kit(Path(sys.executable), own_kit, MODEL, "image.png", "--runs", "1")
    assert tuple(shown.stdout.splitlines()[:2]) in scores


def failure(python: Path, kit: Path, *arguments: object) -> str:
    """The one line that ``run.py`` ends with."""
    ended = run_kit(python, kit, *arguments)
    lines = [line for line in ended.stderr.splitlines() if not line.startswith("INFO")]
    assert ended.returncode == 1
    assert ended.stdout == ""
    assert len(lines) == 1, ended.stderr
    return lines[0].removeprefix("run.py: ")


def test_missing_runtime_names_the_package(kit: Path, pythons: dict[str, Path]) -> None:
    assert (
        failure(pythons["onnx"], kit, MODEL, "--check") == "no runtime for this file; run: pip install ai-edge-litert"
    )


def test_tampered_model_is_refused(own_kit: Path, pythons: dict[str, Path]) -> None:
    changed = bytearray((own_kit / MODEL).read_bytes())
    changed[-100] ^= 1
    (own_kit / MODEL).write_bytes(changed)
    expected = f"{MODEL} does not match its sidecar {MODEL}.json (SHA-256 differs); copy both again"
    assert failure(pythons["tflite"], own_kit, MODEL, "--check") == expected


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ("outputs", r"golden image 2: label 2, on the host 2; largest output difference 0\.0\d+ \(limit 0\.0078\d\)"),
        ("labels", r"golden image 2: label 2, on the host 9; largest output difference .* \(limit .*\)"),
        ("nan", r"golden image 2: label 2, on the host \d; largest output difference nan \(limit .*\)"),
        ("sha256", r"golden\.npz belongs to another model; copy the kit again"),
        ("missing", r"golden\.npz does not contain golden outputs: .*"),
        ("truncated", r"golden\.npz does not contain golden outputs: .*"),
    ],
)
def test_tampered_golden_answers_fail(part: str, message: str, own_kit: Path, pythons: dict[str, Path]) -> None:
    path = own_kit / "golden.npz"
    golden = dict(np.load(path))
    if part == "outputs":
        golden["outputs"][2, 0] += 0.03
    elif part == "labels":
        golden["outputs"][2] = np.eye(10)[9]
    elif part == "nan":
        golden["outputs"][2, 0] = np.nan
    elif part == "sha256":
        golden["sha256"] = np.array("0" * 64)
    elif part == "missing":
        del golden["outputs"]
    np.savez(path, **golden)
    if part == "truncated":
        path.write_bytes(path.read_bytes()[:-200])
    assert re.fullmatch(message, failure(pythons["tflite"], own_kit, MODEL, "--check"))


def test_sidecar_is_needed_and_has_to_be_one(own_kit: Path, pythons: dict[str, Path]) -> None:
    (own_kit / f"{MODEL}.json").write_text("{}")
    message = failure(pythons["tflite"], own_kit, MODEL, "--check")
    assert message == f"{MODEL}.json is not a record of an edgecnn model: 'sha256'"
    (own_kit / f"{MODEL}.json").unlink()
    message = failure(pythons["tflite"], own_kit, MODEL, "--check")
    assert message == f"{MODEL} needs its sidecar {MODEL}.json in the same folder; copy it too"


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("", "[" * 100_000, "maximum recursion depth exceeded"),
        ("", "[]", "list indices must be integers"),
        ("input.shape", "[1, 28, 28]", "the input has no fixed size, or another layout: NHWC [1, 28, 28]"),
        ("input.shape", "[1, -28, 28, 1]", "the input is int8 [1, -28, 28, 1]"),
        ("input.shape", "null", "'NoneType' object is not iterable"),
        ("input.dtype", '"object"', "the input is object [1, 28, 28, 1]"),
        ("input.layout", '"CHWN"', "the input has no fixed size, or another layout: CHWN"),
        ("input.quantization", "null", "the input is int8 with the quantization None"),
        ("input.quantization.scale", "[]", "list index out of range"),
        ("output.quantization.scale", "[NaN]", "the output has the scale nan"),
        ("output.quantization.scale", "[0]", "the output has the scale 0"),
        ("output.quantization.zero_point", f"[{'9' * 99}]", "the output has the scale "),
        ("provenance", "null", "'NoneType' object is not subscriptable"),
        ("provenance.labels", "[1]", "the labels are no texts"),
        ("provenance.preprocessing.scale", "Infinity", "the preprocessing is "),
    ],
)
def test_a_sidecar_that_cannot_be_is_refused(place: str, value: str, message: str, own_kit: Path) -> None:
    path = own_kit / f"{MODEL}.json"
    record = json.loads(path.read_text())
    *way, last = place.split(".")
    holder = record
    for key in way:
        holder = holder[key]
    holder[last] = "HERE"
    path.write_text(json.dumps(record).replace('"HERE"', value) if place else value)
    said = failure(Path(sys.executable), own_kit, MODEL, "--check")
    assert said.startswith(f"{MODEL}.json is not a record of an edgecnn model: {message}")


def test_a_model_of_other_sizes_or_classes_than_its_sidecar_is_refused(own_kit: Path) -> None:
    path = own_kit / f"{MODEL}.json"
    record = json.loads(path.read_text())
    np.save(own_kit / "image.npy", np.zeros((27, 28), np.uint8))
    record["input"]["shape"] = [1, 27, 28, 1]
    path.write_text(json.dumps(record))
    assert failure(Path(sys.executable), own_kit, MODEL, "image.npy").startswith("the runtime cannot run the model: ")
    record["input"]["shape"] = [1, 28, 28, 1]
    record["provenance"]["labels"] = ["a"]
    path.write_text(json.dumps(record))
    said = failure(Path(sys.executable), own_kit, MODEL, "--check")
    assert said == "the model has 10 classes, its record has 1; copy both again"


def test_labels_are_shown_escaped(own_kit: Path) -> None:
    path = own_kit / f"{MODEL}.json"
    record = json.loads(path.read_text())
    record["provenance"]["labels"] = ["\x1b[31m\r\n\u202e"] * 10
    path.write_text(json.dumps(record))
    np.save(own_kit / "image.npy", np.zeros((28, 28), np.uint8))
    ended = run_kit(Path(sys.executable), own_kit, MODEL, "image.npy", "--runs", 1)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines()[0] == r"label  \x1b[31m\r\n\u202e"


def test_damaged_metadata_of_onnx_are_none(workspace: Workspace, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    out = tmp_path / "kit"
    assert make_kit(workspace.path("onnx", "int8"), out, workspace.data_file).returncode == 0
    name = "digits-int8.onnx"
    (out / f"{name}.json").unlink()
    whole = (out / name).read_bytes()
    for damage in ({"edgecnn": "[" * 100_000}, {"edgecnn.input": "{}"}, {"edgecnn.output": '{"shape": NaN}'}, None):
        model = onnx.load_from_string(whole)
        for entry in model.metadata_props:
            entry.value = (damage or {}).get(entry.key, entry.value)
        content = model.SerializeToString()
        (out / name).write_bytes(content if damage else content + b"\x72\x06\x0a\x01x\x12\x01\xff")
        message = f"{name} needs its sidecar {name}.json in the same folder; copy it too"
        assert failure(Path(sys.executable), out, name, "--check") == message


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("small.pgm", b"P5 4 2 255\n" + bytes(8), "small.pgm is 2 × 4 × 1; the model expects 28 × 28 × 1"),
        ("colour.ppm", b"P6 28 28 255\n" + bytes(2352), "colour.ppm is 28 × 28 × 3; the model expects 28 × 28 × 1"),
        ("short.pgm", b"P5 28 28 255\n" + bytes(9), "short.pgm has 9 values; its header says 28 × 28 × 1"),
        ("deep.pgm", b"P5 28 28 65535\n", "deep.pgm is not a binary PGM or PPM file (P5 or P6) with values up to 255"),
        ("image.raw", bytes(5), "image.raw has 5 bytes; the model expects 28 × 28 × 1, one byte each"),
        ("image.png", b"", "reading image.png needs Pillow; run: pip install pillow, or use .pgm, .ppm or .npy"),
        ("image.npy", b"nonsense", "image.npy is not a .npy file: "),
        ("image.pgm", None, "cannot read image.pgm: No such file or directory"),
    ],
)
def test_unusable_images(
    name: str, content: bytes | None, message: str, own_kit: Path, pythons: dict[str, Path]
) -> None:
    if content is not None:
        (own_kit / name).write_bytes(content)
    assert failure(pythons["tflite"], own_kit, MODEL, name).startswith(message)


def test_integers_other_than_bytes_are_refused(own_kit: Path, pythons: dict[str, Path]) -> None:
    np.save(own_kit / "image.npy", np.zeros((28, 28), np.int64))
    assert failure(pythons["tflite"], own_kit, MODEL, "image.npy").startswith(
        "image.npy has dtype int64; save it as uint8"
    )


def test_same_kit_has_the_same_bytes(kit: Path, own_kit: Path, workspace: Workspace) -> None:
    assert make_kit(workspace.path("tflite", "int8"), own_kit, workspace.data_file).returncode == 0
    for path in kit.glob("*.*"):
        assert (own_kit / path.name).read_bytes() == path.read_bytes()


def test_foreign_folders_stay_as_they_are(workspace: Workspace, own_kit: Path, tmp_path: Path) -> None:
    (own_kit / "notes.txt").write_text("mine")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "README.md").write_text("mine")
    expected = (
        (own_kit, "is a kit with another file in it: notes.txt; name a new or empty folder, or move that file"),
        (tmp_path / "other", "is not a kit: it contains README.md; name a new or empty folder"),
    )
    for out, message in expected:
        before = {path: path.read_bytes() for path in out.glob("*.*")}
        refused = make_kit(workspace.path("tflite", "int8"), out, workspace.data_file)
        assert refused.returncode == 1
        assert refused.stderr == f"edgecnn: {out} {message}\n"
        assert {path: path.read_bytes() for path in out.glob("*.*")} == before


def test_other_data_are_refused(workspace: Workspace, tmp_path: Path) -> None:
    model = workspace.path("tflite", "int8")
    refused = make_kit(model, tmp_path / "kit", "mnist")
    assert refused.returncode == 1
    assert refused.stderr == f"edgecnn: {model} was made from digits, not from mnist; give that with --data\n"
    assert not (tmp_path / "kit").exists()


def test_models_of_others_are_refused(workspace: Workspace, tmp_path: Path) -> None:
    refused = make_kit(workspace.model_file, tmp_path / "kit", workspace.data_file)
    assert refused.returncode == 1
    assert refused.stderr.endswith("is not a model file for linux; give a file ending in .tflite or .onnx\n")


def test_targets_are_listed() -> None:
    listed = subprocess.run([sys.executable, "-m", "edgecnn", "embed", "--help"], capture_output=True, text=True)
    assert listed.returncode == 0
    assert "linux" in listed.stdout


def test_contract_shows_a_real_sidecar_and_every_field() -> None:
    text = (ROOT / "docs" / "artifact.md").read_text(encoding="utf-8")
    example = re.search(r"```json\n(\{\n \"file\".*?\n\}\n)```", text, re.DOTALL)
    assert example is not None
    assert to_json(from_json(example[1].encode(), Artifact, "the example")).decode() == example[1]
    records: tuple[type[Record], ...] = (
        Artifact, Companion, MemoryPlan, MemoryBlock, TensorSpec, Quantization, Provenance, Tuning, Preprocessing,
    )  # fmt: skip
    for record in records:
        section = text.split(f"### {record.__name__}\n", 1)[1].split("\n#", 1)[0]
        named = re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)
        assert named == [field.name for field in msgspec.structs.fields(record)]
