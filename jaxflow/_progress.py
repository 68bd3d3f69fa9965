"""Progress of long work: a bar with the remaining time, on a terminal (standard error) and in notebooks."""

from __future__ import annotations

import contextlib
import contextvars
import sys
import warnings
from collections.abc import Iterator
from typing import Any

from tqdm import tqdm

DELAY = 2.0  # seconds before a bar appears
_is_hidden = contextvars.ContextVar("jaxflow_progress_is_hidden", default=False)


class _NoBar:
    """A bar that nobody sees."""

    def __enter__(self) -> _NoBar:
        return self

    def __exit__(self, *error: object) -> None:
        """Do nothing."""

    def update(self, n: float = 1) -> None:
        """Do nothing."""


def progress_bar(total: int, what: str, *, unit: str = "pair") -> Any:
    """Make a bar that appears after two seconds, on a terminal or in a notebook. `TQDM_DISABLE=1` switches all bars off."""
    if _is_hidden.get():
        return _NoBar()
    if _is_notebook():
        return _notebook_bar()(total=total, desc=what, unit=unit, delay=DELAY, leave=False)
    if sys.stderr is None or sys.stderr.closed or not sys.stderr.isatty():
        return _NoBar()
    return tqdm(total=total, desc=what, unit=unit, delay=DELAY, leave=False)


def _is_notebook() -> bool:
    """Whether this is a Jupyter kernel, such as that of a notebook, of Colab or of an editor."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and hasattr(ipython.get_ipython(), "kernel")


def _notebook_bar() -> type[tqdm]:
    """Return tqdm's bar for notebooks, a widget where ipywidgets is installed, else text."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it would advise to install ipywidgets
        from tqdm.auto import tqdm as notebook_bar
    return notebook_bar


@contextlib.contextmanager
def no_progress() -> Iterator[None]:
    """Show no bars within: for work that runs beside other work, or many times."""
    token = _is_hidden.set(True)
    try:
        yield
    finally:
        _is_hidden.reset(token)
