"""Find where a program stops telling tokens apart: what it picks from them, or sums over them, after the last attention."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp

from jaxflow.capture._tracing import axes as ax
from jaxflow.capture._tracing.freezing import STREAM
from jaxflow.capture._tracing.origins import Tags, axes_of
from jaxflow.capture._tracing.program import Op, Scope, Value

TOKEN: ax.Origin = ("top", "token")
BATCH: ax.Origin = ("top", "batch")


class Queries(NamedTuple):
    """Which axes of a value are the queries and the examples of some attention: its weights, or what it gives."""

    value: Value
    query: Sequence[int]
    batch: Sequence[int]


@dataclasses.dataclass(frozen=True)
class Crossings:
    """Where all that the last attention gave passes from tokens to what is no token's.

    Attributes:
        read: operations that read tokens and make none, with the places of these arguments and names for them.
        returned: numbers of the program's results that hold tokens.
        values: what these are, by name or number.
        axes: the axes of `values`.
        n_tokens: how many tokens there are.
    """

    read: Mapping[Op, Sequence[tuple[int, str]]]
    returned: Sequence[int]
    values: Mapping[str | int, Value]
    axes: Mapping[str | int, ax.Axes]
    n_tokens: int

    def share(self, key: str | int, array: Any, gradient: Any, batch: tuple[int, ...]) -> Any | None:
        """Return what each token gives there, `[*batch, token]`: value times gradient; None if axes were lost."""
        axes = self.axes[key]
        factors = [factor for axis in axes for factor in axis]
        given = (array.astype(jnp.float32) * gradient.astype(jnp.float32)).reshape(
            [factor.length for factor in factors]
        )
        kinds = [
            "token" if TOKEN in f.origins and f.length == self.n_tokens else "batch" if BATCH in f.origins else "other"
            for f in factors
        ]
        given = given.sum([i for i, kind in enumerate(kinds) if kind == "other"])
        kinds = [kind for kind in kinds if kind != "other"]
        if kinds.count("token") != 1 or given.size != math.prod(batch) * self.n_tokens:
            return None
        return jnp.moveaxis(given, kinds.index("token"), -1).reshape(*batch, self.n_tokens)


def ending_in_output(roles: Collection[str]) -> tuple[str, ...]:
    """Name the kinds of attention whose queries are tokens of the stack that makes the output: the decoder, if there is one."""
    return ("decoder", "cross") if {"decoder", "cross"} & set(roles) else ("encoder",)


def find_crossings(program: Scope, kinds: Mapping[Value, Any], queries: Sequence[Queries]) -> Crossings:
    """Find all crossings.

    Args:
        program: the whole program.
        kinds: of its values, as `Frozen` tells them.
        queries: of all attention of the stack that makes the output.
    """
    tags: Tags = {each.value: [(TOKEN, each.query), (BATCH, each.batch)] for each in queries}
    axes = axes_of(program, tags)
    n_tokens = math.prod(queries[0].value.shape[i] for i in queries[0].query)

    def holds_tokens(value: Value) -> bool:
        factors = [factor for axis in axes.get(value, ()) for factor in axis]
        return kinds.get(value) == STREAM and any(TOKEN in f.origins and f.length == n_tokens for f in factors)

    read: dict[Op, list[tuple[int, str]]] = {}
    values: dict[str | int, Value] = {}
    for op in program.ops:
        if any(map(holds_tokens, op.outs)) or not any(value in kinds for value in op.outs):
            continue
        for place, value in enumerate(op.ins):
            if holds_tokens(value):
                name = f"top {op.index} {place}"
                read.setdefault(op, []).append((place, name))
                values[name] = value
    returned = [i for i, value in enumerate(program.outs) if holds_tokens(value)]
    values.update((i, program.outs[i]) for i in returned)
    return Crossings(read, returned, values, {key: axes[value] for key, value in values.items()}, n_tokens)
