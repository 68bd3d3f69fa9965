"""What a model decided: outputs -> labels with probabilities, and labels -> targets."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Int

from jaxflow.capture import LabelTarget, Logit, logits_of
from jaxflow.explain._token_names import find_token, name_tokens
from jaxflow.models import Model

PER_POSITION = "has logits for each position: say by positions= which one"


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
    model: Model,
    outputs: Any,
    *,
    batch: tuple[int, ...] = (),
    tokenizer: Any = None,
    produced: Int[np.ndarray, " token"] | None = None,
) -> tuple[Prediction, ...]:
    """Read what a model predicted for one example off its `outputs`.

    Logits are the field `logits` of the outputs, or an array that is the whole output of a model with labels. `[*batch, label]`
    is one prediction for the sequence, `[*batch, token, label]` one for each token.

    Args:
        model: what returned `outputs`; its facts name the labels.
        outputs: what the model returned.
        batch: shape of the batch axes; the first example is read.
        tokenizer: names the labels of a language model, which are tokens.
        produced: `[token]`, the label that each position produced, whose probability is told; the likeliest where it is
            negative, and by default.

    Returns:
        Predictions; none for a model without a head (its outputs are hidden states) or with a single logit (a regression).

    Raises:
        ValueError: more or fewer labels than logits.
    """
    labels = model.facts.labels
    logits = getattr(outputs, "logits", None)
    if logits is None and labels is not None and hasattr(outputs, "shape"):
        logits = outputs
    if logits is None:
        return ()
    logits = np.asarray(logits, np.float64)[(0,) * len(batch)]
    if logits.ndim not in (1, 2) or logits.shape[-1] < 2:
        return ()
    fits = labels is not None and len(labels) == logits.shape[-1]
    are_words = logits.shape[-1] == model.facts.n_words and not fits
    if labels is not None and not fits and not are_words:
        raise ValueError(f"{len(labels)} labels are given for {logits.shape[-1]} logits; expected one each.")
    from scipy import special  # late: it takes as long as a tenth of all that jaxflow imports

    probabilities = special.expit(logits) if model.facts.is_multi_label else special.softmax(logits, axis=-1)
    best = probabilities.argmax(-1)
    if produced is not None:
        best = np.where(np.asarray(produced) < 0, best, produced)

    if are_words and tokenizer is not None:
        names = [token.name for token in name_tokens(tokenizer, np.ravel(best), are_apart=True)]
        if produced is not None:  # a text, whose tokens may share letters
            written = np.flatnonzero(np.asarray(produced) >= 0)
            for position, token in zip(written, name_tokens(tokenizer, best[written]), strict=True):
                names[position] = token.name
    else:
        names = [str(labels[label] if fits and labels is not None else label) for label in np.ravel(best).tolist()]
    if logits.ndim == 1:
        return (Prediction(names[0], float(probabilities[best])),)
    return tuple(
        Prediction(name, float(probabilities[position, label]), position)
        for position, (label, name) in enumerate(zip(best, names, strict=True))
    )


def label_target(
    label: str | int, *, model: Model, outputs: Any, tokenizer: Any = None, position: int | None = None
) -> LabelTarget:
    """Make the logit of a label a target.

    Args:
        label: its number, or its name among the model's labels; of a language model, a token.
        model: whose label it is.
        outputs: what the model returned.
        tokenizer: knows the numbers of a language model's tokens.
        position: of which position, where logits are per position, `[batch, token, label]`.

    Raises:
        ValueError: outputs without logits; a label that does not exist; logits per position without position.
    """
    logits = _logits(outputs)
    at = _position_of(logits, position, f"{model.name} {PER_POSITION} the target is about, one number.")
    number = label if isinstance(label, int) else _number(label, logits.shape[-1], model, tokenizer)
    return Logit(number, at).located(outputs)


def predicted_target(model: Model, outputs: Any, position: int | None) -> LabelTarget:
    """Make the logit of the label that the model found likeliest a target; of one position, where logits are per position.

    The label stays the same where inputs change, as without a token or on the way from a baseline.

    Raises:
        ValueError: as `label_target`.
    """
    logits = _logits(outputs)
    at = _position_of(logits, position, f"{model.name} {PER_POSITION} is explained, or pass a target.")
    of_labels = logits if at is None else logits[..., at, :]
    return Logit(int(of_labels.argmax(-1).item()), at).located(outputs)  # a number, as of a label that is asked for


def _logits(outputs: Any) -> Float[np.ndarray, " ..."]:
    """Return the logits in what a model returned, on the host.

    Raises:
        ValueError: it returned none.
    """
    return np.asarray(jax.device_get(logits_of(outputs)))


def _position_of(logits: Float[np.ndarray, " ..."], position: int | None, message: str) -> int | None:
    """Return the position whose logits count; None where logits are of the whole sequence.

    Raises:
        ValueError: with that message, where logits are per position and none is chosen.
    """
    if logits.ndim <= 2:
        return None
    if position is None:
        raise ValueError(message)
    return position


def _number(name: str, n_labels: int, model: Model, tokenizer: Any) -> int:
    """Return the number of the label of that name."""
    labels = list(model.facts.labels or ())
    if tokenizer is not None and n_labels == model.facts.n_words and len(labels) != n_labels:
        return _token(name, tokenizer)
    if name not in labels:
        raise ValueError(
            f"target is {name!r}; expected one of {', '.join(map(repr, labels)) or 'none: no label has a name'}."
        )
    return labels.index(name)


def _token(name: str, tokenizer: Any) -> int:
    """Return the token of that name."""
    number = find_token(tokenizer, name)
    if number is None:
        raise ValueError(
            f"target is {name!r}, which is no token of the tokenizer; expected one by its name as a page shows it, as the "
            "tokenizer spells it, or by its number."
        )
    return number
