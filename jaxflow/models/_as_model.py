"""as_model: the one place where the kind of a model is asked for."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn

from jaxflow.models._facts import facts_of
from jaxflow.models._function import FunctionModel
from jaxflow.models._linen import linen_model
from jaxflow.models._model import DEFAULT_NAME, Model, model_name
from jaxflow.models._nnx import is_nnx, nnx_model
from jaxflow.models._recording import Mixing, Role
from jaxflow.models._transformers._adapter import is_transformers, transformers_model


def as_model(
    model: Any,
    *,
    variables: Mapping | None = None,
    sown: str = DEFAULT_NAME,
    roles: Mapping[str, Role] | None = None,
    mixing: Mixing = "refuse",
    labels: Sequence[str] | None = None,
) -> Model:
    """Make a `Model` of whatever can be explained.

    Args:
        model: a `Model`, which is returned as it is; an instance of a Flax class of transformers 4; a `flax.linen` module,
            bound, or unbound with `variables`; a `flax.nnx` module or a method of one; any other function, or object that can
            be called.
        variables: the variables of an unbound linen module. Without them it cannot run, but be bound to some.
        sown: the name under which a linen or NNX module sows its attention.
        roles: which stack attention belongs to: a fragment of its path -> "encoder", "decoder" or "cross".
        mixing: what to do if something other than attention moves information from token to token: a recurrence, a convolution, a
            fixed matrix of tokens by tokens, a shift. No network of attention has that. "refuse": raise, and name the places.
            "accept": take the attention all the same; `Attention.mixing` and every view of an explanation say what is left out.
        labels: the name of each label; what the model says by default.

    Raises:
        TypeError: `model` is nothing that can be run here.
        ValueError: options that are for other models.

    Example:
        >>> as_model(lambda x: x).facts.stacks
        ('encoder',)
    """
    if mixing not in ("refuse", "accept"):
        raise ValueError(f"mixing is {mixing!r}; expected 'refuse' or 'accept'.")
    made = _adapted(model, variables=variables, sown=sown, roles=roles, mixing=mixing)
    if labels is None:
        return made
    return _with_labels(made, tuple(map(str, labels)))


def _adapted(
    model: Any, *, variables: Mapping | None, sown: str, roles: Mapping[str, Role] | None, mixing: Mixing
) -> Model:
    is_said = variables is not None or sown != DEFAULT_NAME or roles is not None or mixing != "refuse"
    if isinstance(model, nn.Module):
        return linen_model(model, variables=variables, sown=sown, roles=roles, mixing=mixing)
    if isinstance(model, Model):
        if is_said:
            raise ValueError(
                f"{model.name} is a Model already: variables=, sown=, roles= and mixing= go to as_model, or to its own "
                "class."
            )
        return model
    if is_transformers(model):
        if is_said:
            raise ValueError(
                f"{type(model).__name__} holds its own parameters and sows nothing, and its stacks are known: variables=, "
                "sown=, roles= and mixing= are for others. Other parameters go in as params=."
            )
        return transformers_model(model)
    if variables is not None:
        raise ValueError(
            f"variables= is for linen modules; got {type(model).__name__}. Pass parameters as the function's own arguments, "
            "or let the function hold them."
        )
    if is_nnx(model):
        return nnx_model(model, sown=sown, roles=roles, mixing=mixing)
    if callable(model) and not isinstance(model, type):
        if sown != DEFAULT_NAME:
            raise ValueError(
                f"sown={sown!r} is for modules that sow; a function is traced, and nothing in it has a name."
            )
        return FunctionModel(model, model_name(model), facts_of(model), roles, mixing)
    raise TypeError(_not_a_model(model))


def _with_labels(model: Model, labels: tuple[str, ...]) -> Model:
    """Return a copy of a model whose facts have these labels."""
    changed = copy.copy(model)
    object.__setattr__(changed, "facts", dataclasses.replace(model.facts, labels=labels))  # it may be frozen
    return changed


def _not_a_model(model: Any) -> str:
    accepted = (
        "Accepted: an instance of a Flax class of transformers 4, a flax.linen module (bound, or with variables=), a "
        "flax.nnx module, or any function that JAX can trace. Attention that you have as arrays needs no capture: "
        "Attention(encoder=array)."
    )
    if isinstance(model, type):
        return f"got the class {model.__name__}; expected an instance of it. {accepted}"
    if callable(getattr(model, "apply", None)):  # as hk.transform makes
        return (
            f"got {type(model).__name__}, which cannot be called, but has a function apply: pass model.apply, and what it takes, "
            f"such as capture(model.apply, params, rng, inputs). {accepted}"
        )
    if isinstance(model, str):
        return f"got the text {model!r}; load the model first: model, tokenizer = load_model({model!r}). {accepted}"
    return f"got {type(model).__name__}. {accepted}"
