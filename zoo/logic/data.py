"""Formulas with the answers that CP-SAT finds, and both as numbers."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from itertools import permutations
from typing import NamedTuple

import numpy as np
from jaxtyping import Int
from tqdm import tqdm

from jaxflow.zoo.logic import END, START, Formula, FormulaTokenizer, Language, Trace
from zoo.logic.formulas import key, sample


class Example(NamedTuple):
    """A formula and its answer."""

    formula: Formula
    answer: Trace


class Rows(NamedTuple):
    """Examples as numbers, padded on the right.

    Attributes:
        input_ids: `[example, source]`.
        answers: `[example, target]`, from the start token to the end token.
    """

    input_ids: Int[np.ndarray, "example source"]
    answers: Int[np.ndarray, "example target"]


def generate(
    language: Language,
    n_examples: int,
    *,
    sizes: Sequence[int],
    held_out: bool,
    seed: int,
    unlike: Collection[str] = (),
    show_progress: bool = False,
) -> list[Example]:
    """Draw formulas that have an answer, and find it.

    Args:
        language: what is drawn.
        n_examples: how many.
        sizes: symbols in a formula; as many of each as there are different ones.
        held_out: draw from the held-out formulas, or from all others.
        seed: of the draw.
        unlike: keys, as of `key`, of formulas that none may be like.
        show_progress: draw a bar on standard error.

    Returns:
        The examples; no two formulas differ in nothing but the names of propositions.

    Example:
        >>> from jaxflow.zoo.ltl import LANGUAGE
        >>> generate(LANGUAGE, 2, sizes=[4], held_out=False, seed=0) == generate(
        ...     LANGUAGE, 2, sizes=[4], held_out=False, seed=0
        ... )
        True
    """
    formulas = sample(
        sizes=sizes, held_out=held_out, seed=seed, operators=language.operators, propositions=language.propositions
    )
    examples: list[Example] = []
    with tqdm(total=n_examples, desc="formulas", disable=not show_progress, mininterval=1.0) as bar:
        for formula in formulas:
            if unlike and key(formula, language.propositions) in unlike:
                continue
            answer = language.solve(formula) if language.is_satisfiable(formula) else None
            if answer is not None:
                examples.append(Example(formula, answer))
                bar.update()
            if len(examples) == n_examples:
                break
    return examples


def encode(examples: Sequence[Example], tokenizer: FormulaTokenizer) -> Rows:
    """Number the symbols of examples."""
    answers = [[START, *tokenizer.language.write(example.answer), END] for example in examples]
    padded = np.zeros((len(answers), max(map(len, answers))), np.int32)
    for row, answer in zip(padded, answers, strict=True):
        row[: len(answer)] = [tokenizer.vocab[symbol] for symbol in answer]
    return Rows(tokenizer([str(example.formula) for example in examples])["input_ids"], padded)


def renamings(tokenizer: FormulaTokenizer) -> Int[np.ndarray, "renaming token"]:
    """Give, for every permutation of the propositions, the number that each token becomes."""
    names = tokenizer.language.propositions
    tables = np.tile(np.arange(len(tokenizer.vocab), dtype=np.int32), (len(list(permutations(names))), 1))
    for table, others in zip(tables, permutations(names), strict=True):
        for name, other in zip(names, others, strict=True):
            table[tokenizer.vocab[name]] = tokenizer.vocab[other]
            table[tokenizer.vocab[f"!{name}"]] = tokenizer.vocab[f"!{other}"]
    return tables


def batches(rows: Rows, order: Iterator[np.ndarray], tokenizer: FormulaTokenizer, *, seed: int) -> Iterator[Rows]:
    """Cut batches to their longest rows, and rename the propositions of each row at random.

    Args:
        rows: all examples.
        order: the numbers of each batch's.
        tokenizer: whose numbers they are.
        seed: of the renamings.

    Yields:
        Batches.
    """
    rng = np.random.default_rng([seed, 1])
    tables = renamings(tokenizer)
    for batch in order:
        table = tables[rng.integers(len(tables), size=len(batch))]
        input_ids, answers = (np.take_along_axis(table, ids[batch], 1) for ids in (rows.input_ids, rows.answers))
        source, target = (_width(ids) for ids in (input_ids, answers))
        yield Rows(input_ids[:, :source], answers[:, :target])


def _width(ids: Int[np.ndarray, "row token"]) -> int:
    """Give a width that holds all rows, one of few, so that few shapes are compiled."""
    longest = int((ids != 0).sum(1).max())
    return min(ids.shape[1], -(-longest // 8) * 8)
