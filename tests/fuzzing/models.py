"""Readers of model files: .tflite, .onnx, .keras, SavedModels and generated C."""

import io
import json
import random
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from edgecnn.errors import EdgecnnError
from fuzzing.damage import INTEGERS, REALS, TEXTS, damage_bytes, damaged_bytes, damaged_tree, json_of
from fuzzing.harness import Reader

# What is damaged


def _plain(x: Any) -> Any:
    from keras import layers as L  # noqa: N812

    return L.MaxPooling2D()(L.Conv2D(4, 3, strides=2, padding="same", activation="relu")(x))


def _branched(x: Any) -> Any:
    from keras import layers as L  # noqa: N812

    x = L.DepthwiseConv2D(3, padding="same", depth_multiplier=2, activation="relu6")(x)
    gate = L.Conv2D(4, 1, activation="sigmoid")(L.GlobalAveragePooling2D(keepdims=True)(x))
    y = L.Multiply()([L.Conv2D(4, 3, padding="same")(x), gate])
    y = L.Concatenate()([y, y - L.LeakyReLU(negative_slope=0.2)(y), L.Activation("tanh")(y)])
    return L.UpSampling2D(2)(L.ReLU()(y + L.Conv2D(12, 1)(x)))


def _rearranged(x: Any) -> Any:
    from keras import layers as L  # noqa: N812

    x = L.Permute((2, 1, 3))(L.ZeroPadding2D(1)(x))
    x = L.AveragePooling2D(2)(L.UpSampling2D(2, interpolation="bilinear")(x))
    return L.Reshape((5, 8, 5))(L.Activation("hard_swish")(L.Conv2D(2, 1)(x)))


def _gated(x: Any) -> Any:
    """With operators that TFLM has too."""
    from keras import layers as L  # noqa: N812

    x = L.DepthwiseConv2D(3, padding="same", activation="relu6")(x)
    return L.Multiply()([x, L.Conv2D(2, 1, activation="sigmoid")(L.GlobalAveragePooling2D(keepdims=True)(x))])


BODIES: tuple[Callable[[Any], Any], ...] = (_plain, _branched, _rearranged)


def source_of(body: Callable[[Any], Any], batch: Any = 1) -> Any:
    """A small classifier of 8 x 8 images with two channels, untrained."""
    import keras

    from edgecnn.formats.source import Source

    keras.utils.set_random_seed(1)
    images = keras.Input((8, 8, 2))
    features = keras.layers.Flatten()(body(images))
    model = keras.Model(images, keras.layers.Dense(3, activation="softmax")(features), name="model")
    return Source(model, None, np.random.default_rng(0).random((8, 8, 8, 2), np.float32), "int8", batch)


def int8_files() -> tuple[bytes, ...]:
    """Int8 .tflite files that together have most of the operators that can be written; the last has a free batch."""
    from edgecnn.formats import tflite
    from edgecnn.quantization.schemes import SCHEMES

    sources = (*map(source_of, BODIES), source_of(_plain, None))
    return tuple(tflite.convert(one, SCHEMES["int8"]) for one in sources)


def _make_int8(folder: Path) -> None:
    for number, content in enumerate(int8_files()):
        (folder / f"{number}.tflite").write_bytes(content)


def _make_tflite(folder: Path) -> None:
    from edgecnn.formats import tflite
    from edgecnn.quantization.schemes import SCHEMES

    _make_int8(folder)
    for scheme in ("float32", "float16", "dynamic-int8", "int16x8"):
        (folder / f"{scheme}.tflite").write_bytes(tflite.convert(source_of(_plain), SCHEMES[scheme]))


def _make_kits(folder: Path) -> None:
    """A data set and files made of it, each in a folder with it."""
    from edgecnn.data import load
    from edgecnn.formats import FORMATS, export_file, provenance_of
    from edgecnn.quantization.schemes import SCHEMES

    drawn = np.random.default_rng(0)
    data = folder.parent / "data.npz"
    images, labels = drawn.random((12, 8, 8, 2), np.float32), np.arange(12) % 3
    np.savez(data, x_train=images, y_train=labels, x_test=images, y_test=labels)
    about = provenance_of("model", "0" * 64, load(str(data)))
    for number, body in enumerate((_plain, _gated)):
        place = folder / str(number)
        export_file(source_of(body), format=FORMATS["tflite"], scheme=SCHEMES["int8"], provenance=about, folder=place)
        (place / "model-int8.tflite.json").unlink()
        (place / "data.npz").write_bytes(data.read_bytes())
    data.unlink()


# .tflite


def _parts(part: Any, found: dict[str, list[tuple[Any, str, int | None]]]) -> None:
    """Every attribute and list entry below ``part``, by the kind of place it is; contents of buffers are left out."""
    for name, value in vars(part).items():
        if isinstance(value, np.ndarray):
            value = value.tolist()
            setattr(part, name, value)
        kind = f"{type(part).__name__}.{name}"
        found.setdefault(kind, []).append((part, name, None))
        if name == "data":
            continue
        for index, entry in enumerate(value if isinstance(value, list) else [value]):
            if isinstance(value, list):
                found.setdefault(f"{kind}[]", []).append((part, name, index))
            if hasattr(entry, "__dict__"):
                _parts(entry, found)


def _changed(value: Any, draw: random.Random) -> Any:
    """Something else of the same type."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return draw.choice((*(number for number in INTEGERS if -(2**63) <= number < 2**63), value + 1, value - 1))
    if isinstance(value, float):
        return draw.choice(REALS)
    if isinstance(value, (str, bytes)):
        return draw.choice(TEXTS)
    if isinstance(value, list) and value:
        return draw.choice((value[:-1], value[1:], value + value[:1], value[::-1], [], None, value * 2))
    return None


def edited_tflite(content: bytes, draw: random.Random) -> bytes:
    """One place of the model's tree changed; the file as it was where that cannot be packed."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    try:
        model = schema.ModelT.InitFromPackedBuf(content)
        kinds: dict[str, list[tuple[Any, str, int | None]]] = {}
        _parts(model, kinds)
        part, name, index = draw.choice(kinds[draw.choice(sorted(kinds))])
        if index is None:
            setattr(part, name, _changed(getattr(part, name), draw))
        else:
            getattr(part, name)[index] = _changed(getattr(part, name)[index], draw)
        builder = flatbuffers.Builder(len(content))
        builder.Finish(model.Pack(builder), b"TFL3")
        return bytes(builder.Output())
    except Exception:  # noqa: BLE001 - damaged before, or too large a number: whatever the packer says
        return content


def _damage_tflite(path: Path, draw: random.Random) -> None:
    path = path if path.is_file() else path / "model-int8.tflite"
    content = path.read_bytes()
    for _ in range(draw.randrange(1, 4)):
        if content:
            content = edited_tflite(content, draw) if draw.randrange(8) else damaged_bytes(content, draw)
    path.write_bytes(content)


def _write_anew(path: Path) -> None:
    """The two writers; what they make is checked."""
    import onnx

    from edgecnn.formats.c99 import to_c
    from edgecnn.formats.onnx.qdq import to_onnx
    from edgecnn.tflite.graph import read_graph

    content = path.read_bytes()
    graph = read_graph(content, path.name)
    draw = random.Random(zlib.crc32(content))
    in_float = [position for position in range(60) if draw.randrange(4) == 0]
    errors = []
    try:
        model = to_onnx(graph, "x", in_float, bool(draw.randrange(2)))
    except EdgecnnError as error:
        errors.append(error)
    else:
        onnx.checker.check_model(model, full_check=True)
    to_c(graph, "x")
    if errors:
        raise errors[0]


def _describe(path: Path) -> None:
    from edgecnn import artifacts

    artifacts.load(path)


def _inspect(path: Path) -> None:
    from edgecnn.inspection import inspect
    from edgecnn.records import to_json

    to_json(inspect(path))


def _check(path: Path) -> None:
    from edgecnn.check import check

    for target in ("tflm", "c99", "edgetpu", "cortex-m4"):
        check(path, target)


def _embed(path: Path) -> None:
    from edgecnn.embed import embed

    model = path / "model-int8.tflite"
    target = ("c99", "tflm", "linux")[zlib.crc32(model.read_bytes()) % 3]
    embed(model, target, path / "out", str(path / "data.npz") if target == "linux" else None)


# .onnx


def _make_onnx(folder: Path) -> None:
    import onnx
    from onnx import TensorProto, helper

    from edgecnn.formats.onnx.qdq import to_onnx
    from edgecnn.tflite.graph import read_graph

    for number, content in enumerate(int8_files()[:2]):
        model = to_onnx(read_graph(content, "x"), "x", [], bool(number))
        (folder / f"{number}.onnx").write_bytes(model.SerializeToString())

    def number(name: str, kind: int, *values: Any) -> Any:
        return helper.make_tensor(name, kind, [len(values)] if len(values) != 1 else [], values)

    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, (1, 4)) for name in ("x", "y")]
    body = helper.make_graph(
        [helper.make_node("Add", ["a", "a"], ["b"]), helper.make_node("Identity", ["going"], ["goes"])],
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
    branches = [
        helper.make_graph(
            [helper.make_node(kind, ["z"], ["w"])],
            kind,
            [],
            [helper.make_tensor_value_info("w", TensorProto.FLOAT, (1, 4))],
        )
        for kind in ("Relu", "Neg")
    ]
    nodes = [
        helper.make_node("Loop", ["times", "yes", "x"], ["z"], body=body),
        helper.make_node("If", ["yes"], ["u"], then_branch=branches[0], else_branch=branches[1]),
        helper.make_node("ConstantOfShape", ["shape"], ["v"], value=number("", TensorProto.FLOAT, 1.0)),
        helper.make_node("Expand", ["one", "shape"], ["t"]),
        helper.make_node("Sum", ["u", "v", "t"], ["y"]),
    ]
    nodes[2].attribute[0].t.dims[:] = [1]
    stored = [
        number("times", TensorProto.INT64, 3),
        number("yes", TensorProto.BOOL, True),
        number("shape", TensorProto.INT64, 1, 4),
        number("one", TensorProto.FLOAT, 1.0),
    ]
    graph = helper.make_graph(nodes, "loop", ends[:1], ends[1:], stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    (folder / "loop.onnx").write_bytes(model.SerializeToString())


_OPERATORS = {
    "op_type": (
        "Loop", "Scan", "ConstantOfShape", "Expand", "Tile", "Range", "Resize", "Pad", "Gather", "NonZero", "Abs"
    ),
    "op": (
        "WriteFile", "ReadFile", "PyFunc", "DebugIdentity", "ImmutableConst", "Abort", "NoOp", "Const", "Identity",
        "Placeholder", "Fill", "BroadcastTo", "Tile", "Softmax", "VarHandleOp", "PartitionedCall",
    ),
}  # fmt: skip
_PLACES = ("/etc/passwd", "../../secret", "x.onnx", "weights.bin", "*/_ORT_MEM_ADDR_/*", "")


def _spots(message: Any, path: str, found: dict[str, list[tuple[Any, Any]]]) -> None:
    """Every field that is set below ``message``, by where its kind stands."""
    for field, value in message.ListFields():
        below = f"{path}.{field.name}"
        found.setdefault(below, []).append((message, field))
        if field.message_type is not None:
            several = value.values() if hasattr(value, "values") else value  # a map, or a list
            for entry in several if field.is_repeated else [value]:
                if hasattr(entry, "ListFields"):
                    _spots(entry, below, found)


def _other(field: Any, value: Any, draw: random.Random) -> Any:
    if field.name in ("op_type", "op"):
        return draw.choice(_OPERATORS[field.name])
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return draw.choice((*INTEGERS[:14], value + 1, 2 * value, draw.randrange(24)))
    if isinstance(value, float):
        return draw.choice(REALS)
    if isinstance(value, bytes):
        return damaged_bytes(value, draw) if value else b"x"
    return draw.choice((*TEXTS, value + "x", "x", "y", "z", "a"))


def _edited_onnx(content: bytes, draw: random.Random) -> bytes:
    import onnx

    return _edited(onnx.ModelProto, content, draw)


def _edited(kind_of_message: Any, content: bytes, draw: random.Random) -> bytes:
    """A serialised message of protobuf with one field changed."""
    try:
        model = kind_of_message.FromString(content)
        found: dict[str, list[tuple[Any, Any]]] = {}
        _spots(model, "", found)
        message, field = draw.choice(found[draw.choice(sorted(found))])
        kind = draw.randrange(8)
        if hasattr(message, "data_location") and kind == 0:
            message.data_location = 1  # EXTERNAL
            message.external_data.add(key="location", value=draw.choice(_PLACES))
        elif kind == 1:
            message.ClearField(field.name)
        elif hasattr(getattr(message, field.name), "values"):
            del getattr(message, field.name)[draw.choice(sorted(getattr(message, field.name)))]
        elif field.is_repeated:
            values = getattr(message, field.name)
            index = draw.randrange(len(values))
            if kind == 2:
                del values[index]
            elif field.message_type is not None:
                values.append(values[index]) if kind == 3 else values[index].CopyFrom(draw.choice(values))
            else:
                values[index] = _other(field, values[index], draw)
        elif field.message_type is None:
            setattr(message, field.name, _other(field, getattr(message, field.name), draw))
        return bytes(model.SerializeToString())
    except Exception:  # noqa: BLE001 - damaged before, or a number out of range: whatever protobuf says
        return content


def _damage_onnx(path: Path, draw: random.Random) -> None:
    content = path.read_bytes()
    for _ in range(draw.randrange(1, 4)):
        if content:
            content = _edited_onnx(content, draw) if draw.randrange(6) else damaged_bytes(content, draw)
    path.write_bytes(content)


# .keras


def _make_keras(folder: Path) -> None:
    from edgecnn.models import save_model

    for number, body in enumerate(BODIES):
        save_model(source_of(body).model, folder / f"{number}.keras")


_CLASSES = (
    ("builtins", "eval"), ("builtins", "open"), ("os", "system"), ("subprocess", "Popen"), ("keras.layers", "Lambda"),
    ("keras.layers", "TFSMLayer"), ("keras.layers", "TorchModuleWrapper"), ("keras.layers", "StringLookup"),
    ("keras.layers", "JaxLayer"), ("keras.utils", "get_file"), ("keras", "Sequential"), ("keras.layers", "Dense"),
    ("keras.layers", "RandomFlip"), ("mine", "Own"),
)  # fmt: skip


def _objects(tree: Any) -> list[dict[str, Any]]:
    below = [one for part in (tree.values() if isinstance(tree, dict) else tree) for one in _objects(part)] if (
        isinstance(tree, (dict, list))
    ) else []  # fmt: skip
    return [*below, tree] if isinstance(tree, dict) and "class_name" in tree else below


def _damage_keras(path: Path, draw: random.Random) -> None:
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    kind = draw.randrange(8)
    if kind == 0:
        damage_bytes(path, draw)
        return
    if kind in (1, 2):
        members["model.weights.h5"] = damaged_bytes(members["model.weights.h5"], draw)
    elif kind == 3:
        name = draw.choice(sorted(members))
        members[draw.choice((*TEXTS[:12], "../../evil", "/evil", "assets/x"))] = members[name]
        if draw.randrange(2):
            del members[name]
    else:
        config = json.loads(members["config.json"])
        if kind == 4:
            one = draw.choice(_objects(config))
            one["module"], one["class_name"] = draw.choice(_CLASSES)
            one["registered_name"] = draw.choice((None, one["class_name"]))
        else:
            config = damaged_tree(config, draw)
        members["config.json"] = json_of(config)
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", draw.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    path.write_bytes(made.getvalue())


def _load_keras(path: Path) -> None:
    from edgecnn.models import architecture_of, load_model

    load_model(path)
    architecture_of(path)


# SavedModels


def _make_saved_models(folder: Path) -> None:
    import tensorflow as tf

    v1 = tf.compat.v1
    draw = np.random.default_rng(0)
    kernel, weights = draw.random((3, 3, 2, 4), np.float32), draw.random((4, 3), np.float32)

    def gives(images: Any, kernel: Any, weights: Any) -> Any:
        features = tf.nn.relu(tf.nn.conv2d(images, kernel, 2, "SAME"))
        return tf.nn.softmax(tf.reduce_mean(features, (1, 2)) @ weights)

    module = tf.Module()
    module.kernel, module.weights = tf.Variable(kernel), tf.Variable(weights)
    function = tf.function(lambda images: gives(images, module.kernel, module.weights), autograph=False)
    tf.saved_model.save(
        module, str(folder / "module"), function.get_concrete_function(tf.TensorSpec((None, 8, 8, 2), name="images"))
    )
    with tf.Graph().as_default(), v1.Session() as session:
        images = v1.placeholder(tf.float32, (None, 8, 8, 2))
        stored = [
            v1.get_variable(name, initializer=value) for name, value in (("kernel", kernel), ("weights", weights))
        ]
        session.run(v1.global_variables_initializer())
        v1.saved_model.simple_save(session, str(folder / "tf1"), {"images": images}, {"y": gives(images, *stored)})


def _damage_saved_model(path: Path, draw: random.Random) -> None:
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    graph, files = path / "saved_model.pb", sorted(file for file in path.rglob("*") if file.is_file())
    kind = draw.randrange(10)
    if kind == 0:
        draw.choice(files).unlink()
    elif kind == 1:
        file = draw.choice(files)
        file.unlink()
        file.symlink_to(draw.choice(("/etc/passwd", "../../secret", file.name)))
    elif kind in (2, 3):
        damage_bytes(draw.choice(files), draw)
    else:
        for _ in range(draw.randrange(1, 4)):
            graph.write_bytes(_edited(SavedModel, graph.read_bytes(), draw))


def _read_saved_model(path: Path) -> None:
    from edgecnn import saved_model

    saved_model.read(path)


# Generated C


def _make_c(folder: Path) -> None:
    from edgecnn.formats import c99
    from edgecnn.records import Preprocessing, Provenance

    about = Provenance(
        model="model", model_sha256="0" * 64, scheme="int8", labels=("a", "b", "c"),
        preprocessing=Preprocessing(scale=1.0, offset=0.0, input_range=(0.0, 1.0)),
        data="x", data_sha256="0" * 64, calibration_images=None,
        versions={},
    )  # fmt: skip
    for number, content in enumerate(int8_files()[:3]):
        place = folder / str(number)
        place.mkdir()
        (place / "model-int8.c").write_bytes(c99.with_provenance(content, about))
        (place / "model-int8.h").write_bytes(c99.header(content, about))


def _damage_c(path: Path, draw: random.Random) -> None:
    """Damage what the code says of itself: the code is trusted."""
    before, start, rest = (path / "model-int8.c").read_bytes().partition(b"   edgecnn: ")
    said, end, code = rest.partition(b"\n")
    said = json_of(damaged_tree(json.loads(said), draw)) if draw.randrange(4) else damaged_bytes(said, draw)
    (path / "model-int8.c").write_bytes(before + start + said.replace(b"*/", b"") + end + code)


def _run_c(path: Path) -> None:
    from edgecnn import artifacts
    from edgecnn.inference import outputs_of, task_of

    artifacts.load(path / "model-int8.c")
    outputs_of(task_of(path / "model-int8.c"), np.zeros((2, 8, 8, 2), np.float32))


READERS: tuple[Reader, ...] = (
    Reader("tflite-writers", _make_int8, _damage_tflite, _write_anew),
    Reader("tflite-describe", _make_tflite, _damage_tflite, _describe),
    Reader("tflite-inspect", _make_tflite, _damage_tflite, _inspect),
    Reader("tflite-check", _make_int8, _damage_tflite, _check),
    Reader("tflite-embed", _make_kits, _damage_tflite, _embed),
    Reader("onnx-describe", _make_onnx, _damage_onnx, _describe),
    Reader("onnx-inspect", _make_onnx, _damage_onnx, _inspect),
    Reader("keras", _make_keras, _damage_keras, _load_keras),
    Reader("saved-model", _make_saved_models, _damage_saved_model, _read_saved_model, short=60),
    Reader("generated-c", _make_c, _damage_c, _run_c),
)
