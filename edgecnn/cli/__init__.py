"""The command ``edgecnn``: each command calls one function of the library and prints the record it returns.

Results go to stdout (``--json``: the record itself; commands that have one for each file print an array of them),
progress and logs to stderr. Exit status 0: fine; 1: an ``EdgecnnError`` or a row that failed; 2: wrong usage;
130: interrupted.
"""

import errno
import io
import logging
import os
import signal
import sys
import threading
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

import click

from edgecnn.cli import bench, devices, diagnose, files, flow
from edgecnn.cli.output import say
from edgecnn.errors import ConfigError, EdgecnnError
from edgecnn.progress import working
from edgecnn.temporary import own_temporary_folder
from edgecnn.text import shown


class _Lines(logging.Formatter):
    """Log messages as one line each; a traceback follows where there is one."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - its name in the base class
        return shown(super().formatMessage(record))


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="edgecnn")
@click.option("-v", "--verbose", is_flag=True, help="Say more on stderr.")
def cli(verbose: bool) -> None:
    """Train a CNN, quantise it, export it to TFLite and ONNX, verify and benchmark every file."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Lines("%(name)s: %(message)s"))
    logging.basicConfig(handlers=[handler])
    logging.getLogger("edgecnn").setLevel(logging.INFO if verbose else logging.WARNING)


for _command in (
    *(flow.run, flow.train, flow.quantize, flow.export, flow.verify, flow.baseline),
    *(bench.bench, diagnose.diagnose, files.inspect, files.report, files.compare),
    *(devices.check, devices.embed, devices.bundle, devices.emulate),
):
    cli.add_command(_command)


def main() -> NoReturn:
    """Entry point: turns an ``EdgecnnError`` or an ``OSError`` into one line on stderr and its exit status."""
    _open_streams()
    try:
        _check_words(sys.argv[1:])
        with _interrupts_heard(), own_temporary_folder(), working(" ".join(["edgecnn", *sys.argv[1:2]])):
            cli(standalone_mode=False)
    except click.ClickException as error:
        error.message = shown(error.message)  # type: ignore[misc]
        error.show()
        sys.exit(error.exit_code)
    except EdgecnnError as error:
        say(f"edgecnn: {error}", err=True)
        sys.exit(error.exit_status)
    except (KeyboardInterrupt, click.Abort) as error:
        interrupt = error.__cause__ or error  # click's Abort comes from it
        say("; ".join(["edgecnn: interrupted", *map(str, interrupt.args)]), err=True)
        sys.exit(130)
    except BrokenPipeError:  # whoever read the results has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(1)
    except OSError as error:
        if error.errno is None:  # not from the system
            raise
        logging.getLogger("edgecnn").info("", exc_info=True)
        say(f"edgecnn: {_refused(error)}", err=True)
        sys.exit(1)
    sys.exit(0)


@contextmanager
def _interrupts_heard() -> Iterator[None]:
    """Raise a Ctrl-C again that came while Python was collecting garbage, where it cannot be raised and is lost."""
    before = sys.unraisablehook

    def again(lost: Any) -> None:
        if issubclass(lost.exc_type, KeyboardInterrupt):
            # A little later, when the collection is over; if it meets the next one, this is called again.
            threading.Timer(0.05, signal.pthread_kill, (threading.get_ident(), signal.SIGINT)).start()
        else:
            before(lost)

    sys.unraisablehook = again
    try:
        yield
    finally:
        sys.unraisablehook = before


def _open_streams() -> None:
    """Give a process that was started without stdin, stdout or stderr an empty one, and let no character stop it.

    The next file that is opened would else be taken for what was closed, and get what C++ libraries say.
    """
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # it gets the lowest number that is free
        if getattr(sys, name) is None:
            setattr(sys, name, open(descriptor, "w" if descriptor else "r", closefd=False))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _check_words(words: Sequence[str]) -> None:
    """Refuse what could neither be shown nor written down, as file names can be.

    Raises:
        ConfigError: a word is not UTF-8, or holds a control character.
    """
    for word in words:
        if any(unicodedata.category(character) in ("Cc", "Cs") for character in word):
            raise ConfigError(
                f"the argument {word[:80]!a} holds a control character or is not UTF-8; if it is the name of a "
                "file, rename it"
            )


def _refused(error: OSError) -> str:
    """What the system would not do with which file, and why."""
    doing = "write" if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS) else "use"
    place = error.filename or ("stdout or a temporary file" if doing == "write" else "a file, a pipe or a process")
    return f"cannot {doing} {os.fsdecode(place) if isinstance(place, bytes) else place}: {error.strerror}"
