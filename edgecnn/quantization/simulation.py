"""A Keras 3 model as an int8 file will compute it: folded, with quantised kernels and ranges of activations."""

from collections import Counter
from typing import Any

import numpy as np
from keras import ops, tree

from edgecnn.errors import QuantizationError
from edgecnn.models import given
from edgecnn.quantization.graph import LINEAR, Call, Graph, check_inputs_can_be_rounded, read, simplify
from edgecnn.quantization.keras3 import IDENTITY_AT_INFERENCE
from edgecnn.quantization.layers import STEPS, FakeQuant, QuantizedWeights
from edgecnn.samples import parts

# Their output values are input values, so the input's range is also the output's.
_KEEPS_VALUES = IDENTITY_AT_INFERENCE | {
    "Cropping1D", "Cropping2D", "Dropout", "ExpandDims", "Flatten", "GetItem", "GlobalMaxPooling1D",
    "GlobalMaxPooling2D", "MaxPooling1D", "MaxPooling2D", "Permute", "RepeatVector", "Reshape", "SpatialDropout1D",
    "SpatialDropout2D", "Squeeze", "Transpose", "UpSampling1D", "ZeroPadding1D", "ZeroPadding2D",
}  # fmt: skip
# Their int8 kernels give values on the grid of their input.
_KEEPS_GRID = {"AveragePooling1D", "AveragePooling2D", "Resizing", "UpSampling2D"}
# Their int8 kernels need inputs and output on one grid.
_SHARES_GRID = {"Concatenate", "Maximum", "Minimum"}
# Ranges that the TFLite quantisation specification prescribes for outputs.
_FIXED = {"softmax": (0.0, STEPS / 256), "sigmoid": (0.0, STEPS / 256), "tanh": (-1.0, 127 / 128)}
# Relative to the largest output; folding rounds otherwise, and the more so the more layers there are.
_SAME_OUTPUT = 1e-3
_COMPARED = 32


def read_checked(model: Any, images: Any) -> Graph:
    """The graph of ``model``, checked to give the same outputs for some of the ``images``.

    Raises:
        QuantizationError: the layers of ``model`` cannot be told from outside, or the graph gives other outputs.
        UnsupportedError: an input is indices, which cannot be rounded.
    """
    check_inputs_can_be_rounded(model)
    graph, some = read(model), given(parts(images[:_COMPARED]))
    _check_same(model.name, graph.model()(some, training=False), model(some, training=False))
    return graph


def simplify_checked(graph: Graph, images: Any) -> Graph:
    """``simplify`` in place, checked to change no output for some of the ``images``.

    Raises:
        QuantizationError: it does.
    """
    some = given(parts(images[:_COMPARED]))
    wanted = graph.model()(some, training=False)
    simplify(graph)
    _check_same(graph.name, graph.model()(some, training=False), wanted)
    return graph


def assembled(graph: Graph) -> Any:
    """The simplified ``graph`` as a Keras 3 model with fake quantisers, which have no ranges yet."""
    points = _points(graph)
    quantizers: dict[int, Any] = {}
    names: Counter[str] = Counter()
    makers = {id(output): call for call in graph.calls for output in call.outputs}

    def quantizer(tensor: Any) -> Any:
        if id(tensor) not in quantizers:
            call = makers.get(id(tensor))
            name = f"{call.operation.name if call else tensor.name}_range"
            names[name] += 1  # a layer that is called twice has two
            name += f"_{names[name]}" if names[name] > 1 else ""
            quantizers[id(tensor)] = FakeQuant(_FIXED.get(activation(call)), name=name)
        return quantizers[id(tensor)]

    def point(old: Any, tensor: Any) -> Any:
        base = points.get(id(old))
        keeps = base is not old and makers[id(old)].kind in _KEEPS_VALUES
        return tensor if base is None or keeps else quantizer(base)(tensor)

    def wrap(call: Call) -> Any:
        if call.kind in LINEAR:
            return QuantizedWeights(call.operation, name=f"quantized_{call.operation.name}")
        return call.operation

    return graph.model(wrap, point)


def activation(call: Call | None) -> str:
    """Name of the activation function that a call is, "" if it is none."""
    if call is None:
        return ""
    if call.kind == "Activation":
        return str(call.operation.activation.__name__)
    if call.kind == "ReLU":
        layer = call.operation
        plain = not layer.negative_slope and not layer.threshold
        return {None: "relu", 6.0: "relu6"}.get(layer.max_value, "") if plain else ""
    return call.kind.lower() if call.kind.lower() in ("relu", "relu6", "softmax", "sigmoid", "tanh") else ""


def _points(graph: Graph) -> dict[int, Any]:
    """By the id of each tensor that is quantised: the tensor whose range it has, itself or one before."""
    points = {id(tensor): tensor for tensor in tree.flatten(graph.inputs)}
    for call in graph.calls:
        for output in call.outputs:
            if not str(output.dtype).startswith("float"):
                continue
            behind = graph.only_user(output)
            if call.kind in (*LINEAR, "Add") and activation(behind) in ("relu", "relu6"):
                continue  # computed in one operator
            if call.kind in _KEEPS_VALUES | _KEEPS_GRID and len(call.inputs) == 1:
                if id(call.inputs[0]) in points:
                    points[id(output)] = points[id(call.inputs[0])]
                continue
            points[id(output)] = output
            if call.kind in _SHARES_GRID:
                for given in call.inputs:
                    maker = graph.maker(given)
                    if points.get(id(given)) is given and maker and activation(maker) not in _FIXED:
                        points[id(given)] = output
    return points


def _check_same(name: str, found: Any, wanted: Any) -> None:
    """Check that reading or folding the model changed no output."""
    for ours, theirs in zip(tree.flatten(found), tree.flatten(wanted), strict=True):
        reference = ops.convert_to_numpy(theirs)
        difference = float(np.abs(ops.convert_to_numpy(ours) - reference).max())
        allowed = _SAME_OUTPUT * max(1.0, float(np.abs(reference).max()))
        if not difference <= allowed:
            raise QuantizationError(
                f"model {name} flattened and folded gives other outputs: they differ by {difference:.3g}, "
                f"{allowed:.3g} is allowed; please report the model, and use --qat-engine tfmot until it is fixed"
            )
