"""Follow axes, and what is computed of what, through a whole program and its loops."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from jaxflow.capture._tracing import axes as ax
from jaxflow.capture._tracing.program import Op, Scope, Value, scan_parts

N_PASSES = 4  # through a loop's body, at most, until what it carries comes from nowhere new


Tags = Mapping[Value, Sequence[tuple[ax.Origin, Sequence[int]]]]  # value -> tags, and the axes that each is put on


def axes_of(program: Scope, tags: Tags) -> dict[Value, ax.Axes]:
    """Say where every axis of every value comes from.

    Args:
        program: the whole function.
        tags: what is put on axes of certain values, as one more origin.

    Returns:
        Origins are `(argument or constant, axis)`, and tags.
    """
    axes: dict[Value, ax.Axes] = {}
    for number, value in enumerate(program.ins):
        axes[value] = ax.named(value, number)
    _axes_of(program, axes, tags)
    return axes


def _axes_of(scope: Scope, axes: dict[Value, ax.Axes], tags: Tags) -> None:
    for value in scope.constants:
        axes[value] = ax.named(value, id(value.constant))
    for op in scope.ops:
        made = _loop_axes(op, axes, tags) if op.bodies else ax.follow(op, axes)
        axes.update(zip(op.outs, made, strict=True))
        for value in op.outs:
            for tag, places in tags.get(value, ()):
                axes[value] = ax.tagged(axes[value], tag, places)


def _loop_axes(op: Op, axes: dict[Value, ax.Axes], tags: Tags) -> list[ax.Axes]:
    ins = [axes[value] for value in op.ins]
    if op.name == "scan":
        (body,), parts = op.bodies, scan_parts(op)
        first = parts.n_constants + parts.n_carried
        given = [*ins[:first], *(known[1:] for known in ins[first:])]
        outs: list[ax.Axes] = []
        for _ in range(N_PASSES):
            axes.update(zip(body.ins, given, strict=True))
            _axes_of(body, axes, tags)
            outs = [axes[value] for value in body.outs]
            carried = [ax.merge(*pair) for pair in zip(given[parts.n_constants : first], outs, strict=False)]
            if carried == given[parts.n_constants : first]:
                break
            given[parts.n_constants : first] = carried
        steps = ax.origins(*(known[0] for known in ins[first:]))
        stacked = [((ax.Factor(op.params["length"], steps),), *known) for known in outs[parts.n_carried :]]
        return [*given[parts.n_constants : first], *stacked]
    if op.name == "while":
        n_condition, n_body = op.params["cond_nconsts"], op.params["body_nconsts"]
        condition, body = op.bodies
        carried = ins[n_condition + n_body :]
        for inner, given in ((condition, ins[:n_condition]), (body, ins[n_condition : n_condition + n_body])):
            axes.update(zip(inner.ins, [*given, *carried], strict=True))
            _axes_of(inner, axes, tags)
        return [ax.merge(*pair) for pair in zip(carried, (axes[value] for value in body.outs), strict=True)]
    results: list[ax.Axes] = []
    for branch in op.bodies:
        axes.update(zip(branch.ins, ins[1:], strict=True))
        _axes_of(branch, axes, tags)
        outs = [axes[value] for value in branch.outs]
        results = [ax.merge(*pair) for pair in zip(results, outs, strict=True)] if results else outs
    return results


def computed_values(program: Scope) -> frozenset[Value]:
    """Find the values that are more than parameters or inputs: products, rows picked by number, and what follows."""
    computed: set[Value] = set()
    _computed(program, computed)
    return frozenset(computed)


def _computed(scope: Scope, computed: set[Value]) -> None:
    for op in scope.ops:
        computes = any(value in computed for value in op.ins) or op.name in (
            "dot_general",
            "conv_general_dilated",
            "while",
        )
        computes = computes or (op.name == "gather" and len(op.ins[1].shape) > 1)
        if op.bodies:
            given = op.ins[1:] if op.name == "cond" else op.ins
            for body in op.bodies:
                if op.name != "while":
                    computed.update(inner for outer, inner in zip(given, body.ins, strict=True) if outer in computed)
                if op.name == "scan":
                    parts = scan_parts(op)
                    computed.update(body.ins[parts.n_constants : parts.n_constants + parts.n_carried])
                _computed(body, computed)
            computes = computes or op.name == "scan"
        if computes:
            computed.update(op.outs)
