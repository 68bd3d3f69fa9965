"""Two ways to push flow, compiled: a wave, which turns one source's flow into another's, and around, over residual arcs.

Each leaves a valid flow. Leaves JAX: Numba. Arrays are taken out of their tuples once, at the top: inside a loop that would
cost a reference count each time (measured: four times the time of all the rest), and so would a function that finds where an
arc's flow stands, even an inlined one.

Numba keeps compiled code by file: after a change here, touch `search.py` and `extending.py`, whose functions contain these.
"""

from __future__ import annotations

import numba
import numpy as np

from jaxflow.solve.compiled import compiled
from jaxflow.solve.windows import FAVOURITES, PAGE, Graph, Scratch, Whole

_inlined = numba.njit(inline="always")

_ONE = np.uint64(1)
_DE_BRUIJN = np.uint64(0x03F79D71B4CB0A89)
_TOP_SIX = np.uint64(58)
ON_PAGE = 2**PAGE - 1
_LOWEST = np.argsort([(int(_DE_BRUIJN) << i) % 2**64 >> 58 for i in range(64)])


@_inlined
def bit(node: Whole) -> Whole:
    """Return the word in which a node has its bit set."""
    return _ONE << np.uint64(node & 63)


@_inlined
def lowest(word: Whole) -> Whole:
    """Return the place of the lowest bit that is set: multiplying it by a de Bruijn number moves its place to the top."""
    return _LOWEST[((word & (~word + _ONE)) * _DE_BRUIJN) >> _TOP_SIX]


@compiled
def push_wave(
    graph: Graph, scratch: Scratch, old: Whole, value: Whole, source: Whole, sink: Whole, amount: Whole
) -> Whole:
    """Turn a flow of `value` from `old` into one of up to `amount` from `source`; return what is left of `amount`.

    Excess passes over the network once, from the sources to the sink. Where it is below 0, a node sends as much less; where
    it is above, a node sends more: first to receivers that lack something, so that most of it is settled after an arc or
    two and the rest of the flow stays as it is; then to its favourites, and then to all with room. What got stuck is taken back.
    """
    group = graph.group
    excess, lacking = scratch.excess, scratch.lacking
    excess[old] -= value
    excess[source] += amount
    if excess[old] < 0:
        lacking[old >> 6] |= bit(old)
    for i in range(group.size - 1):
        _send_less(graph, scratch, group[i], group[i + 1])
        _send_more(graph, scratch, sink, group[i], group[i + 1])
    excess[sink] = 0
    lacking[sink >> 6] &= ~bit(sink)
    if source != sink:
        _take_back(graph, scratch, source)
    left = excess[source]
    excess[source] = 0
    return left


@compiled
def _send_less(graph: Graph, scratch: Scratch, begin: Whole, end: Whole) -> None:
    """Let nodes of a group that lack something send as much less."""
    window, row, column = graph.window, graph.row, graph.column
    start, stop, order = scratch.start, scratch.stop, graph.order
    page, flow, is_open, sent, fed = scratch.page, scratch.flow, scratch.open, scratch.sent, scratch.fed
    room, roomy, excess, lacking = scratch.room, scratch.roomy, scratch.excess, scratch.lacking
    for i in range(begin, end):
        node = order[i]
        need = -excess[node]
        if need <= 0 or start[node] == stop[node]:
            continue
        lacking[node >> 6] &= ~bit(node)
        for word in range(start[node] >> 6, (stop[node] + 63) >> 6):
            candidates = sent[row[node] + word]
            while candidates and need > 0:
                other = (word << 6) + lowest(candidates)
                candidates &= candidates - _ONE
                place = window[node] + other
                slot = (np.int64(page[place >> PAGE]) << PAGE) + (place & ON_PAGE)
                less = min(need, np.int64(flow[slot]))
                need -= less
                flow[slot] -= less
                is_open[row[node] + word] |= bit(other)
                if flow[slot] == 0:
                    sent[row[node] + word] &= ~bit(other)
                    fed[column[other] + (node >> 6)] &= ~bit(node)
                room[other] += less
                roomy[other >> 6] |= bit(other)
                excess[other] -= less
                if excess[other] < 0:
                    lacking[other >> 6] |= bit(other)
            if need == 0:
                break
        excess[node] = -need


@compiled
def _send_more(graph: Graph, scratch: Scratch, sink: Whole, begin: Whole, end: Whole) -> None:
    """Let nodes of a group that have got too much send it on."""
    window, row, column, capacity = graph.window, graph.row, graph.column, graph.capacity
    start, stop, order = scratch.start, scratch.stop, graph.order
    page, flow, n_pages = scratch.page, scratch.flow, scratch.n_pages
    is_open, sent, fed = scratch.open, scratch.sent, scratch.fed
    room, roomy, excess, lacking = scratch.room, scratch.roomy, scratch.excess, scratch.lacking
    favourites = scratch.favourites
    for i in range(begin, end):
        node = order[i]
        want = excess[node]
        if want <= 0 or node == sink:
            continue
        for phase in range(3):  # to those that lack something, to favourites, to all with room
            favoured = phase == 1
            for word in range(0 if favoured else start[node] >> 6, FAVOURITES if favoured else (stop[node] + 63) >> 6):
                if favoured:
                    other = np.int64(favourites[node, word])
                    candidates = _ONE if other >= 0 else _ONE - _ONE
                elif phase == 0:
                    candidates = is_open[row[node] + word] & lacking[word]
                else:
                    candidates = is_open[row[node] + word] & roomy[word]
                while candidates and want > 0:
                    if not favoured:
                        other = (word << 6) + lowest(candidates)
                    candidates &= candidates - _ONE
                    place = window[node] + other
                    slot = (np.int64(page[place >> PAGE]) << PAGE) + (place & ON_PAGE)
                    carried = np.int64(flow[slot])
                    more = min(want, capacity[place] - carried, np.int64(room[other]))
                    if phase == 0:
                        more = min(more, -excess[other])
                    if more <= 0:
                        continue
                    if carried == 0:
                        sent[row[node] + (other >> 6)] |= bit(other)
                        fed[column[other] + (node >> 6)] |= bit(node)
                    want -= more
                    if slot <= ON_PAGE:
                        n_pages[0] += 1
                        page[place >> PAGE] = n_pages[0]
                        slot += n_pages[0] << PAGE
                    flow[slot] = carried + more
                    if carried + more == capacity[place]:
                        is_open[row[node] + (other >> 6)] &= ~bit(other)
                    room[other] -= more
                    if room[other] <= 0:
                        roomy[other >> 6] &= ~bit(other)
                    excess[other] += more
                    if excess[other] >= 0:
                        lacking[other >> 6] &= ~bit(other)
                if want == 0:
                    break
            if want == 0:
                break
        excess[node] = want


@compiled
def _take_back(graph: Graph, scratch: Scratch, source: Whole) -> None:
    """Take back what nodes got too much, up to the source."""
    window, row, column = graph.window, graph.row, graph.column
    first, end, order = graph.first, graph.end, graph.order
    page, flow, is_open, sent, fed = scratch.page, scratch.flow, scratch.open, scratch.sent, scratch.fed
    room, roomy, excess = scratch.room, scratch.roomy, scratch.excess
    for i in range(order.size - 1, -1, -1):
        node = order[i]
        want = excess[node]
        if want <= 0 or node == source:
            continue
        excess[node] = 0
        room[node] += want
        roomy[node >> 6] |= bit(node)
        for word in range(first[node] >> 6, (end[node] + 63) >> 6):
            candidates = fed[column[node] + word]
            while candidates and want > 0:
                other = (word << 6) + lowest(candidates)
                candidates &= candidates - _ONE
                place = window[other] + node
                slot = (np.int64(page[place >> PAGE]) << PAGE) + (place & ON_PAGE)
                back = min(want, np.int64(flow[slot]))
                want -= back
                flow[slot] -= back
                is_open[row[other] + (node >> 6)] |= bit(node)
                if flow[slot] == 0:
                    sent[row[other] + (node >> 6)] &= ~bit(node)
                    fed[column[node] + word] &= ~bit(other)
                excess[other] += back
            if want == 0:
                break


@compiled
def push_around(
    graph: Graph, scratch: Scratch, reached: Whole, source: Whole, sink: Whole, amount: Whole, patience: Whole
) -> tuple[Whole, Whole]:
    """Push up to `amount` over the residual arcs that `find_reach` found, depth first; return what was left, and patience.

    A node is asked for an amount, asks others in turn, and answers with what got through; one that could not do all it was
    asked is out until the end. It asks nodes that were found in earlier turns; or in the same one, if that went the same way.
    So no path comes round, and who was found before the source need not be looked at twice. Once patience is at an end, all
    answer with what they have.
    """
    window, row, column, capacity = graph.window, graph.row, graph.column, graph.capacity
    start, stop, end = scratch.start, scratch.stop, graph.end
    page, flow, n_pages = scratch.page, scratch.flow, scratch.n_pages
    is_open, sent, fed = scratch.open, scratch.sent, scratch.fed
    room, roomy, turn, following = scratch.room, scratch.roomy, scratch.turn, scratch.following
    live, stack, n_nodes = scratch.live, scratch.stack, graph.order.size
    live[:] = ~np.uint64(0)
    depth = 0
    stack[0, 0], stack[0, 1], stack[0, 2] = source, amount, amount
    while True:
        node, asked, want = stack[depth, 0], stack[depth, 1], stack[depth, 2]
        other: Whole = np.int64(-1)
        back = 0
        if node == sink:
            want = np.int64(0)
        elif want > 0 and patience > 0 and live[node >> 6] & bit(node):
            at, mine = following[node], turn[node]
            if at < n_nodes:  # first those that it can give back to
                mates = mine - 1 + (mine & 1)
                while at < end[node]:
                    patience -= 1
                    word = at >> 6
                    candidates = fed[column[node] + word] & reached[mates, word] & live[word]
                    candidates >>= np.uint64(at & 63)
                    if candidates:
                        at += lowest(candidates)
                        other, back = at, 1
                        break
                    at = (word + 1) << 6
                if other < 0:
                    at = n_nodes + start[node]
            if at >= n_nodes:  # then those that it can send to
                at -= n_nodes
                mates = mine - (mine & 1)
                while at < stop[node]:
                    patience -= 1
                    word = at >> 6
                    candidates = is_open[row[node] + word] & reached[mates, word] & live[word]
                    candidates >>= np.uint64(at & 63)
                    if candidates:
                        at += lowest(candidates)
                        other = at
                        break
                    at = (word + 1) << 6
                at += n_nodes
            following[node] = at
        if other >= 0:
            place = window[other] + node if back else window[node] + other
            carried = np.int64(flow[(np.int64(page[place >> PAGE]) << PAGE) + (place & ON_PAGE)])
            able = carried if back else capacity[place] - carried
            stack[depth, 3] = back
            depth += 1
            stack[depth, 0], stack[depth, 1], stack[depth, 2] = other, min(want, able), min(want, able)
            continue
        given = asked - want
        if want > 0:
            live[node >> 6] &= ~bit(node)
        if depth == 0:
            return want, patience
        depth -= 1
        stack[depth, 2] -= given
        if given == 0:
            continue
        asker = stack[depth, 0]
        sender, receiver = (node, asker) if stack[depth, 3] else (asker, node)
        place = window[sender] + receiver
        slot = (np.int64(page[place >> PAGE]) << PAGE) + (place & ON_PAGE)
        if slot <= ON_PAGE:
            n_pages[0] += 1
            page[place >> PAGE] = n_pages[0]
            slot += n_pages[0] << PAGE
        if stack[depth, 3]:
            flow[slot] -= given
            is_open[row[sender] + (receiver >> 6)] |= bit(receiver)
            room[receiver] += given
            roomy[receiver >> 6] |= bit(receiver)
            if flow[slot] == 0:
                sent[row[sender] + (receiver >> 6)] &= ~bit(receiver)
                fed[column[receiver] + (sender >> 6)] &= ~bit(sender)
        else:
            if flow[slot] == 0:
                sent[row[sender] + (receiver >> 6)] |= bit(receiver)
                fed[column[receiver] + (sender >> 6)] |= bit(sender)
            flow[slot] += given
            if flow[slot] == capacity[place]:
                is_open[row[sender] + (receiver >> 6)] &= ~bit(receiver)
            room[receiver] -= given
            if room[receiver] <= 0:
                roomy[receiver >> 6] &= ~bit(receiver)
