"""What a model decided: outputs -> labels with probabilities, so that an explanation says what it explains."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from jaxflow.capture import Target, logit, logits_of
from jaxflow.explain._inputs import words_of


@dataclasses.dataclass(frozen=True)
class Prediction:
    """The likeliest label.

    Attributes:
        label: its name.
        probability: in [0, 1].
        position: the token that is labelled; None where the whole sequence is.
    """

    label: str
    probability: float
    position: int | None = None


def read_predictions(
    model: Any,
    outputs: Any,
    *,
    batch: tuple[int, ...] = (),
    labels: Sequence[str] | None = None,
    tokenizer: Any = None,
    produced: Int[np.ndarray, " token"] | None = None,
) -> tuple[Prediction, ...]:
    """Read what `model` predicted for one example off its `outputs`.

    Logits are the field `logits` of a transformers output, or an array that is the whole output of a model with
    labels. `[*batch, label]` is one prediction for the sequence, `[*batch, token, label]` one per token.

    Args:
        model: what returned `outputs`; its `config.id2label` or `labels` name the labels.
        outputs: what the model returned.
        batch: shape of the batch axes; the first example is read.
        labels: names of the labels; those of the model if None.
        tokenizer: names the labels of a language model, which are tokens.
        produced: `[token]`, label that each position produced, whose probability is then told; the likeliest where it is
            negative, and by default.

    Returns:
        Predictions, empty for a model without a head (its outputs are hidden states) or with a single logit
        (a regression).

    Raises:
        ValueError: more or fewer labels than logits.
    """
    labels = labels if labels is not None else getattr(model, "labels", None)
    logits = getattr(outputs, "logits", None)
    if logits is None and labels is not None and hasattr(outputs, "shape"):
        logits = outputs
    if logits is None:
        return ()
    logits = np.asarray(logits, np.float64)[(0,) * len(batch)]
    if logits.ndim not in (1, 2) or logits.shape[-1] < 2:
        return ()
    config = getattr(model, "config", None)
    if labels is not None and len(labels) != logits.shape[-1]:
        raise ValueError(f"{len(labels)} labels are given for {logits.shape[-1]} logits; expected one each.")
    probabilities = _sigmoid(logits) if _is_multi_label(config) else _softmax(logits)
    best = probabilities.argmax(-1)
    if produced is not None:
        best = np.where(np.asarray(produced) < 0, best, produced)

    def name(index: int) -> str:
        if labels is not None:
            return str(labels[index])
        if tokenizer is not None and logits.shape[-1] == getattr(config, "vocab_size", None):
            return words_of(tokenizer, np.array([index]))[0]
        return str((getattr(config, "id2label", None) or {}).get(index, index))

    if logits.ndim == 1:
        return (Prediction(name(int(best)), float(probabilities[best])),)
    return tuple(
        Prediction(name(int(label)), float(probabilities[position, label]), position)
        for position, label in enumerate(best)
    )


def label_target(
    label: str | int,
    *,
    model: Any,
    labels: Sequence[str] | None = None,
    tokenizer: Any = None,
    position: int | None = None,
) -> Target:
    """Make the logit of a label a target, the label given by its name.

    Args:
        label: its number; its name among `labels`, or of a language model, a token.
        model: whose label it is; its `labels` or `config.id2label` name them.
        labels: names of the labels; those of the model if None.
        tokenizer: knows the numbers of a language model's tokens.
        position: of which position, where logits `[batch, token, label]` are per position.

    Returns:
        A function of the model's outputs, which raises ValueError for a label that does not exist, and for logits per position
        without position.
    """

    def value(outputs: Any) -> Any:
        logits = logits_of(outputs)
        is_per_position = logits.ndim > 2
        if is_per_position and position is None:
            raise ValueError(
                f"{type(model).__name__} has logits for each position: say by outputs= which one the target is about, one number."
            )
        number = label if isinstance(label, int) else _number(label, logits.shape[-1], model, labels, tokenizer)
        return logit(number, position=position if is_per_position else None)(outputs)

    return value


def _number(name: str, n_labels: int, model: Any, labels: Sequence[str] | None, tokenizer: Any) -> int:
    """Return the number of the label of that name."""
    config = getattr(model, "config", None)
    if labels is None and tokenizer is not None and n_labels == getattr(config, "vocab_size", None):
        number = tokenizer.convert_tokens_to_ids(name)
        if isinstance(number, int) and words_of(tokenizer, np.array([number])) == [name]:
            return number
        raise ValueError(
            f"target is {name!r}, which is no token of the tokenizer; expected one as it writes them: {tokenizer.tokenize(name)}."
        )
    if labels is None:
        labels = getattr(model, "labels", None) or list((getattr(config, "id2label", None) or {}).values())
    if name not in labels:
        raise ValueError(
            f"target is {name!r}; expected one of {', '.join(map(repr, labels)) or 'none: no label has a name'}."
        )
    return list(labels).index(name)


def _is_multi_label(config: Any) -> bool:
    return getattr(config, "problem_type", None) == "multi_label_classification"


def _softmax(logits: Float[np.ndarray, "*axes label"]) -> Float[np.ndarray, "*axes label"]:
    exponential = np.exp(logits - logits.max(-1, keepdims=True))
    return exponential / exponential.sum(-1, keepdims=True)


def _sigmoid(logits: Float[np.ndarray, "*axes label"]) -> Float[np.ndarray, "*axes label"]:
    return 0.5 * (1 + np.tanh(0.5 * logits))
