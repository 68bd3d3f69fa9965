"""min_cut: its capacity is the value, it parts the ends, and it is the nearest one."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import is_connected, minimum_cuts
from solve import stress
from strategies import capacities, make_attention, sixteenths

from jaxflow import Capacities, flow_network, max_flow, min_cut
from jaxflow.solve import _certified as certified
from jaxflow.solve import _nearest_cuts as nearest_cuts
from jaxflow.solve import _ortools as ortools
from jaxflow.solve import cut_capacities
from jaxflow.solve._quantise import quantise_to_int32


@pytest.fixture(params=["OR-Tools", "compiled"], scope="module", autouse=True)
def _finder(request):
    """Small work is done by OR-Tools, unless there is no such thing as small work."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "compiled":
            patch.setattr(certified, "SMALL_WORK", 0.0)
        yield


def arcs_of(cut):
    return set(zip(cut.layer.tolist(), cut.query.tolist(), cut.key.tolist(), strict=True))


@settings(deadline=None, max_examples=60)
@given(st.one_of(capacities((1, 6), (1, 5)), sixteenths((1, 5), (1, 5))), st.data())
def test_certifies_the_value(capacity, data):
    """Its arcs have the capacities of the network, add up to the maximum flow, and without them nothing is connected."""
    n_tokens = capacity.shape[-1]
    source, sink = (data.draw(st.integers(0, n_tokens - 1)) for _ in range(2))
    network = flow_network(Capacities(encoder=capacity))
    ends = network.encoder_inputs[source], network.outputs[sink]
    for nearest in ("source", "sink"):
        cut = min_cut(network, *ends, nearest=nearest)
        assert cut.value == max_flow(network, *ends).value
        np.testing.assert_allclose(cut.capacity.sum(), cut.value, rtol=1e-14)
        np.testing.assert_allclose(
            cut.capacity, capacity[cut.layer - 1, cut.query, cut.key], rtol=1e-15, atol=cut.quantum / 2
        )
        assert (cut.capacity > 0).all()
        arcs = arcs_of(cut)
        assert len(arcs) == len(cut.layer)
        left = [
            (layer * n_tokens + key, (layer + 1) * n_tokens + query)
            for layer, query, key in np.ndindex(capacity.shape)
            if capacity[layer, query, key] > cut.quantum and (layer + 1, query, key) not in arcs
        ]
        assert not is_connected(left, *map(int, ends))


@settings(deadline=None, max_examples=50)
@given(sixteenths((1, 3), (1, 3)), st.data())
def test_is_the_nearest_of_all_minimum_cuts(capacity, data):
    source, sink = (data.draw(st.integers(0, capacity.shape[-1] - 1)) for _ in range(2))
    network = flow_network(Capacities(encoder=capacity))
    ends = network.encoder_inputs[source], network.outputs[sink]
    value, near_source, near_sink = minimum_cuts(capacity, source, sink)
    assert min_cut(network, *ends).value == value
    if value > 0:
        assert arcs_of(min_cut(network, *ends)) == near_source
        assert arcs_of(min_cut(network, *ends, nearest="source")) == near_source
        assert arcs_of(min_cut(network, *ends, nearest="sink")) == near_sink


def test_bottleneck_that_was_put_there():
    capacity = np.ones((5, 3, 3))
    capacity[2] = 0
    capacity[2, 1, 2], capacity[2, 0, 0] = 0.25, 0.125
    network = flow_network(Capacities(encoder=capacity))
    for nearest in ("source", "sink"):
        cut = min_cut(network, network.encoder_inputs[0], network.outputs[2], nearest=nearest)
        assert arcs_of(cut) == {(3, 1, 2), (3, 0, 0)}
        assert cut.value == 0.375


def test_a_chain_of_equal_arcs_has_a_cut_at_either_end():
    network = flow_network(Capacities(encoder=np.full((12, 1, 1), 0.5)))
    assert arcs_of(min_cut(network, 0, 12, nearest="source")) == {(1, 0, 0)}
    assert arcs_of(min_cut(network, 0, 12, nearest="sink")) == {(12, 0, 0)}


@pytest.mark.parametrize("nearest", ["source", "sink"])
def test_no_arcs_where_nothing_flows(nearest):
    network = flow_network(Capacities(encoder=np.broadcast_to(np.eye(3), (2, 3, 3))))
    cut = min_cut(network, network.encoder_inputs[0], network.outputs[1], nearest=nearest)
    assert cut.value == 0
    assert cut.capacity.shape == cut.layer.shape == cut.query.shape == cut.key.shape == (0,)


def test_is_a_pytree():
    network = flow_network(Capacities(encoder=make_attention("softmax", 0, (2, 4, 4))))
    cut = min_cut(network, 0, 11)
    doubled = jax.tree.map(lambda leaf: 2 * leaf, cut)
    assert doubled.value == 2 * cut.value
    np.testing.assert_array_equal(doubled.capacity, 2 * cut.capacity)


def test_bad_input():
    network = flow_network(Capacities(encoder=make_attention("softmax", 0, (2, 4, 4))))
    with pytest.raises(
        ValueError, match=r"source has shape \(1, 4\); expected a node, or \[node\] nodes that act as one"
    ):
        min_cut(network, network.encoder_inputs[None], 11)
    assert min_cut(network, 0, [11]).value == min_cut(network, 0, 11).value
    with pytest.raises(ValueError, match="nearest is 'input'; expected 'source' or 'sink'"):
        min_cut(network, 0, 11, nearest="input")


@settings(deadline=None, max_examples=150)
@given(st.integers(0, 2**63 - 1), st.sampled_from(["source", "sink"]))
def test_on_any_network_the_cuts_are_those_of_ortools(seed, nearest):
    network = stress.random_network(np.random.default_rng(seed))
    sources, sinks = (ends.ravel() for ends in np.meshgrid(network.inputs, network.outputs))
    solved = []
    quantised, found = nearest_cuts.nearest_cuts(
        network, sources, sinks, nearest=nearest, solver="certified", on_solved=lambda: solved.append(1)
    )
    reference = ortools.solve_pairs(quantise_to_int32(network, sources, sinks), sources, sinks)
    for arcs, solved_again in zip(found, reference, strict=True):
        assert quantised.capacity[arcs].sum() == solved_again.value
        np.testing.assert_array_equal(arcs, solved_again.cut(nearest))
    assert len(solved) == len(sources)


def test_layers_of_a_long_text_add_up_to_the_values():
    layers = np.random.default_rng(0).dirichlet(np.full(90, 0.2), (6, 90)).astype(np.float32)
    network = flow_network(Capacities(encoder=(layers + np.eye(90, dtype=np.float32)) / 2))
    ends = network.encoder_inputs, network.outputs[:2, None]
    np.testing.assert_array_equal(cut_capacities(network, *ends).sum(-1), max_flow(network, *ends).value)
