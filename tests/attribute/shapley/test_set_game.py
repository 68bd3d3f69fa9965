"""The set game: exact against all orders of players, the axioms, and samples whose errors cover the truth."""

import itertools
import math

import jax
import networkx as nx
import numpy as np
import oracle_general
import pytest
from general_networks import N_SOURCE, N_TARGET, example
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import graph
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_flow
from strategies import capacities, make_attention, sixteenths

from jaxflow import Attention, Capacities, flow_network, joint_capacities, max_flow
from jaxflow.attribute.shapley import sample_set_shapley, set_shapley
from jaxflow.solve._coalitions import _play, _scratch, _walk, all_values, latin_square, set_game
from jaxflow.solve._kernel import _extend, clear
from jaxflow.solve._super_nodes import add_super_nodes


def set_value(network, players, sink):
    """Value of all `players` (named nodes of a networkx graph) together: a source that sends to each without limit."""
    network = network.copy()
    network.add_edges_from(("all", player) for player in players if player in network)
    return nx.maximum_flow_value(network, "all", sink) if "all" in network and sink in network else 0.0


def by_all_orders(value, n_players):
    """Average what each player adds over every order; straight from the definition."""
    value = {
        members: value(members) for k in range(n_players + 1) for members in itertools.combinations(range(n_players), k)
    }
    shares = np.zeros(n_players)
    for order in itertools.permutations(range(n_players)):
        for place, player in enumerate(order):
            before, after = sorted(order[:place]), sorted(order[: place + 1])
            shares[player] += value[tuple(after)] - value[tuple(before)]
    return shares / math.factorial(n_players)


def encoder(kind="softmax", n_tokens=9, n_layers=3, seed=0, residual=0.5):
    weights = make_attention(kind, seed, (n_layers, n_tokens, n_tokens))
    return flow_network(Capacities(encoder=(1 - residual) * weights + residual * np.eye(n_tokens, dtype=np.float32)))


@settings(deadline=None, max_examples=25)
@given(st.one_of(capacities((1, 4), (1, 5)), sixteenths((1, 4), (1, 5))), st.data())
def test_exact_values_are_averages_over_all_orders(capacity, data):
    n_layers, n_tokens, _ = capacity.shape
    output = data.draw(st.integers(0, n_tokens - 1))
    oracle = graph(capacity)
    expected = by_all_orders(lambda members: set_value(oracle, [(0, k) for k in members], (n_layers, output)), n_tokens)
    network = flow_network(Capacities(encoder=capacity))
    found = set_shapley(network, network.outputs[output])
    np.testing.assert_allclose(found.values, expected, atol=1e-7 * max(1.0, capacity.max()))
    assert (found.game, found.n_permutations, found.is_reached) == ("set", 0, True)


def test_seven_players_over_all_orders():
    weights = make_attention("peaked", 5, (4, 7, 7)).astype(np.float64)
    network = flow_network(Capacities(encoder=weights))
    oracle = graph(weights)
    expected = by_all_orders(lambda members: set_value(oracle, [(0, k) for k in members], (4, 2)), 7)
    np.testing.assert_allclose(set_shapley(network, network.outputs[2]).values, expected, atol=1e-7)


@pytest.mark.parametrize(
    ("architecture", "decoder_layer", "feedback", "masks"),
    [
        ("decoder", "sublayers", "prefix", False),
        ("decoder", "sublayers", "unrolled", False),
        ("encoder-decoder", "sublayers", "prefix", True),
        ("encoder-decoder", "parallel", "prefix", False),
        ("encoder-decoder", "sublayers", "unrolled", False),
        ("encoder-decoder", "parallel", "unrolled", True),
        ("decoder with cross-attention", "parallel", "prefix", False),
    ],
)
def test_every_architecture(architecture, decoder_layer, feedback, masks):
    """Every coalition's value is that of a graph built from the definition; exact and sampled shares follow from it."""
    source_mask = [True, True, False, True] if masks else [True] * N_SOURCE
    target_mask = [True] * N_TARGET
    stacks = example(architecture, source_mask=source_mask if masks else None)
    n_prompt = 2 if feedback == "unrolled" else None
    capacity = joint_capacities(Attention(**stacks), residual=0.3, encoder_mask=source_mask if masks else None)
    network = flow_network(capacity, decoder_layer=decoder_layer, feedback=feedback, n_prompt=n_prompt)
    output = 3
    oracle = oracle_general.graph(
        stacks.get("encoder"), stacks.get("decoder"), stacks.get("cross"), residual=0.3, source_mask=source_mask,
        target_mask=target_mask, decoder_layer=decoder_layer, feedback=feedback, n_prompt=n_prompt,
    )  # fmt: skip
    n_source = N_SOURCE if "cross" in stacks else 0
    names = [("e", 0, k) for k in range(n_source)] + [("d", 0, k) for k in range(n_prompt or N_TARGET)]
    sink = ("d", len(stacks["decoder"]), output)
    n = len(names)
    value = [
        set_value(oracle, [name for i, name in enumerate(names) if members >> i & 1], sink) for members in range(2**n)
    ]
    expected = np.zeros(n)
    for i, members in itertools.product(range(n), range(2**n)):
        if not members >> i & 1:
            size = members.bit_count()
            weight = math.factorial(size) * math.factorial(n - size - 1) / math.factorial(n)
            expected[i] += weight * (value[members | 1 << i] - value[members])
    found = set_shapley(network, network.outputs[output])
    np.testing.assert_allclose(found.values, expected, atol=1e-6)
    assert found.values[n_source + output + 1 :].tolist() == [0] * (n - n_source - output - 1)  # later tokens
    sampled = sample_set_shapley(network, network.outputs[output], precision=1e-9, n_permutations=2000)
    np.testing.assert_array_less(np.abs(sampled.values - expected), 5 * sampled.standard_error + 1e-6)


@settings(deadline=None, max_examples=25)
@given(st.one_of(capacities((1, 5), (1, 7)), sixteenths((1, 4), (1, 7))), st.data())
def test_axioms(capacity, data):
    """Efficiency, symmetry, null player; a monotone and submodular game; shares between the first and last place's."""
    n_tokens = capacity.shape[-1]
    output, twin = data.draw(st.integers(0, n_tokens - 1)), data.draw(st.integers(0, n_tokens - 1))
    capacity = capacity.copy()
    capacity[0, :, twin] = capacity[0, :, 0]  # tokens 0 and `twin` are read alike
    if data.draw(st.booleans()):
        capacity[0, :, -1] = 0  # nobody reads the last one
    network = flow_network(Capacities(encoder=capacity))
    sink = network.outputs[output]
    found = set_shapley(network, sink).values
    scale = max(1.0, capacity.max())
    whole = set_value(graph(capacity), [(0, k) for k in range(n_tokens)], (len(capacity), output))
    np.testing.assert_allclose(found.sum(), whole, atol=1e-7 * scale)
    if capacity[0, :, 0].tolist() == capacity[0, :, twin].tolist():
        np.testing.assert_allclose(found[0], found[twin], atol=1e-7 * scale)
    assert not found[~capacity[0].any(0)].any()
    single = max_flow(network, network.inputs, sink).value
    assert (found <= single + 1e-7 * scale).all()
    assert (found >= 0).all()
    game, joining = set_game(network, [np.array([player]) for player in network.inputs], int(sink))
    value = all_values(game)
    members = np.arange(len(value))
    for i in range(len(joining)):
        adds = value[members | 1 << i] - value[members]
        assert (adds >= 0).all()
        for j in range(len(joining)):
            if j != i:
                less = value[members | 1 << j | 1 << i] - value[members | 1 << j]
                assert (adds >= less)[(members >> i | members >> j) & 1 == 0].all()


@settings(deadline=None, max_examples=15)
@given(capacities((1, 4), (5, 5)), st.permutations(range(5)))
def test_permuting_tokens_permutes_values(capacity, order):
    order = np.array(order)
    network, permuted = (flow_network(Capacities(encoder=c)) for c in (capacity, capacity[:, order[:, None], order]))
    found = set_shapley(network, network.outputs[order[1]]).values[order]
    np.testing.assert_allclose(set_shapley(permuted, permuted.outputs[1]).values, found, atol=1e-7)


@settings(deadline=None, max_examples=15)
@given(capacities((3, 3), (4, 4)), capacities((3, 3), (4, 4)), st.sampled_from([0.01, 0.5, 3.0]))
def test_additivity(first, second, scale):
    """Of the game that is a sum, of two networks (one of them scaled) whose outputs are joined, values are sums."""
    networks = [flow_network(Capacities(encoder=c)) for c in (first, scale * second)]
    shift = networks[0].n_nodes
    both = networks[0].replace(
        senders=np.concatenate([networks[0].senders, networks[1].senders + shift]),
        receivers=np.concatenate([networks[0].receivers, networks[1].receivers + shift]),
        capacity=np.concatenate([network.capacity for network in networks]),
        stack=np.repeat([0, 1], shift),
        level=np.tile(networks[0].level, 2),
        position=np.tile(networks[0].position, 2),
    )
    joined = add_super_nodes(both, both.inputs, np.array([networks[0].outputs[1], networks[1].outputs[2] + shift]))
    alone = [set_shapley(network, network.outputs[k]).values for network, k in zip(networks, (1, 2), strict=True)]
    players = [[int(p) + 1, int(p) + 1 + shift] for p in networks[0].inputs]
    found = set_shapley(joined, joined.n_nodes - 1, players=players).values
    np.testing.assert_allclose(found, alone[0] + alone[1], atol=1e-7)
    doubled = set_shapley(networks[1], networks[1].outputs[2]).values
    plain = flow_network(Capacities(encoder=second))
    np.testing.assert_allclose(doubled, scale * set_shapley(plain, plain.outputs[2]).values, atol=1e-7)


def test_groups_join_as_one():
    network = encoder()
    players, sink = network.inputs, network.outputs[4]
    groups = [[0, 1, 2], [3], [4, 5, 6, 7], 8]
    oracle = graph(np.asarray(network.capacity, np.float64).reshape(3, 9, 9))
    expected = by_all_orders(
        lambda members: set_value(oracle, [(0, k) for i in members for k in np.atleast_1d(groups[i])], (3, 4)), 4
    )
    exact = set_shapley(network, sink, players=groups)
    np.testing.assert_allclose(exact.values, expected, atol=1e-7)
    sampled = sample_set_shapley(network, sink, players=groups, precision=1e-4)
    np.testing.assert_array_less(np.abs(sampled.values - expected), 5 * sampled.standard_error + 1e-7)
    everyone = set_shapley(network, sink, players=[players])
    np.testing.assert_allclose(everyone.values, [exact.total], atol=1e-7)


def test_a_player_may_be_any_node():
    """Also one inside: what is sent there is led on like its own."""
    network = encoder(n_tokens=4)
    inside = np.flatnonzero(network.layer == 1)
    later = flow_network(Capacities(encoder=np.asarray(network.capacity).reshape(3, 4, 4)[1:]))
    expected = set_shapley(later, later.outputs[0]).values
    np.testing.assert_allclose(set_shapley(network, network.outputs[0], players=inside).values, expected, atol=1e-7)


@pytest.mark.parametrize("kind", ["softmax", "peaked", "causal", "one_hot", "ties"])
def test_what_each_adds_is_a_difference_of_maximum_flows(kind):
    """Along orders of many tokens through many layers, where SciPy solves every prefix anew."""
    n_layers, n_tokens, output, unit = 6, 40, 33, 2.0**-28
    weights = make_attention(kind, 3, (n_layers, n_tokens, n_tokens))
    network = flow_network(Capacities(encoder=weights))
    game, joining = set_game(network, [np.array([player]) for player in network.inputs], int(network.outputs[output]))
    rng = np.random.default_rng(0)
    orders = np.stack([rng.permutation(len(joining)) for _ in range(4)])
    gains = np.zeros(orders.shape, np.int64)
    _walk(game, _scratch(game), orders, gains, np.zeros(1, np.int64), np.zeros(1, np.int64))
    matrix = np.zeros((network.n_nodes + 1,) * 2, np.int32)
    matrix[network.senders, network.receivers] = np.rint(weights.ravel() / unit)
    for order, adds in zip(orders, gains * game.quantum, strict=True):
        values = [0.0]
        for place in range(len(order)):
            matrix[-1] = 0
            matrix[-1, joining[order[: place + 1]]] = 2**30
            flow = maximum_flow(csr_array(matrix), network.n_nodes, int(network.outputs[output]))
            values.append(flow.flow_value * unit)
        np.testing.assert_allclose(adds[order], np.diff(values), atol=1e-6)


def test_rows_of_latin_squares():
    square = latin_square(np.random.default_rng(0), 7, 7)
    for lines in (square, square.T):
        np.testing.assert_array_equal(np.sort(lines, axis=1), np.broadcast_to(np.arange(7), (7, 7)))
    few = latin_square(np.random.default_rng(0), 7, 3)
    assert all((line[:-1] != line[1:]).all() for line in np.sort(few.T, axis=1))


@pytest.mark.parametrize(
    ("kind", "n_tokens", "n_permutations"), [("peaked", 10, 96), ("softmax", 12, 384), ("causal", 14, 448)]
)
def test_standard_errors_cover_the_truth(kind, n_tokens, n_permutations):
    """Twice the standard error covers about 19 of 20 values, whether squares are whole or not; and estimates are unbiased."""
    network = encoder(kind, n_tokens, residual=0.0)
    sink = network.outputs[-1]
    truth = set_shapley(network, sink).values
    samples = [
        sample_set_shapley(network, sink, precision=0.0, n_permutations=n_permutations, seed=seed)
        for seed in range(150)
    ]
    assert {sample.n_permutations for sample in samples} == {n_permutations}
    values, errors = (np.stack([getattr(sample, name) for sample in samples]) for name in ("values", "standard_error"))
    random = truth > 0
    covered = (np.abs(values - truth) <= 2 * errors + 1e-9)[:, random]
    assert 0.91 < covered.mean() < 0.98
    deviation = (values.mean(0) - truth)[random] / (values.std(0) / np.sqrt(len(samples)) + 1e-12)[random]
    assert np.abs(deviation).max() < 4
    assert 0.8 < (errors.mean(0) / (values.std(0) + 1e-12))[random].mean() < 1.2


def test_precision():
    """Many players: few rows are tried first; a finer precision takes more orders; what cannot be reached is said."""
    network = encoder("softmax", 40, 4, residual=0.5)
    sink = network.outputs[0]
    coarse = sample_set_shapley(network, sink, precision=2e-2)
    assert coarse.is_reached
    assert coarse.n_permutations == 512
    fine = sample_set_shapley(network, sink, precision=1e-3)
    assert fine.is_reached
    assert fine.standard_error.max() <= 1e-3 < coarse.standard_error.max() <= 2e-2
    assert fine.n_permutations >= 16 * 2 * 40
    np.testing.assert_array_less(np.abs(coarse.values - fine.values), 5 * coarse.standard_error)
    short = sample_set_shapley(network, sink, precision=1e-6, n_permutations=3000)
    assert not short.is_reached
    assert 0 < short.n_permutations <= 3000
    assert short.standard_error.max() > short.precision == 1e-6
    np.testing.assert_allclose([coarse.total, fine.total, short.total], max_flow_of_all(network, sink), atol=1e-7)


def max_flow_of_all(network, sink):
    joined = add_super_nodes(network, network.inputs, np.zeros(0, np.int64))
    return max_flow(joined, 0, sink + 1).value


def test_the_seed_alone_decides():
    network = encoder("softmax", 20)
    first, again, other = (
        sample_set_shapley(network, network.outputs[0], seed=seed, n_permutations=200) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first.values, again.values)
    np.testing.assert_array_equal(first.standard_error, again.standard_error)
    assert (first.values != other.values).any()
    game, joining = set_game(network, [np.array([player]) for player in network.inputs], int(network.outputs[0]))
    one, many = (_play(game, list(range(5)), 4, 3, n_threads, None) for n_threads in (1, 4))
    np.testing.assert_array_equal(one, many)
    assert len(joining) == 20


def test_whole_squares_pay():
    """On one budget, whole Latin squares read both ways vary less than independent orders."""
    network = encoder("softmax", 16, 4)
    game, _ = set_game(network, [np.array([player]) for player in network.inputs], int(network.outputs[3]))
    squares = _play(game, list(range(32)), 16, 0, 1, None)
    rng = np.random.default_rng(0)
    orders = np.stack([rng.permutation(16) for _ in range(32 * 32)])
    gains = np.zeros(orders.shape, np.int64)
    _walk(game, _scratch(game), orders, gains, np.zeros(1, np.int64), np.zeros(1, np.int64))
    independent = gains.reshape(32, 32, 16).mean(1) * game.quantum
    assert 3 * squares.std(0).mean() < independent.std(0).mean()


@pytest.mark.parametrize("shapley", [set_shapley, sample_set_shapley])
def test_nobody_reaches_the_output(shapley):
    network = flow_network(Capacities(encoder=np.zeros((2, 3, 3))))
    found = shapley(network, network.outputs[0])
    assert found.values.tolist() == [0, 0, 0]
    assert (found.total, found.is_reached) == (0, True)
    identity = flow_network(Capacities(encoder=np.broadcast_to(np.eye(3), (2, 3, 3))))
    np.testing.assert_allclose(shapley(identity, identity.outputs[1]).values, [0, 1, 0], atol=1e-9)


def test_players_that_reach_nothing_do_not_count():
    """A decoder's early output has few players, however many tokens come after."""
    weights = make_attention("causal", 0, (3, 30, 30))
    network = flow_network(Capacities(decoder=weights))
    found = set_shapley(network, network.outputs[5]).values
    assert (found[:6] > 0).all()
    assert not found[6:].any()


def test_is_a_pytree():
    network = encoder()
    found = set_shapley(network, network.outputs[0])
    doubled = jax.tree.map(lambda leaf: 2 * leaf, found)
    np.testing.assert_array_equal(doubled.values, 2 * found.values)
    assert doubled.game == "set"


def test_bad_input():
    network = encoder(n_tokens=20)
    sink = network.outputs[0]
    with pytest.raises(ValueError, match=r"20 players reach the output; .* up to 16\. Use sample_set_shapley, or join"):
        set_shapley(network, sink)
    with pytest.raises(ValueError, match="players is empty"):
        set_shapley(network, sink, players=[])
    with pytest.raises(ValueError, match="expected nodes, or groups of one node or more"):
        set_shapley(network, sink, players=[0.5])
    with pytest.raises(ValueError, match="expected nodes, or groups of one node or more"):
        set_shapley(network, sink, players=[[0, 1], []])
    with pytest.raises(ValueError, match="a player is node 80, which does not exist: the network has nodes 0 to 79"):
        set_shapley(network, sink, players=[0, 80])
    with pytest.raises(ValueError, match="sink is node -1, which does not exist"):
        set_shapley(network, -1)
    with pytest.raises(ValueError, match="a player is node 2 more than once"):
        set_shapley(network, sink, players=[[1, 2], [2, 3]])
    with pytest.raises(ValueError, match="Node 60 is both a player and the sink"):
        set_shapley(network, sink, players=[0, 60])
    with pytest.raises(ValueError, match="precision is nan; expected a standard error, 0 or more"):
        sample_set_shapley(network, sink, precision=float("nan"))
    with pytest.raises(ValueError, match="n_permutations is 31; expected 32 or more"):
        sample_set_shapley(network, sink, n_permutations=31)
    with pytest.raises(ValueError, match="the network is being traced"):
        jax.jit(lambda c: set_shapley(network.replace(capacity=c), sink))(network.capacity)


def test_flow_is_taken_back_whole():
    network = encoder("peaked", 20, 4, residual=0.0)
    game, joining = set_game(network, [np.array([player]) for player in network.inputs], int(network.outputs[5]))
    scratch, gains = _scratch(game), np.zeros((2, len(joining)), np.int64)
    for again in gains:
        for player, node in enumerate(game.nodes):
            again[player] = _extend(game.graph, scratch, node, game.sink, game.whole - again.sum())
        assert scratch.sent.any()
        assert scratch.fed.any()
        clear(game.graph, scratch)
        assert not scratch.flow.any()
        assert not scratch.page.any()
        np.testing.assert_array_equal(scratch.open, game.graph.open)
        np.testing.assert_array_equal(scratch.room, scratch.near)
        assert not scratch.sent.any()
        assert not scratch.fed.any()
    np.testing.assert_array_equal(*gains)
    assert gains[0].sum() == game.whole
    assert (gains[0] > 0).sum() > 2
