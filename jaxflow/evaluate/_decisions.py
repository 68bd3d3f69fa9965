"""What is explained of each text: which of a model's numbers, and at which position."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxflow.capture import Target, logit, logits_of
from jaxflow.models import Model

Decided = Any  # what a model decided: a PyTree of arrays, such as the number of a label


@dataclasses.dataclass(frozen=True)
class Decision:
    """What a model decides on a text, and which numbers stand for that.

    Attributes:
        positions: number of a text's tokens -> positions that are explained, whose scores are averaged.
        find: what is read of the whole text, and the first of these positions -> what was decided: arrays, such as the number of
            a label.
        target: what was decided -> the number that gradients are of, such as a logit, as a function of what is read.
        value: what was decided -> the number that falls or stays where tokens are hidden, such as a probability, likewise.
        read: what the model returns, and its inputs -> what is read of them; the former by default.
    """

    positions: Callable[[int], Sequence[int]]
    find: Callable[[Any, Any], Decided]
    target: Callable[[Decided], Target]
    value: Callable[[Decided], Target]
    read: Callable[[Any, Mapping[str, Any]], Any] = lambda outputs, inputs: outputs


def predicted_label(position: int = 0) -> Decision:
    """Explain why a classifier predicts its label: logit and probability, at the token that the label is read from."""
    return Decision(
        positions=lambda n_tokens: (position % n_tokens,),
        find=lambda outputs, _: logits_of(outputs)[0].argmax(-1),
        target=logit,
        value=probability,
    )


def next_token(is_written_from_start: bool = False) -> Decision:
    """Explain why a model writes the token that it writes first: after the last token, or after a decoder's start token."""

    def find(outputs: Any, position: Any) -> Decided:
        return logits_of(outputs, position)[0].argmax(-1), position

    return Decision(
        positions=lambda n_tokens: (0 if is_written_from_start else n_tokens - 1,),
        find=find,
        target=lambda decided: logit(decided[0], position=decided[1]),
        value=lambda decided: probability(decided[0], position=decided[1]),
    )


def probability(label: Any, *, position: Any = None) -> Target:
    """Make the target `y = softmax(logits)[label]`; arguments as in `logit`."""

    def value(outputs: Any) -> jax.Array:
        return logit(label)(jax.nn.softmax(logits_of(outputs, position)))

    return value


def default_decision(model: Model, outputs: Any) -> Decision:
    """Return what is explained of a model by default, after what it returned on one text.

    Raises:
        ValueError: it predicts nothing, or it cannot be told at which position.
    """
    mend = "Pass decision=, a jaxflow.evaluate.Decision that says which number is explained, and where."
    logits = getattr(outputs, "logits", outputs)
    if not hasattr(logits, "ndim") or logits.ndim not in (2, 3):
        raise ValueError(f"{model.name} has no head: it returns {type(outputs).__name__}, and no logits. {mend}")
    if logits.shape[-1] < 2 or model.facts.is_multi_label:
        raise ValueError(f"{model.name} predicts {logits.shape[-1]} numbers apart, and no label among several. {mend}")
    generation = model.facts.generation
    if logits.ndim == 3 and generation is not None:
        return next_token(generation.has_encoder)
    if logits.ndim == 3 or len(model.facts.stacks) > 1:
        raise ValueError(
            f"{model.name} has logits {list(jnp.shape(logits))}: it cannot be told at which position. {mend}"
        )
    return predicted_label()
