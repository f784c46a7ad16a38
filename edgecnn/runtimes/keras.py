"""The float Keras 3 model itself, compiled by whichever back end Keras runs on: the baseline of every report."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgecnn.errors import SessionError, one_line
from edgecnn.models import load_model
from edgecnn.optional import require
from edgecnn.records import TensorSpec
from edgecnn.runtimes import Float

_Call = Callable[[Any], Any]


class _Loaded(NamedTuple):
    """A model on a device.

    ``put`` takes images to a tensor there. ``compile`` takes the shape of the images to a function from that tensor to
    the finished output there, and to what compiled it, as in a ``Baseline``. ``get`` takes the output to an array.
    ``tensor_float_32`` is as in a ``Baseline``; ``peak`` gives the most bytes in use on a GPU.
    """

    model: Any
    put: Callable[[Float], Any]
    compile: Callable[[tuple[int, ...]], tuple[_Call, str]]
    get: Callable[[Any], Any]
    tensor_float_32: bool
    peak: Callable[[], int | None]


class KerasSession:
    """A .keras file, compiled, on CPU or GPU, with the TensorFlow, JAX or PyTorch back end.

    ``threads`` 0 leaves the number to the back end. TensorFlow takes another number only before it has
    run anything in this process; JAX takes none. The model is compiled when images of another shape come, so ``batch``
    may be set anew. From the first ones on, ``compiled_with`` names what compiled it, or says why nothing did.
    ``tensor_float_32`` says whether a GPU may round factors to TensorFloat-32, and is ``None`` on a CPU.
    """

    def __init__(self, path: Path, threads: int, batch: int, device: str) -> None:
        backend = require("keras").backend.backend()
        if backend not in _LOAD:
            raise SessionError(f"Keras runs on back end {backend!r}; edgecnn knows {', '.join(_LOAD)}")
        self._loaded = loaded = _LOAD[backend](path, threads, device)
        self._peak = loaded.peak if device == "gpu" else None
        self.tensor_float_32 = loaded.tensor_float_32 if device == "gpu" else None
        self.compiled_with = ""
        self.batch = batch
        self._call: Any
        self._shape: tuple[int, ...]
        self._free()
        model = loaded.model
        self.input = TensorSpec(
            name=model.inputs[0].name, shape=(None, *model.input_shape[1:]), dtype="float32", layout="NHWC"
        )
        self.output = TensorSpec(
            name=model.outputs[0].name, shape=(None, *model.output_shape[1:]), dtype="float32", layout="NC"
        )

    def encode(self, images: Float) -> None:
        """Copy ``images`` to the device."""
        self.put(images)

    def put(self, values: NDArray[Any]) -> None:
        """As ``encode``: float32 images go in as they are."""
        if values.shape != self._shape:
            self._free()  # for what comes
            self._call, self.compiled_with = self._loaded.compile(values.shape)
            self._shape = values.shape
        self._images = self._loaded.put(values)

    def invoke(self) -> None:
        """Run the model once and wait until the device has finished."""
        self._result = self._call(self._images)

    def decode(self) -> Float:
        """The output as float32 ``(batch, classes)``."""
        return np.asarray(self._loaded.get(self._result), dtype=np.float32)

    def take(self) -> NDArray[Any]:
        """As ``decode``."""
        return self.decode()

    def peak_device_bytes(self) -> int | None:
        """The most of the GPU's memory that was in use in this process; ``None`` on a CPU, or if not told."""
        return None if self._peak is None else self._peak()

    def provenance(self) -> bytes | None:
        """None: a .keras file is where provenance begins."""
        return None

    def close(self) -> None:
        """Free the compiled model."""
        self._free()
        del self._loaded

    def _free(self) -> None:
        self._call = self._images = self._result = None
        self._shape = ()


def _no_gpu(backend: str) -> SessionError:
    return SessionError(f"no GPU that Keras with the {backend} back end can use on this machine")


def _tensorflow(path: Path, threads: int, device: str) -> _Loaded:
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

    def compiled(shape: tuple[int, ...]) -> tuple[_Call, str]:
        call = tf.function(lambda images: model(images, training=False), jit_compile=device == "gpu")

        def finished(images: Any) -> Any:
            with tf.device(place):
                result = call(images)
            if device == "gpu":
                tf.test.experimental.sync_devices()
            return result

        return finished, "tf.function with XLA" if device == "gpu" else "tf.function"

    def put(images: Float) -> Any:
        with tf.device(place):
            return tf.constant(images)

    experimental = tf.config.experimental
    return _Loaded(
        model=model,
        put=put,
        compile=compiled,
        get=lambda result: result.numpy(),
        tensor_float_32=bool(experimental.tensor_float_32_execution_enabled()),
        peak=lambda: int(experimental.get_memory_info("GPU:0")["peak"]),
    )


def _jax(path: Path, threads: int, device: str) -> _Loaded:
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

    def compiled(shape: tuple[int, ...]) -> tuple[_Call, str]:
        # Weights that are constants need not be handed over in every call, and are laid out for the kernels once.
        traced = jax.jit(lambda images: model.stateless_call(*weights, images, training=False)[0])
        images = jax.ShapeDtypeStruct(shape, np.float32, sharding=jax.sharding.SingleDeviceSharding(place))
        call = traced.lower(images).compile()
        return lambda images: call(images).block_until_ready(), "jax.jit ahead of time, weights as constants"

    def peak() -> int | None:
        told = place.memory_stats()
        return None if told is None else told.get("peak_bytes_in_use")

    return _Loaded(
        model=model,
        put=lambda images: jax.device_put(images, place),
        compile=compiled,
        get=np.asarray,
        tensor_float_32=jax.config.jax_default_matmul_precision not in ("float32", "highest"),
        peak=peak,
    )


def _torch(path: Path, threads: int, device: str) -> _Loaded:
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

    def eager(images: Any) -> Any:
        return model(images, training=False)

    # Compiled for one image, for the first larger batch, and for the next with a free batch, which serves all others.
    # On a GPU each batch is a CUDA graph of its own, with the kernels that are fastest for it.
    mode = "reduce-overhead" if device == "gpu" else "default"
    torch.backends.cudnn.benchmark = device == "gpu"
    optimized = torch.compile(eager, mode=mode)

    def compiled(shape: tuple[int, ...]) -> tuple[_Call, str]:
        call, how = optimized, f"torch.compile, mode {mode}"
        with torch.inference_mode(), keras.device(f"{device}:0"):
            try:
                call(torch.zeros(shape, device=place))
            except torch.OutOfMemoryError:
                raise
            except Exception as error:  # noqa: BLE001 - whatever stops the compiler is why the model runs without it
                call, how = eager, f"nothing (eager), as torch.compile failed: {one_line(error)}"

        def finished(images: Any) -> Any:
            with torch.inference_mode(), keras.device(f"{device}:0"):
                result = call(images)
            if device == "gpu":
                torch.cuda.synchronize()
            return result

        return finished, how

    return _Loaded(
        model=model,
        put=lambda images: torch.as_tensor(images, device=place),
        compile=compiled,
        get=lambda result: result.cpu().numpy(),
        tensor_float_32=bool(torch.backends.cudnn.allow_tf32 or torch.backends.cuda.matmul.allow_tf32),
        peak=lambda: int(torch.cuda.max_memory_allocated()),
    )


_LOAD: dict[str, Callable[[Path, int, str], _Loaded]] = {
    "tensorflow": _tensorflow,
    "jax": _jax,
    "torch": _torch,
}
