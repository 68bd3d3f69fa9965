"""FlowNetwork -> Graph: the arrays that the compiled search reads. Leaves JAX: NumPy and Numba, on the host.

An arc is a place in its sender's *window*, the receivers from the first to the last that it has an arc to, in order of
nodes: `window[sender] + receiver` is where its capacity stands. Nodes are numbered by stack, level and position, so windows of
attention have few holes, a layer's rows are read in one go, and "can it still carry?" of 64 arcs is one word.
"""

from __future__ import annotations

import mmap
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int, UInt

from jaxflow.network import FlowNetwork
from jaxflow.solve._bits import at
from jaxflow.solve._compiled import compiled
from jaxflow.solve._quantise import INT32_MAX, int32_quantum

# A node asks so many of its receivers first: those to which most of its rollout to the sink goes.
FAVOURITES = 2
# Turns of a search for residual paths for which there is room from the start.
TURNS = 16
# 2**PAGE places share a page, which takes memory only once some arc of it has carried flow.
PAGE = 4
ON_PAGE = 2**PAGE - 1


class Graph(NamedTuple):
    """A network in whole quanta, as the search reads it; shared by all threads.

    Attributes:
        window: `[node]`, `window[u] + v` is the place of arc u -> v.
        start: `[node]`, first receiver.
        stop: `[node]`, one more than the last receiver; `start` where there is none.
        row: `[node]`, `row[u] + v // 64` is the word that holds the bit of arc u -> v, in bits that are kept by sender.
        first: `[node]`, first sender.
        end: `[node]`, one more than the last sender; `first` where there is none.
        column: `[node]`, `column[v] + u // 64` is the word that holds the bit of arc u -> v, in bits kept by receiver.
        order: `[node]`, nodes in topological order, by the length of the longest path that leads to them.
        rank: `[node]`, each node's place in `order`.
        group: `[group + 1]`, where in `order` nodes of each such length begin; no arc joins nodes of a group.
        capacity: `[place]`, int32, 0 where there is no arc.
        open: `[word]`, by sender, bit v % 64 is set where arc u -> v can carry anything.
        entering: `[node]`, capacity of all arcs that enter.
        leaving: `[node]`, capacity of all arcs that leave.
    """

    window: Int[np.ndarray, " node"]
    start: Int[np.ndarray, " node"]
    stop: Int[np.ndarray, " node"]
    row: Int[np.ndarray, " node"]
    first: Int[np.ndarray, " node"]
    end: Int[np.ndarray, " node"]
    column: Int[np.ndarray, " node"]
    order: Int[np.ndarray, " node"]
    rank: Int[np.ndarray, " node"]
    group: Int[np.ndarray, " group+1"]
    capacity: Int[np.ndarray, " place"]
    open: UInt[np.ndarray, " word"]
    entering: Int[np.ndarray, " node"]
    leaving: Int[np.ndarray, " node"]


class Scratch(NamedTuple):
    """What one thread writes to: a flow to one sink, and what is known of that sink.

    Attributes:
        page: `[place >> PAGE]`, int32, the page that holds the flow of these places; 0, which stays empty, for none yet.
        flow: `[page << PAGE]`, int32, flow of each arc, page by page. Most arcs carry none, so most pages are never used.
        n_pages: `[1]`, how many pages are in use.
        open: `[word]`, by sender, bit of each arc that can carry more.
        sent: `[word]`, by sender, bit of each arc that carries flow.
        fed: `[word]`, by receiver, the same bits.
        near: `[node]`, int32, bound on what the node can send to the sink, at most INT32_MAX.
        share: `[node]`, float32, rollout from the sink, per capacity that enters the node.
        favourites: `[node, FAVOURITES]`, receivers, -1 where there are fewer.
        start: `[node]`, first receiver that can send anything to the sink.
        stop: `[node]`, one more than the last such receiver; `start` where there is none.
        room: `[node]`, int32, `near` less what enters the node.
        roomy: `[word]`, bit of each node with room.
        excess: `[node]`, what enters the node less what leaves it; 0 between searches.
        lacking: `[word]`, bit of each node with excess below 0.
        surplus: `[word]`, bit of each node with excess above 0, by rank.
        blocked: `[word]`, bit of each node that got what it could not send on.
        reach: `[word]`, bit of each node that may have a residual path to the sink, as far as was ever found out.
        reached: `[turn, word]`, bit of each node that was found to have one in that turn or before.
        turn: `[node]`, in which it was found.
        following: `[node]`, where its search for the next arc goes on.
        live: `[word]`, bit of each node that has not failed in this search.
        stack: `[depth, 4]`, node, what it was asked for, what it has still to send, whether it gives back.
        aimed: `[1]`, the sink that all of this is for; -1 for none yet.
    """

    page: Int[np.ndarray, " page"]
    flow: Int[np.ndarray, " entry"]
    n_pages: Int[np.ndarray, " 1"]
    open: UInt[np.ndarray, " word"]
    sent: UInt[np.ndarray, " word"]
    fed: UInt[np.ndarray, " word"]
    near: Int[np.ndarray, " node"]
    share: Float[np.ndarray, " node"]
    favourites: Int[np.ndarray, " node favourite"]
    start: Int[np.ndarray, " node"]
    stop: Int[np.ndarray, " node"]
    room: Int[np.ndarray, " node"]
    roomy: UInt[np.ndarray, " word"]
    excess: Int[np.ndarray, " node"]
    lacking: UInt[np.ndarray, " word"]
    surplus: UInt[np.ndarray, " word"]
    blocked: UInt[np.ndarray, " word"]
    reach: UInt[np.ndarray, " word"]
    reached: UInt[np.ndarray, " turn word"]
    turn: Int[np.ndarray, " node"]
    following: Int[np.ndarray, " node"]
    live: UInt[np.ndarray, " word"]
    stack: Int[np.ndarray, " depth 4"]
    aimed: Int[np.ndarray, " 1"]


def new_scratch(graph: Graph) -> Scratch:
    """Make the scratch of one thread, without flow: 5/8 bytes for each place of the graph, and 64 for each page of flow."""
    n_nodes = len(graph.window)
    words = -(-n_nodes // 64)
    n_pages = -(-len(graph.capacity) >> PAGE)
    return Scratch(
        page=np.zeros(n_pages, np.int32),
        flow=_untouched((n_pages + 1) << PAGE),
        n_pages=np.zeros(1, np.int64),
        open=graph.open.copy(),
        sent=np.zeros_like(graph.open),
        fed=np.zeros(_words(graph.first, graph.end).sum(), np.uint64),
        near=np.zeros(n_nodes, np.int32),
        share=np.zeros(n_nodes, np.float32),
        favourites=np.full((n_nodes, FAVOURITES), -1, np.int32),
        start=np.zeros(n_nodes, np.int64),
        stop=np.zeros(n_nodes, np.int64),
        room=np.zeros(n_nodes, np.int32),
        roomy=np.zeros(words, np.uint64),
        excess=np.zeros(n_nodes, np.int64),
        lacking=np.zeros(words, np.uint64),
        surplus=np.zeros(words, np.uint64),
        blocked=np.zeros(words, np.uint64),
        reach=np.zeros(words, np.uint64),
        reached=np.zeros((TURNS, words), np.uint64),
        turn=np.zeros(n_nodes, np.int32),
        following=np.zeros(n_nodes, np.int64),
        live=np.zeros(words, np.uint64),
        stack=np.zeros((n_nodes + 1, 4), np.int64),
        aimed=np.full(1, -1, np.int64),
    )


def build_graph(
    network: FlowNetwork, sources: Int[np.ndarray, " pair"], sinks: Int[np.ndarray, " pair"]
) -> tuple[Graph, Int[np.ndarray, " node"], float]:
    """Round capacities to int32 quanta and lay the arcs out in windows. O(arcs).

    Quanta are those of `quantise_to_int32`; sums are int64.

    Args:
        network: one example's, checked by `quantise` or built by jaxflow.
        sources: of the pairs to be solved; they only set the quantum.
        sinks: likewise.

    Returns:
        The graph, `[node]` its number for each of the network's nodes, and the quantum.
    """
    senders, receivers = np.asarray(network.senders), np.asarray(network.receivers)
    capacity = np.asarray(network.capacity).view()
    capacity.flags.writeable = False  # as JAX's are: else Numba compiles everything twice
    n_nodes = network.n_nodes
    quantum = int32_quantum(network, sources, sinks)
    order = np.lexsort([np.asarray(key) for key in (network.position, network.level, network.stack)])
    number = np.empty(n_nodes, np.int64)
    number[order] = np.arange(n_nodes)
    start, stop = _windows(senders, receivers, capacity, number, quantum)
    width = stop - start
    words = _words(start, stop)
    window, row = _offsets(width) - start, _offsets(words) - (start >> 6)
    graph = Graph(
        window=window,
        start=start,
        stop=stop,
        row=row,
        first=np.full(n_nodes, n_nodes),
        end=np.zeros(n_nodes, np.int64),
        column=np.zeros(n_nodes, np.int64),
        order=number,
        rank=number,
        group=np.zeros(0, np.int64),
        capacity=np.zeros(width.sum(), np.int32),
        open=np.zeros(words.sum(), np.uint64),
        entering=np.zeros(n_nodes, np.int64),
        leaving=np.zeros(n_nodes, np.int64),
    )
    depth = _fill(senders, receivers, capacity, quantum, graph)
    by_depth = np.argsort(depth, kind="stable")
    group = np.flatnonzero(np.diff(depth[by_depth], prepend=-1, append=n_nodes))
    column = _offsets(_words(graph.first, graph.end)) - (graph.first >> 6)
    rank = np.argsort(by_depth)
    return graph._replace(column=column, order=by_depth, rank=rank, group=group), number, quantum


def _untouched(size: int) -> Int[np.ndarray, " entry"]:
    """Make zeros that take memory only where something is written to them, which an allocator does not promise."""
    return np.frombuffer(mmap.mmap(-1, 4 * size), np.int32)


def _offsets(counts: Int[np.ndarray, " node"]) -> Int[np.ndarray, " node"]:
    return np.cumsum(counts) - counts


def _words(start: Int[np.ndarray, " node"], stop: Int[np.ndarray, " node"]) -> Int[np.ndarray, " node"]:
    """Count the words that hold the bits from `start` to `stop`."""
    return np.where(stop > start, ((stop + 63) >> 6) - (start >> 6), 0)


@compiled
def _windows(senders: Any, receivers: Any, capacity: Any, number: Any, quantum: float) -> Any:
    start, stop = np.full(number.size, number.size), np.zeros(number.size, np.int64)
    for arc in range(capacity.size):
        if np.rint(np.float64(capacity[at(arc)]) / quantum) > 0:
            sender, receiver = number[at(senders[at(arc)])], number[at(receivers[at(arc)])]
            start[at(sender)] = min(start[at(sender)], receiver)
            stop[at(sender)] = max(stop[at(sender)], receiver + 1)
    for node in range(number.size):
        if stop[at(node)] == 0:
            start[at(node)] = 0
    return start, stop


@compiled
def _fill(senders: Any, receivers: Any, capacity: Any, quantum: float, graph: Any) -> Any:
    """Write capacities, their sums, open bits and windows of senders; return the length of the longest path to each node."""
    number, window, row, places, words = graph.order, graph.window, graph.row, graph.capacity, graph.open
    leaving, entering, first, end = graph.leaving, graph.entering, graph.first, graph.end
    start, stop = graph.start, graph.stop
    for arc in range(capacity.size):
        quanta = np.rint(np.float64(capacity[at(arc)]) / quantum)
        if quanta > 0:
            sender, receiver = number[at(senders[at(arc)])], number[at(receivers[at(arc)])]
            place = window[at(sender)] + receiver
            # Arcs side by side add up; what is cut off can carry no flow, since none is as large.
            places[at(place)] = np.int64(min(quanta + places[at(place)], np.float64(INT32_MAX)))
            words[at(row[at(sender)] + (receiver >> 6))] |= np.uint64(1) << np.uint64(receiver & 63)
    depth = np.zeros(number.size, np.int64)
    for node in range(number.size):  # the network's numbers are in topological order
        sender = number[at(node)]
        for receiver in range(start[at(sender)], stop[at(sender)]):
            quanta = places[at(window[at(sender)] + receiver)]
            if quanta > 0:
                leaving[at(sender)] += quanta
                entering[at(receiver)] += quanta
                first[at(receiver)] = min(first[at(receiver)], sender)
                end[at(receiver)] = max(end[at(receiver)], sender + 1)
                depth[at(receiver)] = max(depth[at(receiver)], depth[at(sender)] + 1)
    for node in range(number.size):
        if end[at(node)] == 0:
            first[at(node)] = 0
    return depth
