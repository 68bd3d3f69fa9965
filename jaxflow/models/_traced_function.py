"""A function of the user's own as the program that it is on some inputs, so that equal programs need compiling once."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.extend import core

from jaxflow.models._arrays import Rest, take_arrays
from jaxflow.models._function import FunctionModel
from jaxflow.models._model import said_key

# Arrays inside of an operation, rather than among what it is applied to, are compared up to this size, in bytes.
MOST_BYTES = 2**20


@dataclasses.dataclass(frozen=True, eq=False)
class TracedFunction(FunctionModel):
    """What a function does with inputs of some shapes: a program, and the arrays that the function closes over.

    Attributes:
        key: equal for programs that are the same up to these arrays.
        constants: the arrays.
        with_constants: arrays -> the function with them.
    """

    key: Hashable = None
    constants: Sequence[Any] = ()
    with_constants: Callable[[Sequence[Any]], Callable[..., Any]] | None = None

    def split(self) -> tuple[Hashable, Any]:
        """Return the program, and the arrays that the function closes over."""
        return self.key, list(self.constants)

    def merge(self, arrays: Any) -> TracedFunction:
        """Return the program with other arrays."""
        assert self.with_constants is not None
        return dataclasses.replace(self, constants=arrays, function=self.with_constants(arrays))


def trace_function(model: FunctionModel, args: tuple, kwargs: Mapping[str, Any]) -> TracedFunction | None:
    """Trace a function, as it is now; None where that fails, or its program cannot be told from others.

    Source: what `jax.make_jaxpr` says of a program is all that JAX runs, so equal ones compute the same.
    """
    given, arrays = take_arrays((args, dict(kwargs)))
    returned: list[Rest] = []

    def flat(*arrays: jax.Array) -> list[jax.Array]:
        args, kwargs = given(arrays)
        rest, results = take_arrays(model.function(*args, **kwargs))
        returned.append(rest)
        return results

    try:
        closed = jax.make_jaxpr(flat)(*arrays)
    except Exception:  # whatever it is, it comes again when the function is run
        return None
    if closed.effects:
        return None
    try:
        key = (given, returned[-1], _key_of(closed.jaxpr, {}), tuple(map(_kind, closed.consts)), said_key(model))
        hash(key)
    except TypeError:
        return None

    def apply(constants: Sequence[Any]) -> Callable[..., Any]:
        def function(*args: Any, **kwargs: Any) -> Any:
            own, arrays = take_arrays((args, kwargs))
            if own != given:
                raise ValueError(f"{model.name} was traced for other inputs.")
            results = jax.core.eval_jaxpr(closed.jaxpr, constants, *arrays, propagate_source_info=True)
            return returned[-1](results)

        return function

    return TracedFunction(
        apply(closed.consts),
        model.name,
        model.facts,
        model.roles,
        model.mixing,
        key=key,
        constants=closed.consts,
        with_constants=apply,
    )


def _kind(array: Any) -> Hashable:
    return np.shape(array), str(array.dtype), bool(getattr(array, "weak_type", False))


def _key_of(jaxpr: core.Jaxpr, numbers: dict[Any, int]) -> Hashable:
    """Describe a jaxpr by what does not change from one trace to the next: variables are numbered in their order.

    Raises:
        TypeError: something in it cannot be compared.
    """

    def number(var: Any) -> Hashable:
        return numbers.setdefault(var, len(numbers)), str(var.aval)

    def atom(value: Any) -> Hashable:
        return _literal(value) if isinstance(value, core.Literal) else number(value)

    heads = tuple(number(var) for var in (*jaxpr.constvars, *jaxpr.invars))
    equations = []
    for eqn in jaxpr.eqns:
        params = tuple((name, _comparable(eqn.params[name])) for name in sorted(eqn.params))
        path = str(eqn.source_info.name_stack)
        ins = tuple(map(atom, eqn.invars))
        equations.append((eqn.primitive, params, path, ins, tuple(map(number, eqn.outvars))))
    return heads, tuple(equations), tuple(map(atom, jaxpr.outvars))


def _literal(literal: Any) -> Hashable:
    return _comparable(np.asarray(literal.val)), str(literal.aval)


def _comparable(value: Any) -> Hashable:
    """Return what is equal for equal parameters of operations: jaxprs and arrays by what they hold, all else as it is."""
    if isinstance(value, core.ClosedJaxpr):
        return _key_of(value.jaxpr, {}), tuple(map(_comparable, value.consts))
    if isinstance(value, core.Jaxpr):
        return _key_of(value, {})
    if isinstance(value, tuple | list):
        return type(value), tuple(map(_comparable, value))
    if isinstance(value, dict):
        return dict, tuple((name, _comparable(value[name])) for name in sorted(value))
    if isinstance(value, jax.Array | np.ndarray | np.generic):
        array = np.asarray(value)
        if array.nbytes > MOST_BYTES:
            raise TypeError(f"an array of {array.nbytes} bytes is a part of an operation")
        return array.shape, str(array.dtype), array.tobytes()
    if isinstance(value, functools.partial):
        return _comparable(value.func), tuple(map(_cell, value.args)), _comparable(value.keywords)
    if type(value).__name__ == "WrappedFun":  # rules of `custom_jvp` and `custom_vjp`
        return _comparable(value.f), _comparable(value.f_transformed), _comparable(value.transforms)
    if inspect.isfunction(value) and value.__module__.startswith("jax."):
        return value.__code__, tuple(_cell(cell.cell_contents) for cell in value.__closure__ or ())
    hash(value)
    return value


def _cell(value: Any) -> Hashable:
    """Describe what a function of JAX's own closes over: functions, and data; not where it stores what it finds as it runs."""
    kind: Any = type(value)
    if isinstance(value, tuple):
        return kind, tuple(map(_cell, value))
    is_function = inspect.isfunction(value) or isinstance(value, functools.partial) or kind.__name__ == "WrappedFun"
    is_own = kind.__module__.startswith("jax.") or kind is object
    is_storage = isinstance(value, dict | list) or (is_own and kind.__eq__ is object.__eq__ and not is_function)
    return _comparable(value) if not is_storage else kind
