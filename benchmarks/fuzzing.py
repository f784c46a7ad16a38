"""The result of the long fuzzing run, ``tests/fuzz.py``, and its table."""

from benchmarks.markdown import grid, measured_on
from edgecnn.records import Environment, Record
from edgecnn.report import units


class Fault(Record, frozen=True):
    """A fault of one example.

    ``kind``: traceback (an exception other than ``EdgecnnError``), message (an ``EdgecnnError`` too long or not
    printable), crash, hang, memory, file (left over), process (left over).
    """

    number: int
    kind: str
    detail: str


class Outcome(Record, frozen=True):
    """The outcome of a number of examples: how many were ``read``, and how many ``refused`` with an ``EdgecnnError``.

    ``slowest_s`` is the longest time of one example in seconds, ``most_bytes`` the most additional memory of one.
    """

    examples: int = 0
    read: int = 0
    refused: int = 0
    slowest_s: float = 0.0
    most_bytes: int = 0
    faults: tuple[Fault, ...] = ()

    def __add__(self, other: "Outcome") -> "Outcome":
        return Outcome(
            examples=self.examples + other.examples,
            read=self.read + other.read,
            refused=self.refused + other.refused,
            slowest_s=max(self.slowest_s, other.slowest_s),
            most_bytes=max(self.most_bytes, other.most_bytes),
            faults=self.faults + other.faults,
        )


class Fuzzed(Record, frozen=True):
    """The outcome of every reader, and the machine."""

    environment: Environment
    readers: dict[str, Outcome]


def table(fuzzed: Fuzzed, source: str) -> str:
    """A Markdown table with one row per reader; ``source`` names the file of ``fuzzed``."""
    rows = []
    for name, outcome in fuzzed.readers.items():
        counts = (outcome.examples, outcome.read, outcome.refused, len(outcome.faults))
        rows.append((name, *map(units.count, counts), f"{outcome.slowest_s:.1f}", f"{outcome.most_bytes / 1e6:.0f}"))
    titles = "reader", "examples", "read", "refused", "faults", "slowest, s", "most memory, MB"
    where = f"Run on {measured_on(fuzzed.environment)}; every fault is in `{source}`, with the number that repeats it."
    return f"{grid(titles, rows)}\n\n{where}"
