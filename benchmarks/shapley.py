"""Three games that are called the Shapley values of attention flow: values, cost, and designs of sampling; as Markdown.

    python benchmarks/shapley.py

The sentence is read by the `agreement` model; costs and sampling are on the attention of all-MiniLM-L6-v2 and on random
causal attention. Takes about a minute.
"""

import argparse
import importlib.metadata
import logging
import os
import platform
import time
from pathlib import Path

os.environ["TRANSFORMERS_VERBOSITY"] = "error"

import jax
import minilm
import networkx as nx
import numpy as np

import jaxflow as jf
from jaxflow.solve import _coalitions as coalitions

SENTENCE = "the keys to the old cabinet"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="directory of all-MiniLM-L6-v2")
    parser.add_argument("--lengths", type=int, nargs="+", default=(12, 22, 82, 242), help="default: 12 22 82 242")
    arguments = parser.parse_args()
    directory = minilm.directory(parser, arguments.model)
    logging.disable(logging.WARNING)
    names = ("jax", "numba", "ortools", "networkx")
    print(f"Python {platform.python_version()}, {os.cpu_count()} cores; ", end="")
    print(", ".join(f"{name} {importlib.metadata.version(name)}" for name in names))
    side_by_side()
    networks = {
        f"all-MiniLM-L6-v2, {n} tokens": jf.flow_network(jf.Capacities(encoder=minilm.capacities(directory, n)))
        for n in arguments.lengths
    }
    costs(networks)
    sampling({name: network for name, network in networks.items() if 16 < len(network.inputs) < 100})


def side_by_side() -> None:
    model, tokenizer = jf.load_model("agreement")
    inputs = tokenizer(SENTENCE)
    _, attention = jf.capture(model, **inputs)
    capacities = jax.tree.map(lambda leaf: np.asarray(leaf)[0], jax.device_get(jf.joint_capacities(attention)))
    network = jf.flow_network(capacities)
    sink = network.outputs[0]
    columns = {
        "additive": jf.attention_flow(capacities, positions=0).scores[0],
        "fixed flow, barrier's": jf.shapley.fixed_flow_shapley(
            network, jf.solve.barrier_flow(network, network.inputs, sink).flow
        ).values,
        "fixed flow, rollout's": jf.shapley.fixed_flow_shapley(network, rollout_flow(network, sink)).values,
        "fixed flow, networkx's": jf.shapley.fixed_flow_shapley(network, networkx_flow(network, sink)).values,
        "set": jf.shapley.set_shapley(network, sink).values,
    }
    words = tokenizer.convert_ids_to_tokens(np.asarray(inputs["input_ids"])[0].tolist())
    print(f"\n### {SENTENCE!r}, output 0\n")
    print(f"| input | {' | '.join(columns)} |\n|---|{'---:|' * len(columns)}")
    for row, word in enumerate(words):
        print(f"| {word} | {' | '.join(f'{found[row]:.3f}' for found in columns.values())} |")
    print(f"| sum | {' | '.join(f'{found.sum():.3f}' for found in columns.values())} |")


def costs(networks: dict[str, jf.FlowNetwork]) -> None:
    print("\n### Cost for one output\n")
    print(
        "| attention | scores (additive) | all coalitions | sampled | orders | largest standard error | sampled / scores |"
    )
    print("|---|---:|---:|---:|---:|---:|---:|")
    for name, network in networks.items():
        sink = network.outputs[0]
        n_players = len(network.inputs)
        jf.shapley.sample_set_shapley(network, sink, n_permutations=32)  # compiles, like the next
        jf.max_flow(network, network.inputs, sink)
        additive, _ = timed(lambda: jf.max_flow(network, network.inputs, sink).value)  # noqa: B023
        exact = "more than 16 players"
        if n_players <= 16:
            jf.shapley.set_shapley(network, sink)
            exact = f"{1e3 * timed(lambda: jf.shapley.set_shapley(network, sink))[0]:.1f} ms"  # noqa: B023
        sampled, found = timed(lambda: jf.shapley.sample_set_shapley(network, sink))  # noqa: B023
        print(
            f"| {name} | {1e3 * additive:.1f} ms | {exact} | {1e3 * sampled:.0f} ms | {found.n_permutations:,} | "
            f"{found.standard_error.max():.1g} | {sampled / additive:.0f} x |",
            flush=True,
        )


def sampling(networks: dict[str, jf.FlowNetwork]) -> None:
    """Compare designs by the standard deviation of a block's mean, times the root of the orders in it."""
    random = np.random.default_rng(0)
    for residual in (0.0, 0.5):
        weights = np.tril(np.exp(2 * random.normal(size=(6, 32, 32))))
        weights = (1 - residual) * weights / weights.sum(-1, keepdims=True) + residual * np.eye(32)
        networks[f"causal, random, 32 tokens, residual {residual:g}"] = jf.flow_network(jf.Capacities(decoder=weights))
    print("\n### Standard deviation of an order, in blocks of 2 orders per player: mean over players\n")
    print(
        "| attention | independent | and reversed | rotations, and reversed | Latin square | Latin square, and reversed |"
    )
    print("|---|---:|---:|---:|---:|---:|")
    for name, network in networks.items():
        game, members = coalitions.set_game(network, [np.array([node]) for node in network.inputs], network.outputs[-1])
        n = len(members)
        cells = []
        for design in (independent, reversed_too, rotated, latin, latin_reversed):
            rng = np.random.default_rng(0)
            means = []
            for _ in range(30):
                orders = design(rng, n)
                gains = np.zeros(orders.shape, np.int64)
                halt, done = np.zeros(1, np.int64), np.zeros(1, np.int64)
                coalitions._walk(game, coalitions._scratch(game), orders, gains, halt, done)
                means.append(gains.mean(0) * game.quantum * np.sqrt(len(orders)))
            cells.append(f"{np.std(means, axis=0, ddof=1).mean():.4f}")
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def independent(rng: np.random.Generator, n: int) -> np.ndarray:
    return np.stack([rng.permutation(n) for _ in range(2 * n)])


def reversed_too(rng: np.random.Generator, n: int) -> np.ndarray:
    orders = np.stack([rng.permutation(n) for _ in range(n)])
    return np.concatenate([orders, orders[:, ::-1]])


def rotated(rng: np.random.Generator, n: int) -> np.ndarray:
    order = rng.permutation(n)
    orders = np.stack([np.roll(order, shift) for shift in range(n)])
    return np.concatenate([orders, orders[:, ::-1]])


def latin(rng: np.random.Generator, n: int) -> np.ndarray:
    return np.concatenate([coalitions.latin_square(rng, n, n) for _ in range(2)])


def latin_reversed(rng: np.random.Generator, n: int) -> np.ndarray:
    square = coalitions.latin_square(rng, n, n)
    return np.concatenate([square, square[:, ::-1]])


def rollout_flow(network: jf.FlowNetwork, sink: int) -> np.ndarray:
    """Let every node take from its senders in proportion to capacity: a maximum flow, where rows sum to 1."""
    capacity = np.asarray(network.capacity, np.float64)
    entering = np.bincount(network.receivers, capacity, network.n_nodes)
    flow, amount = np.zeros_like(capacity), np.zeros(network.n_nodes)
    amount[sink] = 1
    for node in range(sink, -1, -1):
        arcs = np.flatnonzero(network.receivers == node) if amount[node] else []
        flow[arcs] = amount[node] * capacity[arcs] / max(entering[node], 1e-300)
        np.add.at(amount, network.senders[arcs], flow[arcs])
    return flow


def networkx_flow(network: jf.FlowNetwork, sink: int) -> np.ndarray:
    arcs = list(zip(network.senders.tolist(), network.receivers.tolist(), strict=True))
    graph = nx.DiGraph()
    for (sender, receiver), capacity in zip(arcs, np.asarray(network.capacity, np.float64).tolist(), strict=True):
        graph.add_edge(sender, receiver, capacity=capacity)
    graph.add_edges_from(("inputs", node) for node in network.inputs.tolist())
    _, flow = nx.maximum_flow(graph, "inputs", int(sink))
    return np.array([flow[sender][receiver] for sender, receiver in arcs])


def timed(work):
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


if __name__ == "__main__":
    main()
