"""Generated C, compiled for this machine and loaded into this process.

The file is compiled and run: give it code that you trust.
"""

import _ctypes
import ctypes
import os
import re
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecnn.errors import ArtifactError, SessionError
from edgecnn.files import read_bytes
from edgecnn.records import GeneratedC, from_json, to_json
from edgecnn.runtimes import Float
from edgecnn.runtimes.quantized_io import from_output, to_input

_FLAGS = ("-std=c99", "-O3", "-shared", "-fPIC")
_COMPILE_LIMIT_S = 300


class C99Session:
    """A .c file that edgecnn generated, with its .h beside, compiled with $CC or the system's C compiler."""

    def __init__(self, path: Path, threads: int, batch: int, device: str) -> None:
        if device != "cpu":
            raise SessionError(f"c99 runs {path.name} on cpu only here, not on {device!r}")
        if batch != 1:
            raise SessionError(
                f"{path.name} was exported for a fixed batch of 1, {batch} was asked for; C code runs image by image, "
                "take another format for batches: export it with --batch dynamic"
            )
        self._said = read_generated(path)
        self.arena_bytes = self._said.memory.arena_bytes
        self.batch = batch
        self.input, self.output = self._said.input, self._said.output
        with tempfile.TemporaryDirectory() as folder:  # each session has a library, and so an arena, of its own
            self._library = ctypes.CDLL(str(_compiled(path, Path(folder))))
        try:
            self._invoke = getattr(self._library, f"{self._said.name}_invoke")
        except AttributeError as error:
            raise SessionError(f"{path.name} has no function {self._said.name}_invoke; export it again") from error
        self._invoke.restype = None
        self._out = np.zeros([size or 1 for size in self.output.shape], self.output.dtype)
        self._arena = np.zeros(self._said.memory.arena_bytes // 4 + 1, np.int32)
        arrays = [self._out, self._arena] if self._said.caller_arena else [self._out]
        self._after = [ctypes.c_void_p(array.ctypes.data) for array in arrays]

    def encode(self, images: Float) -> None:
        """Quantise ``images`` as the code's input asks."""
        self.put(to_input(images, self.input))

    def put(self, values: NDArray[Any]) -> None:
        """Run on ``values`` where they are, which are contiguous."""
        self._in = values
        self._arguments = [ctypes.c_void_p(self._in.ctypes.data), *self._after]

    def invoke(self) -> None:
        """Run the model once."""
        self._invoke(*self._arguments)

    def decode(self) -> Float:
        """The output as float32 ``(1, classes)``."""
        return from_output(self._out, self.output)

    def take(self) -> NDArray[Any]:
        """The buffer that the code writes to."""
        return self._out

    def provenance(self) -> bytes | None:
        """What stands in the comment at the beginning of the file."""
        return to_json(self._said.provenance) if self._said.provenance else None

    def close(self) -> None:
        """Unload the library."""
        _ctypes.dlclose(self._library._handle)


def header_of(path: Path) -> Path:
    """The header that belongs to the .c file at ``path``."""
    return path.with_suffix(".h")


def read_generated(path: Path) -> GeneratedC:
    """What the generated .c file at ``path`` says of itself.

    Raises:
        ArtifactError: edgecnn did not generate it, or its header is missing.
        RecordError: what it says is damaged.
    """
    said = said_in(read_bytes(path), path.name)
    if not header_of(path).is_file():
        raise ArtifactError(f"{path.name} belongs to {header_of(path).name}, which is not beside it; copy it there")
    return said


def said_in(source: bytes, where: str) -> GeneratedC:
    """What the generated C code ``source`` says of itself; ``where`` names it in errors.

    Raises:
        ArtifactError, RecordError: as :func:`read_generated`.
    """
    found = re.search(rb"^   edgecnn: (\{.*\})$", source, re.MULTILINE)
    if found is None:
        raise ArtifactError(f"{where} is no C code of edgecnn's; write some with: edgecnn export --formats c99")
    return from_json(found[1], GeneratedC, f"the comment in {where}")


def _compiled(path: Path, folder: Path) -> Path:
    named = os.environ.get("CC", "").strip() or "cc"
    try:
        program, *arguments = shlex.split(named)  # a command with arguments, as make takes it
    except ValueError as error:
        raise SessionError(f"the variable CC is {named[:80]!r}, which is no command: {error}") from error
    compiler = shutil.which(program)
    if compiler is None:
        raise SessionError(
            f"{path.name} needs a C compiler, and {program[:80]!r} is not here; install one (Debian: apt install gcc), "
            "or name it in the variable CC, with arguments if you like: CC='gcc -m64'"
        )
    library = folder / "model.so"
    command = [compiler, *arguments, *_FLAGS, "-o", str(library), str(path.resolve())]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_COMPILE_LIMIT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise SessionError(f"{path.name} was still compiling after {_COMPILE_LIMIT_S} s") from error
    except OSError as error:
        raise SessionError(f"{path.name} cannot be compiled: {compiler}: {error.strerror}") from error
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if "error" in line] or done.stderr.splitlines()
        raise SessionError(f"{path.name} does not compile: {(lines or ['no message'])[0].strip()}")
    return library
