"""Decide exactly whether the words of a symbolic trace satisfy a formula of linear temporal logic.

A word satisfies `X f` where f holds at its next position; `f U g` where g holds now or later and f until then; `f R g` where g
holds up to and with the first position at which f does, or forever; `F f` = `1 U f`, `G f` = `0 R f`.

The tableau of a formula: its nodes are sets of promises, one bit for each temporal subformula. An edge is a letter and the
promises about the next position; they determine the subformulas that hold here, and so the node where the edge starts. A
word satisfies the formula if it labels an infinite path that keeps every promise: no "eventually" is postponed for ever.

Source: Lichtenstein & Pnueli 1985, Checking that finite state concurrent programs satisfy their linear specification; fair
paths by the fixed point of Emerson & Lei 1986.
"""

from __future__ import annotations

from itertools import product

import numpy as np
from jaxtyping import Bool, Int

from jaxflow.zoo.logic._syntax import TEMPORAL, Formula
from jaxflow.zoo.logic._trace import Cube, Trace

MAX_TEMPORAL = 14
ANY_WORD = Trace(((),), 0)


def satisfies(trace: Trace, formula: Formula) -> bool:
    """Decide whether every word of a trace satisfies a formula.

    A proposition that a position leaves open may be either, independently in each round of the loop; so some of these words
    are no lassos.

    Raises:
        ValueError: more than `MAX_TEMPORAL` different temporal subformulas.

    Cost: the tableau has `2 ** temporal` nodes per position and `2 ** propositions` edges from each.
    """
    return not some_word(trace, Formula("!", (formula,)))


def satisfiable(formula: Formula) -> bool:
    """Decide whether any word satisfies a formula; raises as `satisfies`."""
    return some_word(ANY_WORD, formula)


def some_word(trace: Trace, formula: Formula) -> bool:
    """Decide whether some word of a trace satisfies a formula; raises as `satisfies`."""
    names = formula.propositions()
    letters = np.array(list(product((False, True), repeat=len(names))), bool).reshape(2 ** len(names), len(names))
    subformulas = formula.subformulas()
    temporal = [one for one in subformulas if one.symbol in TEMPORAL]
    if len(temporal) > MAX_TEMPORAL:
        raise ValueError(
            f"the formula has {len(temporal)} different temporal subformulas; this is decided for {MAX_TEMPORAL} at most"
        )
    holds = _values(subformulas, temporal, dict(zip(names, letters.T, strict=True)))
    origin = np.zeros((len(letters), 2 ** len(temporal)), np.int64)
    for bit, one in enumerate(temporal):
        origin |= holds[one.parts[0] if one.symbol == "X" else one].astype(np.int64) << bit
    kept = [_kept(one, holds) for one in temporal if one.symbol != "X"]
    allowed = [_allowed(cube, names, letters)[:, None] for cube in trace.positions]
    endless = _endless(origin, kept, allowed[trace.loop :])
    for here in allowed[1 : trace.loop][::-1]:
        endless = [_before(origin, here & endless[0]), *endless]
    # Behind the first position comes the second, or what the loop goes back to.
    behind = endless[0] if trace.loop else endless[1 % len(endless)]
    return bool((allowed[0] & holds[formula] & behind).any())


def _values(
    subformulas: list[Formula], temporal: list[Formula], letter: dict[str, Bool[np.ndarray, " letter"]]
) -> dict[Formula, Bool[np.ndarray, "letter promise"]]:
    """Give where each subformula holds, by the letter of the position and the promises about the next one."""
    promises = np.arange(2 ** len(temporal))
    n_letters = len(next(iter(letter.values()))) if letter else 1
    holds: dict[Formula, Bool[np.ndarray, "letter promise"]] = {}
    for one in subformulas:
        parts = [holds[part] for part in one.parts]
        later = (promises >> temporal.index(one)) & 1 == 1 if one in temporal else np.array(False)
        match one.symbol:
            case "1" | "0":
                value = np.array(one.symbol == "1")
            case "!":
                value = ~parts[0]
            case "&":
                value = parts[0] & parts[1]
            case "|":
                value = parts[0] | parts[1]
            case ">":
                value = ~parts[0] | parts[1]
            case "X":
                value = later
            case "U":
                value = parts[1] | (parts[0] & later)
            case "R":
                value = parts[1] & (parts[0] | later)
            case "F":
                value = parts[0] | later
            case "G":
                value = parts[0] & later
            case _:
                value = letter[one.symbol][:, None]
        holds[one] = np.broadcast_to(value, (n_letters, len(promises)))
    return holds


def _kept(one: Formula, holds: dict[Formula, Bool[np.ndarray, "letter promise"]]) -> Bool[np.ndarray, "letter promise"]:
    """Give the edges on which a subformula has no promise open; a fair path has such edges infinitely often."""
    if one.symbol in "UF":
        return ~holds[one] | holds[one.parts[-1]]
    return holds[one] | ~holds[one.parts[-1]]


def _allowed(cube: Cube, names: list[str], letters: Bool[np.ndarray, "letter name"]) -> Bool[np.ndarray, " letter"]:
    agree = [letters[:, names.index(name)] == value for name, value in cube if name in names]
    return np.logical_and.reduce(agree) if agree else np.ones(len(letters), bool)


def _before(
    origin: Int[np.ndarray, "letter promise"], edges: Bool[np.ndarray, "letter promise"]
) -> Bool[np.ndarray, " promise"]:
    """Mark the nodes where edges start."""
    nodes = np.zeros(origin.shape[1], bool)
    nodes[origin[edges]] = True
    return nodes


def _endless(
    origin: Int[np.ndarray, "letter promise"],
    kept: list[Bool[np.ndarray, "letter promise"]],
    allowed: list[Bool[np.ndarray, "letter 1"]],
) -> list[Bool[np.ndarray, " promise"]]:
    """Mark, at each position of the loop, the nodes with an infinite path that keeps every promise."""
    n_positions = len(allowed)

    def step(
        nodes: Bool[np.ndarray, "position promise"], edges: Bool[np.ndarray, "letter promise"] | bool
    ) -> np.ndarray:
        behind = np.roll(nodes, -1, axis=0)
        return np.stack([_before(origin, allowed[i] & edges & behind[i]) for i in range(n_positions)])

    alive = np.ones((n_positions, origin.shape[1]), bool)
    while True:
        left = alive & step(alive, True)
        for edges in kept:
            reach = left & step(left, edges)
            while True:
                more = reach | (left & step(reach, True))
                if (more == reach).all():
                    break
                reach = more
            left = reach
        if (left == alive).all():
            return list(alive)
        alive = left
