"""FlowNetwork -> the range of each arc's flow over all maximum flows. Leaves JAX: OR-Tools, on the host."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from flax import struct
from jaxtyping import Float, Int
from ortools.graph.python.max_flow import SimpleMaxFlow

from jaxflow._attention import AnyArray, AnyInt
from jaxflow.network import FlowNetwork
from jaxflow.solve._nodes import check_nodes
from jaxflow.solve._ortools import solve, solve_pairs
from jaxflow.solve._quantise import quantise


@struct.dataclass
class ArcRange:
    """The least and the greatest flow of each arc over all maximum flows. float64, in units of attention.

    Attributes:
        least: `[arc]`, above 0 where every maximum flow uses the arc.
        greatest: `[arc]`, 0 where none does; equal to `least` where the arc's flow is unique.
        arcs: `[arc]`, indices of the network's arcs.
        value: of the maximum flow.
        quantum: as in `MaxFlow`; the ranges are exact for the rounded capacities.
    """

    least: Float[np.ndarray, " arc"]
    greatest: Float[np.ndarray, " arc"]
    arcs: Int[np.ndarray, " arc"]
    value: float
    quantum: float


def arc_range(
    network: FlowNetwork, source: AnyInt, sink: AnyInt, *, arcs: Sequence[int] | Int[AnyArray, " arc"] | None = None
) -> ArcRange:
    """Find the least and the greatest flow of each arc over all maximum flows from `source` to `sink`.

    Two maximum flows differ by flow around cycles of residual arcs. So an arc's flow can rise by the maximum flow from its
    receiver back to its sender along the residual arcs of one maximum flow, without its own residual arcs; and it can fall by
    the maximum flow from its sender to its receiver. Its capacity limits both.

    Cost: two solves per arc on a network with twice the arcs: pass `arcs` where there are thousands.

    Args:
        network: one example's network.
        source: node.
        sink: node.
        arcs: `[arc]`, indices of the network's arcs; None for all.

    Returns:
        `ArcRange`, in the order of `arcs`.

    Raises:
        ValueError: as `max_flow`; arcs that do not exist.

    Example:
        >>> from jaxflow.network import Capacities, flow_network
        >>> network = flow_network(Capacities(encoder=np.full((2, 2, 2), 0.5)))
        >>> both_ways = arc_range(network, 0, 5)
        >>> both_ways.least, both_ways.greatest
        (array([0.5, 0. , 0.5, 0. , 0. , 0. , 0.5, 0.5]), array([0.5, 0. , 0.5, 0. , 0. , 0. , 0.5, 0.5]))

    Source: residual cycles, Ford & Fulkerson 1962.
    """
    sources, sinks = (
        np.atleast_1d(check_nodes(network, name, node)) for name, node in (("source", source), ("sink", sink))
    )
    if sources.size != 1 or sinks.size != 1 or sources == sinks:
        raise ValueError(f"arc_range takes one source and another node as sink; got {source} and {sink}.")
    n_arcs = len(np.asarray(network.senders))
    chosen = np.arange(n_arcs) if arcs is None else np.atleast_1d(np.asarray(arcs))
    if not np.issubdtype(chosen.dtype, np.integer) or (chosen.size and not 0 <= chosen.min() <= chosen.max() < n_arcs):
        raise ValueError(f"arcs is {arcs}; expected indices of arcs, 0 to {n_arcs - 1}.")
    quantised = quantise(network)
    solved = next(solve_pairs(quantised, sources, sinks))
    flow = solved.flow()
    rest = quantised.capacity - flow
    # Arcs 2e and 2e + 1 are what arc e can still carry, and what it can give back.
    graph = SimpleMaxFlow()
    graph.add_arcs_with_capacity(
        np.stack([quantised.senders, quantised.receivers], axis=1).ravel(),
        np.stack([quantised.receivers, quantised.senders], axis=1).ravel(),
        np.stack([rest, flow], axis=1).ravel(),
    )

    def room(start: int, end: int, most: int) -> int:
        return min(most, solve(graph, start, end)) if most else 0

    place = np.full(n_arcs, -1)
    place[quantised.arcs] = np.arange(len(quantised.arcs))
    ranges = np.zeros((2, len(chosen)), np.int64)
    for row, arc in enumerate(place[chosen].tolist()):
        if arc < 0:
            continue
        start, end = int(quantised.senders[arc]), int(quantised.receivers[arc])
        own = np.array([2 * arc, 2 * arc + 1])
        graph.set_arcs_capacity(own, np.zeros(2, np.int64))
        ranges[:, row] = flow[arc] - room(start, end, int(flow[arc])), flow[arc] + room(end, start, int(rest[arc]))
        graph.set_arcs_capacity(own, np.array([rest[arc], flow[arc]]))
    least, greatest = ranges * quantised.quantum
    value = float(solved.value * quantised.quantum)
    return ArcRange(least=least, greatest=greatest, arcs=chosen, value=value, quantum=quantised.quantum)
