"""The command ``edgecnn``: help, results, exit status, and one clear line for whatever is wrong."""

import json
import os
import pty
import re
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, get_args

import click
import keras
import numpy as np
import pytest
from conftest import Workspace
from PIL import Image

from edgecnn import cli, files, pipeline
from edgecnn.config import RunConfig, description_of
from edgecnn.data import DataSet
from edgecnn.emulation.processors import PROCESSORS
from edgecnn.errors import ConfigError, EdgecnnError
from edgecnn.progress import progress
from edgecnn.records import Artifact, Baseline, History, Io, Parity, Report, from_json

GROUPS = {name: group for name, group in cli.cli.commands.items() if isinstance(group, click.Group)}
COMMANDS = cli.cli.commands | {
    f"{name} {part}": command for name, group in GROUPS.items() for part, command in group.commands.items()
}
QUICK = ("--seconds", "0.05", "--cold", "1")


class Ended(NamedTuple):
    status: int
    out: str
    err: str


Command = Callable[..., Ended]


@pytest.fixture
def edgecnn(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    """Run the command in this process; its output, and the exit status."""

    def run(*arguments: object) -> Ended:
        monkeypatch.setattr(sys, "argv", ["edgecnn", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as end:
            cli.main()
        out, err = capfd.readouterr()
        # what TensorFlow's C++ says where a test imported it before edgecnn could make it quiet
        err = re.sub(r"^[EWI]\d{4} .*\n", "", err, flags=re.MULTILINE)
        return Ended(int(end.value.code or 0), out, err)

    return run


def in_a_process(*arguments: object, before: str = "") -> Ended:
    """Run the command in a fresh interpreter, after the Python code ``before``."""
    code = f"{before}\nimport sys\nfrom edgecnn.cli import main\nsys.argv = {['edgecnn', *map(str, arguments)]}\nmain()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    return Ended(done.returncode, done.stdout, done.stderr)


def one_line(ended: Ended, status: int, *parts: str) -> None:
    """Check that nothing came of it but one line on stderr with all ``parts``."""
    assert ended.status == status, ended
    assert ended.out == ""
    assert re.fullmatch(r"edgecnn: [^\n]+\n", ended.err), ended.err
    for part in parts:
        assert part in ended.err


def arrays(**changes: Any) -> dict[str, Any]:
    """A good data set of 40 images in 2 classes, with ``changes``."""
    random = np.random.default_rng(0)
    good: dict[str, Any] = {
        "x_train": random.integers(0, 256, (32, 28, 28), np.uint8),
        "y_train": np.arange(32) % 2,
        "x_test": random.integers(0, 256, (8, 28, 28), np.uint8),
        "y_test": np.arange(8) % 2,
    }
    return good | changes


# ------------------------------------------------------------------------------------------------------- help


@pytest.mark.parametrize("name", COMMANDS)
def test_command_and_each_of_its_options_have_help(name: str) -> None:
    command = COMMANDS[name]
    assert command.help
    assert not command.get_short_help_str(63).endswith("..."), "too long for the list of commands"
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{name} {parameter.opts}"
            assert parameter.help.rstrip("]").endswith((".", ": 0,1", ")")) or "[default" in parameter.help
        else:
            assert str(parameter.name).upper().rstrip("S") in command.help.upper()


def test_commands() -> None:
    assert set(COMMANDS) >= {
        "baseline",
        "bench",
        "check",
        "diagnose stages",
        "diagnose layers",
        "diagnose noise",
        "embed",
        "emulate",
        "export",
        "quantize",
        "report",
        "run",
        "train",
        "verify",
    }


def test_choices_are_those_of_the_library() -> None:
    assert ", ".join(PROCESSORS) in re.sub(r"\s+", " ", COMMANDS["emulate"].help or "")
    for name in ("run", "export"):
        choices = {
            option.name: tuple(option.type.choices)
            for option in COMMANDS[name].params
            if isinstance(option.type, click.Choice)
        }
        assert choices["io"] == get_args(Io)
        assert choices["batch"] == ("1", "dynamic")


def test_every_setting_of_a_run_is_an_option() -> None:
    fields = set(RunConfig.__struct_fields__)
    options = {str(parameter.name) for parameter in COMMANDS["run"].params} - {"config", "out", "strict", "as_json"}
    assert options == fields
    assert all(description_of(field) for field in fields)


def test_defaults_told_by_run_are_those_of_the_settings() -> None:
    told = {
        option.name: re.findall(r"\[default: (.*)\]", option.help or "")
        for option in COMMANDS["run"].params
        if isinstance(option, click.Option)
    }
    for field in ("model", "data", "qat_epochs", "seed", "io", "batch", "calibration_images", "cold"):
        assert told[field] == [str(getattr(RunConfig(), field))]
    assert told["seconds"] == [f"{RunConfig().seconds:g}"]
    assert told["threads"] == [",".join(map(str, RunConfig().threads))]


def test_no_command_shows_the_help(edgecnn: Command) -> None:
    ended = edgecnn()
    assert ended.status == 2
    assert "Commands:" in ended.out + ended.err


# ------------------------------------------------------------------------------------------------ wrong usage


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["trian"], "No such command 'trian'"),
        (["run", "--schemes", "int4"], "unknown scheme 'int4'; choose from: dynamic-int8, float16, float32, int16x8"),
        (["run", "--formats", "tflite,tvm"], "unknown format 'tvm'; choose from: c99, onnx, tflite"),
        (["run", "--io", "int4"], "'int4' is not one of 'float32', 'int8', 'uint8'"),
        (["run", "--threads", "one"], "'one' is not a list of numbers such as 1,2"),
        (["run", "--seed", "-1"], "seed must be 0 or more and below 2³¹, got -1"),
        (["train"], "Missing option '--out'"),
        (["bench"], "Missing argument 'FILES...'"),
        (
            ["baseline", "m.keras", "--data", "none", "--out", "b.json", "--device", "tpu"],
            "'tpu' is not one of 'auto', 'cpu', 'gpu'",
        ),
    ],
)
def test_wrong_usage(edgecnn: Command, arguments: list[str], says: str) -> None:
    ended = edgecnn(*arguments)
    assert ended.status == 2
    assert ended.out == ""
    assert says in ended.err
    assert "Traceback" not in ended.err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["run", "--model", "resnet"], "unknown model 'resnet'; choose from: autoencoder, "),
        (["run", "--data", "minst"], "unknown data set 'minst'; choose from: "),
        (["run", "--input-range", "0,1,2"], "input_range must be two numbers such as 0,1, got (0.0, 1.0, 2.0)"),
        (["run", "--input-range", "1,0"], "input_range must be two finite numbers, lower one first"),
        (["run", "--epochs", "-1"], "epochs must be 0 or more and below 2³¹, got -1"),
        (["run", "--qat-epochs", "0"], "qat_epochs must be positive and below 2³¹, got 0"),
        (["run", "--seconds", "nan"], "seconds must be positive and below 2³¹, got nan"),
        (["run", "--cold", "0"], "cold must be positive and below 2³¹, got 0"),
        (["run", "--threads", "0"], "threads must be one or more positive numbers"),
        (["train", "--out", "model.h5"], "--out must end in .keras, got model.h5"),
        (
            ["train", "--out", "m.keras", "--input-range", "1"],
            "input_range must be two numbers such as 0,1, got (1.0,)",
        ),
        (["quantize", "m.keras", "--data", "mnist", "--out", "qat"], "--out must end in .keras, got qat"),
        (["run", "--model", "m.keras"], "--data is needed for a model of your own"),
        (["bench", "m.tflite", "--threads", "0"], "threads must be one or more positive numbers"),
        (["bench", "m.tflite", "--out", "results"], "--out must end in .json, got results"),
        (["baseline", "m.tflite", "--out", "b.json", "--data", "DATA"], "m.tflite does not end in .keras"),
    ],
)
def test_senseless_settings(
    edgecnn: Command, arguments: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    np.savez(tmp_path / "good.npz", **arrays())
    one_line(edgecnn(*["good.npz" if argument == "DATA" else argument for argument in arguments]), 2, says)
    assert not list(tmp_path.glob("m*"))


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("epohcs = 3", ["unknown field `epohcs`; the keys are: model, data, ", "qat_learning_rate"]),
        ("epochs = 'three'", ["epochs: Expected `int | null`, got `str`"]),
        ("io = 'int4'", ["unknown io 'int4'; choose from: float32, int8, uint8"]),
        ("batch = '2'", ["unknown batch '2'; choose from: 1, dynamic"]),
        ("schemes = ['int4']", ["unknown scheme 'int4'; choose from: "]),
        ("formats = ['tvm']", ["unknown format 'tvm'; choose from: c99, onnx, tflite"]),
        ("threads = []", ["threads must be one or more positive numbers"]),
        ("epochs: 3", ["is not a valid configuration"]),
        ("\xff\xfe", ["is not a valid configuration"]),
        (None, ["cannot read the configuration", "No such file"]),
    ],
)
def test_bad_configuration(edgecnn: Command, text: str | None, parts: list[str], tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    if text is not None:
        config.write_bytes(text.encode("latin-1"))
    out = tmp_path / "out"
    one_line(edgecnn("run", config, "--out", out), 2, *parts)
    assert not out.exists()


def test_settings_are_checked_however_they_come() -> None:
    with pytest.raises(ConfigError, match="unknown io 'int4'; choose from: float32, int8, uint8"):
        RunConfig().replace(io="int4")
    with pytest.raises(ConfigError, match="seed must be 0 or more"):
        RunConfig(seed=-1)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("#" * 65_537, "it has 65,537 bytes, more than 65,536"),
        ("a." * 2048 + "b = 1", "a line may have 4,096 bytes at most"),
        ("x = " + "[\n" * 20_000, "it is nested too deeply"),
        ("x = " + "{a=" * 1000, "it is nested too deeply"),
        ("seed = " + "9" * 4050, "seed must be 0 or more and below"),
        ("seed = 0x" + "f" * 4000, "is not a valid configuration"),
        ("seconds = 1e300", "seconds must be positive and below"),
        ("epochs = 99999999999999999999", "epochs must be 0 or more and below"),
        ("threads = [99999999999999999999]", "threads must be one or more positive numbers below"),
    ],
    ids=range(9),
)
def test_a_configuration_that_cannot_be(edgecnn: Command, text: str, said: str, tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text(text)
    status, out, err = edgecnn("run", config)
    assert (status, out) == (2, "")
    assert said in err
    assert len(err) < 1100


def test_options_come_before_the_configuration(
    edgecnn: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workspace: Workspace
) -> None:
    config = tmp_path / "config.toml"
    config.write_text('data = "fashion-mnist"\nepochs = 3\nthreads = [1, 2]\nbaselines = ["a.json"]\nbatch_size = 32')
    seen: list[tuple[RunConfig, Path]] = []

    def stop(settings: RunConfig, out: Path) -> Report:
        seen.append((settings, out))
        raise EdgecnnError("far enough")

    monkeypatch.setattr(pipeline, "run", stop)
    one_line(edgecnn("run", config, "--epochs", "0", "--io", "uint8"), 1, "far enough")
    expected = RunConfig(
        data="fashion-mnist", epochs=0, threads=(1, 2), baselines=("a.json",), batch_size=32, io="uint8"
    )
    assert seen == [(expected, Path("runs/fashion-mnist"))]


# --------------------------------------------------------------------------------------------------- bad data

BAD_DATA: dict[str, tuple[dict[str, Any], str]] = {
    "objects": ({"x_train": np.array([{}, {}], object)}, "contains Python objects (pickle), which are never loaded"),
    "flat": ({"x_train": np.zeros((32, 784), np.uint8)}, "got (784,) and (28, 28, 1); resize them"),
    "nan": ({"x_train": np.full((32, 28, 28), np.nan, np.float32)}, "NaN"),
    "labels": ({"y_train": np.arange(32) - 1}, "label"),
    "one class": ({"y_train": np.zeros(32, int), "y_test": np.zeros(8, int)}, "class"),
    "sizes": ({"x_test": np.zeros((8, 32, 32), np.uint8)}, "32"),
}


@pytest.mark.parametrize("name", BAD_DATA)
def test_unusable_data(edgecnn: Command, name: str, tmp_path: Path) -> None:
    changes, says = BAD_DATA[name]
    path, out = tmp_path / "bad.npz", tmp_path / "model.keras"
    np.savez(path, **arrays(**changes))
    one_line(edgecnn("train", "--data", path, "--out", out), 1, str(path), says)
    assert not out.exists()


@pytest.mark.parametrize("data", ["nothere.npz", "./folder", "folder/deep", "nothere.tar.gz"])
def test_no_data_at_a_path(edgecnn: Command, data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    one_line(edgecnn("train", "--data", data, "--out", "m.keras"), 1, f"no data at {data}; check the path")


def test_damaged_data_file(edgecnn: Command, tmp_path: Path) -> None:
    path = tmp_path / "cut.npz"
    np.savez(path, **arrays())
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", whole[:5000] + b"\xff" * 100 + whole[5100:]):
        path.write_bytes(damaged)
        one_line(edgecnn("run", "--data", path, "--out", tmp_path / "out"), 1, str(path))
    assert not list((tmp_path / "out").rglob("*.*"))


def test_unusable_folders(edgecnn: Command, tmp_path: Path) -> None:
    from PIL import Image

    one_line(edgecnn("train", "--data", tmp_path, "--out", tmp_path / "m.keras"), 1, str(tmp_path), "train")
    for split in ("train", "test"):
        for number, label in enumerate("ab"):
            (tmp_path / split / label).mkdir(parents=True)
            Image.new("L", (20 + number, 20)).save(tmp_path / split / label / "image.png")
    ended = edgecnn("train", "--data", tmp_path, "--out", tmp_path / "m.keras")
    assert ended.status == 1
    assert re.fullmatch(
        r"reading \S+: stopped after 0\.\d s.*\nedgecnn: .*a/image\.png is 20x20 .*b/image\.png is 21x20 .*\n",
        ended.err,
    )
    assert not (tmp_path / "m.keras").exists()


# ------------------------------------------------------------------------------------------------- bad models


def _not_one(path: Path) -> None:
    path.write_text("no model")


def _truncated(path: Path) -> None:
    keras.Sequential([keras.Input((28, 28, 1)), keras.layers.Flatten(), keras.layers.Dense(2)]).save(path)
    path.write_bytes(path.read_bytes()[:-500])


def _with_code(path: Path) -> None:
    layers = [keras.Input((28, 28, 1)), keras.layers.Lambda(lambda x: x + 1), keras.layers.Flatten()]
    keras.Sequential([*layers, keras.layers.Dense(2)]).save(path)


def _other_size(path: Path) -> None:
    keras.Sequential([keras.Input((32, 32, 3)), keras.layers.Flatten(), keras.layers.Dense(2)]).save(path)


def _other_classes(path: Path) -> None:
    keras.Sequential([keras.Input((28, 28, 1)), keras.layers.Flatten(), keras.layers.Dense(5)]).save(path)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (_not_one, "cannot be loaded as a Keras 3 model"),
        (_truncated, "cannot be loaded as a Keras 3 model"),
        (_with_code, "contains a Lambda layer with Python code, which is not run for safety"),
        (_other_size, "takes input (None, 32, 32, 3), the images of data give (None, 28, 28, 1)"),
        (_other_classes, "gives output (None, 5), data has 2 classes"),
        (None, "no model file at"),
    ],
)
def test_unusable_model(edgecnn: Command, make: Callable[[Path], None] | None, says: str, tmp_path: Path) -> None:
    data, model = tmp_path / "data.npz", tmp_path / "own.keras"
    np.savez(data, **arrays())
    if make is not None:
        make(model)
    out = tmp_path / "out"
    one_line(edgecnn("run", "--data", data, "--model", model, "--out", out), 1, says)
    one_line(edgecnn("quantize", model, "--data", data, "--out", tmp_path / "qat.keras"), 1, says)
    one_line(edgecnn("export", model, "--data", data, "--out", out / "export"), 1, says)
    assert not list(out.rglob("*.*"))
    assert not (tmp_path / "qat.keras").exists()


# ----------------------------------------------------------------------------------------------------- output


@pytest.fixture
def data_file(tmp_path: Path) -> Path:
    path = tmp_path / "data.npz"
    np.savez(path, **arrays())
    return path


def test_output_folder_that_is_a_file_or_below_one(edgecnn: Command, tmp_path: Path, data_file: Path) -> None:
    for command in (["run"], ["export", tmp_path / "m.keras"]):
        one_line(edgecnn(*command, "--data", data_file, "--out", data_file), 1, f"output folder {data_file} is a file")
        below = data_file / "deep"
        one_line(edgecnn(*command, "--data", data_file, "--out", below), 1, f"parent of output folder {below}")
    below = data_file / "model.keras"
    one_line(edgecnn("train", "--data", data_file, "--out", below), 1, f"output folder {data_file} is a file")


def test_output_folder_that_is_not_writable(
    edgecnn: Command, tmp_path: Path, data_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files.os, "access", lambda path, mode: False)  # root may write everywhere
    one_line(edgecnn("run", "--data", data_file, "--out", tmp_path / "out"), 1, "is not writable")


@pytest.fixture
def no_large_files() -> Iterator[None]:
    """A limit on the size of files takes the place of a full disk: writes fail in the middle."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("command", [["run", "--out", "OUT"], ["train", "--out", "OUT/model.keras"]])
def test_full_disk(
    edgecnn: Command, command: list[str], tmp_path: Path, data_file: Path, request: pytest.FixtureRequest
) -> None:
    out = tmp_path / "out"
    arguments = [argument.replace("OUT", str(out)) for argument in command]
    request.getfixturevalue("no_large_files")  # the data are larger
    ended = edgecnn(*arguments, "--data", data_file, "--epochs", "1")
    assert ended.status == 1, ended
    assert "Traceback" not in ended.err
    last = ended.err.strip().split("\n")[-1]
    assert last.startswith("edgecnn: cannot write ")
    assert last.endswith("File too large")
    assert not list(out.rglob("*.keras")) + list(out.rglob("*.partial"))


def test_interrupted(edgecnn: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> Report:
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline, "run", interrupted)
    ended = edgecnn("run", "--out", tmp_path)
    assert (ended.status, ended.out) == (130, "")
    assert ended.err.endswith("edgecnn: interrupted; run the same command again to resume\n")


def test_interrupt_that_python_loses_is_heard(
    edgecnn: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Collected:
        def __del__(self) -> None:
            raise KeyboardInterrupt

    def lost(*_: object) -> Report:
        Collected()  # an exception here can only be printed
        time.sleep(5)
        raise AssertionError("the interrupt was not heard")

    monkeypatch.setattr(pipeline, "run", lost)
    ended = edgecnn("run", "--out", tmp_path)
    assert ended.status == 130
    assert "ignored" not in ended.err


def test_closed_pipe_ends_quietly(workspace: Workspace, tmp_path: Path) -> None:
    record = tmp_path / "results.json"
    model = workspace.path("tflite", "float32")
    assert in_a_process("bench", model, *QUICK, "--out", record).status == 0
    command = [sys.executable, "-m", "edgecnn", "report", str(record)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 1


# ------------------------------------------------------------------------------ commands, one after the other


def test_train_quantize_export_verify(edgecnn: Command, tmp_path: Path, workspace: Workspace, mnist: DataSet) -> None:
    data, model, weights, out = (tmp_path / name for name in ("d.npz", "m.keras", "qat.keras", "exported"))
    np.savez(
        data,
        x_train=mnist.train.images[:640],
        y_train=mnist.train.labels[:640],
        x_test=mnist.test.images[:200],
        y_test=mnist.test.labels[:200],
    )
    settings = ["--data", data, "--json"]

    ended = edgecnn("train", *settings, "--epochs", "1", "--out", model)
    assert ended.status == 0
    assert len(from_json(ended.out.encode(), History, "stdout").epochs) == 1
    assert re.fullmatch(r"train float32: done in \d+\.\d s\n", ended.err), "one line where stderr is no terminal"

    ended = edgecnn("quantize", model, *settings, "--epochs", "1", "--out", weights)
    assert ended.status == 0
    assert len(from_json(ended.out.encode(), History, "stdout").epochs) == 1

    ended = edgecnn("export", model, *settings, "--schemes", "int8-qat,int16x8", "--qat", weights, "--out", out)
    assert ended.status == 0
    assert "edgecnn: m-int16x8.onnx: ONNX Runtime has no kernels" in ended.err
    exported = [from_json(json.dumps(record).encode(), Artifact, "stdout") for record in json.loads(ended.out)]
    names = ["m-int8-qat.tflite", "m-int16x8.tflite", "m-int8-qat.onnx", "m-int8-qat.c"]
    assert [artifact.file for artifact in exported] == names
    assert sorted(path.name for path in out.iterdir()) == sorted(
        ["m-int8-qat.h", *names, *[f"{name}.json" for name in names]]
    )

    paths = [out / name for name in names]
    ended = edgecnn("verify", *paths, "--model", model, "--qat", weights, *settings)
    assert ended.status == 0
    assert re.fullmatch(r"verify: done in \d+\.\d s\n", ended.err)
    parities = [from_json(json.dumps(record).encode(), Parity, "stdout") for record in json.loads(ended.out)]
    assert [parity.reference for parity in parities] == [
        "fake-quantised Keras model",
        "m-int8-qat.tflite in TFLM",
        "float Keras model",
        "fake-quantised Keras model",
        "m-int8-qat.tflite",
        "fake-quantised Keras model",
        "m-int8-qat.tflite",
        "m-int8-qat.tflite in TFLM",
    ]

    in_tfmot, files = tmp_path / "qat.npz", tmp_path / "from_tfmot"
    ended = edgecnn("quantize", model, *settings, "--engine", "tfmot", "--epochs", "1", "--out", in_tfmot)
    assert ended.status == 0
    only = ["--schemes", "int8-qat", "--formats", "tflite,c99", "--qat", in_tfmot]
    assert edgecnn("export", model, *settings, *only, "--out", files).status == 0
    both = [files / "m-int8-qat.tflite", files / "m-int8-qat.c"]
    ended = edgecnn("verify", *both, "--model", model, "--qat", in_tfmot, *settings)
    assert ended.status == 0
    assert len(json.loads(ended.out)) == 5

    one_line(edgecnn("export", model, "--data", data, "--qat", tmp_path / "no.npz", "--out", out), 1, "no.npz")
    one_line(edgecnn("verify", *paths, "--model", model, "--data", data), 2, "--qat")

    paths[0].write_bytes(paths[0].read_bytes() + b"\0")
    one_line(
        edgecnn("verify", *paths, "--model", model, "--qat", weights, "--data", data),
        1,
        f"{paths[0]} has changed since it was exported",
    )
    # the sidecar's word for it gone, the damage shows in the outputs or not at all: here a copy of other weights
    other = workspace.path("tflite", "float32")
    ended = edgecnn("verify", other, "--model", model, "--data", data)
    assert ended.status == 1
    assert f"{other.name} against float Keras model: accuracy" in ended.out
    assert re.search(r"largest difference [\d.]+ on image \d+ \(limit [\d.e-]+\)", ended.err)


def test_export_without_qat_weights_names_the_way(edgecnn: Command, workspace: Workspace, tmp_path: Path) -> None:
    ended = edgecnn(
        "export", workspace.model_file, "--data", workspace.data_file, "--schemes", "int8-qat", "--out", tmp_path
    )
    assert ended.status == 1
    assert "edgecnn: digits-int8-qat.tflite: " in ended.err
    assert "edgecnn quantize" in ended.err
    assert list(tmp_path.iterdir()) == []


def test_bench_report_and_baseline(edgecnn: Command, workspace: Workspace, tmp_path: Path) -> None:
    baseline, results, out = tmp_path / "new" / "baseline.json", tmp_path / "results.json", tmp_path / "report"
    data = ["--data", workspace.data_file]

    ended = edgecnn(
        "baseline", workspace.model_file, *data, "--device", "cpu", "--seconds", "0.1", "--out", baseline, "--json"
    )
    assert ended.status == 0
    (printed,) = json.loads(ended.out)
    assert from_json(json.dumps(printed).encode(), Baseline, "stdout") == from_json(
        baseline.read_bytes(), Baseline, baseline
    )

    models = [workspace.path("tflite", "float32"), workspace.path("onnx", "float32")]
    ended = edgecnn(
        "bench",
        *models,
        *data,
        *["--threads", "1,2", "--seconds", "0.1", "--cold", "1", "--baseline", baseline, "--out", results],
    )
    assert ended.status == 0, ended.err
    assert re.fullmatch(r"measuring: done in \d+\.\d s\n", ended.err)
    found = from_json(results.read_bytes(), Report, results)
    assert [row.measurement.threads for row in found.rows] == [1, 2, 1, 2]  # type: ignore[union-attr]
    assert found.baselines[0].model == "digits.keras"
    assert "no float baseline" not in ended.out

    shown = edgecnn("report", results, "--out", out)
    assert shown == Ended(0, ended.out, "")
    assert sorted(path.name for path in out.iterdir()) == ["report.csv", "report.html", "report.json", "report.md"]
    assert (out / "report.json").read_bytes() == results.read_bytes()
    assert edgecnn("report", results, "--json").out == results.read_text()


@pytest.mark.parametrize("content", [None, "", "{}", "[1, 2", '{"schema_version": 99}'])
def test_report_of_something_else(edgecnn: Command, content: str | None, tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    if content is not None:
        path.write_text(content)
    one_line(edgecnn("report", path, "--out", tmp_path / "out"), 1, str(path))
    assert not (tmp_path / "out").exists()


# ----------------------------------------------------------------------------------------- without the extras

WITHOUT_EXTRAS = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {
            "tensorflow", "keras", "tf_keras", "tensorflow_model_optimization", "tf2onnx", "onnx", "PIL", "pooch",
            "requests", "jinja2", "matplotlib",
        }:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
"""


def test_base_install_measures_and_names_the_extra_for_the_rest(workspace: Workspace, tmp_path: Path) -> None:
    def base(*arguments: object) -> Ended:
        return in_a_process(*arguments, before=WITHOUT_EXTRAS)

    assert base("--help").status == 0
    results, out = tmp_path / "results.json", tmp_path / "out"
    models = [workspace.path(*which) for which in (("tflite", "int8"), ("onnx", "int8"))]
    ended = base("bench", *models, "--data", workspace.data_file, *QUICK, "--out", results)
    assert ended.status == 0, ended.err
    assert len(from_json(results.read_bytes(), Report, results).rows) == 2

    data, model = ["--data", workspace.data_file], workspace.model_file
    for command in (
        ["train", *data, "--out", tmp_path / "m.keras"],
        ["quantize", model, *data, "--out", tmp_path / "q.keras"],
        ["export", model, *data, "--out", out],
        ["verify", *models, "--model", model, *data],
        ["run", *data, "--out", out],
    ):
        one_line(base(*command), 1, "pip install 'edgecnn[train]'")
    one_line(base("report", results, "--out", out), 1, "pip install 'edgecnn[report]'")
    assert not list(tmp_path.glob("m.*"))


# --------------------------------------------------------------------------------------------------- progress


def test_progress_without_a_terminal_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("work", 3) as advance:
        for number in range(3):
            advance(note=f"part {number}")
    with pytest.raises(ZeroDivisionError), progress("other work", 3) as advance:
        advance(1 / len([advance(note="part 0 " + 30 * "long ")][1:]))
    first, second, rest = capsys.readouterr().err.split("\n")
    assert re.fullmatch(r"work: done in 0\.\d s", first)
    assert re.fullmatch(r"other work: stopped after 0\.\d s, at part 0 (long ){30}", second)
    assert rest == ""


@pytest.mark.parametrize("width", [30, 80, 100, 160])
def test_progress_in_a_terminal_keeps_to_its_width(width: int) -> None:
    code = (
        "from edgecnn.progress import progress\n"
        "with progress('train int8-qat', 4) as advance:\n"
        "    for _ in range(4): advance(note='epoch 10/10 loss 0.1234 accuracy 0.9876')\n"
    )
    controller, terminal = pty.openpty()
    environment = {**os.environ, "COLUMNS": str(width), "TERM": "xterm"}
    with subprocess.Popen([sys.executable, "-c", code], stderr=terminal, env=environment) as process:
        os.close(terminal)
        shown = b""
        while True:
            try:
                part = os.read(controller, 65536)
            except OSError:  # how Linux says that the other end is closed
                break
            shown += part
    os.close(controller)
    assert process.returncode == 0
    lines = re.split(r"[\r\n]+", re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown.decode()))
    assert max(map(len, lines)) <= width
    assert "train int8-qat 100%" in lines[-2] or "100%" in lines[-2]
    if width >= 80:
        assert "epoch 10/10 loss 0.1234 accuracy 0.9876" in lines[-2]
        assert "…" not in lines[-2]


def test_the_first_example_of_the_readme(edgecnn: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The weights of ImageNet are downloaded for users; here the backbone has random ones."""
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    script = re.search(r"```python\n(.*?)```", readme, re.DOTALL)
    command = re.search(r"^    edgecnn run (.*)$", readme, re.MULTILINE)
    assert script is not None
    assert command is not None
    monkeypatch.chdir(tmp_path)
    assert 'weights="imagenet"' in script[1]
    exec(script[1].replace('weights="imagenet"', "weights=None"), {})
    random = np.random.default_rng(0)
    for kind in ("daisy", "rose", "tulip"):
        (tmp_path / "photos" / kind).mkdir(parents=True)
        for number in range(10):
            sizes = (*random.integers(40, 120, 2), 3)
            Image.fromarray(random.integers(0, 256, sizes, np.uint8)).save(tmp_path / "photos" / kind / f"{number}.jpg")
    settings = COMMANDS["run"].make_context("edgecnn run", command[1].split()).params
    assert (settings["epochs"], settings["learning_rate"]) == (5, 1e-4)
    given = (
        "--data",
        settings["data"],
        "--resize",
        "96,96",
        "--schemes",
        "float32",
        "--formats",
        "tflite",
        "--out",
        "a",
    )
    done = edgecnn("export", settings["model"], *given)
    assert (done.status, sorted(path.name for path in Path("a").iterdir())[:1]) == (0, ["flowers-float32.tflite"]), done
