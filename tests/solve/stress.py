"""Compare the certified solver with OR-Tools and SciPy on many random networks.

    python tests/solve/stress.py --networks 1000000 --seconds 3600 --seed 0

All players to all outputs of each network, or some pairs of other nodes; one network in 100 has more tokens than a word has
bits, and some players of it are taken. Every value must have a lower bound equal to
its upper bound, equal to OR-Tools' and SciPy's value of the same quanta to the last bit, and differ from OR-Tools' value of
the unrounded capacities by no more than half a quantum per arc. Exits with an error, and the seed, at the first that does not.
"""

import argparse
import sys
import time
from collections import Counter
from collections.abc import Iterable

import numpy as np
import scipy.sparse
from ortools.graph.python.max_flow import SimpleMaxFlow
from scipy.sparse.csgraph import maximum_flow

from jaxflow import Capacities, FlowNetwork, flow_network
from jaxflow.solve import _certified as certified
from jaxflow.solve._flows import STAGES, Flows
from jaxflow.solve._quantise import INT32_MAX, QuantisedNetwork, quantise, quantise_to_int32

KINDS = ("encoder", "causal", "skipping", "unrolled", "sparse", "built")
FILLS = ("softmax", "ties", "equal", "tiny", "rough")
# Networks that SciPy solves in one call, most of whose time does not depend on size.
TOGETHER = 50
# One network in so many has more than 64 tokens.
LONG = 100


def compare(seeds: Iterable[int]) -> Counter[str]:
    """Solve networks in every way; raise AssertionError, naming the seed, where they differ."""
    cases = [_solved(seed) for seed in seeds]
    counts = Counter[str]()
    for (seed, network, sources, sinks, quantised, flows), reference in zip(cases, with_scipy(cases), strict=True):
        about = f"network of seed {seed}"
        assert quantised.quantum == flows.quantum, about
        np.testing.assert_array_equal(flows.lower, flows.upper, about)
        np.testing.assert_array_equal(flows.lower, reference, f"SciPy, {about}")
        np.testing.assert_array_equal(flows.lower, with_ortools(quantised, sources, sinks), f"OR-Tools, {about}")
        fine = quantise(network)
        value = with_ortools(fine, sources, sinks) * fine.quantum
        rounding = np.count_nonzero(network.capacity) * (flows.quantum + fine.quantum) / 2
        np.testing.assert_allclose(flows.lower * flows.quantum, value, rtol=0, atol=rounding, err_msg=about)
        counts.update({STAGES[stage]: int(count) for stage, count in enumerate(np.bincount(flows.stage))})
        counts.update(networks=1, pairs=len(sources))
    return counts


Case = tuple[int, FlowNetwork, np.ndarray, np.ndarray, QuantisedNetwork, Flows]


def _solved(seed: int) -> Case:
    """Draw a network and pairs of its nodes, and solve them."""
    random = np.random.default_rng(seed)
    is_long = seed % LONG == 0
    network = random_network(random, tokens=(65, 135) if is_long else (1, 7))
    players, outputs = network.inputs, network.outputs
    if is_long:
        players, outputs = random.choice(players, 16), random.choice(outputs, 1)
    sources, sinks = (values.ravel() for values in np.meshgrid(players, outputs))
    if random.random() < 0.2:
        sources, sinks = random.integers(network.n_nodes, size=(2, 8))
    sources, sinks = (nodes[sources != sinks] for nodes in (sources, sinks))
    try:
        flows = certified.solve_pairs(network, sources, sinks, n_threads=1)
    except Exception as error:
        raise AssertionError(f"network of seed {seed}: {error}") from error
    return seed, network, sources, sinks, quantise_to_int32(network, sources, sinks), flows


def with_ortools(network: QuantisedNetwork, sources: np.ndarray, sinks: np.ndarray) -> np.ndarray:
    """Solve one pair after another."""
    solver, values = SimpleMaxFlow(), np.zeros(len(sources), np.int64)
    solver.add_arcs_with_capacity(network.senders, network.receivers, network.capacity)
    for pair, (source, sink) in enumerate(zip(sources.tolist(), sinks.tolist(), strict=True)):
        if network.leaving[source] and network.entering[sink]:  # else OR-Tools may not know the node
            assert solver.solve(source, sink) == SimpleMaxFlow.OPTIMAL
            values[pair] = solver.optimal_flow()
    return values


def with_scipy(cases: list[Case]) -> list[np.ndarray]:
    """Solve all pairs at once: each in a copy of its network, the copies joined by a common source and a common sink."""
    first, parts = 2, []
    for _, network, sources, sinks, quantised, _ in cases:
        ends = quantised.senders * network.n_nodes + quantised.receivers
        places, which = np.unique(ends, return_inverse=True)  # arcs side by side
        total = np.minimum(np.bincount(which, quantised.capacity), INT32_MAX)
        senders, receivers = np.divmod(places, network.n_nodes)
        copies = first + network.n_nodes * np.arange(len(sources))
        # No more can leave a source; SciPy adds up int32 nowhere but at the common ends, whose sums are not looked at.
        most = np.minimum(np.bincount(senders, total, network.n_nodes), INT32_MAX)[sources]
        parts += [
            (
                np.add.outer(copies, senders).ravel(),
                np.add.outer(copies, receivers).ravel(),
                np.tile(total, len(sources)),
            ),
            (np.zeros_like(copies), copies + sources, most),
            (copies + sinks, np.ones_like(copies), np.full(len(sources), INT32_MAX)),
        ]
        first += network.n_nodes * len(sources)
    senders, receivers, capacity = (np.concatenate(column) for column in zip(*parts, strict=True))
    matrix = scipy.sparse.csr_array((capacity.astype(np.int32), (senders, receivers)), shape=(first, first))
    leaving = maximum_flow(matrix, 0, 1).flow[[0]].toarray()[0]
    starts = [part[1] for part in parts[1::3]]
    return [leaving[nodes] for nodes in starts]


def random_network(random: np.random.Generator, *, tokens: tuple[int, int] = (1, 7)) -> FlowNetwork:
    """Draw a network; one in two has a residual, capacities of 0 are among all of them."""
    kind, fill = random.choice(KINDS), random.choice(FILLS)
    n_layers, n_tokens = int(random.integers(1, 6)), int(random.integers(*tokens))
    if kind == "built":
        return _built(random, fill)
    level, position = np.indices((n_layers + 1, n_tokens)).reshape(2, -1)
    layers = np.stack([_fill(random, fill, n_tokens) for _ in range(n_layers)])
    if kind in ("causal", "unrolled"):
        layers = np.tril(layers)
    layer, query, key = np.indices(layers.shape).reshape(3, -1)
    arcs = [np.stack([layer, key, layer + 1, query])]  # a node is a level and a position
    weights = [layers.ravel()]
    if kind == "skipping":
        for _ in range(int(random.integers(1, 12))):
            low, high = np.sort(random.choice(n_layers + 1, 2, replace=False))
            arcs.append(np.array([[low], [random.integers(n_tokens)], [high], [random.integers(n_tokens)]]))
            weights.append(_fill(random, fill, 1)[0])
    number = np.arange(level.size).reshape(n_layers + 1, n_tokens)
    if kind == "unrolled":
        number = np.arange(level.size).reshape(n_tokens, n_layers + 1).T
        level, position = np.divmod(np.arange(level.size), n_layers + 1)[::-1]
        last, ones = np.arange(n_tokens - 1), np.ones(n_tokens - 1, int)
        arcs.append(np.stack([n_layers * ones, last, 0 * ones, last + 1]))
        weights.append(np.full(n_tokens - 1, float(random.choice([1e4, 1e30]))))
    low, sender, high, receiver = np.concatenate(arcs, axis=1)
    capacity = np.concatenate(weights).astype(np.float32 if random.random() < 0.5 else np.float64)
    if kind == "sparse":
        capacity[random.random(len(capacity)) < 0.6] = 0
    return FlowNetwork(
        senders=number[low, sender],
        receivers=number[high, receiver],
        capacity=capacity,
        level=level,
        position=position,
        stack=np.zeros(level.size, np.int64),
        encoder_inputs=number[0],
        decoder_inputs=None,
        outputs=number[-1],
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
    stop = arguments.seed + arguments.networks
    for seed in range(arguments.seed, stop, TOGETHER):
        try:
            counts += compare(range(seed, min(seed + TOGETHER, stop)))
        except AssertionError as error:
            sys.exit(str(error))
        if time.monotonic() > end:
            break
    print(", ".join(f"{count:,} {name}" for name, count in counts.items()), "without a difference")


if __name__ == "__main__":
    main()
