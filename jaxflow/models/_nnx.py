"""Modules of flax.nnx, and their methods. Each run is that of a copy."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import sys
import types
from collections.abc import Callable, Hashable, Mapping
from typing import Any

import jax
from jaxtyping import Array

from jaxflow.models._facts import Facts, facts_of
from jaxflow.models._model import DEFAULT_NAME, Embed, Model, model_name, name_arguments, said_key
from jaxflow.models._recording import Mixing, Role


def is_nnx(model: Any) -> bool:
    """Whether `model` is an NNX module or a method of one. flax.nnx is not imported for that."""
    nnx = sys.modules.get("flax.nnx")
    owner = model.__self__ if inspect.ismethod(model) else model
    return nnx is not None and isinstance(owner, nnx.Module)


@dataclasses.dataclass(frozen=True, eq=False)
class NnxModel(Model):
    """An NNX module, or a method of one.

    A copy of the module runs: counts of random numbers, statistics and intermediates change in the copy alone.

    Attributes:
        model: the module or the method.
        name: of the module's class.
        parameters: its `nnx.Param`, an `nnx.State`.
        facts: what the module says by its attributes.
        structure: the module without its arrays, in the mode (train or eval) in which it was passed.
        others: its other arrays.
        sown: the name under which it sows attention as `nnx.Intermediate`.
        roles: as in `Model`.
        mixing: as in `Model`.
        backend: as in `Model`.
        is_live: NNX modules are trained in place.
    """

    model: Any
    name: str
    parameters: Any
    facts: Facts
    structure: Any
    others: tuple
    sown: str = DEFAULT_NAME
    roles: Mapping[str, Role] | None = None
    mixing: Mixing = "refuse"
    backend: str = "nnx"
    is_live: bool = True

    def bind(self, parameters: Any) -> NnxModel:
        """Return a copy of the module with other values of `nnx.Param`."""
        return dataclasses.replace(self._with(parameters, *self.others), parameters=parameters)

    def state_of(self, state: Any) -> Any:
        """Return all arrays but intermediates; of None those that the module holds now."""
        from flax import nnx

        state = self._module if state is None else state
        return nnx.state(state, nnx.Not(nnx.Intermediate)) if isinstance(state, nnx.Module) else state

    def with_state(self, state: Any) -> NnxModel:
        """Return a copy of the module with other arrays, in the mode in which it was passed."""
        return self._with(state)

    def call(self, *args: Any, **kwargs: Any) -> Any:
        """Call a copy of the module."""
        method, copy = self._copied()
        return method(copy, *args, **kwargs)

    def arguments(self, args: tuple, kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments of the module or the method by name."""
        return name_arguments(self.model, args, kwargs)

    def split(self) -> tuple[Hashable, Any]:
        """Return the module without its arrays, and all arrays that it holds now."""
        from flax import nnx

        structure, arrays = nnx.split(self._module)
        arrays = jax.tree.map(lambda leaf: leaf, arrays)  # variables of its own: those of the module change in place
        method = self.model.__func__ if inspect.ismethod(self.model) else None
        return (structure, method, said_key(self)), arrays

    def merge(self, arrays: Any) -> NnxModel:
        """Return a copy of the module, as it is now, with other arrays."""
        from flax import nnx

        return dataclasses.replace(self, structure=nnx.graphdef(self._module))._with(arrays)

    def sow(self, args: tuple, kwargs: Mapping[str, Any]) -> tuple[Any, dict[tuple[str | int, ...], tuple[Array, ...]]]:
        """Call a copy of the module, and return also what it sows under the name `sown`."""
        from flax import nnx

        method, copy = self._copied()
        nnx.pop(copy, nnx.Intermediate)
        outputs = method(copy, *args, **kwargs)
        found = nnx.to_flat_state(nnx.pop(copy, nnx.Intermediate))
        weights: dict[Any, Any] = {path[:-1]: variable.get_value() for path, variable in found if path[-1] == self.sown}
        return outputs, {path: each if isinstance(each, tuple) else (each,) for path, each in weights.items()}

    def embed(self, args: tuple, kwargs: Mapping[str, Any], embed: Embed) -> Any:
        """Call a copy of the module whose `nnx.Embed` hand over what they return."""
        from flax import nnx

        method, copy = self._copied()
        embeddings: list[tuple[Any, Any]] = [each for each in nnx.iter_modules(copy) if isinstance(each[1], nnx.Embed)]
        for path, part in embeddings:
            part.__class__ = _watched(part.__class__)
            part.watch = functools.partial(embed, f"/{'/'.join(map(str, path))}/", part.num_embeddings)
        return method(copy, *args, **kwargs)

    @property
    def _module(self) -> Any:
        return self.model.__self__ if inspect.ismethod(self.model) else self.model

    def _with(self, *states: Any) -> NnxModel:
        from flax import nnx

        module = nnx.merge(self.structure, *states)
        model = types.MethodType(self.model.__func__, module) if inspect.ismethod(self.model) else module
        return dataclasses.replace(self, model=model)

    def _copied(self) -> tuple[Callable[..., Any], Any]:
        """Return the function that is called, and a copy of the module, its first argument."""
        from flax import nnx

        function = self.model.__func__ if inspect.ismethod(self.model) else type(self.model).__call__
        return function, nnx.clone(self._module)


def nnx_model(model: Any, *, sown: str, roles: Mapping[str, Role] | None, mixing: Mixing) -> NnxModel:
    """Make a `Model` of an NNX module or a method of one."""
    from flax import nnx

    module = model.__self__ if inspect.ismethod(model) else model
    structure, parameters, *others = nnx.split(module, nnx.Param, ...)
    return NnxModel(
        model, model_name(model), parameters, facts_of(module), structure, tuple(others), sown, roles, mixing
    )


@functools.cache
def _watched(kind: type) -> type:
    """Derive a class of embeddings that hand over what they return."""

    class Watched(kind):
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return self.watch((*args, *kwargs.values()), super().__call__(*args, **kwargs))

    return Watched
