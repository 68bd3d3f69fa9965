"""Three ways to push flow, compiled: a wave, depth first ahead, and around over residual arcs. Leaves JAX: Numba.

Each leaves a valid flow. Arrays are taken out of their tuples once, at the top: inside a loop that would cost a reference
count each time (measured: four times the time of all the rest), and so would a function that stores an arc's new rest.

Numba keeps compiled code by file: after a change here, touch `search.py`, whose functions contain these.
"""

from __future__ import annotations

import numba
import numpy as np

from jaxflow.solve.compiled import compiled
from jaxflow.solve.windows import FAVOURITES, Graph, Scratch, Whole

_inlined = numba.njit(inline="always")

_ONE = np.uint64(1)
_DE_BRUIJN = np.uint64(0x03F79D71B4CB0A89)
_TOP_SIX = np.uint64(58)
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
def push_wave(graph: Graph, scratch: Scratch, source: Whole, sink: Whole, amount: Whole) -> tuple[Whole, Whole]:
    """Push `amount` over forward arcs, node after node; take back what got stuck; return what was left and the log's length.

    Each node sends to its favourites, then to all, what these can send on with no detour; then to its favourites, and
    then to all, what they can send at best.
    """
    window, start, stop, row, order = graph.window, graph.start, graph.stop, graph.row, graph.order
    capacity, rest, is_open, into, log = graph.capacity, scratch.rest, scratch.open, scratch.into, scratch.log
    favourites, room, spare, excess = scratch.favourites, scratch.room, scratch.spare, scratch.excess
    n_log = 0
    excess[source] = amount
    stuck = 0
    for i in range(order.size):
        node = order[i]
        want = excess[node]
        if want == 0 or node == sink:
            continue
        for phase in range(4):
            favoured = phase & 1 == 0
            for j in range(FAVOURITES if favoured else stop[node] - start[node]):
                other = np.int64(favourites[node, j]) if favoured else start[node] + j
                if other < 0:
                    break
                place = window[node] + other
                send = min(want, np.int64(min(rest[place], room[other])))
                if phase < 2:
                    send = min(send, np.int64(spare[other]))
                if send <= 0:
                    continue
                left = rest[place]
                if left == capacity[place]:
                    log[n_log, 0], log[n_log, 1], log[n_log, 2], log[n_log, 3] = place, node, other, into[other]
                    into[other] = n_log
                    n_log += 1
                left -= send
                rest[place] = left
                if left == 0:
                    is_open[row[node] + (other >> 6)] &= ~bit(other)
                room[other] -= send
                spare[other] -= send
                excess[other] += send
                want -= send
                if want == 0:
                    break
            if want == 0:
                break
        excess[node] = want
        stuck += want
    excess[sink] = 0
    if stuck > 0:
        for i in range(order.size - 1, -1, -1):
            node = order[i]
            want = excess[node]
            if want == 0 or node == source:
                continue
            excess[node] = 0
            room[node] += want
            entry = into[node]
            while want > 0:
                place, sender = log[entry, 0], log[entry, 1]
                back = min(want, np.int64(capacity[place] - rest[place]))
                if back > 0:
                    rest[place] += back
                    is_open[row[sender] + (node >> 6)] |= bit(node)
                    excess[sender] += back
                    want -= back
                entry = log[entry, 3]
    left = excess[source]
    excess[source] = 0
    return left, n_log


@compiled
def push_ahead(
    graph: Graph, scratch: Scratch, source: Whole, sink: Whole, amount: Whole, n_log: Whole, small: Whole
) -> tuple[Whole, Whole]:
    """Push up to `amount` over forward arcs, depth first; return what was left and the length of the log.

    A node is asked for an amount, asks its receivers in turn, and answers with what got through; one that could not do
    all it was asked is out until the end. With `small` 0, what is left cannot be pushed without taking back (a blocking
    flow); otherwise who is asked for less than `small` asks its favourites alone.
    """
    window, start, stop, row, capacity = graph.window, graph.start, graph.stop, graph.row, graph.capacity
    rest, is_open, into, log, stack = scratch.rest, scratch.open, scratch.into, scratch.log, scratch.stack
    favourites, live, room = scratch.favourites, scratch.live, scratch.room
    depth = 0
    stack[0, 0], stack[0, 1], stack[0, 2] = source, amount, amount
    while True:
        node, asked, want = stack[depth, 0], stack[depth, 1], stack[depth, 2]
        receiver: Whole = np.int64(-1)
        if want > 0:
            for j in range(FAVOURITES):
                other = np.int64(favourites[node, j])
                if other < 0:
                    break
                if live[other >> 6] & bit(other) and rest[window[node] + other] > 0:
                    receiver = other
                    break
            if receiver < 0 and asked >= small:
                for word in range(start[node] >> 6, (stop[node] + 63) >> 6):
                    candidates = is_open[row[node] + word] & live[word]
                    if candidates:
                        receiver = (word << 6) + lowest(candidates)
                        break
        if receiver >= 0:
            ask = min(want, np.int64(min(rest[window[node] + receiver], room[receiver])))
            if receiver != sink:
                depth += 1
                stack[depth, 0], stack[depth, 1], stack[depth, 2] = receiver, ask, ask
                continue
            given, sender, node = ask, node, receiver
        else:
            given = asked - want
            room[node] -= given
            if want > 0 or room[node] <= 0:
                live[node >> 6] &= ~bit(node)
            if depth == 0:
                return want, n_log
            depth -= 1
            sender = stack[depth, 0]
        if given > 0:
            place = window[sender] + node
            left = rest[place]
            if left == capacity[place]:
                log[n_log, 0], log[n_log, 1], log[n_log, 2], log[n_log, 3] = place, sender, node, into[node]
                into[node] = n_log
                n_log += 1
            left -= given
            rest[place] = left
            if left == 0:
                is_open[row[sender] + (node >> 6)] &= ~bit(node)
            stack[depth, 2] -= given


@compiled
def push_around(
    graph: Graph, scratch: Scratch, source: Whole, sink: Whole, amount: Whole, n_log: Whole, patience: Whole
) -> tuple[Whole, Whole, Whole]:
    """Push up to `amount` over residual arcs of falling rank; return what was left, the log's length and patience.

    Patience below 0 says that the search gave up, with flow under way: `rest` is good for nothing then but undoing.
    """
    window, start, stop, row, capacity = graph.window, graph.start, graph.stop, graph.row, graph.capacity
    rest, is_open, into, log, stack = scratch.rest, scratch.open, scratch.into, scratch.log, scratch.stack
    reach, rank = scratch.reach, scratch.rank
    depth = 0
    stack[0, 0], stack[0, 1], stack[0, 2] = source, amount, amount
    while True:
        node, asked, want = stack[depth, 0], stack[depth, 1], stack[depth, 2]
        receiver: Whole = np.int64(-1)
        back: Whole = np.int64(-1)
        if want > 0 and node != sink:
            mine = rank[node]
            if stop[node] > start[node]:
                for word in range(start[node] >> 6, (stop[node] + 63) >> 6):
                    candidates = is_open[row[node] + word] & reach[word]
                    while candidates:
                        patience -= 1
                        other = (word << 6) + lowest(candidates)
                        if rank[other] < mine:
                            receiver = other
                            break
                        candidates &= candidates - _ONE
                    if receiver >= 0:
                        break
            if receiver < 0:
                back = np.int64(into[node])
                while back >= 0:
                    patience -= 1
                    other = np.int64(log[back, 1])
                    place = log[back, 0]
                    if reach[other >> 6] & bit(other) and rank[other] < mine and rest[place] < capacity[place]:
                        receiver = other
                        break
                    back = np.int64(log[back, 3])
        elif node == sink:
            want = np.int64(0)
        if receiver >= 0:
            if back < 0:
                ask = min(want, np.int64(rest[window[node] + receiver]))
            else:
                ask = min(want, np.int64(capacity[log[back, 0]] - rest[log[back, 0]]))
            stack[depth, 3] = back
            depth += 1
            stack[depth, 0], stack[depth, 1], stack[depth, 2] = receiver, ask, ask
            continue
        given = asked - want
        if want > 0:
            reach[node >> 6] &= ~bit(node)
        if depth == 0:
            return want, n_log, max(patience, 0)
        if patience < 0 or n_log == log.shape[0]:
            return amount, n_log, np.int64(-1)
        depth -= 1
        if given > 0:
            sender, back = stack[depth, 0], stack[depth, 3]
            if back < 0:
                place = window[sender] + node
                if rest[place] == capacity[place]:
                    log[n_log, 0], log[n_log, 1], log[n_log, 2], log[n_log, 3] = place, sender, node, into[node]
                    into[node] = n_log
                    n_log += 1
                rest[place] -= given
                if rest[place] == 0:
                    is_open[row[sender] + (node >> 6)] &= ~bit(node)
            else:
                rest[log[back, 0]] += given
                is_open[row[node] + (sender >> 6)] |= bit(sender)
            stack[depth, 2] -= given
