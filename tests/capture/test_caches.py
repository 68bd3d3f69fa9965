"""Decoding with a cache: recognised by keys that are written into an array from outside, and refused with what to do."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from capture.traced_models import B, D, F, H, T, attend, causal, layers, norm, parameters, tokens
from flax import nnx

from jaxflow import capture

MESSAGE = r"runs with a cache, or a prefix of keys(.|\n)*: {} queries, {} keys(.|\n)*cache=None, decode=False"
LENGTH = 8


def empty(length=LENGTH):
    return [(jnp.zeros((B, length, H, F)),) * 2] * 2


def written(cache, new, at):
    return jax.lax.dynamic_update_slice(cache, new, (0, at, 0, 0))


def set_at(cache, new, at):
    return cache.at[:, at + jnp.arange(new.shape[1])].set(new)


def behind(cache, new, at):
    return jnp.concatenate([cache, new], 1)


def attending(p, keys, values, x, at, write):
    q, k, v = (jnp.einsum("btd,dhf->bthf", norm(x), p[name]) for name in "qkv")
    keys, values = write(keys, k, at), write(values, v, at)
    seen = jnp.arange(keys.shape[1])[None] <= at + jnp.arange(x.shape[1])[:, None]
    z = jnp.where(seen, jnp.einsum("bthf,bshf->bhts", q, keys) / 2, -1e9)
    return x + jnp.einsum("bhts,bshf,hfd->btd", jax.nn.softmax(z), values, p["o"]), (keys, values)


def step(params, cache, x, at, write=written):
    made = []
    for p, (keys, values) in zip(layers(params), cache, strict=True):
        x, new = attending(p, keys, values, x, at, write)
        made.append(new)
    return x, made


def scanned(params, cache, x, at):
    stacked = tuple(jnp.stack(each) for each in zip(*cache, strict=True))
    return jax.lax.scan(lambda x, given: attending(given[0], *given[1], x, at, written), x, (params, stacked))


@pytest.mark.parametrize("roles", [None, {"": "decoder"}, {"": "encoder"}, {"": "cross"}])
@pytest.mark.parametrize("n_queries", [1, T])
def test_functions(n_queries, roles):
    """One step, and a prompt in a cache that is longer."""
    with pytest.raises(ValueError, match=MESSAGE.format(n_queries, LENGTH)):
        capture(step, parameters(2), empty(), tokens()[:, :n_queries], 0, roles=roles)


@pytest.mark.parametrize("write", [written, set_at, behind])
def test_ways_to_write(write):
    n_keys = LENGTH + (1 if write is behind else 0)
    with pytest.raises(ValueError, match=MESSAGE.format(1, n_keys)):
        capture(lambda *args: step(*args, write=write), parameters(2), empty(), tokens()[:, :1], 3)


def test_layers_in_a_scan_and_a_cache_that_is_closed_over():
    with pytest.raises(ValueError, match=MESSAGE.format(2, LENGTH)):
        capture(scanned, parameters(2), empty(), tokens()[:, :2], 3)
    with pytest.raises(ValueError, match=r"one query in each pass of a loop.*Capture one pass over the whole"):
        capture(scanned, parameters(2), empty(), tokens()[:, :1], 3)
    cache = empty()
    with pytest.raises(ValueError, match=MESSAGE.format(1, LENGTH)):
        capture(lambda params, x: step(params, cache, x, 3), parameters(2), tokens()[:, :1])


class Linen(nn.Module):
    decode: bool

    @nn.compact
    def __call__(self, x):
        for _ in range(2):
            x = x + nn.MultiHeadDotProductAttention(num_heads=2, decode=self.decode)(x)
        return x


def test_linen_modules():
    variables = Linen(True).init(jax.random.key(0), jnp.ones((B, LENGTH, D)))
    with pytest.raises(ValueError, match=MESSAGE.format(1, LENGTH)):
        capture(Linen(True), tokens()[:, :1], variables=variables, mutable=["cache"])
    with pytest.raises(ValueError, match=MESSAGE.format(1, LENGTH)):
        capture(lambda v, x: Linen(True).apply(v, x, mutable=["cache"]), variables, tokens()[:, :1])
    with pytest.raises(ValueError, match="keys are more or fewer than its queries"):
        capture(Linen(True), tokens()[:, :1], variables=variables, mutable=["cache"], roles={"": "decoder"})
    assert capture(Linen(False), tokens(), variables={"params": variables["params"]})[1].encoder.shape[-2:] == (T, T)


@pytest.mark.parametrize("sows", [False, True])
def test_nnx_modules(sows):
    model = nnx.MultiHeadAttention(num_heads=2, in_features=D, decode=True, rngs=nnx.Rngs(0))
    model.init_cache((B, LENGTH, D))
    with pytest.raises(ValueError, match=MESSAGE.format(1, LENGTH)):
        capture(model, tokens()[:, :1], sow_weights=sows)


def test_self_attention_that_is_not_square_is_refused_whatever_roles_say():
    def model(params, x):
        return attend(layers(params)[0], x[:, :2], x)

    with pytest.raises(ValueError, match=r"more or fewer keys than queries(.|\n)*/0/, decoder: 2 queries, 5 keys"):
        capture(model, parameters(1), tokens(), roles={"": "decoder"})


def test_keys_of_an_encoder_that_ran_before_are_no_cache():
    def decoder(params, keys, values, y):
        p = layers(params)[0]
        y = y + attend(p, norm(y), bias=causal(y.shape[1]))
        z = jnp.einsum("bthf,bshf->bhts", jnp.einsum("btd,dhf->bthf", norm(y), p["q"]), keys)
        return y + jnp.einsum("bhts,bshf,hfd->btd", jax.nn.softmax(z), values, p["o"])

    given = tokens(B, LENGTH, H, F, seed=3)
    _, attention = capture(decoder, parameters(1), given, given, tokens())
    assert attention.cross.shape[-2:] == (T, LENGTH)
