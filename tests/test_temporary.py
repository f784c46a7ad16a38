import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from edgecnn.temporary import own_temporary_folder

LEAVING = (
    "import os, sys, tempfile, time\nfrom edgecnn.temporary import own_temporary_folder\n"
    "with own_temporary_folder():\n    tempfile.mkdtemp()\n    open(f'{os.environ[\"TMPDIR\"]}/file', 'w').close()\n"
    "    print(os.environ['TMPDIR'], flush=True)\n    time.sleep(600)\n"
)


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path


def test_temporary_files_go_with_the_command(base: Path) -> None:
    with own_temporary_folder():
        (folder,) = base.iterdir()
        assert Path(tempfile.gettempdir()) == folder
        made = subprocess.run(
            [sys.executable, "-c", "import tempfile; print(tempfile.mkdtemp())"], capture_output=True, check=True
        )
        assert Path(made.stdout.decode().strip()).parent == folder
        assert folder.stat().st_mode & 0o777 == 0o700
    assert list(base.iterdir()) == []
    assert Path(tempfile.gettempdir()) == base


def test_the_next_command_removes_what_a_killed_one_left(base: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", LEAVING], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        folder = Path(process.stdout.readline().decode().strip())
        with own_temporary_folder():
            assert (folder / "file").is_file(), "it still runs"
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert (folder / "file").is_file()
    with own_temporary_folder():
        assert not folder.exists()
    assert list(base.iterdir()) == []


def test_what_others_keep_among_temporary_files_stays(base: Path) -> None:
    """Folders that look alike: without our lock, with another name, a link, a file."""
    elsewhere = base / "elsewhere"
    unlocked, longer = base / "edgecnn-temporary-abcdefgh", base / "edgecnn-temporary-abcdefgh-mine"
    for folder in (elsewhere, unlocked, longer):
        folder.mkdir()
        (folder / "precious").touch()
    (elsewhere / ".lock").touch()
    (longer / ".lock").touch()
    (base / "edgecnn-temporary-linked_x").symlink_to(elsewhere)
    (base / "edgecnn-temporary-is_a_file").touch()
    before = sorted(base.rglob("*"))
    with own_temporary_folder():
        pass
    assert sorted(base.rglob("*")) == before


def test_without_a_place_for_temporary_files_the_command_goes_on(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "mkdtemp", full)
    with own_temporary_folder():
        assert os.environ["TMPDIR"] == str(base)
