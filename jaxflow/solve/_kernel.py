"""The compiled kernel: maximum flows in whole quanta. Leaves JAX: Numba, on the host, without the GIL.

All compiled code stands in this one file, the only one of the package with more than 300 lines. Numba keeps compiled code
until the file of the compiled function changes; functions, types and constants of other files are compiled in unseen. In one
file an edit of any of them is always noticed. So compiled functions use nothing that another file of jaxflow defines.

Sections:
    Compilation: the decorator.
    Bits: sets of nodes as bits of 64-bit words.
    Graph layout: `FlowNetwork` -> `Graph`, and `Scratch`, what one thread writes to.
    Wave: turns the flow of one source into that of another, in one pass over the network.
    Residual search: which nodes have a residual path to the sink; pushing flow along such paths.
    Many pairs: `solve_block`, which solves pairs one after another; `solve_networks`, which does so in one network after another.
    Incremental flows: one flow extended source by source, for values of sets of sources and for cuts.

Import this module only where it runs: importing Numba takes longer than importing all the rest of jaxflow.
"""

from __future__ import annotations

import contextlib
import math
import mmap
from collections.abc import Callable
from typing import Any, NamedTuple

import numba
import numpy as np
from jaxtyping import Bool, Float, Int, UInt
from llvmlite import ir
from numba import extending

from jaxflow.network import FlowNetwork
from jaxflow.solve import _flows as flows
from jaxflow.solve import _quantise
from jaxflow.solve._kept_code import KeptCode

INT32_MAX = np.iinfo(np.int32).max
# The stages of `_flows`, and constants of `_quantise`. Written out, since a constant of another file would be compiled in unseen.
SEARCHED, RESIDUAL, ORTOOLS, UNFINISHED = 0, 1, 2, 3
if (SEARCHED, RESIDUAL, ORTOOLS, UNFINISHED) != (flows.SEARCHED, flows.RESIDUAL, flows.ORTOOLS, flows.UNFINISHED):
    raise ImportError("The stages of _kernel.py are not those of _flows.py; expected the same numbers in both files.")
MOST_QUANTA, PART, SMALLEST = 1.9 * 2**30, 4096, -1022
if (MOST_QUANTA, PART, SMALLEST) != (_quantise.MOST_QUANTA, _quantise.PART, _quantise.SMALLEST):
    raise ImportError(
        "MOST_QUANTA, PART and SMALLEST of _kernel.py are not those of _quantise.py; expected the same numbers."
    )


# Compilation
# ===========


def compiled(function: Callable[..., Any]) -> Any:
    """Compile a function at its first call, and keep the compiled code for the next process.

    Numba writes it to `__pycache__` beside the source file, to the user's cache directory, or to `NUMBA_CACHE_DIR`. Where it
    can write to none of them (a read-only container) it raises when the function is defined; then each process compiles anew.
    So does each process where what was kept is damaged, with a warning that names the folder.

    Args:
        function: of NumPy arrays, numbers and named tuples of them.

    Returns:
        Numba's dispatcher. Division by 0 gives inf or nan, as NumPy's does.
    """
    dispatcher: Any = numba.njit(nogil=True, error_model="numpy")(function)
    with contextlib.suppress(RuntimeError):
        dispatcher._cache = KeptCode(function)  # what cache=True does, with another cache
    return dispatcher


# Bits and indices
# ================

# Whole numbers in compiled code: int and NumPy's are one there.
Whole = Any

inlined = numba.njit(inline="always")
_intrinsic: Any = extending.intrinsic  # its stub takes what is defined for what is called

ONE, NONE = np.uint64(1), np.uint64(0)
_ALL = ~np.uint64(0)


@inlined
def at(index: Whole) -> Whole:
    """Make an index unsigned, so that Numba does not check for a negative one: saves a quarter of the search's time."""
    return np.uint64(index)


@inlined
def bit(node: Whole) -> Whole:
    """Return the word with the bit of one node set."""
    return ONE << np.uint64(node & 63)


@_intrinsic
def lowest(typing: Any, word: Any) -> Any:
    """Return the index of the lowest set bit of a word that is not 0. One instruction."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return numba.int64(numba.uint64), generate


@_intrinsic
def highest(typing: Any, word: Any) -> Any:
    """Return the index of the highest set bit of a word that is not 0."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        zeros = builder.ctlz(arguments[0], ir.Constant(ir.IntType(1), 1))
        return builder.sub(ir.Constant(ir.IntType(64), 63), zeros)

    return numba.int64(numba.uint64), generate


@compiled
def next_bit(words: UInt[np.ndarray, " word"], begin: Whole, end: Whole) -> Whole:
    """Return the index of the first set bit in [begin, end), or `end`."""
    if begin >= end:
        return end
    word = begin >> 6
    rest = words[at(word)] & (_ALL << np.uint64(begin & 63))
    while not rest:
        word += 1
        if word << 6 >= end:
            return end
        rest = words[at(word)]
    return min((word << 6) + lowest(rest), end)


@compiled
def last_bit(words: UInt[np.ndarray, " word"], begin: Whole, end: Whole) -> Whole:
    """Return the index of the last set bit in [begin, end), or -1."""
    if begin >= end:
        return -1
    word = (end - 1) >> 6
    rest = words[at(word)] & (_ALL >> np.uint64(63 - ((end - 1) & 63)))
    while not rest:
        word -= 1
        if (word + 1) << 6 <= begin:
            return -1
        rest = words[at(word)]
    place = (word << 6) + highest(rest)
    return place if place >= begin else -1


# Graph layout
# ============

# A node asks so many of its receivers first: those to which most of its rollout to the sink goes.
FAVOURITES = 2
# Turns of the search for residual paths that memory is allocated for; it grows when needed.
TURNS = 16
# 2**PAGE places share a page. A page takes memory once one of its arcs has carried flow.
PAGE = 4
ON_PAGE = 2**PAGE - 1


class Graph(NamedTuple):
    """A network in whole quanta, read by all threads.

    Nodes are numbered by stack, level and position. The arcs of a sender take consecutive *places*, one for each node from its
    first receiver to its last: arc u -> v stands at `offset[u] + v`. Attention leaves few of these places empty, a layer's
    rows are read in one go, and one word tells of 64 arcs which of them can carry more.

    Attributes:
        offset: `[node]`, place of arc u -> v less v.
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

    offset: Int[np.ndarray, " node"]
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
    """What one thread writes to: a flow to one sink, and what depends on that sink.

    Attributes:
        page: `[place >> PAGE]`, int32, page with the flow of these places; 0, which stays empty, before they carry any.
        flow: `[page << PAGE]`, int32, flow of each arc, page by page. Most arcs carry none, so most pages stay unused.
        n_pages: `[1]`, how many pages are in use.
        open: `[word]`, by sender, bit of each arc that can carry more.
        sent: `[word]`, by sender, bit of each arc that carries flow.
        fed: `[word]`, by receiver, the same bits.
        near: `[node]`, int32, bound on what the node can send to the sink, at most INT32_MAX.
        share: `[node]`, float32, rollout from the sink, divided by the capacity that enters the node.
        favourites: `[node, FAVOURITES]`, receivers, -1 where there are fewer.
        start: `[node]`, first receiver that can send anything to the sink.
        stop: `[node]`, one more than the last such receiver; `start` where there is none.
        room: `[node]`, int32, `near` less what enters the node.
        roomy: `[word]`, bit of each node with room.
        excess: `[node]`, what enters the node less what leaves it; 0 between searches.
        lacking: `[word]`, bit of each node with excess below 0.
        surplus: `[word]`, bit of each node with excess above 0, by rank.
        blocked: `[word]`, bit of each node that received more than it could send on.
        reach: `[word]`, bit of each node that may have a residual path to the sink, by the last search.
        reached: `[turn, word]`, bit of each node for which one was found in that turn or an earlier one.
        turn: `[node]`, turn in which it was found.
        following: `[node]`, where its search for the next arc continues.
        live: `[word]`, bit of each node that has not failed in this search.
        stack: `[depth, 4]`, node, amount asked of it, amount left to send, whether it gives back.
        aimed: `[1]`, the sink; -1 before there is one.
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
    """Make the scratch of one thread, without flow. Memory: 5/8 bytes per place of the graph, and 64 per page in use."""
    n_pages = -(-len(graph.capacity) >> PAGE)
    return scratch_of(graph, _untouched((n_pages + 1) << PAGE))


def build_graph(
    network: FlowNetwork, sources: Int[np.ndarray, " pair"], sinks: Int[np.ndarray, " pair"]
) -> tuple[Graph, Int[np.ndarray, " node"], float]:
    """Round capacities to the int32 quanta of `quantise_to_int32`, and lay out the arcs. O(arcs).

    Args:
        network: one example's network, checked by `check_arcs`.
        sources: `[pair]`, sources to be solved; they only set the quantum.
        sinks: `[pair]`, their sinks, likewise.

    Returns:
        The graph; `[node]`, the graph's number of each of the network's nodes; and the quantum, in units of attention.
    """
    quantum = _quantise.int32_quantum(network, sources, sinks)
    number = graph_numbers(network)
    senders, receivers, capacity = (frozen(each) for each in (network.senders, network.receivers, network.capacity))
    return lay_out(senders, receivers, capacity, number, quantum), number, quantum


def graph_numbers(network: FlowNetwork) -> Int[np.ndarray, " node"]:
    """Return the graph's number of each of the network's nodes: by stack, level and position."""
    order = np.lexsort([np.asarray(key) for key in (network.position, network.level, network.stack)])
    number = np.empty(network.n_nodes, np.int64)
    number[order] = np.arange(network.n_nodes)
    return number


def frozen(array: Any) -> Any:
    """View an array as read-only, as JAX's are: Numba compiles again for an array that differs in this."""
    view = np.asarray(array).view()
    view.flags.writeable = False
    return view


def _untouched(size: int) -> Int[np.ndarray, " entry"]:
    """Make int32 zeros that take memory only where they are written to, which np.zeros does not guarantee."""
    return np.frombuffer(mmap.mmap(-1, 4 * size), np.int32)


@compiled
def scratch_of(graph: Graph, flow: Int[np.ndarray, " entry"]) -> Scratch:
    """Make the scratch of one thread around `flow`, which is 0 and has a page more than the graph."""
    n_nodes = graph.offset.size
    words = (n_nodes + 63) >> 6
    n_columns = 0
    for node in range(n_nodes):
        n_columns += _n_words(graph.first[at(node)], graph.end[at(node)])
    return Scratch(
        np.zeros((graph.capacity.size + ON_PAGE) >> PAGE, np.int32),
        flow,
        np.zeros(1, np.int64),
        graph.open.copy(),
        np.zeros_like(graph.open),
        np.zeros(n_columns, np.uint64),
        np.zeros(n_nodes, np.int32),
        np.zeros(n_nodes, np.float32),
        np.full((n_nodes, FAVOURITES), np.int32(-1)),
        np.zeros(n_nodes, np.int64),
        np.zeros(n_nodes, np.int64),
        np.zeros(n_nodes, np.int32),
        np.zeros(words, np.uint64),
        np.zeros(n_nodes, np.int64),
        np.zeros(words, np.uint64),
        np.zeros(words, np.uint64),
        np.zeros(words, np.uint64),
        np.zeros(words, np.uint64),
        np.zeros((TURNS, words), np.uint64),
        np.zeros(n_nodes, np.int32),
        np.zeros(n_nodes, np.int64),
        np.zeros(words, np.uint64),
        np.zeros((n_nodes + 1, 4), np.int64),
        np.full(1, -1),
    )


@inlined
def _n_words(start: Whole, stop: Whole) -> Whole:
    """Count the words that hold the bits from `start` to `stop`."""
    return ((stop + 63) >> 6) - (start >> 6) if stop > start else 0


@compiled
def lay_out(senders: Any, receivers: Any, capacity: Any, number: Any, quantum: float) -> Graph:
    """Lay out the arcs `[arc]` between nodes with these numbers, `[node]`, their capacities in whole quanta."""
    n_nodes = number.size
    start, stop = _receiver_ranges(senders, receivers, capacity, number, quantum)
    offset, row = np.empty(n_nodes, np.int64), np.empty(n_nodes, np.int64)
    n_places, n_words = 0, 0
    for node in range(n_nodes):
        offset[at(node)], row[at(node)] = n_places - start[at(node)], n_words - (start[at(node)] >> 6)
        n_places += stop[at(node)] - start[at(node)]
        n_words += _n_words(start[at(node)], stop[at(node)])
    unfinished = Graph(
        offset,
        start,
        stop,
        row,
        np.full(n_nodes, n_nodes),
        np.zeros(n_nodes, np.int64),
        np.zeros(n_nodes, np.int64),
        number,
        number,
        number,
        np.zeros(n_places, np.int32),
        np.zeros(n_words, np.uint64),
        np.zeros(n_nodes, np.int64),
        np.zeros(n_nodes, np.int64),
    )
    depth = _fill(senders, receivers, capacity, quantum, unfinished)
    order, rank, group = _by_depth(depth)
    first, end, column = unfinished.first, unfinished.end, unfinished.column
    n_words = 0
    for node in range(n_nodes):
        column[at(node)] = n_words - (first[at(node)] >> 6)
        n_words += _n_words(first[at(node)], end[at(node)])
    return Graph(
        offset,
        start,
        stop,
        row,
        first,
        end,
        column,
        order,
        rank,
        group,
        unfinished.capacity,
        unfinished.open,
        unfinished.entering,
        unfinished.leaving,
    )


@compiled
def _quantum(senders: Any, receivers: Any, capacity: Any, starts: Any, ends: Any) -> float:
    """Choose the quantum of a network as `int32_quantum` does, and add up in the same order; see there.

    Args:
        senders: `[arc]`.
        receivers: `[arc]`.
        capacity: `[arc]`.
        starts: `[node]`, whether a flow starts there.
        ends: `[node]`, whether a flow ends there.
    """
    leaving, entering = np.zeros(starts.size), np.zeros(starts.size)
    step = max(PART, starts.size)
    for begin in range(0, capacity.size, step):
        out, into = np.zeros(starts.size), np.zeros(starts.size)
        for arc in range(begin, min(begin + step, capacity.size)):
            out[at(senders[at(arc)])] += np.float64(capacity[at(arc)])
            into[at(receivers[at(arc)])] += np.float64(capacity[at(arc)])
        leaving += out
        entering += into
    most_leaving, most_entering = 0.0, 0.0
    for node in range(starts.size):
        if starts[at(node)]:
            most_leaving = max(most_leaving, leaving[at(node)])
        if ends[at(node)]:
            most_entering = max(most_entering, entering[at(node)])
    fraction, exponent = math.frexp(min(most_leaving, most_entering) / MOST_QUANTA)
    return math.ldexp(1.0, max(exponent - (1 if fraction == 0.5 else 0), SMALLEST))


@compiled
def _by_depth(depth: Int[np.ndarray, " node"]) -> Any:
    """Sort nodes by depth; return them, the place of each, and where each depth begins."""
    stop = np.zeros(depth.max() + 2, np.int64)
    for node in range(depth.size):
        stop[depth[at(node)] + 1] += 1
    group = np.cumsum(stop)
    order, rank = np.empty(depth.size, np.int64), np.empty(depth.size, np.int64)
    following = group.copy()
    for node in range(depth.size):
        place = following[depth[at(node)]]
        following[depth[at(node)]] += 1
        order[place], rank[at(node)] = node, place
    return order, rank, group


@compiled
def _receiver_ranges(senders: Any, receivers: Any, capacity: Any, number: Any, quantum: float) -> Any:
    """Find each node's first receiver, and one more than its last."""
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
    """Fill in the graph's capacities, sums, open bits and senders; return the length of the longest path to each node."""
    number, offset, row, places, words = graph.order, graph.offset, graph.row, graph.capacity, graph.open
    leaving, entering, first, end = graph.leaving, graph.entering, graph.first, graph.end
    start, stop = graph.start, graph.stop
    for arc in range(capacity.size):
        quanta = np.rint(np.float64(capacity[at(arc)]) / quantum)
        if quanta > 0:
            sender, receiver = number[at(senders[at(arc)])], number[at(receivers[at(arc)])]
            place = offset[at(sender)] + receiver
            # Arcs side by side add up; what is cut off can carry no flow, since none is as large.
            places[at(place)] = np.int64(min(quanta + places[at(place)], np.float64(INT32_MAX)))
            words[at(row[at(sender)] + (receiver >> 6))] |= np.uint64(1) << np.uint64(receiver & 63)
    depth = np.zeros(number.size, np.int64)
    for node in range(number.size):  # the network's numbers are in topological order
        sender = number[at(node)]
        for receiver in range(start[at(sender)], stop[at(sender)]):
            quanta = places[at(offset[at(sender)] + receiver)]
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


# Wave
# ====

# What is left is sent again as long as at least one part in so many of it arrives.
WORTH = 32


@compiled
def push_wave(
    graph: Graph, scratch: Scratch, old: Whole, value: Whole, source: Whole, sink: Whole, amount: Whole
) -> Whole:
    """Turn a flow of `value` from `old` into one of up to `amount` from `source`; return what is left of `amount`.

    Leaves a valid flow. Excess passes over the network once, from the sources to the sink. A node with negative excess sends
    less; one with positive excess sends more: first to receivers that lack flow, so that most of it is settled after one or
    two arcs and the rest of the flow stays as it is; then to its favourites; then to all with room. Excess that gets stuck is
    taken back, one group of nodes at a time, and sent another way; in the end, back to the source.

    Source: the wave method of Tarjan 1984, on the difference of two flows.
    """
    group, rank = graph.group, graph.rank
    excess, lacking, surplus, blocked = scratch.excess, scratch.lacking, scratch.surplus, scratch.blocked
    room, roomy = scratch.room, scratch.roomy
    excess[old] -= value
    excess[source] += amount
    if excess[old] < 0:
        lacking[old >> 6] |= bit(old)
    if excess[source] > 0:
        surplus[rank[source] >> 6] |= bit(rank[source])
    for i in range(group.size - 1):
        _send_less(graph, scratch, group[i], group[i + 1])
        _send_more(graph, scratch, group[i], group[i + 1])
    lacking[sink >> 6] &= ~bit(sink)
    left = amount - value - excess[sink]
    arrived = left
    level = group.size - 1
    stuck = _find_stuck(graph, scratch, source, sink)
    while stuck >= 0:
        level -= 1
        while group[level] > stuck:
            level -= 1
        if WORTH * arrived < left:
            level = 0
        _take_back(graph, scratch, source, group[level])
        if level == 0:
            break
        if excess[source] > 0:
            surplus[rank[source] >> 6] |= bit(rank[source])
        _send_more(graph, scratch, 0, rank.size)
        arrived = excess[sink]
        left -= arrived
        stuck = _find_stuck(graph, scratch, source, sink)
    node = next_bit(blocked, 0, room.size)
    while node < room.size:
        if room[node] > 0:
            roomy[node >> 6] |= bit(node)
        node = next_bit(blocked, node + 1, room.size)
    blocked[:] = 0
    excess[source] = 0
    return left


@compiled
def _find_stuck(graph: Graph, scratch: Scratch, source: Whole, sink: Whole) -> Whole:
    """Clear the sink's excess; return the last rank of a node with excess other than the source, or -1."""
    rank, surplus = graph.rank, scratch.surplus
    scratch.excess[sink] = 0
    for end in (sink, source):
        surplus[rank[end] >> 6] &= ~bit(rank[end])
    return last_bit(surplus, 0, rank.size)


@compiled
def _send_less(graph: Graph, scratch: Scratch, begin: Whole, end: Whole) -> None:
    """Let nodes of rank [begin, end) with negative excess send that much less."""
    offset, row, column = graph.offset, graph.row, graph.column
    start, stop, order = scratch.start, scratch.stop, graph.order
    page, flow, is_open, sent, fed = scratch.page, scratch.flow, scratch.open, scratch.sent, scratch.fed
    room, roomy, excess, lacking = scratch.room, scratch.roomy, scratch.excess, scratch.lacking
    for i in range(begin, end):
        node = order[at(i)]
        need = -excess[at(node)]
        if need <= 0 or start[at(node)] == stop[at(node)]:
            continue
        lacking[at(node >> 6)] &= ~bit(node)
        places, words = offset[at(node)], row[at(node)]
        for word in range(start[at(node)] >> 6, (stop[at(node)] + 63) >> 6):
            candidates = sent[at(words + word)]
            if not candidates:
                continue
            touched, emptied = NONE, NONE
            while candidates and need > 0:
                other = (word << 6) + lowest(candidates)
                candidates &= candidates - ONE
                place = places + other
                slot = (np.int64(page[at(place >> PAGE)]) << PAGE) + (place & ON_PAGE)
                carried = np.int64(flow[at(slot)])
                less = min(need, carried)
                need -= less
                flow[at(slot)] = carried - less
                touched |= bit(other)
                if less == carried:
                    emptied |= bit(other)
                    fed[at(column[at(other)] + (node >> 6))] &= ~bit(node)
                room[at(other)] += less
                excess[at(other)] -= less
                lacking[at(word)] |= bit(other) * np.uint64(excess[at(other)] < 0)
            is_open[at(words + word)] |= touched
            sent[at(words + word)] &= ~emptied
            roomy[at(word)] |= touched
            if need == 0:
                break
        excess[at(node)] = -need


@compiled
def _send_more(graph: Graph, scratch: Scratch, begin: Whole, end: Whole) -> None:
    """Let nodes of rank [begin, end) with positive excess send it on."""
    offset, row, column, capacity = graph.offset, graph.row, graph.column, graph.capacity
    start, stop, order, rank = scratch.start, scratch.stop, graph.order, graph.rank
    page, flow, n_pages = scratch.page, scratch.flow, scratch.n_pages
    is_open, sent, fed = scratch.open, scratch.sent, scratch.fed
    room, roomy, excess, lacking = scratch.room, scratch.roomy, scratch.excess, scratch.lacking
    surplus, favourites = scratch.surplus, scratch.favourites
    i = next_bit(surplus, begin, end)
    while i < end:
        node = order[at(i)]
        want = excess[at(node)]
        places, words = offset[at(node)], row[at(node)]
        for phase in range(3):  # to those that lack something, to favourites, to all with room
            favoured = phase == 1
            first = 0 if favoured else start[at(node)] >> 6
            for word in range(first, FAVOURITES if favoured else (stop[at(node)] + 63) >> 6):
                if favoured:
                    other = np.int64(favourites[at(node), at(word)])
                    candidates = ONE if other >= 0 and roomy[at(other >> 6)] & bit(other) else NONE
                elif phase == 0:
                    candidates = is_open[at(words + word)] & lacking[at(word)]
                else:
                    candidates = is_open[at(words + word)] & roomy[at(word)]
                while candidates and want > 0:
                    if not favoured:
                        other = (word << 6) + lowest(candidates)
                    candidates &= candidates - ONE
                    place = places + other
                    slot = (np.int64(page[at(place >> PAGE)]) << PAGE) + (place & ON_PAGE)
                    carried, able = np.int64(flow[at(slot)]), np.int64(capacity[at(place)])
                    space, before = np.int64(room[at(other)]), excess[at(other)]
                    more = min(want, able - carried, space)
                    if phase == 0:
                        more = min(more, -before)
                    if more <= 0:
                        continue
                    if slot <= ON_PAGE:
                        n_pages[0] += 1
                        page[at(place >> PAGE)] = n_pages[0]
                        slot += n_pages[0] << PAGE
                    want -= more
                    flow[at(slot)] = carried + more
                    room[at(other)] = space - more
                    excess[at(other)] = before + more
                    there = other >> 6
                    sent[at(words + there)] |= bit(other)
                    fed[at(column[at(other)] + (node >> 6))] |= bit(node)
                    # Products of a bit and a comparison, where branches would often be guessed wrongly.
                    is_open[at(words + there)] &= ~(bit(other) * np.uint64(carried + more == able))
                    roomy[at(there)] &= ~(bit(other) * np.uint64(more == space))
                    lacking[at(there)] &= ~(bit(other) * np.uint64(before + more >= 0))
                    if before + more > 0:
                        surplus[at(rank[at(other)] >> 6)] |= bit(rank[at(other)])
                if want == 0:
                    break
            if want == 0:
                break
        excess[at(node)] = want
        if want == 0:
            surplus[at(i >> 6)] &= ~bit(i)
        i = next_bit(surplus, i + 1, end)


@compiled
def _take_back(graph: Graph, scratch: Scratch, source: Whole, begin: Whole) -> None:
    """Take positive excess back from nodes of rank `begin` and above, and block them."""
    offset, row, column = graph.offset, graph.row, graph.column
    first, end, order, rank = graph.first, graph.end, graph.order, graph.rank
    page, flow, is_open, sent, fed = scratch.page, scratch.flow, scratch.open, scratch.sent, scratch.fed
    room, roomy, excess = scratch.room, scratch.roomy, scratch.excess
    surplus, blocked = scratch.surplus, scratch.blocked
    i = last_bit(surplus, begin, rank.size)
    while i >= 0:
        node = order[at(i)]
        want = excess[at(node)]
        excess[at(node)] = 0
        surplus[at(i >> 6)] &= ~bit(i)
        room[at(node)] += want
        roomy[at(node >> 6)] &= ~bit(node)
        blocked[at(node >> 6)] |= bit(node)
        for word in range(first[at(node)] >> 6, (end[at(node)] + 63) >> 6):
            candidates = fed[at(column[at(node)] + word)]
            while candidates and want > 0:
                other = (word << 6) + lowest(candidates)
                candidates &= candidates - ONE
                place = offset[at(other)] + node
                slot = (np.int64(page[at(place >> PAGE)]) << PAGE) + (place & ON_PAGE)
                back = min(want, np.int64(flow[at(slot)]))
                want -= back
                flow[at(slot)] -= back
                is_open[at(row[at(other)] + (node >> 6))] |= bit(node)
                if flow[at(slot)] == 0:
                    sent[at(row[at(other)] + (node >> 6))] &= ~bit(node)
                    fed[at(column[at(node)] + word)] &= ~bit(other)
                excess[at(other)] += back
                if other != source:
                    surplus[at(rank[at(other)] >> 6)] |= bit(rank[at(other)])
            if want == 0:
                break
        i = last_bit(surplus, begin, i)


# Residual search
# ===============


@compiled
def find_reach(graph: Graph, scratch: Scratch, source: Whole, sink: Whole) -> Whole:
    """Find nodes with a residual path to `sink`, in turns, until `source` is found or no more are; return `reached`.

    An even turn finds nodes that can send to nodes already found, an odd turn nodes that can give flow back to them. If the
    source has a path, `scratch.reach` has its bit. If not, `scratch.reach` holds all nodes with a path, and the arcs that enter
    these nodes are a minimum cut: each is full, and no flow leaves the nodes.
    """
    order, first, reached, turn, following = graph.order, graph.first, scratch.reached, scratch.turn, scratch.following
    reached[1, :] = 0
    reached[1, sink >> 6] |= bit(sink)
    turn[sink] = 1
    now, found = 1, True
    while found:  # each turn finds all that its kind of arc leads to, and none leads back out of the sink
        now += 1
        if now == reached.shape[0]:
            more = np.zeros((2 * now, reached.shape[1]), np.uint64)
            more[:now] = reached
            reached = more
        gives_back = now & 1
        begin, end = (graph.first, graph.end) if gives_back else (scratch.start, scratch.stop)
        words, arcs = (graph.column, scratch.fed) if gives_back else (graph.row, scratch.open)
        here = reached[now]
        here[:] = reached[now - 1]
        found = False
        for i in range(order.size):
            node = order[at(i if gives_back else order.size - 1 - i)]
            if here[at(node >> 6)] & bit(node) or begin[at(node)] == end[at(node)]:
                continue
            for word in range(begin[at(node)] >> 6, (end[at(node)] + 63) >> 6):
                if here[at(word)] & arcs[at(words[at(node)] + word)]:
                    here[at(node >> 6)] |= bit(node)
                    turn[at(node)], following[at(node)] = now, first[at(node)]
                    found = True
                    break
        if here[source >> 6] & bit(source):
            scratch.reach[source >> 6] |= bit(source)
            return reached
    scratch.reach[:] = reached[now]
    return reached


@compiled
def push_around(
    graph: Graph, scratch: Scratch, reached: Whole, source: Whole, sink: Whole, amount: Whole, patience: Whole
) -> tuple[Whole, Whole]:
    """Push up to `amount` along the residual paths of `find_reach`, depth first; return the amount left, and the patience left.

    A node is asked for an amount, asks other nodes in turn, and answers with what it could pass on; a node that could not pass
    on all of it is not asked again. A node asks nodes found in earlier turns, or in its own turn in the order of the search,
    so no path has a cycle. Patience counts looks at words; when it is used up, all answer with what they have passed on.

    Leaves a valid flow. Arrays are taken out of their tuples once, at the top: inside a loop that would cost a reference count
    each time (measured: four times the time of all the rest), and so would a function that finds where an arc's flow stands.
    """
    offset, row, column, capacity = graph.offset, graph.row, graph.column, graph.capacity
    start, stop, end = scratch.start, scratch.stop, graph.end
    page, flow, n_pages = scratch.page, scratch.flow, scratch.n_pages
    is_open, sent, fed = scratch.open, scratch.sent, scratch.fed
    room, roomy, turn, following = scratch.room, scratch.roomy, scratch.turn, scratch.following
    live, stack, n_nodes = scratch.live, scratch.stack, graph.order.size
    live[:] = ~np.uint64(0)
    depth = 0
    stack[0, 0], stack[0, 1], stack[0, 2] = source, amount, amount
    while True:
        node, asked, want = stack[at(depth), 0], stack[at(depth), 1], stack[at(depth), 2]
        other: Whole = np.int64(-1)
        back = 0
        if node == sink:
            want = np.int64(0)
        elif want > 0 and patience > 0 and live[at(node >> 6)] & bit(node):
            look, mine = following[at(node)], turn[at(node)]
            if look < n_nodes:  # first those that it can give back to
                mates = mine - 1 + (mine & 1)
                while look < end[at(node)]:
                    patience -= 1
                    word = look >> 6
                    candidates = fed[at(column[at(node)] + word)] & reached[at(mates), at(word)] & live[at(word)]
                    candidates >>= np.uint64(look & 63)
                    if candidates:
                        look += lowest(candidates)
                        other, back = look, 1
                        break
                    look = (word + 1) << 6
                if other < 0:
                    look = n_nodes + start[at(node)]
            if look >= n_nodes:  # then those that it can send to
                look -= n_nodes
                mates = mine - (mine & 1)
                while look < stop[at(node)]:
                    patience -= 1
                    word = look >> 6
                    candidates = is_open[at(row[at(node)] + word)] & reached[at(mates), at(word)] & live[at(word)]
                    candidates >>= np.uint64(look & 63)
                    if candidates:
                        look += lowest(candidates)
                        other = look
                        break
                    look = (word + 1) << 6
                look += n_nodes
            following[at(node)] = look
        if other >= 0:
            place = offset[at(other)] + node if back else offset[at(node)] + other
            carried = np.int64(flow[at((np.int64(page[at(place >> PAGE)]) << PAGE) + (place & ON_PAGE))])
            able = carried if back else capacity[at(place)] - carried
            stack[at(depth), 3] = back
            depth += 1
            stack[at(depth), 0], stack[at(depth), 1], stack[at(depth), 2] = other, min(want, able), min(want, able)
            continue
        given = asked - want
        if want > 0:
            live[at(node >> 6)] &= ~bit(node)
        if depth == 0:
            return want, patience
        depth -= 1
        stack[at(depth), 2] -= given
        if given == 0:
            continue
        asker = stack[at(depth), 0]
        sender, receiver = (node, asker) if stack[at(depth), 3] else (asker, node)
        place = offset[at(sender)] + receiver
        slot = (np.int64(page[at(place >> PAGE)]) << PAGE) + (place & ON_PAGE)
        if slot <= ON_PAGE:
            n_pages[0] += 1
            page[at(place >> PAGE)] = n_pages[0]
            slot += n_pages[0] << PAGE
        if stack[at(depth), 3]:
            flow[at(slot)] -= given
            is_open[at(row[at(sender)] + (receiver >> 6))] |= bit(receiver)
            room[at(receiver)] += given
            roomy[at(receiver >> 6)] |= bit(receiver)
            if flow[at(slot)] == 0:
                sent[at(row[at(sender)] + (receiver >> 6))] &= ~bit(receiver)
                fed[at(column[at(receiver)] + (sender >> 6))] &= ~bit(sender)
        else:
            if flow[at(slot)] == 0:
                sent[at(row[at(sender)] + (receiver >> 6))] |= bit(receiver)
                fed[at(column[at(receiver)] + (sender >> 6))] |= bit(sender)
            flow[at(slot)] += given
            if flow[at(slot)] == capacity[at(place)]:
                is_open[at(row[at(sender)] + (receiver >> 6))] &= ~bit(receiver)
            room[at(receiver)] -= given
            if room[at(receiver)] <= 0:
                roomy[at(receiver >> 6)] &= ~bit(receiver)


# Many pairs
# ==========

# Residual search leaves a pair to OR-Tools after so many looks at words per arc of the network.
PATIENCE = 100
# The sources of a sink are cut into chains of this many, or into this many chains where that gives longer ones. Each chain
# starts without flow, so threads can share them. Longer chains spread their flow over more memory; more chains pay for
# more starts, each of which costs as much as several sources.
CHAIN, CHAINS = 64, 8


@compiled
def solve_block(
    graph: Graph,
    scratch: Scratch,
    sources: Int[np.ndarray, " pair"],
    sinks: Int[np.ndarray, " pair"],
    starts: Int[np.ndarray, " chain"],
    slack: Whole,
    patience: Whole,
    halt: Int[np.ndarray, " 1"],
    done: Int[np.ndarray, " counter"],
    where: Int[np.ndarray, " pair"],
    lower: Int[np.ndarray, " result"],
    upper: Int[np.ndarray, " result"],
    stage: Int[np.ndarray, " result"],
) -> None:
    """Solve pairs one after another: a wave turns the last pair's flow into this pair's, and residual search completes it.

    Both stop at the upper bound. Stops between two pairs, or two rounds of residual search, once `halt[0]` is set; pairs that
    are not settled then keep the stage UNFINISHED.

    Args:
        graph: shared.
        scratch: this thread's.
        sources: `[pair]`, numbers of nodes in `graph`; sources with similar flows next to each other save work.
        sinks: `[pair]`, likewise; equal sinks next to each other.
        starts: pairs that start without flow, in increasing order, among them the first pair and the first of each sink. They
            are fixed, so that results do not depend on which thread solves which pairs.
        slack: a pair is settled when its bounds differ by no more than so many quanta.
        patience: looks at words in the residual search of a pair, after which it is left to OR-Tools.
        halt: `halt[0]` other than 0 stops.
        done: `done[0]` counts settled pairs.
        where: `[pair]`, index of each pair in the results.
        lower: `[result]`, quanta, written.
        upper: `[result]`, quanta: holds a valid bound before, and a better one after.
        stage: `[result]`, written.
    """
    n_started: Whole = np.int64(0)
    old: Whole = np.int64(0)
    value: Whole = np.int64(0)
    for i in range(sources.size):
        if halt[0] != 0:
            return
        source, sink, pair = sources[i], sinks[i], where[i]
        if n_started < starts.size and i == starts[n_started]:
            n_started += 1
            if sink != scratch.aimed[0]:
                aim(graph, scratch, sink)
            else:
                clear(graph, scratch)
            old, value = source, np.int64(0)
        bound: Whole = min(np.int64(scratch.near[source]), np.int64(upper[pair]))
        left: Whole = bound
        stage[pair] = SEARCHED
        if left > slack:
            left = push_wave(graph, scratch, old, value, source, sink, bound)
            patience_left: Whole = np.int64(patience)
            if left > slack:
                stage[pair] = RESIDUAL
            while left > slack:
                reached = find_reach(graph, scratch, source, sink)
                if not scratch.reach[source >> 6] & bit(source):
                    bound -= left
                    left -= left
                elif halt[0] != 0:
                    stage[pair] = UNFINISHED
                    break
                else:
                    left, patience_left = push_around(graph, scratch, reached, source, sink, left, patience_left)
                    if patience_left <= 0 and left > slack:
                        stage[pair] = ORTOOLS
                        break
            old, value = source, bound - left
        lower[pair], upper[pair] = bound - left, bound
        if stage[pair] < ORTOOLS:
            done[0] += 1


@compiled
def chain_starts(sinks: Int[np.ndarray, " pair"], order: Int[np.ndarray, " pair"]) -> Int[np.ndarray, " start"]:
    """Choose which pairs, in the order that `order_pairs` gives, start without flow; the number of pairs comes last."""
    starts = np.zeros(0, np.int64)
    for is_filled in (False, True):
        n_starts, begin = 0, 0
        while begin < order.size:
            end = begin
            while end < order.size and sinks[order[end]] == sinks[order[begin]]:
                end += 1
            longest = max(CHAIN, (end - begin + CHAINS - 1) // CHAINS)
            for start in range(begin, end, longest):
                if is_filled:
                    starts[n_starts] = start
                n_starts += 1
            begin = end
        if not is_filled:
            starts = np.full(n_starts + 1, order.size)
    return starts


@compiled
def trivial_bounds(
    graph: Graph,
    number: Int[np.ndarray, " node"],
    sources: Int[np.ndarray, " pair"],
    sinks: Int[np.ndarray, " pair"],
    bounds: Int[np.ndarray, " pair"],
) -> None:
    """Write to `bounds` the smaller of the capacity that leaves the source and the capacity that enters the sink, quanta."""
    for pair in range(sources.size):
        bounds[pair] = min(graph.leaving[number[sources[pair]]], graph.entering[number[sinks[pair]]])


@compiled
def solve_networks(
    senders: Int[np.ndarray, " arc"],
    receivers: Int[np.ndarray, " arc"],
    capacity: Float[np.ndarray, "example arc"],
    number: Int[np.ndarray, " node"],
    inputs: Int[np.ndarray, " input"],
    outputs: Int[np.ndarray, " output"],
    sources: Int[np.ndarray, " pair"],
    sinks: Int[np.ndarray, " pair"],
    wanted: Bool[np.ndarray, "example pair"],
    tolerance: float,
    patience: Whole,
    first: Whole,
    last: Whole,
    halt: Int[np.ndarray, " 1"],
    done: Int[np.ndarray, " counter"],
    quanta: Float[np.ndarray, " example"],
    lower: Int[np.ndarray, "example pair"],
    upper: Int[np.ndarray, "example pair"],
    trivial: Int[np.ndarray, "example pair"],
    stage: Int[np.ndarray, "example pair"],
) -> None:
    """Solve pairs in each of many networks that differ in their capacities alone. What is not wanted is left as it is.

    Args:
        senders: `[arc]`, nodes.
        receivers: `[arc]`, nodes.
        capacity: `[example, arc]`, in units of attention.
        number: `[node]`, as `graph_numbers` gives it.
        inputs: `[input]`, nodes; with the outputs they set the quantum.
        outputs: `[output]`, nodes.
        sources: `[pair]`, nodes.
        sinks: `[pair]`, nodes.
        wanted: `[example, pair]`.
        tolerance: a pair is settled when its bounds differ by no more, in units of attention.
        patience: looks at words in the residual search of a pair, per place of the network, after which it is left to OR-Tools.
        first: the first example that is solved.
        last: one more than the last of them.
        halt: as in `solve_block`.
        done: `done[0]` counts settled pairs.
        quanta: `[example]`, in units of attention, written.
        lower: `[example, pair]`, int64, quanta, written.
        upper: `[example, pair]`, likewise.
        trivial: `[example, pair]`, likewise.
        stage: `[example, pair]`, written.
    """
    starts, ends = np.empty(number.size, np.bool_), np.empty(number.size, np.bool_)
    for example in range(first, last):
        if halt[0] != 0:
            return
        here = np.flatnonzero(wanted[example])
        starts[:], ends[:] = False, False
        starts[inputs], ends[outputs] = True, True
        starts[sources[here]], ends[sinks[here]] = True, True
        quantum = _quantum(senders, receivers, capacity[example], starts, ends)
        quanta[example] = quantum
        if here.size == 0:
            continue
        graph = lay_out(senders, receivers, capacity[example], number, quantum)
        scratch = scratch_of(graph, np.zeros(((graph.capacity.size + ON_PAGE) >> PAGE << PAGE) + ON_PAGE + 1, np.int32))
        own_sources, own_sinks = sources[here], sinks[here]
        order = order_pairs(number, own_sources, own_sinks)
        chains = chain_starts(own_sinks, order)
        low, high = np.zeros(here.size, np.int32), np.empty(here.size, np.int32)
        trivial_bounds(graph, number, own_sources, own_sinks, high)
        own_stage = np.empty(here.size, np.int8)
        for pair in range(here.size):
            trivial[example, here[pair]] = high[pair]
            own_stage[pair] = UNFINISHED if high[pair] else SEARCHED
        slack = np.int64(min(tolerance / quantum, np.float64(INT32_MAX)))
        own_patience = patience * max(graph.capacity.size, 1)
        from_, to = number[own_sources[order]], number[own_sinks[order]]
        solve_block(
            graph, scratch, from_, to, chains[:-1], slack, own_patience, halt, done, order, low, high, own_stage
        )
        for pair in range(here.size):
            lower[example, here[pair]], upper[example, here[pair]] = low[pair], high[pair]
            stage[example, here[pair]] = own_stage[pair]


@compiled
def order_pairs(
    number: Int[np.ndarray, " node"], sources: Int[np.ndarray, " pair"], sinks: Int[np.ndarray, " pair"]
) -> Int[np.ndarray, " pair"]:
    """Sort pairs by sink, then by source in the graph's order, both descending. A counting sort, O(pairs + nodes); int32."""
    order = np.arange(sources.size).astype(np.int32)
    for by_sink in (False, True):
        before = order.copy()
        stop = np.zeros(number.size + 1, np.int64)
        for pair in range(sources.size):
            stop[sinks[pair] if by_sink else number[sources[pair]]] += 1
        for node in range(number.size - 1, -1, -1):
            stop[node] += stop[node + 1]
        for i in range(sources.size - 1, -1, -1):
            pair = before[i]
            node = sinks[pair] if by_sink else number[sources[pair]]
            stop[node] -= 1
            order[stop[node]] = pair
    return order


@compiled
def clear(graph: Graph, scratch: Scratch) -> None:
    """Remove all flow. O(arcs / 16), plus the arcs that carry flow."""
    offset, row = graph.offset, graph.row
    page, flow, is_open, sent = scratch.page, scratch.flow, scratch.open, scratch.sent
    near, room, roomy = scratch.near, scratch.room, scratch.roomy
    for node in range(offset.size):
        if graph.stop[node] == graph.start[node]:
            continue
        for word in range(graph.start[node] >> 6, (graph.stop[node] + 63) >> 6):
            candidates = sent[row[node] + word]
            is_open[row[node] + word] |= candidates
            sent[row[node] + word] = 0
            while candidates:
                place = offset[node] + (word << 6) + lowest(candidates)
                candidates &= candidates - ONE
                flow[(np.int64(page[place >> PAGE]) << PAGE) + (place & ON_PAGE)] = 0
    page[:] = 0
    scratch.n_pages[0] = 0
    scratch.fed[:] = 0
    room[:] = near
    roomy[:] = 0
    for node in range(near.size):
        if near[node] > 0:
            roomy[node >> 6] |= bit(node)
    scratch.reach[:] = roomy


@compiled
def aim(graph: Graph, scratch: Scratch, sink: Whole) -> None:
    """Bound what each node can send to `sink`, choose its favourites, and remove all flow. O(arcs).

    `near[u] = sum_v min(capacity[u, v], near[v])`, from the sink backwards.
    """
    near, share, favourites = scratch.near, scratch.share, scratch.favourites
    offset, order, capacity, entering = graph.offset, graph.order, graph.capacity, graph.entering
    near[:] = 0
    share[:] = 0
    favourites[:] = -1
    scratch.start[:] = 0
    scratch.stop[:] = 0
    near[sink] = INT32_MAX
    share[sink] = 1 / np.float32(entering[sink] + 1)
    best = np.zeros(FAVOURITES, np.float32)
    for i in range(order.size - 1, -1, -1):
        node = order[i]
        start, stop = graph.start[node], graph.stop[node]
        while start < stop and near[start] == 0:
            start += 1
        while start < stop and near[stop - 1] == 0:
            stop -= 1
        if node == sink or start == stop:
            continue
        n = stop - start
        arcs = capacity[offset[node] + start : offset[node] + stop]
        bounds, shares = near[start:stop], share[start:stop]
        bound = np.int64(0)
        for j in range(n):
            bound += min(arcs[j], bounds[j])
        if bound == 0:
            continue
        near[node] = min(bound, np.int64(INT32_MAX))
        scratch.start[node], scratch.stop[node] = start, stop
        total, least = np.float32(0), np.float32(0)
        best[:] = 0
        for j in range(n):
            through = np.float32(arcs[j]) * shares[j]
            total += through
            if through > least:
                place = FAVOURITES - 1
                while place > 0 and best[place - 1] < through:
                    best[place] = best[place - 1]
                    favourites[node, place] = favourites[node, place - 1]
                    place -= 1
                best[place] = through
                favourites[node, place] = start + j
                least = best[FAVOURITES - 1]
        share[node] = total / np.float32(max(entering[node], 1))
    scratch.aimed[0] = sink
    clear(graph, scratch)


# Incremental flows
# =================

# `maxflow(S + i) = maxflow(S) + what i can still send along residual arcs`, so a flow is extended and never solved anew.
# While i sends, flow changes only among nodes with a residual path to the sink. A node without one never gets one again, and
# neither do the sources that have sent. So no super source is needed, no flow is led back into an earlier source, and most
# late sources are done without a search.

# Incremental flows have no other solver to fall back on.
ENDLESS = 2**62
# Value of all players together, before it is known.
UNKNOWN = 2**62


def aimed_scratch(graph: Graph, sink: int) -> Scratch:
    """Make the scratch of one thread, aimed at one sink."""
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
    """Let players join in each order; write what each of them adds to the flow.

    Args:
        graph: shared.
        scratch: this thread's, aimed at the sink.
        sink: number of its node in `graph`.
        nodes: `[member]`, numbers of the players' nodes, player by player.
        starts: `[player + 1]`, player i has `nodes[starts[i] : starts[i + 1]]`.
        whole: value of all players together, in quanta; an order ends once it is reached.
        orders: `[order, player]`, players in the order in which they join.
        gains: `[order, player]`, quanta, written; expected to be 0.
        halt: `halt[0]` other than 0 stops after the current order.
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
    """Find the value of every set of players, by extending the flow of the set without its last player.

    Args:
        graph: as in `walk_orders`, like the next five.
        scratch: this thread's.
        sink: number of its node.
        nodes: `[member]`.
        starts: `[player + 1]`.
        whole: value of all players.
        values: `[set]`, quanta, written; bit i of the index is set where player i belongs to the set.
        halt: `halt[0]` other than 0 stops.
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
    """Find the maximum flow of each source alone, and the source's side of its minimum cut nearest one end.

    Args:
        graph: shared.
        scratch: this thread's, aimed at the sink.
        sources: `[pair]`, numbers of nodes in `graph`.
        sink: number of its node.
        of_source: True for the cut nearest the source, False for the one nearest the sink.
        where: `[pair]`, index of each pair in the results.
        values: `[result]`, quanta, written.
        sides: `[result, node]`, written; expected to be False.
        halt: `halt[0]` other than 0 stops after the current pair.
        done: `done[0]` counts pairs.
    """
    reach = scratch.reach
    near = np.zeros_like(reach)
    for i in range(sources.size):
        if halt[0] != 0:
            return
        values[where[i]] = _extend(graph, scratch, sources[i], sink, np.int64(UNKNOWN))
        side = sides[where[i]]
        if of_source:
            _reach_from(graph, scratch, sources[i], near)
            for node in range(side.size):
                side[node] = near[node >> 6] & bit(node) != 0
        else:
            find_reach(graph, scratch, sources[i], sink)
            for node in range(side.size):
                side[node] = not reach[node >> 6] & bit(node)
        clear(graph, scratch)
        done[0] += 1


@compiled
def sum_cuts(
    graph: Graph,
    scratch: Scratch,
    sources: Int[np.ndarray, " pair"],
    sink: Whole,
    layer: Int[np.ndarray, " node"],
    where: Int[np.ndarray, " pair"],
    values: Int[np.ndarray, " result"],
    quanta: Int[np.ndarray, "result layer"],
    halt: Int[np.ndarray, " 1"],
    done: Int[np.ndarray, " counter"],
) -> None:
    """Find the maximum flow of each source alone, and how much of its minimum cut nearest the source is in each layer.

    Args:
        graph: as in `find_sides`.
        scratch: as there.
        sources: as there.
        sink: as there.
        layer: `[node]`, the layer whose arcs enter the node.
        where: as there.
        values: as there.
        quanta: `[result, layer]`, written; expected to be 0.
        halt: as there.
        done: as there.
    """
    start, stop, row, offset = graph.start, graph.stop, graph.row, graph.offset
    near = np.zeros_like(scratch.reach)
    for i in range(sources.size):
        if halt[0] != 0:
            return
        values[where[i]] = _extend(graph, scratch, sources[i], sink, np.int64(UNKNOWN))
        _reach_from(graph, scratch, sources[i], near)
        for own in range(near.size):
            senders = near[own]
            while senders:
                sender = (own << 6) + lowest(senders)
                senders &= senders - ONE
                if start[sender] == stop[sender]:
                    continue
                for word in range(start[sender] >> 6, (stop[sender] + 63) >> 6):
                    crossing = graph.open[row[sender] + word] & ~near[word]
                    while crossing:
                        receiver = (word << 6) + lowest(crossing)
                        crossing &= crossing - ONE
                        quanta[where[i], layer[receiver]] += graph.capacity[offset[sender] + receiver]
        clear(graph, scratch)
        done[0] += 1


@compiled
def _reach_from(graph: Graph, scratch: Scratch, source: Whole, side: UInt[np.ndarray, " word"]) -> None:
    """Set the bits of all nodes that a residual path from `source` leads to, and no others."""
    start, stop, row = graph.start, graph.stop, graph.row
    first, end, column = graph.first, graph.end, graph.column
    is_open, fed, stack = scratch.open, scratch.fed, scratch.stack
    side[:] = 0
    side[source >> 6] |= bit(source)
    stack[0, 0] = source
    depth = 1
    while depth > 0:
        depth -= 1
        node = stack[depth, 0]
        for is_forward in (True, False):
            begin, finish = (start[node], stop[node]) if is_forward else (first[node], end[node])
            if begin == finish:
                continue
            for word in range(begin >> 6, (finish + 63) >> 6):
                others = (is_open[row[node] + word] if is_forward else fed[column[node] + word]) & ~side[word]
                side[word] |= others
                while others:
                    stack[depth, 0] = (word << 6) + lowest(others)
                    others &= others - ONE
                    depth += 1


@compiled
def _extend(graph: Graph, scratch: Scratch, source: Whole, sink: Whole, most: Whole) -> Whole:
    """Push all that `source` can send on top of the present flow, and return the amount.

    `most` bounds the amount. Before and after, `scratch.reach` holds all nodes with a residual path to the sink, and possibly
    others; no others once a search has failed to find the source.
    """
    reach = scratch.reach
    amount: Whole = min(most, np.int64(scratch.near[source]))
    left: Whole = amount
    while left > 0 and reach[source >> 6] & bit(source):
        reached = find_reach(graph, scratch, source, sink)
        if reach[source >> 6] & bit(source):
            left, _ = push_around(graph, scratch, reached, source, sink, left, np.int64(ENDLESS))
    return amount - left
