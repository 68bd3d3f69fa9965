"""Train the agreement model: `python -m jaxflow.zoo.agreement.train --output DIR`.

Needs the extra `train` (optax). Minutes on two CPU cores. The same settings on the same machine and
versions give the same weights.
"""

import argparse
import os
import platform
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from jaxflow import __version__
from jaxflow.zoo.agreement import FILE, evaluate, weights
from jaxflow.zoo.agreement.card import Run, Table, model_card
from jaxflow.zoo.agreement.grammar import Example, generate
from jaxflow.zoo.agreement.model import AgreementEncoder
from jaxflow.zoo.agreement.tokenizer import VOCABULARY, WordTokenizer

try:
    import optax
except ImportError as error:
    raise ImportError("training needs optax: pip install 'jaxflow[train]'") from error

# Held-out sentences of the figures, and of the progress bar; drawn with other seeds, so that the figures
# are of sentences nobody watched.
_REPORT, _PROGRESS = 20_000, 1_000
# How many batches are drawn at once and sorted by length.
_BATCHES_SORTED = 16


@dataclass(frozen=True)
class Settings:
    """How to train.

    Attributes:
        seed: Of sentences, initial parameters and the order of batches.
        steps: Steps of the optimiser.
        batch_size: Sentences in a step.
        n_sentences: Training sentences generated; passed over again and again.
        learning_rate: Highest, after a warm-up of a twentieth of the steps; falls to 0 along a cosine.
        weight_decay: Of AdamW.
    """

    seed: int = 0
    steps: int = 5_000
    batch_size: int = 128
    n_sentences: int = 250_000
    learning_rate: float = 2e-3
    weight_decay: float = 0.01


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
    tokenizer = WordTokenizer(VOCABULARY, model_max_length=module.n_positions)
    if show_progress:
        tqdm.write(f"generating {settings.n_sentences:,} sentences", file=sys.stderr)
    examples = generate(settings.n_sentences, split="train", seed=settings.seed)
    input_ids = evaluate.encode(examples, tokenizer)
    numbers = np.asarray([example.number for example in examples], np.int32)
    watched = generate(_PROGRESS, split="held_out", seed=settings.seed + 1_000)
    watched_ids = evaluate.encode(watched, tokenizer)

    schedule = optax.warmup_cosine_decay_schedule(
        0.0, settings.learning_rate, max(1, settings.steps // 20), max(2, settings.steps)
    )
    optimiser = optax.adamw(schedule, weight_decay=settings.weight_decay)

    def loss_of(params: Any, ids: jax.Array, labels: jax.Array) -> jax.Array:
        logits = module.apply({"params": params}, ids)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    @jax.jit
    def step(params: Any, state: Any, ids: jax.Array, labels: jax.Array) -> tuple[Any, Any, jax.Array]:
        loss, gradient = jax.value_and_grad(loss_of)(params, ids, labels)
        updates, state = optimiser.update(gradient, state, params)
        return optax.apply_updates(params, updates), state, loss

    params = module.init(jax.random.key(settings.seed), jnp.asarray(input_ids[:1]))["params"]
    state = optimiser.init(params)
    batches = _batches(input_ids, settings)
    losses = np.zeros(settings.steps)
    bar = tqdm(range(settings.steps), desc="training", disable=not show_progress, mininterval=1.0)
    for i in bar:
        rows, n_tokens = next(batches)
        params, state, loss = step(params, state, input_ids[rows, :n_tokens], numbers[rows])
        losses[i] = float(loss)
        if show_progress and (i % 250 == 249 or i + 1 == settings.steps):
            table = evaluate.accuracy_table(watched, evaluate.predict(module, watched_ids, params=params))
            bar.set_postfix(loss=f"{losses[max(0, i - 99) : i + 1].mean():.4f}", held_out=f"{table[0][2]:.4f}")
    return params, losses


def _batches(input_ids: np.ndarray, settings: Settings) -> Iterator[tuple[np.ndarray, int]]:
    """Draw rows without end, every one once before any comes again, with the width that holds them.

    Sentences of like length go together, since most of a batch would be padding otherwise. Widths are
    multiples of six tokens, so few shapes are compiled.
    """
    rng = np.random.default_rng(settings.seed)
    lengths = (input_ids != 0).sum(1)
    size = settings.batch_size
    order = np.zeros(0, np.int64)
    while True:
        while len(order) < _BATCHES_SORTED * size:
            order = np.concatenate([order, rng.permutation(len(input_ids))])
        together, order = order[: _BATCHES_SORTED * size], order[_BATCHES_SORTED * size :]
        together = together[np.argsort(lengths[together], kind="stable")]
        for k in rng.permutation(_BATCHES_SORTED):
            rows = together[k * size : (k + 1) * size]
            yield rows, min(input_ids.shape[1], -(-int(lengths[rows].max()) // 6) * 6)


def measure(
    module: AgreementEncoder, settings: Settings, *, params: Any, seconds: float, command: str, n_bytes: int
) -> Run:
    """Measure the trained model for its card; the sentences are drawn here for the first time."""
    tokenizer = WordTokenizer(VOCABULARY, model_max_length=module.n_positions)
    held_out = generate(_REPORT, split="held_out", seed=settings.seed + 2_000)
    seen = generate(min(_REPORT, settings.n_sentences), split="train", seed=settings.seed)

    def table(examples: list[Example], params: Any) -> Table:
        input_ids = evaluate.encode(examples, tokenizer)
        return evaluate.accuracy_table(examples, evaluate.predict(module, input_ids, params=params))

    rules = {
        name: evaluate.accuracy_table(held_out, np.asarray([rule(example) for example in held_out]))
        for name, rule in evaluate.RULES_OF_THUMB.items()
    }
    return Run(
        command=command,
        seed=settings.seed,
        steps=settings.steps,
        settings={
            "sentences": f"{settings.n_sentences:,}",
            "batch": str(settings.batch_size),
            "optimiser": f"AdamW, learning rate {settings.learning_rate:g} after a warm-up, cosine to 0, "
            f"weight decay {settings.weight_decay:g}",
        },
        seconds=seconds,
        machine=f"{os.cpu_count()} {platform.machine()} cores, {jax.default_backend()}",
        versions=_versions(),
        n_parameters=sum(leaf.size for leaf in jax.tree.leaves(params)),
        n_bytes=n_bytes,
        table=table(held_out, params),
        train_table=table(seen, params),
        ablations=[table(held_out, evaluate.without_attention(params, layer=i)) for i in range(module.n_layers)],
        rules_of_thumb=rules,
        samples=held_out[:8],
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Train, write the weights and the card, print the accuracies."""
    arguments = _parser().parse_args(argv)
    settings = Settings(
        seed=arguments.seed,
        steps=arguments.steps,
        batch_size=arguments.batch_size,
        n_sentences=arguments.sentences,
        learning_rate=arguments.learning_rate,
        weight_decay=arguments.weight_decay,
    )
    module = AgreementEncoder()
    start = time.perf_counter()
    params, _ = train(module, settings)
    seconds = time.perf_counter() - start
    arguments.output.mkdir(parents=True, exist_ok=True)
    file = arguments.output / FILE
    made_by = {
        "seed": str(settings.seed),
        "steps": str(settings.steps),
        "jaxflow": _versions()["jaxflow"],
    }
    weights.write(params, file, made_by=made_by)
    run = measure(
        module,
        settings,
        params=params,
        seconds=seconds,
        command=_command(arguments),
        n_bytes=file.stat().st_size,
    )
    (arguments.output / "README.md").write_text(model_card(module, run), encoding="utf-8")
    for name, count, share in run.table:
        print(f"{name:40} {count:6} sentences  {100 * share:6.2f} %")
    print(f"{seconds:.0f} s; wrote {file} and its card")


def _command(arguments: argparse.Namespace) -> str:
    # Every setting, so that a default that changes later leaves the card true.
    options = {name.replace("_", "-"): value for name, value in vars(arguments).items()}
    words = [f"--{name}={value}" for name, value in options.items()]
    return shlex.join(["python", "-m", "jaxflow.zoo.agreement.train", *words])


def _versions() -> dict[str, str]:
    return {"jaxflow": __version__, **{name: version(name) for name in ("jax", "flax", "optax", "numpy")}}


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return number


def _seed(text: str) -> int:
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"{text} is negative")
    return number


def _parser() -> argparse.ArgumentParser:
    default = Settings()
    parser = argparse.ArgumentParser(
        prog="python -m jaxflow.zoo.agreement.train",
        description="Train the agreement model; write its weights and its model card.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--output", type=Path, default=Path("agreement"), help="directory to write to")
    add("--seed", type=_seed, default=default.seed, help="of sentences, parameters and batches")
    add("--steps", type=_positive, default=default.steps, help="steps of the optimiser")
    add("--batch-size", type=_positive, default=default.batch_size, help="sentences in a step")
    add("--sentences", type=_positive, default=default.n_sentences, help="training sentences to generate")
    add("--learning-rate", type=float, default=default.learning_rate, help="highest learning rate")
    add("--weight-decay", type=float, default=default.weight_decay, help="weight decay of AdamW")
    return parser


if __name__ == "__main__":
    main()
