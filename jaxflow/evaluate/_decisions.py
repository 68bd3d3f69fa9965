"""What is asked of a model about each text: which of its numbers is to be explained, and at which output."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxflow.capture import Target, can_generate, is_encoder_decoder, logit, logits_of

Reference = Any  # a PyTree of arrays


@dataclasses.dataclass(frozen=True)
class Question:
    """A decision of a model on every text, its own on the whole of it.

    Attributes:
        outputs: number of a text's tokens -> positions that are explained, whose scores are averaged.
        find: what is read of the whole text, and the first of these positions -> the decision: arrays, such as the number of
            a label.
        target: a decision -> the number that gradients are of, such as its logit, of what is read.
        value: a decision -> the number that is to fall or to stay where tokens are hidden, such as its probability, of what is
            read.
        read: what the model returns, and its inputs -> what is read of them; the former by default.
    """

    outputs: Callable[[int], Sequence[int]]
    find: Callable[[Any, Any], Reference]
    target: Callable[[Reference], Target]
    value: Callable[[Reference], Target]
    read: Callable[[Any, Mapping[str, Any]], Any] = lambda outputs, inputs: outputs


def predicted_label(position: int = 0) -> Question:
    """Ask why a classifier predicts its label: the logit, the probability, and the flow to the token it is read from."""
    return Question(
        outputs=lambda n_tokens: (position % n_tokens,),
        find=lambda outputs, _: logits_of(outputs)[0].argmax(-1),
        target=logit,
        value=probability,
    )


def next_token(is_written_from_start: bool = False) -> Question:
    """Ask why a model writes the token that it writes first: after the last token, or after a decoder's start token."""

    def find(outputs: Any, position: Any) -> Reference:
        return logits_of(outputs, position)[0].argmax(-1), position

    return Question(
        outputs=lambda n_tokens: (0 if is_written_from_start else n_tokens - 1,),
        find=find,
        target=lambda decision: logit(decision[0], position=decision[1]),
        value=lambda decision: probability(decision[0], position=decision[1]),
    )


def probability(label: Any, *, position: Any = None) -> Target:
    """Make the target `y = softmax(logits)[label]`; arguments as in `logit`."""

    def value(outputs: Any) -> jax.Array:
        return logit(label)(jax.nn.softmax(logits_of(outputs, position)))

    return value


def question_of(model: Any, outputs: Any) -> Question:
    """Say what is asked of a model by default, after what it returned on one text.

    Raises:
        ValueError: it predicts nothing, or it cannot be told at which position.
    """
    name, mend = (
        type(model).__name__,
        "Pass question=, a jaxflow.Question that says which number is explained, and where.",
    )
    logits = getattr(outputs, "logits", outputs)
    if not hasattr(logits, "ndim") or logits.ndim not in (2, 3):
        raise ValueError(f"{name} has no head: it returns {type(outputs).__name__}, and no logits. {mend}")
    if (
        logits.shape[-1] < 2
        or getattr(getattr(model, "config", None), "problem_type", None) == "multi_label_classification"
    ):
        raise ValueError(f"{name} predicts {logits.shape[-1]} numbers apart, and no label among several. {mend}")
    if logits.ndim == 3 and can_generate(model):
        return next_token(is_encoder_decoder(model))
    if logits.ndim == 3 or is_encoder_decoder(model):
        raise ValueError(f"{name} has logits {list(jnp.shape(logits))}: it cannot be told at which output. {mend}")
    return predicted_label()
