"""Methods by name, and what makes an object a method."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import ArrayLike, Float

from jaxflow.attribute._attribution import Attribution, sum_over_spans
from jaxflow.attribute._contributions import ContributionFlow, ContributionScores
from jaxflow.attribute._evidence import Evidence
from jaxflow.attribute._flow import AttentionFlow
from jaxflow.attribute._gradients import GradientNorm, InputXGradient, IntegratedGradients
from jaxflow.attribute._leave_one_out import LeaveOneOut
from jaxflow.attribute._random import Random
from jaxflow.attribute._rollout import RawAttention, Rollout
from jaxflow.attribute.shapley import SetShapley


@runtime_checkable
class Method(Protocol):
    """A way to score the inputs of a model. A class with this one function is a method, and needs no base class.

    It may say more: `name`, what it is called, and `needs`, what it asks of a model: a set of "attention", "gradients",
    "contributions", "embeddings" and "passes" (forward passes with tokens hidden). A target is refused for a method that says it
    needs none of the last four.

    Example:
        >>> class LastLayerMaximum:
        ...     def attribute(self, evidence):
        ...         heads = np.asarray(evidence.attention.encoder)[-1]  # [head, query, key]
        ...         return heads.max(0)[list(evidence.positions)]
        >>> isinstance(LastLayerMaximum(), Method)
        True
    """

    def attribute(self, evidence: Evidence) -> Attribution | Float[ArrayLike, "output input"]:
        """Return an `Attribution`, or scores `[output, input]`, or `[input]` for one position; inputs are tokens."""


METHODS: Mapping[str, Method] = {
    "flow": AttentionFlow(),
    "flow_gradient": AttentionFlow(weighting="gradient"),
    "flow_attention_gradient": AttentionFlow(weighting="attention_gradient"),
    "contributions": ContributionScores(),
    "contribution_flow": ContributionFlow(),
    "rollout": Rollout(),
    "raw": RawAttention(),
    "gradient_rollout": Rollout(weighting="attention_gradient"),
    "shapley": SetShapley(),
    "gradient": GradientNorm(),
    "input_x_gradient": InputXGradient(),
    "integrated_gradients": IntegratedGradients(),
    "leave_one_out": LeaveOneOut(),
    "random": Random(),
}


def as_method(method: Method | str) -> Method:
    """Return the method of that name, or the method itself.

    Raises:
        ValueError: no such name.
        TypeError: an object that is no method.
    """
    if isinstance(method, str):
        if method not in METHODS:
            raise ValueError(f"{method!r} is no method; expected one of {', '.join(METHODS)}, or an object.")
        return METHODS[method]
    if isinstance(method, type) or not isinstance(method, Method):
        got = f"the class {method.__name__}" if isinstance(method, type) else type(method).__name__
        raise TypeError(
            f"method is {got}; expected a name ({', '.join(METHODS)}), one of the methods such as AttentionFlow(), or an object "
            "with a function attribute(evidence)."
        )
    return method


def method_name(method: Method) -> str:
    """Return what a method is called: its `name`, or that of its class."""
    return str(getattr(method, "name", type(method).__name__))


def method_label(method: Method) -> str:
    """Tell methods of one kind apart: the name, and the options that are not the defaults."""
    known = next((name for name, other in METHODS.items() if other is method), None)
    if known is not None:
        return known
    options = {name: value for name, value in method_options(method).items() if not _is_default(method, name, value)}
    written = ", ".join(f"{name}={_short(value)}" for name, value in options.items())
    return f"{method_name(method)}({written})" if written else method_name(method)


def method_options(method: Method) -> dict[str, Any]:
    """Return the options of a method that is a dataclass, by name; of others none."""
    if not dataclasses.is_dataclass(method):
        return {}
    return {field.name: getattr(method, field.name) for field in dataclasses.fields(method)}


def needs_target(method: Method) -> bool:
    """Whether scores depend on a target, as far as the method says; a method that says nothing may ask for one."""
    needs = getattr(method, "needs", None)
    return needs is None or bool(needs - {"attention"})


def as_attribution(found: Any, evidence: Evidence) -> Attribution:
    """Return what a method found as an `Attribution` of NumPy arrays.

    Raises:
        ValueError: scores of another shape.
    """
    if isinstance(found, Attribution):
        return found
    scores = np.atleast_2d(np.asarray(found, np.float64))
    n_encoder, n_decoder = (len(evidence.tokens.get(side, ())) for side in ("encoder", "decoder"))
    n_rows = 1 if evidence.joint else len(evidence.positions)
    if scores.shape not in ((n_rows, n_encoder + n_decoder), (n_rows, n_encoder)) or not scores.size:
        raise ValueError(
            f"The method returned scores of shape {np.shape(found)}; expected {(n_rows, n_encoder + n_decoder)}, one for each "
            "explained position and input, or an Attribution."
        )
    is_whole = scores.shape[1] == n_encoder + n_decoder
    scored = Attribution(
        encoder=scores[:, :n_encoder] if n_encoder else None,
        decoder=scores[:, n_encoder:] if n_decoder and is_whole else None,
        positions=np.asarray([0] if evidence.joint else evidence.positions),
    )
    return sum_over_spans(scored, evidence.spans._replace(outputs=None))


def _is_default(method: Any, name: str, value: Any) -> bool:
    default: Any = next(field.default for field in dataclasses.fields(method) if field.name == name)
    return type(value) is type(default) and np.ndim(value) == 0 and value == default


def _short(value: Any) -> str:
    return f"{type(value).__name__}{list(value.shape)}" if np.ndim(value) else str(value)
