"""Number the queries and keys of some attention along the axes of its values."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from jaxflow.capture._tracing import axes as ax
from jaxflow.capture._tracing.scores import Part
from jaxflow.capture._tracing.sites import Site


def places_of(site: Site, part: Part) -> list[tuple[int, int]]:
    places = [place for place, own in site.scores.parts.items() if own == part]
    return sorted(places, key=lambda place: site.scores.rank.get(place, (0, math.inf, ())))


def positions_of(site: Site, axes: ax.Axes, shape: Sequence[int], part: Part) -> np.ndarray:
    """Number the queries or keys along the axes of a value between the product of queries and keys and that with the values."""
    own = [[tuple(factor.origins) for factor in axis] for axis in axes]
    lookup = {place: (i, j) for i, axis in enumerate(own) for j, origins in enumerate(axis) for place in origins}
    return positions_along(axes, shape, [lookup[place] for place in places_of(site, part) if place in lookup])


def positions_along(axes: ax.Axes, shape: Sequence[int], places: Sequence[tuple[int, int]]) -> np.ndarray:
    """Number positions along certain factors of axes, the last of them fastest."""
    strides: dict[tuple[int, int], int] = {}
    size = 1
    for i, j in reversed(places):
        strides[i, j] = size
        size *= axes[i][j].length
    result = np.zeros([1] * len(axes), int)
    for i, axis in enumerate(axes):
        own = [j for j in range(len(axis)) if (i, j) in strides]
        if not own:
            continue
        index = np.unravel_index(np.arange(shape[i]), [factor.length for factor in axis])
        numbers = sum(np.asarray(index[j]) * strides[i, j] for j in own)
        result = result + np.reshape(numbers, [shape[i] if k == i else 1 for k in range(len(axes))])
    return result
