"""The model card, written by the run that trained the model: every figure in it was measured there."""

from collections.abc import Sequence
from dataclasses import dataclass

from jaxflow.zoo.agreement.grammar import MAX_ATTRACTORS, Example
from jaxflow.zoo.agreement.model import AgreementEncoder

Table = list[tuple[str, int, float]]


@dataclass(frozen=True)
class Run:
    """What a training run has to say about itself.

    Attributes:
        command: As typed.
        seed: Of everything drawn.
        steps: Steps of the optimiser.
        settings: The other settings, by name.
        seconds: Wall time of the training, with the generation of its sentences.
        machine: What it ran on.
        versions: Of the packages, jaxflow among them.
        n_parameters: In the model.
        n_bytes: Size of the weights file.
        table: Accuracy on held-out sentences, as of `accuracy_table`.
        train_table: The same on sentences trained on.
        ablations: For each layer, the table on the held-out sentences without its attention.
        rules_of_thumb: For each, the table on the held-out sentences.
        samples: Some held-out sentences.
    """

    command: str
    seed: int
    steps: int
    settings: dict[str, str]
    seconds: float
    machine: str
    versions: dict[str, str]
    n_parameters: int
    n_bytes: int
    table: Table
    train_table: Table
    ablations: Sequence[Table]
    rules_of_thumb: dict[str, Table]
    samples: Sequence[Example]


def model_card(module: AgreementEncoder, run: Run) -> str:
    """Write the card, in Markdown."""
    settings = "\n".join(f"| {name} | {value} |" for name, value in run.settings.items())
    samples = "\n".join(
        f'- "{example.text}" -> {module.labels[example.number]} ({example.words[example.subject]})'
        for example in run.samples
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
Sentences from the grammar of `jaxflow/zoo/agreement/grammar.py`, with 0 to {MAX_ATTRACTORS} nouns
(attractors) besides the subject, each singular or plural with equal odds, in prepositional phrases,
relative clauses, possessives and phrases in front. Only nouns carry number. Held-out sentences are built of
combinations that training kept apart (`lexicon.held_out`): the subject of a held-out sentence shared no
training sentence with any other content word of it. Some held-out sentences, with the noun that decides:

{samples}

## Training
    {run.command}

| | |
|---|---|
| seed | {run.seed} |
| steps | {run.steps} |
{settings}
| time | {run.seconds:.0f} s |
| machine | {run.machine} |
| versions | {", ".join(f"{name} {version}" for name, version in run.versions.items())} |

## Accuracy
Held-out sentences were drawn for this table alone; training ones are the first that it was trained on. The
last columns: rules of thumb on the held-out sentences.

{_accuracy(run)}

Held-out again, the attention of one layer taken out, nothing trained anew: how much hangs on each.

{_ablations(run)}

## Limits
It knows the words and constructions of its grammar and nothing else of English; its tokenizer refuses other
words. No nouns of one form for both numbers ("sheep"), no coordinated nouns, no verbs in the present tense.
Given a sentence that the grammar would not make, it answers all the same.
"""


def _accuracy(run: Run) -> str:
    train = {name: share for name, _, share in run.train_table}
    rules = {rule: {name: share for name, _, share in table} for rule, table in run.rules_of_thumb.items()}
    header = ["sentences with", "count", "held-out", "training", *rules]
    lines = [" | ".join(header), "|".join(["---", *["---:"] * (len(header) - 1)])]
    for name, count, share in run.table:
        others = [train.get(name), *(shares[name] for shares in rules.values())]
        cells = [name, f"{count:,}", _percent(share), *map(_percent, others)]
        lines.append(" | ".join(cells))
    return "\n".join(f"| {line} |" for line in lines)


def _ablations(run: Run) -> str:
    names = [name for name, _, _ in run.table[:2]]
    lines = [" | ".join(["without the attention of", *names]), "|".join(["---", *["---:"] * len(names)])]
    for i, table in enumerate(run.ablations):
        lines.append(" | ".join([f"layer {i + 1}", *(_percent(share) for _, _, share in table[:2])]))
    return "\n".join(f"| {line} |" for line in lines)


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.2f} %"
