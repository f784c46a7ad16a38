"""Models with several inputs and outputs: every file, comparison, kit and report of them."""

import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import msgspec
import numpy as np
import pytest
import tools
from test_embed import make_tflm

import edgecnn
from edgecnn import artifacts
from edgecnn.config import RunConfig
from edgecnn.data import DataSet, load
from edgecnn.embed import embed
from edgecnn.errors import ConfigError, DataError, ModelError, QuantizationError
from edgecnn.formats import tflite
from edgecnn.formats.source import Source
from edgecnn.models import called, data_for, load_model, output_names, plain, save_model
from edgecnn.pipeline import run
from edgecnn.quantization.engines import engine_called
from edgecnn.quantization.schemes import SCHEMES
from edgecnn.records import Artifact, Report, Result, read_record
from edgecnn.runtimes import open_session, predict
from edgecnn.samples import flat, joined, parts, unlike
from edgecnn.tflite.graph import Operator, read_graph
from edgecnn.tflite.operators import without_float_ends

L = keras.layers
Arrays = dict[str, np.ndarray]
ENDS = ["facts", "picture"], ["kind", "size"]


def two_and_two() -> Any:
    """Kind of a picture, and its size, from the picture and four numbers; inputs and outputs in dictionaries."""
    picture, facts = keras.Input((8, 8, 1), name="picture"), keras.Input((4,), name="facts")
    x = L.BatchNormalization()(L.Conv2D(8, 3, activation="relu")(picture))
    x = L.Concatenate()([L.GlobalAveragePooling2D()(x), L.GlobalMaxPooling2D()(x), L.Dense(8, "relu")(facts)])
    x = L.Dense(16, activation="relu")(x)
    outputs = {"size": L.Dense(2, name="size")(x), "kind": L.Dense(3, activation="softmax", name="kind")(x)}
    return keras.Model({"picture": picture, "facts": facts}, outputs, name="two")


def drawn(count: int, seed: int) -> tuple[Arrays, Arrays]:
    """Pictures with a bar, as uint8, and facts about its size; the kind is where the bar is."""
    draw = np.random.default_rng(seed)
    kinds, sizes = draw.integers(0, 3, count), draw.random((count, 2)).astype(np.float32)
    pictures = draw.integers(0, 60, (count, 8, 8, 1)).astype(np.uint8)
    for picture, kind in zip(pictures, kinds, strict=True):
        picture[:, :, 0] += np.uint8(60 * kind)
    facts = np.concatenate([sizes, 1 - sizes], axis=1) + draw.normal(0, 0.05, (count, 4)).astype(np.float32)
    return {"picture": pictures, "facts": facts.astype(np.float32)}, {"kind": kinds, "size": sizes}


def command(*arguments: object) -> str:
    """What ``edgecnn`` prints with these arguments."""
    given = [sys.executable, "-m", "edgecnn", *map(str, arguments)]
    done = subprocess.run(given, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def four(train: int = 600, test: int = 300) -> list[Arrays]:
    return [*drawn(train, 0), *drawn(test, 1)]


def save_npz(path: Path) -> Path:
    found = zip(("x_train", "y_train", "x_test", "y_test"), four(), strict=True)
    np.savez(path, **{f"{key}.{name}": array for key, arrays in found for name, array in arrays.items()})  # type: ignore[arg-type]
    return path


def _make_run(folder: Path) -> None:
    keras.utils.set_random_seed(0)
    save_model(plain(two_and_two()), folder / "two.keras")
    config = RunConfig(
        model=str(folder / "two.keras"), data=str(save_npz(folder / "two.npz")), epochs=40, tune=False, seconds=0.05,
        cold=1, learning_rate=0.01,
    )  # fmt: skip
    run(config, folder / "run")


@pytest.fixture(scope="session")
def folder(made_once: Any) -> Path:
    """A run with every scheme and format, its data ``two.npz`` and its model; do not change them."""
    found: Path = made_once("several", _make_run)
    return found


@pytest.fixture(scope="session")
def report(folder: Path) -> Report:
    return read_record(folder / "run" / "report.json", Report)


# Samples


def test_samples_of_several_tensors_are_one_array() -> None:
    one, other = np.arange(6, dtype=np.float32).reshape(3, 2), np.arange(12, dtype=np.uint8).reshape(3, 2, 2)
    both = joined({"a": one, "b": other})
    assert both.shape == (3,)
    for given, found in zip((one, other), parts(both[::-1]), strict=True):
        np.testing.assert_array_equal(found[::-1], given)
    assert joined({"a": one}) is one is flat(one)
    assert flat(both).shape == (3, 6)
    assert unlike(["a", "b", "a", "a"]) == ["a", "b", "a_2", "a_3"]
    assert unlike(["a", "a_2", "a"]) == ["a", "a_2", "a_3"]


# Data


def test_data_come_as_dictionaries_as_an_npz_file_and_as_streams(tmp_path: Path) -> None:
    data = load(four())
    assert (data.task, data.input_shape) == ("several", {"picture": (8, 8, 1), "facts": (4,)})
    assert [(each.name, each.task) for each in data.outputs] == [("kind", "classification"), ("size", "regression")]
    inputs = data.test_inputs()
    np.testing.assert_allclose(inputs["picture"], data.test.images["picture"] / np.float32(255), rtol=1e-6)
    np.testing.assert_array_equal(inputs["facts"], data.test.images["facts"])
    assert load(str(save_npz(tmp_path / "two.npz"))).sha256 == data.sha256

    def batches(samples: Arrays, labels: Arrays) -> Any:
        for start in range(0, len(labels["kind"]), 64):
            yield tuple({name: each[start : start + 64] for name, each in one.items()} for one in (samples, labels))

    x_train, y_train, x_test, y_test = four()
    streamed = load((batches(x_train, y_train), batches(x_test, y_test)))
    assert (streamed.sha256, streamed.test_sha256) == (data.sha256, data.test_sha256)


def without(place: int, name: str) -> Callable[[list[Any]], None]:
    return lambda arrays: arrays[place].pop(name)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (without(2, "facts"), "train has the inputs picture and facts, test has x_test"),
        (without(3, "size"), "test has labels for kind, train for kind and size"),
        (lambda arrays: arrays[0].update(facts=arrays[0]["facts"][:5]), "the train samples differ in number"),
        (
            lambda arrays: arrays[1].update(kind=arrays[1]["kind"][:5]),
            "labels of kind: train split has 600 images but 5",
        ),
        (lambda arrays: arrays[0]["facts"].fill(np.nan), "train facts images must be finite"),
        (lambda arrays: arrays[3].update(kind=arrays[3]["kind"] + 7), "labels of kind: test labels must be 0 to 2"),
    ],
)
def test_what_does_not_belong_together_is_refused(damage: Callable[[list[Any]], None], message: str) -> None:
    arrays = four()
    damage(arrays)
    with pytest.raises(DataError, match=message):
        load(arrays)


def test_the_task_needs_labels_of_several_outputs() -> None:
    x_train, y_train, x_test, y_test = four(20, 10)
    with pytest.raises(DataError, match=r"the task several needs labels for each output: y_train\.<output>"):
        load((x_train, y_train["size"], x_test, y_test["size"]), task="several")
    with pytest.raises(DataError, match="labels for kind and size, so the task cannot be regression alone"):
        load((x_train, y_train, x_test, y_test), task="regression")


def test_a_batch_of_other_outputs_is_refused() -> None:
    samples, labels = drawn(4, 0)
    other = {"kind": labels["kind"], "weight": labels["size"]}
    with pytest.raises(DataError, match="train batch 1 has labels for other outputs than the first one"):
        load(([(samples, labels), (samples, other)], [(samples, labels)]))


# The model


def test_names_count_and_not_the_order() -> None:
    x_train, y_train, x_test, y_test = (dict(reversed(each.items())) for each in four())
    model, given = plain(two_and_two()), load(four())
    swapped = load([x_train, y_train, x_test, y_test])
    one, other = (data_for(model, data) for data in (given, swapped))
    assert output_names(model) == ENDS[1]
    assert one.layout == other.layout == (("kind", (3,)), ("size", (2,)))
    assert one.test.images.dtype.names == other.test.images.dtype.names == tuple(ENDS[0])
    outputs = flat(joined({str(n): np.asarray(each) for n, each in enumerate(called(model, parts(one.test_inputs())))}))
    assert one.scoring().score(outputs) == other.scoring().score(outputs)


def renamed(place: int, old: str, new: str) -> DataSet:
    arrays = four(50, 20)
    for one in (arrays[place], arrays[place + 2]):
        one[new] = one.pop(old)
    return load(arrays)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            renamed(0, "facts", "numbers"),
            "the model takes the inputs facts and picture, arrays has picture and numbers",
        ),
        (renamed(1, "size", "area"), "gives the outputs kind and size, arrays has labels for kind and area"),
        (
            load([next(iter(each.values())) for each in four(50, 20)]),
            "facts and picture, arrays has one",
        ),
    ],
)
def test_data_with_other_names_are_refused_with_both_lists(data: DataSet, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        data_for(plain(two_and_two()), data)


def test_an_output_that_no_labels_fit_is_named() -> None:
    arrays = four(50, 20)
    for labels in (arrays[1], arrays[3]):
        labels["size"] = labels["size"][:, :1]
    with pytest.raises(ModelError, match=r"at its output size gives output \(None, 2\)"):
        data_for(plain(two_and_two()), load(arrays))


def test_the_older_engine_says_which_to_use() -> None:
    model = plain(two_and_two())
    with pytest.raises(QuantizationError, match=r"one input and one output, two has 2 and 2; use --qat-engine keras"):
        engine_called("tfmot").fake_quantized(model, data_for(model, load(four(50, 20))))


def test_a_custom_task_teaches_every_output() -> None:
    x_train, _, x_test, _ = four(100, 20)
    model = plain(two_and_two())
    data = data_for(model, load((x_train, None, x_test, None), task="custom"))
    quantized, history = engine_called("keras").train_quantized(model, data, epochs=1)
    assert history.epochs[0].loss < 0.1
    ours, theirs = (called(each, parts(data.test_inputs())) for each in (quantized, model))
    for found, wanted in zip(ours, theirs, strict=True):
        assert np.abs(np.asarray(found) - np.asarray(wanted)).mean() < 0.05


# Scores


def test_a_metric_of_the_users_gets_dictionaries() -> None:
    def right(labels: Any, outputs: Any) -> Any:
        assert {name: each.shape for name, each in outputs.items()} == {"kind": (20, 3), "size": (20, 2)}
        return (outputs["kind"].argmax(axis=1) == labels["kind"]) - np.abs(outputs["size"] - labels["size"]).mean(
            axis=1
        )

    model = plain(two_and_two())
    data = data_for(model, load(four(50, 20), metric=right))
    found = np.concatenate([np.asarray(each) for each in called(model, parts(data.test_inputs()))], axis=1)
    expected = right(data.test.labels, {"kind": found[:, :3], "size": found[:, 3:]}).mean()
    assert data.scoring().score(found).value == pytest.approx(expected)

    def wrong(labels: Any, outputs: Any) -> Any:
        return outputs["boxes"]

    with pytest.raises(ConfigError, match=r"wrong failed .* outputs \{'kind': \(20, 3\), 'size': \(20, 2\)\}"):
        data.scored_by(wrong).scoring().score(found)


def test_the_score_is_the_mean_of_the_scores_of_the_outputs() -> None:
    model = plain(two_and_two())
    data = data_for(model, load(four(50, 20)))
    truth = np.concatenate([np.eye(3)[data.test.labels["kind"]], data.test.labels["size"]], axis=1).astype(np.float32)
    best = data.scoring().score(truth)
    assert (best.value, best.metric) == (1.0, "mean score")
    truth[:10, :3] = np.roll(truth[:10, :3], 1, axis=1)
    half = data.scoring().score(truth)
    assert half.value == pytest.approx(0.75)
    assert dict(half.more) == pytest.approx(
        {"accuracy of kind": 0.5, "R² of size": 1.0, "MAE of size": 0.0, "RMSE of size": 0.0}
    )
    assert 0 < data.scoring().guessing() < 0.3


# The run


@pytest.mark.slow
def test_every_file_is_made_and_answers_as_the_model_it_came_from(folder: Path, report: Report) -> None:
    failed = [(each.subject, each.expected) for each in report.rows if not isinstance(each, Result)]
    assert failed == [("two-int16x8.onnx", True)]
    rows = [row for row in report.rows if isinstance(row, Result)]
    assert len(rows) == 14
    for row in rows:
        assert [spec.name for spec in row.artifact.inputs] == ENDS[0], row.artifact.file
        assert [spec.name for spec in row.artifact.outputs] == ENDS[1], row.artifact.file
        assert row.accuracy is not None
        assert row.accuracy.value > 0.9, row.artifact.file
    assert not [(one.artifact, one.violations) for one in report.parities if one.violations]
    assert {one.difference.output for one in report.parities} <= {"kind", "size"}
    exact = [one for one in report.parities if one.artifact.endswith(".c") and one.reference.endswith("in TFLM")]
    assert [(one.artifact, one.difference.max_abs) for one in exact] == [("two-int8.c", 0.0), ("two-int8-qat.c", 0.0)]
    about = rows[-1].artifact.provenance
    assert about is not None
    assert [(each.name, each.task, each.labels) for each in about.outputs] == [
        ("kind", "classification", ("0", "1", "2")), ("size", "regression", ("0", "1")),
    ]  # fmt: skip
    text = (folder / "run" / "report.html").read_text(encoding="utf-8")
    assert "accuracy of kind, %" in text
    assert "R² of size" in text
    assert {one.artifact for one in report.layers} == {"two-int8.tflite", "two-int8-qat.tflite"}


@pytest.mark.slow
def test_outputs_in_another_order_are_noticed(tmp_path: Path) -> None:
    """The guard itself: a file whose outputs of one size change places is another model."""
    given = [keras.Input((4,), name="a"), keras.Input((4,), name="b")]
    one, other = L.Dense(2, name="one")(given[0]), L.Dense(2, name="other")(L.Add()(given))
    source = keras.Model(given, [one, other], name="pair")
    save_model(source, tmp_path / "pair.keras")
    draw = np.random.default_rng(0)
    samples = [{name: draw.random((64, 4), np.float32) for name in "ab"} for _ in range(2)]
    labels = [{name: draw.random((64, 2), np.float32) for name in ("one", "other")} for _ in range(2)]
    data = [samples[0], labels[0], samples[1], labels[1]]
    (made,) = edgecnn.export(tmp_path / "pair.keras", data, tmp_path, schemes=["float32"], formats=["tflite"])
    assert isinstance(made, Artifact)
    file = tmp_path / made.file
    (healthy,) = edgecnn.verify([file], data, model=tmp_path / "pair.keras")
    assert not healthy.violations
    from ai_edge_litert import schema_py_generated as schema
    from flatbuffers import Builder

    changed = schema.ModelT.InitFromPackedBuf(file.read_bytes())
    changed.subgraphs[0].outputs = changed.subgraphs[0].outputs[::-1]
    builder = Builder()
    builder.Finish(changed.Pack(builder), b"TFL3")
    file.write_bytes(bytes(builder.Output()))
    artifacts.sidecar(file).unlink()
    (swapped,) = edgecnn.verify([file], data, model=tmp_path / "pair.keras")
    assert any("mean difference" in one for one in swapped.violations)


@pytest.mark.slow
def test_a_bundle_is_measured_with_its_samples(folder: Path, report: Report, tmp_path: Path) -> None:
    bundle = tmp_path / "two.zip"
    command("bundle", folder / "run", "--data", folder / "two.npz", "--out", bundle)
    command("bench", bundle, "--seconds", "0.05", "--cold", "1", "--out", tmp_path / "b.json")
    rows = read_record(tmp_path / "b.json", Report).rows
    found = {row.artifact.file: row.accuracy for row in rows if isinstance(row, Result)}
    wanted = {row.artifact.file: row.accuracy for row in report.rows if isinstance(row, Result)}
    assert len(found) == 11
    for name, accuracy in found.items():
        assert accuracy == wanted[name], name


@pytest.mark.slow
def test_kits_have_all_inputs_and_outputs(folder: Path, tmp_path: Path) -> None:
    file = folder / "run" / "artifacts" / "two-int8.tflite"
    for target in ("c99", "tflm"):
        assert embed(file, target, tmp_path / target, str(folder / "two.npz"))
    done = subprocess.run(["make", "test"], cwd=tmp_path / "c99", capture_output=True, text=True, check=False)
    assert (
        "ok: 4 golden inputs with 4 different outputs, every output byte as in TensorFlow Lite Micro" in done.stdout
    ), done.stderr
    header = (tmp_path / "c99" / "two_int8.h").read_text(encoding="utf-8")
    for line in ("INPUT_SIZE 68", "INPUT_PICTURE_OFFSET 4", "INPUT_PICTURE_DIM_2 8", "OUTPUT_SIZE_OFFSET 3"):
        assert f"#define TWO_INT8_{line}" in header
    done = make_tflm(tmp_path / "tflm")
    assert "every output byte as on the host" in done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", ["two-int8.tflite", "two-float32.onnx"])
def test_the_kit_for_linux_checks_and_shows_every_output(name: str, folder: Path, tmp_path: Path) -> None:
    kit = tmp_path / "kit"
    embed(folder / "run" / "artifacts" / name, "linux", kit, str(folder / "two.npz"))
    if name.endswith(".onnx"):  # its metadata say the same
        (kit / f"{name}.json").unlink()

    def run_kit(*arguments: str) -> "subprocess.CompletedProcess[str]":
        given = [sys.executable, "run.py", name, *arguments]
        return subprocess.run(given, cwd=kit, capture_output=True, text=True, check=False)

    checked = run_kit("--check")
    assert checked.stdout.startswith("ok: 16 images as on the host; largest output difference 0 (limit"), checked.stderr
    with np.load(kit / "golden.npz") as golden:
        arrays = dict(golden)
    for place in range(2):
        np.save(kit / f"{place}.npy", arrays[f"images.{place}"][3])
    shown = run_kit("0.npy", "1.npy", "--runs", "3")
    assert [line.split()[0] for line in shown.stdout.splitlines()] == ["kind", "size", "time"], shown.stderr
    assert "the model has 2 inputs, facts, picture; give a file for each, in this order" in run_kit("0.npy").stderr
    arrays["outputs"][4, -1] += 1  # the second output
    np.savez(kit / "golden.npz", **arrays)
    assert "golden image 4: largest output difference 1" in run_kit("--check").stderr


@pytest.mark.slow
@pytest.mark.parametrize("core", ["cortex-m0", "cortex-m4", "cortex-m55"])
def test_the_code_runs_on_microcontrollers(core: str, folder: Path, tmp_path: Path) -> None:
    tools.need("qemu-system-arm")
    tools.need("arm-none-eabi-gcc")
    file = folder / "run" / "artifacts" / "two-int8.tflite"
    embed(file, core, tmp_path / "kit", str(folder / "two.npz"))
    done = subprocess.run(["make", "check"], cwd=tmp_path / "kit", capture_output=True, text=True, check=False)
    assert f"ok: every output byte is as expected on {core}" in done.stdout, done.stdout + done.stderr


@pytest.mark.slow
def test_instructions_are_counted(folder: Path, tmp_path: Path) -> None:
    tools.need("qemu-system-arm")
    tools.need("arm-none-eabi-gcc")
    names = ("two-int8.tflite", "two-int8.c")
    files = [str(folder / "run" / "artifacts" / name) for name in names]
    out = tmp_path / "b.json"
    command("bench", *files, "--target", "cortex-m4", "--seconds", "0.05", "--cold", "1", "--out", out)
    counted = read_record(out, Report).emulated
    assert [one.artifact for one in counted] == [*names]
    assert counted[0].instructions == counted[1].instructions > 1000


@pytest.mark.slow
def test_another_processor_answers_alike(folder: Path) -> None:
    tools.need("qemu-x86_64")
    files = [str(folder / "run" / "artifacts" / name) for name in ("two-int8.tflite", "two-int8.onnx")]
    model, data = folder / "run" / "model.keras", folder / "two.npz"
    said = command("verify", *files, "--model", model, "--data", data, "--on", "haswell", "--images", "20", "--json")
    assert said.count('"processor": "haswell"') == 2


@pytest.mark.slow
def test_tuned_files_have_all_inputs_and_outputs(folder: Path) -> None:
    from edgecnn.tuning import tune

    source = Source.load(folder / "run" / "model.keras", load(str(folder / "two.npz")), qat_weights=None)
    found = tune(source, SCHEMES["int8"], 1.0)
    assert found.tried >= 1


# Files of others


def test_a_foreign_onnx_file_is_measured(tmp_path: Path) -> None:
    from onnx import TensorProto, helper, save

    values = {n: helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 3]) for n in ("a", "b", "sum", "difference")}
    nodes = [helper.make_node("Add", ["a", "b"], ["sum"]), helper.make_node("Sub", ["a", "b"], ["difference"])]
    graph = helper.make_graph(nodes, "g", [values["a"], values["b"]], [values["sum"], values["difference"]])
    file = tmp_path / "other.onnx"
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), file)
    session = open_session(file)
    given = {"a": np.float32([[1, 2, 3], [4, 5, 6]]), "b": np.float32([[1, 1, 1], [2, 2, 2]])}
    np.testing.assert_array_equal(
        predict(session, joined(given)), np.hstack([given["a"] + given["b"], given["a"] - given["b"]])
    )
    report = edgecnn.bench([file], seconds=0.05, processes=1)
    (row,) = report.rows
    assert isinstance(row, Result)
    assert [spec.name for spec in row.artifact.outputs] == ["sum", "difference"]


def test_float_ends_are_left_out_where_all_can_be() -> None:
    """As TensorFlow's converter writes by default: QUANTIZE behind every input, DEQUANTIZE before every output."""
    keras.utils.set_random_seed(0)
    model = plain(two_and_two())
    samples = data_for(model, load(four(50, 20))).calibration(16)
    graph = read_graph(tflite.convert(Source(model, None, samples, "int8", 1), SCHEMES["int8"]), "x")
    tensors, operators = list(graph.tensors), list(graph.operators)

    def floats(index: int, kind: str) -> int:
        made = msgspec.structs.replace(tensors[index], index=len(tensors), dtype="float32", scale=np.float32([]))
        tensors.append(made)
        pair = (len(tensors) - 1, index) if kind == "QUANTIZE" else (index, len(tensors) - 1)
        operator = Operator(position=len(operators), kind=kind, inputs=pair[:1], outputs=pair[1:], options={})
        operators.insert(0 if kind == "QUANTIZE" else len(operators), operator)
        return len(tensors) - 1

    inputs = tuple(floats(index, "QUANTIZE") for index in graph.inputs)
    outputs = tuple(floats(index, "DEQUANTIZE") for index in graph.outputs)
    whole = msgspec.structs.replace(
        graph, tensors=tuple(tensors), operators=tuple(operators), inputs=inputs, outputs=outputs
    )
    bare = without_float_ends(whole)
    assert (bare.inputs, bare.outputs, bare.operators) == (graph.inputs, graph.outputs, graph.operators)
    mixed = msgspec.structs.replace(whole, outputs=(outputs[0], graph.outputs[1]))
    assert without_float_ends(mixed).outputs == mixed.outputs


@pytest.mark.slow
def test_jax_runs_it_too(folder: Path) -> None:
    code = (
        "import sys, numpy as np\nfrom edgecnn.data import load\nfrom edgecnn.runtimes import open_session, predict\n"
        "from pathlib import Path\nfrom edgecnn.models import data_for_file\n"
        "folder = Path(sys.argv[1])\ndata = data_for_file(folder / 'run/model.keras', load(str(folder / 'two.npz')))\n"
        "session = open_session(folder / 'run/model.keras', batch=16)\n"
        "np.save(sys.stdout.buffer, predict(session, data.test_inputs(32)))\n"
    )
    script = [sys.executable, "-c", code, str(folder)]
    done = subprocess.run(
        script, env={**__import__("os").environ, "KERAS_BACKEND": "jax"}, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr

    model = load_model(folder / "run" / "model.keras")
    data = data_for(model, load(str(folder / "two.npz")))
    wanted = np.concatenate([np.asarray(each) for each in called(model, parts(data.test_inputs(32)))], axis=1)
    np.testing.assert_allclose(np.load(io.BytesIO(done.stdout)), wanted, atol=1e-4)


# Models of other forms


def not_alphabetical() -> Any:
    given = [keras.Input((8, 8, 1), name="zoom"), keras.Input((4,), name="angles")]
    x = L.Concatenate()([L.Flatten()(L.Conv2D(4, 3, activation="relu")(given[0])), given[1]])
    return keras.Model(given, [L.Dense(3, name="yaw")(x), L.Dense(2, activation="tanh", name="back")(x)])


def heads_of_maps() -> Any:
    image = keras.Input((16, 16, 3))
    x = L.Conv2D(8, 3, strides=2, padding="same", activation="relu")(image)
    return keras.Model(
        image, [L.Conv2D(3, 1, activation="sigmoid", name="there")(x), L.Conv2D(4, 3, padding="same", name="box")(x)]
    )


def one_output_of_two_series() -> Any:
    given = [keras.Input((12, 3), name="left"), keras.Input((12, 3), name="right")]
    twin = keras.Sequential([keras.Input((12, 3)), L.Conv1D(6, 3, activation="relu"), L.GlobalAveragePooling1D()])
    return keras.Model(given, L.Dense(1)(L.Subtract()([twin(each) for each in given])))


def odd_names() -> Any:
    given = [keras.Input((6,), name="my values"), keras.Input((6,), name="t1")]
    x = L.Add()([L.Dense(5, activation="relu", name=f"größe {place}")(each) for place, each in enumerate(given)])
    return keras.Model(given, [L.Dense(2, name="size")(x), L.Dense(2, name="t3")(x)])


def an_output_inside() -> Any:
    values = keras.Input((10,))
    first = L.Dense(6, activation="relu", name="first")(values)
    return keras.Model(values, [first, L.Dense(3, name="second")(first), L.Reshape((2, 3), name="again")(first)])


def recurrent_and_vector() -> Any:
    given = [keras.Input((5, 4), name="steps"), keras.Input((3,), name="fixed")]
    x = L.Concatenate()([L.LSTM(4)(given[0]), given[1]])
    return keras.Model(given, [L.Dense(2, name="one")(x), L.Dense(1, activation="sigmoid", name="two")(x)])


FORMS: tuple[Callable[[], Any], ...] = (
    not_alphabetical, heads_of_maps, one_output_of_two_series, odd_names, an_output_inside, recurrent_and_vector,
)  # fmt: skip
WITHOUT_C = ("recurrent_and_vector",)  # LSTM computes in float


@pytest.mark.slow
@pytest.mark.parametrize("make", FORMS)
def test_a_model_of_another_form_is_the_same_in_every_file(make: Callable[[], Any], tmp_path: Path) -> None:
    keras.utils.set_random_seed(1)
    save_model(plain(make()), tmp_path / "odd.keras")
    model = load_model(tmp_path / "odd.keras")
    draw = np.random.default_rng(0)

    def samples(count: int) -> Any:
        arrays = {each.name: draw.random((count, *each.shape[1:]), np.float32) for each in model.inputs}
        return arrays if len(arrays) > 1 else next(iter(arrays.values()))

    data = load((samples(100), None, samples(50), None), task="custom", metric=lambda labels, outputs: 0.5)
    data = data_for(model, data)
    rows = edgecnn.export(tmp_path / "odd.keras", data, tmp_path, schemes=["float32", "int8"])
    made = [row for row in rows if isinstance(row, Artifact)]
    expected = 4 if make.__name__ in WITHOUT_C else 5
    assert len(made) == expected, [row for row in rows if not isinstance(row, Artifact)]
    wanted = np.concatenate([np.asarray(o).reshape(50, -1) for o in called(model, parts(data.test_inputs()))], axis=1)
    for artifact in made:
        session = open_session(tmp_path / artifact.file)
        found = predict(session, data.test_inputs())
        limit = 1e-4 if artifact.scheme == "float32" else 0.05 * np.ptp(wanted, axis=0).max()
        assert np.abs(found - wanted).mean() < limit, artifact.file
        assert [spec.sample_shape for spec in artifact.outputs] == [each.shape[1:] for each in model.outputs]
    parities = edgecnn.verify([tmp_path / each.file for each in made], data, model=tmp_path / "odd.keras")
    assert not [(one.artifact, one.reference, one.violations) for one in parities if one.violations]
