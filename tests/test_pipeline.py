"""The pipeline: what is redone and what is not, what survives being killed, and what a failure leaves."""

import contextlib
import csv
import io
import logging
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tools
from conftest import MadeOnce
from rich.console import Console

from edgecnn import pipeline, verification
from edgecnn.cli.output import status
from edgecnn.config import RunConfig
from edgecnn.data import load
from edgecnn.data.dataset import DataSet
from edgecnn.errors import ConfigError, DataError, MissingExtraError, ModelError, OutputError, RecordError
from edgecnn.files import sha256_file
from edgecnn.measure import statistics
from edgecnn.models import mnist_cnn
from edgecnn.pipeline import run
from edgecnn.records import Failure, History, Report, Result, Tolerance, from_json, read_record, to_json
from edgecnn.report import show

pytestmark = pytest.mark.slow

SCHEMES = ("float32", "int8", "int8-qat")


def save_part(data: DataSet, path: Path, train: int, test: int) -> Path:
    np.savez(
        path,
        x_train=data.train.images[:train],
        y_train=data.train.labels[:train],
        x_test=data.test.images[:test],
        y_test=data.test.labels[:test],
    )
    return path


@pytest.fixture(scope="module")
def digits(mnist: DataSet, made_once: MadeOnce) -> Path:
    return made_once("run-data", lambda folder: save_part(mnist, folder / "digits.npz", 1500, 300)) / "digits.npz"


@pytest.fixture(scope="module")
def clothes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_part(load("fashion-mnist"), tmp_path_factory.mktemp("data") / "clothes.npz", 1500, 300)


@pytest.fixture(scope="module")
def config(digits: Path) -> RunConfig:
    return RunConfig(data=str(digits), epochs=2, qat_epochs=1, schemes=SCHEMES, tune=False, seconds=0.05, cold=1)


@pytest.fixture(scope="module")
def undisturbed(config: RunConfig, made_once: MadeOnce) -> tuple[Path, Report]:
    """A finished run; copy it before changing it."""
    out = made_once("undisturbed", lambda folder: run(config, folder / "run")) / "run"
    return out, read_record(out / "report.json", Report)


@pytest.fixture
def finished(undisturbed: tuple[Path, Report], tmp_path: Path) -> Path:
    """A copy of a finished run."""
    return Path(shutil.copytree(undisturbed[0], tmp_path / "run"))


def status_of(report: Report) -> int:
    """The exit status that the command ends with, its reasons on stderr."""
    with pytest.raises(SystemExit) as end:
        status(report, as_json=True)
    return int(str(end.value.code))


def redone(report: Report) -> set[str]:
    """Names of the stages that were not reused."""
    return {stage.name for stage in report.stages if not stage.reused} - {"data"}


def named(*stages: str, file: str = "") -> set[str]:
    return {f"{stage}-mnist_cnn-{file}" for stage in stages}


def kept_files(out: Path) -> dict[str, str]:
    """Hashes of everything that does not depend on how long something took."""
    paths = [*(out / "artifacts").iterdir(), *(out / "work").glob("*.npy")]
    paths += [out / name for name in ("model.keras", "history.json", "qat.keras", "qat-history.json")]
    return {str(path.relative_to(out)): sha256_file(path) for path in sorted(paths)}


def results(report: Report) -> list[Result]:
    return [row for row in report.rows if isinstance(row, Result)]


def failures(report: Report) -> list[Failure]:
    return [row for row in report.rows if isinstance(row, Failure)]


# ---------------------------------------------------------------------------------------------- a run, and again


def test_a_run_makes_everything(undisturbed: tuple[Path, Report]) -> None:
    out, report = undisturbed
    files = [f"mnist_cnn-{scheme}.{format}" for format in ("tflite", "onnx") for scheme in SCHEMES]
    files += ["mnist_cnn-int8.c", "mnist_cnn-int8-qat.c"]
    headers = ["mnist_cnn-int8.h", "mnist_cnn-int8-qat.h"]
    assert [row.artifact.file for row in results(report)] == ["model.keras", *files]
    assert failures(report) == []
    assert sorted(path.name for path in (out / "artifacts").iterdir()) == sorted(
        files + headers + [f"{file}.json" for file in files]
    )
    assert sorted(path.name for path in out.iterdir() if path.is_file()) == [
        "bench.json",
        "history.json",
        "model.keras",
        "qat-history.json",
        "qat.keras",
        "report.csv",
        "report.html",
        "report.json",
        "report.md",
    ]
    assert not list(out.rglob("*.partial"))
    for row in results(report):
        assert row.accuracy is not None
        assert row.accuracy.total == 300
        assert row.accuracy.value > 0.7
    # int8 and int8-qat: .onnx and .c with the .tflite, .tflite and .c with the .tflite in TFLM
    assert len(report.parities) == len(files) + 2 * 2 + 2 * 2
    assert not any(parity.violations for parity in report.parities)
    assert len(from_json((out / "history.json").read_bytes(), History, "history").epochs) == 2
    assert from_json((out / "report.json").read_bytes(), Report, "report") == report
    assert status_of(report) == 0


def test_second_run_redoes_nothing(finished: Path, config: RunConfig) -> None:
    before = kept_files(finished)
    times = {path: path.stat().st_mtime_ns for path in finished.rglob("*") if not path.name.startswith("report.")}
    report = run(config, finished)
    assert redone(report) == set()
    # data; train, quantize; exports; outputs of files, of Keras, in TFLM; layers; bench
    assert len({stage.name for stage in report.stages} - {"demo"}) == 1 + 2 + 8 + 8 + 2 + 2 + 2 + 1
    assert [errors.artifact for errors in report.layers] == ["mnist_cnn-int8.tflite", "mnist_cnn-int8-qat.tflite"]
    assert all("CONV_2D" in {layer.operator for layer in errors.layers} for errors in report.layers)
    assert kept_files(finished) == before
    files = {path: modified for path, modified in times.items() if path.is_file()}
    assert {path: path.stat().st_mtime_ns for path in files} == files


def test_the_report_tries_the_model_or_says_why_not(
    finished: Path, config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    for tool in ("clang", "wasm-ld"):
        tools.need(tool)
    html = finished / "report.html"
    assert "mnist_cnn-int8-qat.tflite runs in this page" in html.read_text()
    assert redone(run(config.replace(demo=False), finished)) == set()
    assert "Try the model" not in html.read_text()
    (finished / "work" / "demo.json").unlink()
    monkeypatch.setattr("shutil.which", lambda tool: None)
    assert failures(run(config, finished)) == []
    assert "Not in this report: WebAssembly needs clang and wasm-ld (Debian packages: clang, lld)." in html.read_text()


def test_other_threads_only_measure_again(finished: Path, config: RunConfig) -> None:
    assert redone(run(config.replace(threads=(2,), schemes=("float32",)), finished)) == {"bench"}


def test_other_io_exports_verifies_and_measures_again(finished: Path, config: RunConfig) -> None:
    schemes = {"schemes": ("int8-qat",), "formats": ("tflite",)}
    report = run(config.replace(io="uint8", **schemes), finished)
    in_tflm = "outputs-mnist_cnn-int8-qat.tflite-in-TFLM"
    exported = named("export", "outputs", "layers", file="int8-qat.tflite")
    assert redone(report) - {"demo"} == {*exported, in_tflm, "bench"}
    assert results(report)[1].artifact.input.dtype == "uint8"


def test_tuning_is_measured_once(finished: Path, config: RunConfig) -> None:
    tuned = config.replace(tune=True, tune_seconds=0.5, schemes=("int8",), formats=("onnx",))
    report = run(tuned, finished)
    assert redone(report) == {"tune-int8", *named("export", "outputs", file="int8.onnx"), "bench"}
    before = kept_files(finished)
    assert redone(run(tuned, finished)) == set()
    assert kept_files(finished) == before


def test_lost_or_damaged_files_are_made_again(finished: Path, config: RunConfig) -> None:
    before = kept_files(finished)
    artifacts = finished / "artifacts"
    (artifacts / "mnist_cnn-float32.tflite").unlink()
    (artifacts / "mnist_cnn-int8.onnx.json").write_text("{}")
    damaged = artifacts / "mnist_cnn-int8-qat.tflite"
    damaged.write_bytes(damaged.read_bytes()[:1000])
    (finished / "work" / "outputs-mnist_cnn-int8.tflite.npy").write_bytes(b"")
    (finished / "work" / "outputs-float-Keras-model.stage.json").write_text('{"key": 1}')
    (finished / "qat-history.json").unlink()
    report = run(config, finished)
    assert redone(report) == {
        "export-mnist_cnn-float32.tflite",
        "export-mnist_cnn-int8.onnx",
        "export-mnist_cnn-int8-qat.tflite",
        "outputs-mnist_cnn-int8.tflite",
        "outputs-float-Keras-model",
        "quantize",
    }, "the same files come back, so nothing after them is redone"
    assert kept_files(finished) == before


def _as_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()
    (path / "file").touch()


def _pickled(path: Path) -> None:
    path.write_bytes(pickle.dumps(["not", "outputs"]))


def _of_objects(path: Path) -> None:
    np.save(path, np.array([{}]), allow_pickle=True)


def _of_another_shape(path: Path) -> None:
    np.save(path, np.zeros((3, 2, 1), np.float32))


def _not_a_record(path: Path) -> None:
    path.write_bytes(b"[" * 100_000)


@pytest.mark.parametrize(
    "damages",
    [
        {
            "work/train.stage.json": (_as_folder, "train"),
            "work/outputs-float-Keras-model.npy": (_of_another_shape, "outputs-float-Keras-model"),
            "work/outputs-mnist_cnn-float32.tflite.npy": (_pickled, "outputs-mnist_cnn-float32.tflite"),
            "bench.json": (_not_a_record, "bench"),
        },
        {
            "work/outputs-float-Keras-model.stage.json": (_as_folder, "outputs-float-Keras-model"),
            "work/outputs-mnist_cnn-float32.tflite.npy": (_of_objects, "outputs-mnist_cnn-float32.tflite"),
            "artifacts/mnist_cnn-float32.tflite.json": (_as_folder, None),
        },
        {
            "work/outputs-float-Keras-model.stage.json": (_not_a_record, "outputs-float-Keras-model"),
            "work/outputs-float-Keras-model.npy": (_as_folder, None),
            "artifacts/mnist_cnn-float32.tflite": (_as_folder, None),
        },
    ],
    ids=["first", "second", "third"],
)
def test_state_that_cannot_be_read_is_made_again(
    few: tuple[Path, RunConfig],
    damages: dict[str, tuple[Callable[[Path], None], str | None]],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Edited by hand, its hash in the stamp as well: what is there is no longer what a run reads."""
    out = Path(shutil.copytree(few[0], tmp_path / "run"))
    before = kept_files(out)
    for file, (damage, _) in damages.items():
        path = out / file
        was = sha256_file(path)
        damage(path)
        if path.is_file():
            for stamp in filter(Path.is_file, out.glob("work/*.stage.json")):
                stamp.write_text(stamp.read_text().replace(was, sha256_file(path)))
    report = run(few[1], out)
    warnings = [one.getMessage() for one in caplog.records if (one.name, one.levelname) == ("edgecnn", "WARNING")]
    repeated = [line.partition(" is repeated: ")[0] for line in warnings]
    assert sorted(repeated) == sorted(stage for _, stage in damages.values() if stage is not None)
    assert failures(report) == []
    assert len(redone(report)) >= len(damages) - 1
    assert kept_files(out) == before


@pytest.fixture(scope="module")
def few(
    undisturbed: tuple[Path, Report], config: RunConfig, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, RunConfig]:
    """A finished run of one file, and its settings; copy it before changing it."""
    out = Path(shutil.copytree(undisturbed[0], tmp_path_factory.mktemp("few") / "run"))
    settings = config.replace(schemes=("float32",), formats=("tflite",))
    run(settings, out)
    return out, settings


def test_leftovers_that_are_folders_are_removed(config: RunConfig, tmp_path: Path) -> None:
    leftover = tmp_path / "work" / ".edgecnn-0123456789ab-0123456789ab.partial"
    (leftover / "below").mkdir(parents=True)
    pipeline._Flow(config, tmp_path)
    assert not leftover.exists()


def test_two_runs_in_one_folder(config: RunConfig, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with subprocess.Popen(command(config, out), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as first:
        lock = out / "work" / ".edgecnn.lock"
        while not (lock.is_file() and lock.read_text()):  # its owner writes into it once it is locked
            assert first.poll() is None, first.communicate()
            time.sleep(0.01)
        with pytest.raises(OutputError, match=rf"another edgecnn process \({first.pid}\) works in .*run/work"):
            run(config, out)
        first.kill()
    assert (out / "work" / ".edgecnn.lock").is_file(), "the killed run left it"
    assert results(run(config.replace(schemes=("float32",), formats=("tflite",)), out))
    assert not (out / "work" / ".edgecnn.lock").exists()


def test_another_model_redoes_everything(finished: Path, config: RunConfig) -> None:
    other = config.replace(seed=1, epochs=1, schemes=("float32",), formats=("tflite",))
    report = run(other, finished)
    assert redone(report) == {
        "train",
        "outputs-float-Keras-model",
        *named("export", "outputs", file="float32.tflite"),
        "bench",
    }, "and what quantize left of the model before does no harm"
    assert len(results(report)) == 2


# ------------------------------------------------------------------------------------------------------ killed


def command(config: RunConfig, out: Path) -> list[str]:
    text = f"""
        data = "{config.data}"
        epochs = {config.epochs}
        qat_epochs = {config.qat_epochs}
        schemes = {list(config.schemes)}
        tune = {str(config.tune).lower()}
        seconds = {config.seconds}
        cold = {config.cold}
    """
    file = out.with_suffix(".toml")
    file.write_text(text)
    return [sys.executable, "-m", "edgecnn", "run", str(file), "--out", str(out)]


def test_what_others_keep_in_the_folder_stays(config: RunConfig, tmp_path: Path) -> None:
    """A run clears up after a run that was killed, in its own subfolders only."""
    leftover = ".edgecnn-0123456789ab-0123456789ab.partial"  # as edgecnn.files names what it is writing
    theirs = [tmp_path / "docs" / ".thesis.odt.partial", tmp_path / leftover, tmp_path / "work" / ".notes.txt.partial"]
    ours = [tmp_path / "work" / "epochs-1" / leftover, tmp_path / "artifacts" / leftover]
    for path in (*theirs, *ours):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    pipeline._Flow(config, tmp_path)
    assert all(path.is_file() for path in theirs)
    assert not any(path.exists() for path in ours)


def test_killed_again_and_again_ends_the_same(
    undisturbed: tuple[Path, Report], config: RunConfig, tmp_path: Path
) -> None:
    """``EDGECNN_KILLS=100`` kills it so many times more, at any moment."""
    out, temporary = tmp_path / "run", tmp_path / "temporary"
    temporary.mkdir()
    environment = {**os.environ, "TMPDIR": str(temporary)}
    draw = random.Random(0)
    for _ in range(int(os.environ.get("EDGECNN_KILLS", "0"))):
        with subprocess.Popen(
            command(config, out), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment
        ) as process:
            try:
                _, said = process.communicate(timeout=draw.uniform(0.1, 25))
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()
            else:
                assert process.returncode == 0, said
            if process.returncode == 0 or not draw.randrange(4):
                shutil.rmtree(out, ignore_errors=True)
    shutil.rmtree(out, ignore_errors=True)
    moments = [
        # once this file is there, wait so many seconds, then send the signal
        ("work/epochs-*/epoch-1.keras", 0.0, signal.SIGKILL),  # training
        ("model.keras", 1.5, signal.SIGINT),  # quantisation-aware training
        ("artifacts/mnist_cnn-int8.tflite", 0.0, signal.SIGKILL),  # export, the sidecar not yet there
        ("work/outputs-mnist_cnn-int8-qat.onnx.stage.json", 4.0, signal.SIGKILL),  # measuring
    ]
    for pattern, seconds, how in moments:
        assert not list(out.glob(pattern)), f"{pattern} was there too early"
        with subprocess.Popen(
            command(config, out), stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
        ) as process:
            while not list(out.glob(pattern)):
                assert process.poll() is None, process.communicate()
                time.sleep(0.002)
            time.sleep(seconds)
            assert process.poll() is None, "it ended too early"
            process.send_signal(how)
            printed, said = process.communicate(timeout=60)
        assert printed == b""
        if how == signal.SIGKILL:
            assert process.returncode == -signal.SIGKILL
        else:
            assert process.returncode == 130, said
            lines = said.decode().strip().split("\n")
            assert lines[-1] == "edgecnn: interrupted; run the same command again to resume"
            assert b"Traceback" not in said
        assert not (out / "report.json").exists()
    (out / "work" / ".edgecnn-0123456789ab-0123456789ab.partial").write_bytes(b"a killed write of other settings")

    assert any(temporary.iterdir()), "the killed runs left temporary files"
    subprocess.run(command(config, out), env=environment, check=True, capture_output=True)
    report = from_json((out / "report.json").read_bytes(), Report, "report.json")
    assert list(temporary.iterdir()) == []
    assert processes_with(str(temporary)) == []
    assert kept_files(out) == kept_files(undisturbed[0])
    assert {"train", "quantize"} & redone(report) == set()
    assert not list(out.rglob("*.partial"))
    assert sorted(map(str, (path.relative_to(out) for path in out.rglob("*")))) == sorted(
        str(path.relative_to(undisturbed[0])) for path in undisturbed[0].rglob("*")
    )


def processes_with(text: str) -> list[str]:
    """The command lines of processes whose environment has ``text`` in it."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if text.encode() in (folder / "environ").read_bytes():
                found.append((folder / "cmdline").read_bytes().decode(errors="replace"))
    return found


def test_failed_measurements_are_tried_again(
    finished: Path, config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure = pipeline.bench

    def spoilt(candidates: Any, **how: Any) -> Any:
        measured = measure(candidates[:2], **how)
        failure = Failure(subject="one", stage="bench", error="MemoryError", reason="out of memory")
        return measured.replace(rows=(measured.rows[0], failure))

    few = config.replace(schemes=("float32",), formats=("tflite",))
    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "bench", spoilt)
        assert [failure.subject for failure in failures(run(few, finished))] == ["one"]
    report = run(few, finished)
    assert redone(report) == {"bench"}
    assert failures(report) == []


# -------------------------------------------------------------------------------------------- a user's own model


def residual(path: Path) -> Path:
    layers = keras.layers
    keras.utils.set_random_seed(0)
    inputs = keras.Input((28, 28, 1))
    start = layers.ReLU()(
        layers.BatchNormalization(momentum=0.9)(layers.Conv2D(8, 3, strides=2, use_bias=False)(inputs))
    )
    x = layers.DepthwiseConv2D(3, padding="same", use_bias=False)(start)
    x = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))
    x = layers.BatchNormalization(momentum=0.9)(layers.Conv2D(8, 1, use_bias=False)(x))
    x = layers.ReLU()(layers.Add()([start, x]))
    outputs = layers.Dense(10, activation="softmax")(layers.GlobalAveragePooling2D()(x))
    keras.Model(inputs, outputs, name="own").save(path)
    return path


def test_own_model_goes_through_with_qat(clothes: Path, tmp_path: Path) -> None:
    own, out = residual(tmp_path / "own.keras"), tmp_path / "out"
    settings = RunConfig(
        model=str(own),
        data=str(clothes),
        epochs=3,
        qat_epochs=1,
        learning_rate=0.01,
        tune=False,
        seconds=0.05,
        cold=1,
        schemes=SCHEMES,
    )
    report = run(settings, out)
    assert failures(report) == []
    files = [f"own-{scheme}.{format}" for format in ("tflite", "onnx") for scheme in SCHEMES]
    files += ["own-int8.c", "own-int8-qat.c"]
    assert [row.artifact.file for row in results(report)] == ["model.keras", *files]
    assert [parity.violations for parity in report.parities] == [()] * len(report.parities)
    assert report.title == "own on clothes"
    accuracies = [row.accuracy.value for row in results(report) if row.accuracy is not None]
    assert len(accuracies) == 9
    assert min(accuracies) > 0.3


def test_model_that_qat_cannot_take_gives_all_other_rows(
    clothes: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    layers = keras.layers
    own, out = tmp_path / "own.keras", tmp_path / "out"
    inputs = [keras.Input((28, 28, 1)), layers.MaxPooling2D(4), layers.Flatten()]
    last = layers.Dense(10, kernel_initializer="zeros", name="last")  # random weights may be better than guessing
    model = keras.Sequential([*inputs, layers.UnitNormalization(name="the_odd_one"), last])
    model.save(own)
    schemes = ("float32", "float16", "int8-qat")
    asked = {"schemes": schemes, "formats": ("tflite",), "qat_engine": "tfmot", "seconds": 0.05, "cold": 1}
    settings = RunConfig(model=str(own), data=str(clothes), **asked)
    with caplog.at_level(logging.WARNING, "edgecnn"):
        report = run(settings, out)
    (failure,) = failures(report)
    assert (failure.subject, failure.stage, failure.error, failure.expected) == (
        "int8-qat",
        "quantize",
        "QuantizationError",
        True,
    )
    assert "the_odd_one" in failure.reason
    assert [row.artifact.file for row in results(report)] == ["model.keras", "own-float32.tflite", "own-float16.tflite"]
    assert status_of(report) == 0
    assert capsys.readouterr().err.count("edgecnn: ") == 0
    with pytest.raises(SystemExit, match="1"):
        status(report, as_json=True, strict=True)
    assert "edgecnn: int8-qat (quantize): " in capsys.readouterr().err

    # an untrained .keras file
    assert [kept.tolist() for kept in keras.saving.load_model(out / "model.keras").get_weights()] == [
        kept.tolist() for kept in model.get_weights()
    ]
    assert from_json((out / "history.json").read_bytes(), History, "history").epochs == ()
    (warning,) = [record.getMessage() for record in caplog.records if record.name == "edgecnn"]
    assert "no better than guessing" in warning
    assert warning.endswith("it was not trained in this run: pass --epochs")


def test_what_cannot_be_made_is_said_before_training(
    clothes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    layers, own = keras.layers, tmp_path / "own.keras"
    inside = [layers.Reshape((28, 28)), layers.AveragePooling1D(4), layers.LSTM(4, name="the_odd_one")]
    keras.Sequential([keras.Input((28, 28, 1)), *inside, layers.Dense(10)]).save(own)

    def stop(*_: object, **__: object) -> None:
        raise ModelError("training begins")

    monkeypatch.setattr("edgecnn.pipeline.train", stop)
    settings = RunConfig(model=str(own), data=str(clothes), epochs=1, schemes=("float32", "int8", "int16x8"))
    with pytest.raises(ModelError, match="training begins"):
        run(settings, tmp_path / "out")
    told = [
        one.getMessage() for one in caplog.records if one.name == "edgecnn" and "cannot be made" in one.getMessage()
    ]
    assert [line.partition(" cannot be made: ")[0] for line in told] == ["own-int8.c"]
    assert "generated C computes in int8 only" in told[0]
    assert "layer the_odd_one (" in told[0]


def test_model_that_does_not_fit_the_data(tmp_path: Path, clothes: Path) -> None:
    own = tmp_path / "own.keras"
    keras.Sequential([keras.Input((32, 32, 3)), keras.layers.Flatten(), keras.layers.Dense(10)]).save(own)
    with pytest.raises(ModelError, match=r"takes input \(None, 32, 32, 3\)"):
        run(RunConfig(model=str(own), data=str(clothes)), tmp_path / "out")
    assert not (tmp_path / "out" / "model.keras").exists()


# ------------------------------------------------------------------------------------------- out of tolerance


def test_damage_to_an_artifact_is_told(finished: Path, config: RunConfig, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that passes every hash but computes something else: exported from weights that were tampered with."""
    few = config.replace(schemes=("float32",), formats=("onnx",))
    outputs = finished / "work" / "outputs-mnist_cnn-float32.onnx.npy"
    stamp = finished / "work" / "outputs-mnist_cnn-float32.onnx.stage.json"
    wrong = np.load(outputs)
    wrong[137] = np.roll(wrong[137], 1)
    before = sha256_file(outputs)
    np.save(outputs, wrong)
    stamp.write_text(stamp.read_text().replace(before, sha256_file(outputs)))
    report = run(few, finished)
    assert redone(report) == {"bench"}
    (parity,) = report.parities
    assert parity.difference.worst_image == 137
    assert status_of(report) == 1
    said = capsys.readouterr().err
    assert "edgecnn: mnist_cnn-float32.onnx against float Keras model: largest difference " in said
    assert " on image 137 (limit 0.001)" in said
    assert "mnist_cnn-float32.onnx" in (finished / "report.md").read_text()


def test_impossible_tolerance_fails_the_run(
    finished: Path, config: RunConfig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    none = Tolerance(max_abs=0, mean_abs=0, agreement=1, accuracy_drop=0)
    monkeypatch.setitem(verification.TOLERANCES, "int8", none)
    report = run(config, finished)
    assert redone(report) == set()
    broken = {parity.artifact for parity in report.parities if parity.violations}
    assert broken == {"mnist_cnn-int8.tflite", "mnist_cnn-int8.onnx", "mnist_cnn-int8.c"}
    assert status_of(report) == 1
    assert capsys.readouterr().err.count("edgecnn: mnist_cnn-int8.onnx against float Keras model: ") >= 2


# ---------------------------------------------------------------------------------------------- the float baseline

H100 = "measured elsewhere, on NVIDIA H100 80GB HBM3"


def test_a_run_is_put_beside_the_baseline_that_comes_with_edgecnn(undisturbed: tuple[Path, Report]) -> None:
    out, report = undisturbed
    assert [(one.backend, one.device) for one in report.baselines] == [
        ("jax", "gpu: NVIDIA H100 80GB HBM3"),
        ("torch", "gpu: NVIDIA H100 80GB HBM3"),
    ]
    for name in ("report.md", "report.html", "report.csv", "report.json"):
        assert H100 in (out / name).read_text(encoding="utf-8")
    shown = io.StringIO()
    show(report, Console(file=shown, width=100))
    assert H100 in " ".join(shown.getvalue().split())
    *lines, last, slower = csv.DictReader((out / "report.csv").read_text(encoding="utf-8").splitlines())
    for row in (last, slower):
        assert (row["row"], row["elsewhere"], row["same_machine"]) == ("baseline", H100, "no")
    assert float(last["time_p50_s"]) == pytest.approx(142e-6, rel=0.01)
    assert float(slower["time_p50_s"]) == pytest.approx(305e-6, rel=0.01)
    for line, row in zip(lines, results(report), strict=False):
        here = statistics.summary(row.measurement).median
        assert float(line["time_to_baseline_ratio"]) == pytest.approx(here / float(last["time_p50_s"]))
        low, high = float(line["time_to_baseline_low_ratio"]), float(line["time_to_baseline_high_ratio"])
        assert low < float(line["time_to_baseline_ratio"]) < high
        assert line["baseline"] == "mnist_cnn.keras (jax) on NVIDIA H100 80GB HBM3"
        assert line["accuracy_to_baseline_paired"] == "no"  # trained on other images
        # nor is it what quantisation has cost
        assert line["accuracy_to_float_keras_points"] == "" or abs(float(line["accuracy_to_float_keras_points"])) < 5


def test_which_baselines_a_run_is_put_beside(finished: Path, config: RunConfig, tmp_path: Path) -> None:
    shipped, _ = run(config, finished).baselines
    assert run(config.replace(baselines=("none",)), finished).baselines == ()
    assert "no float baseline was measured" in (finished / "report.md").read_text(encoding="utf-8")
    mine, other = tmp_path / "mine.json", tmp_path / "other.json"
    mine.write_bytes(to_json(shipped.replace(model="mine.keras")))
    report = run(config.replace(baselines=(str(mine),)), finished)
    assert redone(report) == set()
    assert [baseline.model for baseline in report.baselines] == ["mine.keras"]
    other.write_bytes(to_json(shipped.replace(model="other.keras", architecture="0" * 64)))
    with pytest.raises(ConfigError, match=r"other\.json is a baseline of other\.keras .* not the model of mnist_cnn"):
        run(config.replace(baselines=(str(mine), str(other))), tmp_path / "out")
    assert not list((tmp_path / "out").rglob("*.*"))  # before the training
    with pytest.raises(ConfigError, match="baselines are files, or none"):
        config.replace(baselines=("none", str(mine)))


def test_other_models_have_no_baseline(digits: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.keras"
    narrow = mnist_cnn(classes=9)
    narrow.save(own)
    assert pipeline._Flow(RunConfig(model=str(own), data=str(digits)), tmp_path / "out").baselines == ()
    mnist_cnn().save(own)
    found = pipeline._Flow(RunConfig(model=str(own), data=str(digits)), tmp_path / "out").baselines
    assert [baseline.backend for baseline in found] == ["jax", "torch"]


# ---------------------------------------------------------------------------------------------- what fails early


def test_what_everything_depends_on_fails_first(tmp_path: Path, digits: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(DataError, match="no data at"):
        run(RunConfig(data=str(tmp_path / "none.npz")), out)
    with pytest.raises(RecordError, match="cannot read"):
        run(RunConfig(data=str(digits), baselines=(str(tmp_path / "none.json"),)), out)
    with pytest.raises(ModelError, match="no model file at"):
        run(RunConfig(data=str(digits), model=str(tmp_path / "none.keras")), out)
    assert not list(out.rglob("*.*"))


def test_package_that_is_not_there(tmp_path: Path, digits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "_TOOLS", ("edgecnn", "no-such-package"))
    with pytest.raises(MissingExtraError, match=r"'no-such-package', .* pip install no-such-package$"):
        run(RunConfig(data=str(digits)), tmp_path / "out")


@pytest.mark.parametrize(
    "wrong",
    [
        {"schemes": ()},
        {"formats": ()},
        {"schemes": ("int4",)},
        {"io": "int4"},
        {"batch": "2"},
        {"model": "resnet"},
        {"input_range": (0.0, 1.0, 2.0)},
        {"seed": -1},
        {"seed": 2**31},
        {"epochs": -1},
        {"qat_epochs": 0},
        {"batch_size": 0},
        {"learning_rate": float("nan")},
        {"qat_learning_rate": -1.0},
        {"validation_split": 1.0},
        {"calibration_images": 0},
        {"threads": ()},
        {"threads": (0,)},
        {"seconds": float("inf")},
        {"cold": 0},
    ],
)
def test_senseless_settings(wrong: dict[str, Any]) -> None:
    (field,) = wrong
    with pytest.raises(ConfigError, match=field.rstrip("s")):
        RunConfig(**wrong)
    with pytest.raises(ConfigError, match=field.rstrip("s")):
        RunConfig().replace(**wrong)
