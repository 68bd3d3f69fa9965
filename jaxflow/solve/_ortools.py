"""The reference solver: one OR-Tools maximum flow per pair, on the host, on one graph that is built once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Literal

import numpy as np
from jaxtyping import Int
from ortools.graph.python.max_flow import SimpleMaxFlow

from jaxflow.solve._flows import ORTOOLS, UNFINISHED, Flows
from jaxflow.solve._quantise import QuantisedNetwork


def find_flows(
    network: QuantisedNetwork,
    sources: Int[np.ndarray, " pair"],
    sinks: Int[np.ndarray, " pair"],
    *,
    deadline: float | None = None,
    on_solved: Callable[[], object] | None = None,
) -> Flows:
    """Solve pair after pair, up to `deadline` (of `time.monotonic()`)."""
    trivial = np.minimum(network.leaving[sources], network.entering[sinks])
    lower, upper = np.zeros_like(trivial), trivial.copy()
    stage = np.full(len(sources), UNFINISHED, np.int8)
    solved = solve_pairs(network, sources, sinks)
    for pair in range(len(sources)):
        if deadline is not None and time.monotonic() >= deadline:
            break
        lower[pair], cut = next(solved)
        upper[pair], stage[pair] = network.capacity[cut].sum(), ORTOOLS
        if on_solved is not None:
            on_solved()
    return Flows(lower=lower, upper=upper, trivial=trivial, stage=stage, quantum=network.quantum)


def solve_pairs(
    network: QuantisedNetwork,
    sources: Int[np.ndarray, " pair"],
    sinks: Int[np.ndarray, " pair"],
    *,
    nearest: Literal["source", "sink"] = "source",
) -> Iterator[tuple[int, Int[np.ndarray, " arc"]]]:
    """Solve each pair on its own.

    Yields:
        For each pair the value of its maximum flow in quanta, and the arcs of the minimum cut nearest to one end, as
        indices into the network's arcs. Their capacity, summed over our own arcs, is the value, or this raises.

    Raises:
        RuntimeError: OR-Tools failed, or its flow and its cut contradict one another.
    """
    graph = SimpleMaxFlow()
    graph.add_arcs_with_capacity(network.senders, network.receivers, network.capacity)
    for source, sink in zip(sources.tolist(), sinks.tolist(), strict=True):
        # A node without arcs does not exist for OR-Tools, which then answers OPTIMAL whatever it was asked.
        if not (network.leaving[source] and network.entering[sink]):
            yield 0, np.zeros(0, np.int64)
            continue
        status = graph.solve(source, sink)
        if status != SimpleMaxFlow.OPTIMAL:
            raise RuntimeError(f"OR-Tools ended with {status} from node {source} to {sink}; expected OPTIMAL.")
        flow = int(graph.optimal_flow())
        cut = _cut_arcs(graph, network, nearest)
        if flow != network.capacity[cut].sum():
            raise RuntimeError(
                f"OR-Tools found a flow of {flow} quanta from node {source} to {sink}, but a cut of "
                f"{network.capacity[cut].sum()}: please report this network."
            )
        yield flow, cut


def _cut_arcs(
    graph: SimpleMaxFlow, network: QuantisedNetwork, nearest: Literal["source", "sink"]
) -> Int[np.ndarray, " arc"]:
    on_source_side = np.full(len(network.leaving), nearest == "sink")
    if nearest == "source":
        on_source_side[graph.get_source_side_min_cut()] = True
    else:
        on_source_side[graph.get_sink_side_min_cut()] = False
    return np.flatnonzero(on_source_side[network.senders] & ~on_source_side[network.receivers])
