"""LiteRT with kernels of one's choice, where XNNPACK, its default, is not what is asked about."""

import warnings
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edgecnn.errors import SessionError
from edgecnn.optional import require
from edgecnn.quiet import quiet_stderr
from edgecnn.records import Artifact
from edgecnn.runtimes import Float
from edgecnn.runtimes.quantized_io import from_output, to_input

Kernels = Literal["reference", "built-in"]
_RESOLVERS = {"reference": "BUILTIN_REF", "built-in": "BUILTIN_WITHOUT_DEFAULT_DELEGATES"}


class KernelSession:
    """A .tflite file, image by image, with LiteRT's reference kernels or its built-in optimised ones.

    ``keep`` makes every tensor between operators readable with ``value``; XNNPACK cannot do that, it keeps what is
    between its operators to itself.

    Raises:
        SessionError: LiteRT refuses the file, for lack of such a kernel among others.
    """

    batch = 1

    def __init__(self, path: Path, artifact: Artifact, kernels: Kernels, *, keep: bool = False) -> None:
        module = require("ai_edge_litert.interpreter")
        try:
            with quiet_stderr(), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that keeping tensors takes memory
                self._interpreter = module.Interpreter(
                    model_path=str(path),
                    num_threads=1,
                    experimental_op_resolver_type=getattr(module.OpResolverType, _RESOLVERS[kernels]),
                    experimental_preserve_all_tensors=keep,
                )
                self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            reason = str(error).strip().splitlines()[0]
            raise SessionError(f"litert cannot load {path.name} with its {kernels} kernels: {reason}") from error
        (self._in,) = self._interpreter.get_input_details()
        (self._out,) = self._interpreter.get_output_details()
        self.input = artifact.input
        self.output = artifact.output

    def encode(self, images: Float) -> None:
        """Quantise ``images`` ``(1, height, width, channels)`` as the file's input asks and copy them in."""
        self._interpreter.set_tensor(self._in["index"], to_input(images, self.input))

    def invoke(self) -> None:
        """Run the model once.

        Raises:
            SessionError: a kernel failed; the message says which.
        """
        try:
            self._interpreter.invoke()
        except (ValueError, RuntimeError) as error:
            raise SessionError(f"litert failed while running: {str(error).strip()}") from error

    def decode(self) -> Float:
        """The output as float32 ``(1, classes)``."""
        return from_output(self._interpreter.get_tensor(self._out["index"]), self.output)

    def value(self, index: int) -> NDArray[Any]:
        """A copy of tensor ``index`` after ``invoke``, in its own type, shape and layout."""
        return np.asarray(self._interpreter.get_tensor(index))

    def provenance(self) -> bytes | None:
        """None: the artifact that the session was opened with has it."""
        return None

    def close(self) -> None:
        """Free the interpreter."""
        del self._interpreter
