"""The scale of a view's colours and bars: from 0 to the largest score, above and below 0 alike."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import ArrayLike, Bool, Float, Real

from jaxflow.explain import Explanation

Scores = Real[ArrayLike, "*shape"] | Sequence[float]


def largest_score(scores: Scores) -> float:
    """Return the largest absolute score; 0 where every score is 0 or unknown (NaN)."""
    return float(np.fmax.reduce(np.abs(np.asarray(scores)), axis=None, initial=0.0))


def end_of_scale(explanation: Explanation, scores: Real[ArrayLike, "*shape input"]) -> float:
    """Return the largest absolute score of the inputs that set the scale; of all, where these have none."""
    scores = np.asarray(scores)
    return largest_score(scores[..., scale_setters(explanation)]) or largest_score(scores)


def scale_setters(explanation: Explanation) -> Bool[np.ndarray, " input"]:
    """Tell which inputs set the scale of colours and bars.

    All of them, except of contributions: there special tokens do not, nor does the first token of a decoder that reads the text,
    since much of what any text has in common is parked on them.
    """
    sets = np.ones(len(explanation.tokens), bool)
    if explanation.method not in ("contributions", "contribution_flow"):
        return sets
    sets = np.array([kind != "special" for kind in explanation.token_kinds])
    if not explanation.encoder_tokens:
        sets[0] = False
    return sets if sets.any() else np.ones(len(sets), bool)


def scale_shares(scores: Scores, largest: float) -> Float[np.ndarray, "*shape"]:
    """Return what share of the scale scores have, with their sign.

    Args:
        scores: of any shape; NaN where unknown.
        largest: the score at the end of the scale, as `largest_score` finds it.

    Returns:
        As `scores`, in [-1, 1]: `scores / largest`; 0 where unknown, and everywhere if `largest` is 0.

    Example:
        >>> scale_shares([0.5, -1.0, np.nan], 2.0).tolist()
        [0.25, -0.5, 0.0]
    """
    return np.asarray(np.clip(np.nan_to_num(np.asarray(scores, np.float64)) / (largest or 1.0), -1, 1))
