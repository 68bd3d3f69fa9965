"""A model that records its attention, as a function of what is added to it.

The run is traced once. Each array of weights is given a name in the program when it is recorded (`checkpoint_name`, an operation
that does nothing), and the operation that makes the array is where something is added. So it must be the very array that is used
afterwards, not a copy of it.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name
from jax.extend import core

from jaxflow._attention import Attention
from jaxflow.capture._differentiable import Differentiable
from jaxflow.capture._frozen import FrozenModel
from jaxflow.capture._recorded import Recorded, record_stacks, stacked
from jaxflow.capture._trace import trace
from jaxflow.capture._tracing.additions import Adder, Place
from jaxflow.capture._tracing.crossings import Queries, ending_in_output
from jaxflow.capture._tracing.program import CALLS, Op, Scope, Value, equations, read
from jaxflow.capture._tracing.weights import Keeper
from jaxflow.models import LayerPlace, Model, Path

PREFIX = "jaxflow attention "  # of the names of recorded arrays


def differentiate_recorded(model: Model, args: tuple, kwargs: Mapping[str, Any]) -> Differentiable | None:
    """Trace a model that records its attention, once.

    Args:
        model: the model.
        args: what it is called with.
        kwargs: what it is called with.

    Returns:
        The model as a function of what is added to its attention; None if it records nothing.

    Raises:
        ValueError: as `Model.record`; attention inside an `nn.vmap`. Of the places that are returned: nothing is computed of a
            recorded array, or it is computed inside an operation that cannot be rebuilt (a `while` loop, a `cond`).
    """
    names: dict[tuple[Path, int], str] = {}
    recorded: list[Recorded | None] = []

    def keep(place: LayerPlace, weights: jax.Array) -> jax.Array:
        if place.vmaps:
            raise ValueError(
                f"The attention of {place} lies inside an nn.vmap, where gradients by it are not taken apart. Take nn.vmap out "
                "of the model, and map the call of attention_gradients with jax.vmap."
            )
        # A body that is traced several times records the same place each time.
        return checkpoint_name(weights, names.setdefault((place.path, place.index), f"{PREFIX}{len(names)}"))

    # A table that is a NumPy array cannot be indexed by what is traced.
    model = model.bind(
        jax.tree.map(lambda leaf: jnp.asarray(leaf) if isinstance(leaf, np.ndarray) else leaf, model.parameters)
    )

    def run(*args: Any, **kwargs: Any) -> tuple[Any, Attention] | None:
        run = record_stacks(model, args, kwargs, keep)
        recorded.append(run)
        return None if run is None else (run.outputs, run.attention)

    traced = trace(
        run,
        args,
        kwargs,
        lambda closed: read(closed, lambda call, jaxpr: call in CALLS or _holds_named(jaxpr), shares=False),
    )
    run_once = recorded.pop()
    if run_once is None:
        return None
    backend = run_once.backend
    stacks = {role: [place for place, _ in layers] for role, layers in run_once.stacks.items()}
    places = functools.cache(lambda: _places(traced.program))

    def run_with(added: Mapping[str, jax.Array], by: type[Adder] = Adder) -> tuple[Any, Attention]:
        return traced.run(Keeper(()), places() if added else None, added, by)[0]

    def arrange(gradients: Mapping[str, jax.Array]) -> Attention:
        layers = {
            role: [(place, gradients[names[place.path, place.index]]) for place in members]
            for role, members in stacks.items()
        }
        return stacked(layers, backend)

    def freeze() -> FrozenModel:
        top = ending_in_output(stacks)
        members = [place for role, members in stacks.items() if role in top for place in members]
        values = [places()[names[place.path, place.index]].value for place in members]
        return FrozenModel.of(
            traced,
            places(),
            keeper=Keeper(()),
            attend=lambda returned, _: returned[1],
            products=None,
            queries=[Queries(value, [len(value.shape) - 2], range(len(value.shape) - 3)) for value in values],
        )

    return Differentiable(places, run_with, arrange, freeze)


def _places(program: Scope) -> dict[str, Place]:
    """Find where the recorded arrays are made, by name."""
    places: dict[str, Place] = {}

    def search(scope: Scope, loops: tuple[Op, ...]) -> None:
        producers = scope.producers()
        read = {value for op in scope.ops if not _name(op.eqn) for value in op.ins} | set(scope.outs)
        for op in scope.ops:
            name = _name(op.eqn)
            if name:
                places[name] = _place(op.ins[0], producers, read, loops)
            elif op.name == "scan":
                search(op.bodies[0], (*loops, op))
            elif any(_holds_named(jaxpr) for jaxpr in core.jaxprs_in_params(op.params)):
                raise ValueError(
                    f"An array to differentiate by is computed inside of `{op.name}`, which cannot be rebuilt: expected "
                    "it in the model itself, in jit, jax.checkpoint or scan. Differentiate the part of the model inside it."
                )

    search(program, ())
    return places


def _place(value: Value, producers: Mapping[Value, Op], read: set[Value], loops: tuple[Op, ...]) -> Place:
    if value not in producers or value not in read:
        raise ValueError(
            f"An array of shape {value.shape} was to be differentiated by, but nothing is computed of it: what the "
            "model sows or returns is a copy of its attention, such as weights.astype(...), or comes out of a function that "
            "has used it already. Sow the very array that weighs the values."
        )
    return Place(value, loops, producers[value])


def _name(eqn: Any) -> str | None:
    """Return the name of the array that an equation names, if it was recorded."""
    name = eqn.params["name"] if eqn.primitive.name == "name" else ""
    return name if name.startswith(PREFIX) else None


def _holds_named(jaxpr: Any) -> bool:
    return any(_name(eqn) for eqn in equations(jaxpr))
