"""Find what moves information from token to token and is no attention: recurrences, convolutions, fixed matrices, shifts.

The program is followed once, without its numbers. Between one attention and the next, and up to the outputs, each position must
depend on its own token alone: on what came in there, and on what the attention below gave there.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxflow.capture._tracing import axes as ax
from jaxflow.capture._tracing import reach as rc
from jaxflow.capture._tracing.axes import is_reduction
from jaxflow.capture._tracing.origins import axes_of
from jaxflow.capture._tracing.positions import places_of, positions_along, positions_of
from jaxflow.capture._tracing.program import KERNELS, Op, Scope, Value
from jaxflow.capture._tracing.reach import NONE, Reaches
from jaxflow.capture._tracing.reach_known import Known, is_words
from jaxflow.capture._tracing.reach_program import Follower
from jaxflow.capture._tracing.reach_rules import follow
from jaxflow.capture._tracing.scores import Part
from jaxflow.capture._tracing.sites import Site

FAR = 64  # operations that are looked at, to name the one that moved tokens
MOVING = {"pad", "concatenate", "rev", "gather", "dynamic_slice", "slice", "roll", "scatter", "scatter-add"}
ELSEWHERE = "tokens stand at other places than in the layer before"
MOVED = "tokens that are put to other places, and added to those there"
_WHAT = {
    "scan": "a recurrence over tokens",
    "while": "a loop over tokens",
    "conv_general_dilated": "a convolution over tokens",
    "dot_general": "a product with a matrix of tokens by tokens, or a sum over tokens that goes back to tokens",
    "fft": "a Fourier transform over tokens",
    "sort": "a sort over tokens",
    "gather": "tokens that are picked and put to other places",
    "dynamic_slice": "tokens that are picked and put to other places",
}


def find_mixing(program: Scope, sites: Sequence[Site], sown: Collection[Value] = ()) -> list[str]:
    """Name the places where tokens are mixed by something other than attention, each by a sentence without a full stop.

    What is before the first attention counts where it mixes words, or rows of an argument that has as many as there are tokens:
    what makes tokens, such as patches of pixels or frames of sound, mixes none.

    Args:
        program: the whole function.
        sites: its attention.
        sown: values, `[..., query, key]`, that are attention weights too, since the model says so.
    """
    return _Finder(program, sites, sown).found()


class _Finder:
    """Follows a program; see `find_mixing`."""

    def __init__(self, program: Scope, sites: Sequence[Site], sown: Collection[Value]) -> None:
        self._program, self._sites, self._sown = program, sites, sown
        self._of_sown: set[Value] = set()  # what is computed of weights that are sown, and of nothing else of a token
        self._axes = axes_of(program, {})
        self._follower = Follower(self._visit, self._fixed)
        self._known = self._follower.known
        self._products: dict[Op, list[Site]] = {}
        self._scores: dict[Op, list[Site]] = {}
        self._weights: dict[Value, Site] = {}
        for site in sites:
            self._scores.setdefault(site.scores.op, []).append(site)
            self._weights[site.softmax.exp.outs[0]] = site
            for softmax in (site.softmax, *site.also):
                self._products.setdefault(softmax.product.op, []).append(site)
                self._weights[softmax.start] = site
        self._places: dict[str, None] = {}

    def found(self) -> list[str]:
        reaches = self._known.reaches
        reaches.update(self._inputs())
        self._follower.follow(self._program)
        for kind, ops in self._known.mixed_words.items():
            if kind in self._known.looked_up:
                self._note(ops)
        for value in self._program.outs:
            for kind, reach in reaches.get(value, NONE).items():
                moving = [op for op in reach.by if not is_reduction(op) and "transpose(" not in op.path]
                if kind[0] == "queries" and int(reach.stop.max(initial=0)) in reach.start.shape and reach.width > 1:
                    self._note_some(moving)
        return list(self._places)

    def _inputs(self) -> Iterator[tuple[Value, Reaches]]:
        """Say which arguments hold tokens, and along which axis."""
        lengths: dict[tuple[Any, Any], int] = {}
        batch: set = set()
        for site in self._sites:
            made = self._axes[site.scores.op.outs[0]]
            count = {part: math.prod(made[i][j].length for i, j in places_of(site, part)) for part in ("query", "key")}
            for (i, j), part in site.scores.parts.items():
                for origin in made[i][j].origins:
                    if part in ("query", "key"):
                        lengths[origin] = max(lengths.get(origin, 0), count[part])
                    elif part == "batch":
                        batch.add(origin)
            weights = site.softmax.exp.outs[0]  # and what is added to the logits, such as a table of distances
            known = [factor for axis in site.scores.axes.get(weights, ()) for factor in axis]
            whence = [factor for axis in self._axes[weights] for factor in axis]
            for factor, own in zip(known, whence, strict=False) if len(known) == len(whence) else ():
                parts = {site.scores.parts.get(place) for place in factor.origins}
                longest = max((n for part, n in count.items() if part in parts), default=0)
                for origin in own.origins if longest else ():
                    lengths[origin] = max(lengths.get(origin, 0), longest)
        for value in self._sown:
            *others, query, key = self._axes[value]
            lengths.update(dict.fromkeys(ax.origins(query, key), max(value.shape[-2:])))
            batch |= ax.origins(*others)
        for number, value in enumerate(self._program.ins):
            places = [place for place in range(len(value.shape)) if (number, place) in lengths]
            if len(places) != 1 or value.dtype is None or value.shape[places[0]] > lengths[number, places[0]]:
                continue
            rest = [n for i, n in enumerate(value.shape) if i not in places and (number, i) not in batch]
            if jnp.issubdtype(value.dtype, jnp.integer):
                kind = "words"
            elif jnp.issubdtype(value.dtype, jnp.floating) and max(rest, default=1) > 1:
                kind = "rows"
            else:
                continue
            positions = rc.along(len(value.shape), places[0], value.shape[places[0]])
            yield value, {(kind, number): rc.points(positions)}

    def _visit(self, op: Op) -> list[Reaches] | None:
        """Check what an attention reads, and say what it gives."""
        for site in self._scores.get(op, ()):
            self._check(site, op, 1 - site.scores.key_side, "query")
            self._check(site, op, site.scores.key_side, "key")
        for site in self._products.get(op, ()):
            self._check_values(site, op)
        if op not in self._products:
            return self._weighed(op) if self._sown else None
        every = (softmax for site in self._products[op] for softmax in (site.softmax, *site.also))
        return self._of_one(op, next(each.product.place for each in every if each.product.op is op))

    def _of_one(self, op: Op, place: int) -> list[Reaches]:
        """Follow an operation as if one of its arguments alone came from tokens."""
        alone = dataclasses.replace(op, ins=tuple(copy.copy(value) for value in op.ins))  # both may be one value
        return follow(alone, Known({alone.ins[place]: self._known.reaches.get(op.ins[place], NONE)}))

    def _fixed(self, value: Value) -> Reaches | None:
        """Say what weights are: of their queries."""
        if value in self._weights:
            return self._queries(self._weights[value], value)
        if value in self._sown:
            axis = len(value.shape) - 2
            return {("queries", "sown"): rc.points(rc.along(len(value.shape), axis, value.shape[axis]))}
        return None

    def _weighed(self, op: Op) -> list[Reaches] | None:
        """Follow what weights that are sown go into; None of other operations."""
        places = [i for i, value in enumerate(op.ins) if value in self._of_sown or value in self._sown]
        if not places or op.bodies or op in self._products:
            return None
        reaches = self._known.of(op)
        if op.name == "dot_general" and len(places) == 1:
            (place,) = places
            summed = op.params["dimension_numbers"][0][1 - place]
            if len(summed) == 1:
                value = op.ins[1 - place]
                self._check_rows(reaches[1 - place], rc.along(len(value.shape), summed[0], value.shape[summed[0]]))
            return self._of_one(op, place)
        if not any(each for i, each in enumerate(reaches) if i not in places):
            self._of_sown.update(op.outs)
        return None

    def _queries(self, site: Site, value: Value) -> Reaches:
        axes = site.scores.axes.get(value)
        if axes is None:
            return NONE
        positions = positions_of(site, axes, value.shape, "query")
        made = self._axes[site.scores.op.outs[0]]
        origins = frozenset().union(*(made[i][j].origins for i, j in places_of(site, "query")))
        return {("queries", origins): rc.points(positions)}

    def _check(self, site: Site, op: Op, side: int, part: Part) -> None:
        """Check the queries or the keys of an attention."""
        reaches = self._known.reaches.get(op.ins[side], NONE)
        if not reaches:
            return
        (out,) = op.outs
        (made,) = self._of_one(op, side)
        self._check_rows(made, positions_along(self._axes[out], out.shape, places_of(site, part)))

    def _check_values(self, site: Site, op: Op) -> None:
        softmax = next(each for each in (site.softmax, *site.also) if each.product.op is op)
        place = softmax.product.place
        reaches = self._known.reaches.get(op.ins[1 - place], NONE)
        axes = site.scores.axes.get(op.ins[place])
        if not reaches or axes is None:
            return
        summed, batch = op.params["dimension_numbers"]
        positions = positions_of(site, axes, op.ins[place].shape, "key")
        rank = len(op.ins[1 - place].shape)
        order = [*summed[place], *batch[place]]
        others = tuple(i for i in range(positions.ndim) if i not in order)
        positions = positions.max(others, keepdims=True) if others else positions
        positions = positions.transpose([*order, *others])
        shape = [1] * rank
        pairs = zip([*summed[1 - place], *batch[1 - place]], range(len(order)), strict=True)
        target = dict(pairs)
        positions = positions.reshape(positions.shape[: len(order)]).transpose(
            [target[axis] for axis in sorted(target)]
        )
        for axis, n in zip(sorted(target), positions.shape, strict=True):
            shape[axis] = n
        self._check_rows(reaches, positions.reshape(shape))

    def _check_rows(self, reaches: Reaches, positions: np.ndarray) -> None:
        """Check that each position depends on its own token, or on one of the input's that no other position has."""
        for kind, reach in reaches.items():
            if kind[0] == "queries":
                some = reach.start < reach.stop
                other = some & ((reach.start != positions) | (reach.stop != positions + 1))
                if other.any():
                    self._note(reach.by)
            elif not is_words(kind) and rc.overlap(reach, positions):
                self._note(reach.by)

    def _note_some(self, ops: Collection[Op]) -> None:
        """Note places, if there are any: sums over tokens at the end are pooling, and derivatives go back all ways."""
        if ops:
            self._note(ops)

    def _note(self, ops: Collection[Op]) -> None:
        for each in sorted(_described(self._moving(op)) for op in ops) or [
            "tokens stand at other places than in the layer before"
        ]:
            self._places.setdefault(each, None)

    def _moving(self, op: Op) -> Op:
        """Return the operation that moved tokens, before `op` brought them together with others."""
        waiting, seen, producers = [op], {op}, self._follower.producers
        while waiting and not _is_named(op):
            found = waiting.pop(0)
            if found.name in MOVING:
                return found
            reaching = [value for value in found.ins if self._known.reaches.get(value)]
            before = [producers[value] for value in reaching if value in producers]
            fresh = [each for each in before if each not in seen and (each.name in MOVING or not _is_named(each))]
            waiting += fresh
            seen.update(fresh)
            if len(seen) > FAR:
                break
        return op


def _described(op: Op) -> str:
    """Say where and what an operation is that mixes tokens."""
    where = f"/{op.path}: " if op.path else ""
    return f"{where}{_WHAT.get(op.name) or _what(op)} (`{op.name}`)"


def _is_named(op: Op) -> bool:
    return op.name in _WHAT or _what(op) != MOVED


def _what(op: Op) -> str:
    if any(word in op.name for word in KERNELS):
        return "a kernel or a callback, into which no trace looks"
    if op.name.startswith("cum"):
        return "a running sum or product over tokens"
    if op.name.startswith("reduce_window"):
        return "pooling over neighbouring tokens"
    if is_reduction(op):
        return "a sum, mean or maximum over tokens that goes back to tokens"
    return MOVED
