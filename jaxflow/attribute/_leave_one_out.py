"""Scores by what happens when a token is hidden from the model."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np

from jaxflow.attribute._attribution import Attribution
from jaxflow.attribute._evidence import Evidence, Without
from jaxflow.capture import Target, evaluate_target
from jaxflow.models import Model, as_model


@dataclasses.dataclass(frozen=True)
class LeaveOneOut:
    """Score a token by what the target loses without it: `y(x) - y(x without i)`. One forward pass for each token.

    Attributes:
        without: hides a token in another way than by the `attention_mask` (another word in its place, say): a function of the
            model's inputs by name and the token's number, which returns the inputs without it.

    Source: erasure as in Li et al. 2016 (1612.08220).
    """

    without: Without | None = None

    name: ClassVar[str] = "leave_one_out"
    needs: ClassVar[frozenset[str]] = frozenset({"passes"})

    def attribute(self, evidence: Evidence) -> Attribution:
        """Score the inputs of one example for each explained position, by its target."""
        return evidence.of_target(lambda row: evidence.without_each(row, self.without), adds_up=False)


def leave_one_out(
    model: Any,
    *args: Any,
    target: Target,
    without: Without | None = None,
    variables: Mapping | None = None,
    **kwargs: Any,
) -> Attribution:
    """Score each token of a whole batch by what the target loses without it: `score[i] = y(x) - y(x without i)`.

    By default a token is hidden by its `attention_mask`: no position attends to it, its place stays empty, and it still attends
    to others. Of encoder-decoders, the encoder's tokens are hidden. Models that count positions by the mask (OPT) move later
    tokens up. Padding scores exactly 0. One forward pass for each token and one more.

    Args:
        model: what `capture` takes: a module or any function.
        *args: what the model is called with.
        target: the number to explain, as in `attention_gradients`, for each example.
        without: as in `LeaveOneOut`.
        variables: those of an unbound linen module.
        **kwargs: what the model is called with.

    Returns:
        `Attribution` of JAX arrays with one row, signed.

    Raises:
        TypeError: a model that is not supported here.
        ValueError: a model that takes no `input_ids` and `attention_mask`; a target that is not one number per example.
    """
    return lost_without_each(as_model(model, variables=variables), args, kwargs, target=target, without=without)


def lost_without_each(
    model: Model, args: tuple, kwargs: Mapping, *, target: Target, without: Without | None = None
) -> Attribution:
    """Do what `leave_one_out` does, for a `Model`."""
    named = {**kwargs, **model.arguments(args, kwargs)}
    if "input_ids" not in named:
        raise ValueError(f"{model.name} is given no input_ids, whose tokens could be hidden one by one.")
    shape = np.shape(named["input_ids"])
    if without is None:
        named = with_mask(model, named, shape)
        without = _hide

    def value(inputs: dict[str, Any]) -> Any:
        number = evaluate_target(target, model.call(**inputs), shape[:-1])
        if number.shape != shape[:-1]:
            raise ValueError(f"target returned one number for all; expected one per example, shape {shape[:-1]}.")
        return number

    whole = value(named)
    scores = jnp.stack([whole - value(without(dict(named), token)) for token in range(shape[-1])], axis=-1)
    rows, stack = scores[..., None, :], model.facts.stacks[0]
    return Attribution(
        encoder=rows if stack == "encoder" else None,
        decoder=rows if stack == "decoder" else None,
        positions=np.array([0]),
    )


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


def _hide(inputs: dict[str, Any], token: int) -> dict[str, Any]:
    mask = jnp.asarray(inputs["attention_mask"])
    return {**inputs, "attention_mask": mask.at[..., token].set(jnp.zeros((), mask.dtype))}
