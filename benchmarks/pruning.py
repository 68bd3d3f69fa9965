"""Approximation by pruning against exact values: at what error does a solver on fewer arcs reach our time?

    python benchmarks/pruning.py
    python benchmarks/pruning.py --tokens 82 --pairs 20

Keeps the largest arcs of the network, as FlowPrune (Xu et al., NeurIPS 2025) prunes before it samples pairs, and solves sampled
pairs by OR-Tools on a graph that is kept. The attention is that of all-MiniLM-L6-v2. Prints Markdown.
"""

import argparse
import dataclasses
import importlib.metadata
import logging
import platform
import statistics
import time
from pathlib import Path

import minilm
import numpy as np
from scipy.stats import spearmanr

from jaxflow import Capacities, FlowNetwork, flow_network
from jaxflow.solve import _certified as certified
from jaxflow.solve import _ortools as ortools
from jaxflow.solve._quantise import quantise

SHARES = (1.0, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01)


def largest(network: FlowNetwork, share: float) -> FlowNetwork:
    """Keep this share of the arcs."""
    capacity = np.asarray(network.capacity)
    kept = np.sort(np.argsort(-capacity, kind="stable")[: round(share * len(capacity))])
    return dataclasses.replace(
        network, senders=network.senders[kept], receivers=network.receivers[kept], capacity=capacity[kept]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="directory of all-MiniLM-L6-v2")
    parser.add_argument("--tokens", type=int, nargs="+", default=[82, 242], help="lengths (default: 82 242)")
    parser.add_argument("--pairs", type=int, default=60, help="sampled pairs (default: 60)")
    arguments = parser.parse_args()
    directory = minilm.directory(parser, arguments.model)
    logging.disable(logging.WARNING)
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("ortools", "numba"))
    print(f"Python {platform.python_version()}, {certified.n_cores()} cores; {versions}\n")
    print(
        "| tokens | arcs kept | OR-Tools, a pair | against exact, all pairs | mean error | greatest error | rank correlation |"
    )
    print("|---:|---:|---:|---:|---:|---:|---:|")
    for n_tokens in arguments.tokens:
        network = flow_network(Capacities(encoder=minilm.capacities(directory, n_tokens)))
        sources, sinks = (ends.ravel() for ends in np.meshgrid(network.inputs, network.outputs))
        certified.solve_pairs(network, sources[:2], sinks[:2], tolerance=1e-9)  # compiled now
        start = time.perf_counter()
        flows = certified.solve_pairs(network, sources, sinks)
        ours = (time.perf_counter() - start) / len(sources)
        sample = np.random.default_rng(0).choice(len(sources), arguments.pairs, replace=False)
        exact = flows.lower[sample] * flows.quantum
        print(f"| {n_tokens} | all, jaxflow | {1e3 * ours:.3f} ms | 1 | 0 | 0 | 1 |", flush=True)
        for share in SHARES:
            quantised = quantise(largest(network, share))
            ticks, values = [time.perf_counter()], []
            for solved in ortools.solve_pairs(quantised, sources[sample], sinks[sample]):
                solved.cut()  # the proof is counted
                values.append(solved.value * quantised.quantum)
                ticks.append(time.perf_counter())
            seconds, error = statistics.median(np.diff(ticks)[1:]), np.abs(np.array(values) - exact)
            print(
                f"| {n_tokens} | {100 * share:g} % | {1e3 * seconds:.3f} ms | {seconds / ours:.1f} x | {error.mean():.3f} | "
                f"{error.max():.3f} | {spearmanr(values, exact).statistic:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
