"""The bridge to legacy Keras: rebuilt models give the outputs of the originals, or say which layer cannot be."""

import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import keras
import numpy as np
import pytest

from edgecnn.data import DataSet, Split
from edgecnn.errors import QuantizationError
from edgecnn.quantization import legacy_keras, tfmot
from edgecnn.quantization.legacy_keras import rebuild

pytestmark = pytest.mark.slow

L = keras.layers
SHAPE = (28, 28, 1)
MODELS: dict[str, Callable[[], Any]] = {}
REFUSED: dict[str, tuple[Callable[[], Any], str]] = {}


def model(make: Callable[[], Any]) -> Callable[[], Any]:
    """Add a model to the zoo."""
    MODELS[make.__name__] = make
    return make


def refused(named: str) -> Callable[[Callable[[], Any]], Callable[[], Any]]:
    """Add a model that cannot be trained quantised, with what the error must say."""

    def register(make: Callable[[], Any]) -> Callable[[], Any]:
        REFUSED[make.__name__] = (make, named)
        return make

    return register


def classifier(body: Callable[[Any], Any], *, activation: str | None = "softmax") -> Any:
    """``body`` between a first convolution and a small head, as a functional model."""
    images = keras.Input(SHAPE)
    features = body(L.Conv2D(6, 3, strides=2, padding="same", activation="relu")(images))
    return keras.Model(images, L.Dense(10, activation=activation)(L.GlobalAveragePooling2D()(features)))


def squeeze_excite(x: Any, gate: Any) -> Any:
    channels = x.shape[-1]
    squeezed = L.Conv2D(4, 1, activation="relu")(L.GlobalAveragePooling2D(keepdims=True)(x))
    return L.Multiply()([x, gate(L.Conv2D(channels, 1)(squeezed))])


@model
def sequential() -> Any:
    return keras.Sequential(
        [
            keras.Input(SHAPE),
            L.Conv2D(4, 3, activation="relu", kernel_regularizer=keras.regularizers.L2(1e-4)),
            L.MaxPooling2D(),
            L.Dropout(0.3),
            L.SpatialDropout2D(0.2),
            L.Flatten(),
            L.Dense(
                8, activation="relu", kernel_regularizer="l1", bias_regularizer=keras.regularizers.L1L2(1e-5, 1e-5)
            ),
            L.Dense(10, activation="softmax"),
        ]
    )


@model
def sequential_without_input_layer() -> Any:
    built = keras.Sequential([L.Conv2D(4, 3, activation="relu"), L.Flatten(), L.Dense(10)])
    built.build((None, *SHAPE))
    return built


@model
def logits() -> Any:
    return classifier(lambda x: x, activation=None)


@model
def softmax_layer() -> Any:
    images = keras.Input(SHAPE)
    return keras.Model(images, L.Softmax()(L.Dense(10)(L.Flatten()(L.AveragePooling2D(4)(images)))))


@model
def residual() -> Any:
    return classifier(lambda x: L.ReLU()(L.Add()([x, L.Conv2D(6, 3, padding="same")(x)])))


@model
def residual_written_with_operators() -> Any:
    return classifier(lambda x: L.ReLU()(x + L.Conv2D(6, 3, padding="same")(x)))


@model
def scaled_written_with_operators() -> Any:
    return classifier(lambda x: x * L.Conv2D(6, 1, activation="sigmoid")(x) - L.Conv2D(6, 1)(x))


@model
def nested() -> Any:
    inner_images = keras.Input((14, 14, 6))
    branch = L.Conv2D(6, 3, padding="same", name="inner_conv")(inner_images)
    inner = keras.Model(inner_images, L.Add()([inner_images, branch]), name="inner")
    return classifier(lambda x: keras.Sequential([L.Conv2D(6, 1), L.ReLU()], name="tail")(inner(x)))


@model
def two_nested_models_with_layers_of_one_name() -> Any:
    def block(name: str) -> Any:
        images = keras.Input((14, 14, 6))
        return keras.Model(images, L.Conv2D(6, 3, padding="same", name="conv")(images), name=name)

    return classifier(lambda x: block("second")(block("first")(x)))


@model
def batch_norm_behind_convolution() -> Any:
    return classifier(lambda x: L.ReLU()(L.BatchNormalization()(L.Conv2D(6, 3, use_bias=False)(x))))


@model
def batch_norm_without_scale_or_centre() -> Any:
    return classifier(
        lambda x: L.BatchNormalization(scale=False)(L.ReLU()(L.BatchNormalization(center=False)(L.Conv2D(6, 3)(x))))
    )


@model
def batch_norm_behind_depthwise() -> Any:
    return classifier(lambda x: L.ReLU(6.0)(L.BatchNormalization()(L.DepthwiseConv2D(3, depth_multiplier=2)(x))))


@model
def batch_norm_behind_dense() -> Any:
    images = keras.Input(SHAPE)
    hidden = L.BatchNormalization()(L.Dense(8, use_bias=False)(L.Flatten()(L.MaxPooling2D(4)(images))))
    return keras.Model(images, L.Dense(10, activation="softmax")(L.ReLU()(hidden)))


@model
def batch_norm_behind_pooling() -> Any:
    return classifier(lambda x: L.BatchNormalization()(L.MaxPooling2D()(x)))


@model
def pre_activation() -> Any:
    def body(x: Any) -> Any:
        y = L.Conv2D(6, 3, padding="same")(L.ReLU()(L.BatchNormalization()(x)))
        y = L.Conv2D(6, 3, padding="same")(L.ReLU()(L.BatchNormalization()(y)))
        return L.BatchNormalization()(L.Add()([x, y]))

    return classifier(body)


@model
def separable() -> Any:
    def body(x: Any) -> Any:
        x = L.SeparableConv2D(8, 3, strides=2, padding="same", depth_multiplier=2, activation="relu")(x)
        return L.ReLU()(L.BatchNormalization()(L.SeparableConv2D(6, 3, use_bias=False)(x)))

    return classifier(body)


@model
def dilated_and_grouped() -> Any:
    return classifier(lambda x: L.Conv2D(6, 3, dilation_rate=2, activation="relu")(x))


@model
def transposed() -> Any:
    return classifier(lambda x: L.Conv2DTranspose(4, 3, strides=2, padding="same", activation="relu")(x))


@model
def transposed_with_batch_norm() -> Any:
    return classifier(lambda x: L.ReLU()(L.BatchNormalization()(L.Conv2DTranspose(4, 3, strides=2, use_bias=False)(x))))


@model
def relu6_in_every_way() -> Any:
    def body(x: Any) -> Any:
        x = L.Conv2D(6, 3, activation="relu6")(x)
        x = L.Activation("relu6")(L.Conv2D(6, 1)(x))
        x = L.ReLU(max_value=6.0)(L.Conv2D(6, 1)(x))
        return L.SeparableConv2D(6, 3, activation="relu6")(x)

    return classifier(body)


@model
def activations() -> Any:
    def body(x: Any) -> Any:
        x = L.Activation("relu")(L.Conv2D(6, 1)(x))
        x = L.LeakyReLU(negative_slope=0.2)(L.Conv2D(6, 1)(x))
        x = L.Activation("sigmoid")(L.Conv2D(6, 1)(x))
        return L.Activation("tanh")(L.Conv2D(6, 1)(x))

    return classifier(body)


@model
def preprocessing_inside() -> Any:
    images = keras.Input(SHAPE)
    normalised = L.Normalization(mean=[0.13], variance=[0.095])(L.Rescaling(2.0, offset=-1.0)(images))
    return keras.Model(images, L.Dense(10)(L.Flatten()(L.Conv2D(4, 3, strides=3, activation="relu")(normalised))))


@model
def preprocessing_per_channel() -> Any:
    return classifier(lambda x: L.Rescaling([1.0, 2.0, 0.5, 1.0, 3.0, 1.0], offset=0.1)(x))


@model
def augmentation() -> Any:
    return keras.Sequential(
        [
            keras.Input(SHAPE),
            L.RandomFlip(),
            L.RandomRotation(0.1),
            L.RandomZoom(0.1),
            L.RandomTranslation(0.1, 0.1),
            L.GaussianNoise(0.1),
            L.Conv2D(4, 3, activation="relu"),
            L.GaussianDropout(0.2),
            L.GlobalMaxPooling2D(),
            L.Dense(10, activation="softmax"),
        ]
    )


@model
def concatenated() -> Any:
    return classifier(lambda x: L.Concatenate()([L.Conv2D(4, 1)(x), L.Conv2D(4, 3, padding="same")(x), x]))


@model
def upsampled() -> Any:
    def body(x: Any) -> Any:
        small = L.UpSampling2D(2, interpolation="bilinear")(L.MaxPooling2D()(x))
        return L.Concatenate()([x, L.UpSampling2D()(L.MaxPooling2D()(small))])

    return classifier(body)


@model
def padded_and_cropped() -> Any:
    return classifier(lambda x: L.Cropping2D(((0, 1), (1, 0)))(L.Conv2D(6, 3)(L.ZeroPadding2D(((0, 1), (0, 1)))(x))))


@model
def squeeze_and_excite() -> Any:
    return classifier(lambda x: squeeze_excite(x, L.Activation("sigmoid")))


@model
def merges() -> Any:
    def body(x: Any) -> Any:
        y, z = L.Conv2D(6, 1)(x), L.Conv2D(6, 1)(x)
        return L.Subtract()([L.Maximum()([x, y]), L.Average()([L.Minimum()([y, z]), z])])

    return classifier(body)


@model
def reshaped() -> Any:
    images = keras.Input(SHAPE)
    x = L.Reshape((7, 7, 16))(images)
    return keras.Model(images, L.Dense(10)(L.Flatten()(L.Conv2D(4, 3, activation="relu")(x))))


@model
def mobilenet_v2() -> Any:
    return keras.applications.MobileNetV2(weights=None, input_shape=(32, 32, 1), classes=10, alpha=0.35)


@refused("'slope' (PReLU)")
def parametric_relu() -> Any:
    return classifier(
        lambda x: L.PReLU(name="slope", shared_axes=[1, 2], alpha_initializer="random_normal")(L.Conv2D(6, 1)(x))
    )


@refused("'norm' (LayerNormalization)")
def layer_normalization() -> Any:
    return classifier(lambda x: L.LayerNormalization(name="norm")(x))


@refused("'twice' (Lambda)")
def lambda_layer() -> Any:
    return classifier(lambda x: L.Lambda(lambda t: 2 * t, name="twice")(x))


@refused("'attention' (MultiHeadAttention)")
def attention() -> Any:
    def body(x: Any) -> Any:
        rows = L.Reshape((196, 6))(x)
        return L.Reshape((14, 14, 6))(L.MultiHeadAttention(2, 3, name="attention")(rows, rows))

    return classifier(body)


@refused("'shared'")
def shared_layer() -> Any:
    shared = L.Conv2D(6, 3, padding="same", name="shared")
    return classifier(lambda x: shared(shared(x)))


@refused("'shared'")
def shared_model() -> Any:
    shared = keras.Sequential([L.Conv2D(6, 3, padding="same")], name="shared")
    return classifier(lambda x: L.Add()([shared(x), shared(L.ReLU()(x))]))


@refused("'half' (Conv2D) computes in mixed_float16")
def mixed_precision() -> Any:
    return classifier(lambda x: L.Conv2D(6, 3, dtype="mixed_float16", name="half")(x))


class Custom(L.Layer):
    def call(self, inputs: Any) -> Any:
        return inputs * 2


@refused("'mine' (Custom)")
def custom_layer() -> Any:
    return classifier(lambda x: Custom(name="mine")(x))


class Subclassed(keras.Model):
    def __init__(self) -> None:
        super().__init__(name="subclassed")
        self.dense = L.Dense(10)

    def call(self, images: Any) -> Any:
        return self.dense(L.Flatten()(images))


@refused("subclassed is a subclass")
def subclassed_model() -> Any:
    built = Subclassed()
    built(np.zeros((1, *SHAPE), np.float32))
    return built


@refused("'flat_norm' (BatchNormalization)")
def batch_norm_behind_flatten() -> Any:
    images = keras.Input(SHAPE)
    return keras.Model(images, L.Dense(10)(L.BatchNormalization(name="flat_norm")(L.Flatten()(images))))


@refused("'swish'")
def hard_swish() -> Any:
    return classifier(lambda x: L.Activation("hard_swish", name="swish")(x))


@refused("'regularized'")
def custom_constraint() -> Any:
    return classifier(lambda x: L.Conv2D(6, 1, kernel_constraint="non_neg", name="regularized")(x))


@pytest.fixture(scope="module")
def digits(mnist: DataSet) -> DataSet:
    """128 images of MNIST."""
    return replace(
        mnist,
        train=Split(mnist.train.images[:128], mnist.train.labels[:128]),
        test=Split(mnist.test.images[:128], mnist.test.labels[:128]),
    )


def fitted(made: Any, data: DataSet) -> tuple[Any, DataSet]:
    """The model with weights that are no longer at their start, and data of its input size."""
    rng = np.random.default_rng(0)
    for weight in made.weights:
        value = np.asarray(weight)
        if weight.path.endswith(("variance", "gamma")):
            weight.assign(rng.uniform(0.5, 2, value.shape))
        elif weight.path.endswith(("mean", "beta", "bias")):
            weight.assign(rng.normal(0, 0.1, value.shape))
    size = made.inputs[0].shape[1] - 28
    if size:
        data = replace(
            data,
            train=Split(np.pad(data.train.images, ((0, 0), (0, size), (0, size), (0, 0))), data.train.labels),
            test=Split(np.pad(data.test.images, ((0, 0), (0, size), (0, size), (0, 0))), data.test.labels),
        )
    return made, data


@pytest.mark.parametrize("name", MODELS)
def test_rebuilt_model_gives_the_same_outputs_on_images_it_was_not_compared_on(name: str, digits: DataSet) -> None:
    original, data = fitted(MODELS[name](), digits)
    rebuilt = rebuild(original, data.inputs(data.train.images[:8]))

    images = data.inputs(data.test.images)
    expected = np.asarray(original(images, training=False))
    assert np.ptp(expected) > 1e-3  # a constant output would agree with anything
    np.testing.assert_allclose(np.asarray(rebuilt(images, training=False)), expected, rtol=1e-4, atol=1e-5)
    assert type(rebuilt).__module__.startswith("tf_keras")
    np.testing.assert_array_equal(np.asarray(original(images, training=False)), expected, "the original has changed")


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_trained_quantised_is_named(name: str, digits: DataSet) -> None:
    make, named = REFUSED[name]
    with pytest.raises(QuantizationError) as caught:
        tfmot.fake_quantized(make(), digits)
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_rebuilt_model_with_other_outputs_is_refused(digits: DataSet, monkeypatch: pytest.MonkeyPatch) -> None:
    original, _ = fitted(residual(), digits)
    kept = legacy_keras._inference_weights
    monkeypatch.setattr(legacy_keras, "_inference_weights", lambda layer: [1.01 * weight for weight in kept(layer)])
    with pytest.raises(QuantizationError, match="gives other outputs: they differ by"):
        rebuild(original, digits.inputs(digits.train.images[:8]))


def test_nan_outputs_are_no_agreement(digits: DataSet) -> None:
    original, _ = fitted(residual(), digits)
    original.layers[-1].bias.assign(np.full(10, np.nan, np.float32))
    with pytest.raises(QuantizationError, match="differ by nan"):
        rebuild(original, digits.inputs(digits.train.images[:8]))


def test_process_stays_on_keras_3(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TF_USE_LEGACY_KERAS", raising=False)
    legacy_keras.tfmot_quantization()
    assert "TF_USE_LEGACY_KERAS" not in os.environ
    assert keras.__version__.startswith("3.")
