import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from general_networks import CASES, LEFT, RIGHT, example

from jaxflow import Attention, Capacities, flow_network, joint_capacities, max_flow
from jaxflow.solve import flow_bounds


def in_prose(network):
    """The definition over any network's arcs, one pair after the other, node after node."""
    capacity, n = np.asarray(network.capacity), network.n_nodes
    entering, leaving = ([[] for _ in range(n)] for _ in range(2))
    for arc, (sender, receiver) in enumerate(zip(network.senders, network.receivers, strict=True)):
        entering[receiver].append((sender, capacity[arc]))
        leaving[sender].append((receiver, capacity[arc]))

    def bound(start, arcs, order):
        held = dict.fromkeys(order, 0)
        held[start] = np.inf
        for node in order:
            if node != start:
                held[node] = sum(min(c, held[other]) for other, c in arcs[node])
        return held

    forward = [bound(player, entering, range(n)) for player in network.inputs]
    backward = [bound(output, leaving, range(n - 1, -1, -1)) for output in network.outputs]
    pairs = itertools.product(range(len(backward)), range(len(forward)))
    bounds = [min(forward[i][network.outputs[o]], backward[o][network.inputs[i]]) for o, i in pairs]
    return np.reshape(bounds, (len(backward), len(forward)))


@pytest.mark.parametrize(("architecture", "decoder_layer", "feedback", "residual"), CASES)
def test_bounds_are_those_of_the_definition_and_hold(architecture, decoder_layer, feedback, residual):
    n_prompt = 2 if feedback == "unrolled" else None
    options = {"decoder_layer": decoder_layer, "feedback": feedback, "n_prompt": n_prompt}
    has_target = architecture != "encoder"
    capacities = joint_capacities(
        Attention(**example(architecture, 7, target_mask=RIGHT if has_target else None)),
        residual=residual,
        decoder_mask=np.array(RIGHT) if has_target else None,
    )
    network = flow_network(capacities, **options)
    bounds, expected = np.array(flow_bounds(capacities, **options)), in_prose(network)
    if n_prompt is not None:
        n_source = bounds.shape[1] - bounds.shape[0]
        assert not bounds[:, n_source + n_prompt :].any()
        expected[:, n_source + n_prompt :] = 0
    np.testing.assert_allclose(bounds, expected, atol=1e-6)
    row, player = np.nonzero((network.inputs < network.outputs[:, None]) & (expected > 0))
    value = max_flow(network, network.inputs[player], network.outputs[row], solver="ortools").value
    assert (value <= bounds[row, player] + 1e-6).all()
    assert (value == 0).sum() == 0


@pytest.mark.parametrize(("n_layers", "n_tokens"), [(1, 1), (1, 4), (2, 1), (3, 5), (11, 3)])
def test_whole_numbers_are_exact(n_layers, n_tokens):
    capacity = np.random.default_rng(n_layers).integers(0, 2**20, (n_layers, n_tokens, n_tokens), np.int32)
    capacities = Capacities(encoder=jnp.asarray(capacity))
    bounds = flow_bounds(capacities)
    assert bounds.dtype == jnp.int32
    np.testing.assert_array_equal(bounds, in_prose(flow_network(Capacities(encoder=capacity.astype(np.float64)))))


@pytest.mark.parametrize("residual", [0.0, 0.5, 1.0])
def test_no_flow_exceeds_its_bound(residual):
    random = np.random.default_rng(3)
    layers = random.dirichlet(np.full(7, 0.3), (4, 7)) * (1 - residual) + residual * np.eye(7)
    network = flow_network(Capacities(encoder=layers))
    value = max_flow(network, network.encoder_inputs, network.outputs[:, None], solver="ortools").value
    bounds = np.asarray(flow_bounds(Capacities(encoder=jnp.asarray(layers, jnp.float32))))
    assert (value <= bounds + 1e-6).all()
    assert (bounds <= layers[0].sum(0) + 1e-6).all()
    assert (bounds <= layers[-1].sum(1)[:, None] + 1e-6).all()


def test_one_layer_and_identity_are_exact():
    layer = jnp.asarray(np.random.default_rng(0).random((1, 4, 4), np.float32))
    np.testing.assert_array_equal(flow_bounds(Capacities(encoder=layer)), layer[0])
    np.testing.assert_array_equal(flow_bounds(Capacities(decoder=jnp.stack([jnp.eye(3)] * 5))), np.eye(3))


def test_batches_give_what_their_examples_give():
    rows = [
        example("encoder-decoder", seed, source_mask=[True] * 4, target_mask=mask)
        for seed, mask in enumerate((LEFT, RIGHT))
    ]
    mask = jnp.array([LEFT, RIGHT])
    attention = Attention(**{name: jnp.stack([row[name] for row in rows]) for name in rows[0]})
    batch = joint_capacities(attention, decoder_mask=mask)
    expected = [flow_bounds(jax.tree.map(lambda leaf, row=row: leaf[row], batch)) for row in range(2)]
    np.testing.assert_allclose(flow_bounds(batch), expected, rtol=1e-6)
    np.testing.assert_allclose(jax.jit(flow_bounds)(batch), expected, rtol=1e-6)
    np.testing.assert_allclose(jax.vmap(flow_bounds)(batch), expected, rtol=1e-6)


def test_causal_bounds_are_zero_ahead():
    capacity = jnp.tril(jnp.asarray(np.random.default_rng(2).random((3, 6, 6), np.float32)))
    assert not np.triu(np.asarray(flow_bounds(Capacities(decoder=capacity))), 1).any()


def test_what_makes_no_network_has_no_bounds():
    with pytest.raises(ValueError, match="needs generated positions"):
        flow_bounds(Capacities(decoder=jnp.eye(3)[None]), feedback="unrolled")
    with pytest.raises(TypeError, match=r"expected Capacities.*Capacities\(encoder=array\)"):
        flow_bounds(jnp.eye(3)[None])
