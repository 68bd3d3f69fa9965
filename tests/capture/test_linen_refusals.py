"""What cannot be captured from a linen module, by its message."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from capture.linen_models import (
    Block,
    Deep,
    Own,
    Scanned,
    X,
    build,
)
from flax import nnx
from flax.core import freeze

from jaxflow.capture import capture


class Stack(nn.Module):
    """One attention per function; None stands for flax's own."""

    functions: tuple
    attention: Any = nn.MultiHeadDotProductAttention

    @nn.compact
    def __call__(self, x):
        for i, function in enumerate(self.functions):
            x = x + self.attention(num_heads=2, attention_fn=function or nn.dot_product_attention, name=f"at{i}")(x)
        return x


def dumb(query, key, value, module=None):
    return value


@pytest.mark.parametrize("attention", [nn.MultiHeadDotProductAttention, nn.SelfAttention, nn.remat(nn.SelfAttention)])
@pytest.mark.parametrize(
    ("functions", "message"),
    [
        ((jax.nn.dot_product_attention,) * 2, r"2 of 2 attention modules of Stack gave no.*\n.*at0: .*is fused"),
        ((None, jax.nn.dot_product_attention, None), r"1 of 3 .*\n *at1: attention_fn=dot_product_attention is fused"),
        ((None, lambda q, k, v, **_: v), r"<lambda> is fused: .*attention_fn=nn.dot_product_attention for the capture"),
        ((None, dumb), r"1 of 2 .*\n *at1: .*attention_fn=dumb sows no weights. Sow them where"),
    ],
)
def test_fused_attention(functions, message, attention):
    model = Stack(functions, attention)
    variables = build(model)
    model.apply(variables, X)
    with pytest.raises(ValueError, match=message):
        capture(model, X, variables=variables)


def test_overridden_attention_that_sows_nothing():
    class Silent(nn.MultiHeadDotProductAttention):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(x.shape[-1])(x)

    model = Deep(block=functools.partial(Block, attention=Silent))
    with pytest.raises(ValueError, match=r"3 of 3 (.|\n)*c/z: Silent .*sows no weights"):
        capture(model, X, variables=build(model))


def test_undeclared_scan():
    model = Scanned(axes=freeze({"params": 0}))
    variables = build(model)
    declare = r'scan\(stack\)/z.*keeps .intermediates. to itself. Declare variable_axes=\{"intermediates": 0\}'
    with pytest.raises(ValueError, match="1 of 1 attention modules of Scanned.*\n.*" + declare):
        capture(model, X, variables=variables)

    class Partial(nn.Module):
        @nn.compact
        def __call__(self, x):
            x, _ = Block()(x)
            return Scanned(axes=freeze({"params": 0}))(x)

    with pytest.raises(ValueError, match="1 of 2 attention modules of Partial.*\n.*" + declare):
        capture(Partial(), X, variables=build(Partial()))


def test_undeclared_scan_over_modules_that_sow_by_themselves():
    class Carry(nn.Module):
        @nn.compact
        def __call__(self, x, _):
            return Own()(x), None

    class Model(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.scan(Carry, {"params": 0}, split_rngs={"params": True}, length=2)()(Own()(x), None)[0]

    with pytest.raises(ValueError, match=r"1 of 2 .*\n.*Declare variable_axes"):
        capture(Model(), X, variables=build(Model()))


def test_nothing_sown():
    model = Own(None)
    with pytest.raises(ValueError, match=r"No attention was found in Own.*\(sown was: nothing\)") as error:
        capture(model, X, variables=build(model))
    for cause in ("sown=name", "own softmax", "fused", 'variable_axes={"intermediates": 0}', "Attention(encoder=...)"):
        assert cause in str(error.value)


def test_sown_under_another_name():
    model = Own("probs")
    variables = build(model)
    with pytest.raises(ValueError, match=r"nothing was sown as 'attention_weights' \(sown was: 'probs'\)"):
        capture(model, X, variables=variables)
    with pytest.raises(ValueError, match=r"nothing was sown as 'prob' \(sown was: 'probs'\)"):
        capture(model, X, variables=variables, sown="prob")


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
    ],
    ids=["class", "nnx class", "text", "array"],
)
def test_not_a_model(model, message):
    with pytest.raises(TypeError, match=message) as error:
        capture(model, X)
    assert "transformers 4" in str(error.value)
    assert "Attention(encoder=array)" in str(error.value)
