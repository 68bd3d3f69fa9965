"""Follow the axes of arrays through every operation, to tell where they come from. Their positions tell nothing.

The axes of an array are a tuple; an axis is a tuple of factors, outermost first, since a reshape may merge axes; a factor has
a length and a set of origins: (argument, axis) pairs, or what the caller began with.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from jaxflow.capture._tracing.program import Op, Value

Origin = tuple[Any, Any]


class Factor(NamedTuple):
    """A part of an axis."""

    length: int
    origins: frozenset[Origin]


Axis = tuple[Factor, ...]
Axes = tuple[Axis, ...]


def new(shape: Sequence[int]) -> Axes:
    """Return axes without origins."""
    return tuple((Factor(length, frozenset()),) for length in shape)


def named(value: Value, name: Any) -> Axes:
    """Return axes of `value` whose origins are `(name, 0)`, `(name, 1)`, ..."""
    return tuple((Factor(length, frozenset([(name, i)])),) for i, length in enumerate(value.shape))


def origins(*axes: Axis) -> frozenset[Origin]:
    """Return all origins of these axes."""
    return frozenset().union(*(factor.origins for axis in axes for factor in axis))


def tagged(axes: Axes, tag: Origin, places: Sequence[int]) -> Axes:
    """Return axes with one more origin in these places."""
    return tuple(
        tuple(Factor(f.length, f.origins | {tag}) for f in axis) if i in places else axis for i, axis in enumerate(axes)
    )


def merge(one: Axes, other: Axes) -> Axes:
    """Join the origins of two arrays of one shape, axis by axis."""
    return tuple(map(_merge, one, other))


def _merge(one: Axis, other: Axis) -> Axis:
    if one == other:
        return one
    if [factor.length for factor in one] != [factor.length for factor in other]:
        if not origins(other):
            return one
        if not origins(one):
            return other
        # Cut both at the ends of each other's factors, where these divide.
        cuts = sorted({*_ends(one), *_ends(other)})
        if any(large % small for small, large in itertools.pairwise(cuts)):
            length = math.prod(factor.length for factor in one)
            return (Factor(length, origins(one, other)),)
        one, other = _cut(one, cuts), _cut(other, cuts)
    return tuple(Factor(a.length, a.origins | b.origins) for a, b in zip(one, other, strict=True))


def _ends(axis: Axis) -> list[int]:
    """The strides at which factors begin: 1, the innermost length, ..., the whole length."""
    lengths = [factor.length for factor in axis]
    return [math.prod(lengths[i:]) for i in range(len(lengths) + 1)]


def _cut(axis: Axis, cuts: Sequence[int]) -> Axis:
    pieces: list[Factor] = []
    bounds = _ends(axis)
    for small, large in itertools.pairwise(cuts):
        found = [factor for i, factor in enumerate(axis) if bounds[i + 1] <= small and large <= bounds[i]]
        pieces.append(Factor(large // small, origins(tuple(found))))
    return tuple(reversed(pieces))


def resized(axis: Axis, length: int) -> Axis:
    """Return the axis after it became shorter or longer."""
    if math.prod(factor.length for factor in axis) == length:
        return axis
    return (Factor(length, origins(axis)),)


def follow(op: Op, axes: Mapping[Value, Axes]) -> list[Axes]:
    """Return where the axes of the results of an operation come from. Loops are followed in `origins.py`.

    Args:
        op: the operation.
        axes: of what it reads, as far as they are known.
    """
    ins = [axes.get(value) or new(value.shape) for value in op.ins]
    rule = _RULES.get(op.name)
    if rule is not None:
        return [rule(op, ins)] * len(op.outs)
    if is_reduction(op):
        removed = {int(axis) for axis in op.params["axes"]}
        return [tuple(axis for i, axis in enumerate(ins[0]) if i not in removed)] * len(op.outs)
    return [_same_places(op, out, ins) for out in op.outs]


def is_reduction(op: Op) -> bool:
    """Whether an operation sums or compares along axes, which its result lacks; `reduce_precision` only sounds like one."""
    return op.name.startswith(("reduce_", "arg")) and "axes" in op.params


def _same_places(op: Op, out: Value, ins: list[Axes]) -> Axes:
    """Follow elementwise operations, and those that only change lengths: axes stay where they are."""
    result = new(out.shape)
    for value, known in zip(op.ins, ins, strict=True):
        if len(value.shape) != len(out.shape):
            continue
        fitted = [
            (Factor(length, frozenset()),) if before == 1 and length != 1 else resized(axis, length)
            for before, axis, length in zip(value.shape, known, out.shape, strict=True)
        ]
        result = merge(result, tuple(fitted))
    return result


def _transpose(op: Op, ins: list[Axes]) -> Axes:
    return tuple(ins[0][int(i)] for i in op.params["permutation"])


def _squeeze(op: Op, ins: list[Axes]) -> Axes:
    gone = {int(i) for i in op.params["dimensions"]}
    return tuple(axis for i, axis in enumerate(ins[0]) if i not in gone)


def _broadcast(op: Op, ins: list[Axes]) -> Axes:
    shape = op.outs[0].shape
    result = list(new(shape))
    for i, place in enumerate(map(int, op.params["broadcast_dimensions"])):
        if op.ins[0].shape[i] == shape[place]:
            result[place] = ins[0][i]
    return tuple(result)


def _unstack(op: Op, ins: list[Axes]) -> Axes:
    return tuple(axis for i, axis in enumerate(ins[0]) if i != op.params["axis"])


def _stack(op: Op, ins: list[Axes]) -> Axes:
    joined = functools.reduce(merge, ins)
    place = op.params["axis"]
    return (*joined[:place], *new((len(ins),)), *joined[place:])


def _reshape(op: Op, ins: list[Axes]) -> Axes:
    shape = op.outs[0].shape
    factors = [factor for axis in ins[0] for factor in axis]
    if 0 in shape:
        return new(shape)
    result: list[Axis] = []
    for length in shape:
        axis: list[Factor] = []
        taken = 1
        if length == 1:
            if factors and factors[0].length == 1:
                axis.append(factors.pop(0))
            result.append(tuple(axis) or new((1,))[0])
            continue
        while taken < length and factors:
            factor = factors.pop(0)
            wanted = length // taken
            if wanted % factor.length == 0:
                axis.append(factor)
            elif factor.length % wanted == 0:
                axis.append(Factor(wanted, factor.origins))
                factors.insert(0, Factor(factor.length // wanted, factor.origins))
            else:  # the boundaries do not fit: everything comes from everything
                everything = origins(*ins[0])
                return tuple((Factor(n, everything),) for n in shape)
            taken *= axis[-1].length
        result.append(tuple(axis))
    return tuple(result)


def _dot(op: Op, ins: list[Axes]) -> Axes:
    (lhs_sum, rhs_sum), (lhs_batch, rhs_batch) = op.params["dimension_numbers"]
    batch = [_merge(ins[0][i], ins[1][j]) for i, j in zip(lhs_batch, rhs_batch, strict=True)]
    lhs = [axis for i, axis in enumerate(ins[0]) if i not in (*lhs_sum, *lhs_batch)]
    rhs = [axis for i, axis in enumerate(ins[1]) if i not in (*rhs_sum, *rhs_batch)]
    return (*batch, *lhs, *rhs)


def _gather(op: Op, ins: list[Axes]) -> Axes:
    """Axes of the indices, and the axes of the table that are taken whole."""
    numbers, out = op.params["dimension_numbers"], op.outs[0]
    hidden = {*numbers.collapsed_slice_dims, *getattr(numbers, "operand_batching_dims", ())}
    whole = iter([axis for i, axis in enumerate(ins[0]) if i not in hidden])
    indexed = iter(ins[1][:-1])
    places = [next(whole) if i in numbers.offset_dims else next(indexed) for i in range(len(out.shape))]
    if not origins(*ins[1]) and len(op.ins[1].shape) == 2:  # fixed indices: the axis that is picked from is what counts
        picked = origins(*(ins[0][i] for i in numbers.start_index_map))
        places = [
            axis if i in numbers.offset_dims else tuple(Factor(f.length, f.origins | picked) for f in axis)
            for i, axis in enumerate(places)
        ]
    return tuple(resized(axis, length) for axis, length in zip(places, out.shape, strict=True))


def _convolve(op: Op, ins: list[Axes]) -> Axes:
    numbers, shape = op.params["dimension_numbers"], op.outs[0].shape
    result = list(new(shape))
    for place, source in zip(numbers.out_spec, numbers.lhs_spec, strict=True):
        result[place] = resized(ins[0][source], shape[place])
    feature = numbers.out_spec[1]
    result[feature] = resized(ins[1][numbers.rhs_spec[0]], shape[feature])
    return tuple(result)


def _first(op: Op, ins: list[Axes]) -> Axes:
    return tuple(resized(axis, length) for axis, length in zip(ins[0], op.outs[0].shape, strict=True))


_RULES = {
    "transpose": _transpose,
    "squeeze": _squeeze,
    "stack": _stack,
    "unstack": _unstack,
    "broadcast_in_dim": _broadcast,
    "reshape": _reshape,
    "dot_general": _dot,
    "gather": _gather,
    "conv_general_dilated": _convolve,
    "dynamic_slice": _first,
    "scatter": _first,
    "scatter-add": _first,
}
