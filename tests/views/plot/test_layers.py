import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.figure import Figure

from jaxflow import flow_network, min_cut
from jaxflow.explain import known_picture
from jaxflow.views.plot import plot_layers


def heights(ax):
    return [bar.get_height() for bar in ax.patches]


def test_bars_are_the_shares(explanation):
    ax = plot_layers(explanation)
    np.testing.assert_array_equal(heights(ax), explanation.bottleneck)
    np.testing.assert_array_equal([bar.get_center()[0] for bar in ax.patches], [1, 2, 3, 4])
    shares = [f"{share:.0%}" for share in explanation.bottleneck]
    assert [text.get_text() for text in ax.texts] == [*shares, "minimum cuts to output 0 ([CLS])"]


def test_one_cut(capacities):
    network = flow_network(capacities)
    cut = min_cut(network, network.encoder_inputs[0], network.outputs[-1])
    np.testing.assert_array_equal(heights(plot_layers(cut)), cut.share)


def test_anything_that_knows_its_share():
    assert heights(plot_layers(SimpleNamespace(share=np.array([0.25, 0.75])))) == [0.25, 0.75]


def test_many_layers_are_counted_without_overlap():
    ax = plot_layers(np.full(48, 1 / 48), size="column")
    assert ax.figure.get_size_inches()[0] == 3.25
    assert len(heights(ax)) == 48
    assert len(ax.get_xticks()) <= 12
    assert [text.get_text() for text in ax.texts] == [""]  # no room for numbers


def test_it_draws_into_given_axes(explanation):
    ax = Figure().add_subplot()
    assert plot_layers(explanation, ax=ax) is ax


def test_without_minimum_cuts(explanation):
    without = dataclasses.replace(explanation, picture=known_picture())
    with pytest.raises(ValueError, match="no minimum cuts: time ran out"):
        plot_layers(without)
    with pytest.raises(ValueError, match=r"no minimum cuts: its method is 'rollout'. Expected one with method='flow'"):
        plot_layers(dataclasses.replace(without, method="rollout"))


@pytest.mark.parametrize("shares", [[], [[0.5, 0.5]], [0.5, -0.1], [np.nan]])
def test_shares_that_are_none(shares):
    with pytest.raises(ValueError, match=r"expected \[layer\], finite numbers of 0 or more"):
        plot_layers(shares)
