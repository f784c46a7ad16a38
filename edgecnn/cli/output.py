"""Printing of results, and exit statuses."""

import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NoReturn

import click

from edgecnn.text import shown

if TYPE_CHECKING:
    from edgecnn.records import Parity, ProcessorAnswers, Record, Report


def say(text: str, err: bool = False) -> None:
    """Print a line, with characters that do not print escaped."""
    click.echo(shown(text), err=err)


def print_json(record: "Record") -> None:
    """Print a record as JSON."""
    from edgecnn.records import to_json

    click.echo(to_json(record), nl=False)


def print_record(record: "Record", as_json: bool, text: str) -> None:
    """Print a record as JSON, or else ``text``."""
    print_json(record) if as_json else say(text)


def print_array(records: "Sequence[Record]") -> None:
    """Print records as a JSON array."""
    import msgspec

    click.echo(msgspec.json.format(msgspec.json.encode(records), indent=1))


def show_report(report: "Report", as_json: bool) -> None:
    """Print a report as tables, or as JSON."""
    from edgecnn.report import show

    if as_json:
        print_json(report)
    else:
        show(report)


def status(report: "Report", as_json: bool, *, strict: bool = False) -> NoReturn:
    """Exit with 1 if an artifact is out of tolerance or a row failed, else with 0.

    What is not supported is no failure, unless ``strict``.
    """
    broken = out_of_tolerance(report.parities)
    broken += [line for answers in report.processors for line in wrong_on(answers)]
    end([*broken, *failed(report.rows, strict=strict)], "problem", as_json)


def end(reasons: Sequence[str], noun: str, as_json: bool) -> NoReturn:
    """Exit with 1 if there are ``reasons``, else with 0. Without ``as_json`` stdout lists them: print their number."""
    if as_json:
        for reason in reasons:
            say(f"edgecnn: {reason}", err=True)
    elif reasons:
        number = f"1 {noun}" if len(reasons) == 1 else f"{len(reasons)} {noun}s"
        say(f"edgecnn: {number}, see above", err=True)
    sys.exit(1 if reasons else 0)


def failed(rows: Iterable[object], *, strict: bool = False) -> list[str]:
    """The rows that failed, one line each; if ``strict``, those that are not supported too."""
    from edgecnn.records import Failure

    return [
        f"{row.subject} ({row.stage}): {row.reason}"
        for row in rows
        if isinstance(row, Failure) and (strict or not row.expected)
    ]


def out_of_tolerance(parities: "Iterable[Parity]") -> list[str]:
    """The violated tolerances, one line each, with the files compared."""
    return [f"{one.artifact} against {one.reference}: {line}" for one in parities for line in one.violations]


def wrong_on(answers: "ProcessorAnswers") -> list[str]:
    """The violated tolerances on an emulated processor, one line each."""
    return [f"{answers.artifact} on {answers.processor} {violation}" for violation in answers.violations]


def show_violations(parities: "Sequence[Parity]") -> NoReturn:
    """Print violated tolerances to stderr; exit with 1 if there are any, else with 0."""
    broken = out_of_tolerance(parities)
    for line in broken:
        say(f"edgecnn: {line}", err=True)
    sys.exit(1 if broken else 0)
