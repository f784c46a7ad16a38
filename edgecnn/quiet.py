"""Keeps the chatter that C++ libraries write straight to file descriptor 2 off the user's terminal."""

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
    """Throw away what is written to stderr while the block runs, in this thread or another one beside it.

    TensorFlow and LiteRT log through C++, which Python's ``sys.stderr`` and ``logging`` cannot reach.
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
