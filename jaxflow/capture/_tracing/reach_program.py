"""Follow through a whole program, its loops and calls, which tokens the positions of its values depend on."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np

from jaxflow.capture._tracing import reach as rc
from jaxflow.capture._tracing.origins import N_PASSES
from jaxflow.capture._tracing.program import Op, Scope, Value, called_scope, mapped_scope, scan_parts
from jaxflow.capture._tracing.reach import NONE, Kind, Reach, Reaches
from jaxflow.capture._tracing.reach_known import Known
from jaxflow.capture._tracing.reach_rules import follow

LARGEST = 2**20  # elements of a constant that is computed


class Follower:
    """Follows a program.

    Attributes:
        known: what is known of its values.
        producers: the operation that makes each value, as far as was followed.
    """

    def __init__(self, visit: Callable[[Op], list[Reaches] | None], fixed: Callable[[Value], Reaches | None]) -> None:
        """Begin with nothing known.

        Args:
            visit: is called with each operation before it is followed, once for each pass of a loop; may say what it makes.
            fixed: says what a value is known to have, whatever it is made of; None of other values.
        """
        self.known = Known(constant=self._constant, is_range=self._is_range, is_fixed=self._is_fixed)
        self.producers: dict[Value, Op] = {}
        self._visit, self._fixed = visit, fixed
        self._outer: dict[Value, Value] = {}
        self._inner: dict[Op, Scope] = {}
        self._computed: dict[Value, np.ndarray | None] = {}

    def follow(self, scope: Scope) -> None:
        """Follow a program, or the body of a loop."""
        reaches = self.known.reaches
        for op in scope.ops:
            self.producers.update(dict.fromkeys(op.outs, op))
            made = self._visit(op)
            made = self._made(op) if made is None else made
            for value, reach in zip(op.outs, made, strict=True):
                fixed = self._fixed(value)
                if reach or fixed:
                    reaches[value] = reach if fixed is None else fixed
                else:
                    reaches.pop(value, None)

    def _made(self, op: Op) -> list[Reaches]:
        if op.name == "scan":
            return self._scan(op)
        if op.bodies:
            return self._branches(op) if op.name == "cond" else self._while(op)
        if op not in self._inner and any(self.known.of(op)) and (called := called_scope(op)) is not None:
            self._inner[op] = called
        if op not in self._inner and any(self.known.of(op)) and (mapped := mapped_scope(op)) is not None:
            whole = all(
                len(value.shape) == len(inner.shape)
                and all(
                    inner.shape[i] == value.shape[i]
                    for r in reaches.values()
                    for i, n in enumerate(r.start.shape)
                    if n > 1
                )
                for value, inner, reaches in zip(op.ins, mapped.ins, self.known.of(op), strict=True)
            )
            if whole:  # else each device has tokens of its own
                self._inner[op] = mapped
        if op in self._inner:
            return self._through(self._inner[op], op.ins, self.known.of(op))
        return follow(op, self.known)

    def _through(self, scope: Scope, outer: Sequence[Value], given: Sequence[Reaches]) -> list[Reaches]:
        """Follow a call, a branch or a pass of a loop."""
        for value, inner, reaches in zip(outer, scope.ins, given, strict=True):
            self.known.reaches[inner] = reaches
            for marked in (self.known.routing, self.known.pairing):
                if value in marked:
                    marked.add(inner)
        self.follow(scope)
        return [self.known.reaches.get(value, NONE) for value in scope.outs]

    def _branches(self, op: Op) -> list[Reaches]:
        given = self.known.of(op)[1:]
        made = [self._through(branch, op.ins[1:], given) for branch in op.bodies]
        return [rc.united(each, op) for each in zip(*made, strict=True)]

    def _while(self, op: Op) -> list[Reaches]:
        n_condition, n_body = op.params["cond_nconsts"], op.params["body_nconsts"]
        outer = op.ins[n_condition:]
        constants, carried = (
            self.known.of(op)[n_condition : n_condition + n_body],
            self.known.of(op)[n_condition + n_body :],
        )
        for _ in range(N_PASSES):
            outs = self._through(op.bodies[1], outer, [*constants, *carried])
            carried = [rc.united(pair, op) for pair in zip(carried, outs, strict=True)]
        return carried

    def _scan(self, op: Op) -> list[Reaches]:
        """Follow a loop. If its steps go along tokens, what it carries depends on all steps before."""
        (body,), parts = op.bodies, scan_parts(op)
        given = self.known.of(op)
        n_fixed, first = parts.n_constants, parts.n_constants + parts.n_carried
        self._outer.update(zip(body.ins[:n_fixed], op.ins[:n_fixed], strict=True))
        steps: dict[Kind, Reach] = {}  # of what is sliced, along its first axis
        sliced: list[Reaches] = []
        for number, reaches in enumerate(given[first:]):
            of_step: dict[Kind, Reach] = {}
            for kind, reach in reaches.items():
                if reach.start.shape[0] > 1:
                    steps[("step", op, number, kind)] = reach
                    rank = len(op.ins[first + number].shape) - 1
                    of_step[("step", op, number, kind)] = Reach(np.zeros([1] * rank, int), np.ones([1] * rank, int))
                else:
                    of_step[kind] = reach.through(lambda array, _: array[0])
            sliced.append(of_step)
        carried = list(given[n_fixed:first])
        outs: list[Reaches] = []
        for _ in range(N_PASSES):
            outs = self._through(body, op.ins, [*given[:n_fixed], *carried, *sliced])
            grown = [
                rc.united([old, _earlier(new, op)], op)
                for old, new in zip(carried, outs[: parts.n_carried], strict=True)
            ]
            if all(_same(*pair) for pair in zip(grown, carried, strict=True)):
                break
            carried = grown
        reverse = op.params["reverse"]
        last = [self._placed(reaches, steps, op, reverse, stacked=False) for reaches in carried]
        stacked = [self._placed(reaches, steps, op, reverse, stacked=True) for reaches in outs[parts.n_carried :]]
        return [*last, *stacked]

    def _placed(
        self, reaches: Reaches, steps: Mapping[Kind, Reach], op: Op, reverse: bool, *, stacked: bool
    ) -> Reaches:
        """Put the tokens of its step, and of the steps before, for what the body of a loop says of them."""
        found: Reaches = NONE
        for kind, reach in reaches.items():
            rank = reach.start.ndim
            if kind[0] not in ("step", "before") or kind[1] is not op:
                one = reach.through(lambda array, _: array[None]) if stacked else reach
                found = rc.united([found, {kind: one}], op)
                continue
            of_steps = steps[("step", *kind[1:])]
            others = range(1, of_steps.start.ndim)
            of_steps = rc.over(of_steps, others, op)._replace(by=of_steps.by)  # as it is laid out inside is not known
            if kind[0] == "before":
                of_steps = rc.running(of_steps, 0, op, reverse=reverse)
                of_steps = of_steps if stacked else rc.over(of_steps, [0], op)
            elif not stacked:
                of_steps = rc.over(of_steps, [0], op)
            shape = [-1] + [1] * rank if stacked else [1] * rank
            own = Reach(of_steps.start.reshape(shape), of_steps.stop.reshape(shape), of_steps.by)
            if reach.width > 0:
                found = rc.united([found, {kind[3]: own}], op)
        return found

    def _constant(self, value: Value) -> np.ndarray | None:
        """Compute a value that depends on no argument."""
        if value not in self._computed:
            self._computed[value] = self._compute(value)
        return self._computed[value]

    def _compute(self, value: Value) -> np.ndarray | None:
        if value.constant is not None:
            is_known = not isinstance(value.constant, jax.core.Tracer) and math.prod(value.shape) <= LARGEST
            return np.asarray(value.constant) if is_known else None
        if value in self._outer:
            return self._constant(self._outer[value])
        op = self.producers.get(value)
        if (
            op is None
            or op.bodies
            or op.eqn.effects
            or math.prod(value.shape) > LARGEST
            or op.name.startswith("random")
        ):
            return None
        arrays = [self._constant(each) for each in op.ins]
        if any(array is None for array in arrays):
            return None
        with jax.ensure_compile_time_eval():
            return np.asarray(op.run(arrays)[op.outs.index(value)])

    def _is_fixed(self, value: Value) -> bool:
        if value.constant is not None or value in self._outer:
            return value.constant is not None or self._is_fixed(self._outer[value])
        op = self.producers.get(value)
        if op is None or op.bodies or op.name.startswith(("random", "threefry", "rng")):
            return False
        return all(map(self._is_fixed, op.ins))

    def _is_range(self, value: Value) -> bool:
        while (op := self.producers.get(value)) is not None:
            if op.name == "iota":
                return True
            if (
                op.name not in ("broadcast_in_dim", "reshape", "expand_dims", "convert_element_type")
                or len(op.ins) != 1
            ):
                return False
            (value,) = op.ins
        return value.constant is not None and len(value.shape) > 0


def _earlier(reaches: Reaches, op: Op) -> Reaches:
    """Say of what a step of a loop hands on, that it was of an earlier step."""
    return {
        ("before", *kind[1:]) if kind[0] == "step" and kind[1] is op else kind: reach for kind, reach in reaches.items()
    }


def _same(one: Reaches, other: Reaches) -> bool:
    return one.keys() == other.keys() and all(
        a.start is b.start or (np.array_equal(a.start, b.start) and np.array_equal(a.stop, b.stop))
        for a, b in ((one[kind], other[kind]) for kind in one)
    )
