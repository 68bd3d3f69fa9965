import dataclasses

import numpy as np
import pytest
from matplotlib.figure import Figure

from jaxflow import Capacities, flow_network
from jaxflow.explain import flow_graph, known_picture
from jaxflow.explain._flow_graph import ARC_KINDS
from jaxflow.views.plot import _drawing as drawing
from jaxflow.views.plot import plot_flow, plot_layers


@pytest.fixture(scope="module")
def graph(capacities):
    network = flow_network(capacities)
    return flow_graph(network, network.outputs[3])


def arcs(ax, label):
    (found,) = [artist for artist in ax.collections if artist.get_label() == label]
    return found


def strongest_last(graph, chosen=slice(None)):
    """Numbers of arcs, in the order in which they are drawn."""
    chosen = np.arange(len(graph.flow))[chosen]
    return chosen[np.argsort(graph.flow[chosen], kind="stable")]


def colours(ax):
    return ["#" + "".join(f"{round(255 * c):02x}" for c in colour[:3]) for colour in arcs(ax, "flow").get_edgecolors()]


def test_widths_are_flow_and_capacity_by_one_factor(graph):
    ax = plot_flow(graph, share=1.0)
    order = strongest_last(graph)
    flow, capacity = (np.asarray(arcs(ax, label).get_linewidths()) for label in ("flow", "capacity"))
    factor = capacity.max() / graph.capacity.max()
    np.testing.assert_allclose(flow, factor * graph.flow[order])
    np.testing.assert_allclose(capacity, factor * graph.capacity[order])


def test_what_was_written_leads_back_pale_and_without_a_ghost():
    decoder = np.tril(np.ones((3, 5, 5), np.float32)) / np.arange(1, 6, dtype=np.float32)[:, None]
    network = flow_network(Capacities(decoder=decoder), feedback="unrolled", n_prompt=2)
    graph = flow_graph(network, network.outputs[4], inputs=np.arange(5) < 2)
    ax = plot_flow(graph, share=1.0)
    is_back = graph.kind[strongest_last(graph)] == ARC_KINDS.index("feedback")
    assert is_back.sum() == 3
    assert [colour == drawing.BACK for colour in colours(ax)] == is_back.tolist()
    ends = np.array([path.vertices[[0, -1], 0] for path in arcs(ax, "flow").get_paths()])
    np.testing.assert_array_equal(ends[:, 1] < ends[:, 0], is_back)
    flow, capacity = (np.asarray(arcs(ax, label).get_linewidths()) for label in ("flow", "capacity"))
    assert (capacity >= flow[~is_back] - 1e-9).all()
    assert "read back" in [text.get_text() for text in ax.get_legend().get_texts()]


def test_arcs_join_the_places_of_their_tokens_and_layers(graph):
    ax = plot_flow(graph, share=1.0)
    ends = np.array([path.vertices[[0, -1]] for path in arcs(ax, "flow").get_paths()])
    order = strongest_last(graph)
    for nodes, places in ((graph.senders[order], ends[:, 0]), (graph.receivers[order], ends[:, 1])):
        np.testing.assert_array_equal(places[:, 1], graph.position[nodes])
    is_cross = graph.kind[order] == ARC_KINDS.index("cross")
    assert (ends[is_cross, 0, 0] == graph.n_encoder).all()
    assert ends[is_cross, 1, 0].min() > graph.n_encoder + 1  # the decoder is right of the encoder
    assert (ends[:, 0, 0] < ends[:, 1, 0]).all()


def test_the_share_asked_for_is_drawn_and_stated(graph):
    for share in (0.3, 0.8, 1.0):
        ax = plot_flow(graph, share=share)
        drawn = strongest_last(graph, graph.stronger < share)
        assert len(arcs(ax, "flow").get_paths()) == len(drawn)
        stated = graph.flow[drawn].sum() / graph.flow.sum()
        assert stated >= share - 1e-9
        assert f"{stated:.0%} of the flow to the output" in [text.get_text() for text in ax.texts]


def test_the_cut_is_coloured_residual_arcs_dashed_and_cross_arcs_told_apart(graph):
    ax = plot_flow(graph, share=1.0)
    order = strongest_last(graph)
    is_cross = graph.kind[order] == ARC_KINDS.index("cross")
    expected = np.where(graph.in_cut[order], drawing.CUT, np.where(is_cross, drawing.CROSS, drawing.FLOW))
    assert colours(ax) == expected.tolist()
    dashed = [pattern is not None for _, pattern in arcs(ax, "flow").get_linestyles()]
    assert dashed == (graph.kind[order] == ARC_KINDS.index("residual")).tolist()
    assert 0 < sum(dashed) < len(dashed)
    legend = [text.get_text() for text in ax.get_legend().get_texts()]
    assert legend == ["capacity", "flow", "cross", "minimum cut", "residual"]


def test_one_inputs_own_cut(graph):
    ax = plot_flow(graph, input=1, share=1.0)
    own = graph.own_cut[graph.own_cut_start[1] : graph.own_cut_start[2]]
    is_orange = np.array(colours(ax)) == drawing.CUT
    np.testing.assert_array_equal(np.sort(strongest_last(graph)[is_orange]), np.sort(own))
    assert "cut of 1" in [text.get_text() for text in ax.get_legend().get_texts()]
    assert graph.capacity[own].sum() == pytest.approx(graph.layer_cut[1].sum())


def test_an_explanations_graphs_words_and_value(explanation):
    ax = plot_flow(explanation, row=2)
    words = [text.get_text() for text in ax.texts]
    assert words[:7] == list(explanation.tokens)
    assert f"keys\n{explanation.flow_graphs[2].value:.3f}" in words
    assert {"input", "1", "2", "3", "4"} <= set(words)


def test_long_inputs_are_folded_to_the_strongest():
    n_tokens = 100
    random = np.random.default_rng(0)
    layer = np.eye(n_tokens) + 0.01 * random.random((n_tokens, n_tokens)) * (random.random((n_tokens, n_tokens)) < 0.5)
    network = flow_network(Capacities(decoder=np.tril([layer])))
    long = flow_graph(network, network.outputs[-1])
    tokens = [f"w{i}" for i in range(n_tokens)]
    ax = plot_flow(long, share=1.0, tokens=tokens)
    assert ax.figure.get_size_inches()[1] < 11
    folded = [int(text.get_text()[2:]) for text in ax.texts if text.get_text().startswith("⋮ ")]
    shown = {text.get_text() for text in ax.texts} & set(tokens)
    assert sum(folded) + 32 == len(np.unique(long.position))
    assert "w99" in shown
    assert len(shown) == 32


@pytest.mark.parametrize("size", ["column", "page"])
def test_everything_is_inside_the_figure(graph, size):
    tokens = ["a long name of a token", *"bcdefghi"]
    figure = plot_flow(graph, tokens=tokens, size=size, input=0).figure
    figure.draw_without_rendering()
    box = figure.get_tightbbox()
    assert min(box.x0, box.y0) >= -0.01
    assert (box.size <= figure.get_size_inches() + 0.02).all()


def test_it_draws_into_given_axes(explanation):
    ax = Figure().add_subplot()
    assert plot_flow(explanation, ax=ax) is ax


def test_layers_of_a_graph(graph):
    np.testing.assert_array_equal([bar.get_height() for bar in plot_layers(graph).patches], graph.cut_share)


def test_what_cannot_be_drawn(explanation, graph):
    without = dataclasses.replace(explanation, picture=known_picture())
    with pytest.raises(ValueError, match="The explanation has no flow graph: its method is no flow"):
        plot_flow(without)
    with pytest.raises(ValueError, match="row is 7; expected 0 to 6, which of the explained outputs is meant"):
        plot_flow(explanation, row=7)
    with pytest.raises(ValueError, match="input is 9; expected an input, 0 to 8, or None"):
        plot_flow(graph, input=9)
    with pytest.raises(ValueError, match="share is 0; expected a part of each layer's flow, above 0 and at most 1"):
        plot_flow(graph, share=0)
    with pytest.raises(ValueError, match="tokens holds 2 names; expected 9, one for each input"):
        plot_flow(graph, tokens=["a", "b"])
