"""The set game on one network, `v(S) = maxflow(S -> sink)`, in whole quanta. Leaves JAX: Numba, on the host, in threads."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from jaxflow.network import FlowNetwork
from jaxflow.solve._certified import n_cores, run_in_threads
from jaxflow.solve._super_nodes import add_super_nodes

if TYPE_CHECKING:
    from jaxflow.solve._kernel import Graph, Scratch

# Blocks of orders that a standard error rests on, at least: 95 % lie within 2.13 of it then, instead of 1.96.
N_BLOCKS = 16
# Rows of the Latin squares that are tried first: whole ones vary far less, but of many players cost a lot.
FEW_ROWS = 16


class SetGame(NamedTuple):
    """A set game, as compiled code plays it.

    Attributes:
        graph: the network, with a node more that sends to all players (it sets the quantum).
        sink: number of its node in the graph.
        nodes: `[member]`, the players' nodes in the graph, player by player.
        starts: `[player + 1]`, where in `nodes` each player begins, and the last one ends.
        whole: value of all players together, in quanta.
        quantum: the unit that capacities were rounded to.
    """

    graph: Graph
    sink: int
    nodes: Int[np.ndarray, " member"]
    starts: Int[np.ndarray, " player+1"]
    whole: int
    quantum: float


def set_game(
    network: FlowNetwork, groups: list[Int[np.ndarray, " member"]], sink: int
) -> tuple[SetGame, Int[np.ndarray, " player"]]:
    """Prepare the game of groups of nodes, and find what all of them send. O(arcs), and a flow.

    Returns:
        The game of those groups that can send anything to the sink, and which these are. The others add nothing to any set.
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
    """Find the value of every set of players; bit i of the index says whether player i is in.

    Cost: one extension of a flow for each set that has not reached the value of all players: at most 2^players.
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
    """Estimate Shapley values by orders in which players join; return them, their standard errors and the number of orders.

    Orders come in blocks, of which each is an unbiased estimate and independent of the others: the rows of a random Latin
    square, so that every player joins once at every place, and the same rows read backwards. Few rows of 16 squares are
    tried first; if they are not precise enough, whole squares follow, 16 at a time, instead of them.

    Args:
        game: what is played.
        precision: largest standard error to stop at, in units of attention.
        n_permutations: largest number of orders, at least 2 * `N_BLOCKS`.
        seed: of the orders. The result depends on nothing else, however many threads there are.
        n_threads: one for each core that this process may use if None.
        on_order: called in the caller's thread after each order, for progress.
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
    """Draw rows of a Latin square, as far apart as can be: orders of the players, each at another place in each.

    Row s has player `name[(s + step[j]) % n]` at place j. Rotations of one order would do (`step[j] = j`), but there the same
    players would always come just before another: where one can stand in for the other, estimates vary several times as
    much.
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
    """Average what each player adds, over each block of orders."""
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
