"""SavedModel folders as models: the same answers, in every format; and programs that are not run."""

import os
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import MadeOnce

from edgecnn import verification
from edgecnn.config import RunConfig
from edgecnn.data import DataSet, load
from edgecnn.errors import ModelError, QuantizationError
from edgecnn.exporting import export
from edgecnn.files import sha256_file
from edgecnn.formats import tflite
from edgecnn.formats.source import Source
from edgecnn.measure.files import bench_files
from edgecnn.models import as_file, called, input_names, load_model, output_names, save_model
from edgecnn.pipeline import _Flow
from edgecnn.quantization.engines import engine_called
from edgecnn.quantization.schemes import SCHEMES
from edgecnn.records import Artifact, Failure, Result
from edgecnn.runtimes import open_session, predict
from edgecnn.samples import joined
from edgecnn.saved_model import _PURE
from edgecnn.training import train

tf: Any = pytest.importorskip("tensorflow")
SIZE = (8, 8, 3)


def _keras3(folder: Path) -> None:
    import keras

    layers = keras.layers
    keras.utils.set_random_seed(1)
    images = keras.Input(SIZE)
    x = layers.BatchNormalization()(layers.Conv2D(8, 3, padding="same", activation="relu")(images))
    x = layers.Conv2D(8, 3, groups=2, activation="relu")(layers.Dropout(0.2)(x))
    x = layers.Dense(4, activation="softmax")(layers.GlobalAveragePooling2D()(layers.MaxPooling2D()(x)))
    keras.Model(images, x).export(folder, verbose=False)


def _keras2(folder: Path) -> None:
    import tf_keras

    layers = tf_keras.layers
    tf_keras.utils.set_random_seed(1)
    steps = [tf_keras.Input(SIZE), layers.Conv2D(4, 3), layers.BatchNormalization(), layers.ReLU(), layers.Flatten()]
    tf_keras.Sequential([*steps, layers.Dropout(0.5), layers.Dense(4)]).save(folder, save_format="tf")


class Two(tf.Module):  # type: ignore[misc]
    """Two inputs and two outputs, and two variables of one name."""

    def __init__(self) -> None:
        draw = np.random.default_rng(1)
        self.one = tf.Variable(draw.normal(size=(6, 4)).astype(np.float32), name="weights")
        self.other = tf.Variable(draw.normal(size=(3, 4)).astype(np.float32), name="weights")

    @tf.function  # type: ignore[untyped-decorator]
    def __call__(self, left: Any, right: Any) -> dict[str, Any]:
        both = tf.nn.relu(left @ self.one + right @ self.other)
        return {"gate": tf.sigmoid(both), "total": tf.reduce_sum(both, -1, keepdims=True)}


def _module(folder: Path) -> None:
    two = Two()
    specs = [tf.TensorSpec((None, size), tf.float32, name) for size, name in ((6, "left"), (3, "right"))]
    tf.saved_model.save(two, str(folder), two.__call__.get_concrete_function(*specs))


def _tf1(folder: Path) -> None:
    """As Estimators were saved: variables that are no resources, and outputs that are no numbers to train on."""
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        images = v1.placeholder(tf.float32, (None, *SIZE))
        values = np.random.default_rng(1).normal(size=(3, 3, 3, 4)).astype(np.float32)
        kernel = v1.get_variable("kernel", initializer=values, use_resource=False)
        logits = tf.reduce_mean(tf.nn.relu(tf.nn.conv2d(images, kernel, 1, "SAME")), (1, 2))
        session.run(v1.global_variables_initializer())
        outputs = {"probabilities": tf.nn.softmax(logits), "class_ids": tf.argmax(logits, -1)}
        v1.saved_model.simple_save(session, str(folder), {"images": images}, outputs)


def _any_size(folder: Path) -> None:
    """Bytes of images of any size."""
    module = tf.Module()
    module.kernel = tf.Variable(np.random.default_rng(1).normal(size=(3, 3, 3, 4)).astype(np.float32))

    def call(images: Any) -> Any:
        return tf.nn.conv2d(tf.cast(images, tf.float32) / 255.0, module.kernel, 1, "SAME")

    specs = tf.TensorSpec((None, None, None, 3), tf.uint8, "images")
    tf.saved_model.save(module, str(folder), tf.function(call).get_concrete_function(specs))


KINDS: dict[str, Callable[[Path], None]] = {
    "keras3": _keras3, "keras2": _keras2, "module": _module, "tf1": _tf1, "any_size": _any_size
}  # fmt: skip


@pytest.fixture(scope="session")
def saved(made_once: MadeOnce) -> Path:
    """A folder with a SavedModel of each kind, and data for some; do not change them."""
    return made_once("saved-models", _make)


def _make(folder: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, save in KINDS.items():
            save(folder / name)
    draw = np.random.default_rng(2)
    images, labels = draw.random((120, *SIZE), np.float32), np.arange(120) % 4
    np.savez(folder / "data.npz", x_train=images[:60], y_train=labels[:60], x_test=images[60:], y_test=labels[60:])


@pytest.fixture(scope="session")
def data(saved: Path) -> DataSet:
    return load(str(saved / "data.npz"))


def _answers(folder: Path, inputs: dict[str, Any]) -> dict[str, Any]:
    """What TensorFlow's own loader gives."""
    found = tf.saved_model.load(str(folder)).signatures["serving_default"](**inputs)
    return {name: each.numpy() for name, each in found.items()}


def _inputs(kind: str, images: int) -> dict[str, Any]:
    draw = np.random.default_rng(3)
    if kind == "module":
        return {"left": draw.random((images, 6), np.float32), "right": draw.random((images, 3), np.float32)}
    if kind == "any_size":
        return {"images": draw.integers(0, 256, (images, 9, 7, 3), np.uint8)}
    name = {"keras2": "input_1", "tf1": "images"}.get(kind)
    return {name or "keras_tensor": draw.random((images, *SIZE), np.float32)}


@pytest.mark.parametrize("kind", KINDS)
def test_the_model_answers_as_the_savedmodel_does(kind: str, saved: Path) -> None:
    model, inputs = load_model(saved / kind), _inputs(kind, 5)
    found = called(model, [each.astype(np.float32) for each in inputs.values()])
    wanted = _answers(saved / kind, dict(zip(_signature(saved / kind), inputs.values(), strict=True)))
    names = output_names(model) if len(found) > 1 else [next(name for name in wanted if name != "class_ids")]
    assert set(names) == set(wanted) - {"class_ids"}
    for name, each in zip(names, found, strict=True):
        np.testing.assert_allclose(np.asarray(each), wanted[name], rtol=1e-4, atol=1e-5)


def _signature(folder: Path) -> list[str]:
    """The names of the inputs, in order."""
    return sorted(tf.saved_model.load(str(folder)).signatures["serving_default"].structured_input_signature[1])


def test_names_come_from_the_signature(saved: Path) -> None:
    model = load_model(saved / "module")
    assert input_names(model) == ["left", "right"]
    assert output_names(model) == ["gate", "total"]


def test_a_folder_and_the_keras_file_of_it_are_one_model(saved: Path, tmp_path: Path) -> None:
    with as_file(saved / "keras3") as one, as_file(saved / "keras3") as other:
        assert one.name == "keras3.keras"
        assert sha256_file(one) == sha256_file(other)
        inputs = list(_inputs("keras3", 3).values())
        (ours,), (theirs,) = called(load_model(one), inputs), called(load_model(saved / "keras3"), inputs)
        np.testing.assert_array_equal(ours, theirs)


def test_every_file_is_made_and_verified(saved: Path, data: DataSet, tmp_path: Path) -> None:
    rows = export(saved / "keras3", data, tmp_path, schemes=("float32", "dynamic-int8", "int8"))
    artifacts = [row for row in rows if isinstance(row, Artifact)]
    assert len(artifacts) == len(rows) == 7
    assert {row.provenance.calibration_methods for row in artifacts if row.scheme == "int8" and row.provenance} == {
        ("TensorFlow Lite's converter",)
    }
    parities = verification.verify([tmp_path / row.file for row in artifacts], data, model=saved / "keras3")
    assert not [violation for parity in parities for violation in parity.violations]


@pytest.mark.parametrize("kind", ["keras2", "module", "tf1"])
def test_int8_is_near_the_savedmodel(kind: str, saved: Path, tmp_path: Path) -> None:
    inputs = _inputs(kind, 40)
    samples = joined(inputs)
    source = Source(load_model(saved / kind), None, samples, "int8", 1)
    (tmp_path / "model.tflite").write_bytes(tflite.convert(source, SCHEMES["int8"]))
    found = predict(open_session(tmp_path / "model.tflite"), samples)
    wanted = _answers(saved / kind, dict(zip(_signature(saved / kind), inputs.values(), strict=True)))
    expected = np.hstack([wanted[name] for name in sorted(wanted) if name != "class_ids"])
    # two steps of 8 bits of each output's range, on average
    assert np.abs(found - expected).mean() <= 2 * np.ptp(expected) / 255


def test_bench_measures_a_folder_and_a_damaged_one_is_a_row(saved: Path, tmp_path: Path) -> None:
    shutil.copytree(saved / "keras2", tmp_path / "damaged")
    (tmp_path / "damaged" / "saved_model.pb").write_bytes(b"garbage")
    report = bench_files([saved / "keras2", tmp_path / "damaged"], seconds=0.01, processes=1)
    measured, failed = report.rows
    assert isinstance(measured, Result)
    assert measured.artifact.file == "keras2.keras"
    assert isinstance(failed, Failure)
    assert failed.subject == "damaged"


def test_it_is_taken_as_it_is(saved: Path, data: DataSet) -> None:
    model = load_model(saved / "keras3")
    with pytest.raises(ModelError, match="no weights that training changes; leave out --epochs"):
        train(model, data, epochs=1)
    with pytest.raises(QuantizationError, match="comes from a SavedModel"):
        engine_called("keras").fake_quantized(model, data)
    with pytest.raises(QuantizationError, match="legacy Keras"):
        engine_called("tfmot").fake_quantized(model, data)


def test_a_run_keeps_the_model_and_takes_it_again_if_the_folder_changes(saved: Path, tmp_path: Path) -> None:
    model, out = tmp_path / "mine", tmp_path / "run"
    shutil.copytree(saved / "keras2", model)
    (out / "work").mkdir(parents=True)
    config = RunConfig(model=str(model), data=str(saved / "data.npz"), baselines=("none",))

    def flow() -> _Flow:
        made = _Flow(config, out)
        made.train()
        return made

    first = flow()
    assert load_model(out / "model.keras").count_params() == load_model(model).count_params() > 0
    assert first.quantize() is None
    (refused,) = first.failures
    assert refused.expected
    assert "comes from a SavedModel" in refused.reason
    assert [stage.reused for stage in flow().stages.times if stage.name == "train"] == [True]
    (model / "words.txt").write_text("new")
    assert [stage.reused for stage in flow().stages.times if stage.name == "train"] == [False]


# Programs


def test_every_operator_that_is_run_only_computes() -> None:
    """Only names of operators that TensorFlow has, and none that takes or gives text, resources or functions."""
    from tensorflow.python.framework import op_def_registry

    definitions = [op_def_registry.get(name) for name in sorted(_PURE)]
    assert all(definitions)
    assert {each.name for each in definitions if each.is_stateful} == {"Assert", "CheckNumerics"}  # they may fail
    odd = {tf.string.as_datatype_enum, tf.resource.as_datatype_enum, tf.variant.as_datatype_enum}
    assert not [each.name for each in definitions for arg in (*each.input_arg, *each.output_arg) if arg.type in odd]
    functions = ("func", "list(func)")
    assert not [each.name for each in definitions for attribute in each.attr if attribute.type in functions]


def _save(folder: Path, call: Callable[[Any, Any], Any], *, spec: Any = None, signatures: Any = None) -> Path:
    """A SavedModel that computes ``call`` of a variable of ones ``(4, 4)`` and its inputs."""
    module = tf.Module()
    module.weights = tf.Variable(np.ones((4, 4), np.float32))
    function = tf.function(lambda x: call(module.weights, x), autograph=False)
    concrete = function.get_concrete_function(tf.TensorSpec((None, 4), tf.float32, "x") if spec is None else spec)
    module.function = function
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        chosen = concrete if signatures is None else dict.fromkeys(signatures, concrete)
        tf.saved_model.save(module, str(folder), chosen)
    return folder


def test_a_program_that_writes_a_file_is_refused_and_not_run(tmp_path: Path) -> None:
    target = tmp_path / "written"

    def writes(weights: Any, x: Any) -> Any:
        with tf.control_dependencies([tf.io.write_file(str(target), "here")]):
            return tf.identity(x @ weights)

    folder = _save(tmp_path / "model", writes)
    with pytest.raises(ModelError, match="contains WriteFile, and nothing of it was run"):
        load_model(folder)
    assert not target.exists()
    _answers(folder, {"x": np.ones((1, 4), np.float32)})
    assert target.exists(), "the program writes it where it is run"


@pytest.mark.parametrize(
    ("operator", "call"),
    [
        ("ReadFile", lambda w, x: x @ w + tf.cast(tf.strings.length(tf.io.read_file("/etc/hostname")), tf.float32)),
        ("EagerPyFunc", lambda w, x: tf.ensure_shape(tf.py_function(lambda y: y, [x @ w], tf.float32), (None, 4))),
        ("DebugIdentity", lambda w, x: tf.raw_ops.DebugIdentity(input=x @ w, debug_urls=["file:///tmp/written"])),
        ("While", lambda w, x: tf.while_loop(lambda y: tf.reduce_sum(y) < 9, lambda y: (y @ w,), (x,))[0]),
    ],
)
def test_operators_with_other_effects_are_named(operator: str, call: Any, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=f"{operator}.*, and nothing of it was run"):
        load_model(_save(tmp_path / "model", call))


def test_what_the_outputs_do_not_need_is_not_run(tmp_path: Path) -> None:
    """Such as an initialiser, which TensorFlow's own loader runs."""
    v1, target = tf.compat.v1, tmp_path / "written"
    with tf.Graph().as_default(), v1.Session() as session, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        x = v1.placeholder(tf.float32, (None, 4))
        y = x @ v1.get_variable("weights", initializer=np.ones((4, 4), np.float32))
        session.run(v1.global_variables_initializer())
        writes = tf.io.write_file(str(target), "here")
        builder = v1.saved_model.Builder(str(tmp_path / "model"))
        signature = v1.saved_model.predict_signature_def({"x": x}, {"y": y})
        builder.add_meta_graph_and_variables(session, ["serve"], {"serving_default": signature}, main_op=writes)
        builder.save()
    assert load_model(tmp_path / "model").output_shape == (None, 4)
    assert not target.exists()
    tf.saved_model.load(str(tmp_path / "model"))
    assert target.exists(), "TensorFlow's own loader runs it"


def _a_constant(nodes: Any, restore: Any) -> None:
    """The path of the variables is written in the graph."""
    named = nodes.add(name="named", op="Const")
    named.attr["value"].tensor.CopyFrom(tf.make_tensor_proto("/tmp/variables"))
    named.attr["dtype"].type = tf.string.as_datatype_enum
    restore.input[0] = "named:output:0"


def _a_restored_text(nodes: Any, restore: Any) -> None:
    """The path of the variables is in a variable."""
    first = nodes.add()
    first.CopyFrom(restore)
    first.name = "first"
    first.attr["dtypes"].list.type[:] = [tf.string.as_datatype_enum] * len(first.attr["dtypes"].list.type)
    restore.input[0] = "first:tensors:0"


@pytest.mark.parametrize("change", [_a_constant, _a_restored_text])
def test_variables_come_from_the_folder_only(change: Callable[[Any, Any], None], tmp_path: Path) -> None:
    folder = _save(tmp_path / "model", lambda w, x: x @ w)
    proto = _proto(folder)
    (nodes, restore) = next(
        (function.node_def, node)
        for function in proto.meta_graphs[0].graph_def.library.function
        for node in function.node_def
        if node.op == "RestoreV2"
    )
    change(nodes, restore)
    (folder / "saved_model.pb").write_bytes(proto.SerializeToString())
    with pytest.raises(ModelError, match="restores its variables from another place than its own folder"):
        load_model(folder)


def test_a_keras_file_with_such_a_program_is_refused(saved: Path, tmp_path: Path) -> None:
    import base64

    from edgecnn.frozen import FrozenGraph

    target = tmp_path / "written"
    model = load_model(saved / "keras2")
    graph = tf.Graph()
    with graph.as_default():
        tf.io.write_file(str(target), "here", name="writes")
    layer = next(layer for layer in model.layers if isinstance(layer, FrozenGraph))
    content = layer._graph
    content.node.extend(graph.as_graph_def().node)
    layer._settings["graph"] = base64.b64encode(content.SerializeToString()).decode()
    save_model(model, tmp_path / "model.keras")
    with pytest.raises(ModelError, match="WriteFile"):
        load_model(tmp_path / "model.keras")
    assert not target.exists()


# Damage


def _proto(folder: Path) -> Any:
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    return SavedModel.FromString((folder / "saved_model.pb").read_bytes())


def _no_variables(folder: Path) -> None:
    shutil.rmtree(folder / "variables")


def _half_the_weights(folder: Path) -> None:
    (content,) = (folder / "variables").glob("*.data*")
    content.write_bytes(content.read_bytes()[:100])


def _garbage(folder: Path) -> None:
    (folder / "saved_model.pb").write_bytes(os.urandom(2000))


def _empty(folder: Path) -> None:
    (folder / "saved_model.pb").write_bytes(b"")


def _no_graph_file(folder: Path) -> None:
    (folder / "saved_model.pb").unlink()


def _link_out(folder: Path) -> None:
    (content,) = (folder / "variables").glob("*.data*")
    content.rename(folder.parent / "elsewhere")
    content.symlink_to(folder.parent / "elsewhere")


def _folder_out(folder: Path) -> None:
    (folder / "variables").rename(folder.parent / "elsewhere")
    (folder / "variables").symlink_to(folder.parent / "elsewhere")


def _pipe(folder: Path) -> None:
    os.mkfifo(folder / "fingerprint.pipe")


def _missing_node(folder: Path) -> None:
    proto = _proto(folder)
    for signature in proto.meta_graphs[0].signature_def.values():
        for output in signature.outputs.values():
            output.name = "nowhere:0"
    (folder / "saved_model.pb").write_bytes(proto.SerializeToString())


def _bomb(folder: Path) -> None:
    """A constant of 40 GB that takes a few bytes."""
    proto = _proto(folder)
    graph = proto.meta_graphs[0].graph_def
    node = graph.node.add(name="bomb", op="Const")
    node.attr["dtype"].type = tf.float32.as_datatype_enum
    node.attr["value"].tensor.dtype = tf.float32.as_datatype_enum
    node.attr["value"].tensor.float_val.append(1.0)
    node.attr["value"].tensor.tensor_shape.dim.add(size=10**10)
    outputs = proto.meta_graphs[0].signature_def["serving_default"].outputs
    outputs["bomb"].CopyFrom(outputs["dense"])
    outputs["bomb"].name = "bomb:0"
    (folder / "saved_model.pb").write_bytes(proto.SerializeToString())


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_no_variables, "has no variables/variables.index, where its weights are; copy the whole folder"),
        (_half_the_weights, "is damaged, or cannot be used: .*"),
        (_garbage, "saved_model.pb is damaged: "),
        (_empty, "has 0 graphs for inference"),
        (_no_graph_file, "is a folder without saved_model.pb"),
        (_link_out, "is a link that leads out of the SavedModel"),
        (_folder_out, "is a link that leads out of the SavedModel"),
        (_pipe, "is not a file; a SavedModel has files only"),
        (_missing_node, "is damaged, or cannot be used: 'nowhere'"),
        (_bomb, "bytes and weights of 40,000,00"),
    ],
)
def test_a_damaged_folder_is_one_line(
    damage: Callable[[Path], None], message: str, saved: Path, tmp_path: Path
) -> None:
    shutil.copytree(saved / "keras2", tmp_path / "model")
    damage(tmp_path / "model")
    with pytest.raises(ModelError, match=message) as caught:
        load_model(tmp_path / "model")
    assert "\n" not in str(caught.value)


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "model").write_bytes(b"x")
    with pytest.raises(ModelError, match=r"ends neither in .keras nor in .h5"):
        load_model(tmp_path / "model")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"signatures": ["one", "other"]}, "has the signatures one, other, and none is called serving_default"),
        ({"spec": tf.TensorSpec(None, tf.float32, "x")}, "an input x of a size that is not known"),
        ({"spec": tf.TensorSpec((1, 4), tf.float32, "x"), "call": lambda w, x: tf.reshape(x @ w, (1, 2, 2))},
         "computes no batch of 2: .*save it with None as the first size"),
        ({"call": lambda w, x: tf.reduce_sum(x @ w)}, r"gives output_0 of shape \(\) for a batch of 2"),
        ({"call": lambda w, x: tf.argmax(x @ w, -1)}, "has 1 inputs and 0 outputs of floats"),
        ({"call": lambda w, x: x * 2}, "has no weights"),
        ({"call": lambda w, x: x @ (w * np.nan + tf.constant(np.full((4, 4), np.nan, np.float32)))}, "are NaN"),
    ],
)  # fmt: skip
def test_models_that_cannot_be_taken(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    folder = _save(tmp_path / "model", **{"call": lambda w, x: tf.reshape(x, (-1, 4)) @ w, **changes})
    with pytest.raises(ModelError, match=message):
        load_model(folder)


def test_the_only_signature_is_taken_whatever_it_is_called(tmp_path: Path) -> None:
    folder = _save(tmp_path / "my model", lambda w, x: x @ w, signatures=["predict"])
    model = load_model(folder)
    assert model.name == "my_model"
    np.testing.assert_array_equal(called(model, [np.ones((1, 4), np.float32)])[0], np.full((1, 4), 4.0))


def test_examples_as_strings_are_refused(tmp_path: Path) -> None:
    def parses(weights: Any, texts: Any) -> Any:
        return tf.io.parse_example(texts, {"x": tf.io.FixedLenFeature((4,), tf.float32)})["x"] @ weights

    folder = _save(tmp_path / "model", parses, spec=tf.TensorSpec((None,), tf.string, "examples"))
    with pytest.raises(ModelError, match="takes strings as examples"):
        load_model(folder)
