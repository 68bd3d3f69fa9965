"""Add something to attention weights while their program runs, so that a target can be differentiated by them.

A gradient by an attention weight says what would change if that weight were another one, after the softmax. So something is
added where the weight is computed, before it is used: zeros, by which JAX differentiates.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from jaxflow.capture._tracing.program import Op, Scope, Value
from jaxflow.capture._tracing.sites import Site
from jaxflow.capture._tracing.softmax import Softmax, Step
from jaxflow.capture._tracing.weights import aligned, by_factors, factor_places

# What leaves an array's numbers as they are, and at most moves or rounds them.
SAME_NUMBERS = {
    "convert_element_type", "reshape", "transpose", "squeeze", "expand_dims", "broadcast_in_dim", "copy", "copy_p", "rev", "name",
    "reduce_precision", "optimization_barrier", "sharding_constraint", "layout_constraint", "reshard", "pvary",
}  # fmt: skip
NO_PLACE = (
    "Gradients by attention weights need a place where the weights, after the softmax, can be another array and all else goes on "
    "from there."
)


@dataclasses.dataclass(frozen=True, eq=False)
class Place:
    """Where something is added to an array of the program.

    Either everywhere (`made_by`): the operation that makes `value` makes the sum. Or only where certain products read it
    (`products`), while `value` stays as it is elsewhere, such as in a sum that it is divided by.

    Attributes:
        value: the array that is added to.
        loops: the scans around it, outermost first.
        made_by: the operation that makes `value`, or None.
        products: the products, each with what it is divided by.
        site: whose weights these are, for `products`.
    """

    value: Value
    loops: tuple[Op, ...]
    made_by: Op | None
    products: tuple[Softmax, ...] = ()
    site: Site | None = None

    @property
    def shape(self) -> jax.ShapeDtypeStruct:
        """Shape and type of what is added: `[*scans, *value]`."""
        steps = (loop.params["length"] for loop in self.loops)
        return jax.ShapeDtypeStruct((*steps, *self.value.shape), self.value.dtype)


class Adder:
    """Adds arrays at places in a run: `program.run(scope, arguments, keep, Adder(places, added))`."""

    def __init__(self, places: Mapping[Any, Place], added: Mapping[Any, Any]) -> None:
        """Note where to add what; places that nothing is added to are left alone."""
        self._places = places
        self._added = added
        self._made: dict[Op, list[Any]] = {}
        self._read: dict[Op, list[tuple[Any, Softmax]]] = {}
        for key in added:
            place = places[key]
            if place.made_by is not None:
                self._made.setdefault(place.made_by, []).append(key)
            for softmax in place.products:
                self._read.setdefault(softmax.product.op, []).append((key, softmax))

    def replace(self, added: Mapping[Any, Any]) -> Adder:
        """Return what adds other arrays at the same places."""
        return Adder(self._places, added)

    def wants(self, body: Scope) -> bool:
        """Whether something is added inside this loop body."""
        return any(loop.bodies[0] is body for key in self._added for loop in self._places[key].loops)

    def inside(self, loop: Op) -> dict[Any, Any]:
        """Return what is added inside a loop, its steps in front."""
        return {key: array for key, array in self._added.items() if loop in self._places[key].loops}

    def seen(self, env: Mapping[Value, Any]) -> Mapping[Value, Any]:
        """Return the values that weights are kept of."""
        return env

    def carried(self, values: Sequence[Value], arrays: Sequence[Any]) -> Sequence[Any]:
        """Return what a loop carries in its values."""
        return arrays

    def run(self, op: Op, values: Sequence[Any], keep: Any) -> list[Any]:
        """Compute what `op` makes."""
        return op.run(values)

    def made(self, op: Op, results: Sequence[Any]) -> Sequence[Any]:
        """Return what `op` makes, with something added."""
        for key in self._made.get(op, ()):
            i = op.outs.index(self._places[key].value)
            results = [*results[:i], results[i] + self._added[key], *results[i + 1 :]]
        return results

    def read(self, op: Op, values: Sequence[Any], env: Mapping[Value, Any]) -> Sequence[Any]:
        """Return what `op` reads, with something added."""
        for key, softmax in self._read.get(op, ()):
            i = softmax.product.place
            values = [
                *values[:i],
                values[i] + undivided(self._places[key], softmax, self._added[key], env),
                *values[i + 1 :],
            ]
        return values


class Scaler(Adder):
    """Multiplies weights at places in a run, such as by 0: `program.run(scope, arguments, keep, Scaler(places, factors))`."""

    def replace(self, added: Mapping[Any, Any]) -> Scaler:
        """Return what multiplies by other arrays at the same places."""
        return Scaler(self._places, added)

    def made(self, op: Op, results: Sequence[Any]) -> Sequence[Any]:
        """Return what `op` makes, multiplied."""
        for key in self._made.get(op, ()):
            i = op.outs.index(self._places[key].value)
            results = [*results[:i], results[i] * self._added[key], *results[i + 1 :]]
        return results

    def read(self, op: Op, values: Sequence[Any], env: Mapping[Value, Any]) -> Sequence[Any]:
        """Return what `op` reads, multiplied."""
        for key, softmax in self._read.get(op, ()):
            i = softmax.product.place
            factor, _ = _as_read(self._places[key], softmax, self._added[key])
            values = [
                *values[:i],
                values[i] * factor.reshape(values[i].shape).astype(values[i].dtype),
                *values[i + 1 :],
            ]
        return values


def place_of(site: Site, sites: Sequence[Site]) -> Place:
    """Say where to add to the weights of a site.

    Args:
        site: the attention.
        sites: all of them.

    Raises:
        ValueError: there is no such place.
    """
    softmax = site.softmax
    steps = [(step, step in site.steps) for step in softmax.steps]
    chain = [softmax.start, *(step.op.outs[step.result] for step in softmax.steps)]
    sharing = [other for other in sites if other is not site and other.softmax.start is softmax.start]
    if softmax.divisor is None and not sharing:
        # As early as the weights are what they are kept as, so that all that is computed of them follows.
        same = [i for i in range(len(chain)) if all(_same_numbers(step) for step, kept in steps[i:] if kept)]
        if all(kept for _, kept in steps[: same[0]]):
            made_by = next(op for op in site.scope.ops if chain[same[0]] in op.outs)
            return Place(chain[same[0]], site.loops, made_by)
        raise ValueError(f"{site.path}: weights are changed after dropout. Switch dropout off. {NO_PLACE}")
    if any(not kept for _, kept in steps):
        raise ValueError(f"{site.path}: dropout before the division by the sum. Switch dropout off. {NO_PLACE}")
    products = (softmax, *site.also)
    known = {chain[i] for i in range(len(chain))} | {step.op.outs[step.result] for s in products for step in s.steps}
    expected = {
        step.op
        for s in (*products, *(s for other in sharing for s in (other.softmax, *other.also)))
        for step in s.steps
    }
    expected |= {s.product.op for other in (site, *sharing) for s in (other.softmax, *other.also)}
    expected |= _computing(site.scope, [s.divisor for s in products if s.divisor is not None])
    elsewhere = [op for op in site.scope.ops if op not in expected and any(value in known for value in op.ins)]
    if elsewhere or chain[-1] is not softmax.product.op.ins[softmax.product.place]:
        what = ", ".join(op.name for op in elsewhere) or "a sum over heads"
        raise ValueError(
            f"{site.path}: weights that never are an array of their own, as they are divided after the product with the values, "
            f"or weigh the values of several layers, go elsewhere too ({what}). {NO_PLACE}"
        )
    return Place(chain[-1], site.loops, None, products, site)


def _same_numbers(step: Step) -> bool:
    op = step.op
    return op.name in SAME_NUMBERS and math.prod(op.ins[step.place].shape) == math.prod(op.outs[step.result].shape)


def _computing(scope: Scope, values: Sequence[Value]) -> set[Op]:
    """Find all operations that `values` are computed by."""
    needed, found = set(values), set()
    for op in reversed(scope.ops):
        if any(value in needed for value in op.outs):
            found.add(op)
            needed.update(op.ins)
    return found


def undivided(place: Place, softmax: Softmax, added: Any, env: Mapping[Value, Any]) -> Any:
    """Bring what is added to weights to what a product reads, which is divided only afterwards."""
    assert place.site is not None
    added, wanted = _as_read(place, softmax, added)
    if softmax.divisor is not None:
        axes = place.site.scores.axes
        divisor, places = by_factors(_computed(softmax.divisor, place.site.scope, env), axes[softmax.divisor])
        divisor = aligned(divisor, places, wanted).astype(added.dtype)
        added = added / divisor if softmax.inverse else added * divisor
    value = softmax.product.op.ins[softmax.product.place]
    return added.reshape(value.shape).astype(value.dtype)


def _as_read(place: Place, softmax: Softmax, array: Any) -> tuple[Any, list[Any]]:
    """Lay out an array of the weights' shape as a product reads them, by factors, and name these."""
    assert place.site is not None
    axes = place.site.scores.axes
    value = softmax.product.op.ins[softmax.product.place]
    array, places = by_factors(array, axes[place.value])
    wanted = factor_places(axes[value], value.shape)
    return aligned(array, places, wanted), wanted


def _computed(value: Value, scope: Scope, env: Mapping[Value, Any]) -> Any:
    """Return the array of a value, computed now if its operation comes later."""
    if value not in env:
        op = scope.producers()[value]
        results = op.run([_computed(read, scope, env) for read in op.ins])
        return results[op.outs.index(value)]
    return env[value]
