"""A wave, compiled: it turns the flow of one source into that of another, passing over the network once.

Leaves a valid flow. Leaves JAX: Numba, with arrays taken out of their tuples once, as in `augmenting.py`; and as there, touch
`search.py` after a change.
"""

from __future__ import annotations

import numpy as np

from jaxflow.solve._bits import NONE, ONE, Whole, at, bit, last_bit, lowest, next_bit
from jaxflow.solve._compiled import compiled
from jaxflow.solve._windows import FAVOURITES, ON_PAGE, PAGE, Graph, Scratch

# What got stuck is tried again as long as one part in so many of it arrives.
WORTH = 32


@compiled
def push_wave(
    graph: Graph, scratch: Scratch, old: Whole, value: Whole, source: Whole, sink: Whole, amount: Whole
) -> Whole:
    """Turn a flow of `value` from `old` into one of up to `amount` from `source`; return what is left of `amount`.

    Excess passes over the network once, from the sources to the sink. Where it is below 0, a node sends as much less; where
    it is above, a node sends more: first to receivers that lack something, so that most of it is settled after an arc or
    two and the rest of the flow stays as it is; then to its favourites, and then to all with room. What gets stuck is taken
    back, a group of nodes at a time, and tried again from each on other ways; in the end, up to the source.
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
    """Take what has come to the sink; return the last rank of a node but the source that has too much, or -1."""
    rank, surplus = graph.rank, scratch.surplus
    scratch.excess[sink] = 0
    for end in (sink, source):
        surplus[rank[end] >> 6] &= ~bit(rank[end])
    return last_bit(surplus, 0, rank.size)


@compiled
def _send_less(graph: Graph, scratch: Scratch, begin: Whole, end: Whole) -> None:
    """Let nodes from the rank `begin` on, and before `end`, that lack something send as much less."""
    window, row, column = graph.window, graph.row, graph.column
    start, stop, order = scratch.start, scratch.stop, graph.order
    page, flow, is_open, sent, fed = scratch.page, scratch.flow, scratch.open, scratch.sent, scratch.fed
    room, roomy, excess, lacking = scratch.room, scratch.roomy, scratch.excess, scratch.lacking
    for i in range(begin, end):
        node = order[at(i)]
        need = -excess[at(node)]
        if need <= 0 or start[at(node)] == stop[at(node)]:
            continue
        lacking[at(node >> 6)] &= ~bit(node)
        places, words = window[at(node)], row[at(node)]
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
    """Let nodes from the rank `begin` on, and before `end`, that have got too much send it on."""
    window, row, column, capacity = graph.window, graph.row, graph.column, graph.capacity
    start, stop, order, rank = scratch.start, scratch.stop, graph.order, graph.rank
    page, flow, n_pages = scratch.page, scratch.flow, scratch.n_pages
    is_open, sent, fed = scratch.open, scratch.sent, scratch.fed
    room, roomy, excess, lacking = scratch.room, scratch.roomy, scratch.excess, scratch.lacking
    surplus, favourites = scratch.surplus, scratch.favourites
    i = next_bit(surplus, begin, end)
    while i < end:
        node = order[at(i)]
        want = excess[at(node)]
        places, words = window[at(node)], row[at(node)]
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
    """Take back what nodes from the rank `begin` on got too much, and block them."""
    window, row, column = graph.window, graph.row, graph.column
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
                place = window[at(other)] + node
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
