"""Follow an exponential through a program to where, divided by its own sum, it weighs values.

A softmax is written in many ways: divided before the product with the values or after it, or with the logarithm of the sum
subtracted from the logits; with the maximum subtracted or not; with masks before and after. What counts here is only what is
computed: each value that depends on the exponential is weights (linear in it), their sum, its inverse, its logarithm, or a
product with values. Any other use of it is not followed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Literal

from jaxflow.capture._tracing import axes as ax
from jaxflow.capture._tracing.program import Op, Scope, Value

Kind = Literal["weights", "sum", "inverse", "log", "logits", "product", "mixed", "lost"]
Keys = frozenset[ax.Origin]  # ("exp", axis)
UNCHANGED = {
    "convert_element_type", "reshape", "transpose", "broadcast_in_dim", "squeeze", "expand_dims", "copy", "copy_p",
    "slice", "dynamic_slice", "split", "unstack", "rev", "stop_gradient", "reduce_precision", "optimization_barrier", "name",
    "sharding_constraint", "layout_constraint", "reshard", "pvary",
}  # fmt: skip
ELSEWHERE = {"scan", "while", "cond", "shard_map"}  # where weights cannot be followed


@dataclasses.dataclass(frozen=True)
class Step:
    """An operation that weights go through.

    Attributes:
        op: the operation.
        place: which of its arguments they are.
        result: which of its results.
    """

    op: Op
    place: int
    result: int = 0


@dataclasses.dataclass(frozen=True)
class Fact:
    """What a value is to the exponential.

    Attributes:
        kind: weights, their sum, ...
        keys: the axes of the exponential that weights were divided over, a sum was taken over, or a product contracts.
        start: where the weights began: the exponential, or the last division by a sum.
        steps: the operations that they went through since.
        divided: weights or product: whether they are divided by a sum.
        product: the operation that multiplies with values.
        summed: weights: axes, such as heads, that they were summed over since; what is taken is what they were before.
    """

    kind: Kind
    keys: Keys = frozenset()
    start: Value | None = None
    steps: tuple[Step, ...] = ()
    divided: bool = False
    product: Step | None = None
    summed: Keys = frozenset()


@dataclasses.dataclass(frozen=True)
class Softmax:
    """An exponential divided by its own sum, and multiplied with values over the axes of that sum.

    Attributes:
        exp: the operation.
        keys: those of its axes that the sum goes over.
        start: the weights, or the exponential itself if the division comes after the product.
        steps: the operations that they go through up to the product.
        divisor: the sum, or its inverse, that the product is divided by; None if the weights were.
        inverse: whether it is the inverse.
        product: the product with the values.
        mixed: whether the weights were multiplied with a matrix in between, which may mix heads.
    """

    exp: Op
    keys: Keys
    start: Value
    steps: tuple[Step, ...]
    divisor: Value | None
    inverse: bool
    product: Step
    mixed: bool = False


@dataclasses.dataclass(frozen=True)
class Followed:
    """What becomes of one exponential.

    Attributes:
        softmaxes: for each product with values, in order.
        undivided: products over axes over which it was not divided by its sum.
        lost: loops and the like into which weights went, after division.
        crossed: products over other axes than those it was divided over.
    """

    softmaxes: tuple[Softmax, ...]
    undivided: tuple[tuple[Keys, Step], ...]
    lost: tuple[tuple[Keys, Op], ...]
    crossed: bool


def exponentials(scope: Scope) -> Iterator[Op]:
    """Yield the exponentials of a scope, without those of its loops."""
    return (op for op in scope.ops if op.name in ("exp", "exp2") and op.outs[0].shape)


def follow_exponential(scope: Scope, exp: Op, producers: Mapping[Value, Op]) -> Followed:
    """Follow what becomes of an exponential."""
    (start,) = exp.outs
    axes = {start: ax.named(start, "exp")}
    facts = {start: Fact("weights", start=start)}
    found: list[Softmax] = []
    products: dict[Op, tuple[Fact, Step]] = {}
    lost: list[tuple[Keys, Op]] = []
    for op in scope.ops[exp.index + 1 :]:
        places = [i for i, value in enumerate(op.ins) if value in facts]
        if not places:
            continue
        known = [facts[op.ins[i]] for i in places]
        if op.name in ELSEWHERE:
            lost += [(fact.keys, op) for fact in known if fact.kind in ("weights", "mixed") and fact.divided]
            continue
        for value, made in zip(op.outs, ax.follow(op, axes), strict=True):
            axes[value] = made
        fact = _judge(op, places, known, axes, exp, producers)
        if fact is None:
            for value in op.outs:
                axes.pop(value, None)
            continue
        if fact.kind == "logits" and known[0].kind == "log":  # these are the exponential's own, shifted
            axes[op.outs[0]] = ax.named(start, "exp")
        if op.name == "dot_general" and fact.kind == "product":
            assert fact.product is not None
            products[op] = (fact, fact.product)
        if fact.kind == "product" and fact.divided:
            assert fact.product is not None
            assert fact.start is not None
            first, step = products[fact.product.op]
            if not any(softmax.product.op is step.op for softmax in found):
                divisor = (
                    None
                    if first.divided
                    else next(op.ins[i] for i, f in zip(places, known, strict=True) if f.kind in ("sum", "inverse"))
                )
                inverse = divisor is not None and facts[divisor].kind == "inverse"
                mixed = facts[step.op.ins[step.place]].kind == "mixed"
                found.append(Softmax(exp, fact.keys, fact.start, fact.steps, divisor, inverse, step, mixed))
        for i, value in enumerate(op.outs):
            facts[value] = (
                dataclasses.replace(fact, steps=(*fact.steps[:-1], dataclasses.replace(fact.steps[-1], result=i)))
                if (fact.steps and len(op.outs) > 1 and fact.steps[-1].op is op)
                else fact
            )
    divided = {softmax.product.op for softmax in found}
    undivided = tuple((fact.keys, step) for op, (fact, step) in products.items() if op not in divided)
    crossed = any(fact.kind == "mixed" for fact in facts.values())
    return Followed(tuple(found), undivided, tuple(lost), crossed)


def _judge(
    op: Op, places: list[int], known: list[Fact], axes: Mapping[Value, ax.Axes], exp: Op, producers: Mapping[Value, Op]
) -> Fact | None:
    """Say what `op` makes of values known as `known`, its arguments at `places`; None if nothing of interest."""
    kinds = [fact.kind for fact in known]
    fact, place = known[0], places[0]
    through = fact if fact.summed else dataclasses.replace(fact, steps=(*fact.steps, Step(op, place)))
    if len(known) == 1:
        linear = fact.kind in ("weights", "mixed")
        if op.name in UNCHANGED and place == 0:
            return through if linear else fact
        if op.name == "reduce_sum" and linear:
            before, after = ax.origins(*axes[op.ins[0]]), ax.origins(*axes[op.outs[0]])
            if fact.divided and not (before - after) & fact.keys:
                return dataclasses.replace(fact, summed=before - after)
            return Fact("sum", before - after)
        if op.name == "dot_general":
            return _dot(op, place, fact, axes)
        if op.name == "select_n" and place > 0:
            return through if linear else fact
        if op.name == "mul" or (op.name == "div" and place == 0):
            if linear:
                return through
            return fact if fact.kind in ("product", "inverse") else Fact("lost")
        if op.name in ("div", "integer_pow", "pow") and fact.kind == "sum":
            is_inverse = op.name == "div" or op.params.get("y") == -1 or _is_minus_one(op)
            return Fact("inverse", fact.keys) if is_inverse else Fact("lost")
        if op.name == "abs" and fact.kind == "sum":
            return fact
        if op.name in ("add", "add_any", "max") and fact.kind in ("sum", "log"):
            return fact
        if op.name in ("add", "add_any", "max") and linear and not op.ins[1 - place].shape:
            return through
        if op.name == "log" and fact.kind == "sum":
            return Fact("log", fact.keys)
        if op.name == "sub":
            if fact.kind == "log" and place == 1 and _same_logits(op.ins[0], exp.ins[0], producers):
                return Fact("logits", fact.keys)
            return fact if fact.kind == "logits" and place == 0 else Fact("lost")
        if op.name == exp.name and fact.kind == "logits":
            return Fact("weights", fact.keys, op.outs[0], divided=True)
        return None if fact.kind == "product" else Fact("lost")
    if op.name in ("div", "mul") and len(known) == 2:
        divisor = "sum" if op.name == "div" else "inverse"
        if kinds[1] != divisor and op.name == "mul":
            known, kinds, places = known[::-1], kinds[::-1], places[::-1]
        fact = known[0]
        if op.name == "div" and kinds == ["weights", "weights"] and known[1].summed and not fact.summed:
            return Fact("weights", known[1].summed, op.outs[0], divided=True)
        if kinds[1] == divisor and kinds[0] in ("weights", "mixed"):
            kind: Kind = kinds[0]
            return Fact(kind, known[1].keys, op.outs[0], divided=True)
        if kinds[1] == divisor and kinds[0] == "product" and fact.keys == known[1].keys:
            return dataclasses.replace(fact, divided=True)
    if op.name == "select_n":
        # The predicate may depend on the weights too: where(sum == 0, 1, sum), or small weights cut off.
        cases = [(i, fact) for i, fact in zip(places, known, strict=True) if i > 0]
        if len(cases) == 1 and cases[0][1].kind != "lost":
            i, fact = cases[0]
            if fact.kind in ("weights", "mixed") and not fact.summed:
                return dataclasses.replace(fact, steps=(*fact.steps, Step(op, i)))
            return fact
    return None if set(kinds) <= {"product"} else Fact("lost")


def _dot(op: Op, place: int, fact: Fact, axes: Mapping[Value, ax.Axes]) -> Fact | None:
    contracted = op.params["dimension_numbers"][0][place]
    over = ax.origins(*(axes[op.ins[place]][i] for i in contracted))
    if fact.kind not in ("weights", "mixed"):
        return None if fact.kind == "product" else Fact("lost")
    if not contracted:  # a factor for each head, as einsum multiplies it
        return fact if fact.summed else dataclasses.replace(fact, steps=(*fact.steps, Step(op, place)))
    if fact.divided and not over & fact.keys:
        return dataclasses.replace(fact, kind="mixed", steps=(*fact.steps, Step(op, place)))
    product = Step(op, place)
    if fact.divided and over >= fact.keys:  # heads may be summed over in the same product
        return dataclasses.replace(fact, kind="product", product=product)
    return dataclasses.replace(fact, kind="product", keys=frozenset(over), divided=False, product=product)


def _is_minus_one(op: Op) -> bool:
    exponent = op.ins[1].constant if len(op.ins) > 1 else None
    return exponent is not None and not getattr(exponent, "shape", ()) and float(exponent) == -1


def _same_logits(one: Value, other: Value, producers: Mapping[Value, Op]) -> bool:
    """Whether two arrays differ at most by what is the same for all keys: a maximum, broadcast."""
    return bool(set(_unshifted(one, producers)) & set(_unshifted(other, producers)))


def _unshifted(value: Value, producers: Mapping[Value, Op]) -> Iterator[Value]:
    yield value
    op = producers.get(value)
    while op is not None and op.name in ("sub", "convert_element_type", "stop_gradient", "copy"):
        if op.name == "sub" and op.ins[1].shape == op.outs[0].shape:
            shift = producers.get(op.ins[1])
            if shift is None or shift.name != "broadcast_in_dim":
                return
        yield op.ins[0]
        op = producers.get(op.ins[0])


def random_values(scope: Scope) -> frozenset[Value]:
    """Find what random bits were made into, elementwise: the masks of dropout."""
    random: set[Value] = set()
    for op in scope.ops:
        drawn = op.name.startswith(("random_", "threefry", "rng_"))
        if drawn or (op.name not in ("dot_general", *ELSEWHERE) and any(value in random for value in op.ins)):
            random.update(op.outs)
    return frozenset(random)


def is_dropout(step: Step, random: frozenset[Value]) -> bool:
    """Whether this step multiplies with random values, or selects by them."""
    if step.op.name == "select_n":
        return step.op.ins[0] in random
    return step.op.name == "mul" and step.op.ins[1 - step.place] in random


def is_scaling(step: Step) -> bool:
    """Whether this step multiplies with, or divides by, one number, as dropout does."""
    if step.op.name not in ("mul", "div"):
        return False
    return max(step.op.ins[1 - step.place].shape, default=1) == 1
