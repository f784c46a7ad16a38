"""A device with adbd: an Android shell, or an embedded Linux board that is reached over USB."""

import re
from collections.abc import Mapping
from pathlib import Path

from edgecnn.device.transport import Answer, Transport, execute
from edgecnn.errors import ConfigError, DeviceError

_SERIAL = re.compile(r"[A-Za-z0-9_.:\[\]][A-Za-z0-9_.:\[\]%-]*")
# How adb itself says that it did not get through; what the device's shell says is not its own.
_UNREACHED = re.compile(r"^(?:adb: )?(?:error: |device .* not found|no devices)", re.MULTILINE)


class Adb(Transport):
    """The device with this serial number, or without one the only device there is (or ``ANDROID_SERIAL``).

    Raises:
        ConfigError: that is no serial number.
        DeviceError: adb is not installed.
    """

    tool = "adb"
    without_python = "Android brings none: put a Linux into Termux and use --ssh (docs/device.md)"

    def __init__(self, serial: str | None = None) -> None:
        if serial and not _SERIAL.fullmatch(serial):
            raise ConfigError(f"--adb takes a serial number as adb devices lists them; got {serial!r}")
        self._device = ["-s", serial] if serial else []
        self.name = f"adb device {serial}" if serial else "the adb device"
        super().__init__()

    def command(self, line: str) -> list[str]:
        """See ``Transport``."""
        return [self.tool, *self._device, "shell", line]

    def put(self, files: Mapping[str, Path], folder: str) -> None:
        """See ``Transport``."""
        for name, path in files.items():
            answer = execute([self.tool, *self._device, "push", str(path), f"{folder}/{name}"])
            if answer.status != 0:
                raise DeviceError(f"cannot copy {name} to {self.name}: {answer.reason}")

    def check(self, answer: Answer) -> None:
        """See ``Transport``."""
        if answer.status != 0 and _UNREACHED.search(answer.err):
            raise DeviceError(f"cannot reach {self.name}: {answer.reason}; see what this lists: adb devices")
