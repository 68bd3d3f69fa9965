"""Capture from any flax.nnx module: through what it sows as `nnx.Intermediate`, or else by tracing it."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping
from typing import Any

from jaxflow.attention import Attention, Provenance
from jaxflow.capture.jaxpr import Traced, capture_found, refuse, trace
from jaxflow.capture.linen import by_role
from jaxflow.capture.roles import Role, linen_roles
from jaxflow.capture.sown import Layer, Sown, stack
from jaxflow.capture.tracing.program import Op, Scope, Value, scan_parts
from jaxflow.capture.tracing.weights import Keeper


def is_nnx(model: Any) -> bool:
    """Tell whether `model` is an NNX module or a method of one; flax.nnx need not have been imported."""
    nnx = sys.modules.get("flax.nnx")
    owner = model.__self__ if inspect.ismethod(model) else model
    return nnx is not None and isinstance(owner, nnx.Module)


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
    from flax import nnx

    method = model.__func__ if inspect.ismethod(model) else type(model).__call__
    module = model.__self__ if inspect.ismethod(model) else model
    name = type(module).__name__

    def call(args: tuple, kwargs: dict) -> tuple[Any, dict]:
        copy = nnx.clone(module)
        nnx.pop(copy, nnx.Intermediate)
        outputs = method(copy, *args, **kwargs)
        found = nnx.to_flat_state(nnx.pop(copy, nnx.Intermediate))
        weights = {path[:-1]: variable.get_value() for path, variable in found if path[-1] == sown}
        return outputs, {path: each if isinstance(each, tuple) else (each,) for path, each in weights.items()}

    traced = trace(call, (args, kwargs), {})
    places = traced.restore(traced.program.outs)[1]
    n_sown = sum(map(len, places.values()))
    n_seen = len(traced.findings.sites) + len(traced.findings.refused)
    if not n_sown or n_sown < n_seen:
        try:
            refuse(traced, name)
        except ValueError as error:
            if not n_sown:
                raise
            raise ValueError(
                f"{name} sows {n_sown} weights as {sown!r}, and computes more attention.\n{error}"
            ) from None
        (outputs, _), attention = capture_found(traced, name, roles)
        return outputs, attention
    (outputs, weights), _ = traced.run(Keeper(()))
    layers = _layers(traced, places, weights, name)
    paths = dict.fromkeys(layer.path for layer, _ in layers)
    stacks = linen_roles(name, paths, known={}, self_attention={}, said=roles)
    weights = {role: stack(sown) for role, sown in by_role(name, layers, stacks).items()}
    return outputs, Attention(**weights, provenance=Provenance("nnx"))


def _layers(traced: Traced, places: Mapping, weights: Mapping, name: str) -> list[Layer]:
    """Order what was sown by where in the program it was made."""
    layers = []
    for path, values in places.items():
        for index, value in enumerate(values):
            array = weights[path][index]
            if getattr(array, "ndim", 0) < 3:
                raise ValueError(
                    f"{'/'.join(map(str, path))} of {name} sowed an array of shape {getattr(array, 'shape', None)}; "
                    "expected attention probabilities, [*batch, head, query, key]. If these lie under another "
                    "name, pass it as sown=."
                )
            order, scans = _made(traced.program, value)
            layers.append((order, (Sown(tuple(map(str, path)), index, scans, 0), array)))
    return [layer for _, layer in sorted(layers, key=lambda found: found[0])]


def _made(scope: Scope, value: Value) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Say where a value is made, and by which scans it is stacked: numbers of operations, outermost first."""
    producers = scope.producers()
    op: Op | None = producers.get(value)
    while op is not None and op.name in ("transpose", "squeeze", "reshape", "convert_element_type", "copy"):
        value = op.ins[0]
        op = producers.get(value)
    if op is None:
        return (-1,), ()
    place = op.outs.index(value)
    if op.name != "scan" or place < scan_parts(op).n_carried:
        return (op.index,), ()
    order, scans = _made(op.bodies[0], op.bodies[0].outs[place])
    return (op.index, *order), (op.index, *scans)
