"""Tell what the passes of a loop around attention are: layers, examples, heads, or something that has no place here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from jaxflow.capture._tracing import axes as ax
from jaxflow.capture._tracing.program import Op, Scope, Value, scan_parts
from jaxflow.capture._tracing.scores import Around, Scores, arrays_of

Passes = Literal["layer", "batch", "head"]


def passes_of(around: Around, loop: Op, scores: Scores, tokens: frozenset) -> Passes | None:
    """Say what the passes of a scan around some attention go through; None if that is the tokens, or unknown.

    Passes are layers if the queries depend on something carried that the attention goes into.
    """
    (body,), parts = loop.bodies, scan_parts(loop)
    carried = body.ins[parts.n_constants : parts.n_constants + parts.n_carried]
    begin = scores.op if body is around.scope else next(op for op in around.loops if op in body.ops)
    needed = _needs(body, begin.ins)
    while True:
        more = _needs(body, [out for out, inner in zip(body.outs, carried, strict=False) if inner in needed]) | needed
        if more == needed:
            break
        needed = more
    reached = _reaches(body, begin)
    if any(inner in needed and out in reached for inner, out in zip(carried, body.outs, strict=False)):
        return "layer"
    sliced = body.ins[parts.n_constants + parts.n_carried :]
    outer = loop.ins[parts.n_constants + parts.n_carried :]
    steps = ax.origins(*(around.axes[value][0] for value, inner in zip(outer, sliced, strict=True) if inner in needed))
    if not steps or steps & tokens:
        return None
    return "batch" if arrays_of(steps) & arrays_of(tokens) else "head"


def _needs(scope: Scope, values: Sequence[Value]) -> set[Value]:
    """All values that `values` are computed of, and they themselves."""
    needed = set(values)
    for op in reversed(scope.ops):
        if any(value in needed for value in op.outs):
            needed.update(op.ins)
    return needed


def _reaches(scope: Scope, start: Op) -> set[Value]:
    """All values that depend on what `start` makes."""
    reached = set(start.outs)
    for op in scope.ops[start.index + 1 :]:
        if any(value in reached for value in op.ins):
            reached.update(op.outs)
    return reached
