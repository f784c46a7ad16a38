"""Model files on emulated processors: healthy ones answer as here, a planted fault shows where it is one."""

import json
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
import pytest
import tools
from onnx import TensorProto, helper, numpy_helper
from test_wheel import PLATFORM, built, unpacked

from edgecnn import artifacts, cli
from edgecnn.config import RunConfig, read_config
from edgecnn.data import load
from edgecnn.embed import embed
from edgecnn.emulation import answers, install, processors
from edgecnn.emulation.answers import Ready, ready, run_on, verify_on
from edgecnn.emulation.processors import PROCESSORS
from edgecnn.errors import EmulationError, UnknownNameError
from edgecnn.inference import outputs_of, task_of
from edgecnn.models import save_model
from edgecnn.pipeline import run
from edgecnn.records import (
    EmulatedPython,
    Failure,
    ProcessorAnswers,
    Quantization,
    TensorSpec,
    from_json,
    to_json,
)
from edgecnn.tasks import Scoring
from edgecnn.verification import reference_of

pytestmark = pytest.mark.slow

FILES = Path(__file__).parent / "files"
TINY = [FILES / "tiny-int8.tflite", FILES / "tiny-int8.onnx"]
X86 = pytest.mark.skipif(platform.machine() != "x86_64", reason="its Python is installed on x86-64 alone")


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache of our own, in which nothing is installed but what these tests install."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGECNN_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="module")
def arm(cache: Path) -> Path:
    """The folder with a Python for aarch64; its installation is interrupted once, when all is downloaded."""
    for tool in ("qemu-aarch64", "apt-get", "dpkg-deb"):
        tools.need(tool)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(install, "_try", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            install.install(PROCESSORS["cortex-a72"])
    assert install.installed("aarch64") is None
    assert answers.state(PROCESSORS["cortex-a72"]).missing
    with pytest.raises(EmulationError, match="run: edgecnn emulate --install cortex-a72"):
        ready(["cortex-a72"])
    downloaded = {path: path.stat().st_ino for path in (cache / "emulated").rglob("*.deb")}
    assert len(downloaded) > 10
    kept: list[dict[Path, int]] = []
    with pytest.MonkeyPatch.context() as patch:
        before = install._try

        def look(*given: Any) -> None:
            kept.append({path: path.stat().st_ino for path in (cache / "emulated").rglob("*.deb")})
            before(*given)

        patch.setattr(install, "_try", look)
        record = install.install(PROCESSORS["cortex-a72"])
    assert kept == [downloaded], "downloaded again"
    assert record is not None
    return cache / "emulated" / "aarch64"


def on_x86() -> None:
    tools.need("qemu-x86_64")


# ------------------------------------------------------------------------------------------ the planted fault


HALF = np.repeat([127, 0], 32).reshape(1, 8, 8)
WEIGHTS = np.stack([np.full((1, 8, 8), 60), HALF]).astype(np.int8)  # (class, channel, height, width)


BLUR_INPUT = TensorSpec(
    name="image",
    shape=(1, 1, 8, 8),
    dtype="uint8",
    layout="NCHW",
    quantization=Quantization(scale=(1 / 255,), zero_point=(0,)),
)
BLUR_OUTPUT = TensorSpec(
    name="classes",
    shape=(1, 2),
    dtype="uint8",
    layout="NC",
    quantization=Quantization(scale=(33 / 255,), zero_point=(0,)),
)


def blur_images() -> tuple[np.ndarray, np.ndarray]:
    """Bright images, of which class 1 is right, and images that are bright in the lower half only: class 0."""
    random = np.random.default_rng(0)
    images = random.integers(240, 256, (100, 8, 8), np.uint8)
    images[::2, :4] = random.integers(0, 30, (50, 4, 8), np.uint8)
    return images, np.arange(100) % 2


def blur_onnx() -> bytes:
    """A convolution of uint8 activations and int8 weights, both large: two products do not fit 16 bits.

    The form in which quantisers write such a file: DequantizeLinear, Conv, QuantizeLinear.
    """
    tensors = {
        "x_scale": np.float32(1 / 255),
        "x_zero": np.uint8(0),
        "w": WEIGHTS,
        "w_scale": np.float32(1 / 127),
        "w_zero": np.int8(0),
        "y_scale": np.float32(33 / 255),
        "y_zero": np.uint8(0),
    }
    nodes = [
        helper.make_node("DequantizeLinear", ["image", "x_scale", "x_zero"], ["x"]),
        helper.make_node("DequantizeLinear", ["w", "w_scale", "w_zero"], ["weights"]),
        helper.make_node("Conv", ["x", "weights"], ["sums"]),
        helper.make_node("QuantizeLinear", ["sums", "y_scale", "y_zero"], ["y"]),
        helper.make_node("Flatten", ["y"], ["classes"]),
    ]
    graph = helper.make_graph(
        nodes,
        "blur",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, [1, 1, 8, 8])],
        [helper.make_tensor_value_info("classes", TensorProto.UINT8, [1, 2])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in tensors.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    for name, spec in (("input", BLUR_INPUT), ("output", BLUR_OUTPUT)):  # as in the files that edgecnn exports
        model.metadata_props.add(key=f"edgecnn.{name}", value=to_json(spec).decode())
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def save_blur(folder: Path) -> None:
    """Write blur.keras, the Keras model with these weights, and data.npz into ``folder``."""
    images, labels = blur_images()
    np.savez(folder / "data.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    model = keras.Sequential(
        [keras.Input((8, 8, 1)), keras.layers.Conv2D(2, 8, use_bias=False), keras.layers.Flatten()]
    )
    model.layers[0].set_weights([WEIGHTS.transpose(2, 3, 1, 0).astype(np.float32) / 127])
    save_model(model, folder / "blur.keras")


@pytest.fixture(scope="module")
def blur(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """The .onnx that saturates, the Keras model with the same weights, and the data."""
    folder = tmp_path_factory.mktemp("blur")
    save_blur(folder)
    path = folder / "blur-int8.onnx"
    path.write_bytes(blur_onnx())
    known = artifacts.describe(path)
    artifacts.sidecar(path).write_bytes(to_json(known.replace(scheme="int8")))
    return path, folder / "blur.keras", folder / "data.npz"


Said = Callable[..., tuple[int, str, str]]


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Said:
    """Runs ``edgecnn`` and gives its exit status and what it printed to stdout and stderr."""

    def command(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["edgecnn", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as end:
            cli.main()
        return int(end.value.code or 0), *capfd.readouterr()

    return command


def verified(blur: tuple[Path, Path, Path], on: str, said: Said) -> tuple[int, ProcessorAnswers, str]:
    """What ``edgecnn verify --on`` says of the planted file: exit status, record, stderr."""
    path, model, data = blur
    status, out, err = said("verify", path, "--model", model, "--data", data, "--on", on, "--json")
    (row,) = json.loads(out)
    return status, from_json(json.dumps(row).encode(), ProcessorAnswers, "stdout"), err


@X86
def test_a_file_that_saturates_fails_on_haswell(blur: tuple[Path, Path, Path], said: Said) -> None:
    on_x86()
    status, found, err = verified(blur, "haswell", said)
    assert status == 1
    assert found.against_reference.violations
    assert found.against_reference.reference_accuracy.correct == 100
    assert found.against_reference.accuracy.correct == 50  # all bright images lost
    assert "blur-int8.onnx on haswell against float Keras model: top class agrees on 50.00%" in err


@X86
def test_it_is_right_on_nehalem_whose_kernels_widen_first(blur: tuple[Path, Path, Path], said: Said) -> None:
    on_x86()
    right(*verified(blur, "nehalem", said))


def right(status: int, found: ProcessorAnswers, err: str) -> None:
    """Check that the planted file is right there; this machine may be wrong itself, which is then said."""
    assert found.against_reference.violations == ()
    assert found.against_reference.accuracy.correct == 100
    assert status == bool(found.against_here.violations)
    assert bool(status) == ("against this machine, which is wrong itself: " in err)


@X86
def test_a_machine_that_is_wrong_itself_is_told(blur: tuple[Path, Path, Path]) -> None:
    on_x86()
    images, labels = blur_images()
    inputs = images[..., np.newaxis].astype(np.float32) / 255
    (path, model, _), few = blur, slice(20)
    reference = reference_of(model, inputs[few])
    swapped = np.ascontiguousarray(reference[:, ::-1])
    for here, name in ((reference, answers.HERE), (swapped, answers.WRONG_HERE)):
        (one,) = run_on(
            path,
            artifacts.load(path),
            ready(["nehalem"]),
            inputs[few],
            Scoring("classification", labels[few]),
            reference,
            here,
        )
        assert isinstance(one, ProcessorAnswers)
        assert one.against_reference.violations == ()
        assert one.against_here.reference == name
        assert bool(one.against_here.violations) == (here is swapped)


def test_the_same_file_is_right_on_a_raspberry_pi(blur: tuple[Path, Path, Path], arm: Path, said: Said) -> None:
    right(*verified(blur, "cortex-a72", said))
    exact = np.einsum("nhw,kchw->nk", blur_images()[0].astype(np.int64), WEIGHTS.astype(np.int64))
    wanted = np.rint(exact / 127 / 255 / (33 / 255))
    (path, _, _), (processor,) = blur, ready(["cortex-a72"])
    images = blur_images()[0][..., np.newaxis]
    raw = answers._run(path, artifacts.load(path), processor, images.transpose(0, 3, 1, 2), None).outputs
    assert np.abs(raw / np.float32(33 / 255) - wanted).max() <= 1


# ------------------------------------------------------------------------------------------------ healthy files


def asked(path: Path, on: list[Ready], images: int = 5) -> list[ProcessorAnswers | Failure]:
    """Run ``path`` on noise; the reference is what it answers here."""
    artifact = artifacts.load(path)
    inputs = np.random.default_rng(0).random((images, 28, 28, 1), np.float32)
    here = outputs_of(task_of(path), inputs)
    return run_on(path, artifact, on, inputs, Scoring("classification", np.zeros(images, np.int64)), here, here)


def answered(path: Path, *names: str) -> list[ProcessorAnswers]:
    rows = asked(path, ready(names))
    assert [row for row in rows if isinstance(row, Failure)] == []
    return [row for row in rows if isinstance(row, ProcessorAnswers)]


@X86
@pytest.mark.parametrize("path", TINY, ids=lambda path: path.suffix)
def test_older_kernels_answer_within_tolerance_and_take_more_instructions(path: Path) -> None:
    on_x86()
    old, new = answered(path, "nehalem", "haswell")
    assert [old.processor, new.processor] == ["nehalem", "haswell"]
    for one in (old, new):
        assert one.violations == ()
        assert one.against_here.difference.images == 5
        assert one.runtime == one.runtime_here
        assert one.emulator.startswith("qemu-x86_64 version ")
    assert old.instructions is not None
    assert new.instructions is not None
    assert 10_000 < new.instructions < old.instructions < 1_000_000


def test_a_compiled_package_gives_its_bytes_on_a_raspberry_pi(arm: Path, tmp_path: Path) -> None:
    tools.need("aarch64-linux-gnu-gcc")
    embed(TINY[0], "wheel", tmp_path / "kit")
    wheel = built(tmp_path / "kit", tmp_path, PLATFORM, CC="aarch64-linux-gnu-gcc")
    (on,) = ready(["cortex-a72"])
    system = install.system_for(on.processor, on.interpreter, tmp_path / "system")
    command = [on.emulator.program, "-cpu", on.processor.cpu, "-L", system, on.interpreter.program, "-m", "tiny_int8"]
    done = subprocess.run(command, cwd=unpacked(wheel, tmp_path / "site"), capture_output=True, text=True, check=False)
    assert done.stdout == "ok: 4 of 4 golden inputs, every output byte as in TensorFlow Lite Micro\n", done.stderr


def test_dot_products_take_fewer_instructions_on_arm(arm: Path) -> None:
    pi4, pi5, most = answered(TINY[0], "cortex-a72", "cortex-a76", "arm-max")
    assert pi4.violations == pi5.violations == most.violations == ()
    assert pi4.emulator.startswith("qemu-aarch64 version ")
    assert pi4.instructions is not None
    assert pi5.instructions is not None
    assert pi5.instructions < pi4.instructions


def test_libraries_see_the_processor_and_not_this_machine(arm: Path, tmp_path: Path) -> None:
    """ONNX Runtime ends in a segmentation fault on this machine's /proc/cpuinfo, so the description is ours."""
    for name, part in (("cortex-a53", "0xd03"), ("cortex-a72", "0xd08"), ("cortex-a76", "0xd0b")):
        (one,) = ready([name])
        told = install.system_for(one.processor, one.interpreter, tmp_path / name) / "proc" / "cpuinfo"
        assert "CPU implementer\t: 0x41\n" in told.read_text()
        assert f"CPU part\t: {part}\n" in told.read_text()


@X86
def test_without_a_compiler_instructions_are_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    on_x86()
    found = shutil.which
    monkeypatch.setattr(answers.shutil, "which", lambda name: None if name == "cc" else found(name))
    (one,) = answered(TINY[0], "haswell")
    assert one.instructions is None


# -------------------------------------------------------------------------------------------------- what fails


@X86
@pytest.mark.parametrize(
    ("runner", "reason"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", r"ended with status -11: .*Segmentation fault"),
        ("raise MemoryError('too little')", "ended with status 1: MemoryError: too little"),
        ("while True: pass", r"did not finish 5 images within 3 s; use fewer images"),
        (
            "import numpy; numpy.save('outputs-0.npy', numpy.zeros((4, 10), 'int8')); open('runtime.txt', 'w')",
            r"returned int8 \(4, 10\), not int8 for 5 images",
        ),
        ("", "ended without an output"),
    ],
    ids=["crash", "error", "hang", "too few", "nothing"],
)
def test_a_process_that_fails_is_a_row_with_its_reason(
    runner: str, reason: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    on_x86()
    (tmp_path / "planted.py").write_text(runner)
    monkeypatch.setattr(answers, "_RUNNER", tmp_path / "planted.py")
    monkeypatch.setattr(answers, "_LIMIT_S", 3.0 if "while" in runner else 60.0)
    (row,) = asked(TINY[0], ready(["haswell"]))
    assert isinstance(row, Failure)
    assert (row.subject, row.stage) == ("tiny-int8.tflite on haswell", "emulate")
    assert not row.expected
    assert re.search(reason, row.reason)


@X86
def test_a_damaged_file_loses_no_other_row(blur: tuple[Path, Path, Path], tmp_path: Path) -> None:
    on_x86()
    path, model, data = blur
    damaged = tmp_path / "damaged-int8.onnx"
    broken = onnx.load(path)
    broken.graph.node[0].op_type = "NoSuchOperator"
    onnx.save(broken, damaged)
    record = artifacts.load(path)
    artifacts.sidecar(damaged).write_bytes(
        to_json(record.replace(file=damaged.name, sha256=artifacts.sha256_file(damaged)))
    )
    failed, fine = verify_on([damaged, path], ["haswell"], load(str(data)), model=model, images=10)
    assert isinstance(failed, Failure)
    assert (failed.subject, failed.stage, failed.error) == ("damaged-int8.onnx", "emulate", "SessionError")
    assert isinstance(fine, ProcessorAnswers)
    assert fine.against_reference.difference.images == 10


def test_c_files_are_not_run_there() -> None:
    artifact = artifacts.load(TINY[0]).replace(file="tiny.c", format="c")
    nothing = np.zeros((0, 28, 28, 1), np.float32)
    on_x86()
    (row,) = run_on(
        Path("tiny.c"),
        artifact,
        ready(["haswell"]),
        nothing,
        Scoring("classification", np.zeros(0, np.int64)),
        nothing,
        nothing,
    )
    assert isinstance(row, Failure)
    assert row.expected
    assert "only .tflite and .onnx files" in row.reason


def test_a_processor_that_cannot_be_emulated_is_refused_with_the_reason(tmp_path: Path) -> None:
    for name in ("skylake-avx512", "Haswell", ""):
        with pytest.raises(UnknownNameError, match=r"cortex-a72, .*QEMU has no AVX-512 and no VNNI"):
            ready([name])
    config = tmp_path / "settings.toml"
    config.write_text('on = ["sapphire-rapids"]\n')
    with pytest.raises(UnknownNameError, match="VNNI"):
        read_config(config)


def test_an_emulator_that_is_missing_or_too_old(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EmulationError, match=r"qemu-x86_64 is not installed \(Debian: apt install qemu-user\)"):
        processors.emulator_for("x86_64")
    old = tmp_path / "qemu-x86_64"
    old.write_text("#!/bin/sh\necho 'qemu-x86_64 version 6.2.0 (Debian 1:6.2)'\n")
    old.chmod(0o755)
    with pytest.raises(EmulationError, match=r"QEMU 7\.2 or later \(with AVX2\), got: qemu-x86_64 version 6\.2\.0"):
        processors.emulator_for("x86_64")
    old.write_text("#!/bin/sh\necho 'qemu-x86_64 version 10.0.2'\n")
    assert processors.emulator_for("x86_64").version == "qemu-x86_64 version 10.0.2"


# ------------------------------------------------------------------------------------------------ installation


@X86
def test_what_is_here_and_what_is_missing(said: Said, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on_x86()
    tools.need("qemu-aarch64")
    monkeypatch.setenv("EDGECNN_CACHE", str(tmp_path))
    assert said("emulate", "haswell", "--install")[0] == 0  # it needs this Python alone
    status, out, err = said("emulate", "haswell", "cortex-a72")
    assert status == 1
    assert re.fullmatch(
        r"haswell     x86 with AVX2, from 2013: ready, ai-edge-litert \S+, onnxruntime \S+\n"
        r"cortex-a72  Raspberry Pi 4: missing\n",
        out,
    )
    assert err.endswith("which is not installed; run: edgecnn emulate --install cortex-a72\n")
    status, out, _ = said("emulate", "--json")
    assert status == 1
    states = json.loads(out)
    assert [state["processor"] for state in states] == list(PROCESSORS)
    assert [bool(state["missing"]) for state in states] == [False, False, True, True, True, True]
    assert not list(tmp_path.rglob("*.deb"))


def test_senseless_command_lines(said: Said, blur: tuple[Path, Path, Path]) -> None:
    path, model, data = blur
    given = ["verify", path, "--model", model, "--data", data]
    for more, says in (
        (["--on", "avx512"], "QEMU has no AVX-512"),
        (["--on", "haswell", "--images", "0"], "0 is not in the range"),
    ):
        status, out, err = said(*given, *more)
        assert (status, out) == (2, "")
        assert says in err


def test_as_many_images_as_asked_for_are_compared_here_too(said: Said, blur: tuple[Path, Path, Path]) -> None:
    path, model, data = blur
    _, out, _ = said("verify", path, "--model", model, "--data", data, "--images", "5", "--json")
    assert {parity["difference"]["images"] for parity in json.loads(out)} == {5}


def test_what_was_installed_is_recorded_and_serves_again(arm: Path) -> None:
    record = from_json((arm / "python.json").read_bytes(), EmulatedPython, "python.json")
    assert record.versions == install.versions_here()
    assert {name.partition("_")[0].partition("-")[0] for name in record.files} >= {
        "libc6", "libstdc++6", "numpy", "onnxruntime", "ai",
    }  # fmt: skip
    assert all(len(digest) == 64 for digest in record.files.values())
    assert "://" not in (arm / "python.json").read_text()
    before = (arm / "python.json").stat().st_mtime_ns
    assert install.install(PROCESSORS["cortex-a53"]) == record
    assert (arm / "python.json").stat().st_mtime_ns == before
    assert sorted(path.name for path in arm.parent.iterdir()) == ["aarch64"]


def test_other_versions_than_here_are_told(arm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "versions_here", lambda: {"ai-edge-litert": "9.9.9", "onnxruntime": "9.9.9"})
    state = answers.state(PROCESSORS["cortex-a72"])
    assert state.python is not None
    assert any("onnxruntime 9.9.9; run: edgecnn emulate --install cortex-a72" in line for line in state.missing)
    (one,) = answered(TINY[1], "cortex-a72")
    assert one.runtime_here == "onnxruntime 9.9.9"
    assert one.runtime != one.runtime_here


def test_a_system_without_apt_is_told_what_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tools.need("qemu-aarch64")
    qemu = shutil.which("qemu-aarch64")
    assert qemu is not None
    (tmp_path / "qemu-aarch64").symlink_to(qemu)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("EDGECNN_CACHE", str(tmp_path / "cache"))
    with pytest.raises(EmulationError, match="needs apt-get and dpkg-deb, which are missing; use Debian or Ubuntu"):
        install.install(PROCESSORS["cortex-a72"])
    assert install.installed("aarch64") is None


def test_reasons_hold_no_addresses() -> None:
    said = "W: a warning\nE: Failed to fetch https://user:secret@index.example/debian/x.deb  404\n"
    assert install.gist(said) == "E: Failed to fetch …  404"
    assert install.gist("qemu-x86_64: warning: TCG doesn't support pcid\n") == ""


# ------------------------------------------------------------------------------------------------------ a run


@X86
def test_a_run_adds_the_table_and_does_nothing_twice(tmp_path: Path) -> None:
    on_x86()
    save_blur(tmp_path)
    config = RunConfig(
        model=str(tmp_path / "blur.keras"), data=str(tmp_path / "data.npz"), schemes=("float32",),
        formats=("tflite", "onnx"), seconds=0.05, cold=1, on=("haswell",),
    )  # fmt: skip
    report = run(config, tmp_path / "run")
    assert [(one.artifact, one.processor) for one in report.processors] == [
        ("blur-float32.tflite", "haswell"),
        ("blur-float32.onnx", "haswell"),
    ]
    assert all(one.violations == () for one in report.processors)
    assert all(one.against_here.difference.images == 100 for one in report.processors)
    text = (tmp_path / "run" / "report.md").read_text()
    assert "## Outputs by processor" in text
    assert "blur-float32.onnx | haswell" in text
    assert 'processors">Outputs by processor</a>' in (tmp_path / "run" / "report.html").read_text()
    again = run(config, tmp_path / "run")
    assert again.processors == report.processors
    assert all(stage.reused for stage in again.stages if stage.name.startswith("answers-"))
