"""Find the product of queries and keys under a softmax, and tell its axes apart.

The axis of the keys is the one that the softmax sums over; it belongs to one side of the product. That of the queries belongs to
the other side, and is free in the product with the values. Axes that come from the same arrays as the tokens are batch; the
others are heads.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Literal

from jaxflow.capture._tracing import axes as ax
from jaxflow.capture._tracing.program import Op, Scope, Value
from jaxflow.capture._tracing.softmax import Keys, Step

Place = tuple[int, int]  # axis of the product of queries and keys, and factor of that axis
Part = Literal["batch", "head", "query", "key"]
NO_QUERIES = "its queries have no axis of their own in the product with the values"


@dataclasses.dataclass(frozen=True)
class Around:
    """What is known of the scope that attention lies in.

    Attributes:
        scope: a function, or the body of a loop.
        loops: the scans around it, outermost first.
        place: numbers of the operations around it, outermost first.
        axes: where the axes of every value come from.
        computed: the values that are more than a parameter or an input.
        producers: the operation that makes each value.
        random: values that are computed elementwise from random bits.
        lasting: origins of an axis that every result of the function has: no heads, but models that run side by side.
    """

    scope: Scope
    loops: tuple[Op, ...]
    place: tuple[int, ...]
    axes: Mapping[Value, ax.Axes]
    computed: frozenset[Value]
    producers: Mapping[Value, Op]
    random: frozenset[Value]
    lasting: frozenset[ax.Origin]


@dataclasses.dataclass(frozen=True, eq=False)
class Scores:
    """The product of queries and keys under a softmax.

    Attributes:
        op: the product.
        key_side: which of its arguments are the keys.
        axes: of values between it and the product with the values: their factors come from `(axis, factor)` of what it makes.
        parts: what each of its factors is.
        rank: the order among factors of one part; a batch that is repeated has the rank of its repetitions but for the end.
        raw: whether queries and keys are arguments of the function, and no projections of anything.
    """

    op: Op
    key_side: int
    axes: Mapping[Value, ax.Axes]
    parts: Mapping[Place, Part]
    rank: Mapping[Place, tuple]
    raw: bool


def find_scores(
    around: Around, exp: Op, keys: Keys, product: Step | None, divisor: Value | None = None
) -> Scores | str:
    """Find the product of queries and keys in the logits of an exponential.

    Args:
        around: its scope.
        exp: the exponential.
        keys: those of its axes that are keys.
        product: the product with the values; None if that is out of sight.
        divisor: what that product is divided by, if it is.

    Returns:
        The product; or why there is none.
    """
    ends = [op.index for op in (exp, product and product.op, divisor and around.producers[divisor]) if op]
    until = max(ends)
    reason = "no product of queries and keys in its logits"
    for dot in _products(around, exp.ins[0]):
        axes = _spread(around, dot, until)
        logits = axes.get(exp.ins[0])
        if logits is None:
            continue
        sides = _sides(dot)
        sums = {place for _, axis in keys for place in ax.origins(logits[axis])}
        side = {sides[axis] for axis, _ in sums}
        if len(side) != 1 or None in side:
            continue
        (key_side,) = side
        assert key_side is not None
        n_batch = len(dot.params["dimension_numbers"][1][0])
        if not n_batch and (dot.ins[0] in around.computed) != (dot.ins[1] in around.computed):
            reason = "its logits are a product with a parameter, as those of a router, a gate or an output are"
            continue
        if product is None:
            return Scores(dot, key_side, axes, {}, {}, raw=False)
        free = free_origins(product, axes[product.op.ins[product.place]])
        queries = [place for place in _factors(around, dot) if sides[place[0]] == 1 - key_side and place in free]
        if not queries:
            reason = NO_QUERIES
            continue
        raw = not around.computed.intersection(dot.ins)
        parts, rank = _parts(around, dot, key_side, sums, queries, raw)
        n_axes = list(parts.values()).count("query")
        if not n_axes or (raw and n_axes > 1):
            reason = "queries and groups of heads cannot be told apart, since no projection makes them"
            continue
        return Scores(dot, key_side, axes, parts, rank, raw)
    return reason


def _products(around: Around, value: Value) -> Iterator[Op]:
    """Yield the products that `value` is computed of, the nearest first; beyond one only if it may mix heads."""
    waiting, seen = [value], {value}
    while waiting:
        op = around.producers.get(waiting.pop(0))
        if op is None or op.bodies or ax.is_reduction(op):
            continue
        if op.name == "dot_general" and op.params["dimension_numbers"][0][0]:
            yield op
            if (op.ins[0] in around.computed) == (op.ins[1] in around.computed):
                continue
        fresh = [value for value in op.ins if value not in seen]
        waiting += fresh
        seen.update(fresh)


def _factors(around: Around, dot: Op) -> Iterator[Place]:
    (out,) = dot.outs
    return ((i, j) for i, axis in enumerate(around.axes[out]) for j in range(len(axis)))


def _spread(around: Around, dot: Op, until: int) -> dict[Value, ax.Axes]:
    """Follow the factors of what `dot` makes up to operation number `until`."""
    (out,) = dot.outs
    started = tuple(
        tuple(ax.Factor(factor.length, frozenset([(i, j)])) for j, factor in enumerate(axis))
        for i, axis in enumerate(around.axes[out])
    )
    axes = {out: started}
    for op in around.scope.ops[dot.index + 1 : until + 1]:
        if not op.bodies and any(value in axes for value in op.ins):
            axes.update(zip(op.outs, ax.follow(op, axes), strict=True))
    return axes


def _parts(
    around: Around, dot: Op, key_side: int, keys: set[Place], queries: list[Place], raw: bool
) -> tuple[dict[Place, Part], dict[Place, tuple]]:
    """Say what each factor of the product of queries and keys is, and its rank among its like."""
    sides, (out,) = _sides(dot), dot.outs
    known = {(i, j): around.axes[out][i][j] for i, j in _factors(around, dot)}
    tokens = frozenset().union(*(known[place].origins for place in keys))
    both = [place for place in known if sides[place[0]] is None]
    if len(queries) > 1:
        # Grouped heads are free too. Queries come from what the keys come from, or from what the batch does.
        data = arrays_of(tokens)
        for place in both:
            if arrays_of(known[place].origins) & data:
                data |= arrays_of(known[place].origins)
        shared = frozenset().union(*(known[place].origins for place in both))
        queries = [place for place in queries if not known[place].origins & shared] or queries
        heads = frozenset().union(
            *(arrays_of(known[p].origins) for p in both if not arrays_of(known[p].origins) & data)
        )
        queries = (
            [place for place in queries if known[place].origins & tokens]
            or [place for place in queries if arrays_of(known[place].origins) & data]
            or [place for place in queries if not arrays_of(known[place].origins) & heads]
            or queries
        )
    if raw and len(queries) > 1:  # no projection tells groups of heads from queries: as many as there are keys
        n_keys = math.prod(known[place].length for place in keys)
        queries = [place for place in queries if known[place].length == n_keys]
    tokens = tokens.union(*(known[place].origins for place in queries))
    data = arrays_of(tokens)
    parts: dict[Place, Part] = {}
    for place, factor in known.items():
        whence = arrays_of(factor.origins or ax.origins(around.axes[out][place[0]]))  # repeated: what is repeated
        is_batch = bool(whence & data) or (place in both and factor.length == 1 and not whence)
        of_queries = sides[place[0]] == 1 - key_side
        part: Part = "batch" if is_batch and (not of_queries or place[0] not in {i for i, _ in queries}) else "head"
        parts[place] = "key" if place in keys else "query" if place in queries else part
    batches = [place for place in both if parts[place] == "batch"]
    if raw:  # queries and keys as they were given: no projection tells heads from batch, the last is heads
        for place in known:
            if parts[place] == "batch" and sides[place[0]] is not None:
                parts[place] = "head"
        if batches and (len(batches) > 1 or len(around.axes[dot.ins[0]]) == 3):
            parts[batches[-1]] = "head"
    heads_found = [place for place, part in parts.items() if part == "head" and known[place].origins]
    side_by_side = [place for place in heads_found if known[place].origins & around.lasting]
    if not raw and len(side_by_side) < len(heads_found):
        parts.update(dict.fromkeys(side_by_side, "batch"))
    places = _places(dot, 1 - key_side)
    rank: dict[Place, tuple] = {}
    for place, factor in known.items():
        whence = factor.origins or ax.origins(around.axes[out][place[0]])
        axes = [axis for array, axis in whence if array in data and parts[place] == "batch"]
        rank[place] = (min(axes, default=-1), places[place[0]], place)
    return parts, rank


def length_of(scores: Scores, axes: ax.Axes, part: Part) -> int:
    """Count queries, keys, ...: `axes` are those of the product."""
    length = 1
    for (i, j), p in scores.parts.items():
        length *= axes[i][j].length if p == part else 1
    return length


def _sides(dot: Op) -> list[int | None]:
    """Of each axis that a product makes: which argument it belongs to, or None for both."""
    (lhs, _), (batch, _) = dot.params["dimension_numbers"]
    n_lhs = len(dot.ins[0].shape) - len(lhs) - len(batch)
    n_out = len(dot.outs[0].shape)
    return [None] * len(batch) + [0] * n_lhs + [1] * (n_out - len(batch) - n_lhs)


def _places(dot: Op, side: int) -> list[int]:
    """Where in argument `side` each axis lies that a product makes; those of the other argument come last."""
    summed, batch = dot.params["dimension_numbers"]
    n_axes = len(dot.ins[side].shape)
    free = iter(i for i in range(n_axes) if i not in (*summed[side], *batch[side]))
    return [int(i) for i in batch[side]] + [
        next(free) if owner == side else n_axes + i for i, owner in enumerate(_sides(dot)) if owner is not None
    ]


def free_origins(product: Step, weights: ax.Axes) -> frozenset:
    """Tell where the axes come from that only the weights have, in their product with the values."""
    summed, batch = product.op.params["dimension_numbers"]
    bound = {*summed[product.place], *batch[product.place]}
    return ax.origins(*(axis for i, axis in enumerate(weights) if i not in bound))


def arrays_of(origins: frozenset) -> frozenset:
    """Return the arguments and constants among origins."""
    return frozenset(array for array, _ in origins)
