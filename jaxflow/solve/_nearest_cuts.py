"""The minimum cuts of many pairs that are nearest one end, as arcs. Leaves JAX: OR-Tools or Numba, on the host."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Literal

import numpy as np
from jaxtyping import Bool, Int

from jaxflow.network import FlowNetwork
from jaxflow.solve import _certified as certified
from jaxflow.solve import _ortools as ortools
from jaxflow.solve._quantise import QuantisedNetwork, quantise, quantise_to_int32

# Pairs of one sink that a thread takes at a time.
BLOCK = 64


def nearest_cuts(
    network: FlowNetwork,
    sources: Int[np.ndarray, " pair"],
    sinks: Int[np.ndarray, " pair"],
    *,
    nearest: Literal["source", "sink"],
    solver: Literal["certified", "ortools"],
    on_solved: Callable[[], object] | None = None,
) -> tuple[QuantisedNetwork, Iterator[Int[np.ndarray, " arc"]]]:
    """Find each pair's minimum cut nearest one end.

    Args:
        network: one example's network.
        sources: `[pair]`, checked, as the sinks are.
        sinks: `[pair]`.
        nearest: which end.
        solver: whose quanta capacities are rounded to.
        on_solved: called after each pair, for progress.

    Returns:
        The network in the quanta of `solver`; and an iterator of each pair's cut: indices into that network's arcs, whose
        capacity is the value of the maximum flow.

    Raises:
        RuntimeError: a cut and a flow contradict one another.
    """
    if solver == "ortools" or certified.is_small(network.capacity, len(sources)):
        quantised = quantise(network) if solver == "ortools" else quantise_to_int32(network, sources, sinks)
        return quantised, _by_ortools(quantised, sources, sinks, nearest, on_solved)
    quantised = quantise_to_int32(network, sources, sinks)
    values, sides = _solve(network, sources, sinks, nearest, on_solved)
    return quantised, _arcs_of(quantised, values, sides)


def _by_ortools(
    quantised: QuantisedNetwork,
    sources: Int[np.ndarray, " pair"],
    sinks: Int[np.ndarray, " pair"],
    nearest: Literal["source", "sink"],
    on_solved: Callable[[], object] | None,
) -> Iterator[Int[np.ndarray, " arc"]]:
    for solved in ortools.solve_pairs(quantised, sources, sinks):
        arcs = solved.cut(nearest)
        if on_solved is not None:
            on_solved()
        yield arcs


def _arcs_of(
    quantised: QuantisedNetwork, values: Int[np.ndarray, " pair"], sides: Bool[np.ndarray, "pair node"]
) -> Iterator[Int[np.ndarray, " arc"]]:
    for value, on_source_side in zip(values, sides, strict=True):
        arcs = np.flatnonzero(on_source_side[quantised.senders] & ~on_source_side[quantised.receivers])
        ortools.check_cut(int(value), int(quantised.capacity[arcs].sum()))
        yield arcs


def _solve(
    network: FlowNetwork,
    sources: Int[np.ndarray, " pair"],
    sinks: Int[np.ndarray, " pair"],
    nearest: Literal["source", "sink"],
    on_solved: Callable[[], object] | None,
) -> tuple[Int[np.ndarray, " pair"], Bool[np.ndarray, "pair node"]]:
    """Find the value of each pair and the nodes on the source's side of its cut."""
    from jaxflow.solve import _kernel as kernel  # importing Numba takes longer than all the rest of jaxflow

    graph, number, _ = kernel.build_graph(network, sources, sinks)
    values = np.zeros(len(sources), np.int64)
    numbered = np.zeros((len(sources), network.n_nodes), bool)
    order = np.argsort(sinks, kind="stable")
    starts = np.flatnonzero(np.diff(sinks[order], prepend=-1))
    groups = [
        order[first : min(first + BLOCK, stop)]
        for start, stop in itertools.pairwise([*starts, len(order)])
        for first in range(start, stop, BLOCK)
    ]
    n_threads = min(certified.n_cores(), max(len(groups), 1))
    halt, done = np.zeros(1, np.int64), np.zeros((n_threads, 8), np.int64)
    turns = itertools.count()  # next() on it is atomic

    def work(thread: int) -> None:
        while not halt[0] and (turn := next(turns)) < len(groups):
            pairs = groups[turn]
            sink = int(number[sinks[pairs[0]]])
            scratch = kernel.aimed_scratch(graph, sink)
            ends = number[sources[pairs]]
            kernel.find_sides(
                graph, scratch, ends, sink, nearest == "source", pairs, values, numbered, halt, done[thread]
            )

    certified.run_in_threads(work, n_threads, halt, done, None, on_solved)
    return values, numbered[:, number]
