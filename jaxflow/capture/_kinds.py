"""Which way a model is captured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import flax.linen as nn

from jaxflow.capture._huggingface import is_huggingface
from jaxflow.capture._linen import DEFAULT_NAME
from jaxflow.capture._nnx import is_nnx
from jaxflow.capture._roles import Role


def kind_of(
    model: Any, *, variables: Mapping | None, sown: str, roles: Mapping[str, Role] | None
) -> Literal["transformers", "linen", "nnx", "traced"]:
    """Tell which way a model is captured, and check that what is said about it goes with that.

    Raises:
        TypeError: nothing that can be run here.
        ValueError: options that are for other models.
    """
    if is_huggingface(model):
        if variables is not None or sown != DEFAULT_NAME or roles is not None:
            raise ValueError(
                f"{type(model).__name__} holds its own parameters and sows nothing, and its stacks are known: "
                "variables=, "
                "sown= and roles= are for others. Other parameters go in as params=."
            )
        return "transformers"
    if isinstance(model, nn.Module):
        return "linen"
    if variables is not None:
        raise ValueError(
            f"variables= is for linen modules; got {type(model).__name__}. Pass parameters as the function's own "
            "arguments, or let "
            "the function hold them."
        )
    if is_nnx(model):
        return "nnx"
    if callable(model) and not isinstance(model, type):
        if sown != DEFAULT_NAME:
            raise ValueError(
                f"sown={sown!r} is for modules that sow; a function is traced, and nothing in it has a name."
            )
        return "traced"
    raise TypeError(_not_a_model(model))


def _not_a_model(model: Any) -> str:
    accepted = (
        "Accepted: an instance of a Flax class of transformers 4, a flax.linen module (bound, or with variables=), a "
        "flax.nnx "
        "module, or any function that JAX can trace. Attention that you have as arrays needs no capture: "
        "Attention(encoder=array)."
    )
    if isinstance(model, type):
        return f"got the class {model.__name__}; expected an instance of it. {accepted}"
    if isinstance(model, str):
        return f"got the text {model!r}; load the model first: model, tokenizer = load_model({model!r}). {accepted}"
    return f"got {type(model).__name__}. {accepted}"
