"""Take the arrays out of what a function is called with, and put others in their places."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np


@dataclasses.dataclass(frozen=True)
class Rest:
    """What is no array in a PyTree. Two are equal, and can be hashed, if what they hold is and can be.

    Attributes:
        structure: of the PyTree.
        leaves: the type and the value of each leaf; None where there is an array.
    """

    structure: Any
    leaves: tuple[tuple[type, Any] | None, ...]

    def __call__(self, arrays: Sequence[Any]) -> Any:
        """Return the PyTree with these arrays."""
        those = iter(arrays)
        return jax.tree.unflatten(self.structure, [next(those) if leaf is None else leaf[1] for leaf in self.leaves])


def take_arrays(tree: Any) -> tuple[Rest, list[Any]]:
    """Take the arrays out of a PyTree, and return also what is left, which puts others in their places."""
    leaves, structure = jax.tree.flatten(tree)
    is_array = [isinstance(leaf, jax.Array | np.ndarray | np.generic) for leaf in leaves]
    rest = tuple(None if array else (type(leaf), leaf) for leaf, array in zip(leaves, is_array, strict=True))
    return Rest(structure, rest), [leaf for leaf, array in zip(leaves, is_array, strict=True) if array]
