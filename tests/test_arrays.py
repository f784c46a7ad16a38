"""Arrays that others wrote: the same as numpy reads, or one line that says what is wrong."""

import io
import re
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgecnn.arrays import read_npy, read_npz
from edgecnn.errors import DataError

SOUND: dict[str, Any] = {
    "fortran": np.asfortranarray(np.arange(24.0).reshape(2, 3, 4)),
    "big-endian": np.arange(5, dtype=">i4"),
    "big-endian text": np.array(["ä", "b"]).astype(">U1"),
    "float16": np.arange(3, dtype=np.float16),
    "truth": np.array([True, False]),
    "scalar": np.array(7),
    "empty": np.zeros((0, 3), np.float32),
    "large": np.arange(3 * 2**20, dtype=np.uint8),  # read in more than one piece
}


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_are_those_that_numpy_reads(save: Callable[..., None], tmp_path: Path) -> None:
    save(tmp_path / "x.npz", **SOUND)
    found = read_npz(tmp_path / "x.npz")
    assert [*found] == sorted(SOUND)
    for name, array in SOUND.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype
        np.save(tmp_path / "x.npy", array)
        np.testing.assert_array_equal(read_npy(tmp_path / "x.npy"), array)


def npy(header: str, version: int = 1, content: bytes = b"") -> bytes:
    text = header.encode()
    return b"\x93NUMPY" + bytes([version, 0]) + struct.pack("<H" if version == 1 else "<I", len(text)) + text + content


def described(descr: object, shape: object, content: bytes = b"") -> bytes:
    return npy(f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape!r}}}", content=content)


BAD = {
    "a word that is no Python": (npy("'"), "has a header that cannot be read"),
    "a bracket that is never closed": (npy("(((("), "has a header that cannot be read"),
    "ten thousand brackets": (npy("[" * 9000), "has a header that cannot be read"),
    "a header of a megabyte": (npy(" " * 1_000_000, version=2), "has a header that cannot be read"),
    "a shape of fractions": (described("|u1", (1.5,)), "has a header that cannot be read"),
    "a shape beyond all numbers": (described("|u1", (10**30, 10**30)), "but has 0 bytes"),
    "no bytes in a shape beyond all numbers": (described("|u1", (0, 10**30)), "that numpy does not support"),
    "a hundred dimensions": (described("|u1", (1,) * 99, b"x"), "a shape of 99 dimensions that numpy does not support"),
    "a negative shape": (described("|u1", (-2, -2), b"four"), r"\(-2, -2\), but has 4 bytes"),
    "text of no length, endlessly often": (described("<U0", (10**12,)), "contains <U0; save plain numbers or text"),
    "a type of a terabyte": (described("|S999999999", (1,)), "but has 0 bytes"),
    "an unknown type": (described("|q7", (1,)), "has a header that cannot be read"),
    "Python objects": (described("|O", (1,), b"\x80\x04."), r"Python objects \(pickle\), which are never loaded"),
    "a table": (described([("a", "<i4")], (1,), bytes(4)), "save plain numbers or text"),
    "too few bytes": (described("|u1", (5,), b"four"), r"is declared as uint8 \(5,\), but has 4 bytes"),
    "too many bytes": (described("|u1", (3,), b"four"), "but has 4 bytes"),
    "characters that there are not": (
        described("<U1", (1,), b"\xff\xff\xff\x7f"),
        "text with invalid Unicode characters",
    ),
    "version 9": (npy("{}", 9), "version"),
    "text": (b"text", "is not a numpy array"),
    "nothing": (b"", "is not a numpy array"),
}


@pytest.mark.parametrize(("content", "message"), BAD.values(), ids=BAD)
def test_a_damaged_array_is_told_in_one_line(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "x.npy").write_bytes(content)
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("x.npy", content)
    for read, name in ((read_npy, "x.npy"), (read_npz, "x.npz: x")):
        with pytest.raises(DataError, match=message) as caught:
            read(tmp_path / name.partition(":")[0])
        assert str(caught.value).startswith(f"{tmp_path / name} ")
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 400 + len(str(tmp_path))


def packed(*members: tuple[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return buffer.getvalue()


ONE = described("|u1", (4,), b"four")
MEMBER = ("x.npy", ONE)


def claiming(size: int) -> bytes:
    """An archive whose only array says that it is of ``size`` bytes, stored."""
    content = packed(MEMBER)
    return content.replace(struct.pack("<II", len(ONE), len(ONE)), struct.pack("<II", size, size))


BOMB = described("|u1", (100_000_000,), bytes(100_000_000))
ARCHIVES = {
    "bzip2": (packed(MEMBER, method=zipfile.ZIP_BZIP2), "x uses a compression method that numpy does not write"),
    "lzma": (packed(MEMBER, method=zipfile.ZIP_LZMA), "x uses a compression method that numpy does not write"),
    "encrypted": (packed(MEMBER).replace(b"PK\1\2\x14\3\x14\0\0\0", b"PK\1\2\x14\3\x14\0\1\0"), "x is encrypted"),
    "a zip bomb": (
        packed(("x.npy", BOMB), method=zipfile.ZIP_DEFLATED),
        r"bytes that unpack to 100,000,\d+, more than .*; if that is right, save it uncompressed with numpy\.savez",
    ),
    "more than the file": (claiming(2_000_000_000), "is smaller than the arrays listed in it"),
    "twelve thousand arrays": (
        packed(*((f"{number}.npy", b"") for number in range(12_000))),
        "contains 12,000 arrays, more than 10,000",
    ),
    "one name twice": (packed(MEMBER, ("x", ONE)), "contains 2 arrays with only 1 names"),
    "a wrong checksum": (packed(MEMBER).replace(b"four", b"FOUR"), "Bad CRC-32"),
}


@pytest.mark.parametrize(("content", "message"), ARCHIVES.values(), ids=ARCHIVES)
def test_an_archive_that_is_not_what_numpy_writes(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        read_npz(path, ("x",) if "12,000" not in message else None)
    assert str(caught.value).startswith(str(path))


def test_a_message_names_a_few_members_only(tmp_path: Path) -> None:
    (tmp_path / "x.npz").write_bytes(packed(*((f"{'y' * 1000}{number}.npy", b"") for number in range(5000))))
    with pytest.raises(DataError, match=re.escape("x.npz lacks x; it has " + ", ".join(["y" * 40] * 8) + ", …; save")):
        read_npz(tmp_path / "x.npz", ("x",))
