"""Train a model of the zoo: settings, batches of like length, and the loop with its progress bar.

Needs the extra `train` (optax). The same settings on the same machine and versions give the same weights.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Int
from tqdm import tqdm

try:
    import optax
except ImportError as error:
    raise ImportError("training needs optax: pip install 'jaxflow[train]'") from error

# How many batches are drawn at once and sorted by length.
_BATCHES_SORTED = 16
# Widths of batches are multiples of this many tokens, so few shapes are compiled.
_WIDTH = 6
_WATCH_EVERY = 250


@dataclass(frozen=True)
class Settings:
    """How to train.

    Attributes:
        seed: Of examples, initial parameters and the order of batches.
        steps: Steps of the optimiser.
        batch_size: Examples in a step.
        n_examples: Training examples generated; passed over again and again.
        learning_rate: Highest, after a warm-up of a twentieth of the steps; falls to 0 along a cosine.
        weight_decay: Of AdamW.
    """

    seed: int = 0
    steps: int = 5_000
    batch_size: int = 128
    n_examples: int = 250_000
    learning_rate: float = 2e-3
    weight_decay: float = 0.01


def fit(
    loss_of: Callable[..., jax.Array],
    params: Any,
    *,
    batches: Iterator[tuple[np.ndarray, ...]],
    settings: Settings,
    watch: Callable[[Any], dict[str, float]] | None = None,
    show_progress: bool = True,
) -> tuple[Any, Float[np.ndarray, " step"]]:
    """Minimise a loss by AdamW.

    Args:
        loss_of: `loss_of(params, *batch) -> scalar`; compiled once for each shape of batch.
        params: Where to start.
        batches: One for each step.
        settings: How.
        watch: Measures parameters for the bar, now and then, by the names it gives.
        show_progress: Draw a bar with the loss and what `watch` gives on standard error.

    Returns:
        The parameters, and the loss of every step.
    """
    schedule = optax.warmup_cosine_decay_schedule(
        0.0, settings.learning_rate, max(1, settings.steps // 20), max(2, settings.steps)
    )
    optimiser = optax.adamw(schedule, weight_decay=settings.weight_decay)

    @jax.jit
    def step(params: Any, state: Any, *batch: jax.Array) -> tuple[Any, Any, jax.Array]:
        loss, gradient = jax.value_and_grad(loss_of)(params, *batch)
        updates, state = optimiser.update(gradient, state, params)
        return optax.apply_updates(params, updates), state, loss

    state = optimiser.init(params)
    losses = np.zeros(settings.steps)
    bar = tqdm(range(settings.steps), desc="training", disable=not show_progress, mininterval=1.0)
    for i in bar:
        params, state, loss = step(params, state, *next(batches))
        losses[i] = float(loss)
        if show_progress and (i % _WATCH_EVERY == _WATCH_EVERY - 1 or i + 1 == settings.steps):
            watched = {name: f"{value:.4f}" for name, value in (watch(params) if watch else {}).items()}
            bar.set_postfix(loss=f"{losses[max(0, i - 99) : i + 1].mean():.4f}", **watched)
    return params, losses


def cross_entropy(logits: Any, labels: jax.Array, counts: jax.Array | None = None) -> jax.Array:
    """Average the cross-entropy in nats over all labels, or over those that count.

    Args:
        logits: `[*axes, label]`.
        labels: `[*axes]`, the right ones.
        counts: `[*axes]`, which of them count, such as those that are no padding.
    """
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return losses.mean() if counts is None else (losses * counts).sum() / counts.sum()


def rows_of_like_length(
    lengths: Int[np.ndarray, " example"], *, batch_size: int, seed: int
) -> Iterator[Int[np.ndarray, " batch"]]:
    """Draw the rows of batches without end, every one once before any comes again.

    Examples of like length go together, since most of a batch would be padding otherwise.

    Args:
        lengths: Of all examples.
        batch_size: Rows in a batch.
        seed: Of the draw.

    Yields:
        The numbers of `batch_size` examples.
    """
    rng = np.random.default_rng(seed)
    order = np.zeros(0, np.int64)
    while True:
        while len(order) < _BATCHES_SORTED * batch_size:
            order = np.concatenate([order, rng.permutation(len(lengths))])
        together, order = order[: _BATCHES_SORTED * batch_size], order[_BATCHES_SORTED * batch_size :]
        together = together[np.argsort(lengths[together], kind="stable")]
        for k in rng.permutation(_BATCHES_SORTED):
            yield together[k * batch_size : (k + 1) * batch_size]


def width_of(lengths: Int[np.ndarray, " row"], *, longest: int) -> int:
    """Give the width of a batch that holds rows of these lengths: one of few, and `longest` at most."""
    return min(longest, -(-int(lengths.max()) // _WIDTH) * _WIDTH)
