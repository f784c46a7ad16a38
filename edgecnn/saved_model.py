"""SavedModel folders, read as data: one signature becomes a frozen graph that only computes with numbers.

A SavedModel is a program. Nothing of it is run before its operators are checked, and only two parts of it are taken:
what the outputs of the signature depend on, and what restores the variables. The rest is not even loaded.
"""

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from numpy.typing import NDArray

from edgecnn.errors import ModelError, one_line
from edgecnn.files import read_bytes
from edgecnn.optional import require
from edgecnn.quiet import quiet_stderr
from edgecnn.samples import unlike
from edgecnn.worker import confine, isolated

DEFAULT = "serving_default"
_GRAPH = "saved_model.pb"
_VARIABLES = "variables/variables"
# How many times the size of the folder its weights may take: a constant may be stored as one value.
_MOST_UNPACKED = 20
_TRIED = 2
_ANY_BATCH = "save it with None as the first size of all inputs"

# Operators of TensorFlow whose only effect are their outputs, and which compute them from their inputs alone. That an
# operator is registered as stateless does not say this: DebugIdentity writes files, ImmutableConst reads them. Loops
# and branches are left out: edgecnn reads no .tflite file with them.
_COMPUTES = """
    Assert Const EnsureShape Identity IdentityN NoOp Placeholder PlaceholderWithDefault PreventGradient StopGradient

    Abs AccumulateNV2 Acos Acosh Add AddN AddV2 Angle ApproximateEqual Asin Asinh Atan Atan2 Atanh BitwiseAnd BitwiseOr
    BitwiseXor Cast Ceil CheckNumerics ClipByValue Complex ComplexAbs Conj Cos Cosh Digamma Div DivNoNan Equal Erf Erfc
    Erfinv Exp Expm1 Floor FloorDiv FloorMod Greater GreaterEqual Imag Inv Invert IsFinite IsInf IsNan LeftShift Less
    LessEqual Lgamma Log Log1p LogicalAnd LogicalNot LogicalOr Maximum Minimum Mod Mul MulNoNan Neg NotEqual Pow Real
    RealDiv Reciprocal RightShift Rint Round Rsqrt Select SelectV2 Sign Sin Sinh Sqrt Square SquaredDifference Sub Tan
    TruncateDiv TruncateMod Xdivy Xlog1py Xlogy

    AvgPool AvgPool3D BatchMatMul BatchMatMulV2 BatchMatMulV3 BiasAdd BiasAddV1 Conv2D Conv2DBackpropInput Conv3D
    Conv3DBackpropInputV2 DepthwiseConv2dNative Dilation2D Einsum Elu FakeQuantWithMinMaxArgs FakeQuantWithMinMaxVars
    FakeQuantWithMinMaxVarsPerChannel FusedBatchNorm FusedBatchNormV2 FusedBatchNormV3 L2Loss LRN LeakyRelu LogSoftmax
    MatMul MaxPool MaxPool3D MaxPoolV2 MaxPoolWithArgmax QuantizeAndDequantizeV2 QuantizeAndDequantizeV3
    QuantizeAndDequantizeV4 Relu Relu6 Selu Sigmoid Softmax Softplus Softsign Tanh

    All Any ArgMax ArgMin BatchToSpace BatchToSpaceND Bitcast BroadcastArgs BroadcastTo Concat ConcatOffset ConcatV2
    ConjugateTranspose Cumprod Cumsum CumulativeLogsumexp DepthToSpace Diag DiagPart DynamicPartition DynamicStitch
    EuclideanNorm ExpandDims ExtractImagePatches Fill Gather GatherNd GatherV2 InvertPermutation LinSpace MatrixBandPart
    MatrixDiag MatrixDiagPartV2 MatrixDiagPartV3 MatrixDiagV2 MatrixDiagV3 MatrixSetDiag MatrixSetDiagV2
    MatrixSetDiagV3 Max Mean Min MirrorPad OneHot OnesLike Pack Pad PadV2 ParallelDynamicStitch Prod Range Rank Reshape
    ReverseSequence ReverseV2 Roll ScatterNd SegmentMax SegmentMean SegmentMin SegmentProd SegmentSum Shape ShapeN Size
    Slice SpaceToBatch SpaceToBatchND SpaceToDepth SparseToDense Split SplitV Squeeze StridedSlice Sum TensorScatterAdd
    TensorScatterMax TensorScatterMin TensorScatterSub TensorScatterUpdate TensorStridedSliceUpdate Tile TopKV2
    Transpose Unique UniqueV2 Unpack UnravelIndex UnsortedSegmentMax UnsortedSegmentMin UnsortedSegmentProd
    UnsortedSegmentSum Where ZerosLike

    AdjustContrastv2 AdjustHue AdjustSaturation AudioSpectrogram CombinedNonMaxSuppression CropAndResize FFT FFT2D
    HSVToRGB IFFT IFFT2D IRFFT ImageProjectiveTransformV3 Mfcc NonMaxSuppression NonMaxSuppressionV2
    NonMaxSuppressionV3 NonMaxSuppressionV4 NonMaxSuppressionV5 RFFT RFFT2D RGBToHSV ResizeArea ResizeBicubic
    ResizeBilinear ResizeNearestNeighbor ScaleAndTranslate
"""
_PURE = frozenset(_COMPUTES.split())
_VARIABLE = frozenset({"VarHandleOp", "Variable", "VariableV2"})
_CALLS = frozenset({"PartitionedCall", "StatefulPartitionedCall"})
_READS = _PURE | _VARIABLE | _CALLS | {"ReadVariableOp", "ResourceGather", "ResourceGatherNd"}
_RESTORES = _VARIABLE | _CALLS | {"Assign", "AssignVariableOp", "Const", "Identity", "NoOp", "RestoreV2"}
# What keeps a function from becoming part of its caller, and what is said of neighbours and shapes.
_NO_MATTER = ("_XlaMustCompile", "_noinline", "api_implements", "_class", "_output_shapes")


class End(NamedTuple):
    """An input or output: its name in the signature, the name of its tensor in the graph, its type.

    ``shape`` is that of a sample, with ``None`` for sizes that are not known; outputs have none. ``activation`` is what
    the graph leaves to do for an output: "softmax", "sigmoid" or "linear".
    """

    name: str
    tensor: str
    dtype: str
    shape: tuple[int | None, ...] = ()
    activation: str = "linear"


class Program(NamedTuple):
    """A signature of a SavedModel: a serialised GraphDef of pure operators, its ends, and its weights.

    ``weights`` are by the names of the placeholders that the graph has for them, in order.
    """

    graph: bytes
    inputs: tuple[End, ...]
    outputs: tuple[End, ...]
    weights: dict[str, NDArray[Any]]


def read(path: Path) -> Program:
    """The signature ``serving_default``, or the only one, of the SavedModel in the folder ``path``.

    The folder may be untrusted: its operators are checked before any is run, in a process of its own. Its variables are
    restored there, and the outputs are computed once for zeros if all sizes are known.

    Raises:
        ModelError: the folder is no SavedModel, damaged, or leads out of itself; the signature is not clear; the
            signature takes or gives something else than numbers; operators are not known to be pure (named); or the
            model works for one batch only.
        SessionError: TensorFlow crashes, or takes too long or too much memory.
        MissingExtraError: TensorFlow is not installed.
    """
    size = _checked_size(path)
    require("tensorflow")  # that it is not installed is no property of the file
    return isolated(_read, path, size, doing=f"reading the SavedModel {path}")


def _checked_size(path: Path) -> int:
    """The size of all files in the folder, in bytes."""
    if not (path / _GRAPH).is_file():
        raise ModelError(
            f"{path} is a folder without {_GRAPH}, so it is no SavedModel; give the folder that has this file, or a "
            ".keras file"
        )
    base, size = path.resolve(), 0
    for place, folders, files in os.walk(path):
        for file in (Path(place) / name for name in (*folders, *files)):
            if not Path(os.path.realpath(file)).is_relative_to(base):  # resolve() raises where links form a loop
                raise ModelError(f"{file} is a link that leads out of the SavedModel; copy it with: cp -rL")
            if file.is_file():
                size += file.stat().st_size
            elif not file.is_dir():
                raise ModelError(f"{file} is not a file; a SavedModel has files only")
    return size


def _read(path: Path, size: int) -> Program:
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # the memory that a GPU's driver takes is no property of the file
    tf = require("tensorflow")
    with contextlib.suppress(RuntimeError):  # TensorFlow runs in this process already
        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    confine(size)
    unliftable = require("tensorflow.python.ops.op_selector").UnliftableError  # an output needs another input
    try:
        with quiet_stderr():
            meta = _meta_graph(path)
            return _frozen(tf, path, size, meta, *_signature(path, meta))
    except (ValueError, TypeError, LookupError, NotImplementedError, unliftable, tf.errors.OpError) as error:
        raise ModelError(f"the SavedModel {path} is damaged, or cannot be used: {one_line(error)}") from error


def _meta_graph(path: Path) -> Any:
    """The part of the SavedModel that is for inference."""
    proto = require("tensorflow.core.protobuf.saved_model_pb2")
    decode_error = require("google.protobuf.message").DecodeError
    try:
        graphs = proto.SavedModel.FromString(read_bytes(path / _GRAPH)).meta_graphs
    except decode_error as error:
        raise ModelError(f"{path / _GRAPH} is damaged: {one_line(error)}; save the model again") from error
    serving = [graph for graph in graphs if "serve" in graph.meta_info_def.tags] or list(graphs)
    if len(serving) != 1:
        raise ModelError(f"{path} has {len(serving)} graphs for inference; save it with the tag 'serve' on one of them")
    return serving[0]


def _signature(path: Path, meta: Any) -> tuple[list[End], list[End]]:
    """The inputs and outputs of the signature to take."""
    every = {name: each for name, each in meta.signature_def.items() if not name.startswith("__")}
    chosen = every.get(DEFAULT) or (next(iter(every.values())) if len(every) == 1 else None)
    if chosen is None:
        has = f"the signatures {', '.join(sorted(every))}" if every else "no signature"
        raise ModelError(
            f"{path} has {has}, and none is called {DEFAULT}; save it again with "
            f"tf.saved_model.save(model, path, signatures={{'{DEFAULT}': model.your_function}})"
        )
    inputs = [_end(path, name, chosen.inputs[name], "input") for name in sorted(chosen.inputs)]
    outputs = [_end(path, name, chosen.outputs[name], "output") for name in sorted(chosen.outputs)]
    for each in inputs:
        if each.dtype == "string":
            raise ModelError(
                f"{path} takes strings as {each.name}, such as serialised examples; save it with a signature that "
                "takes their numbers"
            )
    numbers = [each for each in outputs if each.dtype.startswith(("float", "bfloat"))]
    if not inputs or not numbers:
        raise ModelError(
            f"{path} has {len(inputs)} inputs and {len(numbers)} outputs of floats; save it with one or more of each"
        )
    names = unlike([each.name for each in (*inputs, *numbers)])  # layers of one model
    ends = [each._replace(name=name) for each, name in zip((*inputs, *numbers), names, strict=True)]
    return ends[: len(inputs)], ends[len(inputs) :]


def _end(path: Path, name: str, info: Any, kind: str) -> End:
    tf = require("tensorflow")
    shape = tf.TensorShape(info.tensor_shape)
    if kind == "input" and not shape.rank:
        what = "of a size that is not known" if shape.rank is None else "that is one number and has no batch"
        raise ModelError(f"{path} has an input {name} {what}; save it with tf.TensorSpec((None, …)) for each input")
    sizes = tuple(shape.as_list()[1:]) if kind == "input" else ()
    return End(name, info.name, tf.dtypes.as_dtype(info.dtype).name, sizes)


def _frozen(tf: Any, path: Path, size: int, meta: Any, inputs: list[End], outputs: list[End]) -> Program:
    freeze = require("tensorflow.python.framework.convert_to_constants").convert_variables_to_constants_v2
    wanted = [each.tensor for each in outputs]
    graph = part_of(meta.graph_def, wanted, [each.tensor for each in inputs])
    _check_operators(f"{path} contains", graph, _READS)
    nodes = {node.name: node.op == "VarHandleOp" for node in graph.node if node.op in _VARIABLE}
    variables = {name: tf.Variable(value) for name, value in _restored(tf, path, meta, nodes).items()}
    graph = part_of(graph, wanted, [*(each.tensor for each in inputs), *variables])

    def call(*tensors: Any) -> list[Any]:
        given = dict(zip((each.tensor for each in inputs), tensors, strict=True))
        for name, variable in variables.items():
            given[f"{name}:0"] = variable.handle if nodes[name] else variable.read_value()
            tf.compat.v1.get_default_graph().watch_variable(variable)
        return imported(graph, given, wanted)

    specs = [tf.TensorSpec((None, *each.shape), each.dtype) for each in inputs]
    function = freeze(tf.function(call, autograph=False).get_concrete_function(*specs), lower_control_flow=False)
    frozen = function.graph.as_graph_def()
    taken = [each._replace(tensor=tensor.name) for each, tensor in zip(inputs, function.inputs, strict=True)]
    results = [_without_activation(frozen, end, tensor) for end, tensor in zip(outputs, function.outputs, strict=True)]
    frozen = part_of(frozen, [each.tensor for each in results], [each.tensor for each in taken])
    check_pure(str(path), frozen)
    weights = _without_weights(tf, frozen, path, size)
    program = Program(frozen.SerializeToString(deterministic=True), tuple(taken), tuple(results), weights)
    _try(tf, path, program)
    return program


def _restored(tf: Any, path: Path, meta: Any, variables: Mapping[str, bool]) -> dict[str, NDArray[Any]]:
    """The values of ``variables``, which are names of nodes and whether they are handles."""
    if not variables:
        return {}
    saver = meta.saver_def
    if not saver.restore_op_name or not (path / f"{_VARIABLES}.index").is_file():
        raise ModelError(f"{path} has no {_VARIABLES}.index, where its weights are; copy the whole folder")
    part = part_of(meta.graph_def, [saver.restore_op_name, *variables], [saver.filename_tensor_name])
    _check_operators(f"{path} restores its variables with", part, _RESTORES)
    _check_no_paths(path, part)
    with tf.Graph().as_default() as graph, tf.compat.v1.Session() as session:
        file = tf.constant(str(path.resolve() / _VARIABLES))
        tf.graph_util.import_graph_def(part, input_map={saver.filename_tensor_name: file}, name="")
        tensors = {name: graph.get_tensor_by_name(f"{name}:0") for name in variables}
        dtypes = {node.name: node.attr["dtype"].type for node in part.node}
        reads = {
            name: tf.raw_ops.ReadVariableOp(resource=tensor, dtype=dtypes[name]) if variables[name] else tensor
            for name, tensor in tensors.items()
        }
        session.run(saver.restore_op_name)
        found: dict[str, NDArray[Any]] = session.run(reads)
        return found


def _check_no_paths(path: Path, part: Any) -> None:
    """Check that variables are restored from the file that they are told, and not from one that the model names.

    So no text goes anywhere but constants to where RestoreV2 takes names and slices of variables.
    """
    for nodes in (part.node, *(function.node_def for function in part.library.function)):
        by_name = {node.name: node for node in nodes}
        for node in nodes:
            for place, source in enumerate(node.input):
                maker = by_name.get(_node_of(source))
                if maker is None or source.startswith("^") or not _gives_text(maker, source):
                    continue
                if (maker.op, node.op) != ("Const", "RestoreV2") or not place:
                    raise ModelError(f"{path} restores its variables from another place than its own folder")


def _gives_text(node: Any, output: str) -> bool:
    if node.op == "RestoreV2":
        number = output.rpartition(":")[2]
        types = node.attr["dtypes"].list.type
        kind = types[int(number) if number.isdecimal() else 0]
    else:
        kind = node.attr["dtype"].type if node.op == "Const" or node.op in _VARIABLE else None
    return bool(kind == require("tensorflow").string.as_datatype_enum)


def _without_activation(graph: Any, end: End, tensor: Any) -> End:
    """The output ``end`` of a frozen graph, before its last softmax or sigmoid: Keras has layers for them."""
    nodes = {node.name: node for node in graph.node}
    name = tensor.name
    while (node := nodes[_node_of(name)]).op in ("Identity", "IdentityN"):
        name = _tensor(node.input[int(name.partition(":")[2])])
    if node.op in ("Softmax", "Sigmoid"):
        return end._replace(tensor=_tensor(node.input[0]), activation=node.op.lower())
    return end._replace(tensor=name)


def _without_weights(tf: Any, graph: Any, path: Path, size: int) -> dict[str, NDArray[Any]]:
    """Take the weights out of a frozen ``graph``, in place: all constants of floats but single numbers."""
    found: dict[str, NDArray[Any]] = {}
    total = 0
    for node in graph.node:
        if node.op != "Const" or not node.attr["value"].tensor.tensor_shape.dim:
            continue
        dtype, shape = tf.dtypes.as_dtype(node.attr["dtype"].type), node.attr["value"].tensor.tensor_shape
        if dtype not in (tf.float16, tf.float32, tf.float64):
            continue
        total += tf.TensorShape(shape).num_elements() * dtype.size
        if total > _MOST_UNPACKED * size:
            raise ModelError(f"{path} has {size:,} bytes and weights of {total:,}, which no model has; save it again")
        found[node.name] = tf.make_ndarray(node.attr["value"].tensor)
        placeholder = type(node)(name=node.name, op="Placeholder")
        placeholder.attr["dtype"].CopyFrom(node.attr["dtype"])
        placeholder.attr["shape"].shape.CopyFrom(shape)
        node.CopyFrom(placeholder)
    return found


def _try(tf: Any, path: Path, program: Program) -> None:
    """Trace the function for any batch and, if all sizes are known, compute it for a batch of two."""
    graph = tf.compat.v1.GraphDef.FromString(program.graph)
    names = [*(each.tensor for each in program.inputs), *(f"{name}:0" for name in program.weights)]

    @tf.function(autograph=False)  # type: ignore[untyped-decorator]
    def call(*tensors: Any) -> list[Any]:
        given = dict(zip(names, (*tensors, *program.weights.values()), strict=True))
        return imported(graph, given, [each.tensor for each in program.outputs])

    try:
        if any(None in each.shape for each in program.inputs):
            call.get_concrete_function(*(tf.TensorSpec((None, *each.shape), each.dtype) for each in program.inputs))
            return
        found = call(*(tf.zeros((_TRIED, *each.shape), each.dtype) for each in program.inputs))
    except (ValueError, tf.errors.OpError) as error:
        raise ModelError(f"{path} computes no batch of {_TRIED}: {one_line(error)}; {_ANY_BATCH}") from error
    for end, each in zip(program.outputs, found, strict=True):
        if not each.shape.rank or each.shape[0] != _TRIED:
            raise ModelError(
                f"{path} gives {end.name} of shape {tuple(each.shape)} for a batch of {_TRIED}; {_ANY_BATCH}"
            )


def imported(graph: Any, given: Mapping[str, Any], wanted: Sequence[str]) -> list[Any]:
    """The tensors ``wanted`` of a GraphDef in the graph that is traced now, with ``given`` in place of its tensors."""
    tf = require("tensorflow")
    used = {_tensor(source) for node in graph.node for source in node.input}
    inside = [name for name in wanted if name not in given]
    taken = {name: tf.convert_to_tensor(tensor) for name, tensor in given.items() if name in used}
    found = dict(zip(inside, tf.graph_util.import_graph_def(graph, taken, inside), strict=True))
    return [found[name] if name in found else tf.identity(given[name]) for name in wanted]


def part_of(graph: Any, wanted: Sequence[str], given: Sequence[str]) -> Any:
    """What tensors or nodes ``wanted`` of a GraphDef depend on, with all functions that are called; not ``given``.

    Without devices, and so that functions can be inlined.

    Raises:
        KeyError: a node is missing.
    """
    nodes = {node.name: node for node in graph.node}
    stop = {_node_of(name) for name in given}
    reached: dict[str, Any] = {}
    todo = [_node_of(name) for name in wanted]
    while todo:
        name = todo.pop()
        if name not in stop and name not in reached:
            reached[name] = nodes[name]
            todo += map(_node_of, nodes[name].input)
    functions = {function.signature.name: function for function in graph.library.function}
    called: set[str] = set()
    bodies = [*reached.values()]
    while bodies:
        for name in _calls(bodies.pop()) & functions.keys() - called:
            called.add(name)
            bodies += functions[name].node_def
    part = type(graph)(versions=graph.versions)
    part.node.extend(reached.values())  # in an order of their own: that of the graph differs from time to time
    part.library.function.extend(each for each in graph.library.function if each.signature.name in called)
    for node in _every_node(part):
        node.ClearField("device")
    for each in (*_every_node(part), *part.library.function):
        for name in _NO_MATTER:
            each.attr.pop(name, None)
    return part


def _every_node(graph: Any) -> Iterator[Any]:
    yield from graph.node
    for function in graph.library.function:
        yield from function.node_def


def _calls(node: Any) -> set[str]:
    """The names of all functions that a node may call."""
    attributes = node.attr.values()
    several = (one.name for each in attributes for one in each.list.func)
    return {node.op, *(each.func.name for each in attributes), *several}


def check_pure(what: str, graph: Any) -> None:
    """Check that a GraphDef of ``what`` only computes with numbers.

    Raises:
        ModelError: it has operators that are not known to; the message names them.
    """
    _check_operators(f"{what} contains", graph, _PURE)


def _check_operators(what: str, graph: Any, allowed: frozenset[str]) -> None:
    own = {function.signature.name for function in graph.library.function}
    if others := sorted({node.op for node in _every_node(graph)} - allowed - own):
        raise ModelError(
            f"{what} {', '.join(others)}, and nothing of it was run: edgecnn takes only operators that compute with "
            "numbers, without other effects, loops or branches; save the model without them"
        )


def _node_of(name: str) -> str:
    """The node that a tensor, or an input of a node, belongs to."""
    return name.removeprefix("^").partition(":")[0]


def _tensor(source: str) -> str:
    """The full name of a tensor that an input of a node is."""
    return source if ":" in source else f"{source}:0"
