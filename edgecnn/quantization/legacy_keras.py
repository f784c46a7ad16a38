"""Rebuilds a Keras 3 model in legacy Keras; the only place that knows tf_keras exists.

TFMOT trains with fake quantisation on legacy Keras models only. The rebuilt model has the same layers and
weights, with a few differences that change no output:

- nested models are inlined, and layers that do nothing at inference (random augmentation, noise) are left out;
- affine layers that TFMOT cannot fold into a convolution (Rescaling, Normalization, a BatchNormalization that
  follows no convolution) become 1×1 depthwise convolutions;
- relu6 becomes a ReLU layer with ``max_value=6``, a separable convolution its two convolutions.

``rebuild`` compares the outputs of both models before it returns.
"""

import os
from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecnn.errors import QuantizationError
from edgecnn.optional import require
from edgecnn.quantization.keras3 import AFFINE, IDENTITY_AT_INFERENCE, affine, separated

_FOLDS_BATCH_NORM = {"Conv2D", "Dense", "DepthwiseConv2D", "SeparableConv2D"}
# Keras 3 records an operator between tensors (x + y) under the name of the layer that does the same.
_OPERATORS = {"Add", "Multiply", "Subtract", "Maximum", "Minimum"}
# Arguments that have another name in legacy Keras.
_RENAMED = {("LeakyReLU", "negative_slope"): "alpha"}
# Relative to the largest output; both models run the same float32 kernels, so only folding differs.
_SAME_OUTPUT = 1e-4


def rebuild(model: Any, images: NDArray[np.float32]) -> Any:
    """A tf_keras functional model with the layers, weights and outputs of the Keras 3 ``model``.

    ``images``, float32 ``(n, height, width, channels)`` in the model's input range, are used to compare outputs.

    Raises:
        QuantizationError: a layer has no counterpart (named, with the reason), or the outputs differ.
    """
    _check_is_graph(model)
    keras = tf_keras()
    inputs = keras.layers.Input(images.shape[1:], name="input")
    legacy = keras.Model(inputs, _rebuild_graph(model, inputs, ""), name=model.name)
    reference = np.asarray(model(images, training=False))
    difference = float(np.abs(np.asarray(legacy(images, training=False)) - reference).max())
    allowed = _SAME_OUTPUT * max(1.0, float(np.abs(reference).max()))
    if not difference <= allowed:
        raise QuantizationError(
            f"model {model.name} rebuilt in legacy Keras gives other outputs: they differ by {difference:.3g}, "
            f"{allowed:.3g} is allowed; quantisation-aware training would train another model"
        )
    return legacy


def tf_keras() -> Any:
    """The tf_keras package, with Keras 3 left as the Keras of this process."""
    require("keras")
    return require("tf_keras")


def tfmot_quantization() -> Any:
    """``tfmot.quantization.keras``; TFMOT's switch of the whole process to legacy Keras is undone."""
    before = os.environ.get("TF_USE_LEGACY_KERAS")
    module = require("tensorflow_model_optimization").quantization.keras
    if before is None:
        os.environ.pop("TF_USE_LEGACY_KERAS", None)
    return module


def _check_is_graph(model: Any) -> None:
    keras3 = require("keras")
    if not isinstance(model, keras3.Sequential) and not hasattr(model, "operations"):
        raise QuantizationError(
            f"model {model.name} is a subclass of keras.Model; quantisation-aware training needs a Sequential or "
            "functional model"
        )


def _rebuild_graph(model: Any, inputs: Any, prefix: str) -> Any:
    """Call the counterparts of ``model``'s layers on ``inputs``, in order; returns the output tensor.

    ``prefix`` goes before the names of the new layers: nested models may use the same names.
    """
    _check_is_graph(model)
    keras3 = require("keras")
    if isinstance(model, keras3.Sequential):
        chain = [layer for layer in model.layers if type(layer).__name__ != "InputLayer"]
        tensor, previous = inputs, ""
        for layer in chain:
            tensor = _call(layer, [tensor], previous, prefix)
            previous = type(layer).__name__ if _is_linear(layer) else ""
        return tensor
    config = model.get_config()
    uses = Counter(name for entry in config["layers"] for name in _sources(entry, model.name))
    operations = {operation.name: operation for operation in model.operations}
    tensors: dict[str, Any] = {}
    for entry in config["layers"]:
        layer = operations[entry["name"]]
        sources = _sources(entry, model.name)
        if not sources:
            tensors[layer.name] = inputs
            continue
        only = operations[sources[0]]
        feeder = type(only).__name__ if uses[only.name] == 1 and _is_linear(only) else ""
        tensors[layer.name] = _call(layer, [tensors[source] for source in sources], feeder, prefix)
    return tensors[_tensor_names(config["output_layers"])[0]]


def _sources(entry: dict[str, Any], model: str) -> list[str]:
    """Names of the layers whose outputs a layer takes, from its entry in the model's config."""
    nodes = entry["inbound_nodes"]
    if len(nodes) > 1:
        raise QuantizationError(
            f"layer {entry['name']!r} of model {model} is called {len(nodes)} times; a shared layer cannot be "
            "quantised, use one layer per call"
        )
    return [name for node in nodes for name in _tensor_names([node["args"], node["kwargs"]])]


def _tensor_names(config: Any) -> list[str]:
    """Layer names in a nested config, in order, of what is a reference to another layer's output."""
    if isinstance(config, dict):
        if config.get("class_name") == "__keras_tensor__":
            return [config["config"]["keras_history"][0]]
        return [name for value in config.values() for name in _tensor_names(value)]
    if isinstance(config, list | tuple):
        if len(config) == 3 and isinstance(config[0], str) and config[1:] == [0, 0]:
            return [config[0]]  # output_layers lists [name, node, tensor]
        return [name for value in config for name in _tensor_names(value)]
    return []


def _is_linear(layer: Any) -> bool:
    return getattr(getattr(layer, "activation", None), "__name__", "linear") == "linear"


def _call(layer: Any, tensors: list[Any], feeder: str, prefix: str) -> Any:
    """Build the counterpart of ``layer``, call it on ``tensors`` and give it the weights.

    ``feeder`` is the type of the layer before, if that is linear and feeds this one only.
    """
    kind, name = type(layer).__name__, f"{prefix}{layer.name}"
    keras3 = require("keras")
    if isinstance(layer, keras3.Model):
        return _rebuild_graph(layer, tensors[0], f"{name}_")
    if kind in IDENTITY_AT_INFERENCE:
        return tensors[0]
    folds = kind == "BatchNormalization" and feeder in _FOLDS_BATCH_NORM
    if kind in AFFINE and not folds:
        return _depthwise(layer, tensors[0], name)
    if not isinstance(layer, keras3.layers.Layer) and kind in _OPERATORS and len(tensors) == 2:
        return getattr(tf_keras().layers, kind)(name=name)(tensors)
    if kind == "SeparableConv2D":
        depthwise, pointwise = separated(layer, tuple(tensors[0].shape))  # TFMOT's own split loses the connections
        return _call(pointwise, [_call(depthwise, tensors, "", prefix)], "", prefix)
    relu6 = getattr(getattr(layer, "activation", None), "__name__", None) == "relu6"
    if relu6 and kind == "Activation":
        return tf_keras().layers.ReLU(6.0, name=name)(tensors[0])
    legacy = _counterpart(layer, name, activation="linear") if relu6 else _counterpart(layer, name)
    output = legacy(tensors if len(tensors) > 1 else tensors[0])
    if layer.weights:
        legacy.set_weights(_inference_weights(layer))
    return tf_keras().layers.ReLU(6.0, name=f"{name}_relu6")(output) if relu6 else output


def _inference_weights(layer: Any) -> list[Any]:
    """The layer's weights without the state of its random generators, which legacy Keras keeps elsewhere."""
    return [np.asarray(weight) for weight in layer.weights if "seed_generator" not in weight.path]


def _counterpart(layer: Any, name: str, **changes: Any) -> Any:
    """A tf_keras layer of the same class with the same arguments, called ``name``.

    Raises:
        QuantizationError: legacy Keras has no such layer, or not with such an argument.
    """
    kind, where = type(layer).__name__, f"layer {layer.name!r} ({type(layer).__name__})"
    keras3 = require("keras")
    legacy_class = getattr(tf_keras().layers, kind, None)
    if getattr(keras3.layers, kind, None) is not type(layer) or legacy_class is None:
        raise QuantizationError(f"{where} has no counterpart in legacy Keras, so it cannot be trained quantised")
    if layer.dtype_policy.name != "float32":
        raise QuantizationError(f"{where} computes in {layer.dtype_policy.name}; only float32 can be quantised")
    arguments = {"name": name}
    for key, value in {**layer.get_config(), **changes}.items():
        if key in ("name", "dtype", "trainable") or key.endswith("_initializer"):
            continue  # set elsewhere, or only used before the weights are set
        if isinstance(value, dict) and "class_name" in value:
            value = _regularizer(key, value, where)
        if value is not None:
            arguments[_RENAMED.get((kind, key), key)] = value
    while True:
        try:
            return legacy_class(**arguments)
        except (TypeError, ValueError) as error:
            unknown = [key for key in arguments if repr(key) in str(error)]
            defaults = _defaults(layer)
            droppable = [key for key in unknown if key in defaults and defaults[key] == arguments[key]]
            if not droppable:
                raise QuantizationError(f"{where} cannot be rebuilt in legacy Keras: {error}") from error
            for key in droppable:  # an argument that legacy Keras lacks, at the value that has no effect
                del arguments[key]


def _defaults(layer: Any) -> dict[str, Any]:
    """The config that the layer would have with its defaults; empty where it needs more arguments than we know."""
    try:
        config: dict[str, Any] = type(layer)(**_required(layer)).get_config()
    except (TypeError, ValueError):
        return {}
    return config


def _required(layer: Any) -> dict[str, Any]:
    """Arguments without which the class cannot be made, from the layer's own config."""
    required = ("filters", "units", "kernel_size", "target_shape", "dims", "rate", "activation")
    return {key: value for key, value in layer.get_config().items() if key in required and value is not None}


def _regularizer(key: str, value: dict[str, Any], where: str) -> Any:
    if not key.endswith("_regularizer"):
        raise QuantizationError(f"{where} has {key}={value['class_name']}, which cannot be rebuilt in legacy Keras")
    return tf_keras().regularizers.deserialize({"class_name": value["class_name"], "config": value["config"]})


def _depthwise(layer: Any, tensor: Any, name: str) -> Any:
    """An affine layer, ``y = x * scale + offset`` per channel, as a 1×1 depthwise convolution."""
    if len(tensor.shape) != 4:
        raise QuantizationError(
            f"layer {layer.name!r} ({type(layer).__name__}) works on {len(tensor.shape)} dimensions and follows no "
            "layer it could be folded into; move it before Flatten or behind a convolution"
        )
    channels = int(tensor.shape[-1])
    scale, offset = affine(layer)
    legacy = tf_keras().layers.DepthwiseConv2D(1, name=name)
    output = legacy(tensor)
    legacy.set_weights(
        [
            np.broadcast_to(scale, (channels,)).reshape(1, 1, channels, 1).astype(np.float32),
            np.broadcast_to(offset, (channels,)).astype(np.float32),
        ]
    )
    return output
