"""Exported .tflite files: what was asked for is what is in them."""

import contextlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
import pytest

from edgecnn import artifacts
from edgecnn.data import Split
from edgecnn.errors import ExportError, QuantizationError, UnknownNameError, UnsupportedError
from edgecnn.formats import FORMATS, export_file, pairs, provenance_of, tflite
from edgecnn.formats.source import Source
from edgecnn.quantization.schemes import SCHEMES, is_static_int8, needs_calibration
from edgecnn.records import Provenance, from_json
from edgecnn.runtimes import open_session, predict
from edgecnn.tflite.graph import read_graph

L = keras.layers
EVERY = [(f.name, s.name) for f, s in pairs([*FORMATS.values()], [*SCHEMES.values()])]
PAIRS = [pair for pair in EVERY if pair != ("onnx", "int16x8")]
FLOAT_FORMATS = ("tflite", "onnx")  # C code is int8 at batch 1


def source_of(workspace: Any, io: Any = "int8", batch: Any = 1) -> Source:
    images = workspace.data.inputs(workspace.data.train.images[:100])
    return Source(workspace.model, workspace.quantized, images, io, batch)


def exported(source: Source, format: str, scheme: str, workspace: Any, folder: Path) -> Any:
    provenance = provenance_of("digits", "0" * 64, workspace.data)
    return export_file(source, format=FORMATS[format], scheme=SCHEMES[scheme], provenance=provenance, folder=folder)


@pytest.mark.parametrize(("format", "scheme"), PAIRS)
def test_provenance_in_the_file_is_that_of_the_sidecar(format: str, scheme: str, workspace: Any) -> None:
    path, data = workspace.path(format, scheme), workspace.data
    with contextlib.closing(open_session(path)) as session:
        stored = session.provenance()
    assert stored is not None
    provenance = from_json(stored, Provenance, path)
    assert provenance == artifacts.load(path).provenance
    assert provenance.scheme == scheme
    assert provenance.labels == data.class_names
    assert provenance.preprocessing == data.preprocessing
    assert provenance.data_sha256 == data.sha256
    assert provenance.calibration_images == (100 if needs_calibration(SCHEMES[scheme]) else None)
    assert provenance.versions["tensorflow"] == __import__("tensorflow").__version__
    if format == "onnx":
        proto = onnx.load(path)
        assert proto.doc_string == f"classification, {scheme}, made by edgecnn {provenance.versions['edgecnn']}"


@pytest.mark.parametrize("io", ["float32", "int8", "uint8"])
@pytest.mark.parametrize("format", FLOAT_FORMATS)
def test_input_and_output_have_the_type_asked_for(format: str, io: str, workspace: Any, tmp_path: Path) -> None:
    source = source_of(workspace, io)
    images = workspace.data.inputs(workspace.data.test.images[:100])
    for scheme in SCHEMES.values():
        if is_static_int8(scheme):
            artifact = exported(source, format, scheme.name, workspace, tmp_path)
            assert (artifact.input.dtype, artifact.output.dtype) == (io, io)
            assert (artifact.input.quantization is None) == (io == "float32")
            outputs = []
            for path in (tmp_path / artifact.file, workspace.path(format, scheme.name)):
                with contextlib.closing(open_session(path)) as session:
                    outputs.append(predict(session, images))
            np.testing.assert_allclose(*outputs, atol=0.03, err_msg=f"{scheme.name} {io}")


@pytest.mark.parametrize(("format", "scheme"), [pair for pair in PAIRS if pair[0] in FLOAT_FORMATS])
def test_a_free_batch_gives_what_single_images_give(format: str, scheme: str, workspace: Any, tmp_path: Path) -> None:
    artifact = exported(source_of(workspace, batch=None), format, scheme, workspace, tmp_path)
    assert artifact.input.shape[0] is None
    images = workspace.data.inputs(workspace.data.test.images[:8])
    results = []
    for path, batch in (
        (tmp_path / artifact.file, 8),
        (tmp_path / artifact.file, 3),
        (workspace.path(format, scheme), 1),
    ):
        with contextlib.closing(open_session(path, batch=batch)) as session:
            results.append(predict(session, images))
    exact = 1e-5 if not scheme.startswith("dynamic") else 0.02  # dynamic ranges are taken over the whole batch
    np.testing.assert_allclose(results[0], results[1], atol=exact)
    np.testing.assert_allclose(results[0], results[2], atol=max(exact, 1 / 256 + 1e-6))


@pytest.mark.parametrize(("format", "scheme"), PAIRS)
def test_the_same_inputs_give_the_same_bytes(format: str, scheme: str, workspace: Any, tmp_path: Path) -> None:
    first, second = (exported(source_of(workspace), format, scheme, workspace, tmp_path / name).sha256 for name in "ab")
    assert first == second


@pytest.mark.parametrize("scheme", SCHEMES)
def test_embedding_changes_no_byte_of_the_model_and_no_output(scheme: str, workspace: Any, tmp_path: Path) -> None:
    plain = tflite.convert(source_of(workspace), SCHEMES[scheme])
    embedded = tflite.with_provenance(plain, workspace.artifacts["tflite", scheme].provenance)
    assert plain in embedded
    images = workspace.data.inputs(workspace.data.test.images[:20])
    outputs = []
    for name, content in (("plain", plain), ("embedded", embedded)):
        (tmp_path / f"{name}.tflite").write_bytes(content)
        with contextlib.closing(open_session(tmp_path / f"{name}.tflite")) as session:
            outputs.append(predict(session, images).tobytes())
            assert (session.provenance() is None) == (name == "plain")
    assert outputs[0] == outputs[1]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_operators_are_built_in_and_integers_where_promised(scheme: str, workspace: Any) -> None:
    graph = read_graph(workspace.path("tflite", scheme).read_bytes(), scheme)  # refuses custom operators
    assert not [operator for operator in graph.operators if operator.kind.startswith("FLEX")]
    types = {tensor.dtype for tensor in graph.tensors}
    if is_static_int8(SCHEMES[scheme]):
        assert types == {"int8", "int32"}
    weights = {
        graph.tensors[operator.inputs[1]].dtype
        for operator in graph.operators
        if operator.kind in ("CONV_2D", "FULLY_CONNECTED")
    }
    kept = {"float32": {"float32"}, "int8": {"int8"}, "float16": {"float32"}}  # float16 behind DEQUANTIZE
    if scheme == "dynamic-int8":  # the converter leaves weights of less than 1024 elements as they are
        weights.discard("float32")
    assert weights == kept[SCHEMES[scheme].weights]
    assert ("float16" in types) == (SCHEMES[scheme].weights == "float16")


@pytest.mark.parametrize("format", FLOAT_FORMATS)
def test_sizes_follow_the_weights(format: str, workspace: Any) -> None:
    size = {scheme: workspace.artifacts[format, scheme].size_bytes for f, scheme in PAIRS if f == format}
    assert 0.49 < size["float16"] / size["float32"] < 0.54
    for scheme in ("dynamic-int8", "int8", "int8-qat"):
        assert 0.24 < size[scheme] / size["float32"] < 0.30, scheme


def test_int8_qat_needs_training_first(workspace: Any) -> None:
    source = source_of(workspace)
    source.quantized = None
    with pytest.raises(QuantizationError, match="int8-qat needs quantisation-aware training first: edgecnn quantize"):
        tflite.convert(source, SCHEMES["int8-qat"])


def small(body: Any) -> Any:
    images = keras.Input((28, 28, 1))
    return keras.Model(images, L.Dense(10)(L.Flatten()(body(L.Conv2D(2, 3, strides=3)(images)))), name="small")


def test_an_operator_without_kernel_is_named(workspace: Any) -> None:
    import tensorflow as tf

    class Digamma(L.Layer):
        def call(self, inputs: Any) -> Any:
            return tf.math.digamma(inputs + 10)

    source = Source(small(Digamma()), None, workspace.data.inputs(workspace.data.train.images[:5]), "int8", 1)
    for scheme in ("float32", "int8"):
        with pytest.raises(ExportError) as caught:
            tflite.convert(source, SCHEMES[scheme])
        assert f"small cannot be exported as {scheme} .tflite: no built-in kernel for Digamma" in str(caught.value)
        assert "\n" not in str(caught.value)
    with pytest.raises(ExportError, match=r"small cannot be exported as \.onnx: no standard operator for Digamma"):
        FORMATS["onnx"].convert(source, SCHEMES["float32"])


def test_operators_without_an_int8_kernel_stay_in_float_and_are_named(
    workspace: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model, images = small(L.ELU(name="bend")), workspace.data.inputs(workspace.data.train.images[:50])
    path = tmp_path / "elu.tflite"
    path.write_bytes(tflite.convert(Source(model, None, images, "int8", 1), SCHEMES["int8"]))
    assert "small: the int8 .tflite file computes what has no int8 kernel in float: layer bend (ELU)" in caplog.text
    with contextlib.closing(open_session(path)) as session:
        np.testing.assert_allclose(predict(session, images), np.asarray(model(images)), atol=0.05)


def test_an_int8_file_without_anything_in_int8_is_refused(workspace: Any) -> None:
    inputs = keras.Input((28, 28, 1))
    model = keras.Model(inputs, L.Activation("elu")(inputs), name="bent")
    source = Source(model, None, workspace.data.inputs(workspace.data.train.images[:20]), "int8", 1)
    with pytest.raises(ExportError, match=r"the int8 \.tflite file computes everything in float"):
        tflite.convert(source, SCHEMES["int8"])


def test_onnx_has_no_int16_and_says_why(workspace: Any, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="ONNX Runtime has no kernels with int16 activations"):
        exported(source_of(workspace), "onnx", "int16x8", workspace, tmp_path)
    assert not list(tmp_path.iterdir())


def test_an_unknown_format_lists_the_known() -> None:
    with pytest.raises(UnknownNameError, match="unknown format 'pb'; choose from: c99, onnx, tflite"):
        FORMATS["pb"]


def test_calibration_images_are_drawn_from_all_and_always_the_same(workspace: Any, tmp_path: Path) -> None:
    order = np.argsort(workspace.data.train.labels, kind="stable")  # sorted by class, as folders are
    train = Split(workspace.data.train.images[order], workspace.data.train.labels[order])
    data = replace(workspace.data, train=train)
    first, second = (
        Source.load(workspace.model_file, data, qat_weights=None, calibration_images=50).calibration for _ in range(2)
    )
    np.testing.assert_array_equal(first, second)
    assert first.shape == (50, 28, 28, 1)
    rows = {image.tobytes(): int(label) for image, label in zip(data.inputs(train.images), train.labels, strict=True)}
    assert len({rows[image.tobytes()] for image in first}) >= 9
