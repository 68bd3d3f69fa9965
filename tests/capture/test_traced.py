"""Attention of plain functions, against the weights that they compute."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from capture.traced_models import (
    NEG,
    B,
    D,
    F,
    H,
    T,
    attend,
    by_hand,
    encoder,
    layers,
    norm,
    parameters,
    softmax,
    tokens,
)

from jaxflow.capture import capture

LOG2E = 1.4426950408889634
P, X = parameters(), tokens()
NEAR = np.abs(np.arange(T)[:, None] - np.arange(T)) < 2


def check(function, expected, *args, **kwargs):
    """Outputs are those of the function, attention is as expected, eagerly and under jit."""
    plain = function(*args, **kwargs)
    outputs, attention = capture(function, *args, **kwargs)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), outputs, plain)
    assert attention.backend == "traced"
    assert attention.decoder is None
    assert attention.cross is None
    assert attention.encoder.shape == expected.shape
    np.testing.assert_allclose(attention.encoder, expected, atol=2e-6)
    return attention.encoder


def exponential(z):
    return jnp.exp(z - z.max(-1, keepdims=True))


WRITTEN = {
    "jax.nn.softmax": jax.nn.softmax,
    "no maximum": lambda z: jnp.exp(z) / jnp.exp(z).sum(-1, keepdims=True),
    "inverse": lambda z: exponential(z) * (1 / exponential(z).sum(-1, keepdims=True)),
    "reciprocal": lambda z: exponential(z) * jnp.reciprocal(jnp.sum(exponential(z), -1, keepdims=True)),
    "logsumexp": lambda z: jnp.exp(z - jax.nn.logsumexp(z, -1, keepdims=True)),
    "log_softmax": lambda z: jnp.exp(jax.nn.log_softmax(z)),
    "exp2": lambda z: jnp.exp2(z * LOG2E) / jnp.exp2(z * LOG2E).sum(-1, keepdims=True),
    "soft cap": lambda z: jax.nn.softmax(2 * jnp.tanh(z / 2)),
    "where=": lambda z: jax.nn.softmax(z, where=jnp.tril(jnp.ones(z.shape, bool))),
    "where after": lambda z: jnp.where(jnp.tril(jnp.ones(z.shape, bool)), jax.nn.softmax(z), 0.0),
    "mask": lambda z: jax.nn.softmax(jnp.where(jnp.tril(jnp.ones(z.shape, bool)), z, NEG)),
    "safe sum": lambda z: exponential(z) / jnp.where((s := exponential(z).sum(-1, keepdims=True)) == 0, 1.0, s),
    "sliding window": lambda z: jax.nn.softmax(jnp.where(jnp.broadcast_to(NEAR, z.shape), z, NEG)),
    "sink in the logits": lambda z: jax.nn.softmax(jnp.concatenate([z, jnp.ones((B, H, T, 1))], -1))[..., :-1],
    "sink in the sum": lambda z: exponential(z) / (exponential(z).sum(-1, keepdims=True) + 0.3),
    "rounded": lambda z: jax.nn.softmax(jax.lax.reduce_precision(z, 8, 7)),
    "rounded after": lambda z: jax.lax.reduce_precision(jax.nn.softmax(z), 8, 16),
    "other keys in two dtypes": lambda z: jax.nn.softmax(z.astype(jnp.bfloat16)).astype(jnp.float32),
    "heads mixed before": lambda z: jax.nn.softmax(jnp.einsum("bhts,hg->bgts", z, jnp.asarray([[1.0, 0.5], [-0.3, 2.0]]))),
}  # fmt: skip


@pytest.mark.parametrize("weigh", WRITTEN.values(), ids=WRITTEN)
def test_ways_to_write_a_softmax(weigh):
    model = functools.partial(encoder, attend=functools.partial(attend, weigh=weigh))
    check(model, by_hand(model, P, X), P, X)


@pytest.mark.parametrize(
    "drop",
    [
        lambda w, key: jnp.where(jax.random.bernoulli(key, 0.7, w.shape), w / 0.7, 0.0),
        lambda w, key: w * (jax.random.bernoulli(key, 0.7, w.shape).astype(w.dtype) / 0.7),
        lambda w, key: jnp.where(jax.random.bernoulli(key, 0.7, w.shape), w / 0.7, 0.0)[..., :-1],
    ],
    ids=["select", "multiply", "sink cut off after it"],
)
def test_dropout_is_left_out(drop):
    is_sink = drop(jnp.ones((1, 2)), jax.random.key(0)).shape == (1, 1)
    kept = []

    def weigh(z):
        z = jnp.concatenate([z, jnp.ones((B, H, T, 1))], -1) if is_sink else z
        kept.append(softmax(z)[..., :T])
        return drop(softmax(z), jax.random.key(3))

    model = functools.partial(encoder, attend=functools.partial(attend, weigh=weigh))
    model(P, X)
    expected = jnp.stack(kept, -4)
    outputs, attention = capture(model, P, X)
    np.testing.assert_allclose(attention.encoder, expected, atol=1e-6)
    np.testing.assert_allclose(outputs, model(P, X), rtol=1e-5, atol=1e-5)


def scanned(params, x):
    return jax.lax.scan(lambda x, p: (x + attend(p, norm(x)), None), x, params)[0]


def backwards(params, x):
    params = jax.tree.map(lambda leaf: leaf[::-1], params)
    return jax.lax.scan(lambda x, p: (x + attend(p, norm(x)), None), x, params, reverse=True)[0]


def nested(params, x):
    params = jax.tree.map(lambda leaf: leaf.reshape(2, -1, *leaf.shape[1:]), params)
    return jax.lax.scan(lambda x, p: (scanned(p, x), None), x, params)[0]


def loop(params, x):
    return jax.lax.fori_loop(0, 12, lambda i, x: x + attend(jax.tree.map(lambda leaf: leaf[i], params), norm(x)), x)


def two_a_step(params, x):
    def step(x, pair):
        for p in layers(pair):
            x = x + jax.jit(attend)(p, norm(x))
        return x, x.sum()

    params = jax.tree.map(lambda leaf: leaf.reshape(-1, 2, *leaf.shape[1:]), params)
    return jax.lax.scan(jax.checkpoint(step), x, params)


@pytest.mark.parametrize(
    "model", [scanned, backwards, nested, loop, two_a_step, jax.jit(encoder), jax.checkpoint(encoder)]
)
def test_loops_and_calls(model):
    """Twelve layers in order, however they are looped over."""
    params = jax.tree.map(lambda leaf: leaf * 0.5, parameters(12))
    found = check(model, by_hand(encoder, params, X), params, X)
    assert np.abs(np.diff(found, axis=1)).max((0, 2, 3, 4)).min() > 1e-3


def grouped(layout, params, x, kept=None):
    """Queries in groups, and logits in any layout."""
    for p in layers(params):
        y = norm(x)
        q = jnp.einsum("btd,dkgf->btkgf", y, p["q"])
        k, v = (jnp.einsum("btd,dkf->btkf", y, p[n]) for n in "kv")
        z = jnp.einsum(f"btkgf,bskf->{layout}", q, k)
        axis = layout.index("s")
        e = jnp.exp(z - z.max(axis, keepdims=True))
        w = e / e.sum(axis, keepdims=True)
        if kept is not None:
            kept.append(jnp.einsum(f"{layout}->bkgts", w).reshape(B, 6, T, T))
        x = x + jnp.einsum(f"{layout},bskf,kgfd->btd", w, v, p["o"])
    return x


@pytest.mark.parametrize("layout", ["btskg", "bkgts", "stkgb", "tsbgk"])
def test_axes_come_from_the_products(layout):
    params = parameters(q=(D, 2, 3, F), k=(D, 2, F), v=(D, 2, F), o=(2, 3, F, D))
    model = functools.partial(grouped, layout)
    check(model, by_hand(model, params, X), params, X)


def divided_after(params, x):
    for p in layers(params):
        q, k, v = (jnp.einsum("btd,dhf->bthf", norm(x), p[n]) for n in "qkv")
        e = exponential(jnp.einsum("bthf,bshf->bhts", q, k) / 2)
        sums = jnp.einsum("bhts->bth", e)[..., None]
        x = x + jnp.einsum("bthf,hfd->btd", jnp.einsum("bhts,bshf->bthf", e, v) / sums, p["o"])
    return x


def folded(params, x):
    """Heads folded into the batch."""
    for p in layers(params):
        q, k, v = (jnp.einsum("btd,dhf->bhtf", norm(x), p[n]).reshape(B * H, T, F) for n in "qkv")
        w = jax.nn.softmax(q @ k.swapaxes(1, 2) / 2)
        o = (w @ v).reshape(B, H, T, F).swapaxes(1, 2).reshape(B, T, H * F)
        x = x + o @ p["o"].reshape(H * F, D)
    return x


def joint_projection(params, x):
    for p in layers(params):
        weights = jnp.stack([p["q"], p["k"], p["v"]], 1).reshape(D, -1)
        q, k, v = jnp.split((norm(x) @ weights).reshape(B, T, 3 * H, F), 3, axis=2)
        x = x + jnp.einsum("bthf,hfd->btd", jax.nn.dot_product_attention(q, k, v), p["o"])
    return x


def mapped_over(axis, params, x):
    """lax.map over the examples or over the heads."""
    for p in layers(params):
        q, k, v = (jnp.moveaxis(jnp.einsum("btd,dhf->bhtf", norm(x), p[n]), axis, 0) for n in "qkv")
        o = jax.lax.map(lambda a: jax.nn.softmax(a[0] @ a[1].swapaxes(-1, -2) / 2) @ a[2], (q, k, v))
        x = x + jnp.einsum("bhtf,hfd->btd", jnp.moveaxis(o, 0, axis), p["o"])
    return x


def unbatched(params, x):
    for p in layers(params):
        q, k, v = (jnp.einsum("td,dhf->thf", norm(x), p[n]) for n in "qkv")
        w = jax.nn.softmax(jnp.einsum("thf,shf->hts", q, k) / 2)
        x = x + jnp.einsum("hts,shf,hfd->td", w, v, p["o"])
    return x


def summed_over_heads(params, x):
    """Values that are outputs already: heads are summed in the product, or before it where they share them."""
    for p in layers(params):
        q, k, v = (jnp.einsum("btd,dhf->bthf", norm(x), p[n]) for n in "qkv")
        w = jax.nn.softmax(jnp.einsum("bthf,bshf->bhts", q, k) / 2)
        x = x + jnp.einsum("bhts,bshd->btd", w, jnp.einsum("bshf,hfd->bshd", v, p["o"]))
    return x


def shared_values(params, x, kept=None):
    for p in layers(params):
        q, k = (jnp.einsum("btd,dhf->bthf", norm(x), p[n]) for n in "qk")
        w = jax.nn.softmax(jnp.einsum("bthf,bshf->bhts", q, k) / 2)
        if kept is not None:
            kept.append(w)
        x = x + jnp.einsum("bhts,bsd->btd", w, x)
    return x


MODELS = {
    "heads summed in the product": summed_over_heads,
    "divided after the product": divided_after,
    "heads folded into the batch": folded,
    "one projection": joint_projection,
    "mapped over examples": functools.partial(mapped_over, 0),
    "mapped over heads": functools.partial(mapped_over, 1),
    "vmap": jax.vmap(unbatched, (None, 0)),
}


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_forms_of_one_model(model):
    check(model, by_hand(encoder, P, X), P, X)


def test_heads_that_share_values():
    check(shared_values, by_hand(shared_values, P, X), P, X)


def test_models_side_by_side():
    """vmap over parameters: their axis is no heads."""
    params = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(parameters(seed=seed) for seed in range(3)))
    expected = jnp.stack([by_hand(encoder, parameters(seed=seed), X) for seed in range(3)])
    check(jax.vmap(encoder, (0, None)), expected, params, X)


def test_a_batch_that_is_repeated():
    def model(params, x):
        return encoder(params, jnp.repeat(x, 3, axis=0))

    check(model, by_hand(encoder, P, jnp.repeat(X, 3, axis=0)), P, X)


def test_without_a_batch():
    check(unbatched, by_hand(encoder, P, X)[0], P, X[0])


def test_one_head_without_an_axis_of_its_own():
    def model(params, x):
        for p in layers(params):
            q, k, v = (norm(x) @ p[n][:, 0] for n in "qkv")
            x = x + jax.nn.softmax(q @ k.swapaxes(1, 2) / 2) @ v @ p["o"][0]
        return x

    first = jax.tree.map(lambda leaf: leaf[:, :, :1], {n: P[n] for n in "qkv"}) | {"o": P["o"][:, :1]}
    check(model, by_hand(encoder, first, X), P, X)


def test_queries_of_all_heads_in_one_axis():
    def model(params, x):
        for p in layers(params):
            q = jnp.einsum("btd,dhf->bhtf", norm(x), p["q"]).reshape(B, H * T, F)
            k, v = (norm(x) @ p[n][:, 0] for n in "kv")
            o = (jax.nn.softmax(q @ k.swapaxes(1, 2) / 2) @ v).reshape(B, H, T, F)
            x = x + jnp.einsum("bhtf,hfd->btd", o, p["o"])
        return x

    shared = P | {n: jnp.repeat(P[n][:, :, :1], H, 2) for n in "kv"}
    check(model, by_hand(encoder, shared, X), P, X)


def test_tokens_on_a_grid():
    def model(params, x):
        for p in layers(params):
            q, k, v = (jnp.einsum("bxyd,dhf->bxyhf", norm(x), p[n]) for n in "qkv")
            w = jax.nn.softmax(jnp.einsum("bxyhf,buvhf->bhxyuv", q, k) / 2, axis=(-1, -2))
            x = x + jnp.einsum("bhxyuv,buvhf,hfd->bxyd", w, v, p["o"])
        return x

    x = tokens(B, 2, 3, D)
    check(model, by_hand(encoder, P, x.reshape(B, 6, D)), P, x)


@pytest.mark.parametrize("n_tokens", [1, 2])
def test_few_tokens(n_tokens):
    check(encoder, by_hand(encoder, P, X[:1, :n_tokens]), P, X[:1, :n_tokens])


def test_embedded_tokens_and_positions():
    def model(table, positions, params, ids):
        x = table[ids] + jnp.broadcast_to(positions[: ids.shape[1]], (*ids.shape, D))
        return encoder(params, x)

    table, positions, ids = tokens(9, D), tokens(20, D), jnp.asarray([[3, 1, 4, 1, 5], [2, 7, 1, 8, 2]])
    check(model, by_hand(encoder, P, table[ids] + positions[None, :T]), table, positions, P, ids)


def test_bfloat16_stays(standard_promotion):
    params, x = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), (P, X))

    def model(params, x):
        for p in layers(params):
            q, k, v = (jnp.einsum("btd,dhf->bthf", x, p[n]) for n in "qkv")
            x = x + jnp.einsum("bthf,hfd->btd", jax.nn.dot_product_attention(q, k, v), p["o"])
        return x

    _, attention = capture(model, params, x)
    assert attention.encoder.dtype == jnp.bfloat16
    np.testing.assert_allclose(attention.encoder.astype(jnp.float32).sum(-1), 1, atol=0.02)


def test_weights_used_in_two_layers_are_two_layers():
    def model(params, x):
        first = layers(params)[0]
        q, k = (jnp.einsum("btd,dhf->bthf", norm(x), first[n]) for n in "qk")
        w = softmax(jnp.einsum("bthf,bshf->bhts", q, k))
        for p in layers(params):
            x = x + jnp.einsum("bhts,bshf,hfd->btd", w, jnp.einsum("btd,dhf->bthf", norm(x), p["v"]), p["o"])
        return x

    _, attention = capture(model, P, X)
    assert attention.encoder.shape == (B, 2, H, T, T)
    np.testing.assert_array_equal(attention.encoder[:, 0], attention.encoder[:, 1])


def test_relative_positions_are_no_second_layer():
    def model(params, relative, x, kept=None):
        for p in layers(params):
            q, k, v = (jnp.einsum("btd,dhf->bthf", norm(x), p[n]) for n in "qkv")
            z = jnp.einsum("bthf,bshf->bhts", q, k) + jnp.einsum("bthf,tsf->bhts", q, relative)
            w = softmax(z)
            if kept is not None:
                kept.append(w)
            o = jnp.einsum("bhts,bshf->bthf", w, v) + jnp.einsum("bhts,tsf->bthf", w, relative)
            x = x + jnp.einsum("bthf,hfd->btd", o, p["o"])
        return x

    relative = tokens(T, T, F)
    check(model, by_hand(model, P, relative, X), P, relative, X)


def test_other_softmaxes_are_not_taken():
    """A router, a gate, an output distribution and a contrastive loss."""

    def model(params, router, experts, gate, x):
        for p in layers(params):
            x = x + attend(p, norm(x))
            weights = jax.nn.softmax(norm(x) @ router)
            x = x + jnp.einsum("bte,edf,btd->btf", weights, experts, norm(x))
            x = x * jax.nn.softmax(gate).sum() + jax.nn.silu(x)
        pooled = x.mean(1)
        loss = jnp.diag(jax.nn.log_softmax(pooled @ pooled.T)).sum()
        return jax.nn.softmax(x @ router), jax.nn.softmax(x @ router) @ router.T, loss

    _, attention = capture(model, P, tokens(D, 3), tokens(3, D, D), tokens(4), X)
    assert attention.encoder.shape == (B, 2, H, T, T)


def test_a_training_step():
    step = jax.value_and_grad(lambda params, x: (encoder(params, x) ** 2).sum())
    check(step, by_hand(encoder, P, X), P, X)


def test_pure_under_jit_vmap_and_grad():
    expected = by_hand(encoder, P, X)
    jitted = jax.jit(lambda p, x: capture(scanned, p, x)[1])(P, X)
    np.testing.assert_allclose(jitted.encoder, expected, atol=2e-6)
    assert jitted.backend == "traced"
    mapped = jax.vmap(lambda x: capture(unbatched, P, x)[1].encoder)(X)
    np.testing.assert_allclose(mapped, expected, atol=2e-6)

    def last(find):
        return jax.grad(lambda p: (find(p)[:, -1] ** 2).sum())(P)

    by_capture = last(lambda p: capture(scanned, p, X)[1].encoder)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4),
        by_capture,
        last(lambda p: by_hand(encoder, p, X)),
    )


def test_derivatives_of_other_functions_stay_theirs():
    """jax.nn.relu has derivative 0 at 0; that of the maximum it is computed by is 1/2."""

    def model(params, x):
        return jax.nn.relu(x * 0) + encoder(params, x) * 0

    gradient = jax.grad(lambda x: capture(model, P, x)[0].sum())(X)
    np.testing.assert_array_equal(gradient, 0)


def test_arguments_and_results_that_are_no_arrays():
    def model(params, x, name, *, flag):
        assert flag
        return {"x": encoder(params, x), "name": name, "none": None}

    outputs, attention = capture(model, P, X, "a name", flag=True)
    assert outputs["name"] == "a name"
    assert outputs["none"] is None
    np.testing.assert_allclose(outputs["x"], encoder(P, X), atol=1e-5)
    assert attention.encoder.shape == (B, 2, H, T, T)


@pytest.mark.parametrize("n_groups", [4, 2, 1])
def test_queries_keys_and_values_as_they_are(n_groups, standard_promotion):
    query, key, value = tokens(B, T, 4, F), tokens(B, T, n_groups, F, seed=2), tokens(B, T, n_groups, F, seed=3)
    expected = jax.nn.softmax(jnp.einsum("bthf,bshf->bhts", query, jnp.repeat(key, 4 // n_groups, 2)) / 2)
    check(jax.nn.dot_product_attention, expected[:, None], query, key, value)
