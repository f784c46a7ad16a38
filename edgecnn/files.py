"""Files are written whole or not at all, and known by their SHA-256."""

import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import platformdirs

from edgecnn.errors import OutputError


def sha256_bytes(data: bytes) -> str:
    """Hexadecimal SHA-256 of ``data``."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """Hexadecimal SHA-256 of the file at ``path``."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def cache_folder() -> Path:
    """Where downloaded files are kept: ``$EDGECNN_CACHE``, else the user's cache folder."""
    return Path(os.environ.get("EDGECNN_CACHE") or platformdirs.user_cache_dir("edgecnn")).absolute()


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
    path = folder / ".lock"
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
    while True:
        lock = path.open("a+")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            if _is_at(path, lock):
                lock.truncate(0)
                lock.write(f"{os.getpid()}\n")
                lock.flush()
                return lock
        except BlockingIOError as error:
            lock.seek(0)
            process = lock.read(20).strip() or "unknown"
            lock.close()
            raise OutputError(
                f"another edgecnn process ({process}) works in {path.parent}; wait for it to end, or name another"
            ) from error
        lock.close()  # who had the lock has ended and removed the file: there is none, or another one


def _is_at(path: Path, file: IO[str]) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def write_atomic(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path`` so that a reader sees the old file or the new one, never a part.

    The temporary name is fixed, so what a killed process leaves behind is overwritten by the next.

    Raises:
        OutputError: the disk is full, or the place does not allow writing.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise OutputError(f"cannot write {path}: {error.strerror}") from error


def write_folder(path: Path, files: Mapping[str, bytes]) -> None:
    """Write ``files``, by their place below ``path``, as the whole content of the folder ``path``.

    They are written beside it and take its place when all are there. What was in ``path`` before is gone then: the
    caller has looked whether it may go. A process killed in between leaves the old folder or the new one; the old one
    under a name with ``.old`` where the moment was the worst, from where the next call takes it back.

    Raises:
        OutputError: the disk is full, or the place does not allow writing.
    """
    path = path.resolve()
    make_folder(path.parent)
    partial, old = (path.with_name(f".{path.name}.{kind}") for kind in ("partial", "old"))
    try:
        if old.exists() and not path.exists():
            old.rename(path)
        for leftover in (partial, old):
            if leftover.exists():
                shutil.rmtree(leftover)
        for name, data in files.items():
            place = partial / name
            place.parent.mkdir(parents=True, exist_ok=True)
            with place.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        if path.exists():
            path.rename(old)
        partial.rename(path)
        if old.exists():
            shutil.rmtree(old)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        if old.exists() and not path.exists():
            old.rename(path)
        raise OutputError(f"cannot write {path}: {error.strerror}") from error
