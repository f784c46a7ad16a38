"""Operators that int8 .tflite files compute in float give LiteRT's values in ONNX, for random shapes of any rank.

Each graph is DEQUANTIZE, the operator, and perhaps one that makes its outputs one: real values are compared, which says
more than integers. Sizes differ along all axes, so that a wrong layout has another shape or other values.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from ai_edge_litert.interpreter import Interpreter
from generated import Model

from edgecnn.errors import ArtifactError, UnsupportedError
from edgecnn.formats.onnx import qdq
from edgecnn.formats.onnx.values import channels_first
from edgecnn.inspection.portable import saturating
from edgecnn.tflite.graph import read_graph

pytestmark = pytest.mark.slow

SIZES = (4, 6, 5, 3, 2)


class Case:
    """A graph with one int8 input, of which operators take the real values ``x``."""

    def __init__(self, shape: Sequence[int], seed: int = 0) -> None:
        self.model, self.random, self.shape = Model(), np.random.default_rng(seed), tuple(shape)
        self.source = self.model.tensor(shape, scale=0.03, zero=-5)
        self.x = self.op("DEQUANTIZE", [self.source], shape)

    def op(
        self,
        kind: str,
        inputs: Sequence[int],
        shape: Sequence[int],
        options: str = "",
        dtype: str = "float32",
        **to: Any,
    ) -> int:
        """The output of an operator."""
        output = self.model.tensor(shape, dtype)
        self.model.operator(kind, inputs, output, options, **to)
        return output

    def constant(self, values: Any, dtype: str = "float32") -> int:
        values = np.asarray(values)
        return self.model.tensor(values.shape, dtype, data=values)

    def drawn(self, *shape: int) -> int:
        """A float constant."""
        return self.constant(self.random.normal(size=shape).astype(np.float32))

    def positive(self) -> int:
        """x² + 0.1."""
        square = self.op("SQUARE", [self.x], self.shape)
        return self.op("ADD", [square, self.constant(np.float32(0.1))], self.shape, "AddOptions")

    def outputs(self, target: int) -> tuple[Any, Any]:
        """What LiteRT and what ONNX Runtime give for ``target``, both channels-last."""
        content = self.model.file(self.source, target)
        values = self.random.integers(-128, 128, self.shape).astype(np.int8)
        lite = Interpreter(model_content=content)
        lite.allocate_tensors()
        lite.set_tensor(lite.get_input_details()[0]["index"], values)
        lite.invoke()
        wanted = lite.get_tensor(lite.get_output_details()[0]["index"])
        model = qdq.to_onnx(read_graph(content, "x.tflite"), "m").SerializeToString()
        session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
        given = np.ascontiguousarray(values.transpose(channels_first(range(values.ndim))))
        (found,) = session.run(None, {"input": given})
        return wanted, found.transpose(0, 2, 3, 1) if found.ndim == 4 else found

    def agrees(self, target: int) -> None:
        wanted, found = self.outputs(target)
        assert wanted.size < 3 or np.ptp(wanted.astype(float)) > 0, "nothing to compare"
        np.testing.assert_allclose(found, wanted, rtol=2e-5, atol=2e-5)


RANKS = pytest.mark.parametrize("rank", [2, 3, 4, 5])


def shape_of(rank: int, seed: int = 0) -> tuple[int, ...]:
    """A batch of 1 or more, and sizes in random order."""
    random = np.random.default_rng(seed)
    return (int(random.integers(1, 3)), *(int(size) for size in random.permutation(SIZES)[: rank - 1]))


@RANKS
@pytest.mark.parametrize(
    "kind", ["ABS", "CEIL", "COS", "ELU", "EXP", "FLOOR", "HARD_SWISH", "LOGISTIC", "NEG", "ROUND", "SIGN", "SIN",
             "SQUARE", "TANH", "RELU", "RELU6"],
)  # fmt: skip
def test_functions_of_values(kind: str, rank: int) -> None:
    case = Case(shape_of(rank))
    case.agrees(case.op(kind, [case.x], case.shape))


@RANKS
@pytest.mark.parametrize("kind", ["LOG", "RSQRT", "SQRT"])
def test_functions_of_positive_values(kind: str, rank: int) -> None:
    case = Case(shape_of(rank))
    case.agrees(case.op(kind, [case.positive()], case.shape))


@RANKS
@pytest.mark.parametrize(
    ("kind", "options", "values"),
    [
        ("GELU", "GeluOptions", {"approximate": True}),
        ("GELU", "GeluOptions", {"approximate": False}),
        ("LEAKY_RELU", "LeakyReluOptions", {"alpha": 0.3}),
        ("SOFTMAX", "SoftmaxOptions", {"beta": 1.0}),
        ("LOG_SOFTMAX", "LogSoftmaxOptions", {}),
    ],
)
def test_functions_with_options(kind: str, options: str, values: Any, rank: int) -> None:
    case = Case(shape_of(rank))
    case.agrees(case.op(kind, [case.x], case.shape, options, **values))


OPTIONS = {"ADD": "AddOptions", "SUB": "SubOptions", "MUL": "MulOptions", "DIV": "DivOptions"}


def broadcasts(case: Case, which: str) -> int:
    """A second operand: computed or constant, of the same rank or another."""
    rank, shape = len(case.shape), case.shape
    if which == "scalar":
        return case.constant(np.float32(1.7))
    if which == "channels":
        return case.constant(case.random.uniform(1, 2, shape[-1:]).astype(np.float32))
    if which == "constant":
        return case.constant(case.random.uniform(1, 2, (*shape[:-2], 1, shape[-1])).astype(np.float32))
    made = {
        "same": shape,
        "rows": (*shape[:-2], 1, shape[-1]),
        "fewer axes": shape[-(rank - 1) :],
        "last axis": shape[-1:],
    }[which]
    axes = [
        axis
        for axis in range(rank)
        if (1,) * (rank - len(made)) + made != shape and ((1,) * rank + made)[-rank + axis] == 1
    ]
    kept = case.positive()
    if axes:
        sizes = [1 if axis in axes else size for axis, size in enumerate(shape)]
        kept = case.op("SUM", [kept, case.constant(axes, "int32")], sizes, "ReducerOptions", keepDims=True)
    return (
        case.op("RESHAPE", [kept, case.constant(made, "int32")], made, "ReshapeOptions") if len(made) < rank else kept
    )


@RANKS
@pytest.mark.parametrize("kind", ["ADD", "SUB", "MUL", "DIV", "POW", "MAXIMUM", "MINIMUM", "SQUARED_DIFFERENCE"])
@pytest.mark.parametrize("which", ["same", "rows", "fewer axes", "last axis", "scalar", "channels", "constant"])
def test_two_operands(kind: str, which: str, rank: int) -> None:
    case = Case(shape_of(rank, 3))
    second = broadcasts(case, which)
    first = case.positive() if kind == "POW" else case.x
    case.agrees(case.op(kind, [first, second], case.shape, OPTIONS.get(kind, "")))


@RANKS
@pytest.mark.parametrize("kind", ["EQUAL", "NOT_EQUAL", "GREATER", "GREATER_EQUAL", "LESS", "LESS_EQUAL"])
def test_choices(kind: str, rank: int) -> None:
    case = Case(shape_of(rank, 1))
    rounded = case.op("ROUND", [case.x], case.shape)
    shape = (*case.shape[:-1], 1)
    last = case.constant([rank - 1], "int32")
    most = case.op("REDUCE_MAX", [rounded, last], shape, "ReducerOptions", keepDims=True)
    least = case.op("REDUCE_MIN", [rounded, last], shape, "ReducerOptions", keepDims=True)
    chosen = case.op(kind, [rounded, most], case.shape, dtype="bool")
    low = case.op("EQUAL", [rounded, least], case.shape, dtype="bool")
    either = case.op("LOGICAL_OR", [chosen, low], case.shape, dtype="bool")
    both = case.op(
        "LOGICAL_AND", [chosen, case.op("LOGICAL_NOT", [low], case.shape, dtype="bool")], case.shape, dtype="bool"
    )
    some = case.op("REDUCE_ANY", [both, last], shape, "ReducerOptions", dtype="bool", keepDims=True)
    numbers = case.op("CAST", [some], shape, "CastOptions")
    value = case.op("ADD", [case.x, numbers], case.shape, "AddOptions")
    case.agrees(case.op("SELECT_V2", [either, value, case.drawn(case.shape[-1])], case.shape))


@pytest.mark.parametrize("rank", [3, 4, 5])
@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("kind", ["MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN", "REDUCE_PROD"])
def test_reductions_over_any_axes(kind: str, keep: bool, rank: int) -> None:
    for seed in range(6):
        case = Case(shape_of(rank, seed), seed)
        axes = case.random.permutation(np.arange(1, rank))[: case.random.integers(1, rank)]
        made = tuple(1 if axis in axes else size for axis, size in enumerate(case.shape) if keep or axis not in axes)
        axes = axes - rank * case.random.integers(0, 2, len(axes))
        places = case.constant(axes, "int32")
        case.agrees(case.op(kind, [case.x, places], made, "ReducerOptions", keepDims=keep))


@RANKS
@pytest.mark.parametrize("flags", [(False, False), (True, False), (False, True), (True, True)])
def test_sums_so_far(flags: tuple[bool, bool], rank: int) -> None:
    for axis in range(1, rank):
        case = Case(shape_of(rank, axis))
        options = {"exclusive": flags[0], "reverse": flags[1]}
        case.agrees(
            case.op("CUMSUM", [case.x, case.constant(np.int32(axis), "int32")], case.shape, "CumsumOptions", **options)
        )


@RANKS
@pytest.mark.parametrize("swapped", [(False, False), (True, False), (False, True), (True, True)])
@pytest.mark.parametrize("second", ["computed", "constant", "fewer axes"])
def test_products(second: str, swapped: tuple[bool, bool], rank: int) -> None:
    case = Case(shape_of(rank, rank))
    *images, rows, taps = case.shape
    if swapped[0]:
        rows, taps = taps, rows
    columns = 7
    if second == "computed":  # a transposed copy, concatenated to another number of columns
        axes = (*range(rank - 2), rank - 1, rank - 2)
        other = case.op("TRANSPOSE", [case.x, case.constant(axes, "int32")], [case.shape[axis] for axis in axes])
        columns = rows
        if swapped[0] != swapped[1]:
            other = case.x
    else:
        before = images if second == "constant" else images[1:]
        other = case.drawn(*before, *((columns, taps) if swapped[1] else (taps, columns)))
    options = {"adjX": swapped[0], "adjY": swapped[1]}
    case.agrees(case.op("BATCH_MATMUL", [case.x, other], (*images, rows, columns), "BatchMatMulOptions", **options))


@RANKS
@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("activation", [0, 1])
def test_dense_layers(activation: int, keep: bool, rank: int) -> None:
    case = Case(shape_of(rank))
    outputs, taps = 7, case.shape[-1]
    shape = (*case.shape[:-1], outputs) if keep else (int(np.prod(case.shape[:-1])), outputs)
    operands = [case.x, case.drawn(outputs, taps), case.drawn(outputs)]
    options = {"keepNumDims": keep, "fusedActivationFunction": activation}
    case.agrees(case.op("FULLY_CONNECTED", operands, shape, "FullyConnectedOptions", **options))


@pytest.mark.parametrize("kind", ["CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV"])
def test_convolutions(kind: str) -> None:
    case = Case((1, 6, 7, 3))
    strides = {"padding": 0, "strideH": 2, "strideW": 1, "fusedActivationFunction": 1}
    if kind == "TRANSPOSE_CONV":
        size = case.constant([1, 12, 7, 5], "int32")
        operands = [size, case.drawn(5, 3, 2, 3), case.x, case.drawn(5)]
        case.agrees(case.op(kind, operands, (1, 12, 7, 5), "TransposeConvOptions", **strides))
        return
    dilation = {"dilationHFactor": 1, "dilationWFactor": 1}
    if kind == "CONV_2D":
        operands = [case.x, case.drawn(5, 3, 2, 3), case.drawn(5)]
        case.agrees(case.op(kind, operands, (1, 3, 7, 5), "Conv2DOptions", **strides, **dilation))
        return
    operands = [case.x, case.drawn(1, 3, 2, 3), case.drawn(3)]
    strides |= {"depthMultiplier": 1, "strideH": 1}
    case.agrees(case.op(kind, operands, (1, 6, 7, 3), "DepthwiseConv2DOptions", **strides, **dilation))


@RANKS
@pytest.mark.parametrize("kind", ["SPLIT", "SPLIT_V", "UNPACK"])
def test_parts(kind: str, rank: int) -> None:
    for axis in range(1, rank):
        case = Case([2 * size if place == axis else size for place, size in enumerate(shape_of(rank, axis))])
        whole, model = case.shape[axis], case.model
        without = [size for place, size in enumerate(case.shape) if place != axis]
        sizes = {"SPLIT": [whole // 2] * 2, "SPLIT_V": [whole - 1, 1], "UNPACK": [1] * whole}[kind]
        made = [without if kind == "UNPACK" else [*case.shape[:axis], size, *case.shape[axis + 1 :]] for size in sizes]
        outputs = [model.tensor(shape, "float32") for shape in made]
        place = case.constant(np.int32(axis), "int32")
        if kind == "SPLIT":
            model.operator(kind, [place, case.x], outputs, "SplitOptions", numSplits=2)
        elif kind == "SPLIT_V":
            model.operator(kind, [case.x, case.constant(sizes, "int32"), place], outputs, "SplitVOptions", numSplits=2)
        else:
            model.operator(kind, [case.x], outputs, "UnpackOptions", num=whole, axis=axis)
        case.agrees(case.op("MUL", [outputs[0], outputs[-1]], np.broadcast_shapes(*made[:1], made[-1]), "MulOptions"))


@pytest.mark.parametrize("rank", [2, 3, 4])
def test_stacks(rank: int) -> None:
    for axis in range(rank + 1):
        case = Case(shape_of(rank, axis))
        made = (*case.shape[:axis], 3, *case.shape[axis:])
        operands = [case.x, case.positive(), case.x]
        case.agrees(case.op("PACK", operands, made, "PackOptions", valuesCount=3, axis=axis))


@RANKS
def test_slices(rank: int) -> None:
    for seed in range(8):
        case = Case(shape_of(rank, seed), seed)
        random = case.random
        starts, ends, steps, sizes, shrink, masks = [], [], [], [], 0, [0, 0]
        for axis, size in enumerate(case.shape):
            step = int(random.choice([1, 1, 2, -1, -2])) if axis else 1
            first = int(random.integers(0, size)) if axis else 0
            if axis and rank - shrink.bit_count() > 2 and random.random() < 0.3:
                shrink |= 1 << axis
                step = 1
                start, end = first - size * int(random.integers(0, 2)), first + 1
            else:
                masks = [mask | int(random.random() < 0.3) << axis for mask in masks]
                start, end = first, -size - 1 if step < 0 else size
            part = range(size)[slice(None if masks[0] >> axis & 1 and not shrink >> axis & 1 else start, None, step)]
            sizes += [] if shrink >> axis & 1 else [len(part)]
            starts.append(start)
            ends.append(end)
            steps.append(step)
        places = [case.constant(each, "int32") for each in (starts, ends, steps)]
        options = {"beginMask": masks[0], "endMask": masks[1], "shrinkAxisMask": shrink}
        case.agrees(case.op("STRIDED_SLICE", [case.x, *places], sizes, "StridedSliceOptions", **options))


@RANKS
def test_moved_values(rank: int) -> None:
    case = Case(shape_of(rank, 5))
    model, shape = case, list(case.shape)
    for axis in range(1, rank):
        value = model.op("REVERSE_V2", [case.x, case.constant([axis], "int32")], shape, "ReverseV2Options")
        places = case.random.integers(0, shape[axis], 7)
        made = [*shape[:axis], 7, *shape[axis + 1 :]]
        taken = case.op("GATHER", [value, case.constant(places, "int32")], made, "GatherOptions", axis=axis)
        first = case.constant([1 if place == axis else 0 for place in range(rank)], "int32")
        sizes = [2 if place == axis else -1 for place in range(rank)]
        part = [2 if place == axis else size for place, size in enumerate(made)]
        case.agrees(case.op("SLICE", [taken, first, case.constant(sizes, "int32")], part, "SliceOptions"))
    order = [0, *(int(axis) for axis in 1 + case.random.permutation(rank - 1))]
    turned = [shape[axis] for axis in order]
    value = case.op("TRANSPOSE", [case.x, case.constant(order, "int32")], turned, "TransposeOptions")
    wider = [size + 1 for size in turned]
    value = case.op("PAD", [value, case.constant([[0, 1]] * rank, "int32")], wider, "PadOptions")
    longer = [size * (2 if axis == rank - 1 else 1) for axis, size in enumerate(wider)]
    value = case.op("TILE", [value, case.constant([1] * (rank - 1) + [2], "int32")], longer, "TileOptions")
    case.agrees(
        case.op("CONCATENATION", [value, value], [*longer[:-1], 2 * longer[-1]], "ConcatenationOptions", axis=rank - 1)
    )


@pytest.mark.parametrize("rank", [2, 3, 4])
def test_places_of_any_rank(rank: int) -> None:
    """And a broadcast, and places that are computed."""
    case = Case((1, *shape_of(rank)[1:]))
    for axis in range(1, rank):
        places = case.random.integers(0, case.shape[axis], (2, 3))
        made = [*case.shape[:axis], 2, 3, *case.shape[axis + 1 :]]
        case.agrees(case.op("GATHER", [case.x, case.constant(places, "int32")], made, "GatherOptions", axis=axis))
    positive = case.op("RELU6", [case.x], case.shape)
    number = case.op("CAST", [positive], case.shape, "CastOptions", dtype="int32")
    shape = (*case.shape, 4)
    case.agrees(case.op("GATHER", [case.drawn(7, 4), number], shape, "GatherOptions", axis=0))
    wide = [3, *case.shape[1:]]
    case.agrees(case.op("BROADCAST_TO", [case.x, case.constant(wide, "int32")], wide, version=2))


@pytest.mark.parametrize("kind", ["GREATER", "LESS_EQUAL"])
def test_integers_are_compared_as_tflite_compares_them(kind: str) -> None:
    """Rounded to a 256th, so that many more of them are equal than their real values are."""
    for scale in (0.002, 0.03):
        model = Model()
        source = model.tensor((1, 5, 7, 3), scale=scale, zero=-5)
        bound = model.tensor((), scale=0.1 / 255, zero=-128, data=np.int8(127))
        chosen = model.tensor((1, 5, 7, 3), "bool")
        model.operator(kind, [source, bound], chosen)
        target = model.tensor((1, 5, 7, 3), "float32")
        model.operator("CAST", [chosen], target, "CastOptions")
        case = Case((1, 5, 7, 3))
        case.model, case.source = model, source
        wanted, found = case.outputs(target)
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize(
    ("kind", "options", "values"),
    [("SUM", "ReducerOptions", {"keepDims": False}), ("REDUCE_MIN", "ReducerOptions", {"keepDims": True})],
)
def test_reductions_of_integers(kind: str, options: str, values: Any) -> None:
    model = Model()
    source = model.tensor((1, 5, 7, 3), scale=0.03, zero=-5)
    kept = values["keepDims"]
    same = {"scale": 0.03, "zero": -5} if kept else {"scale": 0.2, "zero": 3}
    target = model.tensor((1, 5, 1, 3) if kept else (1, 5, 3), **same)
    model.operator(kind, [source, model.tensor((1,), "int32", data=[2])], target, options, **values)
    case = Case((1, 5, 7, 3))
    case.model, case.source = model, source
    wanted, found = case.outputs(target)
    assert np.abs(found.astype(int) - wanted).max() <= 1


def test_a_product_of_integers() -> None:
    model = Model()
    source = model.tensor((1, 4, 6, 5), scale=0.03, zero=-5)
    target = model.tensor((1, 4, 6, 6), scale=0.2, zero=3)
    model.operator("BATCH_MATMUL", [source, source], target, "BatchMatMulOptions", adjX=False, adjY=True)
    case = Case((1, 4, 6, 5))
    case.model, case.source = model, source
    wanted, found = case.outputs(target)
    assert np.abs(found.astype(int) - wanted).max() <= 1
    assert np.ptp(wanted.astype(int)) > 100


def test_a_product_with_constant_integers_cannot_saturate() -> None:
    case = Case((2, 4, 5))
    factors = case.model.tensor((2, 5, 3), scale=0.01, zero=2, data=case.random.integers(-128, 128, (2, 5, 3)))
    target = case.model.tensor((2, 4, 3), scale=0.1)
    case.model.operator("BATCH_MATMUL", [case.source, factors], target, "BatchMatMulOptions")
    graph = read_graph(case.model.file(case.source, target), "x.tflite")
    assert not saturating(qdq.to_onnx(graph, "m"))
    wanted, found = case.outputs(target)
    assert np.abs(found.astype(int) - wanted).max() <= 1


def test_a_constant_in_graphs_of_several_ranks_has_the_layout_of_each() -> None:
    case = Case((1, 4, 6, 3))
    factors = case.drawn(3)
    image = case.op("MUL", [case.x, factors], case.shape, "MulOptions")
    rows = case.op("RESHAPE", [image, case.constant([1, 24, 3], "int32")], (1, 24, 3), "ReshapeOptions")
    case.agrees(case.op("MUL", [rows, factors], (1, 24, 3), "MulOptions"))


BAD: dict[str, tuple[Callable[[Case], int], type[Exception], str]] = {
    "a product that does not fit": (
        lambda case: case.op("BATCH_MATMUL", [case.x, case.drawn(1, 6, 2)], (1, 4, 2), "BatchMatMulOptions"),
        ArtifactError,
        r"\(BATCH_MATMUL '.*'\): shapes \(1, 4, 5\) and \(1, 6, 2\) do not fit together",
    ),
    "a place beyond the end": (
        lambda case: case.op("GATHER", [case.x, case.constant([5], "int32")], (1, 4, 1), "GatherOptions", axis=2),
        ArtifactError,
        "its places are not within 0…4",
    ),
    "other places for each image": (
        lambda case: case.op(
            "GATHER", [case.x, case.constant([[1]], "int32")], (1, 1, 5), "GatherOptions", axis=1, batchDims=1
        ),
        UnsupportedError,
        "other places for each image",
    ),
    "a condition that is none": (
        lambda case: case.op("SELECT_V2", [case.x, case.x, case.x], case.shape),
        ArtifactError,
        "its condition is float32, not bool",
    ),
    "a slice of a place that is not there": (
        lambda case: case.op(
            "STRIDED_SLICE", [case.x, *(case.constant(each, "int32") for each in ([0, 4, 0], [1, 5, 5], [1, 1, 1]))],
            (1, 5), "StridedSliceOptions", shrinkAxisMask=2,
        ),
        ArtifactError,
        "place 4 is not among 4",
    ),
    "stacks of different shapes": (
        lambda case: case.op("PACK", [case.x, case.drawn(1, 4, 1)], (1, 2, 4, 5), "PackOptions", axis=1),
        ArtifactError,
        "inputs of different shapes",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_what_does_not_fit_is_refused(name: str) -> None:
    make, error, message = BAD[name]
    case = Case((1, 4, 5))
    with pytest.raises(error, match=message):
        qdq.to_onnx(read_graph(case.model.file(case.source, make(case)), "x.tflite"), "m")


def test_a_wrong_layout_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qdq, "_CHANNELS_LAST", (0, 3, 2, 1))
    with pytest.raises((ArtifactError, AssertionError)):
        test_products("constant", (False, False), 4)


@pytest.mark.parametrize(
    ("kind", "shape"),
    [("FULLY_CONNECTED", (1, 5)), ("FULLY_CONNECTED", (1, 6, 5)), ("FULLY_CONNECTED", (1, 4, 6, 5)),
     ("CONV_2D", (1, 4, 6, 5))],
)  # fmt: skip
@pytest.mark.parametrize("biased", [False, True])
def test_float_weights_between_integers_are_not_quantised(
    kind: str, biased: bool, shape: tuple[int, ...], tmp_path: Path
) -> None:
    """ONNX Runtime would give them one scale, and lose the small ones of the second channel."""
    case = Case(shape)
    weights = (case.random.normal(size=(3, 5)) * np.array([[1], [1e-3], [1]])).astype(np.float32)
    bias = [case.drawn(3) if biased else case.constant(np.zeros(3, np.float32))]
    made = (*shape[:-1], 3)
    if kind == "CONV_2D":
        options: dict[str, int] = {"strideH": 1, "strideW": 1, "dilationHFactor": 1, "dilationWFactor": 1}
        operands = [case.x, case.constant(weights.reshape(3, 1, 1, 5)), *bias]
        real = case.op(kind, operands, made, "Conv2DOptions", **options)
    else:
        operands = [case.x, case.constant(weights), *(bias if biased else [])]
        real = case.op(kind, operands, made, "FullyConnectedOptions", keepNumDims=True)
    target = case.model.tensor(made, scale=0.05)
    case.model.operator("QUANTIZE", [real], target)
    graph = read_graph(case.model.file(case.source, target), "x.tflite")
    session = onnxruntime.SessionOptions()
    session.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    onnxruntime.InferenceSession(qdq.to_onnx(graph, "m").SerializeToString(), session)
    kinds = {node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node}
    assert not kinds & {"QGemm", "QLinearConv", "QLinearMatMul", "MatMulIntegerToFloat"}
    wanted, found = case.outputs(target)
    assert np.abs(found.astype(int) - wanted).max() <= 1
