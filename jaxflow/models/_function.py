"""Functions, and objects that can be called: traced."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

from jaxflow.models._facts import Facts
from jaxflow.models._model import Model, name_arguments
from jaxflow.models._recording import Role


@dataclasses.dataclass(frozen=True, eq=False)
class FunctionModel(Model):
    """A function that JAX can trace. It keeps its parameters to itself, or takes them as an argument.

    Attributes:
        function: the function.
        name: of the function.
        facts: what it says by its attributes.
        roles: as in `Model`.
        parameters: none.
    """

    function: Callable[..., Any]
    name: str
    facts: Facts = dataclasses.field(default_factory=Facts)
    roles: Mapping[str, Role] | None = None
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

    def state_of(self, state: Any) -> Any:
        """Return the state: a function has none of its own."""
        return state

    def with_state(self, state: Any) -> FunctionModel:
        """Return the function `model(state, ...)` of its other arguments."""
        return dataclasses.replace(self, function=functools.partial(self.function, state))
