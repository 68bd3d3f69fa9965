"""flow_value and smooth_flow_value: their values, finite differences, cuts, and every transformation of JAX."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import make_attention, sixteenths

from jaxflow import Attention, Capacities, attention_flow, flow_network, joint_capacities, max_flow, min_cut
from jaxflow.solve import barrier_flow, flow_value, smooth_flow_value

PLAYERS, OUTPUTS = np.arange(5), np.array([[0], [3]])


def attention(seed=0, *, batch=()):
    return jnp.asarray(make_attention("softmax", seed, (*batch, 3, 2, 5, 5)))


def values_of(weights, function=flow_value, **options):
    return function(joint_capacities(Attention(encoder=weights)), PLAYERS, OUTPUTS, **options)


def test_values_are_those_of_attention_flow():
    weights = attention()
    expected = attention_flow(weights, positions=[0, 3]).encoder
    np.testing.assert_allclose(values_of(weights), expected, rtol=1e-6)
    np.testing.assert_allclose(jax.jit(values_of)(weights), expected, rtol=1e-6)
    assert values_of(weights).dtype == jnp.float32
    assert flow_value(joint_capacities(Attention(encoder=weights)), 1, 2).shape == ()


def test_smooth_values_are_those_of_the_barrier_flow_whatever_x64_is():
    weights = attention()
    network = flow_network(joint_capacities(Attention(encoder=weights)))
    for mu in (1e-2, 1e-5):
        expected = np.stack([barrier_flow(network, i, network.outputs[[0, 3]], mu=mu).value for i in range(5)], axis=1)
        got = values_of(weights, smooth_flow_value, mu=mu)
        assert got.dtype == jnp.float32
        np.testing.assert_allclose(got, expected, rtol=1e-6)
    exact = values_of(weights)
    assert (got <= exact + 1e-6).all()
    assert (exact - got).max() < 1e-3


@pytest.mark.parametrize("function", [flow_value, smooth_flow_value])
def test_gradients_are_finite_differences(function):
    rng = np.random.default_rng(1)
    with jax.enable_x64(True):
        capacity = np.asarray(joint_capacities(Attention(encoder=attention())).encoder, np.float64)
        weights = jnp.asarray(rng.normal(size=(2, 5)))
        loss = jax.jit(lambda c: (weights * function(Capacities(encoder=c), PLAYERS, OUTPUTS)).sum())
        gradient = jax.jit(jax.grad(loss))(capacity)
        for _ in range(5):
            step = 1e-5 * rng.normal(size=capacity.shape)
            difference = (loss(capacity + step) - loss(capacity - step)) / 2
            np.testing.assert_allclose((gradient * step).sum(), difference, rtol=1e-5, atol=1e-11)


@pytest.mark.parametrize(
    ("function", "decoder_layer"),
    [(flow_value, "sublayers"), (flow_value, "parallel"), (smooth_flow_value, "sublayers")],
)
def test_gradients_of_encoder_decoders(function, decoder_layer):
    """By all stacks, and by the residual that a decoder layer needs once more."""
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        capacities = Capacities(
            encoder=jnp.asarray(rng.dirichlet(np.ones(3), (2, 3))),
            decoder=jnp.asarray(np.tril(rng.dirichlet(np.ones(3), (2, 3)))),
            cross=jnp.asarray(rng.dirichlet(np.ones(3), (2, 3))),
            residual=jnp.asarray(0.4),
        )
        loss = jax.jit(lambda c: function(c, np.array([1, 3]), 2, decoder_layer=decoder_layer).sum())
        gradient = jax.grad(loss)(capacities)
        assert jax.tree.structure(gradient) == jax.tree.structure(capacities)
        for _ in range(3):
            step = jax.tree.map(
                lambda leaf: 1e-6 * rng.uniform(0.5, 1, leaf.shape) * (np.asarray(leaf) > 0), capacities
            )
            above, below = (
                jax.tree.map(lambda leaf, by, sign=sign: leaf + sign * by, capacities, step) for sign in (1, -1)
            )
            slope = sum(jax.tree.leaves(jax.tree.map(lambda g, by: (g * by).sum(), gradient, step)))
            np.testing.assert_allclose(slope, (loss(above) - loss(below)) / 2, rtol=1e-4)


@settings(deadline=None, max_examples=30)
@given(sixteenths((3, 3), (3, 3)), st.sampled_from(["source", "sink"]), st.data())
def test_gradient_is_the_chosen_cut_and_a_supergradient(capacity, nearest, data):
    """Ties everywhere: the cut is min_cut's, with the arcs of capacity 0 that cross it, and no direction gains more."""
    source, output = (data.draw(st.integers(0, 2)) for _ in range(2))
    capacity = capacity.astype(np.float32)
    capacities = Capacities(encoder=jnp.asarray(capacity))
    value, gradient = jax.value_and_grad(flow_value)(capacities, source, output, nearest=nearest)
    gradient = np.asarray(gradient.encoder)
    assert set(np.unique(gradient)) <= {0.0, 1.0}
    assert (gradient * capacity).sum() == value
    network = flow_network(capacities)
    cut = min_cut(network, source, int(network.outputs[output]), nearest=nearest)
    if value > 0:
        full = np.argwhere((gradient == 1) & (capacity > 0)).tolist()
        assert sorted(full) == sorted(np.stack([cut.layer - 1, cut.query, cut.key], 1).tolist())
    changed = np.random.default_rng(0).integers(0, 100, capacity.shape) / 16
    other = flow_network(Capacities(encoder=changed))
    assert float(max_flow(other, source, int(other.outputs[output])).value) <= (gradient * changed).sum()


def test_which_cut_is_the_gradient_of_a_chain():
    capacities = Capacities(encoder=jnp.full((3, 1, 1), 0.5))
    for nearest, arc in (("source", 0), ("sink", 2)):
        gradient = jax.grad(flow_value)(capacities, 0, 0, nearest=nearest).encoder.ravel()
        np.testing.assert_array_equal(gradient, np.eye(3)[arc])


@pytest.mark.parametrize("function", [flow_value, smooth_flow_value])
def test_batches_give_what_their_rows_give(function):
    weights = attention(3, batch=(2, 2))
    step = jax.value_and_grad(lambda w: values_of(w, function).sum())
    values, gradients = jax.jit(jax.vmap(jax.vmap(step)))(weights)
    for index in np.ndindex(2, 2):
        value, gradient = step(weights[index])
        np.testing.assert_allclose(values[index], value, rtol=1e-6)
        np.testing.assert_allclose(gradients[index], gradient, atol=1e-6)
    np.testing.assert_allclose(
        jax.vmap(jax.jit(lambda w: values_of(w, function).sum()))(weights[0]), values[0], rtol=1e-6
    )


def test_gradients_pass_padding_and_masks():
    mask = np.array([True, True, True, True, False])
    weights = attention().at[..., 4].set(0)
    weights = weights / weights.sum(-1, keepdims=True)

    def loss(weights):
        return flow_value(joint_capacities(Attention(encoder=weights), encoder_mask=mask), np.arange(5), 0).sum()

    gradient = jax.grad(loss)(weights)
    assert np.isfinite(gradient).all()
    assert not gradient[..., 4].any()
    assert not gradient[..., 4, :].any()


def test_a_barrier_that_does_not_converge_is_nan():
    weights = attention()
    loss = lambda w: values_of(w, smooth_flow_value, max_iterations=3).sum()  # noqa: E731
    value, gradient = jax.value_and_grad(loss)(weights)
    assert np.isnan(value)
    assert np.isnan(gradient).any()
    assert np.isfinite(values_of(weights, smooth_flow_value)).all()


def test_several_devices_do_not_wait_for_one_another_for_ever():
    """Large arguments, and threads that are all busy: `pure_callback` and batches of Cholesky hang here."""
    script = Path(__file__).with_name("sharded_gradients.py")
    environment = os.environ | {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }
    done = subprocess.run(
        [sys.executable, script], env=environment, capture_output=True, text=True, timeout=300, check=True
    )
    assert done.stdout.splitlines() == [f"{way}: 4 devices" for way in ("jit", "shard_map", "pmap", "smooth")]


@pytest.mark.parametrize("function", [flow_value, smooth_flow_value])
def test_bad_input(function):
    integers = Capacities(encoder=jnp.ones((2, 3, 3), jnp.int32))
    with pytest.raises(
        ValueError, match=r"Capacities.encoder has dtype int32, which has no gradients; expected a floating"
    ):
        function(integers, 0, 0)
    with pytest.raises(ValueError, match="has dtype int32"):
        jax.grad(lambda c: function(c, 0, 0), allow_int=True)(integers)
    capacities = Capacities(encoder=jnp.ones((2, 3, 3)))
    with pytest.raises(ValueError, match="source is 3; expected positions 0 to 2"):
        function(capacities, 3, 0)
    with pytest.raises(ValueError, match=r"output is 0.5; expected positions 0 to 2"):
        function(capacities, 0, 0.5)
    with pytest.raises(ValueError, match="Did you forget vmap"):
        function(Capacities(encoder=jnp.ones((1, 2, 3, 3))), 0, 0)


def test_bad_options():
    capacities = Capacities(encoder=jnp.ones((2, 3, 3)))
    with pytest.raises(ValueError, match="nearest is 'input'; expected 'source' or 'sink'"):
        flow_value(capacities, 0, 0, nearest="input")
    with pytest.raises(ValueError, match="mu is -1; expected a number above 0"):
        smooth_flow_value(capacities, 0, 0, mu=-1)
    with pytest.raises(Exception, match="expected finite capacities >= 0"):
        jax.jit(flow_value, static_argnums=(1, 2))(Capacities(encoder=-jnp.ones((2, 3, 3))), 0, 0).block_until_ready()
