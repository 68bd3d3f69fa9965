"""Other solvers for the same pairs of nodes, one solve each: OR-Tools, SciPy, igraph and networkx."""

import statistics
import time
from collections.abc import Callable, Iterator

import numpy as np
import scipy.sparse
from scipy.sparse.csgraph import maximum_flow

from jaxflow import FlowNetwork
from jaxflow.solve import _ortools as ortools
from jaxflow.solve._quantise import quantise

Pairs = tuple[np.ndarray, np.ndarray]
NAMES = {"ortools": "OR-Tools", "scipy": "SciPy", "igraph": "igraph", "networkx": "networkx"}
OPTIONAL = ("igraph", "networkx")


def with_ortools(network: FlowNetwork, pairs: Pairs) -> Iterator[float]:
    quantised = quantise(network)
    for solved in ortools.solve_pairs(quantised, *pairs):
        solved.cut()  # the proof is counted
        yield solved.value * quantised.quantum


def with_scipy(network: FlowNetwork, pairs: Pairs) -> Iterator[float]:
    quanta = np.rint(np.asarray(network.capacity, np.float64) * 2**30).astype(np.int32)
    shape = (network.n_nodes, network.n_nodes)
    graph = scipy.sparse.csr_array((quanta, (network.senders, network.receivers)), shape=shape, dtype=np.int32)
    return (
        maximum_flow(graph, *pair).flow_value / 2**30 for pair in zip(*(ends.tolist() for ends in pairs), strict=True)
    )


def with_igraph(network: FlowNetwork, pairs: Pairs) -> Iterator[float]:
    import igraph

    arcs = np.stack([network.senders, network.receivers], axis=1)
    graph = igraph.Graph(network.n_nodes, arcs.tolist(), directed=True)
    capacity = np.asarray(network.capacity, np.float64).tolist()
    return (graph.maxflow_value(*pair, capacity) for pair in zip(*(ends.tolist() for ends in pairs), strict=True))


def with_networkx(network: FlowNetwork, pairs: Pairs) -> Iterator[float]:
    import networkx as nx

    graph = nx.DiGraph()
    columns = network.senders, network.receivers, np.asarray(network.capacity)
    graph.add_weighted_edges_from(zip(*(column.tolist() for column in columns), strict=True), weight="capacity")
    for source, sink in zip(*(ends.tolist() for ends in pairs), strict=True):
        yield nx.maximum_flow_value(graph, source, sink)


PEERS: dict[str, Callable[[FlowNetwork, Pairs], Iterator[float]]] = {
    "ortools": with_ortools,
    "scipy": with_scipy,
    "igraph": with_igraph,
    "networkx": with_networkx,
}


def seconds_per_pair(peer: str, network: FlowNetwork, pairs: Pairs, value: np.ndarray) -> float:
    """Median over pairs, the first of which builds the graph and is left out; values are compared."""
    ticks, values = [time.perf_counter()], []
    for solved in PEERS[peer](network, pairs):
        values.append(solved)
        ticks.append(time.perf_counter())
    np.testing.assert_allclose(values, value[: len(values)], rtol=0, atol=1e-6, err_msg=peer)
    return statistics.median(np.diff(ticks)[1:])
