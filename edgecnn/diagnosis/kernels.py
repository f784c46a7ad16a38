"""LiteRT with kernels of one's choice, where XNNPACK, its default, is not what is asked about."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecnn.errors import SessionError, one_line
from edgecnn.optional import require
from edgecnn.quiet import quiet_stderr
from edgecnn.records import Artifact
from edgecnn.runtimes.litert import Kernels, LitertSession, open_interpreter
from edgecnn.worker import confine


class KernelSession(LitertSession):
    """A .tflite file, image by image, with LiteRT's reference kernels or its built-in optimised ones.

    ``keep`` makes every tensor between operators readable with ``value``; XNNPACK cannot do that, it keeps what is
    between its operators to itself.

    Raises:
        SessionError: LiteRT refuses the file, for lack of such a kernel among others.
    """

    def __init__(self, path: Path, artifact: Artifact, kernels: Kernels, *, keep: bool = False) -> None:
        require("ai_edge_litert.interpreter")  # what it takes does not count
        confine(path.stat().st_size)
        try:
            with quiet_stderr(), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that keeping tensors takes memory
                self._interpreter = open_interpreter(path, kernels=kernels, keep=keep)
                self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise SessionError(
                f"litert cannot load {path.name} with its {kernels} kernels: {one_line(error)}"
            ) from error
        (self._in,) = self._interpreter.get_input_details()
        (self._out,) = self._interpreter.get_output_details()
        self.batch = 1
        self._path = path
        self.input = artifact.input
        self.output = artifact.output

    def value(self, index: int) -> NDArray[Any]:
        """A copy of tensor ``index`` after ``invoke``, in its own type, shape and layout."""
        return np.asarray(self._interpreter.get_tensor(index))
