"""A model in, its capacities out, without the attention of all heads of all layers in between."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool

from jaxflow._attention import STACKS, Attention, at_least_float32, check_rows, check_structure
from jaxflow.capture import (
    DEFAULT_NAME,
    Heads,
    Role,
    capture,
    capture_huggingface,
    capture_linen,
    head_reduction,
    is_huggingface,
    is_index,
    is_named,
)
from jaxflow.network._capacities import Capacities, build_capacities, check_capacities, check_residual


def capture_capacities(
    model: Any,
    *args: Any,
    heads: Heads = "mean",
    residual: float = 0.5,
    encoder_mask: Bool[ArrayLike, "*batch source"] | None = None,
    decoder_mask: Bool[ArrayLike, "*batch target"] | None = None,
    variables: Mapping | None = None,
    sown: str = DEFAULT_NAME,
    roles: Mapping[str, Role] | None = None,
    **kwargs: Any,
) -> tuple[Any, Capacities]:
    """Run a model once and make capacities of its attention, each layer's heads as soon as they are computed.

    The same as `capture` and then `joint_capacities`, for long inputs and deep models: of the weights
    `[*batch, layer, head, query, key]` only one layer's are there at a time, where `capture` holds them all, twice while it
    stacks them. Under `jit` XLA frees each layer's. Results are the same bit for bit; inside `jit`, `nn.jit` and `nn.scan` up to
    the last bits, since compiled code may round differently. Pure: goes through `jit`, `vmap` and `grad`.

    Of linen modules and of the Flax classes of transformers, heads are reduced where they are sown; of every other kind of model
    after the run. So they are for head weights `[layer, head]` inside an `nn.scan`, whose body does not know its layer's number;
    with such weights, a model is run over shapes first, to number its layers.

    Args:
        model: as in `capture`, like everything that is not named here.
        *args: what the model is called with.
        heads: as in `joint_capacities`.
        residual: as in `joint_capacities`.
        encoder_mask: `[*batch, source]`, False where padded.
        decoder_mask: `[*batch, target]`, likewise.
        variables: as in `capture`.
        sown: as in `capture`.
        roles: as in `capture`.
        **kwargs: what the model is called with.

    Returns:
        What the model returns without capture, and its `Capacities`.

    Raises:
        TypeError: `model` is nothing that can be run here.
        ValueError: as `capture` and `joint_capacities`. Rows that do not sum to 1 are noticed for the
            mean and for one head, to the precision of bfloat16.

    Example:
        >>> import jax, flax.linen as nn
        >>> model = nn.MultiHeadDotProductAttention(num_heads=2)
        >>> x = jax.random.normal(jax.random.key(0), (1, 5, 8))
        >>> outputs, capacities = capture_capacities(model, x, variables=model.init(jax.random.key(1), x))
        >>> outputs.shape, capacities.encoder.shape
        ((1, 5, 8), (1, 1, 5, 5))

    Source: capacities as in Abnar & Zuidema 2020 (2005.00928), section 3.2.
    """
    residual = check_residual(residual)
    outputs, attention = capture_fused(model, args, kwargs, heads=heads, variables=variables, sown=sown, roles=roles)
    capacities = fused_capacities(
        attention, heads=heads, residual=residual, encoder_mask=encoder_mask, decoder_mask=decoder_mask
    )
    return outputs, capacities


def capture_fused(
    model: Any,
    args: tuple,
    kwargs: dict,
    *,
    heads: Heads,
    variables: Mapping | None = None,
    sown: str = DEFAULT_NAME,
    roles: Mapping[str, Role] | None = None,
) -> tuple[Any, Attention]:
    """Run a model once and take its attention with one head made of all: what `capture_capacities` begins with.

    Returns:
        What the model returns, and an `Attention` of one head, float32 at least. Its rows sum to 1 if those of `heads` do.

    Raises:
        TypeError: `model` is nothing that can be run here.
        ValueError: as `capture`; heads that do not exist.
    """
    if not is_named(heads) and not is_index(heads) and np.ndim(heads) != 2:
        raise ValueError(f"heads has shape {np.shape(heads)}; expected weights [layer, head].")
    own = variables is None and sown == DEFAULT_NAME and roles is None
    if is_huggingface(model) and own:
        return capture_huggingface(model, args, kwargs, fuse_heads=heads)
    if isinstance(model, nn.Module):
        return capture_linen(model, args, kwargs, variables=variables, sown=sown, roles=roles, fuse_heads=heads)
    outputs, attention = capture(model, *args, variables=variables, sown=sown, roles=roles, **kwargs)
    stacks = {name: weights for name in STACKS if (weights := getattr(attention, name)) is not None}
    fused: dict[str, Any] = {name: _fuse(name, weights, heads) for name, weights in stacks.items()}
    return outputs, dataclasses.replace(attention, **fused)


def fused_capacities(
    attention: Attention,
    *,
    heads: Heads,
    residual: float,
    encoder_mask: Bool[ArrayLike, "*batch source"] | None,
    decoder_mask: Bool[ArrayLike, "*batch target"] | None,
) -> Capacities:
    """Do what `joint_capacities` does, with attention whose `heads` `capture_fused` has made one.

    Raises:
        ValueError: as `joint_capacities`.
    """
    check_structure(attention, encoder_mask=encoder_mask, decoder_mask=decoder_mask)
    if is_index(heads) or (is_named(heads) and heads == "mean"):
        for name, mask in (("encoder", encoder_mask), ("decoder", decoder_mask), ("cross", decoder_mask)):
            if getattr(attention, name) is not None:
                # The sum is in float32, whatever the heads were in.
                check_rows(name, getattr(attention, name), mask, computed_in=jnp.bfloat16)
    masks = {"encoder": encoder_mask, "decoder": decoder_mask}
    capacities = build_capacities(attention, heads=0, residual=check_residual(residual), masks=masks)
    check_capacities(capacities)
    return capacities


def _fuse(name: str, weights: Array, heads: Heads) -> Array:
    reduce = head_reduction(heads, f"Attention.{name}", weights.shape)
    return reduce(at_least_float32(weights))[..., None, :, :]
