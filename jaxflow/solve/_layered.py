"""The barrier-regularised flow of a layered network, on the host. Leaves JAX: NumPy, and LAPACK by SciPy.

The programme and the method are those of `interior`, which is traceable and dense. Here arcs on no path are left out from the
start, and systems are solved block by block: a layer's nodes are joined to those of the layers beside it alone, so the Laplacian
is block tridiagonal, with a border where a decoder reads the encoder's last layer.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import linalg

# As in `interior`.
_STEP, _AIM, _STILL, _LIFT = 0.99, 0.1, 1e-4, 1e-14
_MOST_LIFT = 1e-6

Solve = Callable[[Float[np.ndarray, " node"]], Float[np.ndarray, " node"]]


class Solution(NamedTuple):
    """Where the method stopped.

    Attributes:
        flow: `[arc]`, 0 on arcs that lie on no path.
        value: what arrives at the sink.
        upper: what no flow exceeds.
        gap: what any flow could gain in the objective, at most, plus what `flow` fails to conserve.
        iterations: systems that were solved.
    """

    flow: Float[np.ndarray, " arc"]
    value: float
    upper: float
    gap: float
    iterations: int


class _Live(NamedTuple):
    """What of a network lies on a path. Nodes are numbered: those that conserve flow by group, then all ends."""

    senders: Int[np.ndarray, " arc"]
    receivers: Int[np.ndarray, " arc"]
    capacity: Float[np.ndarray, " arc"]
    starts: Int[np.ndarray, " group+1"]  # of each group's nodes
    n_nodes: int
    fixed: Float[np.ndarray, " node"]  # potential of the ends; 0 elsewhere

    @property
    def n_inner(self) -> int:
        return int(self.starts[-1])


def solve(
    capacity: Float[np.ndarray, " arc"],
    senders: Int[np.ndarray, " arc"],
    receivers: Int[np.ndarray, " arc"],
    group: Int[np.ndarray, " node"],
    *,
    sources: Bool[np.ndarray, " node"],
    sink: int,
    mu: float,
    tolerance: float,
    max_iterations: int,
) -> Solution:
    """Follow the central path to `mu` and stop at the tolerated gap, or after so many iterations.

    Cost per iteration: O(arcs), and a Cholesky factorisation of a matrix `[node, node]` for each group.

    Args:
        capacity: `[arc]`.
        senders: `[arc]`, with no cycle.
        receivers: `[arc]`.
        group: `[node]`, groups are eliminated in their order. Any gives the right flow; few pairs of them that arcs join, a
            fast one.
        sources: `[node]`.
        sink: node.
        mu: weight of the barrier.
        tolerance: largest gap.
        max_iterations: where to stop all the same.
    """
    arcs, live = _leave_out(capacity, senders, receivers, group, sources=sources, sink=sink)
    found = np.zeros(len(capacity))
    if not arcs.size:
        return Solution(found, 0.0, 0.0, 0.0, 0)
    factorise = _elimination(live)
    flow = slack = live.capacity / 2
    potential = np.where(np.arange(live.n_nodes) < live.n_inner, 0.5, live.fixed)
    rise = _rise(live, potential)
    middle = max(mu, float(flow.mean()))
    at_zero, at_capacity = np.maximum(-rise, 0) + middle / flow, np.maximum(rise, 0) + middle / flow
    gap = moved = np.inf
    iterations = 0
    while iterations < max_iterations and not (gap <= tolerance and moved <= _STILL):
        iterations += 1
        conductance = 1 / (at_zero / flow + at_capacity / slack)
        now = (flow @ at_zero + slack @ at_capacity) / (2 * len(flow))
        aim = max(mu, _AIM * now)
        # The rise of an arc is the difference of its multipliers, which are exact to their own size.
        force = (at_capacity - aim / slack) - (at_zero - aim / flow)
        shift = factorise(conductance)(_leaving(live, flow + conductance * force))
        change = conductance * (_rise(live, shift) + force)
        change_zero = (aim - at_zero * change) / flow - at_zero
        change_capacity = (aim + at_capacity * change) / slack - at_capacity
        primal = min(_room(flow, change), _room(slack, -change))
        dual = min(_room(at_zero, change_zero), _room(at_capacity, change_capacity))
        moved = float((np.abs(change) / np.minimum(flow, slack)).max())
        flow, slack = flow + primal * change, slack - primal * change
        at_zero, at_capacity = at_zero + dual * change_zero, at_capacity + dual * change_capacity
        potential = potential + dual * shift
        if aim == mu or iterations == max_iterations:
            gap = _gap(live, flow, slack, _rise(live, potential), mu)
    found[arcs] = flow
    arriving = live.receivers == live.n_nodes - 1
    upper = float(live.capacity @ np.maximum(_rise(live, potential), 0))
    return Solution(found, float(flow[arriving].sum()), upper, gap, iterations)


def _leave_out(
    capacity: Float[np.ndarray, " arc"],
    senders: Int[np.ndarray, " arc"],
    receivers: Int[np.ndarray, " arc"],
    group: Int[np.ndarray, " node"],
    *,
    sources: Bool[np.ndarray, " node"],
    sink: int,
) -> tuple[Int[np.ndarray, " live"], _Live]:
    """Find the arcs that can carry something from the sources to the sink, and number their nodes anew."""
    arcs = np.flatnonzero((capacity > 0) & (senders != sink) & ~sources[receivers] & (senders != receivers))
    for one, other, start in ((senders, receivers, sources), (receivers, senders, np.arange(len(sources)) == sink)):
        reached, n_reached = start.copy(), 0
        while n_reached < (n_reached := int(reached.sum())):
            reached[other[arcs[reached[one[arcs]]]]] = True
        arcs = arcs[reached[one[arcs]]]
    on_path = np.zeros(len(sources), bool)
    on_path[senders[arcs]] = on_path[receivers[arcs]] = True
    inner = np.flatnonzero(on_path & ~sources & (np.arange(len(sources)) != sink))
    inner = inner[np.argsort(group[inner], kind="stable")]
    order = np.concatenate([inner, np.flatnonzero(on_path & sources), [sink]])
    number = np.zeros(len(sources), np.int64)
    number[order] = np.arange(len(order))
    _, sizes = np.unique(group[inner], return_counts=True)
    return arcs, _Live(
        senders=number[senders[arcs]],
        receivers=number[receivers[arcs]],
        capacity=capacity[arcs],
        starts=np.concatenate([[0], np.cumsum(sizes)]),
        n_nodes=len(order),
        fixed=(np.arange(len(order)) == len(order) - 1).astype(np.float64),
    )


def _elimination(live: _Live) -> Callable[[Float[np.ndarray, " arc"]], Solve]:
    """Lay out the Laplacian of the inner nodes in blocks; return what factorises it for given conductances.

    What is factorised is scaled to a diagonal of 1, and as singular as rounding makes it where capacities lie 16 orders
    apart. What is added to the diagonal is made good by the next step.
    """
    starts, n = live.starts, live.n_inner
    low, high = np.minimum(live.senders, live.receivers), np.maximum(live.senders, live.receivers)
    joins = high < n  # both ends inner: one entry below the diagonal
    which = np.searchsorted(starts, np.arange(n), "right") - 1
    pair = which[high[joins]] * len(starts) + which[low[joins]]
    layout: dict[tuple[int, int], tuple[Int[np.ndarray, " entry"], Int[np.ndarray, " entry"]]] = {}
    order = np.argsort(pair, kind="stable")
    entries = np.flatnonzero(joins)[order]
    found, firsts = np.unique(pair[order], return_index=True)
    for code, some in zip(found.tolist(), np.split(entries, firsts)[1:], strict=True):
        i, j = divmod(code, len(starts))
        layout[i, j] = some, (high[some] - starts[i]) * (starts[j + 1] - starts[j]) + low[some] - starts[j]

    def factorise(conductance: Float[np.ndarray, " arc"]) -> Solve:
        degree = np.bincount(live.senders, conductance, live.n_nodes) + np.bincount(
            live.receivers, conductance, live.n_nodes
        )
        scale = 1 / np.sqrt(degree[:n])
        spans = list(itertools.pairwise(starts.tolist()))
        lift = _LIFT
        while True:
            blocks = {(i, i): np.diag(np.full(stop - start, 1 + lift)) for i, (start, stop) in enumerate(spans)}
            for (i, j), (some, places) in layout.items():
                shape = (spans[i][1] - spans[i][0], spans[j][1] - spans[j][0])
                weights = conductance[some] * scale[low[some]] * scale[high[some]]
                block = np.bincount(places, weights, shape[0] * shape[1]).reshape(shape)
                blocks[i, j] = blocks[i, j] - block - block.T if i == j else -block
            try:
                return _substitution(_eliminate(blocks, len(spans)), spans, scale, live.n_nodes)
            except linalg.LinAlgError:
                lift *= 100
                if lift > _MOST_LIFT:
                    raise

    return factorise


def _eliminate(
    blocks: dict[tuple[int, int], Float[np.ndarray, "row column"]], n_groups: int
) -> dict[tuple[int, int], Float[np.ndarray, "row column"]]:
    """Factorise a matrix that is given by its blocks on and below the diagonal, by Cholesky; blocks may fill in."""
    for j in range(n_groups):
        blocks[j, j] = linalg.cholesky(blocks[j, j], lower=True, check_finite=False)
        below = [i for i in range(j + 1, n_groups) if (i, j) in blocks]
        for i in below:
            blocks[i, j] = linalg.solve_triangular(blocks[j, j], blocks[i, j].T, lower=True, check_finite=False).T
        for place, i in enumerate(below):
            for k in below[: place + 1]:
                product = blocks[i, j] @ blocks[k, j].T
                blocks[i, k] = blocks[i, k] - product if (i, k) in blocks else -product
    return blocks


def _substitution(
    factor: dict[tuple[int, int], Float[np.ndarray, "row column"]],
    spans: list[tuple[int, int]],
    scale: Float[np.ndarray, " inner"],
    n_nodes: int,
) -> Solve:
    """Return the function from currents that leave the inner nodes to the potentials that balance them, 0 at the ends."""

    def solve_system(leaving: Float[np.ndarray, " node"]) -> Float[np.ndarray, " node"]:
        x = scale * leaving[: len(scale)]
        for j, (start, stop) in enumerate(spans):
            x[start:stop] = linalg.solve_triangular(factor[j, j], x[start:stop], lower=True, check_finite=False)
            for i in range(j + 1, len(spans)):
                if (i, j) in factor:
                    x[slice(*spans[i])] -= factor[i, j] @ x[start:stop]
        for j, (start, stop) in reversed(list(enumerate(spans))):
            for i in range(j + 1, len(spans)):
                if (i, j) in factor:
                    x[start:stop] -= factor[i, j].T @ x[slice(*spans[i])]
            x[start:stop] = linalg.solve_triangular(
                factor[j, j], x[start:stop], lower=True, trans=1, check_finite=False
            )
        result = np.zeros(n_nodes)
        result[: len(scale)] = scale * x
        return result

    return solve_system


def _gap(
    live: _Live,
    flow: Float[np.ndarray, " arc"],
    slack: Float[np.ndarray, " arc"],
    rise: Float[np.ndarray, " arc"],
    mu: float,
) -> float:
    """What the best flow of each arc alone would gain over `flow`, plus what `flow` fails to conserve."""
    pull = np.abs(rise) * live.capacity / mu
    root = np.sqrt(4 + pull**2)
    part = live.capacity / (2 + root)
    smaller, larger = part * (1 + 2 / (root + pull)), part * (1 + (root + pull) / 2)
    best = np.where(rise < 0, smaller, larger)
    gained = rise @ (best - flow) + mu * (np.log(smaller) + np.log(larger) - np.log(flow) - np.log(slack)).sum()
    return float(abs(gained) + np.abs(_leaving(live, flow)[: live.n_inner]).sum())


def _leaving(live: _Live, flow: Float[np.ndarray, " arc"]) -> Float[np.ndarray, " node"]:
    """Net flow out of each node."""
    return np.bincount(live.senders, flow, live.n_nodes) - np.bincount(live.receivers, flow, live.n_nodes)


def _rise(live: _Live, potential: Float[np.ndarray, " node"]) -> Float[np.ndarray, " arc"]:
    return potential[live.receivers] - potential[live.senders]


def _room(value: Float[np.ndarray, " arc"], change: Float[np.ndarray, " arc"]) -> float:
    """How long a step keeps all values positive: at most 1."""
    return min(1.0, _STEP / max(float((-change / value).max()), 1e-300))
