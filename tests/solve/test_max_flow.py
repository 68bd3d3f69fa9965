"""max_flow: against four oracles, facts about maximum flows, and what OR-Tools would accept in silence."""

import functools
import itertools

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import exact_value, linprog_value, minimum_cuts, networkx_values, scipy_values
from strategies import capacities, make_attention, sixteenths

import jaxflow
from jaxflow import Capacities, flow_network

# The reference: its fine quanta leave rounding little room.
cut_capacities, max_flow, min_cut = (
    functools.partial(function, solver="ortools")
    for function in (jaxflow.solve.cut_capacities, jaxflow.max_flow, jaxflow.min_cut)
)


def network_of(capacity):
    return flow_network(Capacities(encoder=capacity))


def all_values(capacity):
    """The matrix `[output, input]`."""
    network = network_of(capacity)
    return max_flow(network, network.encoder_inputs, network.outputs[:, None]).value


def all_pairs(capacity):
    """Pairs `(input, output)` in the order of that matrix."""
    return [(source, sink) for sink, source in itertools.product(range(capacity.shape[-1]), repeat=2)]


# Oracles


@settings(deadline=None, max_examples=50)
@given(capacities((1, 4), (1, 5)))
def test_against_networkx_and_scipy(capacity):
    got, pairs = all_values(capacity).ravel(), all_pairs(capacity)
    np.testing.assert_allclose(got, networkx_values(capacity, pairs), atol=1e-9)
    np.testing.assert_allclose(got, scipy_values(capacity, pairs), atol=1e-6)


@settings(deadline=None, max_examples=40)
@given(capacities((1, 3), (1, 4)), st.data())
def test_against_linear_programming(capacity, data):
    source, sink = data.draw(st.sampled_from(all_pairs(capacity)))
    np.testing.assert_allclose(all_values(capacity)[sink, source], linprog_value(capacity, source, sink), atol=1e-7)


@settings(deadline=None, max_examples=40)
@given(sixteenths((1, 3), (1, 3)), st.data())
def test_equals_the_least_of_all_cuts_exactly(capacity, data):
    source, sink = data.draw(st.sampled_from(all_pairs(capacity)))
    assert all_values(capacity)[sink, source] == minimum_cuts(capacity, source, sink)[0]


@settings(deadline=None, max_examples=50)
@given(sixteenths((1, 5), (2, 5)))
def test_whole_sixteenths_are_solved_without_any_rounding(capacity):
    pairs = all_pairs(capacity)
    np.testing.assert_array_equal(all_values(capacity).ravel(), [float(exact_value(capacity, *pair)) for pair in pairs])


@pytest.mark.parametrize("n_layers", [12, 24])
@pytest.mark.parametrize("kind", ["softmax", "causal", "sparse", "ties"])
def test_many_layers(n_layers, kind):
    capacity = make_attention(kind, n_layers, (n_layers, 8, 8)).astype(np.float64)
    got, pairs = all_values(capacity).ravel(), all_pairs(capacity)
    some = np.random.default_rng(0).choice(len(pairs), 10, replace=False)
    np.testing.assert_allclose(got[some], networkx_values(capacity, [pairs[i] for i in some]), atol=1e-9)
    np.testing.assert_allclose(got, scipy_values(capacity, pairs), atol=1e-6)


def test_docstring_example_by_hand():
    layer = np.array([[0.75, 0.25], [0.5, 0.5]])
    np.testing.assert_array_equal(all_values(np.stack([layer, layer])), [[1.0, 0.5], [1.0, 0.75]])


# Facts


def with_super_source(network, capacity):
    """The same network, and one more node with an arc of `capacity` to every input."""
    players = network.encoder_inputs
    return network.replace(
        senders=np.append(network.senders, np.full(len(players), network.n_nodes)),
        receivers=np.append(network.receivers, players),
        capacity=np.append(network.capacity, np.full(len(players), float(capacity))),
        level=np.append(network.level, 0),
        position=np.append(network.position, 0),
    )


@settings(deadline=None, max_examples=60)
@given(capacities((1, 12), (1, 5)))
def test_all_inputs_together_send_exactly_one(capacity):
    network = with_super_source(network_of(capacity), 1 + capacity.sum())
    np.testing.assert_allclose(max_flow(network, network.n_nodes - 1, network.outputs).value, 1, rtol=1e-13)


@settings(deadline=None, max_examples=60)
@given(capacities((1, 12), (1, 5)))
def test_between_rollout_and_the_first_layers_column(capacity):
    rollout = np.linalg.multi_dot([*capacity[::-1], np.eye(capacity.shape[-1])])
    got = all_values(capacity)
    assert (rollout <= got + 1e-12).all()
    assert (got <= np.minimum(1, capacity[0].sum(0)) + 1e-12).all()


@settings(deadline=None, max_examples=40)
@given(capacities((1, 1), (1, 6)))
def test_one_layer_is_its_capacities(capacity):
    np.testing.assert_allclose(all_values(capacity), capacity[0], rtol=0, atol=1e-15)


@pytest.mark.parametrize("n_layers", [1, 2, 12])
@pytest.mark.parametrize("n_tokens", [1, 5])
def test_identity(n_layers, n_tokens):
    identity = np.broadcast_to(np.eye(n_tokens), (n_layers, n_tokens, n_tokens))
    np.testing.assert_array_equal(all_values(identity), np.eye(n_tokens))


@settings(deadline=None, max_examples=40)
@given(capacities((1, 6), (2, 6), kinds=("causal",)))
def test_causal_attention_sends_nothing_back(capacity):
    np.testing.assert_array_equal(np.triu(all_values(capacity), 1), 0)


@settings(deadline=None, max_examples=50)
@given(capacities((1, 5), (1, 5)), st.integers(0, 2**32 - 1))
def test_monotone_in_every_capacity(capacity, seed):
    rng = np.random.default_rng(seed)
    more = capacity + rng.random(capacity.shape) * (rng.random(capacity.shape) < 0.3)
    assert (all_values(capacity) <= all_values(more) + 1e-12).all()


@settings(deadline=None, max_examples=50)
@given(capacities((1, 5), (1, 5)), st.sampled_from((2.0**-70, 1e-6, 1 / 3, 3.0, 2.0**20, 1e6, 1e30)))
def test_scaling_all_capacities_scales_the_value(capacity, scale):
    np.testing.assert_allclose(
        all_values(scale * capacity), scale * all_values(capacity), rtol=1e-12, atol=scale * 1e-15
    )


@settings(deadline=None, max_examples=50)
@given(capacities((1, 5), (1, 6)), st.integers(0, 2**32 - 1))
def test_permuting_tokens_permutes_values(capacity, seed):
    order = np.random.default_rng(seed).permutation(capacity.shape[-1])
    permuted = capacity[:, order][:, :, order]
    np.testing.assert_array_equal(all_values(permuted), all_values(capacity)[np.ix_(order, order)])


@settings(deadline=None, max_examples=50)
@given(capacities((1, 5), (1, 5)), st.integers(0, 2**32 - 1))
def test_order_of_arcs_changes_nothing(capacity, seed):
    network = network_of(capacity)
    order = np.random.default_rng(seed).permutation(len(network.senders))
    shuffled = network.replace(
        senders=network.senders[order], receivers=network.receivers[order], capacity=network.capacity[order]
    )
    ends = network.encoder_inputs, network.outputs[:, None]
    one, other = max_flow(network, *ends), max_flow(shuffled, *ends)
    for leaf, same in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(leaf, same)
    np.testing.assert_array_equal(cut_capacities(network, *ends), cut_capacities(shuffled, *ends))


def upper_bound(capacity, source, sink):
    """Section 5.5: forwards from the source, backwards from the sink, and what leaves the one and enters the other."""
    forwards = np.where(np.arange(capacity.shape[-1]) == source, np.inf, 0)
    for layer in capacity:
        forwards = np.minimum(layer, forwards[None, :]).sum(1)
    backwards = np.where(np.arange(capacity.shape[-1]) == sink, np.inf, 0)
    for layer in capacity[::-1]:
        backwards = np.minimum(layer, backwards[:, None]).sum(0)
    ends = capacity[0, :, source].sum(), capacity[-1, sink].sum()
    return min(forwards[sink], backwards[source], *ends)


@settings(deadline=None, max_examples=60)
@given(capacities((1, 6), (1, 6)))
def test_upper_bound_of_every_pair(capacity):
    bounds = [upper_bound(capacity, *pair) for pair in all_pairs(capacity)]
    assert (all_values(capacity).ravel() <= np.array(bounds) + 1e-12).all()


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**32 - 1), st.data())
def test_gradient_is_one_on_the_minimum_cut_and_zero_elsewhere(seed, data):
    """Where the cut is unique, by finite differences in both directions."""
    capacity = make_attention("softmax", seed, (3, 4, 4)).astype(np.float64)
    source, sink = data.draw(st.sampled_from(all_pairs(capacity)))
    network = network_of(capacity)
    ends = network.encoder_inputs[source], network.outputs[sink]
    cuts = [min_cut(network, *ends, nearest=end) for end in ("source", "sink")]
    arcs = [set(zip(cut.layer - 1, cut.query, cut.key, strict=True)) for cut in cuts]
    assert arcs[0] == arcs[1]  # numbers drawn at random do not tie
    step = 1e-9
    for index in np.ndindex(capacity.shape):
        for sign in (-step, step):
            moved = capacity.copy()
            moved[index] += sign
            slope = (max_flow(network_of(moved), *ends).value - cuts[0].value) / sign
            np.testing.assert_allclose(slope, float(index in arcs[0]), atol=1e-5)


# Certificates


@settings(deadline=None, max_examples=50)
@given(st.one_of(capacities((1, 5), (1, 5)), sixteenths((1, 4), (1, 5))))
def test_lower_and_upper_bound_meet_and_trivial_is_what_leaves_and_enters(capacity):
    network = network_of(capacity)
    flow = max_flow(network, network.encoder_inputs, network.outputs[:, None])
    np.testing.assert_array_equal(flow.lower, flow.upper)
    np.testing.assert_array_equal(flow.value, flow.lower)
    trivial = np.minimum(capacity[0].sum(0)[None, :], capacity[-1].sum(1)[:, None])
    np.testing.assert_allclose(flow.trivial, trivial, rtol=1e-13, atol=1e-15)
    assert (flow.value <= flow.trivial).all()
    assert flow.status == "optimal"


@settings(deadline=None, max_examples=40)
@given(st.one_of(capacities((1, 6), (1, 4)), sixteenths((1, 4), (1, 5))))
def test_layers_of_the_cut_add_up_to_the_value(capacity):
    network = network_of(capacity)
    ends = network.encoder_inputs, network.outputs[:, None]
    layers = cut_capacities(network, *ends)
    assert layers.shape == (capacity.shape[-1], capacity.shape[-1], len(capacity))
    np.testing.assert_allclose(layers.sum(-1), max_flow(network, *ends).value, rtol=1e-13)
    for sink, source in np.ndindex(layers.shape[:2]):
        cut = min_cut(network, network.encoder_inputs[source], network.outputs[sink])
        expected = np.bincount(cut.layer - 1, weights=cut.capacity, minlength=len(capacity))
        np.testing.assert_allclose(layers[sink, source], expected, rtol=1e-13)


# Shapes, and what only some networks have


NETWORK = network_of(make_attention("softmax", 0, (2, 4, 4)))
PLAYERS, OUTPUTS = NETWORK.encoder_inputs, NETWORK.outputs


def test_pairs_are_broadcast():
    everything = max_flow(NETWORK, PLAYERS, OUTPUTS[:, None])
    assert everything.value.shape == everything.trivial.shape == (4, 4)
    for source, sink in itertools.product(range(4), repeat=2):
        one = max_flow(NETWORK, PLAYERS[source], OUTPUTS[sink])
        assert np.shape(one.value) == ()
        assert one.value == everything.value[sink, source]
        assert one.trivial == everything.trivial[sink, source]
    np.testing.assert_array_equal(max_flow(NETWORK, PLAYERS, OUTPUTS).value, np.diag(everything.value))
    np.testing.assert_array_equal(max_flow(NETWORK, 0, OUTPUTS).value, everything.value[:, 0])
    assert max_flow(NETWORK, np.zeros(0, int), OUTPUTS[0]).value.shape == (0,)
    np.testing.assert_array_equal(max_flow(NETWORK, np.uint8(1), np.int32(10)).value, everything.value[2, 1])


def test_inner_nodes_are_ends_as_well():
    capacity = np.asarray(NETWORK.capacity).reshape(2, 4, 4)
    assert max_flow(NETWORK, 4, 9).value == capacity[1, 1, 0]
    assert max_flow(NETWORK, 9, 4).value == 0
    assert max_flow(NETWORK, 0, 3).value == 0


@pytest.mark.parametrize("solve", [max_flow, cut_capacities])
def test_progress_is_told_of_each_pair(solve):
    calls = []
    solve(NETWORK, PLAYERS, OUTPUTS[:, None], on_solved=lambda: calls.append(1))
    assert len(calls) == 16


def test_parallel_arcs_add_up():
    halves = NETWORK.replace(
        senders=np.tile(NETWORK.senders, 2),
        receivers=np.tile(NETWORK.receivers, 2),
        capacity=np.tile(np.asarray(NETWORK.capacity) / 2, 2),
    )
    np.testing.assert_array_equal(
        max_flow(halves, PLAYERS, OUTPUTS[:, None]).value, max_flow(NETWORK, PLAYERS, OUTPUTS[:, None]).value
    )


# What OR-Tools accepts in silence


def test_float_capacities_are_not_cut_to_whole_numbers():
    assert all_values(np.array([[[0.7]]])) == pytest.approx(0.7, rel=1e-15)
    np.testing.assert_allclose(all_values(np.full((2, 2, 2), 0.3)), 0.6, rtol=1e-15)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.int32])
def test_capacities_of_any_type(dtype):
    assert all_values(np.array([[[3, 1], [0, 2]]], dtype)).tolist() == [[3, 1], [0, 2]]


@pytest.mark.parametrize("capacity", [np.zeros((3, 2, 2)), np.zeros((1, 1, 1)), np.full((2, 2, 2), 5e-324)])
def test_networks_that_carry_nothing(capacity):
    network = network_of(capacity)
    flow = max_flow(network, network.encoder_inputs, network.outputs[:, None])
    for leaf in (flow.value, flow.lower, flow.upper, flow.trivial):
        np.testing.assert_array_equal(leaf, 0)


def test_players_and_outputs_without_arcs():
    capacity = np.zeros((2, 3, 3))
    capacity[:, 0, 0] = 0.5
    capacity[0, 1, 1] = 1.0  # leads nowhere
    capacity[1, 2, 2] = 1.0  # comes from nowhere
    np.testing.assert_array_equal(all_values(capacity), [[0.5, 0, 0], [0, 0, 0], [0, 0, 0]])


@pytest.mark.parametrize("small", [1e-30, 1e-18, 1e-12])
def test_tiny_capacities_beside_one(small):
    capacity = np.array([[[1, small], [small, 1.0]]])
    flow = max_flow(network_of(capacity), [0, 1], [[2], [3]])
    np.testing.assert_allclose(flow.value, capacity[0], rtol=0, atol=flow.quantum / 2)
    # Alone they are solved as well as any others.
    np.testing.assert_allclose(all_values(capacity * 0 + small), small, rtol=1e-15)


@pytest.mark.parametrize("scale", [1e6, 1e18, 1e30, 1e300])
def test_huge_capacities(scale):
    np.testing.assert_allclose(
        max_flow(NETWORK.replace(capacity=np.asarray(NETWORK.capacity, np.float64) * scale), 0, 11).value,
        scale * max_flow(NETWORK, 0, 11).value,
        rtol=1e-14,
    )


ARCS = len(NETWORK.senders)
BAD_NETWORKS = [
    ({"capacity": np.full(ARCS, -0.5)}, "Arc 0 has capacity -0.5; expected finite capacities >= 0"),
    ({"capacity": np.where(np.arange(ARCS) == 7, np.nan, 1)}, "Arc 7 has capacity nan"),
    ({"capacity": np.where(np.arange(ARCS) == 9, np.inf, 1)}, "Arc 9 has capacity inf"),
    ({"capacity": np.full(ARCS, 1e308)}, "Capacities add up to more than float64 can hold"),
    ({"capacity": np.ones(ARCS - 1)}, r"senders \(32,\), receivers \(32,\) and capacity \(31,\) differ"),
    ({"senders": NETWORK.senders[1:]}, r"senders \(31,\), receivers"),
    ({"capacity": np.ones((2, ARCS))}, "forget to take one example of a batch"),
    ({"receivers": NETWORK.receivers + 1}, "receivers names nodes 5 to 12; the network has 0 to 11"),
    ({"senders": NETWORK.senders - 1}, "senders names nodes -1 to 6; the network has 0 to 11"),
]


@pytest.mark.parametrize(("fields", "message"), BAD_NETWORKS, ids=[message[:30] for _, message in BAD_NETWORKS])
@pytest.mark.parametrize("solve", [max_flow, min_cut, cut_capacities])
def test_bad_networks(fields, message, solve):
    with pytest.raises(ValueError, match=message):
        solve(NETWORK.replace(**fields), 0, 11)


BAD_ENDS = [
    (0, 12, "sink is node 12, which does not exist: the network has nodes 0 to 11.*network.outputs"),
    (0, -1, "sink is node -1, which does not exist"),
    (99, 11, "source is node 99, which does not exist.*network.inputs"),
    (5, 5, "source and sink are both node 5; expected two different nodes"),
    (0.0, 11, "source has dtype float64; expected nodes, which are integers"),
    (0, True, "sink has dtype bool"),
    (None, 11, "source has dtype object"),
]


@pytest.mark.parametrize(("source", "sink", "message"), BAD_ENDS, ids=[message[:24] for *_, message in BAD_ENDS])
@pytest.mark.parametrize("solve", [max_flow, min_cut, cut_capacities])
def test_bad_ends(source, sink, message, solve):
    with pytest.raises(ValueError, match=message):
        solve(NETWORK, source, sink)


def test_bad_ends_among_good_ones():
    with pytest.raises(ValueError, match="sink is node 40"):
        max_flow(NETWORK, PLAYERS, np.array([8, 9, 10, 40]))
    with pytest.raises(ValueError, match="source and sink are both node 3"):
        max_flow(NETWORK, PLAYERS, np.array([8, 9, 10, 3]))
    with pytest.raises(ValueError, match="broadcast"):
        max_flow(NETWORK, PLAYERS, OUTPUTS[:3])


@pytest.mark.parametrize("solver", ["simplex", "ORTOOLS", None])
def test_solver_that_does_not_exist(solver):
    with pytest.raises(ValueError, match=r"solver is .*; expected one of .*'ortools'"):
        max_flow(NETWORK, 0, 11, solver=solver)


@pytest.mark.parametrize("solve", [max_flow, min_cut, cut_capacities])
def test_not_under_jit(solve):
    message = "is found on the host and needs values, but the network is being traced. Call it outside jit"
    with pytest.raises(ValueError, match=message):
        jax.jit(lambda network: solve(network, 0, 11))(NETWORK)
    with pytest.raises(ValueError, match=message):
        jax.jit(lambda network: solve(network, network.encoder_inputs, network.outputs))(NETWORK)
    with pytest.raises(ValueError, match=message):
        jax.jit(lambda capacity: solve(NETWORK.replace(capacity=capacity), 0, 11))(NETWORK.capacity)
    with pytest.raises(ValueError, match=message):
        jax.jit(lambda source: solve(NETWORK, source, 11))(0)
