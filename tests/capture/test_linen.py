"""Layers come out in the order in which they run, whatever lifts them."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from capture.linen_models import (
    DECLARED,
    HOSTILE,
    UNNATURAL,
    Block,
    Deep,
    Own,
    Scanned,
    X,
    assert_same,
    block_by_hand,
    build,
    by_hand,
    check,
)
from flax.core import freeze

from jaxflow.capture import capture


@pytest.mark.parametrize(
    ("names", "two"), [(("only",), False), (("c", "a", "b"), True), (HOSTILE, False), (UNNATURAL, False)]
)
def test_layers_come_in_the_order_in_which_they_run(names, two):
    model = Deep(names, two=two)
    variables = build(model)
    check(model, by_hand([variables["params"][name] for name in names], two=two), variables)


@pytest.mark.parametrize("lift", [nn.remat, nn.jit])
def test_lifted_layers(lift):
    model = Deep(HOSTILE[:3], block=lift(Block), two=True)
    variables = build(model)
    check(model, by_hand([variables["params"][name] for name in HOSTILE[:3]], two=True), variables)


@pytest.mark.parametrize("lift", [nn.remat, nn.jit])
def test_lifted_attention(lift):
    model = Deep(block=functools.partial(Block, attention=lift(nn.SelfAttention)))
    variables = build(model)
    check(model, by_hand([variables["params"][name] for name in "cab"]), variables)


def test_nn_jit_is_heard_whatever_was_compiled_before():
    model = Deep(block=nn.jit(Block))
    variables = build(model)
    model.apply(variables, X)
    model.apply(variables, X, mutable=["intermediates"])
    check(model, by_hand([variables["params"][name] for name in "cab"]), variables, times=2)


@pytest.mark.parametrize(
    ("n_layers", "two", "axis", "times"),
    [(1, False, 0, 0), (2, True, 0, 1), (2, False, 1, 0), (2, True, 2, 0), (5, True, 4, 0), (12, True, 0, 0)],
)
def test_scan(n_layers, two, axis, times):
    # n_layers is also the batch, the heads or the tokens: an axis must not be guessed by its length.
    model = Scanned(n_layers, two, freeze({"params": 0, "intermediates": axis}))
    variables = build(model)
    layers = [jax.tree.map(lambda p, i=i: p[i], variables["params"]["stack"]) for i in range(n_layers)]
    check(model, by_hand(layers, two=two), variables, times=times)


@pytest.mark.parametrize("lift", [nn.remat, nn.jit])
def test_scan_over_lifted_layers(lift):
    model = Scanned(3, two=True, block=lift(Block))
    variables = build(model)
    layers = [jax.tree.map(lambda p, i=i: p[i], variables["params"]["stack"]) for i in range(3)]
    check(model, by_hand(layers, two=True), variables, times=0)


def test_scan_between_other_layers_and_run_twice():
    class Model(nn.Module):
        def setup(self):
            self.shared, self.scanned = Block(two=True), Scanned(3, two=True)

        def __call__(self, x):
            x, _ = self.shared(x)
            x = self.scanned(self.scanned(x))
            return self.shared(x)[0]

    model = Model()
    variables = build(model)
    shared = variables["params"]["shared"]
    stack = [jax.tree.map(lambda p, i=i: p[i], variables["params"]["scanned"]["stack"]) for i in range(3)]
    check(model, by_hand([shared, *stack, *stack, shared], two=True), variables, times=0)


def test_scan_in_a_scan():
    class Plain(nn.Module):
        @nn.compact
        def __call__(self, x):
            return Block(two=True, name="block")(x)[0]

    class Model(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.remat_scan(Plain, lengths=(2, 3))(name="stack")(x)

    model = Model()
    variables = build(model)
    params = variables["params"]["stack"]["block"]
    layers = [jax.tree.map(lambda p, i=i, j=j: p[i, j], params) for i in range(2) for j in range(3)]
    check(model, by_hand(layers, two=True), variables, times=0)


def test_scan_of_a_function():
    class Model(nn.Module):
        @nn.compact
        def __call__(self, x):
            scan = nn.scan(lambda block, x, _: block(x), DECLARED, split_rngs={"params": True}, length=3)
            return scan(Block(two=True, name="stack"), x, None)[0]

    model = Model()
    variables = build(model)
    layers = [jax.tree.map(lambda p, i=i: p[i], variables["params"]["stack"]) for i in range(3)]
    check(model, by_hand(layers, two=True), variables, times=0)


def test_shared_layer():
    class Albert(nn.Module):
        def setup(self):
            self.first, self.again = Block(), Block(two=True)

        def __call__(self, x):
            for _ in range(3):
                x, _ = self.again(x)
                x, _ = self.first(x)
            return x

    model = Albert()
    variables = build(model)
    x, expected = X, []
    for _ in range(3):
        x, weights = block_by_hand(variables["params"]["again"], x, two=True)
        x, more = block_by_hand(variables["params"]["first"], x)
        expected += weights + more
    check(model, jnp.stack(expected, -4), variables)


def test_cond_is_one_layer():
    class Model(nn.Module):
        @nn.compact
        def __call__(self, x):
            block = Block(name="block")
            return nn.cond(x.sum() > 0, lambda m, x: m(x)[0], lambda m, x: m(-x)[0], block, x)

    model = Model()
    variables = build(model)
    assert X.sum() != 0
    x = X if X.sum() > 0 else -X
    check(model, by_hand([variables["params"]["block"]], x), variables)


@pytest.mark.parametrize("axis", [0, 1])
def test_nn_vmap_is_batch(axis):
    mapped = nn.vmap(Block, variable_axes={"params": None, "intermediates": axis}, split_rngs={"params": False})
    model = Deep(block=mapped)
    variables = build(model)
    check(model, by_hand([variables["params"][name] for name in "cab"]), variables)


def test_nn_vmap_around_attention():
    mapped = nn.vmap(
        nn.MultiHeadDotProductAttention,
        variable_axes={"params": None, "intermediates": 0},
        split_rngs={"params": False},
    )
    model = Deep(block=functools.partial(Block, attention=mapped))
    variables = build(model)
    check(model, by_hand([variables["params"][name] for name in "cab"]), variables)


def test_nn_vmap_with_scan_is_traced():
    """Which axes the two added cannot be told from what is sown."""
    mapped = nn.vmap(Scanned, variable_axes={"params": None, "intermediates": 0}, split_rngs={"params": False})
    variables = build(mapped())
    _, attention = capture(mapped(), X, variables=variables)
    assert attention.backend == "traced"
    _, expected = capture(Scanned(), X, variables={"params": variables["params"]})
    np.testing.assert_allclose(attention.encoder, expected.encoder, atol=1e-6)


@pytest.mark.parametrize("shape", [(5, 8), (2, 5, 8), (3, 1, 2, 5, 8)])
def test_batch_axes(shape):
    x = jax.random.normal(jax.random.key(0), shape)
    for model in (Deep(), Scanned(3), Own()):
        attention = jax.jit(lambda x, model=model: capture(model, x, variables=build(model, x))[1])(x)
        assert attention.encoder.shape == (*shape[:-2], 2 if isinstance(model, Own) else 3, 2, 5, 5)
        np.testing.assert_allclose(attention.encoder.sum(-1), 1, atol=1e-5)


def test_vmap_and_grad_go_through():
    model = Scanned(3, two=True)
    variables = build(model)
    _, batched = capture(model, X, variables=variables)
    looped = jax.vmap(lambda x: capture(model, x, variables=variables)[1])(X)
    np.testing.assert_allclose(looped.encoder, batched.encoder, atol=1e-6)

    def first_row(variables, x):
        return capture(model, x, variables=variables)[1].encoder[..., 0, :, 0].sum()

    by_params, by_x = jax.jit(jax.grad(first_row, (0, 1)))(variables, X)
    assert by_x.shape == X.shape
    assert all(jnp.isfinite(g).all() for g in jax.tree.leaves(by_params))
    x, step = X, 1e-2 * jax.random.normal(jax.random.key(3), X.shape)
    change = (first_row(variables, x + step) - first_row(variables, x - step)) / 2
    np.testing.assert_allclose(change, (by_x * step).sum(), rtol=2e-2)


def test_bfloat16_stays():
    attention = functools.partial(nn.MultiHeadDotProductAttention, dtype=jnp.bfloat16, param_dtype=jnp.bfloat16)

    class Model(nn.Module):
        @nn.compact
        def __call__(self, x):
            for _ in range(2):
                x = attention(num_heads=2)(x)
            return x

    x = X.astype(jnp.bfloat16)
    _, result = capture(Model(), x, variables=build(Model(), x))
    assert result.encoder.dtype == jnp.bfloat16
    np.testing.assert_allclose(result.encoder.astype(jnp.float32).sum(-1), 1, atol=2e-2)


def test_layers_of_two_dtypes_meet_in_float32():
    class Model(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.MultiHeadDotProductAttention(num_heads=2)(x)
            half = nn.MultiHeadDotProductAttention(num_heads=2, dtype=jnp.bfloat16)(x)
            return x + half.astype(jnp.float32)

    _, attention = capture(Model(), X, variables=build(Model()))
    assert attention.encoder.dtype == jnp.float32


def test_active_dropout_comes_after_attention():
    attention = functools.partial(nn.SelfAttention, dropout_rate=0.5, deterministic=False)
    model = Deep(("only",), block=functools.partial(Block, attention=attention))
    variables = model.init({"params": jax.random.key(1), "dropout": jax.random.key(2)}, X)
    rngs = {"dropout": jax.random.key(3)}
    outputs, result = capture(model, X, variables=variables, rngs=rngs)
    assert_same(outputs, model.apply(variables, X, rngs=rngs))
    np.testing.assert_allclose(result.encoder, by_hand([variables["params"]["only"]]), atol=1e-6)


def test_own_softmax_and_other_names():
    model = Own()
    variables = build(model)
    _, attention = capture(model, X, variables=variables)
    assert attention.encoder.shape == (2, 2, 2, 5, 5)
    outputs, renamed = capture(Own("probs"), X, variables=variables, sown="probs")
    assert_same(outputs, model.apply(variables, X))
    np.testing.assert_array_equal(renamed.encoder, attention.encoder)


def test_another_name_leaves_flaxs_attention_alone():
    class Model(nn.Module):
        @nn.compact
        def __call__(self, x):
            return Own("probs")(Block()(x)[0])

    _, attention = capture(Model(), X, variables=build(Model()), sown="probs")
    assert attention.encoder.shape == (2, 2, 2, 5, 5)


def test_custom_attention_fn_that_sows():
    def scaled(query, key, value, mask=None, module=None):
        return nn.dot_product_attention(query * 2.0, key, value, mask=mask, module=module)

    model = Deep(block=functools.partial(Block, attention=functools.partial(nn.SelfAttention, attention_fn=scaled)))
    variables = build(model)
    outputs, attention = capture(model, X, variables=variables)
    assert_same(outputs, model.apply(variables, X))
    assert attention.encoder.shape == (2, 3, 2, 5, 5)
