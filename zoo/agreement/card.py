"""The model card, written by the run that trained the model: every figure in it was measured there."""

from collections.abc import Sequence
from dataclasses import dataclass

from jaxflow.zoo.agreement import AgreementEncoder
from zoo.agreement.grammar import MAX_ATTRACTORS, Example
from zoo.card import Run, percent, table, training_section
from zoo.command import Table


@dataclass(frozen=True)
class Figures:
    """What was measured.

    Attributes:
        held_out: Accuracy on held-out sentences, as of `accuracy_table`.
        train: The same on sentences trained on.
        ablations: For each layer, the table on the held-out sentences without its attention.
        rules_of_thumb: For each, the table on the held-out sentences.
        samples: Some held-out sentences.
    """

    held_out: Table
    train: Table
    ablations: Sequence[Table]
    rules_of_thumb: dict[str, Table]
    samples: Sequence[Example]


def model_card(module: AgreementEncoder, run: Run, figures: Figures) -> str:
    """Write the card, in Markdown."""
    samples = "\n".join(
        f'- "{example.text}" -> {module.labels[example.number]} ({example.words[example.subject]})'
        for example in figures.samples
    )
    return f"""\
# agreement

Written by the training run; do not edit, run it again.

A Transformer encoder that reads an English sentence up to the verb and tells, from its first token, whether
the verb must be {" or ".join(module.labels)}: subject-verb agreement, the task of Linzen et al. (2016) on
which Abnar & Zuidema ([2020](https://arxiv.org/abs/2005.00928)) try attention flow. It is here to be looked
into: small, and with a known right answer to which word decides.

## Model
{module.n_layers} layers, {module.n_heads} heads, width {module.width}, feed-forward {module.hidden},
pre-norm, learned positions; a vocabulary of {module.n_tokens}; at most {module.n_positions} tokens with
[CLS]. {run.n_parameters:,} parameters, {run.n_bytes:,} bytes in float32.

## Data
Sentences from the grammar of `zoo/agreement/grammar.py`, with 0 to {MAX_ATTRACTORS} nouns
(attractors) besides the subject, each singular or plural with equal odds, in prepositional phrases,
relative clauses, possessives and phrases in front. Only nouns carry number. Held-out sentences are built of
combinations that training kept apart (`split.held_out`): the subject of a held-out sentence shared no
training sentence with any other content word of it. Some held-out sentences, with the noun that decides:

{samples}

{training_section(run)}
## Accuracy
Held-out sentences were drawn for this table alone; training ones are the first that it was trained on. The
last columns: rules of thumb on the held-out sentences.

{accuracy(figures.held_out, {"training": figures.train, **figures.rules_of_thumb})}

Held-out again, the attention of one layer taken out, nothing trained anew: how much hangs on each.

{_ablations(figures)}

## Limits
It knows the words and constructions of its grammar and nothing else of English; its tokenizer refuses other
words. No nouns of one form for both numbers ("sheep"), no coordinated nouns, no verbs in the present tense.
Given a sentence that the grammar would not make, it answers all the same.
"""


def accuracy(held_out: Table, others: dict[str, Table]) -> str:
    """Write accuracy on held-out sentences as a table, other tables beside it."""
    shares = [{name: share for name, _, share in other} for other in others.values()]
    rows = [
        [name, f"{count:,}", percent(share), *(percent(other.get(name)) for other in shares)]
        for name, count, share in held_out
    ]
    return table(["sentences with", "count", "held-out", *others], rows)


def _ablations(figures: Figures) -> str:
    names = [name for name, _, _ in figures.held_out[:2]]
    rows = [
        [f"layer {i + 1}", *(percent(share) for _, _, share in without[:2])]
        for i, without in enumerate(figures.ablations)
    ]
    return table(["without the attention of", *names], rows)
