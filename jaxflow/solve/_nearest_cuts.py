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
from jaxflow.solve._quantise import QuantisedNetwork, check_arcs, quantise, quantise_to_int32

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


def layers_of_cuts(
    network: FlowNetwork,
    sources: Int[np.ndarray, " pair"],
    sinks: Int[np.ndarray, " pair"],
    *,
    solver: Literal["certified", "ortools"],
    on_solved: Callable[[], object] | None = None,
) -> tuple[Int[np.ndarray, "pair layer"], float]:
    """Find how much of each pair's minimum cut nearest the source is in each layer; arguments as in `nearest_cuts`.

    Returns:
        `[pair, layer]`, int64, quanta; and the quantum, in units of attention.

    Raises:
        RuntimeError: a cut and a flow contradict one another.
    """
    quanta = np.zeros((len(sources), network.n_layers), np.int64)
    layer = network.layer - 1
    if solver == "ortools" or certified.is_small(network.capacity, len(sources)):
        quantised, cuts = nearest_cuts(network, sources, sinks, nearest="source", solver=solver, on_solved=on_solved)
        for row, arcs in zip(quanta, cuts, strict=True):
            np.add.at(row, layer[quantised.receivers[arcs]], quantised.capacity[arcs])
        return quanta, quantised.quantum
    from jaxflow.solve import _kernel as kernel  # importing Numba takes longer than all the rest of jaxflow

    check_arcs(network)
    graph, number, quantum = kernel.build_graph(network, sources, sinks)
    values, by_number = np.zeros(len(sources), np.int64), np.empty_like(layer)
    by_number[number] = layer

    def solve(
        pairs: Int[np.ndarray, " pair"], sink: int, halt: Int[np.ndarray, " 1"], done: Int[np.ndarray, " counter"]
    ) -> None:
        ends = number[sources[pairs]]
        scratch = kernel.aimed_scratch(graph, sink)
        kernel.sum_cuts(graph, scratch, ends, sink, by_number, pairs, values, quanta, halt, done)

    _by_sink(solve, number[sinks], len(graph.capacity), on_solved)
    for value, in_layers in zip(values.tolist(), quanta.sum(-1).tolist(), strict=True):
        ortools.check_cut(value, in_layers)
    return quanta, quantum


def _solve(
    network: FlowNetwork,
    sources: Int[np.ndarray, " pair"],
    sinks: Int[np.ndarray, " pair"],
    nearest: Literal["source", "sink"],
    on_solved: Callable[[], object] | None,
) -> tuple[Int[np.ndarray, " pair"], Bool[np.ndarray, "pair node"]]:
    """Find the value of each pair and the nodes on the source's side of its cut."""
    from jaxflow.solve import _kernel as kernel

    graph, number, _ = kernel.build_graph(network, sources, sinks)
    values = np.zeros(len(sources), np.int64)
    numbered = np.zeros((len(sources), network.n_nodes), bool)

    def solve(
        pairs: Int[np.ndarray, " pair"], sink: int, halt: Int[np.ndarray, " 1"], done: Int[np.ndarray, " counter"]
    ) -> None:
        ends = number[sources[pairs]]
        scratch = kernel.aimed_scratch(graph, sink)
        kernel.find_sides(graph, scratch, ends, sink, nearest == "source", pairs, values, numbered, halt, done)

    _by_sink(solve, number[sinks], len(graph.capacity), on_solved)
    return values, numbered[:, number]


def _by_sink(
    solve: Callable[[Int[np.ndarray, " pair"], int, Int[np.ndarray, " 1"], Int[np.ndarray, " counter"]], None],
    sinks: Int[np.ndarray, " pair"],
    n_arcs: int,
    on_solved: Callable[[], object] | None,
) -> None:
    """Call `solve(pairs, sink, halt, done)` for blocks of pairs that share a sink, in threads unless that is brief."""
    order = np.argsort(sinks, kind="stable")
    starts = np.flatnonzero(np.diff(sinks[order], prepend=-1))
    groups = [
        order[first : min(first + BLOCK, stop)]
        for start, stop in itertools.pairwise([*starts, len(order)])
        for first in range(start, stop, BLOCK)
    ]
    is_brief = certified.is_brief(len(sinks), n_arcs)
    n_threads = 1 if is_brief else min(certified.n_cores(), max(len(groups), 1))
    halt, done = np.zeros(1, np.int64), np.zeros((n_threads, 8), np.int64)
    turns = itertools.count()  # next() on it is atomic

    def work(thread: int) -> None:
        while not halt[0] and (turn := next(turns)) < len(groups):
            pairs = groups[turn]
            solve(pairs, int(sinks[pairs[0]]), halt, done[thread])

    certified.run_in_threads(work, n_threads, halt, done, None, on_solved, is_brief=is_brief)
