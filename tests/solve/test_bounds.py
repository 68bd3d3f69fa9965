import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxflow import Capacities, flow_network, max_flow
from jaxflow.solve.bounds import flow_bounds


def in_prose(capacity: np.ndarray) -> np.ndarray:
    """The definition, one pair after the other."""
    n = capacity.shape[1]
    bounds = np.zeros((n, n), capacity.dtype)
    for source in range(n):
        forward = capacity[0][:, source]
        for layer in capacity[1:]:
            forward = np.minimum(layer, forward).sum(1)
        for sink in range(n):
            backward = capacity[-1][sink]
            for layer in capacity[-2::-1]:
                backward = np.minimum(layer, backward[:, None]).sum(0)
            bounds[sink, source] = min(forward[sink], backward[source])
    return bounds


@pytest.mark.parametrize(("n_layers", "n_tokens"), [(1, 1), (1, 4), (2, 1), (3, 5), (11, 3)])
def test_bounds_are_those_of_the_definition(n_layers, n_tokens):
    capacity = np.random.default_rng(n_layers).integers(0, 2**20, (n_layers, n_tokens, n_tokens), np.int32)
    np.testing.assert_array_equal(flow_bounds(jnp.asarray(capacity)), in_prose(capacity))


@pytest.mark.parametrize("residual", [0.0, 0.5, 1.0])
def test_no_flow_exceeds_its_bound(residual):
    random = np.random.default_rng(3)
    layers = random.dirichlet(np.full(7, 0.3), (4, 7)) * (1 - residual) + residual * np.eye(7)
    network = flow_network(Capacities(encoder=layers))
    value = max_flow(network, network.encoder_players, network.outputs[:, None], solver="ortools").value
    bounds = np.asarray(flow_bounds(jnp.asarray(layers, jnp.float32)))
    assert (value <= bounds + 1e-6).all()
    assert (bounds <= layers[0].sum(0) + 1e-6).all()
    assert (bounds <= layers[-1].sum(1)[:, None] + 1e-6).all()


def test_one_layer_and_identity_are_exact():
    layer = jnp.asarray(np.random.default_rng(0).random((1, 4, 4), np.float32))
    np.testing.assert_array_equal(flow_bounds(layer), layer[0])
    np.testing.assert_array_equal(flow_bounds(jnp.stack([jnp.eye(3)] * 5)), np.eye(3))


def test_batches_give_what_their_examples_give():
    capacity = jnp.asarray(np.random.default_rng(1).random((3, 2, 5, 5), np.float32))
    batched = jax.jit(jax.vmap(flow_bounds))(capacity)
    np.testing.assert_allclose(batched, jnp.stack([flow_bounds(example) for example in capacity]), rtol=1e-6)


def test_causal_bounds_are_zero_ahead():
    capacity = jnp.tril(jnp.asarray(np.random.default_rng(2).random((3, 6, 6), np.float32)))
    assert not np.triu(np.asarray(flow_bounds(capacity)), 1).any()
