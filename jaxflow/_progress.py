"""Progress of long work: a bar with the remaining time on standard error, where it is a terminal."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator

from tqdm import tqdm

DELAY = 2.0  # seconds before a bar appears
_is_hidden = contextvars.ContextVar("jaxflow_progress_is_hidden", default=False)


def progress_bar(total: int, what: str, *, unit: str = "pair") -> tqdm:
    """Make a bar that appears after two seconds, on a terminal alone. tqdm's `TQDM_DISABLE=1` switches all bars off."""
    hide = True if _is_hidden.get() else None  # None: shown on a terminal
    return tqdm(total=total, desc=what, unit=unit, delay=DELAY, disable=hide, leave=False)


@contextlib.contextmanager
def no_progress() -> Iterator[None]:
    """Show no bars within: for work that runs beside other work, or many times."""
    token = _is_hidden.set(True)
    try:
        yield
    finally:
        _is_hidden.reset(token)
