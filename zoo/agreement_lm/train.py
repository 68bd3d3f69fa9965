"""Train the model `agreement-lm`: `python -m zoo.agreement_lm.train --output DIR`.

Needs the extra `train` (optax). Minutes on two CPU cores. The same settings, machine and versions give the same weights.
"""

import sys
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from jaxflow.zoo.agreement_lm import NAME, VOCABULARY, AgreementDecoder
from zoo import command, training
from zoo.agreement.evaluate import RULES_OF_THUMB, accuracy_table
from zoo.agreement_lm import evaluate
from zoo.agreement_lm.card import Figures, model_card
from zoo.agreement_lm.grammar import ODDS, Sentence, generate
from zoo.card import Run
from zoo.command import Table
from zoo.training import Settings

# Held-out sentences of the figures, of the written endings, and of the progress bar; drawn with other seeds.
_REPORT, _WRITTEN, _PROGRESS = 20_000, 2_000, 1_000
# How much a word before the verb counts in the loss, against one from the verb on.
_BEFORE_THE_VERB = 0.1


def train(
    module: AgreementDecoder, settings: Settings, *, show_progress: bool = True
) -> tuple[dict[str, Any], np.ndarray]:
    """Train the module on whole sentences.

    Args:
        module: The decoder.
        settings: How.
        show_progress: Draw a bar with loss and held-out agreement on standard error.

    Returns:
        The parameters, and the loss of every step (weighted mean cross-entropy in nats).
    """
    if show_progress:
        tqdm.write(f"generating {settings.n_examples:,} sentences", file=sys.stderr)
    sentences = generate(settings.n_examples, split="train", seed=settings.seed, odds=ODDS)
    input_ids = evaluate.encode(sentences, module.max_length)
    verbs = np.array([len(sentence.start.words) for sentence in sentences])
    watched = generate(_PROGRESS, split="held_out", seed=settings.seed + 1_000)
    numbers = np.array([sentence.start.number for sentence in watched])

    def loss_of(params: Any, ids: jax.Array, verbs: jax.Array) -> jax.Array:
        logits = module.apply({"params": params}, ids[:, :-1])
        written = jnp.arange(ids.shape[1] - 1) >= verbs[:, None]
        counts = jnp.where(written, 1.0, _BEFORE_THE_VERB) * (ids[:, 1:] != 0)
        return training.cross_entropy(logits, ids[:, 1:], counts)

    def watch(params: Any) -> dict[str, float]:
        return {"held_out": float((evaluate.verb_number(module, watched, params=params) == numbers).mean())}

    def batches() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        lengths = (input_ids != 0).sum(1)
        for rows in training.rows_of_like_length(lengths, batch_size=settings.batch_size, seed=settings.seed):
            yield input_ids[rows, : training.width_of(lengths[rows], longest=module.max_length)], verbs[rows]

    params = module.init(jax.random.key(settings.seed), jnp.asarray(input_ids[:1]))["params"]
    return training.fit(loss_of, params, batches=batches(), settings=settings, watch=watch, show_progress=show_progress)


def report(module: AgreementDecoder, params: Any, run: Run) -> tuple[str, Table]:
    """Measure the trained model for its card; the sentences are drawn here for the first time."""
    seed = run.settings.seed
    held_out = generate(_REPORT, split="held_out", seed=seed + 2_000)
    seen = generate(min(_REPORT, run.settings.n_examples), split="train", seed=seed, odds=ODDS)
    starts = [sentence.start for sentence in held_out]
    endings = evaluate.write(module, held_out[:_WRITTEN], params=params)
    n_verbs, finished = evaluate.finished(held_out[:_WRITTEN], endings)
    figures = Figures(
        held_out=agreement(module, held_out, params=params),
        train=agreement(module, seen, params=params),
        rules_of_thumb={
            name: accuracy_table(starts, np.asarray([rule(start) for start in starts]))
            for name, rule in RULES_OF_THUMB.items()
        },
        n_verbs=n_verbs,
        n_starts=len(endings),
        finished=finished,
        samples=list(zip(held_out, endings, strict=False))[:8],
    )
    table = [*figures.held_out, ("finished as the grammar would", n_verbs, finished)]
    return model_card(module, run, figures), table


def agreement(module: AgreementDecoder, sentences: Sequence[Sentence], *, params: Any) -> Table:
    """Count how often the verb agrees, as `accuracy_table`, and how often that of the noun outside a clause does."""
    starts = [sentence.start for sentence in sentences]
    table = accuracy_table(starts, evaluate.verb_number(module, sentences, params=params))
    nested = [sentence for sentence in sentences if sentence.start.outer is not None]
    if not nested:
        return table
    outer = [s.start.attractor_numbers[s.start.attractors.index(s.start.outer)] for s in nested]
    share = (evaluate.verb_number(module, nested, params=params, outer=True) == outer).mean()
    return [*table, ("a noun outside an open clause, its verb", len(nested), float(share))]


def recipe(module: AgreementDecoder | None = None) -> command.Recipe:
    """Give what makes the model, or one of other sizes."""
    module = AgreementDecoder() if module is None else module
    return command.Recipe(
        name=NAME,
        vocabulary=VOCABULARY,
        settings=Settings(),
        examples="sentences",
        train=lambda settings: train(module, settings)[0],
        report=lambda params, run: report(module, params, run),
    )


if __name__ == "__main__":
    command.main(recipe())
