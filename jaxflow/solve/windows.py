"""FlowNetwork -> Graph: the arrays that the compiled search reads. Leaves JAX: NumPy and Numba, on the host.

An arc is a place in its sender's *window*, the receivers from the first to the last that it has an arc to, in order of
nodes: `window[sender] + receiver` is where its capacity stands. Nodes are numbered by stack, level and position, so windows of
attention have few holes, a layer's rows are read in one go, and "can it still carry?" of 64 arcs is one word.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int, UInt

from jaxflow.network import FlowNetwork
from jaxflow.solve.compiled import compiled
from jaxflow.solve.quantise import INT32_MAX, int32_quantum

# Whole numbers in compiled code: int and NumPy's are one there.
Whole = Any
# A node asks so many of its receivers first: those to which most of its rollout to the sink goes.
FAVOURITES = 2


class Graph(NamedTuple):
    """A network in whole quanta, as the search reads it; shared by all threads.

    Attributes:
        window: `[node]`, `window[u] + v` is the place of arc u -> v.
        start: `[node]`, first receiver.
        stop: `[node]`, one more than the last receiver; `start` where there is none.
        row: `[node]`, `row[u] + v // 64` is the word of `open` that holds the bit of arc u -> v.
        order: `[node]`, nodes in topological order.
        capacity: `[place]`, int32, 0 where there is no arc.
        open: `[word]`, bit v % 64 is set where arc u -> v can carry more.
        entering: `[node]`, capacity of all arcs that enter.
        leaving: `[node]`, capacity of all arcs that leave.
    """

    window: Int[np.ndarray, " node"]
    start: Int[np.ndarray, " node"]
    stop: Int[np.ndarray, " node"]
    row: Int[np.ndarray, " node"]
    order: Int[np.ndarray, " node"]
    capacity: Int[np.ndarray, " place"]
    open: UInt[np.ndarray, " word"]
    entering: Int[np.ndarray, " node"]
    leaving: Int[np.ndarray, " node"]


class Scratch(NamedTuple):
    """What one thread writes to. Between pairs all of it is as it was: the log of touched arcs undoes a flow.

    Attributes:
        rest: `[place]`, capacity not yet used.
        open: `[word]`, as in `Graph`, for `rest`.
        into: `[node]`, last entry of the log whose arc enters the node; -1 for none.
        log: `[entry, 4]`, place, sender, receiver, and the entry before it that enters the same node (-1 for none).
        near: `[node]`, int32, bound on what the node can send to the sink, at most INT32_MAX.
        share: `[node]`, float32, rollout from the sink, per capacity that enters the node.
        favourites: `[node, FAVOURITES]`, receivers, -1 where there are fewer.
        able: `[word]`, bit of each node that may send something to the sink.
        live: `[word]`, the same, less those that proved unable in this search.
        soft: `[node]`, int32, as `near`, over favourites alone: what a node sends with no detour.
        room: `[node]`, int32, `near` less what the node was given.
        spare: `[node]`, int32, `soft` less what the node was given; may be below 0.
        excess: `[node]`, what the node was given and has not sent; 0 between searches.
        reach: `[word]`, bit of each node with a residual path to the sink.
        rank: `[node]`, how many nodes were found to reach the sink before this one.
        stack: `[depth, 4]`, node, what it was asked for, what it has still to send, log entry of a backward arc or -1.
        aimed: `[1]`, the sink that all of this is for; -1 for none yet.
    """

    rest: Int[np.ndarray, " place"]
    open: UInt[np.ndarray, " word"]
    into: Int[np.ndarray, " node"]
    log: Int[np.ndarray, " entry 4"]
    near: Int[np.ndarray, " node"]
    share: Float[np.ndarray, " node"]
    favourites: Int[np.ndarray, " node favourite"]
    able: UInt[np.ndarray, " word"]
    live: UInt[np.ndarray, " word"]
    soft: Int[np.ndarray, " node"]
    room: Int[np.ndarray, " node"]
    spare: Int[np.ndarray, " node"]
    excess: Int[np.ndarray, " node"]
    reach: UInt[np.ndarray, " word"]
    rank: Int[np.ndarray, " node"]
    stack: Int[np.ndarray, " depth 4"]
    aimed: Int[np.ndarray, " 1"]


def new_scratch(graph: Graph) -> Scratch:
    """Make the scratch of one thread: about as large as the graph; the log takes memory only as it is written."""
    n_nodes, n_places = len(graph.window), len(graph.capacity)
    words = -(-n_nodes // 64)
    return Scratch(
        rest=graph.capacity.copy(),
        open=graph.open.copy(),
        into=np.full(n_nodes, -1, np.int32),
        log=np.empty((n_places + n_nodes + 64, 4), np.int32),
        near=np.zeros(n_nodes, np.int32),
        share=np.zeros(n_nodes, np.float32),
        favourites=np.full((n_nodes, FAVOURITES), -1, np.int32),
        able=np.zeros(words, np.uint64),
        live=np.zeros(words, np.uint64),
        soft=np.zeros(n_nodes, np.int32),
        room=np.zeros(n_nodes, np.int32),
        spare=np.zeros(n_nodes, np.int32),
        excess=np.zeros(n_nodes, np.int64),
        reach=np.zeros(words, np.uint64),
        rank=np.zeros(n_nodes, np.int32),
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
    words = np.where(width, ((stop + 63) >> 6) - (start >> 6), 0)
    window, row = _offsets(width) - start, _offsets(words) - (start >> 6)
    graph = Graph(
        window=window,
        start=start,
        stop=stop,
        row=row,
        order=number,
        capacity=np.zeros(width.sum(), np.int32),
        open=np.zeros(words.sum(), np.uint64),
        entering=np.zeros(n_nodes, np.int64),
        leaving=np.zeros(n_nodes, np.int64),
    )
    _fill(senders, receivers, capacity, quantum, graph)
    return graph, number, quantum


def _offsets(counts: Int[np.ndarray, " node"]) -> Int[np.ndarray, " node"]:
    return np.cumsum(counts) - counts


@compiled
def _windows(senders: Any, receivers: Any, capacity: Any, number: Any, quantum: float) -> Any:
    start, stop = np.full(number.size, number.size), np.zeros(number.size, np.int64)
    for arc in range(capacity.size):
        if np.rint(np.float64(capacity[arc]) / quantum) > 0:
            sender, receiver = number[senders[arc]], number[receivers[arc]]
            start[sender] = min(start[sender], receiver)
            stop[sender] = max(stop[sender], receiver + 1)
    for node in range(number.size):
        if stop[node] == 0:
            start[node] = 0
    return start, stop


@compiled
def _fill(senders: Any, receivers: Any, capacity: Any, quantum: float, graph: Any) -> None:
    number, window, row, places, words = graph.order, graph.window, graph.row, graph.capacity, graph.open
    leaving, entering = graph.leaving, graph.entering
    for arc in range(capacity.size):
        quanta = np.rint(np.float64(capacity[arc]) / quantum)
        if quanta > 0:
            sender, receiver = number[senders[arc]], number[receivers[arc]]
            place = window[sender] + receiver
            # Arcs side by side add up; what is cut off can carry no flow, since none is as large.
            places[place] = np.int64(min(quanta + places[place], np.float64(INT32_MAX)))
            words[row[sender] + (receiver >> 6)] |= np.uint64(1) << np.uint64(receiver & 63)
    for sender in range(window.size):
        for receiver in range(graph.start[sender], graph.stop[sender]):
            leaving[sender] += places[window[sender] + receiver]
            entering[receiver] += places[window[sender] + receiver]
