"""The barrier flow solved block by block and by dense systems, side by side.

    python benchmarks/barrier.py
    python benchmarks/barrier.py --tokens 22 82 --layers 6 --dense-up-to 82

Prints Markdown. Attention is random; the flow is that of all inputs to one output. Times are processor times of all threads,
since the machine may be busy. "dense" is compiled before it is timed.
"""

import argparse
import time

import jax
import jax.numpy as jnp
import numpy as np

from jaxflow import Capacities, FlowNetwork, flow_network
from jaxflow.solve import _barrier_dense as by_dense_systems
from jaxflow.solve import barrier_flow


def random_network(n_layers: int, n_tokens: int) -> FlowNetwork:
    logits = 2 * np.random.default_rng(0).normal(size=(n_layers, n_tokens, n_tokens))
    weights = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    return flow_network(Capacities(encoder=0.5 * weights + 0.5 * np.eye(n_tokens)))


def dense(network: FlowNetwork) -> tuple[float, np.ndarray]:
    """Seconds and the flow of the dense, traceable method."""
    sources = np.zeros(network.n_nodes, bool)
    sources[network.inputs] = True
    with jax.enable_x64(True):
        problem = by_dense_systems.pose(
            jnp.asarray(np.asarray(network.capacity, np.float64)),
            jnp.asarray(network.senders),
            jnp.asarray(network.receivers),
            sources=jnp.asarray(sources),
            sink=jnp.asarray(network.outputs[0]),
        )
        solve = jax.jit(
            lambda problem: by_dense_systems.solve(problem, mu=1e-6, tolerance=1e-9, max_iterations=200).flow
        )
        jax.block_until_ready(solve(problem))
        start = time.process_time()
        flow = jax.block_until_ready(solve(problem))
        return time.process_time() - start, np.asarray(flow)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, nargs="+", default=[22, 82, 242, 512], help="(default: 22 82 242 512)")
    parser.add_argument("--layers", type=int, default=6, help="(default: 6)")
    parser.add_argument("--dense-up-to", type=int, default=242, help="tokens (default: 242)")
    arguments = parser.parse_args()
    print("| tokens | iterations | by blocks | dense | ratio | greatest difference |\n|---:|---:|---:|---:|---:|---:|")
    for n_tokens in arguments.tokens:
        network = random_network(arguments.layers, n_tokens)
        start = time.process_time()
        flow = barrier_flow(network, network.inputs, network.outputs[0])
        seconds = time.process_time() - start
        cells = [f"{n_tokens}", f"{int(flow.iterations)}", f"{seconds:.2f} s"]
        if n_tokens <= arguments.dense_up_to:
            reference, expected = dense(network)
            cells += [f"{reference:.2f} s", f"{reference / seconds:.1f}", f"{np.abs(flow.flow - expected).max():.1g}"]
        else:
            cells += [""] * 3
        print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
