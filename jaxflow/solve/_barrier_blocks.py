"""The barrier-regularised flow of a layered network, on the host. Leaves JAX: NumPy, and LAPACK by SciPy.

The programme and the step are those of `_barrier_step.py`. Arcs on no path are left out from the start, and systems are solved
block by block: arcs join a layer's nodes only to those of the layers beside it, so the Laplacian is block tridiagonal, with a
border where a decoder reads the encoder's last layer.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import linalg

from jaxflow.solve._barrier_step import LIFT, STILL, Operations, Programme, first_state, gap_of, newton_step, rise_of

# What LIFT is raised to, at most, where a factorisation fails.
MOST_LIFT = 1e-6

Solve = Callable[[Float[np.ndarray, " node"]], Float[np.ndarray, " node"]]


class Solution(NamedTuple):
    """Where the method stopped.

    Attributes:
        flow: `[arc]`, 0 on arcs that lie on no path.
        value: flow that arrives at the sink.
        upper: upper bound on the value of any flow.
        gap: upper bound on what any flow could gain in the objective, plus what `flow` fails to conserve.
        iterations: linear systems solved.
    """

    flow: Float[np.ndarray, " arc"]
    value: float
    upper: float
    gap: float
    iterations: int


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
    """Follow the central path to `mu` and stop at the tolerated gap, or after `max_iterations`.

    Cost per iteration: O(arcs), and a Cholesky factorisation of a matrix `[node, node]` for each group.

    Args:
        capacity: `[arc]`, 0 or more.
        senders: `[arc]`, nodes; arcs form no cycle.
        receivers: `[arc]`, nodes.
        group: `[node]`, groups of nodes are eliminated in increasing order. Any grouping gives the same flow; it is fast
            where arcs join few pairs of groups.
        sources: `[node]`, True for the sources.
        sink: node.
        mu: weight of the barrier.
        tolerance: largest gap.
        max_iterations: largest number of steps.
    """
    arcs, live, starts = _leave_out(capacity, senders, receivers, group, sources=sources, sink=sink)
    found = np.zeros(len(capacity))
    if not arcs.size:
        return Solution(found, 0.0, 0.0, 0.0, 0)
    operations = Operations(np, functools.partial(_net, live), _elimination(live, starts))
    state = first_state(live, mu, operations)
    gap, iterations = np.inf, 0
    while iterations < max_iterations and not (gap <= tolerance and state.moved <= STILL):
        iterations += 1
        state = newton_step(live, state, mu, operations)
        if state.aim == mu or iterations == max_iterations:
            gap = float(gap_of(live, state, mu, operations))
    found[arcs] = state.flow
    arriving = live.receivers == len(live.inner) - 1
    upper = float(live.capacity @ np.maximum(rise_of(live, state.potential), 0))
    return Solution(found, float(state.flow[arriving].sum()), upper, gap, iterations)


def _leave_out(
    capacity: Float[np.ndarray, " arc"],
    senders: Int[np.ndarray, " arc"],
    receivers: Int[np.ndarray, " arc"],
    group: Int[np.ndarray, " node"],
    *,
    sources: Bool[np.ndarray, " node"],
    sink: int,
) -> tuple[Int[np.ndarray, " live"], Programme, Int[np.ndarray, " start"]]:
    """Find the arcs that can carry something from the sources to the sink, and number their nodes anew.

    Returns:
        Which arcs these are; the programme, whose nodes are those that conserve flow, group by group, then the sources, then
        the sink; and where each group's nodes start.
    """
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
    programme = Programme(
        senders=number[senders[arcs]],
        receivers=number[receivers[arcs]],
        capacity=capacity[arcs],
        live=None,
        inner=np.arange(len(order)) < len(inner),
        fixed=(np.arange(len(order)) == len(order) - 1).astype(np.float64),
    )
    return arcs, programme, np.concatenate([[0], np.cumsum(sizes)])


def _elimination(live: Programme, starts: Int[np.ndarray, " start"]) -> Callable[[Float[np.ndarray, " arc"]], Solve]:
    """Lay out the Laplacian of the inner nodes in blocks; return what factorises it for given conductances.

    What is factorised is scaled to a diagonal of 1, and as singular as rounding makes it where capacities lie 16 orders
    apart. The next step corrects for what is added to the diagonal.
    """
    n, n_nodes = int(starts[-1]), len(live.inner)
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
        degree = np.bincount(live.senders, conductance, n_nodes) + np.bincount(live.receivers, conductance, n_nodes)
        scale = 1 / np.sqrt(degree[:n])
        spans = list(itertools.pairwise(starts.tolist()))
        lift = LIFT
        while True:
            blocks = {(i, i): np.diag(np.full(stop - start, 1 + lift)) for i, (start, stop) in enumerate(spans)}
            for (i, j), (some, places) in layout.items():
                shape = (spans[i][1] - spans[i][0], spans[j][1] - spans[j][0])
                weights = conductance[some] * scale[low[some]] * scale[high[some]]
                block = np.bincount(places, weights, shape[0] * shape[1]).reshape(shape)
                blocks[i, j] = blocks[i, j] - block - block.T if i == j else -block
            try:
                return _substitution(_eliminate(blocks, len(spans)), spans, scale, n_nodes)
            except linalg.LinAlgError:
                lift *= 100
                if lift > MOST_LIFT:
                    raise

    return factorise


def _eliminate(
    blocks: dict[tuple[int, int], Float[np.ndarray, "_row _column"]], n_groups: int
) -> dict[tuple[int, int], Float[np.ndarray, "_row _column"]]:
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
    factor: dict[tuple[int, int], Float[np.ndarray, "_row _column"]],
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


def _net(live: Programme, flow: Float[np.ndarray, " arc"]) -> Float[np.ndarray, " node"]:
    """Net flow out of each node."""
    n_nodes = len(live.inner)
    return np.bincount(live.senders, flow, n_nodes) - np.bincount(live.receivers, flow, n_nodes)
