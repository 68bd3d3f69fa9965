"""Capture from NNX modules: sown or traced, in order, and with nothing left behind."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxflow.capture import capture

D, H = 8, 2
X = jax.random.normal(jax.random.key(0), (2, 5, D))


class Block(nnx.Module):
    """`sow`: whether the call asks for it; None passes nothing."""

    def __init__(self, rngs, sow=None):
        self.attention = nnx.MultiHeadAttention(num_heads=H, in_features=D, decode=False, rngs=rngs)
        self.norm = nnx.LayerNorm(D, rngs=rngs)
        self.sows = sow

    def __call__(self, x):
        asked = {} if self.sows is None else {"sow_weights": self.sows}
        return x + self.attention(self.norm(x), deterministic=True, **asked)


class Deep(nnx.Module):
    """Layers whose names sort against their order; counts its calls, and drops out."""

    def __init__(self, n_layers, sow=None):
        rngs = nnx.Rngs(0)
        self.names = [f"layer_{n_layers - i}" for i in range(n_layers)]
        for i, name in enumerate(self.names):
            setattr(self, name, Block(rngs, sow[i] if isinstance(sow, list) else sow))
        self.dropout = nnx.Dropout(0.1, rngs=rngs)
        self.calls = nnx.Variable(jnp.array(0))

    def __call__(self, x):
        self.calls[...] = self.calls[...] + 1
        for name in self.names:
            x = getattr(self, name)(x)
        return self.dropout(x)


class Scanned(nnx.Module):
    def __init__(self, n_layers, sow=None):
        @nnx.split_rngs(splits=n_layers)
        @nnx.vmap(in_axes=0)
        def build(rngs):
            return Block(rngs, sow)

        self.blocks = build(nnx.Rngs(0))

    def __call__(self, x):
        @nnx.scan(in_axes=(0, nnx.Carry), out_axes=nnx.Carry)
        def run(block, x):
            return nnx.remat(lambda block, x: block(x))(block, x)

        return run(self.blocks, x)


class Own(nnx.Module):
    """Computes its softmax by itself, and sows it under a name of its own."""

    def __init__(self, n_layers=2, sown="attention_weights", order=None):
        rngs = nnx.Rngs(0)
        self.projections = nnx.List([nnx.LinearGeneral(D, (2, H, 4), rngs=rngs) for _ in range(n_layers)])
        self.sown = sown
        self.cells = nnx.List([nnx.Module() for _ in range(n_layers)])

    def __call__(self, x):
        for projection, cell in zip(self.projections, self.cells, strict=True):
            query, key = jnp.moveaxis(projection(x), -3, 0)
            weights = jax.nn.softmax(jnp.einsum("bthf,bshf->bhts", query, key))
            cell.sow(nnx.Intermediate, self.sown, weights)
            x = x + jnp.einsum("bhts,bsd->btd", weights, x)
        return x


def by_hand(model, x):
    """By NNX's own means, block by block."""
    weights = []
    for name in model.names:
        block = nnx.clone(getattr(model, name))
        block.attention(block.norm(x), deterministic=True, sow_weights=True)
        weights.append(nnx.pop(block, nnx.Intermediate)["attention"]["attention_weights"].get_value()[0])
        x = block(x)
    return jnp.stack(weights, 1)


def arrays(model):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(nnx.state(model, nnx.Not(nnx.RngState)))]


@pytest.mark.parametrize(
    ("sow", "backend"),
    [(None, "traced"), (True, "nnx"), (False, "traced"), ([True] * 11 + [None], "traced")],
    ids=["not passed", "sown", "refused", "one is not sown"],
)
def test_layers_in_order_and_module_untouched(sow, backend):
    model = Deep(12, sow)
    before, expected = arrays(model), by_hand(Deep(12), X)
    outputs, attention = capture(model, X)
    assert attention.backend == backend
    np.testing.assert_allclose(attention.encoder, expected, atol=1e-6)
    assert np.abs(np.diff(expected, axis=1)).max((0, 2, 3, 4)).min() > 1e-3
    jax.tree.map(np.testing.assert_array_equal, arrays(model), before)
    assert not jax.tree.leaves(nnx.state(model, nnx.Intermediate))
    np.testing.assert_allclose(outputs, model(X), atol=1e-5)  # the same random numbers: the copy drew them


@pytest.mark.parametrize("sow", [None, True])
def test_jit_through_split_and_merge(sow):
    model = Deep(3, sow)
    structure, state = nnx.split(model)
    _, attention = jax.jit(lambda state, x: capture(nnx.merge(structure, state), x))(state, X)
    np.testing.assert_allclose(attention.encoder, by_hand(Deep(3), X), atol=1e-6)
    assert attention.backend == ("nnx" if sow else "traced")
    gradient = jax.grad(
        lambda state: capture(nnx.merge(structure, state), X)[1].encoder[:, -1, :, 0, 1].sum(), allow_int=True
    )
    kernel = gradient(state)["layer_3"]["attention"]["query"]["kernel"].get_value()
    assert np.abs(kernel).max() > 0


@pytest.mark.parametrize("sow", [None, True])
def test_scan_and_remat(sow):
    model, deep = Scanned(3, sow), Deep(3)
    for i, name in enumerate(deep.names):
        state = jax.tree.map(lambda leaf, i=i: leaf[i], nnx.state(model.blocks, nnx.Param))
        nnx.update(getattr(deep, name), state)
    _, attention = capture(model, X)
    assert attention.backend == ("nnx" if sow else "traced")
    np.testing.assert_allclose(attention.encoder, by_hand(deep, X), atol=1e-6)


def test_intermediates_of_ones_own():
    model = Own(12)
    _, sown = capture(model, X)
    _, traced = capture(lambda x: nnx.clone(model)(x), X)
    assert (sown.backend, traced.backend) == ("nnx", "traced")
    assert sown.encoder.shape == (2, 12, H, 5, 5)
    np.testing.assert_allclose(sown.encoder, traced.encoder, atol=1e-6)
    _, other = capture(Own(2, sown="w"), X, sown="w")
    assert other.backend == "nnx"
    _, other = capture(Own(2, sown="w"), X)
    assert other.backend == "traced"


def test_old_intermediates_are_not_taken_for_new_ones():
    model = Deep(2, True)
    model(X)
    _, attention = capture(model, X)
    assert attention.encoder.shape == (2, 2, H, 5, 5)
    assert len(jax.tree.leaves(nnx.state(model, nnx.Intermediate))) == 2


def test_a_method():
    model = Deep(2)
    _, attention = capture(model.__call__, X)
    np.testing.assert_array_equal(attention.encoder, capture(model, X)[1].encoder)
    assert int(model.calls[...]) == 0


class Partly(nnx.Module):
    def __init__(self):
        self.block = Block(nnx.Rngs(0), True)

    def __call__(self, x):
        return jax.lax.while_loop(lambda c: c[0] < 2, lambda c: (c[0] + 1, attend(c[1])), (0, self.block(x)))[1]


def attend(x):
    y = jnp.tanh(x @ jnp.ones((D, D)))
    return jax.nn.softmax(jnp.einsum("btd,bsd->bts", y, y)) @ x


def test_refusals():
    with pytest.raises(
        ValueError, match=r"Partly sows 1 weights as 'attention_weights', and computes more(.|\n)*while loop"
    ):
        capture(Partly(), X)
    with pytest.raises(ValueError, match=r"No attention was found in Linear"):
        capture(nnx.Linear(D, D, rngs=nnx.Rngs(0)), X)
    with pytest.raises(ValueError, match=r"variables= is for linen modules; got Deep"):
        capture(Deep(1), X, variables={})
    with pytest.raises(ValueError, match=r"sowed an array of shape \(5,\); expected attention"):
        capture(Flat(), X)


class Flat(nnx.Module):
    def __call__(self, x):
        self.sow(nnx.Intermediate, "attention_weights", x[0, :, 0])
        return x


def test_roles_by_the_path():
    class Model(nnx.Module):
        def __init__(self):
            self.decoder = Block(nnx.Rngs(0), True)

        def __call__(self, x):
            return self.decoder(x)

    _, attention = capture(Model(), X)
    assert attention.encoder is None
    assert attention.decoder.shape == (2, 1, H, 5, 5)
    _, attention = capture(Model(), X, roles={"decoder": "encoder"})
    assert attention.decoder is None
