"""The barrier-regularised maximum flow: the programme, one step of a primal-dual interior-point method, and its gap.

    maximise  value(f) + mu * sum_e [log f_e + log(u_e - f_e)]    over flows f from the sources to the sink

Every node but the ends conserves flow. Its multiplier is the node's potential p, 0 at the sources and 1 at the sink; the rise
of an arc is `r_e = p_receiver - p_sender`. For given potentials each arc has its best flow in closed form (`best_flow`), so the
dual is a convex function of the potentials alone, and any potentials give an upper bound. Each step solves one system in the
weighted Laplacian of the arcs.

Written once for NumPy and JAX. Callers pass `operations`: the array module, how flow is summed at nodes, and how the Laplacian
is factorised: dense and traceable in `_barrier_dense.py`, block by block on the host in `_barrier_blocks.py`.

Source: the programme is that of GAF, Azarkhalili & Libbrecht 2025 (2502.15765); the method is the path-following one of
Kojima, Mizuno & Yoshise 1989, from a start that need not conserve flow.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

# The part of the way to the nearest bound that a step goes, and how much nearer to mu it aims than the last one.
STEP, AIM = 0.99, 0.1
# The objective is flat: flows that differ by a share s of themselves differ in it by mu * s^2. So the last step must change
# every flow and slack by no more than this share; Newton's method squares it.
STILL = 1e-4
# What is added to the diagonal of the Laplacian, which is scaled to 1.
LIFT = 1e-14

# NumPy's or JAX's: [arc], [node] or a number.
Array = Any


class Programme(NamedTuple):
    """The programme for one set of sources and one sink.

    Attributes:
        senders: `[arc]`.
        receivers: `[arc]`.
        capacity: `[arc]`, above 0.
        live: `[arc]`, 1 for arcs on a path from a source to the sink, 0 for arcs that are left out; None if all are on one.
        inner: `[node]`, whether the node conserves flow: it lies on such a path and is no end of it.
        fixed: `[node]`, potential of the ends: 1 at the sink, 0 elsewhere.
    """

    senders: Array
    receivers: Array
    capacity: Array
    live: Array | None
    inner: Array
    fixed: Array


class State(NamedTuple):
    """Where the method is.

    Attributes:
        flow: `[arc]`, above 0.
        slack: `[arc]`, capacity - flow, above 0.
        at_zero: `[arc]`, multiplier of flow >= 0.
        at_capacity: `[arc]`, multiplier of slack >= 0.
        potential: `[node]`.
        aim: what `flow * at_zero` and `slack * at_capacity` were to be after the last step: mu at the end.
        moved: largest share of a flow or a slack that the last step changed.
    """

    flow: Array
    slack: Array
    at_zero: Array
    at_capacity: Array
    potential: Array
    aim: Array
    moved: Array


class Operations(NamedTuple):
    """What differs between NumPy and JAX.

    Attributes:
        xp: `numpy` or `jax.numpy`.
        net: `[arc] -> [node]`, net flow out of each node.
        factorise: conductances `[arc]` -> the function `[node] -> [node]` from currents that leave the inner nodes to the
            potentials that balance them, 0 at the ends.
    """

    xp: Any
    net: Callable[[Array], Array]
    factorise: Callable[[Array], Callable[[Array], Array]]


def first_state(programme: Programme, mu: Array, operations: Operations) -> State:
    """Start on the central path, but for conservation and the ends: arcs of any capacity are half full."""
    xp = operations.xp
    half = programme.capacity / 2
    potential = xp.where(programme.inner, 0.5, programme.fixed)
    rise = rise_of(programme, potential)
    middle = xp.maximum(mu, _of_live(programme, half).sum() / xp.maximum(_n_live(programme), 1))
    return State(
        flow=half,
        slack=half,
        at_zero=xp.maximum(-rise, 0) + middle / half,
        at_capacity=xp.maximum(rise, 0) + middle / half,
        potential=potential,
        aim=middle,
        moved=xp.zeros_like(middle),
    )


def newton_step(programme: Programme, state: State, mu: Array, operations: Operations) -> State:
    """Take one Newton step towards `flow * at_zero = slack * at_capacity = aim` and conservation."""
    xp = operations.xp
    flow, slack, at_zero, at_capacity, potential, *_ = state
    conductance = _of_live(programme, 1 / (at_zero / flow + at_capacity / slack))
    now = _of_live(programme, flow * at_zero + slack * at_capacity).sum() / (2 * _n_live(programme))
    aim = xp.maximum(mu, AIM * now)
    # What the potentials leave to be done. The rise of an arc is the difference of its multipliers, which are exact to their
    # own size: prices of arcs with room to spare are small, and would be lost in a difference of potentials.
    force = (at_capacity - aim / slack) - (at_zero - aim / flow)
    shift = operations.factorise(conductance)(operations.net(_of_live(programme, flow) + conductance * force))
    change = conductance * (rise_of(programme, shift) + force)
    change_zero = _of_live(programme, (aim - at_zero * change) / flow - at_zero)
    change_capacity = _of_live(programme, (aim + at_capacity * change) / slack - at_capacity)
    primal = xp.minimum(_room(xp, flow, change), _room(xp, slack, -change))
    dual = xp.minimum(_room(xp, at_zero, change_zero), _room(xp, at_capacity, change_capacity))
    return State(
        flow=flow + primal * change,
        slack=slack - primal * change,
        at_zero=at_zero + dual * change_zero,
        at_capacity=at_capacity + dual * change_capacity,
        potential=potential + dual * shift,
        aim=aim,
        moved=(xp.abs(change) / xp.minimum(flow, slack)).max(),
    )


def gap_of(programme: Programme, state: State, mu: Array, operations: Operations) -> Array:
    """Bound what any flow could gain in the objective over the state's flow, plus what that fails to conserve."""
    xp = operations.xp
    rise = rise_of(programme, state.potential)
    flow, slack = best_flow(xp, rise, programme.capacity, mu)
    # Each arc's gain as a difference of its own: the objective is much larger than the gap.
    logs = xp.log(flow) + xp.log(slack) - xp.log(state.flow) - xp.log(state.slack)
    gained = _of_live(programme, rise * (flow - state.flow) + mu * logs).sum()
    lost = xp.where(programme.inner, operations.net(_of_live(programme, state.flow)), 0)
    return xp.abs(gained) + xp.abs(lost).sum()


def best_flow(xp: Any, rise: Array, capacity: Array, mu: Array) -> tuple[Array, Array]:
    """Maximise `rise * f + mu * log f + mu * log(capacity - f)` for each arc: f and capacity - f, neither by a difference."""
    pull = xp.abs(rise) * capacity / mu
    root = xp.sqrt(4 + pull**2)
    part = capacity / (2 + root)
    smaller, larger = part * (1 + 2 / (root + pull)), part * (1 + (root + pull) / 2)
    return xp.where(rise < 0, smaller, larger), xp.where(rise < 0, larger, smaller)


def rise_of(programme: Programme, potential: Array) -> Array:
    """`[arc]`, by how much the potential rises along each arc."""
    return potential[programme.receivers] - potential[programme.senders]


def _of_live(programme: Programme, values: Array) -> Array:
    """`[arc]`, 0 for arcs that are left out."""
    return values if programme.live is None else programme.live * values


def _n_live(programme: Programme) -> Array:
    return len(programme.capacity) if programme.live is None else programme.live.sum()


def _room(xp: Any, value: Array, change: Array) -> Array:
    """How long a step keeps all values positive: at most 1."""
    return xp.minimum(1.0, STEP / xp.maximum((-change / value).max(), 1e-300))
