"""Every runtime in the registry, on real images."""

import contextlib
import importlib
import re
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from edgecnn.errors import ArtifactError, EdgecnnError, SessionError, UnknownNameError
from edgecnn.formats import FORMATS, pairs
from edgecnn.processor import sums_saturate, this_processor
from edgecnn.quantization.schemes import SCHEMES
from edgecnn.records import Quantization, TensorSpec, to_json
from edgecnn.runtimes import RUNTIMES, open_session, predict, runtime_for
from edgecnn.runtimes.fake import FakeModel
from edgecnn.runtimes.quantized_io import from_output, to_input

EXPORTED = [
    (f.name, s.name)
    for f, s in pairs([*FORMATS.values()], [*SCHEMES.values()])
    if (f.name, s.name) != ("onnx", "int16x8")
]

# TensorFlow, which the tests have been running already, takes no other number of threads any more.
THREADS = {name: 0 if name == "keras" else 1 for name in RUNTIMES}


def file_for(runtime: str, workspace: Any, folder: Path) -> Path:
    """A float model that ``runtime`` runs, int8 for C."""
    format = RUNTIMES[runtime].format
    if format == "c":
        return workspace.path("c99", "int8")  # type: ignore[no-any-return]
    if format in FORMATS:
        return workspace.path(format, "float32")  # type: ignore[no-any-return]
    if format == "keras":
        return workspace.model_file  # type: ignore[no-any-return]
    path = folder / f"model.{format}"
    path.write_bytes(to_json(FakeModel(input_shape=(28, 28, 1), classes=10)))
    return path


@pytest.mark.parametrize("name", RUNTIMES)
def test_runtime_is_found_by_name_and_by_ending(name: str) -> None:
    runtime = RUNTIMES[name]
    assert RUNTIMES[name] is runtime
    path = Path(f"x.{runtime.format}")
    assert runtime_for(path, name) is runtime
    assert runtime_for(path).name == {"tflm": "litert", "openvino": "onnxruntime"}.get(name, name)
    assert isinstance(getattr(importlib.import_module(runtime.module), runtime.session), type)


def test_every_format_has_a_runtime() -> None:
    assert all(runtime_for(Path(f"x.{format.ending}")).format == format.ending for format in FORMATS.values())


def test_unknown_names_list_the_choices() -> None:
    with pytest.raises(
        UnknownNameError, match="unknown runtime 'tensorrt'; choose from: c99, fake, keras, litert, onnx"
    ):
        RUNTIMES["tensorrt"]
    with pytest.raises(ArtifactError, match=r"give a file ending in \.tflite, \.onnx, \.c, \.keras$"):
        runtime_for(Path("model.pt"))


@pytest.mark.parametrize("name", RUNTIMES)
def test_session_answers_per_image_and_forgets_the_one_before(name: str, workspace: Any, tmp_path: Path) -> None:
    path = file_for(name, workspace, tmp_path)
    images = workspace.data.inputs(workspace.data.test.images[:6])
    with contextlib.closing(open_session(path, threads=THREADS[name], runtime=name)) as session:
        assert session.batch == 1
        assert session.inputs[0].dtype == session.outputs[0].dtype == ("int8" if name == "c99" else "float32")
        forward = predict(session, images)
        backward = predict(session, images[::-1].copy())[::-1]
    assert forward.shape == (6, 10)
    assert forward.dtype == np.float32
    np.testing.assert_allclose(forward, backward, atol=1e-6)
    assert len({row.tobytes() for row in forward}) > 1, "every image has the same output"


@pytest.mark.parametrize("name", [name for name in RUNTIMES if name not in ("c99", "fake")])
def test_outputs_are_those_of_the_keras_model(name: str, workspace: Any, tmp_path: Path) -> None:
    images = workspace.data.inputs(workspace.data.test.images[:50])
    expected = np.asarray(workspace.model(images, training=False))
    with contextlib.closing(
        open_session(file_for(name, workspace, tmp_path), threads=THREADS[name], runtime=name)
    ) as session:
        np.testing.assert_allclose(predict(session, images), expected, atol=1e-5)


@pytest.mark.parametrize("key", EXPORTED)
def test_every_artifact_recognises_digits(key: tuple[str, str], workspace: Any) -> None:
    images, labels = workspace.data.inputs(workspace.data.test.images[:200]), workspace.data.test.labels[:200]
    with contextlib.closing(open_session(workspace.path(*key))) as session:
        assert (session.inputs[0], session.outputs[0]) == (
            workspace.artifacts[key].input,
            workspace.artifacts[key].output,
        )
        outputs = predict(session, images)
    assert (outputs.argmax(axis=1) == labels).mean() > 0.85
    np.testing.assert_allclose(outputs.sum(axis=1), 1, atol=0.05)


@pytest.mark.parametrize("key", [key for key in EXPORTED if key[0] != "c99"], ids="-".join)
def test_openvino_answers_as_the_usual_runtime(key: tuple[str, str], workspace: Any) -> None:
    images = workspace.data.inputs(workspace.data.test.images[:200])
    path = workspace.path(*key)
    with (
        contextlib.closing(open_session(path)) as usual,
        contextlib.closing(open_session(path, runtime="openvino")) as session,
    ):
        assert (session.inputs, session.outputs) == (usual.inputs, usual.outputs)
        assert session.provenance() == usual.provenance()
        wanted, found = predict(usual, images), predict(session, images)
    if key[1] in ("int8", "int8-qat") and not sums_saturate(this_processor()[1]):
        np.testing.assert_array_equal(found, wanted)
    elif "int" in key[1]:  # computed in float, or with sums that saturate
        assert (found.argmax(axis=1) == wanted.argmax(axis=1)).mean() > 0.98
    else:
        np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_openvino_warns_where_its_sums_saturate(
    workspace: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened(scheme: str) -> list[str]:
        caplog.clear()
        open_session(workspace.path("tflite", scheme), runtime="openvino").close()
        return caplog.messages

    monkeypatch.setattr("edgecnn.runtimes.openvino.this_processor", lambda: ("Example", ("avx2", "avx512_vnni")))
    assert opened("int8") == []
    monkeypatch.setattr("edgecnn.runtimes.openvino.this_processor", lambda: ("Example", ("avx2",)))
    assert opened("float32") == []
    (told,) = opened("int8")
    assert told.startswith("sums of int8 products can saturate in openvino on this processor")


def test_openvino_takes_batches_and_refuses_what_it_cannot_run(workspace: Any, tmp_path: Path) -> None:
    with pytest.raises(SessionError, match=r"exported for a fixed batch of 1, got 4; .*--batch dynamic"):
        open_session(workspace.path("onnx", "int8"), batch=4, runtime="openvino")
    damaged = tmp_path / "damaged.tflite"
    damaged.write_bytes(workspace.path("tflite", "int8").read_bytes()[:3000])
    with pytest.raises(SessionError, match=r"^openvino cannot load damaged.tflite: "):
        open_session(damaged, runtime="openvino")
    with pytest.raises(ArtifactError, match=r"^openvino runs .onnx and .tflite files, not model.c"):
        runtime_for(Path("model.c"), "openvino")


@pytest.mark.parametrize("name", RUNTIMES)
def test_an_unknown_device_is_refused(name: str, workspace: Any, tmp_path: Path) -> None:
    with pytest.raises((EdgecnnError, ValueError)) as caught:
        open_session(file_for(name, workspace, tmp_path), device="gpu", runtime=name)
    assert isinstance(caught.value, SessionError)
    assert "\n" not in str(caught.value)


def test_a_number_of_threads_that_comes_too_late_is_refused(workspace: Any) -> None:
    workspace.model.predict(np.zeros((1, 28, 28, 1), np.float32), verbose=0)
    with pytest.raises(SessionError, match="TensorFlow is already initialised"):
        open_session(workspace.model_file, threads=3)


@pytest.mark.parametrize("format", FORMATS)
def test_a_fixed_batch_is_kept(format: str, workspace: Any) -> None:
    with pytest.raises(SessionError, match=r"exported for a fixed batch of 1, got 4; .*--batch dynamic"):
        open_session(workspace.path(format, "int8"), batch=4)


def test_surplus_of_the_last_batch_is_thrown_away(workspace: Any) -> None:
    images = workspace.data.inputs(workspace.data.test.images[:7])
    with contextlib.closing(open_session(workspace.model_file, threads=0, batch=3)) as session:
        many = predict(session, images)
    np.testing.assert_allclose(many, np.asarray(workspace.model(images, training=False)), atol=1e-6)


def test_an_onnx_file_of_doubles_is_refused(tmp_path: Path) -> None:
    from onnx import TensorProto, helper, save

    values = [helper.make_tensor_value_info(name, TensorProto.DOUBLE, [1, 2]) for name in "ab"]
    graph = helper.make_graph([helper.make_node("Identity", ["a"], ["b"])], "g", values[:1], values[1:])
    path = tmp_path / "other.onnx"
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    with pytest.raises(SessionError, match=r"has an input of tensor\(double\)"):
        open_session(path)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"{}", "is not a valid TensorSpec"),
        (b"\xff\xfe", "not UTF-8"),
        (b"[" * 100_000, "is not a valid TensorSpec"),
        ({"name": "other"}, "does not match the input of the graph"),
        ({"dtype": "int99"}, r"at `\$\.dtype`"),
        ({"shape": [None, 1, 4, 4]}, "does not match the input of the graph"),
        ({"quantization": {"scale": [], "zero_point": []}}, r"at `\$\.quantization\.scale`"),
        ({"quantization": {"scale": [0], "zero_point": [0]}}, r"at `\$\.quantization\.scale\[0\]`"),
        ({"quantization": {"scale": [1.0], "zero_point": [0, 1]}}, "the numbers must be equal"),
    ],
    ids=range(9),
)
def test_damaged_onnx_metadata_are_none_and_told_once(
    workspace: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture, request: Any, value: Any, reason: str
) -> None:
    import onnx

    model = onnx.load(workspace.path("onnx", "int8"))
    (stored,) = [entry for entry in model.metadata_props if entry.key == "edgecnn.input"]
    spec = msgspec.json.decode(stored.value)
    model.metadata_props.remove(stored)
    content = value if isinstance(value, bytes) else msgspec.json.encode(spec | value)
    entry = b"\x0a\x0d" + b"edgecnn.input" + b"\x12" + _length(len(content)) + content
    path = tmp_path / f"{request.node.callspec.id}.onnx"
    path.write_bytes(model.SerializeToString() + b"\x72" + _length(len(entry)) + entry)
    for _ in range(2):
        with contextlib.closing(open_session(path)) as session:
            assert session.inputs[0].quantization is None
            assert session.inputs[0].dtype == "int8"
            assert session.inputs[0].name == spec["name"]
    (told,) = caplog.messages
    assert re.search(reason, told)
    assert told.isprintable()


def _length(value: int) -> bytes:
    """As a protobuf has it."""
    return bytes([value & 127 | 128]) + _length(value >> 7) if value > 127 else bytes([value])


# Between float and integers


def spec(dtype: str, scale: float, zero_point: int, layout: Any = "NHWC") -> TensorSpec:
    quantization = Quantization(scale=(scale,), zero_point=(zero_point,))
    return TensorSpec(name="x", shape=(1, 1, 1, 2), dtype=dtype, layout=layout, quantization=quantization)


def test_input_is_rounded_half_to_even_and_saturated() -> None:
    images = np.float32([0.25, 0.75, 1.25, -0.25, 1000, -1000]).reshape(1, 1, 6, 1)
    assert to_input(images, spec("int8", 0.5, -3)).ravel().tolist() == [-3, -1, -1, -3, 127, -128]
    assert to_input(images, spec("uint8", 0.5, 3)).ravel().tolist() == [3, 5, 5, 3, 255, 0]


def test_channels_go_first_where_the_file_wants_it() -> None:
    images = np.arange(12, dtype=np.float32).reshape(1, 2, 2, 3)
    got = to_input(images, spec("int8", 1.0, 0, "NCHW"))
    assert got.shape == (1, 3, 2, 2)
    assert got[0, 1].tolist() == [[1, 4], [7, 10]]


def test_output_is_dequantised() -> None:
    raw = np.int8([[-128, 127, 0]])
    assert from_output(raw, spec("int8", 0.5, -128)).tolist() == [[0.0, 127.5, 64.0]]
    raw = np.uint8([[0, 255, 10]])
    assert from_output(raw, spec("uint8", 2.0, 10)).tolist() == [[-20.0, 490.0, 0.0]]
