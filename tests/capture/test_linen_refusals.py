"""What cannot be captured from a linen module, by its message."""

import functools
import re
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from capture.linen_models import (
    Block,
    Deep,
    Own,
    X,
    build,
)
from flax import nnx
from jax.experimental import pallas

from jaxflow.capture import capture


class Transformed(NamedTuple):
    """What haiku makes of a function."""

    init: Any
    apply: Any


class Kernel(nn.Module):
    """One attention per function; None stands for flax's own."""

    functions: tuple

    @nn.compact
    def __call__(self, x):
        for i, function in enumerate(self.functions):
            attention_fn = function or nn.dot_product_attention
            x = x + nn.MultiHeadDotProductAttention(num_heads=2, attention_fn=attention_fn, name=f"at{i}")(x)
        return x


def fused(query, key, value, **_):
    def flash_attention(query, key, value, out):
        out[...] = value[...]

    shape = jax.ShapeDtypeStruct(query.shape, query.dtype)
    return pallas.pallas_call(flash_attention, out_shape=shape, interpret=True)(query, key, value)


@pytest.mark.parametrize("functions", [(fused,), (None, fused), (fused, None, fused)])
def test_fused_attention(functions):
    """Neither way leads to it: both are told."""
    model = Kernel(functions)
    with pytest.raises(ValueError, match=r"cannot be taken(.|\n)*fused attention, whose weights") as error:
        capture(model, X, variables=build(model))
    assert re.search(r"did not hand over all attention: \d of \d (.|\n)*fused is fused", str(error.value))


def test_overridden_attention_that_sows_nothing():
    class Silent(nn.MultiHeadDotProductAttention):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(x.shape[-1])(x)

    model = Deep(block=functools.partial(Block, attention=Silent))
    with pytest.raises(ValueError, match=r"3 of 3 (.|\n)*c/z: Silent .*sows no weights"):
        capture(model, X, variables=build(model))


def test_sown_under_a_name_that_is_asked_for():
    """Who gives a name means what is sown under it, and nothing else."""
    model = Own("probs")
    with pytest.raises(ValueError, match=r"nothing was sown as 'prob' \(sown was: 'probs'\)"):
        capture(model, X, variables=build(model), sown="prob")


def test_no_attention_at_all():
    model = nn.Dense(4)
    with pytest.raises(ValueError, match=r"No attention was found in Dense: nowhere(.|\n)*\(sown was: nothing\)"):
        capture(model, X, variables=model.init(jax.random.key(0), X))


@pytest.mark.parametrize(("value", "got"), [(jnp.ones((5, 5)), r"\(5, 5\)"), ((X, X), "tuple")])
def test_sown_is_no_attention(value, got):
    class Model(nn.Module):
        @nn.compact
        def __call__(self, x):
            self.sow("intermediates", "attention_weights", value)
            return x

    with pytest.raises(ValueError, match=rf"of shape {got}; expected attention probabilities"):
        capture(Model(), X, variables={})


def test_layers_of_different_shape():
    class Pools(nn.Module):
        @nn.compact
        def __call__(self, x):
            x, _ = Block(name="whole")(x)
            return Block(name="pooled")(x[..., ::2, :])[0]

    with pytest.raises(ValueError, match=r"differs in shape(.|\n)*whole/z: \[2, 2, 5, 5\]\n *pooled/z: \[2, 2, 3, 3\]"):
        capture(Pools(), X, variables=build(Pools()))


def test_keys_may_be_another_array_than_queries_throughout():
    class Positional(nn.Module):
        @nn.compact
        def __call__(self, x):
            for _ in range(2):
                x = nn.MultiHeadDotProductAttention(num_heads=2)(x + 1.0, x + 1.0, x)
            return x

    assert capture(Positional(), X, variables=build(Positional()))[1].encoder.shape == (2, 2, 2, 5, 5)


def test_variables_missing_or_twice():
    model = Deep()
    variables = build(model)
    with pytest.raises(ValueError, match=r"Deep is an unbound linen module.*variables=variables"):
        capture(model, X)
    with pytest.raises(ValueError, match=r"Deep is bound and holds its own variables"):
        capture(model.bind(variables), X, variables=variables)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Deep, r"got the class Deep; expected an instance"),
        (nnx.Linear, r"got the class Linear; expected an instance"),
        ("bert", r"got the text 'bert'; load the model first"),
        (X, r"got ArrayImpl"),
        (
            Transformed(None, lambda params, rng, x: x),
            r"got Transformed, which cannot be called, but has a function apply: pass model.apply",
        ),
    ],
    ids=["class", "nnx class", "text", "array", "a pair of functions"],
)
def test_not_a_model(model, message):
    with pytest.raises(TypeError, match=message) as error:
        capture(model, X)
    assert "transformers 4" in str(error.value)
    assert "Attention(encoder=array)" in str(error.value)
