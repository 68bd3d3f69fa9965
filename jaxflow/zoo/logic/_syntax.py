"""Formulas in prefix notation: "U a & b X c" says a until (b and, next, c)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

CONSTANTS = ("1", "0")
ARITY: Mapping[str, int] = {
    "!": 1, "&": 2, "|": 2, ">": 2, "X": 1, "U": 2, "R": 2, "F": 1, "G": 1,
}  # fmt: skip
NAMES: Mapping[str, str] = {
    "!": "not", "&": "and", "|": "or", ">": "implies", "X": "next",
    "U": "until", "R": "release", "F": "eventually", "G": "always", "1": "true", "0": "false",
}  # fmt: skip
TEMPORAL = "XURFG"


class Formula(NamedTuple):
    """A formula: its outermost operator, constant or proposition, and the operands."""

    symbol: str
    parts: tuple[Formula, ...] = ()

    def __str__(self) -> str:
        """Write it in prefix notation, a blank between any two symbols."""
        return " ".join(self.symbols())

    def symbols(self) -> list[str]:
        """List its symbols in prefix order."""
        return [self.symbol, *(symbol for part in self.parts for symbol in part.symbols())]

    def subformulas(self) -> list[Formula]:
        """List the different subformulas, operands before operators, the formula itself last."""
        found: dict[Formula, None] = {}
        for part in self.parts:
            found.update(dict.fromkeys(part.subformulas()))
        return [*found, *([] if self in found else [self])]

    def depth(self) -> int:
        """Count the operators above its deepest symbol."""
        return max((1 + part.depth() for part in self.parts), default=0)

    def propositions(self) -> list[str]:
        """List its propositions in the order of their first mention."""
        return list(
            dict.fromkeys(symbol for symbol in self.symbols() if symbol not in ARITY and symbol not in CONSTANTS)
        )

    def renamed(self, names: Mapping[str, str]) -> Formula:
        """Rename its propositions."""
        return Formula(names.get(self.symbol, self.symbol), tuple(part.renamed(names) for part in self.parts))


def parse(text: str, *, operators: Collection[str] = tuple(ARITY), propositions: Collection[str] = "abcde") -> Formula:
    """Parse a formula in prefix notation. Each symbol is one character; blanks are ignored.

    Args:
        text: the formula.
        operators: the known operators; each takes `ARITY` formulas after it.
        propositions: the known names.

    Returns:
        The formula.

    Raises:
        ValueError: for a text that does not parse, with the position and the reason.

    Example:
        >>> parse("U a & b X c").parts[1].symbols()
        ['&', 'b', 'X', 'c']
        >>> parse("U a")
        Traceback (most recent call last):
        ValueError: The formula 'U a' ends too early, after character 3: U (until), at character 1, takes 2 formulas and has 1.
    """
    return parse_with_offsets(text, operators=operators, propositions=propositions)[0]


def parse_with_offsets(
    text: str, *, operators: Collection[str], propositions: Collection[str]
) -> tuple[Formula, list[int]]:
    """Parse as `parse` does, and also return the index of each symbol in the text."""
    symbols = [(i, symbol) for i, symbol in enumerate(text) if not symbol.isspace()]
    if not symbols:
        raise ValueError(f"The formula is empty: {text!r}; expected one in prefix notation, such as '& a ! b'.")
    open_: list[tuple[int, str, list[Formula]]] = []
    for number, (i, symbol) in enumerate(symbols):
        if symbol not in operators and symbol not in propositions and symbol not in CONSTANTS:
            raise ValueError(
                f"The formula {text!r} has {symbol!r} at character {i + 1}, which this model does not know. Operators are "
                f"{_listed(operators)}; constants 1 and 0; propositions {', '.join(propositions)}. Operators stand before what "
                "they are applied to."
            )
        if symbol in operators:
            open_.append((i, symbol, []))
            continue
        done = Formula(symbol)
        while open_:
            _, operator, parts = open_[-1]
            parts.append(done)
            if len(parts) < ARITY[operator]:
                break
            open_.pop()
            done = Formula(operator, tuple(parts))
        if open_:
            continue
        if number + 1 < len(symbols):
            extra = symbols[number + 1][0]
            raise ValueError(
                f"The formula {text!r} is complete after character {i + 1}, but goes on with {text[extra]!r} at character "
                f"{extra + 1}. Operators stand before what they are applied to: & {text[0]} … for … and …."
            )
        return done, [i for i, _ in symbols]
    i, operator, parts = open_[-1]
    raise ValueError(
        f"The formula {text!r} ends too early, after character {symbols[-1][0] + 1}: {operator} ({NAMES[operator]}), at "
        f"character {i + 1}, takes {ARITY[operator]} formula{'s' * (ARITY[operator] > 1)} and has {len(parts)}."
    )


def _listed(operators: Collection[str]) -> str:
    return ", ".join(f"{operator} ({NAMES[operator]})" for operator in operators)
