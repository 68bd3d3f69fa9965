"""What the reasoning models share: formulas, traces, the checker, the network and its tokenizer.

`ltl` and `propositional` have one architecture and differ in their `Language`. A propositional formula is a formula of
linear temporal logic without temporal operators; a partial assignment is a trace of one position.
"""

from jaxflow.zoo.logic._language import END, START, Language
from jaxflow.zoo.logic._loading import STORED, tokenizer_of
from jaxflow.zoo.logic._model import FormulaTransformer
from jaxflow.zoo.logic._search import counterexample, find_trace
from jaxflow.zoo.logic._semantics import satisfiable, satisfies
from jaxflow.zoo.logic._syntax import ARITY, CONSTANTS, NAMES, TEMPORAL, Formula, parse
from jaxflow.zoo.logic._tokenizer import FormulaTokenizer
from jaxflow.zoo.logic._trace import Trace, read_trace

__all__ = [
    "ARITY",
    "CONSTANTS",
    "END",
    "NAMES",
    "START",
    "STORED",
    "TEMPORAL",
    "Formula",
    "FormulaTokenizer",
    "FormulaTransformer",
    "Language",
    "Trace",
    "counterexample",
    "find_trace",
    "parse",
    "read_trace",
    "satisfiable",
    "satisfies",
    "tokenizer_of",
]
