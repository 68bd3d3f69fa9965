"""The game on a fixed flow, `v(S) = what of it passes S`: Shapley values in the sense of Ethayarajh & Jurafsky 2021."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import ArrayLike, Bool, Float, Int

from jaxflow._attention import AnyArray, AnyInt
from jaxflow.attribute.shapley._values import ShapleyValues, check_players, exact
from jaxflow.network import FlowNetwork


def fixed_flow_shapley(
    network: FlowNetwork,
    flow: Float[ArrayLike, " arc"],
    *,
    players: Sequence[AnyInt] | Int[AnyArray, " player"] | None = None,
) -> ShapleyValues:
    """Take `v(S) = what of a given flow passes S`, for players in one layer: each is worth what flows through it.

    Removing the players outside S from a fixed flow leaves the paths through S, and no path passes two players; so the
    game is additive. Joint maximum flows are not unique, and these values are no more unique than the flow they are
    given: use one that is, such as the barrier-regularised flow.

    Args:
        network: one example's network.
        flow: `[arc]`, of all inputs together to one output; at least 0, conserved, in units of attention.
        players: nodes of one layer, such as `np.flatnonzero(network.layer == 2)`; all inputs by default.

    Raises:
        ValueError: a flow of another length, below 0, above its capacity or not conserved; players that feed one another.

    Source: Ethayarajh & Jurafsky 2021 (2105.14652), section 3.
    """
    nodes = np.concatenate(check_players(network, None, players))
    leaving, entering, is_fed = _follow(network, np.asarray(flow, np.float64), nodes)
    if is_fed.any():
        raise ValueError(
            f"Player {int(nodes[is_fed][0])} is given flow that passed another player, and would count it again: expected "
            "nodes of one layer."
        )
    return exact(np.maximum(leaving, entering)[nodes], "fixed flow")


def _follow(
    network: FlowNetwork, flow: Float[np.ndarray, " arc"], nodes: Int[np.ndarray, " player"]
) -> tuple[Float[np.ndarray, " node"], Float[np.ndarray, " node"], Bool[np.ndarray, " player"]]:
    """Check a flow; return what leaves and what enters each node, and which players get what passed another."""
    capacity = np.asarray(network.capacity, np.float64)
    senders, receivers = np.asarray(network.senders), np.asarray(network.receivers)
    if flow.shape != capacity.shape:
        raise ValueError(f"flow has shape {flow.shape}; expected {capacity.shape}, one number for each arc.")
    slack = 1e-6 * max(float(capacity.max(initial=0.0)), 1.0)
    wrong = np.flatnonzero(~((flow >= -slack) & (flow <= capacity + slack)))
    if wrong.size:
        raise ValueError(
            f"Arc {wrong[0]} carries {flow[wrong[0]]:g}; expected 0 to {capacity[wrong[0]]:g}, its capacity."
        )
    leaving, entering = np.zeros((2, network.n_nodes))
    np.add.at(leaving, senders, flow)
    np.add.at(entering, receivers, flow)
    lost = np.flatnonzero((np.abs(leaving - entering) > slack) & (leaving > slack) & (entering > slack))
    if lost.size:
        raise ValueError(
            f"The flow is not conserved: {entering[lost[0]]:g} enters node {lost[0]} and {leaving[lost[0]]:g} leaves it."
        )
    is_player, is_fed = np.zeros((2, network.n_nodes), bool)
    is_player[nodes] = True
    for arc in np.flatnonzero(flow > slack)[np.argsort(senders[flow > slack], kind="stable")]:  # in topological order
        is_fed[receivers[arc]] |= is_player[senders[arc]] or is_fed[senders[arc]]
    return leaving, entering, is_fed[nodes]
