"""Compiled search for one maximum flow after another, in whole quanta. Leaves JAX: Numba, without the GIL.

Import this module only when the certified solver runs: importing Numba takes longer than all the rest.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Int

from jaxflow.solve.compiled import compiled
from jaxflow.solve.flows import ORTOOLS, RESIDUAL, SEARCHED, UNFINISHED
from jaxflow.solve.pushing import bit, push_ahead, push_around, push_wave
from jaxflow.solve.windows import FAVOURITES, INT32_MAX, Graph, Scratch, Whole

# Who is asked for less than this share of the whole flow asks only its favourites, at first.
SMALL = 1 / 64
# After so many looks at arcs per arc of the network, residual search leaves a pair to the last resort.
PATIENCE = 100


@compiled
def solve_block(
    graph: Graph,
    scratch: Scratch,
    sources: Int[np.ndarray, " pair"],
    sinks: Int[np.ndarray, " pair"],
    slack: Whole,
    patience: Whole,
    halt: Int[np.ndarray, " 1"],
    done: Int[np.ndarray, " counter"],
    where: Int[np.ndarray, " pair"],
    lower: Int[np.ndarray, " result"],
    upper: Int[np.ndarray, " result"],
    stage: Int[np.ndarray, " result"],
) -> None:
    """Solve pairs one after another: a wave, then depth first, each up to the bound; then residual search to the end.

    `upper` holds a valid bound of each pair before, and a better one after. `done[0]` counts. Stops between two pairs, or
    two rounds of residual search, once `halt[0]` is set; what was not settled keeps stage UNFINISHED.

    Args:
        graph: shared.
        scratch: this thread's.
        sources: numbers of the pairs' nodes, in the order of `graph`.
        sinks: likewise; equal ones next to each other save work.
        slack: a pair is settled when its bounds differ by no more quanta.
        patience: looks at arcs in the residual search of a pair, after which it is left to OR-Tools.
        halt: not 0 to stop.
        done: number of pairs settled.
        where: place of each pair among the results.
        lower: written.
        upper: read and written.
        stage: written.
    """
    near, able, live, room = scratch.near, scratch.able, scratch.live, scratch.room
    soft, spare = scratch.soft, scratch.spare
    rest, is_open, into, log = scratch.rest, scratch.open, scratch.into, scratch.log
    capacity, row = graph.capacity, graph.row
    aimed = scratch.aimed
    for i in range(sources.size):
        if halt[0] != 0:
            return
        source, sink, pair = sources[i], sinks[i], where[i]
        if sink != aimed[0]:
            aim(graph, scratch, sink)
            aimed[0] = sink
        bound: Whole = min(np.int64(near[source]), upper[pair])
        left: Whole = bound
        n_log: Whole = 0
        stage[pair] = SEARCHED
        if left > slack:
            room[:] = near
            spare[:] = soft
            left, n_log = push_wave(graph, scratch, source, sink, left)
        for small in (np.int64(bound * SMALL), np.int64(0)):
            if left > slack:
                live[:] = able
                for node in range(room.size):
                    if room[node] <= 0:
                        live[node >> 6] &= ~bit(node)
                room[source] = left
                left, n_log = push_ahead(graph, scratch, source, sink, left, n_log, small)
        patience_left: Whole = np.int64(patience)
        if left > slack:
            stage[pair] = RESIDUAL
        while left > slack:
            if not find_reach(graph, scratch, source, sink):
                bound -= left
                left -= left
            elif halt[0] != 0:
                stage[pair] = UNFINISHED
                break
            else:
                left, n_log, patience_left = push_around(graph, scratch, source, sink, left, n_log, patience_left)
                if patience_left <= 0 and left > slack:
                    stage[pair] = ORTOOLS
                    break
        lower[pair], upper[pair] = bound - left, bound
        for entry in range(n_log):
            place, sender, receiver = log[entry, 0], np.int64(log[entry, 1]), np.int64(log[entry, 2])
            rest[place] = capacity[place]
            into[receiver] = -1
            is_open[row[sender] + (receiver >> 6)] |= bit(receiver)
        if stage[pair] < ORTOOLS:
            done[0] += 1


@compiled
def aim(graph: Graph, scratch: Scratch, sink: Whole) -> None:
    """Bound what each node can send to `sink`, and choose its favourites. O(arcs).

    `near[u] = sum_v min(capacity[u, v], near[v])`, from the sink back.
    """
    near, share, favourites, able = scratch.near, scratch.share, scratch.favourites, scratch.able
    window, start, stop, order, capacity = graph.window, graph.start, graph.stop, graph.order, graph.capacity
    entering = graph.entering
    soft = scratch.soft
    near[:] = 0
    soft[:] = 0
    share[:] = 0
    able[:] = 0
    favourites[:] = -1
    near[sink] = soft[sink] = INT32_MAX
    share[sink] = 1 / np.float32(entering[sink] + 1)
    able[sink >> 6] |= bit(sink)
    best = np.zeros(FAVOURITES, np.float32)
    for i in range(order.size - 1, -1, -1):
        node = order[i]
        first, n = start[node], stop[node] - start[node]
        if node == sink or n == 0:
            continue
        arcs = capacity[window[node] + first : window[node] + first + n]
        bounds, shares = near[first : first + n], share[first : first + n]
        bound = np.int64(0)
        for j in range(n):
            bound += min(arcs[j], bounds[j])
        if bound == 0:
            continue
        near[node] = min(bound, np.int64(INT32_MAX))
        able[node >> 6] |= bit(node)
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
                favourites[node, place] = first + j
                least = best[FAVOURITES - 1]
        bound = np.int64(0)
        for j in range(FAVOURITES):
            if favourites[node, j] >= 0:
                bound += min(capacity[window[node] + favourites[node, j]], soft[favourites[node, j]])
        soft[node] = min(bound, np.int64(INT32_MAX))
        share[node] = total / np.float32(max(entering[node], 1))


@compiled
def find_reach(graph: Graph, scratch: Scratch, source: Whole, sink: Whole) -> bool:
    """Find all nodes with a residual path to `sink`, and rank them; tell whether `source` is one.

    If it is not, the arcs into those nodes are a minimum cut: each is full, and no flow leaves them.
    """
    start, stop, row, order, capacity = graph.start, graph.stop, graph.row, graph.order, graph.capacity
    rest, is_open, into, log = scratch.rest, scratch.open, scratch.into, scratch.log
    reach, rank = scratch.reach, scratch.rank
    reach[:] = 0
    reach[sink >> 6] |= bit(sink)
    rank[sink] = 0
    found = 1
    before = 0
    while found > before:
        before = found
        for i in range(order.size - 1, -1, -1):
            node = order[i]
            if stop[node] > start[node] and not reach[node >> 6] & bit(node):
                for word in range(start[node] >> 6, (stop[node] + 63) >> 6):
                    if is_open[row[node] + word] & reach[word]:
                        reach[node >> 6] |= bit(node)
                        rank[node] = found
                        found += 1
                        break
        if before > 1 and found == before:
            break
        before = found
        for i in range(order.size):
            node = order[i]
            entry = into[node]
            if entry >= 0 and not reach[node >> 6] & bit(node):
                while entry >= 0:
                    sender, place = log[entry, 1], log[entry, 0]
                    if reach[sender >> 6] & bit(sender) and rest[place] < capacity[place]:
                        reach[node >> 6] |= bit(node)
                        rank[node] = found
                        found += 1
                        break
                    entry = log[entry, 3]
    return (reach[source >> 6] & bit(source)) != 0
