"""The card of a reasoning model, written by the run that trained it: every figure in it was measured there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxflow.zoo.logic import NAMES, FormulaTransformer, Language
from zoo.card import Run, percent, table, training_section
from zoo.logic.data import Example
from zoo.logic.evaluate import accuracy_table

_N_SAMPLES = 12


class Judged(NamedTuple):
    """What a model wrote to formulas, and which of it is right."""

    examples: Sequence[Example]
    written: Sequence[Sequence[str]]
    right: np.ndarray


def model_card(
    language: Language, module: FormulaTransformer, run: Run, *, held_out: Judged, longer: Judged, seen: Judged
) -> str:
    """Write the card, in Markdown.

    Args:
        language: What the model reads and writes.
        module: The network.
        run: What trained it.
        held_out: Measured on held-out formulas of the sizes that were trained on.
        longer: On longer ones.
        seen: On formulas that were trained on.
    """
    return f"""\
# {language.name}

Written by the training run; do not edit, run it again.

{_INTRODUCTION[language.is_temporal]}

## Model
{module.n_encoder_layers} layers that read, {module.n_decoder_layers} that write, {module.n_heads} heads, width {module.width},
feed-forward {module.hidden}, pre-norm. The encoder is told where in the formula's tree each symbol stands
(`tree_positions`), the decoder counts. A vocabulary of {len(module.labels)}; formulas of at most {module.n_source} symbols,
nested at most {module.n_path} deep, answers of at most {module.n_target - 2} tokens. {run.n_parameters:,} parameters,
{run.n_bytes:,} bytes in float16; it computes in float32, and was measured as it is stored.

## Data
Formulas over {", ".join(language.propositions)}, the constants 1 and 0, and {_operators(language)}, in prefix notation, of
{language.sizes[0]} to {language.sizes[-1]} symbols, all sizes alike as long as there are new ones
(`zoo/logic/formulas.py`). {_ANSWERS[language.is_temporal]}
Unsatisfiable formulas are left out{_unsolved(language)}.
Propositions are renamed at random each time that a formula is shown. A tenth of all formulas, by a hash, is held out; of
these, those are measured that differ from every formula drawn for training in more than the names of propositions and the order
of operands. Some, what the model writes, and whether it is right:

{_samples(held_out)}

{training_section(run)}
## Accuracy
An answer is right if all that it stands for satisfies the formula: {_CHECKED[language.is_temporal]}
"As CP-SAT" are answers that are the one CP-SAT found, which is less than right. Formulas
were drawn for these tables alone; those seen are the first that were trained on.

{_accuracy(language, held_out, seen)}

Longer than any that it was trained on:

{_accuracy(language, longer)}
{_by_positions(language, held_out)}
## Limits
It knows the operators and propositions above. It was never shown a formula that nothing satisfies, and writes an answer to
those too; the checker tells. It takes the likeliest token at each step and never looks back.
"""


_INTRODUCTION = {
    True: """\
A Transformer encoder-decoder that reads a formula of linear temporal logic and writes a trace that satisfies it, the task of
Hahn et al. (2021, [Teaching temporal logics to neural networks](https://arxiv.org/abs/2003.04218)). A trace is a lasso:
positions separated by `;`, the last of which are repeated for ever, in `{ }`. Each says which propositions are true (`a`) and
false (`!a`) there; any other may be either, each time anew. `1` says nothing.""",
    False: """\
A Transformer encoder-decoder that reads a propositional formula and writes a partial assignment that satisfies it, the second
task of Hahn et al. (2021, [Teaching temporal logics to neural networks](https://arxiv.org/abs/2003.04218)): which propositions
are true (`a`) and false (`!a`). Any other may be either; `1` says nothing.""",
}
_ANSWERS = {
    True: """\
The answer to each was found by OR-Tools CP-SAT, by bounded model
finding (`jaxflow/zoo/logic/_search.py`): of the traces that surely satisfy it, those that say least for ever, of these the
shortest, of these those that say least.""",
    False: """\
The answer to each was found by OR-Tools CP-SAT
(`jaxflow/zoo/logic/_search.py`): the fewest literals from which the formula surely follows, the first mentioned first.""",
}
_CHECKED = {
    True: "the checker\n(`jaxflow/zoo/logic/_semantics.py`) decides that exactly, by the tableau of the formula's negation.",
    False: "CP-SAT\nfinds no way to fill it up that does not.",
}


def _operators(language: Language) -> str:
    return ", ".join(f"`{symbol}` ({NAMES[symbol]})" for symbol in language.operators)


def _unsolved(language: Language) -> str:
    return f", as are those without a trace of {language.max_positions} positions" if language.is_temporal else ""


def _samples(held_out: Judged) -> str:
    every = max(1, len(held_out.examples) // _N_SAMPLES)
    return "\n".join(
        f"- `{example.formula}` -> `{' '.join(symbols)}`: {'right' if right else 'wrong'}"
        for example, symbols, right in list(zip(*held_out, strict=True))[::-every][:_N_SAMPLES]
    )


def _accuracy(language: Language, judged: Judged, seen: Judged | None = None) -> str:
    found = [language.write(example.answer) for example in judged.examples]
    same = accuracy_table(
        judged.examples, np.array([one == other for one, other in zip(found, judged.written, strict=True)])
    )
    columns = {"right": accuracy_table(judged.examples, judged.right), "as CP-SAT": same}
    if seen is not None:
        columns["seen: right"] = accuracy_table(seen.examples, seen.right)
    shares = [{name: share for name, _, share in column} for column in columns.values()]
    rows = [[name, f"{count:,}", *(percent(column.get(name)) for column in shares)] for name, count, _ in same]
    return table(["formulas of", "count", *columns], rows)


def _by_positions(language: Language, held_out: Judged) -> str:
    if not language.is_temporal:
        return ""
    n_positions = np.array([len(example.answer.positions) for example in held_out.examples])
    rows = [
        [str(n), f"{(n_positions == n).sum():,}", percent(float(held_out.right[n_positions == n].mean()))]
        for n in np.unique(n_positions)
    ]
    return f"""
The held-out formulas again, by the positions of the trace that CP-SAT found:

{table(["positions", "count", "right"], rows)}
"""
