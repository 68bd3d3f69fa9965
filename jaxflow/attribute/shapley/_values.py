"""ShapleyValues: what the games result in; and the check of who plays."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from flax import struct
from jaxtyping import Float, Int

from jaxflow._attention import AnyArray, AnyInt
from jaxflow.network import FlowNetwork
from jaxflow.solve import check_arcs, check_node_set, check_nodes

# Nodes, or groups of nodes: each a player.
Players = Int[AnyArray, " player"] | Sequence[AnyInt | Sequence[AnyInt] | Int[AnyArray, " _member"]]


@struct.dataclass
class ShapleyValues:
    """Shapley values of one output's players, in units of attention. They sum to `total`.

    Attributes:
        values: `[player]`, each one's share of `total`, at least 0.
        standard_error: `[player]`, 0 where the values are exact. A sampled value lies within twice its standard error of
            the truth for about 19 of 20 players.
        total: what all players are worth together.
        n_permutations: number of orders that the values are an average over; 0 where they are exact.
        precision: standard error that was asked for; 0 where the values are exact. See `is_reached`.
        game: "fixed flow" or "set".
    """

    values: Float[np.ndarray, " player"]
    standard_error: Float[np.ndarray, " player"]
    total: float
    n_permutations: int
    precision: float
    game: str = struct.field(pytree_node=False)

    @property
    def is_reached(self) -> bool:
        """Whether no standard error exceeds the precision asked for."""
        return bool(np.max(self.standard_error, initial=0.0) <= self.precision)


def exact(values: Float[np.ndarray, " player"], game: str) -> ShapleyValues:
    """Wrap values without error."""
    return ShapleyValues(
        values=values,
        standard_error=np.zeros_like(values),
        total=float(values.sum()),
        n_permutations=0,
        precision=0.0,
        game=game,
    )


def check_players(
    network: FlowNetwork, sink: AnyInt | None, players: Players | None
) -> list[Int[np.ndarray, " _member"]]:
    """Check network, sink and players; return each player's nodes. Tokens that outputs feed back are none by default."""
    check_arcs(network)
    if players is None:
        players = np.setdiff1d(network.inputs, network.receivers)
    groups = [np.atleast_1d(np.asarray(player)) for player in players]
    if not groups:
        raise ValueError("players is empty; expected nodes, such as network.inputs.")
    members = np.concatenate(groups)
    if not np.issubdtype(members.dtype, np.integer) or any(group.ndim != 1 or not group.size for group in groups):
        raise ValueError(f"players is {players!r}; expected nodes, or groups of one node or more.")
    check_node_set(network, "a player", members)
    if sink is not None and check_nodes(network, "sink", sink) in members:
        raise ValueError(f"Node {sink} is both a player and the sink; expected two different nodes.")
    return [group.astype(np.int64) for group in groups]
