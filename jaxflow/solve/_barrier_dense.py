"""The barrier-regularised flow by dense systems, in JAX: traceable, on any device that has float64.

Written for one set of sources and one sink. The programme and the step are those of `_barrier_step.py`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxflow.solve._barrier_step import (
    LIFT,
    STILL,
    Operations,
    Programme,
    State,
    best_flow,
    first_state,
    gap_of,
    newton_step,
    rise_of,
)


class Solution(NamedTuple):
    """Where the method stopped.

    Attributes:
        flow: `[arc]`, 0 where left out.
        potential: `[node]`, in [0, 1] at the optimum.
        gap: upper bound on what any flow could gain in the objective, plus what `flow` fails to conserve.
        iterations: linear systems solved.
    """

    flow: Float[Array, " arc"]
    potential: Float[Array, " node"]
    gap: Float[Array, ""]
    iterations: Int[Array, ""]


def pose(
    capacity: Float[Array, " arc"],
    senders: Int[Array, " arc"],
    receivers: Int[Array, " arc"],
    *,
    sources: Bool[Array, " node"],
    sink: Int[Array, ""],
) -> Programme:
    """Leave out every arc that cannot carry anything from the sources to the sink. O(arcs * longest path).

    Args:
        capacity: `[arc]`, 0 or more.
        senders: `[arc]`.
        receivers: `[arc]`.
        sources: `[node]`, True for the sources.
        sink: node.
    """
    at_sink = jnp.arange(sources.shape[0]) == sink
    usable = (capacity > 0) & ~at_sink[senders] & ~sources[receivers] & (senders != receivers)
    after = _spread(sources, senders, receivers, usable)
    before = _spread(at_sink, receivers, senders, usable)
    live = usable & after[senders] & before[receivers]
    return Programme(
        senders=senders,
        receivers=receivers,
        capacity=jnp.where(live, capacity, 1),
        live=live.astype(capacity.dtype),
        inner=after & before & ~sources & ~at_sink,
        fixed=at_sink.astype(capacity.dtype),
    )


def solve(
    programme: Programme, *, mu: Float[Array, ""], tolerance: Float[Array, ""], max_iterations: Int[Array, ""]
) -> Solution:
    """Follow the central path to `mu` and stop at the tolerated gap, or after `max_iterations`.

    Cost: one Cholesky factorisation of a matrix `[node, node]` per iteration.

    Args:
        programme: what `pose` made.
        mu: weight of the barrier.
        tolerance: largest gap.
        max_iterations: largest number of steps.
    """
    operations = _operations(programme)
    live = programme.live
    assert live is not None
    # Without arcs there is no flow, and nothing to do.
    gap = jnp.where(live.any(), jnp.inf, 0).astype(programme.capacity.dtype)

    def unfinished(at: tuple[State, Array, Array]) -> Array:
        state, gap, iterations = at
        return (iterations < max_iterations) & ~((gap <= tolerance) & (state.moved <= STILL))

    def iterate(at: tuple[State, Array, Array]) -> tuple[State, Array, Array]:
        state = newton_step(programme, at[0], mu, operations)
        return state, gap_of(programme, state, mu, operations), at[2] + 1

    first = first_state(programme, mu, operations), gap, jnp.zeros((), jnp.int32)
    end, gap, iterations = jax.lax.while_loop(unfinished, iterate, first)
    return Solution(live * end.flow, end.potential, gap, iterations)


def value_gradient(programme: Programme, solution: Solution, *, mu: Float[Array, ""]) -> Float[Array, " arc"]:
    """Differentiate the value of the barrier flow by the capacities, by the implicit function theorem.

    With conductances `W_e = df_e / dr_e` let q be the harmonic potential: 0 at the sources, 1 at the sink and in balance
    between them. The value grows by `(q_receiver - q_sender) * df_e / du_e`, since what an arc gains at given potentials is
    distributed by the network as a current is. Cost: one more system. Below 2 for each arc, whatever mu is.

    Args:
        programme: what was solved.
        solution: at its optimum.
        mu: weight of the barrier.
    """
    operations = _operations(programme)
    flow, slack = best_flow(jnp, rise_of(programme, solution.potential), programme.capacity, mu)
    conductance = programme.live / (mu / flow**2 + mu / slack**2)
    solve_system = operations.factorise(conductance)
    harmonic = programme.fixed + solve_system(operations.net(conductance * rise_of(programme, programme.fixed)))
    by_capacity = conductance * mu / slack**2
    return by_capacity * rise_of(programme, harmonic)


def _operations(programme: Programme) -> Operations:
    def net(flow: Array) -> Array:
        nodes = jnp.zeros_like(programme.fixed)
        return nodes.at[programme.senders].add(flow).at[programme.receivers].add(-flow)

    return Operations(xp=jnp, net=net, factorise=functools.partial(_factorise, programme))


def _factorise(programme: Programme, conductance: Float[Array, " arc"]) -> Callable[[Array], Array]:
    """Factorise the Laplacian of the inner nodes; see `Operations.factorise`."""
    senders, receivers, inner = programme.senders, programme.receivers, programme.inner
    n_nodes = inner.shape[0]
    joined = jnp.zeros((n_nodes, n_nodes), conductance.dtype).at[senders, receivers].add(conductance)
    joined = joined + joined.T
    degree = joined.sum(1)
    scale = jnp.where(inner, 1 / jnp.sqrt(jnp.where(inner, degree, 1)), 0)
    # As singular as rounding makes it where capacities lie 16 orders apart. The next step corrects for what LIFT adds.
    laplacian = (1 + LIFT) * jnp.eye(n_nodes, dtype=conductance.dtype) - joined * jnp.outer(scale, scale)
    factor = jnp.linalg.cholesky(laplacian)

    def solve_system(leaving: Array) -> Array:
        half = jax.scipy.linalg.solve_triangular(factor, scale * leaving, lower=True)
        return scale * jax.scipy.linalg.solve_triangular(factor, half, lower=True, trans=1)

    return solve_system


def _spread(
    start: Bool[Array, " node"],
    senders: Int[Array, " arc"],
    receivers: Int[Array, " arc"],
    usable: Bool[Array, " arc"],
) -> Bool[Array, " node"]:
    """`[node]`, whether usable arcs lead there from `start`."""

    def grow(state: tuple[Array, Array]) -> tuple[Array, Array]:
        reached, _ = state
        return reached.at[receivers].max(reached[senders] & usable), reached

    before = jnp.zeros_like(start)
    return jax.lax.while_loop(lambda state: (state[0] != state[1]).any(), grow, (start, before))[0]
