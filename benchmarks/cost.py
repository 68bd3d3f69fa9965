"""Is estimate_cost right? Its expected time and the time that runs take, on the cases of benchmarks/performance.py.

    python benchmarks/cost.py

A certified run is a whole attention_flow with warm compiled code. OR-Tools solves a sample of pairs, and their mean counts for
all. Both use one core, and processor time of this process, so that other load on the machine does not count (Linux). Ratios
above 2 or below a half are marked.
"""

import argparse
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path

import minilm
import numpy as np
import performance

from jaxflow import Capacities, attention_flow, estimate_cost, flow_network
from jaxflow.solve import max_flow


def cases(directory: Path) -> Iterator[tuple[str, Capacities, int | None]]:
    """Yield a name, one example's capacities, and the position to explain (None for all)."""
    for name, n_tokens in (("P3: all pairs, MiniLM, 22 tokens", 22), ("P1: all pairs, MiniLM, 242 tokens", 242)):
        yield name, Capacities(encoder=minilm.capacities(directory, n_tokens)), None
    for n_tokens, residual in ((256, 0.5), (256, 0.0), (1024, 0.5), (1024, 0.0)):
        name = f"{'P2: ' if n_tokens == 256 else ''}one output, causal, 12 layers, {n_tokens:,} tokens, residual {residual}"
        yield name, Capacities(decoder=performance.synthetic(12, n_tokens, residual)), n_tokens - 1


def seconds_of_ortools(capacities: Capacities, position: int | None, n_sampled: int) -> float:
    network = flow_network(capacities)
    random = np.random.default_rng(0)
    sinks = network.outputs if position is None else network.outputs[[position]]
    pairs = random.choice(network.inputs, n_sampled + 1), random.choice(sinks, n_sampled + 1)
    ticks: list[float] = []
    max_flow(network, *pairs, solver="ortools", on_solved=lambda: ticks.append(time.process_time()))
    return float(np.mean(np.diff(ticks)))  # the first builds the graph


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="directory of all-MiniLM-L6-v2")
    parser.add_argument("--peer-pairs", type=int, default=8, help="pairs for OR-Tools (default: 8)")
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    print("| case | solver | solves | expected | measured | expected / measured |")
    print("|---|---|---:|---:|---:|---:|")
    for name, capacities, position in cases(minilm.directory(parser, arguments.model)):
        for solver in ("certified", "ortools"):
            cost = estimate_cost(capacities, solver=solver, positions=position)
            if solver == "certified":
                attention_flow(capacities, solver=solver, positions=position)  # less work would load no compiled code
                start = time.process_time()
                attention_flow(capacities, solver=solver, positions=position)
                seconds = time.process_time() - start
            else:
                seconds = cost.n_solves * seconds_of_ortools(capacities, position, arguments.peer_pairs)
            ratio = cost.seconds / seconds
            mark = "" if 0.5 <= ratio <= 2 else " (!)"
            print(f"| {name} | {solver} | {cost.n_solves:,} | {cost.seconds:.3g} s | {seconds:.3g} s ", end="")
            print(f"| {ratio:.2f}{mark} |", flush=True)


if __name__ == "__main__":
    main()
