"""The command ``edgecnn``: each subcommand calls one function of the library and prints the record it returns.

Results go to stdout (``--json``: the record as JSON, or an array where there is one record per file). Progress and
logs go to stderr. Exit status 0: success; 1: an ``EdgecnnError`` or a failed row; 2: wrong usage; 130: interrupted.
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
from edgecnn.errors import ConfigError, EdgecnnError, UnsupportedError
from edgecnn.progress import working
from edgecnn.temporary import own_temporary_folder
from edgecnn.text import shown


class _Lines(logging.Formatter):
    """Formats each log message as one line, followed by its traceback if it has one."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - its name in the base class
        return shown(super().formatMessage(record))


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="edgecnn")
@click.option("-v", "--verbose", is_flag=True, help="Log more to stderr.")
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
    """Run the command; report an ``EdgecnnError`` or ``OSError`` on stderr, a line per reason, and exit with 1 or 2."""
    _open_streams()
    try:
        _check_arguments(sys.argv[1:])
        with _lost_interrupts_raised(), own_temporary_folder(), working(" ".join(["edgecnn", *sys.argv[1:2]])):
            cli(standalone_mode=False)
    except click.ClickException as error:
        error.message = shown(error.message)  # type: ignore[misc]
        error.show()
        sys.exit(error.exit_code)
    except EdgecnnError as error:
        for reason in error.reasons if isinstance(error, UnsupportedError) else (error,):
            say(f"edgecnn: {reason}", err=True)
        sys.exit(error.exit_status)
    except (KeyboardInterrupt, click.Abort) as error:
        interrupt = error.__cause__ or error  # the cause of click's Abort
        say("; ".join(["edgecnn: interrupted", *map(str, interrupt.args)]), err=True)
        sys.exit(130)
    except BrokenPipeError:  # the reader of stdout, such as head, has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(1)
    except OSError as error:
        if error.errno is None:  # not raised by the operating system
            raise
        logging.getLogger("edgecnn").info("", exc_info=True)
        say(f"edgecnn: {_describe(error)}", err=True)
        sys.exit(1)
    sys.exit(0)


@contextmanager
def _lost_interrupts_raised() -> Iterator[None]:
    """Raise Ctrl-C again if it arrives during garbage collection, where Python ignores the exception."""
    before = sys.unraisablehook

    def again(lost: Any) -> None:
        if issubclass(lost.exc_type, KeyboardInterrupt):
            # Send it later, when the collection is over. If it meets another collection, this hook runs again.
            threading.Timer(0.05, signal.pthread_kill, (threading.get_ident(), signal.SIGINT)).start()
        else:
            before(lost)

    sys.unraisablehook = again
    try:
        yield
    finally:
        sys.unraisablehook = before


def _open_streams() -> None:
    """Open missing standard streams on /dev/null, and replace characters that stdout and stderr cannot encode.

    Otherwise the next opened file would get the descriptor of the closed stream, and the output of C++ libraries.
    """
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # uses the lowest free descriptor
        if getattr(sys, name) is None:
            setattr(sys, name, open(descriptor, "w" if descriptor else "r", closefd=False))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _check_arguments(arguments: Sequence[str]) -> None:
    """Refuse arguments that cannot be printed or stored, such as some file names.

    Raises:
        ConfigError: an argument is not UTF-8, or contains a control character.
    """
    for argument in arguments:
        if any(unicodedata.category(character) in ("Cc", "Cs") for character in argument):
            raise ConfigError(
                f"the argument {argument[:80]!a} contains a control character or is not UTF-8; if it is a file name, "
                "rename the file"
            )


def _describe(error: OSError) -> str:
    """The failed operation, the file and the reason, as one line."""
    action = "write" if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS) else "use"
    file = error.filename or ("stdout or a temporary file" if action == "write" else "a file, a pipe or a process")
    return f"cannot {action} {os.fsdecode(file) if isinstance(file, bytes) else file}: {error.strerror}"
