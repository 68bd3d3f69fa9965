"""Modules of flax.linen, bound or with their variables."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import weakref
from collections.abc import Hashable, Mapping
from typing import Any

import flax.linen as nn
from flax.core.scope import CollectionFilter, union_filters

from jaxflow.models._apply import record_apply
from jaxflow.models._facts import Facts, facts_of
from jaxflow.models._model import DEFAULT_NAME, Embed, Model, name_arguments, said_key
from jaxflow.models._recording import Keep, Mixing, Recording, Role
from jaxflow.models._transformers._mending import mended

OF_APPLY = ("rngs", "method", "mutable", "capture_intermediates")  # keywords of nn.Module.apply


@dataclasses.dataclass(frozen=True, eq=False)
class LinenModel(Model):
    """A linen module with its variables.

    Attributes:
        module: the module, unbound.
        name: of its class.
        parameters: its variables, as `module.apply` takes them; None of an unbound module that is given none.
        facts: what it says by its attributes.
        sown: the name under which it sows attention.
        roles: as in `Model`.
        mixing: as in `Model`.
        rngs: those that the module was bound with.
        mutable: the collections that the module was bound with as mutable; None of a module that was unbound.
    """

    module: nn.Module
    name: str
    parameters: Mapping | None
    facts: Facts
    sown: str = DEFAULT_NAME
    roles: Mapping[str, Role] | None = None
    mixing: Mixing = "refuse"
    rngs: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    mutable: CollectionFilter | None = None

    def bind(self, parameters: Mapping) -> LinenModel:
        """Return the module with other variables."""
        return dataclasses.replace(self, parameters=parameters)

    def call(self, *args: Any, **kwargs: Any) -> Any:
        """Apply the module; keywords of `nn.Module.apply` are taken too. State is returned if `mutable` asks for it."""
        kwargs, returns_state = self._options(kwargs)
        with mended():
            outputs = self.module.apply(self._variables(), *args, **kwargs)
        return outputs[0] if returns_state else outputs

    def arguments(self, args: tuple, kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments of the module's method by name, without those of `nn.Module.apply`."""
        method = kwargs.get("method") or "__call__"
        function = getattr(self.module, method) if isinstance(method, str) else method
        if not inspect.ismethod(function):
            function = functools.partial(function, self.module)
        return name_arguments(function, args, {k: v for k, v in kwargs.items() if k not in OF_APPLY})

    def record(self, args: tuple, kwargs: Mapping[str, Any], keep: Keep | None = None) -> tuple[Any, Recording]:
        """Apply the module once, and record what its modules sow."""
        if self.parameters is None:
            raise ValueError(
                f"{self.name} is an unbound linen module, so it has no variables. Call capture(model, ..., "
                "variables=variables), or bind it first: model.bind(variables)."
            )
        options, returns_state = self._options(kwargs)
        outputs, recording = record_apply(self.module, self.parameters, args, options, sown=self.sown, keep=keep)
        return (outputs[0] if returns_state else outputs), recording

    def embed(self, args: tuple, kwargs: Mapping[str, Any], embed: Embed) -> Any:
        """Apply the module with its embeddings replaced; it may hold modules of transformers."""
        with mended():
            return super().embed(args, kwargs, embed)

    def state_of(self, state: Any) -> Any:
        """Return variables: `{"params": state}` if the state is the parameters alone."""
        state = self.parameters if state is None else state
        return state if state is None or "params" in state else {"params": state}

    def split(self) -> tuple[Hashable, Any] | None:
        """Return the module and how it is called, and its variables. A module that is bound to random numbers is not split."""
        if self.rngs or self.parameters is None:
            return None
        return (self.module, said_key(self), repr(self.mutable)), self.parameters

    def _variables(self) -> Mapping:
        if self.parameters is None:
            raise ValueError(f"{self.name} is unbound: pass variables=, or bind it first, model.bind(variables).")
        return self.parameters

    def _options(self, kwargs: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
        """Add what the module was bound with; and say whether `apply` returns state that was not asked for."""
        if self.mutable is None:
            return dict(kwargs), False
        # A bound module may write to what it was bound with as mutable, here to a copy.
        return {"rngs": self.rngs, "mutable": self.mutable, **kwargs}, "mutable" not in kwargs


def linen_model(
    model: nn.Module, *, variables: Mapping | None, sown: str, roles: Mapping[str, Role] | None, mixing: Mixing
) -> LinenModel:
    """Make a `Model` of a linen module.

    Raises:
        ValueError: variables for a module that is bound.
    """
    name, scope = type(model).__name__, model.scope
    if scope is None:
        return LinenModel(model, name, variables, facts_of(model), sown, roles, mixing)
    if variables is not None:
        raise ValueError(
            f"{name} is bound and holds its own variables, but got variables= as well. Leave them out, or take the "
            "module without its own: model.unbind()[0]."
        )
    if id(model) not in _unbound:
        module = model.unbind()[0]
        _unbound[id(model)] = module, facts_of(module)
        weakref.finalize(model, _unbound.pop, id(model), None)
    module, facts = _unbound[id(model)]
    mutable = union_filters(scope.mutable, ())
    return LinenModel(module, name, model.variables, facts, sown, roles, mixing, dict(scope.rngs), mutable)


# By the bound module's id as long as that lives: it may have no hash. Its variables may change, its fields may not.
_unbound: dict[int, tuple[nn.Module, Facts]] = {}
