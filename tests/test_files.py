"""Files are whole or not there."""

import errno
import hashlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from edgecnn.errors import OutputError
from edgecnn.files import (
    locked,
    make_folder,
    read_bytes,
    remove_leftovers,
    sha256_bytes,
    sha256_file,
    write_atomic,
    write_folder,
)


def test_hashes_are_sha256(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, appendix B.1
    assert sha256_bytes(b"abc") == sha256_file(path) == known
    assert sha256_bytes(b"") == hashlib.sha256().hexdigest()


def test_written_file_replaces_the_old_one_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomic(path, b"old")
    write_atomic(path, b"new")
    assert path.read_bytes() == b"new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_atomic(path, b"old")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match=r"^cannot write .*file: No space left on device$"):
        write_atomic(path, b"new" * 1000)
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("call", ["write_atomic(path / 'file', data)", "write_folder(path, {'file': data})"])
def test_a_file_that_may_not_become_so_large(call: str, tmp_path: Path) -> None:
    path = tmp_path / "folder"
    path.mkdir()
    (path / "file").write_bytes(b"old")
    code = (
        "import resource, sys\nfrom pathlib import Path\nfrom edgecnn.files import write_atomic, write_folder\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\npath, data = Path(sys.argv[1]), bytes(2000)\n{call}"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False)
    assert re.search(r"OutputError: cannot write .*: File too large\n$", done.stderr), done.stderr
    assert (path / "file").read_bytes() == b"old"
    assert [entry.name for entry in (*tmp_path.iterdir(), *path.iterdir())] == ["folder", "file"]


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"nowhere/file: No such file or directory$"):
        write_atomic(tmp_path / "nowhere" / "file", b"")


@contextmanager
def stuck(where: str, call: str, path: Path) -> "Iterator[subprocess.Popen[bytes]]":
    """A process that does not get beyond ``where`` in ``call``, which writes to ``path``; killed in the end."""
    code = (
        "import os, pathlib, sys, time\n"
        "from edgecnn.files import write_atomic, write_folder\n"
        "def stuck(*_):\n"
        "    print('writing', flush=True)\n"
        "    time.sleep(60)\n"
        "path, data = pathlib.Path(sys.argv[1]), b'new' * 100000\n"
        f"{where}\n{call}\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"writing\n"
    try:
        yield process
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()


def test_a_process_killed_while_writing_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomic(path, b"old")
    with stuck("os.fsync = stuck", "write_atomic(path, data)", path):
        pass
    assert path.read_bytes() == b"old"
    (leftover,) = tmp_path.glob(".edgecnn-*.partial")
    assert leftover.stat().st_size > 0  # it really was in the middle

    write_atomic(tmp_path / "other", b"")
    assert leftover.is_file()
    write_atomic(path, b"after")
    assert path.read_bytes() == b"after"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["file", "other"]


def test_two_that_write_the_same_file_do_not_disturb_each_other(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with stuck("os.fsync = stuck", "write_atomic(path, data)", path):
        write_atomic(path, b"mine")
        remove_leftovers(tmp_path)
        assert len([*tmp_path.iterdir()]) == 2
    remove_leftovers(tmp_path)
    assert [(entry.name, entry.read_bytes()) for entry in tmp_path.iterdir()] == [("file", b"mine")]


# Before the old folder is moved aside, and after that.
MOMENTS = ["os.fsync = stuck", "rename = pathlib.Path.rename\npathlib.Path.rename = lambda self, target: "
           "stuck() if self.name == 'new' else rename(self, target)"]  # fmt: skip


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_process_killed_while_writing_a_folder_loses_nothing(moment: str, tmp_path: Path) -> None:
    path = tmp_path / "kit"
    write_folder(path, {"a/b": b"old"})
    with stuck(moment, "write_folder(path, {'a/b': data})", path):
        assert path.exists() == (moment == MOMENTS[0])
    assert len([*tmp_path.glob(".edgecnn-*.partial")]) == 1
    with pytest.raises(OutputError):
        write_folder(path, {"a": b"", "a/b": b"this is no folder"})
    assert [entry.name for entry in tmp_path.iterdir()] == ["kit"]
    assert (path / "a" / "b").read_bytes() == b"old"
    write_folder(path, {"c": b"new"})
    assert [entry.name for entry in (*tmp_path.iterdir(), *path.iterdir())] == ["kit", "c"]


@pytest.mark.parametrize("name", [".{}.partial", ".{}.old", ".edgecnn-0123456789ab-0123456789ab.partial"])
@pytest.mark.parametrize("folder", [False, True])
def test_files_of_others_stay(name: str, folder: bool, tmp_path: Path) -> None:
    theirs = tmp_path / name.format("out")
    if folder:
        theirs.mkdir()
    else:
        theirs.write_bytes(b"theirs")
    write_atomic(tmp_path / "out", b"")
    (tmp_path / "out").unlink()
    for _ in range(2):
        write_folder(tmp_path / "out", {"file": b""})
    assert theirs.is_dir() if folder else theirs.read_bytes() == b"theirs"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == sorted([theirs.name, "out"])


def test_the_longest_name_can_be_written(tmp_path: Path) -> None:
    write_atomic(tmp_path / ("x" * 255), b"new")
    write_folder(tmp_path / ("y" * 255), {"file": b"new"})
    assert len([*tmp_path.iterdir()]) == 2


def test_nothing_but_a_file_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "null").symlink_to("/dev/null")
    for name in ("folder", "pipe", "null"):
        with pytest.raises(OutputError, match=f"cannot write .*{name}: it exists and is not a file"):
            write_atomic(tmp_path / name, b"")
    assert len([*tmp_path.iterdir()]) == 3


def test_only_files_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "huge").touch()
    os.truncate(tmp_path / "huge", 2**40)
    reasons = {
        tmp_path / "pipe": "it is a pipe or a device, not a file",
        Path("/dev/zero"): "it is a pipe or a device, not a file",
        tmp_path: "Is a directory",
        tmp_path / "loop": "Too many levels of symbolic links",
        tmp_path / "huge": "it has 1,099,511,627,776 bytes, more than 2,147,483,647",
        tmp_path / ("x" * 256): "File name too long",
        tmp_path / "zero\0byte": "a file name cannot contain a zero byte",
    }
    for path, reason in reasons.items():
        with pytest.raises(OSError, match=re.escape(reason)) as caught:
            read_bytes(path)
        assert caught.value.filename in (str(path), path)


def test_a_reader_never_sees_a_part(tmp_path: Path) -> None:
    path = tmp_path / "file"
    contents = {bytes([letter]) * 100_000 for letter in b"ab"}
    write_atomic(path, next(iter(contents)))
    code = (
        "import sys\nfrom pathlib import Path\nfrom edgecnn.files import write_atomic\n"
        "for _ in range(200):\n    for letter in (b'a', b'b'):\n"
        "        write_atomic(Path(sys.argv[1]), letter * 100_000)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(path)])
    end = time.monotonic() + 30
    while process.poll() is None and time.monotonic() < end:
        assert path.read_bytes() in contents
    assert process.wait(30) == 0


def test_folder_is_made_with_its_parents_and_may_exist(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    assert make_folder(folder) == make_folder(folder) == folder
    assert folder.is_dir()


def test_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match="is a file; choose a folder"):
        make_folder(tmp_path / "file")
    with pytest.raises(OutputError, match="a parent of output folder"):
        make_folder(tmp_path / "file" / "below")


def test_folder_that_cannot_be_made_or_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, "access", lambda path, mode: False)  # root may write everywhere
        with pytest.raises(OutputError, match="is not writable"):
            make_folder(tmp_path)

    def denied(self: Path, **_: Any) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "mkdir", denied)
    with pytest.raises(OutputError, match=r"cannot create output folder .*: Permission denied"):
        make_folder(tmp_path / "new")


# ------------------------------------------------------------------------------------------------------- locks


def test_a_locked_folder_is_entered_one_by_one(tmp_path: Path) -> None:
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom edgecnn.files import locked\n"
        "folder = Path(sys.argv[1])\n"
        "for _ in range(50):\n    with locked(folder):\n"
        "        count = int((folder / 'count').read_text())\n"
        "        (folder / 'count').write_text(str(count + 1))\n"
    )
    (tmp_path / "count").write_text("0")
    processes = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path)]) for _ in range(4)]
    assert [process.wait(60) for process in processes] == [0] * 4
    assert (tmp_path / "count").read_text() == "200"
    assert [entry.name for entry in tmp_path.iterdir()] == ["count"], "the lock goes with the last of them"


@pytest.fixture
def holder(tmp_path: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """A process that is in ``tmp_path`` and stays there."""
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom edgecnn.files import locked\n"
        "with locked(Path(sys.argv[1])):\n    print('in', flush=True)\n    time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"in\n"
        yield process
        process.kill()


def test_a_folder_in_use_is_refused(tmp_path: Path, holder: "subprocess.Popen[bytes]") -> None:
    said = rf"another edgecnn process \({holder.pid}\) works in .*; wait for it to end"
    with pytest.raises(OutputError, match=said), locked(tmp_path, wait=False):
        pytest.fail("two are in the folder")


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path, holder: "subprocess.Popen[bytes]") -> None:
    holder.kill()
    holder.wait()
    assert (tmp_path / ".edgecnn.lock").is_file()
    with locked(tmp_path, wait=False):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda path: path.mkdir(), "Is a directory"),
        (lambda path: path.symlink_to(path.parent / "precious"), "Too many levels of symbolic links"),
    ],
)
def test_a_lock_that_cannot_be_made(tmp_path: Path, make: Callable[[Path], None], why: str) -> None:
    (tmp_path / "precious").write_text("theirs")
    make(tmp_path / ".edgecnn.lock")
    with pytest.raises(OutputError, match=rf"cannot write .*\.edgecnn\.lock: {why}"), locked(tmp_path):
        pytest.fail("there is no lock")
    assert (tmp_path / "precious").read_text() == "theirs"
