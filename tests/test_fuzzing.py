"""The first examples of every reader, and what the harness sees of readers that misbehave."""

import os
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import fuzzing
import pytest
from fuzzing import harness
from fuzzing.harness import Reader

from edgecnn.errors import DataError

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", sorted(fuzzing.readers()))
def test_damaged_input_is_read_or_refused(name: str) -> None:
    short = fuzzing.readers()[name].short
    outcome = harness.fuzz(name, range(short))
    assert outcome.faults == ()
    assert outcome.examples == outcome.read + outcome.refused == short
    assert outcome.refused, "the damage damages nothing"


# The harness itself: readers that are wrong in every way that it is to see


def _one_file(folder: Path) -> None:
    (folder / "input").write_bytes(b"valid")


def _nothing(path: Path, draw: random.Random) -> None:
    path.write_bytes(b"damaged")


def _faulty(read: Callable[[Path], object]) -> Reader:
    def careful(path: Path) -> object:
        return None if path.read_bytes() == b"valid" else read(path)

    return Reader("faulty", _one_file, _nothing, careful)


def _message(path: Path) -> None:
    error = DataError("one line")
    error.args = ("one line\nand another",)
    raise error


def _raises(path: Path) -> None:
    raise KeyError("x")


def _leaves(path: Path) -> None:
    (path.parent / ".leftover").touch()


def _leaves_elsewhere(path: Path) -> None:
    tempfile.mkdtemp()


def _fills(path: Path) -> None:
    bytearray(os.urandom(1024) * 1_100_000)


def _starts(path: Path) -> None:
    os.posix_spawn("/bin/sleep", ["sleep", "60"], os.environ)


def _crashes(path: Path) -> None:
    os.kill(os.getpid(), 11)


def _hangs(path: Path) -> None:
    time.sleep(60)


FAULTY = {
    "message": _message, "traceback": _raises, "file": _leaves, "temporary": _leaves_elsewhere, "memory": _fills,
    "process": _starts, "crash": _crashes, "hang": _hangs,
}  # fmt: skip


@pytest.mark.parametrize("kind", FAULTY)
def test_a_fault_is_seen(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness, "_SCRIPT", Path(__file__))
    if kind == "hang":
        monkeypatch.setattr(harness, "LIMIT_S", 1.0)
    outcome = harness.fuzz(kind, range(2))
    assert outcome.examples == 2
    assert {fault.kind for fault in outcome.faults} == {"file" if kind == "temporary" else kind}
    assert {fault.number for fault in outcome.faults} == {0, 1}


def test_valid_input_that_is_not_read_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness, "_SCRIPT", Path(__file__))
    with pytest.raises(RuntimeError, match="does not read valid input"):
        harness.fuzz("unknown", range(1))


def test_the_same_number_is_the_same_example(tmp_path: Path) -> None:
    _one_file(tmp_path)
    reader = _faulty(_raises)
    (first, one), (second, two) = (harness.drawn_input(reader, 7, tmp_path) for _ in range(2))
    assert (first, one.random()) == (second, two.random())


if __name__ == "__main__":  # as the script that serves a batch
    _, _, name, start, stop, inputs = sys.argv
    harness.serve(_faulty(FAULTY[name]), range(int(start), int(stop)), Path(inputs))
