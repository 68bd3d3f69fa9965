"""Train the model `agreement`: `python -m zoo.agreement.train --output DIR`.

Needs the extra `train` (optax). Minutes on two CPU cores. The same settings, machine and versions give the same weights.
"""

import sys
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from jaxflow.zoo.agreement import NAME, VOCABULARY, AgreementEncoder, tokenizer
from zoo import command, training
from zoo.agreement import evaluate
from zoo.agreement.card import Figures, model_card
from zoo.agreement.grammar import Example, generate
from zoo.card import Run
from zoo.command import Table
from zoo.training import Settings

# Held-out sentences of the figures, and of the progress bar; drawn with other seeds, so that the figures
# are of sentences nobody watched.
_REPORT, _PROGRESS = 20_000, 1_000


def train(
    module: AgreementEncoder, settings: Settings, *, show_progress: bool = True
) -> tuple[dict[str, Any], np.ndarray]:
    """Train the module on sentences of the grammar.

    Args:
        module: The encoder.
        settings: How.
        show_progress: Draw a bar with loss and held-out accuracy on standard error.

    Returns:
        The parameters, and the loss of every step (mean cross-entropy in nats).
    """
    tokens = tokenizer(module.n_positions)
    if show_progress:
        tqdm.write(f"generating {settings.n_examples:,} sentences", file=sys.stderr)
    examples = generate(settings.n_examples, split="train", seed=settings.seed)
    input_ids = evaluate.encode(examples, tokens)
    numbers = np.asarray([example.number for example in examples], np.int32)
    watched = generate(_PROGRESS, split="held_out", seed=settings.seed + 1_000)
    watched_ids = evaluate.encode(watched, tokens)

    def loss_of(params: Any, ids: jax.Array, labels: jax.Array) -> jax.Array:
        return training.cross_entropy(module.apply({"params": params}, ids), labels)

    def watch(params: Any) -> dict[str, float]:
        table = evaluate.accuracy_table(watched, evaluate.predict(module, watched_ids, params=params))
        return {"held_out": table[0][2]}

    def batches() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        lengths = (input_ids != 0).sum(1)
        for rows in training.rows_of_like_length(lengths, batch_size=settings.batch_size, seed=settings.seed):
            yield input_ids[rows, : training.width_of(lengths[rows], longest=input_ids.shape[1])], numbers[rows]

    params = module.init(jax.random.key(settings.seed), jnp.asarray(input_ids[:1]))["params"]
    return training.fit(loss_of, params, batches=batches(), settings=settings, watch=watch, show_progress=show_progress)


def report(module: AgreementEncoder, params: Any, run: Run) -> tuple[str, Table]:
    """Measure the trained model for its card; the sentences are drawn here for the first time."""
    seed, tokens = run.settings.seed, tokenizer(module.n_positions)
    held_out = generate(_REPORT, split="held_out", seed=seed + 2_000)
    seen = generate(min(_REPORT, run.settings.n_examples), split="train", seed=seed)

    def table(examples: list[Example], params: Any) -> Table:
        input_ids = evaluate.encode(examples, tokens)
        return evaluate.accuracy_table(examples, evaluate.predict(module, input_ids, params=params))

    figures = Figures(
        held_out=table(held_out, params),
        train=table(seen, params),
        ablations=[table(held_out, evaluate.without_attention(params, layer=i)) for i in range(module.n_layers)],
        rules_of_thumb={
            name: evaluate.accuracy_table(held_out, np.asarray([rule(example) for example in held_out]))
            for name, rule in evaluate.RULES_OF_THUMB.items()
        },
        samples=held_out[:8],
    )
    return model_card(module, run, figures), figures.held_out


def recipe(module: AgreementEncoder | None = None) -> command.Recipe:
    """Give what makes the model, or one of other sizes."""
    module = AgreementEncoder() if module is None else module
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
