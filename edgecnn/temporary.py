"""Temporary files of a command: in a folder of its own, which goes with the command, or with the next one."""

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from edgecnn.errors import OutputError
from edgecnn.files import locked

_PREFIX = "edgecnn-temporary-"


@contextmanager
def own_temporary_folder() -> Iterator[None]:
    """Have all temporary files, of this process and of those it starts, in one folder that is removed at the end.

    A command that is killed cannot remove its own, and neither can the packages it uses. The next command does: a
    folder whose process has ended is no longer locked. Where no folder can be made, the command goes on without.
    """
    with ExitStack() as stack:
        try:
            base = Path(tempfile.gettempdir())
            _remove_leftovers(base)
            folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=base))
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            stack.enter_context(locked(folder))
        except (OSError, OutputError):  # a full or read-only disk; what needs temporary files will say so
            pass
        else:
            stack.callback(setattr, tempfile, "tempdir", tempfile.tempdir)
            stack.callback(os.environ.update, TMPDIR=str(base))
            tempfile.tempdir = os.environ["TMPDIR"] = str(folder)
        yield


def _remove_leftovers(base: Path) -> None:
    for folder in base.glob(f"{_PREFIX}*"):
        ours = re.fullmatch(rf"{_PREFIX}[a-z0-9_]{{8}}", folder.name) and (folder / ".lock").is_file()
        if not ours or folder.is_symlink() or folder.stat().st_uid != os.getuid():
            continue
        try:
            with locked(folder, wait=False):
                shutil.rmtree(folder, ignore_errors=True)
        except OutputError:  # the command it belongs to still runs
            continue
