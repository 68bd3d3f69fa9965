"""Compare the certified solver with OR-Tools and SciPy on many random networks.

    python tests/solve/stress.py --networks 1000000 --seconds 3600 --seed 0

All players to all outputs of each network, and some pairs of other nodes. Every value must have a lower bound equal to
its upper bound, equal to OR-Tools' and SciPy's value of the same quanta to the last bit, and differ from OR-Tools' value of
the unrounded capacities by no more than half a quantum per arc. Exits with an error, and the seed, at the first that does not.
"""

import argparse
import sys
import time
from collections import Counter

import numpy as np
import scipy.sparse
from scipy.sparse.csgraph import maximum_flow

from jaxflow import Capacities, FlowNetwork, flow_network
from jaxflow.solve import certified, max_flow, ortools
from jaxflow.solve.flows import STAGES
from jaxflow.solve.quantise import quantise_to_int32

KINDS = ("encoder", "causal", "skipping", "unrolled", "sparse", "built")
FILLS = ("softmax", "ties", "equal", "tiny", "rough")


def compare(seed: int) -> Counter[str]:
    """Solve one network in every way; raise AssertionError where they differ."""
    random = np.random.default_rng(seed)
    network = random_network(random)
    players = [nodes for nodes in (network.encoder_players, network.decoder_players) if nodes is not None]
    sources, sinks = (values.ravel() for values in np.meshgrid(np.concatenate(players), network.outputs))
    if random.random() < 0.2:
        sources, sinks = random.integers(network.n_nodes, size=(2, 8))
    sources, sinks = (nodes[sources != sinks] for nodes in (sources, sinks))
    flows = certified.solve_pairs(network, sources, sinks, n_threads=1)
    np.testing.assert_array_equal(flows.lower, flows.upper)
    quantised = quantise_to_int32(network, sources, sinks)
    assert quantised.quantum == flows.quantum
    reference = [value for value, _ in ortools.solve_pairs(quantised, sources, sinks)]
    np.testing.assert_array_equal(flows.lower, reference)
    shape = (network.n_nodes, network.n_nodes)
    ends = quantised.senders * network.n_nodes + quantised.receivers
    places, which = np.unique(ends, return_inverse=True)  # SciPy adds up parallel arcs, and may overflow
    total = np.minimum(np.bincount(which, quantised.capacity), 2**31 - 1).astype(np.int32)
    matrix = scipy.sparse.csr_array((total, np.divmod(places, network.n_nodes)), shape=shape, dtype=np.int32)
    pairs = zip(sources.tolist(), sinks.tolist(), strict=True)
    np.testing.assert_array_equal(flows.lower, [maximum_flow(matrix, *pair).flow_value for pair in pairs])
    fine = max_flow(network, sources, sinks, solver="ortools")
    rounding = np.count_nonzero(network.capacity) * (flows.quantum + fine.quantum) / 2
    np.testing.assert_allclose(flows.lower * flows.quantum, fine.value, rtol=0, atol=rounding)
    counts = Counter({STAGES[stage]: int(count) for stage, count in enumerate(np.bincount(flows.stage))})
    return counts + Counter(networks=1, pairs=len(sources))


def random_network(random: np.random.Generator) -> FlowNetwork:
    """Draw a network; one in two has a residual, capacities of 0 are among all of them."""
    kind, fill = random.choice(KINDS), random.choice(FILLS)
    n_layers, n_tokens = int(random.integers(1, 6)), int(random.integers(1, 7))
    if kind == "built":
        return _built(random, fill)
    levels = [[(level, position) for position in range(n_tokens)] for level in range(n_layers + 1)]
    arcs, weights = [], []
    for level in range(n_layers):
        layer = _fill(random, fill, n_tokens)
        if kind == "causal" or kind == "unrolled":
            layer = np.tril(layer)
        for query in range(n_tokens):
            for key in range(n_tokens):
                arcs.append((levels[level][key], levels[level + 1][query]))
                weights.append(layer[query, key])
    if kind == "skipping":
        for _ in range(int(random.integers(1, 12))):
            low, high = np.sort(random.choice(n_layers + 1, 2, replace=False))
            arcs.append((levels[low][random.integers(n_tokens)], levels[high][random.integers(n_tokens)]))
            weights.append(_fill(random, fill, 1)[0, 0])
    order = [node for level in levels for node in level]
    if kind == "unrolled":
        order.sort(key=lambda node: (node[1], node[0]))
        huge = float(random.choice([1e4, 1e30]))
        for position in range(n_tokens - 1):
            arcs.append(((n_layers, position), (0, position + 1)))
            weights.append(huge)
    number = {node: index for index, node in enumerate(order)}
    capacity = np.array(weights, np.float32 if random.random() < 0.5 else np.float64)
    if kind == "sparse":
        capacity[random.random(len(capacity)) < 0.6] = 0
    return FlowNetwork(
        senders=np.array([number[sender] for sender, _ in arcs]),
        receivers=np.array([number[receiver] for _, receiver in arcs]),
        capacity=capacity,
        level=np.array([level for level, _ in order]),
        position=np.array([position for _, position in order]),
        stack=np.zeros(len(order), np.int64),
        encoder_players=np.array([number[node] for node in levels[0]]),
        decoder_players=None,
        outputs=np.array([number[node] for node in levels[-1]]),
    )


def _built(random: np.random.Generator, fill: str) -> FlowNetwork:
    """Draw what `flow_network` builds of an encoder-decoder or a decoder."""
    n_layers, n_source, n_target = (int(number) for number in random.integers(1, 5, 3))
    size = max(n_source, n_target)
    layers = [np.stack([_fill(random, fill, size) for _ in range(n_layers)]) for _ in range(3)]
    encoder, decoder, cross = layers[0][:, :n_source, :n_source], layers[1][:, :n_target, :n_target], layers[2]
    decoder = np.tril(decoder)
    cross = cross[:, :n_target, :n_source]
    unrolled = n_target > 1 and random.random() < 0.5
    return flow_network(
        Capacities(decoder=decoder)
        if random.random() < 0.3
        else Capacities(
            encoder=encoder, decoder=decoder, cross=cross, residual=np.float32(random.choice([0.1, 0.5, 1]))
        ),
        decoder_layer=random.choice(["sublayers", "parallel"]),
        feedback="unrolled" if unrolled else "prefix",
        n_prompt=int(random.integers(1, n_target)) if unrolled else None,
    )


def _fill(random: np.random.Generator, fill: str, n: int) -> np.ndarray:
    if fill == "softmax":
        scores = np.exp(random.normal(scale=random.choice([0.1, 2, 6]), size=(n, n)))
        layer = scores / scores.sum(1, keepdims=True)
        residual = random.choice([0, 0.5, random.random(), 1])
        return (1 - residual) * layer + residual * np.eye(n)
    if fill == "ties":
        return random.integers(0, 4, (n, n)) / 4
    if fill == "equal":
        return np.full((n, n), 1 / n)
    if fill == "tiny":
        return 10.0 ** random.uniform(-12, 0, (n, n)) * (random.random((n, n)) < 0.8)
    return random.integers(0, 2**20, (n, n)) * (random.random((n, n)) < 0.7) / 2.0**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", type=int, default=1_000_000, help="how many at most (default: 1,000,000)")
    parser.add_argument("--seconds", type=float, default=120, help="how long at most (default: 120)")
    parser.add_argument("--seed", type=int, default=0, help="of the first network (default: 0)")
    arguments = parser.parse_args()
    certified.SMALL_WORK = 0.0  # compiled code from the first pair on
    end, counts = time.monotonic() + arguments.seconds, Counter[str]()
    for seed in range(arguments.seed, arguments.seed + arguments.networks):
        try:
            counts += compare(seed)
        except Exception as error:
            sys.exit(f"network of seed {seed}: {error}")
        if time.monotonic() > end:
            break
    print(", ".join(f"{count:,} {name}" for name, count in counts.items()), "without a difference")


if __name__ == "__main__":
    main()
