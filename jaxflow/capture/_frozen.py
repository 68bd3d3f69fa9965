"""A model that runs beside its frozen self: what it returns, and how that changes with what is added to its attention."""

from __future__ import annotations

import dataclasses
import functools
import operator
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxflow._attention import STACKS, Attention
from jaxflow.capture._targets import Target, evaluate_target
from jaxflow.capture._trace import Traced
from jaxflow.capture._tracing.additions import Place
from jaxflow.capture._tracing.crossings import Crossings, Queries, find_crossings
from jaxflow.capture._tracing.freezing import Dual, Freezer, Frozen, value_of
from jaxflow.capture._tracing.weights import Keeper


@dataclasses.dataclass(frozen=True)
class Pulled:
    """What one backward pass of a frozen model found.

    Attributes:
        value: `[*batch]`, the target.
        gradients: of the target by what was added to attention, by name.
        given: `[*batch, token]`, what each token of the output's stack gives to the target; None where that cannot be told.
    """

    value: Float[Array, " *batch"]
    gradients: Mapping[str, Array]
    given: Float[Array, "*batch token"] | None


@dataclasses.dataclass(frozen=True)
class FrozenModel:
    """A model's program, and its frozen self.

    Attributes:
        traced: the program; the first of what it returns are the model's outputs.
        places: where something is added to attention weights.
        frozen: the program, read.
        crossings: where tokens of the output's stack are picked or summed up.
        keeper: keeps the weights that the program does not return.
        attend: what the program returns, and what was kept -> the attention.
    """

    traced: Traced
    places: Mapping[str, Place]
    frozen: Frozen
    crossings: Crossings
    keeper: Keeper
    attend: Callable[[Any, Mapping[int, Any]], Attention]

    @classmethod
    def of(
        cls,
        traced: Traced,
        places: Mapping[str, Place],
        *,
        keeper: Keeper,
        attend: Callable[[Any, Mapping[int, Any]], Attention],
        products: Collection[Any] | None,
        queries: Sequence[Queries],
    ) -> FrozenModel:
        """Read a program.

        Raises:
            ValueError: something in it cannot be frozen.
        """
        frozen = Frozen(traced.program, places, products)
        crossings = find_crossings(traced.program, frozen.kinds, queries)
        return cls(traced, places, frozen, crossings, keeper, attend)

    def run(self) -> tuple[Any, Attention, Callable[[Target], Pulled]]:
        """Run the model forwards, once for any number of targets.

        Returns:
            What the model returns, its attention, and a function that runs its frozen self backwards from a target. That raises
            ValueError for a target that is no one number per example.
        """

        def changes(
            added: Mapping[str, Array], crossing: Mapping[str, Array]
        ) -> tuple[list[Array], tuple[list[Any], Any, dict[str, Any]]]:
            freezer = Freezer(self.places, added, self.frozen, self.crossings.read, crossing)
            results, kept = self.traced.run_by(self.keeper, freezer)
            live = [result.change for result in results if isinstance(result, Dual)]
            return live, (results, kept, freezer.crossed)

        added = {name: jnp.zeros(place.shape.shape, place.shape.dtype) for name, place in self.places.items()}
        values = self.crossings.values.items()
        crossing = {name: jnp.zeros(value.shape, value.dtype) for name, value in values if isinstance(name, str)}
        _, backwards, (results, kept, crossed) = jax.vjp(changes, added, crossing, has_aux=True)
        arrays = [value_of(result) for result in results]
        live = [i for i, result in enumerate(results) if isinstance(result, Dual)]
        returned = self.traced.restore(arrays)
        attention = self.attend(returned, kept)
        batch = next(stack.shape[:-4] for name in STACKS if (stack := getattr(attention, name)) is not None)

        def pull(target: Target) -> Pulled:
            def value(those: Sequence[Array]) -> Array:
                filled = list(arrays)
                for i, array in zip(live, those, strict=True):
                    filled[i] = array
                y = evaluate_target(target, self.traced.restore(filled)[0], batch)
                return y if y.shape == batch else _of_each(y, batch)

            y, of_results = jax.vjp(value, [arrays[i] for i in live])
            (by_result,) = of_results(jnp.ones_like(y))
            gradients, by_crossing = backwards(by_result)
            shares = [
                self.crossings.share(name, crossed[name], gradient, batch)
                for name, gradient in by_crossing.items()
                if name in crossed
            ]
            shares += [
                self.crossings.share(i, arrays[i], by_result[live.index(i)], batch) for i in self.crossings.returned
            ]
            told = [share for share in shares if share is not None]
            given = functools.reduce(operator.add, told) if told and len(told) == len(shares) else None
            return Pulled(y, gradients, given)

        return returned[0], attention, pull


def _of_each(y: Array, batch: tuple[int, ...]) -> Array:
    """Return the target of the one example.

    Raises:
        ValueError: there are several.
    """
    if any(length != 1 for length in batch):
        raise ValueError(
            f"target returned one number for a batch of shape {batch}; expected one number per example, shape {batch}."
        )
    return y.reshape(batch)
