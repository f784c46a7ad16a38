"""Optional packages: imported where they are used; the error for a missing one names its extra."""

import importlib
import os
import sys
from importlib import metadata
from typing import Any, cast

from edgecnn.errors import MissingExtraError
from edgecnn.quiet import quiet_stderr

# top-level module -> the extra of edgecnn that brings it
_EXTRAS = {
    "keras": "train",
    "onnx": "train",
    "PIL": "train",
    "pooch": "train",
    "tensorflow": "train",
    "tensorflow_model_optimization": "tfmot",
    "tf2onnx": "train",
    "tf_keras": "tfmot",
    "jinja2": "report",
    "matplotlib": "report",
    "tflite_micro": "micro",
    "openvino": "openvino",
    "ethosu": "vela",
}


def require(module: str) -> Any:
    """Import ``module`` (dotted names allowed) and return it.

    Raises:
        MissingExtraError: the package is not installed; the message names its extra. Or ``KERAS_BACKEND`` names a back
            end that Keras cannot import.
    """
    top = module.partition(".")[0]
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # read once, when TensorFlow is first imported
    # ONNX Runtime 1.32 and later sends telemetry, and leaves a temporary file ".ses"
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    if top == "openvino":  # reports that it was imported, but only where this other package is
        sys.modules.setdefault("openvino_telemetry", cast(Any, None))
    try:
        with quiet_stderr():
            return importlib.import_module(module)
    except (ImportError, ValueError) as error:
        backend = os.environ.get("KERAS_BACKEND")
        if top == "keras" and getattr(error, "name", None) != "keras" and backend is not None:
            raise MissingExtraError(
                f"KERAS_BACKEND is {backend[:40]!r}, a back end that Keras cannot import here; unset it, or set it to "
                "one that is installed: tensorflow, jax or torch"
            ) from error
        if not isinstance(error, ModuleNotFoundError) or error.name is None or error.name.partition(".")[0] != top:
            raise  # an installed package is broken; show its own traceback
        raise missing(top) from error


def missing(package: str) -> MissingExtraError:
    """The error for a ``package``, named as a module or as in an index, that is not installed."""
    extra = _EXTRAS.get(package.replace("-", "_"))
    wanted = package if extra is None else f"'edgecnn[{extra}]'"
    return MissingExtraError(f"this needs the package {package!r}, which is not installed; run: pip install {wanted}")


def installed(package: str) -> str | None:
    """The version of ``package``, named as in an index; ``None`` if it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
