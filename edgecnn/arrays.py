"""Safe reading of untrusted .npz and .npy files: no Python objects, and memory in proportion to the file size."""

import math
import os
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from edgecnn.errors import DataError
from edgecnn.files import open_file

Array = npt.NDArray[Any]

_MOST_MEMBERS = 10_000
_MOST_HEADER = 10_000  # bytes of an array's header; numpy writes about a hundred
_MOST_GAIN = 200  # a compressed member may unpack to 200 times its size, or to _SMALL bytes
_SMALL = 1 << 26
_PIECE = 1 << 20
_LARGEST_CHARACTER = 0x10FFFF
_ADVICE = "save or copy it again"
_READERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
# Exceptions of zipfile for a damaged archive, and of numpy for a damaged header, which is parsed as Python text.
BAD_ZIP = (OSError, zipfile.BadZipFile, zlib.error, struct.error, EOFError, ValueError, OverflowError, RuntimeError)
_BAD_HEADER = (ValueError, TypeError, SyntaxError, tokenize.TokenError, OverflowError, RecursionError, MemoryError)


def read_npz(path: Path, keys: Sequence[str] | None = None, optional: Sequence[str] = ()) -> dict[str, Array]:
    """The arrays ``keys``, and the existing ones of ``optional``, from the .npz file at ``path``.

    Without ``keys``, all arrays, sorted by name. Arrays are of numbers or text.

    Raises:
        DataError: the file cannot be read, is damaged, contains other data, lacks a key, or would unpack to more memory
            than this machine has or than is plausible for its size.
    """
    with _opened(path) as (file, archive):
        return _arrays(path, file, archive, keys, optional)


def names_in(path: Path) -> list[str]:
    """The names of the arrays in the .npz file at ``path``, without reading them.

    Raises:
        DataError: the file cannot be read, is damaged, or has more than 10,000 arrays.
    """
    with _opened(path) as (_, archive):
        return [member.filename.removesuffix(".npy") for member in _members(path, archive)]


@contextmanager
def _opened(path: Path) -> Iterator[tuple[IO[bytes], zipfile.ZipFile]]:
    """The .npz file at ``path``; errors in the block are translated."""
    try:
        with open_file(path) as file:
            if file.read(2) != b"PK":  # zipfile accepts any prefix, such as an array
                raise zipfile.BadZipFile
            with zipfile.ZipFile(file) as archive:
                yield file, archive
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
    except zipfile.BadZipFile as error:
        raise DataError(
            f"{path} is not a .npz file (a zip of arrays) or is cut short or damaged{_why(error)}; {_ADVICE}"
        ) from error
    except BAD_ZIP as error:
        raise DataError(f"{path} is damaged{_why(error)}; {_ADVICE}") from error


def read_npy(path: Path) -> Array:
    """The array in the .npy file at ``path``: numbers or text.

    Raises:
        DataError: the file cannot be read, is damaged, or contains other data.
    """
    try:
        with open_file(path) as file:
            return _array(f"{path}", file, os.fstat(file.fileno()).st_size)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error


def _members(path: Path, archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    listed = archive.infolist()
    if len(listed) > _MOST_MEMBERS:
        raise DataError(
            f"{path} contains {len(listed):,} arrays, more than {_MOST_MEMBERS:,}; save only the needed ones"
        )
    return listed


def _arrays(
    path: Path, file: IO[bytes], archive: zipfile.ZipFile, keys: Sequence[str] | None, optional: Sequence[str]
) -> dict[str, Array]:
    listed = _members(path, archive)
    members = {member.filename.removesuffix(".npy"): member for member in listed}
    if missing := [key for key in keys or () if key not in members]:
        some = ", ".join(name[:40] for name in [*members][:8]) + (", …" if len(members) > 8 else "")
        raise DataError(
            f"{path} lacks {', '.join(missing)}; it has {some or 'nothing'}; save the arrays as {', '.join(keys or ())}"
        )
    if len(members) < len(listed):
        raise DataError(f"{path} contains {len(listed)} arrays with only {len(members)} names; {_ADVICE}")
    wanted = sorted(members) if keys is None else [key for key in (*keys, *optional) if key in members]
    chosen = {key: members[key] for key in wanted}
    for key, member in chosen.items():
        _check(f"{path}: {key[:40]}", member)
    if sum(member.compress_size for member in chosen.values()) > os.fstat(file.fileno()).st_size:
        raise DataError(f"{path} is smaller than the arrays listed in it; {_ADVICE}")
    check_memory(path, sum(member.file_size for member in chosen.values()))
    found = {}
    for key, member in chosen.items():
        with archive.open(member) as stream:
            found[key] = _array(f"{path}: {key[:40]}", stream, member.file_size)
    return found


def _check(where: str, member: zipfile.ZipInfo) -> None:
    """Refuse a member that is encrypted, unusually compressed, or implausibly large."""
    if member.flag_bits & 1:
        raise DataError(f"{where} is encrypted; {_ADVICE}")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise DataError(f"{where} uses a compression method that numpy does not write; {_ADVICE}")
    packed = member.compress_size
    allowed = packed if member.compress_type == zipfile.ZIP_STORED else max(_MOST_GAIN * packed, _SMALL)
    if member.file_size > allowed:
        raise DataError(
            f"{where} claims to be {packed:,} bytes that unpack to {member.file_size:,}, more than {allowed:,}; "
            "if that is right, save it uncompressed with numpy.savez"
        )


def check_memory(where: Path, needed: int) -> None:
    """Check that arrays of ``needed`` bytes from ``where`` fit into the memory of this machine.

    Raises:
        DataError: they do not.
    """
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > memory:
        raise DataError(
            f"the arrays of {where} need {needed:,} bytes of memory, this machine has {memory:,}; use smaller arrays"
        )


def _array(where: str, stream: IO[bytes], size: int) -> Array:
    """The array in ``stream``, an .npy file of ``size`` bytes."""
    try:
        version = np.lib.format.read_magic(stream)
    except ValueError as error:
        raise DataError(f"{where} is not a numpy array; {_ADVICE}") from error
    if version not in _READERS:
        raise DataError(f"{where} is in version {version} of numpy's format; save plain arrays")
    try:
        shape, fortran, dtype = _READERS[version](stream, max_header_size=_MOST_HEADER)
    except _BAD_HEADER as error:
        raise DataError(f"{where} has a header that cannot be read{_why(error)}; {_ADVICE}") from error
    if dtype.hasobject:
        raise DataError(f"{where} contains Python objects (pickle), which are never loaded; save plain arrays")
    if dtype.kind == "V" or not dtype.itemsize:
        raise DataError(f"{where} contains {str(dtype)[:60]}; save plain numbers or text")
    count = math.prod(shape)
    declared, there = count * dtype.itemsize, size - stream.tell()
    if min(shape, default=0) < 0 or declared != there:
        shown = str(shape) if len(shape) <= 4 else f"{len(shape)} dimensions"
        raise DataError(f"{where} is declared as {dtype} {shown[:60]}, but has {there:,} bytes; {_ADVICE}")
    content = np.empty(declared, np.uint8)
    place = memoryview(content.data)
    while len(place):
        piece = stream.read(min(len(place), _PIECE))
        if not piece:
            raise DataError(f"{where} is cut short; {_ADVICE}")
        place[: len(piece)] = piece
        place = place[len(piece) :]
    stream.read(1)  # reading past the end makes zipfile compare the checksum
    if dtype.kind == "U" and content.view(f"{dtype.str[0]}u4").max(initial=0) > _LARGEST_CHARACTER:
        raise DataError(f"{where} contains text with invalid Unicode characters; {_ADVICE}")
    try:
        array = content.view(dtype)
        return array.reshape(shape[::-1]).T if fortran else array.reshape(shape)
    except ValueError as error:  # more dimensions or a larger size than numpy supports
        raise DataError(f"{where} has a shape of {len(shape)} dimensions that numpy does not support") from error


def _why(error: BaseException) -> str:
    reason = " ".join(str(error).split())[:120]
    return f" ({reason})" if reason else ""
