"""A way to a device: its shell, and files put there and fetched from it."""

import contextlib
import os
import shlex
import shutil
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, NamedTuple

from edgecnn.errors import DeviceError

# Longer than the attendant needs, see below.
_GOODBYE_S = 20.0

# Runs on the device, by its Python: a command in a session of its own, which is interrupted as by Ctrl-C when the
# other end hangs up, and killed 10 s later. Otherwise it would go on: ssh passes no signal on without a terminal.
_ATTENDANT = """
import os, signal, subprocess, sys, threading
child = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL, start_new_session=True)
def attend():
    while os.read(0, 65536):
        pass
    try:
        os.killpg(child.pid, signal.SIGINT)
        child.wait(10)
    except (ProcessLookupError, subprocess.TimeoutExpired):
        pass
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
threading.Thread(target=attend, daemon=True).start()
sys.exit(child.wait())
"""


class Answer(NamedTuple):
    """What a line in the device's shell came to: exit status, output, and what it wrote to stderr if that was kept."""

    status: int
    out: bytes
    err: str

    @property
    def reason(self) -> str:
        """The last line of stderr."""
        return (self.err.strip().splitlines() or ["it gave no reason"])[-1].strip()


class Transport(ABC):
    """A way to a device.

    ``name`` is what messages call the device, ``tool`` the program that goes there, and ``without_python`` says what
    to do where the device has no Python.
    """

    name: str
    tool: str
    without_python: str

    def __init__(self) -> None:
        if shutil.which(self.tool) is None:
            raise DeviceError(f"the program {self.tool} is not installed here; it is needed to reach {self.name}")

    @abstractmethod
    def command(self, line: str) -> list[str]:
        """The command, here, that has the device's shell run ``line``."""

    @abstractmethod
    def put(self, files: Mapping[str, Path], folder: str) -> None:
        """Copy ``files``, by the names they get, into the folder ``folder`` of the device.

        Raises:
            DeviceError: that failed.
        """

    @abstractmethod
    def check(self, answer: Answer) -> None:
        """Raise a ``DeviceError`` if ``answer`` means that the device was not reached."""

    def run(self, line: str, *, stdin: IO[bytes] | None = None, show: bool = False) -> Answer:
        """Have the device's shell run ``line``; see ``execute``.

        Raises:
            DeviceError: the device cannot be reached.
        """
        answer = execute(self.command(line), stdin=stdin, show=show)
        self.check(answer)
        return answer

    def ask(self, line: str) -> bytes:
        """What ``line`` prints in the device's shell.

        Raises:
            DeviceError: it failed, or the device cannot be reached.
        """
        answer = self.run(line)
        if answer.status != 0:
            raise DeviceError(f"{self.name}: {line.split()[0]} failed: {answer.reason}")
        return answer.out

    def get(self, path: str) -> bytes:
        """The file at ``path`` of the device.

        Raises:
            DeviceError: it cannot be read.
        """
        return self.ask(f"cat {shlex.quote(path)}")


def attended(python: str, command: Sequence[str]) -> str:
    """A line that has ``python``, a path on the device, run ``command`` until it ends or the other side hangs up."""
    return shlex.join([python, "-P", "-c", _ATTENDANT, *command])


def execute(command: Sequence[str], *, stdin: IO[bytes] | None = None, show: bool = False) -> Answer:
    """Run ``command`` here, with ``stdin`` or with one that stays open; ``show`` what it writes to stderr.

    However this ends, the command has been hung up on when it does, so what an attendant runs for it is over.
    """
    waiting, hold = os.pipe()  # what the command reads ends when ``hold`` is closed, or when this process dies
    try:
        process = subprocess.Popen(
            command,
            stdin=waiting if stdin is None else stdin,
            stdout=subprocess.PIPE,
            stderr=None if show else subprocess.PIPE,
            start_new_session=True,  # Ctrl-C reaches this process alone, which lets the device finish
        )
    except BaseException:
        os.close(hold)
        raise
    finally:
        os.close(waiting)
    with process:
        try:
            out, err = process.communicate()
        finally:
            os.close(hold)
            try:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(_GOODBYE_S)
            finally:
                process.kill()
    return Answer(process.returncode, out, (err or b"").decode(errors="replace"))
