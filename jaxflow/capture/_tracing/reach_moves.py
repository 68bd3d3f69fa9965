"""How operations that move positions, and compute nothing, pass on which tokens these depend on."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from jaxflow.capture._tracing import reach as rc
from jaxflow.capture._tracing.program import Op
from jaxflow.capture._tracing.reach import Reach, Reaches
from jaxflow.capture._tracing.reach_known import Known, of_first


def _transpose(op: Op, ins: Sequence[Reaches], known: Known) -> Reaches:
    return of_first(op, ins, lambda op, r: r.through(lambda array, _: array.transpose(op.params["permutation"])))


def _squeeze(op: Op, ins: Sequence[Reaches], known: Known) -> Reaches:
    axes = tuple(op.params["dimensions"])
    return of_first(op, ins, lambda op, reach: reach.through(lambda array, _: array.squeeze(axes)))


def _expand(op: Op, ins: Sequence[Reaches], known: Known) -> Reaches:
    axes = tuple(op.params["dimensions"])
    return of_first(op, ins, lambda op, reach: reach.through(lambda array, _: np.expand_dims(array, axes)))


def _reshape(op: Op, ins: Sequence[Reaches], known: Known) -> Reaches:
    before, after = op.ins[0].shape, op.outs[0].shape
    return of_first(op, ins, lambda op, reach: rc.reshaped(reach, before, after))


def _broadcast(op: Op, ins: Sequence[Reaches], known: Known) -> Reaches:
    rank, places = len(op.outs[0].shape), [int(i) for i in op.params["broadcast_dimensions"]]

    def change(array: np.ndarray, _: int) -> np.ndarray:
        shape = [1] * rank
        for i, place in enumerate(places):
            shape[place] = array.shape[i]
        return array.reshape(shape)

    return of_first(op, ins, lambda op, reach: reach.through(change))


def _cut(reach: Reach, bounds: Sequence[tuple[int, int, int]]) -> Reach:
    """Take positions from a first one to a last one by a stride, along each axis."""
    every = (slice(*each) if n > 1 else slice(None) for n, each in zip(reach.start.shape, bounds, strict=True))
    taken = tuple(every)
    return reach.through(lambda array, _: array[taken])


def _slice(op: Op, ins: Sequence[Reaches], known: Known) -> Reaches:
    params = op.params
    strides = params["strides"] or (1,) * len(params["start_indices"])
    bounds = list(zip(params["start_indices"], params["limit_indices"], strides, strict=True))
    return of_first(op, ins, lambda op, reach: _cut(reach, bounds))


def _split(op: Op, ins: Sequence[Reaches], known: Known) -> list[Reaches]:
    axis, start = op.params["axis"], 0
    outs: list[Reaches] = []
    for size in op.params["sizes"]:
        bounds = [(start, start + size, 1) if i == axis else (0, n, 1) for i, n in enumerate(op.ins[0].shape)]
        outs.append({kind: _cut(reach, bounds) for kind, reach in ins[0].items()})
        start += size
    return outs


def _dynamic_slice(op: Op, ins: Sequence[Reaches], known: Known) -> Reaches:
    sizes, shape = op.params["slice_sizes"], op.ins[0].shape
    starts = [known.constant(value) for value in op.ins[1:]]

    def change(op: Op, reach: Reach) -> Reach:
        for axis, (size, n) in enumerate(zip(sizes, shape, strict=True)):
            if size == n or reach.start.shape[axis] == 1:
                continue
            if (start := starts[axis]) is None:
                reach = rc.over(reach, [axis], op)
                continue
            first = min(max(int(start), 0), n - size)
            bounds = [(first, first + size, 1) if i == axis else (0, m, 1) for i, m in enumerate(shape)]
            reach = _cut(reach, bounds)
        return reach

    return of_first(op, ins, change)


def _dynamic_update_slice(op: Op, ins: Sequence[Reaches], known: Known) -> Reaches:
    whole, part = op.ins[0].shape, op.ins[1].shape
    starts = [known.constant(value) for value in op.ins[2:]]
    narrow = [axis for axis, (n, m) in enumerate(zip(whole, part, strict=True)) if n != m]
    if not narrow:
        return ins[1]
    if any(starts[axis] is None for axis in narrow):
        return rc.united([ins[0], {kind: rc.over(reach, narrow, op) for kind, reach in ins[1].items()}], op)
    config = [
        (int(start), n - m - int(start), 0) if n != m and start is not None else (0, 0, 0)
        for n, m, start in zip(whole, part, (0 if s is None else s for s in starts), strict=True)
    ]
    placed = {kind: rc.padded(_written(reach, part, narrow), part, config) for kind, reach in ins[1].items()}
    return rc.united([_outside(ins[0], whole, part, config, narrow), placed], op)


def _written(reach: Reach, shape: Sequence[int], axes: Sequence[int]) -> Reach:
    """Write out axes along which nothing changes."""
    wide = [shape[i] if i in axes else n for i, n in enumerate(reach.start.shape)]
    return reach.through(lambda array, _: np.broadcast_to(array, wide))


def _outside(
    reaches: Reaches,
    whole: Sequence[int],
    part: Sequence[int],
    config: Sequence[tuple[int, int, int]],
    axes: Sequence[int],
) -> Reaches:
    """Leave out what is written over."""
    if len(axes) != 1:
        return reaches
    (axis,) = axes
    low = config[axis][0]

    def change(array: np.ndarray, fill: int) -> np.ndarray:
        array = np.moveaxis(array, axis, 0).copy()
        array[low : low + part[axis]] = fill
        return np.moveaxis(array, 0, axis)

    return {kind: _written(reach, whole, axes).through(change) for kind, reach in reaches.items()}


def _concatenate(op: Op, ins: Sequence[Reaches], known: Known) -> Reaches:
    parts = [(reaches, value.shape) for reaches, value in zip(ins, op.ins, strict=True)]
    return rc.joined(parts, op.params["dimension"], op)


def _stack(op: Op, ins: Sequence[Reaches], known: Known) -> Reaches:
    axis = op.params["axis"]
    return {
        kind: reach.through(lambda array, _: np.expand_dims(array, axis)) for kind, reach in rc.united(ins, op).items()
    }


def _unstack(op: Op, ins: Sequence[Reaches], known: Known) -> list[Reaches]:
    return [{kind: _row(reach, i, op.params["axis"]) for kind, reach in ins[0].items()} for i in range(len(op.outs))]


def _row(reach: Reach, i: int, axis: int) -> Reach:
    return reach.through(lambda array, _: array.take(min(i, array.shape[axis] - 1), axis))


def _pad(op: Op, ins: Sequence[Reaches], known: Known) -> Reaches:
    shape, config = op.ins[0].shape, op.params["padding_config"]
    return of_first(op, ins, lambda op, reach: rc.padded(reach, shape, config))


def _rev(op: Op, ins: Sequence[Reaches], known: Known) -> Reaches:
    axes = tuple(op.params["dimensions"])
    return of_first(op, ins, lambda op, reach: reach.through(lambda array, _: np.flip(array, axes)))


MOVES: dict[str, Callable[[Op, Sequence[Reaches], Known], Reaches | list[Reaches]]] = {
    "transpose": _transpose,
    "squeeze": _squeeze,
    "expand_dims": _expand,
    "reshape": _reshape,
    "broadcast_in_dim": _broadcast,
    "slice": _slice,
    "split": _split,
    "dynamic_slice": _dynamic_slice,
    "dynamic_update_slice": _dynamic_update_slice,
    "concatenate": _concatenate,
    "stack": _stack,
    "unstack": _unstack,
    "pad": _pad,
    "rev": _rev,
}
