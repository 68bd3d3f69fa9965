"""Train a reasoning model on formulas and the answers that CP-SAT finds; measure it for its card."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxflow.zoo.logic import STORED, FormulaTokenizer, FormulaTransformer
from zoo import training
from zoo.card import Run
from zoo.command import Recipe, Table
from zoo.logic import evaluate
from zoo.logic.card import Judged, model_card
from zoo.logic.data import batches, encode, generate
from zoo.logic.formulas import key, sample
from zoo.training import Settings

# Held-out formulas of each table of figures, and of the progress bar; drawn with other seeds, so that the figures are of
# formulas nobody watched.
_REPORT, _PROGRESS = 2_500, 256
# More than are drawn for each that is trained on, since some have no answer.
_DRAWN = 1.25


def train(
    module: FormulaTransformer, tokenizer: FormulaTokenizer, settings: Settings, *, show_progress: bool = True
) -> tuple[dict[str, Any], np.ndarray]:
    """Train the module.

    Args:
        module: The network.
        tokenizer: Its tokenizer, and through it the language.
        settings: How.
        show_progress: Draw bars, the second with loss and held-out accuracy, on standard error.

    Returns:
        The parameters, and the loss of every step (mean cross-entropy of a token in nats).
    """
    language, seed = tokenizer.language, settings.seed
    examples = generate(
        language, settings.n_examples, sizes=language.sizes, held_out=False, seed=seed, show_progress=show_progress
    )
    rows = encode(examples, tokenizer)
    watched = generate(language, _PROGRESS, sizes=language.sizes, held_out=True, seed=seed + 1_000)

    def loss_of(params: Any, ids: jax.Array, answers: jax.Array) -> jax.Array:
        logits = module.apply({"params": params}, ids, answers[:, :-1])
        return training.cross_entropy(logits, answers[:, 1:], answers[:, 1:] != 0)

    def watch(params: Any) -> dict[str, float]:
        written = evaluate.answers(module, [example.formula for example in watched], tokenizer, params=params)
        return {"held_out": float(evaluate.right(language, watched, written).mean())}

    # Of like length on the side of the answer first, which costs more.
    lengths = 100 * (rows.answers != 0).sum(1) + (rows.input_ids != 0).sum(1)
    order = training.rows_of_like_length(lengths, batch_size=settings.batch_size, seed=seed)
    params = module.init(jax.random.key(seed), *map(jnp.asarray, (rows.input_ids[:1], rows.answers[:1])))["params"]
    return training.fit(
        loss_of,
        params,
        batches=batches(rows, order, tokenizer, seed=seed),
        settings=settings,
        watch=watch,
        show_progress=show_progress,
    )


def recipe_of(module: FormulaTransformer, tokenizer: FormulaTokenizer, settings: Settings) -> Recipe:
    """Give what makes a reasoning model."""
    return Recipe(
        name=tokenizer.language.name,
        vocabulary=module.labels,
        settings=settings,
        examples="formulas",
        train=lambda settings: train(module, tokenizer, settings)[0],
        report=lambda params, run: report(module, tokenizer, params=params, run=run),
        dtype=STORED,
    )


def report(module: FormulaTransformer, tokenizer: FormulaTokenizer, *, params: Any, run: Run) -> tuple[str, Table]:
    """Measure the trained model for its card; the held-out formulas are drawn here for the first time."""
    language, seed = tokenizer.language, run.settings.seed
    drawn = sample(
        sizes=language.sizes,
        held_out=False,
        seed=seed,
        operators=language.operators,
        propositions=language.propositions,
    )
    drawn = islice(drawn, int(_DRAWN * run.settings.n_examples))
    trained_on = {key(formula, language.propositions) for formula in drawn}

    def judged(sizes: Sequence[int], *, held_out: bool, seed: int) -> Judged:
        unlike = trained_on if held_out else ()
        examples = generate(
            language, _REPORT, sizes=sizes, held_out=held_out, seed=seed, unlike=unlike, show_progress=True
        )
        written = evaluate.answers(module, [example.formula for example in examples], tokenizer, params=params)
        return Judged(examples, written, evaluate.right(language, examples, written))

    held_out = judged(language.sizes, held_out=True, seed=seed + 2_000)
    longer = judged(language.longer, held_out=True, seed=seed + 3_000)
    seen = judged(language.sizes, held_out=False, seed=seed)
    table = evaluate.accuracy_table(held_out.examples, held_out.right)
    return model_card(language, module, run, held_out=held_out, longer=longer, seen=seen), table
