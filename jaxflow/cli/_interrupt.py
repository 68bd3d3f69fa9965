"""Ctrl-C: the command ends at once, with a word and without a traceback, whatever is imported or computed."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

INTERRUPTED = 130  # the exit status that shells give for SIGINT


@contextlib.contextmanager
def ends_at_once() -> Iterator[None]:
    """End the process on Ctrl-C, instead of raising KeyboardInterrupt.

    A KeyboardInterrupt that arrives while NumPy or JAX are imported crashes their compiled code, or comes out of it as some other
    error.
    """
    with _on_interrupt(_end):
        yield


@contextlib.contextmanager
def cleans_up() -> Iterator[None]:
    """Raise KeyboardInterrupt on Ctrl-C for a while: where something is left behind otherwise, such as half a file."""
    with _on_interrupt(signal.default_int_handler):
        yield


@contextlib.contextmanager
def _on_interrupt(handler: Any) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():  # others have no handlers, and get no Ctrl-C
        yield
        return
    before = signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _end(*_: Any) -> None:
    with contextlib.suppress(OSError):
        os.write(2, b"jaxflow: interrupted\n")
    os._exit(INTERRUPTED)
