"""Read a jaxpr as a list of operations, calls inlined and loops as scopes of their own, and run it.

This is the only evaluator of jaxprs, and what leans on their inside is here. Between JAX 0.10 and 0.12 the parameters of `scan`
changed, and a closed jaxpr became a jaxpr; what is read here is the same in both.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
from jax.extend import core

CALLS = {"jit", "pjit", "closed_call", "core_call", "composite", "remat", "remat2", "checkpoint"}
# Words in the names of primitives that hide what they compute.
KERNELS = (
    "pallas", "attention", "flash", "cudnn", "triton", "mosaic", "ffi_call", "custom_call", "custom_partitioning", "callback",
)  # fmt: skip
CUSTOM_CALLS = {"custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr"}


class Value:
    """One array of the program, known by identity.

    Attributes:
        shape: its shape.
        dtype: its type.
        constant: the array itself if the program holds it, or None.
    """

    __slots__ = ("constant", "dtype", "shape")

    def __init__(self, aval: Any, constant: Any = None) -> None:
        """Take the shape of an abstract value; tokens and the like have none."""
        self.shape: tuple[int, ...] = tuple(getattr(aval, "shape", ()))
        self.dtype: Any = getattr(aval, "dtype", None)
        self.constant = constant


@dataclasses.dataclass(frozen=True, eq=False)
class Op:
    """One operation.

    Attributes:
        index: its place in its scope.
        name: of its primitive.
        eqn: the equation of the jaxpr.
        ins: what it reads.
        outs: what it makes.
        bodies: of a scan, its body; of a while loop, condition and body; of a cond, its branches.
        path: the named scopes and jitted functions around it, joined by "/".
    """

    index: int
    name: str
    eqn: Any
    ins: tuple[Value, ...]
    outs: tuple[Value, ...]
    bodies: tuple[Scope, ...]
    path: str

    @property
    def params(self) -> dict[str, Any]:
        """The parameters of the primitive."""
        return self.eqn.params

    def run(self, values: Sequence[Any]) -> list[Any]:
        """Compute what it makes of `values`."""
        primitive = self.eqn.primitive
        with self.eqn.ctx.manager:
            results = primitive.bind(*values, **primitive.get_bind_params(self.eqn.params))
        return list(results) if primitive.multiple_results else [results]


@dataclasses.dataclass(eq=False)
class Scope:
    """A function, or the body of a loop.

    Attributes:
        ins: its arguments.
        outs: what it returns.
        ops: in the order in which they run.
        constants: the values that it holds itself.
        known: what was computed already, by operation and arguments: `exp(x) / exp(x).sum()` has one exponential.
    """

    ins: list[Value]
    outs: list[Value] = dataclasses.field(default_factory=list)
    ops: list[Op] = dataclasses.field(default_factory=list)
    constants: list[Value] = dataclasses.field(default_factory=list)
    known: dict[Any, tuple[Value, ...]] = dataclasses.field(default_factory=dict, repr=False)

    def producers(self) -> dict[Value, Op]:
        """Map each value to the operation that makes it."""
        return {value: op for op in self.ops for value in op.outs}


def holds_attention(call: str, jaxpr: Any) -> bool:
    """Whether to inline a call, to find attention in it: each `jit` and `jax.checkpoint`.

    Of functions with derivatives of their own, those that hold a product or a normalised exponential: the others keep their
    derivatives.
    """
    if call in CALLS:
        return True
    names = {eqn.primitive.name for eqn in equations(jaxpr)}
    return "dot_general" in names or bool({"exp", "exp2"} & names and "reduce_sum" in names)


def read(closed: Any, inlines: Callable[[str, Any], bool] = holds_attention, *, shares: bool = True) -> Scope:
    """Read a jaxpr into one scope per loop body.

    Args:
        closed: as `jax.make_jaxpr` returns it.
        inlines: `inlines(primitive, jaxpr)` says whether a call is inlined; other calls are operations.
        shares: whether operations that compute the same of the same values become one.
    """
    return _Reader(inlines, shares).scope(closed, "")


@dataclasses.dataclass(frozen=True)
class _Reader:
    """Reads jaxprs; see `read`."""

    inlines: Callable[[str, Any], bool]
    shares: bool

    def scope(self, closed: Any, path: str) -> Scope:
        """Read a jaxpr, with or without its constants."""
        jaxpr, constants = _parts(closed)
        scope = Scope([Value(var.aval) for var in jaxpr.invars])
        scope.outs = self.inline(scope, jaxpr, constants, scope.ins, path)
        return scope

    def inline(
        self,
        scope: Scope,
        jaxpr: Any,
        constants: Sequence[Any],
        ins: Sequence[Value],
        path: str,
        known: dict[Any, Value] | None = None,
    ) -> list[Value]:
        """Add the operations of a jaxpr to a scope, and return what they return."""
        env: dict[Any, Value] = {**(known or {}), **dict(zip(jaxpr.invars, ins, strict=True))}
        for var, constant in zip(() if known else jaxpr.constvars, constants, strict=True):
            env[var] = Value(var.aval, constant)
            scope.constants.append(env[var])

        def value(atom: Any) -> Value:
            if isinstance(atom, core.Literal):
                literal = Value(atom.aval, atom.val)
                scope.constants.append(literal)
                return literal
            return env[atom]

        for eqn in jaxpr.eqns:
            name = eqn.primitive.name
            arguments = [value(atom) for atom in eqn.invars]
            here = "/".join(filter(None, (path, str(eqn.source_info.name_stack))))
            called = _called(name, eqn.params)
            if called is not None and self.inlines(name, called):
                within = "/".join(filter(None, (here, eqn.params.get("name", ""))))
                outs = self.inline(scope, *_parts(called), arguments, within)
            elif self.shares and (key := _key(eqn, arguments)) in scope.known and key is not None:
                outs = list(scope.known[key])
            else:
                outs = [Value(var.aval) for var in eqn.outvars]
                if self.shares:
                    scope.known[key] = tuple(outs)
                bodies = tuple(self.scope(body, here) for body in _bodies(name, eqn.params))
                scope.ops.append(Op(len(scope.ops), name, eqn, tuple(arguments), tuple(outs), bodies, here))
            env.update(zip(eqn.outvars, outs, strict=True))
        return [value(atom) for atom in jaxpr.outvars]


def _parts(closed: Any) -> tuple[Any, Sequence[Any]]:
    return getattr(closed, "jaxpr", closed), getattr(closed, "consts", ())


def _key(eqn: Any, arguments: Sequence[Value]) -> Any:
    """Return what two equations have in common that compute the same; None if that is hard to say."""
    if eqn.effects or any(True for _ in core.jaxprs_in_params(eqn.params)) or eqn.primitive.name in CUSTOM_CALLS:
        return None
    same = [
        (str(value.constant), str(getattr(value.constant, "dtype", type(value.constant))))
        if value.constant is not None and not value.shape
        else value
        for value in arguments
    ]
    return eqn.primitive.name, tuple(same), tuple(sorted((key, repr(param)) for key, param in eqn.params.items()))


def _called(name: str, params: dict[str, Any]) -> Any:
    """Return what a call calls; None of other operations."""
    if name in CALLS:
        return params.get("jaxpr", params.get("call_jaxpr"))
    return params.get("call_jaxpr", params.get("fun_jaxpr")) if name in CUSTOM_CALLS else None


def called_scope(op: Op) -> Scope | None:
    """Read what a call calls, with all calls in it; None of other operations."""
    called = _called(op.name, op.params)
    return None if called is None else read(called, lambda *_: True, shares=False)


def hidden(op: Op) -> Iterator[Scope]:
    """Yield what an operation runs that is neither call nor loop, such as `shard_map`, if attention may be in it."""
    if op.bodies or op.name in CUSTOM_CALLS or "pallas" in op.name:
        return
    for jaxpr in core.jaxprs_in_params(op.params):
        names = {eqn.primitive.name for eqn in equations(jaxpr)}
        if "dot_general" in names and {"exp", "exp2"} & names:
            yield _opened(jaxpr, op.path)


def mapped_scope(op: Op) -> Scope | None:
    """Read what a `shard_map` runs on each device; None of other operations."""
    return _opened(op.params["jaxpr"], op.path) if op.name == "shard_map" else None


def _opened(jaxpr: Any, path: str) -> Scope:
    """Read a jaxpr that is no closed one."""
    jaxpr, _ = _parts(jaxpr)
    arguments = {var: Value(var.aval) for var in (*jaxpr.constvars, *jaxpr.invars)}
    values = list(arguments.values())
    scope = Scope(values)
    scope.outs = _Reader(holds_attention, True).inline(
        scope, jaxpr, (), values[len(jaxpr.constvars) :], path, arguments
    )
    return scope


def _bodies(name: str, params: dict[str, Any]) -> Sequence[Any]:
    if name == "scan":
        return (params["jaxpr"],)
    if name == "while":
        return params["cond_jaxpr"], params["body_jaxpr"]
    return params["branches"] if name == "cond" else ()


def equations(closed: Any) -> Iterator[Any]:
    """Yield every equation of a jaxpr, those inside of calls, loops and kernels too."""
    jaxpr, _ = _parts(closed)
    for eqn in jaxpr.eqns:
        yield eqn
        for inner in core.jaxprs_in_params(eqn.params):
            yield from equations(inner)


@dataclasses.dataclass(frozen=True)
class ScanParts:
    """How many of a scan's arguments are constants, carried, and sliced; the rest of its results is stacked."""

    n_constants: int
    n_carried: int
    n_sliced: int


def scan_parts(op: Op) -> ScanParts:
    """Tell the arguments of a scan apart: what it slices and stacks has one axis more outside than inside."""
    (body,) = op.bodies
    n_sliced = sum(len(outer.shape) != len(inner.shape) for outer, inner in zip(op.ins, body.ins, strict=True))
    n_stacked = sum(len(outer.shape) != len(inner.shape) for outer, inner in zip(op.outs, body.outs, strict=True))
    n_carried = len(op.outs) - n_stacked
    return ScanParts(len(op.ins) - n_sliced - n_carried, n_carried, n_sliced)


def run(scope: Scope, arguments: Sequence[Any], keep: Any, add: Any = None) -> tuple[list[Any], dict[Any, Any]]:
    """Compute a scope, and what `keep` wants of it.

    Args:
        scope: the program.
        arguments: one for each of `scope.ins`.
        keep: `keep(op, env)` is called after each operation, with all values so far, and returns a dictionary of what to
            keep. Operations whose bodies keep something must be scans: they are rebuilt, and stack it.
        add: an `Adder`, which changes values on the way, or runs operations in a way of its own; None to compute what the
            program says. What it adds inside a scan has an axis in front, in the order in which the scan stacks its results.

    Returns:
        What the scope returns, and what was kept, with an axis in front for each scan around it, in order of execution.
    """
    env = {value: value.constant for value in scope.constants}
    env.update(zip(scope.ins, arguments, strict=True))
    kept: dict[Any, Any] = {}
    for op in scope.ops:
        values = [env[value] for value in op.ins]
        if add is not None:
            values = add.read(op, values, env)
        if op.name == "scan" and (keep.wants(op.bodies[0]) or (add is not None and add.wants(op.bodies[0]))):
            results, more = _run_scan(op, values, keep, add)
            kept.update(more)
        else:
            results = op.run(values) if add is None else add.run(op, values, keep)
        if add is not None:
            results = add.made(op, results)
        env.update(zip(op.outs, results, strict=True))
        kept.update(keep(op, env if add is None else add.seen(env)))
    return [env[value] for value in scope.outs], kept


def _run_scan(op: Op, values: Sequence[Any], keep: Any, add: Any) -> tuple[list[Any], dict[Any, Any]]:
    parts, params = scan_parts(op), op.params
    constants = values[: parts.n_constants]
    carried = values[parts.n_constants : parts.n_constants + parts.n_carried]
    sliced = values[parts.n_constants + parts.n_carried :]
    body = op.bodies[0]
    into = body.ins[parts.n_constants : parts.n_constants + parts.n_carried]
    added = {} if add is None else add.inside(op)
    if add is not None:
        carried = add.carried(into, carried)

    def step(carry: Sequence[Any], slices: tuple[Sequence[Any], dict]) -> tuple[Sequence[Any], tuple[list[Any], dict]]:
        adding = None if add is None else add.replace(slices[1])
        results, kept = run(body, [*constants, *carry, *slices[0]], keep, adding)
        carry = results[: parts.n_carried]
        return carry if adding is None else adding.carried(into, carry), (results[parts.n_carried :], kept)

    carried, (stacked, kept) = jax.lax.scan(
        step, carried, (sliced, added), length=params["length"], reverse=params["reverse"], unroll=params["unroll"]
    )
    if params["reverse"]:  # steps in the order in which they ran
        kept = jax.tree.map(lambda weights: weights[::-1], kept)
    return [*carried, *stacked], kept
