"""The float baseline: on a machine with Keras and one back end and nothing else, and what it says where that fails."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner

from benchmarks.shipped import shipped_form
from edgecnn import measure as bench_module
from edgecnn.cli import cli
from edgecnn.data import DataSet, load
from edgecnn.errors import BenchError, ConfigError, RecordError, UnknownNameError
from edgecnn.measure import baseline as module
from edgecnn.measure import statistics
from edgecnn.measure.baseline import load_baseline, record_baseline, shipped_baselines
from edgecnn.measure.comparison import best_batch, credits_of, images_per_s
from edgecnn.measure.files import bench_files
from edgecnn.measure.workbench import Block, Candidate, Warmth, Workbench
from edgecnn.models import architecture, architecture_of, mnist_cnn
from edgecnn.records import Artifact, Baseline, Failure, Result, TensorSpec, from_json, to_json
from edgecnn.worker import Worker, WorkerError

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
JAX = "jax.jit ahead of time, weights as constants"
SPEC = TensorSpec(name="x", shape=(None, 4, 4, 1), dtype="float32", layout="NHWC")

# What a machine with Keras and JAX alone has not got; edgecnn's own dependencies on runtimes among them.
ABSENT = (
    "tensorflow", "tf_keras", "tensorflow_model_optimization", "torch", "onnx", "tf2onnx", "onnxruntime",
    "ai_edge_litert", "flatbuffers", "PIL", "pooch", "requests", "jinja2", "matplotlib",
)  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model that puts an image into class 1 if its mean is above one half, else into class 0."""
    code = (
        "import sys, keras, numpy as np\n"
        "layers = [keras.Input((4, 4, 1)), keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(2)]\n"
        "model = keras.Sequential(layers)\n"
        "model.set_weights([np.array([[-1.0, 1.0]]), np.array([0.5, -0.5])])\n"
        "model.save(sys.argv[1])\n"
    )
    path = tmp_path_factory.mktemp("model") / "model.keras"
    environment = {**os.environ, "KERAS_BACKEND": "jax"}
    subprocess.run([sys.executable, "-c", code, str(path)], check=True, capture_output=True, env=environment)
    return path


@pytest.fixture(scope="module")
def data_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 images that the model gets right, but for the first thirty, whose labels are wrong."""
    labels = np.random.default_rng(0).integers(0, 2, 300)
    images = np.where(labels == 1, 204, 51).astype(np.uint8)[:, None, None] * np.ones((4, 4), np.uint8)
    labels[:30] = 1 - labels[:30]
    path = tmp_path_factory.mktemp("data") / "data.npz"
    np.savez(path, x_train=images, y_train=labels, x_test=images, y_test=labels)
    return path


@pytest.fixture
def data(data_file: Path) -> DataSet:
    return load(str(data_file))


def without(packages: Sequence[str], folder: Path) -> dict[str, str]:
    """The environment of a process in which ``packages`` are not installed, nor in those that it starts."""
    (folder / "sitecustomize.py").write_text(
        "import importlib.machinery as machinery\n"
        f"ABSENT = {tuple(packages)!r}\n"
        "found = machinery.PathFinder.find_spec\n"
        "def find_spec(name, path=None, target=None):\n"
        "    return None if name.partition('.')[0] in ABSENT else found(name, path, target)\n"
        "machinery.PathFinder.find_spec = find_spec\n",
        encoding="utf-8",
    )
    clean = {name: value for name, value in os.environ.items() if name != "KERAS_BACKEND"}
    return {**clean, "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])}


def edgecnn(*arguments: object, env: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "edgecnn", *map(str, arguments)]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False)


def test_a_machine_with_keras_and_jax_alone(model: Path, data_file: Path, tmp_path: Path) -> None:
    env = without(ABSENT, tmp_path)
    for package in ("tensorflow", "onnxruntime", "ai_edge_litert.interpreter"):  # the guard holds
        tried = subprocess.run([sys.executable, "-c", f"import {package}"], env=env, capture_output=True, check=False)
        assert b"ModuleNotFoundError" in tried.stderr
    out = tmp_path / "cpu.json"
    ended = edgecnn("baseline", model, "--data", data_file, "--seconds", "0.2", "--out", out, env=env)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith(
        f"wrote {out}: jax on cpu, compiled with jax.jit ahead of time, weights as constants; one image "
    )
    assert ended.stdout.endswith(", accuracy 90.00%\n")

    found = load_baseline(out)
    assert (found.backend, found.device, found.compiled_with) == ("jax", "cpu", JAX)
    assert (found.peak_device_bytes, found.tensor_float_32) == (None, None)  # no device of its own
    assert found.accuracy is not None
    assert (found.accuracy.correct, found.accuracy.total) == (270, 300)
    assert found.answers is not None
    assert (credits_of(found.answers) == (np.arange(300) >= 30)).all()
    assert "jax" in found.environment.versions
    assert [found.measurement.batch, *(one.batch for one in found.throughput)][:3] == [1, 8, 64]
    assert found.throughput_end
    for measured in (found.measurement, *found.throughput):
        assert (measured.runtime, measured.device, measured.threads) == ("keras", "cpu", 0)
        assert len(measured.blocks_ns) == len(measured.end_to_end_ns) == (50 if measured.batch == 1 else 10)
        assert min(measured.samples_s) > 0
        assert measured.warmup_ns
        assert len(measured.cold_starts) == (3 if measured.batch == 1 else 0)
    assert found.measurement.blocks_per_process == (17, 17, 16)
    assert found.measurement.memory is not None
    assert min(start.import_s for start in found.measurement.cold_starts) > 0.1
    assert found.architecture == architecture_of(model)

    # and beside the runtimes, on a machine that has them
    report = bench_files([model], data=load(str(data_file)), seconds=0.1, baselines=[out])
    (row,) = report.rows
    assert isinstance(row, Result)
    assert row.answers == found.answers
    assert report.baselines == (found,)


@pytest.mark.parametrize(
    ("absent", "arguments", "message"),
    [
        (("keras",), (), "needs Keras and one back end, and Keras is not installed; pip install keras and one"),
        (("tensorflow", "jax", "torch"), (), "and none of its back ends is installed; pip install keras and one"),
        (("torch", "tensorflow"), ("--backend", "torch"), "'torch' is not installed; installed: jax; choose one"),
        (
            ("torch", "tensorflow"),
            ("--device", "gpu"),
            "no GPU that Keras can use; none is found by the installed back ends (jax)",
        ),
        (("torch",), ("--backend", "jax", "--device", "gpu"), "no GPU that Keras with the jax back end can use"),
    ],
)
def test_what_is_missing_is_named(
    absent: tuple[str, ...], arguments: tuple[str, ...], message: str, model: Path, data_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.json"
    env = without(absent, tmp_path)
    ended = edgecnn("baseline", model, "--data", data_file, *arguments, "--out", out, env=env)
    assert (ended.returncode, ended.stdout) == (1, "")
    last = ended.stderr.splitlines()[-1]
    assert last.startswith("edgecnn: ")
    assert message in last
    assert "Traceback" not in ended.stderr
    assert not out.exists()


def test_the_back_end_asked_for_is_the_one_that_runs(
    model: Path, data: DataSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")  # which --backend overrules
    found = record_baseline(model, data, "cpu", backend="jax", seconds=0.05, batches=(2,))
    assert (found.backend, found.compiled_with) == ("jax", JAX)
    assert os.environ["KERAS_BACKEND"] == "tensorflow"
    assert [one.batch for one in found.throughput] == [2]
    assert found.throughput_end == "all batch sizes were measured"
    other = record_baseline(model, data, "cpu", seconds=0.05, batches=())
    assert (other.backend, other.compiled_with) == ("tensorflow", "tf.function")
    assert other.answers == found.answers  # the same images right


def test_auto_takes_the_back_end_that_sees_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    monkeypatch.setattr(module, "_is_installed", lambda name: name != "torch")
    asked: list[str] = []
    gpus: dict[str, str] = {}

    class Fake:
        def __init__(self, make: object) -> None:
            pass

        def __enter__(self) -> "Fake":
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def call(self, doing: str, limit_s: float, step: object, backend: str) -> str | None:
            asked.append(backend)
            return gpus.get(backend)

    monkeypatch.setattr(module, "Worker", Fake)
    assert module.choose_backend("auto", "auto") == "tensorflow"  # no GPU: the first installed
    assert asked == ["tensorflow", "jax"]
    gpus["jax"] = "A100"
    assert module.choose_backend("auto", "auto") == module.choose_backend("auto", "gpu") == "jax"
    assert module.choose_backend("auto", "cpu") == "tensorflow"
    assert module.choose_backend("tensorflow", "gpu") == "tensorflow"  # as asked for; opening it says that it sees none


def test_settings_that_make_no_sense(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnknownNameError, match="unknown back end 'abacus'; choose from: auto, jax, tensorflow, torch"):
        record_baseline(model, None, backend="abacus")
    with pytest.raises(ConfigError, match="seconds must be positive, got 0"):
        record_baseline(model, None, seconds=0)
    monkeypatch.setenv("KERAS_BACKEND", "abacus")
    with pytest.raises(BenchError, match=r"no baseline of model\.keras: KERAS_BACKEND is 'abacus'"):
        record_baseline(model, None)
    with pytest.raises(BenchError, match=r"^no baseline of none\.keras: no model file at"):
        record_baseline(model.with_name("none.keras"), None, backend="jax")
    damaged = model.with_name("damaged.keras")
    damaged.write_bytes(model.read_bytes()[:-100])
    with pytest.raises(BenchError, match=r"^no baseline of damaged\.keras: "):
        record_baseline(damaged, None, backend="jax")


def test_data_of_another_shape_are_refused(model: Path, tmp_path: Path) -> None:
    images = np.arange(2 * 25, dtype=np.uint8).reshape(2, 5, 5)
    np.savez(tmp_path / "d.npz", x_train=images, y_train=[0, 1], x_test=images, y_test=[0, 1])
    with pytest.raises(BenchError, match=r"no baseline of model\.keras: .*\(None, 4, 4, 1\).*\(None, 5, 5, 1\)"):
        record_baseline(model, load(str(tmp_path / "d.npz")), backend="jax")
    images = np.arange(3 * 16, dtype=np.uint8).reshape(3, 4, 4)
    np.savez(tmp_path / "d.npz", x_train=images, y_train=[0, 1, 2], x_test=images, y_test=[0, 1, 2])
    with pytest.raises(BenchError, match=r"no baseline of model\.keras: .*3 classes"):
        record_baseline(model, load(str(tmp_path / "d.npz")), backend="jax")


class MadeUp:
    """A worker whose batches take the ``seconds`` given, or fail for the reason given."""

    def __init__(self, seconds: dict[int, float | str]) -> None:
        self.seconds = seconds

    def call(self, doing: str, limit_s: float, step: Callable[..., Any], *arguments: Any) -> Any:
        if step is Workbench.use:
            self.batch = arguments[1]
            if isinstance(self.seconds[self.batch], str):
                raise WorkerError("MemoryError", str(self.seconds[self.batch]))
            return 0.1
        taken = round(1e9 * float(self.seconds[self.batch]))
        if step is Workbench.warm_up:
            return Warmth([taken], True)
        if step is Workbench.block:
            return Block([taken], [taken] * arguments[1], [taken], None, None)
        return module._Compiled(compiled_with="x", tensor_float_32=True, peak_device_bytes=1000 * self.batch)


@pytest.mark.parametrize(
    ("seconds", "measured", "end"),
    [
        ({8: 1.0, 64: 1.0, 512: 1.0}, 3, "all batch sizes were measured"),
        ({8: 1.0, 64: 7.9, 512: 1.0}, 2, "batch 64 gained less than 2 % over smaller ones"),
        ({8: 1.0, 64: 7.8, 512: 70.0, 4096: 1.0}, 3, "batch 512 gained less than 2 % over smaller ones"),
        ({8: 1.0, 64: 7.8, 2**24: 1.0, 2**27: 1.0}, 3, "batch 134217728 was skipped: its images take 8.6 GB, over"),
        ({8: 1.0, 64: "RESOURCE_EXHAUSTED", 512: 1.0}, 1, "batch 64 could not be measured: MemoryError: RESOURCE"),
        ({8: "killed"}, 0, "batch 8 could not be measured: MemoryError: killed"),
    ],
)
def test_the_sweep_ends_where_larger_batches_gain_nothing(
    seconds: dict[int, float | str], measured: int, end: str
) -> None:
    """With made-up times, or reasons why there are none, for each batch."""
    artifact = Artifact(
        file="m.keras", format="keras", scheme="float32", input=SPEC, output=SPEC, sha256="00", size_bytes=1
    )
    candidate = Candidate(path=Path("m.keras"), artifact=artifact)
    image = np.zeros((4, 4, 1), np.float32)
    found, reason, peak = module._sweep(MadeUp(seconds), candidate, image, 1.0, tuple(seconds))  # type: ignore[arg-type]
    assert [one.batch for one in found] == list(seconds)[:measured]
    assert [one.samples_s[0] for one in found] == list(seconds.values())[:measured]
    assert reason.startswith(end)
    assert peak == (1000 * found[-1].batch if found else None)  # of what was measured, not of what failed


def test_three_processes_measure_a_model_whatever_ends_the_sweep(
    model: Path, data: DataSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every one of them opens the back end anew, which takes a rented GPU seven seconds."""
    started: list[Worker] = []

    class Counted(Worker):
        def __enter__(self) -> "Counted":
            started.append(self)
            return super().__enter__()

    for user in (module, bench_module):
        monkeypatch.setattr(user, "Worker", Counted)
    found = record_baseline(model, data, "cpu", backend="jax", seconds=0.05, batches=(2, 4, 10**12))
    assert len(started) == 3
    assert len(found.measurement.cold_starts) == 3
    assert found.throughput[0].batch == 2
    assert found.throughput_end
    assert found.accuracy is not None

    # what comes before memory ends is kept
    monkeypatch.setattr(module, "_GAIN", 0.0)
    monkeypatch.setattr(module, "_MOST_BYTES", 10**15)
    found = record_baseline(model, None, "cpu", backend="jax", seconds=0.05, batches=(2, 10**12))
    assert [one.batch for one in found.throughput] == [2]
    assert found.throughput_end is not None
    assert found.throughput_end.startswith("batch 1000000000000 could not be measured: MemoryError: out of memory")
    assert len(found.measurement.blocks_ns) == 50


def test_several_models_one_of_which_cannot_be_measured(model: Path, tmp_path: Path) -> None:
    damaged, out = tmp_path / "damaged.keras", tmp_path / "new" / "folder"
    damaged.write_bytes(model.read_bytes()[:-100])
    env = without((), tmp_path)
    options = ("--data", "none", "--backend", "jax", "--seconds", "0.05", "--out", out)
    ended = edgecnn("baseline", damaged, model, *options, "--json", env=env)
    assert ended.returncode == 1
    failure, recorded = json.loads(ended.stdout)
    assert failure["subject"] == "damaged.keras"
    assert failure["reason"].startswith("no baseline of damaged.keras: ")
    assert failure["reason"] in ended.stderr
    assert [path.name for path in out.iterdir()] == ["model.json"]
    found = load_baseline(out / "model.json")
    assert from_json(json.dumps(recorded).encode(), Baseline, "stdout") == found
    assert found.accuracy is None


@pytest.mark.parametrize(
    ("models", "out", "message"),
    [
        (("a.keras", "b.keras"), "out.json", "--out out.json is one file for 2 models; give a folder"),
        (("x/a.keras", "y/a.keras"), "out", "two models with the same name would be written to the same file"),
        (("a.keras", "b.h5"), "out", "b.h5 does not end in .keras"),
    ],
)
def test_several_models_need_a_file_each(models: tuple[str, ...], out: str, message: str, tmp_path: Path) -> None:
    ended = CliRunner().invoke(cli, ["baseline", *models, "--data", "none", "--out", out])
    assert isinstance(ended.exception, ConfigError)
    assert message in str(ended.exception)


@pytest.fixture(scope="module")
def a_baseline(model: Path) -> Baseline:
    """Without data: latency only."""
    return record_baseline(model, None, "cpu", backend="jax", seconds=0.05, batches=(2,))


def test_without_data_there_is_no_accuracy(a_baseline: Baseline) -> None:
    assert (a_baseline.accuracy, a_baseline.answers) == (None, None)
    assert from_json(to_json(a_baseline), Baseline, "memory") == a_baseline


def test_a_gpu_is_named_with_its_driver_and_packages(
    a_baseline: Baseline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a stand-in for nvidia-smi: no such machine is needed to see where its answers go."""
    tool = tmp_path / "nvidia-smi"
    tool.write_text('#!/bin/sh\n[ "$1" = --query-gpu=driver_version ] && echo 580.65.06\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    opened = module._Model(gpu="NVIDIA X", device="gpu", inputs=(SPEC,), outputs=(SPEC,), import_s=1.0, load_s=1.0)
    found = module._with_gpu(a_baseline.environment, opened)
    assert (found.gpu, found.versions["NVIDIA driver"]) == ("NVIDIA X", "580.65.06")
    assert found.versions["jaxlib"]
    tool.write_text("#!/bin/sh\nexit 9\n")  # the tool is there and the driver is not
    assert "NVIDIA driver" not in module._with_gpu(a_baseline.environment, opened).versions
    assert module._with_gpu(a_baseline.environment, opened.replace(device="cpu")) == a_baseline.environment


def test_baselines_of_before_are_read(a_baseline: Baseline, tmp_path: Path) -> None:
    """A file without the newer fields."""
    fields = json.loads(to_json(a_baseline))
    newer = ("answers", "throughput", "throughput_end", "peak_device_bytes", "compiled_with", "tensor_float_32")
    for name in (*newer, "architecture", "note"):
        del fields[name]
    del fields["measurement"]["summaries"]
    (tmp_path / "old.json").write_text(json.dumps(fields))
    assert load_baseline(tmp_path / "old.json").measurement == a_baseline.measurement


def test_a_failed_row_stays_a_failure_beside_a_baseline(a_baseline: Baseline, tmp_path: Path, data: DataSet) -> None:
    (tmp_path / "b.json").write_bytes(to_json(a_baseline))
    (tmp_path / "bad.tflite").write_bytes(b"no model")
    report = bench_files([tmp_path / "bad.tflite"], data=data, seconds=0.1, baselines=[tmp_path / "b.json"])
    assert isinstance(report.rows[0], Failure)


# ---- the baselines that come with edgecnn


RECORDED = sorted((ROOT / "benchmarks" / "baselines").glob("*.json"))


def test_every_recorded_baseline_comes_with_edgecnn_and_no_other() -> None:
    assert [path.name for path in RECORDED] == [path.name for path in sorted(module._SHIPPED.glob("*.json"))]
    assert RECORDED
    for path in RECORDED:
        shipped = module._SHIPPED / path.name
        assert shipped.read_bytes() == shipped_form(path), "run: python -m benchmarks baselines"
        assert shipped.stat().st_size < 25_000


def numbers(summary: Any) -> dict[str, float]:
    """The numbers of a Summary or None, by their path."""
    found: dict[str, float] = {}

    def walk(value: Any, path: str) -> None:
        if isinstance(value, dict):
            for key, one in value.items():
                walk(one, f"{path}.{key}")
        elif value is not None:
            found[path] = float(value)

    walk(msgspec.to_builtins(summary), "")
    return found


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_a_shipped_baseline_says_what_all_its_samples_say(path: Path) -> None:
    whole, small = load_baseline(path), load_baseline(module._SHIPPED / path.name)
    assert small.measurement.samples_s == ()
    for one, other in zip((whole.measurement, *whole.throughput), (small.measurement, *small.throughput), strict=True):
        for summarised in (statistics.summary, statistics.end_to_end):
            assert numbers(summarised(other)) == pytest.approx(numbers(summarised(one)), rel=1e-8)
        assert statistics.warnings(one, whole.environment) == statistics.warnings(other, small.environment)
        assert images_per_s(one) == pytest.approx(images_per_s(other), rel=1e-8)
    assert best_batch(whole).batch == best_batch(small).batch
    assert f"benchmarks/baselines/{path.name}" in (small.note or "")
    assert small.answers == whole.answers


def test_the_baseline_of_the_reference_model_is_found_by_its_architecture() -> None:
    found = shipped_baselines(architecture(mnist_cnn()))
    assert [(one.backend, one.device) for one in found] == [
        ("jax", "gpu: NVIDIA H100 80GB HBM3"),  # the faster one comes first: it is the one that verdicts name
        ("torch", "gpu: NVIDIA H100 80GB HBM3"),
    ]
    assert found[0].measurement.summaries is not None
    assert found[1].measurement.summaries is not None
    assert found[0].measurement.summaries.invoke.median < found[1].measurement.summaries.invoke.median
    assert shipped_baselines(architecture(mnist_cnn(classes=11))) == ()


def test_a_damaged_file_of_the_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SHIPPED", tmp_path)
    assert shipped_baselines("00") == ()
    (tmp_path / "x.json").write_bytes((module._SHIPPED / "x.json").name.encode())
    with pytest.raises(RecordError, match=r"x\.json is not a valid Baseline file"):
        shipped_baselines("00")
