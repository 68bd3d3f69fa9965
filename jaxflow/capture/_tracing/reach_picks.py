"""How rows that are picked, or written to places, pass on which tokens they depend on: `gather` and `scatter`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxflow.capture._tracing import reach as rc
from jaxflow.capture._tracing.program import Op
from jaxflow.capture._tracing.reach import NONE, Kind, Reach, Reaches
from jaxflow.capture._tracing.reach_known import Known, is_words


def _gather(op: Op, ins: Sequence[Reaches], known: Known) -> Reaches:
    table = _of_table(op, ins[0], known) if ins[0] else NONE
    if not ins[1]:
        return table
    numbers, rank = op.params["dimension_numbers"], len(op.outs[0].shape)
    places = [i for i in range(rank) if i not in numbers.offset_dims]
    picked: dict[Kind, Reach] = {}
    for kind, reach in ins[1].items():

        def change(array: np.ndarray, fill: int) -> np.ndarray:
            array = (np.min if fill else np.max)(array, axis=-1)
            shape = [1] * rank
            for i, place in enumerate(places):
                shape[place] = array.shape[i]
            return array.reshape(shape)

        if is_words(kind):
            if reach.by:  # counted from a mask, unless it picks words elsewhere
                known.mixed_words.setdefault(kind, set()).update(reach.by)
                continue
            known.looked_up.add(kind)
            kind = ("rows of words", kind)
        picked[kind] = reach.through(change)
    return rc.united([table, picked], op)


def _of_table(op: Op, reaches: Reaches, known: Known) -> Reaches:
    """Follow what is taken whole from an array, or picked by fixed numbers; what is picked by others is sent somewhere."""
    numbers, sizes = op.params["dimension_numbers"], op.params["slice_sizes"]
    shape, rank = op.ins[0].shape, len(op.outs[0].shape)
    batching = numbers.operand_batching_dims
    index_batching = numbers.start_indices_batching_dims
    hidden = {*numbers.collapsed_slice_dims, *batching}
    kept = [axis for axis in range(len(shape)) if axis not in hidden]
    indexed = [i for i in range(rank) if i not in numbers.offset_dims]  # places of the axes of the indices
    n_picks = int(np.prod([op.ins[1].shape[i] for i in range(len(op.ins[1].shape) - 1) if i not in index_batching]))
    found: dict[Kind, Reach] = {}
    for kind, reach in reaches.items():
        moving = [axis for axis in numbers.start_index_map if reach.start.shape[axis] > 1 and sizes[axis] < shape[axis]]
        fixed = known.constant(op.ins[1]) if moving else None
        if moving and (fixed is None or len(moving) > 1):
            if op.ins[1] not in known.pairing and n_picks > 1 and not known.is_fixed(op.ins[1]):
                continue
            reach = rc.over(reach, moving, op)
            moving = []

        def change(array: np.ndarray, fill: int, moving: list[int] = moving, fixed: Any = fixed) -> np.ndarray:
            result_shape = [1] * rank
            for axis, place in zip(batching, index_batching, strict=True):
                result_shape[indexed[place]] = array.shape[axis]
            for axis, place in zip(kept, numbers.offset_dims, strict=True):
                result_shape[place] = array.shape[axis] if axis not in moving else sizes[axis]
            if not moving:
                order = [*batching, *kept, *(a for a in numbers.collapsed_slice_dims)]
                array = array.transpose(order)
                array = array.reshape(array.shape[: len(batching) + len(kept)]) if array.ndim else array
                return _laid_out(array, batching, kept, numbers, index_batching, indexed, rank)
            (axis,) = moving
            which = fixed[..., list(numbers.start_index_map).index(axis)]
            picks = np.clip(which, 0, shape[axis] - sizes[axis])
            return _picked(array, axis, picks, sizes[axis], numbers, batching, kept, indexed, rank, fill)

        found[kind] = reach.through(change)
    return found


def _laid_out(
    array: np.ndarray, batching: Sequence[int], kept: Sequence[int], numbers: Any, index_batching: Sequence[int],
    indexed: Sequence[int], rank: int,
) -> np.ndarray:  # fmt: skip
    """Put the axes `[*batching, *kept]` of a table where the result of a gather has them."""
    target = [indexed[place] for place in index_batching] + list(numbers.offset_dims)
    order = sorted(range(len(target)), key=target.__getitem__)
    shape = [1] * rank
    for i, place in enumerate(target):
        shape[place] = array.shape[i]
    return array.transpose(order).reshape(shape)


def _picked(
    array: np.ndarray, axis: int, picks: np.ndarray, size: int, numbers: Any, batching: Sequence[int],
    kept: Sequence[int], indexed: Sequence[int], rank: int, fill: int,
) -> np.ndarray:  # fmt: skip
    """Take rows of a table by fixed numbers; other axes of the table are put together unless they are taken whole."""
    others = tuple(i for i in range(array.ndim) if i != axis and i not in kept)
    array = (np.min if fill else np.max)(array, axis=others, keepdims=True) if others else array
    array = np.moveaxis(array, axis, 0)
    taken = np.stack([array[np.minimum(picks + k, len(array) - 1)] for k in range(size)])  # [size, *picks, *others]
    rest = [i for i in range(len(array.shape)) if i != 0]
    names = [i for i in range(array.ndim) if i != axis]  # the table's axis of each of the rest
    shape = [1] * rank
    lead = [taken.shape[0], *picks.shape]
    places: list[int] = []
    for place in indexed:
        places.append(place)
    offset = dict(zip(kept, numbers.offset_dims, strict=True))
    where = [offset.get(axis, -1), *places, *(offset.get(name, -1) for name in names)]
    lengths = [*lead, *(array.shape[i] for i in rest)]
    order = sorted((i for i in range(len(where)) if where[i] >= 0), key=where.__getitem__)
    dropped = [i for i in range(len(where)) if where[i] < 0]
    taken = taken.transpose([*order, *dropped])
    for source in order:
        shape[where[source]] = lengths[source]
    return taken.reshape(shape)


def _scatter(op: Op, ins: Sequence[Reaches], known: Known) -> Reaches:
    """Follow what is written into an array: at fixed places, or sent somewhere."""
    numbers, shape, updates = op.params["dimension_numbers"], op.ins[0].shape, op.ins[2].shape
    rank = len(shape)
    inserted = {*numbers.inserted_window_dims, *numbers.operand_batching_dims}
    kept = [axis for axis in range(rank) if axis not in inserted]
    window = dict(zip(kept, numbers.update_window_dims, strict=True))
    moving = [
        axis
        for axis in numbers.scatter_dims_to_operand_dims
        if axis not in window or updates[window[axis]] < shape[axis]
    ]
    result = ins[0]
    for kind, reach in ins[2].items():
        outer = [i for i in range(len(updates)) if i not in numbers.update_window_dims]
        fixed = known.constant(op.ins[1])
        if fixed is None and not known.is_fixed(op.ins[1]) and any(reach.start.shape[i] > 1 for i in outer):
            continue  # sent somewhere, as tokens to experts
        if fixed is None or len(moving) > 1 or numbers.operand_batching_dims:
            placed = rc.over(reach, range(len(updates)), op)
            placed = placed.through(lambda array, _: np.reshape(array, [1] * rank))
            result = rc.united([result, {kind: placed}], op)
            continue
        result = rc.united([result, {kind: _placed(reach, fixed, moving, window, shape, updates, outer, op)}], op)
    return result


def _placed(
    reach: Reach, fixed: np.ndarray, moving: Sequence[int], window: dict[int, int], shape: Sequence[int],
    updates: Sequence[int], outer: Sequence[int], op: Op,
) -> Reach:  # fmt: skip
    """Write updates at fixed places along one axis."""
    rank = len(shape)
    if not moving:
        reach = rc.over(reach, outer, op)

    def change(array: np.ndarray, fill: int) -> np.ndarray:
        put = np.minimum if fill else np.maximum
        windowed = np.moveaxis(array, [window[axis] for axis in sorted(window)], range(-len(window), 0))
        windowed = windowed.reshape(-1, *windowed.shape[windowed.ndim - len(window) :])
        if not moving:
            (windowed,) = windowed[:1]
            expand = [axis for axis in range(rank) if axis not in window]
            return np.expand_dims(windowed, expand)
        (axis,) = moving
        starts = fixed.reshape(-1)
        windowed = np.broadcast_to(windowed, (len(starts), *windowed.shape[1:]))
        expand = [i + 1 for i in range(rank) if i not in window]
        windowed = np.moveaxis(np.expand_dims(windowed, expand), axis + 1, 1)  # [start, position, *others]
        size = updates[window[axis]] if axis in window else 1
        windowed = np.broadcast_to(windowed, (len(starts), size, *windowed.shape[2:]))
        result = np.full((shape[axis], *windowed.shape[2:]), fill)
        for start, each in zip(starts, windowed, strict=True):
            if 0 <= start <= shape[axis] - size:
                result[start : start + size] = put(result[start : start + size], each)
        return np.moveaxis(result, 0, axis)

    return reach.through(change)


PICKS = {
    "gather": _gather,
    "scatter": _scatter,
    "scatter-add": _scatter,
    "scatter_add": _scatter,
    "scatter-mul": _scatter,
}
