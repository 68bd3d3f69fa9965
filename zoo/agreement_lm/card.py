"""The model card, written by the run that trained the model: every figure in it was measured there."""

from collections.abc import Sequence
from dataclasses import dataclass

from jaxflow.zoo.agreement import text_of
from jaxflow.zoo.agreement_lm import AgreementDecoder
from zoo.agreement.card import accuracy
from zoo.agreement_lm.grammar import Sentence
from zoo.card import Run, percent, training_section
from zoo.command import Table


@dataclass(frozen=True)
class Figures:
    """What was measured.

    Attributes:
        held_out: How often the verb agrees on held-out sentences, as of `accuracy_table`, and the verb of the noun
            outside an open relative clause.
        train: The same on sentences trained on.
        rules_of_thumb: For each, the table on the held-out sentences.
        n_verbs: Of how many held-out sentences the likeliest word to come is a verb.
        n_starts: Of how many.
        finished: The share of these whose ending, written word by word, is one of the grammar.
        samples: Some held-out sentences, each with the ending that the model wrote.
    """

    held_out: Table
    train: Table
    rules_of_thumb: dict[str, Table]
    n_verbs: int
    n_starts: int
    finished: float
    samples: Sequence[tuple[Sentence, tuple[str, ...]]]


def model_card(module: AgreementDecoder, run: Run, figures: Figures) -> str:
    """Write the card, in Markdown."""
    samples = "\n".join(
        f'- "{sentence.start.text}" -> "{text_of(written)}" ({sentence.start.words[sentence.start.subject]})'
        for sentence, written in figures.samples
    )
    return f"""\
# agreement-lm

Written by the training run; do not edit, run it again.

A Transformer decoder that reads an English sentence up to the verb and writes the rest of it: a verb in the number
of its subject, and something that can be said of that subject. The decoder beside the encoder `agreement`, for
looking into what is written token by token.

## Model
{module.n_layers} layers, {module.n_heads} heads, width {module.width}, feed-forward {module.hidden}, pre-norm, learned
positions, causal; a vocabulary of {len(module.labels)}; at most {module.max_length} tokens with [BOS] and the full
stop. {run.n_parameters:,} parameters, {run.n_bytes:,} bytes in float32.

## Data
The sentences of `agreement` (see its card), each with an ending of `zoo/agreement_lm/grammar.py`: is, was,
seems or has, in the number of the subject, and a word that fits its kind (guards sleep, keys get lost, gardens are
empty). After an open relative clause ("the keys that the guard") its verb comes first, then that of the noun outside.
Held-out sentences are built of combinations that training kept apart, as those of `agreement`. Some held-out
sentences, what the model wrote, and the noun that its first verb agrees with:

{samples}

{training_section(run)}
Trained to predict every next word; the words from the verb on count ten times as much as those before it.

## Agreement
Whether the singular or the plural forms of all its verbs are likelier, together, where the verb comes. Held-out
sentences were drawn for this table alone; training ones are the first that it was trained on. The last columns:
rules of thumb on the held-out sentences.

{accuracy(figures.held_out, {"training": figures.train, **figures.rules_of_thumb})}

## Writing
Of {figures.n_starts:,} held-out starts of sentences, the likeliest word to come is a verb after
{figures.n_verbs:,}; after the others the model goes on about the noun, which is no mistake.
Of what it writes word by word after those {figures.n_verbs:,}, {percent(figures.finished)} is as the
grammar would end the sentence: all verbs agree, what is said can be said of its noun, and the full stop follows.

## Limits
It knows the words and constructions of its grammar and nothing else of English; its tokenizer refuses other words.
What it writes is grammatical, and means nothing.
"""
