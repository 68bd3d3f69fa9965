"""How long one (input, output) pair takes: networkx, SciPy and OR-Tools on the attention of all-MiniLM-L6-v2.

    python benchmarks/solvers.py

Prints a Markdown table of milliseconds per pair (median over sampled pairs, the same for all) with versions. Graphs are
built once where a solver can keep one. Every value is compared with OR-Tools' to 1e-6; a wrong one ends the run.
"""

import argparse
import importlib.metadata
import logging
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import minilm
import networkx as nx
import numpy as np
import scipy.sparse
from scipy.sparse.csgraph import maximum_flow

from jaxflow import Capacities, FlowNetwork, flow_network, max_flow

Solve = Callable[[int, int], float]
SCIPY_SCALE = 2**30  # SciPy takes int32


def with_networkx(network: FlowNetwork) -> Solve:
    graph = nx.DiGraph()
    graph.add_nodes_from(range(network.n_nodes))
    arcs = zip(network.senders.tolist(), network.receivers.tolist(), network.capacity.tolist(), strict=True)
    graph.add_weighted_edges_from(arcs, weight="capacity")
    return lambda source, sink: nx.maximum_flow_value(graph, source, sink)


def with_scipy(network: FlowNetwork) -> Solve:
    scaled = np.rint(network.capacity.astype(np.float64) * SCIPY_SCALE).astype(np.int32)
    shape = (network.n_nodes, network.n_nodes)
    graph = scipy.sparse.csr_array((scaled, (network.senders, network.receivers)), shape=shape, dtype=np.int32)
    return lambda source, sink: maximum_flow(graph, source, sink).flow_value / SCIPY_SCALE


def milliseconds(solve: Solve, pairs: np.ndarray) -> tuple[float, np.ndarray]:
    times, values = [], []
    for source, sink in pairs.tolist():
        start = time.perf_counter()
        values.append(solve(source, sink))
        times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times), np.array(values)


def with_ortools(network: FlowNetwork, pairs: np.ndarray) -> tuple[float, np.ndarray]:
    """Solve all pairs on the graph that jaxflow keeps; each time is from one solved pair to the next."""
    ticks = [time.perf_counter()]
    flow = max_flow(network, *pairs.T, on_solved=lambda: ticks.append(time.perf_counter()))
    return 1e3 * statistics.median(np.diff(ticks[1:])), flow.value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="directory of all-MiniLM-L6-v2")
    parser.add_argument("--tokens", type=int, nargs="+", default=[22, 82, 242], help="lengths (default: 22 82 242)")
    parser.add_argument("--pairs", type=int, default=20, help="sampled pairs per length (default: 20)")
    parser.add_argument("--networkx-pairs", type=int, default=3, help="of these, how many networkx gets (default: 3)")
    parser.add_argument("--seed", type=int, default=0, help="which pairs (default: 0)")
    arguments = parser.parse_args()
    directory = minilm.directory(parser, arguments.model)
    logging.disable(logging.WARNING)

    names = ("networkx", "scipy", "ortools")
    print(f"Python {platform.python_version()}, {os.cpu_count()} cores; ", end="")
    print(", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("jax", *names)))
    print("Milliseconds per (input, output) pair, median:\n")
    print("| tokens | arcs | networkx | SciPy | OR-Tools | SciPy / OR-Tools |\n|---:|---:|---:|---:|---:|---:|")
    for n_tokens in arguments.tokens:
        network = flow_network(Capacities(encoder=minilm.capacities(directory, n_tokens)))
        random = np.random.default_rng(arguments.seed)
        positions = random.integers(n_tokens, size=(2, arguments.pairs))
        pairs = np.stack([network.encoder_players[positions[0]], network.outputs[positions[1]]], axis=1)
        ortools, reference = with_ortools(network, pairs)
        scipy_time, values = milliseconds(with_scipy(network), pairs)
        np.testing.assert_allclose(values, reference, atol=1e-6)
        few = pairs[: arguments.networkx_pairs]
        networkx_time, values = milliseconds(with_networkx(network), few)
        np.testing.assert_allclose(values, reference[: len(few)], atol=1e-6)
        cells = (f"{networkx_time:.0f}", f"{scipy_time:.2f}", f"{ortools:.2f}", f"{scipy_time / ortools:.1f}")
        print(f"| {n_tokens} | {len(network.senders):,} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
