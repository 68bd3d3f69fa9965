"""Functions, and objects that can be called: traced."""

from __future__ import annotations

import dataclasses
import functools
import weakref
from collections.abc import Callable, Hashable, Mapping
from typing import Any

import jax

from jaxflow.models._arrays import take_arrays
from jaxflow.models._facts import Facts
from jaxflow.models._model import Model, name_arguments, said_key
from jaxflow.models._recording import Mixing, Role

JITTED = type(jax.jit(lambda: None))


@dataclasses.dataclass(frozen=True, eq=False)
class FunctionModel(Model):
    """A function that JAX can trace. It keeps its parameters to itself, or takes them as an argument.

    Attributes:
        function: the function.
        name: of the function.
        facts: what it says by its attributes.
        roles: as in `Model`.
        mixing: as in `Model`.
        parameters: none.
    """

    function: Callable[..., Any]
    name: str
    facts: Facts = dataclasses.field(default_factory=Facts)
    roles: Mapping[str, Role] | None = None
    mixing: Mixing = "refuse"
    parameters: Any = dataclasses.field(default_factory=dict)

    def bind(self, parameters: Any) -> FunctionModel:
        """Return the function as it is."""
        return self

    def call(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function."""
        return self.function(*args, **kwargs)

    def arguments(self, args: tuple, kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Return the function's arguments by name."""
        return name_arguments(self.function, args, kwargs)

    def split(self) -> tuple[Hashable, Any] | None:
        """Return a function that `jax.jit` compiles, and the arrays that it is applied to in part.

        Of any other function nothing tells what it closes over, which may change; `jax.jit` takes that for constant.
        """
        function, given = _unwrapped(self.function)
        if not isinstance(function, JITTED):
            return None
        rest, arrays = take_arrays(given)
        return (weakref.ref(function), rest, said_key(self)), arrays

    def merge(self, arrays: Any) -> FunctionModel:
        """Return the function applied to other arrays."""
        function, given = _unwrapped(self.function)
        args, kwargs = take_arrays(given)[0](arrays)
        return dataclasses.replace(self, function=functools.partial(function, *args, **kwargs))

    def state_of(self, state: Any) -> Any:
        """Return the state: a function has none of its own."""
        return state

    def with_state(self, state: Any) -> FunctionModel:
        """Return the function `model(state, ...)` of its other arguments."""
        return dataclasses.replace(self, function=functools.partial(self.function, state))


def _unwrapped(function: Callable[..., Any]) -> tuple[Callable[..., Any], tuple[tuple, dict[str, Any]]]:
    """Return the function that partial ones apply, and what they apply it to, by position and by name."""
    args: tuple = ()
    kwargs: dict[str, Any] = {}
    while isinstance(function, functools.partial):
        args, kwargs, function = (*function.args, *args), {**function.keywords, **kwargs}, function.func
    return function, (args, kwargs)
