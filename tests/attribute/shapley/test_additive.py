"""The additive game: its values are the scores."""

import numpy as np
import pytest
from general_networks import example

from jaxflow import Attention, additive_shapley, attention_flow, flow_network, joint_capacities


@pytest.mark.parametrize("architecture", ["encoder", "decoder", "encoder-decoder"])
def test_values_are_the_scores(architecture):
    attention = Attention(**example(architecture))
    network = flow_network(joint_capacities(attention))
    flow = attention_flow(attention, outputs=2)
    scores = np.concatenate([s for s in (flow.encoder, flow.decoder) if s is not None], axis=-1)[0]
    found = additive_shapley(network, network.outputs[2])
    np.testing.assert_array_equal(found.values, scores)
    np.testing.assert_allclose(found.total, scores.sum())
    assert (found.game, found.is_reached, found.standard_error.any()) == ("additive", True, False)
    some = additive_shapley(network, network.outputs[2], players=network.inputs[[2, 0]])
    np.testing.assert_array_equal(some.values, scores[[2, 0]])


def test_groups_have_no_score():
    network = flow_network(joint_capacities(Attention(**example("encoder"))))
    with pytest.raises(ValueError, match=r"A player of several nodes has no score to add up: .* use set_shapley"):
        additive_shapley(network, network.outputs[0], players=[[0, 1], [2]])
