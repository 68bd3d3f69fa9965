"""How each operation passes on which tokens its positions depend on. Loops and calls are followed in `reach_program.py`.

Numbers that are counted, compared or ranked hold no more of a token than where it goes: masks, positions that are counted from a
mask, the places of tokens in the buffers of experts. They have no reach.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxflow.capture._tracing import reach as rc
from jaxflow.capture._tracing.axes import is_reduction
from jaxflow.capture._tracing.program import KERNELS, Op, Value
from jaxflow.capture._tracing.reach import NONE, Kind, Reach, Reaches
from jaxflow.capture._tracing.reach_known import Known, is_words, is_written_out, of_first
from jaxflow.capture._tracing.reach_moves import MOVES
from jaxflow.capture._tracing.reach_picks import PICKS

COMPARED = {
    "eq", "ne", "lt", "le", "gt", "ge", "is_finite", "not", "and", "or", "xor", "sign", "argmax", "argmin", "reduce_and",
    "reduce_or", "eq_to", "lt_to", "le_to",
}  # fmt: skip
CHOSEN = {"argmax", "argmin", "top_k", "approx_top_k", "sort"}  # their whole numbers say which, and hold nothing of it
SCALING = {"mul", "div", "max", "min", "abs", "neg", "sqrt", "rsqrt", "integer_pow", "square", "exp2", "round", "clamp"}
RUNNING = {"cumsum", "cumprod", "cummax", "cummin", "cumlogsumexp"}
SAME = {
    "convert_element_type",
    "copy",
    "copy_p",
    "stop_gradient",
    "reduce_precision",
    "optimization_barrier",
    "name",
}


def follow(op: Op, known: Known) -> list[Reaches]:
    """Return the reaches of what an operation makes, and note what its results say of routes."""
    ins = known.of(op)
    if not any(ins) and not any(value in known.routing or value in known.pairing for value in op.ins):
        return [NONE] * len(op.outs)
    _note_routes(op, ins, known)
    rule = _RULES.get(op.name)
    if op.name in COMPARED:
        return [_compared(op, ins, known)] * len(op.outs)
    if rule is not None:
        made = rule(op, ins, known)
    elif is_reduction(op):
        made = of_first(op, ins, _reduction)
    elif op.name in RUNNING:
        made = of_first(
            op, ins, lambda op, reach: rc.running(reach, op.params["axis"], op, reverse=op.params["reverse"])
        )
    else:
        made = _elementwise(op, ins)
    outs = made if isinstance(made, list) else [made] * len(op.outs)
    return [_kept(op, value, reaches) for value, reaches in zip(op.outs, outs, strict=True)]


def _kept(op: Op, value: Value, reaches: Reaches) -> Reaches:
    """Leave out what a value of its type cannot hold."""
    if not reaches:
        return reaches
    if _is(value, jnp.bool_):
        return {kind: reach for kind, reach in reaches.items() if is_written_out(kind)}
    whole = _is(value, jnp.integer)
    if whole and op.name in CHOSEN:
        return NONE
    if not whole and op.name != "gather" and any(map(is_words, reaches)):
        return {kind: reach for kind, reach in reaches.items() if not is_words(kind)}  # a position, or a mask
    return reaches


def _is(value: Value, kind: Any) -> bool:
    return value.dtype is not None and bool(jnp.issubdtype(value.dtype, kind))


def _note_routes(op: Op, ins: Sequence[Reaches], known: Known) -> None:
    if any(value in known.pairing for value in op.ins):
        known.pairing.update(op.outs)
    elif op.name in COMPARED | CHOSEN and any(ins):
        wide = any(reach.width > 1 for reaches in ins for kind, reach in reaches.items() if not is_words(kind))
        (known.pairing if wide else known.routing).update(op.outs)
    elif any(value in known.routing for value in op.ins) and not any(
        reaches for value, reaches in zip(op.ins, ins, strict=True) if value not in known.routing
    ):
        known.routing.update(op.outs)


def _compared(op: Op, ins: Sequence[Reaches], known: Known) -> Reaches:
    """A comparison holds nothing of what is compared; but words that are compared with all words there are, are written out."""
    if op.name != "eq" or sum(map(bool, ins)) != 1:
        return NONE
    place = 0 if ins[0] else 1
    words = {kind: reach for kind, reach in ins[place].items() if is_words(kind) and not reach.by}
    if not words or not known.is_range(op.ins[1 - place]):
        return NONE
    return {("one of all words", kind): reach for kind, reach in words.items()}


def _elementwise(op: Op, ins: Sequence[Reaches]) -> Reaches | list[Reaches]:
    """Each position of the same position. Anything else that is not known: of everything."""
    rank = len(op.outs[0].shape) if op.outs else 0
    ins = [
        {kind: reach.through(lambda array, _: array.reshape([1] * rank)) for kind, reach in reaches.items()}
        if reaches and not value.shape
        else reaches
        for value, reaches in zip(op.ins, ins, strict=True)
    ]
    same = all(len(out.shape) == rank for out in op.outs)
    opaque = any(word in op.name for word in KERNELS)
    if (
        opaque
        or not same
        or any(reaches and len(value.shape) not in (0, rank) for value, reaches in zip(op.ins, ins, strict=True))
    ):
        return [_of_everything(op, ins, len(out.shape)) for out in op.outs]
    if op.name in ("mul", "div") and len(ins) == 2:
        ins = [_unscaled(own, other) for own, other in (ins, ins[::-1])]
    made = rc.united(ins, op)
    alone = op.name in SCALING and sum(map(bool, ins)) == 1
    if not alone and any(reach.scales for reach in made.values()) and op.name not in SAME:
        made = {kind: reach._replace(scales=False) for kind, reach in made.items()}
    return made


def _unscaled(own: Reaches, other: Reaches) -> Reaches:
    """Leave out one number by which all of the other's tokens are scaled."""
    if not any(reach.scales for reach in own.values()):
        return own
    return {kind: r for kind, r in own.items() if not (r.scales and kind in other and not other[kind].scales)}


def _of_everything(op: Op, ins: Sequence[Reaches], rank: int) -> Reaches:
    flat = [
        {
            kind: Reach(
                np.full([1] * rank, reach.start.min(initial=rc.NOWHERE)),
                np.full([1] * rank, reach.stop.max(initial=0)),
                reach.by | {op} if reach.start.size > 1 else reach.by,
            )
            for kind, reach in reaches.items()
        }
        for reaches in ins
    ]
    return rc.united(flat, op)


def _reduction(op: Op, reach: Reach) -> Reach:
    axes = [int(axis) for axis in op.params["axes"]]
    scales = op.name in ("reduce_max", "reduce_min", "reduce_sum")
    reduced = rc.over(reach, axes, op, scales=scales)
    return reduced.through(lambda array, _: array.squeeze(tuple(axes)))


def _sort(op: Op, ins: Sequence[Reaches], known: Known) -> list[Reaches]:
    axis = op.params["dimension"]
    mixed = rc.united([of_first(op, [reaches], lambda op, r: rc.over(r, [axis], op)) for reaches in ins], op)
    return [mixed] * len(op.outs)


def _top_k(op: Op, ins: Sequence[Reaches], known: Known) -> list[Reaches]:
    axis = op.params.get("axis", op.params.get("reduction_dimension", -1)) % len(op.ins[0].shape)
    return [of_first(op, ins, lambda op, reach: rc.over(reach, [axis], op)), NONE]


def _fft(op: Op, ins: Sequence[Reaches], known: Known) -> Reaches:
    rank = len(op.ins[0].shape)
    axes = range(rank - len(op.params["fft_lengths"]), rank)
    return of_first(op, ins, lambda op, reach: rc.over(reach, axes, op))


def _dot(op: Op, ins: Sequence[Reaches], known: Known) -> Reaches:
    summed, batch = op.params["dimension_numbers"]
    rank = len(op.outs[0].shape)
    made = []
    for side in (0, 1):
        free = [i for i in range(len(op.ins[side].shape)) if i not in (*summed[side], *batch[side])]
        n_before = len(batch[0]) + (0 if side == 0 else rank - len(batch[0]) - len(free))
        places = [*range(len(batch[0])), *range(n_before, n_before + len(free))]
        order = [*batch[side], *free, *summed[side]]
        own: dict[Kind, Reach] = {}
        for kind, reach in ins[side].items():
            varied = any(reach.start.shape[i] > 1 for i in summed[side])
            if varied and op.ins[1 - side] in known.routing:
                continue  # tokens that are sent to experts, or back
            reach = rc.over(reach, summed[side], op)

            def change(array: np.ndarray, _: int, order: list[int] = order, places: list[int] = places) -> np.ndarray:
                array = array.transpose(order)
                shape = [1] * rank
                for i, place in enumerate(places):
                    shape[place] = array.shape[i]
                return array.reshape(shape)

            own[kind] = reach.through(change)._replace(scales=False)
        made.append(own)
    return rc.united(made, op)


def _ragged_dot(op: Op, ins: Sequence[Reaches], known: Known) -> Reaches:
    rank = len(op.outs[0].shape)
    if len(op.ins[0].shape) != rank:
        return _of_everything(op, ins, rank)
    return {kind: rc.over(reach, [rank - 1], op) for kind, reach in ins[0].items()}


def _transposed(reach: Reach, order: Sequence[int]) -> Reach:
    return reach.through(lambda array, _: array.transpose(order))


def _convolution(op: Op, ins: Sequence[Reaches], known: Known) -> Reaches:
    params, numbers = op.params, op.params["dimension_numbers"]
    shape = op.ins[0].shape
    found: dict[Kind, Reach] = {}
    for kind, reach in ins[0].items():
        if params["feature_group_count"] != shape[numbers.lhs_spec[1]]:
            reach = rc.over(reach, [numbers.lhs_spec[1]], op)
        for number, (axis, kernel) in enumerate(zip(numbers.lhs_spec[2:], numbers.rhs_spec[2:], strict=True)):
            if reach.start.shape[axis] == 1:
                continue
            config = [(0, 0, 0)] * len(shape)
            config[axis] = (*params["padding"][number], params["lhs_dilation"][number] - 1)
            reach = rc.windows(
                rc.padded(reach, shape, config),
                axis,
                op.ins[1].shape[kernel],
                params["window_strides"][number],
                params["rhs_dilation"][number],
                op,
            )
        order = [0] * len(shape)
        for place, axis in zip(numbers.out_spec, numbers.lhs_spec, strict=True):
            order[place] = axis
        found[kind] = _transposed(reach, order)._replace(scales=False)
    kernel = _of_everything(op, [ins[1]], len(shape))
    return rc.united([found, kernel], op)


def _reduce_window(op: Op, ins: Sequence[Reaches], known: Known) -> Reaches:
    params, shape = op.params, op.ins[0].shape
    n = len(shape)

    def change(op: Op, reach: Reach) -> Reach:
        sizes, strides = params["window_dimensions"], params["window_strides"]
        inner, dilation = params.get("base_dilation", (1,) * n), params.get("window_dilation", (1,) * n)
        for axis in range(n):
            if reach.start.shape[axis] == 1:
                continue
            config = [(0, 0, 0)] * n
            config[axis] = (*params["padding"][axis], inner[axis] - 1)
            reach = rc.windows(rc.padded(reach, shape, config), axis, sizes[axis], strides[axis], dilation[axis], op)
        return reach

    return of_first(op, ins, change)


_RULES: dict[str, Callable[[Op, Sequence[Reaches], Known], Reaches | list[Reaches]]] = {
    "sort": _sort,
    "top_k": _top_k,
    "approx_top_k": _top_k,
    "fft": _fft,
    "dot_general": _dot,
    "ragged_dot": _ragged_dot,
    "ragged_dot_general": _ragged_dot,
    "conv_general_dilated": _convolution,
    "reduce_window_sum": _reduce_window,
    "reduce_window_max": _reduce_window,
    "reduce_window_min": _reduce_window,
    **MOVES,
    **PICKS,
}
