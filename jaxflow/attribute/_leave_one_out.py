"""Scores by what happens when a token is hidden from the model."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jaxflow.attribute._attribution import Attribution
from jaxflow.attribute._evidence import Evidence, Without
from jaxflow.attribute._hiding import with_mask
from jaxflow.attribute._method import Method, as_attribution, as_method
from jaxflow.capture import Target, evaluate_target
from jaxflow.models import Model, as_model


@dataclasses.dataclass(frozen=True)
class LeaveOneOut:
    """Score a token by what the target loses without it: `y(x) - y(x without i)`. One forward pass for each token, one more.

    With `best` and `by`, only the tokens that another method scores highest are left out: as good as its first choices where
    these are right, in a few passes. All others keep that method's order and signs, in scores at most half as large as the
    smallest of those that were found, so that ranks mean something. `LeaveOneOut(best=4, by="contributions")` takes 6 forward
    passes and 1 backward pass, however long the text is.

    Attributes:
        without: hides a token in another way than by the `attention_mask` (another word in its place, say): a function of the
            model's inputs by name and the token's number, which returns the inputs without it.
        best: how many tokens are left out, 1 or more; all if None.
        by: the method that chooses them, or its name: those that it scores highest, signs included. Together with `best`.

    Source: erasure as in Li et al. 2016 (1612.08220).
    """

    without: Without | None = None
    best: int | None = None
    by: Method | str | None = None

    name: ClassVar[str] = "leave_one_out"

    def __post_init__(self) -> None:
        """Refuse a number of tokens that nothing chooses, and a choice without a number."""
        if (self.best is None) != (self.by is None):
            raise ValueError(
                f"best is {self.best} and by is {self.by!r}; expected both, how many tokens are left out and the method that "
                "chooses them, or neither."
            )
        if self.best is not None and self.best < 1:
            raise ValueError(f"best is {self.best}; expected 1 or more tokens, or None for all.")
        if self.by is not None:
            as_method(self.by)

    @property
    def needs(self) -> frozenset[str]:
        """What it needs of a model: passes, and what the method needs that chooses."""
        others: frozenset[str] = frozenset() if self.by is None else getattr(as_method(self.by), "needs", frozenset())
        return frozenset({"passes"}) | others

    def attribute(self, evidence: Evidence) -> Attribution:
        """Score the inputs of one example for each explained position, by its target."""
        if self.best is None or self.by is None or evidence.candidates.sum() <= self.best:
            return evidence.of_target(lambda row: evidence.without_each(row, self.without), adds_up=False)
        method, best = as_method(self.by), self.best

        @functools.cache
        def others() -> Float[np.ndarray, "output token"]:
            found = as_attribution(method.attribute(evidence), evidence)
            return np.asarray(found.decoder if found.encoder is None else found.encoder, np.float64)

        def lost(row: int) -> Attribution:
            chosen_by = others()[row] if evidence.n_targets > 1 else others().mean(0)
            return self._lost(evidence, row, chosen_by, best)

        return evidence.of_target(lost, adds_up=False)

    def _lost(self, evidence: Evidence, row: int, scores: Float[np.ndarray, " token"], best: int) -> Attribution:
        """Leave out the best-scored candidates, and rank the others below them."""
        (places,) = np.nonzero(evidence.candidates)
        order = places[np.argsort(-scores[places], kind="stable")]
        found = evidence.without_each(row, self.without, order[:best].tolist())
        stack = "decoder" if found.encoder is None else "encoder"
        values = np.array(getattr(found, stack), np.float64)
        sizes, rest = np.abs(values[0, order[:best]]), scores[order[best:]]
        largest = np.abs(rest).max()
        if largest > 0:  # min(1, ...): where none of the best makes a difference, the others may be anything
            values[0, order[best:]] = rest * (sizes[sizes > 0].min(initial=1.0) / (2 * largest))
        stacks: dict[str, Any] = {stack: values}
        return dataclasses.replace(found, **stacks)


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
    model: Model,
    args: tuple,
    kwargs: Mapping,
    *,
    target: Target,
    without: Without | None = None,
    tokens: Sequence[int] | None = None,
) -> Attribution:
    """Do what `leave_one_out` does, for a `Model`; with `tokens`, for these alone, and all others score 0."""
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
    chosen = set(range(shape[-1]) if tokens is None else tokens)
    lost = [
        whole - value(without(dict(named), token)) if token in chosen else jnp.zeros_like(whole)
        for token in range(shape[-1])
    ]
    scores = jnp.stack(lost, axis=-1)
    rows, stack = scores[..., None, :], model.facts.stacks[0]
    return Attribution(
        encoder=rows if stack == "encoder" else None,
        decoder=rows if stack == "decoder" else None,
        positions=np.array([0]),
    )


def _hide(inputs: dict[str, Any], token: int) -> dict[str, Any]:
    mask = jnp.asarray(inputs["attention_mask"])
    return {**inputs, "attention_mask": mask.at[..., token].set(jnp.zeros((), mask.dtype))}
