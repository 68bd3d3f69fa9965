"""Attention -> Capacities: heads reduced, the residual stream added, padding cut off."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, cast

import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, ArrayLike, Bool, Float, Real

from jaxflow import _display
from jaxflow._attention import (
    STACKS,
    AnyArray,
    Attention,
    SourceMask,
    TargetMask,
    check_architecture,
    check_attention,
    check_mask,
    is_traced,
    numpy_of,
)
from jaxflow.capture import (
    Contributions,
    Heads,
    Masks,
    Residual,
    capacities_on_host,
    reduce_heads,
    stack_capacities,
)
from jaxflow.network._contributions import Sign, evidence_along
from jaxflow.network._layers import is_layers, join_layers
from jaxflow.network._weighting import Weighting, check_weighting, weigh_attention


@struct.dataclass
class Capacities:
    """What each layer can carry from a key to a query: attention over heads, plus the residual stream.

    Attributes:
        encoder: `[*batch, layer, source, source]`.
        decoder: `[*batch, layer, target, target]`.
        cross: `[*batch, layer, target, source]`.
        encoder_mask: `[*batch, source]`, False where padded; None when nothing is.
        decoder_mask: `[*batch, target]`, likewise.
        residual: `[*batch]`, the residual stream's share r, which a decoder layer with two attentions needs once more.

    Source: `½A + ½I` of Abnar & Zuidema 2020 (2005.00928), section 3.2; the networks of Metzger et al. 2022 (2205.15389).
    """

    encoder: Real[AnyArray, "*batch _layer source source"] | None = None
    decoder: Real[AnyArray, "*batch layer target target"] | None = None
    cross: Real[AnyArray, "*batch layer target source"] | None = None
    encoder_mask: Bool[AnyArray, "*batch source"] | None = None
    decoder_mask: Bool[AnyArray, "*batch target"] | None = None
    residual: Float[ArrayLike, " *batch"] | None = None

    def __treescope_repr__(self, path: str | None, subtree_renderer: Any) -> Any:
        return _display.arrays(self, path, subtree_renderer, axes=("layer", "query", "key"))


def joint_capacities(
    attention: Attention | Contributions | Iterator[Attention | Float[ArrayLike, "*batch head source source"]],
    *,
    heads: Heads = "mean",
    residual: Residual = 0.5,
    weighting: Weighting = "attention",
    gradients: Attention | None = None,
    encoder_mask: SourceMask | None = None,
    decoder_mask: TargetMask | None = None,
) -> Capacities:
    """Reduce heads and add the residual stream: `C = (1 - r) * A + r * I`.

    A is the attention reduced over heads and r the residual; cross-attention has no residual of its own, so there
    `C = (1 - r) * A`. Pure: goes through `jit`, `vmap` and `grad`. A padded token keeps no arc at all, its residual
    arc included, so padding scores exactly 0 and a batch gives exactly what its rows give alone.

    With another weighting, A is `relu(G)` or `relu(A * G)` in each head, before heads are reduced, G being the gradients of a
    number that the model computed: capacities are specific to that number then. Their rows do not sum to 1, and their unit
    is that number's, while the residual stays r: at a residual of 0 scores double with the number, and above 0 the residual
    stream then weighs relatively less.

    Args:
        attention: `Attention` with any number of leading batch axes; or an iterator over its layers, from the first to the last
            (`iter(layers)` of a list): an encoder's as `[*batch, head, query, key]`, any as an `Attention` of one layer. Heads
            are reduced as a layer arrives, before the next is asked for, so only one layer's are held; the result is the
            same, bit for bit. Or `Contributions`, for capacities as `jaxflow.network.contribution_capacities` makes them, of
            what speaks for the target; these have no heads, residual, weighting or masks any more.
        heads: "mean", "max", the index of one head, or weights `[layer, head]` (finite, not negative) whose weighted
            sum is taken. Rows of C sum to 1 for the mean, for one head, and for weights that sum to 1 in each layer.
        residual: r in [0, 1]; 0.5 is Abnar & Zuidema's choice, 0 leaves the residual stream out.
        weighting: "attention", "gradient" (`relu(G)`) or "attention_gradient" (`relu(A * G)`).
        gradients: G, of the shapes of the attention, as `attention_gradients` returns them; for the other two weightings alone.
        encoder_mask: `[*batch, source]`, False (or 0) where the source is padded.
        decoder_mask: `[*batch, target]`, False (or 0) where the target is padded.

    Returns:
        `Capacities`, float32 (float64 if the attention is), with the masks it was made with.

    Raises:
        ValueError: attention that is none, a residual outside [0, 1], heads that do not exist, masks that do not fit; no
            layers, or layers that differ in shape; gradients that are missing, do not fit, are not finite, or come with layers
            one by one.
        TypeError: neither an `Attention` nor layers.

    Example:
        >>> import jax.numpy as jnp
        >>> weights = jnp.array([[0.75, 0.25], [0.5, 0.5]])[None, None]
        >>> joint_capacities(Attention(encoder=weights)).encoder
        Array([[[0.875, 0.125],
                [0.25 , 0.75 ]]], dtype=float32)
        >>> joint_capacities(weights[0] for _ in range(3)).encoder.shape
        (3, 2, 2)

    Source: AF, GF and AGF of Azarkhalili & Libbrecht 2025 (2502.15765) for the weightings.
    """
    if isinstance(attention, Contributions):
        is_plain = isinstance(heads, str) and heads == "mean" and not is_traced(residual) and residual == 0.5
        given = any(each is not None for each in (gradients, encoder_mask, decoder_mask))
        if not is_plain or weighting != "attention" or given:
            raise ValueError(
                "heads, residual, weighting, gradients and masks are of attention, and contributions are given, which are summed "
                "over heads and 0 in padding: leave these options out."
            )
        return contribution_capacities(attention)
    residual = check_residual(residual)
    check_weighting(weighting, gradients)
    masks = {"encoder": encoder_mask, "decoder": decoder_mask}
    if isinstance(attention, Attention):
        check_attention(attention, encoder_mask=encoder_mask, decoder_mask=decoder_mask)
        attention = weigh_attention(attention, weighting=weighting, gradients=gradients, masks=masks)
        return build_capacities(attention, heads=heads, residual=residual, masks=masks)
    if is_layers(attention):
        if gradients is not None:
            raise ValueError(
                "gradients are given with layers one by one; expected one Attention of all layers, as the gradients are."
            )
        stacks = join_layers(attention, heads=heads, residual=residual, masks=masks)
        return _with_masks(stacks, residual, masks)
    raise TypeError(
        f"got {type(attention).__name__}; expected an Attention (an encoder's array becomes one by Attention(encoder=array)), "
        "or an iterator over layers (iter(layers))."
    )


def weighted_on_host(
    attention: Attention,
    gradients: Attention,
    *,
    heads: Heads,
    residual: Residual,
    weighting: Weighting,
    masks: Masks,
) -> Capacities:
    """Do what `joint_capacities` does with gradients, of arrays that are on the host; what it makes stays there.

    Raises:
        ValueError: as `joint_capacities`.
    """
    check_attention(attention, encoder_mask=masks["encoder"], decoder_mask=masks["decoder"])
    weighed = weigh_attention(attention, weighting=weighting, gradients=gradients, masks=masks)
    return build_of_one_head(reduce_heads(weighed, heads), residual=residual, masks=masks)


def contribution_capacities(contributions: Contributions, *, sign: Sign = "support") -> Capacities:
    """Let each arc carry what speaks for the target there, and each position pass on what came to it and speaks for it.

    An arc's capacity is `max(a, 0)`. What stays at a position is held apart by sign, so that evidence for and against, which meet
    there, do not cancel: from the inputs upwards, the positive part of what a position holds is the positive part that stayed and
    all that came in by arcs with a > 0. Where no arc is negative, these are the contributions themselves, and a token's
    maximum flow is what it gave. Pure: goes through `jit`, `vmap` and `grad`.

    Args:
        contributions: as `capture_contributions` returns them.
        sign: "support", what speaks for the target; "opposition", what speaks against it.

    Returns:
        `Capacities`, `[*batch, layer, query, key]`, in the target's unit. Layers of a decoder with cross-attention have two arcs
        into a position side by side: `flow_network(capacities, decoder_layer="parallel")`.

    Raises:
        ValueError: no such sign.
    """
    return Capacities(**evidence_along(contributions, sign=sign))


def build_capacities(attention: Attention, *, heads: Heads, residual: Residual, masks: Masks) -> Capacities:
    """Do what `joint_capacities` does, with attention, masks and a residual that were checked."""
    stacks = {
        name: stack_capacities(name, weights, heads=heads, residual=residual, masks=masks)
        for name in STACKS
        if (weights := getattr(attention, name)) is not None
    }
    return _with_masks(stacks, residual, masks)


def build_of_one_head(attention: Attention, *, residual: Residual, masks: Masks) -> Capacities:
    """Do what `build_capacities` does, with attention of one head; what is on the host stays there.

    Raises:
        ValueError: a residual outside [0, 1].
    """
    residual = check_residual(residual)
    if not isinstance(residual, float) or numpy_of(attention, masks) is not np:
        return build_capacities(attention, heads=0, residual=residual, masks=masks)
    stacks: dict[str, Any] = {
        name: capacities_on_host(name, weights, residual=residual, masks=masks)
        for name in STACKS
        if (weights := getattr(attention, name)) is not None
    }
    return _with_masks(stacks, residual, masks)


def _with_masks(stacks: Mapping[str, AnyArray], residual: Residual, masks: Masks) -> Capacities:
    some, numpy = next(iter(stacks.values())), numpy_of(stacks)
    encoder_mask, decoder_mask = (None if mask is None else numpy.asarray(mask, bool) for mask in masks.values())
    return Capacities(
        **stacks,
        encoder_mask=encoder_mask,
        decoder_mask=decoder_mask,
        residual=numpy.full(some.shape[:-3], residual, some.dtype),
    )


def check_residual(residual: Residual) -> Residual:
    """Return the residual as a plain number, unless it is traced.

    Raises:
        ValueError: a residual outside [0, 1].
    """
    if is_traced(residual):
        return residual
    if not 0 <= residual <= 1:
        raise ValueError(
            f"residual is {residual}; expected a number in [0, 1], the residual stream's share of each capacity."
        )
    return float(residual)  # a NumPy scalar's type would win over float32


def as_capacities(
    attention: Attention | Capacities | Float[ArrayLike, "*batch layer head source source"] | Iterator[Any],
    *,
    heads: Heads | None = None,
    residual: Residual | None = None,
    encoder_mask: SourceMask | None = None,
    decoder_mask: TargetMask | None = None,
) -> Capacities:
    """Let a pipeline be entered at any stage: arrays, layers one by one, `Attention` or `Capacities`.

    Options that are None take the defaults of `joint_capacities`.

    Raises:
        ValueError: as `joint_capacities`; or options that come too late, since the capacities are already made.
    """
    options = {
        "heads": heads,
        "residual": residual,
        "encoder_mask": encoder_mask,
        "decoder_mask": decoder_mask,
    }
    given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    if isinstance(attention, Capacities):
        if given:
            raise ValueError(
                f"{', '.join(given)} given together with Capacities, which are already made: pass them to joint_capacities."
            )
        check_capacities(attention)
        return attention
    if not isinstance(attention, Attention | Contributions) and not is_layers(attention):
        attention = Attention(encoder=cast(Array, attention))  # anything else is refused by check_attention
    return joint_capacities(cast(Any, attention), **given)


def uniform_capacities(capacities: Capacities) -> Capacities:
    """Let every query attend equally to all keys that it attends to at all, at the same residual.

    Raises:
        ValueError: capacities that do not say their residual.
    """
    if capacities.residual is None:
        raise ValueError(
            "Uniform attention needs the residual: make the capacities with joint_capacities, or set residual."
        )
    numpy = numpy_of(capacities)
    residual = numpy.asarray(capacities.residual)[..., None, None, None]

    def uniform(capacity: AnyArray | None, *, is_self: bool) -> AnyArray | None:
        if capacity is None:
            return None
        seen = (numpy.asarray(capacity) > 0).astype(capacity.dtype)
        each = (1 - residual) * seen / numpy.maximum(seen.sum(-1, keepdims=True), 1)
        if not is_self:
            return each
        identity = numpy.eye(seen.shape[-1], dtype=seen.dtype)[(None,) * (seen.ndim - 2)]
        return each + residual * seen * identity

    return dataclasses.replace(
        capacities,
        encoder=uniform(capacities.encoder, is_self=True),
        decoder=uniform(capacities.decoder, is_self=True),
        cross=uniform(capacities.cross, is_self=False),
    )


def lengths(capacities: Capacities) -> tuple[int, int]:
    """Return how many source and target tokens there are; 0 for a stack that is not there."""
    encoder, decoder, cross = capacities.encoder, capacities.decoder, capacities.cross
    n_source = cross.shape[-1] if cross is not None else 0 if encoder is None else encoder.shape[-1]
    return n_source, 0 if decoder is None else decoder.shape[-1]


def batch_of(capacities: Capacities) -> tuple[int, ...]:
    """Return the shape of the batch axes.

    Raises:
        ValueError: capacities that are no arrays.
    """
    _check_arrays(capacities)
    stack = capacities.encoder if capacities.encoder is not None else capacities.decoder
    return () if stack is None else stack.shape[:-3]


def _check_arrays(capacities: Capacities) -> None:
    for name in STACKS:
        capacity = getattr(capacities, name)
        if capacity is not None and not hasattr(capacity, "shape"):
            raise ValueError(
                f"Capacities.{name} is a {type(capacity).__name__}; expected one array, [*batch, layer, query, key]: "
                f"np.asarray({name}) makes one of lists of numbers."
            )


def check_capacities(capacities: Capacities) -> None:
    """Raise if `capacities` are none: rank and lengths always, values (finite, not negative) where there are values.

    Raises:
        ValueError: says what was got, what was expected and what to do.
    """
    stacks = {name: getattr(capacities, name) for name in STACKS if getattr(capacities, name) is not None}
    if not stacks:
        raise ValueError("Capacities hold no stack: give encoder, [*batch, layer, query, key].")
    _check_arrays(capacities)
    for name, capacity in stacks.items():
        shape = tuple(jnp.shape(capacity))
        if len(shape) < 3:
            raise ValueError(
                f"Capacities.{name} has shape {shape}; expected at least rank 3, [*batch, layer, query, key]. "
                "Did you forget vmap, or drop an axis?"
            )
        if 0 in shape:
            raise ValueError(
                f"Capacities.{name} has no examples, layers or tokens: its shape is {shape}, [*batch, layer, query, key]."
            )
        if name != "cross" and shape[-1] != shape[-2]:
            raise ValueError(
                f"Capacities.{name} has {shape[-2]} queries and {shape[-1]} keys; expected as many of each."
            )
        if not is_traced(capacity) and not (np.isfinite(capacity) & (np.asarray(capacity) >= 0)).all():
            raise ValueError(
                f"Capacities.{name} holds values that are negative, NaN or infinite; expected finite ones >= 0."
            )
    check_architecture("Capacities", {name: stack.shape for name, stack in stacks.items()}, n_axes=3)
    for name, mask, sides in (
        ("encoder_mask", capacities.encoder_mask, (("encoder", -2), ("encoder", -1), ("cross", -1))),
        ("decoder_mask", capacities.decoder_mask, (("decoder", -2), ("decoder", -1), ("cross", -2))),
    ):
        masked = {(stack, axis): stacks[stack] for stack, axis in sides if stack in stacks}
        check_mask(name, mask, {stack: (*c.shape[:-3], c.shape[axis]) for (stack, axis), c in masked.items()})
        for (stack, axis), capacity in masked.items():
            if mask is None or is_traced(mask, capacity):
                continue
            hidden = np.logical_not(mask)
            padded = hidden[..., None, None, :] if axis == -1 else hidden[..., None, :, None]
            if (padded & (np.asarray(capacity) > 0)).any():
                raise ValueError(
                    f"Capacities.{stack} has arcs of tokens that {name} marks as padding; expected 0 there. "
                    "joint_capacities(attention, ...) with that mask cuts them off."
                )
