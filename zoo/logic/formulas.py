"""Random formulas, and which of them are held out."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from itertools import permutations

import numpy as np

from jaxflow.zoo.logic import ARITY, CONSTANTS, Formula

CONSTANT_SHARE = 0.05
HELD_OUT_SHARE = 0.1
# Draws in a row that give nothing new before a size counts as run dry.
_PATIENCE = 200


def random_formula(
    rng: np.random.Generator, n_symbols: int, *, operators: Mapping[str, float], propositions: str
) -> Formula:
    """Draw a formula.

    Args:
        rng: of the draw.
        n_symbols: how many operators, propositions and constants it has.
        operators: how often each is drawn, where it fits.
        propositions: drawn with equal odds; a constant instead one time in twenty.

    Returns:
        The formula.
    """
    if n_symbols == 1:
        pool: Sequence[str] = CONSTANTS if rng.random() < CONSTANT_SHARE else propositions
        return Formula(pool[int(rng.integers(len(pool)))])
    fitting = [symbol for symbol in operators if ARITY[symbol] < n_symbols]
    odds = np.array([operators[symbol] for symbol in fitting])
    symbol = fitting[rng.choice(len(fitting), p=odds / odds.sum())]
    left = n_symbols - 1 if ARITY[symbol] == 1 else int(rng.integers(1, n_symbols - 1))
    sizes = [left] if ARITY[symbol] == 1 else [left, n_symbols - 1 - left]
    return Formula(
        symbol,
        tuple(random_formula(rng, size, operators=operators, propositions=propositions) for size in sizes),
    )


def canonical(formula: Formula, propositions: str) -> Formula:
    """Rename propositions so that they come in the order of their first mention."""
    return formula.renamed(dict(zip(formula.propositions(), propositions, strict=False)))


def is_held_out(formula: Formula, propositions: str) -> bool:
    """Tell whether a formula, canonical, is kept from training."""
    digest = hashlib.sha256(str(_sorted(canonical(_sorted(formula), propositions))).encode()).digest()
    return digest[0] < HELD_OUT_SHARE * 256


def key(formula: Formula, propositions: str) -> str:
    """Give what formulas have in common that differ in the names of propositions and in the order of operands alone."""
    names = formula.propositions()
    renamings = (dict(zip(names, others, strict=True)) for others in permutations(propositions[: len(names)]))
    return min(str(_sorted(formula.renamed(renaming))) for renaming in renamings)


def _sorted(formula: Formula) -> Formula:
    parts = [_sorted(part) for part in formula.parts]
    return Formula(formula.symbol, tuple(sorted(parts, key=str) if formula.symbol in "&|" else parts))


def sample(
    *, sizes: Sequence[int], held_out: bool, seed: int, operators: Mapping[str, float], propositions: str
) -> Iterator[Formula]:
    """Draw different formulas, canonical ones, of every size in turn until it has run dry.

    Args:
        sizes: how many symbols they have.
        held_out: whether to draw from the held-out ones, or from all others.
        seed: of the draw.
        operators: as in `random_formula`.
        propositions: as in `random_formula`.

    Yields:
        The formulas.
    """
    rng = np.random.default_rng([seed, held_out])
    seen: set[Formula] = set()
    failures = dict.fromkeys(sizes, 0)
    while failures:
        for size in list(failures):
            formula = canonical(random_formula(rng, size, operators=operators, propositions=propositions), propositions)
            if formula in seen or is_held_out(formula, propositions) != held_out:
                failures[size] += 1
                if failures[size] == _PATIENCE:
                    del failures[size]
                continue
            failures[size] = 0
            seen.add(formula)
            yield formula
