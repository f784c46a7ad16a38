"""Records: frozen, strict, and equal after a round trip through JSON."""

import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecnn.errors import RecordError
from edgecnn.records import (
    Accuracy,
    Artifact,
    Difference,
    Failure,
    FileRecord,
    History,
    Measurement,
    Preprocessing,
    Provenance,
    Quantization,
    Record,
    Report,
    TensorSpec,
    from_json,
    to_json,
    wilson,
)

text = st.text(st.characters(codec="utf-8"), max_size=12)
number = st.floats(-1e30, 1e30)
quantizations = st.builds(
    lambda pairs, axis: Quantization(
        scale=tuple(s for s, _ in pairs), zero_point=tuple(z for _, z in pairs), axis=axis
    ),
    st.lists(st.tuples(st.floats(1e-30, 1e30), st.integers(-128, 127)), min_size=1, max_size=4),
    st.none() | st.integers(0, 3),
)
size = st.none() | st.integers(1, 9)
specs = st.builds(
    lambda types, shapes, name: TensorSpec(
        name=name, dtype=types[0], quantization=types[1], layout=shapes[0], shape=shapes[1]
    ),
    st.tuples(st.just("float32"), st.none()) | st.tuples(st.just("int8"), st.none() | quantizations),
    st.tuples(st.just("NC"), st.lists(size, min_size=1, max_size=4).map(tuple))
    | st.tuples(st.sampled_from(["NHWC", "NCHW"]), st.tuples(size, size, size, size)),
    text,
)
provenances = st.builds(
    Provenance,
    model=text,
    model_sha256=text,
    scheme=text,
    labels=st.lists(text, max_size=3).map(tuple),
    preprocessing=st.builds(Preprocessing, scale=number, offset=number, input_range=st.tuples(number, number)),
    data=text,
    data_sha256=text,
    calibration_images=st.none() | st.integers(0, 10**6),
    tuning=st.none(),
    versions=st.dictionaries(text, text, max_size=3),
)
artifacts = st.builds(
    Artifact,
    file=text,
    format=text,
    scheme=text,
    input=specs,
    output=specs,
    sha256=text,
    size_bytes=st.integers(0, 2**40),
    provenance=st.none() | provenances,
)


@given(artifacts)
def test_any_artifact_comes_back_equal(artifact: Artifact) -> None:
    stored = to_json(artifact)
    assert from_json(stored, Artifact, "x") == artifact
    assert stored.endswith(b"}\n")


def every_record() -> list[type[Record]]:
    kinds = (*Record.__subclasses__(), *FileRecord.__subclasses__())
    found = [kind for kind in kinds if kind.__module__ == "edgecnn.records"]
    assert {Artifact, Measurement, Report} <= set(found)
    return found


@pytest.mark.parametrize("kind", every_record())
def test_every_record_is_frozen_and_strict(kind: type[Record]) -> None:
    config = kind.__struct_config__
    assert config.frozen
    assert config.forbid_unknown_fields
    assert all("list" not in str(field.type) for field in msgspec.structs.fields(kind)), "tuples, not lists"


def test_a_field_cannot_be_set() -> None:
    accuracy = Accuracy(correct=1, total=2)
    with pytest.raises(AttributeError):
        accuracy.correct = 2  # type: ignore[misc]
    assert accuracy.replace(correct=2) == Accuracy(correct=2, total=2)
    assert accuracy.correct == 1


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b'{"correct": 1, "total": 2, "totals": 3}', "unknown field `totals`"),
        (b'{"correct": 1}', "missing required field `total`"),
        (b'{"correct": "1", "total": 2}', "Expected `int`, got `str` - at `$.correct`"),
        (b'{"correct": 1, "total"', "truncated"),
        (b"\xff\xfe", "malformed"),
        (b"", "truncated"),
        (b"[]", "Expected `object`"),
    ],
)
def test_what_is_no_record_is_refused_with_its_place(content: bytes, reason: str) -> None:
    with pytest.raises(RecordError) as caught:
        from_json(content, Accuracy, "results/file.json")
    assert str(caught.value).startswith("results/file.json is not a valid Accuracy file: ")
    assert reason in str(caught.value)


def test_wilson_interval_is_that_of_the_literature() -> None:
    # Newcombe, Statistics in Medicine 17 (1998), table I, method 3
    for successes, total, low, high in ((81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0, 0.1611)):
        assert wilson(successes, total) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(0, 1000), st.integers(1, 1000))
def test_wilson_interval_holds_the_share_and_stays_a_share(successes: int, total: int) -> None:
    successes = min(successes, total)
    low, high = wilson(successes, total)
    assert 0 <= low <= high <= 1
    assert low - 1e-12 <= successes / total <= high + 1e-12


def test_numbers_computed_from_records() -> None:
    measurement = Measurement(
        artifact="a", artifact_sha256="", runtime="r", device="cpu", threads=1, batch=1, load_s=0.1, warmup=(9.0,),
        blocks=((1.0, 2.0), (3.0,)),
    )  # fmt: skip
    assert measurement.samples == (1.0, 2.0, 3.0)
    difference = Difference(images=8, span=1.0, max_abs=0.0, mean_abs=0.0, worst_image=0, agree=6)
    assert difference.agreement == 0.75
    assert Accuracy(correct=3, total=4).value == 0.75
    assert math.isclose(sum(Accuracy(correct=1, total=2).interval), 1)
    assert History(epochs=()).epochs == ()


def test_numbers_of_an_array_share_a_line_and_texts_stay_as_they_are() -> None:
    texts = ("[ 1, 2 ]", "[\n 1\n]", "1", "")
    found = Failure(subject=texts[0], stage=texts[1], error=texts[2], reason=texts[3])
    assert from_json(to_json(found), Failure, "memory") == found
    quantization = Quantization(scale=(1e-9, 2.5), zero_point=(-128, 0), axis=None)
    lines = to_json(quantization).decode().splitlines()
    assert lines == ["{", ' "scale": [1e-9,2.5],', ' "zero_point": [-128,0],', ' "axis": null', "}"]
    assert from_json(to_json(quantization), Quantization, "memory") == quantization
