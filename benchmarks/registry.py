"""Every suite: how it is run, what its result is, and the tables made of that."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from benchmarks import against_others, fuzzing, int8_onnx, microcontroller, mnist
from edgecnn.records import Record, Report

_HERE = Path(__file__).parent


class Suite(msgspec.Struct, frozen=True, kw_only=True):
    """A suite.

    ``run`` takes the file of its settings and a folder to work in, and gives a ``result``; None if a script of its own
    makes the result. Each of ``tables`` makes Markdown of the result and the name of its file; a page asks for it by
    its key.
    """

    name: str
    run: Callable[[Path, Path], Record] | None
    result: type[Record] = Report
    tables: dict[str, Callable[[Any, str], str]]

    @property
    def settings(self) -> Path:
        """The TOML file that says what is measured."""
        return _HERE / "suites" / f"{self.name}.toml"

    @property
    def file(self) -> Path:
        """The JSON file of the result."""
        return _HERE / "results" / f"{self.name}.json"

    @property
    def source(self) -> str:
        """That file, as the documents name it."""
        return f"benchmarks/results/{self.file.name}"

    @property
    def command(self) -> str:
        """What makes the result."""
        return f"python -m benchmarks run {self.name}" if self.run else f"python tests/fuzz.py run --out {self.source}"


SUITES = {
    suite.name: suite
    for suite in (
        Suite(
            name="against-others",
            run=against_others.run,
            tables={"against-others": against_others.table},
        ),
        Suite(
            name="fuzzing",
            run=None,
            result=fuzzing.Fuzzed,
            tables={"fuzzing": fuzzing.table},
        ),
        Suite(
            name="int8-onnx",
            run=int8_onnx.run,
            tables={"int8-onnx": int8_onnx.table},
        ),
        Suite(
            name="microcontroller",
            run=microcontroller.run,
            result=microcontroller.Counts,
            tables={"microcontroller": microcontroller.table},
        ),
        Suite(
            name="mnist",
            run=mnist.run,
            tables={"mnist": mnist.table, "mnist-short": mnist.short_table},
        ),
    )
}

TABLES = {name: (suite, render) for suite in SUITES.values() for name, render in suite.tables.items()}
"""The suite that each table is of, and what makes it."""
