"""Int8 .onnx files are right where sums of two products saturate, and files that are not are found."""

import importlib.util
import platform
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
import pytest
import tools
from conftest import Workspace
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from onnx import TensorProto, helper, numpy_helper

from edgecnn import cli
from edgecnn.data.dataset import make_dataset
from edgecnn.emulation.answers import ready, run_on
from edgecnn.errors import SessionError
from edgecnn.files import kits_folder, sha256_file
from edgecnn.formats import FORMATS, export_file, provenance_of, tflite
from edgecnn.formats.onnx import qdq, saturation
from edgecnn.formats.source import Source
from edgecnn.inference import outputs_of, task_of
from edgecnn.inspection import inspect
from edgecnn.inspection.portable import saturating, without_constant_ifs, without_vnni
from edgecnn.models import save_model
from edgecnn.processor import kind_of, sums_saturate
from edgecnn.quantization.schemes import SCHEMES
from edgecnn.records import ProcessorAnswers, Provenance, Tuning
from edgecnn.runtimes import open_session, ort, predict
from edgecnn.runtimes.ort import open_model
from edgecnn.tasks import Scoring
from edgecnn.tflite.graph import Graph, read_graph

pytestmark = pytest.mark.slow

WEIGHTED = ("CONV_2D", "FULLY_CONNECTED")


@pytest.fixture(scope="module")
def graph(workspace: Workspace) -> Graph:
    return read_graph(workspace.path("tflite", "int8").read_bytes(), "x")


def kinds(model: Any) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


def stored_weights(model: Any) -> set[str]:
    """Types that weights are read from, behind the DequantizeLinear in front of Conv and Gemm."""
    made = {output: node for node in model.graph.node for output in node.output}
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    zeros = [made[n.input[1]].input[2] for n in model.graph.node if n.op_type in ("Conv", "Gemm")]
    return {numpy_helper.to_array(constants[zero]).dtype.name for zero in zeros}


def outputs(model: Any, images: Any) -> Any:
    session = open_model(model.SerializeToString(), threads=1)
    return np.concatenate([session.run(None, {"input": image[np.newaxis]})[0] for image in images])


# ------------------------------------------------------------------------------------------ which weights


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ([64, 64], False),  # 255 · 128 = 32,640
        ([127, 1], False),
        ([127, 2], True),  # 255 · 129 = 32,895, the limit is 32,767
        ([-64, -64], False),
        ([-127, -2], True),
        ([-128, 0], False),
        ([127, -127], False),  # of different sign, they make each other smaller
        ([127, 0, 0, 127], True),  # wherever they stand
        ([127], False),
    ],
)
def test_two_products_of_one_output(row: list[int], expected: bool) -> None:
    assert saturation.possible(np.array([row], np.int8)) is expected
    assert saturation.possible(np.array([[0] * len(row), row], np.int8)) is expected, "any output counts"


def test_products_of_two_outputs_are_not_added() -> None:
    assert not saturation.possible(np.array([[127, 0], [0, 127]], np.int8))


def test_depthwise_kernels_add_one_by_one() -> None:
    weights = np.full((4, 1, 3, 3), 127, np.int8)
    assert not saturation.possible(weights, groups=4)
    assert saturation.possible(weights, groups=1)
    assert saturation.possible(weights, groups=2), "two outputs a group: a matrix product"


@given(npst.arrays(np.int8, st.tuples(st.integers(1, 3), st.integers(1, 4))))
def test_the_rule_is_that_of_all_activations(weights: Any) -> None:
    """Any two taps, each with an activation of 0 or 255, where the extremes are."""
    sums = [
        int(a) * int(row[i]) + int(b) * int(row[j])
        for row in weights
        for i in range(len(row))
        for j in range(i)
        for a in (0, 255)
        for b in (0, 255)
    ]
    assert saturation.possible(weights) is any(not -(2**15) <= total < 2**15 for total in sums)


# ------------------------------------------------------------------------------------------ what is written


def test_a_file_for_any_processor_holds_both_forms(graph: Graph) -> None:
    model = qdq.to_onnx(graph, "any")
    weighted = sum(operator.kind in WEIGHTED for operator in graph.operators)
    assert kinds(model)["If"] == weighted
    assert kinds(model)["MatMulInteger"] == 1, "one probe for all"
    assert saturating(model) == frozenset()
    assert stored_weights(without_constant_ifs(model, lambda condition: True)) == {"int8"}
    assert stored_weights(without_vnni(model)) == {"uint8"}
    for cpu_is_exact in (True, False):
        branch = without_constant_ifs(model, lambda condition, exact=cpu_is_exact: exact)
        onnx.checker.check_model(branch, full_check=True)
        assert not {"If", "MatMulInteger"} & set(kinds(branch)), "what the probe needed is gone"


def test_a_file_for_vnni_is_plain_and_can_saturate(graph: Graph) -> None:
    model = qdq.to_onnx(graph, "vnni", cpu="vnni")
    assert not {"If", "MatMulInteger"} & set(kinds(model))
    assert stored_weights(model) == {"int8"}
    assert saturating(model) == {node.name for node in model.graph.node if node.op_type in ("Conv", "Gemm")}


@pytest.mark.parametrize("unsigned", [True, False])
def test_both_branches_give_the_same_integers(graph: Graph, workspace: Workspace, unsigned: bool) -> None:
    model = qdq.to_onnx(graph, "any", unsigned=unsigned)
    images = np.random.default_rng(0).integers(-128, 128, (50, 1, 28, 28), np.int8)
    plain = outputs(qdq.to_onnx(graph, "vnni", unsigned=unsigned, cpu="vnni"), images)
    assert len(np.unique(plain)) > 20
    np.testing.assert_array_equal(outputs(model, images), plain)
    np.testing.assert_array_equal(outputs(without_vnni(model), images), plain)


def test_the_probe_is_exact_exactly_where_sums_do_not_saturate() -> None:
    activations, weights, total = saturation.probe()
    assert (activations.astype(np.int32) @ weights.astype(np.int32) == total).all()
    pair = 2 * int(activations[0, 0]) * int(weights[0, 0])
    assert pair > 2**15 - 1


def test_a_choice_that_needs_an_input_stays_and_counts_as_it_may_go(graph: Graph) -> None:
    """If the condition is not constant, both branches remain: int8 weights may be taken."""
    model = qdq.to_onnx(graph, "any")
    model.graph.input.append(helper.make_tensor_value_info("flag", TensorProto.BOOL, []))
    for node in model.graph.node:
        if node.op_type == "If":
            node.input[0] = "flag"
    assert kinds(without_vnni(model))["If"] == kinds(model)["If"]


# ------------------------------------------------------------------------------------------ other people's files


def qdq_conv(weights: Any, activations: Any = np.uint8, relu: bool = False, quantized: bool = True) -> Any:
    """A convolution between DequantizeLinear and QuantizeLinear, as quantisation tools write it."""
    zero = activations(np.iinfo(activations).min)
    raised = weights.dtype.type(128 if weights.dtype == np.uint8 else 0)
    constants = {"s": np.float32(0.1), "z": zero, "w": weights, "ws": np.float32(0.01), "wz": raised}
    nodes = [
        helper.make_node("QuantizeLinear", ["input", "s", "z"], ["x"]),
        helper.make_node("DequantizeLinear", ["x", "s", "z"], ["real"]),
        helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["weights"]),
        helper.make_node("Conv", ["real", "weights"], ["conv"], name="conv"),
    ]
    last = "conv"
    if relu:
        nodes.append(helper.make_node("Relu", [last], ["relu"]))
        last = "relu"
    if quantized:
        nodes.append(helper.make_node("QuantizeLinear", [last, "s", "z"], ["y"]))
        nodes.append(helper.make_node("DequantizeLinear", ["y", "s", "z"], ["output"]))
    else:
        nodes.append(helper.make_node("Identity", [last], ["output"]))
    return made(nodes, constants, [1, weights.shape[1], 8, 8])


def made(nodes: Any, constants: Any, shape: list[int], output: int = TensorProto.FLOAT) -> Any:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("output", output, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)], ir_version=8
    )


BLUR = np.full((4, 3, 3, 3), 127, np.int8)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        pytest.param(qdq_conv(BLUR), True, id="blur"),
        pytest.param(qdq_conv(BLUR, relu=True), True, id="behind relu"),
        pytest.param(qdq_conv(BLUR, np.int8), True, id="int8 activations, which x86 stores as uint8"),
        pytest.param(qdq_conv(BLUR, quantized=False), False, id="not quantised next: computed in float"),
        pytest.param(qdq_conv((BLUR.astype(np.int16) + 128).astype(np.uint8)), False, id="uint8 weights"),
        pytest.param(qdq_conv(BLUR // 2), False, id="weights of 7 bits"),
    ],
)
def test_a_convolution_of_another_tool(model: Any, expected: bool) -> None:
    assert saturating(model) == (frozenset({"conv"}) if expected else frozenset())


@pytest.mark.parametrize("weights", [np.int8, np.uint8])
def test_integer_operators(weights: Any) -> None:
    constants = {"w": np.full((4, 4), 127, weights), "z": weights(0)}
    dynamic = [
        helper.make_node("DynamicQuantizeLinear", ["input"], ["q", "s", "zero"]),
        helper.make_node("MatMulInteger", ["q", "w", "zero", "z"], ["output"], name="dynamic"),
    ]
    expected = frozenset({"dynamic"}) if weights is np.int8 else frozenset()
    assert saturating(made(dynamic, constants, [2, 4], TensorProto.INT32)) == expected


@pytest.mark.parametrize("scheme", ["float32", "float16", "dynamic-int8", "int8"])
def test_exported_files_are_portable(
    workspace: Workspace, scheme: str, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    path = workspace.path("onnx", scheme)
    monkeypatch.setattr(sys, "argv", ["edgecnn", "inspect", str(path), "--assert", "portable"])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 0
    assert "saturate" not in capsys.readouterr().err


def test_a_file_that_is_not_portable_fails_with_its_nodes(
    graph: Graph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    path = tmp_path / "plain.onnx"
    path.write_bytes(qdq.to_onnx(graph, "x", cpu="vnni").SerializeToString())
    found = inspect(path)
    assert [node.kind for node in found.not_portable] == ["Conv", "Conv", "Gemm", "Gemm"]
    assert "session.x64quantprecision" in "\n".join(found.notes)
    monkeypatch.setattr(sys, "argv", ["edgecnn", "inspect", str(path), "--assert", "portable"])
    with pytest.raises(SystemExit) as end:
        cli.main()
    err = capsys.readouterr().err
    assert end.value.code == 1
    assert err.count("can saturate on x86 without VNNI") == 4
    assert "--onnx-cpu any" in err


def test_inspection_shows_the_branch_that_is_taken(graph: Graph, tmp_path: Path) -> None:
    path = tmp_path / "any.onnx"
    path.write_bytes(qdq.to_onnx(graph, "x").SerializeToString())
    found = inspect(path)
    assert any("If ×4" in note for note in found.notes)
    assert {node.precision for node in found.nodes if node.macs} == {"int8"}
    assert not found.not_portable


# ------------------------------------------------------------------------------------------ the session option


@pytest.mark.parametrize(
    ("features", "saturates", "kind"),
    [
        (("sse4_1", "avx"), False, "SSE4.1"),
        (("sse4_1", "avx", "avx2"), True, "AVX2"),
        (("avx2", "avx512f"), True, "AVX-512 without VNNI"),
        (("avx2", "avx_vnni"), False, "AVX2 with VNNI"),
        (("avx2", "avx512f", "avx512_vnni"), False, "AVX-512 with VNNI"),
        (("asimd", "asimddp"), False, "NEON with dot products"),
        ((), False, None),
    ],
)
def test_the_option_is_set_where_sums_saturate_and_nowhere_else(
    features: tuple[str, ...],
    saturates: bool,
    kind: str | None,
    graph: Graph,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert sums_saturate(features) is saturates
    assert kind_of(features) == kind
    monkeypatch.setattr(ort, "this_processor", lambda: ("some processor", features))
    options = open_model(qdq.to_onnx(graph, "x", cpu="vnni").SerializeToString(), threads=1).get_session_options()
    try:
        value = options.get_session_config_entry("session.x64quantprecision")
    except RuntimeError:  # how ONNX Runtime says that there is no such entry
        value = None
    assert value == ("1" if saturates else None)
    kit = kit_module()
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"flags : {' '.join(features)}\n", encoding="utf-8")
    monkeypatch.setattr(kit, "Path", lambda path: cpuinfo if path == "/proc/cpuinfo" else Path(path))
    assert kit.sums_saturate() is saturates


def test_a_file_that_opens_only_without_the_option_is_opened_so_and_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "shared.onnx"
    path.write_bytes(with_shared_zero_points())
    image = np.ones((1, 8, 8, 4), np.float32)
    monkeypatch.setattr(ort, "this_processor", lambda: ("some processor", ("avx2", "avx512_vnni")))
    expected = predict(open_session(path), image)
    assert "saturate" not in caplog.text
    monkeypatch.setattr(ort, "this_processor", lambda: ("some processor", ("avx2",)))
    np.testing.assert_array_equal(predict(open_session(path), image), expected)
    assert "onnxruntime loads shared.onnx only without the option session.x64quantprecision: sums" in caplog.text
    path.write_bytes(b"no model")
    with pytest.raises(SessionError, match=r"onnxruntime cannot load shared\.onnx"):
        open_session(path)


def with_shared_zero_points() -> bytes:
    """Two convolutions in a row whose int8 weights have the same tensor as zero points, as in files from tf2onnx."""
    first, second = np.random.default_rng(0).integers(-127, 127, (2, 4, 4, 3, 3), np.int8)
    constants = {
        "scale": np.float32(0.05), "zero": np.uint8(0), "weights0": first, "weights1": second,
        "scales": np.full(4, 0.05, np.float32), "zeros": np.zeros(4, np.int8),
    }  # fmt: skip
    nodes, last = [], "input"
    for number in range(2):
        quantised, real, kernel, output = (f"{name}{number}" for name in ("quantised", "real", "kernel", "output"))
        nodes += [
            helper.make_node("QuantizeLinear", [last, "scale", "zero"], [quantised]),
            helper.make_node("DequantizeLinear", [quantised, "scale", "zero"], [real]),
            helper.make_node("DequantizeLinear", [f"weights{number}", "scales", "zeros"], [kernel], axis=0),
            helper.make_node("Conv", [real, kernel], [output]),
        ]
        last = output
    nodes += [
        helper.make_node("QuantizeLinear", [last, "scale", "zero"], ["end"]),
        helper.make_node("DequantizeLinear", ["end", "scale", "zero"], ["output"]),
    ]
    graph = helper.make_graph(
        nodes,
        "shared",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 4, 8, 8])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, 4, 4, 4])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


def kit_module() -> Any:
    """The script of the kit for Linux, as a module."""
    path = kits_folder() / "linux" / "run.py"
    spec = importlib.util.spec_from_file_location("kit", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# ------------------------------------------------------------------------------------------ on the real kernels


@pytest.fixture(scope="module")
def blurred(tmp_path_factory: pytest.TempPathFactory) -> tuple[Source, Provenance, Path]:
    """A blur of bright images in front of another convolution: the sums of the blur leave 16 bits by far."""
    folder = tmp_path_factory.mktemp("blurred")
    keras.utils.set_random_seed(0)
    first = keras.layers.Conv2D(4, 3, kernel_initializer=keras.initializers.Constant(1 / 18), activation="relu")
    model = keras.Sequential(
        [
            keras.Input((12, 12, 2)),
            first,
            keras.layers.Conv2D(4, 3, activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(3),
        ]
    )
    save_model(model, folder / "blur.keras")
    images = np.random.default_rng(0).uniform(0.7, 1, (40, 12, 12, 2)).astype(np.float32)
    dataset = make_dataset(
        "bright", "bright", *[((images * 255).astype(np.uint8), np.arange(40) % 3)] * 2, ["a", "b", "c"], (0.0, 1.0)
    )
    provenance = provenance_of("blur", sha256_file(folder / "blur.keras"), dataset)
    return Source(model, None, images, "int8", 1), provenance, folder


@pytest.mark.skipif(platform.machine() != "x86_64", reason="its Python runs on x86-64 alone")
@pytest.mark.parametrize(
    ("cpu", "in_float", "right"), [("any", (), True), ("any", (2, 3), True), ("vnni", (), False)], ids=str
)
def test_an_exported_file_on_haswell(
    cpu: Any, in_float: tuple[int, ...], right: bool, blurred: tuple[Source, Provenance, Path]
) -> None:
    """ONNX Runtime's AVX2 kernels in QEMU, with default options: exact for files for any processor, tuned or not."""
    tools.need("qemu-x86_64")
    source, provenance, folder = blurred
    source.onnx_cpu = cpu
    place = folder / f"{cpu}-{len(in_float)}"
    artifact = export_file(
        source,
        format=FORMATS["onnx"],
        scheme=SCHEMES["int8"],
        provenance=provenance,
        folder=place,
        tuning=tuning(source, in_float) if in_float else None,
    )
    images, path = source.calibration, place / artifact.file
    here = outputs_of(task_of(path), images)
    assert len(np.unique(here)) > 10
    scoring = Scoring("classification", here.argmax(1))
    (row,) = run_on(path, artifact, ready(["haswell"]), images, scoring, here, here)
    assert isinstance(row, ProcessorAnswers)
    if right:
        assert row.against_here.difference.max_abs == 0
        assert row.violations == ()
    else:
        lsb = row.against_here.difference.mean_lsb
        assert lsb is not None
        assert lsb > 3
        assert row.violations


def tuning(source: Source, in_float: tuple[int, ...]) -> Tuning:
    graph = read_graph(tflite.convert(source, SCHEMES["int8"]), "blur")
    return Tuning(
        operators=tuple(operator.kind for operator in graph.operators),
        in_float=in_float,
        unsigned=True,
        cpu=None,
        runtime="onnxruntime",
        ratio=1.0,
        ratio_low=1.0,
        ratio_high=1.0,
        untuned_ratio=1.0,
        tried=1,
    )
