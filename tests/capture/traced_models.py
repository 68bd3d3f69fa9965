"""Plain functions that attend, each in a way of its own, beside the attention that they compute."""

import jax
import jax.numpy as jnp
import numpy as np

B, T, D, H, F = 2, 5, 8, 2, 4
NEG = -1e9


def parameters(n_layers=2, seed=0, **shapes):
    """Stacked weights of `n_layers` layers: q, k, v `[layer, D, H, F]`, o `[layer, H, F, D]`, and what `shapes` adds."""
    rng = np.random.default_rng(seed)
    shapes = {"q": (D, H, F), "k": (D, H, F), "v": (D, H, F), "o": (H, F, D)} | shapes
    return {name: jnp.asarray(rng.normal(size=(n_layers, *shape)) * 0.6, jnp.float32) for name, shape in shapes.items()}


def tokens(*shape, seed=1):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape or (B, T, D)), jnp.float32)


def layers(params):
    n_layers = len(next(iter(params.values())))
    return [jax.tree.map(lambda leaf, i=i: leaf[i], params) for i in range(n_layers)]


def norm(x):
    x = x - x.mean(-1, keepdims=True)
    return x * jax.lax.rsqrt((x * x).mean(-1, keepdims=True) + 1e-6)


def causal(n=T):
    return jnp.where(jnp.tril(jnp.ones((n, n), bool)), 0.0, NEG)[None, None]


def softmax(z):
    """By hand, in NumPy's way: the reference for all of them."""
    e = jnp.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def attend(p, x, y=None, *, bias=0.0, weigh=softmax, kept=None):
    """One layer of attention, `[B, T, H, F]` inside; `weigh` turns logits `[B, H, T, S]` into weights."""
    y = x if y is None else y
    q, k, v = (jnp.einsum("btd,dhf->bthf", a, p[n]) for n, a in (("q", x), ("k", y), ("v", y)))
    z = jnp.einsum("bthf,bshf->bhts", q, k) / np.float32(np.sqrt(F)) + bias
    w = weigh(z)
    if kept is not None:
        kept.append(w)
    return jnp.einsum("bhts,bshf,hfd->btd", w, v, p["o"])


def encoder(params, x, *, attend=attend, kept=None):
    for p in layers(params):
        x = x + attend(p, norm(x), kept=kept)
    return x


def by_hand(model, *args):
    """`[batch, layer, head, query, key]` of a model that takes `kept`."""
    kept = []
    model(*args, kept=kept)
    return jnp.stack(kept, -4)
