"""Scores by what happens when a token is hidden from the model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxflow.attribute._attribution import Attribution
from jaxflow.capture import Target, arguments, call_model, evaluate, first_stack

# The model's inputs by name, and the number of a token -> the inputs without that token, of every example.
Without = Callable[[dict[str, Any], int], dict[str, Any]]


def leave_one_out(
    model: Any,
    *args: Any,
    target: Target,
    output: int = 0,
    without: Without | None = None,
    variables: Mapping | None = None,
    **kwargs: Any,
) -> Attribution:
    """Score each token by what the target loses without it: `score[i] = y(x) - y(x without i)`.

    By default a token is hidden by its `attention_mask`: no position attends to it, its place stays empty, and it still attends
    to others. Of encoder-decoders, the encoder's tokens are hidden. Models that count positions by the mask (OPT) move later
    tokens up. Padding scores exactly 0. One forward pass for each token and one more.

    Args:
        model: what `capture` takes: a module or any function.
        *args: what the model is called with.
        target: the number to explain, as in `attention_gradients`, for each example.
        output: the position that the target is about; it names the row of the result, and changes no score.
        without: hides tokens in another way (another word in its place, say): a function of the model's inputs by name and the
            token's number, which returns the inputs without it.
        variables: those of an unbound linen module.
        **kwargs: what the model is called with.

    Returns:
        `Attribution` of JAX arrays with one row, signed.

    Raises:
        TypeError: a model that is not supported here.
        ValueError: a model that takes no `input_ids` and `attention_mask`; a target that is not one number per example.

    Source: erasure as in Li et al. 2016 (1612.08220).
    """
    named = {**kwargs, **arguments(model, args, kwargs)}
    if "input_ids" not in named:
        raise ValueError(f"{type(model).__name__} is given no input_ids, whose tokens could be hidden one by one.")
    shape = np.shape(named["input_ids"])
    if without is None:
        named = with_mask(model, named, shape)
        without = _hide

    def value(inputs: dict[str, Any]) -> Any:
        number = evaluate(target, call_model(model, variables=variables, **inputs), shape[:-1])
        if number.shape != shape[:-1]:
            raise ValueError(f"target returned one number for all; expected one per example, shape {shape[:-1]}.")
        return number

    whole = value(named)
    scores = jnp.stack([whole - value(without(dict(named), token)) for token in range(shape[-1])], axis=-1)
    rows, stack = scores[..., None, :], first_stack(model)
    return Attribution(
        encoder=rows if stack == "encoder" else None,
        decoder=rows if stack == "decoder" else None,
        outputs=np.array([output]),
    )


def with_mask(model: Any, named: dict[str, Any], shape: tuple[int, ...]) -> dict[str, Any]:
    """Return a model's inputs with an `attention_mask`, of ones if there is none.

    Raises:
        ValueError: a mask that does not fit; a model that takes none.
    """
    mask = named.get("attention_mask")
    if mask is None:
        mask = np.ones(shape, np.int32)
    if np.shape(mask) != shape:
        raise ValueError(f"attention_mask has shape {np.shape(mask)}; expected that of input_ids, {shape}.")
    try:
        arguments(model, (), {"attention_mask": mask})["attention_mask"]
    except KeyError:
        raise ValueError(
            f"{type(model).__name__} takes no attention_mask to hide tokens by: pass without=, a function of the inputs and a "
            "token's number (masked_value: replacement=, a token in their place)."
        ) from None
    return {**named, "attention_mask": mask}


def _hide(inputs: dict[str, Any], token: int) -> dict[str, Any]:
    mask = jnp.asarray(inputs["attention_mask"])
    return {**inputs, "attention_mask": mask.at[..., token].set(jnp.zeros((), mask.dtype))}
