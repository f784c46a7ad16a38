"""Keeps the chatter that C++ libraries write straight to file descriptor 2 off the user's terminal."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet_stderr() -> Iterator[None]:
    """Throw away what is written to stderr while the block runs.

    TensorFlow and LiteRT log through C++, which Python's ``sys.stderr`` and ``logging`` cannot reach.
    """
    sys.stderr.flush()
    saved = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(saved, 2)
        os.close(saved)
