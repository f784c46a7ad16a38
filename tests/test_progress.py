"""Progress: a line where nobody watches, a bar on a terminal, and results never on stderr or the reverse."""

import os
import pty
import subprocess
import sys

import pytest

from edgecnn.progress import progress


def test_without_a_terminal_one_line_says_that_it_is_done(capfd: pytest.CaptureFixture[str]) -> None:
    with progress("train", 3) as advance:
        advance(1, "epoch 1")
        advance(2, "epoch 2")
        assert capfd.readouterr() == ("", "")
    out, err = capfd.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("train: done in ")
    assert " s" in err


def test_an_error_goes_through_and_the_line_does_not_say_done(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyError), progress("train", 3):
        raise KeyError
    assert "done" not in capfd.readouterr().err


def test_a_terminal_gets_a_bar_and_stdout_stays_clean() -> None:
    code = "from edgecnn.progress import progress\nwith progress('train', 2) as advance:\n    advance(1, '[half]')\n"
    code += "    advance(1, '[whole]')\nprint('result')"
    ours, theirs = pty.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "120"}
    done = subprocess.run(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=theirs, env=environment, check=True
    )
    os.close(theirs)
    shown = os.read(ours, 100_000).decode()
    os.close(ours)
    assert done.stdout == b"result\n"
    assert "train" in shown
    assert "100%" in shown
    assert "[whole]" in shown  # notes are no markup
