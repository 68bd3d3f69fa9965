import dataclasses
import sys

import numpy as np
import pytest
from strategies import make_attention

from jaxflow import (
    Attention,
    Capacities,
    attention_flow,
    explain,
    flow_network,
    joint_capacities,
    load,
    load_model,
    max_flow,
)
from jaxflow.explain import flow_graph
from jaxflow.explain._flow_graph import ARC_KINDS
from jaxflow.network import join_inputs, span_masks
from jaxflow.solve import barrier_flow

TEXT = "the keys to the old cabinet"


def attention(stacks="encoder", n_layers=3, n_source=4, n_target=4):
    encoder = make_attention("softmax", 0, (n_layers, 2, n_source, n_source))
    decoder = make_attention("causal", 1, (n_layers, 2, n_target, n_target))
    cross = make_attention("softmax", 2, (n_layers, 2, n_target, n_target))[..., :n_source]
    cross /= cross.sum(-1, keepdims=True)
    fields = {"encoder": encoder, "decoder": decoder, "cross": cross}
    names = {"encoder": ["encoder"], "decoder": ["decoder"]}.get(stacks, list(fields))
    return Attention(**{name: fields[name] for name in names})


def network_of(stacks="encoder", **options):
    structure = {"decoder_layer": "parallel"} if stacks == "parallel" else {}
    network = flow_network(joint_capacities(attention(stacks, **options)), **structure)
    return network.replace(capacity=np.asarray(network.capacity, np.float64))


@pytest.mark.parametrize("stacks", ["encoder", "decoder", "sublayers", "parallel"])
def test_it_is_the_barrier_flow_with_its_cuts(stacks):
    network = network_of(stacks)
    output = network.outputs[-1]
    graph = flow_graph(network, output)
    barrier = barrier_flow(network, network.inputs, output)
    live = np.flatnonzero(barrier.flow)
    found = {}
    ends = list(zip(graph.stack, graph.level, graph.position, strict=True))
    for sender, receiver, capacity, flow in zip(
        graph.senders, graph.receivers, graph.capacity, graph.flow, strict=True
    ):
        found[ends[sender], ends[receiver]] = capacity, flow
    nodes = list(zip(network.stack, network.level, network.position, strict=True))
    expected = {
        (nodes[network.senders[arc]], nodes[network.receivers[arc]]): (network.capacity[arc], barrier.flow[arc])
        for arc in live
    }
    assert found == expected
    assert graph.n_arcs == len(live)
    assert graph.share == 1
    assert graph.maximum == pytest.approx(graph.capacity[graph.in_cut].sum())
    assert 0 <= graph.maximum - graph.value < 1e-3
    assert ends[graph.output] == nodes[output]
    for player, node in enumerate(network.inputs):
        score = float(max_flow(network, node, output).value) if node < output else 0.0
        own = graph.own_cut[graph.own_cut_start[player] : graph.own_cut_start[player + 1]]
        assert graph.capacity[own].sum() == pytest.approx(score, abs=1e-8)
        assert graph.layer_cut[player].sum() == pytest.approx(score, abs=1e-8)
        if graph.inputs[player] >= 0:
            assert ends[graph.inputs[player]] == nodes[node]
        else:
            assert score == 0
    np.testing.assert_allclose(
        graph.layer_flow, np.bincount(network.layer[network.receivers[live]], barrier.flow[live])[1:]
    )
    inside = np.setdiff1d(np.arange(len(ends)), graph.inputs)
    np.testing.assert_allclose(
        np.bincount(graph.receivers, graph.flow, len(ends))[inside], graph.through[inside], atol=1e-12
    )


def test_kinds_of_arcs():
    graph = flow_graph(network_of("sublayers"), network_of("sublayers").outputs[-1])
    kinds = np.array(ARC_KINDS)[graph.kind]
    keeps = graph.position[graph.senders] == graph.position[graph.receivers]
    crosses = (graph.stack[graph.senders] == 0) & (graph.stack[graph.receivers] > 0)
    np.testing.assert_array_equal(kinds == "cross", crosses)
    np.testing.assert_array_equal(kinds == "residual", keeps & ~crosses)
    assert set(kinds) == {"attention", "residual", "cross"}


def test_long_inputs_are_folded_to_the_strongest_arcs_of_each_layer():
    network = network_of(n_source=12)
    whole, folded = (flow_graph(network, network.outputs[0], max_arcs=n) for n in (10**6, 40))
    assert len(folded.flow) == 40
    assert folded.n_arcs == whole.n_arcs > 40
    assert folded.share == pytest.approx(folded.flow.sum() / whole.flow.sum())
    np.testing.assert_array_equal(folded.flow, whole.flow[:40])
    np.testing.assert_array_equal(folded.through, whole.through)
    np.testing.assert_array_equal(folded.layer_cut, whole.layer_cut)
    level = whole.level[whole.receivers]
    assert np.bincount(folded.level[folded.receivers])[1:].tolist() == [14, 14, 12]
    for share in (0.3, 0.7):
        for layer in (1, 2, 3):
            flow, drawn = whole.flow[level == layer], whole.stronger[level == layer] < share
            assert flow[drawn].sum() >= share * flow.sum() - 1e-12
            assert flow[drawn].sum() - flow[drawn].min() < share * flow.sum()
            assert flow[drawn].min() >= flow[~drawn].max(initial=0)


def test_a_span_is_one_node_whose_arcs_are_added_up():
    network = network_of()
    joined = join_inputs(network, encoder_spans=span_masks([(0, 2), (2, 3), (3, 4)], 4))
    graph = flow_graph(joined, joined.outputs[0])
    barrier = barrier_flow(joined, joined.inputs, joined.outputs[0])
    ends = np.stack([graph.senders, graph.receivers])
    assert len(np.unique(ends, axis=1).T) == len(graph.flow)
    assert graph.flow.sum() == pytest.approx(barrier.flow.sum())
    from_span = graph.senders == graph.inputs[0]
    assert from_span.sum() == 4
    np.testing.assert_allclose(graph.flow[from_span].sum(), barrier.inputs[0])
    assert not graph.kind[from_span].any(), "a span has no one position to keep"


def test_padding_sends_nothing_and_takes_nothing():
    layers = np.zeros((2, 3, 3))
    layers[:, :2, :2] = 0.5
    network = flow_network(Capacities(encoder=layers))
    graph = flow_graph(network, network.outputs[0], inputs=np.array([True, True, False]))
    assert graph.inputs[2] == -1
    assert set(graph.position) == {0, 1}
    nothing = flow_graph(network, network.outputs[2], inputs=np.array([True, True, False]))
    assert nothing.value == nothing.maximum == nothing.n_arcs == 0
    assert nothing.inputs.tolist() == [-1, -1, -1]
    assert not nothing.cut_share.any()


def test_unrolled_feedback_passes_on_what_was_written():
    network = flow_network(joint_capacities(attention("decoder")), feedback="unrolled", n_prompt=2)
    graph = flow_graph(network, network.outputs[3], inputs=np.arange(4) < 2)
    feedback = graph.kind == ARC_KINDS.index("feedback")
    assert feedback.any()
    assert (graph.level[graph.receivers[feedback]] == 0).all()
    assert (graph.inputs[2:] == -1).all()
    assert graph.layer_flow.shape == (3,)


def test_bad_input():
    network = network_of()
    with pytest.raises(ValueError, match=r"inputs has shape \(2,\)"):
        flow_graph(network, network.outputs[0], inputs=np.ones(2, bool))
    with pytest.raises(ValueError, match="and 0 of them; expected one or more of 4 inputs"):
        flow_graph(network, network.outputs[0], inputs=np.zeros(4, bool))
    with pytest.raises(ValueError, match="max_arcs is 0; expected 1 or more"):
        flow_graph(network, network.outputs[0], max_arcs=0)


@pytest.fixture(scope="module")
def explanation():
    model, tokenizer = load_model("agreement")
    return explain(model, TEXT, tokenizer=tokenizer)


@pytest.mark.parametrize("suffix", [".json", ".npz"])
def test_an_explanation_carries_one_for_each_output(explanation, tmp_path, suffix):
    assert len(explanation.flow_graphs) == len(explanation.tokens)
    np.testing.assert_allclose(explanation.bottleneck, explanation.flow_graphs[0].cut_share)
    for row, graph in enumerate(explanation.flow_graphs):
        np.testing.assert_allclose(graph.layer_cut.sum(1), explanation.scores[row], atol=1e-8)
    path = tmp_path / f"x{suffix}"
    explanation.save(path)
    for saved, loaded in zip(explanation.flow_graphs, load(path).flow_graphs, strict=True):
        for name, value in dataclasses.asdict(saved).items():
            np.testing.assert_array_equal(getattr(loaded, name), value)


@pytest.mark.parametrize(("cheap", "expected"), [(108, 3), (107, 1), (35, 0)])
def test_a_page_draws_them_where_it_is_cheap(monkeypatch, cheap, expected):
    model, tokenizer = load_model("agreement")
    found = explain(model, "the keys", tokenizer=tokenizer)  # 4 layers, 3 tokens: 36 arcs for each of 3 outputs
    monkeypatch.setattr(sys.modules["jaxflow.explain._picture"], "CHEAP_ARCS", cheap)
    assert len(found.flow_graphs) == expected
    last = found.flow_graph(2)
    np.testing.assert_allclose(last.layer_cut.sum(1), found.scores[2], atol=1e-8)
    np.testing.assert_allclose(found.bottleneck, found.flow_graph(0).cut_share, atol=1e-9)
    with pytest.raises(ValueError, match="row is 3; expected 0 to 2"):
        found.flow_graph(3)


def test_other_methods_have_no_flow_to_draw():
    model, tokenizer = load_model("agreement")
    found = explain(model, TEXT, "rollout", tokenizer=tokenizer)
    assert found.flow_graphs == ()
    with pytest.raises(ValueError, match="has no flow graph: its method is no flow"):
        found.flow_graph(0)


def test_scores_are_those_of_the_attribution():
    weights = attention()
    network = network_of()
    scores = attention_flow(weights.encoder[None]).encoder[0]
    for row, output in enumerate(network.outputs):
        np.testing.assert_allclose(flow_graph(network, output).layer_cut.sum(1), scores[row], atol=1e-7)
