"""Many networks of one structure -> values of maximum flows in each: all in one run of the compiled kernel."""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float, Int

from jaxflow.network import FlowNetwork
from jaxflow.solve import _certified as certified
from jaxflow.solve import _ortools as ortools
from jaxflow.solve._flows import SEARCHED, UNFINISHED, Flows
from jaxflow.solve._max_flow import MaxFlow, Solver, check_options
from jaxflow.solve._quantise import check_arcs_of_each, quantise

# Larger networks are solved one by one, each in all threads; smaller ones each in one.
MOST_ARCS = 2**18


def max_flow_in_each(
    networks: FlowNetwork,
    sources: Int[np.ndarray, " pair"],
    sinks: Int[np.ndarray, " pair"],
    wanted: Bool[np.ndarray, "example pair"],
    *,
    solver: Solver = "certified",
    tolerance: float = 0.0,
    budget_seconds: float | None = None,
    on_solved: Callable[[], object] | None = None,
) -> tuple[MaxFlow, Float[np.ndarray, " example"]]:
    """Do what `max_flow` does for the wanted pairs of each of many networks; all others are 0.

    Args:
        networks: of one structure, with capacities `[example, arc]`.
        sources: `[pair]`, nodes that exist.
        sinks: `[pair]`, likewise, each other than its source.
        wanted: `[example, pair]`.
        solver: as in `max_flow`, like the others.
        tolerance: in units of attention.
        budget_seconds: for all networks together.
        on_solved: called after each pair.

    Returns:
        `MaxFlow` of arrays `[example, pair]`, the coarsest quantum with it; and `[example]`, the quantum of each network.

    Raises:
        ValueError: as `max_flow`.
    """
    check_options(solver, tolerance, budget_seconds)
    check_arcs_of_each(networks)
    deadline = None if budget_seconds is None else time.monotonic() + budget_seconds
    n_examples, n_arcs = networks.capacity.shape
    largest = int(wanted.sum(-1).max(initial=0))
    one_by_one = (
        deadline is not None or n_arcs > MOST_ARCS or (n_examples == 1 and not certified.is_brief(largest, n_arcs))
    )
    if solver == "ortools" or one_by_one or certified.is_small(networks.capacity, largest):
        flows, quanta = _solve_one_by_one(networks, sources, sinks, wanted, solver, tolerance, deadline, on_solved)
    else:
        flows, quanta = _solve_together(networks, sources, sinks, wanted, tolerance, on_solved)
    scale = quanta[:, None]
    return MaxFlow(
        lower=flows.lower * scale,
        upper=flows.upper * scale,
        trivial=flows.trivial * scale,
        stage=flows.stage,
        quantum=float(quanta.max(initial=0.0)),
    ), quanta


def _solve_one_by_one(
    networks: FlowNetwork,
    sources: Int[np.ndarray, " pair"],
    sinks: Int[np.ndarray, " pair"],
    wanted: Bool[np.ndarray, "example pair"],
    solver: Solver,
    tolerance: float,
    deadline: float | None,
    on_solved: Callable[[], object] | None,
) -> tuple[Flows, Float[np.ndarray, " example"]]:
    found, quanta = _nothing(wanted), np.zeros(len(wanted))
    for example, pairs in enumerate(wanted):
        network = dataclasses.replace(networks, capacity=networks.capacity[example])
        ends = sources[pairs], sinks[pairs]
        if solver == "ortools":
            flows = ortools.find_flows(quantise(network), *ends, deadline=deadline, on_solved=on_solved)
        else:
            flows = certified.solve_pairs(network, *ends, tolerance=tolerance, deadline=deadline, on_solved=on_solved)
        for name in ("lower", "upper", "trivial", "stage"):
            getattr(found, name)[example, pairs] = getattr(flows, name)
        quanta[example] = flows.quantum
    return found, quanta


def _solve_together(
    networks: FlowNetwork,
    sources: Int[np.ndarray, " pair"],
    sinks: Int[np.ndarray, " pair"],
    wanted: Bool[np.ndarray, "example pair"],
    tolerance: float,
    on_solved: Callable[[], object] | None,
) -> tuple[Flows, Float[np.ndarray, " example"]]:
    from jaxflow.solve import _kernel as kernel  # importing Numba takes longer than all the rest of jaxflow

    n_examples, n_arcs = networks.capacity.shape
    found, quanta = _nothing(wanted), np.zeros(n_examples)
    found.stage[wanted] = UNFINISHED
    arguments = (
        kernel.frozen(networks.senders), kernel.frozen(networks.receivers), kernel.frozen(networks.capacity),
        kernel.graph_numbers(networks), networks.inputs, np.array(networks.outputs), np.array(sources), np.array(sinks),
        np.array(wanted), float(tolerance), kernel.PATIENCE,
    )  # fmt: skip
    results = quanta, found.lower, found.upper, found.trivial, found.stage
    is_brief = certified.is_brief(int(wanted.sum()), n_arcs, n_examples)
    n_threads = 1 if is_brief else min(certified.n_cores(), n_examples)
    size = max(n_examples // (4 * n_threads), 1)
    blocks = [(first, min(first + size, n_examples)) for first in range(0, n_examples, size)]
    halt, done = np.zeros(1, np.int64), np.zeros((n_threads, 8), np.int64)  # 8: a cache line for each thread
    turns = itertools.count()  # next() on it is atomic

    def work(thread: int) -> None:
        while not halt[0] and (turn := next(turns)) < len(blocks):
            kernel.solve_networks(*arguments, *blocks[turn], halt, done[thread], *results)

    certified.run_in_threads(work, n_threads, halt, done, None, on_solved, is_brief=is_brief)
    for example in np.flatnonzero((found.stage == certified.ORTOOLS).any(-1)):
        network = dataclasses.replace(networks, capacity=networks.capacity[example])
        of_example = found.lower[example], found.upper[example], found.stage[example]
        certified.settle_left(network, sources, sinks, *of_example, deadline=None, on_solved=on_solved)
    return found, quanta


def _nothing(wanted: Bool[np.ndarray, "example pair"]) -> Flows:
    """Return flows of value 0, which are exact."""
    lower, upper, trivial = np.zeros((3, *wanted.shape), np.int64)
    return Flows(lower=lower, upper=upper, trivial=trivial, stage=np.full(wanted.shape, SEARCHED, np.int8), quantum=0.0)
