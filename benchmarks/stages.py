"""Where the time goes, stage by stage, on the attention of all-MiniLM-L6-v2.

    python benchmarks/stages.py
    python benchmarks/stages.py --tokens 22 242 --repeats 5

Prints Markdown. The first three stages run under jit, warm, and each includes those before it, as they do in use; the ratio to
the model's plain forward pass is theirs. "preparation" is the solver at a tolerance of everything: quanta, layout and bounds
of each sink. "all pairs" is all of the solver. Times are the best of several runs.
"""

import argparse
import functools
import importlib.metadata
import logging
import platform
import time
from collections.abc import Callable
from pathlib import Path

import jax
import minilm
import numpy as np

from jaxflow import capture, flow_network, joint_capacities
from jaxflow.solve import _certified as certified
from jaxflow.solve import flow_bounds
from jaxflow.solve._flows import count_stages


def best(work: Callable[[], object], repeats: int) -> float:
    """Seconds of the fastest of several runs, after one that compiles."""
    jax.block_until_ready(work())
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(work())
        times.append(time.perf_counter() - start)
    return min(times)


def row(directory: Path, n_tokens: int, repeats: int) -> str:
    model, ids = minilm.inputs(directory, n_tokens)

    def taken(ids):
        return capture(model, ids)

    def reduced(ids):
        outputs, attention = taken(ids)
        return outputs, joint_capacities(attention)

    def bounded(ids):
        outputs, capacities = reduced(ids)
        return outputs, capacities, flow_bounds(capacities)

    stages = [best(functools.partial(jax.jit(stage), ids), repeats) for stage in (model, taken, reduced, bounded)]
    capacities = jax.tree.map(lambda leaf: np.asarray(leaf)[0], reduced(ids)[1])
    build = best(lambda: flow_network(capacities).capacity, repeats)
    network = flow_network(capacities)
    sources, sinks = (ends.ravel() for ends in np.meshgrid(network.inputs, network.outputs))
    loose = best(lambda: certified.solve_pairs(network, sources, sinks, tolerance=1e9).quantum, repeats)
    exact = best(lambda: certified.solve_pairs(network, sources, sinks).quantum, max(repeats // 2, 1))
    settled = count_stages(certified.solve_pairs(network, sources, sinks).stage)
    cells = [f"{1e3 * seconds:.1f} ms" for seconds in stages]
    cells += [f"{stages[-1] / stages[0]:.2f}"]
    cells += [f"{1e3 * seconds:.1f} ms" for seconds in (build, loose, exact)]
    shares = ", ".join(f"{name} {100 * count / len(sources):.1f} %" for name, count in settled.items() if count)
    return f"| {n_tokens} | {' | '.join(cells)} | {shares} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="directory of all-MiniLM-L6-v2")
    parser.add_argument("--tokens", type=int, nargs="+", default=[22, 82, 242], help="lengths (default: 22 82 242)")
    parser.add_argument("--repeats", type=int, default=5, help="of which the fastest counts (default: 5)")
    arguments = parser.parse_args()
    directory = minilm.directory(parser, arguments.model)
    logging.disable(logging.WARNING)
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("jax", "flax", "numba"))
    print(f"Python {platform.python_version()}, {jax.default_backend()}, {certified.n_cores()} cores; {versions}\n")
    print(
        "| tokens | forward | + capture | + capacities | + bounds | ratio | network | preparation | all pairs | settled |"
    )
    print("|---:|---:|---:|---:|---:|---:|---:|---:|---:|---|")
    for n_tokens in arguments.tokens:
        print(row(directory, n_tokens, arguments.repeats), flush=True)


if __name__ == "__main__":
    main()
