"""Targets: functions of a model's outputs that return the one number that is explained."""

from __future__ import annotations

import dataclasses
import functools
import operator
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, ArrayLike, Float, Int

from jaxflow._attention import at_least_float32
from jaxflow.models import count_from_start, logits_of, pick

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


class LabelTarget:
    """A target that reads the logits of one position and nothing else: a PyTree of its labels and its position.

    One compiled program serves all labels and positions.
    """

    label: int | Int[ArrayLike, " *batch"]
    position: int | Int[ArrayLike, " *batch"] | None

    def located(self, outputs: Any) -> LabelTarget:
        """Return the same target with its labels and its position counted from the start, after a check that they exist.

        Raises:
            ValueError: as `logits_of`; a label or a position that does not exist.
        """
        logits = getattr(outputs, "logits", outputs)
        shape = np.shape(logits)
        if not hasattr(logits, "dtype") or len(shape) < (1 if self.position is None else 2):
            logits_of(outputs, self.position)  # which says what is wrong
        counted = {"label": count_from_start(self.label, shape[-1])}
        if self.position is not None:
            counted["position"] = count_from_start(self.position, shape[-2])
        if isinstance(self, Contrast):
            counted["other"] = count_from_start(self.other, shape[-1])
        return dataclasses.replace(self, **counted)  # type: ignore[type-var]

    def __call__(self, outputs: Any) -> Array:
        """Return the target of a model's outputs."""
        raise NotImplementedError


@struct.dataclass
class Logit(LabelTarget):
    """What `logit` makes."""

    label: Any
    position: Any = None

    def __call__(self, outputs: Any) -> Array:
        """Return the logit."""
        return pick(logits_of(outputs, self.position), self.label)


@struct.dataclass
class LogProbability(LabelTarget):
    """What `log_probability` makes."""

    label: Any
    position: Any = None

    def __call__(self, outputs: Any) -> Array:
        """Return the log-probability."""
        return pick(jax.nn.log_softmax(logits_of(outputs, self.position)), self.label)


@struct.dataclass
class Contrast(LabelTarget):
    """What `contrast` makes."""

    label: Any
    other: Any
    position: Any = None

    def __call__(self, outputs: Any) -> Array:
        """Return the difference of two logits."""
        logits = logits_of(outputs, self.position)
        return pick(logits, self.label) - pick(logits, self.other)


@struct.dataclass
class TargetSum(LabelTarget):
    """The sum of several targets, for positions that are explained as one set."""

    targets: tuple[LabelTarget, ...]

    def located(self, outputs: Any) -> TargetSum:
        """Return the sum of the located targets."""
        return TargetSum(tuple(target.located(outputs) for target in self.targets))

    def __call__(self, outputs: Any) -> Array:
        """Return the sum."""
        return functools.reduce(operator.add, [target(outputs) for target in self.targets])


def logit(label: int | Int[ArrayLike, " *batch"], *, position: int | Int[ArrayLike, " *batch"] | None = None) -> Target:
    """Make the target `y = logits[label]`.

    Args:
        label: number of the label or token; one, or one per example.
        position: of which position, where logits are per position, `[*batch, token, label]`; None where they are of the
            whole sequence. Position p of a decoder predicts the token at p + 1. Negative ones count from the end.

    Returns:
        A function of the model's outputs: logits, or an object whose field `logits` they are. It is a PyTree: pass it as an
        argument through `jit`, and one program serves all labels and positions.

    Example:
        >>> logit(1, position=-1)(jnp.array([[[1.0, 2.0], [3.0, 4.0]]]))
        Array([4.], dtype=float32)
    """
    return Logit(label, position)


def log_probability(
    label: int | Int[ArrayLike, " *batch"], *, position: int | Int[ArrayLike, " *batch"] | None = None
) -> Target:
    """Make the target `y = log softmax(logits)[label]`; arguments as in `logit`.

    Example:
        >>> log_probability(1)(jnp.array([[2.0, 2.0]]))
        Array([-0.6931472], dtype=float32)
    """
    return LogProbability(label, position)


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
    return Contrast(label, other, position)
