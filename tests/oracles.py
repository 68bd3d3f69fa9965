"""Maximum flows found by others, on graphs that are built here, with loops, straight from the definition.

Nothing of jaxflow is used. `capacity` is one example's `[layer, query, key]`: `(l - 1, k) -> (l, q)` has `capacity[l - 1, q, k]`.
Networkx is combinatorial, on the numbers as they are; SciPy is combinatorial too, on integers of its own scale; HiGHS solves the
linear programme in floats; brute force tries every cut.
"""

import itertools
from fractions import Fraction

import networkx as nx
import numpy as np
from scipy.optimize import linprog
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_flow


def capacities_by_loops(weights, *, heads="mean", residual=0.5, mask=None):
    """`C = (1 - r) * A + r * I` of one example's `[layer, head, query, key]`, number by number, in float64."""
    n_layers, n_heads, n_tokens, _ = weights.shape
    capacity = np.zeros((n_layers, n_tokens, n_tokens))
    for layer, query, key in itertools.product(range(n_layers), range(n_tokens), range(n_tokens)):
        if mask is not None and not (mask[query] and mask[key]):
            continue
        each = [float(weights[layer, head, query, key]) for head in range(n_heads)]
        if isinstance(heads, str):
            reduced = max(each) if heads == "max" else sum(each) / n_heads
        elif np.ndim(heads) == 0:
            reduced = each[heads]
        else:
            reduced = sum(float(heads[layer][head]) * each[head] for head in range(n_heads))
        capacity[layer, query, key] = (1 - residual) * reduced + (residual if query == key else 0)
    return capacity


def graph(capacity, number=float):
    """The networkx graph, nodes `(level, position)`, arcs of capacity 0 left out."""
    n_layers, n_tokens, _ = capacity.shape
    network = nx.DiGraph()
    network.add_nodes_from(itertools.product(range(n_layers + 1), range(n_tokens)))
    for layer in range(n_layers):
        for query in range(n_tokens):
            for key in range(n_tokens):
                if capacity[layer, query, key] > 0:
                    network.add_edge(
                        (layer, key), (layer + 1, query), capacity=number(capacity[layer, query, key].item())
                    )
    return network


def networkx_value(capacity, source, sink):
    """Value of the maximum flow from input `source` to output `sink`, in floats."""
    return networkx_values(capacity, [(source, sink)])[0]


def networkx_values(capacity, pairs):
    network, n_layers = graph(capacity), capacity.shape[0]
    residual = nx.algorithms.flow.build_residual_network(network, "capacity")
    return [
        nx.maximum_flow_value(
            network,
            (0, source),
            (n_layers, sink),
            flow_func=nx.algorithms.flow.shortest_augmenting_path,
            residual=residual,
        )
        for source, sink in pairs
    ]


def exact_value(capacity, source, sink):
    """The value as a `Fraction`, without any rounding: networkx on integers of any length."""
    numbers = [Fraction(number) for number in np.ravel(capacity).tolist()]
    scale = max(number.denominator for number in numbers)
    network = graph(capacity, number=lambda number: int(Fraction(number) * scale))
    return Fraction(nx.maximum_flow_value(network, (0, source), (capacity.shape[0], sink)), scale)


def scipy_values(capacity, pairs):
    """Values by SciPy, which takes int32 alone: capacities are rounded to 2**-28 of the largest."""
    n_layers, n_tokens, _ = capacity.shape
    unit = float(capacity.max()) / 2**28 or 1.0
    matrix = np.zeros(((n_layers + 1) * n_tokens,) * 2, np.int32)
    for layer in range(n_layers):
        below = slice(layer * n_tokens, (layer + 1) * n_tokens)
        above = slice((layer + 1) * n_tokens, (layer + 2) * n_tokens)
        matrix[below, above] = np.rint(np.asarray(capacity[layer], np.float64).T / unit)
    sparse = csr_array(matrix)
    return [maximum_flow(sparse, s, n_layers * n_tokens + t).flow_value * unit for s, t in pairs]


def linprog_value(capacity, source, sink):
    """The linear programme: maximise what leaves the source, with every other node in balance."""
    network = graph(capacity)
    nodes = {node: row for row, node in enumerate(network)}
    arcs = list(network.edges(data="capacity"))
    if not arcs:
        return 0.0
    balance = np.zeros((len(nodes), len(arcs)))
    for column, (sender, receiver, _) in enumerate(arcs):
        balance[nodes[sender], column] += 1
        balance[nodes[receiver], column] -= 1
    ends = [nodes[0, source], nodes[capacity.shape[0], sink]]
    inner = np.delete(balance, ends, axis=0)
    solution = linprog(
        -balance[ends[0]],
        A_eq=inner,
        b_eq=np.zeros(len(inner)),
        bounds=[(0, bound) for *_, bound in arcs],
        method="highs",
    )
    assert solution.success, solution.message
    return -solution.fun


def minimum_cuts(capacity, source, sink):
    """Every cut is tried: the least capacity, and the arcs `(layer, query, key)` of the cuts nearest to either end.

    `source` and `sink` are positions, or lists of them: all inputs against all outputs.

    Exact for capacities that add up without rounding, such as whole numbers and sixteenths.
    """
    n_layers, n_tokens, _ = capacity.shape
    arcs = [
        (layer, query, key, capacity[layer, query, key])
        for layer, query, key in itertools.product(range(n_layers), range(n_tokens), range(n_tokens))
        if capacity[layer, query, key] > 0
    ]
    s, t = np.atleast_1d(source), n_layers * n_tokens + np.atleast_1d(sink)
    free = [node for node in range((n_layers + 1) * n_tokens) if node not in s and node not in t]
    choice = np.arange(2 ** len(free))
    sides = np.zeros((len(choice), (n_layers + 1) * n_tokens), bool)
    sides[:, s] = True
    for bit, node in enumerate(free):
        sides[:, node] = choice >> bit & 1
    total = np.zeros(len(choice))
    for layer, query, key, number in arcs:
        total += number * (sides[:, layer * n_tokens + key] & ~sides[:, (layer + 1) * n_tokens + query])
    least = sides[total == total.min()]

    def crossing(side):
        return {
            (layer + 1, query, key)
            for layer, query, key, _ in arcs
            if side[layer * n_tokens + key] and not side[(layer + 1) * n_tokens + query]
        }

    return total.min(), crossing(least.all(0)), crossing(least.any(0))


def is_connected(arcs, source, sink):
    """Tell whether the sink can be reached from the source over `(sender, receiver)` arcs."""
    reached, border = {source}, [source]
    following = {}
    for sender, receiver in arcs:
        following.setdefault(sender, []).append(receiver)
    while border:
        for node in following.get(border.pop(), ()):
            if node not in reached:
                reached.add(node)
                border.append(node)
    return sink in reached
