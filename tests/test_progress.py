"""Progress: a line where nobody watches, a bar on a terminal, and results never on stderr or the reverse."""

import os
import pty
import subprocess
import sys
from queue import Queue

import pytest

from edgecnn import progress as module
from edgecnn.progress import progress, working


class Clock:
    """Time that passes when told to. It is both the clock and the pause between two lines."""

    def __init__(self) -> None:
        self.now = 0.0
        self._ticks: Queue[float] = Queue()
        self._waiting: Queue[None] = Queue()

    def monotonic(self) -> float:
        return self.now

    def wait(self, seconds: float) -> bool:
        """As that of an event: whether it was set."""
        due = self.now + seconds
        while self.now < due:
            self._waiting.put(None)
            tick = self._ticks.get(timeout=10)
            if not tick:
                return True
            self.now += tick
        return False

    def set(self) -> None:
        self._ticks.put(0.0)

    def passes(self, seconds: int) -> None:
        """Let time pass, second by second, and return when everything that was due has happened."""
        for _ in range(seconds):
            self._waiting.get(timeout=10)
            self._ticks.put(1.0)
        self._waiting.get(timeout=10)
        self._waiting.put(None)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr(module, "Event", lambda: clock)
    return clock


def test_without_a_terminal_something_is_said_at_least_every_30_seconds(
    clock: Clock, capfd: pytest.CaptureFixture[str]
) -> None:
    with progress("train", 200) as advance:
        advance(50, "epoch 1/2")
        clock.passes(30)
        assert capfd.readouterr().err == "train: 25 s so far, 25%, at epoch 1/2\n"
        advance(51, "epoch 2/2")
        clock.passes(30)
        assert capfd.readouterr().err == "train: 50 s so far, 50%, at epoch 2/2\n"
        clock.passes(90)
        assert capfd.readouterr().err.count("\n") == 4
    assert capfd.readouterr().err == "train: done in 150.0 s\n"


def test_the_innermost_block_speaks(clock: Clock, capfd: pytest.CaptureFixture[str]) -> None:
    with working("edgecnn run"):
        clock.passes(30)
        with working("quantize"):
            clock.passes(30)
        clock.passes(30)
    assert capfd.readouterr().err == "edgecnn run: 25 s so far\nquantize: 20 s so far\nedgecnn run: 75 s so far\n"


def test_on_a_terminal_nothing_is_said_beside_the_bar(
    clock: Clock, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr(module, "Thread", lambda **_: pytest.fail("a thread was started"))
    with working("edgecnn run"):
        pass
    assert capfd.readouterr().err == ""


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
