"""Compute the weights of each site while its program runs, as `[*batch, head, query, key]`."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp

from jaxflow.capture._tracing import axes as ax
from jaxflow.capture._tracing.program import Op, Scope, Value
from jaxflow.capture._tracing.sites import Site

Place = Any


class Keeper:
    """Keeps the weights of `sites` in a run: `program.run(scope, arguments, Keeper(sites))`."""

    def __init__(self, sites: Sequence[Site]) -> None:
        """Note after which operations the weights of each site can be computed."""
        self._bodies = {loop.bodies[0] for site in sites for loop in site.loops}
        self._due: dict[Op, list[tuple[int, Site]]] = {}
        for number, site in enumerate(sites):
            last = site.softmax.product.op
            if site.softmax.divisor is not None:
                divided = site.scope.producers()[site.softmax.divisor]
                last = max(last, divided, key=lambda op: op.index)
            self._due.setdefault(last, []).append((number, site))

    def wants(self, body: Scope) -> bool:
        """Whether something is kept from this loop body."""
        return body in self._bodies

    def __call__(self, op: Op, env: Mapping[Value, Any]) -> dict[int, Any]:
        """Compute the weights that are due after `op`."""
        return {number: _weights(site, env) for number, site in self._due.get(op, ())}


def _weights(site: Site, env: Mapping[Value, Any]) -> Any:
    value = site.softmax.start
    array = env[value]
    for step in site.steps:
        value = step.op.outs[step.result]
        if site.steps == site.softmax.steps:
            array = env[value]
        else:  # dropout is left out, and what comes after it done again
            ins = [array if i == step.place else env[other] for i, other in enumerate(step.op.ins)]
            array = step.op.run(ins)[step.result]
    axes = site.scores.axes
    weights, places = by_factors(array, axes[value])
    if site.softmax.divisor is not None:
        divisor, of_divisor = by_factors(env[site.softmax.divisor], axes[site.softmax.divisor])
        divisor = aligned(divisor, of_divisor, places).astype(weights.dtype)
        weights = weights * divisor if site.softmax.inverse else weights / divisor
    return _in_order(site, weights, places)


def laid_out(site: Site, value: Value, array: Any) -> Any:
    """Lay out an array of the shape of `value`, weights of `site`, as these are kept: `[*batch, head, query, key]`."""
    return _in_order(site, *by_factors(array, site.scores.axes[value]))


def _in_order(site: Site, weights: Any, places: list[Place]) -> Any:
    parts, rank = site.scores.parts, site.scores.rank

    def group(part: str) -> list[int]:
        found = [i for i, place in enumerate(places) if parts.get(place, "head") == part]
        return sorted(found, key=lambda i: rank.get(places[i], (0, math.inf, ())))

    batch, heads, queries, keys = (group(part) for part in ("batch", "head", "query", "key"))
    lengths = weights.shape
    merged = [list(same) for _, same in itertools.groupby(batch, lambda i: rank[places[i]][:2])]
    shape = [math.prod(lengths[i] for i in same) for same in merged] + [
        math.prod(lengths[i] for i in part) for part in (heads, queries, keys)
    ]
    return jnp.transpose(weights, (*batch, *heads, *queries, *keys)).reshape(shape)


def by_factors(array: Any, axes: ax.Axes) -> tuple[Any, list[Place]]:
    """Cut the axes of `array` into their factors; those of length 1 that come from nowhere are dropped."""
    return array.reshape([factor.length for factor in _factors(axes)]), factor_places(axes, array.shape)


def factor_places(axes: ax.Axes, shape: Sequence[int]) -> list[Place]:
    """Name the factors that an array of these axes is cut into."""
    places: list[Place] = []
    for factor in _factors(axes):
        if len(factor.origins) > 1:
            raise ValueError(
                f"Attention of shape {list(shape)} has an axis into which several were merged in a way that "
                "cannot be undone. Sow the weights where they are computed, or build Attention(encoder=...) of "
                "them."
            )
        places.append(next(iter(factor.origins), ("new", len(places))))
    return places


def _factors(axes: ax.Axes) -> list[ax.Factor]:
    return [factor for axis in axes for factor in axis if factor.length != 1 or factor.origins]


def aligned(array: Any, places: list[Place], wanted: list[Place]) -> Any:
    """Transpose `array` to the order of `wanted`, with length 1 where it lacks an axis."""
    order = sorted(range(len(places)), key=lambda i: wanted.index(places[i]))
    shape = [array.shape[places.index(place)] if place in places else 1 for place in wanted]
    return jnp.transpose(array, order).reshape(shape)
