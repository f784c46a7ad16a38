"""Runs the examples of a reader in processes of their own, so that a crash, a hang or a lack of memory is seen."""

import contextlib
import os
import random
import resource
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from benchmarks.fuzzing import Fault, Outcome
from edgecnn import worker
from edgecnn.errors import EdgecnnError
from edgecnn.formats import converter

LIMIT_S = 20.0
LIMIT_BYTES = 10**9
LIMIT_MESSAGE = 1000
BATCH = 200
_STARTING_S = 120.0
_SCRIPT = Path(__file__).parent.parent / "fuzz.py"


class Reader(NamedTuple):
    """Something that reads what others made.

    ``make`` writes valid input into an empty folder; each entry of it, a file or a folder, is an input of its own.
    ``damage`` changes a copy of an input, in place. ``read`` is what a user's command does with the input. ``short`` is
    how many examples the tests run.
    """

    name: str
    make: Callable[[Path], None]
    damage: Callable[[Path, random.Random], None]
    read: Callable[[Path], object]
    short: int = 200


# In the parent


def fuzz(reader: str, numbers: range, advance: Callable[[int], None] = lambda done: None) -> Outcome:
    """Run the examples ``numbers`` of ``reader``, ``BATCH`` of them in one process.

    Raises:
        RuntimeError: valid input is not read.
    """
    with tempfile.TemporaryDirectory(prefix="edgecnn-fuzz-") as folder:
        outcome, start = Outcome(), numbers.start
        inputs = Path(folder) / "inputs"
        inputs.mkdir()
        while start < numbers.stop:
            part = _batch(reader, range(start, min(start + BATCH, numbers.stop)), inputs)
            outcome += part
            start += part.examples
            advance(part.examples)
        return outcome


def _batch(reader: str, numbers: range, inputs: Path) -> Outcome:
    """As many of the examples ``numbers`` as one process lives through, the one that ended it included."""
    with tempfile.TemporaryDirectory(prefix="edgecnn-fuzz-") as scratch, tempfile.TemporaryFile() as said:
        command = [sys.executable, str(_SCRIPT), "batch", reader, str(numbers.start), str(numbers.stop), str(inputs)]
        environment = {**os.environ, "TMPDIR": scratch, "EDGECNN_CACHE": f"{scratch}/cache"}
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=said, env=environment, cwd=scratch, start_new_session=True
        )
        outcome, ended = Outcome(), None
        try:
            for line in _lines(process):
                outcome += msgspec.json.decode(line, type=Outcome)
        except TimeoutError:
            ended = Fault(
                number=numbers.start + outcome.examples, kind="hang", detail=f"no answer within {LIMIT_S:g} s"
            )
        finally:
            if ended is None:
                with contextlib.suppress(subprocess.TimeoutExpired):  # it has closed its output, and ends
                    process.wait(LIMIT_S)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            status = process.wait()
            assert process.stdout is not None
            process.stdout.close()
        if ended is None and outcome.examples < len(numbers):
            said.seek(0)
            tail = said.read()[-2000:].decode(errors="replace")
            if not outcome.examples and status > 0:
                raise RuntimeError(f"{reader} does not read valid input:\n{tail}")
            ended = Fault(
                number=numbers.start + outcome.examples, kind="crash", detail=f"exit status {status}: {tail[-300:]}"
            )
        return outcome if ended is None else outcome + Outcome(examples=1, faults=(ended,))


def _lines(process: "subprocess.Popen[bytes]") -> Iterator[bytes]:
    """What the process says, line by line, until it ends.

    Raises:
        TimeoutError: it says nothing for too long.
    """
    assert process.stdout is not None
    patience = _STARTING_S
    while True:
        ready, _, _ = select.select([process.stdout], [], [], patience)
        if not ready:
            raise TimeoutError
        line = process.stdout.readline()
        if not line:
            return
        if line != b"ready\n":
            yield line
        patience = 1.25 * LIMIT_S  # what takes a little longer than LIMIT_S is counted by the process itself


# In the process of a batch


def serve(reader: Reader, numbers: range, inputs: Path) -> None:
    """Run the examples ``numbers``, and print the outcome of each as JSON."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what readers print is no answer
    own = Path(tempfile.mkdtemp(prefix="own-"))  # in TMPDIR, where leftovers are looked for
    if not any(inputs.iterdir()):
        reader.make(inputs)
        converter.stop()  # no process may be left
    children = _peak_of_children()
    for source in sorted(inputs.iterdir()):
        reader.read(_copy(source, own))
        children = max(children, _peak_of_children())
    shutil.rmtree(own)
    left = _left(own.parent)
    answers.write("ready\n")
    for number in numbers:
        outcome = example(reader, number, inputs, own, left)
        grown = _peak_of_children()
        if grown > children + LIMIT_BYTES:
            outcome += Outcome(
                faults=(
                    Fault(number=number, kind="memory", detail=f"{grown - children:,} bytes in a process of its own"),
                )
            )
        outcome += Outcome(most_bytes=max(0, grown - children))
        answers.write(f"{msgspec.json.encode(outcome).decode()}\n")


def example(reader: Reader, number: int, inputs: Path, own: Path, left: frozenset[str]) -> Outcome:
    """Run one example in the folder ``own``; ``left`` is what else is among the temporary files at its start."""
    source, drawn = drawn_input(reader, number, inputs)
    own.mkdir()
    place = _copy(source, own)
    reader.damage(place, drawn)
    before = _left(own)
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here
    empty, start = _status("VmRSS"), time.perf_counter()
    fault, refused = None, 0
    try:
        reader.read(place)
    except EdgecnnError as error:
        refused, fault = 1, _wrong_with(str(error), number)
    except BaseException as error:  # noqa: BLE001 - whatever it is, it is what we look for
        last = traceback.extract_tb(error.__traceback__)[-1]
        detail = f"{type(error).__name__}: {error} ({Path(last.filename).name}:{last.lineno})"
        fault = Fault(number=number, kind="traceback", detail=detail[:500])
    seconds, grown = time.perf_counter() - start, _status("VmHWM") - empty
    faults = [] if fault is None else [fault]
    if seconds > LIMIT_S:
        faults.append(Fault(number=number, kind="hang", detail=f"{seconds:.1f} s"))
    if grown > LIMIT_BYTES:
        faults.append(Fault(number=number, kind="memory", detail=f"{grown:,} bytes"))
    surplus = _left(own) - before
    shutil.rmtree(own)
    if surplus := {*surplus, *(_left(own.parent) - left)}:
        faults.append(Fault(number=number, kind="file", detail=", ".join(sorted(surplus))[:500]))
    if alive := _children():
        faults.append(Fault(number=number, kind="process", detail=f"{alive} processes are left"))
    return Outcome(
        examples=1,
        read=int(not refused and fault is None),
        refused=refused,
        slowest_s=seconds,
        most_bytes=max(0, grown),
        faults=tuple(faults),
    )


def drawn_input(reader: Reader, number: int, inputs: Path) -> tuple[Path, random.Random]:
    """The input that example ``number`` damages, and its source of randomness."""
    drawn = random.Random(f"{reader.name} {number}")
    return drawn.choice(sorted(inputs.iterdir())), drawn


def _wrong_with(message: str, number: int) -> Fault | None:
    if not message.isprintable() or len(message) > LIMIT_MESSAGE:
        return Fault(number=number, kind="message", detail=f"{len(message)} characters: {message[:300]!r}")
    return None


def _copy(source: Path, folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    place = folder / source.name
    if source.is_dir():
        shutil.copytree(source, place)
    else:
        shutil.copyfile(source, place)
    return place


def _left(folder: Path) -> frozenset[str]:
    """Everything below ``folder``; readers that write put it into a folder "out", which does not count."""
    return frozenset(
        f"{place}/{name}"
        for place, folders, files in os.walk(folder)
        for name in (*folders, *files)
        if "out" not in (name, *Path(place).relative_to(folder).parts)
    )


def _status(field: str) -> int:
    """A size out of this process's status, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"/proc/self/status has no {field}")


def _peak_of_children() -> int:
    return max(_peak(None), worker.forker.call("asking for the peak", LIMIT_S, _peak))


def _peak(_: object) -> int:
    """The most memory that an ended child of this process had, in bytes."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024


def _children() -> int:
    """Processes below this one that still run; the one whose copies read files, and Python's own, left out."""
    found = 0
    for process in (os.getpid(), worker.forker.process_id):
        for task in Path(f"/proc/{process}/task").iterdir():
            with contextlib.suppress(FileNotFoundError):  # the thread has ended since
                for child in (task / "children").read_text().split():
                    found += int(child) != worker.forker.process_id and _runs(Path(f"/proc/{child}/cmdline"))
    return found


def _runs(command: Path) -> bool:
    try:
        return b"resource_tracker" not in command.read_bytes()
    except FileNotFoundError:  # it has ended since
        return False
