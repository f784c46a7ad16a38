"""Int8 graphs as ONNX give the integers that LiteRT gives, operator by operator."""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgecnn.errors import UnsupportedError
from edgecnn.formats import onnx as onnx_format
from edgecnn.formats import tflite
from edgecnn.formats.onnx import qdq
from edgecnn.formats.source import Source
from edgecnn.quantization.schemes import SCHEMES
from edgecnn.runtimes import open_session, predict
from edgecnn.tflite import operators
from edgecnn.tflite.graph import Graph, read_graph

pytestmark = pytest.mark.slow

L = keras.layers
BODIES: dict[str, tuple[Callable[[Any], Any], set[str]]] = {
    "strided same": (lambda x: L.Conv2D(5, 3, strides=2, padding="same", activation="relu")(x), {"CONV_2D"}),
    "even kernel same": (lambda x: L.Conv2D(5, (2, 4), strides=(1, 2), padding="same")(x), {"CONV_2D"}),
    "dilated": (lambda x: L.Conv2D(5, 3, dilation_rate=(2, 3), padding="same", activation="relu")(x), {"CONV_2D"}),
    "depth multiplier": (
        lambda x: L.DepthwiseConv2D(3, strides=2, padding="same", depth_multiplier=3, activation="relu6")(x),
        {"DEPTHWISE_CONV_2D"},
    ),
    "separable": (lambda x: L.SeparableConv2D(6, 3)(x), {"DEPTHWISE_CONV_2D", "CONV_2D"}),
    "average pooling": (lambda x: L.AveragePooling2D(3, strides=2, padding="same")(x), {"AVERAGE_POOL_2D"}),
    "max pooling same": (lambda x: L.MaxPooling2D(3, strides=2, padding="same")(x), {"MAX_POOL_2D"}),
    "mean": (lambda x: L.GlobalAveragePooling2D()(x), {"MEAN"}),
    "mean kept": (lambda x: L.GlobalAveragePooling2D(keepdims=True)(x), {"MEAN"}),
    "concatenated": (lambda x: L.Concatenate()([x, L.Conv2D(3, 1)(x)]), {"CONCATENATION"}),
    "concatenated rows": (lambda x: L.Concatenate(axis=1)([x, L.Conv2D(4, 1)(x)]), {"CONCATENATION"}),
    "upsampled": (lambda x: L.UpSampling2D(2)(x), {"TILE"}),
    "nearest": (lambda x: L.Resizing(15, 21, interpolation="nearest")(x), {"RESIZE_NEAREST_NEIGHBOR"}),
    "halved": (lambda x: L.Resizing(5, 5, interpolation="bilinear")(x), {"RESIZE_BILINEAR"}),
    "bilinear": (lambda x: L.UpSampling2D(2, interpolation="bilinear")(x), {"RESIZE_BILINEAR"}),
    "padded": (lambda x: L.Conv2D(3, 3, strides=2)(L.ZeroPadding2D(((0, 1), (2, 0)))(x)), {"CONV_2D"}),
    "transposed": (lambda x: L.Conv2D(3, 3)(L.Permute((2, 1, 3))(x)), {"TRANSPOSE"}),
    "channels turned": (lambda x: L.Conv2D(3, 3, padding="same")(L.Permute((3, 1, 2))(x)), {"TRANSPOSE"}),
    "reshaped": (lambda x: L.Conv2D(3, 3)(L.Reshape((6, 9, 6))(x)), {"RESHAPE"}),
    "reshaped flat": (lambda x: L.Reshape((9, 36))(x), {"RESHAPE"}),
    "sigmoid": (lambda x: L.Activation("sigmoid")(x), {"LOGISTIC"}),
    "tanh": (lambda x: L.Activation("tanh")(x), {"TANH"}),
    "leaky": (lambda x: L.LeakyReLU(negative_slope=0.3)(x), {"LEAKY_RELU"}),
    "hard swish": (lambda x: L.Activation("hard_swish")(x), set()),
    "swish": (lambda x: L.Activation("swish")(x), {"LOGISTIC", "MUL"}),
    "squeeze and excite": (
        lambda x: L.Multiply()([x, L.Conv2D(4, 1, activation="sigmoid")(L.GlobalAveragePooling2D(keepdims=True)(x))]),
        {"MEAN", "LOGISTIC", "MUL"},
    ),
    "residual": (lambda x: L.ReLU()(x + L.Conv2D(4, 3, padding="same")(x)), {"ADD"}),
    "difference": (lambda x: x - L.Conv2D(4, 3, padding="same")(x), {"SUB"}),
    "rescaled": (lambda x: L.Rescaling([1.0, 2.0, 0.5, 3.0], offset=-0.25)(L.ReLU()(x)), {"DEPTHWISE_CONV_2D"}),
    "batch normalised": (
        lambda x: L.Activation("sigmoid")(L.BatchNormalization()(L.MaxPooling2D()(L.ReLU()(x)))),
        {"DEPTHWISE_CONV_2D"},
    ),
    "scaled": (lambda x: L.ReLU()(x) * np.array([1.0, 2.0, 0.5, 3.0], np.float32), {"MUL"}),
    "squeeze and excite by dense layers": (
        lambda x: L.Multiply()([x, L.Dense(4, activation="sigmoid")(L.GlobalAveragePooling2D()(x))]),
        {"MEAN", "LOGISTIC", "MUL"},
    ),
    "slopes": (lambda x: L.PReLU(shared_axes=[1, 2], alpha_initializer="random_uniform")(x), {"PRELU"}),
    "larger": (lambda x: L.Maximum()([x, L.Conv2D(4, 3, padding="same")(x)]), {"MAXIMUM"}),
    "smaller": (lambda x: L.Minimum()([x, L.Conv2D(4, 3, padding="same")(x)]), {"MINIMUM"}),
    "largest": (lambda x: L.GlobalMaxPooling2D()(x), {"REDUCE_MAX"}),
    "cropped": (lambda x: L.Conv2D(4, 3)(L.Cropping2D(((1, 0), (2, 1)))(x)), {"STRIDED_SLICE"}),
    "every other": (lambda x: L.Conv2D(4, 3)(x[:, ::2, 1:, :]), {"STRIDED_SLICE"}),
    "enlarged": (lambda x: L.Conv2DTranspose(4, 3, strides=2, padding="same")(x), {"TRANSPOSE_CONV"}),
    "enlarged with gaps": (lambda x: L.Conv2DTranspose(4, 2, strides=3)(x), {"TRANSPOSE_CONV"}),
    "dense at each pixel": (lambda x: L.Dense(6, activation="relu")(x), {"FULLY_CONNECTED"}),
    "dense in a series": (lambda x: L.Dense(6)(L.Reshape((9, 36))(x)), {"FULLY_CONNECTED"}),
    "elu": (lambda x: L.Activation("elu")(x), {"ELU"}),
    "selu": (lambda x: L.Activation("selu")(x), {"EXP"}),
    "gelu": (lambda x: L.Activation("gelu")(x), {"GELU"}),
    "mish": (lambda x: L.Activation("mish")(x), {"EXP"}),
    "softsign": (lambda x: L.Activation("softsign")(x), {"ABS"}),
    "hard sigmoid": (lambda x: L.Activation("hard_sigmoid")(x), set()),
    "softmax over channels": (lambda x: L.Softmax()(L.Conv2D(4, 1)(x)), {"SOFTMAX"}),
    "dense on maps": (lambda x: L.Flatten()(L.Conv2D(4, 1)(x)), {"FULLY_CONNECTED"}),
}


def model_of(body: Callable[[Any], Any], logits: bool = False) -> Any:
    """A convolution, ``body``, and a dense layer behind Flatten, with weights that make every value count."""
    keras.utils.set_random_seed(1)
    images = keras.Input((28, 28, 1))
    x = body(L.Conv2D(4, 3, strides=3, name="first", bias_initializer="random_normal")(images))
    x = L.Dense(10, activation=None if logits else "softmax")(L.Flatten()(x))
    return keras.Model(images, x, name="model")


def converted(model: Any, images: Any, io: Any = "int8", batch: Any = 1) -> dict[str, bytes]:
    source = Source(model, None, images, io, batch)
    return {"tflite": tflite.convert(source, SCHEMES["int8"]), "onnx": onnx_format.convert(source, SCHEMES["int8"])}


def outputs_of(files: dict[str, bytes], images: Any, folder: Path, batch: int = 1) -> tuple[Any, Any, float]:
    """Outputs of both files and the output step."""
    results = []
    step = 0.0
    for ending, content in files.items():
        path = folder / f"m.{ending}"
        path.write_bytes(content)
        with contextlib.closing(open_session(path, batch=batch)) as session:
            results.append(predict(session, images))
            step = session.outputs[0].quantization.scale[0] if session.outputs[0].quantization else step
    return results[0], results[1], step


@pytest.fixture(scope="module")
def images(mnist: Any) -> Any:
    return mnist.inputs(mnist.test.images[:64])


@pytest.mark.parametrize("name", BODIES)
def test_onnx_is_within_one_step_of_tflite(name: str, images: Any, tmp_path: Path) -> None:
    body, kinds = BODIES[name]
    files = converted(model_of(body, logits=True), images)
    assert kinds <= {operator.kind for operator in read_graph(files["tflite"], name).operators}
    lite, ours, step = outputs_of(files, images, tmp_path)
    assert np.ptp(lite) > 20 * step, "the outputs hardly differ, so agreement says nothing"
    apart = np.rint(np.abs(lite - ours) / step)
    assert apart.max() <= 2, f"{apart.max()} steps apart"
    assert (apart <= 1).mean() > 0.99
    assert apart.mean() < 0.25


@pytest.mark.parametrize("io", ["float32", "uint8"])
def test_other_types_at_the_ends(io: str, images: Any, tmp_path: Path) -> None:
    files = converted(model_of(BODIES["residual"][0]), images, io)
    lite, ours, _ = outputs_of(files, images, tmp_path)
    np.testing.assert_allclose(ours, lite, atol=1 / 256 + 1e-6)


@pytest.mark.parametrize("name", ["mean", "squeeze and excite", "transposed", "reshaped", "dense on maps"])
def test_a_free_batch(name: str, images: Any, tmp_path: Path) -> None:
    files = converted(model_of(BODIES[name][0], logits=True), images, batch=None)
    lite, ours, step = outputs_of(files, images, tmp_path, batch=16)
    assert np.rint(np.abs(lite - ours) / step).max() <= 2


@given(
    kernel=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    strides=st.sampled_from([(1, 1), (2, 2), (3, 3)]),
    padding=st.sampled_from(["same", "valid"]),
    kind=st.sampled_from(["conv", "depthwise", "max", "average"]),
    activation=st.sampled_from([None, "relu", "relu6"]),
)
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_window(
    kernel: Any, strides: Any, padding: Any, kind: str, activation: Any, images: Any, tmp_path: Path
) -> None:
    layer: Any = {
        "conv": lambda: L.Conv2D(3, kernel, strides=strides, padding=padding, activation=activation),
        "depthwise": lambda: L.DepthwiseConv2D(kernel, strides=strides, padding=padding, activation=activation),
        "max": lambda: L.MaxPooling2D(kernel, strides=strides, padding=padding),
        "average": lambda: L.AveragePooling2D(kernel, strides=strides, padding=padding),
    }[kind]()
    lite, ours, step = outputs_of(converted(model_of(layer, logits=True), images), images[:16], tmp_path)
    assert np.rint(np.abs(lite - ours) / step).max() <= 2


def changed(graph: Graph, of_kind: str, /, **changes: Any) -> Graph:
    import msgspec

    operators = tuple(
        msgspec.structs.replace(operator, **changes) if operator.kind == of_kind else operator
        for operator in graph.operators
    )
    assert operators != graph.operators
    return msgspec.structs.replace(graph, operators=operators)


@pytest.fixture(scope="module")
def graph(images: Any) -> Graph:
    return read_graph(converted(model_of(lambda x: L.MaxPooling2D()(x)), images)["tflite"], "x")


def test_an_unknown_operator_is_named_with_its_place(graph: Graph) -> None:
    with pytest.raises(UnsupportedError, match=r"operator 1 \(RFFT2D '.*'\) is not supported in int8 .onnx"):
        qdq.to_onnx(changed(graph, "MAX_POOL_2D", kind="RFFT2D"), "m")


def test_an_unknown_fused_activation_is_named(graph: Graph) -> None:
    operator = next(operator for operator in graph.operators if operator.kind == "MAX_POOL_2D")
    options = operator.options | {"fusedActivationFunction": 4}
    with pytest.raises(UnsupportedError, match=r"operator 1 \(MAX_POOL_2D '.*'\): fused activation 4"):
        qdq.to_onnx(changed(graph, "MAX_POOL_2D", options=options), "m")


def test_weights_that_are_computed_are_refused(graph: Graph) -> None:
    operator = next(operator for operator in graph.operators if operator.kind == "CONV_2D")
    inputs = (operator.inputs[0], operator.inputs[0], *operator.inputs[2:])
    with pytest.raises(UnsupportedError, match=r"operator 0 \(CONV_2D '.*'\): its weights are not constant"):
        qdq.to_onnx(changed(graph, "CONV_2D", inputs=inputs), "m")


class Best(L.Layer):
    """The two largest channels."""

    def call(self, x: Any) -> Any:
        return keras.ops.top_k(x, 2)[0]


def test_an_operator_of_a_real_model_without_counterpart_is_named_with_its_layer(images: Any) -> None:
    with pytest.raises(UnsupportedError, match=r"layer best: operator 1 \(TOPK_V2 '.*'\) is not supported"):
        converted(model_of(Best(name="best")), images)


def test_padding_the_wrong_side_would_be_seen(images: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = operators._window

    def wrong(*arguments: Any) -> Any:
        made, (top, left, bottom, below) = right(*arguments)
        return made, (bottom, below, top, left)

    monkeypatch.setattr(operators, "_window", wrong)
    files = converted(model_of(lambda x: L.Conv2D(5, 2, padding="same")(x), logits=True), images)
    lite, ours, step = outputs_of(files, images, tmp_path)
    assert np.rint(np.abs(lite - ours) / step).max() > 2
