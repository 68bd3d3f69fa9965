"""Which tokens each position of an array depends on, as intervals: the arithmetic of it, without any operation of a program.

A reach is kept for each kind of tokens by itself. Its arrays have the rank of the value that they speak of; an axis along which
nothing changes has length 1. An interval of several tokens may hold some that do not count: only whether it is one token matters.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxflow.capture._tracing.program import Op

NOWHERE = 2**30  # where an empty interval begins; it ends at 0
LARGEST = 2**24  # elements that a merged axis may have
Kind = Any  # of tokens: an argument's, or those of some attention's queries


class Reach(NamedTuple):
    """The tokens that positions depend on.

    Attributes:
        start: the first of them.
        stop: one more than the last.
        by: the operations that brought several together.
        scales: whether it is one number for all tokens, a sum or a maximum of them, by which they are at most scaled.
    """

    start: np.ndarray
    stop: np.ndarray
    by: frozenset[Op] = frozenset()
    scales: bool = False

    @property
    def width(self) -> int:
        """How many tokens a position depends on at most."""
        return int((self.stop - self.start).max(initial=0))

    def through(self, change: Callable[[np.ndarray, int], np.ndarray]) -> Reach:
        """Change both arrays; `change` is given also what stands for no token in them."""
        return self._replace(start=change(self.start, NOWHERE), stop=change(self.stop, 0))


Reaches = Mapping[Kind, Reach]
NONE: Reaches = {}


def points(positions: np.ndarray) -> Reach:
    """Return the reach of an array each of whose positions is one token."""
    return Reach(positions, positions + 1)


def along(rank: int, axis: int, length: int) -> np.ndarray:
    """Return `0, 1, ...` along one axis, of length 1 along all others."""
    return np.arange(length).reshape([length if i == axis else 1 for i in range(rank)])


def united(every: Iterable[Reaches], by: Op) -> Reaches:
    """Join reaches of one rank: of an operation that computes each position of the same positions."""
    result: Reaches = NONE
    for reaches in every:
        if not result or result is reaches:
            result = reaches
        elif reaches:
            result = {kind: _join(kind, result, reaches, by) for kind in {**result, **reaches}}
    return result


def _join(kind: Kind, one: Reaches, other: Reaches, by: Op) -> Reach:
    if kind not in one or kind not in other:
        return one.get(kind) or other[kind]
    a, b = one[kind], other[kind]
    if a.start is b.start and a.stop is b.stop:
        return a
    start, stop = np.minimum(a.start, b.start), np.maximum(a.stop, b.stop)
    for old in (a, b):
        if old.start.shape == start.shape and (old.start == start).all() and (old.stop == stop).all():
            return old._replace(by=a.by | b.by, scales=a.scales and b.scales)
    joined = Reach(start, stop, a.by | b.by, scales=False)
    return joined._replace(by=frozenset([by])) if not joined.by and joined.width > max(a.width, b.width) else joined


def over(reach: Reach, axes: Iterable[int], by: Op, *, scales: bool = False) -> Reach:
    """Put everything along some axes together; they keep length 1."""
    several = tuple(axis for axis in axes if reach.start.shape[axis] > 1)
    if not several:
        return reach
    start, stop = reach.start.min(several, keepdims=True), reach.stop.max(several, keepdims=True)
    return Reach(start, stop, reach.by | {by}, scales and not reach.by)


def running(reach: Reach, axis: int, by: Op, *, reverse: bool) -> Reach:
    """Let each position along an axis depend on all before it."""
    if reach.start.shape[axis] == 1:
        return reach

    def accumulated(array: np.ndarray, fill: int) -> np.ndarray:
        function = np.minimum if fill else np.maximum
        array = np.flip(array, axis) if reverse else array
        array = function.accumulate(array, axis)
        return np.flip(array, axis) if reverse else array

    return reach.through(accumulated)._replace(by=reach.by | {by}, scales=False)


def reshaped(reach: Reach, before: Sequence[int], after: Sequence[int]) -> Reach:
    """Follow a reshape: axes without change stay so; merged ones are written out."""
    blocks = list(_blocks(before, after))

    def change(array: np.ndarray, fill: int) -> np.ndarray:
        wide, shape = [], []
        for ins, outs in blocks:
            varied = any(array.shape[i] > 1 for i in ins)
            wide += [before[i] if varied else 1 for i in ins]
            shape += [after[i] if varied else 1 for i in outs]
        if math.prod(wide) > LARGEST:
            array = (np.min if fill else np.max)(array, axis=tuple(range(array.ndim)), keepdims=True)
            return array.reshape([1] * len(after))
        return np.broadcast_to(array, wide).reshape(shape)

    return reach.through(change)


def _blocks(before: Sequence[int], after: Sequence[int]) -> Iterable[tuple[list[int], list[int]]]:
    """Cut two shapes of one size into as many parts as there are, each of one size in both."""
    i = j = 0
    while i < len(before) or j < len(after):
        ins, outs, size_in, size_out = [], [], 1, 1
        while True:
            if i < len(before) and (size_in <= size_out or j == len(after)):
                size_in *= before[i]
                ins.append(i)
                i += 1
            elif j < len(after):
                size_out *= after[j]
                outs.append(j)
                j += 1
            done = size_in == size_out and (ins or i == len(before)) and (outs or j == len(after))
            if done or (i == len(before) and j == len(after)):
                break
        yield ins, outs


def padded(reach: Reach, shape: Sequence[int], config: Sequence[tuple[int, int, int]]) -> Reach:
    """Follow `lax.pad`: what is put around and between has no token."""

    def change(array: np.ndarray, fill: int) -> np.ndarray:
        for axis, (low, high, between) in enumerate(config):
            if array.shape[axis] == 1 and shape[axis] != 1:
                continue
            if (low, high, between) != (0, 0, 0):
                array = _padded(np.moveaxis(array, axis, 0), low, high, between, fill)
                array = np.moveaxis(array, 0, axis)
        return array

    return reach.through(change)


def _padded(array: np.ndarray, low: int, high: int, between: int, fill: int) -> np.ndarray:
    spread = np.full((len(array) + max(len(array) - 1, 0) * between, *array.shape[1:]), fill)
    spread[:: between + 1] = array
    spread = spread[max(-low, 0) : len(spread) - max(-high, 0)]
    edges = [(max(low, 0), max(high, 0))] + [(0, 0)] * (array.ndim - 1)
    return np.pad(spread, edges, constant_values=fill)


def windows(reach: Reach, axis: int, size: int, stride: int, dilation: int, by: Op) -> Reach:
    """Let each position along an axis depend on a window of positions, which was padded before."""
    n = reach.start.shape[axis]
    if n == 1 and size == 1:
        return reach
    n_windows = max((n - (size - 1) * dilation - 1) // stride + 1, 0)

    def change(array: np.ndarray, fill: int) -> np.ndarray:
        array = np.moveaxis(array, axis, 0)
        parts = [array[k * dilation : k * dilation + (n_windows - 1) * stride + 1 : stride] for k in range(size)]
        function = np.minimum if fill else np.maximum
        result = parts[0]
        for part in parts[1:]:
            result = function(result, part)
        return np.moveaxis(result, 0, axis)

    return reach.through(change)._replace(
        by=reach.by | {by} if size > 1 else reach.by, scales=reach.scales and size == 1
    )


def joined(parts: Sequence[tuple[Reaches, Sequence[int]]], axis: int, by: Op) -> Reaches:
    """Follow a concatenation of values, each with its shape."""
    kinds = {kind for reaches, _ in parts for kind in reaches}
    found: dict[Kind, Reach] = {}
    for kind in kinds:
        every = [(reaches.get(kind), shape) for reaches, shape in parts]
        given = [reach for reach, _ in every if reach is not None]
        lengthwise = any(reach.start.shape[axis] > 1 for reach in given) or any(shape[axis] == 1 for _, shape in parts)
        if not lengthwise:
            found[kind] = united([{kind: reach} for reach in given], by)[kind]
            continue
        found[kind] = Reach(
            _laid([(None if r is None else r.start, s) for r, s in every], axis, NOWHERE),
            _laid([(None if r is None else r.stop, s) for r, s in every], axis, 0),
            frozenset().union(*(reach.by for reach in given)),
        )
    return found


def _laid(parts: Sequence[tuple[np.ndarray | None, Sequence[int]]], axis: int, fill: int) -> np.ndarray:
    rank = len(parts[0][1])
    arrays = [np.full([1] * rank, fill) if array is None else array for array, _ in parts]
    common = np.broadcast_shapes(*(tuple(1 if i == axis else n for i, n in enumerate(array.shape)) for array in arrays))
    wide = [
        np.broadcast_to(array, tuple(shape[axis] if i == axis else n for i, n in enumerate(common)))
        for array, (_, shape) in zip(arrays, parts, strict=True)
    ]
    return np.concatenate(wide, axis)


def overlap(reach: Reach, positions: np.ndarray) -> bool:
    """Whether two of `positions` depend on one token."""
    start, stop, place = (a.ravel() for a in np.broadcast_arrays(reach.start, reach.stop, positions))
    n = int(place.max(initial=0)) + 1
    first, last = np.full(n, NOWHERE), np.zeros(n, int)
    np.minimum.at(first, place, start)
    np.maximum.at(last, place, stop)
    some = first < last
    order = np.argsort(first[some], kind="stable")
    first, last = first[some][order], last[some][order]
    return bool((last[:-1] > first[1:]).any())
