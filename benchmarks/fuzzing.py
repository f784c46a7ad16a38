"""The result of the long fuzzing run, ``tests/fuzz.py``, and the table of it."""

from benchmarks.markdown import grid, measured_on
from edgecnn.records import Environment, Record
from edgecnn.report import units


class Fault(Record, frozen=True):
    """What an example did that it may not.

    ``kind``: traceback (an exception that is not ours), message (an error of ours that is long or not printable),
    crash, hang, memory, file (left over), process (left over).
    """

    number: int
    kind: str
    detail: str


class Outcome(Record, frozen=True):
    """What became of a number of examples: how many were ``read``, how many ``refused`` with an error of ours.

    ``slowest_s`` is the longest that one took in seconds, ``most_bytes`` the most memory that one took beyond what the
    process had before it.
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
    """What became of every reader's examples, and where."""

    environment: Environment
    readers: dict[str, Outcome]


def table(fuzzed: Fuzzed, source: str) -> str:
    """One line a reader as a Markdown table; ``source`` names the file of ``fuzzed``."""
    rows = []
    for name, outcome in fuzzed.readers.items():
        counts = (outcome.examples, outcome.read, outcome.refused, len(outcome.faults))
        rows.append((name, *map(units.count, counts), f"{outcome.slowest_s:.1f}", f"{outcome.most_bytes / 1e6:.0f}"))
    titles = "reader", "examples", "read", "refused", "faults", "slowest, s", "most memory, MB"
    where = f"Run on {measured_on(fuzzed.environment)}; every fault is in `{source}`, with the number that repeats it."
    return f"{grid(titles, rows)}\n\n{where}"
