"""Which outputs are explained: by number, from the end, or by the name of their token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


def count_positions(positions: Any, names: Sequence[str], candidates: Sequence[int]) -> Any:
    """Return positions by number, counted from the start; what is none is left for `check_positions` to refuse.

    Args:
        positions: a number, a name, several of them, or None for all.
        names: of the token at each position.
        candidates: positions among which a negative number counts from the end, and a name is looked for.

    Raises:
        ValueError: a name that no candidate has.

    Example:
        >>> count_positions(["[MASK]", -1], ["[CLS]", "a", "[MASK]", "b"], range(4))
        [2, 3]
    """
    if positions is None:
        return None
    several = not isinstance(positions, str | int | np.integer) and np.ndim(positions) == 1
    found: list[Any] = []
    for each in positions if several else [positions]:
        if isinstance(each, str):
            found += _named(each, names, candidates)
        elif isinstance(each, int | np.integer) and -len(candidates) <= each < 0:
            found.append(candidates[int(each)])
        else:
            found.append(each)
    return found if several or len(found) > 1 else found[0]


def _named(name: str, names: Sequence[str], candidates: Sequence[int]) -> list[int]:
    found = [position for position in candidates if names[position] == name]
    if not found:
        known = list(dict.fromkeys(names[position] for position in candidates))
        raise ValueError(
            f"No output is at a token named {name!r}; there are {', '.join(map(repr, known[:20]))}"
            f"{' and others' if len(known) > 20 else ''}."
        )
    return found
