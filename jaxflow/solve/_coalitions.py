"""The set game on one network, `v(S) = maxflow(S -> sink)`, in whole quanta. Leaves JAX: Numba, on the host, in threads."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from jaxflow._attention import AnyInt
from jaxflow.network import FlowNetwork
from jaxflow.solve._certified import n_cores, run_in_threads
from jaxflow.solve._super_nodes import add_super_nodes

if TYPE_CHECKING:
    from jaxflow.solve._kernel import Graph, Scratch

# A standard error comes from at least so many blocks of orders: 95 % of values then lie within 2.13 of it, instead of 1.96.
N_BLOCKS = 16
# Rows of the Latin squares that are tried first: whole squares vary far less, but cost a lot with many players.
FEW_ROWS = 16


class SetGame(NamedTuple):
    """A set game, laid out for compiled code.

    Attributes:
        graph: the network with a super source of all players, which sets the quantum.
        sink: number of the sink's node in the graph.
        nodes: `[member]`, numbers of the players' nodes, player by player.
        starts: `[player + 1]`, player i has `nodes[starts[i] : starts[i + 1]]`.
        whole: value of all players together, in quanta.
        quantum: unit that capacities were rounded to, in units of attention.
    """

    graph: Graph
    sink: int
    nodes: Int[np.ndarray, " member"]
    starts: Int[np.ndarray, " player+1"]
    whole: int
    quantum: float


def set_game(
    network: FlowNetwork, groups: list[Int[np.ndarray, " _member"]], sink: AnyInt
) -> tuple[SetGame, Int[np.ndarray, " player"]]:
    """Prepare the game of players that are groups of nodes, and find the value of all together. O(arcs), and one flow.

    Args:
        network: one example's network, checked.
        groups: `[member]` each, the nodes of each player.
        sink: node, none of the players'.

    Returns:
        The game of the players that can send anything to the sink, and `[player]`, which of the groups these are. The others
        add nothing to any set.
    """
    from jaxflow.solve import _kernel as kernel  # importing Numba takes longer than all the rest of jaxflow

    graph, number, quantum = kernel.build_graph(
        add_super_nodes(network, np.concatenate(groups), np.zeros(0, np.int64)),
        np.zeros(1, np.int64),
        np.array([sink + 1]),
    )
    end = int(number[sink + 1])
    near = kernel.aimed_scratch(graph, end).near
    joining = np.array([player for player, group in enumerate(groups) if near[number[group + 1]].any()], np.int64)
    nodes = [number[groups[player] + 1] for player in joining]
    starts = np.cumsum([0, *map(len, nodes)])
    game = SetGame(graph, end, np.concatenate([*nodes, np.zeros(0, np.int64)]), starts, kernel.UNKNOWN, quantum)
    order = np.arange(len(nodes))[None]
    gains = np.zeros(order.shape, np.int64)
    _walk(game, _scratch(game), order, gains, np.zeros(1, np.int64), np.zeros(1, np.int64))
    return game._replace(whole=int(gains.sum())), joining


def all_values(game: SetGame) -> Int[np.ndarray, " set"]:
    """Find the value of every set of players.

    Cost: at most 2^players extensions of a flow, one for each set whose value is below that of all players.

    Returns:
        `[set]`, int64, quanta; bit i of the index is set where player i belongs to the set.
    """
    from jaxflow.solve import _kernel as kernel

    values = np.zeros(2 ** (len(game.starts) - 1), np.int64)

    def work(_: int) -> None:
        kernel.fill_table(game.graph, _scratch(game), game.sink, game.nodes, game.starts, game.whole, values, halt)

    halt = np.zeros(1, np.int64)
    if len(values) > 1:
        run_in_threads(work, 1, halt, np.zeros((1, 8), np.int64), None, None)
    return values


def sample(
    game: SetGame,
    *,
    precision: float,
    n_permutations: int,
    seed: int,
    n_threads: int | None = None,
    on_order: Callable[[], object] | None = None,
) -> tuple[Float[np.ndarray, " player"], Float[np.ndarray, " player"], int]:
    """Estimate Shapley values from orders in which players join.

    Orders come in blocks. Each block is an unbiased estimate, independent of the others: the rows of a random Latin square, so
    that every player joins once at every place, and the same rows reversed. A few rows of 16 squares are tried first; if they
    are not precise enough, they are replaced by whole squares, 16 at a time.

    Args:
        game: what `set_game` prepared.
        precision: stop when the largest standard error is no larger, in units of attention.
        n_permutations: largest number of orders, at least 2 * `N_BLOCKS`.
        seed: of the orders. The number of threads does not change the result.
        n_threads: number of threads; None for one per core that this process may use.
        on_order: called in the caller's thread after each order, for progress.

    Returns:
        `[player]`, values, and `[player]`, their standard errors, both in units of attention; and the number of orders.
    """
    n_players = len(game.starts) - 1
    if n_players == 0:
        return np.zeros(0), np.zeros(0), 0
    n_rows = min(n_players, n_permutations // (2 * N_BLOCKS))
    blocks, left = itertools.count(), n_permutations

    def play(n_rows: int) -> Float[np.ndarray, "block player"]:
        return _play(game, [next(blocks) for _ in range(N_BLOCKS)], n_rows, seed, n_threads, on_order)

    if n_rows > 2 * FEW_ROWS:
        means = play(FEW_ROWS)
        left -= 2 * FEW_ROWS * N_BLOCKS
        if _standard_error(means).max() <= precision:
            return means.mean(0), _standard_error(means), n_permutations - left
        n_rows = min(n_players, left // (2 * N_BLOCKS))
    means = np.zeros((0, n_players))
    while left >= 2 * n_rows * N_BLOCKS:
        means = np.concatenate([means, play(n_rows)])
        left -= 2 * n_rows * N_BLOCKS
        if _standard_error(means).max() <= precision:
            break
    return means.mean(0), _standard_error(means), 2 * n_rows * len(means)


def latin_square(rng: np.random.Generator, n_players: int, n_rows: int) -> Int[np.ndarray, "row player"]:
    """Draw rows of a random Latin square, evenly spaced: orders in which no player has the same place twice.

    Row s has player `name[(s + step[j]) % n]` at place j. Rotations of one order (`step[j] = j`) would be a Latin square too,
    but a player would always follow the same other player: where one can replace the other, estimates vary several times as
    much.

    Returns:
        `[row, player]`.
    """
    name, step = rng.permutation(n_players), rng.permutation(n_players)
    return name[(np.arange(n_rows)[:, None] * n_players // n_rows + step) % n_players]


def _play(
    game: SetGame,
    blocks: list[int],
    n_rows: int,
    seed: int,
    n_threads: int | None,
    on_order: Callable[[], object] | None,
) -> Float[np.ndarray, "block player"]:
    """Average over each block of orders what each player adds."""
    n_players = len(game.starts) - 1
    n_threads = min(n_threads or n_cores(), len(blocks))
    means = np.zeros((len(blocks), n_players))
    halt, done = np.zeros(1, np.int64), np.zeros((n_threads, 8), np.int64)
    places = iter(range(len(blocks)))  # next() on it is atomic

    def work(thread: int) -> None:
        scratch = _scratch(game)
        for place in places:
            square = latin_square(np.random.default_rng([seed, blocks[place]]), n_players, n_rows)
            orders = np.concatenate([square, square[:, ::-1]])
            gains = np.zeros(orders.shape, np.int64)
            _walk(game, scratch, orders, gains, halt, done[thread])
            if halt[0]:
                return
            means[place] = gains.mean(0) * game.quantum

    run_in_threads(work, n_threads, halt, done, None, on_order)
    return means


def _standard_error(means: Float[np.ndarray, "block player"]) -> Float[np.ndarray, " player"]:
    return means.std(0, ddof=1) / np.sqrt(len(means))


def _walk(
    game: SetGame,
    scratch: Scratch,
    orders: Int[np.ndarray, "order player"],
    gains: Int[np.ndarray, "order player"],
    halt: Int[np.ndarray, " 1"],
    done: Int[np.ndarray, " counter"],
) -> None:
    from jaxflow.solve import _kernel as kernel

    kernel.walk_orders(game.graph, scratch, game.sink, game.nodes, game.starts, game.whole, orders, gains, halt, done)


def _scratch(game: SetGame) -> Scratch:
    from jaxflow.solve import _kernel as kernel

    return kernel.aimed_scratch(game.graph, game.sink)
