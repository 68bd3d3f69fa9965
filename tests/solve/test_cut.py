"""min_cut between sets of nodes: against every cut there is, and the flow left without one of its arcs; and its sentence."""

import itertools

import jax
import networkx as nx
import numpy as np
import pytest
from general_networks import example
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import minimum_cuts
from strategies import make_attention, sixteenths

from jaxflow import Attention, Capacities, flow_network, joint_capacities, max_flow, min_cut
from jaxflow.solve import CUT_STACKS, bottleneck, cut_capacities, cut_sentence, min_cuts
from jaxflow.solve._super_nodes import add_super_nodes


def value_by_networkx(network, capacity, sources, sinks):
    graph = nx.DiGraph()
    for sender, receiver, number in zip(network.senders.tolist(), network.receivers.tolist(), capacity, strict=True):
        if number > 0:
            graph.add_edge(sender, receiver, capacity=number)
    graph.add_edges_from(("in", int(node)) for node in sources)
    graph.add_edges_from((int(node), "out") for node in sinks)
    return nx.maximum_flow_value(graph, "in", "out")


@settings(deadline=None, max_examples=40)
@given(sixteenths((1, 3), (1, 3)), st.data())
def test_is_the_nearest_of_all_minimum_cuts(capacity, data):
    """Of sets of inputs and outputs, where every cut is tried."""
    some = st.lists(st.integers(0, capacity.shape[-1] - 1), min_size=1, unique=True)
    sources, sinks = data.draw(some), data.draw(some)
    value, near_source, near_sink = minimum_cuts(capacity, sources, sinks)
    network = flow_network(Capacities(encoder=capacity))
    ends = network.encoder_inputs[sources], network.outputs[sinks]
    for nearest, expected in (("source", near_source), ("sink", near_sink)):
        cut = min_cut(network, *ends, nearest=nearest)
        assert cut.value == value
        if value:
            assert set(zip(cut.layer.tolist(), cut.query.tolist(), cut.key.tolist(), strict=True)) == expected
            np.testing.assert_allclose(cut.share.sum(), 1)
        np.testing.assert_array_equal(cut.capacity, np.ravel(capacity)[cut.arc])
        for layer in range(len(capacity)):
            np.testing.assert_allclose(cut.share[layer] * value, cut.capacity[cut.layer == layer + 1].sum(), atol=1e-12)
        assert cut.is_all_sent == (value == capacity[0][:, sources].sum())
        assert cut.is_all_taken == (value == capacity[-1][sinks].sum())


@pytest.mark.parametrize("nearest", ["source", "sink"])
@pytest.mark.parametrize(
    ("architecture", "decoder_layer", "feedback"),
    [
        ("encoder", "sublayers", "prefix"),
        ("decoder", "sublayers", "unrolled"),
        ("encoder-decoder", "sublayers", "prefix"),
        ("encoder-decoder", "parallel", "unrolled"),
    ],
)
def test_without_an_arc_of_it_less_flows_by_its_capacity(architecture, decoder_layer, feedback, nearest):
    n_prompt = 2 if feedback == "unrolled" else None
    network = flow_network(
        joint_capacities(Attention(**example(architecture)), residual=0.3),
        decoder_layer=decoder_layer,
        feedback=feedback,
        n_prompt=n_prompt,
    )
    capacity = np.asarray(network.capacity, np.float64)
    sources, sinks = network.inputs[[0, 1]], network.outputs[-1:]
    cut = min_cut(network, sources, sinks, nearest=nearest, solver="ortools")
    np.testing.assert_allclose(cut.value, value_by_networkx(network, capacity, sources, sinks), atol=1e-9)
    for arc, lost in zip(cut.arc, cut.capacity, strict=True):
        without = capacity.copy()
        without[arc] = 0
        left = value_by_networkx(network, without, sources, sinks)
        np.testing.assert_allclose(left, cut.value - lost, atol=1e-9)
    without = capacity.copy()
    without[cut.arc] = 0
    assert value_by_networkx(network, without, sources, sinks) == 0


def test_both_solvers_find_the_same_cut():
    network = flow_network(Capacities(encoder=make_attention("softmax", 2, (4, 6, 6))))
    ends = [(3, network.outputs[1]), (network.inputs[:2], network.outputs[:2]), (network.inputs, network.outputs[0])]
    for (source, sink), nearest in itertools.product(ends, ("source", "sink")):
        cut, expected = (
            min_cut(network, source, sink, nearest=nearest, solver=solver) for solver in ("certified", "ortools")
        )
        for name in ("arc", "stack", "layer", "query", "key", "is_all_sent", "is_all_taken"):
            np.testing.assert_array_equal(getattr(cut, name), getattr(expected, name))
        np.testing.assert_allclose(cut.value, expected.value, atol=1e-7)


def test_a_set_of_one_node_is_that_node():
    """A super source with one arc changes nothing but the quantum."""
    network = flow_network(Capacities(encoder=make_attention("softmax", 2, (4, 6, 6))))
    source, sink = 3, int(network.outputs[1])
    for nearest in ("source", "sink"):
        joined = add_super_nodes(network, np.array([source]), np.array([sink]))
        cut = min_cut(network, [source], [sink], nearest=nearest, solver="ortools")
        expected = min_cut(joined, 0, joined.n_nodes - 1, nearest=nearest, solver="ortools")
        np.testing.assert_array_equal(cut.arc, expected.arc)
        np.testing.assert_allclose(cut.value, expected.value, rtol=1e-12)


@pytest.mark.parametrize("capacity", [0.5000001, 0.5, 0.4999999, 1.4999999])
@pytest.mark.parametrize("nearest", ["source", "sink"])
def test_arcs_of_super_nodes_are_in_no_cut(capacity, nearest):
    """Also where a node can send so little that rounding to quanta counts."""
    some = np.ones((2, 2, 2))
    some[0, :, 0] = some[1, 0, :] = 0
    network = flow_network(Capacities(encoder=some))
    unit = min_cut(network, network.inputs, network.outputs).quantum
    some[0, :, 0] = some[1, 0, :] = capacity * unit
    network = flow_network(Capacities(encoder=some))
    cut = min_cut(network, network.inputs, network.outputs, nearest=nearest)
    assert cut.quantum == unit
    assert (cut.arc < len(network.senders)).all()
    np.testing.assert_allclose(cut.capacity, np.asarray(network.capacity)[cut.arc], atol=unit / 2)


def test_stacks_and_layers_of_an_encoder_decoder():
    """Every arc of a cut is where its stack, layer and positions say; layers count on from the encoder's."""
    capacities = joint_capacities(Attention(**example("encoder-decoder")), residual=0.3)
    network = flow_network(capacities)
    stacks = [np.asarray(getattr(capacities, name)) for name in ("encoder", "decoder", "cross")]
    seen = set()
    for sources, sink, nearest in itertools.product(network.inputs, network.outputs, ("source", "sink")):
        cut = min_cut(network, sources, sink, nearest=nearest, solver="ortools")
        for kind, layer, query, key, number in zip(cut.stack, cut.layer, cut.query, cut.key, cut.capacity, strict=True):
            seen.add(CUT_STACKS[kind])
            if CUT_STACKS[kind] == "residual":
                assert query == key
                np.testing.assert_allclose(number, 0.3, rtol=1e-6)
            else:
                level = layer - 1 if kind == 0 else layer - 1 - len(stacks[0])
                np.testing.assert_allclose(number, stacks[kind][level, query, key], rtol=1e-6)
    assert seen == set(CUT_STACKS)
    assert cut.n_encoder == len(stacks[0])


def test_sentences():
    ones = np.ones((4, 3, 3))
    words = ["the", "keys", "are"]

    def sentence(capacity, source, sink, tokens=words):
        network = flow_network(Capacities(encoder=capacity))
        return cut_sentence(min_cut(network, source, network.outputs[sink]), encoder_tokens=tokens)

    narrow = ones.copy()
    narrow[2] = 0.01
    narrow[2, 1] = [0.3, 0.2, 0.1]
    assert sentence(narrow, 0, 2) == (
        "Layer 3 is the bottleneck: all of the cut (0.66), most of it read by position 1 (keys)."
    )
    assert sentence(narrow.swapaxes(1, 2), 0, 2, ()) == (
        "Layer 3 is the bottleneck: all of the cut (0.66), most of it read from position 1."
    )
    assert sentence(ones, 1, 2) == (
        "Layer 1 is the bottleneck: all of the cut (3.00), all of it read from position 1 (keys). It is all that the input "
        "sends: the score says nothing of what happens after."
    )
    last = ones.copy()
    last[-1] = 0.25
    assert sentence(last, 1, 2).endswith(
        "all of it read by position 2 (are). It is all that the output takes: the score says nothing of what happens before."
    )
    two = np.zeros((2, 3, 3))
    two[0, 1, 0], two[1, 2, 1], two[0, 0, 0], two[1, 2, 0] = 0.25, 1, 1, 0.5
    assert sentence(two, 0, 2) == (
        "Layer 2 is the bottleneck: 67% of the cut (0.75), all of it read from position 0 (the); layer 1 holds 33%."
    )
    assert sentence(np.zeros((2, 3, 3)), 0, 1) == "Nothing flows: no path leads from the inputs to the outputs."


def test_sentence_of_an_encoder_decoder():
    capacities = joint_capacities(Attention(**example("encoder-decoder")))
    network = flow_network(capacities)
    cut = min_cut(network, network.encoder_inputs, network.outputs[2])
    text = cut_sentence(cut, encoder_tokens=list("abcd"), decoder_tokens=list("vwxyz"))
    assert "of the decoder is the bottleneck" in text
    assert "read by position 2 (x)" in text


def test_is_a_pytree():
    network = flow_network(Capacities(encoder=np.ones((2, 2, 2))))
    cut = min_cut(network, 0, network.outputs[0])
    assert jax.tree.map(lambda leaf: 2 * leaf, cut).value == 2 * cut.value


def test_bad_input():
    network = flow_network(Capacities(encoder=np.ones((2, 2, 2))))
    with pytest.raises(ValueError, match="nearest is 'input'; expected 'source' or 'sink'"):
        min_cut(network, 0, 5, nearest="input")
    with pytest.raises(ValueError, match="source is node 9, which does not exist: the network has nodes 0 to 5"):
        min_cut(network, [0, 9], 5)
    with pytest.raises(ValueError, match="sink is node 5 more than once; expected each node once"):
        min_cut(network, 0, [5, 5])
    with pytest.raises(ValueError, match="source and sink are both node 4; expected two different nodes"):
        min_cut(network, [0, 4], [4, 5])
    for wrong in ([], [[0]]):
        with pytest.raises(
            ValueError, match=r"source has shape .*; expected a node, or \[node\] nodes that act as one"
        ):
            min_cut(network, wrong, 5)
    with pytest.raises(ValueError, match="source has dtype float64; expected nodes, which are integers"):
        min_cut(network, 0.5, 5)


def test_cut_capacities_counts_the_decoders_layers_after_the_encoders():
    network = flow_network(joint_capacities(Attention(**example("encoder-decoder")), residual=0.3))
    sink = network.outputs[3]
    layers = cut_capacities(network, network.inputs, sink)
    np.testing.assert_allclose(bottleneck(network, network.inputs, sink), layers.sum(0) / layers.sum())
    for player, found in zip(network.inputs, layers, strict=True):
        if found.any():
            cut = min_cut(network, player, sink)
            np.testing.assert_allclose(found, cut.share * cut.value, atol=1e-9)
    assert layers[:, 3:].any()  # the encoder has three


@pytest.mark.parametrize("n_tokens", [5, 70])  # 70: sets of nodes of more than one word
@pytest.mark.parametrize("options", [{}, {"feedback": "unrolled", "n_prompt": 2}])
def test_layers_of_cuts_are_those_of_their_arcs(compiled, options, n_tokens):
    rng = np.random.default_rng(n_tokens)
    weights = np.tril(rng.dirichlet(np.full(n_tokens, 0.3), (3, n_tokens))).astype(np.float32)
    network = flow_network(Capacities(decoder=(weights + np.eye(n_tokens, dtype=np.float32)) / 2), **options)
    sinks = network.outputs[[2, n_tokens - 1]]
    capacity = cut_capacities(network, network.inputs, sinks[:, None])
    cuts = min_cuts(network, network.inputs, sinks[:, None])
    for found, cut in zip(capacity.reshape(-1, network.n_layers), cuts, strict=True):
        in_layers = np.bincount(cut.layer - 1, cut.capacity, network.n_layers) if len(cut.layer) else 0
        np.testing.assert_allclose(found, in_layers, atol=1e-12)
        assert found.sum() == pytest.approx(cut.value, abs=1e-12)
    np.testing.assert_allclose(capacity.sum(-1), max_flow(network, network.inputs, sinks[:, None]).lower, atol=1e-8)
