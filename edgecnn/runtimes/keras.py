"""The float Keras 3 model itself, compiled by whichever back end Keras runs on: the baseline of every report."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from edgecnn.errors import SessionError
from edgecnn.models import load_model
from edgecnn.optional import require
from edgecnn.records import TensorSpec
from edgecnn.runtimes import Float

# the model; images -> tensor on the device; tensor -> finished output on the device; output -> array
_Compiled = tuple[Any, Callable[[Float], Any], Callable[[Any], Any], Callable[[Any], Any]]


class KerasSession:
    """A .keras file, compiled, on CPU or GPU, with the TensorFlow, JAX or PyTorch back end.

    ``threads`` 0 leaves the number to the back end. TensorFlow takes another number only before it has
    run anything in this process; JAX takes none.
    """

    def __init__(self, path: Path, threads: int, batch: int, device: str) -> None:
        backend = require("keras").backend.backend()
        if backend not in _COMPILE:
            raise SessionError(f"Keras runs on back end {backend!r}; edgecnn knows {', '.join(_COMPILE)}")
        model, self._put, self._call, self._get = _COMPILE[backend](path, threads, device)
        self.batch = batch
        self.input = TensorSpec(
            name=model.inputs[0].name, shape=(None, *model.input_shape[1:]), dtype="float32", layout="NHWC"
        )
        self.output = TensorSpec(
            name=model.outputs[0].name, shape=(None, *model.output_shape[1:]), dtype="float32", layout="NC"
        )

    def encode(self, images: Float) -> None:
        """Copy ``images`` to the device."""
        self._images = self._put(images)

    def invoke(self) -> None:
        """Run the model once and wait until the device has finished."""
        self._result = self._call(self._images)

    def decode(self) -> Float:
        """The output as float32 ``(batch, classes)``."""
        return np.asarray(self._get(self._result), dtype=np.float32)

    def provenance(self) -> bytes | None:
        """None: a .keras file is where provenance begins."""
        return None

    def close(self) -> None:
        """Free the compiled model."""
        del self._put, self._call


def _no_gpu(backend: str) -> SessionError:
    return SessionError(f"no GPU that Keras with the {backend} back end can use on this machine")


def _tensorflow(path: Path, threads: int, device: str) -> _Compiled:
    tf = require("tensorflow")
    if device == "gpu" and not tf.config.list_physical_devices("GPU"):
        raise _no_gpu("tensorflow")
    if threads:
        try:
            tf.config.threading.set_intra_op_parallelism_threads(threads)
            tf.config.threading.set_inter_op_parallelism_threads(1)
        except RuntimeError as error:
            raise SessionError("TensorFlow is running already; its threads are set in a fresh process") from error
    place = "/GPU:0" if device == "gpu" else "/CPU:0"
    with tf.device(place):
        model = load_model(path)
    call = tf.function(lambda images: model(images, training=False), jit_compile=device == "gpu")

    def put(images: Float) -> Any:
        with tf.device(place):
            return tf.constant(images)

    def finished(images: Any) -> Any:
        with tf.device(place):
            result = call(images)
        if device == "gpu":
            tf.test.experimental.sync_devices()
        return result

    return model, put, finished, lambda result: result.numpy()


def _jax(path: Path, threads: int, device: str) -> _Compiled:
    jax = require("jax")
    try:
        place = jax.devices(device)[0]
    except RuntimeError as error:
        raise _no_gpu("jax") from error
    with jax.default_device(place):
        model = load_model(path)
    weights = jax.device_put(
        ([v.value for v in model.trainable_variables], [v.value for v in model.non_trainable_variables]),
        place,
    )
    call = jax.jit(lambda weights, images: model.stateless_call(*weights, images, training=False)[0])
    return (
        model,
        lambda images: jax.device_put(images, place),
        lambda images: call(weights, images).block_until_ready(),
        np.asarray,
    )


def _torch(path: Path, threads: int, device: str) -> _Compiled:
    torch = require("torch")
    keras = require("keras")
    if device == "gpu" and not torch.cuda.is_available():
        raise _no_gpu("torch")
    if threads:
        torch.set_num_threads(threads)
    place = "cuda" if device == "gpu" else "cpu"
    with keras.device(f"{device}:0"):
        model = load_model(path)
    model.eval()

    def finished(images: Any) -> Any:
        with torch.inference_mode(), keras.device(f"{device}:0"):
            result = model(images, training=False)
        if device == "gpu":
            torch.cuda.synchronize()
        return result

    return (
        model,
        lambda images: torch.as_tensor(images, device=place),
        finished,
        lambda result: result.cpu().numpy(),
    )


_COMPILE: dict[str, Callable[[Path, int, str], _Compiled]] = {
    "tensorflow": _tensorflow,
    "jax": _jax,
    "torch": _torch,
}
