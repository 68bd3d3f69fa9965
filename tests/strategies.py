"""Attention for tests: what models give, and what they could give. NumPy alone, and few shapes, since JAX compiles for each."""

import numpy as np
from hypothesis import strategies as st

KINDS = ("softmax", "flat", "peaked", "ties", "one_hot", "tiny", "identity", "uniform", "causal", "sparse")


def make_attention(kind, seed, shape):
    """Attention `[*batch, layer, head, query, key]`, float32, of one of `KINDS`; rows sum to 1."""
    rng = np.random.default_rng(seed)
    n = shape[-1]
    scale = {"flat": 0.1, "peaked": 20.0}.get(kind, 2.0)
    weights = np.exp(scale * rng.normal(size=shape))
    if kind == "ties":  # of few different numbers, some of them 0
        weights = rng.integers(0, 4, size=shape) + 0.0
        weights[..., 0] += weights.sum(-1) == 0
    elif kind == "one_hot":
        weights = np.eye(n)[rng.integers(0, n, size=shape[:-1])]
    elif kind == "tiny":  # next to 1, down to what float32 cannot hold
        weights = 10.0 ** rng.integers(-50, -3, size=shape)
        np.put_along_axis(weights, rng.integers(0, n, size=(*shape[:-1], 1)), 1.0, axis=-1)
    elif kind == "identity":
        weights = np.broadcast_to(np.eye(n), shape)
    elif kind == "uniform":
        weights = np.ones(shape)
    elif kind == "causal":
        weights = weights * np.tri(n)
    elif kind == "sparse":  # at most two keys for each query
        weights = weights * (weights >= np.sort(weights, axis=-1)[..., [-min(2, n)]])
    return (weights / weights.sum(-1, keepdims=True)).astype(np.float32)


def attention(shape, kinds=KINDS):
    """Strategy of attention of one shape."""
    return st.builds(make_attention, st.sampled_from(kinds), st.integers(0, 2**32 - 1), st.just(shape))


def capacities(n_layers, n_tokens, kinds=KINDS):
    """Strategy of row-stochastic capacities `[layer, query, key]`, float64, with a residual of 0, 0.3 or 0.5."""

    def make(kind, seed, layers, tokens, residual):
        weights = make_attention(kind, seed, (layers, tokens, tokens)).astype(np.float64)
        weights /= weights.sum(-1, keepdims=True)
        return (1 - residual) * weights + residual * np.eye(tokens)

    return st.builds(
        make,
        st.sampled_from(kinds),
        st.integers(0, 2**32 - 1),
        st.integers(*n_layers),
        st.integers(*n_tokens),
        st.sampled_from((0.0, 0.3, 0.5)),
    )


def sixteenths(n_layers, n_tokens):
    """Strategy of capacities that add up without rounding: whole sixteenths, many of them equal and many 0."""

    def make(seed, layers, tokens, largest):
        return np.random.default_rng(seed).integers(0, largest + 1, size=(layers, tokens, tokens)) / 16

    return st.builds(
        make,
        st.integers(0, 2**32 - 1),
        st.integers(*n_layers),
        st.integers(*n_tokens),
        st.sampled_from((1, 2, 5, 100)),
    )
