"""A device over the system's ssh. Ports, keys and jump hosts are the business of ``~/.ssh/config``."""

import shlex
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path

from edgecnn.device.transport import Answer, Transport
from edgecnn.errors import ConfigError, DeviceError

# Nobody is there to be asked for a password, and a device that went silent is given up after a minute.
_OPTIONS = ("BatchMode=yes", "ConnectTimeout=20", "ServerAliveInterval=15", "ServerAliveCountMax=4")
_UNREACHED = 255


class Ssh(Transport):
    """``[user@]host``, or a name from ``~/.ssh/config``.

    Raises:
        ConfigError: that is no name of a host.
        DeviceError: ssh is not installed.
    """

    tool = "ssh"
    without_python = "install it there, on Debian: apt install python3-venv"

    def __init__(self, host: str) -> None:
        if not host or host.startswith("-") or not host.isprintable() or " " in host:
            raise ConfigError(f"--ssh takes [user@]host, or a name from ~/.ssh/config; got {host!r}")
        self.name = host
        super().__init__()

    def command(self, line: str) -> list[str]:
        """See ``Transport``."""
        return [self.tool, *(word for option in _OPTIONS for word in ("-o", option)), "--", self.name, line]

    def put(self, files: Mapping[str, Path], folder: str) -> None:
        """See ``Transport``; as one tar, whose end tells that nothing was lost on the way."""
        with tempfile.TemporaryFile() as spool:
            with tarfile.open(fileobj=spool, mode="w") as archive:
                for name, path in files.items():
                    archive.add(path, arcname=name)
            spool.seek(0)
            answer = self.run(f"tar -xof - -C {shlex.quote(folder)}", stdin=spool)
        if answer.status != 0:
            raise DeviceError(f"cannot copy files to {self.name}: {answer.reason}")

    def check(self, answer: Answer) -> None:
        """See ``Transport``."""
        if answer.status == _UNREACHED:
            raise DeviceError(
                f"cannot reach {self.name} over ssh: {answer.reason}; edgecnn asks for no password and trusts no new "
                f"host: see that this works first: ssh -o BatchMode=yes {self.name} true"
            )
