"""What if a head, a layer, an arc or a token's attention were weaker, or gone? Scores anew, without a forward pass."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal, TypeVar

import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, ArrayLike, Bool, Float

from jaxflow._attention import STACKS, Attention, check_attention, is_traced
from jaxflow.attribute._attribution import Attribution, attention_flow
from jaxflow.network import Capacities, DecoderLayer, Feedback, Heads, as_capacities, build_capacities, check_residual
from jaxflow.solve import Solver

Index = int | Sequence[int]
Stack = Literal["encoder", "decoder", "cross"]
Scores = Float[Array | np.ndarray, "*batch output player"]
Weights = TypeVar("Weights", Attention, Capacities)


@dataclasses.dataclass(frozen=True)
class Scale:
    """An edit: multiply the attention weights that are chosen by `factor`. What is None chooses all.

    `Scale(0, layer=2, head=1)` removes a head, `Scale(0, layer=2)` a layer's attention, `Scale(0, layer=2, query=5, key=3)` an
    arc, `Scale(0, key=3)` all that others read of a token and `Scale(0, query=3)` all that it reads.

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
class WhatIf:
    """Scores before and after. A PyTree.

    Attributes:
        before: `Attribution` of what was given.
        after: `Attribution` of the edited.
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


def edit(attention: Weights, edits: Scale | Sequence[Scale], *, renormalise: bool = False) -> Weights:
    """Apply edits, one after the other, to weights or to capacities; returns what it was given, edited.

    Edited weights are no probabilities any more unless they are normalised anew, so `joint_capacities` refuses them: see
    `edited_capacities`. Edits of `Capacities` scale the residual's share with the rest. Pure: goes through `jit`, `vmap`
    and `grad`, by the factors too.

    Args:
        attention: `Attention`, or `Capacities`.
        edits: a `Scale`, or several.
        renormalise: scale every row of weights to the sum it had, as a softmax over what is left would; rows that are all 0
            stay so.

    Returns:
        A PyTree like `attention`.

    Raises:
        ValueError: an edit that chooses what does not exist, or scales by less than 0.
    """
    for scale in [edits] if isinstance(edits, Scale) else edits:
        stack = _stack_of(attention, scale)
        weights = jnp.asarray(getattr(attention, stack))
        factor = jnp.where(_chosen(scale, stack, weights.shape, is_capacity=isinstance(attention, Capacities)),
                           jnp.asarray(scale.factor).astype(weights.dtype), jnp.ones((), weights.dtype))  # fmt: skip
        factor = factor.reshape((1,) * (weights.ndim - factor.ndim) + factor.shape)
        edited = factor * weights
        if renormalise:
            left, total = edited.sum(-1, keepdims=True), weights.sum(-1, keepdims=True)
            edited = edited * total / jnp.where(left > 0, left, 1)
        changed: dict[str, Any] = {stack: edited}
        attention = dataclasses.replace(attention, **changed)
    return attention


def edited_capacities(
    attention: Attention | Capacities,
    edits: Scale | Sequence[Scale],
    *,
    renormalise: bool = False,
    heads: Heads | None = None,
    residual: float | None = None,
    encoder_mask: Bool[ArrayLike, "*batch source"] | None = None,
    decoder_mask: Bool[ArrayLike, "*batch target"] | None = None,
) -> Capacities:
    """Make the capacities of edited attention: what is removed is missing, and the residual stream stays.

    Args:
        attention: as in `edit`.
        edits: as in `edit`.
        renormalise: as in `edit`.
        heads: as in `joint_capacities`; a head that is removed still counts in the mean.
        residual: as in `joint_capacities`.
        encoder_mask: as in `joint_capacities`.
        decoder_mask: as in `joint_capacities`.

    Returns:
        `Capacities`, for `attention_flow`, `flow_network` or `flow_value`.

    Raises:
        ValueError: as `joint_capacities` for what is edited, and as `edit`.
    """
    masks = {"encoder_mask": encoder_mask, "decoder_mask": decoder_mask}
    if isinstance(attention, Capacities):
        capacities = as_capacities(attention, heads=heads, residual=residual, **masks)
        return edit(capacities, edits, renormalise=renormalise)
    check_attention(attention, **masks)
    return build_capacities(  # which does not ask that rows sum to 1
        edit(attention, edits, renormalise=renormalise),
        heads="mean" if heads is None else heads,
        residual=check_residual(0.5 if residual is None else residual),
        masks={"encoder": encoder_mask, "decoder": decoder_mask},
    )


def what_if(
    attention: Attention | Capacities,
    edits: Scale | Sequence[Scale],
    *,
    renormalise: bool = False,
    outputs: int | Sequence[int] | None = None,
    heads: Heads | None = None,
    residual: float | None = None,
    encoder_mask: Bool[ArrayLike, "*batch source"] | None = None,
    decoder_mask: Bool[ArrayLike, "*batch target"] | None = None,
    decoder_layer: DecoderLayer = "sublayers",
    feedback: Feedback = "prefix",
    n_prompt: int | None = None,
    solver: Solver = "certified",
) -> WhatIf:
    """Tell how every score would change if some of the attention were weaker or gone. The model is not run.

    It answers for the network, not for the model: what a later layer would attend to instead, had an earlier one read
    something else, only a forward pass can tell. Weights that are removed are missing, unless `renormalise` shares them
    out over the row's other keys. A score never rises when weights only fall and nothing is normalised.
    Cost: two `attention_flow`.

    Args:
        attention: `Attention`, or `Capacities`.
        edits: what to change, one after the other.
        renormalise: as in `edit`.
        outputs: as in `attention_flow`, and all that follow.
        heads: see there.
        residual: see there.
        encoder_mask: see there.
        decoder_mask: see there.
        decoder_layer: see there.
        feedback: see there.
        n_prompt: see there.
        solver: see there.

    Returns:
        `WhatIf`: `.before`, `.after`, and the change in `.encoder` and `.decoder`.

    Raises:
        ValueError: as `attention_flow` and `edit`.

    Example:
        >>> layer = jnp.array([[0.75, 0.25], [0.5, 0.5]])
        >>> attention = Attention(encoder=jnp.stack([layer, layer])[:, None])
        >>> what_if(attention, Scale(0, layer=0, query=1, key=0), residual=0.0).encoder
        array([[-0.25,  0.  ],
               [-0.5 ,  0.  ]])
    """
    options: dict[str, Any] = {
        "heads": heads,
        "residual": residual,
        "encoder_mask": encoder_mask,
        "decoder_mask": decoder_mask,
    }
    before, after = (
        attention_flow(
            edited_capacities(attention, steps, renormalise=renormalise, **options),
            outputs=outputs, decoder_layer=decoder_layer, feedback=feedback, n_prompt=n_prompt, solver=solver,
        )
        for steps in ((), edits)
    )  # fmt: skip
    return WhatIf(before=before, after=after)


def _change(after: Scores | None, before: Scores | None) -> np.ndarray | None:
    return None if after is None or before is None else np.asarray(after) - np.asarray(before)


def _stack_of(attention: Attention | Capacities, scale: Scale) -> str:
    stacks = [name for name in STACKS if getattr(attention, name) is not None]
    if scale.stack is None and len(stacks) == 1:
        return stacks[0]
    if scale.stack not in stacks:
        raise ValueError(
            f"Scale(stack={scale.stack!r}), but there are {', '.join(stacks)}: say which of them is meant."
        )
    return scale.stack


def _chosen(scale: Scale, stack: str, shape: tuple[int, ...], *, is_capacity: bool) -> Bool[np.ndarray, "*side"]:
    """`[layer, head, query, key]`, or without heads; sides of length 1 where all is chosen."""
    if not is_traced(scale.factor) and not (
        np.ndim(scale.factor) == 0 and np.isfinite(scale.factor) and scale.factor >= 0
    ):
        raise ValueError(f"Scale(factor={scale.factor}); expected one number, 0 or more: 0 removes.")
    if is_capacity and scale.head is not None:
        raise ValueError(f"Scale(head={scale.head}), but the heads of Capacities are reduced: give the Attention.")
    axes = ("layer", "query", "key") if is_capacity else ("layer", "head", "query", "key")
    chosen = np.ones((1,) * len(axes), bool)
    for axis, name in enumerate(axes):
        index = getattr(scale, name)
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
                f"Scale({name}={index}), but {stack} has {size}, 0 to {size - 1}; expected one of them, or several."
            )
        along = np.zeros(size, bool)
        along[places] = True
        chosen = chosen & along.reshape([-1 if a == axis else 1 for a in range(len(axes))])
    return chosen
