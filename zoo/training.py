"""Train a model: settings, batches of similar length, and the loop with its progress bar.

Needs the extra `train` (optax). The same settings, machine and versions give the same weights.
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
    raise ImportError("training needs optax: pip install --editable '.[train]' in the checkout") from error

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
        batch_size: Examples per step.
        n_examples: Generated training examples; the epochs repeat them.
        learning_rate: Its peak, after a linear warm-up over 5 % of the steps; then a cosine to 0.
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
        params: The initial parameters.
        batches: One per step.
        settings: The settings.
        watch: `watch(params) -> {name: value}`, called every 250 steps for the progress bar.
        show_progress: Draw a bar on standard error, with the loss and the values of `watch`.

    Returns:
        The trained parameters, and the loss of every step.
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
    """Average the cross-entropy in nats, with weights if given: `sum(counts * loss) / sum(counts)`.

    Args:
        logits: `[*axes, label]`.
        labels: `[*axes]`, the correct labels.
        counts: `[*axes]`, the weights, such as 0 for padding.
    """
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return losses.mean() if counts is None else (losses * counts).sum() / counts.sum()


def rows_of_like_length(
    lengths: Int[np.ndarray, " example"], *, batch_size: int, seed: int
) -> Iterator[Int[np.ndarray, " batch"]]:
    """Draw the rows of batches, epoch after epoch without end; a batch holds examples of similar length.

    Otherwise most of a batch would be padding.

    Args:
        lengths: The length of each example.
        batch_size: Rows per batch.
        seed: Of the order.

    Yields:
        The indices of `batch_size` examples.
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
    """Give the width of a batch with rows of these lengths: the longest one, rounded up to a multiple of 6, at most `longest`."""
    return min(longest, -(-int(lengths.max()) // _WIDTH) * _WIDTH)
