"""The shortest trace that satisfies a formula, by bounded model finding with OR-Tools CP-SAT.

A literal for each proposition, position and value; `v` for "this subformula surely holds, or surely does not, at this position,
whatever is left open", which implies what makes it so. Formulas are monotone in these, negation being pushed to the
propositions, so implications in one direction are enough. The loop closes with one of `k` selectors; `until` and `release` go
round it once more, from the least and from the greatest fixed point.

Source: Biere, Cimatti, Clarke & Zhu 1999, Symbolic model checking without BDDs; Latvala, Biere, Heljanko & Junttila 2004, Simple
bounded LTL model checking, for the second round.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ortools.sat.python import cp_model

from jaxflow.zoo.logic._syntax import Formula
from jaxflow.zoo.logic._trace import Trace

Literal = cp_model.BoolVarT


def find_trace(formula: Formula, *, max_positions: int) -> Trace | None:
    """Find the least specific trace whose words all satisfy a formula.

    Candidates are the traces that satisfy the formula by Kleene's three-valued truth tables. They are compared by, in this
    order: fewest literals in the loop; fewest positions; fewest literals; shortest loop; the literals themselves, by position,
    in the order of their first mention in the formula, true before false. So a renamed formula has the renamed trace.

    Args:
        formula: the formula to satisfy.
        max_positions: the most positions of the trace.

    Returns:
        The trace, which is unique; None if there is none of that length.

    Example:
        >>> from jaxflow.zoo.logic._syntax import parse
        >>> str(find_trace(parse("& U a b G F c"), max_positions=3))
        'b ; { c }'
    """
    return _Search(formula, max_positions).solve()


def counterexample(formula: Formula, trace: Trace) -> Trace | None:
    """Find a lasso among the words of a trace that violates a formula.

    Args:
        formula: the formula to violate.
        trace: the trace; the lasso has as many positions and the same loop.

    Returns:
        A trace that leaves no proposition of the formula open; None if all lassos of that shape satisfy the formula.
    """
    search = _Search(Formula("!", (formula,)), len(trace.positions))
    model = search.model
    model.add(search.starts[0] == 1)
    model.add(search.loops[trace.loop] == 1)
    for i, cube in enumerate(trace.positions):
        for name in search.names:
            model.add_bool_or(search.literals[i, name, True], search.literals[i, name, False])
        for name, value in cube:
            if name in search.names:
                model.add(search.literals[i, name, value] == 1)
    return search.solve()


class _Search:
    """Clauses for one formula. A trace of fewer than `n` positions takes the last ones."""

    def __init__(self, formula: Formula, n: int) -> None:
        self.n = n
        self.model = cp_model.CpModel()
        new = self.model.new_bool_var
        self.true = self.model.new_constant(1)
        self.names = formula.propositions()
        self.literals = {(i, name, value): new("") for i in range(n) for name in self.names for value in (True, False)}
        self.starts = [new("") for _ in range(n)]
        self.loops = [new("") for _ in range(n)]
        self.model.add_exactly_one(self.starts)
        self.model.add_exactly_one(self.loops)
        self.known: dict[tuple[Formula, bool, int, bool], Literal] = {}
        for i, start in enumerate(self.starts):
            self.model.add_bool_or(self._holds(formula, True, i)).only_enforce_if(start)
            self.model.add_bool_and(~loop for loop in self.loops[:i]).only_enforce_if(start)
        for i in range(n):
            for name in self.names:
                self.model.add_at_most_one(self.literals[i, name, True], self.literals[i, name, False])

    def solve(self) -> Trace | None:
        new = self.model.new_bool_var
        for_ever = []
        for (i, _, _), literal in self.literals.items():
            bound = new("")
            self.model.add_bool_or(bound, ~literal, *self.loops[i + 1 :])
            for_ever.append(bound)
        # One number orders traces; a unit of each part is worth more than all the parts before it can add up to.
        literals = list(self.literals.values())
        parts = [
            [(1 << i, literal) for i, literal in enumerate(literals)],
            [(self.n - 1 - i, loop) for i, loop in enumerate(self.loops)],
            [(1, literal) for literal in literals],
            [(self.n - i, start) for i, start in enumerate(self.starts)],
            [(1, bound) for bound in for_ever],
        ]
        terms, unit = [], 1
        for part in parts:
            terms += [(unit * weight, literal) for weight, literal in part]
            unit *= 1 + sum(weight for weight, _ in part)
        self.model.minimize(sum(weight * literal for weight, literal in terms))
        solver = cp_model.CpSolver()
        solver.parameters.num_workers = 1
        solver.parameters.random_seed = 0
        # These models are so small that what prepares for large ones costs more than the search.
        solver.parameters.cp_model_presolve = False
        solver.parameters.linearization_level = 0
        status = solver.solve(self.model)
        if status == cp_model.INFEASIBLE:
            return None
        assert status == cp_model.OPTIMAL, solver.status_name(status)
        start, loop = (
            next(i for i, selector in enumerate(selectors) if solver.boolean_value(selector))
            for selectors in (self.starts, self.loops)
        )
        chosen = [key for key, literal in self.literals.items() if solver.boolean_value(literal)]
        cubes = [tuple((name, value) for at, name, value in chosen if at == i) for i in range(start, self.n)]
        return Trace(tuple(cubes), loop - start)

    def _holds(self, formula: Formula, truth: bool, i: int, second: bool = False) -> Literal:
        """Give the variable for `formula` being surely true, or surely false, at position `i`.

        On the second round a fixed point that goes past the end is as it began.
        """
        key = (formula, truth, i, second)
        if key not in self.known:
            self.known[key] = self._define(formula, truth, i, second)
        return self.known[key]

    def _define(self, formula: Formula, truth: bool, i: int, second: bool) -> Literal:
        symbol, parts = formula
        if symbol in "10":
            return self.true if (symbol == "1") == truth else ~self.true
        if not parts:
            return self.literals[i, symbol, truth]
        first, last = parts[0], parts[-1]
        if symbol == "!":
            return self._holds(first, not truth, i)
        if symbol == ">":
            now = [self._holds(first, not truth, i), self._holds(last, truth, i)]
            return self._any(now) if truth else self._all(*now)
        if symbol in "&|":
            now = [self._holds(part, truth, i) for part in parts]
            return self._all(*now) if (symbol == "&") == truth else self._any(now)
        if symbol == "X":
            return self._next(i, lambda j: self._holds(first, truth, j))
        until = (symbol in "UF") == truth
        done = self._holds(last, truth, i)
        waits = [self._holds(first, truth, i)] if symbol in "UR" else []
        if second and i == self.n - 1:
            return done  # beyond the second round lies nothing for until, and everything for release
        goes_on = self._next(i, lambda j: self._holds(formula, truth, j, second or i == self.n - 1))
        if until:
            return self._any([done, self._all(*waits, goes_on)])
        return self._all(done, self._any([*waits, goes_on]))

    def _next(self, i: int, there: Callable[[int], Literal]) -> Literal:
        """Give the variable of a condition at the position after `i`."""
        if i < self.n - 1:
            return there(i + 1)
        return self._any(self._all(loop, there(j)) for j, loop in enumerate(self.loops))

    def _any(self, literals: Iterable[Literal]) -> Literal:
        variable = self.model.new_bool_var("")
        self.model.add_bool_or(*literals).only_enforce_if(variable)
        return variable

    def _all(self, *literals: Literal) -> Literal:
        if len(literals) == 1:
            return literals[0]
        variable = self.model.new_bool_var("")
        self.model.add_bool_and(*literals).only_enforce_if(variable)
        return variable
