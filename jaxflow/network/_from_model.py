"""A model -> its capacities, without the attention of all heads of all layers in between."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp

from jaxflow._attention import Attention, SourceMask, TargetMask, check_rows, check_structure
from jaxflow.capture import Heads, Residual, is_index, is_named, run_capture
from jaxflow.models import DEFAULT_NAME, Role, as_model, check_token_ids
from jaxflow.network._capacities import Capacities, build_of_one_head, check_capacities, check_residual


def capture_capacities(
    model: Any,
    *args: Any,
    heads: Heads = "mean",
    residual: Residual = 0.5,
    encoder_mask: SourceMask | None = None,
    decoder_mask: TargetMask | None = None,
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

    Heads of linen modules and of the Flax classes of transformers are reduced as soon as they are computed; those of every other
    kind of model after the run, and so are those inside an `nn.scan` for head weights `[layer, head]`: its body does not know
    its layer's number. For such weights the model is run over shapes first, to number its layers.

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
    adapted = as_model(model, variables=variables, sown=sown, roles=roles)
    check_token_ids(adapted, args, kwargs)
    outputs, attention = run_capture(adapted, args, kwargs, heads=heads)
    capacities = capacities_of_reduced(
        attention, heads=heads, residual=residual, encoder_mask=encoder_mask, decoder_mask=decoder_mask
    )
    check_capacities(capacities)
    return outputs, capacities


def capacities_of_reduced(
    attention: Attention,
    *,
    heads: Heads,
    residual: Residual,
    encoder_mask: SourceMask | None,
    decoder_mask: TargetMask | None,
) -> Capacities:
    """Make capacities of attention whose heads are reduced already, as `run_capture` returns it.

    Args:
        attention: `[*batch, layer, 1, query, key]`.
        heads: how its heads were reduced.
        residual: as in `joint_capacities`.
        encoder_mask: as in `joint_capacities`.
        decoder_mask: as in `joint_capacities`.

    Raises:
        ValueError: as `joint_capacities`. Values of capacities are not checked.
    """
    check_structure(attention, encoder_mask=encoder_mask, decoder_mask=decoder_mask)
    if is_index(heads) or (is_named(heads) and heads == "mean"):
        for name, mask in (("encoder", encoder_mask), ("decoder", decoder_mask), ("cross", decoder_mask)):
            if getattr(attention, name) is not None:
                # The sum is in float32, whatever the heads were in.
                check_rows(name, getattr(attention, name), mask, computed_in=jnp.bfloat16)
    masks = {"encoder": encoder_mask, "decoder": decoder_mask}
    return build_of_one_head(attention, residual=residual, masks=masks)
