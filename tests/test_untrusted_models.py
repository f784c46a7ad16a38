"""Model files made to harm: what they would do does not happen, and an error of ours says why."""

import contextlib
import io
import json
import random
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import onnx
import pytest
from fuzzing.models import BODIES, edited_tflite, int8_files, source_of
from onnx import TensorProto, helper

from edgecnn import artifacts, onnx_verifier
from edgecnn.errors import ArtifactError, EdgecnnError, ModelError, RecordError, SessionError
from edgecnn.files import sha256_file
from edgecnn.inspection import inspect
from edgecnn.models import architecture_of, load_model, save_model
from edgecnn.records import to_json
from edgecnn.runtimes import open_session
from edgecnn.tflite import verifier as tflite_verifier
from edgecnn.tflite.graph import read_graph

pytestmark = pytest.mark.slow

READS: tuple[Callable[[Path], object], ...] = (artifacts.load, artifacts.describe, inspect)

# .tflite: references


@pytest.fixture(scope="module")
def plain() -> bytes:
    return int8_files()[0]


def _u32(content: bytes, place: int) -> int:
    return int(struct.unpack_from("<I", content, place)[0])


def test_every_reference_of_a_flatbuffer_is_followed(plain: bytes) -> None:
    """Whatever word of the structure becomes a far reference, it is refused or was none."""
    tflite_verifier.verify(plain)
    refused = 0
    for place in range(0, 2000, 4):
        damaged = bytearray(plain)
        struct.pack_into("<I", damaged, place, 0x7FFFFFF0)
        with contextlib.suppress(tflite_verifier.FlatbufferError):
            tflite_verifier.verify(bytes(damaged))
            continue
        refused += 1
    assert refused > 100


def test_cut_files_are_refused_at_every_length(plain: bytes) -> None:
    for length in range(8, len(plain) - 64, 97):
        with pytest.raises(ArtifactError, match=r"x\.tflite is damaged: its flatbuffer cannot be read \("):
            read_graph(plain[:length], "x.tflite")


def test_a_part_that_is_referred_to_again_and_again_is_refused(plain: bytes) -> None:
    """A vector of a million references to one table would take a reader minutes."""
    root = _u32(plain, 0)
    vtable = root - struct.unpack_from("<i", plain, root)[0]
    codes = root + struct.unpack_from("<H", plain, vtable + 4 + 2 * 1)[0]  # Model.operator_codes
    first = codes + _u32(plain, codes) + 4
    table = first + _u32(plain, first)
    vector = 4 * ((len(plain) + 3) // 4)
    count = 300_000
    # references point forward only, so the table is put behind the vector
    copied_vtable = plain[table - struct.unpack_from("<i", plain, table)[0] :][:16]
    behind = vector + 4 + 4 * count
    content = bytearray(plain.ljust(vector, b"\0"))
    struct.pack_into("<I", content, codes, vector - codes)
    content += struct.pack("<I", count)
    content += b"".join(struct.pack("<I", behind + 16 - (vector + 4 + 4 * index)) for index in range(count))
    content += copied_vtable + struct.pack("<i", 16) + plain[table + 4 : table + 32]
    with pytest.raises(ArtifactError, match="it has more than 200,000 tables"):
        read_graph(bytes(content), "x.tflite")


def test_edited_files_never_end_this_process(tmp_path: Path) -> None:
    """Files whose trees were changed: each is opened in a process that it may crash."""
    files = int8_files()
    path = tmp_path / "x.tflite"
    for number in range(15):
        draw = random.Random(number)
        path.write_bytes(edited_tflite(draw.choice(files), draw))
        with contextlib.suppress(EdgecnnError):
            artifacts.describe(path)


# .onnx: files, loops and memory


def _saved(path: Path, nodes: list[Any], stored: list[Any], output: int = TensorProto.FLOAT) -> Path:
    ends = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 4)),
        helper.make_tensor_value_info("y", output, None),
    ]
    graph = helper.make_graph(nodes, "hostile", ends[:1], ends[1:], stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    path.write_bytes(model.SerializeToString())
    return path


def _stored(name: str, kind: int, *values: Any) -> Any:
    return helper.make_tensor(name, kind, [len(values)], values)


def _endless(path: Path) -> Path:
    body = helper.make_graph(
        [helper.make_node("Identity", ["going"], ["goes"]), helper.make_node("Identity", ["a"], ["b"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, ()),
            helper.make_tensor_value_info("going", TensorProto.BOOL, ()),
            helper.make_tensor_value_info("a", TensorProto.FLOAT, (1, 4)),
        ],
        [
            helper.make_tensor_value_info("goes", TensorProto.BOOL, ()),
            helper.make_tensor_value_info("b", TensorProto.FLOAT, (1, 4)),
        ],
    )
    yes = helper.make_tensor("yes", TensorProto.BOOL, [], [True])
    return _saved(path, [helper.make_node("Loop", ["", "yes", "x"], ["y"], body=body)], [yes])


def test_a_loop_without_an_end_is_told_with_its_limit(tmp_path: Path) -> None:
    with pytest.raises(SessionError, match=r"no answer within 15 s while running endless\.onnx.* an endless loop"):
        inspect(_endless(tmp_path / "endless.onnx"))


@pytest.mark.parametrize("kind", ["ConstantOfShape", "Expand", "Tile"])
def test_a_memory_bomb_is_an_error(kind: str, tmp_path: Path) -> None:
    shape = _stored("shape", TensorProto.INT64, 2**16, 2**18)
    nodes = {
        "ConstantOfShape": [helper.make_node("ConstantOfShape", ["shape"], ["z"])],
        "Expand": [helper.make_node("ReduceSum", ["x"], ["s"]), helper.make_node("Expand", ["s", "shape"], ["z"])],
        "Tile": [helper.make_node("Tile", ["x", "shape"], ["z"])],
    }[kind]
    path = _saved(tmp_path / "bomb.onnx", [*nodes, helper.make_node("ReduceSum", ["z"], ["y"])], [shape])
    with pytest.raises(
        SessionError, match=r"running bomb\.onnx needs more than \d\.\d GB of memory|Tile output tensor"
    ):
        inspect(path)


@pytest.mark.parametrize("place", ["initializer", "constant", "branch", "function", "training"])
@pytest.mark.parametrize("location", ["/etc/passwd", "../secret.bin", "secret.bin", "*/_ORT_MEM_ADDR_/*"])
def test_a_model_that_names_other_files_is_not_opened(place: str, location: str, tmp_path: Path) -> None:
    (tmp_path / "secret.bin").write_bytes(np.arange(4, dtype=np.float32).tobytes())
    tensor = _stored("w", TensorProto.FLOAT, 1.0, 2.0, 3.0, 4.0)
    tensor.ClearField("float_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    nodes, stored = [helper.make_node("Add", ["x", "w"], ["y"])], [tensor]
    if place == "constant":
        nodes, stored = [helper.make_node("Constant", [], ["w"], value=tensor), *nodes], []
    if place == "branch":
        branch = helper.make_graph([helper.make_node("Add", ["x", "w"], ["z"])], "b", [], [], [tensor])
        nodes, stored = [helper.make_node("If", ["x"], ["y"], then_branch=branch, else_branch=branch)], []
    path = _saved(tmp_path / "x.onnx", nodes if place in ("initializer", "constant", "branch") else [], [])
    model = onnx.load_model_from_string(path.read_bytes())
    model.graph.initializer.extend(stored if place in ("initializer", "branch") else [])
    if place == "function":
        node = helper.make_node("Constant", [], ["w"], value=tensor)
        model.functions.append(helper.make_function("own", "F", [], ["w"], [node], [helper.make_opsetid("", 18)]))
    if place == "training":
        model.training_info.add().algorithm.initializer.append(tensor)
    path.write_bytes(model.SerializeToString())
    for read in READS:
        with pytest.raises(ArtifactError, match=r"x\.onnx has external data .* not read for safety"):
            read(path)


def test_a_sidecar_vouches_for_no_model_that_names_other_files(tmp_path: Path) -> None:
    path = _saved(tmp_path / "x.onnx", [helper.make_node("Relu", ["x"], ["y"])], [])
    known = artifacts.describe_here(path)
    model = onnx.load_model_from_string(path.read_bytes())
    tensor = model.graph.initializer.add(name="w", data_type=TensorProto.FLOAT, dims=[1], data_location=1)
    tensor.external_data.add(key="location", value="/etc/passwd")
    path.write_bytes(model.SerializeToString())
    artifacts.sidecar(path).write_bytes(to_json(known.replace(sha256=sha256_file(path))))
    with pytest.raises(ArtifactError, match="has external data"):
        artifacts.load(path)


def test_graphs_within_graphs_have_an_end(tmp_path: Path) -> None:
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [], [])
    for _ in range(20):
        graph = helper.make_graph([helper.make_node("If", ["x"], ["y"], then_branch=graph)], "g", [], [])
    content = helper.make_model(graph).SerializeToString()
    with pytest.raises(ArtifactError, match="nests graphs more than 16 levels deep"):
        onnx_verifier.verify(content, "x.onnx")


def test_protobufs_that_break_off_are_refused() -> None:
    content = helper.make_model(
        helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [], [])
    ).SerializeToString()
    onnx_verifier.verify(content, "x.onnx")
    for damaged in (
        content[:-1],
        content + b"\x80",
        content + b"\x0b",
        b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
    ):
        with pytest.raises(ArtifactError, match=r"x\.onnx is damaged .*: its protobuf is invalid at byte"):
            onnx_verifier.verify(damaged, "x.onnx")
    with pytest.raises(ArtifactError, match=r"x\.onnx is empty"):
        onnx_verifier.verify(b"", "x.onnx")


def test_an_if_on_a_stored_condition_is_inspected(tmp_path: Path) -> None:
    branches = [
        helper.make_graph(
            [helper.make_node(kind, ["x"], ["z"])],
            kind,
            [],
            [helper.make_tensor_value_info("z", TensorProto.FLOAT, (1, 4))],
        )
        for kind in ("Relu", "Neg")
    ]
    node = helper.make_node("If", ["yes"], ["y"], then_branch=branches[0], else_branch=branches[1])
    path = _saved(tmp_path / "x.onnx", [node], [helper.make_tensor("yes", TensorProto.BOOL, [], [True])])
    assert [node.kernel for node in inspect(path).nodes] == ["Relu"]


def test_a_single_number_as_input_is_refused(tmp_path: Path) -> None:
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ()) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", ends[:1], ends[1:])
    path = tmp_path / "x.onnx"
    path.write_bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9).SerializeToString()
    )
    with pytest.raises(SessionError, match=r"x\.onnx has an input without a shape"):
        open_session(path)


# .keras


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    save_model(source_of(BODIES[0]).model, tmp_path / "x.keras")
    return tmp_path / "x.keras"


def _repacked(path: Path, change: Callable[[dict[str, bytes]], None], compression: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    change(members)
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


@pytest.mark.parametrize("name", ["../../evil", "/evil", "assets/x", "a\x1b[31m", "x" * 5000])
def test_an_archive_with_other_members_is_refused(name: str, saved: Path, tmp_path: Path) -> None:
    _repacked(saved, lambda members: members.update({name: b"x"}))
    before = sorted(tmp_path.rglob("*"))
    for read in (load_model, architecture_of):
        with pytest.raises(ModelError, match=r"x\.keras contains '.*', which no image model needs") as caught:
            read(saved)
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 1000
    assert sorted(tmp_path.rglob("*")) == before


def test_an_archive_that_unpacks_to_much_more_is_refused(saved: Path) -> None:
    _repacked(saved, lambda members: members.update({"metadata.json": bytes(200_000_000)}), zipfile.ZIP_DEFLATED)
    for read in (load_model, architecture_of):
        with pytest.raises(ModelError, match=r"unpacks to 200,\d{3},\d{3}, which no weights do"):
            read(saved)


def test_weights_of_which_next_to_nothing_is_stored_are_refused(saved: Path) -> None:
    """HDF5 makes up what is not stored: 40 MB of memory for a file of some KB here, as many GB for another number."""

    def change(members: dict[str, bytes]) -> None:
        content = io.BytesIO(members["model.weights.h5"])
        with h5py.File(content, "r+") as weights:
            weights.create_dataset("more", shape=(10_000_000,), dtype="f4")
        members["model.weights.h5"] = content.getvalue()

    _repacked(saved, change)
    with pytest.raises(ModelError, match=r"its weights would take 40,\d{3},\d{3} bytes, the file has \d\d,\d{3}"):
        load_model(saved)


def test_what_could_run_code_is_refused_without_advice_to_allow_it(saved: Path, tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    model.export(str(tmp_path / "graph"), verbose=False)
    save_model(model, saved)
    layer = {
        "module": "keras.layers", "class_name": "TFSMLayer", "registered_name": None,
        "config": {"name": "s", "filepath": str(tmp_path / "graph")},
    }  # fmt: skip

    def change(members: dict[str, bytes]) -> None:
        config = json.loads(members["config.json"])
        config["config"]["layers"].insert(1, layer)
        members["config.json"] = json.dumps(config).encode()

    _repacked(saved, change)
    with pytest.raises(ModelError, match="contains a layer that brings code or reads files") as caught:
        load_model(saved)
    assert "safe_mode" not in str(caught.value)


# Generated C: trusted, but in a process of its own


def test_generated_c_that_crashes_ends_its_own_process_only(workspace: Any, tmp_path: Path) -> None:
    code = workspace.path("c99", "int8")
    for file in (code, code.with_suffix(".h")):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    path = tmp_path / code.name
    with path.open("a") as text:
        text.write("\n__attribute__((constructor)) static void at_once(void) { __builtin_trap(); }\n")
    with pytest.raises(SessionError, match=r"killed by SIG(ILL|TRAP) while opening digits-int8\.c"):
        artifacts.describe(path)


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        (b'"dtype":"int8"', b'"dtype":"int8int8"', r"the comment in digits-int8\.c"),
        (b'"shape":[1,28', b'"shape":[1,-28', r"the comment in digits-int8\.c"),
        (b'"arena_bytes":', b'"arena_bytes":-', r"the comment in digits-int8\.c"),
        (b'"name":"digits', b'"name":"; digits', "has no function ; digits"),
    ],
)
def test_generated_c_that_says_something_wrong_of_itself_is_refused(
    before: bytes, after: bytes, message: str, workspace: Any, tmp_path: Path
) -> None:
    code = workspace.path("c99", "int8")
    path = tmp_path / code.name
    path.with_suffix(".h").write_bytes(code.with_suffix(".h").read_bytes())
    assert before in code.read_bytes()
    path.write_bytes(code.read_bytes().replace(before, after, 1))
    with pytest.raises((RecordError, SessionError), match=message):
        artifacts.describe(path)
