"""Attention that comes layer by layer -> capacities: heads are reduced as each layer arrives, so those of one are held."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Real

from jaxflow._attention import (
    STACKS,
    AnyArray,
    AnyInt,
    Attention,
    check_architecture,
    check_mask,
    check_rows,
    check_shape,
    is_traced,
)
from jaxflow.capture import SIDES, Heads, Masks, Residual, is_index, is_named, stack_capacities

_END = object()


def join_layers(
    layers: Iterator[Any],
    *,
    heads: Heads,
    residual: Residual,
    masks: Masks,
) -> dict[str, Array]:
    """Turn layers into capacities one after the other, and join those of each stack in the order in which they came.

    A layer is let go before the next one is asked for. What a generator's own variables hold, it holds.

    Args:
        layers: a layer of an encoder's attention each, `[*batch, head, query, key]`; or each an `Attention` of one
            layer, `[*batch, 1, head, query, key]`, of the stacks it has.
        heads: as in `joint_capacities`; weights are those of a layer's number in its own stack.
        residual: r, checked.
        masks: as given.

    Returns:
        For each stack `[*batch, layer, query, key]`, bit for bit what all layers at once give.

    Raises:
        ValueError: no layer, layers that differ, that are no attention or for which there are no heads.
    """
    found: dict[str, list[Array]] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    n_came = 0
    # No loop variable, and no enumerate, which would hold a layer until the next one is there.
    while (layer := next(layers, _END)) is not _END:
        try:
            for name, weights in _stacks(layer).items():
                _check_layer(name, weights, shapes.get(name), masks)
                row = _heads_of_layer(heads, name, len(found.get(name, ())), weights.shape[-3])
                capacity = stack_capacities(name, weights, heads=row, residual=residual, masks=masks)
                if name in found and capacity.dtype != found[name][0].dtype:
                    raise ValueError(
                        f"{name} comes in a precision that gives {capacity.dtype}, after layers that gave "
                        f"{found[name][0].dtype}; expected the same for all."
                    )
                shapes[name] = tuple(weights.shape)
                # Else a generator could be asked for many layers before the first was reduced.
                found.setdefault(name, []).append(capacity if is_traced(capacity) else jax.block_until_ready(capacity))
                del weights
        except ValueError as error:
            raise ValueError(f"Layer {n_came} of those handed over one by one (from 0): {error}") from None
        n_came += 1
        del layer
    if not n_came:
        raise ValueError(
            "There are no layers: what was to hand them over ended at once. A generator can be read only once: was it read "
            "before? Make it anew, or keep the layers in a list and pass iter(layers)."
        )
    _check_whole(found, shapes, heads, masks)
    return {name: jnp.concatenate(found[name], axis=-3) for name in STACKS if name in found}


def is_layers(given: Any) -> bool:
    """Whether `given` hands over layers one by one. A list does not: it could as well be one of examples."""
    return isinstance(given, Iterator)


def _stacks(layer: Any) -> dict[str, AnyArray]:
    """Return one layer's stacks, `[*batch, 1, head, query, key]`."""
    if not isinstance(layer, Attention):
        if not hasattr(layer, "dtype") or np.ndim(layer) < 3:
            got = f"shape {tuple(layer.shape)}" if hasattr(layer, "shape") else type(layer).__name__
            raise ValueError(
                f"got {got}; expected one layer of an encoder, [*batch, head, query, key], or an Attention of one layer."
            )
        return {"encoder": layer[..., None, :, :, :]}
    stacks = {name: getattr(layer, name) for name in STACKS if getattr(layer, name) is not None}
    if not stacks:
        raise ValueError("this Attention holds no stack: encoder, decoder and cross are all None.")
    for name, weights in stacks.items():
        check_shape(name, weights)
        if weights.shape[-4] != 1:
            raise ValueError(
                f"Attention.{name} has shape {tuple(weights.shape)}, [*batch, layer, head, query, key], and so "
                f"{weights.shape[-4]} layers; expected 1. An axis for it is added by weights[..., None, :, :, :]."
            )
    return stacks


def _check_layer(name: str, weights: AnyArray, before: tuple[int, ...] | None, masks: Masks) -> None:
    check_shape(name, weights)
    batch, (query, key) = tuple(weights.shape[:-4]), SIDES[name]
    if before is not None and tuple(weights.shape) != before:
        raise ValueError(
            f"{name} has shape {_without_layer(weights.shape)}, [*batch, head, query, key], after layers of shape "
            f"{_without_layer(before)}; expected the same for all layers of a stack."
        )
    for side, n_tokens in ((query, weights.shape[-2]), (key, weights.shape[-1])):
        check_mask(f"{side}_mask", masks[side], {name: (*batch, n_tokens)})
    check_rows(name, weights, masks[query])


def _heads_of_layer(heads: Heads, name: str, number: int, n_heads: int) -> str | AnyInt | Real[ArrayLike, "1 head"]:
    """Return what of `heads` is for one layer."""
    if is_named(heads) or is_index(heads):
        return heads  # type: ignore[return-value]
    shape = np.shape(heads)
    if len(shape) != 2 or shape[1] != n_heads:
        raise ValueError(
            f"heads has shape {shape}; expected weights [layer, head], for {n_heads} heads of each layer of {name}."
        )
    if number >= shape[0]:
        raise ValueError(
            f"heads has weights for {shape[0]} layers, and none for layer {number} of {name}: expected one row per layer."
        )
    return (heads if hasattr(heads, "dtype") else np.asarray(heads))[number : number + 1]  # type: ignore[index, return-value]


def _check_whole(
    found: dict[str, list[Array]],
    shapes: dict[str, tuple[int, ...]],
    heads: Heads,
    masks: Masks,
) -> None:
    """Check what is known only when all layers are there."""
    whole = {name: (*shape[:-4], len(found[name]), *shape[-3:]) for name, shape in shapes.items()}
    check_architecture("The layers handed over one by one", whole, n_axes=4)
    for side, mask in masks.items():
        if mask is not None and not any(side in SIDES[name] for name in found):
            check_mask(f"{side}_mask", mask, {})
    for name, layers in found.items():
        if not (is_named(heads) or is_index(heads)) and len(layers) != np.shape(heads)[0]:
            raise ValueError(
                f"heads has weights for {np.shape(heads)[0]} layers, but {len(layers)} layers of {name} came; expected as many."
            )


def _without_layer(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (*shape[:-4], *shape[-3:])
