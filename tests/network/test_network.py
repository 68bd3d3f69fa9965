"""FlowNetwork: against loops over the definition, and under JAX's transformations."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from strategies import make_attention

from jaxflow import Attention, Capacities, flow_network, joint_capacities, max_flow

SHAPES = [(1, 1), (1, 3), (3, 1), (2, 4), (12, 3)]  # (n_layers, n_tokens)


def random_capacity(n_layers, n_tokens):
    return make_attention("softmax", 0, (n_layers, n_tokens, n_tokens))


@pytest.mark.parametrize(("n_layers", "n_tokens"), SHAPES)
def test_arcs_are_those_of_the_definition(n_layers, n_tokens):
    capacity = random_capacity(n_layers, n_tokens)
    network = flow_network(Capacities(encoder=capacity))
    node = dict(zip(itertools.product(range(n_layers + 1), range(n_tokens)), itertools.count()))
    expected = {
        (node[layer - 1, key], node[layer, query]): capacity[layer - 1, query, key]
        for layer in range(1, n_layers + 1)
        for query in range(n_tokens)
        for key in range(n_tokens)
    }
    got = dict(
        zip(zip(network.senders.tolist(), network.receivers.tolist(), strict=True), network.capacity, strict=True)
    )
    assert got == expected
    assert len(network.senders) == len(expected)
    assert network.n_nodes == len(node)
    assert network.n_layers == n_layers
    assert list(zip(network.level.tolist(), network.position.tolist(), strict=True)) == list(node)
    assert network.encoder_inputs.tolist() == [node[0, token] for token in range(n_tokens)]
    assert network.outputs.tolist() == [node[n_layers, token] for token in range(n_tokens)]


def test_structure_depends_on_shapes_alone():
    full, empty = (flow_network(Capacities(encoder=c)) for c in (np.ones((2, 3, 3)), np.zeros((2, 3, 3))))
    for one, other in zip(
        jax.tree.leaves(full.replace(capacity=None)), jax.tree.leaves(empty.replace(capacity=None)), strict=True
    ):
        np.testing.assert_array_equal(one, other)


def test_jit_vmap_and_grad():
    weights = make_attention("softmax", 0, (2, 3, 2, 4, 4))

    def network(weights):
        return flow_network(joint_capacities(Attention(encoder=weights), residual=0.5))

    plain, jitted = network(weights[0]), jax.jit(network)(weights[0])
    for one, other in zip(jax.tree.leaves(plain), jax.tree.leaves(jitted), strict=True):
        np.testing.assert_array_equal(one, other)
    # What comes out of jit is solved as it is.
    np.testing.assert_array_equal(
        max_flow(plain, plain.encoder_inputs, plain.outputs[:, None]).value,
        max_flow(jitted, jitted.encoder_inputs, jitted.outputs[:, None]).value,
    )
    mapped = jax.vmap(network)(weights)
    for example in range(2):
        np.testing.assert_array_equal(mapped.capacity[example], network(weights[example]).capacity)
    upstream = np.random.default_rng(0).normal(size=3 * 4 * 4).astype(np.float32)
    gradient = jax.grad(lambda weights: (upstream * network(weights).capacity).sum())(weights[0])
    # Half of the mean of two heads, and arcs in the order of [layer, query, key].
    np.testing.assert_allclose(gradient, np.repeat(upstream.reshape(3, 1, 4, 4), 2, axis=1) / 4, rtol=1e-6)


BAD = [
    (Capacities(encoder=np.ones((2, 3, 4, 4))), r"shape \(2, 3, 4, 4\); flow_network takes one example.*forget vmap"),
    (Capacities(encoder=np.ones((4, 4))), "expected at least rank 3.*forget vmap"),
    (Capacities(encoder=np.ones((0, 4, 4))), "no examples, layers or tokens"),
    (Capacities(encoder=-np.ones((1, 4, 4))), "negative, NaN or infinite"),
    (Capacities(decoder=np.ones((1, 4, 4))), "looks ahead: in layer 0, position 0 reads position 1"),
    (Capacities(encoder=np.ones((1, 4, 4)), cross=np.ones((1, 3, 4))), "cross-attention without a decoder"),
    (Capacities(), "Capacities hold no stack"),
]


@pytest.mark.parametrize(("capacities", "message"), BAD, ids=[message[:30] for _, message in BAD])
def test_bad_capacities(capacities, message):
    with pytest.raises(ValueError, match=message):
        flow_network(capacities)


def test_shapes_are_checked_under_jit():
    with pytest.raises(ValueError, match="forget vmap"):
        jax.jit(lambda c: flow_network(Capacities(encoder=c)).capacity)(jnp.ones((2, 1, 4, 4)))
