"""One maximum flow, arc by arc, and what it leaves open. On the host, in integers, with NumPy and OR-Tools alone.

The flow along arcs is one solver's choice of many and is not published: what holds for all of them is derived from it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np
from jaxtyping import Bool, Int
from ortools.graph.python.max_flow import SimpleMaxFlow

from jaxflow.solve._quantise import QuantisedNetwork


def solve_flows(
    network: QuantisedNetwork, sources: Int[np.ndarray, " pair"], sinks: Int[np.ndarray, " pair"]
) -> Iterator[Int[np.ndarray, " arc"]]:
    """Solve each pair on its own, on a graph that is built once.

    Yields:
        For each pair `[arc]`, int64: one maximum flow.

    Raises:
        RuntimeError: OR-Tools failed.
    """
    graph = SimpleMaxFlow()
    arcs = graph.add_arcs_with_capacity(network.senders, network.receivers, network.capacity)
    for source, sink in zip(sources.tolist(), sinks.tolist(), strict=True):
        # A node without arcs does not exist for OR-Tools, which then answers OPTIMAL whatever it was asked.
        if not (network.leaving[source] and network.entering[sink]):
            yield np.zeros(len(network.capacity), np.int64)
            continue
        status = graph.solve(source, sink)
        if status != SimpleMaxFlow.OPTIMAL:
            raise RuntimeError(f"OR-Tools ended with {status} from node {source} to {sink}; expected OPTIMAL.")
        yield np.asarray(graph.flows(arcs), np.int64)


def source_side(
    network: QuantisedNetwork,
    flow: Int[np.ndarray, " arc"],
    *,
    source: int,
    sink: int,
    nearest: Literal["source", "sink"],
) -> Bool[np.ndarray, " node"]:
    """Find the nodes on the source's side of the minimum cut nearest to one end.

    Residual arcs of any maximum flow lead from the source to just the side of the nearest cut, and to the sink from just the
    other side of the cut that is nearest to it.
    """
    more, less = flow < network.capacity, flow > 0
    senders = np.concatenate([network.senders[more], network.receivers[less]])
    receivers = np.concatenate([network.receivers[more], network.senders[less]])
    if nearest == "source":
        return _reached(source, senders, receivers, len(network.leaving))
    return ~_reached(sink, receivers, senders, len(network.leaving))


def _reached(
    start: int, senders: Int[np.ndarray, " arc"], receivers: Int[np.ndarray, " arc"], n_nodes: int
) -> Bool[np.ndarray, " node"]:
    reached = np.zeros(n_nodes, bool)
    reached[start] = True
    n_reached = 0
    while n_reached < (n_reached := int(reached.sum())):
        reached[receivers[reached[senders]]] = True
    return reached
