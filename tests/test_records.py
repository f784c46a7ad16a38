"""Records: frozen, strict, and equal after a round trip through JSON."""

import math
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecnn import records
from edgecnn.errors import RecordError
from edgecnn.records import (
    SCHEMA_VERSION,
    Accuracy,
    Artifact,
    Baseline,
    Bundle,
    BundledImages,
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
    read_record,
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
        (b'{"correct": "1", "total": 2}', "Expected `int | null`, got `str` - at `$.correct`"),
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
        artifact="a", artifact_sha256="", runtime="r", device="cpu", threads=1, batch=1, load_s=0.1, warmup_ns=(9,),
        blocks_ns=((1_000_000_000, 2_000_000_000), (3_000_000_000,)),
    )  # fmt: skip
    assert measurement.samples_s == (1.0, 2.0, 3.0)
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


# What cannot be

KINDS: dict[str, Any] = {"report": Report, "baseline": Baseline, "artifact": Artifact, "bundle": Bundle}


def trees() -> dict[str, Any]:
    """A possible record of each of ``KINDS``, as decoded JSON."""
    from test_report import INT8, a_baseline, a_full_report, a_report, a_result, answers

    row = a_result(INT8, 5e-5, 9871).replace(answers=answers(set(range(129))))
    report = a_report([row, *a_full_report().rows], a_full_report().parities, others=(a_report(),))
    bundled = Bundle(
        schema_version=SCHEMA_VERSION,
        model="m",
        model_sha256="0",
        test=BundledImages(
            data="d", data_sha256="0", images=4, of=10, shape=(2, 2, 1), dtype="uint8", class_names=("a", "b"),
            preprocessing=Preprocessing(scale=1.0, offset=0.0, input_range=(0.0, 1.0)),
        ),
        files=(),
    )  # fmt: skip
    records = {"report": report, "baseline": a_baseline(), "artifact": row.artifact, "bundle": bundled}
    for name, record in records.items():
        assert from_json(to_json(record), KINDS[name], "x") == record
    return {name: msgspec.json.decode(to_json(record)) for name, record in records.items()}


OF_8 = {"total": 8, "right": "AA==", "images_sha256": ""}
ROW = "report.rows.0.measurement"


@pytest.mark.parametrize(
    ("place", "value", "reason"),
    [
        (f"{ROW}.blocks_ns", [], "either blocks or summaries - at `$.rows[0].measurement`"),
        (f"{ROW}.blocks_ns.0", [], "length >= 1 - at `$.rows[0].measurement.blocks_ns[0]`"),
        (f"{ROW}.blocks_ns.0.0", -1, "`int` >= 0 - at `$.rows[0].measurement.blocks_ns[0][0]`"),
        (f"{ROW}.blocks_ns.0.0", 10**300, "`int` <= 9007199254740992 - at"),
        (f"{ROW}.blocks_ns.0.0", 0.5, "Expected `int`, got `float` - at"),
        (f"{ROW}.blocks_ns.0.0", None, "Expected `int`, got `null` - at"),
        (f"{ROW}.blocks_per_process", [10**15], "blocks_per_process has a total of 1000000000000000 blocks"),
        (f"{ROW}.blocks_per_process", [0] * 9, "`int` >= 1 - at `$.rows[0].measurement.blocks_per_process[0]`"),
        (f"{ROW}.end_to_end_ns", [[1]], "1 blocks were timed end to end"),
        (f"{ROW}.batch", 0, "`int` >= 1 - at `$.rows[0].measurement.batch`"),
        (f"{ROW}.threads", -1, "`int` >= 0 - at `$.rows[0].measurement.threads`"),
        (f"{ROW}.threads", 10**40, "`int` <= 9007199254740992 - at"),
        (f"{ROW}.load_s", -1.0, "measurement.load_s`"),
        ("report.rows.0.accuracy.total", 0, "`int` >= 1 - at `$.rows[0].accuracy.total`"),
        ("report.rows.0.accuracy.correct", 10_001, "more than 10000 images - at `$.rows[0].accuracy`"),
        ("report.rows.0.answers.total", 9, "answers have 1250 bytes, 9 images need 2 - at `$.rows[0].answers`"),
        ("report.rows.0.answers.right", "é*", "not base64"),
        ("report.rows.0.answers", OF_8, "the answers are for 8 - at `$.rows[0]`"),
        ("report.parities.0.difference.images", 0, "parities[0].difference.images`"),
        ("report.parities.0.difference.agree", 10**9, "are more than"),
        ("report.parities.0.difference.span", -1.0, "difference.span`"),
        ("report.environment.usable_cores", 0, "environment.usable_cores`"),
        ("report.others.0.others", "self", "must have no others themselves"),
        ("report.schema_version", 1, "it has schema version 1, this edgecnn reads 2; make the file again"),
        ("report.others.0.schema_version", 1, "it has schema version 1, this edgecnn reads 2; make the file again"),
        ("baseline.measurement.blocks_ns", [], "either blocks or summaries - at `$.measurement`"),
        ("baseline.answers", OF_8, "the answers are for 8"),
        ("artifact.input.quantization", {"scale": [], "zero_point": []}, "at `$.input.quantization.scale`"),
        ("artifact.input.quantization", {"scale": [0], "zero_point": [0]}, "at `$.input.quantization.scale[0]`"),
        ("artifact.input.quantization", {"scale": [1e39], "zero_point": [0]}, "at `$.input.quantization.scale[0]`"),
        ("artifact.input.quantization", {"scale": [1], "zero_point": []}, "1 scales have 0 zero points"),
        ("artifact.input.quantization", {"scale": [1], "zero_point": [2**31]}, "quantization.zero_point[0]`"),
        ("artifact.input.dtype", "int99", "matching regex"),
        ("artifact.input.dtype", "float32", "values of type float32 cannot have a scale"),
        ("artifact.input.shape", [], "length >= 1 - at `$.input.shape`"),
        ("artifact.input.shape", [1, -28, 28, 1], "`int` >= 0 - at `$.input.shape[1]`"),
        ("artifact.input.shape", [None, 2**20, 2**20, 1], "has more than 134217728 values - at `$.input`"),
        ("artifact.output.layout", "NCHW", "the layout NCHW needs 4 dimensions"),
        ("bundle.test.images", 11, "a bundle cannot have 11 of 10 images"),
        ("bundle.test.shape", [2, -2], "`int` >= 0 - at `$.test.shape"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_with_its_place(place: str, value: Any, reason: str) -> None:
    name, *keys = place.split(".")
    tree = trees()[name]
    holder = tree
    *path, last = [int(key) if key.isdecimal() else key for key in keys]
    for key in path:
        holder = holder[key]
    if last == "dtype":
        holder["quantization"] = {"scale": [1.0], "zero_point": [0]}
    holder[last] = [trees()["report"]["others"][0]] if value == "self" else value
    with pytest.raises(RecordError) as caught:
        from_json(msgspec.json.encode(tree), KINDS[name], "file.json")
    assert reason in str(caught.value)
    assert str(caught.value).startswith("file.json is not a valid ")


def test_a_file_of_another_version_is_refused_for_that_whatever_its_fields_are() -> None:
    tree = trees()["report"] | {"schema_version": 1}
    measured = tree["rows"][0]["measurement"]
    measured["blocks"] = [[sample / 1e9 for sample in block] for block in measured.pop("blocks_ns")]
    with pytest.raises(
        RecordError, match=r"^old is not a valid Report file: it has schema version 1, this edgecnn reads 2"
    ):
        from_json(msgspec.json.encode(tree), Report, "old")


def test_a_block_of_samples_is_a_line() -> None:
    lines = to_json(from_json(msgspec.json.encode(trees()["baseline"]), Baseline, "x")).decode().splitlines()
    start = lines.index('  "blocks_ns": [')
    blocks = lines[start + 1 : lines.index("  ],", start)]
    assert len(blocks) == len(trees()["baseline"]["measurement"]["blocks_ns"]) > 1
    assert all(re.fullmatch(r"   \[\d+(,\d+)+\],?", line) for line in blocks)


@pytest.mark.parametrize("depth", [50, 2_000, 200_000])
def test_reports_within_reports_and_deep_lists_are_refused(depth: int) -> None:
    whole = msgspec.json.encode(trees()["report"] | {"others": []}).removesuffix(b"}")
    whole = whole.replace(b',"others":[]', b"")
    for content in (b"[" * depth, (whole + b',"others":[') * min(depth, 2_000), b'{"others":' * depth):
        with pytest.raises(RecordError, match="file is not a valid Report file"):
            from_json(content, Report, "file")


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "MOST_BYTES", 2**20)
    path = tmp_path / "x.json"
    with path.open("wb") as file:
        file.truncate(2**40)  # no byte of it is on the disk
    with pytest.raises(
        RecordError, match=r"cannot read .*x\.json: it has 1,099,511,627,776 bytes, more than 1,048,576"
    ):
        read_record(path, Report)
    with pytest.raises(RecordError, match=r"x is not a valid Report file: it has more than 1 MiB"):
        from_json(bytes(2**20 + 1), Report, "x")
    with pytest.raises(RecordError, match=r"cannot read .*none\.json: No such file"):
        read_record(tmp_path / "none.json", Report)
    with pytest.raises(RecordError, match=r"cannot read .*: Is a directory"):
        read_record(tmp_path, Report)


def test_every_record_that_is_kept_can_be() -> None:
    root = Path(records.__file__).parents[1]
    kept = [*root.glob("edgecnn/baselines/*.json"), *root.glob("benchmarks/baselines/*.json")]
    for path in kept:
        read_record(path, Baseline)
    for name in ("against-others", "int8-onnx", "mnist"):
        read_record(root / f"benchmarks/results/{name}.json", Report)
    assert len(kept) >= 2
