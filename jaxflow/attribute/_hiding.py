"""A model's number as a function of which tokens it is shown: one compiled forward pass for many masks."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxflow.capture import LabelTarget, Target, evaluate_target
from jaxflow.models import Model, pad_inputs, run_compiled


def shown_values(
    model: Model, args: tuple, kwargs: Mapping, *, target: Target, replacement: int | None = None, batch_size: int = 64
) -> Callable[[Bool[np.ndarray, "*shape token"]], Float[np.ndarray, "*shape"]]:
    """Do what `masked_value` of `jaxflow.evaluate` does, for a `Model`."""
    named = {**kwargs, **model.arguments(args, kwargs)}
    shape = np.shape(named.get("input_ids", 0))
    if len(shape) != 2 or shape[0] != 1:
        raise ValueError(f"input_ids has shape {shape}; expected one example, [1, token], whose tokens can be hidden.")
    if replacement is None:
        named = with_mask(model, named, shape)
    arrays = {name: np.asarray(value) for name, value in named.items() if np.ndim(value)}
    others = {name: value for name, value in named.items() if not np.ndim(value)}

    @jax.jit
    def run(parameters: Any, arrays: dict[str, Any], kept: Bool[Array, "mask token"]) -> Float[Array, " mask"]:
        hidden = hide(arrays, kept, replacement=replacement)
        return evaluate_target(target, model.bind(parameters).call(**hidden, **others), (len(kept),))

    return batched(functools.partial(run, model.parameters, arrays), shape[-1], batch_size)


def shown_compiled(
    model: Model, args: tuple, kwargs: Mapping, *, target: LabelTarget, batch_size: int = 16
) -> Callable[[Bool[np.ndarray, "*shape token"]], Float[np.ndarray, "*shape"]] | None:
    """Do what `shown_values` does, by a program that is kept between calls, of a text that is padded where that is possible.

    None for a model without such programs.
    """
    named = {**kwargs, **model.arguments(args, kwargs)}
    shape = np.shape(named.get("input_ids", 0))
    if model.split() is None or len(shape) != 2 or shape[0] != 1:
        return None
    named = with_mask(model, named, shape)
    padded = pad_inputs(model, (), named)
    inputs = named if padded is None else padded.kwargs
    n_added = np.shape(inputs["input_ids"])[-1] - shape[-1]

    def run(kept: Bool[np.ndarray, "mask token"]) -> Any:
        whole = np.pad(kept, ((0, 0), (0, n_added)), constant_values=True)
        return run_compiled(_shown, model, (), inputs, (target, whole))

    return batched(run, shape[-1], batch_size)


def _shown(model: Model, args: tuple, inputs: Mapping, operand: tuple[LabelTarget, Any]) -> Any:
    target, kept = operand
    arrays = {name: value for name, value in inputs.items() if np.ndim(value)}
    others = {name: value for name, value in inputs.items() if not np.ndim(value)}
    return evaluate_target(target, model.call(**hide(arrays, kept), **others), (len(kept),))


def without_one(
    shown: Callable[[Bool[np.ndarray, "mask token"]], Any], places: Int[np.ndarray, " place"], n_tokens: int
) -> Any:
    """Return what each number that `shown` finds loses without each token of some, `[token]`; 0 for the others."""
    kept = np.ones((len(places) + 1, n_tokens), bool)
    kept[np.arange(len(places)) + 1, places] = False

    def lost(numbers: Float[np.ndarray, " mask"]) -> Float[np.ndarray, " token"]:
        scores = np.zeros(n_tokens)
        scores[places] = numbers[0] - numbers[1:]
        return scores

    return jax.tree.map(lost, shown(kept))


def with_mask(model: Model, named: dict[str, Any], shape: tuple[int, ...]) -> dict[str, Any]:
    """Return a model's inputs with an `attention_mask`, of ones if there is none.

    Raises:
        ValueError: a mask that does not fit; a model that takes none.
    """
    mask = named.get("attention_mask")
    if mask is None:
        mask = np.ones(shape, np.int32)
    if np.shape(mask) != shape:
        raise ValueError(f"attention_mask has shape {np.shape(mask)}; expected that of input_ids, {shape}.")
    if "attention_mask" not in model.arguments((), {"attention_mask": mask}):
        raise ValueError(
            f"{model.name} takes no attention_mask to hide tokens by: pass without=, a function of the inputs and a token's "
            "number (masked_value: replacement=, a token in their place)."
        )
    return {**named, "attention_mask": mask}


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
