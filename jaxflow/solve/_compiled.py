"""Compilation by Numba, the same for all of the search: without the GIL, and kept on disk where that is possible."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba


def compiled(function: Callable[..., Any]) -> Any:
    """Compile a function when it is first called; what was compiled is found again by the next process.

    Numba keeps it beside the source file, or in the user's cache directory. Where it may write to neither, as in a container
    that is read-only, it refuses when the function is defined; then every process compiles anew.

    Args:
        function: of NumPy arrays, numbers and named tuples of them.

    Returns:
        Numba's dispatcher. Division by 0 gives inf or nan, as NumPy's does.
    """
    try:
        return numba.njit(nogil=True, error_model="numpy", cache=True)(function)
    except RuntimeError:
        return numba.njit(nogil=True, error_model="numpy")(function)
