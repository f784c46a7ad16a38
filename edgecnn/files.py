"""Files are written whole or not at all, and known by their SHA-256."""

import hashlib
import os
from pathlib import Path

from edgecnn.errors import OutputError


def sha256_bytes(data: bytes) -> str:
    """Hexadecimal SHA-256 of ``data``."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """Hexadecimal SHA-256 of the file at ``path``."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
