"""Symbolic traces: "a !b ; { c ; 1 }" stands for all words whose letters agree with it, position by position."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

SEPARATOR, OPEN, CLOSE, ANY = ";", "{", "}", "1"
Cube = tuple[tuple[str, bool], ...]


class Trace(NamedTuple):
    """A lasso: a finite sequence of positions, of which those from `loop` on repeat for ever.

    Attributes:
        positions: the true and the false propositions of each. Any other proposition may be either, independently in each
            round of the loop.
        loop: index of the position that follows the last one.
    """

    positions: tuple[Cube, ...]
    loop: int

    def __str__(self) -> str:
        """Write it as the model does, with blanks between symbols."""
        return " ".join(self.symbols())

    def symbols(self) -> list[str]:
        """List its symbols, the model's tokens."""
        written: list[str] = []
        for i, cube in enumerate(self.positions):
            written += [SEPARATOR] * (i > 0) + [OPEN] * (i == self.loop)
            written += [name if value else f"!{name}" for name, value in cube] or [ANY]
        return [*written, CLOSE]

    def renamed(self, names: dict[str, str]) -> Trace:
        """Rename its propositions."""
        cubes = (tuple((names.get(name, name), value) for name, value in cube) for cube in self.positions)
        return Trace(tuple(cubes), self.loop)


def read_trace(symbols: Sequence[str], *, propositions: Collection[str] = "abcde") -> Trace:
    """Parse a trace.

    Args:
        symbols: as of `Trace.symbols`.
        propositions: the known names.

    Returns:
        The trace.

    Raises:
        ValueError: for symbols that are no trace, with the position and the reason.

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
