"""Linen modules that do not sow all their attention: the trace serves, and the result says so."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from capture.linen_models import Block, Deep, Own, Scanned, X, build
from flax.core import freeze

from jaxflow import attention_gradients, capture, capture_contributions, explain
from jaxflow.network import capture_capacities


class Stack(nn.Module):
    """One attention per function; None stands for flax's own."""

    functions: tuple
    attention: Any = nn.MultiHeadDotProductAttention

    @nn.compact
    def __call__(self, x):
        for i, function in enumerate(self.functions):
            x = x + self.attention(num_heads=2, attention_fn=function or nn.dot_product_attention, name=f"at{i}")(x)
        return x


class Mixed(nn.Module):
    """A module of flax's, and a softmax of its own that sows nothing."""

    @nn.compact
    def __call__(self, x):
        x = x + nn.MultiHeadDotProductAttention(num_heads=2, name="flaxs")(x)
        q, k, v = (nn.DenseGeneral((2, 4), name=name)(x) for name in "qkv")
        w = jax.nn.softmax(jnp.einsum("bthf,bshf->bhts", q, k) / 2)
        return x + jnp.einsum("bhts,bshf->bthf", w, v).reshape(x.shape)


def traced(model, variables, x=X):
    """Capture a module, and check that it was traced; return its encoder."""
    outputs, attention = capture(model, x, variables=variables)
    assert attention.backend == "traced"
    expected = model.apply(variables, x)
    np.testing.assert_allclose(jax.tree.leaves(outputs)[0], jax.tree.leaves(expected)[0], atol=1e-5)
    return attention.encoder


@pytest.mark.parametrize("attention", [nn.MultiHeadDotProductAttention, nn.remat(nn.SelfAttention)])
@pytest.mark.parametrize("functions", [(jax.nn.dot_product_attention,) * 2, (None, jax.nn.dot_product_attention, None)])
def test_a_function_that_sows_nothing(functions, attention):
    model = Stack(functions, attention)
    variables = build(model)
    plain = Stack((None,) * len(functions), attention)
    found = traced(model, variables)
    np.testing.assert_allclose(found, capture(plain, X, variables=variables)[1].encoder, atol=1e-5)


def test_a_scan_that_drops_what_is_sown():
    model = Scanned(axes=freeze({"params": 0}))
    variables = build(model)
    found = traced(model, variables)
    np.testing.assert_allclose(found, capture(Scanned(), X, variables=variables)[1].encoder, atol=1e-6)


def test_a_part_of_the_layers():
    class Partial(nn.Module):
        axes: Any

        @nn.compact
        def __call__(self, x):
            return Scanned(axes=self.axes)(Block()(x)[0])

    model, whole = Partial(freeze({"params": 0})), Partial(Scanned().axes)
    variables = build(model)
    expected = capture(whole, X, variables=variables)[1]
    assert expected.backend == "linen"
    np.testing.assert_allclose(traced(model, variables), expected.encoder, atol=1e-6)


def test_a_layer_that_no_module_of_flax_computes():
    model = Mixed()
    variables = build(model)
    found = traced(model, variables)
    _, state = model.apply(variables, X, capture_intermediates=True, mutable="intermediates")
    x = X + state["intermediates"]["flaxs"]["__call__"][0]
    q, k = (nn.DenseGeneral((2, 4)).apply({"params": variables["params"][name]}, x) for name in "qk")
    logits = np.einsum("bthf,bshf->bhts", q, k) / 2
    by_hand = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    assert found.shape == (2, 2, 2, 5, 5)
    np.testing.assert_allclose(found[:, 1], by_hand, atol=1e-5)


@pytest.mark.parametrize("name", [None, "probs"])
def test_nothing_is_sown_or_under_another_name(name):
    model, sowing = Own(name), Own()
    variables = build(model)
    np.testing.assert_allclose(traced(model, variables), capture(sowing, X, variables=variables)[1].encoder, atol=1e-6)


def test_everything_else_falls_back_too():
    model, sowing = Own(None), Own()
    variables = build(model)
    for take in (attention_gradients, capture_contributions):
        found, expected = (
            take(each, X, variables=variables, target=lambda x: x[:, 0].sum(-1)) for each in (model, sowing)
        )
        for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(one, other, atol=1e-5)
    own, other = (capture_capacities(each, X, variables=variables)[1].encoder for each in (model, sowing))
    np.testing.assert_allclose(own, other, atol=1e-6)
    own, other = (explain(each, X[:1], "rollout", variables=variables).scores for each in (model, sowing))
    np.testing.assert_allclose(own, other, atol=1e-5)


def test_under_jit():
    model = Deep(block=functools.partial(Block, attention=functools.partial(
        nn.MultiHeadDotProductAttention, attention_fn=jax.nn.dot_product_attention
    )))  # fmt: skip
    variables = build(model)
    _, attention = jax.jit(lambda v, x: capture(model, x, variables=v))(variables, X)
    np.testing.assert_allclose(attention.encoder, capture(Deep(), X, variables=variables)[1].encoder, atol=1e-5)
