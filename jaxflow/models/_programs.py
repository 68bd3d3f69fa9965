"""Compiled programs of models: one for each kind of run and each shape of inputs, kept between calls."""

from __future__ import annotations

import collections
import functools
import threading
import weakref
from collections.abc import Callable, Hashable, Mapping
from typing import Any

import jax

from jaxflow.models._arrays import Rest, take_arrays
from jaxflow.models._function import FunctionModel
from jaxflow.models._model import Model
from jaxflow.models._traced_function import trace_function

# Models of so many structures have programs, and so many programs of functions; what was used least recently goes first.
N_KEPT, N_KEPT_OF_FUNCTIONS = 8, 32


class Programs:
    """The compiled programs of all models of one structure. They hold none of the models' arrays."""

    def __init__(self) -> None:
        """Compile nothing yet."""
        self._running = threading.local()
        self._compiled = jax.jit(self._trace, static_argnums=(0, 1))
        self._refused: set[Hashable] = set()
        self._shapes: dict[Hashable, Any] = {}

    def run(
        self,
        job: Callable[..., Any],
        model: Model,
        arrays: Any,
        args: tuple,
        kwargs: Mapping,
        operand: Any,
        traced: Model | None = None,
    ) -> Any:
        """Return `job(model, args, kwargs, operand)`, compiled if it can be: of `traced`, if that is given."""
        if job in self._refused:
            return job(model, args, kwargs, operand)
        rest, given = take_arrays((args, dict(kwargs)))
        self._running.model = model if traced is None else traced
        try:
            return self._compiled(job, rest, arrays, given, operand)
        except Exception:  # whatever it is, it comes again, in words that speak of the model; or the model runs
            found = job(model, args, kwargs, operand)
            self._refused.add(job)
            return found
        finally:
            del self._running.model

    def shapes(self, model: Model, arrays: Any, args: tuple, kwargs: Mapping) -> Any:
        """Return the shapes of what the model returns, found without a run, and kept."""
        rest, given = take_arrays((args, dict(kwargs)))
        shapes = tuple((array.shape, str(array.dtype)) for array in given)
        if (rest, shapes) not in self._shapes:
            self._running.model = model
            try:
                call = functools.partial(self._trace, _call, rest)
                self._shapes[rest, shapes] = jax.eval_shape(call, arrays, given, None)
            finally:
                del self._running.model
        return self._shapes[rest, shapes]

    def _trace(self, job: Callable[..., Any], rest: Rest, arrays: Any, given: list[Any], operand: Any) -> Any:
        args, kwargs = rest(given)
        return job(self._running.model.merge(arrays), args, kwargs, operand)


_programs: collections.OrderedDict[Hashable, Programs] = collections.OrderedDict()
# Of functions, by what they do on some inputs; None of what was met once.
_of_functions: collections.OrderedDict[Hashable, Programs | None] = collections.OrderedDict()
_lock = threading.Lock()


def run_compiled(job: Callable[..., Any], model: Model, args: tuple, kwargs: Mapping[str, Any], operand: Any) -> Any:
    """Return `job(model, args, kwargs, operand)`: compiled, or operation by operation where a model cannot be compiled.

    Args:
        job: a pure function that can be hashed, such as one of a module.
        model: the model. Its arrays go in as arguments, so programs stay true while it is trained.
        args: what it is called with. What is no array is a part of the program.
        kwargs: what it is called with, likewise.
        operand: a PyTree of arrays.
    """
    found = _programs_of(model)
    if found is None:
        return job(model, args, kwargs, operand)
    programs, arrays = found
    return programs.run(job, model, arrays, args, kwargs, operand)


def run_traced(job: Callable[..., Any], model: Model, args: tuple, kwargs: Mapping[str, Any], operand: Any) -> Any:
    """Do what `run_compiled` does, for a job that traces the model; then any function can be compiled.

    What a function closes over may change, so it is traced at each call. It is compiled once it does the same a second time.
    """
    if not isinstance(model, FunctionModel) or model.split() is not None:
        return run_compiled(job, model, args, kwargs, operand)
    traced = trace_function(model, args, kwargs)
    if traced is None:
        return job(model, args, kwargs, operand)
    key, arrays = traced.split()
    with _lock:
        is_known = key in _of_functions
        programs = _of_functions.pop(key, None) or (Programs() if is_known else None)
        _of_functions[key] = programs
        while len(_of_functions) > N_KEPT_OF_FUNCTIONS:
            _of_functions.popitem(last=False)
    if programs is None:
        return job(model, args, kwargs, operand)
    return programs.run(job, model, arrays, args, kwargs, operand, traced)


def output_shapes(model: Model, args: tuple, kwargs: Mapping[str, Any]) -> Any:
    """Return the shapes of what a model returns, as `jax.eval_shape` does; None where it has no compiled programs."""
    found = _programs_of(model)
    return None if found is None else found[0].shapes(model, found[1], args, kwargs)


def _programs_of(model: Model) -> tuple[Programs, Any] | None:
    """Return the programs of models like this one, and this one's arrays; None where it cannot be compiled."""
    split = model.split()
    if split is None or not is_hashable(split[0]):
        return None
    structure, arrays = split
    with _lock:
        for dead in [key for key in _programs if _is_dead(key)]:
            del _programs[dead]
        programs = _programs.pop(structure, None) or Programs()
        _programs[structure] = programs
        while len(_programs) > N_KEPT:
            _programs.popitem(last=False)
    return programs, arrays


def _is_dead(structure: Hashable) -> bool:
    """Whether a structure is that of a function which is no more."""
    parts = structure if isinstance(structure, tuple) else ()
    return any(isinstance(part, weakref.ref) and part() is None for part in parts)


def _call(model: Model, args: tuple, kwargs: Mapping[str, Any], operand: Any) -> Any:
    return model.call(*args, **kwargs)


def run_once(model: Model, **inputs: Any) -> Any:
    """Call a model, compiled."""
    return run_compiled(_call, model, (), inputs, None)


def is_hashable(value: Any) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True
