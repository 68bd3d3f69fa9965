"""Layers that mix tokens by something other than attention, and layers that look as if they did."""

import jax
import jax.numpy as jnp
import numpy as np
from capture.traced_models import D, T, tokens

MATRIX = tokens(T, T, seed=5)
WIDE = ("NWC", "WIO", "NWC")


def convolved(x, *, kernel=3, padding="SAME", groups=1):
    shape = (kernel, D // groups, D)
    return jax.lax.conv_general_dilated(
        x, tokens(*shape, seed=6), (1,), padding, dimension_numbers=WIDE, feature_group_count=groups
    )


def recurrent(x):
    def step(state, x):
        state = 0.5 * state + x
        return state, state

    _, states = jax.lax.scan(step, jnp.zeros_like(x[:, 0]), jnp.moveaxis(x, 1, 0))
    return jnp.moveaxis(states, 0, 1)


def associative(x):
    def joined(a, b):
        return a[0] * b[0], a[1] * b[0] + b[1]

    return jax.lax.associative_scan(joined, (jnp.full_like(x, 0.5), x), axis=1)[1]


def in_a_fori_loop(x):
    return jax.lax.fori_loop(1, T, lambda i, x: x.at[:, i].add(x[:, i - 1]), x)


def linear_attention(x):
    features = jax.nn.elu(x) + 1
    return jnp.einsum("btd,bsd,bse->bte", features, features, x)


def most_alike(x):
    """The value of the one token that is most alike: hard attention."""
    alike = jnp.einsum("btd,bsd->bts", x, x).argmax(-1)
    return jnp.take_along_axis(x, alike[..., None], 1)


def most_alike_by_product(x):
    alike = jnp.einsum("btd,bsd->bts", x, x).argmax(-1)
    return jnp.einsum("bts,bsd->btd", jax.nn.one_hot(alike, T), x)


def squeeze_and_excite(x):
    return x * jax.nn.sigmoid(x.mean(1, keepdims=True) @ tokens(D, D))


def called_back(x):
    return jax.pure_callback(lambda x: np.cumsum(x, 1), jax.ShapeDtypeStruct(x.shape, x.dtype), x)


MIXING = {
    "convolution": (convolved, "a convolution over tokens"),
    "causal depthwise convolution": (lambda x: convolved(x, padding=[(2, 0)], groups=D), "a convolution over tokens"),
    "recurrence": (recurrent, "a recurrence over tokens"),
    "recurrence backwards": (lambda x: recurrent(x[:, ::-1])[:, ::-1], "a recurrence over tokens"),
    "associative scan": (associative, "put to other places"),
    "fori_loop": (in_a_fori_loop, "over tokens|picked"),
    "MLP-Mixer": (lambda x: jnp.einsum("btd,ts->bsd", x, MATRIX), "a matrix of tokens by tokens"),
    "FNet": (lambda x: jnp.fft.fft2(x, axes=(1, 2)).real, "a Fourier transform over tokens"),
    "running sum": (lambda x: jnp.cumsum(x, 1), "a running sum"),
    "token shift": (lambda x: jnp.pad(x[:, :-1], ((0, 0), (1, 0), (0, 0))), "put to other places"),
    "token shift by concatenation": (lambda x: jnp.concatenate([x[:, :1], x[:, :-1]], 1), "put to other places"),
    "roll": (lambda x: jnp.roll(x, 1, 1), "put to other places"),
    "fixed indices": (lambda x: x[:, np.array([0, 0, 1, 2, 3])], "put to other places"),
    "computed indices": (lambda x: jnp.take(x, jnp.maximum(jnp.arange(T) - 1, 0), axis=1), "put to other places"),
    "scatter": (lambda x: x.at[:, 1:].add(x[:, :-1]), "put to other places"),
    "reversal": (lambda x: x[:, ::-1], "put to other places"),
    "mean": (lambda x: x.mean(1, keepdims=True), "goes back to tokens"),
    "squeeze and excite": (squeeze_and_excite, "goes back to tokens"),
    "norm over tokens": (lambda x: x - x.mean(1, keepdims=True), "goes back to tokens"),
    "pooling": (
        lambda x: jax.lax.reduce_window(x, 0.0, jax.lax.add, (1, 3, 1), (1, 1, 1), "SAME"),
        "neighbouring tokens",
    ),
    "linear attention": (linear_attention, "a sum over tokens"),
    "hard attention": (most_alike, "picked"),
    "hard attention by a product": (most_alike_by_product, "goes back to tokens"),
    "sort": (lambda x: jnp.sort(x, axis=1), "a sort over tokens"),
    "callback": (called_back, "into which no trace looks"),
}


def by_capacity(x):
    """A mixture of experts whose buffers are filled by one-hot matrices, `[token, expert, slot]`."""
    probabilities = jax.nn.softmax(x @ tokens(D, 3, seed=7), -1)
    gate, expert = jax.lax.top_k(probabilities, 1)
    chosen = jax.nn.one_hot(expert[..., 0], 3)
    slot = (jnp.cumsum(chosen, 1) - 1) * chosen
    sent = chosen[..., None] * jax.nn.one_hot(slot.astype(int), 4)
    inside = jnp.einsum("btec,btd,edf->becf", sent, x, tokens(3, D, D, seed=8))
    return jnp.einsum("btec,becd->btd", sent * gate[..., None], inside)


def by_sort(x):
    """A mixture of experts that sorts tokens by expert, and undoes it."""
    rows = x.reshape(-1, D)
    gates, experts = jax.lax.top_k(jax.nn.softmax(rows @ tokens(D, 3, seed=7), -1), 2)
    order = jnp.argsort(experts.reshape(-1))
    sizes = jnp.bincount(experts.reshape(-1), length=3)
    inside = jax.lax.ragged_dot(jnp.take(rows, order // 2, axis=0), tokens(3, D, D, seed=8), sizes)
    back = jnp.take(inside, jnp.argsort(order), axis=0).reshape(-1, 2, D)
    return jnp.einsum("tkd,tk->td", back, gates).reshape(x.shape)


def by_experts_choice(x):
    rows = x.reshape(-1, D)
    _, chosen = jax.lax.top_k((rows @ tokens(D, 3, seed=7)).T, 2)
    inside = jnp.einsum("ecd,edf->ecf", rows[chosen], tokens(3, D, D, seed=8))
    return jnp.zeros_like(rows).at[chosen.reshape(-1)].add(inside.reshape(-1, D)).reshape(x.shape)


def quantised(x):
    scale = jnp.abs(x).max() / 127
    return jnp.round(x / scale) * scale


HARMLESS = {
    "feed-forward": lambda x: jax.nn.gelu(x @ tokens(D, D)),
    "convolution of width 1": lambda x: convolved(x, kernel=1),
    "map over tokens": lambda x: jnp.moveaxis(jax.lax.map(jnp.tanh, jnp.moveaxis(x, 1, 0)), 0, 1),
    "tokens and batch in one axis": lambda x: (x.reshape(-1, D) @ tokens(D, D)).reshape(x.shape),
    "there and back": lambda x: jnp.roll(jnp.roll(x, 1, 1), -1, 1),
    "one scale for all tokens": quantised,
    "experts by capacity": by_capacity,
    "experts by sort": by_sort,
    "experts' choice": by_experts_choice,
    "branches": lambda x: jax.lax.cond(x[0, 0, 0] > 0, jnp.tanh, jnp.sin, x),
    "a function with a derivative of its own": jax.nn.relu,
}


def poisoned(mix, token):
    """Say which tokens of `x + mix(x)` depend on `token`, by what becomes of NaN: `[T]`."""
    x = tokens().at[:, token].set(jnp.nan)
    return np.isnan(x + mix(x)).any((0, 2))
