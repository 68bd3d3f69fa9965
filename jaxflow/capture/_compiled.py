"""A model's attention, gradients and contributions by compiled programs, which are kept between calls."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import jax
import numpy as np

from jaxflow._attention import Attention
from jaxflow.capture._capture import run_capture
from jaxflow.capture._contributions import Contributions, pull_contributions
from jaxflow.capture._gradients import pull_gradients
from jaxflow.capture._head_reduction import Heads, is_index, is_named
from jaxflow.capture._targets import LabelTarget, Target
from jaxflow.capture._traced import check_softmax
from jaxflow.models import Model, is_hashable, run_compiled, run_traced


def capture_compiled(
    model: Model, args: tuple, kwargs: Mapping[str, Any], *, heads: Heads | None = None
) -> tuple[Any, Attention]:
    """Do what `run_capture` does, compiled."""
    if heads is not None and not (is_named(heads) or is_index(heads)):  # weights are checked where they have values
        return run_capture(model, args, kwargs, heads=heads)
    job = _capture_by(cast("str | int | None", heads))
    outputs, attention = run_traced(job, model, args, kwargs, None)
    if heads != "max":  # rows of the greatest of all heads may sum to more than 1
        check_softmax(model.name, attention)
    return outputs, attention


def gradients_compiled(
    model: Model, args: tuple, kwargs: Mapping[str, Any], target: Target
) -> tuple[Attention, Attention]:
    """Return the attention, and the gradients of a target by it: compiled, if the target is a PyTree."""
    return _run_for(target, _gradients, model, args, kwargs)


def contributions_compiled(model: Model, args: tuple, kwargs: Mapping[str, Any], target: Target) -> Contributions:
    """Return what each token gave to a target: compiled, if the target is a PyTree."""
    return _run_for(target, _contributions, model, args, kwargs)


def contributions_to_each(
    model: Model, args: tuple, kwargs: Mapping[str, Any], targets: Sequence[LabelTarget]
) -> Contributions:
    """Return what each token gave to each of several targets of one kind, `[target, *batch, ...]`: one forward pass, compiled."""
    return run_traced(_contributions_each, model, args, kwargs, _stacked(targets))


def gradients_of_each(
    model: Model, args: tuple, kwargs: Mapping[str, Any], targets: Sequence[LabelTarget]
) -> tuple[Attention, Attention]:
    """Return the attention, and the gradients of each of several targets of one kind, likewise."""
    return run_traced(_gradients_each, model, args, kwargs, _stacked(targets))


def _stacked(targets: Sequence[LabelTarget]) -> Any:
    return jax.tree.map(lambda *leaves: np.stack([np.asarray(leaf) for leaf in leaves]), *targets)


def _contributions_each(model: Model, args: tuple, kwargs: Mapping[str, Any], targets: Any) -> Contributions:
    # What does not depend on the target, such as the forward pass, is computed once.
    return jax.vmap(lambda target: _contributions(model, args, kwargs, target))(targets)


def _gradients_each(model: Model, args: tuple, kwargs: Mapping[str, Any], targets: Any) -> tuple[Attention, Attention]:
    return jax.vmap(lambda target: _gradients(model, args, kwargs, target), out_axes=(None, 0))(targets)


def run_scored(score: Any, model: Model, args: tuple, kwargs: Mapping[str, Any], target: Target) -> Any:
    """Return `score(model, args, kwargs, target=target)`, compiled if score and target can be a program's."""
    if not is_hashable(score):
        return score(model, args, kwargs, target=target)
    return _run_for(target, _score_by(score), model, args, kwargs, compiled=run_compiled)


@functools.lru_cache(maxsize=64)
def _score_by(score: Any) -> Callable[..., Any]:
    def scored(model: Model, args: tuple, kwargs: Mapping[str, Any], target: Target) -> Any:
        return score(model, args, kwargs, target=target)

    return scored


def _run_for(
    target: Target,
    job: Callable[..., Any],
    model: Model,
    args: tuple,
    kwargs: Mapping[str, Any],
    *,
    compiled: Callable[..., Any] = run_traced,
) -> Any:
    if isinstance(target, LabelTarget):
        return compiled(job, model, args, kwargs, target)
    return job(model, args, kwargs, target)


@functools.cache
def _capture_by(heads: str | int | None) -> Callable[..., Any]:
    def captured(model: Model, args: tuple, kwargs: Mapping[str, Any], operand: Any) -> tuple[Any, Attention]:
        return run_capture(model, args, kwargs, heads=heads)

    return captured


def _gradients(model: Model, args: tuple, kwargs: Mapping[str, Any], target: Target) -> tuple[Attention, Attention]:
    _, attention, pull = pull_gradients(model, args, kwargs, targets=[target])
    return attention, pull(0)


def _contributions(model: Model, args: tuple, kwargs: Mapping[str, Any], target: Target) -> Contributions:
    return pull_contributions(model, args, kwargs, targets=[target])[2](0)
