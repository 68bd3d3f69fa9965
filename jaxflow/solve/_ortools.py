"""The reference solver: one maximum flow of OR-Tools per pair, on one graph that is built once. Leaves JAX: on the host."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Int
from ortools.graph.python.max_flow import SimpleMaxFlow

from jaxflow._attention import AnyInt
from jaxflow.solve._flows import ORTOOLS, UNFINISHED, Flows
from jaxflow.solve._quantise import QuantisedNetwork


class Solved(NamedTuple):
    """The maximum flow of one pair. Valid until the next pair is solved, since all pairs share one graph.

    Attributes:
        value: of the flow, in quanta.
        network: what was solved.
        graph: OR-Tools' graph; None where no arc leaves the source or none enters the sink.
    """

    value: int
    network: QuantisedNetwork
    graph: SimpleMaxFlow | None

    def flow(self) -> Int[np.ndarray, " arc"]:
        """Return `[arc]`, quanta: the flow of each arc, one of many maximum flows."""
        arcs = np.arange(len(self.network.capacity), dtype=np.int32)
        if self.graph is None:
            return np.zeros(len(arcs), np.int64)
        return np.asarray(self.graph.flows(arcs), np.int64)

    def cut(self, nearest: Literal["source", "sink"] = "source") -> Int[np.ndarray, " arc"]:
        """Return the arcs of the minimum cut nearest one end, as indices into the network's arcs.

        Raises:
            RuntimeError: their capacity, summed over the network's own arcs, is not the value of the flow.
        """
        if self.graph is None:
            return np.zeros(0, np.int64)
        network = self.network
        on_source_side = np.full(len(network.leaving), nearest == "sink")
        if nearest == "source":
            on_source_side[self.graph.get_source_side_min_cut()] = True
        else:
            on_source_side[self.graph.get_sink_side_min_cut()] = False
        arcs = np.flatnonzero(on_source_side[network.senders] & ~on_source_side[network.receivers])
        check_cut(self.value, network.capacity[arcs].sum())
        return arcs


def find_flows(
    network: QuantisedNetwork,
    sources: Int[np.ndarray, " pair"],
    sinks: Int[np.ndarray, " pair"],
    *,
    deadline: float | None = None,
    on_solved: Callable[[], object] | None = None,
) -> Flows:
    """Find the value of each pair's maximum flow, with the capacity of a cut, until `deadline` (of `time.monotonic()`)."""
    trivial = np.minimum(network.leaving[sources], network.entering[sinks])
    lower, upper = np.zeros_like(trivial), trivial.copy()
    stage = np.full(len(sources), UNFINISHED, np.int8)
    pairs = solve_pairs(network, sources, sinks)
    for pair in range(len(sources)):
        if deadline is not None and time.monotonic() >= deadline:
            break
        solved = next(pairs)
        lower[pair], upper[pair], stage[pair] = solved.value, network.capacity[solved.cut()].sum(), ORTOOLS
        if on_solved is not None:
            on_solved()
    return Flows(lower=lower, upper=upper, trivial=trivial, stage=stage, quantum=network.quantum)


def solve_pairs(
    network: QuantisedNetwork, sources: Int[np.ndarray, " pair"], sinks: Int[np.ndarray, " pair"]
) -> Iterator[Solved]:
    """Solve one pair after another.

    Raises:
        RuntimeError: OR-Tools failed.
    """
    graph = SimpleMaxFlow()
    graph.add_arcs_with_capacity(network.senders, network.receivers, network.capacity)
    for source, sink in zip(sources.tolist(), sinks.tolist(), strict=True):
        # A node without arcs does not exist for OR-Tools, which then answers OPTIMAL whatever it was asked.
        if network.leaving[source] and network.entering[sink]:
            yield Solved(solve(graph, source, sink), network, graph)
        else:
            yield Solved(0, network, None)


def solve(graph: SimpleMaxFlow, source: int, sink: int) -> int:
    """Find the value of a maximum flow, in quanta.

    Raises:
        RuntimeError: OR-Tools failed.
    """
    status = graph.solve(source, sink)
    if status != SimpleMaxFlow.OPTIMAL:
        raise RuntimeError(f"OR-Tools ended with {status} from node {source} to {sink}; expected OPTIMAL.")
    return int(graph.optimal_flow())


def check_cut(value: AnyInt, capacity: AnyInt) -> None:
    """Raise if a flow of `value` quanta and a cut of `capacity` quanta contradict one another."""
    if value != capacity:
        raise RuntimeError(
            f"A flow of {value} quanta was found, but a cut of {capacity}; expected equal numbers: please report this network."
        )
