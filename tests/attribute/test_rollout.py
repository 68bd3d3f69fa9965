"""Rollout and raw attention: closed forms, JAX's transformations, padding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from oracles import capacities_by_loops
from strategies import attention, make_attention

from jaxflow import Attention, Capacities, joint_capacities
from jaxflow.attribute import raw_attention, rollout

SHAPE = (2, 3, 2, 4, 4)  # [batch, layer, head, query, key]
GOOD = make_attention("softmax", 0, SHAPE)
MASK = np.array([[1, 1, 1, 1], [1, 1, 0, 0]], bool)


def product(capacity):
    below = np.eye(capacity.shape[-1])
    for layer in capacity.astype(np.float64):
        below = layer @ below
    return below


@pytest.mark.parametrize("heads", ["mean", "max", 1])
@pytest.mark.parametrize("residual", [0, 0.3, 1])
def test_rollout_is_the_product_of_all_layers(heads, residual):
    got = rollout(GOOD, heads=heads, residual=residual)
    for example in range(2):
        expected = product(capacities_by_loops(GOOD[example], heads=heads, residual=residual))
        np.testing.assert_allclose(got.encoder[example], expected, rtol=1e-6)
    assert got.certificate is None
    assert got.saturated is None
    assert got.saturation is None
    assert got.positions.tolist() == [0, 1, 2, 3]


@settings(deadline=None, max_examples=30)
@given(attention((12, 1, 3, 3)))
def test_rollout_over_twelve_layers_has_rows_that_sum_to_one(weights):
    got = np.asarray(rollout(weights).encoder)
    np.testing.assert_allclose(got, product(capacities_by_loops(weights)), rtol=3e-6, atol=1e-37)
    np.testing.assert_allclose(got.sum(-1), 1, atol=1e-5)


def test_one_layer_is_its_capacities_and_one_token_is_one():
    one = GOOD[0, :1]
    np.testing.assert_array_equal(rollout(one).encoder, joint_capacities(Attention(encoder=one)).encoder[0])
    np.testing.assert_array_equal(rollout(np.ones((12, 2, 1, 1), np.float32)).encoder, [[1]])


@pytest.mark.parametrize("heads", ["mean", "max", 1])
@pytest.mark.parametrize("layer", [0, 1, np.int64(2), -1, -3])
def test_raw_attention_is_one_layer_without_residual(heads, layer):
    got = raw_attention(GOOD, heads=heads, layer=layer)
    for example in range(2):
        expected = capacities_by_loops(GOOD[example], heads=heads, residual=0)[layer]
        np.testing.assert_allclose(got.encoder[example], expected, rtol=3e-7)
    assert got.certificate is None


def test_raw_attention_takes_the_last_layer_and_capacities_as_they_are():
    np.testing.assert_array_equal(raw_attention(GOOD).encoder, raw_attention(GOOD, layer=2).encoder)
    capacities = joint_capacities(Attention(encoder=GOOD), residual=0.3)
    np.testing.assert_array_equal(raw_attention(capacities, layer=1).encoder, capacities.encoder[:, 1])


METHODS = {"rollout": rollout, "raw": raw_attention}
methods = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)


@methods
def test_chosen_outputs(method):
    everything = method(GOOD).encoder
    for outputs in ([2], [3, 0], (1, 1), np.array([0, 3]), np.int32(2), 2, jnp.array([1])):
        got = method(GOOD, positions=outputs)
        assert got.positions.tolist() == np.atleast_1d(outputs).tolist()
        np.testing.assert_array_equal(got.encoder, everything[:, np.atleast_1d(outputs)])


@methods
def test_padding(method):
    padded = GOOD.copy()
    padded[1, :, :, 2:] = np.nan
    padded[1, :, :, :2, 2:] = 0
    padded[1, :, :, :2, :2] = alone = make_attention("softmax", 3, (3, 2, 2, 2))
    got = np.asarray(method(padded, encoder_mask=MASK).encoder)
    np.testing.assert_array_equal(got[1, 2:], 0)
    np.testing.assert_array_equal(got[1, :, 2:], 0)
    np.testing.assert_allclose(got[0], method(GOOD[0]).encoder, rtol=1e-6)
    np.testing.assert_allclose(got[1, :2, :2], method(alone).encoder, rtol=1e-6)
    with pytest.raises(ValueError, match=r"Output 2 is padding in row \[1\]"):
        method(padded, encoder_mask=MASK, positions=2)


@methods
def test_normalise_leaves_rows_of_zeros_at_zero(method):
    padded = np.where(MASK[:, None, None, :, None], GOOD, 0)
    got = np.asarray(method(padded, encoder_mask=MASK, heads="max", normalise=True).encoder)
    np.testing.assert_allclose(got.sum(-1), MASK, rtol=1e-6)
    raw = np.asarray(method(padded, encoder_mask=MASK, heads="max").encoder)
    np.testing.assert_allclose(got[0], raw[0] / raw[0].sum(-1, keepdims=True), rtol=1e-6)

    def loss(residual):
        capacities = joint_capacities(Attention(encoder=padded), residual=residual, encoder_mask=MASK)
        return method(capacities, normalise=True).encoder[..., 0].sum()

    assert np.isfinite(jax.grad(loss)(0.3))


@methods
def test_jit_and_vmap(method):
    plain = method(GOOD, encoder_mask=MASK, positions=[1, 0], normalise=True)
    jitted = jax.jit(lambda weights, mask: method(weights, encoder_mask=mask, positions=[1, 0], normalise=True))(
        GOOD, MASK
    )
    assert type(jitted) is type(plain)
    np.testing.assert_array_equal(jitted.positions, [1, 0])
    np.testing.assert_allclose(jitted.encoder, plain.encoder, rtol=1e-6)
    mapped = jax.vmap(lambda weights, mask: method(weights, encoder_mask=mask, positions=[1, 0], normalise=True))
    np.testing.assert_allclose(mapped(GOOD, MASK).encoder, plain.encoder, rtol=1e-6)
    weights = jnp.asarray(GOOD)
    np.testing.assert_allclose(
        jax.jit(lambda scale: scale * method(weights).encoder)(2.0), 2 * method(GOOD).encoder, rtol=1e-6
    )


def test_gradient_of_rollout_in_closed_form():
    """d sum(U * C2 C1) is `C2^T U` for the first layer and `U C1^T` for the second."""
    capacity = make_attention("softmax", 0, (2, 4, 4))
    upstream = np.random.default_rng(0).normal(size=(4, 4)).astype(np.float32)
    got = jax.grad(lambda c: (upstream * rollout(Capacities(encoder=c)).encoder).sum())(capacity)
    np.testing.assert_allclose(got, [capacity[1].T @ upstream, upstream @ capacity[0].T], rtol=1e-5, atol=1e-6)


@methods
def test_gradients_against_finite_differences(method):
    rng = np.random.default_rng(0)
    upstream = rng.normal(size=(4, 4))
    with jax.enable_x64(True):
        weights = GOOD[0].astype(np.float64)
        weights /= weights.sum(-1, keepdims=True)
        # Along a direction that keeps the sum of every row.
        direction = rng.normal(size=weights.shape)
        direction -= direction.mean(-1, keepdims=True)

        def loss(weights):
            return (upstream * method(weights, normalise=True).encoder).sum()

        slope = (loss(weights + 1e-6 * direction) - loss(weights - 1e-6 * direction)) / 2e-6
        np.testing.assert_allclose((jax.grad(loss)(weights) * direction).sum(), slope, rtol=1e-6)


@methods
def test_bad_input(method):
    for weights, options, message in (
        (GOOD, {"positions": 4}, "Output 4 does not exist: outputs are positions 0 to 3"),
        (GOOD, {"positions": []}, r"positions is \[\]; expected a position"),
        (GOOD, {"positions": 0.5}, "positions is 0.5; expected a position"),
        (GOOD, {"encoder_mask": MASK, "positions": [0, 3]}, r"Output 3 is padding in row \[1\]"),
        (GOOD[0, 0], {}, "forget vmap"),
        (2 * GOOD, {}, "sums to 2"),
        (tuple(GOOD), {}, r"jnp\.stack"),
        (Attention(cross=GOOD), {}, "cross-attention without a decoder"),
        (Attention(encoder=GOOD, decoder=GOOD), {}, "nothing that joins them"),
        (Capacities(encoder=GOOD[:, :, 0]), {"heads": "mean"}, "heads given together with Capacities"),
        (Capacities(encoder=GOOD[:, :, 0]), {"encoder_mask": MASK}, "encoder_mask given together with Capacities"),
    ):
        with pytest.raises(ValueError, match=message):
            method(weights, **options)


@pytest.mark.parametrize("layer", [3, -4, 100])
def test_layer_that_does_not_exist(layer):
    with pytest.raises(ValueError, match=f"Layer {layer} does not exist: there are 3, 0 to 2"):
        raw_attention(GOOD, layer=layer)
