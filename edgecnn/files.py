"""Files are read if they are files, written whole or not at all, and known by their SHA-256."""

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import IO

import platformdirs

from edgecnn.errors import ArtifactError, EdgecnnError, OutputError

_LARGEST = 2**31 - 1  # bytes; neither a .tflite nor an .onnx file can be larger
LOCK = ".edgecnn.lock"
"""The file in a folder that says who works there."""

# Half-written files and folders: the name they are to have, hashed so that it is short, and a random part.
_PARTIAL = re.compile(r"\.edgecnn-([0-9a-f]{12})-[0-9a-f]{12}\.partial")


def open_file(path: Path) -> BufferedReader:
    """The regular file at ``path``, open for reading. Pipes and devices, which may never end, are refused.

    Raises:
        OSError: there is none, it is something else, or it cannot be read.
    """
    if "\0" in str(path):
        raise OSError(errno.EINVAL, "no file has a zero byte in its name", str(path))
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    raise OSError(errno.EINVAL, "it is a pipe or a device, not a file", str(path))


def need_model(path: Path, error: type[EdgecnnError] = ArtifactError) -> None:
    """Check that there is a model file at ``path``.

    Raises:
        ArtifactError: there is none; or an ``error`` of another class.
    """
    if not path.is_file():
        advice = "" if path.suffix == ".keras" else ", or export one with: edgecnn export"
        raise error(f"no model file at {path}; check the path{advice}")


def read_bytes(path: Path, most: int = _LARGEST) -> bytes:
    """The content of the regular file at ``path``, of at most ``most`` bytes.

    Raises:
        OSError: as ``open_file``, or it is larger.
    """
    with open_file(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > most:
            raise OSError(errno.EFBIG, f"it has {size:,} bytes, more than {most:,}", str(path))
        return file.read()


def sha256_bytes(data: bytes) -> str:
    """Hexadecimal SHA-256 of ``data``."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """Hexadecimal SHA-256 of the file at ``path``; errors as those of ``open_file``."""
    with open_file(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def kits_folder() -> Path:
    """The folder with the sources of the kits: ``edgecnn/kits`` where installed, ``export`` in a checkout."""
    package = Path(__file__).parent
    installed = package / "kits"
    return installed if installed.is_dir() else package.parent / "export"


def cache_folder() -> Path:
    """Where downloaded files are kept: ``$EDGECNN_CACHE``, else the user's cache folder."""
    return Path(os.environ.get("EDGECNN_CACHE") or platformdirs.user_cache_dir("edgecnn")).absolute()


def make_cache_folder(path: Path) -> Path:
    """``make_folder`` for one below ``cache_folder()``; its errors say how to have another."""
    try:
        return make_folder(path)
    except OutputError as error:
        raise OutputError(f"{error}; it is in the cache, for which EDGECNN_CACHE names another folder") from error


def make_folder(path: Path) -> Path:
    """Create ``path`` and its parents, and check that it can be written to.

    Raises:
        OutputError: it is a file, or the place does not allow writing.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise OutputError(f"output folder {path} is a file; name a folder, or remove the file") from error
    except NotADirectoryError as error:
        raise OutputError(f"output folder {path} lies below a file; name another folder") from error
    except OSError as error:
        raise OutputError(f"cannot create output folder {path}: {error.strerror}") from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise OutputError(f"output folder {path} is not writable; change its permissions or name another")
    return path


@contextmanager
def locked(folder: Path, *, wait: bool = True) -> Iterator[None]:
    """Let no other process that asks for the same into ``folder`` at the same time.

    The system frees the lock of a process that ends, however it ends.

    Raises:
        OutputError: the folder cannot be written to; or another process is in it, and this one is not to ``wait``.
    """
    path = folder / LOCK
    try:
        lock = _locked_file(path, wait)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}; change its permissions") from error
    with lock:
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def _locked_file(path: Path, wait: bool) -> IO[str]:
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    while True:
        with contextlib.ExitStack() as stack:
            lock = stack.enter_context(os.fdopen(os.open(path, flags, 0o666), "r+"))
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError as error:
                process = lock.read(20).strip() or "unknown"
                raise OutputError(
                    f"another edgecnn process ({process}) works in {path.parent}; wait for it to end, or name another"
                ) from error
            if _is_at(path, lock):
                lock.truncate(0)
                lock.write(f"{os.getpid()}\n")
                lock.flush()
                stack.pop_all()
                return lock
            # who had the lock has ended and removed the file: there is none, or another one


def _is_at(path: Path, file: IO[str]) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def write_atomic(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path`` so that a reader sees the old file or the new one, never a part.

    What a killed process left of an earlier write of the same file is removed.

    Raises:
        OutputError: the disk is full, the place does not allow writing, or something is there that is no file.
    """
    try:
        if path.exists() and not path.is_file():
            raise OutputError(f"cannot write {path}: what is there is no file; name another")
        _remove_dead(path)
        while True:
            partial = _partial(path)
            descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
            with os.fdopen(descriptor, "wb") as file:
                _claim(descriptor)
                if os.fstat(descriptor).st_nlink == 0:  # taken for dead before it was claimed
                    continue
                try:
                    file.write(data)
                    file.flush()
                    os.fsync(descriptor)
                    partial.replace(path)
                except BaseException:
                    partial.unlink(missing_ok=True)
                    raise
                return
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}") from error


def write_folder(path: Path, files: Mapping[str, bytes]) -> None:
    """Write ``files``, by their place below ``path``, as the whole content of the folder ``path``.

    They are written beside it and take its place when all are there. What was in ``path`` before is gone then: the
    caller has looked whether it may go. A process killed in between leaves the old folder or the new one; where the
    moment was the worst, the old one is taken back by the next call.

    Raises:
        OutputError: the disk is full, or the place does not allow writing.
    """
    path = path.resolve()
    make_folder(path.parent)
    try:
        _remove_dead(path)
        partial = _partial(path)
        new, old = partial / "new", partial / "old"
        partial.mkdir()
        descriptor = os.open(partial, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _claim(descriptor)
            for name, data in files.items():
                place = new / name
                place.parent.mkdir(parents=True, exist_ok=True)
                with place.open("wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
            if path.exists():
                path.rename(old)
            new.rename(path)
        finally:
            _take_back(partial, path)
            shutil.rmtree(partial, ignore_errors=True)
            os.close(descriptor)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}") from error


def remove_leftovers(folder: Path) -> None:
    """Remove all that killed processes left half-written in ``folder`` and below; what is being written stays."""
    for path in folder.rglob(".edgecnn-*.partial"):
        if _PARTIAL.fullmatch(path.name):
            _remove_if_dead(path)


def _partial(path: Path) -> Path:
    """A new name beside ``path`` for what is to be there."""
    return path.with_name(f".edgecnn-{_hashed(path)}-{secrets.token_hex(6)}.partial")


def _hashed(path: Path) -> str:
    return sha256_bytes(os.fsencode(path.name))[:12]


def _claim(descriptor: int) -> None:
    """Show that whoever writes this lives, for as long as ``descriptor`` is open."""
    with contextlib.suppress(OSError):  # where files cannot be locked, nothing is taken for dead either
        fcntl.flock(descriptor, fcntl.LOCK_EX)


def _remove_dead(path: Path) -> None:
    """Remove what killed processes left of ``path``, and take back the folder that one had moved aside."""
    for beside in path.parent.iterdir():
        if (found := _PARTIAL.fullmatch(beside.name)) and found[1] == _hashed(path):
            _remove_if_dead(beside, path)


def _remove_if_dead(partial: Path, path: Path | None = None) -> None:
    with contextlib.suppress(OSError):  # being written, finished meanwhile, or another user's: it is in nobody's way
        descriptor = os.open(partial, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not partial.is_dir():
                partial.unlink()
                return
            if path is not None:
                _take_back(partial, path)
            shutil.rmtree(partial)
        finally:
            os.close(descriptor)


def _take_back(partial: Path, path: Path) -> None:
    """The folder that was at ``path`` is there again, if it was moved aside and nothing took its place."""
    if (partial / "old").exists() and not path.exists():
        (partial / "old").rename(path)
