"""Files are whole or not there."""

import errno
import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgecnn.errors import OutputError
from edgecnn.files import locked, make_folder, sha256_bytes, sha256_file, write_atomic


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


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_a_disk_that_is_full_while_writing(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    (tmp_path / ".file.partial").symlink_to("/dev/full")
    with pytest.raises(OutputError, match="No space left on device"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"nowhere/file: No such file or directory$"):
        write_atomic(tmp_path / "nowhere" / "file", b"")


def test_a_process_killed_while_writing_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomic(path, b"old")
    code = (
        "import os, sys, time\n"
        "from pathlib import Path\n"
        "from edgecnn import files\n"
        "def stuck(descriptor):\n"
        "    print('writing', flush=True)\n"
        "    time.sleep(60)\n"
        "os.fsync = stuck\n"
        "files.write_atomic(Path(sys.argv[1]), b'new' * 100000)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"writing\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert path.read_bytes() == b"old"
    assert (tmp_path / ".file.partial").stat().st_size > 0  # it really was in the middle

    write_atomic(path, b"after")
    assert path.read_bytes() == b"after"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


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
    with pytest.raises(OutputError, match="is a file; name a folder"):
        make_folder(tmp_path / "file")
    with pytest.raises(OutputError, match="lies below a file"):
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
    assert (tmp_path / ".lock").is_file()
    with locked(tmp_path, wait=False):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_lock_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / ".lock").mkdir()
    with pytest.raises(OutputError, match=r"cannot write .*\.lock: Is a directory"), locked(tmp_path):
        pytest.fail("there is no lock")
