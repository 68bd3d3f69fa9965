"""What the reasoning models share: formulas, traces, their semantics, the search for traces, the network, its training.

`ltl` and `propositional` are one architecture on two languages; a propositional formula is one of linear temporal
logic without temporal operators, and a partial assignment is the one position of its trace.
"""
