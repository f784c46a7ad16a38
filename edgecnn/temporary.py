"""Temporary files of a command: in one folder, which is removed at the end, or by the next command."""

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from edgecnn.errors import OutputError
from edgecnn.files import LOCK, locked

_PREFIX = "edgecnn-temporary-"


@contextmanager
def own_temporary_folder() -> Iterator[None]:
    """Put all temporary files of this process and its children into one folder, and remove it at the end.

    A killed command cannot remove its files. The next command does: the folder of an ended process is no longer
    locked. If no folder can be created, the command continues without one.
    """
    with ExitStack() as stack:
        try:
            base = Path(tempfile.gettempdir())
            _remove_leftovers(base)
            folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=base))
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            stack.enter_context(locked(folder))
        except (OSError, OutputError):  # a full or read-only disk; code that needs temporary files reports it
            pass
        else:
            stack.callback(setattr, tempfile, "tempdir", tempfile.tempdir)
            stack.callback(os.environ.update, TMPDIR=str(base))
            tempfile.tempdir = os.environ["TMPDIR"] = str(folder)
        yield


def _remove_leftovers(base: Path) -> None:
    for folder in base.glob(f"{_PREFIX}*"):
        is_temporary = re.fullmatch(rf"{_PREFIX}[a-z0-9_]{{8}}", folder.name) and (folder / LOCK).is_file()
        if not is_temporary or folder.is_symlink() or folder.stat().st_uid != os.getuid():
            continue
        try:
            with locked(folder, wait=False):
                shutil.rmtree(folder, ignore_errors=True)
        except OutputError:  # its command is still running
            continue
