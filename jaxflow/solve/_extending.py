"""Compiled: one flow that is extended source by source, for values of sets of sources and for cuts. Leaves JAX: Numba.

Extending is enough, nothing has to be solved anew: `maxflow(S + i) = maxflow(S) + what i can still send over residual
arcs`. While i sends, flow changes among nodes with a residual path to the sink alone; so who has none will never have one
again, the sources that sent before among them. Hence no common source is needed, no flow is led back into an
earlier source, and most of the late sources are done without a look.

Import this module only when it runs: importing Numba takes longer than all the rest.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Int

from jaxflow.solve._augmenting import find_reach, push_around
from jaxflow.solve._bits import Whole, bit
from jaxflow.solve._compiled import compiled
from jaxflow.solve._search import aim, clear
from jaxflow.solve._windows import Graph, Scratch, new_scratch

# As many looks at arcs as it takes: there is no other solver to leave a flow to that is under way.
PATIENCE = 2**62
# For the value of all players, before it is known.
UNKNOWN = 2**62


def aimed_scratch(graph: Graph, sink: int) -> Scratch:
    """Make the scratch of one thread, with all that depends on the sink."""
    scratch = new_scratch(graph)
    aim(graph, scratch, sink)
    return scratch


@compiled
def walk_orders(
    graph: Graph,
    scratch: Scratch,
    sink: Whole,
    nodes: Int[np.ndarray, " member"],
    starts: Int[np.ndarray, " player+1"],
    whole: Whole,
    orders: Int[np.ndarray, "order player"],
    gains: Int[np.ndarray, "order player"],
    halt: Int[np.ndarray, " 1"],
    done: Int[np.ndarray, " counter"],
) -> None:
    """Let players join in each order; write what each adds to the flow.

    Args:
        graph: shared.
        scratch: this thread's, aimed at the sink.
        sink: number of its node, in the order of `graph`.
        nodes: the players' nodes, player by player, likewise.
        starts: `nodes[starts[i] : starts[i + 1]]` are player i.
        whole: value of all players together; an order ends where it is reached, for no more can come.
        orders: players in the order in which they join.
        gains: written, in quanta; expected to be 0.
        halt: not 0 to stop after the order under way.
        done: `done[0]` counts orders.
    """
    for i in range(orders.shape[0]):
        if halt[0] != 0:
            return
        value: Whole = np.int64(0)
        for j in range(orders.shape[1]):
            player = orders[i, j]
            before = value
            for k in range(starts[player], starts[player + 1]):
                value += _extend(graph, scratch, nodes[k], sink, whole - value)
            gains[i, player] = value - before
            if value == whole:
                break
        clear(graph, scratch)
        done[0] += 1


@compiled
def fill_table(
    graph: Graph,
    scratch: Scratch,
    sink: Whole,
    nodes: Int[np.ndarray, " member"],
    starts: Int[np.ndarray, " player+1"],
    whole: Whole,
    values: Int[np.ndarray, " set"],
    halt: Int[np.ndarray, " 1"],
) -> None:
    """Find the value of every set of players, each as an extension of the flow of the set without its last player.

    Arguments as in `walk_orders`; `values[set]` is written, bit i of `set` standing for player i.
    """
    n_players = starts.size - 1
    page, flow, n_pages = scratch.page, scratch.flow, scratch.n_pages
    is_open, sent, fed, reach = scratch.open, scratch.sent, scratch.fed, scratch.reach
    kept_page = np.empty((n_players, page.size), page.dtype)
    kept_flow = np.empty((n_players, flow.size), flow.dtype)
    kept_n_pages = np.empty((n_players, 1), n_pages.dtype)
    kept_open = np.empty((n_players, is_open.size), is_open.dtype)
    kept_sent = np.empty((n_players, sent.size), sent.dtype)
    kept_fed = np.empty((n_players, fed.size), fed.dtype)
    kept_reach = np.empty((n_players, reach.size), reach.dtype)
    members = np.zeros(n_players, np.int64)
    following = np.zeros(n_players, np.int64)
    values[0] = 0
    depth = 0
    kept_page[0], kept_flow[0], kept_n_pages[0] = page, flow, n_pages
    kept_open[0], kept_sent[0], kept_fed[0], kept_reach[0] = is_open, sent, fed, reach
    while depth >= 0 and halt[0] == 0:
        player = following[depth]
        following[depth] += 1
        if player == n_players:
            depth -= 1
            continue
        page[:], flow[:], n_pages[:] = kept_page[depth], kept_flow[depth], kept_n_pages[depth]
        is_open[:], sent[:], fed[:], reach[:] = kept_open[depth], kept_sent[depth], kept_fed[depth], kept_reach[depth]
        joined = members[depth] | 1 << player
        value: Whole = values[members[depth]]
        for k in range(starts[player], starts[player + 1]):
            value += _extend(graph, scratch, nodes[k], sink, whole - value)
        values[joined] = value
        if value == whole:  # and so has every larger set
            for others in range(1, 1 << n_players - player - 1):
                values[joined | others << player + 1] = whole
        elif player + 1 < n_players:
            depth += 1
            kept_page[depth], kept_flow[depth], kept_n_pages[depth] = page, flow, n_pages
            kept_open[depth], kept_sent[depth], kept_fed[depth], kept_reach[depth] = is_open, sent, fed, reach
            members[depth], following[depth] = joined, player + 1


@compiled
def find_sides(
    graph: Graph,
    scratch: Scratch,
    sources: Int[np.ndarray, " pair"],
    sink: Whole,
    of_source: bool,
    where: Int[np.ndarray, " pair"],
    values: Int[np.ndarray, " result"],
    sides: Bool[np.ndarray, "result node"],
    halt: Int[np.ndarray, " 1"],
    done: Int[np.ndarray, " counter"],
) -> None:
    """Find the maximum flow of each source alone, and the source's side of its minimum cut nearest to one end.

    Args:
        graph: shared.
        scratch: this thread's, aimed at the sink.
        sources: numbers of their nodes, in the order of `graph`.
        sink: likewise.
        of_source: whether the cut nearest the source is wanted, or the one nearest the sink.
        where: place of each pair among the results.
        values: written, in quanta.
        sides: written, expected to be False.
        halt: not 0 to stop after the pair under way.
        done: `done[0]` counts pairs.
    """
    reach = scratch.reach
    for i in range(sources.size):
        if halt[0] != 0:
            return
        values[where[i]] = _extend(graph, scratch, sources[i], sink, np.int64(UNKNOWN))
        side = sides[where[i]]
        if of_source:
            _reach_from(graph, scratch, sources[i], side)
        else:
            find_reach(graph, scratch, sources[i], sink)
            for node in range(side.size):
                side[node] = not reach[node >> 6] & bit(node)
        clear(graph, scratch)
        done[0] += 1


@compiled
def _reach_from(graph: Graph, scratch: Scratch, source: Whole, side: Bool[np.ndarray, " node"]) -> None:
    """Mark all nodes to which a residual path leads from `source`."""
    start, stop, row = graph.start, graph.stop, graph.row
    first, end, column = graph.first, graph.end, graph.column
    is_open, fed, stack = scratch.open, scratch.fed, scratch.stack
    side[source] = True
    stack[0, 0] = source
    depth = 1
    while depth > 0:
        depth -= 1
        node = stack[depth, 0]
        for other in range(start[node], stop[node]):
            if not side[other] and is_open[row[node] + (other >> 6)] & bit(other):
                side[other] = True
                stack[depth, 0] = other
                depth += 1
        for other in range(first[node], end[node]):
            if not side[other] and fed[column[node] + (other >> 6)] & bit(other):
                side[other] = True
                stack[depth, 0] = other
                depth += 1


@compiled
def _extend(graph: Graph, scratch: Scratch, source: Whole, sink: Whole, most: Whole) -> Whole:
    """Push all that `source` can send on top of the flow there is, and return it.

    `most` is what all sources together could add. `reach` holds the nodes that may have a residual path to the sink, before
    and after: all that have one, and where the source was left with something, no others.
    """
    reach = scratch.reach
    amount: Whole = min(most, np.int64(scratch.near[source]))
    left: Whole = amount
    while left > 0 and reach[source >> 6] & bit(source):
        reached = find_reach(graph, scratch, source, sink)
        if reach[source >> 6] & bit(source):
            left, _ = push_around(graph, scratch, reached, source, sink, left, np.int64(PATIENCE))
    return amount - left
