"""Symbolic traces: "a !b ; { c ; 1 }" stands for all words whose letters agree with it, position by position."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

SEPARATOR, OPEN, CLOSE, ANY = ";", "{", "}", "1"
Cube = tuple[tuple[str, bool], ...]


class Trace(NamedTuple):
    """A lasso: positions one after the other, from the last of which it goes on at `loop`, without end.

    Attributes:
        positions: what holds at each: propositions that are true, and that are false. Any other may be either, each time
            anew that the loop comes by.
        loop: the position that follows the last one.
    """

    positions: tuple[Cube, ...]
    loop: int

    def __str__(self) -> str:
        """Write it as the model does."""
        return " ".join(self.symbols())

    def symbols(self) -> list[str]:
        """List what the model writes."""
        written: list[str] = []
        for i, cube in enumerate(self.positions):
            written += [SEPARATOR] * (i > 0) + [OPEN] * (i == self.loop)
            written += [name if value else f"!{name}" for name, value in cube] or [ANY]
        return [*written, CLOSE]

    def renamed(self, names: dict[str, str]) -> Trace:
        """Put other propositions in place of its own."""
        cubes = (tuple((names.get(name, name), value) for name, value in cube) for cube in self.positions)
        return Trace(tuple(cubes), self.loop)


def read_trace(symbols: Sequence[str], *, propositions: Collection[str] = "abcde") -> Trace:
    """Read what a model wrote.

    Args:
        symbols: as `Trace.symbols` lists them.
        propositions: those that are known.

    Returns:
        The trace.

    Raises:
        ValueError: it is none: where, and why.

    Example:
        >>> str(read_trace("a !b ; { c ; 1 }".split()))
        'a !b ; { c ; 1 }'
    """
    positions: list[Cube] = []
    loop = None
    rest = list(symbols)
    if not rest or rest.pop() != CLOSE:
        raise ValueError(f"it does not end with {CLOSE}")
    for number, part in enumerate(_split(rest), start=1):
        if part[:1] == [OPEN]:
            if loop is not None:
                raise ValueError(f"at position {number}, a second loop begins")
            loop, part = number - 1, part[1:]
        cube: dict[str, bool] = {}
        for symbol in [] if part == [ANY] else part:
            name = symbol.removeprefix("!")
            if name not in propositions:
                raise ValueError(f"at position {number}, {symbol} stands where a proposition belongs")
            if name in cube:
                raise ValueError(f"position {number} has {name} twice")
            cube[name] = symbol == name
        if not part:
            raise ValueError(f"position {number} is empty")
        positions.append(tuple(cube.items()))
    if loop is None:
        raise ValueError("it has no loop")
    return Trace(tuple(positions), loop)


def _split(symbols: list[str]) -> list[list[str]]:
    parts: list[list[str]] = [[]]
    for symbol in symbols:
        if symbol == SEPARATOR:
            parts.append([])
        else:
            parts[-1].append(symbol)
    return parts
