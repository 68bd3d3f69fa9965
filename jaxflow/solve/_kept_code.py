"""Compiled code that Numba keeps for the next process, and that may be damaged: then it is compiled anew."""

from __future__ import annotations

import warnings
from typing import Any

from numba.core.caching import FunctionCache


class KeptCode(FunctionCache):
    """Numba's cache of one function, which never keeps it from running.

    An empty index, as a full disk or a kill leaves it, makes Numba's own raise at every call until the file is deleted by hand.
    """

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Return compiled code for a signature; None where there is none, or it cannot be read, which a warning tells."""
        try:
            return super().load_overload(sig, target_context)
        except Exception as error:  # whatever unpickling damaged bytes raises
            _warn(self.cache_path, error)
            self.disable()
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep compiled code for the next process, if it can be written."""
        try:
            super().save_overload(sig, data)
        except Exception as error:  # a full disk, or an index that is damaged
            _warn(self.cache_path, error)
            self.disable()


_warned: set[str] = set()


def _warn(path: str, error: Exception) -> None:
    """Say once for each folder that its code is not used."""
    if path not in _warned:
        _warned.add(path)
        warnings.warn(
            f"The compiled code in {path} cannot be used ({type(error).__name__}: {error}), so it is compiled anew in each "
            "process. Delete that folder to keep it again.",
            stacklevel=2,
        )
