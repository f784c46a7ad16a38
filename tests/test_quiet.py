"""What libraries write to file descriptor 2 is swallowed, what others write is not lost."""

import os
import threading
from pathlib import Path

import pytest

from edgecnn.quiet import quiet_stderr


def chatter(text: bytes) -> None:
    os.write(2, text)


def test_only_what_is_written_inside_disappears(capfd: pytest.CaptureFixture[str]) -> None:
    chatter(b"before\n")
    with quiet_stderr():
        chatter(b"inside\n")
    chatter(b"after\n")
    assert capfd.readouterr().err == "before\nafter\n"


def test_stderr_comes_back_after_an_error(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="inside"), quiet_stderr():
        raise ValueError("inside")
    chatter(b"after\n")
    assert capfd.readouterr().err == "after\n"


def test_threads_share_one_silence(capfd: pytest.CaptureFixture[str]) -> None:
    descriptors = Path("/proc/self/fd")
    open_files = len(list(descriptors.iterdir())) if descriptors.is_dir() else None
    both_inside = threading.Barrier(2, timeout=10)
    first_out = threading.Event()

    def first() -> None:
        with quiet_stderr():
            both_inside.wait()
        first_out.set()

    def second() -> None:
        with quiet_stderr():
            both_inside.wait()
            first_out.wait(10)
            chatter(b"inside, the other thread has left\n")

    threads = [threading.Thread(target=target) for target in (first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    chatter(b"after\n")
    assert capfd.readouterr().err == "after\n"
    if open_files is not None:
        assert len(list(descriptors.iterdir())) == open_files
