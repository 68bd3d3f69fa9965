"""Small linen models, and their attention computed from their parts."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.core import freeze

from jaxflow._attention import Attention
from jaxflow.capture import capture

HOSTILE = tuple(f"layer_{i}" for i in range(12))
UNNATURAL = ("layer_3", "omega", "layer_12", "alpha", "layer_0", "B", "layer_2", "b", "layer_10", "_", "A", "x9")
X = jax.random.normal(jax.random.key(0), (2, 5, 8))
DECLARED = {"params": 0, "intermediates": 0}


class Block(nn.Module):
    """One or two attentions, named so that names sort against the order in which they run."""

    two: bool = False
    attention: Any = nn.MultiHeadDotProductAttention

    @nn.compact
    def __call__(self, x, _=None):
        x = x + self.attention(num_heads=2, name="z")(nn.LayerNorm()(x))
        if self.two:
            x = x + self.attention(num_heads=2, name="a")(nn.LayerNorm()(x))
        return x, None


class Deep(nn.Module):
    names: tuple[str, ...] = ("c", "a", "b")
    block: Any = Block
    two: bool = False

    @nn.compact
    def __call__(self, x):
        for name in self.names:
            x, _ = self.block(two=self.two, name=name)(x)
        return x


class Scanned(nn.Module):
    n_layers: int = 4
    two: bool = False
    axes: Any = freeze(DECLARED)
    block: Any = Block

    @nn.compact
    def __call__(self, x):
        scan = nn.scan(self.block, dict(self.axes), split_rngs={"params": True}, length=self.n_layers)
        return scan(two=self.two, name="stack")(x, None)[0]


class Own(nn.Module):
    """Computes its softmax by itself, and sows it under a name of its own, or not at all."""

    sown: str | None = "attention_weights"
    n_layers: int = 2

    @nn.compact
    def __call__(self, x):
        for i in range(self.n_layers):
            q, k = nn.DenseGeneral((2, 4), name=f"q{i}")(x), nn.DenseGeneral((2, 4), name=f"k{i}")(x)
            weights = jax.nn.softmax(jnp.einsum("...qhd,...khd->...hqk", q, k))
            if self.sown:
                self.sow("intermediates", self.sown, weights)
            x = x + jnp.einsum("...hqk,...kd->...qd", weights, x)
        return x


def build(model, x=X):
    return jax.jit(model.init)(jax.random.key(1), x)


def one(attention):
    """The attention of one MultiHeadDotProductAttention by flax's own means, for reference."""
    return lambda variables, x: attention.apply(variables, x, sow_weights=True, mutable=["intermediates"])[1][
        "intermediates"
    ]["attention_weights"][0]


def block_by_hand(params, x, two=False):
    """Block from its parts: (x, [attention, ...])."""
    attention, weights = nn.MultiHeadDotProductAttention(num_heads=2), []
    for norm, name in [("LayerNorm_0", "z"), ("LayerNorm_1", "a")][: 1 + two]:
        h = nn.LayerNorm().apply({"params": params[norm]}, x)
        weights.append(one(attention)({"params": params[name]}, h))
        x = x + attention.apply({"params": params[name]}, h)
    return x, weights


def by_hand(layers, x=X, two=False):
    """[*batch, layer, head, q, k] of blocks with these parameters."""
    weights = []
    for params in layers:
        x, more = block_by_hand(params, x, two)
        weights += more
    return jnp.stack(weights, -4)


def assert_same(got, expected):
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, got, expected)


def check(model, expected, variables, x=X, *, times=1):
    """Outputs are those of the plain call and attention is as expected, that many times over, and under jit."""
    if times:
        plain = model.apply(variables, x)
    for _ in range(times):
        outputs, attention = capture(model, x, variables=variables)
        assert_same(outputs, plain)
        assert isinstance(attention, Attention)
        assert attention.decoder is None
        assert attention.cross is None
        np.testing.assert_allclose(attention.encoder, expected, atol=1e-6)
    plain, (outputs, attention) = jax.jit(
        lambda v, x: (model.apply(v, x), capture(model, x, variables=v)),
    )(variables, x)
    np.testing.assert_allclose(outputs, plain, atol=1e-6)
    np.testing.assert_allclose(attention.encoder, expected, atol=1e-6)
    apart = jnp.abs(jnp.diff(expected, axis=-4)).max((-1, -2, -3))
    assert apart.size == 0 or apart.min() > 1e-3, "layers too alike to show their order"
