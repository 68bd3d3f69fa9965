"""Gradients by attention of functions and NNX modules: against models that add to their weights, and finite differences."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from capture import test_nnx, test_traced
from capture.test_traced import MODELS, WRITTEN, P, X, exponential, grouped
from capture.traced_models import B, D, F, H, T, attend, encoder, layers, norm, parameters, softmax, tokens
from flax import nnx
from flax.nnx.nn import attention as nnx_attention

from jaxflow import attention_gradients, capture

WEIGHTS = jnp.asarray(np.random.default_rng(5).normal(size=(T, D)), jnp.float32)
FOUR = jax.tree.map(lambda leaf: leaf * 0.5, parameters(4))


def target(outputs):
    return jnp.tanh(jnp.einsum("...td,td->...", outputs.astype(jnp.float32), WEIGHTS) / 10)


def by_hand(params, x, weigh=softmax, heads=H):
    """The same model, its weights plus zeros that are differentiated by: what a gradient by weights is, by definition."""

    def value(added):
        y = x
        for p, more in zip(layers(params), added, strict=True):
            y = y + attend(p, norm(y), weigh=lambda z, more=more: weigh(z) + more)
        return target(y).sum()

    return jnp.moveaxis(jax.grad(value)(jnp.zeros((len(layers(params)), B, heads, T, T))), 0, 1)


def check(model, expected, *args, target=target):
    plain, captured = capture(model, *args)
    outputs, attention, gradients = attention_gradients(model, *args, target=target)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), outputs, plain)
    np.testing.assert_allclose(attention.encoder, captured.encoder, atol=1e-6)
    assert gradients.backend == captured.backend
    scale = np.abs(expected).max()
    np.testing.assert_allclose(gradients.encoder / scale, expected / scale, atol=2e-5)


@pytest.mark.parametrize(
    "name",
    [
        "jax.nn.softmax",
        "inverse",
        "log_softmax",
        "sink in the logits",
        "sink in the sum",
        "heads mixed before",
        "where after",
    ],
)
def test_ways_to_write_a_softmax(name):
    model = functools.partial(encoder, attend=functools.partial(attend, weigh=WRITTEN[name]))
    check(model, by_hand(P, X, WRITTEN[name]), P, X)


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_forms_of_one_model(model):
    check(model, by_hand(P, X), P, X)


@pytest.mark.parametrize(
    "model",
    [test_traced.backwards, test_traced.nested, jax.checkpoint(encoder)],
    ids=["backwards", "nested", "checkpoint"],
)
def test_loops_and_calls(model):
    check(model, by_hand(FOUR, X), FOUR, X)


def test_axes_come_from_the_products():
    params = parameters(q=(D, 2, 3, F), k=(D, 2, F), v=(D, 2, F), o=(2, 3, F, D))
    single = {
        n: jnp.repeat(leaf, 3, 2) if n in "kv" else leaf.reshape(2, D, 6, F) if n == "q" else leaf.reshape(2, 6, F, D)
        for n, leaf in params.items()
    }

    expected = by_hand(single, X, lambda z: softmax(z * 2), heads=6)  # logits are not halved there
    check(functools.partial(grouped, "stkgb"), expected, params, X)


def test_finite_differences():
    """Of a function whose weights never are an array: the sum that it divides by comes after the product."""

    def model(params, x, shift=None, at=(0, 0, 0, 0, 0)):
        for i, p in enumerate(layers(params)):
            q, k, v = (jnp.einsum("btd,dhf->bthf", norm(x), p[n]) for n in "qkv")
            e = exponential(jnp.einsum("bthf,bshf->bhts", q, k) / 2)
            o = jnp.einsum("bhts,bshf->bhtf", e, v) / e.sum(-1, keepdims=True)
            if shift is not None and i == at[0]:
                b, h, t, s = at[1:]
                o = o.at[b, h, t].add(shift * v[b, s, h])
            x = x + jnp.einsum("bhtf,hfd->btd", o, p["o"])
        return x

    gradients = attention_gradients(lambda p, x: model(p, x), P, X, target=target)[2].encoder
    step = 1e-2
    for at in [(0, 0, 1, 2, 3), (1, 1, 0, 4, 0), (1, 0, 1, 0, 2)]:
        difference = (target(model(P, X, step, at)) - target(model(P, X, -step, at))).sum() / (2 * step)
        np.testing.assert_allclose(gradients[at[1], at[0], *at[2:]], difference, rtol=2e-2, atol=2e-4)


@pytest.mark.parametrize("after", [False, True], ids=["before the product", "after it"])
def test_dropout(after):
    keep = jax.random.bernoulli(jax.random.key(3), 0.7, (B, H, T, T))

    def weigh(z, more=0.0):
        return jnp.where(jax.random.bernoulli(jax.random.key(3), 0.7, z.shape), (softmax(z) + more) / 0.7, 0.0)

    def divided_after(params, x):
        for p in layers(params):
            q, k, v = (jnp.einsum("btd,dhf->bthf", norm(x), p[n]) for n in "qkv")
            e = exponential(jnp.einsum("bthf,bshf->bhts", q, k) / 2)
            dropped = jnp.where(jax.random.bernoulli(jax.random.key(3), 0.7, e.shape), e / 0.7, 0.0)
            o = jnp.einsum("bhts,bshf->bhtf", dropped, v) / e.sum(-1, keepdims=True)
            x = x + jnp.einsum("bhtf,hfd->btd", o, p["o"])
        return x

    if after:
        with pytest.raises(ValueError, match=r"dropout before the division.*Switch dropout off"):
            attention_gradients(divided_after, P, X, target=target)
        return

    def run(added):
        x = X
        for p, more in zip(layers(P), added, strict=True):
            x = x + attend(p, norm(x), weigh=functools.partial(weigh, more=more))
        return target(x).sum()

    expected = jnp.moveaxis(jax.grad(run)(jnp.zeros((2, B, H, T, T))), 0, 1)
    assert not expected[:, 1][~keep].any()
    check(functools.partial(encoder, attend=functools.partial(attend, weigh=weigh)), expected, P, X)


def reused(params, x, added=(0.0, 0.0)):
    """The weights of one layer, used in two."""
    first = layers(params)[0]
    q, k = (jnp.einsum("btd,dhf->bthf", norm(x), first[n]) for n in "qk")
    w = softmax(jnp.einsum("bthf,bshf->bhts", q, k))
    for p, more in zip(layers(params), added, strict=True):
        x = x + jnp.einsum("bhts,bshf,hfd->btd", w + more, jnp.einsum("btd,dhf->bthf", norm(x), p["v"]), p["o"])
    return x


def relative(params, table, x, added=(0.0, 0.0), divide_after=False):
    """The same weights for content and for position."""
    for p, more in zip(layers(params), added, strict=True):
        q, k, v = (jnp.einsum("btd,dhf->bthf", norm(x), p[n]) for n in "qkv")
        e = exponential(jnp.einsum("bthf,bshf->bhts", q, k))
        total = e.sum(-1, keepdims=True)
        w = e / total if not divide_after else e
        w = w if isinstance(more, float) else w + more * (total if divide_after else 1.0)
        o = jnp.einsum("bhts,bshf->bhtf", w, v), jnp.einsum("bhts,bsf->bhtf", w, x @ table)
        o = o[0] / total + o[1] / total if divide_after else o[0] + o[1]
        x = x + jnp.einsum("bhtf,hfd->btd", o, p["o"])
    return x


@pytest.mark.parametrize("divide_after", [False, True])
def test_weights_that_are_used_more_than_once(divide_after):
    zeros = jnp.zeros((2, B, H, T, T))
    if not divide_after:
        expected = jax.grad(lambda added: target(reused(P, X, added)).sum())(zeros)
        check(reused, jnp.moveaxis(expected, 0, 1), P, X)
    table = tokens(D, F)
    model = functools.partial(relative, divide_after=divide_after)
    expected = jax.grad(lambda added: target(model(P, table, X, added)).sum())(zeros)
    check(lambda p, table, x: model(p, table, x), jnp.moveaxis(expected, 0, 1), P, table, X)


def test_weights_that_go_elsewhere_too():
    def model(params, x, returns=True):
        p = layers(params)[0]
        q, k, v = (jnp.einsum("btd,dhf->bthf", norm(x), p[n]) for n in "qkv")
        e = exponential(jnp.einsum("bthf,bshf->bhts", q, k))
        o = jnp.einsum("bhts,bshf->bhtf", e, v) / e.sum(-1, keepdims=True)
        return jnp.einsum("bhtf,hfd->btd", o, p["o"]) + jnp.tanh(e).sum()

    with pytest.raises(ValueError, match=r"never are an array of their own.*go elsewhere too \(tanh\)"):
        attention_gradients(model, P, X, target=target)


@pytest.mark.parametrize("sow", [None, True, [True, None, True]], ids=["traced", "sown", "one is not sown"])
def test_nnx_modules(sow):
    """Against the same module, written as a function of what is added to its weights."""
    model = test_nnx.Deep(3, sow)

    def run(added):
        x = test_nnx.X
        for name, more in zip(model.names, added, strict=True):
            block = nnx.clone(getattr(model, name))
            heads = block.attention
            y = block.norm(x)
            query, key, value = heads.query(y), heads.key(y), heads.value(y)
            weights = nnx_attention.dot_product_attention_weights(query, key, deterministic=True)
            x = x + heads.out(jnp.einsum("bhqk,bkhf->bqhf", weights + more, value))
        return target(nnx.clone(model).dropout(x)).sum()

    expected = jnp.moveaxis(jax.grad(run)(jnp.zeros((3, 2, test_nnx.H, 5, 5))), 0, 1)
    check(model, expected, test_nnx.X)


@pytest.mark.parametrize("sow", [None, True])
def test_scanned_nnx_modules(sow):
    model, deep = test_nnx.Scanned(3, sow), test_nnx.Deep(3)
    deep.dropout = nnx.Dropout(0.0)
    for i, name in enumerate(deep.names):
        nnx.update(getattr(deep, name), jax.tree.map(lambda leaf, i=i: leaf[i], nnx.state(model.blocks, nnx.Param)))
    expected = attention_gradients(deep, test_nnx.X, target=target)[2].encoder
    check(model, expected, test_nnx.X)


class BackwardsNNX(test_nnx.Scanned):
    def __call__(self, x):
        @nnx.scan(in_axes=(0, nnx.Carry), out_axes=nnx.Carry, reverse=True)
        def run(block, x):
            return block(x)

        return run(self.blocks, x)


def test_backwards_scanned_nnx_modules():
    """What is sown is stacked as the scan stacks it, what is traced as it ran."""
    sown, traced = (attention_gradients(BackwardsNNX(3, sow), test_nnx.X, target=target)[1:] for sow in (True, None))
    for got, expected in zip(sown, traced, strict=True):
        np.testing.assert_allclose(got.encoder, expected.encoder[:, ::-1], rtol=1e-4, atol=1e-6)
    assert np.abs(np.diff(traced[1].encoder, axis=1)).max() > 1e-3


class SowsACopy(test_nnx.Own):
    def __call__(self, x):
        for projection, cell in zip(self.projections, self.cells, strict=True):
            query, key = jnp.moveaxis(projection(x), -3, 0)
            weights = jax.nn.softmax(jnp.einsum("bthf,bshf->bhts", query, key))
            cell.sow(nnx.Intermediate, "attention_weights", weights * 1.0)
            x = x + jnp.einsum("bhts,bsd->btd", weights, x)
        return x


def test_nnx_modules_that_sow_a_copy():
    with pytest.raises(ValueError, match="sows a copy of its attention"):
        attention_gradients(SowsACopy(), test_nnx.X, target=target)
    np.testing.assert_allclose(  # sown, and found in the trace
        attention_gradients(test_nnx.Own(), test_nnx.X, target=target)[2].encoder,
        attention_gradients(test_nnx.Own(sown="w"), test_nnx.X, target=target)[2].encoder,
        atol=1e-6,
    )


def test_under_jit_and_vmap():
    expected = by_hand(P, X)
    jitted = jax.jit(lambda p, x: attention_gradients(test_traced.scanned, p, x, target=target)[2].encoder)(P, X)
    np.testing.assert_allclose(jitted, expected, atol=1e-5)
    mapped = jax.vmap(lambda x: attention_gradients(test_traced.unbatched, P, x, target=target)[2].encoder)(X)
    np.testing.assert_allclose(mapped, expected, atol=1e-5)


def test_the_type_is_that_of_the_attention(standard_promotion):
    params, x = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), (P, X))
    model = functools.partial(encoder, attend=functools.partial(attend, weigh=jax.nn.softmax))
    _, attention, gradients = attention_gradients(model, params, x, target=target)
    assert gradients.encoder.dtype == attention.encoder.dtype
