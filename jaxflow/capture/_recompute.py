"""Compute the attention that a fused kernel keeps to itself, from its queries and keys."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float

from jaxflow._attention import AnyArray, at_least_float32


def attention_weights(
    query: Float[AnyArray, "*batch query head feature"],
    key: Float[AnyArray, "*batch key group feature"],
    *,
    mask: Bool[ArrayLike, "*#batch #head #query key"] | None = None,
    bias: Float[ArrayLike, "*#batch #head #query key"] | None = None,
    scale: float | None = None,
    causal: bool = False,
    window: int | tuple[int, int] | None = None,
    soft_cap: float | None = None,
    sinks: Float[ArrayLike, " head"] | None = None,
) -> Float[Array, "*batch head query key"]:
    """Compute softmax(query key^T), the weights of one layer whose attention is fused.

    A fused kernel (flash attention, cuDNN, Pallas) never holds its weights, so `capture` cannot take them. Where the model can
    be made to return queries and keys, after rotary positions and norms, as the kernel gets them, this returns what the
    kernel weighs values by. Arguments mean what they do in `jax.nn.dot_product_attention`. Stack the layers with
    `jnp.stack(weights, axis=-4)` and give them to `Attention(encoder=...)`.

    Args:
        query: `[*batch, query, head, feature]`.
        key: `[*batch, key, group, feature]`; each group of keys serves `head / group` consecutive heads.
        mask: `[*batch, head, query, key]`, True where a query may see a key; all axes but the last may have length 1.
        bias: likewise, added to the scaled logits.
        scale: of the logits; None is `1 / sqrt(feature)`.
        causal: query i sees keys 0 to i.
        window: how many keys to the left and to the right a query sees; one number is both.
        soft_cap: logits become `soft_cap * tanh(logits / soft_cap)`, before masks and after the bias.
        sinks: `[head]`, logits of attention sinks: they take a share of each row and have no key, so rows sum to less than 1.

    Returns:
        `[*batch, head, query, key]`, float32 at least. A query that may see no key has a row of zeros.

    Raises:
        ValueError: the number of heads is no multiple of the number of groups, or shapes do not fit.

    Cost: all weights, `4 * head * query * key` bytes an example.

    >>> import jax
    >>> query = jax.random.normal(jax.random.key(0), (1, 5, 4, 8))
    >>> key = jax.random.normal(jax.random.key(1), (1, 5, 2, 8))
    >>> attention_weights(query, key, causal=True).shape
    (1, 4, 5, 5)

    Source: Vaswani et al. 2017 (1706.03762), 3.2.1; grouped queries Ainslie et al. 2023 (2305.13245); soft cap Gemma 2
    (2408.00118), 2; sinks Xiao et al. 2023 (2309.17453).
    """
    if (
        query.ndim < 3
        or query.ndim != key.ndim
        or query.shape[-1] != key.shape[-1]
        or query.shape[:-3] != key.shape[:-3]
    ):
        raise ValueError(
            f"query has shape {query.shape} and key {key.shape}; expected [*batch, query, head, feature] and "
            "[*batch, key, group, feature] with the same batch and features."
        )
    *batch, n_queries, n_heads, n_features = query.shape
    n_keys, n_groups = key.shape[-3:-1]
    if n_heads % n_groups:
        raise ValueError(
            f"query has {n_heads} heads and key {n_groups}; expected a multiple. Are heads and tokens transposed? "
            "Heads are the last axis but one."
        )
    query, key = (at_least_float32(jnp.asarray(values)) for values in (query, key))
    grouped = query.reshape(*batch, n_queries, n_groups, n_heads // n_groups, n_features)
    logits = jnp.einsum("...qgrf,...kgf->...grqk", grouped, key).reshape(*batch, n_heads, n_queries, n_keys)
    logits = logits * (1 / np.sqrt(n_features) if scale is None else scale)
    if bias is not None:
        logits = logits + _spread(bias, logits).astype(logits.dtype)
    if soft_cap is not None:
        logits = soft_cap * jnp.tanh(logits / soft_cap)
    seen = jnp.ones(logits.shape, bool) if mask is None else _spread(mask, logits).astype(bool)
    offset = jnp.arange(n_keys)[None, :] - jnp.arange(n_queries)[:, None]
    if causal:
        seen = seen & jnp.broadcast_to(offset <= 0, logits.shape)
    if window is not None:
        left, right = (window, window) if isinstance(window, int) else window
        seen = seen & jnp.broadcast_to((offset >= -left) & (offset <= right), logits.shape)
    if sinks is not None:
        sink = jnp.asarray(sinks, logits.dtype).reshape(n_heads, 1, 1)
        logits = jnp.concatenate([logits, jnp.broadcast_to(sink, (*logits.shape[:-1], 1))], -1)
        seen = jnp.concatenate([seen, jnp.ones((*seen.shape[:-1], 1), bool)], -1)
    return jax.nn.softmax(logits, axis=-1, where=seen)[..., :n_keys]


def _spread(values: ArrayLike, logits: Array) -> Array:
    try:
        return jnp.broadcast_to(jnp.asarray(values), logits.shape)
    except ValueError:
        raise ValueError(
            f"mask or bias has shape {np.shape(values)}; expected one that spreads to {logits.shape}, [*batch, head, "
            "query, key]."
        ) from None
