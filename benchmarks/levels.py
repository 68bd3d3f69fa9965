"""Do contributions add up: a target that fits any model, and how far the levels of its contributions are off."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxflow as jf

POSITION = 3  # one that is padded in none of the inputs


def largest(outputs: Any) -> jax.Array:
    """Return the number of a position that is farthest from 0, for each example: a logit, or an entry of a hidden state.

    Far from 0, since differences are relative.
    """
    if isinstance(outputs, tuple):  # logits, and a cache
        outputs = outputs[0]
    if not hasattr(outputs, "ndim"):  # a class of transformers
        outputs = getattr(outputs, "logits", getattr(outputs, "last_hidden_state", None))
    row = outputs[..., POSITION, :]
    return jnp.take_along_axis(row, jnp.abs(row).argmax(-1)[..., None], -1)[..., 0]


def off_by(contributions: jf.Contributions) -> float:
    """Return by how much of the target a level's sum differs from it at most, over all levels of all stacks."""
    found = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), contributions)
    value, levels, worst = found.value[..., None], found.levels, 0.0
    above = np.zeros(1)
    if "decoder" in levels:
        sums = np.asarray(levels["decoder"], np.float64).sum(-1)
        if found.cross is not None:  # what has left for the encoder above a level
            taken = found.cross.sum((-2, -1))
            left = np.flip(np.cumsum(np.flip(taken, -1), -1), -1)
            sums = sums + np.concatenate([left, np.zeros_like(left[..., :1])], -1)
        worst, above = relative(sums, value), np.asarray(levels["decoder"], np.float64)[..., 0, :].sum(-1)[..., None]
    if "encoder" in levels:
        worst = max(worst, relative(np.asarray(levels["encoder"], np.float64).sum(-1) + above, value))
    return worst


def relative(sums: np.ndarray, value: np.ndarray) -> float:
    return float((np.abs(sums - value) / np.abs(value)).max())
