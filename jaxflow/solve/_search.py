"""Compiled search for one maximum flow after another, in whole quanta. Leaves JAX: Numba, without the GIL.

Import this module only when the certified solver runs: importing Numba takes longer than all the rest.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Int

from jaxflow.solve._augmenting import find_reach, push_around
from jaxflow.solve._bits import ONE, Whole, bit, lowest
from jaxflow.solve._compiled import compiled
from jaxflow.solve._flows import ORTOOLS, RESIDUAL, SEARCHED, UNFINISHED
from jaxflow.solve._wave import push_wave
from jaxflow.solve._windows import FAVOURITES, INT32_MAX, ON_PAGE, PAGE, Graph, Scratch

# After so many looks at words per arc of the network, residual search leaves a pair to the last resort.
PATIENCE = 100


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
    """Solve pairs one after another: a wave makes the last pair's flow this one's; then residual search to the end.

    Each stops at the bound. `upper` holds a valid bound of each pair before, and a better one after. `done[0]` counts. Stops
    between two pairs, or two rounds of residual search, once `halt[0]` is set; what was not settled keeps stage UNFINISHED.

    Args:
        graph: shared.
        scratch: this thread's.
        sources: numbers of the pairs' nodes, in the order of `graph`; neighbours next to each other save work.
        sinks: likewise; equal ones next to each other.
        starts: which pairs start from no flow, in order, the first one and each with another sink than the last among them:
            results must not depend on who solves which pairs.
        slack: a pair is settled when its bounds differ by no more quanta.
        patience: looks at words in the residual search of a pair, after which it is left to OR-Tools.
        halt: not 0 to stop.
        done: number of pairs settled.
        where: place of each pair among the results.
        lower: written.
        upper: read and written.
        stage: written.
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
def order_pairs(
    number: Int[np.ndarray, " node"], sources: Int[np.ndarray, " pair"], sinks: Int[np.ndarray, " pair"]
) -> Int[np.ndarray, " pair"]:
    """Sort pairs by sink, then by source in the graph's order, the last first; int32. By counting, O(pairs + nodes)."""
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
    """Take all flow back. O(arcs / 16), and what the flow touches."""
    window, row = graph.window, graph.row
    page, flow, is_open, sent = scratch.page, scratch.flow, scratch.open, scratch.sent
    near, room, roomy = scratch.near, scratch.room, scratch.roomy
    for node in range(window.size):
        if graph.stop[node] == graph.start[node]:
            continue
        for word in range(graph.start[node] >> 6, (graph.stop[node] + 63) >> 6):
            candidates = sent[row[node] + word]
            is_open[row[node] + word] |= candidates
            sent[row[node] + word] = 0
            while candidates:
                place = window[node] + (word << 6) + lowest(candidates)
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
    """Bound what each node can send to `sink`, and choose its favourites; take all flow back. O(arcs).

    `near[u] = sum_v min(capacity[u, v], near[v])`, from the sink back.
    """
    near, share, favourites = scratch.near, scratch.share, scratch.favourites
    window, order, capacity, entering = graph.window, graph.order, graph.capacity, graph.entering
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
        arcs = capacity[window[node] + start : window[node] + stop]
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
