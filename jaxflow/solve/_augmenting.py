"""Residual search, compiled: which nodes have a residual path to the sink, and pushing flow over such paths.

Leaves a valid flow. Leaves JAX: Numba. Arrays are taken out of their tuples once, at the top: inside a loop that would
cost a reference count each time (measured: four times the time of all the rest), and so would a function that finds where an
arc's flow stands, even an inlined one.

Numba keeps compiled code by file: after a change here, touch `search.py` and `extending.py`, whose functions contain these.
"""

from __future__ import annotations

import numpy as np

from jaxflow.solve._bits import Whole, at, bit, lowest
from jaxflow.solve._compiled import compiled
from jaxflow.solve._windows import ON_PAGE, PAGE, Graph, Scratch


@compiled
def find_reach(graph: Graph, scratch: Scratch, source: Whole, sink: Whole) -> Whole:
    """Find nodes with a residual path to `sink`, in turns, until `source` is one or there are no more; return `reached`.

    In even turns, a node is found that can send to one that was found before it; in odd turns, one that can give back.
    Then `scratch.reach` has the source's bit. If not, it holds all nodes with such a path, and the arcs into those are a
    minimum cut: each is full, and no flow leaves them.
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
            place = window[at(other)] + node if back else window[at(node)] + other
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
        place = window[at(sender)] + receiver
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
