"""Any model that `capture` takes, as a function of its parameters and of its inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from flax.core.scope import union_filters

from jaxflow.capture._kinds import kind_of
from jaxflow.capture._linen import DEFAULT_NAME
from jaxflow.capture._nnx import as_method, copied, method_of

# Parameters -> a model, and keyword arguments that hold them beside its inputs: for `call_model`, and all that takes a model.
Bind = Callable[[Any], tuple[Any, dict[str, Any]]]


def call_model(model: Any, /, *args: Any, variables: Mapping | None = None, **kwargs: Any) -> Any:
    """Return what a model returns, without change to what it is bound with, or holds.

    Raises:
        TypeError: nothing that can be run here.
        ValueError: variables that are missing, or given to a model that has its own.
    """
    kind = checked_kind(model, variables)
    if kind == "nnx":
        method, copy = copied(model)
        return method(copy, *args, **kwargs)
    if kind != "linen":
        return model(*args, **kwargs)
    scope = model.scope
    if scope is None:
        if variables is None:
            raise ValueError(f"{type(model).__name__} is unbound: pass variables=, or bind it first.")
        return model.apply(variables, *args, **kwargs)
    if variables is not None:
        raise ValueError(f"{type(model).__name__} is bound and holds its own variables: leave out variables=.")
    module, variables = model.unbind()
    mutable = union_filters(scope.mutable, ())
    return module.apply(variables, *args, **{"rngs": dict(scope.rngs), **kwargs}, mutable=mutable)[0]


def take_apart(model: Any, variables: Mapping | None = None) -> tuple[Bind, Any]:
    """Take a model apart into what binds it to parameters, and its parameters.

    Compiled code then has parameters as an argument, and not as constants, and runs with others too. Those that a function
    holds are its own: it has none here.

    Raises:
        TypeError: nothing that can be run here.
        ValueError: variables for a model that has its own.
    """
    kind = checked_kind(model, variables)
    if kind == "transformers":
        return lambda params: (model, {"params": params}), model.params
    if kind == "linen":
        if model.scope is not None and variables is None:
            model, variables = model.unbind()
        return lambda variables: (model, {"variables": variables}), variables
    if kind == "nnx":
        from flax import nnx

        _, module = method_of(model)
        structure, params, *others = nnx.split(module, nnx.Param, ...)
        return lambda params: (as_method(model, nnx.merge(structure, params, *others)), {}), params
    return lambda _: (model, {}), {}


def checked_kind(model: Any, variables: Mapping | None) -> str:
    """Tell how a model is to be called; errors as in `call_model`."""
    return kind_of(model, variables=variables, sown=DEFAULT_NAME, roles=None)
