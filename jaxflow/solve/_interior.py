"""The barrier-regularised flow of a directed acyclic network, by a primal-dual interior-point method in JAX.

    maximise  value(f) + mu * sum_e [log f_e + log(u_e - f_e)]    over flows f from the sources to the sink

Every node but the ends conserves flow. Its multiplier is the node's potential p, 0 at the sources and 1 at the sink, and the
rise of an arc is `r_e = p_receiver - p_sender`. For given potentials each arc has its best flow in closed form (`best_flow`),
which makes the dual a convex function of the potentials alone, and any potentials an upper bound. Each step solves one system
in the weighted Laplacian of the arcs. All of it is traceable, and written for one set of sources and one sink.

Source: the programme is that of GAF, Azarkhalili & Libbrecht 2025 (2502.15765); the method is the path-following one of
Kojima, Mizuno & Yoshise 1989, from a start that need not conserve flow.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

# How far to go, of the way to where the first flow or slack would be 0; and how much nearer to mu to aim.
_STEP, _AIM = 0.99, 0.1
# The objective is flat: flows that differ by a share s of themselves differ in it by mu * s^2. So the last step, too, is to be
# this small a share of every flow and slack; Newton's method squares it.
_STILL = 1e-4
_LIFT = 1e-14


class Problem(NamedTuple):
    """One sink's programme.

    Attributes:
        senders: `[arc]`.
        receivers: `[arc]`.
        capacity: `[arc]`; 1 where the arc is left out.
        live: `[arc]`, 1 for arcs on a path from a source to the sink, all of positive capacity; 0 where left out.
        inner: `[node]`, which nodes conserve flow: those on such a path that are no end of it.
        sink: `[node]`, 1 at the sink, 0 elsewhere.
    """

    senders: Int[Array, " arc"]
    receivers: Int[Array, " arc"]
    capacity: Float[Array, " arc"]
    live: Float[Array, " arc"]
    inner: Bool[Array, " node"]
    sink: Float[Array, " node"]


class Solution(NamedTuple):
    """Where the method stopped.

    Attributes:
        flow: `[arc]`, 0 where left out.
        potential: `[node]`, in [0, 1] at the optimum.
        gap: what any flow could gain in the objective, at most, plus what `flow` fails to conserve.
        iterations: systems that were solved.
    """

    flow: Float[Array, " arc"]
    potential: Float[Array, " node"]
    gap: Float[Array, ""]
    iterations: Int[Array, ""]


class _State(NamedTuple):
    flow: Array
    slack: Array  # capacity - flow
    at_zero: Array  # multiplier of flow >= 0
    at_capacity: Array  # multiplier of slack >= 0
    potential: Array
    gap: Array
    moved: Array  # largest share of a flow or a slack that the last step changed
    iterations: Array


def pose(
    capacity: Float[Array, " arc"],
    senders: Int[Array, " arc"],
    receivers: Int[Array, " arc"],
    *,
    sources: Bool[Array, " node"],
    sink: Int[Array, ""],
) -> Problem:
    """Leave out every arc that cannot carry anything from the sources to the sink. O(arcs * longest path)."""
    at_sink = jnp.arange(sources.shape[0]) == sink
    usable = (capacity > 0) & ~at_sink[senders] & ~sources[receivers] & (senders != receivers)
    after = _spread(sources, senders, receivers, usable)
    before = _spread(at_sink, receivers, senders, usable)
    live = usable & after[senders] & before[receivers]
    return Problem(
        senders=senders,
        receivers=receivers,
        capacity=jnp.where(live, capacity, 1),
        live=live.astype(capacity.dtype),
        inner=after & before & ~sources & ~at_sink,
        sink=at_sink.astype(capacity.dtype),
    )


def solve(
    problem: Problem, *, mu: Float[Array, ""], tolerance: Float[Array, ""], max_iterations: Int[Array, ""]
) -> Solution:
    """Follow the central path to `mu` and stop at the tolerated gap, or after so many iterations.

    Cost: one Cholesky factorisation of a matrix `[node, node]` per iteration.
    """
    capacity, live = problem.capacity, problem.live
    potential = jnp.where(problem.inner, 0.5, problem.sink)
    rise = _rise(problem, potential)
    half = capacity / 2
    # On the central path but for conservation and the ends: arcs of any capacity alike are half full.
    middle = jnp.maximum(mu, (live * half).sum() / jnp.maximum(live.sum(), 1))
    start = _State(
        flow=half,
        slack=half,
        at_zero=jnp.maximum(-rise, 0) + middle / half,
        at_capacity=jnp.maximum(rise, 0) + middle / half,
        potential=potential,
        # No arc, no flow: nothing is left to do.
        gap=jnp.where(live.any(), jnp.inf, 0),
        moved=jnp.zeros((), capacity.dtype),
        iterations=jnp.zeros((), jnp.int32),
    )

    def unfinished(state: _State) -> Array:
        return (state.iterations < max_iterations) & ~((state.gap <= tolerance) & (state.moved <= _STILL))

    end = jax.lax.while_loop(unfinished, lambda state: _iterate(problem, state, mu), start)
    return Solution(live * end.flow, end.potential, end.gap, end.iterations)


def best_flow(
    rise: Float[Array, " arc"], capacity: Float[Array, " arc"], mu: Float[Array, ""]
) -> tuple[Float[Array, " arc"], Float[Array, " arc"]]:
    """Maximise `rise * f + mu * log f + mu * log(capacity - f)` for each arc: f and capacity - f, neither by a difference."""
    pull = jnp.abs(rise) * capacity / mu
    root = jnp.sqrt(4 + pull**2)
    smaller = capacity / (2 + root) * (1 + 2 / (root + pull))
    larger = capacity / (2 + root) * (1 + (root + pull) / 2)
    return jnp.where(rise < 0, smaller, larger), jnp.where(rise < 0, larger, smaller)


def value_gradient(problem: Problem, solution: Solution, *, mu: Float[Array, ""]) -> Float[Array, " arc"]:
    """Differentiate the value of the barrier flow by the capacities, by the implicit function theorem.

    With conductances `W_e = df_e / dr_e` let q be the harmonic potential, 0 at the sources, 1 at the sink and in balance between.
    The value grows by `(q_receiver - q_sender) * df_e / du_e`, since what an arc gains at given potentials is shared
    out by the network as a current is. One more system. Below 2 for each arc, whatever mu is.
    """
    flow, slack = best_flow(_rise(problem, solution.potential), problem.capacity, mu)
    conductance = problem.live / (mu / flow**2 + mu / slack**2)
    solve_system = _factorise(problem, conductance)
    harmonic = problem.sink + solve_system(_leaving(problem, conductance * _rise(problem, problem.sink)))
    by_capacity = conductance * mu / slack**2
    return by_capacity * _rise(problem, harmonic)


def _iterate(problem: Problem, state: _State, mu: Array) -> _State:
    """One Newton step towards `flow * at_zero = slack * at_capacity = aim` and conservation."""
    flow, slack, at_zero, at_capacity, *_ = state
    live, capacity = problem.live, problem.capacity
    conductance = live / (at_zero / flow + at_capacity / slack)
    now = (live * (flow * at_zero + slack * at_capacity)).sum() / (2 * live.sum())
    aim = jnp.maximum(mu, _AIM * now)
    # What the potentials leave to be done. The rise of an arc is the difference of its multipliers, which are exact to their
    # own size: prices of arcs with room to spare are small, and would be lost in a difference of potentials.
    force = (at_capacity - aim / slack) - (at_zero - aim / flow)
    shift = _factorise(problem, conductance)(_leaving(problem, live * flow + conductance * force))
    change = conductance * (_rise(problem, shift) + force)
    change_zero = live * ((aim - at_zero * change) / flow - at_zero)
    change_capacity = live * ((aim + at_capacity * change) / slack - at_capacity)
    primal = jnp.minimum(_room(flow, change), _room(slack, -change))
    dual = jnp.minimum(_room(at_zero, change_zero), _room(at_capacity, change_capacity))
    flow, slack = flow + primal * change, slack - primal * change
    potential = state.potential + dual * shift

    rise = _rise(problem, potential)

    def objective(flow: Array, slack: Array) -> Array:
        return (live * (rise * flow + mu * jnp.log(flow) + mu * jnp.log(slack))).sum()

    lost = jnp.where(problem.inner, _leaving(problem, live * flow), 0)
    return _State(
        flow=flow,
        slack=slack,
        at_zero=at_zero + dual * change_zero,
        at_capacity=at_capacity + dual * change_capacity,
        potential=potential,
        moved=(jnp.abs(change) / jnp.minimum(flow, slack)).max(),
        gap=jnp.abs(objective(*best_flow(rise, capacity, mu)) - objective(flow, slack)) + jnp.abs(lost).sum(),
        iterations=state.iterations + 1,
    )


def _factorise(problem: Problem, conductance: Float[Array, " arc"]) -> Callable[[Array], Array]:
    """Return the function `[node] -> [node]` from currents that leave the inner nodes to the potentials that balance them."""
    senders, receivers, inner = problem.senders, problem.receivers, problem.inner
    n_nodes = inner.shape[0]
    joined = jnp.zeros((n_nodes, n_nodes), conductance.dtype).at[senders, receivers].add(conductance)
    joined = joined + joined.T
    degree = joined.sum(1)
    scale = jnp.where(inner, 1 / jnp.sqrt(jnp.where(inner, degree, 1)), 0)
    # As singular as rounding makes it where capacities lie 16 orders apart. What _LIFT adds is made good by the next step.
    laplacian = (1 + _LIFT) * jnp.eye(n_nodes, dtype=conductance.dtype) - joined * jnp.outer(scale, scale)
    factor = jnp.linalg.cholesky(laplacian)

    def solve_system(leaving: Array) -> Array:
        half = jax.scipy.linalg.solve_triangular(factor, scale * leaving, lower=True)
        return scale * jax.scipy.linalg.solve_triangular(factor, half, lower=True, trans=1)

    return solve_system


def _leaving(problem: Problem, flow: Float[Array, " arc"]) -> Float[Array, " node"]:
    """Net flow out of each node."""
    nodes = jnp.zeros_like(problem.sink)
    return nodes.at[problem.senders].add(flow).at[problem.receivers].add(-flow)


def _rise(problem: Problem, potential: Float[Array, " node"]) -> Float[Array, " arc"]:
    return potential[problem.receivers] - potential[problem.senders]


def _room(value: Float[Array, " arc"], change: Float[Array, " arc"]) -> Float[Array, ""]:
    """How long a step keeps all values positive: at most 1."""
    shrinks = change < 0
    return jnp.minimum(1, _STEP * jnp.min(jnp.where(shrinks, value / jnp.where(shrinks, -change, 1), jnp.inf)))


def _spread(
    start: Bool[Array, " node"],
    senders: Int[Array, " arc"],
    receivers: Int[Array, " arc"],
    usable: Bool[Array, " arc"],
) -> Bool[Array, " node"]:
    """Find all nodes that usable arcs lead to from `start`."""

    def grow(state: tuple[Array, Array]) -> tuple[Array, Array]:
        reached, _ = state
        return reached.at[receivers].max(reached[senders] & usable), reached

    before = jnp.zeros_like(start)
    return jax.lax.while_loop(lambda state: (state[0] != state[1]).any(), grow, (start, before))[0]
