"""All methods that have a name, and what they say of themselves."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from jaxflow.attribute._contributions import ContributionFlow, ContributionScores
from jaxflow.attribute._flow import AttentionFlow
from jaxflow.attribute._gradients import GradientNorm, InputXGradient, IntegratedGradients
from jaxflow.attribute._leave_one_out import LeaveOneOut
from jaxflow.attribute._method import METHODS, Method
from jaxflow.attribute._random import Random
from jaxflow.attribute._rollout import RawAttention, Rollout
from jaxflow.attribute._token_shapley import TokenShapley
from jaxflow.attribute.shapley import SetShapley

METHODS |= {
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
    "token_shapley": TokenShapley(),
    "random": Random(),
}


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


def _is_default(method: Any, name: str, value: Any) -> bool:
    default: Any = next(field.default for field in dataclasses.fields(method) if field.name == name)
    return type(value) is type(default) and np.ndim(value) == 0 and value == default


def _short(value: Any) -> str:
    return f"{type(value).__name__}{list(value.shape)}" if np.ndim(value) else str(value)
