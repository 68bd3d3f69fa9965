"""arc_range: against linear programmes, and flows that are forced or impossible."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog
from strategies import sixteenths

from jaxflow import Capacities, flow_network, max_flow
from jaxflow.solve import arc_range, barrier_flow


def by_linear_programming(network, source, sink, arc, value):
    """Least and greatest flow of one arc, over all flows of that value."""
    capacity = np.asarray(network.capacity)
    matrix = np.zeros((network.n_nodes, len(capacity)))
    matrix[network.senders, np.arange(len(capacity))] += 1
    matrix[network.receivers, np.arange(len(capacity))] -= 1
    demand = np.zeros(network.n_nodes)
    demand[source], demand[sink] = value, -value
    target = np.zeros(len(capacity))
    target[arc] = 1
    bounds = [(0, bound) for bound in capacity]
    return [
        sign * linprog(sign * target, A_eq=matrix, b_eq=demand, bounds=bounds, method="highs").fun for sign in (1, -1)
    ]


@settings(deadline=None, max_examples=20)
@given(sixteenths((1, 3), (2, 4)), st.data())
def test_against_linear_programming(capacity, data):
    n = capacity.shape[1]
    source, output = (data.draw(st.integers(0, n - 1)) for _ in range(2))
    network = flow_network(Capacities(encoder=capacity))
    sink = int(network.outputs[output])
    result = arc_range(network, source, sink)
    assert result.value == max_flow(network, source, sink).value
    for arc in range(len(network.senders)):
        expected = by_linear_programming(network, source, sink, arc, result.value)
        np.testing.assert_allclose([result.least[arc], result.greatest[arc]], expected, atol=1e-7)


def test_every_maximum_flow_lies_between():
    layers = np.random.default_rng(0).dirichlet(np.ones(4), (3, 4))
    network = flow_network(Capacities(encoder=layers))
    sink = int(network.outputs[2])
    result = arc_range(network, 1, sink)
    assert (result.greatest - result.least).max() > 0.01  # the flow is not unique
    near = barrier_flow(network, 1, sink, mu=1e-9).flow
    assert (near >= result.least - 1e-6).all()
    assert (near <= result.greatest + 1e-6).all()


def test_chosen_arcs_alone():
    layers = np.random.default_rng(0).dirichlet(np.ones(4), (3, 4))
    network = flow_network(Capacities(encoder=layers))
    everything, some = arc_range(network, 0, 12), arc_range(network, 0, 12, arcs=[5, 2])
    np.testing.assert_array_equal(some.arcs, [5, 2])
    np.testing.assert_array_equal(some.least, everything.least[[5, 2]])
    np.testing.assert_array_equal(some.greatest, everything.greatest[[5, 2]])
    assert jax.tree.map(lambda leaf: 2 * leaf, some).value == 2 * some.value


def test_a_chain_is_forced_and_nothing_flows_where_nothing_leads():
    network = flow_network(Capacities(encoder=np.full((12, 1, 1), 0.5)))
    result = arc_range(network, 0, 12)
    assert (result.least == 0.5).all()
    assert (result.greatest == 0.5).all()
    apart = flow_network(Capacities(encoder=np.broadcast_to(np.eye(2), (2, 2, 2))))
    result = arc_range(apart, 0, 5)
    assert result.value == 0
    assert not result.greatest.any()


def test_bad_input():
    network = flow_network(Capacities(encoder=np.ones((2, 2, 2))))
    with pytest.raises(ValueError, match="arcs is 8; expected indices of arcs, 0 to 7"):
        arc_range(network, 0, 5, arcs=8)
    with pytest.raises(ValueError, match="arc_range takes one source and another node as sink"):
        arc_range(network, [0, 1], 5)
    with pytest.raises(ValueError, match="sink is node 6, which does not exist"):
        arc_range(network, 0, 6)
