"""Find where a program computes attention: a softmax over the product of queries and keys, that weighs values.

What each axis is follows from the two products. Keys are the axis that the softmax sums over, and it belongs to one side of the
product of queries and keys; queries belong to the other side, and are free in the product with the values. What comes from
the same arrays as the tokens is batch; the rest are heads.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Literal

from jaxflow.capture.tracing import axes as ax
from jaxflow.capture.tracing.origins import axes_of, computed_values
from jaxflow.capture.tracing.program import Op, Scope, Value, scan_parts
from jaxflow.capture.tracing.softmax import (
    Keys,
    Softmax,
    Step,
    exponentials,
    follow_exponential,
    is_dropout,
    is_scaling,
    random_values,
)

Part = Literal["batch", "head", "query", "key"]
NO_QUERIES = "its queries have no axis of their own in the product with the values"
ONE_QUERY = (
    "has one query in each pass of a loop: a sequence written token by token. Capture one pass over the whole sequence instead: its "
    "attention is causal, so it has every step's."
)


@dataclasses.dataclass(frozen=True, eq=False)
class Scores:
    """The product of queries and keys under a softmax.

    Attributes:
        op: the product.
        key_side: which of its arguments are the keys.
        axes: of values between it and the product with the values: their factors come from `(axis, factor)` of what it makes.
        parts: what each of its factors is.
        rank: by which those of one part are ordered.
        raw: whether queries and keys are arguments of the function, and no projections of anything.
    """

    op: Op
    key_side: int
    axes: Mapping[Value, ax.Axes]
    parts: Mapping[tuple[int, int], Part]
    rank: Mapping[tuple[int, int], tuple]
    raw: bool


@dataclasses.dataclass(frozen=True, eq=False)
class Site:
    """One place where attention is computed.

    Attributes:
        scope: the function or loop body that it lies in.
        loops: the scans around it, outermost first.
        layers: of each loop, whether its passes build on each other, as layers do, or else which part of the attention's
            axes it goes through.
        softmax: divided exponential and product with values.
        steps: of the steps between division and product, those that are no dropout.
        scores: the product of queries and keys.
        path: the named scopes around it, and its number: `/decoder/layer_0/3/`.
        order: its place among all.
    """

    scope: Scope
    loops: tuple[Op, ...]
    layers: tuple[Literal["layer", "batch", "head"], ...]
    softmax: Softmax
    steps: tuple[Step, ...]
    scores: Scores
    path: str
    order: tuple[int, ...]


@dataclasses.dataclass
class Findings:
    """What was found in a program.

    Attributes:
        sites: attention, in the order in which it runs.
        refused: attention that cannot be taken, and why.
        other: softmaxes that are no attention, and why.
    """

    sites: list[Site] = dataclasses.field(default_factory=list)
    refused: list[str] = dataclasses.field(default_factory=list)
    other: list[str] = dataclasses.field(default_factory=list)


def find(program: Scope) -> Findings:
    """Find all attention of a program."""
    findings = Findings()
    axes = axes_of(program, {})
    _search(program, (), (), axes, computed_values(program), findings)
    findings.sites.sort(key=lambda site: site.order)
    findings.sites = [
        dataclasses.replace(site, path=f"/{site.path}/{i}/".replace("//", "/")) for i, site in enumerate(findings.sites)
    ]
    return findings


def _search(
    scope: Scope,
    loops: tuple[Op, ...],
    place: tuple[int, ...],
    axes: Mapping[Value, ax.Axes],
    computed: frozenset[Value],
    findings: Findings,
) -> None:
    producers, random = scope.producers(), random_values(scope)
    every = [(exp, follow_exponential(scope, exp, producers)) for exp in exponentials(scope)]
    # exp(x - log(sum(exp(x)))) are two exponentials, and one softmax: that of the first.
    divided = {softmax.product.op for _, followed in every for softmax in followed.softmaxes}
    for exp, followed in every:
        undivided = tuple((keys, step) for keys, step in followed.undivided if step.op not in divided)
        if followed.softmaxes or undivided or followed.lost:
            finder = _Finder(scope, loops, place, axes, computed, producers, random, exp)
            finder.judge(followed.softmaxes, undivided, followed.lost, findings)
        elif followed.crossed:
            findings.other.append(
                f"{_where(exp)}softmax of shape {list(exp.outs[0].shape)}: its weights are summed up over another axis than the one "
                "that they are divided over (a softmax over queries, as in slot attention, without a division over keys)."
            )
    for op in scope.ops:
        for body in op.bodies:
            inner = findings if op.name == "scan" else Findings()
            _search(body, (*loops, op) if op.name == "scan" else (), (*place, op.index), axes, computed, inner)
            if op.name != "scan" and (inner.sites or inner.refused):
                findings.refused.append(_unreachable(op))


def _unreachable(op: Op) -> str:
    if op.name == "while":
        return (
            f"{_where(op)}attention inside a while loop, whose number of passes is not known before it runs. Let the layers be a "
            "Python loop, lax.scan, or lax.fori_loop with bounds that are Python numbers, which becomes a scan; capture the pass "
            "over a whole sequence instead of a loop that generates it."
        )
    return (
        f"{_where(op)}attention inside a cond (lax.cond, lax.switch), where only one branch runs. Decide in Python, with a "
        "static argument instead of a traced one, or capture the function of the branch that you mean."
    )


def _where(op: Op) -> str:
    return f"/{op.path}: " if op.path else ""


@dataclasses.dataclass(frozen=True)
class _Finder:
    """All that is known around one exponential."""

    scope: Scope
    loops: tuple[Op, ...]
    place: tuple[int, ...]
    axes: Mapping[Value, ax.Axes]
    computed: frozenset[Value]
    producers: Mapping[Value, Op]
    random: frozenset[Value]
    exp: Op

    def judge(
        self,
        softmaxes: tuple[Softmax, ...],
        undivided: tuple[tuple[Keys, Step], ...],
        lost: tuple[tuple[Keys, Op], ...],
        findings: Findings,
    ) -> None:
        """Sort what became of the exponential into attention, what is refused, and what is none."""
        where = _where(self.exp)
        taken: list[tuple[Site, Softmax]] = []
        for softmax in softmaxes:
            found = self._scores(softmax.keys, softmax.product, softmax.divisor)
            if found == NO_QUERIES and self.loops:
                findings.refused.append(f"{where}attention of shape {list(self.exp.outs[0].shape)} {ONE_QUERY}")
                return
            if isinstance(found, str):
                findings.other.append(f"{where}softmax of shape {list(self.exp.outs[0].shape)}: {found}.")
                continue
            if softmax.mixed:
                findings.refused.append(
                    f"{where}attention of shape {list(self.exp.outs[0].shape)} is multiplied with a matrix between softmax and "
                    "values (talking heads?), so what weighs the values is no probability. Sow what you mean, or build "
                    "Attention(encoder=...) of it."
                )
                return
            if taken and not self._builds_on(softmax, taken[-1][1]):
                if _cuts(softmax) != _cuts(taken[-1][1]):
                    findings.refused.append(
                        f"{where}attention of shape {list(self.exp.outs[0].shape)} weighs two sets of values by two parts of its keys. "
                        "Join keys and values before the product (jnp.concatenate)."
                    )
                    return
                continue  # the same weights for content and for position
            site = self._site(softmax, found)
            if isinstance(site, str):
                findings.refused.append(f"{where}{site}")
                return
            taken.append((site, softmax))
        findings.sites += [site for site, _ in taken]
        if taken:
            return
        for keys, product in undivided:
            if not isinstance(self._scores(keys, product), str):
                findings.refused.append(
                    f"{where}an exponential of queries times keys, {list(self.exp.outs[0].shape)}, weighs values without being "
                    "divided by its sum over the same axes: attention in blocks of keys with a running sum (flash attention), "
                    "a softmax over queries, or a kernel. Switch it off for the capture (such as attention='dot_product', "
                    "use_flash_attention=False, key_chunk_size=None), or compute the weights from queries and keys: "
                    "jaxflow.attention_weights(query, key)."
                )
                return
        for keys, op in lost:
            if softmaxes or isinstance(self._scores(keys, None), str):
                continue
            findings.refused.append(
                f"{where}softmax weights of shape {list(self.exp.outs[0].shape)} go into a {op.name}, where they cannot be followed. "
                "Switch blocks and chunks off for the capture, or compute the weights: jaxflow.attention_weights(query, key)."
            )
            return

    def _builds_on(self, softmax: Softmax, earlier: Softmax) -> bool:
        """Whether the values of one product depend on the result of an earlier one: another layer, with the same weights."""
        known = set(earlier.product.op.outs)
        for op in self.scope.ops[earlier.product.op.index + 1 : softmax.product.op.index]:
            if any(value in known for value in op.ins):
                known.update(op.outs)
        return softmax.product.op.ins[1 - softmax.product.place] in known

    def _scores(self, keys: Keys, product: Step | None, divisor: Value | None = None) -> Scores | str:
        """Find the product of queries and keys; or say why there is none."""
        ends = [op.index for op in (self.exp, product and product.op, divisor and self.producers[divisor]) if op]
        until = max(ends)
        reason = "no product of queries and keys in its logits"
        for dot in self._products(self.exp.ins[0]):
            axes = self._spread(dot, until)
            logits = axes.get(self.exp.ins[0])
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
            if not n_batch and (dot.ins[0] in self.computed) != (dot.ins[1] in self.computed):
                reason = "its logits are a product with a parameter, as those of a router, a gate or an output are"
                continue
            if product is None:
                return Scores(dot, key_side, axes, {}, {}, raw=False)
            free = _free(product, axes)
            queries = [place for place in self._factors(dot) if sides[place[0]] == 1 - key_side and place in free]
            if not queries:
                reason = NO_QUERIES
                continue
            raw = not self.computed.intersection(dot.ins)
            parts, rank = self._parts(dot, key_side, sums, queries, raw)
            n_axes = list(parts.values()).count("query")
            if not n_axes or (raw and n_axes > 1):
                reason = "queries and groups of heads cannot be told apart, since no projection makes them"
                continue
            return Scores(dot, key_side, axes, parts, rank, raw)
        return reason

    def _products(self, value: Value) -> Iterator[Op]:
        """Yield the products that lie before `value`, the nearest first, without looking beyond them, unless they mix heads."""
        waiting, seen = [value], {value}
        while waiting:
            op = self.producers.get(waiting.pop(0))
            if op is None or op.bodies or op.name.startswith(("reduce_", "arg")):
                continue
            if op.name == "dot_general" and op.params["dimension_numbers"][0][0]:
                yield op
                if (op.ins[0] in self.computed) == (op.ins[1] in self.computed):
                    continue
            fresh = [value for value in op.ins if value not in seen]
            waiting += fresh
            seen.update(fresh)

    def _factors(self, dot: Op) -> Iterator[tuple[int, int]]:
        (out,) = dot.outs
        return ((i, j) for i, axis in enumerate(self.axes[out]) for j in range(len(axis)))

    def _spread(self, dot: Op, until: int) -> dict[Value, ax.Axes]:
        """Follow the factors of what `dot` makes up to operation number `until`."""
        (out,) = dot.outs
        started = tuple(
            tuple(ax.Factor(factor.length, frozenset([(i, j)])) for j, factor in enumerate(axis))
            for i, axis in enumerate(self.axes[out])
        )
        axes = {out: started}
        for op in self.scope.ops[dot.index + 1 : until + 1]:
            if not op.bodies and any(value in axes for value in op.ins):
                axes.update(zip(op.outs, ax.follow(op, axes), strict=True))
        return axes

    def _parts(
        self, dot: Op, key_side: int, keys: set[tuple[int, int]], queries: list[tuple[int, int]], raw: bool
    ) -> tuple[dict[tuple[int, int], Part], dict[tuple[int, int], tuple]]:
        """Say what each factor of the product of queries and keys is, and its rank among its like."""
        sides, (out,) = _sides(dot), dot.outs
        known = {(i, j): self.axes[out][i][j] for i, j in self._factors(dot)}
        tokens = frozenset().union(*(known[place].origins for place in keys))
        both = [place for place in known if sides[place[0]] is None]
        if len(queries) > 1:
            # Grouped heads are free too. Queries come from what the keys come from, or from what the batch does.
            data = _arrays(tokens)
            for place in both:
                if _arrays(known[place].origins) & data:
                    data |= _arrays(known[place].origins)
            shared = frozenset().union(*(known[place].origins for place in both))
            queries = [place for place in queries if not known[place].origins & shared] or queries
            heads = frozenset().union(
                *(_arrays(known[p].origins) for p in both if not _arrays(known[p].origins) & data)
            )
            queries = (
                [place for place in queries if known[place].origins & tokens]
                or [place for place in queries if _arrays(known[place].origins) & data]
                or [place for place in queries if not _arrays(known[place].origins) & heads]
                or queries
            )
        if raw and len(queries) > 1:  # no projection tells groups of heads from queries: as many as there are keys
            n_keys = math.prod(known[place].length for place in keys)
            queries = [place for place in queries if known[place].length == n_keys]
        tokens = tokens.union(*(known[place].origins for place in queries))
        data = _arrays(tokens)
        parts: dict[tuple[int, int], Part] = {}
        for place, factor in known.items():
            is_batch = bool(_arrays(factor.origins) & data) or (
                place in both and factor.length == 1 and not factor.origins
            )
            of_queries = sides[place[0]] == 1 - key_side
            part: Part = "batch" if is_batch and (not of_queries or place[0] not in {i for i, _ in queries}) else "head"
            parts[place] = "key" if place in keys else "query" if place in queries else part
        batches = [place for place in both if parts[place] == "batch"]
        if raw:  # queries and keys as they were given: no projection tells heads from batch, the last is heads
            for place in known:
                if parts[place] == "batch" and sides[place[0]] is not None:
                    parts[place] = "head"
            if batches and (len(batches) > 1 or len(self.axes[dot.ins[0]]) == 3):
                parts[batches[-1]] = "head"
        places = _places(dot, 1 - key_side)
        rank: dict[tuple[int, int], tuple] = {}
        for place, factor in known.items():
            axes = [axis for array, axis in factor.origins if array in data and parts[place] == "batch"]
            rank[place] = (min(axes, default=0), places[place[0]], place)
        return parts, rank

    def _site(self, softmax: Softmax, scores: Scores) -> Site | str:
        """Put together what is known; or say why this attention cannot be taken."""
        steps = softmax.steps
        if any(is_dropout(step, self.random) for step in steps):
            steps = tuple(step for step in steps if not is_dropout(step, self.random) and not is_scaling(step))
        (out,) = scores.op.outs
        shape = list(self.exp.outs[0].shape)
        origins = {
            part: [self.axes[out][i][j].origins for (i, j), p in scores.parts.items() if p == part]
            for part in ("batch", "head", "query", "key")
        }
        tokens = frozenset().union(*origins["query"], *origins["key"])
        if any(other & tokens for other in (*origins["batch"], *origins["head"])):
            return (
                f"attention of shape {shape} is computed in blocks of tokens: one of its axes comes from the same axis as "
                "the tokens, so there is no weight for two tokens of different blocks. Take full attention for the capture (attention_type, "
                "window or chunk sizes in the model's config)."
            )
        layers: list[Literal["layer", "batch", "head"]] = []
        for loop in self.loops:
            kind = self._loop(loop, scores, tokens)
            if kind is None:
                return (
                    f"attention of shape {shape} is computed in a loop whose passes do not build on each other: in chunks of "
                    "queries, or one step of a sequence at a time. Switch chunks off for the capture (such as query_chunk_size=None), "
                    "and pass the whole sequence at once."
                )
            layers.append(kind)
        n_queries = _length(scores, self.axes[out], "query")
        if self.loops and n_queries == 1 and _length(scores, self.axes[out], "key") > 1:
            return f"attention of shape {shape} {ONE_QUERY}"
        order = (*self.place, softmax.product.op.index)
        return Site(self.scope, self.loops, tuple(layers), softmax, steps, scores, self.exp.path, order)

    def _loop(self, loop: Op, scores: Scores, tokens: frozenset) -> Literal["layer", "batch", "head"] | None:
        """Say whether the passes of a scan are layers, or what they go through."""
        (body,), parts = loop.bodies, scan_parts(loop)
        carried = body.ins[parts.n_constants : parts.n_constants + parts.n_carried]
        begin = scores.op if body is self.scope else next(op for op in self.loops if op in body.ops)
        # Layers: the queries depend on something carried that the attention goes into.
        needed = _needs(body, begin.ins)
        while True:
            more = (
                _needs(body, [out for out, inner in zip(body.outs, carried, strict=False) if inner in needed]) | needed
            )
            if more == needed:
                break
            needed = more
        reached = _reaches(body, begin)
        if any(inner in needed and out in reached for inner, out in zip(carried, body.outs, strict=False)):
            return "layer"
        sliced = body.ins[parts.n_constants + parts.n_carried :]
        outer = loop.ins[parts.n_constants + parts.n_carried :]
        steps = ax.origins(
            *(self.axes[value][0] for value, inner in zip(outer, sliced, strict=True) if inner in needed)
        )
        if not steps or steps & tokens:
            return None
        return "batch" if _arrays(steps) & _arrays(tokens) else "head"


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


def _free(product: Step, axes: Mapping[Value, ax.Axes]) -> frozenset:
    """Of which factors the axes are that only the weights have, in their product with the values."""
    summed, batch = product.op.params["dimension_numbers"]
    bound = {*summed[product.place], *batch[product.place]}
    known = axes[product.op.ins[product.place]]
    return ax.origins(*(axis for i, axis in enumerate(known) if i not in bound))


def _arrays(origins: frozenset) -> frozenset:
    return frozenset(array for array, _ in origins)


def _cuts(softmax: Softmax) -> list[tuple]:
    names = ("slice", "dynamic_slice", "split")
    return [(step.op.name, step.result, str(step.op.params)) for step in softmax.steps if step.op.name in names]


def _length(scores: Scores, axes: ax.Axes, part: Part) -> int:
    length = 1
    for (i, j), p in scores.parts.items():
        length *= axes[i][j].length if p == part else 1
    return length


def _needs(scope: Scope, values: list[Value] | tuple[Value, ...]) -> set[Value]:
    """All values that `values` are computed of, and they themselves."""
    needed = set(values)
    for op in reversed(scope.ops):
        if any(value in needed for value in op.outs):
            needed.update(op.ins)
    return needed


def _reaches(scope: Scope, start: Op) -> set[Value]:
    """All values that depend on what `start` makes."""
    reached = set(start.outs)
    for op in scope.ops[start.index + 1 :]:
        if any(value in reached for value in op.ins):
            reached.update(op.outs)
    return reached
