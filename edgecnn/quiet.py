"""Suppresses the messages that C++ libraries write directly to file descriptor 2."""

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_lock = threading.Lock()
_inside = 0
_saved = -1


@contextmanager
def quiet_stderr() -> Iterator[None]:
    """Discard everything that any thread writes to stderr while the block runs.

    TensorFlow and LiteRT log from C++, which Python's ``sys.stderr`` and ``logging`` cannot intercept.
    """
    global _inside, _saved
    with _lock:
        if _inside == 0:
            sys.stderr.flush()
            _saved = os.dup(2)
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, 2)
            os.close(nowhere)
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if _inside == 0:
                sys.stderr.flush()
                os.dup2(_saved, 2)
                os.close(_saved)
