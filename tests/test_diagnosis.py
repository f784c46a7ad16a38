"""Where accuracy was lost: steps add up to the total, and the layer with a planted fault is found."""

import io
import itertools
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import msgspec
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from conftest import Workspace
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from test_onnx_qdq import BODIES, converted, model_of
from test_verification import rescaled

from edgecnn import artifacts, cli
from edgecnn.diagnosis import layers as layers_module
from edgecnn.diagnosis import terminal
from edgecnn.diagnosis.layers import IMAGES, float_models, layers, snr_db
from edgecnn.diagnosis.stages import BUILT_IN, ORT, REFERENCE, XNNPACK, path_of, stages
from edgecnn.errors import ArtifactError, ConfigError, SessionError
from edgecnn.models import save_model
from edgecnn.records import AccuracyPath, Failure, LayerError, LayerErrors, from_json, to_json
from edgecnn.runtimes.litert import LitertSession
from edgecnn.tasks import Scoring
from edgecnn.tflite.graph import read_graph
from edgecnn.verification import FAKE_QUANTIZED, FLOAT, verify

pytestmark = pytest.mark.slow

INT8 = ("int8", "int8-qat")


def layers_in(workspace: Workspace, *paths: Path) -> list[LayerErrors]:
    return layers(paths, workspace.data, model=workspace.model_file, qat_weights=workspace.qat_file)


def path_to(workspace: Workspace, *paths: Path) -> list[AccuracyPath]:
    found = stages(paths, workspace.data, model=workspace.model_file, qat_weights=workspace.qat_file)
    assert all(isinstance(path, AccuracyPath) for path in found)
    return [path for path in found if isinstance(path, AccuracyPath)]


# Stages


@given(st.integers(1, 5), st.integers(2, 4), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_changes_of_the_steps_sum_to_the_whole(steps: int, classes: int, images: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, images)
    # few values, so that top classes are shared by several
    outputs = [rng.integers(0, 3, (images, classes)).astype(np.float32) for _ in range(steps)]
    found = path_of(
        [(str(number), None, output) for number, output in enumerate(outputs)], Scoring("classification", labels)
    )
    whole = found[-1].accuracy.correct - found[0].accuracy.correct
    assert sum(step.gained - step.lost for step in found) == whole
    assert sum(step.change for step in found) == pytest.approx(100 * whole / images)
    for before, step in itertools.pairwise(found):
        assert step.accuracy.correct - before.accuracy.correct == step.gained - step.lost
        assert step.agreement is not None
        assert round(step.agreement * images) + step.gained + step.lost <= images
    assert (found[0].gained, found[0].lost, found[0].agreement) == (0, 0, None)


def test_a_step_counts_what_it_says() -> None:
    tops = np.array([[0, 1, 2, 0, 1], [1, 1, 0, 0, 2]])
    before, after = (np.eye(3, dtype=np.float32)[top] for top in tops)
    scoring = Scoring("classification", np.array([0, 1, 0, 2, 2]))
    _, step = path_of([("a", None, before), ("b", "why", after)], scoring)
    assert (step.name, step.note) == ("b", "why")
    assert (step.gained, step.lost) == (2, 1)
    assert (step.accuracy.correct, step.accuracy.total) == (3, 5)
    assert (step.change, step.agreement) == (20.0, 0.4)


def test_stages_of_both_schemes(workspace: Workspace) -> None:
    paths = [workspace.path(format, scheme) for scheme in INT8 for format in ("tflite", "onnx")]
    found = path_to(workspace, *paths)
    assert [path.scheme for path in found] == list(INT8)
    names = [[step.name for step in path.steps] for path in found]
    assert names == [[FLOAT, REFERENCE, XNNPACK, ORT], [FLOAT, FAKE_QUANTIZED, REFERENCE, XNNPACK, ORT]]
    parities = verify(paths, workspace.data, model=workspace.model_file, qat=workspace.qat_file)
    parities = [parity for parity in parities if not parity.reference.endswith("in TFLM")]
    assert [parity for path in found for parity in path.parities] == parities
    counted = {(parity.artifact, parity.reference): parity for parity in parities}
    for path in found:
        float_step, *middle, reference, xnnpack, ort = path.steps
        assert all(step.accuracy.total == len(workspace.data.test.labels) for step in path.steps)
        whole = ort.accuracy.correct - float_step.accuracy.correct
        assert sum(step.gained - step.lost for step in path.steps) == whole
        verified = counted[path.artifact, FAKE_QUANTIZED if middle else FLOAT]
        assert xnnpack.accuracy == verified.accuracy
        assert ort.accuracy == counted[path.artifact.replace("tflite", "onnx"), path.artifact].accuracy
        assert (middle or [float_step])[-1].accuracy == verified.reference_accuracy
        assert reference.note is None
        assert reference.agreement is not None
        assert reference.agreement > 0.97
        assert from_json(to_json(path), AccuracyPath, "x") == path


def test_what_has_no_reference_kernel_is_named_and_stood_in_for(workspace: Workspace, tmp_path: Path) -> None:
    model = model_of(BODIES["upsampled"][0])
    path = saved(workspace, model, tmp_path)
    artifact = artifacts.load(path)
    with pytest.raises(SessionError, match=r"reference kernels: .*TILE"):
        LitertSession(path, kernels="reference")
    # a file that others made has no scheme; this one gets its sidecar from here
    artifacts.sidecar(path).write_bytes(to_json(artifact.replace(scheme="int8")))
    (found,) = stages([path], workspace.data, model=tmp_path / "model.keras")
    assert isinstance(found, AccuracyPath)
    assert [step.name for step in found.steps] == [FLOAT, BUILT_IN, XNNPACK]
    assert "TILE" in (found.steps[1].note or "")
    text = printed(terminal.show_path, found)
    assert f"{BUILT_IN} (1)" in text
    assert "(1) instead of the reference kernels" in text


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ([("tflite", "float32")], "has scheme float32; diagnose stages needs int8 or int8-qat files"),
        ([("tflite", "int16x8")], "has scheme int16x8"),
        ([("onnx", "int8")], "include its .tflite"),
        ([("onnx", "int8-qat"), ("tflite", "int8")], "int8-qat .onnx include its .tflite"),
        ([("tflite", "int8"), ("tflite", "int8")], "one .tflite file per scheme"),
        ([("tflite", "int8-qat")], "--qat"),
    ],
)
def test_what_has_no_stages(workspace: Workspace, keys: list[tuple[str, str]], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        stages([workspace.path(*key) for key in keys], workspace.data, model=workspace.model_file)


def test_a_float_file_has_no_stages_and_the_others_have(
    workspace: Workspace, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [workspace.path("tflite", scheme) for scheme in ("float32", "int8")]
    float_file, path = stages(files, workspace.data, model=workspace.model_file)
    assert isinstance(float_file, Failure)
    assert isinstance(path, AccuracyPath)
    assert (float_file.subject, path.artifact) == ("digits-float32.tflite", "digits-int8.tflite")
    monkeypatch.setattr("edgecnn.diagnosis.stages.stages", lambda *_, **__: [float_file, path])
    words = ["edgecnn", "diagnose", "stages", *map(str, files), "--model", str(workspace.model_file)]
    words += ["--data", str(workspace.data_file), "--json"]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as end:
        cli.main()
    said = capsys.readouterr()
    assert end.value.code == 0
    assert "digits-float32.tflite has scheme float32; diagnose stages needs int8 or int8-qat files" in said.err
    assert [row.get("artifact", row.get("subject")) for row in json.loads(said.out)] == [
        "digits-float32.tflite",
        "digits-int8.tflite",
    ]


# Layers


def saved(workspace: Workspace, model: Any, folder: Path, **options: Any) -> Path:
    """``model`` in ``folder`` as model.keras, and as an int8 .tflite, whose path comes back."""
    save_model(model, folder / "model.keras")
    path = folder / "model.tflite"
    images = workspace.data.calibration(100)
    path.write_bytes(converted(model, images, **options)["tflite"])
    return path


def planted(model: bytes, position: int, factor: float) -> bytes:
    """``model`` with the output scale of one operator times ``factor``.

    Behind it, the same for operators that pass integers on and refuse another scale than their input's.
    """
    graph = read_graph(model, "x")
    changed = {graph.operators[position].outputs[0]}
    for operator in graph.operators[position + 1 :]:
        if operator.kind in ("MAX_POOL_2D", "RESHAPE") and operator.inputs[0] in changed:
            changed.add(operator.outputs[0])
    for tensor in changed:
        model = rescaled(model, tensor, factor)
    return model


@pytest.fixture(scope="module")
def calibrated(workspace: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workspace's model in int8 as ``edgecnn export`` makes it: calibrated on all images looked at, and more."""
    path = tmp_path_factory.mktemp("calibrated") / "calibrated.tflite"
    path.write_bytes(converted(workspace.model, workspace.data.calibration(500))["tflite"])
    return path


@pytest.mark.parametrize(("scheme", "factor"), [("int8", 1.5), ("int8", 0.5), ("int8-qat", 0.5)])
def test_a_layer_with_a_wrong_scale_comes_first(
    workspace: Workspace, calibrated: Path, scheme: str, factor: float, tmp_path: Path
) -> None:
    """Ranges that training learnt saturate by design, so that steps 1.5 times as wide may even be better there."""
    original = calibrated if scheme == "int8" else workspace.path("tflite", scheme)
    model = original.read_bytes()
    operators = read_graph(model, "x").operators
    chosen = [o.position for o in operators if o.kind in ("CONV_2D", "FULLY_CONNECTED", "RESHAPE")]
    assert len(chosen) == 5
    wrong = [tmp_path / f"{position}.tflite" for position in chosen]
    for position, path in zip(chosen, wrong, strict=True):
        path.write_bytes(planted(model, position, factor))
    honest, *found = layers_in(workspace, original, *wrong)
    before = {layer.position: layer for layer in honest.layers}
    for position, errors in zip(chosen, found, strict=True):
        worst = errors.layers[0]
        assert (worst.position, worst.scale_is_off) == (position, True), errors.layers
        if factor == 0.5 or worst.operator == "RESHAPE":
            assert worst.own_snr_db == min(layer.own_snr_db for layer in errors.layers if layer.own_snr_db is not None)
        else:  # steps 1.5 times as wide, and so are the errors: less than what lies between honest layers
            own = before[position].own_snr_db
            assert own is not None
            assert worst.own_snr_db == pytest.approx(own - 20 * np.log10(1.5), abs=2)
        if factor == 0.5 and worst.operator != "RESHAPE":
            assert worst.clipped > before[position].clipped
            assert worst.own_max_lsb > 20


def test_an_honest_int8_file_has_no_scale_that_is_off(workspace: Workspace, calibrated: Path) -> None:
    (found,) = layers_in(workspace, calibrated)
    assert found.images == IMAGES
    assert found.images_from == "training images of digits"
    assert found.reference == FLOAT
    assert found.weights_snr_db is not None
    assert found.weights_snr_db > 30
    own = [layer.own_snr_db for layer in found.layers]
    assert not any(layer.scale_is_off for layer in found.layers), found.layers
    ranks = [np.inf if value is None else value for value in own]
    assert ranks == sorted(ranks)
    by_kind = {layer.operator: layer for layer in found.layers}
    assert set(by_kind) == {"INPUT", "CONV_2D", "MAX_POOL_2D", "RESHAPE", "FULLY_CONNECTED", "SOFTMAX"}
    for kind in ("MAX_POOL_2D", "RESHAPE"):  # pass integers on
        assert by_kind[kind].own_snr_db is None
        assert by_kind[kind].own_max_abs == 0
        assert by_kind[kind].snr_db is not None
    assert by_kind["INPUT"].snr_db == by_kind["INPUT"].own_snr_db
    assert from_json(to_json(found), LayerErrors, "x") == found


def test_a_dense_layer_computed_by_hand(workspace: Workspace) -> None:
    """The last dense layer's numbers, from LiteRT's integers and the file's weights alone."""
    path = workspace.path("tflite", "int8")
    graph = read_graph(path.read_bytes(), "x")
    *_, dense = [operator for operator in graph.operators if operator.kind == "FULLY_CONNECTED"]
    source, weights, bias, output = (graph.tensors[i] for i in (*dense.inputs, *dense.outputs))
    assert weights.data is not None
    assert bias.data is not None
    interpreter = Interpreter(
        model_path=str(path),
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        experimental_preserve_all_tensors=True,
    )
    interpreter.allocate_tensors()
    (details,) = interpreter.get_input_details()
    scale, zero_point = details["quantization"]
    expected, got = [], []
    for image in workspace.data.calibration(IMAGES):
        integers = np.clip(np.round(image / scale) + zero_point, -128, 127)
        interpreter.set_tensor(details["index"], integers[None].astype(np.int8))
        interpreter.invoke()
        read = interpreter.get_tensor(source.index).astype(int) - source.zero_point[0]
        sums = read @ weights.data.T.astype(int) + bias.data
        expected.append(sums * (float(source.scale[0]) * weights.scale.astype(float)))
        got.append(interpreter.get_tensor(output.index).astype(int))
    real = (np.array(got) - output.zero_point[0]) * float(output.scale[0])
    error = real - np.array(expected)
    (found,) = layers_in(workspace, path)
    (layer,) = [layer for layer in found.layers if layer.position == dense.position]
    wanted = 10 * np.log10((np.array(expected) ** 2).sum() / (error**2).sum())
    assert layer.own_snr_db == pytest.approx(wanted, abs=0.01)
    assert layer.own_max_abs == pytest.approx(np.abs(error).max(), rel=1e-3)
    assert layer.own_max_lsb == pytest.approx(np.abs(error).max() / output.scale[0], rel=1e-3)
    assert layer.at_low == (np.array(got) == -128).mean()
    assert layer.at_high == (np.array(got) == 127).mean()


def test_the_graph_in_float_is_the_keras_model_with_the_weights_of_the_file(workspace: Workspace) -> None:
    import onnxruntime

    graph = read_graph(workspace.path("tflite", "int8").read_bytes(), "x")
    model = keras.models.clone_model(workspace.model)
    weights = []
    for operator in graph.operators:
        if operator.kind in ("CONV_2D", "FULLY_CONNECTED"):
            source, kernel, bias = (graph.tensors[index] for index in operator.inputs)
            assert kernel.data is not None
            assert bias.data is not None
            shape = (-1,) + (1,) * (kernel.data.ndim - 1)
            real = kernel.data * kernel.scale.reshape(shape)
            weights.append(real.transpose(1, 2, 3, 0) if real.ndim == 4 else real.T)
            weights.append(bias.data * source.scale[0] * kernel.scale)
    model.set_weights(weights)
    whole, _ = float_models(graph)
    session = onnxruntime.InferenceSession(whole, providers=["CPUExecutionProvider"])
    for image in workspace.data.calibration(20):
        got = dict(zip([o.name for o in session.get_outputs()],
                       session.run(None, {"input": image.transpose(2, 0, 1)[None]}), strict=True))  # fmt: skip
        value, flat = image[None], next(operator for operator in graph.operators if operator.kind == "RESHAPE")
        for layer in model.layers:
            value = layer(value)
            if isinstance(layer, keras.layers.Flatten):
                np.testing.assert_allclose(got[f"t{flat.outputs[0]}"], value, atol=1e-5)
        np.testing.assert_allclose(got["output"], value, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("residual", {}),
        ("squeeze and excite", {"io": "uint8"}),
        ("concatenated rows", {"io": "float32"}),
        ("reshaped", {"batch": None}),
    ],
)
def test_other_graphs(workspace: Workspace, name: str, options: dict[str, Any], tmp_path: Path) -> None:
    """Each layer alone is within rounding of its float value, saturated values apart: order and layout are right."""
    path = saved(workspace, model_of(BODIES[name][0]), tmp_path, **options)
    (found,) = layers([path], workspace.data, model=tmp_path / "model.keras")
    graph = read_graph(path.read_bytes(), "x")
    computed = {tensor.name for tensor in graph.tensors if tensor.data is None and tensor.dtype in ("int8", "uint8")}
    assert {layer.tensor for layer in found.layers} == computed
    for layer in found.layers:
        assert layer.clipped > 0 or layer.own_max_lsb < 1.6, layer
        assert layer.own_snr_db is None or layer.own_snr_db > 25, layer


def test_snr() -> None:
    assert snr_db(np.array([3.0, 4.0]), np.array([0.0, 0.5])) == pytest.approx(20)
    assert snr_db(np.array([1.0]), np.array([0.0])) is None
    low = snr_db(np.array([0.0]), np.array([1.0]))
    assert low is not None
    assert np.isfinite(low)
    assert low < -1000


@pytest.mark.parametrize(
    ("key", "message"),
    [
        (("onnx", "int8"), "reads .tflite files"),
        (("tflite", "float32"), "no int8 act"),
        (("tflite", "int8-qat"), "--qat"),
    ],
)
def test_what_has_no_layers(workspace: Workspace, key: tuple[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        layers([workspace.path(*key)], workspace.data, model=workspace.model_file)


def test_a_missing_file_is_named(workspace: Workspace, tmp_path: Path) -> None:
    for diagnose in (layers, stages):
        with pytest.raises(ArtifactError, match=r"no model file at .*gone\.tflite"):
            diagnose([tmp_path / "gone.tflite"], workspace.data, model=workspace.model_file)


def test_what_onnxruntime_says_is_passed_on() -> None:
    with pytest.raises(SessionError, match="onnxruntime cannot load the graph in float"):
        layers_module._ort_session(b"damaged")


# Shown


def printed(show: Callable[..., None], record: Any) -> str:
    shown = io.StringIO()
    show(record, Console(file=shown, width=10))
    return shown.getvalue()


def test_layers_fit_in_100_columns_and_mark_what_is_off(workspace: Workspace) -> None:
    (found,) = layers_in(workspace, workspace.path("tflite", "int8"))
    off = found.layers[0].replace(lost_db=12.3)
    text = printed(terminal.show_layers, found.replace(layers=(off, *found.layers[1:])))
    assert max(map(len, text.splitlines())) <= 100
    assert "12!" in text
    assert text.count("!") == 2  # the mark, and what it means
    assert f"{IMAGES} training images of digits" in text
    assert LayerError.OFF_DB == 2


# The command


@pytest.fixture
def diagnose(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    def run(*arguments: object) -> tuple[int, str, str]:
        given = ["edgecnn", "diagnose", *arguments, "--model", workspace.model_file, "--qat", workspace.qat_file]
        monkeypatch.setattr(sys, "argv", list(map(str, [*given, "--data", workspace.data_file])))
        capfd.readouterr()
        with pytest.raises(SystemExit) as end:
            cli.main()
        return (int(end.value.code or 0), *capfd.readouterr())

    return run


def test_the_command(workspace: Workspace, diagnose: Any, tmp_path: Path) -> None:
    tflite, onnx = workspace.path("tflite", "int8"), workspace.path("onnx", "int8")
    status, out, err = diagnose("stages", tflite, onnx)
    assert status == 0
    assert re.fullmatch(r"diagnose stages: done in \d+\.\d s\n", err)
    assert all(name in out for name in (FLOAT, REFERENCE, XNNPACK, ORT, "total, net", "1,000 test images"))
    status, out, err = diagnose("layers", tflite)
    assert status == 0
    assert re.fullmatch(rf"layers of {tflite.name}: done in \d+\.\d s\n", err)
    assert all(word in out for word in ("CONV_2D", "SOFTMAX", "exact", "200 training images of digits"))
    status, out, err = diagnose("layers", tflite, "--json")
    (errors,) = msgspec.convert(json.loads(out), list[LayerErrors])
    assert (status, errors.artifact) == (0, tflite.name)


def test_the_command_ends_with_1_where_a_file_is_out_of_tolerance(
    workspace: Workspace, diagnose: Any, tmp_path: Path
) -> None:
    model = workspace.path("tflite", "int8").read_bytes()
    path = tmp_path / "wrong.tflite"
    path.write_bytes(planted(model, len(read_graph(model, "x").operators) - 2, 0.2))
    status, out, err = diagnose("stages", path, "--json")
    (found,) = msgspec.convert(json.loads(out), list[AccuracyPath])
    assert status == 1
    assert err.count("edgecnn: wrong.tflite against float Keras model") == len(found.parities[0].violations) > 0
