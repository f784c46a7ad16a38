"""File access: only regular files are read, writes are atomic, files are identified by their SHA-256."""

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
"""The lock file of a folder; it contains the id of the process that works there."""

# Names of partial files and folders: a short hash of the final name, and a random part.
_PARTIAL = re.compile(r"\.edgecnn-([0-9a-f]{12})-[0-9a-f]{12}\.partial")


def open_file(path: Path) -> BufferedReader:
    """Open the regular file at ``path`` for reading. Pipes and devices, which may be endless, are refused.

    Raises:
        OSError: the file is missing, not a regular file, or not readable.
    """
    if "\0" in str(path):
        raise OSError(errno.EINVAL, "a file name cannot contain a zero byte", str(path))
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
        ArtifactError: there is none; ``error`` is raised instead if given.
    """
    if not path.is_file():
        advice = "" if path.suffix in (".keras", ".h5") else ", or export one with: edgecnn export"
        raise error(f"no model file at {path}; check the path{advice}")


def read_bytes(path: Path, most: int = _LARGEST) -> bytes:
    """The content of the regular file at ``path``.

    Raises:
        OSError: as ``open_file``, or the file has more than ``most`` bytes.
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
    """Hexadecimal SHA-256 of the file at ``path``; raises as ``open_file``."""
    with open_file(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_folder(path: Path) -> str:
    """Hexadecimal SHA-256 of the names and contents of all files below ``path``, in the order of their names."""
    files = sorted(file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file())
    return sha256_bytes("\0".join(f"{name}\0{sha256_file(path / name)}" for name in files).encode())


def kits_folder() -> Path:
    """The folder with the sources of the kits: ``edgecnn/kits`` where installed, ``export`` in a checkout."""
    package = Path(__file__).parent
    installed = package / "kits"
    return installed if installed.is_dir() else package.parent / "export"


def cache_folder() -> Path:
    """The folder for downloaded files: ``$EDGECNN_CACHE``, else the user's cache folder."""
    return Path(os.environ.get("EDGECNN_CACHE") or platformdirs.user_cache_dir("edgecnn")).absolute()


def make_cache_folder(path: Path) -> Path:
    """``make_folder`` for a folder below ``cache_folder()``; its errors tell how to choose another cache folder."""
    try:
        return make_folder(path)
    except OutputError as error:
        raise OutputError(
            f"{error}; it is in the cache folder, set EDGECNN_CACHE to use another folder for the cache"
        ) from error


def make_folder(path: Path) -> Path:
    """Create ``path`` and its parents, and check that it is writable; return it.

    Raises:
        OutputError: it is a file, or cannot be created or written to.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise OutputError(f"output folder {path} is a file; choose a folder, or remove the file") from error
    except NotADirectoryError as error:
        raise OutputError(f"a parent of output folder {path} is a file; choose another folder") from error
    except OSError as error:
        raise OutputError(f"cannot create output folder {path}: {error.strerror}") from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise OutputError(f"output folder {path} is not writable; change its permissions or choose another")
    return path


@contextmanager
def locked(folder: Path, *, wait: bool = True) -> Iterator[None]:
    """Lock ``folder`` against other processes that call this function.

    The system releases the lock of a process that ends for any reason.

    Raises:
        OutputError: the folder is not writable; or another process holds the lock and ``wait`` is false.
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
                    f"another edgecnn process ({process}) works in {path.parent}; wait for it to end, or choose "
                    "another folder"
                ) from error
            if _is_at(path, lock):
                lock.truncate(0)
                lock.write(f"{os.getpid()}\n")
                lock.flush()
                stack.pop_all()
                return lock
            # the previous holder removed the file: try again with a new one


def _is_at(path: Path, file: IO[str]) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def write_atomic(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path`` atomically: a reader sees the old file or the new one, never a part.

    Partial files of killed processes for the same path are removed.

    Raises:
        OutputError: the disk is full, the folder is not writable, or ``path`` exists and is not a file.
    """
    try:
        if path.exists() and not path.is_file():
            raise OutputError(f"cannot write {path}: it exists and is not a file; choose another name")
        _remove_dead(path)
        while True:
            partial = _partial(path)
            descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
            with os.fdopen(descriptor, "wb") as file:
                _claim(descriptor)
                if os.fstat(descriptor).st_nlink == 0:  # removed as a leftover before it was locked
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
    """Replace the folder ``path`` by one with ``files``: relative path to content.

    The files are written to a temporary folder beside ``path``, which then replaces it. The old content is deleted; the
    caller must check that this is allowed. If the process is killed, the old or the new folder remains; if it is killed
    between the two renames, the next call restores the old folder.

    Raises:
        OutputError: the disk is full, or the folder is not writable.
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
            _restore(partial, path)
            shutil.rmtree(partial, ignore_errors=True)
            os.close(descriptor)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}") from error


def remove_leftovers(folder: Path) -> None:
    """Remove the partial files of killed processes in ``folder`` and below; files being written are kept."""
    for path in folder.rglob(".edgecnn-*.partial"):
        if _PARTIAL.fullmatch(path.name):
            _remove_if_dead(path)


def _partial(path: Path) -> Path:
    """A new partial name beside ``path``."""
    return path.with_name(f".edgecnn-{_hashed(path)}-{secrets.token_hex(6)}.partial")


def _hashed(path: Path) -> str:
    return sha256_bytes(os.fsencode(path.name))[:12]


def _claim(descriptor: int) -> None:
    """Lock ``descriptor``, to mark the partial file as being written while it is open."""
    with contextlib.suppress(OSError):  # without file locks, leftovers are never removed
        fcntl.flock(descriptor, fcntl.LOCK_EX)


def _remove_dead(path: Path) -> None:
    """Remove partial files of killed processes for ``path``, and restore a folder that one had moved aside."""
    for beside in path.parent.iterdir():
        if (found := _PARTIAL.fullmatch(beside.name)) and found[1] == _hashed(path):
            _remove_if_dead(beside, path)


def _remove_if_dead(partial: Path, path: Path | None = None) -> None:
    with contextlib.suppress(OSError):  # being written, already finished, or another user's: keep it
        descriptor = os.open(partial, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not partial.is_dir():
                partial.unlink()
                return
            if path is not None:
                _restore(partial, path)
            shutil.rmtree(partial)
        finally:
            os.close(descriptor)


def _restore(partial: Path, path: Path) -> None:
    """Move the old folder back to ``path``, if it was moved aside and not replaced."""
    if (partial / "old").exists() and not path.exists():
        (partial / "old").rename(path)
