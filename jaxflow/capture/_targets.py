"""Targets: functions of a model's outputs that return the one number that is explained."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Int

from jaxflow._attention import at_least_float32
from jaxflow.models import logits_of, pick

# A model's outputs -> one number per example, `[*batch]`, or their sum.
Target = Callable[[Any], Float[Array, "..."]]


def evaluate_target(target: Target, outputs: Any, batch: tuple[int, ...]) -> Float[Array, " ..."]:
    """Return `target(outputs)`, one number per example of `batch` or one for all, float32 at least.

    Raises:
        ValueError: it is something else.
    """
    value = target(outputs)
    shape = getattr(value, "shape", None)
    if shape not in ((), tuple(batch)) or not jnp.issubdtype(value.dtype, jnp.floating):
        got = type(value).__name__ if shape is None else f"shape {tuple(shape)} and dtype {value.dtype}"
        raise ValueError(
            f"target returned {got}; expected one number per example, shape {tuple(batch)}, or one for all, shape (). Of logits "
            "per position, [*batch, token, label], say which: logit(label, position=0)."
        )
    return at_least_float32(value)


def logit(label: int | Int[ArrayLike, " *batch"], *, position: int | Int[ArrayLike, " *batch"] | None = None) -> Target:
    """Make the target `y = logits[label]`.

    Args:
        label: number of the label or token; one, or one per example.
        position: of which position, where logits are per position, `[*batch, token, label]`; None where they are of the
            whole sequence. Position p of a decoder predicts the token at p + 1. Negative ones count from the end.

    Returns:
        A function of the model's outputs: logits, or an object whose field `logits` they are.

    Example:
        >>> logit(1, position=-1)(jnp.array([[[1.0, 2.0], [3.0, 4.0]]]))
        Array([4.], dtype=float32)
    """
    return lambda outputs: pick(logits_of(outputs, position), label)


def log_probability(
    label: int | Int[ArrayLike, " *batch"], *, position: int | Int[ArrayLike, " *batch"] | None = None
) -> Target:
    """Make the target `y = log softmax(logits)[label]`; arguments as in `logit`.

    Example:
        >>> log_probability(1)(jnp.array([[2.0, 2.0]]))
        Array([-0.6931472], dtype=float32)
    """
    return lambda outputs: pick(jax.nn.log_softmax(logits_of(outputs, position)), label)


def contrast(
    label: int | Int[ArrayLike, " *batch"],
    other: int | Int[ArrayLike, " *batch"],
    *,
    position: int | Int[ArrayLike, " *batch"] | None = None,
) -> Target:
    """Make the target `y = logits[label] - logits[other]`: why this and not that. Arguments as in `logit`.

    Example:
        >>> contrast(1, 0)(jnp.array([[1.0, 4.0]]))
        Array([3.], dtype=float32)

    Source: contrastive explanations of Yin & Neubig 2022 (2202.10419).
    """

    def value(outputs: Any) -> Array:
        logits = logits_of(outputs, position)
        return pick(logits, label) - pick(logits, other)

    return value
