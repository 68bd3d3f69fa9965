"""Heads -> one matrix per layer, and one stack's capacities from it."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float

from jaxflow._attention import at_least_float32, is_traced

Heads = str | int | Float[ArrayLike, "layer head"]
# Of the encoder and of the decoder, `[*batch, token]`, False where padded.
Masks = dict[str, Bool[ArrayLike, "*batch token"] | None]
# Queries and keys of each stack: whose tokens they are.
SIDES = {"encoder": ("encoder", "encoder"), "decoder": ("decoder", "decoder"), "cross": ("decoder", "encoder")}


def stack_capacities(
    name: str,
    weights: Float[ArrayLike, "*batch layer head query key"],
    *,
    heads: Heads,
    residual: float,
    masks: Masks,
) -> Float[Array, "*batch layer query key"]:
    """Turn one stack's attention into capacities, as `joint_capacities` does with each.

    Args:
        name: "encoder", "decoder" or "cross"; cross-attention has no residual.
        weights: checked.
        heads: as in `joint_capacities`.
        residual: r, checked.
        masks: checked.

    Raises:
        ValueError: heads that do not exist.
    """
    weights = jnp.asarray(weights)
    query, key = SIDES[name]
    unbatched = functools.partial(
        _capacities,
        reduce=head_reduction(heads, f"Attention.{name}", weights.shape),
        residual=residual,
        is_self=query == key,
    )
    batched = functools.reduce(lambda f, _: jax.vmap(f), range(weights.ndim - 4), unbatched)
    return batched(weights, *(None if masks[side] is None else jnp.asarray(masks[side], bool) for side in (query, key)))


def head_reduction(heads: Heads, name: str, shape: tuple[int, ...]) -> Callable[[Array], Array]:
    """Return the function `[*batch, layer, head, query, key] -> [*batch, layer, query, key]` that `heads` names.

    It adds one head after the other: a reduction of XLA's adds in an order that depends on how many tokens there are,
    so a padded example would differ in the last bit from the same example alone.

    Args:
        heads: as in `joint_capacities`.
        name: whose heads these are, for messages.
        shape: of the attention.

    Raises:
        ValueError: heads that do not exist.
    """
    n_layers, n_heads = shape[-4:-2]
    if is_named(heads):
        if heads == "max":
            return functools.partial(jnp.max, axis=-3)
        return lambda weights: functools.reduce(operator.add, jnp.unstack(weights, axis=-3)) / n_heads
    if is_index(heads):
        if not 0 <= heads < n_heads:  # type: ignore[operator]
            raise ValueError(f"heads is {heads}, but {name} has {n_heads} heads: expected 0 to {n_heads - 1}.")
        return lambda weights: weights[..., heads, :, :]
    if np.shape(heads) != (n_layers, n_heads):
        raise ValueError(
            f"heads has shape {np.shape(heads)}; expected weights {(n_layers, n_heads)}, [layer, head], for "
            f"{name} {tuple(shape)}."
        )
    if not is_traced(heads) and not (np.isfinite(heads) & (np.asarray(heads) >= 0)).all():
        raise ValueError("heads holds weights that are negative, NaN or infinite; expected finite weights >= 0.")

    return lambda weights: weigh_heads(weights, jnp.asarray(heads)[(None,) * (weights.ndim - 4)])


def weigh_heads(
    weights: Float[Array, "*shape head query key"], head_weights: Float[Array, "*shape head"]
) -> Float[Array, "*shape query key"]:
    """Sum heads, each times its weight; axes of length 1 in `head_weights` are broadcast."""
    head_weights = head_weights.astype(weights.dtype)[..., None, None]
    return functools.reduce(operator.add, jnp.unstack(head_weights * weights, axis=-3))


def is_named(heads: Heads) -> bool:
    """Whether `heads` is the name of a reduction; raises if it is another text."""
    if isinstance(heads, str) and heads not in ("mean", "max"):
        raise ValueError(f"heads is {heads!r}; expected 'mean', 'max', the index of a head, or weights [layer, head].")
    return isinstance(heads, str)


def is_index(heads: Heads) -> bool:
    """Whether `heads` is the index of one head."""
    return isinstance(heads, int | np.integer) and not isinstance(heads, bool)


def _capacities(
    weights: Float[Array, "layer head query key"],
    query_mask: Bool[Array, " query"] | None,
    key_mask: Bool[Array, " key"] | None,
    *,
    reduce: Callable[[Array], Array],
    residual: float,
    is_self: bool,
) -> Float[Array, "layer query key"]:
    weights = at_least_float32(weights)
    identity = jnp.eye(weights.shape[-2], weights.shape[-1], dtype=weights.dtype)
    # What padding holds may be NaN: hence `where`, not a product, and first of all, or gradients were NaN too.
    for mask, axis in ((query_mask, -1), (key_mask, -2)):
        if mask is not None:
            visible = jnp.expand_dims(mask, axis)
            weights, identity = jnp.where(visible[None, None], weights, 0), jnp.where(visible, identity, 0)
    capacity = (1 - residual) * reduce(weights)
    return capacity + residual * identity[None] if is_self else capacity
