"""Signatures and metadata of .tflite files, as other programs read them."""

import io
import zipfile
from typing import Any

import flatbuffers.number_types as types
import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from flatbuffers.table import Table

from edgecnn.formats import tflite
from edgecnn.formats.source import Source
from edgecnn.quantization.schemes import SCHEMES
from edgecnn.records import OutputLabels, Preprocessing, Provenance
from edgecnn.tflite import metadata
from edgecnn.tflite.graph import read_graph

L = keras.layers


def about(labels: tuple[str, ...], **more: Any) -> Provenance:
    """Of a model whose raw values of 0 to 255 become -1 to 1."""
    return Provenance(
        model="mine", model_sha256="0" * 64, scheme="float32", labels=labels, data="x", data_sha256="0" * 64,
        preprocessing=Preprocessing(scale=1 / 127.5, offset=-1.0, input_range=(-1.0, 1.0)), versions={"edgecnn": "1"},
        calibration_images=None, **more,
    )  # fmt: skip


class Read(Table):
    """A table of a flatbuffer, by slot."""

    def of(self, slot: int) -> Any:
        """The string, or the byte, in ``slot``; 0 if there is none."""
        offset = self.Offset(4 + 2 * slot)
        return self.Get(types.Int8Flags, self.Pos + offset) if offset else 0

    def text(self, slot: int) -> str:
        return str(self.String(self.Pos + self.Offset(4 + 2 * slot)).decode())

    def one(self, slot: int) -> "Read":
        return Read(self.Bytes, self.Indirect(self.Pos + self.Offset(4 + 2 * slot)))

    def places(self, slot: int) -> list[int]:
        offset = self.Offset(4 + 2 * slot)
        return [self.Vector(offset) + 4 * place for place in range(self.VectorLen(offset))] if offset else []

    def each(self, slot: int) -> "list[Read]":
        return [Read(self.Bytes, self.Indirect(place)) for place in self.places(slot)]

    def number(self, slot: int) -> float:
        (place,) = self.places(slot)
        return float(self.Get(types.Float32Flags, place))


def read(model: bytes) -> tuple[Read, list[Read], list[Read]]:
    """The metadata in ``model``: root, inputs and outputs."""
    content = read_graph(model, "x").metadata[metadata.NAME]
    assert content[4:8] == b"M001"
    root = Read(bytearray(content), int.from_bytes(content[:4], "little"))
    (subgraph,) = root.each(3)
    return root, subgraph.each(2), subgraph.each(3)


def two_ends() -> Any:
    picture, facts = keras.Input((8, 8, 3), name="picture"), keras.Input((4,), name="facts")
    x = L.Concatenate()([L.Flatten()(picture), facts])
    return keras.Model([picture, facts], [L.Dense(3, name="kind")(x), L.Dense(2, name="size")(x)], name="two")


def classifier(**names: str) -> Any:
    keras.utils.set_random_seed(0)
    picture = keras.Input((6, 7, 3), **names)
    x = L.Conv2D(4, 3, activation="relu")(picture)
    return keras.Model(picture, L.Dense(3, name="kind")(L.Flatten()(x)), name="mine")


def source_of(model: Any, io: Any = "int8") -> Source:
    images = np.random.default_rng(0).random((8, *model.inputs[0].shape[1:]), np.float32)
    return Source(model, None, images, io, 1)


@pytest.mark.parametrize("scheme", ["float32", "float16", "dynamic-int8", "int8", "int16x8"])
def test_the_signature_has_the_names_of_keras_and_answers_as_the_graph(scheme: str) -> None:
    model = tflite.convert(source_of(classifier(name="picture")), SCHEMES[scheme])
    interpreter = Interpreter(model_content=model)
    assert interpreter.get_signature_list() == {"serving_default": {"inputs": ["picture"], "outputs": ["kind"]}}
    interpreter.allocate_tensors()
    (source,), (target,) = interpreter.get_input_details(), interpreter.get_output_details()
    values = np.random.default_rng(1).integers(-9, 9, source["shape"]).astype(source["dtype"])
    interpreter.set_tensor(source["index"], values)
    interpreter.invoke()
    wanted = interpreter.get_tensor(target["index"])
    np.testing.assert_array_equal(interpreter.get_signature_runner()(picture=values)["kind"], wanted)
    assert np.ptp(wanted)


def test_names_that_keras_counts_are_not_used() -> None:
    """Another model built before would change them."""
    model = tflite.convert(source_of(classifier()), SCHEMES["float32"])
    assert Interpreter(model_content=model).get_signature_list()["serving_default"]["inputs"] == ["input"]
    stacked = keras.Sequential([keras.Input((6, 7, 3)), L.Flatten(), L.Dense(2, name="kind")])
    signatures = Interpreter(model_content=tflite.convert(source_of(stacked), SCHEMES["float32"])).get_signature_list()
    assert signatures == {"serving_default": {"inputs": ["input"], "outputs": ["kind"]}}


def test_a_classifier_has_its_normalisation_and_labels() -> None:
    labels = ("apple", "pear, green", "Квитка")
    model = tflite.convert(source_of(classifier(name="picture")), SCHEMES["float32"])
    file = tflite.with_provenance(model, about(labels))
    root, (source,), (target,) = read(file)
    assert (root.text(0), root.text(7)) == ("mine", "1.0.0")
    assert (source.text(0), target.text(0)) == ("picture", "kind")
    assert source.one(3).of(0) == 2, "an image"
    assert source.one(3).one(1).of(0) == 1, "RGB"
    (unit,) = source.each(4)
    assert unit.of(0) == 1, "normalisation"
    mean, std = unit.one(1).number(0), unit.one(1).number(1)
    np.testing.assert_allclose((np.array([0, 51, 255]) - mean) / std, [-1, -0.6, 1], atol=1e-6)
    assert (source.one(5).number(0), source.one(5).number(1)) == (1, -1)
    (labelled,) = target.each(6)
    assert labelled.of(2) == 2, "labels of an axis"
    archive = zipfile.ZipFile(io.BytesIO(file))
    assert archive.read(labelled.text(0)).decode().splitlines() == list(labels)
    assert archive.testzip() is None
    np.testing.assert_array_equal(
        Interpreter(model_content=file).get_signature_list(), Interpreter(model_content=model).get_signature_list()
    )


def test_several_ends_have_their_own_labels_and_no_normalisation() -> None:
    outputs = (
        OutputLabels(name="kind", task="classification", labels=("a", "b", "c")),
        OutputLabels(name="size", task="regression", labels=("width", "height")),
    )
    model = two_ends()
    samples = np.empty(4, [("picture", np.float32, (8, 8, 3)), ("facts", np.float32, (4,))])
    for name in samples.dtype.names or ():
        samples[name] = 0.5
    converted = tflite.convert(Source(model, None, samples, "int8", 1), SCHEMES["float32"])
    file = tflite.with_provenance(converted, about((), task="several", outputs=outputs))
    _, sources, targets = read(file)
    assert [source.text(0) for source in sources] == ["picture", "facts"]
    assert [source.one(3).of(0) for source in sources] == [2, 1], "an image, and numbers"
    assert not any(source.each(4) for source in sources)
    archive = zipfile.ZipFile(io.BytesIO(file))
    found = {each.text(0): archive.read(each.each(6)[0].text(0)).decode().split() for each in targets}
    assert found == {each.name: list(each.labels) for each in outputs}


def test_labels_that_do_not_fit_the_output_are_left_out() -> None:
    model = tflite.convert(source_of(classifier()), SCHEMES["float32"])
    file = tflite.with_provenance(model, about(("no", "yes")))
    _, _, (target,) = read(file)
    assert not target.each(6)
    assert file.endswith(model), "there is no archive"
