"""Every suite: how it runs, the type of its result, and the tables generated from it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from benchmarks import (
    against_others,
    clients,
    fuzzing,
    int8_onnx,
    memory,
    microcontroller,
    mnist,
    ptq_methods,
    qat_backends,
    qat_engines,
    stack,
    web,
)
from edgecnn.records import Record, Report

_HERE = Path(__file__).parent


class Suite(msgspec.Struct, frozen=True, kw_only=True):
    """A suite.

    ``run`` accepts the settings file and a work folder, and returns a ``result``; None if the command ``script`` makes
    the result. Each function in ``tables`` converts the result and the name of its file to Markdown; pages refer to it
    by its key.
    """

    name: str
    run: Callable[[Path, Path], Record] | None
    result: type[Record] = Report
    tables: dict[str, Callable[[Any, str], str]]
    script: str = ""

    @property
    def settings(self) -> Path:
        """The TOML file with the settings."""
        return _HERE / "suites" / f"{self.name}.toml"

    @property
    def file(self) -> Path:
        """The JSON file of the result."""
        return _HERE / "results" / f"{self.name}.json"

    @property
    def source(self) -> str:
        """The path of the result as shown in the documents."""
        return f"benchmarks/results/{self.file.name}"

    @property
    def command(self) -> str:
        """The command that makes the result."""
        return self.script or f"python -m benchmarks run {self.name}"


SUITES = {
    suite.name: suite
    for suite in (
        Suite(
            name="against-others",
            run=against_others.run,
            tables={"against-others": against_others.table},
        ),
        Suite(
            name="clients",
            run=clients.run,
            result=clients.Clients,
            tables={"clients": clients.table},
        ),
        Suite(
            name="fuzzing",
            run=None,
            result=fuzzing.Fuzzed,
            tables={"fuzzing": fuzzing.table},
            script="python tests/fuzz.py run --out benchmarks/results/fuzzing.json",
        ),
        Suite(
            name="int8-onnx",
            run=int8_onnx.run,
            tables={"int8-onnx": int8_onnx.table},
        ),
        Suite(
            name="memory",
            run=memory.run,
            result=memory.Plans,
            tables={"memory": memory.table},
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
        Suite(
            name="ptq-methods",
            run=ptq_methods.run,
            result=ptq_methods.Methods,
            tables={"ptq-methods": ptq_methods.table, "ptq-errors": ptq_methods.errors_table},
        ),
        Suite(
            name="qat-backends",
            run=None,
            result=qat_backends.OnBackends,
            tables={"qat-backends": qat_backends.table},
            script="python -m benchmarks.qat_backends export FOLDER",
        ),
        Suite(
            name="qat-engines",
            run=qat_engines.run,
            result=qat_engines.Engines,
            tables={"qat-engines": qat_engines.table},
        ),
        Suite(
            name="stack",
            run=stack.run,
            result=stack.Stacks,
            tables={"stack": stack.table},
        ),
        Suite(
            name="web",
            run=web.run,
            result=web.Browser,
            tables={"web": web.table},
        ),
    )
}

TABLES = {name: (suite, render) for suite in SUITES.values() for name, render in suite.tables.items()}
"""The suite of each table, and the function that renders it."""
