"""Freeze a program: hold every gate at the value that it took, so that the rest is linear in what is added to the weights.

Held are attention weights, what divides (the divisor of a norm), and nonlinear factors of something live (the sigmoid of a gated
unit). A nonlinear function of one live value that is no such factor, such as an activation, keeps the ratio that it took,
`(f(z) - f(0)) / z`. A product of two live values gives half of the change to each. What is piecewise linear stays as it is.

Source: the frozen gates of DecompX, Modarressi et al. 2023 (2306.02873); the halved products of AttnLRP, Achtibat et al. 2024
(2402.05602).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxflow.capture._tracing.additions import Adder, Place, undivided
from jaxflow.capture._tracing.program import Op, Scope, Value, called_scope, run, scan_parts

# What a value is to the attention weights that are added to: weights themselves, or what was computed with them.
WEIGHTS, STREAM = "weights", "stream"
PRODUCTS = {"mul", "dot_general", "conv_general_dilated", "ragged_dot", "ragged_dot_general"}
HELD = {"sqrt", "rsqrt", "cbrt", "log", "cumlogsumexp", "lgamma", "digamma"}
# Nonlinear functions of one value. As a factor of something live, the first are gates rather than the second, these rather than
# the rest.
GATES = {"exp": 2, "exp2": 2, "logistic": 2, "erf": 2, "erfc": 2, "tanh": 1, "sin": 1, "cos": 1, "atan": 1}
CURVES = GATES.keys() | {
    "expm1", "log1p", "sinh", "cosh", "asinh", "tan", "integer_pow", "pow", "square", "round", "floor", "ceil",
}  # fmt: skip
# Linear in each live value by itself, or piecewise so and 0 at 0.
LINEAR = {
    "add", "add_any", "sub", "neg", "div", "max", "min", "abs", "clamp", "select_n", "reduce_sum", "reduce_max", "reduce_min",
    "cumsum", "cummax", "cummin", "sort", "top_k", "concatenate", "pad", "gather", "scatter", "scatter-add", "scatter_add",
    "dynamic_slice", "dynamic_update_slice", "slice", "split", "stack", "unstack", "rev", "reshape", "transpose", "squeeze",
    "expand_dims", "broadcast_in_dim", "convert_element_type", "reduce_precision", "copy", "copy_p", "optimization_barrier",
    "name", "sharding_constraint", "layout_constraint", "reshard", "pvary", "stop_gradient", "real", "imag", "complex", "fft",
    "tile", "reduce_window_sum", "reduce_window_max", "device_put",
}  # fmt: skip
FOLLOWED = PRODUCTS | LINEAR
SMALL = 1e-2  # below, the ratio of an activation is its derivative halfway, to 1e-6


class Dual(NamedTuple):
    """An array, and its change in the frozen program, which is linear in what is added."""

    value: Any
    change: Any


def value_of(array: Any) -> Any:
    """Return the array of the plain program."""
    return array.value if isinstance(array, Dual) else array


@dataclasses.dataclass(frozen=True)
class Refused:
    """A value whose change cannot be followed, and why; an error once the program returns it."""

    reason: str


class Frozen:
    """What each value of a program is, and which operations are held.

    Attributes:
        kinds: `WEIGHTS`, `STREAM` or `Refused` of each value that changes with the weights.
        held: operations whose results count as constant.
        inner: the scopes of calls that are operations of the program, read.
    """

    def __init__(self, program: Scope, places: Mapping[str, Place], products: Collection[Op] | None) -> None:
        """Read a program.

        Args:
            program: the program.
            places: where something is added to weights.
            products: the operations that weigh values by weights; None where nobody knows: then products with anything that
                depends on the program's arguments.
        """
        self.kinds: dict[Value, Any] = {}
        self.held: set[Op] = set()
        self.inner: dict[Op, Scope] = {}
        self._made = {place.value for place in places.values() if place.made_by is not None}
        self._read = {
            softmax.product.op: softmax.product.place for place in places.values() for softmax in place.products
        }
        self._products = products
        self._data: set[Value] = set()
        if products is None:
            self._mark_data(program, set(program.ins))
        self._visit(program)
        for scope in self._scopes(program):
            self._hold(scope)
        self.kinds.clear()
        self._visit(program)
        for value in program.outs:
            if isinstance(kind := self.kinds.get(value), Refused):
                raise ValueError(
                    f"The contributions of this model cannot be told: {kind.reason}. Expected operations that can be frozen: "
                    "linear ones, products, norms, activations, jit, scan, cond and jax.checkpoint. Write that part with "
                    "jax.numpy for the capture, or use a method that needs no contributions, such as AttentionFlow()."
                )

    def _scopes(self, scope: Scope) -> Iterator[Scope]:
        yield scope
        for op in scope.ops:
            for body in (*op.bodies, *((self.inner[op],) if op in self.inner else ())):
                yield from self._scopes(body)

    def _mark_data(self, scope: Scope, data: set[Value]) -> None:
        """Note all values that depend on `data`, in loops too."""
        self._data |= data
        for op in scope.ops:
            if not any(value in self._data for value in op.ins):
                continue
            self._data.update(op.outs)
            for body in op.bodies:
                self._mark_data(body, set(body.ins))

    def _visit(self, scope: Scope) -> None:
        for op in scope.ops:
            kinds = [self.kinds.get(value) for value in op.ins]
            if op in self._read:
                made: list[Any] = [STREAM] * len(op.outs)
            elif any(kinds):
                made = self._kinds(op, kinds)
            else:
                made = self._inside(op, kinds) if op.bodies else [None] * len(op.outs)
            for value, kind in zip(op.outs, made, strict=True):
                kind = WEIGHTS if value in self._made else kind
                if kind is not None and not (isinstance(kind, str) and not _is_float(value)):
                    self.kinds[value] = kind
                else:
                    self.kinds.pop(value, None)

    def _kinds(self, op: Op, kinds: Sequence[Any]) -> list[Any]:
        """Tell what an operation makes of values of these kinds."""
        if op in self.held or op.name in HELD or _is_inverse_power(op):
            return [None] * len(op.outs)
        if op.bodies:
            return self._inside(op, kinds)
        if op not in self.inner and (scope := called_scope(op)) is not None:
            self.inner[op] = scope
        if op in self.inner:
            return self._through(self.inner[op], kinds)
        if op.name == "div":
            kinds = kinds[:1]
        if not any(kinds):
            return [None] * len(op.outs)
        refused = next((kind for kind in kinds if isinstance(kind, Refused)), None)
        if refused is None and not any(_is_float(value) for value in op.outs):
            return [None] * len(op.outs)
        if refused is None and op.name not in FOLLOWED | CURVES:
            where = f" in {op.path}" if op.path else ""
            refused = Refused(f"`{op.name}`{where} is no operation whose gates are known")
        if refused is not None:
            return [refused] * len(op.outs)
        if op.name in PRODUCTS and WEIGHTS in kinds:
            return [STREAM if self._weighs(op, kinds) else WEIGHTS]
        return [STREAM if STREAM in kinds else WEIGHTS] * len(op.outs)

    def _weighs(self, op: Op, kinds: Sequence[Any]) -> bool:
        """Whether a product of weights is one with values."""
        if STREAM in kinds:
            return True
        if self._products is not None:
            return op in self._products
        others = [value for value, kind in zip(op.ins, kinds, strict=True) if kind is None]
        return op.name != "mul" and any(value in self._data for value in others)

    def _inside(self, op: Op, kinds: Sequence[Any]) -> list[Any]:
        if op.name == "scan":
            (body,), parts = op.bodies, scan_parts(op)
            first = parts.n_constants + parts.n_carried
            given = list(kinds)
            while True:
                outs = self._through(body, given)
                carried = [_join(*pair) for pair in zip(given[parts.n_constants : first], outs, strict=False)]
                if carried == given[parts.n_constants : first]:
                    return [*carried, *outs[parts.n_carried :]]
                given[parts.n_constants : first] = carried
        if op.name == "cond":
            branches = [self._through(branch, kinds[1:]) for branch in op.bodies]
            return [_join(*each) for each in zip(*branches, strict=True)]
        reason = Refused(f"a `{op.name}` loop has a number of passes that is not known")
        return [reason if any(kinds) else None] * len(op.outs)

    def _through(self, scope: Scope, kinds: Sequence[Any]) -> list[Any]:
        for value, kind in zip(scope.ins, kinds, strict=True):
            if kind is None:
                self.kinds.pop(value, None)
            else:
                self.kinds[value] = kind
        self._visit(scope)
        return [self.kinds.get(value) for value in scope.outs]

    def _hold(self, scope: Scope) -> None:
        """Find the nonlinear functions that are factors of something live."""
        users: dict[Value, list[Op]] = {}
        for op in scope.ops:
            for value in dict.fromkeys(op.ins):
                users.setdefault(value, []).append(op)
        producers = scope.producers()
        for op in scope.ops:
            if op.name in GATES and self._is_gate(op, users, producers):
                self.held.add(op)

    def _is_gate(self, gate: Op, users: Mapping[Value, Sequence[Op]], producers: Mapping[Value, Op]) -> bool:
        reached, waiting = set(gate.outs), list(gate.outs)
        while waiting:
            value = waiting.pop()
            for op in users.get(value, ()):
                others = [other for other in op.ins if other is not value and self.kinds.get(other)]
                if op.name in PRODUCTS and len(others) + op.ins.count(value) > 1:
                    other = others[0] if others else value
                    root = _root(other, producers, self.kinds)
                    if self.kinds[other] != WEIGHTS and GATES[gate.name] > GATES.get(root or "", 0):
                        return True
                elif op.name in FOLLOWED and not [other for other in others if other not in reached]:
                    if op.name == "div" and op.ins[0] is not value and op.ins[0] not in reached:
                        continue
                    waiting += [out for out in op.outs if out not in reached]
                    reached.update(op.outs)
        return False


def _root(value: Value, producers: Mapping[Value, Op], kinds: Mapping[Value, Any]) -> str | None:
    """Name the nonlinear function that a value is, but for linear operations; None if it is none."""
    while (op := producers.get(value)) is not None:
        if op.name in CURVES:
            return op.name
        live = [other for other in dict.fromkeys(op.ins) if kinds.get(other)]
        if op.name not in FOLLOWED or not live or (op.name in PRODUCTS and len(live) > 1):
            return None
        value = live[0]
    return None


def _is_float(value: Value) -> bool:
    return value.dtype is not None and jnp.issubdtype(value.dtype, jnp.inexact)


def _is_inverse_power(op: Op) -> bool:
    if op.name == "integer_pow":
        return op.params["y"] < 0
    if op.name == "pow":
        exponent = op.ins[1].constant
        return exponent is None or np.ndim(exponent) > 0 or float(exponent) < 0
    return False


def _join(*kinds: Any) -> Any:
    for kind in kinds:
        if isinstance(kind, Refused):
            return kind
    return STREAM if STREAM in kinds else WEIGHTS if WEIGHTS in kinds else None


class Freezer(Adder):
    """Runs a program beside its frozen self: every value that changes with the weights is a `Dual`."""

    def __init__(
        self,
        places: Mapping[Any, Place],
        added: Mapping[Any, Any],
        frozen: Frozen,
        crossings: Mapping[Op, Sequence[tuple[int, str]]] | None = None,
        at_crossings: Mapping[str, Any] | None = None,
    ) -> None:
        """Note what is added where.

        Args:
            places: where something is added to weights.
            added: what is added to them.
            frozen: the program, read.
            crossings: operations and the places of arguments that something is added to as they read them, with a name.
            at_crossings: what is added there, by name.
        """
        super().__init__(places, added)
        self._frozen = frozen
        self._crossings, self._at_crossings = crossings or {}, at_crossings or {}
        self.crossed: dict[str, Any] = {}

    def replace(self, added: Mapping[Any, Any]) -> Freezer:
        """Return what adds other arrays at the same places."""
        return Freezer(self._places, added, self._frozen)

    def wants(self, body: Scope) -> bool:
        """Whether a loop body changes with the weights."""
        return any(value in self._frozen.kinds for op in body.ops for value in op.outs)

    def seen(self, env: Mapping[Value, Any]) -> Mapping[Value, Any]:
        """Return the values of the plain program."""
        return _Plain(env)

    def carried(self, values: Sequence[Value], arrays: Sequence[Any]) -> list[Any]:
        """Let what a loop carries change in every pass if it does in any."""
        return [
            Dual(array, jnp.zeros_like(array))
            if isinstance(self._frozen.kinds.get(value), str) and not isinstance(array, Dual)
            else array
            for value, array in zip(values, arrays, strict=True)
        ]

    def made(self, op: Op, results: Sequence[Any]) -> Sequence[Any]:
        """Return what `op` makes, with something added; weights change by what is added alone."""
        for key in self._made.get(op, ()):
            i = op.outs.index(self._places[key].value)
            results = [*results[:i], Dual(value_of(results[i]), self._added[key]), *results[i + 1 :]]
        return results

    def read(self, op: Op, values: Sequence[Any], env: Mapping[Value, Any]) -> Sequence[Any]:
        """Return what `op` reads, with something added."""
        values = list(values)
        for key, softmax in self._read.get(op, ()):
            i = softmax.product.place
            change = undivided(self._places[key], softmax, self._added[key], _Plain(env))
            values[i] = Dual(value_of(values[i]), change)
        for i, name in self._crossings.get(op, ()):
            self.crossed[name] = value_of(values[i])
            change = self._at_crossings[name]
            if isinstance(values[i], Dual):
                change = change + values[i].change
            values[i] = Dual(value_of(values[i]), change)
        return values

    def run(self, op: Op, values: Sequence[Any], keep: Any) -> list[Any]:
        """Compute what `op` makes, and how it changes."""
        frozen = self._frozen
        live = [isinstance(value, Dual) for value in values]
        if not any(live) or not any(isinstance(frozen.kinds.get(value), str) for value in op.outs):
            return op.run([value_of(value) for value in values])
        if op in frozen.inner:
            results, _ = run(frozen.inner[op], values, keep, self)
            return results
        if op.name == "cond":
            return self._switch(op, values, keep)
        if op.name == "stop_gradient":
            return list(values)
        if op.name in CURVES:
            return self._curve(op, values)
        if op.name == "div":
            live[1] = False
        kinds = [frozen.kinds.get(value) for value in op.ins]
        halved = op.name in PRODUCTS and op not in frozen._read and kinds.count(STREAM) == 2
        return _along(op.run, values, live, 0.5 if halved else 1)

    def _curve(self, op: Op, values: Sequence[Any]) -> list[Any]:
        z, change = values[0]
        rest = [value_of(value) for value in values[1:]]

        def curve(z: Any) -> Any:
            (result,) = op.run([z, *rest])
            return result

        result = curve(z)
        at_zero = curve(jnp.zeros((), z.dtype))
        slope = jax.jvp(curve, (z / 2,), (jnp.ones_like(z),))[1]
        if op.name not in ("round", "floor", "ceil"):
            far = jnp.abs(z) > SMALL
            slope = jnp.where(far, (result - at_zero) / jnp.where(far, z, jnp.ones_like(z)), slope)
        else:
            slope = jnp.where(z != 0, result / jnp.where(z != 0, z, jnp.ones_like(z)), slope)
        return [Dual(result, slope * change)]

    def _switch(self, op: Op, values: Sequence[Any], keep: Any) -> list[Any]:
        def branch(body: Scope) -> Callable[..., Sequence[Any]]:
            def compute(*arguments: Any) -> Sequence[Any]:
                results, _ = run(body, self.carried(body.ins, arguments), keep, self)
                return self.carried(op.outs, results)  # all branches return duals where one does

            return compute

        return jax.lax.switch(value_of(values[0]), [branch(body) for body in op.bodies], *values[1:])


class _Plain(Mapping):
    """The values of the plain program, of an environment that holds duals."""

    def __init__(self, env: Mapping[Value, Any]) -> None:
        self._env = env

    def __getitem__(self, value: Value) -> Any:
        return value_of(self._env[value])

    def __iter__(self) -> Iterator[Value]:
        return iter(self._env)

    def __len__(self) -> int:
        return len(self._env)


def _along(function: Callable, values: Sequence[Any], live: Sequence[bool], factor: float) -> list[Any]:
    """Compute a function of arrays, and its change with those that are live."""

    def of_live(*arrays: Any) -> list[Any]:
        those = iter(arrays)
        return function([next(those) if alive else value_of(value) for value, alive in zip(values, live, strict=True)])

    those = [value for value, alive in zip(values, live, strict=True) if alive]
    results, changes = jax.jvp(of_live, [dual.value for dual in those], [dual.change for dual in those])
    return [
        Dual(result, change if factor == 1 else factor * change)
        if jnp.issubdtype(result.dtype, jnp.inexact)
        else result
        for result, change in zip(results, changes, strict=True)
    ]
