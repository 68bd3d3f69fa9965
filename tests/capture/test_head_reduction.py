"""Heads reduced where they are sown: the capacities of capture and joint_capacities, without holding all heads."""

import functools
import gc

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from capture.linen_models import HOSTILE, Block, Deep, Own, Scanned, X, assert_same, build
from flax.core import freeze

from jaxflow import capture, joint_capacities
from jaxflow.capture._ordering import layer_numbers
from jaxflow.models import LayerPlace
from jaxflow.network import capture_capacities

RNG = np.random.default_rng(0)


def head_weights(attention):
    stacks = [stack for stack in jax.tree.leaves(attention) if stack is not None]
    return RNG.random(stacks[0].shape[-4:-2], np.float32)


def check(run, *, exact=True, heads=("mean",), **masks):
    """What `run(capture_capacities)` gives is what `run(capture)` and joint_capacities give."""
    plain, attention = run(capture)
    for each in heads:
        options = {"heads": head_weights(attention) if each == "weights" else each, "residual": 0.3, **masks}
        expected = joint_capacities(attention, **options)
        outputs, got = run(functools.partial(capture_capacities, **options))
        assert_same(outputs, plain)
        assert jax.tree.structure(got) == jax.tree.structure(expected)
        for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
            assert one.dtype == other.dtype
            np.testing.assert_allclose(one, other, rtol=0, atol=0 if exact else 3e-7)


class Between(nn.Module):
    """A layer around a scan of two attentions each, which runs twice."""

    @nn.compact
    def __call__(self, x):
        shared, scanned = Block(name="shared"), Scanned(2, two=True, name="scanned")
        x, _ = shared(x)
        return shared(scanned(scanned(x)))[0]


class Nested(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.remat_scan(functools.partial(Deep, ("b", "a")), lengths=(2, 2))(name="stack")(x)


MAPPED = nn.vmap(Block, variable_axes={"params": None, "intermediates": 1}, split_rngs={"params": False})
LINEN = {
    "layers": (Deep(("b", "a"), two=True), True, ("mean", "max", 1, "weights")),
    "many layers": (Deep(HOSTILE[:11]), True, ("weights",)),
    "jit": (Deep(("b", "a"), block=nn.jit(Block)), False, ("weights",)),
    "vmap": (Deep(("b", "a"), block=MAPPED), False, ("weights",)),
    "own softmax": (Own(), True, ("mean", "max", 1, "weights")),
    "scan": (Scanned(4), False, ("mean", 1)),
    "scan of two, on another axis": (Scanned(2, True, freeze({"params": 0, "intermediates": 2})), False, ("weights",)),
    "scan between layers": (Between(), False, ("weights",)),
    "remat and scan in a scan": (Nested(), False, ("mean",)),
}


@pytest.mark.parametrize(("model", "exact", "heads"), LINEN.values(), ids=LINEN)
def test_linen(model, exact, heads):
    variables = build(model)
    check(lambda run: run(model, X, variables=variables), exact=exact, heads=heads)


def test_under_jit_vmap_and_grad():
    model = Scanned(2, two=True)
    variables = build(model)
    heads = RNG.random((4, 2), np.float32)

    def loss(x, heads, stream):
        if stream:
            _, capacities = capture_capacities(model, x, variables=variables, heads=heads)
        else:
            capacities = joint_capacities(capture(model, x, variables=variables)[1], heads=heads)
        return (capacities.encoder**2).sum()

    each = jax.vmap(jax.value_and_grad(loss, argnums=(0, 1)), in_axes=(0, None, None))
    got, expected = (jax.jit(each, static_argnums=2)(X, heads, stream) for stream in (True, False))
    for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        assert np.abs(other).max() > 1e-3
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_arguments_of_capture():
    model = Own(sown="mine")
    variables = build(model)
    check(lambda run: run(model, X, variables=variables, sown="mine", mutable=["intermediates"]))
    check(lambda run: run(model, X, variables=variables, sown="mine", roles={"": "encoder"}))
    bound = Deep().bind(build(Deep()))
    check(lambda run: run(bound, X), heads=("max", "weights"))


def test_masks():
    mask = np.array([[1, 1, 1, 1, 0], [0, 1, 1, 1, 1]], bool)
    model = Deep()
    variables = build(model)
    check(lambda run: run(model, X, variables=variables), encoder_mask=mask)


def test_bfloat16_is_reduced_in_float32():
    model = Own()
    variables = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), build(model))
    check(lambda run: run(model, X.astype(jnp.bfloat16), variables=variables))


def test_one_layers_heads_are_held_at_a_time():
    seen = []

    class Counting(nn.Module):
        """Counts, in each layer, how many arrays with heads are there."""

        @nn.compact
        def __call__(self, x):
            for i in range(6):
                query, key = nn.DenseGeneral((7, 4), name=f"q{i}")(x), nn.DenseGeneral((7, 4), name=f"k{i}")(x)
                weights = jax.nn.softmax(jnp.einsum("bqhd,bkhd->bhqk", query, key))
                self.sow("intermediates", "attention_weights", weights)
                x = x + jnp.einsum("bhqk,bkd->bqd", weights, x)
                seen.append(sum(array.shape == (2, 7, 5, 5) for array in jax.live_arrays()))
            return x

    variables = Counting().init(jax.random.key(0), X)
    counts = []
    for run in (capture, capture_capacities):
        seen.clear()
        gc.collect()
        run(Counting(), X, variables=variables)
        counts.append([number - seen[-6] for number in seen[-6:]])  # it is traced first, which holds nothing
    assert counts == [[0, 1, 2, 3, 4, 5], [0] * 6]


def test_numbers_of_layers():
    """Two attentions in a scan of 3 steps in a scan of 2, between two layers."""
    inner = [(LayerPlace((name,), 0, (7, 8), 0), (2, 3)) for name in "ba"]
    layers = [(LayerPlace(("z",), 0, (), 0), ()), *inner, (LayerPlace(("z",), 1, (), 0), ())]
    numbers = layer_numbers(layers)
    assert numbers[("z",), 0] == 0
    assert numbers[("z",), 1] == 13
    np.testing.assert_array_equal(numbers[("b",), 0], [[1, 3, 5], [7, 9, 11]])
    np.testing.assert_array_equal(numbers[("a",), 0], [[2, 4, 6], [8, 10, 12]])


# What is refused

MODEL = Deep()
BAD = [
    ({"heads": "median"}, "heads is 'median'"),
    ({"heads": 2}, "heads is 2, but c/z has 2 heads: expected 0 to 1"),
    ({"heads": np.ones((2, 2), np.float32)}, r"heads has shape \(2, 2\); expected weights \(3, 2\).*Attention.encoder"),
    ({"heads": np.ones(2, np.float32)}, r"heads has shape \(2,\); expected weights \[layer, head\]"),
    ({"heads": -np.ones((3, 2), np.float32)}, "negative, NaN or infinite"),
    ({"residual": 1.5}, "residual is 1.5"),
    ({"encoder_mask": np.ones((2, 4), bool)}, r"encoder_mask has shape \(2, 4\)"),
    ({"decoder_mask": np.ones((2, 5), bool)}, "decoder_mask is given, but there is no stack"),
]


@pytest.mark.parametrize(("options", "message"), BAD)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        capture_capacities(MODEL, X, variables=build(MODEL), **options)


def test_what_is_no_attention():
    class Scores(nn.Module):
        @nn.compact
        def __call__(self, x):
            self.sow("intermediates", "attention_weights", -jnp.ones((2, 2, 5, 5)))
            return x

    for heads, message in (("mean", "holds -1; expected probabilities"), ("max", "negative, NaN or infinite")):
        with pytest.raises(ValueError, match=message):
            capture_capacities(Scores(), X, variables={}, heads=heads)
    with pytest.raises(TypeError, match=r"got str|got the text"):
        capture_capacities("model", X)
