"""What the tools of docs/meaning.md cost, compared with one `attention_flow` of one output: `python benchmarks/meaning.py`.

Random attention, 6 layers, residual 1/2; wall time of the second call, on this machine, in this run.
"""

import importlib.metadata
import os
import platform
import time
from collections.abc import Callable

import jax
import numpy as np

from jaxflow import Attention, AttentionFlow, Capacities, attention_flow, flow_network
from jaxflow.attribute import Ablation, intervene
from jaxflow.solve import arc_range, barrier_flow, flow_value, smooth_flow_value


def main() -> None:
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("jax", "numpy", "ortools"))
    print(f"Python {platform.python_version()}, {os.cpu_count()} cores; {versions}\n")
    print("| tokens | what | ms | against one `attention_flow` |\n|---:|---|---:|---:|")
    for n_tokens in (22, 82):
        rng = np.random.default_rng(0)
        weights = rng.dirichlet(np.full(n_tokens, 0.2), (6, 1, n_tokens)).astype(np.float32)
        capacities = Capacities(encoder=0.5 * weights[:, 0] + 0.5 * np.eye(n_tokens, dtype=np.float32))
        network = flow_network(capacities)
        sources = np.arange(n_tokens)
        work: dict[str, Callable[[], object]] = {
            "`attention_flow`, one output": lambda w=weights: attention_flow(w, solver="ortools", positions=0),
            "`barrier_flow`, all inputs to it": lambda n=network: barrier_flow(n, n.inputs, n.outputs[0]),
            "`arc_range`, one pair, 20 arcs": lambda n=network: arc_range(n, 0, int(n.outputs[0]), arcs=np.arange(20)),
            "`flow_value`, one pair, with gradient": _gradient(flow_value, capacities, 0),
            "`flow_value`, all inputs, with gradient": _gradient(flow_value, capacities, sources),
            "`smooth_flow_value`, one pair, with gradient": _gradient(smooth_flow_value, capacities, 0),
            "`intervene`, a head gone, one output": lambda w=weights: intervene(
                Attention(encoder=w), Ablation(0, layer=1, head=0), AttentionFlow(solver="ortools"), positions=0
            ),
        }
        unit = 0.0
        for name, run in work.items():
            run()
            start = time.perf_counter()
            run()
            seconds = time.perf_counter() - start
            unit = unit or seconds
            print(f"| {n_tokens} | {name} | {1e3 * seconds:.1f} | {seconds / unit:.2f} |")


def _gradient(function: Callable[..., jax.Array], capacities: Capacities, sources: int | np.ndarray) -> Callable:
    step = jax.jit(jax.value_and_grad(lambda c: function(c, sources, 0).sum()))
    return lambda: jax.block_until_ready(step(capacities))


if __name__ == "__main__":
    main()
