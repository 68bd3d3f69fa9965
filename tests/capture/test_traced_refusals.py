"""Functions whose attention cannot be taken, by the message; and what only looks like them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from capture.traced_models import B, D, F, H, T, attend, by_hand, encoder, layers, norm, parameters, softmax, tokens
from jax.experimental import pallas as pl

from jaxflow import as_model
from jaxflow.capture import capture

P, X = parameters(1), tokens(B, 4, D)
ONE = layers(P)[0]


def projected(x):
    return tuple(jnp.einsum("btd,dhf->bthf", norm(x), ONE[n]) for n in "qkv")


def attention(q, k, v):
    return jnp.einsum("bhts,bshf->bthf", jax.nn.softmax(jnp.einsum("bthf,bshf->bhts", q, k)), v)


def blocks(x):
    return jnp.moveaxis(x.reshape(B, 2, 2, H, F), 1, 0)


def while_loop(x):
    return jax.lax.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, c[1] + attend(ONE, c[1])), (0, x))[1]


def cond(x):
    return jax.lax.cond(x.sum() > 0, lambda x: x + attend(ONE, x), lambda x: x, x)


def query_chunks(x):
    q, k, v = projected(x)
    return jax.lax.map(lambda q: attention(q, k, v), blocks(q))


def query_chunks_by_index(x):
    q, k, v = projected(x)
    return jax.lax.map(lambda i: attention(jax.lax.dynamic_slice_in_dim(q, 2 * i, 2, 1), k, v), jnp.arange(2))


def query_chunks_in_a_buffer(x):
    q, k, v = projected(x)

    def step(i, out):
        part = attention(jax.lax.dynamic_slice_in_dim(q, 2 * i, 2, 1), k, v)
        return jax.lax.dynamic_update_slice_in_dim(out, part, 2 * i, 1)

    return jax.lax.fori_loop(0, 2, step, jnp.zeros_like(q))


def local_blocks(x):
    q, k, v = (a.reshape(B, 2, 2, H, F) for a in projected(x))
    w = jax.nn.softmax(jnp.einsum("bcthf,bcshf->bchts", q, k))
    return jnp.einsum("bchts,bcshf->bcthf", w, v)


def online(x):
    """Flash attention: blocks of keys, a running maximum and a running sum."""
    q, k, v = projected(x)

    def step(carry, block):
        m, total, out = carry
        z = jnp.einsum("bthf,bshf->bhts", q, block[0])
        top = jnp.maximum(m, z.max(-1))
        e, shrink = jnp.exp(z - top[..., None]), jnp.exp(m - top)
        out = out * shrink[..., None] + jnp.einsum("bhts,bshf->bhtf", e, block[1])
        return (top, total * shrink + e.sum(-1), out), None

    start = (jnp.full((B, H, 4), -jnp.inf), jnp.zeros((B, H, 4)), jnp.zeros((B, H, 4, F)))
    (_, total, out), _ = jax.lax.scan(step, start, (blocks(k), blocks(v)))
    return out / total[..., None]


def talking_heads(x):
    mix = jnp.asarray([[1.0, 0.2], [0.1, 1.0]])
    return attend(ONE, x, weigh=lambda z: jnp.einsum("bhts,hg->bgts", softmax(z), mix))


def two_parts(x):
    q, k, v = projected(x)
    z = jnp.concatenate([jnp.einsum("bthf,bshf->bhts", q, k), jnp.einsum("bthf,bshf->bhts", q, k[:, :2])], -1)
    w = softmax(z)
    return jnp.einsum("bhts,bshf->bthf", w[..., :4], v) + jnp.einsum("bhts,bshf->bthf", w[..., 4:], v[:, :2])


def recurrent(x):
    """A decoder that reads all tokens at each step."""
    memory = x @ ONE["q"].reshape(D, D)

    def step(h, token):
        w = jax.nn.softmax(jnp.einsum("bd,bsd->bs", jnp.tanh(h @ ONE["k"].reshape(D, D) + token), memory))
        return h + jnp.einsum("bs,bsd->bd", w, memory), h

    return jax.lax.scan(step, x[:, 0], x.swapaxes(0, 1))


def with_a_cache(x):
    def step(carry, token):
        cache, i = carry
        cache = jax.lax.dynamic_update_slice_in_dim(cache, token[:, None], i, 1)
        return (cache, i + 1), attend(ONE, token[:, None], cache)

    return jax.lax.scan(step, (jnp.zeros((B, 4, D)), 0), x.swapaxes(0, 1))[1]


def one_step_with_a_cache(x):
    keys = jax.lax.dynamic_update_slice_in_dim(jnp.ones((B, 9, D)), x, 3, 1)
    return attend(ONE, x, keys)


def scaled(x):
    return attend(ONE, x, weigh=lambda z: softmax(z) * 3)


def axial(x):
    x = x.reshape(B, 2, 2, D)
    rows = attend(ONE, x.reshape(B * 2, 2, D)).reshape(x.shape)
    return attend(ONE, (x + rows).swapaxes(1, 2).reshape(B * 2, 2, D))


def batch_made_inside(x):
    stacked = jnp.stack([x[0], x[0] + 1])
    return attend(ONE, stacked)


def sharded(x):
    mesh = jax.sharding.Mesh(np.asarray(jax.devices()[:1]), ("batch",))
    spec = jax.sharding.PartitionSpec("batch")
    return jax.shard_map(lambda x: x + attend(ONE, x), mesh=mesh, in_specs=spec, out_specs=spec)(x)


def kernel(x):
    def flash_attention_kernel(x_ref, out_ref):
        out_ref[...] = x_ref[...]

    return pl.pallas_call(flash_attention_kernel, out_shape=jax.ShapeDtypeStruct(x.shape, x.dtype), interpret=True)(x)


LOOP = r"in a loop whose passes do not build on each other: in chunks of queries.*query_chunk_size=None"


def additive(x):
    """Attention of Bahdanau: no product of queries and keys."""
    q, k = (norm(x) @ ONE[name].reshape(D, D) for name in "qk")
    weights = jax.nn.softmax(jnp.tanh(q[:, :, None] + k[:, None]) @ jnp.ones(D))
    return weights @ x


def by_distance(x):
    y = norm(x) @ ONE["q"].reshape(D, D)
    return jax.nn.softmax(-((y[:, :, None] - y[:, None]) ** 2).sum(-1)) @ x


REFUSED = [
    (while_loop, r"inside a while loop.*lax.fori_loop with bounds that are Python numbers"),
    (cond, r"inside a cond .*Decide in Python"),
    (query_chunks, LOOP),
    (query_chunks_by_index, LOOP),
    (query_chunks_in_a_buffer, LOOP),
    (local_blocks, r"in blocks of tokens: .*Take full attention for the capture"),
    (online, r"without being divided by its sum.*flash attention.*jaxflow.attention_weights\(query, key\)"),
    (talking_heads, r"multiplied with a matrix between softmax and values"),
    (two_parts, r"two sets of values by two parts of its keys. Join keys and values"),
    (recurrent, r"has one query in each pass of a loop: a sequence written token by token"),
    (with_a_cache, r"has one query in each pass of a loop"),
    (one_step_with_a_cache, r"Queries and keys of one sequence differ in number \(a cache"),
    (additive, r"softmax of shape .* weighs tokens for tokens, but its"),
    (by_distance, r"weighs tokens for tokens, but no product of queries and keys in its logits"),
    (scaled, r"rows that sum to 3"),
    (axial, r"attend over different tokens|differs in shape|in blocks of tokens"),
    (batch_made_inside, r"axes of length \[2\] that come from no argument of the function"),
    (sharded, r"attention inside a shard_map, which capture does not enter(.|\n)*attention='dot_product' \(MaxText\)"),
    (kernel, r"pallas_call.*flash_attention_kernel.*fused attention, whose weights never exist.*implementation='xla'"),
]


@pytest.mark.parametrize(("function", "message"), REFUSED, ids=[function.__name__ for function, _ in REFUSED])
def test_refused(function, message):
    function(X)
    with pytest.raises(ValueError, match=message):
        capture(function, X)


@pytest.mark.parametrize(
    "function",
    [while_loop, online, local_blocks, query_chunks, two_parts, talking_heads, sharded, kernel, additive, by_distance],
)
def test_no_layer_is_left_out(function):
    """One layer that can be taken does not hide another that cannot."""
    with pytest.raises(
        ValueError, match=r"cannot be taken \(1 others were found\), and the network must not lack layers"
    ):
        capture(lambda x: (encoder(P, x), function(encoder(P, x)))[1], X)


def linear(x):
    features = jax.nn.elu(x) + 1
    return jnp.einsum("btf,bsf,bsd->btd", features, features, x)


def efficient(x):
    """Softmax over features, and over tokens: never over queries times keys."""
    q, k, v = (norm(x + jnp.tanh(x @ w.reshape(D, D))) for w in (ONE["q"], ONE["k"], ONE["v"]))
    w = jnp.eye(D)
    return jnp.einsum("btf,bsf,bsd->btd", jax.nn.softmax(q @ w, -1), jax.nn.softmax(k @ w, 1), v)


def slots(x):
    y = norm(x @ ONE["q"].reshape(D, D))
    w = jax.nn.softmax(jnp.einsum("bqd,bsd->bqs", y, norm(x @ ONE["k"].reshape(D, D))), axis=1)
    return jnp.einsum("bqs,bsd->bqd", w, x)


def opaque(x):
    def add_one(x_ref, out_ref):
        out_ref[...] = x_ref[...] + 1

    return pl.pallas_call(add_one, out_shape=jax.ShapeDtypeStruct(x.shape, x.dtype), interpret=True)(x)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (
            linear,
            r"nowhere in it does a softmax of queries times keys(.|\n)*Linear attention and recurrences have no such",
        ),
        (efficient, r"No attention was found in efficient(.|\n)*product with a parameter"),
        (slots, r"No attention was found in slots(.|\n)*softmax over queries, as in slot attention"),
        (lambda x: jax.nn.softmax(x @ x[0].T), r"No attention was found in <lambda>"),
        (opaque, r"No attention(.|\n)*pallas_call.*a kernel, into which no trace looks"),
    ],
    ids=["linear", "efficient", "slots", "output", "kernel"],
)
def test_none_is_found(function, message):
    with pytest.raises(ValueError, match=message):
        capture(function, X)


def test_harmless_loops_branches_and_kernels_pass():
    def model(x):
        x = jax.lax.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, c[1] * 1.1), (0, x))[1]
        x = jax.lax.cond(x.sum() > 0, lambda x: x + 1, lambda x: x - 1, opaque(x))
        return encoder(P, x)

    with pytest.raises(ValueError, match="a kernel or a callback, into which no trace looks"):
        capture(model, X)
    outputs, attention = capture(as_model(model, mixing="accept"), X)
    np.testing.assert_allclose(outputs, model(X), atol=1e-5)
    assert attention.encoder.shape == (B, 1, H, 4, 4)


def test_renormalised_slots_are_attention():
    """With a division over keys as well, rows of slots sum to 1: the later division counts."""

    def model(x, slots):
        for p in layers(parameters(2)):
            q, k = norm(slots) @ p["q"].reshape(D, D), norm(x) @ p["k"].reshape(D, D)
            w = jax.nn.softmax(jnp.einsum("bqd,bsd->bqs", q, k), axis=1) + 1e-8
            w = w / w.sum(-1, keepdims=True)
            slots = slots + w @ x
        return slots

    _, attention = capture(model, X, tokens(B, 3, D, seed=7), roles={"": "cross"})
    assert attention.cross.shape == (B, 2, 1, 3, 4)
    np.testing.assert_allclose(attention.cross.sum(-1), 1, atol=1e-5)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [({"variables": {}}, r"variables= is for linen modules"), ({"sown": "w"}, r"sown='w' is for modules that sow")],
)
def test_keywords_of_modules(keywords, message):
    with pytest.raises(ValueError, match=message):
        capture(functools.partial(encoder, P), X, **keywords)


def test_shapes_that_differ():
    def model(x):
        x = x + attend(ONE, x)
        return attend(ONE, x.reshape(B, T - 1, D)[:, ::2])

    with pytest.raises(ValueError, match=r"differs in shape"):
        capture(model, X)
    assert by_hand(encoder, P, X).shape[1] == 1
