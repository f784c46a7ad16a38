"""Verification passes honest files and catches damaged ones."""

import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from edgecnn import artifacts, verification
from edgecnn.data import DataSet, Split
from edgecnn.errors import ArtifactError, ConfigError, EdgecnnError, SessionError
from edgecnn.files import sha256_bytes
from edgecnn.formats import FORMATS
from edgecnn.inference import outputs_of, task_of
from edgecnn.quantization.schemes import SCHEMES, is_static_int8
from edgecnn.records import Parity, TensorSpec, Tolerance, to_json
from edgecnn.tasks import Scoring
from edgecnn.verification import (
    FAKE_QUANTIZED,
    FLOAT,
    SAME_BYTES,
    SAME_INTEGERS,
    TOLERANCES,
    difference,
    gain_of,
)

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("references_once")]

CLASSES = Scoring("classification", np.zeros(4, np.int64))


@pytest.fixture
def few_in_tflm(monkeypatch: pytest.MonkeyPatch) -> None:
    """TFLM, the slowest by far, sees 200 of the images."""
    monkeypatch.setattr(verification, "_TFLM_MACS", 500_000_000)  # the reference CNN has 2.5 million


def checked(workspace: Any, *paths: Path, data: DataSet | None = None) -> list[Parity]:
    return verification.verify(paths, data or workspace.data, model=workspace.model_file, qat=workspace.qat_file)


def violations(workspace: Any, *paths: Path) -> list[str]:
    return [violation for parity in checked(workspace, *paths) for violation in parity.violations]


def copied(workspace: Any, format: str, scheme: str, folder: Path, content: bytes | None = None) -> Path:
    """A copy of an exported file, or ``content`` in its place, without sidecar."""
    original = workspace.path(format, scheme)
    path = folder / original.name
    path.write_bytes(original.read_bytes() if content is None else content)
    for companion in workspace.artifacts[format, scheme].companions:
        (folder / companion.file).write_bytes(original.with_name(companion.file).read_bytes())
    return path


def scales_at(model: bytes, tensor: int) -> tuple[int, int]:
    """Position in the file of the first scale of a tensor, and how many there are."""
    table = schema.Model.GetRootAs(model, 0).Subgraphs(0).Tensors(tensor).Quantization()
    return table._tab.Vector(table._tab.Offset(8)), table.ScaleLength()


def rescaled(model: bytes, tensor: int, factor: float) -> bytes:
    changed = bytearray(model)
    position, count = scales_at(model, tensor)
    scales = np.frombuffer(model, "<f4", count, position) * np.float32(factor)
    changed[position : position + 4 * count] = scales.astype("<f4").tobytes()
    return bytes(changed)


def weights_of(model: bytes) -> list[int]:
    """Tensors with the int8 weights of every convolution and dense layer."""
    from edgecnn.tflite.graph import read_graph

    graph = read_graph(model, "x")
    kinds = ("CONV_2D", "FULLY_CONNECTED")
    found = [operator.inputs[1] for operator in graph.operators if operator.kind in kinds]
    assert len(found) == 4
    return found


# Honest files


def test_everything_exported_is_within_tolerance(workspace: Any) -> None:
    paths = [workspace.path(*key) for key in workspace.artifacts]
    parities = checked(workspace, *paths)
    assert [parity.violations for parity in parities] == [()] * len(parities)
    by_file = {(parity.artifact, parity.reference): parity for parity in parities}
    for (format, scheme), artifact in workspace.artifacts.items():
        reference = FAKE_QUANTIZED if SCHEMES[scheme].method == "qat" else FLOAT
        assert by_file.pop((artifact.file, reference)).artifact_sha256 == artifact.sha256
        if format != "tflite" and is_static_int8(SCHEMES[scheme]):
            twin = workspace.artifacts["tflite", scheme].file
            assert by_file.pop((artifact.file, twin)).difference.max_lsb is not None
        if format != "onnx" and is_static_int8(SCHEMES[scheme]):
            twin = workspace.artifacts["tflite", scheme].file
            micro = by_file.pop((artifact.file, f"{twin} in TFLM"))
            assert micro.difference.images == len(workspace.data.test.labels)
            assert micro.tolerance == (SAME_BYTES if format == "c99" else SAME_INTEGERS)
            assert micro.difference.max_lsb == 0 or format == "tflite"
    assert not by_file, "more was compared than there is"


@pytest.mark.parametrize("scheme", [name for name, scheme in SCHEMES.items() if is_static_int8(scheme)])
def test_int8_onnx_gives_the_integers_of_int8_tflite(workspace: Any, scheme: str) -> None:
    _, twin, *_ = checked(workspace, workspace.path("onnx", scheme), workspace.path("tflite", scheme))
    assert twin.difference.max_lsb is not None
    assert twin.difference.max_lsb <= 1
    assert twin.difference.images == len(workspace.data.test.labels)


# Damaged files


@pytest.mark.parametrize(
    ("format", "scheme"), [(f, s) for f in FORMATS for s in ("float32", "int8") if (f, s) != ("c99", "float32")]
)
def test_a_flipped_bit_anywhere_is_caught_by_the_hash(workspace: Any, format: str, scheme: str, tmp_path: Path) -> None:
    path = copied(workspace, format, scheme, tmp_path)
    original = path.read_bytes()
    artifacts.sidecar(path).write_bytes(artifacts.sidecar(workspace.path(format, scheme)).read_bytes())
    assert artifacts.load(path) == workspace.artifacts[format, scheme]
    for position in np.random.default_rng(0).integers(0, len(original), 25):
        changed = bytearray(original)
        changed[position] ^= 1
        path.write_bytes(changed)
        with pytest.raises(ArtifactError, match="has changed since it was exported"):
            artifacts.load(path)


@pytest.mark.usefixtures("few_in_tflm")
@pytest.mark.parametrize("layer", range(4))
@pytest.mark.parametrize("factor", [0.98, 1.02])
def test_weights_of_one_layer_2_percent_off_are_caught(
    workspace: Any, layer: int, factor: float, tmp_path: Path
) -> None:
    """Without a sidecar: by the fake-quantised model for int8-qat, by the .onnx with the same integers for both."""
    for scheme in ("int8", "int8-qat"):
        model = workspace.path("tflite", scheme).read_bytes()
        tensor = weights_of(model)[layer]
        path = copied(workspace, "tflite", scheme, tmp_path, rescaled(model, tensor, factor))
        parities = checked(workspace, workspace.path("onnx", scheme), path)
        found = [violation for parity in parities for violation in parity.violations]
        assert any("output gain" in violation for violation in found), (scheme, found)
        if scheme == "int8-qat":
            assert parities[2].reference == FAKE_QUANTIZED
            assert parities[2].violations


@pytest.mark.usefixtures("few_in_tflm")
def test_an_activation_2_percent_off_is_caught_or_refused(workspace: Any, tmp_path: Path) -> None:
    """Where producer and consumer no longer agree on a scale; elsewhere another scale is only another rounding."""
    from edgecnn.tflite.graph import read_graph

    model = workspace.path("tflite", "int8").read_bytes()
    unchanged = ("MAX_POOL_2D", "RESHAPE", "SOFTMAX")
    outputs = [operator.outputs[0] for operator in read_graph(model, "x").operators if operator.kind in unchanged]
    assert len(outputs) == 4
    for tensor in outputs:
        path = copied(workspace, "tflite", "int8", tmp_path, rescaled(model, tensor, 1.02))
        try:
            assert violations(workspace, workspace.path("onnx", "int8"), path)
        except SessionError as error:
            assert "litert cannot load" in str(error)  # noqa: PT017 - either way is right


def test_gain_tells_a_wrong_scale_from_rounding() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 4, (1000, 10)).astype(np.float32)

    def softmax(values: Any) -> Any:
        powers = np.exp(values - values.max(axis=1, keepdims=True))
        return powers / powers.sum(axis=1, keepdims=True)

    rounded = np.round(softmax(logits) * 256) / 256
    for outputs, reference in ((logits, logits), (softmax(logits), softmax(logits)), (rounded, softmax(logits))):
        assert abs(gain_of(outputs, reference)[0]) < 1e-3
    for outputs, reference in (
        (1.02 * logits, logits),
        (1.02 * logits + 3, logits),
        (softmax(1.02 * logits), softmax(logits)),
        (np.round(softmax(1.02 * logits) * 256) / 256, rounded),
    ):
        gain, deviation = gain_of(outputs, reference)
        assert gain == pytest.approx(0.02, abs=3e-3)
        assert 0 <= deviation < 2e-3
    assert gain_of(np.ones((3, 2), np.float32), np.ones((3, 2), np.float32)) == (0, 0)


def test_swapped_classes_are_caught(workspace: Any, tmp_path: Path) -> None:
    import onnx

    model = onnx.load(workspace.path("onnx", "float32"))
    *_, last = [i for i in model.graph.initializer if 10 in i.dims and len(i.dims) == 2]
    weights = onnx.numpy_helper.to_array(last).copy()
    axis = weights.shape.index(10)
    order = [1, 0, *range(2, 10)]
    last.CopyFrom(onnx.numpy_helper.from_array(np.take(weights, order, axis=axis), last.name))
    path = copied(workspace, "onnx", "float32", tmp_path, model.SerializeToString())
    assert any("top class agrees on" in violation for violation in violations(workspace, path))


@pytest.mark.parametrize("format", ["tflite", "onnx"])
def test_an_exchanged_model_is_caught(workspace: Any, format: str, tmp_path: Path) -> None:
    """The float32 file of another training, under the name of this one."""
    from edgecnn.formats import export_file, provenance_of
    from edgecnn.formats.source import Source
    from edgecnn.models import build_model

    other = build_model("mnist_cnn", workspace.data, seed=1)
    artifact = export_file(
        Source(other, None, workspace.data.inputs(workspace.data.train.images[:1]), "int8", 1),
        format=FORMATS[format],
        scheme=SCHEMES["float32"],
        provenance=provenance_of("digits", "0" * 64, workspace.data),
        folder=tmp_path,
    )
    assert violations(workspace, tmp_path / artifact.file)


def test_exchanged_height_and_width_are_caught(workspace: Any) -> None:
    data = workspace.data
    turned = Split(data.test.images.transpose(0, 2, 1, 3).copy(), data.test.labels)
    images = data.inputs(turned.images)
    path = workspace.path("onnx", "float32")
    reference = verification.reference_of(workspace.model_file, data.inputs(data.test.images))
    parity = verification.compare(
        workspace.artifacts["onnx", "float32"], outputs_of(task_of(path), images), reference, data.scoring(),
        against=FLOAT, tolerance=TOLERANCES["float32"],
    )  # fmt: skip
    assert len(parity.violations) == 4


def test_nan_outputs_are_an_error_with_the_image() -> None:
    outputs = np.zeros((4, 2), np.float32)
    outputs[2, 1] = np.nan
    with pytest.raises(SessionError, match="contain NaN or infinity, first on image 2"):
        difference(outputs, np.zeros((4, 2), np.float32), CLASSES, [None])
    outputs[2, 1] = np.inf
    with pytest.raises(SessionError, match="first on image 2"):
        difference(outputs, np.zeros((4, 2), np.float32), CLASSES, [None])


def test_nan_weights_in_a_file_are_caught(workspace: Any, tmp_path: Path) -> None:
    model = bytearray(workspace.path("tflite", "float32").read_bytes())
    bias = np.asarray(workspace.model.layers[-1].bias).astype("<f4").tobytes()
    position = bytes(model).index(bias)
    struct.pack_into("<f", model, position, float("nan"))
    path = copied(workspace, "tflite", "float32", tmp_path, bytes(model))
    with pytest.raises(SessionError, match="NaN"):
        checked(workspace, path)


def test_outputs_of_another_shape_are_an_error() -> None:
    with pytest.raises(SessionError, match=r"shape \(2, 3\), the reference has \(2, 4\)"):
        difference(np.zeros((2, 3), np.float32), np.zeros((2, 4), np.float32), CLASSES, [None])


# What is counted


def test_difference_counts_what_it_says() -> None:
    reference = np.array([[0.0, 1.0], [1.0, 0.0], [0.2, 0.8]], np.float32)
    outputs = np.array([[0.0, 1.0], [0.25, 0.75], [0.2, 0.3]], np.float32)
    found = difference(outputs, reference, CLASSES.first(3), [0.25])
    assert (found.images, found.agree, found.worst_image) == (3, 2, 1)
    assert found.max_abs == pytest.approx(0.75)
    assert found.mean_abs == pytest.approx((0.75 + 0.75 + 0.5) / 6)
    assert (found.max_lsb, found.span) == (3, 1.0)
    assert found.mean_lsb == pytest.approx(8 / 6)
    assert found.within_one_lsb == pytest.approx(3 / 6)


@pytest.mark.parametrize("tolerance", [*TOLERANCES.values(), SAME_INTEGERS])
def test_every_tolerance_can_be_broken(workspace: Any, tolerance: Tolerance) -> None:
    artifact = workspace.artifacts["tflite", "int8"]
    labels = np.arange(1000) % 10
    reference, scoring = np.eye(10, dtype=np.float32)[labels], Scoring("classification", labels)

    def judged(outputs: Any) -> tuple[str, ...]:
        return verification.compare(
            artifact, outputs, reference, scoring, against=FLOAT, tolerance=tolerance
        ).violations

    assert judged(reference) == ()
    wrong = np.roll(reference, 1, axis=1)
    mixed = np.where((np.arange(1000) % 8 == 0)[:, None], wrong, reference).astype(np.float32)
    found = " | ".join(judged(mixed))
    assert "mean difference" in found
    assert "top class agrees on 87.50%" in found
    assert "accuracy is 12.50 points lower" in found
    assert ("largest difference 1 on image 0" in found) == (tolerance.max_abs is not None)
    assert ("LSB" in found) == (tolerance.mean_lsb is not None)


def test_chance_on_few_images_breaks_no_tolerance(workspace: Any) -> None:
    labels = np.zeros(20, np.int64)
    reference = np.tile(np.float32([0.501, 0.499]), (20, 1))
    outputs = reference.copy()
    outputs[0] = [0.4995, 0.5005]
    parity = verification.compare(
        workspace.artifacts["tflite", "float32"], outputs, reference, Scoring("classification", labels), against=FLOAT,
        tolerance=Tolerance(max_abs=None, mean_abs=1, agreement=0.96, accuracy_drop=0.01),
    )  # fmt: skip
    assert parity.difference.agree == 19
    assert parity.violations == ()


def test_every_scheme_has_a_tolerance() -> None:
    assert set(TOLERANCES) == set(SCHEMES)


def test_other_images_than_those_trained_on_are_still_compared(workspace: Any, mnist: DataSet) -> None:
    """Parity does not need the right answers: noise is as good as digits."""
    noise = np.random.default_rng(0).integers(0, 256, (100, 28, 28, 1), dtype=np.uint8)
    data = replace(workspace.data, test=Split(noise, workspace.data.test.labels[:100]))
    (parity,) = checked(workspace, workspace.path("tflite", "float32"), data=data)
    assert parity.violations == ()
    assert parity.accuracy.value < 0.5


# What cannot be judged


def test_an_int8_qat_file_needs_the_weights_after_training(workspace: Any) -> None:
    with pytest.raises(ConfigError, match="--qat"):
        verification.verify([workspace.path("tflite", "int8-qat")], workspace.data, model=workspace.model_file)


def test_a_file_that_others_made_has_no_tolerance(workspace: Any, tmp_path: Path) -> None:
    import onnx

    model = onnx.load(workspace.path("onnx", "float32"))
    del model.metadata_props[:]
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 1
    path = copied(workspace, "onnx", "float32", tmp_path, model.SerializeToString())
    with pytest.raises(EdgecnnError, match="has an unknown scheme"):
        checked(workspace, path)


def test_a_missing_file_is_named(workspace: Any, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"no model file at .*gone\.tflite"):
        checked(workspace, tmp_path / "gone.tflite")


def test_a_sidecar_cannot_hide_another_file(workspace: Any, tmp_path: Path) -> None:
    path = copied(workspace, "tflite", "int8", tmp_path)
    artifact = workspace.artifacts["tflite", "float32"]
    artifacts.sidecar(path).write_bytes(to_json(artifact))
    with pytest.raises(ArtifactError, match="sidecar"):
        checked(workspace, path)
    spec = TensorSpec(name="x", shape=(1,), dtype="float32", layout="NC")
    wrong_specs = artifact.replace(input=spec, sha256=sha256_bytes(path.read_bytes()))
    artifacts.sidecar(path).write_bytes(to_json(wrong_specs))
    assert artifacts.load(path).input == spec  # a sidecar is trusted where its hash is right
