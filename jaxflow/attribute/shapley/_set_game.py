"""The set game, `v(S) = maxflow(S -> output)`: exact for few players, by sampled orders for many."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float, Int

from jaxflow._attention import AnyInt
from jaxflow._progress import progress_bar
from jaxflow.attribute.shapley._values import Players, ShapleyValues, check_players, exact
from jaxflow.network import FlowNetwork

# Largest number of players whose every coalition is tried: 65,536.
MOST_PLAYERS = 16


def set_shapley(network: FlowNetwork, sink: AnyInt, *, players: Players | None = None) -> ShapleyValues:
    """Take `v(S) = maxflow(S -> sink)`: exact Shapley values, over all coalitions.

    The game is monotone and submodular: what a player adds shrinks as others join, and who stands in for others shares with
    them. Where rows of attention sum to 1, all inputs together are worth 1 ("parallel": up to 2 - r).
    Cost: at most 2^players extensions of a flow, fewer where few players send all; 0.01 to 0.5 s at 16.

    Args:
        network: one example's network.
        sink: node of the output, such as `network.outputs[0]`.
        players: nodes, or groups of nodes that join as one (a span of tokens); each input by default.

    Returns:
        `ShapleyValues`, in the order of `players`.

    Raises:
        ValueError: as `max_flow`; more than 16 players that reach the sink; players that are no nodes, or overlap.

    Example:
        >>> from jaxflow import Capacities
        >>> from jaxflow.network import flow_network
        >>> layer = np.array([[0.75, 0.25], [0.5, 0.5]])
        >>> network = flow_network(Capacities(encoder=np.stack([layer, layer])))
        >>> set_shapley(network, network.outputs[0]).values
        array([0.75, 0.25])

    Source: Shapley 1953. The set game: ours; monotone and submodular as a minimum cut is (Megiddo 1974).
    """
    from jaxflow.solve import all_values, set_game

    groups = check_players(network, sink, players)
    game, joining = set_game(network, groups, sink)
    if len(joining) > MOST_PLAYERS:
        raise ValueError(
            f"{len(joining)} players reach the output; set_shapley tries every coalition of up to {MOST_PLAYERS}. Use "
            "sample_set_shapley, or join tokens to groups: players=[[0, 1], [2, 3, 4], ...]."
        )
    values = np.zeros(len(groups))
    values[joining] = _average(all_values(game)) * game.quantum
    return exact(values, "set")


def sample_set_shapley(
    network: FlowNetwork,
    sink: AnyInt,
    *,
    players: Players | None = None,
    precision: float = 1e-3,
    n_permutations: int = 10_000,
    seed: int = 0,
) -> ShapleyValues:
    """Take `v(S) = maxflow(S -> sink)`: Shapley values by sampled orders, with standard errors, for any number of players.

    In each order players join one after another and extend one flow. Orders are rows of random Latin squares, so that every
    player joins once at every place, and their reverses. Standard errors come from independent blocks of them, at least 16.
    Stops at the first of: `precision` is reached; `n_permutations` are used up, and then `is_reached` is False.

    Args:
        network: one example's network.
        sink: node of the output, such as `network.outputs[0]`.
        players: as in `set_shapley`.
        precision: largest standard error to stop at, in units of attention.
        n_permutations: largest number of orders, 32 or more.
        seed: of the orders; the same seed gives the same result, on any number of cores.

    Returns:
        `ShapleyValues`, in the order of `players`.

    Raises:
        ValueError: as `set_shapley`, but for the number of players; a precision or number of orders out of range.

    Source: Castro, Gomez & Tejada 2009 for sampled orders; Mitchell et al. 2022 (2104.12199) for reversed ones; McKay, Beckman
    & Conover 1979 for samples in Latin squares.
    """
    from jaxflow.solve import N_BLOCKS, sample, set_game

    if not precision >= 0:
        raise ValueError(f"precision is {precision}; expected a standard error, 0 or more.")
    if n_permutations < 2 * N_BLOCKS:
        raise ValueError(
            f"n_permutations is {n_permutations}; expected {2 * N_BLOCKS} or more, for a standard error to rest on."
        )
    groups = check_players(network, sink, players)
    game, joining = set_game(network, groups, sink)
    values, error = np.zeros((2, len(groups)))
    with progress_bar(n_permutations, "Shapley values", unit="order") as bar:
        values[joining], error[joining], used = sample(
            game, precision=precision, n_permutations=n_permutations, seed=seed, on_order=bar.update
        )
    return ShapleyValues(
        values=values,
        standard_error=error,
        total=float(values.sum()),
        n_permutations=used,
        precision=precision,
        game="set",
    )


def _average(values: Int[np.ndarray, " set"]) -> Float[np.ndarray, " player"]:
    """Weight what each player adds to each set by how likely that set comes before it."""
    n_players = len(values).bit_length() - 1
    sets = np.arange(len(values))
    size = np.bitwise_count(sets)
    weight = np.array([1 / (n_players * math.comb(n_players - 1, n)) for n in range(n_players)] + [0.0])
    shares = np.zeros(n_players)
    for player in range(n_players):
        without = sets[sets >> player & 1 == 0]
        shares[player] = (weight[size[without]] * (values[without | 1 << player] - values[without])).sum()
    return shares
