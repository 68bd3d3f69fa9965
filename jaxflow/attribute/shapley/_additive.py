"""The additive game, `v(S) = sum of single scores`: Shapley values in the sense of Metzger et al. 2022."""

from __future__ import annotations

import numpy as np

from jaxflow.attribute.shapley._values import Players, ShapleyValues, check_players, exact
from jaxflow.network import FlowNetwork
from jaxflow.solve import Solver, max_flow


def additive_shapley(
    network: FlowNetwork, sink: int, *, players: Players | None = None, solver: Solver = "certified"
) -> ShapleyValues:
    """Take `v(S) = sum of maxflow(i -> sink) over i in S`: Shapley values are the scores of `attention_flow`.

    Each player is a node. Cost: a solve per player.

    Args:
        network: one example's network.
        sink: node of the output, such as `network.outputs[0]`.
        players: nodes; all inputs by default.
        solver: as in `max_flow`.

    Raises:
        ValueError: as `max_flow`; players that are no nodes, or that are the sink.

    Source: Metzger et al. 2022 (2205.15389) speak of Shapley values; this is how we read them.
    """
    groups = check_players(network, sink, players)
    if any(len(group) > 1 for group in groups):
        raise ValueError(
            "A player of several nodes has no score to add up: give single nodes, or use set_shapley, which takes groups."
        )
    values = np.zeros(len(groups))
    reaches = np.array([group[0] < sink for group in groups], bool)  # nothing flows to a lower node
    values[reaches] = max_flow(network, np.concatenate(groups)[reaches], sink, solver=solver).value
    return exact(values, "additive")
