"""Run a model with some of its attention weights set to 0."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import ArrayLike, Bool

from jaxflow._attention import STACKS, Attention
from jaxflow.capture._differentiate import differentiate
from jaxflow.capture._tracing.additions import Scaler
from jaxflow.models import DEFAULT_NAME, Role, as_model, check_token_ids


def knock_out(
    model: Any,
    *args: Any,
    arcs: Mapping[Role, Bool[ArrayLike, "*batch layer query key"]],
    variables: Mapping | None = None,
    sown: str = DEFAULT_NAME,
    roles: Mapping[str, Role] | None = None,
    **kwargs: Any,
) -> tuple[Any, Attention]:
    """Run a model with the attention weights of some arcs set to 0, in all heads, and see what it returns then.

    Weights are set to 0 after the softmax and not shared out anew, so rows sum to less than 1; later layers compute their
    attention from what is left. The residual stream is left as it is. Pure: goes through `jit` and `vmap`.

    Args:
        model: what `capture` takes.
        *args: what the model is called with.
        arcs: which are knocked out, `[*batch, layer, query, key]` (or without batch axes, for all examples) of "encoder",
            "decoder" and "cross"; a stack that is left out keeps all.
        variables: as in `capture`.
        sown: as in `capture`.
        roles: as in `capture`.
        **kwargs: what the model is called with.

    Returns:
        What the model returns, and its attention, 0 on these arcs.

    Raises:
        TypeError: as `capture`.
        ValueError: as `attention_gradients`; arcs of a stack that is not there, or of another shape.

    Example:
        >>> from jaxflow import load_model
        >>> model, tokenizer = load_model("agreement")
        >>> inputs = tokenizer(["the keys to the cabinet"])
        >>> arcs = np.zeros((4, 6, 6), bool)
        >>> arcs[:, :, 2] = True  # nothing reads "keys"
        >>> logits, attention = knock_out(model, arcs={"encoder": arcs}, **inputs)
        >>> float(attention.encoder[..., 2].max())
        0.0

    Source: the attention knockout of Geva et al. 2023 (2304.14767), which renormalises; here nothing is.
    """
    adapted = as_model(model, variables=variables, sown=sown, roles=roles)
    check_token_ids(adapted, args, kwargs)
    differentiable = differentiate(adapted, args, kwargs)
    zeros = differentiable.zeros()
    laid_out, back = jax.vjp(differentiable.arrange, zeros)
    stacks = {name: stack for name in STACKS if (stack := getattr(laid_out, name)) is not None}
    for name, chosen in arcs.items():
        expected = None if name not in stacks else stacks[name].shape[:-3] + stacks[name].shape[-2:]
        if expected is None or np.shape(chosen) not in (expected, expected[-3:]):
            raise ValueError(
                f"arcs[{name!r}] has shape {np.shape(chosen)}; expected one of "
                f"{', '.join(f'{n} {s.shape[:-3] + s.shape[-2:]}' for n, s in stacks.items())}, [*batch, layer, query, key]."
            )
    kept = {name: jnp.ones_like(stack) for name, stack in stacks.items()}
    for name, chosen in arcs.items():
        stays = 1 - jnp.asarray(chosen, kept[name].dtype)[..., None, :, :]
        kept[name] = jnp.broadcast_to(stays, kept[name].shape)
    # Laying out only moves numbers, so its transpose moves them back.
    (factors,) = back(Attention(**kept, provenance=laid_out.provenance))
    return differentiable.run(factors, Scaler)
