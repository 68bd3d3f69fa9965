"""A model as a function of what is added to its attention weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxflow.capture._huggingface import capture_huggingface
from jaxflow.capture._jaxpr import perturbable_traced
from jaxflow.capture._kinds import kind_of
from jaxflow.capture._linen import capture_linen
from jaxflow.capture._marks import Perturbable, perturbable
from jaxflow.capture._nnx import perturbable_nnx
from jaxflow.capture._roles import Role


def perturbable_model(
    model: Any, args: tuple, kwargs: dict, *, variables: Mapping | None, sown: str, roles: Mapping[str, Role] | None
) -> Perturbable:
    """Do what `capture` does, as a function of what is added to the weights; arguments and errors as there."""
    kind = kind_of(model, variables=variables, sown=sown, roles=roles)
    if kind == "transformers":
        return perturbable(lambda marks: capture_huggingface(model, args, kwargs, marks=marks))
    if kind == "linen":
        return perturbable(
            lambda marks: capture_linen(model, args, kwargs, variables=variables, sown=sown, roles=roles, marks=marks)
        )
    if kind == "nnx":
        return perturbable_nnx(model, args, kwargs, sown=sown, roles=roles)
    return perturbable_traced(model, args, kwargs, roles=roles)
