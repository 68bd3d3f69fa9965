"""The game on a fixed flow: against its definition by paths, for different maximum flows of one network."""

import itertools
import math

import networkx as nx
import numpy as np
import pytest
from general_networks import example
from strategies import make_attention

from jaxflow import Attention, Capacities, flow_network, joint_capacities
from jaxflow.attribute.shapley import fixed_flow_shapley
from jaxflow.solve import barrier_flow


def joint_flow(network, sink, flow_func):
    """Some maximum flow of all inputs together, per arc, by networkx."""
    graph = nx.DiGraph()
    arcs = list(zip(network.senders.tolist(), network.receivers.tolist(), strict=True))
    for (sender, receiver), capacity in zip(arcs, np.asarray(network.capacity, np.float64).tolist(), strict=True):
        graph.add_edge(sender, receiver, capacity=capacity)
    for player in np.setdiff1d(network.inputs, network.receivers).tolist():
        graph.add_edge("all", player)
    _, flow = nx.maximum_flow(graph, "all", int(sink), flow_func=flow_func)
    return np.array([flow[sender][receiver] for sender, receiver in arcs])


def paths(network, flow):
    """Split a flow into paths, each with what it carries."""
    left = {
        (s, r): f for s, r, f in zip(network.senders.tolist(), network.receivers.tolist(), flow.tolist(), strict=True)
    }
    found = []
    for start in network.inputs.tolist():
        while True:
            path = [start]
            while True:
                step = next((r for (s, r), f in left.items() if s == path[-1] and f > 1e-9), None)
                if step is None:
                    break
                path.append(step)
            if len(path) == 1:
                break
            carried = min(left[arc] for arc in itertools.pairwise(path))
            for arc in itertools.pairwise(path):
                left[arc] -= carried
            found.append((carried, set(path)))
    return found


@pytest.mark.parametrize("level", [0, 1, 3])
@pytest.mark.parametrize("flow_func", [nx.algorithms.flow.dinitz, nx.algorithms.flow.preflow_push])
def test_values_are_averages_over_all_orders(level, flow_func):
    """Of the game in which paths through nodes outside the coalition are removed."""
    network = flow_network(Capacities(encoder=make_attention("softmax", 1, (3, 4, 4)).astype(np.float64)))
    flow = joint_flow(network, network.outputs[2], flow_func)
    nodes = np.flatnonzero(network.layer == level)
    split = paths(network, flow)
    expected = np.zeros(4)
    for order in itertools.permutations(range(4)):
        for place, player in enumerate(order):
            before, after = (
                sum(
                    carried
                    for carried, path in split
                    if not path & {int(nodes[i]) for i in range(4) if i not in members}
                )
                for members in (order[:place], order[: place + 1])
            )
            expected[player] += after - before
    found = fixed_flow_shapley(network, flow, players=nodes)
    np.testing.assert_allclose(found.values, expected / math.factorial(4), atol=1e-9)
    np.testing.assert_allclose(found.total, 1.0)
    assert found.game == "fixed flow"


def test_is_no_more_unique_than_its_flow():
    """Two maximum flows, two answers: what the docs say."""
    layer = np.full((2, 2), 0.5)
    network = flow_network(Capacities(encoder=np.stack([layer + 0.5, layer])))
    assert fixed_flow_shapley(network, [0.5, 0, 0.5, 0, 0.5, 0.5, 0, 0]).values.tolist() == [1, 0]
    assert fixed_flow_shapley(network, [0, 0.5, 0, 0.5, 0.5, 0.5, 0, 0]).values.tolist() == [0, 1]


def test_encoder_decoder():
    """Source and target share what reaches the output; a layer of the decoder gets what was not led around it."""
    network = flow_network(joint_capacities(Attention(**example("encoder-decoder"))))
    flow = joint_flow(network, network.outputs[3], nx.algorithms.flow.dinitz)
    found = fixed_flow_shapley(network, flow)
    np.testing.assert_allclose(found.total, 1.0)
    np.testing.assert_allclose(found.values, np.bincount(network.senders, flow, network.n_nodes)[network.inputs])
    first = fixed_flow_shapley(network, flow, players=np.flatnonzero((network.stack == 1) & (network.level == 1)))
    assert 0 < first.total < 1


def test_bad_input():
    network = flow_network(Capacities(encoder=np.full((2, 2, 2), 0.5)))
    good = np.array([0.5, 0, 0.5, 0, 0.5, 0.5, 0, 0])
    with pytest.raises(ValueError, match=r"flow has shape \(3,\); expected \(8,\)"):
        fixed_flow_shapley(network, [0.0, 0.0, 0.0])
    for wrong, message in (
        (-0.1, "Arc 1 carries -0.1"),
        (0.7, "Arc 1 carries 0.7; expected 0 to 0.5"),
        (np.nan, "Arc 1 carries nan"),
    ):
        flow = good.copy()
        flow[1] = wrong
        with pytest.raises(ValueError, match=message):
            fixed_flow_shapley(network, flow)
    flow = good.copy()
    flow[0] = 0.25
    with pytest.raises(ValueError, match=r"not conserved: 0.25 enters node 2 and 0.5 leaves it"):
        fixed_flow_shapley(network, flow)
    with pytest.raises(ValueError, match=r"Player 2 is given flow that passed another player"):
        fixed_flow_shapley(network, good, players=np.array([0, 2]))


@pytest.mark.parametrize("architecture", ["encoder", "decoder", "encoder-decoder"])
def test_on_the_barrier_flow_values_are_what_each_input_sends(architecture):
    network = flow_network(joint_capacities(Attention(**example(architecture))))
    joint = barrier_flow(network, network.inputs, network.outputs[-1])
    found = fixed_flow_shapley(network, joint.flow)
    np.testing.assert_allclose(found.values, joint.inputs, atol=1e-6)
    assert found.total == pytest.approx(float(joint.value), abs=1e-6)
    in_the_middle = np.flatnonzero((network.layer == 1) & (network.stack != 2))
    if architecture != "encoder-decoder":  # where the decoder's inputs pass it by
        through = fixed_flow_shapley(network, joint.flow, players=in_the_middle)
        assert through.total == pytest.approx(float(joint.value), abs=1e-6)
