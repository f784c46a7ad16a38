"""Readers of JSON, TOML and metadata: reports, baselines, sidecars, bundles, kits, configurations."""

import io
import json
import random
import shutil
import zipfile
from contextlib import closing
from pathlib import Path

import numpy as np
from rich.console import Console

from edgecnn import artifacts, bundle, embed
from edgecnn.config import read_config
from edgecnn.files import sha256_bytes
from edgecnn.measure import files as bench_files
from edgecnn.measure.baseline import load_baseline
from edgecnn.measure.comparison import check_fits
from edgecnn.records import (
    SCHEMA_VERSION,
    Artifact,
    Bundle,
    BundledFile,
    BundledImages,
    Kit,
    Preprocessing,
    Provenance,
    Quantization,
    Report,
    TensorSpec,
    Tuning,
    to_json,
)
from edgecnn.report import read, show, write
from edgecnn.report.compare import compare
from edgecnn.runtimes import open_session, predict
from fuzzing.damage import TEXTS, damage_bytes, damage_json, damaged_bytes, damaged_tree, json_of
from fuzzing.harness import Reader

_OLD = "old.json"
_CONFIG = """\
model = "mnist_cnn"
data = "mnist"
input_range = [0, 1.0]
epochs = 5
seed = 3
batch_size = 64
validation_split = 0.1
schemes = ["float32", "int8"]
formats = ["tflite", "onnx"]
io = "int8"
batch = "1"
tune = false
tune_seconds = 20.5
threads = [1, 2]
baselines = ["none"]
on = ["haswell"]
"""
_VALUES = (
    "nan", "-inf", "0", "-1", "1e400", "9" * 5000, "0x" + "f" * 3000, '""', "[]", "{}", "[" * 2000, "[" * 60_000,
    "{a=" * 500, "[[1]]", "true", "1979-05-27", '"\\u001b[31m"', '"' + "x" * 100_000 + '"', "[1, 'a']", "[0.5, 1e308]",
)  # fmt: skip


def _reports() -> dict[str, Report]:
    from test_report import FLOAT, INT8, a_full_report, a_report, a_result, answers, merged

    answered = a_result(INT8, 5e-5, 9871).replace(answers=answers(set(range(129))))
    return {
        "full": a_full_report(),
        "several": merged(),
        "answers": a_report([a_result(FLOAT, 1e-4, 9881), answered]),
    }


def _make_reports(folder: Path) -> None:
    for name, report in _reports().items():
        (folder / f"{name}.json").write_bytes(to_json(report))


def _read_report(path: Path) -> object:
    report = read(path)
    show(report, Console(file=io.StringIO()))
    return write(report, path.parent / "out")


def _make_pairs(folder: Path) -> None:
    for name, report in _reports().items():
        if not report.others:
            (folder / name).mkdir()
            for file in (_OLD, "new.json"):
                (folder / name / file).write_bytes(to_json(report))


def _damage_pair(path: Path, draw: random.Random) -> None:
    damage_json(path / draw.choice((_OLD, "new.json")), draw)


def _compare(path: Path) -> object:
    gate = compare(read(path / _OLD), read(path / "new.json"), max_accuracy_drop=0.5, max_latency_ratio=1.1)
    return to_json(gate)


def _make_baselines(folder: Path) -> None:
    from test_report import a_baseline

    (folder / "measured.json").write_bytes(to_json(a_baseline()))
    for path in Path(bench_files.__file__).parents[1].joinpath("baselines").glob("*.json"):
        shutil.copy(path, folder / f"shipped-{path.name}")


def _read_baseline(path: Path) -> object:
    baseline = load_baseline(path)
    check_fits(path, baseline, {"model": (None, baseline.architecture)})
    report = _reports()["full"].replace(baselines=(baseline,))
    show(report, Console(file=io.StringIO()))
    return write(report, path.parent / "out")


# Models and what is known of them


def _ends() -> dict[str, TensorSpec]:
    quantization = Quantization(scale=(1 / 255,), zero_point=(-128,))
    return {
        "input": TensorSpec(
            name="input", shape=(1, 1, 2, 2), dtype="int8", layout="NCHW", quantization=quantization
        ),
        "output": TensorSpec(name="output", shape=(1, 4), dtype="int8", layout="NC", quantization=quantization),
    }  # fmt: skip


def _provenance() -> Provenance:
    return Provenance(
        model="m",
        model_sha256="0" * 64,
        scheme="int8",
        labels=("a", "b", "c", "d"),
        preprocessing=Preprocessing(scale=1 / 255, offset=0.0, input_range=(0.0, 1.0)),
        data="mnist",
        data_sha256="1" * 64,
        calibration_images=10,
        versions={"onnx": "1"},
        tuning=Tuning(
            operators=("CONV_2D", "SOFTMAX"), in_float=(1,), unsigned=True, cpu=None, runtime="onnxruntime 1",
            ratio=0.5, ratio_low=0.4, ratio_high=0.6, untuned_ratio=0.7, tried=3,
        ),
    )  # fmt: skip


def _metadata() -> dict[str, bytes]:
    return {"edgecnn": to_json(_provenance()), **{f"edgecnn.{kind}": to_json(spec) for kind, spec in _ends().items()}}


def _onnx(metadata: dict[str, bytes]) -> bytes:
    """A graph that flattens its input, with ``metadata``, which need not be text."""
    import onnx

    ends = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.INT8, spec.shape) for name, spec in _ends().items()
    ]
    flatten = onnx.helper.make_node("Flatten", ["input"], ["output"])
    model = onnx.helper.make_model(
        onnx.helper.make_graph([flatten], "g", ends[:1], ends[1:]),
        opset_imports=[onnx.helper.make_opsetid("", 17)],
        ir_version=8,
    )
    whole: bytes = model.SerializeToString()
    for key, value in metadata.items():  # field 14 of ModelProto: a key and a value
        entry = _field(1, key.encode()) + _field(2, value)
        whole += _field(14, entry)
    return whole


def _field(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    return (bytes([value & 127 | 128]) + _varint(value >> 7)) if value > 127 else bytes([value])


def _make_metadata(folder: Path) -> None:
    (folder / "m.onnx").write_bytes(_onnx(_metadata()))


def _damage_metadata(path: Path, draw: random.Random) -> None:
    metadata = _metadata()
    key = draw.choice(sorted(metadata))
    if draw.randrange(3):
        metadata[key] = json_of(damaged_tree(json.loads(metadata[key]), draw))
    else:
        metadata[key] = damaged_bytes(metadata[key], draw)
    path.write_bytes(_onnx(metadata))
    if draw.randrange(8) == 0:
        damage_bytes(path, draw)


def _read_metadata(path: Path) -> object:
    artifact = artifacts.describe(path)
    bench_files._check(artifact)
    with closing(open_session(path)) as session:
        return predict(session, np.zeros((1, 2, 2, 1), np.float32))


def _make_sidecars(folder: Path) -> None:
    content = _onnx({})
    (folder / "m").mkdir()
    (folder / "m" / "m.onnx").write_bytes(content)
    artifact = Artifact(
        file="m.onnx",
        format="onnx",
        scheme="int8",
        **_ends(),
        sha256=sha256_bytes(content),
        size_bytes=len(content),
        provenance=_provenance(),
    )
    (folder / "m" / "m.onnx.json").write_bytes(to_json(artifact))


def _damage_sidecar(path: Path, draw: random.Random) -> None:
    damage_json(path / "m.onnx.json", draw)


def _read_sidecar(path: Path) -> object:
    artifact = artifacts.load(path / "m.onnx")
    bench_files._check(artifact)
    return bench_files._noise([artifact], 0), bench_files._swept(path, artifact, None, (1,), (1,))


# Bundles and kits


def _members() -> dict[str, bytes]:
    buffer = io.BytesIO()
    np.savez(buffer, images=np.zeros((4, 2, 2, 1), np.uint8), labels=np.arange(4))
    content = {"artifacts/m.onnx": b"a model", "artifacts/m.onnx.json": b"{}", "test.npz": buffer.getvalue()}
    described = Bundle(
        schema_version=SCHEMA_VERSION,
        model="m",
        model_sha256="0" * 64,
        test=BundledImages(
            data="mnist", data_sha256="1" * 64, images=4, of=10, shape=(2, 2, 1), dtype="uint8",
            class_names=("a", "b", "c", "d"),
            preprocessing=Preprocessing(scale=1 / 255, offset=0.0, input_range=(0.0, 1.0)),
        ),
        files=tuple(
            BundledFile(name=name, sha256=sha256_bytes(whole), size_bytes=len(whole)) for name, whole in content.items()
        ),
    )  # fmt: skip
    return {"manifest.json": to_json(described), **content}


def _zip(path: Path, members: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content)


def _make_bundles(folder: Path) -> None:
    _zip(folder / "bundle.zip", _members())


def _damage_bundle(path: Path, draw: random.Random) -> None:
    if draw.randrange(4):
        members = _members()
        members["manifest.json"] = json_of(damaged_tree(json.loads(members["manifest.json"]), draw))
        _zip(path, members)
    else:
        damage_bytes(path, draw)


def _open_bundle(path: Path) -> object:
    with bundle.opened(path) as (models, data):
        return len(models), data.class_names, data.inputs(data.test.images)


def _make_kits(folder: Path) -> None:
    (folder / "kit").mkdir()
    (folder / "kit" / "m.c").write_bytes(b"int m;")
    kit = Kit(
        schema_version=SCHEMA_VERSION, target="c99", name="m", model="m.tflite", model_sha256="0" * 64,
        files={"m.c": sha256_bytes(b"int m;")}, versions={"edgecnn": "1"}, arena_bytes=16,
    )  # fmt: skip
    (folder / "kit" / embed.KIT_FILE).write_bytes(to_json(kit))


def _damage_kit(path: Path, draw: random.Random) -> None:
    damage_json(path / embed.KIT_FILE, draw)


# Configurations


def _make_configurations(folder: Path) -> None:
    (folder / "run.toml").write_text(_CONFIG)


def _damage_configuration(path: Path, draw: random.Random) -> None:
    lines = path.read_text().splitlines()
    at = draw.randrange(len(lines))
    key, _, value = lines[at].partition(" = ")
    kind = draw.randrange(6)
    if kind == 0:
        damage_bytes(path, draw)
        return
    if kind == 1:
        lines[at] = f"{'a.' * draw.choice((1, 1000, 2000, 30_000))}{key} = {value}"
    elif kind == 2:
        lines.insert(
            at, draw.choice((lines[at], "[table]", "[[model]]", "\0", "# x", f'"{draw.choice(TEXTS[4:6])}" = 1'))
        )
    else:
        lines[at] = f"{key} = {draw.choice((*_VALUES, *map(json.dumps, TEXTS)))}"
    path.write_text("\n".join(lines))


READERS = (
    Reader("report", _make_reports, damage_json, _read_report),
    Reader("compare", _make_pairs, _damage_pair, _compare),
    Reader("baseline", _make_baselines, damage_json, _read_baseline),
    Reader("sidecar", _make_sidecars, _damage_sidecar, _read_sidecar),
    Reader("bundle", _make_bundles, _damage_bundle, _open_bundle),
    Reader("kit", _make_kits, _damage_kit, embed._check_former),
    Reader("configuration", _make_configurations, _damage_configuration, read_config),
    Reader("metadata", _make_metadata, _damage_metadata, _read_metadata),
)
