"""Mark arrays inside a model while it is traced, and run the trace again with something added to them.

A gradient with respect to an attention weight asks what would change if that weight were another one, after the softmax: so
something has to be added where the weight is made, before it is used. No module offers that. But a program that was traced
can be run with any of its values changed. Whoever captures marks the arrays (`Marks.mark`), and `perturbable` makes of the
traced run a function of what is added to them, which JAX differentiates like any other.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import jax
from jax.ad_checkpoint import checkpoint_name
from jax.extend import core
from jaxtyping import Array

from jaxflow._attention import Attention

_PREFIX = "jaxflow mark "  # of an operation that does nothing and carries a name
# Called once with the arguments that they are given, so that their bodies may stand in their place.
_INLINED = (
    "jit", "pjit", "closed_call", "core_call", "checkpoint", "remat2", "custom_jvp_call", "custom_vjp_call",
)  # fmt: skip


class Marks:
    """The arrays that one traced run marked.

    Attributes:
        join: set by what captures: gradients by key, each `[*scans, *shape]` -> `Attention` of gradients, laid out as the
            attention that it returns.
    """

    def __init__(self) -> None:
        """Start with none."""
        self._names: dict[Hashable, str] = {}
        self.join: Callable[[Mapping[Hashable, Array]], Attention] | None = None

    def mark(self, key: Hashable, array: Array) -> Array:
        """Mark `array`, the very one that is used afterwards (not a copy of it), and return it.

        A body that is traced several times marks the same key each time.
        """
        return checkpoint_name(array, self._names.setdefault(key, f"{_PREFIX}{len(self._names)}"))

    def join_named(self, by_name: Mapping[str, Array]) -> Attention:
        """Lay out gradients that are known by the names of what was marked."""
        assert self.join is not None
        return self.join({key: by_name[name] for key, name in self._names.items() if name in by_name})


@dataclasses.dataclass(frozen=True)
class Perturbable:
    """A model's run, as a function of what is added to its attention weights, after the softmax.

    Attributes:
        shapes: `shapes()` tells, by name, the shape of what is added to each array of weights, with an axis in front for each
            scan around it; it raises ValueError where nothing can be added.
        run: `run(added)` returns what the model returns, and its attention.
        join: lays out gradients by what was added as the attention, `Attention` of gradients.
    """

    shapes: Callable[[], dict[str, jax.ShapeDtypeStruct]]
    run: Callable[[Mapping[str, Array]], tuple[Any, Attention]]
    join: Callable[[Mapping[str, Array]], Attention]


def perturbable(capture: Callable[[Marks], tuple[Any, Attention]]) -> Perturbable:
    """Trace a run that marks its attention, once.

    Args:
        capture: returns what a model returns and its attention, after it has marked that.

    Raises:
        ValueError: as `capture`. Asked for `shapes`: a marked array is not what the rest is computed of; it lies inside of an
            operation that cannot be rebuilt (a `while` loop, a `cond`).
    """
    marks = Marks()
    closed, structure = jax.make_jaxpr(lambda: capture(marks), return_shape=True)()
    tree = jax.tree.structure(structure)

    def run(added: Mapping[str, Array]) -> tuple[Any, Attention]:
        return jax.tree.unflatten(tree, _evaluate(closed.jaxpr, closed.consts, (), added))

    return Perturbable(lambda: _shapes(closed.jaxpr), run, marks.join_named)


def _evaluate(jaxpr: Any, constants: Sequence[Any], arguments: Sequence[Any], added: Mapping[str, Array]) -> list[Any]:
    """Run a jaxpr, adding to marked variables as soon as they have a value."""
    marked = _marked(jaxpr)
    values = dict(zip(jaxpr.constvars, constants, strict=True)) | dict(zip(jaxpr.invars, arguments, strict=True))

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, core.Literal) else values[atom]

    for eqn in jaxpr.eqns:
        ins = [read(atom) for atom in eqn.invars]
        with eqn.ctx.manager:
            outs = _run(eqn, ins, added)
        for var, value in zip(eqn.outvars, outs, strict=True):
            values[var] = value + added[marked[var]] if var in marked and marked[var] in added else value
    return [read(atom) for atom in jaxpr.outvars]


def _run(eqn: Any, ins: Sequence[Any], added: Mapping[str, Array]) -> Sequence[Any]:
    bodies = _bodies(eqn)
    if not any(_shapes(jaxpr) for jaxpr, _ in bodies):
        primitive = eqn.primitive
        outs = primitive.bind(*ins, **primitive.get_bind_params(eqn.params))
        return outs if primitive.multiple_results else [outs]
    (jaxpr, constants), *_ = bodies
    if eqn.primitive.name != "scan":
        return _evaluate(jaxpr, constants, ins, added)
    n_sliced, n_carried = _scan_parts(eqn, jaxpr)
    n_constants = len(ins) - n_carried - n_sliced
    inner = {name: added[name] for name in _shapes(jaxpr) if name in added}

    def step(carry: list[Any], slices: tuple[list[Any], dict[str, Array]]) -> tuple[list[Any], list[Any]]:
        outs = _evaluate(jaxpr, constants, [*ins[:n_constants], *carry, *slices[0]], slices[1])
        return outs[:n_carried], outs[n_carried:]

    carry, stacked = jax.lax.scan(
        step,
        list(ins[n_constants : n_constants + n_carried]),
        (list(ins[n_constants + n_carried :]), inner),
        length=eqn.params["length"],
        reverse=eqn.params["reverse"],
        unroll=eqn.params["unroll"],
    )
    return [*carry, *stacked]


def _scan_parts(eqn: Any, body: Any) -> tuple[int, int]:
    """Count what a scan slices and what it carries: what it slices and stacks has one axis more outside than inside."""
    n_sliced = sum(o.aval.ndim != i.aval.ndim for o, i in zip(eqn.invars, body.invars, strict=True))
    n_stacked = sum(o.aval.ndim != i.aval.ndim for o, i in zip(eqn.outvars, body.outvars, strict=True))
    return n_sliced, len(eqn.outvars) - n_stacked


def _bodies(eqn: Any) -> list[tuple[Any, Sequence[Any]]]:
    """Return the jaxprs inside of an operation, each with its constants."""
    return [
        (getattr(leaf, "jaxpr", leaf), getattr(leaf, "consts", ()))
        for leaf in jax.tree.leaves(list(eqn.params.values()), is_leaf=_is_jaxpr)
        if _is_jaxpr(leaf)
    ]


def _is_jaxpr(value: Any) -> bool:
    return isinstance(value, core.Jaxpr | core.ClosedJaxpr)


def _marked(jaxpr: Any) -> dict[Any, str]:
    return {
        eqn.invars[0]: eqn.params["name"]
        for eqn in jaxpr.eqns
        if eqn.primitive.name == "name" and eqn.params["name"].startswith(_PREFIX)
    }


@functools.lru_cache(maxsize=1024)  # asked once for each time that a body runs; jaxprs are compared by identity
def _shapes(jaxpr: Any) -> dict[str, jax.ShapeDtypeStruct]:
    """Find all marked arrays, those inside of loops and calls too, and check that something is computed of them."""
    marked = _marked(jaxpr)
    made = {var for eqn in jaxpr.eqns for var in eqn.outvars}
    read = [eqn.invars for eqn in jaxpr.eqns if not (eqn.primitive.name == "name" and eqn.invars[0] in marked)]
    used = {var for atoms in (*read, jaxpr.outvars) for var in atoms if not isinstance(var, core.Literal)}
    for var in marked:
        if var not in made or var not in used:
            raise ValueError(
                f"An array of shape {tuple(var.aval.shape)} was to be differentiated by, but nothing is computed of it: what the "
                "model sows or returns is a copy of its attention, such as weights.astype(...), or comes out of a function that "
                "has used it already. Sow the very array that weighs the values."
            )
    shapes = {name: jax.ShapeDtypeStruct(var.aval.shape, var.aval.dtype) for var, name in marked.items()}
    for eqn in jaxpr.eqns:
        found: dict[str, jax.ShapeDtypeStruct] = {}
        for inner, _ in _bodies(eqn):
            found |= _shapes(inner)
        if not found:
            continue
        if eqn.primitive.name == "scan":
            length = eqn.params["length"]
            found = {name: jax.ShapeDtypeStruct((length, *s.shape), s.dtype) for name, s in found.items()}
        elif eqn.primitive.name not in _INLINED:
            raise ValueError(
                f"An array to differentiate by is computed inside of `{eqn.primitive.name}`, which cannot be rebuilt: expected "
                "it in the model itself, in jit, jax.checkpoint or scan. Differentiate the part of the model inside it."
            )
        shapes |= found
    return shapes
