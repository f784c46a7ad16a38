"""A Keras 3 model as a flat list of calls, in which affine layers are folded into their linear neighbours."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import tree
from numpy.typing import NDArray

from edgecnn.errors import QuantizationError, UnsupportedError
from edgecnn.frozen import FrozenGraph
from edgecnn.quantization.keras3 import AFFINE, affine, separated
from edgecnn.quantization.layers import SHARED_AXES

# Layers that take whole numbers as indices or keys.
_INDEXED = {"CategoryEncoding", "Embedding", "HashedCrossing", "Hashing", "IntegerLookup"}
# Layers with one kernel, an optional bias and an optional activation behind it.
LINEAR = tuple(SHARED_AXES)


@dataclass(eq=False)
class Call:
    """One use of a layer or operator of Keras.

    Attributes:
        operation: belongs to the graph: a copy of the model's, with the same weights, or made by folding.
        args: with symbolic tensors, which are outputs of calls before or inputs of the graph.
        outputs: symbolic tensors, in order.
    """

    operation: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outputs: list[Any]

    @property
    def kind(self) -> str:
        """Name of the class."""
        return type(self.operation).__name__

    @property
    def inputs(self) -> list[Any]:
        """The symbolic tensors among the arguments, in order."""
        return [leaf for leaf in tree.flatten((self.args, self.kwargs)) if isinstance(leaf, keras.KerasTensor)]


@dataclass(eq=False)
class Graph:
    """A model without nesting; ``inputs`` and ``outputs`` have the structure that the model's have."""

    name: str
    inputs: Any
    calls: list[Call]
    outputs: Any

    def users(self, tensor: Any) -> list[Call]:
        """The calls that take ``tensor``, once for each use."""
        return [call for call in self.calls for used in call.inputs if used is tensor]

    def only_user(self, tensor: Any) -> Call | None:
        """The one call that takes ``tensor``, unless there are several uses or it is an output of the model."""
        if any(tensor is output for output in tree.flatten(self.outputs)):
            return None
        users = self.users(tensor)
        return users[0] if len(users) == 1 else None

    def maker(self, tensor: Any) -> Call | None:
        """The call that gives ``tensor``; None for an input of the model."""
        return next((call for call in self.calls if any(output is tensor for output in call.outputs)), None)

    def uses(self, operation: Any) -> list[Call]:
        """The calls of one layer or operator: several if it is shared."""
        return [call for call in self.calls if call.operation is operation]

    def operations(self, *kinds: str) -> list[Any]:
        """The layers and operators of these classes, each once, in order of their first call."""
        return list(dict.fromkeys(call.operation for call in called(self.calls, *kinds)))

    def drop(self, call: Call) -> None:
        """Take ``call``, which has one input and one output, out: those who took its output take its input."""
        (before,), (after,) = call.inputs, call.outputs
        self.calls.remove(call)

        def moved(leaf: Any) -> Any:
            return before if leaf is after else leaf

        for other in self.calls:
            other.args, other.kwargs = tree.map_structure(moved, (other.args, other.kwargs))
        self.outputs = tree.map_structure(moved, self.outputs)

    def model(
        self,
        wrap: Callable[[Call], Any] = lambda call: call.operation,
        point: Callable[[Any, Any], Any] = lambda old, new: new,
    ) -> Any:
        """The graph as a functional model.

        ``wrap`` gives what is called in the place of a call's layer, ``point`` what is passed on for a symbolic tensor
        of this graph and the new one.
        """
        inputs = tree.map_structure(
            lambda old: keras.Input(batch_shape=old.shape, dtype=old.dtype, name=old.name), self.inputs
        )
        new = {
            id(old): point(old, tensor)
            for old, tensor in zip(tree.flatten(self.inputs), tree.flatten(inputs), strict=True)
        }

        def moved(leaf: Any) -> Any:
            return new[id(leaf)] if isinstance(leaf, keras.KerasTensor) else leaf

        made: dict[int, Any] = {}
        for call in self.calls:
            if id(call.operation) not in made:
                made[id(call.operation)] = wrap(call)
            args, kwargs = tree.map_structure(moved, (call.args, call.kwargs))
            outputs = made[id(call.operation)](*args, **kwargs)
            for old, tensor in zip(call.outputs, tree.flatten(outputs), strict=True):
                new[id(old)] = point(old, tensor)
        return keras.Model(inputs, tree.map_structure(moved, self.outputs), name=self.name)


def read(model: Any) -> Graph:
    """The graph of a Sequential or functional ``model``, nested models in the place of their calls.

    Raises:
        QuantizationError: the model is a subclass of keras.Model, whose graph cannot be had.
    """
    flat = functional(model)
    graph = Graph(model.name, flat.input, [], None)
    graph.outputs = _walk(flat, flat.input, graph, "", {})
    return graph


def check_inputs_can_be_rounded(model: Any) -> None:
    """Check that no input of ``model`` is indices, as far as the graph of the model tells it.

    Raises:
        UnsupportedError: a layer looks an input up, as Embedding does.
    """
    for layer in model._flatten_layers():
        for node in layer._inbound_nodes if type(layer).__name__ in _INDEXED else ():
            for tensor in node.input_tensors:
                maker = tensor._keras_history.operation
                while maker._inbound_nodes and maker._inbound_nodes[0].input_tensors and _moves_values(maker):
                    maker = maker._inbound_nodes[0].input_tensors[0]._keras_history.operation
                if isinstance(maker, keras.layers.InputLayer):
                    raise UnsupportedError(
                        f"layer {layer.name} takes whole numbers as indices, which the range of an int8 or int16 input "
                        "would round; use float32, float16 or dynamic-int8"
                    )


def _moves_values(operation: Any) -> bool:
    return type(operation).__name__ in {"Cast", "GetItem", "Reshape", "Squeeze", "ExpandDims", "Permute", "Flatten"}


def functional(model: Any) -> Any:
    """The functional model behind a Sequential one, or ``model`` if it is functional.

    Raises:
        QuantizationError: the model was never built, is a subclass of keras.Model, or comes from a SavedModel.
    """
    if isinstance(model, keras.Sequential):
        if not model.built:
            raise QuantizationError(f"model {model.name} was never built; give it an Input layer first")
        model = keras.Model(model.inputs[0], model.outputs[0], name=model.name)
    if not hasattr(model, "_run_through_graph"):
        raise QuantizationError(
            f"model {model.name} is a subclass of keras.Model, so its layers cannot be told from outside; "
            "quantisation-aware training needs a Sequential or functional model"
        )
    if any(isinstance(layer, FrozenGraph) for layer in model.layers):
        raise QuantizationError(
            f"model {model.name} comes from a SavedModel, which has no layers that could be trained quantised; "
            "quantisation-aware training needs the Keras model, as a .keras file"
        )
    return model


def _walk(model: Any, inputs: Any, graph: Graph, prefix: str, copies: dict[int, Any]) -> Any:
    """Append the calls of a functional ``model`` to ``graph``; returns its outputs. ``copies`` are by the original."""

    def visit(operation: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(operation, keras.Model):
            return _walk(functional(operation), args[0], graph, f"{prefix}{operation.name}_", copies)
        outputs = operation.compute_output_spec(*args, **kwargs)
        if id(operation) not in copies:
            copies[id(operation)] = _copy(operation, f"{prefix}{operation.name}")
        graph.calls.append(Call(copies[id(operation)], args, kwargs, tree.flatten(outputs)))
        return outputs

    # Keras' own walk (clone_model uses it too); with a function for the calls it passes on whatever that returns
    return model._run_through_graph(inputs, call_fn=visit)


def _copy(operation: Any, name: str) -> Any:
    """A layer of the same class, settings and weights, called ``name``; computes in float32."""
    config = {**operation.get_config(), "name": name}
    if not isinstance(operation, keras.layers.Layer):
        return type(operation).from_config(config)
    config["dtype"] = "float32"
    copied = type(operation).from_config(config)
    if built := operation.get_build_config():
        copied.build_from_config(built)
        _copy_weights(operation, copied)
    return copied


def _copy_weights(original: Any, copied: Any) -> None:
    for theirs, ours in zip(original.weights, copied.weights, strict=True):
        ours.assign(np.asarray(theirs))


def simplify(graph: Graph) -> Graph:
    """Split layers with int8 kernels for their parts only, and activations from linear layers; fold affine layers.

    All in place; returns ``graph``.
    """
    _separate(graph)
    _expand(graph)
    _split(graph)
    for operation in graph.operations(*AFFINE):
        _fold(graph, operation)
    return graph


def _separate(graph: Graph) -> None:
    """Every separable convolution as its two."""
    for operation in graph.operations("SeparableConv1D", "SeparableConv2D"):
        uses = graph.uses(operation)
        depthwise, pointwise = separated(operation, tuple(uses[0].inputs[0].shape))
        for call in uses:
            between = depthwise.compute_output_spec(call.inputs[0])
            place = graph.calls.index(call)
            graph.calls[place : place + 1] = [
                Call(depthwise, call.args, call.kwargs, [between]),
                Call(pointwise, (between,), {}, call.outputs),
            ]


def _split(graph: Graph) -> None:
    """Every linear layer with an activation as the layer without it and the activation."""
    for layer in graph.operations(*LINEAR):
        if layer.activation is not keras.activations.linear:
            activation = keras.layers.Activation(layer.activation, name=f"{layer.name}_activation")
            for call in graph.uses(layer):
                _append(graph, call, activation)
            layer.activation = keras.activations.linear


def _expand(graph: Graph) -> None:
    """Averages of tensors as their sum and a factor; a dense layer at each step as a dense layer of the whole."""
    for operation in graph.operations("TimeDistributed"):
        inner = operation.layer
        if type(inner).__name__ == "Dense":
            inner.name = operation.name
            for call in graph.uses(operation):
                call.operation, call.args, call.kwargs = inner, (call.inputs[0],), {}
    for operation in graph.operations("Average"):
        uses = graph.uses(operation)
        total = keras.layers.Add(name=f"{operation.name}_sum")
        factor = keras.layers.Rescaling(1 / len(uses[0].inputs), name=operation.name)
        for call in uses:
            call.operation = total
            _append(graph, call, factor)


def _append(graph: Graph, call: Call, layer: Any) -> None:
    """Put a layer with one input behind ``call``: the rest of the graph takes its output."""
    (output,) = call.outputs
    between = keras.KerasTensor(output.shape, output.dtype)
    call.outputs = [between]
    graph.calls.insert(graph.calls.index(call) + 1, Call(layer, (between,), {}, [output]))


def _fold(graph: Graph, operation: Any) -> None:
    """Fold an affine layer into the linear one before or behind each of its calls, or else make it a depthwise one.

    A shared linear layer takes in what stands at all of its calls.
    """
    for number, call in enumerate(graph.uses(operation), 1):
        channels = call.inputs[0].shape[-1]
        axis = getattr(operation, "axis", -1)
        axis = axis[0] if isinstance(axis, list | tuple) and len(axis) == 1 else axis
        if call not in graph.calls or channels is None or axis not in (-1, len(call.inputs[0].shape) - 1):
            continue  # gone with an earlier one, or not of channels
        scale, offset = (np.broadcast_to(values, (channels,)) for values in affine(operation))
        if pairs := _folded_back(graph, call):
            folded = _fold_back(pairs[0][0], scale, offset)
            for linear, behind in pairs:
                linear.operation, linear.outputs = folded, behind.outputs
                graph.calls.remove(behind)
        elif (pairs := _folded_on(graph, call)) and all(_keeps_border(linear, offset) for linear, _ in pairs):
            folded = _fold_on(pairs[0][0], scale, offset)
            for linear, before in pairs:
                linear.operation = folded
                graph.drop(before)
        else:
            name = operation.name if number == 1 else f"{operation.name}_use_{number}"
            _as_depthwise(graph, call, scale, offset, name)


def _folded_back(graph: Graph, call: Call) -> list[tuple[Call, Call]]:
    """The calls of the linear layer before ``call``, each with the call of the same affine layer behind it.

    Empty if one of them has another one behind it.
    """
    before = graph.maker(call.inputs[0])
    if before is None or not linear(before):
        return []
    pairs = [(use, graph.only_user(use.outputs[0])) for use in graph.uses(before.operation)]
    return (
        [(use, behind) for use, behind in pairs if behind] if all(_calls(call, behind) for _, behind in pairs) else []
    )


def _folded_on(graph: Graph, call: Call) -> list[tuple[Call, Call]]:
    """The calls of the linear layer behind ``call``, each with the call of the same affine layer before it."""
    behind = graph.only_user(call.outputs[0])
    if behind is None or not linear(behind):
        return []
    pairs = [(use, graph.maker(use.inputs[0])) for use in graph.uses(behind.operation)]
    alone = all(_calls(call, before) and graph.only_user(use.inputs[0]) is use for use, before in pairs)
    return [(use, before) for use, before in pairs if before] if alone else []


def _calls(call: Call, other: Call | None) -> bool:
    """Whether ``other`` is a call of the same layer as ``call``."""
    return other is not None and other.operation is call.operation


def linear(call: Call) -> bool:
    """Whether the layer of a call is linear and works on the last axis as channels."""
    return (
        call.kind in LINEAR
        and call.operation.activation is keras.activations.linear
        and getattr(call.operation, "data_format", "channels_last") == "channels_last"
    )


def foldable(graph: Graph, call: Call) -> bool:
    """Whether the layer of a call is linear and used once."""
    return linear(call) and len(graph.uses(call.operation)) == 1


def _keeps_border(call: Call, offset: NDArray[np.float64]) -> bool:
    """Whether an offset in front of a layer reaches all its outputs alike: no padding with zeros, and no groups."""
    if getattr(call.operation, "groups", 1) != 1 or call.kind == "Conv2DTranspose":
        return False
    return not offset.any() or call.kind == "Dense" or call.operation.padding == "valid"


def _fold_back(call: Call, scale: NDArray[np.float64], offset: NDArray[np.float64]) -> Any:
    """The layer of ``call`` with ``(x W + b) * scale + offset``."""
    kernel = np.asarray(call.operation.kernel, np.float64)
    bias = np.asarray(call.operation.bias, np.float64) if call.operation.use_bias else 0.0
    return _with(call, kernel * by_output(call.kind, scale, kernel.shape), bias * scale + offset)


def _fold_on(call: Call, scale: NDArray[np.float64], offset: NDArray[np.float64]) -> Any:
    """The layer of ``call`` with ``(x * scale + offset) W + b``."""
    kernel = np.asarray(call.operation.kernel, np.float64)
    bias = np.asarray(call.operation.bias, np.float64) if call.operation.use_bias else 0.0
    moved = (kernel * by_input(offset, kernel.ndim)).sum(axis=SHARED_AXES[call.kind]).reshape(-1)
    return _with(call, kernel * by_input(scale, kernel.ndim), moved + bias)


def by_input(scale: NDArray[np.float64], rank: int) -> NDArray[np.float64]:
    """``scale`` of the input channels in a shape that multiplies a kernel of this rank; not for Conv2DTranspose."""
    return scale.reshape([*([1] * (rank - 2)), -1, 1])


def by_output(kind: str, scale: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.float64]:
    """``scale`` of the output channels in a shape that multiplies a kernel."""
    return scale.reshape([1 if axis in SHARED_AXES[kind] else size for axis, size in enumerate(shape)])


def _with(call: Call, kernel: NDArray[np.float64], bias: NDArray[np.float64]) -> Any:
    """A layer as that of ``call`` with a bias and these weights."""
    layer = call.operation
    folded = type(layer).from_config({**layer.get_config(), "use_bias": True})
    folded.build(tuple(call.inputs[0].shape))
    folded.kernel.assign(kernel)
    folded.bias.assign(np.broadcast_to(bias, folded.bias.shape))
    return folded


def _as_depthwise(graph: Graph, call: Call, scale: NDArray[np.float64], offset: NDArray[np.float64], name: str) -> None:
    """An affine layer as a 1×1 depthwise convolution called ``name``, whose kernel has a scale for each channel."""
    (given,), (output,) = call.inputs, call.outputs
    if len(given.shape) > 4 or None in given.shape[1:]:
        return  # stays as it is
    layer = keras.layers.DepthwiseConv2D(1, name=name)
    flat = (*(*given.shape[1:-1], 1, 1)[:2], given.shape[-1])
    layer.build((None, *flat))
    layer.kernel.assign(scale.reshape(layer.kernel.shape))
    layer.bias.assign(offset)
    place = graph.calls.index(call)
    if len(given.shape) == 4:
        graph.calls[place] = Call(layer, (given,), {}, [output])
        return
    image, convolved = (keras.KerasTensor((None, *flat)) for _ in range(2))
    graph.calls[place : place + 1] = [
        Call(keras.layers.Reshape(flat, name=f"{name}_image"), (given,), {}, [image]),
        Call(layer, (image,), {}, [convolved]),
        Call(keras.layers.Reshape(given.shape[1:], name=f"{name}_back"), (convolved,), {}, [output]),
    ]


def called(calls: Iterable[Call], *kinds: str) -> list[Call]:
    """Those of ``calls`` whose class has one of these names."""
    return [call for call in calls if call.kind in kinds]
