"""The certified solver: values for many pairs of one network, each with a proof, much cheaper than one solve per pair.

Leaves JAX: Numba, on the host, in int32 quanta, in threads (compiled code holds no GIL). A pair is settled by the first stage
that proves its value:
    search: the flow of the sink's previous source is turned into a flow of this source, which reaches an upper bound.
    residual: the flow is improved along residual paths until it reaches the bound, or no path is left and it equals a cut.
    ortools: the reference solver on the same quanta, for pairs whose residual search takes too long.
"""

from __future__ import annotations

import functools
import itertools
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path

import numpy as np
from jaxtyping import Int, Real

from jaxflow._attention import AnyArray
from jaxflow.network import FlowNetwork
from jaxflow.solve import _ortools as ortools
from jaxflow.solve._flows import ORTOOLS, SEARCHED, UNFINISHED, Flows
from jaxflow.solve._quantise import INT32_MAX, check_arcs, quantise_to_int32

# About the largest number of pairs that a thread takes at a time.
BLOCK = 256
# OR-Tools does work that takes it fewer seconds than this: loading compiled code takes 50 times as long.
SMALL_WORK = 0.01
# So many seconds of small work are worth loading it, or compiling it.
MOST_SMALL, MOST_UNCOMPILED = 0.5, 10.0
KERNEL = "jaxflow.solve._kernel"
_small_work = [0.0]  # seconds that small work took OR-Tools in this process, about
# Work of fewer seconds than this runs in the caller's thread: starting others takes longer.
BRIEF_WORK = 0.02
# Seconds between two checks of the deadline, of Ctrl-C and of the progress.
TICK = 0.05


def solve_pairs(
    network: FlowNetwork,
    sources: Int[np.ndarray, " pair"],
    sinks: Int[np.ndarray, " pair"],
    *,
    tolerance: float = 0.0,
    deadline: float | None = None,
    n_threads: int | None = None,
    on_solved: Callable[[], object] | None = None,
) -> Flows:
    """Find the value of the maximum flow of each pair, with a proof.

    Without a deadline the result depends on the arguments alone, not on the number of threads: the pairs determine where chains
    start. With a tolerance, bounds depend on which pairs are solved in one call. OR-Tools does small work, so that a
    single sentence needs no compiled code.

    Cost: O(arcs) once, O(arcs) per sink, and per pair about the arcs in which its flow differs from the previous one. Memory:
    4 1/8 bytes per arc; for each thread 5/8 bytes per arc, and 64 bytes for each 16 arcs of which one carries flow.

    Args:
        network: one example's network.
        sources: `[pair]`, nodes, checked, as the sinks are.
        sinks: `[pair]`, nodes other than their sources. Pairs with the same sink share work, in any order.
        tolerance: accept a pair when its bounds differ by no more, in units of attention; 0 for exact values.
        deadline: value of `time.monotonic()` at which to return; bounds are valid then, too.
        n_threads: number of threads; None for one per core that this process may use.
        on_solved: called in the caller's thread after each pair, for progress.

    Returns:
        `Flows`, in the order of the pairs.

    Raises:
        ValueError: as `check_arcs`.

    Source: the wave is that of Tarjan 1984, on the difference of two flows; residual search is Ford & Fulkerson 1956, with
    blocking flows as in Dinitz 1970, stopped at the bound.
    """
    sources, sinks = np.asarray(sources, np.int64), np.asarray(sinks, np.int64)
    check_arcs(network)
    if is_small(network.capacity, len(sources)):
        quantised = quantise_to_int32(network, sources, sinks)
        return ortools.find_flows(quantised, sources, sinks, deadline=deadline, on_solved=on_solved)
    from jaxflow.solve import _kernel as kernel  # importing Numba takes longer than all the rest of jaxflow

    graph, number, quantum = kernel.build_graph(network, sources, sinks)
    sources, sinks = kernel.frozen(sources), kernel.frozen(sinks)
    # No value has more than 31 bits; int32 halves what many pairs take while threads hold their flows.
    order = kernel.order_pairs(number, sources, sinks)
    upper = np.empty(len(sources), np.int32)
    kernel.trivial_bounds(graph, number, sources, sinks, upper)
    lower = np.zeros_like(upper)
    stage = np.where(upper, np.int8(UNFINISHED), np.int8(SEARCHED))
    slack = int(min(tolerance / quantum, INT32_MAX))
    brief = is_brief(len(sources), len(graph.capacity))
    n_threads = 1 if brief else n_threads or n_cores()
    chains = kernel.chain_starts(sinks, order)
    blocks = _blocks(chains, n_threads)
    patience = kernel.PATIENCE * max(len(graph.capacity), 1)
    halt, done = np.zeros(1, np.int64), np.zeros((n_threads, 8), np.int64)  # 8: a cache line for each thread
    turns = itertools.count()  # next() on it is atomic

    def work(thread: int) -> None:
        scratch = kernel.new_scratch(graph)
        while not halt[0] and (turn := next(turns)) < len(blocks) - 1:
            first, last = blocks[turn], blocks[turn + 1]
            here = order[chains[first] : chains[last]]
            pairs = number[sources[here]], number[sinks[here]], chains[first:last] - chains[first]
            kernel.solve_block(graph, scratch, *pairs, slack, patience, halt, done[thread], here, lower, upper, stage)

    run_in_threads(work, n_threads, halt, done, deadline, on_solved, is_brief=brief)
    settle_left(network, sources, sinks, lower, upper, stage, deadline=deadline, on_solved=on_solved)
    is_exact = np.array_equal(lower, upper)
    lower = lower.astype(np.int64)
    upper = lower if is_exact else upper.astype(np.int64)
    trivial = np.empty_like(lower)
    kernel.trivial_bounds(graph, number, sources, sinks, trivial)
    return Flows(lower=lower, upper=upper, trivial=trivial, stage=stage, quantum=quantum)


def _blocks(chains: Int[np.ndarray, " start"], n_threads: int) -> Int[np.ndarray, " block"]:
    """Group whole chains into the blocks that threads take; they change no result."""
    size = int(np.clip(-(-int(chains[-1]) // (4 * n_threads)), 1, BLOCK))
    starts = np.searchsorted(chains[:-1], np.arange(0, chains[-1], size))
    return np.unique(np.append(starts, len(chains) - 1))


def settle_left(
    network: FlowNetwork,
    sources: Int[np.ndarray, " pair"],
    sinks: Int[np.ndarray, " pair"],
    lower: Int[np.ndarray, " pair"],
    upper: Int[np.ndarray, " pair"],
    stage: Int[np.ndarray, " pair"],
    *,
    deadline: float | None,
    on_solved: Callable[[], object] | None,
) -> None:
    """Let OR-Tools solve the pairs whose residual search took too long; writes to bounds and stages."""
    left = np.flatnonzero(stage == ORTOOLS)
    if not left.size:
        return
    last = ortools.find_flows(
        quantise_to_int32(network, sources, sinks), sources[left], sinks[left], deadline=deadline, on_solved=on_solved
    )
    stage[left] = last.stage
    exact = last.stage == ORTOOLS
    lower[left[exact]], upper[left[exact]] = last.lower[exact], last.upper[exact]


def is_small(capacity: Real[AnyArray, "*example arc"], n_pairs: int) -> bool:
    """Whether OR-Tools solves so many pairs of each network, in less time than loading compiled code takes, or compiling it.

    Small work adds up: after so much of it compiled code is loaded nevertheless. Values do not depend on it.
    """
    if KERNEL in sys.modules:
        return False
    work = float(n_pairs * (5e-5 * capacity[..., 0].size + 6e-8 * np.count_nonzero(capacity)))
    if work >= SMALL_WORK:
        return False
    _small_work[0] += work
    return _small_work[0] < (MOST_SMALL if _is_kept_compiled() else MOST_UNCOMPILED)


@functools.cache
def _is_kept_compiled() -> bool:
    """Whether compiled code lies beside its source, where Numba keeps it first."""
    return any(Path(__file__).with_name("__pycache__").glob("_kernel.solve_block-*.nbi"))


def is_brief(n_pairs: int, n_arcs: int, n_networks: int = 1) -> bool:
    """Whether so many pairs, of all networks together, are solved before other threads would have started."""
    return n_networks * (1e-5 + 1e-8 * n_arcs) + n_pairs * (2e-5 + 4e-10 * n_arcs) < BRIEF_WORK


def n_cores() -> int:
    """Count the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_in_threads(
    work: Callable[[int], None],
    n_threads: int,
    halt: Int[np.ndarray, " 1"],
    done: Int[np.ndarray, "thread 8"],
    deadline: float | None,
    on_solved: Callable[[], object] | None,
    *,
    is_brief: bool = False,
) -> None:
    """Run `work` in threads until all are done; stop them at the deadline, on an exception and on Ctrl-C.

    Args:
        work: called with the number of each thread; it must stop soon after `halt[0]` is set.
        n_threads: number of threads.
        halt: `halt[0]` is set to stop.
        done: `done[thread, 0]` counts what the thread has done; one cache line per thread.
        deadline: of `time.monotonic()`, or None.
        on_solved: called in the caller's thread as often as `done` counts, for progress.
        is_brief: run it in the caller's thread, as thread 0, to its end.
    """
    if deadline is not None and time.monotonic() >= deadline:
        return
    if is_brief:
        work(0)
        if on_solved is not None:
            for _ in range(int(done[0, 0])):
                on_solved()
        return
    reported = 0
    with ThreadPoolExecutor(n_threads, thread_name_prefix="jaxflow") as pool:
        try:
            running: set[Future[None]] = {pool.submit(work, thread) for thread in range(n_threads)}
            while running:
                if deadline is not None and time.monotonic() >= deadline:
                    halt[0] = 1
                finished, running = wait(running, timeout=TICK, return_when=FIRST_COMPLETED)
                for future in finished:
                    future.result()
                if on_solved is not None:
                    for _ in range(int(done[:, 0].sum()) - reported):
                        reported += 1
                        on_solved()
        except BaseException:
            halt[0] = 1
            raise
