"""Interventions on the network: scores anew if a head, a layer, an arc or a token's attention were weaker, or gone."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal, TypeVar

import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Float, Int

from jaxflow._attention import STACKS, AnyArray, AnyInt, Attention, SourceMask, TargetMask, check_attention, is_traced
from jaxflow.attribute._attribution import Attribution
from jaxflow.attribute._flow import AttentionFlow
from jaxflow.attribute.shapley import SetShapley
from jaxflow.capture import Residual
from jaxflow.network import Capacities, Heads, Positions, as_capacities, build_capacities, check_residual

Index = AnyInt | Sequence[AnyInt] | Int[AnyArray, " _index"]
Stack = Literal["encoder", "decoder", "cross"]
Scores = Float[Array | np.ndarray, "*batch output input"]
Weights = TypeVar("Weights", Attention, Capacities)


@dataclasses.dataclass(frozen=True)
class Ablation:
    """Multiply the attention weights that are chosen by `factor`. What is None chooses all.

    `Ablation(0, layer=2, head=1)` removes a head, `Ablation(0, layer=2)` a layer's attention,
    `Ablation(0, layer=2, query=5, key=3)` an arc, `Ablation(0, key=3)` all that others read of a token and
    `Ablation(0, query=3)` all that it reads.

    Attributes:
        factor: 0 or more; may be traced, and differentiated.
        stack: "encoder", "decoder" or "cross"; needed where there are several.
        layer: from 0; one or several, as all that follow.
        head: from 0; of `Attention` alone.
        query: position that reads.
        key: position that is read.
    """

    factor: float | Array
    stack: Stack | None = None
    layer: Index | None = None
    head: Index | None = None
    query: Index | None = None
    key: Index | None = None


@struct.dataclass
class Intervention:
    """Scores before and after. A PyTree.

    Attributes:
        before: `Attribution` of what was given.
        after: `Attribution` of what is left.
    """

    before: Attribution
    after: Attribution

    @property
    def encoder(self) -> Float[np.ndarray, "*batch output source"] | None:
        """`[*batch, output, source]`, change of every score of the encoder's inputs; None without encoder."""
        return _change(self.after.encoder, self.before.encoder)

    @property
    def decoder(self) -> Float[np.ndarray, "*batch output target"] | None:
        """`[*batch, output, target]`, change of every score of the decoder's inputs; None without decoder."""
        return _change(self.after.decoder, self.before.decoder)


def ablate(attention: Weights, ablations: Ablation | Sequence[Ablation], *, renormalise: bool = False) -> Weights:
    """Weaken or remove weights, or capacities, and return a PyTree like the one that was given.

    Weights after an ablation are no probabilities any more unless they are normalised anew, so `joint_capacities` refuses them:
    see `ablated_capacities`. In `Capacities` the residual's share is ablated with the rest.
    Pure: goes through `jit`, `vmap` and `grad`, by the factors too.

    Args:
        attention: `Attention`, or `Capacities`.
        ablations: an `Ablation`, or several.
        renormalise: ablation every row of weights to the sum it had, as a softmax over what is left would; rows that are all 0
            stay so.

    Returns:
        A PyTree like `attention`.

    Raises:
        ValueError: an ablation that chooses what does not exist, or scales by less than 0.
    """
    for ablation in [ablations] if isinstance(ablations, Ablation) else ablations:
        stack = _stack_of(attention, ablation)
        weights = jnp.asarray(getattr(attention, stack))
        factor = jnp.where(_chosen(ablation, stack, weights.shape, is_capacity=isinstance(attention, Capacities)),
                           jnp.asarray(ablation.factor).astype(weights.dtype), jnp.ones((), weights.dtype))  # fmt: skip
        factor = factor.reshape((1,) * (weights.ndim - factor.ndim) + factor.shape)
        left = factor * weights
        if renormalise:
            rest, total = left.sum(-1, keepdims=True), weights.sum(-1, keepdims=True)
            left = left * total / jnp.where(rest > 0, rest, 1)
        changed: dict[str, Any] = {stack: left}
        attention = dataclasses.replace(attention, **changed)
    return attention


def ablated_capacities(
    attention: Attention | Capacities,
    ablations: Ablation | Sequence[Ablation],
    *,
    renormalise: bool = False,
    heads: Heads | None = None,
    residual: Residual | None = None,
    encoder_mask: SourceMask | None = None,
    decoder_mask: TargetMask | None = None,
) -> Capacities:
    """Make the capacities of attention after ablations: what is removed is missing, and the residual stream stays.

    Args:
        attention: as in `ablate`.
        ablations: as in `ablate`.
        renormalise: as in `ablate`.
        heads: as in `joint_capacities`; a head that is removed still counts in the mean.
        residual: as in `joint_capacities`.
        encoder_mask: as in `joint_capacities`.
        decoder_mask: as in `joint_capacities`.

    Returns:
        `Capacities`, for `attention_flow`, `flow_network` or `flow_value`.

    Raises:
        ValueError: as `joint_capacities` for what is left, and as `ablate`.
    """
    masks = {"encoder_mask": encoder_mask, "decoder_mask": decoder_mask}
    if isinstance(attention, Capacities):
        capacities = as_capacities(attention, heads=heads, residual=residual, **masks)
        return ablate(capacities, ablations, renormalise=renormalise)
    check_attention(attention, **masks)
    return build_capacities(  # which does not ask that rows sum to 1
        ablate(attention, ablations, renormalise=renormalise),
        heads="mean" if heads is None else heads,
        residual=check_residual(0.5 if residual is None else residual),
        masks={"encoder": encoder_mask, "decoder": decoder_mask},
    )


def intervene(
    attention: Attention | Capacities,
    ablations: Ablation | Sequence[Ablation],
    method: AttentionFlow | SetShapley | None = None,
    *,
    renormalise: bool = False,
    positions: Positions | None = None,
    encoder_mask: SourceMask | None = None,
    decoder_mask: TargetMask | None = None,
    n_prompt: int | None = None,
) -> Intervention:
    """Tell how every score would change if some of the attention were weaker or gone. The model is not run.

    It answers for the network, not for the model: what a later layer would attend to instead, had an earlier one read
    something else, only a forward pass can tell. Weights that are removed are missing, unless `renormalise` shares them
    out over the row's other keys. A score never rises when weights only fall and nothing is normalised.
    Cost: twice that of the method.

    Args:
        attention: `Attention`, or `Capacities`.
        ablations: what to weaken or remove, one after the other.
        method: how to score; `AttentionFlow()` by default.
        renormalise: as in `ablate`.
        positions: as in `attention_flow`, like all that follow.
        encoder_mask: `[*batch, source]`, False where padded.
        decoder_mask: `[*batch, target]`, likewise.
        n_prompt: for "unrolled", how many of the decoder's first tokens were not generated.

    Returns:
        `Intervention`: `.before`, `.after`, and the change in `.encoder` and `.decoder`.

    Raises:
        ValueError: as `attention_flow` and `ablate`.

    Example:
        >>> layer = jnp.array([[0.75, 0.25], [0.5, 0.5]])
        >>> attention = Attention(encoder=jnp.stack([layer, layer])[:, None])
        >>> intervene(attention, Ablation(0, layer=0, query=1, key=0), AttentionFlow(residual=0.0)).encoder
        array([[-0.25,  0.  ],
               [-0.5 ,  0.  ]])
    """
    method = AttentionFlow() if method is None else method
    making: dict[str, Any] = {"encoder_mask": encoder_mask, "decoder_mask": decoder_mask}
    if not isinstance(attention, Capacities):
        making |= {"heads": method.heads, "residual": method.residual}
    before, after = (
        method(
            ablated_capacities(attention, steps, renormalise=renormalise, **making),
            positions=positions,
            n_prompt=n_prompt,
        )
        for steps in ((), ablations)
    )
    return Intervention(before=before, after=after)


def _change(after: Scores | None, before: Scores | None) -> np.ndarray | None:
    return None if after is None or before is None else np.asarray(after) - np.asarray(before)


def _stack_of(attention: Attention | Capacities, ablation: Ablation) -> str:
    stacks = [name for name in STACKS if getattr(attention, name) is not None]
    if ablation.stack is None and len(stacks) == 1:
        return stacks[0]
    if ablation.stack not in stacks:
        raise ValueError(
            f"Ablation(stack={ablation.stack!r}), but there are {', '.join(stacks)}: say which of them is meant."
        )
    return ablation.stack


def _chosen(ablation: Ablation, stack: str, shape: tuple[int, ...], *, is_capacity: bool) -> Bool[np.ndarray, "*side"]:
    """`[layer, head, query, key]`, or without heads; sides of length 1 where all is chosen."""
    if not is_traced(ablation.factor) and not (
        np.ndim(ablation.factor) == 0 and np.isfinite(ablation.factor) and ablation.factor >= 0
    ):
        raise ValueError(f"Ablation(factor={ablation.factor}); expected one number, 0 or more: 0 removes.")
    if is_capacity and ablation.head is not None:
        raise ValueError(
            f"Ablation(head={ablation.head}), but the heads of Capacities are reduced: give the Attention."
        )
    axes = ("layer", "query", "key") if is_capacity else ("layer", "head", "query", "key")
    chosen = np.ones((1,) * len(axes), bool)
    for axis, name in enumerate(axes):
        index = getattr(ablation, name)
        if index is None:
            continue
        size = shape[axis - len(axes)]
        places = np.atleast_1d(np.asarray(index))
        if (
            not np.issubdtype(places.dtype, np.integer)
            or places.size == 0
            or not 0 <= places.min() <= places.max() < size
        ):
            raise ValueError(
                f"Ablation({name}={index}), but {stack} has {size}, 0 to {size - 1}; expected one of them, or several."
            )
        along = np.zeros(size, bool)
        along[places] = True
        chosen = chosen & along.reshape([-1 if a == axis else 1 for a in range(len(axes))])
    return chosen
