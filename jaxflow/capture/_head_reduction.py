"""Reduce the heads of each layer to one matrix: of whole attention, or of each layer as soon as it is computed."""

from __future__ import annotations

import dataclasses
import functools
import operator
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Real

from jaxflow._attention import STACKS, AnyArray, AnyInt, Attention, Mask, at_least_float32, is_traced
from jaxflow.capture._ordering import Numbers, layer_numbers, shape
from jaxflow.capture._recorded import Recorded
from jaxflow.models import Keep, Layer, LayerPlace

Heads = str | AnyInt | Real[ArrayLike, "layer head"] | Sequence[Sequence[float]]
# The residual stream's share of each capacity; it may be traced.
Residual = float | np.floating | Float[Array, ""]
# Of the encoder and of the decoder, `[*batch, token]`, False where padded.
Masks = dict[str, Mask | None]
# Queries and keys of each stack: whose tokens they are.
SIDES = {"encoder": ("encoder", "encoder"), "decoder": ("decoder", "decoder"), "cross": ("decoder", "encoder")}
# Runs a model once, with what is recorded of each layer's weights; None of a model that records nothing.
Run = Callable[[Keep | None], Recorded | None]


def stack_capacities(
    name: str,
    weights: Float[ArrayLike, "*batch layer head query key"],
    *,
    heads: Heads,
    residual: Residual,
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


def reduce_heads(attention: Attention, heads: Heads) -> Attention:
    """Make one head of all, as `joint_capacities` does.

    Args:
        attention: `[*batch, layer, head, query, key]`.
        heads: as in `joint_capacities`.

    Returns:
        `[*batch, layer, 1, query, key]`, float32 at least.

    Raises:
        ValueError: heads that do not exist.
    """
    _check_heads(heads)
    reduced: dict[str, Any] = {}
    for name in STACKS:
        if (weights := getattr(attention, name)) is not None:
            reduce = head_reduction(heads, f"Attention.{name}", weights.shape)
            reduced[name] = reduce(at_least_float32(weights))[..., None, :, :]
    return dataclasses.replace(attention, **reduced)


def run_reduced(run: Run, heads: Heads) -> Recorded | None:
    """Run a model so that the heads of each layer are reduced as soon as they are computed.

    Weights that differ from layer to layer need each layer's number in its stack before the run: the model is run over shapes
    first, which computes nothing. Inside an `nn.scan` all layers are one piece of code, which does not know its number: there,
    and for such weights alone, heads are kept until the scan is done.

    Args:
        run: runs the model once.
        heads: as in `joint_capacities`.

    Returns:
        What `run` returns, with weights `[*scans, *batch, 1, query, key]`, float32 at least.

    Raises:
        ValueError: heads that do not exist.
    """
    _check_heads(heads)
    if is_named(heads) or is_index(heads):
        return run(lambda place, weights: _reduce_layer(heads, str(place), weights))
    numbers = _number_layers(run, heads)

    def keep(place: LayerPlace, weights: jax.Array) -> jax.Array:
        number = numbers[place.path, place.index]
        return weights if number.ndim else _reduce_layer(jnp.asarray(heads)[number][None], str(place), weights)

    def reduce_scanned(layer: Layer) -> Layer:
        place, weights = layer
        number = numbers[place.path, place.index]
        if not number.ndim:
            return layer
        n_batch = weights.ndim - number.ndim - 3
        rows = jnp.asarray(heads)[number].reshape(*number.shape, *(1,) * n_batch, -1)
        return place, weigh_heads(at_least_float32(weights), rows)[..., None, :, :]

    recorded = run(keep)
    if recorded is None:
        return None
    stacks = {role: [reduce_scanned(layer) for layer in layers] for role, layers in recorded.stacks.items()}
    return dataclasses.replace(recorded, stacks=stacks)


def _reduce_layer(heads: Heads, name: str, weights: jax.Array) -> jax.Array:
    """Reduce the heads of one layer: `[*batch, head, query, key]` -> `[*batch, 1, query, key]`."""
    weights = at_least_float32(jnp.asarray(weights))[..., None, :, :, :]
    # Else XLA puts this off until all layers are stacked, and holds their weights until then.
    return jax.lax.optimization_barrier(head_reduction(heads, name, weights.shape)(weights))


def _number_layers(run: Run, heads: Heads) -> Numbers:
    """Return the number of each layer in its stack, after a check that there are heads for it."""
    layers_of: dict[str, list[tuple[LayerPlace, tuple[int, ...], tuple[int, ...]]]] = {}

    def run_shapes() -> None:
        recorded = run(None)
        for role, layers in ({} if recorded is None else recorded.stacks).items():
            layers_of[role] = [(layer[0], layer[1].shape[: len(layer[0].scans)], shape(layer)) for layer in layers]

    jax.eval_shape(run_shapes)
    numbers = {}
    for role, layers in layers_of.items():
        found = layer_numbers([(place, steps) for place, steps, _ in layers])
        n_layers = sum(number.size for number in found.values())
        for *_, layer_shape in layers:
            head_reduction(heads, f"Attention.{role}", (n_layers, *layer_shape[-3:]))  # for its checks
        numbers.update(found)
    return numbers


def head_reduction(heads: Heads, name: str, shape: tuple[int, ...]) -> Callable[[Any], Any]:
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
            return lambda weights: weights.max(-3)
        return lambda weights: functools.reduce(operator.add, _heads_of(weights)) / n_heads
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


def _heads_of(weights: Float[AnyArray, "*shape head query key"]) -> Any:
    """Return the weights of each head."""
    return np.moveaxis(weights, -3, 0) if isinstance(weights, np.ndarray) else jnp.unstack(weights, axis=-3)


def weigh_heads(
    weights: Float[Array, "*shape head query key"], head_weights: Real[Array, "*#shape head"]
) -> Float[Array, "*shape query key"]:
    """Sum heads, each times its weight; axes of length 1 in `head_weights` are broadcast."""
    head_weights = head_weights.astype(weights.dtype)[..., None, None]
    return functools.reduce(operator.add, _heads_of(head_weights * weights))


def capacities_on_host(
    name: str,
    weights: Float[np.ndarray, "*batch layer 1 query key"],
    *,
    residual: float,
    masks: Masks,
) -> Float[np.ndarray, "*batch layer query key"]:
    """Do what `stack_capacities` does for one head: the same operations, in the same order, in NumPy."""
    weights = at_least_float32(np.asarray(weights))[..., 0, :, :]
    identity = np.eye(weights.shape[-2], weights.shape[-1], dtype=weights.dtype)[None]
    query, key = SIDES[name]
    for mask, is_key in ((masks[query], False), (masks[key], True)):
        if mask is not None:
            seen = np.asarray(mask, bool)
            visible = seen[..., None, None, :] if is_key else seen[..., None, :, None]
            weights, identity = np.where(visible, weights, 0), np.where(visible, identity, 0)
    capacity = (1 - residual) * weights
    return capacity + residual * identity if query == key else capacity


def _check_heads(heads: Heads) -> None:
    if not is_named(heads) and not is_index(heads) and np.ndim(heads) != 2:
        raise ValueError(f"heads has shape {np.shape(heads)}; expected weights [layer, head].")


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
    residual: Residual,
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
