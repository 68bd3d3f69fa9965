import numpy as np
import pytest
from example_explanations import SOURCE, TARGET, explained, translation

from jaxflow.explain import ARC_KINDS
from jaxflow.views._layout import STYLES, dash_lengths, lay_out


@pytest.fixture(scope="module")
def graph():
    return translation().flow_graphs[4]


@pytest.fixture(scope="module")
def layout(graph):
    return lay_out(graph, n_encoder=len(SOURCE))


def test_every_kind_of_arc_has_a_style():
    assert tuple(STYLES) == ARC_KINDS


def test_layers_lie_to_the_right_and_a_decoder_right_of_its_encoder(graph, layout):
    assert (layout.x[graph.senders] < layout.x[graph.receivers]).all()
    names = [column.name for column in layout.columns]
    assert names == ["encoder", "1", "2", "3", "decoder", "1", "2", "3"]
    places = [column.x for column in layout.columns]
    assert places == sorted(places)
    assert places[4] > places[3] + 1
    whole = graph.stack != 2  # the middle of a decoder layer lies before the layer
    np.testing.assert_allclose(layout.x[whole], np.array(places)[layout.column[whole]])


def test_arcs_of_a_node_are_stacked_without_gap_or_overlap(graph, layout):
    for here, there, offsets in (
        (graph.senders, graph.receivers, layout.leaves),
        (graph.receivers, graph.senders, layout.enters),
    ):
        for node in np.unique(here):
            arcs = np.flatnonzero(here == node)
            arcs = arcs[np.argsort(offsets[arcs])]
            top, bottom = offsets[arcs] - graph.flow[arcs] / 2, offsets[arcs] + graph.flow[arcs] / 2
            np.testing.assert_allclose(top[1:], bottom[:-1], atol=1e-9)
            np.testing.assert_allclose(top[0], -bottom[-1], atol=1e-9)
            assert (np.diff(layout.y[there[arcs]]) >= 0).all(), "arcs from above lie on top"


def test_names_stand_at_their_nodes(graph, layout):
    assert [label.input for label in layout.labels] == list(range(len(SOURCE) + len(TARGET)))
    for label in layout.labels:
        node = graph.inputs[label.input]
        assert label.sends == (node >= 0)
        if label.sends:
            assert (label.x, label.y) == (layout.x[node], layout.y[node])
            assert layout.input[node] == label.input


def test_a_share_is_drawn_by_the_first_arcs(graph):
    for n_arcs in (5, None):
        layout = lay_out(graph, n_encoder=len(SOURCE), max_arcs=n_arcs)
        for share in (0.2, 0.8, 1.0):
            expected = np.flatnonzero(graph.stronger[: n_arcs or len(graph.flow)] < share)
            np.testing.assert_array_equal(layout.arcs(share), expected)
    assert layout.carried(layout.arcs(1.0)) == pytest.approx(1.0)


def test_of_many_positions_the_strongest_are_drawn_without_gaps():
    graph = explained([f"w{i}" for i in range(12)], positions=[0], graphs=True).flow_graphs[0]
    layout = lay_out(graph, n_encoder=12, max_rows=5)
    drawn = np.unique(graph.position[layout.is_drawn])
    assert len(drawn) == 5
    assert sum(fold.n_positions for fold in layout.folds) == 12 - 5
    assert graph.position[graph.output] in drawn
    ends = layout.arcs(1.0)
    assert layout.is_drawn[graph.senders[ends]].all()
    assert layout.is_drawn[graph.receivers[ends]].all()


def test_arcs_that_lead_back_turn_right_of_their_sender():
    assert STYLES["feedback"].bend(-4.0) > 0
    assert STYLES["attention"].bend(2.0) == 1.0


def test_wider_arcs_have_longer_dashes():
    (dash, gap), (longer, wider) = dash_lengths(1.0), dash_lengths(10.0)
    assert 0 < dash < longer
    assert 0 < gap < wider
