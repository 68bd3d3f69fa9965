"""Attention and its gradients -> weights that are specific to a target."""

from __future__ import annotations

from typing import Any, Literal, get_args

import jax.numpy as jnp
import numpy as np

from jaxflow._attention import STACKS, AnyArray, Attention, at_least_float32, is_traced, numpy_of
from jaxflow.capture import SIDES, Masks

Weighting = Literal["attention", "gradient", "attention_gradient"]


def weigh_attention(
    attention: Attention, *, weighting: Weighting, gradients: Attention | None, masks: Masks
) -> Attention:
    """Return what capacities are made of, per head: `A`, `relu(G)` where A > 0, or `relu(A * G)`.

    Where a mask lets a query not see a key, A is exactly 0, and no arc is there whatever the gradient.

    Args:
        attention: A, checked.
        weighting: "attention", "gradient" or "attention_gradient".
        gradients: G, of the same shapes; None for "attention" alone.
        masks: checked; rows and columns of padding may hold anything.

    Returns:
        `Attention` whose rows do not sum to 1, float32 at least; the attention itself for "attention".

    Raises:
        ValueError: no such weighting; gradients that are missing, given in vain, of other shapes, or not finite.

    Source: AF, GF and AGF of Azarkhalili & Libbrecht 2025 (2502.15765).
    """
    check_weighting(weighting, gradients)
    if gradients is None:
        return attention
    stacks: dict[str, Any] = {}
    for name in STACKS:
        weights, gradient = getattr(attention, name), getattr(gradients, name)
        if (weights is None) != (gradient is None) or np.shape(weights) != np.shape(gradient):
            got, expected = (
                "nothing" if stack is None else f"shape {tuple(np.shape(stack))}" for stack in (gradient, weights)
            )
            raise ValueError(
                f"gradients.{name} has {got}; expected {expected}, as the attention: one gradient for each weight, as "
                "attention_gradients returns them."
            )
        if weights is None:
            continue
        _check_finite(name, gradient, masks)
        numpy = numpy_of(gradient, weights)
        gradient = at_least_float32(numpy.asarray(gradient))
        weights = at_least_float32(numpy.asarray(weights))
        if weighting == "gradient":
            gradient = numpy.where(weights > 0, gradient, numpy.zeros((), gradient.dtype))
        else:
            dtype = jnp.promote_types(weights.dtype, gradient.dtype)
            gradient = weights.astype(dtype) * gradient.astype(dtype)
        stacks[name] = numpy.maximum(gradient, numpy.zeros((), gradient.dtype))
    return Attention(**stacks)


def check_weighting(weighting: Weighting, gradients: Any) -> None:
    """Raise unless `weighting` is one, and gradients are given if and only if it needs them.

    Raises:
        ValueError: otherwise.
    """
    if weighting not in get_args(Weighting):
        raise ValueError(f"weighting is {weighting!r}; expected one of {', '.join(map(repr, get_args(Weighting)))}.")
    if weighting != "attention" and gradients is None:
        raise ValueError(
            f"weighting={weighting!r} needs gradients=, an Attention of gradients of the number to explain: attention_gradients("
            "model, ..., target=...) returns them beside the attention."
        )
    if weighting == "attention" and gradients is not None:
        raise ValueError(
            "gradients are given, but weighting='attention' does not use them: leave them out, or pass weighting='gradient' or "
            "'attention_gradient'."
        )


def _check_finite(name: str, gradient: AnyArray, masks: Masks) -> None:
    if is_traced(gradient, masks):
        return
    finite = np.isfinite(np.asarray(gradient).astype(np.float32))
    for side, axis in zip(SIDES[name], (-1, -2), strict=True):
        if masks[side] is not None:
            finite = finite | ~np.expand_dims(np.asarray(masks[side], bool), (-3, -4, axis))
    if not finite.all():
        raise ValueError(
            f"gradients.{name} hold {(~finite).sum()} values that are NaN or infinite where there is no padding. The target may "
            "have no gradient at this input (the logarithm of 0), or the model is broken."
        )
