"""attention_weights, against what jax.nn.dot_product_attention weighs an identity of values by."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxflow.capture import attention_weights

B, T, S, F = 2, 5, 7, 4


def arrays(n_heads=4, n_groups=4, n_keys=S):
    draw = np.random.default_rng(0).normal
    return jnp.asarray(draw(size=(B, T, n_heads, F)), jnp.float32), jnp.asarray(
        draw(size=(B, n_keys, n_groups, F)), jnp.float32
    )


def weighed(query, key, **options):
    """Values that are the identity come back as the weights themselves."""
    n_keys, n_groups = key.shape[1:3]
    value = jnp.broadcast_to(jnp.eye(n_keys)[None, :, None], (B, n_keys, n_groups, n_keys))
    padded = [jnp.pad(a, [(0, 0)] * 3 + [(0, n_keys - F)]) for a in (query, key)]
    out = jax.nn.dot_product_attention(*padded, value, scale=options.pop("scale", F**-0.5), **options)
    return jnp.moveaxis(out, 1, 2)


MASK = np.random.default_rng(1).random((B, 1, T, S)) < 0.7
MASK[..., 0] = True
BIAS = np.random.default_rng(2).normal(size=(1, 4, T, S)).astype("float32")


@pytest.mark.parametrize("n_groups", [4, 2, 1])
@pytest.mark.parametrize(
    ("options", "theirs"),
    [
        ({}, {}),
        ({"scale": 0.3}, {"scale": 0.3}),
        ({"causal": True}, {"is_causal": True}),
        ({"window": 2}, {"local_window_size": 2}),
        ({"window": (1, 0), "causal": True}, {"local_window_size": (1, 0), "is_causal": True}),
        ({"mask": MASK}, {"mask": jnp.asarray(MASK)}),
        ({"bias": BIAS}, {"bias": jnp.asarray(BIAS)}),
        (
            {"mask": MASK, "bias": BIAS, "causal": True},
            {"mask": jnp.asarray(MASK), "bias": jnp.asarray(BIAS), "is_causal": True},
        ),
    ],
)
def test_against_jax(n_groups, options, theirs, standard_promotion):
    query, key = arrays(n_groups=n_groups)
    np.testing.assert_allclose(attention_weights(query, key, **options), weighed(query, key, **theirs), atol=1e-6)


def test_soft_cap_and_sinks():
    query, key = arrays()
    logits = np.einsum("bthf,bshf->bhts", query, key) / 2
    capped = 1.5 * np.tanh(logits / 1.5)
    expected = np.exp(capped) / np.exp(capped).sum(-1, keepdims=True)
    np.testing.assert_allclose(attention_weights(query, key, soft_cap=1.5), expected, atol=1e-6)
    sinks = np.asarray([0.0, 1.0, -1.0, 3.0], "float32")
    expected = np.exp(logits) / (np.exp(logits).sum(-1, keepdims=True) + np.exp(sinks)[:, None, None])
    np.testing.assert_allclose(attention_weights(query, key, sinks=sinks), expected, atol=1e-6)


def test_a_query_that_sees_nothing():
    query, key = arrays()
    mask = np.ones((B, 1, T, S), bool)
    mask[0, 0, 2] = False
    weights = attention_weights(query, key, mask=mask)
    np.testing.assert_array_equal(weights[0, :, 2], 0)
    np.testing.assert_allclose(weights[1].sum(-1), 1, atol=1e-6)


def test_narrow_types_and_transformations():
    query, key = (a.astype(jnp.bfloat16) for a in arrays())
    weights = jax.jit(attention_weights)(query, key)
    assert weights.dtype == jnp.float32
    one = jax.vmap(attention_weights)(query, key)
    np.testing.assert_allclose(one, weights, atol=1e-6)
    gradient = jax.grad(lambda q: attention_weights(q, key)[..., 0].sum())(query)
    assert np.abs(gradient.astype(jnp.float32)).max() > 0


@pytest.mark.parametrize(
    ("shapes", "options", "message"),
    [
        (((2, 5, 4, 8), (2, 5, 3, 8)), {}, r"query has 4 heads and key 3; expected a multiple"),
        (((2, 5, 4, 8), (2, 5, 4, 6)), {}, r"expected \[\*batch, query, head, feature\]"),
        (((5, 8), (5, 8)), {}, r"query has shape \(5, 8\)"),
        (
            ((2, 5, 4, 8), (2, 5, 4, 8)),
            {"mask": np.ones((3, 3), bool)},
            r"mask or bias has shape \(3, 3\); expected one that",
        ),
    ],
)
def test_errors(shapes, options, message):
    with pytest.raises(ValueError, match=message):
        attention_weights(*map(jnp.ones, shapes), **options)
