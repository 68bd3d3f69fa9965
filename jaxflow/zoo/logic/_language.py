"""A language of formulas and answers with its checker: all that `ltl` and `propositional` differ in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jaxflow.zoo.logic._search import counterexample, find_trace
from jaxflow.zoo.logic._semantics import satisfiable, satisfies
from jaxflow.zoo.logic._syntax import CONSTANTS, TEMPORAL, Formula
from jaxflow.zoo.logic._trace import CLOSE, OPEN, SEPARATOR, Trace, read_trace

PAD, START, END = "[PAD]", "[START]", "[END]"


@dataclass(frozen=True)
class Language:
    """A language of formulas and their answers.

    The answer to a propositional formula is a trace of one position, written without the loop.

    Attributes:
        name: Of the model.
        operators: With their odds in the training data.
        propositions: Their names, one letter each.
        sizes: Numbers of symbols of the formulas in the training data.
        longer: Numbers of symbols of longer formulas, for evaluation only.
        max_positions: Length of the longest trace that `solve` looks for.
    """

    name: str
    operators: Mapping[str, float]
    propositions: str
    sizes: Sequence[int]
    longer: Sequence[int]
    max_positions: int

    @property
    def is_temporal(self) -> bool:
        """Whether answers are traces, and not assignments."""
        return any(symbol in TEMPORAL for symbol in self.operators)

    @property
    def answer_name(self) -> str:
        """The word for an answer: "trace" or "assignment"."""
        return "trace" if self.is_temporal else "assignment"

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """The tokens of formulas and answers, padding first."""
        negated = (f"!{name}" for name in self.propositions)
        punctuation = (SEPARATOR, OPEN, CLOSE) if self.is_temporal else ()
        return (PAD, START, END, *self.operators, *CONSTANTS, *self.propositions, *negated, *punctuation)

    def solve(self, formula: Formula) -> Trace | None:
        """Find the least specific answer, as in the training data; None if there is none of at most `max_positions`."""
        return find_trace(formula, max_positions=self.max_positions)

    def write(self, trace: Trace) -> list[str]:
        """Write an answer as symbols."""
        return trace.symbols() if self.is_temporal else trace.symbols()[1:-1]

    def read(self, symbols: Sequence[str]) -> Trace:
        """Read an answer.

        Raises:
            ValueError: for symbols that are no answer, with the position and the reason.
        """
        if self.is_temporal:
            return read_trace(symbols, propositions=self.propositions)
        if misplaced := {SEPARATOR, OPEN, CLOSE} & set(symbols):
            raise ValueError(f"{min(misplaced)} does not belong into an assignment")
        return read_trace([OPEN, *symbols, CLOSE], propositions=self.propositions)

    def is_satisfiable(self, formula: Formula) -> bool:
        """Decide whether anything satisfies a formula; raises as `satisfies`."""
        return satisfiable(formula) if self.is_temporal else self.solve(formula) is not None

    def is_right(self, formula: Formula, trace: Trace) -> bool:
        """Decide whether an answer satisfies a formula for all values of its open propositions; raises as `satisfies`."""
        return satisfies(trace, formula) if self.is_temporal else counterexample(formula, trace) is None

    def verdict(self, formula: Formula, symbols: Sequence[str]) -> tuple[str, ...]:
        """Say in sentences whether an answer is right, and warn about formulas unlike the training data."""
        size = len(formula.symbols())
        trained = f"{self.sizes[0]} to {self.sizes[-1]}"
        longer = f"Longer than trained on: the formula has {size} symbols, and the model has seen {trained}."
        warnings = (longer,) if size > self.sizes[-1] else ()
        try:
            return (self._judgement(formula, symbols), *warnings)
        except ValueError as error:  # beyond what can be decided
            return (f"Not checked: {error}.", *warnings)

    def _judgement(self, formula: Formula, symbols: Sequence[str]) -> str:
        if not self.is_satisfiable(formula):
            return f"Checked: nothing satisfies this formula, so no {self.answer_name} is right."
        try:
            trace = self.read(symbols)
        except ValueError as error:
            reason = f"what was written is no {self.answer_name}: {error}"
        else:
            if self.is_right(formula, trace):
                return f"Checked: the {self.answer_name} satisfies the formula."
            reason = f"the {self.answer_name} does not satisfy the formula"
            word = counterexample(formula, trace)
            reason += f": not with {' '.join(self.write(word))}" if word is not None else ""
        found = self.solve(formula)
        other = f" One that does: {' '.join(self.write(found))}." if found is not None else ""
        return f"Checked: {reason}.{other}"
