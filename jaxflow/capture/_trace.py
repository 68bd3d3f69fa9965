"""Trace a function, so that it can be read, changed and run."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from jaxflow.capture._tracing.additions import Adder, Place
from jaxflow.capture._tracing.program import Scope, read, run
from jaxflow.capture._tracing.weights import Keeper
from jaxflow.models import take_arrays


@dataclasses.dataclass(frozen=True)
class Traced:
    """A function's program, and the arrays to run it with.

    Attributes:
        closed: the jaxpr.
        arrays: the arrays among the function's arguments.
        restore: puts arrays that the program returns in the place of those that the function returned.
        program: the jaxpr, read.
    """

    closed: Any
    arrays: Sequence[Any]
    restore: Callable[[Sequence[Any]], Any]
    program: Scope

    def run(
        self,
        keeper: Keeper,
        places: Mapping[str, Place] | None = None,
        added: Mapping[str, Any] | None = None,
        by: type[Adder] = Adder,
    ) -> tuple[Any, dict[int, Any]]:
        """Run the program.

        Args:
            keeper: which weights to keep.
            places: where something is added.
            added: what is added, by the names of `places`.
            by: what is done with it: added, or multiplied with.

        Returns:
            What the function returns, and what `keeper` keeps.
        """
        adder = by(places, added) if places and added else None
        results, kept = self.run_by(keeper, adder)
        return self.restore(results), kept

    def run_by(self, keeper: Keeper, adder: Adder | None) -> tuple[list[Any], dict[int, Any]]:
        """Run the program, changed by `adder`; return what it returns, flat, and what `keeper` keeps."""
        return run(self.program, self.arrays, keeper, adder)


def trace(
    function: Callable[..., Any], args: tuple, kwargs: Mapping[str, Any], read: Callable[[Any], Scope] = read
) -> Traced:
    """Trace a function: the arrays among its arguments are traced, everything else is passed as it is.

    Args:
        function: any function that JAX can trace.
        args: what it is called with.
        kwargs: what it is called with.
        read: reads the jaxpr.
    """
    given, arrays = take_arrays((args, dict(kwargs)))
    returned: dict[str, Callable] = {}

    def flat(*arrays: jax.Array) -> list[jax.Array]:
        args, kwargs = given(arrays)
        returned["restore"], results = take_arrays(function(*args, **kwargs))
        return results

    closed = jax.make_jaxpr(flat)(*arrays)
    return Traced(closed, arrays, returned["restore"], read(closed))
