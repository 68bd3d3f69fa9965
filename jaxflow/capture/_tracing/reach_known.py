"""What is known of a program's values while it is followed which tokens they depend on."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from jaxflow.capture._tracing.program import Op, Value
from jaxflow.capture._tracing.reach import NONE, Kind, Reach, Reaches


@dataclasses.dataclass
class Known:
    """What is known of the values of a program.

    Attributes:
        reaches: which tokens they depend on.
        routing: values that were compared or ranked token by token: they say where tokens go.
        pairing: values that were compared or ranked of what depends on several tokens.
        constant: computes a value that depends on no argument; None of others.
        is_fixed: whether a value depends on no argument and no random bits, also where its numbers are not known yet.
        is_range: whether a value is 0, 1, ... along some axis.
        looked_up: arguments that pick rows of a table as they are.
        mixed_words: the operations that mixed whole numbers which pick rows of a table, by argument.
    """

    reaches: dict[Value, Reaches] = dataclasses.field(default_factory=dict)
    routing: set[Value] = dataclasses.field(default_factory=set)
    pairing: set[Value] = dataclasses.field(default_factory=set)
    constant: Callable[[Value], np.ndarray | None] = lambda _: None
    is_range: Callable[[Value], bool] = lambda _: False
    is_fixed: Callable[[Value], bool] = lambda _: False
    looked_up: set[Kind] = dataclasses.field(default_factory=set)
    mixed_words: dict[Kind, set[Op]] = dataclasses.field(default_factory=dict)

    def of(self, op: Op) -> list[Reaches]:
        """Return the reaches of what an operation reads."""
        return [self.reaches.get(value, NONE) for value in op.ins]


def is_words(kind: Kind) -> bool:
    """Whether tokens are whole numbers that came as an argument."""
    return kind[0] == "words"


def is_written_out(kind: Kind) -> bool:
    """Whether tokens are words written as rows of zeros and a one."""
    return kind[0] == "one of all words"


def of_first(op: Op, ins: Sequence[Reaches], change: Callable[[Op, Reach], Reach]) -> Reaches:
    """Change the reach of the first argument."""
    return {kind: change(op, reach) for kind, reach in ins[0].items()}
