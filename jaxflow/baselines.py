"""Methods that cost no solve, in the same result type: rollout and raw attention."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float

from jaxflow.attention import Attention, is_traced
from jaxflow.attribution import Attribution, check_outputs, encoder_of, normalise_scores
from jaxflow.capacities import Capacities, Heads, as_capacities


def rollout(
    attention: Attention | Capacities | Float[ArrayLike, "*batch layer head source source"],
    *,
    outputs: int | Sequence[int] | None = None,
    heads: Heads | None = None,
    residual: float | None = None,
    encoder_mask: Bool[ArrayLike, "*batch source"] | None = None,
    normalise: bool = False,
) -> Attribution:
    """Multiply the capacities of all layers: `rollout = C_L ... C_2 C_1`.

    One of the maximum flows from all inputs at once, so `rollout[p, i] <= attention_flow[p, i]`, and rows sum to 1.
    Pure: goes through `jit`, `vmap` and `grad`. O(n_layers * n_tokens^3).

    Args:
        attention: as in `attention_flow`.
        outputs: positions to explain; None for all.
        heads: as in `joint_capacities`; "mean" if None.
        residual: as in `joint_capacities`; 0.5 if None.
        encoder_mask: `[*batch, source]`, False where padded.
        normalise: divide each output's scores by their sum.

    Returns:
        `Attribution` of JAX arrays in [0, 1], without certificate.

    Raises:
        ValueError: as `attention_flow`.

    Example:
        >>> layer = jnp.array([[0.75, 0.25], [0.5, 0.5]])
        >>> rollout(jnp.stack([layer, layer])[:, None], residual=0.0).encoder
        Array([[0.6875, 0.3125],
               [0.625 , 0.375 ]], dtype=float32)

    Source: `attention rollout` of Abnar & Zuidema 2020 (2005.00928), section 3.1.
    """
    capacities = as_capacities(attention, heads=heads, residual=residual, encoder_mask=encoder_mask)
    return _attribute(_product, capacities, outputs, normalise)


def raw_attention(
    attention: Attention | Capacities | Float[ArrayLike, "*batch layer head source source"],
    *,
    layer: int = -1,
    outputs: int | Sequence[int] | None = None,
    heads: Heads | None = None,
    encoder_mask: Bool[ArrayLike, "*batch source"] | None = None,
    normalise: bool = False,
) -> Attribution:
    """Take the attention of one layer, heads reduced, without the residual stream: `raw = A_layer`.

    Pure: goes through `jit`, `vmap` and `grad`.

    Args:
        attention: as in `attention_flow`; `Capacities` are taken as they are, with the residual they were made with.
        layer: which layer; the last by default, as Abnar & Zuidema.
        outputs: positions to explain; None for all.
        heads: as in `joint_capacities`; "mean" if None.
        encoder_mask: `[*batch, source]`, False where padded.
        normalise: divide each output's scores by their sum.

    Returns:
        `Attribution` of JAX arrays in [0, 1], without certificate.

    Raises:
        ValueError: as `attention_flow`; a layer that does not exist.

    Source: `raw attention` of Abnar & Zuidema 2020 (2005.00928), section 2.
    """
    residual = None if isinstance(attention, Capacities) else 0.0
    capacities = as_capacities(attention, heads=heads, residual=residual, encoder_mask=encoder_mask)
    n_layers = 0 if capacities.encoder is None else capacities.encoder.shape[-3]
    if n_layers and not -n_layers <= layer < n_layers:
        raise ValueError(
            f"Layer {layer} does not exist: there are {n_layers}, 0 to {n_layers - 1} (or -1 for the last)."
        )
    return _attribute(lambda capacity: capacity[layer], capacities, outputs, normalise)


def _product(capacity: Float[Array, "layer query key"]) -> Float[Array, "output source"]:
    first = jnp.eye(capacity.shape[-1], dtype=capacity.dtype)
    return jax.lax.scan(lambda below, layer: (jnp.matmul(layer, below, precision="highest"), None), first, capacity)[0]


def _attribute(
    scores_of: Callable[[Array], Array],
    capacities: Capacities,
    outputs: int | Sequence[int] | None,
    normalise: bool,
) -> Attribution:
    """Apply an unbatched function of one example's capacities to every example."""
    capacity = jnp.asarray(encoder_of(capacities))
    mask = capacities.encoder_mask
    positions = check_outputs(
        outputs, capacity.shape[-1], None if mask is None or is_traced(mask) else np.asarray(mask)
    )
    scores = functools.reduce(lambda f, _: jax.vmap(f), range(capacity.ndim - 3), scores_of)(capacity)[
        ..., positions, :
    ]
    return Attribution(encoder=normalise_scores(scores) if normalise else scores, outputs=positions)
