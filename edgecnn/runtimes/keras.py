"""The float Keras 3 model, compiled by the back end of Keras: the baseline of all reports."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from edgecnn.errors import SessionError, one_line
from edgecnn.models import as_list, called, given, load_model, output_names
from edgecnn.optional import require
from edgecnn.records import TensorSpec
from edgecnn.runtimes import Float
from edgecnn.runtimes.quantized_io import from_outputs, raw_of
from edgecnn.samples import Samples, parts

_Call = Callable[..., list[Any]]
_Shapes = tuple[tuple[int, ...], ...]


class _Loaded(NamedTuple):
    """A model on a device.

    ``put`` copies an array to a tensor on the device. ``compile`` returns, for the shapes of all inputs, a function
    from those tensors to the list of finished outputs on the device, and ``compiled_with`` of a ``Baseline``. ``get``
    copies an output to an array. ``tensor_float_32`` is as in a ``Baseline``; ``peak`` returns the peak GPU memory in
    bytes.
    """

    model: Any
    put: Callable[[Float], Any]
    compile: Callable[[_Shapes], tuple[_Call, str]]
    get: Callable[[Any], Any]
    tensor_float_32: bool
    peak: Callable[[], int | None]


class KerasSession:
    """A .keras file, compiled, on CPU or GPU, with the TensorFlow, JAX or PyTorch back end.

    ``threads`` 0 leaves the number to the back end. TensorFlow accepts another number only before its first operation
    in this process; JAX ignores it. The model is compiled again for each new shape of images, so ``batch`` may be
    changed. After the first images, ``compiled_with`` names the compiler, or the reason why the model is not compiled.
    ``tensor_float_32``: whether a GPU may round factors to TensorFloat-32; ``None`` on a CPU.
    """

    def __init__(self, path: Path, threads: int, batch: int, device: str) -> None:
        backend = require("keras").backend.backend()
        if backend not in _LOAD:
            raise SessionError(f"Keras runs on back end {backend!r}; edgecnn supports {', '.join(_LOAD)}")
        self._loaded = loaded = _LOAD[backend](path, threads, device)
        self._peak = loaded.peak if device == "gpu" else None
        self.tensor_float_32 = loaded.tensor_float_32 if device == "gpu" else None
        self.compiled_with = ""
        self.batch = batch
        self._call: Any
        self._in: list[Any]
        self._shapes: tuple[tuple[int, ...], ...]
        self._free()
        model = loaded.model
        self.inputs = tuple(_spec(each.name, each.shape) for each in model.inputs)
        self.outputs = tuple(
            _spec(name, each.shape) for name, each in zip(output_names(model), model.outputs, strict=True)
        )

    def encode(self, samples: Samples) -> None:
        """Copy ``samples`` to the device."""
        self.put(samples)

    def put(self, values: Samples) -> None:
        """As ``encode``: the inputs are float32."""
        arrays = [np.ascontiguousarray(part) for part in parts(values)]
        shapes = tuple(array.shape for array in arrays)
        if shapes != self._shapes:
            self._free()  # before the new allocations
            self._call, self.compiled_with = self._loaded.compile(shapes)
            self._shapes = shapes
        self._in = [self._loaded.put(array) for array in arrays]

    def invoke(self) -> None:
        """Run the model once and wait until the device has finished."""
        self._result = self._call(*self._in)

    def decode(self) -> Float:
        """The outputs as float32 ``(batch, values)``."""
        return from_outputs(self.take(), self.outputs)

    def take(self) -> Samples:
        """The outputs, float32."""
        found = [np.asarray(self._loaded.get(each), dtype=np.float32) for each in self._result]
        return raw_of(found, self.outputs)

    def peak_device_bytes(self) -> int | None:
        """The peak GPU memory of this process in bytes; ``None`` on a CPU, or if unknown."""
        return None if self._peak is None else self._peak()

    def provenance(self) -> bytes | None:
        """``None``: a .keras file is the origin of all others."""
        return None

    def close(self) -> None:
        """Free the compiled model."""
        self._free()
        del self._loaded

    def _free(self) -> None:
        self._call = self._result = None
        self._in = []
        self._shapes = ()


def _spec(name: str, shape: tuple[int | None, ...]) -> TensorSpec:
    layout: Literal["NHWC", "NC"] = "NHWC" if len(shape) == 4 else "NC"
    return TensorSpec(name=name, shape=(None, *shape[1:]), dtype="float32", layout=layout)


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
            raise SessionError(
                "TensorFlow is already initialised, so its number of threads cannot change; use a fresh process"
            ) from error
    place = "/GPU:0" if device == "gpu" else "/CPU:0"
    with tf.device(place):
        model = load_model(path)

    def compiled(shapes: _Shapes) -> tuple[_Call, str]:
        call = tf.function(lambda *tensors: called(model, tensors), jit_compile=device == "gpu")

        def finished(*tensors: Any) -> list[Any]:
            with tf.device(place):
                result: list[Any] = call(*tensors)
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

    def compiled(shapes: _Shapes) -> tuple[_Call, str]:
        # Constant weights are not passed in every call, and are laid out for the kernels only once.
        def stateless(*tensors: Any) -> list[Any]:
            outputs, _ = model.stateless_call(*weights, given(tensors), training=False)
            return as_list(outputs)

        sharding = jax.sharding.SingleDeviceSharding(place)
        tensors = [jax.ShapeDtypeStruct(shape, np.float32, sharding=sharding) for shape in shapes]
        call = jax.jit(stateless).lower(*tensors).compile()

        def finished(*tensors: Any) -> list[Any]:
            result: list[Any] = jax.block_until_ready(call(*tensors))
            return result

        return finished, "jax.jit ahead of time, weights as constants"

    def peak() -> int | None:
        stats = place.memory_stats()
        return None if stats is None else stats.get("peak_bytes_in_use")

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

    def eager(*tensors: Any) -> list[Any]:
        return called(model, tensors)

    # Compiled for one image, for the first larger batch, and then with a dynamic batch for all others.
    # On a GPU each batch has its own CUDA graph, with its fastest kernels.
    mode = "reduce-overhead" if device == "gpu" else "default"
    torch.backends.cudnn.benchmark = device == "gpu"
    optimized = torch.compile(eager, mode=mode)

    def compiled(shapes: _Shapes) -> tuple[_Call, str]:
        call, how = optimized, f"torch.compile, mode {mode}"
        with torch.inference_mode(), keras.device(f"{device}:0"):
            try:
                call(*(torch.zeros(shape, device=place) for shape in shapes))
            except torch.OutOfMemoryError:
                raise
            except Exception as error:  # noqa: BLE001 - any compiler error is the reason to run without it
                call, how = eager, f"nothing (eager), as torch.compile failed: {one_line(error)}"

        def finished(*tensors: Any) -> list[Any]:
            with torch.inference_mode(), keras.device(f"{device}:0"):
                result: list[Any] = call(*tensors)
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
