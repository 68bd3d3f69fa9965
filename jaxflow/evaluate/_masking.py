"""A model's number as a function of which tokens it is shown: one compiled forward pass for many masks."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jaxflow.attribute import with_mask
from jaxflow.capture import Target, evaluate_target
from jaxflow.evaluate._erasure import Value
from jaxflow.models import as_model


def masked_value(
    model: Any,
    *args: Any,
    target: Target,
    replacement: int | None = None,
    batch_size: int = 64,
    variables: Mapping | None = None,
    **kwargs: Any,
) -> Value:
    """Make of a model and one example what `erase` and `erasure_curves` take: `value(kept)`, with all other tokens hidden.

    Hidden tokens keep their place. By default nothing attends to them (`attention_mask` is 0 there); they still attend to others,
    and models that count positions by the mask (OPT) move later tokens up. Of encoder-decoders, the encoder's tokens are hidden.

    Args:
        model: what `capture` takes: a module or any function.
        *args: what the model is called with: one example, `[1, token]`.
        target: the number, as in `attention_gradients`: `lambda outputs: jax.nn.softmax(outputs.logits)[:, 1]`, say.
        replacement: a token that stands in the place of hidden ones instead, such as `tokenizer.mask_token_id`.
        batch_size: how many masks go through the model at once.
        variables: those of an unbound linen module.
        **kwargs: what the model is called with.

    Returns:
        A function of masks `[*shape, token]`, True for tokens that are kept, which returns numbers `[*shape]`, float64. Compiled
        once; padding that `attention_mask` hides stays hidden.

    Raises:
        TypeError: a model that is not supported here.
        ValueError: more than one example; a model that takes no `input_ids`, or no `attention_mask` (pass `replacement`); of
            what is returned: masks of another length.
    """
    subject = as_model(model, variables=variables)
    named = {**kwargs, **subject.arguments(args, kwargs)}
    shape = np.shape(named.get("input_ids", 0))
    if len(shape) != 2 or shape[0] != 1:
        raise ValueError(f"input_ids has shape {shape}; expected one example, [1, token], whose tokens can be hidden.")
    if replacement is None:
        named = with_mask(subject, named, shape)
    arrays = {name: np.asarray(value) for name, value in named.items() if np.ndim(value)}
    others = {name: value for name, value in named.items() if not np.ndim(value)}

    @jax.jit
    def run(parameters: Any, arrays: dict[str, Any], kept: Bool[Array, "mask token"]) -> Float[Array, " mask"]:
        hidden = hide(arrays, kept, replacement=replacement)
        return evaluate_target(target, subject.bind(parameters).call(**hidden, **others), (len(kept),))

    return batched(functools.partial(run, subject.parameters, arrays), shape[-1], batch_size)


def hide(
    inputs: Mapping[str, Array], kept: Bool[Array, "mask token"], *, replacement: int | None = None
) -> dict[str, Array]:
    """Repeat one example's inputs for each mask, with the other tokens hidden.

    Args:
        inputs: `[1, ...]` each, `input_ids` and `attention_mask` (or a replacement) among them.
        kept: True for tokens that are shown.
        replacement: what stands in the place of hidden tokens; None hides them by the attention mask.
    """
    repeated = {name: jnp.broadcast_to(value, (len(kept), *value.shape[1:])) for name, value in inputs.items()}
    name = "attention_mask" if replacement is None else "input_ids"
    hidden = jnp.asarray(replacement or 0, repeated[name].dtype)
    return {**repeated, name: jnp.where(kept, repeated[name], hidden)}


def batched(
    run: Callable[[Any], Any], n_tokens: int, batch_size: int
) -> Callable[[Bool[np.ndarray, "*shape token"]], Any]:
    """Let a compiled function of `batch_size` masks take any number of them; what it returns may be a PyTree."""

    def value(kept: Bool[np.ndarray, "*shape token"]) -> Any:
        kept = np.asarray(kept, bool)
        if kept.shape[-1:] != (n_tokens,):
            raise ValueError(
                f"kept has shape {kept.shape}; expected masks over {n_tokens} tokens, [*shape, {n_tokens}]."
            )
        masks = kept.reshape(-1, n_tokens)
        padded = np.concatenate([masks, np.ones((-len(masks) % batch_size, n_tokens), bool)])
        parts = [jax.device_get(run(padded[i : i + batch_size])) for i in range(0, len(padded), batch_size)]
        return jax.tree.map(
            lambda *found: np.concatenate(found)[: len(masks)].astype(np.float64).reshape(kept.shape[:-1]), *parts
        )

    return value
