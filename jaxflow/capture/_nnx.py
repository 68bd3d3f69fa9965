"""Capture from any flax.nnx module: through what it sows as `nnx.Intermediate`, or else by tracing it."""

from __future__ import annotations

import dataclasses
import inspect
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jaxflow._attention import Attention, Provenance
from jaxflow.capture._jaxpr import Traced, model_name, perturbable_found, refuse, trace
from jaxflow.capture._linen import by_role
from jaxflow.capture._marks import Perturbable
from jaxflow.capture._ordering import stack
from jaxflow.capture._roles import Role, linen_roles
from jaxflow.capture._sown import Layer, Sown
from jaxflow.capture._tracing.adding import Adder, Place
from jaxflow.capture._tracing.program import Op, Scope, Value, scan_parts
from jaxflow.capture._tracing.weights import Keeper


def is_nnx(model: Any) -> bool:
    """Tell whether `model` is an NNX module or a method of one; flax.nnx need not have been imported."""
    nnx = sys.modules.get("flax.nnx")
    owner = model.__self__ if inspect.ismethod(model) else model
    return nnx is not None and isinstance(owner, nnx.Module)


def method_of(model: Any) -> tuple[Callable[..., Any], Any]:
    """Take an NNX module, or a method of one, apart: a function of the module and what it is called with, and the module."""
    return (model.__func__, model.__self__) if inspect.ismethod(model) else (type(model).__call__, model)


def copied(model: Any) -> tuple[Callable[..., Any], Any]:
    """Do what `method_of` does with a copy of the module, in which alone counts, statistics and intermediates change."""
    from flax import nnx

    method, module = method_of(model)
    return method, nnx.clone(module)


def as_method(model: Any, module: Any) -> Any:
    """Put another module in the place of the one that `model` is, or is a method of."""
    return types.MethodType(model.__func__, module) if inspect.ismethod(model) else module


def capture_nnx(
    model: Any, args: tuple, kwargs: dict, *, sown: str, roles: Mapping[str, Role] | None
) -> tuple[Any, Attention]:
    """Run a copy of an NNX module once, and take its attention.

    What is sown as `nnx.Intermediate` under the name `sown` serves if it is all attention that a trace sees; or else the
    trace itself does, which needs nothing sown. The module stays as it is: counts of random numbers, statistics and
    intermediates change in the copy alone.

    Args:
        model: the module, or a method of it.
        args: what it is called with.
        kwargs: what it is called with.
        sown: the name under which attention is sown.
        roles: the stack of attention whose path tells it wrongly or not: that of the module if the weights are sown, that of
            the trace otherwise.

    Returns:
        What the module returns, and its attention.

    Raises:
        ValueError: no attention, or not that of all layers.
    """
    return perturbable_nnx(model, args, kwargs, sown=sown, roles=roles).run({})


def perturbable_nnx(
    model: Any, args: tuple, kwargs: dict, *, sown: str, roles: Mapping[str, Role] | None
) -> Perturbable:
    """Do what `capture_nnx` does as a function of what is added to the weights; arguments and errors as there."""
    from flax import nnx

    name = model_name(model)

    def call(args: tuple, kwargs: dict) -> tuple[Any, dict]:
        method, copy = copied(model)
        nnx.pop(copy, nnx.Intermediate)
        outputs = method(copy, *args, **kwargs)
        found = nnx.to_flat_state(nnx.pop(copy, nnx.Intermediate))
        weights = {path[:-1]: variable.get_value() for path, variable in found if path[-1] == sown}
        return outputs, {path: each if isinstance(each, tuple) else (each,) for path, each in weights.items()}

    traced = trace(call, (args, kwargs), {})
    values = traced.restore(traced.program.outs)[1]
    n_sown = sum(map(len, values.values()))
    n_seen = len(traced.findings.sites) + len(traced.findings.refused)
    if n_sown and n_sown >= n_seen:
        return _perturbable_sown(traced, values, name, roles)
    try:
        refuse(traced, name)
    except ValueError as error:
        if not n_sown:
            raise
        raise ValueError(f"{name} sows {n_sown} weights as {sown!r}, and computes more attention.\n{error}") from None
    found = perturbable_found(traced, name, roles)

    def run(added: Mapping[str, Any]) -> tuple[Any, Attention]:
        (outputs, _), attention = found.run(added)
        return outputs, attention

    return Perturbable(found.shapes, run, found.join)


def _perturbable_sown(
    traced: Traced, values: Mapping[tuple, tuple[Value, ...]], name: str, said: Mapping[str, Role] | None
) -> Perturbable:
    """Take what a module sows for its attention."""
    made = {path: [_made(traced.program, value) for value in each] for path, each in values.items()}

    def join(weights: Mapping[tuple, Sequence[Any]]) -> Attention:
        layers = _layers(made, weights, name)
        paths = dict.fromkeys(layer.path for layer, _ in layers)
        stacks = linen_roles(name, paths, known={}, self_attention={}, said=said)
        by_stack = {role: stack(sown) for role, sown in by_role(name, layers, stacks).items()}
        return Attention(**by_stack, provenance=Provenance("nnx"))

    def places() -> dict[str, Place]:
        return {f"{path} {i}": _place(path, m) for path, each in made.items() for i, m in enumerate(each)}

    def run(added: Mapping[str, Any]) -> tuple[Any, Attention]:
        (outputs, weights), _ = traced.run(Keeper(()), Adder(places(), added) if added else None)
        return outputs, join(weights)

    def join_gradients(gradients: Mapping[str, Any]) -> Attention:
        return join(
            {path: [m.laid_out(gradients[f"{path} {i}"]) for i, m in enumerate(each)] for path, each in made.items()}
        )

    return Perturbable(lambda: {key: place.shape for key, place in places().items()}, run, join_gradients)


def _layers(made: Mapping[tuple, Sequence[_Made]], weights: Mapping[tuple, Sequence[Any]], name: str) -> list[Layer]:
    """Order what was sown by where in the program it was made."""
    layers = []
    for path, each in made.items():
        for index, m in enumerate(each):
            array = weights[path][index]
            if getattr(array, "ndim", 0) < 3:
                raise ValueError(
                    f"{'/'.join(map(str, path))} of {name} sowed an array of shape {getattr(array, 'shape', None)}; "
                    "expected attention probabilities, [*batch, head, query, key]. If these lie under another "
                    "name, pass it as sown=."
                )
            layers.append((m.order, (Sown(tuple(map(str, path)), index, tuple(op.index for op in m.loops), 0), array)))
    return [layer for _, layer in sorted(layers, key=lambda found: found[0])]


@dataclasses.dataclass(frozen=True)
class _Made:
    """How a sown value is made.

    Attributes:
        value: the array that is sown; inside of loops one step's.
        scope: in which it is made.
        order: numbers of the operations around it, outermost first, and its own.
        loops: the scans around it, which stack it.
        moved: what only moves it about from there to where it is sown.
    """

    value: Value
    scope: Scope
    order: tuple[int, ...]
    loops: tuple[Op, ...]
    moved: tuple[Op, ...]

    def laid_out(self, array: Any) -> Any:
        """Lay out an array of the shape of `value`, its loops' steps in front, as what is sown."""
        for op in self.moved:
            (array,) = op.run([array])
        return array


def _made(scope: Scope, value: Value) -> _Made:
    producers = scope.producers()
    moved: tuple[Op, ...] = ()
    op = producers.get(value)
    while op is not None and op.name in ("transpose", "squeeze", "reshape", "convert_element_type", "copy"):
        moved = (op, *moved)
        value = op.ins[0]
        op = producers.get(value)
    if op is None:
        return _Made(value, scope, (-1,), (), moved)
    place = op.outs.index(value)
    if op.name != "scan" or place < scan_parts(op).n_carried:
        return _Made(value, scope, (op.index,), (), moved)
    inner = _made(op.bodies[0], op.bodies[0].outs[place])
    if inner.moved:  # in each step: what is stacked is taken as it is
        inner = dataclasses.replace(inner, value=op.bodies[0].outs[place], moved=())
    return _Made(inner.value, inner.scope, (op.index, *inner.order), (op, *inner.loops), moved)


def _place(path: tuple, made: _Made) -> Place:
    """Say where to add to what is sown: where it is made, if something else is computed of it."""
    producer = made.scope.producers().get(made.value)
    read = any(made.value in op.ins and op not in made.moved for op in made.scope.ops)
    if producer is None or not read:
        raise ValueError(
            f"{'/'.join(map(str, path))} sows a copy of its attention, such as weights.astype(...), of which nothing is "
            "computed, so nothing can be differentiated by it. Sow the very array that weighs the values, or sow nothing: "
            "attention is found in the trace then."
        )
    return Place(made.value, made.loops, producer)
