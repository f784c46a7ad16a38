"""A frozen graph of TensorFlow as a layer of Keras: what a model from a SavedModel is made of."""

import base64
from typing import Any

import keras

from edgecnn.errors import ModelError
from edgecnn.optional import require
from edgecnn.saved_model import Program, check_pure, imported


@keras.saving.register_keras_serializable(package="edgecnn")
class FrozenGraph(keras.layers.Layer):  # type: ignore[misc]
    """Calls a graph whose operators compute with numbers and have no other effect; its weights are not trained.

    Takes and gives lists of tensors. Runs on TensorFlow only.

    Args:
        graph: a serialised GraphDef in base64.
        inputs: names and types of its inputs.
        outputs: names of its outputs, which are given as float32.
        weights: names, shapes and types of the tensors that it takes the weights as.

    Raises:
        ModelError: Keras runs on another back end, or the graph has operators that are not known to be pure.
    """

    def __init__(
        self, graph: str, inputs: list[list[str]], outputs: list[str], weights: list[list[Any]], **options: Any
    ) -> None:
        super().__init__(**{**options, "trainable": False})
        backend = keras.backend.backend()
        if backend != "tensorflow":
            raise ModelError(f"a model from a SavedModel needs Keras on TensorFlow, it runs on {backend!r}")
        self._tf = tf = require("tensorflow")
        self._settings: dict[str, Any] = {"graph": graph, "inputs": inputs, "outputs": outputs, "weights": weights}
        self._graph = tf.compat.v1.GraphDef.FromString(base64.b64decode(graph))
        check_pure(f"layer {self.name}", self._graph)
        for _, shape, dtype in weights:
            self.add_weight(shape=tuple(shape), dtype=dtype, initializer="zeros", trainable=False)
        self._names = [*(name for name, _ in inputs), *(f"{name}:0" for name, _, _ in weights)]
        self._function = tf.function(self._traced, autograph=False)

    def _traced(self, *tensors: Any) -> list[Any]:
        found = imported(self._graph, dict(zip(self._names, tensors, strict=True)), self._settings["outputs"])
        return [self._tf.cast(each, "float32") for each in found]

    def call(self, inputs: list[Any]) -> list[Any]:
        """The outputs for ``inputs``."""
        given = [self._tf.cast(each, dtype) for each, (_, dtype) in zip(inputs, self._settings["inputs"], strict=True)]
        found: list[Any] = self._function(*given, *map(self._tf.convert_to_tensor, self.weights))
        return found

    def get_config(self) -> dict[str, Any]:
        """The settings of the layer."""
        return {**super().get_config(), **self._settings}


def model_of(program: Program, name: str) -> Any:
    """The Keras 3 model that computes what ``program`` does, with the names of its inputs and outputs.

    Its layers are the graph, and the last activation of each output.
    """
    layer = FrozenGraph(
        base64.b64encode(program.graph).decode(),
        [[each.tensor, each.dtype] for each in program.inputs],
        [each.tensor for each in program.outputs],
        [[key, list(weight.shape), str(weight.dtype)] for key, weight in program.weights.items()],
        name=f"{name}_graph",
    )
    layer.set_weights(list(program.weights.values()))
    inputs = [keras.Input(each.shape, dtype=each.dtype, name=each.name) for each in program.inputs]
    tensors = layer(inputs)
    outputs = [
        keras.layers.Activation(end.activation, name=end.name)(tensor)
        for end, tensor in zip(program.outputs, tensors, strict=True)
    ]
    return keras.Model(*(each if len(each) > 1 else each[0] for each in (inputs, outputs)), name=name)
